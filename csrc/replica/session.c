/* Healing with one peer, see heal.h.
 *
 *     stack of ranges --SUMS--> differing parts --> stack
 *                     --LIST--> differing records --> moves --FETCH--> own store
 *                     own index where the peer has nothing    --own store--> APPLY
 *
 * Each range, question and move belongs to a share and is counted in its `open`; what it leads to
 * is counted before it is taken off. So a share is done when its count falls to 0. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plant.h"
#include "replica/heal_internal.h"

#define ASKS_MAX 32u            /* questions under way */
#define FEW_RECORDS 8u          /* on both sides together: listed rather than cut further */
#define MOVES_WAITING_MAX 4096u /* found and not begun: more are not looked for */
#define SEND_PAGE 256u          /* records of a range that the peer lacks, looked up at a time */
#define PAUSE_MS 50u            /* after BUSY */

/* How a range goes on. */
typedef enum range_step {
    WHOLE, /* asked for its sum */
    CUT,   /* asked for the sums of its parts */
    LISTED,
    SENT, /* all of it: the peer has nothing there */
} range_step;

typedef struct range {
    dkv_key_hash from; /* its tag is 0 except in a continued list */
    uint64_t last;
    uint32_t share;
    range_step step;
} range;

/* One record to be made the same on both sides. */
typedef struct move {
    dkv_key_hash hash;
    uint32_t share;
    uint32_t len_bytes;
    bool fetch; /* the peer has the newer one */
} move;

/* A question to the peer, or a record on its way. */
typedef struct work {
    task task; /* first: a task is cast to its work */
    session *session;
    struct work *next, **link; /* in session.works */
    bool is_move;
    move move;
    uint32_t n; /* ranges of a question */
    range ranges[];
} work;

struct session {
    dkv_heal *heal;
    uint16_t peer;
    range *stack;
    size_t stack_len, stack_cap;
    move *moves;
    size_t moves_len, moves_cap;
    uint32_t *open; /* by share: ranges, questions and moves */
    uint8_t *marks; /* by share */
    uint32_t open_shares;
    work *works;
    uint32_t asks_out, moves_out;
    uint64_t bytes_out; /* of moves */
    int64_t resume_ns;  /* pauses until then, because a replica was busy; 0: does not */
    int64_t heard_ns;   /* when it began, or the last answer came */
    bool failed;        /* some share could not be finished */
};

enum { MARK_WHOLE = 1, MARK_FAILED = 2, MARK_SPOILT = 4, MARK_MOVED = 8 };

static dkv_replica *replica_of(const session *s) {
    return s->heal->replica;
}

static dkv_store *store_of(const session *s) {
    return s->heal->replica->options.store;
}

/* ---- accounts of shares ---- */

static void count(session *s, uint32_t share) {
    if (s->open[share]++ == 0) s->open_shares++;
}

static void fail(session *s, uint32_t share) {
    s->marks[share] |= MARK_FAILED;
    s->failed = true;
}

/* Other sessions may fill the share. */
static void release(session *s, uint32_t share) {
    if (s->heal->fillers[share] == s->peer + 1u) s->heal->fillers[share] = 0;
}

static void take_off(session *s, const dkv_moment *at, uint32_t share) {
    assert(s->open[share] > 0);
    if (--s->open[share] > 0) return;
    s->open_shares--;
    release(s, share);
    uint8_t marks = s->marks[share];
    s->marks[share] = 0;
    if (marks & MARK_MOVED) dkv_heal_share_moved(s->heal, s->peer, share);
    if (marks & (MARK_FAILED | MARK_SPOILT)) {
        dkv_heal_dirty(s->heal, s->peer, share);
    } else if (marks & MARK_WHOLE) {
        dkv_heal_share_compared(s->heal, at, s->peer, share);
    }
}

