#include "store/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "store/store_impl.h"

#define BLOCK_HEADER_BYTES 12u
#define HEAD_BYTES 24u
#define SEGMENT_BYTES 8u
#define ENTRY_BYTES 40u
#define PAGE_ENTRIES 64u

static const uint8_t magic[8] = {'d', 'k', 'v', '-', 's', 'n', 'a', 'p'};
static const dkv_disk_file snapshot_file = {.kind = DKV_FILE_SNAPSHOT};

/* The file as a stream of items, written or read block by block. */
typedef struct stream {
    dkv_disk_run run;
    void *disk;
    uint64_t tag;
    uint32_t block;
    uint32_t len; /* of the block, header included */
    uint32_t at;  /* reading: the next item */
    uint8_t bytes[DKV_SNAPSHOT_BLOCK_BYTES];
} stream;

static stream *stream_new(uint64_t tag, dkv_disk_run run, void *disk) {
    stream *s = malloc(sizeof *s);
    if (!s) return NULL;
    s->run = run;
    s->disk = disk;
    s->tag = tag;
    s->block = 0;
    s->len = s->at = BLOCK_HEADER_BYTES;
    return s;
}

static dkv_disk_job block_job(stream *s, dkv_disk_op op, uint32_t len) {
    return (dkv_disk_job){.op = op,
                          .file = snapshot_file,
                          .offset = (uint64_t)s->block * DKV_SNAPSHOT_BLOCK_BYTES,
                          .len_bytes = len,
                          .data = s->bytes};
}

static uint64_t block_checksum(const stream *s) {
    return dkv_checksum((dkv_slice){s->bytes + 8, s->len - 8}, s->tag ^ (uint64_t)s->block << 32);
}

/* ---- writing ---- */

static int write_block(stream *s) {
    dkv_put_le32(s->bytes + 8, s->len - BLOCK_HEADER_BYTES);
    dkv_put_le64(s->bytes, block_checksum(s));
    dkv_disk_job job = block_job(s, DKV_DISK_WRITE, s->len);
    s->block++;
    s->len = BLOCK_HEADER_BYTES;
    return s->run(s->disk, &job);
}

static int write_item(stream *s, const uint8_t *item, uint32_t len) {
    int err = s->len + len > sizeof s->bytes ? write_block(s) : DKV_OK;
    if (err) return err;
    memcpy(s->bytes + s->len, item, len);
    s->len += len;
    return DKV_OK;
}

/* Writes head and segments; numbers the segments in `slots`, by their slot in the store. */
static int write_segments(stream *s, const dkv_store *store, uint32_t *slots) {
    uint8_t head[HEAD_BYTES], item[SEGMENT_BYTES];
    const dkv_segments *segments = &store->segments;
    memcpy(head, magic, sizeof magic);
    dkv_put_le32(head + 8, DKV_LOG_VERSION);
    dkv_put_le32(head + 12, segments->count);
    dkv_put_le64(head + 16, store->index.total.count);
    int err = write_item(s, head, sizeof head);
    uint32_t count = 0;
    for (uint32_t i = 0; i < segments->slots && !err; i++) {
        const dkv_segment *segment = segments->by_slot[i];
        if (!segment) continue;
        slots[i] = count++;
        dkv_put_le32(item, segment->number);
        dkv_put_le32(item + 4, segment->end);
        err = write_item(s, item, sizeof item);
    }
    return err;
}

static int write_entry(stream *s, const dkv_index_entry *entry, const uint32_t *slots) {
    uint8_t item[ENTRY_BYTES];
    dkv_place place = dkv_place_unpack(entry->place);
    place.slot = slots[place.slot];
    dkv_put_le64(item, entry->hash.token);
    dkv_put_le64(item + 8, entry->hash.tag);
    dkv_put_le64(item + 16, entry->version.hlc);
    dkv_put_le64(item + 24, entry->version.origin);
    dkv_put_le64(item + 32, dkv_place_pack(place));
    return write_item(s, item, sizeof item);
}

static int write_entries(stream *s, const dkv_store *store, const uint32_t *slots) {
    dkv_index_entry page[PAGE_ENTRIES];
    dkv_key_hash from = {0, 0};
    size_t n;
    while ((n = dkv_index_page(&store->index, from, page, PAGE_ENTRIES)) > 0) {
        for (size_t i = 0; i < n; i++) {
            int err = write_entry(s, &page[i], slots);
            if (err) return err;
        }
        from = page[n - 1].hash;
        if (!dkv_key_hash_next(&from)) break;
    }
    return DKV_OK;
}

int dkv_snapshot_write(dkv_store *store, uint64_t tag, dkv_disk_run run, void *disk) {
    dkv_disk_job create = {.op = DKV_DISK_CREATE, .file = snapshot_file};
    dkv_disk_job sync = {.op = DKV_DISK_SYNC, .file = snapshot_file};
    dkv_disk_job sync_dir = {.op = DKV_DISK_SYNC_DIR};
    int err = DKV_ERR_NO_MEMORY;
    uint32_t *slots = calloc(store->segments.slots + 1, sizeof *slots);
    stream *s = stream_new(tag, run, disk);
    if (!slots || !s) goto out;
    err = run(disk, &create);
    if (!err) err = write_segments(s, store, slots);
    if (!err) err = write_entries(s, store, slots);
    if (!err) err = write_block(s);
    if (!err) err = run(disk, &sync);
    if (!err) err = run(disk, &sync_dir);
out:
    free(slots);
    free(s);
    return err;
}

