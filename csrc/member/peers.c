#include "member/peers.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/map.h"

#define CLOCK_SAMPLE_MS 1000u            /* a link in use is pinged this often to compare clocks */
#define BACKOFF_MAX 4u                   /* times retry_ms */
#define OFFSET_MAX_MS (INT64_C(1) << 40) /* of clocks; whatever is further off counts as this */

typedef struct peer {
    dkv_reach reach;
    dkv_link link;     /* own link, open or being opened; 0 = none */
    int64_t opened_ns; /* when `link` was asked for */
    bool greeted;      /* HELLO_REPLY came; UP as soon as `await_changes` are durable */
    uint64_t await_changes;
    uint32_t outstanding; /* requests sent on `link` and not answered */
    bool pinged;          /* one of them is a PING */
    int64_t pinged_ns;    /* when it left */
    int64_t since_ns;     /* silence counts from here: last message, or first request owed */
    int64_t used_ns;      /* last request sent */
    int64_t retry_ns;     /* DOWN without a link: when to try again */
    uint32_t failures;    /* in a row */
    int state;            /* what it said it would answer to a write */
    bool sampled;         /* offset_ms is valid */
    int64_t sampled_ns;   /* when it last told its time, in a HELLO_REPLY or PONG */
    int64_t offset_ms;    /* its wall clock minus ours, within OFFSET_MAX_MS */
} peer;

/* A link that a peer opened to us. */
typedef struct inbound {
    dkv_link link;
    int peer;               /* −1 before HELLO */
    bool replied;           /* HELLO_REPLY is out */
    uint64_t await_changes; /* it leaves when these are durable */
} inbound;

struct dkv_peers {
    dkv_peers_options options;
    dkv_rand rand;
    peer *all; /* by member index; the own entry is unused */
    dkv_map inbound;
    uint64_t map_digest; /* of options.map: it takes long for a large one */
    uint64_t links_opened;
    uint64_t durable_changes;
    int64_t next_ns; /* no timer is due before */
    bool clock_off;
};

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

static const char *name_of(const dkv_peers *peers, uint16_t index) {
    return peers->options.map->members[index].id;
}

/* Never in the past: a tick that comes late tells that this node itself was stopped. */
static void wake_at(dkv_peers *peers, const dkv_moment *at, int64_t when_ns) {
    if (when_ns < at->now_ns) when_ns = at->now_ns;
    if (when_ns < peers->next_ns) peers->next_ns = when_ns;
}

