/* Reads the records of one segment in order, from bytes that the caller provides piece by piece:
 * recovery reads at once, merge through disk jobs. Where there is no valid record, the scan looks
 * for the next one at every multiple of 8 bytes and reports the gap between.
 *
 *     while ((item = dkv_scan_next(&scan, &record)) != DKV_SCAN_END)
 *         NEED: read into dkv_scan_room, then dkv_scan_filled */
#ifndef DKV_STORE_SCAN_H
#define DKV_STORE_SCAN_H

#include "base/bytes.h"
#include "store/log.h"

typedef enum dkv_scan_item {
    DKV_SCAN_RECORD, /* `record`, at scan->item_at; its slices borrow until the next call */
    DKV_SCAN_GAP,    /* scan->item_at .. scan->item_end hold no valid record, and from
                        scan->blank_at on only zeros */
    DKV_SCAN_NEED,   /* bytes are needed to go on */
    DKV_SCAN_END,
} dkv_scan_item;

typedef struct dkv_scan {
    dkv_log_at at;    /* the next place to look at */
    uint32_t end;     /* of the segment */
    uint32_t item_at; /* the last item */
    uint32_t item_end;
    bool in_gap;
    uint32_t gap_at;
    uint32_t blank_at;
    dkv_buf window; /* bytes of the segment from window_at on */
    uint32_t window_at;
} dkv_scan;

/* Begins at `from`, a multiple of 8, usually behind the segment header. */
void dkv_scan_init(dkv_scan *scan, dkv_log_at from, uint32_t end);
void dkv_scan_free(dkv_scan *scan);

/* A dkv_scan_item, or PROTOCOL: a valid record that this program does not know. */
int dkv_scan_next(dkv_scan *scan, dkv_log_record *record);

/* The record that dkv_scan_next has just given comes again with the next call. */
void dkv_scan_back(dkv_scan *scan);

/* After NEED: where to read (`offset` in the segment) how much (at most `max`) to. NO_MEMORY. */
int dkv_scan_room(dkv_scan *scan, uint32_t max, uint8_t **data, uint32_t *offset, uint32_t *len);

/* `len` bytes have been read to dkv_scan_room; fewer than asked for end the segment there. */
void dkv_scan_filled(dkv_scan *scan, uint32_t asked, uint32_t len);

#endif
