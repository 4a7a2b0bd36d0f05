/* Reads under way. A record that is still in memory is copied at once; any other takes one READ
 * job of its exact length. A bounded number of jobs is out at a time, the rest waits in order. */
#ifndef DKV_STORE_READS_H
#define DKV_STORE_READS_H

#include "base/hash.h"
#include "store/segments.h"

#define DKV_READS_MAX 65536u  /* accepted and not yet delivered */
#define DKV_READ_JOBS_MAX 64u /* out at a time */

typedef struct dkv_read {
    dkv_disk_job job; /* first, so that a job is its read */
    struct dkv_read *next;
    uint64_t cookie;
    dkv_key_hash hash;
    uint64_t place;
    dkv_segment *segment; /* counted in its reads_out until the bytes are here */
    uint8_t *data;        /* the record as it is in the log */
    int err;
    dkv_log_record found;
    size_t key_len; /* 0: any key will do */
    uint8_t key[];
} dkv_read;

typedef struct dkv_read_queue {
    dkv_read *first;
    dkv_read *last;
} dkv_read_queue;

typedef struct dkv_reads {
    dkv_read_queue waiting; /* for a job */
    dkv_read *out;          /* their jobs are out, at most DKV_READ_JOBS_MAX */
    dkv_read_queue ready;   /* for delivery */
    dkv_read *delivered;    /* the last, whose record the caller may still use */
    uint32_t jobs_out;
    uint32_t count; /* accepted and not yet delivered */
} dkv_reads;

void dkv_reads_free(dkv_reads *reads);

/* A new read of the record at `place`, counted and holding its segment. NO_MEMORY; BUSY: too many.
 * Goes on with dkv_reads_queue or dkv_reads_copy. */
int dkv_reads_new(dkv_reads *reads, dkv_segment *segment, uint64_t place, dkv_slice key,
                  dkv_key_hash hash, uint64_t cookie, dkv_read **out);

/* The record is to be read from disk. */
void dkv_reads_queue(dkv_reads *reads, dkv_read *read);

/* The record is in memory: copies it, which ends the read (NO_MEMORY becomes its outcome). */
void dkv_reads_copy(dkv_reads *reads, dkv_read *read, const uint8_t *record, uint64_t store_id);

dkv_disk_job *dkv_reads_next_job(dkv_reads *reads);

/* `job` has been performed: ends its read. True if the bytes are no valid record, so that the place
 * is damaged. */
bool dkv_reads_job_done(dkv_reads *reads, dkv_disk_job *job, uint64_t store_id);

/* The next read to deliver, or NULL. Stays until the next call. */
const dkv_read *dkv_reads_next_ready(dkv_reads *reads);

#endif
