/* What the files of this folder share and nobody else sees. */
#ifndef DKV_RPC_INTERNAL_H
#define DKV_RPC_INTERNAL_H

#include <grpc/grpc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "rpc/rpc.h"

#define DKV_RPC_DETAIL_MAX 256u /* bytes of a status sentence that are kept, with the NUL */

/* ---- tags ---- */

/* What a completion leads back to. It is embedded in the struct that owns everything the batch
 * refers to; DKV_RPC_OWNER finds that struct. */
typedef struct dkv_rpc_tag {
    void (*complete)(struct dkv_rpc_tag *tag, bool ok);
} dkv_rpc_tag;

#define DKV_RPC_OWNER(member_pointer, type, member) \
    ((type *)(void *)((char *)(member_pointer)-offsetof(type, member)))

/* Starts a batch. gRPC refuses one only for a mistake of ours, so a refusal aborts. */
void dkv_rpc_start(grpc_call *call, const grpc_op *ops, size_t n_ops, dkv_rpc_tag *tag);

/* ---- circular lists ---- */

/* A member, or the head, of a circular list. */
typedef struct dkv_rpc_link {
    struct dkv_rpc_link *prev;
    struct dkv_rpc_link *next;
} dkv_rpc_link;

static inline void dkv_rpc_list_init(dkv_rpc_link *head) {
    head->prev = head;
    head->next = head;
}

static inline void dkv_rpc_list_add(dkv_rpc_link *head, dkv_rpc_link *link) {
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* Takes `link` out of its list; it is a list of its own then, so that this can be repeated. */
static inline void dkv_rpc_list_remove(dkv_rpc_link *link) {
    link->prev->next = link->next;
    link->next->prev = link->prev;
    dkv_rpc_list_init(link);
}

/* ---- loop ---- */

struct dkv_rpc_loop {
    grpc_completion_queue *queue;
    pthread_mutex_t *lock;     /* let go while a poll waits; NULL: none */
    size_t open;               /* channels and servers not yet closed by their _del */
    size_t live;               /* streams, calls and servers that still expect completions */
    dkv_rpc_link wanting;      /* streams that are to receive from the next poll on */
    dkv_buf joined;            /* messages that arrive in pieces are put together here */
    grpc_channel *wake_target; /* a channel to nowhere, */
    grpc_call *wake_call;      /* whose empty batches complete at once: the way to wake a poll */
    dkv_rpc_tag wake;
    atomic_bool waking; /* a wake is in the queue */
};

/* ---- messages ---- */

/* A message for gRPC: a copy of `bytes`, or the memory of `buf` itself, which is left empty. Owned
 * by the caller. */
grpc_byte_buffer *dkv_rpc_message_copy(dkv_slice bytes);
grpc_byte_buffer *dkv_rpc_message_take(dkv_buf *buf);

/* The bytes of a received message; they borrow from the message or from the loop, until the next
 * message is looked at. INVALID (too large) and PROTOCOL (compressed) with a sentence in `why`. */
int dkv_rpc_message_view(dkv_rpc_loop *loop, grpc_byte_buffer *message, dkv_slice *out,
                         char why[DKV_RPC_DETAIL_MAX]);

/* Copies the text of a status, cut at DKV_RPC_DETAIL_MAX, with a NUL. */
void dkv_rpc_detail_copy(char to[DKV_RPC_DETAIL_MAX], grpc_slice from);

/* ---- streams ---- */

/* Makes the stream of `call` (takes it on success) and starts receiving. `server` is NULL at the
 * client's end. The stream is entered in the list `owner`. */
int dkv_rpc_stream_new(dkv_rpc_loop *loop, dkv_rpc_server *server, grpc_call *call,
                       const dkv_rpc_stream_events *events, void *user, dkv_rpc_link *owner,
                       dkv_rpc_stream **out);

/* Fails every stream in the list `owner`; `closed` follows from poll. */
void dkv_rpc_streams_fail(dkv_rpc_link *owner, int err, const char *detail);

/* Lets the streams in the list `wanting` receive. */
void dkv_rpc_streams_receive(dkv_rpc_link *wanting);

/* A stream of this server is gone. */
void dkv_rpc_server_stream_gone(dkv_rpc_server *server);

/* ---- settings: all arguments and credentials that gRPC is given ---- */

/* A channel to `address`, owned by the caller. */
grpc_channel *dkv_rpc_connect(const char *address);

/* A server that does not listen yet, owned by the caller. `memory_max`: bytes received and not yet
 * handled. */
grpc_server *dkv_rpc_serve(size_t memory_max);

/* Makes it listen; *port is the port that was bound. UNAVAILABLE. */
int dkv_rpc_listen(grpc_server *server, const char *address, uint16_t *port);

#endif
