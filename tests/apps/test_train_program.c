// `quoin train` and `quoin generate` as a shell sees them: exit status, one clear sentence, and
// folders that survive whatever ends the program.
#include "cli/command.h"
#include "io/json.h"
#include "random.h"
#include "tiny_lm.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUT QN_SCRATCH_DIR "/stdout"
#define ERR QN_SCRATCH_DIR "/stderr"
#define TEXT QN_SCRATCH_DIR "/cat.txt"
#define CONFIG QN_SCRATCH_DIR "/config.json"
#define RUN_A QN_SCRATCH_DIR "/a"
#define RUN_B QN_SCRATCH_DIR "/b"

static char *out, *err; // of the last run
static int status;

static void open_as(const char *path, int target)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, target) < 0) _exit(127);
}

static pid_t start(char *const *args)
{
    char *argv[40] = { QN_PROGRAM };
    for (int i = 0; args[i]; i++) argv[i + 1] = args[i];
    pid_t child = fork();
    assert_true(child >= 0);
    if (child) return child;
    open_as(OUT, 1);
    open_as(ERR, 2);
    execv(argv[0], argv);
    _exit(127);
}

// Waits; `status` is the exit status, or 128 and the signal that ended it.
static void finish(pid_t child)
{
    assert_int_equal(waitpid(child, &status, 0), child);
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    size_t size;
    qn_free(out);
    qn_free(err);
    out = err = NULL;
    assert_ok(qn_read_file(OUT, 1 << 24, &out, &size));
    assert_ok(qn_read_file(ERR, 1 << 24, &err, &size));
}

#define ARGS(...) ((char *[]){ __VA_ARGS__, NULL })
#define RUN(...) finish(start(ARGS(__VA_ARGS__)))
// A run on the small text and model; options of one's own follow.
#define TRAIN(folder, ...)                                                                         \
    "train", "--text", TEXT, "--config", CONFIG, "--vocab", "257", "--batch", "4", "--length",     \
        "16", "--seed", "7", "--out", folder, __VA_ARGS__

static int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    setenv("XDG_CACHE_HOME", QN_SCRATCH_DIR "/cache", 1);
    tiny_write_inputs();
    scratch_write("nul.txt", "ab\0cd", 5);
    scratch_write("empty.txt", "", 0);
    scratch_write_text("short.txt", "a few words\n");
    scratch_write_text("unknown.json", "{\"model_type\": \"moduleformer\", \"n_embed\": 16}");
    scratch_write_text("wrong.json", "{\"n_embd\": \"wide\"}");
    scratch_write_text("range.json", "{\"n_embd\": 0}");
    scratch_write_text("heads.json", "{\"att_hidden\": 30, \"n_head\": 4}");
    scratch_write_text("broken.json", "{\"n_embd\": 16");
    scratch_write_text("narrow.json", "{\"vocab_size\": 40, \"n_embd\": 16, \"n_layer\": 1}");
    return 0;
}

static int teardown(void **state)
{
    qn_free(out);
    qn_free(err);
    return scratch_remove(state);
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("expected '%s' in:\n%s", part, text);
}

