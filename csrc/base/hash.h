/* Hashes: SHA-256 (OpenSSL) places keys and tokens, XXH3 (xxHash) checks and sums bytes. */
#ifndef DKV_BASE_HASH_H
#define DKV_BASE_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

/* What a store knows a key by: the first 16 bytes of its SHA-256. `token` (bytes 0..7, big-endian)
 * is the position on the ring; `tag` (bytes 8..15) tells keys with equal tokens apart. Two keys
 * with both equal would take about 2^64 hashes to find; a store refuses the second (DATA_LOSS) at
 * the read that meets it, as it compares whole keys there. */
typedef struct dkv_key_hash {
    uint64_t token;
    uint64_t tag;
} dkv_key_hash;

/* SHA-256 of `bytes`, truncated. Safe from any thread. Aborts if OpenSSL has no SHA-256. */
dkv_key_hash dkv_hash_key(dkv_slice bytes);

/* Order of (token, tag): negative, 0 or positive. */
int dkv_key_hash_cmp(dkv_key_hash a, dkv_key_hash b);

/* Moves on to the next one in this order; false if it was the last. */
static inline bool dkv_key_hash_next(dkv_key_hash *hash) {
    return ++hash->tag != 0 || ++hash->token != 0;
}

/* XXH3 64-bit of `bytes` under `seed`. Detects damage, not malice. */
uint64_t dkv_checksum(dkv_slice bytes, uint64_t seed);

/* A sum of item hashes modulo 2^128 that does not depend on their order: equal sets have equal
 * digests, items can be added and taken away one by one. All zero is the digest of nothing. */
typedef struct dkv_digest {
    uint64_t lo;
    uint64_t hi;
} dkv_digest;

/* XXH3 128-bit of `bytes` under `key`. */
dkv_digest dkv_digest_of(dkv_slice bytes, uint64_t key);
void dkv_digest_add(dkv_digest *sum, dkv_digest item);
void dkv_digest_sub(dkv_digest *sum, dkv_digest item);
bool dkv_digest_eq(dkv_digest a, dkv_digest b);

#endif
