/* What measurements stand on: series of operations, the load made of them, the histogram and the
 * zipfian keys, each against a plain model. */
#include "fake_nodes.h"

#include <math.h>

#include "base/histogram.h"
#include "base/zipf.h"
#include "client/bench.h"

#define LONG_MS 60000u /* more than any test should take */
#define SAMPLES 20000u
#define DRAWS 400000u

static dkv_client *client;

static void begin(void) {
    char seeds[64];
    char why[DKV_DETAIL_MAX];
    fake_start();
    snprintf(seeds, sizeof seeds, "127.0.0.1:%u", fakes[0].port);
    /* No node is passed over because a busy machine is slow. */
    dkv_client_options options = {.seeds = seeds, .timeout_ms = LONG_MS, .hedge_ms = LONG_MS};
    CHECK(dkv_client_new(&options, &client, why) == DKV_OK);
}

static void end(void) {
    dkv_client_del(client);
    fake_stop();
}

static void set_moods(fake_mood mood) {
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].mood, mood);
}

static unsigned requests(void) {
    unsigned n = 0;
    for (int i = 0; i < FAKES; i++) n += fakes[i].reads + fakes[i].writes;
    return n;
}

/* ---- series --------------------------------------------------------------------------------- */

typedef struct chain {
    unsigned ended;
    unsigned good;
    unsigned length;
    dkv_slice then; /* the key after the first operation */
} chain;

static bool next_of_chain(void *user, dkv_client_op *op) {
    chain *c = user;
    c->ended++;
    c->good += op->err == DKV_OK;
    free(op->value);
    op->value = NULL;
    op->request.key = c->then;
    return c->ended < c->length;
}

static dkv_client_op read_of(const char *key) {
    return (dkv_client_op){.request = {.op = DKV_OP_GET, .key = dkv_slice_of(key)}};
}

/* Several series side by side run until each has had its operations; waiting sees only their ends.
 */
static void series_run_side_by_side(void) {
    begin();
    chain chains[3] = {{.length = 1}, {.length = 50}, {.length = 200}};
    dkv_client_op ops[3];
    for (int i = 0; i < 3; i++) {
        ops[i] = read_of("first");
        chains[i].then = dkv_slice_of("then");
        CHECK(dkv_client_start_series(client, &ops[i], next_of_chain, &chains[i]) == DKV_OK);
    }
    CHECK(dkv_client_wait(client, ops, 3, LONG_MS));
    for (int i = 0; i < 3; i++) {
        CHECK(ops[i].done && ops[i].err == DKV_OK);
        CHECK(chains[i].ended == chains[i].length && chains[i].good == chains[i].length);
    }
    CHECK(requests() == 251);
    end();
}

/* A request outside its limits ends as an operation of the series like any other. */
static void a_series_meets_a_bad_request(void) {
    begin();
    chain c = {.length = 5};
    dkv_client_op op = read_of("first");
    CHECK(dkv_client_start_series(client, &op, next_of_chain, &c) == DKV_OK);
    CHECK(dkv_client_wait(client, &op, 1, LONG_MS));
    CHECK(op.err == DKV_ERR_INVALID && c.ended == 5 && c.good == 1);
    CHECK(requests() == 1);
    end();
}

/* ... also if it is the first one, whatever follows. */
static void a_series_begins_with_bad_requests(void) {
    begin();
    chain bad = {.length = 3}, good = {.length = 3, .then = dkv_slice_of("then")};
    dkv_client_op ops[2] = {read_of(""), read_of("")};
    CHECK(dkv_client_start_series(client, &ops[0], next_of_chain, &bad) == DKV_OK);
    CHECK(dkv_client_start_series(client, &ops[1], next_of_chain, &good) == DKV_OK);
    CHECK(dkv_client_wait(client, ops, 2, LONG_MS));
    CHECK(ops[0].err == DKV_ERR_INVALID && bad.ended == 3 && bad.good == 0);
    CHECK(ops[1].err == DKV_OK && good.ended == 3 && good.good == 2);
    CHECK(requests() == 2);
    end();
}

