#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "replica/heal.h"
#include "replica/internal.h"
#include "store/log.h"

int dkv_replica_new(const dkv_replica_options *options, dkv_replica **out) {
    dkv_replica *replica = calloc(1, sizeof *replica);
    if (!replica) return DKV_ERR_NO_MEMORY;
    replica->options = *options;
    int err = dkv_heal_new(replica, options->seed, options->hints_max, &replica->heal);
    if (err) {
        free(replica);
        return err;
    }
    *out = replica;
    return DKV_OK;
}

static void request_del(request *r) {
    if (r->task.kind == TASK_WRITE) {
        dkv_write_del((write_request *)r);
    } else {
        dkv_read_del((read_request *)r);
    }
}

void dkv_replica_del(dkv_replica *replica) {
    if (!replica) return;
    dkv_heal_del(replica->heal);
    while (replica->requests) {
        request *r = replica->requests;
        dkv_replica_forget(replica, r);
        request_del(r);
    }
    for (size_t i = 0; i < replica->tasks.cap; i++) free(replica->tasks.slots[i].value);
    dkv_map_free(&replica->tasks);
    dkv_timers_free(&replica->timers);
    free(replica);
}

/* ---- tables ---- */

int dkv_replica_task_add(dkv_replica *replica, task *t, task_kind kind) {
    t->kind = kind;
    t->id = ++replica->last_id;
    assert(t->id < DKV_REPLICA_COOKIE_END);
    return dkv_map_set(&replica->tasks, t->id, t);
}

void dkv_replica_forget(dkv_replica *replica, request *r) {
    dkv_map_remove(&replica->tasks, r->task.id);
    dkv_timers_cancel(&replica->timers, &r->timer);
    *r->link = r->next;
    if (r->next) r->next->link = r->link;
    if (r->lingers) {
        replica->lingering--;
    } else {
        replica->counts.requests--;
    }
    replica->forwarded_bytes -= r->forwarded_bytes;
}

static void list_request(dkv_replica *replica, request *r) {
    r->next = replica->requests;
    r->link = &replica->requests;
    if (r->next) r->next->link = &r->next;
    replica->requests = r;
    replica->counts.requests++;
}

void dkv_replica_set_timer(dkv_replica *replica, request *r, int64_t at_ns) {
    /* A timer is set when the request is made and only moved from then on, which cannot fail. */
    int err = dkv_timers_set(&replica->timers, &r->timer, at_ns);
    assert(!err);
    (void)err;
}

/* ---- what requests have in common ---- */

int dkv_replica_place(const request *r, uint16_t peer) {
    for (int i = 0; i < r->n; i++) {
        if (r->list[i] == peer) return i;
    }
    return -1;
}

unsigned dkv_replica_count(const request *r, unsigned set) {
    unsigned count = 0;
    for (unsigned i = 0; i < r->n; i++) count += (set >> r->progress[i]) & 1;
    return count;
}

dkv_node_names dkv_replica_names(const dkv_replica *replica, const request *r, unsigned set) {
    const dkv_cluster_map *map = dkv_ring_map(replica->options.ring);
    dkv_node_names names = {0};
    for (unsigned i = 0; i < r->n; i++) {
        if ((set >> r->progress[i]) & 1) {
            names.ids[names.n++] = dkv_slice_of(map->members[r->list[i]].id);
        }
    }
    return names;
}

void dkv_replica_list(char *text, size_t size, dkv_node_names names) {
    dkv_phrases list;
    dkv_phrases_init(&list, text, size, ", ");
    if (names.n == 0) dkv_phrases_add(&list, "none");
    for (unsigned i = 0; i < names.n; i++) {
        char name[DKV_NAME_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)names.ids[i].len, (const char *)names.ids[i].data);
        dkv_phrases_add(&list, name);
    }
}

void dkv_replica_alarm(const dkv_moment *at, dkv_version version) {
    char line[DKV_DETAIL_MAX];
    snprintf(line, sizeof line,
             "two different records carry the version %" PRIu64 ".%016" PRIx64
             ": a replica holds what was never written, or a node broke the rules; neither is "
             "preferred, please compare the replicas",
             version.hlc, version.origin);
    dkv_notice_say(at, DKV_LOG_ERROR, "records_contradict", line);
}

