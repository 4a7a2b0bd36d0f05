#include "store/reads.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static void enqueue(dkv_read_queue *queue, dkv_read *read) {
    read->next = NULL;
    if (queue->last) {
        queue->last->next = read;
    } else {
        queue->first = read;
    }
    queue->last = read;
}

static dkv_read *dequeue(dkv_read_queue *queue) {
    dkv_read *read = queue->first;
    if (!read) return NULL;
    queue->first = read->next;
    if (!queue->first) queue->last = NULL;
    return read;
}

static void read_del(dkv_read *read) {
    if (!read) return;
    free(read->data);
    free(read);
}

void dkv_reads_free(dkv_reads *reads) {
    dkv_read *read;
    while ((read = dequeue(&reads->waiting))) read_del(read);
    while ((read = dequeue(&reads->ready))) read_del(read);
    while ((read = reads->out)) {
        reads->out = read->next;
        read_del(read);
    }
    read_del(reads->delivered);
    *reads = (dkv_reads){0};
}

int dkv_reads_new(dkv_reads *reads, dkv_segment *segment, uint64_t place, dkv_slice key,
                  dkv_key_hash hash, uint64_t cookie, dkv_read **out) {
    if (reads->count >= DKV_READS_MAX) return DKV_ERR_BUSY;
    dkv_place at = dkv_place_unpack(place);
    dkv_read *read = calloc(1, sizeof *read + key.len);
    if (!read) return DKV_ERR_NO_MEMORY;
    read->cookie = cookie;
    read->hash = hash;
    read->place = place;
    read->segment = segment;
    read->key_len = key.len;
    if (key.len) memcpy(read->key, key.data, key.len);
    read->job = (dkv_disk_job){.op = DKV_DISK_READ,
                               .file = dkv_segment_file(segment),
                               .offset = at.offset,
                               .len_bytes = at.len_bytes};
    reads->count++;
    segment->reads_out++;
    *out = read;
    return DKV_OK;
}

static void finish(dkv_reads *reads, dkv_read *read, int err) {
    read->err = err;
    read->segment->reads_out--;
    enqueue(&reads->ready, read);
}

/* Whether the bytes read are the record of the key that was asked for. */
static int check(dkv_read *read, uint64_t store_id, bool *damaged) {
    dkv_log_at at = {store_id, read->job.file.number, (uint32_t)read->job.offset};
    *damaged = dkv_log_plausible_length(read->data) != read->job.len_bytes ||
               dkv_log_decode(read->data, at, &read->found) != DKV_OK;
    if (*damaged) return DKV_ERR_DATA_LOSS;
    dkv_slice key = {read->key, read->key_len};
    bool other_key = key.len > 0 && !dkv_slice_eq(key, read->found.record.key);
    return other_key ? DKV_ERR_DATA_LOSS : DKV_OK;
}

void dkv_reads_queue(dkv_reads *reads, dkv_read *read) {
    enqueue(&reads->waiting, read);
}

void dkv_reads_copy(dkv_reads *reads, dkv_read *read, const uint8_t *record, uint64_t store_id) {
    bool damaged;
    int err = DKV_ERR_NO_MEMORY;
    read->data = malloc(read->job.len_bytes);
    if (read->data) {
        memcpy(read->data, record, read->job.len_bytes);
        err = check(read, store_id, &damaged);
    }
    finish(reads, read, err);
}

dkv_disk_job *dkv_reads_next_job(dkv_reads *reads) {
    while (reads->waiting.first && reads->jobs_out < DKV_READ_JOBS_MAX) {
        dkv_read *read = dequeue(&reads->waiting);
        read->data = malloc(read->job.len_bytes);
        if (read->data) {
            read->job.data = read->data;
            read->next = reads->out;
            reads->out = read;
            reads->jobs_out++;
            return &read->job;
        }
        finish(reads, read, DKV_ERR_NO_MEMORY);
    }
    return NULL;
}

bool dkv_reads_job_done(dkv_reads *reads, dkv_disk_job *job, uint64_t store_id) {
    dkv_read *read = (dkv_read *)job;
    bool damaged = false;
    int err = job->err;
    dkv_read **at = &reads->out;
    while (*at != read) at = &(*at)->next;
    *at = read->next;
    reads->jobs_out--;
    if (!err && job->done_bytes < job->len_bytes) {
        err = DKV_ERR_DATA_LOSS; /* the file is shorter than it was */
        damaged = true;
    }
    if (!err) err = check(read, store_id, &damaged);
    finish(reads, read, err);
    return damaged;
}

const dkv_read *dkv_reads_next_ready(dkv_reads *reads) {
    read_del(reads->delivered);
    reads->delivered = dequeue(&reads->ready);
    if (reads->delivered) reads->count--;
    return reads->delivered;
}
