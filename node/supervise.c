#include "supervise.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "serve.h"

#define PAUSE_FIRST_S 1
#define PAUSE_MAX_S 30
#define STEADY_S 60 /* having run that long, a member's next pause is the first one again */

typedef struct member {
    const char *id;
    char *data;
    pid_t pid;   /* 0: not running */
    int status;  /* of its last end */
    bool wanted; /* running, or to be started again */
    int64_t started_s;
    int64_t pause_s;
    int64_t start_s; /* when to start it */
} member;

typedef struct supervisor {
    const dkv_config *config;
    const dkv_options *options;
    dkv_log log;
    sigset_t signals; /* that stop it, and SIGCHLD */
    bool stopping;
    int64_t stop_s; /* when the first signal came; 0: none did */
    size_t n;
    member *members;
} supervisor;

/* ---- which nodes ---- */

static bool is_here(const dkv_config *config, uint16_t index) {
    const dkv_cluster_map *map = config->map;
    const char *host = map->members[dkv_cluster_map_find(map, config->node)].host;
    return strcmp(map->members[index].host, host) == 0;
}

bool dkv_supervise_check(const dkv_config *config, const dkv_options *options) {
    const dkv_cluster_map *map = config->map;
    unsigned n = 0;
    for (uint16_t i = 0; i < map->n_members; i++) n += is_here(config, i);
    if (config->listen) {
        fprintf(stderr,
                "dkv-node: %s: listen cannot be used with --members: each node listens on its own "
                "address\n",
                options->config);
        return false;
    }
    if (n == options->members) return true;
    fprintf(stderr,
            "dkv-node: --members %u, but %s has %u nodes with the host %s: all nodes of a host are "
            "started together; give --members %u, or correct `host` in `nodes`\n",
            options->members, options->config, n,
            map->members[dkv_cluster_map_find(map, config->node)].host, n);
    return false;
}

static int add_member(supervisor *self, const char *id) {
    member *m = &self->members[self->n];
    size_t size = strlen(self->config->data) + strlen(id) + 2;
    char *data = malloc(size);
    if (!data) return DKV_ERR_NO_MEMORY;
    snprintf(data, size, "%s/%s", self->config->data, id);
    *m = (member){.id = id, .data = data, .wanted = true, .pause_s = PAUSE_FIRST_S};
    self->n++;
    return DKV_OK;
}

static int add_members(supervisor *self) {
    const dkv_cluster_map *map = self->config->map;
    self->members = calloc(self->options->members, sizeof *self->members);
    int err = self->members ? DKV_OK : DKV_ERR_NO_MEMORY;
    for (uint16_t i = 0; i < map->n_members && !err; i++) {
        if (is_here(self->config, i)) err = add_member(self, map->members[i].id);
    }
    return err;
}

/* ---- the log ---- */

static void say(const supervisor *self, dkv_log_level level, const char *event, const member *m,
                const char *what) {
    char text[DKV_DETAIL_MAX];
    snprintf(text, sizeof text, "member %s %s", m->id, what);
    dkv_notice_field fields[] = {
        {.key = "member", .text = m->id},
        {.key = "status", .number = (uint64_t)m->status},
    };
    dkv_log_notice((void *)&self->log,
                   &(dkv_notice){level, event, text, .fields = fields, .n_fields = 2});
}

/* ---- processes ---- */

/* What the forked process does. */
static int run_member(const supervisor *self, const member *m, pid_t parent) {
    /* Ctrl-C and a closed terminal reach all processes at once: those the supervisor passes on. */
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    prctl(PR_SET_NAME, m->id);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) return DKV_EXIT_OK;
    dkv_log log = self->log;
    log.node = m->id;
    return dkv_serve(&(dkv_serve_options){
        .config = self->config,
        .id = m->id,
        .data = m->data,
        .insecure = self->options->insecure,
        .signals = stop,
        .supervised = true,
        .log = &log,
    });
}

static void start(supervisor *self, member *m) {
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) _exit(run_member(self, m, parent));
    m->started_s = dkv_serve_now_s();
    if (pid > 0) {
        m->pid = pid;
        return;
    }
    m->status = DKV_EXIT_FAILURE;
    m->start_s = m->started_s + m->pause_s;
    say(self, DKV_LOG_ERROR, "member_not_started", m, "cannot be started: no more processes");
}

static void stop_all(supervisor *self, int number) {
    self->stopping = true;
    for (size_t i = 0; i < self->n; i++) {
        if (self->members[i].pid) kill(self->members[i].pid, number);
    }
}

/* It ended, though nobody asked it to. */
static void start_again_later(supervisor *self, member *m, const char *how) {
    char what[DKV_DETAIL_MAX / 2];
    if (dkv_serve_now_s() - m->started_s >= STEADY_S) m->pause_s = PAUSE_FIRST_S;
    m->start_s = dkv_serve_now_s() + m->pause_s;
    snprintf(what, sizeof what, "%s: it is started again in %" PRId64 " s", how, m->pause_s);
    say(self, DKV_LOG_ERROR, "member_failed", m, what);
    m->pause_s = m->pause_s * 2 < PAUSE_MAX_S ? m->pause_s * 2 : PAUSE_MAX_S;
}

