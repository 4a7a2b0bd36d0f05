#include "sim/queue.h"

#include <stdlib.h>

#include "base/err.h"

/* Children of an element: four lie closer together in memory than two generations of two. */
#define WAYS 4u

static bool is_before(const dkv_sim_event *a, const dkv_sim_event *b) {
    if (a->time_ns != b->time_ns) return a->time_ns < b->time_ns;
    return a->sequence < b->sequence;
}

static int grow(dkv_sim_queue *queue) {
    size_t cap = queue->cap ? queue->cap * 2 : 256;
    dkv_sim_event *heap = realloc(queue->heap, cap * sizeof *heap);
    if (!heap) return DKV_ERR_NO_MEMORY;
    queue->heap = heap;
    queue->cap = cap;
    return DKV_OK;
}

int dkv_sim_queue_push(dkv_sim_queue *queue, dkv_sim_event event) {
    if (queue->len == queue->cap) {
        int err = grow(queue);
        if (err) return err;
    }
    event.sequence = queue->sequence++;
    size_t at = queue->len++;
    while (at > 0) {
        size_t parent = (at - 1) / WAYS;
        if (is_before(&queue->heap[parent], &event)) break;
        queue->heap[at] = queue->heap[parent];
        at = parent;
    }
    queue->heap[at] = event;
    return DKV_OK;
}

bool dkv_sim_queue_pop(dkv_sim_queue *queue, dkv_sim_event *out) {
    if (queue->len == 0) return false;
    *out = queue->heap[0];
    dkv_sim_event last = queue->heap[--queue->len];
    size_t at = 0;
    for (;;) {
        size_t first = WAYS * at + 1;
        if (first >= queue->len) break;
        size_t end = first + WAYS < queue->len ? first + WAYS : queue->len;
        size_t earliest = first;
        for (size_t child = first + 1; child < end; child++) {
            if (is_before(&queue->heap[child], &queue->heap[earliest])) earliest = child;
        }
        if (is_before(&last, &queue->heap[earliest])) break;
        queue->heap[at] = queue->heap[earliest];
        at = earliest;
    }
    if (queue->len) queue->heap[at] = last;
    return true;
}

int64_t dkv_sim_queue_next(const dkv_sim_queue *queue) {
    return queue->len ? queue->heap[0].time_ns : INT64_MAX;
}

void dkv_sim_queue_free(dkv_sim_queue *queue) {
    if (!queue) return;
    free(queue->heap);
    *queue = (dkv_sim_queue){0};
}
