/* The store with durability `interval` on a simulated disk: confirmed once written, synced now and
 * then; and if that loses something, it is known. */
#include "store_world.h"

#define INTERVAL_MS 20u

static world *new_world(uint64_t seed) {
    world_anew(seed);
    the_world->options.durability = DKV_DURABILITY_INTERVAL;
    the_world->options.interval_ms = INTERVAL_MS;
    the_world->options.boot_id = 1;
    return the_world;
}

static void write_and_settle(world *w, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        CHECK(world_write(w) == DKV_OK);
        if (i % 8 == 7) world_settle(w);
    }
    world_settle(w);
}

/* Lets the interval pass, and everything be synced. */
static void sync_all(world *w) {
    w->now_ns += INTERVAL_MS * 1000000;
    world_settle(w);
    CHECK(world_stats(w).unsynced_bytes == 0);
}

/* True if the store would be woken within ten intervals. */
static bool is_woken_soon(const world *w) {
    return dkv_store_next_timer(w->store) < w->now_ns + 10 * INTERVAL_MS * 1000000LL;
}

static void power_cut(world *w) {
    world_stop(w, STOP_POWER);
    w->options.boot_id++;
}

/* Writes are confirmed without a sync; there is one for each interval, at the time that the timer
 * tells, and none while nothing is written. */
static void syncs_keep_the_interval(void) {
    world *w = new_world(check_seed);
    w->options.segment_bytes = 1 << 20;
    CHECK(world_open(w) == DKV_OK && !is_woken_soon(w));
    write_and_settle(w, 1); /* the first one is synced at once */
    uint64_t syncs = world_stats(w).syncs;
    int64_t from_ns = w->now_ns;
    for (int i = 0; i < 300; i++) {
        CHECK(world_write(w) == DKV_OK);
        world_settle(w);
        CHECK(w->n_waiting == 0 && world_stats(w).unconfirmed_bytes == 0);
    }
    uint64_t intervals = (uint64_t)(w->now_ns - from_ns) / (INTERVAL_MS * 1000000u);
    CHECK(intervals >= 3 && world_stats(w).syncs - syncs <= intervals + 1);
    CHECK(world_stats(w).syncs - syncs >= intervals - 1 && world_stats(w).unsynced_bytes > 0);
    int64_t due_ns = dkv_store_next_timer(w->store);
    CHECK(due_ns > w->now_ns && due_ns <= w->now_ns + INTERVAL_MS * 1000000);
    w->now_ns = due_ns;
    world_settle(w);
    CHECK(world_stats(w).unsynced_bytes == 0 && !is_woken_soon(w));
}

/* While a sync is under way, writes are written and confirmed; none waits for it. */
static void writes_pass_a_sync(void) {
    world *w = new_world(check_seed);
    dkv_disk_job *sync = NULL, *job;
    w->options.segment_bytes = 1 << 20;
    CHECK(world_open(w) == DKV_OK);
    write_and_settle(w, 10);
    w->now_ns += INTERVAL_MS * 1000000;
    dkv_store_tick(w->store, w->now_ns);
    for (int i = 0; i < 100; i++) {
        CHECK(world_write(w) == DKV_OK);
        while ((job = dkv_store_next_job(w->store))) {
            if (job->op == DKV_DISK_SYNC && !sync) {
                sync = job;
                continue;
            }
            CHECK(job->op == DKV_DISK_WRITE);
            dkv_sim_disk_run(w->disk, job);
            dkv_store_job_done(w->store, job);
        }
        world_events(w);
        CHECK(w->n_waiting == 0);
    }
    CHECK(sync);
}

/* The death of the process loses nothing that was confirmed, and nothing is called damaged. */
static void kill_loses_nothing(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = new_world(check_seed * 1000 + run);
        CHECK(world_open(w) == DKV_OK);
        for (int lives = 0; lives < 5; lives++) {
            write_and_settle(w, dkv_rand_below(&w->rand, 300));
            for (uint64_t i = dkv_rand_below(&w->rand, 50); i > 0; i--) {
                CHECK(world_write(w) == DKV_OK);
                world_step(w);
            }
            world_stop(w, STOP_KILL);
            CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
            CHECK(!w->report.machine_stopped && world_compare(w) == 0);
        }
    }
}

/* After a power cut the store says that it may have lost something, until it has been told that
 * this is known. What was synced is there. */
