/* The completion queue and the one thread that polls it. */
#include <assert.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "rpc/internal.h"

#define NS_PER_S 1000000000

void dkv_rpc_start(grpc_call *call, const grpc_op *ops, size_t n_ops, dkv_rpc_tag *tag) {
    grpc_call_error refused = grpc_call_start_batch(call, ops, n_ops, tag, NULL);
    if (refused == GRPC_CALL_OK) return;
    fprintf(stderr, "dkv: gRPC refused a batch: %s\n", grpc_call_error_to_string(refused));
    abort();
}

/* gRPC logs what dkv reports itself as errors of calls. Only the words before an abort matter. */
static void log_last_words(gpr_log_func_args *args) {
    if (strstr(args->message, "assertion failed")) fprintf(stderr, "gRPC: %s\n", args->message);
}

static void set_up_log(void) {
    const char *wanted = getenv("DKV_GRPC_LOG");
    if (!wanted || strcmp(wanted, "1") != 0) gpr_set_log_function(log_last_words);
}

/* gRPC's own threads inherit the mask, so that signals go to the program's threads only. */
static void init_with_signals_blocked(void) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    grpc_init();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int dkv_rpc_loop_new(dkv_rpc_loop **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    dkv_rpc_loop *loop = calloc(1, sizeof *loop);
    if (!loop) return DKV_ERR_NO_MEMORY;
    pthread_once(&once, set_up_log);
    init_with_signals_blocked();
    dkv_rpc_list_init(&loop->wanting);
    loop->queue = grpc_completion_queue_create_for_next(NULL);
    loop->wake_target = grpc_lame_client_channel_create("wake", GRPC_STATUS_UNAVAILABLE, "wake");
    loop->wake_call = grpc_channel_create_call(loop->wake_target, NULL, GRPC_PROPAGATE_DEFAULTS,
                                               loop->queue, grpc_slice_from_static_string("/wake"),
                                               NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    *out = loop;
    return DKV_OK;
}

/* gRPC's monotonic clock has an origin of its own, so times are carried over as differences. */
static gpr_timespec deadline_of(int64_t until_ns) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t left_ns = until_ns - ((int64_t)now.tv_sec * NS_PER_S + now.tv_nsec);
    if (left_ns <= 0) return gpr_inf_past(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(left_ns, GPR_TIMESPAN));
}

void dkv_rpc_loop_set_lock(dkv_rpc_loop *loop, pthread_mutex_t *lock) {
    loop->lock = lock;
}

static grpc_event wait_first(dkv_rpc_loop *loop, gpr_timespec deadline) {
    if (loop->lock) pthread_mutex_unlock(loop->lock);
    grpc_event event = grpc_completion_queue_next(loop->queue, deadline, NULL);
    if (loop->lock) pthread_mutex_lock(loop->lock);
    return event;
}

unsigned dkv_rpc_loop_poll(dkv_rpc_loop *loop, int64_t until_ns, unsigned max) {
    unsigned handled = 0;
    dkv_rpc_streams_receive(&loop->wanting);
    gpr_timespec no_wait = gpr_inf_past(GPR_CLOCK_MONOTONIC);
    grpc_event event = wait_first(loop, deadline_of(until_ns));
    while (event.type == GRPC_OP_COMPLETE) {
        dkv_rpc_tag *tag = event.tag;
        if (tag == &loop->wake) {
            atomic_store(&loop->waking, false);
        } else {
            tag->complete(tag, event.success);
            if (++handled == max) break;
        }
        event = grpc_completion_queue_next(loop->queue, no_wait, NULL);
    }
    return handled;
}

void dkv_rpc_loop_wake(dkv_rpc_loop *loop) {
    if (atomic_exchange(&loop->waking, true)) return;
    dkv_rpc_start(loop->wake_call, NULL, 0, &loop->wake);
}

void dkv_rpc_loop_del(dkv_rpc_loop *loop) {
    if (!loop) return;
    assert(loop->open == 0);
    while (loop->live > 0) dkv_rpc_loop_poll(loop, INT64_MAX, UINT_MAX);
    grpc_call_unref(loop->wake_call);
    grpc_channel_destroy(loop->wake_target);
    grpc_completion_queue_shutdown(loop->queue);
    gpr_timespec never = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    while (grpc_completion_queue_next(loop->queue, never, NULL).type != GRPC_QUEUE_SHUTDOWN) {
        /* A wake may be left over. */
    }
    grpc_completion_queue_destroy(loop->queue);
    dkv_buf_free(&loop->joined);
    free(loop);
    grpc_shutdown_blocking();
}
