/* Inside of a simulated world, shared by the files of csrc/sim that make it up: world.c (nodes and
 * time), process.c (their lives),
 * links.c and ways.c (network), clients.c, faults.c (disks and clocks), damage.c (lost data),
 * look.c (stores). */
#ifndef DKV_SIM_STATE_H
#define DKV_SIM_STATE_H

#include "base/bytes.h"
#include "base/map.h"
#include "base/rand.h"
#include "sim/disk.h"
#include "sim/queue.h"
#include "sim/world.h"

/* Real machines hear of a refused connection after a round trip, of a dead machine after this. */
#define DKV_SIM_DEAD_MACHINE_NS (500 * 1000000LL)
/* How long after its deadline a client still waits for the node's own answer. */
#define DKV_SIM_GRACE_MS 250u

typedef enum dkv_sim_item_kind {
    DKV_SIM_ITEM_SYN,
    DKV_SIM_ITEM_OPENED,
    DKV_SIM_ITEM_DATA,
    DKV_SIM_ITEM_CLOSED,
} dkv_sim_item_kind;

typedef struct dkv_sim_item {
    struct dkv_sim_item *next;
    dkv_sim_item_kind kind;
    dkv_buf bytes; /* DATA */
} dkv_sim_item;

/* Items on their way in one direction. For each of them there is either an ARRIVE event in the
 * queue or one count in `stalled`. */
typedef struct dkv_sim_pipe {
    dkv_sim_item *head, *tail;
    uint32_t stalled;     /* items that wait for the way to be joined */
    int64_t last_arrival; /* no later item may be due earlier */
    dkv_buf out;          /* what the current step has sent so far */
    bool once;            /* ... has a client's request in it: it does not arrive twice */
} dkv_sim_pipe;

typedef struct dkv_sim_end {
    uint16_t node;
    bool open; /* the node's process knows the link; it is in its `links` */
    dkv_link number;
} dkv_sim_end;

typedef struct dkv_sim_link {
    struct dkv_sim_link *next, *prev; /* in world->links */
    dkv_sim_end ends[2];              /* 0: who opened it */
    dkv_sim_pipe pipes[2];            /* i: from ends[i] to the other */
    bool is_open;                     /* the opener has heard of it */
    bool is_broken;
    uint32_t refs; /* open ends and events; unlinked and freed with the last */
} dkv_sim_link;

#define DKV_SIM_DECLARATION UINT64_MAX /* the handle of every declaration */

/* A record that a flipped bit or an unreadable place has destroyed. */
typedef struct dkv_sim_loss {
    uint64_t token;
    dkv_version version;
    int64_t at;
    bool unseen; /* so near the end of the log that no record behind it tells */
} dkv_sim_loss;

typedef struct dkv_sim_node {
    dkv_world *world;
    uint16_t index;
    dkv_node *node; /* NULL: the process does not run */
    dkv_sim_disk *disk;
    bool machine_on;
    bool paused;
    bool doomed;    /* asked to be stopped in this step */
    bool stopping;  /* takes no more requests */
    uint32_t life;  /* number of process starts */
    uint32_t boots; /* of the machine, but for the first */
    uint32_t fatals;
    int64_t origin_ns; /* this process's monotonic clock is the world's plus this */
    int64_t skew_ms;
    int64_t tick_at; /* the only TICK event that counts; INT64_MAX: none */
    int64_t damaged_at, emptied_at, end_damaged_at, wiped_at; /* see damage.c; −1: never */
    uint64_t store_id;                                        /* of the store opened last */
    dkv_sim_loss *losses;                                     /* in order of time */
    size_t n_losses, losses_cap;
    int declared;       /* what was said to the last declaration that a node is lost */
    char *declared_why; /* DKV_DETAIL_MAX bytes for a sentence about it; NULL afterwards */
    int64_t paused_since, paused_ns;
    uint32_t disk_max_us;      /* 0: the world's */
    uint64_t disk_bytes_per_s; /* 0: no limit */
    int64_t disk_busy_until;
    dkv_link last_accepted;
    dkv_map links;       /* number -> dkv_sim_link */
    dkv_sim_event *held; /* that happened to it while it was paused */
    size_t n_held, held_cap;
} dkv_sim_node;

typedef struct dkv_sim_loose_end {
    dkv_sim_link *link; /* holds a reference */
    uint8_t side;
} dkv_sim_loose_end;

struct dkv_world {
    dkv_world_options options; /* without zeros; map and its pointers unused */
    dkv_ring *ring;
    const dkv_cluster_map *map; /* the ring's */
    dkv_rand rand;
    int64_t now;
    int err; /* sticky */
    dkv_sim_queue queue;
    dkv_trace trace;
    dkv_sim_witness witness; /* may be NULL */
    void *witness_user;
    uint64_t n_messages, n_events, n_broken, n_disturbed;

    dkv_sim_node *nodes;
    uint16_t n_nodes;

    bool *cuts;        /* [from * n_nodes + to] */
    dkv_map slow_ways; /* from * n_nodes + to -> what ways.c knows of it */
    dkv_sim_link *links;
    dkv_sim_item *spare_items;    /* to save allocations */
    dkv_sim_loose_end *unflushed; /* pipes that the current step has sent into */
    size_t n_unflushed, unflushed_cap;

