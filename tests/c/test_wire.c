/* csrc/wire: what is encoded comes back the same, and no bytes whatever make the decoder crash or
 * deliver something beyond the limits of model/. */
#include "base/err.h"
#include "peer.pb-c.h"
#include "wire_samples.h"

#define ITEMS_MAX 8u

static const dkv_message_kind kinds[] = {
    DKV_MSG_HELLO,   DKV_MSG_HELLO_REPLY,   DKV_MSG_PING,  DKV_MSG_PONG,
    DKV_MSG_APPLY,   DKV_MSG_APPLY_REPLY,   DKV_MSG_FETCH, DKV_MSG_FETCH_REPLY,
    DKV_MSG_FORWARD, DKV_MSG_FORWARD_REPLY, DKV_MSG_SUMS,  DKV_MSG_SUMS_REPLY,
    DKV_MSG_LIST,    DKV_MSG_LIST_REPLY,
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

/* ---- limits: what may come out of the decoder at all ---- */

/* Reads every byte, so that the sanitizer sees a slice that points elsewhere. */
static uint8_t touch(dkv_slice bytes) {
    uint8_t sum = 0;
    for (size_t i = 0; i < bytes.len; i++) sum ^= bytes.data[i];
    return sum;
}

static volatile uint8_t touched;

static void check_bytes(dkv_slice bytes, size_t min, size_t max) {
    CHECK(bytes.len >= min && bytes.len <= max);
    touched = touch(bytes);
}

static void check_err(int err) {
    CHECK(strcmp(dkv_err_name(err), "?") != 0);
}

static void check_record(const dkv_record *record, size_t key_min, size_t key_max) {
    check_bytes(record->key, key_min, key_max);
    check_bytes(record->value, 0, record->kind == DKV_KIND_VALUE ? DKV_VALUE_MAX : 0);
    CHECK(record->kind == DKV_KIND_VALUE || record->kind == DKV_KIND_TOMBSTONE);
    CHECK(!dkv_version_is_none(record->version));
}

static void check_names(const dkv_node_names *names) {
    CHECK(names->n <= DKV_REPLICATION_MAX);
    for (size_t i = 0; i < names->n; i++) check_bytes(names->ids[i], 1, DKV_NAME_MAX);
}

static void check_reply(const dkv_reply *reply) {
    check_err(reply->err);
    CHECK(reply->outcome <= DKV_OUTCOME_UNKNOWN);
    check_bytes(reply->value, 0, reply->err ? 0 : DKV_VALUE_MAX);
    check_names(&reply->holding);
    check_names(&reply->missing);
    check_bytes(reply->detail, 0, DKV_DETAIL_MAX - 1);
}

static void each_message_within_limits(void *user, const dkv_message *m) {
    (void)user;
    switch (m->kind) {
    case DKV_MSG_HELLO:
    case DKV_MSG_HELLO_REPLY:
        check_bytes(m->hello.cluster, 1, DKV_NAME_MAX);
        check_bytes(m->hello.node_id, 1, DKV_NAME_MAX);
        check_err(m->hello.err);
        check_err(m->hello.state);
        return;
    case DKV_MSG_PING: return;
    case DKV_MSG_PONG: check_err(m->pong.state); return;
    case DKV_MSG_APPLY: check_record(&m->apply, 1, DKV_KEY_MAX); return;
    case DKV_MSG_APPLY_REPLY:
        check_err(m->apply_reply.err);
        check_err(m->apply_reply.state);
        return;
    case DKV_MSG_FETCH: check_bytes(m->fetch.key, 0, DKV_KEY_MAX); return;
    case DKV_MSG_FETCH_REPLY:
        check_err(m->fetch_reply.err);
        if (m->fetch_reply.err == 0) check_record(&m->fetch_reply.record, 0, DKV_KEY_MAX);
        return;
    case DKV_MSG_FORWARD:
        CHECK(dkv_request_check(&m->forward, NULL) == 0);
        touched = touch(m->forward.key) ^ touch(m->forward.value);
        return;
    case DKV_MSG_FORWARD_REPLY: check_reply(&m->forward_reply); return;
    case DKV_MSG_SUMS:
        CHECK(m->sums.n >= 1 && m->sums.n <= DKV_SUMS_RANGES_MAX);
        CHECK(m->sums.parts >= 1 && m->sums.parts <= DKV_SUMS_PARTS_MAX);
        for (uint32_t i = 0; i < m->sums.n; i++) {
            CHECK(m->sums.bounds[2 * i] <= m->sums.bounds[2 * i + 1]);
        }
        return;
    case DKV_MSG_SUMS_REPLY:
        CHECK(m->sums_reply.n <= DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX);
        touched = touch((dkv_slice){(const void *)m->sums_reply.counts, 8u * m->sums_reply.n}) ^
                  touch((dkv_slice){(const void *)m->sums_reply.digests, 8u * m->sums_reply.n});
        return;
    case DKV_MSG_LIST: return;
    case DKV_MSG_LIST_REPLY:
        CHECK(m->list_reply.n <= DKV_LIST_MAX && (!m->list_reply.more || m->list_reply.n > 0));
        CHECK(same_list(&m->list_reply, &m->list_reply));
        return;
    }
    CHECK(false); /* an unknown kind */
}

static void each_reply_within_limits(void *user, uint64_t id, const dkv_reply *reply) {
    (void)user;
    (void)id;
    check_reply(reply);
}

/* Requests come as they are; their bytes must be there. */
static void each_request_is_readable(void *user, uint64_t id, const dkv_request *request) {
    (void)user;
    (void)id;
    CHECK(request->op <= DKV_OP_DELETE);
    touched = touch(request->key) ^ touch(request->value);
}

/* Gives the same bytes to every decoder. They are copied to the heap first, so that the sanitizer
 * sees a read beyond their end. */
static void decode_all_ways(const uint8_t *from, size_t len) {
    uint8_t *copy = malloc(len ? len : 1);
    CHECK(copy);
    if (len) memcpy(copy, from, len);
    dkv_slice bytes = {copy, len};
    dkv_wire_each_message(bytes, each_message_within_limits, NULL);
    dkv_wire_each_reply(bytes, each_reply_within_limits, NULL);
    dkv_wire_each_request(bytes, each_request_is_readable, NULL);
    dkv_wire_get_lane(bytes);
    for (dkv_op op = DKV_OP_GET; op <= DKV_OP_DELETE; op++) {
        dkv_request request;
        void *scratch = NULL;
        if (dkv_wire_get_unary_request(bytes, op, &request, &scratch) == 0) {
            each_request_is_readable(NULL, 0, &request);
        }
        free(scratch);
    }
    dkv_cluster_map *map = NULL;
    if (dkv_wire_get_map(bytes, &map) == 0) CHECK(dkv_cluster_map_check(map, NULL, 0) == 0);
    dkv_cluster_map_del(map);
    free(copy);
}

/* ---- round trips ---- */

typedef struct expected {
    size_t at;
    size_t n;
    dkv_message messages[ITEMS_MAX];
    uint64_t ids[ITEMS_MAX];
    dkv_request requests[ITEMS_MAX];
    dkv_reply replies[ITEMS_MAX];
} expected;

static void each_expected_message(void *user, const dkv_message *message) {
    expected *want = user;
    CHECK(want->at < want->n);
    CHECK(same_message(message, &want->messages[want->at]));
    want->at++;
}

static void each_expected_request(void *user, uint64_t id, const dkv_request *request) {
    expected *want = user;
    CHECK(want->at < want->n);
    CHECK(id == want->ids[want->at]);
    CHECK(same_request(request, &want->requests[want->at]));
    want->at++;
}

static void each_expected_reply(void *user, uint64_t id, const dkv_reply *reply) {
    expected *want = user;
    CHECK(want->at < want->n);
    CHECK(id == want->ids[want->at]);
    CHECK(same_reply(reply, &want->replies[want->at]));
    want->at++;
}

/* Every kind of message comes back as it was, alone and in concatenated batches. */
static void messages_round_trip(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs * N_KINDS; run++) {
        expected want = {.n = 1 + (size_t)below(ITEMS_MAX)};
        dkv_buf bytes = {0};
        for (size_t i = 0; i < want.n; i++) {
            want.messages[i] = any_message(kinds[(run + i) % N_KINDS]);
            CHECK(dkv_wire_put_message(&bytes, &want.messages[i]) == 0);
        }
        CHECK(dkv_wire_each_message(dkv_buf_slice(&bytes), each_expected_message, &want) == 0);
        CHECK(want.at == want.n);
        dkv_buf_free(&bytes);
    }
}

