/* Operations on their way: which replica is asked, when the next one is, and how each ends.
 *
 * A read asks its replicas in ring order: the next one when the one before has failed, is silent or
 * is slow. The first answer that settles the question counts: the value, or NOT_FOUND, or an error
 * that another replica would only repeat.
 *
 * A target is silent when nothing at all was heard from it in the 40 ms since it was asked. It is
 * slow when it takes longer than for 99 of its last 100 reads, but for 2 ms at least; going on then
 * is called hedging (Dean, Barroso, "The tail at scale", CACM 2013). One read in twenty may do so,
 * and some more if few did before: where one target has a bad moment, that is all of its reads, but
 * when a whole cluster is overloaded all reads are slow, and the same again would only make it
 * worse. Who may not hedge waits for as long as the target says anything, 250 ms at most.
 *
 * A node says NOT_FOUND by its own word if it cannot ask the other replicas, of which one may hold
 * the value of a write that this node has missed. Then the read goes on to those, and the key does
 * not exist if none of them has answered otherwise: who is silent is not waited for.
 *
 * A write is sent to one coordinator. As long as it has not left (no connection, or a full one that
 * turned silent), another may be chosen. Once it has left, only an answer can tell what became of
 * it; without one its outcome is unknown, and nothing is sent again. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "client/internal.h"

/* What stands around the list of what was said, at most. */
#define FRAME_READ_MAX 32u
#define FRAME_WRITE_MAX 128u

static bool is_read(const flight *f) {
    return f->op->request.op == DKV_OP_GET;
}

/* ---- the end -------------------------------------------------------------------------------- */

static bool waits_for(const waiter *w, const dkv_client_op *op) {
    return w && op >= w->ops && op < w->ops + w->n;
}

/* Gives the operation back to the caller. */
static void hand_back(dkv_client *client, flight *f) {
    dkv_client_op *op = f->op;
    batch *b = f->batch;
    f->op = NULL;
    op->internal = NULL;
    op->done = true;
    b->undone--;
    if (waits_for(b->waiter, op)) dkv_client_waiter_tick(client, b->waiter);
}

/* The operation's results are in place. */
static void finish(dkv_client *client, flight *f) {
    batch *b = f->batch;
    for (unsigned i = 0; i < DKV_REPLICATION_MAX; i++) {
        attempt *a = &f->attempts[i];
        if (a->target) dkv_client_target_forget(a->target, a);
    }
    dkv_timers_cancel(&client->timers, &f->timer);
    if (f->begun) {
        b->on_way--;
        b->bytes_on_way -= f->op->request.value.len;
    }
    list_add(&client->unsettled, &b->unsettled);
    if (b->follow) {
        b->landed = true;
    } else {
        hand_back(client, f);
    }
}

/* A write of which something has left may have been applied; any other certainly has not. */
static dkv_outcome outcome_of(const flight *f) {
    if (is_read(f)) return DKV_OUTCOME_NONE;
    for (unsigned i = 0; i < DKV_REPLICATION_MAX; i++) {
        if (f->attempts[i].target && f->attempts[i].sent) return DKV_OUTCOME_UNKNOWN;
    }
    return DKV_OUTCOME_NOT_APPLIED;
}

static const char *verb(const flight *f) {
    return is_read(f) ? "get" : f->op->request.op == DKV_OP_PUT ? "put" : "delete";
}

/* Makes a sentence of what was said of the replicas: what happened, and what to do next. */
static void tell(flight *f, dkv_outcome outcome) {
    char *detail = f->op->detail, before[48], after[80], told[2 * DKV_DETAIL_MAX];
    if (outcome == DKV_OUTCOME_UNKNOWN) {
        snprintf(before, sizeof before, "the outcome of the %s is unknown: ", verb(f));
        snprintf(after, sizeof after, "; %s", DKV_ADVICE_UNKNOWN);
    } else if (outcome == DKV_OUTCOME_NOT_APPLIED) {
        snprintf(before, sizeof before, "the %s was not sent: ", verb(f));
        snprintf(after, sizeof after, "; nothing was written");
    } else {
        snprintf(before, sizeof before, "the %s failed: ", verb(f));
        after[0] = 0;
    }
    int len = snprintf(told, sizeof told, "%s%s%s", before, detail, after);
    assert(len < (int)DKV_DETAIL_MAX); /* FRAME_READ_MAX, FRAME_WRITE_MAX */
    memcpy(detail, told, (size_t)len + 1);
}

