/* What csrc/rpc costs: an echo server and a client, each a process of its own.
 *
 * Usage: bench_rpc [seconds per case [stream|unary [operations outstanding]]]. A case prints
 * operations per second, CPU microseconds per operation on either side, and the times of one
 * operation that half and 99 % do not exceed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "rpc/rpc.h"

#define ITEM_LEN 100
#define SAMPLES_MAX 2000000u
#define OUTSTANDING_MAX 1024u

#define STREAM_METHOD "/bench/Stream"
#define UNARY_METHOD "/bench/Unary"
#define CPU_METHOD "/bench/Cpu"

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t cpu_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (int64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
           used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static void must(int err, const char *what) {
    if (!err) return;
    fprintf(stderr, "bench_rpc: %s: %s\n", what, dkv_err_name(err));
    exit(1);
}

/* ---- the server's process ---- */

static dkv_rpc_stream *answered; /* the stream that the round's answers wait in */

static void echo_items(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    (void)user;
    /* Item by item, as a node would answer. */
    for (size_t at = 0; at < bytes.len; at += ITEM_LEN) {
        must(dkv_rpc_stream_send(stream, (dkv_slice){bytes.data + at, ITEM_LEN}), "echo");
    }
    answered = stream;
}

static void forget_stream(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    (void)user;
    (void)err;
    (void)detail;
    if (answered == stream) answered = NULL;
}

static const dkv_rpc_stream_events server_events = {.message = echo_items, .closed = forget_stream};

static void *accept_stream(void *user, dkv_rpc_stream *stream) {
    (void)stream;
    return user;
}

static void echo_call(void *user, dkv_rpc_call *call, dkv_slice request, uint32_t timeout_ms) {
    (void)user;
    (void)timeout_ms;
    dkv_rpc_call_reply(call, DKV_OK, "", request);
}

static void tell_cpu(void *user, dkv_rpc_call *call, dkv_slice request, uint32_t timeout_ms) {
    (void)user;
    (void)request;
    (void)timeout_ms;
    int64_t used = cpu_us();
    dkv_rpc_call_reply(call, DKV_OK, "", (dkv_slice){(const uint8_t *)&used, sizeof used});
}

static void serve(int port_pipe) {
    static const dkv_rpc_method methods[] = {
        {.path = STREAM_METHOD, .accept = accept_stream, .events = &server_events},
        {.path = UNARY_METHOD, .unary = echo_call},
        {.path = CPU_METHOD, .unary = tell_cpu},
    };
    dkv_rpc_loop *loop;
    dkv_rpc_server *server;
    uint16_t port;
    must(dkv_rpc_loop_new(&loop), "loop");
    must(dkv_rpc_server_new(loop, "127.0.0.1:0", 0, methods, 3, NULL, &server, &port), "server");
    if (write(port_pipe, &port, sizeof port) != (ssize_t)sizeof port) exit(1);
    for (;;) {
        dkv_rpc_loop_poll(loop, INT64_MAX, 256);
        if (answered) dkv_rpc_stream_flush(answered);
        answered = NULL;
    }
}

/* ---- the client ---- */

typedef struct bench {
    dkv_rpc_loop *loop;
    dkv_rpc_channel *channel;
    dkv_rpc_stream *stream; /* NULL: unary calls */
    unsigned outstanding;   /* wanted */
    bool stopping;          /* start no further calls */
    bool answered;          /* the server told its CPU time */
    uint64_t done;
    unsigned in_flight;
    int64_t started_ns[OUTSTANDING_MAX]; /* of the operations in flight, a ring in order */
    unsigned first;
    uint32_t *times_ns;
    size_t n_times;
    int64_t server_cpu_us;
} bench;

static const uint8_t item[ITEM_LEN];

static void ended(bench *b) {
    if (b->n_times < SAMPLES_MAX) {
        b->times_ns[b->n_times++] = (uint32_t)(now_ns() - b->started_ns[b->first]);
    }
    b->first = (b->first + 1) % OUTSTANDING_MAX;
    b->in_flight--;
    b->done++;
}

static void on_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    (void)stream;
    for (size_t at = 0; at < bytes.len; at += ITEM_LEN) ended(user);
}

static void on_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    (void)stream;
    (void)detail;
    if (err != DKV_ERR_CANCELLED) must(err, "stream");
    ((bench *)user)->stream = NULL;
}

static const dkv_rpc_stream_events client_events = {.message = on_message, .closed = on_closed};

static void start_one(bench *b);

