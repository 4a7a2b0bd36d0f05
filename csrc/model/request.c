#include "model/request.h"

#include <stdio.h>

#include "base/err.h"

static int refuse(char *why, const char *what, unsigned long long is, unsigned long long most) {
    if (why) snprintf(why, DKV_DETAIL_MAX, "%s: %llu, allowed are at most %llu", what, is, most);
    return DKV_ERR_INVALID;
}

int dkv_request_check(const dkv_request *request, char *why) {
    if (request->op < DKV_OP_GET || request->op > DKV_OP_DELETE) {
        return refuse(why, "operation", request->op, DKV_OP_DELETE);
    }
    if (request->level > DKV_LEVEL_ALL) return refuse(why, "level", request->level, DKV_LEVEL_ALL);
    if (request->key.len == 0) {
        if (why) snprintf(why, DKV_DETAIL_MAX, "the key is empty; it must have 1 to 1024 bytes");
        return DKV_ERR_INVALID;
    }
    if (request->key.len > DKV_KEY_MAX) {
        return refuse(why, "key length in bytes", request->key.len, DKV_KEY_MAX);
    }
    if (request->value.len > DKV_VALUE_MAX) {
        return refuse(why, "value length in bytes", request->value.len, DKV_VALUE_MAX);
    }
    if (request->timeout_ms > DKV_TIMEOUT_MAX_MS) {
        return refuse(why, "timeout in milliseconds", request->timeout_ms, DKV_TIMEOUT_MAX_MS);
    }
    return DKV_OK;
}

unsigned dkv_level_needs(dkv_level level, dkv_op op, unsigned n) {
    if (level == DKV_LEVEL_DEFAULT) level = op == DKV_OP_GET ? DKV_LEVEL_ONE : DKV_LEVEL_ALL;
    if (level == DKV_LEVEL_ONE) return 1;
    return level == DKV_LEVEL_QUORUM ? n / 2 + 1 : n;
}
