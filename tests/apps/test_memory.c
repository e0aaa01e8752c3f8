// Memories of layers: identity at the start, pieces as the whole, files, what they refuse, windows.
#include "llm/generate.h"
#include "llm/memory_state.h"
#include "llm/runner.h"
#include "llm/trainer.h"
#include "tiny_lm.h"

#include <math.h>
#include <quoin/io.h>

enum { VOCABULARY = 260, LENGTH = 90 };

static qn_model_config plain, config; // without and with memories and a window
static qn_store *weights, *bare;

static void open_store(const qn_model_config *c, qn_store **out)
{
    assert_ok(qn_store_create(qn_test_device(), "weights", out));
    assert_ok(qn_model_declare(c, *out, QN_F32));
    assert_ok(qn_store_allocate(*out));
    assert_ok(qn_model_initialise(c, *out, 6, false));
}

static void fill(qn_store *s, const char *name, float value)
{
    const qn_store_entry *e = qn_store_find(s, name);
    assert_non_null(e);
    float *x = qn_malloc((size_t)e->size);
    assert_non_null(x);
    for (size_t i = 0; i < e->size / 4; i++) x[i] = value;
    assert_ok(qn_store_write(s, name, x, e->size));
    qn_free(x);
}

static int make_models(void **state)
{
    if (scratch_make(state)) return -1;
    scratch_write_text("config.json", TINY_CONFIG);
    assert_ok(qn_model_config_read(scratch("config.json"), &plain));
    plain.n_layer = 2;
    plain.initializer_range = 0.3;
    config = plain;
    config.memory[0] = QN_MEMORY_FULL;
    config.memory[1] = QN_MEMORY_DELTA;
    config.memory_heads = 2;
    config.memory_keys = 8;
    config.memory_values = 12;
    config.attention_window = 8;
    open_store(&plain, &bare);
    open_store(&config, &weights);
    fill(weights, "transformer.h.0.memory.z", 0.5f);
    fill(weights, "transformer.h.1.memory.z", 0.5f);
    return 0;
}

static int free_models(void **state)
{
    qn_store_destroy(&weights);
    qn_store_destroy(&bare);
    return scratch_remove(state);
}

static const int32_t *text_of(int seed)
{
    static int32_t ids[LENGTH];
    for (int i = 0; i < LENGTH; i++) ids[i] = (i * i * 53 + seed * 17 + 7) % VOCABULARY;
    return ids;
}

static float *logits_of(const qn_model_config *c, qn_store *s, int64_t count)
{
    qn_graph *g;
    qn_plan *plan;
    qn_lm *lm = qn_calloc(1, sizeof *lm);
    float *out = qn_malloc((size_t)(count * VOCABULARY) * sizeof *out);
    assert_true(lm && out);
    assert_ok(qn_graph_create(qn_test_device(), &g));
    const qn_tensor *ids = qn_input(g, "ids", QN_I32, QN_SHAPE(1, count));
    assert_ok(qn_lm_build(g, s, c, ids, &(qn_lm_opts){ .batch = 1, .positions = count }, lm));
    assert_ok(qn_plan_create(g, &(qn_plan_opts){ .outputs = &lm->logits, .output_count = 1 },
                             &plan));
    assert_ok(qn_plan_set(plan, ids, text_of(1), (uint64_t)count * 4));
    assert_ok(qn_plan_run(plan));
    assert_ok(qn_plan_get(plan, lm->logits, out, (uint64_t)(count * VOCABULARY) * sizeof *out));
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    qn_free(lm);
    return out;
}

// A memory changes no bit before it is trained, whatever else it was given to start with.
static void test_identity(void **state)
{
    (void)state;
    qn_model_config c = config;
    qn_store *fresh;
    c.attention_window = 0;
    open_store(&c, &fresh);
    float *a = logits_of(&plain, bare, 40), *b = logits_of(&c, fresh, 40);
    assert_memory_equal(a, b, 40 * VOCABULARY * sizeof *a);
    fill(fresh, "transformer.h.1.memory.z", 0.5f);
    float *d = logits_of(&c, fresh, 40);
    assert_memory_not_equal(a, d, 40 * VOCABULARY * sizeof *a);
    qn_free(a);
    qn_free(b);
    qn_free(d);
    qn_store_destroy(&fresh);
}

