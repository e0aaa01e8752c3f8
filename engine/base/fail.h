// How a call fails: one sentence per thread, made where the failure is found and extended by
// callers that know more. Shared by all layers.
#ifndef QN_FAIL_H
#define QN_FAIL_H

#include <quoin/base.h>

#if defined(__GNUC__)
#define QN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define QN_PRINTF(fmt, args)
#endif

// Replaces this thread's message and returns `code`. Name the thing, what was found, what was
// expected. No function names, no trailing period.
QN_API qn_result qn_fail(qn_result code, const char *fmt, ...) QN_PRINTF(2, 3);

// Puts "context: " before the message when r is a failure; returns r.
QN_API qn_result qn_context_add(qn_result r, const char *fmt, ...) QN_PRINTF(2, 3);

// Leaves the function on failure. For functions with nothing to release.
#define QN_TRY(call)                                                                               \
    do {                                                                                           \
        qn_result qn_try_result_ = (call);                                                         \
        if (qn_try_result_ != QN_OK) return qn_try_result_;                                        \
    } while (0)

// Writes one line to the log when `level` is enabled.
QN_API void qn_log(qn_log_level level, const char *fmt, ...) QN_PRINTF(2, 3);
QN_API bool qn_log_enabled(qn_log_level level);

#endif
