/* The server's side. gRPC hands a new call to a slot that waits for its method; a slot that was
 * taken is replaced at once. What came in is then one of three things: a stream (stream.c), a unary
 * call that waits for its answer, or a call of an unknown path, answered UNIMPLEMENTED.
 *
 * `refs` counts what must come back before the server can be freed: slots, attached calls, streams
 * and, once it is closing, the notice that gRPC has shut down. A unary call still unanswered when
 * the server closes is detached from it: the answer, when it comes, only frees the call. */
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "rpc/internal.h"

#define UNARY_SLOTS 64   /* per method: what may arrive between two polls without queueing */
#define STREAM_SLOTS 4   /* per method; streams are opened rarely */
#define UNKNOWN_SLOTS 2  /* for all other paths */
#define CALLS_MAX 65536u /* unanswered unary calls in one server; more are BUSY */
#define STREAMS_MAX 16384u

static const char closing_text[] = "the server is shutting down";

typedef struct method_entry {
    const dkv_rpc_method *method;
    void *handle; /* gRPC's name for it */
} method_entry;

struct dkv_rpc_server {
    dkv_rpc_loop *loop;
    grpc_server *server;
    void *user;
    method_entry *methods;
    size_t n_methods;
    dkv_rpc_link streams;
    size_t n_streams;
    dkv_rpc_link calls; /* unanswered */
    size_t n_calls;
    size_t refs;
    bool closing;
    dkv_rpc_tag shut_down;
};

/* A slot, and after its arrival the unary call that came in. */
struct dkv_rpc_call {
    dkv_rpc_link link; /* in server->calls while unanswered */
    dkv_rpc_tag tag;
    dkv_rpc_server *server;    /* NULL: detached */
    const method_entry *entry; /* NULL: a slot for unknown paths */
    grpc_call *call;
    grpc_metadata_array metadata;
    grpc_call_details details; /* unknown paths only */
    gpr_timespec deadline;
    grpc_byte_buffer *request;
    grpc_byte_buffer *reply;
    int cancelled;
};

static void post_slot(dkv_rpc_server *server, const method_entry *entry);

static void server_release(dkv_rpc_server *server) {
    assert(server->refs > 0);
    if (--server->refs > 0) return;
    grpc_server_destroy(server->server);
    server->loop->live--;
    free(server->methods);
    free(server);
}

void dkv_rpc_server_stream_gone(dkv_rpc_server *server) {
    server->n_streams--;
    server_release(server);
}

/* ---- unary calls ---- */

static void call_del(dkv_rpc_call *call) {
    if (call->call) grpc_call_unref(call->call);
    grpc_byte_buffer_destroy(call->request);
    grpc_byte_buffer_destroy(call->reply);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_details_destroy(&call->details);
    if (call->server) server_release(call->server);
    free(call);
}

static void on_replied(dkv_rpc_tag *tag, bool ok) {
    (void)ok;
    call_del(DKV_RPC_OWNER(tag, dkv_rpc_call, tag));
}

/* Starts the one batch that answers a call: initial metadata, message and status together. */
static void start_reply(dkv_rpc_call *call, int status, const char *detail, dkv_slice trailer) {
    grpc_slice text = grpc_slice_from_copied_string(detail);
    grpc_metadata error = {.key = grpc_slice_from_static_string(DKV_RPC_ERROR_TRAILER)};
    error.value = grpc_slice_from_copied_buffer((const char *)trailer.data, trailer.len);
    grpc_op ops[4] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
         .data.send_status_from_server = {.trailing_metadata_count = trailer.len > 0,
                                          .trailing_metadata = &error,
                                          .status = (grpc_status_code)status,
                                          .status_details = &text}},
        {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
         .data.recv_close_on_server.cancelled = &call->cancelled},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->reply},
    };
    call->tag.complete = on_replied;
    dkv_rpc_start(call->call, ops, call->reply ? 4 : 3, &call->tag);
    grpc_slice_unref(error.value);
    grpc_slice_unref(text);
}

