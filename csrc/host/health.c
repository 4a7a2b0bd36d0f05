/* grpc.health.v1.Health, see proto/grpc/health/v1/health.proto. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "grpc/health/v1/health.pb-c.h"
#include "host/internal.h"
#include "wire/frame.h"

typedef Grpc__Health__V1__HealthCheckRequest check_request;
typedef Grpc__Health__V1__HealthCheckResponse check_response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

/* ---- requests and answers ---- */

static int read_request(dkv_slice bytes, bool *is_known) {
    _Alignas(max_align_t) uint8_t chunk[512];
    dkv_wire_arena arena;
    dkv_wire_arena_init(&arena, chunk, sizeof chunk, DKV_WIRE_ITEM_MEMORY);
    ProtobufCMessage *message;
    int err = dkv_wire_unpack(&arena, &grpc__health__v1__health_check_request__descriptor, bytes,
                              &message);
    if (!err) {
        const char *service = ((const check_request *)message)->service;
        *is_known = service[0] == 0 || strcmp(service, "dkv.v1.KV") == 0;
    }
    dkv_wire_arena_reset(&arena);
    return err;
}

/* The answer for a service, in host->scratch. */
static int put_response(dkv_host *host, bool is_known) {
    bool is_serving = !host->stopping && !host->failure;
    check_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = !is_known    ? STATUS(SERVICE_UNKNOWN)
                      : is_serving ? STATUS(SERVING)
                                   : STATUS(NOT_SERVING);
    host->scratch.len = 0;
    return dkv_wire_append(&host->scratch, &response.base);
}

/* ---- Check ---- */

void dkv_health_check(void *user, dkv_rpc_call *call, dkv_slice bytes, uint32_t timeout_ms) {
    dkv_host *host = user;
    (void)timeout_ms;
    bool is_known;
    int err = read_request(bytes, &is_known);
    if (!err && !is_known) {
        dkv_rpc_call_reply(call, DKV_ERR_NOT_FOUND, "unknown service", (dkv_slice){0});
        return;
    }
    if (!err) err = put_response(host, true);
    dkv_slice answer = err ? (dkv_slice){0} : dkv_buf_slice(&host->scratch);
    dkv_rpc_call_reply(call, err, dkv_err_sentence(err), answer);
}

/* ---- Watch ---- */

struct dkv_watch {
    dkv_host *host;
    dkv_rpc_stream *stream;
    bool begun;      /* its request has come */
    bool is_known;   /* the service that it names */
    dkv_watch *next; /* in host->watches */
    dkv_watch *prev;
};

static void tell(dkv_watch *watch) {
    dkv_host *host = watch->host;
    int err = put_response(host, watch->is_known);
    if (!err) err = dkv_rpc_stream_send(watch->stream, dkv_buf_slice(&host->scratch));
    if (err) {
        dkv_rpc_stream_fail(watch->stream, err, dkv_err_sentence(err));
    } else {
        dkv_rpc_stream_flush(watch->stream);
    }
}

void dkv_watches_finish(dkv_host *host) {
    for (dkv_watch *watch = host->watches; watch; watch = watch->next) {
        if (!watch->begun) continue;
        if (watch->is_known) tell(watch);
        dkv_rpc_stream_finish(watch->stream);
    }
}

static void on_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    dkv_watch *watch = user;
    if (!watch) return;
    int err = watch->begun ? DKV_ERR_PROTOCOL : read_request(bytes, &watch->is_known);
    if (err) {
        dkv_rpc_stream_fail(stream, err, "Watch takes one HealthCheckRequest");
        return;
    }
    watch->begun = true;
    tell(watch);
    if (watch->host->stopping) dkv_rpc_stream_finish(stream);
}

/* The client has said all that it has to say, and waits for what it will be told. */
static void on_finished(void *user, dkv_rpc_stream *stream) {
    const dkv_watch *watch = user;
    if (watch && watch->begun) return;
    dkv_rpc_stream_fail(stream, DKV_ERR_PROTOCOL, "Watch takes one HealthCheckRequest");
}

static void on_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    dkv_watch *watch = user;
    (void)stream;
    (void)err;
    (void)detail;
    if (!watch) return;
    if (watch->next) watch->next->prev = watch->prev;
    if (watch->prev) {
        watch->prev->next = watch->next;
    } else {
        watch->host->watches = watch->next;
    }
    free(watch);
}

void *dkv_watch_accept(void *user, dkv_rpc_stream *stream) {
    dkv_host *host = user;
    dkv_watch *watch = calloc(1, sizeof *watch);
    if (!watch) {
        dkv_rpc_stream_cancel(stream);
        return NULL;
    }
    watch->host = host;
    watch->stream = stream;
    watch->next = host->watches;
    if (watch->next) watch->next->prev = watch;
    host->watches = watch;
    return watch;
}

const dkv_rpc_stream_events dkv_watch_events = {
    .message = on_message,
    .closed = on_closed,
    .finished = on_finished,
    .items_apart = true,
};
