/* Keys that are asked for unequally often, as YCSB draws them (Cooper et al.: "Benchmarking cloud
 * serving systems with YCSB", 2010; the method is from Gray et al.: "Quickly generating
 * billion-record synthetic databases", 1994).
 *
 * YCSB's "scrambled zipfian": a rank is drawn from ten billion, rank r (from 0) with a probability
 * in proportion to 1 / (r + 1)^0.99, and is scattered by a hash over the keys that there are. So
 * the popular keys do not lie next to each other; the most popular one gets 3.8 % of all draws,
 * however many keys there are. */
#ifndef DKV_BASE_ZIPF_H
#define DKV_BASE_ZIPF_H

#include "base/rand.h"

#define DKV_ZIPF_RANKS UINT64_C(10000000000)
#define DKV_ZIPF_EXPONENT 0.99
#define DKV_ZIPF_SUM 26.46902820178302 /* of 1 / (r + 1)^0.99 over all ranks */

/* A rank, 0 .. DKV_ZIPF_RANKS − 1. The first two have exactly their probabilities, the others
 * nearly, as Gray's method approximates the sum by an integral. */
uint64_t dkv_zipf_rank(dkv_rand *rand);

/* A key, 0 .. keys − 1; 0 when `keys` is 0. */
uint64_t dkv_zipf_key(dkv_rand *rand, uint64_t keys);

#endif
