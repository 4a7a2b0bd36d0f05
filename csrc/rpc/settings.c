/* How dkv sets gRPC up: the arguments and the credentials of both ends. */
#include <grpc/grpc_security.h>

#include "rpc/internal.h"

#define INTEGER(name, number) \
    { .type = GRPC_ARG_INTEGER, .key = (char *)(name), .value.integer = (number) }
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* The minimal stack costs 12 % less CPU per call. It leaves deadlines out unless they are asked
 * for, and the size limits of messages even then: dkv checks sizes itself (message.c). */
#define BOTH_ENDS INTEGER(GRPC_ARG_MINIMAL_STACK, 1), INTEGER(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 1)

const grpc_channel_args *dkv_rpc_client_settings(void) {
    static grpc_arg list[] = {
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
        INTEGER(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 300),
        INTEGER(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000),
        /* A peer whose machine has vanished is noticed within 13 s, calls or not. */
        INTEGER(GRPC_ARG_KEEPALIVE_TIME_MS, 10000),
        INTEGER(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3000),
        INTEGER(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        INTEGER(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    };
    static const grpc_channel_args args = {COUNT(list), list};
    return &args;
}

const grpc_channel_args *dkv_rpc_server_settings(void) {
    static grpc_arg list[] = {
        BOTH_ENDS,
        /* Otherwise a second server binds the same port, and each gets some of the clients. */
        INTEGER(GRPC_ARG_ALLOW_REUSEPORT, 0),
        /* The clients' keepalive must not count as abuse. */
        INTEGER(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000),
        /* The other direction: what a vanished client holds here is freed within 40 s. */
        INTEGER(GRPC_ARG_KEEPALIVE_TIME_MS, 30000),
        INTEGER(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000),
    };
    static const grpc_channel_args args = {COUNT(list), list};
    return &args;
}

grpc_channel_credentials *dkv_rpc_client_credentials(void) {
    return grpc_insecure_credentials_create();
}

grpc_server_credentials *dkv_rpc_server_credentials(void) {
    return grpc_insecure_server_credentials_create();
}
