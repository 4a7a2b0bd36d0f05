/* Scrub (csrc/store/scrub.h) on a simulated disk that rots: damage is found without any read by a
 * client, told once, and nothing else is lost by looking for it. */
#include "store/scrub.h"

#include "store_world.h"

#define MS 1000000LL
#define FAST_BYTES_PER_S (64u << 20)
#define FAST_INTERVAL_MS 240u /* so the first pass begins 10 ms after the start */

static world *new_world(uint64_t seed, uint64_t bytes_per_s, uint32_t interval_ms) {
    world_anew(seed);
    the_world->options.scrub_bytes_per_s = bytes_per_s;
    the_world->options.scrub_interval_ms = interval_ms;
    CHECK(world_open(the_world) == DKV_OK);
    return the_world;
}

static void pass_ms(world *w, int64_t ms) {
    int64_t end = w->now_ns + ms * MS;
    while (w->now_ns < end) world_step(w);
    world_settle(w);
}

/* Waits for the end of `n` more passes. */
static void await_passes(world *w, uint64_t n) {
    uint64_t upto = w->scrub_events + n;
    for (int i = 0; i < 1000 && w->scrub_events < upto; i++) pass_ms(w, 50);
    CHECK(w->scrub_events >= upto && world_stats(w).scrub_passes == w->scrub_events);
}

static uint64_t missing_keys(const world *w) {
    uint64_t missing = 0;
    dkv_store_entry entry;
    for (uint32_t key = 0; key < WORLD_KEYS; key++) {
        missing += w->current[key] && dkv_store_peek(w->store, hash_of(key), &entry) != DKV_OK;
    }
    return missing;
}

/* After a pass that began later than the damage every record that is left is sound. */
static void check_only_sound_left(world *w) {
    await_passes(w, 2);
    uint64_t told = w->damaged_events;
    CHECK(world_stats(w).damaged_records == told);
    world_read_all(w);
    await_passes(w, 1);
    CHECK(w->damaged_events == told);
}

/* Bits that flip at rest are found without any read, in sealed segments and in the active one; each
 * record lost to them is told exactly once, and no other is lost. */
static void flip_at_rest_is_found(void) {
    uint64_t found = 0;
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = new_world(check_seed * 1000003 + run, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
        world_write_and_settle(w, 1 + dkv_rand_below(&w->rand, 800));
        uint64_t flips = 1 + dkv_rand_below(&w->rand, run % 10 ? 3 : 2 * DKV_SCRUB_GAPS_MAX);
        for (uint64_t i = 0; i < flips; i++) CHECK(dkv_sim_disk_flip_any(w->disk) == DKV_OK);
        w->may_lose = true;
        await_passes(w, 2);
        CHECK(w->damaged_events <= flips && missing_keys(w) == w->damaged_events);
        found += w->damaged_events;
        check_only_sound_left(w);
    }
    CHECK(found > check_runs / 4);
}

/* As the other replicas do when they hear of a loss. */
static void write_lost_again(world *w) {
    for (uint32_t key = 0; key < WORLD_KEYS; key++) {
        if (w->current[key]) CHECK(world_apply(w, w->current[key]) == DKV_OK);
    }
    world_settle(w);
}

