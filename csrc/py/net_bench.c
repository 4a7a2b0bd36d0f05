/* dkv._net.Load: a dkv_bench, which uses a dkv._net.Client as long as it exists. One thread at a
 * time may use it; each call is short, so that Python looks at signals and at the time between two.
 */
#include "base/err.h"
#include "client/bench.h"
#include "py/net_module.h"

typedef struct load_object {
    PyObject_HEAD PyObject *client;
    dkv_bench *bench;
    bool busy; /* a call is under way; touched with the GIL held only */
} load_object;

/* ---- lifecycle ------------------------------------------------------------------------------ */

static PyObject *load_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"client",     "keys",    "size", "outstanding", "blocking",
                            "read_share", "zipfian", "seed", NULL};
    const dkv_net_state *state = PyType_GetModuleState(type);
    PyObject *client;
    unsigned long long keys, size, seed;
    unsigned outstanding;
    int blocking, zipfian;
    dkv_bench_options options = {0};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!KKIpdpK:Load", names, state->client_type,
                                     &client, &keys, &size, &outstanding, &blocking,
                                     &options.read_share, &zipfian, &seed)) {
        return NULL;
    }
    options.keys = keys;
    options.value_len = size;
    options.outstanding = outstanding;
    options.blocking = blocking != 0;
    options.zipfian = zipfian != 0;
    options.seed = seed;
    dkv_client *entered = dkv_net_client_enter(client);
    if (!entered) return NULL;
    char why[DKV_DETAIL_MAX] = "";
    dkv_bench *bench;
    int err = dkv_bench_new(&options, entered, &bench, why);
    load_object *self = err ? NULL : PyObject_New(load_object, type);
    if (!self) {
        if (err) dkv_py_raise(&state->errors, err, why);
        if (!err) dkv_bench_del(bench);
        dkv_net_client_leave(client);
        return NULL;
    }
    self->client = Py_NewRef(client);
    self->bench = bench;
    self->busy = false;
    return (PyObject *)self;
}

