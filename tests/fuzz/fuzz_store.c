/* The files of a store, made by a program that the bytes are: segments with whole records, damage
 * of all kinds, forged state files and snapshots, and real runs of a store in between. However the
 * directory looks,
 *
 * 1. opening it ends, with an error or with a store;
 * 2. the store gives no record that was not written, byte for byte;
 * 3. it has every record that was written and not touched afterwards, or a newer one of its key;
 * 4. it works: takes a write, and after a kill and after a clean stop has what it had before. */
#include "base/err.h"
#include "base/hash.h"
#include "fuzz.h"
#include "sim/disk.h"
#include "store/cache.h"
#include "store/log.h"
#include "store/meta.h"
#include "store/snapshot.h"
#include "store/store.h"

#define STORE_ID 0x1122334455667788u
#define KEYS 8u
#define KNOWN_MAX 512u
#define STEPS_MAX 64u
#define SEGMENTS 8u

/* A record that was written. Its bytes follow from its numbers. */
typedef struct known {
    uint32_t key;
    dkv_version version;
    uint32_t value_len;
    dkv_kind kind;
    bool sure; /* untouched since, and where recovery must find it */
} known;

typedef struct segment {
    bool exists;
    uint32_t end;
} segment;

static dkv_sim_disk *disk;
static dkv_store *store; /* NULL: not open */
static dkv_store_report report;
static known written[KNOWN_MAX];
static uint32_t n_written;
static segment segments[SEGMENTS + 1]; /* by number */
static uint32_t current;               /* number of the one that records are placed in */
/* A file says, with a valid checksum, what no store would have written: it is believed, whatever it
 * is, and records may get lost. */
static bool lying;
static bool damaged; /* reading met damage */

static const dkv_store_options options = {.cluster = "cluster",
                                          .node_id = "node",
                                          .new_store_id = STORE_ID,
                                          .segment_bytes = 65536,
                                          .cache_bytes = 2 * DKV_CACHE_RECORD_MAX};
static const dkv_store_identity identity = {STORE_ID, "cluster", "node"};

/* ---- records ---- */

static dkv_slice key_of(uint32_t key, char text[16]) {
    snprintf(text, 16, "key-%u", key);
    return dkv_slice_of(text);
}

static dkv_slice value_of(const known *k) {
    static uint8_t value[65536];
    memset(value, (int)(k->version.hlc * 7 + k->key), k->value_len);
    return (dkv_slice){value, k->value_len};
}

static dkv_record record_of(const known *k, char text[16]) {
    return (dkv_record){key_of(k->key, text), value_of(k), k->version, k->kind};
}

/* Another write, whose version says all of it. NULL: enough of them. */
static known *new_write(dkv_slice *in) {
    if (n_written == KNOWN_MAX) return NULL;
    known *k = &written[n_written++];
    unsigned shape = fuzz_byte(in);
    k->key = shape % KEYS;
    k->kind = shape & 8 ? DKV_KIND_TOMBSTONE : DKV_KIND_VALUE;
    k->value_len = k->kind == DKV_KIND_TOMBSTONE ? 0 : shape & 16 ? 6000u : shape >> 5;
    /* Not always ascending, never repeated. */
    k->version = (dkv_version){1 + (fuzz_byte(in) % 16u) * KNOWN_MAX + n_written, 7};
    k->sure = false;
    return k;
}

static void nothing_is_sure(void) {
    for (uint32_t i = 0; i < n_written; i++) written[i].sure = false;
}

/* ---- files ---- */

static dkv_disk_file segment_file(uint32_t number) {
    return (dkv_disk_file){.kind = DKV_FILE_SEGMENT, .number = number};
}

static void run_job(dkv_disk_op op, dkv_disk_file file, uint64_t offset, const uint8_t *data,
                    size_t len) {
    dkv_disk_job job = {.op = op,
                        .file = file,
                        .offset = offset,
                        .len_bytes = (uint32_t)len,
                        .data = (uint8_t *)data};
    dkv_sim_disk_run(disk, &job);
}

/* Writes and makes durable; makes the file if there is none. */
static void put_bytes(dkv_disk_file file, uint64_t offset, const uint8_t *data, size_t len) {
    run_job(DKV_DISK_CREATE, file, 0, NULL, 0);
    if (len) run_job(DKV_DISK_WRITE, file, offset, data, len);
    run_job(DKV_DISK_SYNC, file, 0, NULL, 0);
    run_job(DKV_DISK_SYNC_DIR, file, 0, NULL, 0);
}

