#include "replica/heal.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plant.h"
#include "replica/heal_internal.h"

static bool is_other(const dkv_heal *heal, uint16_t member) {
    return member != heal->replica->options.self;
}

static uint16_t n_members(const dkv_heal *heal) {
    return dkv_ring_map(heal->replica->options.ring)->n_members;
}

static void wake_at(dkv_heal *heal, int64_t when_ns) {
    if (when_ns < heal->next_ns) heal->next_ns = when_ns;
}

/* ---- what may differ ---- */

void dkv_heal_dirty(dkv_heal *heal, uint16_t peer, uint32_t share) {
    heal_peer *p = &heal->peers[peer];
    if (!p->dirty) p->dirty = calloc(heal->shares->n, sizeof *p->dirty);
    if (!p->dirty) { /* the next round will find it */
        p->round_due_ns = 0;
        wake_at(heal, 0);
        return;
    }
    if (p->dirty[share]) return;
    p->dirty[share] = 1;
    p->n_dirty++;
    heal->n_dirty++;
    wake_at(heal, p->not_before_ns);
}

void dkv_heal_hint(dkv_heal *heal, uint16_t peer, uint64_t token) {
    heal_peer *p = &heal->peers[peer];
    int64_t share = dkv_shares_find(heal->shares, token);
    if (share < 0 || dkv_share_place(heal->shares, (uint32_t)share, peer) < 0) return;
    if (p->dirty && p->dirty[share]) return;
    if (dkv_map_get(&p->hints, token)) return;
    if (heal->n_hints >= heal->hints_max || dkv_map_set(&p->hints, token, p)) {
        if (!DKV_PLANTED(FORGET_HINT)) dkv_heal_dirty(heal, peer, (uint32_t)share);
        return;
    }
    heal->n_hints++;
    wake_at(heal, p->not_before_ns);
}

bool dkv_heal_yields(const dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    const heal_peer *p = &heal->peers[peer];
    bool asks = p->asked_ns != 0 && at->now_ns < p->asked_ns + dkv_ns_of_ms(DKV_HEAL_YIELD_MS);
    return asks && at->now_ns < p->yield_upto_ns;
}

void dkv_heal_asked(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    heal_peer *p = &heal->peers[peer];
    bool begins = !p->asked_ns || at->now_ns >= p->asked_ns + dkv_ns_of_ms(DKV_HEAL_YIELD_MS);
    if (begins) p->yield_upto_ns = at->now_ns + dkv_ns_of_ms(DKV_HEAL_YIELD_MAX_MS);
    p->asked_ns = at->now_ns;
}

static void share_lost(dkv_heal *heal, uint32_t share) {
    heal->compared[share] = 0;
    for (unsigned k = 0; k < heal->shares->replication; k++) {
        uint16_t member = heal->shares->all[share].list[k];
        if (!is_other(heal, member)) continue;
        if (heal->peers[member].session) dkv_session_spoil(heal->peers[member].session, share);
        dkv_heal_dirty(heal, member, share);
    }
}

void dkv_heal_lost(dkv_heal *heal, uint64_t token) {
    int64_t share = dkv_shares_find(heal->shares, token);
    if (share >= 0) share_lost(heal, (uint32_t)share);
}

void dkv_heal_lost_all(dkv_heal *heal) {
    for (uint32_t i = 0; i < heal->shares->n; i++) share_lost(heal, i);
    for (uint16_t i = 0; i < n_members(heal); i++) heal->peers[i].round = true;
}

/* ---- life ---- */

static void count_shared(dkv_heal *heal) {
    for (uint32_t i = 0; i < heal->shares->n; i++) {
        for (unsigned k = 0; k < heal->shares->replication; k++) {
            uint16_t member = heal->shares->all[i].list[k];
            heal->peers[member].n_shared += is_other(heal, member);
        }
    }
}

/* A node that starts again compares everything: what it had noted is lost. */
static void set_first_rounds(dkv_heal *heal) {
    const dkv_trust *trust = heal->replica->options.trust;
    bool has_lost = trust->n_in_sync + trust->n_new < heal->shares->n;
    for (uint16_t i = 0; i < n_members(heal); i++) {
        heal->peers[i].round_due_ns = trust->starts > 1 || has_lost ? 0 : INT64_MAX;
    }
}

int dkv_heal_new(dkv_replica *replica, uint64_t seed, uint32_t hints_max, dkv_heal **out) {
    dkv_heal *heal = calloc(1, sizeof *heal);
    if (!heal) return DKV_ERR_NO_MEMORY;
    heal->replica = replica;
    heal->shares = replica->options.trust->shares;
    heal->rand.state = seed;
    heal->hints_max = hints_max ? hints_max : DKV_HINTS_MAX;
    heal->peers = calloc(n_members(heal), sizeof *heal->peers);
    heal->compared = calloc(heal->shares->n + 1u, sizeof *heal->compared);
    heal->fillers = calloc(heal->shares->n + 1u, sizeof *heal->fillers);
    if (!heal->peers || !heal->compared || !heal->fillers) {
        dkv_heal_del(heal);
        return DKV_ERR_NO_MEMORY;
    }
    count_shared(heal);
    set_first_rounds(heal);
    *out = heal;
    return DKV_OK;
}

