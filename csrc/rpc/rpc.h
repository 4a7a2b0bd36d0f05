/* gRPC C core, tamed: one completion queue, one polling thread, byte strings in and out.
 *
 * Everything here belongs to the thread that calls dkv_rpc_loop_poll, except dkv_rpc_loop_wake.
 * Callbacks run inside poll, never inside another call of this header. This floor knows nothing of
 * the messages it moves; the shape of a batch is the caller's (serialised protobuf batches of
 * repeated fields may simply be concatenated, and that is what a stream does with what is sent
 * while another message is in flight).
 *
 * gRPC's own rules kept here: a tag is a pointer to the struct that owns all that its batch refers
 * to, and each comes back exactly once; shutdown is stop accepting, cancel, drain, destroy. */
#ifndef DKV_RPC_RPC_H
#define DKV_RPC_RPC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define DKV_RPC_MESSAGE_MAX 2621440u /* bytes in one received message; more ends the call */
#define DKV_RPC_BATCH_MAX                                                                        \
    65536u                            /* a batch leaves at this size though more is waiting; one \
                                         larger item travels alone */
#define DKV_RPC_BACKLOG_MAX 67108864u /* bytes that may wait in one stream; more is BUSY */
#define DKV_RPC_MEMORY_MAX                                                                    \
    536870912u                    /* bytes received and not yet handled, in one server: usual \
                                   */
#define DKV_RPC_TRAILER_MAX 4096u /* bytes in "dkv-error-bin"; a longer one is left out */
#define DKV_RPC_ERROR_TRAILER "dkv-error-bin"
#define DKV_RPC_NO_TIMEOUT UINT32_MAX

/* ---- loop ---- */

typedef struct dkv_rpc_loop dkv_rpc_loop;

/* Starts gRPC (counted: several loops may live in one process). *out is owned by the caller. */
int dkv_rpc_loop_new(dkv_rpc_loop **out);

/* Handles completions: waits for the first one until `until_ns` (CLOCK_MONOTONIC; 0 = do not wait),
 * then takes what else is ready, at most `max`. Returns the number handled; 0 after a time-out or
 * a wake. */
unsigned dkv_rpc_loop_poll(dkv_rpc_loop *loop, int64_t until_ns, unsigned max);

/* Makes a poll under way, or else the next one, return. Any thread. */
void dkv_rpc_loop_wake(dkv_rpc_loop *loop);

/* For a loop that several threads use in turn, one of them polling: `lock` (borrows), which every
 * caller of this header then holds, is let go while poll waits for the first completion and held
 * again when callbacks run. */
void dkv_rpc_loop_set_lock(dkv_rpc_loop *loop, pthread_mutex_t *lock);

/* Cancels whatever is left, drains, frees. Servers and channels must have been closed by their own
 * functions before; their callbacks are called here at the latest. Accepts NULL. */
void dkv_rpc_loop_del(dkv_rpc_loop *loop);

/* ---- streams, the same at both ends ---- */

typedef struct dkv_rpc_stream dkv_rpc_stream;

typedef struct dkv_rpc_stream_events {
    /* A message arrived. `bytes` borrows for the call. */
    void (*message)(void *user, dkv_rpc_stream *stream, dkv_slice bytes);
    /* The stream is over, whoever ended it; `err` is a dkv_err (0: ended in order), `detail` a
     * sentence. Called exactly once, the last callback; the stream is freed behind it. */
    void (*closed)(void *user, dkv_rpc_stream *stream, int err, const char *detail);
    /* Client side only, may be NULL: the server accepted the stream. */
    void (*opened)(void *user, dkv_rpc_stream *stream);
    /* Server side only, may be NULL: the client will send nothing more, but waits for what is still
     * owed to it. Answer that, then call dkv_rpc_stream_finish. NULL: finished at once. */
    void (*finished)(void *user, dkv_rpc_stream *stream);
    /* Each item leaves as a message of its own: for protocols whose messages are no batches. */
    bool items_apart;
} dkv_rpc_stream_events;

/* Queues one item (copied). If nothing is in flight it leaves with the next dkv_rpc_stream_flush;
 * else with what else waits as soon as the message in flight has left. BUSY above
 * DKV_RPC_BACKLOG_MAX, UNAVAILABLE when the stream is ending, INVALID above DKV_RPC_MESSAGE_MAX:
 * nothing was queued. An empty item adds nothing. */
int dkv_rpc_stream_send(dkv_rpc_stream *stream, dkv_slice item);

/* As send, for an item that the caller has built in `item` itself: no copy when it is large. Takes
 * the buffer's memory on success and leaves it empty. */
int dkv_rpc_stream_send_buf(dkv_rpc_stream *stream, dkv_buf *item);

/* Starts sending what waits, if nothing is in flight. Call it after each round of sends. */
void dkv_rpc_stream_flush(dkv_rpc_stream *stream);

/* As flush, when nothing will be sent before the peer's next message: what is sent now shares a
 * packet, and a completion, with the readiness to receive. What is queued all the same waits for
 * that message. */
void dkv_rpc_stream_flush_last(dkv_rpc_stream *stream);

/* True if the stream cannot send before the peer's next message, for that reason. */
bool dkv_rpc_stream_is_last(const dkv_rpc_stream *stream);

