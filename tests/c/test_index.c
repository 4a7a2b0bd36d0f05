/* The index of the store, compared with a sorted array. */
#include "base/err.h"
#include "base/rand.h"
#include "check.h"
#include "store/index.h"

#define MODEL_MAX 6000u

/* ---- the reference: entries in a sorted array ---- */

typedef struct model {
    dkv_index_entry entries[MODEL_MAX];
    size_t len;
} model;

static size_t model_find(const model *m, dkv_key_hash hash) {
    size_t low = 0, high = m->len;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (dkv_key_hash_cmp(m->entries[middle].hash, hash) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool model_holds(const model *m, size_t at, dkv_key_hash hash) {
    return at < m->len && dkv_key_hash_cmp(m->entries[at].hash, hash) == 0;
}

static void model_put(model *m, dkv_index_entry entry) {
    size_t at = model_find(m, entry.hash);
    if (!model_holds(m, at, entry.hash)) {
        memmove(&m->entries[at + 1], &m->entries[at], (m->len - at) * sizeof entry);
        m->len++;
    }
    m->entries[at] = entry;
}

static bool model_remove(model *m, dkv_key_hash hash) {
    size_t at = model_find(m, hash);
    if (!model_holds(m, at, hash)) return false;
    m->len--;
    memmove(&m->entries[at], &m->entries[at + 1], (m->len - at) * sizeof m->entries[0]);
    return true;
}

static dkv_index_sum model_range(const model *m, uint64_t first, uint64_t last) {
    dkv_index_sum sum = {0};
    for (size_t i = 0; i < m->len; i++) {
        if (m->entries[i].hash.token < first || m->entries[i].hash.token > last) continue;
        sum.count++;
        dkv_digest_add(&sum.digest, dkv_index_digest_of(&m->entries[i]));
    }
    return sum;
}

/* ---- random input: few tokens, so that some are equal, spread over the whole ring ---- */

static dkv_key_hash any_hash(dkv_rand *rand, uint64_t n_tokens) {
    uint64_t token = dkv_rand_below(rand, n_tokens);
    if (token + 1 == n_tokens)
        token = UINT64_MAX;
    else
        token *= UINT64_MAX / n_tokens;
    return (dkv_key_hash){token, dkv_rand_below(rand, 3)};
}

static dkv_index_entry any_entry(dkv_rand *rand, dkv_key_hash hash) {
    dkv_place place = {.slot = (uint32_t)dkv_rand_below(rand, DKV_SLOTS_MAX),
                       .offset = (uint32_t)dkv_rand_below(rand, DKV_SEGMENT_BYTES_MAX) & ~7u,
                       .len_bytes = 8 + ((uint32_t)dkv_rand_below(rand, 1u << 20) & ~7u),
                       .tombstone = dkv_rand_below(rand, 4) == 0};
    dkv_version version = {dkv_rand_next(rand), 1 + dkv_rand_below(rand, 50)};
    return (dkv_index_entry){hash, version, dkv_place_pack(place)};
}

static bool same(const dkv_index_entry *a, const dkv_index_entry *b) {
    return dkv_key_hash_cmp(a->hash, b->hash) == 0 &&
           dkv_version_cmp(a->version, b->version) == 0 && a->place == b->place;
}

static void check_same_content(const dkv_index *index, const model *m) {
    dkv_key_hash from = {0, 0};
    size_t seen = 0, n;
    dkv_index_entry page[7];
    while ((n = dkv_index_page(index, from, page, 7)) > 0) {
        for (size_t i = 0; i < n; i++) {
            CHECK(seen < m->len);
            CHECK(same(&page[i], &m->entries[seen++]));
        }
        from = page[n - 1].hash;
        if (from.tag++ == UINT64_MAX && from.token++ == UINT64_MAX) break;
    }
    CHECK(seen == m->len && index->total.count == m->len);
}

static void check_range(const dkv_index *index, const model *m, uint64_t first, uint64_t last) {
    dkv_index_sum got = dkv_index_range(index, first, last);
    dkv_index_sum want = model_range(m, first, last);
    CHECK(got.count == want.count && dkv_digest_eq(got.digest, want.digest));
}

/* One random operation on both; `growth` of 100 insert, the rest remove. */
static void step(dkv_index *index, model *m, dkv_rand *rand, uint64_t n_tokens, uint64_t growth) {
    dkv_key_hash hash = any_hash(rand, n_tokens);
    dkv_index_entry entry = any_entry(rand, hash), found;
    if (dkv_rand_below(rand, 100) < growth && m->len < MODEL_MAX) {
        CHECK(dkv_index_put(index, &entry) == DKV_OK);
        model_put(m, entry);
    } else {
        CHECK(dkv_index_remove(index, hash) == model_remove(m, hash));
    }
    hash = any_hash(rand, n_tokens);
    size_t at = model_find(m, hash);
    bool there = model_holds(m, at, hash);
    CHECK(dkv_index_get(index, hash, &found) == there);
    if (there) CHECK(same(&found, &m->entries[at]));
    if (there && dkv_rand_below(rand, 2)) {
        m->entries[at].place ^= 1u << 19;
        CHECK(dkv_index_move(index, hash, m->entries[at].place));
    }
    if (dkv_rand_below(rand, 16) == 0) {
        check_range(index, m, any_hash(rand, n_tokens).token, any_hash(rand, n_tokens).token);
    }
}

/* ---- tests ---- */

/* Any history of insertions, updates, moves and removals leaves the content, counts and range
 * digests that a sorted array has. */
static void agrees_with_a_sorted_array(void) {
    model *m = malloc(sizeof *m);
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed * 1000 + run};
        dkv_index index = {0};
        m->len = 0;
        uint64_t n_tokens = 1 + dkv_rand_below(&rand, 4000);
        uint64_t steps = dkv_rand_below(&rand, 4000);
        for (int phase = 0; phase < 3; phase++) {
            uint64_t growth = phase == 0 ? 95 : dkv_rand_below(&rand, 100);
            for (uint64_t i = 0; i < steps; i++) step(&index, m, &rand, n_tokens, growth);
            check_same_content(&index, m);
            check_range(&index, m, 0, UINT64_MAX);
        }
        while (m->len > 0) {
            dkv_key_hash hash = m->entries[dkv_rand_below(&rand, m->len)].hash;
            CHECK(dkv_index_remove(&index, hash) && model_remove(m, hash));
        }
        CHECK(index.root == NULL && index.node_bytes == 0);
        CHECK(index.total.count == 0 && dkv_digest_eq(index.total.digest, (dkv_digest){0}));
        dkv_index_free(&index);
    }
    free(m);
}

