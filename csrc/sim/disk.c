#include "sim/disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/rand.h"

/* A write, or a cut of the file's length, that is not durable yet. */
typedef struct change {
    struct change *next;
    uint64_t number; /* of the job, see dkv_sim_disk.jobs */
    bool cut;        /* to `offset` */
    bool given_up;   /* a SYNC of it failed: the page cache calls it clean */
    uint64_t offset;
    uint32_t len;
    uint8_t data[];
} change;

typedef struct sim_file {
    struct sim_file *next;
    dkv_disk_file name;
    uint64_t created; /* number of the CREATE job */
    uint64_t removed; /* number of the REMOVE job, 0: present */
    bool entry_durable;
    dkv_buf durable;
    uint64_t len_bytes; /* as the process sees it */
    uint64_t bad_from;  /* from here ... */
    uint64_t bad_to;    /* ... up to here it cannot be read; 0: everywhere it can */
    change *first;
    change *last;
} sim_file;

/* A job between submit and complete. */
typedef struct out_job {
    struct out_job *next;
    const dkv_disk_job *job;
    uint64_t number;
} out_job;

struct dkv_sim_disk {
    dkv_rand rand;
    sim_file *files; /* newest first; removed ones until their removal is durable */
    out_job *out;
    uint64_t jobs; /* submitted so far: numbers them */
    uint64_t limit_bytes;
    bool tells_space;
    uint32_t failing_syncs;
    uint32_t failing_reads;
};

static bool coin(dkv_sim_disk *disk) {
    return dkv_rand_next(&disk->rand) & 1;
}

/* ---- files ---- */

static sim_file *find(const dkv_sim_disk *disk, dkv_disk_file name) {
    for (sim_file *file = disk->files; file; file = file->next) {
        bool same = file->name.kind == name.kind && file->name.number == name.number;
        if (same && !file->removed) return file;
    }
    return NULL;
}

static void drop_changes(sim_file *file) {
    while (file->first) {
        change *next = file->first->next;
        free(file->first);
        file->first = next;
    }
    file->last = NULL;
}

static void file_del(sim_file *file) {
    drop_changes(file);
    dkv_buf_free(&file->durable);
    free(file);
}

static void unlink_file(sim_file **at) {
    sim_file *file = *at;
    *at = file->next;
    file_del(file);
}

int dkv_sim_disk_new(uint64_t seed, dkv_sim_disk **out) {
    dkv_sim_disk *disk = calloc(1, sizeof *disk);
    if (!disk) return DKV_ERR_NO_MEMORY;
    disk->rand.state = seed;
    *out = disk;
    return DKV_OK;
}

void dkv_sim_disk_wipe(dkv_sim_disk *disk) {
    while (disk->files) unlink_file(&disk->files);
}

void dkv_sim_disk_kill(dkv_sim_disk *disk) {
    while (disk->out) {
        out_job *next = disk->out->next;
        free(disk->out);
        disk->out = next;
    }
}

void dkv_sim_disk_del(dkv_sim_disk *disk) {
    if (!disk) return;
    dkv_sim_disk_kill(disk);
    dkv_sim_disk_wipe(disk);
    free(disk);
}

uint64_t dkv_sim_disk_bytes(const dkv_sim_disk *disk) {
    uint64_t bytes = 0;
    for (const sim_file *file = disk->files; file; file = file->next) {
        if (!file->removed) bytes += file->len_bytes;
    }
    return bytes;
}

/* ---- making changes durable ---- */

/* Sets the length of the durable content; what is new is zero. */
static int set_durable_len(sim_file *file, uint64_t len) {
    if (len > file->durable.len) {
        size_t more = (size_t)len - file->durable.len;
        int err = dkv_buf_reserve(&file->durable, more);
        if (err) return err;
        memset(file->durable.data + file->durable.len, 0, more);
    }
    file->durable.len = (size_t)len;
    return DKV_OK;
}

static int apply_part(sim_file *file, const change *c, uint32_t from, uint32_t to) {
    uint64_t end = c->offset + to;
    int err = end > file->durable.len ? set_durable_len(file, end) : DKV_OK;
    if (!err) memcpy(file->durable.data + c->offset + from, c->data + from, to - from);
    return err;
}

