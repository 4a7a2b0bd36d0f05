/* What the replicas of a key promise (csrc/replica, csrc/member, csrc/node), with every message and
 * every sync in the hands of the test. See also test_replica_limits.c. */
#include "replica_world.h"
#include "store/append.h"

/* ---- writes ---- */

/* P1: the answer waits for the disk of each replica, the coordinator's own included. */
static void put_is_confirmed_after_all_synced(void) {
    setup_replicas();
    for (int slow = 0; slow < 3; slow++) {
        nodes[slow].slow_disk = true;
        const answer *a = put(owner, KEY, "v", DKV_LEVEL_DEFAULT);
        CHECK(a->times == 0);
        nodes[slow].slow_disk = false;
        settle();
        CHECK(a->times == 1 && a->err == DKV_OK && a->outcome == DKV_OUTCOME_APPLIED);
        CHECK(a->holding == 7 && a->missing == 0);
    }
    teardown();
}

/* P1: at "quorum" two of three suffice, and one does not. */
static void quorum_put_needs_two_of_three(void) {
    setup_replicas();
    nodes[second].slow_disk = nodes[third].slow_disk = true;
    const answer *a = put(owner, KEY, "v", DKV_LEVEL_QUORUM);
    CHECK(a->times == 0);
    nodes[third].slow_disk = false;
    settle();
    CHECK(a->outcome == DKV_OUTCOME_APPLIED && a->holding == (bit(owner) | bit(third)));
    CHECK(a->missing == bit(second));
    teardown();
}

/* P4: a replica known to be dead refuses the write before any other has seen it, and the error
 * names the way out, which works. */
