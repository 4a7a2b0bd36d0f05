/* What the tests of csrc/rpc share: an echo server, as a thread or as a process, and the record of
 * what came to one end of a stream.
 *
 * Items are [length of the payload, u32][number, u32][payload]; the payload follows from the
 * number, so either end can tell a lost, doubled, moved or changed item. */
#ifndef DKV_TESTS_RPC_FIXTURE_H
#define DKV_TESTS_RPC_FIXTURE_H

#include <pthread.h>
#include <time.h>

#include "base/err.h"
#include "base/rand.h"
#include "check.h"
#include "rpc/rpc.h"
#include "tsan_quiet.h"

#define ECHO_STREAM "/t/Echo"
#define HELD_STREAM "/t/Held" /* accepted, but paused until told otherwise */
#define UNARY "/t/Unary"

#define ITEM_HEAD 8u
#define PAYLOAD_MAX 1048576u
#define ENDS_MAX 16384u
#define HELD_MAX 256u
#define BIG_REPLY (DKV_RPC_MESSAGE_MAX + 1u)

static inline int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What the trailer of an error is made of here: bytes, not text. */
static const dkv_slice trailer_bytes = {(const uint8_t *)"\0\xff why", 6};

/* ---- items ---- */

static inline const uint8_t *pattern(uint32_t number) {
    static uint8_t bytes[PAYLOAD_MAX + 4096];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    dkv_rand rand = {7};
    for (size_t i = 0; bytes[0] == 0 && i < sizeof bytes; i++) {
        bytes[sizeof bytes - 1 - i] = (uint8_t)(dkv_rand_next(&rand) | 1);
    }
    pthread_mutex_unlock(&lock);
    return bytes + number % 4096;
}

static inline void make_item(dkv_buf *item, uint32_t number, uint32_t len) {
    item->len = 0;
    if (dkv_buf_reserve(item, ITEM_HEAD + len)) abort();
    dkv_put_le32(item->data, len);
    dkv_put_le32(item->data + 4, number);
    memcpy(item->data + ITEM_HEAD, pattern(number), len);
    item->len = ITEM_HEAD + len;
}

/* ---- one end of a stream ---- */

typedef struct end {
    dkv_rpc_stream *stream; /* NULL: closed */
    bool echoes;
    bool cancelled; /* here: no message may come any more */
    unsigned opened;
    unsigned finished;
    unsigned closed;
    size_t messages;
    size_t bytes;
    size_t largest; /* message */
    uint32_t items; /* in order and intact */
    bool damaged;   /* an item was not the next, or not intact */
    int err;
    char detail[300];
} end;

static inline void end_check_items(end *e, dkv_slice bytes) {
    size_t at = 0;
    while (at < bytes.len) {
        if (bytes.len - at < ITEM_HEAD) break;
        uint32_t len = dkv_le32(bytes.data + at);
        uint32_t number = dkv_le32(bytes.data + at + 4);
        at += ITEM_HEAD;
        if (number != e->items || bytes.len - at < len) break;
        if (memcmp(bytes.data + at, pattern(number), len) != 0) break;
        at += len;
        e->items++;
    }
    if (at != bytes.len) e->damaged = true;
}

static inline void end_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    end *e = user;
    e->messages++;
    e->bytes += bytes.len;
    if (bytes.len > e->largest) e->largest = bytes.len;
    if (e->closed || e->cancelled || stream != e->stream) e->damaged = true;
    end_check_items(e, bytes);
    if (e->echoes && dkv_rpc_stream_send(stream, bytes)) {
        dkv_rpc_stream_fail(stream, DKV_ERR_BUSY, "the echo is full");
    }
}

static inline void end_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    end *e = user;
    if (stream != e->stream) e->damaged = true;
    if (dkv_rpc_stream_send(stream, dkv_slice_of("x")) != DKV_ERR_UNAVAILABLE) e->damaged = true;
    dkv_rpc_stream_cancel(stream); /* harmless by now */
    e->closed++;
    e->err = err;
    snprintf(e->detail, sizeof e->detail, "%s", detail);
    e->stream = NULL;
}

