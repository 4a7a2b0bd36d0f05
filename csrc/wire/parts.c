#include "wire/parts.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"

dkv_version dkv_wire_read_version(const Dkv__V1__Version *from) {
    return from ? (dkv_version){from->hlc, from->origin} : (dkv_version){0};
}

Dkv__V1__Version *dkv_wire_fill_version(dkv_version from, Dkv__V1__Version *to) {
    if (dkv_version_is_none(from)) return NULL;
    dkv__v1__version__init(to);
    to->hlc = from.hlc;
    to->origin = from.origin;
    return to;
}

ProtobufCBinaryData dkv_wire_fill_bytes(dkv_slice from) {
    return (ProtobufCBinaryData){.len = from.len, .data = (uint8_t *)from.data};
}

dkv_slice dkv_wire_read_bytes(ProtobufCBinaryData from) {
    return (dkv_slice){from.data, from.len};
}

char *dkv_wire_fill_text(dkv_slice from, char *to, size_t size) {
    size_t len = from.len;
    if (len >= size) {
        len = size - 1;
        while (len && (from.data[len] & 0xC0) == 0x80) len--;
    }
    if (len) memcpy(to, from.data, len);
    to[len] = 0;
    return to;
}

int dkv_wire_read_name(const char *from, dkv_slice *out) {
    size_t len = strnlen(from, DKV_NAME_MAX + 1);
    if (len < 1 || len > DKV_NAME_MAX) return DKV_ERR_PROTOCOL;
    *out = (dkv_slice){(const uint8_t *)from, len};
    return DKV_OK;
}

int dkv_wire_read_err(int32_t from, int *out) {
    if (dkv_err_name(from)[0] == '?') return DKV_ERR_PROTOCOL;
    *out = from;
    return DKV_OK;
}

/* ---- requests ---- */

static void fill_get(const dkv_request *from, dkv_wire_request *to) {
    dkv__v1__get_request__init(&to->get);
    to->get.key = dkv_wire_fill_bytes(from->key);
    to->get.level = (Dkv__V1__Level)from->level;
    to->get.timeout_ms = from->timeout_ms;
    to->get.failover = from->failover;
    to->request.body_case = DKV__V1__REQUEST__BODY_GET;
    to->request.get = &to->get;
}

static void fill_put(const dkv_request *from, dkv_wire_request *to) {
    dkv__v1__put_request__init(&to->put);
    to->put.key = dkv_wire_fill_bytes(from->key);
    to->put.value = dkv_wire_fill_bytes(from->value);
    to->put.level = (Dkv__V1__Level)from->level;
    to->put.timeout_ms = from->timeout_ms;
    to->put.last_seen = dkv_wire_fill_version(from->last_seen, &to->last_seen);
    to->request.body_case = DKV__V1__REQUEST__BODY_PUT;
    to->request.put = &to->put;
}

static void fill_delete(const dkv_request *from, dkv_wire_request *to) {
    dkv__v1__delete_request__init(&to->delete_);
    to->delete_.key = dkv_wire_fill_bytes(from->key);
    to->delete_.level = (Dkv__V1__Level)from->level;
    to->delete_.timeout_ms = from->timeout_ms;
    to->delete_.last_seen = dkv_wire_fill_version(from->last_seen, &to->last_seen);
    to->request.body_case = DKV__V1__REQUEST__BODY_DELETE;
    to->request.delete_ = &to->delete_;
}

void dkv_wire_fill_request(uint64_t id, const dkv_request *from, dkv_wire_request *to) {
    dkv__v1__request__init(&to->request);
    to->request.id = id;
    switch (from->op) {
    case DKV_OP_GET: fill_get(from, to); break;
    case DKV_OP_PUT: fill_put(from, to); break;
    case DKV_OP_DELETE: fill_delete(from, to); break;
    }
}

