/* Cluster maps in any shape: a member is taken or refused with a reason, and what can be built is a
 * ring as ring/ring.h promises. The difference of two rings is that of their preference lists. */
#include "base/err.h"
#include "fuzz.h"
#include "ring/ring.h"

#define MEMBERS_MAX 12u
#define TOKENS_MAX 24u

static char *any_name(dkv_slice *in, char name[80]) {
    unsigned shape = fuzz_byte(in);
    if (shape == 255) { /* any bytes, any length */
        dkv_slice bytes = fuzz_slice(in, 79);
        if (bytes.len) memcpy(name, bytes.data, bytes.len);
        name[bytes.len] = 0;
    } else if (shape > 200) {
        name[0] = 0;
    } else {
        snprintf(name, 80, "n%u", shape % 16);
    }
    return name;
}

static void add_member(dkv_cluster_map *map, dkv_slice *in) {
    char id[80], host[80], zone[80], token_name[80], why[160] = "";
    uint32_t tokens[TOKENS_MAX];
    dkv_member member = {
        .id = any_name(in, id),
        .host = any_name(in, host),
        .zone = any_name(in, zone),
        .token_name = any_name(in, token_name),
        .weight = fuzz_byte(in) % 18u,
        .token_indices = tokens,
        .n_token_indices = fuzz_below(in, TOKENS_MAX),
    };
    for (uint32_t i = 0, last = 0; i < member.n_token_indices; i++) {
        tokens[i] = last;
        last += fuzz_byte(in) % 8u;
        if (last == tokens[i]) last += fuzz_byte(in) < 250;
    }
    unsigned before = map->n_members;
    int wrong = dkv_member_check(&member, why, sizeof why);
    int err = dkv_cluster_map_add(map, &member);
    FUZZ_CHECK(err == DKV_OK || err == DKV_ERR_INVALID);
    if (wrong) FUZZ_CHECK(err && why[0]);
    FUZZ_CHECK(map->n_members == before + !err);
}

static dkv_cluster_map *any_map(dkv_slice *in) {
    dkv_cluster_map *map = NULL;
    uint8_t replication = fuzz_byte(in) % 7;
    if (dkv_cluster_map_new("c", replication, &map)) return NULL;
    unsigned members = fuzz_below(in, MEMBERS_MAX + 1);
    for (unsigned i = 0; i < members; i++) add_member(map, in);
    if (fuzz_byte(in) & 1) {
        char id[80];
        bool there = dkv_cluster_map_find(map, any_name(in, id)) >= 0;
        FUZZ_CHECK(dkv_cluster_map_remove(map, id) == (there ? DKV_OK : DKV_ERR_NOT_FOUND));
    }
    for (unsigned i = 1; i < map->n_members; i++) {
        FUZZ_CHECK(strcmp(map->members[i - 1].id, map->members[i].id) < 0);
    }
    return map;
}

/* ---- rings ---- */

static const char *domain_of(const dkv_member *member) {
    return *member->zone ? member->zone : member->host;
}

static bool same_domain(const dkv_member *a, const dkv_member *b) {
    return (*a->zone != 0) == (*b->zone != 0) && strcmp(domain_of(a), domain_of(b)) == 0;
}

static unsigned count_domains(const dkv_cluster_map *map, const uint16_t *list, unsigned n) {
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned k = 0;
        while (k < i && !same_domain(&map->members[list[i]], &map->members[list[k]])) k++;
        count += k == i;
    }
    return count;
}

static void check_ring(const dkv_ring *ring) {
    const dkv_cluster_map *map = dkv_ring_map(ring);
    uint16_t everybody[MEMBERS_MAX];
    for (uint16_t m = 0; m < map->n_members; m++) everybody[m] = m;
    unsigned n = dkv_ring_replication(ring);
    unsigned domains = count_domains(map, everybody, map->n_members);
    FUZZ_CHECK(n == map->replication && dkv_ring_intervals(ring) >= 1);
    for (uint32_t i = 0; i < dkv_ring_intervals(ring); i++) {
        const uint16_t *list = dkv_ring_list(ring, i);
        FUZZ_CHECK(i == 0 || dkv_ring_end(ring, i - 1) < dkv_ring_end(ring, i));
        FUZZ_CHECK(dkv_ring_find(ring, dkv_ring_end(ring, i)) == i);
        FUZZ_CHECK(list[0] == dkv_ring_token_owner(ring, i));
        for (unsigned k = 0; k < n; k++) {
            FUZZ_CHECK(list[k] < map->n_members);
            for (unsigned j = 0; j < k; j++) FUZZ_CHECK(list[j] != list[k]);
        }
        FUZZ_CHECK(count_domains(map, list, n) == (domains < n ? domains : n));
    }
}

static bool same_list(const dkv_ring *a, const dkv_ring *b, uint64_t position) {
    const uint16_t *in_a = dkv_ring_replicas(a, position), *in_b = dkv_ring_replicas(b, position);
    unsigned n = dkv_ring_replication(a);
    if (n != dkv_ring_replication(b)) return false;
    for (unsigned i = 0; i < n; i++) {
        const char *id_a = dkv_ring_map(a)->members[in_a[i]].id;
        if (strcmp(id_a, dkv_ring_map(b)->members[in_b[i]].id) != 0) return false;
    }
    return true;
}

static bool is_in(const dkv_ring_change *change, uint64_t position) {
    if (change->after == change->upto) return true;
    return position - change->after - 1 < change->upto - change->after;
}

static void check_diff(const dkv_ring *from, const dkv_ring *to) {
    dkv_ring_change *changes = NULL;
    size_t n = 0;
    FUZZ_CHECK(dkv_ring_diff(from, to, &changes, &n) == DKV_OK);
    for (uint32_t i = 0; i < dkv_ring_intervals(from); i++) {
        uint64_t end = dkv_ring_end(from, i);
        for (uint64_t position = end - 1; position != end + 2; position++) {
            unsigned holds = 0;
            for (size_t k = 0; k < n; k++) holds += is_in(&changes[k], position);
            FUZZ_CHECK(holds == !same_list(from, to, position));
        }
    }
    free(changes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dkv_slice in = {data, size};
    dkv_cluster_map *maps[2] = {any_map(&in), any_map(&in)};
    dkv_ring *rings[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        if (!maps[i]) continue;
        int err = dkv_ring_new(maps[i], &rings[i]);
        FUZZ_CHECK(err == dkv_cluster_map_check(maps[i], NULL, 0));
        if (!err) check_ring(rings[i]);
    }
    if (rings[0] && rings[1]) check_diff(rings[0], rings[1]);
    for (int i = 0; i < 2; i++) {
        dkv_ring_del(rings[i]);
        dkv_cluster_map_del(maps[i]);
    }
    return 0;
}

static void seeds(void) {
    fuzz_random_seeds(40);
}

FUZZ_TARGET
