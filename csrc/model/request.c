#include "model/request.h"

#include <stdio.h>

#include "base/err.h"
#include "base/text.h"

static int refuse(char *why, const char *what, uint64_t is, uint64_t most, const char *unit) {
    char is_text[DKV_COUNT_TEXT], most_text[DKV_COUNT_TEXT];
    if (!why) return DKV_ERR_INVALID;
    snprintf(why, DKV_DETAIL_MAX, "%s %s%s; at most %s", what, dkv_count_text(is, is_text), unit,
             dkv_count_text(most, most_text));
    return DKV_ERR_INVALID;
}

int dkv_request_check(const dkv_request *request, char *why) {
    if (request->op < DKV_OP_GET || request->op > DKV_OP_DELETE) {
        return refuse(why, "the operation has the number", request->op, DKV_OP_DELETE, "");
    }
    if (request->level > DKV_LEVEL_ALL) {
        return refuse(why, "the level has the number", request->level, DKV_LEVEL_ALL, "");
    }
    if (request->key.len == 0) {
        if (why) snprintf(why, DKV_DETAIL_MAX, "the key is empty; it must have 1 to 1,024 bytes");
        return DKV_ERR_INVALID;
    }
    if (request->key.len > DKV_KEY_MAX) {
        return refuse(why, "the key has", request->key.len, DKV_KEY_MAX, " bytes");
    }
    if (request->value.len > DKV_VALUE_MAX) {
        return refuse(why, "the value has", request->value.len, DKV_VALUE_MAX, " bytes");
    }
    if (request->timeout_ms > DKV_TIMEOUT_MAX_MS) {
        return refuse(why, "the timeout has", request->timeout_ms, DKV_TIMEOUT_MAX_MS,
                      " milliseconds");
    }
    return DKV_OK;
}

unsigned dkv_level_needs(dkv_level level, dkv_op op, unsigned n) {
    if (level == DKV_LEVEL_DEFAULT) level = op == DKV_OP_GET ? DKV_LEVEL_ONE : DKV_LEVEL_ALL;
    if (level == DKV_LEVEL_ONE) return 1;
    return level == DKV_LEVEL_QUORUM ? n / 2 + 1 : n;
}
