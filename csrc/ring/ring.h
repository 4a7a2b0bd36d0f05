/* The ring: preference lists for every position, computed once from a cluster map.
 *
 * Positions are the 64-bit tokens of base/hash.h; token i of a member is the position of
 * "<token_name>:<i>". The ring's sorted distinct tokens cut the circle into intervals: interval i
 * holds the positions in (token[i−1], token[i]], and interval 0 wraps around zero. A key belongs
 * to the interval of its position, that is, to the first token at or after it, clockwise.
 *
 * Its preference list is the N immediately succeeding distinct nodes clockwise, passing over a
 * node whose zone already holds a replica while other zones are left, then one whose host does
 * (consistent hashing: Karger et al., STOC 1997; preference lists: DeCandia et al., "Dynamo",
 * SOSP 2007, section 4.3). Exactly: a node's domain is its zone, or its host where it has no zone.
 * From the interval, the walk clockwise meets every node once, at the first of its tokens; of
 * coinciding tokens, the one of the lower member index is met first. The list takes, in the order
 * of the walk, until it has N nodes:
 *   1. every node whose domain is not in the list yet;
 *   2. then, the walk begun anew, every node whose host is not in the list yet;
 *   3. then, the walk begun anew, every node that is not in the list yet.
 * So the owner, first of the list, is the node of the token that ends the interval; a list spans
 * min(N, domains) domains; and a node that joins or leaves changes only the lists it is in.
 *
 * A ring is immutable and may be read from any thread. */
#ifndef DKV_RING_RING_H
#define DKV_RING_RING_H

#include <stdint.h>

#include "ring/cluster_map.h"

typedef struct dkv_ring dkv_ring;

/* Builds the ring of `map` (copied; the caller keeps his). *out is owned by the caller.
 * INVALID if dkv_cluster_map_check refuses the map; NO_MEMORY. */
int dkv_ring_new(const dkv_cluster_map *map, dkv_ring **out);

/* Accepts NULL. */
void dkv_ring_del(dkv_ring *ring);

/* The ring's own copy of the map. Borrows from the ring. */
const dkv_cluster_map *dkv_ring_map(const dkv_ring *ring);

/* N: the length of every preference list. */
unsigned dkv_ring_replication(const dkv_ring *ring);

/* Number of intervals, at least 1. */
uint32_t dkv_ring_intervals(const dkv_ring *ring);

/* The interval that holds `token`. */
uint32_t dkv_ring_find(const dkv_ring *ring, uint64_t token);

/* The token that ends `interval` (inclusive). The interval begins behind the end of the one
 * before; interval 0 begins behind the end of the last one. */
uint64_t dkv_ring_end(const dkv_ring *ring, uint32_t interval);

/* The preference list of `interval`: N member indices, owner first. Borrows from the ring. */
const uint16_t *dkv_ring_list(const dkv_ring *ring, uint32_t interval);

/* The member whose token ends `interval`. */
uint16_t dkv_ring_token_owner(const dkv_ring *ring, uint32_t interval);

/* The preference list of a position: dkv_ring_list of dkv_ring_find. Borrows from the ring. */
const uint16_t *dkv_ring_replicas(const dkv_ring *ring, uint64_t token);

/* A range of positions (after, upto], clockwise; after == upto means the whole circle. */
typedef struct dkv_ring_change {
    uint64_t after;
    uint64_t upto;
    const uint16_t *before_list; /* indices into the old ring's map; borrows */
    const uint16_t *after_list;  /* indices into the new ring's map; borrows */
    uint8_t n_before;
    uint8_t n_after;
} dkv_ring_change;

/* Exactly the positions whose preference lists (compared by node id, in order) differ between two
 * rings, as disjoint ranges in ascending order of `upto`; neighbours with the same two lists are
 * joined. *out (owned by the caller, to be freed with free()) borrows from both rings. */
int dkv_ring_diff(const dkv_ring *from, const dkv_ring *to, dkv_ring_change **out, size_t *n_out);

#endif
