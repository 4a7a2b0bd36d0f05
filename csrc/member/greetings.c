/* Greeting the peers that this node opens links to, and what a greeting says. */
#include <string.h>

#include "base/err.h"
#include "member/internal.h"

dkv_hello dkv_peers_hello_to(const dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    const dkv_trust *trust = peers->options.trust;
    const dkv_cluster_map *map = peers->options.map;
    return (dkv_hello){
        .cluster = dkv_slice_of(map->cluster),
        .node_id = dkv_slice_of(dkv_peers_name(peers, peers->options.self)),
        .epoch = map->epoch,
        .map_digest = peers->map_digest,
        .store_id = trust->store_id,
        .remembers = trust->remembered[index],
        .in_sync = trust->in_sync,
        .wall_ms = at->wall_ms,
        .state = peers->options.state(peers->options.user),
    };
}

void dkv_peers_greet(dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    dkv_message hello = {.kind = DKV_MSG_HELLO, .hello = dkv_peers_hello_to(peers, at, index)};
    at->effects->send(at->effects->user, peers->all[index].link, &hello);
}

int dkv_peers_check_hello(const dkv_peers *peers, const dkv_hello *hello, int *index) {
    const dkv_cluster_map *map = peers->options.map;
    char id[DKV_NAME_MAX + 1];
    *index = -1;
    if (hello->node_id.len > DKV_NAME_MAX) return DKV_ERR_PROTOCOL;
    memcpy(id, hello->node_id.data, hello->node_id.len);
    id[hello->node_id.len] = 0;
    *index = dkv_cluster_map_find(map, id);
    if (!dkv_slice_eq(hello->cluster, dkv_slice_of(map->cluster))) return DKV_ERR_PRECONDITION;
    if (*index < 0 || *index == peers->options.self || hello->store_id == 0) {
        return DKV_ERR_PRECONDITION;
    }
    if (hello->epoch != map->epoch || hello->map_digest != peers->map_digest) {
        return DKV_ERR_EPOCH;
    }
    return DKV_OK;
}

void dkv_peers_told(dkv_peers *peers, const dkv_moment *at, uint16_t index, uint64_t store_id) {
    bool was_new = peers->options.trust->is_new;
    dkv_trust_told(peers->options.trust, index, store_id);
    dkv_peers_wake_at(peers, at, at->now_ns);
    if (!was_new || !peers->options.trust->in_sync) return;
    at->effects->log(at->effects->user, DKV_LOG_INFO,
                     "all members vouch for this new store: it is in sync");
}

void dkv_peers_greeted_by(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                          const dkv_hello *hello, bool answers) {
    uint64_t remembered = peers->options.trust->remembered[index];
    dkv_trust_heard(peers->options.trust, index, hello);
    if (answers) dkv_peers_told(peers, at, index, hello->remembers);
    if (remembered && remembered != hello->store_id && !hello->in_sync) {
        dkv_peers_log(peers, at, DKV_LOG_WARN, index,
                      "came with another store than before: it is not believed about absent keys");
    }
}

void dkv_peers_hello_reply(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                           const dkv_hello *hello) {
    int who;
    int err = hello->err ? hello->err : dkv_peers_check_hello(peers, hello, &who);
    if (!err && who != index) err = DKV_ERR_PRECONDITION;
    if (err) {
        dkv_peers_go_down(peers, at, index,
                          err == DKV_ERR_EPOCH
                              ? "cannot be used: its cluster map differs from ours"
                              : "cannot be used: another node or cluster answers there");
        return;
    }
    peer *p = &peers->all[index];
    dkv_peers_greeted_by(peers, at, index, hello, true);
    dkv_peers_sample_clock(peers, at, index, hello->wall_ms, p->opened_ns);
    p->state = hello->state;
    p->wants_word = !hello->in_sync;
    p->greeted = true;
    p->await_changes = peers->options.trust->changes;
    if (p->await_changes <= peers->durable_changes) dkv_peers_come_up(peers, at, index);
}
