/* Checks a simulated world against what dkv promises, from outside: what clients asked and were
 * told, what nodes sent each other, and what their disks hold. Nothing is believed because a node
 * says it; only faults that the world made on purpose excuse a loss, and a flipped bit excuses only
 * the loss of the record that it hit.
 *
 * Two things are needed of the workload: every value written is different from all others, and
 * `dkv_check_witness` sees every message. */
#ifndef DKV_SIM_CHECK_H
#define DKV_SIM_CHECK_H

#include "sim/world.h"

/* X(NAME, "sentence"). "Confirmed": the outcome of the write is APPLIED, or the node is named among
 * those that hold it. Damage (a disk wiped, a file lost, a record hit by a flipped bit) excuses a
 * node from what it confirmed before (dkv_world_lost_at); ABSENCE and STALE hold all the same as
 * long as one of the nodes that confirmed is sound, but for the age of a value read at level one,
 * and but for damage that cannot be noticed (dkv_world_lost_unseen_at). */
#define DKV_RULE_MAP(X)                                                                          \
    X(LOST_WRITE, "a node that confirmed a write holds it, or a newer one, as long as its disk") \
    X(BELIEF, "a node that lacks something that it confirmed does not say that it is in sync")   \
    X(TOO_FEW, "an applied write was confirmed by as many replicas as its level asks for")       \
    X(INVENTED, "a value that is read, sent or stored was written by a client")                  \
    X(DISHONEST, "a write that is said to be not applied is nowhere, ever")                      \
    X(ABSENCE, "a key with a confirmed write and no later delete is not said to be absent")      \
    X(STALE, "a read is not older than a write confirmed before it, where their levels overlap") \
    X(CONFLICT, "a version is issued once and stands for one content")                           \
    X(ORDER, "a write is newer than a write at level all confirmed before it, and last_seen")    \
    X(ANSWER, "a node that lives answers a request once, by its deadline")                       \
    X(ALARM, "a node does not stop, and no data is called damaged, without a fault of a disk")   \
    X(SERVING, "after all faults are healed, reads and writes at level all succeed")             \
    X(READ_ORDER, "a read of a quorum is not older than a read of a quorum before it")           \
    X(CONVERGED, "after all faults are healed, all replicas of a key become identical")          \
    X(WHOLE, "after a scrub and healing, whatever a node's index refers to can be read")

typedef enum dkv_rule {
#define DKV_RULE_ENUM(name, sentence) DKV_RULE_##name,
    DKV_RULE_MAP(DKV_RULE_ENUM)
#undef DKV_RULE_ENUM
} dkv_rule;

const char *dkv_rule_name(dkv_rule rule);
const char *dkv_rule_sentence(dkv_rule rule);

#define DKV_CHECK_NO_OP UINT64_MAX

typedef struct dkv_violation {
    dkv_rule rule;
    uint64_t ops[2]; /* operations concerned, DKV_CHECK_NO_OP where none */
    char text[512];  /* what was found */
} dkv_violation;

/* Fills in a violation. Returns false. */
bool dkv_check_fail(dkv_violation *out, dkv_rule rule, uint64_t op, uint64_t other,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));

typedef struct dkv_check dkv_check;

/* *out is owned by the caller. NO_MEMORY. */
int dkv_check_new(dkv_check **out);

/* Accepts NULL. */
void dkv_check_del(dkv_check *check);

/* To be given to the world as its witness, with the check as its user. */
void dkv_check_witness(void *check, uint16_t from, uint16_t to, const dkv_message *message);

/* The following say false, and what is wrong, at the first violation. They are always called with
 * the same world. */

/* LOST_WRITE and BELIEF for the index of every running node, now. */
bool dkv_check_running(dkv_check *check, dkv_world *world, dkv_violation *out);

/* LOST_WRITE, INVENTED, DISHONEST, CONFLICT for the content of a disk whose process does not run.
 * Opens the store on it, as a start of the process would. */
bool dkv_check_disk(dkv_check *check, dkv_world *world, uint16_t node, dkv_violation *out);

/* WHOLE, INVENTED, DISHONEST, CONFLICT for every record of every running node, read from its disk;
 * with CONVERGED this says that replicas are identical byte by byte. From now on LOST_WRITE holds
 * for all that was found durable, as if it had just been confirmed. */
bool dkv_check_whole(dkv_check *check, dkv_world *world, dkv_violation *out);

/* CONVERGED, now. */
bool dkv_check_converged(dkv_world *world, dkv_violation *out);

/* All rules that follow from the history; for a world in which all requests were answered. */
bool dkv_check_history(dkv_check *check, dkv_world *world, dkv_violation *out);

#endif
