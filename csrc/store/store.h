/* The store of one node: an append-only log of records, an index of it in memory, and nothing of
 * the outside world. Applying a record changes memory at once and hands out disk jobs; the node
 * moves jobs to its disk and completions back:
 *
 *     dkv_store_apply / read / set_facts     what the node wants
 *     dkv_store_next_job                     what the disk shall do          (pull until NULL)
 *     dkv_store_job_done                     what the disk did
 *     dkv_store_next_event                   what the node shall know        (pull until false)
 *
 * Group commit: records applied while a SYNC is under way leave in the next WRITE and share the
 * next SYNC. Nothing waits on a timer. All functions belong to one thread. */
#ifndef DKV_STORE_STORE_H
#define DKV_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "model/disk.h"
#include "model/record.h"

#define DKV_FACTS_MAX 131072u      /* bytes that dkv_store_set_facts takes */
#define DKV_INTERVAL_MAX_MS 60000u /* between two syncs, with DKV_DURABILITY_INTERVAL */

typedef struct dkv_store dkv_store;

/* When a write is confirmed. A directory may be opened with another one of the first two than the
 * last time; what it holds is durable once it is open. */
typedef enum dkv_durability {
    DKV_DURABILITY_ALWAYS = 0, /* after a SYNC: it survives a power loss */
    DKV_DURABILITY_INTERVAL,   /* after its WRITE: it survives the death of the process; a SYNC
                                  follows within interval_ms */
    DKV_DURABILITY_MEMORY,     /* nothing survives the process. For the store the same as ALWAYS; it
                                  is the disk side that keeps its files in memory */
} dkv_durability;

typedef struct dkv_store_options {
    const char *cluster;    /* cluster name, written into a new store, compared with an old one */
    const char *node_id;    /* likewise */
    uint64_t new_store_id;  /* random, not 0: the store id if the directory is new */
    uint32_t segment_bytes; /* a segment is sealed at this size; 0 = 64 MiB; at least 64 KiB */
    uint64_t unsynced_max_bytes; /* applied, not yet synced; see admits; 0 = 64 MiB */
    dkv_durability durability;
    uint32_t interval_ms; /* with INTERVAL, from 1 to DKV_INTERVAL_MAX_MS; else unused */
    uint64_t boot_id;     /* of the running machine, another one after each boot; 0: not known */
    size_t cache_bytes;   /* of records read lately that are kept in memory; 0: none */
    uint64_t scrub_bytes_per_s; /* that scrub reads at most, see scrub.h; 0 = 8 MiB */
    uint32_t scrub_interval_ms; /* from the end of one pass to the next; 0 = a day */
} dkv_store_options;

/* What opening found. */
typedef struct dkv_store_report {
    bool created;             /* the directory was empty: a new store */
    bool clean;               /* the last stop was clean; the index came from its snapshot */
    uint64_t records;         /* live records, tombstones included */
    uint64_t torn_bytes;      /* cut from the end of the log: writes that were never confirmed */
    uint64_t damaged_records; /* places in the log that fail their checksum and are no torn tail, or
                                cannot be read: confirmed records may be lost. Their count, at
                                least */
    bool machine_stopped;     /* in INTERVAL, with writes not synced: the last ones may be lost.
                                 Among the damaged records */
} dkv_store_report;

/* Opens the store on a disk, running each job at once through `run`: recovers, cuts a torn tail,
 * makes what was recovered durable, and starts a fresh segment. *out is owned by the caller.
 * PRECONDITION if the directory belongs to another cluster or node; PROTOCOL for a format version
 * that this program does not know; NO_SPACE, IO as the disk says; NO_MEMORY. A failed open changes
 * nothing that a later open needs. */
int dkv_store_open(const dkv_store_options *options, dkv_disk_run run, void *disk, dkv_store **out,
                   dkv_store_report *report);

/* Writes the index snapshot and the clean mark, running each job at once. Call with no job out.
 * Without it the next open scans the log; nothing is lost. */
int dkv_store_close_clean(dkv_store *store, dkv_disk_run run, void *disk);

/* Frees memory only. Jobs still out must not come back. Accepts NULL. */
void dkv_store_del(dkv_store *store);

/* Identity of this directory's content, random, from the day it was made. Never 0. */
uint64_t dkv_store_id(const dkv_store *store);

/* ---- writing ---- */

/* Applies a record: the newest version of a key wins, an older or equal one is dropped but
 * confirmed all the same. In memory at once (dkv_store_peek and read see it); durable, as far as
 * the durability of the store goes, when the event DKV_STORE_DURABLE with this cookie comes,
 * exactly once per successful call. BUSY (too much unsynced), NO_SPACE (the disk is full, see
 * dkv_store_retry), IO (a disk failed), INVALID (limits of model/record.h), DATA_LOSS (the same
 * version with other contents), NO_MEMORY: nothing happens and no event comes. */
int dkv_store_apply(dkv_store *store, const dkv_record *record, uint64_t cookie);

/* 0 if a new write of a record of this kind and size may be begun now, else BUSY or NO_SPACE. Apply
 * itself refuses only at twice these limits: a write that has been begun at several nodes should
 * not fail half-way because others were begun meanwhile. A value finds NO_SPACE when the disk has
 * room for one segment or less; a tombstone only when there is none at all, so that deleting is a
 * way out of a full disk. */
int dkv_store_admits(const dkv_store *store, dkv_kind kind, size_t record_bytes);

/* There may be space again: what found none is tried once more. Call from time to time (a second
 * is fine) while stats say `full`. Merge calls for it by itself when it has freed a segment. */
