/* csrc/client against three nodes that misbehave as told. */
#include "fake_nodes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONG_MS 60000u /* more than any test should take */
#define SHORT_MS 150u  /* for those that are to end by their deadline */

static dkv_client *client;

static void seeds_of(char *seeds, size_t size) {
    snprintf(seeds, size, "127.0.0.1:%u, 127.0.0.1:%u,127.0.0.1:%u", fakes[0].port, fakes[1].port,
             fakes[2].port);
}

static void begin_with(uint32_t hedge_ms) {
    char seeds[128];
    char why[DKV_DETAIL_MAX];
    fake_start();
    seeds_of(seeds, sizeof seeds);
    dkv_client_options options = {.seeds = seeds, .timeout_ms = LONG_MS, .hedge_ms = hedge_ms};
    CHECK(dkv_client_new(&options, &client, why) == DKV_OK);
}

/* A client that goes on to another node for a reason only, never because a busy machine is slow. */
static void begin(void) {
    begin_with(LONG_MS);
}

/* ... and one that does so after a while without an answer. */
static void begin_hedging(void) {
    begin_with(0);
}

static void end(void) {
    dkv_client_del(client);
    fake_stop();
}

static void set_mood(int i, fake_mood mood) {
    atomic_store(&fakes[i].mood, mood);
}

static void set_moods(fake_mood mood) {
    for (int i = 0; i < FAKES; i++) set_mood(i, mood);
}

/* Which fake is at `place` of the key's preference list. */
static int replica_of(const char *key, unsigned place) {
    uint64_t token = dkv_hash_key(dkv_slice_of(key)).token;
    return dkv_ring_replicas(dkv_client_ring(client), token)[place];
}

