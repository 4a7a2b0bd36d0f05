/* Opening and closing a store: which files there are, whose they are, and whether the index comes
 * from its snapshot or from a scan of the log. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "store/recover.h"
#include "store/snapshot.h"
#include "store/store_impl.h"

#define DEFAULT_SEGMENT_BYTES (64u << 20)
#define MIN_SEGMENT_BYTES (64u << 10)
#define DEFAULT_UNSYNCED_BYTES (64u << 20)
/* A segment that is fuller than this at a clean stop is not continued. */
#define CONTINUE_BYTES(segment_bytes) ((segment_bytes) / 4 * 3)

typedef struct directory {
    dkv_disk_run run;
    void *disk;
    dkv_disk_file *files; /* segments ascending by number */
    uint32_t n_files;
    bool has_meta;
    bool has_snapshot;
    uint32_t n_segments;
} directory;

static int by_number(const void *left, const void *right) {
    const dkv_disk_file *a = left, *b = right;
    return a->number < b->number ? -1 : a->number > b->number;
}

static int list(directory *dir) {
    dir->files = calloc(DKV_DISK_FILES_MAX, sizeof *dir->files);
    if (!dir->files) return DKV_ERR_NO_MEMORY;
    dkv_disk_job job = {
        .op = DKV_DISK_LIST, .len_bytes = DKV_DISK_FILES_MAX, .data = (uint8_t *)dir->files};
    int err = dir->run(dir->disk, &job);
    if (err) return err;
    dir->n_files = job.done_bytes;
    qsort(dir->files, dir->n_files, sizeof *dir->files, by_number);
    for (uint32_t i = 0; i < dir->n_files; i++) {
        dir->has_meta = dir->has_meta || dir->files[i].kind == DKV_FILE_META;
        dir->has_snapshot = dir->has_snapshot || dir->files[i].kind == DKV_FILE_SNAPSHOT;
        dir->n_segments += dir->files[i].kind == DKV_FILE_SEGMENT;
    }
    return DKV_OK;
}

static int run_op(const directory *dir, dkv_disk_op op, dkv_file_kind kind) {
    dkv_disk_job job = {.op = op, .file = {.kind = kind}};
    return dir->run(dir->disk, &job);
}

/* ---- identity ---- */

/* META is lost: takes the identity from the headers of the segments. */
static int identity_of_segments(const directory *dir, dkv_store_identity *out) {
    for (uint32_t i = dir->n_files; i-- > 0;) {
        if (dir->files[i].kind != DKV_FILE_SEGMENT) continue;
        dkv_log_header header;
        int err = dkv_recover_header(dir->files[i].number, dir->run, dir->disk, &header);
        if (err == DKV_ERR_DATA_LOSS) continue;
        if (!err) *out = header.identity;
        return err;
    }
    return DKV_ERR_DATA_LOSS;
}

/* Finds out whose directory it is; without any content it becomes that of `options`. Facts that are
 * lost with META count as damage. */
static int identify(dkv_store *store, const directory *dir, const dkv_store_options *options,
                    dkv_store_report *report) {
    dkv_store_identity *identity = &store->meta.identity;
    int err = dir->has_meta ? dkv_meta_load(&store->meta, dir->run, dir->disk) : DKV_ERR_NOT_FOUND;
    if (err == DKV_ERR_NOT_FOUND && dir->n_segments > 0) {
        err = identity_of_segments(dir, identity);
        report->damaged_records++;
    } else if (err == DKV_ERR_NOT_FOUND) {
        identity->store_id = options->new_store_id;
        strcpy(identity->cluster, options->cluster);
        strcpy(identity->node_id, options->node_id);
        report->created = true;
        err = DKV_OK;
    }
    if (err) return err;
    bool ours = strcmp(identity->cluster, options->cluster) == 0 &&
                strcmp(identity->node_id, options->node_id) == 0;
    return ours ? DKV_OK : DKV_ERR_PRECONDITION;
}

/* ---- opening ---- */

static int check_options(const dkv_store_options *options) {
    if (options->new_store_id == 0) return DKV_ERR_INVALID;
    if (strlen(options->cluster) > DKV_STORE_NAME_MAX) return DKV_ERR_INVALID;
    if (strlen(options->node_id) > DKV_STORE_NAME_MAX) return DKV_ERR_INVALID;
    bool has_interval = options->interval_ms > 0 && options->interval_ms <= DKV_INTERVAL_MAX_MS;
    if (options->durability == DKV_DURABILITY_INTERVAL && !has_interval) return DKV_ERR_INVALID;
    if (options->segment_bytes == 0) return DKV_OK;
    bool legal = options->segment_bytes >= MIN_SEGMENT_BYTES &&
                 options->segment_bytes <= DKV_SEGMENT_BYTES_MAX;
    return legal ? DKV_OK : DKV_ERR_INVALID;
}