dkv_fetched dkv_replica_fetched_entry(const dkv_store_entry *entry) {
    return (dkv_fetched){
        .durable = entry->durable,
        .version_only = entry->kind == DKV_KIND_VALUE,
        .len_bytes = entry->len_bytes,
        .record = {.version = entry->version, .kind = entry->kind},
    };
}

dkv_fetched dkv_replica_fetched_record(const dkv_replica *replica, dkv_key_hash hash,
                                       const dkv_record *record) {
    dkv_store_entry entry = {0};
    bool newest = dkv_store_peek(replica->options.store, hash, &entry) == DKV_OK &&
                  dkv_version_cmp(entry.version, record->version) == 0;
    return (dkv_fetched){
        .durable = newest && entry.durable,
        .len_bytes = dkv_log_length(record->key.len, record->value.len),
        .record = *record,
    };
}

static void count_reply(dkv_replica *replica, dkv_op op, int err) {
    replica->counts.gets += op == DKV_OP_GET;
    replica->counts.puts += op == DKV_OP_PUT;
    replica->counts.deletes += op == DKV_OP_DELETE;
    replica->counts.failed += err && err != DKV_ERR_NOT_FOUND;
}

void dkv_replica_reply(dkv_replica *replica, const dkv_moment *at, reply_to to, dkv_op op,
                       const dkv_reply *reply) {
    if (to.link) {
        dkv_message message = {.kind = DKV_MSG_FORWARD_REPLY, .id = to.id, .forward_reply = *reply};
        at->effects->send(at->effects->user, to.link, &message);
    } else {
        count_reply(replica, op, reply->err);
        at->effects->reply(at->effects->user, to.id, reply);
    }
}

static void refuse(dkv_replica *replica, const dkv_moment *at, reply_to to, dkv_op op, int err,
                   const char *detail) {
    dkv_reply reply = {.err = err, .detail = dkv_slice_of(detail)};
    if (op != DKV_OP_GET) reply.outcome = DKV_OUTCOME_NOT_APPLIED;
    dkv_replica_reply(replica, at, to, op, &reply);
}

/* ---- a request comes in ---- */

static void place_request(const dkv_replica *replica, request *r) {
    const dkv_ring *ring = replica->options.ring;
    r->n = (uint8_t)dkv_ring_replication(ring);
    memcpy(r->list, dkv_ring_replicas(ring, r->hash.token), r->n * sizeof r->list[0]);
    r->mine = (int8_t)dkv_replica_place(r, replica->options.self);
    r->needs = (uint8_t)dkv_level_needs(r->level, r->op, r->n);
}

/* Makes the request of either kind with a copy of its key, registered and with its timer set; NULL
 * without memory. */
static request *request_new(dkv_replica *replica, const dkv_moment *at, reply_to to,
                            const dkv_request *asked) {
    bool reads = asked->op == DKV_OP_GET;
    size_t size = reads ? sizeof(read_request) : sizeof(write_request);
    request *r = calloc(1, size + asked->key.len);
    if (!r) return NULL;
    uint8_t *key = (uint8_t *)r + size;
    memcpy(key, asked->key.data, asked->key.len);
    uint32_t timeout_ms = asked->timeout_ms ? asked->timeout_ms : DKV_TIMEOUT_DEFAULT_MS;
    r->to = to;
    r->op = asked->op;
    r->level = asked->level;
    r->key = (dkv_slice){key, asked->key.len};
    r->hash = dkv_hash_key(r->key);
    r->deadline_ns = at->now_ns + dkv_ns_of_ms(timeout_ms);
    place_request(replica, r);
    if (dkv_timers_set(&replica->timers, &r->timer, r->deadline_ns)) goto no_timer;
    if (dkv_replica_task_add(replica, &r->task, reads ? TASK_READ : TASK_WRITE)) goto no_task;
    list_request(replica, r);
    return r;

no_task:
    dkv_timers_cancel(&replica->timers, &r->timer);
no_timer:
    free(r);
    return NULL;
}

