/* The store on a simulated disk: what is confirmed survives everything that a disk may do. */
#include "store/cache.h"
#include "store/log.h"
#include "store/meta.h"
#include "store_world.h"

static void write_some(world *w, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) CHECK(world_write(w) == DKV_OK);
}

static void write_and_settle(world *w, uint64_t n) {
    world_write_and_settle(w, n);
    CHECK(w->n_waiting == 0);
}

/* ---- the property test ---- */

/* A random life: writes, old writes again, reads, facts, jobs completed in any order. */
static void live(world *w, uint64_t steps) {
    for (uint64_t i = 0; i < steps && !w->failed; i++) {
        uint64_t what = dkv_rand_below(&w->rand, 100);
        int err = DKV_OK;
        if (what < 35) {
            err = world_write(w);
        } else if (what < 40 && w->writes > 0) {
            err = world_apply(w, 1 + dkv_rand_below(&w->rand, w->writes));
        } else if (what < 50) {
            world_read(w, (uint32_t)dkv_rand_below(&w->rand, WORLD_KEYS));
        } else if (what < 51) {
            world_set_facts(w);
        } else {
            world_step(w);
        }
        CHECK(err == DKV_OK || err == DKV_ERR_BUSY || err == DKV_ERR_NO_SPACE ||
              (err == DKV_ERR_IO && w->store));
    }
}

/* Ends a life in one of the ways there are. */
static void end(world *w) {
    uint64_t how = dkv_rand_below(&w->rand, 8);
    if (how == 0 && !w->failed) {
        world_settle(w);
        CHECK(w->failed || w->n_waiting == 0);
        if (!w->failed) dkv_store_close_clean(w->store, dkv_sim_disk_run, w->disk);
    }
    world_stop(w, how % 2 ? STOP_KILL : STOP_POWER);
}

/* Opens, with a chance of dying in the middle of it, again and again. */
static void start(world *w) {
    while (dkv_rand_below(&w->rand, 3) == 0) {
        w->crash_in = 1 + dkv_rand_below(&w->rand, 30);
        int err = world_open(w);
        CHECK(err == DKV_OK || err == DKV_ERR_CANCELLED);
        world_stop(w, dkv_rand_below(&w->rand, 2) ? STOP_KILL : STOP_POWER);
    }
    CHECK(world_open(w) == DKV_OK);
    CHECK(w->report.damaged_records == 0);
    CHECK(world_compare(w) == 0);
}

/* Whatever the order of completions, crashes, power cuts, failed syncs and crashes while
 * recovering: confirmed writes and facts stay, nothing is invented, nothing is called damaged. */
static void survives_any_life(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = world_anew(check_seed * 1000003 + run);
        w->options.cache_bytes = run % 2 ? 2 * DKV_CACHE_RECORD_MAX : 0;
        CHECK(world_open(w) == DKV_OK && w->report.created);
        for (int lives = 0; lives < 12; lives++) {
            if (dkv_rand_below(&w->rand, 6) == 0) dkv_sim_disk_fail_syncs(w->disk, 1);
            live(w, dkv_rand_below(&w->rand, 1500));
            end(w);
            dkv_sim_disk_fail_syncs(w->disk, 0);
            start(w);
            if (dkv_rand_below(&w->rand, 4) == 0) world_read_all(w);
        }
        world_settle(w);
        world_read_all(w);
    }
}

/* The same on a disk that is full now and then: refused writes are refused, confirmed ones stay,
 * and with space all goes on. */
