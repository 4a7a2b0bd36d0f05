/* dkv._core.Ring: a dkv_ring with Python's manners. Immutable, so the GIL may be given up wherever
 * it is read; nodes are spoken of by id. dkv/ring.py is the class that people see. */
#include "py/core_module.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/hash.h"
#include "model/record.h"
#include "py/args.h"
#include "ring/ring.h"

typedef struct ring_object {
    PyObject base; /* what PyObject_HEAD stands for */
    dkv_ring *ring;
    PyObject *nodes; /* tuple of the ids, in order of index */
} ring_object;

/* A tuple of the ids at `indices`, sharing the strings of `self->nodes`. */
static PyObject *ids_new(const ring_object *self, const uint16_t *indices, unsigned n) {
    PyObject *ids = PyTuple_New(n);
    for (unsigned i = 0; ids && i < n; i++) {
        PyObject *id = PyTuple_GetItem(self->nodes, indices[i]);
        PyTuple_SetItem(ids, i, Py_NewRef(id));
    }
    return ids;
}

static PyObject *all_ids_new(const dkv_cluster_map *map) {
    PyObject *ids = PyTuple_New(map->n_members);
    for (uint16_t m = 0; ids && m < map->n_members; m++) {
        PyObject *id = PyUnicode_FromString(map->members[m].id);
        if (!id || PyTuple_SetItem(ids, m, id)) Py_CLEAR(ids);
    }
    return ids;
}

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"replication", "members", NULL};
    PyObject *replication, *members;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:Ring", names, &replication, &members)) {
        return NULL;
    }
    const dkv_core_state *state = PyType_GetModuleState(type);
    dkv_cluster_map *map;
    if (dkv_py_map_new(&state->errors, "ring", replication, members, &map)) return NULL;

    ring_object *self = PyObject_New(ring_object, type);
    if (!self) goto out;
    self->ring = NULL;
    self->nodes = all_ids_new(map);
    if (!self->nodes) goto fail;
    int err;
    Py_BEGIN_ALLOW_THREADS err = dkv_ring_new(map, &self->ring);
    Py_END_ALLOW_THREADS if (!err) goto out;
    dkv_py_raise(&state->errors, err, NULL);

fail:
    Py_CLEAR(self);
out:
    dkv_cluster_map_del(map);
    return (PyObject *)self;
}

