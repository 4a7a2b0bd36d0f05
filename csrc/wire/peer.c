#include <assert.h>

#include "base/err.h"
#include "peer.pb-c.h"
#include "wire/frame.h"
#include "wire/parts.h"
#include "wire/wire.h"

/* A message and what it points at. */
typedef struct parts {
    Dkv__V1__Message message;
    union {
        struct {
            Dkv__V1__Hello hello;
            char cluster[DKV_NAME_MAX + 1];
            char node_id[DKV_NAME_MAX + 1];
        };
        Dkv__V1__Ping ping;
        Dkv__V1__Pong pong;
        Dkv__V1__ApplyReply apply_reply;
        Dkv__V1__Fetch fetch;
        struct {
            Dkv__V1__FetchReply fetch_reply;
            Dkv__V1__Record record;
            Dkv__V1__Version version;
        };
        struct {
            Dkv__V1__Forward forward;
            dkv_wire_request request;
        };
        dkv_wire_reply reply;
        Dkv__V1__Sums sums;
        Dkv__V1__SumsReply sums_reply;
        Dkv__V1__List list;
        Dkv__V1__ListReply list_reply;
    };
} parts;

/* ---- to bytes ---- */

static void fill_hello(const dkv_hello *from, parts *to) {
    dkv__v1__hello__init(&to->hello);
    to->hello.cluster = dkv_wire_fill_text(from->cluster, to->cluster, sizeof to->cluster);
    to->hello.node_id = dkv_wire_fill_text(from->node_id, to->node_id, sizeof to->node_id);
    to->hello.epoch = from->epoch;
    to->hello.map_digest = from->map_digest;
    to->hello.replication = from->replication;
    to->hello.members = from->n_members;
    to->hello.store_id = from->store_id;
    to->hello.remembers = from->remembers;
    to->hello.lost_ms = from->lost_ms;
    to->hello.heeded_ms = from->heeded_ms;
    to->hello.in_sync = from->in_sync;
    to->hello.wall_ms = from->wall_ms;
    to->hello.err = from->err;
    to->hello.state = from->state;
    to->message.hello = &to->hello;
}

static void fill_record(const dkv_record *from, parts *to) {
    dkv__v1__record__init(&to->record);
    to->record.key = dkv_wire_fill_bytes(from->key);
    to->record.value = dkv_wire_fill_bytes(from->value);
    to->record.version = dkv_wire_fill_version(from->version, &to->version);
    to->record.kind = (Dkv__V1__Kind)from->kind;
}

static void fill_fetch_reply(const dkv_message *from, parts *to) {
    dkv__v1__fetch_reply__init(&to->fetch_reply);
    to->fetch_reply.err = from->fetch_reply.err;
    to->fetch_reply.in_sync = from->fetch_reply.in_sync;
    to->fetch_reply.durable = from->fetch_reply.durable;
    to->fetch_reply.version_only = from->fetch_reply.version_only;
    to->fetch_reply.len_bytes = from->fetch_reply.len_bytes;
    if (from->fetch_reply.err == 0) {
        fill_record(&from->fetch_reply.record, to);
        to->fetch_reply.record = &to->record;
    }
    to->message.fetch_reply = &to->fetch_reply;
}

static void fill_forward(const dkv_message *from, parts *to) {
    dkv__v1__forward__init(&to->forward);
    dkv_wire_fill_request(0, &from->forward, &to->request);
    to->forward.request = &to->request.request;
    to->message.forward = &to->forward;
}

/* The forwarding node knows what it asked for; here the outcome tells a write from a read. */
static void fill_forward_reply(const dkv_message *from, parts *to) {
    const dkv_reply *reply = &from->forward_reply;
    dkv_op op = reply->outcome == DKV_OUTCOME_NONE ? DKV_OP_GET : DKV_OP_PUT;
    dkv_wire_fill_reply(0, op, reply, &to->reply);
    to->message.forward_reply = &to->reply.reply;
}

static void fill_fetch(const dkv_message *from, parts *to) {
    dkv__v1__fetch__init(&to->fetch);
    to->fetch.key = dkv_wire_fill_bytes(from->fetch.key);
    if (from->fetch.key.len == 0) {
        to->fetch.token = from->fetch.hash.token;
        to->fetch.tag = from->fetch.hash.tag;
    }
    to->fetch.version_only = from->fetch.version_only;
    to->message.fetch = &to->fetch;
}

