// Files, directories and the rest of platform.h.
#include "device.h"
#include "mem.h"
#include "platform.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[64];

static const char *in_root(const char *name)
{
    static char path[4][160];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", root, name);
    return p;
}

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/quoin-platform-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return qn_remove_tree(root) == QN_OK && !qn_file_exists(root) ? 0 : -1;
}

static void assert_content(const char *path, const char *text)
{
    char *data;
    size_t size;
    assert_ok(qn_read_file(path, 1 << 20, &data, &size));
    assert_int_equal(size, strlen(text));
    assert_string_equal(data, text);
    qn_free(data);
}

static size_t entries(void)
{
    char **names;
    size_t count;
    assert_ok(qn_list_dir(root, &names, &count));
    qn_free_names(names, count);
    return count;
}

static void a_file_is_written_and_replaced(void **state)
{
    (void)state;
    const char *path = in_root("a");
    assert_ok(qn_write_file(path, "one", 3));
    assert_content(path, "one");
    assert_ok(qn_write_file(path, "", 0));
    assert_content(path, "");
    assert_int_equal(chmod(path, 0640), 0);
    assert_ok(qn_write_file(path, "two", 3));
    assert_content(path, "two");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_true(qn_file_time(path) > 0);
    assert_int_equal(qn_file_time(in_root("none")), 0);
    assert_int_equal(entries(), 1);
}

static void an_abandoned_file_leaves_nothing(void **state)
{
    (void)state;
    const char *path = in_root("a");
    assert_ok(qn_write_file(path, "old", 3));
    qn_atomic_file *f;
    assert_ok(qn_atomic_open(path, &f));
    assert_ok(qn_atomic_write(f, "new", 3));
    assert_content(path, "old");
    qn_atomic_abandon(&f);
    assert_null(f);
    qn_atomic_abandon(&f);
    assert_content(path, "old");
    assert_int_equal(entries(), 1);
}

// Whenever a writer is killed, the file holds one whole text.
static void a_killed_writer_leaves_the_old_or_the_new(void **state)
{
    (void)state;
    const char *path = in_root("a");
    enum { SIZE = 65536 };
    static char text[SIZE];
    memset(text, 'a', SIZE);
    assert_ok(qn_write_file(path, text, SIZE));
    for (int round = 0; round < 10; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (char c = 'a';; c = c == 'z' ? 'a' : (char)(c + 1)) {
                memset(text, c, SIZE);
                if (qn_write_file(path, text, SIZE) != QN_OK) _exit(1);
            }
        }
        usleep(500u + 700u * (unsigned)round);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        char *data;
        size_t size;
        assert_ok(qn_read_file(path, SIZE, &data, &size));
        assert_int_equal(size, SIZE);
        for (size_t i = 1; i < SIZE; i++) assert_int_equal(data[i], data[0]);
        qn_free(data);
    }
}

static void writing_where_one_cannot_names_path_and_reason(void **state)
{
    (void)state;
    assert_fails(qn_write_file(in_root("no/such/a"), "x", 1), QN_ERR_IO, "no/such/a: No such file");
    assert_fails(qn_write_file(root, "x", 1), QN_ERR_IO, "is a directory");
    assert_fails(qn_write_file("", "x", 1), QN_ERR_IO, "path is empty");
    assert_ok(qn_write_file(in_root("file"), "x", 1));
    assert_fails(qn_write_file(in_root("file/a"), "x", 1), QN_ERR_IO, "Not a directory");
    assert_fails(qn_make_dirs(in_root("file/dir")), QN_ERR_IO, "/file: Not a directory");
    assert_fails(qn_check_dirs(in_root("file/dir")), QN_ERR_IO, "/file/dir: Not a directory");
    assert_fails(qn_check_dirs(in_root("file")), QN_ERR_IO, "/file: Not a directory");
    assert_fails(qn_check_dirs(""), QN_ERR_IO, "empty");
    assert_fails(qn_rename(in_root("none"), in_root("b")), QN_ERR_IO, "none");
}

// A limit on the size of files stands for the end of the disk: write() fails half-way.
static void a_full_disk_is_told_and_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = in_root("a");
    assert_ok(qn_write_file(path, "old", 3));
    static char large[1 << 20];
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){ .rlim_cur = 4096, .rlim_max = old.rlim_max };
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    qn_result r = qn_write_file(path, large, sizeof large);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_fails(r, QN_ERR_IO, "/a: File too large");
    assert_content(path, "old");
    assert_int_equal(entries(), 1);
}

static void mapping(void **state)
{
    (void)state;
    qn_mapping m;
    assert_ok(qn_write_file(in_root("full"), "quoin", 5));
    assert_ok(qn_map_file(in_root("full"), &m));
    assert_int_equal(m.size, 5);
    assert_memory_equal(m.data, "quoin", 5);
    qn_unmap_file(&m);
    assert_null(m.data);
    assert_ok(qn_write_file(in_root("empty"), "", 0));
    assert_ok(qn_map_file(in_root("empty"), &m));
    assert_int_equal(m.size, 0);
    assert_non_null(m.data);
    qn_unmap_file(&m);
    assert_fails(qn_map_file(in_root("none"), &m), QN_ERR_IO, "none: No such file");
    assert_fails(qn_map_file(root, &m), QN_ERR_IO, "not a regular file");
    assert_int_equal(mkfifo(in_root("pipe"), 0600), 0);
    assert_fails(qn_map_file(in_root("pipe"), &m), QN_ERR_IO, "not a regular file");
}

