#include "member/internal.h"

#define CLOCK_SAMPLE_MS 1000u /* a link in use is pinged this often to compare clocks */

/* ---- when ---- */

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Any message breaks a silence, but only a PONG tells that a peer takes writes again and what time
 * it is: for these it is asked however much else it says. */
static int64_t ping_due(const dkv_peers *peers, const peer *p) {
    int64_t ping_ns = dkv_ns_of_ms(peers->options.timing.ping_ms);
    if (p->pinged) return INT64_MAX;
    int64_t due = p->outstanding ? p->since_ns + ping_ns : INT64_MAX;
    if (p->state) due = earlier(due, p->sampled_ns + ping_ns);
    if (p->used_ns > p->sampled_ns || dkv_peers_is_off(p)) {
        due = earlier(due, p->sampled_ns + dkv_ns_of_ms(CLOCK_SAMPLE_MS));
    }
    return due;
}

/* Whether the link is kept although nobody uses it: this node is still being vouched for, or writes
 * are refused because of what the peer said, which only the peer can take back. */
static bool is_kept(const dkv_peers *peers, const peer *p) {
    return peers->options.trust->is_new || p->state || dkv_peers_is_off(p);
}

int64_t dkv_peers_due_up(const dkv_peers *peers, const peer *p) {
    const dkv_timing *timing = &peers->options.timing;
    int64_t due = ping_due(peers, p);
    if (p->outstanding) return earlier(due, p->since_ns + dkv_ns_of_ms(timing->silence_ms));
    return is_kept(peers, p) ? due : earlier(due, p->used_ns + dkv_ns_of_ms(timing->idle_ms));
}

/* When this peer needs attention next. */
static int64_t due(const dkv_peers *peers, const peer *p) {
    if (p->reach == DKV_REACH_UP) return dkv_peers_due_up(peers, p);
    if (p->link) {
        if (p->greeted) return INT64_MAX; /* waits for our own disk */
        return p->opened_ns + dkv_ns_of_ms(peers->options.timing.silence_ms);
    }
    if (p->reach == DKV_REACH_DOWN) return p->retry_ns;
    return peers->options.trust->is_new ? INT64_MIN : INT64_MAX;
}

/* ---- what ---- */

static void tick_up(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    const dkv_timing *timing = &peers->options.timing;
    if (p->outstanding && at->now_ns - p->since_ns >= dkv_ns_of_ms(timing->silence_ms)) {
        dkv_peers_go_down(peers, at, index, "is down: it does not answer");
    } else if (at->now_ns >= ping_due(peers, p)) {
        int64_t used_ns = p->used_ns;
        p->pinged = true;
        p->pinged_ns = at->now_ns;
        dkv_peers_send(peers, at, index, &(dkv_message){.kind = DKV_MSG_PING});
        p->used_ns = used_ns; /* a ping does not keep a link from becoming idle */
    } else {                  /* idle */
        dkv_peers_drop_link(p, at);
        p->reach = DKV_REACH_UNKNOWN;
    }
}

static void tick_peer(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    if (p->reach == DKV_REACH_UP) {
        tick_up(peers, at, index);
    } else if (p->link) {
        dkv_peers_go_down(peers, at, index, "is down: it accepts connections but does not answer");
    } else {
        dkv_peers_open_link(peers, at, index);
    }
}

static void forgive_own_pause(dkv_peers *peers, const dkv_moment *at) {
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        peers->all[i].since_ns = peers->all[i].opened_ns = at->now_ns;
    }
}

void dkv_peers_tick(dkv_peers *peers, const dkv_moment *at) {
    /* A tick that comes this long after it was due: this node itself was stopped. */
    if (at->now_ns - dkv_ns_of_ms(peers->options.timing.silence_ms) / 2 > peers->next_ns) {
        forgive_own_pause(peers, at);
    }
    if (at->now_ns < peers->next_ns) return;
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        if (i != peers->options.self && due(peers, &peers->all[i]) <= at->now_ns) {
            tick_peer(peers, at, i);
        }
    }
    peers->next_ns = INT64_MAX;
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        if (i != peers->options.self) dkv_peers_wake_at(peers, at, due(peers, &peers->all[i]));
    }
}

int64_t dkv_peers_next_timer(const dkv_peers *peers) {
    return peers->next_ns;
}
