/* The store on a simulated disk that is full: merge neither spins nor gives up, and what it can
 * free without space it frees. */
#include "store/append.h"
#include "store_world.h"

static world *new_world(uint64_t seed) {
    world_anew(seed);
    CHECK(world_open(the_world) == DKV_OK);
    return the_world;
}

static void take_events(world *w) {
    dkv_store_event event;
    while (dkv_store_next_event(w->store, &event)) {
        CHECK(event.kind == DKV_STORE_DURABLE);
        CHECK(event.err == DKV_OK || event.err == DKV_ERR_NO_SPACE);
        w->n_refused += event.err != DKV_OK;
    }
}

/* Performs jobs until there are none. Returns how many bytes merge has read. */
static uint64_t settle_counting_reads(world *w) {
    uint64_t read_bytes = 0;
    dkv_disk_job *job;
    for (int jobs = 0; (job = dkv_store_next_job(w->store)); jobs++) {
        CHECK(jobs < 10000);
        if (job->op == DKV_DISK_READ) read_bytes += job->len_bytes;
        dkv_sim_disk_run(w->disk, job);
        dkv_store_job_done(w->store, job);
        take_events(w);
    }
    return read_bytes;
}

/* Writes 2 KB under one key, or, for every 20th number, under a key that stays alive. */
static int churn(world *w, uint64_t number, uint64_t hlc) {
    static const uint8_t value[2000];
    char text[32];
    snprintf(text, sizeof text, number % 20 ? "churned" : "kept-%" PRIu64, number);
    dkv_record record = {
        .key = dkv_slice_of(text), .value = {value, sizeof value}, .version = {hlc, 1}};
    return dkv_store_apply(w->store, &record, number);
}

/* Performs all jobs but merge's read, which comes back performed but not given to the store. */
static dkv_disk_job *settle_without_merge(world *w, dkv_disk_job *held) {
    dkv_disk_job *job;
    while ((job = dkv_store_next_job(w->store))) {
        CHECK(job->op != DKV_DISK_READ || !held);
        dkv_sim_disk_run(w->disk, job);
        if (job->op == DKV_DISK_READ) held = job;
        if (job->op != DKV_DISK_READ) dkv_store_job_done(w->store, job);
    }
    take_events(w);
    return held;
}

static int delete_kept(world *w, uint64_t number, uint64_t hlc) {
    char text[32];
    snprintf(text, sizeof text, "kept-%" PRIu64, number);
    dkv_record record = {
        .key = dkv_slice_of(text), .version = {hlc, 1}, .kind = DKV_KIND_TOMBSTONE};
    return dkv_store_apply(w->store, &record, hlc);
}

static int admits_value(const world *w) {
    return dkv_store_admits(w->store, DKV_KIND_VALUE, 0);
}

/* A disk that says how full it is is not filled to its end: new values are refused before, and
 * deletions are not. They are the way to have space again. */
static void deletions_make_space(void) {
    world *w = new_world(check_seed);
    dkv_sim_disk_tell_space(w->disk, true);
    dkv_sim_disk_limit(w->disk, 2 << 20);
    uint64_t number = 0;
    while (admits_value(w) == DKV_OK) {
        number += 20;
        CHECK(number < 40000 && churn(w, number, number) == DKV_OK);
        settle_counting_reads(w);
    }
    CHECK(admits_value(w) == DKV_ERR_NO_SPACE && world_stats(w).full && w->n_refused == 0);
    CHECK(dkv_store_admits(w->store, DKV_KIND_TOMBSTONE, 0) == DKV_OK);
    for (uint64_t kept = 20; kept <= number; kept += 20) {
        CHECK(delete_kept(w, kept, number + kept) == DKV_OK);
        settle_counting_reads(w);
    }
    CHECK(admits_value(w) == DKV_OK && world_stats(w).log_bytes < 1 << 20);
}

/* What is begun before the disk is known to be nearly full is still taken, up to half of what is
 * kept back: elsewhere it may have been written already. */
static void what_is_begun_is_taken(void) {
    world *w = new_world(check_seed);
    dkv_sim_disk_tell_space(w->disk, true);
    dkv_sim_disk_limit(w->disk, 2 << 20);
    uint64_t number = 0, late = 0;
    int err = DKV_OK;
    while (!err) {
        number += 20;
        late += admits_value(w) != DKV_OK;
        err = churn(w, number, number);
        settle_counting_reads(w);
    }
    CHECK(err == DKV_ERR_NO_SPACE);
    CHECK(late > 8 && late < 24); /* of 2 KB each: half of a segment of 64 KiB */
}

