/* A node in a world that the bytes make up: clients that ask, peers that say anything the wire
 * format allows, disks that are slow, full or failing, clocks that jump. Whatever happens,
 *
 * 1. every request is answered, once, at the latest by the tick at its deadline, and the node asks
 *    to be woken by then;
 * 2. a write's outcome and its error agree;
 * 3. what the node sends can be decoded, and never goes out on a link that is not open yet;
 * 4. what it has confirmed of its own store is there after a power cut;
 * 5. the number of disk jobs under way is bounded, and in the end nothing is left. */
#include "base/err.h"
#include "fuzz.h"
#include "node/node.h"
#include "replica/replica.h"
#include "sim/disk.h"
#include "wire/wire.h"

enum { STEPS_MAX = 200, REQUESTS_MAX = 256, LINKS_MAX = 128, JOBS_MAX = 96, OWED_MAX = 64 };
enum { KEYS = 6, SERVED_MAX = 256 };

typedef struct asked {
    dkv_op op;
    unsigned key;
    int64_t deadline_ns;
    bool answered;
} asked;

typedef struct link {
    dkv_link number;
    uint16_t peer; /* of an accepted one: whom it says it is */
    enum { CONNECTING, OPEN, CLOSED } state;
} link;

/* A request that the node has sent and that was not answered. */
typedef struct owed {
    unsigned link;
    dkv_message_kind kind;
    uint64_t id;
    uint32_t n_sums; /* of a SUMS */
} owed;

/* A record that the node was sent. */
typedef struct served {
    unsigned link;
    uint64_t id;
    unsigned key;
    dkv_version version;
} served;

static dkv_cluster_map *map;
static dkv_node *node;
static dkv_sim_disk *disk;
static int64_t now_ns;
static uint64_t wall_ms;
static bool failed; /* the node has stopped itself */

static asked requests[REQUESTS_MAX];
static unsigned n_requests;
static link links[LINKS_MAX];
static unsigned n_links;
static owed owes[OWED_MAX];
static unsigned n_owed;
static served serves[SERVED_MAX];
static unsigned n_served;
static dkv_disk_job *jobs[JOBS_MAX];
static unsigned n_jobs;
static dkv_version confirmed[KEYS]; /* the newest that the own store has confirmed */

/* ---- keys ---- */

static const char *const keys[KEYS] = {"a", "user:42", "k3", "k4", "some longer key", "z"};

static unsigned key_index(dkv_slice key) {
    unsigned i = 0;
    while (i < KEYS && !dkv_slice_eq(dkv_slice_of(keys[i]), key)) i++;
    return i;
}

static void confirm(unsigned key, dkv_version version) {
    if (key < KEYS && dkv_version_cmp(version, confirmed[key]) > 0) confirmed[key] = version;
}

/* ---- effects ---- */

static link *find_link(dkv_link number) {
    for (unsigned i = n_links; i-- > 0;) {
        if (links[i].number == number) return &links[i];
    }
    return NULL;
}

static void fx_connect(void *user, uint16_t peer, dkv_link number) {
    (void)user;
    FUZZ_TRACE("    connect to n%u\n", peer + 1u);
    FUZZ_CHECK(number & 1 && !find_link(number) && peer < map->n_members);
    if (n_links < LINKS_MAX) links[n_links++] = (link){number, peer, CONNECTING};
}

static void fx_close(void *user, dkv_link number) {
    (void)user;
    link *l = find_link(number);
    if (l) l->state = CLOSED;
}

static void on_sent(void *user, const dkv_message *message) {
    (void)message;
    ++*(unsigned *)user;
}

static void check_encodes(const dkv_message *message) {
    dkv_buf bytes = {0};
    unsigned items = 0;
    FUZZ_CHECK(dkv_wire_put_message(&bytes, message) == DKV_OK);
    FUZZ_CHECK(dkv_wire_each_message(dkv_buf_slice(&bytes), on_sent, &items) == DKV_OK);
    FUZZ_CHECK(items == 1);
    dkv_buf_free(&bytes);
}

