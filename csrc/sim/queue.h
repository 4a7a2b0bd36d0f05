/* The simulator's future: everything that is going to happen, in order of time and, at one time,
 * in the order in which it was asked for.
 *
 * What is due soon is in a min-heap of events by value. What is due later is in slots of time, one
 * behind the other and each without order; a slot is poured into the heap when its time comes. So
 * the heap stays small, although most events are time-outs far ahead that come to nothing.
 *   1. An event of slot s is in the heap if s <= poured or s >= poured + DKV_SIM_SLOTS, and in
 *      slots[s % DKV_SIM_SLOTS] otherwise.
 *   2. The heap has room for all events, so pouring never fails. */
#ifndef DKV_SIM_QUEUE_H
#define DKV_SIM_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/disk.h"

typedef enum dkv_sim_event_kind {
    DKV_SIM_TICK,           /* a node's loop comes round, or its timer is due */
    DKV_SIM_DISK_DONE,      /* a node gets a disk job back */
    DKV_SIM_ARRIVE,         /* the first item of a link's pipe reaches the other end */
    DKV_SIM_CONNECT_EXPIRE, /* a link that is still not open is given up */
    DKV_SIM_BREAK,          /* an end of a broken link notices */
    DKV_SIM_ASK,            /* a client's request reaches a node */
    DKV_SIM_ANSWER,         /* what became of it reaches the client */
    DKV_SIM_HEDGE,          /* a client has waited long enough for one node */
    DKV_SIM_GIVE_UP,        /* a client has waited long enough altogether */
} dkv_sim_event_kind;

struct dkv_sim_link;

typedef struct dkv_sim_event {
    int64_t time_ns;
    uint64_t sequence; /* given by the queue */
    uint32_t life;     /* TICK, DISK_DONE: of the node's process; void in any other life */
    uint16_t node;     /* whom it happens to, if to a node */
    uint8_t kind;      /* dkv_sim_event_kind */
    uint8_t side;      /* of `link`: the sender of what arrives; the end that notices */
    union {
        struct dkv_sim_link *link; /* ARRIVE, CONNECT_EXPIRE, BREAK: holds a reference */
        dkv_disk_job *job;         /* DISK_DONE */
        uint64_t id;               /* ASK, ANSWER: attempt; HEDGE, GIVE_UP: operation */
    };
} dkv_sim_event;

#define DKV_SIM_SLOT_BITS 23 /* a slot is 2^23 ns long: 8.4 ms */
#define DKV_SIM_SLOTS 1024u  /* 8.6 s */

typedef struct dkv_sim_slot {
    dkv_sim_event *events;
    size_t len;
    size_t cap;
} dkv_sim_slot;

/* All zero is a valid empty queue. */
typedef struct dkv_sim_queue {
    dkv_sim_event *heap;
    size_t len;
    size_t cap;
    size_t later;   /* events in all slots */
    int64_t poured; /* number of the last slot that is in the heap */
    uint64_t sequence;
    dkv_sim_slot slots[DKV_SIM_SLOTS];
} dkv_sim_queue;

/* Adds a copy of `event`, not before 0, with the next sequence number. NO_MEMORY adds nothing. */
int dkv_sim_queue_push(dkv_sim_queue *queue, dkv_sim_event event);

/* Takes the earliest event; false if there is none. */
bool dkv_sim_queue_pop(dkv_sim_queue *queue, dkv_sim_event *out);

/* When the earliest event is due; INT64_MAX if there is none. */
int64_t dkv_sim_queue_next(dkv_sim_queue *queue);

/* Frees the memory of the queue, not what the events refer to. Accepts NULL. */
void dkv_sim_queue_free(dkv_sim_queue *queue);

#endif
