/* Random requests, replies and messages for the tests of csrc/wire, and their equality. */
#ifndef DKV_TESTS_WIRE_SAMPLES_H
#define DKV_TESTS_WIRE_SAMPLES_H

#include "base/rand.h"
#include "check.h"
#include "wire/wire.h"

/* ---- random contents ---- */

static dkv_rand dice;
/* All slices of random structs point somewhere into here. */
static uint8_t noise[DKV_VALUE_MAX + 64];

static inline void throw_dice(void) {
    dice.state = check_seed;
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)dkv_rand_next(&dice);
}

static inline uint64_t below(uint64_t bound) {
    return dkv_rand_below(&dice, bound);
}

static inline dkv_slice any_bytes(size_t min, size_t max) {
    return (dkv_slice){noise + below(64), min + (size_t)below(max - min + 1)};
}

/* Mostly short, now and then as long as can be. */
static inline dkv_slice any_value(void) {
    return below(50) ? any_bytes(0, 300) : any_bytes(DKV_VALUE_MAX, DKV_VALUE_MAX);
}

static inline dkv_slice any_key(void) {
    return any_bytes(1, below(10) ? 40 : DKV_KEY_MAX);
}

static inline dkv_slice any_text(size_t min, size_t max) {
    static const char letters[DKV_DETAIL_MAX + 1] =
        "the-quick.brown_fox-jumps.over_the-lazy.dog-and_then-does.it_again-until.every_letter-has."
        "been_seen-and.the_text-is.longer_than-any.name_that-could.ever_be-given.to_a-node.or_a-"
        "host.or_a-zone.and_longer-than.any_sentence-that.a_person-would.want_to-read.when_"
        "something-has.failed_at-three.in_the-morning.on_a-sunday";
    return (dkv_slice){(const uint8_t *)letters + below(20), min + (size_t)below(max - min + 1)};
}

static inline dkv_version any_version(void) {
    return (dkv_version){dkv_rand_next(&dice), 1 + below(UINT64_MAX - 1)};
}

static inline int any_err(void) {
    return -1 - (int)below(18);
}

static inline dkv_record any_record(void) {
    dkv_record record = {.version = any_version(), .kind = (dkv_kind)below(2)};
    if (record.kind == DKV_KIND_VALUE) record.value = any_value();
    return record;
}

static inline dkv_request any_request(void) {
    dkv_request request = {
        .op = (dkv_op)(1 + below(3)),
        .level = (dkv_level)below(4),
        .timeout_ms = (uint32_t)below(DKV_TIMEOUT_MAX_MS + 1),
        .key = any_key(),
    };
    if (request.op == DKV_OP_PUT) request.value = any_value();
    if (request.op != DKV_OP_GET && below(2)) request.last_seen = any_version();
    if (request.op == DKV_OP_GET) request.failover = below(2) == 1;
    return request;
}

static inline dkv_node_names any_names(void) {
    dkv_node_names names = {.n = (uint8_t)below(DKV_REPLICATION_MAX + 1)};
    for (size_t i = 0; i < names.n; i++) names.ids[i] = any_text(1, DKV_NAME_MAX);
    return names;
}

static inline dkv_reply any_reply(dkv_op op) {
    dkv_reply reply = {.holding = any_names()};
    if (below(8)) reply.version = any_version();
    if (below(2)) {
        reply.err = any_err();
        reply.missing = any_names();
        reply.detail = any_text(0, 280);
        if (op != DKV_OP_GET) reply.outcome = (dkv_outcome)(2 + below(2));
    } else if (op == DKV_OP_GET) {
        reply.value = any_value();
    } else {
        reply.outcome = DKV_OUTCOME_APPLIED;
    }
    return reply;
}

static inline dkv_hello any_hello(void) {
    return (dkv_hello){
        .cluster = any_text(1, DKV_NAME_MAX),
        .node_id = any_text(1, DKV_NAME_MAX),
        .epoch = below(1000),
        .map_digest = dkv_rand_next(&dice),
        .store_id = dkv_rand_next(&dice),
        .remembers = dkv_rand_next(&dice),
        .lost_ms = dkv_rand_next(&dice),
        .heeded_ms = dkv_rand_next(&dice),
        .in_sync = below(2),
        .wall_ms = dkv_rand_next(&dice),
        .state = below(2) ? DKV_ERR_BUSY : 0,
        .err = below(2) ? any_err() : 0,
    };
}

/* Columns for the messages that compare ranges. */
static uint64_t numbers[5][DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX + 1];
static uint32_t sizes[DKV_LIST_MAX];

