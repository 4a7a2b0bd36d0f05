#include "model/hlc.h"

static dkv_hlc later(dkv_hlc a, dkv_hlc b) {
    return a > b ? a : b;
}

static dkv_hlc bounded(dkv_hlc hlc, uint64_t wall_ms) {
    dkv_hlc limit = dkv_hlc_of_ms(wall_ms + DKV_DRIFT_MAX_MS);
    return hlc < limit ? hlc : limit;
}

dkv_hlc dkv_clock_issue(dkv_clock *clock, uint64_t wall_ms, dkv_hlc after) {
    dkv_hlc issued = later(later(clock->last, dkv_hlc_of_ms(wall_ms)), after) + 1;
    clock->last = later(clock->last + 1, bounded(issued, wall_ms));
    return issued;
}

void dkv_clock_observe(dkv_clock *clock, uint64_t wall_ms, dkv_hlc seen) {
    clock->last = later(clock->last, bounded(seen, wall_ms));
}