/* Without memory the share fails. */
static void push_range(session *s, range r) {
    if (s->stack_len == s->stack_cap) {
        size_t cap = s->stack_cap ? 2 * s->stack_cap : 256;
        range *grown = realloc(s->stack, cap * sizeof *grown);
        if (!grown) {
            fail(s, r.share);
            return;
        }
        s->stack = grown;
        s->stack_cap = cap;
    }
    s->stack[s->stack_len++] = r;
    count(s, r.share);
}

static void push_move(session *s, move m) {
    if (s->moves_len == s->moves_cap) {
        size_t cap = s->moves_cap ? 2 * s->moves_cap : 256;
        move *grown = realloc(s->moves, cap * sizeof *grown);
        if (!grown) {
            fail(s, m.share);
            return;
        }
        s->moves = grown;
        s->moves_cap = cap;
    }
    s->moves[s->moves_len++] = m;
    count(s, m.share);
}

/* ---- life ---- */

static void take_hints(session *s) {
    heal_peer *peer = &s->heal->peers[s->peer];
    for (size_t i = 0; i < peer->hints.cap; i++) {
        if (!peer->hints.slots[i].value) continue;
        uint64_t token = peer->hints.slots[i].key;
        int64_t share = dkv_shares_find(s->heal->shares, token);
        if (share < 0 || (s->marks[share] & MARK_WHOLE)) continue; /* will be met anyway */
        push_range(s, (range){{token, 0}, token, (uint32_t)share, LISTED});
    }
    s->heal->n_hints -= (uint32_t)peer->hints.len;
    dkv_map_free(&peer->hints);
}

static void take_dirty(session *s) {
    heal_peer *peer = &s->heal->peers[s->peer];
    for (uint32_t i = s->heal->shares->n; i-- > 0 && peer->n_dirty > 0;) {
        if (!peer->dirty[i]) continue;
        const dkv_share *share = &s->heal->shares->all[i];
        peer->dirty[i] = 0;
        peer->n_dirty--;
        s->heal->n_dirty--;
        s->marks[i] |= MARK_WHOLE;
        push_range(s, (range){{share->first, 0}, share->last, i, WHOLE});
    }
}

int dkv_session_new(dkv_heal *heal, const dkv_moment *at, uint16_t peer, session **out) {
    session *s = calloc(1, sizeof *s);
    if (!s) return DKV_ERR_NO_MEMORY;
    s->heal = heal;
    s->peer = peer;
    s->heard_ns = at->now_ns;
    s->open = calloc(heal->shares->n, sizeof *s->open);
    s->marks = calloc(heal->shares->n, sizeof *s->marks);
    if (!s->open || !s->marks) {
        free(s->open);
        free(s->marks);
        free(s);
        return DKV_ERR_NO_MEMORY;
    }
    if (!dkv_heal_yields(heal, at, peer)) take_dirty(s);
    take_hints(s);
    *out = s;
    return DKV_OK;
}

static work *work_new(session *s, size_t n_ranges) {
    work *w = calloc(1, sizeof *w + n_ranges * sizeof(range));
    if (!w) return NULL;
    if (dkv_replica_task_add(replica_of(s), &w->task, TASK_HEAL)) {
        free(w);
        return NULL;
    }
    w->session = s;
    w->next = s->works;
    w->link = &s->works;
    if (w->next) w->next->link = &w->next;
    s->works = w;
    return w;
}

static void work_del(work *w) {
    dkv_map_remove(&replica_of(w->session)->tasks, w->task.id);
    *w->link = w->next;
    if (w->next) w->next->link = w->link;
    free(w);
}

void dkv_session_del(session *s) {
    if (!s) return;
    while (s->works) work_del(s->works);
    for (uint32_t i = 0; i < s->heal->shares->n; i++) {
        release(s, i);
        if (s->marks[i] & MARK_MOVED) dkv_heal_share_moved(s->heal, s->peer, i);
        /* Without memory a share has failed before anything of it was under way. */
        bool is_undone = s->open[i] || (s->marks[i] & MARK_FAILED);
        if (is_undone) dkv_heal_dirty(s->heal, s->peer, i);
    }
    free(s->stack);
    free(s->moves);
    free(s->open);
    free(s->marks);
    free(s);
}

