/* Load for Redis (RESP) and memcached (its text protocol): one thread, one epoll.
 *
 * There are CONNECTIONS lanes; each has a socket to every server and repeats a batch: DEPTH
 * operations are sent, and when all of them are answered, the next ones. With a depth of 1 a lane
 * is a client that waits for each operation.
 *
 *   redis      Writes and reads go to the first server, the primary. A batch of writes ends with
 *              WAIT 2 0, which is answered when both replicas have them.
 *   memcached  A write goes to all servers and is over when all have stored it. A read goes to one
 *              server, chosen by the key. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define READ_BYTES 65536u

typedef struct lane lane;

typedef struct conn {
    int fd;
    lane *lane;
    dkv_buf out;
    size_t sent;
    bool is_full; /* the kernel takes no more for now */
    dkv_buf in;
    size_t parsed;
    unsigned n_keys; /* operations of this batch here, in the order of their answers */
    unsigned n_answered;
    bool awaits_replicas; /* and then the answer to WAIT */
    uint64_t keys[LOAD_DEPTH_MAX];
} conn;

struct lane {
    conn conns[LOAD_SERVERS_MAX];
    unsigned n_keys;
    int64_t begun_ns;
    bool resting;
};

typedef struct protocol {
    const char *name;
    bool writes_everywhere;
    bool has_wait;
    void (*put)(dkv_buf *out, dkv_slice key, dkv_slice value);
    void (*get)(dkv_buf *out, dkv_slice key);
    /* Bytes of the first answer in `in`, 0 if it is not complete; *value is what was read. */
    size_t (*stored)(dkv_slice in);
    size_t (*read)(dkv_slice in, dkv_slice *value);
} protocol;

static load the_load;
static const protocol *spoken;
static lane *lanes;
static int epoll;

/* ---- text ----------------------------------------------------------------------------------- */

static void append(dkv_buf *out, const void *bytes, size_t len) {
    if (dkv_buf_append(out, (dkv_slice){bytes, len})) load_fail("send", "no memory");
}

static void append_text(dkv_buf *out, const char *text) {
    append(out, text, strlen(text));
}

static void append_slice(dkv_buf *out, dkv_slice slice) {
    append(out, slice.data, slice.len);
}

static void append_number(dkv_buf *out, const char *format, size_t number) {
    char text[64];
    snprintf(text, sizeof text, format, number);
    append_text(out, text);
}

/* The length of the first line with its end; 0 if it is not complete. */
static size_t line_len(dkv_slice in) {
    const uint8_t *end = in.len ? memchr(in.data, '\n', in.len) : NULL;
    return end ? (size_t)(end - in.data) + 1 : 0;
}

static void expect(dkv_slice in, const char *text) {
    if (in.len >= strlen(text) && memcmp(in.data, text, strlen(text)) == 0) return;
    fprintf(stderr, "expected %s got %.*s\n", text, (int)(in.len < 80 ? in.len : 80),
            (const char *)in.data);
    exit(1);
}

static size_t expect_line(dkv_slice in, const char *text) {
    size_t len = line_len(in);
    if (len) expect(in, text);
    return len;
}

/* A value of `len` bytes behind a line of `line` bytes, with `end` behind it. */
static size_t take_value(dkv_slice in, size_t line, size_t len, const char *end, dkv_slice *value) {
    size_t total = line + len + strlen(end);
    if (in.len < total) return 0;
    expect((dkv_slice){in.data + line + len, strlen(end)}, end);
    *value = (dkv_slice){in.data + line, len};
    return total;
}

/* ---- protocols ------------------------------------------------------------------------------ */

static void redis_put(dkv_buf *out, dkv_slice key, dkv_slice value) {
    append_number(out, "*3\r\n$3\r\nSET\r\n$%zu\r\n", key.len);
    append_slice(out, key);
    append_number(out, "\r\n$%zu\r\n", value.len);
    append_slice(out, value);
    append_text(out, "\r\n");
}

static void redis_get(dkv_buf *out, dkv_slice key) {
    append_number(out, "*2\r\n$3\r\nGET\r\n$%zu\r\n", key.len);
    append_slice(out, key);
    append_text(out, "\r\n");
}

static size_t redis_stored(dkv_slice in) {
    return expect_line(in, "+OK\r\n");
}

static size_t redis_read(dkv_slice in, dkv_slice *value) {
    size_t line = expect_line(in, "$");
    if (!line) return 0;
    return take_value(in, line, strtoul((const char *)in.data + 1, NULL, 10), "\r\n", value);
}

static void memcached_put(dkv_buf *out, dkv_slice key, dkv_slice value) {
    append_text(out, "set ");
    append_slice(out, key);
    append_number(out, " 0 0 %zu\r\n", value.len);
    append_slice(out, value);
    append_text(out, "\r\n");
}

static void memcached_get(dkv_buf *out, dkv_slice key) {
    append_text(out, "get ");
    append_slice(out, key);
    append_text(out, "\r\n");
}

static size_t memcached_stored(dkv_slice in) {
    return expect_line(in, "STORED\r\n");
}

static size_t memcached_read(dkv_slice in, dkv_slice *value) {
    const size_t before_len = strlen("VALUE ") + DKV_BENCH_KEY_LEN + strlen(" 0 ");
    size_t line = expect_line(in, "VALUE ");
    if (line <= before_len) return 0;
    size_t len = strtoul((const char *)in.data + before_len, NULL, 10);
    return take_value(in, line, len, "\r\nEND\r\n", value);
}

