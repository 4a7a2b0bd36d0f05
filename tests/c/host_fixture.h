/* What the tests of csrc/host share: a cluster of real nodes, each on a thread of this process, and
 * a client that speaks the protocol by hand. */
#ifndef DKV_TESTS_HOST_FIXTURE_H
#define DKV_TESTS_HOST_FIXTURE_H

#include <arpa/inet.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "check.h"
#include "host/internal.h"
#include "tsan_quiet.h"

#define NODES_MAX 3u
#define PATIENCE_S 60 /* after so long a wait has failed */

/* ---- nodes ---- */

typedef struct machine {
    char id[8];
    char dir[64];
    int port_holder; /* bound, not listening: nobody else is given the port */
    dkv_host *host;  /* NULL: not running */
    pthread_t thread;
    int result; /* of dkv_host_run */
    atomic_bool ended;
    atomic_bool syncs_fail;
} machine;

typedef struct cluster {
    dkv_cluster_map *map;
    machine machines[NODES_MAX];
    char dir[32];
    dkv_durability durability;
    uint32_t interval_ms;
    dkv_rpc_loop *loop; /* the client's */
    dkv_rpc_channel *channels[NODES_MAX];
} cluster;

static inline void quiet(void *user, const dkv_notice *notice) {
    const machine *m = user;
    if (getenv("DKV_TEST_LOG"))
        fprintf(stderr, "%s: [%d] %s\n", m->id, notice->level, notice->text);
}

static inline int sync_fault(void *user, const dkv_disk_job *job) {
    machine *m = user;
    bool of_log = job->op == DKV_DISK_SYNC && job->file.kind == DKV_FILE_SEGMENT;
    return of_log && atomic_load(&m->syncs_fail) ? DKV_ERR_IO : DKV_OK;
}

static inline void *run_machine(void *user) {
    machine *m = user;
    m->result = dkv_host_run(m->host);
    atomic_store(&m->ended, true);
    return NULL;
}

static inline dkv_host_options options_of(cluster *c, unsigned i) {
    return (dkv_host_options){
        .map = c->map,
        .id = c->machines[i].id,
        .data_dir = c->machines[i].dir,
        .timing = {.silence_ms = 30000}, /* sanitizers and busy machines are slow, not dead */
        .durability = c->durability,
        .interval_ms = c->interval_ms,
        .log = quiet,
        .log_user = &c->machines[i],
    };
}

static inline void start(cluster *c, unsigned i) {
    machine *m = &c->machines[i];
    dkv_host_options options = options_of(c, i);
    char why[DKV_DETAIL_MAX];
    CHECK(dkv_host_new(&options, &m->host, why) == DKV_OK);
    dkv_disk_set_fault(m->host->disk, sync_fault, m);
    atomic_store(&m->ended, false);
    CHECK(pthread_create(&m->thread, NULL, run_machine, m) == 0);
}

/* Waits for the end of its run, and frees it. */
static inline int join_machine(machine *m) {
    pthread_join(m->thread, NULL);
    dkv_host_del(m->host);
    m->host = NULL;
    return m->result;
}

static inline int stop(cluster *c, unsigned i) {
    dkv_host_stop(c->machines[i].host);
    return join_machine(&c->machines[i]);
}

static inline int hold_port(uint16_t *port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static inline void add_machine(cluster *c, unsigned i) {
    machine *m = &c->machines[i];
    char address[32];
    uint16_t port;
    snprintf(m->id, sizeof m->id, "n%u", i + 1);
    snprintf(m->dir, sizeof m->dir, "%s/%s", c->dir, m->id);
    m->port_holder = hold_port(&port);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    dkv_member member = {.id = m->id, .address = address};
    CHECK(dkv_cluster_map_add(c->map, &member) == DKV_OK);
    CHECK(dkv_rpc_channel_new(c->loop, address, &c->channels[i]) == DKV_OK);
}

/* A cluster of three that all hold every key. It is static, as tests end by longjmp. */
static inline cluster *new_cluster(void) {
    static cluster c;
    c = (cluster){.dir = "/tmp/dkv-test-XXXXXX"};
    CHECK(mkdtemp(c.dir));
    CHECK(dkv_rpc_loop_new(&c.loop) == DKV_OK);
    CHECK(dkv_cluster_map_new("test", NODES_MAX, &c.map) == DKV_OK);
    c.map->epoch = 1;
    for (unsigned i = 0; i < NODES_MAX; i++) add_machine(&c, i);
    return &c;
}

static inline cluster *start_cluster(void) {
    cluster *c = new_cluster();
    for (unsigned i = 0; i < NODES_MAX; i++) start(c, i);
    return c;
}

static inline int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info;
    (void)kind;
    (void)at;
    return remove(path);
}

