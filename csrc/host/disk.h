/* The disk side of a node: performs a store's jobs (model/disk.h) on real files in one directory.
 *
 * What does not wait is done at once, in the thread of the caller, the owner: appends, which go to
 * the page cache, reads that the page cache can serve, and changes of the directory. A sync runs on
 * a thread of its own, a read that must wait for the medium on another; when one is done the `wake`
 * function is called and dkv_disk_next_done returns it. All functions here belong to the owner.
 *
 * With `in_memory` the files are memory of the process and end with it, and syncs are done at once;
 * the directory holds the lock only. It must not hold the files of a store: a node that came back
 * with them later would not know what it has missed.
 *
 * Files: "NNNNNNNN.seg", "meta", "index", and "lock", which is held as long as the directory is in
 * use. Other files are left alone. */
#ifndef DKV_HOST_DISK_H
#define DKV_HOST_DISK_H

#include <stdbool.h>

#include "model/disk.h"

#define DKV_DISK_OPEN_FILES_MAX 256u /* kept open between jobs */

typedef struct dkv_disk dkv_disk;

/* Called from the disk's threads when a job is done; must be short and must not call the disk. */
typedef void (*dkv_disk_wake)(void *user);

/* Opens the directory, making it (mode 0700) if it is not there, and locks it. *out is owned by the
 * caller. `wake` may be NULL if nothing is submitted. On an error `why` (DKV_DETAIL_MAX bytes) says
 * what is wrong: LOCKED, PERMISSION, NO_SPACE, IO, NO_MEMORY, INVALID (no directory), NOT_FOUND (no
 * parent directory), PRECONDITION (`in_memory`, and there are files of a store). */
int dkv_disk_open(const char *path, bool in_memory, dkv_disk_wake wake, void *user, dkv_disk **out,
                  char *why);

/* Opens the directory to see what dkv_disk_open would find; nothing is made or changed. *out is
 * NULL if the directory is not there but can be made. It has no threads: only jobs that read may be
 * run, by dkv_disk_run_now. The errors are those of dkv_disk_open. */
int dkv_disk_look(const char *path, bool in_memory, dkv_disk **out, char *why);

/* Waits for jobs that are being performed, drops those that wait, and closes everything. To be
 * called while the memory of the jobs is still there. Accepts NULL. */
void dkv_disk_del(dkv_disk *disk);

/* Performs the job now: a dkv_disk_run, `disk` being a dkv_disk. Only while no job is out. */
int dkv_disk_run_now(void *disk, dkv_disk_job *job);

/* Takes a job. True: it has been performed. False: it will come back from dkv_disk_next_done. */
bool dkv_disk_submit(dkv_disk *disk, dkv_disk_job *job);

/* A job that has been performed, or NULL. */
dkv_disk_job *dkv_disk_next_done(dkv_disk *disk);

/* The errno of the last job that failed, for messages. */
int dkv_disk_last_errno(const dkv_disk *disk);

/* For tests of what cannot be had from a real disk at will: asked before each job, in the thread
 * that performs it; a result other than 0 becomes the job's err, and nothing is performed. NULL
 * ends it. */
typedef int (*dkv_disk_fault)(void *user, const dkv_disk_job *job);
void dkv_disk_set_fault(dkv_disk *disk, dkv_disk_fault fault, void *user);

#endif
