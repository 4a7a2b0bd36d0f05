/* The lives of the processes of a world. */
#include <inttypes.h>
#include <stdio.h>

#include "base/err.h"
#include "sim/state.h"

#define STOP_MAX_NS (30 * 1000000000LL)
#define ORIGIN_MAX_NS (1LL << 42) /* about an hour and a quarter */

int64_t dkv_sim_paused_ns(const dkv_sim_node *sn) {
    return sn->paused_ns + (sn->paused ? sn->world->now - sn->paused_since : 0);
}

/* What befell a paused process happens to whoever is there now. */
static void release_held(dkv_sim_node *sn) {
    for (size_t i = 0; i < sn->n_held; i++) {
        sn->held[i].time_ns = sn->world->now;
        dkv_sim_schedule(sn->world, sn->held[i]);
    }
    sn->n_held = 0;
}

void dkv_sim_process_died(dkv_sim_node *sn) {
    if (!sn->node) return;
    dkv_node_del(sn->node);
    sn->node = NULL;
    sn->doomed = false;
    sn->stopping = false;
    if (sn->paused) sn->paused_ns += sn->world->now - sn->paused_since;
    sn->paused = false;
    sn->tick_at = INT64_MAX;
    dkv_sim_disk_kill(sn->disk);
    dkv_sim_links_died(sn);
    dkv_sim_clients_died(sn);
    release_held(sn);
    if (sn->world->options.durability == DKV_DURABILITY_MEMORY) {
        dkv_sim_disk_wipe(sn->disk);
        sn->damaged_at = sn->emptied_at = sn->wiped_at = sn->world->now;
    }
}

bool dkv_world_is_running(const dkv_world *world, uint16_t node) {
    return world->nodes[node].node != NULL;
}

bool dkv_world_is_paused(const dkv_world *world, uint16_t node) {
    return world->nodes[node].paused;
}

dkv_node *dkv_world_node(const dkv_world *world, uint16_t node) {
    return world->nodes[node].node;
}

void dkv_world_crash(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (!sn->node) return;
    dkv_sim_note(sn, DKV_TRACE_CRASH, sn->life, "the process is killed");
    dkv_sim_process_died(sn);
}

void dkv_world_power_cut(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (!sn->machine_on) return;
    dkv_sim_note(sn, DKV_TRACE_POWER_CUT, sn->life, "the machine loses power");
    sn->machine_on = false;
    dkv_sim_process_died(sn);
    dkv_sim_disk_power_cut(sn->disk);
    sn->boots++;
    if (world->options.durability == DKV_DURABILITY_INTERVAL) {
        sn->damaged_at = sn->emptied_at = world->now;
    }
}

/* Every other node has a cache, so that what it hides is seen on the others. */
#define CACHE_BYTES 65536u

dkv_store_options dkv_sim_store_options(const dkv_sim_node *sn, uint64_t new_store_id) {
    const dkv_world *world = sn->world;
    return (dkv_store_options){.cluster = world->map->cluster,
                               .node_id = world->map->members[sn->index].id,
                               .new_store_id = new_store_id,
                               .segment_bytes = world->options.segment_bytes,
                               .unsynced_max_bytes = world->options.unsynced_max_bytes,
                               .durability = world->options.durability,
                               .interval_ms = world->options.interval_ms,
                               .cache_bytes = sn->index % 2 ? CACHE_BYTES : 0,
                               .scrub_bytes_per_s = world->options.scrub_bytes_per_s,
                               .scrub_interval_ms = world->options.scrub_interval_ms,
                               .boot_id = sn->boots + 1};
}

int dkv_sim_store_event(dkv_store *store, dkv_sim_disk *disk, dkv_store_event *event) {
    for (;;) {
        if (dkv_store_next_event(store, event)) return DKV_OK;
        dkv_disk_job *job = dkv_store_next_job(store);
        if (!job) return DKV_ERR_INTERNAL;
        dkv_sim_disk_run(disk, job);
        dkv_store_job_done(store, job);
    }
}

/* The id of a node's first store, where others have to know it before it is there. */
static uint64_t first_store_id(const dkv_world *world, uint16_t node) {
    dkv_rand rand = {world->options.seed + node};
    return dkv_rand_next(&rand) | 1;
}

/* Makes a new store what it had become if its node had met all the others. */
static int acquaint(dkv_sim_node *sn, dkv_store *store) {
    const dkv_world *world = sn->world;
    dkv_shares shares;
    dkv_trust trust;
    dkv_buf facts = {0};
    dkv_store_event event;
    int err = dkv_shares_init(&shares, dkv_world_ring(world), sn->index);
    if (err) return err;
    err =
        dkv_trust_init(&trust, world->map, &shares, sn->index, dkv_store_id(store), (dkv_slice){0});
    if (err) goto out;
    for (uint16_t i = 0; i < world->n_nodes; i++) trust.remembered[i] = first_store_id(world, i);
    for (uint32_t i = 0; i < shares.n; i++) dkv_trust_regained(&trust, i);
    trust.starts = 0;
    err = dkv_trust_encode(&trust, &facts);
    if (!err) err = dkv_store_set_facts(store, dkv_buf_slice(&facts), 0);
    if (!err) err = dkv_sim_store_event(store, sn->disk, &event);
    dkv_buf_free(&facts);
    dkv_trust_free(&trust);
out:
    dkv_shares_free(&shares);
    return err;
}