static void power_cut_is_noticed(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = new_world(check_seed * 1000 + run);
        uint64_t synced[WORLD_KEYS];
        CHECK(world_open(w) == DKV_OK);
        write_and_settle(w, 1 + dkv_rand_below(&w->rand, 300));
        sync_all(w);
        memcpy(synced, w->confirmed, sizeof synced);
        write_and_settle(w, dkv_rand_below(&w->rand, 100));
        power_cut(w);
        CHECK(world_open(w) == DKV_OK);
        CHECK(w->report.machine_stopped && w->report.damaged_records > 0);
        world_compare(w);
        for (uint32_t key = 0; key < WORLD_KEYS; key++) CHECK(w->confirmed[key] >= synced[key]);
        world_stop(w, STOP_KILL); /* before anything was made of it */
        CHECK(world_open(w) == DKV_OK && w->report.damaged_records > 0);
        world_set_facts(w);
        world_settle(w);
        world_stop(w, STOP_KILL);
        CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
    }
}

/* Neither a clean stop nor a stop with durability `always` is followed by any suspicion. */
static void nothing_is_suspected_without_need(void) {
    for (int lazy = 0; lazy < 2; lazy++) {
        world *w = new_world(check_seed);
        if (!lazy) w->options.durability = DKV_DURABILITY_ALWAYS;
        CHECK(world_open(w) == DKV_OK);
        write_and_settle(w, 300);
        if (lazy) CHECK(dkv_store_close_clean(w->store, dkv_sim_disk_run, w->disk) == DKV_OK);
        power_cut(w);
        w->options.durability = DKV_DURABILITY_INTERVAL;
        CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
        CHECK(w->report.clean == lazy && world_compare(w) == 0);
    }
}

/* A machine whose boot id is not known may have been another one. */
static void unknown_boot_is_suspected(void) {
    world *w = new_world(check_seed);
    w->options.boot_id = 0;
    CHECK(world_open(w) == DKV_OK);
    write_and_settle(w, 10);
    world_stop(w, STOP_KILL);
    CHECK(world_open(w) == DKV_OK && w->report.machine_stopped);
}

/* Whatever the order of modes, kills and power cuts, also in the middle of opening: nothing
 * confirmed is missing without being suspected. */
static void no_loss_is_silent(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = new_world(check_seed * 1000 + run);
        for (int lives = 0; lives < 12; lives++) {
            uint64_t lazy = dkv_rand_below(&w->rand, 2);
            w->options.durability = lazy ? DKV_DURABILITY_INTERVAL : DKV_DURABILITY_ALWAYS;
            while (dkv_rand_below(&w->rand, 2)) {
                w->crash_in = 1 + dkv_rand_below(&w->rand, 30);
                int err = world_open(w);
                CHECK(err == DKV_OK || err == DKV_ERR_CANCELLED);
                world_stop(w, STOP_KILL);
                if (dkv_rand_below(&w->rand, 2)) power_cut(w);
            }
            CHECK(world_open(w) == DKV_OK);
            CHECK(world_compare(w) == 0 || w->report.damaged_records > 0);
            world_set_facts(w);
            for (uint64_t i = dkv_rand_below(&w->rand, 600); i > 0; i--) {
                if (dkv_rand_below(&w->rand, 3))
                    world_step(w);
                else
                    CHECK(world_write(w) == DKV_OK);
            }
            if (dkv_rand_below(&w->rand, 2))
                power_cut(w);
            else
                world_stop(w, STOP_KILL);
        }
    }
}

/* An interval of 0 or above the limit is refused. */
static void interval_has_limits(void) {
    world *w = new_world(check_seed);
    w->options.interval_ms = 0;
    CHECK(world_open(w) == DKV_ERR_INVALID);
    w->options.interval_ms = DKV_INTERVAL_MAX_MS + 1;
    CHECK(world_open(w) == DKV_ERR_INVALID);
    w->options.interval_ms = DKV_INTERVAL_MAX_MS;
    CHECK(world_open(w) == DKV_OK);
}

static const check_test tests[] = {
    CHECK_TEST(syncs_keep_the_interval),
    CHECK_TEST(writes_pass_a_sync),
    CHECK_TEST(kill_loses_nothing),
    CHECK_TEST(power_cut_is_noticed),
    CHECK_TEST(nothing_is_suspected_without_need),
    CHECK_TEST(unknown_boot_is_suspected),
    CHECK_TEST(no_loss_is_silent),
    CHECK_TEST(interval_has_limits),
};
CHECK_MAIN(tests)
