#include "client/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/zipf.h"

/* Where operations take place one after another. */
typedef struct slot {
    dkv_bench *bench;
    uint8_t key[DKV_BENCH_KEY_LEN];
    uint8_t *value; /* to be written */
    int64_t begun_ns;
    bool active;
    bool redo; /* filling: the same key again */
} slot;

typedef enum mode { FILLING, LOADING, DRAINING } mode;

struct dkv_bench {
    dkv_bench_options options;
    dkv_client *client;
    mode mode;
    dkv_rand rand;
    uint64_t n_filled;
    int err; /* of filling */
    char why[DKV_DETAIL_MAX];
    dkv_bench_stats stats;
    uint8_t *values;
    slot *slots;
    dkv_client_op ops[]; /* one for each slot */
};

/* ---- keys and values ------------------------------------------------------------------------ */

void dkv_bench_key(uint64_t index, uint8_t *key) {
    static const char name[] = "bench:";
    size_t i = DKV_BENCH_KEY_LEN;
    for (; i > sizeof name - 1; index /= 10) key[--i] = (uint8_t)('0' + index % 10);
    memcpy(key, name, i);
}

void dkv_bench_filler(uint8_t *bytes, size_t len) {
    dkv_rand rand = {1};
    for (size_t i = 0; i < len; i++) bytes[i] = (uint8_t)dkv_rand_next(&rand);
}

/* How much of a key stands in its value. */
static size_t mark_len(const dkv_bench *b) {
    return b->options.value_len < DKV_BENCH_KEY_LEN ? b->options.value_len : DKV_BENCH_KEY_LEN;
}

static bool is_right(const slot *s, const dkv_client_op *op) {
    size_t len = mark_len(s->bench);
    if (op->value_len != s->bench->options.value_len) return false;
    return len == 0 || memcmp(op->value, s->key, len) == 0;
}

/* ---- one operation -------------------------------------------------------------------------- */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void prepare(slot *s, dkv_client_op *op, bool is_read) {
    const dkv_bench *b = s->bench;
    dkv_request *request = &op->request;
    *request = (dkv_request){.key = {s->key, DKV_BENCH_KEY_LEN}};
    request->op = is_read ? DKV_OP_GET : DKV_OP_PUT;
    if (!is_read) {
        size_t len = mark_len(b);
        if (len) memcpy(s->value, s->key, len);
        request->value = (dkv_slice){s->value, b->options.value_len};
    }
    s->begun_ns = now_ns();
}

/* Fills in the next operation of `s`, if there is to be one. */
static bool prepare_next(slot *s, dkv_client_op *op) {
    dkv_bench *b = s->bench;
    switch (b->mode) {
    case DRAINING: return false;
    case FILLING:
        if (b->err || (!s->redo && b->n_filled == b->options.keys)) return false;
        if (!s->redo) dkv_bench_key(b->n_filled++, s->key);
        s->redo = false;
        prepare(s, op, false);
        return true;
    case LOADING: break;
    }
    uint64_t keys = b->options.keys;
    bool is_read = dkv_rand_unit(&b->rand) < b->options.read_share;
    uint64_t index =
        b->options.zipfian ? dkv_zipf_key(&b->rand, keys) : dkv_rand_below(&b->rand, keys);
    dkv_bench_key(index, s->key);
    prepare(s, op, is_read);
    return true;
}

static void count(const slot *s, const dkv_client_op *op) {
    dkv_bench_stats *stats = &s->bench->stats;
    bool is_read = op->request.op == DKV_OP_GET;
    stats->done++;
    if (op->err) {
        unsigned index = (unsigned)-op->err;
        stats->errors[index < DKV_BENCH_ERRORS_MAX ? index : 0]++;
    } else if (is_read && !is_right(s, op)) {
        stats->wrong++;
    } else {
        dkv_histogram *histogram = is_read ? &stats->reads_ns : &stats->writes_ns;
        dkv_histogram_add(histogram, (uint64_t)(now_ns() - s->begun_ns));
    }
}

static void note_filling(slot *s, const dkv_client_op *op) {
    dkv_bench *b = s->bench;
    s->redo = op->err == DKV_ERR_BUSY;
    if (!op->err || s->redo || b->err) return;
    b->err = op->err;
    memcpy(b->why, op->detail, sizeof b->why);
}

/* The operation has ended. */
static void take_in(slot *s, dkv_client_op *op) {
    count(s, op);
    if (s->bench->mode == FILLING) note_filling(s, op);
    free(op->value);
    op->value = NULL;
}

static bool follow(void *user, dkv_client_op *op) {
    slot *s = user;
    take_in(s, op);
    s->active = !op->err && prepare_next(s, op);
    return s->active;
}

/* ---- all operations ------------------------------------------------------------------------- */

/* Lets the places that rest go on. */
static void start_all(dkv_bench *b) {
    for (uint32_t i = 0; i < b->options.outstanding; i++) {
        slot *s = &b->slots[i];
        if (s->active || !prepare_next(s, &b->ops[i])) continue;
        s->active = true;
        if (dkv_client_start_series(b->client, &b->ops[i], follow, s)) s->active = false;
    }
}

static bool proceed(dkv_bench *b, mode m, uint32_t wait_ms) {
    b->mode = m;
    start_all(b);
    return dkv_client_wait(b->client, b->ops, b->options.outstanding, wait_ms);
}

static uint32_t left_ms(int64_t until_ns) {
    int64_t left_ns = until_ns - now_ns();
    return left_ns > 0 ? (uint32_t)(left_ns / 1000000) + 1 : 0;
}

/* The operation of a load that waits: starts it, if it is not under way, and waits for its end.
 * Returns whether it has ended, without an error. */
