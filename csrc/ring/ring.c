#include "ring/ring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

struct dkv_ring {
    dkv_cluster_map *map;
    uint32_t n_intervals;
    uint64_t *ends;  /* distinct, ascending: the token that ends each interval */
    uint16_t *lists; /* map->replication member indices for each interval */
};

/* ---- tokens --------------------------------------------------------------------------------- */

typedef struct ring_token {
    uint64_t position;
    uint16_t member;
} ring_token;

/* Coinciding tokens are ordered by member index, as the header promises. */
static int token_cmp(const void *left, const void *right) {
    const ring_token *a = left;
    const ring_token *b = right;
    if (a->position != b->position) return a->position < b->position ? -1 : 1;
    return (a->member > b->member) - (a->member < b->member);
}

/* All tokens of all members, sorted; owned by the caller. NULL if there is no memory. */
static ring_token *tokens_new(const dkv_cluster_map *map, size_t *n_out) {
    size_t n = 0;
    for (uint16_t m = 0; m < map->n_members; m++) n += dkv_member_n_tokens(&map->members[m]);
    ring_token *tokens = malloc(n * sizeof *tokens);
    if (!tokens) return NULL;

    ring_token *next = tokens;
    for (uint16_t m = 0; m < map->n_members; m++) {
        const dkv_member *member = &map->members[m];
        uint32_t n_tokens = dkv_member_n_tokens(member);
        for (uint32_t i = 0; i < n_tokens; i++) {
            *next++ = (ring_token){dkv_member_token(member, i), m};
        }
    }
    qsort(tokens, n, sizeof *tokens, token_cmp);
    *n_out = n;
    return tokens;
}

/* ---- preference lists ----------------------------------------------------------------------- */

/* A partition of the members (by domain, by host, or each on its own) with its groups linked in
 * the order in which a walk clockwise from the current token first meets them. The circle is
 * passed counter-clockwise; at each token its member's group moves to the front and nothing else
 * changes, so keeping the order costs a few stores per token, however many members a list passes
 * over. */
typedef struct partition {
    uint16_t group_of[DKV_MEMBERS_MAX]; /* by member */
    uint16_t first[DKV_MEMBERS_MAX];    /* by group: its member that the walk meets first */
    uint16_t next[DKV_MEMBERS_MAX + 1]; /* by group; a ring of links through END */
    uint16_t prev[DKV_MEMBERS_MAX + 1];
} partition;

#define END DKV_MEMBERS_MAX

enum { BY_DOMAIN, BY_HOST, BY_NODE, N_PARTITIONS };

static bool same_domain(const dkv_member *a, const dkv_member *b) {
    if (*a->zone || *b->zone) return strcmp(a->zone, b->zone) == 0;
    return strcmp(a->host, b->host) == 0;
}

static bool same_host(const dkv_member *a, const dkv_member *b) {
    return strcmp(a->host, b->host) == 0;
}

static bool same_node(const dkv_member *a, const dkv_member *b) {
    return a == b;
}

static void link_front(partition *part, uint16_t group) {
    uint16_t second = part->next[END];
    part->next[group] = second;
    part->prev[group] = END;
    part->prev[second] = group;
    part->next[END] = group;
}

static void unlink_group(partition *part, uint16_t group) {
    part->next[part->prev[group]] = part->next[group];
    part->prev[part->next[group]] = part->prev[group];
}

static void partition_init(partition *part, const dkv_cluster_map *map,
                           bool (*same)(const dkv_member *, const dkv_member *)) {
    uint16_t n_groups = 0;
    part->next[END] = part->prev[END] = END;
    for (uint16_t m = 0; m < map->n_members; m++) {
        uint16_t group = 0;
        while (group < n_groups && !same(&map->members[m], &map->members[part->first[group]])) {
            group++;
        }
        if (group == n_groups) {
            part->first[n_groups++] = m;
            link_front(part, group);
        }
        part->group_of[m] = group;
    }
}

static void partition_pass(partition *part, uint16_t member) {
    uint16_t group = part->group_of[member];
    part->first[group] = member;
    unlink_group(part, group);
    link_front(part, group);
}

static bool holds_group(const partition *part, const uint16_t *list, unsigned len, uint16_t group) {
    for (unsigned i = 0; i < len; i++) {
        if (part->group_of[list[i]] == group) return true;
    }
    return false;
}

/* The preference list at the current token: from each partition in turn, the first members of the
 * groups that hold no replica yet, until the list is full. */
