// This thread's failure message and the process's log.
#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STRINGIZE_(x) #x
#define STRINGIZE(x) STRINGIZE_(x)

static _Thread_local char message[2048];

static struct {
    void (*log)(void *, qn_log_level, const char *);
    void *user;
    qn_log_level level;
} sink = { .level = QN_LOG_WARN };

const char *qn_version(void)
{
    return STRINGIZE(QN_VERSION_MAJOR) "." STRINGIZE(QN_VERSION_MINOR) "." STRINGIZE(QN_VERSION_PATCH);
}

const char *qn_result_name(qn_result r)
{
    static const char *const names[] = {
        [QN_OK] = "QN_OK",
        [QN_ERR_INVALID] = "QN_ERR_INVALID",
        [QN_ERR_UNSUPPORTED] = "QN_ERR_UNSUPPORTED",
        [QN_ERR_NO_MEMORY] = "QN_ERR_NO_MEMORY",
        [QN_ERR_NO_DEVICE_MEMORY] = "QN_ERR_NO_DEVICE_MEMORY",
        [QN_ERR_NO_DEVICE] = "QN_ERR_NO_DEVICE",
        [QN_ERR_DEVICE_LOST] = "QN_ERR_DEVICE_LOST",
        [QN_ERR_IO] = "QN_ERR_IO",
        [QN_ERR_FORMAT] = "QN_ERR_FORMAT",
        [QN_ERR_CANCELLED] = "QN_ERR_CANCELLED",
    };
    return (size_t)r < sizeof names / sizeof *names ? names[r] : "unknown result";
}

const char *qn_error_message(void)
{
    return message;
}

qn_result qn_fail(qn_result code, const char *fmt, ...)
{
    char text[sizeof message]; // the arguments may point into the old message
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(message, text, sizeof message);
    return code;
}

qn_result qn_context_add(qn_result r, const char *fmt, ...)
{
    if (r == QN_OK) return r;
    char text[sizeof message];
    va_list ap;
    va_start(ap, fmt);
    int used = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (used < 0 || (size_t)used >= sizeof text) return r;
    // A message that does not fit loses its end.
    if (snprintf(text + used, sizeof text - (size_t)used, ": %s", message) < 0) return r;
    memcpy(message, text, sizeof message);
    return r;
}

void qn_log_set(void (*log)(void *, qn_log_level, const char *), void *user, qn_log_level level)
{
    sink.log = log;
    sink.user = user;
    sink.level = level == QN_LOG_DEFAULT ? QN_LOG_WARN : level;
}

bool qn_log_enabled(qn_log_level level)
{
    return level <= sink.level;
}

void qn_log(qn_log_level level, const char *fmt, ...)
{
    if (!qn_log_enabled(level)) return;
    char line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (sink.log)
        sink.log(sink.user, level, line);
    else
        fprintf(stderr, "quoin: %s\n", line);
}