void dkv_rpc_call_reply(dkv_rpc_call *call, int err, const char *detail, dkv_slice bytes) {
    if (!call->server) {
        call_del(call);
        return;
    }
    dkv_rpc_list_remove(&call->link);
    call->server->n_calls--;
    dkv_slice trailer = {0};
    if (!err) {
        call->reply = dkv_rpc_message_copy(bytes);
    } else if (bytes.len <= DKV_RPC_TRAILER_MAX) {
        trailer = bytes;
    }
    char text[DKV_RPC_DETAIL_MAX];
    snprintf(text, sizeof text, "%s", detail ? detail : "");
    start_reply(call, dkv_rpc_status_of(err), text, trailer);
}

static uint32_t ms_left(gpr_timespec deadline) {
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return DKV_RPC_NO_TIMEOUT;
    gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    int32_t ms = gpr_time_to_millis(left);
    return ms > 0 ? (uint32_t)ms : 0;
}

static void serve_unary(dkv_rpc_call *call) {
    dkv_rpc_server *server = call->server;
    dkv_rpc_list_add(&server->calls, &call->link);
    if (server->n_calls++ >= CALLS_MAX) {
        dkv_rpc_call_reply(call, DKV_ERR_BUSY, "too many calls wait here", (dkv_slice){0});
        return;
    }
    dkv_slice request = {0};
    char why[DKV_RPC_DETAIL_MAX] = "the call carries no request";
    int err = call->request ? dkv_rpc_message_view(server->loop, call->request, &request, why)
                            : DKV_ERR_PROTOCOL;
    if (err) {
        dkv_rpc_call_reply(call, err, why, (dkv_slice){0});
        return;
    }
    /* The handler may answer, and so free the call, before it returns; the request stays. */
    grpc_byte_buffer *message = call->request;
    call->request = NULL;
    call->entry->method->unary(server->user, call, request, ms_left(call->deadline));
    grpc_byte_buffer_destroy(message);
}

/* ---- what comes in ---- */

static void refuse(dkv_rpc_call *call, int status, const char *detail) {
    start_reply(call, status, detail, (dkv_slice){0});
}

static void serve_unknown(dkv_rpc_call *call) {
    char path[DKV_RPC_DETAIL_MAX];
    char text[DKV_RPC_DETAIL_MAX];
    dkv_rpc_detail_copy(path, call->details.method);
    snprintf(text, sizeof text, "unknown method %.200s", path);
    refuse(call, GRPC_STATUS_UNIMPLEMENTED, text);
}

static void serve_stream(dkv_rpc_call *call) {
    dkv_rpc_server *server = call->server;
    const dkv_rpc_method *method = call->entry->method;
    if (server->n_streams >= STREAMS_MAX) {
        refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "too many streams are open here");
        return;
    }
    dkv_rpc_stream *stream;
    int err = dkv_rpc_stream_new(server->loop, server, call->call, method->events, NULL,
                                 &server->streams, &stream);
    if (err) {
        refuse(call, dkv_rpc_status_of(err), dkv_err_sentence(err));
        return;
    }
    server->refs++;
    server->n_streams++;
    call->call = NULL;
    call_del(call);
    dkv_rpc_stream_set_user(stream, method->accept(server->user, stream));
}

static void on_arrival(dkv_rpc_tag *tag, bool ok) {
    dkv_rpc_call *call = DKV_RPC_OWNER(tag, dkv_rpc_call, tag);
    if (!ok) {
        call_del(call);
        return;
    }
    if (call->server->closing) {
        grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE, closing_text, NULL);
        call_del(call);
        return;
    }
    post_slot(call->server, call->entry);
    if (!call->entry) {
        serve_unknown(call);
    } else if (call->entry->method->unary) {
        serve_unary(call);
    } else {
        serve_stream(call);
    }
}

