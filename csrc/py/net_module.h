/* The extension module dkv._net: client and embedded node. Importing it loads gRPC; `import dkv`
 * alone does not. Each type is a file net_<type>.c with one function that adds it to the module. */
#ifndef DKV_PY_NET_MODULE_H
#define DKV_PY_NET_MODULE_H

#include <protobuf-c/protobuf-c.h>
#include <Python.h>
#include <stdbool.h>

#include "client/client.h"
#include "py/errors.h"

typedef struct dkv_net_state {
    dkv_py_errors errors;
    PyObject *client_type; /* dkv._net.Client */
    unsigned long ender;   /* the thread that ends the interpreter; 0 before */
    PyObject *version;     /* dkv.version.Version */
    PyObject *put_result;  /* dkv.results.PutResult */
    PyObject *get_result;  /* dkv.results.GetResult */
} dkv_net_state;

/* The state of the module that made the type of `self`. The types cannot be subclassed. */
dkv_net_state *dkv_net_state_of(PyObject *self);

/* gRPC does not survive fork(). True, with an exception set, in a process that was forked from one
 * that had used it; else the process counts as one that uses it. */
bool dkv_net_is_forked(const dkv_net_state *state);

/* ---- calls of the client that ask whether to go on ---- */

/* Releases the GIL around such a call, and takes it again. */
void dkv_net_release_gil(void);
void dkv_net_take_gil(void);

/* For dkv_client_options.interrupted. `closed` points to a bool that ends the wait, too. True with
 * an exception set after Ctrl-C, without one if closed. */
bool dkv_net_is_interrupted(void *closed);

/* ---- the interpreter's end ---- */

/* Nodes are stopped under daemon threads that still use them. What these threads are told then is
 * of no use to anybody: replaces the exception that is set by SystemExit, which ends the thread
 * without a word, if the interpreter is ending and this thread is not the one that ends it. */
void dkv_net_end_quietly(const dkv_net_state *state);

/* Whether threads that were inside a call are gone for good, and what they had on their stacks. */
bool dkv_net_is_finalizing(void);

/* ---- net_client.c, for what lives beside a client ---- */

/* The client of `object`, which is a dkv._net.Client: borrows until dkv_net_client_leave, which
 * must follow, even after a close. NULL with an exception set if it is closed. */
dkv_client *dkv_net_client_enter(PyObject *object);
void dkv_net_client_leave(PyObject *object);

/* ---- types: 0, or -1 with an exception set ---- */

int dkv_net_client_exec(PyObject *module);
int dkv_net_node_exec(PyObject *module);
int dkv_net_bench_exec(PyObject *module);

/* ---- net_results.c ---- */

typedef enum dkv_net_form {
    DKV_NET_VALUE,    /* a read: bytes */
    DKV_NET_DETAILED, /* a read: GetResult; a write: PutResult */
} dkv_net_form;

/* What a successful operation returns. A new reference, or NULL with an exception set. */
PyObject *dkv_net_result_new(const dkv_net_state *state, const dkv_client_op *op,
                             dkv_net_form form);

/* The exception for a failed operation, with all that is known of it. A new reference, or NULL with
 * another exception set. */
PyObject *dkv_net_error_new(const dkv_net_state *state, const dkv_client_op *op);

/* dkv.version.Version. A new reference, or NULL with an exception set. */
PyObject *dkv_net_version_new(const dkv_net_state *state, dkv_version version);

/* ---- net_batch.c ---- */

/* Runs `op` for each of `keys` (a list), with `values` (a list of the same length) for DKV_OP_PUT.
 * Returns a list with, for each key, its result, its exception, or None for a read of an absent
 * key; NULL with an exception set if the whole call failed. */
PyObject *dkv_net_run_many(const dkv_net_state *state, dkv_client *client,
                           const dkv_request *request, PyObject *keys, PyObject *values);

/* ---- net_message.c ---- */

/* A serialised message of the type of `descriptor` as a dict of its fields. A new reference, or
 * NULL with an exception set. */
PyObject *dkv_net_message_new(const dkv_net_state *state,
                              const ProtobufCMessageDescriptor *descriptor, dkv_slice bytes);

#endif
