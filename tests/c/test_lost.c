/* Nodes whose store the operator has declared lost (member/trust.h, rules 7 and 8), in clusters of
 * whole nodes. */
#include "replica_world.h"

static const dkv_trust *trust_of(int i) {
    return dkv_node_trust(nodes[i].node);
}

static bool in_sync(int i) {
    return dkv_trust_in_sync(trust_of(i));
}

static bool all_in_sync(void) {
    for (int i = 0; i < n_nodes; i++) {
        if (nodes[i].node && !in_sync(i)) return false;
    }
    return true;
}

/* Says to node `i` that the node `id` is lost, as often as it says that it is busy finding out.
 * Returns its answer. */
static int declare_lost(int i, const char *id) {
    for (;;) {
        CHECK(n_asked + 1 < ANSWERS_MAX);
        const answer *a = &answers[++n_asked];
        step(i, (dkv_event){.kind = DKV_EVENT_DECLARE_LOST,
                            .declare_lost = {n_asked, dkv_slice_of(id)}});
        ADVANCE_UNTIL(a->times == 1);
        if (a->err != DKV_ERR_BUSY) return a->err;
    }
}

/* Three nodes with some keys, of which n2 is gone and n3 has lost its disk. */
static void lose_two_of_three(void) {
    setup(3, 3);
    ADVANCE_UNTIL(all_in_sync());
    CHECK(put(0, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    kill(1);
    kill(2);
    wipe(2);
    start(2);
    ADVANCE_UNTIL(holds(2, KEY));
    advance(3000);
    CHECK(!in_sync(2));
}

/* A replaced store that has been compared with all others but the lost one is believed from the
 * declaration on, also after a restart. */
static void lost_replica_is_not_waited_for(void) {
    lose_two_of_three();
    kill(0);
    advance(10);
    CHECK(get(2, "absent", DKV_LEVEL_ONE)->err == DKV_ERR_UNAVAILABLE);
    CHECK(declare_lost(2, "n2") == DKV_OK);
    CHECK(in_sync(2));
    CHECK(get(2, "absent", DKV_LEVEL_ONE)->err == DKV_ERR_NOT_FOUND);
    kill(2);
    start(2);
    CHECK(in_sync(2) && trust_of(2)->lost_ms[1]);
    teardown();
}

/* The third node is there alone, with an empty disk. */
static void leave_the_third_alone(void) {
    lose_two_of_three();
    kill(0);
    kill(2);
    wipe(2);
    start(2);
    advance(10);
}

/* ... and one that has still to be compared with others is not believed before that. */
static void others_are_waited_for(void) {
    leave_the_third_alone();
    CHECK(declare_lost(2, "n2") == DKV_OK);
    advance(3000);
    CHECK(!in_sync(2));
    kill(2);
    start(2); /* the declaration is on its disk */
    CHECK(!in_sync(2));
    start(0);
    ADVANCE_UNTIL(in_sync(2));
    CHECK(holds(2, KEY));
    teardown();
}

/* The last node that is left is believed when all others were declared lost. */
static void last_node_is_believed(void) {
    leave_the_third_alone();
    CHECK(declare_lost(2, "n1") == DKV_OK && !in_sync(2));
    CHECK(declare_lost(2, "n2") == DKV_OK && in_sync(2));
    CHECK(get(2, KEY, DKV_LEVEL_ONE)->err == DKV_ERR_NOT_FOUND);
    teardown();
}

/* The very store that was declared lost comes back: it is not believed until it has been compared,
 * what it alone held ends on all replicas, and then nobody holds it for lost any more. */
static void store_that_comes_back_is_merged(void) {
    setup(3, 3);
    ADVANCE_UNTIL(all_in_sync());
    kill(0);
    kill(2);
    advance(10);
    CHECK(put(1, KEY, "alone", DKV_LEVEL_ONE)->outcome == DKV_OUTCOME_APPLIED);
    kill(1);
    wipe(2);
    start(0);
    start(2);
    advance(10);
    CHECK(declare_lost(0, "n2") == DKV_OK && declare_lost(2, "n2") == DKV_OK);
    ADVANCE_UNTIL(in_sync(2));
    CHECK(get(2, KEY, DKV_LEVEL_ONE)->err == DKV_ERR_NOT_FOUND);
    park(1, 0, DKV_MSG_SUMS, true);
    start(1);
    ADVANCE_UNTIL(!in_sync(1));
    advance(1000);
    CHECK(!in_sync(1));
    release_parked();
    park(1, 0, DKV_MSG_SUMS, false);
    ADVANCE_UNTIL(all_in_sync() && holds(0, KEY) && holds(2, KEY));
    ADVANCE_UNTIL(!trust_of(0)->lost_ms[1] && !trust_of(2)->lost_ms[1]);
    kill(1);
    start(1);
    CHECK(in_sync(1));
    advance(3000);
    CHECK(in_sync(1)); /* told once is enough */
    teardown();
}

/* A lost node that comes back empty is a replaced one: filled, and believed when it is compared. */
static void empty_store_in_its_place_is_filled(void) {
    lose_two_of_three();
    CHECK(declare_lost(0, "n2") == DKV_OK && declare_lost(2, "n2") == DKV_OK);
    wipe(1);
    start(1);
    CHECK(!in_sync(1));
    ADVANCE_UNTIL(all_in_sync());
    CHECK(holds(1, KEY));
    advance(1000);
    CHECK(put(1, KEY, "new", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    ADVANCE_UNTIL(!trust_of(0)->lost_ms[1] && !trust_of(2)->lost_ms[1]); /* greeted once more */
    teardown();
}

/* A node that can be reached is not lost, nor is the node that is asked, nor one that does not
 * exist; such words change nothing. */
static void what_is_not_lost_is_refused(void) {
    setup(3, 3);
    ADVANCE_UNTIL(all_in_sync());
    CHECK(put(0, KEY, "v", DKV_LEVEL_ALL)->outcome == DKV_OUTCOME_APPLIED);
    uint64_t changes = trust_of(0)->changes;
    CHECK(declare_lost(0, "n2") == DKV_ERR_PRECONDITION &&
          strstr(last_detail, "n2 can be reached"));
    CHECK(declare_lost(0, "n1") == DKV_ERR_PRECONDITION && strstr(last_detail, "itself"));
    CHECK(declare_lost(0, "n9") == DKV_ERR_INVALID && strstr(last_detail, "n9 is not in"));
    CHECK(declare_lost(0, "") == DKV_ERR_INVALID);
    CHECK(trust_of(0)->changes == changes);
    teardown();
}

static const check_test tests[] = {
    CHECK_TEST(lost_replica_is_not_waited_for),
    CHECK_TEST(others_are_waited_for),
    CHECK_TEST(last_node_is_believed),
    CHECK_TEST(store_that_comes_back_is_merged),
    CHECK_TEST(empty_store_in_its_place_is_filled),
    CHECK_TEST(what_is_not_lost_is_refused),
};
CHECK_MAIN(tests)
