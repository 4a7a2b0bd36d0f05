/* What the files of this folder share and nobody else sees.
 *
 * The client's parts, from the top:
 *   batch    the operations of one dkv_client_start, of which a window is on its way
 *   flight   one operation: its replicas, its deadline, what was tried
 *   attempt  one request of a flight to one replica
 *   target   one member as this client sees it: its connection, and how well it answers
 *   lane     one session stream of a target (dkv.proto tells why there are two)
 *   waiter   one thread in dkv_client_wait, or that asks a question
 *
 * Invariants
 * 1. Everything is guarded by the client's mutex, which the polling thread lets go only while it
 *    waits inside dkv_rpc_loop_poll, and while it lets others run (poll.c).
 * 2. At most one thread polls. While none does, one of the followers has been told to take over.
 * 3. A request leaves only on a lane that the server has accepted. So an attempt that is not `sent`
 *    has certainly not arrived anywhere, and only such a write is tried again elsewhere.
 * 4. Callbacks of rpc only take note and mark; dkv_client_settle, called before the mutex is given
 *    up, starts what follows. So no callback nests, however many operations end at once.
 * 5. A waiter that was taken out of `followers` is woken exactly once, by the thread that gives up
 *    the mutex next; until then it stays where it is. While a poll waits, nobody is to be woken. */
#ifndef DKV_CLIENT_INTERNAL_H
#define DKV_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"
#include "base/p99.h"
#include "base/text.h"
#include "base/timers.h"
#include "client/client.h"
#include "client/list.h"
#include "rpc/nagle.h"
#include "rpc/rpc.h"

#define NS_PER_MS ((int64_t)1000000)
#define WRITE_GRACE_MS 100u /* the node's own answer to a write that failed says more than ours */
#define HEDGE_MIN_NS (2 * NS_PER_MS)   /* a poll is not more exact than half of this */
#define HEDGE_MAX_MS 40u               /* a target that is silent for longer is passed over */
#define HEDGE_READS 20u                /* that earn a hedge: at most 5 % are hedged ... */
#define HEDGES_SAVED 10u               /* ... after so many that were earned before */
#define PATIENCE_NS (250 * NS_PER_MS)  /* with a silent target of a write, or a seed */
#define PROBE_NS (250 * NS_PER_MS)     /* between two probes of a suspect */
#define RECONNECT_NS (100 * NS_PER_MS) /* between two attempts to connect */
#define CATCH_UP_NS (5 * NS_PER_MS)    /* without a poll, then one before an operation */
#define SLICE_NS (200 * NS_PER_MS)     /* between two looks at `interrupted` */
#define WINDOW_BYTES (8u << 20)        /* values of one batch on their way */
#define LANE_BACKLOG_MAX (256u << 10)  /* bytes handed to a stream and not yet sent */
#define POLL_EVENTS_MAX 256u
#define GATES 32u
#define PLACES_OF_GATE 32u /* bits of a futex's set of waiters */

typedef struct flight flight;
typedef struct target target;
typedef struct batch batch;

typedef enum lane_kind { SMALL, LARGE, N_LANES } lane_kind;

typedef struct attempt {
    list_node node; /* in a lane's `waiting` or the target's `sent` */
    flight *flight;
    target *target; /* NULL: not under way */
    uint64_t id;    /* the request's number on the wire */
    int64_t since_ns;
    bool sent;    /* handed to the stream: from here on it may have arrived */
    bool sampled; /* counted in the target's get_ns */
    lane_kind lane;
} attempt;

struct flight {
    dkv_client_op *op; /* NULL when the operation is done */
    batch *batch;
    const uint16_t *replicas; /* borrows from the ring */
    dkv_timer timer;          /* when to do something about it: next replica, deadline */
    int64_t deadline_ns;
    bool begun;
    int err;          /* the failure to report if nothing better comes */
    bool from_node;   /* it was a node's answer, which counts more than a broken link */
    bool absent;      /* a replica said NOT_FOUND, but could not ask all others */
    dkv_phrases said; /* of the replicas that failed, in op->detail */
    uint8_t tried;    /* bit i: replica i has been tried */
    uint8_t latest;   /* replica that was tried last */
    uint8_t n_open;   /* attempts under way */
    attempt attempts[DKV_REPLICATION_MAX];
};

