#include "wire/arena.h"

#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>

#define BLOCK_MIN 65536u

struct dkv_wire_block {
    dkv_wire_block *next;
    max_align_t data[];
};

static bool add_block(dkv_wire_arena *arena, size_t size) {
    if (size < BLOCK_MIN) size = BLOCK_MIN;
    if (size > arena->limit - arena->taken) return false;
    dkv_wire_block *block = malloc(sizeof *block + size);
    if (!block) {
        arena->no_memory = true;
        return false;
    }
    block->next = arena->blocks;
    arena->blocks = block;
    arena->taken += size;
    arena->chunk = (uint8_t *)block->data;
    arena->cap = size;
    arena->used = 0;
    return true;
}

static void *take(void *user, size_t size) {
    dkv_wire_arena *arena = user;
    size_t rounded = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (rounded < size) return NULL;
    if (rounded > arena->cap - arena->used && !add_block(arena, rounded)) return NULL;
    void *piece = arena->chunk + arena->used;
    arena->used += rounded;
    return piece;
}

static void give_back(void *user, void *piece) {
    (void)user;
    (void)piece;
}

void dkv_wire_arena_init(dkv_wire_arena *arena, void *first, size_t first_cap, size_t limit) {
    *arena = (dkv_wire_arena){
        .allocator = {.alloc = take, .free = give_back, .allocator_data = arena},
        .first = first,
        .first_cap = first_cap,
        .chunk = first,
        .cap = first_cap,
        .limit = limit,
    };
}

void dkv_wire_arena_reset(dkv_wire_arena *arena) {
    while (arena->blocks) {
        dkv_wire_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    arena->chunk = arena->first;
    arena->cap = arena->first_cap;
    arena->used = 0;
    arena->taken = 0;
    arena->no_memory = false;
}
