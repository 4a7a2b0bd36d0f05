/* Bytes from peers and clients: whatever decodes keeps the limits of model/, and goes through the
 * codec again without a change. The first byte chooses what the rest is taken for. */
#include "base/err.h"
#include "fuzz.h"
#include "wire/wire.h"

/* What decoding has delivered. */
typedef struct sink {
    dkv_buf *again; /* NULL, or where each item is encoded to */
    size_t items;
} sink;

/* ---- the limits, stated once more ---- */

static void check_names(const dkv_node_names *names) {
    FUZZ_CHECK(names->n <= DKV_REPLICATION_MAX);
    for (unsigned i = 0; i < names->n; i++) {
        FUZZ_CHECK(names->ids[i].len >= 1 && names->ids[i].len <= DKV_NAME_MAX);
    }
}

static void check_err(int err) {
    FUZZ_CHECK(dkv_err_name(err)[0] != '?');
}

static void check_reply(const dkv_reply *reply) {
    check_err(reply->err);
    check_names(&reply->holding);
    check_names(&reply->missing);
    FUZZ_CHECK(reply->value.len <= DKV_VALUE_MAX);
    FUZZ_CHECK(reply->detail.len < DKV_DETAIL_MAX);
    FUZZ_CHECK((unsigned)reply->outcome <= DKV_OUTCOME_UNKNOWN);
}

static void check_record(const dkv_record *record, size_t min_key, size_t max_key) {
    FUZZ_CHECK(record->key.len >= min_key && record->key.len <= max_key);
    FUZZ_CHECK(record->value.len <= DKV_VALUE_MAX);
    FUZZ_CHECK(record->kind == DKV_KIND_VALUE || record->value.len == 0);
    FUZZ_CHECK(!dkv_version_is_none(record->version));
}

static void check_hello(const dkv_hello *hello) {
    FUZZ_CHECK(hello->cluster.len >= 1 && hello->cluster.len <= DKV_NAME_MAX);
    FUZZ_CHECK(hello->node_id.len >= 1 && hello->node_id.len <= DKV_NAME_MAX);
    check_err(hello->err);
    check_err(hello->state);
}

static void check_message(const dkv_message *message) {
    switch (message->kind) {
    case DKV_MSG_HELLO:
    case DKV_MSG_HELLO_REPLY: check_hello(&message->hello); return;
    case DKV_MSG_PING: return;
    case DKV_MSG_PONG: check_err(message->pong.state); return;
    case DKV_MSG_APPLY: check_record(&message->apply, 1, DKV_KEY_MAX); return;
    case DKV_MSG_APPLY_REPLY:
        check_err(message->apply_reply.err);
        check_err(message->apply_reply.state);
        return;
    case DKV_MSG_FETCH: FUZZ_CHECK(message->fetch.key.len <= DKV_KEY_MAX); return;
    case DKV_MSG_FETCH_REPLY:
        check_err(message->fetch_reply.err);
        if (message->fetch_reply.err == 0)
            check_record(&message->fetch_reply.record, 0, DKV_KEY_MAX);
        return;
    case DKV_MSG_FORWARD: FUZZ_CHECK(dkv_request_check(&message->forward, NULL) == 0); return;
    case DKV_MSG_FORWARD_REPLY: check_reply(&message->forward_reply); return;
    case DKV_MSG_SUMS:
        FUZZ_CHECK(message->sums.n >= 1 && message->sums.n <= DKV_SUMS_RANGES_MAX);
        FUZZ_CHECK(message->sums.parts >= 1 && message->sums.parts <= DKV_SUMS_PARTS_MAX);
        return;
    case DKV_MSG_SUMS_REPLY:
        FUZZ_CHECK(message->sums_reply.n <= DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX);
        return;
    case DKV_MSG_LIST: return;
    case DKV_MSG_LIST_REPLY:
        FUZZ_CHECK(message->list_reply.n <= DKV_LIST_MAX);
        FUZZ_CHECK(message->list_reply.n > 0 || !message->list_reply.more);
        return;
    }
    FUZZ_CHECK(false);
}

