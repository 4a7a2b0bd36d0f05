#include "py/core_module.h"

dkv_core_state *dkv_core_state_of(PyObject *self) {
    return PyType_GetModuleState(Py_TYPE(self));
}

static PyObject *error_table(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return dkv_py_error_table();
}

static int core_exec(PyObject *module) {
    dkv_core_state *state = PyModule_GetState(module);
    if (dkv_py_errors_init(&state->errors)) return -1;
    return dkv_core_ring_exec(module) || dkv_core_sim_exec(module) ? -1 : 0;
}

static int core_traverse(PyObject *module, visitproc visit, void *arg) {
    dkv_core_state *state = PyModule_GetState(module);
    return dkv_py_errors_traverse(&state->errors, visit, arg);
}

static int core_clear(PyObject *module) {
    dkv_core_state *state = PyModule_GetState(module);
    dkv_py_errors_clear(&state->errors);
    return 0;
}

static void core_free(void *module) {
    core_clear(module);
}

static PyMethodDef core_methods[] = {
    {"error_table", error_table, METH_NOARGS,
     "error_table()\n--\n\nThe error codes of the C core: (name, number, sentence) each."},
    {0},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    {0, NULL},
};

static PyModuleDef core_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dkv._core",
    .m_doc = "The native part of dkv that needs no network. Use dkv.Ring and dkv.sim instead.",
    .m_size = sizeof(dkv_core_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&core_definition);
}