static unsigned reads(void) {
    return fakes[0].reads + fakes[1].reads + fakes[2].reads;
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

static dkv_client_op run(dkv_client_op op) {
    CHECK(dkv_client_start(client, &op, 1) == DKV_OK);
    CHECK(dkv_client_wait(client, &op, 1, 2 * LONG_MS));
    return op;
}

static dkv_client_op get(const char *key) {
    dkv_client_op op = run(op_of(DKV_OP_GET, key, 0));
    free(op.value);
    op.value = NULL;
    return op;
}

static dkv_client_op put(const char *key) {
    return run(op_of(DKV_OP_PUT, key, 0));
}

static bool is_from(const dkv_client_op *op, int fake) {
    return op->err == DKV_OK && op->n_holding == 1 && strcmp(op->holding[0], fakes[fake].id) == 0;
}

/* ---- plain sailing -------------------------------------------------------------------------- */

/* A read brings value, version and replica from the key's owner; writes and deletions go there. */
static void operations_go_to_the_owner(void) {
    begin();
    dkv_client_op read = run(op_of(DKV_OP_GET, "a", 0));
    CHECK(is_from(&read, replica_of("a", 0)));
    CHECK(dkv_slice_eq((dkv_slice){read.value, read.value_len}, dkv_slice_of("value of a")));
    CHECK(read.version.hlc == 1 && read.outcome == DKV_OUTCOME_NONE && !read.detail[0]);
    free(read.value);
    dkv_client_op written = put("b");
    CHECK(is_from(&written, replica_of("b", 0)) && written.outcome == DKV_OUTCOME_APPLIED);
    dkv_client_op deleted = run(op_of(DKV_OP_DELETE, "c", 0));
    CHECK(is_from(&deleted, replica_of("c", 0)) && deleted.outcome == DKV_OUTCOME_APPLIED);
    end();
}

/* NOT_FOUND is an answer like any other: no other replica is asked. */
static void not_found_is_final(void) {
    begin();
    dkv_client_op read = get("absent");
    CHECK(read.err == DKV_ERR_NOT_FOUND && reads() == 1);
    end();
}

/* A request outside its limits is refused at once, with a sentence, and nothing is sent. */
static void bad_requests_are_refused(void) {
    begin();
    static uint8_t big[DKV_VALUE_MAX + 1];
    dkv_client_op ops[3] = {op_of(DKV_OP_GET, "", 0), op_of(DKV_OP_PUT, "k", 0),
                            op_of(DKV_OP_GET, "k", DKV_TIMEOUT_MAX_MS + 1)};
    ops[1].request.value = (dkv_slice){big, sizeof big};
    CHECK(dkv_client_start(client, ops, 3) == DKV_OK);
    CHECK(dkv_client_wait(client, ops, 3, 0));
    for (int i = 0; i < 3; i++) CHECK(ops[i].err == DKV_ERR_INVALID && strlen(ops[i].detail) > 10);
    CHECK(ops[1].outcome == DKV_OUTCOME_NOT_APPLIED);
    CHECK(strcmp(ops[1].detail, "the value has 1,048,577 bytes; at most 1,048,576") == 0);
    CHECK(reads() + writes() == 0);
    end();
}

/* Every write tells the node the newest version that the client has seen, from whatever node. */
static void writes_carry_the_newest_version_seen(void) {
    begin();
    atomic_store(&fake_hlc, 1000);
    put("a");
    get("b");
    dkv_version seen = dkv_client_last_seen(client);
    CHECK(seen.hlc == 1002 && seen.origin == 7);
    put("c");
    CHECK(fakes[replica_of("c", 0)].last_seen == 1002);
    end();
}

/* Each member answers for itself; one that is down and a name that is not in the map do not keep
 * the others from it. */
static void status_asks_each_member(void) {
    begin();
    fake_set_up(2, false);
    dkv_client_question asked[] = {{.node = "n3"}, {.node = "n2"}, {.node = "n9"}, {.node = "n1"}};
    dkv_client_call(client, "/dkv.v1.Admin/Status", LONG_MS, asked, 4);
    CHECK(asked[0].err == DKV_ERR_UNAVAILABLE && asked[2].err == DKV_ERR_NOT_FOUND);
    CHECK(asked[1].err == DKV_OK && asked[3].err == DKV_OK);
    CHECK(dkv_slice_eq(dkv_buf_slice(&asked[1].reply), dkv_slice_of("n2")));
    CHECK(dkv_slice_eq(dkv_buf_slice(&asked[3].reply), dkv_slice_of("n1")));
    for (int i = 0; i < 4; i++) dkv_buf_free(&asked[i].reply);
    end();
}

/* ---- connecting ----------------------------------------------------------------------------- */

static int connect_to(const char *seeds, uint32_t timeout_ms, char *why) {
    dkv_client *made;
    dkv_client_options options = {.seeds = seeds, .timeout_ms = timeout_ms};
    int err = dkv_client_new(&options, &made, why);
    if (!err) dkv_client_del(made);
    return err;
}

/* A seed that is down, has no map or is silent is passed over; if all are, each is named. */
static void seeds_are_tried_in_order(void) {
    begin();
    char seeds[128];
    char why[DKV_DETAIL_MAX];
    seeds_of(seeds, sizeof seeds);
    fake_set_up(0, false);
    set_mood(1, NO_MAP);
    CHECK(connect_to(seeds, LONG_MS, why) == DKV_OK);
    set_mood(2, NO_MAP);
    CHECK(connect_to(seeds, LONG_MS, why) == DKV_ERR_UNAVAILABLE);
    CHECK(strstr(why, "no map yet") && strchr(why, ';'));
    end();
}

/* Where more nodes fail than there is room to tell of, whole addresses are told, and how many more
 * there are. */
static void many_failed_seeds_are_counted(void) {
    char seeds[64 * 12] = "127.0.0.1:1";
    char why[DKV_DETAIL_MAX];
    for (int i = 2; i <= 60; i++) {
        size_t len = strlen(seeds);
        snprintf(seeds + len, sizeof seeds - len, ",127.0.0.1:%d", i % 9 + 1);
    }
    CHECK(connect_to(seeds, LONG_MS, why) == DKV_ERR_UNAVAILABLE);
    const char *tail = strstr(why, "; … and ");
    unsigned told = 0, more = 0;
    for (const char *c = why; (c = strstr(c, "127.0.0.1:")); c++) told++;
    CHECK(tail && sscanf(tail, "; … and %u more", &more) == 1 && told > 1 && told + more >= 60);
    CHECK(strcmp(why + strlen(why) - 5, " more") == 0);
}

/* Text that is not a list of addresses is refused before anything is connected to. */
static void bad_seeds_are_refused(void) {
    static const char *const bad[] = {"",           "host",     "host:", "host:0",
                                      "host:70000", "a:1,,b:2", "a b:1"};
    char why[DKV_DETAIL_MAX];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(connect_to(bad[i], LONG_MS, why) == DKV_ERR_INVALID && strstr(why, "host:port"));
    }
    CHECK(connect_to("127.0.0.1:1", DKV_TIMEOUT_MAX_MS + 1, why) == DKV_ERR_INVALID);
}