static int apply_whole(sim_file *file, const change *c) {
    return c->cut ? set_durable_len(file, c->offset) : apply_part(file, c, 0, c->len);
}

/* Applies each sector of the change, or not. */
static void apply_some(dkv_sim_disk *disk, sim_file *file, const change *c) {
    if (c->given_up) return;
    if (c->cut) {
        if (coin(disk)) set_durable_len(file, c->offset);
        return;
    }
    unsigned luck = (unsigned)dkv_rand_below(&disk->rand, 4); /* of 3: how likely a sector is */
    for (uint32_t from = 0; from < c->len;) {
        uint64_t sector_end =
            ((c->offset + from) / DKV_SIM_SECTOR_BYTES + 1) * (uint64_t)DKV_SIM_SECTOR_BYTES;
        uint32_t to = (uint32_t)(sector_end - c->offset);
        if (to > c->len) to = c->len;
        if (dkv_rand_below(&disk->rand, 3) < luck) apply_part(file, c, from, to);
        from = to;
    }
}

/* What a durable cut leaves of a change that was given up before it. */
static void trim(change *c, uint64_t len) {
    if (c->cut || c->offset + c->len <= len) return;
    c->len = c->offset < len ? (uint32_t)(len - c->offset) : 0;
}

/* Makes all changes before job number `upto` durable, but for those given up: the page cache goes
 * on to show them. */
static int sync_file(sim_file *file, uint64_t upto) {
    for (change **at = &file->first; *at && (*at)->number < upto;) {
        change *c = *at;
        if (c->given_up) {
            at = &c->next;
            continue;
        }
        int err = apply_whole(file, c);
        if (err) return err;
        for (change *kept = file->first; c->cut && kept != c; kept = kept->next) {
            trim(kept, c->offset);
        }
        *at = c->next;
        free(c);
    }
    file->last = file->first;
    while (file->last && file->last->next) file->last = file->last->next;
    return DKV_OK;
}

static void give_up(sim_file *file) {
    for (change *c = file->first; c; c = c->next) c->given_up = true;
}

static void sync_dir(dkv_sim_disk *disk, uint64_t upto) {
    for (sim_file **at = &disk->files; *at;) {
        sim_file *file = *at;
        if (file->created < upto) file->entry_durable = true;
        if (file->removed && file->removed < upto) {
            unlink_file(at);
        } else {
            at = &file->next;
        }
    }
}

void dkv_sim_disk_power_cut(dkv_sim_disk *disk) {
    dkv_sim_disk_kill(disk);
    for (sim_file **at = &disk->files; *at;) {
        sim_file *file = *at;
        for (const change *c = file->first; c; c = c->next) apply_some(disk, file, c);
        drop_changes(file);
        file->len_bytes = file->durable.len;
        bool created = file->entry_durable || coin(disk);
        bool removed = file->removed && coin(disk);
        file->removed = 0;
        file->entry_durable = true;
        bool newer = false; /* of the same name: its CREATE implies the REMOVE before it */
        for (const sim_file *other = disk->files; other != file; other = other->next) {
            newer = newer || (other->name.kind == file->name.kind &&
                              other->name.number == file->name.number);
        }
        if (!created || removed || newer) {
            unlink_file(at);
        } else {
            at = &file->next;
        }
    }
}

/* ---- jobs ---- */

static int add_change(dkv_sim_disk *disk, sim_file *file, bool cut, uint64_t offset,
                      const uint8_t *data, uint32_t len) {
    change *c = malloc(sizeof *c + len);
    if (!c) return DKV_ERR_NO_MEMORY;
    *c = (change){.number = disk->jobs, .cut = cut, .offset = offset, .len = len};
    if (len) memcpy(c->data, data, len);
    for (change *old = file->first; old && !cut; old = old->next) { /* dirty again */
        if (offset < old->offset + old->len && old->offset < offset + len) old->given_up = false;
    }
    if (file->last) {
        file->last->next = c;
    } else {
        file->first = c;
    }
    file->last = c;
    if (cut || offset + len > file->len_bytes) file->len_bytes = offset + len;
    return DKV_OK;
}