/* ---- one item, decoded ---- */

static void on_message(void *user, const dkv_message *message) {
    sink *s = user;
    s->items++;
    check_message(message);
    if (s->again) FUZZ_CHECK(dkv_wire_put_message(s->again, message) == DKV_OK);
}

static void on_request(void *user, uint64_t id, const dkv_request *request) {
    sink *s = user;
    char why[DKV_DETAIL_MAX] = "";
    s->items++;
    if (dkv_request_check(request, why)) FUZZ_CHECK(why[0]);
    if (s->again) FUZZ_CHECK(dkv_wire_put_request(s->again, id, request) == DKV_OK);
}

static dkv_op op_of(const dkv_reply *reply) {
    return reply->outcome == DKV_OUTCOME_NONE ? DKV_OP_GET : DKV_OP_PUT;
}

static void on_reply(void *user, uint64_t id, const dkv_reply *reply) {
    sink *s = user;
    s->items++;
    check_reply(reply);
    if (s->again) FUZZ_CHECK(dkv_wire_put_reply(s->again, id, op_of(reply), reply) == DKV_OK);
}

/* ---- batches ---- */

enum { MESSAGES, REQUESTS, REPLIES, UNARY, MAP, FORMATS };

static int decode(unsigned format, dkv_slice batch, sink *to) {
    switch (format) {
    case MESSAGES: return dkv_wire_each_message(batch, on_message, to);
    case REQUESTS: return dkv_wire_each_request(batch, on_request, to);
    default: return dkv_wire_each_reply(batch, on_reply, to);
    }
}

/* Cutting gives two batches that together hold the items. */
static void check_cuts(unsigned format, dkv_slice batch, size_t items) {
    for (size_t want = 0; want <= items + 1 && want < 5; want++) {
        size_t at = dkv_wire_cut(batch, want);
        sink first = {0}, second = {0};
        FUZZ_CHECK(at <= batch.len);
        FUZZ_CHECK(decode(format, (dkv_slice){batch.data, at}, &first) == DKV_OK);
        FUZZ_CHECK(decode(format, (dkv_slice){batch.data + at, batch.len - at}, &second) == DKV_OK);
        FUZZ_CHECK(first.items == (want < items ? want : items));
        FUZZ_CHECK(first.items + second.items == items);
    }
}

static void check_batch(unsigned format, dkv_slice batch) {
    dkv_buf once = {0}, twice = {0};
    sink first = {.again = &once}, second = {.again = &twice};
    int err = decode(format, batch, &first);
    FUZZ_CHECK(err == DKV_OK || err == DKV_ERR_PROTOCOL);
    FUZZ_CHECK(decode(format, dkv_buf_slice(&once), &second) == DKV_OK);
    FUZZ_CHECK(first.items == second.items);
    FUZZ_CHECK(dkv_slice_eq(dkv_buf_slice(&once), dkv_buf_slice(&twice)));
    if (!err) check_cuts(format, batch, first.items);
    dkv_wire_cut(batch, 2);
    if (dkv_wire_get_lane(batch) != 0) FUZZ_CHECK(batch.len >= 9);
    dkv_buf_free(&once);
    dkv_buf_free(&twice);
}

/* ---- what is not a batch ---- */

static void check_unary(dkv_slice bytes) {
    dkv_op op = (dkv_op)(DKV_OP_GET + fuzz_below(&bytes, 3));
    dkv_request request;
    void *scratch = NULL;
    int err = dkv_wire_get_unary_request(bytes, op, &request, &scratch);
    FUZZ_CHECK(err == DKV_OK || err == DKV_ERR_PROTOCOL || err == DKV_ERR_NO_MEMORY);
    if (err) {
        FUZZ_CHECK(!scratch);
        return;
    }
    sink alone = {0};
    dkv_buf batch = {0};
    FUZZ_CHECK(request.op == op);
    FUZZ_CHECK(dkv_wire_put_request(&batch, 1, &request) == DKV_OK);
    FUZZ_CHECK(dkv_wire_each_request(dkv_buf_slice(&batch), on_request, &alone) == DKV_OK);
    FUZZ_CHECK(alone.items == 1);
    dkv_buf_free(&batch);
    free(scratch);
}

