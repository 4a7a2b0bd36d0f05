#include "sim/chaos.h"

#include <stdlib.h>

#include "base/err.h"

#define MS 1000000LL
#define LAST_FLIPS 4 /* on each disk, when nothing else happens any more */

static int64_t between(dkv_chaos *chaos, int64_t min, int64_t max) {
    return min + (int64_t)dkv_rand_below(&chaos->rand, (uint64_t)(max - min) + 1);
}

static bool one_in(dkv_chaos *chaos, uint64_t n) {
    return dkv_rand_below(&chaos->rand, n) == 0;
}

/* Faults that excuse nodes from their promises are rare, so that most campaigns are strict. And
 * some campaigns have few kinds: a node that starts again compares everything, which mends whatever
 * went wrong before. */
uint32_t dkv_chaos_choose(dkv_rand *rand, uint32_t allowed) {
    uint32_t chosen = 0;
    uint64_t few = dkv_rand_below(rand, 4) == 0 ? 4 : 1;
    for (dkv_fault fault = 0; fault < DKV_FAULTS; fault++) {
        bool excuses = fault >= DKV_FAULT_FLIP;
        bool is_rare = fault == DKV_FAULT_DATAGRAM || fault == DKV_FAULT_BLACKOUT;
        uint64_t of = few * (excuses ? 6 : is_rare ? 8 : 2);
        if (dkv_rand_below(rand, of) == 0) chosen |= 1u << fault;
    }
    return chosen & allowed;
}

int dkv_chaos_init(dkv_chaos *chaos, dkv_world *world, uint32_t chosen, uint64_t seed) {
    *chaos = (dkv_chaos){.world = world, .rand.state = seed};
    chaos->n_nodes = dkv_ring_map(dkv_world_ring(world))->n_members;
    chaos->start_at = calloc(chaos->n_nodes, sizeof *chaos->start_at);
    if (!chaos->start_at) return DKV_ERR_NO_MEMORY;
    /* These are the network's, not ours. */
    chaos->faults = chosen & ~(1u << DKV_FAULT_BREAK | 1u << DKV_FAULT_DATAGRAM);
    chaos->pause_ns =
        one_in(chaos, 4) ? between(chaos, 10 * MS, 100 * MS) : between(chaos, 100 * MS, 2000 * MS);
    chaos->next_ns = chaos->faults ? between(chaos, 0, 2 * chaos->pause_ns) : INT64_MAX;
    return DKV_OK;
}

void dkv_chaos_free(dkv_chaos *chaos) {
    free(chaos->start_at);
}

/* ---- the end of a fault ---- */

/* How long faults last: mostly short against the time-outs of the nodes, sometimes long. */
static int64_t duration(dkv_chaos *chaos) {
    return one_in(chaos, 3) ? between(chaos, 500 * MS, 4000 * MS) : between(chaos, MS, 500 * MS);
}

static void repair_in(dkv_chaos *chaos, int64_t ns, dkv_fault fault, uint16_t node, uint16_t peer) {
    if (chaos->n_repairs == DKV_CHAOS_REPAIRS_MAX) return;
    chaos->repairs[chaos->n_repairs++] =
        (dkv_chaos_repair){dkv_world_now(chaos->world) + ns, fault, node, peer};
}

static void repair_later(dkv_chaos *chaos, dkv_fault fault, uint16_t node, uint16_t peer) {
    repair_in(chaos, duration(chaos), fault, node, peer);
}

/* The operator has seen that the disk is gone, and says so until all that run have taken it in or
 * the node is back with an empty one. */
static void declare_lost(dkv_chaos *chaos, uint16_t node) {
    bool all_know = true;
    char why[DKV_DETAIL_MAX];
    if (dkv_world_is_running(chaos->world, node)) return;
    dkv_world_wipe(chaos->world, node);
    for (uint16_t i = 0; i < chaos->n_nodes; i++) {
        if (!dkv_world_is_running(chaos->world, i)) continue;
        all_know &= dkv_world_declare_lost(chaos->world, i, node, why) == DKV_OK;
    }
    if (!all_know) repair_in(chaos, 300 * MS, DKV_FAULT_DECLARE_LOST, node, 0);
}