/* Requests of every operation come back as they were, with their ids. */
static void requests_round_trip(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs; run++) {
        expected want = {.n = 1 + (size_t)below(ITEMS_MAX)};
        dkv_buf bytes = {0};
        for (size_t i = 0; i < want.n; i++) {
            want.ids[i] = dkv_rand_next(&dice);
            want.requests[i] = any_request();
            CHECK(dkv_wire_put_request(&bytes, want.ids[i], &want.requests[i]) == 0);
        }
        CHECK(dkv_wire_each_request(dkv_buf_slice(&bytes), each_expected_request, &want) == 0);
        CHECK(want.at == want.n);
        dkv_buf_free(&bytes);
    }
}

/* Replies to every operation, good and bad, come back as they were. */
static void replies_round_trip(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs; run++) {
        expected want = {.n = 1 + (size_t)below(ITEMS_MAX)};
        dkv_buf bytes = {0};
        for (size_t i = 0; i < want.n; i++) {
            dkv_op op = (dkv_op)(1 + below(3));
            want.ids[i] = dkv_rand_next(&dice);
            want.replies[i] = any_reply(op);
            CHECK(dkv_wire_put_reply(&bytes, want.ids[i], op, &want.replies[i]) == 0);
        }
        CHECK(dkv_wire_each_reply(dkv_buf_slice(&bytes), each_expected_reply, &want) == 0);
        CHECK(want.at == want.n);
        dkv_buf_free(&bytes);
    }
}