static void on_confirmed(unsigned link, uint64_t id) {
    for (unsigned i = 0; i < n_served; i++) {
        if (serves[i].link != link || serves[i].id != id) continue;
        confirm(serves[i].key, serves[i].version);
        serves[i].link = LINKS_MAX;
        return;
    }
}

static void fx_send(void *user, dkv_link number, const dkv_message *message) {
    (void)user;
    FUZZ_TRACE("    send on %" PRIu64 ": kind %d, id %" PRIu64 "\n", number, (int)message->kind,
               message->id);
    check_encodes(message);
    const link *l = find_link(number);
    if (!l || l->state == CLOSED) return; /* an answer to a peer that is gone */
    FUZZ_CHECK(l->state == OPEN);
    unsigned index = (unsigned)(l - links);
    if (message->kind == DKV_MSG_APPLY_REPLY && message->apply_reply.err == 0) {
        on_confirmed(index, message->id);
    }
    if (!(number & 1)) return;
    if (n_owed == OWED_MAX) memmove(owes, owes + 1, --n_owed * sizeof *owes);
    owes[n_owed++] = (owed){index, message->kind, message->id, 0};
    if (message->kind == DKV_MSG_SUMS)
        owes[n_owed - 1].n_sums = message->sums.n * message->sums.parts;
}

static bool holds_here(const dkv_node_names *names) {
    for (unsigned i = 0; i < names->n; i++) {
        if (dkv_slice_eq(names->ids[i], dkv_slice_of("n1"))) return true;
    }
    return false;
}

static bool is_replica(unsigned key) {
    const dkv_ring *ring = dkv_node_ring(node);
    uint64_t token = dkv_hash_key(dkv_slice_of(keys[key])).token;
    const uint16_t *list = dkv_ring_replicas(ring, token);
    for (unsigned i = 0; i < dkv_ring_replication(ring); i++) {
        if (list[i] == 0) return true;
    }
    return false;
}

static void fx_reply(void *user, uint64_t handle, const dkv_reply *reply) {
    (void)user;
    FUZZ_TRACE("    reply to %" PRIu64 ": %s, outcome %d\n", handle, dkv_err_name(reply->err),
               (int)reply->outcome);
    FUZZ_CHECK(handle < n_requests);
    asked *a = &requests[handle];
    FUZZ_CHECK(!a->answered);
    a->answered = true;
    FUZZ_CHECK(dkv_err_name(reply->err)[0] != '?');
    FUZZ_CHECK(reply->detail.len < DKV_DETAIL_MAX && reply->value.len <= DKV_VALUE_MAX);
    if (a->op == DKV_OP_GET) {
        FUZZ_CHECK(reply->outcome == DKV_OUTCOME_NONE);
        return;
    }
    FUZZ_CHECK(reply->outcome != DKV_OUTCOME_NONE);
    FUZZ_CHECK((reply->err == DKV_OK) == (reply->outcome == DKV_OUTCOME_APPLIED));
    if (a->key < KEYS && is_replica(a->key) && holds_here(&reply->holding)) {
        FUZZ_CHECK(reply->outcome != DKV_OUTCOME_NOT_APPLIED);
        confirm(a->key, reply->version);
    }
}

static void fx_disk(void *user, dkv_disk_job *job) {
    (void)user;
    FUZZ_CHECK(n_jobs < JOBS_MAX);
    dkv_sim_disk_submit(disk, job);
    jobs[n_jobs++] = job;
}

static void fx_log(void *user, const dkv_notice *notice) {
    (void)user;
    FUZZ_TRACE("    log: %s\n", notice->text);
    FUZZ_CHECK(notice->text[0]);
}

static void fx_fatal(void *user, int err, const char *text) {
    (void)user;
    FUZZ_TRACE("    fatal: %s\n", text);
    FUZZ_CHECK(err && text[0] && !failed);
    failed = true;
}

static const dkv_effects effects = {
    .connect = fx_connect,
    .close = fx_close,
    .send = fx_send,
    .reply = fx_reply,
    .disk = fx_disk,
    .log = fx_log,
    .fatal = fx_fatal,
};

