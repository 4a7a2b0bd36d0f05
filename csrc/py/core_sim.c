/* dkv._core.World: a simulated world with Python's manners. Nodes are spoken of by index; times are
 * nanoseconds. dkv/sim/world.py is the class that people see.
 *
 * The GIL is given up while the world runs. A world belongs to one thread at a time: a second one
 * that calls meanwhile gets a RuntimeError. */
#define PY_SSIZE_T_CLEAN /* lengths of `y#` in Py_BuildValue */
#include "py/core_module.h"

#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/plant.h"
#include "py/args.h"
#include "sim/campaign.h"

#define PART_EVENTS 5000u /* between two looks for signals: some tens of milliseconds */

typedef struct world_object {
    PyObject base; /* what PyObject_HEAD stands for */
    dkv_world *world;
    bool busy; /* runs without the GIL */
} world_object;

static const dkv_py_errors *errors_of(PyObject *object) {
    return &dkv_core_state_of(object)->errors;
}

static const dkv_cluster_map *map_of(const world_object *self) {
    return dkv_ring_map(dkv_world_ring(self->world));
}

/* The world, if no other thread runs it; NULL with an exception set. */
static dkv_world *world_of(PyObject *object) {
    const world_object *self = (world_object *)object;
    if (!self->busy) return self->world;
    PyErr_SetString(PyExc_RuntimeError, "another thread is using this world");
    return NULL;
}

static PyObject *none_or_raise(PyObject *object, int err) {
    return err ? dkv_py_raise(errors_of(object), err, NULL) : Py_NewRef(Py_None);
}

/* ---- making one ---- */

static PyObject *wrap(PyTypeObject *type, dkv_world *world) {
    world_object *self = PyObject_New(world_object, type);
    if (!self) {
        dkv_world_del(world);
        return NULL;
    }
    self->world = world;
    self->busy = false;
    return (PyObject *)self;
}

static PyObject *world_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"replication", "members",       "seed",       "timing",     "net",
                            "disk_max_us", "segment_bytes", "durability", "acquainted", "trace",
                            NULL};
    PyObject *replication, *members;
    unsigned long long seed;
    int keep_trace, heavy_tail, durability, acquainted;
    dkv_world_options options = {0};
    dkv_timing *timing = &options.timing;
    dkv_net_options *net = &options.net;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "OOK(IIIIII)(IIpIIIIII)II(iI)pp:World", names, &replication, &members,
            &seed, &timing->attempt_ms, &timing->connect_ms, &timing->ping_ms, &timing->silence_ms,
            &timing->retry_ms, &timing->idle_ms, &net->latency.low_us, &net->latency.high_us,
            &heavy_tail, &net->slow_ppm, &net->connect_timeout_ms, &net->break_ppm, &net->drop_ppm,
            &net->duplicate_ppm, &net->reorder_ppm, &options.disk_max_us, &options.segment_bytes,
            &durability, &options.interval_ms, &acquainted, &keep_trace)) {
        return NULL;
    }
    const dkv_core_state *state = PyType_GetModuleState(type);
    dkv_cluster_map *map;
    if (dkv_py_map_new(&state->errors, "sim", replication, members, &map)) return NULL;
    options.seed = seed;
    options.map = map;
    options.keep_trace = keep_trace;
    net->latency.heavy_tail = heavy_tail;
    options.durability = (dkv_durability)durability;
    options.acquainted = acquainted;
    dkv_world *world;
    int err;
    Py_BEGIN_ALLOW_THREADS err = dkv_world_new(&options, &world);
    Py_END_ALLOW_THREADS dkv_cluster_map_del(map);
    return err ? dkv_py_raise(&state->errors, err, NULL) : wrap(type, world);
}

static void world_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    dkv_world_del(((world_object *)object)->world);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* ---- running ---- */

