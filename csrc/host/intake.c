/* Taking no more requests than can be answered.
 *
 * A message can hold thousands of requests, and each may be answered with a megabyte. So a pair's
 * items are taken in slices, as many at a time as there is room for; what is left of the message is
 * held, and nothing more is read, until there is room again. There is room while
 * 1. few bytes wait to be sent,
 * 2. the answers still owed, if they are as large as the recent ones, would not be too many bytes,
 * 3. and, for clients, the requests under way in the whole node are not too many bytes.
 *
 * Links that this node opened are not limited: two nodes that both waited for the other to read
 * first would wait for ever. */
#include "base/err.h"
#include "host/internal.h"

#define SLICE_MAX 256u        /* items */
#define UNANSWERED_MAX 1024u  /* requests of one pair */
#define BACKLOG_MAX 4194304u  /* bytes waiting to be sent to one pair */
#define ANSWERS_MAX 33554432u /* bytes of answers expected by one pair */

/* How many items may be taken now. */
static unsigned room(const dkv_pair *pair) {
    if (dkv_pair_backlog(pair) > BACKLOG_MAX) return 0;
    if (pair->is_session && pair->host->request_bytes > pair->host->request_bytes_max / 2) return 0;
    size_t most = ANSWERS_MAX / pair->expected_len;
    if (most > UNANSWERED_MAX) most = UNANSWERED_MAX;
    if (pair->unanswered >= most) return 0;
    most -= pair->unanswered;
    return most < SLICE_MAX ? (unsigned)most : SLICE_MAX;
}

/* Takes as much from the front of `bytes` as there is room for. Returns how many bytes it was. */
static size_t take_slice(dkv_pair *pair, dkv_slice bytes) {
    size_t len = dkv_wire_cut(bytes, room(pair));
    int err = pair->take(pair, (dkv_slice){bytes.data, len});
    if (err) dkv_pair_fail(pair, err, "what the other side sent could not be understood");
    return err ? bytes.len : len;
}

static void set_waiting(dkv_pair *pair, bool waiting) {
    pair->waiting = waiting;
    if (pair->small) dkv_rpc_stream_pause(pair->small, waiting);
    if (pair->large) dkv_rpc_stream_pause(pair->large, waiting);
}

void dkv_pair_receive(dkv_pair *pair, dkv_slice bytes) {
    if (!pair->waiting) {
        size_t len = take_slice(pair, bytes);
        bytes = (dkv_slice){bytes.data + len, bytes.len - len};
    }
    if (!bytes.len || pair->ended) return;
    if (dkv_buf_append(&pair->held, bytes)) {
        dkv_pair_fail(pair, DKV_ERR_NO_MEMORY, dkv_err_sentence(DKV_ERR_NO_MEMORY));
        return;
    }
    if (pair->waiting) return;
    set_waiting(pair, true);
    dkv_pair_hold(pair);
    pair->next_waiting = pair->host->waiting;
    pair->host->waiting = pair;
}

/* Returns true if all that was held has been taken, or need not be taken any more. */
static bool take_held(dkv_pair *pair) {
    if (pair->ended) return true;
    dkv_slice left = {pair->held.data + pair->held_at, pair->held.len - pair->held_at};
    pair->held_at += take_slice(pair, left);
    if (pair->held_at < pair->held.len && !pair->ended) return false;
    dkv_buf_free(&pair->held);
    pair->held_at = 0;
    return true;
}

bool dkv_pairs_take(dkv_host *host) {
    bool any = false;
    dkv_pair **at = &host->waiting;
    while (*at) {
        dkv_pair *pair = *at;
        if (!pair->ended && !room(pair)) {
            at = &pair->next_waiting;
            continue;
        }
        any = true;
        if (!take_held(pair)) {
            at = &pair->next_waiting;
            continue;
        }
        *at = pair->next_waiting;
        set_waiting(pair, false);
        if (pair->is_session) dkv_session_caught_up(pair);
        dkv_pair_release(pair);
    }
    return any;
}