static void begin(dkv_replica *replica, const dkv_moment *at, reply_to to,
                  const dkv_request *asked) {
    char why[DKV_DETAIL_MAX];
    if (dkv_request_check(asked, why)) {
        refuse(replica, at, to, asked->op, DKV_ERR_INVALID, why);
        return;
    }
    if (replica->counts.requests >= DKV_REQUESTS_MAX) {
        refuse(replica, at, to, asked->op, DKV_ERR_BUSY,
               "too many requests under way in this node");
        return;
    }
    size_t forwarded_bytes = to.link ? asked->key.len + asked->value.len : 0;
    if (replica->forwarded_bytes + forwarded_bytes > DKV_FORWARDED_BYTES_MAX) {
        refuse(replica, at, to, asked->op, DKV_ERR_BUSY,
               "too many forwarded bytes under way in this node");
        return;
    }
    request *r = request_new(replica, at, to, asked);
    if (r) replica->forwarded_bytes += r->forwarded_bytes = forwarded_bytes;
    if (!r) {
        refuse(replica, at, to, asked->op, DKV_ERR_NO_MEMORY, "the node is out of memory");
    } else if (to.link && r->mine < 0) { /* forwarded once is enough: our maps differ */
        refuse(replica, at, to, asked->op, DKV_ERR_EPOCH, "forwarded to a node without a replica");
        dkv_replica_forget(replica, r);
        request_del(r);
    } else if (r->task.kind == TASK_READ) {
        ((read_request *)r)->failover = asked->failover;
        dkv_read_begin(replica, at, (read_request *)r);
    } else {
        write_request *w = (write_request *)r;
        w->last_seen = asked->last_seen;
        w->value = asked->op == DKV_OP_PUT ? asked->value : (dkv_slice){0};
        dkv_write_begin(replica, at, w);
    }
}

void dkv_replica_request(dkv_replica *replica, const dkv_moment *at, uint64_t handle,
                         const dkv_request *asked) {
    begin(replica, at, (reply_to){0, handle}, asked);
}

/* ---- what happens to requests under way ---- */

static void answered(dkv_replica *replica, const dkv_moment *at, uint16_t peer,
                     const dkv_message *message) {
    task *t = dkv_map_get(&replica->tasks, message->id);
    if (!t) return; /* the request has ended without this answer */
    if (t->kind == TASK_WRITE && message->kind != DKV_MSG_FETCH_REPLY) {
        dkv_write_answered(replica, at, (write_request *)t, peer, message);
    } else if (t->kind == TASK_READ && message->kind == DKV_MSG_FETCH_REPLY) {
        dkv_read_answered(replica, at, (read_request *)t, peer, message);
    } else if (t->kind == TASK_READ && message->kind == DKV_MSG_APPLY_REPLY) {
        dkv_read_mended(replica, at, (read_request *)t, peer, message->apply_reply.err);
    } else if (t->kind == TASK_HEAL) {
        dkv_heal_answered(replica->heal, at, t, peer, message);
    }
}

/* Only sessions fetch records whose keys they do not know. */
static bool is_of_session(const dkv_message *message) {
    return message->kind == DKV_MSG_SUMS || message->kind == DKV_MSG_LIST ||
           (message->kind == DKV_MSG_FETCH && message->fetch.key.len == 0);
}

void dkv_replica_message(dkv_replica *replica, const dkv_moment *at, dkv_link link, uint16_t peer,
                         const dkv_message *message) {
    if (is_of_session(message)) dkv_heal_asked(replica->heal, at, peer);
    switch (message->kind) {
    case DKV_MSG_APPLY: dkv_serve_apply(replica, at, link, message); break;
    case DKV_MSG_FETCH: dkv_serve_fetch(replica, at, link, message); break;
    case DKV_MSG_SUMS: dkv_serve_sums(replica, at, link, message); break;
    case DKV_MSG_LIST: dkv_serve_list(replica, at, link, message); break;
    case DKV_MSG_FORWARD:
        begin(replica, at, (reply_to){link, message->id}, &message->forward);
        break;
    default: answered(replica, at, peer, message); break;
    }
}