/* ---- reads that meet trouble ---------------------------------------------------------------- */

/* A silent owner costs a read the hedge delay, not its deadline; the replica that is asked instead
 * is told so, lest it ask the owner first. */
static void a_silent_owner_is_passed_over(void) {
    begin_hedging();
    set_mood(replica_of("a", 0), SILENT);
    set_mood(replica_of("a", 2), SILENT); /* it may be asked, too, if the second is slow */
    dkv_client_op read = get("a");
    CHECK(is_from(&read, replica_of("a", 1)));
    CHECK(fakes[replica_of("a", 0)].failovers == 0 && fakes[replica_of("a", 1)].failovers == 1);
    end();
}

/* The owner of "a" has answered so many reads quickly that it is known for that, and from now on
 * says nothing. */
static void begin_with_a_quick_owner(void) {
    begin_hedging();
    for (int i = 0; i < 800; i++) CHECK(get("a").err == DKV_OK);
    set_mood(replica_of("a", 0), HOLD);
    set_mood(replica_of("a", 2), HOLD);
}

/* An owner that is mostly quick is not waited for as long as one that is known for nothing. */
static void a_read_that_takes_unusually_long_is_hedged(void) {
    begin_with_a_quick_owner();
    uint64_t before = dkv_client_stats_get(client).hedged;
    for (int i = 0; i < 10 && dkv_client_stats_get(client).hedged == before; i++) {
        dkv_client_op read = get("a");
        CHECK(is_from(&read, replica_of("a", 1)));
    }
    CHECK(dkv_client_stats_get(client).hedged > before);
    end();
}

/* ... but one read in twenty at most, and ten that were saved up: then one has to find out that the
 * owner says nothing at all. */
static void hedges_are_few(void) {
    begin_with_a_quick_owner();
    dkv_client_stats before = dkv_client_stats_get(client);
    for (int i = 0; i < 100; i++) {
        dkv_client_op read = get("a");
        CHECK(is_from(&read, replica_of("a", 1)));
    }
    dkv_client_stats after = dkv_client_stats_get(client);
    CHECK(after.reads - before.reads == 100);
    CHECK(after.hedged - before.hedged <= 100 / 20 + 10);
    CHECK(after.passed_over > before.passed_over);
    end();
}

/* With two silent replicas, the third answers. */
static void one_live_replica_is_enough(void) {
    begin_hedging();
    set_mood(replica_of("a", 0), SILENT);
    fake_set_up(replica_of("a", 1), false);
    dkv_client_op read = get("a");
    CHECK(is_from(&read, replica_of("a", 2)));
    end();
}

static void expect_failover(fake_mood mood) {
    begin_hedging();
    set_mood(replica_of("a", 0), mood);
    set_mood(replica_of("a", 2), SILENT); /* it may be asked, too, if the second is slow */
    atomic_store(&fakes[replica_of("a", 0)].err, DKV_ERR_UNAVAILABLE);
    dkv_client_op read = get("a");
    CHECK(is_from(&read, replica_of("a", 1)) && !read.detail[0] && read.n_missing == 0);
    end();
}

/* Reads go on to the next replica after a broken stream. */
static void reads_survive_a_broken_stream(void) {
    expect_failover(BREAK);
}

/* Reads go on to the next replica after an error that concerns only the node that has it. */
static void reads_survive_an_error(void) {
    expect_failover(ERROR);
}

/* Reads go on to the next replica after bytes that are no message. */
static void reads_survive_garbage(void) {
    expect_failover(GARBAGE);
}

/* Reads go on to the next replica after a value above the limit. */
static void reads_survive_a_huge_value(void) {
    expect_failover(HUGE);
}

/* An answer of the wrong kind counts as none. */
static void reads_survive_answers_of_the_wrong_kind(void) {
    expect_failover(WRONG_KIND);
}

