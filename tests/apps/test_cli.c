// The program as a shell sees it: what it prints where, and its exit status.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include "cli/command.h"
#include "cli/term.h"
#include "io/json.h"
#include "platform.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUT QN_SCRATCH_DIR "/out"
#define ERR QN_SCRATCH_DIR "/err"

static int setup(void **state)
{
    (void)state;
    // Drivers stay loaded, so that a leak checker sees whose memory is whose.
    setenv("VK_LOADER_DISABLE_DYNAMIC_LIBRARY_UNLOADING", "1", 1);
    if (qn_remove_tree(QN_SCRATCH_DIR) != QN_OK || qn_make_dirs(QN_SCRATCH_DIR) != QN_OK) return 1;
    return 0;
}

static char *out, *err; // of the last run
static int status;

static void open_as(const char *path, int target)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, target) < 0) _exit(127);
}

// Runs the program with stdout to `to` (NULL: captured) and without any driver if so wanted.
static void run_to(const char *to, bool drivers, char *const *args)
{
    char *argv[16] = { QN_PROGRAM };
    for (int i = 0; args[i]; i++) argv[i + 1] = args[i];
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        open_as(to ? to : OUT, 1);
        open_as(ERR, 2);
        if (!drivers) {
            setenv("VK_DRIVER_FILES", "/nonexistent", 1);
            setenv("VK_ICD_FILENAMES", "/nonexistent", 1);
        }
        execv(argv[0], argv);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    status = WEXITSTATUS(status);
    size_t size;
    free(out);
    free(err);
    out = err = NULL;
    if (!to) assert_int_equal(qn_read_file(OUT, 1 << 24, &out, &size), QN_OK);
    assert_int_equal(qn_read_file(ERR, 1 << 24, &err, &size), QN_OK);
}

#define RUN(...) run_to(NULL, true, (char *[]){ __VA_ARGS__, NULL })
#define RUN_BARE(...) run_to(NULL, false, (char *[]){ __VA_ARGS__, NULL })

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("expected '%s' in:\n%s", part, text);
}

static void test_help_of_all(void **state)
{
    (void)state;
    RUN("--help");
    assert_int_equal(status, QN_EXIT_DONE);
    assert_string_equal(err, "");
    char *overview = strdup(out);
    const qn_command_row *row;
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        char outer[64];
        snprintf(outer, sizeof outer, "%.*s", (int)strcspn(row->name, " "), row->name);
        char *inner = strchr(row->name, ' ') ? (char *)qn_command_word(row) : NULL;
        assert_has(overview, outer);
        RUN("help", outer, inner);
        assert_int_equal(status, QN_EXIT_DONE);
        assert_has(out, row->summary);
        for (const qn_opt *opt = row->command->options; opt && opt->name; opt++) {
            assert_has(out, opt->name);
        }
        char *help = strdup(out);
        RUN(outer, inner ? inner : "--help", inner ? "--help" : NULL);
        assert_int_equal(status, QN_EXIT_DONE);
        assert_string_equal(out, help);
        free(help);
        RUN("man", outer, inner);
        assert_int_equal(status, QN_EXIT_DONE);
        assert_has(out, ".Sh DESCRIPTION");
    }
    free(overview);
}

// No line of help is wider than a plain terminal.
static void test_help_width(void **state)
{
    (void)state;
    const qn_command_row *row;
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        char outer[64];
        snprintf(outer, sizeof outer, "%.*s", (int)strcspn(row->name, " "), row->name);
        RUN("help", outer, strchr(row->name, ' ') ? (char *)qn_command_word(row) : NULL);
        char *examples = strstr(out, "\nExamples:\n"); // lines to copy are not wrapped
        if (examples) *examples = 0;
        for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n")) {
            if (strlen(line) > 80) fail_msg("help %s: %s", row->name, line);
        }
    }
}

