#include "store/meta.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"

#define FACTS_SEED 2u
#define CHECKSUM_AT 248u
#define PAGE_BYTES 4096u
#define SEQUENCE_MAX ((uint64_t)INT64_MAX) /* out of reach; counting on from there is safe */

static const uint8_t magic[8] = {'d', 'k', 'v', '-', 'm', 'e', 't', 'a'};
static const dkv_disk_file meta_file = {.kind = DKV_FILE_META};

void dkv_meta_free(dkv_meta *meta) {
    dkv_buf_free(&meta->facts);
    free(meta->image);
    free(meta->waiters);
    *meta = (dkv_meta){0};
}

/* ---- bytes of a slot ---- */

static uint64_t slot_checksum(const uint8_t *slot, uint32_t facts_len) {
    dkv_slice facts = {slot + DKV_META_HEADER_BYTES, facts_len};
    return dkv_checksum((dkv_slice){slot, CHECKSUM_AT}, dkv_checksum(facts, FACTS_SEED));
}

/* Returns the length to write. */
static uint32_t encode(const dkv_meta *meta, uint8_t *slot) {
    size_t used = DKV_META_HEADER_BYTES + meta->facts.len;
    size_t len = meta->whole ? DKV_META_STRIDE : (used + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    memset(slot, 0, len);
    memcpy(slot, magic, sizeof magic);
    dkv_put_le32(slot + 8, DKV_LOG_VERSION);
    dkv_put_le32(slot + 12, (uint32_t)meta->facts.len);
    dkv_put_le64(slot + 16, meta->sequence);
    dkv_put_le64(slot + 24, meta->identity.store_id);
    dkv_put_le64(slot + 32, meta->snapshot);
    dkv_log_names_encode(slot + 40, &meta->identity);
    dkv_put_le32(slot + 170, meta->newest_segment);
    dkv_put_le32(slot + 174, meta->damage);
    dkv_put_le32(slot + 178, meta->lazy);
    dkv_put_le64(slot + 182, meta->boot_id);
    if (meta->facts.len) memcpy(slot + DKV_META_HEADER_BYTES, meta->facts.data, meta->facts.len);
    dkv_put_le64(slot + CHECKSUM_AT, slot_checksum(slot, (uint32_t)meta->facts.len));
    return (uint32_t)len;
}

/* True if the slot is valid; *version is its format version. */
static bool is_valid(const uint8_t *slot, uint32_t *version) {
    uint32_t facts_len = dkv_le32(slot + 12);
    if (memcmp(slot, magic, sizeof magic) != 0) return false;
    if (facts_len > DKV_META_STRIDE - DKV_META_HEADER_BYTES) return false;
    if (dkv_le64(slot + 16) > SEQUENCE_MAX) return false;
    if (dkv_le64(slot + CHECKSUM_AT) != slot_checksum(slot, facts_len)) return false;
    *version = dkv_le32(slot + 8);
    return true;
}

static int decode(dkv_meta *meta, const uint8_t *slot) {
    uint32_t facts_len = dkv_le32(slot + 12);
    int err = dkv_log_names_decode(slot + 40, &meta->identity);
    if (err) return err;
    meta->facts.len = 0;
    err = dkv_buf_append(&meta->facts, (dkv_slice){slot + DKV_META_HEADER_BYTES, facts_len});
    if (err) return err;
    meta->sequence = dkv_le64(slot + 16);
    meta->identity.store_id = dkv_le64(slot + 24);
    meta->snapshot = dkv_le64(slot + 32);
    meta->newest_segment = dkv_le32(slot + 170);
    meta->damage = dkv_le32(slot + 174);
    meta->lazy = dkv_le32(slot + 178) != 0;
    meta->boot_id = dkv_le64(slot + 182);
    return DKV_OK;
}

/* ---- while the store runs ---- */

void dkv_meta_touch(dkv_meta *meta) {
    meta->sequence++;
    meta->copies_due = 2;
    meta->stalled = false;
}

void dkv_meta_note_damage(dkv_meta *meta) {
    if (meta->damage < UINT32_MAX) meta->damage++;
    dkv_meta_touch(meta);
    meta->damage_sequence = meta->sequence;
}

static int add_waiter(dkv_meta *meta, dkv_meta_waiter waiter) {
    if (meta->waiters_len == meta->waiters_cap) {
        if (meta->waiters_cap >= DKV_META_WAITERS_MAX) return DKV_ERR_BUSY;
        size_t cap = meta->waiters_cap ? meta->waiters_cap * 2 : 16;
        dkv_meta_waiter *waiters = realloc(meta->waiters, cap * sizeof *waiters);
        if (!waiters) return DKV_ERR_NO_MEMORY;
        meta->waiters = waiters;
        meta->waiters_cap = cap;
    }
    meta->waiters[meta->waiters_len++] = waiter;
    return DKV_OK;
}

int dkv_meta_set_facts(dkv_meta *meta, dkv_slice facts, uint64_t cookie) {
    dkv_buf copy = {0};
    int err = dkv_buf_append(&copy, facts);
    if (err) return err;
    err = add_waiter(meta, (dkv_meta_waiter){meta->sequence + 1, cookie});
    if (err) {
        dkv_buf_free(&copy);
        return err;
    }
    dkv_buf_free(&meta->facts);
    meta->facts = copy;
    meta->damage = 0; /* whoever sets facts has been told */
    dkv_meta_touch(meta);
    return DKV_OK;
}

bool dkv_meta_next_decided(dkv_meta *meta, uint64_t *cookie, int *err) {
    if (meta->waiters_len == 0) return false;
    bool durable = meta->waiters[0].sequence <= meta->durable;
    if (!durable && !meta->stalled) return false;
    *cookie = meta->waiters[0].cookie;
    *err = durable ? DKV_OK : DKV_ERR_NO_SPACE;
    meta->waiters_len--;
    memmove(meta->waiters, meta->waiters + 1, meta->waiters_len * sizeof meta->waiters[0]);
    return true;
}

dkv_disk_job *dkv_meta_next_job(dkv_meta *meta) {
    if (meta->out || meta->failed || meta->stalled) return NULL;
    if (meta->image_sequence != 0) { /* written, to be synced */
        meta->job = (dkv_disk_job){.op = DKV_DISK_SYNC, .file = meta_file};
        meta->out = true;
        return &meta->job;
    }
    if (meta->copies_due == 0) return NULL;
    if (!meta->image) meta->image = malloc(DKV_META_STRIDE);
    if (!meta->image) return NULL; /* tried again with the next call */
    uint32_t len = encode(meta, meta->image);
    meta->image_sequence = meta->sequence;
    meta->job = (dkv_disk_job){.op = DKV_DISK_WRITE,
                               .file = meta_file,
                               .offset = (uint64_t)meta->slot * DKV_META_STRIDE,
                               .len_bytes = len,
                               .data = meta->image};
    meta->out = true;
    return &meta->job;
}

void dkv_meta_job_done(dkv_meta *meta) {
    meta->out = false;
    if (meta->job.err == DKV_ERR_NO_SPACE && meta->job.op == DKV_DISK_WRITE) {
        meta->stalled = true;
        meta->image_sequence = 0;
    } else if (meta->job.err) {
        meta->failed = true;
    } else if (meta->job.op == DKV_DISK_SYNC) {
        meta->durable = meta->image_sequence;
        if (meta->image_sequence == meta->sequence) meta->copies_due--;
        meta->image_sequence = 0;
        meta->slot ^= 1;
    }
}

void dkv_meta_retry(dkv_meta *meta) {
    meta->stalled = false;
}

/* ---- opening and closing ---- */

static int read_slot(uint8_t *to, uint32_t slot, dkv_disk_run run, void *disk) {
    memset(to, 0, DKV_META_STRIDE);
    dkv_disk_job job = {.op = DKV_DISK_READ,
                        .file = meta_file,
                        .offset = (uint64_t)slot * DKV_META_STRIDE,
                        .len_bytes = DKV_META_STRIDE,
                        .data = to};
    return run(disk, &job);
}

int dkv_meta_load(dkv_meta *meta, dkv_disk_run run, void *disk) {
    uint8_t *bytes = malloc(DKV_META_STRIDE);
    if (!bytes) return DKV_ERR_NO_MEMORY;
    bool found = false;
    int err = DKV_OK;
    for (uint32_t slot = 0; slot < 2 && !err; slot++) {
        uint32_t version;
        err = read_slot(bytes, slot, run, disk);
        if (err || !is_valid(bytes, &version)) continue;
        if (version != DKV_LOG_VERSION) {
            err = DKV_ERR_PROTOCOL;
        } else if (!found || dkv_le64(bytes + 16) > meta->sequence) {
            err = decode(meta, bytes);
            meta->slot = slot ^ 1;
            found = true;
        }
    }
    free(bytes);
    if (err) return err;
    meta->durable = meta->sequence;
    return found ? DKV_OK : DKV_ERR_NOT_FOUND;
}

int dkv_meta_store(dkv_meta *meta, dkv_disk_run run, void *disk) {
    int err = DKV_OK;
    meta->whole = true;
    dkv_meta_touch(meta);
    while (meta->copies_due > 0 && !err) {
        dkv_disk_job *job = dkv_meta_next_job(meta);
        err = job ? run(disk, job) : DKV_ERR_NO_MEMORY;
        if (job) dkv_meta_job_done(meta);
    }
    meta->whole = false;
    return err;
}