static void append_bytes(const uint8_t *data, size_t len) {
    segment *s = &segments[current];
    put_bytes(segment_file(current), s->end, data, len);
    s->end += (uint32_t)len;
}

static void begin_segment(dkv_slice *in) {
    uint8_t bytes[DKV_LOG_HEADER_BYTES];
    unsigned shape = fuzz_byte(in);
    uint32_t number = 1 + shape % SEGMENTS;
    if (segments[number].exists) return;
    FUZZ_TRACE("segment %u, header %u\n", number, shape >> 4);
    dkv_log_header header = {identity, number};
    if (shape >> 4 == 1) header.identity.store_id++;
    lying |= shape >> 4 == 1;
    if (shape >> 4 == 2) header.number++;
    dkv_log_header_encode(bytes, &header);
    if (shape >> 4 == 3) bytes[fuzz_byte(in)] ^= 1;
    current = number;
    segments[number] = (segment){.exists = true};
    append_bytes(bytes, sizeof bytes);
}

static dkv_log_at here(void) {
    return (dkv_log_at){STORE_ID, current, segments[current].end};
}

static uint32_t synced_upto(dkv_slice *in) {
    unsigned choice = fuzz_byte(in);
    if (choice < 200) return segments[current].end;
    if (choice < 240) return 0;
    lying = true;
    return (uint32_t)fuzz_number(in, choice < 250 ? 2 : 4);
}

static void place_record(const dkv_log_record *record) {
    static uint8_t bytes[65536];
    uint32_t len = dkv_log_length(record->record.key.len, record->record.value.len);
    FUZZ_TRACE("record at %u.%u: %u bytes, kind %d, key %.*s, hlc %" PRIu64 ", synced up to %u\n",
               current, segments[current].end, len, (int)record->kind, (int)record->record.key.len,
               (const char *)record->record.key.data, record->record.version.hlc,
               record->synced_upto);
    dkv_log_encode(bytes, here(), record);
    append_bytes(bytes, len);
}

static void place_write(dkv_slice *in) {
    char text[16];
    known *k = current ? new_write(in) : NULL;
    if (!k) return;
    k->sure = segments[current].end % 8 == 0;
    place_record(
        &(dkv_log_record){.kind = k->kind == DKV_KIND_VALUE ? DKV_LOG_VALUE : DKV_LOG_TOMBSTONE,
                          .synced_upto = synced_upto(in),
                          .record = record_of(k, text)});
}

/* The list of a PRESENT record, as it is. */
static size_t list_segments(uint8_t *list) {
    size_t len = 0;
    for (uint32_t number = 1; number <= SEGMENTS; number++) {
        if (!segments[number].exists) continue;
        dkv_put_le32(list + len, number);
        dkv_put_le32(list + len + 4, segments[number].end);
        len += DKV_LOG_PRESENT_BYTES;
    }
    return len;
}

static size_t list_anything(dkv_slice *in, uint8_t *list, size_t max) {
    size_t len = fuzz_below(in, (unsigned)max);
    lying = true;
    for (size_t i = 0; i < len; i++) list[i] = i % 4 < 2 ? fuzz_byte(in) : 0;
    return len;
}

static void place_control(dkv_slice *in) {
    uint8_t list[SEGMENTS * DKV_LOG_PRESENT_BYTES] = {0};
    if (!current) return;
    unsigned shape = fuzz_byte(in);
    size_t len = 4;
    if (shape < 160) {
        len = list_segments(list);
    } else if (shape < 200) {
        dkv_put_le32(list, 1 + shape % SEGMENTS);
    } else {
        len = list_anything(in, list, sizeof list);
    }
    place_record(
        &(dkv_log_record){.kind = shape < 160 || shape & 1 ? DKV_LOG_PRESENT : DKV_LOG_REMOVED,
                          .synced_upto = synced_upto(in),
                          .record = {.value = {list, len}}});
}

/* A record of a kind or with a flag that does not exist yet, valid otherwise. */
static void place_future_record(dkv_slice *in) {
    uint8_t bytes[64] = {0};
    if (!current) return;
    dkv_log_encode(bytes, here(), &(dkv_log_record){.record = {.key = dkv_slice_of("k")}});
    bytes[34] = fuzz_byte(in);
    bytes[35] = fuzz_byte(in);
    if (bytes[34] <= DKV_LOG_TOMBSTONE && bytes[35] == 0) return;
    FUZZ_TRACE("record of kind %u with flags %u\n", bytes[34], bytes[35]);
    uint64_t seed = STORE_ID ^ ((uint64_t)current << 32 | segments[current].end);
    dkv_put_le64(bytes, dkv_checksum((dkv_slice){bytes + 8, 33}, seed));
    append_bytes(bytes, 48);
}

