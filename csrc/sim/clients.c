#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "sim/state.h"

/* ---- copies ---- */

static dkv_slice copy_slice(dkv_world *world, dkv_slice from) {
    if (from.len == 0) return (dkv_slice){0};
    uint8_t *data = malloc(from.len);
    if (!data) {
        world->err = DKV_ERR_NO_MEMORY;
        return (dkv_slice){0};
    }
    memcpy(data, from.data, from.len);
    return (dkv_slice){data, from.len};
}

static void free_slice(dkv_slice slice) {
    free((void *)(uintptr_t)slice.data);
}

static char *copy_text(dkv_world *world, dkv_slice text) {
    char *copy = malloc(text.len + 1);
    if (!copy) {
        world->err = DKV_ERR_NO_MEMORY;
        return NULL;
    }
    if (text.len) memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    return copy;
}

static dkv_sim_nodes copy_names(const dkv_world *world, const dkv_node_names *names) {
    dkv_sim_nodes out = {0};
    for (uint8_t i = 0; i < names->n; i++) {
        char id[DKV_NAME_MAX + 1];
        snprintf(id, sizeof id, "%.*s", (int)names->ids[i].len, (const char *)names->ids[i].data);
        int node = dkv_cluster_map_find(world->map, id);
        assert(node >= 0 && "a reply names a node that is not in the map");
        out.nodes[out.n++] = (uint16_t)node;
    }
    return out;
}

static dkv_sim_result copy_reply(dkv_world *world, const dkv_reply *reply) {
    return (dkv_sim_result){
        .err = reply->err,
        .outcome = reply->outcome,
        .version = reply->version,
        .value = copy_slice(world, reply->value),
        .holding = copy_names(world, &reply->holding),
        .missing = copy_names(world, &reply->missing),
        .detail = reply->err ? copy_text(world, reply->detail) : NULL,
    };
}

static void free_result(dkv_sim_result *result) {
    free_slice(result->value);
    free(result->detail);
    result->value = (dkv_slice){0};
    result->detail = NULL;
}

/* ---- trace ---- */

static const char *const op_names[] = {
    [DKV_OP_GET] = "get", [DKV_OP_PUT] = "put", [DKV_OP_DELETE] = "delete"};
static const char *const level_names[] = {[DKV_LEVEL_DEFAULT] = "default",
                                          [DKV_LEVEL_ONE] = "one",
                                          [DKV_LEVEL_QUORUM] = "quorum",
                                          [DKV_LEVEL_ALL] = "all"};
static const char *const outcome_names[] = {[DKV_OUTCOME_NONE] = "",
                                            [DKV_OUTCOME_APPLIED] = " applied",
                                            [DKV_OUTCOME_NOT_APPLIED] = " not applied",
                                            [DKV_OUTCOME_UNKNOWN] = " unknown"};

static void note_op(dkv_world *world, uint64_t op, uint16_t node, dkv_trace_kind kind) {
    const dkv_request *request = &world->ops[op].request;
    uint64_t sum = dkv_checksum(request->key, dkv_checksum(request->value, request->op));
    dkv_trace_entry entry = {world->now, node, DKV_TRACE_NOBODY, kind, op, sum, NULL};
    int key_len = request->key.len < 40 ? (int)request->key.len : 40;
    dkv_trace_add(&world->trace, &entry, "op %" PRIu64 " client %" PRIu32 ": %s %.*s level %s", op,
                  world->ops[op].client, op_names[request->op], key_len,
                  (const char *)request->key.data, level_names[request->level]);
}

static void note_result(dkv_world *world, uint64_t op, uint16_t node, dkv_trace_kind kind,
                        const dkv_sim_result *result) {
    uint64_t sum =
        dkv_checksum(result->value, result->version.hlc ^ (uint64_t)(uint32_t)result->err);
    dkv_trace_entry entry = {world->now, node, DKV_TRACE_NOBODY, kind, op, sum, NULL};
    dkv_trace_add(&world->trace, &entry, "op %" PRIu64 ": %s%s version %" PRIu64 ".%" PRIx64 "%s%s",
                  op, dkv_err_name(result->err), outcome_names[result->outcome],
                  result->version.hlc, result->version.origin, result->detail ? ": " : "",
                  result->detail ? result->detail : "");
}

/* ---- asking ---- */

static void schedule_client(dkv_world *world, dkv_sim_event_kind kind, uint64_t id, int64_t in_ns) {
    dkv_sim_schedule(world, (dkv_sim_event){.time_ns = world->now + in_ns,
                                            .kind = (uint8_t)kind,
                                            .node = DKV_TRACE_NOBODY,
                                            .id = id});
}

