// The one caller of shaderc.
#include "glsl.h"

#include <errno.h>
#include <shaderc/shaderc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST_SOURCE (1 << 20)

static char *join(const char *dir, size_t length, const char *name)
{
    char *path = malloc(length + strlen(name) + 2);
    if (path) sprintf(path, "%.*s/%s", (int)length, dir, name);
    return path;
}

// The file's text, NULL when it cannot be read.
static char *read_text(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = malloc(LARGEST_SOURCE);
    *size = text ? fread(text, 1, LARGEST_SOURCE, f) : 0;
    bool whole = text && !ferror(f) && feof(f);
    fclose(f);
    if (whole) return text;
    free(text);
    errno = EFBIG;
    return NULL;
}

// ---------------------------------------------------------------------------------- includes

typedef struct included {
    shaderc_include_result result;
    char *path, *text;
} included;

static shaderc_include_result *include(void *root, const char *requested, int type,
                                       const char *requesting, size_t depth)
{
    (void)depth;
    static char no_memory[] = "out of memory";
    static shaderc_include_result failed = { "", 0, no_memory, sizeof no_memory - 1, NULL };
    included *inc = calloc(1, sizeof *inc);
    if (!inc) return &failed;
    inc->result.user_data = inc;
    const char *slash = strrchr(requesting, '/');
    size_t size = 0;
    if (type == shaderc_include_type_relative && slash) {
        inc->path = join(requesting, (size_t)(slash - requesting), requested);
        inc->text = inc->path ? read_text(inc->path, &size) : NULL;
    }
    if (!inc->text) {
        free(inc->path);
        inc->path = join(root, strlen(root), requested);
        inc->text = inc->path ? read_text(inc->path, &size) : NULL;
    }
    if (inc->text) {
        inc->result.source_name = inc->path;
        inc->result.source_name_length = strlen(inc->path);
        inc->result.content = inc->text;
        inc->result.content_length = size;
    } else { // without a name, the content is the reason
        inc->result.source_name = "";
        inc->result.content = "no such file beside the including one or in the shader directory";
        inc->result.content_length = strlen(inc->result.content);
    }
    return &inc->result;
}

static void release(void *root, shaderc_include_result *result)
{
    (void)root;
    included *inc = result->user_data;
    if (!inc) return;
    free(inc->path);
    free(inc->text);
    free(inc);
}

// ---------------------------------------------------------------------------------- compiling

static bool refuse(qn_glsl_result *out, const char *path, const char *text)
{
    size_t length = strlen(text);
    while (length && text[length - 1] == '\n') length--;
    size_t size = strlen(path) + length + 3;
    out->message = malloc(size);
    if (out->message) snprintf(out->message, size, "%s%s%.*s", path, path[0] ? ": " : "",
                               (int)length, text);
    return false;
}

static bool take(shaderc_compilation_result_t result, qn_glsl_result *out)
{
    if (!result) return refuse(out, "", "out of memory");
    if (shaderc_result_get_compilation_status(result) != shaderc_compilation_status_success)
        return refuse(out, "", shaderc_result_get_error_message(result));
    out->size = shaderc_result_get_length(result);
    out->words = malloc(out->size);
    if (!out->words) return refuse(out, "", "out of memory");
    memcpy(out->words, shaderc_result_get_bytes(result), out->size);
    return true;
}

bool qn_glsl_compile(const char *root, const char *path, const char *const *defines, bool names,
                     qn_glsl_result *out)
{
    *out = (qn_glsl_result){ 0 };
    size_t size;
    char *source = read_text(path, &size);
    if (!source) return refuse(out, path, strerror(errno));
    shaderc_compiler_t compiler = shaderc_compiler_initialize();
    shaderc_compile_options_t options = shaderc_compile_options_initialize();
    shaderc_compilation_result_t result = NULL;
    if (compiler && options) {
        shaderc_compile_options_set_optimization_level(options,
                                                       shaderc_optimization_level_performance);
        shaderc_compile_options_set_target_env(options, shaderc_target_env_vulkan,
                                               shaderc_env_version_vulkan_1_2);
        if (names) shaderc_compile_options_set_generate_debug_info(options);
        shaderc_compile_options_set_include_callbacks(options, include, release,
                                                      (void *)(uintptr_t)root);
        for (; *defines; defines++) {
            const char *value = strchr(*defines, '=');
            size_t length = value ? (size_t)(value - *defines) : strlen(*defines);
            shaderc_compile_options_add_macro_definition(options, *defines, length,
                                                         value ? value + 1 : NULL,
                                                         value ? strlen(value + 1) : 0);
        }
        result = shaderc_compile_into_spv(compiler, source, size, shaderc_compute_shader, path,
                                          "main", options);
    }
    bool ok = take(result, out);
    shaderc_result_release(result);
    shaderc_compile_options_release(options);
    shaderc_compiler_release(compiler);
    free(source);
    return ok;
}

void qn_glsl_free(qn_glsl_result *result)
{
    free(result->words);
    free(result->message);
    *result = (qn_glsl_result){ 0 };
}
