/* Store ids seen in versions, interned: the index keeps 16 bits for an origin instead of 64. A
 * store id is never forgotten while the process runs; a cluster of 1,000 nodes would have to
 * replace every store 65 times before the table is full. */
#ifndef DKV_STORE_ORIGINS_H
#define DKV_STORE_ORIGINS_H

#include <stddef.h>
#include <stdint.h>

#include "base/map.h"

#define DKV_ORIGINS_MAX 65535u

/* All zero is a valid empty table. */
typedef struct dkv_origins {
    uint64_t *ids; /* by number */
    size_t len;
    size_t cap;
    dkv_map numbers; /* store id -> number + 1 */
} dkv_origins;

/* The number of `id`, given now if it has none. BUSY: the table is full; NO_MEMORY. */
int dkv_origins_intern(dkv_origins *origins, uint64_t id, uint16_t *number);

/* Memory in use. */
size_t dkv_origins_bytes(const dkv_origins *origins);

void dkv_origins_free(dkv_origins *origins);

#endif
