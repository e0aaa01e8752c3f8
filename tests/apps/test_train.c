// Training as a whole: it learns, repeats itself bit for bit, goes on where it stopped, and
// survives damaged files and full disks.
#include "llm/generate.h"
#include "llm/trainable.h"
#include <quoin/io.h>
#include "random.h"
#include "tiny_lm.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

static char config[512], folder_a[512], folder_b[512];

static qn_train_opts opts_in(const char *out, int64_t steps)
{
    return tiny_opts(config, out, steps);
}

static int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    tiny_write_inputs();
    snprintf(config, sizeof config, "%s", scratch("config.json"));
    snprintf(folder_a, sizeof folder_a, "%s", scratch("a"));
    snprintf(folder_b, sizeof folder_b, "%s", scratch("b"));
    return 0;
}

static void clear_folders(void)
{
    assert_ok(qn_remove_tree(folder_a));
    assert_ok(qn_remove_tree(folder_b));
}

// What a hook does, and when.
typedef struct script {
    int64_t stop_after;  // step after which the run is ended; 0: never
    int64_t limit_after; // step after which files may not grow; 0: never
    int events[QN_TRAIN_STEPS + 1];
} script;

static bool play(void *user, const qn_train_event *e)
{
    script *s = user;
    s->events[e->kind]++;
    if (e->kind != QN_TRAIN_STEP) return true;
    if (s->limit_after && e->step == s->limit_after)
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 4096, RLIM_INFINITY }), 0);
    return !s->stop_after || e->step < s->stop_after;
}

static qn_result train(const qn_train_opts *o, script *s, qn_train_result *out)
{
    qn_train_result own;
    qn_corpus c;
    tiny_corpus(&c);
    qn_result r = qn_train(qn_test_device(), &c, o, s ? &(qn_train_hooks){ play, s } : NULL,
                           out ? out : &own);
    qn_corpus_free(&c);
    return r;
}

static char *content(const char *dir, const char *name, size_t *size)
{
    char path[768], *data;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(qn_read_file(path, 1 << 24, &data, size));
    return data;
}

static bool same_file(const char *x, const char *y, const char *name)
{
    size_t n, m;
    char *a = content(x, name, &n), *b = content(y, name, &m);
    bool same = n == m && memcmp(a, b, n) == 0;
    qn_free(a);
    qn_free(b);
    return same;
}

static const char model[] = "model.safetensors", state_file[] = "training-state.safetensors";

static void test_learns(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 80);
    o.eval_every = 20;
    o.save_every = 30;
    script s = { 0 };
    qn_train_result r;
    assert_ok(train(&o, &s, &r));
    assert_true(r.finished);
    assert_int_equal(r.step, 80);
    // The text repeats itself, so that context gives away far more than frequencies do.
    if (!(r.bits_per_byte < 0.5 * r.unigram_bits))
        fail_msg("%g bits per byte, token frequencies alone give %g", r.bits_per_byte,
                 r.unigram_bits);
    assert_int_equal(s.events[QN_TRAIN_STEP], 80);
    assert_int_equal(s.events[QN_TRAIN_EVAL], 4);  // 20, 40, 60 and the end
    assert_int_equal(s.events[QN_TRAIN_SAVED], 3); // 30, 60 and the end
}

static void test_same_seed_same_bytes(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts a = opts_in(folder_a, 12), b = opts_in(folder_b, 12);
    a.dropout = b.dropout = 0.1;
    assert_ok(train(&a, NULL, NULL));
    assert_ok(train(&b, NULL, NULL));
    assert_true(same_file(folder_a, folder_b, model));
    assert_true(same_file(folder_a, folder_b, state_file));
    b.seed = 8;
    b.fresh = true;
    assert_ok(train(&b, NULL, NULL));
    assert_false(same_file(folder_a, folder_b, model));
}

// Reads tensor `name` of the folder's model, or of its state, as bytes.
static const qn_safetensor *tensor(qn_safetensors **s, const char *dir, const char *file,
                                   const char *name)
{
    char path[768];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (!*s) assert_ok(qn_safetensors_open(path, s));
    return qn_safetensors_find(*s, name);
}

