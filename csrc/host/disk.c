#include "host/disk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "host/disk_files.h"
#include "model/request.h"

/* Something for a thread to do: a job, or a descriptor to close. */
typedef struct task {
    struct task *next;
    dkv_disk_job *job; /* NULL: close `fd` */
    dkv_open_file *file;
    int fd;
} task;

typedef struct task_queue {
    task *first;
    task *last;
} task_queue;

typedef struct worker {
    dkv_disk *disk;
    pthread_t thread;
    bool started;
    bool busy;
    pthread_cond_t work;
    task_queue queue;
} worker;

struct dkv_disk {
    dkv_disk_files files;
    dkv_disk_wake wake;
    void *user;
    dkv_disk_fault fault;
    void *fault_user;
    atomic_int last_errno;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t idle;
    bool stopping;
    task_queue done;
    worker syncs; /* SYNC, SYNC_DIR */
    worker reads; /* READ from the medium, and closing removed files */
};

static void enqueue(task_queue *queue, task *item) {
    item->next = NULL;
    if (queue->last) {
        queue->last->next = item;
    } else {
        queue->first = item;
    }
    queue->last = item;
}

static task *dequeue(task_queue *queue) {
    task *item = queue->first;
    if (!item) return NULL;
    queue->first = item->next;
    if (!queue->first) queue->last = NULL;
    return item;
}

/* ---- performing ---- */

static int note_error(dkv_disk *disk, int err) {
    if (err) atomic_store(&disk->last_errno, errno);
    return err;
}

static int ask_fault(dkv_disk *disk, const dkv_disk_job *job) {
    return disk->fault ? disk->fault(disk->fault_user, job) : DKV_OK;
}

/* What may wait for the medium; `fd` is −1 for SYNC_DIR. */
static int perform_slow(dkv_disk *disk, int fd, dkv_disk_job *job) {
    int err = ask_fault(disk, job);
    if (err) return err;
    switch (job->op) {
    case DKV_DISK_READ: return note_error(disk, dkv_disk_read(fd, job));
    case DKV_DISK_SYNC: return note_error(disk, fdatasync(fd) ? DKV_ERR_IO : DKV_OK);
    case DKV_DISK_SYNC_DIR: return note_error(disk, fsync(disk->files.dir) ? DKV_ERR_IO : DKV_OK);
    default: return DKV_ERR_INVALID;
    }
}

/* Closes a descriptor whose file is removed, which frees its space, on the thread for reads. */
static void close_later(dkv_disk *disk, int fd) {
    if (fd < 0) return;
    task *item = disk->reads.started ? calloc(1, sizeof *item) : NULL;
    if (!item) {
        close(fd);
        return;
    }
    item->fd = fd;
    pthread_mutex_lock(&disk->lock);
    enqueue(&disk->reads.queue, item);
    pthread_cond_signal(&disk->reads.work);
    pthread_mutex_unlock(&disk->lock);
}

