#include "store/origins.h"

#include <stdlib.h>

#include "base/err.h"

static int make_room(dkv_origins *origins) {
    if (origins->len < origins->cap) return DKV_OK;
    size_t cap = origins->cap ? origins->cap * 2 : 16;
    uint64_t *ids = realloc(origins->ids, cap * sizeof *ids);
    if (!ids) return DKV_ERR_NO_MEMORY;
    origins->ids = ids;
    origins->cap = cap;
    return DKV_OK;
}

int dkv_origins_intern(dkv_origins *origins, uint64_t id, uint16_t *number) {
    uintptr_t known = (uintptr_t)dkv_map_get(&origins->numbers, id);
    if (known) {
        *number = (uint16_t)(known - 1);
        return DKV_OK;
    }
    if (origins->len == DKV_ORIGINS_MAX) return DKV_ERR_BUSY;
    int err = make_room(origins);
    if (err) return err;
    err = dkv_map_set(&origins->numbers, id, (void *)(uintptr_t)(origins->len + 1));
    if (err) return err;
    *number = (uint16_t)origins->len;
    origins->ids[origins->len++] = id;
    return DKV_OK;
}

size_t dkv_origins_bytes(const dkv_origins *origins) {
    return origins->cap * sizeof *origins->ids + origins->numbers.cap * sizeof(dkv_map_slot);
}

void dkv_origins_free(dkv_origins *origins) {
    if (!origins) return;
    free(origins->ids);
    dkv_map_free(&origins->numbers);
    *origins = (dkv_origins){0};
}