typedef struct waiter {
    list_node node;  /* in the client's `followers`, or `woken` */
    bool following;  /* in `followers` */
    bool to_lead;    /* in `woken`: to poll; else because nothing is left */
    uint32_t place;  /* where it sleeps: a gate of the client, and a bit there */
    atomic_int call; /* what it has been woken for */
    size_t left;     /* what it waits for */
    const dkv_client_op *ops;
    size_t n;
} waiter;

struct batch {
    list_node node;      /* in the client's `batches` */
    list_node unsettled; /* in the client's `unsettled` */
    waiter *waiter;      /* who waits for its operations, or NULL */
    size_t n;
    size_t next; /* the first that has not begun */
    size_t undone;
    size_t on_way;
    size_t bytes_on_way;
    dkv_client_follow follow; /* not NULL: a series, of one flight that flies again and again */
    void *follow_user;
    bool landed; /* a series: `follow` is to be asked */
    flight flights[];
};

typedef struct lane {
    target *target;
    dkv_rpc_stream *stream; /* NULL: closed */
    bool accepted;
    list waiting;   /* attempts that have not left */
    list_node pump; /* in the client's `pumps`, `congested` or `held` */
    dkv_rpc_nagle nagle;
    bool held; /* in `held` */
} lane;

struct target {
    dkv_client *client;
    const dkv_member *member; /* borrows from the ring */
    dkv_rpc_channel *channel; /* NULL until first used */
    lane lanes[N_LANES];
    uint64_t pair; /* the number that makes the two lanes one pair */
    bool answered; /* on the small lane since it was opened */
    list sent;     /* attempts that left, on either lane */
    int64_t heard_ns;
    dkv_p99 get_ns;           /* from a read's request to its answer */
    int64_t probe_ns;         /* when to probe it next, if it is suspect */
    bool suspect;             /* silent for longer than a request should take */
    int64_t retry_ns;         /* counts as unreachable until then */
    char why[DKV_DETAIL_MAX]; /* it became unreachable */
};

struct dkv_client {
    unsigned forks; /* when it was made */
    pthread_mutex_t mutex;
    uint32_t timeout_ms;
    int64_t hedge_ns;
    bool hedges;           /* hedge_ns is what it waits at most, else always */
    uint32_t hedge_credit; /* in reads */
    dkv_client_stats stats;
    bool (*interrupted)(void *user);
    void *interrupted_user;
    bool closed;

    dkv_rpc_loop *loop;
    dkv_ring *ring;
    target *targets;  /* by member index */
    dkv_map attempts; /* by request number */
    uint64_t last_id;
    dkv_timers timers;
    dkv_version last_seen;
    dkv_buf scratch;
    list batches;
    list unsettled; /* batches that may begin an operation or are over */
    list pumps;     /* lanes that have something to send */
    list congested; /* lanes that wait for their stream to take more */
    list held;      /* lanes that wait for company, the first for the longest */

    bool polling;
    bool gathering; /* the thread that polls will settle in a moment, for others too */
    int64_t poll_until_ns;
    int64_t polled_ns;
    list followers; /* waiters that do not poll */
    list woken;     /* waiters to be woken when the mutex is given up */
    uint32_t next_place;
    atomic_uint gates[GATES]; /* futexes; each counts how often sleepers were woken there */
};

/* ---- poll.c ---- */

int64_t dkv_client_now(void);

void dkv_client_lock(dkv_client *client);

/* Gives up the mutex and wakes those that are to be woken. */
void dkv_client_unlock(dkv_client *client);

