/* Members: their connections, and how well they answer.
 *
 * A target is good, suspect or unreachable. It is suspect when a request has waited for longer than
 * it should and nothing at all was heard from it meanwhile; any sign of life clears that. It is
 * unreachable for RECONNECT_NS after its connection could not be made; then the next use tries
 * again. That one broke which had worked says nothing of now: the next use tries at once. Probes
 * are reads that nobody waits for: no operation has to be the one that finds out whether a suspect
 * is back. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"
#include "client/internal.h"
#include "wire/wire.h"

#define PROBE_ID 0u /* attempts begin at 1 */
#define PROBE_TIMEOUT_MS 1000u

static void want_large_lane(target *t);

/* The lane may have something to send. */
static void lane_mark(lane *l) {
    if (l->held && !dkv_rpc_nagle_may_send(&l->nagle, dkv_client_now())) return;
    if (l->held) list_remove(&l->pump);
    l->held = false;
    list_add(&l->target->client->pumps, &l->pump);
}

void dkv_client_release_held(dkv_client *client) {
    list_node *node;
    while ((node = list_first(&client->held))) {
        lane *l = LIST_OWNER(node, lane, pump);
        lane_mark(l);
        if (l->held) return;
    }
}

static dkv_rpc_kind kind_of(const attempt *a) {
    return a->flight->op->request.op == DKV_OP_GET ? DKV_RPC_READ : DKV_RPC_WRITE;
}

/* ---- signs of life -------------------------------------------------------------------------- */

static void heard(target *t) {
    t->heard_ns = dkv_client_now();
    t->suspect = false;
}

void dkv_client_target_doubt(target *t, int64_t since_ns, int64_t now_ns) {
    if (t->suspect || t->heard_ns >= since_ns) return;
    t->suspect = true;
    t->probe_ns = now_ns + PROBE_NS;
}

reach dkv_client_target_reach(const target *t, int64_t now_ns) {
    if (now_ns < t->retry_ns) return REACH_NONE;
    return t->suspect ? REACH_SUSPECT : REACH_GOOD;
}

/* ---- the end of a session ------------------------------------------------------------------- */

static void lane_detach(lane *l) {
    if (l->stream) {
        dkv_rpc_stream_set_user(l->stream, NULL);
        dkv_rpc_stream_cancel(l->stream);
    }
    l->stream = NULL;
    l->accepted = l->held = false;
    list_remove(&l->pump);
    dkv_rpc_nagle_answered(&l->nagle);
}

static void fail_all(target *t, list *attempts, int err) {
    list_node *node;
    while ((node = list_first(attempts))) {
        attempt *a = LIST_OWNER(node, attempt, node);
        dkv_client_target_forget(t, a);
        dkv_client_attempt_failed(t->client, a, err, t->why);
    }
}

/* What the end of a session means for an operation. CANCELLED, say, is what the node did to the
 * stream, not what the caller did to the operation. */
static int err_of_link(int err) {
    bool says_more = err == DKV_ERR_UNAUTHENTICATED || err == DKV_ERR_PERMISSION ||
                     err == DKV_ERR_PROTOCOL || err == DKV_ERR_NO_MEMORY;
    return says_more ? err : DKV_ERR_UNAVAILABLE;
}

/* Both lanes end together. The target counts as unreachable before its attempts fail, so that they
 * do not come back to it at once. */
static void broken(target *t, int err, const char *why) {
    snprintf(t->why, sizeof t->why, "%s", *why ? dkv_client_plain(why) : dkv_err_sentence(err));
    err = err_of_link(err);
    t->retry_ns = dkv_client_now() + (t->lanes[SMALL].accepted ? 0 : RECONNECT_NS);
    t->answered = false;
    for (int i = 0; i < N_LANES; i++) lane_detach(&t->lanes[i]);
    fail_all(t, &t->sent, err);
    for (int i = 0; i < N_LANES; i++) fail_all(t, &t->lanes[i].waiting, err);
}

static void open_failed(target *t, int err) {
    bool nowhere = t->member->address[0] == 0;
    broken(t, err, nowhere ? "the map names no address for it" : dkv_err_sentence(err));
}

/* ---- callbacks ------------------------------------------------------------------------------ */

static void on_opened(void *user, dkv_rpc_stream *stream) {
    (void)stream;
    lane *l = user;
    if (!l) return;
    l->accepted = true;
    heard(l->target);
    lane_mark(l);
}