static void load_dealloc(PyObject *object) {
    load_object *self = (load_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_BEGIN_ALLOW_THREADS;
    dkv_bench_del(self->bench);
    Py_END_ALLOW_THREADS;
    dkv_net_client_leave(self->client);
    Py_DECREF(self->client);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Returns 0 with the load taken, or -1 with an exception set. */
static int enter(load_object *self) {
    const dkv_net_state *state = dkv_net_state_of((PyObject *)self);
    if (dkv_net_is_forked(state)) return -1;
    if (self->busy) {
        dkv_py_raise(&state->errors, DKV_ERR_PRECONDITION, "another thread uses this load");
        return -1;
    }
    self->busy = true;
    return 0;
}

/* ---- methods -------------------------------------------------------------------------------- */

static PyObject *load_fill(PyObject *object, PyObject *args) {
    load_object *self = (load_object *)object;
    unsigned wait_ms;
    if (!PyArg_ParseTuple(args, "I:fill", &wait_ms) || enter(self)) return NULL;
    char why[DKV_DETAIL_MAX] = "";
    bool done = false;
    int err;
    Py_BEGIN_ALLOW_THREADS;
    err = dkv_bench_fill(self->bench, wait_ms, &done, why);
    Py_END_ALLOW_THREADS;
    self->busy = false;
    if (err) return dkv_py_raise(&dkv_net_state_of(object)->errors, err, why);
    return PyBool_FromLong(done);
}

static PyObject *load_run(PyObject *object, PyObject *args) {
    load_object *self = (load_object *)object;
    unsigned wait_ms;
    if (!PyArg_ParseTuple(args, "I:run", &wait_ms) || enter(self)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    dkv_bench_run(self->bench, wait_ms);
    Py_END_ALLOW_THREADS;
    self->busy = false;
    Py_RETURN_NONE;
}

static PyObject *load_drain(PyObject *object, PyObject *args) {
    load_object *self = (load_object *)object;
    unsigned wait_ms;
    if (!PyArg_ParseTuple(args, "I:drain", &wait_ms) || enter(self)) return NULL;
    bool done;
    Py_BEGIN_ALLOW_THREADS;
    done = dkv_bench_drain(self->bench, wait_ms);
    Py_END_ALLOW_THREADS;
    self->busy = false;
    return PyBool_FromLong(done);
}

static PyObject *load_reset(PyObject *object, PyObject *unused) {
    (void)unused;
    load_object *self = (load_object *)object;
    if (enter(self)) return NULL;
    dkv_bench_reset(self->bench);
    self->busy = false;
    Py_RETURN_NONE;
}

/* Adds `value` (stolen; may be NULL after an error) under `key` (stolen, too). */
static int enter_item(PyObject *dict, PyObject *key, PyObject *value) {
    int failed = key && value ? PyDict_SetItem(dict, key, value) : -1;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return failed;
}

static PyObject *histogram_new(const dkv_histogram *histogram) {
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < DKV_HISTOGRAM_BUCKETS; i++) {
        if (histogram->counts[i] == 0) continue;
        PyObject *value = PyLong_FromUnsignedLongLong(dkv_histogram_value(i));
        PyObject *count = PyLong_FromUnsignedLongLong(histogram->counts[i]);
        if (enter_item(dict, value, count)) Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *errors_new(const dkv_bench_stats *stats) {
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < (int)DKV_BENCH_ERRORS_MAX; i++) {
        if (stats->errors[i] == 0) continue;
        PyObject *name = PyUnicode_FromString(dkv_err_name(-i));
        PyObject *count = PyLong_FromUnsignedLongLong(stats->errors[i]);
        if (enter_item(dict, name, count)) Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *load_result(PyObject *object, PyObject *unused) {
    (void)unused;
    load_object *self = (load_object *)object;
    if (enter(self)) return NULL;
    const dkv_bench_stats *stats = dkv_bench_result(self->bench);
    PyObject *result = Py_BuildValue(
        "(KKNNN)", (unsigned long long)stats->done, (unsigned long long)stats->wrong,
        errors_new(stats), histogram_new(&stats->reads_ns), histogram_new(&stats->writes_ns));
    self->busy = false;
    return result;
}

static PyObject *load_done(PyObject *object, PyObject *unused) {
    (void)unused;
    load_object *self = (load_object *)object;
    if (enter(self)) return NULL;
    uint64_t done = dkv_bench_result(self->bench)->done;
    self->busy = false;
    return PyLong_FromUnsignedLongLong(done);
}

/* ---- the type ------------------------------------------------------------------------------- */

static PyMethodDef load_methods[] = {
    {"fill", load_fill, METH_VARARGS,
     "fill($self, wait_ms, /)\n--\n\nGoes on writing all keys; True: all are written."},
    {"run", load_run, METH_VARARGS, "run($self, wait_ms, /)\n--\n\nLets the load run for so long."},
    {"drain", load_drain, METH_VARARGS,
     "drain($self, wait_ms, /)\n--\n\nStarts nothing more; True: all have ended."},
    {"reset", load_reset, METH_NOARGS, "reset($self, /)\n--\n\nForgets what has ended so far."},
    {"done", load_done, METH_NOARGS, "done($self, /)\n--\n\nHow many operations have ended."},
    {"result", load_result, METH_NOARGS,
     "result($self, /)\n--\n\nReturns (done, wrong, errors by name, reads by nanoseconds, writes "
     "by "
     "nanoseconds)."},
    {0},
};

static PyType_Slot load_slots[] = {
    {Py_tp_doc,
     "Load(client, keys, size, outstanding, blocking, read_share, zipfian, seed)\n--\n"
     "\nSee dkv.bench."},
    {Py_tp_new, load_new},
    {Py_tp_dealloc, load_dealloc},
    {Py_tp_methods, load_methods},
    {0, NULL},
};

static PyType_Spec load_spec = {
    .name = "dkv._net.Load",
    .basicsize = sizeof(load_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = load_slots,
};

int dkv_net_bench_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &load_spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
