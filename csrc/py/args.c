#include "py/args.h"

#include <string.h>

#include "base/err.h"
#include "base/text.h"
#include "model/record.h"

/* The UTF-8 of a str, living as long as the str. A str may hold half a surrogate pair, which has
 * none. */
static const char *utf8_of(const dkv_py_errors *errors, PyObject *text, const char *what,
                           Py_ssize_t *len) {
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, len);
    if (!utf8 && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        dkv_py_raise_invalid(errors, "%s is not valid Unicode: %A", what, text);
    }
    return utf8;
}

int dkv_py_bytes_get(const dkv_py_errors *errors, PyObject *object, const char *what,
                     dkv_py_bytes *out) {
    if (PyUnicode_Check(object)) {
        Py_ssize_t len;
        const char *utf8 = utf8_of(errors, object, what, &len);
        if (!utf8) return -1;
        /* The view keeps the str alive, and with it its UTF-8. */
        if (PyBuffer_FillInfo(&out->view, object, (void *)utf8, len, 1, PyBUF_SIMPLE)) return -1;
    } else if (!PyObject_CheckBuffer(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be str or bytes-like, not %R", what,
                     (PyObject *)Py_TYPE(object));
        return -1;
    } else if (PyObject_GetBuffer(object, &out->view, PyBUF_SIMPLE)) {
        return -1;
    }
    out->slice = (dkv_slice){out->view.buf, (size_t)out->view.len};
    return 0;
}

void dkv_py_raise_key_length(const dkv_py_errors *errors, size_t len) {
    char most_text[DKV_COUNT_TEXT], len_text[DKV_COUNT_TEXT];
    dkv_py_raise_invalid(errors, "a key must have 1 to %s bytes, not %s",
                         dkv_count_text(DKV_KEY_MAX, most_text), dkv_count_text(len, len_text));
}

int dkv_py_key_get(const dkv_py_errors *errors, PyObject *object, dkv_py_bytes *out) {
    if (dkv_py_bytes_get(errors, object, "a key", out)) return -1;
    size_t len = out->slice.len;
    if (len >= 1 && len <= DKV_KEY_MAX) return 0;
    dkv_py_bytes_release(out);
    dkv_py_raise_key_length(errors, len);
    return -1;
}

void dkv_py_bytes_release(dkv_py_bytes *bytes) {
    PyBuffer_Release(&bytes->view);
}

/* ---- cluster maps --------------------------------------------------------------------------- */

static int get_text(const dkv_py_errors *errors, PyObject *text, const char *what, char **out) {
    Py_ssize_t len;
    const char *utf8 = utf8_of(errors, text, what, &len);
    if (!utf8) return -1;
    if (strlen(utf8) != (size_t)len) {
        dkv_py_raise_invalid(errors, "%s must not contain NUL: %R", what, text);
        return -1;
    }
    *out = (char *)utf8; /* dkv_member is not const, but only read from here on */
    return 0;
}

/* A whole number in low..high; numbers beyond any C type are refused in the same words. */
static int get_number(const dkv_py_errors *errors, PyObject *object, const char *what,
                      long long low, long long high, long long *out) {
    int overflow;
    if (!PyLong_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be int, not %R", what, (PyObject *)Py_TYPE(object));
        return -1;
    }
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow || number < low || number > high) {
        dkv_py_raise_invalid(errors, "%s must be %lld to %lld, not %R", what, low, high, object);
        return -1;
    }
    *out = number;
    return 0;
}

