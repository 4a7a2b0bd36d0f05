/* Healing (csrc/replica/heal.h) in clusters of whole nodes: whatever made replicas differ, they
 * become identical without being read. */
#include "replica_world.h"

#include <stdlib.h>

#include "base/rand.h"
#include "replica/heal.h"

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
    CHECK(status_of(2).heal.fetched == held); /* each record once, though two others hold it */
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
    CHECK(dkv_sim_disk_flip_any(nodes[owner].disk) == DKV_OK);
    start(owner);
    ADVANCE_UNTIL(is_at_peace());
    for (unsigned i = 0; i < 50; i++) get(owner, numbered(i), DKV_LEVEL_ALL);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && status_of(owner).store.records == 50);
    teardown();
}

/* Bits that flip at rest are found by the scrub of the node itself, and what is lost by them is
 * fetched from another replica, with no read by any client. */
static void rotten_record_is_fetched_unasked(void) {
    scrub_interval_ms = 240;
    setup_replicas();
    scrub_interval_ms = 0;
    ADVANCE_UNTIL(is_at_peace());
    put_numbered(0, 50, "some value", DKV_LEVEL_ALL);
    uint64_t gets = status_of(owner).gets;
    ADVANCE_UNTIL(status_of(owner).scrub_ms > 0);
    while (status_of(owner).store.damaged_records == 0) {
        CHECK(dkv_sim_disk_flip_any(nodes[owner].disk) == DKV_OK);
        uint64_t passes = status_of(owner).store.scrub_passes;
        ADVANCE_UNTIL(status_of(owner).store.scrub_passes >= passes + 2);
    }
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && status_of(owner).store.records == 50);
    CHECK(status_of(owner).in_sync && status_of(owner).gets == gets);
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

/* ---- peers that answer badly ---- */

#define STRAY "stray"

/* Two replicas of which one has the record STRAY. The asker begins to compare all of its shares,
 * and questions of this kind do not arrive. */
enum { ASKER, PEER };

static void setup_stray(int holder, dkv_message_kind kind) {
    setup(2, 2);
    ADVANCE_UNTIL(is_at_peace());
    plant(holder, STRAY, "v", 5);
    park(ASKER, PEER, kind, true);
    kill(ASKER);
    start(ASKER);
    ADVANCE_UNTIL(n_parked > 0);
}

typedef enum lie {
    SUMS_TOO_FEW,
    SUMS_OTHER_KIND,
    LIST_OTHER_KIND,
    LIST_BEFORE_RANGE,
    LIST_BEHIND_RANGE,
    RECORD_OF_OTHER_KEY,
    RECORD_DAMAGED,
    RECORD_GONE,
    LIES,
} lie;

static dkv_message_kind asked_for(lie what) {
    if (what <= SUMS_OTHER_KIND) return DKV_MSG_SUMS;
    return what <= LIST_BEHIND_RANGE ? DKV_MSG_LIST : DKV_MSG_FETCH;
}

/* What the peer answers. */
static void tell(lie what, const dkv_message *asked) {
    dkv_message m = {.id = asked->id};
    uint64_t number = 1, token = 0, origin = 7;
    uint32_t size = 64;
    switch (what) {
    case SUMS_TOO_FEW:
    case LIST_OTHER_KIND:
        m.kind = DKV_MSG_SUMS_REPLY;
        m.sums_reply = (dkv_sums){1, &number, &number};
        break;
    case SUMS_OTHER_KIND: m.kind = DKV_MSG_LIST_REPLY; break;
    case LIST_BEFORE_RANGE:
    case LIST_BEHIND_RANGE:
        token = what == LIST_BEFORE_RANGE ? asked->list.from.token - 1 : asked->list.last + 1;
        m.kind = DKV_MSG_LIST_REPLY;
        m.list_reply = (dkv_list){1, true, &token, &number, &number, &origin, &size};
        break;
    default:
        m.kind = DKV_MSG_FETCH_REPLY;
        m.fetch_reply.record =
            (dkv_record){dkv_slice_of("other"), dkv_slice_of("v"), {5, 7}, DKV_KIND_VALUE};
        if (what == RECORD_DAMAGED) m.fetch_reply.err = DKV_ERR_DATA_LOSS;
        if (what == RECORD_GONE) m.fetch_reply.err = DKV_ERR_NOT_FOUND;
        break;
    }
    say_reply(PEER, ASKER, &m);
}

