/* Liveness, greetings and trust (csrc/member), over a hand-driven network without delays. */
#include "base/err.h"
#include "check.h"
#include "member/peers.h"

enum { NODES_MAX = 5, QUEUE_MAX = 256 };

/* One message or link event on its way. */
typedef struct item {
    int to;
    enum { ITEM_OPENED, ITEM_ACCEPTED, ITEM_CLOSED, ITEM_MESSAGE } kind;
    dkv_link link; /* as the receiver names it */
    dkv_message message;
} item;

typedef struct node {
    int index;
    dkv_cluster_map *map;
    dkv_ring *ring;
    dkv_shares shares;
    dkv_trust trust;
    dkv_peers *peers;
    unsigned starts;
    bool silent;     /* takes no events: stopped */
    bool slow_disk;  /* facts do not become durable by themselves */
    bool refuses;    /* connections to it are refused */
    int64_t skew_ms; /* of its wall clock */
    unsigned pings;  /* it received */
    unsigned ups, downs;
    unsigned links;  /* it asked for */
    unsigned closed; /* that it closed, of either kind */
    int state;       /* what it would say to a write */
} node;

static node nodes[NODES_MAX];
static int n_nodes;
static item queue[QUEUE_MAX];
static int n_queued;
static int64_t now_ns;
static dkv_effects effects[NODES_MAX];

static dkv_moment moment(int i) {
    return (dkv_moment){now_ns, (uint64_t)(1000000000 + now_ns / 1000000 + nodes[i].skew_ms),
                        &effects[i]};
}

static void push(item it) {
    CHECK(n_queued < QUEUE_MAX);
    queue[n_queued++] = it;
}

/* The receiver's name of a link: the opener's number is odd and carries the receiver's index; the
 * acceptor's is that number made even, with the opener's index and its count of starts on top. */
enum { OPENER_SHIFT = 56, STARTS_SHIFT = 48 };

static dkv_link accepted_name(const node *opener, dkv_link link) {
    return (link - 1) | (uint64_t)(opener->index + 1) << OPENER_SHIFT |
           (uint64_t)opener->starts << STARTS_SHIFT;
}

static int peer_in(dkv_link link) {
    return (int)(link >> 1 & 1023);
}

static void fx_connect(void *user, uint16_t peer, dkv_link link) {
    node *from = user;
    from->links++;
    if (nodes[peer].refuses) {
        push((item){.to = from->index, .kind = ITEM_CLOSED, .link = link});
        return;
    }
    push((item){.to = from->index, .kind = ITEM_OPENED, .link = link});
    push((item){.to = peer, .kind = ITEM_ACCEPTED, .link = accepted_name(from, link)});
}

static void fx_close(void *user, dkv_link link) {
    node *from = user;
    (void)link;
    from->closed++;
}

static void fx_send(void *user, dkv_link link, const dkv_message *message) {
    node *from = user;
    item it = {.kind = ITEM_MESSAGE, .message = *message};
    if (link & 1) {
        it.to = peer_in(link);
        it.link = accepted_name(from, link);
    } else {
        it.to = (int)(link >> OPENER_SHIFT) - 1;
        it.link = (link & ((UINT64_C(1) << STARTS_SHIFT) - 1)) | 1;
    }
    push(it);
}

static void fx_log(void *user, const dkv_notice *notice) {
    (void)user;
    CHECK(strlen(notice->text) > 0 && strlen(notice->event) > 0);
}

static void changed(void *user, const dkv_moment *at, uint16_t peer) {
    node *n = user;
    (void)at;
    if (dkv_peers_reach(n->peers, peer) == DKV_REACH_UP) {
        n->ups++;
    } else {
        n->downs++;
    }
}

static int own_state(void *user) {
    const node *n = user;
    return n->state;
}

static uint16_t first_weight; /* of n1 in the maps that are made from now on; 0: the default */

static dkv_cluster_map *make_map(int n) {
    dkv_cluster_map *map;
    CHECK(dkv_cluster_map_new("test", 1, &map) == DKV_OK);
    for (int i = 0; i < n; i++) {
        char id[] = {'n', (char)('1' + i), 0};
        dkv_member member = {.id = id, .weight = i == 0 ? first_weight : 0};
        CHECK(dkv_cluster_map_add(map, &member) == DKV_OK);
    }
    return map;
}

