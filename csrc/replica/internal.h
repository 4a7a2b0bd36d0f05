/* What the files of csrc/replica share: replica.c (life cycle, routing), write.c, read.c (one
 * client request each as a small machine; read_many.c for the levels of several replicas), serve.c
 * (peers' requests), heal.h. */
#ifndef DKV_REPLICA_INTERNAL_H
#define DKV_REPLICA_INTERNAL_H

#include "base/map.h"
#include "base/text.h"
#include "base/timers.h"
#include "model/hlc.h"
#include "replica/replica.h"

struct dkv_replica {
    dkv_replica_options options;
    dkv_clock clock;
    dkv_map tasks;            /* by task id: whatever waits for a disk or a peer */
    dkv_timers timers;        /* of requests */
    struct request *requests; /* all requests, as a list in no particular order */
    uint64_t last_id;
    size_t forwarded_bytes; /* keys and values of the requests that peers forwarded */
    uint32_t lingering;     /* writes that were answered and wait for the last replicas */
    bool ready;
    dkv_replica_counts counts;
    struct dkv_heal *heal;
};

/* Whatever waits under an id, which is its store cookie and the id of its messages. */
typedef enum task_kind { TASK_WRITE, TASK_READ, TASK_SERVE, TASK_HEAL } task_kind;

typedef struct task {
    task_kind kind;
    uint64_t id;
} task;

/* Where an answer goes: to a client (link 0, id = handle) or to a peer that forwarded. */
typedef struct reply_to {
    dkv_link link;
    uint64_t id;
} reply_to;

/* How far a request is with one replica. */
typedef enum progress {
    AT_REST,     /* not asked yet */
    WAITING,     /* its link is being opened */
    ASKED,       /* sent to it, or handed to the own store */
    HAS,         /* write: confirmed. Read: answered with the best record so far */
    HAS_LESS,    /* read: answered with an older record */
    HAS_NONE,    /* read: answered that it has no record */
    NOT_IN_SYNC, /* read: answered, but is not in sync: does not count as an answer */
    MENDING,     /* read: is being brought up to date */
    FAILED,      /* cannot be reached, or answered with an error */
} progress;

/* A client request under way. Writes and reads begin alike. */
typedef struct request {
    task task;                    /* first: a task is cast to its request */
    struct request *next, **link; /* in dkv_replica.requests */
    dkv_timer timer;
    reply_to to;
    dkv_op op;
    dkv_level level;
    bool lingers; /* answered: no longer under way for the client */
    int64_t deadline_ns;
    dkv_key_hash hash;
    dkv_slice key;          /* stored behind the struct */
    size_t forwarded_bytes; /* its part of the replica's */
    uint8_t n;              /* replicas */
    uint8_t needs;          /* answers that the level asks for */
    int8_t mine;            /* this node's place in `list`, −1 if it has none */
    uint16_t list[DKV_REPLICATION_MAX];
    uint8_t progress[DKV_REPLICATION_MAX]; /* in the order of `list` */
} request;

typedef struct write_request {
    request r;
    int64_t begun_ns;
    bool sent;      /* something was sent or applied: a failure from here on is "unknown" */
    bool forwarded; /* to the only replica that is ASKED */
    dkv_version last_seen;
    dkv_version version; /* once issued */
    dkv_slice value;     /* the caller's, or `held` */
    dkv_buf held;        /* a copy while the write waits for links */
    int failure;         /* the first error that a replica answered with */
} write_request;

typedef struct read_request {
    request r;
    bool failover;
    bool found;         /* `best` is valid */
    bool in_sync_heard; /* one replica in sync has answered: absence is believed */
    bool damaged;
    bool value_asked;    /* one replica was asked for its value, the others for versions */
    bool has_value;      /* of the best record so far: it is in `value` */
    bool enough;         /* as many replicas have answered as the level asks for */
    uint8_t source;      /* the replica that named the best record so far */
    dkv_version version; /* of that record */
    dkv_kind kind;
    uint32_t len_bytes; /* of it in a log */
    dkv_buf value;
    uint8_t mended; /* mask of places: replicas that were to be given a record */
    uint8_t mends_out[DKV_REPLICATION_MAX]; /* records sent to a replica and not confirmed */
} read_request;

/* ---- replica.c ---- */

/* Registers a task under a new id; NO_MEMORY leaves it unregistered. */
int dkv_replica_task_add(dkv_replica *replica, task *t, task_kind kind);