static qn_runner *open_runner(int64_t slots, int64_t context, int64_t chunk)
{
    qn_runner *r;
    qn_runner_opts o = { .slots = slots, .context = context, .chunk = chunk };
    assert_ok(qn_runner_create(qn_test_device(), &config, weights, &o, &r));
    assert_true(qn_runner_remembers(r));
    return r;
}

// Log probabilities of the text by a graph over all of it, and by a runner in pieces whose cache
// slides along the window.
static void test_pieces(void **state)
{
    (void)state;
    float *all = logits_of(&config, weights, LENGTH);
    static const int64_t chunks[] = { 1, 16 };
    for (int c = 0; c < 2; c++) {
        static qn_token_score score[LENGTH];
        qn_runner *r = open_runner(2, LENGTH, chunks[c]);
        assert_ok(qn_runner_score(r, 1, text_of(1), 37, score));
        assert_ok(qn_runner_score(r, 1, text_of(1) + 37, LENGTH - 37, score + 37));
        for (int t = 1; t < LENGTH; t++) {
            const float *row = all + (t - 1) * VOCABULARY;
            double sum = 0;
            for (int i = 0; i < VOCABULARY; i++) sum += exp((double)row[i]);
            const double want = (double)row[text_of(1)[t]] - log(sum);
            // f32 logits of size below 20, through some dozen roundings
            if (!(fabs((double)score[t].logprob - want) < 2e-4))
                fail_msg("token %d: %g, expected %g", t, (double)score[t].logprob, want);
        }
        qn_runner_destroy(&r);
    }
    qn_free(all);
}

static float last_chance(qn_runner *r, int64_t slot)
{
    qn_token_score s[4];
    assert_ok(qn_runner_score(r, slot, text_of(3), 4, s));
    return s[3].logprob;
}

static void read_text(qn_runner *r, int64_t slot)
{
    static qn_token_score score[LENGTH];
    assert_ok(qn_runner_score(r, slot, text_of(1), 60, score));
}

// What was saved and loaded is what was there; another slot is not touched; a reset goes back to it.
static void test_files(void **state)
{
    (void)state;
    qn_runner *r = open_runner(2, LENGTH, 16);
    const float nothing = last_chance(r, 1);
    assert_ok(qn_runner_reset(r, 1));
    read_text(r, 0);
    assert_ok(qn_runner_memory_save(r, 0, scratch("a.mem"), false));
    assert_ok(qn_runner_memory_save(r, 0, scratch("c.mem"), true));
    assert_true(last_chance(r, 1) == nothing);
    assert_ok(qn_runner_reset(r, 1));
    assert_ok(qn_runner_memory_load(r, 1, scratch("a.mem")));
    const float loaded = last_chance(r, 1);
    assert_true(loaded != nothing);
    assert_int_equal(qn_runner_memory_load(r, 1, scratch("a.mem")), QN_ERR_INVALID); // it has read
    assert_ok(qn_runner_reset(r, 1));
    assert_true(last_chance(r, 1) == loaded);
    assert_ok(qn_runner_rewind(r, 1, 0));
    assert_true(last_chance(r, 1) == loaded);
    assert_ok(qn_runner_reset(r, 1));
    assert_ok(qn_runner_memory_load(r, 1, scratch("c.mem")));
    const float kept = last_chance(r, 1);
    assert_true(kept != nothing && kept != loaded);
    qn_runner_destroy(&r);

    qn_safetensors *f;
    size_t count;
    assert_ok(qn_safetensors_open(scratch("a.mem"), &f));
    assert_int_equal(qn_safetensors_count(f), 5);
    assert_non_null(qn_safetensors_find(f, "layers.1.sr.conv"));
    const qn_st_meta *meta = qn_safetensors_meta(f, &count);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(meta[i].key, "tokens")) assert_string_equal(meta[i].value, "60");
    qn_safetensors_close(&f);
    assert_ok(qn_safetensors_open(scratch("c.mem"), &f));
    assert_int_equal(qn_safetensors_count(f), 1);
    qn_safetensors_close(&f);
}

