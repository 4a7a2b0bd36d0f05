/* The facts on disk, little-endian:
 *
 *     u8 format (3), u8 replacement, u32 starts, u16 count, u64 map digest, u32 shares,
 *     count × { u8 length, id bytes, u64 store id, u64 lost_ms },
 *     shares × { u2 dkv_share_state, u6 waived }
 *
 * The state is in the low bits. Format 2 had no lost_ms, and zeros for `waived`.
 *
 * Valid: exactly this long, known format and states, as many shares as the map gives this node, and
 * nothing waived of a share that is in sync or beyond its replicas.
 * Members that the map does not name are dropped: a node that has left and comes back starts
 * anew. */
#include "member/trust.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plant.h"

enum { FACTS_FORMAT = 3, FACTS_FORMAT_UNDECLARED = 2, FACTS_HEADER_BYTES = 20 };
enum { STATE_BITS = 2, STATE_MASK = (1 << STATE_BITS) - 1 };

#define STARTS_BITS 16u

static int decode_members(dkv_trust *trust, dkv_slice facts, unsigned count, size_t *end) {
    size_t at = FACTS_HEADER_BYTES;
    bool declares = facts.data[0] != FACTS_FORMAT_UNDECLARED;
    size_t tail = declares ? 16 : 8;
    for (unsigned i = 0; i < count; i++) {
        if (facts.len - at < 1u || facts.len - at < 1u + facts.data[at] + tail) {
            return DKV_ERR_PROTOCOL;
        }
        uint8_t len = facts.data[at];
        char id[256];
        memcpy(id, facts.data + at + 1, len);
        id[len] = 0;
        int member = dkv_cluster_map_find(trust->map, id);
        if (member >= 0) trust->remembered[member] = dkv_le64(facts.data + at + 1 + len);
        if (member >= 0 && declares) {
            trust->lost_ms[member] = dkv_le64(facts.data + at + 1 + len + 8);
        }
        at += 1u + len + tail;
    }
    *end = at;
    return DKV_OK;
}

static int decode_states(dkv_trust *trust, dkv_slice facts, size_t at) {
    if (facts.len - at != trust->shares->n) return DKV_ERR_PROTOCOL;
    for (uint32_t i = 0; i < trust->shares->n; i++) {
        uint8_t state = facts.data[at + i] & STATE_MASK;
        uint8_t waived = facts.data[at + i] >> STATE_BITS;
        if (state > DKV_SHARE_LOST) return DKV_ERR_PROTOCOL;
        if (waived >> trust->shares->replication) return DKV_ERR_PROTOCOL;
        if (waived && state == DKV_SHARE_IN_SYNC) return DKV_ERR_PROTOCOL;
        trust->states[i] = state;
        trust->waived[i] = waived;
    }
    return DKV_OK;
}

static int decode(dkv_trust *trust, dkv_slice facts) {
    size_t at;
    if (facts.len == 0) return DKV_OK;
    if (facts.len < FACTS_HEADER_BYTES || facts.data[1] > 1) return DKV_ERR_PROTOCOL;
    if (facts.data[0] != FACTS_FORMAT && facts.data[0] != FACTS_FORMAT_UNDECLARED) {
        return DKV_ERR_PROTOCOL;
    }
    trust->replacement = facts.data[1];
    trust->starts = dkv_le32(facts.data + 2);
    if (dkv_le64(facts.data + 8) != trust->map_digest) return DKV_ERR_EPOCH;
    if (dkv_le32(facts.data + 16) != trust->shares->n) return DKV_ERR_PROTOCOL;
    int err = decode_members(trust, facts, dkv_le16(facts.data + 6), &at);
    return err ? err : decode_states(trust, facts, at);
}

static void set_state(dkv_trust *trust, uint32_t share, dkv_share_state state) {
    if (trust->states[share] == state && !trust->waived[share]) return;
    trust->waived[share] = 0;
    trust->n_in_sync -= trust->states[share] == DKV_SHARE_IN_SYNC;
    trust->n_new -= trust->states[share] == DKV_SHARE_NEW;
    trust->states[share] = (uint8_t)state;
    trust->n_in_sync += state == DKV_SHARE_IN_SYNC;
    trust->n_new += state == DKV_SHARE_NEW;
    trust->changes++;
}

static unsigned all_places(const dkv_trust *trust) {
    return (1u << trust->shares->replication) - 1;
}

/* Of a share without other replicas only the other members together can tell. */
static bool all_members_vouch(const dkv_trust *trust) {
    for (uint16_t i = 0; i < trust->map->n_members; i++) {
        if (i != trust->self && !trust->vouches[i] && !trust->lost_ms[i]) return false;
    }
    return true;
}

