#include "store/scrub.h"

#include "base/err.h"
#include "base/plant.h"
#include "store/store_impl.h"

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000ULL
#define PAGE_ENTRIES 256u

void dkv_scrub_init(dkv_scrub *scrub, uint64_t bytes_per_s, uint32_t interval_ms) {
    if (interval_ms == 0) interval_ms = DKV_SCRUB_INTERVAL_MS;
    *scrub = (dkv_scrub){.bytes_per_s = bytes_per_s ? bytes_per_s : DKV_SCRUB_BYTES_PER_S,
                         .interval_ns = interval_ms * NS_PER_MS,
                         .due_ns = INT64_MAX};
    scrub->rest_ns = scrub->interval_ns / DKV_SCRUB_FIRST_PART;
}

void dkv_scrub_free(dkv_scrub *scrub) {
    dkv_scan_free(&scrub->scan);
    *scrub = (dkv_scrub){0};
}

/* ---- time ---- */

void dkv_scrub_tick(dkv_scrub *scrub, int64_t now_ns) {
    scrub->now_ns = now_ns;
    if (scrub->rest_ns == 0) return;
    scrub->due_ns = now_ns + scrub->rest_ns;
    scrub->rest_ns = 0;
}

/* Clients have the disk for themselves for a while, but not for ever. */
int64_t dkv_scrub_next_timer(const dkv_store *store) {
    const dkv_scrub *scrub = &store->scrub;
    bool serves = store->reads.jobs_out > 0 || dkv_append_unconfirmed(&store->append) > 0;
    if (!scrub->in_pass || !serves || scrub->due_ns == INT64_MAX) return scrub->due_ns;
    return scrub->due_ns + DKV_SCRUB_YIELD_MS * NS_PER_MS;
}

/* ---- passes and segments ---- */

static void begin_pass(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    scrub->in_pass = scrub->complete = true;
    scrub->too_many = false;
    scrub->last_number = store->segments.last_number;
    scrub->upto_number = 0;
    scrub->was_suspect = false;
}

static void end_pass(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    scrub->in_pass = false;
    scrub->passes += scrub->complete;
    if (scrub->complete) store->holes.made = 0;
    scrub->due_ns = scrub->now_ns + scrub->interval_ns;
}

bool dkv_scrub_next_pass(dkv_scrub *scrub) {
    if (scrub->passes_told == scrub->passes) return false;
    scrub->passes_told++;
    return true;
}

bool dkv_scrub_next_too_many(dkv_scrub *scrub) {
    bool untold = scrub->too_many_untold;
    scrub->too_many_untold = false;
    return untold;
}

void dkv_scrub_suspect(dkv_store *store, dkv_segment *segment) {
    dkv_scrub *scrub = &store->scrub;
    int64_t soon_ns = scrub->now_ns + DKV_SCRUB_RETRY_MS * NS_PER_MS;
    if (dkv_holes_are_full(&store->holes)) return;
    segment->suspect = true;
    if (!scrub->in_pass && soon_ns < scrub->due_ns) scrub->due_ns = soon_ns;
}

static void leave_segment(dkv_scrub *scrub) {
    scrub->reading = scrub->searching = false;
    scrub->n_gaps = 0;
    scrub->probe = (dkv_probe){0};
    dkv_scan_free(&scrub->scan);
    scrub->scan = (dkv_scan){0};
}

/* The segment being read; NULL if there is none, or no record is left alive in it. */
static dkv_segment *current(const dkv_store *store) {
    const dkv_scrub *scrub = &store->scrub;
    if (!scrub->reading) return NULL;
    dkv_segment *segment = dkv_segments_at(&store->segments, scrub->slot);
    bool is_there = segment && segment->number == scrub->number && segment->live_bytes > 0;
    return is_there ? segment : NULL;
}

