/* The frame of the fuzz targets: FUZZ_CHECK, bytes taken from the input as numbers and slices, and
 * seeds. A target is an executable for libFuzzer; it has
 *
 *   int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
 *   static void seeds(void)      calls fuzz_seed for each input to begin with
 *   FUZZ_TARGET                  once, at the end
 *
 * and may be started as `fuzz_x --seeds DIRECTORY`, which only writes the seeds. With FUZZ_TRACE=1
 * in the environment, targets whose input is a program print its steps. */
#ifndef DKV_TESTS_FUZZ_H
#define DKV_TESTS_FUZZ_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rand.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Ends the process, which libFuzzer takes for a find, if `condition` does not hold. */
#define FUZZ_CHECK(condition)                                                              \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

/* printf to stderr, if FUZZ_TRACE is set. */
static bool fuzz_traced;
#define FUZZ_TRACE(...)                                \
    do {                                               \
        if (fuzz_traced) fprintf(stderr, __VA_ARGS__); \
    } while (0)

/* ---- the input, taken from the front; behind its end come zeros ---- */

static inline uint8_t fuzz_byte(dkv_slice *in) {
    if (in->len == 0) return 0;
    in->len--;
    return *in->data++;
}

static inline uint64_t fuzz_number(dkv_slice *in, unsigned bytes) {
    uint64_t number = 0;
    for (unsigned i = 0; i < bytes; i++) number |= (uint64_t)fuzz_byte(in) << (8 * i);
    return number;
}

/* 0 .. bound − 1, from one byte. */
static inline unsigned fuzz_below(dkv_slice *in, unsigned bound) {
    return fuzz_byte(in) % bound;
}

/* Up to `max` bytes. */
static inline dkv_slice fuzz_slice(dkv_slice *in, size_t max) {
    dkv_slice out = {in->data, in->len < max ? in->len : max};
    if (out.len) in->data += out.len;
    in->len -= out.len;
    return out;
}

/* ---- seeds ---- */

static const char *fuzz_seed_directory;
static unsigned fuzz_seeds_written;

static inline void fuzz_seed(dkv_slice bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/seed-%03u", fuzz_seed_directory, fuzz_seeds_written++);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes.data, 1, bytes.len, file) != bytes.len || fclose(file)) {
        perror(path);
        exit(1);
    }
}

/* `count` random inputs: for targets that take any bytes for a program. */
static inline void fuzz_random_seeds(unsigned count) {
    dkv_rand rand = {1};
    uint8_t bytes[600];
    for (unsigned i = 0; i < count; i++) {
        size_t len = 20 + dkv_rand_below(&rand, sizeof bytes - 20);
        for (size_t k = 0; k < len; k++) bytes[k] = (uint8_t)dkv_rand_next(&rand);
        fuzz_seed((dkv_slice){bytes, len});
    }
}

#define FUZZ_TARGET                                             \
    int LLVMFuzzerInitialize(int *argc, char ***argv) {         \
        fuzz_traced = getenv("FUZZ_TRACE") != NULL;             \
        if (*argc == 3 && strcmp((*argv)[1], "--seeds") == 0) { \
            fuzz_seed_directory = (*argv)[2];                   \
            seeds();                                            \
            exit(0);                                            \
        }                                                       \
        return 0;                                               \
    }

#endif
