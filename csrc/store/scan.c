#include "store/scan.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"

void dkv_scan_init(dkv_scan *scan, dkv_log_at from, uint32_t end) {
    *scan = (dkv_scan){.at = from, .end = end, .window_at = from.offset};
}

void dkv_scan_free(dkv_scan *scan) {
    dkv_buf_free(&scan->window);
}

/* True if `len` bytes at the current place are in the window. */
static bool has(const dkv_scan *scan, uint32_t len) {
    return scan->at.offset + len <= scan->window_at + scan->window.len;
}

/* The gap that ends at the current place. */
static int end_gap(dkv_scan *scan) {
    scan->in_gap = false;
    scan->item_at = scan->gap_at;
    scan->item_end = scan->at.offset;
    return DKV_SCAN_GAP;
}

/* Moves on by 8 bytes, or what is left of them, that begin no record. */
static void skip(dkv_scan *scan, const uint8_t *data) {
    static const uint8_t blank[8];
    uint32_t left = scan->end - scan->at.offset;
    uint32_t len = left < 8 ? left : 8;
    if (!scan->in_gap) scan->gap_at = scan->blank_at = scan->at.offset;
    scan->in_gap = true;
    scan->at.offset += len;
    if (memcmp(data, blank, len) != 0) scan->blank_at = scan->at.offset;
}

int dkv_scan_next(dkv_scan *scan, dkv_log_record *record) {
    for (;;) {
        uint32_t left = scan->end - scan->at.offset;
        if (left == 0) return scan->in_gap ? end_gap(scan) : DKV_SCAN_END;
        bool has_header = left >= DKV_LOG_RECORD_HEADER_BYTES;
        if (!has(scan, has_header ? DKV_LOG_RECORD_HEADER_BYTES : left)) return DKV_SCAN_NEED;
        const uint8_t *data = scan->window.data + (scan->at.offset - scan->window_at);
        uint32_t length = has_header ? dkv_log_plausible_length(data) : 0;
        if (length == 0 || length > left) {
            skip(scan, data);
            continue;
        }
        if (!has(scan, length)) return DKV_SCAN_NEED;
        int err = dkv_log_decode(data, scan->at, record);
        if (err == DKV_ERR_DATA_LOSS) {
            skip(scan, data);
            continue;
        }
        if (err) return err;
        if (scan->in_gap) return end_gap(scan); /* the record itself comes with the next call */
        scan->item_at = scan->at.offset;
        scan->at.offset += length;
        scan->item_end = scan->at.offset;
        return DKV_SCAN_RECORD;
    }
}

void dkv_scan_back(dkv_scan *scan) {
    scan->at.offset = scan->item_at;
}

int dkv_scan_room(dkv_scan *scan, uint32_t max, uint8_t **data, uint32_t *offset, uint32_t *len) {
    uint32_t done = scan->at.offset - scan->window_at;
    assert(done <= scan->window.len);
    if (done > 0) {
        scan->window.len -= done;
        memmove(scan->window.data, scan->window.data + done, scan->window.len);
        scan->window_at = scan->at.offset;
    }
    uint32_t from = scan->window_at + (uint32_t)scan->window.len;
    uint32_t want = scan->end - from < max ? scan->end - from : max;
    int err = dkv_buf_reserve(&scan->window, want);
    if (err) return err;
    *data = scan->window.data + scan->window.len;
    *offset = from;
    *len = want;
    return DKV_OK;
}

void dkv_scan_filled(dkv_scan *scan, uint32_t asked, uint32_t len) {
    scan->window.len += len;
    if (len < asked) scan->end = scan->window_at + (uint32_t)scan->window.len;
}
