/* Timers: a binary min-heap of times, embedded in the structs that wait. */
#ifndef DKV_BASE_TIMERS_H
#define DKV_BASE_TIMERS_H

#include <stddef.h>
#include <stdint.h>

/* All zero is a timer that is not set. Must not move while it is set. */
typedef struct dkv_timer {
    int64_t at_ns;
    size_t place; /* index in the heap + 1; 0 = not set */
} dkv_timer;

/* All zero is a valid empty heap. */
typedef struct dkv_timers {
    dkv_timer **heap;
    size_t len;
    size_t cap;
} dkv_timers;

/* Sets or moves `timer` to `at_ns`. NO_MEMORY (only when it was not set) leaves it unset. */
int dkv_timers_set(dkv_timers *timers, dkv_timer *timer, int64_t at_ns);

/* Harmless if it is not set. */
void dkv_timers_cancel(dkv_timers *timers, dkv_timer *timer);

/* The earliest time, INT64_MAX if none is set. */
int64_t dkv_timers_next(const dkv_timers *timers);

/* Removes and returns the earliest timer if it is due by `now_ns`, else NULL. */
dkv_timer *dkv_timers_pop(dkv_timers *timers, int64_t now_ns);

/* Frees the heap, not the timers. Accepts NULL. */
void dkv_timers_free(dkv_timers *timers);

#endif