static inline void fill_numbers(void) {
    static bool filled;
    if (filled) return; /* messages that are kept borrow them */
    filled = true;
    size_t len = sizeof numbers[0] / sizeof *numbers[0];
    for (size_t i = 0; i < len; i++) {
        for (int column = 0; column < 5; column++) numbers[column][i] = dkv_rand_next(&dice);
        if (i < DKV_LIST_MAX) sizes[i] = (uint32_t)dkv_rand_next(&dice);
        numbers[1][i] >>= below(64);
        numbers[0][i] = i << 40 | below(1000); /* ascending: tokens and bounds */
    }
}

static inline dkv_list any_list(void) {
    dkv_list list = {.tokens = numbers[0], .tags = numbers[1], .hlcs = numbers[2]};
    list.n = (uint32_t)below(DKV_LIST_MAX + 1);
    list.more = list.n > 0 && below(2);
    list.origins = numbers[3];
    list.sizes = sizes;
    return list;
}

static inline dkv_message any_message(dkv_message_kind kind) {
    dkv_message m = {.kind = kind};
    if (kind != DKV_MSG_HELLO && kind != DKV_MSG_HELLO_REPLY) m.id = dkv_rand_next(&dice);
    switch (kind) {
    case DKV_MSG_HELLO:
    case DKV_MSG_HELLO_REPLY: m.hello = any_hello(); break;
    case DKV_MSG_PING: m.ping.remembers = dkv_rand_next(&dice); break;
    case DKV_MSG_PONG:
        m.pong.wall_ms = dkv_rand_next(&dice);
        m.pong.state = below(2) ? DKV_ERR_BUSY : 0;
        break;
    case DKV_MSG_APPLY:
        m.apply = any_record();
        m.apply.key = any_key();
        break;
    case DKV_MSG_APPLY_REPLY:
        m.apply_reply.err = below(2) ? any_err() : 0;
        m.apply_reply.state = below(2) ? DKV_ERR_NO_SPACE : 0;
        break;
    case DKV_MSG_FETCH:
        if (below(2)) {
            m.fetch.key = any_key();
        } else {
            m.fetch.hash = (dkv_key_hash){dkv_rand_next(&dice), dkv_rand_next(&dice)};
        }
        m.fetch.version_only = below(2);
        break;
    case DKV_MSG_FETCH_REPLY:
        m.fetch_reply.in_sync = below(2);
        m.fetch_reply.durable = below(2);
        m.fetch_reply.version_only = below(2);
        m.fetch_reply.len_bytes = (uint32_t)below(1 << 20);
        m.fetch_reply.err = below(2) ? any_err() : 0;
        if (m.fetch_reply.err == 0) m.fetch_reply.record = any_record();
        if (m.fetch_reply.err == 0 && below(2)) m.fetch_reply.record.key = any_key();
        break;
    case DKV_MSG_FORWARD: m.forward = any_request(); break;
    case DKV_MSG_FORWARD_REPLY: m.forward_reply = any_reply((dkv_op)(1 + below(3))); break;
    case DKV_MSG_SUMS:
        fill_numbers();
        m.sums = (dkv_sums_request){1 + (uint32_t)below(DKV_SUMS_RANGES_MAX),
                                    1 + (uint32_t)below(DKV_SUMS_PARTS_MAX), numbers[0]};
        break;
    case DKV_MSG_SUMS_REPLY:
        fill_numbers();
        m.sums_reply.n = (uint32_t)below(DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX + 1);
        m.sums_reply.counts = numbers[1];
        m.sums_reply.digests = numbers[2];
        break;
    case DKV_MSG_LIST:
        m.list.from = (dkv_key_hash){dkv_rand_next(&dice), dkv_rand_next(&dice)};
        m.list.last = dkv_rand_next(&dice);
        break;
    case DKV_MSG_LIST_REPLY:
        fill_numbers();
        m.list_reply = any_list();
        break;
    }
    return m;
}

/* ---- equality ---- */

static inline bool same_version(dkv_version a, dkv_version b) {
    return dkv_version_cmp(a, b) == 0;
}

static inline bool same_record(const dkv_record *a, const dkv_record *b) {
    return dkv_slice_eq(a->key, b->key) && dkv_slice_eq(a->value, b->value) &&
           same_version(a->version, b->version) && a->kind == b->kind;
}

