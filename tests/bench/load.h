/* What the load generators for other stores share: arguments, keys and values, the clock, and what
 * they print. They do to a peer what csrc/client/bench.c does to dkv: the same keys and values, the
 * same number of operations under way, every reply checked.
 *
 *   X_load PROTOCOL fill|put|get ADDRESS,... SIZE KEYS CONNECTIONS DEPTH WARMUP SECONDS
 *
 * Prints "measuring" when the warm-up is over, and at the end one line of JSON. Both are cues for
 * whoever reads the CPU time of the servers. */
#ifndef DKV_TESTS_LOAD_H
#define DKV_TESTS_LOAD_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/bench.h"

#define LOAD_SERVERS_MAX 3u
#define LOAD_CONNECTIONS_MAX 1024u
#define LOAD_DEPTH_MAX 4096u /* operations under way on one connection */

typedef enum load_kind { LOAD_FILL, LOAD_PUT, LOAD_GET } load_kind;
typedef enum load_phase { LOAD_WARMING, LOAD_MEASURING, LOAD_OVER } load_phase;

typedef struct load {
    const char *protocol;
    load_kind kind;
    char *servers[LOAD_SERVERS_MAX]; /* "host:port" */
    unsigned n_servers;
    size_t size;
    uint64_t keys;
    unsigned connections;
    unsigned depth;
    double warmup_s;
    double seconds;

    load_phase phase;
    int64_t phase_ends_ns;
    int64_t measured_ns; /* when measuring began, then how long it took */
    int64_t cpu_ns;
    uint64_t n_filled;
    dkv_rand rand;
    uint8_t *value;
    dkv_histogram times_ns;
    uint64_t done;
} load;

static inline void load_fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static inline int64_t load_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t load_cpu(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

/* The key of the next operation; false: there is none. */
static inline bool load_next(load *l, uint64_t *index) {
    if (l->phase == LOAD_OVER) return false;
    if (l->kind != LOAD_FILL) {
        *index = dkv_rand_below(&l->rand, l->keys);
        return true;
    }
    *index = l->n_filled;
    return l->n_filled++ < l->keys;
}

/* Value of the key `index`; borrows until the next call. */
static inline dkv_slice load_value(load *l, uint64_t index) {
    uint8_t key[DKV_BENCH_KEY_LEN];
    dkv_bench_key(index, key);
    memcpy(l->value, key, l->size < sizeof key ? l->size : sizeof key);
    return (dkv_slice){l->value, l->size};
}

static inline void load_check(const load *l, uint64_t index, dkv_slice value) {
    uint8_t key[DKV_BENCH_KEY_LEN];
    dkv_bench_key(index, key);
    if (value.len == l->size &&
        memcmp(value.data, key, l->size < sizeof key ? l->size : sizeof key) == 0) {
        return;
    }
    load_fail(l->protocol, "a read brought another value than was written");
}

static inline void load_ended(load *l, int64_t begun_ns) {
    l->done++;
    if (l->phase == LOAD_MEASURING) {
        dkv_histogram_add(&l->times_ns, (uint64_t)(load_now() - begun_ns));
    }
    if (l->kind == LOAD_FILL && l->done == l->keys) l->phase = LOAD_OVER;
}

static inline void load_print(const load *l) {
    const char *comma = "";
    printf("{\"seconds\": %.6f, \"cpu_s\": %.6f, \"times_ns\": {", (double)l->measured_ns / 1e9,
           (double)l->cpu_ns / 1e9);
    for (size_t i = 0; i < DKV_HISTOGRAM_BUCKETS; i++) {
        if (l->times_ns.counts[i] == 0) continue;
        printf("%s\"%" PRIu64 "\": %" PRIu64, comma, dkv_histogram_value(i), l->times_ns.counts[i]);
        comma = ", ";
    }
    printf("}}\n");
}

/* Looks at the clock. Call it after each round of events. */
static inline void load_tick(load *l) {
    int64_t now_ns = load_now();
    if (l->kind == LOAD_FILL || l->phase == LOAD_OVER || now_ns < l->phase_ends_ns) return;
    if (l->phase == LOAD_WARMING) {
        puts("measuring");
        fflush(stdout);
        l->phase = LOAD_MEASURING;
        l->measured_ns = load_now();
        l->cpu_ns = load_cpu();
        l->phase_ends_ns = l->measured_ns + (int64_t)(l->seconds * 1e9);
    } else {
        l->cpu_ns = load_cpu() - l->cpu_ns;
        l->measured_ns = load_now() - l->measured_ns;
        l->phase = LOAD_OVER;
        load_print(l);
    }
}

static inline void load_parse(load *l, int argc, char **argv) {
    if (argc != 10) {
        load_fail(argv[0],
                  "PROTOCOL fill|put|get ADDRESS,... SIZE KEYS CONNECTIONS DEPTH WARMUP SECONDS");
    }
    *l = (load){.protocol = argv[1]};
    l->kind = strcmp(argv[2], "fill") == 0  ? LOAD_FILL
              : strcmp(argv[2], "put") == 0 ? LOAD_PUT
                                            : LOAD_GET;
    for (char *server = strtok(argv[3], ","); server; server = strtok(NULL, ",")) {
        if (l->n_servers == LOAD_SERVERS_MAX) load_fail(server, "too many servers");
        l->servers[l->n_servers++] = server;
    }
    l->size = strtoul(argv[4], NULL, 10);
    l->keys = strtoul(argv[5], NULL, 10);
    l->connections = (unsigned)strtoul(argv[6], NULL, 10);
    l->depth = (unsigned)strtoul(argv[7], NULL, 10);
    l->warmup_s = strtod(argv[8], NULL);
    l->seconds = strtod(argv[9], NULL);
    if (!l->n_servers || !l->keys || !l->connections || l->connections > LOAD_CONNECTIONS_MAX ||
        !l->depth || l->depth > LOAD_DEPTH_MAX) {
        load_fail(argv[0], "a number is out of range");
    }
    l->rand.state = 1;
    l->value = malloc(l->size + 1);
    if (!l->value) load_fail(argv[0], "no memory");
    dkv_bench_filler(l->value, l->size);
    l->phase_ends_ns = load_now() + (int64_t)(l->warmup_s * 1e9);
}

#endif
