// Developer builds: a row's GLSL compiled at run time, with the defines of tools/shaders.cmake.
#include "kernel.h"

#if defined(QN_HAVE_SHADERC)
#include <glsl.h>

#include <string.h>

#define CHECK_MILLISECONDS 200 // recording asks for thousands of kernels

// When a file other than a kernel's own was last changed: all of them count as included ones.
static uint64_t newest_include(const char *dir)
{
    char **names;
    size_t count;
    uint64_t newest = 0;
    if (qn_list_dir(dir, &names, &count) != QN_OK) return 0;
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(names[i], '.');
        if (dot && !strcmp(dot, ".comp")) continue;
        char *path = qn_path_join(dir, names[i]);
        uint64_t time = 0;
        if (path) time = qn_is_dir(path) ? newest_include(path) : qn_file_time(path);
        if (time > newest) newest = time;
        qn_free(path);
    }
    qn_free_names(names, count);
    return newest;
}

uint64_t qn_reload_version(qn_context *ctx, const qn_row *row)
{
    char *path = qn_path_join(ctx->shader_dir, row->file);
    uint64_t own = path ? qn_file_time(path) : 0;
    qn_free(path);
    uint64_t now = (uint64_t)(1e3 * qn_clock());
    if (now >= atomic_load(&ctx->include_checked) + CHECK_MILLISECONDS) {
        atomic_store(&ctx->include_time, newest_include(ctx->shader_dir));
        atomic_store(&ctx->include_checked, now);
    }
    return own * 31 + atomic_load(&ctx->include_time);
}

qn_result qn_reload_compile(const qn_context *ctx, const qn_row *row, bool flat, qn_storage storage,
                            uint32_t **words, size_t *size)
{
    static const char *const names[] = { NULL, "QN_F16", "QN_BF16", "QN_Q8_0", "QN_Q4_0" };
    const char *defines[3] = { NULL };
    size_t count = 0;
    if (flat) defines[count++] = "QN_FLAT";
    if (names[storage]) defines[count++] = names[storage];
    char *path = qn_path_join(ctx->shader_dir, row->file);
    if (!path) return qn_no_memory(strlen(ctx->shader_dir) + strlen(row->file) + 2);
    qn_glsl_result made;
    qn_result r = QN_OK;
    if (!qn_glsl_compile(ctx->shader_dir, path, defines, false, &made))
        r = qn_fail(QN_ERR_INVALID, "kernel %s: %s", row->id,
                    made.message ? made.message : "out of memory");
    else if (!(*words = qn_malloc(made.size)))
        r = qn_no_memory(made.size);
    else
        memcpy(*words, made.words, *size = made.size);
    qn_glsl_free(&made);
    qn_free(path);
    return r;
}

#else

uint64_t qn_reload_version(qn_context *ctx, const qn_row *row)
{
    (void)ctx, (void)row;
    return 0;
}

// Contexts with a shader directory are refused by builds without a compiler.
qn_result qn_reload_compile(const qn_context *ctx, const qn_row *row, bool flat, qn_storage storage,
                            uint32_t **words, size_t *size)
{
    (void)ctx, (void)flat, (void)storage, (void)words, (void)size;
    return qn_fail(QN_ERR_UNSUPPORTED, "kernel %s: this build cannot compile shaders", row->id);
}

#endif
