#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define ELLIPSIS "…"
#define TAIL_MAX 32u /* separator, "… and 4294967295 more", NUL */

const char *dkv_count_text(uint64_t count, char text[DKV_COUNT_TEXT]) {
    char digits[DKV_COUNT_TEXT];
    size_t n = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, count), len = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) text[len++] = ',';
        text[len++] = digits[i];
    }
    text[len] = 0;
    return text;
}

void dkv_phrases_init(dkv_phrases *phrases, char *text, size_t size, const char *separator) {
    assert(size >= 2 * TAIL_MAX);
    *phrases = (dkv_phrases){.text = text, .size = size, .separator = separator};
    text[0] = 0;
}

/* The length of as many whole words of `phrase` as have room in `most` bytes; if there is not even
 * one, of as many whole characters. */
static size_t whole_words(const char *phrase, size_t most) {
    size_t len = most;
    while (len > 0 && phrase[len] != ' ') len--;
    if (len > 0) return len;
    len = most;
    while (len > 0 && ((unsigned char)phrase[len] & 0xC0) == 0x80) len--;
    return len;
}

void dkv_phrases_add(dkv_phrases *phrases, const char *phrase) {
    bool is_first = phrases->len == 0;
    const char *separator = is_first ? "" : phrases->separator;
    char *end = phrases->text + phrases->len;
    size_t room = phrases->size - phrases->len, len = strlen(phrase);
    if (!phrases->left_out && strlen(separator) + len + TAIL_MAX <= room) {
        phrases->len += (size_t)snprintf(end, room, "%s%s", separator, phrase);
    } else if (is_first) {
        size_t fits = whole_words(phrase, room - TAIL_MAX);
        phrases->len = (size_t)snprintf(end, room, "%.*s" ELLIPSIS, (int)fits, phrase);
    } else {
        phrases->left_out++;
        snprintf(end, room, "%s" ELLIPSIS " and %u more", separator, phrases->left_out);
    }
}
