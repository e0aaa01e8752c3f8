// Streams on a device: order, resubmission, cuts, spans, time limits, loss.
#include "device.h"
#include "stream.h"

#include <string.h>

enum { N = 1000 };

static qn_stream *make_stream(qn_device *dev)
{
    qn_stream *s = NULL;
    assert_ok(qn_stream_create(dev, NULL, &s));
    return s;
}

static void run(qn_stream *s)
{
    assert_ok(qn_stream_submit(s));
    assert_ok(qn_stream_wait(s, UINT64_MAX));
}

static void assert_counts_from(qn_buffer *b, uint32_t start, uint32_t count)
{
    uint32_t y[N];
    assert_true(count <= N);
    assert_ok(qn_buffer_read(b, 0, y, count * sizeof *y));
    for (uint32_t i = 0; i < count; i++) assert_int_equal(y[i], start + i);
}

static void a_kernel_writes_what_it_should_and_no_more(void **state)
{
    (void)state;
    qn_buffer *b = qn_test_buffer(qn_test_device(), 4096, "y");
    qn_stream *s = make_stream(qn_test_device());
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, N, 7));
    run(s);
    uint32_t y[1024];
    assert_ok(qn_buffer_read(b, 0, y, sizeof y));
    for (uint32_t i = 0; i < 1024; i++) assert_int_equal(y[i], i < N ? 7 + i : 0);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
}

// b = a and a = 0 in one recording: each submit copies what the last one left and clears it.
static void a_stream_runs_as_often_as_submitted(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    qn_buffer *a = qn_test_buffer(dev, N * 4, "a"), *b = qn_test_buffer(dev, N * 4, "b");
    qn_stream *s = make_stream(dev);
    assert_ok(qn_stream_copy(s, (qn_range){ b, 0, 4 * N }, (qn_range){ a, 0, 0 }));
    assert_ok(qn_test_fill_index(s, (qn_range){ a, 0, 0 }, N, 5));
    run(s);
    uint32_t first;
    assert_ok(qn_buffer_read(b, 0, &first, 4));
    assert_int_equal(first, 0);
    assert_ok(qn_stream_submit(s)); // twice without waiting
    assert_ok(qn_stream_submit(s));
    assert_ok(qn_stream_wait(s, UINT64_MAX));
    assert_counts_from(b, 5, N);
    assert_fails(qn_test_fill_index(s, (qn_range){ a, 0, 0 }, N, 5), QN_ERR_INVALID,
                 "its recording has ended");
    run(s); // the refusal did not hurt it
    qn_stream_destroy(&s);
    qn_buffer_destroy(&a);
    qn_buffer_destroy(&b);
}

static void an_empty_stream_is_fine(void **state)
{
    (void)state;
    qn_stream *s = make_stream(qn_test_device());
    assert_ok(qn_stream_wait(s, 0));
    assert_ok(qn_stream_cut(s));
    run(s);
    assert_int_equal(qn_stream_describe(s).submissions, 0);
    qn_stream_destroy(&s);
    qn_stream_destroy(&s);
}

static void cuts_make_submissions(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    qn_buffer *b = qn_test_buffer(dev, N * 4, "y");
    qn_stream *s = make_stream(dev);
    for (uint32_t i = 0; i < 5; i++) {
        assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, N, i));
        assert_ok(qn_stream_cut(s));
        assert_ok(qn_stream_cut(s)); // nothing between: no submission
    }
    run(s);
    assert_counts_from(b, 4, N);
    qn_stream_stats stats = qn_stream_describe(s);
    assert_int_equal(stats.submissions, 5);
    assert_int_equal(stats.dispatches, 5);
    assert_int_equal(stats.barriers, 0); // a submission begins with one
    assert_true(stats.longest > 0 && stats.longest < 60);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
}

static void barriers_only_where_ranges_meet(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    qn_buffer *b = qn_test_buffer(dev, 64 * 256, "y");
    qn_stream *s = make_stream(dev);
    for (uint32_t i = 0; i < 32; i++)
        assert_ok(qn_test_fill_index(s, (qn_range){ b, 256 * i, 256 }, 64, i));
    assert_int_equal(qn_stream_describe(s).barriers, 0);
    assert_ok(qn_stream_copy(s, (qn_range){ b, 32 * 256, 256 }, (qn_range){ b, 31 * 256, 256 }));
    assert_int_equal(qn_stream_describe(s).barriers, 1); // read after write
    assert_ok(qn_stream_fill(s, (qn_range){ b, 31 * 256, 256 }, 9));
    assert_int_equal(qn_stream_describe(s).barriers, 2); // write after read
    assert_ok(qn_stream_fill(s, (qn_range){ b, 31 * 256 + 252, 4 }, 8));
    assert_int_equal(qn_stream_describe(s).barriers, 3); // write after write
    run(s);
    uint32_t y[128];
    assert_ok(qn_buffer_read(b, 31 * 256, y, sizeof y));
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(y[i], i < 63 ? 9 : 8);
        assert_int_equal(y[64 + i], 31 + i);
    }
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
}

