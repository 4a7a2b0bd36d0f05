#include "base/timers.h"

#include <stdlib.h>

#include "base/err.h"

static void put(dkv_timers *timers, size_t at, dkv_timer *timer) {
    timers->heap[at] = timer;
    timer->place = at + 1;
}

static void sift_up(dkv_timers *timers, size_t at) {
    dkv_timer *timer = timers->heap[at];
    while (at > 0 && timers->heap[(at - 1) / 2]->at_ns > timer->at_ns) {
        put(timers, at, timers->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(timers, at, timer);
}

static void sift_down(dkv_timers *timers, size_t at) {
    dkv_timer *timer = timers->heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= timers->len) break;
        if (child + 1 < timers->len &&
            timers->heap[child + 1]->at_ns < timers->heap[child]->at_ns) {
            child++;
        }
        if (timers->heap[child]->at_ns >= timer->at_ns) break;
        put(timers, at, timers->heap[child]);
        at = child;
    }
    put(timers, at, timer);
}

static int push(dkv_timers *timers, dkv_timer *timer) {
    if (timers->len == timers->cap) {
        size_t cap = timers->cap ? timers->cap * 2 : 64;
        dkv_timer **heap = realloc(timers->heap, cap * sizeof(dkv_timer *));
        if (!heap) return DKV_ERR_NO_MEMORY;
        timers->heap = heap;
        timers->cap = cap;
    }
    put(timers, timers->len++, timer);
    return DKV_OK;
}

int dkv_timers_set(dkv_timers *timers, dkv_timer *timer, int64_t at_ns) {
    if (!timer->place) {
        int err = push(timers, timer);
        if (err) return err;
    }
    timer->at_ns = at_ns;
    sift_up(timers, timer->place - 1);
    sift_down(timers, timer->place - 1);
    return DKV_OK;
}

void dkv_timers_cancel(dkv_timers *timers, dkv_timer *timer) {
    if (!timer->place) return;
    size_t at = timer->place - 1;
    timer->place = 0;
    dkv_timer *last = timers->heap[--timers->len];
    if (last == timer) return;
    put(timers, at, last);
    sift_up(timers, at);
    sift_down(timers, last->place - 1);
}

int64_t dkv_timers_next(const dkv_timers *timers) {
    return timers->len ? timers->heap[0]->at_ns : INT64_MAX;
}

dkv_timer *dkv_timers_pop(dkv_timers *timers, int64_t now_ns) {
    if (timers->len == 0 || timers->heap[0]->at_ns > now_ns) return NULL;
    dkv_timer *timer = timers->heap[0];
    dkv_timers_cancel(timers, timer);
    return timer;
}

void dkv_timers_free(dkv_timers *timers) {
    if (!timers) return;
    free(timers->heap);
    *timers = (dkv_timers){0};
}
