// `quoin bricks` as a shell sees it: what commands do to models, what they refuse, and that inputs
// stay as they are.
#include "cli/command.h"
#include "io/json.h"
#include "tiny_lm.h"

#include <quoin/io.h>

#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUT QN_SCRATCH_DIR "/stdout"
#define ERR QN_SCRATCH_DIR "/stderr"
#define TEXT QN_SCRATCH_DIR "/cat.txt"
#define MODEL QN_SCRATCH_DIR "/model"
#define DENSE QN_SCRATCH_DIR "/dense"
#define AT(name) QN_SCRATCH_DIR "/" name

static char *out, *err; // of the last run
static int status;

static void open_as(const char *path, int target)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, target) < 0) _exit(127);
}

static void run(char *const *args)
{
    char *argv[40] = { QN_PROGRAM };
    for (int i = 0; args[i]; i++) argv[i + 1] = args[i];
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        open_as(OUT, 1);
        open_as(ERR, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    size_t size;
    qn_free(out);
    qn_free(err);
    out = err = NULL;
    assert_ok(qn_read_file(OUT, 1 << 24, &out, &size));
    assert_ok(qn_read_file(ERR, 1 << 24, &err, &size));
}

#define RUN(...) run((char *[]){ __VA_ARGS__, NULL })
// The same, and it has to work.
#define DO(...)                                                                                    \
    do {                                                                                           \
        RUN(__VA_ARGS__);                                                                          \
        if (status != QN_EXIT_DONE) fail_msg("%s%s", out, err);                                    \
    } while (0)

static void train(const char *config, char *folder)
{
    scratch_write_text("config.json", config);
    DO("train", "--text", TEXT, "--config", AT("config.json"), "--vocab", "257", "--batch", "4",
       "--length", "16", "--out", folder, "--steps", "30", "--lr", "0.02");
}

static char *model_bytes; // of MODEL, to see that nothing changes it
static size_t model_size;

static int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    setenv("XDG_CACHE_HOME", AT("cache"), 1);
    tiny_write_inputs();
    train(TINY_CONFIG, MODEL);
    train("{\"vocab_size\": 260, \"n_embd\": 16, \"n_layer\": 2, \"n_head\": 2, \"att_hidden\": 16, "
          "\"ffd_hidden\": 24, \"n_att_experts\": 1, \"k_att\": 1, \"n_mlp_experts\": 1, "
          "\"k_mlp\": 1, \"gating_size\": 8, \"bos_token_id\": 0, \"eos_token_id\": 0}",
          DENSE);
    assert_ok(qn_read_file(MODEL "/model.safetensors", 1 << 24, &model_bytes, &model_size));
    return 0;
}

static int teardown(void **state)
{
    char *now;
    size_t size;
    assert_ok(qn_read_file(MODEL "/model.safetensors", 1 << 24, &now, &size));
    assert_int_equal(size, model_size);
    assert_memory_equal(now, model_bytes, size);
    qn_free(now);
    qn_free(model_bytes);
    qn_free(out);
    qn_free(err);
    return scratch_remove(state);
}

// Losses per token before and after, of the first row of a report as JSON lines.
static void losses(double *before, double *after)
{
    qn_json_doc *doc;
    assert_ok(qn_json_parse("stdout", out, strcspn(out, "\n"), NULL, &doc));
    assert_ok(qn_json_number(qn_json_root(doc), "nats_before", 0, 100, before));
    assert_ok(qn_json_number(qn_json_root(doc), "nats_after", 0, 100, after));
    qn_json_close(&doc);
}

static void assert_same_loss(double tolerance)
{
    double a, b;
    losses(&a, &b);
    if (!(fabs(a - b) <= tolerance)) fail_msg("loss %.9g before, %.9g after", a, b);
}

static void assert_other_loss(double least)
{
    double a, b;
    losses(&a, &b);
    if (!(fabs(a - b) >= least)) fail_msg("loss %.9g before, %.9g after", a, b);
}

static void assert_listed(char *folder, const char *part)
{
    DO("bricks", "list", folder);
    if (!strstr(out, part)) fail_msg("expected '%s' in\n%s", part, out);
}

// What keeps the function keeps the loss; f32 sums of other lengths differ in their last digits.
static const double same = 2e-6;

