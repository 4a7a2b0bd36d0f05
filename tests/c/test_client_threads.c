/* Threads that share a client (csrc/client/poll.c), in situations that chance rarely brings about.
 * Where that takes it, a test reaches into the client, with its mutex held. */
#include "fake_nodes.h"

#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rand.h"
#include "client/internal.h"

#define LONG_MS 60000u /* more than any test should take */
#define THREADS 8
#define ROUNDS 100

static dkv_client *client;

static void begin_with(uint32_t hedge_ms) {
    char seeds[64];
    char why[DKV_DETAIL_MAX];
    fake_start();
    snprintf(seeds, sizeof seeds, "127.0.0.1:%u", fakes[0].port);
    dkv_client_options options = {.seeds = seeds, .timeout_ms = LONG_MS, .hedge_ms = hedge_ms};
    CHECK(dkv_client_new(&options, &client, why) == DKV_OK);
}

static void begin(void) {
    begin_with(LONG_MS);
}

static void end(void) {
    dkv_client_del(client);
    fake_stop();
}

static void set_moods(fake_mood mood) {
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].mood, mood);
}

static unsigned writes(void) {
    return fakes[0].writes + fakes[1].writes + fakes[2].writes;
}

static dkv_client_op op_of(dkv_op kind, const char *key, uint32_t timeout_ms) {
    dkv_client_op op = {
        .request = {.op = kind, .key = dkv_slice_of(key), .timeout_ms = timeout_ms},
    };
    if (kind == DKV_OP_PUT) op.request.value = dkv_slice_of("some value");
    return op;
}

static void set_gathering(bool gathering) {
    dkv_client_lock(client);
    client->gathering = gathering;
    dkv_client_unlock(client);
}

typedef struct crew {
    pthread_t threads[THREADS];
    int numbers[THREADS];
} crew;

static void crew_start(crew *c, void *(*act)(void *)) {
    for (int i = 0; i < THREADS; i++) {
        c->numbers[i] = i;
        CHECK(pthread_create(&c->threads[i], NULL, act, &c->numbers[i]) == 0);
    }
}

/* Returns the sum of what the threads return. */
static uintptr_t crew_join(crew *c) {
    uintptr_t sum = 0;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK(pthread_join(c->threads[i], &result) == 0);
        sum += (uintptr_t)result;
    }
    return sum;
}

/* ---- gathering ------------------------------------------------------------------------------ */

static bool goes_on(void *user, dkv_client_op *op) {
    (void)op;
    ++*(unsigned *)user;
    return true;
}

/* Starts a series whose first request is refused while the leader gathers: nobody settles it yet.
 */
static void start_refused_series(dkv_client_op *op, unsigned *followed) {
    *op = op_of(DKV_OP_GET, "", 0);
    *followed = 0;
    set_gathering(true);
    CHECK(dkv_client_start_series(client, op, goes_on, followed) == DKV_OK);
}

static void expect_refused(const dkv_client_op *op, unsigned followed) {
    CHECK(op->done && op->err == DKV_ERR_INVALID && !op->internal && followed == 0);
}

/* A series that was refused before the leader has come to it is handed back once, and as refused,
 * if its owner gives it up meanwhile. */
static void a_refused_series_may_be_abandoned(void) {
    begin();
    dkv_client_op op;
    unsigned followed;
    start_refused_series(&op, &followed);
    dkv_client_abandon(client, &op, 1);
    expect_refused(&op, followed);
    end();
}

/* ... or if another thread closes the client. */
static void a_refused_series_outlives_no_client(void) {
    begin();
    dkv_client_op op;
    unsigned followed;
    start_refused_series(&op, &followed);
    dkv_client_close(client);
    expect_refused(&op, followed);
    end();
}

/* What was started while the leader gathers can be given up before it has begun. */
static void what_was_gathered_may_be_abandoned(void) {
    begin();
    dkv_client_op ops[3] = {op_of(DKV_OP_PUT, "a", 0), op_of(DKV_OP_PUT, "b", 0),
                            op_of(DKV_OP_PUT, "c", 0)};
    set_gathering(true);
    CHECK(dkv_client_start(client, ops, 3) == DKV_OK);
    dkv_client_abandon(client, ops, 3);
    for (int i = 0; i < 3; i++) CHECK(ops[i].outcome == DKV_OUTCOME_NOT_APPLIED);
    set_gathering(false);
    CHECK(writes() == 0);
    end();
}

