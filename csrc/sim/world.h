/* A simulated world: nodes, the network between them, their disks and clocks, and clients, all
 * driven by one queue of events and one seed. Nothing here takes real time or depends on anything
 * but the options and the calls made, so the same calls give the same world, event by event.
 *
 * What is simulated, and how:
 *   Node      the real dkv_node over the real store; its messages pass through the real codec.
 *             A process can crash (its machine lives on: peers see their links break), be paused,
 *             be stopped cleanly, and be started again on what its disk holds.
 *   Machine   can lose power: nothing of it answers, and what its disk had not synced may be lost.
 *   Network   see sim/net.h. Clients reach every node that runs; only links between nodes are cut.
 *   Disk      see sim/disk.h. Jobs take effect in order, completions come in any order.
 *   Clocks    one monotonic time with an own origin for every process; a wall clock per machine.
 *   Clients   route as csrc/client does: a read asks the owner, then the other replicas, also when
 *             one is slow; a write goes to one coordinator, and to another only when nothing was
 *             sent. A client gives an operation up shortly after its deadline.
 *
 * Nodes are named by their index in the map. Functions that take one need a valid one. */
#ifndef DKV_SIM_WORLD_H
#define DKV_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "model/effects.h"
#include "node/node.h"
#include "sim/net.h"
#include "sim/trace.h"

#define DKV_SIM_OPS_MAX 16777216u /* operations in one world */
#define DKV_SIM_ANY (-1)          /* `via`: route as a client that knows the ring does */

typedef struct dkv_world dkv_world;

/* Sees every message when it is sent. Must not call the world. */
typedef void (*dkv_sim_witness)(void *user, uint16_t from, uint16_t to, const dkv_message *message);

typedef struct dkv_world_options {
    uint64_t seed;
    const dkv_cluster_map *map; /* copied */
    dkv_timing timing;          /* zeros for the defaults */
    dkv_net_options net;        /* zeros for the defaults */
    uint32_t disk_max_us;       /* a disk job takes 1 up to this; 0 = 400 */
    uint32_t loop_max_us;       /* a node's loop comes round within this; 0 = 20 */
    uint32_t hedge_ms;          /* a client's patience with one node when reading; 0 = 40 */
    uint32_t segment_bytes;     /* see dkv_store_options, likewise ... */
    uint64_t unsynced_max_bytes;
    dkv_durability durability;
    uint32_t interval_ms; /* 0 = 100 */
    uint32_t hints_max;   /* of a node, see dkv_node_options */
    uint64_t scrub_bytes_per_s;
    uint32_t scrub_interval_ms;
    bool acquainted; /* the nodes know each other's stores, which are in sync, as in a cluster that
                        has run for a while; otherwise all of them have to meet first */
    bool keep_trace; /* keep the entries of the trace, not only its hash */
} dkv_world_options;

/* Makes the world and starts every node on an empty disk. *out is owned by the caller. INVALID if
 * no ring can be built from the map; NO_MEMORY. */
int dkv_world_new(const dkv_world_options *options, dkv_world **out);

/* Accepts NULL. */
void dkv_world_del(dkv_world *world);

/* From now on `witness` sees what is sent; NULL: nobody does. */
void dkv_world_watch(dkv_world *world, dkv_sim_witness witness, void *user);

/* ---- time ---- */

/* Virtual time since the world began. */
int64_t dkv_world_now(const dkv_world *world);

/* Lets everything happen that is due in the next `ns`. NO_MEMORY ends the world: every later call
 * returns it again. */
int dkv_world_run_for(dkv_world *world, int64_t ns);

/* Runs until operation `op` is done (it will be: clients give up). */
int dkv_world_run_until_done(dkv_world *world, uint64_t op);

/* Either in parts, for a caller that has other things to look at: runs `max` events, but none that
 * is due after `end_ns`, nor any after operation `op` (DKV_WORLD_NO_OP: whatever) is done. Returns
 * whether it is to be called again; what remains is a call of one of the above. */
#define DKV_WORLD_NO_OP UINT64_MAX
bool dkv_world_run_some(dkv_world *world, int64_t end_ns, uint64_t op, uint32_t max);

/* ---- clients ---- */

typedef struct dkv_sim_nodes {
    uint8_t n;
    uint16_t nodes[DKV_REPLICATION_MAX];
} dkv_sim_nodes;

/* A reply, with everything that it refers to. */
typedef struct dkv_sim_result {
    int err;
    dkv_outcome outcome;
    dkv_version version;
    dkv_slice value; /* owned by the world */
    dkv_sim_nodes holding;
    dkv_sim_nodes missing;
    char *detail; /* owned by the world; NULL if err is 0 */
} dkv_sim_result;

