/* Starting a node: what can be wrong is found out before anything is made, and told in a sentence
 * that says what to do. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"
#include "host/host.h"
#include "host/internal.h"
#include "replica/replica.h"
#include "store/meta.h"

/* The usual limits. */
#define REQUEST_BYTES_MAX 67108864u
#define CACHE_BYTES 16777216u

static const dkv_rpc_method methods[] = {
    {.path = "/dkv.v1.KV/Get", .unary = dkv_call_get},
    {.path = "/dkv.v1.KV/Put", .unary = dkv_call_put},
    {.path = "/dkv.v1.KV/Delete", .unary = dkv_call_delete},
    {.path = "/dkv.v1.KV/Map", .unary = dkv_call_map},
    {.path = "/dkv.v1.KV/Session", .accept = dkv_session_accept, .events = &dkv_session_events},
    {.path = "/dkv.v1.Peer/Exchange",
     .accept = dkv_link_accept,
     .events = &dkv_link_accepted_events},
    {.path = "/dkv.v1.Admin/Status", .unary = dkv_call_status},
    {.path = "/dkv.v1.Admin/Shares", .unary = dkv_call_shares},
    {.path = "/dkv.v1.Admin/DeclareLost", .unary = dkv_call_declare_lost},
    {.path = "/grpc.health.v1.Health/Check", .unary = dkv_health_check},
    {.path = "/grpc.health.v1.Health/Watch",
     .accept = dkv_watch_accept,
     .events = &dkv_watch_events},
    {.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
     .accept = dkv_reflection_accept,
     .events = &dkv_reflection_events},
    {.path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
     .accept = dkv_reflection_accept,
     .events = &dkv_reflection_events},
};

uint64_t dkv_host_random(void) {
    uint64_t number = 0;
    while (number == 0) {
        /* Up to 256 bytes getrandom neither fails nor is cut short, once the kernel is up. */
        if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) abort();
    }
    return number;
}

/* A number that another boot of the machine does not have: from the kernel's boot id, a UUID. 0 if
 * it is not known. */
static uint64_t boot_id(void) {
    char text[64] = "";
    uint32_t first = 0, second = 0, third = 0;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file) return 0;
    if (!fgets(text, sizeof text, file)) text[0] = 0;
    fclose(file);
    if (sscanf(text, "%8" SCNx32 "-%4" SCNx32 "-%4" SCNx32, &first, &second, &third) != 3) return 0;
    return (uint64_t)first << 32 | second << 16 | third;
}

static int refuse(char *why, int err, const char *what, const char *about) {
    snprintf(why, DKV_DETAIL_MAX, "%s: %s", about, what);
    return err;
}

/* The address to listen on, or an error. */
static int check_options(const dkv_host_options *options, const char **listen, char *why) {
    char reason[160];
    if (dkv_cluster_map_check(options->map, reason, sizeof reason)) {
        return refuse(why, DKV_ERR_INVALID, reason, "cluster map");
    }
    int self = dkv_cluster_map_find(options->map, options->id);
    if (self < 0) return refuse(why, DKV_ERR_INVALID, "not a member of the map", options->id);
    for (size_t i = 0; i < options->map->n_members; i++) {
        const dkv_member *member = &options->map->members[i];
        if (!member->address[0]) {
            return refuse(why, DKV_ERR_INVALID, "the member has no address", member->id);
        }
    }
    *listen = options->listen ? options->listen : options->map->members[self].address;
    if (options->insecure || dkv_address_is_loopback(*listen)) return DKV_OK;
    return refuse(why, DKV_ERR_PERMISSION,
                  "not a loopback address; connections are neither encrypted nor authenticated, so "
                  "other addresses need --insecure: whoever can connect can read and write all",
                  *listen);
}

/* Completes "<directory>: ...". */
static int refuse_store(const dkv_disk *disk, const dkv_host_options *options, int err, char *why) {
    char what[3 * DKV_NAME_MAX];
    switch (err) {
    case DKV_ERR_PRECONDITION:
        snprintf(what, sizeof what,
                 "holds the store of another cluster or node than %.64s of %.64s", options->id,
                 options->map->cluster);
        return refuse(why, err, what, options->data_dir);
    case DKV_ERR_PROTOCOL:
        return refuse(why, err,
                      "its files are of a format that this version of dkv does not know: was it "
                      "written by a newer one?",
                      options->data_dir);
    case DKV_ERR_EPOCH:
        return refuse(why, err,
                      "was filled under another cluster map: the members, their hosts, zones, "
                      "weights or tokens, or the replication have changed, which a cluster with "
                      "data cannot do yet",
                      options->data_dir);
    case DKV_ERR_IO:
    case DKV_ERR_PERMISSION:
        snprintf(what, sizeof what, "a file in it cannot be used: %s",
                 strerror(dkv_disk_last_errno(disk)));
        return refuse(why, err, what, options->data_dir);
    default: return refuse(why, err, dkv_err_sentence(err), options->data_dir);
    }
}