static bool run_one(dkv_bench *b, uint32_t wait_ms) {
    slot *s = &b->slots[0];
    dkv_client_op *op = &b->ops[0];
    bool done = false;
    if (s->active) {
        done = dkv_client_wait(b->client, op, 1, wait_ms);
    } else if (prepare_next(s, op)) {
        s->active = dkv_client_run(b->client, op, wait_ms, &done) == DKV_OK;
    }
    if (!done) return false;
    take_in(s, op);
    s->active = false;
    return !op->err;
}

static void run_blocking(dkv_bench *b, int64_t until_ns) {
    b->mode = LOADING;
    while (now_ns() < until_ns && run_one(b, left_ms(until_ns))) {
        /* One after the other. */
    }
}

static bool drain_blocking(dkv_bench *b, uint32_t wait_ms) {
    b->mode = DRAINING;
    (void)run_one(b, wait_ms);
    return !b->slots[0].active;
}

int dkv_bench_fill(dkv_bench *b, uint32_t wait_ms, bool *done, char *why) {
    bool rest = proceed(b, FILLING, wait_ms);
    if (b->err) {
        memcpy(why, b->why, sizeof b->why);
        return b->err;
    }
    *done = rest && b->n_filled == b->options.keys;
    for (uint32_t i = 0; i < b->options.outstanding; i++) *done = *done && !b->slots[i].redo;
    return DKV_OK;
}

void dkv_bench_run(dkv_bench *b, uint32_t wait_ms) {
    int64_t until_ns = now_ns() + (int64_t)wait_ms * 1000000;
    if (b->options.blocking) {
        run_blocking(b, until_ns);
    } else {
        (void)proceed(b, LOADING, wait_ms);
    }
    /* All places rest: every operation has failed. */
    int64_t left_ns = until_ns - now_ns();
    if (left_ns <= 0) return;
    struct timespec pause = {left_ns / 1000000000, left_ns % 1000000000};
    nanosleep(&pause, NULL);
}

bool dkv_bench_drain(dkv_bench *b, uint32_t wait_ms) {
    if (b->options.blocking) return drain_blocking(b, wait_ms);
    return proceed(b, DRAINING, wait_ms);
}

const dkv_bench_stats *dkv_bench_result(const dkv_bench *b) {
    return &b->stats;
}

void dkv_bench_reset(dkv_bench *b) {
    b->stats = (dkv_bench_stats){0};
}

/* ---- lifecycle ------------------------------------------------------------------------------ */

static int check_options(const dkv_bench_options *o, char *why) {
    if (o->keys < 1 || o->keys > DKV_BENCH_KEYS_MAX) {
        snprintf(why, DKV_DETAIL_MAX, "1 to %" PRIu64 " keys are possible", DKV_BENCH_KEYS_MAX);
    } else if (o->value_len > DKV_VALUE_MAX) {
        snprintf(why, DKV_DETAIL_MAX, "a value has at most %u bytes", DKV_VALUE_MAX);
    } else if (o->outstanding < 1 || o->outstanding > DKV_BENCH_OUTSTANDING_MAX) {
        snprintf(why, DKV_DETAIL_MAX, "1 to %u operations can be under way",
                 DKV_BENCH_OUTSTANDING_MAX);
    } else if (o->blocking && o->outstanding != 1) {
        snprintf(why, DKV_DETAIL_MAX, "a load that waits has one operation under way");
    } else if (o->value_len * o->outstanding > DKV_BENCH_BYTES_MAX) {
        snprintf(why, DKV_DETAIL_MAX, "the values under way may have %u MiB together",
                 DKV_BENCH_BYTES_MAX >> 20);
    } else if (!(o->read_share >= 0 && o->read_share <= 1)) {
        snprintf(why, DKV_DETAIL_MAX, "the share of reads is from 0 to 1");
    } else {
        return DKV_OK;
    }
    return DKV_ERR_INVALID;
}

static int make_slots(dkv_bench *b) {
    size_t len = b->options.value_len;
    size_t total = len * b->options.outstanding;
    b->values = malloc(total ? total : 1);
    b->slots = calloc(b->options.outstanding, sizeof *b->slots);
    if (!b->values || !b->slots) return DKV_ERR_NO_MEMORY;
    dkv_bench_filler(b->values, len);
    for (uint32_t i = 0; i < b->options.outstanding; i++) {
        b->slots[i].bench = b;
        b->slots[i].value = b->values + i * len;
        if (i > 0 && len > 0) memcpy(b->slots[i].value, b->values, len);
        b->ops[i].done = true; /* nothing to wait for */
    }
    return DKV_OK;
}

int dkv_bench_new(const dkv_bench_options *options, dkv_client *client, dkv_bench **out,
                  char *why) {
    int err = check_options(options, why);
    if (err) return err;
    dkv_bench *b = calloc(1, sizeof *b + options->outstanding * sizeof b->ops[0]);
    err = b ? DKV_OK : DKV_ERR_NO_MEMORY;
    if (!err) {
        b->options = *options;
        b->client = client;
        b->rand.state = options->seed;
        err = make_slots(b);
    }
    if (err) {
        snprintf(why, DKV_DETAIL_MAX, "%s", dkv_err_sentence(err));
        dkv_bench_del(b);
        return err;
    }
    *out = b;
    return DKV_OK;
}

void dkv_bench_del(dkv_bench *b) {
    if (!b) return;
    if (b->slots) dkv_client_abandon(b->client, b->ops, b->options.outstanding);
    for (uint32_t i = 0; i < b->options.outstanding; i++) free(b->ops[i].value);
    free(b->slots);
    free(b->values);
    free(b);
}