static void place_garbage(dkv_slice *in) {
    if (!current) return;
    dkv_slice bytes = fuzz_slice(in, fuzz_byte(in));
    FUZZ_TRACE("garbage at %u.%u: %zu bytes\n", current, segments[current].end, bytes.len);
    append_bytes(bytes.data, bytes.len);
}

/* ---- the other files, with valid checksums ---- */

static void forge_meta(dkv_slice *in) {
    static uint8_t slot[DKV_META_STRIDE];
    memset(slot, 0, sizeof slot);
    unsigned shape = fuzz_byte(in);
    uint32_t facts_len = shape & 2 ? fuzz_byte(in) : (uint32_t)fuzz_number(in, 3);
    memcpy(slot, "dkv-meta", 8);
    dkv_put_le32(slot + 8, shape & 4 ? DKV_LOG_VERSION : fuzz_byte(in));
    dkv_put_le32(slot + 12, facts_len);
    dkv_put_le64(slot + 16, shape & 8 ? fuzz_byte(in) : fuzz_number(in, 8));
    dkv_put_le64(slot + 24, shape & 16 ? STORE_ID : fuzz_number(in, 8));
    lying |= !(shape & 16);
    dkv_put_le64(slot + 32, fuzz_byte(in) % 8);
    dkv_log_names_encode(slot + 40, &identity);
    if (!(shape & 32)) slot[40 + fuzz_byte(in) % DKV_LOG_NAMES_BYTES] = fuzz_byte(in);
    dkv_put_le32(slot + 170, shape & 64 ? fuzz_byte(in) % SEGMENTS : (uint32_t)fuzz_number(in, 4));
    dkv_put_le32(slot + 174, fuzz_byte(in) % 3);
    if (facts_len > DKV_META_STRIDE - DKV_META_HEADER_BYTES) facts_len = 0;
    dkv_slice facts = {slot + DKV_META_HEADER_BYTES, facts_len};
    uint64_t seed = dkv_checksum(facts, 2);
    dkv_put_le64(slot + 248, dkv_checksum((dkv_slice){slot, 248}, seed));
    FUZZ_TRACE("state file, slot %u, shape %u\n", shape & 1, shape);
    put_bytes((dkv_disk_file){.kind = DKV_FILE_META}, (shape & 1) * DKV_META_STRIDE, slot,
              sizeof slot);
}

static void forge_snapshot(dkv_slice *in) {
    uint8_t block[512] = {0};
    uint64_t tag = 1 + fuzz_below(in, 7);
    unsigned n_segments = fuzz_below(in, 4), n_entries = fuzz_below(in, 5);
    uint8_t *at = block + 12;
    memcpy(at, "dkv-snap", 8);
    dkv_put_le32(at + 8, DKV_LOG_VERSION);
    dkv_put_le32(at + 12, n_segments);
    dkv_put_le64(at + 16, n_entries);
    at += 24;
    for (unsigned i = 0; i < n_segments; i++, at += 8) {
        uint32_t number = 1 + fuzz_below(in, SEGMENTS);
        dkv_put_le32(at, number);
        dkv_put_le32(at + 4, fuzz_byte(in) & 1 ? segments[number].end : fuzz_byte(in));
    }
    for (unsigned i = 0; i < n_entries; i++, at += 40) {
        char text[16];
        dkv_key_hash hash = dkv_hash_key(key_of(fuzz_below(in, KEYS), text));
        dkv_put_le64(at, hash.token);
        dkv_put_le64(at + 8, hash.tag);
        dkv_put_le64(at + 16, fuzz_number(in, 2));
        dkv_put_le64(at + 24, 7);
        dkv_put_le64(at + 32, fuzz_number(in, 4) << (fuzz_byte(in) & 1 ? 18 : 0));
    }
    uint32_t len = (uint32_t)(at - block);
    dkv_put_le32(block + 8, len - 12);
    dkv_put_le64(block, dkv_checksum((dkv_slice){block + 8, len - 8}, tag));
    FUZZ_TRACE("snapshot, tag %" PRIu64 ": %u segments, %u entries\n", tag, n_segments, n_entries);
    put_bytes((dkv_disk_file){.kind = DKV_FILE_SNAPSHOT}, 0, block, len);
    lying = true;
}

