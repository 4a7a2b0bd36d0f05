/* csrc/host: three real nodes with real sockets and files, on threads of this process. */
#include "admin.pb-c.h"
#include "host_fixture.h"

static uint8_t large[DKV_VALUE_MAX];

static dkv_slice large_value(size_t len) {
    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 31 + i / 251);
    return (dkv_slice){large, len};
}

static dkv_slice field_of_bytes(dkv_buf *out, unsigned number, const char *text) {
    uint8_t head[] = {(uint8_t)(number << 3 | 2), (uint8_t)strlen(text)};
    CHECK(dkv_buf_append(out, (dkv_slice){head, 2}) == DKV_OK);
    CHECK(dkv_buf_append(out, dkv_slice_of(text)) == DKV_OK);
    return dkv_buf_slice(out);
}

static bool contains(const dkv_buf *bytes, const char *text) {
    return bytes->len && memmem(bytes->data, bytes->len, text, strlen(text));
}

/* ---- unary calls ---- */

/* A put through any node is durable and can be read through every node. */
static void unary_calls_reach_every_node(void) {
    cluster *c = start_cluster();
    dkv_request first = put_of("first", dkv_slice_of("x"));
    insist(c, 0, &first);
    for (unsigned i = 0; i < NODES_MAX; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%u", i);
        dkv_buf put = {0};
        field_of_bytes(&put, 1, key);
        answer done = call(c, i, "/dkv.v1.KV/Put", field_of_bytes(&put, 2, "the value"));
        CHECK(done.err == DKV_OK);
        CHECK(contains(&done.bytes, "n1") && contains(&done.bytes, "n2") &&
              contains(&done.bytes, "n3"));
        dkv_buf_free(&done.bytes);
        for (unsigned k = 0; k < NODES_MAX; k++) {
            dkv_buf get = {0};
            answer got = call(c, k, "/dkv.v1.KV/Get", field_of_bytes(&get, 1, key));
            CHECK(got.err == DKV_OK && contains(&got.bytes, "the value"));
            dkv_buf_free(&got.bytes);
            dkv_buf_free(&get);
        }
        dkv_buf_free(&put);
    }
    end_cluster(c);
}

/* A unary error carries its code as gRPC's status, and the whole of it in the trailer. */
static void unary_errors_come_with_their_trailer(void) {
    cluster *c = start_cluster();
    dkv_request first = put_of("first", dkv_slice_of("x"));
    insist(c, 0, &first);
    answer empty = call(c, 0, "/dkv.v1.KV/Get", (dkv_slice){0});
    CHECK(empty.err == DKV_ERR_INVALID && strstr(empty.detail, "key"));
    CHECK(contains(&empty.bytes, "the key is empty"));
    dkv_buf_free(&empty.bytes);
    dkv_buf get = {0};
    answer missing = call(c, 1, "/dkv.v1.KV/Get", field_of_bytes(&get, 1, "nowhere"));
    CHECK(missing.err == DKV_ERR_NOT_FOUND);
    dkv_buf_free(&missing.bytes);
    dkv_buf_free(&get);
    answer garbage = call(c, 2, "/dkv.v1.KV/Put", dkv_slice_of("\xff\xff\xff"));
    CHECK(garbage.err == DKV_ERR_INVALID && garbage.bytes.len > 0);
    dkv_buf_free(&garbage.bytes);
    end_cluster(c);
}

/* Map is the map the cluster was started with; Status counts what was done and sees the others. */
static void map_and_status_tell_of_the_cluster(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, 0, &put);
    answer map = call(c, 1, "/dkv.v1.KV/Map", (dkv_slice){0});
    dkv_cluster_map *got = NULL;
    CHECK(map.err == DKV_OK && dkv_wire_get_map(dkv_buf_slice(&map.bytes), &got) == DKV_OK);
    CHECK(dkv_cluster_map_digest(got) == dkv_cluster_map_digest(c->map));
    for (unsigned i = 0; i < NODES_MAX; i++) {
        CHECK(strcmp(got->members[i].address, c->map->members[i].address) == 0);
    }
    dkv_cluster_map_del(got);
    dkv_buf_free(&map.bytes);
    answer status = call(c, 0, "/dkv.v1.Admin/Status", (dkv_slice){0});
    CHECK(status.err == DKV_OK);
    CHECK(contains(&status.bytes, "test") && contains(&status.bytes, "n1"));
    CHECK(contains(&status.bytes, c->map->members[2].address));
    dkv_buf_free(&status.bytes);
    end_cluster(c);
}

