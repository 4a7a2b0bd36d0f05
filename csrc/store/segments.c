#include "store/segments.h"

#include <assert.h>
#include <stdlib.h>

#include "base/err.h"

static int free_slot(dkv_segments *segments, uint32_t *slot) {
    for (uint32_t i = 0; i < segments->slots && segments->count < segments->slots; i++) {
        if (segments->by_slot[i]) continue;
        *slot = i;
        return DKV_OK;
    }
    if (segments->slots == DKV_SLOTS_MAX) return DKV_ERR_NO_SPACE;
    uint32_t slots = segments->slots ? segments->slots * 2 : 16;
    if (slots > DKV_SLOTS_MAX) slots = DKV_SLOTS_MAX;
    dkv_segment **by_slot = realloc(segments->by_slot, slots * sizeof(dkv_segment *));
    if (!by_slot) return DKV_ERR_NO_MEMORY;
    *slot = segments->slots;
    for (uint32_t i = segments->slots; i < slots; i++) by_slot[i] = NULL;
    segments->by_slot = by_slot;
    segments->slots = slots;
    return DKV_OK;
}

int dkv_segments_add(dkv_segments *segments, uint32_t number, dkv_segment **out) {
    uint32_t slot;
    int err = free_slot(segments, &slot);
    if (err) return err;
    dkv_segment *segment = calloc(1, sizeof *segment);
    if (!segment) return DKV_ERR_NO_MEMORY;
    segment->number = number;
    segment->slot = slot;
    segments->by_slot[slot] = segment;
    segments->count++;
    if (number > segments->last_number) segments->last_number = number;
    *out = segment;
    return DKV_OK;
}

void dkv_segments_adopt(dkv_segments *segments, dkv_segment *segment, uint32_t end) {
    segment->end = segment->written = segment->synced = segment->length = end;
    segment->created = segment->dir_synced = true;
    segments->log_bytes += end;
    dkv_segments_seal(segments, segment);
}

void dkv_segments_unseal(dkv_segments *segments, dkv_segment *segment) {
    if (segment->live_bytes == 0) segments->emptied--;
    segment->sealed = false;
}

void dkv_segments_cut(dkv_segments *segments, dkv_segment *segment, uint32_t end) {
    segments->log_bytes -= segment->end - end;
    segment->end = segment->written = segment->synced = segment->length = end;
}

void dkv_segments_drop(dkv_segments *segments, dkv_segment *segment) {
    assert(segment->live_bytes == 0 && segment->reads_out == 0);
    if (segment->sealed) segments->emptied--;
    segments->by_slot[segment->slot] = NULL;
    segments->count--;
    segments->log_bytes -= segment->end;
    free(segment);
}

void dkv_segments_free(dkv_segments *segments) {
    for (uint32_t i = 0; i < segments->slots; i++) free(segments->by_slot[i]);
    free(segments->by_slot);
    *segments = (dkv_segments){0};
}

void dkv_segments_seal(dkv_segments *segments, dkv_segment *segment) {
    assert(!segment->sealed);
    segment->sealed = true;
    if (segment->live_bytes == 0) segments->emptied++;
}

void dkv_segments_grow(dkv_segments *segments, dkv_segment *segment, uint32_t len_bytes) {
    segment->end += len_bytes;
    segments->log_bytes += len_bytes;
}

void dkv_segments_born(dkv_segments *segments, uint64_t place) {
    dkv_place at = dkv_place_unpack(place);
    dkv_segment *segment = dkv_segments_at(segments, at.slot);
    if (segment->sealed && segment->live_bytes == 0) segments->emptied--;
    segment->live_bytes += at.len_bytes;
    segments->live_bytes += at.len_bytes;
}

void dkv_segments_died(dkv_segments *segments, uint64_t place, uint64_t death) {
    dkv_place at = dkv_place_unpack(place);
    dkv_segment *segment = dkv_segments_at(segments, at.slot);
    assert(segment->live_bytes >= at.len_bytes);
    segment->live_bytes -= at.len_bytes;
    segments->live_bytes -= at.len_bytes;
    segment->last_death = death;
    if (segment->sealed && segment->live_bytes == 0) segments->emptied++;
}
