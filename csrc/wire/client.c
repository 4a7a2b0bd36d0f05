#include <stdlib.h>

#include "base/err.h"
#include "dkv.pb-c.h"
#include "wire/frame.h"
#include "wire/parts.h"
#include "wire/wire.h"

int dkv_wire_put_request(dkv_buf *out, uint64_t id, const dkv_request *request) {
    dkv_wire_request parts;
    dkv_wire_fill_request(id, request, &parts);
    return dkv_wire_append_item(out, &parts.request.base);
}

typedef struct request_sink {
    void (*each)(void *user, uint64_t id, const dkv_request *request);
    void *user;
} request_sink;

static int deliver_request(void *user, const ProtobufCMessage *item) {
    const request_sink *sink = user;
    const Dkv__V1__Request *packed = (const Dkv__V1__Request *)item;
    dkv_request request;
    dkv_wire_read_request(packed, &request);
    sink->each(sink->user, packed->id, &request);
    return DKV_OK;
}

int dkv_wire_each_request(dkv_slice batch,
                          void (*each)(void *user, uint64_t id, const dkv_request *request),
                          void *user) {
    request_sink sink = {each, user};
    return dkv_wire_each_item(batch, &dkv__v1__request__descriptor, deliver_request, &sink);
}

int dkv_wire_put_reply(dkv_buf *out, uint64_t id, dkv_op op, const dkv_reply *reply) {
    dkv_wire_reply parts;
    dkv_wire_fill_reply(id, op, reply, &parts);
    return dkv_wire_append_item(out, &parts.reply.base);
}

typedef struct reply_sink {
    void (*each)(void *user, uint64_t id, const dkv_reply *reply);
    void *user;
} reply_sink;

static int deliver_reply(void *user, const ProtobufCMessage *item) {
    const reply_sink *sink = user;
    const Dkv__V1__Reply *packed = (const Dkv__V1__Reply *)item;
    dkv_reply reply;
    int err = dkv_wire_read_reply(packed, &reply);
    if (err) return err;
    sink->each(sink->user, packed->id, &reply);
    return DKV_OK;
}

int dkv_wire_each_reply(dkv_slice batch,
                        void (*each)(void *user, uint64_t id, const dkv_reply *reply), void *user) {
    reply_sink sink = {each, user};
    return dkv_wire_each_item(batch, &dkv__v1__reply__descriptor, deliver_reply, &sink);
}

int dkv_wire_get_unary_request(dkv_slice bytes, dkv_op op, dkv_request *request, void **scratch) {
    /* One chunk holds everything, so that the caller has one thing to free: a decoded request is
     * at most a few structs larger than its bytes, unless somebody plays with the format. */
    size_t cap = bytes.len + DKV_WIRE_CHUNK;
    void *chunk = malloc(cap);
    if (!chunk) return DKV_ERR_NO_MEMORY;
    dkv_wire_arena arena;
    dkv_wire_arena_init(&arena, chunk, cap, 0);
    ProtobufCMessage *packed;
    int err = dkv_wire_unpack(&arena, dkv_wire_request_type(op), bytes, &packed);
    if (err) {
        free(chunk);
        return err;
    }
    dkv_wire_read_body(packed, op, request);
    *scratch = chunk;
    return DKV_OK;
}

int dkv_wire_put_unary_reply(dkv_buf *out, dkv_op op, const dkv_reply *reply) {
    dkv_wire_reply parts;
    dkv_wire_fill_reply(0, op, reply, &parts);
    return dkv_wire_append(out, &parts.body);
}

int dkv_wire_put_error(dkv_buf *out, const dkv_reply *reply) {
    return dkv_wire_put_unary_reply(out, DKV_OP_GET, reply);
}
