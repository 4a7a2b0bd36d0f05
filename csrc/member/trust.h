/* Whether this node's store may be believed when it says that a key does not exist.
 *
 * A store is *in sync* on a share (ring/shares.h) when it has lost nothing there that it ever
 * confirmed. A store that came up empty while a peer remembers another store for this node is a
 * replaced one: it has lost everything. A store of a new cluster has lost nothing either, but
 * cannot tell so by itself: its peers have to vouch for it.
 *
 * Rules:
 * 1. Each node remembers, durably, the store id of every peer, from the first store of it that it
 *    meets. It answers no greeting before what it remembers is durable.
 * 2. A peer vouches for this store when it says, in its answer to our greeting or in a PING, that
 *    it remembers this very store: it has never met another store of this node, and will not forget
 *    this one.
 * 3. A share of a new store becomes in sync when all its other replicas vouch: whatever a former
 *    store of this node confirmed there together with another replica, that replica had met it.
 *    Until some member remembers a store of this node, it coordinates no write: what it confirmed
 *    could be lost unnoticed.
 *    A store that has itself replaced another one never vouches, as what that one had met is not
 *    known: of a peer's store that is not in sync it remembers DKV_STORE_FORMER.
 * 4. A share with a damaged record is no longer in sync; with damage of unknown place, none is.
 * 5. A lost share is in sync again when it has been compared with every other replica
 *    (replica/heal.h).
 * 6. A peer with another store than remembered replaces it in memory only once it is in sync as a
 *    whole.
 * 7. An operator may declare a peer lost: the store that it had is gone for good. What this store
 *    had lost until then needs no comparison with that peer, and no word of it; what it loses later
 *    does again, since the peer may have another store by then that knows of it. If that very store
 *    comes back before the others have been compared with, it is waited for after all.
 * 8. A store that was declared lost and comes back all the same is told so in greetings, and takes
 *    everything for lost: nobody has waited for it. A declaration is named by its time, so that it
 *    is heeded once. It is forgotten when the store says that it has heeded it, and when another
 *    store takes its place (rule 6).
 * 9. A store is used only under the cluster map that it was filled under: under another one it
 *    would lack keys that are now its own, and could not know it. */
#ifndef DKV_MEMBER_TRUST_H
#define DKV_MEMBER_TRUST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "model/message.h"
#include "ring/shares.h"

#define DKV_STORE_FORMER 1u /* in place of a store id: some other store that was there before */

typedef enum dkv_share_state {
    DKV_SHARE_NEW,     /* of a store that is new, as far as it knows */
    DKV_SHARE_IN_SYNC, /* has lost nothing that it confirmed */
    DKV_SHARE_LOST,    /* may have lost something */
} dkv_share_state;

typedef struct dkv_trust {
    const dkv_cluster_map *map; /* borrows */
    const dkv_shares *shares;   /* borrows: of this node */
    uint16_t self;
    uint64_t store_id; /* of this node's store */
    uint32_t starts;   /* of this node on this store, this one included */
    uint8_t *states;   /* by share: dkv_share_state */
    uint32_t n_in_sync, n_new;
    uint8_t *waived;      /* by share: mask of places in its list that need not be compared with */
    uint64_t *remembered; /* by member: store id, 0 = never met */
    uint64_t *lost_ms;    /* by member: when it was declared lost, as `remembered`; 0: it is not.
                             Of this node: the latest such time that a peer has told it */
    bool *needed;         /* by member: its word counts for some share */
    bool *told;           /* by member: has told which store of this node it remembers */
    bool *vouches;        /* by member: it is this one */
    bool met;             /* some peer remembers a store of this node */
    bool replaced;        /* and it is another one than this new one */
    bool replacement;     /* that was so at some time of this store: durable */
    uint64_t map_digest;  /* of the map */
    uint64_t changes;     /* grows with every change of what must be durable */
} dkv_trust;

/* Restores what a former run on this store remembered from `facts` (empty: a new store), and counts
 * this start. `map` and `shares` must outlive it. PROTOCOL if the facts cannot be read; EPOCH if
 * they are of another map; NO_MEMORY. */
int dkv_trust_init(dkv_trust *trust, const dkv_cluster_map *map, const dkv_shares *shares,
                   uint16_t self, uint64_t store_id, dkv_slice facts);

/* Takes in what `peer` said of itself. What it said of this node need not be durable there, unless
 * it answered a greeting: see dkv_trust_told. If it holds this very store for lost, and that is
 * news, lost_ms of this node changes, everything is lost, and the caller has it compared. */
void dkv_trust_heard(dkv_trust *trust, uint16_t peer, const dkv_hello *hello);

/* `peer` has said which store of this node it remembers durably. */
void dkv_trust_told(dkv_trust *trust, uint16_t peer, uint64_t store_id);

/* Whether this store needs the word of `peer` and has not got it. */
bool dkv_trust_awaits(const dkv_trust *trust, uint16_t peer);

/* True until every share has been vouched for, or was lost. */
bool dkv_trust_is_new(const dkv_trust *trust);

/* Whether somebody would notice if this store were replaced. */
bool dkv_trust_is_known(const dkv_trust *trust);

/* True if the store is in sync on all its shares. */
bool dkv_trust_in_sync(const dkv_trust *trust);

/* True if the store's word that it has no key at `token` counts. */
bool dkv_trust_believes(const dkv_trust *trust, uint64_t token);

/* The operator says that the store last met of `peer`, another member, is gone for good. Returns
 * how many shares need one comparison less than before, or one word. */
uint32_t dkv_trust_declare_lost(dkv_trust *trust, uint16_t peer, uint64_t wall_ms);

/* The store may have lost confirmed records anywhere. */
void dkv_trust_lost_all(dkv_trust *trust);

/* The store has lost a record that it had confirmed at `token`. */
void dkv_trust_lost(dkv_trust *trust, uint64_t token);

/* Whether `share`, which is not in sync, is after comparisons with the replicas at the places of
 * the mask `compared`. */
bool dkv_trust_is_regained(const dkv_trust *trust, uint32_t share, unsigned compared);

/* It is in sync from now on. */
void dkv_trust_regained(dkv_trust *trust, uint32_t share);

/* Appends the facts to `out`, to be stored durably. */
int dkv_trust_encode(const dkv_trust *trust, dkv_buf *out);

/* What this node puts into `origin` of the versions that it issues. */
uint64_t dkv_trust_origin(const dkv_trust *trust);

/* Accepts NULL. */
void dkv_trust_free(dkv_trust *trust);

#endif
