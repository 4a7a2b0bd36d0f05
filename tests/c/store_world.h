/* A store on a simulated disk beside a plain model of what it must hold.
 *
 * Every write ever made has a number, which is its hlc; key, kind and value follow from the number
 * alone. So whatever the store returns can be checked: it must be the write of that number, and its
 * number must be at least that of the newest confirmed write of the key. */
#ifndef DKV_TESTS_STORE_WORLD_H
#define DKV_TESTS_STORE_WORLD_H

#include "base/err.h"
#include "base/rand.h"
#include "check.h"
#include "sim/disk.h"
#include "store/store.h"

#define WORLD_KEYS 96u
#define WORLD_WRITES_MAX 200000u
#define WORLD_JOBS_MAX 80u
#define WORLD_STEP_NS 100000
#define WORLD_PAGE_BYTES 4096u
#define WORLD_FACTS_COOKIE (1ull << 60)
#define WORLD_READ_COOKIE (1ull << 61)

typedef struct world {
    dkv_rand rand;
    dkv_sim_disk *disk;
    dkv_store *store;
    dkv_store_options options;
    dkv_store_report report;

    uint64_t writes; /* numbers 1 .. writes have been made */
    uint32_t max_value;
    uint64_t current[WORLD_KEYS];   /* newest write taken, 0: none */
    uint64_t confirmed[WORLD_KEYS]; /* newest write confirmed */
    uint64_t facts_set;             /* the facts are their number, as text */
    uint64_t facts_confirmed;
    uint8_t waiting[WORLD_WRITES_MAX + 1]; /* by write: confirmations to come */
    uint64_t n_waiting;
    uint64_t n_refused; /* confirmations that said NO_SPACE */
    uint64_t reads_out;
    uint64_t damaged_events;
    uint64_t scrub_events;
    uint64_t unreadable_events;
    bool failed;   /* DKV_STORE_FAILED was seen */
    bool may_lose; /* a test damaged the disk: keys may be missing */

    dkv_disk_job *jobs[WORLD_JOBS_MAX]; /* submitted, not completed */
    uint32_t n_jobs;
    int64_t now_ns;    /* goes on with each step */
    uint64_t crash_in; /* jobs run while opening until the machine stops; 0: never */
} world;

/* ---- what a write is ---- */

static inline uint64_t mix(uint64_t number, uint64_t salt) {
    dkv_rand rand = {number * 1000003u + salt};
    return dkv_rand_next(&rand);
}

static inline uint32_t key_of_write(uint64_t number) {
    return (uint32_t)(mix(number, 1) % WORLD_KEYS);
}

static inline bool is_deletion(uint64_t number) {
    return mix(number, 2) % 8 == 0;
}

static inline dkv_slice key_bytes(uint32_t key, char text[16]) {
    snprintf(text, 16, "key-%u", key);
    return dkv_slice_of(text);
}

static inline dkv_key_hash hash_of(uint32_t key) {
    char text[16];
    return dkv_hash_key(key_bytes(key, text));
}

static inline uint32_t value_len(const world *w, uint64_t number) {
    if (is_deletion(number)) return 0;
    uint32_t max = mix(number, 3) % 16 == 0 ? w->max_value : w->max_value / 16;
    return (uint32_t)(mix(number, 4) % (max + 1));
}

static inline void fill_value(uint64_t number, uint8_t *to, uint32_t len) {
    bool is_blank = mix(number, 6) % 4 == 0;
    for (uint32_t i = 0; i < len; i++) {
        to[i] = is_blank ? 0 : (uint8_t)(number + (number >> 8) + i * 7 + i / 255);
    }
}

static inline dkv_version version_of(uint64_t number) {
    return (dkv_version){number, 100 + mix(number, 5) % 3};
}

/* ---- the store's side ---- */

