/* A node's hybrid logical clock (see dkv_hlc in model/record.h). */
#ifndef DKV_MODEL_HLC_H
#define DKV_MODEL_HLC_H

#include "model/record.h"

/* All zero is a valid clock that has seen nothing. */
typedef struct dkv_clock {
    dkv_hlc last; /* the latest time issued or observed */
} dkv_clock;

/* A time later than everything issued and observed so far and than `after`. The clock itself moves
 * at most DKV_DRIFT_MAX_MS past the wall clock, so that one far-off version does not drag the
 * times of all other keys along. */
dkv_hlc dkv_clock_issue(dkv_clock *clock, uint64_t wall_ms, dkv_hlc after);

/* Takes note of a time seen in a message, likewise bounded. */
void dkv_clock_observe(dkv_clock *clock, uint64_t wall_ms, dkv_hlc seen);

#endif