static bool touches_bad(const sim_file *file, uint64_t from, uint64_t to) {
    return from < file->bad_to && file->bad_from < to;
}

static int do_write(dkv_sim_disk *disk, const dkv_disk_job *job) {
    sim_file *file = find(disk, job->file);
    if (!file) return DKV_ERR_NOT_FOUND;
    uint64_t end = job->offset + job->len_bytes;
    uint64_t growth = end > file->len_bytes ? end - file->len_bytes : 0;
    bool fits =
        !disk->limit_bytes || growth == 0 || dkv_sim_disk_bytes(disk) + growth <= disk->limit_bytes;
    uint32_t len = job->len_bytes;
    if (!fits) { /* some of it may be in the file all the same */
        uint64_t room = job->len_bytes - growth;
        len = (uint32_t)dkv_rand_below(&disk->rand, room + 1);
    }
    int err = len ? add_change(disk, file, false, job->offset, job->data, len) : DKV_OK;
    if (touches_bad(file, job->offset, job->offset + len)) file->bad_from = file->bad_to = 0;
    return err ? err : fits ? DKV_OK : DKV_ERR_NO_SPACE;
}

/* What the process sees of a file from `from` up to `to`, within its length: the durable content
 * under the changes. */
static void read_part(const sim_file *file, uint64_t from, uint64_t to, uint8_t *data) {
    memset(data, 0, (size_t)(to - from));
    if (from < file->durable.len) {
        uint64_t end = to < file->durable.len ? to : file->durable.len;
        memcpy(data, file->durable.data + from, (size_t)(end - from));
    }
    for (const change *c = file->first; c; c = c->next) {
        uint64_t begin = c->offset > from ? c->offset : from;
        uint64_t end = c->cut ? to : c->offset + c->len < to ? c->offset + c->len : to;
        if (begin >= end) continue;
        if (c->cut) {
            memset(data + (begin - from), 0, (size_t)(end - begin));
        } else {
            memcpy(data + (begin - from), c->data + (begin - c->offset), (size_t)(end - begin));
        }
    }
}

static int do_read(dkv_sim_disk *disk, dkv_disk_job *job) {
    const sim_file *file = find(disk, job->file);
    if (!file) return DKV_ERR_NOT_FOUND;
    if (disk->failing_reads > 0) {
        disk->failing_reads--;
        return DKV_ERR_IO;
    }
    uint64_t from = job->offset, to = job->offset + job->len_bytes;
    if (to > file->len_bytes) to = file->len_bytes;
    if (from >= to) return DKV_OK;
    if (touches_bad(file, from, to)) return DKV_ERR_IO;
    job->done_bytes = (uint32_t)(to - from);
    read_part(file, from, to, job->data);
    return DKV_OK;
}

static int do_create(dkv_sim_disk *disk, const dkv_disk_job *job) {
    if (find(disk, job->file)) return DKV_ERR_INVALID;
    sim_file *file = calloc(1, sizeof *file);
    if (!file) return DKV_ERR_NO_MEMORY;
    file->name = job->file;
    file->created = disk->jobs;
    file->next = disk->files;
    disk->files = file;
    return DKV_OK;
}

static int do_remove(dkv_sim_disk *disk, const dkv_disk_job *job) {
    sim_file *file = find(disk, job->file);
    if (!file) return DKV_ERR_NOT_FOUND;
    file->removed = disk->jobs;
    return DKV_OK;
}

static int do_truncate(dkv_sim_disk *disk, const dkv_disk_job *job) {
    sim_file *file = find(disk, job->file);
    return file ? add_change(disk, file, true, job->offset, NULL, 0) : DKV_ERR_NOT_FOUND;
}

static int do_list(const dkv_sim_disk *disk, dkv_disk_job *job) {
    dkv_disk_file *to = (dkv_disk_file *)(void *)job->data;
    for (const sim_file *file = disk->files; file; file = file->next) {
        if (file->removed) continue;
        if (job->done_bytes == job->len_bytes) return DKV_ERR_INVALID;
        to[job->done_bytes] = file->name;
        to[job->done_bytes++].size_bytes = file->len_bytes;
    }
    return DKV_OK;
}

