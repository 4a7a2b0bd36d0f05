/* The nodes of the index. Private to index*.c. */
#ifndef DKV_STORE_INDEX_NODE_H
#define DKV_STORE_INDEX_NODE_H

#include "store/index.h"

#define LEAF_CAP 64u
#define INNER_CAP 32u
#define HEIGHT_MAX 12u /* far more than 2^32 entries need */

/* One child of an inner node, see invariants 2 and 3 of index.h. */
typedef struct dkv_index_child {
    void *node; /* dkv_leaf at the lowest inner level, else dkv_inner */
    dkv_key_hash low;
    dkv_index_sum sum;
} dkv_index_child;

typedef struct dkv_inner {
    uint32_t len;
    dkv_index_child child[INNER_CAP];
} dkv_inner;

typedef struct dkv_leaf {
    uint32_t len;
    uint64_t token[LEAF_CAP];
    uint64_t tag[LEAF_CAP];
    uint64_t hlc[LEAF_CAP];
    uint64_t place[LEAF_CAP];
    uint16_t origin[LEAF_CAP];
} dkv_leaf;

/* An entry as it stands in a leaf. */
typedef struct dkv_row {
    dkv_key_hash hash;
    uint64_t hlc;
    uint64_t place;
    uint16_t origin;
} dkv_row;

/* NULL: no memory. Counted in index->node_bytes. */
dkv_leaf *dkv_leaf_new(dkv_index *index);
dkv_inner *dkv_inner_new(dkv_index *index);
void dkv_leaf_del(dkv_index *index, dkv_leaf *leaf);
void dkv_inner_del(dkv_index *index, dkv_inner *inner);

dkv_row dkv_leaf_row(const dkv_leaf *leaf, uint32_t at);
void dkv_leaf_set(dkv_leaf *leaf, uint32_t at, const dkv_row *row);
/* The leaf has room. */
void dkv_leaf_insert(dkv_leaf *leaf, uint32_t at, const dkv_row *row);
void dkv_leaf_delete(dkv_leaf *leaf, uint32_t at);
/* The first row at or after `hash`; len if there is none. */
uint32_t dkv_leaf_find(const dkv_leaf *leaf, dkv_key_hash hash);
bool dkv_leaf_holds(const dkv_leaf *leaf, uint32_t at, dkv_key_hash hash);

/* The child that covers `hash`. */
uint32_t dkv_inner_find(const dkv_inner *inner, dkv_key_hash hash);
void dkv_inner_insert(dkv_inner *inner, uint32_t at, const dkv_index_child *child);
void dkv_inner_delete(dkv_inner *inner, uint32_t at);

dkv_index_entry dkv_row_entry(const dkv_index *index, const dkv_row *row);
dkv_digest dkv_row_digest(const dkv_index *index, const dkv_row *row);

/* Frees a node and everything below it; `levels`: inner levels, itself included. */
void dkv_node_free_below(dkv_index *index, void *node, unsigned levels);

/* Sum of rows [first, end) of a leaf. */
dkv_index_sum dkv_leaf_sum(const dkv_index *index, const dkv_leaf *leaf, uint32_t first,
                           uint32_t end);
/* Sum of children [first, end) of an inner node. */
dkv_index_sum dkv_inner_sum(const dkv_inner *inner, uint32_t first, uint32_t end);

static inline void dkv_sum_add(dkv_index_sum *sum, dkv_index_sum more) {
    sum->count += more.count;
    dkv_digest_add(&sum->digest, more.digest);
}

static inline void dkv_sum_sub(dkv_index_sum *sum, dkv_index_sum less) {
    sum->count -= less.count;
    dkv_digest_sub(&sum->digest, less.digest);
}

#endif
