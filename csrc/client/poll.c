/* One thread polls for all.
 *
 * Whoever waits and finds nobody polling becomes the leader; the others follow, each asleep on a
 * condition of its own, and are woken when what they wait for has happened. A leader that leaves
 * wakes the first follower to take over. A thread that starts an operation while another polls
 * hands it to gRPC itself; the leader is woken only if it would sleep past the operation's timer,
 * which is rare, because an older operation's timer is mostly due before. */
#include <time.h>

#include "base/err.h"
#include "client/internal.h"

int64_t dkv_client_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ---- rounds --------------------------------------------------------------------------------- */

static bool settle_once(dkv_client *client) {
    list_node *node;
    bool did = false;
    dkv_timer *timer;
    int64_t now_ns = dkv_timers_next(&client->timers) == INT64_MAX ? 0 : dkv_client_now();
    while ((timer = dkv_timers_pop(&client->timers, now_ns))) {
        dkv_client_flight_due(client, LIST_OWNER(timer, flight, timer));
        did = true;
    }
    while ((node = list_pop(&client->unsettled))) {
        dkv_client_batch_settle(client, LIST_OWNER(node, batch, unsettled));
        did = true;
    }
    while ((node = list_pop(&client->pumps))) {
        dkv_client_lane_pump(client, LIST_OWNER(node, lane, pump));
        did = true;
    }
    return did;
}

void dkv_client_settle(dkv_client *client) {
    while (settle_once(client)) {
        /* Sending may fail, which ends operations, which lets others begin. */
    }
    if (client->polling && dkv_timers_next(&client->timers) < client->poll_until_ns) {
        client->poll_until_ns = dkv_timers_next(&client->timers);
        dkv_rpc_loop_wake(client->loop);
    }
}

static void poll_once(dkv_client *client, int64_t until_ns) {
    client->poll_until_ns = min_i64(until_ns, dkv_timers_next(&client->timers));
    dkv_rpc_loop_poll(client->loop, client->poll_until_ns, POLL_EVENTS_MAX);
    client->polled_ns = dkv_client_now();
    client->poll_until_ns = 0; /* awake: nobody needs to wake it */
    list_node *node;
    while ((node = list_pop(&client->congested))) list_add(&client->pumps, node);
    dkv_client_settle(client);
}

/* ---- waiting -------------------------------------------------------------------------------- */

void dkv_client_waiter_init(dkv_client *client, waiter *w) {
    *w = (waiter){0};
    pthread_cond_init(&w->wake, &client->monotonic);
}

void dkv_client_waiter_free(waiter *w) {
    pthread_cond_destroy(&w->wake);
}

void dkv_client_waiter_tick(waiter *w) {
    if (w->left > 0 && --w->left == 0) pthread_cond_signal(&w->wake);
}

static void promote(dkv_client *client) {
    if (client->polling || list_is_empty(&client->followers)) return;
    pthread_cond_signal(&LIST_OWNER(list_first(&client->followers), waiter, node)->wake);
}

static void follow(dkv_client *client, waiter *w, int64_t until_ns) {
    struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    list_add(&client->followers, &w->node);
    pthread_cond_timedwait(&w->wake, &client->mutex, &until);
    list_remove(&w->node);
}

/* Polls at least once, so that a wait of no time makes progress. */
static void lead(dkv_client *client, const waiter *w, int64_t until_ns) {
    client->polling = true;
    do {
        poll_once(client, until_ns);
    } while (w->left > 0 && dkv_client_now() < until_ns);
    client->polling = false;
}

void dkv_client_await(dkv_client *client, waiter *w, int64_t until_ns) {
    while (w->left > 0) {
        if (client->polling) {
            follow(client, w, until_ns);
        } else {
            lead(client, w, until_ns);
        }
        if (dkv_client_now() >= until_ns) break;
    }
    promote(client);
}

int dkv_client_await_patiently(dkv_client *client, waiter *w, int64_t until_ns) {
    while (w->left > 0 && dkv_client_now() < until_ns) {
        dkv_client_await(client, w, min_i64(until_ns, dkv_client_now() + SLICE_NS));
        if (w->left == 0 || !client->interrupted) continue;
        pthread_mutex_unlock(&client->mutex);
        bool interrupted = client->interrupted(client->interrupted_user);
        pthread_mutex_lock(&client->mutex);
        if (interrupted) return DKV_ERR_CANCELLED;
    }
    return DKV_OK;
}

/* Nobody polls while the program does other things. What broke meanwhile should be known before
 * something is sent there. */
void dkv_client_catch_up(dkv_client *client) {
    if (client->polling || dkv_client_now() - client->polled_ns < CATCH_UP_NS) return;
    client->polling = true;
    poll_once(client, 0);
    client->polling = false;
    promote(client);
}
