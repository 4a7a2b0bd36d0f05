/* Healing (csrc/replica/heal.h) in clusters of whole nodes: whatever made replicas differ, they
 * become identical without being read. */
#include "replica_world.h"

#include "base/rand.h"

static dkv_node_status status_of(int i) {
    dkv_node_status status;
    dkv_node_status_get(nodes[i].node, &status);
    return status;
}

/* True if all replicas of each interval of the ring hold the same records. */
static bool is_converged(void) {
    uint32_t n = dkv_ring_intervals(ring);
    for (uint32_t i = 0; i < n; i++) {
        const uint16_t *list = dkv_ring_list(ring, i);
        uint64_t last = dkv_ring_end(ring, i), first = dkv_ring_end(ring, i ? i - 1 : n - 1) + 1;
        dkv_store_range sums[2] = {0};
        for (unsigned k = 0; k < dkv_ring_replication(ring); k++) {
            if (!nodes[list[k]].node) continue;
            dkv_store *store = dkv_node_store(nodes[list[k]].node);
            dkv_store_range parts[2] = {
                dkv_store_digest(store, first, first <= last ? last : UINT64_MAX)};
            if (first > last) parts[1] = dkv_store_digest(store, 0, last);
            if (k > 0 && memcmp(parts, sums, sizeof sums)) return false;
            memcpy(sums, parts, sizeof sums);
        }
    }
    return true;
}

static bool is_at_peace(void) {
    for (int i = 0; i < n_nodes; i++) {
        if (!nodes[i].node) continue;
        dkv_node_status status = status_of(i);
        if (status.heal.dirty || status.heal.hints || !status.in_sync) return false;
    }
    return true;
}

static const char *numbered(unsigned number) {
    static char text[16];
    snprintf(text, sizeof text, "key%u", number);
    return text;
}

static void put_numbered(unsigned from, unsigned upto, const char *value, dkv_level level) {
    for (unsigned i = from; i < upto; i++) {
        const char *key = numbered(i);
        int alive = place(key, 0);
        if (!nodes[alive].node) alive = place(key, 1);
        CHECK(put(alive, key, value, level)->outcome == DKV_OUTCOME_APPLIED);
    }
}

/* A write that a dead replica missed is there as soon as it is back: one hint, one record sent,
 * nothing else compared. */
static void missed_write_is_handed_off(void) {
    setup_replicas();
    ADVANCE_UNTIL(is_at_peace());
    kill(third);
    advance(5);
    CHECK(put(owner, KEY, "v", DKV_LEVEL_QUORUM)->outcome == DKV_OUTCOME_APPLIED);
    CHECK(status_of(owner).heal.hints == 1);
    start(third);
    ADVANCE_UNTIL(holds(third, KEY) && is_at_peace());
    CHECK(is_converged() && status_of(owner).heal.hints == 0);
    teardown();
}

/* A write whose outcome was unknown to its client ends on all replicas. */
static void unknown_write_ends_on_all(void) {
    setup_replicas();
    ADVANCE_UNTIL(is_at_peace());
    park_all_to(third, DKV_MSG_APPLY, true);
    const answer *a = put(owner, KEY, "v", DKV_LEVEL_ALL);
    ADVANCE_UNTIL(a->times == 1);
    CHECK(a->outcome == DKV_OUTCOME_UNKNOWN && !holds(third, KEY));
    lose_parked();
    park_all_to(third, DKV_MSG_APPLY, false);
    break_links(third); /* what a link loses it loses by breaking */
    ADVANCE_UNTIL(holds(third, KEY) && is_at_peace());
    CHECK(is_converged());
    teardown();
}

/* ... also when the coordinator died with what it knew, and stays dead. */
static void half_done_write_of_dead_coordinator_ends_on_all(void) {
    setup_replicas();
    ADVANCE_UNTIL(is_at_peace());
    park_all_to(third, DKV_MSG_APPLY, true);
    put(owner, KEY, "v", DKV_LEVEL_ALL);
    CHECK(holds(second, KEY) && !holds(third, KEY));
    kill(owner);
    park_all_to(third, DKV_MSG_APPLY, false);
    ADVANCE_UNTIL(holds(third, KEY));
    teardown();
}

/* A replaced disk is filled again from the other replicas, without a read; until then the node is
 * not believed about absence, afterwards it is. */
static void replaced_disk_is_filled_again(void) {
    setup(5, 3);
    ADVANCE_UNTIL(is_at_peace());
    put_numbered(0, 300, "v", DKV_LEVEL_ALL);
    unsigned held = (unsigned)status_of(2).store.records;
    kill(2);
    wipe(2);
    start(2);
    CHECK(!status_of(2).in_sync && status_of(2).heal.round_ns == 0);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && status_of(2).store.records == held && status_of(2).in_sync);
    CHECK(status_of(2).heal.round_ns > 0);
    kill(2);
    start(2);
    CHECK(status_of(2).in_sync); /* it is remembered on disk */
    teardown();
}

/* Without one of the other replicas a replaced disk is filled, but not believed: that replica may
 * know of more. */
static void absent_replica_keeps_replaced_disk_out_of_sync(void) {
    setup(3, 3);
    ADVANCE_UNTIL(is_at_peace());
    put_numbered(0, 20, "v", DKV_LEVEL_ALL);
    kill(1);
    kill(2);
    wipe(2);
    start(2);
    advance(3000);
    CHECK(status_of(2).store.records == 20 && !status_of(2).in_sync);
    start(1);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(status_of(2).in_sync);
    teardown();
}

