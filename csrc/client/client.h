/* A client of a cluster: fetches the map, sends each request to the key's owner, fails over inside
 * one call, and is safe for many threads at once.
 *
 * There is no thread inside: whoever waits polls for all (one at a time; the others sleep until
 * their own operation is done or the poller leaves). Requests that go to one node while a message
 * to it is in flight leave together in the next one.
 *
 * Reads: the owner first, then the other replicas in ring order; while a node takes longer than it
 * usually does, the next one is asked as well, and its own answer is still welcome. Writes: sent to
 * one coordinator; another is tried only when it is certain that nothing was sent. After a write
 * whose outcome is unknown the client sends nothing again by itself. */
#ifndef DKV_CLIENT_CLIENT_H
#define DKV_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/request.h"
#include "ring/ring.h"

#define DKV_CLIENT_WINDOW 1024u /* operations of one batch under way at once */

typedef struct dkv_client dkv_client;

typedef struct dkv_client_options {
    const char *seeds;   /* "host:port,host:port": nodes to ask for the map; 1 at least */
    uint32_t timeout_ms; /* of a request that names none; 0 = DKV_TIMEOUT_DEFAULT_MS */
    uint32_t hedge_ms;   /* how long a read waits for one node before it asks the next; 0: as long
                            as this node usually takes, see flight.c */
    /* Asked every 200 ms while dkv_client_new or dkv_client_call waits; true ends the wait with
     * CANCELLED. May be NULL. */
    bool (*interrupted)(void *user);
    void *interrupted_user;
} dkv_client_options;

/* Connects: asks the seeds for the map, in order, until one answers; the next one is asked when one
 * has failed, or has been silent for a quarter of a second. *out is owned by the caller. INVALID
 * for an address that cannot be one; UNAVAILABLE if all seeds fail or none answers in timeout_ms,
 * with the reasons in `why` (DKV_DETAIL_MAX bytes); PROTOCOL for a map that makes no ring.
 *
 * A client does not survive fork(): in the child every function fails with PRECONDITION or does
 * nothing. */
int dkv_client_new(const dkv_client_options *options, dkv_client **out, char *why);

/* Ends all that is under way with CANCELLED, so that every dkv_client_wait returns, and makes later
 * starts fail with PRECONDITION. Any thread. */
void dkv_client_close(dkv_client *client);

/* Closes and frees. No other thread may use the client any more. Accepts NULL. */
void dkv_client_del(dkv_client *client);

/* One operation: filled in by the caller, completed by the client. */
typedef struct dkv_client_op {
    dkv_request request; /* slices must stay valid until the operation is done */
    bool done;           /* set last; read it through dkv_client_wait only */
    int err;
    dkv_outcome outcome;
    dkv_version version;
    uint8_t *value; /* GET: malloc'd, the caller frees it; may be NULL when value_len is 0 */
    size_t value_len;
    /* Node ids, NUL-terminated. */
    uint8_t n_holding, n_missing;
    char holding[DKV_REPLICATION_MAX][DKV_NAME_MAX + 1];
    char missing[DKV_REPLICATION_MAX][DKV_NAME_MAX + 1];
    char detail[DKV_DETAIL_MAX]; /* a sentence when err is not 0 */
    void *internal;              /* the client's; NULL at the start */
} dkv_client_op;

/* Starts `n` operations. At most DKV_CLIENT_WINDOW of them are on their way at once; the rest
 * follow as those end. Each ends by its deadline at the latest, provided that some thread waits;
 * its time runs from when it is on its way. A write is given a tenth of a second more, in which the
 * node's own answer arrives. The array must stay where it is until all are done. A request outside
 * its limits is done at once with INVALID. PRECONDITION (closed, or in the child of a fork) and
 * NO_MEMORY: nothing was started. */
int dkv_client_start(dkv_client *client, dkv_client_op *ops, size_t n);

/* Called when an operation of a series has ended, with the client locked: it must not call the
 * client. It looks at the results in `op`, takes op->value, and either fills in the next request
 * and returns true, or returns false. */
typedef bool (*dkv_client_follow)(void *user, dkv_client_op *op);

/* Starts an operation that others follow in the same place, for a caller that keeps a certain
 * number under way: each series has one. To dkv_client_wait the series is an operation that is done
 * when `follow` has returned false; `op` then holds the results of the last one. A series that went
 * on after every failure would be busy with nothing else while no node can be reached. The end by
 * dkv_client_abandon or dkv_client_close does not call `follow`. Errors as dkv_client_start. */
int dkv_client_start_series(dkv_client *client, dkv_client_op *op, dkv_client_follow follow,
                            void *user);

/* dkv_client_start and dkv_client_wait for a single operation in one step, as it is what threads
 * do that have one operation at a time. *done is the result of the latter. */
int dkv_client_run(dkv_client *client, dkv_client_op *op, uint32_t wait_ms, bool *done);

/* Waits until all `n` operations are done or `wait_ms` has passed; returns true in the first case.
 * Any number of threads may wait, each for all operations of some dkv_client_start of its own. */
bool dkv_client_wait(dkv_client *client, dkv_client_op *ops, size_t n, uint32_t wait_ms);

/* Gives up `n` operations: those not done end with CANCELLED (writes already sent: outcome
 * unknown). On return the array is the caller's again. */
void dkv_client_abandon(dkv_client *client, dkv_client_op *ops, size_t n);

/* The newest version this client has seen, sent along with every write. */
dkv_version dkv_client_last_seen(dkv_client *client);

/* What a client has done since it was made. */
typedef struct dkv_client_stats {
    uint64_t reads;       /* begun */
    uint64_t hedged;      /* times that a read went to a further node as one was slow ... */
    uint64_t passed_over; /* ... or silent for so long that it is taken for dead */
} dkv_client_stats;

dkv_client_stats dkv_client_stats_get(dkv_client *client);

/* The client's ring; borrows until the client is deleted. Any thread. */
const dkv_ring *dkv_client_ring(dkv_client *client);

/* A question to one member, and its answer. */
typedef struct dkv_client_question {
    const char *node;  /* its id; borrowed */
    dkv_slice request; /* the bytes of the message; borrowed */
    int err;           /* the member's error, or UNAVAILABLE, DEADLINE, NOT_FOUND (no such member),
                          PRECONDITION (closed), CANCELLED (interrupted), NO_MEMORY */
    dkv_buf reply;     /* the bytes of the message; owned by the caller, who begins with {0} */
    char why[DKV_DETAIL_MAX];
} dkv_client_question;

/* Calls `method` ("/dkv.v1.Admin/Status", say) of `n` members at the same time. Returns when each
 * has answered or failed, after `timeout_ms` at the latest (0: the client's own). */
void dkv_client_call(dkv_client *client, const char *method, uint32_t timeout_ms,
                     dkv_client_question *questions, size_t n);

#endif
