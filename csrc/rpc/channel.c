/* The client's side: channels, and the unary calls and streams that begin there. */
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "rpc/internal.h"

struct dkv_rpc_channel {
    dkv_rpc_loop *loop;
    grpc_channel *channel;
    dkv_rpc_link streams;
    dkv_rpc_link calls;
};

/* A unary call: one batch, so one completion. */
typedef struct unary_call {
    dkv_rpc_link link; /* in its channel's list */
    dkv_rpc_loop *loop;
    dkv_rpc_tag tag;
    grpc_call *call;
    dkv_rpc_unary_done done;
    void *user;
    grpc_byte_buffer *request;
    grpc_byte_buffer *reply;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_status_code status;
    grpc_slice status_text;
} unary_call;

int dkv_rpc_channel_new(dkv_rpc_loop *loop, const char *address, dkv_rpc_channel **out) {
    if (address[0] == 0) return DKV_ERR_INVALID;
    dkv_rpc_channel *channel = calloc(1, sizeof *channel);
    if (!channel) return DKV_ERR_NO_MEMORY;
    channel->loop = loop;
    dkv_rpc_list_init(&channel->streams);
    dkv_rpc_list_init(&channel->calls);
    channel->channel = dkv_rpc_connect(address);
    loop->open++;
    *out = channel;
    return DKV_OK;
}

void dkv_rpc_channel_del(dkv_rpc_channel *channel) {
    if (!channel) return;
    /* The heads go with the channel; streams and calls live on, each a list of its own. */
    dkv_rpc_streams_fail(&channel->streams, DKV_ERR_CANCELLED, "the channel was closed");
    while (channel->streams.next != &channel->streams) dkv_rpc_list_remove(channel->streams.next);
    while (channel->calls.next != &channel->calls) {
        unary_call *call = DKV_RPC_OWNER(channel->calls.next, unary_call, link);
        grpc_call_cancel_with_status(call->call, GRPC_STATUS_CANCELLED, "the channel was closed",
                                     NULL);
        dkv_rpc_list_remove(&call->link);
    }
    grpc_channel_destroy(channel->channel);
    channel->loop->open--;
    free(channel);
}

void dkv_rpc_channel_retry_now(dkv_rpc_channel *channel) {
    grpc_channel_reset_connect_backoff(channel->channel);
}

static grpc_call *new_call(dkv_rpc_channel *channel, const char *method, gpr_timespec deadline) {
    grpc_slice path = grpc_slice_from_copied_string(method);
    grpc_call *call = grpc_channel_create_call(channel->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                               channel->loop->queue, path, NULL, deadline, NULL);
    grpc_slice_unref(path);
    return call;
}

/* ---- streams ---- */

int dkv_rpc_stream_open(dkv_rpc_channel *channel, const char *method,
                        const dkv_rpc_stream_events *events, void *user, dkv_rpc_stream **out) {
    grpc_call *call = new_call(channel, method, gpr_inf_future(GPR_CLOCK_MONOTONIC));
    int err = dkv_rpc_stream_new(channel->loop, NULL, call, events, user, &channel->streams, out);
    if (err) grpc_call_unref(call);
    return err;
}

/* ---- unary calls ---- */

static void unary_call_del(unary_call *call) {
    grpc_byte_buffer_destroy(call->request);
    grpc_byte_buffer_destroy(call->reply);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_slice_unref(call->status_text);
    grpc_call_unref(call->call);
    free(call);
}

static dkv_slice error_trailer(const grpc_metadata_array *trailing) {
    for (size_t i = 0; i < trailing->count; i++) {
        if (grpc_slice_str_cmp(trailing->metadata[i].key, DKV_RPC_ERROR_TRAILER) != 0) continue;
        const grpc_slice *value = &trailing->metadata[i].value;
        return (dkv_slice){GRPC_SLICE_START_PTR(*value), GRPC_SLICE_LENGTH(*value)};
    }
    return (dkv_slice){0};
}

static void on_unary_done(dkv_rpc_tag *tag, bool ok) {
    (void)ok;
    unary_call *call = DKV_RPC_OWNER(tag, unary_call, tag);
    char detail[DKV_RPC_DETAIL_MAX];
    dkv_rpc_detail_copy(detail, call->status_text);
    dkv_slice bytes = {0};
    int err = dkv_rpc_err_of((int)call->status);
    if (err) {
        bytes = error_trailer(&call->trailing);
    } else if (call->reply) {
        err = dkv_rpc_message_view(call->loop, call->reply, &bytes, detail);
    }
    dkv_rpc_list_remove(&call->link);
    call->done(call->user, err, detail, bytes);
    call->loop->live--;
    unary_call_del(call);
}

static void start_unary(unary_call *call) {
    grpc_op ops[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->request},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &call->initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->reply},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &call->trailing,
                                        .status = &call->status,
                                        .status_details = &call->status_text}},
    };
    dkv_rpc_start(call->call, ops, sizeof ops / sizeof ops[0], &call->tag);
}

static gpr_timespec deadline_in(uint32_t timeout_ms) {
    if (timeout_ms == DKV_RPC_NO_TIMEOUT) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

int dkv_rpc_unary(dkv_rpc_channel *channel, const char *method, dkv_slice request,
                  uint32_t timeout_ms, dkv_rpc_unary_done done, void *user) {
    if (request.len > DKV_RPC_MESSAGE_MAX) return DKV_ERR_INVALID;
    unary_call *call = calloc(1, sizeof *call);
    if (!call) return DKV_ERR_NO_MEMORY;
    call->loop = channel->loop;
    call->tag.complete = on_unary_done;
    call->call = new_call(channel, method, deadline_in(timeout_ms));
    call->done = done;
    call->user = user;
    call->request = dkv_rpc_message_copy(request);
    call->status_text = grpc_empty_slice();
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    dkv_rpc_list_add(&channel->calls, &call->link);
    channel->loop->live++;
    start_unary(call);
    return DKV_OK;
}
