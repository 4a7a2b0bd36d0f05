/* How much room the disk has left. New values are refused while there is a segment's worth or less:
 * that is kept for deletions, and for merge, which needs space to give some back. Without it a full
 * disk would have no way out. */
#ifndef DKV_STORE_SPACE_H
#define DKV_STORE_SPACE_H

#include <stdbool.h>

#include "model/disk.h"

typedef struct dkv_space {
    uint64_t reserve_bytes;
    uint64_t free_bytes; /* when last asked; UINT64_MAX: not known */
    uint64_t asked_at;   /* log position up to which everything was in files then */
    uint64_t due_at;     /* log position at which to ask again */
    bool out;
    dkv_disk_job job;
} dkv_space;

void dkv_space_init(dkv_space *space, uint64_t reserve_bytes);

/* The disk may have more room or less than is known. */
void dkv_space_ask(dkv_space *space);

/* A job that asks the disk if that is due, or NULL. The log ends at position `appended`, of which
 * everything up to `written` is in files. */
dkv_disk_job *dkv_space_next_job(dkv_space *space, uint64_t appended, uint64_t written);
void dkv_space_job_done(dkv_space *space);

/* True if less than 1 / `part` of the reserve is left at log position `appended`. */
bool dkv_space_is_low(const dkv_space *space, uint64_t appended, unsigned part);

#endif