/* ---- reading ---- */

static int read_block(stream *s) {
    dkv_disk_job job = block_job(s, DKV_DISK_READ, sizeof s->bytes);
    int err = s->run(s->disk, &job);
    if (err) return err;
    if (job.done_bytes < BLOCK_HEADER_BYTES) return DKV_ERR_DATA_LOSS;
    uint32_t payload = dkv_le32(s->bytes + 8);
    if (payload > job.done_bytes - BLOCK_HEADER_BYTES) return DKV_ERR_DATA_LOSS;
    s->len = BLOCK_HEADER_BYTES + payload;
    s->at = BLOCK_HEADER_BYTES;
    if (dkv_le64(s->bytes) != block_checksum(s)) return DKV_ERR_DATA_LOSS;
    s->block++;
    return DKV_OK;
}

static int read_item(stream *s, uint32_t len, const uint8_t **item) {
    int err = s->at == s->len ? read_block(s) : DKV_OK;
    if (err) return err;
    if (s->len - s->at < len) return DKV_ERR_DATA_LOSS;
    *item = s->bytes + s->at;
    s->at += len;
    return DKV_OK;
}

static int by_number(const void *left, const void *right) {
    const dkv_disk_file *a = left, *b = right;
    return a->number < b->number ? -1 : a->number > b->number;
}

/* Whether the directory has this segment with this length. A longer file is no loss: a cut tail may
 * come back after a power cut, but then the log has to be scanned. Only segments have numbers above
 * 0. */
static int check_there(const dkv_disk_file *files, uint32_t n_files, uint32_t number,
                       uint32_t end) {
    dkv_disk_file key = {.number = number};
    const dkv_disk_file *file = bsearch(&key, files, n_files, sizeof key, by_number);
    if (!file || file->kind != DKV_FILE_SEGMENT) return DKV_ERR_NOT_FOUND;
    if (file->size_bytes < end) return DKV_ERR_NOT_FOUND;
    return file->size_bytes > end ? DKV_ERR_DATA_LOSS : DKV_OK;
}

static int read_segments(stream *s, dkv_store *store, uint32_t count, const dkv_disk_file *files,
                         uint32_t n_files) {
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *item;
        dkv_segment *segment;
        int err = read_item(s, SEGMENT_BYTES, &item);
        if (err) return err;
        uint32_t number = dkv_le32(item), end = dkv_le32(item + 4);
        err = check_there(files, n_files, number, end);
        if (err) return err;
        err = dkv_segments_add(&store->segments, number, &segment);
        if (err) return err;
        dkv_segments_adopt(&store->segments, segment, end);
    }
    return DKV_OK;
}

static int read_entries(stream *s, dkv_store *store, uint64_t count, dkv_index_load *loading) {
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *item;
        int err = read_item(s, ENTRY_BYTES, &item);
        if (err) return err;
        dkv_index_entry entry = {{dkv_le64(item), dkv_le64(item + 8)},
                                 {dkv_le64(item + 16), dkv_le64(item + 24)},
                                 dkv_le64(item + 32)};
        dkv_place place = dkv_place_unpack(entry.place);
        if (place.slot >= store->segments.count) return DKV_ERR_DATA_LOSS;
        err = dkv_index_load_add(loading, &entry);
        if (err) return err == DKV_ERR_INVALID ? DKV_ERR_DATA_LOSS : err;
        dkv_segments_born(&store->segments, entry.place);
        store->tombstones += place.tombstone;
    }
    return dkv_index_load_finish(loading);
}

static int read_all(stream *s, dkv_store *store, const dkv_disk_file *files, uint32_t n_files) {
    const uint8_t *head;
    int err = read_item(s, HEAD_BYTES, &head);
    if (err) return err;
    if (memcmp(head, magic, sizeof magic) != 0) return DKV_ERR_DATA_LOSS;
    if (dkv_le32(head + 8) != DKV_LOG_VERSION) return DKV_ERR_DATA_LOSS;
    uint32_t n_segments = dkv_le32(head + 12);
    uint64_t n_entries = dkv_le64(head + 16);
    err = read_segments(s, store, n_segments, files, n_files);
    if (err) return err;
    dkv_index_load loading;
    dkv_index_load_init(&loading, &store->index);
    err = read_entries(s, store, n_entries, &loading);
    dkv_index_load_free(&loading);
    return err;
}

int dkv_snapshot_load(dkv_store *store, uint64_t tag, const dkv_disk_file *files, uint32_t n_files,
                      dkv_disk_run run, void *disk) {
    uint32_t n_segments = 0;
    stream *s = stream_new(tag, run, disk);
    if (!s) return DKV_ERR_NO_MEMORY;
    int err = read_all(s, store, files, n_files);
    free(s);
    for (uint32_t i = 0; i < n_files; i++) n_segments += files[i].kind == DKV_FILE_SEGMENT;
    if (!err && n_segments != store->segments.count) err = DKV_ERR_DATA_LOSS;
    if (err) {
        dkv_index_free(&store->index);
        dkv_segments_free(&store->segments);
        store->tombstones = 0;
    }
    return err;
}
