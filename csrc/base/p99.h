/* The 99th percentile of a stream of numbers, in one word: of what came lately, roughly, for some
 * nanoseconds a number.
 *
 * A number above the estimate raises it by a quarter, any other lowers it by a 99th of that, so
 * that it rests where one number in a hundred is above. It follows a rise within a dozen numbers
 * above it, and halves in some three hundred below. What counts is only on which side a number is:
 * one of which nothing is known but that it is greater can be counted as well.
 *
 * Stochastic approximation (Robbins, Monro, "A stochastic approximation method", 1951) in steps
 * that are a share of the estimate, without random numbers; compare Ma, Muthukrishnan, Sandler,
 * "Frugal streaming for estimating quantiles", 2013. */
#ifndef DKV_BASE_P99_H
#define DKV_BASE_P99_H

#include <stdint.h>

/* Begins with any guess. */
typedef struct dkv_p99 {
    uint64_t value;
} dkv_p99;

#define DKV_P99_STEPS 400u /* down by a 400th, up by 99 of them */

static inline void dkv_p99_add(dkv_p99 *p99, uint64_t number) {
    uint64_t step = p99->value / DKV_P99_STEPS;
    if (number <= p99->value) {
        p99->value -= step;
    } else {
        uint64_t raised = p99->value + 99 * step + 1;
        p99->value = raised < number ? raised : number;
    }
}

#endif