static bool all_replicas_vouch(const dkv_trust *trust, uint32_t share) {
    if (trust->shares->replication == 1) return all_members_vouch(trust);
    for (unsigned i = 0; i < trust->shares->replication; i++) {
        uint16_t member = trust->shares->all[share].list[i];
        bool is_waived = trust->waived[share] >> i & 1;
        if (member != trust->self && !trust->vouches[member] && !is_waived) return false;
    }
    return true;
}

static void judge(dkv_trust *trust) {
    for (uint32_t i = 0; trust->n_new > 0 && i < trust->shares->n; i++) {
        if (trust->states[i] == DKV_SHARE_NEW && all_replicas_vouch(trust, i)) {
            set_state(trust, i, DKV_SHARE_IN_SYNC);
        }
    }
}

static void find_needed(dkv_trust *trust) {
    for (uint16_t i = 0; i < trust->map->n_members; i++) {
        trust->needed[i] = trust->shares->replication == 1 && i != trust->self;
    }
    for (uint32_t i = 0; i < trust->shares->n; i++) {
        for (unsigned k = 0; k < trust->shares->replication; k++) {
            uint16_t member = trust->shares->all[i].list[k];
            trust->needed[member] |= member != trust->self;
        }
    }
}

static void count_states(dkv_trust *trust) {
    for (uint32_t i = 0; i < trust->shares->n; i++) {
        trust->n_in_sync += trust->states[i] == DKV_SHARE_IN_SYNC;
        trust->n_new += trust->states[i] == DKV_SHARE_NEW;
    }
}

int dkv_trust_init(dkv_trust *trust, const dkv_cluster_map *map, const dkv_shares *shares,
                   uint16_t self, uint64_t store_id, dkv_slice facts) {
    dkv_trust made = {.map = map, .shares = shares, .self = self, .store_id = store_id};
    made.map_digest = dkv_cluster_map_digest(map);
    made.remembered = calloc(map->n_members, sizeof *made.remembered);
    made.lost_ms = calloc(map->n_members, sizeof *made.lost_ms);
    made.needed = calloc(map->n_members, sizeof *made.needed);
    made.told = calloc(map->n_members, sizeof *made.told);
    made.vouches = calloc(map->n_members, sizeof *made.vouches);
    made.states = calloc(shares->n + 1u, sizeof *made.states); /* DKV_SHARE_NEW */
    made.waived = calloc(shares->n + 1u, sizeof *made.waived);
    bool complete = made.remembered && made.lost_ms && made.needed && made.told && made.vouches &&
                    made.states && made.waived;
    int err = complete ? decode(&made, facts) : DKV_ERR_NO_MEMORY;
    if (err) {
        dkv_trust_free(&made);
        return err;
    }
    count_states(&made);
    find_needed(&made);
    made.starts++;
    made.changes = 1;
    judge(&made);
    *trust = made;
    return DKV_OK;
}

/* `peer` has another store, or its own one has heeded that it was declared lost. */
static void forget_loss(dkv_trust *trust, uint16_t peer) {
    trust->changes += trust->lost_ms[peer] != 0;
    trust->lost_ms[peer] = 0;
}

/* The store that was declared lost is back: what is not in sync yet waits for it again. */
static void wait_again(dkv_trust *trust, uint16_t peer) {
    for (uint32_t i = 0; i < trust->shares->n; i++) {
        int place = dkv_share_place(trust->shares, i, peer);
        if (place < 0 || !(trust->waived[i] >> place & 1)) continue;
        trust->waived[i] &= (uint8_t) ~(1u << place);
        trust->changes++;
    }
}

/* A peer was told that this store is lost. */
static void heed(dkv_trust *trust, uint64_t lost_ms) {
    trust->lost_ms[trust->self] = lost_ms;
    trust->changes++;
    dkv_trust_lost_all(trust);
}

void dkv_trust_heard(dkv_trust *trust, uint16_t peer, const dkv_hello *hello) {
    uint64_t *remembered = &trust->remembered[peer];
    bool vouches = hello->in_sync || !trust->replacement;
    if (*remembered == 0 || (*remembered != hello->store_id && hello->in_sync)) {
        *remembered = vouches ? hello->store_id : DKV_STORE_FORMER;
        trust->changes++;
        forget_loss(trust, peer);
    } else if (*remembered == hello->store_id && trust->lost_ms[peer]) {
        wait_again(trust, peer);
        if (hello->heeded_ms >= trust->lost_ms[peer]) forget_loss(trust, peer);
    }
    bool is_ours = hello->remembers == trust->store_id;
    if (is_ours && hello->lost_ms > trust->lost_ms[trust->self]) heed(trust, hello->lost_ms);
}

void dkv_trust_told(dkv_trust *trust, uint16_t peer, uint64_t store_id) {
    if (DKV_PLANTED(BELIEVE_EMPTY) && store_id != 0) store_id = trust->store_id;
    trust->met |= store_id != 0;
    trust->told[peer] = true;
    trust->vouches[peer] = store_id == trust->store_id;
    trust->replaced |= trust->n_new > 0 && store_id != 0 && store_id != trust->store_id;
    trust->changes += trust->replaced && !trust->replacement;
    trust->replacement |= trust->replaced;
    judge(trust);
}