static uint64_t limit_or(uint64_t limit, uint64_t usual) {
    return limit ? limit : usual;
}

static int open_store(dkv_host *host, const dkv_host_options *options, dkv_store **out,
                      dkv_store_report *report, char *why) {
    dkv_store_options store_options = {
        .cluster = options->map->cluster,
        .node_id = options->id,
        .new_store_id = dkv_host_random(),
        .durability = options->durability,
        .interval_ms = options->interval_ms,
        .boot_id = boot_id(),
        .segment_bytes = options->limits.segment_bytes,
        .unsynced_max_bytes = options->limits.unsynced_bytes,
        .cache_bytes = limit_or(options->limits.cache_bytes, CACHE_BYTES),
        .scrub_bytes_per_s = options->limits.scrub_bytes_per_s,
    };
    int err = dkv_store_open(&store_options, dkv_disk_run_now, host->disk, out, report);
    return err ? refuse_store(host->disk, options, err, why) : DKV_OK;
}

static int make_node(dkv_host *host, const dkv_host_options *options, dkv_store_report *report,
                     char *why) {
    dkv_store *store;
    int err = open_store(host, options, &store, report, why);
    if (err) return err;
    dkv_node_options node_options = {
        .map = options->map,
        .id = options->id,
        .store = store,
        .seed = dkv_host_random(),
        .timing = options->timing,
    };
    err = dkv_node_new(&node_options, &host->node);
    if (!err) return DKV_OK;
    dkv_store_del(store);
    return refuse_store(host->disk, options, err, why);
}

/* ---- looking only ---- */

/* Whether a node can use these facts under the map of `options`. */
static int look_at_facts(const dkv_host_options *options, uint64_t store_id, dkv_slice facts) {
    uint16_t self = (uint16_t)dkv_cluster_map_find(options->map, options->id);
    dkv_ring *ring;
    dkv_shares shares;
    dkv_trust trust;
    int err = dkv_ring_new(options->map, &ring);
    if (err) return err;
    err = dkv_shares_init(&shares, ring, self);
    if (err) goto free_ring;
    err = dkv_trust_init(&trust, dkv_ring_map(ring), &shares, self, store_id, facts);
    if (!err) dkv_trust_free(&trust);
    dkv_shares_free(&shares);
free_ring:
    dkv_ring_del(ring);
    return err;
}

/* Where META is lost or was never written a start goes by the log; so there is nothing to say. */
static int look_at_store(dkv_disk *disk, const dkv_host_options *options) {
    dkv_meta meta = {0};
    int err = dkv_meta_load(&meta, dkv_disk_run_now, disk);
    if (!err && (strcmp(meta.identity.cluster, options->map->cluster) != 0 ||
                 strcmp(meta.identity.node_id, options->id) != 0)) {
        err = DKV_ERR_PRECONDITION;
    }
    if (!err) {
        err = look_at_facts(options, meta.identity.store_id, dkv_buf_slice(&meta.facts));
    }
    dkv_meta_free(&meta);
    return err == DKV_ERR_NOT_FOUND ? DKV_OK : err;
}

int dkv_host_look(const dkv_host_options *options, bool *missing, char *why) {
    bool in_memory = options->durability == DKV_DURABILITY_MEMORY;
    dkv_disk *disk;
    int err = dkv_disk_look(options->data_dir, in_memory, &disk, why);
    if (err) return err;
    if (disk && !in_memory) err = look_at_store(disk, options);
    if (err) refuse_store(disk, options, err, why);
    if (!err) *missing = !disk;
    dkv_disk_del(disk);
    return err;
}

/* ---- what the operator is told ---- */

static const char *start_of(const dkv_store_report *report) {
    if (report->created) return "new";
    return report->clean ? "clean start" : "recovered";
}

static void describe_durability(const dkv_host_options *options, char *to, size_t size) {
    switch (options->durability) {
    case DKV_DURABILITY_ALWAYS: snprintf(to, size, "always"); return;
    case DKV_DURABILITY_MEMORY: snprintf(to, size, "memory"); return;
    case DKV_DURABILITY_INTERVAL:
        snprintf(to, size, "interval %" PRIu32 " ms", options->interval_ms);
        return;
    }
}

