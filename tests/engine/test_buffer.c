// Buffers and device memory, mapped and through staging; running out of it.
#include "buffer.h"
#include "device.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

static uint32_t seed = 1;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)seed * n) >> 32);
}

// Random writes, fills and reads against an array; larger than a staging chunk.
static void against_an_array(qn_device *dev, qn_memory memory)
{
    enum { SIZE = 10000 * 1000, ROUNDS = 40 };
    unsigned char *expected = calloc(1, SIZE), *data = malloc(SIZE);
    assert_non_null(expected);
    assert_non_null(data);
    qn_buffer *b = NULL;
    assert_ok(qn_buffer_create(
        dev, &(qn_buffer_opts){ .size = SIZE, .memory = memory, .name = "array" }, &b));
    assert_true(qn_buffer_size(b) >= SIZE && qn_buffer_size(b) % QN_RANGE_ALIGN == 0);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t largest = round % 4 ? 5000 : SIZE; // mostly small ones
        uint32_t offset = random_below(SIZE), size = random_below(SIZE - offset + 1);
        if (size > largest) size = largest;
        switch (random_below(3)) {
        case 0:
            for (uint32_t i = 0; i < size; i++) data[i] = (unsigned char)random_below(256);
            assert_ok(qn_buffer_write(b, offset, data, size));
            memcpy(expected + offset, data, size);
            break;
        case 1:
            offset &= ~3u;
            size &= ~3u;
            assert_ok(qn_buffer_fill(b, offset, size, 0x04030201));
            for (uint32_t i = 0; i < size; i++) expected[offset + i] = 1 + i % 4;
            break;
        default:
            assert_ok(qn_buffer_read(b, offset, data, size));
            assert_memory_equal(data, expected + offset, size);
        }
    }
    assert_ok(qn_buffer_read(b, 0, data, SIZE));
    assert_memory_equal(data, expected, SIZE);
    qn_buffer_destroy(&b);
    free(data);
    free(expected);
}

static void contents(void **state)
{
    (void)state;
    qn_device *staged = qn_test_device_with(&(qn_device_opts){ .force_staging = true });
    assert_int_equal(qn_device_describe(staged)->caps & QN_CAP_UNIFIED_MEMORY, 0);
    for (int memory = QN_MEMORY_DEVICE; memory <= QN_MEMORY_READBACK; memory++) {
        against_an_array(qn_test_device(), (qn_memory)memory);
        against_an_array(staged, (qn_memory)memory);
    }
    qn_device_destroy(&staged);
}

static void mapping(void **state)
{
    (void)state;
    qn_device *devices[] = { qn_test_device(),
                             qn_test_device_with(&(qn_device_opts){ .force_staging = true }) };
    for (int d = 0; d < 2; d++) {
        bool unified = qn_device_describe(devices[d])->caps & QN_CAP_UNIFIED_MEMORY;
        for (int memory = QN_MEMORY_DEVICE; memory <= QN_MEMORY_READBACK; memory++) {
            qn_buffer *b = NULL;
            assert_ok(qn_buffer_create(
                devices[d], &(qn_buffer_opts){ .size = 100, .memory = (qn_memory)memory }, &b));
            uint32_t *map = qn_buffer_map(b), word = 0;
            assert_int_equal(map != NULL, memory != QN_MEMORY_DEVICE || unified);
            if (map) {
                map[3] = 77;
                assert_ok(qn_buffer_read(b, 12, &word, 4));
                assert_int_equal(word, 77);
            }
            qn_buffer_destroy(&b);
        }
    }
    qn_device_destroy(&devices[1]);
}

// New buffers are zero also where an old one lay.
static void new_buffers_hold_zeros(void **state)
{
    (void)state;
    qn_device *staged = qn_test_device_with(&(qn_device_opts){ .force_staging = true });
    for (int round = 0; round < 6; round++) {
        qn_device *dev = round % 2 ? staged : qn_test_device();
        qn_buffer *b = qn_test_buffer(dev, 5000, "z");
        uint32_t words[1250];
        assert_ok(qn_buffer_read(b, 0, words, sizeof words));
        for (size_t i = 0; i < 1250; i++) assert_int_equal(words[i], 0);
        assert_ok(qn_buffer_fill(b, 0, 5000, 0xffffffff));
        qn_buffer_destroy(&b);
    }
    qn_device_destroy(&staged);
}

