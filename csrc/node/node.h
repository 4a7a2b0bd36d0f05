/* A node of the cluster as a state machine without I/O.
 *
 * Events go in through dkv_node_step, effects leave through the calls of dkv_effects during the
 * step. Time arrives in the event, randomness from a seed. The same object code runs behind real
 * sockets and disks (csrc/host) and in the simulator (csrc/sim). One thread owns a node. */
#ifndef DKV_NODE_NODE_H
#define DKV_NODE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/disk.h"
#include "model/message.h"
#include "model/request.h"
#include "ring/ring.h"
#include "store/store.h"

#define DKV_REQUESTS_MAX 65536u /* client requests under way in one node; more are BUSY */

typedef struct dkv_node dkv_node;

/* A link between two nodes, see model/message.h. Links that the node opens get odd numbers from
 * it, links that it accepts get even numbers, not 0, from the host; no number is used twice. */
typedef uint64_t dkv_link;

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
    };
} dkv_event;

typedef enum dkv_log_level {
    DKV_LOG_ERROR,
    DKV_LOG_WARN,
    DKV_LOG_INFO,
    DKV_LOG_DEBUG
} dkv_log_level;

/* What the node does to the world. The functions are called during dkv_node_step and must not call
 * the node; what they are given borrows for the call. All are required. */
typedef struct dkv_effects {
    void *user;
    /* Open `link` to member `peer` of the map; LINK_OPENED or LINK_CLOSED will follow. */
    void (*connect)(void *user, uint16_t peer, dkv_link link);
    /* Close `link`; no event about it follows. */
    void (*close)(void *user, dkv_link link);
    /* Send on `link`; lost without notice if the link breaks. */
    void (*send)(void *user, dkv_link link, const dkv_message *message);
    void (*reply)(void *user, uint64_t handle, const dkv_reply *reply);
    /* Perform `job` (the store's memory) and give it back with DKV_EVENT_DISK_DONE. */
    void (*disk)(void *user, dkv_disk_job *job);
    /* One line for the operator. */
    void (*log)(void *user, dkv_log_level level, const char *text);
    /* The store can no longer keep its promises: stop the process after logging `text`. */
    void (*fatal)(void *user, int err, const char *text);
} dkv_effects;

/* Times in milliseconds; 0 stands for the default. */
typedef struct dkv_node_timing {
    uint32_t attempt_ms; /* how long one replica may take before a read asks the next: 40 */
    uint32_t connect_ms; /* how long a write waits for a link being opened: 500 */
    uint32_t ping_ms;    /* silence of a peer that owes an answer before it is pinged: 250 */
    uint32_t silence_ms; /* ... before it is taken for dead: 1500 */
    uint32_t retry_ms;   /* pause before the next connection to a dead peer, growing to 4 ×: 250 */
    uint32_t idle_ms;    /* an unused link is closed after this: 60000 */
} dkv_node_timing;

typedef struct dkv_node_options {
    const dkv_cluster_map *map; /* copied */
    const char *id;             /* which member this node is */
    dkv_store *store;           /* open; taken on success */
    uint64_t seed;
    dkv_node_timing timing;
} dkv_node_options;

/* *out is owned by the caller. INVALID if the map is not valid or has no member `id`; PROTOCOL if
 * the store's facts cannot be read; NO_MEMORY. */
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

typedef enum dkv_reach {
    DKV_REACH_UNKNOWN,    /* no link, none was needed */
    DKV_REACH_CONNECTING, /* a link is being opened */
    DKV_REACH_UP,
    DKV_REACH_DOWN, /* refused, broken or silent */
} dkv_reach;

typedef struct dkv_node_status {
    uint16_t self;  /* index in the map */
    bool in_sync;   /* this store has lost nothing that it confirmed */
    bool clock_off; /* more than DKV_DRIFT_MAX_MS off the majority of peers: does not coordinate */
    uint32_t requests;            /* under way */
    uint64_t gets, puts, deletes; /* client requests answered since the start */
    uint64_t failed;              /* among them, with an error other than NOT_FOUND */
    dkv_store_stats store;
} dkv_node_status;

void dkv_node_status_get(const dkv_node *node, dkv_node_status *out);

/* How this node sees member `peer` (itself: UP). */
dkv_reach dkv_node_reach(const dkv_node *node, uint16_t peer);

#endif