static void check_map(dkv_slice bytes) {
    dkv_cluster_map *map = NULL, *again = NULL;
    dkv_buf once = {0}, twice = {0};
    int err = dkv_wire_get_map(bytes, &map);
    FUZZ_CHECK(err == DKV_OK || err == DKV_ERR_PROTOCOL);
    if (err) return;
    FUZZ_CHECK(dkv_cluster_map_check(map, NULL, 0) == DKV_OK);
    FUZZ_CHECK(dkv_wire_put_map(&once, map) == DKV_OK);
    FUZZ_CHECK(dkv_wire_get_map(dkv_buf_slice(&once), &again) == DKV_OK);
    FUZZ_CHECK(dkv_wire_put_map(&twice, again) == DKV_OK);
    FUZZ_CHECK(dkv_slice_eq(dkv_buf_slice(&once), dkv_buf_slice(&twice)));
    FUZZ_CHECK(dkv_cluster_map_digest(map) == dkv_cluster_map_digest(again));
    dkv_cluster_map_del(map);
    dkv_cluster_map_del(again);
    dkv_buf_free(&once);
    dkv_buf_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dkv_slice in = {data, size};
    unsigned format = fuzz_below(&in, FORMATS);
    switch (format) {
    case UNARY: check_unary(in); break;
    case MAP: check_map(in); break;
    default: check_batch(format, in);
    }
    return 0;
}

/* ---- seeds: what nodes and clients do send ---- */

static dkv_buf seed;

static void begin(uint8_t format) {
    seed.len = 0;
    FUZZ_CHECK(dkv_buf_append(&seed, (dkv_slice){&format, 1}) == DKV_OK);
}

static void seed_messages(void) {
    dkv_record record = {
        .key = dkv_slice_of("key"), .value = dkv_slice_of("value"), .version = {77, 5}};
    dkv_hello hello = {
        .cluster = dkv_slice_of("c"),
        .node_id = dkv_slice_of("n1"),
        .epoch = 1,
        .map_digest = 2,
        .replication = 3,
        .n_members = 5,
        .store_id = 3,
        .remembers = 4,
        .in_sync = true,
        .wall_ms = 5,
    };
    dkv_request put = {.op = DKV_OP_PUT, .key = record.key, .value = record.value};
    dkv_reply reply = {
        .outcome = DKV_OUTCOME_APPLIED, .version = {8, 9}, .holding = {1, {put.key}}};
    static const uint64_t numbers[] = {1, 2, 3};
    static const uint32_t sizes[] = {160, 321};
    const dkv_message messages[] = {
        {.kind = DKV_MSG_HELLO, .hello = hello},
        {.kind = DKV_MSG_HELLO_REPLY, .hello = hello},
        {.kind = DKV_MSG_PING, .id = 1},
        {.kind = DKV_MSG_PONG, .id = 1, .pong = {.wall_ms = 123456, .state = DKV_ERR_BUSY}},
        {.kind = DKV_MSG_APPLY, .id = 2, .apply = record},
        {.kind = DKV_MSG_APPLY_REPLY, .id = 2, .apply_reply.err = DKV_ERR_NO_SPACE},
        {.kind = DKV_MSG_FETCH, .id = 3, .fetch.key = record.key},
        {.kind = DKV_MSG_FETCH, .id = 5, .fetch = {.hash = {1, 2}, .version_only = true}},
        {.kind = DKV_MSG_SUMS, .id = 6, .sums = {1, 16, numbers}},
        {.kind = DKV_MSG_SUMS_REPLY, .id = 6, .sums_reply = {3, numbers, numbers}},
        {.kind = DKV_MSG_LIST, .id = 7, .list = {{1, 2}, 3}},
        {.kind = DKV_MSG_LIST_REPLY,
         .id = 7,
         .list_reply = {2, true, numbers, numbers, numbers, numbers, sizes}},
        {.kind = DKV_MSG_FETCH_REPLY, .id = 3, .fetch_reply.err = DKV_ERR_NOT_FOUND},
        {.kind = DKV_MSG_FORWARD, .id = 4, .forward = put},
        {.kind = DKV_MSG_FORWARD_REPLY, .id = 4, .forward_reply = reply},
    };
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        begin(MESSAGES);
        for (size_t k = 0; k <= i; k += i ? i : 1) {
            FUZZ_CHECK(dkv_wire_put_message(&seed, &messages[k]) == DKV_OK);
        }
        fuzz_seed(dkv_buf_slice(&seed));
    }
}

