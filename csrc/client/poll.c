/* One thread polls for all.
 *
 * Whoever waits and finds nobody polling becomes the leader; the others follow: they sleep until
 * what they wait for has happened. A leader that leaves wakes the follower that came last to take
 * over, as that one will lead the longest. A thread that starts an operation while the leader polls
 * hands it to gRPC itself; the leader is woken only if it would sleep past the operation's timer,
 * which is rare, because an older operation's timer is mostly due before.
 *
 * With many threads, each with one operation at a time, what an operation costs is to sleep, to be
 * woken, and to send. So:
 *   - Followers are woken after the mutex was given up, and need it no more if they are done.
 *   - All that are done are woken by one system call or a few: they sleep at the client's gates,
 *     which are futexes, each at a place of its own (a bit of the set that such a call names). With
 *     a call for each, every thread that was woken would interrupt the one that wakes. Places are
 *     given in turn; should there be more sleepers than places, some are woken for nothing and
 *     sleep again, because waiter.call alone says what has happened.
 *   - The leader lets those that it has woken run before it polls again. What they start meanwhile
 *     they leave to it (client.gathering), so that it leaves in few messages. */
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

int64_t dkv_client_due(const dkv_client *client) {
    int64_t due_ns = dkv_timers_next(&client->timers);
    const list_node *first = list_first(&client->held);
    return first ? min_i64(due_ns, LIST_OWNER(first, lane, pump)->nagle.due_ns) : due_ns;
}

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
    if (client->polling && dkv_client_due(client) < client->poll_until_ns) {
        client->poll_until_ns = dkv_client_due(client);
        dkv_rpc_loop_wake(client->loop);
    }
}

/* ---- waking --------------------------------------------------------------------------------- */

enum { SLEEPS, IS_DONE, IS_TO_LEAD }; /* waiter.call */

/* Returns when `w` may have been woken. */
static void sleep_at(dkv_client *client, const waiter *w, const struct timespec *until) {
    atomic_uint *gate = &client->gates[w->place / PLACES_OF_GATE];
    unsigned count = atomic_load(gate);
    if (atomic_load(&w->call) != SLEEPS) return;
    syscall(SYS_futex, gate, FUTEX_WAIT_BITSET_PRIVATE, count, until, NULL,
            1u << w->place % PLACES_OF_GATE);
}

/* Takes `w` out of the followers; it is woken when the mutex is given up. */
static void wake(dkv_client *client, waiter *w, bool to_lead) {
    w->following = false;
    w->to_lead = to_lead;
    list_remove(&w->node);
    list_add(&client->woken, &w->node);
}

void dkv_client_waiter_tick(dkv_client *client, waiter *w) {
    if (w->left > 0 && --w->left == 0 && w->following) wake(client, w, false);
}

void dkv_client_lock(dkv_client *client) {
    pthread_mutex_lock(&client->mutex);
}

void dkv_client_unlock(dkv_client *client) {
    uint32_t sleepers[GATES] = {0};
    list woken;
    list_node *node;
    list_move(&client->woken, &woken);
    pthread_mutex_unlock(&client->mutex);
    if (list_is_empty(&woken)) return;
    while ((node = list_pop(&woken))) {
        waiter *w = LIST_OWNER(node, waiter, node);
        sleepers[w->place / PLACES_OF_GATE] |= 1u << w->place % PLACES_OF_GATE;
        atomic_store(&w->call, w->to_lead ? IS_TO_LEAD : IS_DONE); /* and now it may be gone */
    }
    for (size_t i = 0; i < GATES; i++) {
        if (!sleepers[i]) continue;
        atomic_fetch_add(&client->gates[i], 1);
        syscall(SYS_futex, &client->gates[i], FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL,
                sleepers[i]);
    }
}

/* Before a poll: while it waits, nobody is to be woken. */
static void wake_now(dkv_client *client) {
    if (list_is_empty(&client->woken)) return;
    dkv_client_unlock(client);
    dkv_client_lock(client);
}