/* Answers under numbers that nobody asked for change nothing. */
static void strange_answers_are_ignored(void) {
    begin();
    set_moods(WRONG_ID);
    dkv_client_op read = get("a");
    CHECK(is_from(&read, replica_of("a", 0)));
    end();
}

/* A replica that lacks the key and names `others` as those it could not ask. */
static void lack(int i, unsigned others) {
    set_mood(i, LACK);
    atomic_store(&fakes[i].unasked, others);
}

/* A replica that has missed a write cannot hide it behind a broken link of its own: the client asks
 * those that could not be asked, and no others. */
static void absence_is_doubted_where_not_all_could_be_asked(void) {
    begin();
    lack(replica_of("a", 0), 1u << replica_of("a", 2));
    dkv_client_op read = get("a");
    CHECK(is_from(&read, replica_of("a", 2)) && reads() == 2 && read.n_missing == 0);
    end();
}

/* A node that could ask all others is believed. */
static void absence_that_all_confirm_is_believed(void) {
    begin();
    lack(replica_of("a", 0), 0);
    dkv_client_op read = get("a");
    CHECK(read.err == DKV_ERR_NOT_FOUND && reads() == 1);
    end();
}

/* Nobody else can be reached, or answers: then the key does not exist. */
static void absence_holds_if_nobody_contradicts(void) {
    begin_hedging();
    lack(replica_of("a", 0), 1u << replica_of("a", 1) | 1u << replica_of("a", 2));
    set_mood(replica_of("a", 1), SILENT);
    fake_set_up(replica_of("a", 2), false);
    dkv_client_op read = get("a");
    CHECK(read.err == DKV_ERR_NOT_FOUND && read.n_missing == 2);
    CHECK(strcmp(read.detail, dkv_err_sentence(DKV_ERR_NOT_FOUND)) == 0);
    end();
}

/* BUSY reaches the caller: a node that asks for less is not answered with more. */
static void busy_is_passed_on(void) {
    begin();
    set_moods(ERROR);
    for (int i = 0; i < FAKES; i++) atomic_store(&fakes[i].err, DKV_ERR_BUSY);
    dkv_client_op read = get("a");
    CHECK(read.err == DKV_ERR_BUSY && strcmp(read.detail, "as told") == 0 && reads() == 1);
    end();
}

/* When all replicas fail, the error is a node's own word, and every node is named. */
static void an_error_names_every_replica(void) {
    begin();
    get("a"); /* all connections but the owner's are still to be made */
    fake_set_up(replica_of("a", 0), false);
    fake_set_up(replica_of("a", 1), false);
    set_mood(replica_of("a", 2), ERROR);
    atomic_store(&fakes[replica_of("a", 2)].err, DKV_ERR_DATA_LOSS);
    dkv_client_op read = get("a");
    CHECK(read.err == DKV_ERR_DATA_LOSS && read.n_missing == 3);
    CHECK(strncmp(read.detail, "the get failed: ", 16) == 0 && strstr(read.detail, ": as told"));
    for (int i = 0; i < FAKES; i++) CHECK(strstr(read.detail, fakes[i].id));
    end();
}

/* A read that nobody answers ends by its deadline. */
static void reads_end_by_their_deadline(void) {
    begin();
    set_moods(SILENT);
    dkv_client_op read = run(op_of(DKV_OP_GET, "a", SHORT_MS));
    CHECK(read.err == DKV_ERR_DEADLINE && read.n_missing >= 1);
    end();
}

/* With every node down, requests fail at once; when they are back, requests succeed again. */
static void a_cluster_that_returns_is_found_again(void) {
    begin();
    put("a");
    for (int i = 0; i < FAKES; i++) fake_set_up(i, false);
    dkv_client_op read = get("a");
    CHECK(read.err == DKV_ERR_UNAVAILABLE && read.n_missing == 3);
    dkv_client_op written = put("a");
    CHECK(written.err == DKV_ERR_UNAVAILABLE && written.outcome == DKV_OUTCOME_NOT_APPLIED);
    CHECK(strncmp(written.detail, "the put was not sent: ", 22) == 0);
    CHECK(strstr(written.detail, "; nothing was written"));
    for (int i = 0; i < FAKES; i++) fake_set_up(i, true);
    while (put("a").err) fake_sleep_ms(20);
    end();
}

