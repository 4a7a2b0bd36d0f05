/* What the stores of a world hold, seen from outside. */
#include <assert.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/hash.h"
#include "sim/state.h"

/* ---- one disk ---- */

static int inspect_key(dkv_store *store, dkv_sim_disk *disk, dkv_slice key, size_t number,
                       dkv_sim_inspect each, void *user) {
    dkv_key_hash hash = dkv_hash_key(key);
    dkv_store_entry entry;
    int err = dkv_store_peek(store, hash, &entry);
    if (!err && entry.kind == DKV_KIND_TOMBSTONE) {
        dkv_record tombstone = {.key = key, .version = entry.version, .kind = entry.kind};
        each(user, number, DKV_OK, &tombstone);
        return DKV_OK;
    }
    if (!err) err = dkv_store_read(store, key, hash, number + 1);
    if (err == DKV_ERR_NOT_FOUND) {
        each(user, number, err, NULL);
        return DKV_OK;
    }
    dkv_store_event event;
    do {
        if (!err) err = dkv_sim_store_event(store, disk, &event);
        if (err) return err;
    } while (event.kind != DKV_STORE_READ || event.cookie != number + 1);
    each(user, number, event.err, event.err ? NULL : &event.record);
    return DKV_OK;
}

int dkv_world_inspect(dkv_world *world, uint16_t node, const dkv_slice *keys, size_t n,
                      dkv_sim_inspect each, void *user) {
    dkv_sim_node *sn = &world->nodes[node];
    if (sn->node) return DKV_ERR_PRECONDITION;
    dkv_store *store;
    int err = dkv_sim_open_store(sn, &store);
    if (err) return err;
    for (size_t i = 0; !err && i < n; i++)
        err = inspect_key(store, sn->disk, keys[i], i, each, user);
    dkv_store_del(store);
    return err;
}

/* ---- all records of the running nodes ---- */

static int read_store(dkv_sim_node *sn, dkv_buf *bytes, dkv_sim_held each, void *user) {
    const dkv_store *store = dkv_node_store(sn->node);
    dkv_key_hash from = {0}, hash;
    dkv_store_entry entry;
    while (dkv_store_next(store, from, &hash, &entry) == DKV_OK) {
        dkv_record record;
        int err = dkv_store_look(store, hash, dkv_sim_disk_run, sn->disk, bytes, &record);
        if (err == DKV_ERR_NO_MEMORY) return err;
        if (!err &&
            (record.kind != entry.kind || dkv_version_cmp(record.version, entry.version) != 0)) {
            err = DKV_ERR_DATA_LOSS;
        }
        each(user, sn->index, hash, &entry, err, err ? NULL : &record);
        from = hash;
        if (!dkv_key_hash_next(&from)) break;
    }
    return DKV_OK;
}

int dkv_world_read_held(dkv_world *world, dkv_sim_held each, void *user) {
    dkv_buf bytes = {0};
    int err = world->err;
    for (uint16_t i = 0; !err && i < world->n_nodes; i++) {
        if (world->nodes[i].node) err = read_store(&world->nodes[i], &bytes, each, user);
    }
    dkv_buf_free(&bytes);
    return err;
}

/* ---- all stores together ---- */

/* A record as the index of one replica knows it. */
typedef struct holding {
    dkv_key_hash hash;
    dkv_store_entry entry;
    uint16_t node;
} holding;

typedef struct survey {
    dkv_world *world;
    holding *all;
    size_t n, cap;
    dkv_map keys; /* token -> number of an operation on it + 1; filled in when it is needed */
} survey;

static bool is_replica(const dkv_world *world, uint64_t token, uint16_t node) {
    const uint16_t *list = dkv_ring_replicas(world->ring, token);
    for (unsigned i = 0; i < dkv_ring_replication(world->ring); i++) {
        if (list[i] == node) return true;
    }
    return false;
}

