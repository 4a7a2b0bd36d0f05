/* Between bytes and the structs of model/: the protobuf messages of proto/, through protobuf-c.
 *
 * Encoding appends a complete batch of one item to a buffer; batches may be concatenated, as
 * protobuf merges repeated fields. NO_MEMORY leaves the buffer as it was. Decoding calls back once
 * per item; what it hands out borrows from the input or from an arena and lives for the call.
 *
 * Validity, when decoding:
 * 1. Bytes that do not follow the format of protobuf give PROTOCOL, and so does an item that would
 *    take more than 4 MiB of memory. Items before the fault may have been delivered.
 * 2. Messages between nodes and replies must keep every limit of model/ (lengths, enumerations,
 *    error codes, required parts), or they give PROTOCOL: their sender checked them.
 * 3. Client requests are delivered as they came, with whatever lengths and numbers; a body that
 *    this program does not know has the operation 0. The receiver applies dkv_request_check, so
 *    that a bad request is answered by its id instead of ending the session of all the others.
 * 4. Unknown fields are passed over. */
#ifndef DKV_WIRE_WIRE_H
#define DKV_WIRE_WIRE_H

#include "base/bytes.h"
#include "model/message.h"
#include "model/request.h"
#include "ring/cluster_map.h"

/* ---- node to node: peer.proto ---- */

/* A FORWARD_REPLY does not say whether it answers a put or a delete; the receiver knows. */
int dkv_wire_put_message(dkv_buf *out, const dkv_message *message);
int dkv_wire_each_message(dkv_slice batch, void (*each)(void *user, const dkv_message *message),
                          void *user);

/* ---- client session: dkv.proto ---- */

int dkv_wire_put_request(dkv_buf *out, uint64_t id, const dkv_request *request);
int dkv_wire_each_request(dkv_slice batch,
                          void (*each)(void *user, uint64_t id, const dkv_request *request),
                          void *user);

/* `op` says which kind of reply it is. */
int dkv_wire_put_reply(dkv_buf *out, uint64_t id, dkv_op op, const dkv_reply *reply);
int dkv_wire_each_reply(dkv_slice batch,
                        void (*each)(void *user, uint64_t id, const dkv_reply *reply), void *user);

/* ---- batches as bytes ---- */

/* The length of the part of a batch that holds its first `items` items (all of it if there are
 * fewer, or if it is damaged). Both parts are batches. */
size_t dkv_wire_cut(dkv_slice batch, size_t items);

/* ---- lanes: MessageBatch.lane and RequestBatch.lane ---- */

#define DKV_WIRE_LARGE 65536u /* items of more bytes travel on a pair's large lane */

/* Appends a batch that has no items and announces `lane` (not 0). */
int dkv_wire_put_lane(dkv_buf *out, uint64_t lane);

/* The lane that a batch announces, or 0. */
uint64_t dkv_wire_get_lane(dkv_slice batch);

/* ---- client, unary: PutRequest, PutReply and so on ---- */

/* `request` borrows from `bytes` and from *scratch, which the caller frees with free(). */
int dkv_wire_get_unary_request(dkv_slice bytes, dkv_op op, dkv_request *request, void **scratch);
int dkv_wire_put_unary_reply(dkv_buf *out, dkv_op op, const dkv_reply *reply);

/* dkv.v1.Error, the content of the trailer "dkv-error-bin". */
int dkv_wire_put_error(dkv_buf *out, const dkv_reply *reply);

/* ---- the cluster map, as clients fetch it ---- */

int dkv_wire_put_map(dkv_buf *out, const dkv_cluster_map *map);
/* *out is owned by the caller. */
int dkv_wire_get_map(dkv_slice bytes, dkv_cluster_map **out);

#endif
