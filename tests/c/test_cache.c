/* The cache of records read lately, alone and in a store. */
#include "store/cache.h"

#include "store_world.h"

#define RING_BYTES (4 * DKV_CACHE_RECORD_MAX)
#define NAMES 4096u

/* ---- alone ---- */

static uint64_t name_of(uint32_t n) {
    return dkv_cache_name(1 + n % 3, 8 * n);
}

static uint32_t len_of(uint32_t n) {
    uint32_t max = n % 16 ? 300 : DKV_CACHE_RECORD_MAX;
    return 1 + (uint32_t)(mix(n, 1) % max);
}

static bool has(const dkv_cache *cache, uint32_t n) {
    static uint8_t expected[DKV_CACHE_RECORD_MAX];
    const uint8_t *record = dkv_cache_get(cache, name_of(n));
    if (!record) return false;
    fill_value(n, expected, len_of(n));
    CHECK(memcmp(record, expected, len_of(n)) == 0);
    return true;
}

static void add(dkv_cache *cache, uint32_t n) {
    static uint8_t record[DKV_CACHE_RECORD_MAX];
    fill_value(n, record, len_of(n));
    dkv_cache_add(cache, name_of(n), record, len_of(n));
}

/* Whatever it still has is what was put in; the newest record it always has, and many others. */
static void gives_back_what_it_was_given(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed * 1000003 + run};
        dkv_cache cache;
        uint64_t found = 0;
        CHECK(dkv_cache_init(&cache, RING_BYTES + dkv_rand_below(&rand, 1000)) == DKV_OK);
        for (uint32_t i = 0; i < 500; i++) {
            uint32_t n = (uint32_t)dkv_rand_below(&rand, NAMES);
            add(&cache, n);
            CHECK(has(&cache, n));
            found += has(&cache, (uint32_t)dkv_rand_below(&rand, NAMES));
        }
        CHECK(found > 0);
        dkv_cache_free(&cache);
    }
}

/* A record leaves when as many bytes as the ring has were added after its beginning. */
static void oldest_makes_room(void) {
    dkv_cache cache;
    CHECK(dkv_cache_init(&cache, RING_BYTES) == DKV_OK);
    static uint8_t record[DKV_CACHE_RECORD_MAX];
    for (uint32_t i = 0; i < 4; i++) {
        dkv_cache_add(&cache, dkv_cache_name(1, i), record, DKV_CACHE_RECORD_MAX);
    }
    for (uint32_t i = 0; i < 4; i++) CHECK(dkv_cache_get(&cache, dkv_cache_name(1, i)));
    dkv_cache_add(&cache, dkv_cache_name(2, 0), record, 1);
    CHECK(!dkv_cache_get(&cache, dkv_cache_name(1, 0)));
    CHECK(dkv_cache_get(&cache, dkv_cache_name(1, 1)));
    dkv_cache_free(&cache);
}

/* Without room it keeps nothing, and large records are not for it. */
static void some_are_not_kept(void) {
    dkv_cache cache;
    static uint8_t record[DKV_CACHE_RECORD_MAX + 1];
    CHECK(dkv_cache_init(&cache, 2 * DKV_CACHE_RECORD_MAX - 1) == DKV_OK);
    dkv_cache_add(&cache, dkv_cache_name(1, 8), record, 8);
    CHECK(!dkv_cache_get(&cache, dkv_cache_name(1, 8)));
    dkv_cache_free(&cache);
    CHECK(dkv_cache_init(&cache, RING_BYTES) == DKV_OK);
    dkv_cache_add(&cache, dkv_cache_name(1, 8), record, sizeof record);
    CHECK(!dkv_cache_get(&cache, dkv_cache_name(1, 8)));
    dkv_cache_free(&cache);
}

/* ---- in a store ---- */

/* Reopened, so that no record is left in the tail's memory. */
static world *filled_world(size_t cache_bytes) {
    world *w = world_anew(check_seed);
    w->options.cache_bytes = cache_bytes;
    CHECK(world_open(w) == DKV_OK);
    world_write_and_settle(w, 300);
    world_stop(w, STOP_KILL);
    CHECK(world_open(w) == DKV_OK && world_compare(w) == 0);
    return w;
}

/* What was read once is read again without the disk, which a store without a cache needs. */
static void second_read_needs_no_disk(void) {
    world *w = filled_world(1 << 20);
    world_read_all(w);
    dkv_sim_disk_fail_reads(w->disk, UINT32_MAX);
    world_read_all(w); /* CHECKs that every read succeeds */
    w = filled_world(0);
    world_read_all(w);
    dkv_sim_disk_fail_reads(w->disk, UINT32_MAX);
    w->may_lose = true;
    world_read(w, key_of_write(w->writes));
    CHECK(dkv_store_next_job(w->store));
}

/* A key that was overwritten, or whose record merge has moved, is read as it is now. */
static void newest_record_is_read(void) {
    world *w = filled_world(1 << 20);
    for (int round = 0; round < 20; round++) {
        world_read_all(w);
        world_write_and_settle(w, 200);
    }
    world_read_all(w);
    CHECK(world_stats(w).merged_bytes > 0);
}

static const check_test tests[] = {
    CHECK_TEST(gives_back_what_it_was_given),
    CHECK_TEST(oldest_makes_room),
    CHECK_TEST(some_are_not_kept),
    CHECK_TEST(second_read_needs_no_disk),
    CHECK_TEST(newest_record_is_read),
};
CHECK_MAIN(tests)
