#include "base/plant.h"

#include "base/err.h"

#ifdef DKV_PLANTS

#include <string.h>

dkv_plant dkv_plant_chosen;

int dkv_plant_choose(const char *name) {
    static const char *const names[] = {"",
#define DKV_PLANT_NAME(name) #name,
                                        DKV_PLANT_MAP(DKV_PLANT_NAME)
#undef DKV_PLANT_NAME
    };
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name ? name : "") != 0) continue;
        dkv_plant_chosen = (dkv_plant)i;
        return DKV_OK;
    }
    return DKV_ERR_INVALID;
}

#else

int dkv_plant_choose(const char *name) {
    return name ? DKV_ERR_INVALID : DKV_OK;
}

#endif
