/* Many operations in one call.
 *
 * They pass through two sections of DKV_CLIENT_WINDOW operations each, filled in turn: while Python
 * objects are made of one section's results, the other's operations are on their way. So the
 * memory in use does not grow with the number of keys. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "py/args.h"
#include "py/net_module.h"

#define SECTIONS 2
#define SLICE_MS 200u /* between two looks at signals */

typedef struct section {
    dkv_client_op *ops;
    dkv_py_bytes *pins; /* 2 for each operation: key and value */
    size_t n;           /* operations under way */
    size_t first;       /* index of the first one in the whole call */
} section;

typedef struct many {
    const dkv_net_state *state;
    dkv_client *client;
    const dkv_request *request; /* what all have in common */
    PyObject *keys;
    PyObject *values; /* NULL unless they are puts */
    PyObject *results;
    size_t n;
    section sections[SECTIONS];
} many;

/* What is not bytes is noticed before the first operation is sent. */
static int check_bytes(const dkv_py_errors *errors, PyObject *list, const char *what) {
    Py_ssize_t n = PyList_Size(list);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyList_GetItem(list, i);
        if (PyBytes_Check(item)) continue;
        dkv_py_bytes pin;
        if (dkv_py_bytes_get(errors, item, what, &pin)) return -1;
        dkv_py_bytes_release(&pin);
    }
    return 0;
}

/* ---- one section ---------------------------------------------------------------------------- */

static void section_release(section *s) {
    for (size_t i = 0; i < s->n; i++) {
        free(s->ops[i].value);
        dkv_py_bytes_release(&s->pins[2 * i]);
        dkv_py_bytes_release(&s->pins[2 * i + 1]);
    }
    s->n = 0;
}

/* Takes what is in flight back; after this its memory may be released. */
static void section_abandon(const many *m, section *s) {
    if (s->n == 0) return;
    Py_BEGIN_ALLOW_THREADS;
    dkv_client_abandon(m->client, s->ops, s->n);
    Py_END_ALLOW_THREADS;
    section_release(s);
}

static int add_op(const many *m, section *s, size_t index) {
    dkv_py_bytes *pins = &s->pins[2 * s->n];
    PyObject *key = PyList_GetItem(m->keys, (Py_ssize_t)index);
    if (!key || dkv_py_bytes_get(&m->state->errors, key, "a key", &pins[0])) return -1;
    pins[1] = (dkv_py_bytes){0};
    if (m->values) {
        PyObject *value = PyList_GetItem(m->values, (Py_ssize_t)index);
        if (!value || dkv_py_bytes_get(&m->state->errors, value, "a value", &pins[1])) {
            dkv_py_bytes_release(&pins[0]);
            return -1;
        }
    }
    dkv_client_op *op = &s->ops[s->n++];
    *op = (dkv_client_op){.request = *m->request};
    op->request.key = pins[0].slice;
    op->request.value = pins[1].slice;
    return 0;
}

/* The client was closed by another thread: what was not sent before is told like what was. */
static void section_cancel(section *s) {
    for (size_t i = 0; i < s->n; i++) {
        dkv_client_op *op = &s->ops[i];
        bool is_write = op->request.op != DKV_OP_GET;
        op->done = true;
        op->err = DKV_ERR_CANCELLED;
        op->outcome = is_write ? DKV_OUTCOME_NOT_APPLIED : DKV_OUTCOME_NONE;
        snprintf(op->detail, sizeof op->detail, "the client was closed");
    }
}

static int section_start(const many *m, section *s, size_t first) {
    s->first = first;
    for (size_t i = first; i < m->n && i < first + DKV_CLIENT_WINDOW; i++) {
        if (add_op(m, s, i)) {
            section_release(s);
            return -1;
        }
    }
    int err;
    Py_BEGIN_ALLOW_THREADS;
    err = dkv_client_start(m->client, s->ops, s->n);
    Py_END_ALLOW_THREADS;
    if (err == DKV_ERR_PRECONDITION) {
        section_cancel(s);
    } else if (err) {
        section_release(s);
        dkv_py_raise(&m->state->errors, err, NULL);
        return -1;
    }
    return 0;
}

static PyObject *outcome_of(const many *m, const dkv_client_op *op) {
    if (!op->err) return dkv_net_result_new(m->state, op, DKV_NET_VALUE);
    bool is_absent = op->err == DKV_ERR_NOT_FOUND && op->request.op == DKV_OP_GET;
    return is_absent ? Py_NewRef(Py_None) : dkv_net_error_new(m->state, op);
}

/* Waits for the section and enters its results. */
static int section_finish(const many *m, section *s) {
    bool done = false;
    while (!done) {
        Py_BEGIN_ALLOW_THREADS;
        done = dkv_client_wait(m->client, s->ops, s->n, SLICE_MS);
        Py_END_ALLOW_THREADS;
        if (!done && PyErr_CheckSignals()) return -1;
    }
    for (size_t i = 0; i < s->n; i++) {
        PyObject *result = outcome_of(m, &s->ops[i]);
        if (!result || PyList_SetItem(m->results, (Py_ssize_t)(s->first + i), result)) return -1;
    }
    section_release(s);
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int many_alloc(many *m) {
    size_t n = m->n < DKV_CLIENT_WINDOW ? m->n : DKV_CLIENT_WINDOW;
    for (int i = 0; i < SECTIONS; i++) {
        section *s = &m->sections[i];
        s->ops = PyMem_Malloc((n + 1) * sizeof *s->ops);
        s->pins = PyMem_Malloc((n + 1) * 2 * sizeof *s->pins);
        if (s->ops && s->pins) continue;
        PyErr_NoMemory();
        return -1;
    }
    m->results = PyList_New((Py_ssize_t)m->n);
    return m->results ? 0 : -1;
}

static int many_run(many *m) {
    int at = 0; /* the section that is older, or free */
    for (size_t first = 0; first < m->n; first += DKV_CLIENT_WINDOW) {
        section *s = &m->sections[at];
        if (s->n && section_finish(m, s)) return -1;
        if (section_start(m, s, first)) return -1;
        at = (at + 1) % SECTIONS;
    }
    for (int i = 0; i < SECTIONS; i++) {
        section *s = &m->sections[(at + i) % SECTIONS];
        if (s->n && section_finish(m, s)) return -1;
    }
    return 0;
}

PyObject *dkv_net_run_many(const dkv_net_state *state, dkv_client *client,
                           const dkv_request *request, PyObject *keys, PyObject *values) {
    many m = {.state = state, .client = client, .request = request, .keys = keys, .values = values};
    m.n = (size_t)PyList_Size(keys);
    if (check_bytes(&state->errors, keys, "a key")) return NULL;
    if (values && check_bytes(&state->errors, values, "a value")) return NULL;
    int failed = many_alloc(&m);
    if (!failed) failed = many_run(&m);
    for (int i = 0; i < SECTIONS; i++) {
        section_abandon(&m, &m.sections[i]);
        PyMem_Free(m.sections[i].ops);
        PyMem_Free(m.sections[i].pins);
    }
    if (failed) Py_CLEAR(m.results);
    return m.results;
}
