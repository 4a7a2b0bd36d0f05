/* When to send: Nagle's rule (RFC 896), for batches.
 *
 * A message costs both sides the same whatever it holds. So requests wait for company: nothing is
 * sent before the peer has answered something of what it was sent last, unless
 * 1. DKV_RPC_NAGLE_CROWD times as many requests wait as have been sent since, or
 * 2. the oldest has waited for DKV_RPC_NAGLE_NS.
 * A caller that is alone is never held up: its next request follows an answer.
 * Reads and writes are counted apart, so that a read does not wait for a write's answer, which
 * takes longer; where one kind may leave, all that waits leaves with it. */
#ifndef DKV_RPC_NAGLE_H
#define DKV_RPC_NAGLE_H

#include <stdbool.h>
#include <stdint.h>

#define DKV_RPC_NAGLE_NS 1000000
#define DKV_RPC_NAGLE_CROWD 4u

typedef enum dkv_rpc_kind { DKV_RPC_READ, DKV_RPC_WRITE, DKV_RPC_KINDS } dkv_rpc_kind;

/* All zero: nothing waits, nothing has been sent. */
typedef struct dkv_rpc_nagle {
    unsigned waiting[DKV_RPC_KINDS];
    unsigned sent[DKV_RPC_KINDS]; /* since the peer last answered */
    int64_t due_ns;               /* when the rest may leave in any case; 0: it has not been held */
} dkv_rpc_nagle;

static inline bool dkv_rpc_nagle_is_crowd(const dkv_rpc_nagle *nagle, dkv_rpc_kind kind) {
    unsigned waiting = nagle->waiting[kind];
    return waiting > 0 && waiting >= DKV_RPC_NAGLE_CROWD * nagle->sent[kind];
}

/* Whether what waits may be sent at `now_ns`. */
static inline bool dkv_rpc_nagle_may_send(const dkv_rpc_nagle *nagle, int64_t now_ns) {
    if (dkv_rpc_nagle_is_crowd(nagle, DKV_RPC_READ)) return true;
    if (dkv_rpc_nagle_is_crowd(nagle, DKV_RPC_WRITE)) return true;
    return nagle->due_ns != 0 && now_ns >= nagle->due_ns;
}

/* What waits has been found unable to leave. */
static inline void dkv_rpc_nagle_hold(dkv_rpc_nagle *nagle, int64_t now_ns) {
    if (!nagle->due_ns) nagle->due_ns = now_ns + DKV_RPC_NAGLE_NS;
}

/* A request that waited has been sent. */
static inline void dkv_rpc_nagle_pass(dkv_rpc_nagle *nagle, dkv_rpc_kind kind) {
    nagle->waiting[kind]--;
    nagle->sent[kind]++;
    nagle->due_ns = 0;
}

/* The peer has answered something. */
static inline void dkv_rpc_nagle_answered(dkv_rpc_nagle *nagle) {
    for (unsigned kind = 0; kind < DKV_RPC_KINDS; kind++) nagle->sent[kind] = 0;
}

#endif
