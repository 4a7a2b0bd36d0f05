/* dkv-node: one node of a cluster as a process, or several of them under a supervisor. */
#include <stdio.h>

#include "base/err.h"
#include "options.h"
#include "serve.h"
#include "supervise.h"

static void print_wrongs(const dkv_fields_wrongs *wrongs) {
    for (size_t i = 0; i < wrongs->n; i++) fprintf(stderr, "dkv-node: %s\n", wrongs->why[i]);
    if (wrongs->n < DKV_FIELDS_WRONGS_MAX) return;
    fprintf(stderr, "dkv-node: more may be wrong: these are the first %u\n", DKV_FIELDS_WRONGS_MAX);
}

static bool is_open_to_strangers(const dkv_config *config) {
    const dkv_cluster_map *map = config->map;
    const char *listen = config->listen;
    if (!listen) listen = map->members[dkv_cluster_map_find(map, config->node)].address;
    if (dkv_address_is_loopback(listen)) return false;
    fprintf(stderr,
            "dkv-node: %s is not a loopback address, so a start needs --insecure (give it to "
            "--check, too): whoever can connect can read and write all\n",
            listen);
    return true;
}

static void print_summary(const dkv_config *config, const dkv_options *options, bool missing) {
    const dkv_cluster_map *map = config->map;
    printf("%s: node %s of cluster %s, N = %u, %u nodes, data in %s%s\n", options->config,
           config->node, map->cluster, map->replication, map->n_members, config->data,
           missing ? " (made by the first start)" : "");
}

/* The summary tells that the file is right even if something else is not. */
static int check(const dkv_config *config, const dkv_options *options) {
    bool missing = false;
    dkv_serve_options look = {.config = config, .id = config->node, .data = config->data};
    int status = options->members ? dkv_supervise_look(config, options, &missing)
                                  : dkv_serve_look(&look, &missing);
    print_summary(config, options, missing);
    if (!options->insecure && is_open_to_strangers(config) && !status) status = DKV_EXIT_USAGE;
    return status;
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
    dkv_fields_wrongs wrongs;
    int err = dkv_config_load(options.config, options.node, &config, &wrongs);
    if (err) {
        print_wrongs(&wrongs);
        return dkv_serve_status_of(err);
    }
    status = DKV_EXIT_OK;
    if (options.members && !dkv_supervise_check(&config, &options)) {
        status = DKV_EXIT_USAGE;
    } else if (options.check) {
        status = check(&config, &options);
    } else {
        status = run(&config, &options);
    }
    dkv_config_free(&config);
    return status;
}