static void dead_replica_refuses_before_writing(void) {
    setup_replicas();
    kill(third);
    const answer *a = put(owner, KEY, "v", DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_UNAVAILABLE && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    CHECK(a->missing == bit(third) && a->holding == 0);
    CHECK(strstr(last_detail, " (not reachable); nothing was written; at level quorum it would "));
    CHECK(!holds(owner, KEY) && !holds(second, KEY));
    CHECK(put(owner, KEY, "v", DKV_LEVEL_QUORUM)->outcome == DKV_OUTCOME_APPLIED);
    teardown();
}

/* A read that needs all names the dead replica alone, not those that could still answer. */
static void refused_read_names_who_is_missing(void) {
    setup_replicas();
    CHECK(put(owner, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    kill(third);
    const answer *a = get(owner, KEY, DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_UNAVAILABLE && a->missing == bit(third));
    CHECK(strstr(last_detail, "3 of 3 replicas, 2 can give one"));
    CHECK(get(owner, KEY, DKV_LEVEL_QUORUM)->err == DKV_OK);
    teardown();
}

/* P4: a replica that dies after the write was sent leaves it unknown, with those that hold it. */
static void half_way_failure_is_unknown(void) {
    setup_replicas();
    park(owner, third, DKV_MSG_APPLY, true);
    const answer *a = put(owner, KEY, "v", DKV_LEVEL_ALL);
    CHECK(a->times == 0);
    kill(third);
    CHECK(a->err == DKV_ERR_UNAVAILABLE && a->outcome == DKV_OUTCOME_UNKNOWN);
    CHECK(a->holding == (bit(owner) | bit(second)) && a->missing == bit(third));
    CHECK(a->version.hlc > 0);
    teardown();
}

/* P4: a confirmation that comes after the deadline changes nothing, and the next write works. */
static void late_confirmation_after_reply_is_ignored(void) {
    setup_replicas();
    park(second, owner, DKV_MSG_APPLY_REPLY, true);
    const answer *a = put(owner, KEY, "v", DKV_LEVEL_ALL);
    advance(DKV_TIMEOUT_DEFAULT_MS);
    CHECK(a->err == DKV_ERR_DEADLINE && a->outcome == DKV_OUTCOME_UNKNOWN);
    CHECK(a->missing == bit(second));
    park(second, owner, DKV_MSG_APPLY_REPLY, false);
    release_parked();
    CHECK(a->times == 1);
    CHECK(put(owner, KEY, "w", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    teardown();
}

/* P4: answers that no replica gives to a write (of another kind, or of another write) are passed
 * over: they neither confirm it nor end it. */
static void foreign_replies_confirm_nothing(void) {
    setup_replicas();
    park(owner, third, DKV_MSG_APPLY, true);
    const answer *a = put(owner, KEY, "v", DKV_LEVEL_ALL);
    uint64_t id = parked[0].id;
    say_reply(third, owner, &(dkv_message){.kind = DKV_MSG_APPLY_REPLY, .id = id + 1000});
    dkv_message other = {.kind = DKV_MSG_FETCH_REPLY, .id = id};
    other.fetch_reply.err = DKV_ERR_NOT_FOUND;
    say_reply(third, owner, &other);
    dkv_message forwarded = {.kind = DKV_MSG_FORWARD_REPLY, .id = id};
    forwarded.forward_reply.outcome = DKV_OUTCOME_APPLIED;
    say_reply(third, owner, &forwarded);
    say_reply(second, owner, &(dkv_message){.kind = DKV_MSG_APPLY_REPLY, .id = id});
    CHECK(a->times == 0);
    release_parked();
    CHECK(a->outcome == DKV_OUTCOME_APPLIED && a->holding == 7);
    teardown();
}

/* P4: a full disk is met half-way once; from then on it refuses before anything is written, also
 * while the full replica answers reads without a pause, and until it has room again. */
static void full_replica_refuses_and_recovers(void) {
    setup_replicas();
    plant(third, "seen", "v", 1);
    dkv_sim_disk_limit(nodes[third].disk, dkv_sim_disk_bytes(nodes[third].disk));
    static char large[DKV_AHEAD_BYTES + 1]; /* more than the file has room for already */
    memset(large, 'v', sizeof large - 1);
    const answer *a = put(owner, KEY, large, DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_NO_SPACE && a->outcome == DKV_OUTCOME_UNKNOWN);
    CHECK(a->missing & bit(third));
    a = put(owner, "other", "v", DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_NO_SPACE && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    CHECK(a->missing == bit(third) && !holds(owner, "other"));
    dkv_sim_disk_limit(nodes[third].disk, 0);
    for (int i = 0; i < 40; i++) {
        CHECK(get(owner, "seen", DKV_LEVEL_ALL)->times == 1);
        advance(50);
    }
    CHECK(put(owner, "other", "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    teardown();
}

/* A replica whose disk is nearly full takes no values, but deletions: at level `all`, too. */
static void nearly_full_replica_takes_deletions(void) {
    setup_replicas();
    CHECK(put(owner, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    dkv_sim_disk_tell_space(nodes[third].disk, true);
    dkv_sim_disk_limit(nodes[third].disk, dkv_sim_disk_bytes(nodes[third].disk) + 100000);
    dkv_store_retry(dkv_node_store(nodes[third].node)); /* asks the disk again */
    advance(50);
    put(owner, "other", "v", DKV_LEVEL_ALL);
    const answer *a = put(owner, "other", "v", DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_NO_SPACE && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    a = ask(owner, &(dkv_request){.op = DKV_OP_DELETE, .key = dkv_slice_of(KEY)});
    settle();
    CHECK(a->err == DKV_OK && a->outcome == DKV_OUTCOME_APPLIED && !(a->missing & bit(third)));
    teardown();
}

/* P4: that a replica is full is not forgotten with the connection. */
static void full_replica_refuses_after_reconnecting(void) {
    setup_replicas();
    dkv_sim_disk_limit(nodes[third].disk, dkv_sim_disk_bytes(nodes[third].disk));
    CHECK(put(owner, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_UNKNOWN);
    break_links(third);
    const answer *a = put(owner, "other", "v", DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_UNAVAILABLE && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    ADVANCE_UNTIL(dkv_node_reach(nodes[owner].node, (uint16_t)third) == DKV_REACH_UP);
    a = put(owner, "other", "v", DKV_LEVEL_ALL);
    CHECK(a->err == DKV_ERR_NO_SPACE && a->outcome == DKV_OUTCOME_NOT_APPLIED);
    teardown();
}

/* A full replica is asked four times a second whether it still is. */
static void full_replica_is_asked_again_soon(void) {
    setup_replicas();
    dkv_sim_disk_limit(nodes[third].disk, dkv_sim_disk_bytes(nodes[third].disk));
    put(owner, KEY, "v", DKV_LEVEL_ALL);
    advance(250);
    unsigned pings = delivered[third][DKV_MSG_PING];
    advance(10000);
    CHECK(delivered[third][DKV_MSG_PING] == pings + 40);
    teardown();
}

/* ---- reads ---- */

/* P2: the owner does not hold the key: all the others are asked, and one that has it is enough. */
static void miss_asks_all_others(void) {
    setup_replicas();
    plant(third, KEY, "v", 5);
    const answer *a = get(owner, KEY, DKV_LEVEL_ONE);
    CHECK(a->err == DKV_OK && strcmp(a->value, "v") == 0 && a->holding == bit(third));
    CHECK(delivered[second][DKV_MSG_FETCH] >= 1 && delivered[third][DKV_MSG_FETCH] >= 1);
    CHECK(holds(owner, KEY)); /* it has been given what it lacked */
    teardown();
}

/* P2: the owner is asked first, and alone; when it is silent for attempt_ms, the next one. */
static void get_fails_over_after_attempt_ms(void) {
    setup_replicas();
    plant(second, KEY, "v", 5);
    park(second, owner, DKV_MSG_FETCH, true);
    const answer *a = get(second, KEY, DKV_LEVEL_ONE);
    advance(35);
    CHECK(a->times == 0);
    advance(5);
    CHECK(a->err == DKV_OK && a->holding == bit(second));
    CHECK(delivered[third][DKV_MSG_FETCH] == 0);
    park(second, owner, DKV_MSG_FETCH, false);
    release_parked();
    teardown();
}

/* P2: a miss waits no longer than attempt_ms for a replica that is silent. */
static void miss_costs_one_attempt_at_most(void) {
    setup_replicas();
    park(owner, third, DKV_MSG_FETCH, true);
    const answer *a = get(owner, KEY, DKV_LEVEL_ONE);
    advance(35);
    CHECK(a->times == 0);
    advance(5);
    CHECK(a->err == DKV_ERR_NOT_FOUND);
    teardown();
}

/* P2: an owner known to be dead costs no time at all. */
static void get_passes_over_a_dead_owner(void) {
    setup_replicas();
    plant(third, KEY, "v", 5);
    kill(owner);
    const answer *a = get(second, KEY, DKV_LEVEL_ONE);
    CHECK(a->err == DKV_OK && strcmp(a->value, "v") == 0);
    teardown();
}

/* P3: as long as one member has never been met, no store may say that a key does not exist; what is
 * there is found all the same. */
static void absence_needs_in_sync_word(void) {
    setup_without(3, 3, 4);
    advance(1000);
    CHECK(get(0, KEY, DKV_LEVEL_ONE)->err == DKV_ERR_UNAVAILABLE);
    plant(1, KEY, "v", 5);
    CHECK(get(0, KEY, DKV_LEVEL_ONE)->err == DKV_OK);
    start(2);
    advance(2000);
    CHECK(get(0, "nothing", DKV_LEVEL_ONE)->err == DKV_ERR_NOT_FOUND);
    teardown();
}

/* P3: answers of a store that may have lost records do not count towards a level, even where one
 * answer is all that the level asks for. */
static void answers_out_of_sync_count_for_no_level(void) {
    setup_without(2, 1, 2);
    char key[] = "a";
    while (place(key, 0) != 0) key[0]++;
    plant(0, key, "v", 5);
    CHECK(get(0, key, DKV_LEVEL_ONE)->err == DKV_OK);
    CHECK(get(0, key, DKV_LEVEL_ALL)->err == DKV_ERR_UNAVAILABLE);
    CHECK(get(0, key, DKV_LEVEL_QUORUM)->err == DKV_ERR_UNAVAILABLE);
    teardown();
}

/* At "quorum" two answers decide, whichever two, and the newer of them wins. */
static void quorum_read_returns_newest(void) {
    setup_replicas();
    plant(owner, KEY, "old", 5);
    plant(second, KEY, "new", 9);
    plant(third, KEY, "old", 5);
    park(second, owner, DKV_MSG_FETCH_REPLY, true);
    park(third, owner, DKV_MSG_FETCH_REPLY, true);
    const answer *a = get(owner, KEY, DKV_LEVEL_QUORUM);
    CHECK(a->times == 0 && parked[0].link->acceptor == (second < third ? second : third));
    park(second, owner, DKV_MSG_FETCH_REPLY, false);
    release_parked();
    CHECK(a->err == DKV_OK && a->times == 1);
    a = get(owner, KEY, DKV_LEVEL_QUORUM);
    CHECK(strcmp(a->value, "new") == 0 && a->version.hlc == 9 && a->holding & bit(second));
    CHECK(strcmp(get(third, KEY, DKV_LEVEL_ALL)->value, "new") == 0);
    teardown();
}

/* A read at "quorum" answers with a record only when a quorum holds it: what it has returned no
 * later one takes back, whichever replica is lost. */
static void quorum_read_is_not_taken_back(void) {
    for (int tombstone = 0; tombstone < 2; tombstone++) {
        setup_replicas();
        plant(owner, KEY, "old", 5);
        plant(second, KEY, "old", 5);
        plant(third, KEY, tombstone ? NULL : "new", 9);
        kill(second);
        park(owner, third, DKV_MSG_LIST, true); /* nothing heals by itself */
        const answer *a = get(owner, KEY, DKV_LEVEL_QUORUM);
        CHECK(a->err == (tombstone ? DKV_ERR_NOT_FOUND : DKV_OK) && holds(owner, KEY));
        CHECK(tombstone || (a->version.hlc == 9 && a->holding == (bit(owner) | bit(third))));
        kill(third);
        start(second);
        ADVANCE_UNTIL((a = get(owner, KEY, DKV_LEVEL_QUORUM))->err != DKV_ERR_UNAVAILABLE);
        CHECK(a->err == (tombstone ? DKV_ERR_NOT_FOUND : DKV_OK));
        CHECK(tombstone || strcmp(a->value, "new") == 0);
        teardown();
    }
}

/* One replica sends the value, the others their versions; the value comes from another one if that
 * is newer. */
static void quorum_read_moves_one_value(void) {
    setup_replicas();
    for (int i = 0; i < 3; i++) plant(i, KEY, "v", 5);
    CHECK(strcmp(get(owner, KEY, DKV_LEVEL_ALL)->value, "v") == 0);
    CHECK(delivered[second][DKV_MSG_FETCH] == 1 && delivered[third][DKV_MSG_FETCH] == 1);
    memset(delivered, 0, sizeof delivered);
    plant(third, KEY, "new", 9);
    park(owner, third, DKV_MSG_LIST, true);
    CHECK(strcmp(get(owner, KEY, DKV_LEVEL_ALL)->value, "new") == 0);
    CHECK(delivered[third][DKV_MSG_FETCH] == 2 && delivered[second][DKV_MSG_APPLY] == 1);
    teardown();
}

/* At "quorum" one answer and a deadline are an error, not a value. */
static void quorum_read_never_settles_for_less(void) {
    setup_replicas();
    plant(owner, KEY, "v", 5);
    park_all_to(second, DKV_MSG_FETCH, true);
    park_all_to(third, DKV_MSG_FETCH, true);
    const answer *a = get(owner, KEY, DKV_LEVEL_QUORUM);
    advance(DKV_TIMEOUT_DEFAULT_MS);
    CHECK(a->err == DKV_ERR_DEADLINE && a->times == 1);
    kill(second);
    kill(third);
    settle();
    CHECK(get(owner, KEY, DKV_LEVEL_QUORUM)->err == DKV_ERR_UNAVAILABLE);
    CHECK(get(owner, KEY, DKV_LEVEL_ONE)->err == DKV_OK);
    teardown();
}

/* A deletion hides an older value, in whichever order the two come in. */
static void tombstone_hides_older_value(void) {
    setup_replicas();
    for (int late = 0; late < 2; late++) {
        const char *key = late ? "a" : "b";
        plant(place(key, 1), key, NULL, 9);
        plant(place(key, 2), key, "v", 5);
        int slow = place(key, late ? 1 : 2), asker = place(key, 0);
        park(slow, asker, DKV_MSG_FETCH_REPLY, true);
        const answer *a = get(asker, key, DKV_LEVEL_ALL);
        CHECK(a->times == 0);
        park(slow, asker, DKV_MSG_FETCH_REPLY, false);
        release_parked();
        CHECK(a->err == DKV_ERR_NOT_FOUND);
    }
    plant(second, KEY, NULL, 9);
    CHECK(get(owner, KEY, DKV_LEVEL_ONE)->err == DKV_ERR_NOT_FOUND);
    teardown();
}

/* ---- forwarding ---- */

/* Five nodes, and one of them that holds no replica of KEY. */
static int setup_outsider(void) {
    setup(5, 3);
    find_replicas();
    for (int i = 0;; i++) {
        if (i != owner && i != second && i != third) return i;
    }
}

/* A node without a replica passes a write on, and its outcome back, whatever it is. */
static void forwarded_write_relays_outcome(void) {
    int outsider = setup_outsider();
    const answer *a = put(outsider, KEY, "v", DKV_LEVEL_ALL);
    CHECK(a->outcome == DKV_OUTCOME_APPLIED && a->version.hlc > 0);
    CHECK(a->holding == (bit(owner) | bit(second) | bit(third)) && !holds(outsider, KEY));
    park(owner, third, DKV_MSG_APPLY, true);
    a = put(outsider, KEY, "w", DKV_LEVEL_ALL);
    kill(third);
    CHECK(a->outcome == DKV_OUTCOME_UNKNOWN && a->missing == bit(third));
    a = put(outsider, KEY, "x", DKV_LEVEL_ALL);
    CHECK(a->outcome == DKV_OUTCOME_NOT_APPLIED && a->missing == bit(third));
    teardown();
}

/* A coordinator that dies with the write leaves it unknown; the next replica takes the next one. */
static void forwarded_write_is_unknown_when_its_coordinator_dies(void) {
    int outsider = setup_outsider();
    park(outsider, owner, DKV_MSG_FORWARD, true);
    const answer *a = put(outsider, KEY, "v", DKV_LEVEL_QUORUM);
    CHECK(a->times == 0);
    kill(owner);
    CHECK(a->err == DKV_ERR_UNAVAILABLE && a->outcome == DKV_OUTCOME_UNKNOWN);
    a = put(outsider, KEY, "v", DKV_LEVEL_QUORUM);
    CHECK(a->outcome == DKV_OUTCOME_APPLIED && a->holding == (bit(second) | bit(third)));
    teardown();
}

/* A write that was forwarded once is not forwarded again. */
static void forward_loop_is_refused(void) {
    int outsider = setup_outsider();
    park(outsider, owner, DKV_MSG_FORWARD_REPLY, true);
    dkv_message message = {.kind = DKV_MSG_FORWARD, .id = 7};
    message.forward = (dkv_request){.op = DKV_OP_PUT, .key = dkv_slice_of(KEY)};
    say_request(owner, outsider, &message);
    CHECK(n_parked == 1 && parked[0].id == 7 && !holds(owner, KEY) && !holds(outsider, KEY));
    teardown();
}

/* P4: what is no outcome of a write is not passed on as one. */
static void reply_without_an_outcome_is_unknown(void) {
    int outsider = setup_outsider();
    for (int err = 0; err >= DKV_ERR_INVALID; err--) {
        park(outsider, owner, DKV_MSG_FORWARD, true);
        const answer *a = put(outsider, KEY, "v", DKV_LEVEL_ALL);
        dkv_message reply = {.kind = DKV_MSG_FORWARD_REPLY, .id = parked[0].id};
        reply.forward_reply.err = err;
        reply.forward_reply.outcome = err == DKV_ERR_INVALID ? DKV_OUTCOME_APPLIED : 0;
        say_reply(owner, outsider, &reply);
        CHECK(a->err && a->outcome == DKV_OUTCOME_UNKNOWN);
        lose_parked();
    }
    teardown();
}

static const check_test tests[] = {
    CHECK_TEST(put_is_confirmed_after_all_synced),
    CHECK_TEST(quorum_put_needs_two_of_three),
    CHECK_TEST(dead_replica_refuses_before_writing),
    CHECK_TEST(refused_read_names_who_is_missing),
    CHECK_TEST(half_way_failure_is_unknown),
    CHECK_TEST(late_confirmation_after_reply_is_ignored),
    CHECK_TEST(foreign_replies_confirm_nothing),
    CHECK_TEST(full_replica_refuses_and_recovers),
    CHECK_TEST(nearly_full_replica_takes_deletions),
    CHECK_TEST(full_replica_refuses_after_reconnecting),
    CHECK_TEST(full_replica_is_asked_again_soon),
    CHECK_TEST(miss_asks_all_others),
    CHECK_TEST(get_fails_over_after_attempt_ms),
    CHECK_TEST(miss_costs_one_attempt_at_most),
    CHECK_TEST(get_passes_over_a_dead_owner),
    CHECK_TEST(absence_needs_in_sync_word),
    CHECK_TEST(answers_out_of_sync_count_for_no_level),
    CHECK_TEST(quorum_read_returns_newest),
    CHECK_TEST(quorum_read_is_not_taken_back),
    CHECK_TEST(quorum_read_moves_one_value),
    CHECK_TEST(quorum_read_never_settles_for_less),
    CHECK_TEST(tombstone_hides_older_value),
    CHECK_TEST(forwarded_write_relays_outcome),
    CHECK_TEST(forwarded_write_is_unknown_when_its_coordinator_dies),
    CHECK_TEST(forward_loop_is_refused),
    CHECK_TEST(reply_without_an_outcome_is_unknown),
};

CHECK_MAIN(tests)