/* The bytes of a batch's only item, without the batch around it. */
static dkv_slice only_item(const dkv_buf *batch) {
    size_t at = 1;
    while (batch->data[at] & 0x80) at++;
    at++;
    return (dkv_slice){batch->data + at, batch->len - at};
}

static ProtobufCMessage *unpack_only_item(const dkv_buf *batch,
                                          const ProtobufCMessageDescriptor *type) {
    dkv_slice bytes = only_item(batch);
    ProtobufCMessage *item = protobuf_c_message_unpack(type, NULL, bytes.len, bytes.data);
    CHECK(item);
    return item;
}

/* A unary request is the body of the request that a session carries. */
static void unary_requests_round_trip(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_request request = any_request();
        dkv_buf batch = {0};
        CHECK(dkv_wire_put_request(&batch, 7, &request) == 0);
        ProtobufCMessage *item = unpack_only_item(&batch, &dkv__v1__request__descriptor);
        const ProtobufCMessage *body = &((Dkv__V1__Request *)item)->get->base;
        size_t len = protobuf_c_message_get_packed_size(body);
        uint8_t *bytes = malloc(len);
        protobuf_c_message_pack(body, bytes);

        dkv_request back;
        void *scratch = NULL;
        dkv_slice slice = {bytes, len};
        CHECK(dkv_wire_get_unary_request(slice, request.op, &back, &scratch) == 0);
        CHECK(same_request(&request, &back));
        free(scratch);
        free(bytes);
        protobuf_c_message_free_unpacked(item, NULL);
        dkv_buf_free(&batch);
    }
}

/* A unary reply is the body of the reply that a session carries; so is the error trailer. */
static void unary_replies_are_session_bodies(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_op op = (dkv_op)(1 + below(3));
        dkv_reply reply = any_reply(op);
        dkv_buf batch = {0};
        dkv_buf unary = {0};
        CHECK(dkv_wire_put_reply(&batch, 7, op, &reply) == 0);
        CHECK((reply.err ? dkv_wire_put_error(&unary, &reply)
                         : dkv_wire_put_unary_reply(&unary, op, &reply)) == 0);
        ProtobufCMessage *item = unpack_only_item(&batch, &dkv__v1__reply__descriptor);
        const ProtobufCMessage *body = &((Dkv__V1__Reply *)item)->get->base;
        CHECK(protobuf_c_message_get_packed_size(body) == unary.len);
        uint8_t *bytes = malloc(unary.len ? unary.len : 1);
        protobuf_c_message_pack(body, bytes);
        CHECK(unary.len == 0 || memcmp(bytes, unary.data, unary.len) == 0);
        free(bytes);
        protobuf_c_message_free_unpacked(item, NULL);
        dkv_buf_free(&unary);
        dkv_buf_free(&batch);
    }
}

/* ---- damage ---- */

/* A batch of small items of one sort, for tests that try every byte of it. */
static void put_any_item(dkv_buf *out, uint64_t sort) {
    dkv_buf item = {0};
    do {
        item.len = 0;
        dkv_op op = (dkv_op)(1 + below(3));
        dkv_message message = any_message(kinds[sort % N_KINDS]);
        dkv_request request = any_request();
        dkv_reply reply = any_reply(op);
        int err = sort % 3 == 0   ? dkv_wire_put_message(&item, &message)
                  : sort % 3 == 1 ? dkv_wire_put_request(&item, 1, &request)
                                  : dkv_wire_put_reply(&item, 1, op, &reply);
        CHECK(err == 0);
    } while (item.len > 2000);
    CHECK(dkv_buf_append(out, dkv_buf_slice(&item)) == 0);
    dkv_buf_free(&item);
}

/* A batch cut off at any byte neither crashes the decoder nor delivers anything out of limits. */
static void truncated_batches_are_harmless(void) {
    throw_dice();
    for (uint64_t run = 0; run < 3 * N_KINDS; run++) {
        dkv_buf bytes = {0};
        put_any_item(&bytes, run);
        put_any_item(&bytes, run);
        for (size_t len = 0; len < bytes.len; len++) decode_all_ways(bytes.data, len);
        dkv_buf_free(&bytes);
    }
}

