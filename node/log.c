#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A line being written. What does not fit is left out; there is always room for its end. */
typedef struct line {
    char text[DKV_LOG_LINE_MAX];
    size_t len;
} line;

#define LINE_END 4u /* bytes that only the end of a line may take: a quote, a brace, a newline */

__attribute__((format(printf, 2, 3))) static void add(line *to, const char *format, ...) {
    size_t room = sizeof to->text - LINE_END - to->len;
    va_list args;
    va_start(args, format);
    int len = vsnprintf(to->text + to->len, room, format, args);
    va_end(args);
    if (len > 0 && (size_t)len < room) to->len += (size_t)len;
}

static void add_end(line *to, const char *end) {
    size_t len = strlen(end);
    memcpy(to->text + to->len, end, len);
    to->len += len;
}

/* How many bytes the UTF-8 character at `text` has; 0 if it is none. */
static size_t utf8_len(const char *text) {
    const unsigned char *c = (const unsigned char *)text;
    size_t len = c[0] < 0x80 ? 1 : c[0] < 0xC2 ? 0 : c[0] < 0xE0 ? 2 : c[0] < 0xF0 ? 3 : 4;
    if (c[0] > 0xF4) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((c[i] & 0xC0) != 0x80) return 0;
    }
    bool overlong = (c[0] == 0xE0 && c[1] < 0xA0) || (c[0] == 0xF0 && c[1] < 0x90);
    bool beyond = (c[0] == 0xED && c[1] > 0x9F) || (c[0] == 0xF4 && c[1] > 0x8F);
    return overlong || beyond ? 0 : len;
}

/* Adds a text that may hold anything: a log keeps its lines and its terminal. */
static void add_text(line *to, const char *text, bool json) {
    while (*text) {
        size_t len = utf8_len(text);
        if (len == 0 || (unsigned char)*text < ' ' || *text == 0x7F) {
            add(to, "?");
        } else if (json && (*text == '"' || *text == '\\')) {
            add(to, "\\%c", *text);
        } else {
            add(to, "%.*s", (int)len, text);
        }
        text += len ? len : 1;
    }
}

static void add_member(line *to, const char *key, const char *text) {
    add(to, ",\"%s\":\"", key);
    add_text(to, text, true);
    add(to, "\"");
}

static void add_time(line *to) {
    struct timespec now;
    struct tm utc;
    char when[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    add(to, "%s.%03ldZ", when, now.tv_nsec / 1000000);
}

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static void write_text(line *to, const dkv_log *log, const dkv_notice *notice) {
    add_time(to);
    add(to, " %-5s %s: ", level_names[notice->level], log->node);
    add_text(to, notice->text, false);
    add_end(to, "\n");
}

/* The message comes last: if a line must be cut, it is there. */
static void write_json(line *to, const dkv_log *log, const dkv_notice *notice) {
    add(to, "{\"time\":\"");
    add_time(to);
    add(to, "\"");
    add_member(to, "level", level_names[notice->level]);
    add_member(to, "node", log->node);
    add_member(to, "event", notice->event);
    for (size_t i = 0; i < notice->n_fields; i++) {
        const dkv_notice_field *field = &notice->fields[i];
        if (field->text) {
            add_member(to, field->key, field->text);
        } else {
            add(to, ",\"%s\":%" PRIu64, field->key, field->number);
        }
    }
    add(to, ",\"message\":\"");
    add_text(to, notice->text, true);
    add_end(to, "\"}\n");
}

void dkv_log_notice(void *user, const dkv_notice *notice) {
    const dkv_log *log = user;
    line out = {.len = 0};
    if (notice->level > log->least) return;
    if (log->json) {
        write_json(&out, log, notice);
    } else {
        write_text(&out, log, notice);
    }
    /* Nobody can be told that the log cannot be written. */
    while (write(STDERR_FILENO, out.text, out.len) < 0 && errno == EINTR) continue;
}

void dkv_log_say(const dkv_log *log, dkv_log_level level, const char *event, const char *text) {
    dkv_log_notice((void *)log, &(dkv_notice){.level = level, .event = event, .text = text});
}
