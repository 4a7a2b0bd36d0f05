/* dkv._net.Load: a dkv_bench with a client of its own. One thread at a time may use it; each call
 * is short, so that Python looks at signals and at the time between two. */
#include "base/err.h"
#include "client/bench.h"
#include "py/net_module.h"

typedef struct load_object {
    PyObject_HEAD dkv_client *client;
    dkv_bench *bench;
    bool busy;   /* a call is under way; touched with the GIL held only */
    bool closed; /* never: what dkv_net_is_interrupted looks at */
} load_object;

/* ---- lifecycle ------------------------------------------------------------------------------ */

static int load_open(load_object *self, const dkv_net_state *state,
                     const dkv_client_options *client, const dkv_bench_options *bench) {
    char why[DKV_DETAIL_MAX] = "";
    int err;
    dkv_net_release_gil();
    err = dkv_client_new(client, &self->client, why);
    if (!err) err = dkv_bench_new(bench, self->client, &self->bench, why);
    dkv_net_take_gil();
    if (err && !PyErr_Occurred()) dkv_py_raise(&state->errors, err, why);
    return err ? -1 : 0;
}

static PyObject *load_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"seeds",      "timeout_ms", "keys", "size", "outstanding",
                            "read_share", "zipfian",    "seed", NULL};
    dkv_client_options client = {0};
    unsigned long long keys, size, seed;
    unsigned outstanding;
    int zipfian;
    dkv_bench_options bench = {0};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sIKKIdpK:Load", names, &client.seeds,
                                     &client.timeout_ms, &keys, &size, &outstanding,
                                     &bench.read_share, &zipfian, &seed)) {
        return NULL;
    }
    bench.keys = keys;
    bench.value_len = size;
    bench.outstanding = outstanding;
    bench.zipfian = zipfian != 0;
    bench.seed = seed;
    const dkv_net_state *state = PyType_GetModuleState(type);
    if (dkv_net_is_forked(state)) return NULL;
    load_object *self = PyObject_New(load_object, type);
    if (!self) return NULL;
    self->client = NULL;
    self->bench = NULL;
    self->busy = false;
    self->closed = false;
    client.interrupted = dkv_net_is_interrupted;
    client.interrupted_user = &self->closed;
    if (load_open(self, state, &client, &bench)) Py_CLEAR(self);
    return (PyObject *)self;
}

static void load_dealloc(PyObject *object) {
    load_object *self = (load_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_BEGIN_ALLOW_THREADS;
    dkv_bench_del(self->bench);
    dkv_client_del(self->client);
    Py_END_ALLOW_THREADS;
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
     "Load(seeds, timeout_ms, keys, size, outstanding, read_share, zipfian, seed)\n--\n"
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
