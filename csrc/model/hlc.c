#include "model/hlc.h"

static dkv_hlc later(dkv_hlc a, dkv_hlc b) {
    return a > b ? a : b;
}

static dkv_hlc bounded(dkv_hlc hlc, uint64_t wall_ms) {
    dkv_hlc limit = dkv_hlc_of_ms(wall_ms + DKV_DRIFT_MAX_MS);
    return hlc < limit ? hlc : limit;
}

dkv_hlc dkv_clock_issue(dkv_clock *clock, uint64_t wall_ms, dkv_hlc after) {
    dkv_hlc now = later(clock->last, dkv_hlc_of_ms(wall_ms));
    if (after > now && after > bounded(after, wall_ms)) {
        dkv_hlc far = (later(clock->far, after) + 1) | 1;
        if (far <= after) return 0; /* past the end of all times */
        clock->far = far;
        return far;
    }
    clock->last = (later(now, after) + 2) & ~(dkv_hlc)1;
    return clock->last;
}

void dkv_clock_observe(dkv_clock *clock, uint64_t wall_ms, dkv_hlc seen) {
    clock->last = later(clock->last, bounded(seen, wall_ms));
}
