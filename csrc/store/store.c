#include "store/store.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "store/store_impl.h"

void dkv_store_del(dkv_store *store) {
    if (!store) return;
    dkv_index_free(&store->index);
    dkv_append_free(&store->append);
    dkv_meta_free(&store->meta);
    dkv_reads_free(&store->reads);
    dkv_cache_free(&store->cache);
    dkv_merge_free(&store->merge);
    dkv_scrub_free(&store->scrub);
    dkv_segments_free(&store->segments);
    dkv_buf_free(&store->damaged_tokens);
    free(store);
}

uint64_t dkv_store_id(const dkv_store *store) {
    return store->meta.identity.store_id;
}

/* ---- index and accounts ---- */

static bool is_tombstone(uint64_t place) {
    return dkv_place_unpack(place).tombstone;
}

int dkv_store_index_put(dkv_store *store, const dkv_index_entry *entry, const dkv_index_entry *old,
                        uint64_t death) {
    int err = dkv_index_put(&store->index, entry);
    if (err) return err;
    if (old) {
        dkv_segments_died(&store->segments, old->place, death);
        if (is_tombstone(old->place)) store->tombstones--;
    }
    dkv_segments_born(&store->segments, entry->place);
    if (is_tombstone(entry->place)) store->tombstones++;
    return DKV_OK;
}

void dkv_store_lose(dkv_store *store, const dkv_index_entry *entry) {
    uint8_t token[8];
    dkv_index_remove(&store->index, entry->hash);
    dkv_segments_died(&store->segments, entry->place, store->append.durable);
    if (is_tombstone(entry->place)) store->tombstones--;
    store->damaged_records++;
    dkv_meta_note_damage(&store->meta);
    dkv_put_le64(token, entry->hash.token);
    if (dkv_buf_append(&store->damaged_tokens, (dkv_slice){token, sizeof token})) {
        store->damage_untold = true;
    }
}

/* Appends `record` as the newest of its key. */
static int append_newest(dkv_store *store, dkv_key_hash hash, const dkv_log_record *record,
                         const dkv_index_entry *old) {
    uint32_t len = dkv_log_length(record->record.key.len, record->record.value.len);
    dkv_place place;
    int err = dkv_append_reserve(&store->append, len, &place);
    if (err) return err;
    place.tombstone = record->kind == DKV_LOG_TOMBSTONE;
    dkv_index_entry entry = {hash, record->record.version, dkv_place_pack(place)};
    err = dkv_store_index_put(store, &entry, old, store->append.appended + len);
    if (err) return err;
    dkv_append_commit(&store->append, record);
    return DKV_OK;
}

int dkv_store_move(dkv_store *store, const dkv_index_entry *entry, const dkv_log_record *record) {
    return append_newest(store, entry->hash, record, entry);
}

/* ---- writing ---- */

static int check_record(const dkv_record *record) {
    if (record->key.len == 0 || record->key.len > DKV_KEY_MAX) return DKV_ERR_INVALID;
    if (record->value.len > DKV_VALUE_MAX) return DKV_ERR_INVALID;
    if (record->kind != DKV_KIND_VALUE && record->kind != DKV_KIND_TOMBSTONE) {
        return DKV_ERR_INVALID;
    }
    if (record->kind == DKV_KIND_TOMBSTONE && record->value.len > 0) return DKV_ERR_INVALID;
    return dkv_version_is_none(record->version) ? DKV_ERR_INVALID : DKV_OK;
}

/* Who has asked dkv_store_admits before must not be refused for what others have begun since. */
#define APPLY_SLACK 2u

static bool space_is_low(const dkv_store *store, unsigned part) {
    return dkv_space_is_low(&store->space, store->append.appended, part);
}

bool dkv_store_space_is_low(const dkv_store *store) {
    return space_is_low(store, 1);
}

/* 0 if there is room for a record. `slack` times what the limits are for new writes. */
static int check_room(const dkv_store *store, dkv_kind kind, size_t record_bytes, unsigned slack) {
    uint64_t waiting = dkv_append_unconfirmed(&store->append);
    uint64_t most = store->unsynced_max_bytes * slack;
    if (store->append.failed || store->meta.failed) return DKV_ERR_IO;
    if (store->append.full) return DKV_ERR_NO_SPACE;
    if (kind == DKV_KIND_VALUE && space_is_low(store, slack)) return DKV_ERR_NO_SPACE;
    if (waiting > 0 && waiting + record_bytes > most) return DKV_ERR_BUSY;
    return dkv_store_merge_is_behind(store, slack) ? DKV_ERR_BUSY : DKV_OK;
}

