/* Places of the log that the disk cannot read, though it was asked again and again: holes. Whoever
 * reads the log takes a hole for noise, of which no record consists; so what touches it counts as
 * damaged, and all the rest of the segment can still be read.
 *
 * Rules:
 * 1. Only scrub and recovery make holes. A piece that fails is read again in parts of
 *    DKV_HOLE_PART_BYTES, and a part becomes a hole when DKV_HOLE_TRIES reads of it have failed
 * with IO, one after the other; any other error tells nothing of the medium.
 * 2. There are DKV_HOLES_MAX at most, and no more than that are made until a pass of scrub has got
 *    through the whole log. A disk with more of them fails as a whole: nothing more is given up, as
 *    another try, or another cable, may bring all of it back.
 * 3. A hole lasts until merge has removed its segment or the process ends. */
#ifndef DKV_STORE_HOLES_H
#define DKV_STORE_HOLES_H

#include "store/scan.h"

#define DKV_HOLE_PART_BYTES 4096u
#define DKV_HOLE_TRIES 8u
#define DKV_HOLES_MAX 64u

/* Bytes [from, to) of a segment. */
typedef struct dkv_hole {
    uint32_t number; /* of the segment */
    uint32_t from;
    uint32_t to;
} dkv_hole;

/* All zero is valid and empty. */
typedef struct dkv_holes {
    dkv_hole at[DKV_HOLES_MAX];
    uint32_t count;
    uint32_t made; /* since the last pass of scrub that got through, or the start */
} dkv_holes;

/* What a reader of one segment knows of its failures. All zero: nothing has failed. */
typedef struct dkv_probe {
    uint32_t upto;  /* a piece has failed: parts are read one by one up to here */
    unsigned tries; /* of the part that is due, which have failed ... */
    bool doubtful;  /* ... one of them otherwise than with IO */
} dkv_probe;

static inline bool dkv_holes_are_full(const dkv_holes *holes) {
    return holes->count == DKV_HOLES_MAX || holes->made == DKV_HOLES_MAX;
}

/* False: there are too many. */
bool dkv_holes_add(dkv_holes *holes, dkv_hole hole);

/* The segment is removed. */
void dkv_holes_forget(dkv_holes *holes, uint32_t number);

/* dkv_scan_room, but for holes: those that come next are in the scan already, and the room ends
 * before another one, or with the part that is due (`probe` may be NULL). *len is 0 if there is
 * nothing to read before the scan can go on. NO_MEMORY. */
int dkv_holes_room(const dkv_holes *holes, const dkv_probe *probe, dkv_scan *scan, uint32_t max,
                   uint8_t **data, uint32_t *offset, uint32_t *len);

/* A READ of [from, to) has failed with `err`. True: so often that no further try is due. */
bool dkv_probe_failed(dkv_probe *probe, int err, uint32_t from, uint32_t to);

#endif