static void test_growth_keeps_the_function(void **state)
{
    (void)state;
    DO("bricks", "grow-experts", MODEL, AT("silent"), "--add", "3", "--silent", "--data", TEXT,
       "--json");
    assert_same_loss(same);
    assert_listed(AT("silent"), "feed-forward experts              7");
    DO("bricks", "grow-experts", AT("silent"), AT("silent2"), "--add", "1", "--where", "mlp",
       "--silent", "--data", TEXT, "--json");
    assert_same_loss(same);
    DO("bricks", "widen", MODEL, AT("wide"), "-n", "5", "--data", TEXT, "--json");
    assert_same_loss(same);
    assert_listed(AT("wide"), "29"); // neurons
    DO("bricks", "stack", MODEL, AT("deep"), "--layers", "0,0-0", "--zero-init", "--data", TEXT,
       "--json");
    assert_same_loss(same);
    DO("bricks", "stack", MODEL, AT("deeper"), "--layers", "0,0", "--data", TEXT, "--json");
    assert_other_loss(1e-3);
    DO("bricks", "upcycle", DENSE, AT("copies"), "--experts", "4", "--top-k", "4", "--data", TEXT,
       "--json");
    double a, b; // gates near 1/4 each: nearly the same
    losses(&a, &b);
    assert_true(fabs(a - b) < 0.02);
    DO("bricks", "upcycle", DENSE, AT("slices"), "--experts", "4", "--top-k", "4", "--slice",
       "--data", TEXT, "--json");
    losses(&a, &b);
    assert_true(fabs(a - b) < 0.02);
    assert_listed(AT("slices"), "6"); // neurons of a slice
}

// Grown parts train while everything else keeps its bytes; the result generates.
static void test_grown_model_trains(void **state)
{
    (void)state;
    DO("bricks", "grow-experts", MODEL, AT("grown"), "--init", "copy:1", "--where", "mlp");
    DO("train", "--init", AT("grown"), "--train-only",
       "*.mlpf.*experts.weight#4,*.mlpf.gate.w_gate.3.weight#4", "--text", TEXT, "--batch", "4",
       "--length", "16", "--steps", "5", "--out", AT("new"));
    DO("generate", AT("new"), "-n", "3");
    assert_listed(AT("new"), "feed-forward experts              5");
}

static void test_merging_the_same(void **state)
{
    (void)state;
    // Split off a copy without noise is not to be had; groups of one change nothing at all.
    DO("bricks", "merge-experts", MODEL, AT("all"), "--experts", "4", "--data", TEXT, "--json");
    assert_same_loss(0);
    for (int i = 0; i < 3; i++) {
        static char *const kinds[] = { "output", "router", "weight" };
        char folder[512];
        snprintf(folder, sizeof folder, "%s%d", AT("three"), i);
        DO("bricks", "merge-experts", MODEL, folder, "--experts", "3", "--where", "mlp", "--data",
           TEXT, "--distance", kinds[i], i == 1 ? "--lead" : "--no-align", "--json");
        assert_listed(folder, "feed-forward experts              3");
    }
    DO("bricks", "merge-experts", MODEL, AT("map"), "--experts", "1", "--router", "map", "--where",
       "mlp", "--data", TEXT);
    qn_safetensors *s;
    assert_ok(qn_safetensors_open(AT("map"), &s));
    const qn_safetensor *t = qn_safetensors_find(s, "transformer.h.0.mlpf.experts.weight");
    assert_int_equal(t->dim[0], 4);
    for (int e = 1; e < 4; e++)
        assert_memory_equal((const char *)t->data + (size_t)e * t->size / 4, t->data, t->size / 4);
    qn_safetensors_close(&s);
    // Now that all are the same: one body is enough, whatever they are merged by.
    DO("bricks", "merge-experts", AT("map"), AT("map2"), "--experts", "1", "--router", "map",
       "--where", "mlp", "--data", TEXT, "--json");
    assert_same_loss(same);
}

static void test_pruning(void **state)
{
    (void)state;
    DO("bricks", "prune-experts", MODEL, AT("kept"), "--data", TEXT, "--keep", "4", "--json");
    assert_same_loss(0);
    DO("bricks", "prune-experts", MODEL, AT("two"), "--data", TEXT, "--keep", "2", "--where", "mlp",
       "--svg", AT("svg"), "--general", TEXT, "--json");
    assert_listed(AT("two"), "feed-forward experts              2");
    assert_true(qn_file_exists(AT("svg/usage-mlp.svg")));
    DO("generate", AT("two"), "-n", "3");
    DO("train", "--init", AT("two"), "--text", TEXT, "--batch", "4", "--length", "16", "--steps",
       "2", "--out", AT("two-on"));
    DO("bricks", "prune-experts", MODEL, AT("used"), "--data", TEXT, "--min-usage", "1");
    assert_listed(AT("used"), "feed-forward experts              2");
}

static void test_same_command_same_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        DO("bricks", "grow-experts", MODEL, i ? AT("b") : AT("a"), "--add", "2", "--seed", "5");
    char *a, *b;
    size_t n, m;
    assert_ok(qn_read_file(AT("a/model.safetensors"), 1 << 24, &a, &n));
    assert_ok(qn_read_file(AT("b/model.safetensors"), 1 << 24, &b, &m));
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    qn_free(a);
    qn_free(b);
}

