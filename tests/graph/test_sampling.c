// Sampled routing: its frequencies, its determinism, and what it may never do.
#include "device.h"

#include <quoin/ops.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_EXPERTS = 64 };

typedef struct draws {
    int64_t rows, experts;
    int choices, sampled;
    float *probs, *gates;
    int32_t *chosen;
} draws;

static void free_draws(draws *d)
{
    free(d->probs);
    free(d->gates);
    free(d->chosen);
}

static void *room(int64_t count)
{
    void *p = calloc((size_t)count, 4);
    assert_non_null(p);
    return p;
}

// Routes the logits and keeps everything.
static void route(qn_device *dev, draws *d, const float *logits, int32_t seed, uint32_t stream)
{
    int64_t cells = d->rows * d->experts, slots = d->rows * d->choices;
    d->probs = room(cells);
    d->gates = room(slots);
    d->chosen = room(slots);
    qn_graph *g;
    assert_ok(qn_graph_create(dev, &g));
    const qn_tensor *z = qn_input(g, "z", QN_F32, QN_SHAPE(d->rows, d->experts));
    const qn_tensor *s = qn_input(g, "seed", QN_I32, QN_SCALAR);
    qn_route_opts opts = {
        .choices = d->choices,
        .sampled = d->sampled,
        .seed = s,
        .stream = stream,
    };
    qn_routing r = qn_route(g, z, &opts);
    const qn_tensor *out[] = { r.probs, r.gates, r.experts };
    qn_plan *p;
    assert_ok(qn_plan_create(g, &(qn_plan_opts){ .outputs = out, .output_count = 3 }, &p));
    assert_ok(qn_plan_set(p, z, logits, (uint64_t)cells * 4));
    assert_ok(qn_plan_set(p, s, &seed, sizeof seed));
    assert_ok(qn_plan_run(p));
    assert_ok(qn_plan_get(p, r.probs, d->probs, (uint64_t)cells * 4));
    assert_ok(qn_plan_get(p, r.gates, d->gates, (uint64_t)slots * 4));
    assert_ok(qn_plan_get(p, r.experts, d->chosen, (uint64_t)slots * 4));
    qn_plan_destroy(&p);
    qn_graph_destroy(&g);
}

// Every row has the same logits.
static float *same_rows(int64_t rows, int64_t experts, const float *row)
{
    float *z = room(rows * experts);
    for (int64_t n = 0; n < rows; n++) memcpy(z + n * experts, row, (size_t)experts * sizeof *row);
    return z;
}

static void assert_choices_are_distinct(const draws *d)
{
    for (int64_t n = 0; n < d->rows; n++) {
        bool seen[MOST_EXPERTS] = { false };
        for (int k = 0; k < d->choices; k++) {
            int32_t e = d->chosen[n * d->choices + k];
            assert_in_range((unsigned)e, 0, (unsigned)d->experts - 1);
            assert_false(seen[e]);
            seen[e] = true;
        }
    }
}

// A count of N draws with probability p is within five standard deviations of N p, give or take
// one, unless the generator is wrong: for a right one that fails once in 10^6 counts. The seeds are
// fixed, so a test that passes goes on passing.
static void assert_frequency(int64_t count, int64_t n, double p)
{
    double expected = (double)n * p, deviation = sqrt((double)n * p * (1 - p));
    if (fabs((double)count - expected) > 5 * deviation + 1)
        fail_msg("%lld of %lld, expected %.1f +- %.1f", (long long)count, (long long)n, expected,
                 deviation);
}

static const float five[5] = { 1, 0, -0.5f, 2, 0.25f };

static void weights_of(const float *z, int64_t experts, double *w)
{
    double sum = 0;
    for (int64_t e = 0; e < experts; e++) sum += exp((double)z[e]);
    for (int64_t e = 0; e < experts; e++) w[e] = exp((double)z[e]) / sum + 1e-6;
}

