/* A node's hybrid logical clock (see dkv_hlc in model/record.h). */
#ifndef DKV_MODEL_HLC_H
#define DKV_MODEL_HLC_H

#include "model/record.h"

/* All zero is a valid clock that has seen nothing. */
typedef struct dkv_clock {
    dkv_hlc last; /* the latest time issued or observed, not counting ... */
    dkv_hlc far;  /* ... the latest one issued far ahead of the wall clock */
} dkv_clock;

/* A time that was never issued before and is later than `after`; 0 if no time is. The clock itself
 * moves at most DKV_DRIFT_MAX_MS past the wall clock, so that one far-off version does not drag the
 * times of all other keys along: a time that has to be further ahead is taken from a second
 * sequence. The times of the first are even, those of the second odd, so that the one never repeats
 * the other's. */
dkv_hlc dkv_clock_issue(dkv_clock *clock, uint64_t wall_ms, dkv_hlc after);

/* Takes note of a time seen in a message, likewise bounded. */
void dkv_clock_observe(dkv_clock *clock, uint64_t wall_ms, dkv_hlc seen);

#endif
