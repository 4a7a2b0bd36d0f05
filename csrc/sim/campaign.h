/* Campaigns: a random cluster, a random durability, a random workload and random faults from one
 * seed, checked by the rules of sim/check.h. The course of one campaign:
 *   1. clients read and write few keys while nodes crash, lose power, stall, lose sight of each
 *      other, have slow links, wrong clocks, and slow, full, failing or rotting disks, and while an
 *      operator gives up the data of nodes whose disk is gone;
 *   2. all faults end, rotting disks rot once more, and every node scrubs its whole log until
 *      replicas are identical: whatever they hold is read and compared;
 *   3. every machine loses power at once, and every disk is checked; all start again;
 *   4. every key is read and written at level all, the whole history is checked, and 3 once more.
 */
#ifndef DKV_SIM_CAMPAIGN_H
#define DKV_SIM_CAMPAIGN_H

#include "sim/check.h"

/* X(NAME, "name"): what can go wrong on purpose. From FLIP on a disk loses what it confirmed. */
#define DKV_FAULT_MAP(X)        \
    X(CRASH, "crash")           \
    X(POWER_CUT, "power_cut")   \
    X(BLACKOUT, "blackout")     \
    X(STOP, "stop")             \
    X(PAUSE, "pause")           \
    X(PARTITION, "partition")   \
    X(ONE_WAY, "one_way")       \
    X(SLOW_LINK, "slow_link")   \
    X(BREAK, "break")           \
    X(DATAGRAM, "datagram")     \
    X(SKEW, "skew")             \
    X(SLOW_DISK, "slow_disk")   \
    X(CAPACITY, "capacity")     \
    X(SYNC_ERROR, "sync_error") \
    X(READ_ERROR, "read_error") \
    X(FLIP, "flip")             \
    X(UNREADABLE, "unreadable") \
    X(LOSE_FILE, "lose_file")   \
    X(WIPE, "wipe")             \
    X(DECLARE_LOST, "declare_lost")

typedef enum dkv_fault {
#define DKV_FAULT_ENUM(name, text) DKV_FAULT_##name,
    DKV_FAULT_MAP(DKV_FAULT_ENUM)
#undef DKV_FAULT_ENUM
        DKV_FAULTS
} dkv_fault;

const char *dkv_fault_name(dkv_fault fault);

#define DKV_FAULTS_ALL ((1u << DKV_FAULTS) - 1)

typedef struct dkv_campaign_options {
    uint32_t faults; /* 1 << dkv_fault each: a seed chooses among these only */
    bool keep_trace;
} dkv_campaign_options;

typedef struct dkv_campaign_report {
    bool ok;
    dkv_violation violation;       /* if not ok */
    uint32_t faults;               /* kinds that the seed chose: 1 << dkv_fault each */
    uint32_t n_faults[DKV_FAULTS]; /* how many of each there were */
    uint16_t n_nodes;
    uint8_t replication;
    uint64_t ops;
    uint64_t applied; /* writes among them */
    uint64_t found;   /* reads among them that returned a value */
    uint64_t messages;
    uint64_t events;
    uint64_t trace_hash;
    int64_t ns; /* virtual time at the end */
} dkv_campaign_report;

/* Runs one campaign. 0 if it could be run, whatever it found; NO_MEMORY. If `world_out` is not NULL
 * it receives the world as it was at the end, owned by the caller. */
int dkv_sim_campaign(uint64_t seed, const dkv_campaign_options *options,
                     dkv_campaign_report *report, dkv_world **world_out);

#endif
