// Conversations: what a model gets to read, and `quoin chat` in a pipe and on a terminal.
#include "cli/command.h"
#include "llm/generate.h"
#include "llm/talk.h"
#include "tiny_lm.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[512];
static qn_folder folder;
static qn_chat chat;

static int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    snprintf(dir, sizeof dir, "%s", scratch("m"));
    tiny_train(dir, 40);
    assert_ok(qn_folder_open(qn_test_device(), dir, QN_F32, &folder));
    assert_ok(qn_chat_open(dir, NULL, folder.tokenizer, folder.config.eos_token_id, &chat));
    return 0;
}

static int teardown(void **state)
{
    qn_folder_close(&folder);
    return scratch_remove(state);
}

// ------------------------------------------------------------------------------ conversations

typedef struct heard {
    char text[512];
    int64_t stop_after; // calls with text; 0: never
} heard;

static bool hear(void *user, const char *bytes, size_t size)
{
    heard *h = user;
    strncat(h->text, bytes, size < 100 ? size : 100);
    return !size || !h->stop_after || --h->stop_after > 0;
}

static qn_talk *open_talk(int64_t context, int64_t most, qn_runner **runner)
{
    qn_runner_opts o = { .context = context };
    assert_ok(qn_runner_create(qn_test_device(), &folder.config, folder.weights, &o, runner));
    const qn_talk_opts t = { .chat = &chat,
                             .runner = *runner,
                             .max_tokens = most,
                             .sampling = {
                                 .temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 5 } };
    qn_talk *talk;
    assert_ok(qn_talk_create(&t, &talk));
    return talk;
}

// Each answer is what a conversation begun anew with the same messages and seed gets, although
// only what is new was read.
static void test_only_new_is_read(void **state)
{
    (void)state;
    static const char *const questions[] = { "the cat", "the dog sat", "and the" };
    qn_runner *r, *other;
    qn_talk *t = open_talk(512, 8, &r);
    assert_ok(qn_talk_set_system(t, "by the door"));
    for (int i = 0; i < 3; i++) {
        qn_talk_stats s, again;
        heard h = { .stop_after = 0 }, k = { .stop_after = 0 };
        assert_ok(qn_talk_add(t, QN_ROLE_USER, questions[i]));
        qn_talk *fresh = open_talk(512, 8, &other);
        qn_talk_sampling(fresh)->seed = 5 + (uint64_t)i;
        for (size_t m = 0; m < qn_talk_count(t); m++)
            assert_ok(qn_talk_add(fresh, qn_talk_at(t, m).role, qn_talk_at(t, m).content));
        assert_ok(qn_talk_answer(t, hear, &h, &s));
        assert_ok(qn_talk_answer(fresh, hear, &k, &again));
        assert_string_equal(h.text, k.text);
        assert_int_equal(s.prompt_tokens, again.prompt_tokens);
        assert_int_equal(again.read_tokens, again.prompt_tokens);
        if (i) assert_true(s.read_tokens < s.prompt_tokens / 2 + 16);
        assert_int_equal(qn_talk_at(t, qn_talk_count(t) - 1).role, QN_ROLE_ASSISTANT);
        assert_string_equal(qn_talk_at(t, qn_talk_count(t) - 1).content, h.text);
        qn_talk_destroy(&fresh);
        qn_runner_destroy(&other);
    }
    qn_talk_destroy(&t);
    qn_runner_destroy(&r);
}

static void test_full_context(void **state)
{
    (void)state;
    qn_runner *r;
    qn_talk *t = open_talk(64, 8, &r);
    qn_talk_stats s;
    heard h = { .stop_after = 0 };
    for (int i = 0; i < 5; i++) {
        assert_ok(qn_talk_add(t, QN_ROLE_USER, "the cat sat"));
        assert_ok(qn_talk_answer(t, hear, &h, &s));
        assert_true(s.prompt_tokens + 8 <= 64);
    }
    assert_true(s.left_out > 0);
    assert_int_equal(qn_talk_count(t), 10); // left out of what is read, not forgotten
    assert_ok(qn_talk_add(t, QN_ROLE_USER,
                          "the cat sat on the mat, and the dog sat by the door. "
                          "the cat sat on the mat"));
    assert_fails(qn_talk_answer(t, hear, &h, &s), QN_ERR_INVALID, "the context holds 64");
    qn_talk_destroy(&t);
    qn_runner_destroy(&r);
}

static void test_stopped(void **state)
{
    (void)state;
    qn_runner *r;
    qn_talk *t = open_talk(512, 200, &r);
    qn_talk_stats s;
    heard h = { .stop_after = 3 };
    assert_ok(qn_talk_add(t, QN_ROLE_USER, "the cat"));
    assert_ok(qn_talk_answer(t, hear, &h, &s));
    assert_true(s.tokens < 20);
    assert_true(strlen(qn_talk_at(t, 1).content) >= 3);
    assert_ok(qn_talk_add(t, QN_ROLE_USER, "the dog"));
    h.stop_after = 1;
    assert_ok(qn_talk_answer(t, hear, &h, &s));
    qn_talk_destroy(&t);
    qn_runner_destroy(&r);
}

