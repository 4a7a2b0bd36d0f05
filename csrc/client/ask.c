/* Questions outside the sessions: the map, asked of the seeds, and calls to one member. Each is
 * one unary call. Its struct lives until gRPC has answered, also when nobody waits any more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "client/internal.h"
#include "wire/wire.h"

#define SEEDS_MAX 64u
#define SECOND_NS (50 * NS_PER_MS) /* more than it takes to connect to a node that is there */

const char *dkv_client_plain(const char *detail) {
    static const char *const wordy[] = {"failed to connect to all addresses",
                                        "DNS resolution failed"};
    if (strncmp(detail, "recvmsg:", 8) == 0 || strncmp(detail, "sendmsg:", 8) == 0)
        return detail + 8;
    if (strcmp(detail, "Socket closed") == 0) return "the connection was closed";
    for (size_t i = 0; i < sizeof wordy / sizeof *wordy; i++) {
        if (strncmp(detail, wordy[i], strlen(wordy[i])) != 0) continue;
        for (const char *next; (next = strstr(detail, ": ")); detail = next + 2) {
        }
    }
    return detail;
}

typedef struct ask {
    dkv_client *client;
    waiter *waiter; /* NULL: nobody waits any more */
    bool done;
    int err;
    char detail[DKV_DETAIL_MAX];
    dkv_buf reply;
} ask;

static void ask_free(ask *a) {
    dkv_buf_free(&a->reply);
    free(a);
}

static void on_answer(void *user, int err, const char *detail, dkv_slice bytes) {
    ask *a = user;
    if (!a->waiter) {
        ask_free(a);
        return;
    }
    a->done = true;
    a->err = err ? err : dkv_buf_append(&a->reply, bytes);
    snprintf(a->detail, sizeof a->detail, "%s",
             *detail ? dkv_client_plain(detail) : dkv_err_sentence(a->err));
    dkv_client_waiter_tick(a->client, a->waiter);
}

static int ask_new(dkv_client *client, dkv_rpc_channel *channel, const char *method,
                   dkv_slice request, uint32_t timeout_ms, waiter *w, ask **out) {
    ask *a = calloc(1, sizeof *a);
    if (!a) return DKV_ERR_NO_MEMORY;
    a->client = client;
    a->waiter = w;
    int err = dkv_rpc_unary(channel, method, request, timeout_ms, on_answer, a);
    if (err) {
        ask_free(a);
        return err;
    }
    *out = a;
    return DKV_OK;
}

/* The answer, if it has come, is lost. Accepts NULL. */
static void ask_drop(ask *a) {
    if (!a) return;
    a->waiter = NULL;
    if (a->done) ask_free(a);
}

/* ---- members -------------------------------------------------------------------------------- */

static int ask_member(dkv_client *client, const char *method, uint32_t timeout_ms,
                      dkv_client_question *q, waiter *w, ask **out) {
    int member = dkv_cluster_map_find(dkv_ring_map(client->ring), q->node);
    if (member < 0) {
        snprintf(q->why, DKV_DETAIL_MAX, "the cluster has no node \"%.64s\"", q->node);
        return DKV_ERR_NOT_FOUND;
    }
    target *t = &client->targets[member];
    if (dkv_client_target_connect(t)) {
        snprintf(q->why, DKV_DETAIL_MAX, "%.64s: the map names no address for it", q->node);
        return DKV_ERR_UNAVAILABLE;
    }
    int err = ask_new(client, t->channel, method, q->request, timeout_ms, w, out);
    if (err) snprintf(q->why, DKV_DETAIL_MAX, "%s", dkv_err_sentence(err));
    return err;
}

/* `waited` is what the wait has ended with. */
static void take_answer(dkv_client_question *q, ask *a, int waited) {
    q->err = a->done ? a->err : waited ? waited : DKV_ERR_DEADLINE;
    if (!q->err) q->err = dkv_buf_append(&q->reply, dkv_buf_slice(&a->reply));
    if (q->err)
        snprintf(q->why, DKV_DETAIL_MAX, "%s", a->done ? a->detail : dkv_err_sentence(q->err));
    ask_drop(a);
}

