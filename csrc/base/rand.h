/* Seeded pseudo-random numbers: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
 * number generators", OOPSLA 2014). Fast, 8 bytes of state, the same sequence on every machine.
 * Not for secrets. */
#ifndef DKV_BASE_RAND_H
#define DKV_BASE_RAND_H

#include <stdint.h>

typedef struct dkv_rand {
    uint64_t state; /* any value is a valid seed */
} dkv_rand;

uint64_t dkv_rand_next(dkv_rand *rand);

/* Uniform in 0 .. bound − 1; 0 when `bound` is 0. The bias is at most bound / 2^64. */
uint64_t dkv_rand_below(dkv_rand *rand, uint64_t bound);

/* Uniform in [0, 1). */
double dkv_rand_unit(dkv_rand *rand);

#endif