/* protobuf-c does not write to what it packs, but its structs say so nowhere. */
#define UNCONST(type, pointer) ((type *)(uintptr_t)(pointer))

static void fill_sums(const dkv_sums_request *from, parts *to) {
    dkv__v1__sums__init(&to->sums);
    to->sums.n_bounds = 2u * (size_t)from->n;
    to->sums.bounds = UNCONST(uint64_t, from->bounds);
    to->sums.parts = from->parts;
    to->message.sums = &to->sums;
}

static void fill_sums_reply(const dkv_sums *from, parts *to) {
    dkv__v1__sums_reply__init(&to->sums_reply);
    to->sums_reply.n_counts = to->sums_reply.n_digests = from->n;
    to->sums_reply.counts = UNCONST(uint64_t, from->counts);
    to->sums_reply.digests = UNCONST(uint64_t, from->digests);
    to->message.sums_reply = &to->sums_reply;
}

static void fill_list(const dkv_list_request *from, parts *to) {
    dkv__v1__list__init(&to->list);
    to->list.token = from->from.token;
    to->list.tag = from->from.tag;
    to->list.last = from->last;
    to->message.list = &to->list;
}

static void fill_list_reply(const dkv_list *from, parts *to) {
    Dkv__V1__ListReply *reply = &to->list_reply;
    dkv__v1__list_reply__init(reply);
    reply->more = from->more;
    reply->n_tokens = reply->n_tags = reply->n_hlcs = reply->n_origins = reply->n_sizes = from->n;
    reply->tokens = UNCONST(uint64_t, from->tokens);
    reply->tags = UNCONST(uint64_t, from->tags);
    reply->hlcs = UNCONST(uint64_t, from->hlcs);
    reply->origins = UNCONST(uint64_t, from->origins);
    reply->sizes = UNCONST(uint32_t, from->sizes);
    to->message.list_reply = reply;
}

static void fill_message(const dkv_message *from, parts *to) {
    dkv__v1__message__init(&to->message);
    to->message.id = from->id;
    to->message.body_case = (Dkv__V1__Message__BodyCase)from->kind;
    switch (from->kind) {
    case DKV_MSG_HELLO:
    case DKV_MSG_HELLO_REPLY: fill_hello(&from->hello, to); break;
    case DKV_MSG_PING:
        dkv__v1__ping__init(&to->ping);
        to->ping.remembers = from->ping.remembers;
        to->message.ping = &to->ping;
        break;
    case DKV_MSG_PONG:
        dkv__v1__pong__init(&to->pong);
        to->pong.wall_ms = from->pong.wall_ms;
        to->pong.state = from->pong.state;
        to->message.pong = &to->pong;
        break;
    case DKV_MSG_APPLY:
        fill_record(&from->apply, to);
        to->message.apply = &to->record;
        break;
    case DKV_MSG_APPLY_REPLY:
        dkv__v1__apply_reply__init(&to->apply_reply);
        to->apply_reply.err = from->apply_reply.err;
        to->apply_reply.state = from->apply_reply.state;
        to->message.apply_reply = &to->apply_reply;
        break;
    case DKV_MSG_FETCH: fill_fetch(from, to); break;
    case DKV_MSG_FETCH_REPLY: fill_fetch_reply(from, to); break;
    case DKV_MSG_FORWARD: fill_forward(from, to); break;
    case DKV_MSG_FORWARD_REPLY: fill_forward_reply(from, to); break;
    case DKV_MSG_SUMS: fill_sums(&from->sums, to); break;
    case DKV_MSG_SUMS_REPLY: fill_sums_reply(&from->sums_reply, to); break;
    case DKV_MSG_LIST: fill_list(&from->list, to); break;
    case DKV_MSG_LIST_REPLY: fill_list_reply(&from->list_reply, to); break;
    }
}

int dkv_wire_put_message(dkv_buf *out, const dkv_message *message) {
    parts to;
    fill_message(message, &to);
    return dkv_wire_append_item(out, &to.message.base);
}

/* ---- from bytes ---- */

