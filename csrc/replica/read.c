/* One client's get. See replica.h for the rules; `in_sync_heard` and the progress values
 * (internal.h) carry them. A replica that is not in sync may supply a record, but its answer does
 * not count towards QUORUM or ALL, nor for absence: it may have lost a newer one. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/plant.h"
#include "replica/heal.h"
#include "replica/internal.h"

static bool asks_many(const read_request *q) {
    return q->r.level == DKV_LEVEL_QUORUM || q->r.level == DKV_LEVEL_ALL;
}

void dkv_read_del(read_request *q) {
    dkv_buf_free(&q->value);
    free(q);
}

/* Replicas that answered differently are healed, if this node is one of them. So are those that
 * could not be given the newest record; and all, if this node was given it: a hint that was left
 * for them when the record was written may have met the older one here. */
static void leave_hints(dkv_replica *replica, const read_request *q) {
    if (!q->found || q->r.mine < 0) return;
    unsigned mine = (unsigned)q->r.mine;
    bool has = DKV_SET(q->r.progress[mine]) & (DKV_SET(HAS) | DKV_SET(MENDING));
    for (unsigned i = 0; i < q->r.n; i++) {
        unsigned set = DKV_SET(q->r.progress[i]);
        bool mended = q->mended & (1u << mine | 1u << i);
        bool lacks = mended ? !(set & DKV_SET(HAS)) : set & (DKV_SET(HAS_LESS) | DKV_SET(HAS_NONE));
        bool differs = has ? lacks : set & DKV_SET(HAS);
        if (i != mine && differs) dkv_heal_hint(replica->heal, q->r.list[i], q->r.hash.token);
    }
}

static void end(dkv_replica *replica, read_request *q) {
    leave_hints(replica, q);
    dkv_replica_forget(replica, &q->r);
    dkv_read_del(q);
}

static void reply_value(dkv_replica *replica, const dkv_moment *at, read_request *q,
                        dkv_slice value) {
    dkv_reply reply = {
        .version = q->version,
        .value = value,
        .holding = dkv_replica_names(replica, &q->r, DKV_SET(HAS)),
    };
    dkv_replica_reply(replica, at, q->r.to, q->r.op, &reply);
    end(replica, q);
}

void dkv_read_fail(dkv_replica *replica, const dkv_moment *at, read_request *q, int err,
                   const char *why) {
    char names[NAMES_TEXT], detail[DKV_DETAIL_MAX];
    /* Who can still answer does not stand in the way, unless it is too late for that. */
    unsigned stuck = DKV_SET(FAILED) | DKV_SET(NOT_IN_SYNC);
    if (err == DKV_ERR_DEADLINE) stuck = DKV_SET_ALL & ~ANSWERED;
    /* Who has not answered may have it. */
    if (err == DKV_ERR_NOT_FOUND) stuck = DKV_SET_ALL & ~(ANSWERED | DKV_SET(NOT_IN_SYNC));
    dkv_node_names missing = dkv_replica_names(replica, &q->r, stuck);
    dkv_replica_list(names, sizeof names, missing);
    if (err == DKV_ERR_NOT_FOUND) {
        snprintf(detail, sizeof detail, "%s", why);
    } else {
        snprintf(detail, sizeof detail, "%s; no answer that counts from: %s", why, names);
    }
    dkv_reply reply = {.err = err, .missing = missing, .detail = dkv_slice_of(detail)};
    dkv_replica_reply(replica, at, q->r.to, q->r.op, &reply);
    end(replica, q);
}

static bool is_conclusive(const read_request *q) {
    return (q->found && q->kind == DKV_KIND_VALUE) || q->in_sync_heard;
}

/* Answers with what is known; `err` if that is not enough. */
void dkv_read_conclude(dkv_replica *replica, const dkv_moment *at, read_request *q, int err) {
    if (q->found && q->kind == DKV_KIND_VALUE) {
        reply_value(replica, at, q, dkv_buf_slice(&q->value));
    } else if (q->damaged && !q->found) {
        dkv_read_fail(replica, at, q, DKV_ERR_DATA_LOSS,
                      "a replica's record of the key is damaged and no other replica has one");
    } else if (q->in_sync_heard) {
        dkv_read_fail(replica, at, q, DKV_ERR_NOT_FOUND, dkv_err_sentence(DKV_ERR_NOT_FOUND));
    } else if (err == DKV_ERR_DEADLINE) {
        dkv_read_fail(replica, at, q, err, "the deadline passed before a replica answered");
    } else {
        dkv_read_fail(replica, at, q, err,
                      "no replica that is in sync could be asked whether the key exists");
    }
}

/* ---- answers of single replicas ---- */

static void note_absence(read_request *q, unsigned i, bool in_sync) {
    q->r.progress[i] = in_sync ? HAS_NONE : NOT_IN_SYNC;
    q->in_sync_heard |= in_sync;
}

