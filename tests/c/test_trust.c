/* What a store may be believed, share by share, and what it remembers of that (member/trust.h). */
#include "member/trust.h"

#include "base/err.h"
#include "check.h"
#include "ring/cluster_map.h"

enum { MEMBERS = 4, SELF = 0, STORE = 0x10000 };

static dkv_cluster_map *map;
static dkv_ring *ring;
static dkv_shares shares;
static dkv_trust trust; /* of the member SELF */
static dkv_buf facts;

static int reopen(dkv_slice from) {
    dkv_trust made;
    int err = dkv_trust_init(&made, map, &shares, SELF, STORE, from);
    if (err) return err;
    dkv_trust_free(&trust);
    trust = made;
    return DKV_OK;
}

static void setup(uint8_t replication) {
    uint32_t indices[] = {0, 1, 2, 3, 4, 5, 6, 7};
    CHECK(dkv_cluster_map_new("test", replication, &map) == DKV_OK);
    for (int i = 0; i < MEMBERS; i++) {
        char id[] = {'n', (char)('1' + i), 0};
        dkv_member member = {.id = id, .token_indices = indices, .n_token_indices = 8};
        CHECK(dkv_cluster_map_add(map, &member) == DKV_OK);
    }
    CHECK(dkv_ring_new(map, &ring) == DKV_OK);
    CHECK(dkv_shares_init(&shares, ring, SELF) == DKV_OK);
    CHECK(reopen((dkv_slice){0}) == DKV_OK);
}

static void teardown(void) {
    dkv_trust_free(&trust);
    dkv_shares_free(&shares);
    dkv_ring_del(ring);
    dkv_cluster_map_del(map);
    dkv_buf_free(&facts);
}

/* The node stops and starts again. */
static void restart(void) {
    facts.len = 0;
    CHECK(dkv_trust_encode(&trust, &facts) == DKV_OK);
    CHECK(reopen(dkv_buf_slice(&facts)) == DKV_OK);
}

static bool believes(uint32_t share) {
    bool first = dkv_trust_believes(&trust, shares.all[share].first);
    CHECK(first == dkv_trust_believes(&trust, shares.all[share].last));
    return first;
}

static void all_vouch(void) {
    for (uint16_t member = 1; member < MEMBERS; member++) dkv_trust_told(&trust, member, STORE);
}

/* A share of a new store needs the word of its own replicas and of nobody else. */
static void share_is_vouched_for_by_its_replicas(void) {
    setup(2);
    dkv_trust_told(&trust, 1, STORE);
    uint32_t count = 0;
    for (uint32_t i = 0; i < shares.n; i++) {
        CHECK(believes(i) == (dkv_share_place(&shares, i, 1) >= 0));
        count += believes(i);
    }
    CHECK(count > 0 && count < shares.n && trust.n_in_sync == count);
    CHECK(!dkv_trust_in_sync(&trust) && dkv_trust_is_new(&trust));
    all_vouch();
    CHECK(dkv_trust_in_sync(&trust) && !dkv_trust_is_new(&trust));
    teardown();
}

/* Without other replicas only all other members together can tell. */
static void lone_replica_needs_the_word_of_all(void) {
    setup(1);
    for (uint16_t member = 1; member < MEMBERS; member++) {
        CHECK(trust.n_in_sync == 0 && dkv_trust_awaits(&trust, member));
        dkv_trust_told(&trust, member, STORE);
        CHECK(!dkv_trust_awaits(&trust, member));
    }
    CHECK(dkv_trust_in_sync(&trust));
    teardown();
}

/* One replica that remembers another store is enough to keep its shares from being believed. */
static void other_store_is_not_vouched_for(void) {
    setup(3);
    all_vouch();
    CHECK(dkv_trust_in_sync(&trust) && !trust.replaced);
    CHECK(reopen((dkv_slice){0}) == DKV_OK);
    dkv_trust_told(&trust, 2, STORE + 1);
    dkv_trust_told(&trust, 1, STORE);
    dkv_trust_told(&trust, 3, STORE);
    CHECK(trust.replaced && !dkv_trust_in_sync(&trust));
    for (uint32_t i = 0; i < shares.n; i++) {
        CHECK(believes(i) == (dkv_share_place(&shares, i, 2) < 0));
    }
    teardown();
}

/* A lost record costs its share alone, until that is regained, and a restart changes nothing. */
static void lost_share_is_lost_alone(void) {
    setup(2);
    all_vouch();
    uint64_t changes = trust.changes;
    dkv_trust_lost(&trust, shares.all[1].first);
    CHECK(trust.changes > changes); /* it has to become durable */
    for (int i = 0; i < 2; i++, restart()) {
        CHECK(!believes(1) && trust.n_in_sync == shares.n - 1 && !dkv_trust_is_new(&trust));
    }
    all_vouch();
    CHECK(!believes(1)); /* nobody's word helps */
    dkv_trust_regained(&trust, 1);
    CHECK(dkv_trust_in_sync(&trust));
    restart();
    CHECK(dkv_trust_in_sync(&trust));
    teardown();
}

