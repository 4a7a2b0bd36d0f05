/* Records that were read lately, so that the next read of them is no disk job.
 *
 * A record's name is the number of its segment and its offset there: neither is ever used again for
 * another one, so nothing here becomes wrong, whatever is written, merged or removed.
 *
 *     ring   | ... older records | newest record |  (overwritten next) older records ... |
 *     sets   name -> where in the ring; its hash says in which set, which is a line of the
 *            processor's cache and has room for a few names: the newest
 *
 * A new record overwrites what has been in the ring for longest. Positions in the ring are counted
 * on without end, so a slot tells by itself whether its record has been overwritten: if more bytes
 * than the ring has were added behind its beginning. Records above DKV_CACHE_RECORD_MAX are left to
 * the disk side, as for these its part of the cost is small. */
#ifndef DKV_STORE_CACHE_H
#define DKV_STORE_CACHE_H

#include <stddef.h>
#include <stdint.h>

#define DKV_CACHE_RECORD_MAX 16384u
#define DKV_CACHE_WAYS 4u

typedef struct dkv_cache_slot {
    uint64_t name; /* 0: the slot is free */
    uint64_t at;   /* position of the record's first byte */
} dkv_cache_slot;

typedef struct dkv_cache_set {
    dkv_cache_slot slots[DKV_CACHE_WAYS];
} dkv_cache_set;

/* All zero is a cache that keeps nothing. */
typedef struct dkv_cache {
    uint8_t *ring;
    size_t ring_bytes;
    uint64_t end;        /* the position where the next record goes */
    void *memory;        /* of the sets */
    dkv_cache_set *sets; /* each in one line of the processor's cache */
    size_t n_sets;       /* a power of two */
} dkv_cache;

/* A cache of `bytes` bytes of records, or one that keeps nothing if that is less than two of the
 * largest. Takes memory of the machine as it fills only. NO_MEMORY changes nothing. */
int dkv_cache_init(dkv_cache *cache, size_t bytes);

void dkv_cache_free(dkv_cache *cache);

/* `segment` is not 0. */
static inline uint64_t dkv_cache_name(uint32_t segment, uint32_t offset) {
    return (uint64_t)segment << 32 | offset;
}

/* Keeps a copy of the record. */
void dkv_cache_add(dkv_cache *cache, uint64_t name, const uint8_t *record, uint32_t len_bytes);

/* The record, or NULL. Borrows until the next dkv_cache_add. */
const uint8_t *dkv_cache_get(const dkv_cache *cache, uint64_t name);

#endif
