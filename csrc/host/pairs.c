#include <assert.h>
#include <stdlib.h>

#include "base/err.h"
#include "host/internal.h"

dkv_pair *dkv_pair_new(dkv_host *host, size_t size, dkv_pair_take take, dkv_rpc_stream *stream) {
    assert(size >= sizeof(dkv_pair));
    dkv_pair *pair = calloc(1, size);
    if (!pair) return NULL;
    pair->host = host;
    pair->small = stream;
    pair->take = take;
    pair->refs = 1;
    pair->expected_len = DKV_VALUE_MAX;
    pair->next = host->pairs;
    if (pair->next) pair->next->prev = pair;
    host->pairs = pair;
    return pair;
}

void dkv_pair_hold(dkv_pair *pair) {
    pair->refs++;
}

void dkv_pair_release(dkv_pair *pair) {
    assert(pair->refs > 0);
    if (--pair->refs) return;
    if (pair->next) pair->next->prev = pair->prev;
    if (pair->prev) {
        pair->prev->next = pair->next;
    } else {
        pair->host->pairs = pair->next;
    }
    dkv_buf_free(&pair->held);
    free(pair);
}

/* ---- lanes ---- */

static dkv_pair *join(dkv_pair *known, dkv_pair *fresh, dkv_rpc_stream *stream) {
    if (known->large || known->ended) {
        dkv_rpc_stream_fail(stream, DKV_ERR_PROTOCOL, "a pair of lanes has two streams");
        return NULL;
    }
    known->large = stream;
    dkv_pair_hold(known);
    dkv_rpc_stream_set_user(stream, known);
    if (known->waiting) dkv_rpc_stream_pause(stream, true);
    dkv_pair_release(fresh);
    return known;
}

dkv_pair *dkv_pair_begin(dkv_pair *fresh, dkv_map *lanes, dkv_rpc_stream *stream, dkv_slice bytes) {
    if (fresh->begun) return fresh;
    fresh->begun = true;
    uint64_t lane = dkv_wire_get_lane(bytes);
    if (!lane) return fresh;
    dkv_pair *known = dkv_map_get(lanes, lane);
    if (known) return join(known, fresh, stream);
    /* Without memory for the entry the second stream stays a pair of its own. */
    if (dkv_map_set(lanes, lane, fresh) == DKV_OK) fresh->lane = lane;
    return fresh;
}

void dkv_pair_fail(dkv_pair *pair, int err, const char *detail) {
    if (pair->small) dkv_rpc_stream_fail(pair->small, err, detail);
    if (pair->large) dkv_rpc_stream_fail(pair->large, err, detail);
}

bool dkv_pair_lane_closed(dkv_pair *pair, dkv_rpc_stream *stream) {
    bool first = !pair->ended;
    pair->ended = true;
    if (pair->small == stream) pair->small = NULL;
    if (pair->large == stream) pair->large = NULL;
    dkv_pair_fail(pair, DKV_ERR_CANCELLED, "the other lane of the pair has ended");
    return first;
}

/* ---- sending ---- */

size_t dkv_pair_backlog(const dkv_pair *pair) {
    size_t backlog = 0;
    if (pair->small) backlog += dkv_rpc_stream_backlog(pair->small);
    if (pair->large) backlog += dkv_rpc_stream_backlog(pair->large);
    return backlog;
}

/* The lane for an item. One that has had its last word before the next request is left alone; the
 * request that is answered now came by the other one. */
static dkv_rpc_stream *lane_for(const dkv_pair *pair, bool is_large) {
    dkv_rpc_stream *wanted = is_large && pair->large ? pair->large : pair->small;
    dkv_rpc_stream *other = wanted == pair->small ? pair->large : pair->small;
    return wanted && other && dkv_rpc_stream_is_last(wanted) ? other : wanted;
}

void dkv_pair_send(dkv_pair *pair, dkv_buf *item) {
    pair->expected_len -= pair->expected_len / 8;
    if (pair->expected_len < item->len) pair->expected_len = item->len;
    bool is_large = item->len > DKV_WIRE_LARGE;
    dkv_rpc_stream *stream = lane_for(pair, is_large);
    if (pair->ended || !stream) return;
    int err = is_large ? dkv_rpc_stream_send_buf(stream, item)
                       : dkv_rpc_stream_send(stream, dkv_buf_slice(item));
    if (err) {
        dkv_pair_fail(pair, err, "the other side does not read what it is sent");
        return;
    }
    if (pair->dirty) return;
    pair->dirty = true;
    dkv_pair_hold(pair);
    pair->next_dirty = pair->host->dirty;
    pair->host->dirty = pair;
}

static void flush(dkv_pair *pair) {
    /* A session is told something only when it has asked. */
    bool is_last = pair->is_session && !pair->unanswered && !pair->waiting;
    void (*flush_lane)(dkv_rpc_stream *) =
        is_last ? dkv_rpc_stream_flush_last : dkv_rpc_stream_flush;
    if (pair->small) flush_lane(pair->small);
    if (pair->large) flush_lane(pair->large);
}

void dkv_pairs_flush(dkv_host *host) {
    while (host->dirty) {
        dkv_pair *pair = host->dirty;
        host->dirty = pair->next_dirty;
        pair->dirty = false;
        flush(pair);
        dkv_pair_release(pair);
    }
}

void dkv_pairs_finish(dkv_host *host) {
    for (dkv_pair *pair = host->pairs; pair; pair = pair->next) {
        if (pair->small) dkv_rpc_stream_finish(pair->small);
        if (pair->large) dkv_rpc_stream_finish(pair->large);
    }
}
