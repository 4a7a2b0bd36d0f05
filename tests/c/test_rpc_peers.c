/* csrc/rpc against peers that die, freeze, do not answer, or do not speak its language.
 *
 * Processes are started as this program with --serve or --client: gRPC does not survive a fork. */
#include <arpa/inet.h>
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/slice_buffer.h>
#include <grpc/support/time.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc_fixture.h"

#define TIMEOUT_MS 60000u

extern char **environ;

/* ---- processes ---- */

/* --serve PORT: an echo server; writes its port to standard output. */
static int serve_main(const char *port) {
    static server s;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%s", port);
    pattern(0);
    server_open(&s, address);
    if (write(STDOUT_FILENO, &s.port, sizeof s.port) != (ssize_t)sizeof s.port) return 1;
    for (;;) server_round(&s);
}

/* --client PORT: keeps a stream of items and a call that nobody answers. */
static int client_main(const char *port) {
    client_open((uint16_t)atoi(port));
    static end e;
    static answer a;
    open_end(&e, ECHO_STREAM);
    CHECK(dkv_rpc_unary(channel, UNARY, dkv_slice_of("w"), TIMEOUT_MS, keep_answer, &a) == 0);
    for (uint32_t i = 0; e.stream; i++) {
        send_item(&e, i, 1000);
        dkv_rpc_stream_flush(e.stream);
        WAIT(e.items > i || e.closed);
    }
    return 0;
}