// Trains a part of folder_a's model into folder_b; stopped after `stop` steps unless 0.
static qn_result train_part(const char *const *items, size_t count, int64_t stop, double decay)
{
    qn_part part;
    qn_train_opts o = opts_in(folder_b, 6);
    QN_TRY(qn_part_open(items, count, &part));
    o.config = NULL;
    o.init = folder_a;
    o.weight_decay = decay;
    o.trainable = &part.trainable;
    o.trainable_text = part.text;
    qn_result r = train(&o, &(script){ .stop_after = stop }, NULL);
    qn_part_close(&part);
    return r;
}

#define MLP "transformer.h.0.mlpf."
// What is frozen keeps its bytes, whole tensors and rows of them, and takes no moments.
static void test_a_part_is_trained(void **state)
{
    (void)state;
    static const char *const items[] = { "*.mlpf.experts.weight#1", "3", "*.ln_f.*",
                                         "*.mlpf.gate.w_gate.3.weight#3" };
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 4);
    assert_ok(train(&o, NULL, NULL));
    assert_ok(train_part(items, 4, 0, 0.5));
    qn_safetensors *a = NULL, *b = NULL, *s = NULL;
    assert_non_null(tensor(&a, folder_a, model, MLP "experts.weight"));
    for (size_t i = 0; i < qn_safetensors_count(a); i++) {
        const qn_safetensor *x = qn_safetensors_at(a, i), *y = tensor(&b, folder_b, model, x->name);
        assert_non_null(y);
        const bool stack = !strcmp(x->name, MLP "experts.weight");
        const bool rows = !strcmp(x->name, MLP "gate.w_gate.3.weight");
        const bool all = strstr(x->name, ".ln_f.") != NULL;
        const size_t size = (size_t)x->size / (size_t)x->dim[0];
        for (int64_t e = 0; e < x->dim[0]; e++) {
            const char *p = (const char *)x->data + (size_t)e * size;
            const char *q = (const char *)y->data + (size_t)e * size;
            const bool same = !memcmp(p, q, size);
            if (same == (all || (stack && e % 2) || (rows && e == 3)))
                fail_msg("%s row %d is %s", x->name, (int)e, same ? "as before" : "changed");
        }
        char name[256];
        snprintf(name, sizeof name, "mean.%s", x->name);
        const qn_safetensor *m = tensor(&s, folder_b, state_file, name);
        assert_int_equal(m != NULL, stack || rows || all);
        // Frozen rows have no moment.
        for (size_t k = 0; stack && k < size; k++) assert_int_equal(((const char *)m->data)[k], 0);
    }
    qn_safetensors_close(&a);
    qn_safetensors_close(&b);
    qn_safetensors_close(&s);
}

static void test_a_part_resumes_bitwise(void **state)
{
    (void)state;
    static const char *const items[] = { "*.mlpf.*experts.weight#0", "2" };
    assert_ok(qn_remove_tree(folder_b));
    assert_ok(train_part(items, 2, 0, 0.1));
    size_t n, m;
    char *whole = content(folder_b, model, &n);
    assert_ok(qn_remove_tree(folder_b));
    assert_ok(train_part(items, 2, 2, 0.1));
    assert_ok(train_part(items, 2, 0, 0.1));
    char *parts = content(folder_b, model, &m);
    assert_int_equal(n, m);
    assert_memory_equal(whole, parts, n);
    qn_free(whole);
    qn_free(parts);
    // Another part is another run.
    assert_fails(train_part(items, 1, 0, 0.1), QN_ERR_INVALID, "trained = ");
}

