#include "node/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "replica/replica.h"

#define DECLARATIONS_MAX 16u /* that wait for the disk; more are BUSY */

/* A DECLARE_LOST whose answer waits until these changes of the trust are durable. */
typedef struct declaration {
    uint64_t handle;
    uint64_t changes;
} declaration;

struct dkv_node {
    dkv_ring *own_ring; /* NULL: `ring` is borrowed */
    const dkv_ring *ring;
    dkv_shares shares;
    dkv_store *store;
    dkv_trust trust;
    dkv_peers *peers;
    dkv_replica *replica;
    uint64_t facts_handed; /* trust changes handed to the store */
    int64_t facts_due_ns;  /* when to hand in the rest: later, after the store has refused */
    int64_t full_retry_ns; /* when to ask a full disk again */
    uint64_t scrub_ms;     /* wall clock at the end of the last scrub pass; 0: none yet */
    uint32_t jobs_out;
    declaration declarations[DECLARATIONS_MAX];
    unsigned n_declarations;
    bool counted; /* this start is durably counted */
    bool ready;   /* to coordinate writes */
    bool failed;  /* the store failed: nothing is done any more */
};

#define FACTS_RETRY_MS 250u
#define FULL_RETRY_MS 1000u

/* Store cookies of facts: which changes of the trust they hold. */
static uint64_t facts_cookie(uint64_t changes) {
    return DKV_REPLICA_COOKIE_END | changes;
}

static void become_ready(dkv_node *node, const dkv_moment *at) {
    if (node->ready || !node->counted || !dkv_trust_is_known(&node->trust)) return;
    node->ready = true;
    dkv_replica_ready(node->replica, at);
}

static void peer_changed(void *user, const dkv_moment *at, uint16_t peer) {
    dkv_node *node = user;
    dkv_replica_peer_changed(node->replica, at, peer);
    become_ready(node, at);
}

static int own_state(void *user) {
    const dkv_node *node = user;
    return dkv_replica_state(node->replica);
}

static int make_peers(dkv_node *node, const dkv_node_options *options, uint16_t self,
                      dkv_timing timing) {
    return dkv_peers_new(
        &(dkv_peers_options){
            .map = dkv_ring_map(node->ring),
            .self = self,
            .timing = timing,
            .seed = options->seed,
            .trust = &node->trust,
            .changed = peer_changed,
            .state = own_state,
            .user = node,
        },
        &node->peers);
}

static int make_replica(dkv_node *node, const dkv_node_options *options, uint16_t self,
                        dkv_timing timing) {
    return dkv_replica_new(
        &(dkv_replica_options){
            .ring = node->ring,
            .self = self,
            .store = node->store,
            .peers = node->peers,
            .trust = &node->trust,
            .timing = timing,
            .seed = options->seed,
            .hints_max = options->hints_max,
        },
        &node->replica);
}

int dkv_node_new(const dkv_node_options *options, dkv_node **out) {
    dkv_timing timing = dkv_timing_or_default(options->timing);
    const dkv_cluster_map *map = options->ring ? dkv_ring_map(options->ring) : options->map;
    int self = dkv_cluster_map_find(map, options->id);
    if (self < 0) return DKV_ERR_INVALID;
    dkv_node *node = calloc(1, sizeof *node);
    if (!node) return DKV_ERR_NO_MEMORY;
    int err = options->ring ? DKV_OK : dkv_ring_new(map, &node->own_ring);
    if (err) goto fail;
    node->ring = options->ring ? options->ring : node->own_ring;
    node->store = options->store;
    err = dkv_shares_init(&node->shares, node->ring, (uint16_t)self);
    if (err) goto fail;
    err = dkv_trust_init(&node->trust, dkv_ring_map(node->ring), &node->shares, (uint16_t)self,
                         dkv_store_id(node->store), dkv_store_facts(node->store));
    if (err) goto fail;
    dkv_store_stats stats;
    dkv_store_stats_get(node->store, &stats);
    if (stats.damaged_records) dkv_trust_lost_all(&node->trust);
    err = make_peers(node, options, (uint16_t)self, timing);
    if (err) goto fail;
    err = make_replica(node, options, (uint16_t)self, timing);
    if (err) goto fail;
    *out = node;
    return DKV_OK;

fail:
    node->store = NULL; /* stays the caller's */
    dkv_node_del(node);
    return err;
}