/* Asks the questions whose `err` is `which`. */
static void ask_those(dkv_client *client, const char *method, uint32_t timeout_ms,
                      dkv_client_question *questions, size_t n, int which) {
    waiter w = {0};
    ask **asks = calloc(n ? n : 1, sizeof *asks);
    for (size_t i = 0; i < n; i++) {
        dkv_client_question *q = &questions[i];
        if (q->err != which) continue;
        q->err = asks ? ask_member(client, method, timeout_ms, q, &w, &asks[i]) : DKV_ERR_NO_MEMORY;
        if (!q->err) w.left++;
    }
    int64_t until_ns = dkv_client_now() + ((int64_t)timeout_ms + WRITE_GRACE_MS) * NS_PER_MS;
    int waited = dkv_client_await_patiently(client, &w, until_ns);
    for (size_t i = 0; asks && i < n; i++) {
        if (asks[i]) take_answer(&questions[i], asks[i], waited);
    }
    free(asks);
}

/* Lets gRPC connect now to those that could not be reached. False if there are none. */
static bool reconnect(dkv_client *client, const dkv_client_question *questions, size_t n) {
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (questions[i].err != DKV_ERR_UNAVAILABLE) continue;
        int member = dkv_cluster_map_find(dkv_ring_map(client->ring), questions[i].node);
        if (member < 0 || !client->targets[member].channel) continue;
        dkv_rpc_channel_retry_now(client->targets[member].channel);
        any = true;
    }
    return any;
}

/* A node that was away is asked twice: gRPC fails what is asked while it waits before the next
 * attempt to connect, also if the node is back by then. */
void dkv_client_ask(dkv_client *client, const char *method, uint32_t timeout_ms,
                    dkv_client_question *questions, size_t n) {
    for (size_t i = 0; i < n; i++) questions[i].err = DKV_OK;
    ask_those(client, method, timeout_ms, questions, n, DKV_OK);
    if (!reconnect(client, questions, n)) return;
    waiter pause = {.left = 1};
    if (dkv_client_await_patiently(client, &pause, dkv_client_now() + SECOND_NS)) return;
    ask_those(client, method, timeout_ms, questions, n, DKV_ERR_UNAVAILABLE);
}

/* ---- seeds ---------------------------------------------------------------------------------- */

typedef struct seed {
    char address[DKV_ADDRESS_MAX + 1];
    dkv_rpc_channel *channel;
    ask *ask;
    int err; /* not 0: it has failed */
} seed;

typedef struct seeds {
    seed *all;
    size_t n;
    size_t asked; /* the first so many have been asked */
    size_t failed;
} seeds;

static int check_address(const char *address, char *why) {
    dkv_member probe = {.id = "seed", .address = (char *)address};
    if (*address && dkv_member_check(&probe, NULL, 0) == DKV_OK) return DKV_OK;
    snprintf(why, DKV_DETAIL_MAX,
             "\"%.128s\" is not an address of the form host:port, with a port of 1 to 65,535",
             address);
    return DKV_ERR_INVALID;
}

/* Takes the text up to the next comma, without the blanks around it. */
static void next_address(const char **text, char address[DKV_ADDRESS_MAX + 1]) {
    const char *from = *text + strspn(*text, " ");
    const char *comma = strchrnul(from, ',');
    const char *end = comma;
    while (end > from && end[-1] == ' ') end--;
    snprintf(address, DKV_ADDRESS_MAX + 1, "%.*s", (int)(end - from), from);
    *text = *comma ? comma + 1 : comma;
}

static int parse_seeds(const char *text, seeds *out, char *why) {
    size_t n = 1;
    for (const char *c = text; *c; c++) n += *c == ',';
    if (n > SEEDS_MAX) {
        snprintf(why, DKV_DETAIL_MAX, "%zu addresses to connect to; at most %u", n, SEEDS_MAX);
        return DKV_ERR_INVALID;
    }
    seed *all = calloc(n, sizeof *all);
    if (!all) return DKV_ERR_NO_MEMORY;
    for (size_t i = 0; i < n; i++) {
        next_address(&text, all[i].address);
        int err = check_address(all[i].address, why);
        if (err) {
            free(all);
            return err;
        }
    }
    *out = (seeds){.all = all, .n = n};
    return DKV_OK;
}

