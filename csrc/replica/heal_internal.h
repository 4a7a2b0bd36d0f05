/* What heal.c (what may differ, which session runs when) and session.c (the work with one peer)
 * share. */
#ifndef DKV_REPLICA_HEAL_INTERNAL_H
#define DKV_REPLICA_HEAL_INTERNAL_H

#include "base/rand.h"
#include "replica/heal.h"
#include "replica/internal.h"

typedef struct session session;

/* What is known of one peer. */
typedef struct heal_peer {
    uint32_t n_shared; /* shares that both hold */
    uint8_t *dirty;    /* by share; NULL while none is */
    uint32_t n_dirty;
    dkv_map hints; /* by token */
    session *session;
    bool held;             /* its link is, see dkv_peers_hold */
    unsigned failures;     /* of sessions, in a row */
    int64_t not_before_ns; /* of the next session */
    int64_t round_due_ns;  /* everything is dirty then */
    int64_t asked_ns;      /* its own session last asked then; 0: never */
    int64_t yield_upto_ns; /* since it asks, see dkv_heal_yields */
    bool round;            /* a comparison of everything is under way */
    int64_t round_ns;      /* when the last one ended; 0 = never */
} heal_peer;

struct dkv_heal {
    dkv_replica *replica;
    const dkv_shares *shares;
    dkv_rand rand;
    heal_peer *peers;  /* by member */
    uint8_t *compared; /* by share: mask of places in its list, since it was lost */
    uint16_t *fillers; /* by share: 1 + the peer whose session makes it the same; 0: none does */
    uint32_t hints_max;
    uint32_t n_hints, n_dirty, n_sessions;
    bool stopped;
    bool replaced;   /* it has been noted that the store is a replaced one */
    int slots;       /* sessions that may still be begun or prepared in this round of looking */
    uint16_t turn;   /* the member looked after first */
    int64_t next_ns; /* nothing is to be begun before */
    uint64_t fetched, sent;
};

/* True while the peer fetches by itself what it lacks. */
bool dkv_heal_yields(const dkv_heal *heal, const dkv_moment *at, uint16_t peer);

/* The share may differ from that of `peer`. */
void dkv_heal_dirty(dkv_heal *heal, uint16_t peer, uint32_t share);

/* This node and `peer` have differed in the share: what was compared with the other replicas before
 * is compared again. Else a record would not reach them whose coordinator could not store it
 * itself, as its disk was full, and so compared too early. */
void dkv_heal_share_moved(dkv_heal *heal, uint16_t peer, uint32_t share);

/* All of the share was compared. With every other replica so, it is in sync. */
void dkv_heal_share_compared(dkv_heal *heal, const dkv_moment *at, uint16_t peer, uint32_t share);

/* ---- session.c ---- */

/* Takes the peer's hints and dirty shares as its work. NO_MEMORY leaves them. */
int dkv_session_new(dkv_heal *heal, const dkv_moment *at, uint16_t peer, session **out);

/* What was not done becomes dirty. */
void dkv_session_del(session *s);

/* Sends and moves what can be. */
void dkv_session_pump(session *s, const dkv_moment *at);

/* When the session needs attention next: to go on after a pause, or to be given up. */
int64_t dkv_session_due_ns(const session *s);

/* True if nothing has come in for DKV_HEAL_STALL_MS. */
bool dkv_session_stalled(const session *s, const dkv_moment *at);

/* Nothing is left, or it is given up. */
bool dkv_session_ended(const session *s, bool *failed);

/* The share may not count as compared: something in it was lost meanwhile. */
void dkv_session_spoil(session *s, uint32_t share);

/* An answer or event for a task of a session. */
void dkv_session_answered(struct task *t, const dkv_moment *at, const dkv_message *message);
void dkv_session_stored(struct task *t, const dkv_moment *at, const dkv_store_event *event);

/* The peer of the session that the task belongs to. */
uint16_t dkv_session_task_peer(const struct task *t);

/* Shares that are not done. */
uint32_t dkv_session_open_shares(const session *s);

#endif