static inline void world_init(world *w, uint64_t seed) {
    memset(w, 0, sizeof *w);
    w->rand.state = seed;
    w->max_value = 2000;
    CHECK(dkv_sim_disk_new(dkv_rand_next(&w->rand), &w->disk) == DKV_OK);
    w->options = (dkv_store_options){.cluster = "cluster",
                                     .node_id = "node",
                                     .new_store_id = dkv_rand_next(&w->rand) | 1,
                                     .segment_bytes = 65536};
}

static inline void world_free(world *w) {
    dkv_store_del(w->store);
    dkv_sim_disk_del(w->disk);
}

static inline int world_run(void *user, dkv_disk_job *job) {
    world *w = user;
    if (w->crash_in == 1) { /* the machine stops in the middle of this job */
        dkv_sim_disk_submit(w->disk, job);
        job->err = DKV_ERR_CANCELLED;
        return job->err;
    }
    if (w->crash_in > 1) w->crash_in--;
    return dkv_sim_disk_run(w->disk, job);
}

static inline int world_open(world *w) {
    dkv_store *store = NULL;
    int err = dkv_store_open(&w->options, world_run, w, &store, &w->report);
    if (!err) w->store = store;
    return err;
}

static inline void check_record(const world *w, const dkv_record *record) {
    static uint8_t expected[DKV_VALUE_MAX];
    char text[16];
    uint64_t number = record->version.hlc;
    CHECK(number >= 1 && number <= w->writes);
    CHECK(record->version.origin == version_of(number).origin);
    CHECK(dkv_slice_eq(record->key, key_bytes(key_of_write(number), text)));
    CHECK((record->kind == DKV_KIND_TOMBSTONE) == is_deletion(number));
    uint32_t len = value_len(w, number);
    CHECK(record->value.len == len);
    fill_value(number, expected, len);
    CHECK(len == 0 || memcmp(record->value.data, expected, len) == 0);
}

static inline void on_durable(world *w, const dkv_store_event *event) {
    CHECK(event->err == DKV_OK || event->err == DKV_ERR_NO_SPACE);
    if (event->cookie & WORLD_FACTS_COOKIE) {
        if (!event->err) w->facts_confirmed = event->cookie & ~WORLD_FACTS_COOKIE;
        return;
    }
    CHECK(w->waiting[event->cookie] > 0);
    w->waiting[event->cookie]--;
    w->n_waiting--;
    w->n_refused += event->err != DKV_OK;
    uint32_t key = key_of_write(event->cookie);
    if (!event->err && event->cookie > w->confirmed[key]) w->confirmed[key] = event->cookie;
}

static inline void on_read(world *w, const dkv_store_event *event) {
    uint32_t key = (uint32_t)(event->cookie & 0xFFFF);
    w->reads_out--;
    if (event->err && w->may_lose) return;
    CHECK(event->err == DKV_OK);
    check_record(w, &event->record);
    CHECK(key_of_write(event->record.version.hlc) == key);
}

static inline void world_events(world *w) {
    dkv_store_event event;
    while (dkv_store_next_event(w->store, &event)) {
        switch (event.kind) {
        case DKV_STORE_DURABLE: on_durable(w, &event); break;
        case DKV_STORE_READ: on_read(w, &event); break;
        case DKV_STORE_FAILED: w->failed = true; break;
        case DKV_STORE_DAMAGED:
            CHECK(w->may_lose);
            w->damaged_events++;
            break;
        case DKV_STORE_SCRUBBED: w->scrub_events++; break;
        case DKV_STORE_UNREADABLE: w->unreadable_events++; break;
        }
    }
}

