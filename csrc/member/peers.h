/* The other members as this node sees them: links, liveness, greetings.
 *
 * A link to a peer is opened when one is wanted, greets with HELLO, and counts as UP from the
 * HELLO_REPLY on. A peer is DOWN when its link is refused or breaks, or when it owes an answer and
 * has said nothing for `silence_ms`; a PING after `ping_ms` gives a busy peer the chance to speak.
 * A link in use is also pinged once a second to compare clocks, and a peer that takes no writes, or
 * whose clock differs, is asked on until that is over; there are no heartbeats beside that.
 *
 * Links are for those who are wanted (by requests) or held (for healing). One that nobody has
 * wanted for `idle_ms` is closed. A peer that is DOWN is tried again on a timer, and at once when
 * it greets us, as long as it is wanted; then it is forgotten that it was down. A node without
 * requests so comes to rest: no links, no timers. A new store needs the word of all members
 * (trust.h): it asks a few at a time, the nearest in the map first, and closes each link when both
 * sides have said what they remember; so one link serves two new stores.
 *
 * If this node itself was stopped for a while (a debugger, a laptop's lid), it grants every peer a
 * new full period before it judges. */
#ifndef DKV_MEMBER_PEERS_H
#define DKV_MEMBER_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rand.h"
#include "member/trust.h"
#include "model/effects.h"

#define DKV_LINKS_ACCEPTED_MAX 4096u /* links from peers open at once; more are closed */

typedef enum dkv_reach {
    DKV_REACH_UNKNOWN,    /* no link, none was needed */
    DKV_REACH_CONNECTING, /* a link is being opened for the first time, or soon will be, as this
                             store is new */
    DKV_REACH_UP,
    DKV_REACH_DOWN, /* refused, broken or silent */
} dkv_reach;

typedef struct dkv_peers dkv_peers;

/* Called when a peer comes UP or goes DOWN (never from inside dkv_peers_want or _send). */
typedef void (*dkv_peers_changed)(void *user, const dkv_moment *at, uint16_t peer);

typedef struct dkv_peers_options {
    const dkv_cluster_map *map; /* borrows; must outlive the peers */
    uint16_t self;
    dkv_timing timing; /* without zeros */
    uint64_t seed;
    dkv_trust *trust; /* borrows */
    dkv_peers_changed changed;
    int (*state)(void *user); /* what this node would say to a write now: 0, BUSY or NO_SPACE */
    void *user;
} dkv_peers_options;

/* *out is owned by the caller. NO_MEMORY. */
int dkv_peers_new(const dkv_peers_options *options, dkv_peers **out);

/* Accepts NULL. */
void dkv_peers_del(dkv_peers *peers);

/* How `peer` is seen, without side effect. This node itself is UP. */
dkv_reach dkv_peers_reach(const dkv_peers *peers, uint16_t peer);

/* Says that `peer` is wanted: opens a link if none was tried. Returns how it is seen now. */
dkv_reach dkv_peers_want(dkv_peers *peers, const dkv_moment *at, uint16_t peer);

/* Says that the link to `peer` is to be kept, and the peer tried again while it is DOWN, until
 * dkv_peers_release. Returns how it is seen now. Released, a link that no request wants is closed.
 */
dkv_reach dkv_peers_hold(dkv_peers *peers, const dkv_moment *at, uint16_t peer);
void dkv_peers_release(dkv_peers *peers, const dkv_moment *at, uint16_t peer);

/* True if what was last heard of the peer is that its cluster or its map is another one. */
bool dkv_peers_differs(const dkv_peers *peers, uint16_t peer);

/* What an UP peer last said it would answer to a write: 0, BUSY or NO_SPACE. */
int dkv_peers_state(const dkv_peers *peers, uint16_t peer);

/* Sends a request to an UP peer and expects an answer. False (nothing sent) if it is not UP. */
bool dkv_peers_send(dkv_peers *peers, const dkv_moment *at, uint16_t peer,
                    const dkv_message *message);

/* True if this node's wall clock is off by more than DKV_DRIFT_MAX_MS from more than half of the
 * peers that it has met. */
bool dkv_peers_clock_off(const dkv_peers *peers);

/* ---- events ---- */

void dkv_peers_link_opened(dkv_peers *peers, const dkv_moment *at, dkv_link link);
void dkv_peers_link_accepted(dkv_peers *peers, const dkv_moment *at, dkv_link link);
void dkv_peers_link_closed(dkv_peers *peers, const dkv_moment *at, dkv_link link);

/* Deals with greetings, pings and liveness. Returns the member that sent the message if it is one
 * for somebody else (a request on an accepted link, a reply on an own one), −1 if it was dealt with
 * or had no business there. */
int dkv_peers_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                      const dkv_message *message);

/* What the trust had recorded up to `changes` is durable now. */
void dkv_peers_durable(dkv_peers *peers, const dkv_moment *at, uint64_t changes);

/* Due timers. Cheap when none is due. */
void dkv_peers_tick(dkv_peers *peers, const dkv_moment *at);
int64_t dkv_peers_next_timer(const dkv_peers *peers);

#endif
