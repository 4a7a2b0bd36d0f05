/* csrc/rpc between two threads of one process, each with a loop of its own. */
#include <sched.h>

#include "rpc/nagle.h"
#include "rpc_fixture.h"

#define TIMEOUT_MS 60000u

/* ---- status.c ---- */

/* Every error code has a status; those with a status of their own come back as themselves. */
static void statuses_map_both_ways(void) {
#define EXPECT_STATUS(name, number, sentence) CHECK(dkv_rpc_status_of(number) != 2 /* UNKNOWN */);
    DKV_ERR_MAP(EXPECT_STATUS)
#undef EXPECT_STATUS
    CHECK(dkv_rpc_status_of(DKV_OK) == 0 && dkv_rpc_err_of(0) == DKV_OK);
    CHECK(dkv_rpc_status_of(DKV_ERR_NOT_FOUND) == 5 && dkv_rpc_err_of(5) == DKV_ERR_NOT_FOUND);
    CHECK(dkv_rpc_status_of(DKV_ERR_BUSY) == 8 && dkv_rpc_err_of(8) == DKV_ERR_BUSY);
    CHECK(dkv_rpc_status_of(DKV_ERR_PROTOCOL) == 3 && dkv_rpc_err_of(3) == DKV_ERR_INVALID);
    for (int status = 1; status <= 16; status++) CHECK(dkv_rpc_err_of(status) != DKV_OK);
    CHECK(dkv_rpc_err_of(99) == DKV_ERR_INTERNAL);
}

/* ---- nagle.h ---- */

static void queue(dkv_rpc_nagle *nagle, dkv_rpc_kind kind, unsigned n) {
    nagle->waiting[kind] += n;
}

static void send_all(dkv_rpc_nagle *nagle) {
    for (unsigned kind = 0; kind < DKV_RPC_KINDS; kind++) {
        while (nagle->waiting[kind]) dkv_rpc_nagle_pass(nagle, (dkv_rpc_kind)kind);
    }
}

/* A request that is alone leaves at once; the next ones wait until something is answered, as many
 * have gathered, or their time is over. */
static void requests_wait_for_company(void) {
    dkv_rpc_nagle nagle = {0};
    CHECK(!dkv_rpc_nagle_may_send(&nagle, 5));
    queue(&nagle, DKV_RPC_WRITE, 1);
    CHECK(dkv_rpc_nagle_may_send(&nagle, 5));
    send_all(&nagle);
    queue(&nagle, DKV_RPC_WRITE, DKV_RPC_NAGLE_CROWD - 1);
    CHECK(!dkv_rpc_nagle_may_send(&nagle, 5));
    queue(&nagle, DKV_RPC_WRITE, 1);
    CHECK(dkv_rpc_nagle_may_send(&nagle, 5));
    send_all(&nagle);
    queue(&nagle, DKV_RPC_WRITE, 1);
    dkv_rpc_nagle_hold(&nagle, 7);
    dkv_rpc_nagle_hold(&nagle, 9);
    CHECK(!dkv_rpc_nagle_may_send(&nagle, 7 + DKV_RPC_NAGLE_NS - 1));
    CHECK(dkv_rpc_nagle_may_send(&nagle, 7 + DKV_RPC_NAGLE_NS));
    send_all(&nagle);
    queue(&nagle, DKV_RPC_WRITE, 1);
    CHECK(!dkv_rpc_nagle_may_send(&nagle, INT64_MAX));
    dkv_rpc_nagle_answered(&nagle);
    CHECK(dkv_rpc_nagle_may_send(&nagle, 5));
}

/* A read does not wait for the answers to writes. */
static void reads_pass_writes(void) {
    dkv_rpc_nagle nagle = {0};
    queue(&nagle, DKV_RPC_WRITE, 50);
    send_all(&nagle);
    queue(&nagle, DKV_RPC_WRITE, 1);
    CHECK(!dkv_rpc_nagle_may_send(&nagle, 5));
    queue(&nagle, DKV_RPC_READ, 1);
    CHECK(dkv_rpc_nagle_may_send(&nagle, 5));
}

/* ---- unary calls ---- */

