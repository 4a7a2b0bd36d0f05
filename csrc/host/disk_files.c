#include "host/disk_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/err.h"
#include "host/disk.h"

#define NAME_BYTES 24u

int dkv_disk_err_of(int error) {
    switch (error) {
    case 0: return DKV_OK;
    case ENOSPC:
    case EDQUOT: return DKV_ERR_NO_SPACE;
    case ENOENT: return DKV_ERR_NOT_FOUND;
    case ENOTDIR:
    case EEXIST: return DKV_ERR_INVALID;
    case ENOMEM: return DKV_ERR_NO_MEMORY;
    case EMFILE:
    case ENFILE: return DKV_ERR_BUSY;
    case EACCES:
    case EPERM:
    case EROFS: return DKV_ERR_PERMISSION;
    default: return DKV_ERR_IO;
    }
}

/* ---- names ---- */

static void name_of(dkv_disk_file file, char name[NAME_BYTES]) {
    switch (file.kind) {
    case DKV_FILE_SEGMENT: snprintf(name, NAME_BYTES, "%08" PRIu32 ".seg", file.number); return;
    case DKV_FILE_META: snprintf(name, NAME_BYTES, "meta"); return;
    case DKV_FILE_SNAPSHOT: snprintf(name, NAME_BYTES, "index"); return;
    }
}

static bool parse_name(const char *name, dkv_disk_file *out) {
    *out = (dkv_disk_file){.kind = DKV_FILE_META};
    if (strcmp(name, "meta") == 0) return true;
    out->kind = DKV_FILE_SNAPSHOT;
    if (strcmp(name, "index") == 0) return true;
    out->kind = DKV_FILE_SEGMENT;
    char again[NAME_BYTES];
    if (sscanf(name, "%10" SCNu32, &out->number) != 1) return false;
    name_of(*out, again);
    return strcmp(name, again) == 0;
}

static uint64_t key_of(dkv_disk_file file) {
    return (uint64_t)file.kind << 32 | file.number;
}

/* ---- the directory ---- */

void dkv_disk_files_close(dkv_disk_files *files) {
    for (size_t i = 0; i < files->open.cap; i++) {
        dkv_open_file *file = files->open.slots[i].value;
        if (!file) continue;
        close(file->fd);
        free(file);
    }
    dkv_map_free(&files->open);
    if (files->lock >= 0) close(files->lock);
    if (files->dir >= 0) close(files->dir);
    files->lock = files->dir = -1;
}

/* Lists what the directory holds of a store. */
static int list_dir(const dkv_disk_files *files, dkv_disk_job *job) {
    dkv_disk_file *to = (dkv_disk_file *)(void *)job->data;
    int fd = openat(files->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        int err = dkv_disk_err_of(errno);
        if (fd >= 0) close(fd);
        return err;
    }
    int err = DKV_OK;
    const struct dirent *entry;
    while (!err && (errno = 0, entry = readdir(dir))) {
        dkv_disk_file file;
        struct stat status;
        if (!parse_name(entry->d_name, &file)) continue;
        if (fstatat(files->dir, entry->d_name, &status, 0)) break;
        file.size_bytes = (uint64_t)status.st_size;
        if (job->done_bytes == job->len_bytes) err = DKV_ERR_INVALID;
        if (!err) to[job->done_bytes++] = file;
    }
    if (!err) err = dkv_disk_err_of(errno);
    closedir(dir);
    return err;
}

static int take_lock(const dkv_disk_files *files) {
    if (!flock(files->lock, LOCK_EX | LOCK_NB)) return DKV_OK;
    return errno == EWOULDBLOCK ? DKV_ERR_LOCKED : dkv_disk_err_of(errno);
}