/* ---- suspects ------------------------------------------------------------------------------- */

/* A silent node is left alone but for a probe now and then, and used again once it answers. */
static void suspects_are_avoided_and_recover(void) {
    begin_hedging();
    int owner = replica_of("a", 0);
    get("a");
    set_mood(owner, SILENT);
    set_mood(replica_of("a", 2), SILENT); /* it may be asked, too, if the second is slow */
    get("a");
    unsigned asked = fakes[owner].reads;
    for (int i = 0; i < 200; i++) {
        dkv_client_op read = get("a");
        CHECK(is_from(&read, replica_of("a", 1)));
    }
    CHECK(fakes[owner].reads - asked < 100);
    dkv_client_op written = put("a");
    CHECK(is_from(&written, replica_of("a", 1)));
    set_mood(owner, ANSWER);
    for (;;) {
        dkv_client_op read = get("a");
        if (is_from(&read, owner)) break;
        fake_sleep_ms(10);
    }
    end();
}

/* Writes alone find out, too, that a suspect is back. */
static void writes_find_a_recovered_suspect(void) {
    begin_hedging();
    int owner = replica_of("a", 0);
    set_mood(owner, SILENT);
    get("a");
    set_mood(owner, ANSWER);
    for (;;) {
        dkv_client_op written = put("a");
        if (is_from(&written, owner)) break;
        CHECK(is_from(&written, replica_of("a", 1)));
        fake_sleep_ms(10);
    }
    end();
}

/* ---- writes that meet trouble --------------------------------------------------------------- */

/* A write whose coordinator is down before anything was sent goes to the next replica. */
static void writes_avoid_a_dead_owner(void) {
    begin();
    fake_set_up(replica_of("a", 0), false);
    dkv_client_op written = put("a");
    CHECK(is_from(&written, replica_of("a", 1)) && writes() == 1);
    end();
}

static int listen_mutely(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 8) == 0);
    return fd;
}

/* A write also goes to the next replica when the owner accepts connections but never speaks. */
static void writes_avoid_a_mute_owner(void) {
    begin();
    int owner = replica_of("a", 0);
    fake_set_up(owner, false);
    int fd = listen_mutely((uint16_t)fakes[owner].port);
    dkv_client_op written = put("a");
    CHECK(is_from(&written, replica_of("a", 1)) && writes() == 1);
    close(fd);
    end();
}

/* After a write has left, a broken stream makes its outcome unknown, and it is not sent again. */
static void a_write_is_not_resent_after_a_break(void) {
    begin();
    set_moods(BREAK);
    dkv_client_op written = put("a");
    CHECK(written.err == DKV_ERR_UNAVAILABLE && written.outcome == DKV_OUTCOME_UNKNOWN);
    CHECK(written.n_missing == 1 && writes() == 1);
    char told[DKV_DETAIL_MAX];
    snprintf(told, sizeof told, "the outcome of the put is unknown: %s: it was sent, but not",
             written.missing[0]);
    CHECK(strncmp(written.detail, told, strlen(told)) == 0);
    CHECK(strstr(written.detail, DKV_ADVICE_UNKNOWN));
    end();
}

/* The same when its deadline passes. */
static void a_write_is_not_resent_after_its_deadline(void) {
    begin();
    set_moods(SILENT);
    dkv_client_op written = run(op_of(DKV_OP_PUT, "a", SHORT_MS));
    CHECK(written.err == DKV_ERR_DEADLINE && written.outcome == DKV_OUTCOME_UNKNOWN);
    CHECK(writes() == 1);
    end();
}

/* What a node says about a write reaches the caller as it is. */
static void the_nodes_word_about_a_write_is_kept(void) {
    begin();
    set_moods(ERROR);
    for (int i = 0; i < FAKES; i++) {
        atomic_store(&fakes[i].err, DKV_ERR_UNAVAILABLE);
        atomic_store(&fakes[i].outcome, DKV_OUTCOME_NOT_APPLIED);
    }
    dkv_client_op written = put("a");
    CHECK(written.err == DKV_ERR_UNAVAILABLE && written.outcome == DKV_OUTCOME_NOT_APPLIED);
    CHECK(written.n_missing == 1 && strcmp(written.detail, "as told") == 0 && writes() == 1);
    end();
}

