#include "sim/net.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/hash.h"
#include "sim/state.h"
#include "wire/wire.h"

#define SPARE_BYTES_MAX 65536u /* a larger buffer is not kept for the next item */

static void note(dkv_world *world, const dkv_sim_link *link, int side, dkv_trace_kind kind) {
    const dkv_sim_end *here = &link->ends[side];
    const dkv_sim_end *there = &link->ends[!side];
    dkv_trace_entry entry = {world->now, here->node, there->node, kind, here->number, 0, NULL};
    dkv_trace_add(&world->trace, &entry, "link %" PRIu64 " %s %s", here->number,
                  side == 0 ? "to" : "from", world->map->members[there->node].id);
}

/* ---- items, pipes and references ---- */

static dkv_sim_item *new_item(dkv_world *world, dkv_sim_item_kind kind) {
    dkv_sim_item *item = world->spare_items;
    if (item) {
        world->spare_items = item->next;
    } else {
        item = calloc(1, sizeof *item);
        if (!item) {
            world->err = DKV_ERR_NO_MEMORY;
            return NULL;
        }
    }
    item->next = NULL;
    item->kind = kind;
    item->bytes.len = 0;
    return item;
}

static void free_items(dkv_sim_item *item) {
    while (item) {
        dkv_sim_item *next = item->next;
        dkv_buf_free(&item->bytes);
        free(item);
        item = next;
    }
}

static void spare_item(dkv_world *world, dkv_sim_item *item) {
    if (item->bytes.cap > SPARE_BYTES_MAX) dkv_buf_free(&item->bytes);
    item->next = world->spare_items;
    world->spare_items = item;
}

static void free_link(dkv_sim_link *link) {
    for (int side = 0; side < 2; side++) {
        free_items(link->pipes[side].head);
        dkv_buf_free(&link->pipes[side].out);
    }
    free(link);
}

void dkv_sim_link_unref(dkv_world *world, dkv_sim_link *link) {
    assert(link->refs > 0);
    if (--link->refs > 0) return;
    if (link->next) link->next->prev = link->prev;
    if (link->prev) {
        link->prev->next = link->next;
    } else {
        world->links = link->next;
    }
    free_link(link);
}

static void schedule_link(dkv_world *world, dkv_sim_link *link, dkv_sim_event_kind kind, int side,
                          uint16_t node, int64_t at) {
    link->refs++;
    dkv_sim_schedule(world, (dkv_sim_event){.time_ns = at,
                                            .kind = (uint8_t)kind,
                                            .node = node,
                                            .side = (uint8_t)side,
                                            .link = link});
}

/* Schedules the arrival of one more of the items in the pipe from `side`. */
static void schedule_arrival(dkv_world *world, dkv_sim_link *link, int side, size_t bytes) {
    dkv_sim_pipe *pipe = &link->pipes[side];
    int64_t at =
        world->now + dkv_sim_way_delay(world, link->ends[side].node, link->ends[!side].node, bytes);
    if (at < pipe->last_arrival) at = pipe->last_arrival;
    pipe->last_arrival = at;
    schedule_link(world, link, DKV_SIM_ARRIVE, side, link->ends[!side].node, at);
}

static void push(dkv_world *world, dkv_sim_link *link, int side, dkv_sim_item *item) {
    dkv_sim_pipe *pipe = &link->pipes[side];
    if (pipe->tail) {
        pipe->tail->next = item;
    } else {
        pipe->head = item;
    }
    pipe->tail = item;
    schedule_arrival(world, link, side, item->bytes.len);
}

static void push_kind(dkv_world *world, dkv_sim_link *link, int side, dkv_sim_item_kind kind) {
    dkv_sim_item *item = new_item(world, kind);
    if (item) push(world, link, side, item);
}

/* Takes the first item out of a pipe; on a datagram network sometimes the second, if both are
 * data. */
static dkv_sim_item *pop(dkv_world *world, dkv_sim_pipe *pipe) {
    dkv_sim_item *first = pipe->head;
    dkv_sim_item *second = first->next;
    bool may_overtake = second && first->kind == DKV_SIM_ITEM_DATA &&
                        second->kind == DKV_SIM_ITEM_DATA && world->options.net.reorder_ppm;
    if (may_overtake && dkv_sim_chance(world, world->options.net.reorder_ppm)) {
        first->next = second->next;
        if (pipe->tail == second) pipe->tail = first;
        world->n_disturbed++;
        return second;
    }
    pipe->head = second;
    if (!second) pipe->tail = NULL;
    return first;
}

