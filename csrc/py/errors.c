#include "py/errors.h"

#include <stdarg.h>
#include <string.h>

#include "base/err.h"

int dkv_py_errors_init(dkv_py_errors *errors) {
    PyObject *module = PyImport_ImportModule("dkv.errors");
    if (!module) return -1;
    errors->classes = PyObject_GetAttrString(module, "TABLE");
    Py_DECREF(module);
    return errors->classes ? 0 : -1;
}

int dkv_py_errors_traverse(const dkv_py_errors *errors, visitproc visit, void *arg) {
    Py_VISIT(errors->classes);
    return 0;
}

void dkv_py_errors_clear(dkv_py_errors *errors) {
    Py_CLEAR(errors->classes);
}

PyObject *dkv_py_error_new(const dkv_py_errors *errors, int err, const char *detail) {
    const char *sentence = detail && *detail ? detail : dkv_err_sentence(err);
    PyObject *class = PyMapping_GetItemString(errors->classes, dkv_err_name(err));
    if (!class) return NULL;
    /* A detail may quote what a peer or a user sent, which need not be UTF-8. */
    PyObject *text = PyUnicode_DecodeUTF8(sentence, (Py_ssize_t)strlen(sentence), "replace");
    PyObject *error = text ? PyObject_CallFunctionObjArgs(class, text, NULL) : NULL;
    Py_XDECREF(text);
    Py_DECREF(class);
    return error;
}

static PyObject *raise_error(PyObject *error) {
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

PyObject *dkv_py_raise(const dkv_py_errors *errors, int err, const char *detail) {
    return raise_error(dkv_py_error_new(errors, err, detail));
}

PyObject *dkv_py_raise_invalid(const dkv_py_errors *errors, const char *format, ...) {
    va_list args;
    va_start(args, format);
    PyObject *text = PyUnicode_FromFormatV(format, args);
    va_end(args);
    if (!text) return NULL;
    PyObject *class = PyMapping_GetItemString(errors->classes, dkv_err_name(DKV_ERR_INVALID));
    PyObject *error = class ? PyObject_CallFunctionObjArgs(class, text, NULL) : NULL;
    Py_XDECREF(class);
    Py_DECREF(text);
    return raise_error(error);
}

PyObject *dkv_py_error_table(void) {
    static const int numbers[] = {
#define DKV_ERR_NUMBER(name, number, sentence) number,
        DKV_ERR_MAP(DKV_ERR_NUMBER)
#undef DKV_ERR_NUMBER
    };
    PyObject *table = PyList_New(0);
    for (size_t i = 0; table && i < sizeof numbers / sizeof *numbers; i++) {
        PyObject *row = Py_BuildValue("(sis)", dkv_err_name(numbers[i]), numbers[i],
                                      dkv_err_sentence(numbers[i]));
        if (!row || PyList_Append(table, row) < 0) Py_CLEAR(table);
        Py_XDECREF(row);
    }
    return table;
}
