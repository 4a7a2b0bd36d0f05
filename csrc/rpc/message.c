/* Messages: gRPC's byte buffers to and from dkv's slices. */
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "rpc/internal.h"

static grpc_byte_buffer *message_of(grpc_slice bytes) {
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&bytes, 1);
    grpc_slice_unref(bytes);
    return message;
}

grpc_byte_buffer *dkv_rpc_message_copy(dkv_slice bytes) {
    if (bytes.len == 0) return message_of(grpc_empty_slice());
    return message_of(grpc_slice_from_copied_buffer((const char *)bytes.data, bytes.len));
}

grpc_byte_buffer *dkv_rpc_message_take(dkv_buf *buf) {
    /* gRPC may hold a slice for longer than its send takes, so the memory cannot be lent. */
    grpc_slice bytes = grpc_slice_new_with_user_data(buf->data, buf->len, free, buf->data);
    *buf = (dkv_buf){0};
    return message_of(bytes);
}

static int join(dkv_buf *joined, const grpc_slice_buffer *pieces) {
    joined->len = 0;
    int err = dkv_buf_reserve(joined, pieces->length);
    if (err) return err;
    for (size_t i = 0; i < pieces->count; i++) {
        const grpc_slice *piece = &pieces->slices[i];
        memcpy(joined->data + joined->len, GRPC_SLICE_START_PTR(*piece), GRPC_SLICE_LENGTH(*piece));
        joined->len += GRPC_SLICE_LENGTH(*piece);
    }
    return DKV_OK;
}

int dkv_rpc_message_view(dkv_rpc_loop *loop, grpc_byte_buffer *message, dkv_slice *out,
                         char why[DKV_RPC_DETAIL_MAX]) {
    const grpc_slice_buffer *pieces = &message->data.raw.slice_buffer;
    if (pieces->length > DKV_RPC_MESSAGE_MAX) {
        snprintf(why, DKV_RPC_DETAIL_MAX, "a message of %zu bytes; at most %u are allowed",
                 pieces->length, DKV_RPC_MESSAGE_MAX);
        return DKV_ERR_INVALID;
    }
    if (message->data.raw.compression != GRPC_COMPRESS_NONE) {
        snprintf(why, DKV_RPC_DETAIL_MAX, "a compressed message; compression is not supported");
        return DKV_ERR_PROTOCOL;
    }
    if (pieces->count == 1) {
        const grpc_slice *only = &pieces->slices[0];
        *out = (dkv_slice){GRPC_SLICE_START_PTR(*only), GRPC_SLICE_LENGTH(*only)};
        return DKV_OK;
    }
    int err = join(&loop->joined, pieces);
    if (err) {
        snprintf(why, DKV_RPC_DETAIL_MAX, "%s", dkv_err_sentence(err));
        return err;
    }
    *out = dkv_buf_slice(&loop->joined);
    return DKV_OK;
}

void dkv_rpc_detail_copy(char to[DKV_RPC_DETAIL_MAX], grpc_slice from) {
    size_t len = GRPC_SLICE_LENGTH(from);
    if (len >= DKV_RPC_DETAIL_MAX) len = DKV_RPC_DETAIL_MAX - 1;
    memcpy(to, GRPC_SLICE_START_PTR(from), len);
    to[len] = 0;
}