/* ---- the leader ----------------------------------------------------------------------------- */

/* Whether one succeeds is a matter of microseconds: mostly one of the first, with sanitizers rarely
 * none. */
#define INTRUSIONS_MAX 60

typedef struct candidate {
    waiter w;
    dkv_client_op op;
    atomic_bool lurks;
    atomic_bool waits;
    atomic_bool intruded;
    bool idles; /* it has polled, though there was nothing left to wait for, */
    bool keeps; /* ... or others were still to be woken */
} candidate;

/* Ends the operation of a thread that is about to poll, and looks whether it does so all the same.
 */
static void *intruder(void *user) {
    candidate *c = user;
    atomic_store(&c->lurks, true);
    while (atomic_load(&c->waits)) {
        dkv_client_lock(client);
        bool polls = client->polling && client->poll_until_ns != 0;
        c->keeps |= polls && !list_is_empty(&client->woken);
        if (atomic_load(&c->intruded)) {
            c->idles |= polls;
        } else if (client->polling && !polls && !client->gathering) {
            atomic_store(&c->intruded, true);
            dkv_client_flight_fail(client, c->op.internal, DKV_ERR_CANCELLED, "by an intruder");
            dkv_client_settle(client);
        }
        dkv_client_unlock(client);
    }
    return NULL;
}

/* Waits as dkv_client_wait does, but has so many others to wake before it polls that an intruder
 * finds the mutex free. */
static void wait_with_sleepers_to_wake(candidate *c) {
    static waiter sleepers[GATES];
    dkv_client_lock(client);
    for (uint32_t i = 0; i < GATES; i++) {
        sleepers[i] = (waiter){.place = i * PLACES_OF_GATE};
        list_add(&client->woken, &sleepers[i].node);
    }
    c->w = (waiter){.ops = &c->op, .n = 1, .left = 1};
    ((flight *)c->op.internal)->batch->waiter = &c->w;
    if (dkv_client_await(client, &c->w, dkv_client_now() + 20 * NS_PER_MS)) return;
    dkv_client_unlock(client);
}

/* Whoever is to be woken is woken before a poll; and a thread does not poll if its own operation
 * ends meanwhile, as nobody would tell it. */
static void a_leader_notices_that_it_is_done(void) {
    begin();
    set_moods(SILENT);
    candidate c = {0};
    for (int i = 0; i < INTRUSIONS_MAX && !atomic_load(&c.intruded) && !c.keeps; i++) {
        pthread_t thread;
        atomic_store(&c.lurks, false);
        c.op = op_of(DKV_OP_GET, "a", 0);
        CHECK(dkv_client_start(client, &c.op, 1) == DKV_OK);
        atomic_store(&c.waits, true);
        CHECK(pthread_create(&thread, NULL, intruder, &c) == 0);
        while (!atomic_load(&c.lurks)) continue;
        wait_with_sleepers_to_wake(&c);
        atomic_store(&c.waits, false);
        CHECK(pthread_join(thread, NULL) == 0);
        dkv_client_abandon(client, &c.op, 1);
    }
    CHECK(!c.idles && !c.keeps);
    end();
}

static void *thread_that_waits(void *op) {
    return dkv_client_wait(client, op, 1, LONG_MS) ? op : NULL;
}

static bool has_follower(void) {
    dkv_client_lock(client);
    bool has = !list_is_empty(&client->followers);
    dkv_client_unlock(client);
    return has;
}

/* When the leader stops waiting, a thread that sleeps polls in its place. */
static void a_follower_takes_over(void) {
    begin();
    set_moods(HOLD);
    pthread_t thread;
    void *result;
    dkv_client_op mine = op_of(DKV_OP_PUT, "a", 0), other = op_of(DKV_OP_PUT, "a", 0);
    CHECK(dkv_client_start(client, &mine, 1) == DKV_OK);
    CHECK(dkv_client_start(client, &other, 1) == DKV_OK);
    dkv_client_lock(client);
    client->polling = true; /* so that the other thread comes to sleep */
    dkv_client_unlock(client);
    CHECK(pthread_create(&thread, NULL, thread_that_waits, &other) == 0);
    while (!has_follower()) fake_sleep_ms(1);
    dkv_client_lock(client);
    client->polling = false;
    dkv_client_unlock(client);
    CHECK(!dkv_client_wait(client, &mine, 1, 0));
    set_moods(ANSWER);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == &other && other.err == DKV_OK);
    CHECK(dkv_client_wait(client, &mine, 1, LONG_MS) && mine.err == DKV_OK);
    end();
}

