/* What a node does at its limits, and with peers and clocks that cannot be right (csrc/replica,
 * csrc/member), with every message and every sync in the hands of the test. */
#include "replica_world.h"

/* ---- limits ---- */

/* Every request ends at its deadline if nobody answers, whatever its level. */
static void deadline_always_fires(void) {
    setup_replicas();
    for (int i = 0; i < 3; i++) {
        park_all_to(i, DKV_MSG_FETCH, true);
        park_all_to(i, DKV_MSG_APPLY, true);
    }
    for (dkv_op op = DKV_OP_GET; op <= DKV_OP_DELETE; op++) {
        for (dkv_level level = DKV_LEVEL_DEFAULT; level <= DKV_LEVEL_ALL; level++) {
            nodes[owner].slow_disk = true;
            dkv_request request = {
                .op = op, .level = level, .timeout_ms = 300, .key = dkv_slice_of(KEY)};
            const answer *a = ask(owner, &request);
            advance(295);
            bool early = op == DKV_OP_GET && level <= DKV_LEVEL_ONE; /* by the owner's own word */
            CHECK(a->times == early);
            advance(5);
            CHECK(a->times == 1 && a->err);
            CHECK(a->outcome == (op == DKV_OP_GET ? DKV_OUTCOME_NONE : DKV_OUTCOME_UNKNOWN));
        }
    }
    lose_parked();
    teardown();
}