/* Waits until the threads have nothing to do. */
static void drain(dkv_disk *disk) {
    pthread_mutex_lock(&disk->lock);
    while (disk->syncs.busy || disk->reads.busy || disk->syncs.queue.first ||
           disk->reads.queue.first) {
        pthread_cond_wait(&disk->idle, &disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
}

/* Changes of a file, in the owner's thread. Over bytes that a job under way may still read they
 * wait for it, so that jobs take effect in order; a store does not do that while it runs. A sync
 * under way may well catch more than it has to. */
static int perform_change(dkv_disk *disk, dkv_open_file *file, dkv_disk_job *job) {
    if (file->jobs_out > 0 && job->offset < file->read_bytes) drain(disk);
    if (job->op == DKV_DISK_TRUNCATE) {
        if (ftruncate(file->fd, (off_t)job->offset)) return dkv_disk_err_of(errno);
        file->size_bytes = job->offset;
        return DKV_OK;
    }
    int err = dkv_disk_write(file->fd, job);
    uint64_t end = job->offset + job->len_bytes;
    if (!err && end > file->size_bytes) file->size_bytes = end;
    return err;
}

/* Keeps in mind how far the reads under way go. */
static void note_read(dkv_open_file *file, const dkv_disk_job *job) {
    uint64_t end = job->offset + job->len_bytes;
    if (file->jobs_out == 0) file->read_bytes = 0;
    if (end > file->read_bytes) file->read_bytes = end;
}

/* What is done at once: everything but syncs and reads. */
static int perform_fast(dkv_disk *disk, dkv_disk_job *job) {
    int left = -1;
    int err = ask_fault(disk, job);
    if (err) return err;
    if (job->op == DKV_DISK_LIST) return note_error(disk, dkv_disk_files_list(&disk->files, job));
    if (job->op == DKV_DISK_SPACE) return note_error(disk, dkv_disk_files_space(&disk->files, job));
    if (job->op == DKV_DISK_REMOVE) {
        err = note_error(disk, dkv_disk_files_remove(&disk->files, job->file, &left));
        close_later(disk, left);
        return err;
    }
    dkv_open_file *file = dkv_disk_files_get(&disk->files, job->file, job->op == DKV_DISK_CREATE);
    if (!file) return note_error(disk, dkv_disk_err_of(errno));
    if (job->op == DKV_DISK_CREATE) return DKV_OK;
    return note_error(disk, perform_change(disk, file, job));
}

static bool is_slow(const dkv_disk_job *job) {
    return job->op == DKV_DISK_READ || job->op == DKV_DISK_SYNC || job->op == DKV_DISK_SYNC_DIR;
}

int dkv_disk_run_now(void *user, dkv_disk_job *job) {
    dkv_disk *disk = user;
    job->done_bytes = 0;
    if (!is_slow(job)) {
        job->err = perform_fast(disk, job);
    } else if (job->op == DKV_DISK_SYNC_DIR) {
        job->err = perform_slow(disk, -1, job);
    } else {
        const dkv_open_file *file = dkv_disk_files_get(&disk->files, job->file, false);
        job->err =
            file ? perform_slow(disk, file->fd, job) : note_error(disk, dkv_disk_err_of(errno));
    }
    return job->err;
}

/* ---- threads ---- */

static void perform_task(dkv_disk *disk, task *item) {
    if (item->job) {
        item->job->err = perform_slow(disk, item->file ? item->file->fd : -1, item->job);
    } else {
        close(item->fd);
    }
}

/* The result of a task goes to the owner; a close has none. */
static void hand_back(dkv_disk *disk, task *item) {
    if (item->job) {
        enqueue(&disk->done, item);
    } else {
        free(item);
    }
}

static void *work(void *user) {
    worker *self = user;
    dkv_disk *disk = self->disk;
    pthread_mutex_lock(&disk->lock);
    while (!disk->stopping) {
        task *item = dequeue(&self->queue);
        if (!item) {
            pthread_cond_wait(&self->work, &disk->lock);
            continue;
        }
        self->busy = true;
        pthread_mutex_unlock(&disk->lock);
        bool is_job = item->job != NULL;
        perform_task(disk, item);
        pthread_mutex_lock(&disk->lock);
        self->busy = false;
        hand_back(disk, item);
        pthread_cond_signal(&disk->idle);
        if (!is_job || !disk->wake) continue;
        pthread_mutex_unlock(&disk->lock);
        disk->wake(disk->user);
        pthread_mutex_lock(&disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
    return NULL;
}

/* Starts a thread that takes no signals: they are the owner's. */
static int start(dkv_disk *disk, worker *self) {
    sigset_t all, before;
    self->disk = disk;
    pthread_cond_init(&self->work, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    self->started = pthread_create(&self->thread, NULL, work, self) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return self->started ? DKV_OK : DKV_ERR_NO_MEMORY;
}

static void stop(worker *self) {
    if (self->started) {
        pthread_mutex_lock(&self->disk->lock);
        pthread_cond_signal(&self->work);
        pthread_mutex_unlock(&self->disk->lock);
        pthread_join(self->thread, NULL);
    }
    task *item;
    while ((item = dequeue(&self->queue))) {
        if (!item->job) close(item->fd);
        if (item->file) close_later(self->disk, dkv_disk_files_let_go(item->file));
        free(item);
    }
    if (self->disk) pthread_cond_destroy(&self->work);
}

/* ---- the owner's side ---- */

/* What to do about the errno of opening a directory. */
static const char *advice_on(int error) {
    switch (error) {
    case ENOENT: return ": its parent directory does not exist, make that first";
    case ENOTDIR: return ": it, or something on the way to it, is a file and no directory";
    case EACCES:
    case EPERM: return ": it must belong to the user that runs the node (chown)";
    case EROFS: return ": the file system is mounted read-only";
    case ENOSPC:
    case EDQUOT: return ": free some space first";
    default: return "";
    }
}

static void explain(char *why, const char *path, int err) {
    int error = errno;
    if (err == DKV_ERR_LOCKED) {
        snprintf(why, DKV_DETAIL_MAX,
                 "%s: %s: is this node running already? Each needs a directory of its own", path,
                 dkv_err_sentence(err));
    } else if (err == DKV_ERR_NO_MEMORY) {
        snprintf(why, DKV_DETAIL_MAX, "%s: %s", path, dkv_err_sentence(err));
    } else if (err == DKV_ERR_PRECONDITION) {
        snprintf(why, DKV_DETAIL_MAX,
                 "%s: holds a store on disk; a store in memory needs a directory without one",
                 path);
    } else {
        snprintf(why, DKV_DETAIL_MAX, "%s: cannot be used as the data directory: %s%s", path,
                 strerror(error), advice_on(error));
    }
}

static dkv_disk *disk_new(const dkv_disk_files *files) {
    dkv_disk *disk = calloc(1, sizeof *disk);
    if (!disk) return NULL;
    disk->files = *files;
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->idle, NULL);
    return disk;
}

int dkv_disk_look(const char *path, bool in_memory, dkv_disk **out, char *why) {
    dkv_disk_files files;
    dkv_disk *disk = NULL;
    int err = dkv_disk_files_look(&files, path, in_memory);
    bool can_be_made = err == DKV_ERR_NOT_FOUND && errno == 0;
    if (!err) disk = disk_new(&files);
    if (!err && !disk) {
        dkv_disk_files_close(&files);
        err = DKV_ERR_NO_MEMORY;
    }
    if (err && !can_be_made) {
        explain(why, path, err);
        return err;
    }
    *out = disk;
    return DKV_OK;
}

int dkv_disk_open(const char *path, bool in_memory, dkv_disk_wake wake, void *user, dkv_disk **out,
                  char *why) {
    dkv_disk_files files;
    int err = dkv_disk_files_open(&files, path, in_memory);
    if (err) {
        explain(why, path, err);
        return err;
    }
    dkv_disk *disk = disk_new(&files);
    if (!disk) {
        dkv_disk_files_close(&files);
        explain(why, path, DKV_ERR_NO_MEMORY);
        return DKV_ERR_NO_MEMORY;
    }
    disk->wake = wake;
    disk->user = user;
    err = start(disk, &disk->syncs);
    if (!err) err = start(disk, &disk->reads);
    if (err) {
        explain(why, path, err);
        dkv_disk_del(disk);
        return err;
    }
    *out = disk;
    return DKV_OK;
}

void dkv_disk_del(dkv_disk *disk) {
    if (!disk) return;
    pthread_mutex_lock(&disk->lock);
    disk->stopping = true;
    pthread_mutex_unlock(&disk->lock);
    stop(&disk->syncs);
    stop(&disk->reads);
    task *item;
    while ((item = dequeue(&disk->done))) {
        int left = item->file ? dkv_disk_files_let_go(item->file) : -1;
        if (left >= 0) close(left);
        free(item);
    }
    pthread_cond_destroy(&disk->idle);
    pthread_mutex_destroy(&disk->lock);
    dkv_disk_files_close(&disk->files);
    free(disk);
}

/* Gives the job to a thread. Without memory for that it is performed here. */
static bool submit_slow(dkv_disk *disk, worker *to, dkv_open_file *file, dkv_disk_job *job) {
    task *item = malloc(sizeof *item);
    if (!item) {
        job->err = perform_slow(disk, file ? file->fd : -1, job);
        return true;
    }
    *item = (task){.job = job, .file = file, .fd = -1};
    if (file) file->jobs_out++;
    pthread_mutex_lock(&disk->lock);
    enqueue(&to->queue, item);
    pthread_mutex_unlock(&disk->lock);
    pthread_cond_signal(&to->work); /* no sooner: the thread would wake up to a taken lock */
    return false;
}

bool dkv_disk_submit(dkv_disk *disk, dkv_disk_job *job) {
    job->done_bytes = 0;
    job->err = DKV_OK;
    if (!is_slow(job)) {
        job->err = perform_fast(disk, job);
        return true;
    }
    if (disk->files.in_memory && job->op != DKV_DISK_READ) { /* there is nothing to sync */
        job->err = ask_fault(disk, job);
        return true;
    }
    if (job->op == DKV_DISK_SYNC_DIR) return submit_slow(disk, &disk->syncs, NULL, job);
    dkv_open_file *file = dkv_disk_files_get(&disk->files, job->file, false);
    if (!file) {
        job->err = note_error(disk, dkv_disk_err_of(errno));
        return true;
    }
    if (job->op == DKV_DISK_SYNC) return submit_slow(disk, &disk->syncs, file, job);
    if (!disk->fault && dkv_disk_read_cached(file->fd, job)) return true;
    note_read(file, job);
    return submit_slow(disk, &disk->reads, file, job);
}

dkv_disk_job *dkv_disk_next_done(dkv_disk *disk) {
    pthread_mutex_lock(&disk->lock);
    task *item = dequeue(&disk->done);
    pthread_mutex_unlock(&disk->lock);
    if (!item) return NULL;
    dkv_disk_job *job = item->job;
    if (item->file) close_later(disk, dkv_disk_files_let_go(item->file));
    free(item);
    return job;
}

int dkv_disk_last_errno(const dkv_disk *disk) {
    return atomic_load(&disk->last_errno);
}

void dkv_disk_set_fault(dkv_disk *disk, dkv_disk_fault fault, void *user) {
    disk->fault = fault;
    disk->fault_user = user;
}