/* A call brings back the bytes of the reply, from none to a MiB. */
static void unary_calls_answer(void) {
    static const size_t sizes[] = {0, 1, 100, 65536, 1048576, DKV_RPC_MESSAGE_MAX};
    server *s = server_start();
    client_open(s->port);
    dkv_buf request = {0};
    CHECK(dkv_buf_reserve(&request, DKV_RPC_MESSAGE_MAX) == DKV_OK);
    memset(request.data, 'e', DKV_RPC_MESSAGE_MAX);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        dkv_slice sent = {request.data, sizes[i]};
        answer a = call_and_wait(UNARY, sent, TIMEOUT_MS);
        CHECK(a.err == DKV_OK);
        CHECK(dkv_slice_eq(dkv_buf_slice(&a.bytes), sent));
        dkv_buf_free(&a.bytes);
    }
    dkv_buf_free(&request);
    client_close();
    server_stop(s);
    server_del(s);
}

/* An error brings its code, its sentence and the bytes of its trailer. */
static void unary_errors_carry_their_trailer(void) {
    server *s = server_start();
    client_open(s->port);
    answer a = call_and_wait(UNARY, dkv_slice_of("n"), TIMEOUT_MS);
    CHECK(a.err == DKV_ERR_NOT_FOUND);
    CHECK(strcmp(a.detail, "no such thing") == 0);
    CHECK(dkv_slice_eq(dkv_buf_slice(&a.bytes), trailer_bytes));
    dkv_buf_free(&a.bytes);
    client_close();
    server_stop(s);
    server_del(s);
}

/* The server sees the time that the client's deadline leaves, or that there is none. */
static void unary_calls_carry_their_deadline(void) {
    server *s = server_start();
    client_open(s->port);
    answer a = call_and_wait(UNARY, dkv_slice_of("t"), TIMEOUT_MS);
    CHECK(a.err == DKV_OK && dkv_buf_append(&a.bytes, (dkv_slice){(const uint8_t *)"", 1}) == 0);
    long left_ms = atol((const char *)a.bytes.data);
    CHECK(left_ms > 0 && left_ms <= TIMEOUT_MS + 1000 /* gRPC rounds up */);
    dkv_buf_free(&a.bytes);
    a = call_and_wait(UNARY, dkv_slice_of("t"), DKV_RPC_NO_TIMEOUT);
    CHECK(dkv_slice_eq(dkv_buf_slice(&a.bytes), dkv_slice_of("4294967295")));
    dkv_buf_free(&a.bytes);
    client_close();
    server_stop(s);
    server_del(s);
}

/* A call that nobody answers ends at its deadline, and the late answer harms nobody. */
static void unary_deadlines_fire(void) {
    server *s = server_start();
    client_open(s->port);
    answer a = call_and_wait(UNARY, dkv_slice_of("w"), 50);
    CHECK(a.err == DKV_ERR_DEADLINE);
    dkv_buf_free(&a.bytes);
    client_close();
    server_stop(s);
    server_del(s);
}

static void answer_held(server *s, void *arg) {
    (void)arg;
    while (s->n_held > 0) {
        dkv_rpc_call_reply(s->held[--s->n_held], DKV_OK, "", dkv_slice_of("late"));
    }
}

static void count_held(server *s, void *arg) {
    *(unsigned *)arg = s->n_held;
}

/* An answer given much later than the call arrives all the same. */
static void unary_answers_may_come_later(void) {
    server *s = server_start();
    client_open(s->port);
    static answer a[100];
    memset(a, 0, sizeof a);
    for (int i = 0; i < 100; i++) {
        CHECK(dkv_rpc_unary(channel, UNARY, dkv_slice_of("w"), TIMEOUT_MS, keep_answer, &a[i]) ==
              0);
    }
    unsigned held = 0;
    WAIT((server_do(s, count_held, &held), held == 100));
    server_do(s, answer_held, NULL);
    for (int i = 0; i < 100; i++) {
        WAIT(a[i].calls == 1);
        CHECK(a[i].err == DKV_OK);
        CHECK(dkv_slice_eq(dkv_buf_slice(&a[i].bytes), dkv_slice_of("late")));
        dkv_buf_free(&a[i].bytes);
    }
    client_close();
    server_stop(s);
    server_del(s);
}