static void survives_a_full_disk(void) {
    for (uint64_t run = 0; run < check_runs / 2; run++) {
        world *w = world_anew(check_seed * 1000033 + run);
        dkv_sim_disk_tell_space(w->disk, run % 2);
        CHECK(world_open(w) == DKV_OK);
        for (int lives = 0; lives < 6; lives++) {
            live(w, dkv_rand_below(&w->rand, 600));
            dkv_sim_disk_limit(w->disk,
                               dkv_sim_disk_bytes(w->disk) + dkv_rand_below(&w->rand, 30000));
            live(w, dkv_rand_below(&w->rand, 1000));
            dkv_store_retry(w->store);
            live(w, dkv_rand_below(&w->rand, 100));
            world_settle(w);
            CHECK(w->n_waiting == 0 && w->reads_out == 0);
            world_read_all(w);
            dkv_sim_disk_limit(w->disk, 0);
            if (dkv_rand_below(&w->rand, 2)) {
                dkv_store_retry(w->store);
                world_settle(w);
                write_and_settle(w, 20);
                CHECK(dkv_store_admits(w->store, DKV_KIND_VALUE, 100) == DKV_OK);
            }
            world_stop(w, dkv_rand_below(&w->rand, 2) ? STOP_KILL : STOP_POWER);
            CHECK(world_open(w) == DKV_OK);
            CHECK(world_compare(w) == 0);
        }
    }
}

/* On a full disk records may be outdated by writes that stand in memory only: their segments must
 * stay, though nothing in them is alive for the process. */
static void full_disk_keeps_what_memory_outdates(void) {
    world *w = world_anew(check_seed);
    w->max_value = 16000;
    CHECK(world_open(w) == DKV_OK);
    write_and_settle(w, 500);
    dkv_sim_disk_limit(w->disk, dkv_sim_disk_bytes(w->disk));
    write_some(w, 1000);
    world_settle(w);
    CHECK(w->n_refused > 0 && w->n_waiting == 0);
    for (int i = 0; i < 3; i++) {
        dkv_store_retry(w->store);
        world_settle(w);
    }
    world_stop(w, STOP_POWER);
    dkv_sim_disk_limit(w->disk, 0);
    CHECK(world_open(w) == DKV_OK && world_compare(w) == 0);
}

/* A crash after each single job of a life with merging, and then after each job of the recovery. */
static void crash_after_every_job(void) {
    for (uint64_t crash = 1;; crash++) {
        world *w = world_anew(check_seed);
        w->max_value = 30000;
        CHECK(world_open(w) == DKV_OK);
        uint64_t jobs = 0;
        for (uint64_t i = 0; i < 120 && jobs < crash; i++) {
            CHECK(world_write(w) == DKV_OK);
            if (i % 16 == 0) world_set_facts(w);
            if (i % 4) continue;
            while (jobs < crash && world_step(w)) jobs++;
        }
        bool whole = jobs < crash;
        world_stop(w, crash % 3 ? STOP_POWER : STOP_KILL);
        for (uint64_t again = 1; again < 40; again += 1 + crash % 4) {
            w->crash_in = again;
            int err = world_open(w);
            CHECK(err == DKV_OK || err == DKV_ERR_CANCELLED);
            world_stop(w, again % 2 ? STOP_POWER : STOP_KILL);
        }
        CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
        CHECK(world_compare(w) == 0);
        world_read_all(w);
        if (whole) break;
    }
}

/* A recovery is killed after each of its jobs, the next one loses power after each of its own: what
 * the first one cut off may be back then, and is no damage. */
static void interrupted_recovery_is_no_damage(void) {
    for (uint64_t run = 0; run < 3; run++) {
        for (uint64_t killed = 10; killed < 30; killed++) {
            for (uint64_t cut = 14; cut < 40; cut += 2) {
                world *w = world_anew(check_seed * 6000 + run);
                w->max_value = 30000;
                CHECK(world_open(w) == DKV_OK);
                for (int i = 0; i < 60; i++) {
                    CHECK(world_write(w) == DKV_OK);
                    for (int steps = 0; steps < 3; steps++) world_step(w);
                }
                world_stop(w, STOP_POWER);
                w->crash_in = killed;
                CHECK(world_open(w) != DKV_ERR_IO);
                world_stop(w, STOP_KILL);
                w->crash_in = cut;
                CHECK(world_open(w) != DKV_ERR_IO);
                world_stop(w, STOP_POWER);
                CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
                CHECK(world_compare(w) == 0);
            }
        }
    }
}

/* ---- group commit ---- */