static void ring_dealloc(PyObject *object) {
    ring_object *self = (ring_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    dkv_ring_del(self->ring);
    Py_XDECREF(self->nodes);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- lookups -------------------------------------------------------------------------------- */

static int get_position(const dkv_py_errors *errors, PyObject *key, uint64_t *out) {
    dkv_py_bytes bytes;
    if (dkv_py_key_get(errors, key, &bytes)) return -1;
    *out = dkv_hash_key(bytes.slice).token;
    dkv_py_bytes_release(&bytes);
    return 0;
}

static PyObject *module_position(PyObject *module, PyObject *key) {
    const dkv_core_state *state = PyModule_GetState(module);
    uint64_t position;
    if (get_position(&state->errors, key, &position)) return NULL;
    return PyLong_FromUnsignedLongLong(position);
}

static PyObject *replicas_at(const ring_object *self, uint64_t position) {
    return ids_new(self, dkv_ring_replicas(self->ring, position), dkv_ring_replication(self->ring));
}

static PyObject *ring_replicas(PyObject *object, PyObject *key) {
    uint64_t position;
    if (get_position(&dkv_core_state_of(object)->errors, key, &position)) return NULL;
    return replicas_at((ring_object *)object, position);
}

static PyObject *ring_list_at(PyObject *object, PyObject *position_object) {
    unsigned long long position = PyLong_AsUnsignedLongLong(position_object);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return NULL;
        PyErr_Clear();
        return dkv_py_raise_invalid(&dkv_core_state_of(object)->errors,
                                    "a position must be 0 to 2**64 - 1, not %R", position_object);
    }
    return replicas_at((ring_object *)object, position);
}

/* ---- many keys at once ---------------------------------------------------------------------- */

/* Where the answers go: for each key a row with the indices of its first `places` nodes. */
typedef struct answers {
    Py_buffer view;
    Py_ssize_t n_rows;
    unsigned places;
} answers;

/* Takes a writable buffer of ssize_t. On success the caller must release `view`. */
static int answers_get(const ring_object *self, PyObject *buffer, unsigned places, answers *out) {
    if (places < 1 || places > dkv_ring_replication(self->ring)) {
        PyErr_SetString(PyExc_ValueError, "places must be 1 to the replication");
        return -1;
    }
    Py_ssize_t row_bytes = (Py_ssize_t)(places * sizeof(Py_ssize_t));
    if (PyObject_GetBuffer(buffer, &out->view, PyBUF_WRITABLE)) return -1;
    if (out->view.len % row_bytes || (uintptr_t)out->view.buf % _Alignof(Py_ssize_t)) {
        PyErr_SetString(PyExc_ValueError, "out must hold whole rows of ssize_t");
        PyBuffer_Release(&out->view);
        return -1;
    }
    out->n_rows = out->view.len / row_bytes;
    out->places = places;
    return 0;
}

static int check_rows(const answers *out, Py_ssize_t n_keys) {
    if (n_keys == out->n_rows) return 0;
    PyErr_Format(PyExc_ValueError, "out has %zd rows for %zd keys", out->n_rows, n_keys);
    return -1;
}

static void fill_row(const dkv_ring *ring, dkv_slice key, const answers *out, Py_ssize_t row) {
    const uint16_t *list = dkv_ring_replicas(ring, dkv_hash_key(key).token);
    Py_ssize_t *to = (Py_ssize_t *)out->view.buf + row * (Py_ssize_t)out->places;
    for (unsigned place = 0; place < out->places; place++) to[place] = list[place];
}

/* Adds to the exception that is set which of the keys it is about. */
static void note_index(Py_ssize_t index) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *note = PyUnicode_FromFormat("This is keys[%zd].", index);
    PyObject *done = note ? PyObject_CallMethod(error, "add_note", "O", note) : NULL;
    if (!done) PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(note);
    PyErr_Restore(type, error, traceback);
}

static int fill_from_list(PyObject *object, PyObject *keys, const answers *out) {
    for (Py_ssize_t row = 0; row < out->n_rows; row++) {
        PyObject *key = PySequence_GetItem(keys, row);
        if (!key) return -1;
        dkv_py_bytes bytes;
        int failed = dkv_py_key_get(&dkv_core_state_of(object)->errors, key, &bytes);
        Py_DECREF(key);
        if (failed) {
            note_index(row);
            return -1;
        }
        fill_row(((ring_object *)object)->ring, bytes.slice, out, row);
        dkv_py_bytes_release(&bytes);
    }
    return 0;
}

