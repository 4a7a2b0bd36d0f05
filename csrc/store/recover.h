/* Opening a store whose last stop was not clean: every segment is scanned.
 *
 * Each record found goes into the index; the newest version of a key wins, of equal ones the later
 * in the log. Then, for every segment, it is known up to where its content was confirmed: up to the
 * highest "synced up to" of its own records, and up to the end that a later segment's PRESENT
 * states for it.
 * A gap in the confirmed part is damage: counted, everything behind it is kept. Behind the
 * confirmed part a gap is a torn tail; records there may or may not have been confirmed, so they
 * are kept too. But they may stand in the page cache only, which a sync does not mend. They are
 * appended to a new segment, which is synced, and then the old tails are cut.
 *
 * What cannot be read becomes a hole (holes.h), after DKV_HOLE_TRIES at once, and is damage
 * wherever it lies. With too many holes the store cannot be opened: IO.
 *
 * A crash anywhere in this leaves at worst records twice in the log. */
#ifndef DKV_STORE_RECOVER_H
#define DKV_STORE_RECOVER_H

#include "model/disk.h"
#include "store/log.h"
#include "store/store.h"

/* Fills an empty store whose identity is known. Adds to report->torn_bytes and damaged_records.
 * PRECONDITION: a segment of another store; PROTOCOL, IO, NO_SPACE, NO_MEMORY. */
int dkv_recover_log(dkv_store *store, const dkv_disk_file *files, uint32_t n_files,
                    dkv_disk_run run, void *disk, dkv_store_report *report);

/* Reads the header of a segment. DATA_LOSS: it has no valid one, or none that can be read;
 * PROTOCOL. */
int dkv_recover_header(uint32_t number, dkv_disk_run run, void *disk, dkv_log_header *out);

#endif
