#include "store/holes.h"

#include "base/err.h"
#include "base/rand.h"

bool dkv_holes_add(dkv_holes *holes, dkv_hole hole) {
    if (dkv_holes_are_full(holes)) return false;
    holes->at[holes->count++] = hole;
    holes->made++;
    return true;
}

void dkv_holes_forget(dkv_holes *holes, uint32_t number) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < holes->count; i++) {
        if (holes->at[i].number != number) holes->at[kept++] = holes->at[i];
    }
    holes->count = kept;
}

/* The hole of the segment that ends first behind `offset`; NULL if there is none. */
static const dkv_hole *next_hole(const dkv_holes *holes, uint32_t number, uint32_t offset) {
    const dkv_hole *next = NULL;
    for (uint32_t i = 0; i < holes->count; i++) {
        const dkv_hole *hole = &holes->at[i];
        if (hole->number != number || hole->to <= offset) continue;
        if (!next || hole->to < next->to) next = hole;
    }
    return next;
}

/* Zeros would not do: a value may consist of them. */
static void fill_with_noise(uint8_t *data, uint32_t len, uint64_t seed) {
    dkv_rand rand = {seed};
    for (uint32_t i = 0; i < len; i++) data[i] = (uint8_t)dkv_rand_next(&rand);
}

int dkv_holes_room(const dkv_holes *holes, const dkv_probe *probe, dkv_scan *scan, uint32_t max,
                   uint8_t **data, uint32_t *offset, uint32_t *len) {
    for (;;) {
        int err = dkv_scan_room(scan, max, data, offset, len);
        if (err || *len == 0) return err;
        const dkv_hole *hole = next_hole(holes, scan->at.number, *offset);
        uint32_t end = *offset + *len;
        if (hole && hole->from <= *offset) {
            uint32_t unread = (hole->to < end ? hole->to : end) - *offset;
            fill_with_noise(*data, unread, *offset);
            dkv_scan_filled(scan, unread, unread);
            continue;
        }
        if (hole && hole->from < end) end = hole->from;
        uint32_t part_end = *offset - *offset % DKV_HOLE_PART_BYTES + DKV_HOLE_PART_BYTES;
        if (probe && *offset < probe->upto && part_end < end) end = part_end;
        *len = end - *offset;
        return DKV_OK;
    }
}

bool dkv_probe_failed(dkv_probe *probe, int err, uint32_t from, uint32_t to) {
    if (from >= probe->upto) {
        probe->upto = to;
        probe->tries = 0;
        return false;
    }
    if (probe->tries == 0) probe->doubtful = false;
    if (err != DKV_ERR_IO) probe->doubtful = true;
    if (++probe->tries < DKV_HOLE_TRIES) return false;
    probe->tries = 0;
    return true;
}