static void test_parts_that_are_none(void **state)
{
    (void)state;
    static const struct {
        const char *item, *part;
    } rows[] = {
        { "*.mlpf.expert.weight", "matches no tensor of the model" },
        { "lm_haed.weight", "did you mean 'lm_head.weight'?" },
        { "*.mlpf.experts.weight#4", "has rows 0 to 3" },
        { "*.mlpf.experts.weight#3-1", "expected a row like 3" },
        { "#2", "expected the name of a tensor" },
        { "*.x#", "expected a row like 3" },
    };
    assert_ok(qn_remove_tree(folder_b));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_fails(train_part(&rows[i].item, 1, 0, 0), QN_ERR_INVALID, rows[i].part);
        assert_false(qn_file_exists(scratch("b/model.safetensors")));
    }
    qn_train_opts o = opts_in(folder_a, 4);
    o.init = folder_a;
    assert_fails(train(&o, NULL, NULL), QN_ERR_INVALID, "would be overwritten");
}

// Stopped after any step and gone on with, once or twice, a run ends where it would have anyway.
static void test_resumes_bitwise(void **state)
{
    (void)state;
    static const int64_t stops[][2] = { { 1, 0 }, { 13, 0 }, { 3, 9 } };
    for (int form = 0; form < 2; form++) {
        clear_folders();
        qn_train_opts whole = opts_in(folder_a, 14), parts = opts_in(folder_b, 14);
        if (form == 1) {
            whole.dropout = parts.dropout = 0.2;
            whole.accumulate = parts.accumulate = 2;
            whole.weights = parts.weights = QN_BF16;
        }
        assert_ok(train(&whole, NULL, NULL));
        for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
            assert_ok(qn_remove_tree(folder_b));
            for (int k = 0; k < 2 && stops[i][k]; k++) {
                qn_train_result r;
                assert_ok(train(&parts, &(script){ .stop_after = stops[i][k] }, &r));
                assert_false(r.finished);
                assert_int_equal(r.step, stops[i][k]);
            }
            script last = { 0 };
            assert_ok(train(&parts, &last, NULL));
            assert_int_equal(last.events[QN_TRAIN_RESUMED], 1);
            assert_true(same_file(folder_a, folder_b, model));
            assert_true(same_file(folder_a, folder_b, state_file));
        }
    }
}

// A finished run has nothing left to do, and more steps may be asked of it.
static void test_finished_and_extended(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 4);
    assert_ok(train(&o, NULL, NULL));
    script again = { 0 };
    qn_train_result r;
    assert_ok(train(&o, &again, &r));
    assert_int_equal(again.events[QN_TRAIN_STEP], 0);
    assert_int_equal(r.step, 4);
    o.steps = 6;
    assert_ok(train(&o, &again, &r));
    assert_int_equal(again.events[QN_TRAIN_STEP], 2);
    assert_int_equal(r.step, 6);
}

// Minutes become steps after a dozen measured ones, also when these are spread over two processes.
static void test_minutes(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 0);
    o.minutes = 0.01;
    o.held_out = 0;
    qn_train_result r;
    assert_ok(train(&o, &(script){ .stop_after = 11 }, &r));
    assert_false(r.finished);
    script s = { 0 };
    assert_ok(train(&o, &s, &r));
    assert_true(r.finished);
    assert_int_equal(s.events[QN_TRAIN_STEPS], 1);
    // Less than a second was left: no machine makes a million steps in it.
    assert_in_range(r.steps, 12, 1000000);
    assert_true(isnan(r.bits_per_byte));
}

static qn_trainer *trainer_of(int64_t batch, int64_t accumulate)
{
    qn_model_config c;
    assert_ok(qn_model_config_read(config, &c));
    c.aux_loss_weight = 0; // the routers' loss is not a mean over rows
    qn_trainer *t;
    assert_ok(qn_trainer_create(qn_test_device(), &c,
                                &(qn_trainer_opts){ .batch = batch, .positions = 16,
                                                    .accumulate = accumulate, .beta1 = 0.9,
                                                    .beta2 = 0.95, .epsilon = 1e-8 },
                                &t));
    assert_ok(qn_model_initialise(&c, qn_trainer_weights(t), 3, false));
    return t;
}

