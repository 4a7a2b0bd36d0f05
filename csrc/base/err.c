#include "base/err.h"

const char *dkv_err_name(int err) {
    switch (err) {
    case DKV_OK: return "OK";
#define DKV_ERR_CASE(name, number, sentence) \
    case number: return #name;
        DKV_ERR_MAP(DKV_ERR_CASE)
#undef DKV_ERR_CASE
    default: return "?";
    }
}

const char *dkv_err_sentence(int err) {
    switch (err) {
    case DKV_OK: return "success";
#define DKV_ERR_CASE(name, number, sentence) \
    case number: return sentence;
        DKV_ERR_MAP(DKV_ERR_CASE)
#undef DKV_ERR_CASE
    default: return "unknown error code";
    }
}
