/* The facts on disk, little-endian:
 *
 *     u8 format (1), u8 flags (bit 0: in sync, bit 1: new), u32 starts, u16 count, u64 map digest,
 *     count × { u8 length, id bytes, u64 store id }
 *
 * Valid: exactly this long, known format, other flag bits 0. Members that the map does not name are
 * dropped: a node that has left and comes back starts anew. */
#include "member/trust.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum { FACTS_FORMAT = 1, FLAG_IN_SYNC = 1, FLAG_NEW = 2, FACTS_HEADER_BYTES = 16 };

#define STARTS_BITS 16u

static int decode_members(dkv_trust *trust, dkv_slice facts, unsigned count) {
    size_t at = FACTS_HEADER_BYTES;
    for (unsigned i = 0; i < count; i++) {
        if (facts.len - at < 1u || facts.len - at < 1u + facts.data[at] + 8u) {
            return DKV_ERR_PROTOCOL;
        }
        uint8_t len = facts.data[at];
        char id[256];
        memcpy(id, facts.data + at + 1, len);
        id[len] = 0;
        int member = dkv_cluster_map_find(trust->map, id);
        if (member >= 0) trust->remembered[member] = dkv_le64(facts.data + at + 1 + len);
        at += 1u + len + 8u;
    }
    return at == facts.len ? DKV_OK : DKV_ERR_PROTOCOL;
}

static int decode(dkv_trust *trust, dkv_slice facts) {
    if (facts.len == 0) return DKV_OK;
    if (facts.len < FACTS_HEADER_BYTES || facts.data[0] != FACTS_FORMAT ||
        (facts.data[1] & ~(FLAG_IN_SYNC | FLAG_NEW))) {
        return DKV_ERR_PROTOCOL;
    }
    trust->in_sync = facts.data[1] & FLAG_IN_SYNC;
    trust->is_new = facts.data[1] & FLAG_NEW;
    trust->starts = dkv_le32(facts.data + 2);
    if (dkv_le64(facts.data + 8) != trust->map_digest) return DKV_ERR_EPOCH;
    return decode_members(trust, facts, dkv_le16(facts.data + 6));
}

static void judge(dkv_trust *trust) {
    if (!trust->is_new) return;
    for (uint16_t i = 0; i < trust->map->n_members; i++) {
        if (i != trust->self && !trust->vouches[i]) return;
    }
    trust->in_sync = true;
    trust->is_new = false;
    trust->changes++;
}

int dkv_trust_init(dkv_trust *trust, const dkv_cluster_map *map, uint16_t self, uint64_t store_id,
                   dkv_slice facts) {
    dkv_trust made = {.map = map, .self = self, .store_id = store_id, .is_new = true};
    made.map_digest = dkv_cluster_map_digest(map);
    made.remembered = calloc(map->n_members, sizeof *made.remembered);
    made.told = calloc(map->n_members, sizeof *made.told);
    made.vouches = calloc(map->n_members, sizeof *made.vouches);
    bool complete = made.remembered && made.told && made.vouches;
    int err = complete ? decode(&made, facts) : DKV_ERR_NO_MEMORY;
    if (err) {
        dkv_trust_free(&made);
        return err;
    }
    made.starts++;
    made.changes = 1;
    judge(&made);
    *trust = made;
    return DKV_OK;
}

void dkv_trust_heard(dkv_trust *trust, uint16_t peer, const dkv_hello *hello) {
    uint64_t *remembered = &trust->remembered[peer];
    if (*remembered == 0 || (*remembered != hello->store_id && hello->in_sync)) {
        *remembered = hello->store_id;
        trust->changes++;
    }
}

void dkv_trust_told(dkv_trust *trust, uint16_t peer, uint64_t store_id) {
    trust->met |= store_id != 0;
    trust->told[peer] = true;
    trust->vouches[peer] = store_id == trust->store_id;
    judge(trust);
}

bool dkv_trust_awaits(const dkv_trust *trust, uint16_t peer) {
    return trust->is_new && peer != trust->self && !trust->told[peer];
}

bool dkv_trust_is_known(const dkv_trust *trust) {
    return !trust->is_new || trust->met;
}

void dkv_trust_lost(dkv_trust *trust) {
    if (!trust->in_sync && !trust->is_new) return;
    trust->in_sync = false;
    trust->is_new = false;
    trust->changes++;
}

int dkv_trust_encode(const dkv_trust *trust, dkv_buf *out) {
    uint16_t count = 0;
    size_t bytes = FACTS_HEADER_BYTES;
    for (uint16_t i = 0; i < trust->map->n_members; i++) {
        if (!trust->remembered[i]) continue;
        count++;
        bytes += 1 + strlen(trust->map->members[i].id) + 8;
    }
    int err = dkv_buf_reserve(out, bytes);
    if (err) return err;
    uint8_t *to = out->data + out->len;
    to[0] = FACTS_FORMAT;
    to[1] = (uint8_t)((trust->in_sync ? FLAG_IN_SYNC : 0) | (trust->is_new ? FLAG_NEW : 0));
    dkv_put_le32(to + 2, trust->starts);
    dkv_put_le16(to + 6, count);
    dkv_put_le64(to + 8, trust->map_digest);
    to += FACTS_HEADER_BYTES;
    for (uint16_t i = 0; i < trust->map->n_members; i++) {
        if (!trust->remembered[i]) continue;
        size_t len = strlen(trust->map->members[i].id);
        *to = (uint8_t)len;
        memcpy(to + 1, trust->map->members[i].id, len);
        dkv_put_le64(to + 1 + len, trust->remembered[i]);
        to += 1 + len + 8;
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
    free(trust->told);
    free(trust->vouches);
    *trust = (dkv_trust){0};
}
