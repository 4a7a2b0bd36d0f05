/* The rules of check.h, one function each. Operations of a key are compared pairwise: histories are
 * some hundred operations long. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "sim/check_state.h"

#define NONE DKV_CHECK_NO_OP
/* What a node may take beyond the deadline: the round of its loop and the message to itself. */
#define ANSWER_SLACK_NS (100 * 1000000LL)

#define VERSION_FORMAT "%" PRIu64 ".%" PRIx64
#define VERSION_ARGS(v) (v).hlc, (v).origin

static const char *node_id(const dkv_world *world, uint16_t node) {
    return dkv_ring_map(dkv_world_ring(world))->members[node].id;
}

static unsigned needs(const dkv_world *world, const dkv_sim_op *op) {
    return dkv_level_needs(op->request.level, op->request.op,
                           dkv_ring_replication(dkv_world_ring(world)));
}

static bool is_write(const dkv_sim_op *op) {
    return op->request.op != DKV_OP_GET;
}

/* ---- promises ---- */

/* A new cluster, for all that anybody can know. */
static bool all_wiped(const dkv_world *world) {
    for (uint16_t i = 0; i < dkv_ring_map(dkv_world_ring(world))->n_members; i++) {
        if (dkv_world_wiped_at(world, i) < 0) return false;
    }
    return true;
}

/* When the disk of the node last lost this version of the key, or a newer one. */
static int64_t lost_at(const dkv_world *world, const key_facts *key, uint16_t node,
                       dkv_version version) {
    return dkv_world_lost_at(world, node, key->hash.token, version);
}

static int64_t lost_unseen_at(const dkv_world *world, const key_facts *key, uint16_t node,
                              dkv_version version) {
    return dkv_world_lost_unseen_at(world, node, key->hash.token, version);
}

/* True if another replica confirmed `version` or a newer one before the node lost it, and has lost
 * no such record since: from there the node must have it back. */
static bool is_kept_elsewhere(const dkv_world *world, const key_facts *key, uint16_t node,
                              dkv_version version) {
    for (uint16_t i = 0; i < dkv_ring_map(dkv_world_ring(world))->n_members; i++) {
        const promise *p = &key->promises[i];
        if (i == node || dkv_version_cmp(p->version, version) < 0) continue;
        if (p->invoked_ns > lost_at(world, key, node, version)) continue;
        if (lost_at(world, key, i, p->version) < (p->newer ? 0 : p->invoked_ns)) return true;
    }
    return false;
}

/* LOST_WRITE and BELIEF, given what the node has of the key (`stored` none: nothing). */
static bool check_promise(const dkv_world *world, const key_facts *key, uint16_t node,
                          dkv_version stored, bool in_sync, dkv_violation *out) {
    const promise *p = &key->promises[node];
    if (dkv_version_cmp(stored, p->version) >= 0) return true;
    dkv_rule rule = DKV_RULE_LOST_WRITE;
    int64_t since_ns = p->newer ? 0 : p->invoked_ns;
    if (lost_at(world, key, node, p->version) >= since_ns) {
        rule = DKV_RULE_BELIEF;
        if (!in_sync || !p->believed || all_wiped(world)) return true;
        if (!is_kept_elsewhere(world, key, node, p->version)) return true;
        if (lost_unseen_at(world, key, node, p->version) >= since_ns) return true;
    }
    return dkv_check_fail(
        out, rule, p->op, NONE,
        "%s confirmed version " VERSION_FORMAT " of key %.*s and holds " VERSION_FORMAT,
        node_id(world, node), VERSION_ARGS(p->version), key->key.len < 32 ? (int)key->key.len : 32,
        (const char *)key->key.data, VERSION_ARGS(stored));
}

static bool check_running_node(const dkv_check *check, const dkv_world *world, uint16_t node,
                               dkv_violation *out) {
    dkv_node *running = dkv_world_node(world, node);
    dkv_node_status status;
    dkv_node_status_get(running, &status);
    for (const key_facts *key = check->first_key; key; key = key->next) {
        dkv_store_entry entry = {0};
        promise *p = &key->promises[node];
        if (dkv_version_is_none(p->version)) continue;
        if (dkv_store_peek(dkv_node_store(running), key->hash, &entry)) {
            entry.version = (dkv_version){0};
        }
        if (!check_promise(world, key, node, entry.version, status.in_sync, out)) return false;
        p->newer |= dkv_version_cmp(entry.version, p->version) > 0;
        p->believed |= status.in_sync && dkv_version_cmp(entry.version, p->version) >= 0;
    }
    return true;
}