/* ---- gates ---------------------------------------------------------------------------------- */

/* Operations, one after the other, by a thread that sleeps where all others sleep. */
static void *thread_at_one_place(void *number) {
    uintptr_t failed = 0;
    for (int i = 0; i < ROUNDS; i++) {
        char key[32];
        bool done = false;
        snprintf(key, sizeof key, "key %d of %d", i, *(int *)number);
        dkv_client_op op = op_of(DKV_OP_GET, key, 0);
        dkv_client_lock(client);
        client->next_place = PLACES_OF_GATE - 1;
        dkv_client_unlock(client);
        failed += dkv_client_run(client, &op, LONG_MS, &done) || !done || op.err;
        free(op.value);
    }
    return (void *)failed;
}

/* With more sleepers than places each of them sleeps until its own operation is done. */
static void sleepers_may_share_a_place(void) {
    begin();
    crew c;
    crew_start(&c, thread_at_one_place);
    CHECK(crew_join(&c) == 0);
    /* That it counts keeps those awake who are about to sleep while they are woken. */
    CHECK(client->gates[0] > 0);
    end();
}

/* ---- everything at once --------------------------------------------------------------------- */

#define STORM_OPS 12u

static bool ends_soon(void *user, dkv_client_op *op) {
    unsigned *left = user;
    free(op->value);
    op->value = NULL;
    return (*left)-- > 0;
}

/* Starts up to STORM_OPS operations, alone or as series; returns how many. */
static size_t storm_start(dkv_rand *rand, dkv_client_op *ops, char (*keys)[16], unsigned *lefts) {
    size_t n = 1 + dkv_rand_below(rand, STORM_OPS);
    for (size_t i = 0; i < n; i++) {
        dkv_op kind = dkv_rand_below(rand, 3) ? DKV_OP_GET : DKV_OP_PUT;
        const char *name = dkv_rand_below(rand, 20) ? "key" : "large";
        snprintf(keys[i], sizeof keys[i], "%s %u", name, (unsigned)dkv_rand_below(rand, 1000));
        ops[i] = op_of(kind, keys[i], 1 + (uint32_t)dkv_rand_below(rand, 30));
        if (kind == DKV_OP_PUT && dkv_rand_below(rand, 10) == 0) {
            ops[i].request.value = (dkv_slice){fake_large, sizeof fake_large};
        }
    }
    if (dkv_rand_below(rand, 4) > 0) return dkv_client_start(client, ops, n) ? 0 : n;
    for (size_t i = 0; i < n; i++) {
        lefts[i] = (unsigned)dkv_rand_below(rand, 5);
        if (dkv_rand_below(rand, 20) == 0) ops[i].request.key = dkv_slice_of("");
        if (dkv_client_start_series(client, &ops[i], ends_soon, &lefts[i])) return i;
    }
    return n;
}

/* Waits for all of them, in a few turns, or gives them up. */
static void storm_end(dkv_rand *rand, dkv_client_op *ops, size_t n) {
    while (!dkv_client_wait(client, ops, n, (uint32_t)dkv_rand_below(rand, 4))) {
        if (dkv_rand_below(rand, 8)) continue;
        dkv_client_abandon(client, ops, n);
        break;
    }
}

static void storm_ask(void) {
    dkv_client_question asked[] = {{.node = "n1"}, {.node = "n3"}};
    dkv_client_call(client, "/dkv.v1.Admin/Status", 5, asked, 2);
    for (int i = 0; i < 2; i++) dkv_buf_free(&asked[i].reply);
}