/* Runs in parts, between which signals are looked at. Returns 0, or -1 with an exception set. */
static int run(world_object *self, int64_t end_ns, uint64_t op) {
    bool more = true;
    while (more) {
        self->busy = true;
        Py_BEGIN_ALLOW_THREADS;
        more = dkv_world_run_some(self->world, end_ns, op, PART_EVENTS);
        Py_END_ALLOW_THREADS;
        self->busy = false;
        if (PyErr_CheckSignals()) return -1;
    }
    return 0;
}

static PyObject *world_run_for(PyObject *object, PyObject *ns_object) {
    world_object *self = (world_object *)object;
    long long ns = PyLong_AsLongLong(ns_object);
    if (ns == -1 && PyErr_Occurred()) return NULL;
    if (!world_of(object)) return NULL;
    int64_t end_ns = dkv_world_now(self->world) + ns;
    if (run(self, end_ns, DKV_WORLD_NO_OP)) return NULL;
    return none_or_raise(object,
                         dkv_world_run_for(self->world, end_ns - dkv_world_now(self->world)));
}

/* The number of an operation that exists, or -1 with an exception set. */
static int get_op(PyObject *object, PyObject *number, uint64_t *out) {
    const dkv_world *world = world_of(object);
    if (!world) return -1;
    *out = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred()) return -1;
    if (*out < dkv_world_ops(world)) return 0;
    PyErr_Format(PyExc_IndexError, "there is no operation %R", number);
    return -1;
}

static PyObject *world_wait(PyObject *object, PyObject *number) {
    world_object *self = (world_object *)object;
    uint64_t op;
    if (get_op(object, number, &op)) return NULL;
    if (run(self, INT64_MAX, op)) return NULL;
    return none_or_raise(object, dkv_world_run_until_done(self->world, op));
}

/* ---- operations ---- */

static PyObject *world_submit(PyObject *object, PyObject *args) {
    PyObject *key_object, *value_object;
    unsigned client;
    int via, op, level;
    unsigned long long hlc, origin;
    dkv_request request = {0};
    if (!PyArg_ParseTuple(args, "IiiOOiIKK:submit", &client, &via, &op, &key_object, &value_object,
                          &level, &request.timeout_ms, &hlc, &origin)) {
        return NULL;
    }
    dkv_world *world = world_of(object);
    if (!world) return NULL;
    if (via < DKV_SIM_ANY || via >= map_of((world_object *)object)->n_members) {
        return dkv_py_raise_invalid(errors_of(object), "there is no node %d", via);
    }
    dkv_py_bytes key, value;
    if (dkv_py_bytes_get(errors_of(object), key_object, "a key", &key)) return NULL;
    if (dkv_py_bytes_get(errors_of(object), value_object, "a value", &value)) {
        dkv_py_bytes_release(&key);
        return NULL;
    }
    request.op = (dkv_op)op;
    request.level = (dkv_level)level;
    request.last_seen = (dkv_version){hlc, origin};
    request.key = key.slice;
    request.value = value.slice;
    char why[DKV_DETAIL_MAX];
    uint64_t number = 0;
    int err = dkv_request_check(&request, why);
    PyObject *result = NULL;
    if (err) {
        dkv_py_raise(errors_of(object), err, why);
    } else {
        err = dkv_world_submit(world, client, via, &request, &number);
        result =
            err ? dkv_py_raise(errors_of(object), err, NULL) : PyLong_FromUnsignedLongLong(number);
    }
    dkv_py_bytes_release(&key);
    dkv_py_bytes_release(&value);
    return result;
}

