/* A bidirectional stream; both ends are the same but for how they begin and end.
 *
 * Sending. Items wait in chunks; a chunk is one message to be. An item joins the last chunk as long
 * as that stays within DKV_RPC_BATCH_MAX, else it begins a new one; with items_apart always. At
 * most one message is in flight; when gRPC has taken it, the next chunk leaves. So the size of the
 * messages follows the load by itself: alone, an item leaves at once, and behind a slow message
 * others gather.
 *
 * Receiving. To be ready for another message costs a packet of its own (a WINDOW_UPDATE), which
 * wakes the peer, unless something was sent since the last one came: then the update has travelled
 * along. So readiness waits until the answers to the last message are on their way: for the next
 * poll, or, if these are known to be all (dkv_rpc_stream_flush_last), it joins their batch. That
 * saves a fifth or more of the CPU time of a get that is alone. But a stream on which messages
 * wait is busy, and is ready again at once: what can be received in one round is answered in one
 * message, and without that the messages of a busy stream become ever smaller.
 *
 * Five kinds of batch, each with its tag:
 *   end       sends the initial metadata and returns when the stream is over (client: with the
 *             status; server: with the word whether it was cancelled)
 *   accepted  client only: the server's initial metadata
 *   receive   one message; posted again at the poll after its callback unless paused
 *   send      one message, or the last word: half-close (client) or the status OK (server)
 *   turn      one message sent and one received
 *
 * Invariants
 * 1. `pending` counts the batches that gRPC has not returned. The stream is freed when it is 0,
 *    which cannot be before `end` has returned.
 * 2. After `end` has returned (`over`), no batch is started.
 * 3. `closed` is the last callback. A stream that failed here (`err`) delivers nothing more. */
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "rpc/internal.h"

#define AT_ONCE_NS 10000 /* less than a peer takes to answer */
#define BUSY_MESSAGES 8u /* so long a stream counts as busy after one that was there at once */

typedef struct chunk {
    struct chunk *next;
    dkv_buf bytes;
} chunk;

struct dkv_rpc_stream {
    dkv_rpc_link link; /* in the list of its channel or server */
    dkv_rpc_loop *loop;
    dkv_rpc_server *server; /* NULL: this is the client's end */
    grpc_call *call;
    const dkv_rpc_stream_events *events;
    void *user;

    dkv_rpc_tag send;
    chunk *first; /* what waits, in order */
    chunk *last;
    grpc_byte_buffer *outgoing; /* the message in flight, or NULL */
    size_t outgoing_len;
    size_t backlog;
    bool sending;   /* a send batch is in flight */
    bool finishing; /* nothing more may be queued; the last word follows what waits */
    bool finished;  /* the last word was given to gRPC */

    dkv_rpc_tag receive;
    grpc_byte_buffer *incoming;
    bool receiving;
    bool paused;
    bool deaf;            /* the peer sends no more messages */
    bool turned;          /* a turn batch is in flight; `sending` and `receiving` too */
    dkv_rpc_link wanting; /* in the loop's list of that name */
    int64_t ready_ns;     /* when it was last ready to receive */
    unsigned busy;        /* so many messages longer it counts as busy */

    dkv_rpc_tag turn;

    dkv_rpc_tag accepted;
    grpc_metadata_array initial;

    dkv_rpc_tag end;
    grpc_metadata_array trailing;
    grpc_status_code status;
    grpc_slice status_text;
    int cancelled;
    bool over;

    unsigned pending;
    int err; /* why the stream ended or is ending; 0: in order */
    char detail[DKV_RPC_DETAIL_MAX];
};

static void start(dkv_rpc_stream *stream, const grpc_op *ops, size_t n_ops, dkv_rpc_tag *tag) {
    stream->pending++;
    dkv_rpc_start(stream->call, ops, n_ops, tag);
}

/* ---- the end ---- */

static void drop_queue(dkv_rpc_stream *stream) {
    while (stream->first) {
        chunk *next = stream->first->next;
        dkv_buf_free(&stream->first->bytes);
        free(stream->first);
        stream->first = next;
    }
    stream->last = NULL;
    stream->backlog = stream->outgoing ? stream->outgoing_len : 0;
}

static void stream_del(dkv_rpc_stream *stream) {
    grpc_call_unref(stream->call);
    grpc_metadata_array_destroy(&stream->initial);
    grpc_metadata_array_destroy(&stream->trailing);
    grpc_slice_unref(stream->status_text);
    free(stream);
}

