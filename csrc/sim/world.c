#include "sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "sim/state.h"

#define WALL_START_MS 1700000000000u
#define TICK_PAUSE_NS 1000 /* a node whose timer is overdue does not stop time */

/* ---- helpers for the whole folder ---- */

int dkv_sim_make_room(dkv_world *world, void **items, size_t n, size_t *cap, size_t item_bytes) {
    if (n < *cap) return DKV_OK;
    size_t more = *cap ? *cap * 2 : 64;
    void *moved = realloc(*items, more * item_bytes);
    if (!moved) return world->err = DKV_ERR_NO_MEMORY;
    *items = moved;
    *cap = more;
    return DKV_OK;
}

void dkv_sim_schedule(dkv_world *world, dkv_sim_event event) {
    if (dkv_sim_queue_push(&world->queue, event)) world->err = DKV_ERR_NO_MEMORY;
}

int64_t dkv_sim_between(dkv_world *world, int64_t min, int64_t max) {
    return min + (int64_t)dkv_rand_below(&world->rand, (uint64_t)(max - min) + 1);
}

bool dkv_sim_chance(dkv_world *world, uint32_t ppm) {
    return ppm && dkv_rand_below(&world->rand, 1000000) < ppm;
}

void dkv_sim_note(dkv_sim_node *sn, dkv_trace_kind kind, uint64_t a, const char *text) {
    dkv_trace_entry entry = {sn->world->now, sn->index, DKV_TRACE_NOBODY, kind, a, 0, NULL};
    dkv_trace_add(&sn->world->trace, &entry, "%s", text);
}

/* ---- effects ---- */

static void on_connect(void *user, uint16_t peer, dkv_link link) {
    dkv_sim_link_connect(user, peer, link);
}

static void on_close(void *user, dkv_link link) {
    dkv_sim_link_close(user, link);
}

static void on_send(void *user, dkv_link link, const dkv_message *message) {
    dkv_sim_link_send(user, link, message);
}

static void on_reply(void *user, uint64_t handle, const dkv_reply *reply) {
    dkv_sim_node *sn = user;
    if (handle == DKV_SIM_DECLARATION) {
        if (!sn->declared_why) return; /* accepted, and durable by now */
        sn->declared = reply->err;
        snprintf(sn->declared_why, DKV_DETAIL_MAX, "%.*s", (int)reply->detail.len,
                 (const char *)reply->detail.data);
    } else {
        dkv_sim_client_reply(user, handle, reply);
    }
}

static void on_disk(void *user, dkv_disk_job *job) {
    dkv_sim_node *sn = user;
    dkv_world *world = sn->world;
    dkv_sim_disk_submit(sn->disk, job);
    dkv_sim_schedule(world,
                     (dkv_sim_event){.time_ns = world->now + dkv_sim_disk_delay(sn, job->len_bytes),
                                     .life = sn->life,
                                     .node = sn->index,
                                     .kind = DKV_SIM_DISK_DONE,
                                     .job = job});
}

static void on_log(void *user, const dkv_notice *notice) {
    uint64_t hash = notice->level ^ dkv_checksum(dkv_slice_of(notice->text), 0);
    dkv_sim_note(user, DKV_TRACE_LOG, hash, notice->text);
}

static void on_fatal(void *user, int err, const char *text) {
    dkv_sim_node *sn = user;
    dkv_sim_note(sn, DKV_TRACE_FATAL, (uint64_t)(uint32_t)err, text);
    sn->doomed = true;
    sn->fatals++;
}

/* ---- stepping ---- */

static uint64_t wall_ms(const dkv_sim_node *sn) {
    return (uint64_t)((int64_t)WALL_START_MS + sn->world->now / 1000000 + sn->skew_ms);
}

void dkv_sim_wake(dkv_sim_node *sn, int64_t at) {
    if (at >= sn->tick_at) return;
    sn->tick_at = at;
    dkv_sim_schedule(
        sn->world,
        (dkv_sim_event){.time_ns = at, .life = sn->life, .node = sn->index, .kind = DKV_SIM_TICK});
}

void dkv_sim_step(dkv_sim_node *sn, dkv_event *event) {
    const dkv_effects effects = {.user = sn,
                                 .connect = on_connect,
                                 .close = on_close,
                                 .send = on_send,
                                 .reply = on_reply,
                                 .disk = on_disk,
                                 .log = on_log,
                                 .fatal = on_fatal};
    event->now_ns = sn->world->now + sn->origin_ns;
    event->wall_ms = wall_ms(sn);
    dkv_node_step(sn->node, event, &effects);
}

