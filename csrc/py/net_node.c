/* dkv._net.Node: a node inside a Python process. It runs on a thread of its own, which calls no
 * Python; what it logs waits in a bounded memory until Python asks for it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "host/host.h"
#include "py/args.h"
#include "py/net_module.h"

#define LOG_LINES 256u
#define LOG_TEXT 240u /* bytes of a line that are kept, with the NUL */

typedef struct log_line {
    dkv_log_level level;
    char text[LOG_TEXT];
} log_line;

typedef struct node_object {
    PyObject_HEAD dkv_host *host;
    pthread_t thread;
    bool stopped; /* somebody stops it, or has done so; touched with the GIL held only */
    pid_t pid;
    uint16_t port;
    atomic_bool running; /* the thread has not ended */
    int err;             /* why it ended; read after it was joined */
    pthread_mutex_t log_mutex;
    size_t logged;                 /* lines so far; the last LOG_LINES of them are kept */
    log_line log_lines[LOG_LINES]; /* line i is at i modulo LOG_LINES */
} node_object;

/* ---- the log -------------------------------------------------------------------------------- */

static void on_log(void *user, const dkv_notice *notice) {
    node_object *self = user;
    pthread_mutex_lock(&self->log_mutex);
    log_line *line = &self->log_lines[self->logged++ % LOG_LINES];
    line->level = notice->level;
    snprintf(line->text, sizeof line->text, "%s", notice->text);
    pthread_mutex_unlock(&self->log_mutex);
}

static const char *level_name(dkv_log_level level) {
    switch (level) {
    case DKV_LOG_ERROR: return "error";
    case DKV_LOG_WARN: return "warning";
    case DKV_LOG_INFO: return "info";
    case DKV_LOG_DEBUG: return "debug";
    }
    return "?";
}

/* Copies the lines that are kept, oldest first: making Python objects may run anything, which must
 * not happen with the log locked. Returns how many there are. */
static size_t copy_log(node_object *self, log_line lines[LOG_LINES]) {
    pthread_mutex_lock(&self->log_mutex);
    size_t n = self->logged < LOG_LINES ? self->logged : LOG_LINES;
    for (size_t i = 0; i < n; i++) {
        lines[i] = self->log_lines[(self->logged - n + i) % LOG_LINES];
    }
    pthread_mutex_unlock(&self->log_mutex);
    return n;
}

static PyObject *node_logs(PyObject *object, PyObject *unused) {
    (void)unused;
    log_line *lines = PyMem_Malloc(LOG_LINES * sizeof *lines);
    if (!lines) return PyErr_NoMemory();
    size_t n = copy_log((node_object *)object, lines);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < n; i++) {
        const log_line *line = &lines[i];
        PyObject *text =
            PyUnicode_DecodeUTF8(line->text, (Py_ssize_t)strlen(line->text), "replace");
        PyObject *pair = text ? Py_BuildValue("(sN)", level_name(line->level), text) : NULL;
        if (!pair || PyList_Append(list, pair)) Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    PyMem_Free(lines);
    return list;
}

/* ---- running -------------------------------------------------------------------------------- */

static void *run(void *object) {
    node_object *self = object;
    self->err = dkv_host_run(self->host);
    atomic_store(&self->running, false);
    return NULL;
}

/* Stops the node and frees it, unless that was begun before or it belongs to the parent of a fork.
 * Returns whether it was done. */
static bool stop_host(node_object *self) {
    if (self->stopped || self->pid != getpid()) return false;
    self->stopped = true;
    Py_BEGIN_ALLOW_THREADS;
    dkv_host_stop(self->host);
    pthread_join(self->thread, NULL);
    dkv_host_del(self->host);
    Py_END_ALLOW_THREADS;
    return true;
}

static PyObject *node_stop(PyObject *object, PyObject *unused) {
    (void)unused;
    node_object *self = (node_object *)object;
    if (!stop_host(self)) Py_RETURN_NONE;
    if (self->err) {
        const char *why =
            self->logged ? self->log_lines[(self->logged - 1) % LOG_LINES].text : NULL;
        return dkv_py_raise(&dkv_net_state_of(object)->errors, self->err, why);
    }
    Py_RETURN_NONE;
}