/* Takes one job from the store, or completes a random one. False: nothing to do. */
static inline bool world_step(world *w) {
    w->now_ns += WORLD_STEP_NS;
    dkv_store_tick(w->store, w->now_ns);
    bool take = w->n_jobs < WORLD_JOBS_MAX && (w->n_jobs == 0 || dkv_rand_below(&w->rand, 2));
    dkv_disk_job *job = take ? dkv_store_next_job(w->store) : NULL;
    if (job) {
        dkv_sim_disk_submit(w->disk, job);
        w->jobs[w->n_jobs++] = job;
        return true;
    }
    if (w->n_jobs == 0) return false;
    uint32_t at = (uint32_t)dkv_rand_below(&w->rand, w->n_jobs);
    job = w->jobs[at];
    w->jobs[at] = w->jobs[--w->n_jobs];
    dkv_sim_disk_complete(w->disk, job);
    dkv_store_job_done(w->store, job);
    world_events(w);
    return true;
}

static inline void world_settle(world *w) {
    while (world_step(w)) continue;
    world_events(w);
}

/* ---- operations ---- */

/* Applies write `number`, new or not. */
static inline int world_apply(world *w, uint64_t number) {
    static uint8_t value[DKV_VALUE_MAX];
    char text[16];
    uint32_t key = key_of_write(number), len = value_len(w, number);
    fill_value(number, value, len);
    dkv_record record = {.key = key_bytes(key, text),
                         .value = {value, len},
                         .version = version_of(number),
                         .kind = is_deletion(number) ? DKV_KIND_TOMBSTONE : DKV_KIND_VALUE};
    int err = dkv_store_apply(w->store, &record, number);
    if (err) return err;
    w->waiting[number]++;
    w->n_waiting++;
    if (number > w->current[key]) w->current[key] = number;
    return DKV_OK;
}

static inline int world_write(world *w) {
    CHECK(w->writes < WORLD_WRITES_MAX);
    w->writes++;
    return world_apply(w, w->writes);
}

static inline void world_read(world *w, uint32_t key) {
    char text[16];
    int err = dkv_store_read(w->store, key_bytes(key, text), hash_of(key), WORLD_READ_COOKIE | key);
    if (w->current[key] == 0 || (w->may_lose && err == DKV_ERR_NOT_FOUND)) {
        CHECK(err == DKV_ERR_NOT_FOUND);
        return;
    }
    CHECK(err == DKV_OK);
    w->reads_out++;
}

static inline void world_set_facts(world *w) {
    char text[32];
    snprintf(text, sizeof text, "facts %" PRIu64, ++w->facts_set);
    int err = dkv_store_set_facts(w->store, dkv_slice_of(text), WORLD_FACTS_COOKIE | w->facts_set);
    CHECK(err == DKV_OK);
}

/* ---- stopping and starting ---- */

typedef enum stop_kind {
    STOP_KILL,  /* the process: the page cache stays */
    STOP_POWER, /* the machine */
} stop_kind;

static inline void world_stop(world *w, stop_kind kind) {
    dkv_store_del(w->store);
    w->store = NULL;
    w->n_jobs = 0;
    w->crash_in = 0;
    w->failed = false;
    w->reads_out = w->n_waiting = 0;
    memset(w->waiting, 0, sizeof w->waiting);
    if (kind == STOP_POWER) {
        dkv_sim_disk_power_cut(w->disk);
    } else {
        dkv_sim_disk_kill(w->disk);
    }
}

static inline void check_facts(world *w) {
    char text[32];
    uint64_t number = 0;
    dkv_slice facts = dkv_store_facts(w->store);
    CHECK(facts.len < sizeof text);
    memcpy(text, facts.data ? (const char *)facts.data : "", facts.len);
    text[facts.len] = 0;
    if (facts.len > 0) CHECK(sscanf(text, "facts %" SCNu64, &number) == 1);
    CHECK(number >= w->facts_confirmed && number <= w->facts_set);
    w->facts_set = w->facts_confirmed = number;
}

/* After a start: every key holds a write that was made, no older than the newest confirmed one. The
 * model goes on from what is there. Returns how many confirmed keys are lost. */
