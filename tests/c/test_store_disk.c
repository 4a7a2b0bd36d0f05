/* The store on real files. Without a mode it runs its own tests in a fresh directory below TMPDIR;
 * tests/store/test_real_disk.py uses the modes:
 *
 *     test_store_disk write DIR [KEYS [INTERVAL_MS]]
 *                                   applies records without end, prints "NUMBER\n" when one is
 *                                   confirmed; says "full" when the disk is and goes on
 *     test_store_disk verify DIR [KEYS]
 *                                   reads such numbers from standard input, opens the store and
 *                                   compares; prints what the opening found
 *     test_store_disk opening DIR [RECORDS]
 *                                   prints how long opening takes after a kill and a clean stop
 *     test_store_disk measure DIR [RECORDS]
 *                                   prints that, and what puts, gets and syncs cost here */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/rand.h"
#include "check.h"
#include "host/disk.h"
#include "model/request.h"
#include "store/store.h"

#define KEYS_MAX 40000u

static uint64_t n_keys = 2000;

/* ---- a store on a directory ---- */

typedef struct place {
    char path[512];
    dkv_disk *disk;
    dkv_store *store;
    dkv_store_report report;
    sem_t woken;
    uint32_t segment_bytes;
    dkv_durability durability;
    uint32_t interval_ms;
    uint64_t jobs_out;
    uint64_t confirmed; /* events */
    uint64_t refused;   /* events with NO_SPACE */
    uint64_t reads;     /* events */
    bool failed;
    void (*on_confirmed)(uint64_t number);
    void (*on_read)(const dkv_record *record);
} place;

static void on_wake(void *user) {
    sem_post(&((place *)user)->woken);
}

static int place_open(place *p, char *why) {
    dkv_store_options options = {
        .cluster = "c",
        .node_id = "n",
        .new_store_id = 4711,
        .segment_bytes = p->segment_bytes,
        .durability = p->durability,
        .interval_ms = p->interval_ms,
        .boot_id = 1,
    };
    bool in_memory = p->durability == DKV_DURABILITY_MEMORY;
    sem_init(&p->woken, 0, 0);
    int err = dkv_disk_open(p->path, in_memory, on_wake, p, &p->disk, why);
    if (err) return err;
    err = dkv_store_open(&options, dkv_disk_run_now, p->disk, &p->store, &p->report);
    snprintf(why, DKV_DETAIL_MAX, "%s", dkv_err_sentence(err));
    if (err) dkv_disk_del(p->disk);
    return err;
}

static void place_close(place *p) {
    dkv_disk_del(p->disk);
    dkv_store_del(p->store);
    p->disk = NULL;
    p->store = NULL;
    p->jobs_out = 0;
    p->failed = false;
}

