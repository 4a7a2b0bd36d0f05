/* Unary calls: KV.Get, Put, Delete and Map, Admin.Status, Shares and
 * DeclareLost. */
#include <stdlib.h>
#include <string.h>

#include "admin.pb-c.h"
#include "base/err.h"
#include "dkv_version.h"
#include "host/internal.h"

#define SHARES_MAX 4096u /* in one reply: 200 KB, and some milliseconds of the owner thread */

/* ---- answering ---- */

static void reply_error(dkv_host *host, dkv_rpc_call *call, const dkv_reply *reply) {
    char detail[DKV_DETAIL_MAX];
    size_t len = reply->detail.len < sizeof detail ? reply->detail.len : sizeof detail - 1;
    if (len) memcpy(detail, reply->detail.data, len);
    detail[len] = 0;
    host->scratch.len = 0;
    dkv_slice trailer = {0};
    if (dkv_wire_put_error(&host->scratch, reply) == DKV_OK) {
        trailer = dkv_buf_slice(&host->scratch);
    }
    dkv_rpc_call_reply(call, reply->err, detail, trailer);
}

static void refuse(dkv_host *host, dkv_rpc_call *call, int err, const char *detail) {
    dkv_reply reply = {.err = err, .detail = dkv_slice_of(detail)};
    reply_error(host, call, &reply);
}

/* Replies with what was encoded into scratch, unless that failed. */
static void reply_scratch(dkv_host *host, dkv_rpc_call *call, int err) {
    if (err) {
        refuse(host, call, err, dkv_err_sentence(err));
    } else {
        dkv_rpc_call_reply(call, DKV_OK, "", dkv_buf_slice(&host->scratch));
    }
}

void dkv_call_reply(dkv_host *host, dkv_rpc_call *call, dkv_op op, const dkv_reply *reply) {
    if (reply->err) {
        reply_error(host, call, reply);
        return;
    }
    host->scratch.len = 0; /* which is what DeclareLostReply is encoded as */
    reply_scratch(host, call, op ? dkv_wire_put_unary_reply(&host->scratch, op, reply) : DKV_OK);
}

/* ---- requests ---- */

/* The call's deadline counts where the request names no time of its own, and cuts one that is
 * longer. Times out of range stay, for the node to refuse. */
static uint32_t timeout_of(uint32_t asked_ms, uint32_t deadline_ms) {
    if (deadline_ms == DKV_RPC_NO_TIMEOUT || asked_ms > DKV_TIMEOUT_MAX_MS) return asked_ms;
    if (asked_ms && asked_ms < deadline_ms) return asked_ms;
    if (deadline_ms > DKV_TIMEOUT_MAX_MS) return DKV_TIMEOUT_MAX_MS;
    return deadline_ms ? deadline_ms : 1;
}

static void take_call(dkv_host *host, dkv_rpc_call *call, dkv_op op, dkv_slice bytes,
                      uint32_t timeout_ms) {
    dkv_host_refresh_clock(host);
    dkv_request request;
    void *scratch;
    int err = dkv_wire_get_unary_request(bytes, op, &request, &scratch);
    if (err) {
        refuse(host, call, err, "the request could not be understood");
        return;
    }
    request.timeout_ms = timeout_of(request.timeout_ms, timeout_ms);
    dkv_host_request(host, (dkv_waiter){.call = call, .op = op}, &request);
    free(scratch);
}

void dkv_call_get(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    take_call(user, call, DKV_OP_GET, bytes, timeout_ms);
}

void dkv_call_put(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    take_call(user, call, DKV_OP_PUT, bytes, timeout_ms);
}

void dkv_call_delete(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    take_call(user, call, DKV_OP_DELETE, bytes, timeout_ms);
}

/* ---- looking in ---- */

void dkv_call_map(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    dkv_host *host = user;
    (void)bytes;
    (void)timeout_ms;
    host->scratch.len = 0;
    int err = dkv_wire_put_map(&host->scratch, dkv_ring_map(dkv_node_ring(host->node)));
    reply_scratch(host, call, err);
}

static void fill_store(const dkv_host *host, const dkv_store_stats *from,
                       Dkv__V1__StatusReply *to) {
    to->store_id = dkv_store_id(dkv_node_store(host->node));
    to->records = from->records;
    to->tombstones = from->tombstones;
    to->live_bytes = from->live_bytes;
    to->log_bytes = from->log_bytes;
    to->index_bytes = from->index_bytes;
    to->segments = from->segments;
    to->full = from->full;
    to->damaged_records = from->damaged_records;
}

/* In milliseconds, never 0; 0 if there was none. */
static uint64_t age_ms(const dkv_host *host, int64_t then_ns) {
    return then_ns ? (uint64_t)(host->now_ns - then_ns) / 1000000 + 1 : 0;
}

static void fill_healing(const dkv_host *host, const dkv_node_status *from,
                         Dkv__V1__StatusReply *to) {
    to->hints = from->heal.hints;
    to->dirty = from->heal.dirty;
    to->heal_sessions = from->heal.sessions;
    to->heal_fetched = from->heal.fetched;
    to->heal_sent = from->heal.sent;
    to->round_age_ms = age_ms(host, from->heal.round_ns);
    to->shares = from->shares;
    to->shares_in_sync = from->shares_in_sync;
    to->scrubbed_ms = from->scrub_ms;
}