/* Opens the data and starts the thread. Returns 0, or -1 with an exception set. */
static int start(node_object *self, const dkv_host_options *options) {
    const dkv_net_state *state = dkv_net_state_of((PyObject *)self);
    char why[DKV_DETAIL_MAX] = "";
    int err;
    Py_BEGIN_ALLOW_THREADS;
    err = dkv_host_new(options, &self->host, why);
    if (!err) {
        self->port = dkv_host_port(self->host);
        atomic_store(&self->running, true);
        if (pthread_create(&self->thread, NULL, run, self)) {
            atomic_store(&self->running, false);
            dkv_host_del(self->host);
            err = DKV_ERR_NO_MEMORY;
        }
    }
    Py_END_ALLOW_THREADS;
    if (!err) return 0;
    dkv_py_raise(&state->errors, err, why);
    return -1;
}

/* ---- the type ------------------------------------------------------------------------------- */

static PyObject *node_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"id",     "data",     "cluster",    "replication", "members",
                            "listen", "insecure", "durability", "limits",      NULL};
    const char *id, *data, *cluster, *listen;
    PyObject *replication, *members;
    int insecure, durability;
    unsigned interval_ms, requests, segment;
    unsigned long long request, received, unsynced, scrub;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sssOOzp(iI)(IKKKIK):Node", names, &id, &data,
                                     &cluster, &replication, &members, &listen, &insecure,
                                     &durability, &interval_ms, &requests, &request, &received,
                                     &unsynced, &segment, &scrub)) {
        return NULL;
    }
    const dkv_net_state *state = PyType_GetModuleState(type);
    dkv_cluster_map *map;
    if (dkv_net_is_forked(state)) return NULL;
    if (dkv_py_map_new(&state->errors, cluster, replication, members, &map)) return NULL;
    node_object *self = PyObject_New(node_object, type);
    if (self) {
        memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
        pthread_mutex_init(&self->log_mutex, NULL);
        self->pid = getpid();
        dkv_host_options options = {
            .map = map,
            .id = id,
            .listen = listen,
            .data_dir = data,
            .insecure = insecure != 0,
            .limits = {requests, segment, request, received, unsynced, scrub},
            .durability = (dkv_durability)durability,
            .interval_ms = interval_ms,
            .log = on_log,
            .log_user = self,
        };
        if (start(self, &options)) {
            self->stopped = true;
            Py_CLEAR(self);
        }
    }
    dkv_cluster_map_del(map);
    return (PyObject *)self;
}

static void node_dealloc(PyObject *object) {
    node_object *self = (node_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    stop_host(self);
    pthread_mutex_destroy(&self->log_mutex);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *node_get_port(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(((node_object *)object)->port);
}

static PyObject *node_get_running(PyObject *object, void *closure) {
    (void)closure;
    return PyBool_FromLong(atomic_load(&((node_object *)object)->running));
}

static PyMethodDef node_methods[] = {
    {"stop", node_stop, METH_NOARGS,
     "stop($self, /)\n--\n\nStops the node in order; raises why it ended, if it failed."},
    {"logs", node_logs, METH_NOARGS, "logs($self, /)\n--\n\n(level, text) of its latest lines."},
    {0},
};

static PyGetSetDef node_getters[] = {
    {"port", node_get_port, NULL, "The port it listens on.", NULL},
    {"running", node_get_running, NULL, "Whether its thread is alive.", NULL},
    {0},
};

static PyType_Slot node_slots[] = {
    {Py_tp_doc,
     "Node(id, data, cluster, replication, members, listen, insecure, durability, limits)\n--\n\n"
     "See dkv.Node."},
    {Py_tp_new, node_new},
    {Py_tp_dealloc, node_dealloc},
    {Py_tp_methods, node_methods},
    {Py_tp_getset, node_getters},
    {0, NULL},
};

static PyType_Spec node_spec = {
    .name = "dkv._net.Node",
    .basicsize = sizeof(node_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = node_slots,
};

int dkv_net_node_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &node_spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