void dkv_store_retry(dkv_store *store);

/* Replaces the facts, a small blob that the node keeps beside its records (peers' store ids,
 * in-sync state). INVALID above DKV_FACTS_MAX. DKV_STORE_DURABLE with `cookie` when durable. */
int dkv_store_set_facts(dkv_store *store, dkv_slice facts, uint64_t cookie);

/* The facts as last set or recovered; empty in a new store. Borrows until the next set. */
dkv_slice dkv_store_facts(const dkv_store *store);

/* ---- reading ---- */

/* What the index knows of a key. */
typedef struct dkv_store_entry {
    dkv_version version;
    dkv_kind kind;
    uint32_t len_bytes; /* of the record in the log */
    bool durable;       /* it would be confirmed now */
} dkv_store_entry;

/* The newest version stored under `hash`; NOT_FOUND if there is none. No I/O. */
int dkv_store_peek(const dkv_store *store, dkv_key_hash hash, dkv_store_entry *out);

/* Reads the newest record of `key` (copied if need be); an empty `key` stands for whatever key has
 * this hash. Exactly one event DKV_STORE_READ with this cookie follows a successful call: err 0 and
 * the record (a tombstone too), or DATA_LOSS if it is damaged or another key's, IO, NO_MEMORY.
 * NOT_FOUND at once, without an event, if the index has none; NO_MEMORY and BUSY (too many reads
 * under way) likewise.
 *
 * A record that turns out damaged, by a read, by merge or by scrub, which reads the whole log in
 * the background from time to time, leaves the index, and so does one that scrub has tried to read
 * for a minute, with IO each time: the event DKV_STORE_DAMAGED tells its token, and the same
 * version can be applied again. Until then the store is not in sync for this token: it no longer
 * knows the key. */
int dkv_store_read(dkv_store *store, dkv_slice key, dkv_key_hash hash, uint64_t cookie);

/* Reads the newest record under `hash` at once, through `run`, and without any effect on the store:
 * for those who look at it from outside. *out borrows from `bytes`. NOT_FOUND, DATA_LOSS, IO,
 * NO_MEMORY. */
int dkv_store_look(const dkv_store *store, dkv_key_hash hash, dkv_disk_run run, void *disk,
                   dkv_buf *bytes, dkv_record *out);

/* Number and digest of the records in the token range [first, last], O(log n): equal ranges of two
 * stores have equal digests. `version` and `kind` of each record are in the digest, its bytes are
 * not. */
typedef struct dkv_store_range {
    uint64_t records;
    dkv_digest digest;
} dkv_store_range;

dkv_store_range dkv_store_digest(const dkv_store *store, uint64_t first, uint64_t last);

/* Walks the index in order: the first entry at or after `from`. NOT_FOUND at the end. */
int dkv_store_next(const dkv_store *store, dkv_key_hash from, dkv_key_hash *hash,
                   dkv_store_entry *entry);

/* ---- disk and events ---- */

/* Time has passed. Needed before next_job, for DKV_DURABILITY_INTERVAL and for scrub. */
void dkv_store_tick(dkv_store *store, int64_t now_ns);

/* When the next tick is due, INT64_MAX if none is. */
int64_t dkv_store_next_timer(const dkv_store *store);

/* The next job to perform, or NULL. The job stays the store's; give it back with job_done. Call
 * once after each batch of applies: what was applied before leaves together. */
dkv_disk_job *dkv_store_next_job(dkv_store *store);

/* A job that next_job handed out has been performed (job->err says how). */
void dkv_store_job_done(dkv_store *store, dkv_disk_job *job);

typedef enum dkv_store_event_kind {
    DKV_STORE_DURABLE,    /* the apply or set_facts of `cookie` is confirmed, or err says why not */
    DKV_STORE_READ,       /* the read of `cookie` ended */
    DKV_STORE_FAILED,     /* a SYNC failed: nothing more is promised, the process must exit */
    DKV_STORE_DAMAGED,    /* a record was lost to damage: `cookie` is the token of its key, or 0 if
                             memory was short */
    DKV_STORE_SCRUBBED,   /* a scrub pass has ended: it has read every record */
    DKV_STORE_UNREADABLE, /* so much of the log cannot be read that no more of it is given up; told
                             once in each pass */
} dkv_store_event_kind;

typedef struct dkv_store_event {
    dkv_store_event_kind kind;
    int err;
    uint64_t cookie;
    dkv_record record; /* READ with err 0; borrows until the next call of next_event */
} dkv_store_event;

bool dkv_store_next_event(dkv_store *store, dkv_store_event *out);

/* ---- upkeep ---- */

typedef struct dkv_store_stats {
    uint64_t records;           /* live records, tombstones included */
    uint64_t tombstones;        /* among them */
    uint64_t live_bytes;        /* of the log that the index refers to */
    uint64_t log_bytes;         /* of all segments */
    uint64_t index_bytes;       /* memory of the index */
    uint64_t unsynced_bytes;    /* applied, not yet synced */
    uint64_t unconfirmed_bytes; /* applied, not yet confirmed */
    uint32_t segments;
    bool full;                /* values are refused as NO_SPACE */
    uint64_t damaged_records; /* found at open and since */
    uint64_t merged_bytes;    /* copied by merge since open */
    uint64_t syncs;           /* since open */
    uint64_t scrub_passes;    /* ended since open, with every record read */
    uint64_t scrubbed_bytes;  /* read by scrub since open */
} dkv_store_stats;

void dkv_store_stats_get(const dkv_store *store, dkv_store_stats *out);

#endif