void dkv_node_del(dkv_node *node) {
    if (!node) return;
    dkv_replica_del(node->replica);
    dkv_peers_del(node->peers);
    dkv_trust_free(&node->trust);
    dkv_shares_free(&node->shares);
    dkv_store_del(node->store);
    dkv_ring_del(node->own_ring);
    free(node);
}

/* ---- facts ---- */

static bool facts_wait(const dkv_node *node) {
    return node->facts_handed != node->trust.changes;
}

static void hand_facts_to_store(dkv_node *node, const dkv_moment *at) {
    if (!facts_wait(node) || at->now_ns < node->facts_due_ns) return;
    dkv_buf facts = {0};
    uint64_t changes = node->trust.changes;
    int err = dkv_trust_encode(&node->trust, &facts);
    if (!err) err = dkv_store_set_facts(node->store, dkv_buf_slice(&facts), facts_cookie(changes));
    dkv_buf_free(&facts);
    if (err) {
        node->facts_due_ns = at->now_ns + dkv_ns_of_ms(FACTS_RETRY_MS);
    } else {
        node->facts_handed = changes;
    }
}

/* ---- members that are lost ---- */

static void answer_declaration(const dkv_moment *at, uint64_t handle, int err, const char *why) {
    dkv_reply reply = {.err = err, .detail = dkv_slice_of(why)};
    at->effects->reply(at->effects->user, handle, &reply);
}

static void answer_durable(dkv_node *node, const dkv_moment *at, uint64_t changes) {
    unsigned kept = 0;
    for (unsigned i = 0; i < node->n_declarations; i++) {
        declaration one = node->declarations[i];
        if (one.changes <= changes) {
            answer_declaration(at, one.handle, DKV_OK, "");
        } else {
            node->declarations[kept++] = one;
        }
    }
    node->n_declarations = kept;
}

/* 0 if member `index` may be declared lost, else why not, in `why` after "node n3". */
static int check_lost(dkv_node *node, const dkv_moment *at, uint16_t index, const char **why) {
    if (index == node->trust.self) {
        *why = "is this node itself, which is not lost";
        return DKV_ERR_PRECONDITION;
    }
    switch (dkv_peers_want(node->peers, at, index)) {
    case DKV_REACH_UP:
        *why =
            "can be reached, or could a moment ago: only a node that was stopped for good is "
            "lost; if it was, ask again in some seconds";
        return DKV_ERR_PRECONDITION;
    case DKV_REACH_UNKNOWN:
    case DKV_REACH_CONNECTING:
        *why = "is being tried, as it may be reached: ask again in a second";
        return DKV_ERR_BUSY;
    case DKV_REACH_DOWN: break;
    }
    if (node->n_declarations < DECLARATIONS_MAX) return DKV_OK;
    *why = "was not declared lost: the disk has not stored earlier declarations yet";
    return DKV_ERR_BUSY;
}

static void take_for_lost(dkv_node *node, const dkv_moment *at, uint16_t index) {
    const char *id = node->trust.map->members[index].id;
    uint32_t waived = dkv_trust_declare_lost(&node->trust, index, at->wall_ms);
    char text[DKV_DETAIL_MAX];
    snprintf(text, sizeof text,
             "node %s was declared lost: %u token ranges of this store will not be compared with "
             "what it held; what it alone held is given up",
             id, waived);
    dkv_notice_field field = {.key = "peer", .text = id};
    at->effects->log(at->effects->user, &(dkv_notice){DKV_LOG_WARN, "peer_declared_lost", text,
                                                      .fields = &field, .n_fields = 1});
    dkv_replica_declared_lost(node->replica, at, index);
    become_ready(node, at);
}

