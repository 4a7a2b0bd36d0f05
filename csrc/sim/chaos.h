/* Random faults for a world, and the end of each after a while. */
#ifndef DKV_SIM_CHAOS_H
#define DKV_SIM_CHAOS_H

#include "base/rand.h"
#include "sim/campaign.h"

#define DKV_CHAOS_REPAIRS_MAX 64u

typedef struct dkv_chaos_repair {
    int64_t at_ns;
    dkv_fault fault; /* that ends */
    uint16_t node;
    uint16_t peer; /* ONE_WAY, SLOW_LINK */
} dkv_chaos_repair;

typedef struct dkv_chaos {
    dkv_world *world;
    uint16_t n_nodes;
    dkv_rand rand;
    uint32_t faults;   /* kinds chosen: 1 << dkv_fault each */
    int64_t pause_ns;  /* mean time between two faults */
    int64_t next_ns;   /* time of the next; INT64_MAX: no more */
    int64_t *start_at; /* by node: when what watches over the process starts it again; 0: unset */
    dkv_chaos_repair repairs[DKV_CHAOS_REPAIRS_MAX];
    unsigned n_repairs;
    uint32_t n_faults[DKV_FAULTS]; /* of each kind, but for those of the network */
} dkv_chaos;

/* Chooses kinds of faults among `allowed` and how often they come. NO_MEMORY. */
int dkv_chaos_init(dkv_chaos *chaos, dkv_world *world, uint32_t chosen, uint64_t seed);

/* Which kinds a seed chooses among `allowed`. */
uint32_t dkv_chaos_choose(dkv_rand *rand, uint32_t allowed);

/* Does what is due. False if a process does not start although its disk never suffered. */
bool dkv_chaos_act(dkv_chaos *chaos, dkv_violation *out);

/* Ends all faults and makes no more; processes that end are still started again. */
void dkv_chaos_end(dkv_chaos *chaos);

void dkv_chaos_free(dkv_chaos *chaos);

#endif
