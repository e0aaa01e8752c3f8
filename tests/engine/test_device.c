// Devices: listing, selection, classes, hidden capabilities.
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qn_result open_selected(const char *select, qn_device **dev)
{
    return qn_device_create(qn_test_context(),
                            &(qn_device_opts){ .select = select, .cache_dir = "" }, dev);
}

static void the_list_describes_devices(void **state)
{
    (void)state;
    qn_device_info list[16];
    size_t count = 0, again = 0;
    assert_ok(qn_device_list(qn_test_context(), list, 16, &count));
    assert_true(count >= 1 && count <= 16);
    for (size_t i = 0; i < count; i++) {
        const qn_device_info *d = &list[i];
        assert_true(d->name[0] && d->driver[0] && d->reason[0]);
        assert_true(d->memory > 0 && d->budget <= d->memory);
        assert_true(d->max_binding >= UINT64_C(1) << 27 && d->max_groups >= 65535);
        assert_true(d->api_version >= (1u << 22 | 2u << 12));
        assert_true(d->max_invocations >= 128 && d->shared_memory >= 16384);
        if (d->software) assert_non_null(strstr(d->reason, "last resort"));
        if (i > 0) assert_false(list[i - 1].software && !d->software);
        if (d->kernel_class == QN_CLASS_FLAT)
            assert_int_equal(d->caps & (QN_CAP_SUBGROUP | QN_CAP_TEXEL),
                             QN_CAP_SUBGROUP | QN_CAP_TEXEL);
    }
    assert_ok(qn_device_list(qn_test_context(), NULL, 0, &again));
    assert_int_equal(again, count);
}

static void selecting(void **state)
{
    (void)state;
    qn_device_info first;
    size_t count;
    assert_ok(qn_device_list(qn_test_context(), &first, 1, &count));
    char uuid[33], name[256];
    for (size_t i = 0; i < 16; i++) snprintf(uuid + 2 * i, 3, "%02X", first.uuid[i]);
    uuid[12] = 0; // a prefix, in capitals
    size_t length = strlen(first.name) > 4 ? 4 : strlen(first.name);
    for (size_t i = 0; i < length; i++) name[i] = first.name[i] ^ (first.name[i] >= 'A' ? 32 : 0);
    name[length] = 0; // letters of the other case
    const char *const good[] = { NULL, "0", uuid, name };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        qn_device *dev;
        assert_ok(open_selected(good[i], &dev));
        assert_memory_equal(qn_device_describe(dev)->uuid, first.uuid, 16);
        qn_device_destroy(&dev);
        assert_null(dev);
    }
    const char *const bad[] = { "",   "99",  "no such device",
                                "-1", "0x0", "0123456789012345678901234567890123456789" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qn_device *dev;
        char expected[400];
        snprintf(expected, sizeof expected, "no device matches \"%s\"; there is 0: %s", bad[i],
                 first.name);
        assert_fails(open_selected(bad[i], &dev), QN_ERR_NO_DEVICE, expected);
        assert_null(dev);
    }
}

static void hiding_capabilities(void **state)
{
    (void)state;
    uint32_t all = qn_device_describe(qn_test_device())->caps;
    for (uint32_t bit = 1; bit <= QN_CAP_MEMORY_BUDGET; bit <<= 1) {
        assert_non_null(qn_cap_name(bit));
        qn_device *dev = qn_test_device_hiding(bit);
        const qn_device_info *info = qn_device_describe(dev);
        assert_int_equal(info->caps, all & ~bit);
        if (bit == QN_CAP_SUBGROUP || bit == QN_CAP_TEXEL)
            assert_int_equal(info->kernel_class, QN_CLASS_TILED);
        qn_device_destroy(&dev);
    }
    assert_null(qn_cap_name(1u << 30));
    assert_null(qn_cap_name(3));
}

// A device without any optional feature still runs kernels.
static void nothing_optional_is_needed(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device_hiding(UINT32_MAX);
    assert_int_equal(qn_device_describe(dev)->caps, 0);
    qn_buffer *b = qn_test_buffer(dev, 400, "y");
    qn_stream *s;
    assert_ok(qn_stream_create(dev, NULL, &s));
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, 100, 1));
    assert_ok(qn_stream_submit(s));
    uint32_t y[100];
    assert_ok(qn_buffer_read(b, 0, y, sizeof y));
    for (uint32_t i = 0; i < 100; i++) assert_int_equal(y[i], 1 + i);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
    qn_device_destroy(&dev);
}

