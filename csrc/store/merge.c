#include "store/merge.h"

#include "base/err.h"
#include "store/store_impl.h"

void dkv_merge_free(dkv_merge *merge) {
    dkv_scan_free(&merge->scan);
    *merge = (dkv_merge){0};
}

void dkv_merge_pay(dkv_merge *merge, uint64_t bytes) {
    merge->credit += bytes * DKV_MERGE_PACE;
    if (merge->credit > DKV_MERGE_CREDIT_MAX) merge->credit = DKV_MERGE_CREDIT_MAX;
}

bool dkv_store_merge_is_behind(const dkv_store *store, unsigned slack) {
    const dkv_segments *segments = &store->segments;
    uint64_t segment = store->append.segment_bytes;
    if (segment < DKV_LOG_RECORD_MAX) segment = DKV_LOG_RECORD_MAX;
    uint64_t log = segments->log_bytes - store->merge.unreadable_bytes;
    uint64_t most =
        DKV_MERGE_BEHIND_FACTOR * segments->live_bytes + DKV_MERGE_BEHIND_SEGMENTS * segment;
    return log > most * slack;
}

/* True if everything in the segment is durable, and nothing comes to it. */
static bool is_settled(const dkv_segment *segment) {
    return segment->sealed && segment->synced == segment->end;
}

/* ---- choosing and reading a victim ---- */

/* True if merging `a` gives more than merging `b`. */
static bool is_better(const dkv_segment *a, const dkv_segment *b) {
    if (!b || a->damaged != b->damaged) return !b || a->damaged;
    return a->live_bytes * b->end < b->live_bytes * a->end;
}

static dkv_segment *choose_victim(const dkv_segments *segments) {
    dkv_segment *best = NULL;
    for (uint32_t i = 0; i < segments->slots; i++) {
        dkv_segment *segment = segments->by_slot[i];
        if (!segment || !is_settled(segment) || segment->unreadable) continue;
        bool worth = segment->damaged || segment->live_bytes * 2 < segment->end;
        if (segment->live_bytes > 0 && worth && is_better(segment, best)) best = segment;
    }
    return best;
}

/* True if merge may read another piece now. */
static bool may_read(const dkv_store *store) {
    const dkv_append *append = &store->append;
    if (append->full) return false;
    if (dkv_append_unconfirmed(append) > store->unsynced_max_bytes / 2) return false;
    if (dkv_store_merge_is_behind(store, 1) || dkv_store_space_is_low(store)) return true;
    return store->merge.credit >= DKV_MERGE_PIECE_BYTES;
}

static void begin(dkv_store *store) {
    dkv_merge *merge = &store->merge;
    merge->victim = choose_victim(&store->segments);
    if (!merge->victim) {
        merge->credit = 0; /* looks again after as many bytes as make a piece */
        return;
    }
    dkv_log_at from = {dkv_store_id(store), merge->victim->number, DKV_LOG_HEADER_BYTES};
    dkv_scan_free(&merge->scan);
    dkv_scan_init(&merge->scan, from, merge->victim->end);
}

static void stop(dkv_merge *merge) {
    merge->victim = NULL;
    dkv_scan_free(&merge->scan);
    merge->scan = (dkv_scan){0};
}

/* The victim stays as it is until scrub has read it. */
static void leave_alone(dkv_merge *merge) {
    merge->victim->unreadable = true;
    merge->unreadable_bytes += merge->victim->end;
    stop(merge);
}

void dkv_merge_take_up(dkv_merge *merge, dkv_segment *segment) {
    if (!segment->unreadable) return;
    segment->unreadable = false;
    merge->unreadable_bytes -= segment->end;
}

/* Loses every record that the index still sees in the segment: the scan did not find them. This
 * walks the whole index, but only after damage. */
static void lose_rest(dkv_store *store, const dkv_segment *segment) {
    dkv_key_hash from = {0, 0};
    dkv_index_entry entry;
    while (segment->live_bytes > 0 && dkv_index_page(&store->index, from, &entry, 1) == 1) {
        if (dkv_place_unpack(entry.place).slot == segment->slot) dkv_store_lose(store, &entry);
        from = entry.hash;
        if (!dkv_key_hash_next(&from)) break;
    }
}

/* Moves the record just scanned if the index refers to it. */
static int move_if_live(dkv_store *store, const dkv_log_record *record) {
    dkv_merge *merge = &store->merge;
    if (record->kind != DKV_LOG_VALUE && record->kind != DKV_LOG_TOMBSTONE) return DKV_OK;
    dkv_index_entry entry;
    if (!dkv_index_get(&store->index, dkv_hash_key(record->record.key), &entry)) return DKV_OK;
    dkv_place place = dkv_place_unpack(entry.place);
    if (place.slot != merge->victim->slot || place.offset != merge->scan.item_at) return DKV_OK;
    int err = dkv_store_move(store, &entry, record);
    if (!err) merge->merged_bytes += record->len_bytes;
    return err;
}