static void declare_lost(dkv_node *node, const dkv_moment *at, uint64_t handle, dkv_slice member) {
    char id[DKV_NAME_MAX + 1], text[DKV_DETAIL_MAX];
    const char *why = "is not in the cluster map: `dkv ring` lists those that are";
    snprintf(id, sizeof id, "%.*s", (int)member.len, (const char *)member.data);
    int index = member.len <= DKV_NAME_MAX ? dkv_cluster_map_find(node->trust.map, id) : -1;
    int err = index < 0 ? DKV_ERR_INVALID : check_lost(node, at, (uint16_t)index, &why);
    if (err) {
        snprintf(text, sizeof text, "node %s %s", id, why);
        answer_declaration(at, handle, err, text);
        return;
    }
    take_for_lost(node, at, (uint16_t)index);
    node->declarations[node->n_declarations++] = (declaration){handle, node->trust.changes};
}

/* ---- store ---- */

static void facts_stored(dkv_node *node, const dkv_moment *at, const dkv_store_event *event) {
    if (event->err) { /* the disk is full, say: hand them in again */
        node->facts_handed = 0;
        node->facts_due_ns = at->now_ns + dkv_ns_of_ms(FACTS_RETRY_MS);
        return;
    }
    node->counted = true;
    become_ready(node, at);
    uint64_t changes = event->cookie & ~DKV_REPLICA_COOKIE_END;
    dkv_peers_durable(node->peers, at, changes);
    answer_durable(node, at, changes);
}

static void record_damaged(dkv_node *node, const dkv_moment *at, uint64_t token) {
    dkv_notice_say(at, DKV_LOG_ERROR, "record_damaged",
                   "a stored record is damaged or cannot be read: the other replicas serve its "
                   "key, and this node fetches it from one of them");
    dkv_replica_lost(node->replica, token);
}

static void take_store_events(dkv_node *node, const dkv_moment *at) {
    dkv_store_event event;
    while (!node->failed && dkv_store_next_event(node->store, &event)) {
        if (event.kind == DKV_STORE_FAILED) {
            node->failed = true;
            at->effects->fatal(at->effects->user, event.err,
                               "a sync of the data directory failed: what was written since the "
                               "last good sync is not confirmed; the node stops");
        } else if (event.kind == DKV_STORE_DAMAGED) {
            record_damaged(node, at, event.cookie);
        } else if (event.kind == DKV_STORE_SCRUBBED) {
            node->scrub_ms = at->wall_ms;
        } else if (event.kind == DKV_STORE_UNREADABLE) {
            dkv_notice_say(
                at, DKV_LOG_ERROR, "disk_unreadable",
                "so much of the data directory cannot be read that no more of it is "
                "fetched anew: if the disk is failing, start this node with an empty one");
        } else if (event.cookie >= DKV_REPLICA_COOKIE_END) {
            facts_stored(node, at, &event);
        } else {
            dkv_replica_stored(node->replica, at, &event);
        }
    }
}

static void hand_out_jobs(dkv_node *node, const dkv_moment *at) {
    dkv_disk_job *job;
    while (!node->failed && (job = dkv_store_next_job(node->store))) {
        node->jobs_out++;
        at->effects->disk(at->effects->user, job);
    }
}

static bool is_full(const dkv_node *node) {
    return dkv_store_admits(node->store, DKV_KIND_VALUE, 0) == DKV_ERR_NO_SPACE;
}

static void retry_when_full(dkv_node *node, const dkv_moment *at) {
    if (!is_full(node) || at->now_ns < node->full_retry_ns) return;
    node->full_retry_ns = at->now_ns + dkv_ns_of_ms(FULL_RETRY_MS);
    dkv_store_retry(node->store);
}

/* ---- events ---- */

static void tick(dkv_node *node, const dkv_moment *at) {
    dkv_peers_tick(node->peers, at);
    dkv_replica_tick(node->replica, at);
    hand_facts_to_store(node, at);
    retry_when_full(node, at);
    dkv_store_tick(node->store, at->now_ns);
    hand_out_jobs(node, at);
}

