#include "store/recover.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plant.h"
#include "store/store_impl.h"

#define READ_BYTES 1048576u
#define FLUSH_BYTES 4194304u /* appended to the new segment between two rounds of its jobs */

/* What is learnt of a segment beyond what the running store keeps. */
typedef struct found_segment {
    dkv_segment *segment;
    uint32_t file_end;
    uint32_t confirmed; /* see recover.h */
} found_segment;

typedef struct gap {
    uint32_t found; /* index of the segment */
    uint32_t from;
    uint32_t to; /* behind it there are only zeros */
} gap;

typedef struct recovery {
    dkv_store *store;
    dkv_disk_run run;
    void *disk;
    dkv_store_report *report;
    dkv_probe probe;      /* of the segment being read */
    found_segment *found; /* ascending by number */
    uint32_t n_found;
    dkv_buf gaps;    /* of gap */
    dkv_buf present; /* the newest list of segments, 8 bytes each as in log.h */
    dkv_buf removed; /* 4 bytes each: the segments that merge has removed */
} recovery;

int dkv_recover_header(uint32_t number, dkv_disk_run run, void *disk, dkv_log_header *out) {
    uint8_t bytes[DKV_LOG_HEADER_BYTES];
    dkv_disk_job job = {.op = DKV_DISK_READ,
                        .file = {.kind = DKV_FILE_SEGMENT, .number = number},
                        .len_bytes = sizeof bytes,
                        .data = bytes};
    int err;
    unsigned tries = 0;
    do err = run(disk, &job);
    while (err == DKV_ERR_IO && ++tries < DKV_HOLE_TRIES);
    if (err) return err == DKV_ERR_IO ? DKV_ERR_DATA_LOSS : err;
    if (job.done_bytes < sizeof bytes) return DKV_ERR_DATA_LOSS;
    err = dkv_log_header_decode(bytes, out);
    if (err) return err;
    return out->number == number ? DKV_OK : DKV_ERR_DATA_LOSS;
}

/* Reads on. What has failed is tried again, and given up in the end. */
static int read_more(recovery *r, const dkv_segment *segment, dkv_scan *scan) {
    for (;;) {
        uint8_t *to;
        uint32_t from, asked;
        int err = dkv_holes_room(&r->store->holes, &r->probe, scan, READ_BYTES, &to, &from, &asked);
        if (err || asked == 0) return err;
        dkv_disk_job job = {.op = DKV_DISK_READ,
                            .file = dkv_segment_file(segment),
                            .offset = from,
                            .len_bytes = asked,
                            .data = to};
        err = r->run(r->disk, &job);
        if (!err) {
            r->probe.tries = 0;
            dkv_scan_filled(scan, asked, job.done_bytes);
        }
        if (err != DKV_ERR_IO) return err;
        dkv_hole hole = {segment->number, from, from + asked};
        bool is_last = dkv_probe_failed(&r->probe, err, hole.from, hole.to);
        if (is_last && !dkv_holes_add(&r->store->holes, hole)) return err;
    }
}

/* ---- finding ---- */

