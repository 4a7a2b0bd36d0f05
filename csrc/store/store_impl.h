/* The inside of a store, shared by the files that implement store.h. */
#ifndef DKV_STORE_STORE_IMPL_H
#define DKV_STORE_STORE_IMPL_H

#include "store/append.h"
#include "store/cache.h"
#include "store/holes.h"
#include "store/index.h"
#include "store/merge.h"
#include "store/meta.h"
#include "store/reads.h"
#include "store/scrub.h"
#include "store/space.h"
#include "store/store.h"

struct dkv_store {
    dkv_index index;
    dkv_segments segments;
    dkv_append append;
    dkv_meta meta;
    dkv_reads reads;
    dkv_cache cache;
    dkv_merge merge;
    dkv_scrub scrub;
    dkv_holes holes;
    dkv_space space;
    uint64_t unsynced_max_bytes;
    uint64_t tombstones;
    uint64_t damaged_records;
    dkv_buf damaged_tokens; /* 8 bytes each: to be told as DKV_STORE_DAMAGED, newest last */
    bool damage_untold;     /* there was no memory to note a token there */
    bool failure_told;
};

/* Puts a record at `place`, just appended or just found, into the index, and accounts for what it
 * replaces. `old` is its predecessor, or NULL. `death`: log position at which `old` is outdated.
 * NO_MEMORY, BUSY: nothing has changed. */
int dkv_store_index_put(dkv_store *store, const dkv_index_entry *entry, const dkv_index_entry *old,
                        uint64_t death);

/* The record of `entry` has turned out damaged: it leaves the index, so that the same version can
 * be applied again. */
void dkv_store_lose(dkv_store *store, const dkv_index_entry *entry);

/* Appends a live record of a segment that is being merged, and moves its index entry there. */
int dkv_store_move(dkv_store *store, const dkv_index_entry *entry, const dkv_log_record *record);

/* True while merge is so far behind that dead records could fill the disk: at `slack` times the
 * limits of merge.h. */
bool dkv_store_merge_is_behind(const dkv_store *store, unsigned slack);

/* True while the disk has so little room that new values are refused. */
bool dkv_store_space_is_low(const dkv_store *store);

#endif