static void repair(dkv_chaos *chaos, const dkv_chaos_repair *r) {
    switch (r->fault) {
    case DKV_FAULT_PAUSE: dkv_world_resume(chaos->world, r->node); break;
    case DKV_FAULT_PARTITION: dkv_world_heal(chaos->world); break;
    case DKV_FAULT_ONE_WAY: dkv_world_join(chaos->world, r->node, r->peer); break;
    case DKV_FAULT_SLOW_LINK:
        dkv_world_slow_way(chaos->world, r->node, r->peer, &(dkv_way){0});
        break;
    case DKV_FAULT_SKEW: dkv_world_skew(chaos->world, r->node, 0); break;
    case DKV_FAULT_SLOW_DISK: dkv_world_slow_disk(chaos->world, r->node, 0, 0); break;
    case DKV_FAULT_CAPACITY: dkv_world_capacity(chaos->world, r->node, 0); break;
    case DKV_FAULT_DECLARE_LOST: declare_lost(chaos, r->node); break;
    default: break;
    }
}

static void repair_due(dkv_chaos *chaos, int64_t now) {
    unsigned kept = 0;
    for (unsigned i = 0; i < chaos->n_repairs; i++) {
        dkv_chaos_repair r = chaos->repairs[i];
        if (r.at_ns <= now) {
            repair(chaos, &r);
        } else {
            chaos->repairs[kept++] = r;
        }
    }
    chaos->n_repairs = kept;
}

/* ---- faults ---- */

static void partition(dkv_chaos *chaos) {
    uint64_t sides = dkv_rand_next(&chaos->rand);
    for (uint16_t a = 0; a < chaos->n_nodes; a++) {
        for (uint16_t b = 0; b < chaos->n_nodes; b++) {
            if ((sides >> (a % 64) & 1) != (sides >> (b % 64) & 1)) {
                dkv_world_cut(chaos->world, a, b);
            }
        }
    }
    repair_later(chaos, DKV_FAULT_PARTITION, 0, 0);
}

static void one_way(dkv_chaos *chaos, uint16_t node) {
    uint16_t peer = (uint16_t)dkv_rand_below(&chaos->rand, chaos->n_nodes);
    if (peer == node) return;
    dkv_world_cut(chaos->world, node, peer);
    repair_later(chaos, DKV_FAULT_ONE_WAY, node, peer);
}

/* A process is stopped for as long as faults last, or much longer. */
static void pause(dkv_chaos *chaos, uint16_t node) {
    dkv_world_pause(chaos->world, node);
    int64_t ns = one_in(chaos, 4) ? between(chaos, 1000 * MS, 20000 * MS) : duration(chaos);
    repair_in(chaos, ns, DKV_FAULT_PAUSE, node, 0);
}

/* A way that takes long for every message, or few bytes a second, or both. */
static void slow_link(dkv_chaos *chaos, uint16_t node) {
    uint16_t peer = (uint16_t)dkv_rand_below(&chaos->rand, chaos->n_nodes);
    dkv_way way = {.latency = {.low_us = (uint32_t)between(chaos, 1000, 50000),
                               .high_us = (uint32_t)between(chaos, 50000, 300000),
                               .heavy_tail = one_in(chaos, 2)}};
    if (peer == node) return;
    if (one_in(chaos, 2)) way.bytes_per_s = (uint64_t)between(chaos, 10000, 1000000);
    if (way.bytes_per_s && one_in(chaos, 2)) way.latency = (dkv_latency){0};
    dkv_world_slow_way(chaos->world, node, peer, &way);
    repair_later(chaos, DKV_FAULT_SLOW_LINK, node, peer);
}

