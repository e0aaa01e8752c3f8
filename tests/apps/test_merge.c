// Properties of merging with random models, interruption, and bad input.
#include "bricks/extract.h"
#include "bricks/factor.h"
#include "bricks/moe.h"
#include "tiny_models.h"

#include <math.h>

static const tiny_model base = { "base", 3, 30, 1, 0, QN_ST_F32, false };
static const tiny_model a = { "a", 3, 30, 2, 0.02, QN_ST_F32, false };
static const tiny_model b = { "b", 3, 30, 3, 0.03, QN_ST_F32, false };
static const tiny_model c = { "c", 3, 30, 4, 0.01, QN_ST_F32, false };

static int make_models(void **state)
{
    if (scratch_make(state) != 0) return -1;
    tiny_write(&base);
    tiny_write(&a);
    tiny_write(&b);
    tiny_write(&c);
    return 0;
}

static const char *read_out(const char *dir, size_t *size)
{
    static char *data[2];
    static int next;
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    next = !next;
    qn_free(data[next]);
    assert_ok(qn_read_file(scratch(path), 1 << 24, &data[next], size));
    return data[next];
}

// The largest difference between the tensors of two folders.
static double difference(const char *x, const char *y)
{
    char path[2][512];
    qn_safetensors *s[2] = { NULL };
    double most = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", QN_SCRATCH_DIR, i ? y : x);
        assert_ok(qn_safetensors_open(path[i], &s[i]));
    }
    assert_int_equal(qn_safetensors_count(s[0]), qn_safetensors_count(s[1]));
    for (size_t i = 0; i < qn_safetensors_count(s[0]); i++) {
        const qn_safetensor *p = qn_safetensors_at(s[0], i), *q = qn_safetensors_at(s[1], i);
        static float u[4096], v[4096];
        assert_string_equal(p->name, q->name);
        assert_int_equal(p->count, q->count);
        assert_true(p->count <= 4096);
        assert_ok(qn_safetensor_f32(p, 0, p->count, u));
        assert_ok(qn_safetensor_f32(q, 0, q->count, v));
        for (uint64_t k = 0; k < p->count; k++)
            most = fmax(most, fabs((double)u[k] - (double)v[k]));
    }
    for (int i = 0; i < 2; i++) qn_safetensors_close(&s[i]);
    return most;
}

static void merge(const char *recipe)
{
    qn_merge_stats stats;
    assert_ok(tiny_merge(recipe, &(qn_merge_opts){ 0 }, &stats));
}

#define WEIGHTS "weight: 0.5, density: 0.6, epsilon: 0.1, gamma: 0.05"

// Every method with every input the same model gives that model, to the bit.
static void test_identity(void **state)
{
    (void)state;
    for (size_t i = 0; i < qn_method_count; i++) {
        const qn_method *m = &qn_methods[i];
        char recipe[1024];
        bool one = m->models_max == 1;
        snprintf(recipe, sizeof recipe,
                 "merge_method: %s\n%smodels:\n- {model: base, parameters: {" WEIGHTS "}}\n%s"
                 "parameters: {t: 0.3, max_iter: 5}\n",
                 m->name, m->base == QN_BASE_REQUIRED ? "base_model: third\n" : "",
                 one ? "" : "- {model: twin, parameters: {" WEIGHTS "}}\n");
        assert_ok(qn_remove_tree(scratch("twin")));
        tiny_model twin = base, third = base;
        twin.name = "twin";
        third.name = "third";
        tiny_write(&twin);
        tiny_write(&third);
        merge(recipe);
        double d = difference("out", "base");
        if (d != 0) fail_msg("%s: %g", m->name, d);
    }
}

static void expect_same(const char *first, const char *second, double most)
{
    qn_merge_stats stats;
    assert_ok(tiny_merge(first, &(qn_merge_opts){ .out = scratch("first") }, &stats));
    assert_ok(tiny_merge(second, &(qn_merge_opts){ .out = scratch("second") }, &stats));
    double d = difference("first", "second");
    if (d > most) fail_msg("%s\nand\n%s\ndiffer by %g", first, second, d);
}