static void one_draw_follows_the_probabilities(qn_device *dev)
{
    draws d = { .rows = 40000, .experts = 5, .choices = 1, .sampled = 1 };
    float *z = same_rows(d.rows, d.experts, five);
    route(dev, &d, z, 17, 3);
    int64_t count[5] = { 0 };
    for (int64_t n = 0; n < d.rows; n++) count[d.chosen[n]]++;
    double w[5], sum = 0;
    weights_of(five, 5, w);
    for (int e = 0; e < 5; e++) sum += w[e];
    for (int e = 0; e < 5; e++) assert_frequency(count[e], d.rows, w[e] / sum);
    free_draws(&d);
    free(z);
}

static void pairs_are_drawn_without_replacement(qn_device *dev)
{
    draws d = { .rows = 40000, .experts = 5, .choices = 2, .sampled = 2 };
    float *z = same_rows(d.rows, d.experts, five);
    route(dev, &d, z, -5, 0);
    assert_choices_are_distinct(&d);
    int64_t count[5][5] = { { 0 } };
    for (int64_t n = 0; n < d.rows; n++) count[d.chosen[2 * n]][d.chosen[2 * n + 1]]++;
    double w[5], sum = 0;
    weights_of(five, 5, w);
    for (int e = 0; e < 5; e++) sum += w[e];
    for (int e = 0; e < 5; e++)
        for (int f = 0; f < 5; f++)
            if (e != f) assert_frequency(count[e][f], d.rows, w[e] / sum * w[f] / (sum - w[e]));
    free_draws(&d);
    free(z);
}

static void the_best_are_taken_before_any_is_drawn(qn_device *dev)
{
    draws d = { .rows = 20000, .experts = 5, .choices = 3, .sampled = 1 };
    float *z = same_rows(d.rows, d.experts, five);
    route(dev, &d, z, 99, 1);
    assert_choices_are_distinct(&d);
    int64_t count[5] = { 0 };
    for (int64_t n = 0; n < d.rows; n++) {
        assert_int_equal(d.chosen[3 * n], 3); // the greatest logit, then the second
        assert_int_equal(d.chosen[3 * n + 1], 0);
        count[d.chosen[3 * n + 2]]++;
    }
    double w[5];
    weights_of(five, 5, w);
    double sum = w[1] + w[2] + w[4];
    for (int e = 0; e < 5; e++)
        assert_frequency(count[e], d.rows, e == 3 || e == 0 ? 0 : w[e] / sum);
    free_draws(&d);
    free(z);
}

static void rows_draw_independently(qn_device *dev)
{
    // With equal odds two neighbouring rows agree once in four times.
    static const float equal[4] = { 0 };
    draws d = { .rows = 40001, .experts = 4, .choices = 1, .sampled = 1 };
    float *z = same_rows(d.rows, d.experts, equal);
    route(dev, &d, z, 7, 7);
    int64_t agree = 0;
    for (int64_t n = 0; n + 1 < d.rows; n++) agree += d.chosen[n] == d.chosen[n + 1];
    assert_frequency(agree, d.rows - 1, 0.25);
    free_draws(&d);
    free(z);
}

static void gates_are_the_probabilities_of_the_drawn(qn_device *dev)
{
    static const float row[6] = { 0.5f, -1, 2, 0, 1, -2 };
    draws d = { .rows = 333, .experts = 6, .choices = 4, .sampled = 2 };
    float *z = same_rows(d.rows, d.experts, row);
    route(dev, &d, z, 1, 1);
    for (int64_t i = 0; i < d.rows * d.choices; i++) {
        int64_t n = i / d.choices;
        assert_true(d.gates[i] == d.probs[n * d.experts + d.chosen[i]]);
    }
    free_draws(&d);
    free(z);
}

