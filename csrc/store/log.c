#include "store/log.h"

#include <string.h>

#include "base/err.h"
#include "base/hash.h"

#define RECORD_MAGIC 0x72766B64u /* "dkvr" */
#define HEADER_SEED 1u
#define HEADER_CHECKSUM_AT 248u

static const uint8_t header_magic[8] = {'d', 'k', 'v', '-', 'l', 'o', 'g', '\n'};

static uint64_t seed_of(dkv_log_at at) {
    return at.store_id ^ ((uint64_t)at.number << 32 | at.offset);
}

uint32_t dkv_log_length(size_t key_len, size_t value_len) {
    return (uint32_t)((DKV_LOG_RECORD_HEADER_BYTES + key_len + value_len + 7) & ~(size_t)7);
}

static uint64_t record_checksum(const uint8_t *data, size_t key_len, size_t value_len,
                                dkv_log_at at) {
    size_t len = DKV_LOG_RECORD_HEADER_BYTES - 8 + key_len + value_len;
    return dkv_checksum((dkv_slice){data + 8, len}, seed_of(at));
}

void dkv_log_encode(uint8_t *to, dkv_log_at at, const dkv_log_record *record) {
    dkv_slice key = record->record.key, value = record->record.value;
    dkv_put_le64(to + 8, record->record.version.hlc);
    dkv_put_le64(to + 16, record->record.version.origin);
    dkv_put_le32(to + 24, (uint32_t)value.len);
    dkv_put_le32(to + 28, record->synced_upto);
    dkv_put_le16(to + 32, (uint16_t)key.len);
    to[34] = (uint8_t)record->kind;
    to[35] = 0;
    dkv_put_le32(to + 36, RECORD_MAGIC);
    uint8_t *body = to + DKV_LOG_RECORD_HEADER_BYTES;
    if (key.len) memcpy(body, key.data, key.len);
    if (value.len) memcpy(body + key.len, value.data, value.len);
    size_t used = DKV_LOG_RECORD_HEADER_BYTES + key.len + value.len;
    memset(to + used, 0, dkv_log_length(key.len, value.len) - used);
    dkv_put_le64(to, record_checksum(to, key.len, value.len, at));
}

uint32_t dkv_log_plausible_length(const uint8_t *header) {
    uint32_t value_len = dkv_le32(header + 24);
    uint16_t key_len = dkv_le16(header + 32);
    if (dkv_le32(header + 36) != RECORD_MAGIC) return 0;
    if (value_len > DKV_VALUE_MAX || key_len > DKV_KEY_MAX) return 0;
    return dkv_log_length(key_len, value_len);
}

int dkv_log_decode(const uint8_t *data, dkv_log_at at, dkv_log_record *out) {
    uint32_t length = dkv_log_plausible_length(data);
    if (length == 0) return DKV_ERR_DATA_LOSS;
    uint32_t value_len = dkv_le32(data + 24);
    uint16_t key_len = dkv_le16(data + 32);
    if (dkv_le64(data) != record_checksum(data, key_len, value_len, at)) return DKV_ERR_DATA_LOSS;
    if (data[34] > DKV_LOG_REMOVED || data[35] != 0) return DKV_ERR_PROTOCOL;
    const uint8_t *body = data + DKV_LOG_RECORD_HEADER_BYTES;
    *out = (dkv_log_record){
        .kind = data[34],
        .synced_upto = dkv_le32(data + 28),
        .len_bytes = length,
        .record = {.key = {body, key_len},
                   .value = {body + key_len, value_len},
                   .version = {dkv_le64(data + 8), dkv_le64(data + 16)},
                   .kind = data[34] == DKV_LOG_TOMBSTONE ? DKV_KIND_TOMBSTONE : DKV_KIND_VALUE},
    };
    return DKV_OK;
}

void dkv_log_names_encode(uint8_t *to, const dkv_store_identity *identity) {
    size_t cluster_len = strlen(identity->cluster), node_len = strlen(identity->node_id);
    memset(to, 0, DKV_LOG_NAMES_BYTES);
    to[0] = (uint8_t)cluster_len;
    to[1] = (uint8_t)node_len;
    memcpy(to + 2, identity->cluster, cluster_len);
    memcpy(to + 2 + DKV_STORE_NAME_MAX, identity->node_id, node_len);
}

int dkv_log_names_decode(const uint8_t *from, dkv_store_identity *identity) {
    if (from[0] > DKV_STORE_NAME_MAX || from[1] > DKV_STORE_NAME_MAX) return DKV_ERR_PROTOCOL;
    memset(identity->cluster, 0, sizeof identity->cluster);
    memset(identity->node_id, 0, sizeof identity->node_id);
    memcpy(identity->cluster, from + 2, from[0]);
    memcpy(identity->node_id, from + 2 + DKV_STORE_NAME_MAX, from[1]);
    return DKV_OK;
}

static uint64_t header_checksum(const uint8_t *header) {
    return dkv_checksum((dkv_slice){header, HEADER_CHECKSUM_AT}, HEADER_SEED);
}

void dkv_log_header_encode(uint8_t to[DKV_LOG_HEADER_BYTES], const dkv_log_header *header) {
    memset(to, 0, DKV_LOG_HEADER_BYTES);
    memcpy(to, header_magic, sizeof header_magic);
    dkv_put_le32(to + 8, DKV_LOG_VERSION);
    dkv_put_le32(to + 12, header->number);
    dkv_put_le64(to + 16, header->identity.store_id);
    dkv_log_names_encode(to + 24, &header->identity);
    dkv_put_le64(to + HEADER_CHECKSUM_AT, header_checksum(to));
}

int dkv_log_header_decode(const uint8_t from[DKV_LOG_HEADER_BYTES], dkv_log_header *out) {
    if (memcmp(from, header_magic, sizeof header_magic) != 0) return DKV_ERR_DATA_LOSS;
    if (dkv_le64(from + HEADER_CHECKSUM_AT) != header_checksum(from)) return DKV_ERR_DATA_LOSS;
    if (dkv_le32(from + 8) != DKV_LOG_VERSION) return DKV_ERR_PROTOCOL;
    dkv_log_header header = {.number = dkv_le32(from + 12)};
    header.identity.store_id = dkv_le64(from + 16);
    int err = dkv_log_names_decode(from + 24, &header.identity);
    if (err) return err;
    *out = header;
    return DKV_OK;
}