int dkv_store_admits(const dkv_store *store, dkv_kind kind, size_t record_bytes) {
    return check_room(store, kind, record_bytes, 1);
}

/* The same version must be the same write. What can be told without reading is told. */
static bool contradicts(const dkv_index_entry *stored, const dkv_record *record, uint32_t len) {
    dkv_place place = dkv_place_unpack(stored->place);
    return place.tombstone != (record->kind == DKV_KIND_TOMBSTONE) || place.len_bytes != len;
}

int dkv_store_apply(dkv_store *store, const dkv_record *record, uint64_t cookie) {
    int err = check_record(record);
    if (err) return err;
    uint32_t len = dkv_log_length(record->key.len, record->value.len);
    err = check_room(store, record->kind, len, APPLY_SLACK);
    if (err) return err;
    err = dkv_append_reserve_waiter(&store->append);
    if (err) return err;
    dkv_key_hash hash = dkv_hash_key(record->key);
    dkv_index_entry old;
    bool known = dkv_index_get(&store->index, hash, &old);
    int order = known ? dkv_version_cmp(record->version, old.version) : 1;
    if (order == 0 && contradicts(&old, record, len)) return DKV_ERR_DATA_LOSS;
    if (order > 0) {
        dkv_log_record logged = {.kind = (dkv_log_kind)record->kind, .record = *record};
        err = append_newest(store, hash, &logged, known ? &old : NULL);
        if (err) return err;
        dkv_merge_pay(&store->merge, len);
    }
    dkv_append_wait(&store->append, cookie);
    return DKV_OK;
}

int dkv_store_set_facts(dkv_store *store, dkv_slice facts, uint64_t cookie) {
    if (facts.len > DKV_FACTS_MAX) return DKV_ERR_INVALID;
    return dkv_meta_set_facts(&store->meta, facts, cookie);
}

dkv_slice dkv_store_facts(const dkv_store *store) {
    return dkv_buf_slice(&store->meta.facts);
}

void dkv_store_retry(dkv_store *store) {
    dkv_append_retry(&store->append);
    dkv_meta_retry(&store->meta);
    dkv_space_ask(&store->space);
}

/* ---- reading ---- */

static dkv_store_entry public_entry(const dkv_store *store, const dkv_index_entry *entry) {
    dkv_place place = dkv_place_unpack(entry->place);
    const dkv_segment *segment = dkv_segments_at(&store->segments, place.slot);
    return (dkv_store_entry){
        .version = entry->version,
        .kind = place.tombstone ? DKV_KIND_TOMBSTONE : DKV_KIND_VALUE,
        .len_bytes = place.len_bytes,
        .durable = place.offset + place.len_bytes <= dkv_append_confirmed(&store->append, segment),
    };
}

int dkv_store_peek(const dkv_store *store, dkv_key_hash hash, dkv_store_entry *out) {
    dkv_index_entry entry;
    if (!dkv_index_get(&store->index, hash, &entry)) return DKV_ERR_NOT_FOUND;
    *out = public_entry(store, &entry);
    return DKV_OK;
}

int dkv_store_read(dkv_store *store, dkv_slice key, dkv_key_hash hash, uint64_t cookie) {
    dkv_index_entry entry;
    if (!dkv_index_get(&store->index, hash, &entry)) return DKV_ERR_NOT_FOUND;
    dkv_place place = dkv_place_unpack(entry.place);
    dkv_segment *segment = dkv_segments_at(&store->segments, place.slot);
    dkv_read *read;
    int err = dkv_reads_new(&store->reads, segment, entry.place, key, hash, cookie, &read);
    if (err) return err;
    const uint8_t *bytes = dkv_append_peek(&store->append, segment, place.offset);
    if (!bytes) {
        uint64_t name = dkv_cache_name(segment->number, place.offset);
        bytes = dkv_cache_get(&store->cache, name);
    }
    if (bytes) {
        dkv_reads_copy(&store->reads, read, bytes, dkv_store_id(store));
    } else {
        dkv_reads_queue(&store->reads, read);
    }
    return DKV_OK;
}