/* Whatever a peer answers, nothing is stored but what was asked for, and what was not compared
 * stays dirty until the peer answers well. */
static void bad_answers_do_no_harm(void) {
    for (lie what = 0; what < LIES; what++) {
        dkv_message asked;
        setup_stray(PEER, asked_for(what));
        CHECK(take_parked(asked_for(what), &asked));
        tell(what, &asked);
        CHECK(!holds(ASKER, STRAY) && !holds(ASKER, "other"));
        park(ASKER, PEER, asked_for(what), false);
        release_parked();
        CHECK(status_of(ASKER).heal.sessions == 0 && status_of(ASKER).heal.dirty > 0);
        ADVANCE_UNTIL(is_at_peace());
        CHECK(is_converged() && holds(ASKER, STRAY) && status_of(ASKER).store.records == 1);
        teardown();
    }
}

static void answer_apply(const dkv_message *asked, int err) {
    say_reply(PEER, ASKER,
              &(dkv_message){.kind = DKV_MSG_APPLY_REPLY, .id = asked->id, .apply_reply.err = err});
}

/* A peer that is busy is given a pause within the session, one that is full a longer one; both get
 * the record afterwards. */
static void busy_and_full_peers_get_it_later(void) {
    dkv_message asked;
    setup_stray(ASKER, DKV_MSG_APPLY);
    CHECK(take_parked(DKV_MSG_APPLY, &asked));
    answer_apply(&asked, DKV_ERR_BUSY);
    CHECK(n_parked == 0 && status_of(ASKER).heal.sessions == 1);
    advance(100);
    CHECK(take_parked(DKV_MSG_APPLY, &asked)); /* again, in the same session */
    answer_apply(&asked, DKV_ERR_NO_SPACE);
    CHECK(status_of(ASKER).heal.sessions == 0 && status_of(ASKER).heal.dirty > 0);
    advance(DKV_HEAL_RETRY_MS / 2);
    CHECK(n_parked == 0);
    park(ASKER, PEER, DKV_MSG_APPLY, false);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && holds(PEER, STRAY));
    teardown();
}

/* A session whose peer is alive and answers no questions is given up, and begun again later. */
static void session_without_answers_is_given_up(void) {
    setup_stray(PEER, DKV_MSG_SUMS);
    advance(DKV_HEAL_STALL_MS - 1000);
    CHECK(status_of(ASKER).heal.sessions == 1);
    int asked = n_parked;
    advance(1500);
    CHECK(status_of(ASKER).heal.sessions == 0 && n_parked == asked);
    advance(DKV_HEAL_RETRY_MS);
    CHECK(status_of(ASKER).heal.sessions == 1 && n_parked == 2 * asked);
    lose_parked();
    park(ASKER, PEER, DKV_MSG_SUMS, false);
    for (unsigned ms = 0; ms < DKV_HEAL_STALL_MS; ms += 1000) advance(1000);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && holds(ASKER, STRAY));
    teardown();
}

/* ---- how much is moved ---- */

enum { LARGE_BYTES = 1 << 20, N_LARGE = 11 };

static void plant_large(int holder) {
    char *value = malloc(LARGE_BYTES + 1);
    CHECK(value);
    memset(value, 'v', LARGE_BYTES);
    value[LARGE_BYTES] = 0;
    for (unsigned i = 0; i < N_LARGE; i++) plant(holder, numbered(i), value, 5);
    free(value);
}