static inline uint64_t world_compare(world *w) {
    uint64_t lost = 0, present = 0;
    for (uint32_t key = 0; key < WORLD_KEYS; key++) {
        dkv_store_entry entry = {0};
        int err = dkv_store_peek(w->store, hash_of(key), &entry);
        CHECK(err == DKV_OK || err == DKV_ERR_NOT_FOUND);
        uint64_t number = err ? 0 : entry.version.hlc;
        CHECK(number <= w->writes && (err || key_of_write(number) == key));
        lost += number < w->confirmed[key];
        present += number > 0;
        w->current[key] = w->confirmed[key] = number;
    }
    CHECK(dkv_store_digest(w->store, 0, UINT64_MAX).records == present);
    check_facts(w);
    return lost;
}

/* Reads every key and checks its bytes. */
static inline void world_read_all(world *w) {
    for (uint32_t key = 0; key < WORLD_KEYS; key++) world_read(w, key);
    world_settle(w);
    CHECK(w->reads_out == 0);
}

/* ---- what the tests share ---- */

static world *the_world;

/* The one world of a test program, begun anew and not yet open. */
static inline world *world_anew(uint64_t seed) {
    if (the_world && the_world->disk) world_free(the_world);
    if (!the_world) the_world = malloc(sizeof *the_world);
    CHECK(the_world);
    world_init(the_world, seed);
    return the_world;
}

static inline void world_write_and_settle(world *w, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        int err = world_write(w);
        CHECK(err == DKV_OK || err == DKV_ERR_BUSY);
        if (err || i % 8 == 7) world_settle(w);
    }
    world_settle(w);
}

static inline dkv_store_stats world_stats(const world *w) {
    dkv_store_stats stats;
    dkv_store_stats_get(w->store, &stats);
    return stats;
}

/* Lets time pass until `end_ns`, or until the store wants nothing before it. */
static inline void world_wait(world *w, int64_t end_ns) {
    world_settle(w);
    while (w->now_ns < end_ns) {
        int64_t next_ns = dkv_store_next_timer(w->store);
        if (next_ns > w->now_ns) w->now_ns = next_ns < end_ns ? next_ns : end_ns;
        world_settle(w);
    }
}

/* Makes pages of the log unreadable from a random one on. Returns its file and offset. */
static inline dkv_disk_file world_spoil(world *w, uint32_t pages) {
    dkv_disk_file at;
    CHECK(dkv_sim_disk_choose_byte(w->disk, &at) == DKV_OK);
    at.size_bytes -= at.size_bytes % WORLD_PAGE_BYTES;
    uint64_t to = at.size_bytes + pages * WORLD_PAGE_BYTES;
    CHECK(dkv_sim_disk_spoil(w->disk, at, at.size_bytes, to) == DKV_OK);
    return at;
}

/* Whether the record of a key is stored and cannot be read. */
static inline bool world_is_unreadable(const world *w, uint32_t key) {
    dkv_buf bytes = {0};
    dkv_record record;
    int err = dkv_store_look(w->store, hash_of(key), dkv_sim_disk_run, w->disk, &bytes, &record);
    dkv_buf_free(&bytes);
    CHECK(err == DKV_OK || err == DKV_ERR_NOT_FOUND || err == DKV_ERR_IO);
    return err == DKV_ERR_IO;
}

static inline uint64_t world_unreadable(const world *w) {
    uint64_t count = 0;
    for (uint32_t key = 0; key < WORLD_KEYS; key++) count += world_is_unreadable(w, key);
    return count;
}

/* Lists the files on the disk, at most `max`. Returns how many there are. */
static inline uint32_t world_list(world *w, dkv_disk_file *files, uint32_t max) {
    dkv_disk_job list = {.op = DKV_DISK_LIST, .data = (uint8_t *)files, .len_bytes = max};
    CHECK(dkv_sim_disk_run(w->disk, &list) == DKV_OK);
    return list.done_bytes;
}

#endif