static void slow_disk(dkv_chaos *chaos, uint16_t node) {
    uint32_t max_us = (uint32_t)between(chaos, 1000, 200000);
    uint64_t bytes_per_s = one_in(chaos, 2) ? (uint64_t)between(chaos, 100000, 10000000) : 0;
    dkv_world_slow_disk(chaos->world, node, max_us, bytes_per_s);
    repair_later(chaos, DKV_FAULT_SLOW_DISK, node, 0);
}

/* The disk is full now, or soon. */
static void limit_disk(dkv_chaos *chaos, uint16_t node) {
    uint64_t limit = (uint64_t)between(chaos, 1, 2 << 20);
    if (one_in(chaos, 3)) limit = dkv_world_disk_bytes(chaos->world, node) + 1;
    dkv_world_capacity(chaos->world, node, limit);
    repair_later(chaos, DKV_FAULT_CAPACITY, node, 0);
}

static void skew(dkv_chaos *chaos, uint16_t node) {
    int64_t most_ms = one_in(chaos, 4) ? 10000 : 400;
    dkv_world_skew(chaos->world, node, between(chaos, -most_ms, most_ms));
    repair_later(chaos, DKV_FAULT_SKEW, node, 0);
}

static void replace_disk(dkv_chaos *chaos, uint16_t node, int64_t away_ns) {
    dkv_world_crash(chaos->world, node);
    dkv_world_wipe(chaos->world, node);
    chaos->start_at[node] = dkv_world_now(chaos->world) + away_ns;
}

/* A disk is gone, and it takes a while until there is another one. Often another node has just
 * lost its own: only such nodes wait for anybody. */
static void lose_disk(dkv_chaos *chaos, uint16_t node) {
    uint16_t other = (uint16_t)dkv_rand_below(&chaos->rand, chaos->n_nodes);
    if (one_in(chaos, 2)) replace_disk(chaos, other, between(chaos, MS, 1000 * MS));
    replace_disk(chaos, node, between(chaos, 500 * MS, 8000 * MS));
    repair_in(chaos, between(chaos, 10 * MS, 2000 * MS), DKV_FAULT_DECLARE_LOST, node, 0);
}

/* What is not in the log rots in a process that does not run: there it is kept in memory. */
static void flip(dkv_chaos *chaos, uint16_t node) {
    dkv_world *world = chaos->world;
    if (!one_in(chaos, 4)) {
        dkv_world_flip(world, node);
        return;
    }
    if (one_in(chaos, 2)) {
        dkv_world_stop(world, node);
    } else {
        dkv_world_crash(world, node);
    }
    dkv_file_kind kind = one_in(chaos, 2) ? DKV_FILE_META : DKV_FILE_SNAPSHOT;
    for (int64_t i = between(chaos, 1, 4); i > 0; i--) dkv_world_flip_file(world, node, kind);
}

static void fault(dkv_chaos *chaos, dkv_fault kind, uint16_t node) {
    dkv_world *world = chaos->world;
    switch (kind) {
    case DKV_FAULT_CRASH: dkv_world_crash(world, node); break;
    case DKV_FAULT_POWER_CUT: dkv_world_power_cut(world, node); break;
    case DKV_FAULT_BLACKOUT:
        for (uint16_t i = 0; i < chaos->n_nodes; i++) dkv_world_power_cut(world, i);
        break;
    case DKV_FAULT_STOP: dkv_world_stop(world, node); break;
    case DKV_FAULT_PAUSE: pause(chaos, node); break;
    case DKV_FAULT_PARTITION: partition(chaos); break;
    case DKV_FAULT_ONE_WAY: one_way(chaos, node); break;
    case DKV_FAULT_SLOW_LINK: slow_link(chaos, node); break;
    case DKV_FAULT_SKEW: skew(chaos, node); break;
    case DKV_FAULT_SLOW_DISK: slow_disk(chaos, node); break;
    case DKV_FAULT_CAPACITY: limit_disk(chaos, node); break;
    case DKV_FAULT_SYNC_ERROR: dkv_world_fail_syncs(world, node, 1); break;
    case DKV_FAULT_READ_ERROR:
        dkv_world_fail_reads(world, node, (uint32_t)between(chaos, 1, 4));
        break;
    case DKV_FAULT_FLIP: flip(chaos, node); break;
    case DKV_FAULT_UNREADABLE: dkv_world_spoil(world, node); break;
    case DKV_FAULT_WIPE:
        dkv_world_crash(world, node);
        dkv_world_wipe(world, node);
        break;
    case DKV_FAULT_LOSE_FILE:
        dkv_world_crash(world, node);
        dkv_world_lose_file(world, node);
        break;
    case DKV_FAULT_DECLARE_LOST: lose_disk(chaos, node); break;
    default: break;
    }
    chaos->n_faults[kind]++;
}

