/* The frame of the C tests: CHECK, a table of tests, and the options they share.
 *
 *   static void wraps_around(void) { CHECK(1 + 1 == 2); }
 *   static const check_test tests[] = {CHECK_TEST(wraps_around)};
 *   CHECK_MAIN(tests)
 *
 * Usage: test_x [--seed N] [--runs N] [name]... Prints one line per test and exits with 1 if one
 * failed. Randomised tests draw from `check_seed` and repeat `check_runs` times. */
#ifndef DKV_TESTS_CHECK_H
#define DKV_TESTS_CHECK_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct check_test {
    const char *name;
    void (*run)(void);
} check_test;

static uint64_t check_seed = 1;
static uint64_t check_runs = 100;
static jmp_buf check_failed;
static char check_why[512];

/* Ends the running test, from whatever depth of calls, if `condition` does not hold. */
#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            snprintf(check_why, sizeof check_why, "%s:%d: %s", __FILE__, __LINE__, #condition); \
            longjmp(check_failed, 1);                                                           \
        }                                                                                       \
    } while (0)

#define CHECK_TEST(function) \
    { #function, function }

static inline bool check_run(const check_test *test, const char *program) {
    if (setjmp(check_failed)) {
        printf("FAILED %s: %s; replay: %s --seed %" PRIu64 " --runs %" PRIu64 " %s\n", test->name,
               check_why, program, check_seed, check_runs, test->name);
        return false;
    }
    test->run();
    printf("ok %s\n", test->name);
    return true;
}

static inline bool check_is_chosen(const char *name, int n_names, char **names) {
    for (int i = 0; i < n_names; i++) {
        if (strcmp(names[i], name) == 0) return true;
    }
    return n_names == 0;
}

static inline int check_main(const check_test *tests, size_t n_tests, int argc, char **argv) {
    int at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        uint64_t *option = strcmp(argv[at], "--seed") == 0   ? &check_seed
                           : strcmp(argv[at], "--runs") == 0 ? &check_runs
                                                             : NULL;
        if (!option) {
            fprintf(stderr, "usage: %s [--seed N] [--runs N] [test]...\n", argv[0]);
            return 2;
        }
        *option = strtoull(argv[at + 1], NULL, 10);
    }
    size_t run = 0;
    size_t failed = 0;
    for (size_t i = 0; i < n_tests; i++) {
        if (!check_is_chosen(tests[i].name, argc - at, argv + at)) continue;
        run++;
        failed += !check_run(&tests[i], argv[0]);
        fflush(stdout);
    }
    if (run == 0) fprintf(stderr, "%s: no test of that name\n", argv[0]);
    return failed || run == 0 ? 1 : 0;
}

#define CHECK_MAIN(tests)                                                      \
    int main(int argc, char **argv) {                                          \
        return check_main(tests, sizeof(tests) / sizeof *(tests), argc, argv); \
    }

#endif