/* Bytes queued whose message gRPC has not yet reported as sent. */
size_t dkv_rpc_stream_backlog(const dkv_rpc_stream *stream);

/* Stops and resumes taking messages from the peer (backpressure). Called outside this stream's
 * `message`, one more message may come; called inside, none. While a stream is paused, its orderly
 * end waits behind the messages not taken. */
void dkv_rpc_stream_pause(dkv_rpc_stream *stream, bool paused);

/* Ends the stream now, both ways; what waits is dropped. `closed` follows with CANCELLED. Harmless
 * when it is ending already. */
void dkv_rpc_stream_cancel(dkv_rpc_stream *stream);

/* As cancel, with a reason: `closed` follows with `err` (not 0) and `detail` here, and a client
 * is told its status and detail too. */
void dkv_rpc_stream_fail(dkv_rpc_stream *stream, int err, const char *detail);

/* Ends the stream in order: what waits is sent, nothing more can be queued. A client waits for the
 * server to finish as well; a server's stream ends here. `closed` follows with 0. */
void dkv_rpc_stream_finish(dkv_rpc_stream *stream);

/* Replaces the user pointer given to the callbacks. */
void dkv_rpc_stream_set_user(dkv_rpc_stream *stream, void *user);

/* ---- client side ---- */

typedef struct dkv_rpc_channel dkv_rpc_channel;

/* A connection to "host:port", made on first use and remade by gRPC when lost. */
int dkv_rpc_channel_new(dkv_rpc_loop *loop, const char *address, dkv_rpc_channel **out);

/* Cancels its streams and calls; their callbacks come later from poll. Accepts NULL. */
void dkv_rpc_channel_del(dkv_rpc_channel *channel);

/* Forgets reconnect back-off: the next use tries at once. */
void dkv_rpc_channel_retry_now(dkv_rpc_channel *channel);

/* Opens a bidirectional stream of `method` ("/dkv.v1.KV/Session"). Fails fast when the server
 * cannot be reached: `closed` with UNAVAILABLE. `events` must outlive the stream. */
int dkv_rpc_stream_open(dkv_rpc_channel *channel, const char *method,
                        const dkv_rpc_stream_events *events, void *user, dkv_rpc_stream **out);

/* The answer to a unary call. `bytes` borrows for the call: the reply when err is 0, else what came
 * in the trailer "dkv-error-bin" (may be empty). */
typedef void (*dkv_rpc_unary_done)(void *user, int err, const char *detail, dkv_slice bytes);

/* Sends one unary request; `done` is called exactly once, unless this returns an error (INVALID: a
 * request above DKV_RPC_MESSAGE_MAX). `timeout_ms` may be DKV_RPC_NO_TIMEOUT. */
int dkv_rpc_unary(dkv_rpc_channel *channel, const char *method, dkv_slice request,
                  uint32_t timeout_ms, dkv_rpc_unary_done done, void *user);

/* ---- server side ---- */

typedef struct dkv_rpc_server dkv_rpc_server;

/* A unary call that waits for its answer. */
typedef struct dkv_rpc_call dkv_rpc_call;

typedef struct dkv_rpc_method {
    const char *path; /* "/dkv.v1.KV/Put" */
    /* Unary methods: a call came in. `request` borrows for the call; `timeout_ms` is what the
     * client's deadline leaves (DKV_RPC_NO_TIMEOUT: none). The handler answers now or later,
     * exactly once, with dkv_rpc_call_reply. NULL for streams. */
    void (*unary)(void *user, dkv_rpc_call *call, dkv_slice request, uint32_t timeout_ms);
    /* Stream methods: a client opened one; return the pointer for its callbacks' `user`. */
    void *(*accept)(void *user, dkv_rpc_stream *stream);
    const dkv_rpc_stream_events *events; /* stream methods */
} dkv_rpc_method;

/* Listens on "host:port" (port 0: the kernel's choice, told in *port). `methods` (n of them, must
 * outlive the server) is the whole table; other paths are answered UNIMPLEMENTED. The same address
 * cannot be bound twice. `memory_max`: bytes received and not yet handled, 0 for
 * DKV_RPC_MEMORY_MAX; what would take more has to wait. UNAVAILABLE if the address cannot be bound.
 */
int dkv_rpc_server_new(dkv_rpc_loop *loop, const char *address, size_t memory_max,
                       const dkv_rpc_method *methods, size_t n_methods, void *user,
                       dkv_rpc_server **out, uint16_t *port);

/* Answers a unary call: err 0 and the reply's bytes, or a dkv_err (mapped to its gRPC status),
 * a sentence, and in `bytes` what goes into the trailer "dkv-error-bin" (may be empty). Consumes
 * the call. Harmless when the client has gone away. */
void dkv_rpc_call_reply(dkv_rpc_call *call, int err, const char *detail, dkv_slice bytes);

/* Stops accepting, cancels streams and open calls, and frees the server once all has drained from
 * poll. Calls still unanswered must still be answered. Accepts NULL. */
void dkv_rpc_server_del(dkv_rpc_server *server);

/* The gRPC status code (an integer of grpc_status_code) for a dkv_err, and back. */
int dkv_rpc_status_of(int err);
int dkv_rpc_err_of(int status);

#endif