int dkv_sim_open_store(dkv_sim_node *sn, dkv_store **out) {
    bool is_known = sn->world->options.acquainted && sn->life == 0;
    uint64_t new_id =
        is_known ? first_store_id(sn->world, sn->index) : dkv_rand_next(&sn->world->rand) | 1;
    dkv_store_options options = dkv_sim_store_options(sn, new_id);
    dkv_store_report report = {0};
    int err = dkv_store_open(&options, dkv_sim_disk_run, sn->disk, out, &report);
    if (err) {
        dkv_sim_note(sn, DKV_TRACE_START, (uint64_t)(uint32_t)err, dkv_err_name(err));
        return err;
    }
    sn->store_id = dkv_store_id(*out);
    char text[160];
    snprintf(text, sizeof text,
             "%s store, %" PRIu64 " records, %" PRIu64 " torn bytes, %" PRIu64 " damaged",
             report.created ? "new"
             : report.clean ? "clean"
                            : "recovered",
             report.records, report.torn_bytes, report.damaged_records);
    dkv_sim_note(sn, DKV_TRACE_START, report.records, text);
    return DKV_OK;
}

int dkv_world_start(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (sn->node) return DKV_OK;
    sn->machine_on = true;
    dkv_store *store = NULL;
    int err = dkv_sim_open_store(sn, &store);
    if (!err && world->options.acquainted && sn->life == 0) err = acquaint(sn, store);
    if (err) {
        dkv_store_del(store);
        return err;
    }
    dkv_node_options options = {.ring = world->ring,
                                .id = world->map->members[node].id,
                                .store = store,
                                .seed = dkv_rand_next(&world->rand),
                                .timing = world->options.timing,
                                .hints_max = world->options.hints_max};
    err = dkv_node_new(&options, &sn->node);
    if (err) {
        dkv_store_del(store);
        return err;
    }
    sn->life++;
    sn->last_accepted = 0;
    sn->origin_ns = dkv_sim_between(world, 0, ORIGIN_MAX_NS);
    sn->tick_at = INT64_MAX;
    dkv_sim_wake(sn, world->now);
    dkv_sim_links_release(world);
    return DKV_OK;
}

int dkv_world_stop(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (!sn->node || sn->paused) return DKV_ERR_PRECONDITION;
    uint32_t life = sn->life;
    sn->stopping = true;
    int64_t end = world->now + STOP_MAX_NS;
    while (!world->err && sn->node && sn->life == life && !dkv_node_idle(sn->node)) {
        if (dkv_sim_queue_next(&world->queue) > end) break;
        dkv_sim_run_one(world);
    }
    if (world->err) return world->err;
    if (!sn->node || sn->life != life) return DKV_ERR_IO; /* it stopped by itself */
    if (!dkv_node_idle(sn->node)) {
        sn->stopping = false;
        return DKV_ERR_DEADLINE;
    }
    int err = dkv_store_close_clean(dkv_node_store(sn->node), dkv_sim_disk_run, sn->disk);
    dkv_sim_note(sn, DKV_TRACE_CRASH, (uint64_t)(uint32_t)err,
                 "the process ends after a clean stop");
    dkv_sim_process_died(sn);
    return err;
}

int dkv_world_declare_lost(dkv_world *world, uint16_t node, uint16_t lost, char *why) {
    dkv_sim_node *sn = &world->nodes[node];
    if (!sn->node || sn->paused) {
        snprintf(why, DKV_DETAIL_MAX, "node %s %s, so it cannot be told: %s it first",
                 world->map->members[node].id, sn->node ? "is paused" : "does not run",
                 sn->node ? "resume" : "start");
        return DKV_ERR_UNAVAILABLE;
    }
    dkv_event event = {
        .kind = DKV_EVENT_DECLARE_LOST,
        .declare_lost = {DKV_SIM_DECLARATION, dkv_slice_of(world->map->members[lost].id)}};
    sn->declared = DKV_OK;
    sn->declared_why = why;
    dkv_sim_step(sn, &event);
    sn->declared_why = NULL;
    int err = sn->declared;
    char text[DKV_NAME_MAX + 64];
    snprintf(text, sizeof text, "%s is declared lost: %s", world->map->members[lost].id,
             dkv_err_name(err));
    dkv_sim_note(sn, DKV_TRACE_DECLARE_LOST, lost, text);
    dkv_sim_settle(sn);
    return err;
}

void dkv_world_pause(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (!sn->node || sn->paused) return;
    dkv_sim_note(sn, DKV_TRACE_PAUSE, sn->life, "the process is paused");
    sn->paused = true;
    sn->paused_since = world->now;
}

void dkv_world_resume(dkv_world *world, uint16_t node) {
    dkv_sim_node *sn = &world->nodes[node];
    if (!sn->paused) return;
    dkv_sim_note(sn, DKV_TRACE_RESUME, sn->life, "the process goes on");
    sn->paused = false;
    sn->paused_ns += world->now - sn->paused_since;
    release_held(sn);
    sn->tick_at = INT64_MAX; /* its TICK may have passed by meanwhile */
    dkv_sim_wake(sn, world->now);
}
