/* dkv._net.Client: a dkv_client that any number of Python threads may use, close and forget.
 *
 * `users` counts the calls under way. close() ends them all; the last one to leave frees the
 * client. Both are touched with the GIL held only. */
#include <stdlib.h>
#include <string.h>

#include "admin.pb-c.h"
#include "base/err.h"
#include "py/args.h"
#include "py/net_module.h"

#define SLICE_MS 200u /* between two looks at signals */

typedef struct client_object {
    PyObject_HEAD dkv_client *client;
    size_t users;
    bool closed;
} client_object;

/* ---- users ---------------------------------------------------------------------------------- */

static void free_client(client_object *self) {
    dkv_client *client = self->client;
    self->client = NULL;
    Py_BEGIN_ALLOW_THREADS;
    dkv_client_del(client);
    Py_END_ALLOW_THREADS;
}

/* Returns 0 and counts a user, or -1 with an exception set. */
static int enter(client_object *self) {
    const dkv_net_state *state = dkv_net_state_of((PyObject *)self);
    if (dkv_net_is_forked(state)) return -1;
    if (self->closed) {
        dkv_py_raise(&state->errors, DKV_ERR_PRECONDITION, "this client is closed");
        dkv_net_end_quietly(state);
        return -1;
    }
    self->users++;
    return 0;
}

static void leave(client_object *self) {
    self->users--;
    if (self->closed && self->users == 0) free_client(self);
    if (PyErr_Occurred()) dkv_net_end_quietly(dkv_net_state_of((PyObject *)self));
}

dkv_client *dkv_net_client_enter(PyObject *object) {
    client_object *self = (client_object *)object;
    return enter(self) ? NULL : self->client;
}

void dkv_net_client_leave(PyObject *object) {
    leave((client_object *)object);
}

static PyObject *client_close(PyObject *object, PyObject *unused) {
    (void)unused;
    client_object *self = (client_object *)object;
    if (self->closed) Py_RETURN_NONE;
    if (self->users > 0 && dkv_net_is_finalizing()) Py_RETURN_NONE;
    self->closed = true;
    self->users++;
    Py_BEGIN_ALLOW_THREADS;
    dkv_client_close(self->client);
    Py_END_ALLOW_THREADS;
    leave(self);
    Py_RETURN_NONE;
}

/* ---- lifecycle ------------------------------------------------------------------------------ */

static int connect_client(client_object *self, const char *seeds, uint32_t timeout_ms,
                          uint32_t hedge_ms) {
    const dkv_net_state *state = dkv_net_state_of((PyObject *)self);
    dkv_client_options options = {
        .seeds = seeds,
        .timeout_ms = timeout_ms,
        .hedge_ms = hedge_ms,
        .interrupted = dkv_net_is_interrupted,
        .interrupted_user = &self->closed,
    };
    char why[DKV_DETAIL_MAX] = "";
    dkv_net_release_gil();
    int err = dkv_client_new(&options, &self->client, why);
    dkv_net_take_gil();
    if (!err) return 0;
    if (!PyErr_Occurred()) dkv_py_raise(&state->errors, err, why);
    dkv_net_end_quietly(state);
    return -1;
}

