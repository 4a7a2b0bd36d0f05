/* Healing: this node and each of its peers become identical on the shares that both hold, whatever
 * failed, without anybody asking.
 *
 * For each peer the node knows where the two may differ: *hints*, single tokens of writes that the
 * peer may have missed, and *dirty* shares (ring/shares.h). Both are references; what is sent is
 * the newest record at that time. Too many hints become dirty shares. All of this is in memory
 * only: a node that starts again takes all its shares for dirty, which costs a few digests where
 * nothing differs; so does one whose store was replaced, and every node from time to time.
 *
 * A *session* works through what is dirty with one peer, in both directions. It asks the peer for
 * number and digest of its records in ranges of tokens, cuts those that differ into equal parts and
 * asks again, and lists the versions where few records are left; what the peer has newer is
 * fetched, what it lacks is sent (range-based set reconciliation: Meyer, "Range-based set
 * reconciliation", SRDS 2023; with a tree of digests: DeCandia et al., "Dynamo", SOSP 2007, section
 * 4.7). The peer keeps no state for it. A share is done when all of its ranges are equal or their
 * records durable on either side; one that failed on the way is dirty again.
 *
 * Invariants:
 * 1. A write that this node coordinated and that a replica has not confirmed leaves a hint for it,
 *    a dirty share, or a session that has the share under way.
 * 2. A lost share is in sync again (member/trust.h) only after whole comparisons of it with every
 *    other replica that was not declared lost meanwhile, each begun after the loss.
 * 3. What differs and both would move is moved by the one that fetches it: while the peer works
 *    through its own session with this node, what it lacks is not sent, but looked at again when it
 *    asks no more, or after DKV_HEAL_YIELD_MAX_MS. Hints are sent all the same.
 * 4. What is under way is bounded in records and bytes, and small while clients are served. */
#ifndef DKV_REPLICA_HEAL_H
#define DKV_REPLICA_HEAL_H

#include "model/effects.h"
#include "store/store.h"

#define DKV_HINTS_MAX 131072u         /* in one node; more become dirty shares */
#define DKV_HEAL_SESSIONS_MAX 8u      /* at a time */
#define DKV_HEAL_MOVES_MAX 4096u      /* records under way in a session ... */
#define DKV_HEAL_MOVES_BUSY 16u       /* ... while clients are served */
#define DKV_HEAL_BYTES_MAX (4u << 20) /* of these records, if it is more than one */
#define DKV_HEAL_YIELD_MS 500u        /* since the peer's last question: it asks no more */
#define DKV_HEAL_YIELD_MAX_MS 10000u  /* so long a peer that never stops asking is waited for */
#define DKV_HEAL_STALL_MS 30000u      /* a session that hears nothing is given up */
#define DKV_HEAL_RETRY_MS 1000u       /* after a session that failed, doubled each time ... */
#define DKV_HEAL_RETRY_MAX_MS 30000u  /* ... up to this */

struct dkv_replica;
struct task;

typedef struct dkv_heal dkv_heal;

/* Healing of the replica's node; `hints_max` 0 = DKV_HINTS_MAX. All shares are dirty. NO_MEMORY. */
int dkv_heal_new(struct dkv_replica *replica, uint64_t seed, uint32_t hints_max, dkv_heal **out);

/* Accepts NULL. */
void dkv_heal_del(dkv_heal *heal);

/* The record at `token` of `peer` may differ from that of this node. */
void dkv_heal_hint(dkv_heal *heal, uint16_t peer, uint64_t token);

/* `peer` has asked something for a session of its own. */
void dkv_heal_asked(dkv_heal *heal, const dkv_moment *at, uint16_t peer);

/* This node has lost a record at `token`, or records anywhere. */
void dkv_heal_lost(dkv_heal *heal, uint64_t token);
void dkv_heal_lost_all(dkv_heal *heal);

/* The operator says that the store of `peer` is gone for good: what was compared with all others is
 * in sync. */
void dkv_heal_declared_lost(dkv_heal *heal, const dkv_moment *at, uint16_t peer);

/* ---- events ---- */

void dkv_heal_peer_changed(dkv_heal *heal, const dkv_moment *at, uint16_t peer);
void dkv_heal_answered(dkv_heal *heal, const dkv_moment *at, struct task *t, uint16_t peer,
                       const dkv_message *message);
void dkv_heal_stored(dkv_heal *heal, const dkv_moment *at, struct task *t,
                     const dkv_store_event *event);

/* The node is being stopped: nothing more is begun, and what is under way is given up. */
void dkv_heal_stop(dkv_heal *heal);

/* Begins what can be begun. Cheap when nothing is due. */
void dkv_heal_tick(dkv_heal *heal, const dkv_moment *at);
int64_t dkv_heal_next_timer(const dkv_heal *heal);

/* ---- looking in ---- */

typedef struct dkv_heal_status {
    uint32_t hints;         /* waiting, for all peers */
    uint32_t dirty;         /* pairs of share and peer that may differ, or are being compared */
    uint32_t sessions;      /* under way */
    uint64_t fetched, sent; /* records, since the start */
    int64_t round_ns;       /* when the oldest of the peers' last whole comparisons ended; 0 if one
                               peer was never compared with */
} dkv_heal_status;

void dkv_heal_status_get(const dkv_heal *heal, dkv_heal_status *out);

#endif
