#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "client/internal.h"

/* ---- lifecycle ------------------------------------------------------------------------------ */

/* How many forks lie between this process and the one that made its first client. The pid would
 * tell as well, but asking for it is a system call. */
static unsigned forks;

static void count_fork(void) {
    forks++;
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, count_fork);
}

static bool is_forked(const dkv_client *client) {
    return client->forks != forks;
}

static int make_targets(dkv_client *client) {
    const dkv_cluster_map *map = dkv_ring_map(client->ring);
    client->targets = calloc(map->n_members, sizeof *client->targets);
    if (!client->targets) return DKV_ERR_NO_MEMORY;
    for (uint16_t i = 0; i < map->n_members; i++) {
        dkv_client_target_init(&client->targets[i], client, &map->members[i]);
    }
    return DKV_OK;
}

static int check_options(const dkv_client_options *options, char *why) {
    if (options->timeout_ms <= DKV_TIMEOUT_MAX_MS) return DKV_OK;
    snprintf(why, DKV_DETAIL_MAX, "a timeout has at most %u milliseconds, not %u",
             DKV_TIMEOUT_MAX_MS, options->timeout_ms);
    return DKV_ERR_INVALID;
}

static int client_alloc(const dkv_client_options *options, dkv_client **out) {
    dkv_client *client = calloc(1, sizeof *client);
    if (!client) return DKV_ERR_NO_MEMORY;
    int err = dkv_rpc_loop_new(&client->loop);
    if (err) {
        free(client);
        return err;
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    client->forks = forks;
    client->timeout_ms = options->timeout_ms ? options->timeout_ms : DKV_TIMEOUT_DEFAULT_MS;
    client->hedges = options->hedge_ms == 0;
    client->hedge_ns = (client->hedges ? HEDGE_MAX_MS : options->hedge_ms) * NS_PER_MS;
    client->hedge_credit = HEDGES_SAVED * HEDGE_READS;
    client->interrupted = options->interrupted;
    client->interrupted_user = options->interrupted_user;
    pthread_mutex_init(&client->mutex, NULL);
    dkv_rpc_loop_set_lock(client->loop, &client->mutex);
    list_init(&client->batches);
    list_init(&client->unsettled);
    list_init(&client->pumps);
    list_init(&client->congested);
    list_init(&client->held);
    list_init(&client->followers);
    list_init(&client->woken);
    *out = client;
    return DKV_OK;
}

int dkv_client_new(const dkv_client_options *options, dkv_client **out, char *why) {
    dkv_client *client;
    int err = check_options(options, why);
    if (err) return err;
    err = client_alloc(options, &client);
    if (!err) {
        err = dkv_client_fetch_map(client, options->seeds, why);
        if (!err) err = make_targets(client);
        if (err) dkv_client_del(client);
    }
    if (err == DKV_ERR_NO_MEMORY) snprintf(why, DKV_DETAIL_MAX, "%s", dkv_err_sentence(err));
    if (!err) *out = client;
    return err;
}

/* Ends `f`, and the series that it may be of. A series that has landed has the results of its last
 * operation already; dkv_client_settle hands it back. */
static void give_up(dkv_client *client, flight *f, const char *why) {
    f->batch->follow = NULL;
    if (!f->batch->landed) dkv_client_flight_fail(client, f, DKV_ERR_CANCELLED, why);
}

/* From the last, so that none begins meanwhile. */
static void batch_give_up(dkv_client *client, batch *b, const char *why) {
    for (size_t i = b->n; i-- > 0;) {
        if (b->flights[i].op) give_up(client, &b->flights[i], why);
    }
}

static void close_locked(dkv_client *client) {
    client->closed = true;
    for (list_node *node = client->batches.head.next; node != &client->batches.head;
         node = node->next) {
        batch_give_up(client, LIST_OWNER(node, batch, node), "the client was closed");
    }
    dkv_client_settle(client);
    dkv_rpc_loop_wake(client->loop);
}

void dkv_client_close(dkv_client *client) {
    if (is_forked(client)) return;
    dkv_client_lock(client);
    close_locked(client);
    dkv_client_unlock(client);
}

void dkv_client_del(dkv_client *client) {
    if (!client || is_forked(client)) return;
    dkv_client_lock(client);
    close_locked(client);
    uint16_t n_targets = client->targets ? dkv_ring_map(client->ring)->n_members : 0;
    for (uint16_t i = 0; i < n_targets; i++) dkv_client_target_close(&client->targets[i]);
    dkv_rpc_loop_del(client->loop);
    dkv_client_unlock(client);
    free(client->targets);
    dkv_ring_del(client->ring);
    dkv_map_free(&client->attempts);
    dkv_timers_free(&client->timers);
    dkv_buf_free(&client->scratch);
    pthread_mutex_destroy(&client->mutex);
    free(client);
}

/* ---- operations ----------------------------------------------------------------------------- */

static batch *batch_new(const dkv_client *client, dkv_client_op *ops, size_t n) {
    if (n > (SIZE_MAX - sizeof(batch)) / sizeof(flight)) return NULL;
    batch *b = calloc(1, sizeof *b + n * sizeof(flight));
    if (!b) return NULL;
    b->n = n;
    b->undone = n;
    for (size_t i = 0; i < n; i++) dkv_client_flight_init(client, b, &b->flights[i], &ops[i]);
    return b;
}

/* Takes `b`, whatever the result. The mutex is held. */
static int batch_start(dkv_client *client, batch *b) {
    dkv_client_catch_up(client);
    if (client->closed) {
        for (size_t i = 0; i < b->n; i++) b->flights[i].op->internal = NULL;
        free(b);
        return DKV_ERR_PRECONDITION;
    }
    list_add(&client->batches, &b->node);
    list_add(&client->unsettled, &b->unsettled);
    for (size_t i = 0; i < b->n; i++) {
        flight *f = &b->flights[i];
        if (f->err) dkv_client_flight_refuse(client, f);
    }
    if (!client->gathering) dkv_client_settle(client);
    return DKV_OK;
}

int dkv_client_start(dkv_client *client, dkv_client_op *ops, size_t n) {
    if (is_forked(client)) return DKV_ERR_PRECONDITION;
    if (n == 0) return DKV_OK;
    batch *b = batch_new(client, ops, n);
    if (!b) return DKV_ERR_NO_MEMORY;
    dkv_client_lock(client);
    int err = batch_start(client, b);
    dkv_client_unlock(client);
    return err;
}

int dkv_client_start_series(dkv_client *client, dkv_client_op *op, dkv_client_follow follow,
                            void *user) {
    if (is_forked(client)) return DKV_ERR_PRECONDITION;
    batch *b = batch_new(client, op, 1);
    if (!b) return DKV_ERR_NO_MEMORY;
    b->follow = follow;
    b->follow_user = user;
    dkv_client_lock(client);
    int err = batch_start(client, b);
    dkv_client_unlock(client);
    return err;
}

static flight *flight_of(const dkv_client_op *op) {
    return op->internal;
}

static void set_waiter(dkv_client_op *ops, size_t n, waiter *w) {
    for (size_t i = 0; i < n; i++) {
        if (flight_of(&ops[i])) flight_of(&ops[i])->batch->waiter = w;
    }
}

static size_t count_undone(const dkv_client_op *ops, size_t n) {
    size_t undone = 0;
    for (size_t i = 0; i < n; i++) undone += !ops[i].done;
    return undone;
}

/* Gives up the mutex, which is held. */
static bool wait_locked(dkv_client *client, dkv_client_op *ops, size_t n, uint32_t wait_ms) {
    waiter w = {.ops = ops, .n = n, .left = count_undone(ops, n)};
    set_waiter(ops, n, &w);
    if (dkv_client_await(client, &w, dkv_client_now() + wait_ms * NS_PER_MS)) return true;
    set_waiter(ops, n, NULL);
    dkv_client_unlock(client);
    return false;
}

bool dkv_client_wait(dkv_client *client, dkv_client_op *ops, size_t n, uint32_t wait_ms) {
    if (is_forked(client)) return false;
    dkv_client_lock(client);
    return wait_locked(client, ops, n, wait_ms);
}

int dkv_client_run(dkv_client *client, dkv_client_op *op, uint32_t wait_ms, bool *done) {
    if (is_forked(client)) return DKV_ERR_PRECONDITION;
    batch *b = batch_new(client, op, 1);
    if (!b) return DKV_ERR_NO_MEMORY;
    dkv_client_lock(client);
    int err = batch_start(client, b);
    if (err) {
        dkv_client_unlock(client);
    } else {
        *done = wait_locked(client, op, 1, wait_ms);
    }
    return err;
}

void dkv_client_abandon(dkv_client *client, dkv_client_op *ops, size_t n) {
    if (is_forked(client)) return;
    dkv_client_lock(client);
    /* From the last, so that giving one up lets none of the others begin. */
    for (size_t i = n; i-- > 0;) {
        flight *f = flight_of(&ops[i]);
        if (f) give_up(client, f, "the caller gave up");
    }
    dkv_client_settle(client);
    dkv_client_unlock(client);
}

/* ---- what the client knows ------------------------------------------------------------------ */

dkv_version dkv_client_last_seen(dkv_client *client) {
    if (is_forked(client)) return (dkv_version){0};
    dkv_client_lock(client);
    dkv_version seen = client->last_seen;
    dkv_client_unlock(client);
    return seen;
}

dkv_client_stats dkv_client_stats_get(dkv_client *client) {
    if (is_forked(client)) return (dkv_client_stats){0};
    dkv_client_lock(client);
    dkv_client_stats stats = client->stats;
    dkv_client_unlock(client);
    return stats;
}

const dkv_ring *dkv_client_ring(dkv_client *client) {
    return client->ring;
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void refuse_all(dkv_client_question *questions, size_t n, const char *why) {
    for (size_t i = 0; i < n; i++) {
        questions[i].err = DKV_ERR_PRECONDITION;
        snprintf(questions[i].why, DKV_DETAIL_MAX, "%s", why);
    }
}

void dkv_client_call(dkv_client *client, const char *method, uint32_t timeout_ms,
                     dkv_client_question *questions, size_t n) {
    if (is_forked(client)) {
        refuse_all(questions, n, "this client was made before fork()");
        return;
    }
    dkv_client_lock(client);
    if (client->closed) {
        refuse_all(questions, n, "the client is closed");
    } else {
        dkv_client_ask(client, method, timeout_ms ? timeout_ms : client->timeout_ms, questions, n);
    }
    dkv_client_unlock(client);
}
