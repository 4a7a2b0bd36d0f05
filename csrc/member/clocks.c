#include <stdlib.h>

#include "member/internal.h"

#define OFFSET_MAX_MS (INT64_C(1) << 40) /* whatever is further off counts as this */

static int64_t clamp(int64_t value, int64_t most) {
    return value < -most ? -most : value > most ? most : value;
}

bool dkv_peers_is_off(const peer *p) {
    return p->sampled && llabs(p->offset_ms) > DKV_DRIFT_MAX_MS;
}

/* More than half of all that were compared, this node among them, see it off: with two nodes
 * nobody can tell whose clock is wrong. */
static void compare_clocks(dkv_peers *peers, const dkv_moment *at) {
    bool clock_off = peers->n_off * 2 > peers->n_sampled + 1;
    if (clock_off != peers->clock_off) {
        dkv_notice_say(at, clock_off ? DKV_LOG_ERROR : DKV_LOG_INFO,
                       clock_off ? "clock_off" : "clock_right",
                       clock_off ? "this node's clock is more than 500 ms off the majority of its "
                                   "peers: it coordinates no writes until the clock is right; is "
                                   "time synchronisation (NTP) running here?"
                                 : "this node's clock agrees with its peers again");
    }
    peers->clock_off = clock_off;
}

void dkv_peers_sample_clock(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                            uint64_t wall_ms, int64_t asked_ns) {
    peer *p = &peers->all[index];
    int64_t round_trip_ms = (at->now_ns - asked_ns) / 1000000;
    p->sampled_ns = at->now_ns;
    if (round_trip_ms > DKV_DRIFT_MAX_MS / 2) return;
    peers->n_sampled += !p->sampled;
    peers->n_off -= dkv_peers_is_off(p);
    p->sampled = true;
    p->offset_ms = clamp((int64_t)(wall_ms - at->wall_ms), OFFSET_MAX_MS) + round_trip_ms / 2;
    peers->n_off += dkv_peers_is_off(p);
    compare_clocks(peers, at);
}

void dkv_peers_forget_clock(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    if (!p->sampled) return;
    peers->n_sampled--;
    peers->n_off -= dkv_peers_is_off(p);
    p->sampled = false;
    compare_clocks(peers, at);
}

bool dkv_peers_clock_off(const dkv_peers *peers) {
    return peers->clock_off;
}
