/* The log of dkv-node: one line an event on standard error, for people or for programs.
 *
 *   2026-05-04T09:30:00.123Z warn  n1: node n2 is down: the connection was refused or broke
 *   {"time":"2026-05-04T09:30:00.123Z","level":"warn","node":"n1","event":"peer_down","peer":"n2",
 *    "message":"node n2 is down: the connection was refused or broke"}            (in one line)
 *
 * Control characters and what is not UTF-8 become question marks. */
#ifndef DKV_NODE_LOG_H
#define DKV_NODE_LOG_H

#include <stdbool.h>

#include "model/effects.h"

#define DKV_LOG_LINE_MAX 2048u /* bytes; what is longer is cut, the line stays a line */

typedef struct dkv_log {
    const char *node;    /* whose log it is */
    dkv_log_level least; /* the level of what matters least */
    bool json;
} dkv_log;

/* Writes one line, in one write, so that lines of several processes do not mix. `log` is a
 * dkv_log: the form of dkv_host_options.log. */
void dkv_log_notice(void *log, const dkv_notice *notice);

/* The same for what has no fields. */
void dkv_log_say(const dkv_log *log, dkv_log_level level, const char *event, const char *text);

#endif
