/* The lowest floor: bytes, hashes, random numbers, map, timers; and the clock of model/hlc.h. */
#include "base/bytes.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/p99.h"
#include "base/rand.h"
#include "base/text.h"
#include "base/timers.h"
#include "check.h"
#include "model/hlc.h"

/* Every code has a name and a sentence of its own; a number outside the table has neither. */
static void errors_have_names(void) {
    for (int err = 0; err >= -18; err--) {
        CHECK(strcmp(dkv_err_name(err), "?") != 0);
        for (int other = 0; other > err; other--) {
            CHECK(strcmp(dkv_err_name(err), dkv_err_name(other)) != 0);
            CHECK(strcmp(dkv_err_sentence(err), dkv_err_sentence(other)) != 0);
        }
    }
    CHECK(strcmp(dkv_err_name(-19), "?") == 0 && strcmp(dkv_err_name(1), "?") == 0);
}

/* A buffer keeps what was appended, across growth. */
static void buffer_grows(void) {
    dkv_buf buf = {0};
    for (unsigned i = 0; i < 10000; i++) {
        uint8_t byte = (uint8_t)(i * 7);
        CHECK(dkv_buf_append(&buf, (dkv_slice){&byte, 1}) == DKV_OK);
    }
    CHECK(buf.len == 10000);
    for (unsigned i = 0; i < 10000; i++) CHECK(buf.data[i] == (uint8_t)(i * 7));
    CHECK(dkv_buf_reserve(&buf, SIZE_MAX - 20000) == DKV_ERR_NO_MEMORY);
    CHECK(buf.len == 10000);
    dkv_buf_free(&buf);
    CHECK(buf.data == NULL && buf.len == 0);
}

/* Integers survive the way through bytes, and the byte order is the documented one. */
static void integers_round_trip(void) {
    uint8_t bytes[8];
    dkv_put_le64(bytes, UINT64_C(0x0102030405060708));
    CHECK(bytes[0] == 8 && bytes[7] == 1);
    CHECK(dkv_le64(bytes) == UINT64_C(0x0102030405060708));
    CHECK(dkv_be64(bytes) == UINT64_C(0x0807060504030201));
    dkv_put_le32(bytes, 0xDEADBEEF);
    CHECK(dkv_le32(bytes) == 0xDEADBEEF && bytes[0] == 0xEF);
    dkv_put_le16(bytes, 0xBEEF);
    CHECK(dkv_le16(bytes) == 0xBEEF && bytes[0] == 0xEF);
}

/* SHA-256("abc") from FIPS 180-4's example: BA7816BF 8F01CFEA 414140DE 5DAE2223 ... */
static void key_hash_is_sha256(void) {
    dkv_key_hash hash = dkv_hash_key(dkv_slice_of("abc"));
    CHECK(hash.token == UINT64_C(0xBA7816BF8F01CFEA));
    CHECK(hash.tag == UINT64_C(0x414140DE5DAE2223));
}

/* A digest does not depend on the order of its items, and taking all away leaves nothing. */
static void digest_is_a_set_sum(void) {
    dkv_rand rand = {check_seed};
    dkv_digest items[200], there = {0}, back = {0};
    for (int i = 0; i < 200; i++) {
        uint64_t value = dkv_rand_next(&rand);
        items[i] = dkv_digest_of((dkv_slice){(uint8_t *)&value, sizeof value}, 1);
        dkv_digest_add(&there, items[i]);
    }
    for (int i = 199; i >= 0; i--) dkv_digest_add(&back, items[i]);
    CHECK(dkv_digest_eq(there, back));
    for (int i = 0; i < 200; i++) dkv_digest_sub(&there, items[i]);
    CHECK(dkv_digest_eq(there, (dkv_digest){0}));
}

/* The same seed gives the same numbers, another seed others; bounds hold. */
static void random_is_seeded(void) {
    dkv_rand a = {42}, b = {42}, c = {43};
    unsigned differ = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = dkv_rand_next(&a);
        CHECK(x == dkv_rand_next(&b));
        differ += x != dkv_rand_next(&c);
        CHECK(dkv_rand_below(&a, 10) == dkv_rand_below(&b, 10));
        CHECK(dkv_rand_below(&c, 7) < 7);
        double unit = dkv_rand_unit(&c);
        CHECK(unit >= 0 && unit < 1);
    }
    CHECK(differ == 1000);
    CHECK(dkv_rand_below(&a, 0) == 0);
}