/* ---- events ---- */

static void step(dkv_event event) {
    event.now_ns = now_ns;
    event.wall_ms = wall_ms;
    dkv_node_step(node, &event, &effects);
}

/* As the host does it: again, as long as the node wants to be woken at this very moment. */
static void tick(void) {
    int64_t next_ns = now_ns;
    for (int times = 0; next_ns <= now_ns && !failed; times++) {
        FUZZ_CHECK(times < 8);
        step((dkv_event){.kind = DKV_EVENT_TICK});
        next_ns = dkv_node_next_timer(node);
    }
    if (failed) return;
    for (unsigned i = 0; i < n_requests; i++) {
        if (requests[i].answered) continue;
        FUZZ_CHECK(requests[i].deadline_ns > now_ns);
        FUZZ_CHECK(next_ns <= requests[i].deadline_ns);
    }
}

static void advance(uint64_t ms) {
    FUZZ_TRACE("time: %" PRIu64 " ms pass\n", ms);
    now_ns += dkv_ns_of_ms(ms);
    wall_ms += ms;
    tick();
}

static void ask(const dkv_request *request) {
    if (n_requests == REQUESTS_MAX) return;
    uint64_t handle = n_requests++;
    uint32_t timeout_ms = request->timeout_ms ? request->timeout_ms : DKV_TIMEOUT_DEFAULT_MS;
    FUZZ_TRACE("request %" PRIu64 ": op %d, level %d, key of %zu bytes, %u ms\n", handle,
               (int)request->op, (int)request->level, request->key.len, timeout_ms);
    requests[handle] =
        (asked){request->op, key_index(request->key), now_ns + dkv_ns_of_ms(timeout_ms), false};
    step((dkv_event){.kind = DKV_EVENT_REQUEST, .request = {handle, request}});
    if (dkv_request_check(request, NULL)) FUZZ_CHECK(failed || requests[handle].answered);
}

static void finish_job(unsigned at) {
    dkv_disk_job *job = jobs[at];
    jobs[at] = jobs[--n_jobs];
    dkv_sim_disk_complete(disk, job);
    FUZZ_TRACE("disk: op %d of file %d.%u done, %s\n", (int)job->op, (int)job->file.kind,
               job->file.number, dkv_err_name(job->err));
    step((dkv_event){.kind = DKV_EVENT_DISK_DONE, .job = job});
}

static void open_link(link *l) {
    l->state = OPEN;
    FUZZ_TRACE("link %" PRIu64 " to n%u: open\n", l->number, l->peer + 1u);
    step((dkv_event){.kind = DKV_EVENT_LINK_OPENED, .link = l->number});
}

static void close_link(link *l) {
    l->state = CLOSED;
    FUZZ_TRACE("link %" PRIu64 " with n%u: closed\n", l->number, l->peer + 1u);
    step((dkv_event){.kind = DKV_EVENT_LINK_CLOSED, .link = l->number});
}

/* NULL: no place for one more. */
static link *accept_link(uint16_t peer) {
    if (n_links == LINKS_MAX) return NULL;
    link *l = &links[n_links++];
    *l = (link){2 * (dkv_link)n_links, peer, OPEN};
    FUZZ_TRACE("link %" PRIu64 " from n%u\n", l->number, peer + 1u);
    step((dkv_event){.kind = DKV_EVENT_LINK_ACCEPTED, .link = l->number});
    return l;
}

/* ---- messages to the node: always through the codec ---- */

static void deliver(void *user, const dkv_message *message) {
    const link *l = user;
    if (l->state != OPEN) return;
    unsigned index = (unsigned)(l - links);
    FUZZ_TRACE("message on %" PRIu64 ": kind %d, id %" PRIu64 "\n", l->number, (int)message->kind,
               message->id);
    if (message->kind == DKV_MSG_APPLY && n_served < SERVED_MAX) {
        bool repeated = false; /* an answer to one of two that look the same means neither */
        for (unsigned i = 0; i < n_served; i++) {
            repeated |= serves[i].link == index && serves[i].id == message->id;
        }
        if (!repeated) {
            serves[n_served++] =
                (served){index, message->id, key_index(message->apply.key), message->apply.version};
        }
    }
    step((dkv_event){.kind = DKV_EVENT_MESSAGE, .message = {l->number, message}});
}