static int read_hello(const Dkv__V1__Hello *from, dkv_hello *out) {
    *out = (dkv_hello){
        .epoch = from->epoch,
        .map_digest = from->map_digest,
        .replication = from->replication,
        .n_members = from->members,
        .store_id = from->store_id,
        .remembers = from->remembers,
        .lost_ms = from->lost_ms,
        .heeded_ms = from->heeded_ms,
        .in_sync = from->in_sync,
        .wall_ms = from->wall_ms,
    };
    if (dkv_wire_read_name(from->cluster, &out->cluster)) return DKV_ERR_PROTOCOL;
    if (dkv_wire_read_name(from->node_id, &out->node_id)) return DKV_ERR_PROTOCOL;
    if (dkv_wire_read_err(from->state, &out->state)) return DKV_ERR_PROTOCOL;
    return dkv_wire_read_err(from->err, &out->err);
}

/* A record without regard to its key, whose presence depends on the message. */
static int read_record(const Dkv__V1__Record *from, dkv_record *out) {
    if (from->value.len > DKV_VALUE_MAX) return DKV_ERR_PROTOCOL;
    if ((uint32_t)from->kind > DKV_KIND_TOMBSTONE) return DKV_ERR_PROTOCOL;
    if (from->kind == DKV__V1__KIND__KIND_TOMBSTONE && from->value.len) return DKV_ERR_PROTOCOL;
    *out = (dkv_record){
        .key = dkv_wire_read_bytes(from->key),
        .value = dkv_wire_read_bytes(from->value),
        .version = dkv_wire_read_version(from->version),
        .kind = (dkv_kind)from->kind,
    };
    return dkv_version_is_none(out->version) ? DKV_ERR_PROTOCOL : DKV_OK;
}

static int check_key(dkv_slice key) {
    return key.len >= 1 && key.len <= DKV_KEY_MAX ? DKV_OK : DKV_ERR_PROTOCOL;
}

static int read_fetch_reply(const Dkv__V1__FetchReply *from, dkv_message *out) {
    out->fetch_reply.in_sync = from->in_sync;
    out->fetch_reply.durable = from->durable;
    out->fetch_reply.version_only = from->version_only;
    out->fetch_reply.len_bytes = from->len_bytes;
    if (dkv_wire_read_err(from->err, &out->fetch_reply.err)) return DKV_ERR_PROTOCOL;
    if ((from->err == 0) != (from->record != NULL)) return DKV_ERR_PROTOCOL;
    if (!from->record) return DKV_OK;
    if (from->record->key.len > DKV_KEY_MAX) return DKV_ERR_PROTOCOL;
    return read_record(from->record, &out->fetch_reply.record);
}

/* The forwarding node has checked the request: one outside its limits is a fault of that node. */
static int read_forward(const Dkv__V1__Forward *from, dkv_request *out) {
    if (!from->request) return DKV_ERR_PROTOCOL;
    dkv_wire_read_request(from->request, out);
    return dkv_request_check(out, NULL) ? DKV_ERR_PROTOCOL : DKV_OK;
}

static int read_fetch(const Dkv__V1__Fetch *from, dkv_message *out) {
    out->fetch.key = dkv_wire_read_bytes(from->key);
    out->fetch.hash = (dkv_key_hash){from->token, from->tag};
    out->fetch.version_only = from->version_only;
    return from->key.len <= DKV_KEY_MAX ? DKV_OK : DKV_ERR_PROTOCOL;
}

static int read_sums(const Dkv__V1__Sums *from, dkv_sums_request *out) {
    if (from->n_bounds % 2 || from->n_bounds > 2u * DKV_SUMS_RANGES_MAX) return DKV_ERR_PROTOCOL;
    if (from->parts < 1 || from->parts > DKV_SUMS_PARTS_MAX) return DKV_ERR_PROTOCOL;
    for (size_t i = 0; i < from->n_bounds; i += 2) {
        if (from->bounds[i] > from->bounds[i + 1]) return DKV_ERR_PROTOCOL;
    }
    *out = (dkv_sums_request){(uint32_t)(from->n_bounds / 2), from->parts, from->bounds};
    return out->n ? DKV_OK : DKV_ERR_PROTOCOL;
}

static int read_sums_reply(const Dkv__V1__SumsReply *from, dkv_sums *out) {
    if (from->n_counts != from->n_digests) return DKV_ERR_PROTOCOL;
    if (from->n_counts > DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX) return DKV_ERR_PROTOCOL;
    *out = (dkv_sums){(uint32_t)from->n_counts, from->counts, from->digests};
    return DKV_OK;
}

