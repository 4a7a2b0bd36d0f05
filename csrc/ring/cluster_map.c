#include "ring/cluster_map.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"

/* Writes the reason, if somebody wants it, and returns the code of a refusal. */
__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_size,
                                                        const char *format, ...) {
    if (why && why_size) {
        va_list args;
        va_start(args, format);
        vsnprintf(why, why_size, format, args);
        va_end(args);
    }
    return DKV_ERR_INVALID;
}

static bool is_empty(const char *text) {
    return !text || !*text;
}

static bool is_name(const char *text) {
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(text);
    return len >= 1 && len <= DKV_NAME_MAX && strspn(text, allowed) == len;
}

/* "host:port": visible ASCII before the last colon, a port of 1..65535 behind it. */
static bool is_address(const char *text) {
    if (strlen(text) > DKV_ADDRESS_MAX) return false;
    for (const char *c = text; *c; c++) {
        if (*c <= ' ' || *c > '~') return false;
    }
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text) return false;
    size_t digits = strspn(colon + 1, "0123456789");
    if (digits < 1 || digits > 5 || colon[1 + digits]) return false;
    unsigned long port = strtoul(colon + 1, NULL, 10);
    return port >= 1 && port <= 65535;
}

static int check_name(const char *what, const char *text, char *why, size_t why_size) {
    if (is_name(text)) return DKV_OK;
    return refuse(why, why_size, "%s must be 1 to %u characters of A-Z a-z 0-9 . _ -", what,
                  DKV_NAME_MAX);
}

static int check_token_indices(const dkv_member *member, char *why, size_t why_size) {
    const uint32_t *indices = member->token_indices;
    if (!indices) return DKV_OK;
    if (member->n_token_indices < 1 || member->n_token_indices > DKV_MEMBER_TOKENS_MAX) {
        return refuse(why, why_size,
                      "node %s: token indices must be 1 to %u in number, not %" PRIu32, member->id,
                      DKV_MEMBER_TOKENS_MAX, member->n_token_indices);
    }
    for (uint32_t i = 1; i < member->n_token_indices; i++) {
        if (indices[i - 1] >= indices[i]) {
            return refuse(why, why_size, "node %s: token indices must ascend without repeats",
                          member->id);
        }
    }
    return DKV_OK;
}

int dkv_member_check(const dkv_member *member, char *why, size_t why_size) {
    int err = check_name("a node id", member->id ? member->id : "", why, why_size);
    if (err) return err;
    const struct {
        const char *what;
        const char *text;
    } optional[] = {
        {"a host", member->host},
        {"a zone", member->zone},
        {"a token name", member->token_name},
    };
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
        if (is_empty(optional[i].text)) continue;
        err = check_name(optional[i].what, optional[i].text, why, why_size);
        if (err) return err;
    }
    if (!is_empty(member->address) && !is_address(member->address)) {
        return refuse(
            why, why_size,
            "node %s: an address is \"host:port\" with a port of 1 to 65535, at most %u characters",
            member->id, DKV_ADDRESS_MAX);
    }
    if (member->weight > DKV_WEIGHT_MAX) {
        return refuse(why, why_size, "node %s: weight must be 1 to %u, not %u", member->id,
                      DKV_WEIGHT_MAX, member->weight);
    }
    return check_token_indices(member, why, why_size);
}

uint32_t dkv_member_n_tokens(const dkv_member *member) {
    if (member->token_indices) return member->n_token_indices;
    return DKV_TOKENS_PER_WEIGHT * member->weight;
}

uint64_t dkv_member_token(const dkv_member *member, uint32_t i) {
    char text[DKV_NAME_MAX + 12]; /* ':', ten digits, NUL */
    uint32_t index = member->token_indices ? member->token_indices[i] : i;
    snprintf(text, sizeof text, "%s:%" PRIu32, member->token_name, index);
    return dkv_hash_key(dkv_slice_of(text)).token;
}

static void member_free(dkv_member *member) {
    free(member->id);
    free(member->address);
    free(member->host);
    free(member->zone);
    free(member->token_name);
    free(member->token_indices);
}

/* Copies `from` with its defaults filled in. NO_MEMORY leaves nothing behind. */
static int member_copy(const dkv_member *from, dkv_member *out) {
    dkv_member copy = {
        .id = strdup(from->id),
        .address = strdup(is_empty(from->address) ? "" : from->address),
        .host = strdup(is_empty(from->host) ? from->id : from->host),
        .zone = strdup(is_empty(from->zone) ? "" : from->zone),
        .token_name = strdup(is_empty(from->token_name) ? from->id : from->token_name),
        .weight = from->weight ? from->weight : 1,
    };
    if (!copy.id || !copy.address || !copy.host || !copy.zone || !copy.token_name) goto fail;
    if (from->token_indices) {
        size_t size = from->n_token_indices * sizeof *from->token_indices;
        copy.token_indices = malloc(size);
        if (!copy.token_indices) goto fail;
        memcpy(copy.token_indices, from->token_indices, size);
        copy.n_token_indices = from->n_token_indices;
    }
    *out = copy;
    return DKV_OK;

fail:
    member_free(&copy);
    return DKV_ERR_NO_MEMORY;
}