static void test_order(void **state)
{
    (void)state;
    static const char *const methods[] = { "linear", "ties", "sce", "model_stock", "karcher" };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char first[512], second[512];
        const char *head = strcmp(methods[i], "linear") && strcmp(methods[i], "karcher")
                               ? "base_model: base\n"
                               : "";
        static const char *const model[] = {
            "- {model: a, parameters: {weight: 0.5, density: 0.6}}\n",
            "- {model: b, parameters: {weight: 0.3, density: 0.7}}\n",
            "- {model: c, parameters: {weight: 0.4, density: 0.5}}\n"
        };
        snprintf(first, sizeof first, "merge_method: %s\n%smodels:\n%s%s%s", methods[i], head,
                 model[0], model[1], model[2]);
        snprintf(second, sizeof second, "merge_method: %s\n%smodels:\n%s%s%s", methods[i], head,
                 model[2], model[0], model[1]);
        expect_same(first, second, 2e-7);
    }
}

static void test_ends(void **state)
{
    (void)state;
    merge("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, "
          "{model: b, parameters: {weight: 0}}]");
    assert_true(difference("out", "a") == 0);
    merge(
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0}");
    assert_true(difference("out", "a") < 1e-8);
    merge(
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 1}");
    assert_true(difference("out", "b") < 1e-8);
    merge("merge_method: dare_ties\nbase_model: base\nmodels: [{model: a, parameters: {" WEIGHTS
          "}}]\nparameters: {lambda: 0}");
    assert_true(difference("out", "base") == 0);
}

// More models than one dispatch binds: nine with a ninth of the weight each are one.
static void test_many_models(void **state)
{
    (void)state;
    char ties[2048], one[] = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a, "
                             "parameters: {weight: 0.9}}]";
    for (int kind = 0; kind < 3; kind++) {
        static const char *const heads[] = { "merge_method: task_arithmetic\nbase_model: base\n",
                                             "merge_method: dare_ties\nbase_model: base\n",
                                             "merge_method: linear\n" };
        size_t n = (size_t)snprintf(ties, sizeof ties,
                                    "%sparameters: {normalize: false}\nmodels:\n", heads[kind]);
        for (int i = 0; i < 9; i++)
            n += (size_t)snprintf(ties + n, sizeof ties - n,
                                  "- {model: %s/a, parameters: {weight: %s}}\n", QN_SCRATCH_DIR,
                                  kind == 2 && i == 0 ? "0.2" : "0.1");
        if (kind < 2) {
            expect_same(ties, one, 2e-7);
        } else {
            merge(ties);
            assert_true(difference("out", "a") < 2e-7);
        }
    }
}

// Bytes do not depend on windows; shards hold the same tensors.
static void test_same_bytes(void **state)
{
    (void)state;
    static const char *const methods[] = { "ties", "della", "dare_linear", "breadcrumbs", "sce" };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char recipe[512];
        qn_merge_stats stats;
        size_t n[2];
        snprintf(recipe, sizeof recipe,
                 "merge_method: %s\nbase_model: base\nmodels:\n- {model: a, parameters: {" WEIGHTS
                 "}}\n- {model: b, parameters: {" WEIGHTS "}}\nparameters: {select_topk: 0.4}\n",
                 methods[i]);
        assert_ok(tiny_merge(recipe, &(qn_merge_opts){ .out = scratch("first") }, &stats));
        assert_ok(
            tiny_merge(recipe, &(qn_merge_opts){ .out = scratch("second"), .window = 1 }, &stats));
        assert_ok(tiny_merge(
            recipe, &(qn_merge_opts){ .out = scratch("sharded"), .shard_size = 9000 }, &stats));
        const char *x = read_out("first", &n[0]), *y = read_out("second", &n[1]);
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(x, y, n[0]);
        assert_true(difference("first", "sharded") == 0);
        assert_true(qn_file_exists(scratch("sharded/model.safetensors.index.json")));
    }
}

// ---------------------------------------------------------------------------------- interruption

static int left;

static bool stop_soon(void)
{
    return --left <= 0;
}

static void test_resume(void **state)
{
    (void)state;
    static const char recipe[] =
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 0.6}}, {model: b, "
        "parameters: {weight: 0.4}}]\n";
    qn_merge_stats stats;
    qn_merge_opts o = { .shard_size = 8000, .out = scratch("whole") };
    assert_ok(tiny_merge(recipe, &o, &stats));
    o.out = scratch("parts");
    o.stop = stop_soon;
    left = 7;
    assert_int_equal(tiny_merge(recipe, &o, &stats), QN_ERR_CANCELLED);
    assert_false(qn_file_exists(scratch("parts/config.json")));
    scratch_write_text("parts/model-00003-of-00005.safetensors.1-1.tmp", "left by a kill");
    o.stop = NULL;
    assert_ok(tiny_merge(recipe, &o, &stats));
    assert_true(stats.kept > 0 && stats.tensors > 0);
    assert_int_equal(stats.kept + stats.tensors, 18);
    assert_true(difference("whole", "parts") == 0);
    assert_false(qn_file_exists(scratch("parts/quoin_merge.partial.json")));
    assert_false(qn_file_exists(scratch("parts/model-00003-of-00005.safetensors.1-1.tmp")));

    // Another seed is another merge: nothing is kept.
    left = 7;
    o.stop = stop_soon;
    assert_int_equal(tiny_merge(recipe, &o, &stats), QN_ERR_CANCELLED);
    o.stop = NULL;
    o.plan.seed = 5;
    assert_ok(tiny_merge(recipe, &o, &stats));
    assert_int_equal(stats.kept, 0);
}

