#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/err.h"

#define TIMING_MAX_MS 600000u
#define FIELDS_MAX 8u

typedef struct reading {
    const char *path;
    yaml_document_t document;
    dkv_config *config;
    const yaml_node_t *replication; /* where they stand, for checks that need the whole file */
    const yaml_node_t *node;
    dkv_member *member; /* the one being read */
    char *why;
} reading;

/* A key that a mapping may have. */
typedef struct field {
    const char *key;
    bool required;
    int (*read)(reading *r, const char *key, const yaml_node_t *value, void *to);
    size_t offset; /* of what it sets, in the struct that the mapping describes */
} field;

/* ---- saying what is wrong ---- */

/* Says it of the line where `at` stands (NULL: of the file), and returns INVALID. */
__attribute__((format(printf, 3, 4))) static int wrong(reading *r, const yaml_node_t *at,
                                                       const char *format, ...) {
    char what[DKV_CONFIG_WHY_MAX / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (at) {
        snprintf(r->why, DKV_CONFIG_WHY_MAX, "%.300s:%zu: %s", r->path, at->start_mark.line + 1,
                 what);
    } else {
        snprintf(r->why, DKV_CONFIG_WHY_MAX, "%.300s: %s", r->path, what);
    }
    return DKV_ERR_INVALID;
}

static int no_memory(reading *r) {
    snprintf(r->why, DKV_CONFIG_WHY_MAX, "out of memory");
    return DKV_ERR_NO_MEMORY;
}

static void list_keys(const field *fields, size_t n, char *to, size_t size) {
    size_t at = 0;
    for (size_t i = 0; i < n && at < size; i++) {
        at += (size_t)snprintf(to + at, size - at, "%s%s", i ? ", " : "", fields[i].key);
    }
}

/* ---- values ---- */

/* The text of a scalar, or NULL after saying that there is none. */
static const char *text_of(reading *r, const char *key, const yaml_node_t *value) {
    const char *text = (const char *)value->data.scalar.value;
    if (value->type != YAML_SCALAR_NODE || strlen(text) != value->data.scalar.length) {
        wrong(r, value, "%s: a single value is expected", key);
        return NULL;
    }
    return text;
}

static int read_number(reading *r, const char *key, const yaml_node_t *value, uint32_t max,
                       uint32_t *out) {
    const char *text = text_of(r, key, value);
    if (!text) return DKV_ERR_INVALID;
    size_t digits = strspn(text, "0123456789");
    unsigned long number = strtoul(text, NULL, 10);
    if (digits < 1 || digits > 9 || text[digits] || number < 1 || number > max) {
        return wrong(r, value, "%s: \"%.80s\" is not a whole number from 1 to %u", key, text, max);
    }
    *out = (uint32_t)number;
    return DKV_OK;
}

static int read_text(reading *r, const char *key, const yaml_node_t *value, void *to) {
    const char *text = text_of(r, key, value);
    if (!text) return DKV_ERR_INVALID;
    if (!text[0]) return wrong(r, value, "%s: the value is missing", key);
    char *copy = strdup(text);
    if (!copy) return no_memory(r);
    memcpy(to, &copy, sizeof copy);
    return DKV_OK;
}

static int read_time(reading *r, const char *key, const yaml_node_t *value, void *to) {
    return read_number(r, key, value, TIMING_MAX_MS, to);
}

/* ---- mappings ---- */

static const yaml_node_t *node_at(reading *r, int index) {
    return yaml_document_get_node(&r->document, index);
}

static size_t count_pairs(const yaml_node_t *mapping) {
    return (size_t)(mapping->data.mapping.pairs.top - mapping->data.mapping.pairs.start);
}

/* The key of the i-th pair, or NULL after saying what is wrong with it: no text, or repeated. */
static const char *key_at(reading *r, const yaml_node_t *mapping, const char *what, size_t i) {
    const yaml_node_pair_t *pairs = mapping->data.mapping.pairs.start;
    const yaml_node_t *node = node_at(r, pairs[i].key);
    const char *key = text_of(r, what, node);
    for (size_t k = 0; key && k < i; k++) {
        const yaml_node_t *other = node_at(r, pairs[k].key);
        if (strcmp((const char *)other->data.scalar.value, key) != 0) continue;
        wrong(r, node, "%s: the key %.80s stands twice", what, key);
        return NULL;
    }
    return key;
}

static int read_field(reading *r, const yaml_node_t *mapping, const char *what, size_t i,
                      const field *fields, size_t n_fields, bool *present, void *to) {
    const yaml_node_pair_t *pair = &mapping->data.mapping.pairs.start[i];
    const char *key = key_at(r, mapping, what, i);
    if (!key) return DKV_ERR_INVALID;
    for (size_t k = 0; k < n_fields; k++) {
        if (strcmp(fields[k].key, key) != 0) continue;
        present[k] = true;
        return fields[k].read(r, key, node_at(r, pair->value), (char *)to + fields[k].offset);
    }
    char allowed[200];
    list_keys(fields, n_fields, allowed, sizeof allowed);
    return wrong(r, node_at(r, pair->key), "%s: unknown key %.80s; allowed are %s", what, key,
                 allowed);
}

/* Reads a mapping whose keys are those of `fields` into the struct `to`. */
static int read_mapping(reading *r, const yaml_node_t *mapping, const char *what,
                        const field *fields, size_t n_fields, void *to) {
    bool present[FIELDS_MAX] = {false};
    if (mapping->type != YAML_MAPPING_NODE) {
        return wrong(r, mapping, "%s: \"key: value\" pairs are expected", what);
    }
    for (size_t i = 0; i < count_pairs(mapping); i++) {
        int err = read_field(r, mapping, what, i, fields, n_fields, present, to);
        if (err) return err;
    }
    for (size_t k = 0; k < n_fields; k++) {
        if (!fields[k].required || present[k]) continue;
        return wrong(r, mapping, "%s: the key %s is missing", what, fields[k].key);
    }
    return DKV_OK;
}

/* ---- nodes ---- */

/* Checks one text of the member alone, so that the line is the right one. */
static int read_member_text(reading *r, const char *key, const yaml_node_t *value, void *to) {
    char reason[160];
    int err = read_text(r, key, value, to);
    if (err || dkv_member_check(r->member, reason, sizeof reason) == DKV_OK) return err;
    return wrong(r, value, "%s: \"%.80s\" is not allowed: %s", key, text_of(r, key, value), reason);
}

static int read_weight(reading *r, const char *key, const yaml_node_t *value, void *to) {
    uint32_t weight = 0;
    int err = read_number(r, key, value, DKV_WEIGHT_MAX, &weight);
    if (err) return err;
    uint16_t narrow = (uint16_t)weight;
    memcpy(to, &narrow, sizeof narrow);
    return DKV_OK;
}

static const field member_fields[] = {
    {"address", true, read_member_text, offsetof(dkv_member, address)},
    {"host", false, read_member_text, offsetof(dkv_member, host)},
    {"zone", false, read_member_text, offsetof(dkv_member, zone)},
    {"weight", false, read_weight, offsetof(dkv_member, weight)},
};

static int add_member(reading *r, const yaml_node_t *at, const dkv_member *member) {
    dkv_cluster_map *map = r->config->map;
    for (size_t i = 0; i < map->n_members; i++) {
        if (strcmp(map->members[i].address, member->address) != 0) continue;
        return wrong(r, at, "nodes: %s has the address of %s, %s", member->id, map->members[i].id,
                     member->address);
    }
    int err = dkv_cluster_map_add(map, member);
    return err == DKV_ERR_NO_MEMORY ? no_memory(r) : err;
}

static int read_member(reading *r, const yaml_node_t *nodes, size_t i) {
    const yaml_node_pair_t *pair = &nodes->data.mapping.pairs.start[i];
    const yaml_node_t *at = node_at(r, pair->key);
    const char *id = key_at(r, nodes, "nodes", i);
    if (!id) return DKV_ERR_INVALID;
    char reason[160];
    dkv_member member = {.id = (char *)id};
    if (dkv_member_check(&member, reason, sizeof reason)) {
        return wrong(r, at, "nodes: \"%.80s\" is not allowed: %s", id, reason);
    }
    char what[DKV_NAME_MAX + 8];
    snprintf(what, sizeof what, "node %s", id);
    r->member = &member;
    int err = read_mapping(r, node_at(r, pair->value), what, member_fields,
                           sizeof member_fields / sizeof *member_fields, &member);
    if (!err) err = add_member(r, at, &member);
    free(member.address);
    free(member.host);
    free(member.zone);
    return err;
}

static int read_nodes(reading *r, const char *key, const yaml_node_t *value, void *to) {
    (void)to;
    if (value->type != YAML_MAPPING_NODE) {
        return wrong(r, value, "%s: \"id: {address: ...}\" pairs are expected", key);
    }
    if (count_pairs(value) < 1 || count_pairs(value) > DKV_MEMBERS_MAX) {
        return wrong(r, value, "%s: 1 to %u nodes are allowed, not %zu", key, DKV_MEMBERS_MAX,
                     count_pairs(value));
    }
    for (size_t i = 0; i < count_pairs(value); i++) {
        int err = read_member(r, value, i);
        if (err) return err;
    }
    return DKV_OK;
}

/* ---- the whole file ---- */

static int read_cluster(reading *r, const char *key, const yaml_node_t *value, void *to) {
    (void)to;
    const char *name = text_of(r, key, value);
    if (!name) return DKV_ERR_INVALID;
    dkv_cluster_map *named = NULL;
    int err = dkv_cluster_map_new(name, 1, &named);
    if (err == DKV_ERR_NO_MEMORY) return no_memory(r);
    if (err) {
        return wrong(r, value, "%s: \"%.80s\" is not 1 to %u characters of A-Z a-z 0-9 . _ -", key,
                     name, DKV_NAME_MAX);
    }
    char *unnamed = r->config->map->cluster;
    r->config->map->cluster = named->cluster;
    named->cluster = unnamed;
    dkv_cluster_map_del(named);
    return DKV_OK;
}

static int read_replication(reading *r, const char *key, const yaml_node_t *value, void *to) {
    (void)to;
    uint32_t replication = 0;
    int err = read_number(r, key, value, DKV_REPLICATION_MAX, &replication);
    r->config->map->replication = (uint8_t)replication;
    r->replication = value;
    return err;
}

static int read_own_id(reading *r, const char *key, const yaml_node_t *value, void *to) {
    r->node = value;
    return read_text(r, key, value, to);
}

static const field timing_fields[] = {
    {"attempt_ms", false, read_time, offsetof(dkv_timing, attempt_ms)},
    {"connect_ms", false, read_time, offsetof(dkv_timing, connect_ms)},
    {"ping_ms", false, read_time, offsetof(dkv_timing, ping_ms)},
    {"silence_ms", false, read_time, offsetof(dkv_timing, silence_ms)},
    {"retry_ms", false, read_time, offsetof(dkv_timing, retry_ms)},
    {"idle_ms", false, read_time, offsetof(dkv_timing, idle_ms)},
};

static int read_timing(reading *r, const char *key, const yaml_node_t *value, void *to) {
    return read_mapping(r, value, key, timing_fields, sizeof timing_fields / sizeof *timing_fields,
                        to);
}

static const field file_fields[] = {
    {"cluster", true, read_cluster, 0},
    {"replication", true, read_replication, 0},
    {"node", true, read_own_id, offsetof(dkv_config, node)},
    {"data", true, read_text, offsetof(dkv_config, data)},
    {"listen", false, read_text, offsetof(dkv_config, listen)},
    {"nodes", true, read_nodes, 0},
    {"timing", false, read_timing, offsetof(dkv_config, timing)},
};

/* Makes `data` relative to the directory of the file. */
static int place_data(reading *r) {
    dkv_config *config = r->config;
    const char *slash = strrchr(r->path, '/');
    if (config->data[0] == '/' || !slash) return DKV_OK;
    size_t prefix = (size_t)(slash - r->path) + 1;
    char *placed = malloc(prefix + strlen(config->data) + 1);
    if (!placed) return no_memory(r);
    memcpy(placed, r->path, prefix);
    strcpy(placed + prefix, config->data);
    free(config->data);
    config->data = placed;
    return DKV_OK;
}

static int read_document(reading *r) {
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    if (!root) return wrong(r, NULL, "the file is empty");
    int err = read_mapping(r, root, "configuration", file_fields,
                           sizeof file_fields / sizeof *file_fields, r->config);
    if (err) return err;
    const dkv_cluster_map *map = r->config->map;
    char reason[160];
    if (dkv_cluster_map_check(map, reason, sizeof reason)) {
        return wrong(r, r->replication, "replication: %s", reason);
    }
    if (dkv_cluster_map_find(map, r->config->node) < 0) {
        return wrong(r, r->node, "node: \"%.80s\" is not one of the nodes of this file",
                     r->config->node);
    }
    return place_data(r);
}

static int parse(reading *r, const uint8_t *text, size_t len) {
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return no_memory(r);
    yaml_parser_set_input_string(&parser, text, len);
    int err;
    if (!yaml_parser_load(&parser, &r->document)) {
        snprintf(r->why, DKV_CONFIG_WHY_MAX, "%.300s:%zu: not valid YAML: %s", r->path,
                 parser.problem_mark.line + 1, parser.problem ? parser.problem : "out of memory");
        err = DKV_ERR_INVALID;
    } else {
        err = read_document(r);
        yaml_document_delete(&r->document);
    }
    yaml_parser_delete(&parser);
    return err;
}

/* Reads the file's bytes; *text is owned by the caller. */
static int read_file(reading *r, uint8_t **text, size_t *len) {
    FILE *file = fopen(r->path, "rb");
    if (!file) return wrong(r, NULL, "cannot be read: %s", strerror(errno));
    int err = DKV_OK;
    uint8_t *bytes = malloc(DKV_CONFIG_FILE_MAX + 1);
    if (!bytes) {
        err = no_memory(r);
        goto done;
    }
    *len = fread(bytes, 1, DKV_CONFIG_FILE_MAX + 1, file);
    if (ferror(file)) {
        err = wrong(r, NULL, "cannot be read: %s", strerror(errno));
    } else if (*len > DKV_CONFIG_FILE_MAX) {
        err = wrong(r, NULL, "larger than %u bytes", DKV_CONFIG_FILE_MAX);
    }
done:
    fclose(file);
    if (err) {
        free(bytes);
    } else {
        *text = bytes;
    }
    return err;
}

int dkv_config_load(const char *path, dkv_config *out, char *why) {
    dkv_config config = {0};
    reading r = {.path = path, .config = &config, .why = why};
    uint8_t *text = NULL;
    size_t len = 0;
    int err = read_file(&r, &text, &len);
    if (err) return err;
    err = dkv_cluster_map_new("unnamed", 1, &config.map);
    if (err) {
        no_memory(&r);
        goto done;
    }
    config.map->epoch = 1;
    err = parse(&r, text, len);
done:
    free(text);
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
