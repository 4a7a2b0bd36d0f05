/* Links to and from other nodes: Peer.Exchange, see proto/peer.proto. A link that this node opens
 * has a channel, and so a connection, of its own, which goes with it. Its large lane is opened when
 * the first large message has to be sent or has come in. */
#include <stdlib.h>

#include "base/err.h"
#include "host/internal.h"

#define EXCHANGE "/dkv.v1.Peer/Exchange"

typedef struct peer_link {
    dkv_pair pair;            /* first: a pair is cast to its link */
    dkv_link id;              /* 0: not known to the node */
    bool own;                 /* this node opened it */
    dkv_rpc_channel *channel; /* of an own link that has not ended */
} peer_link;

static const dkv_rpc_stream_events opened_events;

static peer_link *link_of(dkv_pair *pair) {
    return (peer_link *)(void *)pair;
}

/* From here on nothing goes in or out; `closed` of the lanes still follows. */
static void end_link(peer_link *link) {
    dkv_host *host = link->pair.host;
    dkv_map_remove(&host->links, link->id);
    link->id = 0;
    if (link->pair.lane && !link->own) dkv_map_remove(&host->link_lanes, link->pair.lane);
    link->pair.lane = 0;
    link->pair.ended = true;
    dkv_pair_fail(&link->pair, DKV_ERR_CANCELLED, "the link was closed");
    dkv_rpc_channel_del(link->channel);
    link->channel = NULL;
}

/* ---- streams ---- */

static void announce_lane(dkv_pair *pair, dkv_rpc_stream *stream) {
    dkv_buf item = {0};
    if (dkv_wire_put_lane(&item, pair->lane) == DKV_OK) {
        dkv_rpc_stream_send(stream, dkv_buf_slice(&item));
    }
    dkv_buf_free(&item);
}

static void open_large_lane(peer_link *link) {
    dkv_pair *pair = &link->pair;
    if (dkv_rpc_stream_open(link->channel, EXCHANGE, &opened_events, link, &pair->large)) return;
    dkv_pair_hold(pair);
    announce_lane(pair, pair->large);
    dkv_rpc_stream_flush(pair->large);
}

static bool wants_large_lane(const peer_link *link, size_t len) {
    return len > DKV_WIRE_LARGE && link->own && !link->pair.large && !link->pair.ended;
}

static void each_message(void *user, const dkv_message *message) {
    peer_link *link = user;
    if (!link->id) return;
    dkv_host_step(link->pair.host,
                  (dkv_event){.kind = DKV_EVENT_MESSAGE, .message = {link->id, message}});
}

static int take_messages(dkv_pair *pair, dkv_slice batch) {
    return dkv_wire_each_message(batch, each_message, link_of(pair));
}

static void on_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    peer_link *link = user;
    (void)err;
    (void)detail;
    if (!link) return;
    dkv_link id = link->id;
    if (dkv_pair_lane_closed(&link->pair, stream)) end_link(link);
    if (id) {
        dkv_host_refresh_clock(link->pair.host);
        dkv_host_step(link->pair.host, (dkv_event){.kind = DKV_EVENT_LINK_CLOSED, .link = id});
    }
    dkv_pair_release(&link->pair);
}

/* ---- links that this node opens ---- */

static void on_opened(void *user, dkv_rpc_stream *stream) {
    peer_link *link = user;
    if (stream != link->pair.small || !link->id) return;
    announce_lane(&link->pair, stream);
    dkv_host_refresh_clock(link->pair.host);
    dkv_host_step(link->pair.host, (dkv_event){.kind = DKV_EVENT_LINK_OPENED, .link = link->id});
}

static void on_message_opened(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    peer_link *link = user;
    (void)stream;
    dkv_host_refresh_clock(link->pair.host);
    int err = take_messages(&link->pair, bytes);
    if (err) dkv_pair_fail(&link->pair, err, "what the other node sent could not be understood");
    if (wants_large_lane(link, bytes.len)) open_large_lane(link);
}

static const dkv_rpc_stream_events opened_events = {
    .message = on_message_opened,
    .closed = on_closed,
    .opened = on_opened,
};

