/* The store on a simulated disk that rots, and merge: what is damaged is found and only that is
 * lost; what is dead gives its space back and nothing else. */
#include "store/holes.h"
#include "store/merge.h"
#include "store/meta.h"
#include "store_world.h"

static world *new_world(uint64_t seed) {
    world_anew(seed);
    CHECK(world_open(the_world) == DKV_OK);
    return the_world;
}

static void apply_other_key(world *w, uint32_t key) {
    do w->writes++;
    while (key_of_write(w->writes) == key);
    int err = world_apply(w, w->writes);
    CHECK(err == DKV_OK || err == DKV_ERR_BUSY);
}

/* Applies the next write that is of another key. */
static void write_other_key(world *w, uint32_t key) {
    apply_other_key(w, key);
    world_settle(w);
}

/* Makes a value of at least 100 bytes the newest of its key. */
static uint32_t write_value(world *w) {
    do w->writes++;
    while (value_len(w, w->writes) < 100);
    CHECK(world_apply(w, w->writes) == DKV_OK);
    world_settle(w);
    return key_of_write(w->writes);
}

/* ---- damage found at open ---- */

/* One flipped bit anywhere in the log loses one record at most, wherever it is; a loss is reported
 * unless it can only be the unconfirmed end of the log; all other records are kept. */
static void one_flip_loses_one_record(void) {
    for (uint64_t run = 0; run < check_runs * 2; run++) {
        world *w = new_world(check_seed * 1000003 + run);
        uint64_t safe[WORLD_KEYS], lost = 0;
        world_write_and_settle(w, 100 + dkv_rand_below(&w->rand, 600));
        memcpy(safe, w->confirmed, sizeof safe);
        world_write_and_settle(w, 3); /* their sync tells the log that all before is durable */
        world_stop(w, run % 2 ? STOP_KILL : STOP_POWER);
        CHECK(dkv_sim_disk_flip_any(w->disk) == DKV_OK);
        w->may_lose = true;
        CHECK(world_open(w) == DKV_OK);
        for (uint32_t key = 0; key < WORLD_KEYS; key++) {
            dkv_store_entry entry = {0};
            dkv_store_peek(w->store, hash_of(key), &entry);
            lost += entry.version.hlc < safe[key];
        }
        CHECK(lost <= 1);
        CHECK(lost == 0 || w->report.damaged_records > 0);
        CHECK(w->report.damaged_records <= 1);
        CHECK(world_compare(w) <= 3);
        world_read_all(w);
    }
}

/* The hole of other stores: a flipped byte early in the log of a killed process must not take the
 * thousands of confirmed records behind it away as a "torn tail". */
static void early_damage_is_no_torn_tail(void) {
    world *w = new_world(check_seed);
    w->options.segment_bytes = 4 << 20;
    w->max_value = 200;
    world_stop(w, STOP_KILL);
    CHECK(world_open(w) == DKV_OK);
    world_write_and_settle(w, 3000);
    CHECK(world_stats(w).segments == 1);
    world_stop(w, STOP_KILL);
    dkv_disk_file segment = {.kind = DKV_FILE_SEGMENT, .number = 1};
    CHECK(dkv_sim_disk_flip(w->disk, segment, 1000, 0) == DKV_OK);
    CHECK(world_open(w) == DKV_OK);
    CHECK(w->report.damaged_records == 1 && w->report.torn_bytes == 0);
    CHECK(world_compare(w) == 0); /* the damaged record was dead */
}

static uint32_t newest_segment(world *w) {
    static dkv_disk_file files[256];
    uint32_t newest = 0;
    uint32_t n = world_list(w, files, 256);
    for (uint32_t i = 0; i < n; i++) {
        if (files[i].kind == DKV_FILE_SEGMENT && files[i].number > newest) newest = files[i].number;
    }
    return newest;
}

/* A segment file that is gone is noticed, but for the newest one after an unclean stop, of which
 * nothing else tells. */