static void open_end(dkv_world *world, dkv_sim_link *link, int side, dkv_link number) {
    dkv_sim_end *end = &link->ends[side];
    end->number = number;
    end->open = true;
    link->refs++;
    if (dkv_map_set(&world->nodes[end->node].links, number, link)) world->err = DKV_ERR_NO_MEMORY;
}

static void close_end(dkv_world *world, dkv_sim_link *link, int side) {
    dkv_sim_end *end = &link->ends[side];
    dkv_map_remove(&world->nodes[end->node].links, end->number);
    end->open = false;
    dkv_sim_link_unref(world, link);
}

/* ---- effects ---- */

void dkv_sim_link_connect(dkv_sim_node *sn, uint16_t peer, dkv_link number) {
    dkv_world *world = sn->world;
    assert(peer < world->n_nodes && peer != sn->index && !dkv_map_get(&sn->links, number));
    dkv_sim_link *link = calloc(1, sizeof *link);
    if (!link) {
        world->err = DKV_ERR_NO_MEMORY;
        return;
    }
    link->ends[0].node = sn->index;
    link->ends[1].node = peer;
    link->next = world->links;
    if (link->next) link->next->prev = link;
    world->links = link;
    open_end(world, link, 0, number);
    note(world, link, 0, DKV_TRACE_CONNECT);
    push_kind(world, link, 0, DKV_SIM_ITEM_SYN);
    schedule_link(world, link, DKV_SIM_CONNECT_EXPIRE, 0, sn->index,
                  world->now + dkv_ns_of_ms(world->options.net.connect_timeout_ms));
}

/* Which end of its link has this number: those that opened one have odd numbers. */
static int side_of(dkv_link number) {
    return number % 2 ? 0 : 1;
}

static void break_link(dkv_world *world, dkv_sim_link *link) {
    link->is_broken = true;
    world->n_broken++;
    note(world, link, 0, DKV_TRACE_LINK_BROKEN);
    for (int side = 0; side < 2; side++) {
        schedule_link(world, link, DKV_SIM_BREAK, side, link->ends[side].node,
                      world->now + dkv_sim_latency(world));
    }
}

/* Makes what a step has put into a pipe one item. */
static void flush_pipe(dkv_world *world, dkv_sim_link *link, int side) {
    const dkv_net_options *net = &world->options.net;
    dkv_sim_pipe *pipe = &link->pipes[side];
    if (pipe->out.len == 0) return;
    unsigned copies = 1;
    if (!link->is_broken && dkv_sim_chance(world, net->break_ppm)) break_link(world, link);
    if (link->is_broken) copies = 0;
    if (copies && dkv_sim_chance(world, net->drop_ppm)) copies = 0;
    if (copies && dkv_sim_chance(world, net->duplicate_ppm) && !pipe->once) copies = 2;
    world->n_disturbed += !link->is_broken && copies != 1;
    for (unsigned i = 0; i < copies; i++) {
        dkv_sim_item *item = new_item(world, DKV_SIM_ITEM_DATA);
        if (!item) return;
        if (dkv_buf_append(&item->bytes, dkv_buf_slice(&pipe->out))) world->err = DKV_ERR_NO_MEMORY;
        push(world, link, side, item);
    }
    pipe->out.len = 0;
    pipe->once = false;
}

void dkv_sim_link_close(dkv_sim_node *sn, dkv_link number) {
    dkv_sim_link *link = dkv_map_get(&sn->links, number);
    if (!link) return;
    int side = side_of(number);
    flush_pipe(sn->world, link, side);
    note(sn->world, link, side, DKV_TRACE_LINK_CLOSED);
    push_kind(sn->world, link, side, DKV_SIM_ITEM_CLOSED);
    close_end(sn->world, link, side);
}

void dkv_sim_link_send(dkv_sim_node *sn, dkv_link number, const dkv_message *message) {
    dkv_world *world = sn->world;
    dkv_sim_link *link = dkv_map_get(&sn->links, number);
    if (!link) return;
    int side = side_of(number);
    dkv_sim_pipe *pipe = &link->pipes[side];
    if (world->witness) {
        world->witness(world->witness_user, sn->index, link->ends[!side].node, message);
    }
    if (pipe->out.len == 0) {
        if (dkv_sim_make_room(world, (void **)&world->unflushed, world->n_unflushed,
                              &world->unflushed_cap, sizeof *world->unflushed)) {
            return;
        }
        world->unflushed[world->n_unflushed++] = (dkv_sim_loose_end){link, (uint8_t)side};
        link->refs++;
    }
    int err = dkv_wire_put_message(&pipe->out, message);
    pipe->once |= message->kind == DKV_MSG_FORWARD;
    if (err) world->err = err;
}

