/* The file SNAPSHOT: the index as of a clean stop. It counts only if META names its tag.
 *
 * A sequence of blocks of DKV_SNAPSHOT_BLOCK_BYTES (the last may be shorter), little-endian:
 *      0  checksum          8   XXH3 of what follows, seeded with tag and block number
 *      8  payload length    4
 *     12  payload
 * The payloads are a series of items, none of which crosses blocks:
 *     head      magic "dkv-snap" 8, version 4, segments 4, entries 8
 *     segments  number 4, end 4            one each; its position is the slot in the entries
 *     entries   token 8, tag 8, hlc 8, origin 8, place 8, ascending
 * Anything unexpected, or an error of the disk, and the log is scanned instead. */
#ifndef DKV_STORE_SNAPSHOT_H
#define DKV_STORE_SNAPSHOT_H

#include "model/disk.h"

#define DKV_SNAPSHOT_BLOCK_BYTES 262144u

struct dkv_store;

/* Writes and syncs the snapshot of a store whose log is durable and sealed. */
int dkv_snapshot_write(struct dkv_store *store, uint64_t tag, dkv_disk_run run, void *disk);

/* Loads segments and index into an empty store. `files`: what the directory holds, by number.
 * NOT_FOUND: a segment is not there, or shorter than it was; DATA_LOSS: the snapshot is damaged or
 * does not describe the segments, which are to be scanned; IO, NO_MEMORY. After an error the store
 * is empty again. */
int dkv_snapshot_load(struct dkv_store *store, uint64_t tag, const dkv_disk_file *files,
                      uint32_t n_files, dkv_disk_run run, void *disk);

#endif
