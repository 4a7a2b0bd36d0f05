#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "replica/replica.h"

#define TIMING_MAX_MS 600000u
#define MIB (UINT64_C(1) << 20)
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

typedef struct reading {
    dkv_config *config;
    const char *node_wanted;        /* instead of what the file says; may be NULL */
    const yaml_node_t *replication; /* where they stand, for checks that need the whole file */
    const yaml_node_t *node;
    const yaml_node_t *patience; /* ping_ms or silence_ms, the one that stands last */
    bool knows_replication;      /* it was read without errors */
    bool knows_nodes;
    dkv_member *member; /* the one being read */
} reading;

static reading *reading_of(const dkv_fields_file *file) {
    return file->user;
}

/* ---- nodes ---- */

/* Checks one text of the member alone, so that the line is the right one. A wrong one is dropped,
 * lest the next be blamed for it. */
static int read_member_text(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                            void *to) {
    char reason[160];
    char **text = to;
    int err = dkv_fields_string(file, key, value, text);
    if (err || dkv_member_check(reading_of(file)->member, reason, sizeof reason) == DKV_OK)
        return err;
    err = dkv_fields_wrong(file, value, "%s: \"%.80s\" is not allowed: %s", key, *text, reason);
    free(*text);
    *text = NULL;
    return err;
}

static int read_weight(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    uint32_t weight = 0;
    int err = dkv_fields_number(file, key, value, 1, DKV_WEIGHT_MAX, &weight);
    if (err) return err;
    uint16_t narrow = (uint16_t)weight;
    memcpy(to, &narrow, sizeof narrow);
    return DKV_OK;
}

static const dkv_field member_fields[] = {
    {"address", true, read_member_text, offsetof(dkv_member, address)},
    {"host", false, read_member_text, offsetof(dkv_member, host)},
    {"zone", false, read_member_text, offsetof(dkv_member, zone)},
    {"weight", false, read_weight, offsetof(dkv_member, weight)},
};

static int add_member(dkv_fields_file *file, const yaml_node_t *at, const dkv_member *member) {
    dkv_cluster_map *map = reading_of(file)->config->map;
    for (size_t i = 0; i < map->n_members; i++) {
        if (strcmp(map->members[i].address, member->address) != 0) continue;
        return dkv_fields_wrong(file, at, "nodes: %s has the address of %s, %s", member->id,
                                map->members[i].id, member->address);
    }
    int err = dkv_cluster_map_add(map, member);
    return err == DKV_ERR_NO_MEMORY ? dkv_fields_no_memory(file) : err;
}

static int read_member(dkv_fields_file *file, const yaml_node_t *nodes, size_t i) {
    const yaml_node_pair_t *pair = &nodes->data.mapping.pairs.start[i];
    const yaml_node_t *at = dkv_fields_node(file, pair->key);
    const char *id = dkv_fields_key(file, nodes, "nodes", i);
    if (!id) return DKV_ERR_INVALID;
    char reason[160];
    dkv_member member = {.id = (char *)id};
    if (dkv_member_check(&member, reason, sizeof reason)) {
        return dkv_fields_wrong(file, at, "nodes: \"%.80s\" is not allowed: %s", id, reason);
    }
    char what[DKV_NAME_MAX + 8];
    snprintf(what, sizeof what, "node %s", id);
    reading_of(file)->member = &member;
    int err = dkv_fields_mapping(file, dkv_fields_node(file, pair->value), what, member_fields,
                                 COUNT(member_fields), &member);
    if (!err) err = add_member(file, at, &member);
    free(member.address);
    free(member.host);
    free(member.zone);
    return err;
}

static int read_nodes(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    (void)to;
    if (value->type != YAML_MAPPING_NODE) {
        return dkv_fields_wrong(file, value, "%s: \"id: {address: ...}\" pairs are expected", key);
    }
    if (dkv_fields_n_pairs(value) < 1 || dkv_fields_n_pairs(value) > DKV_MEMBERS_MAX) {
        return dkv_fields_wrong(file, value, "%s: 1 to %u nodes are allowed, not %zu", key,
                                DKV_MEMBERS_MAX, dkv_fields_n_pairs(value));
    }
    int err = DKV_OK;
    for (size_t i = 0; i < dkv_fields_n_pairs(value) && !dkv_fields_is_full(file); i++) {
        int member_err = read_member(file, value, i);
        if (member_err == DKV_ERR_NO_MEMORY) return member_err;
        if (member_err) err = member_err;
    }
    reading_of(file)->knows_nodes = !err;
    return err;
}

/* ---- what one node does by itself ---- */

static int read_interval(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                         void *to) {
    return dkv_fields_number(file, key, value, 1, DKV_INTERVAL_MAX_MS, to);
}