static void random_fault(dkv_chaos *chaos) {
    dkv_fault kind;
    do {
        kind = (dkv_fault)dkv_rand_below(&chaos->rand, DKV_FAULTS);
    } while (!(chaos->faults >> kind & 1));
    fault(chaos, kind, (uint16_t)dkv_rand_below(&chaos->rand, chaos->n_nodes));
}

/* ---- watching over processes ---- */

/* A disk that can no longer be read is replaced by the operator, if the world had damaged it. */
static bool start(dkv_chaos *chaos, uint16_t node, dkv_violation *out) {
    int err = dkv_world_start(chaos->world, node);
    if (!err || err == DKV_ERR_NO_SPACE || err == DKV_ERR_IO) return true;
    if (dkv_world_damaged_at(chaos->world, node) >= 0) {
        dkv_world_wipe(chaos->world, node);
        return true;
    }
    return dkv_check_fail(out, DKV_RULE_ALARM, DKV_CHECK_NO_OP, DKV_CHECK_NO_OP,
                          "node %u does not start on a sound disk: %s", node, dkv_err_name(err));
}

static bool start_due(dkv_chaos *chaos, int64_t now, dkv_violation *out) {
    for (uint16_t node = 0; node < chaos->n_nodes; node++) {
        int64_t *at = &chaos->start_at[node];
        if (dkv_world_is_running(chaos->world, node)) {
            *at = 0;
        } else if (*at == 0) {
            *at = now + duration(chaos);
        } else if (*at <= now) {
            *at = 0;
            if (!start(chaos, node, out)) return false;
        }
    }
    return true;
}

bool dkv_chaos_act(dkv_chaos *chaos, dkv_violation *out) {
    int64_t now = dkv_world_now(chaos->world);
    repair_due(chaos, now);
    if (!start_due(chaos, now, out)) return false;
    if (now >= chaos->next_ns) {
        random_fault(chaos);
        chaos->next_ns = now + between(chaos, 0, 2 * chaos->pause_ns);
    }
    return true;
}

void dkv_chaos_end(dkv_chaos *chaos) {
    chaos->next_ns = INT64_MAX;
    for (unsigned i = 0; i < chaos->n_repairs; i++) chaos->repairs[i].at_ns = 0;
    repair_due(chaos, 0);
    dkv_world_heal(chaos->world);
    dkv_world_set_net(chaos->world, &(dkv_net_options){0});
    for (uint16_t node = 0; node < chaos->n_nodes; node++) {
        dkv_world_resume(chaos->world, node);
        dkv_world_skew(chaos->world, node, 0);
        dkv_world_slow_disk(chaos->world, node, 0, 0);
        dkv_world_capacity(chaos->world, node, 0);
        dkv_world_fail_syncs(chaos->world, node, 0);
        dkv_world_fail_reads(chaos->world, node, 0);
        bool rots = chaos->faults >> DKV_FAULT_FLIP & 1;
        for (int i = 0; rots && i < LAST_FLIPS; i++) dkv_world_flip(chaos->world, node);
        if (chaos->faults >> DKV_FAULT_UNREADABLE & 1) dkv_world_spoil(chaos->world, node);
    }
}
