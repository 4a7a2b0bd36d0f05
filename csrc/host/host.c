/* The owner thread's loop, its beginning and its end.
 *
 * A round: wait for completions of gRPC (or a timer, or the disk's wake) and handle some; each may
 * step the node. Then give finished disk jobs back and send a TICK, which hands out new ones, until
 * none completes at once any more. Then send what has been queued, so that all that one round made
 * for one stream leaves in one message. */
#include "host/host.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"
#include "host/internal.h"

#define COMPLETIONS_MAX 16u /* of gRPC in one round: answers wait for its end */
#define DISK_PASSES_MAX 8u  /* in one round: a long merge must not keep requests waiting */
#define STOP_MS 2000u       /* how long a stop waits for what is under way */
#define STOP_JOBS_MS 3000u  /* ... and then for the disk */

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

/* ---- beginning ---- */

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
                  "other addresses need --insecure",
                  *listen);
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
    };
    int err = dkv_store_open(&store_options, dkv_disk_run_now, host->disk, out, report);
    if (err == DKV_ERR_PRECONDITION) {
        return refuse(why, err, "holds the store of another cluster or node", options->data_dir);
    }
    return err ? refuse(why, err, dkv_err_sentence(err), options->data_dir) : DKV_OK;
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
    if (err == DKV_ERR_EPOCH) {
        return refuse(why, err,
                      "was filled under another cluster map: the members, their hosts, zones, "
                      "weights or tokens, or the replication have changed, which a cluster with "
                      "data cannot do yet",
                      options->data_dir);
    }
    return refuse(why, err, dkv_err_sentence(err), options->data_dir);
}

