/* Three nodes that do as they are told: they speak dkv.proto on real ports, on one thread of their
 * own, but store nothing. What a test sets from outside takes effect with the next request. */
#ifndef DKV_TESTS_FAKE_NODES_H
#define DKV_TESTS_FAKE_NODES_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/err.h"
#include "base/hash.h"
#include "check.h"
#include "client/client.h"
#include "rpc/rpc.h"
#include "tsan_quiet.h"
#include "wire/wire.h"

#define FAKES 3
#define LARGE_VALUE 200000u

typedef enum fake_mood {
    ANSWER,     /* reads: "value of <key>"; writes: applied */
    SILENT,     /* takes everything, says nothing */
    HOLD,       /* as SILENT, but answers all of it when the mood changes to ANSWER */
    LACK,       /* as ANSWER, but has no key */
    BREAK,      /* ends the stream instead of answering */
    ERROR,      /* answers with `err` and `outcome` */
    WRONG_ID,   /* answers under numbers that nobody asked for, then properly */
    WRONG_KIND, /* answers reads as writes and writes as reads */
    GARBAGE,    /* answers with bytes that are no message */
    HUGE,       /* answers with a value above the limit */
    NO_MAP,     /* answers, except when asked for the map */
} fake_mood;

typedef struct fake_node {
    char id[8];
    dkv_rpc_server *server; /* NULL: down */
    atomic_uint port;
    atomic_bool up; /* as it should be */
    atomic_bool is_up;
    atomic_int mood;
    atomic_int err;
    atomic_int outcome;
    atomic_uint unasked; /* bit i: with NOT_FOUND it says that node i could not be asked */
    atomic_uint reads;
    atomic_uint writes;
    atomic_uint failovers;   /* reads that said that a replica before was passed over */
    atomic_uint sessions;    /* opened so far */
    atomic_uint on_second;   /* requests that came on another session than the pair's first */
    atomic_ullong last_seen; /* hlc in the latest write */
} fake_node;

/* One session at its server. */
typedef struct fake_session {
    struct fake_session *next;
    fake_node *node;
    dkv_rpc_stream *stream;
    uint64_t pair;
    dkv_buf held; /* answers to give when the mood changes */
} fake_session;

static fake_node fakes[FAKES];
static fake_session *fake_sessions;
static dkv_rpc_loop *fake_loop;
static pthread_t fake_thread;
static atomic_bool fake_running;
static atomic_ullong fake_hlc;
static dkv_cluster_map *fake_map;
static uint8_t fake_large[LARGE_VALUE];
static uint8_t fake_huge[2u << 20];

