/* Byte strings: a borrowed view (dkv_slice) and a growable buffer (dkv_buf). */
#ifndef DKV_BASE_BYTES_H
#define DKV_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A view of bytes that somebody else owns. `data` may be NULL only when `len` is 0. */
typedef struct dkv_slice {
    const uint8_t *data;
    size_t len;
} dkv_slice;

/* The bytes of a NUL-terminated string, without its NUL. Borrows. */
dkv_slice dkv_slice_of(const char *text);

bool dkv_slice_eq(dkv_slice a, dkv_slice b);

/* A buffer that grows. All zero is a valid empty buffer. */
typedef struct dkv_buf {
    uint8_t *data;
    size_t len; /* bytes in use */
    size_t cap; /* bytes allocated */
} dkv_buf;

/* Makes room for `more` bytes behind `len`; NO_MEMORY leaves the buffer as it was. */
int dkv_buf_reserve(dkv_buf *buf, size_t more);

/* Copies `bytes` to the end; NO_MEMORY leaves the buffer as it was. */
int dkv_buf_append(dkv_buf *buf, dkv_slice bytes);

/* The content as a slice. Borrows until the next call that changes the buffer. */
dkv_slice dkv_buf_slice(const dkv_buf *buf);

/* Frees the memory; the buffer is empty again and may be used further. Accepts NULL. */
void dkv_buf_free(dkv_buf *buf);

/* Fixed-width integers to and from bytes. Disk formats are little-endian, ring positions (as read
 * from SHA-256) big-endian. No alignment is needed. */
uint16_t dkv_le16(const uint8_t *from);
uint32_t dkv_le32(const uint8_t *from);
uint64_t dkv_le64(const uint8_t *from);
uint64_t dkv_be64(const uint8_t *from);
void dkv_put_le16(uint8_t *to, uint16_t value);
void dkv_put_le32(uint8_t *to, uint32_t value);
void dkv_put_le64(uint8_t *to, uint64_t value);

#endif
