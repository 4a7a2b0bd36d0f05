/* Words for people: numbers that can be read, and lists that are never cut in the middle of an
 * item, however little room there is. */
#ifndef DKV_BASE_TEXT_H
#define DKV_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define DKV_COUNT_TEXT 27u /* bytes: 20 digits, 6 commas, NUL */

/* `count` with commas between the thousands: 1,048,576. Returns `text`. */
const char *dkv_count_text(uint64_t count, char text[DKV_COUNT_TEXT]);

/* A list that is written into a text of the caller's: "n1: refused; n2: silent; … and 3 more". */
typedef struct dkv_phrases {
    char *text; /* borrows; ends with NUL after every call */
    size_t size;
    const char *separator; /* borrows */
    size_t len;
    unsigned left_out;
} dkv_phrases;

/* An empty list in `text`, of `size` bytes: 64 at least. */
void dkv_phrases_init(dkv_phrases *phrases, char *text, size_t size, const char *separator);

/* Adds `phrase`, or counts it at the end if there is no room for it. One that is too long by itself
 * ends after a whole word. */
void dkv_phrases_add(dkv_phrases *phrases, const char *phrase);

#endif