static PyObject *nodes_new(const dkv_sim_nodes *nodes) {
    PyObject *tuple = PyTuple_New(nodes->n);
    for (uint8_t i = 0; tuple && i < nodes->n; i++) {
        PyObject *index = PyLong_FromLong(nodes->nodes[i]);
        if (!index || PyTuple_SetItem(tuple, i, index)) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *version_new(dkv_version version) {
    if (dkv_version_is_none(version)) return Py_NewRef(Py_None);
    return Py_BuildValue("(KK)", (unsigned long long)version.hlc,
                         (unsigned long long)version.origin);
}

/* (error name or None, outcome, version, value, holding, missing, detail) */
static PyObject *result_new(const dkv_sim_result *result) {
    return Py_BuildValue("(ziNy#NNz)", result->err ? dkv_err_name(result->err) : NULL,
                         (int)result->outcome, version_new(result->version),
                         result->value.data ? (const char *)result->value.data : "",
                         (Py_ssize_t)result->value.len, nodes_new(&result->holding),
                         nodes_new(&result->missing), result->detail);
}

/* (client, via, op, key, value, level, invoked, answered, result) */
static PyObject *world_op(PyObject *object, PyObject *number) {
    uint64_t n;
    if (get_op(object, number, &n)) return NULL;
    const dkv_sim_op *op = dkv_world_op(((world_object *)object)->world, n);
    const dkv_request *request = &op->request;
    return Py_BuildValue("(Iiiy#y#iLLN)", (unsigned)op->client, op->via, (int)request->op,
                         (const char *)request->key.data, (Py_ssize_t)request->key.len,
                         request->value.data ? (const char *)request->value.data : "",
                         (Py_ssize_t)request->value.len, (int)request->level,
                         (long long)op->invoked_ns, (long long)op->answered_ns,
                         result_new(&op->result));
}

/* ---- nodes ---- */

static int check_node(PyObject *object, unsigned node) {
    if (!world_of(object)) return -1;
    if (node < map_of((world_object *)object)->n_members) return 0;
    PyErr_Format(PyExc_IndexError, "there is no node %u", node);
    return -1;
}

static int get_node(PyObject *object, PyObject *index, uint16_t *out) {
    unsigned long node = PyLong_AsUnsignedLong(index);
    if (PyErr_Occurred() || check_node(object, node > UINT16_MAX ? UINT16_MAX : (unsigned)node)) {
        return -1;
    }
    *out = (uint16_t)node;
    return 0;
}

/* Methods that do one thing to one node. */
#define NODE_METHOD(name)                                              \
    static PyObject *world_##name(PyObject *object, PyObject *index) { \
        uint16_t node;                                                 \
        if (get_node(object, index, &node)) return NULL;               \
        dkv_world_##name(((world_object *)object)->world, node);       \
        return Py_NewRef(Py_None);                                     \
    }

#define NODE_METHOD_ERR(name)                                                                  \
    static PyObject *world_##name(PyObject *object, PyObject *index) {                         \
        uint16_t node;                                                                         \
        if (get_node(object, index, &node)) return NULL;                                       \
        return none_or_raise(object, dkv_world_##name(((world_object *)object)->world, node)); \
    }

NODE_METHOD(crash)
NODE_METHOD(power_cut)
NODE_METHOD(pause)
NODE_METHOD(resume)
NODE_METHOD_ERR(start)
NODE_METHOD_ERR(stop)
NODE_METHOD_ERR(wipe)
NODE_METHOD_ERR(flip)
NODE_METHOD_ERR(spoil)
NODE_METHOD_ERR(lose_file)

static PyObject *world_declare_lost(PyObject *object, PyObject *args) {
    unsigned node, lost;
    if (!PyArg_ParseTuple(args, "II:declare_lost", &node, &lost) || check_node(object, node) ||
        check_node(object, lost)) {
        return NULL;
    }
    char why[DKV_DETAIL_MAX];
    int err = dkv_world_declare_lost(((world_object *)object)->world, (uint16_t)node,
                                     (uint16_t)lost, why);
    return err ? dkv_py_raise(errors_of(object), err, why) : Py_NewRef(Py_None);
}

static PyObject *world_skew(PyObject *object, PyObject *args) {
    unsigned node;
    long long ms;
    if (!PyArg_ParseTuple(args, "IL:skew", &node, &ms) || check_node(object, node)) return NULL;
    dkv_world_skew(((world_object *)object)->world, (uint16_t)node, ms);
    return Py_NewRef(Py_None);
}

static PyObject *world_capacity(PyObject *object, PyObject *args) {
    unsigned node;
    unsigned long long bytes;
    if (!PyArg_ParseTuple(args, "IK:capacity", &node, &bytes) || check_node(object, node)) {
        return NULL;
    }
    dkv_world_capacity(((world_object *)object)->world, (uint16_t)node, bytes);
    return Py_NewRef(Py_None);
}

static PyObject *world_disk_bytes(PyObject *object, PyObject *index) {
    uint16_t node;
    if (get_node(object, index, &node)) return NULL;
    return PyLong_FromUnsignedLongLong(dkv_world_disk_bytes(((world_object *)object)->world, node));
}

static PyObject *world_slow_disk(PyObject *object, PyObject *args) {
    unsigned node, max_us;
    unsigned long long bytes_per_s;
    if (!PyArg_ParseTuple(args, "IIK:slow_disk", &node, &max_us, &bytes_per_s) ||
        check_node(object, node)) {
        return NULL;
    }
    dkv_world_slow_disk(((world_object *)object)->world, (uint16_t)node, max_us, bytes_per_s);
    return Py_NewRef(Py_None);
}

static PyObject *world_slow_way(PyObject *object, PyObject *args) {
    unsigned from, to;
    int heavy_tail;
    unsigned long long bytes_per_s;
    dkv_way way = {0};
    if (!PyArg_ParseTuple(args, "II(IIp)K:slow_way", &from, &to, &way.latency.low_us,
                          &way.latency.high_us, &heavy_tail, &bytes_per_s) ||
        check_node(object, from) || check_node(object, to)) {
        return NULL;
    }
    way.latency.heavy_tail = heavy_tail;
    way.bytes_per_s = bytes_per_s;
    dkv_world_slow_way(((world_object *)object)->world, (uint16_t)from, (uint16_t)to, &way);
    return Py_NewRef(Py_None);
}

static PyObject *world_fail_syncs(PyObject *object, PyObject *args) {
    unsigned node, count;
    if (!PyArg_ParseTuple(args, "II:fail_syncs", &node, &count) || check_node(object, node)) {
        return NULL;
    }
    dkv_world_fail_syncs(((world_object *)object)->world, (uint16_t)node, count);
    return Py_NewRef(Py_None);
}

static PyObject *world_fail_reads(PyObject *object, PyObject *args) {
    unsigned node, count;
    if (!PyArg_ParseTuple(args, "II:fail_reads", &node, &count) || check_node(object, node)) {
        return NULL;
    }
    dkv_world_fail_reads(((world_object *)object)->world, (uint16_t)node, count);
    return Py_NewRef(Py_None);
}

static PyObject *world_way(PyObject *object, PyObject *args,
                           void (*change)(dkv_world *, uint16_t, uint16_t)) {
    unsigned from, to;
    if (!PyArg_ParseTuple(args, "II", &from, &to) || check_node(object, from) ||
        check_node(object, to)) {
        return NULL;
    }
    change(((world_object *)object)->world, (uint16_t)from, (uint16_t)to);
    return Py_NewRef(Py_None);
}

static PyObject *world_cut(PyObject *object, PyObject *args) {
    return world_way(object, args, dkv_world_cut);
}

static PyObject *world_join(PyObject *object, PyObject *args) {
    return world_way(object, args, dkv_world_join);
}

static PyObject *world_heal(PyObject *object, PyObject *unused) {
    (void)unused;
    if (!world_of(object)) return NULL;
    dkv_world_heal(((world_object *)object)->world);
    return Py_NewRef(Py_None);
}

/* "running", "paused" or "down". */
static PyObject *world_state(PyObject *object, PyObject *index) {
    uint16_t node;
    if (get_node(object, index, &node)) return NULL;
    const dkv_world *world = ((world_object *)object)->world;
    const char *state = dkv_world_is_paused(world, node)    ? "paused"
                        : dkv_world_is_running(world, node) ? "running"
                                                            : "down";
    return PyUnicode_FromString(state);
}

/* The version of the value that each running node has under a key, None where there is none. */
static PyObject *world_holding(PyObject *object, PyObject *key_object) {
    dkv_world *world = world_of(object);
    if (!world) return NULL;
    dkv_py_bytes key;
    if (dkv_py_key_get(errors_of(object), key_object, &key)) return NULL;
    dkv_key_hash hash = dkv_hash_key(key.slice);
    dkv_py_bytes_release(&key);
    uint16_t n = map_of((world_object *)object)->n_members;
    PyObject *tuple = PyTuple_New(n);
    for (uint16_t i = 0; tuple && i < n; i++) {
        dkv_store_entry entry = {0};
        dkv_node *node = dkv_world_node(world, i);
        bool held = node && dkv_store_peek(dkv_node_store(node), hash, &entry) == DKV_OK;
        if (!held || entry.kind != DKV_KIND_VALUE) entry.version = (dkv_version){0};
        PyObject *version = version_new(entry.version);
        if (!version || PyTuple_SetItem(tuple, i, version)) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *holding_new(uint16_t node, const dkv_store_entry *held) {
    return Py_BuildValue("(iON)", (int)node, held->kind == DKV_KIND_TOMBSTONE ? Py_True : Py_False,
                         version_new(held->version));
}

typedef struct differences {
    PyObject *list; /* NULL: an exception is set */
} differences;

/* (key, ((node, is a tombstone, version or None), ...)) */
static void add_difference(void *user, const dkv_sim_difference *what) {
    differences *d = user;
    PyObject *holders = d->list ? PyTuple_New(what->n) : NULL;
    for (uint8_t i = 0; holders && i < what->n; i++) {
        PyObject *holding = holding_new(what->nodes[i], &what->held[i]);
        if (!holding || PyTuple_SetItem(holders, i, holding)) Py_CLEAR(holders);
    }
    PyObject *row = holders
                        ? Py_BuildValue("(y#N)", what->key.len ? (const char *)what->key.data : "",
                                        (Py_ssize_t)what->key.len, holders)
                        : NULL;
    if (!row || PyList_Append(d->list, row)) Py_CLEAR(d->list);
    Py_XDECREF(row);
}

static PyObject *world_differences(PyObject *object, PyObject *unused) {
    (void)unused;
    dkv_world *world = world_of(object);
    if (!world) return NULL;
    differences found = {PyList_New(0)};
    uint64_t count;
    int err = dkv_world_differences(world, add_difference, &found, &count);
    if (!err || !found.list) return found.list;
    Py_DECREF(found.list);
    return dkv_py_raise(errors_of(object), err, NULL);
}

/* How many keys there are that differ. */
static PyObject *world_count_differences(PyObject *object, PyObject *unused) {
    (void)unused;
    dkv_world *world = world_of(object);
    uint64_t count;
    if (!world) return NULL;
    int err = dkv_world_differences(world, NULL, NULL, &count);
    if (err) return dkv_py_raise(errors_of(object), err, NULL);
    return PyLong_FromUnsignedLongLong(count);
}

/* ---- what was ---- */

/* The entries of the trace from number `first` on: (time, node or -1, peer or -1, kind, text). */
static PyObject *world_trace(PyObject *object, PyObject *first_object) {
    dkv_world *world = world_of(object);
    if (!world) return NULL;
    uint64_t first = PyLong_AsUnsignedLongLong(first_object);
    if (PyErr_Occurred()) return NULL;
    const dkv_trace *trace = dkv_world_trace(world);
    if (first < dkv_trace_first(trace)) first = dkv_trace_first(trace);
    PyObject *list = PyList_New(0);
    for (uint64_t i = first; list && i < trace->added; i++) {
        const dkv_trace_entry *entry = dkv_trace_at(trace, i);
        int node = entry->node == DKV_TRACE_NOBODY ? -1 : entry->node;
        int peer = entry->peer == DKV_TRACE_NOBODY ? -1 : entry->peer;
        PyObject *text =
            PyUnicode_DecodeUTF8(entry->text, (Py_ssize_t)strlen(entry->text), "replace");
        PyObject *row = text ? Py_BuildValue("(LiisO)", (long long)entry->time_ns, node, peer,
                                             dkv_trace_kind_name(entry->kind), text)
                             : NULL;
        Py_XDECREF(text);
        if (!row || PyList_Append(list, row)) Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

/* (now, ops, messages, events, trace hash) */
static PyObject *world_counts(PyObject *object, PyObject *unused) {
    (void)unused;
    dkv_world *world = world_of(object);
    if (!world) return NULL;
    dkv_sim_counts counts = dkv_world_counts(world);
    return Py_BuildValue("(LKKKK)", (long long)dkv_world_now(world),
                         (unsigned long long)dkv_world_ops(world),
                         (unsigned long long)counts.messages, (unsigned long long)counts.events,
                         (unsigned long long)dkv_world_trace(world)->hash);
}

static PyObject *indices_new(const dkv_member *member) {
    if (!member->token_indices) return Py_NewRef(Py_None);
    PyObject *tuple = PyTuple_New(member->n_token_indices);
    for (uint32_t i = 0; tuple && i < member->n_token_indices; i++) {
        PyObject *index = PyLong_FromUnsignedLong(member->token_indices[i]);
        if (!index || PyTuple_SetItem(tuple, i, index)) Py_CLEAR(tuple);
    }
    return tuple;
}

/* (replication, members), the members as World takes them */
static PyObject *world_map(PyObject *object, PyObject *unused) {
    (void)unused;
    const dkv_cluster_map *map = map_of((world_object *)object);
    PyObject *members = PyTuple_New(map->n_members);
    for (uint16_t i = 0; members && i < map->n_members; i++) {
        const dkv_member *member = &map->members[i];
        PyObject *row =
            Py_BuildValue("(sssssiN)", member->id, member->address, member->host, member->zone,
                          member->token_name, (int)member->weight, indices_new(member));
        if (!row || PyTuple_SetItem(members, i, row)) Py_CLEAR(members);
    }
    return members ? Py_BuildValue("(iN)", (int)map->replication, members) : NULL;
}

/* ---- campaigns ---- */

static PyObject *violation_new(const dkv_violation *violation) {
    PyObject *ops = PyList_New(0);
    for (int i = 0; ops && i < 2; i++) {
        if (violation->ops[i] == DKV_CHECK_NO_OP) continue;
        PyObject *number = PyLong_FromUnsignedLongLong(violation->ops[i]);
        if (!number || PyList_Append(ops, number)) Py_CLEAR(ops);
        Py_XDECREF(number);
    }
    return Py_BuildValue("(ssNs)", dkv_rule_name(violation->rule),
                         dkv_rule_sentence(violation->rule), ops, violation->text);
}

/* How many faults of each kind there were: bit i of `faults` is the i-th. */
static PyObject *fault_counts_new(const dkv_campaign_report *report) {
    PyObject *counts = PyTuple_New(DKV_FAULTS);
    for (int i = 0; counts && i < DKV_FAULTS; i++) {
        PyObject *count = PyLong_FromUnsignedLong(report->n_faults[i]);
        if (!count || PyTuple_SetItem(counts, i, count)) Py_CLEAR(counts);
    }
    return counts;
}

static PyObject *report_new(const dkv_campaign_report *report) {
    return Py_BuildValue(
        "{s:N,s:I,s:N,s:i,s:i,s:K,s:K,s:K,s:K,s:K,s:K,s:L}", "violation",
        report->ok ? Py_NewRef(Py_None) : violation_new(&report->violation), "faults",
        (unsigned)report->faults, "n_faults", fault_counts_new(report), "n_nodes",
        (int)report->n_nodes, "replication", (int)report->replication, "ops",
        (unsigned long long)report->ops, "applied", (unsigned long long)report->applied, "found",
        (unsigned long long)report->found, "messages", (unsigned long long)report->messages,
        "events", (unsigned long long)report->events, "trace_hash",
        (unsigned long long)report->trace_hash, "ns", (long long)report->ns);
}

static PyObject *world_campaign(PyObject *class, PyObject *args) {
    unsigned long long seed;
    int keep_trace;
    dkv_campaign_options options = {0};
    if (!PyArg_ParseTuple(args, "KIp:campaign", &seed, &options.faults, &keep_trace)) {
        return NULL;
    }
    options.keep_trace = keep_trace;
    const dkv_core_state *state = PyType_GetModuleState((PyTypeObject *)class);
    dkv_campaign_report report;
    dkv_world *world = NULL;
    int err;
    Py_BEGIN_ALLOW_THREADS err = dkv_sim_campaign(seed, &options, &report, &world);
    Py_END_ALLOW_THREADS if (err) return dkv_py_raise(&state->errors, err, NULL);
    PyObject *wrapped = wrap((PyTypeObject *)class, world);
    return wrapped ? Py_BuildValue("(NN)", report_new(&report), wrapped) : NULL;
}

static PyObject *fault_names(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *tuple = PyTuple_New(DKV_FAULTS);
    for (int i = 0; tuple && i < DKV_FAULTS; i++) {
        PyObject *name = PyUnicode_FromString(dkv_fault_name((dkv_fault)i));
        if (!name || PyTuple_SetItem(tuple, i, name)) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *plant(PyObject *module, PyObject *name_object) {
    const char *name = NULL;
    if (name_object != Py_None && !(name = PyUnicode_AsUTF8AndSize(name_object, NULL))) return NULL;
    int err = dkv_plant_choose(name);
    if (!err) return Py_NewRef(Py_None);
    const dkv_core_state *state = PyModule_GetState(module);
    return dkv_py_raise_invalid(&state->errors, "no bug %s is planted in this build", name);
}

/* ---- the type ---- */

static PyMethodDef world_methods[] = {
    {"run_for", world_run_for, METH_O,
     "run_for($self, ns, /)\n--\n\nLets so many nanoseconds pass."},
    {"wait", world_wait, METH_O, "wait($self, op, /)\n--\n\nRuns until an operation is done."},
    {"submit", world_submit, METH_VARARGS,
     "submit($self, client, via, op, key, value, level, timeout_ms, hlc, origin, /)\n--\n\nStarts "
     "an operation and returns its number."},
    {"op", world_op, METH_O, "op($self, number, /)\n--\n\nAn operation by its number."},
    {"crash", world_crash, METH_O, "crash($self, node, /)\n--\n\nKills the process."},
    {"power_cut", world_power_cut, METH_O,
     "power_cut($self, node, /)\n--\n\nTakes the machine's power."},
    {"pause", world_pause, METH_O, "pause($self, node, /)\n--\n\nSIGSTOP."},
    {"resume", world_resume, METH_O, "resume($self, node, /)\n--\n\nSIGCONT."},
    {"start", world_start, METH_O, "start($self, node, /)\n--\n\nStarts the process."},
    {"stop", world_stop, METH_O, "stop($self, node, /)\n--\n\nStops the process cleanly."},
    {"declare_lost", world_declare_lost, METH_VARARGS,
     "declare_lost($self, node, lost, /)\n--\n\nAn operator's word to a node."},
    {"wipe", world_wipe, METH_O, "wipe($self, node, /)\n--\n\nReplaces the disk."},
    {"flip", world_flip, METH_O, "flip($self, node, /)\n--\n\nFlips a bit of the disk."},
    {"spoil", world_spoil, METH_O,
     "spoil($self, node, /)\n--\n\nMakes a page of the disk unreadable."},
    {"lose_file", world_lose_file, METH_O,
     "lose_file($self, node, /)\n--\n\nLoses a file of the disk."},
    {"skew", world_skew, METH_VARARGS,
     "skew($self, node, ms, /)\n--\n\nSets the wall clock off by milliseconds."},
    {"capacity", world_capacity, METH_VARARGS,
     "capacity($self, node, bytes_, /)\n--\n\nLimits the disk to so many bytes."},
    {"fail_syncs", world_fail_syncs, METH_VARARGS,
     "fail_syncs($self, node, count, /)\n--\n\nMakes the next syncs fail."},
    {"fail_reads", world_fail_reads, METH_VARARGS,
     "fail_reads($self, node, count, /)\n--\n\nMakes the next reads fail."},
    {"disk_bytes", world_disk_bytes, METH_O,
     "disk_bytes($self, node, /)\n--\n\nWhat the files on a disk need."},
    {"slow_disk", world_slow_disk, METH_VARARGS,
     "slow_disk($self, node, max_us, bytes_per_s, /)\n--\n\nSets how long a disk takes."},
    {"slow_way", world_slow_way, METH_VARARGS,
     "slow_way($self, from_, to, latency, bytes_per_s, /)\n--\n\nSets what the way from a node to "
     "another is like."},
    {"cut", world_cut, METH_VARARGS,
     "cut($self, from_, to, /)\n--\n\nCuts the way from one node to another."},
    {"join", world_join, METH_VARARGS,
     "join($self, from_, to, /)\n--\n\nJoins the way from one node to another."},
    {"heal", world_heal, METH_NOARGS, "heal($self, /)\n--\n\nJoins all ways."},
    {"state", world_state, METH_O,
     "state($self, node, /)\n--\n\n\"running\", \"paused\" or \"down\"."},
    {"holding", world_holding, METH_O,
     "holding($self, key, /)\n--\n\nThe version that each node holds of a key."},
    {"differences", world_differences, METH_NOARGS,
     "differences($self, /)\n--\n\nThe keys whose replicas differ."},
    {"count_differences", world_count_differences, METH_NOARGS,
     "count_differences($self, /)\n--\n\nHow many there are."},
    {"trace", world_trace, METH_O, "trace($self, first, /)\n--\n\nThe trace from an entry on."},
    {"counts", world_counts, METH_NOARGS,
     "counts($self, /)\n--\n\nReturns (now, ops, messages, events, trace hash)."},
    {"map", world_map, METH_NOARGS, "map($self, /)\n--\n\nReturns (replication, members)."},
    {"campaign", world_campaign, METH_VARARGS | METH_CLASS,
     "campaign($type, seed, faults, trace, /)\n--\n\nRuns one; returns (report, world)."},
    {0},
};

static PyType_Slot world_slots[] = {
    {Py_tp_doc,
     "World(replication, members, seed, timing, net, disk_max_us, segment_bytes, durability, "
     "acquainted, trace)"
     "\n--\n\nSee dkv.sim.World."},
    {Py_tp_new, world_new},
    {Py_tp_dealloc, world_dealloc},
    {Py_tp_methods, world_methods},
    {0, NULL},
};

static PyType_Spec world_spec = {
    .name = "dkv._core.World",
    .basicsize = sizeof(world_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = world_slots,
};

static PyMethodDef sim_functions[] = {
    {"fault_names", fault_names, METH_NOARGS,
     "fault_names()\n--\n\nThe kinds of faults of a campaign; bit i of `faults` is the i-th."},
    {"plant", plant, METH_O,
     "plant(name, /)\n--\n\nCommits a planted bug, in a build with PLANT=1; None: no bug."},
    {0},
};

int dkv_core_sim_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &world_spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    if (failed) return -1;
    return PyModule_AddFunctions(module, sim_functions);
}
