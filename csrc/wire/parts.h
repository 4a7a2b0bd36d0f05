/* The parts that messages between nodes share with those of clients: versions, names, requests,
 * replies. "Fill" goes from the structs of model/ to those of protobuf-c, "read" the other way. */
#ifndef DKV_WIRE_PARTS_H
#define DKV_WIRE_PARTS_H

#include "dkv.pb-c.h"
#include "model/request.h"

/* NULL stands for none. */
dkv_version dkv_wire_read_version(const Dkv__V1__Version *from);

/* Returns `to`, or NULL for none. */
Dkv__V1__Version *dkv_wire_fill_version(dkv_version from, Dkv__V1__Version *to);

ProtobufCBinaryData dkv_wire_fill_bytes(dkv_slice from);
dkv_slice dkv_wire_read_bytes(ProtobufCBinaryData from);

/* Copies `from`, cut to size − 1 bytes and not in the middle of a character, and ends it with a
 * NUL, as protobuf-c wants its strings. Returns `to`. */
char *dkv_wire_fill_text(dkv_slice from, char *to, size_t size);

/* PROTOCOL unless it has 1 to DKV_NAME_MAX bytes. */
int dkv_wire_read_name(const char *from, dkv_slice *out);

/* PROTOCOL unless 0 or a code of base/err.h. */
int dkv_wire_read_err(int32_t from, int *out);

/* ---- requests ---- */

/* A request and what it points at. */
typedef struct dkv_wire_request {
    Dkv__V1__Request request;
    Dkv__V1__Version last_seen;
    union {
        ProtobufCMessage body;
        Dkv__V1__GetRequest get;
        Dkv__V1__PutRequest put;
        Dkv__V1__DeleteRequest delete_;
    };
} dkv_wire_request;

void dkv_wire_fill_request(uint64_t id, const dkv_request *from, dkv_wire_request *to);

/* Takes the request as it is, within its limits or not; a body that this program does not know
 * gives the operation 0. dkv_request_check tells such requests apart. */
void dkv_wire_read_request(const Dkv__V1__Request *from, dkv_request *out);

/* `body` is the GetRequest, PutRequest or DeleteRequest of `op`. */
void dkv_wire_read_body(const ProtobufCMessage *body, dkv_op op, dkv_request *out);

/* The protobuf type of a request of `op`. */
const ProtobufCMessageDescriptor *dkv_wire_request_type(dkv_op op);

/* ---- replies ---- */

/* A reply and what it points at. */
typedef struct dkv_wire_reply {
    Dkv__V1__Reply reply;
    Dkv__V1__Version version;
    union {
        ProtobufCMessage body;
        Dkv__V1__GetReply get;
        Dkv__V1__PutReply put;
        Dkv__V1__DeleteReply delete_;
        Dkv__V1__Error error;
    };
    char *holding[DKV_REPLICATION_MAX];
    char *missing[DKV_REPLICATION_MAX];
    char holding_text[DKV_REPLICATION_MAX][DKV_NAME_MAX + 1];
    char missing_text[DKV_REPLICATION_MAX][DKV_NAME_MAX + 1];
    char detail[DKV_DETAIL_MAX];
} dkv_wire_reply;

void dkv_wire_fill_reply(uint64_t id, dkv_op op, const dkv_reply *from, dkv_wire_reply *to);

/* PROTOCOL if there is no body or something in it is outside its limits. */
int dkv_wire_read_reply(const Dkv__V1__Reply *from, dkv_reply *out);

#endif