static inline bool same_request(const dkv_request *a, const dkv_request *b) {
    return a->op == b->op && a->level == b->level && a->timeout_ms == b->timeout_ms &&
           same_version(a->last_seen, b->last_seen) && a->failover == b->failover &&
           dkv_slice_eq(a->key, b->key) && dkv_slice_eq(a->value, b->value);
}

static inline bool same_names(const dkv_node_names *a, const dkv_node_names *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        if (!dkv_slice_eq(a->ids[i], b->ids[i])) return false;
    }
    return true;
}

static inline bool same_reply(const dkv_reply *a, const dkv_reply *b) {
    return a->err == b->err && a->outcome == b->outcome && same_version(a->version, b->version) &&
           dkv_slice_eq(a->value, b->value) && same_names(&a->holding, &b->holding) &&
           same_names(&a->missing, &b->missing) && dkv_slice_eq(a->detail, b->detail);
}

static inline bool same_hello(const dkv_hello *a, const dkv_hello *b) {
    return dkv_slice_eq(a->cluster, b->cluster) && dkv_slice_eq(a->node_id, b->node_id) &&
           a->epoch == b->epoch && a->map_digest == b->map_digest && a->store_id == b->store_id &&
           a->remembers == b->remembers && a->lost_ms == b->lost_ms &&
           a->heeded_ms == b->heeded_ms && a->in_sync == b->in_sync && a->wall_ms == b->wall_ms &&
           a->state == b->state && a->err == b->err;
}

static inline bool same_numbers(const uint64_t *a, const uint64_t *b, size_t n) {
    return n == 0 || memcmp(a, b, n * sizeof *a) == 0;
}

static inline bool same_list(const dkv_list *a, const dkv_list *b) {
    return a->n == b->n && a->more == b->more && same_numbers(a->tokens, b->tokens, a->n) &&
           same_numbers(a->tags, b->tags, a->n) && same_numbers(a->hlcs, b->hlcs, a->n) &&
           same_numbers(a->origins, b->origins, a->n) &&
           (a->n == 0 || memcmp(a->sizes, b->sizes, a->n * sizeof *a->sizes) == 0);
}

static inline bool same_message(const dkv_message *a, const dkv_message *b) {
    if (a->kind != b->kind || a->id != b->id) return false;
    switch (a->kind) {
    case DKV_MSG_HELLO:
    case DKV_MSG_HELLO_REPLY: return same_hello(&a->hello, &b->hello);
    case DKV_MSG_PING: return a->ping.remembers == b->ping.remembers;
    case DKV_MSG_PONG: return a->pong.wall_ms == b->pong.wall_ms && a->pong.state == b->pong.state;
    case DKV_MSG_APPLY: return same_record(&a->apply, &b->apply);
    case DKV_MSG_APPLY_REPLY:
        return a->apply_reply.err == b->apply_reply.err &&
               a->apply_reply.state == b->apply_reply.state;
    case DKV_MSG_FETCH:
        return dkv_slice_eq(a->fetch.key, b->fetch.key) &&
               dkv_key_hash_cmp(a->fetch.hash, b->fetch.hash) == 0 &&
               a->fetch.version_only == b->fetch.version_only;
    case DKV_MSG_FETCH_REPLY:
        return a->fetch_reply.err == b->fetch_reply.err &&
               a->fetch_reply.in_sync == b->fetch_reply.in_sync &&
               a->fetch_reply.durable == b->fetch_reply.durable &&
               a->fetch_reply.version_only == b->fetch_reply.version_only &&
               a->fetch_reply.len_bytes == b->fetch_reply.len_bytes &&
               same_record(&a->fetch_reply.record, &b->fetch_reply.record);
    case DKV_MSG_FORWARD: return same_request(&a->forward, &b->forward);
    case DKV_MSG_FORWARD_REPLY: return same_reply(&a->forward_reply, &b->forward_reply);
    case DKV_MSG_SUMS:
        return a->sums.n == b->sums.n && a->sums.parts == b->sums.parts &&
               same_numbers(a->sums.bounds, b->sums.bounds, 2u * a->sums.n);
    case DKV_MSG_SUMS_REPLY:
        return a->sums_reply.n == b->sums_reply.n &&
               same_numbers(a->sums_reply.counts, b->sums_reply.counts, a->sums_reply.n) &&
               same_numbers(a->sums_reply.digests, b->sums_reply.digests, a->sums_reply.n);
    case DKV_MSG_LIST:
        return dkv_key_hash_cmp(a->list.from, b->list.from) == 0 && a->list.last == b->list.last;
    case DKV_MSG_LIST_REPLY: return same_list(&a->list_reply, &b->list_reply);
    }
    return false;
}

#endif