/* Acts at random until the client is closed. Returns how many operations have not ended. */
static void *storm_thread(void *number) {
    dkv_rand rand = {check_seed * 1000003 + (uint64_t) * (int *)number};
    dkv_client_op ops[STORM_OPS];
    char keys[STORM_OPS][16];
    unsigned lefts[STORM_OPS];
    uintptr_t undone = 0;
    size_t n;
    while ((n = storm_start(&rand, ops, keys, lefts)) > 0) {
        storm_end(&rand, ops, n);
        for (size_t i = 0; i < n; i++) {
            undone += !ops[i].done || ops[i].internal;
            free(ops[i].value);
        }
        memset(ops, 0xee, sizeof ops); /* whoever still uses them is found out */
        if (dkv_rand_below(&rand, 10) == 0) storm_ask();
    }
    return (void *)undone;
}

/* Lets one node behave otherwise, or brings it down and up again. */
static void disturb(dkv_rand *rand) {
    static const fake_mood moods[] = {ANSWER, ANSWER, HOLD,    SILENT,     BREAK, ERROR,
                                      LACK,   HUGE,   GARBAGE, WRONG_KIND, ANSWER};
    int node = (int)dkv_rand_below(rand, FAKES);
    atomic_store(&fakes[node].unasked, (unsigned)dkv_rand_below(rand, 1 << FAKES));
    atomic_store(&fakes[node].err, dkv_rand_below(rand, 2) ? DKV_ERR_BUSY : DKV_ERR_UNAVAILABLE);
    size_t mood = dkv_rand_below(rand, sizeof moods / sizeof *moods);
    atomic_store(&fakes[node].mood, (int)moods[mood]);
    if (dkv_rand_below(rand, 20) == 0) {
        fake_set_up(node, false);
        fake_set_up(node, true);
    }
    fake_sleep_ms(5);
}

/* Threads start, wait, stop waiting, give up and ask, while nodes answer, keep silent, break what
 * they hold, or come and go; places and gates begin where their numbers end. Each wait ends, and
 * what was given back is not touched again. */
static void threads_do_everything_at_once(void) {
    dkv_rand rand = {check_seed};
    begin_with(0);
    client->next_place = UINT32_MAX - THREADS;
    for (unsigned i = 0; i < GATES; i++) client->gates[i] = UINT_MAX - 1;
    crew c;
    crew_start(&c, storm_thread);
    for (uint64_t i = 0; i < 2 * check_runs; i++) disturb(&rand);
    dkv_client_close(client);
    CHECK(crew_join(&c) == 0);
    end();
}

/* ---- fork ----------------------------------------------------------------------------------- */

static bool child_is_refused(void) {
    dkv_client_question asked = {.node = "n1"};
    dkv_client_op op = op_of(DKV_OP_GET, "a", 0);
    bool done = false;
    bool refused = dkv_client_start(client, &op, 1) == DKV_ERR_PRECONDITION;
    refused &= dkv_client_run(client, &op, LONG_MS, &done) == DKV_ERR_PRECONDITION && !done;
    refused &= !dkv_client_wait(client, &op, 1, LONG_MS);
    dkv_client_call(client, "/dkv.v1.Admin/Status", LONG_MS, &asked, 1);
    refused &= asked.err == DKV_ERR_PRECONDITION;
    dkv_client_abandon(client, &op, 1);
    dkv_client_close(client);
    dkv_client_del(client);
    return refused;
}

/* A child that was forked while a thread had the mutex is refused, too, and not kept waiting; the
 * parent's threads go on. */
static void a_child_does_not_wait_for_the_mutex(void) {
    begin();
    crew c;
    crew_start(&c, thread_at_one_place);
    dkv_client_lock(client);
    pid_t pid = fork();
    if (pid == 0) _exit(child_is_refused() ? 0 : 1);
    dkv_client_unlock(client);
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(crew_join(&c) == 0);
    end();
}

static const check_test tests[] = {
    CHECK_TEST(a_refused_series_may_be_abandoned),
    CHECK_TEST(a_refused_series_outlives_no_client),
    CHECK_TEST(what_was_gathered_may_be_abandoned),
    CHECK_TEST(a_leader_notices_that_it_is_done),
    CHECK_TEST(a_follower_takes_over),
    CHECK_TEST(sleepers_may_share_a_place),
    CHECK_TEST(threads_do_everything_at_once),
    CHECK_TEST(a_child_does_not_wait_for_the_mutex),
};

CHECK_MAIN(tests)
