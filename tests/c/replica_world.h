/* A cluster of whole nodes driven by hand: one step at a time, without delays and without chance.
 *
 * Messages go through the codec, as between real nodes. A test can park messages of one kind on
 * their way, let go of them or lose them later, and send messages of its own in a node's name. */
#ifndef DKV_TESTS_REPLICA_WORLD_H
#define DKV_TESTS_REPLICA_WORLD_H

#include "base/err.h"
#include "check.h"
#include "node/node.h"
#include "replica/replica.h"
#include "sim/disk.h"
#include "wire/wire.h"

enum {
    NODES_MAX = 5,
    JOBS_MAX = 256,
    LINKS_MAX = 256,
    QUEUE_MAX = 65536,
    ANSWERS_MAX = 70000,
    KINDS = DKV_MSG_LIST_REPLY + 1,
};

/* A link between two nodes under the names that its two ends have for it. */
typedef struct link {
    int opener, acceptor;
    dkv_link own, accepted;
    bool open;
} link;

/* What is on its way to one end of a link. */
typedef struct item {
    link *link;
    bool to_opener;
    enum { ITEM_OPENED, ITEM_ACCEPTED, ITEM_CLOSED, ITEM_MESSAGE } event;
    dkv_message_kind kind;
    uint64_t id;
    dkv_buf bytes;
} item;

typedef struct node {
    int index;
    dkv_node *node; /* NULL: the process is dead */
    dkv_sim_disk *disk;
    dkv_effects effects;
    dkv_disk_job *jobs[JOBS_MAX];
    int n_jobs;
    unsigned wipes;  /* its disk was replaced so often */
    bool slow_disk;  /* syncs do not end */
    bool mute;       /* connections to it neither succeed nor fail */
    int64_t skew_ms; /* of its wall clock */
} node;

/* What a client was told. */
typedef struct answer {
    unsigned times;
    int err;
    dkv_outcome outcome;
    dkv_version version;
    char value[16];
    unsigned holding, missing; /* bit i: node i */
} answer;

static dkv_cluster_map *map;
static dkv_ring *ring;
static node nodes[NODES_MAX];
static int n_nodes;
static int64_t now_ns;
static link links[LINKS_MAX];
static int n_links;
static item queue[QUEUE_MAX];
static int n_queued;
static item parked[QUEUE_MAX];
static int n_parked;
static bool parks[NODES_MAX][NODES_MAX][KINDS]; /* from, to */
static unsigned delivered[NODES_MAX][KINDS];    /* messages, by receiver */
static uint64_t delivered_bytes[KINDS];         /* of them, to all */
static answer answers[ANSWERS_MAX];
static uint64_t n_asked;
static uint32_t hints_max;               /* of nodes that start from now on */
static uint32_t scrub_interval_ms;       /* likewise; 0: a day */
static char last_detail[DKV_DETAIL_MAX]; /* of the last answer */
static char last_error[DKV_DETAIL_MAX];  /* that a node has logged */

/* ---- effects ---- */

static inline int end_of(const item *it) {
    return it->to_opener ? it->link->opener : it->link->acceptor;
}

static inline void push(item it) {
    CHECK(n_queued < QUEUE_MAX);
    queue[n_queued++] = it;
}

/* The newest link that `index` knows by this number. */
static inline link *find_link(int index, dkv_link number) {
    for (int i = n_links - 1; i >= 0; i--) {
        link *l = &links[i];
        bool own = l->opener == index && l->own == number;
        if (own || (l->acceptor == index && l->accepted == number)) return l;
    }
    return NULL;
}

static inline void fx_connect(void *user, uint16_t peer, dkv_link number) {
    node *from = user;
    CHECK(n_links < LINKS_MAX);
    link *l = &links[n_links++];
    *l = (link){from->index, peer, number, 2 * (dkv_link)n_links, true};
    if (nodes[peer].mute) return;
    if (!nodes[peer].node) {
        l->open = false;
        push((item){.link = l, .to_opener = true, .event = ITEM_CLOSED});
        return;
    }
    push((item){.link = l, .to_opener = true, .event = ITEM_OPENED});
    push((item){.link = l, .event = ITEM_ACCEPTED});
}

static inline void fx_close(void *user, dkv_link number) {
    node *from = user;
    link *l = find_link(from->index, number);
    if (!l || !l->open) return;
    l->open = false;
    push((item){.link = l, .to_opener = l->opener != from->index, .event = ITEM_CLOSED});
}

static inline item item_of(link *l, bool to_opener, const dkv_message *message) {
    item it = {l, to_opener, ITEM_MESSAGE, message->kind, message->id, {0}};
    CHECK(dkv_wire_put_message(&it.bytes, message) == DKV_OK);
    return it;
}

