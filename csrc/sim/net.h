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
 *   Slow way                has latencies of its own, and takes so many bytes a second.
 *   Break (break_ppm)       both ends hear that the link is closed; what was under way is lost.
 *
 * A *datagram* network is one with drop_ppm, duplicate_ppm or reorder_ppm: batches inside a link
 * get lost, arrive twice, or overtake. No TCP stream does that; it shows that a node survives it.
 * Only a client's request that is forwarded never arrives twice: each copy would be a request of
 * its own, with an outcome of its own.
 */
#ifndef DKV_SIM_NET_H
#define DKV_SIM_NET_H

#include <stdbool.h>
#include <stdint.h>

/* How long a message takes. Evenly distributed between the two limits, which may be equal; or, with
 * a heavy tail, log-normal: half of all take less than low_us, one in a hundred more than high_us,
 * and some far more. */
typedef struct dkv_latency {
    uint32_t low_us;
    uint32_t high_us;
    bool heavy_tail;
} dkv_latency;

/* What one way, from a node to another, is like. */
typedef struct dkv_way {
    dkv_latency latency;  /* zeros: as that of the whole net */
    uint64_t bytes_per_s; /* what is sent waits for what was sent before it; 0: no limit */
} dkv_way;

/* Zeros stand for the defaults. Probabilities are in millionths per batch. */
typedef struct dkv_net_options {
    dkv_latency latency;         /* 50 to 500 */
    uint32_t slow_ppm;           /* of batches: these take up to 40 × high_us */
    uint32_t connect_timeout_ms; /* 1000 */
    uint32_t break_ppm;
    uint32_t drop_ppm;
    uint32_t duplicate_ppm;
    uint32_t reorder_ppm;
} dkv_net_options;

#endif