static int open_link(dkv_host *host, uint16_t peer, peer_link *link) {
    const dkv_cluster_map *map = dkv_ring_map(dkv_node_ring(host->node));
    int err = dkv_rpc_channel_new(host->loop, map->members[peer].address, &link->channel);
    if (err) return err;
    err = dkv_map_set(&host->links, link->id, link);
    if (err) return err;
    return dkv_rpc_stream_open(link->channel, EXCHANGE, &opened_events, link, &link->pair.small);
}

void dkv_host_connect(void *user, uint16_t peer, dkv_link id) {
    dkv_host *host = user;
    if (host->closing) return;
    peer_link *link = link_of(dkv_pair_new(host, sizeof *link, take_messages, NULL));
    int err = DKV_ERR_NO_MEMORY;
    if (link) {
        link->id = id;
        link->own = true;
        link->pair.lane = dkv_host_random();
        link->pair.begun = true;
        err = open_link(host, peer, link);
        if (!err) return;
        end_link(link);
        dkv_pair_release(&link->pair);
    }
    dkv_host_fatal(host, err, "a link to another node cannot be opened");
}

/* ---- links that peers open ---- */

void *dkv_link_accept(void *user, dkv_rpc_stream *stream) {
    dkv_host *host = user;
    dkv_pair *pair = dkv_pair_new(host, sizeof(peer_link), take_messages, stream);
    if (!pair) dkv_rpc_stream_cancel(stream);
    return pair;
}

/* The link that a stream belongs to, as its first message tells; NULL if it was refused. */
static peer_link *begin_link(peer_link *fresh, dkv_rpc_stream *stream, dkv_slice bytes) {
    dkv_host *host = fresh->pair.host;
    if (fresh->pair.begun) return fresh;
    if (host->stopping) {
        dkv_rpc_stream_fail(stream, DKV_ERR_UNAVAILABLE, "the node is stopping");
        return NULL;
    }
    peer_link *link = link_of(dkv_pair_begin(&fresh->pair, &host->link_lanes, stream, bytes));
    if (link != fresh) return link;
    dkv_link id = host->last_accepted + 2;
    if (dkv_map_set(&host->links, id, link)) {
        dkv_rpc_stream_fail(stream, DKV_ERR_NO_MEMORY, dkv_err_sentence(DKV_ERR_NO_MEMORY));
        return NULL;
    }
    link->id = host->last_accepted = id;
    dkv_host_step(host, (dkv_event){.kind = DKV_EVENT_LINK_ACCEPTED, .link = id});
    return link;
}

static void on_message_accepted(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    peer_link *link = user;
    if (!link) return;
    dkv_host_refresh_clock(link->pair.host);
    link = begin_link(link, stream, bytes);
    if (!link) return;
    dkv_pair_receive(&link->pair, bytes);
}

const dkv_rpc_stream_events dkv_link_accepted_events = {
    .message = on_message_accepted,
    .closed = on_closed,
};

/* ---- other effects ---- */

void dkv_host_close(void *user, dkv_link id) {
    dkv_host *host = user;
    peer_link *link = dkv_map_get(&host->links, id);
    if (link) end_link(link);
}

void dkv_host_send(void *user, dkv_link id, const dkv_message *message) {
    dkv_host *host = user;
    peer_link *link = dkv_map_get(&host->links, id);
    if (!link || host->failure) return;
    host->scratch.len = 0;
    if (dkv_wire_put_message(&host->scratch, message)) {
        dkv_pair_fail(&link->pair, DKV_ERR_NO_MEMORY, dkv_err_sentence(DKV_ERR_NO_MEMORY));
        return;
    }
    if (wants_large_lane(link, host->scratch.len)) open_large_lane(link);
    dkv_pair_send(&link->pair, &host->scratch);
}

/* No step follows, so the others' links are only forgotten. */
void dkv_links_end(dkv_host *host) {
    host->closing = true;
    for (size_t at = 0; at < host->links.cap; at++) {
        peer_link *link = host->links.slots[at].value;
        if (!link) continue;
        link->id = 0;
        if (!link->own) continue;
        dkv_rpc_channel_del(link->channel);
        link->channel = NULL;
    }
    dkv_map_free(&host->links);
}