static dkv_store *store_new(const dkv_store_options *options) {
    dkv_store *store = calloc(1, sizeof *store);
    if (!store) return NULL;
    store->append.identity = &store->meta.identity;
    store->append.segments = &store->segments;
    store->append.segment_bytes =
        options->segment_bytes ? options->segment_bytes : DEFAULT_SEGMENT_BYTES;
    uint32_t ahead = store->append.segment_bytes / 16;
    if (ahead > DKV_AHEAD_BYTES) ahead = DKV_AHEAD_BYTES;
    store->append.ahead_bytes = options->durability == DKV_DURABILITY_ALWAYS ? ahead : 0;
    dkv_space_init(&store->space, store->append.segment_bytes);
    dkv_scrub_init(&store->scrub, options->scrub_bytes_per_s, options->scrub_interval_ms);
    store->unsynced_max_bytes =
        options->unsynced_max_bytes ? options->unsynced_max_bytes : DEFAULT_UNSYNCED_BYTES;
    if (dkv_cache_init(&store->cache, options->cache_bytes) == DKV_OK) return store;
    free(store);
    return NULL;
}

/* After a clean stop everything in the last segment is durable: appends go on in it while it has
 * room, so that restarts do not litter the directory. */
static void continue_last(dkv_store *store) {
    dkv_append *append = &store->append;
    dkv_segment *last = NULL;
    for (uint32_t i = 0; i < store->segments.slots; i++) {
        dkv_segment *segment = store->segments.by_slot[i];
        if (segment && (!last || segment->number > last->number)) last = segment;
    }
    if (!last) return;
    if (last->end < DKV_LOG_HEADER_BYTES || last->end > CONTINUE_BYTES(append->segment_bytes)) {
        return;
    }
    dkv_segments_unseal(&store->segments, last);
    append->active = last;
    append->appended = append->durable = last->end;
}

/* Segments are lost if META knows of a newer one than the newest that is there. */
static void judge_newest(const dkv_store *store, const directory *dir, dkv_store_report *report) {
    uint32_t newest = 0;
    for (uint32_t i = 0; i < dir->n_files; i++) {
        const dkv_disk_file *file = &dir->files[i];
        if (file->kind == DKV_FILE_SEGMENT && file->size_bytes > 0) newest = file->number;
    }
    if (newest < store->meta.newest_segment) report->damaged_records++;
}

/* Confirmed writes that were not synced are lost if the machine stopped, unless it did so in order.
 */
static void judge_machine(const dkv_store *store, const dkv_store_options *options,
                          dkv_store_report *report) {
    const dkv_meta *meta = &store->meta;
    bool same_boot = meta->boot_id != 0 && meta->boot_id == options->boot_id;
    report->machine_stopped = meta->lazy && meta->snapshot == 0 && !same_boot;
    if (report->machine_stopped) report->damaged_records++;
}

static uint32_t newest_with_content(const dkv_segments *segments) {
    uint32_t newest = 0;
    for (uint32_t i = 0; i < segments->slots; i++) {
        const dkv_segment *segment = segments->by_slot[i];
        if (segment && segment->end > 0 && segment->number > newest) newest = segment->number;
    }
    return newest;
}

/* Writes META without the clean mark before anything changes that the snapshot describes. Also when
 * it had none: what is read of it may stand in the page cache only. Until recovery is over it names
 * no newest segment either, because that one may be cut to nothing. And it stays lazy if it was:
 * what recovery is about to sync may be lost until then. */
static int mark_running(dkv_store *store, const directory *dir, const dkv_store_options *options) {
    int err = dir->has_meta ? DKV_OK : run_op(dir, DKV_DISK_CREATE, DKV_FILE_META);
    if (err) return err;
    bool was_lazy = store->meta.lazy && store->meta.snapshot == 0;
    store->meta.lazy = was_lazy || options->durability == DKV_DURABILITY_INTERVAL;
    store->meta.boot_id = options->boot_id;
    store->meta.snapshot = 0;
    store->meta.newest_segment = 0;
    err = dkv_meta_store(&store->meta, dir->run, dir->disk);
    return err ? err : run_op(dir, DKV_DISK_SYNC_DIR, DKV_FILE_META);
}