static void all_can_be_drawn(qn_device *dev)
{
    // Probabilities of 0 keep their 10^-6, so even they come in the end.
    static const float row[5] = { 0, 300, -300, 1, 0 };
    draws d = { .rows = 97, .experts = 5, .choices = 5, .sampled = 5 };
    float *z = same_rows(d.rows, d.experts, row);
    route(dev, &d, z, 4, 2);
    assert_choices_are_distinct(&d);
    free_draws(&d);
    free(z);
}

static int64_t differing(const draws *a, const draws *b)
{
    int64_t count = 0;
    for (int64_t i = 0; i < a->rows * a->choices; i++) count += a->chosen[i] != b->chosen[i];
    return count;
}

static void seed_and_stream_decide(qn_device *dev)
{
    const draws shape = { .rows = 500, .experts = 5, .choices = 2, .sampled = 2 };
    draws a = shape, again = shape, seed = shape, stream = shape;
    float *z = same_rows(shape.rows, shape.experts, five);
    route(dev, &a, z, 1, 2);
    route(dev, &again, z, 1, 2);
    route(dev, &seed, z, 2, 2);
    route(dev, &stream, z, 1, 3);
    assert_int_equal(differing(&a, &again), 0);
    assert_true(differing(&a, &seed) > shape.rows / 4);
    assert_true(differing(&a, &stream) > shape.rows / 4);
    free_draws(&a);
    free_draws(&again);
    free_draws(&seed);
    free_draws(&stream);
    free(z);
}

// Weights that have diverged must not make a kernel read outside its tensors.
static void experts_exist_even_where_logits_are_not_numbers(qn_device *dev)
{
    for (int sampled = 0; sampled <= 3; sampled += 3) {
        draws d = { .rows = 40, .experts = 6, .choices = 3, .sampled = sampled };
        float *z = room(d.rows * d.experts);
        static const uint32_t odd[] = { 0x7fc00000, 0xffc00000, 0x7f800000, 0xff800000,
                                        0x7fffffff, 0xffffffff, 0 };
        for (int64_t i = 0; i < d.rows * d.experts; i++) {
            int64_t n = i / d.experts;
            memcpy(&z[i], &odd[n < 7 ? n : (n * 5 + i) % 7], sizeof *z);
        }
        route(dev, &d, z, 3, 1);
        assert_choices_are_distinct(&d);
        free_draws(&d);
        free(z);
    }
}

// Each test in both forms of the kernels, where the device has both.
static qn_device *plain;
#define BOTH(test)                                                                                 \
    static void test##_(void **state)                                                              \
    {                                                                                              \
        (void)state;                                                                               \
        test(qn_test_device());                                                                    \
        test(plain);                                                                               \
    }
BOTH(one_draw_follows_the_probabilities)
BOTH(pairs_are_drawn_without_replacement)
BOTH(the_best_are_taken_before_any_is_drawn)
BOTH(rows_draw_independently)
BOTH(gates_are_the_probabilities_of_the_drawn)
BOTH(all_can_be_drawn)
BOTH(seed_and_stream_decide)
BOTH(experts_exist_even_where_logits_are_not_numbers)

static int open_plain(void **state)
{
    (void)state;
    plain = qn_test_device_hiding(QN_CAP_SUBGROUP | QN_CAP_TEXEL);
    return 0;
}

static int close_plain(void **state)
{
    (void)state;
    qn_device_destroy(&plain);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_draw_follows_the_probabilities_),
        cmocka_unit_test(pairs_are_drawn_without_replacement_),
        cmocka_unit_test(the_best_are_taken_before_any_is_drawn_),
        cmocka_unit_test(rows_draw_independently_),
        cmocka_unit_test(gates_are_the_probabilities_of_the_drawn_),
        cmocka_unit_test(all_can_be_drawn_),
        cmocka_unit_test(seed_and_stream_decide_),
        cmocka_unit_test(experts_exist_even_where_logits_are_not_numbers_),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, open_plain, close_plain) + qn_device_finish();
}
