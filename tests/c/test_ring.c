/* The cluster map and the ring, compared with a reference that follows the definition in
 * ring/ring.h word for word and nothing else. */
#include "base/err.h"
#include "base/hash.h"
#include "base/rand.h"
#include "check.h"
#include "ring/ring.h"

/* ---- the reference -------------------------------------------------------------------------- */

typedef struct naive_token {
    uint64_t position;
    uint16_t member;
} naive_token;

typedef struct naive_ring {
    const dkv_cluster_map *map;
    naive_token *tokens; /* unsorted */
    size_t n;
} naive_ring;

static naive_ring naive_new(const dkv_cluster_map *map) {
    naive_ring naive = {map, NULL, 0};
    naive.tokens = malloc((size_t)map->n_members * DKV_MEMBER_TOKENS_MAX * sizeof *naive.tokens);
    CHECK(naive.tokens);
    for (uint16_t m = 0; m < map->n_members; m++) {
        const dkv_member *member = &map->members[m];
        uint32_t count = member->token_indices ? member->n_token_indices : 256u * member->weight;
        for (uint32_t i = 0; i < count; i++) {
            char text[128];
            snprintf(text, sizeof text, "%s:%u", member->token_name,
                     member->token_indices ? member->token_indices[i] : i);
            naive.tokens[naive.n++] = (naive_token){dkv_hash_key(dkv_slice_of(text)).token, m};
        }
    }
    return naive;
}

typedef struct met {
    uint64_t distance; /* clockwise from the position to the member's first token */
    uint16_t member;
} met;

static int met_cmp(const void *left, const void *right) {
    const met *a = left;
    const met *b = right;
    if (a->distance != b->distance) return a->distance < b->distance ? -1 : 1;
    return a->member < b->member ? -1 : 1;
}

static bool same_domain(const dkv_member *a, const dkv_member *b) {
    if (!*a->zone && !*b->zone) return strcmp(a->host, b->host) == 0;
    return strcmp(a->zone, b->zone) == 0;
}

static bool same_host(const dkv_member *a, const dkv_member *b) {
    return strcmp(a->host, b->host) == 0;
}

static bool same_node(const dkv_member *a, const dkv_member *b) {
    return strcmp(a->id, b->id) == 0;
}

static void naive_list(const naive_ring *naive, uint64_t position, uint16_t *list) {
    const dkv_cluster_map *map = naive->map;
    met walk[DKV_MEMBERS_MAX];
    for (uint16_t m = 0; m < map->n_members; m++) walk[m] = (met){UINT64_MAX, m};
    for (size_t i = 0; i < naive->n; i++) {
        uint64_t distance = naive->tokens[i].position - position;
        met *entry = &walk[naive->tokens[i].member];
        if (distance < entry->distance) entry->distance = distance;
    }
    qsort(walk, map->n_members, sizeof *walk, met_cmp);

    bool (*const rules[])(const dkv_member *, const dkv_member *) = {same_domain, same_host,
                                                                     same_node};
    unsigned len = 0;
    for (int rule = 0; rule < 3; rule++) {
        for (uint16_t w = 0; w < map->n_members && len < map->replication; w++) {
            const dkv_member *candidate = &map->members[walk[w].member];
            bool passed_over = false;
            for (unsigned k = 0; k < len; k++) {
                passed_over |= rules[rule](candidate, &map->members[list[k]]);
            }
            if (!passed_over) list[len++] = walk[w].member;
        }
    }
}

/* ---- helpers -------------------------------------------------------------------------------- */

static dkv_cluster_map *map_new(uint8_t replication) {
    dkv_cluster_map *map = NULL;
    CHECK(dkv_cluster_map_new("test", replication, &map) == DKV_OK);
    return map;
}

static void add(dkv_cluster_map *map, dkv_member member) {
    CHECK(dkv_cluster_map_add(map, &member) == DKV_OK);
}