/* The same version must be the same write. Values are compared where both are at hand. */
static bool contradicts(const read_request *q, const dkv_fetched *answer) {
    const dkv_record *record = &answer->record;
    if (record->kind != q->kind || answer->len_bytes != q->len_bytes) return true;
    bool both = !answer->version_only && q->has_value;
    return both && !dkv_slice_eq(record->value, dkv_buf_slice(&q->value));
}

/* The record of replica `i` is newer than all before. */
static void note_newest(read_request *q, unsigned i, const dkv_fetched *answer) {
    for (unsigned j = 0; j < q->r.n; j++) {
        unsigned had = DKV_SET(HAS) | DKV_SET(MENDING);
        if (DKV_SET(q->r.progress[j]) & had) q->r.progress[j] = HAS_LESS;
    }
    q->found = true;
    q->has_value = false;
    q->len_bytes = answer->len_bytes;
    q->source = (uint8_t)i;
    q->version = answer->record.version;
    q->kind = answer->record.kind;
}

/* How far the request is with a replica that has answered with the newest record or an older one.
 * Where several replicas count, one whose record could still be lost has to confirm it first. */
static progress progress_after(const read_request *q, const dkv_fetched *answer, bool is_newest) {
    if (!answer->in_sync) return NOT_IN_SYNC;
    return is_newest && (answer->durable || !asks_many(q)) ? HAS : HAS_LESS;
}

/* Takes in a record, with its value or without. Returns true if it ends the request, which is then
 * gone. */
static bool note_record(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i,
                        const dkv_fetched *answer) {
    int newer = q->found ? dkv_version_cmp(answer->record.version, q->version) : 1;
    if (DKV_PLANTED(BELIEVE_OLDER) && q->found) newer = -newer;
    dkv_clock_observe(&replica->clock, at->wall_ms, answer->record.version.hlc);
    if (newer == 0 && contradicts(q, answer)) {
        dkv_replica_alarm(at, answer->record.version);
        dkv_read_fail(replica, at, q, DKV_ERR_DATA_LOSS,
                      "two replicas hold different records of the same version");
        return true;
    }
    q->in_sync_heard |= answer->in_sync;
    if (newer > 0) note_newest(q, i, answer);
    if (newer > 0 && !asks_many(q) && q->kind == DKV_KIND_VALUE) {
        q->r.progress[i] = HAS;
        reply_value(replica, at, q, answer->record.value); /* no copy on the common path */
        return true;
    }
    q->r.progress[i] = (uint8_t)progress_after(q, answer, newer >= 0);
    if (newer < 0 || answer->version_only || q->has_value) return false;
    q->has_value = true;
    q->value.len = 0;
    if (dkv_buf_append(&q->value, answer->record.value)) {
        dkv_read_fail(replica, at, q, DKV_ERR_NO_MEMORY, "the node is out of memory");
        return true;
    }
    return false;
}

/* ---- asking ---- */

static void ask_own_store(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    unsigned i = (unsigned)q->r.mine;
    dkv_store_entry entry;
    bool in_sync = dkv_trust_believes(replica->options.trust, q->r.hash.token);
    q->value_asked = true;
    if (dkv_store_peek(replica->options.store, q->r.hash, &entry)) {
        note_absence(q, i, in_sync);
    } else if (entry.kind == DKV_KIND_TOMBSTONE) {
        dkv_fetched answer = dkv_replica_fetched_entry(&entry);
        answer.in_sync = in_sync;
        note_record(replica, at, q, i, &answer); /* without a value: never the end */
    } else {
        int err = dkv_store_read(replica->options.store, q->r.key, q->r.hash, q->r.task.id);
        q->r.progress[i] = err ? FAILED : ASKED;
    }
}

static void ask_peer(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i,
                     bool with_value) {
    dkv_message message = {.kind = DKV_MSG_FETCH, .id = q->r.task.id, .fetch.key = q->r.key};
    switch (dkv_peers_want(replica->options.peers, at, q->r.list[i])) {
    case DKV_REACH_UP:
        message.fetch.version_only = !with_value;
        dkv_peers_send(replica->options.peers, at, q->r.list[i], &message);
        q->value_asked |= with_value;
        q->r.progress[i] = ASKED;
        break;
    case DKV_REACH_DOWN: q->r.progress[i] = FAILED; break;
    default: q->r.progress[i] = WAITING; break;
    }
}

void dkv_read_ask(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i,
                  bool with_value) {
    if (dkv_replica_is_mine(&q->r, i)) {
        ask_own_store(replica, at, q);
    } else {
        ask_peer(replica, at, q, i, with_value);
    }
}

/* Of several replicas one is enough to send the value. */
static void ask(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i) {
    dkv_read_ask(replica, at, q, i, !asks_many(q) || !q->value_asked);
}

static void ask_all(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    for (unsigned i = 0; i < q->r.n; i++) {
        if (q->r.progress[i] == AT_REST) ask(replica, at, q, i);
    }
}

/* The next replica in order that was not asked yet, −1 if there is none. */
static int next_to_ask(const read_request *q) {
    if (q->failover && q->r.mine >= 0 && q->r.progress[q->r.mine] == AT_REST) return q->r.mine;
    for (int i = 0; i < q->r.n; i++) {
        if (q->r.progress[i] == AT_REST) return i;
    }
    return -1;
}