void dkv_sim_links_flush(dkv_world *world) {
    for (size_t i = 0; i < world->n_unflushed; i++) {
        dkv_sim_link *link = world->unflushed[i].link;
        flush_pipe(world, link, world->unflushed[i].side);
        dkv_sim_link_unref(world, link);
    }
    world->n_unflushed = 0;
}

/* ---- arrivals ---- */

typedef struct delivery {
    dkv_sim_node *to;
    dkv_sim_link *link;
    int to_side;
    uint64_t batch_sum;
} delivery;

static void note_message(const delivery *d, const dkv_message *message) {
    static const char *const names[] = {
        [DKV_MSG_HELLO] = "hello",     [DKV_MSG_HELLO_REPLY] = "hello_reply",
        [DKV_MSG_PING] = "ping",       [DKV_MSG_PONG] = "pong",
        [DKV_MSG_APPLY] = "apply",     [DKV_MSG_APPLY_REPLY] = "apply_reply",
        [DKV_MSG_FETCH] = "fetch",     [DKV_MSG_FETCH_REPLY] = "fetch_reply",
        [DKV_MSG_FORWARD] = "forward", [DKV_MSG_FORWARD_REPLY] = "forward_reply",
        [DKV_MSG_SUMS] = "sums",       [DKV_MSG_SUMS_REPLY] = "sums_reply",
        [DKV_MSG_LIST] = "list",       [DKV_MSG_LIST_REPLY] = "list_reply",
    };
    dkv_world *world = d->to->world;
    uint16_t from = d->link->ends[!d->to_side].node;
    char more[128] = "";
    if (world->trace.keep && message->kind == DKV_MSG_APPLY) {
        snprintf(more, sizeof more, " %.*s version %" PRIu64 ".%" PRIx64,
                 (int)(message->apply.key.len < 32 ? message->apply.key.len : 32),
                 (const char *)message->apply.key.data, message->apply.version.hlc,
                 message->apply.version.origin);
    } else if (message->kind == DKV_MSG_APPLY_REPLY) {
        snprintf(more, sizeof more, " %s", dkv_err_name(message->apply_reply.err));
    } else if (message->kind == DKV_MSG_FETCH_REPLY) {
        snprintf(more, sizeof more, " %s", dkv_err_name(message->fetch_reply.err));
    }
    dkv_trace_entry entry = {world->now,   d->to->index, from, DKV_TRACE_MESSAGE,
                             d->batch_sum, message->id,  NULL};
    dkv_trace_add(&world->trace, &entry, "%s %" PRIu64 " from %s on link %" PRIu64 "%s",
                  names[message->kind], message->id, world->map->members[from].id,
                  d->link->ends[d->to_side].number, more);
}

static void deliver_one(void *user, const dkv_message *message) {
    delivery *d = user;
    /* An earlier message of the batch may have made the node close the link or stop. */
    if (d->to->doomed || !d->link->ends[d->to_side].open) return;
    d->to->world->n_messages++;
    note_message(d, message);
    dkv_event event = {.kind = DKV_EVENT_MESSAGE};
    event.message.link = d->link->ends[d->to_side].number;
    event.message.message = message;
    dkv_sim_step(d->to, &event);
}

static void tell(dkv_sim_node *sn, dkv_event_kind kind, dkv_link number) {
    dkv_event event = {.kind = kind, .link = number};
    dkv_sim_step(sn, &event);
    dkv_sim_settle(sn);
}

/* The end hears that the link is gone. */
static void lose_end(dkv_world *world, dkv_sim_link *link, int side) {
    dkv_sim_end end = link->ends[side];
    if (!end.open) return;
    note(world, link, side, DKV_TRACE_LINK_CLOSED);
    close_end(world, link, side);
    tell(&world->nodes[end.node], DKV_EVENT_LINK_CLOSED, end.number);
}

static void deliver_data(dkv_world *world, dkv_sim_link *link, int to_side, dkv_slice bytes) {
    dkv_sim_node *to = &world->nodes[link->ends[to_side].node];
    if (!link->ends[to_side].open) {
        if (link->ends[!to_side].open) push_kind(world, link, to_side, DKV_SIM_ITEM_CLOSED);
        return;
    }
    delivery d = {to, link, to_side, dkv_checksum(bytes, 0)};
    int err = dkv_wire_each_message(bytes, deliver_one, &d);
    assert(!err && "a node sent bytes that do not follow the format");
    dkv_sim_settle(to);
}

