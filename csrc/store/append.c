#include "store/append.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plant.h"

/* ---- chunks ---- */

static void chunk_del(dkv_chunk *chunk) {
    if (!chunk) return;
    dkv_buf_free(&chunk->bytes);
    free(chunk);
}

static dkv_chunk *chunk_new(dkv_append *append, dkv_segment *segment) {
    dkv_chunk *chunk = append->spare;
    append->spare = NULL;
    if (!chunk) chunk = calloc(1, sizeof *chunk);
    if (!chunk) return NULL;
    chunk->next = NULL;
    chunk->segment = segment;
    chunk->offset = segment->end;
    chunk->closed = false;
    chunk->bytes.len = 0;
    return chunk;
}

/* Keeps the chunk for the next use, or frees it. */
static void chunk_retire(dkv_append *append, dkv_chunk *chunk) {
    chunk_del(append->spare);
    append->spare = chunk;
}

static void chunk_enqueue(dkv_append *append, dkv_chunk *chunk) {
    if (append->tail) {
        append->tail->closed = true;
        append->tail->next = chunk;
    } else {
        append->head = chunk;
    }
    append->tail = chunk;
}

static bool is_closed(const dkv_chunk *chunk) {
    return chunk->closed || chunk->bytes.len >= DKV_CHUNK_BYTES;
}

void dkv_append_free(dkv_append *append) {
    while (append->head) {
        dkv_chunk *next = append->head->next;
        chunk_del(append->head);
        append->head = next;
    }
    chunk_del(append->spare);
    free(append->waiters);
    *append = (dkv_append){0};
}

/* ---- segments ---- */

/* Nothing is left to do for the segment. */
static bool is_finished(const dkv_segment *segment) {
    bool durable = segment->synced == segment->end && !segment->shortened;
    return segment->sealed && durable && segment->length == segment->end;
}

/* Moves `durable` and `syncing` on as far as syncs have come. */
static void advance(dkv_append *append) {
    dkv_segment *segment = append->syncing;
    while (segment && is_finished(segment)) segment = segment->next;
    append->syncing = segment;
    append->durable = segment ? segment->base + segment->synced : append->appended;
}

/* Adds bytes to the tail; there is room. */
static uint8_t *extend(dkv_append *append, uint32_t len_bytes) {
    dkv_buf *bytes = &append->tail->bytes;
    uint8_t *to = bytes->data + bytes->len;
    bytes->len += len_bytes;
    dkv_segments_grow(append->segments, append->active, len_bytes);
    append->appended += len_bytes;
    return to;
}

static void append_record(dkv_append *append, dkv_log_record record) {
    dkv_segment *segment = append->active;
    uint32_t len = dkv_log_length(record.record.key.len, record.record.value.len);
    dkv_log_at at = {append->identity->store_id, segment->number, segment->end};
    record.synced_upto = segment->synced;
    dkv_log_encode(extend(append, len), at, &record);
}

/* The segments that a later recovery must find: those not about to be removed. */
static size_t list_present(const dkv_segments *segments, uint8_t *to) {
    size_t len = 0;
    for (uint32_t i = 0; i < segments->slots; i++) {
        const dkv_segment *segment = segments->by_slot[i];
        if (!segment || segment->removed_notice) continue;
        dkv_put_le32(to + len, segment->number);
        dkv_put_le32(to + len + 4, segment->end);
        len += DKV_LOG_PRESENT_BYTES;
    }
    return len;
}

/* Seals the active segment and makes `segment` the active one, beginning with `first`. */
static void activate(dkv_append *append, dkv_segment *segment, dkv_chunk *first) {
    dkv_segment *last = append->active;
    dkv_log_header header = {.identity = *append->identity, .number = segment->number};
    if (last) {
        dkv_segments_seal(append->segments, last);
        last->next = segment;
    }
    segment->base = append->appended;
    append->active = segment;
    chunk_enqueue(append, first);
    if (!append->syncing) append->syncing = segment;
    advance(append);
    dkv_log_header_encode(extend(append, DKV_LOG_HEADER_BYTES), &header);
}