static void say(link *l, const dkv_message *message) {
    dkv_buf bytes = {0};
    FUZZ_CHECK(dkv_wire_put_message(&bytes, message) == DKV_OK);
    int err = dkv_wire_each_message(dkv_buf_slice(&bytes), deliver, l);
    if (err && l->state == OPEN) close_link(l); /* as the host does */
    dkv_buf_free(&bytes);
}

static dkv_hello hello_of(uint16_t peer, dkv_slice *in) {
    unsigned shape = in ? fuzz_byte(in) : 0;
    dkv_hello hello = {
        .cluster = dkv_slice_of(shape == 1 ? "other" : map->cluster),
        .node_id = dkv_slice_of(map->members[shape == 2 ? 0 : peer].id),
        .epoch = shape == 3 ? 2 : map->epoch,
        .map_digest = dkv_cluster_map_digest(map) + (shape == 4),
        .replication = map->replication,
        .n_members = map->n_members,
        .store_id = 1000u + peer + (shape & 64),
        .remembers = shape & 32 ? fuzz_byte(in) : dkv_store_id(dkv_node_store(node)),
        .in_sync = !(shape & 16),
        .wall_ms = wall_ms + (shape & 8 ? fuzz_number(in, 8) : 0),
        .state = shape == 6   ? DKV_ERR_BUSY
                 : shape == 7 ? DKV_ERR_NO_SPACE
                              : 0,
        .err = shape == 5 ? DKV_ERR_EPOCH : 0,
    };
    return hello;
}

static void greet(uint16_t peer, dkv_slice *in) {
    link *l = accept_link(peer);
    if (l) say(l, &(dkv_message){.kind = DKV_MSG_HELLO, .hello = hello_of(peer, in)});
}

static const int errors[] = {DKV_OK,       DKV_OK,        DKV_OK,           DKV_ERR_NOT_FOUND,
                             DKV_ERR_BUSY, DKV_ERR_EPOCH, DKV_ERR_NO_SPACE, DKV_ERR_DATA_LOSS};

static int error_of(dkv_slice *in) {
    return in ? errors[fuzz_byte(in) % 8u] : DKV_OK;
}

static dkv_version version_of(dkv_slice *in) {
    unsigned shape = in ? fuzz_byte(in) : 1;
    dkv_hlc now = dkv_hlc_of_ms(wall_ms);
    if (shape < 128) return (dkv_version){now + shape, 1 + shape % 4};
    if (shape < 250) return (dkv_version){1 + shape, 1 + shape % 4};
    return (dkv_version){fuzz_number(in, 8), 1 + fuzz_number(in, 1)};
}

static dkv_record record_of(dkv_slice *in, bool with_key) {
    static const uint8_t value[3000];
    unsigned shape = in ? fuzz_byte(in) : 0;
    dkv_record record = {.version = version_of(in)};
    if (with_key) record.key = dkv_slice_of(keys[shape % KEYS]);
    if (shape & 128) record.kind = DKV_KIND_TOMBSTONE;
    if (!(shape & 128)) record.value = (dkv_slice){value, shape & 64 ? sizeof value : shape & 7};
    return record;
}

static dkv_reply reply_of(dkv_slice *in) {
    dkv_reply reply = {.err = error_of(in), .version = version_of(in)};
    reply.outcome = reply.err ? DKV_OUTCOME_UNKNOWN : DKV_OUTCOME_APPLIED;
    if (in && fuzz_byte(in) < 64) reply.outcome = (dkv_outcome)fuzz_below(in, 4);
    reply.holding = (dkv_node_names){1, {dkv_slice_of("n2")}};
    return reply;
}