/* (Re)starts node `i` with a store and what that store remembers. */
static void start(int i, uint64_t store_id, dkv_slice facts) {
    node *n = &nodes[i];
    n->index = i;
    n->starts++;
    n->map = make_map(n_nodes);
    effects[i] = (dkv_effects){
        .user = n, .connect = fx_connect, .close = fx_close, .send = fx_send, .log = fx_log};
    CHECK(dkv_ring_new(n->map, &n->ring) == DKV_OK);
    CHECK(dkv_shares_init(&n->shares, n->ring, (uint16_t)i) == DKV_OK);
    CHECK(dkv_trust_init(&n->trust, n->map, &n->shares, (uint16_t)i, store_id, facts) == DKV_OK);
    dkv_peers_options options = {
        .map = n->map,
        .self = (uint16_t)i,
        .timing = dkv_timing_or_default((dkv_timing){0}),
        .seed = check_seed,
        .trust = &n->trust,
        .changed = changed,
        .state = own_state,
        .user = n,
    };
    CHECK(dkv_peers_new(&options, &n->peers) == DKV_OK);
}

static void halt(int i) {
    dkv_peers_del(nodes[i].peers);
    dkv_trust_free(&nodes[i].trust);
    dkv_shares_free(&nodes[i].shares);
    dkv_ring_del(nodes[i].ring);
    dkv_cluster_map_del(nodes[i].map);
    nodes[i].peers = NULL;
    nodes[i].map = NULL;
}

static void setup(int n) {
    n_nodes = n;
    n_queued = 0;
    now_ns = 1;
    first_weight = 0;
    memset(nodes, 0, sizeof nodes);
    for (int i = 0; i < n; i++) start(i, (uint64_t)(i + 1) << 32, (dkv_slice){0});
}

static void teardown(void) {
    for (int i = 0; i < n_nodes; i++) {
        if (nodes[i].peers) halt(i);
    }
}

static void deliver(const item *it) {
    node *n = &nodes[it->to];
    dkv_moment at = moment(it->to);
    if (!n->peers || n->silent) return;
    switch (it->kind) {
    case ITEM_OPENED: dkv_peers_link_opened(n->peers, &at, it->link); break;
    case ITEM_ACCEPTED: dkv_peers_link_accepted(n->peers, &at, it->link); break;
    case ITEM_CLOSED: dkv_peers_link_closed(n->peers, &at, it->link); break;
    case ITEM_MESSAGE:
        n->pings += it->message.kind == DKV_MSG_PING;
        dkv_peers_message(n->peers, &at, it->link, &it->message);
        break;
    }
}

/* Ticks all nodes and delivers what is on its way until nothing is left. */
static void settle(void) {
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < n_nodes; i++) {
            dkv_moment at = moment(i);
            if (!nodes[i].peers || nodes[i].silent) continue;
            dkv_peers_tick(nodes[i].peers, &at);
            if (!nodes[i].slow_disk) dkv_peers_durable(nodes[i].peers, &at, nodes[i].trust.changes);
        }
        for (int at = 0; at < n_queued; at++) {
            item it = queue[at]; /* the queue may grow meanwhile, but never moves */
            deliver(&it);
        }
        n_queued = 0;
    }
}

static void advance(unsigned ms) {
    for (unsigned passed = 0; passed < ms; passed += 50) {
        now_ns += dkv_ns_of_ms(50);
        settle();
    }
}

static void want(int from, uint16_t to) {
    dkv_moment at = moment(from);
    dkv_peers_want(nodes[from].peers, &at, to);
}

/* Every node has a use for every other. */
static void meet(void) {
    for (int i = 0; i < n_nodes; i++) {
        for (uint16_t j = 0; j < n_nodes; j++) {
            if (i != j && nodes[i].peers) want(i, j);
        }
    }
    settle();
}

/* Node `from` owes itself an answer of node `to`: a request that is never replied to. */
static bool ask(int from, uint16_t to) {
    dkv_moment at = moment(from);
    want(from, to);
    dkv_message message = {.kind = DKV_MSG_FETCH, .id = 7, .fetch.key = dkv_slice_of("k")};
    return dkv_peers_send(nodes[from].peers, &at, to, &message);
}

/* The stores of a new cluster vouch for each other, and all become in sync: over one link for each
 * two, which is closed when it has served. Then nothing is left to do. */
