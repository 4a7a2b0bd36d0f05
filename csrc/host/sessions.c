/* Clients' streams: KV.Session, see proto/dkv.proto. And the table of all client requests that the
 * node has not answered yet, from streams and unary calls alike. */
#include <stdlib.h>

#include "base/err.h"
#include "host/internal.h"
#include "replica/replica.h"

typedef struct session {
    dkv_pair pair;  /* first: a pair is cast to its session */
    bool finishing; /* the client sends nothing more: the stream ends with the last answer */
} session;

static session *session_of(dkv_pair *pair) {
    return (session *)(void *)pair;
}

/* ---- requests under way ---- */

#define WAITERS_FIRST 256u
#define UNSENT_MAX 50331648u /* bytes that may wait for one client, an answer included */

static bool grow_waiters(dkv_host *host) {
    size_t n = host->n_waiters ? 2 * host->n_waiters : WAITERS_FIRST;
    if (n > DKV_REQUESTS_MAX) return false;
    dkv_waiter *waiters = realloc(host->waiters, n * sizeof *waiters);
    if (!waiters) return false;
    for (size_t i = host->n_waiters; i < n; i++) waiters[i] = (dkv_waiter){.id = i + 1};
    host->waiters = waiters;
    host->n_waiters = n;
    return true;
}

/* The request's handle, or 0 if there is no room. */
static uint64_t add_waiter(dkv_host *host, dkv_waiter waiter) {
    if (host->n_requests == host->requests_max) return 0;
    if (host->free_waiter == host->n_waiters && !grow_waiters(host)) return 0;
    host->n_requests++;
    size_t at = host->free_waiter;
    host->free_waiter = (size_t)host->waiters[at].id;
    host->waiters[at] = waiter;
    host->request_bytes += waiter.len_bytes;
    return at + 1;
}

static dkv_waiter take_waiter(dkv_host *host, uint64_t handle) {
    size_t at = (size_t)handle - 1;
    dkv_waiter waiter = host->waiters[at];
    host->waiters[at] = (dkv_waiter){.id = host->free_waiter};
    host->free_waiter = at;
    host->n_requests--;
    host->request_bytes -= waiter.len_bytes;
    return waiter;
}

/* ---- answering ---- */

#define SLOW_TEXT "the client reads its answers too slowly; try again later"

static void finish_if_answered(session *s) {
    if (!s->finishing || s->pair.unanswered || s->pair.waiting) return;
    if (s->pair.small) dkv_rpc_stream_finish(s->pair.small);
    if (s->pair.large) dkv_rpc_stream_finish(s->pair.large);
}

/* Encodes the reply into scratch. A value that the client has no room for is left out. */
static int put_reply(dkv_host *host, const dkv_waiter *waiter, const dkv_reply *reply) {
    static const dkv_reply too_slow = {
        .err = DKV_ERR_BUSY,
        .detail = {(const uint8_t *)SLOW_TEXT, sizeof SLOW_TEXT - 1},
    };
    bool fits = dkv_pair_backlog(waiter->session) + reply->value.len <= UNSENT_MAX;
    return dkv_wire_put_reply(&host->scratch, waiter->id, waiter->op, fits ? reply : &too_slow);
}

static void answer_session(dkv_host *host, const dkv_waiter *waiter, const dkv_reply *reply) {
    dkv_pair *pair = waiter->session;
    host->scratch.len = 0;
    int err = put_reply(host, waiter, reply);
    if (err) {
        dkv_pair_fail(pair, err, dkv_err_sentence(err));
    } else {
        dkv_pair_send(pair, &host->scratch);
    }
    pair->unanswered--;
    finish_if_answered(session_of(pair));
    dkv_pair_release(pair);
}

static void answer(dkv_host *host, const dkv_waiter *waiter, const dkv_reply *reply) {
    if (waiter->session) {
        answer_session(host, waiter, reply);
    } else {
        dkv_call_reply(host, waiter->call, waiter->op, reply);
    }
}

void dkv_host_reply(void *user, uint64_t handle, const dkv_reply *reply) {
    dkv_host *host = user;
    if (host->failure) return;
    dkv_waiter waiter = take_waiter(host, handle);
    answer(host, &waiter, reply);
}