static Dkv__V1__SharesReply *shares_of(cluster *c, unsigned i, uint64_t first) {
    uint8_t bytes[16];
    Dkv__V1__SharesRequest request;
    dkv__v1__shares_request__init(&request);
    request.first = first;
    dkv_slice packed = {bytes, dkv__v1__shares_request__pack(&request, bytes)};
    answer a = call(c, i, "/dkv.v1.Admin/Shares", packed);
    CHECK(a.err == DKV_OK);
    Dkv__V1__SharesReply *reply = dkv__v1__shares_reply__unpack(NULL, a.bytes.len, a.bytes.data);
    CHECK(reply);
    dkv_buf_free(&a.bytes);
    return reply;
}

/* Where all nodes hold every key, Shares gives the whole ring, with the same digests from each, and
 * from any token on. */
static void shares_tell_what_a_node_holds(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, 0, &put);
    Dkv__V1__SharesReply *one = shares_of(c, 0, 0), *other = shares_of(c, 1, 0);
    uint64_t next = 0, records = 0;
    CHECK(one->n_shares == other->n_shares && !one->more);
    CHECK(one->map_digest == dkv_cluster_map_digest(c->map) && one->store_id != other->store_id);
    for (size_t i = 0; i < one->n_shares; i++) {
        const Dkv__V1__Share *a = one->shares[i], *b = other->shares[i];
        CHECK(a->first == next && a->first == b->first && a->last == b->last);
        CHECK(a->digest_low == b->digest_low && a->digest_high == b->digest_high);
        CHECK((a->digest_low != 0) == (a->records == 1));
        next = a->last + 1;
        records += a->records;
    }
    CHECK(next == 0 && records == 1);
    Dkv__V1__SharesReply *rest = shares_of(c, 0, one->shares[5]->last + 1);
    CHECK(rest->n_shares == one->n_shares - 6 && rest->shares[0]->first == one->shares[6]->first);
    dkv__v1__shares_reply__free_unpacked(rest, NULL);
    dkv__v1__shares_reply__free_unpacked(one, NULL);
    dkv__v1__shares_reply__free_unpacked(other, NULL);
    end_cluster(c);
}

/* ---- health ---- */

typedef struct watcher {
    dkv_rpc_stream *stream; /* NULL: closed */
    int err;                /* of its end */
    dkv_buf told;           /* all messages, one behind the other */
} watcher;

static void on_told(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    watcher *w = user;
    (void)stream;
    CHECK(dkv_buf_append(&w->told, bytes) == DKV_OK);
}

static void on_watch_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    watcher *w = user;
    (void)stream;
    (void)detail;
    w->stream = NULL;
    w->err = err;
}

static const dkv_rpc_stream_events watch_events = {.message = on_told, .closed = on_watch_closed};

/* Watches `service`; NULL: sends no request. */
static void watch(cluster *c, unsigned i, watcher *w, const char *service) {
    *w = (watcher){0};
    CHECK(dkv_rpc_stream_open(c->channels[i], "/grpc.health.v1.Health/Watch", &watch_events, w,
                              &w->stream) == DKV_OK);
    if (!service) return;
    dkv_buf request = {0};
    field_of_bytes(&request, 1, service);
    CHECK(dkv_rpc_stream_send_buf(w->stream, &request) == DKV_OK);
    dkv_rpc_stream_flush(w->stream);
}

static bool was_told(const watcher *w, const char *messages) {
    return dkv_slice_eq(dkv_buf_slice(&w->told), dkv_slice_of(messages));
}

#define SERVING "\x08\x01"
#define NOT_SERVING "\x08\x02"
#define SERVICE_UNKNOWN "\x08\x03"

/* Who watches a node is told that it serves, and that it does not any more, before it stops. */
static void watchers_are_told_of_a_stop(void) {
    cluster *c = new_cluster();
    start(c, 0);
    watcher all;
    watcher unknown;
    watch(c, 0, &all, "dkv.v1.KV");
    watch(c, 0, &unknown, "dkv.v2.KV");
    AWAIT(c, was_told(&all, SERVING) && was_told(&unknown, SERVICE_UNKNOWN));
    dkv_host_stop(c->machines[0].host);
    AWAIT(c, !all.stream && !unknown.stream);
    CHECK(all.err == DKV_OK && was_told(&all, SERVING NOT_SERVING));
    CHECK(unknown.err == DKV_OK && was_told(&unknown, SERVICE_UNKNOWN));
    dkv_buf_free(&all.told);
    dkv_buf_free(&unknown.told);
    CHECK(join_machine(&c->machines[0]) == DKV_OK);
    end_cluster(c);
}

/* A watcher that goes away is forgotten; one that does not say what it watches, twice says it, or
 * says what nobody understands, is refused. */