// Two runs of four windows give the gradient of one run of eight. What differs is the order of
// sums over 128 rows: 128 roundings of 2^-24 to a sum of magnitudes that is at most 128 times the
// largest gradient, so 128 * 128 * 2^-24 = 10^-3 bounds it.
static void test_accumulation(void **state)
{
    (void)state;
    enum { CELLS = 8 * 16 };
    int32_t ids[CELLS], labels[CELLS];
    for (int i = 0; i < CELLS; i++) {
        ids[i] = 32 + i * 37 % 90;
        labels[i] = 32 + (i + 1) * 37 % 90;
    }
    qn_trainer *whole = trainer_of(8, 1), *parts = trainer_of(4, 2);
    qn_step_report a, b;
    assert_ok(qn_trainer_step(whole, 1, 0, ids, labels, &a));
    assert_ok(qn_trainer_step(parts, 1, 0, ids, labels, &b));
    assert_true(fabs(a.ce - b.ce) < 1e-5 * a.ce);
    assert_true(fabs(a.grad_norm - b.grad_norm) < 1e-3 * a.grad_norm);
    const qn_store *x = qn_trainer_gradients(whole), *y = qn_trainer_gradients(parts);
    int compared = 0;
    for (size_t i = 0; i < qn_store_count(x); i++) {
        const qn_store_entry *e = qn_store_at(x, i);
        float *g = qn_malloc(e->size), *h = qn_malloc(e->size);
        assert_true(g && h);
        assert_ok(qn_store_read(x, e->name, g, e->size));
        assert_ok(qn_store_read(y, e->name, h, e->size));
        double most = 0, worst = 0;
        for (uint64_t k = 0; k < e->size / 4; k++) {
            most = fmax(most, fabs((double)g[k]));
            worst = fmax(worst, fabs((double)g[k] - (double)h[k]));
        }
        if (!(worst <= 1e-3 * most)) fail_msg("%s: %g of %g", e->name, worst, most);
        compared += most > 0;
        qn_free(g);
        qn_free(h);
    }
    assert_true(compared > 10);
    qn_trainer_destroy(&whole);
    qn_trainer_destroy(&parts);
}

// Every option that changes what is computed is refused on resuming, by name; the folder stays.
static void test_other_options(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 6);
    assert_ok(train(&o, &(script){ .stop_after = 2 }, NULL));
    size_t size, now;
    char *before = content(folder_a, state_file, &size);
    qn_train_opts lr = o, batch = o, seed = o, decay = o, dtype = o, held = o, drop = o;
    lr.learning_rate = 0.03;
    batch.batch = 2;
    seed.seed = 99;
    decay.weight_decay = 0.2;
    dtype.weights = QN_F16;
    held.held_out = 0.2;
    drop.dropout = 0.5;
    const struct {
        const qn_train_opts *o;
        const char *part;
    } rows[] = {
        { &lr, "made with lr = 0.02, this run has lr = 0.03" },
        { &batch, "made with batch = 4, this run has batch = 2" },
        { &seed, "made with seed = 7, this run has seed = 99" },
        { &decay, "made with decay = 0.1, this run has decay = 0.2" },
        { &dtype, "made with dtype = f32, this run has dtype = f16" },
        { &held, "made with held-out = 0.1, this run has held-out = 0.2" },
        { &drop, "model = " },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_fails(train(rows[i].o, NULL, NULL), QN_ERR_INVALID, rows[i].part);
    scratch_write_text("cat2.txt", "another text, long enough for one window of it, surely\n");
    qn_corpus c = { 0 };
    qn_train_result r;
    assert_ok(qn_corpus_add(&c, scratch("cat2.txt")));
    assert_fails(qn_train(qn_test_device(), &c, &o, NULL, &r), QN_ERR_INVALID, "made with text = ");
    qn_corpus_free(&c);
    char *after = content(folder_a, state_file, &now);
    assert_int_equal(size, now);
    assert_memory_equal(before, after, size);
    qn_free(before);
    qn_free(after);
    assert_ok(train(&o, NULL, NULL));
}