static PyObject *ring_locate(PyObject *object, PyObject *args) {
    PyObject *keys, *buffer;
    unsigned places;
    answers out;
    if (!PyArg_ParseTuple(args, "OIO:locate", &keys, &places, &buffer)) return NULL;
    Py_ssize_t n_keys = PySequence_Size(keys);
    if (n_keys < 0 || answers_get((ring_object *)object, buffer, places, &out)) return NULL;
    int failed = check_rows(&out, n_keys) || fill_from_list(object, keys, &out);
    PyBuffer_Release(&out.view);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* The key in field `row`: all but the NULs at the end of the field. */
static dkv_slice key_in(const Py_buffer *fields, Py_ssize_t width, Py_ssize_t row) {
    dkv_slice key = {(const uint8_t *)fields->buf + row * width, (size_t)width};
    while (key.len && key.data[key.len - 1] == 0) key.len--;
    return key;
}

/* Returns how many rows it filled: it stops at a key of a wrong length. */
static Py_ssize_t fill_from_fields(const dkv_ring *ring, const Py_buffer *fields, Py_ssize_t width,
                                   const answers *out) {
    Py_ssize_t row = 0;
    for (; row < out->n_rows; row++) {
        dkv_slice key = key_in(fields, width, row);
        if (key.len < 1 || key.len > DKV_KEY_MAX) break;
        fill_row(ring, key, out, row);
    }
    return row;
}

static int locate_fields(PyObject *object, const Py_buffer *fields, Py_ssize_t width,
                         const answers *out) {
    if (width < 1 || fields->len % width) {
        PyErr_SetString(PyExc_ValueError, "keys must be whole fields of `width` bytes");
        return -1;
    }
    if (check_rows(out, fields->len / width)) return -1;
    const dkv_ring *ring = ((ring_object *)object)->ring;
    Py_ssize_t filled;
    Py_BEGIN_ALLOW_THREADS filled = fill_from_fields(ring, fields, width, out);
    Py_END_ALLOW_THREADS if (filled == out->n_rows) return 0;
    dkv_py_raise_key_length(&dkv_core_state_of(object)->errors, key_in(fields, width, filled).len);
    note_index(filled);
    return -1;
}

static PyObject *ring_locate_fields(PyObject *object, PyObject *args) {
    PyObject *buffer;
    Py_buffer fields;
    Py_ssize_t width;
    unsigned places;
    answers out;
    if (!PyArg_ParseTuple(args, "y*nIO:locate_fields", &fields, &width, &places, &buffer)) {
        return NULL;
    }
    int failed = answers_get((ring_object *)object, buffer, places, &out);
    if (!failed) {
        failed = locate_fields(object, &fields, width, &out);
        PyBuffer_Release(&out.view);
    }
    PyBuffer_Release(&fields);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* ---- tokens and shares ---------------------------------------------------------------------- */

static int u64_cmp(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static PyObject *tuple_of_u64(const uint64_t *numbers, size_t n) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);
    for (size_t i = 0; tuple && i < n; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(numbers[i]);
        if (!number || PyTuple_SetItem(tuple, (Py_ssize_t)i, number)) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *ring_tokens(PyObject *object, PyObject *node) {
    const ring_object *self = (ring_object *)object;
    Py_ssize_t index = PySequence_Index(self->nodes, node);
    if (index < 0) {
        PyErr_Clear();
        return dkv_py_raise_invalid(&dkv_core_state_of(object)->errors,
                                    "there is no node %R in this ring", node);
    }
    const dkv_member *member = &dkv_ring_map(self->ring)->members[index];
    uint32_t n = dkv_member_n_tokens(member);
    uint64_t *tokens = PyMem_Malloc(n * sizeof *tokens);
    if (!tokens) return PyErr_NoMemory();
    for (uint32_t i = 0; i < n; i++) tokens[i] = dkv_member_token(member, i);
    qsort(tokens, n, sizeof *tokens, u64_cmp);
    PyObject *tuple = tuple_of_u64(tokens, n);
    PyMem_Free(tokens);
    return tuple;
}

typedef struct portion {
    uint64_t positions; /* modulo 2^64, which is the whole circle */
    bool some;          /* tells the whole circle from nothing */
} portion;

/* For each member, the part of the circle for which it is among the first `places` of the list. */
static void sum_portions(const dkv_ring *ring, unsigned places, portion *portions) {
    uint32_t n = dkv_ring_intervals(ring);
    uint64_t after = dkv_ring_end(ring, n - 1);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end = dkv_ring_end(ring, i);
        const uint16_t *list = dkv_ring_list(ring, i);
        for (unsigned place = 0; place < places; place++) {
            portions[list[place]].positions += end - after;
            portions[list[place]].some = true;
        }
        after = end;
    }
}

static double share_of(portion part) {
    if (part.some && part.positions == 0) return 1.0;
    return ldexp((double)part.positions, -64);
}

static PyObject *ring_shares(PyObject *object, PyObject *places_object) {
    const ring_object *self = (ring_object *)object;
    unsigned long places = PyLong_AsUnsignedLong(places_object);
    if (PyErr_Occurred()) return NULL;
    unsigned most = dkv_ring_replication(self->ring);
    if (places < 1 || places > most) {
        return dkv_py_raise_invalid(&dkv_core_state_of(object)->errors,
                                    "places must be 1 to %u, not %lu", most, places);
    }
    portion portions[DKV_MEMBERS_MAX] = {0};
    sum_portions(self->ring, (unsigned)places, portions);
    uint16_t n = dkv_ring_map(self->ring)->n_members;
    PyObject *tuple = PyTuple_New(n);
    for (uint16_t m = 0; tuple && m < n; m++) {
        PyObject *share = PyFloat_FromDouble(share_of(portions[m]));
        if (!share || PyTuple_SetItem(tuple, m, share)) Py_CLEAR(tuple);
    }
    return tuple;
}

/* ---- differences ---------------------------------------------------------------------------- */

static PyObject *change_new(const ring_object *from, const ring_object *to,
                            const dkv_ring_change *change) {
    PyObject *before = ids_new(from, change->before_list, change->n_before);
    PyObject *after = ids_new(to, change->after_list, change->n_after);
    PyObject *tuple = NULL;
    if (before && after) {
        tuple = Py_BuildValue("(KKOO)", (unsigned long long)change->after,
                              (unsigned long long)change->upto, before, after);
    }
    Py_XDECREF(before);
    Py_XDECREF(after);
    return tuple;
}

static PyObject *ring_diff(PyObject *object, PyObject *other) {
    if (Py_TYPE(other) != Py_TYPE(object)) {
        return PyErr_Format(PyExc_TypeError, "a ring is compared with a ring, not %R",
                            (PyObject *)Py_TYPE(other));
    }
    const ring_object *from = (ring_object *)object;
    const ring_object *to = (ring_object *)other;
    dkv_ring_change *changes;
    size_t n;
    int err;
    Py_BEGIN_ALLOW_THREADS err = dkv_ring_diff(from->ring, to->ring, &changes, &n);
    Py_END_ALLOW_THREADS if (err) return dkv_py_raise(&dkv_core_state_of(object)->errors, err,
                                                      NULL);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *change = change_new(from, to, &changes[i]);
        if (!change || PyList_SetItem(list, (Py_ssize_t)i, change)) Py_CLEAR(list);
    }
    free(changes);
    return list;
}

/* ---- the type ------------------------------------------------------------------------------- */

static PyObject *ring_get_nodes(PyObject *object, void *closure) {
    (void)closure;
    return Py_NewRef(((ring_object *)object)->nodes);
}

static PyObject *ring_get_replication(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(dkv_ring_replication(((ring_object *)object)->ring));
}

static PyObject *ring_get_intervals(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(dkv_ring_intervals(((ring_object *)object)->ring));
}

static PyMethodDef ring_methods[] = {
    {"replicas", ring_replicas, METH_O,
     "replicas($self, key, /)\n--\n\nThe nodes of a key, owner first."},
    {"list_at", ring_list_at, METH_O,
     "list_at($self, position, /)\n--\n\nThe nodes of a position, owner first."},
    {"locate", ring_locate, METH_VARARGS,
     "locate($self, keys, places, out, /)\n--\n\nWrites the indices of the first `places` nodes of "
     "each key of a sequence to a buffer."},
    {"locate_fields", ring_locate_fields, METH_VARARGS,
     "locate_fields($self, keys, width, places, out, /)\n--\n\nThe same for keys that stand in "
     "fields of `width` bytes, with NULs behind them."},
    {"tokens", ring_tokens, METH_O,
     "tokens($self, node, /)\n--\n\nThe tokens of a node, ascending."},
    {"shares", ring_shares, METH_O,
     "shares($self, places, /)\n--\n\nFor each node, the fraction of the circle that has it among "
     "the first `places` nodes."},
    {"diff", ring_diff, METH_O,
     "diff($self, other, /)\n--\n\n(after, upto, nodes before, nodes after) of each change."},
    {0},
};

static PyGetSetDef ring_getters[] = {
    {"nodes", ring_get_nodes, NULL, "The ids of all nodes, ascending.", NULL},
    {"replication", ring_get_replication, NULL, "How many nodes hold each key.", NULL},
    {"intervals", ring_get_intervals, NULL, "Into how many intervals the tokens cut it.", NULL},
    {0},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_doc, "Ring(replication, members)\n--\n\nSee dkv.Ring."},
    {Py_tp_new, ring_new},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_methods, ring_methods},
    {Py_tp_getset, ring_getters},
    {0, NULL},
};

static PyType_Spec ring_spec = {
    .name = "dkv._core.Ring",
    .basicsize = sizeof(ring_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ring_slots,
};

static PyMethodDef ring_functions[] = {
    {"position", module_position, METH_O, "position(key, /)\n--\n\nThe position of a key."},
    {0},
};

int dkv_core_ring_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &ring_spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    if (failed) return -1;
    return PyModule_AddFunctions(module, ring_functions);
}