static void watchers_may_come_and_go(void) {
    cluster *c = new_cluster();
    start(c, 0);
    watcher w[4];
    for (unsigned i = 0; i < 4; i++) watch(c, 0, &w[i], i < 2 ? "" : NULL);
    AWAIT(c, was_told(&w[0], SERVING) && was_told(&w[1], SERVING));
    dkv_rpc_stream_cancel(w[0].stream);
    CHECK(dkv_rpc_stream_send(w[1].stream, dkv_slice_of("\x0a\x01x")) == DKV_OK);
    dkv_rpc_stream_flush(w[1].stream);
    dkv_rpc_stream_finish(w[2].stream);
    CHECK(dkv_rpc_stream_send(w[3].stream, dkv_slice_of("\xff\xff")) == DKV_OK);
    dkv_rpc_stream_flush(w[3].stream);
    for (unsigned i = 0; i < 4; i++) {
        AWAIT(c, !w[i].stream);
        CHECK(w[i].err == (i ? DKV_ERR_INVALID : DKV_ERR_CANCELLED));
        dkv_buf_free(&w[i].told);
    }
    end_cluster(c);
}

/* ---- sessions ---- */

/* Thousands of requests on one stream, good and bad ones mixed, are each answered by their id. */
static void requests_of_a_session_are_answered_by_id(void) {
    cluster *c = start_cluster();
    dkv_request first = put_of("first", dkv_slice_of("x"));
    insist(c, 0, &first);
    enum { N = 2000 };
    talk *t = open_talk(c, 0, NULL);
    char key[16];
    for (uint64_t id = 0; id < N; id++) {
        snprintf(key, sizeof key, "key%u", (unsigned)id);
        dkv_request put = put_of(key, dkv_slice_of(key));
        if (id % 10 == 9) put.key.len = 0;
        ask(t, id, &put);
    }
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies == N);
    for (uint64_t id = 0; id < N; id++) {
        bool bad = id % 10 == 9;
        CHECK(t->by_id[id].err == (bad ? DKV_ERR_INVALID : DKV_OK));
        CHECK(t->by_id[id].outcome == (bad ? DKV_OUTCOME_NOT_APPLIED : DKV_OUTCOME_APPLIED));
    }
    for (uint64_t id = 0; id < N; id++) {
        snprintf(key, sizeof key, "key%u", (unsigned)id);
        dkv_request get = get_of(key);
        ask(t, N + id, &get);
    }
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies == (size_t)2 * N);
    for (uint64_t id = 0; id < N; id++) {
        snprintf(key, sizeof key, "key%u", (unsigned)id);
        bool bad = id % 10 == 9;
        CHECK(t->by_id[N + id].err == (bad ? DKV_ERR_NOT_FOUND : DKV_OK));
        CHECK(bad || t->by_id[N + id].value_sum == dkv_checksum(dkv_slice_of(key), 0));
    }
    close_talk(c, t);
    end_cluster(c);
}

/* A client that sends nothing more gets the answers it is owed, and an end in order. */
static void a_session_ends_behind_its_last_answer(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, 0, &put);
    talk *t = open_talk(c, 1, NULL);
    for (uint64_t id = 0; id < 100; id++) ask(t, id, &put);
    dkv_rpc_stream_finish(t->stream);
    AWAIT(c, !t->stream);
    CHECK(t->err == DKV_OK && t->n_replies == 100);
    close_talk(c, t);
    end_cluster(c);
}

/* Bytes that are no batch end their own session, and no other. */
static void garbage_ends_its_own_session(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, 0, &put);
    talk *good = open_talk(c, 0, NULL);
    talk *bad = open_talk(c, 0, NULL);
    CHECK(dkv_rpc_stream_send(bad->stream, dkv_slice_of("\x0a\xff no batch")) == DKV_OK);
    dkv_rpc_stream_flush(bad->stream);
    AWAIT(c, !bad->stream);
    CHECK(bad->err == DKV_ERR_INVALID);
    ask(good, 0, &put);
    dkv_rpc_stream_flush(good->stream);
    AWAIT(c, good->n_replies == 1);
    CHECK(good->by_id[0].err == DKV_OK);
    close_talk(c, good);
    close_talk(c, bad);
    end_cluster(c);
}

/* How many gets node i has answered. */
static uint64_t gets_of(cluster *c, unsigned i) {
    answer a = call(c, i, "/dkv.v1.Admin/Status", (dkv_slice){0});
    CHECK(a.err == DKV_OK);
    Dkv__V1__StatusReply *status = dkv__v1__status_reply__unpack(NULL, a.bytes.len, a.bytes.data);
    CHECK(status);
    uint64_t gets = status->gets;
    dkv__v1__status_reply__free_unpacked(status, NULL);
    dkv_buf_free(&a.bytes);
    return gets;
}