void dkv_sim_settle(dkv_sim_node *sn) {
    dkv_world *world = sn->world;
    dkv_sim_links_flush(world);
    if (sn->doomed) {
        dkv_sim_process_died(sn);
        return;
    }
    dkv_sim_wake(
        sn, world->now + dkv_sim_between(world, 0, (int64_t)world->options.loop_max_us * 1000));
}

static void tick(dkv_sim_node *sn) {
    dkv_world *world = sn->world;
    dkv_trace_entry entry = {world->now, sn->index, DKV_TRACE_NOBODY, DKV_TRACE_TICK, 0, 0, NULL};
    dkv_trace_add(&world->trace, &entry, "tick");
    sn->tick_at = INT64_MAX;
    dkv_event event = {.kind = DKV_EVENT_TICK};
    dkv_sim_step(sn, &event);
    dkv_sim_links_flush(world);
    if (sn->doomed) {
        dkv_sim_process_died(sn);
        return;
    }
    int64_t next = dkv_node_next_timer(sn->node);
    if (next == INT64_MAX) return;
    next -= sn->origin_ns;
    dkv_sim_wake(sn, next > world->now ? next : world->now + TICK_PAUSE_NS);
}

static void note_job(dkv_sim_node *sn, const dkv_disk_job *job) {
    static const char *const ops[] = {
        [DKV_DISK_READ] = "read",         [DKV_DISK_WRITE] = "write",
        [DKV_DISK_SYNC] = "sync",         [DKV_DISK_CREATE] = "create",
        [DKV_DISK_REMOVE] = "remove",     [DKV_DISK_TRUNCATE] = "truncate",
        [DKV_DISK_SYNC_DIR] = "sync_dir", [DKV_DISK_LIST] = "list",
        [DKV_DISK_SPACE] = "space",
    };
    dkv_trace_entry entry = {sn->world->now,
                             sn->index,
                             DKV_TRACE_NOBODY,
                             DKV_TRACE_DISK,
                             (uint64_t)job->op << 56 ^ (uint64_t)job->file.kind << 48 ^
                                 (uint64_t)job->file.number << 16 ^ (uint16_t)job->err,
                             job->offset ^ (uint64_t)job->len_bytes << 40,
                             NULL};
    dkv_trace_add(&sn->world->trace, &entry,
                  "%s file %d.%" PRIu32 " offset %" PRIu64 " bytes %" PRIu32 ": %s", ops[job->op],
                  (int)job->file.kind, job->file.number, job->offset, job->len_bytes,
                  dkv_err_name(job->err));
}

static void disk_done(dkv_sim_node *sn, dkv_disk_job *job) {
    dkv_sim_disk_complete(sn->disk, job);
    note_job(sn, job);
    dkv_event event = {.kind = DKV_EVENT_DISK_DONE, .job = job};
    dkv_sim_step(sn, &event);
    dkv_sim_settle(sn);
}

/* ---- events ---- */

static void hold(dkv_sim_node *sn, const dkv_sim_event *event) {
    if (dkv_sim_make_room(sn->world, (void **)&sn->held, sn->n_held, &sn->held_cap,
                          sizeof *sn->held)) {
        return;
    }
    sn->held[sn->n_held++] = *event;
}

static void handle(dkv_world *world, const dkv_sim_event *event) {
    dkv_sim_node *sn = event->node < world->n_nodes ? &world->nodes[event->node] : NULL;
    if (sn && sn->paused) {
        if (event->kind != DKV_SIM_TICK) hold(sn, event);
        return;
    }
    switch ((dkv_sim_event_kind)event->kind) {
    case DKV_SIM_TICK:
        assert(sn);
        if (sn->node && event->life == sn->life && event->time_ns == sn->tick_at) tick(sn);
        break;
    case DKV_SIM_DISK_DONE:
        assert(sn);
        if (sn->node && event->life == sn->life) disk_done(sn, event->job);
        break;
    case DKV_SIM_ARRIVE: dkv_sim_link_arrive(world, event); break;
    case DKV_SIM_CONNECT_EXPIRE: dkv_sim_link_expire(world, event); break;
    case DKV_SIM_BREAK: dkv_sim_link_break(world, event); break;
    case DKV_SIM_ASK: dkv_sim_client_ask(world, event->id); break;
    case DKV_SIM_ANSWER: dkv_sim_client_answer(world, event->id); break;
    case DKV_SIM_HEDGE: dkv_sim_client_hedge(world, event->id); break;
    case DKV_SIM_GIVE_UP: dkv_sim_client_give_up(world, event->id); break;
    }
}