/* *out is owned by the caller, to be freed with PyMem_Free. */
static int get_token_indices(const dkv_py_errors *errors, PyObject *object, uint32_t **out,
                             uint32_t *n_out) {
    Py_ssize_t n = PySequence_Size(object);
    if (n < 0) return -1;
    if (n > DKV_MEMBER_TOKENS_MAX) {
        dkv_py_raise_invalid(errors, "a node can have at most %u token indices, not %zd",
                             DKV_MEMBER_TOKENS_MAX, n);
        return -1;
    }
    uint32_t *indices = PyMem_Malloc(((size_t)n + 1) * sizeof *indices);
    if (!indices) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        long long index = 0;
        PyObject *item = PySequence_GetItem(object, i);
        int failed = !item || get_number(errors, item, "a token index", 0, UINT32_MAX, &index);
        Py_XDECREF(item);
        if (failed) {
            PyMem_Free(indices);
            return -1;
        }
        indices[i] = (uint32_t)index;
    }
    *out = indices;
    *n_out = (uint32_t)n;
    return 0;
}

/* Says why dkv_cluster_map_add would refuse `member`, or adds it. */
static int add_checked(const dkv_py_errors *errors, dkv_cluster_map *map,
                       const dkv_member *member) {
    char why[160];
    int err = dkv_member_check(member, why, sizeof why);
    if (!err && dkv_cluster_map_find(map, member->id) >= 0) {
        dkv_py_raise_invalid(errors, "node %s is there twice", member->id);
        return -1;
    }
    if (!err && map->n_members >= DKV_MEMBERS_MAX) {
        dkv_py_raise_invalid(errors, "a ring can have at most %u nodes", DKV_MEMBERS_MAX);
        return -1;
    }
    const char *detail = err ? why : NULL;
    if (!err) err = dkv_cluster_map_add(map, member);
    if (err) dkv_py_raise(errors, err, detail);
    return err ? -1 : 0;
}

static int add_member(const dkv_py_errors *errors, dkv_cluster_map *map, PyObject *tuple) {
    PyObject *id, *address, *host, *zone, *token_name, *weight, *indices;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a member must be a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(tuple, "UUUUUOO", &id, &address, &host, &zone, &token_name, &weight,
                          &indices)) {
        return -1;
    }
    dkv_member member = {0};
    long long number;
    if (get_text(errors, id, "a node id", &member.id) ||
        get_text(errors, address, "an address", &member.address) ||
        get_text(errors, host, "a host", &member.host) ||
        get_text(errors, zone, "a zone", &member.zone) ||
        get_text(errors, token_name, "a token name", &member.token_name) ||
        get_number(errors, weight, "weight", 1, DKV_WEIGHT_MAX, &number)) {
        return -1;
    }
    member.weight = (uint16_t)number;
    if (indices != Py_None &&
        get_token_indices(errors, indices, &member.token_indices, &member.n_token_indices)) {
        return -1;
    }
    int failed = add_checked(errors, map, &member);
    PyMem_Free(member.token_indices);
    return failed;
}

static int add_members(const dkv_py_errors *errors, dkv_cluster_map *map, PyObject *members) {
    Py_ssize_t n = PySequence_Size(members);
    if (n < 0) return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *tuple = PySequence_GetItem(members, i);
        int failed = !tuple || add_member(errors, map, tuple);
        Py_XDECREF(tuple);
        if (failed) return -1;
    }
    return 0;
}

int dkv_py_map_new(const dkv_py_errors *errors, const char *cluster, PyObject *replication,
                   PyObject *members, dkv_cluster_map **out) {
    long long n;
    if (get_number(errors, replication, "replication", 1, DKV_REPLICATION_MAX, &n)) return -1;
    dkv_cluster_map *map;
    int err = dkv_cluster_map_new(cluster, (uint8_t)n, &map);
    if (err) {
        dkv_py_raise(errors, err, err == DKV_ERR_INVALID ? "not a cluster name" : NULL);
        return -1;
    }
    if (add_members(errors, map, members)) goto fail;
    char why[160];
    err = dkv_cluster_map_check(map, why, sizeof why);
    if (err) {
        dkv_py_raise(errors, err, why);
        goto fail;
    }
    *out = map;
    return 0;

fail:
    dkv_cluster_map_del(map);
    return -1;
}