static inline void fake_sleep_ms(int ms) {
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* CHECK belongs to the thread of the test; here a mistake of the fake ends the program. */
#define MUST(condition) (void)((condition) || (abort(), 0))

/* ---- answers ---- */

static inline void fake_value(dkv_slice key, bool absent, dkv_reply *reply) {
    static char text[64];
    if (key.len >= 5 && memcmp(key.data, "large", 5) == 0) {
        reply->value = (dkv_slice){fake_large, sizeof fake_large};
    } else if (absent || (key.len >= 6 && memcmp(key.data, "absent", 6) == 0)) {
        reply->err = DKV_ERR_NOT_FOUND;
        reply->detail = dkv_slice_of("no such key");
    } else {
        snprintf(text, sizeof text, "value of %.*s", (int)key.len, (const char *)key.data);
        reply->value = dkv_slice_of(text);
    }
}

static inline dkv_reply fake_reply(fake_node *node, const dkv_request *request) {
    dkv_reply reply = {.version = {atomic_fetch_add(&fake_hlc, 1) + 1, 7}};
    reply.holding = (dkv_node_names){1, {dkv_slice_of(node->id)}};
    int mood = atomic_load(&node->mood);
    if (mood == ERROR) {
        reply.err = atomic_load(&node->err);
        reply.outcome = (dkv_outcome)atomic_load(&node->outcome);
        reply.detail = dkv_slice_of("as told");
        reply.missing = reply.holding;
        reply.holding.n = 0;
    } else if (request->op == DKV_OP_GET) {
        fake_value(request->key, mood == LACK, &reply);
        unsigned unasked = atomic_load(&node->unasked);
        for (unsigned i = 0; reply.err && i < FAKES; i++) {
            if (unasked & 1u << i) reply.missing.ids[reply.missing.n++] = dkv_slice_of(fakes[i].id);
        }
    }
    return reply;
}

/* To nobody if the stream has ended meanwhile, by a mood that has changed since, say. */
static inline void fake_send(fake_session *session, dkv_buf *bytes) {
    int err = dkv_rpc_stream_send_buf(session->stream, bytes);
    MUST(err == DKV_OK || err == DKV_ERR_UNAVAILABLE);
    dkv_buf_free(bytes);
}

static inline void fake_answer(fake_session *session, uint64_t id, const dkv_request *request) {
    fake_node *node = session->node;
    dkv_reply reply = fake_reply(node, request);
    dkv_op op = request->op;
    dkv_buf out = {0};
    switch (atomic_load(&node->mood)) {
    case SILENT: return;
    case BREAK: dkv_rpc_stream_cancel(session->stream); return;
    case HOLD: MUST(dkv_wire_put_reply(&session->held, id, op, &reply) == 0); return;
    case GARBAGE:
        MUST(dkv_buf_append(&out, dkv_slice_of("\x0a\xff\xff\xff")) == 0);
        fake_send(session, &out);
        return;
    case HUGE: reply.value = (dkv_slice){fake_huge, sizeof fake_huge}; break;
    case WRONG_ID: MUST(dkv_wire_put_reply(&out, id ^ 0x5555000000000000u, op, &reply) == 0); break;
    case WRONG_KIND: op = op == DKV_OP_GET ? DKV_OP_PUT : DKV_OP_GET; break;
    default: break;
    }
    MUST(dkv_wire_put_reply(&out, id, op, &reply) == 0);
    fake_send(session, &out);
}

/* ---- the protocol's handlers ---- */

static inline bool fake_is_second(const fake_session *session) {
    const fake_session *first = NULL;
    for (const fake_session *s = fake_sessions; s; s = s->next) {
        if (s->node == session->node && s->pair == session->pair) first = s; /* the oldest */
    }
    return first != session;
}

static inline void fake_on_request(void *user, uint64_t id, const dkv_request *request) {
    fake_session *session = user;
    fake_node *node = session->node;
    if (request->op == DKV_OP_GET) {
        atomic_fetch_add(&node->reads, 1);
        atomic_fetch_add(&node->failovers, request->failover);
    } else {
        atomic_store(&node->last_seen, request->last_seen.hlc);
        atomic_fetch_add(&node->writes, 1);
    }
    atomic_fetch_add(&node->on_second, fake_is_second(session));
    fake_answer(session, id, request);
}

static inline void fake_on_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    fake_session *session = user;
    uint64_t pair = dkv_wire_get_lane(bytes);
    if (pair) session->pair = pair;
    MUST(dkv_wire_each_request(bytes, fake_on_request, session) == DKV_OK);
    dkv_rpc_stream_flush(stream);
}

static inline void fake_on_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    (void)stream, (void)err, (void)detail;
    fake_session *session = user;
    fake_session **at = &fake_sessions;
    while (*at != session) at = &(*at)->next;
    *at = session->next;
    dkv_buf_free(&session->held);
    free(session);
}

static inline void *fake_accept(void *user, dkv_rpc_stream *stream) {
    fake_session *session = calloc(1, sizeof *session);
    MUST(session);
    *session = (fake_session){.next = fake_sessions, .node = user, .stream = stream};
    fake_sessions = session;
    atomic_fetch_add(&session->node->sessions, 1);
    return session;
}

