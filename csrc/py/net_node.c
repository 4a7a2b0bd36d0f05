/* dkv._net.Node: a node inside a Python process. It runs on a thread of its own, which calls no
 * Python; what it logs waits in a bounded memory until Python asks for it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "host/host.h"
#include "py/args.h"
#include "py/net_module.h"

#define SLICE_MS 200 /* between two looks at signals */
#define LOG_LINES 256u
#define LOG_TEXT 240u /* bytes of a line that are kept, with the NUL */

typedef struct log_line {
    dkv_log_level level;
    char text[LOG_TEXT];
} log_line;

typedef enum phase { OPENING, SERVES, ENDED } phase;

/* The node itself. It has two owners, its thread and the Python object, so that a caller who does
 * not want to wait any more can leave it to the thread. `mutex` guards what stands behind it. */
typedef struct embedded {
    pthread_t thread;
    dkv_host_options options; /* `map` and the texts are copies */
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* `phase`, on the monotonic clock */
    unsigned owners;
    phase phase;
    bool unwanted;                 /* it is to stop */
    dkv_host *host;                /* not NULL: it may be stopped */
    uint16_t port;                 /* from SERVES on */
    int err;                       /* why it has not started, or why it has ended */
    char why[DKV_DETAIL_MAX];      /* the same in words */
    size_t logged;                 /* lines so far; the last LOG_LINES of them are kept */
    log_line log_lines[LOG_LINES]; /* line i is at i modulo LOG_LINES */
} embedded;

typedef struct node_object {
    PyObject_HEAD embedded *node;
    bool joined; /* the thread has ended and been joined; touched with the GIL held only */
    pid_t pid;
} node_object;

/* ---- the log -------------------------------------------------------------------------------- */

static void on_log(void *user, const dkv_notice *notice) {
    embedded *e = user;
    pthread_mutex_lock(&e->mutex);
    log_line *line = &e->log_lines[e->logged++ % LOG_LINES];
    line->level = notice->level;
    snprintf(line->text, sizeof line->text, "%s", notice->text);
    pthread_mutex_unlock(&e->mutex);
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
static size_t copy_log(embedded *e, log_line lines[LOG_LINES]) {
    pthread_mutex_lock(&e->mutex);
    size_t n = e->logged < LOG_LINES ? e->logged : LOG_LINES;
    for (size_t i = 0; i < n; i++) {
        lines[i] = e->log_lines[(e->logged - n + i) % LOG_LINES];
    }
    pthread_mutex_unlock(&e->mutex);
    return n;
}

static PyObject *node_logs(PyObject *object, PyObject *unused) {
    (void)unused;
    log_line *lines = PyMem_Malloc(LOG_LINES * sizeof *lines);
    if (!lines) return PyErr_NoMemory();
    size_t n = copy_log(((node_object *)object)->node, lines);
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

/* ---- the node ------------------------------------------------------------------------------- */

static void embedded_free(embedded *e) {
    dkv_cluster_map_del((dkv_cluster_map *)e->options.map);
    free((char *)e->options.id);
    free((char *)e->options.data_dir);
    free((char *)e->options.listen);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->mutex);
    free(e);
}

/* `options` with copies of all that it points to; takes `map` in any case. NULL: no memory. */
static embedded *embedded_new(const dkv_host_options *options, dkv_cluster_map *map) {
    embedded *e = calloc(1, sizeof *e);
    if (!e) {
        dkv_cluster_map_del(map);
        return NULL;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&e->mutex, NULL);
    pthread_cond_init(&e->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    e->owners = 1;
    e->options = *options;
    e->options.map = map;
    e->options.id = strdup(options->id);
    e->options.data_dir = strdup(options->data_dir);
    e->options.listen = options->listen ? strdup(options->listen) : NULL;
    e->options.log = on_log;
    e->options.log_user = e;
    if (e->options.id && e->options.data_dir && (e->options.listen || !options->listen)) return e;
    embedded_free(e);
    return NULL;
}

static void disown(embedded *e) {
    pthread_mutex_lock(&e->mutex);
    bool last = --e->owners == 0;
    pthread_mutex_unlock(&e->mutex);
    if (last) embedded_free(e);
}

/* `host` is what may be stopped from now on, or NULL. */
static void enter_phase(embedded *e, phase next, dkv_host *host) {
    pthread_mutex_lock(&e->mutex);
    e->phase = next;
    e->host = host;
    if (host && e->unwanted) dkv_host_stop(host);
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->mutex);
}

static void run_host(embedded *e, dkv_host *host) {
    e->port = dkv_host_port(host);
    enter_phase(e, SERVES, host);
    e->err = dkv_host_run(host);
    enter_phase(e, SERVES, NULL);
    if (e->err && e->logged) {
        snprintf(e->why, sizeof e->why, "%s", e->log_lines[(e->logged - 1) % LOG_LINES].text);
    }
    dkv_host_del(host);
}

static void *run(void *user) {
    embedded *e = user;
    dkv_host *host;
    e->err = dkv_host_new(&e->options, &host, e->why);
    if (!e->err) run_host(e, host);
    enter_phase(e, ENDED, NULL);
    disown(e);
    return NULL;
}

static void ask_to_stop(embedded *e) {
    pthread_mutex_lock(&e->mutex);
    e->unwanted = true;
    if (e->host) dkv_host_stop(e->host);
    pthread_mutex_unlock(&e->mutex);
}

/* ---- waiting for it ------------------------------------------------------------------------- */

/* Waits for a time less than a second; returns whether `awaited` is reached. */
static bool wait_ms(embedded *e, phase awaited, long ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&e->mutex);
    while (e->phase < awaited && !pthread_cond_timedwait(&e->changed, &e->mutex, &until)) {
        /* Something else has changed. */
    }
    bool reached = e->phase >= awaited;
    pthread_mutex_unlock(&e->mutex);
    return reached;
}

