/* Inside of a check, shared by check.c (what is known) and rules.c (what follows from it). */
#ifndef DKV_SIM_CHECK_STATE_H
#define DKV_SIM_CHECK_STATE_H

#include "base/hash.h"
#include "base/map.h"
#include "sim/check.h"

/* The newest write of a key that one node has confirmed. */
typedef struct promise {
    dkv_version version; /* none: it has confirmed nothing */
    uint64_t op;
    int64_t invoked_ns; /* of that write: a disk damaged later excuses the node */
    bool believed;      /* the node was in sync while it had it */
    bool newer;         /* it had a newer record, from a clock ahead, perhaps damaged long since */
} promise;

typedef struct key_facts {
    struct key_facts *next; /* in order of first use */
    dkv_key_hash hash;
    dkv_slice key;     /* the world's */
    promise *promises; /* by node */
    uint64_t *ops;     /* in order of invocation */
    size_t n_ops, ops_cap;
} key_facts;

/* A version that was seen anywhere, and what it stood for. */
typedef struct sighting {
    struct sighting *next;
    dkv_version version;
    uint64_t token;
    uint64_t content;
    dkv_kind kind;
    uint64_t op; /* whose result names the version; DKV_CHECK_NO_OP: none */
} sighting;

struct dkv_check {
    uint16_t n_nodes;
    dkv_map keys; /* token -> key_facts */
    key_facts *first_key, *last_key;
    size_t n_keys;
    dkv_map contents; /* content of a put -> number of its operation + 1 */
    dkv_map versions; /* mixed version -> sighting */
    sighting *sightings;
    uint64_t ops_known;      /* operations in `keys` and `contents` */
    uint64_t attempts_known; /* attempts ever put into `open` */
    uint64_t *open;          /* attempts of writes without an answer so far */
    size_t n_open, open_cap;
    bool conflict;      /* one was seen while the world ran */
    dkv_violation seen; /* it */
    bool no_memory;
};

/* Takes in what has happened in the world since the last call. False without memory, which counts
 * as a violation so that it is not overlooked. */
bool dkv_check_learn(dkv_check *check, dkv_world *world, dkv_violation *out);

/* What stands for key, kind and value together. */
uint64_t dkv_check_content(uint64_t token, dkv_kind kind, dkv_slice value);
uint64_t dkv_check_content_of(const dkv_sim_op *op, uint64_t token);

/* Notes that `version` was seen to stand for `content`; false at a contradiction. */
bool dkv_check_see(dkv_check *check, dkv_version version, uint64_t token, dkv_kind kind,
                   uint64_t content, uint64_t op, dkv_violation *out);

bool dkv_check_was_seen(const dkv_check *check, dkv_version version);

/* The put that wrote `content`, DKV_CHECK_NO_OP if none. */
uint64_t dkv_check_writer(const dkv_check *check, uint64_t content);

/* True if the client was told that the write is not applied, or would have been, had it waited. */
bool dkv_check_is_denied(const dkv_world *world, uint64_t op);

/* The version of a write that any of its answers names; none if none does. */
dkv_version dkv_check_version(const dkv_world *world, uint64_t op);

#endif