/* One operation as its client lived it. */
typedef struct dkv_sim_op {
    dkv_request request; /* slices owned by the world */
    int via;
    uint32_t client;
    int64_t invoked_ns;
    int64_t answered_ns; /* −1: not yet */
    dkv_sim_result result;
    uint64_t result_attempt;               /* that ended it; 0: the client's own judgement */
    uint16_t targets[DKV_REPLICATION_MAX]; /* nodes to ask, in this order */
    uint8_t n_targets;
    uint8_t n_asked;       /* of them */
    uint8_t n_waiting;     /* asked and not heard of */
    uint64_t last_attempt; /* 0: none */
} dkv_sim_op;

/* One request sent to one node for an operation. */
typedef struct dkv_sim_attempt {
    uint64_t op;
    uint64_t previous; /* attempt of the same operation; 0: none */
    uint16_t node;
    uint32_t life;       /* of the process that took it */
    int64_t arrived_ns;  /* at the node; −1: never taken by a running process */
    int64_t replied_ns;  /* by the node; −1: not yet */
    int64_t active_ns;   /* between the two, without the time that the process was paused */
    int64_t paused_base; /* the process's paused time on arrival */
    uint32_t replies;    /* must never exceed one */
    bool cut_off;        /* the process died before it replied */
    bool refused;        /* nobody took it: certainly nothing happened */
    dkv_sim_result result;
} dkv_sim_attempt;

/* Submits a copy of `request` now, by way of node `via` or DKV_SIM_ANY, and returns in *op the
 * operation's number, counted from 0. INVALID above DKV_SIM_OPS_MAX; NO_MEMORY. */
int dkv_world_submit(dkv_world *world, uint32_t client, int via, const dkv_request *request,
                     uint64_t *op);

uint64_t dkv_world_ops(const dkv_world *world);
/* Borrows until the next submit. */
const dkv_sim_op *dkv_world_op(const dkv_world *world, uint64_t op);
/* Attempts are numbered from 1 up to this. Borrows until the world runs on. */
uint64_t dkv_world_attempts(const dkv_world *world);
const dkv_sim_attempt *dkv_world_attempt(const dkv_world *world, uint64_t attempt);

/* ---- nodes and machines ---- */

bool dkv_world_is_running(const dkv_world *world, uint16_t node);
bool dkv_world_is_paused(const dkv_world *world, uint16_t node);

/* Kills the process; the machine and its page cache live on. Nothing if it does not run. */
void dkv_world_crash(dkv_world *world, uint16_t node);

/* Takes the machine's power: the process dies, peers hear nothing, unsynced data may be lost. */
void dkv_world_power_cut(dkv_world *world, uint16_t node);

/* Stops the process cleanly: it ends what it is doing (time passes), then closes its store.
 * PRECONDITION if it is not running or paused; DEADLINE if it did not get idle within 30 s. */
int dkv_world_stop(dkv_world *world, uint16_t node);

/* Switches the machine on and starts the process on what the disk holds. 0 if it runs already; else
 * as dkv_store_open and dkv_node_new. */
int dkv_world_start(dkv_world *world, uint16_t node);

/* Says to `node` as its operator that the store that `lost` had is gone for good, which should be
 * true. It is recorded with the node's next writes. UNAVAILABLE if the node does not run; else the
 * node's own refusal. An error comes with a sentence in `why` (DKV_DETAIL_MAX bytes). */
int dkv_world_declare_lost(dkv_world *world, uint16_t node, uint16_t lost, char *why);

/* SIGSTOP and SIGCONT: a paused process does nothing, its machine still takes what is sent. */
void dkv_world_pause(dkv_world *world, uint16_t node);
void dkv_world_resume(dkv_world *world, uint16_t node);

/* Sets the machine's wall clock `ms` off the true time, from now on (a jump). */
void dkv_world_skew(dkv_world *world, uint16_t node, int64_t ms);

/* Replaces the disk by an empty one. PRECONDITION while the process runs. */
int dkv_world_wipe(dkv_world *world, uint16_t node);

/* Flips one bit somewhere in what the disk holds of the log. NOT_FOUND if it holds nothing. */
int dkv_world_flip(dkv_world *world, uint16_t node);

/* From now on a page of the log cannot be read, until something is written there. NOT_FOUND if the
 * disk holds nothing; PRECONDITION if it has such a page already, or this one is just being
 * written. */
int dkv_world_spoil(dkv_world *world, uint16_t node);

/* Flips one bit of the index snapshot, or of one of the two copies in META. PRECONDITION while the
 * process runs; NOT_FOUND if there is no such file. */
int dkv_world_flip_file(dkv_world *world, uint16_t node, dkv_file_kind kind);

/* Loses a segment of the log, chosen at random. PRECONDITION while the process runs; NOT_FOUND if
 * there is none. */
int dkv_world_lose_file(dkv_world *world, uint16_t node);

/* Limits the disk to `bytes` in all; 0 = no limit. */
void dkv_world_capacity(dkv_world *world, uint16_t node, uint64_t bytes);

/* What the files on the disk need, as the process sees them. */
uint64_t dkv_world_disk_bytes(const dkv_world *world, uint16_t node);

/* From now on a job takes 1 up to max_us (0: as in the whole world), and waits until what was
 * submitted before it has passed at bytes_per_s (0: no limit). */