/* A cut inside an item is noticed; what stood before it is delivered. */
static void a_cut_item_is_refused(void) {
    throw_dice();
    for (uint64_t run = 0; run < N_KINDS; run++) {
        expected want = {.n = 1};
        want.messages[0] = any_message(kinds[run]);
        dkv_message second = any_message(DKV_MSG_HELLO);
        dkv_buf bytes = {0};
        CHECK(dkv_wire_put_message(&bytes, &want.messages[0]) == 0);
        size_t first_len = bytes.len;
        CHECK(dkv_wire_put_message(&bytes, &second) == 0);
        for (size_t len = first_len + 1; len < bytes.len; len++) {
            want.at = 0;
            dkv_slice cut = {bytes.data, len};
            CHECK(dkv_wire_each_message(cut, each_expected_message, &want) == DKV_ERR_PROTOCOL);
            CHECK(want.at == 1);
        }
        dkv_buf_free(&bytes);
    }
}

/* Flipped, overwritten, swapped and inserted bytes are harmless, too. */
static void damaged_batches_are_harmless(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs * 100; run++) {
        dkv_buf bytes = {0};
        put_any_item(&bytes, run);
        if (below(2)) put_any_item(&bytes, below(30));
        for (uint64_t hits = 1 + below(4); hits; hits--) {
            size_t at = (size_t)below(bytes.len);
            switch (below(3)) {
            case 0: bytes.data[at] ^= (uint8_t)(1u << below(8)); break;
            case 1: bytes.data[at] = (uint8_t)below(256); break;
            case 2: bytes.data[at] = bytes.data[below(bytes.len)]; break;
            }
        }
        decode_all_ways(bytes.data, bytes.len);
        dkv_buf_free(&bytes);
    }
}

/* Bytes that never were a batch are harmless. */
static void noise_is_harmless(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs * 100; run++) {
        dkv_slice bytes = any_bytes(0, 200);
        decode_all_ways(bytes.data + below(100000), bytes.len);
    }
}

/* ---- limits ---- */

static void each_unexpected_message(void *user, const dkv_message *message) {
    (void)user;
    (void)message;
    CHECK(false);
}

static void check_message_refused(const dkv_message *message) {
    dkv_buf bytes = {0};
    CHECK(dkv_wire_put_message(&bytes, message) == 0);
    CHECK(dkv_wire_each_message(dkv_buf_slice(&bytes), each_unexpected_message, NULL) ==
          DKV_ERR_PROTOCOL);
    dkv_buf_free(&bytes);
}

