#include "sim/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "sim/check_state.h"

const char *dkv_rule_name(dkv_rule rule) {
    static const char *const names[] = {
#define DKV_RULE_NAME(name, sentence) #name,
        DKV_RULE_MAP(DKV_RULE_NAME)
#undef DKV_RULE_NAME
    };
    return names[rule];
}

const char *dkv_rule_sentence(dkv_rule rule) {
    static const char *const sentences[] = {
#define DKV_RULE_SENTENCE(name, sentence) sentence,
        DKV_RULE_MAP(DKV_RULE_SENTENCE)
#undef DKV_RULE_SENTENCE
    };
    return sentences[rule];
}

int dkv_check_new(dkv_check **out) {
    dkv_check *check = calloc(1, sizeof *check);
    if (!check) return DKV_ERR_NO_MEMORY;
    *out = check;
    return DKV_OK;
}

void dkv_check_del(dkv_check *check) {
    if (!check) return;
    for (key_facts *key = check->first_key, *next; key; key = next) {
        next = key->next;
        free(key->promises);
        free(key->ops);
        free(key);
    }
    for (sighting *s = check->sightings, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    dkv_map_free(&check->keys);
    dkv_map_free(&check->contents);
    dkv_map_free(&check->versions);
    free(check->open);
    free(check);
}

bool dkv_check_fail(dkv_violation *out, dkv_rule rule, uint64_t op, uint64_t other,
                    const char *format, ...) {
    out->rule = rule;
    out->ops[0] = op;
    out->ops[1] = other;
    va_list args;
    va_start(args, format);
    vsnprintf(out->text, sizeof out->text, format, args);
    va_end(args);
    return false;
}

/* ---- contents and versions ---- */

uint64_t dkv_check_content(uint64_t token, dkv_kind kind, dkv_slice value) {
    return dkv_checksum(value, token ^ kind);
}

uint64_t dkv_check_content_of(const dkv_sim_op *op, uint64_t token) {
    dkv_kind kind = op->request.op == DKV_OP_PUT ? DKV_KIND_VALUE : DKV_KIND_TOMBSTONE;
    return dkv_check_content(token, kind, op->request.value);
}

uint64_t dkv_check_writer(const dkv_check *check, uint64_t content) {
    return (uint64_t)(uintptr_t)dkv_map_get(&check->contents, content) - 1;
}

static sighting *add_sighting(dkv_check *check, uint64_t mixed) {
    sighting *s = calloc(1, sizeof *s);
    if (!s || dkv_map_set(&check->versions, mixed, s)) {
        free(s);
        check->no_memory = true;
        return NULL;
    }
    s->op = DKV_CHECK_NO_OP;
    s->next = check->sightings;
    check->sightings = s;
    return s;
}

static uint64_t mix(dkv_version version) {
    return version.hlc * 0x9E3779B97F4A7C15u ^ version.origin;
}

bool dkv_check_was_seen(const dkv_check *check, dkv_version version) {
    return dkv_map_get(&check->versions, mix(version)) != NULL;
}

bool dkv_check_see(dkv_check *check, dkv_version version, uint64_t token, dkv_kind kind,
                   uint64_t content, uint64_t op, dkv_violation *out) {
    sighting *s = dkv_map_get(&check->versions, mix(version));
    if (!s) {
        s = add_sighting(check, mix(version));
        if (!s) return true;
        s->version = version;
        s->token = token;
        s->kind = kind;
        s->content = content;
    }
    bool same_op = op == DKV_CHECK_NO_OP || s->op == DKV_CHECK_NO_OP || s->op == op;
    if (s->token != token || s->content != content || s->kind != kind || !same_op) {
        return dkv_check_fail(out, DKV_RULE_CONFLICT, op, s->op,
                              "version %llu.%llx stands for two writes",
                              (unsigned long long)version.hlc, (unsigned long long)version.origin);
    }
    if (s->op == DKV_CHECK_NO_OP) s->op = op;
    return true;
}

void dkv_check_witness(void *user, uint16_t from, uint16_t to, const dkv_message *message) {
    dkv_check *check = user;
    (void)from;
    (void)to;
    if (message->kind != DKV_MSG_APPLY || check->conflict) return;
    const dkv_record *record = &message->apply;
    uint64_t token = dkv_hash_key(record->key).token;
    uint64_t content = dkv_check_content(token, record->kind, record->value);
    check->conflict = !dkv_check_see(check, record->version, token, record->kind, content,
                                     DKV_CHECK_NO_OP, &check->seen);
}

bool dkv_check_is_denied(const dkv_world *world, uint64_t number) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    if (op->result.outcome == DKV_OUTCOME_NOT_APPLIED) return true;
    for (uint64_t a = op->last_attempt; a; a = dkv_world_attempt(world, a)->previous) {
        const dkv_sim_attempt *attempt = dkv_world_attempt(world, a);
        bool denied = attempt->replies && attempt->result.outcome == DKV_OUTCOME_NOT_APPLIED;
        if (!attempt->refused && !denied) return false;
    }
    return op->answered_ns >= 0;
}