static void the_class_can_be_overruled(void **state)
{
    (void)state;
    const char *before = getenv("QUOIN_CLASS");
    char *kept = before ? strdup(before) : NULL;
    qn_device *dev;
    setenv("QUOIN_CLASS", "tiled", 1);
    assert_ok(open_selected(NULL, &dev));
    assert_int_equal(qn_device_describe(dev)->kernel_class, QN_CLASS_TILED);
    qn_device_destroy(&dev);
    setenv("QUOIN_CLASS", "flat", 1);
    qn_result r = open_selected(NULL, &dev);
    if (r == QN_OK)
        assert_int_equal(qn_device_describe(dev)->kernel_class, QN_CLASS_FLAT);
    else
        assert_fails(r, QN_ERR_UNSUPPORTED, "QUOIN_CLASS is flat, but");
    qn_device_destroy(&dev);
    setenv("QUOIN_CLASS", "round", 1);
    assert_fails(open_selected(NULL, &dev), QN_ERR_INVALID,
                 "QUOIN_CLASS is \"round\": expected flat or tiled");
    size_t count;
    assert_fails(qn_device_list(qn_test_context(), NULL, 0, &count), QN_ERR_INVALID, "QUOIN_CLASS");
    if (kept)
        setenv("QUOIN_CLASS", kept, 1);
    else
        unsetenv("QUOIN_CLASS");
    free(kept);
}

static void software_drivers_have_their_quirks(void **state)
{
    (void)state;
    const qn_device_info *info = qn_device_describe(qn_test_device());
    if (!strstr(info->driver, "llvmpipe")) skip();
    assert_true(info->software);
    assert_false(info->discrete);
    assert_non_null(strstr(info->quirks, "loop limit"));
    const char *width = getenv("LP_NATIVE_VECTOR_WIDTH");
    if (width) assert_int_equal(info->subgroup_size, atoi(width) / 32);
}

// Two contexts and four devices at once: no state is shared by accident.
static void contexts_are_independent(void **state)
{
    (void)state;
    qn_context *other;
    assert_ok(qn_context_create(NULL, &other));
    qn_keep_drivers();
    qn_device *devices[4];
    qn_buffer *buffers[4];
    for (int i = 0; i < 4; i++) {
        qn_context *ctx = i % 2 ? other : qn_test_context();
        assert_ok(qn_device_create(ctx, &(qn_device_opts){ .cache_dir = "" }, &devices[i]));
        buffers[i] = qn_test_buffer(devices[i], 256, "y");
    }
    for (uint32_t i = 0; i < 4; i++) {
        qn_stream *s;
        assert_ok(qn_stream_create(devices[i], NULL, &s));
        assert_ok(qn_test_fill_index(s, (qn_range){ buffers[i], 0, 0 }, 64, 10 * i));
        assert_ok(qn_stream_submit(s));
        uint32_t first;
        assert_ok(qn_buffer_read(buffers[i], 0, &first, 4));
        assert_int_equal(first, 10 * i);
        qn_stream_destroy(&s);
    }
    for (int i = 0; i < 4; i++) {
        qn_buffer_destroy(&buffers[i]);
        qn_device_destroy(&devices[i]);
    }
    qn_context_destroy(&other);
    assert_null(other);
    qn_context_destroy(&other);
}

static void shader_directories_are_checked(void **state)
{
    (void)state;
    qn_context *ctx = NULL;
    qn_result r = qn_context_create(&(qn_context_opts){ .shader_dir = "/no/such/dir" }, &ctx);
    assert_true(r == QN_ERR_INVALID || r == QN_ERR_UNSUPPORTED);
    assert_non_null(strstr(qn_error_message(), "/no/such/dir"));
    assert_null(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_list_describes_devices),
        cmocka_unit_test(selecting),
        cmocka_unit_test(hiding_capabilities),
        cmocka_unit_test(nothing_optional_is_needed),
        cmocka_unit_test(the_class_can_be_overruled),
        cmocka_unit_test(software_drivers_have_their_quirks),
        cmocka_unit_test(contexts_are_independent),
        cmocka_unit_test(shader_directories_are_checked),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