/* A session that broke while nobody was looking costs no write its outcome. */
static void an_idle_client_notices_a_restart(void) {
    begin();
    put("a");
    int owner = replica_of("a", 0);
    fake_set_up(owner, false);
    fake_set_up(owner, true);
    fake_sleep_ms(20);
    dkv_client_op written = put("a");
    CHECK(written.err == DKV_OK);
    end();
}

/* ---- many at once --------------------------------------------------------------------------- */

static dkv_client_op *many(size_t n, dkv_op kind, char (*keys)[16], uint32_t timeout_ms) {
    dkv_client_op *ops = calloc(n, sizeof *ops);
    CHECK(ops);
    for (size_t i = 0; i < n; i++) {
        snprintf(keys[i], sizeof keys[i], "key %zu", i);
        ops[i] = op_of(kind, keys[i], timeout_ms);
    }
    return ops;
}

#define MANY 5000u
static char many_keys[MANY][16];

/* Of one array, no more than the window is on its way; all of it is done in the end. */
static void the_window_holds(void) {
    begin();
    set_moods(HOLD);
    dkv_client_op *ops = many(MANY, DKV_OP_PUT, many_keys, 0);
    CHECK(dkv_client_start(client, ops, MANY) == DKV_OK);
    while (writes() < DKV_CLIENT_WINDOW) CHECK(!dkv_client_wait(client, ops, MANY, 10));
    CHECK(!dkv_client_wait(client, ops, MANY, 50));
    CHECK(writes() == DKV_CLIENT_WINDOW);
    set_moods(ANSWER);
    CHECK(dkv_client_wait(client, ops, MANY, LONG_MS));
    CHECK(writes() == MANY);
    for (size_t i = 0; i < MANY; i++) CHECK(ops[i].err == DKV_OK);
    free(ops);
    end();
}

/* Of large values, no more are on their way than a few MiB. */
static void the_window_counts_bytes(void) {
    begin();
    set_moods(HOLD);
    static uint8_t value[DKV_VALUE_MAX];
    dkv_client_op *ops = many(40, DKV_OP_PUT, many_keys, 0);
    for (int i = 0; i < 40; i++) ops[i].request.value = (dkv_slice){value, sizeof value};
    CHECK(dkv_client_start(client, ops, 40) == DKV_OK);
    while (writes() < 8) CHECK(!dkv_client_wait(client, ops, 40, 10));
    CHECK(!dkv_client_wait(client, ops, 40, 50));
    CHECK(writes() < 10);
    set_moods(ANSWER);
    CHECK(dkv_client_wait(client, ops, 40, LONG_MS));
    for (int i = 0; i < 40; i++) CHECK(ops[i].err == DKV_OK);
    free(ops);
    end();
}

/* When every node is down, an array of any length fails without exhausting the stack. */
static void many_fail_together(void) {
    begin();
    for (int i = 0; i < FAKES; i++) fake_set_up(i, false);
    dkv_client_op *ops = many(MANY, DKV_OP_GET, many_keys, 0);
    CHECK(dkv_client_start(client, ops, MANY) == DKV_OK);
    CHECK(dkv_client_wait(client, ops, MANY, LONG_MS));
    for (size_t i = 0; i < MANY; i++) CHECK(ops[i].err == DKV_ERR_UNAVAILABLE);
    free(ops);
    end();
}

/* Operations given up are the caller's again at once; those sent say that their outcome is
 * unknown, and a late answer harms nobody. */
static void abandoned_operations_end(void) {
    begin();
    set_moods(HOLD);
    dkv_client_op *ops = many(2000, DKV_OP_PUT, many_keys, 0);
    CHECK(dkv_client_start(client, ops, 2000) == DKV_OK);
    while (writes() < DKV_CLIENT_WINDOW) CHECK(!dkv_client_wait(client, ops, 2000, 10));
    dkv_client_abandon(client, ops, 2000);
    for (size_t i = 0; i < 2000; i++) {
        CHECK(ops[i].done && ops[i].err == DKV_ERR_CANCELLED);
        bool sent = i < DKV_CLIENT_WINDOW;
        CHECK(ops[i].outcome == (sent ? DKV_OUTCOME_UNKNOWN : DKV_OUTCOME_NOT_APPLIED));
    }
    memset(ops, 0xee, 2000 * sizeof *ops);
    free(ops);
    set_moods(ANSWER);
    CHECK(put("z").err == DKV_OK);
    end();
}

