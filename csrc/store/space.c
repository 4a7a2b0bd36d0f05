#include "store/space.h"

#include <stddef.h>

#define ASK_PART 8u /* asked again after so much of the reserve has been written */

void dkv_space_init(dkv_space *space, uint64_t reserve_bytes) {
    *space = (dkv_space){.reserve_bytes = reserve_bytes, .free_bytes = UINT64_MAX};
}

void dkv_space_ask(dkv_space *space) {
    space->due_at = 0;
}

dkv_disk_job *dkv_space_next_job(dkv_space *space, uint64_t appended, uint64_t written) {
    if (space->out || appended < space->due_at) return NULL;
    space->due_at = appended + space->reserve_bytes / ASK_PART;
    space->out = true;
    space->asked_at = written;
    space->job = (dkv_disk_job){.op = DKV_DISK_SPACE};
    return &space->job;
}

void dkv_space_job_done(dkv_space *space) {
    space->out = false;
    space->free_bytes = space->job.err ? UINT64_MAX : space->job.offset;
}

bool dkv_space_is_low(const dkv_space *space, uint64_t appended, unsigned part) {
    uint64_t since = appended - space->asked_at;
    return space->free_bytes < since || space->free_bytes - since < space->reserve_bytes / part;
}
