/* Links that peers open to this node: they greet, are answered, and then ask. */
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
    in->peer = -1;
}

static void refuse_hello(const dkv_peers *peers, const dkv_moment *at, const inbound *in, int index,
                         int err) {
    dkv_message reply = {.kind = DKV_MSG_HELLO_REPLY,
                         .hello = dkv_peers_hello_to(peers, at, peers->options.self)};
    reply.hello.err = err;
    at->effects->send(at->effects->user, in->link, &reply);
    if (index < 0) return;
    dkv_peers_log(peers, at, DKV_LOG_WARN, (uint16_t)index,
                  err == DKV_ERR_EPOCH ? "was refused: its cluster map differs from ours"
                                       : "was refused: it is of another cluster");
}

static void answer_hello(dkv_peers *peers, const dkv_moment *at, inbound *in) {
    if (in->peer < 0 || in->replied || in->await_changes > peers->durable_changes) return;
    in->replied = true;
    dkv_message reply = {.kind = DKV_MSG_HELLO_REPLY,
                         .hello = dkv_peers_hello_to(peers, at, (uint16_t)in->peer)};
    at->effects->send(at->effects->user, in->link, &reply);
}

static void on_hello(dkv_peers *peers, const dkv_moment *at, inbound *in, const dkv_hello *hello) {
    int index;
    int err = dkv_peers_check_hello(peers, hello, &index);
    if (err) {
        refuse_hello(peers, at, in, index, err);
        return;
    }
    in->peer = index;
    dkv_peers_greeted_by(peers, at, (uint16_t)index, hello, false);
    in->await_changes = peers->options.trust->changes;
    const peer *p = &peers->all[index];
    if (p->reach == DKV_REACH_DOWN && !p->link) dkv_peers_open_link(peers, at, (uint16_t)index);
    answer_hello(peers, at, in);
}

void dkv_peers_answer_hellos(dkv_peers *peers, const dkv_moment *at) {
    for (size_t i = 0; i < peers->inbound.cap; i++) {
        if (peers->inbound.slots[i].value) answer_hello(peers, at, peers->inbound.slots[i].value);
    }
}

static void answer_ping(const dkv_moment *at, const inbound *in, uint64_t id, int state) {
    dkv_message pong = {.kind = DKV_MSG_PONG, .id = id};
    pong.pong.wall_ms = at->wall_ms;
    pong.pong.state = state;
    at->effects->send(at->effects->user, in->link, &pong);
}

int dkv_peers_accepted_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                               const dkv_message *message, int state) {
    inbound *in = dkv_map_get(&peers->inbound, link);
    if (!in) return -1;
    if (message->kind == DKV_MSG_HELLO && in->peer < 0) {
        on_hello(peers, at, in, &message->hello);
        return -1;
    }
    if (in->replied && message->kind == DKV_MSG_PING) {
        answer_ping(at, in, message->id, state);
        return -1;
    }
    bool asks = message->kind == DKV_MSG_APPLY || message->kind == DKV_MSG_FETCH ||
                message->kind == DKV_MSG_FORWARD;
    if (in->replied && asks) return in->peer;
    /* A second greeting, a request before the greeting was answered, or a reply: not our protocol.
     */
    at->effects->close(at->effects->user, link);
    dkv_peers_accepted_closed(peers, link);
    return -1;
}

void dkv_peers_accepted_closed(dkv_peers *peers, dkv_link link) {
    free(dkv_map_remove(&peers->inbound, link));
}
