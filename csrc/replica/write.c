/* One client's put or delete.
 *
 * Invariants:
 * 1. Before `sent` is set nothing was written anywhere: an error until then is NOT_APPLIED.
 * 2. A version is issued once, after all known obstacles were checked, and `sent` is set with it.
 * 3. From then on the write ends as APPLIED when `needs` replicas have confirmed, or as UNKNOWN as
 *    soon as that can no longer happen, or at the deadline. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "replica/heal.h"
#include "replica/internal.h"

#define OBSTACLES_TEXT 184u /* bytes of a list of replicas with their reasons */

void dkv_write_del(write_request *w) {
    dkv_buf_free(&w->held);
    free(w);
}

static void end(dkv_replica *replica, write_request *w) {
    dkv_replica_forget(replica, &w->r);
    dkv_write_del(w);
}

static const char *verb(const write_request *w) {
    return w->r.op == DKV_OP_PUT ? "put" : "delete";
}

/* Remembers, for healing, which replicas have not confirmed what was begun. */
static void leave_hints(dkv_replica *replica, const write_request *w) {
    if (!w->sent || w->forwarded) return;
    for (unsigned i = 0; i < w->r.n; i++) {
        if (w->r.progress[i] == HAS) continue;
        for (unsigned k = 0; k < w->r.n; k++) {
            bool from_other = dkv_replica_is_mine(&w->r, i) && w->r.progress[k] == HAS;
            if (from_other) dkv_heal_hint(replica->heal, w->r.list[k], w->r.hash.token);
        }
        if (dkv_replica_is_mine(&w->r, i)) continue;
        dkv_heal_hint(replica->heal, w->r.list[i], w->r.hash.token);
    }
}

static void finish(dkv_replica *replica, write_request *w) {
    leave_hints(replica, w);
    end(replica, w);
}

/* Keeps an answered write while replicas have still to confirm it: usually they do, and need no
 * hint. False if there is nothing to wait for, or too much. */
static bool linger(dkv_replica *replica, write_request *w) {
    if (!dkv_replica_count(&w->r, DKV_SET(ASKED))) return false;
    if (w->forwarded || replica->lingering >= DKV_REQUESTS_MAX) return false;
    w->r.lingers = true;
    replica->counts.requests--;
    replica->lingering++;
    return true;
}

static void reply_and_end(dkv_replica *replica, const dkv_moment *at, write_request *w, int err,
                          dkv_outcome outcome, const char *detail) {
    dkv_reply reply = {
        .err = err,
        .outcome = outcome,
        .version = w->version,
        .holding = dkv_replica_names(replica, &w->r, DKV_SET(HAS)),
        .missing = dkv_replica_names(replica, &w->r, DKV_SET_ALL & ~DKV_SET(HAS)),
        .detail = dkv_slice_of(detail),
    };
    if (!w->sent) { /* the others were able and willing: they do not stand in the way */
        bool any_failed = dkv_replica_count(&w->r, DKV_SET(FAILED)) > 0;
        progress stuck = any_failed ? FAILED : WAITING;
        reply.missing = dkv_replica_names(replica, &w->r, DKV_SET(stuck));
    }
    dkv_replica_reply(replica, at, w->r.to, w->r.op, &reply);
    if (outcome == DKV_OUTCOME_APPLIED && linger(replica, w)) return;
    finish(replica, w);
}

static void refuse(dkv_replica *replica, const dkv_moment *at, write_request *w, int err,
                   const char *detail) {
    reply_and_end(replica, at, w, err, DKV_OUTCOME_NOT_APPLIED, detail);
}

static dkv_kind kind_of(const write_request *w) {
    return w->r.op == DKV_OP_PUT ? DKV_KIND_VALUE : DKV_KIND_TOMBSTONE;
}

/* What replica `i`, if it can be reached, says to the write: 0, BUSY or NO_SPACE, for example. */
static int objection(const dkv_replica *replica, const write_request *w, unsigned i) {
    if (dkv_replica_is_mine(&w->r, i)) {
        return dkv_store_admits(replica->options.store, kind_of(w), w->r.key.len + w->value.len);
    }
    int err = dkv_peers_state(replica->options.peers, w->r.list[i]);
    /* Who has no space for values has some for deletions. */
    return err == DKV_ERR_NO_SPACE && kind_of(w) == DKV_KIND_TOMBSTONE ? DKV_OK : err;
}

