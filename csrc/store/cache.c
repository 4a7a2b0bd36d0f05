#include "store/cache.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define BYTES_OF_SLOT \
    256u /* of records: so small they have to be until slots are what is missing */

int dkv_cache_init(dkv_cache *cache, size_t bytes) {
    if (bytes < 2 * DKV_CACHE_RECORD_MAX) {
        *cache = (dkv_cache){0};
        return DKV_OK;
    }
    size_t n_sets = 1;
    while (n_sets < bytes / BYTES_OF_SLOT / DKV_CACHE_WAYS) n_sets *= 2;
    uint8_t *ring = malloc(bytes);
    void *memory = calloc(n_sets + 1, sizeof(dkv_cache_set)); /* untouched, unlike aligned_alloc */
    if (!ring || !memory) {
        free(ring);
        free(memory);
        return DKV_ERR_NO_MEMORY;
    }
    uintptr_t misplaced = (uintptr_t)memory % sizeof(dkv_cache_set);
    *cache = (dkv_cache){
        .ring = ring,
        .ring_bytes = bytes,
        .memory = memory,
        .sets = (dkv_cache_set *)((char *)memory + (sizeof(dkv_cache_set) - misplaced)),
        .n_sets = n_sets,
    };
    return DKV_OK;
}

void dkv_cache_free(dkv_cache *cache) {
    free(cache->ring);
    free(cache->memory);
    *cache = (dkv_cache){0};
}

/* Fibonacci hashing (Knuth, TAOCP vol. 3, section 6.4). */
static dkv_cache_set *set_of(const dkv_cache *cache, uint64_t name) {
    return &cache->sets[(name * 0x9E3779B97F4A7C15u >> 32) & (cache->n_sets - 1)];
}

/* Where the name goes: it replaces itself, or the oldest. */
static dkv_cache_slot *slot_for(const dkv_cache *cache, uint64_t name) {
    dkv_cache_set *set = set_of(cache, name);
    dkv_cache_slot *oldest = set->slots;
    for (dkv_cache_slot *slot = set->slots; slot < set->slots + DKV_CACHE_WAYS; slot++) {
        if (slot->name == name) return slot;
        if (slot->at < oldest->at) oldest = slot;
    }
    return oldest;
}

void dkv_cache_add(dkv_cache *cache, uint64_t name, const uint8_t *record, uint32_t len_bytes) {
    if (!cache->ring || len_bytes > DKV_CACHE_RECORD_MAX) return;
    size_t left = cache->ring_bytes - cache->end % cache->ring_bytes;
    if (left < len_bytes) cache->end += left; /* a record lies in one piece */
    memcpy(cache->ring + cache->end % cache->ring_bytes, record, len_bytes);
    *slot_for(cache, name) = (dkv_cache_slot){name, cache->end};
    cache->end += len_bytes;
}

const uint8_t *dkv_cache_get(const dkv_cache *cache, uint64_t name) {
    if (!cache->ring) return NULL;
    const dkv_cache_set *set = set_of(cache, name);
    for (const dkv_cache_slot *slot = set->slots; slot < set->slots + DKV_CACHE_WAYS; slot++) {
        if (slot->name != name) continue;
        bool is_whole = cache->end - slot->at <= cache->ring_bytes;
        return is_whole ? cache->ring + slot->at % cache->ring_bytes : NULL;
    }
    return NULL;
}