/* A path that the server does not know is named in the error, for calls and for streams. */
static void unknown_methods_are_refused(void) {
    server *s = server_start();
    client_open(s->port);
    answer a = call_and_wait("/t/Nowhere", dkv_slice_of("x"), TIMEOUT_MS);
    CHECK(a.err == DKV_ERR_PROTOCOL);
    CHECK(strstr(a.detail, "/t/Nowhere"));
    dkv_buf_free(&a.bytes);
    end e;
    open_end(&e, "/t/Nowhere");
    WAIT(e.closed);
    CHECK(e.err == DKV_ERR_PROTOCOL && strstr(e.detail, "/t/Nowhere"));
    client_close();
    server_stop(s);
    server_del(s);
}

/* Too large a message is refused before it is sent, and refused by whom it reaches. */
static void large_messages_are_refused(void) {
    server *s = server_start();
    client_open(s->port);
    dkv_buf large = {0};
    CHECK(dkv_buf_reserve(&large, BIG_REPLY) == DKV_OK);
    large.len = BIG_REPLY;
    memset(large.data, 'e', large.len);
    answer unused = {0};
    CHECK(dkv_rpc_unary(channel, UNARY, dkv_buf_slice(&large), TIMEOUT_MS, keep_answer, &unused) ==
          DKV_ERR_INVALID);
    CHECK(unused.calls == 0);
    end e;
    open_end(&e, ECHO_STREAM);
    CHECK(dkv_rpc_stream_send(e.stream, dkv_buf_slice(&large)) == DKV_ERR_INVALID);
    CHECK(dkv_rpc_stream_send_buf(e.stream, &large) == DKV_ERR_INVALID);
    CHECK(large.len == BIG_REPLY);
    dkv_buf_free(&large);
    answer a = call_and_wait(UNARY, dkv_slice_of("b"), TIMEOUT_MS);
    CHECK(a.err == DKV_ERR_INVALID);
    CHECK(strstr(a.detail, "2621441"));
    dkv_buf_free(&a.bytes);
    client_close();
    server_stop(s);
    server_del(s);
}

/* ---- streams ---- */

static uint32_t random_len(dkv_rand *rand) {
    /* Mostly small; one in 512 may be as large as a value gets. */
    uint64_t bound = dkv_rand_below(rand, 512) == 0 ? PAYLOAD_MAX + 1 : 257;
    return (uint32_t)dkv_rand_below(rand, bound);
}

/* 100,000 items of random sizes pass to the server and back, in order, none lost or changed. */
static void streams_keep_order_both_ways(void) {
    const uint32_t n_items = 100000;
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    dkv_rand rand = {check_seed};
    for (uint32_t i = 0; i < n_items; i++) {
        WAIT(dkv_rpc_stream_backlog(e.stream) < 8u << 20);
        send_item(&e, i, random_len(&rand));
        if (dkv_rand_below(&rand, 16) == 0) dkv_rpc_stream_flush(e.stream);
        if (dkv_rand_below(&rand, 256) == 0) dkv_rpc_loop_poll(loop, 0, 16);
    }
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == n_items || e.closed || e.damaged);
    CHECK(e.items == n_items && !e.damaged && e.opened == 1);
    CHECK(e.messages < n_items);
    dkv_rpc_stream_finish(e.stream);
    WAIT(e.closed);
    CHECK(e.err == DKV_OK);
    client_close();
    server_stop(s);
    CHECK(s->n_ends == 1 && s->ends[0]->items == n_items && !s->ends[0]->damaged);
    CHECK(s->ends[0]->closed == 1 && s->ends[0]->err == DKV_OK);
    server_del(s);
}

/* What waits together leaves together: full batches, none above the bound, large items alone. */
static void waiting_items_leave_in_full_batches(void) {
    const uint32_t n_items = 10000;
    const uint32_t len = 100 - ITEM_HEAD;
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    for (uint32_t i = 0; i < n_items; i++) send_item(&e, i, len);
    CHECK(dkv_rpc_stream_backlog(e.stream) == n_items * 100);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == n_items);
    WAIT(dkv_rpc_stream_backlog(e.stream) == 0);
    const uint32_t per_batch = DKV_RPC_BATCH_MAX / 100;
    CHECK(e.largest <= DKV_RPC_BATCH_MAX);
    send_item(&e, n_items, 200000);
    send_item(&e, n_items + 1, 10);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == n_items + 2);
    CHECK(e.largest == 200000 + ITEM_HEAD);
    client_close();
    server_stop(s);
    CHECK(s->ends[0]->messages == (n_items + per_batch - 1) / per_batch + 2);
    server_del(s);
}