bool dkv_check_running(dkv_check *check, dkv_world *world, dkv_violation *out) {
    if (!dkv_check_learn(check, world, out)) return false;
    for (uint16_t node = 0; node < check->n_nodes; node++) {
        if (!dkv_world_is_running(world, node)) continue;
        if (!check_running_node(check, world, node, out)) return false;
    }
    return true;
}

/* ---- disks ---- */

typedef struct disk_check {
    dkv_check *check;
    dkv_world *world;
    uint16_t node;
    const key_facts **keys;
    dkv_violation *out;
    bool ok;
} disk_check;

/* A value that is held or seen must have been written, and not denied. */
static bool check_content(const dkv_check *check, const dkv_world *world, uint64_t content,
                          const char *where, dkv_violation *out) {
    uint64_t writer = dkv_check_writer(check, content);
    if (writer == NONE) {
        return dkv_check_fail(out, DKV_RULE_INVENTED, NONE, NONE, "%s holds what nobody wrote",
                              where);
    }
    if (!dkv_check_is_denied(world, writer)) return true;
    return dkv_check_fail(out, DKV_RULE_DISHONEST, writer, NONE,
                          "%s holds the value of a write that was said to be not applied", where);
}

static bool check_record(disk_check *d, const key_facts *key, const dkv_record *record) {
    uint64_t token = key->hash.token;
    uint64_t content = dkv_check_content(token, record->kind, record->value);
    if (!dkv_check_see(d->check, record->version, token, record->kind, content, NONE, d->out)) {
        return false;
    }
    if (record->kind == DKV_KIND_TOMBSTONE) return true;
    return check_content(d->check, d->world, content, node_id(d->world, d->node), d->out);
}

static void inspect_key(void *user, size_t i, int err, const dkv_record *record) {
    disk_check *d = user;
    const key_facts *key = d->keys[i];
    if (!d->ok) return;
    dkv_version stored = err ? (dkv_version){0} : record->version;
    d->ok = check_promise(d->world, key, d->node, stored, false, d->out) &&
            (err || check_record(d, key, record));
}

bool dkv_check_disk(dkv_check *check, dkv_world *world, uint16_t node, dkv_violation *out) {
    if (!dkv_check_learn(check, world, out)) return false;
    disk_check d = {check, world, node, NULL, out, true};
    dkv_slice *keys = calloc(check->n_keys + 1, sizeof *keys);
    d.keys = calloc(check->n_keys + 1, sizeof *d.keys);
    int err = keys && d.keys ? DKV_OK : DKV_ERR_NO_MEMORY;
    size_t n = 0;
    for (const key_facts *key = check->first_key; !err && key; key = key->next) {
        d.keys[n] = key;
        keys[n++] = key->key;
    }
    if (!err) err = dkv_world_inspect(world, node, keys, n, inspect_key, &d);
    bool is_ruined = err == DKV_ERR_DATA_LOSS && dkv_world_damaged_at(world, node) >= 0;
    if (err && !is_ruined && d.ok) {
        d.ok =
            dkv_check_fail(out, DKV_RULE_ALARM, NONE, NONE, "the disk of %s cannot be opened: %s",
                           node_id(world, node), dkv_err_name(err));
    }
    free(keys);
    free(d.keys);
    return d.ok;
}

/* ---- what running nodes hold ---- */

static void check_held(void *user, uint16_t node, dkv_key_hash hash, const dkv_store_entry *entry,
                       int err, const dkv_record *record) {
    disk_check *d = user;
    key_facts *key = dkv_map_get(&d->check->keys, hash.token);
    if (!d->ok) return;
    d->node = node;
    if (!key) {
        d->ok = dkv_check_fail(d->out, DKV_RULE_INVENTED, NONE, NONE,
                               "%s holds a key that nobody wrote", node_id(d->world, node));
        return;
    }
    uint64_t last_op = key->ops[key->n_ops - 1]; /* so that the history of the key is shown */
    if (err) {
        d->ok = dkv_check_fail(d->out, DKV_RULE_WHOLE, last_op, NONE,
                               "%s cannot read its record of %.*s: %s", node_id(d->world, node),
                               key->key.len < 32 ? (int)key->key.len : 32,
                               (const char *)key->key.data, dkv_err_name(err));
        return;
    }
    d->ok = check_record(d, key, record);
    promise *p = &key->promises[node];
    if (!entry->durable || dkv_version_cmp(entry->version, p->version) < 0) return;
    *p = (promise){entry->version, last_op, dkv_world_now(d->world), false, false};
}