static inline void fake_on_map(void *user, dkv_rpc_call *call, dkv_slice request,
                               uint32_t timeout) {
    (void)request, (void)timeout;
    fake_node *node = user;
    dkv_buf out = {0};
    if (atomic_load(&node->mood) == NO_MAP) {
        dkv_rpc_call_reply(call, DKV_ERR_PRECONDITION, "no map yet", (dkv_slice){0});
        return;
    }
    MUST(dkv_wire_put_map(&out, fake_map) == 0);
    dkv_rpc_call_reply(call, DKV_OK, "", dkv_buf_slice(&out));
    dkv_buf_free(&out);
}

static inline void fake_on_status(void *user, dkv_rpc_call *call, dkv_slice request,
                                  uint32_t timeout) {
    (void)request, (void)timeout;
    dkv_rpc_call_reply(call, DKV_OK, "", dkv_slice_of(((fake_node *)user)->id));
}

/* ---- lifecycle ---- */

static const dkv_rpc_stream_events fake_events = {
    .message = fake_on_message,
    .closed = fake_on_closed,
};
static const dkv_rpc_method fake_methods[] = {
    {.path = "/dkv.v1.KV/Session", .accept = fake_accept, .events = &fake_events},
    {.path = "/dkv.v1.KV/Map", .unary = fake_on_map},
    {.path = "/dkv.v1.Admin/Status", .unary = fake_on_status},
};

static inline void fake_listen(fake_node *node) {
    char address[32];
    uint16_t port = 0;
    snprintf(address, sizeof address, "127.0.0.1:%u", atomic_load(&node->port));
    int err =
        dkv_rpc_server_new(fake_loop, address, 0, fake_methods, 3, node, &node->server, &port);
    if (err) return; /* the old socket may not be gone yet: tried again in the next round */
    atomic_store(&node->port, port);
    atomic_store(&node->is_up, true);
}

static inline void fake_obey(fake_node *node) {
    if (atomic_load(&node->up) && !node->server) fake_listen(node);
    if (!atomic_load(&node->up) && node->server) {
        dkv_rpc_server_del(node->server);
        node->server = NULL;
        atomic_store(&node->is_up, false);
    }
}

static inline void fake_release(fake_session *session) {
    if (session->held.len == 0 || atomic_load(&session->node->mood) != ANSWER) return;
    fake_send(session, &session->held);
    dkv_rpc_stream_flush(session->stream);
}

static inline void *fake_run(void *unused) {
    (void)unused;
    while (atomic_load(&fake_running)) {
        for (int i = 0; i < FAKES; i++) fake_obey(&fakes[i]);
        for (fake_session *s = fake_sessions; s; s = s->next) fake_release(s);
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
        dkv_rpc_loop_poll(fake_loop, now_ns + 5000000, 64);
    }
    return NULL;
}

static inline void fake_set_up(int i, bool up) {
    atomic_store(&fakes[i].up, up);
    while (atomic_load(&fakes[i].is_up) != up) fake_sleep_ms(1);
}

static inline void fake_start(void) {
    CHECK(dkv_rpc_loop_new(&fake_loop) == DKV_OK);
    CHECK(dkv_cluster_map_new("fake", FAKES, &fake_map) == DKV_OK);
    atomic_store(&fake_running, true);
    memset(fakes, 0, sizeof fakes);
    for (int i = 0; i < FAKES; i++) {
        snprintf(fakes[i].id, sizeof fakes[i].id, "n%d", i + 1);
        fakes[i].up = true;
        fake_listen(&fakes[i]);
        CHECK(fakes[i].server);
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%u", fakes[i].port);
        dkv_member member = {.id = fakes[i].id, .address = address};
        CHECK(dkv_cluster_map_add(fake_map, &member) == DKV_OK);
    }
    CHECK(pthread_create(&fake_thread, NULL, fake_run, NULL) == 0);
}

static inline void fake_stop(void) {
    atomic_store(&fake_running, false);
    dkv_rpc_loop_wake(fake_loop);
    CHECK(pthread_join(fake_thread, NULL) == 0);
    for (int i = 0; i < FAKES; i++) dkv_rpc_server_del(fakes[i].server);
    dkv_rpc_loop_del(fake_loop);
    dkv_cluster_map_del(fake_map);
}

#endif
