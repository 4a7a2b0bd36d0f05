/* Memory for one decoded item. protobuf-c asks for many small pieces; an arena hands them out from
 * one chunk by moving a mark, and gives all of them back at once. When the caller's chunk is used
 * up it goes on in blocks from malloc, whose sum has a limit: a peer cannot make a few bytes on the
 * wire (empty strings, unknown fields) grow into many times as much memory. */
#ifndef DKV_WIRE_ARENA_H
#define DKV_WIRE_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

typedef struct dkv_wire_block dkv_wire_block;

typedef struct dkv_wire_arena {
    ProtobufCAllocator allocator; /* for protobuf-c; its free does nothing */
    uint8_t *first;               /* the caller's chunk */
    size_t first_cap;
    uint8_t *chunk; /* the one in use: `first` or the newest block */
    size_t cap;
    size_t used;
    dkv_wire_block *blocks; /* newest first */
    size_t limit;           /* bytes in all blocks together */
    size_t taken;           /* bytes in blocks so far */
    bool no_memory;         /* malloc has failed */
} dkv_wire_arena;

/* `first` (borrows; aligned for any type) is used before anything else. The arena must not move,
 * as its allocator points at it. */
void dkv_wire_arena_init(dkv_wire_arena *arena, void *first, size_t first_cap, size_t limit);

/* Takes everything back. */
void dkv_wire_arena_reset(dkv_wire_arena *arena);

#endif
