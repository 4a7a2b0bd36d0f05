/* The ways from node to node: how long they take, which of them are slow or cut. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "sim/state.h"

#define SLOW_FACTOR 40
#define DELAY_MAX_US 60000000.0
/* A normally distributed number is above this once in a hundred times. */
#define NORMAL_P99 2.3263478740408408
#define TWO_PI 6.283185307179586

/* A way that is not like the others. */
typedef struct slow_way {
    dkv_way way;
    int64_t busy_until;
} slow_way;

void dkv_sim_net_defaults(dkv_net_options *net) {
    dkv_latency *latency = &net->latency;
    if (!latency->low_us) latency->low_us = 50;
    if (!latency->high_us) latency->high_us = 500;
    if (!net->connect_timeout_ms) net->connect_timeout_ms = 1000;
    if (latency->high_us < latency->low_us) latency->high_us = latency->low_us;
}

/* ---- how long ---- */

/* Box and Muller's method. */
static double normal(dkv_world *world) {
    double radius = sqrt(-2 * log(1 - dkv_rand_unit(&world->rand)));
    return radius * cos(TWO_PI * dkv_rand_unit(&world->rand));
}

static int64_t draw(dkv_world *world, const dkv_latency *latency) {
    if (!latency->heavy_tail) {
        return dkv_sim_between(world, (int64_t)latency->low_us * 1000,
                               (int64_t)latency->high_us * 1000);
    }
    double spread = log((double)latency->high_us / latency->low_us) / NORMAL_P99;
    double us = latency->low_us * exp(spread * normal(world));
    return (int64_t)(1000 * (us < DELAY_MAX_US ? us : DELAY_MAX_US));
}

int64_t dkv_sim_latency(dkv_world *world) {
    const dkv_net_options *net = &world->options.net;
    int64_t most = (int64_t)net->latency.high_us * 1000;
    if (dkv_sim_chance(world, net->slow_ppm)) {
        return dkv_sim_between(world, most, SLOW_FACTOR * most);
    }
    return draw(world, &net->latency);
}

int64_t dkv_sim_queueing(const dkv_world *world, int64_t *busy_until, size_t bytes,
                         uint64_t bytes_per_s) {
    if (!bytes_per_s) return 0;
    if (*busy_until < world->now) *busy_until = world->now;
    *busy_until += (int64_t)((double)bytes * 1e9 / (double)bytes_per_s);
    return *busy_until - world->now;
}

static uint64_t key_of(const dkv_world *world, uint16_t from, uint16_t to) {
    return (uint64_t)from * world->n_nodes + to;
}

int64_t dkv_sim_way_delay(dkv_world *world, uint16_t from, uint16_t to, size_t bytes) {
    slow_way *slow =
        world->slow_ways.len ? dkv_map_get(&world->slow_ways, key_of(world, from, to)) : NULL;
    if (!slow) return dkv_sim_latency(world);
    int64_t wait = dkv_sim_queueing(world, &slow->busy_until, bytes, slow->way.bytes_per_s);
    return wait +
           (slow->way.latency.low_us ? draw(world, &slow->way.latency) : dkv_sim_latency(world));
}

/* ---- cut and slow ---- */

static bool *cut(dkv_world *world, uint16_t from, uint16_t to) {
    return &world->cuts[key_of(world, from, to)];
}

bool dkv_sim_is_cut(const dkv_world *world, uint16_t from, uint16_t to) {
    return world->cuts[key_of(world, from, to)];
}

static void note(dkv_world *world, uint16_t from, uint16_t to, dkv_trace_kind kind, uint64_t a) {
    dkv_trace_entry entry = {world->now, from, to, kind, a, 0, NULL};
    dkv_trace_add(&world->trace, &entry, "%s", world->map->members[to].id);
}

void dkv_world_cut(dkv_world *world, uint16_t from, uint16_t to) {
    if (from == to || *cut(world, from, to)) return;
    *cut(world, from, to) = true;
    note(world, from, to, DKV_TRACE_PARTITION, 0);
}

void dkv_world_join(dkv_world *world, uint16_t from, uint16_t to) {
    if (!*cut(world, from, to)) return;
    *cut(world, from, to) = false;
    note(world, from, to, DKV_TRACE_HEAL, 0);
    dkv_sim_links_release(world);
}

void dkv_world_heal(dkv_world *world) {
    for (uint16_t from = 0; from < world->n_nodes; from++) {
        for (uint16_t to = 0; to < world->n_nodes; to++) *cut(world, from, to) = false;
    }
    dkv_sim_ways_free(world);
    dkv_trace_entry entry = {world->now, DKV_TRACE_NOBODY, DKV_TRACE_NOBODY, DKV_TRACE_HEAL, 0, 0,
                             NULL};
    dkv_trace_add(&world->trace, &entry, "all ways are joined, none is slow");
    dkv_sim_links_release(world);
}

void dkv_world_set_net(dkv_world *world, const dkv_net_options *net) {
    world->options.net = *net;
    dkv_sim_net_defaults(&world->options.net);
}
static void free_slow_way(dkv_world *world, uint64_t key) {
    free(dkv_map_remove(&world->slow_ways, key));
}

void dkv_world_slow_way(dkv_world *world, uint16_t from, uint16_t to, const dkv_way *way) {
    uint64_t key = key_of(world, from, to);
    bool is_slow = way->latency.low_us || way->bytes_per_s;
    free_slow_way(world, key);
    slow_way *slow = is_slow ? calloc(1, sizeof *slow) : NULL;
    if (slow) slow->way = *way;
    if (is_slow && (!slow || dkv_map_set(&world->slow_ways, key, slow))) {
        free(slow);
        world->err = DKV_ERR_NO_MEMORY;
        return;
    }
    dkv_trace_entry entry = {world->now,           from, to, DKV_TRACE_SLOW_LINK, way->bytes_per_s,
                             way->latency.high_us, NULL};
    dkv_trace_add(&world->trace, &entry,
                  "to %s: %" PRIu32 " to %" PRIu32 " us, %" PRIu64 " bytes a second (0: as before)",
                  world->map->members[to].id, way->latency.low_us, way->latency.high_us,
                  way->bytes_per_s);
}

void dkv_sim_ways_free(dkv_world *world) {
    for (size_t i = 0; i < world->slow_ways.cap; i++) free(world->slow_ways.slots[i].value);
    dkv_map_free(&world->slow_ways);
}
