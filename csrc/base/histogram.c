#include "base/histogram.h"

#define SUB_BITS 6u
#define SUB_BUCKETS (1u << SUB_BITS)

static size_t index_of(uint64_t value) {
    if (value < 2 * SUB_BUCKETS) return value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (size_t)shift * SUB_BUCKETS + (value >> shift);
}

void dkv_histogram_add(dkv_histogram *histogram, uint64_t value) {
    size_t index = index_of(value);
    histogram->counts[index < DKV_HISTOGRAM_BUCKETS ? index : DKV_HISTOGRAM_BUCKETS - 1]++;
}

uint64_t dkv_histogram_value(size_t index) {
    if (index < 2 * SUB_BUCKETS) return index;
    size_t shift = index / SUB_BUCKETS - 1;
    uint64_t first = (uint64_t)(index - shift * SUB_BUCKETS) << shift;
    return first + ((uint64_t)1 << shift) / 2;
}