/* ---- damage ---- */

static void damage(dkv_slice *in) {
    unsigned choice = fuzz_byte(in);
    dkv_disk_file file = segment_file(1 + choice % (SEGMENTS + 2));
    if (choice >= 192) file = (dkv_disk_file){.kind = DKV_FILE_META};
    if (choice >= 224) file = (dkv_disk_file){.kind = DKV_FILE_SNAPSHOT};
    uint32_t offset = (uint32_t)fuzz_number(in, 2) << (choice >= 192 ? 2 : 0);
    unsigned how = fuzz_below(in, 4);
    FUZZ_TRACE("damage %u to file %d.%u at %u\n", how, (int)file.kind, file.number, offset);
    segment *s =
        file.kind == DKV_FILE_SEGMENT && file.number <= SEGMENTS ? &segments[file.number] : NULL;
    if (how == 0) {
        dkv_sim_disk_flip(disk, file, offset, fuzz_below(in, 8));
    } else if (how == 1) {
        run_job(DKV_DISK_REMOVE, file, 0, NULL, 0);
        run_job(DKV_DISK_SYNC_DIR, file, 0, NULL, 0);
        if (s) *s = (segment){0};
        if (s && file.number == current) current = 0;
    } else if (how == 2) {
        run_job(DKV_DISK_TRUNCATE, file, offset, NULL, 0);
        run_job(DKV_DISK_SYNC, file, 0, NULL, 0);
        if (s && s->exists) s->end = offset;
    } else {
        dkv_slice bytes = fuzz_slice(in, fuzz_byte(in) % 64u);
        bool exists = !s || s->exists;
        if (exists) put_bytes(file, offset, bytes.data, bytes.len);
        if (s && exists && s->end < offset + bytes.len) s->end = offset + (uint32_t)bytes.len;
    }
    if (file.kind != DKV_FILE_META) nothing_is_sure();
}

/* ---- a store in use ---- */

static void check_read(const dkv_store_event *event) {
    if (event->err) {
        FUZZ_CHECK(event->err == DKV_ERR_DATA_LOSS);
        return;
    }
    const dkv_record *got = &event->record;
    char text[16];
    for (uint32_t i = 0; i < n_written; i++) {
        if (dkv_version_cmp(written[i].version, got->version) != 0) continue;
        dkv_record record = record_of(&written[i], text);
        FUZZ_CHECK(dkv_slice_eq(record.key, got->key) && dkv_slice_eq(record.value, got->value));
        FUZZ_CHECK(record.kind == got->kind);
        return;
    }
    FUZZ_CHECK(false); /* never written */
}

/* Performs what the store wants until it wants nothing more; returns how many writes are durable.
 */
static unsigned settle(void) {
    dkv_disk_job *job;
    dkv_store_event event;
    unsigned durable = 0, jobs = 0;
    while ((job = dkv_store_next_job(store))) {
        FUZZ_CHECK(jobs++ < 10000);
        dkv_sim_disk_run(disk, job);
        dkv_store_job_done(store, job);
        while (dkv_store_next_event(store, &event)) {
            FUZZ_CHECK(event.kind != DKV_STORE_FAILED);
            if (event.kind == DKV_STORE_READ) check_read(&event);
            if (event.kind == DKV_STORE_DAMAGED) damaged = true;
            durable += event.kind == DKV_STORE_DURABLE && event.err == DKV_OK;
        }
    }
    return durable;
}

static void read_everything(void) {
    dkv_key_hash from = {0}, hash;
    dkv_store_entry entry;
    while (dkv_store_next(store, from, &hash, &entry) == DKV_OK) {
        FUZZ_CHECK(dkv_store_read(store, (dkv_slice){0}, hash, 1) == DKV_OK);
        settle();
        if (hash.tag == UINT64_MAX && hash.token == UINT64_MAX) break;
        from = hash;
        if (++from.tag == 0) from.token++;
    }
}

static void check_nothing_is_missing(void) {
    char text[16];
    for (uint32_t i = 0; i < n_written; i++) {
        dkv_store_entry entry;
        if (!written[i].sure) continue;
        FUZZ_CHECK(dkv_store_peek(store, dkv_hash_key(key_of(written[i].key, text)), &entry) == 0);
        FUZZ_CHECK(dkv_version_cmp(entry.version, written[i].version) >= 0);
    }
}