/* What was regained of a lost store stays so when it starts again; the rest stays lost. */
static void partly_regained_store_stays_so(void) {
    setup(3);
    all_vouch();
    dkv_trust_lost_all(&trust);
    CHECK(trust.n_in_sync == 0);
    for (uint32_t i = 0; i < shares.n; i += 2) dkv_trust_regained(&trust, i);
    restart();
    all_vouch();
    for (uint32_t i = 0; i < shares.n; i++) CHECK(believes(i) == (i % 2 == 0));
    CHECK(trust.n_in_sync == (shares.n + 1) / 2 && !dkv_trust_in_sync(&trust));
    teardown();
}

static bool waits_for(uint32_t share, uint16_t member) {
    unsigned others = 0;
    for (uint16_t i = 0; i < MEMBERS; i++) {
        int place = i == member ? -1 : dkv_share_place(&shares, share, i);
        if (place >= 0) others |= 1u << place;
    }
    return !dkv_trust_is_regained(&trust, share, others);
}

/* Facts written before members could be declared lost are read as they were. */
static void facts_without_declarations_are_read(void) {
    setup(2);
    dkv_trust_heard(&trust, 1, &(dkv_hello){.store_id = 77});
    all_vouch();
    dkv_trust_lost(&trust, shares.all[1].first);
    CHECK(dkv_trust_encode(&trust, &facts) == DKV_OK);
    facts.data[0] = 2;
    size_t lost_ms = 20 + 1 + 2 + 8; /* behind the header, "n2" and its store id */
    memmove(facts.data + lost_ms, facts.data + lost_ms + 8, facts.len - lost_ms - 8);
    CHECK(reopen((dkv_slice){facts.data, facts.len - 8}) == DKV_OK);
    CHECK(trust.remembered[1] == 77 && trust.n_in_sync == shares.n - 1 && !believes(1));
    for (uint16_t member = 0; member < MEMBERS; member++) CHECK(trust.lost_ms[member] == 0);
    teardown();
}

/* What was lost before a peer is declared lost does not wait for it, what is lost later does; a
 * restart changes nothing. */
static void declaration_settles_earlier_losses(void) {
    setup(2);
    all_vouch();
    uint16_t peer = shares.all[0].list[shares.all[0].list[0] == SELF];
    dkv_trust_lost(&trust, shares.all[0].first);
    CHECK(waits_for(0, peer));
    CHECK(dkv_trust_declare_lost(&trust, peer, 1000) == 1);
    for (int i = 0; i < 2; i++, restart()) CHECK(!waits_for(0, peer) && !believes(0));
    CHECK(dkv_trust_declare_lost(&trust, peer, 1000) == 0 && trust.lost_ms[peer] == 1001);
    uint64_t changes = trust.changes;
    dkv_trust_lost(&trust, shares.all[0].first);
    CHECK(waits_for(0, peer) && trust.changes > changes);
    teardown();
}

/* The word of a lost peer is not needed for a new store. */
static void new_store_needs_no_word_of_the_lost(void) {
    for (uint8_t replication = 1; replication <= 2; replication++) {
        setup(replication);
        dkv_trust_told(&trust, 1, STORE);
        dkv_trust_told(&trust, 2, STORE);
        CHECK(!dkv_trust_in_sync(&trust) && dkv_trust_awaits(&trust, 3));
        dkv_trust_declare_lost(&trust, 3, 1000);
        CHECK(dkv_trust_in_sync(&trust) && !dkv_trust_awaits(&trust, 3));
        teardown();
    }
}

/* That a peer is lost is forgotten when its store has heeded it, or another store in sync is there;
 * and what waits may wait for it again as soon as it is back. */
static void declaration_ends_with_the_store(void) {
    setup(2);
    dkv_hello hello = {.store_id = 77, .in_sync = true};
    dkv_trust_heard(&trust, 1, &hello);
    dkv_trust_lost_all(&trust);
    dkv_trust_declare_lost(&trust, 1, 1000);
    uint32_t share = 0;
    while (dkv_share_place(&shares, share, 1) < 0) share++;
    CHECK(!waits_for(share, 1));
    dkv_trust_heard(&trust, 1, &(dkv_hello){.store_id = 78});
    CHECK(!waits_for(share, 1) && trust.lost_ms[1] == 1000); /* an empty one knows nothing */
    hello.heeded_ms = 999;
    dkv_trust_heard(&trust, 1, &hello);
    CHECK(waits_for(share, 1) && trust.lost_ms[1] == 1000);
    hello.heeded_ms = 1000;
    dkv_trust_heard(&trust, 1, &hello);
    CHECK(trust.lost_ms[1] == 0);
    dkv_trust_declare_lost(&trust, 1, 2000);
    dkv_trust_heard(&trust, 1, &(dkv_hello){.store_id = 78, .in_sync = true});
    CHECK(trust.lost_ms[1] == 0 && trust.remembered[1] == 78);
    teardown();
}

/* A store that is told that it was declared lost takes everything for lost, once for each time; one
 * that is told of another store does not. */