static void log_peer(const dkv_peers *peers, const dkv_moment *at, dkv_log_level level,
                     uint16_t index, const char *what) {
    char line[DKV_DETAIL_MAX + DKV_NAME_MAX];
    snprintf(line, sizeof line, "node %s %s", name_of(peers, index), what);
    at->effects->log(at->effects->user, level, line);
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

static void open_link(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    uint64_t count = ++peers->links_opened;
    p->link = count << (LINK_PEER_SHIFT + LINK_PEER_BITS) | (uint64_t)index << LINK_PEER_SHIFT | 1;
    p->opened_ns = at->now_ns;
    p->greeted = false;
    p->outstanding = 0;
    p->pinged = false;
    if (p->reach == DKV_REACH_UNKNOWN) p->reach = DKV_REACH_CONNECTING;
    wake_at(peers, at, at->now_ns + dkv_ns_of_ms(peers->options.timing.silence_ms));
    at->effects->connect(at->effects->user, index, p->link);
}

static void drop_link(peer *p, const dkv_moment *at) {
    if (p->link) at->effects->close(at->effects->user, p->link);
    p->link = 0;
}

static void come_up(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    bool was_down = p->reach == DKV_REACH_DOWN;
    p->reach = DKV_REACH_UP;
    p->failures = 0; /* `state` stays: a disk that was full is so until the next PONG */
    p->since_ns = p->used_ns = at->now_ns;
    wake_at(peers, at, at->now_ns + dkv_ns_of_ms(peers->options.timing.ping_ms));
    if (was_down) log_peer(peers, at, DKV_LOG_INFO, index, "is back");
    peers->options.changed(peers->options.user, at, index);
}

/* Takes the peer for dead until a new link is greeted. `why` completes "node n2 ...". */
static void go_down(dkv_peers *peers, const dkv_moment *at, uint16_t index, const char *why) {
    peer *p = &peers->all[index];
    dkv_reach was = p->reach;
    drop_link(p, at);
    p->reach = DKV_REACH_DOWN;
    if (p->failures < BACKOFF_MAX) p->failures++;
    int64_t pause = dkv_ns_of_ms(peers->options.timing.retry_ms) * p->failures;
    /* Up to a quarter more, so that a cluster does not knock in step on a node that returns. */
    pause += (int64_t)dkv_rand_below(&peers->rand, (uint64_t)pause / 4 + 1);
    p->retry_ns = at->now_ns + pause;
    wake_at(peers, at, p->retry_ns);
    if (was == DKV_REACH_DOWN) return;
    log_peer(peers, at, DKV_LOG_WARN, index, why);
    peers->options.changed(peers->options.user, at, index);
}

dkv_reach dkv_peers_reach(const dkv_peers *peers, uint16_t index) {
    return peers->all[index].reach;
}

dkv_reach dkv_peers_want(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    if (peers->all[index].reach == DKV_REACH_UNKNOWN) open_link(peers, at, index);
    return peers->all[index].reach;
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
        wake_at(peers, at, at->now_ns + dkv_ns_of_ms(peers->options.timing.ping_ms));
    }
    p->used_ns = at->now_ns;
    at->effects->send(at->effects->user, p->link, message);
    return true;
}

/* ---- greetings ---- */

static dkv_hello hello_to(const dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    const dkv_trust *trust = peers->options.trust;
    const dkv_cluster_map *map = peers->options.map;
    return (dkv_hello){
        .cluster = dkv_slice_of(map->cluster),
        .node_id = dkv_slice_of(name_of(peers, peers->options.self)),
        .epoch = map->epoch,
        .map_digest = peers->map_digest,
        .store_id = trust->store_id,
        .remembers = trust->remembered[index],
        .in_sync = trust->in_sync,
        .wall_ms = at->wall_ms,
    };
}

/* 0 if the sender belongs here, else why not. *index is its place in the map if it has one. */
static int check_hello(const dkv_peers *peers, const dkv_hello *hello, int *index) {
    const dkv_cluster_map *map = peers->options.map;
    char id[DKV_NAME_MAX + 1];
    *index = -1;
    if (hello->node_id.len > DKV_NAME_MAX) return DKV_ERR_PROTOCOL;
    memcpy(id, hello->node_id.data, hello->node_id.len);
    id[hello->node_id.len] = 0;
    *index = dkv_cluster_map_find(map, id);
    if (!dkv_slice_eq(hello->cluster, dkv_slice_of(map->cluster))) return DKV_ERR_PRECONDITION;
    if (*index < 0 || *index == peers->options.self || hello->store_id == 0) {
        return DKV_ERR_PRECONDITION;
    }
    if (hello->epoch != map->epoch || hello->map_digest != peers->map_digest) {
        return DKV_ERR_EPOCH;
    }
    return DKV_OK;
}

static int64_t clamp(int64_t value, int64_t most) {
    return value < -most ? -most : value > most ? most : value;
}

static bool is_off(const peer *p) {
    return llabs(p->offset_ms) > DKV_DRIFT_MAX_MS;
}

/* More than half of all that were compared, this node among them, see it off: with two nodes
 * nobody can tell whose clock is wrong. */