/* Opens the directory, made if it is not there, and locks it. */
static int open_dir(dkv_disk_files *files, const char *path) {
    if (mkdir(path, 0700) && errno != EEXIST) return dkv_disk_err_of(errno);
    files->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (files->dir < 0) return dkv_disk_err_of(errno);
    files->lock = openat(files->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (files->lock < 0) return dkv_disk_err_of(errno);
    int err = take_lock(files);
    if (err) return err;
    /* The directory itself must survive a power loss as well. */
    int parent = openat(files->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0) fsync(parent);
    if (parent >= 0) close(parent);
    return DKV_OK;
}

/* Whether files can be made in the directory at `path` relative to `dir`. */
static int check_writable(int dir, const char *path) {
    return faccessat(dir, path, W_OK | X_OK, AT_EACCESS) ? dkv_disk_err_of(errno) : DKV_OK;
}

/* NOT_FOUND with errno 0 if the directory at `path`, which is not there, can be made. */
static int look_at_parent(const char *path) {
    char *copy = strdup(path);
    if (!copy) return DKV_ERR_NO_MEMORY;
    int err = check_writable(AT_FDCWD, dirname(copy));
    int error = errno;
    free(copy);
    errno = err ? error : 0;
    return err ? err : DKV_ERR_NOT_FOUND;
}

/* As open_dir. */
static int look_at_dir(dkv_disk_files *files, const char *path) {
    files->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (files->dir < 0) return errno == ENOENT ? look_at_parent(path) : dkv_disk_err_of(errno);
    int err = check_writable(files->dir, ".");
    if (err) return err;
    files->lock = openat(files->dir, "lock", O_RDWR | O_CLOEXEC);
    if (files->lock >= 0) return take_lock(files);
    return errno == ENOENT ? DKV_OK : dkv_disk_err_of(errno);
}

/* PRECONDITION if the directory holds the files of a store. */
static int check_no_store(const dkv_disk_files *files) {
    dkv_disk_file first;
    dkv_disk_job job = {.op = DKV_DISK_LIST, .len_bytes = 1, .data = (uint8_t *)&first};
    int err = list_dir(files, &job);
    bool holds_any = err == DKV_ERR_INVALID || job.done_bytes > 0; /* INVALID: more than one */
    return holds_any ? DKV_ERR_PRECONDITION : err;
}

static int open_files(dkv_disk_files *files, const char *path, bool in_memory,
                      int (*open_it)(dkv_disk_files *files, const char *path)) {
    *files = (dkv_disk_files){.dir = -1, .lock = -1, .in_memory = in_memory};
    int err = open_it(files, path);
    if (!err && in_memory) err = check_no_store(files);
    int error = errno;
    if (err) dkv_disk_files_close(files);
    errno = error;
    return err;
}

int dkv_disk_files_open(dkv_disk_files *files, const char *path, bool in_memory) {
    return open_files(files, path, in_memory, open_dir);
}

int dkv_disk_files_look(dkv_disk_files *files, const char *path, bool in_memory) {
    return open_files(files, path, in_memory, look_at_dir);
}

/* Lists the files that are open: in memory all are. */
static int list_open(const dkv_disk_files *files, dkv_disk_job *job) {
    dkv_disk_file *to = (dkv_disk_file *)(void *)job->data;
    for (size_t i = 0; i < files->open.cap; i++) {
        const dkv_open_file *file = files->open.slots[i].value;
        if (!file) continue;
        if (job->done_bytes == job->len_bytes) return DKV_ERR_INVALID;
        to[job->done_bytes++] = (dkv_disk_file){.kind = (dkv_file_kind)(file->key >> 32),
                                                .number = (uint32_t)file->key,
                                                .size_bytes = file->size_bytes};
    }
    return DKV_OK;
}

int dkv_disk_files_list(const dkv_disk_files *files, dkv_disk_job *job) {
    return files->in_memory ? list_open(files, job) : list_dir(files, job);
}

int dkv_disk_files_space(const dkv_disk_files *files, dkv_disk_job *job) {
    struct statvfs status;
    job->offset = UINT64_MAX; /* of memory nothing is known beforehand */
    if (files->in_memory) return DKV_OK;
    if (fstatvfs(files->dir, &status)) return dkv_disk_err_of(errno);
    job->offset = (uint64_t)status.f_bavail * status.f_frsize;
    return DKV_OK;
}

/* ---- open files ---- */

/* Closes the file that has not been used for the longest time, if too many are open. */
static void evict(dkv_disk_files *files) {
    if (files->in_memory || files->open.len < DKV_DISK_OPEN_FILES_MAX) return;
    dkv_open_file *oldest = NULL;
    for (size_t i = 0; i < files->open.cap; i++) {
        dkv_open_file *file = files->open.slots[i].value;
        if (!file || file->jobs_out) continue;
        if (!oldest || file->last_use < oldest->last_use) oldest = file;
    }
    if (!oldest) return;
    dkv_map_remove(&files->open, oldest->key);
    close(oldest->fd);
    free(oldest);
}

/* A descriptor, or −1 with errno. */
static int open_fd(const dkv_disk_files *files, const char *name, bool create) {
    if (!files->in_memory) {
        int flags = O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0);
        return openat(files->dir, name, flags, 0600);
    }
    if (create) return memfd_create(name, MFD_CLOEXEC);
    errno = ENOENT;
    return -1;
}

