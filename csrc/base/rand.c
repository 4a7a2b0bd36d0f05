#include "base/rand.h"

uint64_t dkv_rand_next(dkv_rand *rand) {
    uint64_t z = (rand->state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t dkv_rand_below(dkv_rand *rand, uint64_t bound) {
    return bound ? dkv_rand_next(rand) % bound : 0;
}

double dkv_rand_unit(dkv_rand *rand) {
    return (double)(dkv_rand_next(rand) >> 11) * 0x1.0p-53;
}