static void give_back(place *p, dkv_disk_job *job) {
    dkv_store_event event;
    dkv_store_job_done(p->store, job);
    while (dkv_store_next_event(p->store, &event)) {
        p->failed = p->failed || event.kind == DKV_STORE_FAILED;
        if (event.kind == DKV_STORE_READ && event.err == DKV_OK) {
            p->reads++;
            if (p->on_read) p->on_read(&event.record);
        }
        if (event.kind != DKV_STORE_DURABLE) continue;
        p->confirmed += event.err == DKV_OK;
        p->refused += event.err == DKV_ERR_NO_SPACE;
        if (event.err == DKV_OK && p->on_confirmed) p->on_confirmed(event.cookie);
    }
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Moves jobs and completions as far as they go without waiting. */
static void turn(place *p) {
    dkv_disk_job *job;
    for (bool moved = true; moved;) {
        moved = false;
        dkv_store_tick(p->store, (int64_t)(seconds(CLOCK_MONOTONIC) * 1e9));
        while ((job = dkv_disk_next_done(p->disk))) {
            p->jobs_out--;
            give_back(p, job);
        }
        while ((job = dkv_store_next_job(p->store))) {
            moved = true;
            if (dkv_disk_submit(p->disk, job)) {
                give_back(p, job);
            } else {
                p->jobs_out++;
            }
        }
    }
}

/* Waits until no job is out. */
static void settle(place *p) {
    for (turn(p); p->jobs_out > 0; turn(p)) sem_wait(&p->woken);
}

/* ---- writes known by their number ---- */

static uint64_t key_of(uint64_t number) {
    dkv_rand rand = {number};
    return dkv_rand_below(&rand, n_keys);
}

static dkv_slice key_bytes(uint64_t key, char text[32]) {
    snprintf(text, 32, "key-%012" PRIu64, key);
    return dkv_slice_of(text);
}

static size_t fill_value(uint64_t number, uint8_t *value) {
    dkv_rand rand = {number * 7919};
    size_t len = dkv_rand_below(&rand, dkv_rand_below(&rand, 50) == 0 ? 100000 : 400);
    memset(value, (int)(number % 251), len);
    if (len >= 8) dkv_put_le64(value, number);
    return len;
}

static int apply_number(place *p, uint64_t number) {
    static uint8_t value[DKV_VALUE_MAX];
    char text[32];
    dkv_record record = {.key = key_bytes(key_of(number), text), .version = {number, 1}};
    record.value = (dkv_slice){value, fill_value(number, value)};
    return dkv_store_apply(p->store, &record, number);
}

/* ---- modes ---- */

static void print_number(uint64_t number) {
    char line[32];
    int len = snprintf(line, sizeof line, "%" PRIu64 "\n", number);
    if (write(STDOUT_FILENO, line, (size_t)len) != len) exit(3);
}

static uint64_t newest_number(const dkv_store *store) {
    dkv_key_hash from = {0, 0}, hash;
    dkv_store_entry entry;
    uint64_t newest = 0;
    while (dkv_store_next(store, from, &hash, &entry) == DKV_OK) {
        if (entry.version.hlc > newest) newest = entry.version.hlc;
        from = (dkv_key_hash){hash.token, hash.tag + 1};
    }
    return newest;
}

static int mode_write(place *p) {
    char why[DKV_DETAIL_MAX];
    p->segment_bytes = 4 << 20;
    if (place_open(p, why)) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    p->on_confirmed = print_number;
    uint64_t number = newest_number(p->store) + 1;
    dkv_rand rand = {number};
    bool was_full = false;
    while (!p->failed) {
        uint64_t batch = 1 + dkv_rand_below(&rand, 100);
        int err = DKV_OK;
        for (uint64_t i = 0; i < batch && !err; i++) err = apply_number(p, number++);
        if (err == DKV_ERR_NO_SPACE) {
            if (!was_full && write(STDOUT_FILENO, "full\n", 5) != 5) return 3;
            was_full = true;
            nanosleep(&(struct timespec){0, 20000000}, NULL);
            dkv_store_retry(p->store);
        }
        turn(p);
        if (p->jobs_out > 2) sem_wait(&p->woken);
    }
    fprintf(stderr, "the disk failed\n");
    return 1;
}

/* The newest confirmed number of each key. */
static void read_confirmed(uint64_t newest[KEYS_MAX]) {
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        uint64_t number = strtoull(line, NULL, 10);
        if (number == 0) continue;
        uint64_t key = key_of(number);
        if (number > newest[key]) newest[key] = number;
    }
}

static bool verify_key(place *p, uint64_t key, uint64_t least) {
    static uint8_t value[DKV_VALUE_MAX];
    char text[32];
    dkv_store_event event;
    dkv_slice bytes = key_bytes(key, text);
    dkv_key_hash hash = dkv_hash_key(bytes);
    int err = dkv_store_read(p->store, bytes, hash, 0);
    if (err) return err == DKV_ERR_NOT_FOUND && least == 0;
    dkv_disk_job *job = dkv_store_next_job(p->store);
    if (job) {
        dkv_disk_run_now(p->disk, job);
        dkv_store_job_done(p->store, job);
    }
    if (!dkv_store_next_event(p->store, &event) || event.err) return false;
    uint64_t number = event.record.version.hlc;
    dkv_slice expected = {value, fill_value(number, value)};
    return number >= least && key_of(number) == key && dkv_slice_eq(event.record.value, expected);
}