static dkv_open_file *open_file(dkv_disk_files *files, dkv_disk_file name, bool create) {
    char text[NAME_BYTES];
    struct stat status;
    name_of(name, text);
    dkv_open_file *file = calloc(1, sizeof *file);
    if (!file) return NULL;
    file->key = key_of(name);
    file->fd = open_fd(files, text, create);
    if (file->fd < 0) goto fail;
    if (fstat(file->fd, &status)) goto fail_open;
    file->size_bytes = (uint64_t)status.st_size;
    if (!dkv_map_set(&files->open, file->key, file)) return file;
    errno = ENOMEM;
fail_open:
    close(file->fd);
fail:
    free(file);
    return NULL;
}

dkv_open_file *dkv_disk_files_get(dkv_disk_files *files, dkv_disk_file name, bool create) {
    dkv_open_file *file = dkv_map_get(&files->open, key_of(name));
    if (file && create) {
        errno = EEXIST;
        return NULL;
    }
    if (!file) {
        evict(files);
        file = open_file(files, name, create);
    }
    if (file) file->last_use = ++files->uses;
    return file;
}

int dkv_disk_files_remove(dkv_disk_files *files, dkv_disk_file name, int *left) {
    char text[NAME_BYTES];
    *left = -1;
    dkv_open_file *file = dkv_disk_files_get(files, name, false);
    if (!file) return dkv_disk_err_of(errno);
    name_of(name, text);
    if (!files->in_memory && unlinkat(files->dir, text, 0)) return dkv_disk_err_of(errno);
    dkv_map_remove(&files->open, file->key);
    file->removed = true;
    file->jobs_out++;
    *left = dkv_disk_files_let_go(file);
    return DKV_OK;
}

int dkv_disk_files_let_go(dkv_open_file *file) {
    if (--file->jobs_out > 0 || !file->removed) return -1;
    int fd = file->fd;
    free(file);
    return fd;
}

/* ---- transfers ---- */

int dkv_disk_read(int fd, dkv_disk_job *job) {
    while (job->done_bytes < job->len_bytes) {
        ssize_t n = pread(fd, job->data + job->done_bytes, job->len_bytes - job->done_bytes,
                          (off_t)(job->offset + job->done_bytes));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return dkv_disk_err_of(errno);
        if (n == 0) break;
        job->done_bytes += (uint32_t)n;
    }
    return DKV_OK;
}

int dkv_disk_write(int fd, const dkv_disk_job *job) {
    uint32_t done = 0;
    while (done < job->len_bytes) {
        ssize_t n =
            pwrite(fd, job->data + done, job->len_bytes - done, (off_t)(job->offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return dkv_disk_err_of(errno);
        done += (uint32_t)n;
    }
    return DKV_OK;
}

bool dkv_disk_read_cached(int fd, dkv_disk_job *job) {
    struct iovec to = {job->data, job->len_bytes};
    ssize_t n = preadv2(fd, &to, 1, (off_t)job->offset, RWF_NOWAIT);
    /* A file system that cannot tell, such as tmpfs, has everything in memory anyway. */
    if (n < 0 && errno == EOPNOTSUPP) n = preadv2(fd, &to, 1, (off_t)job->offset, 0);
    if (n != (ssize_t)job->len_bytes) return false;
    job->done_bytes = job->len_bytes;
    return true;
}