/* One batch has returned and has been dealt with. */
static void release(dkv_rpc_stream *stream) {
    assert(stream->pending > 0);
    if (--stream->pending > 0) return;
    assert(stream->over);
    dkv_rpc_loop *loop = stream->loop;
    dkv_rpc_server *server = stream->server;
    dkv_rpc_list_remove(&stream->link);
    dkv_rpc_list_remove(&stream->wanting);
    stream->events->closed(stream->user, stream, stream->err, stream->detail);
    stream_del(stream);
    loop->live--;
    if (server) dkv_rpc_server_stream_gone(server);
}

static void on_end(dkv_rpc_tag *tag, bool ok) {
    (void)ok;
    dkv_rpc_stream *stream = DKV_RPC_OWNER(tag, dkv_rpc_stream, end);
    stream->over = true;
    drop_queue(stream);
    if (stream->err) {
        /* It failed here; what the peer says about it is only an echo. */
    } else if (!stream->server) {
        stream->err = dkv_rpc_err_of((int)stream->status);
        dkv_rpc_detail_copy(stream->detail, stream->status_text);
    } else if (stream->cancelled) {
        stream->err = DKV_ERR_CANCELLED;
        snprintf(stream->detail, sizeof stream->detail, "the client cancelled or went away");
    }
    release(stream);
}

void dkv_rpc_stream_fail(dkv_rpc_stream *stream, int err, const char *detail) {
    assert(err != DKV_OK);
    if (stream->over || stream->err) return;
    stream->err = err;
    snprintf(stream->detail, sizeof stream->detail, "%s", detail);
    drop_queue(stream);
    grpc_call_cancel_with_status(stream->call, (grpc_status_code)dkv_rpc_status_of(err),
                                 stream->detail, NULL);
}

void dkv_rpc_stream_cancel(dkv_rpc_stream *stream) {
    dkv_rpc_stream_fail(stream, DKV_ERR_CANCELLED, dkv_err_sentence(DKV_ERR_CANCELLED));
}

void dkv_rpc_streams_fail(dkv_rpc_link *owner, int err, const char *detail) {
    for (dkv_rpc_link *link = owner->next; link != owner; link = link->next) {
        dkv_rpc_stream_fail(DKV_RPC_OWNER(link, dkv_rpc_stream, link), err, detail);
    }
}

/* ---- receiving ---- */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static grpc_op receive_op(dkv_rpc_stream *stream) {
    stream->receiving = true;
    stream->ready_ns = now_ns();
    dkv_rpc_list_remove(&stream->wanting);
    return (grpc_op){.op = GRPC_OP_RECV_MESSAGE,
                     .data.recv_message.recv_message = &stream->incoming};
}

static bool may_receive(const dkv_rpc_stream *stream) {
    return !stream->receiving && !stream->paused && !stream->deaf && !stream->over;
}

static void receive_next(dkv_rpc_stream *stream) {
    if (!may_receive(stream)) return;
    grpc_op op = receive_op(stream);
    start(stream, &op, 1, &stream->receive);
}

void dkv_rpc_streams_receive(dkv_rpc_link *wanting) {
    while (wanting->next != wanting) {
        dkv_rpc_link *link = wanting->next;
        dkv_rpc_list_remove(link);
        receive_next(DKV_RPC_OWNER(link, dkv_rpc_stream, wanting));
    }
}

static void deliver(dkv_rpc_stream *stream, grpc_byte_buffer *message) {
    if (stream->err) return;
    dkv_slice bytes;
    char why[DKV_RPC_DETAIL_MAX];
    int err = dkv_rpc_message_view(stream->loop, message, &bytes, why);
    if (err) {
        dkv_rpc_stream_fail(stream, err, why);
    } else {
        stream->events->message(stream->user, stream, bytes);
    }
}

static void on_peer_finished(dkv_rpc_stream *stream) {
    bool in_order = !stream->over && !stream->err && !stream->finishing &&
                    !grpc_call_failed_before_recv_message(stream->call);
    if (!stream->server || !in_order) return;
    if (stream->events->finished) {
        stream->events->finished(stream->user, stream);
    } else {
        dkv_rpc_stream_finish(stream);
    }
}

