/* The owner thread's loop and its end.
 *
 * A round: wait for completions of gRPC (or a timer, or the disk's wake) and handle some; each may
 * step the node. Then give finished disk jobs back and send a TICK, which hands out new ones, until
 * none completes at once any more. Then send what has been queued, so that all that one round made
 * for one stream leaves in one message. */
#include "host/host.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "host/internal.h"

#define COMPLETIONS_MAX 16u /* of gRPC in one round: answers wait for its end */
#define DISK_PASSES_MAX 8u  /* in one round: a long merge must not keep requests waiting */
#define STOP_MS 2000u       /* how long a stop waits for what is under way */
#define STOP_JOBS_MS 3000u  /* ... and then for the disk */

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
        char text[DKV_DETAIL_MAX];
        snprintf(text, sizeof text,
                 "the index could not be written (%s): the next start reads the whole log",
                 dkv_err_sentence(err));
        dkv_host_say(host, DKV_LOG_WARN, "index_not_written", text);
    }
}

/* What is under way is answered and sent, then everything is on disk. */
static void stop_in_order(dkv_host *host) {
    dkv_host_say(host, DKV_LOG_INFO, "stopping", "stopping: answering what is under way");
    host->stopping = true;
    dkv_watches_finish(host);
    dkv_host_refresh_clock(host);
    dkv_host_step(host, (dkv_event){.kind = DKV_EVENT_STOP});
    int64_t limit_ns = host->now_ns + dkv_ns_of_ms(STOP_MS);
    run_until(host, is_idle, limit_ns);
    dkv_links_end(host);
    dkv_pairs_finish(host);
    run_until(host, is_silent, limit_ns);
    if (run_until(host, has_no_jobs, limit_ns + dkv_ns_of_ms(STOP_JOBS_MS))) {
        close_store(host);
    } else if (!host->failure) {
        dkv_host_say(host, DKV_LOG_WARN, "index_not_written",
                     "the disk is busy: the next start reads the whole log");
    }
}

int dkv_host_run(dkv_host *host) {
    dkv_host_refresh_clock(host);
    run_until(host, stop_was_asked, INT64_MAX);
    if (!host->failure) stop_in_order(host);
    host->deaf = true;
    if (host->failure) return host->failure;
    dkv_host_say(host, DKV_LOG_INFO, "stopped", "stopped");
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