static inline void fx_send(void *user, dkv_link number, const dkv_message *message) {
    node *from = user;
    link *l = find_link(from->index, number);
    if (!l || !l->open) return;
    item it = item_of(l, l->opener != from->index, message);
    if (parks[from->index][end_of(&it)][message->kind]) {
        CHECK(n_parked < QUEUE_MAX);
        parked[n_parked++] = it;
    } else {
        push(it);
    }
}

static inline unsigned set_of(const dkv_node_names *names) {
    unsigned set = 0;
    for (unsigned i = 0; i < names->n; i++) set |= 1u << (names->ids[i].data[1] - '1');
    return set;
}

static inline void fx_reply(void *user, uint64_t handle, const dkv_reply *reply) {
    (void)user;
    CHECK(handle >= 1 && handle <= n_asked);
    answer *a = &answers[handle];
    CHECK(a->times++ == 0); /* every request is answered once */
    CHECK(reply->value.len < sizeof a->value && reply->detail.len < sizeof last_detail);
    a->err = reply->err;
    a->outcome = reply->outcome;
    a->version = reply->version;
    a->holding = set_of(&reply->holding);
    a->missing = set_of(&reply->missing);
    if (reply->value.len) memcpy(a->value, reply->value.data, reply->value.len);
    a->value[reply->value.len] = 0;
    if (reply->detail.len) memcpy(last_detail, reply->detail.data, reply->detail.len);
    last_detail[reply->detail.len] = 0;
}

static inline void fx_disk(void *user, dkv_disk_job *job) {
    node *n = user;
    CHECK(n->n_jobs < JOBS_MAX);
    dkv_sim_disk_submit(n->disk, job);
    n->jobs[n->n_jobs++] = job;
}

static inline void fx_log(void *user, const dkv_notice *notice) {
    (void)user;
    CHECK(strlen(notice->text) > 0 && strlen(notice->event) > 0);
    if (notice->level == DKV_LOG_ERROR) snprintf(last_error, sizeof last_error, "%s", notice->text);
}

static inline void fx_fatal(void *user, int err, const char *text) {
    (void)user;
    (void)text;
    CHECK(err == DKV_OK); /* no node of these tests stops by itself */
}

/* ---- stepping ---- */

static inline uint64_t wall_ms(int i) {
    return (uint64_t)(INT64_C(1700000000000) + now_ns / 1000000 + nodes[i].skew_ms);
}

static inline void step(int i, dkv_event event) {
    event.now_ns = now_ns;
    event.wall_ms = wall_ms(i);
    dkv_node_step(nodes[i].node, &event, &nodes[i].effects);
}

static inline dkv_link name_at(const item *it) {
    return it->to_opener ? it->link->own : it->link->accepted;
}

static inline void step_message(void *user, const dkv_message *message) {
    const item *it = user;
    delivered[end_of(it)][message->kind]++;
    step(end_of(it), (dkv_event){.kind = DKV_EVENT_MESSAGE, .message = {name_at(it), message}});
}

static inline void deliver(item *it) {
    static const dkv_event_kind kinds[] = {
        [ITEM_OPENED] = DKV_EVENT_LINK_OPENED,
        [ITEM_ACCEPTED] = DKV_EVENT_LINK_ACCEPTED,
        [ITEM_CLOSED] = DKV_EVENT_LINK_CLOSED,
    };
    bool arrives = it->link->open || it->event == ITEM_CLOSED;
    if (nodes[end_of(it)].node && arrives) {
        if (it->event == ITEM_MESSAGE) {
            delivered_bytes[it->kind] += it->bytes.len;
            CHECK(dkv_wire_each_message(dkv_buf_slice(&it->bytes), step_message, it) == DKV_OK);
        } else {
            step(end_of(it), (dkv_event){.kind = kinds[it->event], .link = name_at(it)});
        }
    }
    dkv_buf_free(&it->bytes);
}

/* Gives a node the disk jobs back that are done. */
static inline bool finish_jobs(node *n) {
    dkv_disk_job *done[JOBS_MAX];
    int n_done = 0, n_left = 0;
    for (int i = 0; i < n->n_jobs; i++) {
        if (n->slow_disk && n->jobs[i]->op == DKV_DISK_SYNC) {
            n->jobs[n_left++] = n->jobs[i];
        } else {
            done[n_done++] = n->jobs[i];
        }
    }
    n->n_jobs = n_left;
    for (int i = 0; i < n_done; i++) {
        dkv_sim_disk_complete(n->disk, done[i]);
        step(n->index, (dkv_event){.kind = DKV_EVENT_DISK_DONE, .job = done[i]});
    }
    return n_done > 0;
}