static void compare_clocks(dkv_peers *peers, const dkv_moment *at) {
    unsigned known = 1, off = 0;
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        const peer *p = &peers->all[i];
        known += p->sampled;
        off += p->sampled && is_off(p);
    }
    bool clock_off = off * 2 > known;
    if (clock_off != peers->clock_off) {
        at->effects->log(at->effects->user, clock_off ? DKV_LOG_ERROR : DKV_LOG_INFO,
                         clock_off
                             ? "this node's clock is more than 500 ms off the majority of its "
                               "peers: it coordinates no writes until the clock is right"
                             : "this node's clock agrees with its peers again");
    }
    peers->clock_off = clock_off;
}

/* `asked_ns` is when the question left that `wall_ms` answers. An answer that took long says
 * little: either side may have been stopped in between. */
static void sample_clock(dkv_peers *peers, const dkv_moment *at, uint16_t index, uint64_t wall_ms,
                         int64_t asked_ns) {
    peer *p = &peers->all[index];
    int64_t round_trip_ms = (at->now_ns - asked_ns) / 1000000;
    p->sampled_ns = at->now_ns;
    if (round_trip_ms > DKV_DRIFT_MAX_MS / 2) return;
    p->sampled = true;
    p->offset_ms = clamp((int64_t)(wall_ms - at->wall_ms), OFFSET_MAX_MS) + round_trip_ms / 2;
    compare_clocks(peers, at);
}

static void greeted_by(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                       const dkv_hello *hello, bool answers) {
    bool was_new = peers->options.trust->is_new;
    uint64_t remembered = peers->options.trust->remembered[index];
    dkv_trust_heard(peers->options.trust, index, hello, answers);
    if (was_new && peers->options.trust->in_sync) {
        at->effects->log(at->effects->user, DKV_LOG_INFO,
                         "all members vouch for this new store: it is in sync");
    }
    if (remembered && remembered != hello->store_id && !hello->in_sync) {
        log_peer(peers, at, DKV_LOG_WARN, index,
                 "came with another store than before: it is not believed about absent keys");
    }
}

static void on_hello(dkv_peers *peers, const dkv_moment *at, inbound *in, const dkv_hello *hello) {
    int index;
    int err = check_hello(peers, hello, &index);
    if (err) {
        dkv_message reply = {.kind = DKV_MSG_HELLO_REPLY,
                             .hello = hello_to(peers, at, peers->options.self)};
        reply.hello.err = err;
        at->effects->send(at->effects->user, in->link, &reply);
        if (index >= 0) {
            log_peer(peers, at, DKV_LOG_WARN, (uint16_t)index,
                     err == DKV_ERR_EPOCH ? "was refused: its cluster map differs from ours"
                                          : "was refused: it is of another cluster");
        }
        return;
    }
    in->peer = index;
    greeted_by(peers, at, (uint16_t)index, hello, false);
    in->await_changes = peers->options.trust->changes;
    peer *p = &peers->all[index];
    if (p->reach == DKV_REACH_DOWN && !p->link) open_link(peers, at, (uint16_t)index);
}

static void answer_hello(dkv_peers *peers, const dkv_moment *at, inbound *in) {
    if (in->peer < 0 || in->replied || in->await_changes > peers->durable_changes) return;
    in->replied = true;
    dkv_message reply = {.kind = DKV_MSG_HELLO_REPLY,
                         .hello = hello_to(peers, at, (uint16_t)in->peer)};
    at->effects->send(at->effects->user, in->link, &reply);
}

static void on_hello_reply(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                           const dkv_hello *hello) {
    int who;
    int err = hello->err ? hello->err : check_hello(peers, hello, &who);
    if (!err && who != index) err = DKV_ERR_PRECONDITION;
    if (err) {
        go_down(peers, at, index,
                err == DKV_ERR_EPOCH ? "cannot be used: its cluster map differs from ours"
                                     : "cannot be used: another node or cluster answers there");
        return;
    }
    peer *p = &peers->all[index];
    greeted_by(peers, at, index, hello, true);
    sample_clock(peers, at, index, hello->wall_ms, p->opened_ns);
    p->greeted = true;
    p->await_changes = peers->options.trust->changes;
    if (p->await_changes <= peers->durable_changes) come_up(peers, at, index);
}

