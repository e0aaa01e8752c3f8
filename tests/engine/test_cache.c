// The pipeline cache's file: made, used, and harmless when damaged or another device's.
#include "device.h"
#include "mem.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[64];

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/quoin-cache-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return qn_remove_tree(root) == QN_OK ? 0 : -1;
}

// Opens a device with this cache directory and runs a kernel on it.
static void use_device(const char *dir)
{
    qn_device *dev = NULL;
    assert_ok(qn_device_create(qn_test_context(), &(qn_device_opts){ .cache_dir = dir }, &dev));
    qn_buffer *b = qn_test_buffer(dev, 256, "y");
    qn_stream *s;
    uint32_t y[64];
    assert_ok(qn_stream_create(dev, NULL, &s));
    assert_ok(qn_test_fill_index(s, (qn_range){ b, 0, 0 }, 64, 3));
    assert_ok(qn_stream_submit(s));
    assert_ok(qn_buffer_read(b, 0, y, sizeof y));
    for (uint32_t i = 0; i < 64; i++) assert_int_equal(y[i], 3 + i);
    qn_device_usage usage = qn_device_usage_now(dev);
    assert_int_equal(usage.pipelines, 1);
    assert_true(usage.pipelines_cached <= usage.pipelines);
    qn_stream_destroy(&s);
    qn_buffer_destroy(&b);
    qn_device_destroy(&dev);
}

static char *cache_file(const char *dir)
{
    char **names;
    size_t count;
    assert_ok(qn_list_dir(dir, &names, &count));
    assert_int_equal(count, 1); // no temporary file beside it
    assert_memory_equal(names[0], "pipelines-", 10);
    char *path = qn_path_join(dir, names[0]);
    qn_free_names(names, count);
    return path;
}

static void a_file_is_made_and_used(void **state)
{
    (void)state;
    char *dir = qn_path_join(root, "deep/er");
    use_device(dir);
    char *path = cache_file(dir), *first, *second;
    size_t first_size, second_size;
    assert_ok(qn_read_file(path, 1 << 30, &first, &first_size));
    assert_true(first_size > 48);
    assert_memory_equal(first, "qnpcache", 8);
    uint64_t written = qn_file_time(path);
    use_device(dir);
    assert_ok(qn_read_file(path, 1 << 30, &second, &second_size));
    assert_int_equal(second_size, first_size);
    assert_memory_equal(second, first, first_size);
    assert_int_equal(qn_file_time(path), written); // nothing new: not written again
    qn_free(first);
    qn_free(second);
    qn_free(path);
    qn_free(dir);
}

// Every byte of the header damaged, every length cut, and random content: always an empty start,
// and a good file afterwards.
static void damaged_files_are_replaced(void **state)
{
    (void)state;
    use_device(root);
    char *path = cache_file(root), *good, *now;
    size_t size, now_size;
    assert_ok(qn_read_file(path, 1 << 30, &good, &size));
    for (size_t i = 0; i < 48; i += 3) { // the header is 48 bytes
        good[i] ^= 0x10;
        assert_ok(qn_write_file(path, good, size));
        good[i] ^= 0x10;
        use_device(root);
        assert_ok(qn_read_file(path, 1 << 30, &now, &now_size));
        assert_int_equal(now_size, size);
        assert_memory_equal(now, good, size);
        qn_free(now);
    }
    for (size_t cut = 0; cut < size; cut += 1 + size / 12) {
        assert_ok(qn_write_file(path, good, cut));
        use_device(root);
        assert_ok(qn_read_file(path, 1 << 30, &now, &now_size));
        assert_memory_equal(now, good, size);
        qn_free(now);
    }
    memset(good + 48, 0xa5, size - 48);
    assert_ok(qn_write_file(path, good, size));
    use_device(root);
    qn_free(good);
    qn_free(path);
}

static void a_cache_that_cannot_be_written_is_no_error(void **state)
{
    (void)state;
    char *file = qn_path_join(root, "file"), *below = qn_path_join(root, "file/below");
    assert_ok(qn_write_file(file, "x", 1));
    qn_log_set(NULL, NULL, QN_LOG_OFF); // it warns
    use_device(below);
    use_device(file);
    qn_log_set(NULL, NULL, QN_LOG_DEFAULT);
    qn_free(file);
    qn_free(below);
}

static void where_it_lies(void **state)
{
    (void)state;
    const char *old = getenv("XDG_CACHE_HOME");
    char *kept = old ? strdup(old) : NULL;
    setenv("XDG_CACHE_HOME", root, 1);
    char *dir = qn_path_join(root, "quoin");
    use_device("");
    assert_false(qn_file_exists(dir)); // drivers may have made directories of their own
    use_device(NULL);
    char *path = cache_file(dir);
    qn_free(path);
    qn_free(dir);
    if (kept)
        setenv("XDG_CACHE_HOME", kept, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    free(kept);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_made_and_used),
        TEST(damaged_files_are_replaced),
        TEST(a_cache_that_cannot_be_written_is_no_error),
        TEST(where_it_lies),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