/* The first suspect, or the first of the segments that have not had their turn. */
static dkv_segment *choose_segment(const dkv_store *store) {
    const dkv_scrub *scrub = &store->scrub;
    dkv_segment *next = NULL;
    for (uint32_t i = 0; i < store->segments.slots; i++) {
        dkv_segment *segment = store->segments.by_slot[i];
        if (!segment || segment->live_bytes == 0) continue;
        if (segment->synced <= DKV_LOG_HEADER_BYTES) continue;
        bool has_turn =
            segment->number > scrub->upto_number && segment->number <= scrub->last_number;
        if (!has_turn && !segment->suspect) continue;
        bool same = next && next->suspect == segment->suspect;
        bool is_first =
            same ? segment->number < next->number : segment->suspect != scrub->was_suspect;
        if (!next || is_first) next = segment;
    }
    return next;
}

/* Begins with the next segment of the pass; NULL: there is none. */
static dkv_segment *begin_segment(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    leave_segment(scrub);
    dkv_segment *next = choose_segment(store);
    if (!next) return NULL;
    scrub->was_suspect = next->suspect;
    next->suspect = false;
    if (!scrub->was_suspect) scrub->upto_number = next->number;
    dkv_log_at from = {dkv_store_id(store), next->number, DKV_LOG_HEADER_BYTES};
    scrub->number = next->number;
    scrub->slot = next->slot;
    scrub->end = next->synced;
    scrub->reading = true;
    dkv_scan_init(&scrub->scan, from, scrub->end);
    return next;
}

/* ---- damage ---- */

static void note_gap(dkv_scrub *scrub, dkv_segment *segment, uint32_t from, uint32_t to) {
    segment->damaged = true;
    scrub->gaps[scrub->n_gaps++] = (dkv_scrub_gap){from, to};
}

static void begin_search(dkv_scrub *scrub) {
    scrub->searching = true;
    scrub->search_from = (dkv_key_hash){0, 0};
}

static bool lies_in_gap(const dkv_scrub *scrub, dkv_place place) {
    if (place.slot != scrub->slot) return false;
    for (unsigned i = 0; i < scrub->n_gaps; i++) {
        const dkv_scrub_gap *gap = &scrub->gaps[i];
        if (place.offset < gap->to && gap->from < place.offset + place.len_bytes) return true;
    }
    return false;
}

/* Searches one page of the index; false: it was the last. */
static bool search_page(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    dkv_index_entry page[PAGE_ENTRIES];
    size_t n = dkv_index_page(&store->index, scrub->search_from, page, PAGE_ENTRIES);
    for (size_t i = 0; i < n; i++) {
        if (lies_in_gap(scrub, dkv_place_unpack(page[i].place))) dkv_store_lose(store, &page[i]);
    }
    if (n == 0) return false;
    scrub->search_from = page[n - 1].hash;
    return ++scrub->search_from.tag != 0 || ++scrub->search_from.token != 0;
}

/* Loses the records in the gaps. Entries can only leave a gap meanwhile: no record is ever written
 * there, and merge takes away sound ones only. */
static void search(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    scrub->due_ns = scrub->now_ns + DKV_SCRUB_SEARCH_REST_MS * NS_PER_MS;
    for (unsigned i = 0; i < DKV_SCRUB_SEARCH_ENTRIES / PAGE_ENTRIES; i++) {
        if (search_page(store)) continue;
        scrub->searching = false;
        scrub->n_gaps = 0;
        return;
    }
}

/* ---- reading ---- */

/* Fills in the job that reads the next piece; read_asked is 0 if there is nothing but holes. */
static int plan_read(dkv_store *store, const dkv_segment *segment) {
    dkv_scrub *scrub = &store->scrub;
    uint8_t *to;
    uint32_t offset;
    int err = dkv_holes_room(&store->holes, &scrub->probe, &scrub->scan, DKV_SCRUB_PIECE_BYTES, &to,
                             &offset, &scrub->read_asked);
    if (err) return err;
    scrub->read_job = (dkv_disk_job){.op = DKV_DISK_READ,
                                     .file = dkv_segment_file(segment),
                                     .offset = offset,
                                     .len_bytes = scrub->read_asked,
                                     .data = to};
    return DKV_OK;
}

