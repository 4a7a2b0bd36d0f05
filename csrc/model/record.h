/* Versions and records: what one write of one key is, everywhere it is held or sent. */
#ifndef DKV_MODEL_RECORD_H
#define DKV_MODEL_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define DKV_KEY_MAX 1024u      /* bytes; a key has at least 1 */
#define DKV_VALUE_MAX 1048576u /* bytes; a value may be empty */
#define DKV_DRIFT_MAX_MS 500u  /* how far clocks may differ, see dkv_hlc below */

/* Hybrid logical clock (Kulkarni et al., "Logical physical clocks", OPODIS 2014): wall-clock
 * milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Adding 1 gives the next
 * later time; an overflow of the counter runs into the milliseconds, which is harmless. */
typedef uint64_t dkv_hlc;

#define DKV_HLC_COUNTER_BITS 16u

static inline dkv_hlc dkv_hlc_of_ms(uint64_t wall_ms) {
    return wall_ms << DKV_HLC_COUNTER_BITS;
}

static inline uint64_t dkv_hlc_ms(dkv_hlc hlc) {
    return hlc >> DKV_HLC_COUNTER_BITS;
}

/* The version of a write: never issued twice, totally ordered. All zero means "none"; it is older
 * than every version that was ever issued. */
typedef struct dkv_version {
    dkv_hlc hlc;
    uint64_t origin; /* who issued it: the coordinator's store id with the low 16 bits replaced by
                        the number of its start, so that a clock set back between two runs cannot
                        repeat a version. 0 only in "none" */
} dkv_version;

static inline int dkv_version_cmp(dkv_version a, dkv_version b) {
    if (a.hlc != b.hlc) return a.hlc < b.hlc ? -1 : 1;
    if (a.origin != b.origin) return a.origin < b.origin ? -1 : 1;
    return 0;
}

static inline bool dkv_version_is_none(dkv_version v) {
    return v.hlc == 0 && v.origin == 0;
}

typedef enum dkv_kind {
    DKV_KIND_VALUE = 0,
    DKV_KIND_TOMBSTONE = 1, /* a deletion; its value is empty */
} dkv_kind;

/* One write of one key. The slices borrow; who holds a record longer copies. */
typedef struct dkv_record {
    dkv_slice key;
    dkv_slice value;
    dkv_version version;
    dkv_kind kind;
} dkv_record;

#endif