static const protocol protocols[] = {
    {"redis", false, true, redis_put, redis_get, redis_stored, redis_read},
    {"memcached", true, false, memcached_put, memcached_get, memcached_stored, memcached_read},
};

/* ---- batches -------------------------------------------------------------------------------- */

static void add(conn *c, uint64_t index) {
    uint8_t bytes[DKV_BENCH_KEY_LEN];
    dkv_slice key = {bytes, sizeof bytes};
    dkv_bench_key(index, bytes);
    if (the_load.kind == LOAD_GET) {
        spoken->get(&c->out, key);
    } else {
        spoken->put(&c->out, key, load_value(&the_load, index));
    }
    c->keys[c->n_keys++] = index;
}

static void set_full(conn *c, bool is_full) {
    if (c->is_full == is_full) return;
    c->is_full = is_full;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (is_full) event.events |= EPOLLOUT;
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event)) load_fail("epoll_ctl", strerror(errno));
}

static void send_out(conn *c) {
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            set_full(c, true);
            return;
        }
        if (n < 0) load_fail("send", strerror(errno));
        c->sent += (size_t)n;
    }
    c->out.len = 0;
    c->sent = 0;
    set_full(c, false);
}

static void begin_batch(lane *l) {
    uint64_t index;
    l->n_keys = 0;
    for (unsigned i = 0; i < the_load.n_servers; i++) {
        l->conns[i].n_keys = 0;
        l->conns[i].n_answered = 0;
    }
    while (l->n_keys < the_load.depth && load_next(&the_load, &index)) {
        bool everywhere = spoken->writes_everywhere && the_load.kind != LOAD_GET;
        if (everywhere) {
            for (unsigned i = 0; i < the_load.n_servers; i++) add(&l->conns[i], index);
        } else {
            add(&l->conns[spoken->has_wait ? 0 : index % the_load.n_servers], index);
        }
        l->n_keys++;
    }
    l->resting = l->n_keys == 0;
    if (l->resting) return;
    l->begun_ns = load_now();
    if (spoken->has_wait && the_load.kind != LOAD_GET) {
        append_text(&l->conns[0].out, "*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$1\r\n0\r\n");
        l->conns[0].awaits_replicas = true;
    }
    for (unsigned i = 0; i < the_load.n_servers; i++) send_out(&l->conns[i]);
}

static bool is_over(const lane *l) {
    for (unsigned i = 0; i < the_load.n_servers; i++) {
        const conn *c = &l->conns[i];
        if (c->n_answered < c->n_keys || c->awaits_replicas) return false;
    }
    return true;
}

/* Takes one answer; false: it is not complete. */
static bool take_answer(conn *c) {
    dkv_slice in = {c->in.data + c->parsed, c->in.len - c->parsed};
    dkv_slice value;
    size_t len;
    if (c->n_answered == c->n_keys) {
        if (!c->awaits_replicas) return false;
        len = expect_line(in, ":2\r\n");
        c->awaits_replicas = len == 0;
    } else if (the_load.kind == LOAD_GET) {
        len = spoken->read(in, &value);
        if (len) load_check(&the_load, c->keys[c->n_answered++], value);
    } else {
        len = spoken->stored(in);
        c->n_answered += len > 0;
    }
    c->parsed += len;
    return len > 0;
}

static void on_readable(conn *c) {
    if (dkv_buf_reserve(&c->in, READ_BYTES)) load_fail("recv", "no memory");
    ssize_t n = recv(c->fd, c->in.data + c->in.len, c->in.cap - c->in.len, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) load_fail("recv", n ? strerror(errno) : "the server closed the connection");
    c->in.len += (size_t)n;
    while (take_answer(c)) {
    }
    if (c->parsed == c->in.len) c->in.len = c->parsed = 0;
    lane *l = c->lane;
    if (l->resting || !is_over(l)) return;
    for (unsigned i = 0; i < l->n_keys; i++) load_ended(&the_load, l->begun_ns);
    begin_batch(l);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void connect_to(conn *c, lane *l, const char *server) {
    const char *colon = strrchr(server, ':');
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)(colon ? atoi(colon + 1) : 0));
    int one = 1;
    c->lane = l;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
        load_fail(server, strerror(errno));
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) load_fail("epoll_ctl", strerror(errno));
}

static void run(void) {
    struct epoll_event events[256];
    for (unsigned i = 0; i < the_load.connections; i++) begin_batch(&lanes[i]);
    while (the_load.phase != LOAD_OVER) {
        int n = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < n; i++) {
            conn *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_out(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT) on_readable(c);
        }
        load_tick(&the_load);
    }
}

int main(int argc, char **argv) {
    load_parse(&the_load, argc, argv);
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++) {
        if (strcmp(protocols[i].name, the_load.protocol) == 0) spoken = &protocols[i];
    }
    if (!spoken) load_fail(the_load.protocol, "an unknown protocol");
    lanes = calloc(the_load.connections, sizeof *lanes);
    epoll = epoll_create1(0);
    if (!lanes || epoll < 0) load_fail(argv[0], "no memory");
    for (unsigned i = 0; i < the_load.connections; i++) {
        for (unsigned j = 0; j < the_load.n_servers; j++) {
            connect_to(&lanes[i].conns[j], &lanes[i], the_load.servers[j]);
        }
    }
    run();
    return 0; /* the system takes back sockets and memory */
}