/* The map agrees with a plain array under random inserts, replacements and removals. */
static void map_agrees_with_model(void) {
    enum { KEYS = 257 };
    static char values[2][KEYS];
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed + run};
        dkv_map map = {0};
        void *model[KEYS] = {0};
        size_t len = 0;
        for (int step = 0; step < 3000; step++) {
            uint64_t k = dkv_rand_below(&rand, KEYS);
            uint64_t key = k * (run % 2 ? 1 : UINT64_C(0x100000000)); /* also keys that collide */
            if (dkv_rand_below(&rand, 3)) {
                void *value = &values[dkv_rand_below(&rand, 2)][k];
                len += !model[k];
                model[k] = value;
                CHECK(dkv_map_set(&map, key, value) == DKV_OK);
            } else {
                len -= model[k] != NULL;
                CHECK(dkv_map_remove(&map, key) == model[k]);
                model[k] = NULL;
            }
            CHECK(map.len == len);
            uint64_t other = dkv_rand_below(&rand, KEYS);
            uint64_t other_key = other * (run % 2 ? 1 : UINT64_C(0x100000000));
            CHECK(dkv_map_get(&map, other_key) == model[other]);
        }
        dkv_map_free(&map);
    }
}

/* Timers come out in order of their times, however they were set, moved and cancelled. */
static void timers_fire_in_order(void) {
    enum { TIMERS = 100 };
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed + run};
        dkv_timers timers = {0};
        dkv_timer all[TIMERS] = {0};
        for (int step = 0; step < 1000; step++) {
            dkv_timer *timer = &all[dkv_rand_below(&rand, TIMERS)];
            if (dkv_rand_below(&rand, 4) == 0) {
                dkv_timers_cancel(&timers, timer);
                CHECK(!timer->place);
            } else {
                CHECK(!dkv_timers_set(&timers, timer, (int64_t)dkv_rand_below(&rand, 500)));
            }
            int64_t least = INT64_MAX;
            for (int i = 0; i < TIMERS; i++) {
                if (all[i].place && all[i].at_ns < least) least = all[i].at_ns;
            }
            CHECK(dkv_timers_next(&timers) == least);
        }
        size_t left = timers.len;
        int64_t last = INT64_MIN;
        CHECK(!dkv_timers_pop(&timers, -1));
        for (dkv_timer *timer; (timer = dkv_timers_pop(&timers, INT64_MAX)); left--) {
            CHECK(timer->at_ns >= last && !timer->place);
            last = timer->at_ns;
        }
        CHECK(left == 0);
        dkv_timers_free(&timers);
    }
}

/* A clock never repeats, is later than what it was shown, and is not dragged beyond the drift. */
static void clock_moves_forward_but_not_away(void) {
    dkv_clock clock = {0};
    uint64_t wall_ms = 1000000;
    dkv_hlc first = dkv_clock_issue(&clock, wall_ms, 0);
    dkv_hlc second = dkv_clock_issue(&clock, wall_ms - 400, 0); /* the wall clock went back */
    CHECK(second > first && dkv_hlc_ms(second) == wall_ms);
    dkv_hlc far = dkv_hlc_of_ms(wall_ms + 3600000);
    CHECK(dkv_clock_issue(&clock, wall_ms, far) == far + 1);
    CHECK(dkv_hlc_ms(clock.last) <= wall_ms + DKV_DRIFT_MAX_MS);
    dkv_clock_observe(&clock, wall_ms, far);
    CHECK(dkv_hlc_ms(clock.last) <= wall_ms + DKV_DRIFT_MAX_MS);
    dkv_hlc last = 0;
    for (int i = 0; i < 200000; i++) { /* more than the counter holds within one millisecond */
        dkv_hlc next = dkv_clock_issue(&clock, wall_ms, 0);
        CHECK(next > last);
        last = next;
    }
}

static int compare_hlc(const void *left, const void *right) {
    dkv_hlc a = *(const dkv_hlc *)left, b = *(const dkv_hlc *)right;
    return (a > b) - (a < b);
}

/* No time is issued twice, also when keys have versions far ahead and the wall clock catches up. */
static void clock_never_repeats(void) {
    enum { ISSUED = 2000 };
    static dkv_hlc issued[ISSUED];
    dkv_rand rand = {check_seed};
    dkv_clock clock = {0};
    uint64_t wall_ms = 1000000;
    for (int i = 0; i < ISSUED; i++) {
        wall_ms += dkv_rand_below(&rand, 4) - 1;
        dkv_hlc after = 0;
        if (i > 0 && dkv_rand_below(&rand, 2)) after = issued[dkv_rand_below(&rand, (uint64_t)i)];
        if (dkv_rand_below(&rand, 50) == 0) after = dkv_hlc_of_ms(wall_ms + 1000);
        issued[i] = dkv_clock_issue(&clock, wall_ms, after);
        CHECK(issued[i] > after);
    }
    qsort(issued, ISSUED, sizeof *issued, compare_hlc);
    for (int i = 1; i < ISSUED; i++) CHECK(issued[i] != issued[i - 1]);
}