static void spans_are_checked(void **state)
{
    (void)state;
    qn_buffer *b = qn_test_buffer(qn_test_device(), 256, "b");
    char data[512];
    assert_fails(qn_buffer_write(b, 0, data, 257), QN_ERR_INVALID,
                 "writing buffer b: bytes 0 to 257, but it has 256");
    assert_fails(qn_buffer_read(b, 300, data, 0), QN_ERR_INVALID, "reading buffer b");
    assert_fails(qn_buffer_read(b, UINT64_MAX, data, 2), QN_ERR_INVALID, "but it has 256");
    assert_fails(qn_buffer_fill(b, 0, 1, 0), QN_ERR_INVALID, "not whole words");
    assert_fails(qn_buffer_fill(b, 2, 4, 0), QN_ERR_INVALID, "not whole words");
    assert_fails(qn_buffer_fill(b, 252, 8, 0), QN_ERR_INVALID, "bytes 252 to 260");
    assert_ok(qn_buffer_read(b, 256, data, 0));
    qn_buffer_destroy(&b);
    assert_fails(qn_buffer_create(qn_test_device(), &(qn_buffer_opts){ .name = "empty" }, &b),
                 QN_ERR_INVALID, "buffer empty: its size is 0");
    assert_fails(qn_buffer_create(qn_test_device(),
                                  &(qn_buffer_opts){ .size = UINT64_MAX, .name = "huge" }, &b),
                 QN_ERR_NO_DEVICE_MEMORY, "huge wants");
    assert_null(b);
}

static void running_out_names_request_limit_and_holders(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device_with(&(qn_device_opts){ .memory_limit = 16 * MIB });
    assert_int_equal(qn_device_usage_now(dev).limit, 16 * MIB);
    qn_buffer *held[4], *b = NULL;
    static const struct {
        const char *name;
        uint64_t size;
    } holders[4] = {
        { "small", KIB }, { "weights", 6 * MIB }, { "moments", 4 * MIB }, { "cache", 2 * MIB }
    };
    for (size_t i = 0; i < 4; i++) held[i] = qn_test_buffer(dev, holders[i].size, holders[i].name);
    assert_int_equal(qn_device_usage_now(dev).allocated, 12 * MIB + KIB);
    qn_buffer_opts wish = { .size = 5 * MIB, .name = "arena" };
    assert_fails(qn_buffer_create(dev, &wish, &b), QN_ERR_NO_DEVICE_MEMORY,
                 "out of device memory: arena wants 5.0 MiB, which exceeds the limit: limit 16.0 "
                 "MiB, in use 12.0 MiB, largest free piece 4.0 MiB; largest holders: weights 6.0 "
                 "MiB, moments 4.0 MiB, cache 2.0 MiB");
    assert_null(b);
    assert_int_equal(qn_device_usage_now(dev).allocated, 12 * MIB + KIB);
    qn_buffer_destroy(&held[1]); // the device is still of use
    assert_ok(qn_buffer_create(dev, &wish, &b));
    assert_int_equal(qn_device_usage_now(dev).peak, 12 * MIB + KIB);
    qn_buffer_destroy(&b);
    qn_buffer_destroy(&held[0]);
    qn_buffer_destroy(&held[2]);
    qn_buffer_destroy(&held[3]);
    assert_int_equal(qn_device_usage_now(dev).allocated, 0);
    b = qn_test_buffer(dev, 16 * MIB, "all of it");
    qn_buffer_destroy(&b);
    qn_device_destroy(&dev);
}