// The stream's own record of its barriers: each of them matters.
static void deleting_a_barrier_is_noticed(void **state)
{
    (void)state;
    if (!qn_test_context()->validate) skip(); // no record is kept
    qn_buffer *b = qn_test_buffer(qn_test_device(), 16 * 256, "y");
    qn_stream *s = make_stream(qn_test_device());
    for (uint32_t i = 0; i < 40; i++)
        assert_ok(qn_test_fill_index(s, (qn_range){ b, i * 5 % 16 * 256, 256 }, 64, i));
    size_t first, second, deleted = 0;
    assert_true(qn_trace_ordered(&s->trace, &first, &second));
    for (size_t i = 1; i < s->trace.count; i++) {
        if (!s->trace.steps[i].barrier) continue;
        s->trace.steps[i].barrier = false;
        assert_false(qn_trace_ordered(&s->trace, &first, &second));
        s->trace.steps[i].barrier = true;
        deleted++;
    }
    assert_int_equal(deleted, qn_stream_describe(s).barriers);
    assert_int_equal(deleted, 2); // after 16 and 32 different ranges
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
}

static void spans_are_timed(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    enum { LARGE = 1 << 20 };
    qn_buffer *b = qn_test_buffer(dev, LARGE * 4, "y");
    qn_stream *s = NULL;
    assert_ok(qn_stream_create(dev, &(qn_stream_opts){ .profile = true }, &s));
    size_t count = 0;
    qn_span spans[400];
    assert_fails(qn_stream_timings(s, spans, 400, &count), QN_ERR_INVALID, "was not submitted");
    assert_ok(qn_stream_mark(s, "small"));
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, 64, 0));
    assert_ok(qn_stream_mark(s, "large, cut in two"));
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, LARGE, 0));
    assert_ok(qn_stream_cut(s));
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, LARGE, 0));
    for (int i = 0; i < 300; i++) { // more than one pool of queries
        assert_ok(qn_stream_mark(s, "many"));
        assert_ok(qn_stream_fill(s, (qn_range){ b, 0, 256 }, 1));
    }
    run(s); // compiles
    run(s);
    qn_result r = qn_stream_timings(s, spans, 400, &count);
    if (!(qn_device_describe(dev)->caps & QN_CAP_TIMESTAMPS)) {
        assert_int_equal(r, QN_ERR_UNSUPPORTED);
    } else {
        assert_int_equal(r, QN_OK);
        assert_int_equal(count, 302);
        assert_string_equal(spans[0].label, "small");
        assert_string_equal(spans[1].label, "large, cut in two");
        assert_string_equal(spans[301].label, "many");
        double sum = 0;
        for (size_t i = 0; i < count; i++) {
            assert_true(spans[i].seconds >= 0 && spans[i].seconds < 60);
            sum += spans[i].seconds;
        }
        assert_true(spans[1].seconds > 4 * spans[0].seconds); // 32,768 times the work
        // Two submissions: neither is longer than all the spans, but for the first, compiling run.
        assert_true(sum > 0 && qn_stream_describe(s).longest > 0);
        qn_span one[1];
        assert_ok(qn_stream_timings(s, one, 1, &count));
        assert_int_equal(count, 302);
        assert_string_equal(one[0].label, "small");
    }
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
}

static void without_timestamps_the_clock_measures(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device_hiding(QN_CAP_TIMESTAMPS);
    qn_buffer *b = qn_test_buffer(dev, N * 4, "y");
    qn_stream *s = NULL;
    assert_ok(qn_stream_create(dev, &(qn_stream_opts){ .profile = true }, &s));
    assert_ok(qn_stream_mark(s, "all"));
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, N, 3));
    assert_ok(qn_stream_cut(s));
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, N, 4));
    run(s);
    assert_counts_from(b, 4, N);
    assert_true(qn_stream_describe(s).longest > 0);
    size_t count;
    assert_fails(qn_stream_timings(s, NULL, 0, &count), QN_ERR_UNSUPPORTED, "no timestamps");
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
    qn_device_destroy(&dev);
}