static void new_cluster_is_believed(void) {
    for (int n = 2; n <= NODES_MAX; n++) {
        setup(n);
        settle();
        unsigned links = 0;
        for (int i = 0; i < n; i++) {
            CHECK(dkv_trust_in_sync(&nodes[i].trust) && !dkv_trust_is_new(&nodes[i].trust));
            for (uint16_t j = 0; j < n; j++) {
                CHECK(dkv_peers_reach(nodes[i].peers, j) ==
                      (i == j ? DKV_REACH_UP : DKV_REACH_UNKNOWN));
            }
            links += nodes[i].links;
            CHECK(dkv_peers_next_timer(nodes[i].peers) == INT64_MAX);
        }
        CHECK(links <= (unsigned)(n * (n - 1)));
        teardown();
    }
}

/* While one member has never been seen, nobody is believed: it might remember better. */
static void absent_member_keeps_all_out_of_sync(void) {
    setup(3);
    nodes[2].refuses = true;
    halt(2);
    advance(2000);
    CHECK(!dkv_trust_in_sync(&nodes[0].trust) && !dkv_trust_in_sync(&nodes[1].trust));
    nodes[2].refuses = false;
    start(2, 77, (dkv_slice){0});
    advance(2000);
    for (int i = 0; i < 3; i++) CHECK(dkv_trust_in_sync(&nodes[i].trust));
    teardown();
}

/* A node that comes back with an empty store is recognised, for good. */
static void replaced_store_is_not_believed(void) {
    setup(3);
    settle();
    nodes[1].refuses = true;
    halt(1);
    advance(500);
    nodes[1].refuses = false;
    start(1, 4711, (dkv_slice){0});
    advance(5000);
    meet();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    CHECK(!dkv_trust_in_sync(&nodes[1].trust) && dkv_trust_is_new(&nodes[1].trust));
    CHECK(nodes[0].trust.remembered[1] == UINT64_C(2) << 32);
    teardown();
}

/* A node that comes back with its store is in sync at once, by what it remembered on disk. */
static void returning_store_is_believed(void) {
    setup(3);
    settle();
    dkv_buf facts = {0};
    CHECK(dkv_trust_encode(&nodes[1].trust, &facts) == DKV_OK);
    uint64_t origin = dkv_trust_origin(&nodes[1].trust);
    halt(1);
    start(1, UINT64_C(2) << 32, dkv_buf_slice(&facts));
    CHECK(dkv_trust_in_sync(&nodes[1].trust));
    CHECK(nodes[1].trust.remembered[0] == UINT64_C(1) << 32);
    CHECK(dkv_trust_origin(&nodes[1].trust) != origin);
    dkv_buf_free(&facts);
    teardown();
}

/* A store that lost a record is not believed any more, and stays so over a restart. */
static void damaged_store_is_not_believed(void) {
    setup(3);
    settle();
    dkv_trust_lost_all(&nodes[1].trust);
    CHECK(!dkv_trust_in_sync(&nodes[1].trust));
    dkv_buf facts = {0};
    CHECK(dkv_trust_encode(&nodes[1].trust, &facts) == DKV_OK);
    halt(1);
    start(1, UINT64_C(2) << 32, dkv_buf_slice(&facts));
    advance(5000);
    meet();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    CHECK(!dkv_trust_in_sync(&nodes[1].trust));
    dkv_buf_free(&facts);
    teardown();
}

/* A greeting alone vouches for nothing: its sender need not remember this store tomorrow. */
static void greeting_is_no_word(void) {
    setup(2);
    dkv_hello hello = {.store_id = 99, .remembers = nodes[0].trust.store_id};
    dkv_trust_heard(&nodes[0].trust, 1, &hello);
    CHECK(!dkv_trust_in_sync(&nodes[0].trust) && !dkv_trust_is_known(&nodes[0].trust));
    dkv_trust_told(&nodes[0].trust, 1, hello.remembers);
    CHECK(dkv_trust_in_sync(&nodes[0].trust) && dkv_trust_is_known(&nodes[0].trust));
    teardown();
}

/* A store that was filled under one map is not used under another. */
static void other_map_is_refused(void) {
    setup(3);
    settle();
    dkv_buf facts = {0};
    CHECK(dkv_trust_encode(&nodes[0].trust, &facts) == DKV_OK);
    dkv_trust trust;
    dkv_cluster_map *bigger = make_map(4);
    CHECK(dkv_trust_init(&trust, bigger, &nodes[0].shares, 0, 1, dkv_buf_slice(&facts)) ==
          DKV_ERR_EPOCH);
    dkv_cluster_map_del(bigger);
    dkv_buf_free(&facts);
    teardown();
}