static int open_segment(dkv_append *append) {
    dkv_segments *segments = append->segments;
    dkv_segment *segment = NULL;
    dkv_chunk *chunk = NULL;
    uint8_t *list = NULL;
    int err = dkv_segments_add(segments, segments->last_number + 1, &segment);
    if (err) return err;
    err = DKV_ERR_NO_MEMORY;
    size_t list_max = (size_t)segments->count * DKV_LOG_PRESENT_BYTES;
    list = malloc(list_max);
    chunk = chunk_new(append, segment);
    if (!list || !chunk) goto fail;
    err = dkv_buf_reserve(&chunk->bytes, DKV_LOG_HEADER_BYTES + dkv_log_length(0, list_max));
    if (err) goto fail;
    activate(append, segment, chunk);
    dkv_slice present = {list, list_present(segments, list)};
    append_record(append, (dkv_log_record){.kind = DKV_LOG_PRESENT, .record = {.value = present}});
    free(list);
    return DKV_OK;
fail:
    chunk_del(chunk);
    free(list);
    segments->last_number--;
    dkv_segments_drop(segments, segment);
    return err;
}

int dkv_append_reserve(dkv_append *append, uint32_t len_bytes, dkv_place *place) {
    const dkv_segment *active = append->active;
    if (!active || (uint64_t)active->end + len_bytes > append->segment_bytes) {
        bool only_opened = active && append->active_first == active->end;
        if (!only_opened) {
            int err = open_segment(append);
            if (err) return err;
            append->active_first = append->active->end;
        }
    }
    dkv_segment *segment = append->active;
    if (!append->tail || is_closed(append->tail)) {
        dkv_chunk *chunk = chunk_new(append, segment);
        if (!chunk) return DKV_ERR_NO_MEMORY;
        int err = dkv_buf_reserve(&chunk->bytes, len_bytes);
        if (err) {
            chunk_del(chunk);
            return err;
        }
        chunk_enqueue(append, chunk);
    } else {
        int err = dkv_buf_reserve(&append->tail->bytes, len_bytes);
        if (err) return err;
    }
    *place = (dkv_place){.slot = segment->slot, .offset = segment->end, .len_bytes = len_bytes};
    return DKV_OK;
}

void dkv_append_commit(dkv_append *append, const dkv_log_record *record) {
    if (!append->syncing) append->syncing = append->active;
    append_record(append, *record);
}

const uint8_t *dkv_append_peek(const dkv_append *append, const dkv_segment *segment,
                               uint32_t offset) {
    if (offset < segment->written) return NULL;
    for (const dkv_chunk *chunk = append->head; chunk; chunk = chunk->next) {
        if (chunk->segment != segment) continue;
        if (offset - chunk->offset < chunk->bytes.len && offset >= chunk->offset) {
            return chunk->bytes.data + (offset - chunk->offset);
        }
    }
    return NULL;
}

/* ---- waiters ---- */

int dkv_append_reserve_waiter(dkv_append *append) {
    if (append->waiters_len < append->waiters_cap) return DKV_OK;
    if (append->waiters_cap >= DKV_WAITERS_MAX) return DKV_ERR_BUSY;
    size_t cap = append->waiters_cap ? append->waiters_cap * 2 : 64;
    dkv_waiter *waiters = malloc(cap * sizeof *waiters);
    if (!waiters) return DKV_ERR_NO_MEMORY;
    for (size_t i = 0; i < append->waiters_len; i++) {
        waiters[i] = append->waiters[(append->waiters_first + i) & (append->waiters_cap - 1)];
    }
    free(append->waiters);
    append->waiters = waiters;
    append->waiters_cap = cap;
    append->waiters_first = 0;
    return DKV_OK;
}

void dkv_append_wait(dkv_append *append, uint64_t cookie) {
    assert(append->waiters_len < append->waiters_cap);
    size_t at = (append->waiters_first + append->waiters_len++) & (append->waiters_cap - 1);
    append->waiters[at] = (dkv_waiter){append->appended, cookie};
}

uint64_t dkv_append_written(const dkv_append *append) {
    const dkv_segment *segment = append->syncing;
    return segment ? segment->base + segment->written : append->appended;
}

