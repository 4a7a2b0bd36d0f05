/* The configuration file of dkv-node: any bytes give a configuration that can be used, or a line
 * for each thing that is wrong. */
#include <sys/mman.h>
#include <unistd.h>

#include "../../node/config.h"
#include "base/err.h"
#include "fuzz.h"

static int file_with(const uint8_t *data, size_t size) {
    int file = memfd_create("dkv.yaml", 0);
    FUZZ_CHECK(file >= 0);
    FUZZ_CHECK(size == 0 || write(file, data, size) == (ssize_t)size);
    return file;
}

static void check_config(const dkv_config *config) {
    FUZZ_CHECK(dkv_cluster_map_check(config->map, NULL, 0) == DKV_OK);
    FUZZ_CHECK(dkv_cluster_map_find(config->map, config->node) >= 0);
    FUZZ_CHECK(config->data && config->data[0]);
    for (unsigned i = 0; i < config->map->n_members; i++) {
        FUZZ_CHECK(dkv_member_check(&config->map->members[i], NULL, 0) == DKV_OK);
        FUZZ_CHECK(config->map->members[i].address[0]);
    }
}

static void check_wrongs(const char *path, const dkv_fields_wrongs *wrongs) {
    FUZZ_CHECK(wrongs->n >= 1 && wrongs->n <= DKV_FIELDS_WRONGS_MAX);
    for (size_t i = 0; i < wrongs->n; i++) {
        size_t len = strnlen(wrongs->why[i], DKV_FIELDS_WHY_MAX);
        FUZZ_CHECK(len < DKV_FIELDS_WHY_MAX);
        FUZZ_CHECK(strncmp(wrongs->why[i], path, strlen(path)) == 0 && len > strlen(path));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[32];
    dkv_fields_wrongs wrongs;
    dkv_config config;
    int file = file_with(data, size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    int err = dkv_config_load(path, NULL, &config, &wrongs);
    FUZZ_CHECK(err == DKV_OK || err == DKV_ERR_INVALID);
    if (err) {
        check_wrongs(path, &wrongs);
    } else {
        check_config(&config);
        dkv_config_free(&config);
    }
    close(file);
    return 0;
}

static void seeds(void) {
    static const char *texts[] = {
        "cluster: demo\nreplication: 3\nnode: n1\ndata: n1\nlisten: 127.0.0.1:7001\nnodes:\n"
        "  n1: {address: \"127.0.0.1:7001\", host: m1, zone: z1, weight: 1}\n"
        "  n2: {address: \"127.0.0.1:7002\"}\n  n3: {address: \"127.0.0.1:7003\"}\n"
        "timing: {attempt_ms: 40}\n",
        "{cluster: c, replication: 1, node: n1, data: /d, nodes: {n1: {address: \"h:1\"}}}",
        "cluster: c\nreplication: 9\n",
        "cluster: [a]\n",
        "nodes: &x\n  a: *x\n",
        "? {a: b}\n: c\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) fuzz_seed(dkv_slice_of(texts[i]));
}

FUZZ_TARGET
