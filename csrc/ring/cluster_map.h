/* The cluster map: who the members are and how keys are placed on them. A map is data; the ring
 * (ring/ring.h) is what is computed from it. Members are named by their index in `members`, which
 * is in ascending order of id, so that all nodes of one epoch agree on it. */
#ifndef DKV_RING_CLUSTER_MAP_H
#define DKV_RING_CLUSTER_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define DKV_NAME_MAX 64u     /* bytes in a node id, host, zone, token name or cluster name */
#define DKV_ADDRESS_MAX 255u /* bytes in "host:port" */
#define DKV_MEMBERS_MAX 1000u
#define DKV_REPLICATION_MAX 5u
#define DKV_WEIGHT_MAX 16u
#define DKV_TOKENS_PER_WEIGHT 256u
#define DKV_MEMBER_TOKENS_MAX (DKV_TOKENS_PER_WEIGHT * DKV_WEIGHT_MAX)

/* One node as the map describes it. Strings are owned by the map. */
typedef struct dkv_member {
    char *id;         /* unique; 1..DKV_NAME_MAX of [A-Za-z0-9._-] */
    char *address;    /* "host:port" where it listens; may be "" where no network is used */
    char *host;       /* machine; defaults to id. Replicas avoid sharing one */
    char *zone;       /* failure domain above the host; "" = none given */
    char *token_name; /* tokens are SHA-256 of "<token_name>:<i>"; defaults to id */
    uint16_t weight;  /* 1..DKV_WEIGHT_MAX; tokens = 256 × weight */
    /* Chosen token indices (ascending, no repeats), or NULL for 0 .. 256 × weight − 1. */
    uint32_t *token_indices;
    uint32_t n_token_indices; /* 1..DKV_MEMBER_TOKENS_MAX; 0 when token_indices is NULL */
} dkv_member;

/* OK if every field is in its range, where NULL, "" and 0 stand for the defaults that
 * dkv_cluster_map_add names. Otherwise INVALID, and `why` (at least 160 bytes; may be NULL) says
 * what is wrong. */
int dkv_member_check(const dkv_member *member, char *why, size_t why_size);

/* How many tokens a member of a map has, and the position of the i-th of them, in the order of
 * their indices. */
uint32_t dkv_member_n_tokens(const dkv_member *member);
uint64_t dkv_member_token(const dkv_member *member, uint32_t i);

typedef struct dkv_cluster_map {
    char *cluster;       /* cluster name: nodes and stores of other clusters are refused */
    uint64_t epoch;      /* grows by one with every change; a new cluster starts at 1 */
    uint8_t replication; /* N, 1..DKV_REPLICATION_MAX and at most the number of members */
    uint16_t n_members;
    dkv_member *members; /* ascending by id */
    uint64_t digest;     /* what dkv_cluster_map_digest gives, in the map of a ring, which does not
                            change any more; else 0: it is computed in each call */
} dkv_cluster_map;

/* Makes an empty map with a copy of `cluster`. *out is owned by the caller. INVALID for a name
 * that is empty, too long or has other characters than [A-Za-z0-9._-]; NO_MEMORY. */
int dkv_cluster_map_new(const char *cluster, uint8_t replication, dkv_cluster_map **out);

/* Adds a copy of `member` at its place in the order. NULL or "" in host and token_name stand for
 * the id, NULL in zone and address for "", 0 in weight for 1. INVALID for a bad or repeated id,
 * other fields outside their range, or a full map: nothing changes. */
int dkv_cluster_map_add(dkv_cluster_map *map, const dkv_member *member);

/* Removes the member `id`. NOT_FOUND if there is none. */
int dkv_cluster_map_remove(dkv_cluster_map *map, const char *id);

/* Index of the member `id`, or -1. */
int dkv_cluster_map_find(const dkv_cluster_map *map, const char *id);

/* OK if a ring can be built from the map: at least one member, N in 1..min(5, members).
 * Otherwise INVALID, and `why` (at least 160 bytes; may be NULL) says what is wrong. */
int dkv_cluster_map_check(const dkv_cluster_map *map, char *why, size_t why_size);

/* A deep copy, owned by the caller. */
int dkv_cluster_map_clone(const dkv_cluster_map *map, dkv_cluster_map **out);

/* A hash of everything in the map except addresses: nodes whose maps differ in one epoch notice
 * by it. The same on every machine. */
uint64_t dkv_cluster_map_digest(const dkv_cluster_map *map);

/* Accepts NULL. */
void dkv_cluster_map_del(dkv_cluster_map *map);

#endif
