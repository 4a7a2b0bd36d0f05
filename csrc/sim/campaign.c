#include "sim/campaign.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "sim/chaos.h"

#define MS 1000000LL
#define CLIENTS_MAX 8u
#define KEYS_MAX 12u
#define MANY_KEYS_MAX 100u /* so that most are not written again before the end */
#define NODES_MAX 12u
#define OPS_MAX 1500u          /* the check compares them pairwise */
#define QUIET_NS (9000 * MS)   /* longer than any deadline, and than it takes to find each other */
#define SCRUB_NS (240000 * MS) /* until all logs have been read: a place takes up to a minute */
#define HEAL_NS (120000 * MS)  /* from the end of all faults until all replicas are identical */
#define BUSY_MAX 10u           /* tries, half a second apart */
#define NO_OP DKV_CHECK_NO_OP

const char *dkv_fault_name(dkv_fault fault) {
    static const char *const names[] = {
#define DKV_FAULT_NAME(name, text) text,
        DKV_FAULT_MAP(DKV_FAULT_NAME)
#undef DKV_FAULT_NAME
    };
    return names[fault];
}

typedef struct client {
    uint64_t op; /* under way; NO_OP: none */
    int64_t next_ns;
    bool hands_on; /* sends along the newest version that it has seen */
    dkv_version seen;
} client;

typedef struct campaign {
    dkv_rand rand;
    dkv_world *world;
    dkv_check *check;
    dkv_chaos chaos;
    uint32_t faults;
    client clients[CLIENTS_MAX];
    unsigned n_clients;
    unsigned n_keys;
    int64_t think_ns;
    int64_t length_ns;
    unsigned delete_percent;
    unsigned write_percent;
    uint8_t value[DKV_VALUE_MAX];
} campaign;

static uint64_t below(campaign *c, uint64_t bound) {
    return dkv_rand_below(&c->rand, bound);
}

static uint32_t pick(campaign *c, const uint32_t *of, size_t n) {
    return of[below(c, n)];
}