/* Nothing leaves before a flush; an empty item is nothing. */
static void items_wait_for_the_flush(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    WAIT(e.opened);
    CHECK(dkv_rpc_stream_send(e.stream, (dkv_slice){0}) == DKV_OK);
    CHECK(dkv_rpc_stream_backlog(e.stream) == 0);
    send_item(&e, 0, 10);
    answer a = call_and_wait(UNARY, dkv_slice_of("e"), TIMEOUT_MS);
    dkv_buf_free(&a.bytes);
    CHECK(e.items == 0 && dkv_rpc_stream_backlog(e.stream) == 10 + ITEM_HEAD);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == 1);
    client_close();
    server_stop(s);
    server_del(s);
}

/* After the last word before the peer's next message, what is queued waits for that message. */
static void a_last_flush_waits_for_the_peer(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    WAIT(e.opened);
    send_item(&e, 0, 10);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == 1);
    /* Between a message and the next poll the stream is not ready to receive, unless it is busy. */
    uint32_t n = 1;
    for (; !dkv_rpc_stream_is_last(e.stream) && n < 100; n++) {
        send_item(&e, n, 10);
        dkv_rpc_stream_flush_last(e.stream);
        if (dkv_rpc_stream_is_last(e.stream)) continue;
        WAIT(e.items == n + 1);
    }
    CHECK(dkv_rpc_stream_is_last(e.stream));
    send_item(&e, n, 10);
    dkv_rpc_stream_flush(e.stream);
    CHECK(dkv_rpc_stream_backlog(e.stream) == 2 * (10 + ITEM_HEAD));
    WAIT(e.items == n + 1);
    CHECK(!dkv_rpc_stream_is_last(e.stream) && !e.damaged);
    client_close();
    server_stop(s);
    server_del(s);
}

static void resume_all(server *s, void *arg) {
    (void)arg;
    for (unsigned i = 0; i < s->n_ends; i++) {
        if (s->ends[i]->stream) dkv_rpc_stream_pause(s->ends[i]->stream, false);
    }
}

static void count_messages(server *s, void *arg) {
    *(size_t *)arg = s->n_ends ? s->ends[0]->messages : 0;
}

/* With items_apart each item arrives as a message of its own, and all of them before the end. */
static void items_apart_are_not_joined(void) {
    enum { N = 100 };
    server *s = server_start();
    client_open(s->port);
    dkv_rpc_stream_events events = end_events;
    events.items_apart = true;
    end e = {0};
    CHECK(dkv_rpc_stream_open(channel, HELD_STREAM, &events, &e, &e.stream) == DKV_OK);
    WAIT(e.opened);
    for (uint32_t i = 0; i < N; i++) send_item(&e, i, 10);
    dkv_rpc_stream_finish(e.stream);
    server_do(s, resume_all, NULL);
    WAIT(e.closed);
    CHECK(e.err == DKV_OK);
    client_close();
    server_stop(s);
    CHECK(s->ends[0]->messages == N && s->ends[0]->items == N && !s->ends[0]->damaged);
    server_del(s);
}

/* A peer that does not take messages fills the backlog up to its bound, then sending says BUSY;
 * when it takes them again, everything arrives. */