/* Runs all nodes until nothing is left to do at this moment, and no timer is due either. */
static inline void settle(void) {
    bool more = true;
    for (int round = 0; more; round++) {
        CHECK(round < 200);
        more = false;
        for (int i = 0; i < n_queued; i++) {
            item it = queue[i]; /* the queue may grow meanwhile */
            deliver(&it);
        }
        n_queued = 0;
        for (int i = 0; i < n_nodes; i++) {
            if (!nodes[i].node) continue;
            step(i, (dkv_event){.kind = DKV_EVENT_TICK});
            more |= finish_jobs(&nodes[i]) || dkv_node_next_timer(nodes[i].node) <= now_ns;
        }
        more |= n_queued > 0;
    }
    for (int i = 0; i < n_nodes; i++) {
        if (nodes[i].node) CHECK(dkv_node_next_timer(nodes[i].node) > now_ns);
    }
}

static inline void advance(unsigned ms) {
    for (unsigned passed = 0; passed < ms; passed += 5) {
        now_ns += dkv_ns_of_ms(5);
        settle();
    }
}

#define ADVANCE_UNTIL(condition)                                               \
    do {                                                                       \
        for (int tries = 0; tries < 1000 && !(condition); tries++) advance(5); \
        CHECK(condition);                                                      \
    } while (0)

/* ---- clients ---- */

static inline const answer *ask(int i, const dkv_request *request) {
    CHECK(n_asked + 1 < ANSWERS_MAX);
    uint64_t handle = ++n_asked;
    step(i, (dkv_event){.kind = DKV_EVENT_REQUEST, .request = {handle, request}});
    return &answers[handle];
}

static inline const answer *put(int i, const char *key, const char *value, dkv_level level) {
    const answer *a = ask(i, &(dkv_request){.op = DKV_OP_PUT,
                                            .level = level,
                                            .key = dkv_slice_of(key),
                                            .value = dkv_slice_of(value)});
    settle();
    return a;
}

static inline const answer *get(int i, const char *key, dkv_level level) {
    const answer *a =
        ask(i, &(dkv_request){.op = DKV_OP_GET, .level = level, .key = dkv_slice_of(key)});
    settle();
    return a;
}

/* ---- the cluster ---- */

static inline void start(int i) {
    node *n = &nodes[i];
    dkv_store_options options = {.cluster = "test",
                                 .node_id = map->members[i].id,
                                 .new_store_id = (uint64_t)(i + 1 + 16 * (int)n->wipes) << 32,
                                 .scrub_interval_ms = scrub_interval_ms};
    dkv_store_report report;
    dkv_store *store;
    CHECK(dkv_store_open(&options, dkv_sim_disk_run, n->disk, &store, &report) == DKV_OK);
    dkv_node_options node_options = {
        .map = map, .id = map->members[i].id, .store = store, .seed = check_seed};
    node_options.hints_max = hints_max;
    CHECK(dkv_node_new(&node_options, &n->node) == DKV_OK);
}

/* All connections of node `i` break, and both ends notice. */
static inline void break_links(int i) {
    for (link *l = links; l < links + n_links; l++) {
        if (!l->open || (l->opener != i && l->acceptor != i)) continue;
        l->open = false;
        push((item){.link = l, .to_opener = true, .event = ITEM_CLOSED});
        push((item){.link = l, .event = ITEM_CLOSED});
    }
    settle();
}

/* The process dies. */
static inline void kill(int i) {
    dkv_node_del(nodes[i].node);
    nodes[i].node = NULL;
    nodes[i].n_jobs = 0;
    dkv_sim_disk_kill(nodes[i].disk);
    break_links(i);
}

/* Every node reads a key of every other, so that all links are open. */
static inline void meet(void) {
    for (int i = 0; i < n_nodes * 20; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i / n_nodes);
        if (nodes[i % n_nodes].node) get(i % n_nodes, key, DKV_LEVEL_ALL);
    }
    memset(delivered, 0, sizeof delivered);
    memset(answers, 0, sizeof answers);
    n_asked = 0;
}

/* The process has died and its disk is replaced by an empty one. */
static inline void wipe(int i) {
    dkv_sim_disk_wipe(nodes[i].disk);
    nodes[i].wipes++;
}

/* Nodes n1 .. n`count` with N = `replication`; those in `absent` (bit i: node i) are not there. */
static inline void setup_without(int count, uint8_t replication, unsigned absent) {
    n_nodes = count;
    now_ns = dkv_ns_of_ms(1000);
    n_links = n_queued = n_parked = 0;
    last_error[0] = 0;
    n_asked = 0;
    hints_max = 0;
    memset(nodes, 0, sizeof nodes);
    memset(parks, 0, sizeof parks);
    memset(delivered, 0, sizeof delivered);
    memset(answers, 0, sizeof answers);
    CHECK(dkv_cluster_map_new("test", replication, &map) == DKV_OK);
    for (int i = 0; i < count; i++) {
        char id[] = {'n', (char)('1' + i), 0};
        CHECK(dkv_cluster_map_add(map, &(dkv_member){.id = id}) == DKV_OK);
    }
    CHECK(dkv_ring_new(map, &ring) == DKV_OK);
    for (int i = 0; i < count; i++) {
        nodes[i].index = i;
        nodes[i].effects = (dkv_effects){&nodes[i], fx_connect, fx_close, fx_send,
                                         fx_reply,  fx_disk,    fx_log,   fx_fatal};
        CHECK(dkv_sim_disk_new(check_seed, &nodes[i].disk) == DKV_OK);
        if (!(absent >> i & 1)) start(i);
    }
    settle();
}