/* Every message whose contents break a limit is refused. */
static void messages_beyond_limits_are_refused(void) {
    throw_dice();
    const dkv_version version = {1, 1};
    const dkv_slice none = {0};
    const dkv_slice key = {noise, 3};
    const dkv_slice long_key = {noise, DKV_KEY_MAX + 1};
    const dkv_slice long_value = {noise, DKV_VALUE_MAX + 1};
    const uint64_t backwards[] = {2, 1}, same[] = {1, 1}, zeros[] = {0};
    const uint32_t too_many = DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX + 1;
    fill_numbers();
    const dkv_message bad[] = {
        {.kind = DKV_MSG_HELLO, .hello = {.cluster = none, .node_id = any_text(3, 3)}},
        {.kind = DKV_MSG_HELLO, .hello = {.cluster = any_text(3, 3), .node_id = none}},
        {.kind = DKV_MSG_HELLO_REPLY,
         .hello = {.cluster = any_text(3, 3), .node_id = any_text(3, 3), .err = -19}},
        {.kind = DKV_MSG_PONG, .pong = {.state = 1}},
        {.kind = DKV_MSG_APPLY, .apply = {.key = none, .version = version}},
        {.kind = DKV_MSG_APPLY, .apply = {.key = long_key, .version = version}},
        {.kind = DKV_MSG_APPLY, .apply = {.key = key, .value = long_value, .version = version}},
        {.kind = DKV_MSG_APPLY, .apply = {.key = key}},
        {.kind = DKV_MSG_APPLY, .apply = {.key = key, .version = version, .kind = 2}},
        {.kind = DKV_MSG_APPLY, .apply = {.key = key, .version = version, .kind = (dkv_kind)-1}},
        {.kind = DKV_MSG_APPLY,
         .apply = {.key = key, .value = key, .version = version, .kind = DKV_KIND_TOMBSTONE}},
        {.kind = DKV_MSG_APPLY_REPLY, .apply_reply = {.err = -999}},
        {.kind = DKV_MSG_APPLY_REPLY, .apply_reply = {.state = 5}},
        {.kind = DKV_MSG_FETCH, .fetch.key = long_key},
        {.kind = DKV_MSG_FETCH_REPLY, .fetch_reply = {.err = 0}},
        {.kind = DKV_MSG_FETCH_REPLY,
         .fetch_reply = {.record = {.version = version, .value = long_value}}},
        {.kind = DKV_MSG_FETCH_REPLY,
         .fetch_reply = {.record = {.version = version, .key = long_key}}},
        {.kind = DKV_MSG_FORWARD, .forward = {.op = DKV_OP_GET, .key = none}},
        {.kind = DKV_MSG_FORWARD, .forward = {.op = DKV_OP_GET, .key = key, .level = 4}},
        {.kind = DKV_MSG_FORWARD, .forward = {.op = DKV_OP_PUT, .key = key, .value = long_value}},
        {.kind = DKV_MSG_FORWARD,
         .forward = {.op = DKV_OP_GET, .key = key, .timeout_ms = DKV_TIMEOUT_MAX_MS + 1}},
        {.kind = DKV_MSG_FORWARD_REPLY, .forward_reply = {.value = long_value}},
        {.kind = DKV_MSG_FORWARD_REPLY, .forward_reply = {.err = -1, .outcome = 4}},
        {.kind = DKV_MSG_FORWARD_REPLY, .forward_reply = {.err = 1}},
        {.kind = DKV_MSG_SUMS, .sums = {0, 1, numbers[0]}},
        {.kind = DKV_MSG_SUMS, .sums = {1, 0, numbers[0]}},
        {.kind = DKV_MSG_SUMS, .sums = {1, DKV_SUMS_PARTS_MAX + 1, numbers[0]}},
        {.kind = DKV_MSG_SUMS, .sums = {DKV_SUMS_RANGES_MAX + 1, 1, numbers[0]}},
        {.kind = DKV_MSG_SUMS, .sums = {1, 1, backwards}},
        {.kind = DKV_MSG_SUMS_REPLY, .sums_reply = {too_many, numbers[2], numbers[2]}},
        {.kind = DKV_MSG_LIST_REPLY, .list_reply = {.n = 0, .more = true}},
        {.kind = DKV_MSG_LIST_REPLY, .list_reply = {2, false, backwards, same, same, same, sizes}},
        {.kind = DKV_MSG_LIST_REPLY, .list_reply = {2, false, same, same, same, same, sizes}},
        {.kind = DKV_MSG_LIST_REPLY, .list_reply = {1, false, same, same, zeros, zeros, sizes}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) check_message_refused(&bad[i]);
}

static void check_packed_refused(Dkv__V1__Message *message) {
    Dkv__V1__MessageBatch batch = DKV__V1__MESSAGE_BATCH__INIT;
    batch.n_messages = 1;
    batch.messages = &message;
    uint8_t bytes[4096];
    CHECK(dkv__v1__message_batch__get_packed_size(&batch) <= sizeof bytes);
    dkv_slice packed = {bytes, dkv__v1__message_batch__pack(&batch, bytes)};
    CHECK(dkv_wire_each_message(packed, each_unexpected_message, NULL) == DKV_ERR_PROTOCOL);
}

/* So are those that no dkv node could have encoded: missing parts, long names, long lists. */
static void messages_of_strange_make_are_refused(void) {
    Dkv__V1__Message message = DKV__V1__MESSAGE__INIT;
    check_packed_refused(&message); /* no body */

    Dkv__V1__Forward forward = DKV__V1__FORWARD__INIT;
    message.body_case = DKV__V1__MESSAGE__BODY_FORWARD;
    message.forward = &forward;
    check_packed_refused(&message); /* no request */
    Dkv__V1__Request request = DKV__V1__REQUEST__INIT;
    forward.request = &request;
    check_packed_refused(&message); /* a request without a body */

    char name[DKV_NAME_MAX + 2] = {0};
    memset(name, 'x', DKV_NAME_MAX + 1);
    Dkv__V1__Hello hello = DKV__V1__HELLO__INIT;
    hello.cluster = "demo";
    hello.node_id = name;
    message.body_case = DKV__V1__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    check_packed_refused(&message); /* a name of 65 bytes */

    char *names[] = {"a", "b", "c", "d", "e", "f"};
    Dkv__V1__PutReply put = DKV__V1__PUT_REPLY__INIT;
    put.n_replicas = DKV_REPLICATION_MAX + 1;
    put.replicas = names;
    Dkv__V1__Reply reply = DKV__V1__REPLY__INIT;
    message.body_case = DKV__V1__MESSAGE__BODY_FORWARD_REPLY;
    message.forward_reply = &reply;
    check_packed_refused(&message); /* a reply without a body */
    reply.body_case = DKV__V1__REPLY__BODY_PUT;
    reply.put = &put;
    check_packed_refused(&message); /* six replicas */

    char detail[DKV_DETAIL_MAX + 1] = {0};
    memset(detail, 'x', DKV_DETAIL_MAX);
    Dkv__V1__Error error = DKV__V1__ERROR__INIT;
    error.code = DKV_ERR_BUSY;
    error.message = detail;
    reply.body_case = DKV__V1__REPLY__BODY_ERROR;
    reply.error = &error;
    check_packed_refused(&message); /* a sentence as long as the buffer for it */

    Dkv__V1__FetchReply fetch = DKV__V1__FETCH_REPLY__INIT;
    Dkv__V1__Record record = DKV__V1__RECORD__INIT;
    fetch.err = DKV_ERR_NOT_FOUND;
    fetch.record = &record;
    message.body_case = DKV__V1__MESSAGE__BODY_FETCH_REPLY;
    message.fetch_reply = &fetch;
    check_packed_refused(&message); /* not found, and yet a record */
}

/* A client's request beyond the limits is delivered with its id, for the node to refuse. */
static void requests_beyond_limits_are_delivered(void) {
    throw_dice();
    const dkv_slice key = {noise, 3};
    const dkv_request bad[] = {
        {.op = DKV_OP_GET},
        {.op = DKV_OP_GET, .key = {noise, DKV_KEY_MAX + 1}},
        {.op = DKV_OP_PUT, .key = key, .value = {noise, DKV_VALUE_MAX + 1}},
        {.op = DKV_OP_GET, .key = key, .level = 4},
        {.op = DKV_OP_GET, .key = key, .level = (dkv_level)-1},
        {.op = DKV_OP_DELETE, .key = key, .timeout_ms = UINT32_MAX},
        {.op = 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        expected want = {.n = 1, .ids = {42}, .requests = {bad[i]}};
        CHECK(dkv_request_check(&bad[i], NULL) == DKV_ERR_INVALID);
        dkv_buf bytes = {0};
        CHECK(dkv_wire_put_request(&bytes, 42, &bad[i]) == 0);
        CHECK(dkv_wire_each_request(dkv_buf_slice(&bytes), each_expected_request, &want) == 0);
        CHECK(want.at == 1);
        dkv_buf_free(&bytes);
    }
}

/* An overlong sentence is cut on its way out, between two characters. */
static void details_are_cut(void) {
    uint8_t text[2 * DKV_DETAIL_MAX];
    for (size_t i = 0; i < sizeof text; i += 2) memcpy(text + i, "\xC3\xA9", 2);
    expected want = {.n = 1, .ids = {1}};
    want.replies[0] = (dkv_reply){.err = DKV_ERR_BUSY, .detail = {text, sizeof text}};
    dkv_buf bytes = {0};
    CHECK(dkv_wire_put_reply(&bytes, 1, DKV_OP_GET, &want.replies[0]) == 0);
    want.replies[0].detail.len = DKV_DETAIL_MAX - 2;
    CHECK(dkv_wire_each_reply(dkv_buf_slice(&bytes), each_expected_reply, &want) == 0);
    CHECK(want.at == 1);
    dkv_buf_free(&bytes);
}

/* Appends a field of bytes. */
static void put_field(dkv_buf *out, unsigned number, dkv_slice content) {
    uint8_t head[8] = {(uint8_t)(number << 3 | 2)};
    size_t n = 1;
    size_t len = content.len;
    for (; len >= 0x80; len >>= 7) head[n++] = (uint8_t)(len | 0x80);
    head[n++] = (uint8_t)len;
    CHECK(dkv_buf_append(out, (dkv_slice){head, n}) == 0);
    CHECK(dkv_buf_append(out, content) == 0);
}

/* A few bytes a piece do not grow into any amount of memory. */
static void memory_is_bounded(void) {
    dkv_buf body = {0}; /* a PutReply with a million replicas whose names are empty */
    CHECK(dkv_buf_reserve(&body, 2u << 20) == 0);
    for (; body.len < 2u << 20; body.len += 2) memcpy(body.data + body.len, "\x12\x00", 2);
    dkv_buf reply = {0};
    put_field(&reply, 3, dkv_buf_slice(&body));
    dkv_buf batch = {0};
    put_field(&batch, 1, dkv_buf_slice(&reply));
    CHECK(dkv_wire_each_reply(dkv_buf_slice(&batch), each_reply_within_limits, NULL) ==
          DKV_ERR_PROTOCOL);
    dkv_buf_free(&batch);
    dkv_buf_free(&reply);
    dkv_buf_free(&body);
}

/* A batch can be cut between any two items; damage stays with the part that has it. */
static void batches_are_cut_between_items(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs; run++) {
        expected want = {.n = 1 + (size_t)below(ITEMS_MAX)};
        dkv_buf bytes = {0};
        size_t ends[ITEMS_MAX + 1] = {0};
        for (size_t i = 0; i < want.n; i++) {
            want.messages[i] = any_message(kinds[below(N_KINDS)]);
            CHECK(dkv_wire_put_message(&bytes, &want.messages[i]) == 0);
            ends[i + 1] = bytes.len;
        }
        dkv_slice batch = dkv_buf_slice(&bytes);
        for (size_t i = 0; i <= want.n; i++) CHECK(dkv_wire_cut(batch, i) == ends[i]);
        CHECK(dkv_wire_cut(batch, want.n + 1) == bytes.len);
        batch.len--;
        CHECK(dkv_wire_cut(batch, want.n) == batch.len);
        CHECK(dkv_wire_cut(batch, want.n - 1) == ends[want.n - 1]);
        dkv_buf_free(&bytes);
    }
}

/* ---- newer versions ---- */

/* Fields that this program does not know are passed over, in a batch and in an item. */
static void unknown_fields_are_passed_over(void) {
    throw_dice();
    static const uint8_t unknown[] = {
        0xF8, 0x01, 0x96, 0x01,                       /* field 31, varint */
        0xF9, 0x01, 1,    2,    3,   4,   5, 6, 7, 8, /* field 31, fixed64 */
        0xFA, 0x01, 3,    'a',  'b', 'c',             /* field 31, bytes */
        0xFD, 0x01, 1,    2,    3,   4,               /* field 31, fixed32 */
    };
    for (size_t i = 0; i < N_KINDS; i++) {
        expected want = {.n = 1};
        want.messages[0] = any_message(kinds[i]);
        dkv_buf plain = {0};
        CHECK(dkv_wire_put_message(&plain, &want.messages[0]) == 0);
        dkv_buf bytes = {0};
        dkv_slice strange = {unknown, sizeof unknown};
        CHECK(dkv_buf_append(&bytes, strange) == 0);
        dkv_buf newer = {0};
        CHECK(dkv_buf_append(&newer, strange) == 0);
        CHECK(dkv_buf_append(&newer, only_item(&plain)) == 0);
        CHECK(dkv_buf_append(&newer, strange) == 0);
        put_field(&bytes, 1, dkv_buf_slice(&newer));
        CHECK(dkv_buf_append(&bytes, strange) == 0);
        CHECK(dkv_wire_each_message(dkv_buf_slice(&bytes), each_expected_message, &want) == 0);
        CHECK(want.at == 1);
        dkv_buf_free(&newer);
        dkv_buf_free(&bytes);
        dkv_buf_free(&plain);
    }
}

/* A lane is announced before, behind or without items, and items do not mind it. */
static void lanes_are_announced(void) {
    throw_dice();
    expected want = {.n = 1};
    want.messages[0] = any_message(DKV_MSG_HELLO);
    dkv_buf bytes = {0};
    CHECK(dkv_wire_put_lane(&bytes, 0x1122334455667788) == 0);
    CHECK(dkv_wire_get_lane(dkv_buf_slice(&bytes)) == 0x1122334455667788);
    CHECK(dkv_wire_put_message(&bytes, &want.messages[0]) == 0);
    CHECK(dkv_wire_get_lane(dkv_buf_slice(&bytes)) == 0x1122334455667788);
    CHECK(dkv_wire_each_message(dkv_buf_slice(&bytes), each_expected_message, &want) == 0);
    CHECK(want.at == 1);
    bytes.len = 0;
    CHECK(dkv_wire_put_message(&bytes, &want.messages[0]) == 0);
    CHECK(dkv_wire_get_lane(dkv_buf_slice(&bytes)) == 0);
    dkv_buf_free(&bytes);
}

/* ---- the cluster map ---- */

static dkv_cluster_map *any_map(void) {
    dkv_cluster_map *map = NULL;
    unsigned n = 1 + (unsigned)below(12);
    uint8_t replication = (uint8_t)(1 + below(n < DKV_REPLICATION_MAX ? n : DKV_REPLICATION_MAX));
    CHECK(dkv_cluster_map_new("demo", replication, &map) == 0);
    map->epoch = 1 + below(1000);
    while (map->n_members < n) {
        uint32_t indices[20];
        char id[16];
        char address[32];
        snprintf(id, sizeof id, "n%u", (unsigned)below(1000));
        snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)(1 + below(65535)));
        uint32_t index = 0;
        for (size_t i = 0; i < 20; i++) indices[i] = index += 1 + (uint32_t)below(500);
        dkv_member member = {
            .id = id,
            .address = address,
            .host = below(2) ? "h1" : NULL,
            .zone = below(2) ? "z1" : NULL,
            .token_name = below(2) ? "old" : NULL,
            .weight = (uint16_t)(1 + below(DKV_WEIGHT_MAX)),
            .token_indices = below(2) ? indices : NULL,
        };
        if (member.token_indices) member.n_token_indices = 1 + (uint32_t)below(20);
        dkv_cluster_map_add(map, &member); /* repeated ids are refused, and drawn again */
    }
    return map;
}