static void fail_with(dkv_client *client, flight *f, int err, dkv_outcome outcome) {
    f->op->err = err;
    f->op->outcome = outcome;
    tell(f, outcome);
    finish(client, f);
}

void dkv_client_flight_fail(dkv_client *client, flight *f, int err, const char *why) {
    dkv_phrases_add(&f->said, why);
    fail_with(client, f, err, outcome_of(f));
}

void dkv_client_flight_refuse(dkv_client *client, flight *f) {
    f->op->err = f->err;
    f->op->outcome = outcome_of(f);
    finish(client, f);
}

/* ---- choosing replicas ---------------------------------------------------------------------- */

static target *target_of(const dkv_client *client, const flight *f, unsigned replica) {
    return &client->targets[f->replicas[replica]];
}

/* The first replica that has not been tried and can be; suspects only if there is no other. -1:
 * none. */
static int choose(dkv_client *client, flight *f, int64_t now_ns) {
    int suspect = -1;
    for (unsigned i = 0; i < dkv_ring_replication(client->ring); i++) {
        target *t = target_of(client, f, i);
        if (f->tried & 1u << i) continue;
        reach r = dkv_client_target_reach(t, now_ns);
        if (r == REACH_GOOD) return (int)i;
        if (r == REACH_SUSPECT) {
            dkv_client_target_probe(t, f->op->request.key, now_ns);
            if (suspect < 0) suspect = (int)i;
        }
    }
    return suspect;
}

/* Remembers the failure of one replica, in case all fail. */
static void note_failure(flight *f, const target *t, int err, const char *why, bool from_node) {
    dkv_client_op *op = f->op;
    char text[DKV_NAME_MAX + sizeof ": " + DKV_DETAIL_MAX];
    snprintf(text, sizeof text, "%s: %s", t->member->id, why);
    dkv_phrases_add(&f->said, text);
    if (!f->absent && op->n_missing < DKV_REPLICATION_MAX) {
        snprintf(op->missing[op->n_missing++], sizeof op->missing[0], "%s", t->member->id);
    }
    if (!f->err || (from_node && !f->from_node)) {
        f->err = err;
        f->from_node = from_node;
    }
}

/* No replica that can be reached has the key. */
static void end_absent(dkv_client *client, flight *f) {
    f->op->err = DKV_ERR_NOT_FOUND;
    snprintf(f->op->detail, sizeof f->op->detail, "%s", dkv_err_sentence(DKV_ERR_NOT_FOUND));
    finish(client, f);
}

/* Names the replicas that were not even tried, because they were unreachable a moment ago. */
static void note_untried(dkv_client *client, flight *f) {
    for (unsigned i = 0; i < dkv_ring_replication(client->ring); i++) {
        const target *t = target_of(client, f, i);
        if (!(f->tried & 1u << i)) note_failure(f, t, DKV_ERR_UNAVAILABLE, t->why, false);
    }
}

static void set_timer(dkv_client *client, flight *f, int64_t at_ns) {
    if (at_ns > f->deadline_ns) at_ns = f->deadline_ns;
    /* It cannot fail: flight_begin has set it once. */
    (void)dkv_timers_set(&client->timers, &f->timer, at_ns);
}

/* How long a read waits for the target before that is unusual. */
static int64_t usual_wait(const dkv_client *client, const target *t) {
    int64_t p99_ns = (int64_t)t->get_ns.value;
    if (!client->hedges || p99_ns > client->hedge_ns) return client->hedge_ns;
    return p99_ns > HEDGE_MIN_NS ? p99_ns : HEDGE_MIN_NS;
}

/* Sends the operation to the next replica. If there is none, it waits for those that were asked
 * already, and fails if there are none of these either. */