/* A write waits for a link that is being opened, but not for ever. */
static void connecting_replica_is_waited_for_briefly(void) {
    setup_without(3, 3, 4);
    nodes[2].mute = true;
    kill(0);
    start(0);
    settle();
    const answer *a = put(0, KEY, "v", DKV_LEVEL_ALL);
    CHECK(a->times == 0 && dkv_node_reach(nodes[0].node, 2) == DKV_REACH_CONNECTING);
    advance(1500);
    CHECK(a->outcome == DKV_OUTCOME_NOT_APPLIED && a->missing == bit(2) && !holds(1, KEY));
    advance(1500);
    CHECK(dkv_node_reach(nodes[0].node, 2) == DKV_REACH_DOWN);
    nodes[2].mute = false;
    start(2);
    advance(2000);
    CHECK(put(0, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    teardown();
}

/* P10: one request too many is BUSY at once; the others are all answered, once each. */
static void too_many_requests_are_busy(void) {
    setup_replicas();
    nodes[owner].slow_disk = true;
    dkv_request request = {.op = DKV_OP_PUT, .level = DKV_LEVEL_ONE, .key = dkv_slice_of(KEY)};
    park(owner, second, DKV_MSG_APPLY, true);
    park(owner, third, DKV_MSG_APPLY, true);
    dkv_node_status status;
    const answer *first = NULL, *a = NULL;
    for (unsigned i = 0; i <= DKV_REQUESTS_MAX; i++) {
        a = ask(owner, &request);
        if (!first) first = a;
        lose_parked();
    }
    CHECK(a->err == DKV_ERR_BUSY && a->outcome == DKV_OUTCOME_NOT_APPLIED && first->times == 0);
    nodes[owner].slow_disk = false;
    settle();
    for (uint64_t i = 1; i < n_asked; i++) CHECK(answers[i].outcome == DKV_OUTCOME_APPLIED);
    dkv_node_status_get(nodes[owner].node, &status);
    CHECK(status.requests == 0);
    teardown();
}

/* P10: what is outside the limits changes nothing; what just fits works. */
static void bad_requests_change_nothing(void) {
    setup_replicas();
    static char long_key[DKV_KEY_MAX + 1];
    static uint8_t long_value[DKV_VALUE_MAX + 1];
    memset(long_key, 'k', sizeof long_key);
    dkv_slice key = {(uint8_t *)long_key, DKV_KEY_MAX};
    dkv_slice value = {long_value, DKV_VALUE_MAX};
    dkv_request bad[] = {
        {.op = DKV_OP_PUT},
        {.op = 0, .key = key},
        {.op = DKV_OP_DELETE + 1, .key = key},
        {.op = DKV_OP_PUT, .key = {key.data, DKV_KEY_MAX + 1}},
        {.op = DKV_OP_PUT, .key = key, .value = {long_value, DKV_VALUE_MAX + 1}},
        {.op = DKV_OP_PUT, .key = key, .level = DKV_LEVEL_ALL + 1},
        {.op = DKV_OP_PUT, .key = key, .timeout_ms = DKV_TIMEOUT_MAX_MS + 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const answer *a = ask(owner, &bad[i]);
        CHECK(a->err == DKV_ERR_INVALID && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    }
    settle();
    CHECK(delivered[0][DKV_MSG_APPLY] + delivered[1][DKV_MSG_APPLY] == 0);
    const answer *a = ask(owner, &(dkv_request){.op = DKV_OP_PUT, .key = key, .value = value});
    settle();
    CHECK(a->outcome == DKV_OUTCOME_APPLIED);
    teardown();
}

/* ---- clocks and versions ---- */

static bool is_clock_off(int i) {
    dkv_node_status status;
    dkv_node_status_get(nodes[i].node, &status);
    return status.clock_off;
}

/* A node whose clock is off coordinates no write, says so, and goes on when the clock is right:
 * also under reads without a pause, and after a minute without requests. */
static void clock_off_refuses(void) {
    for (int idle = 0; idle < 2; idle++) {
        setup_replicas();
        plant(second, "seen", "v", 1);
        nodes[owner].skew_ms = 5000;
        put(owner, KEY, "v", DKV_LEVEL_ALL);
        advance(2000);
        const answer *a = put(owner, KEY, "v", DKV_LEVEL_ALL);
        CHECK(a->err == DKV_ERR_CLOCK && a->outcome == DKV_OUTCOME_NOT_APPLIED);
        CHECK(put(second, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
        if (idle) advance(70000);
        nodes[owner].skew_ms = 0;
        for (int i = 0; i < 40; i++) {
            if (!idle) get(owner, "seen", DKV_LEVEL_ALL);
            if (idle) put(owner, KEY, "v", DKV_LEVEL_ALL);
            advance(50);
        }
        CHECK(put(owner, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
        teardown();
    }
}

/* A clock that goes wrong is noticed while the node is never without a request under way. */
static void clock_is_compared_under_load(void) {
    setup_replicas();
    nodes[owner].skew_ms = 5000;
    park(owner, second, DKV_MSG_APPLY, true);
    park(owner, third, DKV_MSG_APPLY, true);
    for (int i = 0; i < 40; i++) {
        put(owner, KEY, "v", DKV_LEVEL_ALL);
        get(owner, "nothing", DKV_LEVEL_ALL);
        advance(50);
    }
    CHECK(is_clock_off(owner));
    lose_parked();
    teardown();
}

/* Whatever time a peer says it is, this node only finds that the two differ. */
static void strange_clock_of_a_peer_is_just_off(void) {
    setup_replicas();
    const uint64_t offsets[] = {INT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 63) + 1, 1 << 30};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        park(owner, second, DKV_MSG_PING, true);
        park(owner, third, DKV_MSG_PING, true);
        put(owner, KEY, "v", DKV_LEVEL_ALL);
        ADVANCE_UNTIL(n_parked == 2);
        dkv_message pong = {.kind = DKV_MSG_PONG};
        pong.pong.wall_ms = wall_ms(owner) + offsets[i];
        say_reply(second, owner, &pong);
        say_reply(third, owner, &pong);
        CHECK(is_clock_off(owner));
        park(owner, second, DKV_MSG_PING, false);
        park(owner, third, DKV_MSG_PING, false);
        lose_parked();
        advance(1500);
        CHECK(!is_clock_off(owner));
    }
    teardown();
}

/* P6: the new version is later than the stored one and than what the client has seen, on a
 * coordinator whose clock is behind both. */
static void later_write_has_later_version(void) {
    setup_replicas();
    dkv_hlc ahead = dkv_hlc_of_ms(wall_ms(owner) + 100000000);
    for (int i = 0; i < 3; i++) plant(i, KEY, "old", ahead);
    const answer *a = put(owner, KEY, "new", DKV_LEVEL_ALL);
    CHECK(a->outcome == DKV_OUTCOME_APPLIED && a->version.hlc > ahead);
    CHECK(strcmp(get(owner, KEY, DKV_LEVEL_ALL)->value, "new") == 0);
    dkv_hlc seen = dkv_hlc_of_ms(wall_ms(owner) + 400);
    a = ask(second,
            &(dkv_request){
                .op = DKV_OP_PUT, .key = dkv_slice_of("other"), .last_seen = {seen, UINT64_MAX}});
    settle();
    CHECK(a->outcome == DKV_OUTCOME_APPLIED && a->version.hlc > seen);
    teardown();
}

/* P6: a client's version far ahead of the clock is refused before anything is written. */
static void version_from_the_future_is_refused(void) {
    setup_replicas();
    dkv_hlc seen = dkv_hlc_of_ms(wall_ms(owner) + 600);
    const answer *a = ask(
        owner, &(dkv_request){.op = DKV_OP_PUT, .key = dkv_slice_of(KEY), .last_seen = {seen, 1}});
    settle();
    CHECK(a->err == DKV_ERR_CLOCK && a->outcome == DKV_OUTCOME_NOT_APPLIED && !holds(owner, KEY));
    teardown();
}

/* P6: where no later version exists, a write is refused; it does not begin again at zero. */
static void last_version_of_all_cannot_be_followed(void) {
    setup_replicas();
    for (int i = 0; i < 3; i++) plant(i, KEY, "last", UINT64_MAX);
    const answer *a = put(owner, KEY, "next", DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_CLOCK && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    CHECK(put(owner, "other", "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    teardown();
}

/* Node 0 has just started, and its link to node 2 neither opens nor fails. */
static void setup_connecting(void) {
    setup_without(3, 3, 4);
    nodes[2].mute = true;
    kill(0);
    start(0);
    settle();
    get(1, KEY, DKV_LEVEL_ALL);
}

/* P10: what peers forward is bounded in bytes: what is too much is BUSY at once. */
static void too_many_forwarded_bytes_are_busy(void) {
    static const uint8_t value[DKV_VALUE_MAX];
    enum { FIT = DKV_FORWARDED_BYTES_MAX / (DKV_VALUE_MAX + 8) };
    setup_connecting();
    dkv_message forward = {
        .kind = DKV_MSG_FORWARD,
        .forward = {.op = DKV_OP_PUT, .key = dkv_slice_of(KEY), .value = {value, sizeof value}}};
    for (unsigned i = 0; i < FIT + 3; i++) {
        forward.id = 1000000 + i;
        say_request(1, 0, &forward);
    }
    CHECK(delivered[1][DKV_MSG_FORWARD_REPLY] == 3);
    advance(5000);
    CHECK(delivered[1][DKV_MSG_FORWARD_REPLY] == FIT + 3);
    teardown();
}

/* P4: a write that waits for a link when the node is stopped was never sent: it is refused, and
 * not left unknown. */
static void stop_refuses_what_has_not_begun(void) {
    setup_connecting();
    const answer *a = put(0, KEY, "v", DKV_LEVEL_ALL);
    CHECK(a->times == 0);
    step(0, (dkv_event){.kind = DKV_EVENT_STOP});
    CHECK(a->times == 1 && a->err == DKV_ERR_UNAVAILABLE && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    teardown();
}

/* A key with `first` as its owner and one of `others` as its second replica. */
static const char *key_on(int first, unsigned others) {
    static char keys[2][16];
    static unsigned turn;
    char *key = keys[turn++ % 2];
    for (int i = 0;; i++) {
        snprintf(key, sizeof keys[0], "key%d", i);
        if (place(key, 0) == first && (others >> place(key, 1) & 1)) return key;
    }
}

/* Links are opened a few at a time, but peers that never answer take nobody else's turn. */
static void silent_peers_hold_up_nobody(void) {
    for (unsigned ms = 2000; ms < 6000; ms += 200) { /* at any time of their being tried again */
        setup(4, 2);
        advance(70000); /* all links are closed */
        const char *silent = key_on(1, bit(2)), *other = key_on(3, bit(1) | bit(2));
        plant(3, other, "v", 1000);
        nodes[1].mute = nodes[2].mute = true;
        get(0, silent, DKV_LEVEL_ALL);
        advance(ms);
        const answer *a = get(0, other, DKV_LEVEL_ONE);
        CHECK(a->times == 1 && a->err == DKV_OK);
        teardown();
    }
}

/* Two records of one version are an alarm: the replica logs it and refuses the second, and a read
 * that meets both prefers neither. */
static void contradicting_records_are_an_alarm(void) {
    setup_replicas();
    plant(second, KEY, "one", 1000);
    dkv_message apply = {.kind = DKV_MSG_APPLY, .id = 1000000};
    apply.apply = (dkv_record){
        .key = dkv_slice_of(KEY), .value = dkv_slice_of("a longer value"), .version = {1000, 7}};
    say_request(owner, second, &apply);
    CHECK(strstr(last_error, "two different records"));
    last_error[0] = 0;
    plant(owner, KEY, "a longer value", 1000);
    CHECK(get(owner, KEY, DKV_LEVEL_ALL)->err == DKV_ERR_DATA_LOSS);
    CHECK(strstr(last_error, "two different records"));
    teardown();
}

/* An error that no replica answers to a write is not handed on as if it were the write's. */
static void strange_error_of_a_replica_is_unavailable(void) {
    setup_replicas();
    park(owner, third, DKV_MSG_APPLY, true);
    const answer *a = put(owner, KEY, "v", DKV_LEVEL_ALL);
    CHECK(n_parked == 1);
    dkv_message reply = {.kind = DKV_MSG_APPLY_REPLY, .id = parked[0].id};
    reply.apply_reply.err = DKV_ERR_NOT_FOUND;
    say_reply(third, owner, &reply);
    CHECK(a->err == DKV_ERR_UNAVAILABLE && a->outcome == DKV_OUTCOME_UNKNOWN);
    lose_parked();
    teardown();
}

static const check_test tests[] = {
    CHECK_TEST(deadline_always_fires),
    CHECK_TEST(connecting_replica_is_waited_for_briefly),
    CHECK_TEST(too_many_requests_are_busy),
    CHECK_TEST(bad_requests_change_nothing),
    CHECK_TEST(clock_off_refuses),
    CHECK_TEST(clock_is_compared_under_load),
    CHECK_TEST(strange_clock_of_a_peer_is_just_off),
    CHECK_TEST(later_write_has_later_version),
    CHECK_TEST(version_from_the_future_is_refused),
    CHECK_TEST(last_version_of_all_cannot_be_followed),
    CHECK_TEST(too_many_forwarded_bytes_are_busy),
    CHECK_TEST(stop_refuses_what_has_not_begun),
    CHECK_TEST(silent_peers_hold_up_nobody),
    CHECK_TEST(contradicting_records_are_an_alarm),
    CHECK_TEST(strange_error_of_a_replica_is_unavailable),
};

CHECK_MAIN(tests)
