#include "member/internal.h"

#define CLOCK_SAMPLE_MS 1000u /* a link in use is pinged this often to compare clocks */

/* ---- when ---- */

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* When the link, or that the peer is DOWN, is forgotten unless it is wanted again. */
static int64_t rest_due(const dkv_peers *peers, const peer *p) {
    return p->used_ns + dkv_ns_of_ms(peers->options.timing.idle_ms);
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

int64_t dkv_peers_due_up(const dkv_peers *peers, const peer *p) {
    const dkv_timing *timing = &peers->options.timing;
    int64_t due = ping_due(peers, p);
    if (p->outstanding) return earlier(due, p->since_ns + dkv_ns_of_ms(timing->silence_ms));
    if (p->held) return due;
    if (p->held) return due;
    return p->wanted ? earlier(due, rest_due(peers, p)) : INT64_MIN;
}

/* When it is forgotten that a peer was DOWN; opening.c tries it again until then. */
static int64_t due_down(const dkv_peers *peers, uint16_t index) {
    const peer *p = &peers->all[index];
    if (p->held) return INT64_MAX;
    if (p->wanted) return rest_due(peers, p);
    return dkv_trust_awaits(peers->options.trust, index) ? INT64_MAX : INT64_MIN;
}

/* When this peer needs attention next. */
static int64_t due(const dkv_peers *peers, uint16_t index) {
    const peer *p = &peers->all[index];
    if (p->reach == DKV_REACH_UP) return dkv_peers_due_up(peers, p);
    if (p->link) {
        if (p->greeted) return INT64_MAX; /* waits for our own disk */
        return p->opened_ns + dkv_ns_of_ms(peers->options.timing.silence_ms);
    }
    return p->reach == DKV_REACH_DOWN ? due_down(peers, index) : INT64_MAX;
}

/* ---- what ---- */

static void tick_up(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    const dkv_timing *timing = &peers->options.timing;
    if (p->outstanding && at->now_ns - p->since_ns >= dkv_ns_of_ms(timing->silence_ms)) {
        dkv_peers_go_down(peers, at, index, "is down: it does not answer");
    } else if (dkv_peers_is_needed(p) && at->now_ns >= ping_due(peers, p)) {
        dkv_peers_ping(peers, at, index);
    } else if (!p->held) {
        dkv_peers_rest(peers, at, index);
    }
}

static void tick_peer(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    if (p->reach == DKV_REACH_UP) {
        tick_up(peers, at, index);
    } else if (p->link) {
        dkv_peers_go_down(peers, at, index, "is down: it accepts connections but does not answer");
    } else {
        dkv_peers_rest(peers, at, index);
    }
}

/* ---- ticks ---- */

static void forgive_own_pause(dkv_peers *peers, const dkv_moment *at) {
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        peers->all[i].since_ns = peers->all[i].opened_ns = at->now_ns;
    }
    for (size_t i = 0; i < peers->inbound.cap; i++) {
        inbound *in = peers->inbound.slots[i].value;
        if (in) in->accepted_ns = at->now_ns;
    }
}

void dkv_peers_tick(dkv_peers *peers, const dkv_moment *at) {
    /* A tick that comes this long after it was due: this node itself was stopped. */
    if (at->now_ns - dkv_ns_of_ms(peers->options.timing.silence_ms) / 2 > peers->next_ns) {
        forgive_own_pause(peers, at);
    }
    if (at->now_ns < peers->next_ns) return;
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        if (i != peers->options.self && due(peers, i) <= at->now_ns) {
            tick_peer(peers, at, i);
        }
    }
    peers->next_ns = INT64_MAX;
    dkv_peers_open_links(peers, at);
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        if (i != peers->options.self) dkv_peers_wake_at(peers, at, due(peers, i));
    }
    dkv_peers_wake_at(peers, at, dkv_peers_expect_hellos(peers, at));
}

int64_t dkv_peers_next_timer(const dkv_peers *peers) {
    return peers->next_ns;
}
