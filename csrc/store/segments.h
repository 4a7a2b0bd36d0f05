/* The segments of a log as the running store knows them: by slot, the small number that the index
 * keeps instead of a segment number. */
#ifndef DKV_STORE_SEGMENTS_H
#define DKV_STORE_SEGMENTS_H

#include <assert.h>

#include "model/disk.h"
#include "store/log.h"
#include "store/place.h"

typedef struct dkv_segment {
    uint32_t number; /* of the file, never used twice */
    uint32_t slot;
    uint32_t end;     /* bytes appended, on disk or about to be */
    uint32_t written; /* bytes that a WRITE has put into the file */
    uint32_t synced;  /* bytes that survive a power loss */
    uint32_t length;  /* of the file, at most: behind `written` it is filled with zeros */
    bool created;
    bool dir_synced;
    bool sealed;      /* takes no more records */
    bool shortened;   /* by a TRUNCATE that no SYNC has followed yet */
    bool damaged;     /* recovery met damage in it: merged first */
    bool suspect;     /* a READ of it has failed: scrub looks at it first */
    bool unreadable;  /* by merge, which leaves it alone until scrub has read it */
    bool unremovable; /* a REMOVE of it has failed, or it holds records that this program does
                         not know: left alone until the next start */
    uint64_t base;    /* log position of its first byte, see append.h */
    struct dkv_segment *next; /* appended after this one, as long as this one is not durable */

    uint64_t live_bytes;     /* of records that the index refers to */
    uint64_t last_death;     /* log position of the record that outdated its last record to die */
    uint64_t removed_notice; /* log position behind its REMOVED record; 0: none appended */
    uint32_t reads_out;      /* READ jobs and queued reads */
} dkv_segment;

/* All zero is valid and empty. */
typedef struct dkv_segments {
    dkv_segment **by_slot; /* NULL: the slot is free */
    uint32_t slots;        /* length of by_slot */
    uint32_t count;
    uint32_t last_number; /* highest ever used */
    uint64_t live_bytes;
    uint64_t log_bytes; /* of all segments, headers and dead records included */
    uint32_t emptied;   /* sealed segments without live bytes */
} dkv_segments;

/* A new segment in a free slot. NO_SPACE: too many segments; NO_MEMORY. */
int dkv_segments_add(dkv_segments *segments, uint32_t number, dkv_segment **out);

/* The new segment is a file of `end` bytes, found when opening: sealed, and durable. */
void dkv_segments_adopt(dkv_segments *segments, dkv_segment *segment, uint32_t end);

/* Takes an adopted segment into use again. */
void dkv_segments_unseal(dkv_segments *segments, dkv_segment *segment);

/* Only the first `end` bytes of the adopted segment count. */
void dkv_segments_cut(dkv_segments *segments, dkv_segment *segment, uint32_t end);

/* Takes the segment out and frees it. */
void dkv_segments_drop(dkv_segments *segments, dkv_segment *segment);

void dkv_segments_free(dkv_segments *segments);

static inline dkv_segment *dkv_segments_at(const dkv_segments *segments, uint32_t slot) {
    return segments->by_slot[slot];
}

/* No more records go into the segment. */
void dkv_segments_seal(dkv_segments *segments, dkv_segment *segment);

/* The segment has grown by `len_bytes`. */
void dkv_segments_grow(dkv_segments *segments, dkv_segment *segment, uint32_t len_bytes);

/* The index refers to the record at `place` from now on. */
void dkv_segments_born(dkv_segments *segments, uint64_t place);

/* The index no longer refers to the record at `place`; what outdated it ends at log position
 * `death`. */
void dkv_segments_died(dkv_segments *segments, uint64_t place, uint64_t death);

static inline dkv_disk_file dkv_segment_file(const dkv_segment *segment) {
    assert(segment);
    return (dkv_disk_file){.kind = DKV_FILE_SEGMENT, .number = segment->number};
}

#endif
