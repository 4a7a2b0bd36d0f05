/* What a world takes from disks on purpose, and what of it the check of a campaign has to know. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "sim/state.h"
#include "store/meta.h"
#include "store/scan.h"

#define PAGE_BYTES 4096u /* what a kernel reads at once */

int dkv_world_wipe(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (sn->node) return DKV_ERR_PRECONDITION;
    dkv_sim_disk_wipe(sn->disk);
    sn->damaged_at = sn->emptied_at = sn->wiped_at = world->now;
    dkv_sim_note(sn, DKV_TRACE_WIPE, 0, "the disk is replaced by an empty one");
    return DKV_OK;
}

/* ---- what a segment shows ---- */

/* What its records tell of a segment. */
typedef struct showing {
    uint32_t synced; /* they say that all before was durable when they were written (store/log.h) */
    uint32_t from;   /* records that touch the bytes from here ... */
    uint32_t to;     /* ... up to here are looked for */
    dkv_buf found;   /* those that are no control records: a dkv_sim_loss each; to be freed */
} showing;

static int show_record(showing *s, const dkv_scan *scan, const dkv_log_record *record) {
    if (record->synced_upto > s->synced) s->synced = record->synced_upto;
    bool touches = s->from < scan->item_end && scan->item_at < s->to;
    if (!touches || record->record.key.len == 0) return DKV_OK;
    dkv_sim_loss loss = {.token = dkv_hash_key(record->record.key).token,
                         .version = record->record.version};
    return dkv_buf_append(&s->found, (dkv_slice){(const uint8_t *)&loss, sizeof loss});
}

static int scan_segment(dkv_slice segment, dkv_scan *scan, showing *s) {
    for (;;) {
        dkv_log_record record;
        int item = dkv_scan_next(scan, &record);
        if (item < 0 || item == DKV_SCAN_END) return item < 0 ? item : DKV_OK;
        int err = item == DKV_SCAN_RECORD ? show_record(s, scan, &record) : DKV_OK;
        if (err) return err;
        if (item != DKV_SCAN_NEED) continue;
        uint8_t *to;
        uint32_t offset, asked;
        err = dkv_scan_room(scan, (uint32_t)segment.len, &to, &offset, &asked);
        if (err) return err;
        memcpy(to, segment.data + offset, asked);
        dkv_scan_filled(scan, asked, asked);
    }
}