/* Merge has the space that it needs to free some: a disk full of dead records does not stay full.
 */
static void merge_makes_space(void) {
    world *w = new_world(check_seed);
    dkv_disk_job *held = NULL;
    dkv_sim_disk_tell_space(w->disk, true);
    dkv_sim_disk_limit(w->disk, 2 << 20);
    for (uint64_t number = 1; admits_value(w) == DKV_OK; number++) {
        CHECK(number < 20000 && churn(w, number, number) == DKV_OK);
        held = settle_without_merge(w, held);
    }
    CHECK(held && admits_value(w) == DKV_ERR_NO_SPACE);
    dkv_store_job_done(w->store, held);
    settle_counting_reads(w);
    CHECK(admits_value(w) == DKV_OK && world_stats(w).log_bytes < 1 << 20);
}

static uint32_t count_files(world *w) {
    static dkv_disk_file files[DKV_DISK_FILES_MAX];
    dkv_disk_job list = {
        .op = DKV_DISK_LIST, .len_bytes = DKV_DISK_FILES_MAX, .data = (uint8_t *)files};
    CHECK(dkv_sim_disk_run(w->disk, &list) == DKV_OK);
    return list.done_bytes;
}

/* A store that cannot be opened because the disk is full leaves nothing behind by trying, and loses
 * nothing. */
static void failed_open_leaves_no_files(void) {
    world *w = new_world(check_seed);
    for (int i = 0; i < 60; i++) CHECK(world_write(w) == DKV_OK);
    world_settle(w);
    for (int i = 0; i < 5; i++) CHECK(world_write(w) == DKV_OK);
    while (world_step(w)) continue;
    world_stop(w, STOP_KILL);
    uint64_t bytes = dkv_sim_disk_bytes(w->disk);
    uint32_t files = count_files(w);
    dkv_sim_disk_limit(w->disk, bytes);
    for (int i = 0; i < 5; i++) {
        CHECK(world_open(w) == DKV_ERR_NO_SPACE);
        dkv_sim_disk_kill(w->disk);
        CHECK(count_files(w) == files && dkv_sim_disk_bytes(w->disk) == bytes);
    }
    dkv_sim_disk_limit(w->disk, 0);
    CHECK(world_open(w) == DKV_OK && w->report.damaged_records == 0 && world_compare(w) == 0);
    world_read_all(w);
}

/* However far behind merge is: while the disk is full it does not read what it cannot move,
 * whatever is tried again. With space it makes up for it. */
static void merge_waits_for_space(void) {
    world *w = new_world(check_seed);
    dkv_disk_job *held = NULL;
    for (uint64_t number = 1; churn(w, number, number) == DKV_OK; number++) {
        CHECK(number < 20000);
        held = settle_without_merge(w, held);
    }
    CHECK(held && dkv_store_admits(w->store, DKV_KIND_VALUE, 0) == DKV_ERR_BUSY);
    dkv_sim_disk_limit(w->disk, dkv_sim_disk_bytes(w->disk));
    dkv_store_job_done(w->store, held);
    uint64_t read_bytes = 0, log_bytes = world_stats(w).log_bytes;
    for (int i = 0; i < 100; i++) {
        read_bytes += settle_counting_reads(w);
        CHECK(dkv_store_admits(w->store, DKV_KIND_VALUE, 0) == DKV_ERR_NO_SPACE);
        dkv_store_retry(w->store);
    }
    CHECK(read_bytes <= 2 * 65536);
    dkv_sim_disk_limit(w->disk, 0);
    dkv_store_retry(w->store);
    settle_counting_reads(w);
    CHECK(dkv_store_admits(w->store, DKV_KIND_VALUE, 0) == DKV_OK &&
          world_stats(w).log_bytes < log_bytes);
}

/* A segment that merge has begun to read when the disk becomes full, and of which nothing is alive
 * any more, is removed all the same: that is the way to have space again. */
