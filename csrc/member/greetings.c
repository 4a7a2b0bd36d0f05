/* Greeting the peers that this node opens links to, and what a greeting says. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "member/internal.h"

dkv_hello dkv_peers_hello_to(const dkv_peers *peers, const dkv_moment *at, uint16_t index) {
    const dkv_trust *trust = peers->options.trust;
    const dkv_cluster_map *map = peers->options.map;
    bool is_durable = trust->changes <= peers->durable_changes;
    return (dkv_hello){
        .cluster = dkv_slice_of(map->cluster),
        .node_id = dkv_slice_of(dkv_peers_name(peers, peers->options.self)),
        .epoch = map->epoch,
        .map_digest = peers->map_digest,
        .replication = map->replication,
        .n_members = map->n_members,
        .store_id = trust->store_id,
        .remembers = trust->remembered[index],
        .lost_ms = trust->lost_ms[index],
        .heeded_ms = is_durable ? trust->lost_ms[peers->options.self] : 0,
        .in_sync = dkv_trust_in_sync(trust),
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
    bool was_new = dkv_trust_is_new(peers->options.trust);
    dkv_trust_told(peers->options.trust, index, store_id);
    dkv_peers_wake_at(peers, at, at->now_ns);
    if (!was_new || !dkv_trust_in_sync(peers->options.trust)) return;
    dkv_notice_say(at, DKV_LOG_INFO, "in_sync",
                   "all members vouch for this new store: it is in sync");
}

void dkv_peers_greeted_by(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                          const dkv_hello *hello, bool answers) {
    uint64_t remembered = peers->options.trust->remembered[index];
    bool was_lost = peers->options.trust->lost_ms[index] != 0;
    dkv_trust_heard(peers->options.trust, index, hello);
    if (answers) dkv_peers_told(peers, at, index, hello->remembers);
    if (remembered && remembered != hello->store_id && !hello->in_sync) {
        dkv_peers_log(
            peers, at, DKV_LOG_WARN, "peer_store_replaced", index,
            "came with another store than before (was its data directory replaced?): it is "
            "not believed about absent keys");
    } else if (was_lost && remembered == hello->store_id) {
        dkv_peers_log(peers, at, DKV_LOG_WARN, "peer_not_lost", index,
                      "is back with the store that was declared lost: what it holds is merged, and "
                      "it is not believed about absent keys until it has been compared with all "
                      "other replicas");
    }
}

/* What differs between two maps, as far as a greeting tells. */
static void compare_maps(const dkv_cluster_map *map, const dkv_hello *hello, char *to,
                         size_t size) {
    if (hello->epoch != map->epoch) {
        snprintf(to, size, "epoch %" PRIu64 ", ours %" PRIu64, hello->epoch, map->epoch);
    } else if (hello->replication != map->replication) {
        snprintf(to, size, "replication %u, ours %u", hello->replication, map->replication);
    } else if (hello->n_members != map->n_members) {
        snprintf(to, size, "%u nodes, ours %u", hello->n_members, map->n_members);
    } else {
        snprintf(to, size, "the same number of nodes, but other ids, hosts, zones or weights");
    }
}

/* Completes "node n2 ...". */
static void explain_mismatch(const dkv_peers *peers, uint16_t index, const dkv_hello *hello,
                             int err, char why[DKV_PEERS_WHY_MAX]) {
    const dkv_cluster_map *map = peers->options.map;
    char maps[160];
    if (!dkv_slice_eq(hello->cluster, dkv_slice_of(map->cluster))) {
        snprintf(why, DKV_PEERS_WHY_MAX,
                 "cannot be used: it is of cluster %.*s, this node of %s; check `cluster` and the "
                 "addresses in both configuration files",
                 (int)hello->cluster.len, (const char *)hello->cluster.data, map->cluster);
    } else if (!dkv_slice_eq(hello->node_id, dkv_slice_of(dkv_peers_name(peers, index)))) {
        snprintf(why, DKV_PEERS_WHY_MAX,
                 "cannot be used: at its address, %s, node %.*s answers; check the addresses and "
                 "`node` in both configuration files",
                 map->members[index].address, (int)hello->node_id.len,
                 (const char *)hello->node_id.data);
    } else if (err == DKV_ERR_EPOCH) {
        compare_maps(map, hello, maps, sizeof maps);
        snprintf(why, DKV_PEERS_WHY_MAX,
                 "cannot be used: its cluster map differs from ours (it has %s); give both the "
                 "same `replication` and `nodes` in their configuration files, and start them "
                 "again",
                 maps);
    } else {
        snprintf(why, DKV_PEERS_WHY_MAX, "cannot be used: %s", dkv_err_sentence(err));
    }
}

void dkv_peers_tell_mismatch(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                             const dkv_hello *hello, int err) {
    peer *p = &peers->all[index];
    if (p->mismatch_told) return;
    p->mismatch_told = true;
    char why[DKV_PEERS_WHY_MAX];
    explain_mismatch(peers, index, hello, err, why);
    dkv_peers_log(peers, at, DKV_LOG_WARN, "peer_mismatch", index, why);
}

void dkv_peers_hello_reply(dkv_peers *peers, const dkv_moment *at, uint16_t index,
                           const dkv_hello *hello) {
    int who;
    int err = dkv_peers_check_hello(peers, hello, &who);
    if (!err) err = hello->err;
    if (!err && who != index) err = DKV_ERR_PRECONDITION;
    if (err) {
        dkv_peers_tell_mismatch(peers, at, index, hello, err);
        dkv_peers_go_down(peers, at, index, NULL);
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