static void lost_segment_is_noticed(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = new_world(check_seed * 1000033 + run);
        w->max_value = 16000;
        world_write_and_settle(w, 500);
        CHECK(world_stats(w).segments > 1);
        bool clean = run % 2;
        if (clean) CHECK(dkv_store_close_clean(w->store, dkv_sim_disk_run, w->disk) == DKV_OK);
        world_stop(w, STOP_KILL);
        uint32_t newest = newest_segment(w);
        dkv_disk_file lost;
        CHECK(dkv_sim_disk_lose_file(w->disk, &lost) == DKV_OK);
        w->may_lose = true;
        CHECK(world_open(w) == DKV_OK && !w->report.clean);
        CHECK(w->report.damaged_records > 0 || (lost.number == newest && !clean));
        world_compare(w);
        world_read_all(w);
    }
}

static void flip_meta(world *w, uint32_t slot) {
    dkv_disk_file meta = {.kind = DKV_FILE_META};
    CHECK(dkv_sim_disk_flip(w->disk, meta, slot * DKV_META_STRIDE + 260, 1) == DKV_OK);
}

/* Either slot of META may rot without loss; with both gone the store keeps its identity and its
 * records, and says that something is lost. */
static void meta_may_rot(void) {
    for (uint32_t slot = 0; slot < 3; slot++) {
        world *w = new_world(check_seed);
        uint64_t id = dkv_store_id(w->store);
        world_write_and_settle(w, 50);
        for (int i = 0; i < 3; i++) world_set_facts(w);
        world_settle(w);
        CHECK(w->facts_confirmed == 3);
        world_stop(w, STOP_POWER);
        if (slot != 1) flip_meta(w, 0);
        if (slot != 0) flip_meta(w, 1);
        CHECK(world_open(w) == DKV_OK && !w->report.created);
        CHECK(dkv_store_id(w->store) == id);
        CHECK((slot == 2) == (w->report.damaged_records > 0));
        if (slot == 2) w->facts_confirmed = 0;
        CHECK(world_compare(w) == 0 && w->facts_set == (slot == 2 ? 0 : 3));
    }
}

/* Gives a slot of META a sequence, and the checksum that belongs to it. */
static void forge_sequence(world *w, uint32_t slot, uint64_t sequence) {
    static uint8_t bytes[DKV_META_STRIDE];
    dkv_disk_job job = {.op = DKV_DISK_READ,
                        .file = {.kind = DKV_FILE_META},
                        .offset = slot * DKV_META_STRIDE,
                        .len_bytes = sizeof bytes,
                        .data = bytes};
    CHECK(dkv_sim_disk_run(w->disk, &job) == DKV_OK);
    dkv_put_le64(bytes + 16, sequence);
    dkv_slice facts = {bytes + DKV_META_HEADER_BYTES, dkv_le32(bytes + 12)};
    dkv_put_le64(bytes + 248, dkv_checksum((dkv_slice){bytes, 248}, dkv_checksum(facts, 2)));
    job.op = DKV_DISK_WRITE;
    CHECK(dkv_sim_disk_run(w->disk, &job) == DKV_OK);
}

/* A sequence from which META could not count on is damage, whatever its checksum says. */
static void a_sequence_without_successor_is_damage(void) {
    static const uint64_t sequences[] = {UINT64_MAX, UINT64_MAX - 1, (uint64_t)INT64_MAX + 1};
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) {
        world *w = new_world(check_seed);
        world_write_and_settle(w, 50);
        for (int n = 0; n < 3; n++) world_set_facts(w);
        world_settle(w);
        world_stop(w, STOP_KILL);
        forge_sequence(w, i % 2, sequences[i]);
        CHECK(world_open(w) == DKV_OK && world_compare(w) == 0 && w->facts_set == 3);
    }
}

/* ---- what cannot be read at open ---- */

/* As the other replicas do when they hear of a loss; then every key is there. */
static void heal(world *w, const uint64_t newest[WORLD_KEYS]) {
    for (uint32_t key = 0; key < WORLD_KEYS; key++) {
        if (newest[key]) CHECK(world_apply(w, newest[key]) == DKV_OK);
    }
    world_settle(w);
    w->may_lose = false;
    world_read_all(w);
}

/* Pages that cannot be read, wherever they are in the log, do not keep the store from opening.
 * Their records are lost, which is reported, and no others. Merge takes what is left of the segment
 * elsewhere, and removes it. */
