// Learning rates by step and the optimiser's numbers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "llm/schedule.h"

#include <math.h>
#include <string.h>

// Doubles that take a handful of roundings.
static void assert_near(double got, double expected)
{
    double tolerance = 16 * 0x1p-53 * fmax(fabs(expected), 0x1p-40);
    if (!(fabs(got - expected) <= tolerance)) fail_msg("%.17g, expected %.17g", got, expected);
}

static void warmup_rises_linearly(void **state)
{
    (void)state;
    qn_schedule s = { .peak = 0.5, .warmup = 4 };
    assert_int_equal(qn_schedule_check(&s), QN_OK);
    assert_near(qn_schedule_rate(&s, 1), 0.125);
    assert_near(qn_schedule_rate(&s, 3), 0.375);
    assert_near(qn_schedule_rate(&s, 4), 0.5);
    assert_near(qn_schedule_rate(&s, 5), 0.5);
    assert_near(qn_schedule_rate(&s, INT64_MAX), 0.5);
}

static void without_warmup_the_first_step_has_the_peak(void **state)
{
    (void)state;
    qn_schedule s = { .peak = 3e-3 };
    assert_near(qn_schedule_rate(&s, 1), 3e-3);
}

static void cosine_falls_to_the_floor(void **state)
{
    (void)state;
    qn_schedule s = {
        .decay = QN_DECAY_COSINE,
        .peak = 1,
        .floor = 0.1,
        .warmup = 10,
        .steps = 110,
    };
    assert_int_equal(qn_schedule_check(&s), QN_OK);
    assert_near(qn_schedule_rate(&s, 5), 0.5);
    assert_near(qn_schedule_rate(&s, 10), 1);
    assert_near(qn_schedule_rate(&s, 35), 0.1 + 0.9 * 0.5 * (1 + sqrt(0.5)));
    assert_near(qn_schedule_rate(&s, 60), 0.55);
    assert_near(qn_schedule_rate(&s, 110), 0.1);
    assert_near(qn_schedule_rate(&s, 111), 0.1);
    for (int64_t i = 10; i < 110; i++)
        assert_true(qn_schedule_rate(&s, i) > qn_schedule_rate(&s, i + 1));
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    const struct {
        qn_schedule s;
        const char *message;
    } wrong[] = {
        { { .decay = QN_DECAY_COUNT }, "schedule 2 is not known" },
        { { .peak = -1 }, "learning rate -1, expected a finite number" },
        { { .peak = NAN }, "expected a finite number" },
        { { .peak = INFINITY }, "learning rate inf" },
        { { .peak = 1, .floor = 2 }, "final learning rate 2, expected 0 to 1" },
        { { .peak = 1, .floor = NAN }, "expected 0 to 1" },
        { { .peak = 1, .warmup = -3 }, "-3 warm-up steps" },
        { { .decay = QN_DECAY_COSINE, .peak = 1, .warmup = 5, .steps = 5 }, "5 steps ends within" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(qn_schedule_check(&wrong[i].s), QN_ERR_INVALID);
        if (!strstr(qn_error_message(), wrong[i].message)) fail_msg("%s", qn_error_message());
    }
}

static void decays_have_names(void **state)
{
    (void)state;
    for (int d = 0; d < QN_DECAY_COUNT; d++) {
        qn_decay back = QN_DECAY_COUNT;
        assert_int_equal(qn_decay_parse(qn_decay_name((qn_decay)d), &back), QN_OK);
        assert_int_equal(back, d);
    }
    qn_decay untouched = QN_DECAY_COSINE;
    assert_int_equal(qn_decay_parse("linear", &untouched), QN_ERR_INVALID);
    assert_int_equal(untouched, QN_DECAY_COSINE);
    assert_non_null(strstr(qn_error_message(), "linear"));
    assert_null(qn_decay_name(QN_DECAY_COUNT));
}

static void hyper_holds_the_corrections(void **state)
{
    (void)state;
    const qn_adam o = { .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .clip = 1 };
    float h[QN_ADAM_HYPER];
    assert_int_equal(qn_adam_check(&o), QN_OK);
    qn_adam_hyper(&o, 3e-3, 3, h);
    const float expected[QN_ADAM_HYPER] = {
        3e-3f, (float)(1 - 0.9), (float)(1 - 0.95), 1e-8f, 1, (float)(1 - 0.729), (float)(1 - 0.857375), 0,
    };
    for (int i = 0; i < QN_ADAM_HYPER; i++) assert_true(h[i] == expected[i]);
}

static void corrections_stay_exact_at_both_ends(void **state)
{
    (void)state;
    const qn_adam slow = { .beta1 = 0, .beta2 = 1 - 0x1p-40, .epsilon = 1e-8 };
    float h[QN_ADAM_HYPER];
    qn_adam_hyper(&slow, 1, 1, h);
    assert_true(h[5] == 1);
    assert_true(h[6] == 0x1p-40f);
    qn_adam_hyper(&slow, 1, (int64_t)1 << 50, h);
    assert_true(h[6] == 1);
}

static void clipping_scales_long_gradients_only(void **state)
{
    (void)state;
    const qn_adam o = { .clip = 2 };
    assert_near(qn_adam_scale(&o, 1), 1);
    assert_near(qn_adam_scale(&o, 8), 2 / (8 + 1e-6));
    assert_near(qn_adam_scale(&(qn_adam){ 0 }, 1e9), 1);
}

static void impossible_optimisers_are_refused(void **state)
{
    (void)state;
    const qn_adam good = { .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8 };
    qn_adam wrong[6];
    for (int i = 0; i < 6; i++) wrong[i] = good;
    wrong[0].beta1 = 1;
    wrong[1].beta2 = -0.1;
    wrong[2].beta2 = NAN;
    wrong[3].epsilon = 0;
    wrong[4].clip = -1;
    wrong[5].clip = INFINITY;
    assert_int_equal(qn_adam_check(&good), QN_OK);
    for (int i = 0; i < 6; i++) assert_int_equal(qn_adam_check(&wrong[i]), QN_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warmup_rises_linearly),
        cmocka_unit_test(without_warmup_the_first_step_has_the_peak),
        cmocka_unit_test(cosine_falls_to_the_floor),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(decays_have_names),
        cmocka_unit_test(hyper_holds_the_corrections),
        cmocka_unit_test(corrections_stay_exact_at_both_ends),
        cmocka_unit_test(clipping_scales_long_gradients_only),
        cmocka_unit_test(impossible_optimisers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