bool dkv_check_whole(dkv_check *check, dkv_world *world, dkv_violation *out) {
    if (!dkv_check_learn(check, world, out)) return false;
    disk_check d = {check, world, 0, NULL, out, true};
    int err = dkv_world_read_held(world, check_held, &d);
    if (err && d.ok) {
        d.ok = dkv_check_fail(out, DKV_RULE_ALARM, NONE, NONE, "%s", dkv_err_name(err));
    }
    return d.ok;
}

/* ---- single answers ---- */

static bool check_attempt(const dkv_world *world, const dkv_sim_attempt *attempt,
                          dkv_violation *out) {
    const dkv_sim_op *op = dkv_world_op(world, attempt->op);
    uint32_t timeout_ms = op->request.timeout_ms;
    if (!timeout_ms) timeout_ms = DKV_TIMEOUT_DEFAULT_MS;
    int64_t most_ns = dkv_ns_of_ms(timeout_ms) + ANSWER_SLACK_NS;
    if (attempt->arrived_ns < 0) return true;
    if (attempt->replies > 1) {
        return dkv_check_fail(out, DKV_RULE_ANSWER, attempt->op, NONE,
                              "%s answered %" PRIu32 " times", node_id(world, attempt->node),
                              attempt->replies);
    }
    if (attempt->replies == 0 && !attempt->cut_off) {
        return dkv_check_fail(out, DKV_RULE_ANSWER, attempt->op, NONE, "%s never answered",
                              node_id(world, attempt->node));
    }
    if (attempt->replies && attempt->active_ns > most_ns) {
        return dkv_check_fail(out, DKV_RULE_ANSWER, attempt->op, NONE,
                              "%s answered after %" PRId64 " ms", node_id(world, attempt->node),
                              attempt->active_ns / 1000000);
    }
    return true;
}

static bool any_damage(const dkv_world *world) {
    for (uint16_t i = 0; i < dkv_ring_map(dkv_world_ring(world))->n_members; i++) {
        if (dkv_world_damaged_at(world, i) >= 0) return true;
    }
    return false;
}

static bool check_alarm(const dkv_world *world, uint64_t number, dkv_violation *out) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    int err = op->result.err;
    if (err == DKV_ERR_INTERNAL || err == DKV_ERR_PROTOCOL || err == DKV_ERR_EPOCH ||
        (err == DKV_ERR_DATA_LOSS && !any_damage(world))) {
        return dkv_check_fail(out, DKV_RULE_ALARM, number, NONE, "answered %s: %s",
                              dkv_err_name(err), op->result.detail);
    }
    return true;
}

/* The version of a write: nowhere if the write was denied, else its own alone. */
static bool check_version(dkv_check *check, const dkv_world *world, const key_facts *key,
                          uint64_t number, dkv_violation *out) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    dkv_version version = dkv_check_version(world, number);
    if (dkv_version_is_none(version)) return true;
    if (dkv_check_is_denied(world, number)) {
        if (!dkv_check_was_seen(check, version)) return true;
        return dkv_check_fail(out, DKV_RULE_DISHONEST, number, NONE,
                              "its version was sent though it was said to be not applied");
    }
    if (dkv_version_cmp(version, op->request.last_seen) <= 0) {
        return dkv_check_fail(out, DKV_RULE_ORDER, number, NONE,
                              "version " VERSION_FORMAT
                              " is not newer than last_seen " VERSION_FORMAT,
                              VERSION_ARGS(version), VERSION_ARGS(op->request.last_seen));
    }
    dkv_kind kind = op->request.op == DKV_OP_PUT ? DKV_KIND_VALUE : DKV_KIND_TOMBSTONE;
    return dkv_check_see(check, version, key->hash.token, kind,
                         dkv_check_content_of(op, key->hash.token), number, out);
}