static void a_paused_peer_makes_sending_busy(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, HELD_STREAM);
    dkv_buf item = {0};
    uint32_t sent = 0;
    int err = DKV_OK;
    for (; !err; sent += !err) {
        make_item(&item, sent, 500000);
        err = dkv_rpc_stream_send(e.stream, dkv_buf_slice(&item));
        dkv_rpc_stream_flush(e.stream);
        dkv_rpc_loop_poll(loop, 0, 16);
    }
    CHECK(err == DKV_ERR_BUSY);
    CHECK(dkv_rpc_stream_backlog(e.stream) <= DKV_RPC_BACKLOG_MAX);
    CHECK(dkv_rpc_stream_backlog(e.stream) > DKV_RPC_BACKLOG_MAX - 2 * 500000);
    size_t messages = 0;
    server_do(s, count_messages, &messages);
    CHECK(messages <= 1);
    server_do(s, resume_all, NULL);
    WAIT(dkv_rpc_stream_backlog(e.stream) == 0);
    CHECK(dkv_rpc_stream_send(e.stream, dkv_buf_slice(&item)) == DKV_OK);
    dkv_buf_free(&item);
    dkv_rpc_stream_finish(e.stream);
    WAIT(e.closed);
    CHECK(e.err == DKV_OK);
    client_close();
    server_stop(s);
    CHECK(s->ends[0]->items == sent + 1 && !s->ends[0]->damaged);
    server_del(s);
}

static void pause_after_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    end_message(user, stream, bytes);
    dkv_rpc_stream_pause(stream, true);
}

/* A pause from within `message` lets no further message through until it is lifted. */
static void pause_in_a_message_is_exact(void) {
    dkv_rpc_stream_events events = end_events;
    events.message = pause_after_message;
    server *s = server_start();
    client_open(s->port);
    end e = {0};
    CHECK(dkv_rpc_stream_open(channel, ECHO_STREAM, &events, &e, &e.stream) == DKV_OK);
    for (uint32_t i = 0; i < 20; i++) send_item(&e, i, DKV_RPC_BATCH_MAX); /* 20 messages */
    dkv_rpc_stream_flush(e.stream);
    for (size_t taken = 1; taken <= 20; taken++) {
        WAIT(e.messages == taken);
        answer a = call_and_wait(UNARY, dkv_slice_of("e"), TIMEOUT_MS);
        dkv_buf_free(&a.bytes);
        CHECK(e.messages == taken);
        dkv_rpc_stream_pause(e.stream, false);
    }
    CHECK(e.items == 20 && !e.damaged);
    client_close();
    server_stop(s);
    server_del(s);
}

/* ---- ends ---- */

static void count_closed(server *s, void *arg) {
    unsigned *closed = arg;
    *closed = 0;
    for (unsigned i = 0; i < s->n_ends; i++) *closed += s->ends[i]->closed;
}

/* A client's cancel ends both ends, each told once. */
static void a_client_may_cancel(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    send_item(&e, 0, 10);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == 1);
    dkv_rpc_stream_cancel(e.stream);
    dkv_rpc_stream_cancel(e.stream);
    CHECK(e.closed == 0); /* never from inside another call */
    WAIT(e.closed);
    CHECK(e.err == DKV_ERR_CANCELLED);
    unsigned closed = 0;
    WAIT((server_do(s, count_closed, &closed), closed == 1));
    client_close();
    server_stop(s);
    CHECK(s->ends[0]->closed == 1 && s->ends[0]->err == DKV_ERR_CANCELLED && e.closed == 1);
    server_del(s);
}

static void fail_all(server *s, void *arg) {
    for (unsigned i = 0; i < s->n_ends; i++) {
        dkv_rpc_stream *stream = s->ends[i]->stream;
        if (stream) dkv_rpc_stream_fail(stream, DKV_ERR_PERMISSION, arg);
    }
}

/* A server that ends a stream tells the client why. */
static void a_server_may_fail_a_stream(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    send_item(&e, 0, 10);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == 1);
    server_do(s, fail_all, "not you");
    WAIT(e.closed);
    CHECK(e.err == DKV_ERR_PERMISSION && strcmp(e.detail, "not you") == 0);
    client_close();
    server_stop(s);
    CHECK(s->ends[0]->closed == 1 && s->ends[0]->err == DKV_ERR_PERMISSION);
    server_del(s);
}

/* A client that has finished still gets every answer; then both ends end with 0. */
static void finish_ends_in_order(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    for (uint32_t i = 0; i < 1000; i++) send_item(&e, i, 1000);
    dkv_rpc_stream_finish(e.stream);
    CHECK(dkv_rpc_stream_send(e.stream, dkv_slice_of("x")) == DKV_ERR_UNAVAILABLE);
    WAIT(e.closed);
    CHECK(e.err == DKV_OK && e.items == 1000 && !e.damaged);
    client_close();
    server_stop(s);
    CHECK(s->ends[0]->finished == 1 && s->ends[0]->err == DKV_OK && s->ends[0]->items == 1000);
    server_del(s);
}