    dkv_sim_op *ops;
    size_t n_ops, ops_cap;
    dkv_sim_attempt *attempts; /* attempt number - 1 */
    size_t n_attempts, attempts_cap;
    uint64_t *taken; /* attempts that a node has taken and not answered */
    size_t n_taken, taken_cap;
};

/* ---- world.c ---- */

/* Doubles `*items` when it is full. NO_MEMORY is also the world's. */
int dkv_sim_make_room(dkv_world *world, void **items, size_t n, size_t *cap, size_t item_bytes);

void dkv_sim_schedule(dkv_world *world, dkv_sim_event event);

/* Adds to the trace what happened at `sn`; `a` goes into the hash. */
void dkv_sim_note(dkv_sim_node *sn, dkv_trace_kind kind, uint64_t a, const char *text);

/* Even in min..max. */
int64_t dkv_sim_between(dkv_world *world, int64_t min, int64_t max);

/* True about `ppm` times in a million. */
bool dkv_sim_chance(dkv_world *world, uint32_t ppm);

/* Steps a running node; several steps make one batch ... */
void dkv_sim_step(dkv_sim_node *sn, dkv_event *event);
/* ... that ends with this: what was sent leaves, and a TICK is on its way. */
void dkv_sim_settle(dkv_sim_node *sn);

/* Makes sure of a TICK at `at` or earlier. */
void dkv_sim_wake(dkv_sim_node *sn, int64_t at);

/* Lets the next event happen. */
void dkv_sim_run_one(dkv_world *world);

/* ---- process.c ---- */

/* Ends the process, whatever the cause. */
void dkv_sim_process_died(dkv_sim_node *sn);

/* How to open the store of a node. */
dkv_store_options dkv_sim_store_options(const dkv_sim_node *sn, uint64_t new_store_id);

/* Runs the jobs of a store until it has something to say. INTERNAL if it has not. */
int dkv_sim_store_event(dkv_store *store, dkv_sim_disk *disk, dkv_store_event *event);

/* Opens the store of a node whose process does not run. *out is owned by the caller. */
int dkv_sim_open_store(dkv_sim_node *sn, dkv_store **out);

int64_t dkv_sim_paused_ns(const dkv_sim_node *sn);

/* ---- faults.c ---- */

/* How long the disk of `sn` takes from now on for a job that moves so many bytes. */
int64_t dkv_sim_disk_delay(dkv_sim_node *sn, uint32_t bytes);

/* ---- ways.c ---- */

/* Sets the zeros of `net` to the defaults. */
void dkv_sim_net_defaults(dkv_net_options *net);

/* Between a client and a node. */
int64_t dkv_sim_latency(dkv_world *world);

/* For so many bytes sent now from one node to another. */
int64_t dkv_sim_way_delay(dkv_world *world, uint16_t from, uint16_t to, size_t bytes);

/* How long `bytes` take through something that lets `bytes_per_s` pass (0: any number) and is busy
 * until *busy_until, which moves on. */
int64_t dkv_sim_queueing(const dkv_world *world, int64_t *busy_until, size_t bytes,
                         uint64_t bytes_per_s);

bool dkv_sim_is_cut(const dkv_world *world, uint16_t from, uint16_t to);

void dkv_sim_ways_free(dkv_world *world);

/* ---- links.c ---- */

/* The effects connect, close and send. */
void dkv_sim_link_connect(dkv_sim_node *sn, uint16_t peer, dkv_link number);
void dkv_sim_link_close(dkv_sim_node *sn, dkv_link number);
void dkv_sim_link_send(dkv_sim_node *sn, dkv_link number, const dkv_message *message);

/* Sends off what the step has sent. */
void dkv_sim_links_flush(dkv_world *world);

/* The events ARRIVE, CONNECT_EXPIRE and BREAK; they give up the event's reference. */
void dkv_sim_link_arrive(dkv_world *world, const dkv_sim_event *event);
void dkv_sim_link_expire(dkv_world *world, const dkv_sim_event *event);
void dkv_sim_link_break(dkv_world *world, const dkv_sim_event *event);

/* Lets go of an event that will never happen. */
void dkv_sim_link_unref(dkv_world *world, dkv_sim_link *link);

/* The process of `sn` has died; its machine closes its links if it is on. */
void dkv_sim_links_died(dkv_sim_node *sn);

/* Sends on what waited for a way or a machine that can be used again. */
void dkv_sim_links_release(dkv_world *world);

void dkv_sim_links_free(dkv_world *world);

/* ---- clients.c ---- */

/* The events ASK, ANSWER, HEDGE and GIVE_UP. */
void dkv_sim_client_ask(dkv_world *world, uint64_t attempt);
void dkv_sim_client_answer(dkv_world *world, uint64_t attempt);
void dkv_sim_client_hedge(dkv_world *world, uint64_t op);
void dkv_sim_client_give_up(dkv_world *world, uint64_t op);

/* The effect reply. */
void dkv_sim_client_reply(dkv_sim_node *sn, uint64_t handle, const dkv_reply *reply);

/* The process of `sn` has died; clients hear of it if its machine is on. */
void dkv_sim_clients_died(dkv_sim_node *sn);

void dkv_sim_clients_free(dkv_world *world);

#endif