// The disk fills up while a checkpoint is written: the run says so, the one before it stays whole.
static void test_full_disk(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts a = opts_in(folder_a, 9), b = opts_in(folder_b, 9);
    assert_ok(train(&a, NULL, NULL));
    assert_ok(train(&b, &(script){ .stop_after = 4 }, NULL));
    size_t size, now;
    char *before = content(folder_b, state_file, &size);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    qn_result r = train(&b, &(script){ .limit_after = 6 }, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_fails(r, QN_ERR_IO, "safetensors");
    char *after = content(folder_b, state_file, &now);
    assert_int_equal(size, now);
    assert_memory_equal(before, after, size);
    qn_free(before);
    qn_free(after);
    assert_ok(train(&b, NULL, NULL));
    assert_true(same_file(folder_a, folder_b, model));
}

// A run that starts afresh and comes to nothing leaves the folder as it was.
static void test_failed_start_leaves_checkpoint(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 3);
    assert_ok(train(&o, NULL, NULL));
    static const char *const names[] = { "config.json", "tokenizer.json", model, state_file };
    char *before[4];
    size_t size[4], now;
    for (int i = 0; i < 4; i++) before[i] = content(folder_a, names[i], &size[i]);
    qn_train_opts wild = o;
    wild.fresh = true;
    wild.vocab = 259;
    wild.learning_rate = 1e38;
    wild.steps = 40;
    wild.warmup = 1;
    wild.clip = 0;
    assert_fails(train(&wild, NULL, NULL), QN_ERR_INVALID, "is not a number");
    for (int i = 0; i < 4; i++) {
        char *after = content(folder_a, names[i], &now);
        if (now != size[i] || memcmp(before[i], after, now) != 0)
            fail_msg("%s has changed", names[i]);
        qn_free(after);
        qn_free(before[i]);
    }
    assert_ok(train(&o, NULL, NULL));
}

// Writes `name` of folder a with the first `keep` bytes of `data`, bit `flip` changed (-1: none).
static void damage(const char *name, const char *data, size_t keep, int64_t flip)
{
    char path[64];
    snprintf(path, sizeof path, "a/%s", name);
    char *copy = qn_malloc(keep + 1);
    assert_non_null(copy);
    memcpy(copy, data, keep);
    if (flip >= 0 && (size_t)(flip / 8) < keep) copy[flip / 8] ^= (char)(1 << flip % 8);
    scratch_write(path, copy, keep);
    qn_free(copy);
}

static void test_damaged_state(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 5);
    assert_ok(train(&o, &(script){ .stop_after = 2 }, NULL));
    size_t size;
    char *data = content(folder_a, state_file, &size);
    const size_t cuts[] = { 0, 1, 7, 8, 100, size / 2, size - 1 };
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        damage(state_file, data, cuts[i], -1);
        assert_fails(train(&o, NULL, NULL), QN_ERR_FORMAT, state_file);
    }
    // Lies are as long as what they replace.
    static const struct {
        const char *find, *put;
    } lies[] = {
        { "\"step\":\"2\"", "\"step\":\"x\"" },
        { "\"step\":\"2\"", "\"stop\":\"2\"" },
        { "\"fingerprint\"", "\"fingerprinx\"" },
        { "weights.lm_head", "weights.lm_heap" },
        { "square.lm_head", "Square.lm_head" },
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        char *copy = qn_malloc(size);
        assert_non_null(copy);
        memcpy(copy, data, size);
        char *at = memmem(copy, size, lies[i].find, strlen(lies[i].find));
        assert_non_null(at);
        memcpy(at, lies[i].put, strlen(lies[i].put));
        damage(state_file, copy, size, -1);
        assert_fails(train(&o, NULL, NULL), QN_ERR_FORMAT, state_file);
        qn_free(copy);
    }
    damage(state_file, data, size, -1);
    damage(state_file, data, size, -1);
    assert_ok(train(&o, NULL, NULL));
    qn_free(data);
}

static bool take_nothing(void *user, const char *bytes, size_t size)
{
    (void)bytes;
    *(size_t *)user += size;
    return true;
}