/* A record that was lost can be applied again, and stays. */
static void lost_record_can_be_written_again(void) {
    world *w = new_world(check_seed, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
    world_write_and_settle(w, 300);
    w->may_lose = true;
    while (w->damaged_events == 0) {
        CHECK(dkv_sim_disk_flip_any(w->disk) == DKV_OK);
        await_passes(w, 2);
    }
    write_lost_again(w);
    w->may_lose = false;
    await_passes(w, 2);
    CHECK(missing_keys(w) == 0);
    world_read_all(w);
}

/* On a sound store every pass reads the log once, and nothing is reported. */
static void sound_store_stays_quiet(void) {
    world *w = new_world(check_seed, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
    w->max_value = 50000;
    world_write_and_settle(w, 400);
    dkv_store_stats before = world_stats(w);
    CHECK(before.segments > 3);
    await_passes(w, 3);
    dkv_store_stats after = world_stats(w);
    uint64_t read = after.scrubbed_bytes - before.scrubbed_bytes;
    CHECK(after.damaged_records == 0 && read >= 2 * before.live_bytes);
    CHECK(read <= 4 * before.log_bytes);
}

static void random_step(world *w) {
    switch (dkv_rand_below(&w->rand, 16)) {
    case 0: world_read(w, (uint32_t)dkv_rand_below(&w->rand, WORLD_KEYS)); break;
    case 1:
        if (w->may_lose) dkv_sim_disk_flip_any(w->disk);
        break;
    case 2:
    case 3:
    case 4: world_write(w); break;
    default: world_step(w); break;
    }
}

/* Merge removes segments under a pass, clients write and read, processes die, bits flip: the store
 * holds what it must, and after a further pass no damaged record is left. */
static void works_beside_merge(void) {
    uint64_t passes = 0, merged = 0;
    for (uint64_t run = 0; run < check_runs / 4 + 1; run++) {
        world *w = new_world(check_seed * 77 + run, FAST_BYTES_PER_S, 24);
        w->max_value = 20000;
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < 8000; i++) random_step(w);
            world_settle(w);
            passes += world_stats(w).scrub_passes;
            merged += world_stats(w).merged_bytes;
            if (w->may_lose) continue;
            world_read_all(w);
            world_stop(w, round % 2 ? STOP_KILL : STOP_POWER);
            w->scrub_events = 0;
            CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
            CHECK(world_compare(w) == 0);
            w->may_lose = run % 2;
        }
        check_only_sound_left(w);
    }
    CHECK(passes > check_runs && merged > 0);
}

/* Damage that was found is told again by the next start, however the store ended, until the
 * node has set facts: even if merge has removed the segment that shows it. */
static void found_damage_is_not_forgotten(void) {
    uint64_t found = 0;
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = new_world(check_seed * 991 + run, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
        w->max_value = 20000;
        world_write_and_settle(w, 300);
        w->may_lose = true;
        dkv_disk_file at;
        CHECK(dkv_sim_disk_choose_byte(w->disk, &at) == DKV_OK);
        CHECK(dkv_sim_disk_flip(w->disk, at, at.size_bytes, 3) == DKV_OK);
        world_write_and_settle(w, 8); /* behind it, so that it is no torn end */
        for (int i = 0; i < 4000 && w->damaged_events == 0; i++) world_step(w);
        if (w->damaged_events == 0) continue;
        found++;
        uint64_t steps = dkv_rand_below(&w->rand, run % 2 ? 50 : 5000);
        for (uint64_t i = 0; i < steps; i++) {
            if (dkv_rand_below(&w->rand, 4) == 0) world_write(w);
            world_step(w);
        }
        if (run % 3 == 0) {
            world_settle(w);
            CHECK(dkv_store_close_clean(w->store, world_run, w) == DKV_OK);
        }
        world_stop(w, run % 3 == 1 ? STOP_KILL : STOP_POWER);
        CHECK(world_open(w) == DKV_OK && w->report.damaged_records > 0);
        world_set_facts(w);
        world_settle(w);
        CHECK(dkv_store_close_clean(w->store, world_run, w) == DKV_OK);
        world_stop(w, STOP_POWER);
        CHECK(world_open(w) == DKV_OK && w->report.clean && w->report.damaged_records == 0);
    }
    CHECK(found > check_runs / 10);
}

/* A pass reads no faster than it is told, and the next one begins an interval after its end. */
static void is_paced(void) {
    const uint64_t rate = 256u << 10;
    world *w = new_world(check_seed, rate, 48000);
    w->max_value = 200000;
    world_write_and_settle(w, 600);
    uint64_t log = world_stats(w).log_bytes;
    CHECK(log > 4 * rate && w->now_ns < 2000 * MS && world_stats(w).scrubbed_bytes == 0);
    pass_ms(w, 2000 - w->now_ns / MS);
    for (int second = 0; second < 3; second++) {
        uint64_t before = world_stats(w).scrubbed_bytes;
        pass_ms(w, 1000);
        uint64_t read = world_stats(w).scrubbed_bytes - before;
        CHECK(read <= rate + DKV_SCRUB_PIECE_BYTES && read >= rate / 2);
    }
    await_passes(w, 1);
    uint64_t read = world_stats(w).scrubbed_bytes;
    pass_ms(w, 47000);
    CHECK(world_stats(w).scrubbed_bytes == read);
    pass_ms(w, 2000);
    CHECK(world_stats(w).scrubbed_bytes > read);
}

