#include "store/index.h"

#include <assert.h>

#include "base/err.h"
#include "base/plant.h"
#include "store/index_node.h"

#define WINDOW 3u       /* neighbouring leaves that share their rows */
#define WINDOW_SPARE 6u /* free rows in a window that make sharing worth its copying */

/* The way from the root to a leaf: at each inner level the node and the child taken. */
typedef struct path {
    dkv_inner *inner[HEIGHT_MAX];
    uint32_t at[HEIGHT_MAX];
    dkv_leaf *leaf;
} path;

static path descend(const dkv_index *index, dkv_key_hash hash) {
    path way = {.leaf = NULL};
    void *node = index->root;
    for (unsigned level = 0; level < index->height; level++) {
        way.inner[level] = node;
        way.at[level] = dkv_inner_find(node, hash);
        node = way.inner[level]->child[way.at[level]].node;
    }
    way.leaf = node;
    return way;
}

/* Adds to, or takes from, the sums of everything above the leaf. */
static void add_above(dkv_index *index, const path *way, dkv_index_sum more, dkv_index_sum less) {
    for (unsigned level = 0; level < index->height; level++) {
        dkv_index_sum *sum = &way->inner[level]->child[way->at[level]].sum;
        dkv_sum_add(sum, more);
        dkv_sum_sub(sum, less);
    }
    dkv_sum_add(&index->total, more);
    dkv_sum_sub(&index->total, less);
}

/* ---- lookup ---- */

bool dkv_index_get(const dkv_index *index, dkv_key_hash hash, dkv_index_entry *out) {
    if (!index->root) return false;
    const void *node = index->root;
    for (unsigned level = 0; level < index->height; level++) {
        const dkv_inner *inner = node;
        node = inner->child[dkv_inner_find(inner, hash)].node;
    }
    const dkv_leaf *leaf = node;
    uint32_t at = dkv_leaf_find(leaf, hash);
    if (!dkv_leaf_holds(leaf, at, hash)) return false;
    dkv_row row = dkv_leaf_row(leaf, at);
    *out = dkv_row_entry(index, &row);
    return true;
}

/* Copies from the first leaf below `node` that has an entry at or after `from`. */
static size_t page_below(const dkv_index *index, const void *node, unsigned levels,
                         dkv_key_hash from, dkv_index_entry *out, size_t max) {
    if (levels > 0) {
        const dkv_inner *inner = node;
        size_t found = 0;
        for (uint32_t i = dkv_inner_find(inner, from); i < inner->len && found == 0; i++) {
            found = page_below(index, inner->child[i].node, levels - 1, from, out, max);
        }
        return found;
    }
    const dkv_leaf *leaf = node;
    size_t found = 0;
    for (uint32_t i = dkv_leaf_find(leaf, from); i < leaf->len && found < max; i++) {
        dkv_row row = dkv_leaf_row(leaf, i);
        out[found++] = dkv_row_entry(index, &row);
    }
    return found;
}

size_t dkv_index_page(const dkv_index *index, dkv_key_hash from, dkv_index_entry *out, size_t max) {
    return index->root ? page_below(index, index->root, index->height, from, out, max) : 0;
}

/* Sum of the rows of a leaf below `hash`, counted from the nearer end. `whole`: of all its rows. */
static dkv_index_sum leaf_sum_before(const dkv_index *index, const dkv_leaf *leaf,
                                     dkv_index_sum whole, dkv_key_hash hash) {
    uint32_t at = dkv_leaf_find(leaf, hash);
    if (at <= leaf->len / 2) return dkv_leaf_sum(index, leaf, 0, at);
    dkv_sum_sub(&whole, dkv_leaf_sum(index, leaf, at, leaf->len));
    return whole;
}

/* Sum of all entries below `hash`. */
static dkv_index_sum sum_before(const dkv_index *index, dkv_key_hash hash) {
    dkv_index_sum sum = {0}, whole = index->total;
    const void *node = index->root;
    for (unsigned level = 0; level < index->height; level++) {
        const dkv_inner *inner = node;
        uint32_t at = dkv_inner_find(inner, hash);
        dkv_sum_add(&sum, dkv_inner_sum(inner, 0, at));
        whole = inner->child[at].sum;
        node = inner->child[at].node;
    }
    dkv_sum_add(&sum, leaf_sum_before(index, node, whole, hash));
    return sum;
}

dkv_index_sum dkv_index_range(const dkv_index *index, uint64_t first, uint64_t last) {
    if (!index->root || first > last) return (dkv_index_sum){0};
    dkv_index_sum sum =
        last == UINT64_MAX ? index->total : sum_before(index, (dkv_key_hash){last + 1, 0});
    if (first > 0) dkv_sum_sub(&sum, sum_before(index, (dkv_key_hash){first, 0}));
    return sum;
}

