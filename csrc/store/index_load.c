#include <stdlib.h>

#include "base/err.h"
#include "store/index_node.h"

/* Not quite full, so that the first insertions after a load find room. */
#define LEAF_FILL 60u
#define INNER_FILL 30u

void dkv_index_load_init(dkv_index_load *load, dkv_index *index) {
    *load = (dkv_index_load){.index = index};
}

static int add_child(dkv_index_load *load, const dkv_index_child *child) {
    if (load->len == load->cap) {
        size_t cap = load->cap ? load->cap * 2 : 64;
        dkv_index_child *children = realloc(load->children, cap * sizeof *children);
        if (!children) return DKV_ERR_NO_MEMORY;
        load->children = children;
        load->cap = cap;
    }
    load->children[load->len++] = *child;
    return DKV_OK;
}

static int add_leaf(dkv_index_load *load, dkv_key_hash low) {
    dkv_leaf *leaf = dkv_leaf_new(load->index);
    if (!leaf) return DKV_ERR_NO_MEMORY;
    dkv_index_child child = {.node = leaf, .low = low};
    int err = add_child(load, &child);
    if (err) dkv_leaf_del(load->index, leaf);
    return err;
}

int dkv_index_load_add(dkv_index_load *load, const dkv_index_entry *entry) {
    dkv_leaf *leaf = load->len ? load->children[load->len - 1].node : NULL;
    if (leaf) {
        dkv_row last = dkv_leaf_row(leaf, leaf->len - 1);
        if (dkv_key_hash_cmp(last.hash, entry->hash) >= 0) return DKV_ERR_INVALID;
    }
    dkv_row row = {.hash = entry->hash, .hlc = entry->version.hlc, .place = entry->place};
    int err = dkv_origins_intern(&load->index->origins, entry->version.origin, &row.origin);
    if (err) return err;
    if (!leaf || leaf->len == LEAF_FILL) {
        err = add_leaf(load, entry->hash);
        if (err) return err;
        leaf = load->children[load->len - 1].node;
    }
    dkv_leaf_set(leaf, leaf->len++, &row);
    dkv_index_sum sum = {1, dkv_index_digest_of(entry)};
    dkv_sum_add(&load->children[load->len - 1].sum, sum);
    return DKV_OK;
}

/* Replaces load->children by the level above, in place. A level that failed half-way stays
 * consistent for load_free, because a group leaves the array when its node is complete. */
static int build_level(dkv_index_load *load) {
    size_t groups = (load->len + INNER_FILL - 1) / INNER_FILL;
    dkv_inner **nodes = calloc(groups, sizeof(dkv_inner *));
    if (!nodes) return DKV_ERR_NO_MEMORY;
    for (size_t g = 0; g < groups; g++) {
        nodes[g] = dkv_inner_new(load->index);
        if (nodes[g]) continue;
        while (g > 0) dkv_inner_del(load->index, nodes[--g]);
        free(nodes);
        return DKV_ERR_NO_MEMORY;
    }
    size_t taken = 0;
    for (size_t g = 0; g < groups; g++) {
        dkv_inner *inner = nodes[g];
        inner->len = (uint32_t)((load->len - taken) / (groups - g));
        for (uint32_t i = 0; i < inner->len; i++) inner->child[i] = load->children[taken + i];
        taken += inner->len;
        load->children[g] =
            (dkv_index_child){inner, inner->child[0].low, dkv_inner_sum(inner, 0, inner->len)};
    }
    load->len = groups;
    free(nodes);
    return DKV_OK;
}

int dkv_index_load_finish(dkv_index_load *load) {
    while (load->len > 1) {
        int err = build_level(load);
        if (err) return err;
        load->height++;
    }
    if (load->len == 1) {
        load->index->root = load->children[0].node;
        load->index->height = load->height;
        load->index->total = load->children[0].sum;
    }
    load->len = 0;
    return DKV_OK;
}

void dkv_index_load_free(dkv_index_load *load) {
    if (!load) return;
    for (size_t i = 0; i < load->len; i++) {
        dkv_node_free_below(load->index, load->children[i].node, load->height);
    }
    free(load->children);
    *load = (dkv_index_load){0};
}