/* Members n000, n001, ... with nothing but an id. */
static dkv_cluster_map *plain_map(unsigned n_members, uint8_t replication) {
    dkv_cluster_map *map = map_new(replication);
    for (unsigned i = 0; i < n_members; i++) {
        char id[16];
        snprintf(id, sizeof id, "n%03u", i);
        add(map, (dkv_member){.id = id});
    }
    return map;
}

static dkv_ring *ring_new(const dkv_cluster_map *map) {
    dkv_ring *ring = NULL;
    CHECK(dkv_ring_new(map, &ring) == DKV_OK);
    return ring;
}

/* The ring of a map that is needed no further. */
static dkv_ring *ring_of(dkv_cluster_map *map) {
    dkv_ring *ring = ring_new(map);
    dkv_cluster_map_del(map);
    return ring;
}

static const char *id_at(const dkv_ring *ring, uint64_t position, unsigned place) {
    return dkv_ring_map(ring)->members[dkv_ring_replicas(ring, position)[place]].id;
}

/* A member of few tokens now and then, so that coinciding and far-apart tokens occur. Hosts may
 * span zones: the definition holds for contradicting descriptions as well. */
static void add_random_member(dkv_rand *rand, dkv_cluster_map *map) {
    char id[16], host[16], zone[16], token_name[16];
    uint32_t indices[8];
    snprintf(id, sizeof id, "n%03u", (unsigned)dkv_rand_below(rand, 1000));
    snprintf(host, sizeof host, "h%u", (unsigned)dkv_rand_below(rand, 6));
    snprintf(zone, sizeof zone, "z%u", (unsigned)dkv_rand_below(rand, 4));
    snprintf(token_name, sizeof token_name, "t%u", (unsigned)dkv_rand_below(rand, 4));
    dkv_member member = {.id = id, .weight = (uint16_t)(1 + dkv_rand_below(rand, 2))};
    if (dkv_rand_below(rand, 2)) member.host = host;
    if (dkv_rand_below(rand, 2)) member.zone = zone;
    if (dkv_rand_below(rand, 3) == 0) member.token_name = token_name;
    if (dkv_rand_below(rand, 2)) {
        uint32_t index = 0;
        for (uint32_t i = 0; i < 8; i++) {
            index += 1 + (uint32_t)dkv_rand_below(rand, 3);
            indices[i] = index;
        }
        member.token_indices = indices;
        member.n_token_indices = 1 + (uint32_t)dkv_rand_below(rand, 8);
    }
    int err = dkv_cluster_map_add(map, &member);
    CHECK(err == DKV_OK || (err == DKV_ERR_INVALID && dkv_cluster_map_find(map, id) >= 0));
}

static dkv_cluster_map *random_map(dkv_rand *rand) {
    dkv_cluster_map *map = map_new(1);
    uint64_t n = 1 + dkv_rand_below(rand, 12);
    while (map->n_members < n) add_random_member(rand, map);
    uint64_t most = n < DKV_REPLICATION_MAX ? n : DKV_REPLICATION_MAX;
    map->replication = (uint8_t)(1 + dkv_rand_below(rand, most));
    return map;
}

/* ---- the cluster map ------------------------------------------------------------------------ */

/* Members stand in ascending order of id, wherever they were added and removed. */
static void members_are_ordered(void) {
    dkv_cluster_map *map = map_new(1);
    const char *ids[] = {"m", "a", "z", "B", "m.1", "m-1"};
    for (size_t i = 0; i < 6; i++) add(map, (dkv_member){.id = (char *)ids[i]});
    const char *sorted[] = {"B", "a", "m", "m-1", "m.1", "z"};
    for (int i = 0; i < 6; i++) {
        CHECK(strcmp(map->members[i].id, sorted[i]) == 0);
        CHECK(dkv_cluster_map_find(map, sorted[i]) == i);
    }
    CHECK(dkv_cluster_map_find(map, "n") == -1);
    CHECK(dkv_cluster_map_remove(map, "n") == DKV_ERR_NOT_FOUND && map->n_members == 6);
    CHECK(dkv_cluster_map_remove(map, "m") == DKV_OK && map->n_members == 5);
    CHECK(dkv_cluster_map_find(map, "m") == -1 && dkv_cluster_map_find(map, "z") == 4);
    dkv_cluster_map_del(map);
}

