/* A hash map from uint64_t to pointer: open addressing, linear probing, deletion by shifting back
 * (Knuth, TAOCP vol. 3, section 6.4, algorithm R), so that there are no tombstones to clean. */
#ifndef DKV_BASE_MAP_H
#define DKV_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

typedef struct dkv_map_slot {
    uint64_t key;
    void *value; /* NULL: the slot is free */
} dkv_map_slot;

/* All zero is a valid empty map. */
typedef struct dkv_map {
    dkv_map_slot *slots;
    size_t cap; /* slots, 0 or a power of two */
    size_t len; /* slots in use */
} dkv_map;

/* The value stored under `key`, or NULL. */
void *dkv_map_get(const dkv_map *map, uint64_t key);

/* Stores `value` (not NULL; borrows) under `key`, replacing what was there. NO_MEMORY changes
 * nothing. */
int dkv_map_set(dkv_map *map, uint64_t key, void *value);

/* Removes `key` and returns its value, or NULL if it was not there. */
void *dkv_map_remove(dkv_map *map, uint64_t key);

/* Frees the table, not the values. The map is empty again. Accepts NULL. */
void dkv_map_free(dkv_map *map);

#endif