#define PICK(c, ...)                           \
    pick((c), (const uint32_t[]){__VA_ARGS__}, \
         sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* ---- the world ---- */

/* How nodes are spread: 0 zones or hosts mean that none are named. */
typedef struct places {
    unsigned zones;
    unsigned hosts;
} places;

static int add_member(campaign *c, dkv_cluster_map *map, unsigned number, places among) {
    uint32_t indices[32];
    uint32_t n = 1 + (uint32_t)below(c, 32);
    for (uint32_t i = 0; i < n; i++) indices[i] = i;
    char id[16], zone[16], host[16];
    snprintf(id, sizeof id, "n%u", number);
    snprintf(zone, sizeof zone, "z%u", (unsigned)below(c, among.zones + 1));
    snprintf(host, sizeof host, "h%u", (unsigned)below(c, among.hosts + 1));
    return dkv_cluster_map_add(map, &(dkv_member){.id = id,
                                                  .zone = among.zones ? zone : NULL,
                                                  .host = among.hosts ? host : NULL,
                                                  .token_indices = indices,
                                                  .n_token_indices = n});
}

static int make_map(campaign *c, dkv_cluster_map **out) {
    unsigned nodes = 1 + (unsigned)below(c, NODES_MAX);
    unsigned most = nodes < DKV_REPLICATION_MAX ? nodes : DKV_REPLICATION_MAX;
    uint8_t replication = (uint8_t)(1 + below(c, most));
    if (nodes >= 3 && below(c, 2)) replication = 3;
    places among = {.zones = below(c, 2) ? (unsigned)below(c, nodes) : 0,
                    .hosts = below(c, 4) ? 0 : (unsigned)below(c, nodes)};
    int err = dkv_cluster_map_new("sim", replication, out);
    for (unsigned i = 1; !err && i <= nodes; i++) err = add_member(c, *out, i, among);
    return err;
}

static dkv_net_options choose_net(campaign *c) {
    dkv_net_options net = {.latency.high_us = PICK(c, 200, 500, 500, 2000, 20000),
                           .latency.heavy_tail = below(c, 4) == 0,
                           .slow_ppm = PICK(c, 0, 0, 1000, 20000)};
    if (c->faults >> DKV_FAULT_BREAK & 1) net.break_ppm = PICK(c, 100, 1000, 10000);
    if (c->faults >> DKV_FAULT_DATAGRAM & 1) {
        net.drop_ppm = PICK(c, 0, 1000, 30000);
        net.duplicate_ppm = PICK(c, 0, 1000, 100000);
        net.reorder_ppm = PICK(c, 1000, 100000, 300000);
    }
    return net;
}

/* Mostly ALWAYS: in the others, faults excuse nodes from their promises. */
static dkv_durability choose_durability(campaign *c) {
    return (dkv_durability)PICK(c, DKV_DURABILITY_ALWAYS, DKV_DURABILITY_ALWAYS,
                                DKV_DURABILITY_ALWAYS, DKV_DURABILITY_ALWAYS,
                                DKV_DURABILITY_INTERVAL, DKV_DURABILITY_MEMORY);
}

static int make_world(campaign *c, uint64_t seed, bool keep_trace) {
    dkv_cluster_map *map = NULL;
    int err = make_map(c, &map);
    if (!err) {
        dkv_world_options options = {.seed = seed,
                                     .map = map,
                                     .net = choose_net(c),
                                     .disk_max_us = PICK(c, 50, 400, 400, 5000, 60000),
                                     .loop_max_us = PICK(c, 1, 20, 20, 1000),
                                     .segment_bytes = PICK(c, 65536, 65536, 1 << 20),
                                     .unsynced_max_bytes = PICK(c, 0, 0, 0, 65536),
                                     .durability = choose_durability(c),
                                     .interval_ms = PICK(c, 1, 100, 1000),
                                     .hints_max = PICK(c, 0, 1, 1, 4),
                                     .scrub_bytes_per_s = PICK(c, 4 << 20, 64 << 20),
                                     .scrub_interval_ms = PICK(c, 1000, 5000),
                                     .keep_trace = keep_trace};
        if (below(c, 4) == 0) { /* an impatient cluster, on disks that are fast enough for that */
            options.disk_max_us = PICK(c, 50, 400, 5000);
            options.timing = (dkv_timing){.attempt_ms = 10,
                                          .connect_ms = 50,
                                          .ping_ms = 30,
                                          .silence_ms = 150,
                                          .retry_ms = 50,
                                          .idle_ms = 1000};
        }
        err = dkv_world_new(&options, &c->world);
    }
    if (!err) dkv_world_watch(c->world, dkv_check_witness, c->check);
    dkv_cluster_map_del(map);
    return err;
}

static void choose_work(campaign *c) {
    c->n_clients = 1 + (unsigned)below(c, CLIENTS_MAX);
    c->n_keys = 1 + (unsigned)below(c, below(c, 4) ? KEYS_MAX : MANY_KEYS_MAX);
    c->think_ns = (int64_t)PICK(c, 1, 10, 50, 200) * MS;
    c->length_ns = (int64_t)(2 + below(c, 10)) * 1000 * MS;
    if (c->think_ns < 5 * MS) c->length_ns = 2000 * MS;
    c->delete_percent = PICK(c, 0, 5, 20);
    c->write_percent = PICK(c, 30, 50, 80);
    for (unsigned i = 0; i < c->n_clients; i++) {
        c->clients[i] = (client){.op = NO_OP, .hands_on = below(c, 2)};
    }
}

/* ---- the work ---- */

static dkv_level choose_level(campaign *c) {
    return (dkv_level)PICK(c, DKV_LEVEL_DEFAULT, DKV_LEVEL_DEFAULT, DKV_LEVEL_ONE, DKV_LEVEL_QUORUM,
                           DKV_LEVEL_QUORUM, DKV_LEVEL_ALL);
}

/* A value like no other: it begins with the number of its operation. Most are small, some large. */
static dkv_slice make_value(campaign *c) {
    uint64_t most = below(c, 20) ? 200 : below(c, 10) ? 5000 : below(c, 4) ? 100000 : DKV_VALUE_MAX;
    size_t len = 8 + (size_t)below(c, most - 8 + 1);
    memset(c->value, (int)below(c, 256), len);
    dkv_put_le64(c->value, dkv_world_ops(c->world));
    return (dkv_slice){c->value, len};
}

/* "key0", "key1" and so on; some are as long as a key may be. */
static dkv_slice make_key(unsigned number, char text[DKV_KEY_MAX + 1]) {
    int len = snprintf(text, DKV_KEY_MAX + 1, "key%u", number);
    if (number % 8 != 7) return dkv_slice_of(text);
    memset(text + len, '.', DKV_KEY_MAX - (size_t)len);
    return (dkv_slice){(const uint8_t *)text, DKV_KEY_MAX};
}

static int submit(campaign *c, unsigned number, dkv_request request, int via, unsigned key_number,
                  uint64_t *out) {
    client *who = &c->clients[number];
    char key[DKV_KEY_MAX + 1];
    request.key = make_key(key_number, key);
    if (request.op == DKV_OP_PUT) request.value = make_value(c);
    if (request.op != DKV_OP_GET && who->hands_on) request.last_seen = who->seen;
    return dkv_world_submit(c->world, number, via, &request, out);
}

static int submit_random(campaign *c, unsigned number) {
    dkv_request request = {
        .op = DKV_OP_GET, .level = choose_level(c), .timeout_ms = PICK(c, 50, 500, 2000, 5000)};
    if (below(c, 100) < c->write_percent) {
        request.op = below(c, 100) < c->delete_percent ? DKV_OP_DELETE : DKV_OP_PUT;
    }
    int via = below(c, 4) ? DKV_SIM_ANY : (int)below(c, c->chaos.n_nodes);
    return submit(c, number, request, via, (unsigned)below(c, c->n_keys), &c->clients[number].op);
}

/* Power fails just when a write is confirmed, at one of those that confirmed it. */
static void strike(campaign *c, const dkv_sim_result *result) {
    bool may = c->faults >> DKV_FAULT_POWER_CUT & 1 && result->holding.n > 0;
    if (!may || result->outcome != DKV_OUTCOME_APPLIED || below(c, 32)) return;
    dkv_world_power_cut(c->world, result->holding.nodes[below(c, result->holding.n)]);
}

static int serve_client(campaign *c, unsigned number) {
    client *who = &c->clients[number];
    int64_t now = dkv_world_now(c->world);
    if (who->op != NO_OP) {
        const dkv_sim_op *op = dkv_world_op(c->world, who->op);
        if (op->answered_ns < 0) return DKV_OK;
        if (dkv_version_cmp(op->result.version, who->seen) > 0) who->seen = op->result.version;
        strike(c, &op->result);
        who->op = NO_OP;
        who->next_ns = now + (int64_t)below(c, 2 * (uint64_t)c->think_ns);
    }
    bool asks = now >= who->next_ns && dkv_world_ops(c->world) < OPS_MAX;
    return asks ? submit_random(c, number) : DKV_OK;
}

/* ---- the course ---- */

/* Lets time pass with clients (`busy`) or without. */
static bool pass(campaign *c, int64_t ns, bool busy, int *err, dkv_violation *out) {
    int64_t end = dkv_world_now(c->world) + ns;
    while (dkv_world_now(c->world) < end) {
        if (!dkv_chaos_act(&c->chaos, out)) return false;
        for (unsigned i = 0; busy && !*err && i < c->n_clients; i++) *err = serve_client(c, i);
        uint64_t slice_us = busy ? 2000 : 50000;
        if (!*err) *err = dkv_world_run_for(c->world, (int64_t)(1 + below(c, slice_us)) * 1000);
        if (*err || !dkv_check_running(c->check, c->world, out)) return false;
    }
    return true;
}

static bool check_disks(campaign *c, dkv_violation *out) {
    for (uint16_t i = 0; i < c->chaos.n_nodes; i++) dkv_world_power_cut(c->world, i);
    for (uint16_t i = 0; i < c->chaos.n_nodes; i++) {
        if (!dkv_check_disk(c->check, c->world, i, out)) return false;
    }
    return true;
}

static bool any_damage(const campaign *c) {
    for (uint16_t i = 0; i < c->chaos.n_nodes; i++) {
        if (dkv_world_damaged_at(c->world, i) >= 0) return true;
    }
    return false;
}

/* Whether an operation that failed so may succeed a moment later: a node is busy, or has just found
 * a damaged record, which is being fetched from another one. */
static bool may_pass(const campaign *c, int failure) {
    bool heals = failure == DKV_ERR_UNAVAILABLE || failure == DKV_ERR_DATA_LOSS;
    return failure == DKV_ERR_BUSY || (heals && any_damage(c));
}

/* One operation that has to succeed, at once or soon. */
static bool demand(campaign *c, dkv_op op, dkv_level level, unsigned key, int *err,
                   dkv_violation *out) {
    for (unsigned patience = BUSY_MAX;; patience--) {
        uint64_t number;
        *err = submit(c, 0, (dkv_request){.op = op, .level = level}, DKV_SIM_ANY, key, &number);
        if (!*err) *err = dkv_world_run_until_done(c->world, number);
        if (*err) return false;
        const dkv_sim_result *result = &dkv_world_op(c->world, number)->result;
        bool absent = op == DKV_OP_GET && result->err == DKV_ERR_NOT_FOUND;
        if (result->err == DKV_OK || absent) return true;
        if (!may_pass(c, result->err) || patience == 0) {
            return dkv_check_fail(out, DKV_RULE_SERVING, number, NO_OP, "%s: %s",
                                  dkv_err_name(result->err), result->detail);
        }
        if (!pass(c, 500 * MS, false, err, out)) return false;
    }
}

/* The word of a node that has lost something does not count until it has been healed by its peers,
 * if it has any. A full disk can have cost it something as well: a segment that is removed without
 * a note counts as lost (store/merge.h). */
static bool check_serving(campaign *c, int *err, dkv_violation *out) {
    bool has_peers = dkv_ring_replication(dkv_world_ring(c->world)) > 1;
    bool was_full = c->faults >> DKV_FAULT_CAPACITY & 1;
    bool reads = has_peers || (!was_full && !any_damage(c));
    for (unsigned key = 0; key < c->n_keys; key++) {
        if (reads && !demand(c, DKV_OP_GET, DKV_LEVEL_ALL, key, err, out)) return false;
        if (!demand(c, DKV_OP_PUT, DKV_LEVEL_ALL, key, err, out)) return false;
        if (!demand(c, DKV_OP_GET, DKV_LEVEL_ONE, key, err, out)) return false;
    }
    return true;
}

/* Gives the nodes time to become identical, if they can. */
static bool check_converged(campaign *c, int *err, dkv_violation *out) {
    int64_t end = dkv_world_now(c->world) + HEAL_NS;
    while (!dkv_check_converged(c->world, out)) {
        if (dkv_world_now(c->world) >= end) return false;
        if (!pass(c, 1000 * MS, false, err, out)) return false;
    }
    return true;
}

static uint64_t scrub_passes(const campaign *c, uint16_t node) {
    const dkv_node *running = dkv_world_node(c->world, node);
    dkv_node_status status = {0};
    if (running) dkv_node_status_get(running, &status);
    return status.store.scrub_passes;
}

/* Lets every node read its whole log once more: after the second pass from now. */
static bool await_scrub(campaign *c, int *err, dkv_violation *out) {
    int64_t end = dkv_world_now(c->world) + SCRUB_NS;
    for (uint16_t i = 0; i < c->chaos.n_nodes; i++) {
        uint64_t upto = scrub_passes(c, i) + 2;
        while (scrub_passes(c, i) < upto) {
            if (dkv_world_now(c->world) >= end) {
                return dkv_check_fail(out, DKV_RULE_CONVERGED, NO_OP, NO_OP,
                                      "node %u does not get through its log", i);
            }
            if (!pass(c, 500 * MS, false, err, out)) return false;
        }
    }
    return true;
}

static bool run(campaign *c, int *err, dkv_violation *out) {
    if (!pass(c, c->length_ns, true, err, out)) return false;
    dkv_chaos_end(&c->chaos);
    if (!pass(c, QUIET_NS, false, err, out)) return false;
    if (!await_scrub(c, err, out) || !check_converged(c, err, out)) return false;
    if (!dkv_check_whole(c->check, c->world, out) || !check_disks(c, out)) return false;
    if (!pass(c, QUIET_NS, false, err, out)) return false;
    if (!check_serving(c, err, out)) return false;
    if (!pass(c, QUIET_NS, false, err, out)) return false; /* for the slower of hedged reads */
    if (!check_converged(c, err, out) || !dkv_check_whole(c->check, c->world, out)) return false;
    return dkv_check_history(c->check, c->world, out) && check_disks(c, out);
}

static void report_world(const campaign *c, dkv_campaign_report *report) {
    dkv_world *world = c->world;
    report->faults = c->faults;
    report->n_nodes = c->chaos.n_nodes;
    report->replication = (uint8_t)dkv_ring_replication(dkv_world_ring(world));
    report->ops = dkv_world_ops(world);
    for (uint64_t i = 0; i < report->ops; i++) {
        const dkv_sim_op *op = dkv_world_op(world, i);
        bool good = op->answered_ns >= 0 && op->result.err == DKV_OK;
        report->applied += good && op->request.op != DKV_OP_GET;
        report->found += good && op->request.op == DKV_OP_GET;
    }
    dkv_sim_counts counts = dkv_world_counts(world);
    memcpy(report->n_faults, c->chaos.n_faults, sizeof report->n_faults);
    report->n_faults[DKV_FAULT_BREAK] = (uint32_t)counts.broken;
    report->n_faults[DKV_FAULT_DATAGRAM] = (uint32_t)counts.disturbed;
    report->messages = counts.messages;
    report->events = counts.events;
    report->trace_hash = dkv_world_trace(world)->hash;
    report->ns = dkv_world_now(world);
}

int dkv_sim_campaign(uint64_t seed, const dkv_campaign_options *options,
                     dkv_campaign_report *report, dkv_world **world_out) {
    campaign *c = calloc(1, sizeof *c);
    if (!c) return DKV_ERR_NO_MEMORY;
    c->rand.state = seed;
    c->faults = dkv_chaos_choose(&c->rand, options->faults);
    choose_work(c);
    dkv_campaign_report made = {0};
    int err = dkv_check_new(&c->check);
    if (!err) err = make_world(c, dkv_rand_next(&c->rand), options->keep_trace);
    if (!err) err = dkv_chaos_init(&c->chaos, c->world, c->faults, dkv_rand_next(&c->rand));
    if (!err) {
        made.ok = run(c, &err, &made.violation);
        report_world(c, &made);
    }
    if (!err) {
        *report = made;
        if (world_out) {
            dkv_world_watch(c->world, NULL, NULL);
            *world_out = c->world;
            c->world = NULL;
        }
    }
    dkv_chaos_free(&c->chaos);
    dkv_world_del(c->world);
    dkv_check_del(c->check);
    free(c);
    return err;
}
