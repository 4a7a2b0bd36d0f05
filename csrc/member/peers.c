#include "member/peers.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "member/internal.h"

#define BACKOFF_MAX 4u           /* times retry_ms */
#define BACKOFF_UNWANTED_MAX 32u /* the same for a peer whose word alone is awaited */

/* Own links carry the peer's index: odd, index << 1, count above. */
enum { LINK_PEER_SHIFT = 1, LINK_PEER_BITS = 10 };
_Static_assert(DKV_MEMBERS_MAX <= 1u << LINK_PEER_BITS, "a member index fits into a link");

static bool is_own_link(dkv_link link) {
    return link & 1;
}

static peer *peer_of_link(dkv_peers *peers, dkv_link link, uint16_t *index) {
    *index = (link >> LINK_PEER_SHIFT) & ((1u << LINK_PEER_BITS) - 1);
    if (*index >= peers->options.map->n_members) return NULL;
    peer *p = &peers->all[*index];
    return p->link == link ? p : NULL;
}

void dkv_peers_wake_at(dkv_peers *peers, const dkv_moment *at, int64_t when_ns) {
    if (when_ns < at->now_ns) when_ns = at->now_ns;
    if (when_ns < peers->next_ns) peers->next_ns = when_ns;
}

void dkv_peers_log(const dkv_peers *peers, const dkv_moment *at, dkv_log_level level,
                   const char *event, uint16_t index, const char *what) {
    const char *id = dkv_peers_name(peers, index);
    char line[DKV_PEERS_WHY_MAX + DKV_NAME_MAX];
    snprintf(line, sizeof line, "node %s %s", id, what);
    dkv_notice_field field = {.key = "peer", .text = id};
    at->effects->log(at->effects->user,
                     &(dkv_notice){level, event, line, .fields = &field, .n_fields = 1});
}

int dkv_peers_new(const dkv_peers_options *options, dkv_peers **out) {
    dkv_peers *peers = calloc(1, sizeof *peers);
    if (!peers) return DKV_ERR_NO_MEMORY;
    peers->all = calloc(options->map->n_members, sizeof *peers->all);
    if (!peers->all) {
        free(peers);
        return DKV_ERR_NO_MEMORY;
    }
    peers->options = *options;
    peers->rand.state = options->seed;
    peers->map_digest = dkv_cluster_map_digest(options->map);
    peers->all[options->self].reach = DKV_REACH_UP;
    *out = peers;
    return DKV_OK;
}

void dkv_peers_del(dkv_peers *peers) {
    if (!peers) return;
    for (size_t i = 0; i < peers->inbound.cap; i++) free(peers->inbound.slots[i].value);
    dkv_map_free(&peers->inbound);
    free(peers->all);
    free(peers);
}

/* ---- links of our own ---- */

void dkv_peers_open_link(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    uint64_t count = ++peers->links_opened;
    p->link = count << (LINK_PEER_SHIFT + LINK_PEER_BITS) | (uint64_t)index << LINK_PEER_SHIFT | 1;
    p->opened_ns = at->now_ns;
    p->greeted = false;
    p->outstanding = 0;
    p->pinged = false;
    if (p->reach == DKV_REACH_UNKNOWN) p->reach = DKV_REACH_CONNECTING;
    dkv_peers_forget_clock(peers, at, index);
    dkv_peers_wake_at(peers, at, at->now_ns + dkv_ns_of_ms(peers->options.timing.silence_ms));
    at->effects->connect(at->effects->user, index, p->link);
}

static void drop_link(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    if (p->link) at->effects->close(at->effects->user, p->link);
    p->link = 0;
    dkv_peers_forget_clock(peers, at, index);
}

void dkv_peers_rest(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    drop_link(peers, at, index);
    peers->all[index].reach = DKV_REACH_UNKNOWN;
    peers->all[index].wanted = false;
    peers->all[index].failures = 0;
    dkv_peers_wake_at(peers, at, at->now_ns); /* there is room now to open another */
}

void dkv_peers_come_up(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    bool was_down = p->reach == DKV_REACH_DOWN;
    p->reach = DKV_REACH_UP;
    p->mismatch_told = false;
    p->untold = NULL;
    p->failures = 0;
    p->since_ns = at->now_ns;
    if (p->wants_word) dkv_peers_ping(peers, at, index);
    p->wants_word = false;
    dkv_peers_wake_at(peers, at, at->now_ns); /* there is room now to open another link */
    if (was_down) {
        dkv_peers_log(peers, at, dkv_peers_is_needed(p) ? DKV_LOG_INFO : DKV_LOG_DEBUG, "peer_up",
                      index, "is back");
    }
    peers->options.changed(peers->options.user, at, index);
}

static void tell_down(const dkv_peers *peers, const dkv_moment *at, uint16_t index,
                      const char *why) {
    peer *p = &peers->all[index];
    bool is_needed = dkv_peers_is_needed(p);
    dkv_peers_log(peers, at, is_needed ? DKV_LOG_WARN : DKV_LOG_DEBUG, "peer_down", index, why);
    p->untold = is_needed ? NULL : why;
}

void dkv_peers_go_down(dkv_peers *peers, const dkv_moment *at, uint16_t index, const char *why) {
    peer *p = &peers->all[index];
    dkv_reach was = p->reach;
    drop_link(peers, at, index);
    p->reach = DKV_REACH_DOWN;
    if (p->failures < (dkv_peers_is_needed(p) ? BACKOFF_MAX : BACKOFF_UNWANTED_MAX)) p->failures++;
    int64_t pause = dkv_ns_of_ms(peers->options.timing.retry_ms) * p->failures;
    /* Up to a quarter more, so that a cluster does not knock in step on a node that returns. */
    pause += (int64_t)dkv_rand_below(&peers->rand, (uint64_t)pause / 4 + 1);
    p->retry_ns = at->now_ns + pause;
    dkv_peers_wake_at(peers, at, at->now_ns); /* there is room now to open another */
    if (was == DKV_REACH_DOWN) return;
    if (why) tell_down(peers, at, index, why);
    peers->options.changed(peers->options.user, at, index);
}

