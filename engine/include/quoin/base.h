// quoin/base.h: results, errors, logging and the root object. Includes only the C library.
//
// Conventions of every quoin header:
//  - A call that can fail returns qn_result. A failing call leaves its out-parameters
//    NULL or untouched and has no other effect.
//  - Options are plain structs passed by const pointer. Zero is the good default of every
//    field, NULL means all defaults, and the struct need only live until the call returns.
//  - _create/_destroy and _open/_close come in pairs; the latter set the handle to NULL and
//    accept NULL inside. Children are destroyed before their parents.
#ifndef QUOIN_BASE_H
#define QUOIN_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define QN_API
#else
#define QN_API __attribute__((visibility("default")))
#endif

#define QN_VERSION_MAJOR 0
#define QN_VERSION_MINOR 1
#define QN_VERSION_PATCH 0

// The library's version, "0.1.0".
QN_API const char *qn_version(void);

typedef enum qn_result {
    QN_OK = 0,
    QN_ERR_INVALID,          // the caller's mistake: shape, dtype, option, NULL
    QN_ERR_UNSUPPORTED,      // well-formed, but this device or build cannot do it
    QN_ERR_NO_MEMORY,        // host allocation failed
    QN_ERR_NO_DEVICE_MEMORY, // the message names the request and the budget
    QN_ERR_NO_DEVICE,        // no Vulkan loader, driver or matching device
    QN_ERR_DEVICE_LOST,      // sticky: every later call on that device returns it
    QN_ERR_IO,               // a file or socket failed; the message has the path
    QN_ERR_FORMAT,           // malformed file; the message has path and place
    QN_ERR_CANCELLED,        // the caller's callback said stop
} qn_result;

// The enumerator's name, "QN_ERR_IO"; never NULL.
QN_API const char *qn_result_name(qn_result r);

// What last went wrong on this thread, outermost context first:
//   loading model.safetensors: tensor h.0.wq: shape [512,64], expected [512,128]
// Valid until this thread's next failing call. Never NULL.
QN_API const char *qn_error_message(void);

typedef enum qn_log_level {
    QN_LOG_DEFAULT = 0, // warnings and errors
    QN_LOG_OFF,
    QN_LOG_ERROR,
    QN_LOG_WARN,
    QN_LOG_INFO,
    QN_LOG_DEBUG,
} qn_log_level;

// Process-wide. `log` receives whole lines without the newline, possibly from several
// threads at once; NULL: lines go to stderr.
QN_API void qn_log_set(void (*log)(void *user, qn_log_level level, const char *line), void *user,
                       qn_log_level level);

typedef struct qn_context_opts {
    bool validate;          // enable the Khronos validation layer; an error where it is absent
    const char *shader_dir; // developer builds: compile GLSL from here instead of embedded SPIR-V
} qn_context_opts;

// The root object: one Vulkan instance. Thread-safe. QN_ERR_NO_DEVICE with advice on what to
// install when there is no Vulkan loader.
typedef struct qn_context qn_context;
QN_API qn_result qn_context_create(const qn_context_opts *opts, qn_context **out);
QN_API void qn_context_destroy(qn_context **ctx);

// Messages the validation layer has reported so far in this context (warnings and errors).
QN_API uint64_t qn_context_validation_messages(const qn_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