void dkv_wire_read_body(const ProtobufCMessage *body, dkv_op op, dkv_request *out) {
    *out = (dkv_request){.op = op};
    switch (op) {
    case DKV_OP_GET: {
        const Dkv__V1__GetRequest *get = (const Dkv__V1__GetRequest *)body;
        out->level = (dkv_level)get->level;
        out->timeout_ms = get->timeout_ms;
        out->failover = get->failover != 0;
        out->key = dkv_wire_read_bytes(get->key);
        break;
    }
    case DKV_OP_PUT: {
        const Dkv__V1__PutRequest *put = (const Dkv__V1__PutRequest *)body;
        out->level = (dkv_level)put->level;
        out->timeout_ms = put->timeout_ms;
        out->last_seen = dkv_wire_read_version(put->last_seen);
        out->key = dkv_wire_read_bytes(put->key);
        out->value = dkv_wire_read_bytes(put->value);
        break;
    }
    case DKV_OP_DELETE: {
        const Dkv__V1__DeleteRequest *del = (const Dkv__V1__DeleteRequest *)body;
        out->level = (dkv_level)del->level;
        out->timeout_ms = del->timeout_ms;
        out->last_seen = dkv_wire_read_version(del->last_seen);
        out->key = dkv_wire_read_bytes(del->key);
        break;
    }
    }
}

void dkv_wire_read_request(const Dkv__V1__Request *from, dkv_request *out) {
    switch (from->body_case) {
    case DKV__V1__REQUEST__BODY_GET: dkv_wire_read_body(&from->get->base, DKV_OP_GET, out); return;
    case DKV__V1__REQUEST__BODY_PUT: dkv_wire_read_body(&from->put->base, DKV_OP_PUT, out); return;
    case DKV__V1__REQUEST__BODY_DELETE:
        dkv_wire_read_body(&from->delete_->base, DKV_OP_DELETE, out);
        return;
    default: *out = (dkv_request){0};
    }
}

const ProtobufCMessageDescriptor *dkv_wire_request_type(dkv_op op) {
    return op == DKV_OP_GET   ? &dkv__v1__get_request__descriptor
           : op == DKV_OP_PUT ? &dkv__v1__put_request__descriptor
                              : &dkv__v1__delete_request__descriptor;
}

/* ---- replies ---- */

static size_t fill_names(const dkv_node_names *from, char **to,
                         char text[DKV_REPLICATION_MAX][DKV_NAME_MAX + 1]) {
    assert(from->n <= DKV_REPLICATION_MAX);
    for (size_t i = 0; i < from->n; i++) {
        to[i] = dkv_wire_fill_text(from->ids[i], text[i], sizeof text[i]);
    }
    return from->n;
}

static int read_names(size_t n, char **from, dkv_node_names *out) {
    if (n > DKV_REPLICATION_MAX) return DKV_ERR_PROTOCOL;
    for (size_t i = 0; i < n; i++) {
        if (dkv_wire_read_name(from[i], &out->ids[i])) return DKV_ERR_PROTOCOL;
    }
    out->n = (uint8_t)n;
    return DKV_OK;
}

static void fill_error(const dkv_reply *from, dkv_wire_reply *to) {
    dkv__v1__error__init(&to->error);
    to->error.code = from->err;
    to->error.message = dkv_wire_fill_text(from->detail, to->detail, sizeof to->detail);
    to->error.outcome = (Dkv__V1__Outcome)from->outcome;
    to->error.version = dkv_wire_fill_version(from->version, &to->version);
    to->error.n_holding = fill_names(&from->holding, to->holding, to->holding_text);
    to->error.holding = to->holding;
    to->error.n_missing = fill_names(&from->missing, to->missing, to->missing_text);
    to->error.missing = to->missing;
    to->reply.body_case = DKV__V1__REPLY__BODY_ERROR;
    to->reply.error = &to->error;
}

