/* Finds what has rotted at rest: reads the whole log from time to time, though nobody asks for it,
 * and checks every record. A record that the index refers to and that is damaged is lost, as if a
 * client's read had met it (DKV_STORE_DAMAGED); its segment is marked, so that merge takes what is
 * left of it elsewhere first.
 *
 * Rules:
 * 1. A pass goes through the segments that exist when it begins, by number, each up to what is
 *    durable when its turn comes; the active one too. What merge removes meanwhile is passed over,
 *    so is what is dead. The next pass begins one interval after the end of the one before, the
 *    first one DKV_SCRUB_FIRST_PART of an interval after the start.
 * 2. It reads pieces of DKV_SCRUB_PIECE_BYTES, one at a time, and rests after each for as long as
 *    the piece takes at bytes_per_s; longer while clients are served. It is the last to be given a
 *    disk job.
 * 3. A piece that cannot be read is read again, part by part. A part has DKV_HOLE_TRIES tries,
 * which are ever further apart: a minute from the first to the last. Then it is a hole (holes.h),
 * the records that touch it are damaged, and the pass goes on. If there are too many holes, or it
 *    failed otherwise than with IO, the segment is passed over, and the pass does not count as one.
 * 4. A segment of which another READ has failed is a suspect: a pass begins at once, and during a
 *    pass every other turn is a suspect's. With too many holes there are none.
 *
 * A page that the kernel holds in memory is read from there: what rots beneath it is found when the
 * page has gone. */
#ifndef DKV_STORE_SCRUB_H
#define DKV_STORE_SCRUB_H

#include "base/hash.h"
#include "store/holes.h"
#include "store/segments.h"

#define DKV_SCRUB_PIECE_BYTES 65536u
#define DKV_SCRUB_BYTES_PER_S (8u << 20) /* unless told otherwise */
#define DKV_SCRUB_INTERVAL_MS 86400000u  /* a day, likewise */
#define DKV_SCRUB_FIRST_PART 24          /* the first pass begins after this part of it */
#define DKV_SCRUB_YIELD_MS 100u          /* longer rest while clients are served */
#define DKV_SCRUB_RETRY_MS 250u          /* to the next try, doubled after each that failed */
#define DKV_SCRUB_GAPS_MAX 64u           /* noted before the index is searched for them */
#define DKV_SCRUB_SEARCH_ENTRIES 4096u   /* of the index at a time: about 100 microseconds ... */
#define DKV_SCRUB_SEARCH_REST_MS 1u      /* ... and the rest between two times */

struct dkv_store;

/* Bytes [from, to) of the segment that hold no valid record. */
typedef struct dkv_scrub_gap {
    uint32_t from;
    uint32_t to;
} dkv_scrub_gap;

typedef struct dkv_scrub {
    int64_t interval_ns;
    uint64_t bytes_per_s;
    int64_t now_ns;
    int64_t due_ns;  /* the next piece of work; INT64_MAX while a READ is out, and until the tick
                        after it */
    int64_t rest_ns; /* counted from the next tick; 0: due_ns stands */

    bool in_pass;
    bool complete;        /* nothing has been passed over as unreadable in this pass */
    uint32_t last_number; /* of the segments of this pass */
    uint32_t upto_number; /* up to here they have had their turn */
    uint32_t number;      /* of the segment being read */
    uint32_t slot;        /* of that segment, as long as it exists */
    uint32_t end;         /* what of it belongs to this pass */
    bool reading;         /* a segment, which is not at its end */
    bool was_suspect;     /* it has its turn for that; the next will not */
    dkv_scan scan;
    dkv_probe probe;

    dkv_scrub_gap gaps[DKV_SCRUB_GAPS_MAX]; /* in this segment, ascending */
    unsigned n_gaps;
    bool searching;           /* the index is being searched for records in the gaps ... */
    dkv_key_hash search_from; /* ... from here on */

    dkv_disk_job read_job;
    uint32_t read_asked;
    bool read_out;

    uint64_t passes;         /* that ended, with everything read */
    uint64_t passes_told;    /* among them */
    uint64_t scrubbed_bytes; /* read since the store was opened */
    bool too_many;           /* holes, in this pass ... */
    bool too_many_untold;
} dkv_scrub;

/* 0 stands for the default. */
void dkv_scrub_init(dkv_scrub *scrub, uint64_t bytes_per_s, uint32_t interval_ms);
void dkv_scrub_free(dkv_scrub *scrub);

void dkv_scrub_tick(dkv_scrub *scrub, int64_t now_ns);
int64_t dkv_scrub_next_timer(const struct dkv_store *store);

dkv_disk_job *dkv_scrub_next_job(struct dkv_store *store);
void dkv_scrub_job_done(struct dkv_store *store);

/* A READ of the segment by another has failed. */
void dkv_scrub_suspect(struct dkv_store *store, dkv_segment *segment);

/* True once for each pass that has ended. */
bool dkv_scrub_next_pass(dkv_scrub *scrub);

/* True once for each pass in which there were too many holes. */
bool dkv_scrub_next_too_many(dkv_scrub *scrub);

#endif