/* Absent fields get the documented defaults. */
static void defaults_are_filled_in(void) {
    dkv_cluster_map *map = map_new(1);
    CHECK(map->epoch == 1);
    add(map, (dkv_member){.id = "n1"});
    add(map, (dkv_member){.id = "n2", .host = "", .zone = "", .token_name = "", .address = ""});
    for (int i = 0; i < 2; i++) {
        const dkv_member *member = &map->members[i];
        CHECK(strcmp(member->host, member->id) == 0 && strcmp(member->token_name, member->id) == 0);
        CHECK(*member->zone == 0 && *member->address == 0);
        CHECK(member->weight == 1 && !member->token_indices && member->n_token_indices == 0);
    }
    dkv_cluster_map_del(map);
}

/* A member with a field outside its range is refused with a reason and changes nothing. */
static void bad_members_are_refused(void) {
    char name_65[66], address_256[257];
    memset(name_65, 'a', 65), name_65[65] = 0;
    memset(address_256, 'a', 256), address_256[256] = 0;
    memcpy(address_256 + 251, ":4000", 5);
    uint32_t repeated[] = {1, 2, 2}, descending[] = {2, 1}, one[] = {7};
    uint32_t *many = calloc(DKV_MEMBER_TOKENS_MAX + 1, sizeof *many);
    CHECK(many);
    for (uint32_t i = 0; i <= DKV_MEMBER_TOKENS_MAX; i++) many[i] = i;
    const dkv_member bad[] = {
        {.id = NULL},
        {.id = ""},
        {.id = "a b"},
        {.id = "\xc3\xa4"},
        {.id = name_65},
        {.id = "n1", .host = name_65},
        {.id = "n1", .zone = "a/b"},
        {.id = "n1", .token_name = "a:1"},
        {.id = "n1", .weight = DKV_WEIGHT_MAX + 1},
        {.id = "n1", .address = address_256},
        {.id = "n1", .address = "host"},
        {.id = "n1", .address = ":4000"},
        {.id = "n1", .address = "host:"},
        {.id = "n1", .address = "host:0"},
        {.id = "n1", .address = "host:65536"},
        {.id = "n1", .address = "host:99999999999999999999"},
        {.id = "n1", .address = "host:4000x"},
        {.id = "n1", .address = "ho st:4000"},
        {.id = "n1", .token_indices = repeated, .n_token_indices = 3},
        {.id = "n1", .token_indices = descending, .n_token_indices = 2},
        {.id = "n1", .token_indices = one, .n_token_indices = 0},
        {.id = "n1", .token_indices = many, .n_token_indices = DKV_MEMBER_TOKENS_MAX + 1},
    };
    dkv_cluster_map *map = plain_map(2, 1);
    uint64_t digest = dkv_cluster_map_digest(map);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char why[160] = "";
        CHECK(dkv_member_check(&bad[i], why, sizeof why) == DKV_ERR_INVALID && *why);
        CHECK(dkv_cluster_map_add(map, &bad[i]) == DKV_ERR_INVALID);
    }
    CHECK(dkv_cluster_map_add(map, &(dkv_member){.id = "n001"}) == DKV_ERR_INVALID);
    CHECK(dkv_cluster_map_digest(map) == digest);
    dkv_cluster_map_del(map);
    free(many);
}