static inline void end_cluster(cluster *c) {
    for (unsigned i = 0; i < NODES_MAX; i++) {
        if (c->machines[i].host) CHECK(stop(c, i) == DKV_OK);
        dkv_rpc_channel_del(c->channels[i]);
        close(c->machines[i].port_holder);
    }
    dkv_rpc_loop_del(c->loop);
    dkv_cluster_map_del(c->map);
    nftw(c->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- waiting ---- */

static inline int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Handles what comes in until `condition` holds. */
#define AWAIT(c, condition)                                                      \
    do {                                                                         \
        int64_t limit_ns = now_ns() + PATIENCE_S * (int64_t)1000000000;          \
        while (!(condition)) {                                                   \
            CHECK(now_ns() < limit_ns);                                          \
            dkv_rpc_loop_poll((c)->loop, now_ns() + 10 * (int64_t)1000000, 256); \
        }                                                                        \
    } while (0)

/* ---- unary calls ---- */

typedef struct answer {
    bool done;
    int err;
    char detail[DKV_DETAIL_MAX];
    dkv_buf bytes;
} answer;

static inline void on_answer(void *user, int err, const char *detail, dkv_slice bytes) {
    answer *a = user;
    a->err = err;
    snprintf(a->detail, sizeof a->detail, "%s", detail);
    CHECK(dkv_buf_append(&a->bytes, bytes) == DKV_OK);
    a->done = true;
}

/* Calls `method` of node i; the answer's bytes are the caller's. */
static inline answer call(cluster *c, unsigned i, const char *method, dkv_slice request) {
    answer a = {0};
    CHECK(dkv_rpc_unary(c->channels[i], method, request, 10000, on_answer, &a) == DKV_OK);
    AWAIT(c, a.done);
    return a;
}

/* ---- sessions ---- */

#define IDS_MAX 65536u

typedef struct talk {
    dkv_rpc_stream *stream; /* NULL: closed */
    int err;                /* of its end */
    size_t n_replies;
    size_t n_large;      /* of more than DKV_WIRE_LARGE bytes */
    struct talk *ids_of; /* whose table the replies go into: a pair shares one */
    struct {
        bool answered;
        int err;
        dkv_outcome outcome;
        size_t value_len;
        uint64_t value_sum;
    } by_id[IDS_MAX];
} talk;

static inline void on_reply(void *user, uint64_t id, const dkv_reply *reply) {
    talk *t = user;
    talk *of = t->ids_of;
    CHECK(id < IDS_MAX && !of->by_id[id].answered);
    of->by_id[id].answered = true;
    of->by_id[id].err = reply->err;
    of->by_id[id].outcome = reply->outcome;
    of->by_id[id].value_len = reply->value.len;
    of->by_id[id].value_sum = dkv_checksum(reply->value, 0);
    t->n_replies++;
    t->n_large += reply->value.len > DKV_WIRE_LARGE;
}

static inline void on_talk_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    (void)stream;
    CHECK(dkv_wire_each_reply(bytes, on_reply, user) == DKV_OK);
}

static inline void on_talk_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    talk *t = user;
    (void)stream;
    (void)detail;
    t->stream = NULL;
    t->err = err;
}

static const dkv_rpc_stream_events talk_events = {
    .message = on_talk_message,
    .closed = on_talk_closed,
};

/* Opens a session with node i. `pair_of` (may be NULL) is the other one of its pair. */
static inline talk *open_talk(cluster *c, unsigned i, talk *pair_of) {
    talk *t = calloc(1, sizeof *t);
    CHECK(t);
    t->ids_of = pair_of ? pair_of : t;
    CHECK(dkv_rpc_stream_open(c->channels[i], "/dkv.v1.KV/Session", &talk_events, t, &t->stream) ==
          DKV_OK);
    return t;
}

static inline void announce(talk *t, uint64_t lane) {
    dkv_buf item = {0};
    CHECK(dkv_wire_put_lane(&item, lane) == DKV_OK);
    CHECK(dkv_rpc_stream_send(t->stream, dkv_buf_slice(&item)) == DKV_OK);
    dkv_buf_free(&item);
}

static inline void ask(talk *t, uint64_t id, const dkv_request *request) {
    dkv_buf item = {0};
    CHECK(dkv_wire_put_request(&item, id, request) == DKV_OK);
    CHECK(dkv_rpc_stream_send(t->stream, dkv_buf_slice(&item)) == DKV_OK);
    dkv_buf_free(&item);
}

static inline void close_talk(cluster *c, talk *t) {
    if (t->stream) dkv_rpc_stream_cancel(t->stream);
    AWAIT(c, !t->stream);
    free(t);
}

static inline dkv_request put_of(const char *key, dkv_slice value) {
    return (dkv_request){
        .op = DKV_OP_PUT, .timeout_ms = 60000, .key = dkv_slice_of(key), .value = value};
}

static inline dkv_request get_of(const char *key) {
    return (dkv_request){.op = DKV_OP_GET, .timeout_ms = 60000, .key = dkv_slice_of(key)};
}

/* Asks one thing on a session of its own, until it succeeds: nodes that have just started may have
 * to find each other first. */
static inline void insist(cluster *c, unsigned i, const dkv_request *request) {
    talk *t = open_talk(c, i, NULL);
    for (uint64_t id = 0;; id++) {
        ask(t, id, request);
        dkv_rpc_stream_flush(t->stream);
        AWAIT(c, t->by_id[id].answered || !t->stream);
        CHECK(t->stream);
        if (t->by_id[id].err == DKV_OK) break;
        CHECK(t->by_id[id].err == DKV_ERR_UNAVAILABLE);
        CHECK(id < 1000);
        int64_t pause_ns = now_ns() + 10 * (int64_t)1000000;
        AWAIT(c, now_ns() > pause_ns);
    }
    close_talk(c, t);
}

#endif