/* A client that asks for far more than it reads is held up, and is answered once it reads. */
static void a_client_that_does_not_read_is_held_up(void) {
    enum { N = 800, LEN = 200000 }; /* 160 MB of answers */
    cluster *c = start_cluster();
    dkv_request put = put_of("key", large_value(LEN));
    insist(c, 0, &put);
    talk *t = open_talk(c, 0, NULL);
    dkv_rpc_stream_pause(t->stream, true);
    dkv_request get = get_of("key");
    for (uint64_t id = 0; id < N; id++) ask(t, id, &get);
    dkv_rpc_stream_flush(t->stream);
    int64_t pause_ns = now_ns() + 300 * (int64_t)1000000;
    AWAIT(c, now_ns() > pause_ns);
    CHECK(gets_of(c, 0) < N / 2);
    dkv_rpc_stream_pause(t->stream, false);
    AWAIT(c, t->n_replies == N);
    for (uint64_t id = 0; id < N; id++) CHECK(t->by_id[id].err == DKV_OK);
    close_talk(c, t);
    end_cluster(c);
}

/* So are those who put far more at once than a node will hold. */
static void large_puts_are_taken_as_they_can_be_answered(void) {
    enum { N = 24 };
    cluster *c = start_cluster();
    dkv_request put = put_of("key", large_value(sizeof large));
    insist(c, 0, &put);
    talk *talks[3];
    for (size_t k = 0; k < 3; k++) {
        talks[k] = open_talk(c, 0, NULL);
        for (uint64_t id = 0; id < N; id++) ask(talks[k], id, &put);
        dkv_rpc_stream_flush(talks[k]->stream);
    }
    for (size_t k = 0; k < 3; k++) {
        AWAIT(c, talks[k]->n_replies == N);
        for (uint64_t id = 0; id < N; id++) CHECK(talks[k]->by_id[id].err == DKV_OK);
        close_talk(c, talks[k]);
    }
    end_cluster(c);
}

/* ---- lanes ---- */

/* Of two sessions that announce one lane, the second carries the large replies to the requests of
 * both. A small reply comes on the first, or, if that waits for a request, on the one that asked.
 */
static void large_replies_take_the_large_lane(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("large", large_value(sizeof large));
    dkv_request put_small = put_of("small", dkv_slice_of("value"));
    insist(c, 0, &put);
    insist(c, 0, &put_small);
    dkv_request get = get_of("large");
    dkv_request get_small = get_of("small");
    talk *small = open_talk(c, 0, NULL);
    announce(small, 77);
    ask(small, 0, &get_small);
    dkv_rpc_stream_flush(small->stream);
    AWAIT(c, small->n_replies == 1);
    talk *big = open_talk(c, 0, small);
    announce(big, 77);
    ask(big, 1, &get_small);
    ask(big, 2, &get);
    dkv_rpc_stream_flush(big->stream);
    AWAIT(c, small->n_replies + big->n_replies == 3);
    ask(small, 3, &get);
    ask(small, 4, &get_small);
    dkv_rpc_stream_flush(small->stream);
    AWAIT(c, small->n_replies + big->n_replies == 5);
    CHECK(small->n_large == 0 && small->n_replies >= 2);
    CHECK(big->n_large == 2 && big->n_replies >= 2);
    CHECK(small->by_id[2].value_sum == dkv_checksum(large_value(sizeof large), 0));
    CHECK(small->by_id[3].value_sum == small->by_id[2].value_sum);
    dkv_rpc_stream_cancel(big->stream);
    AWAIT(c, !small->stream); /* the two end together */
    close_talk(c, small);
    close_talk(c, big);
    end_cluster(c);
}

/* A third stream of a pair is refused. */
static void a_pair_has_two_lanes(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, 0, &put);
    talk *lanes[3] = {0};
    for (unsigned i = 0; i < 3; i++) {
        lanes[i] = open_talk(c, 0, i ? lanes[0] : NULL);
        announce(lanes[i], 99);
        ask(lanes[i], i, &put);
        dkv_rpc_stream_flush(lanes[i]->stream);
        AWAIT(c, lanes[0]->by_id[i].answered || !lanes[i]->stream);
    }
    CHECK(lanes[0]->stream && lanes[1]->stream && !lanes[2]->stream);
    for (unsigned i = 3; i-- > 0;) close_talk(c, lanes[i]);
    end_cluster(c);
}

/* ---- a node played by hand: n3 ---- */

typedef struct fake_stream {
    dkv_rpc_stream *stream;
    uint64_t lane;  /* announced by its first message */
    size_t largest; /* message that came */
} fake_stream;

typedef struct fake {
    cluster *c;
    dkv_rpc_server *server;
    fake_stream in[8]; /* streams that nodes opened */
    size_t n_in;
    fake_stream out[2]; /* the lanes of a link to n1 */
    bool greeted;       /* n1 has answered the greeting on it */
    size_t n_fetched;
} fake;