static bool confirms_before_sync(const dkv_append *append) {
    return append->interval_ns || DKV_PLANTED(CONFIRM_BEFORE_SYNC);
}

/* Log position up to which everything is confirmed. */
static uint64_t confirmed_position(const dkv_append *append) {
    return confirms_before_sync(append) ? dkv_append_written(append) : append->durable;
}

uint32_t dkv_append_confirmed(const dkv_append *append, const dkv_segment *segment) {
    return confirms_before_sync(append) ? segment->written : segment->synced;
}

uint64_t dkv_append_unconfirmed(const dkv_append *append) {
    return append->appended - confirmed_position(append);
}

bool dkv_append_next_decided(dkv_append *append, uint64_t *cookie, int *err) {
    if (append->waiters_len == 0) return false;
    const dkv_waiter *oldest = &append->waiters[append->waiters_first];
    bool confirmed = oldest->position <= confirmed_position(append);
    bool refused = append->full && oldest->position <= append->refused &&
                   oldest->position > dkv_append_written(append);
    if (!confirmed && !refused) return false;
    *cookie = oldest->cookie;
    *err = confirmed ? DKV_OK : DKV_ERR_NO_SPACE;
    append->waiters_first = (append->waiters_first + 1) & (append->waiters_cap - 1);
    append->waiters_len--;
    return true;
}

/* ---- jobs ---- */

/* How many zeros to write behind the chunk. Large writes gain nothing: their bytes would only be
 * written twice. */
static uint32_t room_ahead(const dkv_append *append, const dkv_chunk *chunk) {
    uint64_t end = chunk->offset + chunk->bytes.len;
    bool is_small = chunk->bytes.len <= append->ahead_bytes / 4;
    bool fits = end + append->ahead_bytes <= append->segment_bytes;
    bool wanted = is_small && fits && end > chunk->segment->length;
    return wanted && !append->closing && !append->full ? append->ahead_bytes : 0;
}

/* Without memory for the zeros there are none. */
static uint32_t add_room_ahead(const dkv_append *append, dkv_chunk *chunk) {
    uint32_t room = room_ahead(append, chunk);
    if (!room || dkv_buf_reserve(&chunk->bytes, room)) return 0;
    memset(chunk->bytes.data + chunk->bytes.len, 0, room);
    return room;
}

/* True if everything of the segment is written and its file is longer than that for good. A sync
 * that is out has to be over first: it may be one of these bytes. */
static bool is_too_long(const dkv_append *append, const dkv_segment *segment) {
    bool complete = segment->written == segment->end && (segment->sealed || append->closing);
    return complete && segment->length > segment->end && !append->sync_out;
}

static dkv_disk_job *next_truncate(dkv_append *append) {
    const dkv_segment *segment = append->syncing;
    if (append->write_out || !segment || !is_too_long(append, segment)) return NULL;
    append->write_out = true;
    append->write_job = (dkv_disk_job){
        .op = DKV_DISK_TRUNCATE, .file = dkv_segment_file(segment), .offset = segment->end};
    return &append->write_job;
}

static dkv_disk_job *next_write(dkv_append *append) {
    dkv_chunk *chunk = append->head;
    if (append->write_out || !chunk || chunk->segment != append->syncing) return NULL;
    if (append->sync_out && !append->interval_ns && !is_closed(chunk)) return NULL;
    if (append->full && !append->retry) return NULL;
    append->retry = false;
    append->write_out = true;
    append->write_job = (dkv_disk_job){.file = dkv_segment_file(chunk->segment)};
    if (!chunk->segment->created) {
        append->write_job.op = DKV_DISK_CREATE;
        return &append->write_job;
    }
    chunk->closed = true;
    append->write_job.op = DKV_DISK_WRITE;
    append->write_job.offset = chunk->offset;
    append->write_job.len_bytes = (uint32_t)chunk->bytes.len + add_room_ahead(append, chunk);
    append->write_job.data = chunk->bytes.data;
    return &append->write_job;
}

/* True if everything of the segment is written: the next one waits for it. */
static bool is_complete(const dkv_segment *segment) {
    return segment->sealed && segment->written == segment->end;
}