static dkv_disk_job *hand_out_read(dkv_scrub *scrub, dkv_segment *segment) {
    scrub->due_ns = INT64_MAX;
    scrub->read_out = true;
    segment->reads_out++;
    return &scrub->read_job;
}

/* The segment has been read; what its file lacks is damaged too. */
static void reach_end(dkv_store *store, dkv_segment *segment) {
    dkv_scrub *scrub = &store->scrub;
    if (scrub->scan.end < scrub->end) note_gap(scrub, segment, scrub->scan.end, scrub->end);
    scrub->end = scrub->scan.end;
    if (scrub->n_gaps > 0) {
        begin_search(scrub);
    } else {
        dkv_merge_take_up(&store->merge, segment);
        leave_segment(scrub);
    }
}

static void pass_over(dkv_scrub *scrub) {
    scrub->complete = false;
    leave_segment(scrub);
}

/* Works through what has been read of the segment; a READ job when more is needed. NULL: its end,
 * or the gaps have to be looked after. */
static dkv_disk_job *check_records(dkv_store *store, dkv_segment *segment) {
    dkv_scrub *scrub = &store->scrub;
    while (scrub->reading && !scrub->searching) {
        dkv_log_record record;
        int item = dkv_scan_next(&scrub->scan, &record);
        if (item == DKV_SCAN_NEED) {
            if (plan_read(store, segment)) { /* without memory */
                scrub->due_ns = scrub->now_ns + DKV_SCRUB_RETRY_MS * NS_PER_MS;
                return NULL;
            }
            if (scrub->read_asked > 0) return hand_out_read(scrub, segment);
        } else if (item == DKV_SCAN_END) {
            reach_end(store, segment);
        } else if (item < 0) {
            pass_over(scrub);
        } else if (item == DKV_SCAN_GAP && !DKV_PLANTED(LEAVE_ROTTEN)) {
            note_gap(scrub, segment, scrub->scan.item_at, scrub->scan.item_end);
            if (scrub->n_gaps == DKV_SCRUB_GAPS_MAX) begin_search(scrub);
        }
    }
    return NULL;
}

dkv_disk_job *dkv_scrub_next_job(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    if (scrub->now_ns < dkv_scrub_next_timer(store)) return NULL;
    if (!scrub->in_pass) begin_pass(store);
    dkv_segment *segment = current(store);
    if (!segment) segment = begin_segment(store);
    if (!segment) {
        end_pass(store);
        return NULL;
    }
    if (scrub->searching) {
        search(store);
        return NULL;
    }
    return check_records(store, segment);
}

/* What has failed is tried again after a while, and given up in the end. */
static void read_failed(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    uint32_t from = (uint32_t)scrub->read_job.offset;
    dkv_hole hole = {scrub->number, from, from + scrub->read_asked};
    bool is_last = dkv_probe_failed(&scrub->probe, scrub->read_job.err, hole.from, hole.to);
    scrub->rest_ns = (DKV_SCRUB_RETRY_MS * NS_PER_MS) << scrub->probe.tries;
    if (!is_last) return;
    bool is_medium = !scrub->probe.doubtful;
    if (is_medium && dkv_holes_add(&store->holes, hole)) return;
    if (is_medium && !scrub->too_many) scrub->too_many = scrub->too_many_untold = true;
    pass_over(scrub);
}

void dkv_scrub_job_done(dkv_store *store) {
    dkv_scrub *scrub = &store->scrub;
    scrub->read_out = false;
    dkv_segments_at(&store->segments, scrub->slot)->reads_out--;
    if (scrub->read_job.err) {
        read_failed(store);
        return;
    }
    uint32_t len = scrub->read_job.done_bytes;
    scrub->probe.tries = 0;
    scrub->scrubbed_bytes += len;
    scrub->rest_ns = (int64_t)(scrub->read_asked * NS_PER_S / scrub->bytes_per_s) + 1;
    dkv_scan_filled(&scrub->scan, scrub->read_asked, len);
}