bool dkv_trust_awaits(const dkv_trust *trust, uint16_t peer) {
    return trust->n_new > 0 && trust->needed[peer] && !trust->told[peer] && !trust->lost_ms[peer];
}

bool dkv_trust_is_new(const dkv_trust *trust) {
    return trust->n_new > 0;
}

bool dkv_trust_is_known(const dkv_trust *trust) {
    return trust->n_new == 0 || trust->met;
}

bool dkv_trust_in_sync(const dkv_trust *trust) {
    return trust->n_in_sync == trust->shares->n;
}

bool dkv_trust_believes(const dkv_trust *trust, uint64_t token) {
    int64_t share = dkv_shares_find(trust->shares, token);
    return share >= 0 && trust->states[share] == DKV_SHARE_IN_SYNC;
}

uint32_t dkv_trust_declare_lost(dkv_trust *trust, uint16_t peer, uint64_t wall_ms) {
    uint64_t *lost_ms = &trust->lost_ms[peer];
    uint32_t waived = 0;
    *lost_ms = wall_ms > *lost_ms ? wall_ms : *lost_ms + 1;
    trust->changes++;
    for (uint32_t i = 0; i < trust->shares->n; i++) {
        int place = dkv_share_place(trust->shares, i, peer);
        if (place < 0 || trust->states[i] == DKV_SHARE_IN_SYNC) continue;
        waived += !(trust->waived[i] >> place & 1);
        trust->waived[i] |= (uint8_t)(DKV_PLANTED(GIVE_UP_ALL) ? all_places(trust) : 1u << place);
    }
    judge(trust);
    return waived;
}

void dkv_trust_lost_all(dkv_trust *trust) {
    for (uint32_t i = 0; i < trust->shares->n; i++) set_state(trust, i, DKV_SHARE_LOST);
}

void dkv_trust_lost(dkv_trust *trust, uint64_t token) {
    int64_t share = dkv_shares_find(trust->shares, token);
    if (share >= 0) set_state(trust, (uint32_t)share, DKV_SHARE_LOST);
}

bool dkv_trust_is_regained(const dkv_trust *trust, uint32_t share, unsigned compared) {
    unsigned mine = 1u << dkv_share_place(trust->shares, share, trust->self);
    return (compared | mine | trust->waived[share]) == all_places(trust);
}

void dkv_trust_regained(dkv_trust *trust, uint32_t share) {
    set_state(trust, share, DKV_SHARE_IN_SYNC);
}

static bool has_facts(const dkv_trust *trust, uint16_t member) {
    return trust->remembered[member] || trust->lost_ms[member];
}

int dkv_trust_encode(const dkv_trust *trust, dkv_buf *out) {
    uint16_t count = 0;
    size_t bytes = FACTS_HEADER_BYTES + trust->shares->n;
    for (uint16_t i = 0; i < trust->map->n_members; i++) {
        if (!has_facts(trust, i)) continue;
        count++;
        bytes += 1 + strlen(trust->map->members[i].id) + 16;
    }
    int err = dkv_buf_reserve(out, bytes);
    if (err) return err;
    uint8_t *to = out->data + out->len;
    to[0] = FACTS_FORMAT;
    to[1] = trust->replacement;
    dkv_put_le32(to + 2, trust->starts);
    dkv_put_le16(to + 6, count);
    dkv_put_le64(to + 8, trust->map_digest);
    dkv_put_le32(to + 16, trust->shares->n);
    to += FACTS_HEADER_BYTES;
    for (uint16_t i = 0; i < trust->map->n_members; i++) {
        if (!has_facts(trust, i)) continue;
        size_t len = strlen(trust->map->members[i].id);
        *to = (uint8_t)len;
        memcpy(to + 1, trust->map->members[i].id, len);
        dkv_put_le64(to + 1 + len, trust->remembered[i]);
        dkv_put_le64(to + 1 + len + 8, trust->lost_ms[i]);
        to += 1 + len + 16;
    }
    for (uint32_t i = 0; i < trust->shares->n; i++) {
        to[i] = (uint8_t)(trust->states[i] | trust->waived[i] << STATE_BITS);
    }
    out->len += bytes;
    return DKV_OK;
}

uint64_t dkv_trust_origin(const dkv_trust *trust) {
    uint64_t mask = (UINT64_C(1) << STARTS_BITS) - 1;
    return (trust->store_id & ~mask) | (trust->starts & mask);
}

void dkv_trust_free(dkv_trust *trust) {
    if (!trust) return;
    free(trust->remembered);
    free(trust->lost_ms);
    free(trust->needed);
    free(trust->told);
    free(trust->vouches);
    free(trust->states);
    free(trust->waived);
    *trust = (dkv_trust){0};
}