static void test_refusals(void **state)
{
    (void)state;
#define AT(name) QN_SCRATCH_DIR "/" name
    static const struct {
        char *args[14];
        int status;
        const char *part;
    } rows[] = {
        { { "train", "--out", RUN_A }, 2, "give --text FILE, or --demo" },
        { { "train", "--text", TEXT }, 2, "--out DIR is missing" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--batch", "0" }, 2, "--batch: found '0'" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--lr", "nan" }, 2, "--lr: found 'nan'" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--beta2", "1" }, 2, "--beta2: found '1'" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--dtype", "f64" }, 2,
          "--dtype: found 'f64'" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--steps", "1e99" }, 2, "--steps: found" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--preset", "huge" }, 1,
          "nano, micro, small, base, large" },
        { { "train", "--text", AT("missing.txt"), "--out", RUN_A }, 1, "missing.txt" },
        { { "train", "--text", AT("empty.txt"), "--out", RUN_A }, 1, "empty.txt is empty" },
        { { "train", "--text", AT("nul.txt"), "--out", RUN_A }, 1, "nul.txt is not text" },
        { { "train", "--text", AT("short.txt"), "--out", RUN_A, "--dry-run" }, 1, "too short" },
        { { "train", "--text", TEXT, "--out", TEXT, "--dry-run" }, 1, "cat.txt" },
        { { "train", "--text", TEXT, "--out", TEXT "/below", "--dry-run" }, 1, "cat.txt" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--dry-run", "--vocab", "257", "--config",
            AT("unknown.json") }, 1, "n_embed" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--dry-run", "--vocab", "257", "--config",
            AT("wrong.json") }, 1, "n_embd" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--dry-run", "--vocab", "257", "--config",
            AT("range.json") }, 1, "n_embd" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--dry-run", "--vocab", "257", "--config",
            AT("heads.json") }, 1, "att_hidden 30 is not a multiple of n_head 4" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--dry-run", "--vocab", "257", "--config",
            AT("broken.json") }, 1, "broken.json" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--dry-run", "--vocab", "257", "--config",
            AT("narrow.json") }, 1, "vocab_size is 40, but the tokenizer has 257 tokens" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--tokenizer", AT("none"), "--dry-run" }, 1,
          "none" },
        { { "train", "--text", TEXT, "--out", RUN_A, "--device", "zx9" }, 3, "zx9" },
        { { "generate" }, 2, "MODEL" },
        { { "generate", AT("none") }, 1, "there is no such model folder" },
        { { "generate", QN_SCRATCH_DIR, "--prompt", "a", "--file", TEXT }, 2, "use one of them" },
        { { "generate", QN_SCRATCH_DIR }, 1, "tokenizer.json" },
    };
#undef AT
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        finish(start(rows[i].args));
        if (status != rows[i].status || !strstr(err, rows[i].part))
            fail_msg("row %zu: status %d, expected %d with '%s':\n%s", i, status, rows[i].status,
                     rows[i].part, err);
        assert_false(qn_file_exists(RUN_A "/model.safetensors"));
    }
}

// An unknown device: what exists is listed.
static void test_unknown_device(void **state)
{
    (void)state;
    qn_device_info info[4];
    size_t count;
    assert_ok(qn_device_list(qn_test_context(), info, 4, &count));
    RUN(TRAIN(RUN_A, "--device", "no such thing"));
    assert_int_equal(status, QN_EXIT_NO_DEVICE);
    assert_has(err, "no such thing");
    assert_has(err, info[0].name);
}

static void test_train_and_generate(void **state)
{
    (void)state;
    assert_ok(qn_remove_tree(RUN_A));
    RUN(TRAIN(RUN_A, "--dry-run"));
    assert_int_equal(status, QN_EXIT_DONE);
    assert_has(err, "memory: ");
    assert_false(qn_file_exists(RUN_A "/config.json"));
    RUN(TRAIN(RUN_A, "--steps", "20", "--lr", "0.02", "--json", "--profile"));
    if (status != QN_EXIT_DONE) fail_msg("%s", err);
    char *line = strchr(out, '\n');
    assert_non_null(line);
    static const char *const files[] = { "config.json", "tokenizer.json", "model.safetensors",
                                         "training-state.safetensors", "metrics.jsonl", "loss.svg",
                                         "experts.svg" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[768];
        snprintf(path, sizeof path, "%s/%s", RUN_A, files[i]);
        if (!qn_file_exists(path)) fail_msg("%s is missing", files[i]);
    }
    qn_json_doc *doc;
    assert_ok(qn_json_parse("stdout", out, (size_t)(line - out), NULL, &doc));
    int64_t step;
    assert_ok(qn_json_int(qn_json_root(doc), "step", 0, 100, &step));
    assert_int_equal(step, 20);
    qn_json_close(&doc);

    RUN("generate", RUN_A, "--prompt", "the ", "-n", "12", "--seed", "3");
    assert_int_equal(status, QN_EXIT_DONE);
    assert_memory_equal(out, "the ", 4);
    char *first = strdup(out);
    RUN("generate", RUN_A, "--prompt", "the ", "-n", "12", "--seed", "3");
    assert_string_equal(out, first);
    free(first);
    RUN("generate", RUN_A, "--prompt", "the ", "-n", "0", "--context", "10", "--no-echo");
    assert_int_equal(status, QN_EXIT_DONE);
    RUN("generate", RUN_A, "--file", TEXT, "--context", "10");
    assert_int_equal(status, QN_EXIT_FAILED);
    assert_has(err, "10");

    RUN(TRAIN(RUN_A, "--steps", "20", "--lr", "0.03"));
    assert_int_equal(status, QN_EXIT_FAILED);
    assert_has(err, "lr = 0.02");
    assert_has(err, "lr = 0.03");
}

