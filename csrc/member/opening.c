/* Which links are opened, OPENING_MAX at a time: when a hundred processes on one machine connected
 * to each other all at once, most connections would take longer than anybody waits for them. Those
 * who are needed and were not tried yet come first, then those who did not answer, then the members
 * whose word a new store awaits, the nearest in the map first. */
#include "member/internal.h"

#define OPENING_MAX 2u

typedef enum need { NEED_NOTHING, NEED_LINK, NEED_RETRY, NEED_WORD } need;

static need need_of(const dkv_peers *peers, uint16_t index) {
    const peer *p = &peers->all[index];
    if (p->link) return NEED_NOTHING;
    if (dkv_peers_is_needed(p)) return p->reach == DKV_REACH_DOWN ? NEED_RETRY : NEED_LINK;
    return dkv_trust_awaits(peers->options.trust, index) ? NEED_WORD : NEED_NOTHING;
}

/* Links being opened to peers that are DOWN, or to others. */
static unsigned count_opening(const dkv_peers *peers, bool down) {
    unsigned count = 0;
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        const peer *p = &peers->all[i];
        bool opening = p->link && (p->reach != DKV_REACH_UP || !dkv_peers_is_needed(p));
        count += opening && (p->reach == DKV_REACH_DOWN) == down;
    }
    return count;
}

/* Opens up to `room` links of those who need one for this reason. */
static void open_some(dkv_peers *peers, const dkv_moment *at, need reason, unsigned room) {
    uint16_t n = peers->options.map->n_members;
    for (uint16_t k = 1; k < n && room > 0; k++) {
        uint16_t index = (uint16_t)((peers->options.self + k) % n);
        const peer *p = &peers->all[index];
        if (need_of(peers, index) != reason) continue;
        if (p->reach == DKV_REACH_DOWN && p->retry_ns > at->now_ns) {
            dkv_peers_wake_at(peers, at, p->retry_ns);
            continue;
        }
        dkv_peers_open_link(peers, at, index);
        room--;
    }
}

static unsigned room(unsigned opening) {
    return opening < OPENING_MAX ? OPENING_MAX - opening : 0;
}

void dkv_peers_open_links(dkv_peers *peers, const dkv_moment *at) {
    /* Peers that do not answer hold up nobody who was not tried yet. */
    open_some(peers, at, NEED_LINK, room(count_opening(peers, false)));
    for (need reason = NEED_RETRY; reason <= NEED_WORD; reason++) {
        unsigned opening = count_opening(peers, false) + count_opening(peers, true);
        open_some(peers, at, reason, room(opening));
    }
}
