/* The simulator in C, and with it the whole core under the sanitizers. */
#include "base/err.h"
#include "base/rand.h"
#include "check.h"
#include "sim/campaign.h"
#include "sim/queue.h"

/* Events leave the queue by time, and in the order of asking at one time. */
static void queue_keeps_order(void) {
    for (uint64_t run = 0; run < check_runs; run++) {
        dkv_rand rand = {check_seed + run};
        dkv_sim_queue queue = {0};
        dkv_sim_event last = {.time_ns = -1}, event;
        uint64_t pushed = 0, popped = 0;
        while (popped < 200) {
            bool push = pushed < 200 && dkv_rand_below(&rand, 3) > 0;
            unsigned far = (unsigned)dkv_rand_below(&rand, 36); /* up to a minute ahead */
            int64_t later = (int64_t)dkv_rand_below(&rand, UINT64_C(4) << far);
            int64_t now = last.time_ns < 0 ? 0 : last.time_ns;
            if (push) {
                event = (dkv_sim_event){.time_ns = now + later, .id = pushed++};
                CHECK(dkv_sim_queue_push(&queue, event) == DKV_OK);
            } else if (dkv_sim_queue_next(&queue) != INT64_MAX) {
                CHECK(dkv_sim_queue_pop(&queue, &event));
                CHECK(event.time_ns > last.time_ns ||
                      (event.time_ns == last.time_ns && event.id > last.id));
                last = event;
                popped++;
            }
        }
        CHECK(!dkv_sim_queue_pop(&queue, &event));
        dkv_sim_queue_free(&queue);
    }
}

/* One seed gives one course of events, another seed another. */
static void seed_decides_everything(void) {
    dkv_campaign_options options = {.faults = DKV_FAULTS_ALL};
    dkv_campaign_report first, again, other;
    CHECK(dkv_sim_campaign(check_seed, &options, &first, NULL) == DKV_OK);
    CHECK(dkv_sim_campaign(check_seed, &options, &again, NULL) == DKV_OK);
    CHECK(dkv_sim_campaign(check_seed + 1, &options, &other, NULL) == DKV_OK);
    CHECK(first.trace_hash == again.trace_hash && first.events == again.events);
    CHECK(first.trace_hash != other.trace_hash);
}

/* Random clusters under random work and random faults keep every promise of sim/check.h. */
static void campaigns_keep_all_promises(void) {
    uint64_t first = check_seed, runs = check_runs;
    dkv_campaign_options options = {.faults = DKV_FAULTS_ALL};
    for (uint64_t seed = first; seed < first + runs; seed++) {
        dkv_campaign_report report;
        CHECK(dkv_sim_campaign(seed, &options, &report, NULL) == DKV_OK);
        if (report.ok) continue;
        printf("%s: %s\n", dkv_rule_name(report.violation.rule), report.violation.text);
        check_seed = seed; /* what the replay command is to name */
        check_runs = 1;
        CHECK(report.ok);
    }
}

static const check_test tests[] = {
    CHECK_TEST(queue_keeps_order),
    CHECK_TEST(seed_decides_everything),
    CHECK_TEST(campaigns_keep_all_promises),
};

CHECK_MAIN(tests)
