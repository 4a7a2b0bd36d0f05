/* The configuration file of dkv-node: YAML, read once at the start.
 *
 *   cluster: demo               # nodes and stores of other clusters are refused
 *   replication: 3              # N, 1 to 5
 *   node: n1                    # which of the nodes below this is
 *   data: n1                    # directory, made if its parent exists; relative to this file
 *   listen: 127.0.0.1:7001      # optional; default: the node's address
 *   durability: always          # optional; or memory, or {interval: milliseconds}
 *   limits: {requests: 65536}   # optional; what one node may use, see limit_fields in config.c
 *   nodes:
 *     n1: {address: "127.0.0.1:7001", host: m1, zone: z1, weight: 1}
 *     n2: {address: "127.0.0.1:7002"}
 *   timing: {attempt_ms: 40}    # optional; the names of dkv_timing in csrc/model/effects.h
 *
 * Every key may stand once; others are errors. What is wrong, all of it at once, is told with file,
 * line and key. */
#ifndef DKV_NODE_CONFIG_H
#define DKV_NODE_CONFIG_H

#include "fields.h"
#include "host/host.h"

typedef struct dkv_config {
    dkv_cluster_map *map; /* epoch 1 */
    char *node;
    char *data;   /* relative to the working directory, or absolute */
    char *listen; /* NULL: the node's address */
    dkv_durability durability;
    uint32_t interval_ms; /* with DKV_DURABILITY_INTERVAL */
    dkv_host_limits limits;
    dkv_timing timing;
} dkv_config;

/* Reads the file at `path`. `node`, if it is not NULL, stands for what the file says under that
 * key. *out is owned by the caller, who frees it with dkv_config_free. On an error `wrongs` says
 * all that is wrong: INVALID, NO_MEMORY. */
int dkv_config_load(const char *path, const char *node, dkv_config *out, dkv_fields_wrongs *wrongs);

/* Accepts NULL. */
void dkv_config_free(dkv_config *config);

#endif
