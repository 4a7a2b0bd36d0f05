/* What the files of this folder share: host.c (beginning, loop and end), effects.c (what the node
 * wants done), pairs.c (streams in pairs), intake.c (how fast they are read), links.c (other
 * nodes), sessions.c (clients' streams), calls.c (unary calls), health.c and reflection.c (what any
 * gRPC tool may ask), descriptors.c, address.c. All of it belongs to the owner thread. */
#ifndef DKV_HOST_INTERNAL_H
#define DKV_HOST_INTERNAL_H

#include <stdatomic.h>

#include "base/map.h"
#include "host/disk.h"
#include "host/host.h"
#include "rpc/rpc.h"
#include "wire/wire.h"

/* ---- pairs of streams ---- */

typedef struct dkv_pair dkv_pair;

/* Takes the items of a batch that came in. An error ends the pair. */
typedef int (*dkv_pair_take)(dkv_pair *pair, dkv_slice batch);

/* One stream, or two that belong together: the small lane, and for items of more than
 * DKV_WIRE_LARGE bytes the large lane, so that these do not hold the others up. A link to or from a
 * node and a client's session each begin with a pair. */
struct dkv_pair {
    dkv_host *host;
    dkv_pair_take take;
    dkv_rpc_stream *small; /* NULL: closed */
    dkv_rpc_stream *large; /* NULL: not opened, or closed */
    uint64_t lane;         /* the number that both lanes announce; 0: none */
    unsigned refs;         /* lanes, lists, and requests without an answer */
    unsigned unanswered;   /* requests of clients that came from here */
    size_t expected_len;   /* of the next item to be sent: the recent ones were no larger */
    bool is_session;       /* a client's */
    bool begun;            /* its first message has been looked at */
    bool ended;            /* a lane has closed or was failed: nothing goes in or out */
    bool dirty;            /* in host->dirty */
    bool waiting;          /* in host->waiting: something is held, and nothing more is read */
    dkv_buf held;          /* came in, not yet taken from held_at on */
    size_t held_at;
    dkv_pair *next; /* in host->pairs */
    dkv_pair *prev;
    dkv_pair *next_dirty;
    dkv_pair *next_waiting;
};

/* Makes a pair, embedded at the beginning of `size` bytes, whose small lane is `stream` (may be
 * NULL at first). NULL without memory. */
dkv_pair *dkv_pair_new(dkv_host *host, size_t size, dkv_pair_take take, dkv_rpc_stream *stream);

void dkv_pair_hold(dkv_pair *pair);

/* The last one frees it. */
void dkv_pair_release(dkv_pair *pair);

/* Looks at the first message of a stream that somebody opened here. If it announces the lane of a
 * pair known in `lanes`, the stream becomes that pair's large lane, and `fresh` goes. Returns the
 * pair that the message belongs to, or NULL if it was refused. */
dkv_pair *dkv_pair_begin(dkv_pair *fresh, dkv_map *lanes, dkv_rpc_stream *stream, dkv_slice bytes);

/* Queues an item on the lane that its size asks for, until dkv_pairs_flush; `item` may be left
 * empty. A pair that cannot take it is ended. */
void dkv_pair_send(dkv_pair *pair, dkv_buf *item);

/* Ends both lanes now; their `closed` still follows. */
void dkv_pair_fail(dkv_pair *pair, int err, const char *detail);

/* A lane has closed: ends the other. Returns true if it is this that ended the pair. The caller
 * releases the lane's hold. */
bool dkv_pair_lane_closed(dkv_pair *pair, dkv_rpc_stream *stream);

/* Bytes queued on both lanes. */
size_t dkv_pair_backlog(const dkv_pair *pair);

/* Sends what was queued. */
void dkv_pairs_flush(dkv_host *host);

/* Ends all pairs in order: what was queued is still sent. */
void dkv_pairs_finish(dkv_host *host);

/* ---- intake.c ---- */

/* A message came in: takes its items now, or holds them until there is room. */
void dkv_pair_receive(dkv_pair *pair, dkv_slice bytes);

/* Takes of what is held what there is room for. Returns true if something was taken. */
bool dkv_pairs_take(dkv_host *host);

/* ---- requests under way ---- */

/* Where an answer goes. */
typedef struct dkv_waiter {
    dkv_pair *session;  /* NULL: a unary call */
    dkv_rpc_call *call; /* NULL: a session's request, or a free slot */
    uint64_t id;        /* the client's; in a free slot the index of the next one */
    size_t len_bytes;   /* of the request */
    dkv_op op;          /* 0: none, it is a declaration */
} dkv_waiter;

/* ---- the host ---- */

typedef struct dkv_watch dkv_watch;