/* The largest allowed values of each field are accepted. */
static void limits_are_accepted(void) {
    char name_64[65], address_255[256];
    memset(name_64, 'a', 64), name_64[64] = 0;
    memset(address_255, 'a', 255), address_255[255] = 0;
    memcpy(address_255 + 249, ":65535", 6);
    uint32_t *indices = calloc(DKV_MEMBER_TOKENS_MAX, sizeof *indices);
    CHECK(indices);
    for (uint32_t i = 0; i < DKV_MEMBER_TOKENS_MAX; i++) indices[i] = UINT32_MAX - 4095 + i;
    dkv_cluster_map *map = map_new(1);
    add(map, (dkv_member){.id = name_64,
                          .host = name_64,
                          .zone = name_64,
                          .token_name = name_64,
                          .address = address_255,
                          .weight = DKV_WEIGHT_MAX,
                          .token_indices = indices,
                          .n_token_indices = DKV_MEMBER_TOKENS_MAX});
    free(indices);
    dkv_ring *ring = ring_of(map);
    CHECK(dkv_ring_intervals(ring) == DKV_MEMBER_TOKENS_MAX);
    dkv_ring_del(ring);

    map = plain_map(DKV_MEMBERS_MAX, 1);
    CHECK(dkv_cluster_map_add(map, &(dkv_member){.id = "one-more"}) == DKV_ERR_INVALID);
    CHECK(map->n_members == DKV_MEMBERS_MAX);
    dkv_cluster_map_del(map);
}

/* Bad cluster names are refused. */
static void bad_cluster_names_are_refused(void) {
    dkv_cluster_map *map = NULL;
    CHECK(dkv_cluster_map_new(NULL, 1, &map) == DKV_ERR_INVALID);
    CHECK(dkv_cluster_map_new("", 1, &map) == DKV_ERR_INVALID);
    CHECK(dkv_cluster_map_new("a cluster", 1, &map) == DKV_ERR_INVALID);
    CHECK(map == NULL);
}