static void fill_status(const dkv_host *host, const dkv_cluster_map *map,
                        Dkv__V1__StatusReply *to) {
    dkv_node_status status;
    dkv_node_status_get(host->node, &status);
    dkv__v1__status_reply__init(to);
    to->cluster = map->cluster;
    to->node_id = map->members[status.self].id;
    to->epoch = map->epoch;
    to->version = DKV_VERSION;
    to->uptime_ms = (uint64_t)(host->now_ns - host->started_ns) / 1000000;
    to->in_sync = status.in_sync;
    to->clock_off = status.clock_off;
    to->requests = status.requests;
    to->gets = status.gets;
    to->puts = status.puts;
    to->deletes = status.deletes;
    to->failed = status.failed;
    fill_store(host, &status.store, to);
    fill_healing(host, &status, to);
}

static void fill_peer(const dkv_host *host, const dkv_cluster_map *map, uint16_t i,
                      Dkv__V1__PeerStatus *to) {
    dkv__v1__peer_status__init(to);
    to->id = map->members[i].id;
    to->address = map->members[i].address;
    to->reach = (Dkv__V1__Reach)dkv_node_reach(host->node, i);
    const dkv_trust *trust = dkv_node_trust(host->node);
    to->declared_lost = i != trust->self && trust->lost_ms[i];
}

static int put_status(dkv_host *host, dkv_buf *out) {
    const dkv_cluster_map *map = dkv_ring_map(dkv_node_ring(host->node));
    Dkv__V1__StatusReply status;
    fill_status(host, map, &status);
    int err = DKV_ERR_NO_MEMORY;
    Dkv__V1__PeerStatus *peers = calloc(map->n_members, sizeof *peers);
    status.peers = calloc(map->n_members, sizeof *status.peers);
    if (!peers || !status.peers) goto done;
    for (uint16_t i = 0; i < map->n_members; i++) {
        fill_peer(host, map, i, &peers[i]);
        status.peers[status.n_peers++] = &peers[i];
    }
    err = dkv_buf_reserve(out, dkv__v1__status_reply__get_packed_size(&status));
    if (!err) out->len += dkv__v1__status_reply__pack(&status, out->data + out->len);
done:
    free(status.peers);
    free(peers);
    return err;
}

void dkv_call_status(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    dkv_host *host = user;
    (void)bytes;
    (void)timeout_ms;
    dkv_host_refresh_clock(host);
    host->scratch.len = 0;
    int err = put_status(host, &host->scratch);
    reply_scratch(host, call, err);
}

/* ---- what it holds ---- */

static void fill_share(const dkv_host *host, uint32_t i, Dkv__V1__Share *to) {
    const dkv_trust *trust = dkv_node_trust(host->node);
    const dkv_share *share = &trust->shares->all[i];
    dkv_store_range held = dkv_store_digest(dkv_node_store(host->node), share->first, share->last);
    dkv__v1__share__init(to);
    to->first = share->first;
    to->last = share->last;
    to->records = held.records;
    to->digest_low = held.digest.lo;
    to->digest_high = held.digest.hi;
    to->in_sync = trust->states[i] == DKV_SHARE_IN_SYNC;
}

static void fill_shares_reply(const dkv_host *host, Dkv__V1__SharesReply *to) {
    const dkv_trust *trust = dkv_node_trust(host->node);
    dkv_node_status status;
    dkv_node_status_get(host->node, &status);
    dkv__v1__shares_reply__init(to);
    to->node_id = trust->map->members[trust->self].id;
    to->epoch = trust->map->epoch;
    to->map_digest = trust->map_digest;
    to->store_id = trust->store_id;
    to->tombstones = status.store.tombstones;
    to->scrubbed_ms = status.scrub_ms;
}

/* The shares that begin at `first` or later, as many as a reply may have. */
static int put_shares(dkv_host *host, uint64_t first, dkv_buf *out) {
    const dkv_shares *own = dkv_node_trust(host->node)->shares;
    uint32_t begin = 0;
    while (begin < own->n && own->all[begin].first < first) begin++;
    uint32_t n = own->n - begin < SHARES_MAX ? own->n - begin : SHARES_MAX;
    int err = DKV_ERR_NO_MEMORY;
    Dkv__V1__SharesReply reply;
    fill_shares_reply(host, &reply);
    Dkv__V1__Share *shares = calloc(n + 1u, sizeof *shares);
    reply.shares = calloc(n + 1u, sizeof *reply.shares);
    if (!shares || !reply.shares) goto done;
    reply.more = begin + n < own->n;
    for (uint32_t i = 0; i < n; i++) {
        fill_share(host, begin + i, &shares[i]);
        reply.shares[reply.n_shares++] = &shares[i];
    }
    err = dkv_buf_reserve(out, dkv__v1__shares_reply__get_packed_size(&reply));
    if (!err) out->len += dkv__v1__shares_reply__pack(&reply, out->data + out->len);
done:
    free(reply.shares);
    free(shares);
    return err;
}

void dkv_call_shares(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    dkv_host *host = user;
    (void)timeout_ms;
    Dkv__V1__SharesRequest *request = dkv__v1__shares_request__unpack(NULL, bytes.len, bytes.data);
    if (!request) {
        refuse(host, call, DKV_ERR_INVALID, "the request could not be understood");
        return;
    }
    host->scratch.len = 0;
    int err = put_shares(host, request->first, &host->scratch);
    dkv__v1__shares_request__free_unpacked(request, NULL);
    reply_scratch(host, call, err);
}

/* ---- what it is told ---- */

void dkv_call_declare_lost(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    dkv_host *host = user;
    (void)timeout_ms;
    dkv_host_refresh_clock(host);
    Dkv__V1__DeclareLostRequest *request =
        dkv__v1__declare_lost_request__unpack(NULL, bytes.len, bytes.data);
    if (!request) {
        refuse(host, call, DKV_ERR_INVALID, "the request could not be understood");
        return;
    }
    dkv_host_declare_lost(host, call, dkv_slice_of(request->node_id));
    dkv__v1__declare_lost_request__free_unpacked(request, NULL);
}
