// Streams on a device: kernels run, in order, as often as submitted.
#include "args.h"
#include "args/fill_index.h"
#include "device.h"

static qn_buffer *make_buffer(qn_device *dev, uint64_t size, const char *name)
{
    qn_buffer *b = NULL;
    assert_ok(qn_buffer_create(dev, &(qn_buffer_opts){ .size = size, .name = name }, &b));
    return b;
}

static qn_result fill_index(qn_stream *s, qn_range y, uint32_t count, uint32_t start)
{
    fill_index_args args = { .count = count, .start = start };
    return qn_stream_dispatch(s, &(qn_dispatch){ .kernel = QN_K_fill_index,
                                                 .buffers = { y },
                                                 .args = &args,
                                                 .args_size = sizeof args,
                                                 .groups = { (count + 63) / 64, 1, 1 } });
}

static void a_kernel_runs(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    enum { N = 1000 };
    qn_buffer *b = make_buffer(dev, N * 4, "y");
    qn_stream *s;
    assert_ok(qn_stream_create(dev, NULL, &s));
    assert_ok(fill_index(s, (qn_range){ b, 0, 0 }, N, 7));
    assert_ok(qn_stream_submit(s));
    assert_ok(qn_stream_wait(s, UINT64_MAX));
    uint32_t y[N + 24];
    assert_ok(qn_buffer_read(b, 0, y, sizeof y));
    for (uint32_t i = 0; i < N + 24; i++) assert_int_equal(y[i], i < N ? 7 + i : 0);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_runs),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
