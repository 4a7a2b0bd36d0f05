/* Counts how often each magnitude occurs: durations, for quantiles of many million of them.
 *
 * Values below 128 have a bucket each. Above, each power of two is cut into 64 equal buckets, so
 * that a bucket's values differ by less than 1/64. */
#ifndef DKV_BASE_HISTOGRAM_H
#define DKV_BASE_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define DKV_HISTOGRAM_BUCKETS 2240u /* values up to 2^40 − 1; in nanoseconds, 18 minutes */

/* All zero is empty. */
typedef struct dkv_histogram {
    uint64_t counts[DKV_HISTOGRAM_BUCKETS];
} dkv_histogram;

/* Counts `value`; one that is too large counts in the last bucket. */
void dkv_histogram_add(dkv_histogram *histogram, uint64_t value);

/* The value in the middle of the bucket `index`. */
uint64_t dkv_histogram_value(size_t index);

#endif
