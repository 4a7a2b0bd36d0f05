/* dkv's error codes as Python exceptions. The one table from code to exception class stands in
 * dkv/errors.py; each extension module reads it once, when it is imported, into its state. */
#ifndef DKV_PY_ERRORS_H
#define DKV_PY_ERRORS_H

#include <Python.h>

typedef struct dkv_py_errors {
    PyObject *classes; /* dkv.errors.TABLE: dict from code name to exception class */
} dkv_py_errors;

/* Imports dkv.errors. 0, or -1 with an exception set. */
int dkv_py_errors_init(dkv_py_errors *errors);

/* For the module's m_traverse and m_clear. */
int dkv_py_errors_traverse(const dkv_py_errors *errors, visitproc visit, void *arg);
void dkv_py_errors_clear(dkv_py_errors *errors);

/* An exception for `err` that says `detail`, or the code's own sentence if that is NULL or "".
 * Returns a new reference, or NULL with another exception set. */
PyObject *dkv_py_error_new(const dkv_py_errors *errors, int err, const char *detail);

/* Raises dkv_py_error_new. Returns NULL always, so that a caller may return it. */
PyObject *dkv_py_raise(const dkv_py_errors *errors, int err, const char *detail);

/* Raises INVALID with a formatted detail, as PyErr_Format would. Returns NULL always. */
PyObject *dkv_py_raise_invalid(const dkv_py_errors *errors, const char *format, ...);

/* The C table as a list of (name, number, sentence), for the test that compares the two. */
PyObject *dkv_py_error_table(void);

#endif
