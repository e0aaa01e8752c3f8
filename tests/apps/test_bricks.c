// `quoin bricks` as a shell sees it: what commands do to models, what they refuse, and that inputs
// stay as they are.
#include "cli/command.h"
#include "io/json.h"
#include "tiny_lm.h"

#include <quoin/io.h>

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
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
static rlim_t file_limit = RLIM_INFINITY; // of the next runs: as a full disk

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
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ file_limit, RLIM_INFINITY });
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
static const double equal = 2e-6;

static void test_growth_keeps_the_function(void **state)
{
    (void)state;
    DO("bricks", "grow-experts", MODEL, AT("silent"), "--add", "3", "--silent", "--data", TEXT,
       "--json");
    assert_same_loss(equal);
    assert_listed(AT("silent"), "feed-forward experts              7");
    DO("bricks", "grow-experts", AT("silent"), AT("silent2"), "--add", "1", "--where", "mlp",
       "--silent", "--data", TEXT, "--json");
    assert_same_loss(equal);
    DO("bricks", "widen", MODEL, AT("wide"), "-n", "5", "--data", TEXT, "--json");
    assert_same_loss(equal);
    assert_listed(AT("wide"), "29"); // neurons
    DO("bricks", "stack", MODEL, AT("deep"), "--layers", "0,0-0", "--zero-init", "--data", TEXT,
       "--json");
    assert_same_loss(equal);
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
    assert_same_loss(equal);
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

// Whether two model folders hold the same bytes of weights.
static bool same_weights(const char *a, const char *b)
{
    char path[2][768], *data[2];
    size_t size[2];
    snprintf(path[0], sizeof path[0], "%s/model.safetensors", a);
    snprintf(path[1], sizeof path[1], "%s/model.safetensors", b);
    for (int i = 0; i < 2; i++) assert_ok(qn_read_file(path[i], 1 << 24, &data[i], &size[i]));
    const bool same = size[0] == size[1] && !memcmp(data[0], data[1], size[0]);
    qn_free(data[0]);
    qn_free(data[1]);
    return same;
}

// The largest difference in units of the last place of the reference.
static double ulps(const char *folder, const char *reference)
{
    qn_safetensors *a, *b;
    double most = 0;
    assert_ok(qn_safetensors_open(folder, &a));
    assert_ok(qn_safetensors_open(reference, &b));
    for (size_t i = 0; i < qn_safetensors_count(b); i++) {
        const qn_safetensor *y = qn_safetensors_at(b, i), *x = qn_safetensors_find(a, y->name);
        assert_non_null(x);
        for (uint64_t k = 0; k < y->count; k++) {
            float p, q;
            assert_ok(qn_safetensor_f32(x, k, 1, &p));
            assert_ok(qn_safetensor_f32(y, k, 1, &q));
            const double unit = fabs((double)nextafterf(q, INFINITY) - (double)q);
            const double off = fabs((double)p - (double)q) / unit;
            // A small number beside a large difference has lost the difference's last digits.
            if (off > most && fabs((double)q) > 1e-3) most = off;
        }
    }
    qn_safetensors_close(&a);
    qn_safetensors_close(&b);
    return most;
}

static void test_differences(void **state)
{
    (void)state;
    DO("train", "--init", MODEL, "--train-only", "*.mlpf.*", "--text", TEXT, "--batch", "4",
       "--length", "16", "--steps", "2", "--lr", "1e-4", "--out", AT("tuned"));
    static char *const forms[] = { NULL, "--exact" };
    for (int i = 0; i < 2; i++) {
        char file[512], on[512], off[512];
        snprintf(file, sizeof file, "%s%d.safetensors", AT("delta"), i);
        snprintf(on, sizeof on, "%s%d", AT("on"), i);
        snprintf(off, sizeof off, "%s%d", AT("off"), i);
        DO("bricks", "delta", AT("tuned"), MODEL, file, forms[i]);
        assert_non_null(strstr(out, "5 of 22 tensors differ"));
        DO("bricks", "attach", MODEL, file, on);
        DO("bricks", "detach", on, file, off);
        if (i == 1) {
            assert_true(same_weights(on, AT("tuned")));
            assert_true(same_weights(off, MODEL));
        } else {
            const double most = ulps(on, AT("tuned")), back = ulps(off, MODEL);
            if (most > 1 || back > 1) fail_msg("%g ulp attached, %g detached", most, back);
        }
    }
    DO("bricks", "delta", AT("tuned"), MODEL, AT("sparse.safetensors"), "--sparse", "0.1");
    DO("bricks", "attach", MODEL, AT("sparse.safetensors"), AT("some"), "--scale", "0.5");
    assert_false(same_weights(AT("some"), MODEL));
    DO("bricks", "delta", MODEL, MODEL, AT("none.safetensors"));
    assert_non_null(strstr(out, "0 of 22 tensors differ"));
    DO("bricks", "attach", MODEL, AT("none.safetensors"), AT("unchanged"));
    assert_true(same_weights(AT("unchanged"), MODEL));

    static const struct {
        char *args[8];
        const char *part;
    } rows[] = {
        { { "bricks", "attach", AT("tuned"), AT("delta0.safetensors"), AT("x") }, "was taken from" },
        { { "bricks", "attach", MODEL, AT("delta1.safetensors"), AT("x"), "--scale", "0.5" },
          "cannot be scaled by 0.5" },
        { { "bricks", "attach", DENSE, AT("delta0.safetensors"), AT("x"), "--any-base" },
          "does not fit the model's" },
        { { "bricks", "attach", MODEL, MODEL "/model.safetensors", AT("x") },
          "expected quoin-delta" },
        { { "bricks", "attach", MODEL, AT("nothing"), AT("x") }, "nothing" },
        { { "bricks", "delta", AT("tuned"), DENSE, AT("y.safetensors") }, "has no tensor" },
        { { "bricks", "delta", AT("tuned"), MODEL, AT("delta0.safetensors") }, "exists already" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        run(rows[i].args);
        if (status != QN_EXIT_FAILED || !strstr(err, rows[i].part))
            fail_msg("row %zu: status %d, expected '%s':\n%s", i, status, rows[i].part, err);
        assert_false(qn_file_exists(AT("x")));
        assert_false(qn_file_exists(AT("y.safetensors")));
    }
}

// Scores are saved; they say what is trained, and what is removed.
static void test_neurons(void **state)
{
    (void)state;
    assert_ok(qn_make_dirs(AT("kinds")));
    scratch_write_text("kinds/cat.txt", "the cat sat on the mat\nthe cat\non the mat\n");
    scratch_write_text("kinds/odd.txt", "xq zz qq\nzx zq xx\nqqq zz\n");
    DO("bricks", "analyse", MODEL, "--data", AT("kinds"), "--out", AT("r.json"), "--svg", AT("pic"),
       "--save-scores", AT("s.safetensors"), "--mask-step", "45", "--json");
    assert_non_null(strstr(out, "\"set_to_zero\":\"odd\""));
    static const char *const files[] = { AT("r.json"), AT("pic/prune.svg"),
                                         AT("pic/functionality.svg"),
                                         AT("pic/sparsity-magnitude.svg") };
    for (size_t i = 0; i < 4; i++) assert_true(qn_file_exists(files[i]));
    qn_json_doc *doc;
    assert_ok(qn_json_open(AT("r.json"), NULL, &doc));
    qn_json masks;
    assert_ok(qn_json_array(qn_json_root(doc), "mask", &masks));
    assert_int_equal(qn_json_count(masks), 6); // 0, 45, 90 percent by two indicators
    qn_json_close(&doc);
    DO("bricks", "locate", MODEL, "--data", AT("kinds"), "--by", "grad", "--json");
    assert_non_null(strstr(out, "\"function\":\"odd\""));
    DO("bricks", "locate", MODEL, "--data", AT("kinds"), "--bricks", "experts", "-t", "2");

    DO("train", "--init", MODEL, "--train-top", "odd", "--from", AT("s.safetensors"), "--percent",
       "10", "--text", TEXT, "--batch", "4", "--length", "16", "--steps", "3", "--out", AT("topped"));
    qn_safetensors *a, *b;
    assert_ok(qn_safetensors_open(MODEL, &a));
    assert_ok(qn_safetensors_open(AT("topped"), &b));
    const int E = 4, C = 16, F = 24, top = (int)(0.1 * E * F);
    int changed = 0;
    for (size_t i = 0; i < qn_safetensors_count(a); i++) {
        const qn_safetensor *x = qn_safetensors_at(a, i), *y = qn_safetensors_find(b, x->name);
        if (strcmp(x->name, "transformer.h.0.mlpf.output_experts.weight") != 0) {
            if (!strcmp(x->name, "transformer.h.0.mlpf.experts.weight")) continue;
            assert_memory_equal(x->data, y->data, x->size);
            continue;
        }
        for (int n = 0; n < E * F; n++)
            changed += memcmp((const float *)x->data + n * C, (const float *)y->data + n * C,
                              (size_t)C * sizeof(float)) != 0;
    }
    assert_true(changed > 0 && changed <= top);
    qn_safetensors_close(&a);
    qn_safetensors_close(&b);

    DO("bricks", "prune-neurons", MODEL, AT("forgot"), "--from", AT("s.safetensors"), "--function",
       "odd", "--percent", "25", "--data", TEXT);
    assert_listed(AT("forgot"), "18"); // neurons
    DO("bricks", "prune-neurons", MODEL, AT("busy"), "--from", AT("s.safetensors"), "--idle",
       "--percent", "25");
    DO("generate", AT("busy"), "-n", "2");
    static const struct {
        char *args[12];
        int status;
        const char *part;
    } rows[] = {
        { { "bricks", "prune-neurons", MODEL, AT("x"), "--idle" }, 2, "--from FILE is missing" },
        { { "bricks", "prune-neurons", MODEL, AT("x"), "--from", AT("s.safetensors") }, 2,
          "--function NAME or --idle" },
        { { "bricks", "prune-neurons", MODEL, AT("x"), "--from", AT("s.safetensors"), "--function",
            "cut" }, 1, "has no function cut, only cat,odd" },
        { { "bricks", "prune-neurons", DENSE, AT("x"), "--from", AT("s.safetensors"), "--idle" }, 1,
          "does not belong to a model with 24 neurons" },
        { { "train", "--init", MODEL, "--train-top", "odd", "--text", TEXT, "--out", AT("x") }, 2,
          "needs --from FILE" },
        { { "bricks", "analyse", MODEL }, 2, "--data DIR is missing" },
        { { "bricks", "analyse", MODEL, "--data", AT("pic") }, 1, "NAME.jsonl or NAME.txt" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        run(rows[i].args);
        if (status != rows[i].status || !strstr(err, rows[i].part))
            fail_msg("row %zu: status %d, expected '%s':\n%s", i, status, rows[i].part, err);
        assert_false(qn_file_exists(AT("x")));
    }
}

static qn_result find_tensor(const char *folder, const char *file, const char *name, float *first)
{
    char path[768];
    qn_safetensors *s;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    QN_TRY(qn_safetensors_open(path, &s));
    const qn_safetensor *t = qn_safetensors_find(s, name);
    qn_result r = t ? qn_safetensor_f32(t, 0, 1, first) : qn_fail(QN_ERR_FORMAT, "%s", name);
    qn_safetensors_close(&s);
    return r;
}

// A fresh adapter changes nothing; a trained one does what its weights say, merged or in training.
static void test_adapters(void **state)
{
    (void)state;
    static char targets[] = "*experts.weight,*.k_proj.weight,*.mlpf.gate.*.weight,lm_head.weight";
#define LORA(folder, steps, ...)                                                                   \
    "train", "--init", MODEL, "--lora", "3", "--lora-targets", targets, "--text", TEXT, "--batch", \
        "4", "--length", "16", "--held-out", "0.2", "--out", folder, "--steps", steps, __VA_ARGS__
    DO(LORA(AT("fresh"), "1", "--lr", "0", "--json"));
    DO("bricks", "attach", MODEL, AT("fresh"), AT("with-fresh"));
    assert_true(same_weights(AT("with-fresh"), MODEL));
    DO(LORA(AT("adapter"), "12", "--lr", "0.02", "--decay", "0", "--json"));
    qn_json_doc *doc;
    double held, a, b;
    assert_ok(qn_json_parse("stdout", out, strcspn(out, "\n"), NULL, &doc));
    assert_ok(qn_json_number(qn_json_root(doc), "held_loss", 0, 100, &held));
    qn_json_close(&doc);
    assert_false(qn_file_exists(AT("adapter/model.safetensors")));
    float x;
    assert_ok(find_tensor(AT("adapter"), "adapter_model.safetensors",
                          "base_model.model.transformer.h.0.mlpf.experts.lora_B.weight", &x));
    assert_true(x != 0);
    DO("bricks", "attach", MODEL, AT("adapter"), AT("adapted"), "--data", TEXT, "--json");
    losses(&a, &b);
    assert_true(b < a - 0.05);
    // The merged model, evaluated as a run without a step would, has the loss of the training.
    DO("train", "--init", AT("adapted"), "--text", TEXT, "--batch", "4", "--length", "16",
       "--held-out", "0.2", "--steps", "1", "--lr", "0", "--out", AT("judge"), "--json");
    assert_ok(qn_json_parse("stdout", out, strcspn(out, "\n"), NULL, &doc));
    assert_ok(qn_json_number(qn_json_root(doc), "held_loss", 0, 100, &a));
    qn_json_close(&doc);
    if (!(fabs(a - held) <= 1e-5)) fail_msg("%.8f merged, %.8f in training", a, held);
    DO("bricks", "detach", AT("adapted"), AT("adapter"), AT("back"));
    assert_true(ulps(AT("back"), MODEL) <= 4096); // (w + d) - d, d much larger than some w
    // Stopped and gone on with.
    DO(LORA(AT("parts"), "6", "--lr", "0.02", "--lr-final", "1", "--warmup", "1", "--save-every",
            "3"));
    DO(LORA(AT("parts"), "12", "--lr", "0.02", "--lr-final", "1", "--warmup", "1", "--save-every",
            "3"));
    RUN("train", "--text", TEXT, "--out", AT("x"), "--lora", "4");
    assert_int_equal(status, QN_EXIT_MISUSED);
    RUN("train", "--init", MODEL, "--text", TEXT, "--out", AT("x"), "--lora", "16");
    assert_non_null(strstr(err, "rank 16 is no less than a side of"));
    RUN("train", "--init", MODEL, "--text", TEXT, "--out", AT("x"), "--lora", "2", "--lora-targets",
        "*.ln_f.weight");
    assert_non_null(strstr(err, "matches the adapter's targets"));
    assert_false(qn_file_exists(AT("x")));
}

static void test_index(void **state)
{
    (void)state;
    assert_ok(qn_make_dirs(AT("plugins")));
    scratch_write_text("plugins/cats.txt", "the cat sat on the mat\nthe cat\n");
    scratch_write_text("plugins/odd.txt", "xq zz qq\nzx zq xx\n");
    DO("bricks", "index", AT("plugins"), "--model", MODEL);
    DO("bricks", "index", AT("plugins"), "--model", MODEL, "--query", "the cat sat on the", "--json");
    const char *cats = strstr(out, "cats"), *odd = strstr(out, "odd");
    assert_true(cats && odd && cats < odd);
    DO("bricks", "index", AT("plugins"), "--model", MODEL, "--query", "zz xq", "--top", "1");
    assert_null(strstr(out, "cats"));
    RUN("bricks", "index", AT("plugins"));
    assert_int_equal(status, QN_EXIT_MISUSED);
    RUN("bricks", "index", AT("pic-none"), "--model", MODEL);
    assert_int_equal(status, QN_EXIT_FAILED);
}

// Grouping keeps the function; the oracle captures no less than any other chooser.
static void test_partition(void **state)
{
    (void)state;
    DO("bricks", "partition", DENSE, "--groups", "4", "--data", TEXT, "--tokens", "512", "--out",
       AT("bricks.safetensors"), "--apply", AT("grouped"), "--json");
    qn_json_doc *doc;
    assert_ok(qn_json_parse("stdout", out, strcspn(out, "\n"), NULL, &doc));
    double oracle, other, J, random;
    qn_json root = qn_json_root(doc);
    assert_ok(qn_json_number(root, "captured_20_oracle", 0, 1, &oracle));
    static const char *const keys[] = { "captured_20_mlp", "captured_20_similarity",
                                        "captured_20_random" };
    for (int i = 0; i < 3; i++) {
        assert_ok(qn_json_number(root, keys[i], 0, 1, &other));
        assert_true(other <= oracle + 1e-9);
    }
    assert_ok(qn_json_number(root, "objective", 0, 1e9, &J));
    assert_ok(qn_json_number(root, "random_split", 0, 1e9, &random));
    assert_true(J < random);
    qn_json_close(&doc);
    qn_safetensors *s;
    assert_ok(qn_safetensors_open(AT("bricks.safetensors"), &s));
    const qn_safetensor *t = qn_safetensors_find(s, "layers.1.labels");
    int size[4] = { 0 };
    for (int i = 0; i < 24; i++) size[((const int32_t *)t->data)[i]]++;
    for (int k = 0; k < 4; k++) assert_int_equal(size[k], 6);
    assert_non_null(qn_safetensors_find(s, "layers.0.router.w2"));
    qn_safetensors_close(&s);
    assert_true(qn_file_exists(AT("bricks.json")));
    // The same weights in another order: a difference of nothing but rounding.
    DO("bricks", "stack", AT("grouped"), AT("regrouped"), "--layers", "0-1", "--data", TEXT, "--json");
    double a, b, c;
    losses(&a, &b);
    DO("bricks", "stack", DENSE, AT("redense"), "--layers", "0-1", "--data", TEXT, "--json");
    losses(&c, &b);
    assert_true(fabs(a - c) <= equal);
    DO("bricks", "partition", DENSE, "--groups", "6", "--method", "graph", "--data", TEXT, "--tokens",
       "256");
    RUN("bricks", "partition", MODEL, "--groups", "4");
    assert_non_null(strstr(err, "4 feed-forward experts a layer; dense blocks"));
    RUN("bricks", "partition", DENSE, "--groups", "7");
    assert_non_null(strstr(err, "--groups 7 does not divide 24 neurons"));
    RUN("bricks", "partition", DENSE, "--method", "graph");
    assert_int_equal(status, QN_EXIT_MISUSED);
}

// A disk that is full leaves one sentence and nothing else; the same command works when it is not.
static void test_full_disk(void **state)
{
    (void)state;
    file_limit = 8192;
    RUN("bricks", "widen", MODEL, AT("full"));
    assert_int_equal(status, QN_EXIT_FAILED);
    assert_non_null(strstr(err, "model.safetensors"));
    assert_false(qn_file_exists(AT("full")));
    assert_false(qn_file_exists(AT("full.partial")));
    RUN("bricks", "delta", DENSE, DENSE, AT("empty-delta.safetensors"), "--exact"); // small enough
    assert_int_equal(status, QN_EXIT_DONE);
    file_limit = RLIM_INFINITY;
    assert_ok(qn_make_dirs(AT("full.partial"))); // what a killed run leaves
    DO("bricks", "widen", MODEL, AT("full"));
    assert_false(qn_file_exists(AT("full.partial")));
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
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_neurons),
        cmocka_unit_test(test_partition),
        cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_same_command_same_bytes),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}
