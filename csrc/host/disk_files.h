/* The files of a data directory: names, open descriptors, and each disk job as system calls.
 * Private to host/disk*.c. */
#ifndef DKV_HOST_DISK_FILES_H
#define DKV_HOST_DISK_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "model/disk.h"

/* An open file. Belongs to the owner thread, but for `fd` while `jobs_out` is not 0. */
typedef struct dkv_open_file {
    uint64_t key;
    int fd;
    uint64_t size_bytes;
    uint64_t last_use;
    uint64_t read_bytes; /* no read under way goes further */
    uint32_t jobs_out;   /* submitted, performed by another thread */
    bool removed;        /* no longer in the directory: closed when the last job is back */
} dkv_open_file;

typedef struct dkv_disk_files {
    int dir;
    int lock;
    bool in_memory; /* the files are in `open` only, and in no directory */
    dkv_map open;   /* key -> dkv_open_file */
    uint64_t uses;
} dkv_disk_files;

/* 0, or a dkv_err with errno telling more. PRECONDITION: `in_memory`, but the directory holds files
 * of a store. */
int dkv_disk_files_open(dkv_disk_files *files, const char *path, bool in_memory);

/* The same, and nothing is made or changed. NOT_FOUND with errno 0: it is not there, and can be
 * made. A start in the instant of the look would find the directory in use. */
int dkv_disk_files_look(dkv_disk_files *files, const char *path, bool in_memory);
void dkv_disk_files_close(dkv_disk_files *files);

/* The open file, opened if need be; NULL with errno. `create`: it must not exist yet. */
dkv_open_file *dkv_disk_files_get(dkv_disk_files *files, dkv_disk_file name, bool create);

/* Removes the file from the directory. *left: its descriptor, to be closed by the caller, since
 * that is what frees the space and may take long; −1 if jobs are still out: it is then closed
 * by dkv_disk_files_let_go. */
int dkv_disk_files_remove(dkv_disk_files *files, dkv_disk_file name, int *left);

/* A job of the file is back. Returns a descriptor to close, or −1. */
int dkv_disk_files_let_go(dkv_open_file *file);

int dkv_disk_files_list(const dkv_disk_files *files, dkv_disk_job *job);

/* Sets job->offset to the bytes that an unprivileged process can still write. */
int dkv_disk_files_space(const dkv_disk_files *files, dkv_disk_job *job);

/* The dkv_err of an errno. */
int dkv_disk_err_of(int error);

/* The transfers, on a descriptor; each returns 0 or a dkv_err with errno. */
int dkv_disk_read(int fd, dkv_disk_job *job);
int dkv_disk_write(int fd, const dkv_disk_job *job);

/* Reads what the page cache has. False: the medium is needed. */
bool dkv_disk_read_cached(int fd, dkv_disk_job *job);

#endif