// One sentence each, and nothing is written.
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        char *args[12];
        int status;
        const char *part;
    } rows[] = {
        { { "bricks" }, 2, "Commands:" },
        { { "bricks", "lsit" }, 2, "did you mean 'list'?" },
        { { "bricks", "list", AT("none") }, 1, "there is no such model folder" },
        { { "bricks", "list", AT("empty") }, 1, "config.json" },
        { { "bricks", "list", AT("llama") }, 1, "model_type is gptj; bricks know" },
        { { "bricks", "list", AT("lying") }, 1, "model.safetensors" },
        { { "bricks", "show", MODEL, "-p", "lm_haed.weight" }, 1, "did you mean 'lm_head.weight'?" },
        { { "bricks", "show", MODEL, "-p", "*.mlpf.experts.weight#4" }, 1, "has rows 0 to 3" },
        { { "bricks", "grow-experts", MODEL, MODEL }, 1, "is the input" },
        { { "bricks", "grow-experts", MODEL, DENSE }, 1, "exists already and is not empty" },
        { { "bricks", "grow-experts", MODEL, AT("x"), "--init", "copy:4" }, 1, "experts 0 to 3" },
        { { "bricks", "grow-experts", MODEL, AT("x"), "--init", "copied" }, 1,
          "expected random, copy:E or split:E" },
        { { "bricks", "grow-experts", MODEL, AT("x"), "--layer", "1" }, 1, "expected all" },
        { { "bricks", "grow-experts", MODEL, AT("x"), "--add", "255" }, 1, "at most 256" },
        { { "bricks", "stack", MODEL, AT("x"), "--layers", "0-1" }, 1, "there are layers 0 to 0" },
        { { "bricks", "stack", MODEL, AT("x"), "--layers", "a" }, 1, "expected a range like 0-3" },
        { { "bricks", "stack", MODEL, AT("x") }, 1, "--layers is missing" },
        { { "bricks", "upcycle", MODEL, AT("x") }, 1, "a dense model has 1" },
        { { "bricks", "upcycle", DENSE, AT("x"), "--experts", "5", "--slice" }, 1,
          "--experts 5 does not divide 24 neurons" },
        { { "bricks", "upcycle", DENSE, AT("x"), "--experts", "2", "--top-k", "3" }, 1,
          "--top-k 3 is more than --experts 2" },
        { { "bricks", "prune-experts", MODEL, AT("x") }, 2, "--data FILE is missing" },
        { { "bricks", "prune-experts", MODEL, AT("x"), "--data", TEXT, "--keep", "1", "--where",
            "mlp" }, 1, "less than the 2 mlp experts that a token uses" },
        { { "bricks", "prune-experts", MODEL, AT("x"), "--data", AT("none") }, 1, "none" },
        { { "bricks", "merge-experts", MODEL, AT("x"), "--data", TEXT }, 2, "--experts N is missing" },
        { { "bricks", "merge-experts", MODEL, AT("x"), "--data", TEXT, "--experts", "1" }, 1,
          "less than the 2 mlp experts" },
        { { "bricks", "widen", AT("cut"), AT("x") }, 1, "is missing" },
        { { "bricks", "widen", MODEL, "/proc/nowhere" }, 1, "/proc/nowhere" },
    };
    assert_ok(qn_make_dirs(AT("empty")));
    assert_ok(qn_make_dirs(AT("llama")));
    assert_ok(qn_make_dirs(AT("lying")));
    assert_ok(qn_make_dirs(AT("cut")));
    scratch_write_text("llama/config.json", "{\"model_type\": \"gptj\"}");
    scratch_write_text("lying/config.json", TINY_CONFIG);
    scratch_write("lying/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    scratch_write_text("cut/config.json", TINY_CONFIG);
    static const char none[] = "\x02\0\0\0\0\0\0\0{}";
    scratch_write("cut/model.safetensors", none, sizeof none - 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        run(rows[i].args);
        if (status != rows[i].status || (!strstr(err, rows[i].part)))
            fail_msg("row %zu (%s): status %d, expected %d with '%s':\n%s", i, rows[i].args[1],
                     status, rows[i].status, rows[i].part, err);
        assert_false(qn_file_exists(AT("x")));
        assert_false(qn_file_exists(AT("x.partial")));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_growth_keeps_the_function),
        cmocka_unit_test(test_grown_model_trains),
        cmocka_unit_test(test_merging_the_same),
        cmocka_unit_test(test_pruning),
        cmocka_unit_test(test_same_command_same_bytes),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}