static int mode_verify(place *p) {
    static uint64_t newest[KEYS_MAX];
    char why[DKV_DETAIL_MAX];
    int failures = 0;
    read_confirmed(newest);
    if (place_open(p, why)) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    for (uint64_t key = 0; key < n_keys; key++) {
        if (verify_key(p, key, newest[key])) continue;
        fprintf(stderr, "key %" PRIu64 ": confirmed write %" PRIu64 " is lost\n", key, newest[key]);
        failures++;
    }
    printf("records %" PRIu64 " torn_bytes %" PRIu64 " damaged %" PRIu64 "\n", p->report.records,
           p->report.torn_bytes, p->report.damaged_records);
    bool damaged = p->report.damaged_records > 0;
    place_close(p);
    return failures || damaged ? 1 : 0;
}

/* ---- measuring ---- */

typedef struct stopwatch {
    double wall;
    double cpu;
} stopwatch;

static stopwatch watch_start(void) {
    return (stopwatch){seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static void watch_stop(stopwatch from, const char *what, uint64_t operations) {
    double wall = seconds(CLOCK_MONOTONIC) - from.wall;
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - from.cpu;
    printf("%-28s %9.2f us wall %9.2f us CPU an operation, %8.1f ms in all\n", what,
           wall * 1e6 / (double)operations, cpu * 1e6 / (double)operations, wall * 1e3);
    fflush(stdout);
}

static int apply_plain(place *p, uint64_t key, uint64_t hlc) {
    static uint8_t value[100];
    char text[32];
    dkv_record record = {.key = key_bytes(key, text), .version = {hlc, 1}};
    record.value = (dkv_slice){value, sizeof value};
    return dkv_store_apply(p->store, &record, hlc);
}

static void measure_synced(place *p, uint64_t batch, uint64_t rounds, uint64_t *hlc) {
    char what[64];
    snprintf(what, sizeof what, "put synced x%" PRIu64, batch);
    stopwatch watch = watch_start();
    for (uint64_t i = 0; i < rounds; i++) {
        for (uint64_t b = 0; b < batch; b++) apply_plain(p, (*hlc + b) % 100000, *hlc + b + 1);
        *hlc += batch;
        settle(p);
    }
    watch_stop(watch, what, rounds * batch);
}

static void measure_gets(place *p, uint64_t records, uint64_t gets) {
    char text[32];
    dkv_rand rand = {3};
    stopwatch watch = watch_start();
    for (uint64_t i = 0; i < gets; i++) {
        dkv_slice key = key_bytes(dkv_rand_below(&rand, records), text);
        dkv_store_read(p->store, key, dkv_hash_key(key), i);
        turn(p);
    }
    settle(p);
    watch_stop(watch, "get, page cache", gets);
    watch = watch_start();
    for (uint64_t i = 0; i < gets; i++) {
        dkv_slice key = key_bytes(records + i, text);
        dkv_store_read(p->store, key, dkv_hash_key(key), i);
    }
    watch_stop(watch, "get, miss", gets);
}

static void print_stats(const place *p) {
    dkv_store_stats stats;
    dkv_store_stats_get(p->store, &stats);
    printf("    %" PRIu64 " records, %.1f MB live, %.1f MB log, %.1f index bytes a key, %" PRIu64
           " syncs, %.1f MB merged\n",
           stats.records, (double)stats.live_bytes / 1e6, (double)stats.log_bytes / 1e6,
           (double)stats.index_bytes / (double)stats.records, stats.syncs,
           (double)stats.merged_bytes / 1e6);
}

static void reopen(place *p, const char *what) {
    char why[DKV_DETAIL_MAX];
    stopwatch watch = watch_start();
    if (place_open(p, why)) {
        printf("%s\n", why);
        exit(1);
    }
    watch_stop(watch, what, 1);
}

static void measure_puts(place *p, uint64_t records, uint64_t *hlc) {
    reopen(p, "open, new");
    stopwatch watch = watch_start();
    for (uint64_t i = 0; i < records; i++) {
        while (apply_plain(p, i, *hlc + 1)) settle(p);
        ++*hlc;
        if (i % 64 == 63) turn(p);
    }
    watch_stop(watch, "put, 64 a turn, not awaited", records);
    settle(p);
    print_stats(p);
}

static void measure_opening(place *p) {
    place_close(p);
    reopen(p, "open after a kill");
    stopwatch watch = watch_start();
    int err = dkv_store_close_clean(p->store, dkv_disk_run_now, p->disk);
    watch_stop(watch, err ? "close FAILED" : "close clean", 1);
    place_close(p);
    reopen(p, "open after a clean stop");
    print_stats(p);
}

static void measure_digests(const place *p) {
    dkv_rand rand = {5};
    stopwatch watch = watch_start();
    for (uint64_t i = 0; i < 100000; i++) {
        uint64_t first = dkv_rand_next(&rand) / 2;
        dkv_store_digest(p->store, first, first + dkv_rand_next(&rand) / 2);
    }
    watch_stop(watch, "range digest", 100000);
}

static void measure_churn(place *p, uint64_t records, uint64_t *hlc) {
    dkv_rand rand = {9};
    stopwatch watch = watch_start();
    for (uint64_t i = 0; i < 2 * records; i++) {
        uint64_t key = dkv_rand_below(&rand, records);
        while (apply_plain(p, key, *hlc + 1)) settle(p);
        ++*hlc;
        if (i % 64 == 63) turn(p);
    }
    settle(p);
    watch_stop(watch, "churn, 2 x all", 2 * records);
    print_stats(p);
}

static int mode_measure(place *p, uint64_t records, bool only_opening) {
    uint64_t hlc = 0;
    measure_puts(p, records, &hlc);
    if (!only_opening) {
        measure_gets(p, records, 200000);
        measure_digests(p);
    }
    measure_opening(p);
    if (!only_opening) {
        measure_synced(p, 1, 2000, &hlc);
        measure_synced(p, 16, 1000, &hlc);
        measure_synced(p, 128, 500, &hlc);
        measure_churn(p, records, &hlc);
    }
    place_close(p);
    return 0;
}

/* ---- tests ---- */

static place the_place;

static place *new_place(void) {
    const char *base = getenv("TMPDIR");
    memset(&the_place, 0, sizeof the_place);
    snprintf(the_place.path, sizeof the_place.path, "%s/dkv-store-XXXXXX", base ? base : "/tmp");
    CHECK(mkdtemp(the_place.path));
    the_place.segment_bytes = 1 << 20;
    return &the_place;
}

static void remove_place(place *p) {
    char command[600];
    if (p->store) place_close(p);
    snprintf(command, sizeof command, "rm -rf '%s'", p->path);
    CHECK(system(command) == 0);
}

static void apply_many(place *p, uint64_t from, uint64_t to) {
    for (uint64_t number = from; number <= to; number++) {
        int err = apply_number(p, number);
        CHECK(err == DKV_OK || err == DKV_ERR_BUSY);
        if (err == DKV_ERR_BUSY) {
            settle(p);
            number--;
        }
        if (number % 16 == 0) turn(p);
    }
    settle(p);
}

static void check_all(place *p, uint64_t upto) {
    static uint64_t newest[KEYS_MAX];
    memset(newest, 0, sizeof newest);
    for (uint64_t number = 1; number <= upto; number++) newest[key_of(number)] = number;
    for (uint64_t key = 0; key < n_keys; key++) CHECK(verify_key(p, key, newest[key]));
}

/* Writes until merge has moved something: how soon it does depends on how fast the disk answers.
 * Returns the number of the last write. */
static uint64_t write_until_merged(place *p) {
    dkv_store_stats stats = {0};
    uint64_t upto = 0;
    while (upto < 6000 || (stats.merged_bytes == 0 && upto < 200000)) {
        apply_many(p, upto + 1, upto + 1000);
        upto += 1000;
        dkv_store_stats_get(p->store, &stats);
    }
    CHECK(stats.merged_bytes > 0);
    return upto;
}

/* Writing, merging, reopening after a kill and after a clean stop on real files keeps everything.
 */
static void keeps_everything(void) {
    char why[DKV_DETAIL_MAX];
    place *p = new_place();
    CHECK(place_open(p, why) == DKV_OK && p->report.created);
    uint64_t upto = write_until_merged(p);
    CHECK(p->confirmed == upto);
    place_close(p);
    CHECK(place_open(p, why) == DKV_OK && !p->report.clean && p->report.damaged_records == 0);
    check_all(p, upto);
    CHECK(dkv_store_close_clean(p->store, dkv_disk_run_now, p->disk) == DKV_OK);
    place_close(p);
    CHECK(place_open(p, why) == DKV_OK && p->report.clean);
    check_all(p, upto);
    remove_place(p);
}

/* A directory in use is LOCKED, with a sentence that names it; free again after the owner's end. */
static void directory_is_locked(void) {
    char why[DKV_DETAIL_MAX];
    place *p = new_place();
    dkv_disk *second = NULL;
    CHECK(place_open(p, why) == DKV_OK);
    CHECK(dkv_disk_open(p->path, false, NULL, NULL, &second, why) == DKV_ERR_LOCKED && !second);
    CHECK(strstr(why, p->path));
    place_close(p);
    CHECK(dkv_disk_open(p->path, false, NULL, NULL, &second, why) == DKV_OK);
    dkv_disk_del(second);
    remove_place(p);
}

/* A store in memory writes, merges and reads as one on disk, leaves nothing but the lock, and is a
 * new store after its end. */
static void memory_store_ends_with_its_process(void) {
    char why[DKV_DETAIL_MAX], command[600];
    place *p = new_place();
    p->durability = DKV_DURABILITY_MEMORY;
    CHECK(place_open(p, why) == DKV_OK && p->report.created);
    uint64_t upto = write_until_merged(p);
    CHECK(p->confirmed == upto);
    check_all(p, upto);
    CHECK(dkv_store_close_clean(p->store, dkv_disk_run_now, p->disk) == DKV_OK);
    place_close(p);
    snprintf(command, sizeof command, "test \"$(ls '%s')\" = lock", p->path);
    CHECK(system(command) == 0);
    CHECK(place_open(p, why) == DKV_OK && p->report.created && p->report.records == 0);
    remove_place(p);
}

/* A directory that holds a store on disk is not used for one in memory: it would be out of date
 * when it is used again. */
static void memory_store_needs_its_own_directory(void) {
    char why[DKV_DETAIL_MAX];
    place *p = new_place();
    CHECK(place_open(p, why) == DKV_OK);
    apply_many(p, 1, 10);
    place_close(p);
    dkv_disk *disk = NULL;
    CHECK(dkv_disk_open(p->path, true, NULL, NULL, &disk, why) == DKV_ERR_PRECONDITION && !disk);
    CHECK(strstr(why, p->path) && strstr(why, "in memory"));
    CHECK(place_open(p, why) == DKV_OK);
    check_all(p, 10);
    remove_place(p);
}

/* A path that is no directory is refused with the reason. */
static void file_is_no_directory(void) {
    char why[DKV_DETAIL_MAX];
    place *p = new_place();
    dkv_disk *disk = NULL;
    CHECK(rmdir(p->path) == 0);
    close(open(p->path, O_CREAT | O_WRONLY, 0600));
    CHECK(dkv_disk_open(p->path, false, NULL, NULL, &disk, why) != DKV_OK);
    CHECK(strstr(why, strerror(ENOTDIR)));
    remove_place(p);
}

/* A missing directory is made, for its owner only; files of others in it are left alone. */
static void directory_is_made(void) {
    char why[DKV_DETAIL_MAX], other[600];
    place *p = new_place();
    struct stat status;
    CHECK(rmdir(p->path) == 0);
    CHECK(place_open(p, why) == DKV_OK);
    CHECK(stat(p->path, &status) == 0 && (status.st_mode & 0777) == 0700);
    place_close(p);
    snprintf(other, sizeof other, "%s/1.seg.bak", p->path);
    close(open(other, O_CREAT | O_WRONLY, 0600));
    CHECK(place_open(p, why) == DKV_OK && p->report.damaged_records == 0);
    CHECK(stat(other, &status) == 0);
    remove_place(p);
}

typedef struct fault {
    dkv_disk_op op;
    int err;
    int after; /* so many jobs of this op are let pass */
} fault;

static int inject(void *user, const dkv_disk_job *job) {
    fault *f = user;
    if (job->op != f->op || f->after-- > 0) return DKV_OK;
    return f->err;
}

/* A sync that fails ends the store: no further confirmation, one event, and after a restart all
 * that was confirmed before is there. */
static void failed_sync_stops(void) {
    char why[DKV_DETAIL_MAX];
    place *p = new_place();
    fault f = {DKV_DISK_SYNC, DKV_ERR_IO, 3};
    CHECK(place_open(p, why) == DKV_OK);
    apply_many(p, 1, 500);
    dkv_disk_set_fault(p->disk, inject, &f);
    for (uint64_t number = 501; number < 600 && !p->failed; number++) {
        CHECK(apply_number(p, number) == DKV_OK);
        settle(p);
    }
    CHECK(p->failed && p->confirmed >= 500 && p->confirmed < 510);
    CHECK(apply_number(p, 9999) == DKV_ERR_IO && dkv_store_next_job(p->store) == NULL);
    uint64_t confirmed = p->confirmed;
    place_close(p);
    CHECK(place_open(p, why) == DKV_OK);
    check_all(p, confirmed);
    remove_place(p);
}

/* Without space a write is refused and reads go on; with space again, writes go on. */
static void full_disk_recovers(void) {
    char why[DKV_DETAIL_MAX];
    place *p = new_place();
    fault f = {DKV_DISK_WRITE, DKV_ERR_NO_SPACE, 0};
    CHECK(place_open(p, why) == DKV_OK);
    apply_many(p, 1, 500);
    dkv_disk_set_fault(p->disk, inject, &f);
    CHECK(apply_number(p, 501) == DKV_OK);
    settle(p);
    CHECK(p->refused == 1 && apply_number(p, 502) == DKV_ERR_NO_SPACE);
    check_all(p, 500);
    dkv_disk_set_fault(p->disk, NULL, NULL);
    dkv_store_retry(p->store);
    settle(p);
    apply_many(p, 502, 600);
    place_close(p);
    CHECK(place_open(p, why) == DKV_OK && p->report.damaged_records == 0);
    check_all(p, 600);
    remove_place(p);
}

static int pass(void *user, const dkv_disk_job *job) {
    (void)user;
    (void)job;
    return DKV_OK;
}

static void check_read(const dkv_record *record) {
    static uint8_t value[DKV_VALUE_MAX];
    dkv_slice expected = {value, fill_value(record->version.hlc, value)};
    CHECK(dkv_slice_eq(record->value, expected));
}

/* Reads that go through the disk's thread come back with the right bytes, among writes and merging
 * that removes the very files. */
static void slow_reads_come_back(void) {
    char why[DKV_DETAIL_MAX], text[32];
    place *p = new_place();
    uint64_t reads = 0;
    CHECK(place_open(p, why) == DKV_OK);
    apply_many(p, 1, 3000);
    dkv_disk_set_fault(p->disk, pass, NULL); /* with one set, no read takes the short way */
    p->on_read = check_read;
    for (uint64_t number = 3001; number <= 8000; number++) {
        int err = apply_number(p, number);
        CHECK(err == DKV_OK || err == DKV_ERR_BUSY);
        dkv_slice key = key_bytes(number * 31 % n_keys, text);
        if (dkv_store_read(p->store, key, dkv_hash_key(key), number) == DKV_OK) reads++;
        if (number % 8 == 0) turn(p);
        if (number % 512 == 0) settle(p);
    }
    settle(p);
    dkv_store_stats stats;
    dkv_store_stats_get(p->store, &stats);
    CHECK(p->reads == reads && reads > 2000 && stats.merged_bytes > 0);
    remove_place(p);
}

static void no_wake(void *user) {
    (void)user;
}

/* Where files are memory anyway, reads are performed at once, not by the disk's thread. */
static void reads_of_memory_are_immediate(void) {
    char path[] = "/dev/shm/dkv-test-XXXXXX", command[64], why[DKV_DETAIL_MAX];
    uint8_t bytes[16] = "in memory", back[16];
    dkv_disk_file file = {.kind = DKV_FILE_SEGMENT, .number = 1};
    dkv_disk_job create = {.op = DKV_DISK_CREATE, .file = file};
    dkv_disk_job write = {.op = DKV_DISK_WRITE, .file = file, .len_bytes = 16, .data = bytes};
    dkv_disk_job read = {.op = DKV_DISK_READ, .file = file, .len_bytes = 16, .data = back};
    dkv_disk *disk;
    CHECK(mkdtemp(path) && dkv_disk_open(path, false, no_wake, NULL, &disk, why) == DKV_OK);
    CHECK(dkv_disk_run_now(disk, &create) == DKV_OK && dkv_disk_run_now(disk, &write) == DKV_OK);
    CHECK(dkv_disk_submit(disk, &read) && read.err == DKV_OK && read.done_bytes == 16);
    CHECK(memcmp(bytes, back, sizeof bytes) == 0);
    dkv_disk_del(disk);
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    CHECK(system(command) == 0);
}

static const check_test tests[] = {
    CHECK_TEST(reads_of_memory_are_immediate),
    CHECK_TEST(keeps_everything),
    CHECK_TEST(directory_is_locked),
    CHECK_TEST(memory_store_ends_with_its_process),
    CHECK_TEST(memory_store_needs_its_own_directory),
    CHECK_TEST(file_is_no_directory),
    CHECK_TEST(directory_is_made),
    CHECK_TEST(failed_sync_stops),
    CHECK_TEST(full_disk_recovers),
    CHECK_TEST(slow_reads_come_back),
};

int main(int argc, char **argv) {
    bool has_mode = argc >= 3 && argv[1][0] != '-';
    if (!has_mode) return check_main(tests, sizeof tests / sizeof *tests, argc, argv);
    place *p = &the_place;
    snprintf(p->path, sizeof p->path, "%s", argv[2]);
    uint64_t count = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    if (count > 0 && count <= KEYS_MAX) n_keys = count;
    if (argc > 4) {
        p->durability = DKV_DURABILITY_INTERVAL;
        p->interval_ms = (uint32_t)atoi(argv[4]);
    }
    if (strcmp(argv[1], "write") == 0) return mode_write(p);
    if (strcmp(argv[1], "verify") == 0) return mode_verify(p);
    bool only_opening = strcmp(argv[1], "opening") == 0;
    if (only_opening || strcmp(argv[1], "measure") == 0) {
        return mode_measure(p, count ? count : 1000000, only_opening);
    }
    return check_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
