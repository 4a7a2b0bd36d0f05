/* What the files of csrc/member share: peers.c (the table of peers, the links that this node
 * opens), greetings.c (HELLO and its answer on them), accepted.c (the links that peers open),
 * clocks.c (whose clock is off), opening.c (which links are opened when),
 * timers.c (when a peer needs attention, and which). trust.c stands
 * alone. */
#ifndef DKV_MEMBER_INTERNAL_H
#define DKV_MEMBER_INTERNAL_H

#include "base/map.h"
#include "member/peers.h"

typedef struct peer {
    dkv_reach reach;
    dkv_link link;     /* own link, open or being opened; 0 = none */
    int64_t opened_ns; /* when `link` was asked for */
    bool greeted;      /* HELLO_REPLY came; UP as soon as `await_changes` are durable */
    uint64_t await_changes;
    bool wants_word; /* its store is not in sync: tell it what we remember once that is durable */
    bool wanted;     /* by a request, within the last idle_ms */
    bool held;       /* by dkv_peers_hold */
    uint32_t outstanding; /* requests sent on `link` and not answered */
    bool pinged;          /* one of them is a PING */
    int64_t pinged_ns;    /* when it left */
    int64_t since_ns;     /* silence counts from here: last message, or first request owed */
    int64_t used_ns;      /* when it was last wanted */
    int64_t retry_ns;     /* DOWN without a link: when to try again */
    uint32_t failures;    /* in a row */
    const char *untold;   /* why it went DOWN while nobody needed it; NULL: that was logged */
    bool mismatch_told;   /* since it was last UP, that it does not belong here was logged */
    int state;            /* what it said it would answer to a write */
    bool sampled;         /* offset_ms is valid: it told its time on this `link` */
    int64_t sampled_ns;   /* when it last told its time, in a HELLO_REPLY or PONG */
    int64_t offset_ms;    /* its wall clock minus ours, within OFFSET_MAX_MS */
} peer;

/* A link that a peer opened to us. */
typedef struct inbound {
    dkv_link link;
    int64_t accepted_ns;
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
    int64_t next_ns;    /* no timer is due before */
    unsigned n_sampled; /* peers whose clocks are compared with ours */
    unsigned n_off;     /* those of them that are off */
    bool clock_off;
    bool stranger_told; /* that a node greeted which is not in the map was logged */
};

static inline const char *dkv_peers_name(const dkv_peers *peers, uint16_t index) {
    return peers->options.map->members[index].id;
}

/* ---- peers.c ---- */

/* A timer is due then. Never in the past: a tick that comes late tells that this node itself was
 * stopped. */
void dkv_peers_wake_at(dkv_peers *peers, const dkv_moment *at, int64_t when_ns);

static inline bool dkv_peers_is_needed(const peer *p) {
    return p->wanted || p->held;
}

#define DKV_PEERS_WHY_MAX 512u /* bytes of what is said about a peer */

/* Logs "node <id> <what>" as `event`. */
void dkv_peers_log(const dkv_peers *peers, const dkv_moment *at, dkv_log_level level,
                   const char *event, uint16_t index, const char *what);

void dkv_peers_open_link(dkv_peers *peers, const dkv_moment *at, uint16_t index);

/* Nobody needs the link any more. */
void dkv_peers_rest(dkv_peers *peers, const dkv_moment *at, uint16_t index);

void dkv_peers_ping(dkv_peers *peers, const dkv_moment *at, uint16_t index);
void dkv_peers_come_up(dkv_peers *peers, const dkv_moment *at, uint16_t index);

/* Takes the peer for dead until a new link is greeted. `why`, a literal, completes "node n2
 * ..."; NULL: it was told already. Of a peer that nobody needs it is told when somebody does. */
void dkv_peers_go_down(dkv_peers *peers, const dkv_moment *at, uint16_t index, const char *why);

/* ---- greetings.c ---- */

/* Sends HELLO on the own link that has just opened. */
void dkv_peers_greet(dkv_peers *peers, const dkv_moment *at, uint16_t index);

/* What this node says of itself to member `index`. */
dkv_hello dkv_peers_hello_to(const dkv_peers *peers, const dkv_moment *at, uint16_t index);

/* 0 if the sender belongs here, else why not. *index is its place in the map if it has one. */
int dkv_peers_check_hello(const dkv_peers *peers, const dkv_hello *hello, int *index);

/* A peer has said which store of this node it remembers durably. */
void dkv_peers_told(dkv_peers *peers, const dkv_moment *at, uint16_t index, uint64_t store_id);

/* Tells the operator, once until things are right, that member `index` does not belong here or says
 * so of this node, and what to do. `err` is not 0; `hello` is what it said of itself. */
void dkv_peers_tell_mismatch(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                             const dkv_hello *hello, int err);

/* Takes in what a peer that belongs here said; `answers`: in answer to our own greeting. */
void dkv_peers_greeted_by(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                          const dkv_hello *hello, bool answers);

/* Its answer came. */
void dkv_peers_hello_reply(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                           const dkv_hello *hello);

/* ---- accepted.c ---- */

/* As dkv_peers_message, for a link that a peer opened. */
int dkv_peers_accepted_message(dkv_peers *peers, const dkv_moment *at, dkv_link link,
                               const dkv_message *message);

/* The link is gone. */
void dkv_peers_accepted_closed(dkv_peers *peers, dkv_link link);

/* Answers the greetings that waited for the disk. */
void dkv_peers_answer_hellos(dkv_peers *peers, const dkv_moment *at);

/* Closes links on which nobody has greeted in time. Returns when to look again. */
int64_t dkv_peers_expect_hellos(dkv_peers *peers, const dkv_moment *at);

/* ---- clocks.c ---- */

/* Whether the peer's clock, as last compared, differs too much from ours. */
bool dkv_peers_is_off(const peer *p);

/* The peer's link is gone: its clock may be set right or wrong now without our notice. */
void dkv_peers_forget_clock(dkv_peers *peers, const dkv_moment *at, uint16_t index);

/* `asked_ns` is when the question left that `wall_ms` answers. An answer that took long says
 * little: either side may have been stopped in between. */
void dkv_peers_sample_clock(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                            uint64_t wall_ms, int64_t asked_ns);

/* ---- opening.c ---- */

/* Opens as many of the links that are needed as may be opened now. */
void dkv_peers_open_links(dkv_peers *peers, const dkv_moment *at);

/* ---- timers.c ---- */

/* When a peer that is UP needs attention next. */
int64_t dkv_peers_due_up(const dkv_peers *peers, const peer *p);

#endif
