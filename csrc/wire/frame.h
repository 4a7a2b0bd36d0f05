/* Batches and messages as bytes: every batch of proto/ is a message whose field 1 repeats its
 * items, so that batches can be built item by item, concatenated, and taken apart item by item,
 * with the memory of one item at a time. */
#ifndef DKV_WIRE_FRAME_H
#define DKV_WIRE_FRAME_H

#include <protobuf-c/protobuf-c.h>

#include "base/bytes.h"
#include "wire/arena.h"

#define DKV_WIRE_BYTES 2u /* protobuf's wire type of strings, byte strings and messages */

#define DKV_WIRE_CHUNK 4096u          /* bytes on the stack for one decoded item */
#define DKV_WIRE_ITEM_MEMORY 4194304u /* ... and at most so many from malloc */
#define DKV_WIRE_MAP_MEMORY 33554432u /* ... and so many for a cluster map */

/* Appends a batch that holds `item` alone. NO_MEMORY leaves `out` as it was. */
int dkv_wire_append_item(dkv_buf *out, const ProtobufCMessage *item);

/* Appends a message as it is. NO_MEMORY leaves `out` as it was. */
int dkv_wire_append(dkv_buf *out, const ProtobufCMessage *message);

/* Decodes the items of a batch one after the other and hands each to `each`, which returns 0 or the
 * error to stop with. Fields of the batch other than 1 are passed over. PROTOCOL, NO_MEMORY. */
int dkv_wire_each_item(dkv_slice batch, const ProtobufCMessageDescriptor *type,
                       int (*each)(void *user, const ProtobufCMessage *item), void *user);

/* Cuts the next field off the front of a message that is not empty: its key (number << 3 | wire
 * type), and its content where that has a length of its own. PROTOCOL. */
int dkv_wire_take_field(dkv_slice *from, uint64_t *key, dkv_slice *content);

/* Decodes one message into the arena. PROTOCOL, NO_MEMORY. */
int dkv_wire_unpack(dkv_wire_arena *arena, const ProtobufCMessageDescriptor *type, dkv_slice bytes,
                    ProtobufCMessage **out);

#endif