void dkv_heal_del(dkv_heal *heal) {
    if (!heal) return;
    for (uint16_t i = 0; heal->peers && i < n_members(heal); i++) {
        dkv_session_del(heal->peers[i].session); /* notes what it leaves, for any peer */
    }
    for (uint16_t i = 0; heal->peers && i < n_members(heal); i++) {
        dkv_map_free(&heal->peers[i].hints);
        free(heal->peers[i].dirty);
    }
    free(heal->peers);
    free(heal->compared);
    free(heal->fillers);
    free(heal);
}

/* ---- sessions ---- */

static bool has_work(const heal_peer *p) {
    return p->n_dirty > 0 || p->hints.len > 0;
}

static void session_over(dkv_heal *heal, const dkv_moment *at, heal_peer *p, bool failed) {
    dkv_session_del(p->session);
    p->session = NULL;
    heal->n_sessions--;
    p->not_before_ns = 0;
    if (!failed) {
        p->failures = 0;
        if (p->round && p->n_dirty == 0) { /* or it had begun before all became dirty */
            p->round_ns = at->now_ns;
            p->round = false;
        }
    } else {
        uint64_t pause_ms = (uint64_t)DKV_HEAL_RETRY_MS << (p->failures < 5 ? p->failures : 5);
        if (pause_ms > DKV_HEAL_RETRY_MAX_MS) pause_ms = DKV_HEAL_RETRY_MAX_MS;
        p->failures++;
        p->not_before_ns = at->now_ns + dkv_ns_of_ms(pause_ms);
    }
    wake_at(heal, at->now_ns); /* another one's turn */
}

/* Lets the session do what it can. */
static void go_on(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    heal_peer *p = &heal->peers[peer];
    bool failed;
    dkv_session_pump(p->session, at);
    if (dkv_session_ended(p->session, &failed)) {
        session_over(heal, at, p, failed);
    } else {
        wake_at(heal, dkv_session_due_ns(p->session));
    }
}

static void begin(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    heal_peer *p = &heal->peers[peer];
    if (dkv_session_new(heal, at, peer, &p->session)) {
        p->not_before_ns = at->now_ns + dkv_ns_of_ms(DKV_HEAL_RETRY_MS);
        return;
    }
    heal->n_sessions++;
    go_on(heal, at, peer);
}

/* The share is in sync again if there is nobody left to compare it with. */
static void regain(dkv_heal *heal, const dkv_moment *at, uint32_t share) {
    dkv_trust *trust = heal->replica->options.trust;
    if (!dkv_trust_is_regained(trust, share, heal->compared[share])) return;
    dkv_trust_regained(trust, share);
    if (dkv_trust_in_sync(trust)) {
        dkv_notice_say(at, DKV_LOG_INFO, "in_sync",
                       "this store was compared with all other replicas: it is in sync");
    }
}

void dkv_heal_share_compared(dkv_heal *heal, const dkv_moment *at, uint16_t peer, uint32_t share) {
    dkv_trust *trust = heal->replica->options.trust;
    if (trust->states[share] == DKV_SHARE_IN_SYNC) return;
    heal->compared[share] |= (uint8_t)(1u << dkv_share_place(heal->shares, share, peer));
    regain(heal, at, share);
}

void dkv_heal_declared_lost(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    for (uint32_t i = 0; i < heal->shares->n; i++) {
        bool concerns = dkv_share_place(heal->shares, i, peer) >= 0;
        if (concerns && heal->replica->options.trust->states[i] != DKV_SHARE_IN_SYNC) {
            regain(heal, at, i);
        }
    }
}

void dkv_heal_share_moved(dkv_heal *heal, uint16_t peer, uint32_t share) {
    for (unsigned k = 0; k < heal->shares->replication; k++) {
        uint16_t member = heal->shares->all[share].list[k];
        if (is_other(heal, member) && member != peer) dkv_heal_dirty(heal, member, share);
    }
}

/* ---- events ---- */

/* Writes that `peer` coordinated when it went may have reached some replicas only. */
static void peer_went(dkv_heal *heal, uint16_t peer) {
    for (uint32_t i = 0; i < heal->shares->n; i++) {
        if (dkv_share_place(heal->shares, i, peer) >= 0) dkv_heal_share_moved(heal, peer, i);
    }
}

void dkv_heal_peer_changed(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    heal_peer *p = &heal->peers[peer];
    if (p->n_shared == 0) return;
    if (dkv_peers_reach(heal->replica->options.peers, peer) == DKV_REACH_UP) {
        p->failures = 0;
        p->not_before_ns = 0;
        wake_at(heal, at->now_ns);
        return;
    }
    if (p->session) session_over(heal, at, p, true);
    peer_went(heal, peer);
}

void dkv_heal_answered(dkv_heal *heal, const dkv_moment *at, task *t, uint16_t peer,
                       const dkv_message *message) {
    if (dkv_session_task_peer(t) != peer) return;
    dkv_session_answered(t, at, message);
    go_on(heal, at, peer);
}