static bool has_columns(const Dkv__V1__ListReply *from, size_t n) {
    return from->n_tags == n && from->n_hlcs == n && from->n_origins == n && from->n_sizes == n;
}

static int read_list_reply(const Dkv__V1__ListReply *from, dkv_list *out) {
    size_t n = from->n_tokens;
    if (n > DKV_LIST_MAX || !has_columns(from, n) || (from->more && n == 0)) {
        return DKV_ERR_PROTOCOL;
    }
    for (size_t i = 0; i < n; i++) {
        dkv_key_hash hash = {from->tokens[i], from->tags[i]};
        if (i > 0 &&
            dkv_key_hash_cmp((dkv_key_hash){from->tokens[i - 1], from->tags[i - 1]}, hash) >= 0) {
            return DKV_ERR_PROTOCOL;
        }
        if (dkv_version_is_none((dkv_version){from->hlcs[i], from->origins[i]})) {
            return DKV_ERR_PROTOCOL;
        }
    }
    *out = (dkv_list){(uint32_t)n, from->more,    from->tokens, from->tags,
                      from->hlcs,  from->origins, from->sizes};
    return DKV_OK;
}

static int read_message(const Dkv__V1__Message *from, dkv_message *out) {
    int err;
    *out = (dkv_message){.kind = (dkv_message_kind)from->body_case, .id = from->id};
    switch (from->body_case) {
    case DKV__V1__MESSAGE__BODY_HELLO: return read_hello(from->hello, &out->hello);
    case DKV__V1__MESSAGE__BODY_HELLO_REPLY: return read_hello(from->hello_reply, &out->hello);
    case DKV__V1__MESSAGE__BODY_PING: out->ping.remembers = from->ping->remembers; return DKV_OK;
    case DKV__V1__MESSAGE__BODY_PONG:
        out->pong.wall_ms = from->pong->wall_ms;
        return dkv_wire_read_err(from->pong->state, &out->pong.state);
    case DKV__V1__MESSAGE__BODY_APPLY:
        err = read_record(from->apply, &out->apply);
        return err ? err : check_key(out->apply.key);
    case DKV__V1__MESSAGE__BODY_APPLY_REPLY:
        err = dkv_wire_read_err(from->apply_reply->err, &out->apply_reply.err);
        return err ? err : dkv_wire_read_err(from->apply_reply->state, &out->apply_reply.state);
    case DKV__V1__MESSAGE__BODY_FETCH: return read_fetch(from->fetch, out);
    case DKV__V1__MESSAGE__BODY_FETCH_REPLY: return read_fetch_reply(from->fetch_reply, out);
    case DKV__V1__MESSAGE__BODY_FORWARD: return read_forward(from->forward, &out->forward);
    case DKV__V1__MESSAGE__BODY_FORWARD_REPLY:
        return dkv_wire_read_reply(from->forward_reply, &out->forward_reply);
    case DKV__V1__MESSAGE__BODY_SUMS: return read_sums(from->sums, &out->sums);
    case DKV__V1__MESSAGE__BODY_SUMS_REPLY:
        return read_sums_reply(from->sums_reply, &out->sums_reply);
    case DKV__V1__MESSAGE__BODY_LIST:
        out->list = (dkv_list_request){{from->list->token, from->list->tag}, from->list->last};
        return DKV_OK;
    case DKV__V1__MESSAGE__BODY_LIST_REPLY:
        return read_list_reply(from->list_reply, &out->list_reply);
    default: return DKV_ERR_PROTOCOL;
    }
}

typedef struct message_sink {
    void (*each)(void *user, const dkv_message *message);
    void *user;
} message_sink;

static int deliver_message(void *user, const ProtobufCMessage *item) {
    const message_sink *sink = user;
    dkv_message message;
    int err = read_message((const Dkv__V1__Message *)item, &message);
    if (err) return err;
    sink->each(sink->user, &message);
    return DKV_OK;
}

int dkv_wire_each_message(dkv_slice batch, void (*each)(void *user, const dkv_message *message),
                          void *user) {
    message_sink sink = {each, user};
    return dkv_wire_each_item(batch, &dkv__v1__message__descriptor, deliver_message, &sink);
}
