/* What a client asks and what it is told: the same structs at the client, in the node and in the
 * simulator. All slices borrow. */
#ifndef DKV_MODEL_REQUEST_H
#define DKV_MODEL_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "model/record.h"
#include "ring/cluster_map.h"

#define DKV_TIMEOUT_DEFAULT_MS 5000u
#define DKV_TIMEOUT_MAX_MS 60000u
#define DKV_DETAIL_MAX 320u /* bytes of an error's sentence */

/* The numbers of these enumerations are those of proto/dkv.proto. */
typedef enum dkv_op {
    DKV_OP_GET = 1,
    DKV_OP_PUT = 2,
    DKV_OP_DELETE = 3,
} dkv_op;

/* How many of the N replicas must answer. */
typedef enum dkv_level {
    DKV_LEVEL_DEFAULT = 0, /* ALL for writes, ONE for reads */
    DKV_LEVEL_ONE = 1,
    DKV_LEVEL_QUORUM = 2, /* N / 2 + 1 */
    DKV_LEVEL_ALL = 3,
} dkv_level;

/* What became of a write. The three are never confused. */
typedef enum dkv_outcome {
    DKV_OUTCOME_NONE = 0,        /* not a write */
    DKV_OUTCOME_APPLIED = 1,     /* on as many replicas as asked, durably */
    DKV_OUTCOME_NOT_APPLIED = 2, /* refused before anything was written */
    DKV_OUTCOME_UNKNOWN = 3,     /* begun; some replicas may hold it, some may not */
} dkv_outcome;

/* What to do about an unknown outcome: the same words from node and client. */
#define DKV_ADVICE_UNKNOWN "read the key, or write it again; nothing sends it again by itself"

typedef struct dkv_request {
    dkv_op op;
    dkv_level level;
    uint32_t timeout_ms;   /* 0 = DKV_TIMEOUT_DEFAULT_MS; at most DKV_TIMEOUT_MAX_MS */
    dkv_version last_seen; /* the newest version the client knows of: a write will be newer */
    bool failover; /* GET: the client has tried the replicas before this one in vain; the node
                      looks at its own copy first. Otherwise the owner is asked first */
    dkv_slice key;
    dkv_slice value; /* PUT only */
} dkv_request;

/* A set of replicas by node id. The slices borrow from the map. */
typedef struct dkv_node_names {
    uint8_t n;
    dkv_slice ids[DKV_REPLICATION_MAX];
} dkv_node_names;

typedef struct dkv_reply {
    int err;                /* 0 or a dkv_err */
    dkv_outcome outcome;    /* writes only */
    dkv_version version;    /* of the value read, or of the write when one was issued */
    dkv_slice value;        /* GET with err 0 */
    dkv_node_names holding; /* replicas that confirmed (writes) or answered with it (reads) */
    dkv_node_names missing; /* replicas that stood in the way; of NOT_FOUND, those that have not
                               been asked or have not answered */
    dkv_slice detail;       /* a sentence for a person when err is not 0 */
} dkv_reply;

/* 0 if the request is within its limits, else INVALID with a sentence in `why` (at least
 * DKV_DETAIL_MAX bytes; may be NULL). */
int dkv_request_check(const dkv_request *request, char *why);

/* The number of replicas out of n that `level` asks for. */
unsigned dkv_level_needs(dkv_level level, dkv_op op, unsigned n);

#endif