/* No ring without members or with N outside 1..min(5, members), and the reason is given. */
static void bad_maps_make_no_ring(void) {
    const struct {
        unsigned n_members;
        uint8_t replication;
        bool good;
    } cases[] = {{0, 1, false}, {0, 0, false}, {1, 0, false}, {1, 1, true},   {1, 2, false},
                 {5, 5, true},  {4, 5, false}, {9, 6, false}, {9, 255, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dkv_cluster_map *map = plain_map(cases[i].n_members, cases[i].replication);
        char why[160] = "";
        int expected = cases[i].good ? DKV_OK : DKV_ERR_INVALID;
        CHECK(dkv_cluster_map_check(map, why, sizeof why) == expected);
        CHECK(cases[i].good == (*why == 0));
        dkv_ring *ring = NULL;
        CHECK(dkv_ring_new(map, &ring) == expected && (ring != NULL) == cases[i].good);
        dkv_ring_del(ring);
        dkv_cluster_map_del(map);
    }
}

/* The digest tells any two maps apart that differ in more than addresses; clones have the same. */
static void digest_covers_all_but_addresses(void) {
    uint32_t one[] = {1}, two[] = {1, 2};
    const dkv_member variants[] = {
        {.id = "n1"},
        {.id = "n2"},
        {.id = "n1", .host = "h"},
        {.id = "n1", .zone = "h"},
        {.id = "n1", .token_name = "h"},
        {.id = "n1", .weight = 2},
        {.id = "n1", .token_indices = one, .n_token_indices = 1},
        {.id = "n1", .token_indices = two, .n_token_indices = 2},
    };
    enum { N_VARIANTS = sizeof variants / sizeof *variants, N_DIGESTS = N_VARIANTS + 3 };
    uint64_t digests[N_DIGESTS];
    for (int i = 0; i < N_DIGESTS; i++) {
        dkv_cluster_map *map = NULL;
        CHECK(dkv_cluster_map_new(i == N_VARIANTS ? "other" : "test", 1, &map) == DKV_OK);
        dkv_member member = variants[i < N_VARIANTS ? i : 0];
        add(map, member);
        map->epoch += i == N_VARIANTS + 1;
        map->replication = (uint8_t)(map->replication + (i == N_VARIANTS + 2));
        digests[i] = dkv_cluster_map_digest(map);
        dkv_cluster_map *clone = NULL;
        CHECK(dkv_cluster_map_clone(map, &clone) == DKV_OK);
        CHECK(dkv_cluster_map_digest(clone) == digests[i]);
        dkv_cluster_map_del(map);
        CHECK(dkv_cluster_map_digest(clone) == digests[i]);
        CHECK(dkv_cluster_map_remove(clone, member.id) == DKV_OK);
        member.address = "localhost:4000";
        add(clone, member);
        CHECK(dkv_cluster_map_digest(clone) == digests[i]);
        dkv_cluster_map_del(clone);
        for (int k = 0; k < i; k++) CHECK(digests[k] != digests[i]);
    }
}

/* ---- the ring ------------------------------------------------------------------------------- */

/* Token i of a node is the first 8 bytes of SHA-256 of "<token_name>:<i>" (values from hashlib). */
static void tokens_are_golden(void) {
    uint32_t ends[] = {0, 255};
    dkv_cluster_map *map = map_new(1);
    add(map,
        (dkv_member){.id = "x", .token_name = "n1", .token_indices = ends, .n_token_indices = 2});
    dkv_ring *ring = ring_of(map);
    CHECK(dkv_ring_intervals(ring) == 2);
    CHECK(dkv_ring_end(ring, 0) == UINT64_C(0x9da078e7cfde61cd));
    CHECK(dkv_ring_end(ring, 1) == UINT64_C(0xdd3603f78d105573));
    dkv_ring_del(ring);
}

/* A lone member holds every position, and the circle of one token is a single interval. */
static void one_member_holds_everything(void) {
    uint32_t index[] = {42};
    dkv_cluster_map *map = map_new(1);
    add(map, (dkv_member){.id = "only", .token_indices = index, .n_token_indices = 1});
    dkv_ring *ring = ring_of(map);
    uint64_t end = dkv_ring_end(ring, 0);
    CHECK(dkv_ring_intervals(ring) == 1);
    const uint64_t positions[] = {0, end - 1, end, end + 1, UINT64_MAX};
    for (int i = 0; i < 5; i++) {
        CHECK(dkv_ring_find(ring, positions[i]) == 0);
        CHECK(strcmp(id_at(ring, positions[i], 0), "only") == 0);
    }
    dkv_ring_del(ring);
}

/* A position belongs to the first token at or after it; behind the last it wraps to the first. */
static void intervals_end_with_their_token(void) {
    dkv_ring *ring = ring_of(plain_map(3, 2));
    uint32_t n = dkv_ring_intervals(ring);
    CHECK(n == 3 * DKV_TOKENS_PER_WEIGHT);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end = dkv_ring_end(ring, i);
        CHECK(i == 0 || dkv_ring_end(ring, i - 1) < end);
        CHECK(dkv_ring_find(ring, end) == i);
        CHECK(dkv_ring_find(ring, end + 1) == (i + 1) % n);
        CHECK(dkv_ring_replicas(ring, end) == dkv_ring_list(ring, i));
        CHECK(dkv_ring_token_owner(ring, i) == dkv_ring_list(ring, i)[0]);
    }
    CHECK(dkv_ring_find(ring, 0) == 0 && dkv_ring_find(ring, UINT64_MAX) == 0);
    dkv_ring_del(ring);
}

/* A member has 256 tokens for each unit of weight. */
static void weight_multiplies_tokens(void) {
    dkv_cluster_map *map = map_new(1);
    add(map, (dkv_member){.id = "light"});
    add(map, (dkv_member){.id = "middle", .weight = 5});
    add(map, (dkv_member){.id = "heavy", .weight = DKV_WEIGHT_MAX});
    dkv_ring *ring = ring_of(map);
    uint32_t counts[3] = {0};
    for (uint32_t i = 0; i < dkv_ring_intervals(ring); i++) counts[dkv_ring_token_owner(ring, i)]++;
    CHECK(counts[0] == 16 * 256 && counts[1] == 256 && counts[2] == 5 * 256);
    dkv_ring_del(ring);
}

