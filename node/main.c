/* dkv-node: one node of a cluster as a process. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "config.h"
#include "host/host.h"
#include "options.h"

/* ---- log ---- */

/* One line to standard error; `user` is the level of what matters least. */
static void log_line(void *user, dkv_log_level level, const char *text) {
    static const char *const names[] = {"error", "warn", "info", "debug"};
    const dkv_log_level *least = user;
    if (level > *least) return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char when[32];
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    fprintf(stderr, "%s.%03ldZ %-5s %s\n", when, now.tv_nsec / 1000000, names[level], text);
}

/* ---- signals ---- */

static sigset_t stop_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

/* Signals are waited for in a thread of their own, where everything may be called. */
static void *wait_for_signal(void *user) {
    sigset_t set = stop_signals();
    int number;
    sigwait(&set, &number);
    dkv_host_stop(user);
    return NULL;
}

/* ---- the node ---- */

static int exit_status(int err) {
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

static int run(dkv_host *host) {
    pthread_t signals;
    if (pthread_create(&signals, NULL, wait_for_signal, host)) return DKV_ERR_NO_MEMORY;
    int err = dkv_host_run(host);
    pthread_cancel(signals);
    pthread_join(signals, NULL);
    return err;
}

static int serve(const dkv_config *config, dkv_options *options) {
    dkv_host_options host_options = {
        .map = config->map,
        .id = config->node,
        .listen = config->listen,
        .data_dir = config->data,
        .insecure = options->insecure,
        .timing = config->timing,
        .log = log_line,
        .log_user = &options->log_level,
    };
    char why[DKV_DETAIL_MAX];
    dkv_host *host;
    int err = dkv_host_new(&host_options, &host, why);
    if (err) {
        log_line(&options->log_level, DKV_LOG_ERROR, why);
        return err;
    }
    err = run(host);
    dkv_host_del(host);
    return err;
}

static void print_summary(const char *path, const dkv_config *config) {
    printf("%s: node %s of cluster %s, N = %u, %u nodes, data in %s\n", path, config->node,
           config->map->cluster, config->map->replication, config->map->n_members, config->data);
}

int main(int argc, char **argv) {
    dkv_options options;
    int status;
    if (!dkv_options_read(argc, argv, &options, &status)) return status;
    dkv_config config;
    char why[DKV_CONFIG_WHY_MAX];
    int err = dkv_config_load(options.config, &config, why);
    if (err) {
        fprintf(stderr, "dkv-node: %s\n", why);
        return exit_status(err);
    }
    if (options.check) {
        print_summary(options.config, &config);
    } else {
        /* Blocked before there is a second thread, so that all threads inherit it. */
        sigset_t set = stop_signals();
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        signal(SIGPIPE, SIG_IGN);
        err = serve(&config, &options);
    }
    dkv_config_free(&config);
    return exit_status(err);
}
