/* The one table between dkv's error codes and gRPC's. Several codes share a status; the first row
 * of a status is what that status means when it comes from a peer. */
#include <grpc/status.h>
#include <stddef.h>

#include "base/err.h"
#include "rpc/rpc.h"

typedef struct row {
    int err;
    int status;
} row;

static const row rows[] = {
    {DKV_OK, GRPC_STATUS_OK},
    {DKV_ERR_NOT_FOUND, GRPC_STATUS_NOT_FOUND},
    {DKV_ERR_INVALID, GRPC_STATUS_INVALID_ARGUMENT},
    {DKV_ERR_UNAVAILABLE, GRPC_STATUS_UNAVAILABLE},
    {DKV_ERR_DEADLINE, GRPC_STATUS_DEADLINE_EXCEEDED},
    {DKV_ERR_BUSY, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {DKV_ERR_NO_SPACE, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {DKV_ERR_PRECONDITION, GRPC_STATUS_FAILED_PRECONDITION},
    {DKV_ERR_UNAUTHENTICATED, GRPC_STATUS_UNAUTHENTICATED},
    {DKV_ERR_PERMISSION, GRPC_STATUS_PERMISSION_DENIED},
    {DKV_ERR_DATA_LOSS, GRPC_STATUS_DATA_LOSS},
    {DKV_ERR_NO_MEMORY, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {DKV_ERR_INTERNAL, GRPC_STATUS_INTERNAL},
    {DKV_ERR_IO, GRPC_STATUS_INTERNAL},
    {DKV_ERR_CANCELLED, GRPC_STATUS_CANCELLED},
    {DKV_ERR_CLOCK, GRPC_STATUS_FAILED_PRECONDITION},
    {DKV_ERR_PROTOCOL, GRPC_STATUS_INVALID_ARGUMENT},
    {DKV_ERR_EPOCH, GRPC_STATUS_ABORTED},
    {DKV_ERR_LOCKED, GRPC_STATUS_FAILED_PRECONDITION},
    /* Statuses that dkv never sends for a code of its own. */
    {DKV_ERR_PROTOCOL, GRPC_STATUS_UNIMPLEMENTED},
    {DKV_ERR_PRECONDITION, GRPC_STATUS_ALREADY_EXISTS},
    {DKV_ERR_INVALID, GRPC_STATUS_OUT_OF_RANGE},
};

#define N_ROWS (sizeof rows / sizeof rows[0])

int dkv_rpc_status_of(int err) {
    for (size_t i = 0; i < N_ROWS; i++) {
        if (rows[i].err == err) return rows[i].status;
    }
    return GRPC_STATUS_UNKNOWN;
}

int dkv_rpc_err_of(int status) {
    for (size_t i = 0; i < N_ROWS; i++) {
        if (rows[i].status == status) return rows[i].err;
    }
    return DKV_ERR_INTERNAL;
}
