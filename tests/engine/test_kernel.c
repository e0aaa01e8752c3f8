// Kernels: forms, storage variants, what a dispatch may not say, sources compiled at run time.
#include "args.h"
#include "args/scale.h"
#include "args/widen.h"
#include "device.h"
#include "kernel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Elements 0, 1, 2, ... as f32, f16 or bf16; exact in each up to 255.
static void put_count(qn_storage storage, unsigned char *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        float v = (float)(i % 256);
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        if (storage == QN_STORE_F16) // rebias the exponent from 127 to 15, keep 10 bits
            half = bits ? (uint16_t)(((bits >> 23) - 112) << 10 | (bits >> 13 & 0x3ff)) : 0;
        if (storage == QN_STORE_F32)
            memcpy(bytes + 4 * i, &v, 4);
        else
            memcpy(bytes + 2 * i, &half, 2);
    }
}

static void check_widen(qn_device *dev, qn_storage storage, uint32_t count)
{
    enum { MOST = 2000, AT = 512 };
    unsigned char bytes[4 * MOST] = { 0 };
    float y[MOST];
    put_count(storage, bytes, count);
    qn_buffer *x = qn_test_buffer(dev, AT + sizeof bytes, "x");
    qn_buffer *out = qn_test_buffer(dev, sizeof y, "y");
    assert_ok(qn_buffer_write(x, AT, bytes, sizeof bytes));
    assert_ok(qn_buffer_fill(out, 0, sizeof y / 4 * 4, 0xffffffff));
    qn_stream *s;
    assert_ok(qn_stream_create(dev, NULL, &s));
    widen_args args = { .count = count };
    uint64_t size = (uint64_t)count * (storage == QN_STORE_F32 ? 4 : 2);
    for (int again = 0; again < 2; again++) // the second finds its texel view made
        assert_ok(qn_stream_dispatch(
            s, &(qn_dispatch){ .kernel = QN_K_widen,
                               .storage = storage,
                               .buffers = { { x, AT, size }, { out, 0, 4 * (uint64_t)count } },
                               .args = &args,
                               .args_size = sizeof args,
                               .groups = { count / 256 + 1, 1, 1 } }));
    assert_ok(qn_stream_submit(s));
    assert_ok(qn_buffer_read(out, 0, y, sizeof y));
    for (uint32_t i = 0; i < count; i++) assert_true(y[i] == (float)(i % 256));
    for (uint32_t i = (count + 3) & ~3u; i < MOST; i++) assert_true(isnan(y[i]));
    qn_stream_destroy(&s);
    qn_buffer_destroy(&x);
    qn_buffer_destroy(&out);
}

static void storage_variants_in_every_form(void **state)
{
    (void)state;
    qn_device *tiled = qn_test_device_hiding(QN_CAP_TEXEL);
    qn_device *devices[] = { qn_test_device(), tiled };
    assert_string_equal(qn_kernel_form(tiled, QN_K_widen), "portable");
    if (qn_device_describe(qn_test_device())->kernel_class == QN_CLASS_FLAT)
        assert_string_equal(qn_kernel_form(qn_test_device(), QN_K_widen), "flat");
    static const uint32_t counts[] = { 1, 3, 4, 5, 1024, 1997 };
    for (int d = 0; d < 2; d++)
        for (int storage = QN_STORE_F32; storage <= QN_STORE_BF16; storage++)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
                check_widen(devices[d], (qn_storage)storage, counts[i]);
    qn_device_destroy(&tiled);
}

// 1.5 x + 2 for x = 0, 1, ... in buffers that are not given: the dummy holds zeros.
static void missing_buffers_read_as_zero(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    qn_buffer *y = qn_test_buffer(dev, 256, "y");
    qn_stream *s;
    assert_ok(qn_stream_create(dev, NULL, &s));
    scale_args args = { .count = 64, .factor = 1.5f, .offset = 2.0f };
    assert_ok(qn_stream_dispatch(s, &(qn_dispatch){ .kernel = QN_K_scale,
                                                    .buffers = { { 0 }, { y, 0, 0 } },
                                                    .args = &args,
                                                    .args_size = sizeof args,
                                                    .groups = { 1, 1, 1 } }));
    assert_ok(qn_stream_submit(s));
    float out[64];
    assert_ok(qn_buffer_read(y, 0, out, sizeof out));
    for (int i = 0; i < 64; i++) assert_true(out[i] == 2.0f);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&y);
}