static fake played;

static dkv_message hello_of(dkv_message_kind kind) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (dkv_message){
        .kind = kind,
        .hello = {.cluster = dkv_slice_of("test"),
                  .node_id = dkv_slice_of("n3"),
                  .epoch = 1,
                  .map_digest = dkv_cluster_map_digest(played.c->map),
                  .store_id = 33,
                  .in_sync = true,
                  .wall_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000},
    };
}

static void say(dkv_rpc_stream *stream, const dkv_message *message) {
    dkv_buf item = {0};
    CHECK(dkv_wire_put_message(&item, message) == DKV_OK);
    CHECK(dkv_rpc_stream_send(stream, dkv_buf_slice(&item)) == DKV_OK);
    dkv_rpc_stream_flush(stream);
    dkv_buf_free(&item);
}

/* Confirms whatever it is asked to store, always on the first stream of the link. */
static void on_fake_message(void *user, const dkv_message *message) {
    const fake_stream *stream = user;
    dkv_message reply = {.id = message->id};
    switch (message->kind) {
    case DKV_MSG_HELLO: reply = hello_of(DKV_MSG_HELLO_REPLY); break;
    case DKV_MSG_PING: reply.kind = DKV_MSG_PONG; break;
    case DKV_MSG_APPLY: reply.kind = DKV_MSG_APPLY_REPLY; break;
    case DKV_MSG_HELLO_REPLY:
        CHECK(message->hello.err == DKV_OK);
        played.greeted = true;
        return;
    case DKV_MSG_FETCH_REPLY:
        CHECK(message->fetch_reply.err == DKV_OK);
        played.n_fetched++;
        return;
    default: return;
    }
    for (size_t i = 0; i < played.n_in; i++) {
        if (played.in[i].lane != stream->lane) continue;
        say(played.in[i].stream, &reply);
        return;
    }
}

static void on_fake_bytes(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    fake_stream *fs = user;
    (void)stream;
    if (!fs->lane) fs->lane = dkv_wire_get_lane(bytes);
    if (bytes.len > fs->largest) fs->largest = bytes.len;
    CHECK(dkv_wire_each_message(bytes, on_fake_message, fs) == DKV_OK);
}

static void on_fake_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    fake_stream *fs = user;
    (void)stream;
    (void)err;
    (void)detail;
    fs->stream = NULL;
}

static const dkv_rpc_stream_events fake_events = {
    .message = on_fake_bytes,
    .closed = on_fake_closed,
};

static void *fake_accept(void *user, dkv_rpc_stream *stream) {
    (void)user;
    CHECK(played.n_in < sizeof played.in / sizeof *played.in);
    fake_stream *fs = &played.in[played.n_in++];
    fs->stream = stream;
    return fs;
}

static const dkv_rpc_method fake_methods[] = {
    {.path = "/dkv.v1.Peer/Exchange", .accept = fake_accept, .events = &fake_events},
};

static void play_n3(cluster *c) {
    uint16_t port;
    played = (fake){.c = c};
    CHECK(dkv_rpc_server_new(c->loop, c->map->members[2].address, 0, fake_methods, 1, NULL,
                             &played.server, &port) == DKV_OK);
}

static void open_fake_lane(fake_stream *fs) {
    CHECK(dkv_rpc_stream_open(played.c->channels[0], "/dkv.v1.Peer/Exchange", &fake_events, fs,
                              &fs->stream) == DKV_OK);
    dkv_buf item = {0};
    fs->lane = 55;
    CHECK(dkv_wire_put_lane(&item, fs->lane) == DKV_OK);
    CHECK(dkv_rpc_stream_send(fs->stream, dkv_buf_slice(&item)) == DKV_OK);
    dkv_rpc_stream_flush(fs->stream);
    dkv_buf_free(&item);
}

static void end_fake(void) {
    for (size_t i = 0; i < 2; i++) {
        if (played.out[i].stream) dkv_rpc_stream_cancel(played.out[i].stream);
        AWAIT(played.c, !played.out[i].stream);
    }
    dkv_rpc_server_del(played.server);
}

/* A node sends its large requests to another on the second stream of the link, and its small ones,
 * the greeting above all, on the first. */
static void nodes_ask_on_two_lanes(void) {
    cluster *c = new_cluster();
    play_n3(c);
    start(c, 0);
    start(c, 1);
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, 0, &put);
    dkv_request put_large = put_of("large", large_value(sizeof large));
    insist(c, 0, &put_large);
    insist(c, 0, &put);
    const fake_stream *small = NULL;
    const fake_stream *big = NULL;
    for (size_t i = 0; i < played.n_in; i++) {
        if (played.in[i].largest > DKV_WIRE_LARGE) big = &played.in[i];
    }
    CHECK(big && big->lane);
    for (size_t i = 0; i < played.n_in; i++) {
        if (&played.in[i] != big && played.in[i].lane == big->lane) small = &played.in[i];
    }
    CHECK(small && small < big && small->stream && big->stream);
    end_fake();
    end_cluster(c);
}