/* The bytes of a record, from the disk or, if they are not there yet, from memory. */
static int look_at_bytes(const dkv_store *store, dkv_place place, dkv_disk_run run, void *disk,
                         uint8_t *to) {
    const dkv_segment *segment = dkv_segments_at(&store->segments, place.slot);
    const uint8_t *held = dkv_append_peek(&store->append, segment, place.offset);
    if (held) {
        memcpy(to, held, place.len_bytes);
        return DKV_OK;
    }
    dkv_disk_job job = {.op = DKV_DISK_READ,
                        .file = dkv_segment_file(segment),
                        .offset = place.offset,
                        .len_bytes = place.len_bytes,
                        .data = to};
    int err = run(disk, &job);
    if (!err && job.done_bytes < place.len_bytes) err = DKV_ERR_DATA_LOSS;
    return err;
}

int dkv_store_look(const dkv_store *store, dkv_key_hash hash, dkv_disk_run run, void *disk,
                   dkv_buf *bytes, dkv_record *out) {
    dkv_index_entry entry;
    if (!dkv_index_get(&store->index, hash, &entry)) return DKV_ERR_NOT_FOUND;
    dkv_place place = dkv_place_unpack(entry.place);
    bytes->len = 0;
    int err = dkv_buf_reserve(bytes, place.len_bytes);
    if (!err) err = look_at_bytes(store, place, run, disk, bytes->data);
    if (err) return err;
    const dkv_segment *segment = dkv_segments_at(&store->segments, place.slot);
    dkv_log_at at = {dkv_store_id(store), segment->number, place.offset};
    dkv_log_record found;
    if (dkv_log_plausible_length(bytes->data) != place.len_bytes) return DKV_ERR_DATA_LOSS;
    err = dkv_log_decode(bytes->data, at, &found);
    if (!err) *out = found.record;
    return err;
}

dkv_store_range dkv_store_digest(const dkv_store *store, uint64_t first, uint64_t last) {
    dkv_index_sum sum = dkv_index_range(&store->index, first, last);
    return (dkv_store_range){sum.count, sum.digest};
}

int dkv_store_next(const dkv_store *store, dkv_key_hash from, dkv_key_hash *hash,
                   dkv_store_entry *entry) {
    dkv_index_entry found;
    if (dkv_index_page(&store->index, from, &found, 1) == 0) return DKV_ERR_NOT_FOUND;
    *hash = found.hash;
    *entry = public_entry(store, &found);
    return DKV_OK;
}

/* ---- jobs and events ---- */

void dkv_store_tick(dkv_store *store, int64_t now_ns) {
    store->append.now_ns = now_ns;
    dkv_scrub_tick(&store->scrub, now_ns);
}

int64_t dkv_store_next_timer(const dkv_store *store) {
    int64_t append_ns = dkv_append_next_timer(&store->append);
    int64_t scrub_ns = dkv_scrub_next_timer(store);
    return append_ns < scrub_ns ? append_ns : scrub_ns;
}

dkv_disk_job *dkv_store_next_job(dkv_store *store) {
    if (store->append.failed || store->meta.failed) return NULL;
    dkv_append *append = &store->append;
    dkv_disk_job *job = dkv_reads_next_job(&store->reads);
    if (!job) {
        job = dkv_space_next_job(&store->space, append->appended, dkv_append_written(append));
    }
    if (!job) job = dkv_meta_next_job(&store->meta);
    if (!job) job = dkv_append_next_job(append);
    if (!job) job = dkv_merge_next_job(store);
    /* What merge has just appended leaves at once. */
    if (!job) job = dkv_append_next_job(append);
    if (!job) job = dkv_scrub_next_job(store);
    return job;
}

/* A read met bytes that are no valid record. If the index still refers to them, they were the
 * newest record of their key. */
static void read_met_damage(dkv_store *store, const dkv_disk_job *job) {
    const dkv_read *read = (const dkv_read *)job;
    dkv_index_entry entry;
    if (!dkv_index_get(&store->index, read->hash, &entry)) return;
    if (entry.place == read->place) dkv_store_lose(store, &entry);
}