/* ---- growing ---- */

/* Puts an inner node above the root. */
static int grow_root(dkv_index *index) {
    assert(index->height < HEIGHT_MAX);
    dkv_inner *root = dkv_inner_new(index);
    if (!root) return DKV_ERR_NO_MEMORY;
    root->child[0] = (dkv_index_child){.node = index->root, .sum = index->total};
    root->len = 1;
    index->root = root;
    index->height++;
    return DKV_OK;
}

/* Halves the full inner node that is child `at` of `parent`, which has room. */
static int split_inner(dkv_index *index, dkv_inner *parent, uint32_t at) {
    dkv_inner *left = parent->child[at].node;
    dkv_inner *right = dkv_inner_new(index);
    if (!right) return DKV_ERR_NO_MEMORY;
    uint32_t half = left->len / 2;
    right->len = left->len - half;
    for (uint32_t i = 0; i < right->len; i++) right->child[i] = left->child[half + i];
    left->len = half;
    dkv_index_child child = {right, right->child[0].low, dkv_inner_sum(right, 0, right->len)};
    dkv_sum_sub(&parent->child[at].sum, child.sum);
    dkv_inner_insert(parent, at + 1, &child);
    return DKV_OK;
}

/* Spreads the rows of leaves [first, first + from) of `parent` evenly over [first, first + to). */
static void spread(dkv_index *index, dkv_inner *parent, uint32_t first, uint32_t from,
                   uint32_t to) {
    dkv_row rows[WINDOW * LEAF_CAP];
    uint32_t total = 0;
    for (uint32_t i = first; i < first + from; i++) {
        const dkv_leaf *leaf = parent->child[i].node;
        for (uint32_t r = 0; r < leaf->len; r++) rows[total++] = dkv_leaf_row(leaf, r);
    }
    uint32_t taken = 0;
    for (uint32_t i = 0; i < to; i++) {
        dkv_index_child *child = &parent->child[first + i];
        dkv_leaf *leaf = child->node;
        leaf->len = (total - taken) / (to - i);
        for (uint32_t r = 0; r < leaf->len; r++) dkv_leaf_set(leaf, r, &rows[taken + r]);
        if (i > 0) child->low = rows[taken].hash;
        child->sum = dkv_leaf_sum(index, leaf, 0, leaf->len);
        taken += leaf->len;
    }
}

/* Makes room in leaf `at` of `parent`, which has room for one more child. */
static int relieve_leaf(dkv_index *index, dkv_inner *parent, uint32_t at) {
    uint32_t window = parent->len < WINDOW ? parent->len : WINDOW;
    uint32_t first = at > 0 ? at - 1 : 0;
    if (first + window > parent->len) first = parent->len - window;
    uint64_t total = dkv_inner_sum(parent, first, first + window).count;
    if (total + WINDOW_SPARE <= (uint64_t)window * LEAF_CAP) {
        spread(index, parent, first, window, window);
        return DKV_OK;
    }
    dkv_leaf *leaf = dkv_leaf_new(index);
    if (!leaf) return DKV_ERR_NO_MEMORY;
    dkv_index_child child = {.node = leaf};
    dkv_inner_insert(parent, first + window, &child);
    spread(index, parent, first, window, window + 1);
    return DKV_OK;
}

/* One step towards room in the leaf of `way`; the way is stale afterwards. Full inner nodes are
 * split from the top, so that a parent always has room. */
static int make_room(dkv_index *index, const path *way) {
    if (index->height == 0) return grow_root(index);
    unsigned level = index->height - 1;
    while (level > 0 && way->inner[level]->len == INNER_CAP) level--;
    if (way->inner[level]->len == INNER_CAP) return grow_root(index);
    if (level == index->height - 1) return relieve_leaf(index, way->inner[level], way->at[level]);
    return split_inner(index, way->inner[level], way->at[level]);
}

int dkv_index_put(dkv_index *index, const dkv_index_entry *entry) {
    dkv_row row = {.hash = entry->hash, .hlc = entry->version.hlc, .place = entry->place};
    int err = dkv_origins_intern(&index->origins, entry->version.origin, &row.origin);
    if (err) return err;
    if (!index->root) {
        index->root = dkv_leaf_new(index);
        if (!index->root) return DKV_ERR_NO_MEMORY;
    }
    for (;;) {
        path way = descend(index, entry->hash);
        uint32_t at = dkv_leaf_find(way.leaf, entry->hash);
        dkv_index_sum more = {1, dkv_index_digest_of(entry)};
        if (dkv_leaf_holds(way.leaf, at, entry->hash)) {
            if (DKV_PLANTED(KEEP_DIGEST)) more = dkv_leaf_sum(index, way.leaf, at, at + 1);
            add_above(index, &way, more, dkv_leaf_sum(index, way.leaf, at, at + 1));
            dkv_leaf_set(way.leaf, at, &row);
            return DKV_OK;
        }
        if (way.leaf->len < LEAF_CAP) {
            dkv_leaf_insert(way.leaf, at, &row);
            add_above(index, &way, more, (dkv_index_sum){0});
            return DKV_OK;
        }
        err = make_room(index, &way);
        if (err) return err;
    }
}