static qn_result open_and_write(size_t *written)
{
    qn_folder f = { 0 };
    qn_result r = qn_folder_open(qn_test_device(), folder_a, QN_F32, &f);
    if (r != QN_OK) return r;
    qn_generate_stats s;
    qn_generate_opts g = { .prompt = "the ", .prompt_size = 4, .max_tokens = 3, .context = 16,
                           .ignore_end = true, .sampling = { .temperature = 0, .top_p = 1,
                           .repeat_penalty = 1 }, .text = take_nothing, .user = written };
    r = qn_generate(qn_test_device(), &f, &g, &s);
    qn_folder_close(&f);
    return r;
}

static void test_damaged_model(void **state)
{
    (void)state;
    clear_folders();
    qn_train_opts o = opts_in(folder_a, 2);
    assert_ok(train(&o, NULL, NULL));
    size_t written = 0, size;
    assert_ok(open_and_write(&written));
    assert_true(written > 0);
    char *data = content(folder_a, model, &size);
    const size_t cuts[] = { 0, 5, 8, 300, size / 2, size - 1 };
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        damage(model, data, cuts[i], -1);
        assert_fails(open_and_write(&written), QN_ERR_FORMAT, model);
    }
    // Any changed bit of the length or the header is refused, or does not matter.
    uint64_t header;
    memcpy(&header, data, sizeof header);
    qn_random rng = qn_random_start(11, 0);
    int refused = 0;
    for (int i = 0; i < 40; i++) {
        damage(model, data, size, (int64_t)qn_random_below(&rng, 8 * (8 + header)));
        qn_result r = open_and_write(&written);
        if (r != QN_OK && r != QN_ERR_FORMAT) fail_msg("%s", qn_error_message());
        refused += r != QN_OK;
    }
    assert_true(refused > 20);
    damage(model, data, size, -1);
    scratch_write_text("a/config.json", "{\"model_type\": \"moduleformer\", \"n_embd\": 16}");
    assert_true(open_and_write(&written) != QN_OK);
    qn_free(data);
}

static void test_texts(void **state)
{
    (void)state;
    clear_folders();
    // Bytes that are no UTF-8 are text like any other.
    char bytes[2000];
    qn_random rng = qn_random_start(1, 1);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(1 + qn_random_below(&rng, 255));
    scratch_write("bytes.txt", bytes, sizeof bytes);
    scratch_write("nul.txt", "ab\0cd", 5);
    scratch_write("empty.txt", "", 0);
    scratch_write("one.txt", "x", 1);
    scratch_write("short.txt", "only a few words\n", 17);
    qn_train_opts o = opts_in(folder_a, 2);
    qn_train_result r;
    qn_corpus c = { 0 };
    assert_ok(qn_corpus_add(&c, scratch("bytes.txt")));
    assert_ok(qn_train(qn_test_device(), &c, &o, NULL, &r));
    qn_corpus_free(&c);
    assert_fails(qn_corpus_add(&c, scratch("nul.txt")), QN_ERR_INVALID, "NUL");
    assert_fails(qn_corpus_add(&c, scratch("empty.txt")), QN_ERR_INVALID, "is empty");
    assert_fails(qn_corpus_add(&c, scratch("missing.txt")), QN_ERR_IO, "missing.txt");
    assert_int_equal(c.size, 0);
    static const char *const brief[] = { "one.txt", "short.txt" };
    for (int i = 0; i < 2; i++) {
        assert_ok(qn_corpus_add(&c, scratch(brief[i])));
        assert_fails(qn_train(qn_test_device(), &c, &o, NULL, &r), QN_ERR_INVALID, "too short");
        qn_corpus_free(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_same_seed_same_bytes),
        cmocka_unit_test(test_a_part_is_trained), cmocka_unit_test(test_a_part_resumes_bitwise),
        cmocka_unit_test(test_parts_that_are_none), cmocka_unit_test(test_resumes_bitwise),
        cmocka_unit_test(test_finished_and_extended),
        cmocka_unit_test(test_minutes),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_other_options),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_failed_start_leaves_checkpoint),
        cmocka_unit_test(test_damaged_state),
        cmocka_unit_test(test_damaged_model),
        cmocka_unit_test(test_texts),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, scratch_remove) + qn_device_finish();
}