/* A node answers on the second stream, if there is one, what is large. */
static void nodes_answer_on_two_lanes(void) {
    cluster *c = new_cluster();
    play_n3(c);
    start(c, 0);
    start(c, 1);
    dkv_request put = put_of("large", large_value(sizeof large));
    insist(c, 0, &put);
    dkv_message hello = hello_of(DKV_MSG_HELLO);
    dkv_message fetch = {.kind = DKV_MSG_FETCH, .id = 1, .fetch.key = dkv_slice_of("large")};
    open_fake_lane(&played.out[0]);
    say(played.out[0].stream, &hello);
    AWAIT(c, played.greeted);
    say(played.out[0].stream, &fetch);
    AWAIT(c, played.n_fetched == 1);
    CHECK(played.out[0].largest > DKV_WIRE_LARGE); /* there is only one lane yet */
    played.out[0].largest = 0;
    open_fake_lane(&played.out[1]);
    say(played.out[1].stream, &fetch);
    AWAIT(c, played.n_fetched == 2);
    say(played.out[0].stream, &fetch);
    AWAIT(c, played.n_fetched == 3);
    CHECK(played.out[0].largest < DKV_WIRE_LARGE && played.out[1].largest > DKV_WIRE_LARGE);
    dkv_rpc_stream_cancel(played.out[1].stream);
    AWAIT(c, !played.out[0].stream); /* the two end together */
    end_fake();
    end_cluster(c);
}

/* The largest values pass between all nodes, many at a time, on one session without lanes. */
static void large_values_pass_between_nodes(void) {
    enum { N = 24 };
    cluster *c = start_cluster();
    dkv_request first = put_of("first", dkv_slice_of("x"));
    insist(c, 0, &first);
    talk *t = open_talk(c, 0, NULL);
    char key[16];
    for (uint64_t id = 0; id < N; id++) {
        snprintf(key, sizeof key, "key%u", (unsigned)id);
        dkv_request put = put_of(key, large_value(sizeof large - (size_t)id));
        ask(t, id, &put);
    }
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies == N);
    for (unsigned i = 1; i < NODES_MAX; i++) {
        talk *other = open_talk(c, i, NULL);
        for (uint64_t id = 0; id < N; id++) {
            snprintf(key, sizeof key, "key%u", (unsigned)id);
            dkv_request get = get_of(key);
            get.level = DKV_LEVEL_ALL;
            CHECK(t->by_id[id].err == DKV_OK);
            ask(other, id, &get);
        }
        dkv_rpc_stream_flush(other->stream);
        AWAIT(c, other->n_replies == N);
        for (uint64_t id = 0; id < N; id++) {
            CHECK(other->by_id[id].err == DKV_OK);
            dkv_slice value = large_value(sizeof large - (size_t)id);
            CHECK(other->by_id[id].value_sum == dkv_checksum(value, 0));
        }
        close_talk(c, other);
    }
    close_talk(c, t);
    end_cluster(c);
}

/* ---- stopping and failing ---- */

/* A node that is stopped answers every request that it took, and keeps what it confirmed. */
static void a_stop_answers_what_is_under_way(void) {
    enum { N = 500 };
    cluster *c = start_cluster();
    dkv_request first = put_of("first", dkv_slice_of("x"));
    insist(c, 0, &first);
    talk *t = open_talk(c, 0, NULL);
    char key[16];
    for (uint64_t id = 0; id < N; id++) {
        snprintf(key, sizeof key, "key%u", (unsigned)id);
        dkv_request put = put_of(key, dkv_slice_of(key));
        ask(t, id, &put);
        if (id % 50 == 0) dkv_rpc_stream_flush(t->stream);
    }
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies > 0);
    dkv_host_stop(c->machines[0].host);
    AWAIT(c, !t->stream);
    CHECK(t->err == DKV_OK);
    CHECK(join_machine(&c->machines[0]) == DKV_OK);
    start(c, 0);
    insist(c, 0, &first);
    talk *again = open_talk(c, 0, NULL);
    size_t confirmed = 0;
    for (uint64_t id = 0; id < N; id++) {
        CHECK(!t->by_id[id].answered || t->by_id[id].err == DKV_OK ||
              t->by_id[id].outcome == DKV_OUTCOME_NOT_APPLIED);
        if (!t->by_id[id].answered || t->by_id[id].err) continue;
        confirmed++;
        snprintf(key, sizeof key, "key%u", (unsigned)id);
        dkv_request get = get_of(key);
        ask(again, id, &get);
    }
    dkv_rpc_stream_flush(again->stream);
    AWAIT(c, again->n_replies == confirmed);
    for (uint64_t id = 0; id < N; id++) CHECK(again->by_id[id].err == DKV_OK);
    close_talk(c, again);
    close_talk(c, t);
    end_cluster(c);
}