static void unreadable_place_is_damage(void) {
    uint64_t all_lost = 0;
    for (uint64_t run = 0; run < check_runs; run++) {
        world *w = new_world(check_seed * 7919 + run);
        w->max_value = run % 2 ? 2000 : 40000;
        uint64_t safe[WORLD_KEYS], lost = 0, older = 0;
        world_write_and_settle(w, 1 + dkv_rand_below(&w->rand, 600));
        world_spoil(w, 1 + (uint32_t)(run % 3));
        lost = world_unreadable(w);
        memcpy(safe, w->confirmed, sizeof safe);
        world_stop(w, run % 2 ? STOP_KILL : STOP_POWER);
        w->may_lose = true;
        CHECK(world_open(w) == DKV_OK && w->report.damaged_records > 0);
        for (uint32_t key = 0; key < WORLD_KEYS; key++) {
            dkv_store_entry entry = {0};
            dkv_store_peek(w->store, hash_of(key), &entry);
            older += entry.version.hlc < safe[key];
        }
        CHECK(older <= lost && world_unreadable(w) == 0); /* merge may have left a copy */
        all_lost += older;
        heal(w, safe);
        for (int i = 0; i < 100 && dkv_sim_disk_is_spoiled(w->disk); i++) {
            world_write_and_settle(w, 50);
        }
        CHECK(!dkv_sim_disk_is_spoiled(w->disk));
        world_read_all(w);
    }
    CHECK(all_lost > check_runs / 4);
}

/* A disk whose reads of segments fail, so many of them. */
typedef struct flaky {
    dkv_sim_disk *disk;
    uint64_t failures;
} flaky;

static int flaky_run(void *user, dkv_disk_job *job) {
    flaky *f = user;
    bool fails = f->failures > 0 && job->op == DKV_DISK_READ && job->file.kind == DKV_FILE_SEGMENT;
    if (!fails) return dkv_sim_disk_run(f->disk, job);
    f->failures--;
    return job->err = DKV_ERR_IO;
}

/* Errors that pass lose nothing. With a disk that fails everywhere the store is not opened, and has
 * lost nothing if it can be read later. */
static void errors_that_pass_lose_nothing(void) {
    world *w = new_world(check_seed);
    w->max_value = 60000;
    world_write_and_settle(w, 400);
    CHECK(world_stats(w).log_bytes > (DKV_HOLES_MAX + 1) * DKV_HOLE_PART_BYTES);
    world_stop(w, STOP_KILL);
    dkv_store *store = NULL;
    flaky f = {w->disk, UINT64_MAX};
    CHECK(dkv_store_open(&w->options, flaky_run, &f, &store, &w->report) == DKV_ERR_IO);
    f.failures =
        2 * DKV_HOLE_TRIES - 1; /* of the first header but one, and then of its first part */
    CHECK(dkv_store_open(&w->options, flaky_run, &f, &store, &w->report) == DKV_OK);
    CHECK(f.failures == 0 && w->report.damaged_records == 0);
    dkv_store_del(store);
    world_stop(w, STOP_KILL);
    CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
    CHECK(world_compare(w) == 0);
    world_read_all(w);
}

/* Without its snapshot a store that was stopped in order scans its log. */
static void unreadable_snapshot_costs_time_only(void) {
    world *w = new_world(check_seed);
    world_write_and_settle(w, 300);
    CHECK(dkv_store_close_clean(w->store, dkv_sim_disk_run, w->disk) == DKV_OK);
    world_stop(w, STOP_KILL);
    dkv_disk_file snapshot = {.kind = DKV_FILE_SNAPSHOT};
    CHECK(dkv_sim_disk_spoil(w->disk, snapshot, 0, WORLD_PAGE_BYTES) == DKV_OK);
    CHECK(world_open(w) == DKV_OK && !w->report.clean && w->report.damaged_records == 0);
    CHECK(world_compare(w) == 0);
    world_read_all(w);
}

/* ---- damage found later ---- */

static void flip_last_record(world *w) {
    dkv_disk_file segment = {.kind = DKV_FILE_SEGMENT, .number = 1};
    CHECK(dkv_sim_disk_flip(w->disk, segment, world_stats(w).log_bytes - 50, 5) == DKV_OK);
}