/* All that is applied during one sync shares the next: two syncs for any number of writes. */
static void writes_share_syncs(void) {
    world *w = world_anew(check_seed);
    w->max_value = 100;
    w->options.segment_bytes = 1 << 20;
    CHECK(world_open(w) == DKV_OK);
    write_and_settle(w, 1);
    dkv_store_stats before, after;
    dkv_store_stats_get(w->store, &before);
    write_some(w, 1);
    dkv_disk_job *job;
    while ((job = dkv_store_next_job(w->store)) && job->op != DKV_DISK_SYNC) {
        dkv_sim_disk_run(w->disk, job);
        dkv_store_job_done(w->store, job);
    }
    CHECK(job && job->op == DKV_DISK_SYNC);
    dkv_sim_disk_submit(w->disk, job);
    write_some(w, 500);
    CHECK(dkv_store_next_job(w->store) == NULL);
    dkv_sim_disk_complete(w->disk, job);
    dkv_store_job_done(w->store, job);
    world_events(w);
    CHECK(w->n_waiting == 500);
    world_settle(w);
    CHECK(w->n_waiting == 0);
    dkv_store_stats_get(w->store, &after);
    CHECK(after.syncs - before.syncs == 2);
}

/* What is not synced is bounded: new writes are not admitted above the limit, those begun before
 * are BUSY at twice the limit, and all are taken again after a sync. */
static void too_much_unsynced_is_busy(void) {
    world *w = world_anew(check_seed);
    w->options.unsynced_max_bytes = 100000;
    CHECK(world_open(w) == DKV_OK);
    int err = DKV_OK;
    dkv_store_stats stats;
    for (int i = 0; i < 5000 && !err; i++) {
        dkv_store_stats_get(w->store, &stats);
        bool admitted = dkv_store_admits(w->store, DKV_KIND_VALUE, 0) == DKV_OK;
        CHECK(admitted == (stats.unsynced_bytes <= 100000));
        err = world_write(w);
    }
    CHECK(err == DKV_ERR_BUSY);
    CHECK(stats.unsynced_bytes <= 200000 && stats.unsynced_bytes > 190000);
    world_settle(w);
    CHECK(dkv_store_admits(w->store, DKV_KIND_VALUE, 0) == DKV_OK);
    CHECK(world_write(w) == DKV_OK);
}

/* ---- reads and limits ---- */

/* A record can be read in memory, while it is being written, and from disk; the largest too. */
static void reads_at_every_stage(void) {
    world *w = world_anew(check_seed);
    w->max_value = DKV_VALUE_MAX;
    CHECK(world_open(w) == DKV_OK);
    for (int i = 0; i < 40; i++) {
        CHECK(world_write(w) == DKV_OK);
        uint32_t key = key_of_write(w->writes);
        for (int stage = 0; stage < 6; stage++) {
            world_read(w, key);
            world_step(w);
        }
        world_settle(w);
        world_read(w, key);
        world_settle(w);
        CHECK(w->reads_out == 0);
    }
}

static int apply_raw(world *w, size_t key_len, size_t len, dkv_kind kind, uint64_t hlc) {
    static uint8_t bytes[DKV_VALUE_MAX + 1];
    dkv_record record = {{bytes, key_len}, {bytes, len}, {hlc, hlc ? 1 : 0}, kind};
    return dkv_store_apply(w->store, &record, 1);
}

/* Keys of 1 to 1,024 bytes and values up to 1 MiB are taken, anything else is INVALID. */
static void limits_are_exact(void) {
    world *w = world_anew(check_seed);
    CHECK(world_open(w) == DKV_OK);
    CHECK(apply_raw(w, 0, 5, DKV_KIND_VALUE, 1) == DKV_ERR_INVALID);
    CHECK(apply_raw(w, DKV_KEY_MAX + 1, 5, DKV_KIND_VALUE, 1) == DKV_ERR_INVALID);
    CHECK(apply_raw(w, 1, DKV_VALUE_MAX + 1, DKV_KIND_VALUE, 1) == DKV_ERR_INVALID);
    CHECK(apply_raw(w, 1, 1, DKV_KIND_TOMBSTONE, 1) == DKV_ERR_INVALID);
    CHECK(apply_raw(w, 1, 1, (dkv_kind)2, 1) == DKV_ERR_INVALID);
    CHECK(apply_raw(w, 1, 1, DKV_KIND_VALUE, 0) == DKV_ERR_INVALID);
    CHECK(dkv_store_digest(w->store, 0, UINT64_MAX).records == 0);
    CHECK(apply_raw(w, DKV_KEY_MAX, DKV_VALUE_MAX, DKV_KIND_VALUE, 1) == DKV_OK);
    CHECK(apply_raw(w, 1, 0, DKV_KIND_VALUE, 1) == DKV_OK);
    CHECK(dkv_store_set_facts(w->store, (dkv_slice){0}, 1) == DKV_OK);
    uint8_t *facts = calloc(1, DKV_FACTS_MAX + 1);
    CHECK(dkv_store_set_facts(w->store, (dkv_slice){facts, DKV_FACTS_MAX + 1}, 1) ==
          DKV_ERR_INVALID);
    CHECK(dkv_store_set_facts(w->store, (dkv_slice){facts, DKV_FACTS_MAX}, 2) == DKV_OK);
    free(facts);
}

