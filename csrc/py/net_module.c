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
    Py_VISIT(state->version);
    Py_VISIT(state->put_result);
    Py_VISIT(state->get_result);
    return dkv_py_errors_traverse(&state->errors, visit, arg);
}

static int net_clear(PyObject *module) {
    dkv_net_state *state = PyModule_GetState(module);
    Py_CLEAR(state->version);
    Py_CLEAR(state->put_result);
    Py_CLEAR(state->get_result);
    dkv_py_errors_clear(&state->errors);
    return 0;
}

static void net_free(void *module) {
    net_clear(module);
}

static PyModuleDef_Slot net_slots[] = {
    {Py_mod_exec, net_exec},
    {0, NULL},
};

static PyModuleDef net_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dkv._net",
    .m_doc = "The native part of dkv that talks to the network. Use dkv.connect instead.",
    .m_size = sizeof(dkv_net_state),
    .m_slots = net_slots,
    .m_traverse = net_traverse,
    .m_clear = net_clear,
    .m_free = net_free,
};

PyMODINIT_FUNC PyInit__net(void) {
    return PyModuleDef_Init(&net_definition);
}