void dkv_peers_durable(dkv_peers *peers, const dkv_moment *at, uint64_t changes) {
    peers->durable_changes = changes;
    for (size_t i = 0; i < peers->inbound.cap; i++) {
        if (peers->inbound.slots[i].value) answer_hello(peers, at, peers->inbound.slots[i].value);
    }
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        peer *p = &peers->all[i];
        if (p->link && p->greeted && p->reach != DKV_REACH_UP && p->await_changes <= changes) {
            come_up(peers, at, i);
        }
    }
}

bool dkv_peers_clock_off(const dkv_peers *peers) {
    return peers->clock_off;
}

/* ---- when a peer needs attention ---- */

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Any message breaks a silence, but only a PONG tells that a peer takes writes again and what time
 * it is: for these it is asked however much else it says. */
static int64_t ping_due(const dkv_peers *peers, const peer *p) {
    int64_t ping_ns = dkv_ns_of_ms(peers->options.timing.ping_ms);
    if (p->pinged) return INT64_MAX;
    int64_t due = p->outstanding ? p->since_ns + ping_ns : INT64_MAX;
    if (p->state) due = earlier(due, p->sampled_ns + ping_ns);
    if (p->used_ns > p->sampled_ns || is_off(p)) {
        due = earlier(due, p->sampled_ns + dkv_ns_of_ms(CLOCK_SAMPLE_MS));
    }
    return due;
}

/* Whether the link is kept although nobody uses it: this node is still being vouched for, or writes
 * are refused because of what the peer said, which only the peer can take back. */
static bool is_kept(const dkv_peers *peers, const peer *p) {
    return peers->options.trust->is_new || p->state || is_off(p);
}

static int64_t due_up(const dkv_peers *peers, const peer *p) {
    const dkv_timing *timing = &peers->options.timing;
    int64_t due = ping_due(peers, p);
    if (p->outstanding) return earlier(due, p->since_ns + dkv_ns_of_ms(timing->silence_ms));
    return is_kept(peers, p) ? due : earlier(due, p->used_ns + dkv_ns_of_ms(timing->idle_ms));
}

/* ---- events ---- */

void dkv_peers_link_opened(dkv_peers *peers, const dkv_moment *at, dkv_link link) {
    uint16_t index;
    if (!peer_of_link(peers, link, &index)) return;
    dkv_message hello = {.kind = DKV_MSG_HELLO, .hello = hello_to(peers, at, index)};
    at->effects->send(at->effects->user, link, &hello);
}

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

void dkv_peers_link_closed(dkv_peers *peers, const dkv_moment *at, dkv_link link) {
    uint16_t index;
    if (!is_own_link(link)) {
        free(dkv_map_remove(&peers->inbound, link));
    } else if (peer_of_link(peers, link, &index)) {
        peers->all[index].link = 0;
        go_down(peers, at, index, "is down: the connection was refused or broke");
    }
}

static int own_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                       const dkv_message *message) {
    uint16_t index;
    peer *p = peer_of_link(peers, link, &index);
    if (!p) return -1;
    p->since_ns = at->now_ns;
    if (message->kind == DKV_MSG_HELLO_REPLY && !p->greeted) {
        on_hello_reply(peers, at, index, &message->hello);
        return -1;
    }
    if (p->reach != DKV_REACH_UP) return -1;
    if (p->outstanding) p->outstanding--;
    switch (message->kind) {
    case DKV_MSG_PONG:
        p->pinged = false;
        p->state = message->pong.state;
        sample_clock(peers, at, index, message->pong.wall_ms, p->pinged_ns);
        wake_at(peers, at, due_up(peers, p));
        return -1;
    case DKV_MSG_APPLY_REPLY:
        p->state = message->apply_reply.state;
        if (p->state) wake_at(peers, at, due_up(peers, p));
        return index;
    case DKV_MSG_FETCH_REPLY:
    case DKV_MSG_FORWARD_REPLY: return index;
    default: go_down(peers, at, index, "is cut off: it sent what is no reply"); return -1;
    }
}