/* Starts the next call at once: refilled in rounds, client and server would take turns. */
static void on_reply(void *user, int err, const char *detail, dkv_slice bytes) {
    (void)detail;
    (void)bytes;
    must(err, "call");
    bench *b = user;
    ended(b);
    if (!b->stopping) start_one(b);
}

static void start_one(bench *b) {
    b->started_ns[(b->first + b->in_flight++) % OUTSTANDING_MAX] = now_ns();
    dkv_slice bytes = {item, ITEM_LEN};
    if (b->stream) {
        must(dkv_rpc_stream_send(b->stream, bytes), "send");
    } else {
        must(dkv_rpc_unary(b->channel, UNARY_METHOD, bytes, 10000, on_reply, b), "unary");
    }
}

static void run_until(bench *b, int64_t until_ns) {
    b->stopping = false;
    while (now_ns() < until_ns) {
        while (b->in_flight < b->outstanding) start_one(b);
        if (b->stream) dkv_rpc_stream_flush(b->stream);
        dkv_rpc_loop_poll(b->loop, until_ns, 256);
    }
    b->stopping = true;
    while (b->in_flight > 0) dkv_rpc_loop_poll(b->loop, INT64_MAX, 256);
}

static void on_cpu(void *user, int err, const char *detail, dkv_slice bytes) {
    (void)detail;
    must(err, "cpu");
    memcpy(&((bench *)user)->server_cpu_us, bytes.data, sizeof(int64_t));
    ((bench *)user)->answered = true;
}

static int64_t ask_server_cpu(bench *b) {
    b->answered = false;
    must(dkv_rpc_unary(b->channel, CPU_METHOD, (dkv_slice){0}, 10000, on_cpu, b), "cpu");
    while (!b->answered) dkv_rpc_loop_poll(b->loop, INT64_MAX, 1);
    return b->server_cpu_us;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void run_case(bench *b, bool stream, unsigned outstanding, double s) {
    b->outstanding = outstanding;
    if (stream) {
        must(dkv_rpc_stream_open(b->channel, STREAM_METHOD, &client_events, b, &b->stream), "open");
    }
    run_until(b, now_ns() + (int64_t)(s * 2e8)); /* warm up */
    b->done = 0;
    b->n_times = 0;
    int64_t server_before = ask_server_cpu(b);
    int64_t client_before = cpu_us();
    int64_t begun = now_ns();
    run_until(b, begun + (int64_t)(s * 1e9));
    double took_s = (double)(now_ns() - begun) / 1e9;
    double client = (double)(cpu_us() - client_before);
    double server = (double)(ask_server_cpu(b) - server_before);
    double n = (double)b->done;
    qsort(b->times_ns, b->n_times, sizeof *b->times_ns, by_size);
    printf(
        "%-8s %5u outstanding: %9.0f op/s, CPU us/op %6.2f client %6.2f server, p50 %6.1f us, "
        "p99 %6.1f us\n",
        stream ? "stream" : "unary", outstanding, n / took_s, client / n, server / n,
        b->times_ns[b->n_times / 2] / 1e3, b->times_ns[b->n_times * 99 / 100] / 1e3);
    fflush(stdout);
    if (b->stream) dkv_rpc_stream_cancel(b->stream);
    while (b->stream) dkv_rpc_loop_poll(b->loop, INT64_MAX, 1);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 2;
    int port_pipe[2];
    if (pipe(port_pipe)) return 1;
    pid_t server = fork(); /* before gRPC begins: it does not survive a fork */
    if (server == 0) serve(port_pipe[1]);
    uint16_t port;
    if (server < 0 || read(port_pipe[0], &port, sizeof port) != (ssize_t)sizeof port) return 1;
    static bench b;
    b.times_ns = calloc(SAMPLES_MAX, sizeof *b.times_ns);
    if (!b.times_ns) return 1;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    must(dkv_rpc_loop_new(&b.loop), "loop");
    must(dkv_rpc_channel_new(b.loop, address, &b.channel), "channel");
    const char *kind = argc > 2 ? argv[2] : NULL;
    unsigned outstanding = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
    for (int stream = 1; stream >= 0; stream--) {
        if (kind && strcmp(kind, stream ? "stream" : "unary") != 0) continue;
        for (unsigned n = 1; n <= OUTSTANDING_MAX; n *= 4) {
            if (!outstanding || n == outstanding) run_case(&b, stream, n, seconds);
        }
    }
    dkv_rpc_channel_del(b.channel);
    dkv_rpc_loop_del(b.loop);
    free(b.times_ns);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return 0;
}