/* Whether place `i` of the request's list is this node. */
static inline bool dkv_replica_is_mine(const request *r, unsigned i) {
    return (int)i == r->mine;
}

/* Place of member `peer` in the request's list, −1 if it has none. */
int dkv_replica_place(const request *r, uint16_t peer);

/* Number of replicas whose progress is in `set`, a mask of 1 << progress. */
unsigned dkv_replica_count(const request *r, unsigned set);

/* Node ids of the replicas whose progress is in `set`. */
dkv_node_names dkv_replica_names(const dkv_replica *replica, const request *r, unsigned set);

#define NAMES_TEXT 96u /* bytes of a list of replicas in a sentence of DKV_DETAIL_MAX */

/* Writes "n1, n2" into text[0..size), "none" for an empty set. What has no room is counted. */
void dkv_replica_list(char *text, size_t size, dkv_node_names names);

/* Logs that two different records carry `version`, which must never be. */
void dkv_replica_alarm(const dkv_moment *at, dkv_version version);

/* What the index knows of a key, or a record of the own store, as an answer of this replica;
 * `in_sync` is left to the caller. */
dkv_fetched dkv_replica_fetched_entry(const dkv_store_entry *entry);
dkv_fetched dkv_replica_fetched_record(const dkv_replica *replica, dkv_key_hash hash,
                                       const dkv_record *record);

#define DKV_SET(progress) (1u << (progress))
#define DKV_SET_ALL 0x1FFu

/* Of reads: */
#define PENDING (DKV_SET(ASKED) | DKV_SET(WAITING))
#define ANSWERED (DKV_SET(HAS) | DKV_SET(HAS_LESS) | DKV_SET(HAS_NONE))

void dkv_replica_set_timer(dkv_replica *replica, request *r, int64_t at_ns);

/* Sends the reply and counts it. Does not end the request. */
void dkv_replica_reply(dkv_replica *replica, const dkv_moment *at, reply_to to, dkv_op op,
                       const dkv_reply *reply);

/* Takes the request out of the tables; its memory is the caller's to free. */
void dkv_replica_forget(dkv_replica *replica, request *r);

/* ---- write.c ---- */

void dkv_write_begin(dkv_replica *replica, const dkv_moment *at, write_request *w);
void dkv_write_stored(dkv_replica *replica, const dkv_moment *at, write_request *w, int err);
void dkv_write_answered(dkv_replica *replica, const dkv_moment *at, write_request *w, uint16_t peer,
                        const dkv_message *message);
void dkv_write_peer_changed(dkv_replica *replica, const dkv_moment *at, write_request *w,
                            uint16_t peer);
void dkv_write_timer(dkv_replica *replica, const dkv_moment *at, write_request *w);
void dkv_write_stop(dkv_replica *replica, const dkv_moment *at, write_request *w);
void dkv_write_del(write_request *w);

/* ---- read.c ---- */

void dkv_read_begin(dkv_replica *replica, const dkv_moment *at, read_request *q);
void dkv_read_stored(dkv_replica *replica, const dkv_moment *at, read_request *q,
                     const dkv_store_event *event);
void dkv_read_answered(dkv_replica *replica, const dkv_moment *at, read_request *q, uint16_t peer,
                       const dkv_message *message);
void dkv_read_peer_changed(dkv_replica *replica, const dkv_moment *at, read_request *q,
                           uint16_t peer);
void dkv_read_mended(dkv_replica *replica, const dkv_moment *at, read_request *q, uint16_t peer,
                     int err);
void dkv_read_timer(dkv_replica *replica, const dkv_moment *at, read_request *q);
void dkv_read_del(read_request *q);

/* Asks replica `i` for its record, of a peer with the value if `with_value`. */
void dkv_read_ask(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i,
                  bool with_value);

/* Answer and end the request. */
void dkv_read_conclude(dkv_replica *replica, const dkv_moment *at, read_request *q, int err);
void dkv_read_fail(dkv_replica *replica, const dkv_moment *at, read_request *q, int err,
                   const char *why);

/* ---- read_many.c ---- */

void dkv_read_proceed_many(dkv_replica *replica, const dkv_moment *at, read_request *q);

/* ---- serve.c ---- */

void dkv_serve_apply(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                     const dkv_message *message);
void dkv_serve_fetch(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                     const dkv_message *message);
void dkv_serve_sums(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                    const dkv_message *message);
void dkv_serve_list(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                    const dkv_message *message);
void dkv_serve_stored(dkv_replica *replica, const dkv_moment *at, task *serve,
                      const dkv_store_event *event);

#endif