/* A read that meets damage says DATA_LOSS, tells the token, and the same write heals it. */
static void read_meets_damage_and_is_healed(void) {
    world *w = new_world(check_seed);
    char text[16];
    dkv_store_event event;
    dkv_store_entry entry;
    uint32_t key = write_value(w);
    flip_last_record(w);
    CHECK(dkv_store_read(w->store, key_bytes(key, text), hash_of(key), 77) == DKV_OK);
    dkv_disk_job *job = dkv_store_next_job(w->store);
    CHECK(job && job->op == DKV_DISK_READ);
    dkv_sim_disk_run(w->disk, job);
    dkv_store_job_done(w->store, job);
    CHECK(dkv_store_next_event(w->store, &event));
    CHECK(event.kind == DKV_STORE_READ && event.err == DKV_ERR_DATA_LOSS && event.cookie == 77);
    CHECK(dkv_store_next_event(w->store, &event) && event.kind == DKV_STORE_DAMAGED);
    CHECK(event.cookie == hash_of(key).token && !dkv_store_next_event(w->store, &event));
    CHECK(dkv_store_peek(w->store, hash_of(key), &entry) == DKV_ERR_NOT_FOUND);
    CHECK(world_stats(w).damaged_records == 1 && world_stats(w).records == 0);
    CHECK(dkv_store_digest(w->store, 0, UINT64_MAX).records == 0);
    CHECK(world_apply(w, w->writes) == DKV_OK);
    world_settle(w);
    world_read(w, key);
    world_settle(w);
    CHECK(w->reads_out == 0);
}

/* A read that the disk fails is IO and nothing is forgotten; the next may succeed. */
static void failed_read_forgets_nothing(void) {
    world *w = new_world(check_seed);
    uint32_t key = write_value(w);
    w->may_lose = true;
    dkv_sim_disk_fail_reads(w->disk, 1);
    world_read(w, key);
    world_settle(w);
    w->may_lose = false;
    CHECK(w->reads_out == 0 && w->damaged_events == 0);
    world_read(w, key);
    world_settle(w);
    CHECK(w->reads_out == 0);
}

/* The hash of another key: the whole keys are compared. */
static void other_key_is_data_loss(void) {
    world *w = new_world(check_seed);
    dkv_store_event event;
    dkv_store_entry entry;
    uint32_t key = write_value(w);
    dkv_slice other = dkv_slice_of("another key");
    CHECK(dkv_store_read(w->store, other, hash_of(key), 5) == DKV_OK);
    dkv_disk_job *job = dkv_store_next_job(w->store);
    dkv_sim_disk_run(w->disk, job);
    dkv_store_job_done(w->store, job);
    CHECK(dkv_store_next_event(w->store, &event) && event.err == DKV_ERR_DATA_LOSS);
    CHECK(!dkv_store_next_event(w->store, &event));
    CHECK(dkv_store_peek(w->store, hash_of(key), &entry) == DKV_OK);
    dkv_slice any = {NULL, 0};
    CHECK(dkv_store_read(w->store, any, hash_of(key), WORLD_READ_COOKIE | key) == DKV_OK);
    w->reads_out++;
    world_settle(w);
    CHECK(w->reads_out == 0);
}

/* Merge that meets a damaged live record tells it, and still frees the segment. */
static void merge_meets_damage(void) {
    world *w = new_world(check_seed);
    dkv_store_entry entry;
    uint32_t key = write_value(w);
    flip_last_record(w);
    w->may_lose = true;
    for (int i = 0; i < 5000 && w->damaged_events == 0; i++) write_other_key(w, key);
    CHECK(w->damaged_events == 1 && world_stats(w).damaged_records == 1);
    CHECK(dkv_store_peek(w->store, hash_of(key), &entry) == DKV_ERR_NOT_FOUND);
    for (int i = 0; i < 200; i++) write_other_key(w, key);
    dkv_disk_file first = {.kind = DKV_FILE_SEGMENT, .number = 1};
    CHECK(dkv_sim_disk_flip(w->disk, first, 0, 0) == DKV_ERR_NOT_FOUND);
}

/* Merge that meets a place that cannot be read leaves the segment to scrub, a minute of tries, and
 * then frees it. */
