// Looking into models: attributions against finite differences, masks against each other, counts
// that add up.
#include "bricks/analyse.h"
#include "tiny_lm.h"

#include <math.h>

static qn_folder folder;
static const char kinds_a[] = "the cat sat on the mat\nand the dog sat by the door\nthe dog\n";
static const char kinds_b[] = "{\"prompt\": \"xq zz\", \"response\": \" qq zx\"}\n"
                              "{\"prompt\": \"zxzx qz\", \"response\": \"\"}\n\n";

static int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    tiny_write_inputs();
    qn_corpus c;
    qn_train_result r;
    char config[512], out[512];
    tiny_corpus(&c);
    snprintf(config, sizeof config, "%s", scratch("config.json"));
    snprintf(out, sizeof out, "%s", scratch("model"));
    qn_train_opts o = tiny_opts(config, out, 30);
    assert_ok(qn_train(qn_test_device(), &c, &o, NULL, &r));
    qn_corpus_free(&c);
    assert_ok(qn_folder_open(qn_test_device(), out, QN_F32, &folder));
    assert_ok(qn_make_dirs(scratch("kinds")));
    scratch_write_text("kinds/plain.txt", kinds_a);
    scratch_write_text("kinds/odd.jsonl", kinds_b);
    scratch_write_text("kinds/readme.md", "not a kind");
    return 0;
}

static int teardown(void **state)
{
    qn_folder_close(&folder);
    return scratch_remove(state);
}

enum { B = 2, T = 12, N = B * T };

static double loss_of(qn_probe *p, const int32_t *ids, const int32_t *labels)
{
    float rows[N];
    double sum = 0;
    assert_ok(qn_probe_run(p, ids, labels));
    assert_ok(qn_probe_losses(p, rows));
    for (int i = 0; i < N; i++) sum += (double)rows[i];
    return sum / N;
}

// d(mean loss)/d(factor of a neuron) is the sum of a dL/da over its slots.
static void test_attribution(void **state)
{
    (void)state;
    const qn_model_config *c = &folder.config;
    const size_t K = (size_t)c->k_mlp, F = (size_t)c->ffd_hidden, E = (size_t)c->n_mlp_experts;
    qn_tokens t;
    assert_ok(qn_probe_text(&folder, scratch("cat.txt"), N + 1, &t));
    float *h = malloc(N * K * F * sizeof *h), *dh = malloc(N * K * F * sizeof *dh);
    float *table = malloc(E * F * sizeof *table);
    int32_t experts[N * 4];
    assert_true(K <= 4);
    qn_probe *p, *masked;
    assert_ok(qn_probe_create(qn_test_device(), &folder, B, T, QN_PROBE_NEURONS | QN_PROBE_GRADIENT,
                              &p));
    assert_ok(qn_probe_create(qn_test_device(), &folder, B, T, QN_PROBE_TABLE, &masked));
    const double base = loss_of(p, t.id, t.id + 1);
    assert_true(fabs(base - loss_of(masked, t.id, t.id + 1)) < 1e-6);
    assert_ok(qn_probe_neurons(p, 0, h));
    assert_ok(qn_probe_gradient(p, 0, dh));
    assert_ok(qn_probe_experts(p, 0, 1, experts));
    int compared = 0;
    for (size_t n = 0; n < E * F; n += 7) {
        double sum = 0;
        for (size_t s = 0; s < N * K; s++)
            if ((size_t)experts[s] == n / F)
                sum += (double)h[s * F + n % F] * (double)dh[s * F + n % F];
        const double step = 0.05; // truncation below a hundredth, rounding below 5e-6
        double side[2];
        for (int k = 0; k < 2; k++) {
            for (size_t i = 0; i < E * F; i++) table[i] = 1;
            table[n] = (float)(1 + (k ? step : -step));
            assert_ok(qn_probe_set_table(masked, 0, table));
            side[k] = loss_of(masked, t.id, t.id + 1);
        }
        const double slope = (side[1] - side[0]) / (2 * step);
        if (!(fabs(slope - sum) <= 5e-6 + 0.01 * fabs(sum)))
            fail_msg("neuron %d: %g by attribution, %g by differences", (int)n, sum, slope);
        compared += fabs(sum) > 1e-5;
    }
    assert_true(compared > 3);
    qn_probe_destroy(&p);
    qn_probe_destroy(&masked);
    qn_tokens_free(&t);
    free(h);
    free(dh);
    free(table);
}

