/* Where a record lies in the log, packed into 64 bits for the index:
 *
 *     bit  63..48  slot of the segment (a small number that the store gives to each segment file)
 *     bit  47..19  offset in the segment, in units of 8 bytes (29 bits: up to 4 GiB)
 *     bit  18..1   length of the record in the log, in units of 8 bytes (18 bits: up to 2 MiB)
 *     bit  0       1: a tombstone
 *
 * The exact length is part of the place so that a read is one disk job, and so that the live bytes
 * of a segment are known without reading it. */
#ifndef DKV_STORE_PLACE_H
#define DKV_STORE_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#define DKV_SLOTS_MAX 65535u             /* segments in one store */
#define DKV_SEGMENT_BYTES_MAX (1u << 30) /* a segment is sealed at the latest at this size */

typedef struct dkv_place {
    uint32_t slot;
    uint32_t offset;
    uint32_t len_bytes;
    bool tombstone;
} dkv_place;

static inline uint64_t dkv_place_pack(dkv_place place) {
    return (uint64_t)place.slot << 48 | (uint64_t)(place.offset >> 3) << 19 |
           (uint64_t)(place.len_bytes >> 3) << 1 | (place.tombstone ? 1u : 0u);
}

static inline dkv_place dkv_place_unpack(uint64_t packed) {
    return (dkv_place){
        .slot = (uint32_t)(packed >> 48),
        .offset = (uint32_t)(packed >> 19 & 0x1FFFFFFFu) << 3,
        .len_bytes = (uint32_t)(packed >> 1 & 0x3FFFFu) << 3,
        .tombstone = packed & 1,
    };
}

#endif