static void expect_refusal(qn_runner *r, const char *name, const char *part)
{
    assert_true(qn_runner_memory_load(r, 0, scratch(name)) != QN_OK);
    if (!strstr(qn_error_message(), part) || !strstr(qn_error_message(), name))
        fail_msg("%s: '%s' lacks '%s'", name, qn_error_message(), part);
}

// Damaged files, files of other models: a sentence each, and the memory stays what it was.
static void test_refusals(void **state)
{
    (void)state;
    char *data;
    size_t size;
    qn_runner *r = open_runner(1, LENGTH, 16);
    read_text(r, 0);
    assert_ok(qn_runner_memory_save(r, 0, scratch("good.mem"), false));
    assert_ok(qn_runner_reset(r, 0));
    assert_ok(qn_runner_memory_load(r, 0, scratch("good.mem")));
    const float before = last_chance(r, 0);
    assert_ok(qn_runner_reset(r, 0));

    scratch_read("good.mem", &data, &size);
    scratch_write("cut.mem", data, size - 8);
    expect_refusal(r, "cut.mem", "");
    const float infinite = INFINITY;
    memcpy(data + size - 4, &infinite, 4);
    scratch_write("inf.mem", data, size);
    expect_refusal(r, "inf.mem", "finite");
    char *print = strstr(data + 8, "fingerprint");
    assert_non_null(print);
    print[15] = print[15] == 'f' ? 'e' : 'f';
    scratch_write("other.mem", data, size);
    expect_refusal(r, "other.mem", "another model");
    qn_free(data);
    scratch_write("empty.mem", "", 0);
    expect_refusal(r, "empty.mem", "");
    expect_refusal(r, "missing.mem", "");
    assert_ok(qn_model_save(bare, scratch("")));
    expect_refusal(r, "model.safetensors", "not a memory file");

    assert_true(last_chance(r, 0) == before);
    qn_runner_destroy(&r);
    qn_runner_opts o = { .slots = 1, .context = 20 };
    assert_ok(qn_runner_create(qn_test_device(), &plain, bare, &o, &r));
    assert_false(qn_runner_remembers(r));
    expect_refusal(r, "good.mem", "no memory");
    qn_runner_destroy(&r);
}