static uint64_t numbers[DKV_SUMS_RANGES_MAX * DKV_SUMS_PARTS_MAX];

/* A healthy peer has nothing. */
static dkv_sums sums_of(dkv_slice *in, uint32_t n) {
    memset(numbers, 0, sizeof numbers);
    for (unsigned some = in ? fuzz_below(in, 8) : 0; some > 0 && n > 0; some--) {
        numbers[fuzz_number(in, 2) % n] = fuzz_byte(in);
    }
    if (in && fuzz_byte(in) == 0) n = fuzz_below(in, DKV_SUMS_RANGES_MAX);
    return (dkv_sums){n, numbers, numbers};
}

static dkv_list list_of(dkv_slice *in) {
    static uint64_t tokens[8], hlcs[8];
    static uint32_t sizes[8];
    dkv_list list = {0, false, tokens, tokens, hlcs, hlcs, sizes};
    for (list.n = 0; in && list.n < fuzz_byte(in) % 8u; list.n++) {
        tokens[list.n] = (list.n ? tokens[list.n - 1] : 0) + 1 + fuzz_number(in, 7);
        hlcs[list.n] = 1 + fuzz_byte(in);
        sizes[list.n] = (uint32_t)fuzz_number(in, 3);
        list.more = fuzz_byte(in) & 1;
    }
    return list;
}

/* The answer to what the node has asked; without `in` as a healthy peer gives it. */
static void answer(unsigned at, dkv_slice *in) {
    owed o = owes[at];
    memmove(owes + at, owes + at + 1, (--n_owed - at) * sizeof *owes);
    link *l = &links[o.link];
    dkv_message message = {.id = o.id};
    if (l->state != OPEN) return;
    switch (o.kind) {
    case DKV_MSG_HELLO:
        message.kind = DKV_MSG_HELLO_REPLY;
        message.hello = hello_of(l->peer, in);
        break;
    case DKV_MSG_PING:
        message.kind = DKV_MSG_PONG;
        message.pong.wall_ms = wall_ms + (in ? fuzz_byte(in) * 10u : 0);
        message.pong.state = error_of(in);
        break;
    case DKV_MSG_APPLY:
        message.kind = DKV_MSG_APPLY_REPLY;
        message.apply_reply.err = error_of(in);
        message.apply_reply.state = error_of(in);
        break;
    case DKV_MSG_FETCH:
        message.kind = DKV_MSG_FETCH_REPLY;
        message.fetch_reply.err = in ? error_of(in) : DKV_ERR_NOT_FOUND;
        message.fetch_reply.in_sync = !in || fuzz_byte(in) & 1;
        if (!message.fetch_reply.err) message.fetch_reply.record = record_of(in, false);
        break;
    case DKV_MSG_FORWARD:
        message.kind = DKV_MSG_FORWARD_REPLY;
        message.forward_reply = reply_of(in);
        break;
    case DKV_MSG_SUMS:
        message.kind = DKV_MSG_SUMS_REPLY;
        message.sums_reply = sums_of(in, o.n_sums);
        break;
    case DKV_MSG_LIST:
        message.kind = DKV_MSG_LIST_REPLY;
        message.list_reply = list_of(in);
        break;
    default: return;
    }
    say(l, &message);
}

/* ---- what the bytes choose ---- */

static dkv_request any_request(dkv_slice *in) {
    static const uint8_t bytes[DKV_VALUE_MAX + 1];
    static const uint32_t timeouts[] = {0, 1, 20, 300, 1000, 5000, 60000, 60001};
    unsigned shape = fuzz_byte(in), value = fuzz_byte(in);
    dkv_request request = {
        .op = (dkv_op)(DKV_OP_GET + shape % 3),
        .level = (dkv_level)((shape >> 2) % 4),
        .timeout_ms = timeouts[(shape >> 4) % 8],
        .failover = value & 1,
        .key = dkv_slice_of(keys[value % KEYS]),
    };
    if (value == 255) request.key = (dkv_slice){bytes, fuzz_number(in, 2)};
    if (request.op == DKV_OP_PUT) {
        request.value = (dkv_slice){bytes, value == 254 ? sizeof bytes : fuzz_number(in, 1) * 20};
    }
    if (request.op != DKV_OP_GET && value & 128) request.last_seen = version_of(in);
    return request;
}