static void refuse(dkv_host *host, const dkv_waiter *waiter, int err, const char *detail) {
    dkv_reply reply = {.err = err, .detail = dkv_slice_of(detail)};
    if (waiter->op != DKV_OP_GET) reply.outcome = DKV_OUTCOME_NOT_APPLIED;
    answer(host, waiter, &reply);
}

/* The handle for what waits for the node; 0 if the waiter was refused. */
static uint64_t admit(dkv_host *host, dkv_waiter waiter) {
    if (host->stopping) {
        refuse(host, &waiter, DKV_ERR_UNAVAILABLE, "the node is stopping");
        return 0;
    }
    bool is_full = host->request_bytes + waiter.len_bytes > host->request_bytes_max;
    uint64_t handle = is_full ? 0 : add_waiter(host, waiter);
    if (!handle) {
        refuse(host, &waiter, DKV_ERR_BUSY, "too many requests are under way in this node");
    }
    return handle;
}

void dkv_host_request(dkv_host *host, dkv_waiter waiter, const dkv_request *request) {
    waiter.len_bytes = request->key.len + request->value.len;
    uint64_t handle = admit(host, waiter);
    if (!handle) return;
    dkv_host_step(host, (dkv_event){.kind = DKV_EVENT_REQUEST, .request = {handle, request}});
}

void dkv_host_declare_lost(dkv_host *host, dkv_rpc_call *call, dkv_slice member) {
    uint64_t handle = admit(host, (dkv_waiter){.call = call});
    if (!handle) return;
    dkv_host_step(host,
                  (dkv_event){.kind = DKV_EVENT_DECLARE_LOST, .declare_lost = {handle, member}});
}

void dkv_host_drop_requests(dkv_host *host) {
    for (size_t i = 0; i < host->n_waiters; i++) {
        dkv_waiter waiter = host->waiters[i];
        if (!waiter.session && !waiter.call) continue;
        dkv_reply reply = {.err = DKV_ERR_UNAVAILABLE,
                           .detail = dkv_slice_of("the node has stopped")};
        if (waiter.op != DKV_OP_GET) reply.outcome = DKV_OUTCOME_UNKNOWN;
        answer(host, &waiter, &reply);
    }
    free(host->waiters);
    host->waiters = NULL;
    host->n_waiters = 0;
    host->free_waiter = 0;
}

/* ---- streams ---- */

static void each_request(void *user, uint64_t id, const dkv_request *request) {
    dkv_pair *pair = user;
    dkv_pair_hold(pair);
    pair->unanswered++;
    dkv_host_request(pair->host, (dkv_waiter){.session = pair, .id = id, .op = request->op},
                     request);
}

static int take_requests(dkv_pair *pair, dkv_slice batch) {
    return dkv_wire_each_request(batch, each_request, pair);
}

static void on_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    dkv_pair *pair = user;
    if (!pair) return;
    dkv_host *host = pair->host;
    dkv_host_refresh_clock(host);
    pair = dkv_pair_begin(pair, &host->session_lanes, stream, bytes);
    if (!pair) return;
    dkv_pair_receive(pair, bytes);
}

static void on_finished(void *user, dkv_rpc_stream *stream) {
    session *s = user;
    (void)stream;
    if (!s) return;
    s->finishing = true;
    finish_if_answered(s);
}

void dkv_session_caught_up(dkv_pair *pair) {
    finish_if_answered(session_of(pair));
}

static void on_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    dkv_pair *pair = user;
    (void)err;
    (void)detail;
    if (!pair) return;
    if (dkv_pair_lane_closed(pair, stream) && pair->lane) {
        dkv_map_remove(&pair->host->session_lanes, pair->lane);
    }
    dkv_pair_release(pair);
}

void *dkv_session_accept(void *user, dkv_rpc_stream *stream) {
    dkv_host *host = user;
    dkv_pair *pair = dkv_pair_new(host, sizeof(session), take_requests, stream);
    if (pair) {
        pair->is_session = true;
    } else {
        dkv_rpc_stream_cancel(stream);
    }
    return pair;
}

const dkv_rpc_stream_events dkv_session_events = {
    .message = on_message,
    .closed = on_closed,
    .finished = on_finished,
};
