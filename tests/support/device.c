// One device per test program.
#include "device.h"
#include "args.h"
#include "args/fill_index.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qn_context *context;
static qn_device *device;

static int keep_module(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size, (void)user;
    if (strstr(info->dlpi_name, "libvulkan_") || strstr(info->dlpi_name, "libVkLayer"))
        (void)dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    return 0;
}

#if defined(__SANITIZE_ADDRESS__)
#define LEAK_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAK_SANITIZER 1
#endif
#endif
#if defined(LEAK_SANITIZER)
// The validation layer's own records refer to each other in circles that it does not break. What
// we leak of Vulkan's, it reports itself.
QN_API const char *__lsan_default_suppressions(void); // found by name
const char *__lsan_default_suppressions(void)
{
    return "leak:libVkLayer_khronos_validation\n";
}
#endif

void qn_keep_drivers(void)
{
    dl_iterate_phdr(keep_module, NULL);
}

static void skip_program(void)
{
    printf("skipped: %s\n", qn_error_message());
    exit(77);
}

void qn_device_or_skip(void)
{
    const char *wish = getenv("QUOIN_VALIDATE");
    bool validate = !wish || strcmp(wish, "0") != 0;
    qn_result r = qn_context_create(&(qn_context_opts){ .validate = validate }, &context);
    if (r == QN_ERR_UNSUPPORTED && validate) {
        printf("without validation: %s\n", qn_error_message());
        r = qn_context_create(NULL, &context);
    }
    if (r == QN_ERR_NO_DEVICE) skip_program();
    if (r != QN_OK) {
        printf("no context: %s\n", qn_error_message());
        exit(1);
    }
    qn_keep_drivers();
    r = qn_device_create(context, &(qn_device_opts){ .cache_dir = "" }, &device);
    if (r == QN_OK) {
        const qn_device_info *info = qn_device_describe(device);
        printf("device: %s, %s, %s kernels, subgroups of %u\n", info->name, info->driver,
               info->kernel_class == QN_CLASS_FLAT ? "flat" : "tiled", info->subgroup_size);
        return;
    }
    qn_context_destroy(&context);
    if (r == QN_ERR_NO_DEVICE) skip_program();
    printf("no device: %s\n", qn_error_message());
    exit(1);
}

qn_context *qn_test_context(void)
{
    return context;
}

qn_device *qn_test_device(void)
{
    return device;
}

qn_device *qn_test_device_with(const qn_device_opts *opts)
{
    qn_device_opts own = *opts;
    if (!own.cache_dir) own.cache_dir = "";
    qn_device *dev = NULL;
    assert_ok(qn_device_create(context, &own, &dev));
    return dev;
}

qn_device *qn_test_device_hiding(uint32_t hide)
{
    return qn_test_device_with(&(qn_device_opts){ .hide = hide });
}

qn_buffer *qn_test_buffer(qn_device *dev, uint64_t size, const char *name)
{
    qn_buffer *b = NULL;
    assert_ok(qn_buffer_create(dev, &(qn_buffer_opts){ .size = size, .name = name }, &b));
    return b;
}

qn_result qn_test_fill_index(qn_stream *s, qn_range y, uint32_t count, uint32_t start)
{
    fill_index_args args = { .count = count, .start = start };
    return qn_stream_dispatch(s, &(qn_dispatch){ .kernel = QN_K_fill_index,
                                                 .buffers = { y },
                                                 .args = &args,
                                                 .args_size = sizeof args,
                                                 .groups = { (count + 63) / 64, 1, 1 } });
}

int qn_device_finish(void)
{
    qn_device_destroy(&device);
    uint64_t messages = qn_context_validation_messages(context);
    qn_context_destroy(&context);
    if (messages) printf("%llu validation messages\n", (unsigned long long)messages);
    return messages != 0;
}

void qn_assert_ok(qn_result r, const char *call, const char *file, int line)
{
    if (r == QN_OK) return;
    print_error("%s: %s: %s\n", call, qn_result_name(r), qn_error_message());
    _fail(file, line);
}

void qn_assert_fails(qn_result r, qn_result code, const char *part, const char *call,
                     const char *file, int line)
{
    if (r == code && strstr(qn_error_message(), part)) return;
    print_error("%s: %s: %s\nexpected %s with \"%s\"\n", call, qn_result_name(r),
                r == QN_OK ? "" : qn_error_message(), qn_result_name(code), part);
    _fail(file, line);
}
