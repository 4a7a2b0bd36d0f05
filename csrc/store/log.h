/* The bytes of the log.
 *
 * A store's log is a series of segment files, numbered upwards from 1; a number is never used
 * twice. All integers are little-endian. A segment is
 *
 *     segment header                        256 bytes
 *     record, record, ...                   each padded with zeros to a multiple of 8 bytes
 *     zeros                                 in the segment that grows: room for the next records
 *
 * Segment header:
 *      0  magic "dkv-log\n"      8
 *      8  format version         4   higher than ours: PROTOCOL
 *     12  segment number         4
 *     16  store id               8
 *     24  names                130   lengths of cluster and node name, then 64 bytes for each
 *    154  zeros                 94
 *    248  checksum               8   XXH3 of bytes 0..247; magic, version and this rule stay the
 *                                    same in all versions
 *
 * Record:
 *      0  checksum               8   XXH3 of bytes 8 .. 40 + key length + value length, seeded
 *                                    with store id, segment number and offset
 *      8  version: hlc           8
 *     16  version: origin        8   full store id
 *     24  value length           4
 *     28  synced up to           4   offset in this segment; everything below was known to be
 *                                    durable when this record was appended
 *     32  key length             2
 *     34  kind                   1   dkv_kind, or a control record, see below
 *     35  flags                  1   0; set aside for expiry, preconditions, compression
 *     36  magic                  4
 *     40  key, value
 *
 * A record is valid if its checksum holds for the place where it lies. The seed makes sure that
 * bytes of another place, of a recycled block or inside a value never pass for a record. A valid
 * record with an unknown kind or flag is from a later version of the program: PROTOCOL.
 *
 * Control records have no key. PRESENT opens a segment and lists all segments that exist, itself
 * included: 4 bytes number, 4 bytes end. Everything of another segment up to the end stated for it
 * was durable before this one was written, and nothing behind that end was confirmed. REMOVED is
 * durable before a segment file is removed (value: 4 bytes number). Together they tell a segment
 * that merge has removed from one that got lost.
 *
 * Invariants:
 * 1. A segment is synced up to its end, and its directory entry too, before the first byte of the
 *    next one is written.
 * 2. No confirmation leaves before the record and its segment's directory entry are durable.
 * 3. So a place that is not valid is damage, if it lies below a "synced up to" of its segment or
 *    below the end that a later PRESENT states. Otherwise it is a torn tail. */
#ifndef DKV_STORE_LOG_H
#define DKV_STORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "model/record.h"

#define DKV_LOG_VERSION 1u
#define DKV_LOG_HEADER_BYTES 256u
#define DKV_LOG_RECORD_HEADER_BYTES 40u
#define DKV_LOG_RECORD_MAX (DKV_LOG_RECORD_HEADER_BYTES + DKV_KEY_MAX + DKV_VALUE_MAX)
#define DKV_LOG_PRESENT_BYTES 8u /* of one segment in PRESENT */
#define DKV_STORE_NAME_MAX 64u   /* bytes of a cluster name or a node id */

typedef enum dkv_log_kind {
    DKV_LOG_VALUE = DKV_KIND_VALUE,
    DKV_LOG_TOMBSTONE = DKV_KIND_TOMBSTONE,
    DKV_LOG_PRESENT = 2,
    DKV_LOG_REMOVED = 3,
} dkv_log_kind;

/* Who a directory belongs to; stands in every file. */
typedef struct dkv_store_identity {
    uint64_t store_id;
    char cluster[DKV_STORE_NAME_MAX + 1];
    char node_id[DKV_STORE_NAME_MAX + 1];
} dkv_store_identity;

/* A place in the log, as far as checksums are concerned. */
typedef struct dkv_log_at {
    uint64_t store_id;
    uint32_t number; /* of the segment */
    uint32_t offset;
} dkv_log_at;

typedef struct dkv_log_record {
    dkv_log_kind kind;
    uint32_t synced_upto;
    uint32_t len_bytes; /* in the log, padding included; not used by encode */
    dkv_record record;  /* of a control record: no key, no version; kind is not set */
} dkv_log_record;

/* Length in the log, padding included. */
uint32_t dkv_log_length(size_t key_len, size_t value_len);

/* Writes the record to `to`, which has room for dkv_log_length. */
void dkv_log_encode(uint8_t *to, dkv_log_at at, const dkv_log_record *record);

/* The length of the record that begins with these 40 bytes if they can be a record's header,
 * else 0. */
uint32_t dkv_log_plausible_length(const uint8_t *header);

/* Reads the record at `data`, whose plausible length is available. The slices borrow from `data`.
 * DATA_LOSS: not valid; PROTOCOL: valid but of an unknown kind. */
int dkv_log_decode(const uint8_t *data, dkv_log_at at, dkv_log_record *out);

typedef struct dkv_log_header {
    dkv_store_identity identity;
    uint32_t number;
} dkv_log_header;

void dkv_log_header_encode(uint8_t to[DKV_LOG_HEADER_BYTES], const dkv_log_header *header);

/* DATA_LOSS: not valid; PROTOCOL: valid but of an unknown version. */
int dkv_log_header_decode(const uint8_t from[DKV_LOG_HEADER_BYTES], dkv_log_header *out);

/* The 130 bytes of names, shared with the other files of the store. */
#define DKV_LOG_NAMES_BYTES (2u + 2u * DKV_STORE_NAME_MAX)
void dkv_log_names_encode(uint8_t *to, const dkv_store_identity *identity);
int dkv_log_names_decode(const uint8_t *from, dkv_store_identity *identity);

#endif