/* After a sync that failed the node confirms nothing more, and ends with IO. */
static void a_failed_sync_ends_the_node(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, 0, &put);
    talk *t = open_talk(c, 1, NULL);
    ask(t, 0, &put);
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies == 1);
    atomic_store(&c->machines[1].syncs_fail, true);
    /* A put that is refused for a slow peer's sake does not reach the disk: asked again. */
    for (size_t id = 1; id < 20 && t->stream && !atomic_load(&c->machines[1].ended); id++) {
        ask(t, id, &put);
        dkv_rpc_stream_flush(t->stream);
        AWAIT(c, t->n_replies == id + 1 || atomic_load(&c->machines[1].ended) || !t->stream);
    }
    AWAIT(c, atomic_load(&c->machines[1].ended));
    CHECK(join_machine(&c->machines[1]) == DKV_ERR_IO);
    AWAIT(c, !t->stream);
    for (size_t id = 1; id < 20; id++) CHECK(!t->by_id[id].answered || t->by_id[id].err);
    atomic_store(&c->machines[1].syncs_fail, false);
    start(c, 1);
    insist(c, 1, &put);
    close_talk(c, t);
    end_cluster(c);
}

/* Lets the syncs of a node fail and puts; returns whether that was confirmed before the node ended.
 * It is not, if a sync of earlier writes was still to come. */
static bool is_confirmed_before_its_sync(cluster *c, unsigned i) {
    dkv_request put = put_of("key", dkv_slice_of("value"));
    insist(c, i, &put); /* synced at once, the next one is not */
    atomic_store(&c->machines[i].syncs_fail, true);
    talk *t = open_talk(c, i, NULL);
    ask(t, 0, &put);
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies == 1 || !t->stream || atomic_load(&c->machines[i].ended));
    bool confirmed = t->n_replies == 1 && t->by_id[0].err == DKV_OK;
    AWAIT(c, atomic_load(&c->machines[i].ended));
    CHECK(join_machine(&c->machines[i]) == DKV_ERR_IO);
    atomic_store(&c->machines[i].syncs_fail, false);
    close_talk(c, t);
    return confirmed;
}

/* With an interval a put is confirmed before its sync, which then comes by itself: that it fails
 * ends the node. */
static void an_interval_syncs_by_itself(void) {
    cluster *c = new_cluster();
    c->durability = DKV_DURABILITY_INTERVAL;
    c->interval_ms = 1000;
    for (unsigned i = 0; i < NODES_MAX; i++) start(c, i);
    for (int tries = 0; !is_confirmed_before_its_sync(c, 1); tries++) {
        CHECK(tries < 10);
        start(c, 1);
    }
    end_cluster(c);
}

/* The answer of one node to one request. */
static int answer_of(cluster *c, unsigned i, const dkv_request *request) {
    talk *t = open_talk(c, i, NULL);
    ask(t, 0, request);
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies == 1);
    int err = t->by_id[0].err;
    close_talk(c, t);
    return err;
}

/* A node that keeps everything in memory comes back empty; it fetches what the others hold, and is
 * believed again when it has. */
static void a_node_in_memory_is_filled_again(void) {
    cluster *c = new_cluster();
    c->durability = DKV_DURABILITY_MEMORY;
    for (unsigned i = 0; i < NODES_MAX; i++) start(c, i);
    dkv_request put = put_of("key", dkv_slice_of("value"));
    dkv_request other = put_of("other", dkv_slice_of("value"));
    dkv_request get = get_of("key"), miss = get_of("absent");
    insist(c, 0, &put);
    CHECK(answer_of(c, 2, &miss) == DKV_ERR_NOT_FOUND);
    CHECK(stop(c, 2) == DKV_OK);
    start(c, 2);
    insist(c, 0, &other); /* taken by all three: it is back */
    CHECK(answer_of(c, 2, &get) == DKV_OK);
    CHECK(answer_of(c, 2, &miss) == DKV_ERR_NOT_FOUND); /* the others say so */
    get.level = miss.level = DKV_LEVEL_ALL;             /* only replicas in sync count */
    insist(c, 0, &get);
    while (answer_of(c, 0, &miss) == DKV_ERR_UNAVAILABLE) continue;
    get.level = miss.level = DKV_LEVEL_ONE;
    CHECK(stop(c, 0) == DKV_OK && stop(c, 1) == DKV_OK);
    CHECK(answer_of(c, 2, &get) == DKV_OK);
    CHECK(answer_of(c, 2, &miss) == DKV_ERR_NOT_FOUND);
    end_cluster(c);
}