/* `snapshot`: the tag that META named, or 0. No segment number up to `last_number` is used again.
 */
static int load(dkv_store *store, const directory *dir, uint64_t snapshot, uint32_t last_number,
                dkv_store_report *report) {
    bool absent = false;
    if (snapshot != 0 && dir->has_snapshot) {
        int err = dkv_snapshot_load(store, snapshot, dir->files, dir->n_files, dir->run, dir->disk);
        if (!err) {
            report->clean = true;
            continue_last(store);
            return DKV_OK;
        }
        bool may_scan = err == DKV_ERR_DATA_LOSS || err == DKV_ERR_NOT_FOUND || err == DKV_ERR_IO;
        if (!may_scan) return err;
        absent = err == DKV_ERR_NOT_FOUND;
    }
    if (absent && store->meta.damage == 0) store->meta.damage = 1;
    store->segments.last_number = last_number;
    return dkv_recover_log(store, dir->files, dir->n_files, dir->run, dir->disk, report);
}

/* Everything after whose directory it is has been found out. */
static int bring_up(dkv_store *store, const directory *dir, const dkv_store_options *options,
                    dkv_store_report *report) {
    uint64_t snapshot = store->meta.snapshot;
    uint32_t newest = store->meta.newest_segment;
    judge_newest(store, dir, report);
    judge_machine(store, options, report);
    if (report->damaged_records && !store->meta.damage) store->meta.damage = 1;
    int err = mark_running(store, dir, options);
    if (!err) err = load(store, dir, snapshot, newest, report);
    if (!err && dir->has_snapshot) err = run_op(dir, DKV_DISK_REMOVE, DKV_FILE_SNAPSHOT);
    if (err) return err;
    store->meta.newest_segment = newest_with_content(&store->segments);
    store->meta.lazy = options->durability == DKV_DURABILITY_INTERVAL;
    dkv_meta_touch(&store->meta);
    if (report->damaged_records < store->meta.damage) {
        report->damaged_records = store->meta.damage;
    }
    report->records = store->index.total.count;
    store->damaged_records = report->damaged_records;
    if (store->meta.lazy) store->append.interval_ns = (int64_t)options->interval_ms * 1000000;
    return DKV_OK;
}

int dkv_store_open(const dkv_store_options *options, dkv_disk_run run, void *disk, dkv_store **out,
                   dkv_store_report *report) {
    directory dir = {.run = run, .disk = disk};
    dkv_store_report found = {0};
    int err = check_options(options);
    if (err) return err;
    dkv_store *store = store_new(options);
    if (!store) return DKV_ERR_NO_MEMORY;
    err = list(&dir);
    if (!err) err = identify(store, &dir, options, &found);
    if (!err) err = bring_up(store, &dir, options, &found);
    free(dir.files);
    if (err) {
        dkv_store_del(store);
        return err;
    }
    *report = found;
    *out = store;
    return DKV_OK;
}

/* ---- closing ---- */

/* Performs all jobs of the tail and of META. */
static int drain(dkv_store *store, dkv_disk_run run, void *disk) {
    for (;;) {
        dkv_disk_job *job = dkv_append_next_job(&store->append);
        if (!job) job = dkv_meta_next_job(&store->meta);
        if (!job) break;
        int err = run(disk, job);
        dkv_store_job_done(store, job);
        if (err) return err;
    }
    bool all = store->append.durable == store->append.appended && store->meta.copies_due == 0;
    return all ? DKV_OK : DKV_ERR_IO;
}

int dkv_store_close_clean(dkv_store *store, dkv_disk_run run, void *disk) {
    assert(!store->append.write_out && !store->append.sync_out && !store->meta.out);
    assert(!store->merge.read_out && !store->merge.removing && store->reads.jobs_out == 0);
    assert(!store->scrub.read_out);
    store->append.interval_ns = 0; /* syncs wait no longer */
    store->append.closing = true;
    dkv_store_retry(store);
    int err = drain(store, run, disk);
    if (err) return err;
    uint64_t tag = store->meta.sequence + 1;
    err = dkv_snapshot_write(store, tag, run, disk);
    if (err) return err;
    store->meta.snapshot = tag;
    err = dkv_meta_store(&store->meta, run, disk);
    if (err) store->meta.snapshot = 0;
    return err;
}
