// Event files read back by a reader of our own, and metrics.jsonl.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include "io/metrics.h"
#include "io/tensorboard.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DIR QN_SCRATCH_DIR

static int setup(void **state)
{
    (void)state;
    if (qn_remove_tree(DIR) != QN_OK || qn_make_dirs(DIR) != QN_OK) return 1;
    return 0;
}

// ------------------------------------------------------------------------------------ reader

typedef struct bytes {
    const uint8_t *at, *end;
} bytes;

static uint64_t little(bytes *b, size_t size)
{
    assert_true((size_t)(b->end - b->at) >= size);
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++) v |= (uint64_t)b->at[i] << (8 * i);
    b->at += size;
    return v;
}

static uint64_t varint(bytes *b)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        uint64_t byte = little(b, 1);
        v |= (byte & 0x7f) << shift;
        if (!(byte & 0x80)) return v;
        assert_true(shift < 63);
    }
}

static bytes piece(bytes *b, uint64_t size)
{
    assert_true((uint64_t)(b->end - b->at) >= size);
    bytes p = { b->at, b->at + size };
    b->at += size;
    return p;
}

static double as_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

// One field of a message: its number, and its value as bits or as bytes.
static bool field(bytes *b, unsigned *number, uint64_t *bits, bytes *body)
{
    if (b->at == b->end) return false;
    uint64_t key = varint(b);
    *number = (unsigned)(key >> 3);
    switch (key & 7) {
    case 0:
        *bits = varint(b);
        break;
    case 1:
        *bits = little(b, 8);
        break;
    case 2:
        *body = piece(b, varint(b));
        break;
    case 5:
        *bits = little(b, 4);
        break;
    default:
        fail_msg("wire type %u", (unsigned)(key & 7));
    }
    return true;
}

typedef struct event {
    double wall_time;
    int64_t step;
    char version[32], tag[64];
    bool start, has_value;
    float value;
    double histogram[6]; // fields 1 to 5
    double limits[16], buckets[16];
    size_t limit_count, bucket_count;
} event;

static void copy_text(char *to, size_t size, bytes from)
{
    assert_true((size_t)(from.end - from.at) < size);
    memcpy(to, from.at, (size_t)(from.end - from.at));
    to[from.end - from.at] = 0;
}

static size_t doubles(double *to, size_t most, bytes from)
{
    size_t n = 0;
    for (; from.at < from.end; n++) {
        assert_true(n < most);
        to[n] = as_double(little(&from, 8));
    }
    return n;
}

static void read_histogram(event *e, bytes b)
{
    unsigned number;
    uint64_t bits;
    bytes body;
    while (field(&b, &number, &bits, &body)) {
        if (number <= 5) e->histogram[number] = as_double(bits);
        if (number == 6) e->limit_count = doubles(e->limits, 16, body);
        if (number == 7) e->bucket_count = doubles(e->buckets, 16, body);
    }
}

static void read_value(event *e, bytes b)
{
    unsigned number;
    uint64_t bits;
    bytes body;
    while (field(&b, &number, &bits, &body)) {
        if (number == 1) copy_text(e->tag, sizeof e->tag, body);
        if (number == 2) {
            uint32_t half = (uint32_t)bits;
            memcpy(&e->value, &half, sizeof half);
            e->has_value = true;
        }
        if (number == 5) read_histogram(e, body);
    }
}

static event read_event(bytes b)
{
    event e = { 0 };
    unsigned number, inner;
    uint64_t bits;
    bytes body, value;
    while (field(&b, &number, &bits, &body)) {
        if (number == 1) e.wall_time = as_double(bits);
        if (number == 2) e.step = (int64_t)bits;
        if (number == 3) copy_text(e.version, sizeof e.version, body);
        if (number == 5) {
            assert_true(field(&body, &inner, &bits, &value));
            assert_int_equal(inner, 1);
            read_value(&e, value);
        }
        if (number == 7) {
            assert_true(field(&body, &inner, &bits, &value));
            e.start = inner == 1 && bits == 1;
        }
    }
    return e;
}