static void try_next(dkv_client *client, flight *f, int64_t now_ns) {
    int chosen;
    while ((chosen = choose(client, f, now_ns)) >= 0) {
        target *t = target_of(client, f, (unsigned)chosen);
        attempt *a = &f->attempts[chosen];
        f->tried = (uint8_t)(f->tried | 1u << chosen);
        a->flight = f;
        int err = dkv_client_target_enqueue(t, a, now_ns);
        if (!err) {
            f->n_open++;
            f->latest = (uint8_t)chosen;
            set_timer(client, f, now_ns + (is_read(f) ? usual_wait(client, t) : PATIENCE_NS));
            return;
        }
        note_failure(f, t, err, t->why, false);
    }
    if (f->n_open > 0) {
        set_timer(client, f, now_ns + client->hedge_ns);
        return;
    }
    if (f->absent) {
        end_absent(client, f);
        return;
    }
    note_untried(client, f);
    fail_with(client, f, f->err, outcome_of(f));
}

/* ---- what happens to an attempt ------------------------------------------------------------- */

void dkv_client_attempt_failed(dkv_client *client, attempt *a, int err, const char *why) {
    flight *f = a->flight;
    const target *t = target_of(client, f, (unsigned)(a - f->attempts));
    f->n_open--;
    if (is_read(f) || !a->sent) {
        note_failure(f, t, err, why, false);
        try_next(client, f, dkv_client_now());
    } else {
        char text[DKV_DETAIL_MAX + 32];
        snprintf(text, sizeof text, "it was sent, but not answered (%s)", why);
        note_failure(f, t, err, text, false);
        fail_with(client, f, err, DKV_OUTCOME_UNKNOWN);
    }
}

/* Another replica may know better than one that answered a read with such an error. */
static bool is_own_trouble(int err) {
    switch (err) {
    case DKV_ERR_UNAVAILABLE:
    case DKV_ERR_PRECONDITION:
    case DKV_ERR_DATA_LOSS:
    case DKV_ERR_NO_MEMORY:
    case DKV_ERR_IO:
    case DKV_ERR_CANCELLED:
    case DKV_ERR_PROTOCOL:
    case DKV_ERR_EPOCH:
    case DKV_ERR_INTERNAL: return true;
    default: return false;
    }
}

static void copy_names(const dkv_node_names *from, uint8_t *n, char to[][DKV_NAME_MAX + 1]) {
    for (unsigned i = 0; i < from->n; i++) {
        memcpy(to[i], from->ids[i].data, from->ids[i].len);
        to[i][from->ids[i].len] = 0;
    }
    *n = from->n;
}

static int copy_value(dkv_slice from, dkv_client_op *op) {
    if (from.len == 0) return DKV_OK;
    op->value = malloc(from.len);
    if (!op->value) return DKV_ERR_NO_MEMORY;
    memcpy(op->value, from.data, from.len);
    op->value_len = from.len;
    return DKV_OK;
}

static void copy_detail(dkv_slice from, dkv_client_op *op) {
    size_t len = from.len < sizeof op->detail ? from.len : sizeof op->detail - 1;
    if (len) memcpy(op->detail, from.data, len);
    op->detail[len] = 0;
}

/* Counts once how long the target takes, or that it takes longer than this. */
static void sample(attempt *a, int64_t waited_ns) {
    if (!a->sampled && waited_ns > 0) dkv_p99_add(&a->target->get_ns, (uint64_t)waited_ns);
    a->sampled = true;
}

/* Another replica may have what one that could not ask it has not. */
static bool may_exist(const dkv_reply *reply) {
    return reply->err == DKV_ERR_NOT_FOUND && reply->missing.n > 0;
}

static bool is_among(const dkv_node_names *names, const char *id) {
    for (unsigned i = 0; i < names->n; i++) {
        if (dkv_slice_eq(names->ids[i], dkv_slice_of(id))) return true;
    }
    return false;
}

/* What is left to be asked are those that could not be asked on the way. */
static void note_absence(dkv_client *client, flight *f, const dkv_reply *reply) {
    f->absent = true;
    copy_names(&reply->missing, &f->op->n_missing, f->op->missing);
    for (unsigned i = 0; i < dkv_ring_replication(client->ring); i++) {
        const char *id = target_of(client, f, i)->member->id;
        if (!is_among(&reply->missing, id)) f->tried = (uint8_t)(f->tried | 1u << i);
    }
}