static bool was_missed(const read_request *q) {
    return q->in_sync_heard || q->found || q->damaged ||
           dkv_replica_count(&q->r, DKV_SET(NOT_IN_SYNC));
}

/* Level ONE: asks on until somebody has to be waited for. */
static void proceed_one(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (was_missed(q)) {
        ask_all(replica, at, q);
    } else {
        int i;
        while (!dkv_replica_count(&q->r, PENDING) && (i = next_to_ask(q)) >= 0) {
            ask(replica, at, q, (unsigned)i);
            if (was_missed(q)) ask_all(replica, at, q);
        }
    }
    if (!dkv_replica_count(&q->r, PENDING)) {
        dkv_read_conclude(replica, at, q, DKV_ERR_UNAVAILABLE);
        return;
    }
    int64_t until_ns = at->now_ns + dkv_ns_of_ms(replica->options.timing.attempt_ms);
    dkv_replica_set_timer(replica, &q->r,
                          until_ns < q->r.deadline_ns ? until_ns : q->r.deadline_ns);
}

static void proceed(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (asks_many(q)) {
        dkv_read_proceed_many(replica, at, q);
    } else {
        proceed_one(replica, at, q);
    }
}

void dkv_read_begin(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (asks_many(q)) {
        if (q->r.mine >= 0) ask(replica, at, q, (unsigned)q->r.mine);
        ask_all(replica, at, q);
    }
    proceed(replica, at, q);
}

/* ---- events ---- */

void dkv_read_stored(dkv_replica *replica, const dkv_moment *at, read_request *q,
                     const dkv_store_event *event) {
    unsigned i = (unsigned)q->r.mine;
    if (event->kind == DKV_STORE_DURABLE) {
        dkv_read_mended(replica, at, q, q->r.list[i], event->err);
        return;
    }
    if (event->err) {
        q->r.progress[i] = FAILED;
        q->damaged |= event->err == DKV_ERR_DATA_LOSS;
    } else {
        dkv_fetched answer = dkv_replica_fetched_record(replica, q->r.hash, &event->record);
        answer.in_sync = dkv_trust_believes(replica->options.trust, q->r.hash.token);
        if (note_record(replica, at, q, i, &answer)) return;
    }
    proceed(replica, at, q);
}

void dkv_read_answered(dkv_replica *replica, const dkv_moment *at, read_request *q, uint16_t peer,
                       const dkv_message *message) {
    int i = dkv_replica_place(&q->r, peer);
    if (i < 0 || q->r.progress[i] != ASKED) return;
    switch (message->fetch_reply.err) {
    case DKV_OK:
        if (note_record(replica, at, q, (unsigned)i, &message->fetch_reply)) return;
        break;
    case DKV_ERR_NOT_FOUND: note_absence(q, (unsigned)i, message->fetch_reply.in_sync); break;
    default:
        q->r.progress[i] = FAILED;
        q->damaged |= message->fetch_reply.err == DKV_ERR_DATA_LOSS;
        break;
    }
    proceed(replica, at, q);
}

void dkv_read_mended(dkv_replica *replica, const dkv_moment *at, read_request *q, uint16_t peer,
                     int err) {
    int i = dkv_replica_place(&q->r, peer);
    if (i < 0 || q->mends_out[i] == 0 || --q->mends_out[i] > 0) return; /* an older record's */
    if (q->r.progress[i] != MENDING) return;
    q->r.progress[i] = err ? FAILED : HAS;
    proceed(replica, at, q);
}

void dkv_read_peer_changed(dkv_replica *replica, const dkv_moment *at, read_request *q,
                           uint16_t peer) {
    int i = dkv_replica_place(&q->r, peer);
    bool up = dkv_peers_reach(replica->options.peers, peer) == DKV_REACH_UP;
    if (up && q->r.progress[i] == WAITING) {
        ask(replica, at, q, (unsigned)i);
    } else if (!up && (DKV_SET(q->r.progress[i]) & (PENDING | DKV_SET(MENDING)))) {
        q->r.progress[i] = FAILED;
        proceed(replica, at, q);
    }
}

void dkv_read_timer(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (at->now_ns >= q->r.deadline_ns) {
        if (asks_many(q)) { /* with fewer answers than asked for, even a record may be too old */
            dkv_read_fail(replica, at, q, DKV_ERR_DEADLINE,
                          "the deadline passed before enough replicas answered");
        } else {
            dkv_read_conclude(replica, at, q, DKV_ERR_DEADLINE);
        }
        return;
    }
    int i = next_to_ask(q);
    if (i >= 0) {
        ask(replica, at, q, (unsigned)i);
        proceed(replica, at, q);
    } else if (is_conclusive(q)) { /* who has not answered by now cannot be reached */
        dkv_read_conclude(replica, at, q, DKV_ERR_UNAVAILABLE);
    }
}