static void finish_all(server *s, void *arg) {
    (void)arg;
    for (unsigned i = 0; i < s->n_ends; i++) {
        if (s->ends[i]->stream) dkv_rpc_stream_finish(s->ends[i]->stream);
    }
}

/* A server may finish first: what it had queued arrives, and the client's end closes with 0. */
static void a_server_may_finish_first(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    for (uint32_t i = 0; i < 100; i++) send_item(&e, i, 1000);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == 100);
    server_do(s, finish_all, NULL);
    WAIT(e.closed);
    CHECK(e.err == DKV_OK && e.items == 100);
    unsigned closed = 0;
    WAIT((server_do(s, count_closed, &closed), closed == 1));
    client_close();
    server_stop(s);
    CHECK(s->ends[0]->err == DKV_OK && s->ends[0]->finished == 0);
    server_del(s);
}

/* Loops that go while streams and calls are open end them all, each told once. */
static void loops_may_go_first(void) {
    for (int server_first = 0; server_first < 2; server_first++) {
        server *s = server_start();
        client_open(s->port);
        static end ends[20];
        static answer answers[20];
        memset(answers, 0, sizeof answers);
        for (uint32_t i = 0; i < 20; i++) {
            open_end(&ends[i], i % 2 ? ECHO_STREAM : HELD_STREAM);
            send_item(&ends[i], 0, 1000 * i);
            dkv_rpc_stream_flush(ends[i].stream);
            CHECK(dkv_rpc_unary(channel, UNARY, dkv_slice_of("w"), TIMEOUT_MS, keep_answer,
                                &answers[i]) == DKV_OK);
        }
        unsigned held = 0;
        WAIT((server_do(s, count_held, &held), held == 20));
        if (server_first) server_stop(s);
        client_close();
        if (!server_first) server_stop(s);
        for (int i = 0; i < 20; i++) {
            CHECK(ends[i].closed == 1 && ends[i].err != DKV_OK);
            CHECK(answers[i].calls == 1 && answers[i].err != DKV_OK);
            dkv_buf_free(&answers[i].bytes);
        }
        for (unsigned i = 0; i < s->n_ends; i++) CHECK(s->ends[i]->closed == 1);
        server_del(s);
    }
}

/* A server that closes tells its streams that it is UNAVAILABLE. */
static void a_closing_server_says_so(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    WAIT(e.opened);
    server_stop(s);
    WAIT(e.closed);
    CHECK(e.err == DKV_ERR_UNAVAILABLE);
    client_close();
    server_del(s);
}

static void cancel_random(server *s, void *arg) {
    dkv_rand *rand = arg;
    if (s->n_ends == 0) return;
    end *e = s->ends[dkv_rand_below(rand, s->n_ends)];
    if (e->stream) end_cancel(e);
}

static void random_deed(server *s, end *e, dkv_rand *rand, uint32_t *numbers) {
    if (!e->stream) {
        if (e->closed == 0) open_end(e, dkv_rand_below(rand, 4) ? ECHO_STREAM : HELD_STREAM);
        return;
    }
    dkv_buf item = {0};
    switch (dkv_rand_below(rand, 16)) {
    case 0: end_cancel(e); break;
    case 1: server_do(s, cancel_random, rand); break;
    case 2: dkv_rpc_stream_finish(e->stream); break;
    case 3: dkv_rpc_stream_pause(e->stream, dkv_rand_below(rand, 2)); break;
    case 4: server_do(s, resume_all, NULL); break;
    case 5:
    case 6:
    case 7: dkv_rpc_loop_poll(loop, 0, (unsigned)dkv_rand_below(rand, 8)); break;
    default:
        make_item(&item, *numbers, random_len(rand));
        *numbers += dkv_rpc_stream_send_buf(e->stream, &item) == DKV_OK;
        dkv_buf_free(&item);
        if (dkv_rand_below(rand, 4)) dkv_rpc_stream_flush(e->stream);
    }
}

/* Whatever is done when, from either side: every stream is closed once, and what arrived before
 * was in order and intact. */