static void pipelines_are_made_once(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device_with(&(qn_device_opts){ 0 });
    qn_buffer *b = qn_test_buffer(dev, 256, "y");
    static const uint32_t sizes[] = { 64, 0, 32, 64, 32, 128 }; // 0 is 64
    static const uint32_t made[] = { 1, 1, 2, 2, 2, 3 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        qn_stream *s;
        assert_ok(qn_stream_create(dev, NULL, &s));
        uint32_t args[2] = { 8, 0 };
        assert_ok(qn_stream_dispatch(s, &(qn_dispatch){ .kernel = QN_K_fill_index,
                                                        .buffers = { { b, 0, 0 } },
                                                        .args = args,
                                                        .args_size = sizeof args,
                                                        .group_size = sizes[i],
                                                        .groups = { 1, 1, 1 } }));
        assert_int_equal(qn_device_usage_now(dev).pipelines, made[i]);
        qn_stream_destroy(&s);
    }
    qn_buffer_destroy(&b);
    qn_device_destroy(&dev);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(qn_kernel_name(QN_K_fill_index), "fill_index");
    assert_string_equal(qn_kernel_name(QN_KERNEL_COUNT), "no such kernel");
    assert_string_equal(qn_kernel_form(qn_test_device(), QN_KERNEL_COUNT), "none");
    for (int k = 0; k < QN_KERNEL_COUNT; k++) assert_true(qn_kernel_name((qn_kernel)k)[0]);
}

static void malformed_dispatches_are_refused(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device(), *other = qn_test_device_with(&(qn_device_opts){ 0 });
    const qn_device_info *info = qn_device_describe(dev);
    qn_buffer *b = qn_test_buffer(dev, 1024, "b"), *foreign = qn_test_buffer(other, 256, "foreign");
    uint64_t large_size = info->max_binding + 256;
    qn_buffer *large = NULL;
    if (large_size < info->max_allocation && large_size < info->budget / 2)
        large = qn_test_buffer(dev, large_size, "large");
    uint32_t args[32] = { 0 };
    const qn_dispatch good = { .kernel = QN_K_fill_index,
                               .buffers = { { b, 0, 0 } },
                               .args = args,
                               .args_size = 8,
                               .groups = { 1, 1, 1 } };
    enum { CASES = 16 };
    qn_dispatch d[CASES];
    const char *part[CASES];
    size_t n = 0;
#define CASE(text, ...) (d[n] = good, d[n].__VA_ARGS__, part[n] = text, n++)
    CASE("there is no kernel", kernel = QN_KERNEL_COUNT);
    CASE("there is no kernel -1", kernel = (qn_kernel)-1);
    CASE("a grid of 0 x 1 x 1", groups[0] = 0);
    CASE("a grid of 1 x 1 x 4294967295", groups[2] = UINT32_MAX);
    CASE("6 bytes of arguments", args_size = 6);
    CASE("132 bytes of arguments", args_size = 132);
    CASE("8 bytes of arguments", args = NULL);
    CASE("binding 0 starts at byte 64", buffers[0].offset = 64);
    CASE("bytes 512 to 1280, but it has 1024", buffers[0] = ((qn_range){ b, 512, 768 }));
    CASE("the range of buffer b is empty", buffers[0].offset = 1024);
    CASE("buffer b is given as binding 1, but it has 1", buffers[1] = ((qn_range){ b, 0, 0 }));
    CASE("buffer foreign belongs to another device", buffers[0].buffer = foreign);
    CASE("no storage variant 2", storage = QN_STORE_BF16);
    CASE("constant 3 is given, but it has 0", constants[2] = 1);
    CASE("workgroups of 1000000 invocations", group_size = 1000000);
    if (large) CASE("binding 0 spans", buffers[0] = ((qn_range){ large, 0, 0 }));
    for (size_t i = 0; i < n; i++) {
        qn_stream *s;
        assert_ok(qn_stream_create(dev, NULL, &s));
        qn_result r = qn_stream_dispatch(s, &d[i]);
        assert_true(r == QN_ERR_INVALID || r == QN_ERR_UNSUPPORTED);
        assert_fails(r, r, part[i]);
        assert_fails(qn_stream_submit(s), r, part[i]);
        qn_stream_destroy(&s);
    }
    qn_buffer_destroy(&large);
    qn_buffer_destroy(&b);
    qn_buffer_destroy(&foreign);
    qn_device_destroy(&other);
}