static pid_t spawn(const char *mode, const char *argument, int output) {
    char *argv[] = {"/proc/self/exe", (char *)mode, (char *)argument, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (output >= 0) posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    pid_t pid = -1;
    int failed = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    CHECK(!failed);
    return pid;
}

/* Starts a server process; *port is the port wanted (0: any) and then the one it has. */
static pid_t spawn_server(uint16_t *port) {
    int fds[2];
    char text[8];
    snprintf(text, sizeof text, "%u", *port);
    CHECK(pipe(fds) == 0);
    pid_t pid = spawn("--serve", text, fds[1]);
    close(fds[1]);
    CHECK(read(fds[0], port, sizeof *port) == (ssize_t)sizeof *port);
    close(fds[0]);
    return pid;
}

static pid_t spawn_client(uint16_t port) {
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    return spawn("--client", text, -1);
}

static void reap(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void freeze(pid_t pid) {
    kill(pid, SIGSTOP);
    int status;
    waitpid(pid, &status, WUNTRACED);
    CHECK(WIFSTOPPED(status));
}

/* ---- death ---- */

/* A killed server ends streams and calls as UNAVAILABLE; its successor is found by itself. */
static void a_killed_server_is_unavailable(void) {
    uint16_t port = 0;
    pid_t pid = spawn_server(&port);
    client_open(port);
    end e;
    static answer waiting;
    waiting = (answer){0};
    open_end(&e, ECHO_STREAM);
    CHECK(dkv_rpc_unary(channel, UNARY, dkv_slice_of("w"), TIMEOUT_MS, keep_answer, &waiting) == 0);
    send_item(&e, 0, 100);
    dkv_rpc_stream_flush(e.stream);
    WAIT(e.items == 1);
    reap(pid);
    WAIT(e.closed && waiting.calls);
    CHECK(e.err == DKV_ERR_UNAVAILABLE && waiting.err == DKV_ERR_UNAVAILABLE);
    dkv_buf_free(&waiting.bytes);
    pid = spawn_server(&port);
    answer a;
    do {
        a = call_and_wait(UNARY, dkv_slice_of("e"), TIMEOUT_MS);
        dkv_buf_free(&a.bytes);
    } while (a.err == DKV_ERR_UNAVAILABLE);
    CHECK(a.err == DKV_OK);
    client_close();
    reap(pid);
}

typedef struct counts {
    uint32_t items;
    unsigned held;
    unsigned closed;
} counts;

static void count(server *s, void *arg) {
    counts *c = arg;
    *c = (counts){.held = s->n_held};
    for (unsigned i = 0; i < s->n_ends; i++) {
        c->items += s->ends[i]->items;
        c->closed += s->ends[i]->closed;
    }
}

static counts wait_for_traffic(server *s) {
    counts c = {0};
    for (int i = 0; i < 6000 && (c.items < 10 || c.held == 0); i++) {
        usleep(10000);
        server_do(s, count, &c);
    }
    CHECK(c.items >= 10 && c.held == 1);
    return c;
}

static void answer_held(server *s, void *arg) {
    (void)arg;
    while (s->n_held > 0) dkv_rpc_call_reply(s->held[--s->n_held], DKV_OK, "", (dkv_slice){0});
}

/* A killed client closes its streams at the server; answering its calls then is harmless. */
static void a_killed_client_is_noticed(void) {
    server *s = server_start();
    pid_t pid = spawn_client(s->port);
    counts c = wait_for_traffic(s);
    reap(pid);
    for (int i = 0; i < 6000 && c.closed == 0; i++) {
        usleep(10000);
        server_do(s, count, &c);
    }
    server_do(s, answer_held, NULL);
    server_stop(s);
    CHECK(s->ends[0]->closed == 1 && s->ends[0]->err == DKV_ERR_CANCELLED);
    CHECK(!s->ends[0]->damaged);
    server_del(s);
}

/* ---- frost ---- */

/* A frozen server: calls end at their deadline, sending becomes BUSY, and nothing is lost when it
 * goes on. */
static void a_frozen_server_loses_nothing(void) {
    uint16_t port = 0;
    pid_t pid = spawn_server(&port);
    client_open(port);
    end e;
    open_end(&e, ECHO_STREAM);
    WAIT(e.opened);
    freeze(pid);
    answer a = call_and_wait(UNARY, dkv_slice_of("e"), 100);
    CHECK(a.err == DKV_ERR_DEADLINE);
    dkv_buf item = {0};
    uint32_t sent = 0;
    for (int err = DKV_OK; err != DKV_ERR_BUSY; sent += !err) {
        make_item(&item, sent, PAYLOAD_MAX);
        err = dkv_rpc_stream_send(e.stream, dkv_buf_slice(&item));
        CHECK(err == DKV_OK || err == DKV_ERR_BUSY);
        dkv_rpc_stream_flush(e.stream);
        dkv_rpc_loop_poll(loop, 0, 16);
    }
    dkv_buf_free(&item);
    kill(pid, SIGCONT);
    WAIT(e.items == sent || e.closed);
    CHECK(e.items == sent && !e.damaged);
    client_close();
    reap(pid);
}

/* Neither end needs the other's consent to go. */
static void frozen_peers_do_not_hold_us_up(void) {
    uint16_t port = 0;
    pid_t frozen_server = spawn_server(&port);
    client_open(port);
    end e;
    static answer a;
    a = (answer){0};
    open_end(&e, ECHO_STREAM);
    WAIT(e.opened);
    freeze(frozen_server);
    for (uint32_t i = 0; i < 20; i++) send_item(&e, i, PAYLOAD_MAX);
    dkv_rpc_stream_flush(e.stream);
    CHECK(dkv_rpc_unary(channel, UNARY, dkv_slice_of("e"), TIMEOUT_MS, keep_answer, &a) == DKV_OK);
    client_close();
    CHECK(e.closed == 1 && a.calls == 1 && a.err == DKV_ERR_CANCELLED);
    reap(frozen_server);

    server *s = server_start();
    pid_t frozen_client = spawn_client(s->port);
    wait_for_traffic(s);
    freeze(frozen_client);
    server_stop(s);
    CHECK(s->ends[0]->closed == 1);
    server_del(s);
    reap(frozen_client);
}

/* ---- nonsense ---- */

typedef struct listener {
    int fd;
    uint16_t port;
    bool talks; /* nonsense, instead of keeping silent */
    pthread_t thread;
} listener;

static void *accept_and_talk(void *arg) {
    listener *l = arg;
    dkv_rand rand = {check_seed};
    for (;;) {
        int fd = accept(l->fd, NULL, NULL);
        if (fd < 0) return NULL;
        uint8_t bytes[4096];
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)dkv_rand_next(&rand);
        if (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) >= 0) shutdown(fd, SHUT_WR);
        usleep(1000);
        close(fd);
    }
}