/* A message came in. */
static void note_busy(dkv_rpc_stream *stream) {
    if (now_ns() - stream->ready_ns < AT_ONCE_NS) {
        stream->busy = BUSY_MESSAGES;
    } else if (stream->busy) {
        stream->busy--;
    }
}

static void receive_again(dkv_rpc_stream *stream) {
    if (stream->busy) {
        receive_next(stream);
    } else if (may_receive(stream)) {
        dkv_rpc_list_add(&stream->loop->wanting, &stream->wanting);
    }
}

static void received(dkv_rpc_stream *stream, bool ok) {
    grpc_byte_buffer *message = stream->incoming;
    stream->incoming = NULL;
    stream->receiving = false;
    if (ok && message) {
        note_busy(stream);
        deliver(stream, message);
        receive_again(stream);
    } else {
        stream->deaf = true;
        on_peer_finished(stream);
    }
    grpc_byte_buffer_destroy(message);
}

static void on_receive(dkv_rpc_tag *tag, bool ok) {
    dkv_rpc_stream *stream = DKV_RPC_OWNER(tag, dkv_rpc_stream, receive);
    received(stream, ok);
    release(stream);
}

void dkv_rpc_stream_pause(dkv_rpc_stream *stream, bool paused) {
    stream->paused = paused;
    receive_next(stream);
}

/* ---- sending ---- */

static grpc_op send_op(dkv_rpc_stream *stream) {
    chunk *first = stream->first;
    stream->first = first->next;
    if (!stream->first) stream->last = NULL;
    stream->outgoing_len = first->bytes.len;
    stream->outgoing = dkv_rpc_message_take(&first->bytes);
    free(first);
    stream->sending = true;
    return (grpc_op){.op = GRPC_OP_SEND_MESSAGE,
                     .data.send_message.send_message = stream->outgoing};
}

static void send_last_word(dkv_rpc_stream *stream) {
    stream->finished = true;
    stream->sending = true;
    grpc_op half_close = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    grpc_op status = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                      .data.send_status_from_server.status = GRPC_STATUS_OK};
    start(stream, stream->server ? &status : &half_close, 1, &stream->send);
}

void dkv_rpc_stream_flush(dkv_rpc_stream *stream) {
    if (stream->sending || stream->over || stream->err) return;
    if (stream->first) {
        grpc_op op = send_op(stream);
        start(stream, &op, 1, &stream->send);
    } else if (stream->finishing && !stream->finished) {
        send_last_word(stream);
    }
}

void dkv_rpc_stream_flush_last(dkv_rpc_stream *stream) {
    bool one_message = stream->first && stream->first == stream->last;
    if (!one_message || stream->sending || stream->err || !may_receive(stream)) {
        dkv_rpc_stream_flush(stream);
        return;
    }
    stream->turned = true;
    grpc_op ops[] = {send_op(stream), receive_op(stream)};
    start(stream, ops, 2, &stream->turn);
}

bool dkv_rpc_stream_is_last(const dkv_rpc_stream *stream) {
    return stream->turned;
}

static void sent(dkv_rpc_stream *stream, bool ok) {
    stream->sending = false;
    if (stream->outgoing) {
        grpc_byte_buffer_destroy(stream->outgoing);
        stream->outgoing = NULL;
        stream->backlog -= stream->outgoing_len;
    }
    /* A send fails only when the stream is ending; `end` tells why. */
    if (ok) dkv_rpc_stream_flush(stream);
}

static void on_send(dkv_rpc_tag *tag, bool ok) {
    dkv_rpc_stream *stream = DKV_RPC_OWNER(tag, dkv_rpc_stream, send);
    sent(stream, ok);
    release(stream);
}

static void on_turn(dkv_rpc_tag *tag, bool ok) {
    dkv_rpc_stream *stream = DKV_RPC_OWNER(tag, dkv_rpc_stream, turn);
    stream->turned = false;
    sent(stream, ok);
    received(stream, ok);
    release(stream);
}

void dkv_rpc_stream_finish(dkv_rpc_stream *stream) {
    stream->finishing = true;
    dkv_rpc_stream_flush(stream);
}

static int may_queue(const dkv_rpc_stream *stream, size_t len) {
    if (len > DKV_RPC_MESSAGE_MAX) return DKV_ERR_INVALID;
    if (stream->over || stream->err || stream->finishing) return DKV_ERR_UNAVAILABLE;
    if (stream->backlog + len > DKV_RPC_BACKLOG_MAX) return DKV_ERR_BUSY;
    return DKV_OK;
}