struct dkv_host {
    dkv_node *node;
    dkv_effects effects;
    dkv_disk *disk;
    dkv_rpc_loop *loop;
    dkv_rpc_server *server;
    uint16_t port;
    void (*log)(void *user, const dkv_notice *notice);
    void *log_user;

    int64_t now_ns; /* read at the beginning of each callback, so that all its steps agree */
    uint64_t wall_ms;
    int64_t started_ns;

    dkv_disk_job **inline_done; /* performed inside dkv_effects.disk, not yet given back */
    size_t n_inline_done;
    size_t cap_inline_done;
    size_t jobs_out;

    dkv_pair *pairs; /* all of them */
    dkv_pair *dirty;
    dkv_pair *waiting;
    dkv_buf scratch; /* where items are encoded */

    dkv_watch *watches; /* streams that wait for a change of health */

    dkv_map links; /* dkv_link to its pair */
    dkv_map link_lanes;
    dkv_link last_accepted;

    dkv_map session_lanes;
    dkv_waiter *waiters; /* a request's handle is its index + 1 */
    size_t n_waiters;
    size_t free_waiter; /* index of the first free one; n_waiters: none */
    size_t n_requests;  /* in it */
    size_t request_bytes;
    size_t requests_max;
    size_t request_bytes_max; /* sessions stop at half of it */

    atomic_bool stop_asked;
    bool stopping; /* no new requests are taken */
    bool closing;  /* no links are opened any more */
    bool deaf;     /* the node is not stepped any more */
    int failure;   /* why the node must stop, or 0 */
};

void dkv_host_refresh_clock(dkv_host *host);

/* Steps the node; nothing happens once it is deaf or has failed. */
void dkv_host_step(dkv_host *host, dkv_event event);

void dkv_host_say(const dkv_host *host, dkv_log_level level, const char *event, const char *text);

/* The node cannot go on: logs `text`, and from now on nothing is stepped or sent. */
void dkv_host_fatal(void *user, int err, const char *text);

/* A random number, not 0. */
uint64_t dkv_host_random(void);

/* ---- effects.c ---- */

/* The node's effects, for this host. */
dkv_effects dkv_host_effects(dkv_host *host);

/* Gives completed disk jobs back to the node. */
void dkv_host_finish_jobs(dkv_host *host);

/* ---- links.c ---- */

void *dkv_link_accept(void *user, dkv_rpc_stream *stream);
extern const dkv_rpc_stream_events dkv_link_accepted_events;

void dkv_host_connect(void *user, uint16_t peer, dkv_link link);
void dkv_host_close(void *user, dkv_link link);
void dkv_host_send(void *user, dkv_link link, const dkv_message *message);

/* Ends the links that this node opened, and listens to no others any more. */
void dkv_links_end(dkv_host *host);

/* ---- sessions.c ---- */

void *dkv_session_accept(void *user, dkv_rpc_stream *stream);
extern const dkv_rpc_stream_events dkv_session_events;

/* All that was held of this session has been taken. */
void dkv_session_caught_up(dkv_pair *pair);

/* A request came in; its reply will go to `waiter`. Handed to the node, or answered at once if this
 * host takes no more. */
void dkv_host_request(dkv_host *host, dkv_waiter waiter, const dkv_request *request);

/* As dkv_host_request, for the declaration that `member` is lost. */
void dkv_host_declare_lost(dkv_host *host, dkv_rpc_call *call, dkv_slice member);

/* The node's reply to one. */
void dkv_host_reply(void *user, uint64_t handle, const dkv_reply *reply);

/* Answers those that the node has left without an answer, and frees their table. */
void dkv_host_drop_requests(dkv_host *host);

/* ---- calls.c ---- */

void dkv_call_get(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);
void dkv_call_put(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);
void dkv_call_delete(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);
void dkv_call_map(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);
void dkv_call_status(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);
void dkv_call_shares(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);
void dkv_call_declare_lost(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);

/* `op` 0: the reply to a declaration. */
void dkv_call_reply(dkv_host *host, dkv_rpc_call *call, dkv_op op, const dkv_reply *reply);

/* ---- health.c ---- */

void dkv_health_check(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms);

void *dkv_watch_accept(void *user, dkv_rpc_stream *stream);
extern const dkv_rpc_stream_events dkv_watch_events;

/* The host is stopping: tells those who watch, and ends their streams in order. */
void dkv_watches_finish(dkv_host *host);

/* ---- reflection.c ---- */

void *dkv_reflection_accept(void *user, dkv_rpc_stream *stream);
extern const dkv_rpc_stream_events dkv_reflection_events;

/* ---- address.c ---- */

/* Finds out whether "host:port" can be bound here now, before anything is made that would have to
 * go again if it cannot. UNAVAILABLE, with the reason in `why` (DKV_DETAIL_MAX bytes). */
int dkv_address_try(const char *address, char *why);

#endif