static bool check_outcome(const dkv_world *world, uint64_t number, dkv_violation *out) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    const dkv_sim_result *result = &op->result;
    bool applied = result->outcome == DKV_OUTCOME_APPLIED;
    if ((result->err == DKV_OK) != applied || result->outcome == DKV_OUTCOME_NONE ||
        (applied && dkv_version_is_none(result->version))) {
        return dkv_check_fail(out, DKV_RULE_DISHONEST, number, NONE,
                              "outcome %d does not go with %s", (int)result->outcome,
                              dkv_err_name(result->err));
    }
    if (applied && result->holding.n < needs(world, op)) {
        return dkv_check_fail(out, DKV_RULE_TOO_FEW, number, NONE, "%u of %u replicas hold it",
                              result->holding.n, needs(world, op));
    }
    return true;
}

static bool check_value(dkv_check *check, const dkv_world *world, const key_facts *key,
                        uint64_t number, dkv_violation *out) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    uint64_t content = dkv_check_content(key->hash.token, DKV_KIND_VALUE, op->result.value);
    uint64_t writer = dkv_check_writer(check, content);
    if (writer == NONE || dkv_world_op(world, writer)->invoked_ns > op->answered_ns) {
        return dkv_check_fail(out, DKV_RULE_INVENTED, number, NONE,
                              "nobody had written what it read");
    }
    if (dkv_check_is_denied(world, writer)) {
        return dkv_check_fail(out, DKV_RULE_DISHONEST, number, writer,
                              "it read a write that was said to be not applied");
    }
    return dkv_check_see(check, op->result.version, key->hash.token, DKV_KIND_VALUE, content,
                         writer, out);
}

/* ---- pairs of operations ---- */

typedef int64_t (*last_loss)(const dkv_world *world, const key_facts *key, uint16_t node,
                             dkv_version version);

/* How many replicas of the key have so lost this version or a newer one since `since_ns`. */
static unsigned count_lost(const dkv_world *world, const key_facts *key, last_loss last_at,
                           dkv_version version, int64_t since_ns) {
    const dkv_ring *ring = dkv_world_ring(world);
    const uint16_t *list = dkv_ring_replicas(ring, key->hash.token);
    unsigned lost = 0;
    for (unsigned i = 0; i < dkv_ring_replication(ring); i++) {
        lost += last_at(world, key, list[i], version) >= since_ns;
    }
    return lost;
}

/* True if every node that confirmed the write may have lost it, or one without knowing. */
static bool is_gone(const dkv_world *world, const key_facts *key, const dkv_sim_op *write) {
    dkv_version version = write->result.version;
    const dkv_sim_nodes *holding = &write->result.holding;
    if (count_lost(world, key, lost_unseen_at, version, write->invoked_ns) > 0) return true;
    for (uint8_t i = 0; i < holding->n; i++) {
        if (lost_at(world, key, holding->nodes[i], version) < write->invoked_ns) return false;
    }
    return true;
}

static bool is_before(const dkv_sim_op *first, const dkv_sim_op *second) {
    return first->answered_ns >= 0 && first->answered_ns < second->invoked_ns;
}

/* A delete that may have come after `version` and before `read` ended. */
static bool was_deleted(const dkv_world *world, const key_facts *key, dkv_version version,
                        const dkv_sim_op *read) {
    for (size_t i = 0; i < key->n_ops; i++) {
        const dkv_sim_op *op = dkv_world_op(world, key->ops[i]);
        if (op->request.op != DKV_OP_DELETE || op->invoked_ns > read->answered_ns) continue;
        if (dkv_check_is_denied(world, key->ops[i])) continue;
        dkv_version deleted = dkv_check_version(world, key->ops[i]);
        if (dkv_version_is_none(deleted) || dkv_version_cmp(deleted, version) > 0) return true;
    }
    return false;
}

/* `write` was confirmed before `read` began, and at least one node has a part in both. A node that
 * has lost something may still supply a value at level one, but its word counts for nothing else.
 */