static void test_misuse(void **state)
{
    (void)state;
    static const struct {
        char *args[4];
        const char *message;
    } rows[] = {
        { { "inof" }, "unknown command 'inof'; did you mean 'info'?" },
        { { "inof", "--json" }, "unknown command 'inof'; did you mean 'info'?" },
        { { "xyzzy" }, "unknown command 'xyzzy'\n" },
        { { "help", "versoin" }, "unknown command 'versoin'; did you mean 'version'?" },
        { { "info", "--kernel" }, "info: unknown option '--kernel'; did you mean '--kernels'?" },
        { { "--jsno", "info" }, "unknown option '--jsno'; did you mean '--json'?" },
        { { "info", "--seed", "-1" },
          "--seed: found '-1', expected a whole number from 0 to 2147483647" },
        { { "info", "--seed" }, "--seed: found nothing, expected a value: --seed N" },
        { { "info", "--hide=subgrup" },
          "--hide: found 'subgrup', expected a capability; did you mean 'subgroup'?" },
        { { "info", "extra" }, "info: found 1 arguments, expected none" },
        { { "completion" }, "completion: found 0 arguments, expected bash|zsh|fish" },
        { { "completion", "basj" },
          "found 'basj', expected bash, zsh or fish; did you mean 'bash'?" },
        { { "\x1b[2J" }, "unknown command '?[2J'" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        RUN_BARE(rows[i].args[0], rows[i].args[1], rows[i].args[2]);
        if (status != QN_EXIT_MISUSED) fail_msg("row %zu: status %d", i, status);
        assert_string_equal(out, "");
        assert_has(err, rows[i].message);
    }
    run_to(NULL, true, (char *[]){ NULL });
    assert_int_equal(status, QN_EXIT_MISUSED);
    assert_string_equal(out, "");
    assert_has(err, "Usage: quoin");
}

static void test_version(void **state)
{
    (void)state;
    RUN_BARE("--version");
    assert_int_equal(status, QN_EXIT_DONE);
    char expected[64];
    snprintf(expected, sizeof expected, "quoin %s\n", qn_version());
    assert_string_equal(out, expected);
    RUN_BARE("version", "--json");
    qn_json_doc *doc;
    assert_int_equal(qn_json_parse("version", out, strlen(out), NULL, &doc), QN_OK);
    const char *version;
    assert_int_equal(qn_json_string(qn_json_root(doc), "version", &version), QN_OK);
    assert_string_equal(version, qn_version());
    qn_json_close(&doc);
}

static void test_no_driver(void **state)
{
    (void)state;
    static char *const commands[][3] = {
        { "info" }, { "info", "--json" }, { "check" }, { "check", "--json" }
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        RUN_BARE(commands[i][0], commands[i][1]);
        assert_int_equal(status, QN_EXIT_NO_DEVICE);
        assert_string_equal(out, "");
        assert_has(err, "install");
    }
}

static void test_info(void **state)
{
    (void)state;
    RUN("info", "--json");
    if (status == QN_EXIT_NO_DEVICE) skip();
    assert_int_equal(status, QN_EXIT_DONE);
    qn_json_doc *doc;
    assert_int_equal(qn_json_parse("info", out, strlen(out), NULL, &doc), QN_OK);
    qn_json root = qn_json_root(doc), devices, kernels;
    assert_int_equal(qn_json_array(root, "devices", &devices), QN_OK);
    int chosen = 0;
    const char *name = NULL;
    for (qn_json d = qn_json_first(devices); d.node; d = qn_json_next(d)) {
        bool here;
        int64_t memory;
        assert_int_equal(qn_json_bool(d, "chosen", &here), QN_OK);
        assert_int_equal(qn_json_int(d, "memory", 1, QN_JSON_INT_MAX, &memory), QN_OK);
        chosen += here;
        if (here) assert_int_equal(qn_json_string(d, "name", &name), QN_OK);
    }
    assert_int_equal(chosen, 1);
    assert_int_equal(qn_json_object(root, "kernels", &kernels), QN_OK);
    assert_int_equal(qn_json_count(kernels), QN_KERNEL_COUNT);
    RUN("info", "--kernels");
    assert_int_equal(status, QN_EXIT_DONE);
    assert_has(out, name);
    assert_has(out, "would be used");
    assert_has(out, qn_kernel_name((qn_kernel)0));
    qn_json_close(&doc);
    RUN("info", "--device", "no such card");
    assert_int_equal(status, QN_EXIT_NO_DEVICE);
    assert_has(err, "no such card");
}

static void test_check(void **state)
{
    (void)state;
    RUN("check", "mul");
    if (status == QN_EXIT_NO_DEVICE) skip();
    assert_int_equal(status, QN_EXIT_DONE);
    assert_has(out, "mul");
    assert_has(out, " 0 failed");
    RUN("check", "mull");
    assert_int_equal(status, QN_EXIT_MISUSED);
    assert_has(err, "did you mean");
    RUN("check", "--json", "mul");
    qn_json_doc *doc;
    assert_int_equal(qn_json_parse("check", out, strlen(out), NULL, &doc), QN_OK);
    int64_t failed;
    assert_int_equal(qn_json_int(qn_json_root(doc), "failed", 0, 0, &failed), QN_OK);
    qn_json_close(&doc);
}

static void test_log_file(void **state)
{
    (void)state;
    char *log = QN_SCRATCH_DIR "/log", *text;
    size_t size;
    RUN_BARE("info", "-q", "--log", log);
    assert_int_equal(status, QN_EXIT_NO_DEVICE);
    assert_int_equal(qn_read_file(log, 1 << 20, &text, &size), QN_OK);
    assert_has(text, "error: ");
    free(text);
    RUN_BARE("info", "--log", "/nonexistent/log");
    assert_int_equal(status, QN_EXIT_FAILED);
    assert_has(err, "--log /nonexistent/log: No such file");
}

static void test_full_disk(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK)) skip();
    run_to("/dev/full", true, (char *[]){ "man", NULL });
    assert_int_equal(status, QN_EXIT_FAILED);
    assert_has(err, "standard output: ");
}