/* Sends operation `op` to the next of its targets. */
static void ask_next(dkv_world *world, uint64_t op_number) {
    dkv_sim_op *op = &world->ops[op_number];
    assert(op->n_asked < op->n_targets);
    if (dkv_sim_make_room(world, (void **)&world->attempts, world->n_attempts, &world->attempts_cap,
                          sizeof *world->attempts)) {
        return;
    }
    uint16_t node = op->targets[op->n_asked++];
    op->n_waiting++;
    world->attempts[world->n_attempts++] = (dkv_sim_attempt){.op = op_number,
                                                             .previous = op->last_attempt,
                                                             .node = node,
                                                             .arrived_ns = -1,
                                                             .replied_ns = -1};
    op->last_attempt = world->n_attempts;
    dkv_sim_schedule(world, (dkv_sim_event){.time_ns = world->now + dkv_sim_latency(world),
                                            .kind = DKV_SIM_ASK,
                                            .node = node,
                                            .id = world->n_attempts});
    bool may_ask_another = op->request.op == DKV_OP_GET && op->n_asked < op->n_targets;
    if (may_ask_another) {
        schedule_client(world, DKV_SIM_HEDGE, op_number, dkv_ns_of_ms(world->options.hedge_ms));
    }
}

int dkv_world_submit(dkv_world *world, uint32_t client, int via, const dkv_request *request,
                     uint64_t *out) {
    assert(via >= DKV_SIM_ANY && via < world->n_nodes);
    if (world->err) return world->err;
    if (world->n_ops >= DKV_SIM_OPS_MAX) return DKV_ERR_INVALID;
    int err = dkv_sim_make_room(world, (void **)&world->ops, world->n_ops, &world->ops_cap,
                                sizeof *world->ops);
    if (err) return err;
    uint64_t number = world->n_ops++;
    dkv_sim_op *op = &world->ops[number];
    *op = (dkv_sim_op){.request = *request,
                       .via = via,
                       .client = client,
                       .invoked_ns = world->now,
                       .answered_ns = -1};
    op->request.key = copy_slice(world, request->key);
    op->request.value = copy_slice(world, request->value);
    if (via == DKV_SIM_ANY) {
        uint64_t token = dkv_hash_key(request->key).token;
        op->n_targets = (uint8_t)dkv_ring_replication(world->ring);
        memcpy(op->targets, dkv_ring_replicas(world->ring, token),
               op->n_targets * sizeof *op->targets);
    } else {
        op->n_targets = 1;
        op->targets[0] = (uint16_t)via;
    }
    note_op(world, number, DKV_TRACE_NOBODY, DKV_TRACE_INVOKE);
    uint32_t timeout_ms = request->timeout_ms ? request->timeout_ms : DKV_TIMEOUT_DEFAULT_MS;
    schedule_client(world, DKV_SIM_GIVE_UP, number,
                    dkv_ns_of_ms((uint64_t)timeout_ms + DKV_SIM_GRACE_MS));
    ask_next(world, number);
    *out = number;
    return world->err;
}

/* ---- at the node ---- */

/* The client will hear of `attempt`. */
static void answer_in(dkv_world *world, uint64_t attempt, int64_t in_ns) {
    schedule_client(world, DKV_SIM_ANSWER, attempt, in_ns);
}

void dkv_sim_client_ask(dkv_world *world, uint64_t number) {
    dkv_sim_attempt *attempt = &world->attempts[number - 1];
    dkv_sim_node *sn = &world->nodes[attempt->node];
    if (!sn->node || sn->stopping) {
        attempt->refused = true;
        answer_in(world, number, sn->machine_on ? dkv_sim_latency(world) : DKV_SIM_DEAD_MACHINE_NS);
        return;
    }
    if (dkv_sim_make_room(world, (void **)&world->taken, world->n_taken, &world->taken_cap,
                          sizeof *world->taken)) {
        return;
    }
    world->taken[world->n_taken++] = number;
    attempt->life = sn->life;
    attempt->arrived_ns = world->now;
    attempt->paused_base = dkv_sim_paused_ns(sn);
    note_op(world, attempt->op, attempt->node, DKV_TRACE_REQUEST);
    dkv_event event = {.kind = DKV_EVENT_REQUEST};
    event.request.handle = number;
    dkv_request request = world->ops[attempt->op].request;
    request.failover = attempt->previous != 0;
    event.request.request = &request;
    dkv_sim_step(sn, &event);
    dkv_sim_settle(sn);
}

static void forget_taken(dkv_world *world, uint64_t attempt) {
    for (size_t i = world->n_taken; i-- > 0;) {
        if (world->taken[i] != attempt) continue;
        world->taken[i] = world->taken[--world->n_taken];
        return;
    }
}

void dkv_sim_client_reply(dkv_sim_node *sn, uint64_t handle, const dkv_reply *reply) {
    dkv_world *world = sn->world;
    assert(handle >= 1 && handle <= world->n_attempts);
    dkv_sim_attempt *attempt = &world->attempts[handle - 1];
    if (attempt->replies++ > 0) return; /* a fault that the checker reports */
    attempt->replied_ns = world->now;
    attempt->active_ns =
        world->now - attempt->arrived_ns - (dkv_sim_paused_ns(sn) - attempt->paused_base);
    attempt->result = copy_reply(world, reply);
    note_result(world, attempt->op, sn->index, DKV_TRACE_REPLY, &attempt->result);
    forget_taken(world, handle);
    answer_in(world, handle, dkv_sim_latency(world));
}