/* Between passes nothing wakes the store, empty or not. */
static void sleeps_between_passes(void) {
    world *w = new_world(check_seed, 0, 0);
    int64_t first_ns = DKV_SCRUB_INTERVAL_MS * MS / DKV_SCRUB_FIRST_PART;
    pass_ms(w, 1);
    CHECK(dkv_store_next_timer(w->store) >= first_ns);
    world_write_and_settle(w, 50);
    CHECK(dkv_store_next_timer(w->store) >= first_ns);
    w->now_ns = dkv_store_next_timer(w->store);
    await_passes(w, 1);
    CHECK(dkv_store_next_timer(w->store) >= w->now_ns + DKV_SCRUB_INTERVAL_MS * MS - 1000 * MS);
}

/* Clients' reads slow a pass down, but do not stop it. */
static void yields_to_reads(void) {
    world *w = new_world(check_seed, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
    w->max_value = 400000;
    world_write_and_settle(w, 400);
    w->options.scrub_interval_ms = 240000; /* the first pass begins ten seconds after the start */
    w->scrub_events = 0;
    world_stop(w, STOP_KILL);
    CHECK(world_open(w) == DKV_OK);
    pass_ms(w, 1);
    world_read(w, key_of_write(w->writes));
    dkv_disk_job *held = dkv_store_next_job(w->store);
    CHECK(held && held->op == DKV_DISK_READ);
    pass_ms(w, 11000);
    uint64_t read = world_stats(w).scrubbed_bytes;
    CHECK(read > 0 && read < 12 * DKV_SCRUB_PIECE_BYTES);
    dkv_sim_disk_run(w->disk, held);
    dkv_store_job_done(w->store, held);
    await_passes(w, 1);
}

/* ---- what cannot be read ---- */

static void wait_s(world *w, int64_t seconds) {
    world_wait(w, w->now_ns + seconds * 1000 * MS);
}

/* Errors that pass lose nothing, were they as many as the tries of a place, or last a minute. */
static void errors_that_pass_lose_nothing(void) {
    world *w = new_world(check_seed, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
    world_write_and_settle(w, 300);
    for (uint32_t errors = 1; errors <= DKV_HOLE_TRIES; errors++) {
        dkv_sim_disk_fail_reads(w->disk, errors);
        uint64_t passes = w->scrub_events;
        wait_s(w, 100);
        CHECK(w->scrub_events > passes);
    }
    dkv_sim_disk_fail_reads(w->disk, UINT32_MAX);
    wait_s(w, 60);
    dkv_sim_disk_fail_reads(w->disk, 0);
    wait_s(w, 100);
    CHECK(missing_keys(w) == 0 && w->damaged_events == 0 && w->unreadable_events == 0);
}

/* Writes until merge has removed the segment with the unreadable place. */
static void await_removal(world *w) {
    for (int i = 0; i < 100 && dkv_sim_disk_is_spoiled(w->disk); i++) {
        world_write_and_settle(w, 50);
    }
    CHECK(!dkv_sim_disk_is_spoiled(w->disk));
}

/* Pages that stay unreadable lose the records that touch them, and no others; these are told, can
 * be applied again, and stay. Passes count. The segment goes once merge has seen to what is left.
 */
static void unreadable_place_is_lost(void) {
    uint64_t found = 0;
    for (uint64_t run = 0; run < check_runs / 4 + 1; run++) {
        world *w = new_world(check_seed * 4211 + run, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
        w->max_value = run % 2 ? 2000 : 40000;
        world_write_and_settle(w, 1 + dkv_rand_below(&w->rand, 800));
        world_spoil(w, 1 + (uint32_t)(run % 3));
        uint64_t lost = world_unreadable(w);
        found += lost;
        w->may_lose = true;
        wait_s(w, 300);
        CHECK(w->damaged_events == lost && missing_keys(w) == lost && world_unreadable(w) == 0);
        uint64_t passes = w->scrub_events;
        wait_s(w, 2);
        CHECK(w->scrub_events > passes && w->unreadable_events == 0);
        write_lost_again(w);
        w->may_lose = false;
        world_read_all(w);
        await_removal(w);
        wait_s(w, 2);
        world_read_all(w);
    }
    CHECK(found > check_runs / 10);
}

/* However many places there are in the course of time, each is seen to. */
static void places_may_come_one_after_the_other(void) {
    world *w = new_world(check_seed, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
    world_write_and_settle(w, 300);
    for (unsigned i = 0; i < DKV_HOLES_MAX + 2; i++) {
        world_spoil(w, 1);
        w->may_lose = true;
        wait_s(w, 100);
        CHECK(world_unreadable(w) == 0);
        write_lost_again(w);
        w->may_lose = false;
        await_removal(w);
    }
    world_read_all(w);
    CHECK(w->damaged_events > 0 && w->unreadable_events == 0);
}

/* A client's read that fails is not given up, but has scrub look at the place at once. */
static void failed_read_calls_for_scrub(void) {
    world *w = new_world(check_seed, 0, 0);
    w->max_value = 20000;
    world_write_and_settle(w, 300);
    uint32_t key = 0;
    while (!world_is_unreadable(w, key)) {
        world_spoil(w, 1);
        for (key = 0; key < WORLD_KEYS - 1 && !world_is_unreadable(w, key); key++) continue;
    }
    uint64_t lost = world_unreadable(w);
    wait_s(w, 300);
    CHECK(w->damaged_events == 0);
    w->may_lose = true;
    world_read(w, key);
    world_settle(w);
    CHECK(w->reads_out == 0 && w->damaged_events == 0);
    wait_s(w, 100);
    CHECK(w->damaged_events == lost && missing_keys(w) == lost && w->scrub_events == 1);
}

/* Of a disk that fails everywhere a bounded number of places is given up, which is told; what is
 * left is there when the disk can be read again. */
static void failing_disk_is_not_given_up(void) {
    world *w = new_world(check_seed, FAST_BYTES_PER_S, 60000);
    w->max_value = 300000;
    world_write_and_settle(w, 600);
    w->may_lose = true;
    dkv_sim_disk_fail_reads(w->disk, UINT32_MAX);
    wait_s(w, 86400);
    uint64_t told = w->unreadable_events;
    CHECK(told > 0 && w->scrub_events == 0);
    world_read_all(w);
    wait_s(w, 7200);
    CHECK(w->unreadable_events > told && w->scrub_events == 0);
    dkv_sim_disk_fail_reads(w->disk, 0);
    wait_s(w, 7200);
    CHECK(w->damaged_events > 0 && w->damaged_events < WORLD_KEYS / 2);
    CHECK(missing_keys(w) == w->damaged_events && w->scrub_events > 0);
    write_lost_again(w);
    w->may_lose = false;
    world_read_all(w);
}

/* A file that has become shorter has lost what was behind its end. */
static void shorter_file_is_damage(void) {
    world *w = new_world(check_seed, FAST_BYTES_PER_S, FAST_INTERVAL_MS);
    world_write_and_settle(w, 200);
    dkv_disk_job cut = {
        .op = DKV_DISK_TRUNCATE, .file = {.kind = DKV_FILE_SEGMENT, .number = 1}, .offset = 3000};
    CHECK(dkv_sim_disk_run(w->disk, &cut) == DKV_OK);
    w->may_lose = true;
    await_passes(w, 2);
    CHECK(w->damaged_events > 0 && missing_keys(w) == w->damaged_events);
    check_only_sound_left(w);
}

static const check_test tests[] = {
    CHECK_TEST(flip_at_rest_is_found),
    CHECK_TEST(lost_record_can_be_written_again),
    CHECK_TEST(sound_store_stays_quiet),
    CHECK_TEST(works_beside_merge),
    CHECK_TEST(found_damage_is_not_forgotten),
    CHECK_TEST(is_paced),
    CHECK_TEST(sleeps_between_passes),
    CHECK_TEST(yields_to_reads),
    CHECK_TEST(errors_that_pass_lose_nothing),
    CHECK_TEST(unreadable_place_is_lost),
    CHECK_TEST(places_may_come_one_after_the_other),
    CHECK_TEST(failed_read_calls_for_scrub),
    CHECK_TEST(failing_disk_is_not_given_up),
    CHECK_TEST(shorter_file_is_damage),
};
CHECK_MAIN(tests)