static void check_same_map(const dkv_cluster_map *a, const dkv_cluster_map *b) {
    CHECK(dkv_cluster_map_digest(a) == dkv_cluster_map_digest(b));
    CHECK(strcmp(a->cluster, b->cluster) == 0);
    CHECK(a->epoch == b->epoch && a->replication == b->replication && a->n_members == b->n_members);
    for (size_t i = 0; i < a->n_members; i++) {
        const dkv_member *m = &a->members[i];
        const dkv_member *n = &b->members[i];
        CHECK(strcmp(m->id, n->id) == 0 && strcmp(m->address, n->address) == 0);
        CHECK(strcmp(m->host, n->host) == 0 && strcmp(m->zone, n->zone) == 0);
        CHECK(strcmp(m->token_name, n->token_name) == 0 && m->weight == n->weight);
        CHECK(m->n_token_indices == n->n_token_indices);
        CHECK((m->token_indices == NULL) == (n->token_indices == NULL));
        size_t size = m->n_token_indices * sizeof *m->token_indices;
        CHECK(size == 0 || memcmp(m->token_indices, n->token_indices, size) == 0);
    }
}

/* A map comes back as it was, chosen token indices included. */
static void maps_round_trip(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_cluster_map *map = any_map();
        dkv_cluster_map *back = NULL;
        dkv_buf bytes = {0};
        CHECK(dkv_wire_put_map(&bytes, map) == 0);
        CHECK(dkv_wire_get_map(dkv_buf_slice(&bytes), &back) == 0);
        check_same_map(map, back);
        dkv_buf_free(&bytes);
        dkv_cluster_map_del(back);
        dkv_cluster_map_del(map);
    }
}