// The mean over the tokens that chose an expert is part of the mean over all; with one expert for
// all tokens (K = E) they are the same. Counts add up.
static void test_usage(void **state)
{
    (void)state;
    qn_tokens t;
    qn_usage u;
    assert_ok(qn_probe_text(&folder, scratch("cat.txt"), 600, &t));
    assert_ok(qn_usage_measure(qn_test_device(), &folder, t.id, t.count, true, &u));
    for (int kind = 0; kind < 2; kind++) {
        double slots = 0, share = 0;
        for (int64_t e = 0; e < u.experts[kind]; e++) {
            slots += u.slots[kind][e];
            share += qn_usage_share(&u, kind, 0, e);
            assert_true(u.gates[kind][e] <= u.slots[kind][e]);
        }
        assert_true(slots == u.tokens * (double)(kind ? folder.config.k_mlp : folder.config.k_att));
        assert_true(fabs(share - 1) < 1e-12);
    }
    assert_true(u.predicted == u.tokens && u.nll > 0);

    // Every expert's sums on one batch against the activations of the tokens that chose it.
    const size_t F = (size_t)u.width[1], E = (size_t)u.experts[1], K = (size_t)folder.config.k_mlp;
    qn_probe *p;
    float sums[4 * 24], h[N * 2 * 24], all[4 * 24] = { 0 };
    int32_t experts[N * 2], ids[N], labels[N];
    assert_true(E == 4 && F == 24 && K == 2);
    assert_ok(qn_probe_create(qn_test_device(), &folder, B, T, QN_PROBE_EVERY | QN_PROBE_NEURONS,
                              &p));
    for (int i = 0; i < N; i++) { // rows of one token: all positions 0 of all rows are alike
        ids[i] = t.id[3];
        labels[i] = QN_IGNORE;
    }
    assert_ok(qn_probe_run(p, ids, labels));
    assert_ok(qn_probe_every(p, 0, 1, sums));
    assert_ok(qn_probe_neurons(p, 0, h));
    assert_ok(qn_probe_experts(p, 0, 1, experts));
    int counts[4] = { 0 };
    for (size_t s = 0; s < N * K; s++) {
        counts[experts[s]]++;
        for (size_t i = 0; i < F; i++) all[(size_t)experts[s] * F + i] += h[s * F + i];
    }
    int compared = 0;
    for (size_t e = 0; e < E; e++) // an expert that every token chose has seen them all
        for (size_t i = 0; counts[e] == N && i < F; i++, compared++)
            assert_true(fabsf(all[e * F + i] - sums[e * F + i]) <= 1e-4f);
    assert_true(compared > 0);
    qn_probe_destroy(&p);
    qn_usage_free(&u);
    qn_tokens_free(&t);
}

static void test_analysis(void **state)
{
    (void)state;
    qn_instances in;
    qn_analysis a;
    assert_ok(qn_instances_open(scratch("kinds"), folder.tokenizer, 16, 0, &in));
    assert_int_equal(in.function_count, 2);
    assert_string_equal(in.functions[0], "odd");
    assert_int_equal(in.count, 5);
    assert_true(in.items[0].prompt < in.items[0].count);
    assert_int_equal(in.items[1].prompt, in.items[1].count);
    assert_ok(qn_analysis_run(qn_test_device(), &folder, &in, 16, true, &a));
    for (size_t k = 0; k < 2; k++) {
        assert_true(a.layer[0].cdf[k][QN_CDF_POINTS - 1] == 1);
        for (int i = 1; i < QN_CDF_POINTS; i++)
            assert_true(a.layer[0].cdf[k][i] >= a.layer[0].cdf[k][i - 1]);
        assert_true(a.layer[0].below[k] <= a.layer[0].cdf[k][20] + 1e-12);
    }
    uint8_t *zeroed = calloc(a.layers, a.neurons), *all = malloc(a.layers * a.neurons);
    memset(all, 1, a.layers * a.neurons);
    double base[2], same[2], none[2], other[2];
    assert_ok(qn_analysis_loss(&a, NULL, base));
    assert_ok(qn_analysis_loss(&a, zeroed, same));
    assert_ok(qn_analysis_loss(&a, all, none));
    for (int f = 0; f < 2; f++) assert_true(fabs(base[f] - same[f]) < 1e-6);
    for (int ran = 0; ran < 2; ran++) {
        assert_ok(qn_analysis_masked(&a, ran, 0, ran, other));
        for (int f = 0; f < 2; f++) assert_true(fabs(base[f] - other[f]) < 1e-6);
        // All masked, by another path.
        assert_ok(qn_analysis_masked(&a, ran, 100, ran, other));
        for (int f = 0; f < 2; f++) assert_true(fabs(none[f] - other[f]) < 1e-6);
        // Half of all neurons did not even run: masking them changes nothing.
        assert_ok(qn_analysis_masked(&a, false, 50, ran, other));
        assert_true((fabs(base[0] - other[0]) < 1e-6) == !ran);
    }
    assert_true(fabs(base[0] - none[0]) > 1e-4);
    const qn_top_opts opts = { .share = 0.1 };
    assert_ok(qn_analysis_top(&a, 1, &opts, zeroed));
    size_t count = 0;
    float least = 2, most = -1;
    for (size_t n = 0; n < a.neurons; n++) {
        const float score = a.layer[0].score[a.neurons + n];
        count += zeroed[n];
        if (zeroed[n] && score < least) least = score;
        if (!zeroed[n] && score > most) most = score;
    }
    assert_int_equal(count, (size_t)(0.1 * (double)a.neurons));
    assert_true(least >= most);
    free(zeroed);
    free(all);
    qn_analysis_free(&a);
    qn_instances_close(&in);
}

static void test_broken_instances(void **state)
{
    (void)state;
    qn_instances in;
    const qn_tokenizer *t = folder.tokenizer;
    assert_fails(qn_instances_open(scratch("none"), t, 16, 0, &in), QN_ERR_IO, "none");
    assert_ok(qn_make_dirs(scratch("bad")));
    assert_fails(qn_instances_open(scratch("bad"), t, 16, 0, &in), QN_ERR_INVALID, "NAME.jsonl");
    scratch_write_text("bad/a.txt", "\n\n");
    assert_fails(qn_instances_open(scratch("bad"), t, 16, 0, &in), QN_ERR_INVALID, "holds no example");
    remove(scratch("bad/a.txt"));
    scratch_write_text("bad/b.jsonl", "{\"prompt\": \"good one\"}\n{\"prompt\": 3}\n");
    assert_fails(qn_instances_open(scratch("bad"), t, 16, 0, &in), QN_ERR_FORMAT, "line 2");
    assert_ok(qn_instances_open(scratch("bad"), t, 16, 1, &in)); // one is enough
    qn_instances_close(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attribution),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_analysis),
        cmocka_unit_test(test_broken_instances),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}