static int read_durability(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                           void *to) {
    static const dkv_field fields[] = {
        {"interval", true, read_interval, offsetof(dkv_config, interval_ms)},
    };
    dkv_config *config = to;
    if (value->type == YAML_MAPPING_NODE) {
        config->durability = DKV_DURABILITY_INTERVAL;
        return dkv_fields_mapping(file, value, key, fields, COUNT(fields), config);
    }
    const char *text = dkv_fields_text(file, key, value);
    if (!text) return DKV_ERR_INVALID;
    config->durability =
        strcmp(text, "memory") == 0 ? DKV_DURABILITY_MEMORY : DKV_DURABILITY_ALWAYS;
    if (config->durability || strcmp(text, "always") == 0) return DKV_OK;
    return dkv_fields_wrong(
        file, value, "%s: \"%.80s\" is not always, memory or {interval: milliseconds}", key, text);
}

static int read_requests(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                         void *to) {
    return dkv_fields_number(file, key, value, DKV_HOST_REQUESTS_MIN, DKV_REQUESTS_MAX, to);
}

static int read_request_memory(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                               void *to) {
    return dkv_fields_size(file, key, value, 8 * MIB, 16384 * MIB, to);
}

static int read_receive_memory(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                               void *to) {
    return dkv_fields_size(file, key, value, 32 * MIB, 65536 * MIB, to);
}

static int read_write_memory(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                             void *to) {
    return dkv_fields_size(file, key, value, 8 * MIB, 1024 * MIB, to);
}

static int read_segment(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                        void *to) {
    uint64_t size = 0;
    int err = dkv_fields_size(file, key, value, 4 * MIB, 1024 * MIB, &size);
    if (err) return err;
    uint32_t narrow = (uint32_t)size;
    memcpy(to, &narrow, sizeof narrow);
    return DKV_OK;
}

static int read_cache_memory(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                             void *to) {
    return dkv_fields_size(file, key, value, MIB, 65536 * MIB, to);
}

static int read_scrub(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    return dkv_fields_size(file, key, value, MIB, 1024 * MIB, to);
}

static const dkv_field limit_fields[] = {
    {"requests", false, read_requests, offsetof(dkv_host_limits, requests)},
    {"request_memory", false, read_request_memory, offsetof(dkv_host_limits, request_bytes)},
    {"receive_memory", false, read_receive_memory, offsetof(dkv_host_limits, received_bytes)},
    {"write_memory", false, read_write_memory, offsetof(dkv_host_limits, unsynced_bytes)},
    {"cache_memory", false, read_cache_memory, offsetof(dkv_host_limits, cache_bytes)},
    {"segment", false, read_segment, offsetof(dkv_host_limits, segment_bytes)},
    {"scrub", false, read_scrub, offsetof(dkv_host_limits, scrub_bytes_per_s)},
};

static int read_limits(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    return dkv_fields_mapping(file, value, key, limit_fields, COUNT(limit_fields), to);
}

static int read_time(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    return dkv_fields_number(file, key, value, 1, TIMING_MAX_MS, to);
}

static int read_patience(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                         void *to) {
    reading_of(file)->patience = value;
    return read_time(file, key, value, to);
}

static const dkv_field timing_fields[] = {
    {"attempt_ms", false, read_time, offsetof(dkv_timing, attempt_ms)},
    {"connect_ms", false, read_time, offsetof(dkv_timing, connect_ms)},
    {"ping_ms", false, read_patience, offsetof(dkv_timing, ping_ms)},
    {"silence_ms", false, read_patience, offsetof(dkv_timing, silence_ms)},
    {"retry_ms", false, read_time, offsetof(dkv_timing, retry_ms)},
    {"idle_ms", false, read_time, offsetof(dkv_timing, idle_ms)},
};

static int read_timing(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    int err = dkv_fields_mapping(file, value, key, timing_fields, COUNT(timing_fields), to);
    if (err) return err;
    const dkv_timing *given = to;
    dkv_timing timing = dkv_timing_or_default(*given);
    if (timing.ping_ms < timing.silence_ms) return DKV_OK;
    return dkv_fields_wrong(
        file, reading_of(file)->patience,
        "%s: ping_ms (%u%s) must be less than silence_ms (%u%s): a peer is asked for a sign of "
        "life before it is taken for dead",
        key, timing.ping_ms, given->ping_ms ? "" : ", the default", timing.silence_ms,
        given->silence_ms ? "" : ", the default");
}

static int read_listen(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    char *text = NULL;
    int err = dkv_fields_string(file, key, value, &text);
    if (err) return err;
    memcpy(to, &text, sizeof text);
    if (dkv_member_check(&(dkv_member){.id = "any", .address = text}, NULL, 0) == DKV_OK) return 0;
    return dkv_fields_wrong(file, value,
                            "%s: \"%.80s\" is not allowed: an address is \"host:port\", the port "
                            "from 1 to 65535",
                            key, text);
}

/* ---- the whole file ---- */

