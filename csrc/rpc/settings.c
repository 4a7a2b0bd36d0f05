/* How dkv sets gRPC up: the arguments and the credentials of both ends. */
#include <grpc/grpc_security.h>

#include "base/err.h"
#include "rpc/internal.h"

#define INTEGER(name, number) \
    { .type = GRPC_ARG_INTEGER, .key = (char *)(name), .value.integer = (number) }
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* The minimal stack costs 12 % less CPU per call. It leaves deadlines out unless they are asked
 * for, and the size limits of messages even then: dkv checks sizes itself (message.c). */
#define BOTH_ENDS INTEGER(GRPC_ARG_MINIMAL_STACK, 1), INTEGER(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 1)

grpc_channel *dkv_rpc_connect(const char *address) {
    grpc_arg list[] = {
        BOTH_ENDS,
        INTEGER(GRPC_ARG_ENABLE_RETRIES, 0),
        /* A proxy for the web has no business between nodes. */
        INTEGER(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        /* Otherwise every host name is asked for a TXT record first. */
        INTEGER(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        /* A channel has a connection of its own. Shared ones would tie loops to each other. */
        INTEGER(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        /* The minimum is also the time limit for connecting to a peer that does not answer. */
        INTEGER(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100),
        INTEGER(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000),
        INTEGER(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000),
        /* A peer whose machine has vanished is noticed within 20 s, calls or not. The time-out is
         * the kernel's too (TCP_USER_TIMEOUT): a peer that is merely busy must not exceed it. */
        INTEGER(GRPC_ARG_KEEPALIVE_TIME_MS, 10000),
        INTEGER(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000),
        INTEGER(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        INTEGER(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    };
    grpc_channel_args args = {COUNT(list), list};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(address, credentials, &args);
    grpc_channel_credentials_release(credentials);
    return channel;
}

grpc_server *dkv_rpc_serve(size_t memory_max) {
    /* gRPC puts a message together before anybody can see how large it is. The quota is what keeps
     * a client that announces 4 GB from getting them. */
    grpc_resource_quota *quota = grpc_resource_quota_create("dkv");
    grpc_resource_quota_resize(quota, memory_max);
    grpc_arg list[] = {
        BOTH_ENDS,
        {.type = GRPC_ARG_POINTER,
         .key = (char *)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
        /* Otherwise a second server binds the same port, and each gets some of the clients. */
        INTEGER(GRPC_ARG_ALLOW_REUSEPORT, 0),
        /* The clients' keepalive must not count as abuse. */
        INTEGER(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000),
        /* The other direction: what a vanished client holds here is freed within 40 s. */
        INTEGER(GRPC_ARG_KEEPALIVE_TIME_MS, 30000),
        INTEGER(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000),
    };
    grpc_channel_args args = {COUNT(list), list};
    grpc_server *server = grpc_server_create(&args, NULL);
    grpc_resource_quota_unref(quota);
    return server;
}

int dkv_rpc_listen(grpc_server *server, const char *address, uint16_t *port) {
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    int bound = grpc_server_add_http2_port(server, address, credentials);
    grpc_server_credentials_release(credentials);
    if (bound <= 0) return DKV_ERR_UNAVAILABLE;
    *port = (uint16_t)bound;
    return DKV_OK;
}