/* A replacement that takes over the token name of its predecessor takes over all its places. */
static void replacement_inherits_places(void) {
    dkv_cluster_map *map = plain_map(4, 3);
    dkv_ring *before = ring_new(map);
    CHECK(dkv_cluster_map_remove(map, "n001") == DKV_OK);
    add(map, (dkv_member){.id = "replacement", .token_name = "n001"});
    dkv_ring *after = ring_of(map);
    CHECK(dkv_ring_intervals(before) == dkv_ring_intervals(after));
    for (uint32_t i = 0; i < dkv_ring_intervals(before); i++) {
        uint64_t end = dkv_ring_end(before, i);
        CHECK(dkv_ring_end(after, i) == end);
        for (unsigned place = 0; place < 3; place++) {
            const char *old = id_at(before, end, place);
            const char *expected = strcmp(old, "n001") == 0 ? "replacement" : old;
            CHECK(strcmp(id_at(after, end, place), expected) == 0);
        }
    }
    dkv_ring_del(before);
    dkv_ring_del(after);
}

/* Where tokens of two members coincide there is one interval, and the lower index comes first. */
static void coinciding_tokens_go_to_the_lower_index(void) {
    dkv_cluster_map *map = map_new(2);
    add(map, (dkv_member){.id = "b"});
    add(map, (dkv_member){.id = "a", .token_name = "b"});
    dkv_ring *ring = ring_of(map);
    CHECK(dkv_ring_intervals(ring) == 256);
    for (uint32_t i = 0; i < 256; i++) {
        CHECK(dkv_ring_list(ring, i)[0] == 0 && dkv_ring_list(ring, i)[1] == 1);
    }
    dkv_ring_del(ring);
}

/* Two replicas never share a zone while another zone is left, nor a host while another host is. */
static void zones_then_hosts_are_spread(void) {
    dkv_cluster_map *map = map_new(3);
    add(map, (dkv_member){.id = "a1", .host = "ha", .zone = "z1"});
    add(map, (dkv_member){.id = "a2", .host = "ha", .zone = "z1"});
    add(map, (dkv_member){.id = "b1", .host = "hb", .zone = "z1"});
    add(map, (dkv_member){.id = "c1", .host = "hc", .zone = "z2"});
    dkv_ring *ring = ring_of(map);
    for (uint32_t i = 0; i < dkv_ring_intervals(ring); i++) {
        const uint16_t *list = dkv_ring_list(ring, i);
        unsigned members = 0;
        for (int place = 0; place < 3; place++) members |= 1u << list[place];
        CHECK(members == 0xd || members == 0xe); /* hb, hc, and one of the two on ha */
        CHECK(list[0] == 3 || list[1] == 3);     /* the other zone before the other host */
    }
    dkv_ring_del(ring);
}

/* Members without a zone are kept apart by host, and share no zone with anybody. */
static void members_without_zone_are_spread_by_host(void) {
    dkv_cluster_map *map = map_new(3);
    add(map, (dkv_member){.id = "a1", .host = "ha"});
    add(map, (dkv_member){.id = "a2", .host = "ha"});
    add(map, (dkv_member){.id = "b1", .host = "hb"});
    add(map, (dkv_member){.id = "c1", .host = "hc", .zone = "z"});
    dkv_ring *ring = ring_of(map);
    for (uint32_t i = 0; i < dkv_ring_intervals(ring); i++) {
        const uint16_t *list = dkv_ring_list(ring, i);
        CHECK((list[0] < 2) + (list[1] < 2) + (list[2] < 2) == 1);
    }
    dkv_ring_del(ring);
}

/* Every list of random rings follows the definition. */
static void lists_match_the_reference(void) {
    dkv_rand rand = {check_seed};
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_cluster_map *map = random_map(&rand);
        naive_ring naive = naive_new(map);
        dkv_ring *ring = ring_new(map);
        for (int i = 0; i < 100; i++) {
            uint64_t position = dkv_rand_next(&rand);
            if (i % 2) position = naive.tokens[dkv_rand_below(&rand, naive.n)].position;
            position += dkv_rand_below(&rand, 3) - 1;
            uint16_t expected[DKV_REPLICATION_MAX];
            naive_list(&naive, position, expected);
            CHECK(memcmp(dkv_ring_replicas(ring, position), expected,
                         map->replication * sizeof *expected) == 0);
        }
        free(naive.tokens);
        dkv_ring_del(ring);
        dkv_cluster_map_del(map);
    }
}