static void one_allocation_has_a_limit(void **state)
{
    (void)state;
    uint64_t most = qn_device_describe(qn_test_device())->max_allocation;
    if (most > UINT64_MAX / 4) skip();
    qn_buffer *b = NULL;
    assert_fails(qn_buffer_create(qn_test_device(),
                                  &(qn_buffer_opts){ .size = most + 1, .name = "big" }, &b),
                 QN_ERR_NO_DEVICE_MEMORY, "big wants");
}

// Buffers come and go in random order: they never share memory, and all of it comes back.
static void fragmentation(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device_with(&(qn_device_opts){ .memory_limit = 4 * MIB });
    enum { HELD = 40, ROUNDS = 600 };
    qn_buffer *held[HELD] = { NULL };
    uint32_t refused = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t i = random_below(HELD), word = 0;
        if (held[i]) {
            assert_ok(qn_buffer_read(held[i], 0, &word, 4));
            assert_int_equal(word, i + 1);
            assert_ok(qn_buffer_read(held[i], qn_buffer_size(held[i]) - 4, &word, 4));
            assert_int_equal(word, i + 1);
            qn_buffer_destroy(&held[i]);
        }
        qn_buffer_opts opts = { .size = 1 + random_below(400 * 1024), .name = "piece" };
        qn_result r = qn_buffer_create(dev, &opts, &held[i]);
        if (r != QN_OK) {
            assert_int_equal(r, QN_ERR_NO_DEVICE_MEMORY);
            refused++;
            continue;
        }
        assert_ok(qn_buffer_fill(held[i], 0, qn_buffer_size(held[i]), i + 1));
    }
    assert_true(refused > 10); // else the limit was not reached
    for (size_t i = 0; i < HELD; i++) qn_buffer_destroy(&held[i]);
    assert_int_equal(qn_device_usage_now(dev).allocated, 0);
    qn_buffer *all = qn_test_buffer(dev, 4 * MIB, "all of it");
    qn_buffer_destroy(&all);
    qn_device_destroy(&dev);
}

// Writing waits for submitted work, and work sees what was written.
static void copies_are_ordered_with_submitted_work(void **state)
{
    (void)state;
    qn_device *staged = qn_test_device_with(&(qn_device_opts){ .force_staging = true });
    qn_device *devices[] = { qn_test_device(), staged };
    for (int d = 0; d < 2; d++) {
        enum { N = 1 << 20 };
        qn_buffer *a = qn_test_buffer(devices[d], N * 4, "a");
        qn_buffer *b = qn_test_buffer(devices[d], N * 4, "b");
        qn_stream *s;
        assert_ok(qn_stream_create(devices[d], NULL, &s));
        for (int i = 0; i < 20; i++)
            assert_ok(qn_stream_copy(s, (qn_range){ b, 0, 0 }, (qn_range){ a, 0, 0 }));
        assert_ok(qn_test_fill_index(s, (qn_range){ a, 0, 0 }, N, 0));
        for (uint32_t round = 1; round <= 3; round++) {
            uint32_t last = 0;
            assert_ok(qn_buffer_fill(a, 0, N * 4, round));
            assert_ok(qn_stream_submit(s));
            assert_ok(qn_buffer_write(a, 0, &round, 4)); // not waited for by hand
            assert_ok(qn_buffer_read(a, 4 * (N - 1), &last, 4));
            assert_int_equal(last, N - 1);
            assert_ok(qn_buffer_read(b, 4 * (N - 1), &last, 4));
            assert_int_equal(last, round);
        }
        qn_stream_destroy(&s);
        qn_buffer_destroy(&a);
        qn_buffer_destroy(&b);
    }
    qn_device_destroy(&staged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents),
        cmocka_unit_test(mapping),
        cmocka_unit_test(new_buffers_hold_zeros),
        cmocka_unit_test(spans_are_checked),
        cmocka_unit_test(running_out_names_request_limit_and_holders),
        cmocka_unit_test(one_allocation_has_a_limit),
        cmocka_unit_test(fragmentation),
        cmocka_unit_test(copies_are_ordered_with_submitted_work),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
