/* One client's get. See replica.h for the rules; `in_sync_heard` and the progress values
 * (internal.h) carry them. A replica that is not in sync may supply a record, but its answer does
 * not count towards QUORUM or ALL, nor for absence: it may have lost a newer one. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/plant.h"
#include "replica/internal.h"

#define PENDING (DKV_SET(ASKED) | DKV_SET(WAITING))
#define ANSWERED (DKV_SET(HAS) | DKV_SET(HAS_LESS) | DKV_SET(HAS_NONE))

static bool asks_many(const read_request *q) {
    return q->r.level == DKV_LEVEL_QUORUM || q->r.level == DKV_LEVEL_ALL;
}

void dkv_read_del(read_request *q) {
    dkv_buf_free(&q->value);
    free(q);
}

static void end(dkv_replica *replica, read_request *q) {
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

static void reply_error(dkv_replica *replica, const dkv_moment *at, read_request *q, int err,
                        const char *why) {
    char names[NAMES_TEXT], detail[DKV_DETAIL_MAX];
    /* Who can still answer does not stand in the way, unless it is too late for that. */
    unsigned stuck = DKV_SET(FAILED) | DKV_SET(NOT_IN_SYNC);
    if (err == DKV_ERR_DEADLINE) stuck = DKV_SET_ALL & ~ANSWERED;
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
static void conclude(dkv_replica *replica, const dkv_moment *at, read_request *q, int err) {
    if (q->found && q->kind == DKV_KIND_VALUE) {
        reply_value(replica, at, q, dkv_buf_slice(&q->value));
    } else if (q->damaged && !q->found) {
        reply_error(replica, at, q, DKV_ERR_DATA_LOSS,
                    "a replica's record of the key is damaged and no other replica has one");
    } else if (q->in_sync_heard) {
        reply_error(replica, at, q, DKV_ERR_NOT_FOUND, dkv_err_sentence(DKV_ERR_NOT_FOUND));
    } else if (err == DKV_ERR_DEADLINE) {
        reply_error(replica, at, q, err, "the deadline passed before a replica answered");
    } else {
        reply_error(replica, at, q, err,
                    "no replica that is in sync could be asked whether the key exists");
    }
}

/* ---- answers of single replicas ---- */

static void note_absence(read_request *q, unsigned i, bool in_sync) {
    q->r.progress[i] = in_sync ? HAS_NONE : NOT_IN_SYNC;
    q->in_sync_heard |= in_sync;
}

/* The same version must be the same write. */
static bool contradicts(const read_request *q, const dkv_record *record) {
    return record->kind != q->kind || !dkv_slice_eq(record->value, dkv_buf_slice(&q->value));
}

/* Takes in a record. Returns true if it ends the request, which is then gone. */
static bool note_record(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i,
                        const dkv_record *record, bool in_sync) {
    int newer = q->found ? dkv_version_cmp(record->version, q->version) : 1;
    if (DKV_PLANTED(BELIEVE_OLDER) && q->found) newer = -newer;
    dkv_clock_observe(&replica->clock, at->wall_ms, record->version.hlc);
    if (newer == 0 && contradicts(q, record)) {
        dkv_replica_alarm(at, record->version);
        reply_error(replica, at, q, DKV_ERR_DATA_LOSS,
                    "two replicas hold different records of the same version");
        return true;
    }
    q->in_sync_heard |= in_sync;
    if (newer > 0) {
        for (unsigned j = 0; j < q->r.n; j++) {
            if (q->r.progress[j] == HAS) q->r.progress[j] = HAS_LESS;
        }
        q->found = true;
        q->version = record->version;
        q->kind = record->kind;
    }
    q->r.progress[i] = newer >= 0 ? HAS : HAS_LESS;
    if (newer > 0 && !asks_many(q) && q->kind == DKV_KIND_VALUE) {
        reply_value(replica, at, q, record->value); /* no copy on the common path */
        return true;
    }
    if (!in_sync) q->r.progress[i] = NOT_IN_SYNC;
    if (newer <= 0) return false;
    q->value.len = 0;
    if (dkv_buf_append(&q->value, record->value)) {
        reply_error(replica, at, q, DKV_ERR_NO_MEMORY, "the node is out of memory");
        return true;
    }
    return false;
}

/* ---- asking ---- */

static void ask_own_store(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    unsigned i = (unsigned)q->r.mine;
    dkv_store_entry entry;
    bool in_sync = replica->options.trust->in_sync;
    if (dkv_store_peek(replica->options.store, q->r.hash, &entry)) {
        note_absence(q, i, in_sync);
    } else if (entry.kind == DKV_KIND_TOMBSTONE) {
        dkv_record tombstone = {.version = entry.version, .kind = entry.kind};
        note_record(replica, at, q, i, &tombstone, in_sync); /* without a value: never the end */
    } else {
        int err = dkv_store_read(replica->options.store, q->r.key, q->r.hash, q->r.task.id);
        q->r.progress[i] = err ? FAILED : ASKED;
    }
}