/* Without memory for a slot there is one less from now on; the others go on. */
static void post_slot(dkv_rpc_server *server, const method_entry *entry) {
    dkv_rpc_call *call = calloc(1, sizeof *call);
    if (!call) return;
    call->tag.complete = on_arrival;
    call->server = server;
    call->entry = entry;
    dkv_rpc_list_init(&call->link);
    grpc_metadata_array_init(&call->metadata);
    grpc_call_details_init(&call->details);
    server->refs++;
    grpc_completion_queue *queue = server->loop->queue;
    grpc_call_error refused;
    if (entry) {
        refused = grpc_server_request_registered_call(
            server->server, entry->handle, &call->call, &call->deadline, &call->metadata,
            entry->method->unary ? &call->request : NULL, queue, queue, &call->tag);
    } else {
        refused = grpc_server_request_call(server->server, &call->call, &call->details,
                                           &call->metadata, queue, queue, &call->tag);
    }
    assert(refused == GRPC_CALL_OK);
    (void)refused;
}

/* ---- beginning and end ---- */

static void register_methods(dkv_rpc_server *server, const dkv_rpc_method *methods) {
    for (size_t i = 0; i < server->n_methods; i++) {
        server->methods[i].method = &methods[i];
        server->methods[i].handle = grpc_server_register_method(
            server->server, methods[i].path, NULL,
            methods[i].unary ? GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER : GRPC_SRM_PAYLOAD_NONE,
            0);
        assert(server->methods[i].handle); /* NULL: the path stands in the table twice */
    }
}

static void post_all_slots(dkv_rpc_server *server) {
    for (size_t i = 0; i < server->n_methods; i++) {
        const method_entry *entry = &server->methods[i];
        int n_slots = entry->method->unary ? UNARY_SLOTS : STREAM_SLOTS;
        for (int k = 0; k < n_slots; k++) post_slot(server, entry);
    }
    for (int k = 0; k < UNKNOWN_SLOTS; k++) post_slot(server, NULL);
}

static void on_shut_down(dkv_rpc_tag *tag, bool ok) {
    (void)ok;
    server_release(DKV_RPC_OWNER(tag, dkv_rpc_server, shut_down));
}

int dkv_rpc_server_new(dkv_rpc_loop *loop, const char *address, size_t memory_max,
                       const dkv_rpc_method *methods, size_t n_methods, void *user,
                       dkv_rpc_server **out, uint16_t *port) {
    int err = DKV_ERR_NO_MEMORY;
    dkv_rpc_server *server = calloc(1, sizeof *server);
    if (!server) goto fail;
    server->methods = calloc(n_methods ? n_methods : 1, sizeof *server->methods);
    if (!server->methods) goto fail_server;
    server->loop = loop;
    server->user = user;
    server->n_methods = n_methods;
    server->refs = 1; /* for the notice of having shut down */
    server->shut_down.complete = on_shut_down;
    dkv_rpc_list_init(&server->streams);
    dkv_rpc_list_init(&server->calls);
    server->server = dkv_rpc_serve(memory_max ? memory_max : DKV_RPC_MEMORY_MAX);
    grpc_server_register_completion_queue(server->server, loop->queue, NULL);
    register_methods(server, methods);
    err = dkv_rpc_listen(server->server, address, port);
    if (err) goto fail_grpc;
    grpc_server_start(server->server);
    loop->open++;
    loop->live++;
    post_all_slots(server);
    *out = server;
    return DKV_OK;

fail_grpc:
    grpc_server_destroy(server->server);
    free(server->methods);
fail_server:
    free(server);
fail:
    return err;
}

/* Unanswered calls would keep their connections, and so gRPC's server, alive. */
static void detach_calls(dkv_rpc_server *server) {
    while (server->calls.next != &server->calls) {
        dkv_rpc_call *call = DKV_RPC_OWNER(server->calls.next, dkv_rpc_call, link);
        dkv_rpc_list_remove(&call->link);
        grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE, closing_text, NULL);
        grpc_call_unref(call->call);
        call->call = NULL;
        call->server = NULL;
        server_release(server);
    }
}

void dkv_rpc_server_del(dkv_rpc_server *server) {
    if (!server) return;
    assert(!server->closing);
    server->closing = true;
    server->loop->open--;
    dkv_rpc_streams_fail(&server->streams, DKV_ERR_UNAVAILABLE, closing_text);
    detach_calls(server);
    grpc_server_shutdown_and_notify(server->server, server->loop->queue, &server->shut_down);
    grpc_server_cancel_all_calls(server->server);
}