static int add_store(survey *s, uint16_t node, const dkv_store *store) {
    holding found = {.node = node};
    dkv_key_hash from = {0};
    while (dkv_store_next(store, from, &found.hash, &found.entry) == DKV_OK) {
        from = found.hash;
        if (!dkv_key_hash_next(&from)) break;
        if (!is_replica(s->world, found.hash.token, node)) continue;
        int err = dkv_sim_make_room(s->world, (void **)&s->all, s->n, &s->cap, sizeof *s->all);
        if (err) return err;
        s->all[s->n++] = found;
    }
    return DKV_OK;
}

/* A disk on which no store can be opened holds nothing. */
static int add_stopped(survey *s, const dkv_sim_node *sn) {
    dkv_sim_disk *copy;
    int err = dkv_sim_disk_copy(sn->disk, &copy);
    if (err) return err;
    dkv_store_options options = dkv_sim_store_options(sn, 1);
    dkv_store_report report;
    dkv_store *store = NULL;
    if (dkv_store_open(&options, dkv_sim_disk_run, copy, &store, &report) == DKV_OK) {
        err = add_store(s, sn->index, store);
    }
    dkv_store_del(store);
    dkv_sim_disk_del(copy);
    return err;
}

static int by_key(const void *left, const void *right) {
    const holding *a = left, *b = right;
    if (a->hash.token != b->hash.token) return a->hash.token < b->hash.token ? -1 : 1;
    if (a->hash.tag != b->hash.tag) return a->hash.tag < b->hash.tag ? -1 : 1;
    return (a->node > b->node) - (a->node < b->node);
}

/* How many elements from `first` on are of its key; all replicas agree if *agree. */
static size_t one_key(const survey *s, size_t first, bool *agree) {
    const holding *held = &s->all[first];
    size_t n = 1;
    *agree = true;
    for (; first + n < s->n; n++) {
        const holding *next = &held[n];
        if (next->hash.token != held->hash.token || next->hash.tag != held->hash.tag) break;
        *agree = *agree && next->entry.kind == held->entry.kind &&
                 dkv_version_cmp(next->entry.version, held->entry.version) == 0;
    }
    *agree = *agree && n == dkv_ring_replication(s->world->ring);
    return n;
}

static dkv_slice find_key(survey *s, uint64_t token) {
    const dkv_world *world = s->world;
    for (size_t i = s->keys.len ? world->n_ops : 0; i < world->n_ops; i++) {
        dkv_map_set(&s->keys, dkv_hash_key(world->ops[i].request.key).token,
                    (void *)(uintptr_t)(i + 1));
    }
    uintptr_t op = (uintptr_t)dkv_map_get(&s->keys, token);
    return op ? world->ops[op - 1].request.key : (dkv_slice){0};
}

static void tell(survey *s, const holding *held, size_t n, dkv_sim_differs each, void *user) {
    const dkv_ring *ring = s->world->ring;
    const uint16_t *list = dkv_ring_replicas(ring, held->hash.token);
    dkv_sim_difference what = {.key = find_key(s, held->hash.token), .hash = held->hash};
    what.n = (uint8_t)dkv_ring_replication(ring);
    for (unsigned i = 0; i < what.n; i++) {
        what.nodes[i] = list[i];
        for (size_t j = 0; j < n; j++) {
            if (held[j].node == list[i]) what.held[i] = held[j].entry;
        }
    }
    each(user, &what);
}

int dkv_world_differences(dkv_world *world, dkv_sim_differs each, void *user, uint64_t *count) {
    survey s = {.world = world};
    int err = world->err;
    for (uint16_t i = 0; !err && i < world->n_nodes; i++) {
        const dkv_sim_node *sn = &world->nodes[i];
        err = sn->node ? add_store(&s, i, dkv_node_store(sn->node)) : add_stopped(&s, sn);
    }
    if (err) goto out;
    if (s.n) qsort(s.all, s.n, sizeof *s.all, by_key);
    *count = 0;
    bool agree;
    for (size_t i = 0, n; i < s.n; i += n) {
        n = one_key(&s, i, &agree);
        if (agree) continue;
        if (each) tell(&s, &s.all[i], n, each, user);
        ++*count;
    }
out:
    free(s.all);
    dkv_map_free(&s.keys);
    return err;
}
