/* Finished operations as Python objects. */
#include <string.h>

#include "base/err.h"
#include "py/net_module.h"

/* An instance of `class`, a NamedTuple, with the content of `fields` (stolen; may be NULL after an
 * error). As class._make(fields), but without a call of Python code. */
static PyObject *named_tuple_new(PyObject *class, PyObject *fields) {
    PyObject *args = fields ? PyTuple_Pack(1, fields) : NULL;
    Py_XDECREF(fields);
    if (!args) return NULL;
    newfunc tuple_new = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    PyObject *made = tuple_new((PyTypeObject *)class, args, NULL);
    Py_DECREF(args);
    return made;
}

PyObject *dkv_net_version_new(const dkv_net_state *state, dkv_version version) {
    return named_tuple_new(state->version, Py_BuildValue("(KK)", (unsigned long long)version.hlc,
                                                         (unsigned long long)version.origin));
}

static PyObject *names_new(uint8_t n, const char names[][DKV_NAME_MAX + 1]) {
    PyObject *tuple = PyTuple_New(n);
    for (uint8_t i = 0; tuple && i < n; i++) {
        PyObject *name = PyUnicode_DecodeUTF8(names[i], (Py_ssize_t)strlen(names[i]), "replace");
        if (!name || PyTuple_SetItem(tuple, i, name)) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *value_new(const dkv_client_op *op) {
    return PyBytes_FromStringAndSize((const char *)op->value, (Py_ssize_t)op->value_len);
}

PyObject *dkv_net_result_new(const dkv_net_state *state, const dkv_client_op *op,
                             dkv_net_form form) {
    bool is_read = op->request.op == DKV_OP_GET;
    if (is_read && form == DKV_NET_VALUE) return value_new(op);
    PyObject *version = dkv_net_version_new(state, op->version);
    PyObject *replicas = version ? names_new(op->n_holding, op->holding) : NULL;
    PyObject *value = replicas && is_read ? value_new(op) : NULL;
    PyObject *result = NULL;
    if (value) {
        result = named_tuple_new(state->get_result, PyTuple_Pack(3, value, version, replicas));
    } else if (replicas && !is_read) {
        result = named_tuple_new(state->put_result, PyTuple_Pack(2, version, replicas));
    }
    Py_XDECREF(value);
    Py_XDECREF(replicas);
    Py_XDECREF(version);
    return result;
}

/* Sets an attribute to `value` (stolen; may be NULL after an error). */
static int set(PyObject *object, const char *name, PyObject *value) {
    int failed = value ? PyObject_SetAttrString(object, name, value) : -1;
    Py_XDECREF(value);
    return failed;
}

static PyObject *outcome_new(dkv_outcome outcome) {
    switch (outcome) {
    case DKV_OUTCOME_APPLIED: return PyUnicode_FromString("applied");
    case DKV_OUTCOME_NOT_APPLIED: return PyUnicode_FromString("not applied");
    case DKV_OUTCOME_UNKNOWN: return PyUnicode_FromString("unknown");
    case DKV_OUTCOME_NONE: break;
    }
    return Py_NewRef(Py_None);
}

PyObject *dkv_net_error_new(const dkv_net_state *state, const dkv_client_op *op) {
    PyObject *error = dkv_py_error_new(&state->errors, op->err, op->detail);
    if (!error) return NULL;
    bool has_version = !dkv_version_is_none(op->version);
    if (set(error, "outcome", outcome_new(op->outcome)) ||
        set(error, "nodes", names_new(op->n_missing, op->missing)) ||
        set(error, "holding", names_new(op->n_holding, op->holding)) ||
        (has_version && set(error, "version", dkv_net_version_new(state, op->version)))) {
        Py_CLEAR(error);
    }
    return error;
}