// Behind a token that forgets, outputs are those of a text that begins there.
static void test_forget(void **state)
{
    (void)state;
    enum { N = 50, AT = 21, WIDE = 8 };
    const qn_memory_shape shape = { .heads = 2, .keys = 4, .values = 4, .taps = 1, .fade = 0.5f,
                                    .threshold = 0.2f, .full = true };
    const qn_shape shapes[] = { QN_SHAPE(WIDE), QN_SHAPE(24, WIDE), QN_SHAPE(8, WIDE),
                                QN_SHAPE(6, WIDE), QN_SHAPE(6), QN_SHAPE(2), QN_SHAPE(2),
                                QN_SHAPE(WIDE, 8), QN_SHAPE(WIDE) };
    float x[N * WIDE], ends[N] = { 0 }, *got[2] = { 0 };
    qn_random rng = qn_random_start(3, 0);
    for (int i = 0; i < N * WIDE; i++) x[i] = (float)qn_random_normal(&rng);
    ends[AT] = 1;
    for (int part = 0; part < 2; part++) {
        const int first = part ? AT : 0, n = N - first;
        qn_graph *g;
        qn_plan *plan;
        const qn_tensor *w[9];
        assert_ok(qn_graph_create(qn_test_device(), &g));
        qn_random values = qn_random_start(4, 0);
        for (int i = 0; i < 9; i++) {
            float data[24 * WIDE];
            for (int64_t k = 0; k < qn_shape_count(shapes[i]); k++)
                data[k] = (float)qn_random_normal(&values);
            w[i] = qn_constant(g, "w", QN_F32, shapes[i], data);
        }
        const qn_memory_weights weight = { .norm = w[0], .w_qkv = w[1], .w_gate = w[2],
                                           .w_abr = w[3], .b_abr = w[4], .c_log = w[5],
                                           .eta = w[6], .w_o = w[7], .z = w[8] };
        const qn_tensor *in = qn_constant(g, "x", QN_F32, QN_SHAPE(n, WIDE), x + first * WIDE);
        const qn_memory_state start = {
            .forget = qn_constant(g, "ends", QN_F32, QN_SHAPE(n, 1), ends + first)
        };
        const qn_tensor *y = qn_memory_layer(g, in, 1, &shape, &weight, &start, NULL, false);
        assert_ok(qn_plan_create(g, &(qn_plan_opts){ .outputs = &y, .output_count = 1 }, &plan));
        got[part] = qn_malloc((size_t)(n * WIDE) * sizeof *got[part]);
        assert_non_null(got[part]);
        assert_ok(qn_plan_run(plan));
        assert_ok(qn_plan_get(plan, y, got[part], (uint64_t)(n * WIDE) * sizeof *got[part]));
        qn_plan_destroy(&plan);
        qn_graph_destroy(&g);
    }
    for (int i = 0; i < (N - AT) * WIDE; i++)
        assert_true(fabsf(got[0][AT * WIDE + i] - got[1][i]) <= 1e-5f * (1 + fabsf(got[1][i])));
    qn_free(got[0]);
    qn_free(got[1]);
}

// Steps of one stretch hand the memory on, the first of the next stretch starts with nothing.
static void test_segments(void **state)
{
    (void)state;
    enum { B = 2, T = 16 };
    const qn_trainer_opts o = { .batch = B, .positions = T, .segments = 2, .beta1 = 0.9,
                                .beta2 = 0.95, .epsilon = 1e-8, .forget = true };
    qn_trainer *t;
    qn_step_report report[3];
    int32_t ids[B * T], labels[B * T];
    for (int i = 0; i < B * T; i++) {
        ids[i] = 1 + (i * 7) % 200;
        labels[i] = 1 + (i * 7 + 7) % 200;
    }
    assert_ok(qn_trainer_create(qn_test_device(), &config, &o, &t));
    assert_ok(qn_model_initialise(&config, qn_trainer_weights(t), 6, false));
    fill(qn_trainer_weights(t), "transformer.h.0.memory.z", 0.5f);
    for (int i = 0; i < 3; i++) assert_ok(qn_trainer_step(t, i + 1, 0, ids, labels, &report[i]));
    assert_true(report[0].ce != report[1].ce);
    assert_true(report[0].ce == report[2].ce);
    assert_true(report[0].grad_norm == report[2].grad_norm);
    qn_trainer_destroy(&t);
    qn_trainer_opts wrong = o;
    wrong.accumulate = 2;
    assert_fails(qn_trainer_create(qn_test_device(), &config, &wrong, &t), QN_ERR_INVALID,
                 "one run per step");
}

// One call over a long text, walked or by chunks, and calls over pieces of it of any length that
// hand the state on.
typedef struct long_text {
    float q[4096 * 16], k[4096 * 16], v[4096 * 16], la[4096], beta[4096];
    float o[4096 * 16], m[256];
} long_text;