static bool check_read_after(const dkv_world *world, const key_facts *key, uint64_t write_number,
                             uint64_t read_number, dkv_violation *out) {
    const dkv_sim_op *write = dkv_world_op(world, write_number);
    const dkv_sim_op *read = dkv_world_op(world, read_number);
    if (is_gone(world, key, write)) return true;
    dkv_version version = write->result.version;
    bool may_be_old =
        needs(world, read) == 1 && count_lost(world, key, lost_at, version, write->invoked_ns) > 0;
    if (read->result.err == DKV_OK && !may_be_old &&
        dkv_version_cmp(read->result.version, version) < 0) {
        return dkv_check_fail(out, DKV_RULE_STALE, read_number, write_number,
                              "read version " VERSION_FORMAT " after " VERSION_FORMAT
                              " was confirmed",
                              VERSION_ARGS(read->result.version), VERSION_ARGS(version));
    }
    if (read->result.err == DKV_ERR_NOT_FOUND && write->request.op == DKV_OP_PUT &&
        !was_deleted(world, key, version, read)) {
        return dkv_check_fail(out, DKV_RULE_ABSENCE, read_number, write_number,
                              "the key was said to be absent");
    }
    return true;
}

/* True if as many replicas as are a quorum have lost this version of the key, or one without
 * knowing: all that had it may have lost it before they were healed. */
static bool is_quorum_damaged(const dkv_world *world, const key_facts *key, dkv_version version) {
    unsigned quorum = dkv_ring_replication(dkv_world_ring(world)) / 2 + 1;
    return count_lost(world, key, lost_at, version, 0) >= quorum ||
           count_lost(world, key, lost_unseen_at, version, 0) > 0;
}

/* `first` ended before `second` began; both are reads of a quorum. */
static bool check_read_after_read(const dkv_world *world, const key_facts *key, uint64_t first,
                                  uint64_t second, dkv_violation *out) {
    const dkv_sim_op *before = dkv_world_op(world, first);
    const dkv_sim_op *after = dkv_world_op(world, second);
    dkv_version version = before->result.version;
    if (is_quorum_damaged(world, key, version)) return true;
    bool is_older = after->result.err == DKV_OK
                        ? dkv_version_cmp(after->result.version, version) < 0
                        : !was_deleted(world, key, version, after);
    if (!is_older) return true;
    return dkv_check_fail(out, DKV_RULE_READ_ORDER, second, first,
                          "read version " VERSION_FORMAT " after " VERSION_FORMAT " was read",
                          VERSION_ARGS(after->result.version), VERSION_ARGS(version));
}

/* A read at level ONE promises no order, also where one replica is a quorum. */
static bool asks_quorum(const dkv_sim_op *read) {
    return read->request.level == DKV_LEVEL_QUORUM || read->request.level == DKV_LEVEL_ALL;
}

/* What follows for the read `number` from all reads of its key before it. */
static bool check_after_reads(const dkv_world *world, const key_facts *key, uint64_t number,
                              dkv_violation *out) {
    const dkv_sim_op *read = dkv_world_op(world, number);
    bool counts = read->result.err == DKV_OK || read->result.err == DKV_ERR_NOT_FOUND;
    if (!counts || !asks_quorum(read)) return true;
    for (size_t i = 0; i < key->n_ops; i++) {
        const dkv_sim_op *before = dkv_world_op(world, key->ops[i]);
        bool found = !is_write(before) && before->result.err == DKV_OK;
        if (!found || !asks_quorum(before) || !is_before(before, read)) continue;
        if (!check_read_after_read(world, key, key->ops[i], number, out)) return false;
    }
    return true;
}

static bool check_write_after(const dkv_world *world, const key_facts *key, uint64_t first_number,
                              uint64_t second_number, dkv_violation *out) {
    const dkv_sim_op *first = dkv_world_op(world, first_number);
    dkv_version version = dkv_check_version(world, second_number);
    unsigned all = dkv_ring_replication(dkv_world_ring(world));
    if (needs(world, first) < all || dkv_version_is_none(version)) return true;
    if (dkv_version_cmp(version, first->result.version) > 0) return true;
    if (count_lost(world, key, lost_at, first->result.version, first->invoked_ns) > 0) return true;
    return dkv_check_fail(out, DKV_RULE_ORDER, second_number, first_number,
                          "version " VERSION_FORMAT " was issued after " VERSION_FORMAT
                          " was confirmed",
                          VERSION_ARGS(version), VERSION_ARGS(first->result.version));
}

/* What follows for operation `number` from all confirmed writes of its key before it. */
static bool check_after_writes(const dkv_world *world, const key_facts *key, uint64_t number,
                               dkv_violation *out) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    unsigned all = dkv_ring_replication(dkv_world_ring(world));
    for (size_t i = 0; i < key->n_ops; i++) {
        const dkv_sim_op *write = dkv_world_op(world, key->ops[i]);
        bool confirmed = is_write(write) && write->result.err == DKV_OK;
        if (!confirmed || !is_before(write, op)) continue;
        if (is_write(op)) {
            if (!check_write_after(world, key, key->ops[i], number, out)) return false;
        } else if (needs(world, write) + needs(world, op) > all) {
            if (!check_read_after(world, key, key->ops[i], number, out)) return false;
        }
    }
    return true;
}