static int do_space(const dkv_sim_disk *disk, dkv_disk_job *job) {
    uint64_t used = dkv_sim_disk_bytes(disk);
    uint64_t left = disk->limit_bytes > used ? disk->limit_bytes - used : 0;
    job->offset = disk->tells_space && disk->limit_bytes ? left : UINT64_MAX;
    return DKV_OK;
}

/* What can be told of a sync when it begins. */
static int begin_sync(dkv_sim_disk *disk, const dkv_disk_job *job) {
    sim_file *file = job->op == DKV_DISK_SYNC ? find(disk, job->file) : NULL;
    if (job->op == DKV_DISK_SYNC && !file) return DKV_ERR_NOT_FOUND;
    if (disk->failing_syncs == 0) return DKV_OK;
    disk->failing_syncs--;
    if (file) give_up(file);
    return DKV_ERR_IO;
}

static int perform(dkv_sim_disk *disk, dkv_disk_job *job) {
    job->done_bytes = 0;
    switch (job->op) {
    case DKV_DISK_READ: return do_read(disk, job);
    case DKV_DISK_WRITE: return do_write(disk, job);
    case DKV_DISK_CREATE: return do_create(disk, job);
    case DKV_DISK_REMOVE: return do_remove(disk, job);
    case DKV_DISK_TRUNCATE: return do_truncate(disk, job);
    case DKV_DISK_LIST: return do_list(disk, job);
    case DKV_DISK_SPACE: return do_space(disk, job);
    case DKV_DISK_SYNC:
    case DKV_DISK_SYNC_DIR: return begin_sync(disk, job);
    }
    return DKV_ERR_INVALID;
}

void dkv_sim_disk_submit(dkv_sim_disk *disk, dkv_disk_job *job) {
    disk->jobs++;
    job->err = perform(disk, job);
    if (job->op != DKV_DISK_SYNC && job->op != DKV_DISK_SYNC_DIR) return;
    out_job *out = malloc(sizeof *out);
    if (!out) abort();
    *out = (out_job){.next = disk->out, .job = job, .number = disk->jobs};
    disk->out = out;
}

void dkv_sim_disk_complete(dkv_sim_disk *disk, dkv_disk_job *job) {
    if (job->op != DKV_DISK_SYNC && job->op != DKV_DISK_SYNC_DIR) return;
    out_job **at = &disk->out;
    while (*at && (*at)->job != job) at = &(*at)->next;
    assert(*at);
    out_job *out = *at;
    *at = out->next;
    if (!job->err && job->op == DKV_DISK_SYNC_DIR) sync_dir(disk, out->number);
    sim_file *file = job->op == DKV_DISK_SYNC ? find(disk, job->file) : NULL;
    if (!job->err && file) job->err = sync_file(file, out->number);
    free(out);
}

int dkv_sim_disk_run(void *disk, dkv_disk_job *job) {
    dkv_sim_disk_submit(disk, job);
    dkv_sim_disk_complete(disk, job);
    return job->err;
}

/* ---- copies ---- */

static int copy_file(dkv_sim_disk *disk, const sim_file *from) {
    sim_file *file = calloc(1, sizeof *file);
    if (!file) return DKV_ERR_NO_MEMORY;
    file->name = from->name;
    file->entry_durable = true;
    file->next = disk->files;
    disk->files = file;
    int err = set_durable_len(file, from->len_bytes);
    if (err || from->len_bytes == 0) return err;
    file->len_bytes = from->len_bytes;
    file->bad_from = from->bad_from;
    file->bad_to = from->bad_to;
    read_part(from, 0, from->len_bytes, file->durable.data);
    return DKV_OK;
}

int dkv_sim_disk_copy(const dkv_sim_disk *disk, dkv_sim_disk **out) {
    dkv_sim_disk *copy;
    int err = dkv_sim_disk_new(0, &copy);
    if (err) return err;
    for (const sim_file *file = disk->files; !err && file; file = file->next) {
        if (!file->removed) err = copy_file(copy, file);
    }
    if (err) {
        dkv_sim_disk_del(copy);
        return err;
    }
    *out = copy;
    return DKV_OK;
}