static inline void setup(int count, uint8_t replication) {
    setup_without(count, replication, 0);
    meet();
}

static inline void lose_parked(void) {
    for (int i = 0; i < n_parked; i++) dkv_buf_free(&parked[i].bytes);
    n_parked = 0;
}

static inline void teardown(void) {
    lose_parked();
    for (int i = 0; i < n_queued; i++) dkv_buf_free(&queue[i].bytes);
    for (int i = 0; i < n_nodes; i++) {
        dkv_node_del(nodes[i].node);
        dkv_sim_disk_del(nodes[i].disk);
    }
    dkv_ring_del(ring);
    dkv_cluster_map_del(map);
}

/* The node at place `i` of the preference list of `key`; the owner is at place 0. */
static inline int place(const char *key, int i) {
    dkv_key_hash hash = dkv_hash_key(dkv_slice_of(key));
    return dkv_ring_replicas(ring, hash.token)[i];
}

/* The key of most tests, and its replicas as the two functions below have found them. */
#define KEY "user:42"

static int owner, second, third;

static inline void find_replicas(void) {
    owner = place(KEY, 0);
    second = place(KEY, 1);
    third = place(KEY, 2);
}

static inline void setup_replicas(void) {
    setup(3, 3);
    advance(5);
    find_replicas();
}

static inline unsigned bit(int i) {
    return 1u << i;
}

/* ---- messages by hand ---- */

/* From now on messages of this kind do not arrive, or do so again. */
static inline void park(int from, int to, dkv_message_kind kind, bool on) {
    parks[from][to][kind] = on;
}

static inline void park_all_to(int to, dkv_message_kind kind, bool on) {
    for (int i = 0; i < n_nodes; i++) park(i, to, kind, on);
}

/* What is parked goes on its way. */
static inline void release_parked(void) {
    for (int i = 0; i < n_parked; i++) push(parked[i]);
    n_parked = 0;
    settle();
}

static inline void keep_message(void *user, const dkv_message *message) {
    *(dkv_message *)user = *message;
}

/* Takes the first message of this kind out of those that are parked: *out is what stands in it,
 * without keys and other bytes. False if there is none. */
static inline bool take_parked(dkv_message_kind kind, dkv_message *out) {
    int at = 0;
    while (at < n_parked && parked[at].kind != kind) at++;
    if (at == n_parked) return false;
    item it = parked[at];
    n_parked--;
    memmove(&parked[at], &parked[at + 1], (size_t)(n_parked - at) * sizeof *parked);
    CHECK(dkv_wire_each_message(dkv_buf_slice(&it.bytes), keep_message, out) == DKV_OK);
    dkv_buf_free(&it.bytes);
    return true;
}

static inline void say(int opener, int acceptor, bool to_opener, const dkv_message *message) {
    link *l = links + n_links - 1;
    while (l >= links && !(l->open && l->opener == opener && l->acceptor == acceptor)) l--;
    CHECK(l >= links);
    push(item_of(l, to_opener, message));
    settle();
}

/* Sends a message in the name of node `from`, on the link that it has opened ... */
static inline void say_request(int from, int to, const dkv_message *message) {
    say(from, to, false, message);
}

/* ... or on the one that `to` has opened. */
static inline void say_reply(int from, int to, const dkv_message *message) {
    say(to, from, true, message);
}

/* Puts a record into one store behind the replicas' backs; a NULL value is a tombstone. */
static inline void plant(int i, const char *key, const char *value, dkv_hlc hlc) {
    dkv_record record = {.key = dkv_slice_of(key),
                         .value = dkv_slice_of(value ? value : ""),
                         .version = {hlc, 7},
                         .kind = value ? DKV_KIND_VALUE : DKV_KIND_TOMBSTONE};
    CHECK(dkv_store_apply(dkv_node_store(nodes[i].node), &record, UINT64_MAX >> 2) == DKV_OK);
    settle();
}

static inline bool holds(int i, const char *key) {
    dkv_store_entry entry;
    return dkv_store_peek(dkv_node_store(nodes[i].node), dkv_hash_key(dkv_slice_of(key)), &entry) ==
           DKV_OK;
}

#endif