static void message_came(dkv_node *node, const dkv_moment *at, dkv_link link,
                         const dkv_message *message) {
    uint64_t heeded_ms = node->trust.lost_ms[node->trust.self];
    int peer = dkv_peers_message(node->peers, at, link, message);
    if (node->trust.lost_ms[node->trust.self] != heeded_ms) {
        dkv_notice_say(at, DKV_LOG_WARN, "declared_lost",
                       "an operator has declared this store lost: it is not believed about absent "
                       "keys until it has been compared with all other replicas");
        dkv_replica_compare_all(node->replica);
    }
    if (peer >= 0) dkv_replica_message(node->replica, at, link, (uint16_t)peer, message);
}

void dkv_node_step(dkv_node *node, const dkv_event *event, const dkv_effects *effects) {
    dkv_moment at = {event->now_ns, event->wall_ms, effects};
    if (node->failed) return;
    switch (event->kind) {
    case DKV_EVENT_TICK: tick(node, &at); break;
    case DKV_EVENT_REQUEST:
        dkv_replica_request(node->replica, &at, event->request.handle, event->request.request);
        break;
    case DKV_EVENT_LINK_OPENED: dkv_peers_link_opened(node->peers, &at, event->link); break;
    case DKV_EVENT_LINK_ACCEPTED: dkv_peers_link_accepted(node->peers, &at, event->link); break;
    case DKV_EVENT_LINK_CLOSED: dkv_peers_link_closed(node->peers, &at, event->link); break;
    case DKV_EVENT_MESSAGE:
        message_came(node, &at, event->message.link, event->message.message);
        break;
    case DKV_EVENT_DISK_DONE:
        node->jobs_out--;
        dkv_store_job_done(node->store, event->job);
        break;
    case DKV_EVENT_DECLARE_LOST:
        declare_lost(node, &at, event->declare_lost.handle, event->declare_lost.member);
        break;
    case DKV_EVENT_STOP: dkv_replica_stop(node->replica, &at); break;
    }
    take_store_events(node, &at);
}

int64_t dkv_node_next_timer(const dkv_node *node) {
    if (node->failed) return INT64_MAX;
    int64_t next_ns = dkv_peers_next_timer(node->peers);
    int64_t store_ns = dkv_store_next_timer(node->store);
    if (store_ns < next_ns) next_ns = store_ns;
    int64_t replica_ns = dkv_replica_next_timer(node->replica);
    if (replica_ns < next_ns) next_ns = replica_ns;
    if (facts_wait(node) && node->facts_due_ns < next_ns) next_ns = node->facts_due_ns;
    if (is_full(node) && node->full_retry_ns < next_ns) next_ns = node->full_retry_ns;
    return next_ns;
}

/* ---- looking in ---- */

const dkv_ring *dkv_node_ring(const dkv_node *node) {
    return node->ring;
}

dkv_store *dkv_node_store(dkv_node *node) {
    return node->store;
}

bool dkv_node_idle(const dkv_node *node) {
    dkv_replica_counts counts = dkv_replica_counts_get(node->replica);
    dkv_store_stats stats;
    dkv_store_stats_get(node->store, &stats);
    return counts.requests == 0 && counts.serves == 0 && node->jobs_out == 0 &&
           stats.unconfirmed_bytes == 0;
}

void dkv_node_status_get(const dkv_node *node, dkv_node_status *out) {
    dkv_replica_counts counts = dkv_replica_counts_get(node->replica);
    *out = (dkv_node_status){
        .self = node->trust.self,
        .in_sync = dkv_trust_in_sync(&node->trust),
        .clock_off = dkv_peers_clock_off(node->peers),
        .requests = counts.requests,
        .gets = counts.gets,
        .puts = counts.puts,
        .deletes = counts.deletes,
        .failed = counts.failed,
        .shares = node->shares.n,
        .shares_in_sync = node->trust.n_in_sync,
        .scrub_ms = node->scrub_ms,
    };
    dkv_store_stats_get(node->store, &out->store);
    dkv_replica_heal_status(node->replica, &out->heal);
}

const dkv_trust *dkv_node_trust(const dkv_node *node) {
    return &node->trust;
}

dkv_reach dkv_node_reach(const dkv_node *node, uint16_t peer) {
    return dkv_peers_reach(node->peers, peer);
}
