/* What one member of a ring replicates: the token ranges whose preference lists name it. Whatever
 * is known, compared or lost of a store is known, compared or lost range by range.
 *
 * A share is one interval of the ring, with inclusive bounds; the interval that wraps around zero
 * makes two. So no share wraps, and each token belongs to at most one. */
#ifndef DKV_RING_SHARES_H
#define DKV_RING_SHARES_H

#include "ring/ring.h"

typedef struct dkv_share {
    uint64_t first, last;
    const uint16_t *list; /* its preference list; borrows from the ring */
} dkv_share;

typedef struct dkv_shares {
    unsigned replication; /* length of the lists */
    uint32_t n;
    dkv_share *all; /* in ascending order, disjoint */
} dkv_shares;

/* Lists the shares of member `self`. `ring` must outlive them. NO_MEMORY. */
int dkv_shares_init(dkv_shares *shares, const dkv_ring *ring, uint16_t self);

/* The share that holds `token`, or −1 if the member has no replica there. */
int64_t dkv_shares_find(const dkv_shares *shares, uint64_t token);

/* Place of `member` in the preference list of a share, or −1. */
int dkv_share_place(const dkv_shares *shares, uint32_t share, uint16_t member);

/* Accepts NULL. */
void dkv_shares_free(dkv_shares *shares);

#endif
