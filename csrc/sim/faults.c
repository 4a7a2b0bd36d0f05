/* What a world does to machines, disks, clocks and ways on purpose, and the look into a disk. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/hash.h"
#include "sim/state.h"

static void note(dkv_sim_node *sn, dkv_trace_kind kind, uint64_t a, uint16_t peer,
                 const char *text) {
    dkv_trace_entry entry = {sn->world->now, sn->index, peer, kind, a, 0, NULL};
    dkv_trace_add(&sn->world->trace, &entry, "%s", text);
}

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
    note(sn, DKV_TRACE_WIPE, 0, DKV_TRACE_NOBODY, "the disk is replaced by an empty one");
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

static void note_damage(dkv_sim_node *sn, dkv_trace_kind kind, dkv_disk_file file) {
    sn->damaged_at = sn->world->now;
    if (file.number >= newest_segment(sn)) sn->end_damaged_at = sn->world->now;
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

void dkv_world_fail_syncs(dkv_world *world, uint16_t node, uint32_t count) {
    dkv_sim_disk_fail_syncs(world->nodes[node].disk, count);
    note(&world->nodes[node], DKV_TRACE_SYNC_ERROR, count, DKV_TRACE_NOBODY,
         count ? "the next sync will fail" : "syncs succeed again");
}

void dkv_world_fail_reads(dkv_world *world, uint16_t node, uint32_t count) {
    dkv_sim_disk_fail_reads(world->nodes[node].disk, count);
    note(&world->nodes[node], DKV_TRACE_READ_ERROR, count, DKV_TRACE_NOBODY,
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

/* ---- ways ---- */

static bool *way(dkv_world *world, uint16_t from, uint16_t to) {
    return &world->cuts[(size_t)from * world->n_nodes + to];
}

void dkv_world_cut(dkv_world *world, uint16_t from, uint16_t to) {
    if (from == to || *way(world, from, to)) return;
    *way(world, from, to) = true;
    note(&world->nodes[from], DKV_TRACE_PARTITION, 0, to, world->map->members[to].id);
}

void dkv_world_join(dkv_world *world, uint16_t from, uint16_t to) {
    if (!*way(world, from, to)) return;
    *way(world, from, to) = false;
    note(&world->nodes[from], DKV_TRACE_HEAL, 0, to, world->map->members[to].id);
    dkv_sim_links_release(world);
}

void dkv_world_heal(dkv_world *world) {
    for (uint16_t from = 0; from < world->n_nodes; from++) {
        for (uint16_t to = 0; to < world->n_nodes; to++) *way(world, from, to) = false;
    }
    dkv_trace_entry entry = {world->now, DKV_TRACE_NOBODY, DKV_TRACE_NOBODY, DKV_TRACE_HEAL, 0, 0,
                             NULL};
    dkv_trace_add(&world->trace, &entry, "all ways are joined");
    dkv_sim_links_release(world);
}

void dkv_world_set_net(dkv_world *world, const dkv_net_options *net) {
    world->options.net = *net;
    dkv_sim_net_defaults(&world->options.net);
}

/* ---- looking into a disk ---- */

/* Runs the store's jobs until it has something to say. */
static int next_event(dkv_store *store, dkv_sim_disk *disk, dkv_store_event *event) {
    for (;;) {
        if (dkv_store_next_event(store, event)) return DKV_OK;
        dkv_disk_job *job = dkv_store_next_job(store);
        if (!job) return DKV_ERR_INTERNAL;
        dkv_sim_disk_run(disk, job);
        dkv_store_job_done(store, job);
    }
}

static int inspect_key(dkv_store *store, dkv_sim_disk *disk, dkv_slice key, size_t number,
                       dkv_sim_inspect each, void *user) {
    dkv_key_hash hash = dkv_hash_key(key);
    dkv_store_entry entry;
    int err = dkv_store_peek(store, hash, &entry);
    if (!err && entry.kind == DKV_KIND_TOMBSTONE) {
        dkv_record tombstone = {.key = key, .version = entry.version, .kind = entry.kind};
        each(user, number, DKV_OK, &tombstone);
        return DKV_OK;
    }
    if (!err) err = dkv_store_read(store, key, hash, number + 1);
    if (err == DKV_ERR_NOT_FOUND) {
        each(user, number, err, NULL);
        return DKV_OK;
    }
    dkv_store_event event;
    do {
        if (!err) err = next_event(store, disk, &event);
        if (err) return err;
    } while (event.kind != DKV_STORE_READ || event.cookie != number + 1);
    each(user, number, event.err, event.err ? NULL : &event.record);
    return DKV_OK;
}

int dkv_world_inspect(dkv_world *world, uint16_t node, const dkv_slice *keys, size_t n,
                      dkv_sim_inspect each, void *user) {
    dkv_sim_node *sn = &world->nodes[node];
    if (sn->node) return DKV_ERR_PRECONDITION;
    dkv_store *store;
    int err = dkv_sim_open_store(sn, &store);
    if (err) return err;
    for (size_t i = 0; !err && i < n; i++)
        err = inspect_key(store, sn->disk, keys[i], i, each, user);
    dkv_store_del(store);
    return err;
}