static void streams_may_end_at_any_time(void) {
    server *s = server_start();
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed + run};
        end ends[4] = {0};
        uint32_t numbers[4] = {0};
        client_open(s->port);
        uint64_t deeds = dkv_rand_below(&rand, 100);
        for (uint64_t i = 0; i < deeds; i++) {
            uint64_t at = dkv_rand_below(&rand, 4);
            random_deed(s, &ends[at], &rand, &numbers[at]);
        }
        if (dkv_rand_below(&rand, 2)) dkv_rpc_loop_poll(loop, 0, 64);
        bool used[4];
        for (int i = 0; i < 4; i++) used[i] = ends[i].stream || ends[i].closed;
        client_close();
        for (int i = 0; i < 4; i++) {
            CHECK(ends[i].closed == used[i] && !ends[i].damaged && !ends[i].stream);
        }
    }
    server_stop(s);
    for (unsigned i = 0; i < s->n_ends; i++) {
        CHECK(s->ends[i]->closed == 1 && !s->ends[i]->damaged);
    }
    server_del(s);
}

/* ---- servers and loops ---- */

/* The address of a living server cannot be bound again. */
static void a_port_is_bound_once(void) {
    server *s = server_start();
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", s->port);
    CHECK(dkv_rpc_loop_new(&loop) == DKV_OK);
    dkv_rpc_server *second = NULL;
    uint16_t port = 7;
    CHECK(dkv_rpc_server_new(loop, address, 0, server_methods, 3, NULL, &second, &port) ==
          DKV_ERR_UNAVAILABLE);
    CHECK(!second && port == 7);
    dkv_rpc_loop_del(loop);
    server_stop(s);
    server_del(s);
}

/* Where nobody listens, calls and streams fail by themselves, long before any deadline. */
static void refused_connections_fail_fast(void) {
    server *s = server_start();
    uint16_t port = s->port;
    server_stop(s);
    server_del(s);
    client_open(port);
    for (int i = 0; i < 3; i++) {
        answer a = call_and_wait(UNARY, dkv_slice_of("e"), TIMEOUT_MS);
        CHECK(a.err == DKV_ERR_UNAVAILABLE && a.detail[0]);
        dkv_buf_free(&a.bytes);
        end e;
        open_end(&e, ECHO_STREAM);
        send_item(&e, 0, 10);
        dkv_rpc_stream_flush(e.stream);
        WAIT(e.closed);
        CHECK(e.err == DKV_ERR_UNAVAILABLE && e.opened == 0);
        dkv_rpc_channel_retry_now(channel);
    }
    client_close();
}

static void *wake_often(void *arg) {
    for (int i = 0; i < 1000; i++) dkv_rpc_loop_wake(arg);
    return NULL;
}

/* A wake ends a poll that would wait for ever, before it or during it, from any thread. */
static void wakes_end_a_poll(void) {
    CHECK(dkv_rpc_loop_new(&loop) == DKV_OK);
    dkv_rpc_loop_wake(loop);
    dkv_rpc_loop_wake(loop);
    CHECK(dkv_rpc_loop_poll(loop, INT64_MAX, 16) == 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, wake_often, loop) == 0);
    CHECK(dkv_rpc_loop_poll(loop, INT64_MAX, 16) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    dkv_rpc_loop_wake(loop); /* left over for the deletion */
    dkv_rpc_loop_del(loop);
}

typedef struct shared_loop {
    pthread_mutex_t lock;
    bool stop;
} shared_loop;

static void *poll_under_lock(void *arg) {
    shared_loop *shared = arg;
    pthread_mutex_lock(&shared->lock);
    while (!shared->stop) dkv_rpc_loop_poll(loop, INT64_MAX, 16);
    pthread_mutex_unlock(&shared->lock);
    return NULL;
}