void dkv_client_flight_answer(dkv_client *client, attempt *a, const dkv_reply *reply) {
    flight *f = a->flight;
    dkv_client_op *op = f->op;
    target *t = a->target;
    bool is_write = !is_read(f);
    if (!reply->err && is_write != (reply->outcome == DKV_OUTCOME_APPLIED)) {
        return; /* an answer to another kind of request: as if it had not come */
    }
    if (dkv_version_cmp(client->last_seen, reply->version) < 0) client->last_seen = reply->version;
    if (!is_write) sample(a, t->heard_ns - a->since_ns);
    if (!is_write && is_own_trouble(reply->err)) {
        char why[DKV_DETAIL_MAX];
        snprintf(why, sizeof why, "%.*s", (int)reply->detail.len, (const char *)reply->detail.data);
        dkv_client_target_forget(t, a);
        f->n_open--;
        note_failure(f, t, reply->err, why, true);
        try_next(client, f, dkv_client_now());
        return;
    }
    if (!is_write && may_exist(reply)) {
        dkv_client_target_forget(t, a);
        f->n_open--;
        note_absence(client, f, reply);
        try_next(client, f, dkv_client_now());
        return;
    }
    op->err = reply->err;
    op->outcome = reply->outcome;
    if (is_write && op->outcome == DKV_OUTCOME_NONE) op->outcome = DKV_OUTCOME_UNKNOWN;
    op->version = reply->version;
    copy_names(&reply->holding, &op->n_holding, op->holding);
    copy_names(&reply->missing, &op->n_missing, op->missing);
    copy_detail(reply->detail, op);
    if (!op->err && copy_value(reply->value, op)) op->err = DKV_ERR_NO_MEMORY;
    finish(client, f);
}

/* ---- timers --------------------------------------------------------------------------------- */

static void note_silent(dkv_client *client, flight *f) {
    for (unsigned i = 0; i < dkv_ring_replication(client->ring); i++) {
        if (!f->attempts[i].target) continue;
        const char *why = f->attempts[i].sent ? "has not answered" : "could not be connected to";
        note_failure(f, f->attempts[i].target, DKV_ERR_DEADLINE, why, false);
    }
}

static void doubt_silent(const dkv_client *client, const flight *f, int64_t now_ns) {
    for (unsigned i = 0; i < DKV_REPLICATION_MAX; i++) {
        const attempt *a = &f->attempts[i];
        bool is_early = is_read(f) && now_ns - a->since_ns < client->hedge_ns;
        if (is_early && now_ns < f->deadline_ns) continue;
        if (a->target) dkv_client_target_doubt(a->target, a->since_ns, now_ns);
    }
}

/* Whether a read goes on to the next replica as the target of `a` has not answered yet. */
static bool may_go_on(dkv_client *client, const attempt *a, int64_t now_ns) {
    int64_t waited_ns = now_ns - a->since_ns;
    bool is_silent = a->target->heard_ns < a->since_ns && waited_ns >= client->hedge_ns;
    if (is_silent || waited_ns >= PATIENCE_NS || !client->hedges) {
        client->stats.passed_over++;
        return true;
    }
    if (client->hedge_credit < HEDGE_READS) return false;
    client->hedge_credit -= HEDGE_READS;
    client->stats.hedged++;
    return true;
}

/* Whether everybody who was asked, and has not answered, has been waited for for long enough. */
static bool was_patient(const dkv_client *client, const flight *f, int64_t now_ns) {
    for (unsigned i = 0; i < DKV_REPLICATION_MAX; i++) {
        const attempt *a = &f->attempts[i];
        if (!a->target) continue;
        bool is_silent = a->target->heard_ns < a->since_ns;
        if (now_ns - a->since_ns < (is_silent ? client->hedge_ns : PATIENCE_NS)) return false;
    }
    return true;
}

static void move_read(dkv_client *client, flight *f, int64_t now_ns) {
    attempt *a = &f->attempts[f->latest];
    if (a->target) sample(a, now_ns - a->since_ns);
    bool has_next = choose(client, f, now_ns) >= 0;
    if (has_next && (!a->target || may_go_on(client, a, now_ns))) {
        try_next(client, f, now_ns);
        return;
    }
    if (!has_next && f->absent && was_patient(client, f, now_ns)) {
        end_absent(client, f);
        return;
    }
    int64_t silent_ns = a->since_ns + client->hedge_ns; /* when it can be told that it is */
    set_timer(client, f, silent_ns > now_ns ? silent_ns : now_ns + client->hedge_ns);
}