/* Fills in the job that reads the next piece; read_asked is 0 if there is nothing but holes. */
static int plan_read(dkv_store *store) {
    dkv_merge *merge = &store->merge;
    uint8_t *to;
    uint32_t offset;
    int err = dkv_holes_room(&store->holes, NULL, &merge->scan, DKV_MERGE_PIECE_BYTES, &to, &offset,
                             &merge->read_asked);
    if (err) return err;
    merge->read_job = (dkv_disk_job){.op = DKV_DISK_READ,
                                     .file = dkv_segment_file(merge->victim),
                                     .offset = offset,
                                     .len_bytes = merge->read_asked,
                                     .data = to};
    return DKV_OK;
}

static dkv_disk_job *hand_out_read(dkv_merge *merge) {
    merge->credit -= merge->credit < merge->read_asked ? merge->credit : merge->read_asked;
    merge->read_out = true;
    merge->victim->reads_out++;
    return &merge->read_job;
}

/* Works through what has been read; a READ job when more is needed and allowed. */
static dkv_disk_job *next_read(dkv_store *store) {
    dkv_merge *merge = &store->merge;
    if (merge->read_out || !may_read(store)) return NULL;
    if (!merge->victim) begin(store);
    while (merge->victim) {
        dkv_log_record record;
        int item =
            merge->victim->live_bytes > 0 ? dkv_scan_next(&merge->scan, &record) : DKV_SCAN_END;
        if (item == DKV_SCAN_NEED) {
            if (plan_read(store)) return NULL; /* without memory: with the next call */
            if (merge->read_asked > 0) return hand_out_read(merge);
        } else if (item == DKV_SCAN_END) {
            lose_rest(store, merge->victim);
            stop(merge);
        } else if (item < 0) {
            merge->victim->unremovable = true;
            leave_alone(merge);
        } else if (item == DKV_SCAN_RECORD && move_if_live(store, &record)) {
            dkv_scan_back(&merge->scan); /* without memory: the same record with the next call */
            return NULL;
        }
    }
    return NULL;
}

static void read_done(dkv_store *store) {
    dkv_merge *merge = &store->merge;
    merge->read_out = false;
    merge->victim->reads_out--;
    if (merge->read_job.err) {
        dkv_scrub_suspect(store, merge->victim);
        leave_alone(merge);
    } else {
        dkv_scan_filled(&merge->scan, merge->read_asked, merge->read_job.done_bytes);
    }
}

/* ---- removing ---- */

/* Writes into the log that the segment is about to go. */
static bool give_notice(dkv_store *store, dkv_segment *segment) {
    uint8_t number[4];
    dkv_place place;
    dkv_put_le32(number, segment->number);
    dkv_log_record notice = {.kind = DKV_LOG_REMOVED, .record.value = {number, sizeof number}};
    if (dkv_append_reserve(&store->append, dkv_log_length(0, sizeof number), &place)) return false;
    dkv_append_commit(&store->append, &notice);
    segment->removed_notice = store->append.appended;
    return true;
}

static bool may_remove(dkv_store *store, dkv_segment *segment) {
    const dkv_append *append = &store->append;
    if (!is_settled(segment) || segment->live_bytes > 0 || segment->reads_out > 0) return false;
    if (segment->last_death > append->durable || segment == store->merge.victim) return false;
    if (segment->unremovable) return false;
    if (!segment->removed_notice && !give_notice(store, segment)) return false;
    return segment->removed_notice <= append->durable || append->full;
}

static dkv_disk_job *next_remove(dkv_store *store) {
    dkv_merge *merge = &store->merge;
    const dkv_segments *segments = &store->segments;
    if (merge->removing || segments->emptied == 0) return NULL;
    if (!dkv_meta_tells_damage(&store->meta)) return NULL;
    if (merge->checked_at == store->append.durable && !store->append.full) return NULL;
    for (uint32_t i = 0; i < segments->slots; i++) {
        if (!segments->by_slot[i] || !may_remove(store, segments->by_slot[i])) continue;
        merge->removing = segments->by_slot[i];
        merge->remove_job =
            (dkv_disk_job){.op = DKV_DISK_REMOVE, .file = dkv_segment_file(merge->removing)};
        return &merge->remove_job;
    }
    merge->checked_at = store->append.durable;
    return NULL;
}

static void remove_done(dkv_store *store) {
    dkv_merge *merge = &store->merge;
    dkv_segment *segment = merge->removing;
    merge->removing = NULL;
    if (merge->remove_job.err && merge->remove_job.err != DKV_ERR_NOT_FOUND) {
        segment->unremovable = true;
        return;
    }
    dkv_merge_take_up(merge, segment);
    dkv_holes_forget(&store->holes, segment->number);
    dkv_segments_drop(&store->segments, segment);
    dkv_store_retry(store);
}

/* A victim that has died meanwhile need not be read to its end, which a full disk might prevent. */
static void let_go_of_dead_victim(dkv_merge *merge) {
    if (merge->victim && merge->victim->live_bytes == 0 && !merge->read_out) stop(merge);
}

dkv_disk_job *dkv_merge_next_job(dkv_store *store) {
    let_go_of_dead_victim(&store->merge);
    dkv_disk_job *job = next_remove(store);
    return job ? job : next_read(store);
}

void dkv_merge_job_done(dkv_store *store, dkv_disk_job *job) {
    if (job == &store->merge.read_job) {
        read_done(store);
    } else {
        remove_done(store);
    }
}