static void listener_open(listener *l, bool talks) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(l->fd >= 0 && bind(l->fd, (struct sockaddr *)&at, len) == 0 && listen(l->fd, 64) == 0);
    CHECK(getsockname(l->fd, (struct sockaddr *)&at, &len) == 0);
    l->port = ntohs(at.sin_port);
    l->talks = talks;
    if (talks) CHECK(pthread_create(&l->thread, NULL, accept_and_talk, l) == 0);
}

static void listener_close(listener *l) {
    shutdown(l->fd, SHUT_RDWR);
    if (l->talks) pthread_join(l->thread, NULL);
    close(l->fd);
}

/* A peer that accepts and says nothing, or says nonsense, is UNAVAILABLE before any deadline. */
static void strange_servers_are_unavailable(void) {
    for (int talks = 0; talks < 2; talks++) {
        listener l;
        listener_open(&l, talks);
        client_open(l.port);
        for (int i = 0; i < 3; i++) {
            answer a = call_and_wait(UNARY, dkv_slice_of("e"), TIMEOUT_MS);
            CHECK(a.err == DKV_ERR_UNAVAILABLE);
            dkv_buf_free(&a.bytes);
            dkv_rpc_channel_retry_now(channel);
        }
        end e;
        open_end(&e, ECHO_STREAM);
        WAIT(e.closed);
        CHECK(e.err == DKV_ERR_UNAVAILABLE && e.opened == 0);
        client_close();
        listener_close(&l);
    }
}

static void talk_nonsense_to(uint16_t port, dkv_rand *rand, bool with_preface) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    uint8_t bytes[2048];
    size_t len = dkv_rand_below(rand, sizeof bytes + 1);
    for (size_t i = 0; i < len; i++) bytes[i] = (uint8_t)dkv_rand_next(rand);
    /* A frame that is nearly right: a short length and a known type. */
    if (len > 9) memcpy(bytes, "\0\0", 2), bytes[3] %= 10;
    if (with_preface) CHECK(send(fd, preface, sizeof preface, MSG_NOSIGNAL) > 0);
    ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
    (void)sent; /* the server may have closed already */
    close(fd);
}

/* Nonsense from clients does not disturb a server. */
static void strange_clients_are_harmless(void) {
    server *s = server_start();
    client_open(s->port);
    end e;
    open_end(&e, ECHO_STREAM);
    dkv_rand rand = {check_seed};
    for (uint32_t run = 0; run < check_runs; run++) {
        talk_nonsense_to(s->port, &rand, run % 2);
        send_item(&e, run, 1000);
        dkv_rpc_stream_flush(e.stream);
        WAIT(e.items == run + 1);
    }
    client_close();
    server_stop(s);
    CHECK(s->n_ends == 1);
    server_del(s);
}

/* ---- gRPC clients other than dkv's ---- */

/* Sends one message of `len` bytes `times` over (none if 0), half-closes, takes what comes back,
 * and returns the status. */