static void run_piece(qn_device *dev, long_text *x, int first, int count, float *m, float *o)
{
    qn_graph *g;
    qn_plan *plan;
    const qn_tensor *out[2];
    assert_ok(qn_graph_create(dev, &g));
    const qn_shape wide = QN_SHAPE(count, 16), one = QN_SHAPE(count, 1);
    const qn_synapse_opts opts = {
        .batch = 1, .heads = 1, .end = &out[1],
        .start = qn_constant(g, "m", QN_F32, QN_SHAPE(1, 1, 16, 16), m),
        .no_gradient = count % 2, // both ways of keeping what a gradient needs
    };
    out[0] = qn_synapse(g, qn_constant(g, "q", QN_F32, wide, x->q + first * 16),
                        qn_constant(g, "k", QN_F32, wide, x->k + first * 16),
                        qn_constant(g, "v", QN_F32, wide, x->v + first * 16),
                        qn_constant(g, "la", QN_F32, one, x->la + first),
                        qn_constant(g, "beta", QN_F32, one, x->beta + first), &opts);
    assert_ok(qn_plan_create(g, &(qn_plan_opts){ .outputs = out, .output_count = 2 }, &plan));
    assert_ok(qn_plan_run(plan));
    assert_ok(qn_plan_get(plan, out[0], o + first * 16, (uint64_t)count * 64));
    assert_ok(qn_plan_get(plan, out[1], m, 1024));
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
}

static void test_splits(void **state)
{
    (void)state;
    static long_text x;
    static float o[4096 * 16];
    qn_random rng = qn_random_start(8, 0);
    for (int t = 0; t < 4096; t++) {
        for (int i = 0; i < 16; i++) {
            x.q[t * 16 + i] = (float)(0.2 * qn_random_normal(&rng));
            x.k[t * 16 + i] = (float)(0.2 * qn_random_normal(&rng));
            x.v[t * 16 + i] = (float)qn_random_normal(&rng);
        }
        x.la[t] = (float)(-0.02 * qn_random_unit(&rng));
        x.beta[t] = (float)qn_random_unit(&rng);
    }
    run_piece(qn_test_device(), &x, 0, 4096, x.m, x.o);
    static const int ways[][8] = {
        { 4096 }, { 1, 4095 }, { 31, 33, 32, 1, 2, 997, 3000 }, { 2048, 2047, 1 },
    };
    qn_device *devices[] = { qn_test_device(), qn_test_device_hiding(QN_CAP_TEXEL) };
    for (int d = 0; d < 2; d++)
        for (int w = 0; w < 4; w++) {
            float m[256] = { 0 };
            for (int i = 0, at = 0; at < 4096; at += ways[w][i++])
                run_piece(devices[d], &x, at, ways[w][i], m, o);
            double worst = 0, most = 0;
            for (int i = 0; i < 4096 * 16; i++) {
                worst = fmax(worst, fabs((double)o[i] - (double)x.o[i]));
                most = fmax(most, fabs((double)x.o[i]));
            }
            if (!(worst <= 1e-5 * most)) fail_msg("device %d way %d: %g of %g", d, w, worst, most);
            for (int i = 0; i < 256; i++)
                assert_true(fabs((double)m[i] - (double)x.m[i]) <= 1e-5 * most);
        }
    qn_device_destroy(&devices[1]);
}

static int program(const char *args)
{
    char line[2048];
    // The validation layer leaks at exit, which sanitized programs tell by their status.
    snprintf(line, sizeof line, "QUOIN_VALIDATE=0 \"%s\" %s >\"%s\" 2>\"%s\"", QN_PROGRAM, args, scratch("stdout"),
             scratch("stderr"));
    const int status = system(line);
    return status < 0 ? -1 : status >> 8;
}

static void expect_said(const char *part)
{
    char *text;
    size_t size;
    scratch_read("stderr", &text, &size);
    if (!strstr(text, part)) fail_msg("'%s' lacks '%s'", text, part);
    qn_free(text);
}