void dkv_replica_stored(dkv_replica *replica, const dkv_moment *at, const dkv_store_event *event) {
    task *t = dkv_map_get(&replica->tasks, event->cookie);
    if (!t) return; /* answered already: by other replicas, or by its deadline */
    switch (t->kind) {
    case TASK_WRITE: dkv_write_stored(replica, at, (write_request *)t, event->err); break;
    case TASK_READ: dkv_read_stored(replica, at, (read_request *)t, event); break;
    case TASK_SERVE: dkv_serve_stored(replica, at, t, event); break;
    case TASK_HEAL: dkv_heal_stored(replica->heal, at, t, event); break;
    }
}

void dkv_replica_peer_changed(dkv_replica *replica, const dkv_moment *at, uint16_t peer) {
    for (request *r = replica->requests, *next; r; r = next) {
        next = r->next; /* a request may end here, but only itself */
        if (dkv_replica_place(r, peer) < 0) continue;
        if (r->task.kind == TASK_WRITE) {
            dkv_write_peer_changed(replica, at, (write_request *)r, peer);
        } else {
            dkv_read_peer_changed(replica, at, (read_request *)r, peer);
        }
    }
    dkv_heal_peer_changed(replica->heal, at, peer);
}

void dkv_replica_lost(dkv_replica *replica, uint64_t token) {
    dkv_trust_lost(replica->options.trust, token);
    dkv_heal_lost(replica->heal, token);
}

void dkv_replica_compare_all(dkv_replica *replica) {
    dkv_heal_lost_all(replica->heal);
}

void dkv_replica_declared_lost(dkv_replica *replica, const dkv_moment *at, uint16_t peer) {
    dkv_heal_declared_lost(replica->heal, at, peer);
}

void dkv_replica_ready(dkv_replica *replica, const dkv_moment *at) {
    replica->ready = true;
    for (request *r = replica->requests, *next; r; r = next) {
        next = r->next;
        if (r->task.kind == TASK_WRITE && !((write_request *)r)->sent) {
            dkv_write_begin(replica, at, (write_request *)r);
        }
    }
}

void dkv_replica_stop(dkv_replica *replica, const dkv_moment *at) {
    dkv_heal_stop(replica->heal);
    for (request *r = replica->requests, *next; r; r = next) {
        next = r->next;
        if (r->task.kind == TASK_WRITE) dkv_write_stop(replica, at, (write_request *)r);
    }
}

void dkv_replica_tick(dkv_replica *replica, const dkv_moment *at) {
    dkv_timer *timer;
    while ((timer = dkv_timers_pop(&replica->timers, at->now_ns))) {
        request *r = (request *)(void *)((char *)timer - offsetof(request, timer));
        /* Back in at its deadline at once: the room is there, so that setting it cannot fail. */
        dkv_replica_set_timer(replica, r, r->deadline_ns);
        if (r->task.kind == TASK_WRITE) {
            dkv_write_timer(replica, at, (write_request *)r);
        } else {
            dkv_read_timer(replica, at, (read_request *)r);
        }
    }
    dkv_heal_tick(replica->heal, at);
}

int64_t dkv_replica_next_timer(const dkv_replica *replica) {
    int64_t request_ns = dkv_timers_next(&replica->timers);
    int64_t heal_ns = dkv_heal_next_timer(replica->heal);
    return request_ns < heal_ns ? request_ns : heal_ns;
}

int dkv_replica_state(const dkv_replica *replica) {
    if (replica->counts.serves >= DKV_SERVES_MAX) return DKV_ERR_BUSY;
    return dkv_store_admits(replica->options.store, DKV_KIND_VALUE, 0);
}

dkv_replica_counts dkv_replica_counts_get(const dkv_replica *replica) {
    return replica->counts;
}

void dkv_replica_heal_status(const dkv_replica *replica, dkv_heal_status *out) {
    dkv_heal_status_get(replica->heal, out);
}