/* After a first large value, large requests travel on a session of their own, and their answers
 * are taken from whatever session they come on. */
static void large_values_take_their_own_lane(void) {
    begin();
    dkv_client_op large = op_of(DKV_OP_PUT, "a", 0);
    fake_node *owner = &fakes[replica_of("a", 0)];
    large.request.value = (dkv_slice){fake_large, sizeof fake_large};
    while (owner->on_second == 0) CHECK(run(large).err == DKV_OK);
    CHECK(owner->sessions == 2);
    unsigned on_second = owner->on_second;
    CHECK(put("a").err == DKV_OK);
    CHECK(owner->on_second == on_second);
    end();
}

/* A large value that is read opens the second session as well. */
static void a_large_answer_opens_the_lane(void) {
    begin();
    fake_node *owner = &fakes[replica_of("large", 0)];
    while (owner->sessions < 2) CHECK(get("large").value_len == LARGE_VALUE);
    end();
}

/* ---- threads -------------------------------------------------------------------------------- */

#define THREADS 8
#define ROUNDS 150

static void *thread_of_operations(void *number) {
    char key[32];
    uintptr_t failed = 0;
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(key, sizeof key, "key %d of %d", i, *(int *)number);
        dkv_client_op op = op_of(i % 3 ? DKV_OP_GET : DKV_OP_PUT, key, 0);
        bool done = false;
        if (dkv_client_run(client, &op, LONG_MS, &done)) return (void *)(uintptr_t)ROUNDS;
        failed += !done || op.err != DKV_OK;
        free(op.value);
    }
    return (void *)failed;
}

/* The same, but none waits for longer than a millisecond. */
static void *impatient_thread(void *number) {
    char key[32];
    uintptr_t failed = 0;
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(key, sizeof key, "key %d of %d", i, *(int *)number);
        dkv_client_op op = op_of(i % 3 ? DKV_OP_GET : DKV_OP_PUT, key, 0);
        if (dkv_client_start(client, &op, 1)) return (void *)(uintptr_t)ROUNDS;
        for (uint32_t turn = 0; !dkv_client_wait(client, &op, 1, turn % 2); turn++) {
        }
        failed += op.err != DKV_OK;
        free(op.value);
    }
    return (void *)failed;
}

static uintptr_t run_threads(void *(*act)(void *)) {
    pthread_t threads[THREADS];
    int numbers[THREADS];
    uintptr_t failed = 0;
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, act, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK(pthread_join(threads[i], &result) == 0);
        failed += (uintptr_t)result;
    }
    return failed;
}

/* Many threads share one client: every operation of every thread is answered. */
static void threads_share_a_client(void) {
    begin();
    CHECK(run_threads(thread_of_operations) == 0);
    CHECK(reads() >= THREADS * ROUNDS / 3 * 2 && writes() == THREADS * ROUNDS / 3);
    end();
}

/* Threads that come and go while they wait take turns in polling, and none is forgotten. */
static void threads_stop_waiting_and_wait_again(void) {
    begin();
    CHECK(run_threads(impatient_thread) == 0);
    CHECK(reads() >= THREADS * ROUNDS / 3 * 2 && writes() == THREADS * ROUNDS / 3);
    end();
}

/* The same while one node keeps silent: the hedges of all threads fire, whoever polls. */
static void threads_pass_over_a_silent_node(void) {
    begin_hedging();
    get("a");
    set_mood(0, SILENT);
    dkv_client_op first = get("b");
    for (int i = 0; first.err == DKV_OK && fakes[0].reads == 0; i++) {
        char key[16];
        snprintf(key, sizeof key, "key %d", i);
        first = get(key);
    }
    CHECK(first.err == DKV_OK);
    end();
}

static void *thread_that_waits(void *op) {
    return dkv_client_wait(client, op, 1, LONG_MS) ? op : NULL;
}

