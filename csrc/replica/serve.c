/* What peers ask of this node as a replica: store a record, fetch one. Replication never refuses a
 * version; only what the store cannot take (full, busy) is refused. */
#include <stdlib.h>

#include "base/err.h"
#include "replica/internal.h"

typedef struct serve {
    task task; /* first: a task is cast to its serve */
    dkv_link link;
    uint64_t message_id;
    bool is_fetch;
    bool names_key;    /* a fetch by hash: the requester does not know the key */
    dkv_key_hash hash; /* of a fetch */
} serve;

static void reply_apply(const dkv_replica *replica, const dkv_moment *at, dkv_link link,
                        uint64_t message_id, int err) {
    dkv_message reply = {.kind = DKV_MSG_APPLY_REPLY, .id = message_id};
    reply.apply_reply.err = err;
    reply.apply_reply.state = dkv_replica_state(replica);
    at->effects->send(at->effects->user, link, &reply);
}

static void reply_fetch(const dkv_replica *replica, const dkv_moment *at, dkv_link link,
                        uint64_t message_id, dkv_key_hash hash, dkv_fetched fetched) {
    dkv_message reply = {.kind = DKV_MSG_FETCH_REPLY, .id = message_id, .fetch_reply = fetched};
    reply.fetch_reply.in_sync = dkv_trust_believes(replica->options.trust, hash.token);
    at->effects->send(at->effects->user, link, &reply);
}

static void reply_fetch_error(const dkv_replica *replica, const dkv_moment *at, dkv_link link,
                              uint64_t message_id, dkv_key_hash hash, int err) {
    reply_fetch(replica, at, link, message_id, hash, (dkv_fetched){.err = err});
}

/* NULL if there is no room for one more. */
static serve *serve_new(dkv_replica *replica, dkv_link link, uint64_t message_id, bool is_fetch) {
    if (replica->counts.serves >= DKV_SERVES_MAX) return NULL;
    serve *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    if (dkv_replica_task_add(replica, &s->task, TASK_SERVE)) {
        free(s);
        return NULL;
    }
    s->link = link;
    s->message_id = message_id;
    s->is_fetch = is_fetch;
    replica->counts.serves++;
    return s;
}

static void serve_end(dkv_replica *replica, serve *s) {
    dkv_map_remove(&replica->tasks, s->task.id);
    replica->counts.serves--;
    free(s);
}

void dkv_serve_apply(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                     const dkv_message *message) {
    dkv_clock_observe(&replica->clock, at->wall_ms, message->apply.version.hlc);
    serve *s = serve_new(replica, link, message->id, false);
    int err =
        s ? dkv_store_apply(replica->options.store, &message->apply, s->task.id) : DKV_ERR_BUSY;
    if (!err) return; /* answered when it is durable */
    if (s) serve_end(replica, s);
    if (err == DKV_ERR_DATA_LOSS) dkv_replica_alarm(at, message->apply.version);
    reply_apply(replica, at, link, message->id, err);
}

void dkv_serve_fetch(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                     const dkv_message *message) {
    bool named = message->fetch.key.len > 0;
    dkv_key_hash hash = named ? dkv_hash_key(message->fetch.key) : message->fetch.hash;
    dkv_store_entry entry;
    if (dkv_store_peek(replica->options.store, hash, &entry)) {
        reply_fetch_error(replica, at, link, message->id, hash, DKV_ERR_NOT_FOUND);
        return;
    }
    bool is_short = entry.kind == DKV_KIND_TOMBSTONE || message->fetch.version_only;
    if (named && is_short) {
        reply_fetch(replica, at, link, message->id, hash, dkv_replica_fetched_entry(&entry));
        return;
    }
    serve *s = serve_new(replica, link, message->id, true);
    if (s) s->hash = hash;
    if (s) s->names_key = !named;
    int err = s ? dkv_store_read(replica->options.store, message->fetch.key, hash, s->task.id)
                : DKV_ERR_BUSY;
    if (!err) return;
    if (s) serve_end(replica, s);
    reply_fetch_error(replica, at, link, message->id, hash, err);
}

void dkv_serve_sums(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                    const dkv_message *message) {
    uint64_t counts[DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX];
    uint64_t digests[DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX];
    const dkv_sums_request *asked = &message->sums;
    uint32_t n = 0;
    for (uint32_t i = 0; i < asked->n; i++) {
        for (uint32_t part = 0; part < asked->parts; part++, n++) {
            uint64_t from, upto;
            dkv_store_range sum = {0};
            if (dkv_range_part(asked->bounds[2 * i], asked->bounds[2 * i + 1], asked->parts, part,
                               &from, &upto)) {
                sum = dkv_store_digest(replica->options.store, from, upto);
            }
            counts[n] = sum.records;
            digests[n] = sum.digest.lo;
        }
    }
    dkv_message reply = {.kind = DKV_MSG_SUMS_REPLY, .id = message->id};
    reply.sums_reply = (dkv_sums){n, counts, digests};
    at->effects->send(at->effects->user, link, &reply);
}

void dkv_serve_list(dkv_replica *replica, const dkv_moment *at, dkv_link link,
                    const dkv_message *message) {
    uint64_t tokens[DKV_LIST_MAX], tags[DKV_LIST_MAX], hlcs[DKV_LIST_MAX], origins[DKV_LIST_MAX];
    uint32_t sizes[DKV_LIST_MAX];
    dkv_list list = {0, false, tokens, tags, hlcs, origins, sizes};
    dkv_key_hash from = message->list.from, hash;
    dkv_store_entry entry;
    bool inside = true;
    while (inside && !dkv_store_next(replica->options.store, from, &hash, &entry) &&
           hash.token <= message->list.last) {
        list.more = list.n == DKV_LIST_MAX;
        if (list.more) break;
        tokens[list.n] = hash.token;
        tags[list.n] = hash.tag;
        hlcs[list.n] = entry.version.hlc;
        origins[list.n] = entry.version.origin;
        sizes[list.n++] = entry.len_bytes << 1 | (entry.kind == DKV_KIND_TOMBSTONE);
        from = hash;
        inside = dkv_key_hash_next(&from);
    }
    dkv_message reply = {.kind = DKV_MSG_LIST_REPLY, .id = message->id, .list_reply = list};
    at->effects->send(at->effects->user, link, &reply);
}

void dkv_serve_stored(dkv_replica *replica, const dkv_moment *at, task *t,
                      const dkv_store_event *event) {
    serve *s = (serve *)t;
    if (s->is_fetch && event->err) {
        reply_fetch_error(replica, at, s->link, s->message_id, s->hash, event->err);
    } else if (s->is_fetch) {
        dkv_fetched fetched = dkv_replica_fetched_record(replica, s->hash, &event->record);
        if (!s->names_key) fetched.record.key = (dkv_slice){0}; /* it is known there */
        reply_fetch(replica, at, s->link, s->message_id, s->hash, fetched);
    } else {
        reply_apply(replica, at, s->link, s->message_id, event->err);
    }
    serve_end(replica, s);
}