static void say_listening(const dkv_host *host, const dkv_host_options *options, const char *listen,
                          const dkv_store_report *report) {
    const dkv_cluster_map *map = dkv_ring_map(dkv_node_ring(host->node));
    int host_len = (int)(strrchr(listen, ':') - listen);
    dkv_host_say(host, DKV_LOG_INFO,
                 "listening on %.*s:%u, node %s of cluster %s, N = %u, %u nodes, store %016" PRIx64
                 ": %" PRIu64 " records (%s)",
                 host_len, listen, host->port, options->id, map->cluster, map->replication,
                 map->n_members, dkv_store_id(dkv_node_store(host->node)), report->records,
                 report->created ? "new"
                 : report->clean ? "clean start"
                                 : "recovered");
    if (report->torn_bytes) {
        dkv_host_say(host, DKV_LOG_INFO, "cut %" PRIu64 " bytes of unconfirmed writes off the log",
                     report->torn_bytes);
    }
    if (report->machine_stopped) {
        dkv_host_say(host, DKV_LOG_WARN,
                     "the machine stopped before the last writes were synced: they may be lost "
                     "here, so this store is not believed about absent keys");
    }
    uint64_t places = report->damaged_records - report->machine_stopped;
    if (places) {
        dkv_host_say(host, DKV_LOG_ERROR,
                     "%" PRIu64 " damaged places in the log: confirmed records may be lost here",
                     places);
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
    dkv_host *host = calloc(1, sizeof *host);
    if (!host) return refuse(why, DKV_ERR_NO_MEMORY, "out of memory", options->id);
    host->log = options->log;
    host->log_user = options->log_user;
    host->effects = dkv_host_effects(host);
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
    err = dkv_rpc_server_new(host->loop, listen, methods, sizeof methods / sizeof *methods, host,
                             &host->server, &host->port);
    if (err) {
        refuse(why, err, "the address cannot be bound; does another program listen there?", listen);
        goto fail;
    }
    dkv_host_refresh_clock(host);
    host->started_ns = host->now_ns;
    say_listening(host, options, listen, &report);
    *out = host;
    return DKV_OK;

fail:
    dkv_host_del(host);
    return err;
}

uint16_t dkv_host_port(const dkv_host *host) {
    return host->port;
}

/* ---- loop ---- */

/* Returns true if disk jobs have been left for the next round. */
static bool run_disk(dkv_host *host) {
    for (unsigned pass = 0; pass < DISK_PASSES_MAX; pass++) {
        dkv_host_refresh_clock(host);
        dkv_host_finish_jobs(host);
        dkv_host_step(host, (dkv_event){.kind = DKV_EVENT_TICK});
        if (host->failure) return false;
        if (!host->n_inline_done) return false;
    }
    return true;
}

/* Returns true if the next round must not wait. */
static bool run_round(dkv_host *host, int64_t until_ns) {
    dkv_rpc_loop_poll(host->loop, until_ns, COMPLETIONS_MAX);
    bool jobs_left = run_disk(host);
    if (host->failure) return false;
    dkv_pairs_flush(host);
    return dkv_pairs_take(host) || jobs_left;
}

static int64_t min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Runs rounds until `done` or `until_ns`. Returns whether it is done. */
static bool run_until(dkv_host *host, bool (*done)(const dkv_host *), int64_t until_ns) {
    bool more = true;
    while (!host->failure && !done(host) && host->now_ns < until_ns) {
        more = run_round(host, more ? 0 : min(until_ns, dkv_node_next_timer(host->node)));
    }
    return !host->failure && done(host);
}

static bool stop_was_asked(const dkv_host *host) {
    return atomic_load(&host->stop_asked);
}

static bool is_idle(const dkv_host *host) {
    return dkv_node_idle(host->node) && host->jobs_out == 0 && !host->waiting;
}

static bool is_silent(const dkv_host *host) {
    return is_idle(host) && !host->pairs && !host->watches;
}

static bool has_no_jobs(const dkv_host *host) {
    return host->jobs_out == 0;
}

static void close_store(dkv_host *host) {
    int err = dkv_store_close_clean(dkv_node_store(host->node), dkv_disk_run_now, host->disk);
    if (err) {
        dkv_host_say(host, DKV_LOG_WARN,
                     "the index could not be written (%s): the next start reads the whole log",
                     dkv_err_sentence(err));
    }
}

/* What is under way is answered and sent, then everything is on disk. */
static void stop_in_order(dkv_host *host) {
    dkv_host_say(host, DKV_LOG_INFO, "stopping");
    host->stopping = true;
    dkv_watches_finish(host);
    dkv_host_refresh_clock(host);
    int64_t limit_ns = host->now_ns + dkv_ns_of_ms(STOP_MS);
    run_until(host, is_idle, limit_ns);
    dkv_links_end(host);
    dkv_pairs_finish(host);
    run_until(host, is_silent, limit_ns);
    if (run_until(host, has_no_jobs, limit_ns + dkv_ns_of_ms(STOP_JOBS_MS))) {
        close_store(host);
    } else if (!host->failure) {
        dkv_host_say(host, DKV_LOG_WARN, "the disk is busy: the next start reads the whole log");
    }
}

int dkv_host_run(dkv_host *host) {
    dkv_host_refresh_clock(host);
    run_until(host, stop_was_asked, INT64_MAX);
    if (!host->failure) stop_in_order(host);
    host->deaf = true;
    if (host->failure) return host->failure;
    dkv_host_say(host, DKV_LOG_INFO, "stopped");
    return DKV_OK;
}

void dkv_host_stop(dkv_host *host) {
    atomic_store(&host->stop_asked, true);
    dkv_rpc_loop_wake(host->loop);
}

void dkv_host_del(dkv_host *host) {
    if (!host) return;
    host->deaf = true;
    host->stopping = true;
    dkv_host_drop_requests(host);
    dkv_links_end(host);
    dkv_disk_del(host->disk); /* its threads wake the loop */
    dkv_rpc_server_del(host->server);
    dkv_rpc_loop_del(host->loop); /* calls what callbacks are left */
    dkv_pairs_flush(host);        /* these two drop what waited for them */
    dkv_pairs_take(host);
    dkv_node_del(host->node); /* owns the memory of disk jobs */
    dkv_map_free(&host->link_lanes);
    dkv_map_free(&host->session_lanes);
    dkv_buf_free(&host->scratch);
    free(host->inline_done);
    free(host);
}