/* The directory entry of a segment comes first: bytes that are synced can be found again. */
static dkv_disk_job *next_sync(dkv_append *append) {
    dkv_segment *segment = append->syncing;
    if (append->sync_out || !segment || !segment->created) return NULL;
    bool data_due = segment->written > segment->synced || segment->shortened;
    if (segment->dir_synced && (!data_due || append->write_out)) return NULL;
    bool early = append->now_ns < append->sync_due_ns && !is_complete(segment);
    if (segment->dir_synced && append->interval_ns && early) return NULL;
    append->sync_out = true;
    append->sync_job = (dkv_disk_job){.op = DKV_DISK_SYNC_DIR};
    if (segment->dir_synced) {
        append->sync_job = (dkv_disk_job){.op = DKV_DISK_SYNC, .file = dkv_segment_file(segment)};
        append->sync_upto = segment->written;
        append->sync_due_ns = append->now_ns + append->interval_ns;
    }
    return &append->sync_job;
}

int64_t dkv_append_next_timer(const dkv_append *append) {
    const dkv_segment *segment = append->syncing;
    if (!append->interval_ns || append->write_out || append->sync_out) return INT64_MAX;
    bool waits = segment && segment->written > segment->synced;
    return waits ? append->sync_due_ns : INT64_MAX;
}

/* True if so much is written and not synced that a sync must not wait for further writes. */
static bool sync_is_overdue(const dkv_append *append) {
    const dkv_segment *segment = append->syncing;
    return segment && !append->interval_ns && segment->written - segment->synced >= DKV_CHUNK_BYTES;
}

dkv_disk_job *dkv_append_next_job(dkv_append *append) {
    if (append->failed) return NULL;
    dkv_disk_job *job = sync_is_overdue(append) ? next_sync(append) : NULL;
    if (!job) job = next_write(append);
    if (!job) job = next_truncate(append);
    if (!job) job = next_sync(append);
    return job;
}

/* There may be space for the records without room behind them. */
static void no_space(dkv_append *append) {
    append->full = true;
    append->retry = append->write_job.len_bytes > append->head->bytes.len;
    if (!append->retry) append->refused = append->appended;
}

static void truncate_done(dkv_append *append, dkv_segment *segment) {
    int err = append->write_job.err;
    append->failed = err && err != DKV_ERR_NO_SPACE; /* then the zeros stay, and do no harm */
    segment->length = segment->end;
    segment->shortened = true;
}

static void write_done(dkv_append *append) {
    dkv_chunk *chunk = append->head;
    append->write_out = false;
    if (append->write_job.op == DKV_DISK_TRUNCATE) {
        truncate_done(append, append->syncing);
        return;
    }
    uint32_t length = (uint32_t)append->write_job.offset + append->write_job.len_bytes;
    if (length > chunk->segment->length) chunk->segment->length = length;
    if (append->write_job.err == DKV_ERR_NO_SPACE) {
        no_space(append);
        return;
    }
    if (append->write_job.err) {
        append->failed = true;
        return;
    }
    append->full = false;
    if (append->write_job.op == DKV_DISK_CREATE) {
        chunk->segment->created = true;
        return;
    }
    chunk->segment->written = chunk->offset + (uint32_t)chunk->bytes.len;
    append->head = chunk->next;
    if (!append->head) append->tail = NULL;
    chunk_retire(append, chunk);
}

static void sync_done(dkv_append *append) {
    append->sync_out = false;
    append->syncs++;
    if (append->sync_job.err) {
        append->failed = true;
        return;
    }
    if (append->sync_job.op == DKV_DISK_SYNC_DIR) {
        append->syncing->dir_synced = true;
    } else {
        append->syncing->synced = append->sync_upto;
        append->syncing->shortened = false;
    }
    advance(append);
}

void dkv_append_job_done(dkv_append *append, dkv_disk_job *job) {
    if (job == &append->write_job) {
        write_done(append);
    } else {
        sync_done(append);
    }
}

void dkv_append_retry(dkv_append *append) {
    append->retry = append->full;
}