static int64_t stall_ns(const session *s) {
    return s->heard_ns + dkv_ns_of_ms(DKV_HEAL_STALL_MS);
}

int64_t dkv_session_due_ns(const session *s) {
    return s->resume_ns ? s->resume_ns : stall_ns(s);
}

bool dkv_session_stalled(const session *s, const dkv_moment *at) {
    return at->now_ns >= stall_ns(s);
}

bool dkv_session_ended(const session *s, bool *failed) {
    *failed = s->failed;
    return s->open_shares == 0;
}

void dkv_session_spoil(session *s, uint32_t share) {
    if (s->open[share]) s->marks[share] |= MARK_SPOILT;
}

uint16_t dkv_session_task_peer(const task *t) {
    return ((const work *)t)->session->peer;
}

uint32_t dkv_session_open_shares(const session *s) {
    return s->open_shares;
}

/* ---- comparing ---- */

/* Whether the peer may be left to fetch what it lacks of the share, which then stays dirty. */
static bool leaves_to_peer(session *s, const dkv_moment *at, uint32_t share) {
    bool leaves = (s->marks[share] & MARK_WHOLE) && dkv_heal_yields(s->heal, at, s->peer);
    if (leaves) s->marks[share] |= MARK_SPOILT;
    return leaves;
}

/* The part of a range differs: what is done about it. */
static void go_on(session *s, const dkv_moment *at, const range *r, uint64_t own, uint64_t theirs) {
    range next = *r;
    if (theirs == 0 && leaves_to_peer(s, at, r->share)) return;
    if (theirs == 0) {
        next.step = SENT;
    } else if (own == 0 || own + theirs <= FEW_RECORDS || r->from.token == r->last) {
        next.step = LISTED;
    } else {
        next.step = CUT;
    }
    push_range(s, next);
}

static void compare_parts(session *s, const dkv_moment *at, const work *w, const dkv_sums *sums) {
    uint32_t parts = w->ranges[0].step == WHOLE ? 1 : DKV_SUMS_PARTS_MAX;
    for (uint32_t i = 0; i < w->n; i++) {
        range r = w->ranges[i];
        bool skipped = DKV_PLANTED(SKIP_LAST_RANGE) && i + 1 == w->n;
        for (uint32_t part = 0; part < parts && !skipped; part++) {
            range cut = r;
            uint32_t k = i * parts + part;
            if (!dkv_range_part(r.from.token, r.last, parts, part, &cut.from.token, &cut.last)) {
                continue;
            }
            dkv_store_range own = dkv_store_digest(store_of(s), cut.from.token, cut.last);
            if (own.records == sums->counts[k] && own.digest.lo == sums->digests[k]) continue;
            go_on(s, at, &cut, own.records, sums->counts[k]);
        }
        take_off(s, at, r.share);
    }
}

/* One record of a list, or own record, or both: what has to be moved. */
static void compare_record(session *s, const dkv_moment *at, uint32_t share, dkv_key_hash hash,
                           const dkv_store_entry *own, const dkv_list *list, uint32_t k) {
    move m = {.hash = hash, .share = share};
    int newer = own ? 1 : -1; /* > 0: the own one */
    if (own && list) {
        newer = dkv_version_cmp(own->version, (dkv_version){list->hlcs[k], list->origins[k]});
        uint32_t size = own->len_bytes << 1 | (own->kind == DKV_KIND_TOMBSTONE);
        if (newer == 0 && size != list->sizes[k]) {
            dkv_replica_alarm(at, own->version);
            fail(s, share);
        }
    }
    if (newer == 0) return;
    if (DKV_PLANTED(REPAIR_WITH_OLDER) && own && list) newer = -newer;
    m.fetch = newer < 0;
    if (!m.fetch && leaves_to_peer(s, at, share)) return;
    m.len_bytes = m.fetch ? list->sizes[k] >> 1 : own->len_bytes;
    push_move(s, m);
}

