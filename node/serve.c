#include "serve.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "options.h"

/* ---- signals ---- */

/* SIGHUP, a closed terminal, stops the program too, unless it was started to outlive that. */
static sigset_t stop_signals(void) {
    struct sigaction hang_up;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaction(SIGHUP, NULL, &hang_up);
    if (hang_up.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
    return set;
}

sigset_t dkv_serve_block_signals(void) {
    sigset_t set = stop_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return set;
}

int64_t dkv_serve_now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

typedef struct stopper {
    const dkv_serve_options *options;
    _Atomic(dkv_host *) host; /* NULL while it starts */
    atomic_bool asked;        /* to stop */
} stopper;

/* Signals are waited for in a thread of their own, where everything may be called. */
static void *wait_for_signals(void *user) {
    stopper *self = user;
    const dkv_log *log = self->options->log;
    sigset_t set = self->options->signals;
    int number;
    sigwait(&set, &number);
    atomic_store(&self->asked, true);
    dkv_host *host = atomic_load(&self->host);
    if (host) dkv_host_stop(host);
    if (self->options->supervised) return NULL;
    int64_t first_s = dkv_serve_now_s();
    do {
        sigwait(&set, &number);
    } while (dkv_serve_now_s() - first_s < DKV_SERVE_SAME_SIGNAL_S);
    dkv_log_say(log, DKV_LOG_WARN, "stopped_at_once",
                "stopped at once by a second signal: the next start reads the whole log");
    _exit(DKV_EXIT_FAILURE);
}

/* ---- the node ---- */

int dkv_serve_status_of(int err) {
    switch (err) {
    case DKV_OK: return DKV_EXIT_OK;
    case DKV_ERR_INVALID:
    case DKV_ERR_NOT_FOUND:
    case DKV_ERR_PERMISSION: return DKV_EXIT_USAGE;
    case DKV_ERR_LOCKED:
    case DKV_ERR_PRECONDITION:
    case DKV_ERR_EPOCH:
    case DKV_ERR_PROTOCOL: return DKV_EXIT_STORE;
    case DKV_ERR_IO:
    case DKV_ERR_NO_SPACE:
    case DKV_ERR_DATA_LOSS: return DKV_EXIT_DISK;
    case DKV_ERR_UNAVAILABLE: return DKV_EXIT_ADDRESS;
    default: return DKV_EXIT_FAILURE;
    }
}

static dkv_host_options host_options_of(const dkv_serve_options *options) {
    const dkv_config *config = options->config;
    return (dkv_host_options){
        .map = config->map,
        .id = options->id,
        .listen = config->listen,
        .data_dir = options->data,
        .insecure = options->insecure,
        .timing = config->timing,
        .limits = config->limits,
        .durability = config->durability,
        .interval_ms = config->interval_ms,
        .log = dkv_log_notice,
        .log_user = options->log,
    };
}

int dkv_serve_look(const dkv_serve_options *options, bool *missing) {
    dkv_host_options host_options = host_options_of(options);
    char why[DKV_DETAIL_MAX];
    int err = dkv_host_look(&host_options, missing, why);
    if (err) fprintf(stderr, "dkv-node: %s\n", why);
    return dkv_serve_status_of(err);
}

static int start_host(const dkv_serve_options *options, dkv_host **out) {
    dkv_host_options host_options = host_options_of(options);
    char why[DKV_DETAIL_MAX];
    int err = dkv_host_new(&host_options, out, why);
    if (err) dkv_log_say(options->log, DKV_LOG_ERROR, "start_failed", why);
    return err;
}

/* Large values come and go. Memory for them is kept, not given back to the kernel each time, which
 * hands it out again page by page, zeroed: that costs a sixth more CPU time for values of 1 MiB. */
static void keep_memory(void) {
    mallopt(M_MMAP_THRESHOLD, 16 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

int dkv_serve(const dkv_serve_options *options) {
    keep_memory();
    stopper self = {.options = options};
    pthread_t signals;
    if (pthread_create(&signals, NULL, wait_for_signals, &self)) return DKV_EXIT_FAILURE;
    dkv_host *host;
    int err = start_host(options, &host);
    if (!err) {
        atomic_store(&self.host, host);
        if (atomic_load(&self.asked)) dkv_host_stop(host);
        err = dkv_host_run(host);
    }
    /* From here on a second signal finds nothing to stop any more. */
    pthread_cancel(signals);
    pthread_join(signals, NULL);
    if (atomic_load(&self.host)) dkv_host_del(host);
    return dkv_serve_status_of(err);
}