// ---------------------------------------------------------------------------------- bad input

#define HEAD "merge_method: linear\n"
#define TWO "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"

static void test_bad_recipes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        { "", "holds no document" },
        { "merge_method: [", "line" },
        { "merge_metod: linear\n" TWO,
          "line 1, column 1: the key merge_method is missing; was merge_metod" },
        { "merge_method: liner\n" TWO, "did you mean 'linear'?" },
        { HEAD, "models is missing" },
        { HEAD "model: []\n", "the key models is missing; was model meant" },
        { HEAD "models: []\n", "line 2" },
        { HEAD "models: [{parameters: {weight: 1}}]\n", "the key model is missing" },
        { HEAD "models: [{model: a}, {model: b}]\n", "needs the parameter weight of model a" },
        { HEAD "models: [{model: a, parameters: {weight: x}}]\n", "\"x\", expected a number" },
        { HEAD "models: [{model: a, parameters: {weight: [1, {value: 2}]}}]\n",
          "numbers and filters" },
        { HEAD
          "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]\n",
          "add up to 0" },
        { HEAD "models: [{model: nowhere, parameters: {weight: 1}}]\n", "nowhere: no such folder" },
        { HEAD TWO "dtype: float8\n", "dtype \"float8\", expected" },
        { HEAD TWO "slices: []\n", "both models and slices" },
        { HEAD "slices:\n- sources: [{model: a, layer_range: [0, 9], parameters: {weight: 1}}]\n",
          "has 3 layers" },
        { HEAD "slices:\n- sources: [{model: a, layer_range: [2, 1]}]\n", "layer_range: expected" },
        { "merge_method: ties\n" TWO, "base_model is missing" },
        { "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\n",
          "needs the parameter t" },
        { "merge_method: slerp\nbase_model: a\n" TWO "parameters: {t: .inf}\n", "t is inf" },
        { "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}, {model: c}]\n"
          "parameters: {t: 0.5}\n",
          "slerp takes 1 model besides the base, found 2" },
        { "merge_method: della\nbase_model: base\nmodels: [{model: a, parameters: {weight: 1, "
          "density: 0.9, epsilon: 0.2}}]\n",
          "density + epsilon below 1" },
        { "merge_method: ties\nbase_model: base\nmodels: [{model: a, parameters: {weight: 1, "
          "density: -1}}]\n",
          "density of model a is -1" },
        { "merge_method: passthrough\n" TWO, "passthrough takes 1 model, found 2" },
        { "x: &a [*a]\n", "" },
        { HEAD TWO "---\n" HEAD TWO, "without a name" },
        { HEAD TWO "tokenizer: {source: union}\n", "its tokens are not known" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_merge_stats stats;
        assert_ok(qn_remove_tree(scratch("out")));
        qn_result r = tiny_merge(cases[i].text, &(qn_merge_opts){ 0 }, &stats);
        if (r == QN_OK || !strstr(qn_error_message(), cases[i].part))
            fail_msg("%s\n%s: %s", cases[i].text, qn_result_name(r), qn_error_message());
        assert_false(qn_file_exists(scratch("out")));
    }
}