/* Finds what differs between the list of the peer and the own records in the same range. */
static void compare_list(session *s, const dkv_moment *at, const range *r, const dkv_list *list) {
    dkv_key_hash from = r->from;
    bool inside = true; /* `from` is a hash */
    for (uint32_t k = 0;;) {
        dkv_key_hash hash;
        dkv_store_entry own;
        bool mine =
            inside && !dkv_store_next(store_of(s), from, &hash, &own) && hash.token <= r->last;
        bool theirs = k < list->n && list->tokens[k] <= r->last;
        /* What lies behind a list that is not whole is asked for next. */
        if (!theirs && (list->more || !mine)) return;
        dkv_key_hash named = {0, 0};
        if (theirs) named = (dkv_key_hash){list->tokens[k], list->tags[k]};
        int order = !mine ? 1 : !theirs ? -1 : dkv_key_hash_cmp(hash, named);
        compare_record(s, at, r->share, order <= 0 ? hash : named, order <= 0 ? &own : NULL,
                       order >= 0 ? list : NULL, k);
        if (order >= 0) k++;
        if (order <= 0) {
            from = hash;
            inside = dkv_key_hash_next(&from);
        }
    }
}

static void continue_list(session *s, const range *r, const dkv_list *list) {
    range rest = *r;
    rest.from = (dkv_key_hash){list->tokens[list->n - 1], list->tags[list->n - 1]};
    if (dkv_key_hash_next(&rest.from) && rest.from.token <= rest.last) push_range(s, rest);
}

/* Finds the next records of a range that the peer lacks. */
static void send_page(session *s, const dkv_moment *at, range r) {
    dkv_key_hash hash;
    dkv_store_entry own;
    for (unsigned i = 0; i < SEND_PAGE; i++) {
        if (dkv_store_next(store_of(s), r.from, &hash, &own) || hash.token > r.last) break;
        push_move(s, (move){hash, r.share, own.len_bytes, false});
        r.from = hash;
        if (!dkv_key_hash_next(&r.from)) break;
        if (i == SEND_PAGE - 1) push_range(s, r);
    }
    take_off(s, at, r.share);
}

/* ---- asking ---- */

/* Lost if the peer is just going down, which ends the session. */
static void send_to_peer(session *s, const dkv_moment *at, const dkv_message *message) {
    dkv_peers_send(replica_of(s)->options.peers, at, s->peer, message);
}

static void ask_sums(session *s, const dkv_moment *at, const work *w) {
    uint64_t bounds[2 * DKV_SUMS_RANGES_MAX];
    for (uint32_t i = 0; i < w->n; i++) {
        bounds[2 * i] = w->ranges[i].from.token;
        bounds[2 * i + 1] = w->ranges[i].last;
    }
    dkv_message message = {.kind = DKV_MSG_SUMS, .id = w->task.id};
    uint32_t parts = w->ranges[0].step == WHOLE ? 1 : DKV_SUMS_PARTS_MAX;
    message.sums = (dkv_sums_request){w->n, parts, bounds};
    send_to_peer(s, at, &message);
}

static void ask_list(session *s, const dkv_moment *at, const work *w) {
    dkv_message message = {.kind = DKV_MSG_LIST, .id = w->task.id};
    message.list = (dkv_list_request){w->ranges[0].from, w->ranges[0].last};
    send_to_peer(s, at, &message);
}

/* Whether the session with another peer is about to fill the share: what it brings need not be
 * brought twice. Hints, which do not come in whole shares, are few. */
static bool is_taken(const session *s, uint32_t share) {
    uint16_t filler = s->heal->fillers[share];
    return (s->marks[share] & MARK_WHOLE) && filler && filler != s->peer + 1u;
}

static void fill(session *s, uint32_t share) {
    if (s->marks[share] & MARK_WHOLE) s->heal->fillers[share] = (uint16_t)(s->peer + 1);
}

/* Brings the topmost range that this session may go on with to the top; false if there is none.
 * None of a share that is taken has been cut yet, and by then it may be equal: it is compared from
 * the beginning. */