/* With one node gone reads go on; when it is back, so do writes to all. */
static void a_node_that_comes_back_is_used_again(void) {
    cluster *c = start_cluster();
    dkv_request put = put_of("key", dkv_slice_of("value"));
    dkv_request get = get_of("key");
    insist(c, 0, &put);
    CHECK(stop(c, 2) == DKV_OK);
    talk *t = open_talk(c, 0, NULL);
    ask(t, 0, &get);
    ask(t, 1, &put);
    dkv_request quorum = put;
    quorum.level = DKV_LEVEL_QUORUM;
    ask(t, 2, &quorum);
    dkv_rpc_stream_flush(t->stream);
    AWAIT(c, t->n_replies == 3);
    CHECK(t->by_id[0].err == DKV_OK);
    CHECK(t->by_id[1].err == DKV_ERR_UNAVAILABLE && t->by_id[1].outcome != DKV_OUTCOME_APPLIED);
    CHECK(t->by_id[2].err == DKV_OK);
    start(c, 2);
    insist(c, 0, &put);
    close_talk(c, t);
    end_cluster(c);
}

/* ---- beginning ---- */

/* A node does not start on an address or a directory that it cannot have, and says which. */
static void what_cannot_be_had_is_refused(void) {
    cluster *c = new_cluster();
    start(c, 0);
    char why[DKV_DETAIL_MAX];
    dkv_host *host = NULL;

    dkv_host_options options = options_of(c, 0);
    options.listen = "127.0.0.1:0";
    CHECK(dkv_host_new(&options, &host, why) == DKV_ERR_LOCKED);
    CHECK(strstr(why, c->machines[0].dir));

    options = options_of(c, 1);
    options.listen = c->map->members[0].address;
    CHECK(dkv_host_new(&options, &host, why) == DKV_ERR_UNAVAILABLE);
    CHECK(strstr(why, options.listen));
    CHECK(access(options.data_dir, F_OK) != 0); /* nothing is left behind */

    const char *open_addresses[] = {"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "nowhere.invalid:0"};
    for (size_t i = 0; i < 4; i++) {
        options.listen = open_addresses[i];
        CHECK(dkv_host_new(&options, &host, why) == DKV_ERR_PERMISSION);
        CHECK(strstr(why, options.listen));
    }
    options.listen = "0.0.0.0:0";
    options.insecure = true;
    CHECK(dkv_host_new(&options, &host, why) == DKV_OK);
    CHECK(dkv_host_port(host) != 0);
    dkv_host_del(host);

    options = options_of(c, 1);
    options.id = "n9";
    CHECK(dkv_host_new(&options, &host, why) == DKV_ERR_INVALID && strstr(why, "n9"));

    options = options_of(c, 2);
    options.data_dir = c->machines[1].dir; /* where n1 was a moment ago */
    CHECK(dkv_host_new(&options, &host, why) == DKV_ERR_PRECONDITION);
    CHECK(strstr(why, options.data_dir));
    end_cluster(c);
}

static const check_test tests[] = {
    CHECK_TEST(unary_calls_reach_every_node),
    CHECK_TEST(unary_errors_come_with_their_trailer),
    CHECK_TEST(map_and_status_tell_of_the_cluster),
    CHECK_TEST(shares_tell_what_a_node_holds),
    CHECK_TEST(watchers_are_told_of_a_stop),
    CHECK_TEST(watchers_may_come_and_go),
    CHECK_TEST(requests_of_a_session_are_answered_by_id),
    CHECK_TEST(a_session_ends_behind_its_last_answer),
    CHECK_TEST(garbage_ends_its_own_session),
    CHECK_TEST(a_client_that_does_not_read_is_held_up),
    CHECK_TEST(large_puts_are_taken_as_they_can_be_answered),
    CHECK_TEST(large_replies_take_the_large_lane),
    CHECK_TEST(a_pair_has_two_lanes),
    CHECK_TEST(nodes_ask_on_two_lanes),
    CHECK_TEST(nodes_answer_on_two_lanes),
    CHECK_TEST(large_values_pass_between_nodes),
    CHECK_TEST(a_stop_answers_what_is_under_way),
    CHECK_TEST(a_failed_sync_ends_the_node),
    CHECK_TEST(an_interval_syncs_by_itself),
    CHECK_TEST(a_node_in_memory_is_filled_again),
    CHECK_TEST(a_node_that_comes_back_is_used_again),
    CHECK_TEST(what_cannot_be_had_is_refused),
};

CHECK_MAIN(tests)