static void seeds_free(seeds *s) {
    for (size_t i = 0; i < s->n; i++) {
        ask_drop(s->all[i].ask);
        dkv_rpc_channel_del(s->all[i].channel);
    }
    free(s->all);
}

static void ask_next_seed(dkv_client *client, seeds *s, waiter *w) {
    seed *next = &s->all[s->asked++];
    next->err = dkv_rpc_channel_new(client->loop, next->address, &next->channel);
    if (!next->err) {
        next->err = ask_new(client, next->channel, "/dkv.v1.KV/Map", (dkv_slice){0},
                            client->timeout_ms, w, &next->ask);
    }
    s->failed += next->err != 0;
}

static int use_map(dkv_client *client, const seed *from, char *why) {
    dkv_cluster_map *map;
    int err = dkv_wire_get_map(dkv_buf_slice(&from->ask->reply), &map);
    if (!err) {
        err = dkv_ring_new(map, &client->ring);
        dkv_cluster_map_del(map);
    }
    if (err == DKV_ERR_INVALID) err = DKV_ERR_PROTOCOL;
    if (err) snprintf(why, DKV_DETAIL_MAX, "%s: its cluster map makes no ring", from->address);
    return err;
}

/* Looks through the answers. Returns the seed that has the map, or NULL. */
static const seed *find_answer(seeds *s) {
    for (size_t i = 0; i < s->asked; i++) {
        seed *one = &s->all[i];
        if (one->err || !one->ask->done) continue;
        if (!one->ask->err) return one;
        one->err = one->ask->err;
        s->failed++;
    }
    return NULL;
}

static int nobody_answered(const seeds *s, char *why) {
    dkv_phrases said;
    int len = snprintf(why, DKV_DETAIL_MAX, "no node answered: ");
    dkv_phrases_init(&said, why + len, DKV_DETAIL_MAX - (size_t)len, "; ");
    for (size_t i = 0; i < s->asked; i++) {
        const seed *one = &s->all[i];
        char text[DKV_ADDRESS_MAX + sizeof ": " + DKV_DETAIL_MAX];
        const char *reason = !one->err  ? "it is silent"
                             : one->ask ? one->ask->detail
                                        : dkv_err_sentence(one->err);
        snprintf(text, sizeof text, "%s: %s", one->address, reason);
        dkv_phrases_add(&said, text);
    }
    return DKV_ERR_UNAVAILABLE;
}

static int ask_seeds(dkv_client *client, seeds *s, waiter *w, char *why) {
    int64_t deadline_ns = dkv_client_now() + client->timeout_ms * NS_PER_MS;
    int64_t next_ns = 0;
    while (dkv_client_now() < deadline_ns && s->failed < s->n) {
        bool all_failed = s->failed == s->asked;
        if (s->asked < s->n && (all_failed || dkv_client_now() >= next_ns)) {
            ask_next_seed(client, s, w);
            next_ns = dkv_client_now() + PATIENCE_NS;
        }
        int64_t until_ns = s->asked < s->n && next_ns < deadline_ns ? next_ns : deadline_ns;
        w->left = 1;
        if (s->failed == s->asked) continue;
        if (dkv_client_await_patiently(client, w, until_ns)) {
            snprintf(why, DKV_DETAIL_MAX, "interrupted while connecting");
            return DKV_ERR_CANCELLED;
        }
        const seed *found = find_answer(s);
        if (found) return use_map(client, found, why);
    }
    return nobody_answered(s, why);
}

int dkv_client_fetch_map(dkv_client *client, const char *text, char *why) {
    seeds s;
    waiter w = {0};
    int err = parse_seeds(text, &s, why);
    if (err) return err;
    dkv_client_lock(client);
    err = ask_seeds(client, &s, &w, why);
    seeds_free(&s);
    dkv_client_unlock(client);
    return err;
}