/* Giving a series up, or closing the client, ends it with CANCELLED and asks for nothing more. */
static void a_series_is_cut_short(void) {
    begin();
    set_moods(SILENT);
    chain c = {.length = 1000};
    dkv_client_op ops[2] = {read_of("a"), read_of("b")};
    for (int i = 0; i < 2; i++) {
        CHECK(dkv_client_start_series(client, &ops[i], next_of_chain, &c) == DKV_OK);
    }
    CHECK(!dkv_client_wait(client, ops, 2, 10));
    dkv_client_abandon(client, &ops[0], 1);
    CHECK(ops[0].done && ops[0].err == DKV_ERR_CANCELLED && !ops[1].done);
    dkv_client_close(client);
    CHECK(dkv_client_wait(client, ops, 2, LONG_MS));
    CHECK(ops[1].err == DKV_ERR_CANCELLED && c.ended == 0);
    CHECK(dkv_client_start_series(client, &ops[0], next_of_chain, &c) == DKV_ERR_PRECONDITION);
    end();
}

/* ---- load ----------------------------------------------------------------------------------- */

static const dkv_bench_options usual = {
    .keys = 100, .value_len = 100, .outstanding = 16, .read_share = 0.5, .seed = 7};

static uint64_t total(const dkv_histogram *histogram) {
    uint64_t n = 0;
    for (size_t i = 0; i < DKV_HISTOGRAM_BUCKETS; i++) n += histogram->counts[i];
    return n;
}

static void drain(dkv_bench *bench) {
    while (!dkv_bench_drain(bench, LONG_MS)) {
    }
}

/* Filling writes each key once; then whatever ends is counted exactly once, and a reply that is not
 * what was written (the fakes' never is) counts as wrong. */
static void load_counts_what_it_does(void) {
    begin();
    char why[DKV_DETAIL_MAX];
    bool done = false;
    dkv_bench *bench;
    CHECK(dkv_bench_new(&usual, client, &bench, why) == DKV_OK);
    while (!done) CHECK(dkv_bench_fill(bench, LONG_MS, &done, why) == DKV_OK);
    const dkv_bench_stats *stats = dkv_bench_result(bench);
    CHECK(stats->done == 100 && total(&stats->writes_ns) == 100 && requests() == 100);
    dkv_bench_reset(bench);
    while (stats->done < 500) dkv_bench_run(bench, 10);
    drain(bench);
    CHECK(requests() == 100 + stats->done);
    CHECK(stats->wrong > 0 && total(&stats->reads_ns) == 0);
    CHECK(total(&stats->writes_ns) + stats->wrong == stats->done);
    dkv_bench_del(bench);
    end();
}

#define SHARERS 6

static void *run_load(void *bench) {
    while (dkv_bench_result(bench)->done < 100) dkv_bench_run(bench, 5);
    drain(bench);
    return NULL;
}

/* Loads that wait for one operation after another share a client: each counts its own, once. */
static void waiting_loads_share_a_client(void) {
    begin();
    char why[DKV_DETAIL_MAX];
    dkv_bench *loads[SHARERS];
    pthread_t threads[SHARERS];
    dkv_bench_options writes = usual;
    writes.outstanding = 1;
    writes.blocking = true;
    writes.read_share = 0;
    for (int i = 0; i < SHARERS; i++) {
        writes.seed++;
        CHECK(dkv_bench_new(&writes, client, &loads[i], why) == DKV_OK);
        CHECK(pthread_create(&threads[i], NULL, run_load, loads[i]) == 0);
    }
    uint64_t done = 0;
    for (int i = 0; i < SHARERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        const dkv_bench_stats *stats = dkv_bench_result(loads[i]);
        CHECK(stats->done >= 100 && total(&stats->writes_ns) == stats->done);
        done += stats->done;
        dkv_bench_del(loads[i]);
    }
    CHECK(requests() == done);
    end();
}

/* One that is cut short has its operation still under way, and goes on with it or gives it up. */
static void a_waiting_load_is_cut_short(void) {
    begin();
    set_moods(SILENT);
    char why[DKV_DETAIL_MAX];
    dkv_bench *bench;
    dkv_bench_options one = usual;
    one.outstanding = 1;
    one.blocking = true;
    CHECK(dkv_bench_new(&one, client, &bench, why) == DKV_OK);
    dkv_bench_run(bench, 10);
    CHECK(!dkv_bench_drain(bench, 10) && dkv_bench_result(bench)->done == 0);
    do {
        dkv_bench_run(bench, 10);
    } while (requests() == 0); /* a busy machine takes longer to connect */
    CHECK(dkv_bench_result(bench)->done == 0 && requests() == 1);
    dkv_bench_del(bench);
    end();
}