/* Why a replica cannot take the write. */
static const char *obstacle(const dkv_replica *replica, const write_request *w, unsigned i) {
    const dkv_peers *peers = replica->options.peers;
    bool is_mine = dkv_replica_is_mine(&w->r, i);
    if (!is_mine && dkv_peers_reach(peers, w->r.list[i]) != DKV_REACH_UP) {
        bool differs = dkv_peers_differs(peers, w->r.list[i]);
        return differs ? "configured differently, see the log" : "not reachable";
    }
    int err = objection(replica, w, i);
    switch (err) {
    case DKV_OK: return "not reachable"; /* it has come back since */
    case DKV_ERR_NO_SPACE: return "disk full";
    case DKV_ERR_BUSY: return "busy";
    default: return dkv_err_sentence(err);
    }
}

static void list_obstacles(const dkv_replica *replica, const write_request *w, char *text,
                           size_t size) {
    const dkv_cluster_map *map = dkv_ring_map(replica->options.ring);
    dkv_phrases list;
    dkv_phrases_init(&list, text, size, ", ");
    for (unsigned i = 0; i < w->r.n; i++) {
        if (w->r.progress[i] != FAILED) continue;
        char phrase[DKV_NAME_MAX + 80];
        snprintf(phrase, sizeof phrase, "%s (%s)", map->members[w->r.list[i]].id,
                 obstacle(replica, w, i));
        dkv_phrases_add(&list, phrase);
    }
}

/* How many replicas can take the write: a range while links are opened that nobody has needed. */
static void count_able(const write_request *w, char *text, size_t size) {
    unsigned most = w->r.n - dkv_replica_count(&w->r, DKV_SET(FAILED));
    unsigned waiting = dkv_replica_count(&w->r, DKV_SET(WAITING));
    if (waiting) {
        snprintf(text, size, "%u to %u", most - waiting, most);
    } else {
        snprintf(text, size, "%u", most);
    }
}

/* Too few replicas can take the write: says which cannot, why, and which level would do. */
static void refuse_for_obstacles(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    unsigned failed = dkv_replica_count(&w->r, DKV_SET(FAILED));
    unsigned waiting = dkv_replica_count(&w->r, DKV_SET(WAITING));
    unsigned quorum = w->r.n / 2 + 1;
    const char *way_out = "try again when more of them are back";
    if (w->r.needs > quorum && w->r.n - failed >= quorum) {
        way_out = w->r.n - failed - waiting >= quorum ? "at level quorum it would succeed"
                                                      : "at level quorum it may succeed";
    }
    char able[16], obstacles[OBSTACLES_TEXT], detail[DKV_DETAIL_MAX];
    count_able(w, able, sizeof able);
    list_obstacles(replica, w, obstacles, sizeof obstacles);
    snprintf(detail, sizeof detail,
             "%s needs %u of %u replicas, %s can take it; in the way: %s; nothing was written; %s",
             verb(w), w->r.needs, w->r.n, able, obstacles, way_out);
    refuse(replica, at, w, w->failure ? w->failure : DKV_ERR_UNAVAILABLE, detail);
}

static void unknown(dkv_replica *replica, const dkv_moment *at, write_request *w, int err) {
    char names[NAMES_TEXT], detail[DKV_DETAIL_MAX];
    dkv_replica_list(names, sizeof names,
                     dkv_replica_names(replica, &w->r, DKV_SET_ALL & ~DKV_SET(HAS)));
    snprintf(detail, sizeof detail,
             "the outcome of the %s is unknown: %u of %u needed replicas confirmed it (%s); "
             "not confirmed by: %s; %s",
             verb(w), dkv_replica_count(&w->r, DKV_SET(HAS)), w->r.needs,
             err == DKV_ERR_DEADLINE ? "the deadline passed" : dkv_err_sentence(err), names,
             DKV_ADVICE_UNKNOWN);
    reply_and_end(replica, at, w, err, DKV_OUTCOME_UNKNOWN, detail);
}

static void settle(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    unsigned has = dkv_replica_count(&w->r, DKV_SET(HAS));
    if (w->r.lingers) {
        if (!dkv_replica_count(&w->r, DKV_SET(ASKED))) finish(replica, w);
    } else if (has >= w->r.needs) {
        reply_and_end(replica, at, w, DKV_OK, DKV_OUTCOME_APPLIED, "");
    } else if (has + dkv_replica_count(&w->r, DKV_SET(ASKED)) < w->r.needs) {
        unknown(replica, at, w, w->failure ? w->failure : DKV_ERR_UNAVAILABLE);
    }
}

/* Keeps the write until a link is open, which is soon decided, or this node is ready, for which
 * `until_ns` is the limit; nothing more can be done with it now. */
static void hold(dkv_replica *replica, const dkv_moment *at, write_request *w, int64_t until_ns) {
    if (!w->held.data && w->value.len) {
        if (dkv_buf_append(&w->held, w->value)) {
            refuse(replica, at, w, DKV_ERR_NO_MEMORY, "the node is out of memory");
            return;
        }
        w->value = dkv_buf_slice(&w->held);
    }
    dkv_replica_set_timer(replica, &w->r,
                          until_ns < w->r.deadline_ns ? until_ns : w->r.deadline_ns);
}

