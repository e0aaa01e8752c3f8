// GLSL to SPIR-V by shaderc, behind one call, so that the compiler can live in a library of its
// own. Knows nothing of quoin; uses the C library's allocator.
#ifndef QN_GLSL_H
#define QN_GLSL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define QN_GLSL_API
#else
#define QN_GLSL_API __attribute__((visibility("default")))
#endif

typedef struct qn_glsl_result {
    uint32_t *words; // NULL: see `message`
    size_t size;     // bytes
    char *message;   // what the compiler said, lines with file and line; NULL: nothing
} qn_glsl_result;

// Compiles the compute shader in file `path` for Vulkan 1.2. `defines` ("NAME" or "NAME=VALUE")
// ends with NULL. Included files are looked for beside the including one, then in `root`. `names`
// keeps those of the source in the module. False: see out->message.
QN_GLSL_API bool qn_glsl_compile(const char *root, const char *path, const char *const *defines,
                                 bool names, qn_glsl_result *out);
QN_GLSL_API void qn_glsl_free(qn_glsl_result *result);

#endif
