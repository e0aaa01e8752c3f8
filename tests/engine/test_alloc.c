// Each host allocation of the engine fails in turn: the right code, no leak, no crash.
#include "device.h"
#include "mem.h"
#include "vk.h"

#include <stdlib.h>
#include <string.h>

typedef struct objects {
    qn_context *ctx;
    qn_device *dev;
    qn_buffer *a, *b;
    qn_stream *s;
    char cache[64];
} objects;

static void destroy(objects *o)
{
    qn_stream_destroy(&o->s);
    qn_buffer_destroy(&o->a);
    qn_buffer_destroy(&o->b);
    qn_device_destroy(&o->dev); // validation tells what is left of it
    if (o->ctx) assert_int_equal(qn_context_validation_messages(o->ctx), 0);
    qn_context_destroy(&o->ctx);
}

// Everything an application does, until something fails. Staging, so that it is made too.
static qn_result scenario(objects *o, uint32_t *first)
{
    qn_context_opts validate = { .validate = qn_test_context()->validate };
    qn_result r = qn_context_create(&validate, &o->ctx);
    if (r == QN_OK) qn_keep_drivers();
    if (r == QN_OK)
        r = qn_device_create(
            o->ctx, &(qn_device_opts){ .force_staging = true, .cache_dir = o->cache }, &o->dev);
    qn_buffer_opts opts = { .size = 1 << 16, .name = "y" };
    if (r == QN_OK) r = qn_buffer_create(o->dev, &opts, &o->a);
    if (r == QN_OK) r = qn_buffer_create(o->dev, &opts, &o->b);
    if (r == QN_OK) r = qn_stream_create(o->dev, &(qn_stream_opts){ .profile = true }, &o->s);
    if (r == QN_OK) r = qn_stream_mark(o->s, "all");
    for (uint32_t i = 0; i < 20 && r == QN_OK; i++)
        r = qn_test_fill_index(o->s, (qn_range){ o->a, 256 * i, 256 }, 64, 6 * i);
    if (r == QN_OK) r = qn_stream_cut(o->s);
    if (r == QN_OK) r = qn_stream_copy(o->s, (qn_range){ o->b, 0, 0 }, (qn_range){ o->a, 0, 0 });
    if (r == QN_OK) r = qn_stream_submit(o->s);
    size_t count;
    if (r == QN_OK) r = qn_stream_timings(o->s, NULL, 0, &count);
    if (r == QN_OK) r = qn_buffer_write(o->a, 0, first, sizeof *first);
    if (r == QN_OK) r = qn_buffer_read(o->b, 256, first, sizeof *first);
    return r;
}

static void each_allocation_fails(void **state)
{
    (void)state;
    objects o = { .cache = "/tmp/quoin-alloc-XXXXXX" };
    assert_non_null(mkdtemp(o.cache));
    int64_t n = 0;
    for (bool done = false; !done;) {
        uint32_t first = 0;
        qn_alloc_fail_at(++n);
        qn_result r = scenario(&o, &first);
        qn_alloc_fail_at(0);
        if (r == QN_OK) {
            assert_int_equal(first, 6);
            done = true;
        } else {
            assert_int_equal(r, QN_ERR_NO_MEMORY);
            assert_non_null(strstr(qn_error_message(), "out of host memory"));
        }
        destroy(&o);
        assert_true(n < 1000);
    }
    print_message("%lld allocations\n", (long long)n - 1);
    assert_true(n > 25); // else the scenario did not run
    assert_ok(qn_remove_tree(o.cache));
}

static void listing_devices(void **state)
{
    (void)state;
    size_t count = 0;
    qn_result r = QN_ERR_NO_MEMORY;
    for (int64_t n = 1; r != QN_OK; n++) {
        qn_alloc_fail_at(n);
        r = qn_device_list(qn_test_context(), NULL, 0, &count);
        qn_alloc_fail_at(0);
        if (r != QN_OK) assert_int_equal(r, QN_ERR_NO_MEMORY);
    }
    assert_true(count > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_fails),
        cmocka_unit_test(listing_devices),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