void dkv_sim_clients_died(dkv_sim_node *sn) {
    dkv_world *world = sn->world;
    for (size_t i = 0; i < world->n_taken;) {
        uint64_t number = world->taken[i];
        dkv_sim_attempt *attempt = &world->attempts[number - 1];
        if (attempt->node != sn->index) {
            i++;
            continue;
        }
        attempt->cut_off = true;
        world->taken[i] = world->taken[--world->n_taken];
        if (sn->machine_on) answer_in(world, number, dkv_sim_latency(world));
    }
}

/* ---- back at the client ---- */

static void finish(dkv_world *world, uint64_t number, dkv_sim_result result) {
    dkv_sim_op *op = &world->ops[number];
    free_result(&op->result);
    op->result = result;
    op->answered_ns = world->now;
    note_result(world, number, DKV_TRACE_NOBODY, DKV_TRACE_RESULT, &op->result);
}

/* The client's own judgement, when no node has given one. */
static void finish_alone(dkv_world *world, uint64_t number, int err, dkv_outcome outcome,
                         const char *why) {
    if (world->ops[number].request.op == DKV_OP_GET) outcome = DKV_OUTCOME_NONE;
    finish(world, number,
           (dkv_sim_result){
               .err = err, .outcome = outcome, .detail = copy_text(world, dkv_slice_of(why))});
}

/* No answer, or a refusal that another replica may not repeat. */
static void try_another(dkv_world *world, uint64_t number, const dkv_sim_attempt *attempt) {
    dkv_sim_op *op = &world->ops[number];
    bool is_read = op->request.op == DKV_OP_GET;
    bool may_send_again = is_read || attempt->refused;
    if (may_send_again && op->n_asked < op->n_targets) {
        ask_next(world, number);
    } else if (attempt->cut_off) {
        if (is_read && op->n_waiting) return;
        finish_alone(world, number, DKV_ERR_UNAVAILABLE, DKV_OUTCOME_UNKNOWN,
                     "the connection to the node broke");
    } else if (op->n_waiting == 0) {
        finish_alone(world, number, DKV_ERR_UNAVAILABLE, DKV_OUTCOME_NOT_APPLIED,
                     "no replica takes connections");
    }
}

static bool is_final(const dkv_sim_op *op, const dkv_sim_attempt *attempt) {
    if (attempt->replies == 0) return false;
    if (op->request.op != DKV_OP_GET) return true;
    int err = attempt->result.err;
    if (err == DKV_OK || err == DKV_ERR_NOT_FOUND || err == DKV_ERR_INVALID) return true;
    return op->n_asked == op->n_targets && op->n_waiting == 0;
}

void dkv_sim_client_answer(dkv_world *world, uint64_t number) {
    dkv_sim_attempt *attempt = &world->attempts[number - 1];
    dkv_sim_op *op = &world->ops[attempt->op];
    op->n_waiting--;
    if (op->answered_ns >= 0) return;
    if (is_final(op, attempt)) {
        op->result_attempt = number;
        dkv_sim_result result = attempt->result;
        attempt->result.value = (dkv_slice){0};
        attempt->result.detail = NULL;
        finish(world, attempt->op, result);
    } else {
        try_another(world, attempt->op, attempt);
    }
}

void dkv_sim_client_hedge(dkv_world *world, uint64_t number) {
    const dkv_sim_op *op = &world->ops[number];
    if (op->answered_ns < 0 && op->n_asked < op->n_targets) ask_next(world, number);
}

void dkv_sim_client_give_up(dkv_world *world, uint64_t number) {
    if (world->ops[number].answered_ns >= 0) return;
    finish_alone(world, number, DKV_ERR_DEADLINE, DKV_OUTCOME_UNKNOWN,
                 "no node answered before the deadline");
}

/* ---- reading ---- */

uint64_t dkv_world_ops(const dkv_world *world) {
    return world->n_ops;
}

const dkv_sim_op *dkv_world_op(const dkv_world *world, uint64_t op) {
    assert(op < world->n_ops);
    return &world->ops[op];
}

uint64_t dkv_world_attempts(const dkv_world *world) {
    return world->n_attempts;
}

const dkv_sim_attempt *dkv_world_attempt(const dkv_world *world, uint64_t attempt) {
    assert(attempt >= 1 && attempt <= world->n_attempts);
    return &world->attempts[attempt - 1];
}

void dkv_sim_clients_free(dkv_world *world) {
    for (size_t i = 0; i < world->n_ops; i++) {
        free_slice(world->ops[i].request.key);
        free_slice(world->ops[i].request.value);
        free_result(&world->ops[i].result);
    }
    for (size_t i = 0; i < world->n_attempts; i++) free_result(&world->attempts[i].result);
    free(world->ops);
    free(world->attempts);
    free(world->taken);
}