static void say_listening(const dkv_host *host, const dkv_host_options *options, const char *listen,
                          const dkv_store_report *report) {
    const dkv_cluster_map *map = dkv_ring_map(dkv_node_ring(host->node));
    char text[2 * DKV_DETAIL_MAX], address[DKV_ADDRESS_MAX + 8], store[20], durability[32];
    snprintf(address, sizeof address, "%.*s:%u", (int)(strrchr(listen, ':') - listen), listen,
             host->port);
    snprintf(store, sizeof store, "%016" PRIx64, dkv_store_id(dkv_node_store(host->node)));
    describe_durability(options, durability, sizeof durability);
    snprintf(text, sizeof text,
             "listening on %s, node %s of cluster %s, N = %u, %u nodes, durability %s, store %s: "
             "%" PRIu64 " records (%s)",
             address, options->id, map->cluster, map->replication, map->n_members, durability,
             store, report->records, start_of(report));
    dkv_notice_field fields[] = {
        {.key = "address", .text = address},
        {.key = "cluster", .text = map->cluster},
        {.key = "replication", .number = map->replication},
        {.key = "nodes", .number = map->n_members},
        {.key = "durability", .text = durability},
        {.key = "store", .text = store},
        {.key = "records", .number = report->records},
        {.key = "start", .text = start_of(report)},
    };
    host->log(host->log_user, &(dkv_notice){DKV_LOG_INFO, "listening", text, .fields = fields,
                                            .n_fields = sizeof fields / sizeof *fields});
}

static void say_number(const dkv_host *host, dkv_log_level level, const char *event,
                       const char *key, uint64_t number, const char *what) {
    char text[DKV_DETAIL_MAX];
    snprintf(text, sizeof text, "%" PRIu64 " %s", number, what);
    dkv_notice_field field = {.key = key, .number = number};
    host->log(host->log_user, &(dkv_notice){level, event, text, .fields = &field, .n_fields = 1});
}

static void say_recovered(const dkv_host *host, const dkv_store_report *report) {
    if (report->torn_bytes) {
        say_number(host, DKV_LOG_INFO, "torn_tail_cut", "bytes", report->torn_bytes,
                   "bytes of unconfirmed writes were cut off the end of the log, after an unclean "
                   "stop");
    }
    if (report->machine_stopped) {
        dkv_host_say(host, DKV_LOG_WARN, "unsynced_writes_lost",
                     "the machine stopped before the last writes were synced: they may be lost "
                     "here, so this store is not believed about absent keys");
    }
    uint64_t places = report->damaged_records - report->machine_stopped;
    if (places) {
        say_number(host, DKV_LOG_ERROR, "log_damaged", "places", places,
                   "damaged places in the log: confirmed records may be lost here, the other "
                   "replicas serve their keys; check this disk");
    }
}

static void wake(void *user) {
    dkv_host *host = user;
    dkv_rpc_loop_wake(host->loop);
}

int dkv_host_new(const dkv_host_options *options, dkv_host **out, char *why) {
    const char *listen;
    int err = check_options(options, &listen, why);
    if (err) return err;
    err = dkv_address_try(listen, why);
    if (err) return err;
    dkv_host *host = calloc(1, sizeof *host);
    if (!host) return refuse(why, DKV_ERR_NO_MEMORY, "out of memory", options->id);
    host->log = options->log;
    host->log_user = options->log_user;
    host->effects = dkv_host_effects(host);
    host->requests_max = limit_or(options->limits.requests, DKV_REQUESTS_MAX);
    host->request_bytes_max = limit_or(options->limits.request_bytes, REQUEST_BYTES_MAX);
    dkv_store_report report;
    err = dkv_rpc_loop_new(&host->loop);
    if (err) {
        refuse(why, err, dkv_err_sentence(err), options->id);
        goto fail;
    }
    err = dkv_disk_open(options->data_dir, options->durability == DKV_DURABILITY_MEMORY, wake, host,
                        &host->disk, why);
    if (err) goto fail;
    err = make_node(host, options, &report, why);
    if (err) goto fail;
    err = dkv_rpc_server_new(host->loop, listen, options->limits.received_bytes, methods,
                             sizeof methods / sizeof *methods, host, &host->server, &host->port);
    if (err) {
        refuse(why, err, "the address cannot be bound: does another program listen there?", listen);
        goto fail;
    }
    dkv_host_refresh_clock(host);
    host->started_ns = host->now_ns;
    say_listening(host, options, listen, &report);
    say_recovered(host, &report);
    *out = host;
    return DKV_OK;

fail:
    dkv_host_del(host);
    return err;
}