static inline void end_cancel(end *e) {
    e->cancelled = true;
    dkv_rpc_stream_cancel(e->stream);
}

static inline void end_opened(void *user, dkv_rpc_stream *stream) {
    (void)stream;
    ((end *)user)->opened++;
}

static inline void end_finished(void *user, dkv_rpc_stream *stream) {
    ((end *)user)->finished++;
    dkv_rpc_stream_finish(stream);
}

static const dkv_rpc_stream_events end_events = {
    .message = end_message, .closed = end_closed, .opened = end_opened, .finished = end_finished};

/* ---- the server ---- */

typedef struct server server;
typedef void (*server_job)(server *s, void *arg);

struct server {
    dkv_rpc_loop *loop;
    dkv_rpc_server *rpc;
    uint16_t port;
    end *ends[ENDS_MAX]; /* every stream that was accepted, in order */
    unsigned n_ends;
    dkv_rpc_call *held[HELD_MAX]; /* calls that wait for their answer */
    unsigned n_held;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ready;
    bool stop;
    server_job job; /* to be done by the server's thread */
    void *arg;
};

static inline void *accept_end(server *s, dkv_rpc_stream *stream, bool echoes) {
    end *e = calloc(1, sizeof *e);
    if (!e || s->n_ends == ENDS_MAX) abort();
    e->stream = stream;
    e->echoes = echoes;
    s->ends[s->n_ends++] = e;
    return e;
}

static inline void *accept_echo(void *user, dkv_rpc_stream *stream) {
    return accept_end(user, stream, true);
}

static inline void *accept_held(void *user, dkv_rpc_stream *stream) {
    /* What is posted already may bring one message, hence pause is not enough for some tests. */
    dkv_rpc_stream_pause(stream, true);
    return accept_end(user, stream, false);
}

/* The first byte of a request says what to do with it. */
static inline void serve_unary(void *user, dkv_rpc_call *call, dkv_slice request, uint32_t ms) {
    static const uint8_t big[BIG_REPLY];
    server *s = user;
    char text[32];
    switch (request.len ? request.data[0] : 'e') {
    case 'n': /* an error with a trailer */
        dkv_rpc_call_reply(call, DKV_ERR_NOT_FOUND, "no such thing", trailer_bytes);
        break;
    case 't': /* tells the time left */
        snprintf(text, sizeof text, "%u", (unsigned)ms);
        dkv_rpc_call_reply(call, DKV_OK, NULL, dkv_slice_of(text));
        break;
    case 'b': /* too large an answer */
        dkv_rpc_call_reply(call, DKV_OK, NULL, (dkv_slice){big, sizeof big});
        break;
    case 'w': /* waits */
        if (s->n_held == HELD_MAX) abort();
        s->held[s->n_held++] = call;
        break;
    default: dkv_rpc_call_reply(call, DKV_OK, NULL, request);
    }
}

static const dkv_rpc_method server_methods[] = {
    {.path = ECHO_STREAM, .accept = accept_echo, .events = &end_events},
    {.path = HELD_STREAM, .accept = accept_held, .events = &end_events},
    {.path = UNARY, .unary = serve_unary},
};

static inline void server_open(server *s, const char *address) {
    if (dkv_rpc_loop_new(&s->loop)) abort();
    int err = dkv_rpc_server_new(s->loop, address, 0, server_methods, 3, s, &s->rpc, &s->port);
    if (err) abort();
}

static inline void server_round(server *s) {
    dkv_rpc_loop_poll(s->loop, INT64_MAX, 64);
    for (unsigned i = 0; i < s->n_ends; i++) {
        if (s->ends[i]->stream) dkv_rpc_stream_flush(s->ends[i]->stream);
    }
}