/* A bulk load gives the same index as insertions, and can be changed afterwards. */
static void bulk_load_agrees(void) {
    model *m = malloc(sizeof *m);
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed * 2000 + run};
        dkv_index index = {0};
        dkv_index_load load;
        m->len = 0;
        uint64_t entries = dkv_rand_below(&rand, 5000);
        for (uint64_t i = 0; i < entries; i++) {
            model_put(m, any_entry(&rand, any_hash(&rand, 4000)));
        }
        dkv_index_load_init(&load, &index);
        for (size_t i = 0; i < m->len; i++) {
            CHECK(dkv_index_load_add(&load, &m->entries[i]) == DKV_OK);
        }
        CHECK(dkv_index_load_finish(&load) == DKV_OK);
        dkv_index_load_free(&load);
        check_same_content(&index, m);
        for (int i = 0; i < 500; i++) step(&index, m, &rand, 4000, 60);
        check_same_content(&index, m);
        check_range(&index, m, 0, UINT64_MAX);
        dkv_index_free(&index);
    }
    free(m);
}

/* A bulk load refuses entries out of order and frees what it had. */
static void bulk_load_refuses_disorder(void) {
    dkv_index index = {0};
    dkv_index_load load;
    dkv_index_load_init(&load, &index);
    dkv_index_entry entry = {.hash = {5, 5}, .version = {1, 1}};
    CHECK(dkv_index_load_add(&load, &entry) == DKV_OK);
    CHECK(dkv_index_load_add(&load, &entry) == DKV_ERR_INVALID);
    dkv_index_load_free(&load);
    CHECK(index.root == NULL && index.node_bytes == 0);
    dkv_index_free(&index);
}

/* The digest tells apart what replicas must not confuse: key, version, kind; not the place. */
static void digest_covers_version_and_kind(void) {
    dkv_index_entry base = {{1, 2}, {3, 4}, 8u << 1};
    dkv_digest digest = dkv_index_digest_of(&base);
    dkv_index_entry other[] = {base, base, base, base, base, base};
    other[0].hash.token++;
    other[1].hash.tag++;
    other[2].version.hlc++;
    other[3].version.origin += 1ull << 40;
    other[4].place |= 1;
    other[5].place += 1u << 20;
    for (int i = 0; i < 5; i++) {
        CHECK(!dkv_digest_eq(digest, dkv_index_digest_of(&other[i])));
    }
    CHECK(dkv_digest_eq(digest, dkv_index_digest_of(&other[5])));
}

