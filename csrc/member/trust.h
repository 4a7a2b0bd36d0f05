/* Whether this node's store may be believed when it says that a key does not exist.
 *
 * A store is *in sync* when it has lost nothing that it ever confirmed. A store that came up empty
 * while a peer remembers another store for this node is a replaced one: it has lost everything. A
 * store of a new cluster has lost nothing either, but cannot tell so by itself: a peer has to vouch
 * for it.
 *
 * Rules:
 * 1. Each node remembers, durably, the store id of every peer, from the first store of it that it
 *    meets. It answers no greeting before what it remembers is durable.
 * 2. A peer vouches for this store when it says, in its answer to our greeting or in a PING, that
 *    it remembers this very store: it has never met another store of this node, and will not forget
 *    this one.
 * 3. A new store becomes in sync when all other members vouch for it. That is durable, too. Until
 *    one of them remembers a store of this node, it coordinates no write: what it confirmed could
 *    be lost unnoticed.
 * 4. A store in which a damaged record was found is no longer in sync, and not new either.
 * 5. A peer with another store than remembered replaces it in memory only once it is in sync.
 * 6. A store is used only under the cluster map that it was filled under: under another one it
 *    would lack keys that are now its own, and could not know it. */
#ifndef DKV_MEMBER_TRUST_H
#define DKV_MEMBER_TRUST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "model/message.h"
#include "ring/cluster_map.h"

typedef struct dkv_trust {
    const dkv_cluster_map *map; /* borrows */
    uint16_t self;
    uint64_t store_id; /* of this node's store */
    uint32_t starts;   /* of this node on this store, this one included */
    bool in_sync;
    bool is_new;          /* has never been in sync */
    uint64_t *remembered; /* by member: store id, 0 = never met */
    bool *told;           /* by member: has told which store of this node it remembers */
    bool *vouches;        /* by member: it is this one */
    bool met;             /* some peer remembers a store of this node */
    uint64_t map_digest;  /* of the map */
    uint64_t changes;     /* grows with every change of what must be durable */
} dkv_trust;

/* Restores what a former run on this store remembered from `facts` (empty: a new store), and counts
 * this start. `map` must outlive it. PROTOCOL if the facts cannot be read; EPOCH if they are of
 * another map; NO_MEMORY. */
int dkv_trust_init(dkv_trust *trust, const dkv_cluster_map *map, uint16_t self, uint64_t store_id,
                   dkv_slice facts);

/* Takes in what `peer` said of itself. What it said of this node need not be durable there, unless
 * it answered a greeting: see dkv_trust_told. */
void dkv_trust_heard(dkv_trust *trust, uint16_t peer, const dkv_hello *hello);

/* `peer` has said which store of this node it remembers durably. */
void dkv_trust_told(dkv_trust *trust, uint16_t peer, uint64_t store_id);

/* Whether this store needs the word of `peer` and has not got it. */
bool dkv_trust_awaits(const dkv_trust *trust, uint16_t peer);

/* Whether somebody would notice if this store were replaced. */
bool dkv_trust_is_known(const dkv_trust *trust);

/* The store has lost a record that it had confirmed: it is no longer believed. */
void dkv_trust_lost(dkv_trust *trust);

/* Appends the facts to `out`, to be stored durably. */
int dkv_trust_encode(const dkv_trust *trust, dkv_buf *out);

/* What this node puts into `origin` of the versions that it issues. */
uint64_t dkv_trust_origin(const dkv_trust *trust);

/* Accepts NULL. */
void dkv_trust_free(dkv_trust *trust);

#endif