static void merge_meets_unreadable_place(void) {
    world *w = new_world(check_seed);
    dkv_disk_file first = {.kind = DKV_FILE_SEGMENT, .number = 1};
    dkv_store_entry entry;
    uint32_t key = write_value(w);
    uint64_t number = w->writes;
    for (int i = 0; i < 100; i++) write_other_key(w, key); /* beyond the page */
    CHECK(dkv_sim_disk_spoil(w->disk, first, 0, WORLD_PAGE_BYTES) == DKV_OK);
    for (int i = 0; i < 5000; i++) write_other_key(w, key);
    world_wait(w, w->now_ns + 50 * 1000000000LL);
    CHECK(w->damaged_events == 0 && world_is_unreadable(w, key));
    w->may_lose = true;
    world_wait(w, w->now_ns + 50 * 1000000000LL);
    CHECK(w->damaged_events == 1 && world_stats(w).damaged_records == 1);
    CHECK(dkv_store_peek(w->store, hash_of(key), &entry) == DKV_ERR_NOT_FOUND);
    CHECK(world_apply(w, number) == DKV_OK);
    for (int i = 0; i < 200; i++) write_other_key(w, key);
    CHECK(!dkv_sim_disk_is_spoiled(w->disk));
    w->may_lose = false;
    world_read_all(w);
}

/* Performs all jobs but the next one for META, which stays out. */
static void settle_but_meta(world *w, dkv_disk_job **held) {
    dkv_disk_job *job;
    while ((job = dkv_store_next_job(w->store))) {
        if (job->file.kind == DKV_FILE_META) {
            *held = job;
            continue;
        }
        dkv_sim_disk_run(w->disk, job);
        dkv_store_job_done(w->store, job);
        world_events(w);
    }
}

/* A segment that shows damage is not removed before META tells of it: a power cut would leave no
 * trace that a record is missing. */
static void damage_is_noted_before_its_segment_goes(void) {
    world *w = new_world(check_seed);
    dkv_disk_job *held = NULL;
    dkv_disk_file first = {.kind = DKV_FILE_SEGMENT, .number = 1};
    uint32_t key = write_value(w);
    flip_last_record(w);
    w->may_lose = true;
    for (int i = 0; i < 5000; i++) {
        apply_other_key(w, key);
        settle_but_meta(w, &held);
    }
    CHECK(w->damaged_events == 1 && held);
    CHECK(dkv_sim_disk_durable(w->disk, first).len > 0);
    dkv_sim_disk_run(w->disk, held);
    dkv_store_job_done(w->store, held);
    world_settle(w);
    CHECK(dkv_sim_disk_durable(w->disk, first).len == 0);
}

/* ---- merge ---- */

/* Overwriting for ever keeps the log near twice the live bytes; nothing is lost by it, not even by
 * a power cut at any time. */
static void churn_is_bounded(void) {
    for (uint64_t run = 0; run < 1 + check_runs / 25; run++) {
        world *w = new_world(check_seed * 7 + run);
        w->max_value = 16000;
        for (int round = 0; round < 10; round++) {
            world_write_and_settle(w, 1500);
            dkv_store_stats stats = world_stats(w);
            uint64_t slack = 4 * (w->options.segment_bytes + w->max_value);
            CHECK(stats.log_bytes < stats.live_bytes * 5 / 2 + slack);
            CHECK(stats.merged_bytes > 0);
            world_read_all(w);
            if (round % 3 == 2) {
                world_stop(w, STOP_POWER);
                CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0);
                CHECK(world_compare(w) == 0);
                world_write_and_settle(w, 1500);
            }
        }
    }
}

/* Applies a record of 2 KB to one key, and now and then one to a new key that stays alive. */
static int apply_churn(world *w, uint64_t number) {
    static const uint8_t value[2000];
    char text[32];
    snprintf(text, sizeof text, number % 20 ? "churned" : "kept-%" PRIu64, number);
    dkv_record record = {
        .key = dkv_slice_of(text), .value = {value, sizeof value}, .version = {number, 1}};
    return dkv_store_apply(w->store, &record, number);
}

static void complete(world *w, dkv_disk_job *job) {
    dkv_store_event event;
    dkv_sim_disk_complete(w->disk, job);
    dkv_store_job_done(w->store, job);
    while (dkv_store_next_event(w->store, &event)) CHECK(event.err == DKV_OK);
}

