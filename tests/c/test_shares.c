/* What each member replicates (csrc/ring/shares.h), against the ring that it is taken from. */
#include "ring/shares.h"

#include "base/err.h"
#include "base/rand.h"
#include "check.h"

/* A ring of `members` with `tokens` tokens each. */
static dkv_ring *ring_of(uint16_t members, uint8_t replication, uint32_t tokens) {
    dkv_cluster_map *map;
    dkv_ring *ring;
    uint32_t indices[256];
    for (uint32_t i = 0; i < tokens; i++) indices[i] = i;
    CHECK(dkv_cluster_map_new("test", replication, &map) == DKV_OK);
    for (unsigned i = 0; i < members; i++) {
        char id[16];
        snprintf(id, sizeof id, "n%u", i);
        dkv_member member = {.id = id, .token_indices = indices, .n_token_indices = tokens};
        CHECK(dkv_cluster_map_add(map, &member) == DKV_OK);
    }
    CHECK(dkv_ring_new(map, &ring) == DKV_OK);
    dkv_cluster_map_del(map);
    return ring;
}

static bool is_listed(const uint16_t *list, unsigned n, uint16_t member) {
    bool listed = false;
    for (unsigned i = 0; i < n; i++) listed |= list[i] == member;
    return listed;
}

/* Shares are in order, do not overlap, and name the ring's list and this member in it. */
static void check_form(const dkv_shares *shares, const dkv_ring *ring, uint16_t self) {
    for (uint32_t i = 0; i < shares->n; i++) {
        const dkv_share *share = &shares->all[i];
        CHECK(share->first <= share->last);
        CHECK(i == 0 || shares->all[i - 1].last < share->first);
        CHECK(share->list == dkv_ring_replicas(ring, share->first));
        CHECK(share->list == dkv_ring_replicas(ring, share->last));
        int place = dkv_share_place(shares, i, self);
        CHECK(place >= 0 && share->list[place] == self);
    }
}

static void check_tokens(const dkv_shares *shares, const dkv_ring *ring, uint16_t self,
                         dkv_rand *rand, unsigned tokens) {
    for (unsigned i = 0; i < tokens; i++) {
        uint64_t token = dkv_rand_next(rand);
        if (i < 2) token = i ? UINT64_MAX : 0;
        const uint16_t *list = dkv_ring_replicas(ring, token);
        int64_t share = dkv_shares_find(shares, token);
        CHECK((share >= 0) == is_listed(list, dkv_ring_replication(ring), self));
        if (share < 0) continue;
        CHECK(shares->all[share].first <= token && token <= shares->all[share].last);
        CHECK(shares->all[share].list == list);
    }
}

/* Checks the shares of all members, and that together they cover the circle exactly N times: the
 * lengths of all of them add up to N times 2^64. */
static void check_ring(const dkv_ring *ring, dkv_rand *rand, unsigned tokens) {
    unsigned __int128 covered = 0;
    for (uint16_t self = 0; self < dkv_ring_map(ring)->n_members; self++) {
        dkv_shares shares;
        CHECK(dkv_shares_init(&shares, ring, self) == DKV_OK);
        CHECK(shares.replication == dkv_ring_replication(ring));
        check_form(&shares, ring, self);
        check_tokens(&shares, ring, self, rand, tokens);
        for (uint32_t i = 0; i < shares.n; i++) {
            covered += (unsigned __int128)(shares.all[i].last - shares.all[i].first) + 1;
        }
        dkv_shares_free(&shares);
    }
    CHECK(covered == (unsigned __int128)dkv_ring_replication(ring) << 64);
}

static void shares_cover_the_circle_n_times(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed + run};
        uint16_t members = (uint16_t)(1 + dkv_rand_below(&rand, 9));
        uint8_t most = (uint8_t)(members < DKV_REPLICATION_MAX ? members : DKV_REPLICATION_MAX);
        uint8_t replication = (uint8_t)(1 + dkv_rand_below(&rand, most));
        dkv_ring *ring = ring_of(members, replication, 1 + (uint32_t)dkv_rand_below(&rand, 20));
        check_ring(ring, &rand, 50);
        dkv_ring_del(ring);
    }
}

/* A lone member holds all: the interval that wraps around zero is two shares, with one list. */
static void interval_around_zero_is_two_shares(void) {
    dkv_ring *ring = ring_of(1, 1, 1);
    dkv_shares shares;
    uint64_t token = dkv_ring_end(ring, 0);
    CHECK(dkv_shares_init(&shares, ring, 0) == DKV_OK);
    CHECK(shares.n == 2 && shares.all[0].list == shares.all[1].list);
    CHECK(shares.all[0].first == 0 && shares.all[0].last == token);
    CHECK(shares.all[1].first == token + 1 && shares.all[1].last == UINT64_MAX);
    CHECK(dkv_shares_find(&shares, token) == 0 && dkv_shares_find(&shares, token + 1) == 1);
    dkv_shares_free(&shares);
    dkv_ring_del(ring);
}

static void thousand_members_share_the_circle(void) {
    dkv_rand rand = {check_seed};
    dkv_ring *ring = ring_of(1000, 3, 16);
    check_ring(ring, &rand, 20);
    dkv_ring_del(ring);
}

/* Where a member has no replica there is no share of it, and a place is only of those listed. */
static void others_tokens_are_in_no_share(void) {
    dkv_ring *ring = ring_of(4, 2, 8);
    dkv_shares shares;
    CHECK(dkv_shares_init(&shares, ring, 1) == DKV_OK);
    for (uint32_t i = 0; i < dkv_ring_intervals(ring); i++) {
        bool own = is_listed(dkv_ring_list(ring, i), 2, 1);
        CHECK((dkv_shares_find(&shares, dkv_ring_end(ring, i)) >= 0) == own);
    }
    for (uint32_t i = 0; i < shares.n; i++) {
        unsigned listed = 0;
        for (uint16_t member = 0; member < 4; member++) {
            listed += dkv_share_place(&shares, i, member) >= 0;
        }
        CHECK(listed == 2);
    }
    dkv_shares_free(&shares);
    dkv_ring_del(ring);
}

static const check_test tests[] = {
    CHECK_TEST(shares_cover_the_circle_n_times),
    CHECK_TEST(interval_around_zero_is_two_shares),
    CHECK_TEST(thousand_members_share_the_circle),
    CHECK_TEST(others_tokens_are_in_no_share),
};
CHECK_MAIN(tests)
