/* What a world does to disks and clocks on purpose. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "sim/state.h"
#include "store/scan.h"

/* ---- clocks ---- */

void dkv_world_skew(dkv_world *world, uint16_t node, int64_t ms) {
    dkv_sim_node *sn = &world->nodes[node];
    sn->skew_ms = ms;
    dkv_trace_entry entry = {world->now, node, DKV_TRACE_NOBODY, DKV_TRACE_SKEW, (uint64_t)ms,
                             0,          NULL};
    dkv_trace_add(&world->trace, &entry, "the wall clock is now %+" PRId64 " ms off", ms);
}

/* ---- disks ---- */

int dkv_world_wipe(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (sn->node) return DKV_ERR_PRECONDITION;
    dkv_sim_disk_wipe(sn->disk);
    sn->damaged_at = sn->wiped_at = world->now;
    dkv_sim_note(sn, DKV_TRACE_WIPE, 0, "the disk is replaced by an empty one");
    return DKV_OK;
}

/* The highest number of a segment with content on the disk. */
static uint32_t newest_segment(dkv_sim_node *sn) {
    dkv_disk_file *files = calloc(DKV_DISK_FILES_MAX, sizeof *files);
    if (!files) {
        sn->world->err = DKV_ERR_NO_MEMORY;
        return 0;
    }
    dkv_disk_job list = {
        .op = DKV_DISK_LIST, .len_bytes = DKV_DISK_FILES_MAX, .data = (uint8_t *)files};
    dkv_sim_disk_run(sn->disk, &list);
    uint32_t newest = 0;
    for (uint32_t i = 0; i < list.done_bytes; i++) {
        bool counts = files[i].kind == DKV_FILE_SEGMENT && files[i].size_bytes > 0;
        if (counts && files[i].number > newest) newest = files[i].number;
    }
    free(files);
    return newest;
}

/* Goes through the records of a segment: *gap is where the last gap begins, *synced up to where
 * they say that all before them was durable when they were written (store/log.h). */
static int scan_segment(dkv_slice segment, dkv_scan *scan, uint32_t *gap, uint32_t *synced) {
    for (;;) {
        dkv_log_record record;
        int item = dkv_scan_next(scan, &record);
        if (item < 0 || item == DKV_SCAN_END) return item < 0 ? item : DKV_OK;
        if (item == DKV_SCAN_GAP) *gap = scan->item_at;
        if (item == DKV_SCAN_RECORD && record.synced_upto > *synced) *synced = record.synced_upto;
        if (item != DKV_SCAN_NEED) continue;
        uint8_t *to;
        uint32_t offset, asked;
        int err = dkv_scan_room(scan, (uint32_t)segment.len, &to, &offset, &asked);
        if (err) return err;
        memcpy(to, segment.data + offset, asked);
        dkv_scan_filled(scan, asked, asked);
    }
}

/* True if whole records in the newest segment tell that its damage is none of a torn write. */
static bool shows_damage(dkv_slice segment) {
    dkv_log_header header;
    uint32_t gap = 0, synced = 0;
    dkv_scan scan;
    if (segment.len < DKV_LOG_HEADER_BYTES || dkv_log_header_decode(segment.data, &header)) {
        return false;
    }
    dkv_log_at from = {header.identity.store_id, header.number, DKV_LOG_HEADER_BYTES};
    dkv_scan_init(&scan, from, (uint32_t)segment.len);
    int err = scan_segment(segment, &scan, &gap, &synced);
    dkv_scan_free(&scan);
    return !err && gap < synced;
}

static void note_damage(dkv_sim_node *sn, dkv_trace_kind kind, dkv_disk_file file) {
    sn->damaged_at = sn->world->now;
    if (file.number >= newest_segment(sn) &&
        !shows_damage(dkv_sim_disk_durable(sn->disk, (dkv_disk_file){file.kind, file.number, 0}))) {
        sn->end_damaged_at = sn->world->now;
    }
    dkv_trace_entry entry = {sn->world->now, sn->index, DKV_TRACE_NOBODY, kind, file.size_bytes,
                             file.number,    NULL};
    dkv_trace_add(&sn->world->trace, &entry, "segment %" PRIu32 ", byte %" PRIu64, file.number,
                  file.size_bytes);
}

