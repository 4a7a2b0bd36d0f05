/* Disk jobs: everything a store asks of a disk. The store fills a job in and hands it out; the disk
 * side (csrc/host for real files, csrc/sim for simulated ones) performs it and hands it back with
 * `err` set. The store touches no file itself.
 *
 * What a disk side promises:
 * 1. Jobs take effect in the order in which they were handed out; completions may come in any
 *    order. A READ therefore sees every WRITE handed out before it.
 * 2. A SYNC that completes with err 0 makes every WRITE to that file that was handed out before it
 *    survive a power loss. Until then any part of it, in any order, may or may not survive.
 * 3. CREATE, REMOVE and the length of a file survive a power loss after a later SYNC_DIR.
 * 4. After a SYNC or SYNC_DIR that failed, nothing more is promised: the node must stop.
 * 5. IO from a READ means the medium. What may pass, such as too many open files, is another error.
 */
#ifndef DKV_MODEL_DISK_H
#define DKV_MODEL_DISK_H

#include <stdint.h>

typedef enum dkv_disk_op {
    DKV_DISK_READ,     /* len_bytes at offset into data; past the end: fewer done_bytes, err 0 */
    DKV_DISK_WRITE,    /* len_bytes of data at offset, all or an error (NO_SPACE, IO) */
    DKV_DISK_SYNC,     /* as fdatasync */
    DKV_DISK_CREATE,   /* makes an empty file; err INVALID if it exists */
    DKV_DISK_REMOVE,   /* removes the file; err NOT_FOUND if there is none */
    DKV_DISK_TRUNCATE, /* sets the file's length to offset */
    DKV_DISK_SYNC_DIR, /* as fsync of the directory */
    DKV_DISK_SPACE,    /* sets offset to the bytes that can still be written; UINT64_MAX: unknown */
    DKV_DISK_LIST,     /* fills data with the files present: one dkv_disk_file each; open only */
} dkv_disk_op;

typedef enum dkv_file_kind {
    DKV_FILE_SEGMENT,  /* "NNNNNNNN.seg": a segment of the log */
    DKV_FILE_META,     /* "meta": identity and small durable facts of the store */
    DKV_FILE_SNAPSHOT, /* "index": the index as of a clean stop */
} dkv_file_kind;

/* A file of the data directory. `number` tells files of one kind apart (0 where there is one). */
typedef struct dkv_disk_file {
    dkv_file_kind kind;
    uint32_t number;
    uint64_t size_bytes; /* filled in by LIST */
} dkv_disk_file;

typedef struct dkv_disk_job {
    dkv_disk_op op;
    dkv_disk_file file; /* kind and number; unused by LIST, SPACE and SYNC_DIR */
    uint64_t offset;
    uint32_t len_bytes;  /* bytes wanted; for LIST the capacity of data in files */
    uint32_t done_bytes; /* set by the disk side: bytes read; for LIST the number of files */
    uint8_t *data;       /* READ, LIST: filled in by the disk side. WRITE: read by it. The store's,
                            unmoved until the job comes back */
    int err;             /* set by the disk side: 0 or a dkv_err */
} dkv_disk_job;

#define DKV_DISK_FILES_MAX 65536u /* files in one data directory */

/* A disk side that performs one job at once, for opening a store (nothing else runs then). Sets
 * job->err and returns it. */
typedef int (*dkv_disk_run)(void *disk, dkv_disk_job *job);

#endif