bool dkv_index_move(dkv_index *index, dkv_key_hash hash, uint64_t place) {
    if (!index->root) return false;
    path way = descend(index, hash);
    uint32_t at = dkv_leaf_find(way.leaf, hash);
    if (!dkv_leaf_holds(way.leaf, at, hash)) return false;
    assert((way.leaf->place[at] & 1) == (place & 1));
    way.leaf->place[at] = place;
    return true;
}

/* ---- shrinking ---- */

/* Moves everything of child `at + 1` of `parent` into child `at`, if the two leave a quarter of
 * one node free. `levels`: inner levels below `parent`. */
static bool merge_with_next(dkv_index *index, dkv_inner *parent, uint32_t at, unsigned levels) {
    if (at + 1 >= parent->len) return false;
    dkv_index_child *child = &parent->child[at];
    if (levels == 0) {
        dkv_leaf *left = child[0].node, *right = child[1].node;
        if (left->len + right->len > LEAF_CAP / 4 * 3) return false;
        for (uint32_t r = 0; r < right->len; r++) {
            dkv_row row = dkv_leaf_row(right, r);
            dkv_leaf_set(left, left->len++, &row);
        }
        dkv_leaf_del(index, right);
    } else {
        dkv_inner *left = child[0].node, *right = child[1].node;
        if (left->len + right->len > INNER_CAP / 4 * 3) return false;
        right->child[0].low = child[1].low;
        for (uint32_t i = 0; i < right->len; i++) left->child[left->len++] = right->child[i];
        dkv_inner_del(index, right);
    }
    dkv_sum_add(&child[0].sum, child[1].sum);
    dkv_inner_delete(parent, at + 1);
    return true;
}

/* Drops the emptied leaf of `way` and every inner node that is empty without it. */
static void drop_empty(dkv_index *index, const path *way) {
    dkv_leaf_del(index, way->leaf);
    for (unsigned level = index->height; level-- > 0;) {
        dkv_inner_delete(way->inner[level], way->at[level]);
        if (way->inner[level]->len > 0) return;
        dkv_inner_del(index, way->inner[level]);
    }
    index->root = NULL;
    index->height = 0;
}

static void shrink(dkv_index *index, const path *way) {
    for (unsigned level = index->height; level-- > 0;) {
        unsigned levels = index->height - 1 - level;
        uint32_t at = way->at[level];
        bool merged = merge_with_next(index, way->inner[level], at, levels);
        if (!merged && at > 0) merged = merge_with_next(index, way->inner[level], at - 1, levels);
        if (!merged) break;
    }
    while (index->height > 0 && ((dkv_inner *)index->root)->len == 1) {
        dkv_inner *root = index->root;
        index->root = root->child[0].node;
        index->height--;
        dkv_inner_del(index, root);
    }
}

bool dkv_index_remove(dkv_index *index, dkv_key_hash hash) {
    if (!index->root) return false;
    path way = descend(index, hash);
    uint32_t at = dkv_leaf_find(way.leaf, hash);
    if (!dkv_leaf_holds(way.leaf, at, hash)) return false;
    add_above(index, &way, (dkv_index_sum){0}, dkv_leaf_sum(index, way.leaf, at, at + 1));
    dkv_leaf_delete(way.leaf, at);
    if (way.leaf->len == 0) {
        drop_empty(index, &way);
    } else {
        shrink(index, &way);
    }
    return true;
}

/* ---- whole ---- */

void dkv_node_free_below(dkv_index *index, void *node, unsigned levels) {
    if (levels == 0) {
        dkv_leaf_del(index, node);
        return;
    }
    dkv_inner *inner = node;
    for (uint32_t i = 0; i < inner->len; i++)
        dkv_node_free_below(index, inner->child[i].node, levels - 1);
    dkv_inner_del(index, inner);
}

void dkv_index_free(dkv_index *index) {
    if (!index) return;
    if (index->root) dkv_node_free_below(index, index->root, index->height);
    dkv_origins_free(&index->origins);
    *index = (dkv_index){0};
}

size_t dkv_index_bytes(const dkv_index *index) {
    return index->node_bytes + dkv_origins_bytes(&index->origins);
}