static size_t read_file(const char *path, event *out, size_t most)
{
    char *text;
    size_t size, n = 0;
    assert_int_equal(qn_read_file(path, 1 << 20, &text, &size), QN_OK);
    bytes b = { (uint8_t *)text, (uint8_t *)text + size };
    for (; b.at < b.end; n++) {
        const uint8_t *head = b.at;
        uint64_t length = little(&b, 8);
        assert_true(little(&b, 4) == qn_crc32c_masked(head, 8));
        bytes data = piece(&b, length);
        assert_true(little(&b, 4) == qn_crc32c_masked(data.at, length));
        assert_true(n < most);
        out[n] = read_event(data);
    }
    qn_free(text);
    return n;
}

// ------------------------------------------------------------------------------------ tests

static void test_checksum(void **state)
{
    (void)state;
    // The check value of CRC-32C, and a vector of RFC 3720, appendix B.4.
    assert_true(qn_crc32c("123456789", 9) == 0xe3069283u);
    uint8_t zeros[32] = { 0 };
    assert_true(qn_crc32c(zeros, 32) == 0x8a9136aau);
    assert_true(qn_crc32c("", 0) == 0);
    // Masking rotates right by 15 and adds a constant. [tfrecord]
    assert_true(qn_crc32c_masked("", 0) == 0xa282ead8u);
}

static void test_events(void **state)
{
    (void)state;
    qn_tensorboard *t;
    assert_int_equal(qn_tensorboard_open(DIR "/logs/a", 0, &t), QN_OK);
    assert_non_null(strstr(qn_tensorboard_path(t), "/logs/a/events.out.tfevents."));
    double load[] = { 0, 30, 10 };
    assert_int_equal(qn_tensorboard_scalar(t, 1, "loss/train", 2.5), QN_OK);
    assert_int_equal(qn_tensorboard_scalar(t, 300, "loss/train", NAN), QN_OK);
    assert_int_equal(qn_tensorboard_scalar(t, INT64_MAX, "x", 1e300), QN_OK);
    assert_int_equal(qn_tensorboard_load(t, 7, "load/h.0", load, 3), QN_OK);
    assert_int_equal(qn_tensorboard_flush(t), QN_OK);
    event e[8];
    assert_int_equal(read_file(qn_tensorboard_path(t), e, 8), 5);
    assert_string_equal(e[0].version, "brain.Event:2");
    assert_true(e[0].wall_time > 1.7e9);
    assert_int_equal(e[1].step, 1);
    assert_string_equal(e[1].tag, "loss/train");
    assert_true(e[1].has_value && e[1].value == 2.5f);
    assert_int_equal(e[2].step, 300);
    assert_true(isnan(e[2].value));
    assert_true(e[3].step == INT64_MAX && isinf(e[3].value));
    assert_string_equal(e[4].tag, "load/h.0");
    assert_int_equal(e[4].limit_count, 3);
    assert_int_equal(e[4].bucket_count, 3);
    assert_true(e[4].limits[2] == 2.5 && e[4].buckets[1] == 30);
    // min, max, count, sum, sum of squares
    assert_true(e[4].histogram[1] == -0.5 && e[4].histogram[2] == 2.5 && e[4].histogram[3] == 40);
    assert_true(e[4].histogram[4] == 50 && e[4].histogram[5] == 70);
    assert_int_equal(qn_tensorboard_close(&t), QN_OK);
    assert_null(t);
}

static void test_second_run(void **state)
{
    (void)state;
    qn_tensorboard *a, *b;
    assert_int_equal(qn_tensorboard_open(DIR "/logs/b", 0, &a), QN_OK);
    assert_int_equal(qn_tensorboard_open(DIR "/logs/b", 41, &b), QN_OK);
    assert_string_not_equal(qn_tensorboard_path(a), qn_tensorboard_path(b));
    event e[4];
    assert_int_equal(read_file(qn_tensorboard_path(a), e, 4), 1);
    assert_int_equal(read_file(qn_tensorboard_path(b), e, 4), 2);
    assert_true(e[1].start && e[1].step == 41);
    qn_tensorboard_close(&a);
    qn_tensorboard_close(&b);
}