static void test_bad_models(void **state)
{
    (void)state;
    qn_merge_stats stats;
    static const char recipe[] =
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, "
        "{model: other, parameters: {weight: 1}}]\n";
    const qn_merge_opts none = { 0 };
    tiny_model other = a;
    other.name = "other";
    other.layers = 2;
    tiny_write(&other);
    assert_fails(tiny_merge(recipe, &none, &stats), QN_ERR_FORMAT, "2 layers of other, but 3 of a");
    other.layers = 3;
    tiny_write(&other);
    scratch_write_text("other/config.json",
                       "{\"architectures\": [\"MistralForCausalLM\"], "
                       "\"model_type\": \"mistral\", \"num_hidden_layers\": 3}");
    assert_fails(tiny_merge(recipe, &none, &stats), QN_ERR_INVALID, "--allow-crimes");
    assert_ok(tiny_merge(recipe, &(qn_merge_opts){ .plan.allow_crimes = true }, &stats));
    scratch_write_text("other/model.safetensors", "\x10\0\0\0\0\0\0\0{\"x\": 1}");
    assert_fails(tiny_merge(recipe, &none, &stats), QN_ERR_FORMAT, "model other");
    remove(scratch("other/model.safetensors"));
    scratch_write_text("other/pytorch_model.bin", "PK");
    assert_fails(tiny_merge(recipe, &none, &stats), QN_ERR_UNSUPPORTED, "pickled");

    static const char own[] =
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n";
    assert_fails(tiny_merge(own, &(qn_merge_opts){ .out = scratch("a") }, &stats), QN_ERR_INVALID,
                 "is one of the merged models");
    assert_fails(tiny_merge(own, &(qn_merge_opts){ .out = scratch("b") }, &stats), QN_ERR_INVALID,
                 "--force");
    tiny_write(&b);
}

// ---------------------------------------------------------------------------------- adapters

// All of the difference as an adapter, applied while reading, gives the model back; adapters and
// whole models can be merged with each other.
static void test_extract(void **state)
{
    (void)state;
    qn_extract_stats stats;
    qn_extract_opts o = { .model = scratch("a"),
                          .base = scratch("base"),
                          .out = scratch("lora"),
                          .max_rank = 1024,
                          .embed_lora = true };
    assert_ok(qn_remove_tree(o.out));
    assert_ok(qn_extract_lora(qn_test_device(), &o, &stats));
    assert_int_equal(stats.rank, TINY_WIDTH);
    assert_int_equal(stats.factored, 3 * 4 + 2);
    merge("merge_method: passthrough\nmodels: [{model: base+lora}]\n");
    double d = difference("out", "a");
    if (d > 1e-6) fail_msg("%g", d);
    merge("merge_method: linear\nmodels: [{model: base+lora, parameters: {weight: 1}}, {model: a, "
          "parameters: {weight: 3}}]\n");
    assert_true(difference("out", "a") < 1e-6);

    assert_fails(qn_extract_lora(qn_test_device(), &o, &stats), QN_ERR_INVALID, "exists already");
    o.out = scratch("less");
    o.model = o.base;
    assert_ok(qn_remove_tree(o.out));
    assert_fails(qn_extract_lora(qn_test_device(), &o, &stats), QN_ERR_INVALID, "do not differ");
    o.model = scratch("a");
    o.include = "[";
    assert_fails(qn_extract_lora(qn_test_device(), &o, &stats), QN_ERR_INVALID,
                 "regular expression");
    o.include = "q_proj";
    o.max_rank = 3;
    assert_ok(qn_extract_lora(qn_test_device(), &o, &stats));
    assert_int_equal(stats.factored, 3);
    assert_int_equal(stats.rank, 3);
}

static double rest(const float *x, const double *u, const double *s, const double *vt, size_t n,
                   size_t rank, size_t columns)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double y = (double)x[i * n + j];
            for (size_t k = 0; k < rank; k++) y -= u[i * columns + k] * s[k] * vt[k * n + j];
            sum += y * y;
        }
    return sqrt(sum);
}

// In a random subspace the error is within 1 % of the best.
static void test_random_factors(void **state)
{
    (void)state;
    enum { N = 176, RANK = 8 };
    static float x[N * N];
    static double in[N * N], u[N * N], s[N], vt[N * N], ru[N * RANK], rs[RANK], rvt[RANK * N];
    qn_random random = qn_random_start(5, 1);
    for (size_t k = 0; k < 24; k++) { // 24 directions that fade, and noise
        float x0[N], x1[N];
        for (size_t i = 0; i < N; i++) x0[i] = (float)qn_random_normal(&random);
        for (size_t i = 0; i < N; i++) x1[i] = (float)qn_random_normal(&random);
        for (size_t i = 0; i < N * N; i++) x[i] += x0[i / N] * x1[i % N] / (float)(k + 1);
    }
    for (size_t i = 0; i < N * N; i++) x[i] += 0.1f * (float)qn_random_normal(&random);
    for (size_t i = 0; i < N * N; i++) in[i] = (double)x[i];
    size_t rank;
    assert_ok(qn_factor_svd(in, N, N, u, s, vt));
    assert_ok(qn_extract_factors(qn_test_device(), x, N, N, RANK, 0, ru, rs, rvt, &rank));
    assert_int_equal(rank, RANK);
    double best = rest(x, u, s, vt, N, RANK, N), found = rest(x, ru, rs, rvt, N, RANK, RANK);
    if (!(found <= 1.01 * best)) fail_msg("%g, the best is %g", found, best);
}

