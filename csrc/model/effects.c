#include "model/effects.h"

static uint32_t or_default(uint32_t value, uint32_t otherwise) {
    return value ? value : otherwise;
}

dkv_timing dkv_timing_or_default(dkv_timing timing) {
    return (dkv_timing){
        .attempt_ms = or_default(timing.attempt_ms, 40),
        .connect_ms = or_default(timing.connect_ms, 500),
        .ping_ms = or_default(timing.ping_ms, 250),
        .silence_ms = or_default(timing.silence_ms, 1500),
        .retry_ms = or_default(timing.retry_ms, 250),
        .idle_ms = or_default(timing.idle_ms, 60000),
        .round_ms = or_default(timing.round_ms, 600000),
    };
}