static void test_refusals(void **state)
{
    (void)state;
    qn_tensorboard *t;
    assert_int_equal(qn_write_file(DIR "/file", "x", 1), QN_OK);
    assert_int_equal(qn_tensorboard_open(DIR "/file/logs", 0, &t), QN_ERR_IO);
    assert_null(t);
    assert_int_equal(qn_tensorboard_open(DIR "/logs/c", 0, &t), QN_OK);
    double bad[] = { 1, -1 };
    assert_int_equal(qn_tensorboard_load(t, 1, "load", bad, 2), QN_ERR_INVALID);
    assert_string_equal(qn_error_message(), "load: load[1] is -1, expected a number of at least 0");
    assert_int_equal(qn_tensorboard_load(t, 1, "load", bad, 0), QN_ERR_INVALID);
    qn_tensorboard_close(&t);
    for (int64_t n = 1;; n++) {
        assert_int_equal(qn_remove_tree(DIR "/logs/d"), QN_OK); // each file there costs a try
        qn_alloc_fail_at(n);
        qn_result r = qn_tensorboard_open(DIR "/logs/d", 5, &t);
        if (r == QN_OK) r = qn_tensorboard_scalar(t, 1, "a", 1);
        qn_alloc_fail_at(0);
        qn_tensorboard_close(&t);
        if (r == QN_OK) break;
        if (r != QN_ERR_NO_MEMORY) fail_msg("%s", qn_error_message());
    }
}

static void assert_content(const char *path, const char *expected)
{
    char *text;
    size_t size;
    assert_int_equal(qn_read_file(path, 1 << 20, &text, &size), QN_OK);
    assert_string_equal(text, expected);
    qn_free(text);
}

#define METRICS DIR "/metrics.jsonl"
static void write_steps(int64_t keep, int64_t first, int64_t last)
{
    qn_metrics *m;
    assert_int_equal(qn_metrics_open(METRICS, keep, &m), QN_OK);
    for (int64_t step = first; step <= last; step++) {
        qn_metric items[] = { { .key = "loss", .value = 0.5 * (double)step },
                              { .key = "bad", .value = NAN },
                              { .key = "run", .text = "a\"b" } };
        assert_int_equal(qn_metrics_write(m, step, items, 3), QN_OK);
    }
    assert_int_equal(qn_metrics_close(&m), QN_OK);
}

static void test_metrics(void **state)
{
    (void)state;
    write_steps(-1, 1, 3);
    const char *one = "{\"step\":1,\"loss\":0.5,\"bad\":null,\"run\":\"a\\\"b\"}\n";
    const char *two = "{\"step\":2,\"loss\":1,\"bad\":null,\"run\":\"a\\\"b\"}\n";
    const char *three = "{\"step\":3,\"loss\":1.5,\"bad\":null,\"run\":\"a\\\"b\"}\n";
    char all[512];
    snprintf(all, sizeof all, "%s%s%s", one, two, three);
    assert_content(METRICS, all);
    // Resumed at step 1: what came later is written again.
    write_steps(1, 2, 2);
    snprintf(all, sizeof all, "%s%s", one, two);
    assert_content(METRICS, all);
    // A crash in the middle of a line.
    snprintf(all, sizeof all, "%s%s%.20s", one, two, three);
    assert_int_equal(qn_write_file(METRICS, all, strlen(all)), QN_OK);
    write_steps(5, 3, 3);
    snprintf(all, sizeof all, "%s%s%s", one, two, three);
    assert_content(METRICS, all);
    write_steps(-1, 1, 1);
    assert_content(METRICS, one);
}

static void test_foreign_metrics(void **state)
{
    (void)state;
    static const char *const files[] = {
        "hello\n",        "{\"step\":1}\n\n",
        "{\"step\":x}\n", "{\"step\":99999999999999999999}\n",
        "{\"step\":1\n",  "{\"loss\":1,\"step\":2}\n",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        qn_metrics *m;
        assert_int_equal(qn_write_file(METRICS, files[i], strlen(files[i])), QN_OK);
        assert_int_equal(qn_metrics_open(METRICS, 10, &m), QN_ERR_FORMAT);
        assert_non_null(strstr(qn_error_message(), "metrics.jsonl: line "));
        assert_null(m);
        assert_content(METRICS, files[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum),   cmocka_unit_test(test_events),
        cmocka_unit_test(test_second_run), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_metrics),    cmocka_unit_test(test_foreign_metrics),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