static int read_cluster(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                        void *to) {
    (void)to;
    const char *name = dkv_fields_text(file, key, value);
    if (!name) return DKV_ERR_INVALID;
    dkv_cluster_map *named = NULL;
    int err = dkv_cluster_map_new(name, 1, &named);
    if (err == DKV_ERR_NO_MEMORY) return dkv_fields_no_memory(file);
    if (err) {
        return dkv_fields_wrong(file, value,
                                "%s: \"%.80s\" is not 1 to %u characters of A-Z a-z 0-9 . _ -", key,
                                name, DKV_NAME_MAX);
    }
    dkv_cluster_map *map = reading_of(file)->config->map;
    char *unnamed = map->cluster;
    map->cluster = named->cluster;
    named->cluster = unnamed;
    dkv_cluster_map_del(named);
    return DKV_OK;
}

static int read_replication(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                            void *to) {
    (void)to;
    uint32_t replication = 0;
    int err = dkv_fields_number(file, key, value, 1, DKV_REPLICATION_MAX, &replication);
    reading_of(file)->config->map->replication = (uint8_t)replication;
    reading_of(file)->replication = value;
    reading_of(file)->knows_replication = !err;
    return err;
}

static int read_own_id(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    reading_of(file)->node = value;
    return dkv_fields_string(file, key, value, to);
}

static const dkv_field file_fields[] = {
    {"cluster", true, read_cluster, 0},
    {"replication", true, read_replication, 0},
    {"node", false, read_own_id, offsetof(dkv_config, node)},
    {"data", true, dkv_fields_string, offsetof(dkv_config, data)},
    {"listen", false, read_listen, offsetof(dkv_config, listen)},
    {"durability", false, read_durability, 0},
    {"limits", false, read_limits, offsetof(dkv_config, limits)},
    {"nodes", true, read_nodes, 0},
    {"timing", false, read_timing, offsetof(dkv_config, timing)},
};

/* Makes `data` relative to the directory of the file. */
static int place_data(dkv_fields_file *file, dkv_config *config) {
    const char *slash = strrchr(file->path, '/');
    if (config->data[0] == '/' || !slash) return DKV_OK;
    size_t prefix = (size_t)(slash - file->path) + 1;
    char *placed = malloc(prefix + strlen(config->data) + 1);
    if (!placed) return dkv_fields_no_memory(file);
    memcpy(placed, file->path, prefix);
    strcpy(placed + prefix, config->data);
    free(config->data);
    config->data = placed;
    return DKV_OK;
}

/* Which node this is: as the command line says, else as the file says. */
static int place_node(dkv_fields_file *file, dkv_config *config) {
    const reading *r = reading_of(file);
    if (r->node_wanted) {
        free(config->node);
        config->node = strdup(r->node_wanted);
        if (!config->node) return dkv_fields_no_memory(file);
    }
    if (!config->node && !r->node) {
        return dkv_fields_wrong(file, NULL,
                                "the key node is missing, which says which of the nodes this is "
                                "(--node ID says it, too)");
    }
    if (!config->node || !r->knows_nodes) return DKV_OK; /* what is wrong there was told */
    if (dkv_cluster_map_find(config->map, config->node) >= 0) return DKV_OK;
    return dkv_fields_wrong(file, r->node_wanted ? NULL : r->node,
                            "%s: \"%.80s\" is not one of the nodes of this file",
                            r->node_wanted ? "--node" : "node", config->node);
}

/* Once all nodes are known. */
static int check_replication(dkv_fields_file *file, const dkv_config *config) {
    const reading *r = reading_of(file);
    char reason[160];
    if (!r->knows_replication || !r->knows_nodes) return DKV_OK; /* what is wrong there was told */
    if (dkv_cluster_map_check(config->map, reason, sizeof reason) == DKV_OK) return DKV_OK;
    return dkv_fields_wrong(file, r->replication, "replication: %s", reason);
}

static int read_document(dkv_fields_file *file, const yaml_node_t *root) {
    dkv_config *config = reading_of(file)->config;
    int err =
        dkv_fields_mapping(file, root, "configuration", file_fields, COUNT(file_fields), config);
    if (root->type != YAML_MAPPING_NODE || err == DKV_ERR_NO_MEMORY) return err;
    int replication_err = check_replication(file, config);
    int node_err = place_node(file, config);
    if (!err) err = replication_err;
    if (!err) err = node_err;
    return err ? err : place_data(file, config);
}

int dkv_config_load(const char *path, const char *node, dkv_config *out,
                    dkv_fields_wrongs *wrongs) {
    dkv_config config = {0};
    reading r = {.config = &config, .node_wanted = node};
    int err = dkv_cluster_map_new("unnamed", 1, &config.map);
    if (err) {
        *wrongs = (dkv_fields_wrongs){.n = 1, .why = {"out of memory"}};
        return err;
    }
    config.map->epoch = 1;
    err = dkv_fields_load(path, wrongs, &r, read_document);
    if (err) {
        dkv_config_free(&config);
    } else {
        *out = config;
    }
    return err;
}

void dkv_config_free(dkv_config *config) {
    if (!config) return;
    dkv_cluster_map_del(config->map);
    free(config->node);
    free(config->data);
    free(config->listen);
    *config = (dkv_config){0};
}
