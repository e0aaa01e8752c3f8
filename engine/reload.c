// Developer builds: a row's GLSL compiled at run time, with the defines of tools/shaders.cmake.
#include "kernel.h"

#if defined(QN_HAVE_SHADERC)
#include <shaderc/shaderc.h>

#include <string.h>

#define LARGEST_SOURCE (UINT64_C(1) << 20)

// An included file; its text, or the reason why it could not be read.
typedef struct included {
    shaderc_include_result result; // first: the two are converted into each other
    char *path, *text;
    size_t size;
} included;

// `requested` is looked up in the including file's directory for "..." and then in the root.
static shaderc_include_result *include(void *root, const char *requested, int type,
                                       const char *requesting, size_t depth)
{
    (void)depth;
    static shaderc_include_result no_memory = { .content = "out of memory", .content_length = 13 };
    included *inc = qn_calloc(1, sizeof *inc);
    if (!inc) return &no_memory;
    inc->result.user_data = inc;
    const char *slash = strrchr(requesting, '/');
    if (type == shaderc_include_type_relative && slash) {
        char *dir = qn_strndup(requesting, (size_t)(slash - requesting));
        inc->path = dir ? qn_path_join(dir, requested) : NULL;
        qn_free(dir);
    }
    if (!inc->path || !qn_file_exists(inc->path)) {
        qn_free(inc->path);
        inc->path = qn_path_join(root, requested);
    }
    if (inc->path && qn_read_file(inc->path, LARGEST_SOURCE, &inc->text, &inc->size) == QN_OK) {
        inc->result.source_name = inc->path;
        inc->result.source_name_length = strlen(inc->path);
        inc->result.content = inc->text;
        inc->result.content_length = inc->size;
    } else { // an empty name says that the content is a message
        inc->result.source_name = "";
        inc->result.content = inc->path ? qn_error_message() : "out of memory";
        inc->result.content_length = strlen(inc->result.content);
    }
    return &inc->result;
}

static void release(void *root, shaderc_include_result *result)
{
    (void)root;
    included *inc = result->user_data;
    if (!inc) return;
    qn_free(inc->path);
    qn_free(inc->text);
    qn_free(inc);
}

static void set_options(shaderc_compile_options_t options, const qn_context *ctx, bool flat,
                        qn_storage storage)
{
    shaderc_compile_options_set_optimization_level(options, shaderc_optimization_level_performance);
    shaderc_compile_options_set_target_env(options, shaderc_target_env_vulkan,
                                           shaderc_env_version_vulkan_1_2);
    shaderc_compile_options_set_include_callbacks(options, include, release, ctx->shader_dir);
    if (flat) shaderc_compile_options_add_macro_definition(options, "QN_FLAT", 7, NULL, 0);
    if (storage == QN_STORE_F16)
        shaderc_compile_options_add_macro_definition(options, "QN_F16", 6, NULL, 0);
    if (storage == QN_STORE_BF16)
        shaderc_compile_options_add_macro_definition(options, "QN_BF16", 7, NULL, 0);
}

static qn_result take_words(const shaderc_compilation_result_t result, uint32_t **words,
                            size_t *size)
{
    if (!result) return qn_no_memory(0);
    if (shaderc_result_get_compilation_status(result) != shaderc_compilation_status_success) {
        const char *text = shaderc_result_get_error_message(result);
        size_t length = strlen(text);
        while (length && text[length - 1] == '\n') length--;
        return qn_fail(QN_ERR_INVALID, "%.*s", (int)length, text);
    }
    *size = shaderc_result_get_length(result);
    *words = qn_malloc(*size);
    if (!*words) return qn_no_memory(*size);
    memcpy(*words, shaderc_result_get_bytes(result), *size);
    return QN_OK;
}

static qn_result compile(const qn_context *ctx, const char *path, bool flat, qn_storage storage,
                         uint32_t **words, size_t *size)
{
    char *source = NULL;
    size_t length = 0;
    QN_TRY(qn_read_file(path, LARGEST_SOURCE, &source, &length));
    shaderc_compiler_t compiler = shaderc_compiler_initialize();
    shaderc_compile_options_t options = shaderc_compile_options_initialize();
    shaderc_compilation_result_t result = NULL;
    if (compiler && options) {
        set_options(options, ctx, flat, storage);
        result = shaderc_compile_into_spv(compiler, source, length, shaderc_compute_shader, path,
                                          "main", options);
    }
    qn_result r = take_words(result, words, size);
    shaderc_result_release(result);
    shaderc_compile_options_release(options);
    shaderc_compiler_release(compiler);
    qn_free(source);
    return r;
}

qn_result qn_reload_compile(const qn_context *ctx, const qn_row *row, bool flat,
                            qn_storage storage, uint32_t **words, size_t *size)
{
    char *path = qn_path_join(ctx->shader_dir, row->file);
    if (!path) return qn_no_memory(strlen(ctx->shader_dir) + strlen(row->file) + 2);
    qn_result r = compile(ctx, path, flat, storage, words, size);
    qn_free(path);
    return qn_context_add(r, "kernel %s", row->id);
}

#else

// Contexts with a shader directory are refused by builds without a compiler.
qn_result qn_reload_compile(const qn_context *ctx, const qn_row *row, bool flat,
                            qn_storage storage, uint32_t **words, size_t *size)
{
    (void)ctx, (void)flat, (void)storage, (void)words, (void)size;
    return qn_fail(QN_ERR_UNSUPPORTED, "kernel %s: this build cannot compile shaders", row->id);
}

#endif
