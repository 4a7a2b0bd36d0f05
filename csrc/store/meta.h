/* The file META: who the directory belongs to, the node's facts, and whether the last stop was
 * clean. Two slots, each at a multiple of DKV_META_STRIDE, little-endian:
 *
 *      0  magic "dkv-meta"       8
 *      8  format version         4   higher than ours: PROTOCOL
 *     12  length of the facts    4
 *     16  sequence               8   below 2^63; the valid slot with the higher one counts
 *     24  store id               8
 *     32  snapshot               8   0, or the tag of the index snapshot of a clean stop
 *     40  names                130   as in log.h
 *    170  newest segment         4   the highest number of a segment that was durable by then
 *    174  damage                 4   places found damaged since the facts were set
 *    178  lazy                   4   0, or 1: the store confirms what is not durable yet
 *    182  boot id                8   of the machine that ran the store last
 *    190  zeros                 58
 *    248  checksum               8   XXH3 of bytes 0..247, seeded with the XXH3 of the facts
 *    256  facts
 *
 * A change is written to the older slot, synced, confirmed, and then written to the other slot as
 * well. So a torn write leaves the state before it, and a slot that rots later leaves the state
 * itself. Opening writes both slots in their full length; so a later change, which writes no
 * more than it needs, finds its space even on a full disk. */
#ifndef DKV_STORE_META_H
#define DKV_STORE_META_H

#include "base/bytes.h"
#include "model/disk.h"
#include "store/log.h"

#define DKV_META_STRIDE 135168u
#define DKV_META_HEADER_BYTES 256u
#define DKV_META_WAITERS_MAX 4096u

typedef struct dkv_meta_waiter {
    uint64_t sequence;
    uint64_t cookie;
} dkv_meta_waiter;

typedef struct dkv_meta {
    dkv_store_identity identity;
    uint64_t sequence; /* of the current state */
    uint64_t snapshot; /* tag, 0: not stopped cleanly */
    uint32_t newest_segment;
    uint32_t damage; /* recovery and merge mend the log, and nothing else may know of it yet */
    uint64_t damage_sequence; /* the first state that tells of the damage found last */
    bool lazy;                /* what is confirmed may not be durable yet */
    uint64_t boot_id;
    dkv_buf facts;

    uint32_t slot;       /* written next */
    bool whole;          /* slots are written in their full length */
    uint32_t copies_due; /* slots that do not hold the current state */
    uint64_t durable;    /* sequence of the newest state that survives */
    uint8_t *image;      /* of the slot being written */
    uint64_t image_sequence;
    bool out;
    bool stalled; /* no space; tried again after dkv_meta_retry */
    bool failed;
    dkv_disk_job job;
    dkv_meta_waiter *waiters; /* oldest first */
    size_t waiters_len;
    size_t waiters_cap;
} dkv_meta;

void dkv_meta_free(dkv_meta *meta);

/* The state is to be written: to both slots, one after the other. */
void dkv_meta_touch(dkv_meta *meta);

/* A damaged place has been found; until facts are set, each opening is told of it. */
void dkv_meta_note_damage(dkv_meta *meta);

/* True if that is on disk, or facts that were set since. */
static inline bool dkv_meta_tells_damage(const dkv_meta *meta) {
    return meta->durable >= meta->damage_sequence;
}

/* Replaces the facts; `cookie` waits for them. NO_MEMORY, BUSY. */
int dkv_meta_set_facts(dkv_meta *meta, dkv_slice facts, uint64_t cookie);

bool dkv_meta_next_decided(dkv_meta *meta, uint64_t *cookie, int *err);

dkv_disk_job *dkv_meta_next_job(dkv_meta *meta);
void dkv_meta_job_done(dkv_meta *meta);
void dkv_meta_retry(dkv_meta *meta);

/* Reads the file. NOT_FOUND: no slot is valid. PROTOCOL, IO, NO_MEMORY. */
int dkv_meta_load(dkv_meta *meta, dkv_disk_run run, void *disk);

/* Writes the current state to both slots, one after the other, each synced. */
int dkv_meta_store(dkv_meta *meta, dkv_disk_run run, void *disk);

#endif
