/* Messages between nodes. They travel on links: a node opens a link to a peer, sends requests on it
 * and receives the replies on the same link; the peer's own requests travel on a link of its own.
 * A link keeps its messages in order, except that messages of more than 64 KiB and smaller ones may
 * overtake each other; it dies as a whole; a new one has a new number, so that nothing of an old
 * one can be mistaken. All slices borrow. */
#ifndef DKV_MODEL_MESSAGE_H
#define DKV_MODEL_MESSAGE_H

#include "base/hash.h"
#include "model/record.h"
#include "model/request.h"

#define DKV_SUMS_RANGES_MAX 64u /* ranges in one SUMS */
#define DKV_SUMS_PARTS_MAX 16u  /* parts of each */
#define DKV_LIST_MAX 512u       /* records named by one LIST_REPLY */

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
    DKV_MSG_SUMS = 12,          /* request: number and digest of your records in these ranges */
    DKV_MSG_SUMS_REPLY = 13,    /* reply */
    DKV_MSG_LIST = 14,          /* request: the versions of your records in this range */
    DKV_MSG_LIST_REPLY = 15,    /* reply */
} dkv_message_kind;

/* Whether it asks something of a replica or coordinator; greetings and pings do not. */
static inline bool dkv_message_is_request(dkv_message_kind kind) {
    return kind == DKV_MSG_APPLY || kind == DKV_MSG_FETCH || kind == DKV_MSG_FORWARD ||
           kind == DKV_MSG_SUMS || kind == DKV_MSG_LIST;
}

/* Ranges of tokens, inclusive, each to be cut into `parts` (dkv_range_part). */
typedef struct dkv_sums_request {
    uint32_t n;             /* 1 .. DKV_SUMS_RANGES_MAX */
    uint32_t parts;         /* 1 .. DKV_SUMS_PARTS_MAX */
    const uint64_t *bounds; /* first and last token of each range */
} dkv_sums_request;

/* Number and digest (its lower half) of the records in each part of each range, in their order. */
typedef struct dkv_sums {
    uint32_t n; /* ranges × parts */
    const uint64_t *counts;
    const uint64_t *digests;
} dkv_sums;

/* The records from the hash `from` to the token `last`. */
typedef struct dkv_list_request {
    dkv_key_hash from;
    uint64_t last;
} dkv_list_request;

/* What the index knows of records, in ascending order of hash; one column per field. */
typedef struct dkv_list {
    uint32_t n; /* at most DKV_LIST_MAX */
    bool more;  /* the range has records behind the last of these, which then is one at least */
    const uint64_t *tokens;
    const uint64_t *tags;
    const uint64_t *hlcs;
    const uint64_t *origins;
    const uint32_t *sizes; /* bytes in the log << 1 | 1 for a tombstone */
} dkv_list;

/* Part `i` of `parts` equal ones of the tokens [first, last]: *from <= *upto, or false if the part
 * is empty because the range has fewer tokens than parts. */
bool dkv_range_part(uint64_t first, uint64_t last, uint32_t parts, uint32_t i, uint64_t *from,
                    uint64_t *upto);

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
    uint64_t lost_ms;   /* when that store was declared lost to the sender; 0: it was not */
    uint64_t heeded_ms; /* of such times the latest that the sender's store has heeded, durably */
    bool in_sync;       /* the sender's store has lost nothing that it confirmed */
    uint64_t wall_ms;   /* the sender's wall clock */
    int state;          /* what the sender would say to a put now: 0, BUSY or NO_SPACE */
    int err;            /* HELLO_REPLY: 0, or why the link is refused */
} dkv_hello;

/* A replica's answer about one key. */
typedef struct dkv_fetched {
    int err;            /* 0: `record` is valid; NOT_FOUND: no record; DATA_LOSS: damaged */
    bool in_sync;       /* the replica's word about absence counts */
    bool durable;       /* the record is */
    bool version_only;  /* the record is a value that was not asked for and is left out */
    uint32_t len_bytes; /* of the whole record in the log */
    dkv_record record;  /* its key is left empty if the requester named it */
} dkv_fetched;

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
        struct {
            dkv_slice key;     /* empty: whatever key has this hash */
            dkv_key_hash hash; /* used with an empty key only */
            bool version_only; /* the record without its value will do */
        } fetch;
        dkv_fetched fetch_reply;
        dkv_request forward;
        dkv_reply forward_reply;
        dkv_sums_request sums;
        dkv_sums sums_reply;
        dkv_list_request list;
        dkv_list list_reply;
    };
} dkv_message;

#endif
