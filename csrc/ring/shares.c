#include "ring/shares.h"

#include <stdlib.h>

#include "base/err.h"

static bool names(const uint16_t *list, unsigned n, uint16_t member) {
    for (unsigned i = 0; i < n; i++) {
        if (list[i] == member) return true;
    }
    return false;
}

static void add(dkv_shares *shares, uint64_t first, uint64_t last, const uint16_t *list) {
    shares->all[shares->n++] = (dkv_share){first, last, list};
}

int dkv_shares_init(dkv_shares *shares, const dkv_ring *ring, uint16_t self) {
    uint32_t intervals = dkv_ring_intervals(ring), own = 0;
    dkv_shares made = {.replication = dkv_ring_replication(ring)};
    for (uint32_t i = 0; i < intervals; i++) {
        own += names(dkv_ring_list(ring, i), made.replication, self);
    }
    made.all = calloc(own + 1u, sizeof *made.all); /* one more: the interval that wraps is two */
    if (!made.all) return DKV_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < intervals; i++) {
        const uint16_t *list = dkv_ring_list(ring, i);
        if (!names(list, made.replication, self)) continue;
        add(&made, i ? dkv_ring_end(ring, i - 1) + 1 : 0, dkv_ring_end(ring, i), list);
    }
    uint64_t end = dkv_ring_end(ring, intervals - 1);
    const uint16_t *first_list = dkv_ring_list(ring, 0);
    if (end < UINT64_MAX && names(first_list, made.replication, self)) {
        add(&made, end + 1, UINT64_MAX, first_list);
    }
    *shares = made;
    return DKV_OK;
}

int64_t dkv_shares_find(const dkv_shares *shares, uint64_t token) {
    uint32_t low = 0, high = shares->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (shares->all[middle].last < token) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < shares->n && shares->all[low].first <= token ? (int64_t)low : -1;
}

int dkv_share_place(const dkv_shares *shares, uint32_t share, uint16_t member) {
    for (unsigned i = 0; i < shares->replication; i++) {
        if (shares->all[share].list[i] == member) return (int)i;
    }
    return -1;
}

void dkv_shares_free(dkv_shares *shares) {
    if (!shares) return;
    free(shares->all);
    *shares = (dkv_shares){0};
}
