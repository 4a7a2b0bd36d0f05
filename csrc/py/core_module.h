/* The extension module dkv._core: ring and simulator, linked without gRPC. Each part of it is a
 * file core_<part>.c with one function that adds its types and functions to the module. */
#ifndef DKV_PY_CORE_MODULE_H
#define DKV_PY_CORE_MODULE_H

#include <Python.h>

#include "py/errors.h"

typedef struct dkv_core_state {
    dkv_py_errors errors;
} dkv_core_state;

/* The state of the module that made the type of `self`. Types of this module cannot be subclassed
 * (their Python classes wrap them), so the type of an instance is the module's own. */
dkv_core_state *dkv_core_state_of(PyObject *self);

/* core_ring.c: the type Ring and the function position. 0, or -1 with an exception set. */
int dkv_core_ring_exec(PyObject *module);

/* core_sim.c: the type World and the functions fault_names and plant. Likewise. */
int dkv_core_sim_exec(PyObject *module);

#endif