dkv_reach dkv_peers_reach(const dkv_peers *peers, uint16_t index) {
    dkv_reach reach = peers->all[index].reach;
    bool is_next = reach == DKV_REACH_UNKNOWN && dkv_trust_awaits(peers->options.trust, index);
    return is_next ? DKV_REACH_CONNECTING : reach;
}

/* How a peer is seen that was needed before, or is from now on. */
static dkv_reach need(dkv_peers *peers, const dkv_moment *at, uint16_t index, bool was_needed) {
    peer *p = &peers->all[index];
    if (was_needed) return p->reach;
    if (p->reach == DKV_REACH_UNKNOWN) p->reach = DKV_REACH_CONNECTING;
    if (p->reach == DKV_REACH_DOWN) p->retry_ns = at->now_ns;
    if (p->reach == DKV_REACH_DOWN && p->untold) tell_down(peers, at, index, p->untold);
    dkv_peers_open_links(peers, at);
    return p->reach;
}

dkv_reach dkv_peers_want(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    bool was_needed = dkv_peers_is_needed(p);
    p->used_ns = at->now_ns;
    p->wanted = true;
    return need(peers, at, index, was_needed);
}

dkv_reach dkv_peers_hold(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    bool was_needed = dkv_peers_is_needed(p);
    p->held = true;
    return need(peers, at, index, was_needed);
}

void dkv_peers_release(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peers->all[index].held = false;
    dkv_peers_wake_at(peers, at, at->now_ns);
}

bool dkv_peers_differs(const dkv_peers *peers, uint16_t index) {
    return peers->all[index].mismatch_told;
}

int dkv_peers_state(const dkv_peers *peers, uint16_t index) {
    return peers->all[index].state;
}

bool dkv_peers_send(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                    const dkv_message *message) {
    peer *p = &peers->all[index];
    if (p->reach != DKV_REACH_UP) return false;
    if (p->outstanding++ == 0) {
        p->since_ns = at->now_ns;
        dkv_peers_wake_at(peers, at, at->now_ns + dkv_ns_of_ms(peers->options.timing.ping_ms));
    }
    at->effects->send(at->effects->user, p->link, message);
    return true;
}

void dkv_peers_ping(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    const dkv_trust *trust = peers->options.trust;
    dkv_message ping = {.kind = DKV_MSG_PING};
    if (trust->changes <= peers->durable_changes) ping.ping.remembers = trust->remembered[index];
    p->pinged = true;
    p->pinged_ns = at->now_ns;
    dkv_peers_send(peers, at, index, &ping);
}

/* ---- events ---- */

void dkv_peers_link_opened(dkv_peers *peers, const dkv_moment *at, dkv_link link) {
    uint16_t index;
    if (peer_of_link(peers, link, &index)) dkv_peers_greet(peers, at, index);
}

void dkv_peers_link_closed(dkv_peers *peers, const dkv_moment *at, dkv_link link) {
    uint16_t index;
    if (!is_own_link(link)) {
        dkv_peers_accepted_closed(peers, link);
    } else if (peer_of_link(peers, link, &index)) {
        peers->all[index].link = 0;
        dkv_peers_go_down(peers, at, index, "is down: the connection was refused or broke");
    }
}

static int own_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                       const dkv_message *message) {
    uint16_t index;
    peer *p = peer_of_link(peers, link, &index);
    if (!p) return -1;
    p->since_ns = at->now_ns;
    if (message->kind == DKV_MSG_HELLO_REPLY && !p->greeted) {
        dkv_peers_hello_reply(peers, at, index, &message->hello);
        return -1;
    }
    if (p->reach != DKV_REACH_UP) return -1;
    if (p->outstanding) p->outstanding--;
    switch (message->kind) {
    case DKV_MSG_PONG:
        p->pinged = false;
        p->state = message->pong.state;
        dkv_peers_sample_clock(peers, at, index, message->pong.wall_ms, p->pinged_ns);
        dkv_peers_wake_at(peers, at, dkv_peers_due_up(peers, p));
        return -1;
    case DKV_MSG_APPLY_REPLY:
        p->state = message->apply_reply.state;
        if (p->state) dkv_peers_wake_at(peers, at, dkv_peers_due_up(peers, p));
        return index;
    case DKV_MSG_FETCH_REPLY:
    case DKV_MSG_FORWARD_REPLY:
    case DKV_MSG_SUMS_REPLY:
    case DKV_MSG_LIST_REPLY: return index;
    default: dkv_peers_go_down(peers, at, index, "is cut off: it sent what is no reply"); return -1;
    }
}

int dkv_peers_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                      const dkv_message *message) {
    return is_own_link(link) ? own_message(peers, at, link, message)
                             : dkv_peers_accepted_message(peers, at, link, message);
}

void dkv_peers_durable(dkv_peers *peers, const dkv_moment *at, uint64_t changes) {
    peers->durable_changes = changes;
    dkv_peers_answer_hellos(peers, at);
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        peer *p = &peers->all[i];
        if (p->link && p->greeted && p->reach != DKV_REACH_UP && p->await_changes <= changes) {
            dkv_peers_come_up(peers, at, i);
        }
    }
}