/* ---- forwarding, where this node holds no replica ---- */

static void forward_to(dkv_replica *replica, const dkv_moment *at, write_request *w, unsigned i) {
    uint32_t left_ms = (uint32_t)((w->r.deadline_ns - at->now_ns) / 1000000);
    dkv_message message = {.kind = DKV_MSG_FORWARD, .id = w->r.task.id};
    message.forward = (dkv_request){
        .op = w->r.op,
        .level = w->r.level,
        .timeout_ms = left_ms - left_ms / 16 + 1, /* so that its answer comes before our deadline */
        .last_seen = w->last_seen,
        .key = w->r.key,
        .value = w->value,
    };
    w->sent = w->forwarded = true;
    w->r.progress[i] = ASKED;
    dkv_peers_send(replica->options.peers, at, w->r.list[i], &message);
    dkv_buf_free(&w->held);
    dkv_replica_set_timer(replica, &w->r, w->r.deadline_ns);
}

static void forward(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    for (unsigned i = 0; i < w->r.n; i++) {
        dkv_reach reach = dkv_peers_want(replica->options.peers, at, w->r.list[i]);
        w->r.progress[i] = reach == DKV_REACH_DOWN ? FAILED : WAITING;
        if (reach == DKV_REACH_UP) {
            forward_to(replica, at, w, i);
            return;
        }
    }
    if (dkv_replica_count(&w->r, DKV_SET(WAITING))) {
        hold(replica, at, w, w->r.deadline_ns);
    } else {
        refuse_for_obstacles(replica, at, w);
    }
}

/* ---- coordinating ---- */

/* Where a write would stand with replica `i` if it began now. An error other than "not reachable"
 * becomes the write's failure. */
static progress foresee(dkv_replica *replica, const dkv_moment *at, write_request *w, unsigned i) {
    if (!dkv_replica_is_mine(&w->r, i)) {
        dkv_reach reach = dkv_peers_want(replica->options.peers, at, w->r.list[i]);
        if (reach == DKV_REACH_DOWN) return FAILED;
        if (reach != DKV_REACH_UP) return WAITING;
    }
    int err = objection(replica, w, i);
    if (err) w->failure = err;
    return err ? FAILED : AT_REST;
}

/* False if no version is later than the stored one. */
static bool issue_version(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    dkv_store_entry stored = {0};
    dkv_store_peek(replica->options.store, w->r.hash, &stored);
    dkv_hlc after = w->last_seen.hlc;
    if (stored.version.hlc > after) after = stored.version.hlc;
    dkv_hlc hlc = dkv_clock_issue(&replica->clock, at->wall_ms, after);
    if (!hlc) return false;
    w->version = (dkv_version){hlc, dkv_trust_origin(replica->options.trust)};
    return true;
}

static void write_everywhere(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    dkv_message message = {.kind = DKV_MSG_APPLY, .id = w->r.task.id};
    if (!issue_version(replica, at, w)) {
        refuse(replica, at, w, DKV_ERR_CLOCK, "no version can be later than the stored one");
        return;
    }
    message.apply = (dkv_record){
        .key = w->r.key,
        .value = w->value,
        .version = w->version,
        .kind = kind_of(w),
    };
    /* The own store first: it alone can still refuse before anything was written. */
    if (w->r.mine >= 0 && w->r.progress[w->r.mine] == AT_REST) {
        int err = dkv_store_apply(replica->options.store, &message.apply, w->r.task.id);
        w->r.progress[w->r.mine] = err ? FAILED : ASKED;
        if (err) w->failure = err;
        if (err && dkv_replica_count(&w->r, DKV_SET(AT_REST)) < w->r.needs) {
            w->version = (dkv_version){0};
            refuse(replica, at, w, err, dkv_err_sentence(err));
            return;
        }
    }
    w->sent = true;
    for (unsigned i = 0; i < w->r.n; i++) {
        if (w->r.progress[i] != AT_REST) continue;
        dkv_peers_send(replica->options.peers, at, w->r.list[i], &message);
        w->r.progress[i] = ASKED;
    }
    dkv_buf_free(&w->held);
    dkv_replica_set_timer(replica, &w->r, w->r.deadline_ns);
}