/* The same version with other contents is an alarm and changes nothing. */
static void contradiction_is_data_loss(void) {
    world *w = world_anew(check_seed);
    CHECK(world_open(w) == DKV_OK);
    CHECK(apply_raw(w, 5, 100, DKV_KIND_VALUE, 7) == DKV_OK);
    CHECK(apply_raw(w, 5, 100, DKV_KIND_VALUE, 7) == DKV_OK);
    CHECK(apply_raw(w, 5, 200, DKV_KIND_VALUE, 7) == DKV_ERR_DATA_LOSS);
    CHECK(apply_raw(w, 5, 0, DKV_KIND_TOMBSTONE, 7) == DKV_ERR_DATA_LOSS);
}

/* ---- identity and formats ---- */

/* Another cluster's or node's directory is refused and stays usable for its owner. */
static void foreign_directory_is_refused(void) {
    world *w = world_anew(check_seed);
    CHECK(world_open(w) == DKV_OK);
    uint64_t id = dkv_store_id(w->store);
    write_and_settle(w, 10);
    world_stop(w, STOP_KILL);
    w->options.node_id = "other";
    CHECK(world_open(w) == DKV_ERR_PRECONDITION);
    w->options.node_id = "node";
    w->options.cluster = "elsewhere";
    CHECK(world_open(w) == DKV_ERR_PRECONDITION);
    w->options.cluster = "cluster";
    w->options.new_store_id = 4711;
    CHECK(world_open(w) == DKV_OK && !w->report.created);
    CHECK(dkv_store_id(w->store) == id);
    CHECK(world_compare(w) == 0);
}

static void transfer(world *w, dkv_disk_op op, dkv_disk_file file, uint64_t offset, uint8_t *data,
                     uint32_t len) {
    dkv_disk_job job = {.op = op, .file = file, .offset = offset, .len_bytes = len, .data = data};
    CHECK(dkv_sim_disk_run(w->disk, &job) == DKV_OK);
}

/* META of a later format version is refused, not taken for damage. */
static void later_meta_is_refused(void) {
    world *w = world_anew(check_seed);
    dkv_disk_file meta = {.kind = DKV_FILE_META};
    uint8_t header[256];
    CHECK(world_open(w) == DKV_OK);
    world_stop(w, STOP_KILL);
    transfer(w, DKV_DISK_READ, meta, 0, header, sizeof header);
    dkv_put_le32(header + 8, DKV_LOG_VERSION + 1);
    uint64_t facts = dkv_checksum((dkv_slice){NULL, 0}, 2);
    dkv_put_le64(header + 248, dkv_checksum((dkv_slice){header, 248}, facts));
    transfer(w, DKV_DISK_WRITE, meta, 0, header, sizeof header);
    CHECK(world_open(w) == DKV_ERR_PROTOCOL);
}