static void a_failed_recording_is_reported_at_submit(void **state)
{
    (void)state;
    qn_buffer *b = qn_test_buffer(qn_test_device(), N * 4, "y");
    qn_stream *s = make_stream(qn_test_device());
    assert_fails(qn_test_fill_index(s, (qn_range){ b, 128, 0 }, 8, 0), QN_ERR_INVALID,
                 "kernel fill_index: binding 0 starts at byte 128 of buffer y");
    assert_fails(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, 8, 0), QN_ERR_INVALID, "byte 128");
    assert_fails(qn_stream_mark(s, "x"), QN_ERR_INVALID, "byte 128");
    assert_fails(qn_stream_submit(s), QN_ERR_INVALID, "byte 128");
    assert_ok(qn_stream_wait(s, UINT64_MAX));
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
}

static void copies_and_fills_are_checked(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    qn_buffer *a = qn_test_buffer(dev, 512, "a"), *b = qn_test_buffer(dev, 256, "b");
    const struct {
        qn_range dst, src; // no src: a fill
        const char *part;
    } cases[] = {
        { { b, 0, 512 }, { a, 0, 512 }, "buffer b: bytes 0 to 512, but it has 256" },
        { { a, 0, 512 }, { b, 0, 0 }, "copying from: a range of buffer b" },
        { { a, 0, 256 }, { a, 128, 256 }, "the ranges overlap" },
        { { NULL, 0, 4 }, { a, 0, 4 }, "a buffer is missing" },
        { { b, 256, 0 }, { a, 0, 0 }, "is empty" },
        { { b, UINT64_MAX, 2 }, { a, 0, 2 }, "but it has 256" },
        { { b, 2, 4 }, { NULL, 0, 0 }, "not whole words" },
        { { b, 0, 6 }, { NULL, 0, 0 }, "not whole words" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_stream *s = make_stream(dev);
        bool fill = !cases[i].src.buffer;
        assert_fails(fill ? qn_stream_fill(s, cases[i].dst, 0)
                          : qn_stream_copy(s, cases[i].dst, cases[i].src),
                     QN_ERR_INVALID, cases[i].part);
        qn_stream_destroy(&s);
    }
    qn_buffer_destroy(&a);
    qn_buffer_destroy(&b);
}

// Submits until the device is lost at call `n`; everything afterwards says so.
static void lose_at(uint32_t n)
{
    qn_device *dev = qn_test_device_with(&(qn_device_opts){ .lose_at_submit = n });
    qn_buffer *b = qn_test_buffer(dev, N * 4, "y");
    qn_stream *s = make_stream(dev);
    for (uint32_t i = 0; i < 3; i++) {
        assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, N, i));
        assert_ok(qn_stream_cut(s));
    }
    uint32_t good = 0;
    qn_result r = QN_OK;
    while (r == QN_OK && good < 10) {
        r = qn_stream_submit(s);
        if (r == QN_OK) r = qn_stream_wait(s, UINT64_MAX);
        good += r == QN_OK;
    }
    assert_fails(r, QN_ERR_DEVICE_LOST, "was lost while submitting work");
    assert_int_equal(good, (n - 1) / 3);
    uint32_t word = 0;
    assert_fails(qn_device_status(dev), QN_ERR_DEVICE_LOST, "was lost while submitting work");
    assert_fails(qn_stream_submit(s), QN_ERR_DEVICE_LOST, "was lost");
    assert_fails(qn_stream_wait(s, 0), QN_ERR_DEVICE_LOST, "was lost");
    assert_fails(qn_buffer_read(b, 0, &word, 4), QN_ERR_DEVICE_LOST, "was lost");
    assert_fails(qn_buffer_write(b, 0, &word, 4), QN_ERR_DEVICE_LOST, "was lost");
    assert_fails(qn_buffer_fill(b, 0, 4, 0), QN_ERR_DEVICE_LOST, "was lost");
    qn_stream *t = NULL;
    qn_buffer *c = NULL;
    assert_fails(qn_stream_create(dev, NULL, &t), QN_ERR_DEVICE_LOST, "was lost");
    assert_fails(qn_buffer_create(dev, &(qn_buffer_opts){ .size = 4 }, &c), QN_ERR_DEVICE_LOST,
                 "was lost");
    assert_null(t);
    assert_null(c);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
    qn_device_destroy(&dev);
}

static void loss_at_each_submit(void **state)
{
    (void)state;
    qn_log_set(NULL, NULL, QN_LOG_OFF); // losses are logged as errors
    for (uint32_t n = 1; n <= 7; n++) lose_at(n);
    qn_log_set(NULL, NULL, QN_LOG_DEFAULT);
    assert_ok(qn_device_status(qn_test_device())); // other devices are not concerned
}