static void seed_requests(void) {
    for (dkv_op op = DKV_OP_GET; op <= DKV_OP_DELETE; op++) {
        dkv_request request = {.op = op,
                               .level = DKV_LEVEL_QUORUM,
                               .timeout_ms = 500,
                               .last_seen = {3, 4},
                               .key = dkv_slice_of("a key"),
                               .value = dkv_slice_of("a value")};
        begin(REQUESTS);
        FUZZ_CHECK(dkv_wire_put_request(&seed, 7, &request) == DKV_OK);
        FUZZ_CHECK(dkv_wire_put_lane(&seed, 99) == DKV_OK);
        fuzz_seed(dkv_buf_slice(&seed));
        /* The body of that request, without the headers around it. */
        uint8_t unary[] = {UNARY, (uint8_t)(op - DKV_OP_GET), 10, 3, 'k', 'e', 'y', 16, 2, 24, 50};
        fuzz_seed((dkv_slice){unary, sizeof unary});
    }
}

static void seed_replies(void) {
    dkv_slice name = dkv_slice_of("n1");
    dkv_reply reply = {.version = {3, 4}, .holding = {5, {name, name, name, name, name}}};
    dkv_reply failed = {.err = DKV_ERR_UNAVAILABLE,
                        .outcome = DKV_OUTCOME_UNKNOWN,
                        .missing = {1, {dkv_slice_of("n3")}},
                        .detail = dkv_slice_of("n3 is down")};
    for (dkv_op op = DKV_OP_GET; op <= DKV_OP_DELETE; op++) {
        begin(REPLIES);
        FUZZ_CHECK(dkv_wire_put_reply(&seed, 1, op, &reply) == DKV_OK);
        FUZZ_CHECK(dkv_wire_put_reply(&seed, 2, op, &failed) == DKV_OK);
        fuzz_seed(dkv_buf_slice(&seed));
    }
}

static void seed_map(void) {
    dkv_cluster_map *map;
    uint32_t tokens[] = {0, 1, 5, 9};
    FUZZ_CHECK(dkv_cluster_map_new("demo", 2, &map) == DKV_OK);
    const dkv_member members[] = {
        {.id = "n1", .address = "127.0.0.1:7001", .zone = "east", .weight = 3},
        {.id = "n2", .host = "m2", .token_indices = tokens, .n_token_indices = 4},
        {.id = "n3", .token_name = "old"},
    };
    for (int i = 0; i < 3; i++) FUZZ_CHECK(dkv_cluster_map_add(map, &members[i]) == DKV_OK);
    begin(MAP);
    FUZZ_CHECK(dkv_wire_put_map(&seed, map) == DKV_OK);
    fuzz_seed(dkv_buf_slice(&seed));
    dkv_cluster_map_del(map);
}

static void seeds(void) {
    seed_messages();
    seed_requests();
    seed_replies();
    seed_map();
    dkv_buf_free(&seed);
}

FUZZ_TARGET