static void reading_has_a_limit(void **state)
{
    (void)state;
    char *data;
    size_t size;
    assert_ok(qn_write_file(in_root("a"), "12345", 5));
    assert_fails(qn_read_file(in_root("a"), 4, &data, &size), QN_ERR_IO,
                 "5 bytes, at most 4 expected");
    assert_ok(qn_read_file(in_root("a"), 5, &data, &size));
    assert_string_equal(data, "12345");
    qn_free(data);
    assert_fails(qn_read_file(in_root("none"), 5, &data, &size), QN_ERR_IO, "No such file");
}

static void directories(void **state)
{
    (void)state;
    assert_ok(qn_check_dirs(in_root("x/y//z/")));
    assert_false(qn_is_dir(in_root("x")));
    assert_ok(qn_check_dirs("not-there"));
    assert_ok(qn_check_dirs("/not-there/at-all"));
    assert_ok(qn_make_dirs(in_root("x/y//z/")));
    assert_ok(qn_make_dirs(in_root("x/y/z")));
    assert_true(qn_is_dir(in_root("x/y/z")));
    assert_false(qn_is_dir(in_root("x/q")));
    assert_ok(qn_write_file(in_root("x/b"), "", 0));
    assert_ok(qn_write_file(in_root("x/a"), "", 0));
    assert_ok(qn_write_file(in_root("x/.hidden"), "", 0));
    char **names;
    size_t count;
    assert_ok(qn_list_dir(in_root("x"), &names, &count));
    static const char *const expected[] = { ".hidden", "a", "b", "y" };
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) assert_string_equal(names[i], expected[i]);
    qn_free_names(names, count);
    assert_fails(qn_list_dir(in_root("none"), &names, &count), QN_ERR_IO, "none");
    // A link to elsewhere is removed, not what it points at.
    assert_ok(qn_write_file(in_root("kept"), "k", 1));
    assert_int_equal(symlink(root, in_root("x/link")), 0);
    assert_ok(qn_remove_tree(in_root("x")));
    assert_false(qn_file_exists(in_root("x")));
    assert_content(in_root("kept"), "k");
    assert_ok(qn_remove_tree(in_root("x")));
    assert_ok(qn_rename(in_root("kept"), in_root("moved")));
    assert_content(in_root("moved"), "k");
}

static void paths_clocks_and_environment(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *name, *path;
    } cases[] = { { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "", "b", "b" }, { "/", "b", "/b" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *p = qn_path_join(cases[i].dir, cases[i].name);
        assert_string_equal(p, cases[i].path);
        qn_free(p);
    }
    double a = qn_clock(), b = qn_thread_clock();
    usleep(2000);
    assert_true(qn_clock() - a >= 0.002);
    assert_true(qn_thread_clock() - b < qn_clock() - a); // sleeping is no work
    unsetenv("QUOIN_TEST");
    qn_env_default("QUOIN_TEST", "1");
    qn_env_default("QUOIN_TEST", "2");
    assert_string_equal(getenv("QUOIN_TEST"), "1");
    qn_machine_memory m = qn_machine_memory_now();
    assert_true(m.available > 0 && m.available <= m.total);
}

// Each allocation of each function fails in turn: an error, never a crash or a file left behind.
static void out_of_memory(void **state)
{
    (void)state;
    const char *path = in_root("a"), *dir = in_root("d");
    assert_ok(qn_write_file(path, "x", 1));
    for (int64_t n = 1, failed = 1; failed; n++) {
        failed = 0;
        char *data, **names;
        size_t size, count;
        qn_alloc_fail_at(n);
        qn_result write = qn_write_file(path, "y", 1);
        qn_alloc_fail_at(n);
        qn_result read = qn_read_file(path, 10, &data, &size);
        if (read == QN_OK) qn_free(data);
        qn_alloc_fail_at(n);
        qn_result list = qn_list_dir(root, &names, &count);
        if (list == QN_OK) qn_free_names(names, count);
        qn_alloc_fail_at(n);
        qn_result dirs = qn_make_dirs(dir);
        qn_alloc_fail_at(n);
        qn_result remove = qn_remove_tree(dir);
        qn_alloc_fail_at(0);
        const qn_result all[] = { write, read, list, dirs, remove };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            if (all[i] != QN_OK) assert_int_equal(all[i], QN_ERR_NO_MEMORY);
            failed |= all[i] != QN_OK;
        }
    }
    assert_content(path, "y");
    assert_int_equal(entries(), 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_written_and_replaced),
        TEST(an_abandoned_file_leaves_nothing),
        TEST(a_killed_writer_leaves_the_old_or_the_new),
        TEST(writing_where_one_cannot_names_path_and_reason),
        TEST(a_full_disk_is_told_and_keeps_the_old_file),
        TEST(mapping),
        TEST(reading_has_a_limit),
        TEST(directories),
        TEST(paths_clocks_and_environment),
        TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
