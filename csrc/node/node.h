/* A node of the cluster as a state machine without I/O.
 *
 * Events go in through dkv_node_step, effects leave through the calls of dkv_effects during the
 * step. Time arrives in the event, randomness from a seed. The same object code runs behind real
 * sockets and disks (csrc/host) and in the simulator (csrc/sim). One thread owns a node. */
#ifndef DKV_NODE_NODE_H
#define DKV_NODE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "member/peers.h"
#include "member/trust.h"
#include "model/disk.h"
#include "model/effects.h"
#include "model/message.h"
#include "model/request.h"
#include "replica/heal.h"
#include "ring/ring.h"
#include "store/store.h"

typedef struct dkv_node dkv_node;

typedef enum dkv_event_kind {
    /* Time has passed, or the end of a batch of other events: due timers fire and disk jobs leave.
     * The host sends one after each batch and at the latest at dkv_node_next_timer. */
    DKV_EVENT_TICK,
    DKV_EVENT_REQUEST,       /* a client asks; answered by exactly one `reply` with its handle */
    DKV_EVENT_LINK_OPENED,   /* a link asked for by `connect` can now be used */
    DKV_EVENT_LINK_ACCEPTED, /* a peer opened `link` */
    DKV_EVENT_LINK_CLOSED,   /* `link`, of either kind, is gone, or could not be opened */
    DKV_EVENT_MESSAGE,       /* `message` came in on `link` */
    DKV_EVENT_DISK_DONE,     /* `job` was performed */
    DKV_EVENT_DECLARE_LOST,  /* the operator's word that the store of a member is gone for good;
                                answered by one `reply` with its handle, once it is durable */
    DKV_EVENT_STOP,          /* the node is being stopped: writes that have not begun are refused */
} dkv_event_kind;

typedef struct dkv_event {
    dkv_event_kind kind;
    int64_t now_ns;   /* monotonic */
    uint64_t wall_ms; /* since 1970; may jump */
    union {
        struct {
            uint64_t handle;            /* the host's name for the request */
            const dkv_request *request; /* borrows for the step */
        } request;
        dkv_link link; /* LINK_* */
        struct {
            dkv_link link;
            const dkv_message *message; /* borrows for the step */
        } message;
        dkv_disk_job *job; /* DISK_DONE: given back */
        struct {
            uint64_t handle;  /* as of a request */
            dkv_slice member; /* its id; borrows for the step */
        } declare_lost;
    };
} dkv_event;

typedef struct dkv_node_options {
    const dkv_cluster_map *map; /* copied; unused if there is a `ring` */
    const dkv_ring *ring;       /* borrows, so that many nodes can share one; NULL: made of `map` */
    const char *id;             /* which member this node is */
    dkv_store *store;           /* open; taken on success */
    uint64_t seed;
    dkv_timing timing;  /* zeros for the defaults */
    uint32_t hints_max; /* waiting in this node; 0 for the default, see replica/heal.h */
} dkv_node_options;

/* *out is owned by the caller. INVALID if the map is not valid or has no member `id`; PROTOCOL if
 * the store's facts cannot be read; EPOCH if the store was filled under another map; NO_MEMORY. */
int dkv_node_new(const dkv_node_options *options, dkv_node **out);

/* Frees the node and its store (memory only: see dkv_store_del). Accepts NULL. */
void dkv_node_del(dkv_node *node);

void dkv_node_step(dkv_node *node, const dkv_event *event, const dkv_effects *effects);

/* When the next DKV_EVENT_TICK is due at the latest (monotonic ns), INT64_MAX if never. */
int64_t dkv_node_next_timer(const dkv_node *node);

/* Borrows from the node. */
const dkv_ring *dkv_node_ring(const dkv_node *node);
dkv_store *dkv_node_store(dkv_node *node);

/* True when nothing is under way: no request, no unsynced record, no disk job. A node that is being
 * stopped is given no more requests and stepped until it is idle. */
bool dkv_node_idle(const dkv_node *node);

typedef struct dkv_node_status {
    uint16_t self;  /* index in the map */
    bool in_sync;   /* this store has lost nothing that it confirmed */
    bool clock_off; /* more than DKV_DRIFT_MAX_MS off the majority of peers: does not coordinate */
    uint32_t requests;            /* under way */
    uint64_t gets, puts, deletes; /* client requests answered since the start */
    uint64_t failed;              /* among them, with an error other than NOT_FOUND */
    uint64_t scrub_ms; /* when the last scrub pass ended, since 1970; 0: none since the start */
    dkv_store_stats store;
    dkv_heal_status heal;
    uint32_t shares;         /* token ranges that this node replicates */
    uint32_t shares_in_sync; /* among them */
} dkv_node_status;

void dkv_node_status_get(const dkv_node *node, dkv_node_status *out);

/* What this node replicates, and where its store may be believed; borrows from the node. */
const dkv_trust *dkv_node_trust(const dkv_node *node);

/* How this node sees member `peer` (itself: UP). */
dkv_reach dkv_node_reach(const dkv_node *node, uint16_t peer);

#endif