/* ---- differences ---------------------------------------------------------------------------- */

static bool is_in(const dkv_ring_change *change, uint64_t position) {
    return change->after == change->upto ||
           position - change->after - 1 < change->upto - change->after;
}

static bool lists_differ(const dkv_ring *from, const dkv_ring *to, uint64_t position) {
    unsigned n = dkv_ring_replication(from);
    if (n != dkv_ring_replication(to)) return true;
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(id_at(from, position, i), id_at(to, position, i)) != 0) return true;
    }
    return false;
}

/* One position: covered once with the right lists if they differ, and not at all otherwise. */
static void check_position(const dkv_ring *from, const dkv_ring *to, const dkv_ring_change *changes,
                           size_t n, uint64_t position) {
    const dkv_ring_change *holder = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!is_in(&changes[i], position)) continue;
        CHECK(!holder);
        holder = &changes[i];
    }
    CHECK((holder != NULL) == lists_differ(from, to, position));
    if (!holder) return;
    CHECK(holder->n_before == dkv_ring_replication(from));
    CHECK(holder->n_after == dkv_ring_replication(to));
    CHECK(memcmp(holder->before_list, dkv_ring_replicas(from, position),
                 holder->n_before * sizeof(uint16_t)) == 0);
    CHECK(memcmp(holder->after_list, dkv_ring_replicas(to, position),
                 holder->n_after * sizeof(uint16_t)) == 0);
}

/* Ascending, and no two neighbours that could have been one. */
static void check_form(const dkv_ring_change *changes, size_t n) {
    for (size_t i = 0; i < n && n > 1; i++) {
        const dkv_ring_change *left = &changes[i];
        const dkv_ring_change *right = &changes[(i + 1) % n];
        CHECK(i + 1 == n || left->upto < right->upto);
        CHECK(left->after != left->upto);
        CHECK(left->upto != right->after ||
              memcmp(left->before_list, right->before_list, left->n_before * sizeof(uint16_t)) ||
              memcmp(left->after_list, right->after_list, left->n_after * sizeof(uint16_t)));
    }
}

static void check_boundaries(const dkv_ring *of, const dkv_ring *from, const dkv_ring *to,
                             const dkv_ring_change *changes, size_t n) {
    uint32_t step = 1 + dkv_ring_intervals(of) / 200;
    for (uint32_t i = 0; i < dkv_ring_intervals(of); i += step) {
        uint64_t end = dkv_ring_end(of, i);
        check_position(from, to, changes, n, end - 1);
        check_position(from, to, changes, n, end);
        check_position(from, to, changes, n, end + 1);
    }
    check_position(from, to, changes, n, dkv_ring_end(of, dkv_ring_intervals(of) - 1) + 1);
}

static void check_diff(dkv_rand *rand, const dkv_ring *from, const dkv_ring *to) {
    dkv_ring_change *changes = NULL;
    size_t n = 0;
    CHECK(dkv_ring_diff(from, to, &changes, &n) == DKV_OK);
    check_form(changes, n);
    check_boundaries(from, from, to, changes, n);
    check_boundaries(to, from, to, changes, n);
    for (int i = 0; i < 100; i++) check_position(from, to, changes, n, dkv_rand_next(rand));
    check_position(from, to, changes, n, 0);
    check_position(from, to, changes, n, UINT64_MAX);
    free(changes);
}