int dkv_cluster_map_new(const char *cluster, uint8_t replication, dkv_cluster_map **out) {
    if (is_empty(cluster) || !is_name(cluster)) return DKV_ERR_INVALID;
    dkv_cluster_map *map = calloc(1, sizeof *map);
    if (!map) return DKV_ERR_NO_MEMORY;
    map->cluster = strdup(cluster);
    if (!map->cluster) {
        free(map);
        return DKV_ERR_NO_MEMORY;
    }
    map->epoch = 1;
    map->replication = replication;
    *out = map;
    return DKV_OK;
}

/* Index of the first member whose id is not below `id`. */
static uint16_t lower_bound(const dkv_cluster_map *map, const char *id) {
    uint16_t low = 0;
    uint16_t high = map->n_members;
    while (low < high) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (strcmp(map->members[middle].id, id) < 0) {
            low = (uint16_t)(middle + 1);
        } else {
            high = middle;
        }
    }
    return low;
}

int dkv_cluster_map_find(const dkv_cluster_map *map, const char *id) {
    uint16_t at = lower_bound(map, id);
    return at < map->n_members && strcmp(map->members[at].id, id) == 0 ? at : -1;
}

int dkv_cluster_map_add(dkv_cluster_map *map, const dkv_member *member) {
    int err = dkv_member_check(member, NULL, 0);
    if (err) return err;
    if (map->n_members >= DKV_MEMBERS_MAX) return DKV_ERR_INVALID;
    if (dkv_cluster_map_find(map, member->id) >= 0) return DKV_ERR_INVALID;

    dkv_member copy;
    err = member_copy(member, &copy);
    if (err) return err;
    dkv_member *members = realloc(map->members, (map->n_members + 1u) * sizeof *members);
    if (!members) {
        member_free(&copy);
        return DKV_ERR_NO_MEMORY;
    }
    map->members = members;
    uint16_t at = lower_bound(map, copy.id);
    memmove(&members[at + 1], &members[at], (size_t)(map->n_members - at) * sizeof *members);
    members[at] = copy;
    map->n_members++;
    return DKV_OK;
}

int dkv_cluster_map_remove(dkv_cluster_map *map, const char *id) {
    int at = dkv_cluster_map_find(map, id);
    if (at < 0) return DKV_ERR_NOT_FOUND;
    dkv_member *gone = &map->members[at];
    member_free(gone);
    map->n_members--;
    memmove(gone, gone + 1, (size_t)(map->n_members - at) * sizeof *gone);
    return DKV_OK;
}

int dkv_cluster_map_check(const dkv_cluster_map *map, char *why, size_t why_size) {
    if (map->n_members == 0) return refuse(why, why_size, "a ring needs at least one node");
    if (map->replication < 1 || map->replication > DKV_REPLICATION_MAX) {
        return refuse(why, why_size, "replication must be 1 to %u, not %u", DKV_REPLICATION_MAX,
                      map->replication);
    }
    if (map->replication > map->n_members) {
        return refuse(why, why_size, "replication %u needs at least %u nodes, not %u",
                      map->replication, map->replication, map->n_members);
    }
    return DKV_OK;
}

int dkv_cluster_map_clone(const dkv_cluster_map *map, dkv_cluster_map **out) {
    dkv_cluster_map *clone;
    int err = dkv_cluster_map_new(map->cluster, map->replication, &clone);
    if (err) return err;
    clone->epoch = map->epoch;
    if (map->n_members) {
        clone->members = calloc(map->n_members, sizeof *clone->members);
        if (!clone->members) goto fail;
    }
    for (uint16_t i = 0; i < map->n_members; i++) {
        if (member_copy(&map->members[i], &clone->members[i])) goto fail;
        clone->n_members++;
    }
    *out = clone;
    return DKV_OK;

fail:
    dkv_cluster_map_del(clone);
    return DKV_ERR_NO_MEMORY;
}

/* Every field is hashed on its own, seeded with the hash of what came before it, so that bytes
 * cannot move from one field to the next unnoticed. */
static uint64_t mix_text(uint64_t hash, const char *text) {
    return dkv_checksum(dkv_slice_of(text), hash);
}

static uint64_t mix_number(uint64_t hash, uint64_t number) {
    uint8_t bytes[8];
    dkv_put_le64(bytes, number);
    return dkv_checksum((dkv_slice){bytes, sizeof bytes}, hash);
}

uint64_t dkv_cluster_map_digest(const dkv_cluster_map *map) {
    if (map->digest) return map->digest;
    uint64_t hash = mix_text(0, map->cluster);
    hash = mix_number(hash, map->epoch);
    hash = mix_number(hash, map->replication);
    hash = mix_number(hash, map->n_members);
    for (uint16_t i = 0; i < map->n_members; i++) {
        const dkv_member *member = &map->members[i];
        hash = mix_text(hash, member->id);
        hash = mix_text(hash, member->host);
        hash = mix_text(hash, member->zone);
        hash = mix_text(hash, member->token_name);
        hash = mix_number(hash, member->weight);
        hash = mix_number(hash, member->n_token_indices);
        for (uint32_t k = 0; k < member->n_token_indices; k++) {
            hash = mix_number(hash, member->token_indices[k]);
        }
    }
    return hash;
}

void dkv_cluster_map_del(dkv_cluster_map *map) {
    if (!map) return;
    for (uint16_t i = 0; i < map->n_members; i++) member_free(&map->members[i]);
    free(map->members);
    free(map->cluster);
    free(map);
}
