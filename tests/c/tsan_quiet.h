/* Under ThreadSanitizer: gRPC and what it stands on are not instrumented, so what they do among
 * themselves looks like races. Only our own code is to be judged. */
#ifndef DKV_TESTS_TSAN_QUIET_H
#define DKV_TESTS_TSAN_QUIET_H

#ifdef __SANITIZE_THREAD__
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif

#ifdef TSAN
const char *__tsan_default_suppressions(void);

__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void) {
    return "called_from_lib:libgrpc.so\n"
           "called_from_lib:libgpr.so\n"
           "called_from_lib:libabsl_synchronization\n"
           "called_from_lib:libabsl_graphcycles\n"
           "called_from_lib:libcares.so\n"
           "called_from_lib:libstdc++.so\n"
           "race:dkv_rpc_detail_copy\n"
           "race:libgrpc.so\n"
           "race:libabsl_\n"
           "race:libgpr.so\n"
           "deadlock:libgrpc.so\n"
           "mutex:libgrpc.so\n";
}
#endif

#endif