static const uint64_t circle[] = {0, UINT64_MAX};

static void any_peer_request(link *l, dkv_slice *in) {
    dkv_message message = {.id = fuzz_byte(in)};
    switch (fuzz_below(in, 6)) {
    case 0:
        message.kind = DKV_MSG_APPLY;
        message.apply = record_of(in, true);
        break;
    case 1:
        message.kind = DKV_MSG_FETCH;
        if (fuzz_byte(in) & 1) message.fetch.key = dkv_slice_of(keys[fuzz_below(in, KEYS)]);
        break;
    case 3:
        message.kind = DKV_MSG_SUMS;
        message.sums = (dkv_sums_request){1, 1u + fuzz_below(in, DKV_SUMS_PARTS_MAX), circle};
        break;
    case 4:
        message.kind = DKV_MSG_LIST;
        message.list.last = UINT64_MAX;
        break;
    case 2: message.kind = DKV_MSG_PING; break;
    default: message.kind = DKV_MSG_FORWARD; message.forward = any_request(in);
    }
    say(l, &message);
}

static void any_bytes(link *l, dkv_slice *in) {
    dkv_slice bytes = fuzz_slice(in, fuzz_byte(in));
    int err = dkv_wire_each_message(bytes, deliver, l);
    if (err && l->state == OPEN) close_link(l);
}

static void any_disk_fault(dkv_slice *in) {
    unsigned choice = fuzz_byte(in);
    FUZZ_TRACE("disk: fault %u\n", choice);
    if (choice < 100) {
        dkv_sim_disk_limit(disk, dkv_sim_disk_bytes(disk) + choice * 10u);
    } else if (choice < 160) {
        dkv_sim_disk_limit(disk, 0);
    } else if (choice < 250) {
        dkv_sim_disk_fail_reads(disk, 1 + choice % 2);
    } else {
        dkv_sim_disk_fail_syncs(disk, 1);
    }
}

/* Links open, peers answer, jobs end: a few rounds of all going well. */
static void all_goes_well(void) {
    for (int round = 0; round < 4; round++) {
        for (unsigned i = 0; i < n_links; i++) {
            if (links[i].state == CONNECTING) open_link(&links[i]);
        }
        while (n_owed) answer(0, NULL);
        while (n_jobs) finish_job(0);
        tick();
    }
}

static void any_step(dkv_slice *in) {
    static const uint32_t times_ms[] = {0, 1, 5, 20, 40, 100, 250, 500, 1000, 1500, 5000, 61000};
    unsigned choice = fuzz_byte(in);
    link *l = n_links ? &links[fuzz_below(in, n_links)] : NULL;
    dkv_request request;
    switch (choice % 16) {
    case 0:
    case 1:
    case 2:
        request = any_request(in);
        ask(&request);
        break;
    case 3: greet((uint16_t)fuzz_below(in, map->n_members), in); break;
    case 4:
        if (l && l->state == CONNECTING) open_link(l);
        break;
    case 5:
        if (l && l->state != CLOSED) close_link(l);
        break;
    case 6:
    case 7:
        if (l && l->state == OPEN && !(l->number & 1)) any_peer_request(l, in);
        break;
    case 8:
        if (l && l->state == OPEN) any_bytes(l, in);
        break;
    case 9:
    case 10:
        if (n_owed) answer(fuzz_below(in, n_owed), in);
        break;
    case 11:
    case 12:
        if (n_jobs) finish_job(fuzz_below(in, n_jobs));
        break;
    case 13: advance(times_ms[fuzz_below(in, 12)]); break;
    case 14: all_goes_well(); break;
    default:
        if (choice < 200) {
            any_disk_fault(in);
        } else {
            wall_ms = choice < 210 ? fuzz_number(in, 8) : wall_ms + fuzz_byte(in) * 10u - 1000;
        }
    }
    if (choice & 16) tick();
}