/* A valid record of an unknown kind is refused, not skipped. */
static void later_record_is_refused(void) {
    world *w = world_anew(check_seed);
    CHECK(world_open(w) == DKV_OK);
    write_and_settle(w, 3);
    dkv_store_stats stats;
    dkv_store_stats_get(w->store, &stats);
    uint8_t bytes[64];
    dkv_log_at at = {dkv_store_id(w->store), 1, (uint32_t)stats.log_bytes};
    dkv_log_record record = {.kind = (dkv_log_kind)9};
    dkv_log_encode(bytes, at, &record);
    world_stop(w, STOP_KILL);
    dkv_disk_file segment = {.kind = DKV_FILE_SEGMENT, .number = 1};
    transfer(w, DKV_DISK_WRITE, segment, at.offset, bytes, 40);
    CHECK(world_open(w) == DKV_ERR_PROTOCOL);
}

/* Bytes of all segment files. */
static uint64_t segment_bytes(world *w) {
    static dkv_disk_file files[1024];
    uint64_t bytes = 0;
    uint32_t n = world_list(w, files, 1024);
    for (uint32_t i = 0; i < n; i++) {
        if (files[i].kind == DKV_FILE_SEGMENT) bytes += files[i].size_bytes;
    }
    return bytes;
}

/* Only the segment that grows has room behind its records, and none after a clean stop. */
static void room_ahead_goes_again(void) {
    world *w = world_anew(check_seed);
    w->max_value = 16000;
    CHECK(world_open(w) == DKV_OK);
    for (int part = 0; part < 2; part++) {
        dkv_store_stats stats;
        write_and_settle(w, 500);
        dkv_store_stats_get(w->store, &stats);
        CHECK(stats.segments > 1);
        uint64_t room = segment_bytes(w) - stats.log_bytes;
        CHECK(room <= w->options.segment_bytes / 16);
        CHECK(dkv_store_close_clean(w->store, dkv_sim_disk_run, w->disk) == DKV_OK);
        CHECK(segment_bytes(w) == stats.log_bytes);
        world_stop(w, STOP_POWER);
        CHECK(world_open(w) == DKV_OK && w->report.clean);
    }
    world_read_all(w);
}

/* After a clean stop the index comes from its snapshot; a damaged one is no loss. */
static void snapshot_gives_the_same_index(void) {
    for (int damage = 0; damage < 3; damage++) {
        world *w = world_anew(check_seed + (uint64_t)damage);
        CHECK(world_open(w) == DKV_OK);
        write_and_settle(w, 600);
        dkv_store_range before = dkv_store_digest(w->store, 0, UINT64_MAX);
        CHECK(dkv_store_close_clean(w->store, dkv_sim_disk_run, w->disk) == DKV_OK);
        world_stop(w, STOP_POWER);
        dkv_disk_file snapshot = {.kind = DKV_FILE_SNAPSHOT};
        if (damage) CHECK(dkv_sim_disk_flip(w->disk, snapshot, 700u * (uint64_t)damage, 3) == 0);
        CHECK(world_open(w) == DKV_OK && w->report.clean == !damage);
        CHECK(w->report.damaged_records == 0 && w->report.records == before.records);
        dkv_store_range after = dkv_store_digest(w->store, 0, UINT64_MAX);
        CHECK(dkv_digest_eq(before.digest, after.digest));
        CHECK(world_compare(w) == 0);
        world_read_all(w);
        write_and_settle(w, 50); /* what comes after a clean start is not hidden by the snapshot */
        world_stop(w, STOP_POWER);
        CHECK(world_open(w) == DKV_OK && !w->report.clean && world_compare(w) == 0);
    }
}

static const check_test tests[] = {
    CHECK_TEST(survives_any_life),
    CHECK_TEST(room_ahead_goes_again),
    CHECK_TEST(survives_a_full_disk),
    CHECK_TEST(full_disk_keeps_what_memory_outdates),
    CHECK_TEST(crash_after_every_job),
    CHECK_TEST(interrupted_recovery_is_no_damage),
    CHECK_TEST(writes_share_syncs),
    CHECK_TEST(too_much_unsynced_is_busy),
    CHECK_TEST(reads_at_every_stage),
    CHECK_TEST(limits_are_exact),
    CHECK_TEST(contradiction_is_data_loss),
    CHECK_TEST(foreign_directory_is_refused),
    CHECK_TEST(later_meta_is_refused),
    CHECK_TEST(later_record_is_refused),
    CHECK_TEST(snapshot_gives_the_same_index),
};
CHECK_MAIN(tests)