/* Facts cut short or changed in their fixed parts are refused, not half believed. */
static void damaged_facts_are_refused(void) {
    setup(3);
    settle();
    dkv_buf facts = {0};
    CHECK(dkv_trust_encode(&nodes[0].trust, &facts) == DKV_OK);
    for (size_t len = 1; len < facts.len; len++) {
        dkv_trust trust;
        dkv_slice cut = {facts.data, len};
        CHECK(dkv_trust_init(&trust, nodes[0].map, &nodes[0].shares, 0, 1, cut) ==
              DKV_ERR_PROTOCOL);
    }
    facts.data[0]++; /* the format */
    dkv_trust trust;
    CHECK(dkv_trust_init(&trust, nodes[0].map, &nodes[0].shares, 0, 1, dkv_buf_slice(&facts)) ==
          DKV_ERR_PROTOCOL);
    dkv_buf_free(&facts);
    teardown();
}

/* No greeting is answered, and no peer is UP, before what is remembered of it is durable. */
static void greeting_waits_for_the_disk(void) {
    setup(2);
    nodes[0].slow_disk = true;
    meet();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_CONNECTING);
    CHECK(dkv_peers_reach(nodes[1].peers, 0) == DKV_REACH_CONNECTING);
    nodes[0].slow_disk = false;
    settle();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    CHECK(dkv_peers_reach(nodes[1].peers, 0) == DKV_REACH_UP);
    teardown();
}

/* A peer that owes an answer and says nothing is pinged, then DOWN within two seconds; when it
 * speaks again it is UP again. */
static void silent_peer_goes_down(void) {
    setup(2);
    meet();
    nodes[1].silent = true;
    CHECK(ask(0, 1));
    advance(1000);
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    advance(1000);
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_DOWN);
    CHECK(!ask(0, 1));
    nodes[1].silent = false;
    advance(3000);
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    CHECK(nodes[0].downs == 1);
    teardown();
}

/* A peer that is busy but answers pings stays UP, however long it owes the answer. */
static void busy_peer_stays_up(void) {
    setup(2);
    meet();
    CHECK(ask(0, 1));
    advance(10000);
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    CHECK(nodes[1].pings > 10);
    teardown();
}

/* A node that was stopped itself does not take its peers for dead when it wakes. */
static void own_pause_is_forgiven(void) {
    setup(2);
    meet();
    CHECK(ask(0, 1));
    now_ns += dkv_ns_of_ms(30000);
    settle();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP && nodes[0].downs == 0);
    teardown();
}

/* An unused link is closed and opened again when it is wanted. */
static void idle_link_is_closed(void) {
    setup(2);
    meet();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    advance(61000);
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UNKNOWN);
    dkv_moment at = moment(0);
    CHECK(dkv_peers_want(nodes[0].peers, &at, 1) == DKV_REACH_CONNECTING);
    settle();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    teardown();
}

/* Nodes whose maps differ refuse each other. */
static void different_maps_refuse_each_other(void) {
    setup(2);
    halt(1);
    first_weight = 2;
    start(1, UINT64_C(2) << 32, (dkv_slice){0});
    meet();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_DOWN);
    CHECK(dkv_peers_reach(nodes[1].peers, 0) == DKV_REACH_DOWN);
    teardown();
}

/* The one clock that is off is told from the right ones, and only its node stops coordinating. */
static void wrong_clock_is_noticed(void) {
    setup(3);
    nodes[2].skew_ms = 5000;
    meet();
    CHECK(dkv_peers_clock_off(nodes[2].peers));
    CHECK(!dkv_peers_clock_off(nodes[0].peers) && !dkv_peers_clock_off(nodes[1].peers));
    nodes[2].skew_ms = 0;
    advance(3000);
    CHECK(!dkv_peers_clock_off(nodes[2].peers));
    teardown();
}

/* With two nodes nobody can tell which clock is wrong: both go on. */
static void two_clocks_decide_nothing(void) {
    setup(2);
    nodes[1].skew_ms = 5000;
    meet();
    CHECK(!dkv_peers_clock_off(nodes[0].peers) && !dkv_peers_clock_off(nodes[1].peers));
    teardown();
}

/* A link tells at once whether the peer takes writes, not only when one has failed. */
static void greeting_tells_who_is_full(void) {
    setup(2);
    settle();
    nodes[1].state = DKV_ERR_NO_SPACE;
    want(0, 1);
    settle();
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UP);
    CHECK(dkv_peers_state(nodes[0].peers, 1) == DKV_ERR_NO_SPACE);
    teardown();
}