/* With a lock set, others may use a loop while one thread waits in its poll. */
static void a_waiting_poll_lets_its_lock_go(void) {
    static shared_loop shared = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static answer a;
    a = (answer){0};
    shared.stop = false;
    server *s = server_start();
    client_open(s->port);
    dkv_rpc_loop_set_lock(loop, &shared.lock);
    pthread_t poller;
    CHECK(pthread_create(&poller, NULL, poll_under_lock, &shared) == 0);
    for (unsigned i = 0; i < 1000; i++) {
        unsigned calls = i;
        pthread_mutex_lock(&shared.lock);
        CHECK(dkv_rpc_unary(channel, UNARY, dkv_slice_of("e"), TIMEOUT_MS, keep_answer, &a) == 0);
        while (calls == i) {
            pthread_mutex_unlock(&shared.lock);
            sched_yield();
            pthread_mutex_lock(&shared.lock);
            calls = a.calls;
        }
        pthread_mutex_unlock(&shared.lock);
        CHECK(calls == i + 1 && a.err == DKV_OK);
    }
    pthread_mutex_lock(&shared.lock);
    shared.stop = true;
    dkv_rpc_loop_wake(loop);
    pthread_mutex_unlock(&shared.lock);
    pthread_join(poller, NULL);
    dkv_buf_free(&a.bytes);
    dkv_rpc_loop_set_lock(loop, NULL);
    client_close();
    server_stop(s);
    server_del(s);
}

/* A poll of an idle loop ends by its time limit. */
static void polls_time_out(void) {
    CHECK(dkv_rpc_loop_new(&loop) == DKV_OK);
    CHECK(dkv_rpc_loop_poll(loop, 0, 16) == 0);
    int64_t until_ns = now_ns() + 20000000;
    CHECK(dkv_rpc_loop_poll(loop, until_ns, 16) == 0);
    CHECK(now_ns() >= until_ns);
    dkv_rpc_loop_del(loop);
}

/* Loops come and go, several at a time, with and without traffic. */
static void loops_come_and_go(void) {
    dkv_rpc_loop_del(NULL);
    dkv_rpc_channel_del(NULL);
    dkv_rpc_server_del(NULL);
    for (int i = 0; i < 20; i++) {
        dkv_rpc_loop *idle[3];
        for (int k = 0; k < 3; k++) CHECK(dkv_rpc_loop_new(&idle[k]) == DKV_OK);
        server *s = server_start();
        client_open(s->port);
        answer a = call_and_wait(UNARY, dkv_slice_of("e"), TIMEOUT_MS);
        CHECK(a.err == DKV_OK);
        dkv_buf_free(&a.bytes);
        client_close();
        server_stop(s);
        server_del(s);
        for (int k = 0; k < 3; k++) dkv_rpc_loop_del(idle[k]);
    }
}

static const check_test tests[] = {
    CHECK_TEST(statuses_map_both_ways),
    CHECK_TEST(requests_wait_for_company),
    CHECK_TEST(reads_pass_writes),
    CHECK_TEST(unary_calls_answer),
    CHECK_TEST(unary_errors_carry_their_trailer),
    CHECK_TEST(unary_calls_carry_their_deadline),
    CHECK_TEST(unary_deadlines_fire),
    CHECK_TEST(unary_answers_may_come_later),
    CHECK_TEST(unknown_methods_are_refused),
    CHECK_TEST(large_messages_are_refused),
    CHECK_TEST(streams_keep_order_both_ways),
    CHECK_TEST(waiting_items_leave_in_full_batches),
    CHECK_TEST(items_wait_for_the_flush),
    CHECK_TEST(a_last_flush_waits_for_the_peer),
    CHECK_TEST(items_apart_are_not_joined),
    CHECK_TEST(a_paused_peer_makes_sending_busy),
    CHECK_TEST(pause_in_a_message_is_exact),
    CHECK_TEST(a_client_may_cancel),
    CHECK_TEST(a_server_may_fail_a_stream),
    CHECK_TEST(finish_ends_in_order),
    CHECK_TEST(a_server_may_finish_first),
    CHECK_TEST(loops_may_go_first),
    CHECK_TEST(a_closing_server_says_so),
    CHECK_TEST(streams_may_end_at_any_time),
    CHECK_TEST(a_port_is_bound_once),
    CHECK_TEST(refused_connections_fail_fast),
    CHECK_TEST(wakes_end_a_poll),
    CHECK_TEST(a_waiting_poll_lets_its_lock_go),
    CHECK_TEST(polls_time_out),
    CHECK_TEST(loops_come_and_go),
};

CHECK_MAIN(tests)