/* Returns 0, or -1 with an exception set by a signal. */
static int await_phase(embedded *e, phase awaited) {
    bool reached = false;
    while (!reached) {
        Py_BEGIN_ALLOW_THREADS;
        reached = wait_ms(e, awaited, SLICE_MS);
        Py_END_ALLOW_THREADS;
        if (!reached && PyErr_CheckSignals()) return -1;
    }
    return 0;
}

static void join(node_object *self) {
    if (self->joined) return;
    self->joined = true;
    Py_BEGIN_ALLOW_THREADS;
    pthread_join(self->node->thread, NULL);
    Py_END_ALLOW_THREADS;
}

/* Raises why it has not started or has ended, if it failed. */
static PyObject *raise_failure(node_object *self) {
    embedded *e = self->node;
    if (!e->err) Py_RETURN_NONE;
    return dkv_py_raise(&dkv_net_state_of((PyObject *)self)->errors, e->err, e->why);
}

static PyObject *node_stop(PyObject *object, PyObject *unused) {
    (void)unused;
    node_object *self = (node_object *)object;
    if (self->joined || self->pid != getpid()) Py_RETURN_NONE;
    ask_to_stop(self->node);
    if (await_phase(self->node, ENDED)) return NULL; /* it goes on stopping */
    if (self->joined) Py_RETURN_NONE;                /* another thread was faster */
    join(self);
    return raise_failure(self);
}

/* Starts the thread and waits until the node serves. Returns 0, or -1 with an exception set. */
static int start(node_object *self) {
    embedded *e = self->node;
    e->owners++;
    if (pthread_create(&e->thread, NULL, run, e)) {
        e->owners--;
        dkv_py_raise(&dkv_net_state_of((PyObject *)self)->errors, DKV_ERR_NO_MEMORY, NULL);
        return -1;
    }
    self->joined = false;
    if (await_phase(e, SERVES)) {
        ask_to_stop(e);
        self->joined = true; /* nobody waits for it: it ends as soon as it has opened its data */
        pthread_detach(e->thread);
        return -1;
    }
    if (!wait_ms(e, ENDED, 0)) return 0;
    join(self);
    Py_XDECREF(raise_failure(self));
    return PyErr_Occurred() ? -1 : 0;
}

/* ---- the type ------------------------------------------------------------------------------- */

static PyObject *node_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"id",     "data",     "cluster",    "replication", "members",
                            "listen", "insecure", "durability", "limits",      NULL};
    const char *id, *data, *cluster, *listen;
    PyObject *replication, *members;
    int insecure, durability;
    unsigned interval_ms, requests, segment;
    unsigned long long request, received, unsynced, cache, scrub;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sssOOzp(iI)(IKKKKIK):Node", names, &id, &data,
                                     &cluster, &replication, &members, &listen, &insecure,
                                     &durability, &interval_ms, &requests, &request, &received,
                                     &unsynced, &cache, &segment, &scrub)) {
        return NULL;
    }
    const dkv_net_state *state = PyType_GetModuleState(type);
    dkv_cluster_map *map;
    if (dkv_net_is_forked(state)) return NULL;
    if (dkv_py_map_new(&state->errors, cluster, replication, members, &map)) return NULL;
    dkv_host_options options = {
        .id = id,
        .listen = listen,
        .data_dir = data,
        .insecure = insecure != 0,
        .limits = {.requests = requests,
                   .segment_bytes = segment,
                   .request_bytes = request,
                   .received_bytes = received,
                   .unsynced_bytes = unsynced,
                   .cache_bytes = cache,
                   .scrub_bytes_per_s = scrub},
        .durability = (dkv_durability)durability,
        .interval_ms = interval_ms,
    };
    embedded *node = embedded_new(&options, map);
    if (!node) return PyErr_NoMemory();
    node_object *self = PyObject_New(node_object, type);
    if (!self) {
        disown(node);
        return NULL;
    }
    self->node = node;
    self->joined = true;
    self->pid = getpid();
    if (start(self)) Py_CLEAR(self);
    return (PyObject *)self;
}

static void node_dealloc(PyObject *object) {
    node_object *self = (node_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->pid == getpid()) {
        if (!self->joined) ask_to_stop(self->node);
        join(self);
        disown(self->node);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *node_get_port(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(((node_object *)object)->node->port);
}

static PyObject *node_get_running(PyObject *object, void *closure) {
    (void)closure;
    embedded *e = ((node_object *)object)->node;
    pthread_mutex_lock(&e->mutex);
    bool running = e->host != NULL;
    pthread_mutex_unlock(&e->mutex);
    return PyBool_FromLong(running);
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
