/* Arguments from Python: text, bytes, keys and cluster maps, checked as strictly as from anywhere
 * else. Functions return 0, or -1 with a Python exception set. */
#ifndef DKV_PY_ARGS_H
#define DKV_PY_ARGS_H

#include <Python.h>

#include "base/bytes.h"
#include "py/errors.h"
#include "ring/cluster_map.h"

/* The bytes of a Python object, pinned while they are in use, also without the GIL. */
typedef struct dkv_py_bytes {
    dkv_slice slice;
    Py_buffer view;
} dkv_py_bytes;

/* Takes a str (as UTF-8) or any object with a contiguous buffer. `what` names it in errors ("a
 * value"). On success the caller must release it. */
int dkv_py_bytes_get(const dkv_py_errors *errors, PyObject *object, const char *what,
                     dkv_py_bytes *out);

/* The same, refusing what cannot be a key. */
int dkv_py_key_get(const dkv_py_errors *errors, PyObject *object, dkv_py_bytes *out);

/* Sets the exception for a key of `len` bytes, which no key may have. */
void dkv_py_raise_key_length(const dkv_py_errors *errors, size_t len);

void dkv_py_bytes_release(dkv_py_bytes *bytes);

/* Builds and checks a cluster map. `members` is a sequence of tuples (id, address, host, zone,
 * token_name, weight, token_indices or None). *out is owned by the caller. */
int dkv_py_map_new(const dkv_py_errors *errors, const char *cluster, PyObject *replication,
                   PyObject *members, dkv_cluster_map **out);

#endif