static void check_map_refused(const Dkv__V1__ClusterMap *map) {
    uint8_t bytes[4096];
    CHECK(dkv__v1__cluster_map__get_packed_size(map) <= sizeof bytes);
    dkv_slice packed = {bytes, dkv__v1__cluster_map__pack(map, bytes)};
    dkv_cluster_map *out = NULL;
    CHECK(dkv_wire_get_map(packed, &out) == DKV_ERR_PROTOCOL);
    CHECK(out == NULL);
}

/* A map from which no ring can be built is refused. */
static void malformed_maps_are_refused(void) {
    Dkv__V1__Member first = DKV__V1__MEMBER__INIT;
    Dkv__V1__Member second = DKV__V1__MEMBER__INIT;
    Dkv__V1__Member *members[] = {&first, &second};
    first.id = "a";
    second.id = "b";
    Dkv__V1__ClusterMap map = DKV__V1__CLUSTER_MAP__INIT;
    map.cluster = "demo";
    map.replication = 2;
    check_map_refused(&map); /* no members */
    map.n_members = 2;
    map.members = members;
    map.replication = 0;
    check_map_refused(&map);
    map.replication = 3;
    check_map_refused(&map); /* more than members */
    map.replication = 258;
    check_map_refused(&map); /* 2, if cut to a byte */
    map.replication = 2;
    second.id = "a";
    check_map_refused(&map); /* a repeated id */
    second.id = "b b";
    check_map_refused(&map);
    second.id = "b";
    second.weight = 65537;
    check_map_refused(&map); /* 1, if cut to 16 bits */
    second.weight = 1;
    uint32_t indices[] = {5, 5};
    second.n_token_indices = 2;
    second.token_indices = indices;
    check_map_refused(&map); /* repeated indices */
    second.n_token_indices = 0;
    map.cluster = "";
    check_map_refused(&map);
}