static int inbound_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                           const dkv_message *message, int state) {
    inbound *in = dkv_map_get(&peers->inbound, link);
    if (!in) return -1;
    if (message->kind == DKV_MSG_HELLO && in->peer < 0) {
        on_hello(peers, at, in, &message->hello);
        answer_hello(peers, at, in);
        return -1;
    }
    if (in->replied) {
        switch (message->kind) {
        case DKV_MSG_PING: {
            dkv_message pong = {.kind = DKV_MSG_PONG, .id = message->id};
            pong.pong.wall_ms = at->wall_ms;
            pong.pong.state = state;
            at->effects->send(at->effects->user, link, &pong);
            return -1;
        }
        case DKV_MSG_APPLY:
        case DKV_MSG_FETCH:
        case DKV_MSG_FORWARD: return in->peer;
        default: break;
        }
    }
    /* A second greeting, a request before the greeting was answered, or a reply: not our protocol.
     */
    at->effects->close(at->effects->user, link);
    free(dkv_map_remove(&peers->inbound, link));
    return -1;
}

int dkv_peers_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                      const dkv_message *message, int state) {
    return is_own_link(link) ? own_message(peers, at, link, message)
                             : inbound_message(peers, at, link, message, state);
}

/* ---- timers ---- */

/* When this peer needs attention next. */
static int64_t due(const dkv_peers *peers, const peer *p) {
    if (p->reach == DKV_REACH_UP) return due_up(peers, p);
    if (p->link) {
        if (p->greeted) return INT64_MAX; /* waits for our own disk */
        return p->opened_ns + dkv_ns_of_ms(peers->options.timing.silence_ms);
    }
    if (p->reach == DKV_REACH_DOWN) return p->retry_ns;
    return peers->options.trust->is_new ? INT64_MIN : INT64_MAX;
}

static void tick_up(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    const dkv_timing *timing = &peers->options.timing;
    if (p->outstanding && at->now_ns - p->since_ns >= dkv_ns_of_ms(timing->silence_ms)) {
        go_down(peers, at, index, "is down: it does not answer");
    } else if (at->now_ns >= ping_due(peers, p)) {
        int64_t used_ns = p->used_ns;
        p->pinged = true;
        p->pinged_ns = at->now_ns;
        dkv_peers_send(peers, at, index, &(dkv_message){.kind = DKV_MSG_PING});
        p->used_ns = used_ns; /* a ping does not keep a link from becoming idle */
    } else {                  /* idle */
        drop_link(p, at);
        p->reach = DKV_REACH_UNKNOWN;
    }
}

static void tick_peer(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    peer *p = &peers->all[index];
    if (p->reach == DKV_REACH_UP) {
        tick_up(peers, at, index);
    } else if (p->link) {
        go_down(peers, at, index, "is down: it accepts connections but does not answer");
    } else {
        open_link(peers, at, index);
    }
}

static void forgive_own_pause(dkv_peers *peers, const dkv_moment *at) {
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        peers->all[i].since_ns = peers->all[i].opened_ns = at->now_ns;
    }
}

void dkv_peers_tick(dkv_peers *peers, const dkv_moment *at) {
    /* A tick that comes this long after it was due: this node itself was stopped. */
    if (at->now_ns - dkv_ns_of_ms(peers->options.timing.silence_ms) / 2 > peers->next_ns) {
        forgive_own_pause(peers, at);
    }
    if (at->now_ns < peers->next_ns) return;
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        if (i != peers->options.self && due(peers, &peers->all[i]) <= at->now_ns) {
            tick_peer(peers, at, i);
        }
    }
    peers->next_ns = INT64_MAX;
    for (uint16_t i = 0; i < peers->options.map->n_members; i++) {
        if (i != peers->options.self) wake_at(peers, at, due(peers, &peers->all[i]));
    }
}

int64_t dkv_peers_next_timer(const dkv_peers *peers) {
    return peers->next_ns;
}