/* ---- faults ---- */

int dkv_sim_disk_flip(dkv_sim_disk *disk, dkv_disk_file name, uint64_t offset, unsigned bit) {
    sim_file *file = find(disk, name);
    if (!file || offset >= file->durable.len) return DKV_ERR_NOT_FOUND;
    file->durable.data[offset] ^= (uint8_t)(1u << (bit % 8));
    return DKV_OK;
}

int dkv_sim_disk_spoil(dkv_sim_disk *disk, dkv_disk_file name, uint64_t from, uint64_t to) {
    sim_file *file = find(disk, name);
    if (!file) return DKV_ERR_NOT_FOUND;
    for (const change *c = file->first; c; c = c->next) {
        if (c->offset < to && (c->cut || from < c->offset + c->len)) return DKV_ERR_PRECONDITION;
    }
    file->bad_from = from;
    file->bad_to = to;
    return DKV_OK;
}

bool dkv_sim_disk_is_spoiled(const dkv_sim_disk *disk) {
    for (const sim_file *file = disk->files; file; file = file->next) {
        if (file->bad_to > 0) return true;
    }
    return false;
}

int dkv_sim_disk_choose_byte(dkv_sim_disk *disk, dkv_disk_file *out) {
    uint64_t bytes = 0;
    for (const sim_file *file = disk->files; file; file = file->next) {
        bool in_log = file->name.kind == DKV_FILE_SEGMENT && !file->removed;
        if (in_log) bytes += file->durable.len;
    }
    if (bytes == 0) return DKV_ERR_NOT_FOUND;
    uint64_t at = dkv_rand_below(&disk->rand, bytes);
    for (const sim_file *file = disk->files; file; file = file->next) {
        if (file->name.kind != DKV_FILE_SEGMENT || file->removed) continue;
        if (at < file->durable.len) {
            *out = file->name;
            out->size_bytes = at;
            return DKV_OK;
        }
        at -= file->durable.len;
    }
    return DKV_ERR_NOT_FOUND;
}

int dkv_sim_disk_flip_any(dkv_sim_disk *disk) {
    dkv_disk_file at;
    int err = dkv_sim_disk_choose_byte(disk, &at);
    return err ? err
               : dkv_sim_disk_flip(disk, at, at.size_bytes,
                                   (unsigned)dkv_rand_below(&disk->rand, 8));
}

dkv_slice dkv_sim_disk_durable(const dkv_sim_disk *disk, dkv_disk_file name) {
    const sim_file *file = find(disk, name);
    return file ? dkv_buf_slice(&file->durable) : (dkv_slice){0};
}

int dkv_sim_disk_lose_file(dkv_sim_disk *disk, dkv_disk_file *out) {
    uint64_t count = 0;
    for (const sim_file *file = disk->files; file; file = file->next) {
        count += file->name.kind == DKV_FILE_SEGMENT && !file->removed;
    }
    if (count == 0) return DKV_ERR_NOT_FOUND;
    uint64_t chosen = dkv_rand_below(&disk->rand, count);
    for (sim_file **at = &disk->files; *at; at = &(*at)->next) {
        if ((*at)->name.kind != DKV_FILE_SEGMENT || (*at)->removed || chosen-- > 0) continue;
        if (out) *out = (*at)->name;
        unlink_file(at);
        break;
    }
    return DKV_OK;
}

void dkv_sim_disk_limit(dkv_sim_disk *disk, uint64_t bytes) {
    disk->limit_bytes = bytes;
}

void dkv_sim_disk_tell_space(dkv_sim_disk *disk, bool tell) {
    disk->tells_space = tell;
}

void dkv_sim_disk_fail_syncs(dkv_sim_disk *disk, uint32_t count) {
    disk->failing_syncs = count;
}

void dkv_sim_disk_fail_reads(dkv_sim_disk *disk, uint32_t count) {
    disk->failing_reads = count;
}