/* More hints than may wait become dirty shares, and nothing is forgotten. */
static void too_many_hints_become_dirty_shares(void) {
    setup_replicas();
    hints_max = 8;
    for (int i = 0; i < 3; i++) {
        kill(i);
        start(i);
    }
    ADVANCE_UNTIL(is_at_peace());
    kill(2);
    advance(5);
    ADVANCE_UNTIL(status_of(0).heal.dirty == 0 && status_of(1).heal.dirty == 0);
    put_numbered(0, 100, "v", DKV_LEVEL_QUORUM);
    CHECK(status_of(0).heal.hints <= 8 && status_of(1).heal.hints <= 8);
    CHECK(status_of(0).heal.dirty + status_of(1).heal.dirty > 50);
    start(2);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && status_of(2).store.records == 100);
    teardown();
}

/* A record that is lost to damage is fetched from another replica, and the node is believed again
 * afterwards. */
static void damaged_record_is_fetched(void) {
    setup_replicas();
    ADVANCE_UNTIL(is_at_peace());
    put_numbered(0, 50, "some value", DKV_LEVEL_ALL);
    kill(owner);
    CHECK(dkv_sim_disk_flip_any(nodes[owner].disk, NULL) == DKV_OK);
    start(owner);
    ADVANCE_UNTIL(is_at_peace());
    for (unsigned i = 0; i < 50; i++) get(owner, numbered(i), DKV_LEVEL_ALL);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && status_of(owner).store.records == 50);
    teardown();
}

/* Random records behind the replicas' backs, older and newer, values and deletions: the newest of
 * each key is everywhere afterwards, and what moved is what differed. */
static void random_divergence_heals(void) {
    for (uint64_t run = 0; run < check_runs / 10 + 1; run++) {
        dkv_rand rand = {check_seed + run};
        int count = 2 + (int)dkv_rand_below(&rand, 4);
        setup(count, (uint8_t)(1 + dkv_rand_below(&rand, (uint64_t)count)));
        ADVANCE_UNTIL(is_at_peace());
        unsigned keys = 1 + (unsigned)dkv_rand_below(&rand, 400), n = dkv_ring_replication(ring);
        for (unsigned i = 0; i < keys; i++) {
            dkv_hlc hlc = 1 + dkv_rand_below(&rand, 3);
            for (unsigned k = 0; k < n; k++) {
                if (dkv_rand_below(&rand, 8) == 0) continue;
                bool same = dkv_rand_below(&rand, 4) > 0;
                dkv_hlc own = same ? hlc : 1 + dkv_rand_below(&rand, 5);
                plant(place(numbered(i), (int)k), numbered(i), own % 3 ? "v" : NULL, own);
            }
        }
        for (int i = 0; i < count; i++) { /* a start compares everything */
            kill(i);
            start(i);
        }
        advance(1000);
        ADVANCE_UNTIL(is_at_peace());
        CHECK(is_converged());
        for (int i = 0; i < count; i++) CHECK(status_of(i).store.records <= keys);
        teardown();
    }
}

/* Where nothing differs nothing moves, and no record is listed. */
static void equal_stores_move_nothing(void) {
    setup_replicas();
    ADVANCE_UNTIL(is_at_peace());
    put_numbered(0, 100, "v", DKV_LEVEL_ALL);
    kill(owner);
    start(owner);
    memset(delivered, 0, sizeof delivered);
    advance(1000);
    ADVANCE_UNTIL(is_at_peace());
    for (int i = 0; i < 3; i++) {
        CHECK(delivered[i][DKV_MSG_LIST] + delivered[i][DKV_MSG_FETCH] == 0);
        CHECK(delivered[i][DKV_MSG_APPLY] == 0);
    }
    CHECK(delivered[second][DKV_MSG_SUMS] + delivered[third][DKV_MSG_SUMS] > 0);
    teardown();
}

/* A node that is being stopped begins nothing more and so becomes idle, however much there is to
 * heal. */
static void stop_ends_healing(void) {
    setup(3, 3);
    ADVANCE_UNTIL(is_at_peace());
    put_numbered(0, 300, "v", DKV_LEVEL_ALL);
    kill(2);
    wipe(2);
    park_all_to(2, DKV_MSG_FETCH_REPLY, true);
    start(2);
    ADVANCE_UNTIL(n_parked > 0);
    CHECK(status_of(2).heal.sessions > 0);
    step(2, (dkv_event){.kind = DKV_EVENT_STOP});
    park_all_to(2, DKV_MSG_FETCH_REPLY, false);
    release_parked();
    CHECK(dkv_node_idle(nodes[2].node) && status_of(2).store.records < 300);
    advance(2000);
    CHECK(status_of(2).heal.sessions == 0 && status_of(2).store.records < 300);
    teardown();
}

static const check_test tests[] = {
    CHECK_TEST(missed_write_is_handed_off),
    CHECK_TEST(unknown_write_ends_on_all),
    CHECK_TEST(half_done_write_of_dead_coordinator_ends_on_all),
    CHECK_TEST(replaced_disk_is_filled_again),
    CHECK_TEST(absent_replica_keeps_replaced_disk_out_of_sync),
    CHECK_TEST(too_many_hints_become_dirty_shares),
    CHECK_TEST(damaged_record_is_fetched),
    CHECK_TEST(random_divergence_heals),
    CHECK_TEST(equal_stores_move_nothing),
    CHECK_TEST(stop_ends_healing),
};

CHECK_MAIN(tests)