static void choose(const partition *parts, unsigned replication, uint16_t *list) {
    unsigned len = 0;
    for (const partition *part = parts; part < parts + N_PARTITIONS; part++) {
        for (uint16_t g = part->next[END]; g != END && len < replication; g = part->next[g]) {
            if (!holds_group(part, list, len, g)) list[len++] = part->first[g];
        }
    }
    assert(len == replication);
}

static uint32_t count_distinct(const ring_token *tokens, size_t n) {
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) count += i == 0 || tokens[i].position != tokens[i - 1].position;
    return count;
}

/* Passes the circle twice: once to learn what follows the last token, once to write the lists. Of
 * coinciding tokens the first is passed last, which puts its member in front of the others. */
static void write_intervals(dkv_ring *ring, partition *parts, const ring_token *tokens, size_t n) {
    for (size_t i = n; i-- > 0;) {
        for (int p = 0; p < N_PARTITIONS; p++) partition_pass(&parts[p], tokens[i].member);
    }
    unsigned replication = ring->map->replication;
    uint32_t interval = ring->n_intervals;
    for (size_t i = n; i-- > 0;) {
        for (int p = 0; p < N_PARTITIONS; p++) partition_pass(&parts[p], tokens[i].member);
        if (i > 0 && tokens[i - 1].position == tokens[i].position) continue;
        interval--;
        ring->ends[interval] = tokens[i].position;
        choose(parts, replication, &ring->lists[(size_t)interval * replication]);
    }
}

static int build_intervals(dkv_ring *ring) {
    int err = DKV_ERR_NO_MEMORY;
    size_t n_tokens;
    ring_token *tokens = tokens_new(ring->map, &n_tokens);
    if (!tokens) return err;
    partition *parts = malloc(N_PARTITIONS * sizeof *parts);
    if (!parts) goto out_tokens;
    partition_init(&parts[BY_DOMAIN], ring->map, same_domain);
    partition_init(&parts[BY_HOST], ring->map, same_host);
    partition_init(&parts[BY_NODE], ring->map, same_node);

    ring->n_intervals = count_distinct(tokens, n_tokens);
    ring->ends = malloc(ring->n_intervals * sizeof *ring->ends);
    ring->lists = malloc((size_t)ring->n_intervals * ring->map->replication * sizeof *ring->lists);
    if (!ring->ends || !ring->lists) goto out_parts;
    write_intervals(ring, parts, tokens, n_tokens);
    err = DKV_OK;

out_parts:
    free(parts);
out_tokens:
    free(tokens);
    return err;
}

/* ---- the ring ------------------------------------------------------------------------------- */

int dkv_ring_new(const dkv_cluster_map *map, dkv_ring **out) {
    int err = dkv_cluster_map_check(map, NULL, 0);
    if (err) return err;
    dkv_ring *ring = calloc(1, sizeof *ring);
    if (!ring) return DKV_ERR_NO_MEMORY;
    err = dkv_cluster_map_clone(map, &ring->map);
    if (!err) ring->map->digest = dkv_cluster_map_digest(ring->map);
    if (!err) err = build_intervals(ring);
    if (err) {
        dkv_ring_del(ring);
        return err;
    }
    *out = ring;
    return DKV_OK;
}

void dkv_ring_del(dkv_ring *ring) {
    if (!ring) return;
    free(ring->lists);
    free(ring->ends);
    dkv_cluster_map_del(ring->map);
    free(ring);
}

const dkv_cluster_map *dkv_ring_map(const dkv_ring *ring) {
    return ring->map;
}

unsigned dkv_ring_replication(const dkv_ring *ring) {
    return ring->map->replication;
}

uint32_t dkv_ring_intervals(const dkv_ring *ring) {
    return ring->n_intervals;
}

uint32_t dkv_ring_find(const dkv_ring *ring, uint64_t token) {
    uint32_t low = 0;
    uint32_t high = ring->n_intervals;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ring->ends[middle] < token) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < ring->n_intervals ? low : 0; /* behind the last end the circle wraps */
}

uint64_t dkv_ring_end(const dkv_ring *ring, uint32_t interval) {
    assert(interval < ring->n_intervals);
    return ring->ends[interval];
}

const uint16_t *dkv_ring_list(const dkv_ring *ring, uint32_t interval) {
    assert(interval < ring->n_intervals);
    return &ring->lists[(size_t)interval * ring->map->replication];
}

/* The member of the ending token is the first one met clockwise, hence the first of the list. */
uint16_t dkv_ring_token_owner(const dkv_ring *ring, uint32_t interval) {
    return dkv_ring_list(ring, interval)[0];
}

const uint16_t *dkv_ring_replicas(const dkv_ring *ring, uint64_t token) {
    return dkv_ring_list(ring, dkv_ring_find(ring, token));
}