static void test_files(void **state)
{
    (void)state;
    qn_runner *r;
    qn_talk *t = open_talk(64, 8, &r);
    assert_ok(qn_talk_set_system(t, "s\xc3\xa9"));
    assert_ok(qn_talk_add(t, QN_ROLE_USER, "a \"b\"\n"));
    assert_ok(qn_talk_save(t, scratch("talk.json")));
    qn_talk_forget(t, 5);
    assert_int_equal(qn_talk_count(t), 0);
    assert_ok(qn_talk_load(t, scratch("talk.json")));
    assert_int_equal(qn_talk_count(t), 2);
    assert_string_equal(qn_talk_at(t, 0).content, "s\xc3\xa9");
    assert_string_equal(qn_talk_at(t, 1).content, "a \"b\"\n");
    assert_ok(qn_talk_set_system(t, ""));
    assert_int_equal(qn_talk_count(t), 1);
    static const char *const bad[][2] = {
        { "{", "bad.json" },
        { "{}", "messages" },
        { "{\"messages\": [{\"role\": \"user\"}]}", "content" },
        { "{\"messages\": [{\"role\": \"cat\", \"content\": \"\"}]}", "\"cat\"" },
    };
    for (int i = 0; i < 4; i++) {
        scratch_write_text("bad.json", bad[i][0]);
        assert_fails(qn_talk_load(t, scratch("bad.json")), QN_ERR_FORMAT, bad[i][1]);
        assert_int_equal(qn_talk_count(t), 1);
    }
    qn_talk_destroy(&t);
    qn_runner_destroy(&r);
}

// ------------------------------------------------------------------------------ the program

static char *out;

static void open_as(const char *path, int flags, int target)
{
    int fd = open(path, flags, 0600);
    if (fd < 0 || dup2(fd, target) < 0) _exit(127);
}

static int run_chat(const char *input, const char *const *more)
{
    char *argv[16] = { QN_PROGRAM, "chat", dir, "-n", "6", "-q" };
    int n = 6, status;
    for (; more && *more; more++) argv[n++] = (char *)(uintptr_t)*more;
    const char *const files[] = { scratch("in"), scratch("out"), scratch("err") };
    scratch_write_text("in", input);
    pid_t child = fork();
    if (!child) {
        open_as(files[0], O_RDONLY, 0); // nothing that allocates: other threads may hold its lock
        open_as(files[1], O_WRONLY | O_CREAT | O_TRUNC, 1);
        open_as(files[2], O_WRONLY | O_CREAT | O_TRUNC, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    size_t size;
    qn_free(out);
    scratch_read("out", &out, &size);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int lines(const char *text)
{
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static void test_pipe(void **state)
{
    (void)state;
    char *first, command[600];
    static const char *const ask[] = { "-p", "the cat", NULL };
    assert_int_equal(run_chat("", ask), QN_EXIT_DONE);
    assert_int_equal(lines(out), 1);
    first = strdup(out);
    assert_int_equal(run_chat("the cat", NULL), QN_EXIT_DONE); // no newline at the end
    assert_string_equal(out, first);
    snprintf(command, sizeof command,
             "/help\n/set temp x\n/nothing\n/load nowhere\n/set temp 0.5\n"
             "/undo\n/again\n\n  \n/system brief\n/save %s\n/exit\nthe cat",
             scratch("saved.json"));
    assert_int_equal(run_chat(command, NULL), QN_EXIT_DONE);
    assert_string_equal(out, "");
    assert_int_equal(run_chat("the cat\n/show\n/undo\n/show\n", NULL), QN_EXIT_DONE);
    assert_int_equal(lines(out), 3);
    assert_int_equal(strncmp(out, first, strlen(first)), 0);
    assert_non_null(strstr(out, "user: the cat\nassistant: "));
    static const char *const bad[] = { "--template", "jinja", NULL };
    assert_int_equal(run_chat("", bad), QN_EXIT_FAILED);
    free(first);
    qn_free(out);
    out = NULL;
}

// Reads from the terminal until `wanted` was seen; what is behind it is for the next call.
static char seen[65536];
static size_t seen_size;

static void expect(int fd, const char *wanted)
{
    for (char *at;;) {
        seen[seen_size] = 0;
        if ((at = strstr(seen, wanted))) {
            at += strlen(wanted);
            seen_size -= (size_t)(at - seen);
            memmove(seen, at, seen_size);
            return;
        }
        if (seen_size > sizeof seen / 2) { // a long answer
            seen_size -= sizeof seen / 4;
            memmove(seen, seen + sizeof seen / 4, seen_size);
        }
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int ready = poll(&p, 1, 120000);
        if (ready < 0 && errno == EINTR) continue;
        ssize_t got = ready > 0 ? read(fd, seen + seen_size, sizeof seen / 4) : -1;
        if (got <= 0) fail_msg("expected '%s' in:\n%s", wanted, seen);
        seen_size += (size_t)got;
    }
}

static void type(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static int end_of(pid_t child, int fd)
{
    int status;
    char rest[4096];
    while (read(fd, rest, sizeof rest) > 0) {
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    close(fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Ctrl-C stops the answer and not the program; at the prompt, the second one does.
static void test_terminal(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        int fd;
        pid_t child = forkpty(&fd, NULL, NULL, NULL);
        if (!child) {
            execl(QN_PROGRAM, QN_PROGRAM, "chat", dir, "--context", "60000", (char *)NULL);
            _exit(127);
        }
        assert_true(child > 0);
        seen_size = 0;
        expect(fd, "> ");
        // No t: what is typed may be echoed once by the terminal and once by the editor.
        type(fd, "dog\n");
        expect(fd, "t"); // of the answer
        type(fd, "\x03");
        expect(fd, "(stopped)");
        expect(fd, "> ");
        if (way) {
            type(fd, "\x03");
            expect(fd, "Ctrl-C again");
            expect(fd, "> ");
            type(fd, "\x03");
            end_of(child, fd);
        } else {
            type(fd, "/exit\n");
            assert_int_equal(end_of(child, fd), QN_EXIT_DONE);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_new_is_read),
        cmocka_unit_test(test_full_context),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_terminal),
    };
    setenv("TERM", "dumb", 1);
    setenv("XDG_CACHE_HOME", QN_SCRATCH_DIR "/cache", 1);
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}