static found_segment *find_segment(const recovery *r, uint32_t number) {
    uint32_t low = 0, high = r->n_found;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (r->found[middle].segment->number == number) return &r->found[middle];
        if (r->found[middle].segment->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static void confirm(found_segment *found, uint32_t end) {
    if (end > found->confirmed) found->confirmed = end;
}

/* A list of segments and ends; those listed that are there have been scanned before. */
static int found_present(recovery *r, const found_segment *in, dkv_slice list) {
    for (size_t i = 0; i + DKV_LOG_PRESENT_BYTES <= list.len; i += DKV_LOG_PRESENT_BYTES) {
        found_segment *listed = find_segment(r, dkv_le32(list.data + i));
        if (listed && listed != in) confirm(listed, dkv_le32(list.data + i + 4));
    }
    r->present.len = 0;
    return dkv_buf_append(&r->present, list);
}

static int found_record(recovery *r, dkv_place place, const dkv_log_record *record) {
    dkv_index_entry old;
    place.tombstone = record->kind == DKV_LOG_TOMBSTONE;
    dkv_index_entry entry = {dkv_hash_key(record->record.key), record->record.version,
                             dkv_place_pack(place)};
    bool known = dkv_index_get(&r->store->index, entry.hash, &old);
    if (known && dkv_version_cmp(entry.version, old.version) < 0) return DKV_OK;
    return dkv_store_index_put(r->store, &entry, known ? &old : NULL, 0);
}

static int found_item(recovery *r, uint32_t at, const dkv_scan *scan, int item,
                      const dkv_log_record *record) {
    found_segment *found = &r->found[at];
    if (item == DKV_SCAN_GAP) {
        gap here = {at, scan->item_at, scan->blank_at};
        return dkv_buf_append(&r->gaps, (dkv_slice){(const uint8_t *)&here, sizeof here});
    }
    confirm(found, record->synced_upto);
    if (record->kind == DKV_LOG_REMOVED) return dkv_buf_append(&r->removed, record->record.value);
    if (record->kind == DKV_LOG_PRESENT) return found_present(r, found, record->record.value);
    dkv_place place = {found->segment->slot, scan->item_at, record->len_bytes, false};
    return found_record(r, place, record);
}

static int scan_segment(recovery *r, uint32_t at) {
    const dkv_segment *segment = r->found[at].segment;
    if (segment->end <= DKV_LOG_HEADER_BYTES) return DKV_OK;
    dkv_scan scan;
    dkv_log_record record;
    dkv_log_at from = {dkv_store_id(r->store), segment->number, DKV_LOG_HEADER_BYTES};
    dkv_scan_init(&scan, from, segment->end);
    r->probe = (dkv_probe){0};
    int err = DKV_OK, item = DKV_SCAN_NEED;
    while (!err && item != DKV_SCAN_END) {
        item = dkv_scan_next(&scan, &record);
        if (item < 0) {
            err = item;
        } else if (item == DKV_SCAN_NEED) {
            err = read_more(r, segment, &scan);
        } else if (item != DKV_SCAN_END) {
            err = found_item(r, at, &scan, item, &record);
            if (DKV_PLANTED(DROP_BEHIND_DAMAGE) && item == DKV_SCAN_GAP) item = DKV_SCAN_END;
        }
    }
    dkv_scan_free(&scan);
    return err;
}

/* Takes a segment file into the store, as sealed and, for now, as durable. */
static int add_segment(recovery *r, const dkv_disk_file *file) {
    dkv_log_header header = {0};
    int err = dkv_recover_header(file->number, r->run, r->disk, &header);
    if (err && err != DKV_ERR_DATA_LOSS) return err;
    if (!err && header.identity.store_id != dkv_store_id(r->store)) return DKV_ERR_PRECONDITION;
    if (file->size_bytes > UINT32_MAX) return DKV_ERR_PROTOCOL;
    dkv_segment *segment;
    err = dkv_segments_add(&r->store->segments, file->number, &segment);
    if (err) return err;
    dkv_segments_adopt(&r->store->segments, segment, (uint32_t)file->size_bytes);
    r->found[r->n_found++] =
        (found_segment){.segment = segment, .file_end = (uint32_t)file->size_bytes};
    return DKV_OK;
}

static int scan_all(recovery *r, const dkv_disk_file *files, uint32_t n_files) {
    for (uint32_t i = 0; i < n_files; i++) {
        if (files[i].kind != DKV_FILE_SEGMENT) continue;
        int err = add_segment(r, &files[i]);
        if (!err) err = scan_segment(r, r->n_found - 1);
        if (err) return err;
    }
    return DKV_OK;
}

/* ---- judging ---- */

static void judge_gaps(recovery *r) {
    const gap *gaps = (const gap *)(const void *)r->gaps.data;
    for (size_t i = 0; i < r->gaps.len / sizeof *gaps; i++) {
        found_segment *found = &r->found[gaps[i].found];
        if (gaps[i].from < found->confirmed) {
            r->report->damaged_records++;
            found->segment->damaged = true;
        } else {
            r->report->torn_bytes += gaps[i].to - gaps[i].from;
        }
    }
    for (uint32_t i = 0; i < r->n_found; i++) {
        found_segment *found = &r->found[i];
        if (found->file_end < found->confirmed) { /* the file has lost its end */
            r->report->damaged_records++;
            found->segment->damaged = true;
            found->confirmed = found->file_end;
        }
    }
}

/* Counts the holes that lie in no confirmed part: they are no torn tail, as that can be read. */
static void judge_holes(recovery *r) {
    const dkv_holes *holes = &r->store->holes;
    for (uint32_t i = 0; i < holes->count; i++) {
        found_segment *found = find_segment(r, holes->at[i].number);
        if (holes->at[i].from < found->confirmed) continue;
        r->report->damaged_records++;
        found->segment->damaged = true;
    }
}

static bool holds(const dkv_buf *numbers, uint32_t number) {
    for (size_t i = 0; i + 4 <= numbers->len; i += 4) {
        if (dkv_le32(numbers->data + i) == number) return true;
    }
    return false;
}

/* Counts the segments that should be there and are not. */
static void judge_absent(recovery *r) {
    for (size_t i = 0; i + DKV_LOG_PRESENT_BYTES <= r->present.len; i += DKV_LOG_PRESENT_BYTES) {
        uint32_t number = dkv_le32(r->present.data + i);
        if (!find_segment(r, number) && !holds(&r->removed, number)) r->report->damaged_records++;
    }
}

/* What was found goes into META before the log is mended: after a crash nothing else shows it. */
static int note_damage(recovery *r) {
    dkv_meta *meta = &r->store->meta;
    uint64_t found = r->report->damaged_records;
    if (found > meta->damage) meta->damage = found < UINT32_MAX ? (uint32_t)found : UINT32_MAX;
    return meta->damage ? dkv_meta_store(meta, r->run, r->disk) : DKV_OK;
}

/* ---- making it durable ---- */

/* Performs the jobs of the tail until all that is appended is durable. */
static int flush(recovery *r) {
    dkv_append *append = &r->store->append;
    dkv_disk_job *job;
    while ((job = dkv_append_next_job(append))) {
        int err = r->run(r->disk, job);
        dkv_append_job_done(append, job);
        if (err) return err;
    }
    return DKV_OK;
}

/* Appends the note that a segment was removed once more: without it that segment would count as
 * lost when the log is scanned the next time. */
static int save_notice(recovery *r, const dkv_log_record *notice) {
    dkv_place place;
    int err = dkv_append_reserve(&r->store->append, notice->len_bytes, &place);
    if (!err) dkv_append_commit(&r->store->append, notice);
    return err;
}

/* Appends the records behind the confirmed part of a segment that the index refers to. */
static int save_tail(recovery *r, const found_segment *found) {
    uint32_t from =
        found->confirmed > DKV_LOG_HEADER_BYTES ? found->confirmed : DKV_LOG_HEADER_BYTES;
    if (found->file_end <= from) return DKV_OK;
    dkv_scan scan;
    dkv_log_record record;
    dkv_scan_init(&scan, (dkv_log_at){dkv_store_id(r->store), found->segment->number, from},
                  found->file_end);
    r->probe = (dkv_probe){0};
    int err = DKV_OK, item = DKV_SCAN_NEED;
    while (!err && item != DKV_SCAN_END) {
        item = dkv_scan_next(&scan, &record);
        dkv_index_entry entry;
        if (item < 0) {
            err = item;
        } else if (item == DKV_SCAN_NEED) {
            err = read_more(r, found->segment, &scan);
        } else if (item == DKV_SCAN_RECORD && record.kind == DKV_LOG_REMOVED) {
            err = save_notice(r, &record);
        } else if (item == DKV_SCAN_RECORD && record.record.key.len > 0 &&
                   dkv_index_get(&r->store->index, dkv_hash_key(record.record.key), &entry)) {
            dkv_place place = dkv_place_unpack(entry.place);
            bool live = place.slot == found->segment->slot && place.offset == scan.item_at;
            if (live) err = dkv_store_move(r->store, &entry, &record);
        }
        const dkv_append *append = &r->store->append;
        if (!err && append->appended - append->durable > FLUSH_BYTES) err = flush(r);
    }
    dkv_scan_free(&scan);
    return err;
}

static int sync_segment(recovery *r, const dkv_segment *segment) {
    dkv_disk_job sync = {.op = DKV_DISK_SYNC, .file = dkv_segment_file(segment)};
    return r->run(r->disk, &sync);
}

/* Cuts what is not confirmed from the end of a segment; it is dead or saved by now. */
static int cut_tail(recovery *r, const found_segment *found) {
    dkv_disk_job cut = {.op = DKV_DISK_TRUNCATE,
                        .file = dkv_segment_file(found->segment),
                        .offset = found->confirmed};
    if (found->file_end <= found->confirmed) return DKV_OK;
    int err = r->run(r->disk, &cut);
    return err ? err : sync_segment(r, found->segment);
}

/* Removes the segments that this recovery has begun. */
static void remove_new(recovery *r) {
    const dkv_segments *segments = &r->store->segments;
    for (uint32_t i = 0; i < segments->slots; i++) {
        const dkv_segment *segment = segments->by_slot[i];
        if (!segment || !segment->created || find_segment(r, segment->number)) continue;
        dkv_disk_job remove = {.op = DKV_DISK_REMOVE, .file = dkv_segment_file(segment)};
        r->run(r->disk, &remove);
    }
}

/* Saves what is behind the confirmed parts in a new segment. A disk too full for that is left as it
 * was, or each attempt would leave it fuller. */
static int save_tails(recovery *r) {
    int err = DKV_OK;
    for (uint32_t i = 0; i < r->n_found && !err; i++) err = save_tail(r, &r->found[i]);
    if (!err) err = flush(r);
    if (err == DKV_ERR_NO_SPACE) remove_new(r);
    return err;
}

static int make_durable(recovery *r) {
    /* The new segment will name those that are present: none of them may be lost after that. */
    dkv_disk_job sync = {.op = DKV_DISK_SYNC_DIR};
    int err = r->run(r->disk, &sync);
    /* An earlier recovery may have cut a segment without its cut being durable: what a later one
     * concludes from that must not outlive it. */
    for (uint32_t i = 0; i < r->n_found && !err; i++) err = sync_segment(r, r->found[i].segment);
    if (err) return err;
    for (uint32_t i = 0; i < r->n_found; i++) { /* so that PRESENT states what is confirmed */
        dkv_segments_cut(&r->store->segments, r->found[i].segment, r->found[i].confirmed);
    }
    if (!err) err = save_tails(r);
    for (uint32_t i = 0; i < r->n_found && !err; i++) err = cut_tail(r, &r->found[i]);
    return err;
}

int dkv_recover_log(dkv_store *store, const dkv_disk_file *files, uint32_t n_files,
                    dkv_disk_run run, void *disk, dkv_store_report *report) {
    recovery r = {.store = store, .run = run, .disk = disk, .report = report};
    r.found = calloc(n_files + 1, sizeof *r.found);
    if (!r.found) return DKV_ERR_NO_MEMORY;
    int err = scan_all(&r, files, n_files);
    if (!err) {
        judge_gaps(&r);
        judge_holes(&r);
        judge_absent(&r);
        err = note_damage(&r);
    }
    if (!err) {
        err = make_durable(&r);
    }
    free(r.found);
    dkv_buf_free(&r.gaps);
    dkv_buf_free(&r.present);
    dkv_buf_free(&r.removed);
    return err;
}
