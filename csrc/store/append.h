/* The tail of the log: records go into memory at once, to disk in groups.
 *
 *     records -> chunk -> ... -> chunk -> WRITE -> SYNC -> confirmed
 *               (tail)          (head)
 *
 * A log position counts all bytes appended since the store was opened, over all segments; it only
 * grows. Whatever ends at or below `durable` survives.
 *
 * Rules:
 * 1. One WRITE (or CREATE) and one SYNC (or SYNC_DIR) may be out at a time.
 * 2. A SYNC begins when nothing is left to write, or DKV_CHUNK_BYTES are written and not synced.
 *    While it is out, records collect in a chunk; only a full chunk is written meanwhile. So
 *    everything that arrives during one SYNC shares the next.
 * 3. The first chunk of a segment is written after the segment before is durable (invariant 1 of
 *    log.h).
 * 4. With an interval a record is confirmed as soon as it is written. Writing never waits for a
 * SYNC then, but at the border of two segments (rule 3); a SYNC begins no sooner than one interval
 *    after the one before, or when a segment is complete.
 * 5. A small WRITE at the end of the file puts zeros behind its records, and the next ones
 * overwrite these: a SYNC that need not make the file longer costs a third less. When a segment is
 * complete or the store closes, a TRUNCATE takes away what is left of them.
 * 6. A WRITE that finds no space keeps its chunk, in memory and readable, and is tried again after
 *    dkv_append_retry. Whoever waits for it is told NO_SPACE once. */
#ifndef DKV_STORE_APPEND_H
#define DKV_STORE_APPEND_H

#include "store/segments.h"

#define DKV_CHUNK_BYTES 1048576u   /* a chunk that has as much takes no more records */
#define DKV_AHEAD_BYTES 262144u    /* zeros written at once; to sync more holds records up */
#define DKV_WAITERS_MAX (1u << 20) /* applies waiting for their confirmation */

/* Consecutive bytes of one segment that no WRITE has put into the file yet. */
typedef struct dkv_chunk {
    struct dkv_chunk *next;
    dkv_segment *segment;
    uint32_t offset; /* in the segment */
    bool closed;     /* takes no more records */
    dkv_buf bytes;
} dkv_chunk;

typedef struct dkv_waiter {
    uint64_t position;
    uint64_t cookie;
} dkv_waiter;

typedef struct dkv_append {
    const dkv_store_identity *identity; /* borrows */
    dkv_segments *segments;             /* borrows */
    uint32_t segment_bytes;             /* a segment is sealed at this size */
    uint32_t ahead_bytes;               /* zeros written at once; 0: never */
    int64_t interval_ns;                /* 0: a record is confirmed when it is durable */

    dkv_segment *active;   /* takes records; NULL before the first */
    uint32_t active_first; /* offset of its first record behind PRESENT */
    dkv_segment *syncing;  /* the oldest segment that is not durable as a whole; NULL: none */
    dkv_chunk *head;       /* written next */
    dkv_chunk *tail;       /* filled */
    dkv_chunk *spare;      /* kept for the next use, so that its pages stay warm */
    uint64_t appended;     /* log position */
    uint64_t durable;      /* log position */

    dkv_disk_job write_job;
    bool write_out;
    dkv_disk_job sync_job;
    bool sync_out;
    uint32_t sync_upto;  /* offset that the SYNC under way makes durable */
    int64_t now_ns;      /* used with an interval only */
    int64_t sync_due_ns; /* no SYNC before */

    bool closing;     /* the store closes: the file ends with its last record */
    bool full;        /* the last WRITE found no space */
    bool retry;       /* and may be tried again */
    uint64_t refused; /* log position: who waits for up to here has been refused space */
    bool failed;      /* a SYNC failed, or a WRITE otherwise than for space */
    uint64_t syncs;

    dkv_waiter *waiters; /* ring buffer, oldest first */
    size_t waiters_cap;  /* a power of two */
    size_t waiters_first;
    size_t waiters_len;
} dkv_append;

void dkv_append_free(dkv_append *append);

/* Makes room for a record of `len_bytes` in the log and tells its place. Opens a segment if need
 * be. After it dkv_append_commit cannot fail. NO_MEMORY; NO_SPACE: too many segments. */
int dkv_append_reserve(dkv_append *append, uint32_t len_bytes, dkv_place *place);

/* Appends the record at the reserved place. */
void dkv_append_commit(dkv_append *append, const dkv_log_record *record);

/* Makes room for one more waiter. BUSY, NO_MEMORY. */
int dkv_append_reserve_waiter(dkv_append *append);

/* `cookie` waits until everything appended so far is durable. There is room. */
void dkv_append_wait(dkv_append *append, uint64_t cookie);

/* Takes the oldest waiter whose fate is decided, and tells it: 0 or NO_SPACE. */
bool dkv_append_next_decided(dkv_append *append, uint64_t *cookie, int *err);

/* The log position up to which everything is in files. */
uint64_t dkv_append_written(const dkv_append *append);

/* Bytes of the segment's file whose records are confirmed. */
uint32_t dkv_append_confirmed(const dkv_append *append, const dkv_segment *segment);

/* Bytes appended, not yet confirmed. */
uint64_t dkv_append_unconfirmed(const dkv_append *append);

/* When the next SYNC is due, INT64_MAX if none waits for its time. */
int64_t dkv_append_next_timer(const dkv_append *append);

/* The bytes at an offset of a segment if they are in memory only, else NULL. Borrows until the next
 * call that changes `append`. */
const uint8_t *dkv_append_peek(const dkv_append *append, const dkv_segment *segment,
                               uint32_t offset);

/* The next job of the tail, or NULL. */
dkv_disk_job *dkv_append_next_job(dkv_append *append);

/* `job` came from dkv_append_next_job and has been performed. */
void dkv_append_job_done(dkv_append *append, dkv_disk_job *job);

/* There may be space again. */
void dkv_append_retry(dkv_append *append);

static inline bool dkv_append_is_job(const dkv_append *append, const dkv_disk_job *job) {
    return job == &append->write_job || job == &append->sync_job;
}

#endif