/* One of the things that `w` waits for has happened. */
void dkv_client_waiter_tick(dkv_client *client, waiter *w);

/* Polls, or lets another thread poll, until nothing is left to wait for: then it returns true, and
 * the mutex, which was held before, is not held any more, as most threads do not need it again.
 * Returns false, with the mutex held, when it is `until_ns`. */
bool dkv_client_await(dkv_client *client, waiter *w, int64_t until_ns);

/* The same in slices, asking `interrupted` between them; the mutex is held afterwards. */
int dkv_client_await_patiently(dkv_client *client, waiter *w, int64_t until_ns);

/* When a timer is due or a held lane, whichever is first. */
int64_t dkv_client_due(const dkv_client *client);

/* Takes in what has happened while nobody polled. */
void dkv_client_catch_up(dkv_client *client);

/* Does all that the callbacks have left to do. Must precede giving up the mutex, unless another
 * thread is gathering. */
void dkv_client_settle(dkv_client *client);

/* ---- flight.c ---- */

/* Makes `f` the flight of `op`, which has not begun. f->err is not 0 if it never may. Needs no
 * lock, as the ring never changes; so hashing is not what threads wait for. */
void dkv_client_flight_init(const dkv_client *client, batch *b, flight *f, dkv_client_op *op);

/* Begins as many operations of `b` as its window allows; frees it when it is over. */
void dkv_client_batch_settle(dkv_client *client, batch *b);

/* Ends an operation that was not answered. */
void dkv_client_flight_fail(dkv_client *client, flight *f, int err, const char *why);

/* Ends an operation that dkv_client_flight_init has found to be outside its limits. */
void dkv_client_flight_refuse(dkv_client *client, flight *f);

/* `a` failed without an answer; it is in no list any more. */
void dkv_client_attempt_failed(dkv_client *client, attempt *a, int err, const char *why);

void dkv_client_flight_answer(dkv_client *client, attempt *a, const dkv_reply *reply);
void dkv_client_flight_due(dkv_client *client, flight *f);

/* ---- target.c ---- */

typedef enum reach { REACH_GOOD, REACH_SUSPECT, REACH_NONE } reach;

reach dkv_client_target_reach(const target *t, int64_t now_ns);

/* Makes the connection if there is none, so that t->channel can be used. */
int dkv_client_target_connect(target *t);

/* Queues `a`, which leaves when the target has accepted the session. An error says that this was
 * in vain; t->why has the words. */
int dkv_client_target_enqueue(target *t, attempt *a, int64_t now_ns);

/* Takes `a` out of everything. What was sent stays sent. */
void dkv_client_target_forget(target *t, attempt *a);

/* A request waiting since `since_ns` has waited longer than it should. */
void dkv_client_target_doubt(target *t, int64_t since_ns, int64_t now_ns);

/* Asks a suspect for a sign of life, if it is time for that. */
void dkv_client_target_probe(target *t, dkv_slice key, int64_t now_ns);

/* Lets the lanes go that have been held for long enough. */
void dkv_client_release_held(dkv_client *client);

/* Sends what waits on `l`, unless it has to wait for company (rpc/nagle.h). */
void dkv_client_lane_pump(dkv_client *client, lane *l);

void dkv_client_target_init(target *t, dkv_client *client, const dkv_member *member);

/* Closes the connection; callbacks follow until the loop is deleted. */
void dkv_client_target_close(target *t);

/* ---- ask.c ---- */

/* What gRPC says of a connection in fewer words: without the addresses, which the caller names.
 * Borrows from `detail`. */
const char *dkv_client_plain(const char *detail);

/* What dkv_client_call does, for a client that is open. */
void dkv_client_ask(dkv_client *client, const char *method, uint32_t timeout_ms,
                    dkv_client_question *questions, size_t n);

/* Fetches the map from the seeds ("host:port,host:port") and builds client->ring. Locks. */
int dkv_client_fetch_map(dkv_client *client, const char *text, char *why);

#endif