static bool open_store(void) {
    report = (dkv_store_report){0};
    int err = dkv_store_open(&options, dkv_sim_disk_run, disk, &store, &report);
    FUZZ_TRACE(
        "open: %s, clean %d, %" PRIu64 " records, %" PRIu64 " torn bytes, %" PRIu64 " damaged\n",
        dkv_err_name(err), report.clean, report.records, report.torn_bytes, report.damaged_records);
    FUZZ_CHECK(err == DKV_OK || err == DKV_ERR_PROTOCOL || err == DKV_ERR_PRECONDITION ||
               err == DKV_ERR_DATA_LOSS || err == DKV_ERR_NO_SPACE);
    if (err) return false;
    if (!lying) check_nothing_is_missing();
    return true;
}

static void stop_store(unsigned how) {
    FUZZ_TRACE("stop %u\n", how);
    settle();
    if (how == 2) FUZZ_CHECK(dkv_store_close_clean(store, dkv_sim_disk_run, disk) == DKV_OK);
    dkv_store_del(store);
    store = NULL;
    if (how == 1) {
        dkv_sim_disk_power_cut(disk);
    } else {
        dkv_sim_disk_kill(disk);
    }
}

static bool write_one(known *k) {
    char text[16];
    dkv_record record = record_of(k, text);
    FUZZ_TRACE("write of key-%u, hlc %" PRIu64 "\n", k->key, k->version.hlc);
    int err = dkv_store_apply(store, &record, 1);
    FUZZ_CHECK(err == DKV_OK || err == DKV_ERR_NO_SPACE);
    return err == DKV_OK;
}

/* A run of the store: some writes, and a stop of some kind. Recovery may move every record. */
static void run_store(dkv_slice *in) {
    if (!open_store()) return;
    unsigned writes = fuzz_below(in, 32);
    for (unsigned i = 0; i < writes; i++) {
        known *k = new_write(in);
        if (!k) break;
        bool taken = write_one(k);
        if (fuzz_byte(in) & 1) settle();
        k->sure = taken;
    }
    stop_store(fuzz_below(in, 3));
    for (uint32_t number = 1; number <= SEGMENTS; number++) segments[number].exists = true;
    current = 0; /* what follows goes into no segment of the store */
}

/* ---- the end of it ---- */

static dkv_store_range all(void) {
    return dkv_store_digest(store, 0, UINT64_MAX);
}

static void check_reopens(unsigned how) {
    dkv_store_range before = all();
    stop_store(how);
    FUZZ_CHECK(open_store());
    FUZZ_CHECK(report.clean == (how == 2));
    read_everything();
    if (damaged) return;
    FUZZ_CHECK(all().records == before.records);
    FUZZ_CHECK(dkv_digest_eq(all().digest, before.digest));
}

static void check_directory(void) {
    if (!open_store()) {
        FUZZ_CHECK(!open_store()); /* nothing was mended half-way */
        return;
    }
    read_everything();
    known *last = &written[n_written++];
    *last = (known){.version = {UINT64_MAX >> 1, 9}, .value_len = 10};
    if (write_one(last) && settle() == 1) last->sure = true;
    check_reopens(0);
    check_reopens(2);
    stop_store(0);
}

static void step(dkv_slice *in) {
    switch (fuzz_below(in, 16)) {
    case 0:
    case 1: begin_segment(in); break;
    case 2:
    case 3:
    case 4:
    case 5: place_write(in); break;
    case 6: place_control(in); break;
    case 7: place_garbage(in); break;
    case 8: damage(in); break;
    case 9: forge_meta(in); break;
    case 10: forge_snapshot(in); break;
    case 11: place_future_record(in); break;
    default: run_store(in);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dkv_slice in = {data, size};
    n_written = current = 0;
    lying = damaged = false;
    memset(segments, 0, sizeof segments);
    FUZZ_CHECK(dkv_sim_disk_new(1, &disk) == DKV_OK);
    for (unsigned i = 0; i < STEPS_MAX && in.len > 0; i++) step(&in);
    if (n_written == KNOWN_MAX) n_written--; /* room for one more */
    check_directory();
    dkv_store_del(store);
    store = NULL;
    dkv_sim_disk_del(disk);
    return 0;
}

static void seeds(void) {
    fuzz_random_seeds(40);
}

FUZZ_TARGET