dkv_version dkv_check_version(const dkv_world *world, uint64_t number) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    dkv_version version = op->result.version;
    for (uint64_t a = op->last_attempt; a; a = dkv_world_attempt(world, a)->previous) {
        const dkv_sim_attempt *attempt = dkv_world_attempt(world, a);
        if (attempt->replies && dkv_version_is_none(version)) version = attempt->result.version;
    }
    return version;
}

/* ---- learning ---- */

static bool make_room(dkv_check *check, void **items, size_t n, size_t *cap, size_t bytes) {
    if (n < *cap) return true;
    size_t more = *cap ? *cap * 2 : 64;
    void *moved = realloc(*items, more * bytes);
    if (!moved) {
        check->no_memory = true;
        return false;
    }
    *items = moved;
    *cap = more;
    return true;
}

static key_facts *key_of(dkv_check *check, dkv_slice key) {
    dkv_key_hash hash = dkv_hash_key(key);
    key_facts *facts = dkv_map_get(&check->keys, hash.token);
    if (facts) return facts;
    facts = calloc(1, sizeof *facts);
    if (facts) facts->promises = calloc(check->n_nodes, sizeof *facts->promises);
    if (!facts || !facts->promises || dkv_map_set(&check->keys, hash.token, facts)) {
        check->no_memory = true;
        if (facts) free(facts->promises);
        free(facts);
        return NULL;
    }
    facts->hash = hash;
    facts->key = key;
    if (check->last_key) {
        check->last_key->next = facts;
    } else {
        check->first_key = facts;
    }
    check->last_key = facts;
    check->n_keys++;
    return facts;
}

static void learn_op(dkv_check *check, const dkv_world *world, uint64_t number) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    key_facts *key = key_of(check, op->request.key);
    if (!key ||
        !make_room(check, (void **)&key->ops, key->n_ops, &key->ops_cap, sizeof *key->ops)) {
        return;
    }
    key->ops[key->n_ops++] = number;
    if (op->request.op == DKV_OP_PUT &&
        dkv_map_set(&check->contents, dkv_check_content_of(op, key->hash.token),
                    (void *)(uintptr_t)(number + 1))) {
        check->no_memory = true;
    }
}

/* Takes in which nodes the answer to a write says hold it. */
static void learn_promises(dkv_check *check, const dkv_world *world,
                           const dkv_sim_attempt *attempt) {
    const dkv_sim_op *op = dkv_world_op(world, attempt->op);
    key_facts *key = key_of(check, op->request.key);
    if (!key || dkv_version_is_none(attempt->result.version)) return;
    for (uint8_t i = 0; i < attempt->result.holding.n; i++) {
        promise *p = &key->promises[attempt->result.holding.nodes[i]];
        if (dkv_version_cmp(p->version, attempt->result.version) >= 0) continue;
        *p = (promise){attempt->result.version, attempt->op, op->invoked_ns, false, false};
    }
}

static void learn_answers(dkv_check *check, const dkv_world *world) {
    size_t kept = 0;
    for (size_t i = 0; i < check->n_open; i++) {
        const dkv_sim_attempt *attempt = dkv_world_attempt(world, check->open[i]);
        if (attempt->replies) {
            learn_promises(check, world, attempt);
        } else if (!attempt->cut_off && !attempt->refused) {
            check->open[kept++] = check->open[i];
        }
    }
    check->n_open = kept;
}

bool dkv_check_learn(dkv_check *check, dkv_world *world, dkv_violation *out) {
    check->n_nodes = dkv_ring_map(dkv_world_ring(world))->n_members;
    while (check->ops_known < dkv_world_ops(world)) learn_op(check, world, check->ops_known++);
    while (check->attempts_known < dkv_world_attempts(world)) {
        uint64_t number = ++check->attempts_known;
        const dkv_sim_op *op = dkv_world_op(world, dkv_world_attempt(world, number)->op);
        if (op->request.op == DKV_OP_GET) continue;
        if (!make_room(check, (void **)&check->open, check->n_open, &check->open_cap,
                       sizeof *check->open)) {
            break;
        }
        check->open[check->n_open++] = number;
    }
    learn_answers(check, world);
    if (check->no_memory) {
        return dkv_check_fail(out, DKV_RULE_ALARM, DKV_CHECK_NO_OP, DKV_CHECK_NO_OP,
                              "the check itself ran out of memory");
    }
    if (check->conflict) *out = check->seen;
    return !check->conflict;
}