/* Reads what the disk durably holds of a segment. False if nothing of it can be read. */
static bool look_at(const dkv_sim_node *sn, uint32_t number, showing *s) {
    dkv_slice segment =
        dkv_sim_disk_durable(sn->disk, (dkv_disk_file){.kind = DKV_FILE_SEGMENT, .number = number});
    if (segment.len < DKV_LOG_HEADER_BYTES) return false;
    dkv_log_at from = {sn->store_id, number, DKV_LOG_HEADER_BYTES};
    dkv_scan scan;
    dkv_scan_init(&scan, from, (uint32_t)segment.len);
    int err = scan_segment(segment, &scan, s);
    dkv_scan_free(&scan);
    return !err;
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

/* True unless whole records tell that damage at this byte is none of a torn write. */
static bool is_unseen(dkv_sim_node *sn, dkv_disk_file at) {
    showing shown = {0}; /* finds none */
    if (at.number < newest_segment(sn)) return false;
    return !look_at(sn, at.number, &shown) || at.size_bytes >= shown.synced;
}

/* ---- flips and losses ---- */

static void note(dkv_sim_node *sn, dkv_trace_kind kind, dkv_disk_file file) {
    static const char *const names[] = {
        [DKV_FILE_SEGMENT] = "segment", [DKV_FILE_META] = "META", [DKV_FILE_SNAPSHOT] = "snapshot"};
    sn->damaged_at = sn->world->now;
    dkv_trace_entry entry = {sn->world->now, sn->index, DKV_TRACE_NOBODY, kind, file.size_bytes,
                             file.number,    NULL};
    dkv_trace_add(&sn->world->trace, &entry, "%s %" PRIu32 ", byte %" PRIu64, names[file.kind],
                  file.number, file.size_bytes);
}

int dkv_world_lose_file(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    dkv_disk_file file;
    if (sn->node) return DKV_ERR_PRECONDITION;
    int err = dkv_sim_disk_lose_file(sn->disk, &file);
    if (err) return err;
    note(sn, DKV_TRACE_LOSE_FILE, file);
    sn->emptied_at = world->now;
    if (is_unseen(sn, file)) sn->end_damaged_at = world->now;
    return DKV_OK;
}

/* Records are lost; or, if none were found, something that tells of others. */
static void note_losses(dkv_sim_node *sn, const showing *shown, bool unseen) {
    dkv_world *world = sn->world;
    const dkv_sim_loss *found = (const dkv_sim_loss *)(const void *)shown->found.data;
    size_t n = shown->found.len / sizeof *found;
    if (n == 0 && unseen) sn->end_damaged_at = world->now;
    for (size_t i = 0; i < n; i++) {
        if (dkv_sim_make_room(world, (void **)&sn->losses, sn->n_losses, &sn->losses_cap,
                              sizeof *sn->losses)) {
            return;
        }
        sn->losses[sn->n_losses++] =
            (dkv_sim_loss){found[i].token, found[i].version, world->now, unseen};
    }
}

int dkv_world_flip(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    dkv_disk_file at;
    int err = dkv_sim_disk_choose_byte(sn->disk, &at);
    if (err) return err;
    showing shown = {.from = (uint32_t)at.size_bytes, .to = (uint32_t)at.size_bytes + 1};
    look_at(sn, at.number, &shown);
    dkv_sim_disk_flip(sn->disk, at, at.size_bytes, (unsigned)dkv_sim_between(world, 0, 7));
    note(sn, DKV_TRACE_FLIP, at);
    note_losses(sn, &shown, is_unseen(sn, at));
    dkv_buf_free(&shown.found);
    return DKV_OK;
}

int dkv_world_spoil(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    dkv_disk_file at;
    if (dkv_sim_disk_is_spoiled(sn->disk)) return DKV_ERR_PRECONDITION;
    int err = dkv_sim_disk_choose_byte(sn->disk, &at);
    if (err) return err;
    at.size_bytes -= at.size_bytes % PAGE_BYTES;
    showing shown = {.from = (uint32_t)at.size_bytes, .to = (uint32_t)at.size_bytes + PAGE_BYTES};
    err = dkv_sim_disk_spoil(sn->disk, at, shown.from, shown.to);
    if (err) return err;
    look_at(sn, at.number, &shown);
    note(sn, DKV_TRACE_UNREADABLE, at);
    note_losses(sn, &shown, false); /* an error is noticed wherever it is met */
    dkv_buf_free(&shown.found);
    return DKV_OK;
}

int dkv_world_flip_file(dkv_world *world, uint16_t node, dkv_file_kind kind) {
    dkv_sim_node *sn = &world->nodes[node];
    dkv_disk_file file = {.kind = kind};
    if (sn->node) return DKV_ERR_PRECONDITION;
    int64_t len = (int64_t)dkv_sim_disk_durable(sn->disk, file).len;
    if (len == 0) return DKV_ERR_NOT_FOUND;
    int64_t offset = dkv_sim_between(world, 0, len - 1);
    if (kind == DKV_FILE_META) { /* most of a copy is room for more facts */
        offset = dkv_sim_between(world, 0, 1) * DKV_META_STRIDE +
                 dkv_sim_between(world, 0, 2 * DKV_META_HEADER_BYTES);
    }
    int err =
        dkv_sim_disk_flip(sn->disk, file, (uint64_t)offset, (unsigned)dkv_sim_between(world, 0, 7));
    file.size_bytes = (uint64_t)offset;
    if (!err) note(sn, DKV_TRACE_FLIP, file);
    return err;
}

/* ---- what was lost ---- */

int64_t dkv_world_damaged_at(const dkv_world *world, uint16_t node) {
    return world->nodes[node].damaged_at;
}

int64_t dkv_world_wiped_at(const dkv_world *world, uint16_t node) {
    return world->nodes[node].wiped_at;
}

/* When the last loss was of such a record (only one that cannot be noticed, if `unseen`), −1 if
 * there was none. */
static int64_t last_loss(const dkv_sim_node *sn, uint64_t token, dkv_version version, bool unseen) {
    for (size_t i = sn->n_losses; i-- > 0;) {
        const dkv_sim_loss *loss = &sn->losses[i];
        if (loss->token != token || dkv_version_cmp(loss->version, version) < 0) continue;
        if (loss->unseen || !unseen) return loss->at;
    }
    return -1;
}

static int64_t later(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t dkv_world_lost_at(const dkv_world *world, uint16_t node, uint64_t token,
                          dkv_version version) {
    const dkv_sim_node *sn = &world->nodes[node];
    return later(sn->emptied_at, last_loss(sn, token, version, false));
}

int64_t dkv_world_lost_unseen_at(const dkv_world *world, uint16_t node, uint64_t token,
                                 dkv_version version) {
    const dkv_sim_node *sn = &world->nodes[node];
    return later(sn->end_damaged_at, last_loss(sn, token, version, true));
}