/* A link on which nobody greets is closed; one that is greeted in time is not. */
static void link_without_greeting_is_closed(void) {
    setup(2);
    meet();
    dkv_moment at = moment(0);
    dkv_peers_link_accepted(nodes[0].peers, &at, 2);
    unsigned closed = nodes[0].closed;
    advance(1000);
    CHECK(nodes[0].closed == closed);
    advance(1000);
    CHECK(nodes[0].closed == closed + 1);
    CHECK(dkv_peers_reach(nodes[1].peers, 0) == DKV_REACH_UP);
    teardown();
}

/* A peer that greets on a new link has given up the older one, which is closed. */
static void second_greeting_replaces_the_older_link(void) {
    setup(2);
    meet();
    unsigned closed = nodes[0].closed;
    dkv_moment at = moment(0);
    dkv_peers_link_accepted(nodes[0].peers, &at, 2);
    dkv_message hello = {.kind = DKV_MSG_HELLO,
                         .hello = {.cluster = dkv_slice_of("test"),
                                   .node_id = dkv_slice_of("n2"),
                                   .epoch = nodes[0].map->epoch,
                                   .map_digest = dkv_cluster_map_digest(nodes[0].map),
                                   .store_id = nodes[1].trust.store_id}};
    CHECK(dkv_peers_message(nodes[0].peers, &at, 2, &hello) == -1);
    CHECK(nodes[0].closed == closed + 1);
    dkv_message fetch = {.kind = DKV_MSG_FETCH, .id = 1, .fetch.key = dkv_slice_of("k")};
    CHECK(dkv_peers_message(nodes[0].peers, &at, 2, &fetch) == 1);
    n_queued = 0; /* n2 knows nothing of this link */
    teardown();
}

/* The clocks of peers that are gone are not counted: they may have been set right. */
static void clock_of_a_dead_peer_does_not_count(void) {
    setup(3);
    nodes[1].skew_ms = nodes[2].skew_ms = 5000;
    meet();
    CHECK(dkv_peers_clock_off(nodes[0].peers));
    nodes[1].silent = nodes[2].silent = true;
    ask(0, 1);
    ask(0, 2);
    advance(2500);
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_DOWN);
    CHECK(!dkv_peers_clock_off(nodes[0].peers));
    teardown();
}

/* A dead peer that nobody wants any more is forgotten to be dead, and costs nothing. */
static void dead_peer_is_forgotten_when_unwanted(void) {
    setup(2);
    meet();
    halt(1);
    nodes[1].refuses = true;
    CHECK(ask(0, 1));
    advance(2000);
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_DOWN);
    advance(62000);
    unsigned links = nodes[0].links;
    CHECK(dkv_peers_reach(nodes[0].peers, 1) == DKV_REACH_UNKNOWN);
    CHECK(dkv_peers_next_timer(nodes[0].peers) == INT64_MAX);
    advance(5000);
    CHECK(nodes[0].links == links);
    teardown();
}

static const check_test tests[] = {
    CHECK_TEST(new_cluster_is_believed),
    CHECK_TEST(absent_member_keeps_all_out_of_sync),
    CHECK_TEST(replaced_store_is_not_believed),
    CHECK_TEST(returning_store_is_believed),
    CHECK_TEST(damaged_store_is_not_believed),
    CHECK_TEST(greeting_is_no_word),
    CHECK_TEST(other_map_is_refused),
    CHECK_TEST(damaged_facts_are_refused),
    CHECK_TEST(greeting_waits_for_the_disk),
    CHECK_TEST(silent_peer_goes_down),
    CHECK_TEST(busy_peer_stays_up),
    CHECK_TEST(own_pause_is_forgiven),
    CHECK_TEST(idle_link_is_closed),
    CHECK_TEST(different_maps_refuse_each_other),
    CHECK_TEST(wrong_clock_is_noticed),
    CHECK_TEST(two_clocks_decide_nothing),
    CHECK_TEST(greeting_tells_who_is_full),
    CHECK_TEST(link_without_greeting_is_closed),
    CHECK_TEST(second_greeting_replaces_the_older_link),
    CHECK_TEST(clock_of_a_dead_peer_does_not_count),
    CHECK_TEST(dead_peer_is_forgotten_when_unwanted),
};

CHECK_MAIN(tests)
