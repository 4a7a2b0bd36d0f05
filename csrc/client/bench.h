/* Load for measurements: keeps a number of operations under way through one client, checks every
 * reply and counts how long each took. Or, if told so, does one operation after another and sleeps
 * until each is done, as the threads of a server do; then many such loads, each with a thread of
 * its own, share one client.
 *
 * The keys are "bench:00000000" and so on. A value begins with its key, as far as it is long
 * enough, followed by bytes that do not compress; a read is right if its length and that beginning
 * are. After a failed operation its place rests until the next call of dkv_bench_run, so that a
 * cluster that refuses everything at once is not asked in an endless loop. */
#ifndef DKV_CLIENT_BENCH_H
#define DKV_CLIENT_BENCH_H

#include "base/histogram.h"
#include "base/rand.h"
#include "client/client.h"

#define DKV_BENCH_KEYS_MAX UINT64_C(100000000)
#define DKV_BENCH_KEY_LEN 14u
#define DKV_BENCH_OUTSTANDING_MAX 16384u
#define DKV_BENCH_BYTES_MAX (256u << 20) /* of the values under way */
#define DKV_BENCH_ERRORS_MAX 32u

typedef struct dkv_bench_options {
    uint64_t keys;
    size_t value_len;
    uint32_t outstanding;
    bool blocking;     /* outstanding is 1, and whoever calls dkv_bench_run waits for it */
    double read_share; /* 0: writes only, 1: reads only */
    bool zipfian;      /* as base/zipf.h has it; else all keys equally often */
    uint64_t seed;
} dkv_bench_options;

typedef struct dkv_bench_stats {
    dkv_histogram reads_ns; /* of what succeeded and was right */
    dkv_histogram writes_ns;
    uint64_t done;                         /* everything that ended */
    uint64_t wrong;                        /* reads of another value than was written */
    uint64_t errors[DKV_BENCH_ERRORS_MAX]; /* by dkv_err, without its sign */
} dkv_bench_stats;

typedef struct dkv_bench dkv_bench;

/* The key of the number `index`: DKV_BENCH_KEY_LEN bytes. */
void dkv_bench_key(uint64_t index, uint8_t *key);

/* What stands behind the key in each value: `len` bytes that do not compress. */
void dkv_bench_filler(uint8_t *bytes, size_t len);

/* `client` is borrowed; others may use it, too. *out is owned by the caller. INVALID with a
 * sentence in `why` (DKV_DETAIL_MAX bytes), NO_MEMORY. */
int dkv_bench_new(const dkv_bench_options *options, dkv_client *client, dkv_bench **out, char *why);

/* Gives up what is under way. Accepts NULL. */
void dkv_bench_del(dkv_bench *bench);

/* Goes on writing all keys once, for `wait_ms` at most. *done tells whether all are written. What
 * is refused as BUSY is tried again; any other error ends it, with a sentence in `why`. */
int dkv_bench_fill(dkv_bench *bench, uint32_t wait_ms, bool *done, char *why);

/* Lets the load run for `wait_ms`. Afterwards operations are still under way. */
void dkv_bench_run(dkv_bench *bench, uint32_t wait_ms);

/* Starts nothing more; true when nothing is under way. */
bool dkv_bench_drain(dkv_bench *bench, uint32_t wait_ms);

/* What has ended since the last dkv_bench_reset. Borrows. */
const dkv_bench_stats *dkv_bench_result(const dkv_bench *bench);
void dkv_bench_reset(dkv_bench *bench);

#endif
