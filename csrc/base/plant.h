/* Bugs planted on purpose, to show that the simulator finds them. A build with PLANT=1 has them all
 * and commits the one that is chosen. In every other build DKV_PLANTED is 0, and nothing is left of
 * what depends on it. */
#ifndef DKV_BASE_PLANT_H
#define DKV_BASE_PLANT_H

/* X(NAME), and what the bug does. */
#define DKV_PLANT_MAP(X)                                                                  \
    X(CONFIRM_BEFORE_SYNC) /* a write counts as durable when it was handed to the disk */ \
    X(BELIEVE_OLDER)       /* of two records a read takes the older one */                \
    X(FORGET_HINT)         /* a hint that has no room leaves nothing */                   \
    X(BELIEVE_EMPTY)       /* a replaced store takes itself for the one it replaced */    \
    X(SKIP_LAST_RANGE)     /* the last range of each question for sums is not compared */ \
    X(REPAIR_WITH_OLDER)   /* of two records healing moves the older one */               \
    X(KEEP_DIGEST)         /* a record that replaces another one leaves the digests */    \
    X(DROP_BEHIND_DAMAGE)  /* recovery ends a segment where damage begins */              \
    X(GIVE_UP_ALL)         /* with a lost replica all others are not waited for either */ \
    X(LEAVE_ROTTEN)        /* scrub leaves alone what it finds damaged */

typedef enum dkv_plant {
    DKV_PLANT_NONE,
#define DKV_PLANT_ENUM(name) DKV_PLANT_##name,
    DKV_PLANT_MAP(DKV_PLANT_ENUM)
#undef DKV_PLANT_ENUM
} dkv_plant;

#ifdef DKV_PLANTS
extern dkv_plant dkv_plant_chosen;
#define DKV_PLANTED(name) (dkv_plant_chosen == DKV_PLANT_##name)
#else
#define DKV_PLANTED(name) 0
#endif

/* Chooses a bug for the whole process, NULL for none. INVALID for an unknown name, and in builds
 * without planted bugs. */
int dkv_plant_choose(const char *name);

#endif