/* Closing ends the wait of every other thread, and later starts are refused. */
static void closing_ends_every_wait(void) {
    begin();
    set_moods(SILENT);
    pthread_t threads[3];
    dkv_client_op ops[3];
    for (int i = 0; i < 3; i++) {
        ops[i] = op_of(DKV_OP_PUT, "a", 0);
        CHECK(dkv_client_start(client, &ops[i], 1) == DKV_OK);
        CHECK(pthread_create(&threads[i], NULL, thread_that_waits, &ops[i]) == 0);
    }
    while (writes() < 3) fake_sleep_ms(1);
    dkv_client_close(client);
    for (int i = 0; i < 3; i++) {
        void *result;
        CHECK(pthread_join(threads[i], &result) == 0);
        CHECK(result == &ops[i] && ops[i].err == DKV_ERR_CANCELLED);
        CHECK(ops[i].outcome == DKV_OUTCOME_UNKNOWN);
    }
    dkv_client_op late = op_of(DKV_OP_GET, "a", 0);
    CHECK(dkv_client_start(client, &late, 1) == DKV_ERR_PRECONDITION);
    CHECK(!late.internal); /* nothing of it is left to wait for */
    end();
}

/* In the child of a fork the client refuses everything and touches nothing. */
static void a_forked_child_is_refused(void) {
    begin();
    put("a");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dkv_client_op op = op_of(DKV_OP_GET, "a", 0);
        bool refused = dkv_client_start(client, &op, 1) == DKV_ERR_PRECONDITION;
        refused &= !dkv_client_wait(client, &op, 1, LONG_MS);
        dkv_client_del(client);
        _exit(refused ? 0 : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(put("a").err == DKV_OK);
    end();
}

static const check_test tests[] = {
    CHECK_TEST(operations_go_to_the_owner),
    CHECK_TEST(not_found_is_final),
    CHECK_TEST(bad_requests_are_refused),
    CHECK_TEST(writes_carry_the_newest_version_seen),
    CHECK_TEST(status_asks_each_member),
    CHECK_TEST(seeds_are_tried_in_order),
    CHECK_TEST(many_failed_seeds_are_counted),
    CHECK_TEST(bad_seeds_are_refused),
    CHECK_TEST(a_silent_owner_is_passed_over),
    CHECK_TEST(a_read_that_takes_unusually_long_is_hedged),
    CHECK_TEST(hedges_are_few),
    CHECK_TEST(one_live_replica_is_enough),
    CHECK_TEST(reads_survive_a_broken_stream),
    CHECK_TEST(reads_survive_an_error),
    CHECK_TEST(reads_survive_garbage),
    CHECK_TEST(reads_survive_a_huge_value),
    CHECK_TEST(reads_survive_answers_of_the_wrong_kind),
    CHECK_TEST(strange_answers_are_ignored),
    CHECK_TEST(absence_is_doubted_where_not_all_could_be_asked),
    CHECK_TEST(absence_that_all_confirm_is_believed),
    CHECK_TEST(absence_holds_if_nobody_contradicts),
    CHECK_TEST(busy_is_passed_on),
    CHECK_TEST(an_error_names_every_replica),
    CHECK_TEST(reads_end_by_their_deadline),
    CHECK_TEST(a_cluster_that_returns_is_found_again),
    CHECK_TEST(suspects_are_avoided_and_recover),
    CHECK_TEST(writes_find_a_recovered_suspect),
    CHECK_TEST(writes_avoid_a_dead_owner),
    CHECK_TEST(writes_avoid_a_mute_owner),
    CHECK_TEST(a_write_is_not_resent_after_a_break),
    CHECK_TEST(a_write_is_not_resent_after_its_deadline),
    CHECK_TEST(the_nodes_word_about_a_write_is_kept),
    CHECK_TEST(an_idle_client_notices_a_restart),
    CHECK_TEST(the_window_holds),
    CHECK_TEST(the_window_counts_bytes),
    CHECK_TEST(many_fail_together),
    CHECK_TEST(abandoned_operations_end),
    CHECK_TEST(large_values_take_their_own_lane),
    CHECK_TEST(a_large_answer_opens_the_lane),
    CHECK_TEST(threads_share_a_client),
    CHECK_TEST(threads_stop_waiting_and_wait_again),
    CHECK_TEST(threads_pass_over_a_silent_node),
    CHECK_TEST(closing_ends_every_wait),
    CHECK_TEST(a_forked_child_is_refused),
};

CHECK_MAIN(tests)