/* Lets META know of a segment that is durable from now on: recovery must find it. */
static void note_newest_segment(dkv_store *store) {
    const dkv_segment *active = store->append.active;
    bool durable = active && active->dir_synced && active->synced > 0;
    if (!durable || active->number <= store->meta.newest_segment) return;
    store->meta.newest_segment = active->number;
    dkv_meta_touch(&store->meta);
}

static void read_done(dkv_store *store, dkv_disk_job *job) {
    if (job->err == DKV_ERR_IO) dkv_scrub_suspect(store, ((const dkv_read *)job)->segment);
    if (dkv_reads_job_done(&store->reads, job, dkv_store_id(store))) {
        read_met_damage(store, job);
        return;
    }
    const dkv_read *read = (const dkv_read *)job;
    if (read->err || !read->key_len) return; /* without a key: nobody will ask for it soon */
    uint64_t name = dkv_cache_name(job->file.number, (uint32_t)job->offset);
    dkv_cache_add(&store->cache, name, read->data, job->len_bytes);
}

void dkv_store_job_done(dkv_store *store, dkv_disk_job *job) {
    if (dkv_append_is_job(&store->append, job)) {
        dkv_append_job_done(&store->append, job);
        note_newest_segment(store);
    } else if (job == &store->space.job) {
        dkv_space_job_done(&store->space);
    } else if (job == &store->meta.job) {
        dkv_meta_job_done(&store->meta);
    } else if (dkv_merge_is_job(&store->merge, job)) {
        dkv_merge_job_done(store, job);
    } else if (job == &store->scrub.read_job) {
        dkv_scrub_job_done(store);
    } else {
        read_done(store, job);
    }
}

static bool next_damaged(dkv_store *store, dkv_store_event *out) {
    uint64_t token = 0;
    if (store->damaged_tokens.len > 0) {
        store->damaged_tokens.len -= 8;
        token = dkv_le64(store->damaged_tokens.data + store->damaged_tokens.len);
    } else if (store->damage_untold) {
        store->damage_untold = false;
    } else {
        return false;
    }
    *out = (dkv_store_event){.kind = DKV_STORE_DAMAGED, .err = DKV_ERR_DATA_LOSS, .cookie = token};
    return true;
}

bool dkv_store_next_event(dkv_store *store, dkv_store_event *out) {
    const dkv_read *read = dkv_reads_next_ready(&store->reads);
    if (read) {
        *out = (dkv_store_event){.kind = DKV_STORE_READ, .err = read->err, .cookie = read->cookie};
        if (!read->err) out->record = read->found.record;
        return true;
    }
    if (next_damaged(store, out)) return true;
    if (dkv_scrub_next_pass(&store->scrub)) {
        *out = (dkv_store_event){.kind = DKV_STORE_SCRUBBED};
        return true;
    }
    if (dkv_scrub_next_too_many(&store->scrub)) {
        *out = (dkv_store_event){.kind = DKV_STORE_UNREADABLE, .err = DKV_ERR_IO};
        return true;
    }
    if (store->append.failed || store->meta.failed) {
        *out = (dkv_store_event){.kind = DKV_STORE_FAILED, .err = DKV_ERR_IO};
        bool told = store->failure_told;
        store->failure_told = true;
        return !told;
    }
    dkv_store_event event = {.kind = DKV_STORE_DURABLE};
    if (!dkv_append_next_decided(&store->append, &event.cookie, &event.err) &&
        !dkv_meta_next_decided(&store->meta, &event.cookie, &event.err)) {
        return false;
    }
    *out = event;
    return true;
}

void dkv_store_stats_get(const dkv_store *store, dkv_store_stats *out) {
    *out = (dkv_store_stats){
        .records = store->index.total.count,
        .tombstones = store->tombstones,
        .live_bytes = store->segments.live_bytes,
        .log_bytes = store->segments.log_bytes,
        .index_bytes = dkv_index_bytes(&store->index),
        .unsynced_bytes = store->append.appended - store->append.durable,
        .unconfirmed_bytes = dkv_append_unconfirmed(&store->append),
        .segments = store->segments.count,
        .full = store->append.full || dkv_store_space_is_low(store),
        .damaged_records = store->damaged_records,
        .merged_bytes = store->merge.merged_bytes,
        .syncs = store->append.syncs,
        .scrub_passes = store->scrub.passes,
        .scrubbed_bytes = store->scrub.scrubbed_bytes,
    };
}