// A reader that has gone is a failure, but nothing to talk about.
static void test_closed_pipe(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        close(ends[0]);
        dup2(ends[1], 1);
        close(ends[1]);
        open_as(ERR, 2);
        signal(SIGPIPE, SIG_DFL);
        execl(QN_PROGRAM, QN_PROGRAM, "man", (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    close(ends[1]);
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), QN_EXIT_FAILED);
    char *text;
    size_t size;
    assert_int_equal(qn_read_file(ERR, 1 << 20, &text, &size), QN_OK);
    assert_string_equal(text, "");
    free(text);
}

// Every script parses and completes; shells that are not installed are not asked.
static void test_completion(void **state)
{
    (void)state;
    char command[1024];
    RUN("completion", "bash");
    assert_int_equal(status, QN_EXIT_DONE);
    snprintf(
        command, sizeof command,
        "bash -c 'source %s && complete_it() { COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)); _quoin "
        "2>/dev/null; echo \"${COMPREPLY[*]}\"; } && complete_it quoin ver && "
        "complete_it quoin completion f && complete_it quoin info --ker && "
        "complete_it quoin bricks li && complete_it quoin bricks show --patt' >%s.words",
        OUT, OUT);
    if (system("bash -c true >/dev/null 2>&1") == 0) {
        assert_int_equal(system(command), 0);
        char *words;
        size_t size;
        assert_int_equal(qn_read_file(OUT ".words", 1 << 20, &words, &size), QN_OK);
        assert_string_equal(words, "version\nfish\n--kernels\nlist\n--pattern\n");
        free(words);
    }
    static const char *const shells[] = { "zsh", "fish" };
    for (size_t i = 0; i < 2; i++) {
        RUN("completion", (char *)shells[i]);
        assert_int_equal(status, QN_EXIT_DONE);
        for (const qn_command_row *row = qn_commands; row->name; row++) assert_has(out, row->name);
        snprintf(command, sizeof command, "%s -c true >/dev/null 2>&1", shells[i]);
        if (system(command) != 0) continue;
        snprintf(command, sizeof command, "%s -n %s", shells[i], OUT);
        assert_int_equal(system(command), 0);
    }
}

// The first interrupt is noticed, the second one ends the process.
static void test_interrupt(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        qn_interrupt_watch();
        if (qn_interrupted()) _exit(1);
        raise(SIGINT);
        if (!qn_interrupted()) _exit(2);
        raise(SIGINT);
        _exit(3);
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended));
    assert_int_equal(WTERMSIG(ended), SIGINT);
}

static int teardown(void **state)
{
    (void)state;
    free(out);
    free(err);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_of_all), cmocka_unit_test(test_help_width),
        cmocka_unit_test(test_misuse),      cmocka_unit_test(test_version),
        cmocka_unit_test(test_no_driver),   cmocka_unit_test(test_info),
        cmocka_unit_test(test_check),       cmocka_unit_test(test_log_file),
        cmocka_unit_test(test_full_disk),   cmocka_unit_test(test_closed_pipe),
        cmocka_unit_test(test_completion),  cmocka_unit_test(test_interrupt),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
