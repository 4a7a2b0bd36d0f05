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
} serve;

static void reply_apply(const dkv_replica *replica, const dkv_moment *at, dkv_link link,
                        uint64_t message_id, int err) {
    dkv_message reply = {.kind = DKV_MSG_APPLY_REPLY, .id = message_id};
    reply.apply_reply.err = err;
    reply.apply_reply.state = dkv_replica_state(replica);
    at->effects->send(at->effects->user, link, &reply);
}

static void reply_fetch(const dkv_replica *replica, const dkv_moment *at, dkv_link link,
                        uint64_t message_id, int err, const dkv_record *record) {
    dkv_message reply = {.kind = DKV_MSG_FETCH_REPLY, .id = message_id};
    reply.fetch_reply.err = err;
    reply.fetch_reply.in_sync = replica->options.trust->in_sync;
    if (record) {
        reply.fetch_reply.record = *record;
        reply.fetch_reply.record.key = (dkv_slice){0}; /* the requester knows it */
    }
    at->effects->send(at->effects->user, link, &reply);
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
    dkv_key_hash hash = dkv_hash_key(message->fetch);
    dkv_store_entry entry;
    if (dkv_store_peek(replica->options.store, hash, &entry)) {
        reply_fetch(replica, at, link, message->id, DKV_ERR_NOT_FOUND, NULL);
        return;
    }
    if (entry.kind == DKV_KIND_TOMBSTONE) {
        dkv_record tombstone = {.version = entry.version, .kind = entry.kind};
        reply_fetch(replica, at, link, message->id, DKV_OK, &tombstone);
        return;
    }
    serve *s = serve_new(replica, link, message->id, true);
    int err =
        s ? dkv_store_read(replica->options.store, message->fetch, hash, s->task.id) : DKV_ERR_BUSY;
    if (!err) return;
    if (s) serve_end(replica, s);
    reply_fetch(replica, at, link, message->id, err, NULL);
}

void dkv_serve_stored(dkv_replica *replica, const dkv_moment *at, task *t,
                      const dkv_store_event *event) {
    serve *s = (serve *)t;
    if (s->is_fetch) {
        reply_fetch(replica, at, s->link, s->message_id, event->err,
                    event->err ? NULL : &event->record);
    } else {
        reply_apply(replica, at, s->link, s->message_id, event->err);
    }
    serve_end(replica, s);
}
