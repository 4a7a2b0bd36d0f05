/* dkv-node: one node of a cluster as a process, or several of them under a supervisor. */
#include <stdio.h>

#include "base/err.h"
#include "options.h"
#include "serve.h"
#include "supervise.h"

static void print_summary(const dkv_config *config, const dkv_options *options) {
    const dkv_cluster_map *map = config->map;
    printf("%s: node %s of cluster %s, N = %u, %u nodes, data in %s\n", options->config,
           config->node, map->cluster, map->replication, map->n_members, config->data);
    const char *listen = config->listen;
    if (!listen) listen = map->members[dkv_cluster_map_find(map, config->node)].address;
    if (options->insecure || dkv_address_is_loopback(listen)) return;
    printf(
        "note: %s is not a loopback address, so the node needs --insecure to start: whoever can "
        "connect can read and write all\n",
        listen);
}

static int run(const dkv_config *config, const dkv_options *options) {
    sigset_t signals = dkv_serve_block_signals();
    if (options->members) return dkv_supervise(config, options, signals);
    dkv_log log = {.node = config->node, .least = options->log_level, .json = options->json};
    return dkv_serve(&(dkv_serve_options){
        .config = config,
        .id = config->node,
        .data = config->data,
        .insecure = options->insecure,
        .signals = signals,
        .log = &log,
    });
}

int main(int argc, char **argv) {
    dkv_options options;
    int status;
    if (!dkv_options_read(argc, argv, &options, &status)) return status;
    dkv_config config;
    char why[DKV_CONFIG_WHY_MAX];
    int err = dkv_config_load(options.config, options.node, &config, why);
    if (err) {
        fprintf(stderr, "dkv-node: %s\n", why);
        return dkv_serve_status_of(err);
    }
    status = DKV_EXIT_OK;
    if (options.members && !dkv_supervise_check(&config, &options)) {
        status = DKV_EXIT_USAGE;
    } else if (options.check) {
        print_summary(&config, &options);
    } else {
        status = run(&config, &options);
    }
    dkv_config_free(&config);
    return status;
}
