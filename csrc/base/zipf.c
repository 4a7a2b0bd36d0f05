#include "base/zipf.h"

#include <math.h>

uint64_t dkv_zipf_rank(dkv_rand *rand) {
    const double ranks = (double)DKV_ZIPF_RANKS;
    const double second = 1 + pow(0.5, DKV_ZIPF_EXPONENT);
    const double unit = dkv_rand_unit(rand);
    const double at = unit * DKV_ZIPF_SUM;
    if (at < 1) return 0;
    if (at < second) return 1;
    const double eta = (1 - pow(2 / ranks, 1 - DKV_ZIPF_EXPONENT)) / (1 - second / DKV_ZIPF_SUM);
    uint64_t rank = (uint64_t)(ranks * pow(eta * unit - eta + 1, 1 / (1 - DKV_ZIPF_EXPONENT)));
    return rank < DKV_ZIPF_RANKS ? rank : DKV_ZIPF_RANKS - 1;
}

uint64_t dkv_zipf_key(dkv_rand *rand, uint64_t keys) {
    dkv_rand scatter = {dkv_zipf_rank(rand)};
    return dkv_rand_below(&scatter, keys);
}