static void accept_link(dkv_world *world, dkv_sim_link *link) {
    dkv_sim_node *to = &world->nodes[link->ends[1].node];
    if (!to->node) {
        push_kind(world, link, 1, DKV_SIM_ITEM_CLOSED);
        return;
    }
    open_end(world, link, 1, to->last_accepted += 2);
    note(world, link, 1, DKV_TRACE_LINK_ACCEPTED);
    push_kind(world, link, 1, DKV_SIM_ITEM_OPENED);
    tell(to, DKV_EVENT_LINK_ACCEPTED, link->ends[1].number);
}

static void link_opened(dkv_world *world, dkv_sim_link *link) {
    if (!link->ends[0].open) return;
    link->is_open = true;
    note(world, link, 0, DKV_TRACE_LINK_OPENED);
    tell(&world->nodes[link->ends[0].node], DKV_EVENT_LINK_OPENED, link->ends[0].number);
}

static bool is_blocked(const dkv_world *world, const dkv_sim_link *link, int side) {
    uint16_t to = link->ends[!side].node;
    return !world->nodes[to].machine_on || dkv_sim_is_cut(world, link->ends[side].node, to);
}

void dkv_sim_link_arrive(dkv_world *world, const dkv_sim_event *event) {
    dkv_sim_link *link = event->link;
    int side = event->side;
    if (!link->is_broken && is_blocked(world, link, side)) {
        link->pipes[side].stalled++;
        dkv_sim_link_unref(world, link);
        return;
    }
    dkv_sim_item *item = pop(world, &link->pipes[side]);
    if (!link->is_broken) {
        switch (item->kind) {
        case DKV_SIM_ITEM_SYN: accept_link(world, link); break;
        case DKV_SIM_ITEM_OPENED: link_opened(world, link); break;
        case DKV_SIM_ITEM_CLOSED: lose_end(world, link, !side); break;
        case DKV_SIM_ITEM_DATA:
            deliver_data(world, link, !side, dkv_buf_slice(&item->bytes));
            break;
        }
    }
    spare_item(world, item);
    dkv_sim_link_unref(world, link);
}

void dkv_sim_link_expire(dkv_world *world, const dkv_sim_event *event) {
    dkv_sim_link *link = event->link;
    if (link->ends[0].open && !link->is_open) {
        push_kind(world, link, 0, DKV_SIM_ITEM_CLOSED);
        lose_end(world, link, 0);
    }
    dkv_sim_link_unref(world, link);
}

void dkv_sim_link_break(dkv_world *world, const dkv_sim_event *event) {
    lose_end(world, event->link, event->side);
    dkv_sim_link_unref(world, event->link);
}

/* ---- faults ---- */

/* What a machine without power had not got through to its peers is lost. */
static void drop_stalled(dkv_world *world, uint16_t from) {
    for (dkv_sim_link *link = world->links; link; link = link->next) {
        for (int side = 0; side < 2; side++) {
            dkv_sim_pipe *pipe = &link->pipes[side];
            if (link->ends[side].node != from) continue;
            for (; pipe->stalled; pipe->stalled--) spare_item(world, pop(world, pipe));
        }
    }
}

void dkv_sim_links_died(dkv_sim_node *sn) {
    dkv_world *world = sn->world;
    dkv_map links = sn->links;
    sn->links = (dkv_map){0};
    for (size_t i = 0; i < links.cap; i++) {
        dkv_sim_link *link = links.slots[i].value;
        if (!link) continue;
        int side = side_of(links.slots[i].key);
        link->ends[side].open = false;
        if (sn->machine_on) push_kind(world, link, side, DKV_SIM_ITEM_CLOSED);
        dkv_sim_link_unref(world, link);
    }
    dkv_map_free(&links);
    if (!sn->machine_on) drop_stalled(world, sn->index);
}

void dkv_sim_links_release(dkv_world *world) {
    for (dkv_sim_link *link = world->links; link; link = link->next) {
        for (int side = 0; side < 2; side++) {
            dkv_sim_pipe *pipe = &link->pipes[side];
            if (pipe->stalled == 0 || is_blocked(world, link, side)) continue;
            for (; pipe->stalled; pipe->stalled--) schedule_arrival(world, link, side, 0);
        }
    }
}

void dkv_sim_links_free(dkv_world *world) {
    while (world->links) {
        dkv_sim_link *next = world->links->next;
        free_link(world->links);
        world->links = next;
    }
    free_items(world->spare_items);
    world->spare_items = NULL;
    free(world->unflushed);
}
