#include <stdlib.h>

#include "base/err.h"
#include "dkv.pb-c.h"
#include "wire/frame.h"
#include "wire/wire.h"

static void fill_member(const dkv_member *from, Dkv__V1__Member *to) {
    dkv__v1__member__init(to);
    to->id = from->id;
    to->address = from->address;
    to->host = from->host;
    to->zone = from->zone;
    to->token_name = from->token_name;
    to->weight = from->weight;
    to->n_token_indices = from->n_token_indices;
    to->token_indices = from->token_indices;
}

int dkv_wire_put_map(dkv_buf *out, const dkv_cluster_map *map) {
    Dkv__V1__ClusterMap packed;
    dkv__v1__cluster_map__init(&packed);
    packed.cluster = map->cluster;
    packed.epoch = map->epoch;
    packed.replication = map->replication;
    packed.n_members = map->n_members;
    int err = DKV_ERR_NO_MEMORY;
    Dkv__V1__Member *members = calloc(map->n_members + 1u, sizeof *members);
    packed.members = calloc(map->n_members + 1u, sizeof *packed.members);
    if (!members || !packed.members) goto done;
    for (unsigned i = 0; i < map->n_members; i++) {
        fill_member(&map->members[i], &members[i]);
        packed.members[i] = &members[i];
    }
    err = dkv_wire_append(out, &packed.base);
done:
    free(packed.members);
    free(members);
    return err;
}

static int read_member(const Dkv__V1__Member *from, dkv_cluster_map *map) {
    if (from->weight > DKV_WEIGHT_MAX) return DKV_ERR_PROTOCOL;
    if (from->n_token_indices > DKV_MEMBER_TOKENS_MAX) return DKV_ERR_PROTOCOL;
    dkv_member member = {
        .id = from->id,
        .address = from->address,
        .host = from->host,
        .zone = from->zone,
        .token_name = from->token_name,
        .weight = (uint16_t)from->weight,
        .token_indices = from->n_token_indices ? from->token_indices : NULL,
        .n_token_indices = (uint32_t)from->n_token_indices,
    };
    return dkv_cluster_map_add(map, &member);
}

static int read_map(const Dkv__V1__ClusterMap *from, dkv_cluster_map **out) {
    if (from->replication > DKV_REPLICATION_MAX) return DKV_ERR_PROTOCOL;
    dkv_cluster_map *map = NULL;
    int err = dkv_cluster_map_new(from->cluster, (uint8_t)from->replication, &map);
    if (err) return err;
    map->epoch = from->epoch;
    for (size_t i = 0; !err && i < from->n_members; i++) err = read_member(from->members[i], map);
    if (!err) err = dkv_cluster_map_check(map, NULL, 0);
    if (err) {
        dkv_cluster_map_del(map);
        return err;
    }
    *out = map;
    return DKV_OK;
}

int dkv_wire_get_map(dkv_slice bytes, dkv_cluster_map **out) {
    _Alignas(max_align_t) uint8_t chunk[DKV_WIRE_CHUNK];
    dkv_wire_arena arena;
    dkv_wire_arena_init(&arena, chunk, sizeof chunk, DKV_WIRE_MAP_MEMORY);
    ProtobufCMessage *packed;
    int err = dkv_wire_unpack(&arena, &dkv__v1__cluster_map__descriptor, bytes, &packed);
    if (!err) err = read_map((const Dkv__V1__ClusterMap *)packed, out);
    dkv_wire_arena_reset(&arena);
    return err == DKV_ERR_INVALID ? DKV_ERR_PROTOCOL : err;
}