static void dead_victim_is_removed(void) {
    world *w = new_world(check_seed);
    dkv_disk_job *held = NULL;
    uint64_t number = 1;
    for (; !held; held = settle_without_merge(w, held)) {
        CHECK(churn(w, number, number) == DKV_OK);
        number++;
    }
    dkv_disk_file victim = held->file;
    for (uint64_t kept = 20; kept < number; kept += 20) { /* what is alive in it dies */
        CHECK(churn(w, kept, number + kept) == DKV_OK);
    }
    settle_without_merge(w, held);
    dkv_sim_disk_limit(w->disk, dkv_sim_disk_bytes(w->disk));
    CHECK(churn(w, 1, 2 * number) == DKV_OK);
    settle_counting_reads(w);
    CHECK(dkv_store_admits(w->store, DKV_KIND_VALUE, 0) == DKV_ERR_NO_SPACE);
    CHECK(dkv_sim_disk_flip(w->disk, victim, 0, 0) == DKV_OK);
    dkv_store_job_done(w->store, held);
    settle_counting_reads(w);
    CHECK(dkv_sim_disk_flip(w->disk, victim, 0, 0) == DKV_ERR_NOT_FOUND);
}

/* A segment with a record of a later version, which a clean start does not notice, is left alone by
 * merge: it is neither read again and again nor removed. */
static void unknown_record_is_left_alone(void) {
    world *w = new_world(check_seed);
    uint8_t bytes[40];
    dkv_log_record record = {.kind = (dkv_log_kind)9};
    dkv_disk_file first = {.kind = DKV_FILE_SEGMENT, .number = 1};
    w->max_value = 16000;
    for (int i = 0; i < 80; i++) CHECK(world_write(w) == DKV_OK);
    settle_counting_reads(w);
    CHECK(dkv_store_close_clean(w->store, dkv_sim_disk_run, w->disk) == DKV_OK);
    dkv_log_encode(bytes, (dkv_log_at){dkv_store_id(w->store), 1, 256}, &record); /* over PRESENT */
    dkv_disk_job job = {DKV_DISK_WRITE, first, 256, sizeof bytes, 0, bytes, 0};
    CHECK(dkv_sim_disk_run(w->disk, &job) == DKV_OK);
    world_stop(w, STOP_KILL);
    CHECK(world_open(w) == DKV_OK && w->report.clean);
    int readings = 0;
    for (int i = 0; i < 2000; i++) {
        dkv_disk_job *next;
        CHECK(world_write(w) == DKV_OK);
        while ((next = dkv_store_next_job(w->store))) {
            bool reads_first = next->op == DKV_DISK_READ && next->file.number == 1;
            readings += reads_first && next->offset == DKV_LOG_HEADER_BYTES;
            dkv_sim_disk_run(w->disk, next);
            dkv_store_job_done(w->store, next);
            take_events(w);
        }
    }
    CHECK(readings == 1 && dkv_sim_disk_flip(w->disk, first, 0, 0) == DKV_OK);
}

/* Where there is space for records and not for zeros behind them, the records are written. */
static void room_ahead_gives_way(void) {
    world *w = new_world(check_seed);
    w->options.segment_bytes = 4 << 20;
    world_stop(w, STOP_KILL);
    CHECK(world_open(w) == DKV_OK);
    CHECK(churn(w, 1, 1) == DKV_OK);
    settle_counting_reads(w);
    uint64_t room_end = world_stats(w).log_bytes + DKV_AHEAD_BYTES;
    CHECK(dkv_sim_disk_bytes(w->disk) >= room_end);
    dkv_sim_disk_limit(w->disk, dkv_sim_disk_bytes(w->disk) + 20000);
    uint64_t number = 1;
    while (w->n_refused == 0) {
        CHECK(++number < 1000);
        if (churn(w, number, number)) break;
        settle_counting_reads(w);
    }
    CHECK(world_stats(w).log_bytes > room_end + 10000);
}

static const check_test tests[] = {
    CHECK_TEST(unknown_record_is_left_alone), CHECK_TEST(merge_waits_for_space),
    CHECK_TEST(dead_victim_is_removed),       CHECK_TEST(deletions_make_space),
    CHECK_TEST(what_is_begun_is_taken),       CHECK_TEST(merge_makes_space),
    CHECK_TEST(failed_open_leaves_no_files),  CHECK_TEST(room_ahead_gives_way),
};
CHECK_MAIN(tests)