void dkv_heal_stored(dkv_heal *heal, const dkv_moment *at, task *t, const dkv_store_event *event) {
    uint16_t peer = dkv_session_task_peer(t);
    dkv_session_stored(t, at, event);
    go_on(heal, at, peer);
}

void dkv_heal_stop(dkv_heal *heal) {
    heal->stopped = true;
    for (uint16_t i = 0; i < n_members(heal); i++) {
        dkv_session_del(heal->peers[i].session);
        heal->peers[i].session = NULL;
    }
    heal->n_sessions = 0;
}

static bool is_active(const dkv_heal *heal) {
    return heal->replica->ready && !heal->stopped;
}

static void set_round(dkv_heal *heal, const dkv_moment *at, heal_peer *p) {
    int64_t round_ns = dkv_ns_of_ms(heal->replica->options.timing.round_ms);
    /* Up to a quarter more, so that nodes that started together do not stay in step. */
    round_ns += (int64_t)dkv_rand_below(&heal->rand, (uint64_t)round_ns / 4 + 1);
    p->round_due_ns = at->now_ns + round_ns;
}

static void begin_round(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    set_round(heal, at, &heal->peers[peer]);
    heal->peers[peer].round = true;
    for (uint32_t i = 0; i < heal->shares->n; i++) {
        if (dkv_share_place(heal->shares, i, peer) >= 0) dkv_heal_dirty(heal, peer, i);
    }
}

static void look_after_session(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    heal_peer *p = &heal->peers[peer];
    if (dkv_session_stalled(p->session, at)) {
        session_over(heal, at, p, true);
    } else if (dkv_session_due_ns(p->session) <= at->now_ns) {
        go_on(heal, at, peer);
    } else {
        wake_at(heal, dkv_session_due_ns(p->session));
    }
}

/* Begins a session if the peer can be reached. While it is DOWN it is tried again and again. */
static void look_for_work(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    dkv_peers *peers = heal->replica->options.peers;
    heal_peer *p = &heal->peers[peer];
    if (!has_work(p)) {
        if (p->held) dkv_peers_release(peers, at, peer);
        p->held = false;
    } else if (heal->slots > 0) {
        dkv_reach reach = p->held ? dkv_peers_reach(peers, peer) : dkv_peers_hold(peers, at, peer);
        p->held = true;
        heal->slots -= reach != DKV_REACH_DOWN;
        if (reach != DKV_REACH_UP) return; /* dkv_heal_peer_changed will tell */
        if (p->not_before_ns > at->now_ns) {
            wake_at(heal, p->not_before_ns);
        } else if (dkv_heal_yields(heal, at, peer) && p->hints.len == 0) {
            wake_at(heal, p->asked_ns + dkv_ns_of_ms(DKV_HEAL_YIELD_MS));
        } else {
            begin(heal, at, peer);
        }
    }
}

/* A store that came up empty in place of another one has to get everything back. */
static void note_replaced(dkv_heal *heal) {
    if (heal->replaced || !heal->replica->options.trust->replaced) return;
    heal->replaced = true;
    dkv_heal_lost_all(heal);
}

/* What is due with one peer. */
static void look_after(dkv_heal *heal, const dkv_moment *at, uint16_t peer) {
    heal_peer *p = &heal->peers[peer];
    if (p->n_shared == 0) return;
    if (p->round_due_ns <= at->now_ns) begin_round(heal, at, peer);
    if (p->round_due_ns == INT64_MAX) set_round(heal, at, p);
    wake_at(heal, p->round_due_ns);
    if (p->session) {
        look_after_session(heal, at, peer);
    } else {
        look_for_work(heal, at, peer);
    }
}

void dkv_heal_tick(dkv_heal *heal, const dkv_moment *at) {
    note_replaced(heal);
    if (at->now_ns < heal->next_ns || !is_active(heal)) return;
    heal->next_ns = INT64_MAX;
    heal->slots = (int)DKV_HEAL_SESSIONS_MAX - (int)heal->n_sessions;
    uint16_t n = n_members(heal);
    heal->turn = (uint16_t)((heal->turn + 1) % n); /* so that none waits for ever */
    for (uint16_t i = 0; i < n; i++) look_after(heal, at, (uint16_t)((heal->turn + i) % n));
}

int64_t dkv_heal_next_timer(const dkv_heal *heal) {
    return is_active(heal) ? heal->next_ns : INT64_MAX;
}

/* ---- looking in ---- */

void dkv_heal_status_get(const dkv_heal *heal, dkv_heal_status *out) {
    *out = (dkv_heal_status){
        .hints = heal->n_hints,
        .dirty = heal->n_dirty,
        .sessions = heal->n_sessions,
        .fetched = heal->fetched,
        .sent = heal->sent,
        .round_ns = INT64_MAX,
    };
    for (uint16_t i = 0; i < n_members(heal); i++) {
        const heal_peer *p = &heal->peers[i];
        if (p->session) out->dirty += dkv_session_open_shares(p->session);
        if (p->n_shared > 0 && p->round_ns < out->round_ns) out->round_ns = p->round_ns;
    }
    if (out->round_ns == INT64_MAX) out->round_ns = 0;
}
