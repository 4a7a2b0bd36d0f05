/* Stepping the node, and performing what it asks for that is no message: disk jobs, log, the end.
 *
 * The node must not be called while it is being stepped. A disk job that is performed inside
 * dkv_effects.disk is therefore put aside and given back after the step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "host/internal.h"

static int64_t ns_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void dkv_host_refresh_clock(dkv_host *host) {
    host->now_ns = ns_of(CLOCK_MONOTONIC);
    host->wall_ms = (uint64_t)ns_of(CLOCK_REALTIME) / 1000000;
}

void dkv_host_step(dkv_host *host, dkv_event event) {
    if (host->deaf || host->failure) return;
    event.now_ns = host->now_ns;
    event.wall_ms = host->wall_ms;
    dkv_node_step(host->node, &event, &host->effects);
}

void dkv_host_say(const dkv_host *host, dkv_log_level level, const char *event, const char *text) {
    host->log(host->log_user, &(dkv_notice){.level = level, .event = event, .text = text});
}

static void on_log(void *user, const dkv_notice *notice) {
    const dkv_host *host = user;
    host->log(host->log_user, notice);
}

void dkv_host_fatal(void *user, int err, const char *text) {
    dkv_host *host = user;
    if (host->failure) return;
    host->failure = err;
    int error = err == DKV_ERR_IO ? dkv_disk_last_errno(host->disk) : 0;
    char line[2 * DKV_DETAIL_MAX];
    snprintf(line, sizeof line, "%s%s%s", text, error ? "; check this disk: " : "",
             error ? strerror(error) : "");
    dkv_host_say(host, DKV_LOG_ERROR, "failed", line);
}

/* ---- disk jobs ---- */

static void on_disk(void *user, dkv_disk_job *job) {
    dkv_host *host = user;
    host->jobs_out++;
    if (!dkv_disk_submit(host->disk, job)) return;
    if (host->n_inline_done == host->cap_inline_done) {
        size_t cap = host->cap_inline_done ? 2 * host->cap_inline_done : 64;
        dkv_disk_job **grown = realloc(host->inline_done, cap * sizeof *grown);
        if (!grown) {
            dkv_host_fatal(host, DKV_ERR_NO_MEMORY, "out of memory for a disk job");
            return;
        }
        host->inline_done = grown;
        host->cap_inline_done = cap;
    }
    host->inline_done[host->n_inline_done++] = job;
}

static void give_back(dkv_host *host, dkv_disk_job *job) {
    host->jobs_out--;
    dkv_host_step(host, (dkv_event){.kind = DKV_EVENT_DISK_DONE, .job = job});
}

void dkv_host_finish_jobs(dkv_host *host) {
    /* A step may put further jobs aside: those stay for the next time. */
    size_t n = host->n_inline_done;
    for (size_t i = 0; i < n; i++) give_back(host, host->inline_done[i]);
    host->n_inline_done -= n;
    for (size_t i = 0; i < host->n_inline_done; i++) {
        host->inline_done[i] = host->inline_done[n + i];
    }
    dkv_disk_job *job;
    while ((job = dkv_disk_next_done(host->disk))) give_back(host, job);
}

dkv_effects dkv_host_effects(dkv_host *host) {
    return (dkv_effects){
        .user = host,
        .connect = dkv_host_connect,
        .close = dkv_host_close,
        .send = dkv_host_send,
        .reply = dkv_host_reply,
        .disk = on_disk,
        .log = on_log,
        .fatal = dkv_host_fatal,
    };
}