void dkv_world_slow_disk(dkv_world *world, uint16_t node, uint32_t max_us, uint64_t bytes_per_s);

/* Makes the next `count` syncs, or reads, of the disk fail. */
void dkv_world_fail_syncs(dkv_world *world, uint16_t node, uint32_t count);
void dkv_world_fail_reads(dkv_world *world, uint16_t node, uint32_t count);

/* When the disk last lost something without the node's doing, −1 if never: wiped, flipped, a page
 * or a file lost, the machine without power in INTERVAL, the process dead in MEMORY. */
int64_t dkv_world_damaged_at(const dkv_world *world, uint16_t node);

/* When the disk was last wiped, −1 if never. */
int64_t dkv_world_wiped_at(const dkv_world *world, uint16_t node);

/* When the disk last lost a record of this key as new as `version` or newer, or may have: a flipped
 * bit takes the record that it hits, an unreadable page those that touch it, all other damage
 * whatever there was. −1 if never. */
int64_t dkv_world_lost_at(const dkv_world *world, uint16_t node, uint64_t token,
                          dkv_version version);

/* The same, but only of losses that a store cannot notice: of the newest segment of the log, and of
 * what is so near its end that no record behind it tells. There a store cannot tell damage from a
 * write that a power cut has torn, and of a new segment it learns from META, which is written a
 * moment later. */
int64_t dkv_world_lost_unseen_at(const dkv_world *world, uint16_t node, uint64_t token,
                                 dkv_version version);

/* How many times a process of this node stopped by itself (dkv_effects.fatal). */
uint32_t dkv_world_fatals(const dkv_world *world, uint16_t node);

/* The running node, NULL if none runs. Borrows. */
dkv_node *dkv_world_node(const dkv_world *world, uint16_t node);

/* What a disk says of one key: err 0 and its newest record, NOT_FOUND, or DATA_LOSS. The record
 * borrows for the call. */
typedef void (*dkv_sim_inspect)(void *user, size_t key, int err, const dkv_record *record);

/* Opens the store on the disk of a node whose process does not run, as a start would, and says what
 * it holds of each of the `n` keys. PRECONDITION if the process runs; else as dkv_store_open. */
int dkv_world_inspect(dkv_world *world, uint16_t node, const dkv_slice *keys, size_t n,
                      dkv_sim_inspect each, void *user);

/* A record that a running node's index refers to, as its disk has it: err 0 and the record, or
 * DATA_LOSS. The record borrows for the call. */
typedef void (*dkv_sim_held)(void *user, uint16_t node, dkv_key_hash hash,
                             const dkv_store_entry *entry, int err, const dkv_record *record);

/* Reads everything that the running nodes hold; the world goes on as if nobody had looked.
 * NO_MEMORY. */
int dkv_world_read_held(dkv_world *world, dkv_sim_held each, void *user);

/* A key of which not all replicas hold the same. */
typedef struct dkv_sim_difference {
    dkv_slice key; /* owned by the world; empty if no client ever named it */
    dkv_key_hash hash;
    uint8_t n;
    uint16_t nodes[DKV_REPLICATION_MAX];       /* the replicas, in ring order */
    dkv_store_entry held[DKV_REPLICATION_MAX]; /* by each; no version: nothing */
} dkv_sim_difference;

typedef void (*dkv_sim_differs)(void *user, const dkv_sim_difference *what);

/* Compares record by record what the replicas of every key hold: running nodes in their index,
 * others on their disk. No digest is used, and the world goes on as if nobody had looked. Tells
 * `each` (may be NULL) of every key that differs, in ring order, and counts them in *count.
 * NO_MEMORY. */
int dkv_world_differences(dkv_world *world, dkv_sim_differs each, void *user, uint64_t *count);

/* ---- network ---- */

/* Cuts, or joins again, the way from one node to another, in this direction only. */
void dkv_world_cut(dkv_world *world, uint16_t from, uint16_t to);
void dkv_world_join(dkv_world *world, uint16_t from, uint16_t to);

/* From now on the way from one node to another is as `way` says; all zero: as the others. */
void dkv_world_slow_way(dkv_world *world, uint16_t from, uint16_t to, const dkv_way *way);

/* From now on the network is as `net` says (zeros for the defaults). */
void dkv_world_set_net(dkv_world *world, const dkv_net_options *net);

/* Joins every way, and none is slow any more. What was under way arrives now. */
void dkv_world_heal(dkv_world *world);

/* ---- what was ---- */

const dkv_ring *dkv_world_ring(const dkv_world *world);
dkv_trace *dkv_world_trace(dkv_world *world);
uint64_t dkv_world_seed(const dkv_world *world);

/* What has been done since the world began. */
typedef struct dkv_sim_counts {
    uint64_t messages;  /* delivered to nodes */
    uint64_t events;    /* processed */
    uint64_t broken;    /* links that break_ppm broke */
    uint64_t disturbed; /* batches lost, repeated or overtaken */
} dkv_sim_counts;

dkv_sim_counts dkv_world_counts(const dkv_world *world);

#endif
