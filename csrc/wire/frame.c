#include "wire/frame.h"

#include <stddef.h>

#include "base/err.h"
#include "wire/wire.h"

/* The wire types of protobuf that this program knows; groups (3, 4) are obsolete. */
enum { VARINT = 0, FIXED64 = 1, BYTES = DKV_WIRE_BYTES, FIXED32 = 5 };

#define ITEM_KEY (1u << 3 | BYTES)
#define LANE_KEY (2u << 3 | FIXED64)
#define HEADER_MAX 6u /* key and length in front of an item */

static size_t put_varint(uint8_t *to, size_t value) {
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) to[n++] = (uint8_t)(value | 0x80);
    to[n++] = (uint8_t)value;
    return n;
}

int dkv_wire_append_item(dkv_buf *out, const ProtobufCMessage *item) {
    size_t size = protobuf_c_message_get_packed_size(item);
    int err = dkv_buf_reserve(out, HEADER_MAX + size);
    if (err) return err;
    uint8_t *to = out->data + out->len;
    *to++ = ITEM_KEY;
    to += put_varint(to, size);
    to += protobuf_c_message_pack(item, to);
    out->len = (size_t)(to - out->data);
    return DKV_OK;
}

int dkv_wire_append(dkv_buf *out, const ProtobufCMessage *message) {
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size == 0) return DKV_OK;
    int err = dkv_buf_reserve(out, size);
    if (err) return err;
    out->len += protobuf_c_message_pack(message, out->data + out->len);
    return DKV_OK;
}

static void skip(dkv_slice *bytes, size_t n) {
    bytes->data += n;
    bytes->len -= n;
}

static int take_varint(dkv_slice *from, uint64_t *value) {
    *value = 0;
    for (unsigned i = 0; i < 10 && i < from->len; i++) {
        *value |= (uint64_t)(from->data[i] & 0x7F) << (7 * i);
        if (from->data[i] & 0x80) continue;
        skip(from, i + 1);
        return DKV_OK;
    }
    return DKV_ERR_PROTOCOL;
}

int dkv_wire_take_field(dkv_slice *from, uint64_t *key, dkv_slice *content) {
    uint64_t len;
    if (take_varint(from, key) || *key >> 3 == 0) return DKV_ERR_PROTOCOL;
    switch (*key & 7) {
    case VARINT: {
        uint64_t ignored;
        *content = (dkv_slice){0};
        return take_varint(from, &ignored);
    }
    case FIXED64: len = 8; break;
    case FIXED32: len = 4; break;
    case BYTES:
        if (take_varint(from, &len)) return DKV_ERR_PROTOCOL;
        break;
    default: return DKV_ERR_PROTOCOL;
    }
    if (len > from->len) return DKV_ERR_PROTOCOL;
    *content = (dkv_slice){from->data, (size_t)len};
    skip(from, (size_t)len);
    return DKV_OK;
}

/* Cuts the next item off the front of a batch: 1 and *item, 0 at the end, or PROTOCOL. */
static int next_item(dkv_slice *batch, dkv_slice *item) {
    while (batch->len) {
        uint64_t key;
        int err = dkv_wire_take_field(batch, &key, item);
        if (err) return err;
        if (key == ITEM_KEY) return 1;
        if (key >> 3 == ITEM_KEY >> 3) return DKV_ERR_PROTOCOL;
    }
    return 0;
}

size_t dkv_wire_cut(dkv_slice batch, size_t items) {
    dkv_slice rest = batch;
    while (items && rest.len) {
        uint64_t key;
        dkv_slice content;
        if (dkv_wire_take_field(&rest, &key, &content)) return batch.len;
        if (key == ITEM_KEY) items--;
    }
    return batch.len - rest.len;
}

int dkv_wire_put_lane(dkv_buf *out, uint64_t lane) {
    int err = dkv_buf_reserve(out, 9);
    if (err) return err;
    out->data[out->len] = LANE_KEY;
    dkv_put_le64(out->data + out->len + 1, lane);
    out->len += 9;
    return DKV_OK;
}

uint64_t dkv_wire_get_lane(dkv_slice batch) {
    uint64_t lane = 0;
    uint64_t key;
    dkv_slice content;
    while (batch.len && dkv_wire_take_field(&batch, &key, &content) == DKV_OK) {
        if (key == LANE_KEY) lane = dkv_le64(content.data);
    }
    return lane;
}

int dkv_wire_unpack(dkv_wire_arena *arena, const ProtobufCMessageDescriptor *type, dkv_slice bytes,
                    ProtobufCMessage **out) {
    ProtobufCMessage *message =
        protobuf_c_message_unpack(type, &arena->allocator, bytes.len, bytes.data);
    if (!message) return arena->no_memory ? DKV_ERR_NO_MEMORY : DKV_ERR_PROTOCOL;
    *out = message;
    return DKV_OK;
}

int dkv_wire_each_item(dkv_slice batch, const ProtobufCMessageDescriptor *type,
                       int (*each)(void *user, const ProtobufCMessage *item), void *user) {
    _Alignas(max_align_t) uint8_t chunk[DKV_WIRE_CHUNK];
    dkv_wire_arena arena;
    dkv_wire_arena_init(&arena, chunk, sizeof chunk, DKV_WIRE_ITEM_MEMORY);
    dkv_slice bytes;
    int err;
    while ((err = next_item(&batch, &bytes)) > 0) {
        ProtobufCMessage *item;
        err = dkv_wire_unpack(&arena, type, bytes, &item);
        if (!err) err = each(user, item);
        dkv_wire_arena_reset(&arena);
        if (err) break;
    }
    return err;
}
