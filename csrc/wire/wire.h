/* Between bytes and the structs of model/: the protobuf messages of proto/, through protobuf-c.
 *
 * Encoding appends a complete batch of one item to a buffer; batches may be concatenated, as
 * protobuf merges repeated fields. Decoding checks every limit of model/ and calls back once per
 * item; what it hands out borrows from the input or from an arena and lives for the call. Bytes
 * that do not follow the format give PROTOCOL; items before the fault may have been delivered. */
#ifndef DKV_WIRE_WIRE_H
#define DKV_WIRE_WIRE_H

#include "base/bytes.h"
#include "model/message.h"
#include "model/request.h"
#include "ring/cluster_map.h"

/* ---- node to node: peer.proto ---- */

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