int dkv_world_lose_file(dkv_world *world, uint16_t node) {
    if (world->nodes[node].node) return DKV_ERR_PRECONDITION;
    dkv_disk_file file;
    int err = dkv_sim_disk_lose_file(world->nodes[node].disk, &file);
    if (!err) note_damage(&world->nodes[node], DKV_TRACE_LOSE_FILE, file);
    return err;
}

int dkv_world_flip(dkv_world *world, uint16_t node) {
    dkv_disk_file file;
    int err = dkv_sim_disk_flip_any(world->nodes[node].disk, &file);
    if (!err) note_damage(&world->nodes[node], DKV_TRACE_FLIP, file);
    return err;
}

void dkv_world_capacity(dkv_world *world, uint16_t node, uint64_t bytes) {
    dkv_sim_disk_limit(world->nodes[node].disk, bytes);
    dkv_trace_entry entry = {world->now, node, DKV_TRACE_NOBODY, DKV_TRACE_CAPACITY, bytes,
                             0,          NULL};
    dkv_trace_add(&world->trace, &entry, "the disk takes %" PRIu64 " bytes (0: no limit)", bytes);
}

uint64_t dkv_world_disk_bytes(const dkv_world *world, uint16_t node) {
    return dkv_sim_disk_bytes(world->nodes[node].disk);
}

void dkv_world_slow_disk(dkv_world *world, uint16_t node, uint32_t max_us, uint64_t bytes_per_s) {
    dkv_sim_node *sn = &world->nodes[node];
    sn->disk_max_us = max_us;
    sn->disk_bytes_per_s = bytes_per_s;
    dkv_trace_entry entry = {world->now,  node, DKV_TRACE_NOBODY, DKV_TRACE_SLOW_DISK, max_us,
                             bytes_per_s, NULL};
    dkv_trace_add(&world->trace, &entry,
                  "a job takes up to %" PRIu32 " us, the disk %" PRIu64
                  " bytes a second (0: as before)",
                  max_us, bytes_per_s);
}

int64_t dkv_sim_disk_delay(dkv_sim_node *sn, uint32_t bytes) {
    dkv_world *world = sn->world;
    uint32_t max_us = sn->disk_max_us ? sn->disk_max_us : world->options.disk_max_us;
    int64_t delay = dkv_sim_between(world, 1000, (int64_t)max_us * 1000);
    return delay + dkv_sim_queueing(world, &sn->disk_busy_until, bytes, sn->disk_bytes_per_s);
}

void dkv_world_fail_syncs(dkv_world *world, uint16_t node, uint32_t count) {
    dkv_sim_disk_fail_syncs(world->nodes[node].disk, count);
    dkv_sim_note(&world->nodes[node], DKV_TRACE_SYNC_ERROR, count,
                 count ? "the next sync will fail" : "syncs succeed again");
}

void dkv_world_fail_reads(dkv_world *world, uint16_t node, uint32_t count) {
    dkv_sim_disk_fail_reads(world->nodes[node].disk, count);
    dkv_sim_note(&world->nodes[node], DKV_TRACE_READ_ERROR, count,
                 count ? "the next reads will fail" : "reads succeed again");
}

int64_t dkv_world_damaged_at(const dkv_world *world, uint16_t node) {
    return world->nodes[node].damaged_at;
}

int64_t dkv_world_wiped_at(const dkv_world *world, uint16_t node) {
    return world->nodes[node].wiped_at;
}

int64_t dkv_world_end_damaged_at(const dkv_world *world, uint16_t node) {
    return world->nodes[node].end_damaged_at;
}

uint32_t dkv_world_fatals(const dkv_world *world, uint16_t node) {
    return world->nodes[node].fatals;
}