/* When everything fails, the load says so, and asks again only with its next turn. */
static void load_rests_after_errors(void) {
    begin();
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].err, DKV_ERR_BUSY);
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].outcome, DKV_OUTCOME_NOT_APPLIED);
    set_moods(ERROR);
    char why[DKV_DETAIL_MAX];
    dkv_bench *bench;
    dkv_bench_options writes = usual;
    writes.read_share = 0;
    CHECK(dkv_bench_new(&writes, client, &bench, why) == DKV_OK);
    const dkv_bench_stats *stats = dkv_bench_result(bench);
    unsigned turns = 0;
    while (stats->done < 100) dkv_bench_run(bench, 10), turns++;
    drain(bench);
    CHECK(stats->errors[-DKV_ERR_BUSY] == stats->done && stats->done <= turns * 16);
    dkv_bench_del(bench);
    end();
}

/* Filling tries again what is refused as BUSY, and ends with any other error. */
static void filling_knows_what_to_try_again(void) {
    begin();
    char why[DKV_DETAIL_MAX] = "";
    bool done = false;
    dkv_bench *bench;
    CHECK(dkv_bench_new(&usual, client, &bench, why) == DKV_OK);
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].outcome, DKV_OUTCOME_NOT_APPLIED);
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].err, DKV_ERR_BUSY);
    set_moods(ERROR);
    for (int i = 0; i < 5; i++) CHECK(dkv_bench_fill(bench, 10, &done, why) == DKV_OK && !done);
    set_moods(ANSWER);
    while (!done) CHECK(dkv_bench_fill(bench, LONG_MS, &done, why) == DKV_OK);
    CHECK(total(&dkv_bench_result(bench)->writes_ns) == 100);
    dkv_bench_del(bench);

    CHECK(dkv_bench_new(&usual, client, &bench, why) == DKV_OK);
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].err, DKV_ERR_NO_SPACE);
    set_moods(ERROR);
    CHECK(dkv_bench_fill(bench, LONG_MS, &done, why) == DKV_ERR_NO_SPACE);
    CHECK(strcmp(why, "as told") == 0);
    dkv_bench_del(bench);
    end();
}

/* A load outside its limits is refused with a sentence. */
static void bad_loads_are_refused(void) {
    dkv_bench_options bad[] = {usual, usual, usual, usual, usual, usual, usual};
    bad[0].keys = 0;
    bad[1].keys = DKV_BENCH_KEYS_MAX + 1;
    bad[2].value_len = DKV_VALUE_MAX + 1;
    bad[3].outstanding = 0;
    bad[4].read_share = NAN;
    bad[5].value_len = DKV_VALUE_MAX;
    bad[5].outstanding = DKV_BENCH_OUTSTANDING_MAX;
    bad[6].blocking = true;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char why[DKV_DETAIL_MAX] = "";
        dkv_bench *bench;
        CHECK(dkv_bench_new(&bad[i], NULL, &bench, why) == DKV_ERR_INVALID && strlen(why) > 10);
    }
}

/* ---- histogram ------------------------------------------------------------------------------ */

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The n-th smallest of the values, as the histogram has it. */
static uint64_t nth(const dkv_histogram *histogram, uint64_t n) {
    size_t i = 0;
    while (n >= histogram->counts[i]) n -= histogram->counts[i++];
    return dkv_histogram_value(i);
}

/* Every order statistic of values of all magnitudes is within 1/64 of that of the sorted values. */
static void a_histogram_agrees_with_sorting(void) {
    static uint64_t values[SAMPLES];
    static dkv_histogram histogram;
    dkv_rand rand = {check_seed};
    memset(&histogram, 0, sizeof histogram);
    for (size_t i = 0; i < SAMPLES; i++) {
        values[i] = dkv_rand_next(&rand) >> (24 + dkv_rand_below(&rand, 40));
        dkv_histogram_add(&histogram, values[i]);
    }
    qsort(values, SAMPLES, sizeof *values, by_size);
    for (size_t i = 0; i < SAMPLES; i += 7) {
        uint64_t told = nth(&histogram, i);
        uint64_t off = told > values[i] ? told - values[i] : values[i] - told;
        CHECK(off <= values[i] / 64);
    }
    dkv_histogram_add(&histogram, UINT64_MAX);
    CHECK(histogram.counts[DKV_HISTOGRAM_BUCKETS - 1] > 0 && total(&histogram) == SAMPLES + 1);
}

