/* The simulated network: links between nodes that behave like TCP connections.
 *
 * A link has two ends and, in each direction, a pipe. What is sent during one step of a node leaves
 * as one item (a batch of encoded messages); items of a pipe arrive in order, each after a random
 * delay. Opening (SYN), the answer to it (OPENED), and the end (CLOSED) are items too, so they keep
 * their place in the order.
 *
 *   Cut way, dead machine   items wait, and arrive in order when the way is joined or the machine
 *                           is back; a link that is not open after connect_timeout_ms is given up.
 *                           Nobody is told anything: silence.
 *   Dead process            its machine closes its links, and answers CLOSED to what still comes.
 *   Break (break_ppm)       both ends hear that the link is closed; what was under way is lost.
 *
 * A *datagram* network is one with drop_ppm, duplicate_ppm or reorder_ppm: batches inside a link
 * get lost, arrive twice, or overtake. No TCP stream does that; it shows that a node survives it.
 */
#ifndef DKV_SIM_NET_H
#define DKV_SIM_NET_H

#include <stdint.h>

/* Zeros stand for the defaults. Probabilities are in millionths per batch. */
typedef struct dkv_net_options {
    uint32_t latency_min_us;     /* 50 */
    uint32_t latency_max_us;     /* 500; evenly distributed between the two ... */
    uint32_t slow_ppm;           /* ... but for these, which take up to 40 × the maximum */
    uint32_t connect_timeout_ms; /* 1000 */
    uint32_t break_ppm;
    uint32_t drop_ppm;
    uint32_t duplicate_ppm;
    uint32_t reorder_ppm;
} dkv_net_options;

#endif
