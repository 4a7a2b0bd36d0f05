/* The index of a store: a B+-tree in memory, in the order of (token, tag), from a key's hash to
 * the version of its newest record and the record's place in the log.
 *
 *     inner node:  for each child: its lowest key, number and digest of the entries below
 *     leaf:        entries, one column per field: token, tag, hlc, place, origin (34 bytes each)
 *
 * Invariants:
 * 1. All leaves have the same depth. No leaf and no inner node is empty, but for an empty root.
 * 2. low[i] <= every key below child[i] < low[i + 1]; low[0] bounds nothing.
 * 3. count[i] and digest[i] are those of all entries below child[i], at all times. So number and
 *    digest of any range cost two walks from the root and at most two leaves.
 * 4. A full leaf first shares with its neighbours; only three neighbours full together become
 *    four. So leaves are at least 3/4 full after any sequence of insertions, which keeps an entry
 *    below 48 bytes, inner nodes included.
 *
 * The digest of an entry covers the hash, the whole version and the kind. It is the same on every
 * node, which is what lets replicas compare ranges. */
#ifndef DKV_STORE_INDEX_H
#define DKV_STORE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "model/record.h"
#include "store/origins.h"
#include "store/place.h"

typedef struct dkv_index_entry {
    dkv_key_hash hash;
    dkv_version version;
    uint64_t place; /* packed, see place.h; its lowest bit tells a tombstone */
} dkv_index_entry;

typedef struct dkv_index_sum {
    uint64_t count;
    dkv_digest digest;
} dkv_index_sum;

/* All zero is a valid empty index. */
typedef struct dkv_index {
    void *root;      /* NULL: empty */
    unsigned height; /* inner levels above the leaves */
    dkv_index_sum total;
    size_t node_bytes; /* memory of all nodes */
    dkv_origins origins;
} dkv_index;

void dkv_index_free(dkv_index *index);

/* Memory in use: all nodes and the table of origins. */
size_t dkv_index_bytes(const dkv_index *index);

/* Inserts the entry, or replaces that of the same hash. NO_MEMORY, or BUSY when there are too many
 * different origins: the index is as before. */
int dkv_index_put(dkv_index *index, const dkv_index_entry *entry);

bool dkv_index_get(const dkv_index *index, dkv_key_hash hash, dkv_index_entry *out);

/* Gives the entry of `hash` another place in the log, of a record with the same version and kind.
 * False if there is no such entry. */
bool dkv_index_move(dkv_index *index, dkv_key_hash hash, uint64_t place);

/* Removes the entry of `hash`; false if there is none. */
bool dkv_index_remove(dkv_index *index, dkv_key_hash hash);

/* Copies the entries at or after `from`, in order, at most `max`; fewer than `max` does not mean
 * the end, 0 does. */
size_t dkv_index_page(const dkv_index *index, dkv_key_hash from, dkv_index_entry *out, size_t max);

/* Number and digest of the entries with tokens in [first, last]; nothing if first > last. */
dkv_index_sum dkv_index_range(const dkv_index *index, uint64_t first, uint64_t last);

/* The digest of one entry, as it is summed up. */
dkv_digest dkv_index_digest_of(const dkv_index_entry *entry);

/* ---- bulk load: entries in ascending order into an empty index ---- */

typedef struct dkv_index_load {
    dkv_index *index;
    struct dkv_index_child *children; /* of the level that is being built */
    size_t len;
    size_t cap;
    unsigned height; /* of the children's nodes */
} dkv_index_load;

void dkv_index_load_init(dkv_index_load *load, dkv_index *index);

/* INVALID: not above the entry before; NO_MEMORY, BUSY as dkv_index_put. After an error only
 * dkv_index_load_free may follow. */
int dkv_index_load_add(dkv_index_load *load, const dkv_index_entry *entry);

/* Builds the inner nodes and gives the tree to the index. */
int dkv_index_load_finish(dkv_index_load *load);

/* Frees what has not been given to the index. Accepts NULL. */
void dkv_index_load_free(dkv_index_load *load);

#endif
