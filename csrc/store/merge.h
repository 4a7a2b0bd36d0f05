/* Gives the space of dead records back. A sealed segment more than half of which is dead is a
 * victim, the deadest first: its live records are appended to the tail again, with their versions,
 * and the segment is removed when no record is left alive in it.
 *
 * Rules:
 * 1. A segment is removed only when every record that outdated one of its own is durable, no READ
 *    of it is out, and its REMOVED record is durable. On a full disk the last is not waited for:
 *    a crash at that moment makes the segment count as lost, which costs a comparison with the
 *    other replicas and no data. And nothing is removed before META tells of the damage that was
 *    found: the removed segment may have been all that shows it.
 * 2. Merge reads at most DKV_MERGE_PACE bytes for each byte that is applied, in pieces of
 *    DKV_MERGE_PIECE_BYTES, one at a time. That is enough to keep the log below about twice its
 *    live bytes. When it falls behind all the same, it reads without pause and writers are refused
 *    as BUSY (dkv_store_merge_is_behind). While the disk has little room (space.h) it reads without
 *    pause too, and when there is none at all it waits. */
#ifndef DKV_STORE_MERGE_H
#define DKV_STORE_MERGE_H

#include "store/scan.h"
#include "store/segments.h"

#define DKV_MERGE_PIECE_BYTES 65536u /* about 400 small records: half a millisecond of work */
#define DKV_MERGE_PACE 4u
#define DKV_MERGE_CREDIT_MAX (16u * DKV_MERGE_PIECE_BYTES) /* saved up while merge had to wait */
/* Merge is behind when the log has more than so many times the live bytes and so many segments. */
#define DKV_MERGE_BEHIND_FACTOR 4u
#define DKV_MERGE_BEHIND_SEGMENTS 8u

struct dkv_store;

typedef struct dkv_merge {
    dkv_segment *victim; /* being read; NULL: none */
    dkv_scan scan;
    uint64_t credit;           /* bytes that may be read */
    uint64_t merged_bytes;     /* moved since the store was opened */
    uint64_t unreadable_bytes; /* of segments that are left alone */
    dkv_disk_job read_job;
    uint32_t read_asked;
    bool read_out;
    dkv_segment *removing; /* its REMOVE is out */
    dkv_disk_job remove_job;
    uint64_t checked_at; /* `durable` when segments to remove were last looked for */
} dkv_merge;

void dkv_merge_free(dkv_merge *merge);

/* Scrub has read the segment, but for its holes: merge need not leave it alone any more. */
void dkv_merge_take_up(dkv_merge *merge, dkv_segment *segment);

/* `bytes` have been applied. */
void dkv_merge_pay(dkv_merge *merge, uint64_t bytes);

dkv_disk_job *dkv_merge_next_job(struct dkv_store *store);
void dkv_merge_job_done(struct dkv_store *store, dkv_disk_job *job);

static inline bool dkv_merge_is_job(const dkv_merge *merge, const dkv_disk_job *job) {
    return job == &merge->read_job || job == &merge->remove_job;
}

#endif