/* Counts have commas between their thousands. */
static void counts_can_be_read(void) {
    char text[DKV_COUNT_TEXT];
    CHECK(strcmp(dkv_count_text(0, text), "0") == 0);
    CHECK(strcmp(dkv_count_text(999, text), "999") == 0);
    CHECK(strcmp(dkv_count_text(1048576, text), "1,048,576") == 0);
    CHECK(strcmp(dkv_count_text(UINT64_MAX, text), "18,446,744,073,709,551,615") == 0);
}

/* A list has whole items only; it says how many have no room. */
static void lists_are_never_cut(void) {
    char text[64];
    dkv_phrases list;
    dkv_phrases_init(&list, text, sizeof text, "; ");
    CHECK(strcmp(text, "") == 0);
    dkv_phrases_add(&list, "n1: refused");
    dkv_phrases_add(&list, "n2: silent");
    CHECK(strcmp(text, "n1: refused; n2: silent") == 0);
    dkv_phrases_add(&list, "n3: something that has no room");
    CHECK(strcmp(text, "n1: refused; n2: silent; … and 1 more") == 0);
    for (int i = 0; i < 9; i++) dkv_phrases_add(&list, "n4");
    CHECK(strcmp(text, "n1: refused; n2: silent; … and 10 more") == 0);
    CHECK(strlen(text) < sizeof text);
}

/* A single item that is too long ends after a whole word, or after a whole character. */
static void long_items_end_after_a_word(void) {
    char text[64];
    dkv_phrases list;
    dkv_phrases_init(&list, text, sizeof text, "; ");
    dkv_phrases_add(&list, "n1: this sentence has many words, for which there is no room");
    CHECK(strcmp(text, "n1: this sentence has many…") == 0);
    dkv_phrases_add(&list, "n2");
    CHECK(strstr(text, "…; … and 1 more"));
    dkv_phrases_init(&list, text, sizeof text, "; ");
    dkv_phrases_add(&list, "aüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü");
    CHECK(strcmp(text, "aüüüüüüüüüüüüüüü…") == 0);
}

/* A number that one in a hundred of the others exceeds, of any distribution. */
static uint64_t skewed(dkv_rand *rand, uint64_t scale) {
    double u = dkv_rand_unit(rand);
    return (uint64_t)((double)scale / (1.0 - 0.999 * u)); /* some are a thousand times as large */
}

static unsigned count_above(dkv_p99 *p99, dkv_rand *rand, unsigned n, uint64_t scale) {
    unsigned above = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t number = skewed(rand, scale);
        above += number > p99->value;
        dkv_p99_add(p99, number);
    }
    return above;
}

/* About one number in a hundred is above the estimate, whatever the scale and the first guess. */
static void p99_is_exceeded_by_one_in_a_hundred(void) {
    static const uint64_t guesses[] = {0, 1000, 40000000};
    for (size_t i = 0; i < sizeof guesses / sizeof *guesses; i++) {
        dkv_p99 p99 = {guesses[i]};
        dkv_rand rand = {check_seed + i};
        count_above(&p99, &rand, 10000, 100000);
        unsigned above = count_above(&p99, &rand, 100000, 100000);
        CHECK(above > 700 && above < 1600);
    }
}

/* It follows numbers that become larger or smaller, and is never larger than the largest. */
static void p99_follows(void) {
    dkv_p99 p99 = {40000000};
    for (int i = 0; i < 3000; i++) dkv_p99_add(&p99, 100000);
    CHECK(p99.value > 90000 && p99.value <= 100000);
    for (int i = 0; i < 30; i++) dkv_p99_add(&p99, 20000000);
    CHECK(p99.value == 20000000);
    for (int i = 0; i < 3000; i++) dkv_p99_add(&p99, 100000);
    CHECK(p99.value > 90000 && p99.value <= 100000);
}

static const check_test tests[] = {
    CHECK_TEST(errors_have_names),
    CHECK_TEST(buffer_grows),
    CHECK_TEST(integers_round_trip),
    CHECK_TEST(key_hash_is_sha256),
    CHECK_TEST(digest_is_a_set_sum),
    CHECK_TEST(random_is_seeded),
    CHECK_TEST(map_agrees_with_model),
    CHECK_TEST(timers_fire_in_order),
    CHECK_TEST(clock_moves_forward_but_not_away),
    CHECK_TEST(clock_never_repeats),
    CHECK_TEST(counts_can_be_read),
    CHECK_TEST(lists_are_never_cut),
    CHECK_TEST(long_items_end_after_a_word),
    CHECK_TEST(p99_is_exceeded_by_one_in_a_hundred),
    CHECK_TEST(p99_follows),
};

CHECK_MAIN(tests)
