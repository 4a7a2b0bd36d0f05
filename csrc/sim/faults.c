/* What a world does on purpose to clocks, and to disks without taking what they hold; that is in
 * damage.c. */
#include <inttypes.h>

#include "sim/state.h"

/* ---- clocks ---- */

void dkv_world_skew(dkv_world *world, uint16_t node, int64_t ms) {
    dkv_sim_node *sn = &world->nodes[node];
    sn->skew_ms = ms;
    dkv_trace_entry entry = {world->now, node, DKV_TRACE_NOBODY, DKV_TRACE_SKEW, (uint64_t)ms,
                             0,          NULL};
    dkv_trace_add(&world->trace, &entry, "the wall clock is now %+" PRId64 " ms off", ms);
}

/* ---- disks ---- */

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

uint32_t dkv_world_fatals(const dkv_world *world, uint16_t node) {
    return world->nodes[node].fatals;
}