/* ---- the world ---- */

static int open_store(dkv_store **store) {
    dkv_store_report report;
    return dkv_store_open(&(dkv_store_options){.cluster = "c",
                                               .node_id = "n1",
                                               .new_store_id = 77,
                                               .segment_bytes = 65536,
                                               .unsynced_max_bytes = 20000},
                          dkv_sim_disk_run, disk, store, &report);
}

static void make_node(unsigned members, unsigned replication) {
    static uint32_t tokens[] = {0, 1, 2, 3, 4, 5, 6, 7}; /* few, because that is fast */
    dkv_store *store;
    FUZZ_CHECK(dkv_cluster_map_new("c", (uint8_t)replication, &map) == DKV_OK);
    map->epoch = 1;
    for (unsigned i = 0; i < members; i++) {
        char id[] = {'n', (char)('1' + i), 0};
        dkv_member member = {.id = id, .token_indices = tokens, .n_token_indices = 8};
        FUZZ_CHECK(dkv_cluster_map_add(map, &member) == DKV_OK);
    }
    FUZZ_CHECK(dkv_sim_disk_new(1, &disk) == DKV_OK);
    FUZZ_CHECK(open_store(&store) == DKV_OK);
    dkv_node_options options = {.map = map, .id = "n1", .store = store, .seed = 1};
    FUZZ_CHECK(dkv_node_new(&options, &node) == DKV_OK);
    tick();
}

/* The disk has room again, all jobs end, peers are gone, deadlines pass. */
static void end_everything(void) {
    FUZZ_TRACE("the end\n");
    dkv_sim_disk_limit(disk, 0);
    dkv_sim_disk_fail_reads(disk, 0);
    for (unsigned i = 0; i < n_links; i++) {
        if (links[i].state != CLOSED) close_link(&links[i]);
    }
    for (int round = 0; round < 60 && !failed; round++) {
        for (unsigned i = 0; n_jobs && i < 1000; i++) {
            finish_job(0);
            tick();
        }
        advance(2000);
    }
    for (unsigned i = 0; i < n_requests; i++) FUZZ_CHECK(failed || requests[i].answered);
    FUZZ_CHECK(failed || dkv_node_idle(node));
}

static void check_what_was_confirmed(void) {
    dkv_store *store;
    dkv_sim_disk_power_cut(disk);
    dkv_sim_disk_fail_syncs(disk, 0);
    FUZZ_CHECK(open_store(&store) == DKV_OK);
    for (unsigned key = 0; key < KEYS; key++) {
        dkv_store_entry entry;
        if (dkv_version_is_none(confirmed[key])) continue;
        dkv_key_hash hash = dkv_hash_key(dkv_slice_of(keys[key]));
        FUZZ_CHECK(dkv_store_peek(store, hash, &entry) == DKV_OK);
        FUZZ_CHECK(dkv_version_cmp(entry.version, confirmed[key]) >= 0);
    }
    dkv_store_del(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dkv_slice in = {data, size};
    unsigned shape = fuzz_byte(&in);
    unsigned members = 1 + shape % 5;
    unsigned replication = 1 + (shape >> 3) % members;
    n_requests = n_links = n_owed = n_served = n_jobs = 0;
    memset(confirmed, 0, sizeof confirmed);
    failed = false;
    now_ns = dkv_ns_of_ms(1000);
    wall_ms = UINT64_C(1700000000000);
    make_node(members, replication);
    if (shape & 128) { /* begin in a cluster that runs */
        for (uint16_t peer = 1; peer < members; peer++) greet(peer, NULL);
        all_goes_well();
    }
    for (unsigned i = 0; i < STEPS_MAX && in.len > 0 && !failed; i++) any_step(&in);
    end_everything();
    dkv_node_del(node);
    check_what_was_confirmed();
    dkv_sim_disk_del(disk);
    dkv_cluster_map_del(map);
    return 0;
}

static void seeds(void) {
    fuzz_random_seeds(60);
}

FUZZ_TARGET