static bool find_next(session *s) {
    for (size_t i = s->stack_len; i-- > 0;) {
        range found = s->stack[i];
        if (!is_taken(s, found.share)) {
            s->stack[i] = s->stack[s->stack_len - 1];
            s->stack[s->stack_len - 1] = found;
            return true;
        }
        s->stack[i].step = WHOLE;
    }
    return false;
}

/* Takes ranges with the same step as the top off the stack, as many as one question may name. */
static work *take_ranges(session *s) {
    const range *top = &s->stack[s->stack_len - 1];
    size_t most = top->step == LISTED ? 1 : DKV_SUMS_RANGES_MAX, n = 1;
    if (most > s->stack_len) most = s->stack_len;
    while (n < most && top[-(ptrdiff_t)n].step == top->step &&
           !is_taken(s, top[-(ptrdiff_t)n].share)) {
        n++;
    }
    work *w = work_new(s, n);
    if (!w) return NULL;
    w->n = (uint32_t)n;
    s->stack_len -= n;
    memcpy(w->ranges, &s->stack[s->stack_len], n * sizeof *w->ranges);
    for (size_t i = 0; i < n && w->ranges[0].step != WHOLE; i++) fill(s, w->ranges[i].share);
    return w;
}

/* Goes on with the top of the stack; false without memory. */
static bool ask_next(session *s, const dkv_moment *at) {
    range top = s->stack[s->stack_len - 1];
    if (top.step == SENT) {
        s->stack_len--;
        send_page(s, at, top);
        return true;
    }
    work *w = take_ranges(s);
    if (!w) return false;
    s->asks_out++;
    if (top.step == LISTED) {
        ask_list(s, at, w);
    } else {
        ask_sums(s, at, w);
    }
    return true;
}

/* ---- moving ---- */

static bool may_move(const session *s) {
    bool busy = replica_of(s)->counts.requests > 0;
    if (s->moves_out >= (busy ? DKV_HEAL_MOVES_BUSY : DKV_HEAL_MOVES_MAX)) return false;
    const move *m = &s->moves[s->moves_len - 1];
    return s->moves_out == 0 || s->bytes_out + m->len_bytes <= DKV_HEAL_BYTES_MAX;
}

static void move_end(work *w, const dkv_moment *at) {
    session *s = w->session;
    uint32_t share = w->move.share;
    s->marks[share] |= MARK_MOVED;
    s->moves_out--;
    s->bytes_out -= w->move.len_bytes;
    work_del(w);
    take_off(s, at, share);
}

static void move_failed(work *w, const dkv_moment *at, int err) {
    session *s = w->session;
    if (err == DKV_ERR_BUSY) { /* begun anew after a pause */
        s->resume_ns = at->now_ns + dkv_ns_of_ms(PAUSE_MS);
        push_move(s, w->move);
    } else {
        fail(s, w->move.share);
    }
    move_end(w, at);
}

/* False without memory: the move is left where it was. */
static bool move_begin(session *s, const dkv_moment *at) {
    work *w = work_new(s, 0);
    if (!w) return false;
    w->is_move = true;
    w->move = s->moves[--s->moves_len];
    s->moves_out++;
    s->bytes_out += w->move.len_bytes;
    if (w->move.fetch) {
        dkv_message message = {.kind = DKV_MSG_FETCH, .id = w->task.id};
        message.fetch.hash = w->move.hash;
        send_to_peer(s, at, &message);
        return true;
    }
    int err = dkv_store_read(store_of(s), (dkv_slice){0}, w->move.hash, w->task.id);
    if (err) move_failed(w, at, err);
    return true;
}

