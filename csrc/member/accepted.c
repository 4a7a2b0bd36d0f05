/* Links that peers open to this node: they greet, are answered, and then ask. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "member/internal.h"

void dkv_peers_link_accepted(dkv_peers *peers, const dkv_moment *at, dkv_link link) {
    inbound *in = peers->inbound.len < DKV_LINKS_ACCEPTED_MAX ? calloc(1, sizeof *in) : NULL;
    if (!in || dkv_map_set(&peers->inbound, link, in)) {
        free(in);
        at->effects->close(at->effects->user, link);
        return;
    }
    in->link = link;
    in->accepted_ns = at->now_ns;
    in->peer = -1;
    dkv_peers_wake_at(peers, at, at->now_ns + dkv_ns_of_ms(peers->options.timing.silence_ms));
}

static void close_accepted(dkv_peers *peers, const dkv_moment *at, inbound *in) {
    at->effects->close(at->effects->user, in->link);
    dkv_peers_accepted_closed(peers, in->link);
}

/* A peer uses one link at a time: of an older one only the end has not been heard of yet. */
static void close_older(dkv_peers *peers, const dkv_moment *at, const inbound *in) {
    for (size_t i = 0; i < peers->inbound.cap; i++) {
        inbound *other = peers->inbound.slots[i].value;
        if (!other || other == in || other->peer != in->peer) continue;
        close_accepted(peers, at, other);
        return; /* there is one at most, and the table has changed */
    }
}

/* Somebody who is not in the map knocks: logged once, as there may be no end of it. */
static void tell_stranger(dkv_peers *peers, const dkv_moment *at, const dkv_hello *hello) {
    if (peers->stranger_told) return;
    peers->stranger_told = true;
    char line[DKV_PEERS_WHY_MAX], id[DKV_NAME_MAX + 1];
    snprintf(id, sizeof id, "%.*s", (int)hello->node_id.len, (const char *)hello->node_id.data);
    snprintf(line, sizeof line,
             "node %s was refused: it is not in this node's cluster map, which has %u nodes; give "
             "both the same `nodes` in their configuration files (said once)",
             id, peers->options.map->n_members);
    dkv_notice_field field = {.key = "peer", .text = id};
    at->effects->log(at->effects->user, &(dkv_notice){DKV_LOG_WARN, "stranger_refused", line,
                                                      .fields = &field, .n_fields = 1});
}

static void refuse_hello(dkv_peers *peers, const dkv_moment *at, const inbound *in, int index,
                         const dkv_hello *hello, int err) {
    dkv_message reply = {.kind = DKV_MSG_HELLO_REPLY,
                         .hello = dkv_peers_hello_to(peers, at, peers->options.self)};
    reply.hello.err = err;
    at->effects->send(at->effects->user, in->link, &reply);
    if (index >= 0) {
        dkv_peers_tell_mismatch(peers, at, (uint16_t)index, hello, err);
    } else {
        tell_stranger(peers, at, hello);
    }
}

static void answer_hello(dkv_peers *peers, const dkv_moment *at, inbound *in) {
    if (in->peer < 0 || in->replied || in->await_changes > peers->durable_changes) return;
    in->replied = true;
    dkv_message reply = {.kind = DKV_MSG_HELLO_REPLY,
                         .hello = dkv_peers_hello_to(peers, at, (uint16_t)in->peer)};
    at->effects->send(at->effects->user, in->link, &reply);
}

/* A peer that was taken for dead has greeted. */
static void is_alive(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    if (p->reach != DKV_REACH_DOWN || p->link) return;
    if (dkv_peers_is_needed(p)) {
        p->retry_ns = at->now_ns;
        dkv_peers_open_links(peers, at);
    } else {
        dkv_peers_rest(peers, at, index);
    }
}

static void on_hello(dkv_peers *peers, const dkv_moment *at, inbound *in, const dkv_hello *hello) {
    int index;
    int err = dkv_peers_check_hello(peers, hello, &index);
    if (err) {
        refuse_hello(peers, at, in, index, hello, err);
        return;
    }
    in->peer = index;
    close_older(peers, at, in);
    dkv_peers_greeted_by(peers, at, (uint16_t)index, hello, false);
    in->await_changes = peers->options.trust->changes;
    answer_hello(peers, at, in);
    is_alive(peers, at, (uint16_t)index);
}

void dkv_peers_answer_hellos(dkv_peers *peers, const dkv_moment *at) {
    for (size_t i = 0; i < peers->inbound.cap; i++) {
        if (peers->inbound.slots[i].value) answer_hello(peers, at, peers->inbound.slots[i].value);
    }
}

static void on_ping(dkv_peers *peers, const dkv_moment *at, const inbound *in,
                    const dkv_message *ping) {
    dkv_message pong = {.kind = DKV_MSG_PONG, .id = ping->id};
    pong.pong.wall_ms = at->wall_ms;
    pong.pong.state = peers->options.state(peers->options.user);
    at->effects->send(at->effects->user, in->link, &pong);
    if (ping->ping.remembers) {
        dkv_peers_told(peers, at, (uint16_t)in->peer, ping->ping.remembers);
    }
}

int dkv_peers_accepted_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                               const dkv_message *message) {
    inbound *in = dkv_map_get(&peers->inbound, link);
    if (!in) return -1;
    if (message->kind == DKV_MSG_HELLO && in->peer < 0) {
        on_hello(peers, at, in, &message->hello);
        return -1;
    }
    if (in->replied && message->kind == DKV_MSG_PING) {
        on_ping(peers, at, in, message);
        return -1;
    }
    bool asks = dkv_message_is_request(message->kind);
    if (in->replied && asks) return in->peer;
    /* A second greeting, a request before the greeting was answered, or a reply: not our protocol.
     */
    close_accepted(peers, at, in);
    return -1;
}

void dkv_peers_accepted_closed(dkv_peers *peers, dkv_link link) {
    free(dkv_map_remove(&peers->inbound, link));
}

/* The one that has waited longest for its greeting; NULL if there is none. */
static inbound *oldest_ungreeted(const dkv_peers *peers) {
    inbound *oldest = NULL;
    for (size_t i = 0; i < peers->inbound.cap; i++) {
        inbound *in = peers->inbound.slots[i].value;
        if (!in || in->peer >= 0) continue;
        if (!oldest || in->accepted_ns < oldest->accepted_ns) oldest = in;
    }
    return oldest;
}

int64_t dkv_peers_expect_hellos(dkv_peers *peers, const dkv_moment *at) {
    int64_t patience_ns = dkv_ns_of_ms(peers->options.timing.silence_ms);
    inbound *in;
    while ((in = oldest_ungreeted(peers))) {
        if (in->accepted_ns + patience_ns > at->now_ns) return in->accepted_ns + patience_ns;
        close_accepted(peers, at, in);
    }
    return INT64_MAX;
}
