#include "sim/queue.h"

#include <stdlib.h>

#include "base/err.h"

/* Children of an element: four lie closer together in memory than two generations of two. */
#define WAYS 4u

static bool is_before(const dkv_sim_event *a, const dkv_sim_event *b) {
    if (a->time_ns != b->time_ns) return a->time_ns < b->time_ns;
    return a->sequence < b->sequence;
}

static int reserve(dkv_sim_event **events, size_t *cap, size_t wanted) {
    if (wanted <= *cap) return DKV_OK;
    size_t more = *cap ? *cap * 2 : 64;
    dkv_sim_event *moved = realloc(*events, more * sizeof *moved);
    if (!moved) return DKV_ERR_NO_MEMORY;
    *events = moved;
    *cap = more;
    return DKV_OK;
}

/* ---- the heap ---- */

/* There is room. */
static void heap_push(dkv_sim_queue *queue, const dkv_sim_event *event) {
    size_t at = queue->len++;
    while (at > 0) {
        size_t parent = (at - 1) / WAYS;
        if (is_before(&queue->heap[parent], event)) break;
        queue->heap[at] = queue->heap[parent];
        at = parent;
    }
    queue->heap[at] = *event;
}

static void heap_pop(dkv_sim_queue *queue) {
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
}

/* ---- slots ---- */

static int64_t slot_of(int64_t time_ns) {
    return time_ns >> DKV_SIM_SLOT_BITS;
}

static void pour(dkv_sim_queue *queue, dkv_sim_slot *slot) {
    for (size_t i = 0; i < slot->len; i++) heap_push(queue, &slot->events[i]);
    queue->later -= slot->len;
    slot->len = 0;
}

/* Makes sure that the earliest of all events is in the heap. */
static void settle(dkv_sim_queue *queue) {
    while (queue->later && (queue->len == 0 || slot_of(queue->heap[0].time_ns) > queue->poured)) {
        queue->poured++;
        pour(queue, &queue->slots[queue->poured % DKV_SIM_SLOTS]);
    }
    if (!queue->later && queue->len && slot_of(queue->heap[0].time_ns) > queue->poured) {
        queue->poured = slot_of(queue->heap[0].time_ns);
    }
}

int dkv_sim_queue_push(dkv_sim_queue *queue, dkv_sim_event event) {
    int64_t number = slot_of(event.time_ns);
    dkv_sim_slot *slot = &queue->slots[number % DKV_SIM_SLOTS];
    bool is_later = number > queue->poured && number < queue->poured + (int64_t)DKV_SIM_SLOTS;
    int err = reserve(&queue->heap, &queue->cap, queue->len + queue->later + 1);
    if (!err && is_later) err = reserve(&slot->events, &slot->cap, slot->len + 1);
    if (err) return err;
    event.sequence = queue->sequence++;
    if (is_later) {
        slot->events[slot->len++] = event;
        queue->later++;
    } else {
        heap_push(queue, &event);
    }
    return DKV_OK;
}

bool dkv_sim_queue_pop(dkv_sim_queue *queue, dkv_sim_event *out) {
    settle(queue);
    if (queue->len == 0) return false;
    *out = queue->heap[0];
    heap_pop(queue);
    return true;
}

int64_t dkv_sim_queue_next(dkv_sim_queue *queue) {
    settle(queue);
    return queue->len ? queue->heap[0].time_ns : INT64_MAX;
}

void dkv_sim_queue_free(dkv_sim_queue *queue) {
    if (!queue) return;
    for (unsigned i = 0; i < DKV_SIM_SLOTS; i++) free(queue->slots[i].events);
    free(queue->heap);
    *queue = (dkv_sim_queue){0};
}