/* A write that has not left moves on if its target is silent. */
static void move_write(dkv_client *client, flight *f, int64_t now_ns) {
    for (unsigned i = 0; i < DKV_REPLICATION_MAX; i++) {
        attempt *a = &f->attempts[i];
        target *t = a->target;
        if (!t) continue;
        bool stuck = !a->sent && dkv_client_target_reach(t, now_ns) != REACH_GOOD;
        if (!stuck || choose(client, f, now_ns) < 0) {
            set_timer(client, f, a->sent ? f->deadline_ns : now_ns + PATIENCE_NS);
            return;
        }
        dkv_client_target_forget(t, a);
        f->n_open--;
        note_failure(f, t, DKV_ERR_UNAVAILABLE, "could not be connected to in time", false);
        try_next(client, f, now_ns);
        return;
    }
}

void dkv_client_flight_due(dkv_client *client, flight *f) {
    int64_t now_ns = dkv_client_now();
    doubt_silent(client, f, now_ns);
    if (now_ns >= f->deadline_ns && f->absent) {
        end_absent(client, f);
    } else if (now_ns >= f->deadline_ns) {
        dkv_outcome outcome = outcome_of(f);
        note_silent(client, f);
        fail_with(client, f, DKV_ERR_DEADLINE, outcome);
    } else if (is_read(f)) {
        move_read(client, f, now_ns);
    } else {
        move_write(client, f, now_ns);
    }
}

/* ---- the beginning -------------------------------------------------------------------------- */

static void reset(dkv_client_op *op, flight *f) {
    op->done = false;
    op->err = DKV_OK;
    op->outcome = DKV_OUTCOME_NONE;
    op->version = (dkv_version){0};
    op->value = NULL;
    op->value_len = 0;
    op->n_holding = 0;
    op->n_missing = 0;
    op->detail[0] = 0;
    op->internal = f;
}

void dkv_client_flight_init(const dkv_client *client, batch *b, flight *f, dkv_client_op *op) {
    *f = (flight){.op = op, .batch = b};
    reset(op, f);
    unsigned frame = is_read(f) ? FRAME_READ_MAX : FRAME_WRITE_MAX;
    dkv_phrases_init(&f->said, op->detail, sizeof op->detail - frame, "; ");
    f->err = dkv_request_check(&op->request, op->detail);
    if (f->err) return;
    f->replicas = dkv_ring_replicas(client->ring, dkv_hash_key(op->request.key).token);
}

static void flight_begin(dkv_client *client, flight *f) {
    const dkv_request *request = &f->op->request;
    int64_t now_ns = dkv_client_now();
    uint32_t timeout_ms = request->timeout_ms ? request->timeout_ms : client->timeout_ms;
    if (is_read(f)) {
        client->stats.reads++;
        client->hedge_credit += client->hedge_credit < HEDGES_SAVED * HEDGE_READS;
    } else {
        timeout_ms += WRITE_GRACE_MS;
    }
    f->deadline_ns = now_ns + (int64_t)timeout_ms * NS_PER_MS;
    f->begun = true;
    f->batch->on_way++;
    f->batch->bytes_on_way += request->value.len;
    if (dkv_timers_set(&client->timers, &f->timer, f->deadline_ns)) {
        dkv_client_flight_fail(client, f, DKV_ERR_NO_MEMORY, "no memory for a timer");
        return;
    }
    try_next(client, f, now_ns);
}

static bool window_is_open(const batch *b) {
    return b->on_way < DKV_CLIENT_WINDOW && b->bytes_on_way < WINDOW_BYTES;
}

/* A series: asks what follows the operation that has ended. */
static void follow_up(dkv_client *client, batch *b) {
    flight *f = &b->flights[0];
    b->landed = false;
    if (!b->follow || !b->follow(b->follow_user, f->op)) {
        hand_back(client, f);
        return;
    }
    dkv_client_flight_init(client, b, f, f->op);
    b->next = f->err ? b->n : 0; /* what is refused does not begin */
    if (f->err) dkv_client_flight_refuse(client, f);
}

void dkv_client_batch_settle(dkv_client *client, batch *b) {
    if (b->landed) follow_up(client, b);
    while (b->next < b->n && window_is_open(b)) {
        flight *f = &b->flights[b->next++];
        if (f->op) flight_begin(client, f);
    }
    if (b->undone > 0) return;
    list_remove(&b->unsettled);
    list_remove(&b->node);
    free(b);
}