static grpc_status_code foreign_call(uint16_t port, const char *method, size_t len, size_t times,
                                     size_t *got) {
    grpc_init();
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    grpc_arg any_length = {.type = GRPC_ARG_INTEGER,
                           .key = (char *)GRPC_ARG_MAX_SEND_MESSAGE_LENGTH,
                           .value.integer = -1};
    grpc_channel_args args = {1, &any_length};
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_channel *to = grpc_channel_create(address, credentials, &args);
    grpc_channel_credentials_release(credentials);
    grpc_call *call = grpc_channel_create_call(to, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                               grpc_slice_from_static_string(method), NULL,
                                               gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_slice bytes = grpc_slice_malloc(len);
    memset(GRPC_SLICE_START_PTR(bytes), 0, GRPC_SLICE_LENGTH(bytes));
    grpc_byte_buffer *sent = grpc_raw_byte_buffer_create(&bytes, 1);
    for (size_t i = 1; i < times; i++) {
        grpc_slice_buffer_add(&sent->data.raw.slice_buffer, grpc_slice_ref(bytes));
    }
    grpc_byte_buffer *received = NULL;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_metadata_array_init(&initial);
    grpc_metadata_array_init(&trailing);
    grpc_status_code status;
    grpc_slice text;
    grpc_op ops[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &received},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &trailing,
                                        .status = &status,
                                        .status_details = &text}},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = sent},
    };
    grpc_call_start_batch(call, ops, times ? 6 : 5, call, NULL);
    grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    *got = received ? grpc_byte_buffer_length(received) : 0;
    grpc_slice_unref(bytes);
    grpc_slice_unref(text);
    grpc_byte_buffer_destroy(sent);
    grpc_byte_buffer_destroy(received);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_call_unref(call);
    grpc_channel_destroy(to);
    grpc_completion_queue_shutdown(queue);
    grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_completion_queue_destroy(queue);
    grpc_shutdown_blocking();
    return status;
}

/* A client of another make is served; too large a message from it is INVALID_ARGUMENT. */
static void foreign_clients_are_served(void) {
    server *s = server_start();
    size_t got;
    CHECK(foreign_call(s->port, UNARY, 1000, 1, &got) == GRPC_STATUS_OK && got == 1000);
    CHECK(foreign_call(s->port, ECHO_STREAM, ITEM_HEAD, 1, &got) == GRPC_STATUS_OK);
    CHECK(got == ITEM_HEAD);
    CHECK(foreign_call(s->port, ECHO_STREAM, 0, 0, &got) == GRPC_STATUS_OK && got == 0);
    CHECK(foreign_call(s->port, UNARY, 0, 0, &got) == GRPC_STATUS_INVALID_ARGUMENT);
    CHECK(foreign_call(s->port, UNARY, 4000000, 1, &got) == GRPC_STATUS_INVALID_ARGUMENT);
    CHECK(foreign_call(s->port, ECHO_STREAM, 4000000, 1, &got) == GRPC_STATUS_INVALID_ARGUMENT);
    CHECK(foreign_call(s->port, "/t/Nowhere", 10, 1, &got) == GRPC_STATUS_UNIMPLEMENTED);
    server_stop(s);
    server_del(s);
}

/* A message above the server's memory is stopped half-way; others are served on. */
static void giant_messages_are_stopped(void) {
    server *s = server_start();
    size_t got;
    size_t times = DKV_RPC_MEMORY_MAX / 1000000 + 100;
    CHECK(foreign_call(s->port, UNARY, 1000000, times, &got) == GRPC_STATUS_RESOURCE_EXHAUSTED);
    CHECK(foreign_call(s->port, UNARY, 1000, 1, &got) == GRPC_STATUS_OK && got == 1000);
    server_stop(s);
    server_del(s);
}

static const check_test tests[] = {
    CHECK_TEST(a_killed_server_is_unavailable),  CHECK_TEST(a_killed_client_is_noticed),
    CHECK_TEST(a_frozen_server_loses_nothing),   CHECK_TEST(frozen_peers_do_not_hold_us_up),
    CHECK_TEST(strange_servers_are_unavailable), CHECK_TEST(strange_clients_are_harmless),
    CHECK_TEST(foreign_clients_are_served),      CHECK_TEST(giant_messages_are_stopped),
};

int main(int argc, char **argv) {
    /* A test that fails leaves nobody behind. */
    if (argc == 3 && strncmp(argv[1], "--", 2) == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 3 && strcmp(argv[1], "--serve") == 0) return serve_main(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--client") == 0) return client_main(argv[2]);
    return check_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