static bool joins_last(const dkv_rpc_stream *stream, size_t len) {
    return stream->last && !stream->events->items_apart &&
           stream->last->bytes.len + len <= DKV_RPC_BATCH_MAX;
}

static void add_chunk(dkv_rpc_stream *stream, chunk *added) {
    if (stream->last) {
        stream->last->next = added;
    } else {
        stream->first = added;
    }
    stream->last = added;
}

int dkv_rpc_stream_send(dkv_rpc_stream *stream, dkv_slice item) {
    int err = may_queue(stream, item.len);
    if (err || item.len == 0) return err;
    if (joins_last(stream, item.len)) {
        err = dkv_buf_append(&stream->last->bytes, item);
        if (!err) stream->backlog += item.len;
        return err;
    }
    dkv_buf copy = {0};
    err = dkv_buf_append(&copy, item);
    if (!err) err = dkv_rpc_stream_send_buf(stream, &copy);
    dkv_buf_free(&copy);
    return err;
}

int dkv_rpc_stream_send_buf(dkv_rpc_stream *stream, dkv_buf *item) {
    int err = may_queue(stream, item->len);
    if (err) return err;
    if (item->len == 0 || joins_last(stream, item->len)) {
        err = dkv_rpc_stream_send(stream, dkv_buf_slice(item));
        if (!err) dkv_buf_free(item);
        return err;
    }
    chunk *added = calloc(1, sizeof *added);
    if (!added) return DKV_ERR_NO_MEMORY;
    added->bytes = *item;
    stream->backlog += item->len;
    *item = (dkv_buf){0};
    add_chunk(stream, added);
    return DKV_OK;
}

size_t dkv_rpc_stream_backlog(const dkv_rpc_stream *stream) {
    return stream->backlog;
}

void dkv_rpc_stream_set_user(dkv_rpc_stream *stream, void *user) {
    stream->user = user;
}

/* ---- the beginning ---- */

static void on_accepted(dkv_rpc_tag *tag, bool ok) {
    dkv_rpc_stream *stream = DKV_RPC_OWNER(tag, dkv_rpc_stream, accepted);
    bool opened = ok && !stream->err && !stream->over;
    if (opened && stream->events->opened) stream->events->opened(stream->user, stream);
    release(stream);
}

static void begin(dkv_rpc_stream *stream) {
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}};
    if (stream->server) {
        ops[1].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
        ops[1].data.recv_close_on_server.cancelled = &stream->cancelled;
    } else {
        ops[1].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
        ops[1].data.recv_status_on_client.trailing_metadata = &stream->trailing;
        ops[1].data.recv_status_on_client.status = &stream->status;
        ops[1].data.recv_status_on_client.status_details = &stream->status_text;
    }
    start(stream, ops, 2, &stream->end);
    if (!stream->server) {
        grpc_op op = {.op = GRPC_OP_RECV_INITIAL_METADATA,
                      .data.recv_initial_metadata.recv_initial_metadata = &stream->initial};
        start(stream, &op, 1, &stream->accepted);
    }
    receive_next(stream);
}

int dkv_rpc_stream_new(dkv_rpc_loop *loop, dkv_rpc_server *server, grpc_call *call,
                       const dkv_rpc_stream_events *events, void *user, dkv_rpc_link *owner,
                       dkv_rpc_stream **out) {
    dkv_rpc_stream *stream = calloc(1, sizeof *stream);
    if (!stream) return DKV_ERR_NO_MEMORY;
    stream->loop = loop;
    stream->server = server;
    stream->call = call;
    stream->events = events;
    stream->user = user;
    stream->status_text = grpc_empty_slice();
    stream->send.complete = on_send;
    stream->receive.complete = on_receive;
    stream->turn.complete = on_turn;
    stream->accepted.complete = on_accepted;
    stream->end.complete = on_end;
    grpc_metadata_array_init(&stream->initial);
    grpc_metadata_array_init(&stream->trailing);
    dkv_rpc_list_init(&stream->wanting);
    dkv_rpc_list_add(owner, &stream->link);
    loop->live++;
    begin(stream);
    *out = stream;
    return DKV_OK;
}