/* Damaged maps are harmless. */
static void damaged_maps_are_harmless(void) {
    throw_dice();
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_cluster_map *map = any_map();
        dkv_buf bytes = {0};
        CHECK(dkv_wire_put_map(&bytes, map) == 0);
        for (size_t i = 0; i < 20; i++) {
            size_t at = (size_t)below(bytes.len);
            uint8_t was = bytes.data[at];
            bytes.data[at] = (uint8_t)below(256);
            decode_all_ways(bytes.data, bytes.len);
            bytes.data[at] = was;
            decode_all_ways(bytes.data, at);
        }
        dkv_buf_free(&bytes);
        dkv_cluster_map_del(map);
    }
}

static const check_test tests[] = {
    CHECK_TEST(messages_round_trip),
    CHECK_TEST(requests_round_trip),
    CHECK_TEST(replies_round_trip),
    CHECK_TEST(unary_requests_round_trip),
    CHECK_TEST(unary_replies_are_session_bodies),
    CHECK_TEST(truncated_batches_are_harmless),
    CHECK_TEST(a_cut_item_is_refused),
    CHECK_TEST(damaged_batches_are_harmless),
    CHECK_TEST(noise_is_harmless),
    CHECK_TEST(messages_beyond_limits_are_refused),
    CHECK_TEST(messages_of_strange_make_are_refused),
    CHECK_TEST(requests_beyond_limits_are_delivered),
    CHECK_TEST(details_are_cut),
    CHECK_TEST(memory_is_bounded),
    CHECK_TEST(batches_are_cut_between_items),
    CHECK_TEST(unknown_fields_are_passed_over),
    CHECK_TEST(lanes_are_announced),
    CHECK_TEST(maps_round_trip),
    CHECK_TEST(malformed_maps_are_refused),
    CHECK_TEST(damaged_maps_are_harmless),
};

CHECK_MAIN(tests)