static void own_loss_is_heeded_once(void) {
    setup(2);
    all_vouch();
    dkv_hello hello = {.store_id = 77, .remembers = STORE + 1, .lost_ms = 1000};
    dkv_trust_heard(&trust, 1, &hello);
    CHECK(dkv_trust_in_sync(&trust));
    hello.remembers = STORE;
    dkv_trust_heard(&trust, 1, &hello);
    CHECK(trust.n_in_sync == 0 && !dkv_trust_is_new(&trust) && trust.lost_ms[SELF] == 1000);
    restart();
    for (uint32_t i = 0; i < shares.n; i++) dkv_trust_regained(&trust, i);
    dkv_trust_heard(&trust, 2, &hello);
    CHECK(dkv_trust_in_sync(&trust));
    hello.lost_ms = 1001;
    dkv_trust_heard(&trust, 2, &hello);
    CHECK(trust.n_in_sync == 0);
    teardown();
}

/* A flipped bit in format, map or lengths is refused, and none makes a store believed that was not:
 * unknown states are refused as well. (On the disk a checksum covers the facts.) */
static void flipped_bits_are_refused(void) {
    enum { FORMAT_AT = 0, COUNT_AT = 6, HEADER_BYTES = 20 };
    setup(3);
    dkv_hello hello = {.store_id = 77};
    for (uint16_t member = 1; member < MEMBERS; member++) dkv_trust_heard(&trust, member, &hello);
    dkv_trust_lost_all(&trust);
    CHECK(dkv_trust_encode(&trust, &facts) == DKV_OK);
    size_t states = facts.len - shares.n;
    for (size_t bit = 0; bit < 8 * facts.len; bit++) {
        size_t at = bit / 8;
        facts.data[at] ^= (uint8_t)(1u << bit % 8);
        int err = reopen(dkv_buf_slice(&facts));
        facts.data[at] ^= (uint8_t)(1u << bit % 8);
        bool is_flag = at == FORMAT_AT + 1 && bit % 8 == 0;
        bool is_fixed = at < FORMAT_AT + 2 || (at >= COUNT_AT && at < HEADER_BYTES);
        if (is_fixed && !is_flag) CHECK(err == DKV_ERR_PROTOCOL || err == DKV_ERR_EPOCH);
        bool is_known = bit % 8 >= 1 && bit % 8 < 2 + 3; /* NEW, or a replica not waited for */
        if (at >= states && !is_known) CHECK(err == DKV_ERR_PROTOCOL);
        CHECK(err || trust.n_in_sync == 0);
    }
    teardown();
}

/* Facts of the format before shares, of a later one, or of another member's shares are refused. */
static void other_facts_are_refused(void) {
    setup(2);
    dkv_trust_heard(&trust, 1, &(dkv_hello){.store_id = 77});
    CHECK(dkv_trust_encode(&trust, &facts) == DKV_OK);
    for (unsigned format = 0; format < 256; format++) {
        uint8_t own = facts.data[0];
        facts.data[0] = (uint8_t)format;
        CHECK(reopen(dkv_buf_slice(&facts)) == (format == own ? DKV_OK : DKV_ERR_PROTOCOL));
        facts.data[0] = own;
    }
    CHECK(dkv_buf_append(&facts, dkv_slice_of("x")) == DKV_OK);
    CHECK(reopen(dkv_buf_slice(&facts)) == DKV_ERR_PROTOCOL);
    teardown();
}

/* A store that replaced another one does not know whom that one had met: it vouches for no store
 * that is not in sync, and that lasts. */
static void replacement_does_not_vouch(void) {
    setup(2);
    dkv_trust_told(&trust, 1, STORE + 1);
    for (int round = 0; round < 2; round++) {
        dkv_trust_heard(&trust, 2, &(dkv_hello){.store_id = 77});
        CHECK(trust.remembered[2] == DKV_STORE_FORMER);
        restart();
    }
    dkv_trust_heard(&trust, 3, &(dkv_hello){.store_id = 78});
    CHECK(trust.remembered[3] == DKV_STORE_FORMER);
    dkv_trust_heard(&trust, 3, &(dkv_hello){.store_id = 78, .in_sync = true});
    CHECK(trust.remembered[3] == 78);
    teardown();
}

static const check_test tests[] = {
    CHECK_TEST(share_is_vouched_for_by_its_replicas),
    CHECK_TEST(lone_replica_needs_the_word_of_all),
    CHECK_TEST(other_store_is_not_vouched_for),
    CHECK_TEST(lost_share_is_lost_alone),
    CHECK_TEST(partly_regained_store_stays_so),
    CHECK_TEST(facts_without_declarations_are_read),
    CHECK_TEST(declaration_settles_earlier_losses),
    CHECK_TEST(new_store_needs_no_word_of_the_lost),
    CHECK_TEST(declaration_ends_with_the_store),
    CHECK_TEST(own_loss_is_heeded_once),
    CHECK_TEST(replacement_does_not_vouch),
    CHECK_TEST(flipped_bits_are_refused),
    CHECK_TEST(other_facts_are_refused),
};
CHECK_MAIN(tests)