static PyObject *client_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"seeds", "timeout_ms", "hedge_ms", NULL};
    const char *seeds;
    unsigned timeout_ms, hedge_ms;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sII:Client", names, &seeds, &timeout_ms,
                                     &hedge_ms)) {
        return NULL;
    }
    if (dkv_net_is_forked(PyType_GetModuleState(type))) return NULL;
    client_object *self = PyObject_New(client_object, type);
    if (!self) return NULL;
    self->client = NULL;
    self->users = 0;
    self->closed = false;
    if (connect_client(self, seeds, timeout_ms, hedge_ms)) {
        self->closed = true;
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void client_dealloc(PyObject *object) {
    client_object *self = (client_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->client) free_client(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- single operations ---------------------------------------------------------------------- */

/* Starts and waits. Returns 0 with op->err set, or -1 with an exception set. */
static int run_op(client_object *self, dkv_client_op *op) {
    bool done = false;
    int err;
    Py_BEGIN_ALLOW_THREADS;
    err = dkv_client_run(self->client, op, SLICE_MS, &done);
    Py_END_ALLOW_THREADS;
    if (err) {
        const char *why = err == DKV_ERR_PRECONDITION ? "this client is closed" : NULL;
        dkv_py_raise(&dkv_net_state_of((PyObject *)self)->errors, err, why);
        return -1;
    }
    while (!done) {
        bool interrupted = PyErr_CheckSignals() != 0;
        Py_BEGIN_ALLOW_THREADS;
        if (interrupted) {
            dkv_client_abandon(self->client, op, 1);
            done = true;
        } else {
            done = dkv_client_wait(self->client, op, 1, SLICE_MS);
        }
        Py_END_ALLOW_THREADS;
        if (interrupted) return -1;
    }
    return 0;
}

static PyObject *result_of(client_object *self, dkv_client_op *op, dkv_net_form form) {
    const dkv_net_state *state = dkv_net_state_of((PyObject *)self);
    if (enter(self)) return NULL;
    PyObject *result = NULL;
    if (run_op(self, op) == 0) {
        if (!op->err) {
            result = dkv_net_result_new(state, op, form);
        } else {
            PyObject *error = dkv_net_error_new(state, op);
            if (error) PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_XDECREF(error);
        }
    }
    free(op->value);
    leave(self);
    return result;
}

/* Arguments (key, level, timeout_ms) of all operations without a value. */
static PyObject *run_key(PyObject *object, PyObject *args, dkv_op kind, dkv_net_form form) {
    PyObject *key;
    unsigned level, timeout_ms;
    if (!PyArg_ParseTuple(args, "OII", &key, &level, &timeout_ms)) return NULL;
    dkv_py_bytes pin;
    if (dkv_py_bytes_get(&dkv_net_state_of(object)->errors, key, "a key", &pin)) return NULL;
    dkv_client_op op = {.request = {.op = kind, .level = (dkv_level)level}};
    op.request.timeout_ms = timeout_ms;
    op.request.key = pin.slice;
    PyObject *result = result_of((client_object *)object, &op, form);
    dkv_py_bytes_release(&pin);
    return result;
}

static PyObject *client_get(PyObject *object, PyObject *args) {
    return run_key(object, args, DKV_OP_GET, DKV_NET_VALUE);
}

static PyObject *client_get_versioned(PyObject *object, PyObject *args) {
    return run_key(object, args, DKV_OP_GET, DKV_NET_DETAILED);
}

static PyObject *client_delete(PyObject *object, PyObject *args) {
    return run_key(object, args, DKV_OP_DELETE, DKV_NET_DETAILED);
}

static PyObject *client_put(PyObject *object, PyObject *args) {
    const dkv_py_errors *errors = &dkv_net_state_of(object)->errors;
    PyObject *key, *value;
    unsigned level, timeout_ms;
    if (!PyArg_ParseTuple(args, "OOII:put", &key, &value, &level, &timeout_ms)) return NULL;
    dkv_py_bytes key_pin, value_pin;
    if (dkv_py_bytes_get(errors, key, "a key", &key_pin)) return NULL;
    PyObject *result = NULL;
    if (dkv_py_bytes_get(errors, value, "a value", &value_pin)) goto out;
    dkv_client_op op = {.request = {.op = DKV_OP_PUT, .level = (dkv_level)level}};
    op.request.timeout_ms = timeout_ms;
    op.request.key = key_pin.slice;
    op.request.value = value_pin.slice;
    result = result_of((client_object *)object, &op, DKV_NET_DETAILED);
    dkv_py_bytes_release(&value_pin);
out:
    dkv_py_bytes_release(&key_pin);
    return result;
}

/* ---- many operations ------------------------------------------------------------------------ */

static bool has_error(PyObject *results) {
    bool found = false;
    for (Py_ssize_t i = 0; !found && i < PyList_Size(results); i++) {
        found = PyExceptionInstance_Check(PyList_GetItem(results, i));
    }
    return found;
}

static PyObject *run_many(PyObject *object, dkv_op kind, PyObject *keys, PyObject *values,
                          unsigned level, unsigned timeout_ms) {
    client_object *self = (client_object *)object;
    dkv_request request = {.op = kind, .level = (dkv_level)level, .timeout_ms = timeout_ms};
    if (enter(self)) return NULL;
    PyObject *results =
        dkv_net_run_many(dkv_net_state_of(object), self->client, &request, keys, values);
    if (results && has_error(results)) {
        dkv_net_end_quietly(dkv_net_state_of(object));
        if (PyErr_Occurred()) Py_CLEAR(results);
    }
    leave(self);
    return results;
}

static PyObject *client_put_many(PyObject *object, PyObject *args) {
    PyObject *keys, *values;
    unsigned level, timeout_ms;
    if (!PyArg_ParseTuple(args, "O!O!II:put_many", &PyList_Type, &keys, &PyList_Type, &values,
                          &level, &timeout_ms)) {
        return NULL;
    }
    if (PyList_Size(keys) != PyList_Size(values)) {
        PyErr_SetString(PyExc_ValueError, "as many values as keys are needed");
        return NULL;
    }
    return run_many(object, DKV_OP_PUT, keys, values, level, timeout_ms);
}

static PyObject *run_many_keys(PyObject *object, PyObject *args, dkv_op kind) {
    PyObject *keys;
    unsigned level, timeout_ms;
    if (!PyArg_ParseTuple(args, "O!II", &PyList_Type, &keys, &level, &timeout_ms)) return NULL;
    return run_many(object, kind, keys, NULL, level, timeout_ms);
}

static PyObject *client_get_many(PyObject *object, PyObject *args) {
    return run_many_keys(object, args, DKV_OP_GET);
}

static PyObject *client_delete_many(PyObject *object, PyObject *args) {
    return run_many_keys(object, args, DKV_OP_DELETE);
}

/* ---- what it knows -------------------------------------------------------------------------- */

static PyObject *indices_new(const dkv_member *member) {
    if (!member->token_indices) return Py_NewRef(Py_None);
    PyObject *tuple = PyTuple_New(member->n_token_indices);
    for (uint32_t i = 0; tuple && i < member->n_token_indices; i++) {
        PyObject *index = PyLong_FromUnsignedLong(member->token_indices[i]);
        if (!index || PyTuple_SetItem(tuple, i, index)) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *member_new(const dkv_member *member) {
    PyObject *indices = indices_new(member);
    if (!indices) return NULL;
    return Py_BuildValue("(sssssIN)", member->id, member->address, member->host, member->zone,
                         member->token_name, (unsigned)member->weight, indices);
}

static PyObject *map_new(const dkv_cluster_map *map) {
    PyObject *members = PyTuple_New(map->n_members);
    for (uint16_t i = 0; members && i < map->n_members; i++) {
        PyObject *member = member_new(&map->members[i]);
        if (!member || PyTuple_SetItem(members, i, member)) Py_CLEAR(members);
    }
    if (!members) return NULL;
    return Py_BuildValue("(sKiN)", map->cluster, (unsigned long long)map->epoch, map->replication,
                         members);
}

static PyObject *client_map(PyObject *object, PyObject *unused) {
    (void)unused;
    client_object *self = (client_object *)object;
    if (enter(self)) return NULL;
    PyObject *map = map_new(dkv_ring_map(dkv_client_ring(self->client)));
    leave(self);
    return map;
}

static PyObject *client_last_seen(PyObject *object, PyObject *unused) {
    (void)unused;
    client_object *self = (client_object *)object;
    if (enter(self)) return NULL;
    dkv_version seen;
    Py_BEGIN_ALLOW_THREADS;
    seen = dkv_client_last_seen(self->client);
    Py_END_ALLOW_THREADS;
    leave(self);
    return dkv_net_version_new(dkv_net_state_of(object), seen);
}

static PyObject *client_stats(PyObject *object, PyObject *unused) {
    (void)unused;
    client_object *self = (client_object *)object;
    if (enter(self)) return NULL;
    dkv_client_stats stats;
    Py_BEGIN_ALLOW_THREADS;
    stats = dkv_client_stats_get(self->client);
    Py_END_ALLOW_THREADS;
    leave(self);
    return Py_BuildValue("(KKK)", (unsigned long long)stats.reads, (unsigned long long)stats.hedged,
                         (unsigned long long)stats.passed_over);
}

/* ---- calls to nodes ------------------------------------------------------------------------- */

#define SHARES_REQUEST_MAX 16u /* tag and fixed64 take 9 */

/* One for each id in the tuple `nodes`, to be freed with questions_free; NULL with an exception
 * set.
 */
static dkv_client_question *questions_new(PyObject *nodes) {
    Py_ssize_t n = PyTuple_Size(nodes);
    dkv_client_question *questions = PyMem_Calloc((size_t)n + 1, sizeof *questions);
    if (!questions) PyErr_NoMemory();
    for (Py_ssize_t i = 0; questions && i < n; i++) {
        questions[i].node = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(nodes, i), NULL);
        if (questions[i].node) continue;
        PyMem_Free(questions);
        questions = NULL;
    }
    return questions;
}

static void questions_free(dkv_client_question *questions, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) dkv_buf_free(&questions[i].reply);
    PyMem_Free(questions);
}

/* The replies, messages as `descriptor` tells, as dicts; an Error where there is none. */
static PyObject *answers_new(const dkv_net_state *state, const dkv_client_question *questions,
                             Py_ssize_t n, const ProtobufCMessageDescriptor *descriptor) {
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; list && i < n; i++) {
        const dkv_client_question *q = &questions[i];
        PyObject *answer = q->err
                               ? dkv_py_error_new(&state->errors, q->err, q->why)
                               : dkv_net_message_new(state, descriptor, dkv_buf_slice(&q->reply));
        if (!answer || PyList_SetItem(list, i, answer)) Py_CLEAR(list);
    }
    return list;
}

/* Calls `method` of several nodes at the same time. Returns a list of dict or Error. */
static PyObject *call_nodes(client_object *self, const char *method, dkv_client_question *questions,
                            Py_ssize_t n, unsigned timeout_ms,
                            const ProtobufCMessageDescriptor *descriptor) {
    if (enter(self)) return NULL;
    dkv_net_release_gil();
    dkv_client_call(self->client, method, timeout_ms, questions, (size_t)n);
    dkv_net_take_gil();
    PyObject *answers = NULL;
    if (!PyErr_Occurred()) {
        answers = answers_new(dkv_net_state_of((PyObject *)self), questions, n, descriptor);
    }
    leave(self);
    return answers;
}

static PyObject *client_status(PyObject *object, PyObject *args) {
    PyObject *nodes;
    unsigned timeout_ms;
    if (!PyArg_ParseTuple(args, "O!I:status", &PyTuple_Type, &nodes, &timeout_ms)) return NULL;
    dkv_client_question *questions = questions_new(nodes);
    if (!questions) return NULL;
    Py_ssize_t n = PyTuple_Size(nodes);
    PyObject *answers = call_nodes((client_object *)object, "/dkv.v1.Admin/Status", questions, n,
                                   timeout_ms, &dkv__v1__status_reply__descriptor);
    questions_free(questions, n);
    return answers;
}

/* Into `bytes`, of which the request has SHARES_REQUEST_MAX. -1 with an exception set. */
static int ask_shares(dkv_client_question *question, PyObject *first, uint8_t *bytes) {
    Dkv__V1__SharesRequest request;
    dkv__v1__shares_request__init(&request);
    request.first = PyLong_AsUnsignedLongLong(first);
    if (PyErr_Occurred()) return -1;
    question->request = (dkv_slice){bytes, dkv__v1__shares_request__pack(&request, bytes)};
    return 0;
}

static PyObject *client_shares(PyObject *object, PyObject *args) {
    PyObject *nodes, *firsts, *answers = NULL;
    unsigned timeout_ms;
    if (!PyArg_ParseTuple(args, "O!O!I:shares", &PyTuple_Type, &nodes, &PyTuple_Type, &firsts,
                          &timeout_ms)) {
        return NULL;
    }
    Py_ssize_t n = PyTuple_Size(nodes);
    dkv_client_question *questions = questions_new(nodes);
    if (!questions) return NULL;
    uint8_t *bytes = PyMem_Calloc((size_t)n + 1, SHARES_REQUEST_MAX);
    int failed = !bytes;
    if (failed) PyErr_NoMemory();
    for (Py_ssize_t i = 0; !failed && i < n; i++) {
        PyObject *first = PyTuple_GetItem(firsts, i); /* NULL with an exception: too few */
        failed = !first || ask_shares(&questions[i], first, bytes + (size_t)i * SHARES_REQUEST_MAX);
    }
    if (!failed) {
        answers = call_nodes((client_object *)object, "/dkv.v1.Admin/Shares", questions, n,
                             timeout_ms, &dkv__v1__shares_reply__descriptor);
    }
    PyMem_Free(bytes);
    questions_free(questions, n);
    return answers;
}

static PyObject *client_declare_lost(PyObject *object, PyObject *args) {
    const dkv_net_state *state = dkv_net_state_of(object);
    PyObject *nodes;
    const char *lost;
    unsigned timeout_ms;
    uint8_t bytes[DKV_NAME_MAX + 4]; /* tag and length take 3 at most */
    if (!PyArg_ParseTuple(args, "O!sI:declare_lost", &PyTuple_Type, &nodes, &lost, &timeout_ms)) {
        return NULL;
    }
    if (strlen(lost) > DKV_NAME_MAX) {
        dkv_py_raise(&state->errors, DKV_ERR_INVALID, "no node has an id as long as this");
        return NULL;
    }
    Dkv__V1__DeclareLostRequest request;
    dkv__v1__declare_lost_request__init(&request);
    request.node_id = (char *)lost;
    dkv_slice packed = {bytes, dkv__v1__declare_lost_request__pack(&request, bytes)};
    Py_ssize_t n = PyTuple_Size(nodes);
    dkv_client_question *questions = questions_new(nodes);
    if (!questions) return NULL;
    for (Py_ssize_t i = 0; i < n; i++) questions[i].request = packed;
    PyObject *answers = call_nodes((client_object *)object, "/dkv.v1.Admin/DeclareLost", questions,
                                   n, timeout_ms, &dkv__v1__declare_lost_reply__descriptor);
    questions_free(questions, n);
    return answers;
}

/* ---- the type ------------------------------------------------------------------------------- */

static PyMethodDef client_methods[] = {
    {"get", client_get, METH_VARARGS,
     "get($self, key, level, timeout_ms, /)\n--\n\nReturns bytes."},
    {"get_versioned", client_get_versioned, METH_VARARGS,
     "get_versioned($self, key, level, timeout_ms, /)\n--\n\nReturns GetResult."},
    {"put", client_put, METH_VARARGS,
     "put($self, key, value, level, timeout_ms, /)\n--\n\nReturns PutResult."},
    {"delete", client_delete, METH_VARARGS,
     "delete($self, key, level, timeout_ms, /)\n--\n\nReturns PutResult."},
    {"get_many", client_get_many, METH_VARARGS,
     "get_many($self, keys, level, timeout_ms, /)\n--\n\nReturns a list of bytes, None or Error."},
    {"put_many", client_put_many, METH_VARARGS,
     "put_many($self, keys, values, level, timeout_ms, /)\n--\n\nReturns a list of PutResult or "
     "Error."},
    {"delete_many", client_delete_many, METH_VARARGS,
     "delete_many($self, keys, level, timeout_ms, /)\n--\n\nReturns a list of PutResult or Error."},
    {"map", client_map, METH_NOARGS,
     "map($self, /)\n--\n\nReturns (cluster, epoch, replication, members)."},
    {"last_seen", client_last_seen, METH_NOARGS,
     "last_seen($self, /)\n--\n\nThe newest version seen."},
    {"stats", client_stats, METH_NOARGS,
     "stats($self, /)\n--\n\nReturns (reads, hedged, passed_over)."},
    {"status", client_status, METH_VARARGS,
     "status($self, nodes, timeout_ms, /)\n--\n\nReturns a list of dict or Error."},
    {"shares", client_shares, METH_VARARGS,
     "shares($self, nodes, firsts, timeout_ms, /)\n--\n\nReturns a list of dict or Error."},
    {"declare_lost", client_declare_lost, METH_VARARGS,
     "declare_lost($self, nodes, lost, timeout_ms, /)\n--\n\nReturns a list of dict or Error."},
    {"close", client_close, METH_NOARGS,
     "close($self, /)\n--\n\nEnds all calls under way, in all threads."},
    {0},
};

static PyType_Slot client_slots[] = {
    {Py_tp_doc, "Client(seeds, timeout_ms, hedge_ms)\n--\n\nSee dkv.Client."},
    {Py_tp_new, client_new},
    {Py_tp_dealloc, client_dealloc},
    {Py_tp_methods, client_methods},
    {0, NULL},
};

static PyType_Spec client_spec = {
    .name = "dkv._net.Client",
    .basicsize = sizeof(client_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = client_slots,
};

int dkv_net_client_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &client_spec, NULL);
    if (!type) return -1;
    dkv_net_state *state = PyModule_GetState(module);
    state->client_type = type;
    return PyModule_AddType(module, (PyTypeObject *)type);
}