// ---------------------------------------------------------------------------------- mixtures

static qn_result mixture(const char *text, bool fused)
{
    qn_moe_stats stats;
    scratch_write_text("moe.yml", text);
    assert_ok(qn_remove_tree(scratch("moe")));
    return qn_moe_run(
        scratch("moe.yml"),
        &(qn_moe_opts){
            .out = scratch("moe"), .models = QN_SCRATCH_DIR, .fused = fused, .seed = 3 },
        &stats);
}

#define EXPERTS "experts: [{source_model: a}, {source_model: b, residual_scale: 0.5}]\n"

static void test_moe(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        { EXPERTS, "base_model is missing" },
        { "base_model: base\n" EXPERTS, "gate_mode hidden" },
        { "base_model: base\ngate_mode: cheap_embed\n" EXPERTS, "positive_prompts are missing" },
        { "base_model: base\ngate_mode: random\nexperts_per_token: 3\n" EXPERTS, "2 experts, but" },
        { "base_model: base\ngate_mode: random\nexperts: [{source_model: a}, {source_model: a}]\n",
          "all experts are the same model" },
        { "base_model: base\ngate_mode: random\narchitecture: gpt\n" EXPERTS, "expected mixtral" },
        { "base_model: nowhere\ngate_mode: random\n" EXPERTS, "nowhere: no such folder" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qn_result r = mixture(bad[i].text, false);
        if (r == QN_OK || !strstr(qn_error_message(), bad[i].part))
            fail_msg("%s\n%s: %s", bad[i].text, qn_result_name(r), qn_error_message());
        assert_false(qn_file_exists(scratch("moe")));
    }
    qn_safetensors *out, *from;
    float x[2 * 2 * TINY_HIDDEN * TINY_WIDTH], y[TINY_HIDDEN * TINY_WIDTH];
    assert_ok(mixture("base_model: base\ngate_mode: random\n" EXPERTS, false));
    assert_ok(qn_safetensors_open(scratch("moe"), &out));
    assert_ok(qn_safetensors_open(scratch("b"), &from));
    const qn_safetensor *t =
        qn_safetensors_find(out, "model.layers.1.block_sparse_moe.experts.1.w2.weight");
    assert_non_null(t);
    assert_ok(qn_safetensor_f32(t, 0, t->count, x));
    assert_ok(qn_safetensor_f32(qn_safetensors_find(from, "model.layers.1.mlp.down_proj.weight"), 0,
                                t->count, y));
    for (uint64_t i = 0; i < t->count; i++) assert_true(x[i] == 0.5f * y[i]);
    t = qn_safetensors_find(out, "model.layers.2.block_sparse_moe.gate.weight");
    assert_non_null(t);
    assert_int_equal(t->dim[0], 2);
    assert_int_equal(t->dim[1], TINY_WIDTH);
    assert_null(qn_safetensors_find(out, "model.layers.0.mlp.up_proj.weight"));
    qn_safetensors_close(&out);

    assert_ok(mixture("base_model: base\ngate_mode: uniform_random\narchitecture: qwen3\ndtype: "
                      "bfloat16\n" EXPERTS,
                      true));
    assert_ok(qn_safetensors_open(scratch("moe"), &out));
    t = qn_safetensors_find(out, "model.layers.0.mlp.experts.gate_up_proj");
    assert_non_null(t);
    assert_int_equal(t->dtype, QN_ST_BF16);
    assert_int_equal(t->dim[1], 2 * TINY_HIDDEN);
    qn_safetensors_close(&out);
    qn_safetensors_close(&from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),    cmocka_unit_test(test_order),
        cmocka_unit_test(test_ends),        cmocka_unit_test(test_many_models),
        cmocka_unit_test(test_same_bytes),  cmocka_unit_test(test_resume),
        cmocka_unit_test(test_bad_recipes), cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_extract),     cmocka_unit_test(test_random_factors),
        cmocka_unit_test(test_moe),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, make_models, scratch_remove) + qn_device_finish();
}