/* ---- zipfian keys --------------------------------------------------------------------------- */

/* The constant is the sum that it says it is: its beginning added up, the rest as an integral. */
static void the_zipfian_sum_is_right(void) {
    const double from = 1e6, to = (double)DKV_ZIPF_RANKS, less = 1 - DKV_ZIPF_EXPONENT;
    double sum = 0;
    for (double rank = 1; rank < from; rank++) sum += pow(rank, -DKV_ZIPF_EXPONENT);
    sum += (pow(to, less) - pow(from, less)) / less;
    sum += (pow(from, -DKV_ZIPF_EXPONENT) + pow(to, -DKV_ZIPF_EXPONENT)) / 2;
    CHECK(fabs(sum - DKV_ZIPF_SUM) < 1e-6);
}

/* As many draws are below each rank as the formula says, to within 1 % of all draws. */
static void zipfian_ranks_follow_the_formula(void) {
    static const uint64_t limits[] = {1, 2, 5, 20, 100, 1000, 10000, 1000000};
    uint64_t below[8] = {0};
    dkv_rand rand = {check_seed};
    for (unsigned i = 0; i < DRAWS; i++) {
        uint64_t rank = dkv_zipf_rank(&rand);
        CHECK(rank < DKV_ZIPF_RANKS);
        for (size_t j = 0; j < 8; j++) below[j] += rank < limits[j];
    }
    double expected = 0;
    uint64_t rank = 0;
    for (size_t j = 0; j < 8; j++) {
        while (rank < limits[j]) expected += pow((double)++rank, -DKV_ZIPF_EXPONENT) / DKV_ZIPF_SUM;
        CHECK(fabs((double)below[j] / DRAWS - expected) < 0.01);
    }
}

/* Ranks are scattered over all keys: none is left out, and the popular ones are no neighbours. */
static void zipfian_keys_are_scattered(void) {
    enum { KEYS = 1000 };
    static unsigned counts[KEYS];
    dkv_rand rand = {check_seed};
    memset(counts, 0, sizeof counts);
    for (unsigned i = 0; i < DRAWS; i++) {
        uint64_t key = dkv_zipf_key(&rand, KEYS);
        CHECK(key < KEYS);
        counts[key]++;
    }
    size_t first = 0, second = 1;
    for (size_t i = 0; i < KEYS; i++) {
        CHECK(counts[i] > 0);
        if (counts[i] > counts[first])
            second = first, first = i;
        else if (i != first && counts[i] > counts[second])
            second = i;
    }
    CHECK(counts[first] > DRAWS * 3 / 100 && counts[second] > DRAWS / 100);
    CHECK(first > second + 1 || second > first + 1);
    CHECK(dkv_zipf_key(&rand, 0) == 0 && dkv_zipf_key(&rand, 1) == 0);
}

static const check_test tests[] = {
    CHECK_TEST(series_run_side_by_side),           CHECK_TEST(a_series_meets_a_bad_request),
    CHECK_TEST(a_series_begins_with_bad_requests), CHECK_TEST(a_series_is_cut_short),
    CHECK_TEST(load_counts_what_it_does),          CHECK_TEST(waiting_loads_share_a_client),
    CHECK_TEST(a_waiting_load_is_cut_short),       CHECK_TEST(load_rests_after_errors),
    CHECK_TEST(filling_knows_what_to_try_again),   CHECK_TEST(bad_loads_are_refused),
    CHECK_TEST(a_histogram_agrees_with_sorting),   CHECK_TEST(the_zipfian_sum_is_right),
    CHECK_TEST(zipfian_ranks_follow_the_formula),  CHECK_TEST(zipfian_keys_are_scattered),
};

CHECK_MAIN(tests)