/* Closes in the worst order: calls are answered when server and loop are gone. */
static inline void server_close(server *s) {
    dkv_rpc_server_del(s->rpc);
    dkv_rpc_loop_del(s->loop);
    while (s->n_held > 0) dkv_rpc_call_reply(s->held[--s->n_held], DKV_OK, NULL, (dkv_slice){0});
}

static inline void *server_thread(void *arg) {
    server *s = arg;
    server_open(s, "127.0.0.1:0");
    bool stop = false;
    pthread_mutex_lock(&s->lock);
    s->ready = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    while (!stop) {
        server_round(s);
        pthread_mutex_lock(&s->lock);
        if (s->job) s->job(s, s->arg);
        s->job = NULL;
        stop = s->stop;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
    }
    server_close(s);
    return NULL;
}

static inline server *server_start(void) {
    server *s = calloc(1, sizeof *s);
    if (!s) abort();
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    pattern(0);
    if (pthread_create(&s->thread, NULL, server_thread, s)) abort();
    pthread_mutex_lock(&s->lock);
    while (!s->ready) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return s;
}

/* Runs `job` on the server's thread and waits for it. */
static inline void server_do(server *s, server_job job, void *arg) {
    pthread_mutex_lock(&s->lock);
    s->job = job;
    s->arg = arg;
    dkv_rpc_loop_wake(s->loop);
    while (s->job) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* Ends the thread. What it recorded can be read now, until server_del. */
static inline void server_stop(server *s) {
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    dkv_rpc_loop_wake(s->loop);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
}

static inline void server_del(server *s) {
    for (unsigned i = 0; i < s->n_ends; i++) free(s->ends[i]);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

/* ---- the client ---- */

typedef struct answer {
    unsigned calls;
    int err;
    char detail[300];
    dkv_buf bytes;
} answer;

static inline void keep_answer(void *user, int err, const char *detail, dkv_slice bytes) {
    answer *a = user;
    a->calls++;
    a->err = err;
    snprintf(a->detail, sizeof a->detail, "%s", detail);
    a->bytes.len = 0;
    if (dkv_buf_append(&a->bytes, bytes)) abort();
}

static dkv_rpc_loop *loop; /* the client's, in this thread */
static dkv_rpc_channel *channel;

/* Polls the client's loop until the condition holds; gives up after a minute. */
#define WAIT(condition)                                                \
    do {                                                               \
        int64_t give_up_ns = now_ns() + 60000000000;                   \
        while (!(condition) && now_ns() < give_up_ns) {                \
            dkv_rpc_loop_poll(loop, now_ns() + 10000000 /* ns */, 64); \
        }                                                              \
        CHECK(condition);                                              \
    } while (0)

static inline void client_open(uint16_t port) {
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    CHECK(dkv_rpc_loop_new(&loop) == DKV_OK);
    CHECK(dkv_rpc_channel_new(loop, address, &channel) == DKV_OK);
}

static inline void client_close(void) {
    dkv_rpc_channel_del(channel);
    dkv_rpc_loop_del(loop);
    channel = NULL;
    loop = NULL;
}

static inline void open_end(end *e, const char *method) {
    *e = (end){0};
    CHECK(dkv_rpc_stream_open(channel, method, &end_events, e, &e->stream) == DKV_OK);
}

static inline void send_item(end *e, uint32_t number, uint32_t len) {
    dkv_buf item = {0};
    make_item(&item, number, len);
    int err = dkv_rpc_stream_send_buf(e->stream, &item);
    dkv_buf_free(&item);
    CHECK(err == DKV_OK);
}

/* One unary call, to its end; the answer's bytes are to be freed. */
static inline answer call_and_wait(const char *method, dkv_slice request, uint32_t timeout_ms) {
    static answer a;
    a = (answer){0};
    CHECK(dkv_rpc_unary(channel, method, request, timeout_ms, keep_answer, &a) == DKV_OK);
    WAIT(a.calls > 0);
    CHECK(a.calls == 1);
    return a;
}

#endif