static void long_loops_are_refused_where_drivers_stop_them(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    bool limited = strstr(qn_device_describe(dev)->quirks, "loop limit");
    qn_buffer *b = qn_test_buffer(dev, 256, "b");
    uint32_t args[2] = { 0 };
    static const uint64_t rounds[] = { 60000, 60001 };
    for (int i = 0; i < 2; i++) {
        qn_stream *s;
        assert_ok(qn_stream_create(dev, NULL, &s));
        qn_result r = qn_stream_dispatch(s, &(qn_dispatch){ .kernel = QN_K_fill_index,
                                                            .buffers = { { b, 0, 0 } },
                                                            .args = args,
                                                            .args_size = sizeof args,
                                                            .groups = { 1, 1, 1 },
                                                            .rounds = rounds[i] });
        if (limited && rounds[i] > 60000)
            assert_fails(r, QN_ERR_UNSUPPORTED, "kernel fill_index: 60001 loop rounds");
        else
            assert_int_equal(r, QN_OK);
        qn_stream_destroy(&s);
    }
    qn_buffer_destroy(&b);
}

static void a_flat_kernel_needs_a_flat_device(void **state)
{
    (void)state;
    int flat_only = 0;
    while (flat_only < QN_KERNEL_COUNT &&
           (qn_row_of((qn_kernel)flat_only)->forms & ~(uint32_t)QN_FORM_STORAGES) != QN_FORM_FLAT)
        flat_only++;
    if (flat_only == QN_KERNEL_COUNT) skip();
    qn_device *tiled = qn_test_device_hiding(QN_CAP_SUBGROUP);
    assert_string_equal(qn_kernel_form(tiled, (qn_kernel)flat_only), "none");
    qn_stream *s;
    char expected[128];
    snprintf(expected, sizeof expected, "kernel %s exists only for CPU drivers",
             qn_kernel_name((qn_kernel)flat_only));
    assert_ok(qn_stream_create(tiled, NULL, &s));
    assert_fails(qn_stream_dispatch(
                     s, &(qn_dispatch){ .kernel = (qn_kernel)flat_only, .groups = { 1, 1, 1 } }),
                 QN_ERR_UNSUPPORTED, expected);
    qn_stream_destroy(&s);
    qn_device_destroy(&tiled);
}

static void a_matrix_kernel_needs_a_matrix_device(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    assert_string_equal(qn_kernel_form(dev, QN_K_matmul_matrix), "none");
    qn_stream *s;
    assert_ok(qn_stream_create(dev, NULL, &s));
    assert_fails(qn_stream_dispatch(s, &(qn_dispatch){ .kernel = QN_K_matmul_matrix,
                                                       .groups = { 1, 1, 1 } }),
                 QN_ERR_UNSUPPORTED, "kernel matmul_matrix needs cooperative matrices");
    qn_stream_destroy(&s);
}

// Every row's form for this device and its storage variants make a pipeline.
static void every_row_makes_a_pipeline(void **state)
{
    (void)state;
    qn_device *tiled = qn_test_device_hiding(QN_CAP_TEXEL);
    qn_device *devices[] = { qn_test_device(), tiled };
    for (int d = 0; d < 2; d++)
        for (int k = 0; k < QN_KERNEL_COUNT; k++) {
            if (!strcmp(qn_kernel_form(devices[d], (qn_kernel)k), "none")) continue;
            bool storages = qn_row_of((qn_kernel)k)->forms & QN_FORM_STORAGES;
            for (int storage = 0; storage <= (storages ? QN_STORE_BF16 : QN_STORE_F32); storage++) {
                qn_pipeline p;
                qn_dispatch dispatch = { .kernel = (qn_kernel)k, .storage = (qn_storage)storage };
                for (uint32_t c = 0; c < qn_row_of((qn_kernel)k)->constants; c++)
                    dispatch.constants[c] = 1;
                assert_ok(qn_kernel_get(devices[d], &dispatch, &p));
            }
        }
    qn_device_destroy(&tiled);
}

#if defined(QN_HAVE_SHADERC)
static void write_text(const char *dir, const char *name, const char *text)
{
    char *path = qn_path_join(dir, name);
    assert_ok(qn_write_file(path, text, strlen(text)));
    qn_free(path);
}

