#include "sim/trace.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"

/* The hash must not depend on padding, so the fields are laid out one by one. */
static uint64_t hash_entry(uint64_t hash, const dkv_trace_entry *entry) {
    uint8_t bytes[32];
    dkv_put_le64(bytes, (uint64_t)entry->time_ns);
    dkv_put_le16(bytes + 8, entry->node);
    dkv_put_le16(bytes + 10, entry->peer);
    dkv_put_le32(bytes + 12, entry->kind);
    dkv_put_le64(bytes + 16, entry->a);
    dkv_put_le64(bytes + 24, entry->b);
    return dkv_checksum((dkv_slice){bytes, sizeof bytes}, hash);
}

static bool make_room(dkv_trace *trace) {
    if (trace->added < trace->cap || trace->cap == DKV_TRACE_MAX) return true;
    size_t cap = trace->cap ? trace->cap * 4 : 1024;
    dkv_trace_entry *entries = realloc(trace->entries, cap * sizeof *entries);
    if (!entries) return false;
    memset(entries + trace->cap, 0, (cap - trace->cap) * sizeof *entries);
    trace->entries = entries;
    trace->cap = cap;
    return true;
}

void dkv_trace_add(dkv_trace *trace, const dkv_trace_entry *entry, const char *format, ...) {
    trace->hash = hash_entry(trace->hash, entry);
    if (!trace->keep || entry->kind == DKV_TRACE_TICK || !make_room(trace)) return;
    char text[DKV_TRACE_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    dkv_trace_entry *place = &trace->entries[trace->added % trace->cap];
    char *copy = strdup(text);
    if (!copy) return;
    free(place->text);
    *place = *entry;
    place->text = copy;
    trace->added++;
}

uint64_t dkv_trace_first(const dkv_trace *trace) {
    return trace->added > trace->cap ? trace->added - trace->cap : 0;
}

const dkv_trace_entry *dkv_trace_at(const dkv_trace *trace, uint64_t number) {
    assert(number >= dkv_trace_first(trace) && number < trace->added);
    return &trace->entries[number % trace->cap];
}

const char *dkv_trace_kind_name(dkv_trace_kind kind) {
    static const char *const names[] = {
#define DKV_TRACE_NAME(name, text) [DKV_TRACE_##name] = text,
        DKV_TRACE_MAP(DKV_TRACE_NAME)
#undef DKV_TRACE_NAME
    };
    return names[kind];
}

void dkv_trace_free(dkv_trace *trace) {
    if (!trace) return;
    for (size_t i = 0; i < trace->cap; i++) free(trace->entries[i].text);
    free(trace->entries);
    *trace = (dkv_trace){0};
}
