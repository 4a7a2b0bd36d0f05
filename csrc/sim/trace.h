/* What happened in a simulated world: a running hash over every event, and, if wanted, the events
 * themselves as typed entries. Two runs of one seed have equal hashes; the first entry in which two
 * runs differ shows where one of them depends on something else than its seed. */
#ifndef DKV_SIM_TRACE_H
#define DKV_SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DKV_TRACE_MAX 1048576u  /* entries kept; the oldest make room */
#define DKV_TRACE_TEXT_MAX 640u /* bytes of one entry's words, NUL included */

/* X(NAME, "name"). */
#define DKV_TRACE_MAP(X)              \
    X(START, "start")                 \
    X(CRASH, "crash")                 \
    X(POWER_CUT, "power_cut")         \
    X(PAUSE, "pause")                 \
    X(RESUME, "resume")               \
    X(WIPE, "wipe")                   \
    X(FLIP, "flip")                   \
    X(UNREADABLE, "unreadable")       \
    X(LOSE_FILE, "lose_file")         \
    X(DECLARE_LOST, "declare_lost")   \
    X(CAPACITY, "capacity")           \
    X(SLOW_DISK, "slow_disk")         \
    X(SYNC_ERROR, "sync_error")       \
    X(READ_ERROR, "read_error")       \
    X(SKEW, "skew")                   \
    X(PARTITION, "partition")         \
    X(SLOW_LINK, "slow_link")         \
    X(HEAL, "heal")                   \
    X(FATAL, "fatal")                 \
    X(LOG, "log")                     \
    X(TICK, "tick")                   \
    X(CONNECT, "connect")             \
    X(LINK_OPENED, "link_opened")     \
    X(LINK_ACCEPTED, "link_accepted") \
    X(LINK_CLOSED, "link_closed")     \
    X(LINK_BROKEN, "link_broken")     \
    X(MESSAGE, "message")             \
    X(DISK, "disk")                   \
    X(INVOKE, "invoke")               \
    X(REQUEST, "request")             \
    X(REPLY, "reply")                 \
    X(RESULT, "result")

typedef enum dkv_trace_kind {
#define DKV_TRACE_ENUM(name, text) DKV_TRACE_##name,
    DKV_TRACE_MAP(DKV_TRACE_ENUM)
#undef DKV_TRACE_ENUM
} dkv_trace_kind;

#define DKV_TRACE_NOBODY UINT16_MAX

typedef struct dkv_trace_entry {
    int64_t time_ns;
    uint16_t node; /* DKV_TRACE_NOBODY: not at a node */
    uint16_t peer; /* DKV_TRACE_NOBODY: no other node concerned */
    uint32_t kind; /* dkv_trace_kind */
    uint64_t a, b; /* what tells this event from others of its kind; only for the hash */
    char *text;    /* the event in words, without time, node and kind; owned by the trace */
} dkv_trace_entry;

/* All zero is a valid empty trace that keeps no entries. */
typedef struct dkv_trace {
    bool keep;
    uint64_t hash;
    uint64_t added; /* entries ever kept; the last DKV_TRACE_MAX of them are there */
    dkv_trace_entry *entries;
    size_t cap;
} dkv_trace;

/* Takes an event into the hash and, if entries are kept, keeps it with the words of `format` (a
 * TICK goes into the hash only). entry->text is not used. Without memory it is not kept. */
void dkv_trace_add(dkv_trace *trace, const dkv_trace_entry *entry, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Number of the oldest entry that is still there; those from it up to `added` can be read. */
uint64_t dkv_trace_first(const dkv_trace *trace);

/* Borrows until the next entry is added. */
const dkv_trace_entry *dkv_trace_at(const dkv_trace *trace, uint64_t number);

const char *dkv_trace_kind_name(dkv_trace_kind kind);

/* Accepts NULL. */
void dkv_trace_free(dkv_trace *trace);

#endif