static void ended(supervisor *self, member *m, int wait_status) {
    char how[64];
    bool killed = WIFSIGNALED(wait_status);
    m->pid = 0;
    m->status = killed ? DKV_EXIT_FAILURE : WEXITSTATUS(wait_status);
    snprintf(how, sizeof how, killed ? "was killed by signal %d" : "ended with status %d",
             killed ? WTERMSIG(wait_status) : m->status);
    if (self->stopping) {
        if (m->status) say(self, DKV_LOG_ERROR, "member_failed", m, how);
    } else if (m->status == DKV_EXIT_OK) {
        m->wanted = false;
        say(self, DKV_LOG_INFO, "member_stopped", m, "was stopped: it is not started again");
    } else if (m->status == DKV_EXIT_USAGE) {
        say(self, DKV_LOG_ERROR, "member_failed", m,
            "cannot run with these options and this configuration: all members are stopped");
        stop_all(self, SIGTERM);
    } else {
        start_again_later(self, m, how);
    }
}

static void reap(supervisor *self) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < self->n; i++) {
            if (self->members[i].pid == pid) ended(self, &self->members[i], status);
        }
    }
}

/* ---- running ---- */

static void start_due(supervisor *self) {
    for (size_t i = 0; i < self->n && !self->stopping; i++) {
        member *m = &self->members[i];
        if (m->wanted && !m->pid && m->start_s <= dkv_serve_now_s()) start(self, m);
    }
}

static bool is_over(const supervisor *self) {
    for (size_t i = 0; i < self->n; i++) {
        const member *m = &self->members[i];
        if (m->pid || (m->wanted && !self->stopping)) return false;
    }
    return true;
}

static bool waits_for_a_start(const supervisor *self) {
    for (size_t i = 0; i < self->n; i++) {
        if (self->members[i].wanted && !self->members[i].pid) return !self->stopping;
    }
    return false;
}

/* Waits for a signal, or, if a member is to be started, for a second at most. */
static void await_signal(supervisor *self) {
    const struct timespec second = {.tv_sec = 1};
    int number = sigtimedwait(&self->signals, NULL, waits_for_a_start(self) ? &second : NULL);
    if (number <= 0 || number == SIGCHLD) return;
    if (!self->stop_s) {
        self->stop_s = dkv_serve_now_s();
        stop_all(self, SIGTERM);
    } else if (dkv_serve_now_s() - self->stop_s >= DKV_SERVE_SAME_SIGNAL_S) {
        dkv_log_say(&self->log, DKV_LOG_WARN, "stopped_at_once",
                    "killing the members after a second signal");
        stop_all(self, SIGKILL);
    }
}

/* The members make their own directories in `data`; it must not hold a store itself. Completes
 * `why` if it does. */
static int check_no_store(const char *data, char why[DKV_DETAIL_MAX]) {
    char meta[DKV_DETAIL_MAX];
    snprintf(meta, sizeof meta, "%s/meta", data);
    if (access(meta, F_OK) != 0) return DKV_EXIT_OK;
    snprintf(why, DKV_DETAIL_MAX,
             "%s: holds the store of a node that ran without --members: move it into a directory "
             "named by the node's id, below another `data`",
             data);
    return DKV_EXIT_STORE;
}

static int prepare_data(const supervisor *self, bool *made) {
    const char *data = self->config->data;
    char text[DKV_DETAIL_MAX];
    *made = mkdir(data, 0700) == 0;
    if (!*made && errno != EEXIST) {
        snprintf(text, sizeof text, "%s: cannot be made: %s", data, strerror(errno));
        dkv_log_say(&self->log, DKV_LOG_ERROR, "start_failed", text);
        return DKV_EXIT_USAGE;
    }
    int status = check_no_store(data, text);
    if (status) dkv_log_say(&self->log, DKV_LOG_ERROR, "start_failed", text);
    return status;
}

static int supervise(supervisor *self) {
    bool made = false;
    int worst = prepare_data(self, &made);
    if (worst) return worst;
    while (!is_over(self)) {
        start_due(self);
        await_signal(self);
        reap(self);
    }
    if (made) rmdir(self->config->data); /* fails, as it should, if there is something in it */
    for (size_t i = 0; i < self->n; i++) {
        if (self->members[i].status > worst) worst = self->members[i].status;
    }
    return worst;
}

static void free_members(supervisor *self) {
    for (size_t i = 0; i < self->n; i++) free(self->members[i].data);
    free(self->members);
}

int dkv_supervise(const dkv_config *config, const dkv_options *options, sigset_t signals) {
    supervisor self = {
        .config = config,
        .options = options,
        .log = {.node = "supervisor", .least = options->log_level, .json = options->json},
        .signals = signals,
    };
    sigaddset(&self.signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &self.signals, NULL);
    int status = add_members(&self) ? DKV_EXIT_FAILURE : supervise(&self);
    free_members(&self);
    return status;
}

/* ---- looking only ---- */

static int look(const supervisor *self, const char *id, const char *data, bool *missing) {
    return dkv_serve_look(&(dkv_serve_options){.config = self->config, .id = id, .data = data},
                          missing);
}

static int look_at_members(supervisor *self) {
    int worst = add_members(self) ? DKV_EXIT_FAILURE : DKV_EXIT_OK;
    for (size_t i = 0; i < self->n; i++) {
        bool missing;
        int status = look(self, self->members[i].id, self->members[i].data, &missing);
        if (status > worst) worst = status;
    }
    free_members(self);
    return worst;
}

int dkv_supervise_look(const dkv_config *config, const dkv_options *options, bool *missing) {
    supervisor self = {.config = config, .options = options};
    char why[DKV_DETAIL_MAX];
    int status = check_no_store(config->data, why);
    if (status) {
        fprintf(stderr, "dkv-node: %s\n", why);
        return status;
    }
    status = look(&self, config->node, config->data, missing);
    return status || *missing ? status : look_at_members(&self);
}