static void ask_peer(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i) {
    switch (dkv_peers_want(replica->options.peers, at, q->r.list[i])) {
    case DKV_REACH_UP: {
        dkv_message message = {.kind = DKV_MSG_FETCH, .id = q->r.task.id, .fetch = q->r.key};
        dkv_peers_send(replica->options.peers, at, q->r.list[i], &message);
        q->r.progress[i] = ASKED;
        break;
    }
    case DKV_REACH_DOWN: q->r.progress[i] = FAILED; break;
    default: q->r.progress[i] = WAITING; break;
    }
}

static void ask(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i) {
    if (dkv_replica_is_mine(&q->r, i)) {
        ask_own_store(replica, at, q);
    } else {
        ask_peer(replica, at, q, i);
    }
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
        conclude(replica, at, q, DKV_ERR_UNAVAILABLE);
        return;
    }
    int64_t until_ns = at->now_ns + dkv_ns_of_ms(replica->options.timing.attempt_ms);
    dkv_replica_set_timer(replica, &q->r,
                          until_ns < q->r.deadline_ns ? until_ns : q->r.deadline_ns);
}

static void proceed_many(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    unsigned answers = dkv_replica_count(&q->r, ANSWERED);
    if (answers >= q->r.needs) {
        conclude(replica, at, q, DKV_ERR_UNAVAILABLE);
    } else if (answers + dkv_replica_count(&q->r, PENDING) < q->r.needs) {
        char why[96];
        snprintf(why, sizeof why, "the read needs answers of %u of %u replicas, %u can give one",
                 q->r.needs, q->r.n, answers + dkv_replica_count(&q->r, PENDING));
        reply_error(replica, at, q, DKV_ERR_UNAVAILABLE, why);
    }
}

static void proceed(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (asks_many(q)) {
        proceed_many(replica, at, q);
    } else {
        proceed_one(replica, at, q);
    }
}

void dkv_read_begin(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (asks_many(q)) ask_all(replica, at, q);
    proceed(replica, at, q);
}

/* ---- events ---- */

void dkv_read_stored(dkv_replica *replica, const dkv_moment *at, read_request *q,
                     const dkv_store_event *event) {
    unsigned i = (unsigned)q->r.mine;
    if (event->err) {
        q->r.progress[i] = FAILED;
        q->damaged |= event->err == DKV_ERR_DATA_LOSS;
    } else if (note_record(replica, at, q, i, &event->record, replica->options.trust->in_sync)) {
        return;
    }
    proceed(replica, at, q);
}

void dkv_read_answered(dkv_replica *replica, const dkv_moment *at, read_request *q, uint16_t peer,
                       const dkv_message *message) {
    int i = dkv_replica_place(&q->r, peer);
    if (i < 0 || q->r.progress[i] != ASKED) return;
    switch (message->fetch_reply.err) {
    case DKV_OK:
        if (note_record(replica, at, q, (unsigned)i, &message->fetch_reply.record,
                        message->fetch_reply.in_sync)) {
            return;
        }
        break;
    case DKV_ERR_NOT_FOUND: note_absence(q, (unsigned)i, message->fetch_reply.in_sync); break;
    default:
        q->r.progress[i] = FAILED;
        q->damaged |= message->fetch_reply.err == DKV_ERR_DATA_LOSS;
        break;
    }
    proceed(replica, at, q);
}

void dkv_read_peer_changed(dkv_replica *replica, const dkv_moment *at, read_request *q,
                           uint16_t peer) {
    int i = dkv_replica_place(&q->r, peer);
    bool up = dkv_peers_reach(replica->options.peers, peer) == DKV_REACH_UP;
    if (up && q->r.progress[i] == WAITING) {
        ask(replica, at, q, (unsigned)i);
    } else if (!up && (DKV_SET(q->r.progress[i]) & PENDING)) {
        q->r.progress[i] = FAILED;
        proceed(replica, at, q);
    }
}

void dkv_read_timer(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (at->now_ns >= q->r.deadline_ns) {
        if (asks_many(q)) { /* with fewer answers than asked for, even a record may be too old */
            reply_error(replica, at, q, DKV_ERR_DEADLINE,
                        "the deadline passed before enough replicas answered");
        } else {
            conclude(replica, at, q, DKV_ERR_DEADLINE);
        }
        return;
    }
    int i = next_to_ask(q);
    if (i >= 0) {
        ask(replica, at, q, (unsigned)i);
        proceed(replica, at, q);
    } else if (is_conclusive(q)) { /* who has not answered by now cannot be reached */
        conclude(replica, at, q, DKV_ERR_UNAVAILABLE);
    }
}