void dkv_sim_run_one(dkv_world *world) {
    dkv_sim_event event;
    if (!dkv_sim_queue_pop(&world->queue, &event)) return;
    if (event.time_ns > world->now) world->now = event.time_ns;
    world->n_events++;
    handle(world, &event);
}

static bool goes_on(dkv_world *world, int64_t end_ns, uint64_t op) {
    if (world->err || (op != DKV_WORLD_NO_OP && world->ops[op].answered_ns >= 0)) return false;
    return dkv_sim_queue_next(&world->queue) <= end_ns;
}

bool dkv_world_run_some(dkv_world *world, int64_t end_ns, uint64_t op, uint32_t max) {
    for (uint32_t i = 0; i < max; i++) {
        if (!goes_on(world, end_ns, op)) return false;
        dkv_sim_run_one(world);
    }
    return goes_on(world, end_ns, op);
}

int dkv_world_run_for(dkv_world *world, int64_t ns) {
    int64_t end = world->now + ns;
    while (goes_on(world, end, DKV_WORLD_NO_OP)) dkv_sim_run_one(world);
    if (world->now < end) world->now = end;
    return world->err;
}

int dkv_world_run_until_done(dkv_world *world, uint64_t op) {
    assert(op < world->n_ops);
    while (goes_on(world, INT64_MAX, op)) dkv_sim_run_one(world);
    return world->err;
}

/* ---- the world ---- */

static void set_defaults(dkv_world_options *options) {
    dkv_sim_net_defaults(&options->net);
    if (!options->disk_max_us) options->disk_max_us = 400;
    if (!options->loop_max_us) options->loop_max_us = 20;
    if (!options->hedge_ms) options->hedge_ms = 40;
    if (!options->interval_ms) options->interval_ms = 100;
}

int dkv_world_new(const dkv_world_options *options, dkv_world **out) {
    dkv_world *world = calloc(1, sizeof *world);
    if (!world) return DKV_ERR_NO_MEMORY;
    world->options = *options;
    set_defaults(&world->options);
    world->rand.state = options->seed;
    world->trace.keep = options->keep_trace;
    int err = dkv_ring_new(options->map, &world->ring);
    if (err) goto fail;
    world->map = dkv_ring_map(world->ring);
    world->n_nodes = world->map->n_members;
    err = DKV_ERR_NO_MEMORY;
    world->nodes = calloc(world->n_nodes, sizeof *world->nodes);
    world->cuts = calloc((size_t)world->n_nodes * world->n_nodes, sizeof *world->cuts);
    if (!world->nodes || !world->cuts) goto fail;
    for (uint16_t i = 0; i < world->n_nodes; i++) {
        dkv_sim_node *sn = &world->nodes[i];
        *sn = (dkv_sim_node){.world = world,
                             .index = i,
                             .tick_at = INT64_MAX,
                             .damaged_at = -1,
                             .emptied_at = -1,
                             .end_damaged_at = -1,
                             .wiped_at = -1};
        err = dkv_sim_disk_new(dkv_rand_next(&world->rand), &sn->disk);
        if (!err) err = dkv_world_start(world, i);
        if (err) goto fail;
    }
    *out = world;
    return DKV_OK;
fail:
    dkv_world_del(world);
    return err;
}

void dkv_world_del(dkv_world *world) {
    if (!world) return;
    for (uint16_t i = 0; world->nodes && i < world->n_nodes; i++) {
        dkv_sim_node *sn = &world->nodes[i];
        dkv_node_del(sn->node);
        dkv_sim_disk_del(sn->disk);
        dkv_map_free(&sn->links);
        free(sn->held);
        free(sn->losses);
    }
    dkv_sim_links_free(world);
    dkv_sim_ways_free(world);
    dkv_sim_clients_free(world);
    dkv_sim_queue_free(&world->queue);
    dkv_trace_free(&world->trace);
    dkv_ring_del(world->ring);
    free(world->nodes);
    free(world->cuts);
    free(world);
}

void dkv_world_watch(dkv_world *world, dkv_sim_witness witness, void *user) {
    world->witness = witness;
    world->witness_user = user;
}

int64_t dkv_world_now(const dkv_world *world) {
    return world->now;
}

uint64_t dkv_world_seed(const dkv_world *world) {
    return world->options.seed;
}

const dkv_ring *dkv_world_ring(const dkv_world *world) {
    return world->ring;
}

dkv_trace *dkv_world_trace(dkv_world *world) {
    return &world->trace;
}

dkv_sim_counts dkv_world_counts(const dkv_world *world) {
    return (dkv_sim_counts){world->n_messages, world->n_events, world->n_broken,
                            world->n_disturbed};
}