static void on_reply(void *user, uint64_t id, const dkv_reply *reply) {
    target *t = user;
    attempt *a = dkv_map_get(&t->client->attempts, id);
    if (a && a->target == t && a->sent) dkv_client_flight_answer(t->client, a, reply);
}

static void on_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    (void)stream;
    lane *l = user;
    if (!l) return;
    target *t = l->target;
    heard(t);
    /* A request of the small lane may be answered on the large one. */
    lane *small = &t->lanes[SMALL];
    dkv_rpc_nagle_answered(&small->nagle);
    if (small->held) lane_mark(small);
    if (l == &t->lanes[SMALL]) t->answered = true;
    if (bytes.len > DKV_WIRE_LARGE) want_large_lane(t);
    int err = dkv_wire_each_reply(bytes, on_reply, t);
    if (err) broken(t, err, "what it sent does not follow the protocol");
}

static void on_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    (void)stream;
    lane *l = user;
    if (!l) return;
    l->stream = NULL;
    /* A stream that ended in order is as gone as any other. */
    broken(l->target, err ? err : DKV_ERR_UNAVAILABLE, err ? detail : "it closed the session");
}

static const dkv_rpc_stream_events lane_events = {
    .message = on_message,
    .closed = on_closed,
    .opened = on_opened,
};

/* ---- the beginning -------------------------------------------------------------------------- */

int dkv_client_target_connect(target *t) {
    if (t->channel) return DKV_OK;
    return dkv_rpc_channel_new(t->client->loop, t->member->address, &t->channel);
}

/* The number of the pair goes ahead of everything else. */
static int announce_pair(target *t, dkv_rpc_stream *stream) {
    dkv_buf *scratch = &t->client->scratch;
    scratch->len = 0;
    int err = dkv_wire_put_lane(scratch, t->pair);
    if (!err) err = dkv_rpc_stream_send(stream, dkv_buf_slice(scratch));
    if (!err) dkv_rpc_stream_flush(stream);
    return err;
}

static int lane_open(lane *l) {
    target *t = l->target;
    int err = dkv_client_target_connect(t);
    if (err) return err;
    if (l == &t->lanes[SMALL]) {
        if (getrandom(&t->pair, sizeof t->pair, 0) != sizeof t->pair) return DKV_ERR_INTERNAL;
        t->pair |= 1; /* not 0 */
        if (t->retry_ns) dkv_rpc_channel_retry_now(t->channel);
    }
    err = dkv_rpc_stream_open(t->channel, "/dkv.v1.KV/Session", &lane_events, l, &l->stream);
    if (!err) err = announce_pair(t, l->stream);
    return err;
}

/* Opens the large lane when the first large value, written or read, meets a small lane that has
 * been answered on. Until it is accepted the small one carries everything. */
static void want_large_lane(target *t) {
    lane *l = &t->lanes[LARGE];
    if (t->answered && !l->stream && lane_open(l)) lane_detach(l);
}

/* ---- requests ------------------------------------------------------------------------------- */

int dkv_client_target_enqueue(target *t, attempt *a, int64_t now_ns) {
    dkv_client *client = t->client;
    lane *l = &t->lanes[SMALL];
    int err = l->stream ? DKV_OK : lane_open(l);
    if (err) {
        open_failed(t, err);
        return err_of_link(err);
    }
    a->id = ++client->last_id;
    err = dkv_map_set(&client->attempts, a->id, a);
    if (err) {
        snprintf(t->why, sizeof t->why, "%s", dkv_err_sentence(err));
        return err;
    }
    a->target = t;
    a->sent = false;
    a->since_ns = now_ns;
    if (a->flight->op->request.value.len > DKV_WIRE_LARGE) {
        want_large_lane(t);
        if (t->lanes[LARGE].accepted) l = &t->lanes[LARGE];
    }
    list_add(&l->waiting, &a->node);
    a->lane = l == &t->lanes[LARGE] ? LARGE : SMALL;
    l->nagle.waiting[kind_of(a)]++;
    if (l->accepted) lane_mark(l);
    return DKV_OK;
}

void dkv_client_target_forget(target *t, attempt *a) {
    list_remove(&a->node);
    if (!a->sent) t->lanes[a->lane].nagle.waiting[kind_of(a)]--;
    dkv_map_remove(&t->client->attempts, a->id);
    a->target = NULL;
}