static void poll_once(dkv_client *client, int64_t until_ns) {
    client->poll_until_ns = min_i64(until_ns, dkv_client_due(client));
    dkv_rpc_loop_poll(client->loop, client->poll_until_ns, POLL_EVENTS_MAX);
    client->polled_ns = dkv_client_now();
    client->poll_until_ns = 0; /* awake: nobody needs to wake it */
    list_node *node;
    while ((node = list_pop(&client->congested))) list_add(&client->pumps, node);
    dkv_client_release_held(client);
    dkv_client_settle(client);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void promote(dkv_client *client) {
    if (client->polling || list_is_empty(&client->followers)) return;
    wake(client, LIST_OWNER(client->followers.head.prev, waiter, node), true);
}

/* Sleeps until woken, or until `until_ns`. Returns true, without the mutex, if nothing is left to
 * wait for. */
static bool follow(dkv_client *client, waiter *w, int64_t until_ns) {
    const struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    atomic_store(&w->call, SLEEPS);
    w->place = client->next_place++ % (GATES * PLACES_OF_GATE);
    w->following = true;
    list_add(&client->followers, &w->node);
    dkv_client_unlock(client);
    while (atomic_load(&w->call) == SLEEPS && dkv_client_now() < until_ns) {
        sleep_at(client, w, &until);
    }
    if (atomic_load(&w->call) == IS_DONE) return true;
    dkv_client_lock(client);
    if (w->following) {
        w->following = false;
        list_remove(&w->node);
    } else {
        /* Whoever has taken it out of the list is about to wake it, and must find it here. */
        while (atomic_load(&w->call) == SLEEPS) sleep_at(client, w, NULL);
    }
    return false;
}

/* Wakes those that are done and lets them run, so that what they start next leaves together. */
static void let_go(dkv_client *client) {
    if (list_is_empty(&client->woken)) return;
    client->gathering = true;
    dkv_client_unlock(client);
    sched_yield();
    dkv_client_lock(client);
    client->gathering = false;
    dkv_client_settle(client);
}

/* Polls at least once, so that a wait of no time makes progress. But not when other threads, while
 * they had the mutex, have ended what `w` waits for: no event would tell. */
static void lead(dkv_client *client, const waiter *w, int64_t until_ns) {
    client->polling = true;
    do {
        wake_now(client);
        if (w->left == 0) break;
        poll_once(client, until_ns);
        let_go(client);
    } while (w->left > 0 && dkv_client_now() < until_ns);
    client->polling = false;
}

bool dkv_client_await(dkv_client *client, waiter *w, int64_t until_ns) {
    while (w->left > 0) {
        if (!client->polling) {
            lead(client, w, until_ns);
        } else if (follow(client, w, until_ns)) {
            return true;
        }
        if (dkv_client_now() >= until_ns) break;
    }
    promote(client);
    if (w->left > 0) return false;
    dkv_client_unlock(client);
    return true;
}

int dkv_client_await_patiently(dkv_client *client, waiter *w, int64_t until_ns) {
    while (w->left > 0 && dkv_client_now() < until_ns) {
        if (dkv_client_await(client, w, min_i64(until_ns, dkv_client_now() + SLICE_NS))) {
            dkv_client_lock(client);
            return DKV_OK;
        }
        if (!client->interrupted) continue;
        dkv_client_unlock(client);
        bool interrupted = client->interrupted(client->interrupted_user);
        dkv_client_lock(client);
        if (interrupted) return DKV_ERR_CANCELLED;
    }
    return DKV_OK;
}

/* Nobody polls while the program does other things. What broke meanwhile should be known before
 * something is sent there. */
void dkv_client_catch_up(dkv_client *client) {
    if (client->polling || dkv_client_now() - client->polled_ns < CATCH_UP_NS) return;
    client->polling = true;
    wake_now(client);
    poll_once(client, 0);
    client->polling = false;
    promote(client);
}
