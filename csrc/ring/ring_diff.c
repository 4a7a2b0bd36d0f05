/* The difference of two rings, by one merge of their sorted interval ends. The ends of both rings
 * together cut the circle into pieces on which both preference lists are constant. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "ring/ring.h"

#define NOBODY UINT16_MAX

typedef struct diff {
    const dkv_ring *from;
    const dkv_ring *to;
    uint16_t in_to[DKV_MEMBERS_MAX]; /* by member of `from`: its index in `to`, or NOBODY */
    dkv_ring_change *changes;
    size_t n;
    size_t cap;
} diff;

static void match_members(diff *d) {
    const dkv_cluster_map *from = dkv_ring_map(d->from);
    const dkv_cluster_map *to = dkv_ring_map(d->to);
    for (uint16_t m = 0; m < from->n_members; m++) {
        int found = dkv_cluster_map_find(to, from->members[m].id);
        d->in_to[m] = found < 0 ? NOBODY : (uint16_t)found;
    }
}

static bool is_unchanged(const diff *d, const dkv_ring_change *piece) {
    if (piece->n_before != piece->n_after) return false;
    for (unsigned i = 0; i < piece->n_before; i++) {
        if (d->in_to[piece->before_list[i]] != piece->after_list[i]) return false;
    }
    return true;
}

/* Both are changes between the same two rings, so their lists can be compared by index. */
static bool same_lists(const dkv_ring_change *a, const dkv_ring_change *b) {
    return memcmp(a->before_list, b->before_list, a->n_before * sizeof *a->before_list) == 0 &&
           memcmp(a->after_list, b->after_list, a->n_after * sizeof *a->after_list) == 0;
}

static int append(diff *d, const dkv_ring_change *piece) {
    dkv_ring_change *last = d->n ? &d->changes[d->n - 1] : NULL;
    if (last && last->upto == piece->after && same_lists(last, piece)) {
        last->upto = piece->upto;
        return DKV_OK;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 64;
        dkv_ring_change *changes = realloc(d->changes, cap * sizeof *changes);
        if (!changes) return DKV_ERR_NO_MEMORY;
        d->changes = changes;
        d->cap = cap;
    }
    d->changes[d->n++] = *piece;
    return DKV_OK;
}

/* Joins the last change to the first where they meet across zero. */
static void join_ends(diff *d) {
    if (d->n < 2) return;
    dkv_ring_change *first = &d->changes[0];
    const dkv_ring_change *last = &d->changes[d->n - 1];
    if (last->upto != first->after || !same_lists(first, last)) return;
    first->after = last->after;
    d->n--;
}

static uint64_t last_end(const dkv_ring *ring) {
    return dkv_ring_end(ring, dkv_ring_intervals(ring) - 1);
}

static uint64_t min_u64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* Visits the pieces in ascending order. `i` and `k` are the intervals that hold the piece; behind
 * its last end a ring is back in interval 0, whose end then no longer counts as a cut. */
static int merge(diff *d) {
    const uint32_t n_from = dkv_ring_intervals(d->from);
    const uint32_t n_to = dkv_ring_intervals(d->to);
    uint64_t after = max_u64(last_end(d->from), last_end(d->to));
    for (uint32_t i = 0, k = 0; i < n_from || k < n_to;) {
        uint64_t end_from = i < n_from ? dkv_ring_end(d->from, i) : UINT64_MAX;
        uint64_t end_to = k < n_to ? dkv_ring_end(d->to, k) : UINT64_MAX;
        dkv_ring_change piece = {
            .after = after,
            .upto = min_u64(end_from, end_to),
            .before_list = dkv_ring_list(d->from, i < n_from ? i : 0),
            .after_list = dkv_ring_list(d->to, k < n_to ? k : 0),
            .n_before = (uint8_t)dkv_ring_replication(d->from),
            .n_after = (uint8_t)dkv_ring_replication(d->to),
        };
        if (!is_unchanged(d, &piece)) {
            int err = append(d, &piece);
            if (err) return err;
        }
        after = piece.upto;
        i += i < n_from && end_from == piece.upto;
        k += k < n_to && end_to == piece.upto;
    }
    return DKV_OK;
}

int dkv_ring_diff(const dkv_ring *from, const dkv_ring *to, dkv_ring_change **out, size_t *n_out) {
    diff d = {.from = from, .to = to};
    match_members(&d);
    int err = merge(&d);
    if (err) {
        free(d.changes);
        return err;
    }
    join_ends(&d);
    *out = d.changes;
    *n_out = d.n;
    return DKV_OK;
}