static void fill_get_reply(const dkv_reply *from, dkv_wire_reply *to) {
    dkv__v1__get_reply__init(&to->get);
    to->get.value = dkv_wire_fill_bytes(from->value);
    to->get.version = dkv_wire_fill_version(from->version, &to->version);
    to->get.n_replicas = fill_names(&from->holding, to->holding, to->holding_text);
    to->get.replicas = to->holding;
    to->reply.body_case = DKV__V1__REPLY__BODY_GET;
    to->reply.get = &to->get;
}

static void fill_put_reply(const dkv_reply *from, dkv_wire_reply *to) {
    dkv__v1__put_reply__init(&to->put);
    to->put.version = dkv_wire_fill_version(from->version, &to->version);
    to->put.n_replicas = fill_names(&from->holding, to->holding, to->holding_text);
    to->put.replicas = to->holding;
    to->reply.body_case = DKV__V1__REPLY__BODY_PUT;
    to->reply.put = &to->put;
}

static void fill_delete_reply(const dkv_reply *from, dkv_wire_reply *to) {
    dkv__v1__delete_reply__init(&to->delete_);
    to->delete_.version = dkv_wire_fill_version(from->version, &to->version);
    to->delete_.n_replicas = fill_names(&from->holding, to->holding, to->holding_text);
    to->delete_.replicas = to->holding;
    to->reply.body_case = DKV__V1__REPLY__BODY_DELETE;
    to->reply.delete_ = &to->delete_;
}

void dkv_wire_fill_reply(uint64_t id, dkv_op op, const dkv_reply *from, dkv_wire_reply *to) {
    dkv__v1__reply__init(&to->reply);
    to->reply.id = id;
    if (from->err) {
        fill_error(from, to);
        return;
    }
    switch (op) {
    case DKV_OP_GET: fill_get_reply(from, to); break;
    case DKV_OP_PUT: fill_put_reply(from, to); break;
    case DKV_OP_DELETE: fill_delete_reply(from, to); break;
    }
}

static int read_error(const Dkv__V1__Error *from, dkv_reply *out) {
    size_t len = strnlen(from->message, DKV_DETAIL_MAX);
    if (len >= DKV_DETAIL_MAX) return DKV_ERR_PROTOCOL;
    if ((uint32_t)from->outcome > DKV_OUTCOME_UNKNOWN) return DKV_ERR_PROTOCOL;
    if (dkv_wire_read_err(from->code, &out->err) || out->err == 0) return DKV_ERR_PROTOCOL;
    out->outcome = (dkv_outcome)from->outcome;
    out->version = dkv_wire_read_version(from->version);
    out->detail = (dkv_slice){(const uint8_t *)from->message, len};
    int err = read_names(from->n_holding, from->holding, &out->holding);
    return err ? err : read_names(from->n_missing, from->missing, &out->missing);
}

int dkv_wire_read_reply(const Dkv__V1__Reply *from, dkv_reply *out) {
    *out = (dkv_reply){0};
    switch (from->body_case) {
    case DKV__V1__REPLY__BODY_GET:
        if (from->get->value.len > DKV_VALUE_MAX) return DKV_ERR_PROTOCOL;
        out->value = dkv_wire_read_bytes(from->get->value);
        out->version = dkv_wire_read_version(from->get->version);
        return read_names(from->get->n_replicas, from->get->replicas, &out->holding);
    case DKV__V1__REPLY__BODY_PUT:
        out->outcome = DKV_OUTCOME_APPLIED;
        out->version = dkv_wire_read_version(from->put->version);
        return read_names(from->put->n_replicas, from->put->replicas, &out->holding);
    case DKV__V1__REPLY__BODY_DELETE:
        out->outcome = DKV_OUTCOME_APPLIED;
        out->version = dkv_wire_read_version(from->delete_->version);
        return read_names(from->delete_->n_replicas, from->delete_->replicas, &out->holding);
    case DKV__V1__REPLY__BODY_ERROR: return read_error(from->error, out);
    default: return DKV_ERR_PROTOCOL;
    }
}