/* No more bytes of records are under way than DKV_HEAL_BYTES_MAX, in either direction. */
static void large_records_keep_to_the_window(void) {
    for (int fetches = 0; fetches < 2; fetches++) {
        dkv_message_kind kind = fetches ? DKV_MSG_FETCH : DKV_MSG_APPLY;
        int most = 0;
        setup(2, 2);
        ADVANCE_UNTIL(is_at_peace());
        plant_large(fetches ? 1 : 0);
        park(0, 1, kind, true);
        kill(0);
        start(0);
        for (int rounds = 0; rounds < 40; rounds++) {
            advance(100);
            CHECK((uint64_t)n_parked * LARGE_BYTES <= DKV_HEAL_BYTES_MAX);
            if (n_parked > most) most = n_parked;
            release_parked();
        }
        CHECK(most >= 2); /* and it is made use of */
        CHECK(is_at_peace() && is_converged() && status_of(0).store.records == N_LARGE);
        CHECK(status_of(1).store.records == N_LARGE);
        teardown();
    }
}

static uint64_t healing_bytes(void) {
    static const dkv_message_kind kinds[] = {
        DKV_MSG_SUMS,  DKV_MSG_SUMS_REPLY,  DKV_MSG_LIST,  DKV_MSG_LIST_REPLY,
        DKV_MSG_FETCH, DKV_MSG_FETCH_REPLY, DKV_MSG_APPLY, DKV_MSG_APPLY_REPLY};
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) bytes += delivered_bytes[kinds[i]];
    return bytes;
}

/* Bytes between two nodes when the first one starts again and compares everything. */
static uint64_t bytes_of_a_start(void) {
    kill(0);
    start(0);
    memset(delivered_bytes, 0, sizeof delivered_bytes);
    advance(1000);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged());
    return healing_bytes();
}

/* Where one key in a thousand differs, 600 bytes each, and the record, are enough, besides what it
 * takes to see that nothing differs. */
static void few_bytes_for_each_differing_key(void) {
    enum { KEYS = 20000, EVERY = 1000, DIFFER = KEYS / EVERY };
    setup(2, 2);
    ADVANCE_UNTIL(is_at_peace());
    for (unsigned i = 0; i < KEYS; i++) {
        plant(0, numbered(i), "v", 5);
        plant(1, numbered(i), "v", 5);
    }
    uint64_t equal = bytes_of_a_start();
    CHECK(equal > 0 && equal <= 64 * dkv_ring_intervals(ring));
    for (unsigned i = 0; i < KEYS; i += EVERY) plant((int)(i / EVERY) % 2, numbered(i), "w", 6);
    uint64_t differing = bytes_of_a_start();
    CHECK(status_of(0).heal.fetched == DIFFER / 2 && status_of(0).heal.sent == DIFFER / 2);
    CHECK(differing > equal && differing - equal <= DIFFER * 600u);
    teardown();
}

/* When all start again and none knows what the others lack, a record is moved once to who lacks it,
 * though two others have it and compare as well. */
static void record_that_is_fetched_is_not_sent(void) {
    enum { KEYS = 2000, EVERY = 20, DIFFER = KEYS / EVERY };
    setup(3, 3);
    ADVANCE_UNTIL(is_at_peace());
    for (unsigned i = 0; i < KEYS; i++) {
        for (int n = 0; n < (i % EVERY ? 3 : 2); n++) plant(n, numbered(i), "v", 5);
    }
    advance(100);                         /* until it is on disk */
    for (int n = 2; n >= 0; n--) kill(n); /* those that go last are equal */
    for (int n = 0; n < 3; n++) start(n);
    advance(1000);
    ADVANCE_UNTIL(is_at_peace());
    CHECK(is_converged() && status_of(2).heal.fetched == DIFFER);
    CHECK(status_of(0).heal.sent + status_of(1).heal.sent <= DIFFER / 10);
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
    CHECK_TEST(rotten_record_is_fetched_unasked),
    CHECK_TEST(random_divergence_heals),
    CHECK_TEST(equal_stores_move_nothing),
    CHECK_TEST(stop_ends_healing),
    CHECK_TEST(bad_answers_do_no_harm),
    CHECK_TEST(busy_and_full_peers_get_it_later),
    CHECK_TEST(session_without_answers_is_given_up),
    CHECK_TEST(large_records_keep_to_the_window),
    CHECK_TEST(few_bytes_for_each_differing_key),
    CHECK_TEST(record_that_is_fetched_is_not_sent),
};

CHECK_MAIN(tests)