static void nap(double seconds)
{
    struct timespec t = { 0, (long)(seconds * 1e9) };
    nanosleep(&t, NULL);
}

static void wait_for(const char *path)
{
    for (int i = 0; i < 3000 && !qn_file_exists(path); i++) nap(0.02);
    assert_true(qn_file_exists(path));
}

static void assert_same_model(void)
{
    char *a, *b;
    size_t n, m;
    assert_ok(qn_read_file(RUN_A "/model.safetensors", 1 << 24, &a, &n));
    assert_ok(qn_read_file(RUN_B "/model.safetensors", 1 << 24, &b, &m));
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    qn_free(a);
    qn_free(b);
}

#define STEPS "--steps", "40", "--held-out", "0", "--lr", "0.01"

// Killed at any moment, most of which is spent in saving, and gone on with: as if never killed.
static void test_killed_while_saving(void **state)
{
    (void)state;
    assert_ok(qn_remove_tree(RUN_A));
    assert_ok(qn_remove_tree(RUN_B));
    RUN(TRAIN(RUN_A, STEPS));
    assert_int_equal(status, QN_EXIT_DONE);
    qn_random rng = qn_random_start(2, 0);
    for (int i = 0; i < 4; i++) {
        pid_t child = start(ARGS(TRAIN(RUN_B, STEPS, "--save-every", "1")));
        wait_for(RUN_B "/training-state.safetensors");
        if (i > 0) { // its own saves, not those of the one before
            uint64_t before = qn_file_time(RUN_B "/training-state.safetensors");
            for (int k = 0; k < 500 && waitpid(child, NULL, WNOHANG | WNOWAIT) == 0 &&
                            qn_file_time(RUN_B "/training-state.safetensors") == before; k++)
                nap(0.01);
        }
        nap(0.1 * qn_random_unit(&rng));
        kill(child, SIGKILL);
        finish(child);
        if (status != QN_EXIT_DONE && status != 128 + SIGKILL) fail_msg("%d: %s", status, err);
    }
    RUN(TRAIN(RUN_B, STEPS));
    if (status != QN_EXIT_DONE) fail_msg("%s", err);
    assert_same_model();
    RUN("generate", RUN_B, "-n", "2");
    assert_int_equal(status, QN_EXIT_DONE);
}

// Ctrl-C saves and says so; the same command goes on.
static void test_interrupted(void **state)
{
    (void)state;
    assert_ok(qn_remove_tree(RUN_B));
    pid_t child = start(ARGS(TRAIN(RUN_B, "--minutes", "5", "--save-every", "2")));
    wait_for(RUN_B "/training-state.safetensors");
    kill(child, SIGINT);
    finish(child);
    assert_int_equal(status, QN_EXIT_INTERRUPTED);
    assert_has(err, "stopped and saved");
    RUN(TRAIN(RUN_B, "--steps", "1"));
    assert_int_equal(status, QN_EXIT_DONE);
    assert_has(err, "going on from step");
}

static void test_damaged_files(void **state)
{
    (void)state;
    assert_ok(qn_remove_tree(RUN_A));
    RUN(TRAIN(RUN_A, "--steps", "2"));
    assert_int_equal(status, QN_EXIT_DONE);
    assert_int_equal(truncate(RUN_A "/model.safetensors", 5000), 0);
    RUN("generate", RUN_A);
    assert_int_equal(status, QN_EXIT_FAILED);
    assert_has(err, "model.safetensors");
    assert_int_equal(truncate(RUN_A "/training-state.safetensors", 5000), 0);
    RUN(TRAIN(RUN_A, "--steps", "4"));
    assert_int_equal(status, QN_EXIT_FAILED);
    assert_has(err, "training-state.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_unknown_device),
        cmocka_unit_test(test_train_and_generate), cmocka_unit_test(test_killed_while_saving),
        cmocka_unit_test(test_interrupted),   cmocka_unit_test(test_damaged_files),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}