// Waiting less than the work takes loses the device, and destroying it is still clean.
static void a_time_limit_loses_the_device(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device_with(&(qn_device_opts){ 0 });
    enum { LARGE = 1 << 21 };
    qn_buffer *b = qn_test_buffer(dev, LARGE * 4, "y");
    qn_stream *s = make_stream(dev);
    for (uint32_t i = 0; i < 50; i++)
        assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, LARGE, i));
    assert_ok(qn_stream_submit(s));
    qn_log_set(NULL, NULL, QN_LOG_OFF);
    assert_fails(qn_stream_wait(s, 0), QN_ERR_DEVICE_LOST, "the time limit passed");
    qn_log_set(NULL, NULL, QN_LOG_DEFAULT);
    assert_fails(qn_stream_submit(s), QN_ERR_DEVICE_LOST, "the time limit passed");
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
    qn_device_destroy(&dev);
}

// More dispatches than one descriptor pool holds, from two streams at once.
static void many_dispatches(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device();
    qn_buffer *b = qn_test_buffer(dev, 256 * 256, "y");
    qn_stream *s[2] = { make_stream(dev), make_stream(dev) };
    for (uint32_t i = 0; i < 3000; i++)
        assert_ok(qn_test_fill_index(s[i % 2], (qn_range){ b, i % 256 * 256, 256 }, 64, i));
    for (int i = 0; i < 2; i++) assert_ok(qn_stream_submit(s[i]));
    for (int i = 0; i < 2; i++) assert_ok(qn_stream_wait(s[i], UINT64_MAX));
    static uint32_t y[256 * 64];
    assert_ok(qn_buffer_read(b, 0, y, sizeof y));
    for (uint32_t i = 3000 - 256; i < 3000; i++)
        for (uint32_t j = 0; j < 64; j++) assert_int_equal(y[i % 256 * 64 + j], i + j);
    for (int i = 0; i < 2; i++) qn_stream_destroy(&s[i]);
    qn_buffer_destroy(&b);
}

// What one thread does to the shared device; cmocka's assertions belong to the main thread.
static void *use_device(void *user)
{
    uint32_t start = *(uint32_t *)user, y[64], wrong = 0;
    qn_device *dev = qn_test_device();
    for (uint32_t round = 0; round < 20 && !wrong; round++) {
        qn_buffer *b = NULL;
        qn_stream *s = NULL;
        qn_buffer_opts opts = { .size = 256 * (1 + round), .name = "y" };
        if (qn_buffer_create(dev, &opts, &b) != QN_OK || qn_stream_create(dev, NULL, &s) != QN_OK ||
            qn_test_fill_index(s, (qn_range){ b, 256 * round, 0 }, 64, start + round) != QN_OK ||
            qn_stream_submit(s) != QN_OK || qn_buffer_read(b, 256 * round, y, sizeof y) != QN_OK)
            wrong++;
        for (uint32_t i = 0; i < 64 && !wrong; i++) wrong += y[i] != start + round + i;
        qn_stream_destroy(&s);
        qn_buffer_destroy(&b);
    }
    *(uint32_t *)user = wrong;
    return NULL;
}

static void threads_share_a_device(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    uint32_t values[THREADS];
    uint64_t before = qn_device_usage_now(qn_test_device()).allocated;
    for (uint32_t i = 0; i < THREADS; i++) {
        values[i] = 1000 * i;
        assert_int_equal(pthread_create(&threads[i], NULL, use_device, &values[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(values[i], 0);
    }
    assert_int_equal(qn_device_usage_now(qn_test_device()).allocated, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_writes_what_it_should_and_no_more),
        cmocka_unit_test(a_stream_runs_as_often_as_submitted),
        cmocka_unit_test(an_empty_stream_is_fine),
        cmocka_unit_test(cuts_make_submissions),
        cmocka_unit_test(barriers_only_where_ranges_meet),
        cmocka_unit_test(deleting_a_barrier_is_noticed),
        cmocka_unit_test(spans_are_timed),
        cmocka_unit_test(without_timestamps_the_clock_measures),
        cmocka_unit_test(a_failed_recording_is_reported_at_submit),
        cmocka_unit_test(copies_and_fills_are_checked),
        cmocka_unit_test(loss_at_each_submit),
        cmocka_unit_test(a_time_limit_loses_the_device),
        cmocka_unit_test(many_dispatches),
        cmocka_unit_test(threads_share_a_device),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