void dkv_session_pump(session *s, const dkv_moment *at) {
    if (at->now_ns < s->resume_ns) return;
    s->resume_ns = 0;
    for (bool able = true; able;) {
        if (s->resume_ns) return; /* the own store was busy */
        if (s->moves_len > 0 && may_move(s)) {
            able = move_begin(s, at);
        } else if (s->stack_len > 0 && s->asks_out < ASKS_MAX && s->moves_len < MOVES_WAITING_MAX) {
            able = find_next(s) && ask_next(s, at);
        } else {
            return;
        }
    }
    if (s->moves_len > 0 && s->moves_out > 0) return; /* their end goes on with the others */
    s->resume_ns = at->now_ns + dkv_ns_of_ms(PAUSE_MS);
    if (!s->works) s->heard_ns = at->now_ns; /* it does not wait for its peer */
}

/* ---- answers ---- */

/* The record that was fetched goes into the own store. */
static void fetched(work *w, const dkv_moment *at, const dkv_message *message) {
    session *s = w->session;
    const dkv_record *record = &message->fetch_reply.record;
    int err = message->fetch_reply.err;
    if (!err && dkv_key_hash_cmp(dkv_hash_key(record->key), w->move.hash)) err = DKV_ERR_PROTOCOL;
    if (!err) {
        dkv_clock_observe(&replica_of(s)->clock, at->wall_ms, record->version.hlc);
        err = dkv_store_apply(store_of(s), record, w->task.id);
    }
    if (err) move_failed(w, at, err);
}

/* A list that leaves its range would never come to an end, or name what this node does not keep. */
static bool is_within(const dkv_list *list, const range *r) {
    if (list->n == 0) return true;
    dkv_key_hash first = {list->tokens[0], list->tags[0]};
    return dkv_key_hash_cmp(first, r->from) >= 0 && list->tokens[list->n - 1] <= r->last;
}

static void listed(work *w, const dkv_moment *at, const dkv_list *list) {
    session *s = w->session;
    range r = w->ranges[0];
    if (is_within(list, &r)) {
        compare_list(s, at, &r, list);
        if (list->more) continue_list(s, &r, list);
    } else {
        fail(s, r.share);
    }
    take_off(s, at, r.share);
}

static void ask_end(work *w) {
    w->session->asks_out--;
    work_del(w);
}

static void ask_answered(work *w, const dkv_moment *at, const dkv_message *message) {
    range_step step = w->ranges[0].step;
    uint32_t parts = step == WHOLE ? 1 : DKV_SUMS_PARTS_MAX;
    if (step == LISTED && message->kind == DKV_MSG_LIST_REPLY) {
        listed(w, at, &message->list_reply);
    } else if (step != LISTED && message->kind == DKV_MSG_SUMS_REPLY &&
               message->sums_reply.n == w->n * parts) {
        compare_parts(w->session, at, w, &message->sums_reply);
    } else {
        for (uint32_t i = 0; i < w->n; i++) {
            fail(w->session, w->ranges[i].share);
            take_off(w->session, at, w->ranges[i].share);
        }
    }
    ask_end(w);
}

void dkv_session_answered(task *t, const dkv_moment *at, const dkv_message *message) {
    work *w = (work *)t;
    session *s = w->session;
    s->heard_ns = at->now_ns;
    if (!w->is_move) {
        ask_answered(w, at, message);
    } else if (w->move.fetch && message->kind == DKV_MSG_FETCH_REPLY) {
        fetched(w, at, message);
    } else if (!w->move.fetch && message->kind == DKV_MSG_APPLY_REPLY) {
        int err = message->apply_reply.err;
        s->heal->sent += !err;
        if (err) {
            move_failed(w, at, err);
        } else {
            move_end(w, at);
        }
    }
}

void dkv_session_stored(task *t, const dkv_moment *at, const dkv_store_event *event) {
    work *w = (work *)t;
    session *s = w->session;
    if (!w->is_move) return;
    s->heard_ns = at->now_ns;
    if (event->err) {
        move_failed(w, at, event->err);
    } else if (event->kind == DKV_STORE_DURABLE) {
        s->heal->fetched++;
        move_end(w, at);
    } else {
        dkv_message message = {.kind = DKV_MSG_APPLY, .id = w->task.id, .apply = event->record};
        send_to_peer(s, at, &message);
    }
}
