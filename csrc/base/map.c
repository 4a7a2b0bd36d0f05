#include "base/map.h"

#include <stdlib.h>

#include "base/err.h"

#define MAP_MIN_CAP 16u

/* Fibonacci hashing: request numbers are consecutive, the multiplication spreads them. */
static size_t home_of(const dkv_map *map, uint64_t key) {
    return (size_t)((key * 0x9E3779B97F4A7C15u) >> 20) & (map->cap - 1);
}

/* The slot that holds `key`, or the free slot where it belongs. */
static size_t find(const dkv_map *map, uint64_t key) {
    size_t at = home_of(map, key);
    while (map->slots[at].value && map->slots[at].key != key) at = (at + 1) & (map->cap - 1);
    return at;
}

void *dkv_map_get(const dkv_map *map, uint64_t key) {
    return map->len ? map->slots[find(map, key)].value : NULL;
}

static int grow(dkv_map *map) {
    dkv_map bigger = {.cap = map->cap ? map->cap * 2 : MAP_MIN_CAP, .len = map->len};
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots) return DKV_ERR_NO_MEMORY;
    for (size_t i = 0; i < map->cap; i++) {
        if (map->slots[i].value) bigger.slots[find(&bigger, map->slots[i].key)] = map->slots[i];
    }
    free(map->slots);
    *map = bigger;
    return DKV_OK;
}

int dkv_map_set(dkv_map *map, uint64_t key, void *value) {
    if (map->cap == 0 || map->len * 4 >= map->cap * 3) {
        int err = grow(map);
        if (err) return err;
    }
    dkv_map_slot *slot = &map->slots[find(map, key)];
    if (!slot->value) map->len++;
    *slot = (dkv_map_slot){key, value};
    return DKV_OK;
}

void *dkv_map_remove(dkv_map *map, uint64_t key) {
    if (map->len == 0) return NULL;
    size_t hole = find(map, key);
    void *value = map->slots[hole].value;
    if (!value) return NULL;
    map->len--;
    size_t mask = map->cap - 1;
    for (size_t at = (hole + 1) & mask; map->slots[at].value; at = (at + 1) & mask) {
        size_t home = home_of(map, map->slots[at].key);
        if (((at - home) & mask) >= ((at - hole) & mask)) { /* its probe path crosses the hole */
            map->slots[hole] = map->slots[at];
            hole = at;
        }
    }
    map->slots[hole].value = NULL;
    return value;
}

void dkv_map_free(dkv_map *map) {
    if (!map) return;
    free(map->slots);
    *map = (dkv_map){0};
}