static float text_chance(const char *dir)
{
    qn_folder f;
    qn_runner *r;
    qn_token_score score[20];
    int32_t ids[20];
    for (int i = 0; i < 20; i++) ids[i] = 40 + i * 7 % 60;
    qn_runner_opts o = { .context = 24 };
    assert_ok(qn_folder_open(qn_test_device(), dir, QN_F32, &f));
    assert_ok(qn_runner_create(qn_test_device(), &f.config, f.weights, &o, &r));
    assert_ok(qn_runner_score(r, 0, ids, 20, score));
    qn_runner_destroy(&r);
    qn_folder_close(&f);
    float sum = 0;
    for (int i = 1; i < 20; i++) sum += score[i].logprob;
    return sum;
}

// The programs: a memory added changes no bit, files come and go, wrong calls are told.
static void test_programs(void **state)
{
    (void)state;
    char args[1024];
#define CALL(...) (snprintf(args, sizeof args, __VA_ARGS__), program(args))
    const char *a = QN_SCRATCH_DIR "/trained", *b = QN_SCRATCH_DIR "/added";
    tiny_train(a, 3);
    assert_int_equal(CALL("bricks add-memory %s %s --kind full --layers all", a, b), 0);
    assert_true(text_chance(a) == text_chance(b));
    assert_int_equal(CALL("bricks add-memory %s %s/again", b, b), 1);
    expect_said("layer 0 has a memory already");
    assert_int_equal(CALL("bricks add-memory %s %s/again --layers 3", a, b), 1);
    expect_said("there are layers 0 to 0");
    assert_int_equal(CALL("bricks add-memory %s %s/again --layers 0-", a, b), 1);
    expect_said("expected all, N or N-M");
    assert_int_equal(CALL("bricks add-memory %s %s/again --keys 129", a, b), 2);
    const char *file = QN_SCRATCH_DIR "/talk.mem";
    assert_int_equal(CALL("generate %s -p the -n 4 --memory %s", b, file), 0);
    assert_true(qn_file_exists(file));
    assert_int_equal(CALL("generate %s -p the -n 4 --memory %s", b, file), 0);
    assert_int_equal(CALL("generate %s -p the -n 4 --memory %s", a, file), 1);
    expect_said("the model has no memory");
#undef CALL
}

// Wrong words and numbers in config.json.
static void test_config(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } wrong[] = {
        { "\"memory_layers\": \"delta\"", "expected a list" },
        { "\"memory_layers\": [\"delta\", \"delta\"]", "found 2 entries, expected one for each" },
        { "\"memory_layers\": [\"dleta\"]", "expected one of \"off\", \"delta\", \"full\"" },
        { "\"memory_layers\": [1]", "memory_layers" },
        { "\"memory_keys\": 129", "memory_keys" },
        { "\"memory_values\": 0", "memory_values" },
        { "\"memory_threshold\": 0", "memory_threshold" },
        { "\"attention_window\": -1", "attention_window" },
        { "\"memory_layer\": [\"delta\"]", "unknown key" },
    };
    char text[1024];
    const size_t head = strlen(TINY_CONFIG) - 1;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        qn_model_config c;
        snprintf(text, sizeof text, "%.*s, %s}", (int)head, TINY_CONFIG, wrong[i].text);
        scratch_write_text("wrong.json", text);
        assert_true(qn_model_config_read(scratch("wrong.json"), &c) != QN_OK);
        if (!strstr(qn_error_message(), wrong[i].part))
            fail_msg("'%s' lacks '%s'", qn_error_message(), wrong[i].part);
    }
    qn_model_config back;
    assert_ok(qn_model_config_write(&config, scratch("full.json")));
    assert_ok(qn_model_config_read(scratch("full.json"), &back));
    assert_memory_equal(&back, &config, sizeof back);
    char *a;
    assert_ok(qn_model_config_text(&plain, &a));
    assert_null(strstr(a, "memory")); // published files stay what they are
    qn_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_files),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_forget),   cmocka_unit_test(test_segments),
        cmocka_unit_test(test_splits),   cmocka_unit_test(test_programs),
        cmocka_unit_test(test_config),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, make_models, free_models) + qn_device_finish();
}