/* While merge gets no reads done, new writers are refused before dead records fill the disk, those
 * that began before at twice as much; then all goes on. */
static void writers_wait_for_merge(void) {
    world *w = new_world(check_seed);
    dkv_disk_job *held = NULL, *job;
    int err = DKV_OK;
    for (uint64_t number = 1; number < 20000 && !err; number++) {
        err = apply_churn(w, number);
        while ((job = dkv_store_next_job(w->store))) {
            CHECK(job->op != DKV_DISK_READ || !held);
            dkv_sim_disk_submit(w->disk, job);
            if (job->op == DKV_DISK_READ) {
                held = job;
            } else {
                complete(w, job);
            }
        }
    }
    CHECK(err == DKV_ERR_BUSY && held &&
          dkv_store_admits(w->store, DKV_KIND_VALUE, 100) == DKV_ERR_BUSY);
    dkv_store_stats stats = world_stats(w);
    uint64_t most = DKV_MERGE_BEHIND_FACTOR * stats.live_bytes +
                    DKV_MERGE_BEHIND_SEGMENTS * (uint64_t)DKV_LOG_RECORD_MAX;
    CHECK(stats.log_bytes > 2 * most && stats.log_bytes < 2 * most + 200000);
    complete(w, held);
    while ((job = dkv_store_next_job(w->store))) {
        dkv_sim_disk_submit(w->disk, job);
        complete(w, job);
    }
    CHECK(dkv_store_admits(w->store, DKV_KIND_VALUE, 100) == DKV_OK);
    CHECK(world_stats(w).log_bytes <= most && world_stats(w).records == stats.records);
}

/* A segment stays as long as a read of it is out. */
static void reads_hold_their_segment(void) {
    world *w = new_world(check_seed);
    char text[16];
    w->max_value = 4000;
    uint32_t key = write_value(w);
    uint64_t number = w->writes;
    CHECK(dkv_store_read(w->store, key_bytes(key, text), hash_of(key), WORLD_READ_COOKIE | key) ==
          DKV_OK);
    w->reads_out++;
    dkv_disk_job *held = dkv_store_next_job(w->store);
    CHECK(held && held->op == DKV_DISK_READ && held->file.number == 1);
    world_write_and_settle(w, 3000);
    dkv_disk_file first = {.kind = DKV_FILE_SEGMENT, .number = 1};
    dkv_disk_file second = {.kind = DKV_FILE_SEGMENT, .number = 2};
    CHECK(dkv_sim_disk_flip(w->disk, first, 8, 0) == DKV_OK);
    CHECK(dkv_sim_disk_flip(w->disk, second, 8, 0) == DKV_ERR_NOT_FOUND);
    CHECK(w->current[key] > number);
    dkv_sim_disk_run(w->disk, held);
    dkv_store_job_done(w->store, held);
    world_events(w);
    CHECK(w->reads_out == 0);
    world_write_and_settle(w, 100);
    CHECK(dkv_sim_disk_flip(w->disk, first, 8, 0) == DKV_ERR_NOT_FOUND);
}

static const check_test tests[] = {
    CHECK_TEST(one_flip_loses_one_record),
    CHECK_TEST(early_damage_is_no_torn_tail),
    CHECK_TEST(lost_segment_is_noticed),
    CHECK_TEST(meta_may_rot),
    CHECK_TEST(a_sequence_without_successor_is_damage),
    CHECK_TEST(read_meets_damage_and_is_healed),
    CHECK_TEST(failed_read_forgets_nothing),
    CHECK_TEST(other_key_is_data_loss),
    CHECK_TEST(merge_meets_damage),
    CHECK_TEST(merge_meets_unreadable_place),
    CHECK_TEST(unreadable_place_is_damage),
    CHECK_TEST(errors_that_pass_lose_nothing),
    CHECK_TEST(unreadable_snapshot_costs_time_only),
    CHECK_TEST(damage_is_noted_before_its_segment_goes),
    CHECK_TEST(churn_is_bounded),
    CHECK_TEST(writers_wait_for_merge),
    CHECK_TEST(reads_hold_their_segment),
};
CHECK_MAIN(tests)
