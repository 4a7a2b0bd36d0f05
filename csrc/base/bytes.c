#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

dkv_slice dkv_slice_of(const char *text) {
    return (dkv_slice){(const uint8_t *)text, strlen(text)};
}

bool dkv_slice_eq(dkv_slice a, dkv_slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

int dkv_buf_reserve(dkv_buf *buf, size_t more) {
    if (buf->cap - buf->len >= more) return DKV_OK;
    size_t cap = buf->cap ? buf->cap : 256;
    while (cap - buf->len < more) {
        if (cap > SIZE_MAX / 2) return DKV_ERR_NO_MEMORY;
        cap *= 2;
    }
    uint8_t *data = realloc(buf->data, cap);
    if (!data) return DKV_ERR_NO_MEMORY;
    buf->data = data;
    buf->cap = cap;
    return DKV_OK;
}

int dkv_buf_append(dkv_buf *buf, dkv_slice bytes) {
    if (bytes.len == 0) return DKV_OK;
    int err = dkv_buf_reserve(buf, bytes.len);
    if (err) return err;
    memcpy(buf->data + buf->len, bytes.data, bytes.len);
    buf->len += bytes.len;
    return DKV_OK;
}

dkv_slice dkv_buf_slice(const dkv_buf *buf) {
    return (dkv_slice){buf->data, buf->len};
}

void dkv_buf_free(dkv_buf *buf) {
    if (!buf) return;
    free(buf->data);
    *buf = (dkv_buf){0};
}

/* Compilers turn each of these loops-by-hand into a single load or store. */
uint16_t dkv_le16(const uint8_t *from) {
    return (uint16_t)(from[0] | from[1] << 8);
}

uint32_t dkv_le32(const uint8_t *from) {
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

uint64_t dkv_le64(const uint8_t *from) {
    return (uint64_t)dkv_le32(from) | (uint64_t)dkv_le32(from + 4) << 32;
}

uint64_t dkv_be64(const uint8_t *from) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | from[i];
    return value;
}

void dkv_put_le16(uint8_t *to, uint16_t value) {
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

void dkv_put_le32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (8 * i));
}

void dkv_put_le64(uint8_t *to, uint64_t value) {
    for (int i = 0; i < 8; i++) to[i] = (uint8_t)(value >> (8 * i));
}