static qn_result fill_first(qn_device *dev, uint32_t *first)
{
    qn_buffer *b = qn_test_buffer(dev, 256, "y");
    qn_stream *s;
    assert_ok(qn_stream_create(dev, NULL, &s));
    qn_result r = qn_test_fill_index(s, (qn_range){ b, 0, 0 }, 64, 5);
    if (r == QN_OK) r = qn_stream_submit(s);
    if (r == QN_OK) r = qn_buffer_read(b, 0, first, sizeof *first);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
    return r;
}

static const char changed_source[] =
    "#version 450\n"
    "#extension GL_GOOGLE_include_directive : require\n"
    "#include \"part.glsl\"\n"
    "layout(constant_id = 0) const uint GROUP = 64;\n"
    "layout(local_size_x_id = 0) in;\n"
    "layout(binding = 0) writeonly buffer Y { uint y[]; };\n"
    "layout(push_constant) uniform Args { uint count, start; } a;\n"
    "void main() { if (gl_GlobalInvocationID.x < a.count) y[gl_GlobalInvocationID.x] = VALUE; }\n";

static void sources_are_compiled_and_compiled_again(void **state)
{
    (void)state;
    char dir[] = "/tmp/quoin-shaders-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *sub = qn_path_join(dir, "pointwise");
    assert_ok(qn_make_dirs(sub));
    write_text(sub, "fill_index.comp", changed_source);
    write_text(dir, "part.glsl", "#define VALUE 1000u + a.start\n");
    qn_context *ctx;
    qn_device *dev;
    uint32_t first = 0;
    assert_ok(qn_context_create(&(qn_context_opts){ .shader_dir = dir }, &ctx));
    assert_ok(qn_device_create(ctx, &(qn_device_opts){ .cache_dir = "" }, &dev));
    assert_ok(fill_first(dev, &first));
    assert_int_equal(first, 1005);
    assert_ok(fill_first(dev, &first));
    assert_int_equal(qn_device_usage_now(dev).pipelines, 1);
    // An included file changes: noticed at most 0.2 seconds later.
    write_text(dir, "part.glsl", "#define VALUE 2000u\n");
    for (double end = qn_clock() + 5; first != 2000 && qn_clock() < end;)
        assert_ok(fill_first(dev, &first));
    assert_int_equal(first, 2000);
    write_text(sub, "fill_index.comp", "#version 450\nvoid main()\n{\n    oops();\n}\n");
    assert_fails(fill_first(dev, &first), QN_ERR_INVALID, "pointwise/fill_index.comp:4: error");
    write_text(sub, "fill_index.comp",
               "#version 450\n"
               "#extension GL_GOOGLE_include_directive : require\n"
               "#include \"gone.glsl\"\nvoid main() {}\n");
    assert_fails(fill_first(dev, &first), QN_ERR_INVALID, "no such file beside");
    assert_ok(qn_remove_tree(sub));
    assert_fails(fill_first(dev, &first), QN_ERR_INVALID, "No such file or directory");
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    assert_ok(qn_remove_tree(dir));
    qn_free(sub);
}

// The source directory of this build gives the same kernels as the embedded ones.
static void own_sources_compile(void **state)
{
    (void)state;
    qn_context *ctx;
    qn_device *dev;
    assert_ok(
        qn_context_create(&(qn_context_opts){ .shader_dir = QN_SOURCE_DIR "/shaders" }, &ctx));
    assert_ok(qn_device_create(ctx, &(qn_device_opts){ .cache_dir = "" }, &dev));
    for (int storage = QN_STORE_F32; storage <= QN_STORE_BF16; storage++)
        check_widen(dev, (qn_storage)storage, 100);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storage_variants_in_every_form),
        cmocka_unit_test(missing_buffers_read_as_zero),
        cmocka_unit_test(pipelines_are_made_once),
        cmocka_unit_test(names),
        cmocka_unit_test(malformed_dispatches_are_refused),
        cmocka_unit_test(long_loops_are_refused_where_drivers_stop_them),
        cmocka_unit_test(a_flat_kernel_needs_a_flat_device),
        cmocka_unit_test(a_matrix_kernel_needs_a_matrix_device),
        cmocka_unit_test(every_row_makes_a_pipeline),
#if defined(QN_HAVE_SHADERC)
        cmocka_unit_test(sources_are_compiled_and_compiled_again),
        cmocka_unit_test(own_sources_compile),
#endif
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
