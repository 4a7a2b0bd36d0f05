#include "py/net_module.h"

#include <unistd.h>

#include "base/err.h"

dkv_net_state *dkv_net_state_of(PyObject *self) {
    return PyType_GetModuleState(Py_TYPE(self));
}

bool dkv_net_is_forked(const dkv_net_state *state) {
    static pid_t first_user; /* of the process, like gRPC itself; guarded by the GIL */
    if (first_user == 0) first_user = getpid();
    if (first_user == getpid()) return false;
    dkv_py_raise(&state->errors, DKV_ERR_PRECONDITION,
                 "this process was made by fork() from one that uses dkv, which gRPC does not "
                 "survive; start processes with the method \"spawn\"");
    return true;
}

/* ---- calls of the client that ask whether to go on ------------------------------------------ */

/* The state of this thread while the GIL is released around such a call. */
static _Thread_local PyThreadState *released;

void dkv_net_release_gil(void) {
    released = PyEval_SaveThread();
}

void dkv_net_take_gil(void) {
    PyEval_RestoreThread(released);
}

bool dkv_net_is_interrupted(void *closed) {
    dkv_net_take_gil();
    bool interrupted = PyErr_CheckSignals() != 0 || *(const bool *)closed;
    dkv_net_release_gil();
    return interrupted;
}

/* ---- the interpreter's end ------------------------------------------------------------------ */

static PyObject *net_ending(PyObject *module, PyObject *unused) {
    (void)unused;
    dkv_net_state *state = PyModule_GetState(module);
    state->ender = PyThread_get_thread_ident();
    Py_RETURN_NONE;
}

void dkv_net_end_quietly(const dkv_net_state *state) {
    if (state->ender == 0 || state->ender == PyThread_get_thread_ident()) return;
    PyErr_SetNone(PyExc_SystemExit);
}

bool dkv_net_is_finalizing(void) {
    PyObject *ask = PySys_GetObject("is_finalizing"); /* borrowed; NULL once sys is cleared */
    PyObject *answer = ask ? PyObject_CallNoArgs(ask) : NULL;
    bool finalizing = answer != Py_False;
    if (!answer) PyErr_Clear();
    Py_XDECREF(answer);
    return finalizing;
}

/* ---- the module ----------------------------------------------------------------------------- */

/* The attribute `name` of the module `from`, as a new reference. */
static PyObject *import_class(const char *from, const char *name) {
    PyObject *module = PyImport_ImportModule(from);
    if (!module) return NULL;
    PyObject *class = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return class;
}

static int net_exec(PyObject *module) {
    dkv_net_state *state = PyModule_GetState(module);
    if (dkv_py_errors_init(&state->errors)) return -1;
    state->version = import_class("dkv.version", "Version");
    if (!state->version) return -1;
    state->put_result = import_class("dkv.results", "PutResult");
    if (!state->put_result) return -1;
    state->get_result = import_class("dkv.results", "GetResult");
    if (!state->get_result) return -1;
    if (dkv_net_client_exec(module)) return -1;
    if (dkv_net_node_exec(module)) return -1;
    return dkv_net_bench_exec(module);
}

static int net_traverse(PyObject *module, visitproc visit, void *arg) {
    dkv_net_state *state = PyModule_GetState(module);
    Py_VISIT(state->client_type);
    Py_VISIT(state->version);
    Py_VISIT(state->put_result);
    Py_VISIT(state->get_result);
    return dkv_py_errors_traverse(&state->errors, visit, arg);
}

static int net_clear(PyObject *module) {
    dkv_net_state *state = PyModule_GetState(module);
    Py_CLEAR(state->client_type);
    Py_CLEAR(state->version);
    Py_CLEAR(state->put_result);
    Py_CLEAR(state->get_result);
    dkv_py_errors_clear(&state->errors);
    return 0;
}

static void net_free(void *module) {
    net_clear(module);
}

static PyMethodDef net_methods[] = {
    {"ending", net_ending, METH_NOARGS,
     "ending()\n--\n\nTells that this thread is ending the interpreter. Errors in other threads "
     "end "
     "them quietly from now on."},
    {0},
};

static PyModuleDef_Slot net_slots[] = {
    {Py_mod_exec, net_exec},
    {0, NULL},
};

static PyModuleDef net_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dkv._net",
    .m_doc = "The native part of dkv that talks to the network. Use dkv.connect instead.",
    .m_size = sizeof(dkv_net_state),
    .m_methods = net_methods,
    .m_slots = net_slots,
    .m_traverse = net_traverse,
    .m_clear = net_clear,
    .m_free = net_free,
};

PyMODINIT_FUNC PyInit__net(void) {
    return PyModuleDef_Init(&net_definition);
}