/* The difference of random maps, one a change or two away from the other, is exact. */
static void diff_is_exact(void) {
    dkv_rand rand = {check_seed};
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_cluster_map *map = random_map(&rand);
        dkv_ring *from = ring_new(map);
        for (uint64_t k = 1 + dkv_rand_below(&rand, 2); k > 0; k--) {
            if (map->n_members > map->replication && dkv_rand_below(&rand, 2)) {
                uint64_t victim = dkv_rand_below(&rand, map->n_members);
                CHECK(dkv_cluster_map_remove(map, map->members[victim].id) == DKV_OK);
            } else {
                add_random_member(&rand, map);
            }
        }
        if (dkv_rand_below(&rand, 8) == 0 && map->replication > 1) map->replication--;
        dkv_ring *to = ring_of(map);
        check_diff(&rand, from, to);
        check_diff(&rand, to, from);
        dkv_ring_del(from);
        dkv_ring_del(to);
    }
}

/* Rings of the same members differ nowhere. */
static void diff_of_equal_rings_is_empty(void) {
    dkv_ring *a = ring_of(plain_map(7, 3));
    dkv_ring *b = ring_of(plain_map(7, 3));
    dkv_ring_change *changes = NULL;
    size_t n = 1;
    CHECK(dkv_ring_diff(a, b, &changes, &n) == DKV_OK && n == 0);
    free(changes);
    dkv_ring_del(a);
    dkv_ring_del(b);
}

/* When a lone member is replaced, the change is one range: the whole circle. */
static void diff_of_lone_members_is_one_circle(void) {
    dkv_cluster_map *other = map_new(1);
    add(other, (dkv_member){.id = "other"});
    dkv_ring *from = ring_of(plain_map(1, 1));
    dkv_ring *to = ring_of(other);
    dkv_ring_change *changes = NULL;
    size_t n = 0;
    CHECK(dkv_ring_diff(from, to, &changes, &n) == DKV_OK);
    CHECK(n == 1 && changes[0].after == changes[0].upto);
    free(changes);
    dkv_ring_del(from);
    dkv_ring_del(to);
}

/* A change that reaches across zero is one range, with `after` above `upto`. */
static void diff_wraps_across_zero(void) {
    uint32_t index[] = {0};
    dkv_cluster_map *map = map_new(1);
    add(map, (dkv_member){.id = "a", .token_indices = index, .n_token_indices = 1});
    add(map, (dkv_member){.id = "b", .token_indices = index, .n_token_indices = 1});
    dkv_ring *both = ring_new(map);
    uint64_t first = dkv_ring_end(both, 0);
    uint64_t last = dkv_ring_end(both, 1);
    uint16_t leaver = dkv_ring_token_owner(both, 0);
    CHECK(dkv_cluster_map_remove(map, leaver ? "b" : "a") == DKV_OK);
    dkv_ring *one = ring_of(map);
    dkv_ring_change *changes = NULL;
    size_t n = 0;
    CHECK(dkv_ring_diff(both, one, &changes, &n) == DKV_OK);
    CHECK(n == 1 && changes[0].after == last && changes[0].upto == first && last > first);
    free(changes);
    dkv_ring_del(both);
    dkv_ring_del(one);
}

static const check_test tests[] = {
    CHECK_TEST(members_are_ordered),
    CHECK_TEST(defaults_are_filled_in),
    CHECK_TEST(bad_members_are_refused),
    CHECK_TEST(limits_are_accepted),
    CHECK_TEST(bad_cluster_names_are_refused),
    CHECK_TEST(bad_maps_make_no_ring),
    CHECK_TEST(digest_covers_all_but_addresses),
    CHECK_TEST(tokens_are_golden),
    CHECK_TEST(one_member_holds_everything),
    CHECK_TEST(intervals_end_with_their_token),
    CHECK_TEST(weight_multiplies_tokens),
    CHECK_TEST(replacement_inherits_places),
    CHECK_TEST(coinciding_tokens_go_to_the_lower_index),
    CHECK_TEST(zones_then_hosts_are_spread),
    CHECK_TEST(members_without_zone_are_spread_by_host),
    CHECK_TEST(lists_match_the_reference),
    CHECK_TEST(diff_is_exact),
    CHECK_TEST(diff_of_equal_rings_is_empty),
    CHECK_TEST(diff_of_lone_members_is_one_circle),
    CHECK_TEST(diff_wraps_across_zero),
};
CHECK_MAIN(tests)
