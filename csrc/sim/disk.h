/* A simulated disk, for one node: files in memory, of which it knows what would survive a power
 * loss and what stands in the page cache only. Everything random comes from its seed.
 *
 *   durable     what the medium holds
 *   pending     writes and cuts not yet covered by a SYNC, in order; reads see them
 *
 * A job takes effect when it is submitted, so jobs take effect in order; a SYNC or SYNC_DIR makes
 * things durable when it is completed. When the power fails, every 512-byte sector of every pending
 * write survives or not, by itself; so do directory changes that no SYNC_DIR has covered. After a
 * failed SYNC what was pending is still read from the page cache but no later SYNC writes it, which
 * is what Linux does. */
#ifndef DKV_SIM_DISK_H
#define DKV_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "model/disk.h"

#define DKV_SIM_SECTOR_BYTES 512u

typedef struct dkv_sim_disk dkv_sim_disk;

/* An empty disk. *out is owned by the caller. NO_MEMORY. */
int dkv_sim_disk_new(uint64_t seed, dkv_sim_disk **out);

/* A disk that holds what a process sees on this one, all of it durable. *out is owned by the
 * caller. NO_MEMORY. */
int dkv_sim_disk_copy(const dkv_sim_disk *disk, dkv_sim_disk **out);

/* Accepts NULL. */
void dkv_sim_disk_del(dkv_sim_disk *disk);

/* The job takes effect, its result is filled in. The caller completes it at some later time. */
void dkv_sim_disk_submit(dkv_sim_disk *disk, dkv_disk_job *job);

/* The job is over. */
void dkv_sim_disk_complete(dkv_sim_disk *disk, dkv_disk_job *job);

/* Both at once: a dkv_disk_run, `disk` being a dkv_sim_disk. */
int dkv_sim_disk_run(void *disk, dkv_disk_job *job);

/* The process dies: submitted jobs are never completed, the page cache stays. */
void dkv_sim_disk_kill(dkv_sim_disk *disk);

/* The machine loses power, the process with it. */
void dkv_sim_disk_power_cut(dkv_sim_disk *disk);

/* ---- faults ---- */

/* The bytes [from, to) of a file can no longer be read (IO), until some of them are written again.
 * NOT_FOUND: there is no such file; PRECONDITION: some of them are not durable, so that the page
 * cache has them. A file has one such place at most: the last. */
int dkv_sim_disk_spoil(dkv_sim_disk *disk, dkv_disk_file file, uint64_t from, uint64_t to);

/* Whether there is such a place on the disk. */
bool dkv_sim_disk_is_spoiled(const dkv_sim_disk *disk);

/* Everything is gone: a new, empty disk. */
void dkv_sim_disk_wipe(dkv_sim_disk *disk);

/* Flips a bit of what a file durably holds; NOT_FOUND if it has no such byte. */
int dkv_sim_disk_flip(dkv_sim_disk *disk, dkv_disk_file file, uint64_t offset, unsigned bit);

/* Flips a random bit of the log; NOT_FOUND if the log is empty. */
int dkv_sim_disk_flip_any(dkv_sim_disk *disk);

/* Chooses a byte of the log at random: *out is its file, with the offset in size_bytes. NOT_FOUND
 * if the log is empty. */
int dkv_sim_disk_choose_byte(dkv_sim_disk *disk, dkv_disk_file *out);

/* What the medium holds of a file; empty if there is no such file. Borrows until the next job. */
dkv_slice dkv_sim_disk_durable(const dkv_sim_disk *disk, dkv_disk_file file);

/* Loses a file of the log, chosen at random; NOT_FOUND if there is none. */
int dkv_sim_disk_lose_file(dkv_sim_disk *disk, dkv_disk_file *out);

/* Writes that would make the files longer than `bytes` in all find NO_SPACE; 0: no limit. */
void dkv_sim_disk_limit(dkv_sim_disk *disk, uint64_t bytes);

/* Whether a SPACE job is told what is left of the limit; else, as at first, it is not known: writes
 * find the disk full without warning. */
void dkv_sim_disk_tell_space(dkv_sim_disk *disk, bool tell);

/* The next `count` jobs of this kind fail with IO. */
void dkv_sim_disk_fail_syncs(dkv_sim_disk *disk, uint32_t count);
void dkv_sim_disk_fail_reads(dkv_sim_disk *disk, uint32_t count);

/* Bytes of all files, as the process sees them. */
uint64_t dkv_sim_disk_bytes(const dkv_sim_disk *disk);

#endif
