/* Messages between nodes. They travel on links: a node opens a link to a peer, sends requests on it
 * and receives the replies on the same link; the peer's own requests travel on a link of its own.
 * A link keeps its messages in order, except that messages of more than 64 KiB and smaller ones may
 * overtake each other; it dies as a whole; a new one has a new number, so that nothing of an old
 * one can be mistaken. All slices borrow. */
#ifndef DKV_MODEL_MESSAGE_H
#define DKV_MODEL_MESSAGE_H

#include "model/record.h"
#include "model/request.h"

/* The numbers are those of the fields of `Message.body` in proto/peer.proto. */
typedef enum dkv_message_kind {
    DKV_MSG_HELLO = 2,          /* first message on a link, from its opener */
    DKV_MSG_HELLO_REPLY = 3,    /* the acceptor's answer; only then other messages may follow */
    DKV_MSG_PING = 4,           /* request: say something */
    DKV_MSG_PONG = 5,           /* reply */
    DKV_MSG_APPLY = 6,          /* request: store this record durably */
    DKV_MSG_APPLY_REPLY = 7,    /* reply, after the record is durable */
    DKV_MSG_FETCH = 8,          /* request: your newest record of this key */
    DKV_MSG_FETCH_REPLY = 9,    /* reply */
    DKV_MSG_FORWARD = 10,       /* request: coordinate this client request for me */
    DKV_MSG_FORWARD_REPLY = 11, /* reply */
} dkv_message_kind;

/* Who a node is and what it knows of the node it talks to. */
typedef struct dkv_hello {
    dkv_slice cluster;
    dkv_slice node_id;
    uint64_t epoch;
    uint64_t map_digest;  /* dkv_cluster_map_digest */
    uint32_t replication; /* of the map, as n_members: so that a difference can be explained */
    uint32_t n_members;
    uint64_t store_id;  /* the sender's store */
    uint64_t remembers; /* store id that the sender remembers of the receiver; 0 = none */
    bool in_sync;       /* the sender's store has lost nothing that it confirmed */
    uint64_t wall_ms;   /* the sender's wall clock */
    int state;          /* what the sender would say to a put now: 0, BUSY or NO_SPACE */
    int err;            /* HELLO_REPLY: 0, or why the link is refused */
} dkv_hello;

typedef struct dkv_message {
    dkv_message_kind kind;
    uint64_t id; /* chosen by the requester, echoed in the reply; 0 in HELLO and HELLO_REPLY */
    union {
        dkv_hello hello; /* HELLO, HELLO_REPLY */
        struct {
            uint64_t remembers; /* store id that the sender remembers of the receiver, durably;
                                   0 = it does not say */
        } ping;
        struct {
            uint64_t wall_ms;
            int state; /* as in HELLO */
        } pong;
        dkv_record apply;
        struct {
            int err;
            int state; /* as in HELLO */
        } apply_reply;
        dkv_slice fetch; /* the key */
        struct {
            int err;           /* 0: `record` is valid; NOT_FOUND: no record; DATA_LOSS: damaged */
            bool in_sync;      /* the replica's word about absence counts */
            dkv_record record; /* its key is left empty: the requester knows it */
        } fetch_reply;
        dkv_request forward;
        dkv_reply forward_reply;
    };
} dkv_message;

#endif