/* ---- replicas together ---- */

typedef struct first_difference {
    const dkv_world *world;
    dkv_violation *out;
} first_difference;

/* Appends to the text of the violation, as far as there is room. */
static void say(dkv_violation *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(dkv_violation *out, const char *format, ...) {
    size_t len = strlen(out->text);
    va_list args;
    va_start(args, format);
    vsnprintf(out->text + len, sizeof out->text - len, format, args);
    va_end(args);
}

/* The last operation on a key, so that its history is shown. */
static uint64_t last_op(const dkv_world *world, dkv_slice key) {
    for (uint64_t op = dkv_world_ops(world); op-- > 0;) {
        if (dkv_slice_eq(dkv_world_op(world, op)->request.key, key)) return op;
    }
    return NONE;
}

static void describe_first(void *user, const dkv_sim_difference *what) {
    const first_difference *d = user;
    if (d->out->text[0]) return;
    d->out->ops[0] = last_op(d->world, what->key);
    say(d->out, "of %.*s", what->key.len < 32 ? (int)what->key.len : 32,
        (const char *)what->key.data);
    for (unsigned i = 0; i < what->n; i++) {
        const dkv_store_entry *held = &what->held[i];
        if (dkv_version_is_none(held->version)) {
            say(d->out, ", %s holds nothing", node_id(d->world, what->nodes[i]));
        } else {
            say(d->out, ", %s holds %s " VERSION_FORMAT, node_id(d->world, what->nodes[i]),
                held->kind == DKV_KIND_VALUE ? "value" : "tombstone", VERSION_ARGS(held->version));
        }
    }
}

bool dkv_check_converged(dkv_world *world, dkv_violation *out) {
    uint64_t count = 0;
    dkv_violation made = {.rule = DKV_RULE_CONVERGED, .ops = {NONE, NONE}};
    first_difference first = {world, &made};
    int err = dkv_world_differences(world, describe_first, &first, &count);
    if (err) return dkv_check_fail(out, DKV_RULE_ALARM, NONE, NONE, "%s", dkv_err_name(err));
    if (count == 0) return true;
    say(&made, "; %" PRIu64 " keys differ", count);
    *out = made;
    return false;
}

/* ---- all together ---- */

static bool check_op(dkv_check *check, const dkv_world *world, const key_facts *key,
                     uint64_t number, dkv_violation *out) {
    const dkv_sim_op *op = dkv_world_op(world, number);
    if (op->answered_ns < 0) {
        return dkv_check_fail(out, DKV_RULE_ANSWER, number, NONE, "the client was never answered");
    }
    if (!check_alarm(world, number, out)) return false;
    if (is_write(op) &&
        (!check_outcome(world, number, out) || !check_version(check, world, key, number, out))) {
        return false;
    }
    if (!is_write(op) && op->result.err == DKV_OK && !check_value(check, world, key, number, out)) {
        return false;
    }
    if (!is_write(op) && !check_after_reads(world, key, number, out)) return false;
    return check_after_writes(world, key, number, out);
}

/* What nodes sent each other to store. */
static bool check_sightings(const dkv_check *check, const dkv_world *world, dkv_violation *out) {
    for (const sighting *s = check->sightings; s; s = s->next) {
        if (s->kind == DKV_KIND_VALUE &&
            !check_content(check, world, s->content, "a message", out)) {
            return false;
        }
    }
    return true;
}

bool dkv_check_history(dkv_check *check, dkv_world *world, dkv_violation *out) {
    if (!dkv_check_learn(check, world, out)) return false;
    for (const key_facts *key = check->first_key; key; key = key->next) {
        for (size_t i = 0; i < key->n_ops; i++) {
            if (!check_op(check, world, key, key->ops[i], out)) return false;
        }
    }
    for (uint64_t a = 1; a <= dkv_world_attempts(world); a++) {
        if (!check_attempt(world, dkv_world_attempt(world, a), out)) return false;
    }
    return check_sightings(check, world, out);
}