static void coordinate(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    if (dkv_hlc_ms(w->last_seen.hlc) > at->wall_ms + DKV_DRIFT_MAX_MS) {
        refuse(replica, at, w, DKV_ERR_CLOCK,
               "the client's last seen version is more than 500 ms ahead of this node's clock");
        return;
    }
    if (dkv_peers_clock_off(replica->options.peers)) {
        refuse(replica, at, w, DKV_ERR_CLOCK,
               "this node's clock is more than 500 ms off the majority of its peers");
        return;
    }
    w->failure = DKV_OK;
    for (unsigned i = 0; i < w->r.n; i++) w->r.progress[i] = (uint8_t)foresee(replica, at, w, i);
    unsigned waiting = dkv_replica_count(&w->r, DKV_SET(WAITING));
    unsigned able = dkv_replica_count(&w->r, DKV_SET(AT_REST));
    int64_t ready_by_ns = w->begun_ns + dkv_ns_of_ms(replica->options.timing.connect_ms);
    if (waiting && able + waiting >= w->r.needs) {
        hold(replica, at, w, w->r.deadline_ns);
    } else if (able < w->r.needs) {
        refuse_for_obstacles(replica, at, w);
    } else if (!replica->ready && at->now_ns < ready_by_ns) {
        hold(replica, at, w, ready_by_ns);
    } else if (!replica->ready) {
        refuse(replica, at, w, DKV_ERR_UNAVAILABLE,
               "this node is still starting: no other member has recognised its store yet");
    } else {
        write_everywhere(replica, at, w);
    }
}

/* Begins, or tries once more after waiting. A process that was paused may come too late for it. */
static void attempt(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    if (at->now_ns >= w->r.deadline_ns) {
        refuse(replica, at, w, DKV_ERR_DEADLINE,
               "the deadline passed before the replicas could be reached; nothing was written");
    } else if (w->r.mine < 0) {
        forward(replica, at, w);
    } else {
        coordinate(replica, at, w);
    }
}

void dkv_write_begin(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    if (!w->begun_ns) w->begun_ns = at->now_ns;
    attempt(replica, at, w);
}

/* ---- events ---- */

void dkv_write_stored(dkv_replica *replica, const dkv_moment *at, write_request *w, int err) {
    w->r.progress[w->r.mine] = err ? FAILED : HAS;
    if (err) w->failure = err;
    settle(replica, at, w);
}

/* Whether the reply says what became of a write, and does not contradict itself. */
static bool tells_outcome(const dkv_reply *reply) {
    bool applied = reply->outcome == DKV_OUTCOME_APPLIED;
    return reply->outcome != DKV_OUTCOME_NONE && applied == (reply->err == DKV_OK);
}

static void relay(dkv_replica *replica, const dkv_moment *at, write_request *w,
                  const dkv_reply *reply) {
    if (!tells_outcome(reply)) {
        unknown(replica, at, w, DKV_ERR_PROTOCOL);
        return;
    }
    dkv_replica_reply(replica, at, w->r.to, w->r.op, reply);
    end(replica, w);
}

/* What a client is told of a replica's error: one that no replica answers to a write (NOT_FOUND,
 * say) would be taken for something else. */
static int failure_of(int err) {
    switch (err) {
    case DKV_ERR_BUSY:
    case DKV_ERR_NO_SPACE:
    case DKV_ERR_IO:
    case DKV_ERR_NO_MEMORY:
    case DKV_ERR_DATA_LOSS: return err;
    default: return DKV_ERR_UNAVAILABLE;
    }
}

void dkv_write_answered(dkv_replica *replica, const dkv_moment *at, write_request *w, uint16_t peer,
                        const dkv_message *message) {
    int i = dkv_replica_place(&w->r, peer);
    if (i < 0 || w->r.progress[i] != ASKED) return;
    if (message->kind == DKV_MSG_FORWARD_REPLY && w->forwarded) {
        relay(replica, at, w, &message->forward_reply);
    } else if (message->kind == DKV_MSG_APPLY_REPLY && !w->forwarded) {
        w->r.progress[i] = message->apply_reply.err ? FAILED : HAS;
        if (message->apply_reply.err) w->failure = failure_of(message->apply_reply.err);
        settle(replica, at, w);
    }
}

void dkv_write_peer_changed(dkv_replica *replica, const dkv_moment *at, write_request *w,
                            uint16_t peer) {
    int i = dkv_replica_place(&w->r, peer);
    if (!w->sent) {
        attempt(replica, at, w);
    } else if (w->r.progress[i] == ASKED &&
               dkv_peers_reach(replica->options.peers, peer) != DKV_REACH_UP) {
        w->r.progress[i] = FAILED;
        settle(replica, at, w);
    }
}

void dkv_write_timer(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    if (w->r.lingers) {
        finish(replica, w);
    } else if (w->sent) {
        unknown(replica, at, w, DKV_ERR_DEADLINE);
    } else {
        attempt(replica, at, w);
    }
}

void dkv_write_stop(dkv_replica *replica, const dkv_moment *at, write_request *w) {
    if (w->sent) return;
    refuse(replica, at, w, DKV_ERR_UNAVAILABLE, "the node is stopping; nothing was written");
}
