/* Replication: this node as the coordinator of client requests and as a replica for its peers.
 *
 * Coordinating a write: check that every replica that is needed can take it (an obstacle known
 * beforehand refuses the write before anything is written), issue a version, apply it to the own
 * store and send it to the other replicas in the same step, and answer when as many as the level
 * asks for have it on disk. A node that holds no replica of the key forwards the write to one that
 * does. The idea of a coordinator and of levels: DeCandia et al., "Dynamo", SOSP 2007, section 4.5.
 *
 * Coordinating a read at level ONE: ask the owner; when it does not answer in time, the next
 * replica in ring order as well; when one says that it has no value, all the others at once. A read
 * at QUORUM or ALL asks all replicas and takes the newest of as many answers as the level asks for.
 * NOT_FOUND takes the word of at least one replica that is in sync (member/trust.h). */
#ifndef DKV_REPLICA_REPLICA_H
#define DKV_REPLICA_REPLICA_H

#include "member/peers.h"
#include "replica/heal.h"
#include "ring/ring.h"
#include "store/store.h"

#define DKV_REQUESTS_MAX 65536u           /* client requests under way in one node; more are BUSY */
#define DKV_FORWARDED_BYTES_MAX 67108864u /* of keys and values that peers forwarded; then BUSY */
#define DKV_SERVES_MAX 262144u            /* peers' requests under way in one node; more are BUSY */

/* Store cookies from here on are not the replica's. */
#define DKV_REPLICA_COOKIE_END (UINT64_C(1) << 63)

typedef struct dkv_replica dkv_replica;

typedef struct dkv_replica_options {
    const dkv_ring *ring; /* borrows, as the following; all must outlive the replica */
    uint16_t self;
    dkv_store *store;
    dkv_peers *peers;
    dkv_trust *trust;
    dkv_timing timing; /* without zeros */
    uint64_t seed;
    uint32_t hints_max; /* 0 = DKV_HINTS_MAX, see heal.h */
} dkv_replica_options;

/* *out is owned by the caller. NO_MEMORY. Until dkv_replica_ready is called, writes that this node
 * would coordinate wait. */
int dkv_replica_new(const dkv_replica_options *options, dkv_replica **out);

/* Accepts NULL. */
void dkv_replica_del(dkv_replica *replica);

/* This start of the node is durably counted and its store is known to others: versions may be
 * issued. */
void dkv_replica_ready(dkv_replica *replica, const dkv_moment *at);

/* The node is being stopped: writes that have not begun are refused. */
void dkv_replica_stop(dkv_replica *replica, const dkv_moment *at);

/* A client's request; answered through effects->reply with `handle`, exactly once. */
void dkv_replica_request(dkv_replica *replica, const dkv_moment *at, uint64_t handle,
                         const dkv_request *request);

/* A message that dkv_peers_message attributed to `peer`. */
void dkv_replica_message(dkv_replica *replica, const dkv_moment *at, dkv_link link, uint16_t peer,
                         const dkv_message *message);

/* `peer` came UP or went DOWN. */
void dkv_replica_peer_changed(dkv_replica *replica, const dkv_moment *at, uint16_t peer);

/* An event of the store with a cookie below DKV_REPLICA_COOKIE_END. */
void dkv_replica_stored(dkv_replica *replica, const dkv_moment *at, const dkv_store_event *event);

/* The store has lost a record at `token` to damage. */
void dkv_replica_lost(dkv_replica *replica, uint64_t token);

/* All of this store was declared lost: whatever it holds is compared with the other replicas. */
void dkv_replica_compare_all(dkv_replica *replica);

/* `peer` was declared lost, as the trust knows by now. */
void dkv_replica_declared_lost(dkv_replica *replica, const dkv_moment *at, uint16_t peer);

/* What this node would answer to a peer's write now: 0, BUSY or NO_SPACE. */
int dkv_replica_state(const dkv_replica *replica);

void dkv_replica_tick(dkv_replica *replica, const dkv_moment *at);
int64_t dkv_replica_next_timer(const dkv_replica *replica);

typedef struct dkv_replica_counts {
    uint32_t requests;            /* under way */
    uint32_t serves;              /* peers' requests under way */
    uint64_t gets, puts, deletes; /* client requests answered */
    uint64_t failed;              /* among them, with an error other than NOT_FOUND */
} dkv_replica_counts;

dkv_replica_counts dkv_replica_counts_get(const dkv_replica *replica);

void dkv_replica_heal_status(const dkv_replica *replica, dkv_heal_status *out);

#endif