/* A place survives packing at the ends of its ranges. */
static void places_pack(void) {
    dkv_place places[] = {{0, 0, 8, false},
                          {65535, DKV_SEGMENT_BYTES_MAX - 8, 1049704, true},
                          {65535, 0xFFFFFFF8u, (1u << 21) - 8, false}};
    for (size_t i = 0; i < 3; i++) {
        dkv_place back = dkv_place_unpack(dkv_place_pack(places[i]));
        CHECK(back.slot == places[i].slot && back.offset == places[i].offset);
        CHECK(back.len_bytes == places[i].len_bytes && back.tombstone == places[i].tombstone);
    }
}

/* Origins are interned without loss, up to their limit; one more is refused and changes nothing. */
static void origins_are_bounded(void) {
    dkv_index index = {0};
    dkv_index_entry entry = {.place = 16}, found;
    for (uint64_t i = 1; i <= DKV_ORIGINS_MAX; i++) {
        entry.hash.token = i << 40;
        entry.version = (dkv_version){i, i * 0x9E3779B97F4A7C15u};
        CHECK(dkv_index_put(&index, &entry) == DKV_OK);
    }
    dkv_index_sum before = index.total;
    entry.version.origin = 1;
    CHECK(dkv_index_put(&index, &entry) == DKV_ERR_BUSY);
    CHECK(index.total.count == before.count);
    CHECK(dkv_digest_eq(index.total.digest, before.digest));
    for (uint64_t i = 1; i <= DKV_ORIGINS_MAX; i++) {
        CHECK(dkv_index_get(&index, (dkv_key_hash){i << 40, 0}, &found));
        CHECK(found.version.hlc == i && found.version.origin == i * 0x9E3779B97F4A7C15u);
    }
    dkv_index_free(&index);
}

static dkv_index_entry numbered(uint64_t number) {
    dkv_rand rand = {number};
    return (dkv_index_entry){{dkv_rand_next(&rand), 0}, {number, 1 + number % 5}, 16};
}

static int by_hash(const void *left, const void *right) {
    const dkv_index_entry *a = left, *b = right;
    return dkv_key_hash_cmp(a->hash, b->hash);
}

static void check_bytes_per_key(const dkv_index *index, const char *what, double limit) {
    double bytes = (double)dkv_index_bytes(index) / (double)index->total.count;
    if (bytes > limit) printf("%s: %.1f bytes a key\n", what, bytes);
    CHECK(bytes <= limit);
}

#define MANY 1000000u

/* A million random insertions cost at most 48 bytes a key, at every point of the growth. */
static void random_insertions_stay_within_48_bytes(void) {
    dkv_index index = {0};
    double most = 0;
    for (uint64_t i = 0; i < MANY; i++) {
        dkv_index_entry entry = numbered(i);
        CHECK(dkv_index_put(&index, &entry) == DKV_OK);
        double bytes = (double)dkv_index_bytes(&index) / (double)index.total.count;
        if (i > 10000 && bytes > most) most = bytes;
    }
    printf("random insertions: %.1f bytes a key at the end, %.1f at most\n",
           (double)dkv_index_bytes(&index) / MANY, most);
    CHECK(most <= 48);
    dkv_index_free(&index);
}

/* A bulk load costs at most 40 bytes a key, and growing on from it at most 48. */
static void bulk_load_stays_within_40_bytes(void) {
    dkv_index_entry *entries = malloc(MANY * sizeof *entries);
    for (uint64_t i = 0; i < MANY; i++) entries[i] = numbered(i);
    qsort(entries, MANY, sizeof *entries, by_hash);
    dkv_index index = {0};
    dkv_index_load load;
    dkv_index_load_init(&load, &index);
    for (uint64_t i = 0; i < MANY; i++) CHECK(!dkv_index_load_add(&load, &entries[i]));
    CHECK(dkv_index_load_finish(&load) == DKV_OK);
    dkv_index_load_free(&load);
    free(entries);
    check_bytes_per_key(&index, "bulk load", 40);
    printf("bulk load: %.1f bytes a key\n", (double)dkv_index_bytes(&index) / MANY);
    for (uint64_t i = MANY; i < MANY + MANY / 4; i++) {
        dkv_index_entry entry = numbered(i);
        CHECK(dkv_index_put(&index, &entry) == DKV_OK);
        if (i % 1000 == 0) check_bytes_per_key(&index, "growth after a bulk load", 48);
    }
    dkv_index_free(&index);
}

static const check_test tests[] = {
    CHECK_TEST(agrees_with_a_sorted_array),
    CHECK_TEST(bulk_load_agrees),
    CHECK_TEST(bulk_load_refuses_disorder),
    CHECK_TEST(digest_covers_version_and_kind),
    CHECK_TEST(places_pack),
    CHECK_TEST(origins_are_bounded),
    CHECK_TEST(random_insertions_stay_within_48_bytes),
    CHECK_TEST(bulk_load_stays_within_40_bytes),
};
CHECK_MAIN(tests)