void dkv_client_target_probe(target *t, dkv_slice key, int64_t now_ns) {
    lane *l = &t->lanes[SMALL];
    if (!t->suspect || now_ns < t->probe_ns) return;
    t->probe_ns = now_ns + PROBE_NS;
    if (!l->stream) {
        int err = lane_open(l);
        if (err) open_failed(t, err);
        return;
    }
    if (!l->accepted || dkv_rpc_stream_backlog(l->stream) >= LANE_BACKLOG_MAX) return;
    dkv_buf *scratch = &t->client->scratch;
    scratch->len = 0;
    dkv_request read = {.op = DKV_OP_GET, .timeout_ms = PROBE_TIMEOUT_MS, .key = key};
    if (dkv_wire_put_request(scratch, PROBE_ID, &read)) return;
    if (dkv_rpc_stream_send(l->stream, dkv_buf_slice(scratch)) == DKV_OK) lane_mark(l);
}

/* ---- sending -------------------------------------------------------------------------------- */

static uint32_t left_ms(const flight *f, int64_t now_ns) {
    int64_t left = (f->deadline_ns - now_ns) / NS_PER_MS;
    if (f->op->request.op != DKV_OP_GET) left -= WRITE_GRACE_MS;
    return left > 1 ? (uint32_t)left : 1;
}

static int encode(dkv_client *client, const attempt *a, int64_t now_ns) {
    dkv_request request = a->flight->op->request;
    request.timeout_ms = left_ms(a->flight, now_ns);
    request.failover = request.op == DKV_OP_GET && a != a->flight->attempts;
    if (dkv_version_cmp(request.last_seen, client->last_seen) < 0) {
        request.last_seen = client->last_seen;
    }
    return dkv_wire_put_request(&client->scratch, a->id, &request);
}

/* Encodes what waits on `l` into client->scratch until that is a message's worth. Returns how many
 * requests these are. */
static size_t encode_some(dkv_client *client, lane *l, int64_t now_ns) {
    size_t n = 0;
    client->scratch.len = 0;
    for (list_node *node = l->waiting.head.next; node != &l->waiting.head; node = node->next) {
        if (encode(client, LIST_OWNER(node, attempt, node), now_ns)) break;
        n++;
        if (client->scratch.len >= DKV_RPC_BATCH_MAX / 2) break;
    }
    return n;
}

static int send_some(dkv_client *client, lane *l) {
    size_t n = encode_some(client, l, dkv_client_now());
    if (n == 0) return DKV_ERR_NO_MEMORY;
    int err = client->scratch.len > DKV_RPC_BATCH_MAX
                  ? dkv_rpc_stream_send_buf(l->stream, &client->scratch)
                  : dkv_rpc_stream_send(l->stream, dkv_buf_slice(&client->scratch));
    if (err) return err;
    while (n-- > 0) {
        attempt *a = LIST_OWNER(list_pop(&l->waiting), attempt, node);
        a->sent = true;
        dkv_rpc_nagle_pass(&l->nagle, kind_of(a));
        list_add(&l->target->sent, &a->node);
    }
    return DKV_OK;
}

/* Whether what waits may leave now. The large lane carries what fills a message alone. */
static bool may_leave(dkv_client *client, lane *l) {
    if (list_is_empty(&l->waiting) || l == &l->target->lanes[LARGE]) return true;
    int64_t now_ns = dkv_client_now();
    if (dkv_rpc_nagle_may_send(&l->nagle, now_ns)) return true;
    dkv_rpc_nagle_hold(&l->nagle, now_ns);
    l->held = true;
    list_add(&client->held, &l->pump);
    return false;
}

void dkv_client_lane_pump(dkv_client *client, lane *l) {
    if (!l->accepted) return; /* on_opened comes back to it */
    if (!may_leave(client, l)) return;
    while (!list_is_empty(&l->waiting)) {
        if (dkv_rpc_stream_backlog(l->stream) >= LANE_BACKLOG_MAX) {
            list_add(&client->congested, &l->pump);
            break;
        }
        int err = send_some(client, l);
        if (err) {
            broken(l->target, err, dkv_err_sentence(err));
            return;
        }
    }
    dkv_rpc_stream_flush(l->stream);
}

/* ---- lifecycle ------------------------------------------------------------------------------ */

void dkv_client_target_init(target *t, dkv_client *client, const dkv_member *member) {
    *t = (target){.client = client, .member = member};
    t->get_ns.value = (uint64_t)client->hedge_ns;
    list_init(&t->sent);
    for (int i = 0; i < N_LANES; i++) {
        t->lanes[i].target = t;
        list_init(&t->lanes[i].waiting);
    }
}

void dkv_client_target_close(target *t) {
    for (int i = 0; i < N_LANES; i++) lane_detach(&t->lanes[i]);
    dkv_rpc_channel_del(t->channel);
    t->channel = NULL;
}
