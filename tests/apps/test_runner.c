// Several texts at once over one model: what each slot writes is what it would write alone.
#include "llm/decoder.h"
#include "llm/runner.h"
#include "tiny_lm.h"

#include <math.h>

enum { VOCABULARY = 260, CONTEXT = 40, SLOTS = 4, WANTED = 12 };

static qn_model_config config;
static qn_store *weights;

static int make_model(void **state)
{
    if (scratch_make(state)) return -1;
    scratch_write_text("config.json", TINY_CONFIG);
    assert_ok(qn_model_config_read(scratch("config.json"), &config));
    config.n_layer = 2;
    config.initializer_range = 0.3; // logits that differ
    assert_ok(qn_store_create(qn_test_device(), "weights", &weights));
    assert_ok(qn_model_declare(&config, weights, QN_F32));
    assert_ok(qn_store_allocate(weights));
    assert_ok(qn_model_initialise(&config, weights, 6, false));
    return 0;
}

static int free_model(void **state)
{
    qn_store_destroy(&weights);
    return scratch_remove(state);
}

static qn_runner *open_runner(int64_t slots, int64_t chunk)
{
    qn_runner *r;
    qn_runner_opts o = { .slots = slots, .context = CONTEXT, .chunk = chunk };
    assert_ok(qn_runner_create(qn_test_device(), &config, weights, &o, &r));
    return r;
}

// A prompt of n tokens, other ones for other seeds.
static const int32_t *prompt(int n, int seed)
{
    static int32_t ids[CONTEXT];
    for (int i = 0; i < n; i++) ids[i] = (i * 53 + seed * 17 + 7) % VOCABULARY;
    return ids;
}

// What the decoder says is likeliest, one text alone.
static void decode_alone(int length, int seed, int32_t *out, float *logprob)
{
    static float logits[VOCABULARY];
    qn_decoder *d;
    assert_ok(qn_decoder_create(qn_test_device(), &config, weights,
                                &(qn_decoder_opts){ .context = CONTEXT }, &d));
    assert_ok(qn_decoder_feed(d, prompt(length, seed), NULL, length, logits));
    for (int i = 0; i < WANTED; i++) {
        int32_t best = 0;
        double sum = 0;
        for (int32_t k = 1; k < VOCABULARY; k++)
            if (logits[k] > logits[best]) best = k;
        for (int k = 0; k < VOCABULARY; k++) sum += exp((double)logits[k] - (double)logits[best]);
        out[i] = best;
        logprob[i] = (float)-log(sum);
        assert_ok(qn_decoder_feed(d, &best, NULL, 1, logits));
    }
    qn_decoder_destroy(&d);
}

static const int lengths[SLOTS] = { 7, 1, 19, 4 };

// Greedy texts of unequal lengths, begun at different times.
static void test_together_as_alone(void **state)
{
    (void)state;
    static const int64_t chunks[] = { 0, 4, 1 };
    static int32_t want[SLOTS][WANTED];
    static float logprob[SLOTS][WANTED];
    for (int s = 0; s < SLOTS; s++) decode_alone(lengths[s], s, want[s], logprob[s]);
    for (int c = 0; c < 3; c++) {
        qn_runner *r = open_runner(SLOTS, chunks[c]);
        qn_runner_event events[SLOTS];
        size_t n, written[SLOTS] = { 0 };
        for (int step = 0; step < 60; step++) {
            if (step % 3 == 0 && step / 3 < SLOTS) {
                int s = step / 3;
                assert_ok(qn_runner_feed(r, s, prompt(lengths[s], s), (size_t)lengths[s]));
            }
            assert_ok(qn_runner_step(r, events, &n));
            for (size_t i = 0; i < n; i++) {
                int64_t s = events[i].slot;
                assert_int_equal(events[i].token, want[s][written[s]]);
                // f32 logits of size below 10, through two dozen roundings.
                assert_true(fabs((double)events[i].logprob - (double)logprob[s][written[s]]) < 1e-4);
                if (++written[s] == WANTED) assert_ok(qn_runner_hold(r, s));
            }
        }
        for (int s = 0; s < SLOTS; s++) {
            size_t count, read;
            const int32_t *text = qn_runner_text(r, s, &count, &read);
            assert_int_equal(written[s], WANTED);
            assert_int_equal(count, lengths[s] + WANTED);
            assert_int_equal(read, count - 1);
            assert_memory_equal(text, prompt(lengths[s], s), (size_t)lengths[s] * sizeof *text);
            assert_false(qn_runner_running(r, s));
        }
        assert_ok(qn_runner_step(r, events, &n));
        assert_int_equal(n, 0);
        qn_runner_destroy(&r);
    }
}

static void write_text(qn_runner *r, int64_t slot, int32_t *out, int count)
{
    qn_runner_event events[SLOTS];
    size_t n;
    for (int i = 0; i < count;) {
        assert_ok(qn_runner_step(r, events, &n));
        for (size_t k = 0; k < n; k++)
            if (events[k].slot == slot && i < count) out[i++] = events[k].token;
    }
    assert_ok(qn_runner_hold(r, slot));
}

// A seed's text is the same in another slot, beside another text, and after going back.
static void test_seeds(void **state)
{
    (void)state;
    qn_runner_sampling how = {
        .how = { .temperature = 1.5, .top_k = 50, .top_p = 0.99, .repeat_penalty = 1.1,
                 .repeat_last_n = 8, .seed = 11 },
    };
    int32_t first[WANTED], again[WANTED];
    qn_runner *r = open_runner(2, 0);
    assert_ok(qn_runner_sample(r, 0, &how));
    assert_ok(qn_runner_feed(r, 0, prompt(5, 1), 5));
    write_text(r, 0, first, WANTED);
    assert_ok(qn_runner_reset(r, 0));
    assert_ok(qn_runner_feed(r, 0, prompt(9, 3), 9));
    assert_ok(qn_runner_sample(r, 1, &how));
    assert_ok(qn_runner_feed(r, 1, prompt(5, 1), 5));
    write_text(r, 1, again, WANTED);
    assert_memory_equal(first, again, sizeof first);
    assert_ok(qn_runner_rewind(r, 1, 5));
    assert_ok(qn_runner_sample(r, 1, &how));
    assert_ok(qn_runner_feed(r, 1, NULL, 0));
    write_text(r, 1, again, WANTED);
    assert_memory_equal(first, again, sizeof first);
    how.how.seed = 12;
    assert_ok(qn_runner_rewind(r, 1, 5));
    assert_ok(qn_runner_sample(r, 1, &how));
    assert_ok(qn_runner_feed(r, 1, NULL, 0));
    write_text(r, 1, again, WANTED);
    assert_memory_not_equal(first, again, sizeof first);
    qn_runner_destroy(&r);
}

// Biases decide what is written, the listed chances are those of the model.
static void test_bias_and_top(void **state)
{
    (void)state;
    qn_runner *r = open_runner(1, 0);
    int32_t want[WANTED];
    float logprob[WANTED];
    decode_alone(6, 2, want, logprob);
    qn_token_bias bias[] = { { want[0], -INFINITY }, { 77, 1000 } };
    qn_runner_sampling how = { .how = { .top_p = 1, .repeat_penalty = 1 },
                               .bias = bias, .bias_count = 2, .top = 5 };
    assert_ok(qn_runner_sample(r, 0, &how));
    assert_ok(qn_runner_feed(r, 0, prompt(6, 2), 6));
    qn_runner_event e;
    size_t n;
    assert_ok(qn_runner_step(r, &e, &n));
    assert_int_equal(n, 1);
    assert_int_equal(e.token, 77);
    assert_int_equal(e.top_count, 5);
    assert_int_equal(e.top[0].token, want[0]);
    assert_true(fabs((double)e.top[0].logprob - (double)logprob[0]) < 1e-4);
    for (int i = 1; i < 5; i++) assert_true(e.top[i].logprob <= e.top[i - 1].logprob);
    assert_true(e.logprob <= e.top[4].logprob);
    qn_runner_destroy(&r);
}

// Chances of given tokens are those that writing them reports.
static void test_scores(void **state)
{
    (void)state;
    enum { LENGTH = 9, ALL = LENGTH + WANTED };
    qn_runner *r = open_runner(2, 4);
    int32_t text[ALL];
    float logprob[WANTED];
    memcpy(text, prompt(LENGTH, 5), LENGTH * sizeof *text);
    decode_alone(LENGTH, 5, text + LENGTH, logprob);
    qn_token_score got[ALL];
    assert_ok(qn_runner_score(r, 1, text, ALL - 2, got));
    assert_ok(qn_runner_score(r, 1, text + ALL - 2, 2, got + ALL - 2));
    assert_true(isnan(got[0].logprob) && got[0].best == -1);
    for (int i = 0; i < WANTED; i++) {
        assert_int_equal(got[LENGTH + i].best, text[LENGTH + i]);
        assert_true(fabs((double)got[LENGTH + i].logprob - (double)logprob[i]) < 1e-4);
    }
    for (int i = 1; i < LENGTH; i++) assert_true(got[i].logprob < 0);
    qn_runner_destroy(&r);
}

// Tokens among the recent ones are penalised, older ones are not.
static void test_penalties(void **state)
{
    (void)state;
    enum { COUNT = 25 };
    qn_runner_sampling how = { .how = { .top_p = 1, .repeat_penalty = 1, .repeat_last_n = -1,
                                        .presence_penalty = 1e4 } };
    qn_runner *r = open_runner(1, 0);
    int32_t text[COUNT];
    assert_ok(qn_runner_sample(r, 0, &how));
    assert_ok(qn_runner_feed(r, 0, prompt(6, 2), 6));
    write_text(r, 0, text, COUNT);
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < 6; k++) assert_int_not_equal(text[i], prompt(6, 2)[k]);
        for (int k = 0; k < i; k++) assert_int_not_equal(text[i], text[k]);
    }
    // Two tokens far above all others alternate when only the last one counts.
    qn_token_bias bias[] = { { 5, 1e5f }, { 9, 1.001e5f } };
    how.how.repeat_last_n = 1;
    how.bias = bias;
    how.bias_count = 2;
    static const int32_t want[] = { 9, 5, 9, 5, 9 };
    static const struct {
        double repeat, frequency, presence;
    } penalties[] = { { 1, 0, 1e4 }, { 1, 1e4, 0 }, { 2, 0, 0 } };
    for (int i = 0; i < 3; i++) {
        how.how.repeat_penalty = penalties[i].repeat;
        how.how.frequency_penalty = penalties[i].frequency;
        how.how.presence_penalty = penalties[i].presence;
        assert_ok(qn_runner_rewind(r, 0, 6));
        assert_ok(qn_runner_sample(r, 0, &how));
        assert_ok(qn_runner_feed(r, 0, NULL, 0));
        write_text(r, 0, text, 5);
        assert_memory_equal(text, want, sizeof want);
    }
    how.how.repeat_last_n = 0;
    assert_ok(qn_runner_rewind(r, 0, 6));
    assert_ok(qn_runner_sample(r, 0, &how));
    assert_ok(qn_runner_feed(r, 0, NULL, 0));
    write_text(r, 0, text, 2);
    assert_true(text[0] == 9 && text[1] == 9);
    qn_runner_destroy(&r);
}

// How often tokens are drawn fits their probabilities.
static void test_draws(void **state)
{
    (void)state;
    enum { DRAWS = 600, BINS = 4 };
    static const double share[BINS] = { 0.5, 0.25, 0.15, 0.1 };
    qn_token_bias bias[BINS];
    qn_runner_sampling how = { .how = { .temperature = 2, .top_p = 1, .repeat_penalty = 1 },
                               .bias = bias, .bias_count = BINS };
    // Far above the rest; the model's own logits for them are taken away.
    qn_runner *r = open_runner(1, 0);
    qn_token_score score[2];
    for (int k = 0; k < BINS; k++) {
        const int32_t text[] = { 3, k };
        assert_ok(qn_runner_reset(r, 0));
        assert_ok(qn_runner_score(r, 0, text, 2, score));
        bias[k] = (qn_token_bias){ k, (float)(200 + 2 * log(share[k]) - (double)score[1].logprob) };
    }
    int drawn[BINS] = { 0 };
    assert_ok(qn_runner_reset(r, 0));
    assert_ok(qn_runner_feed(r, 0, &(int32_t){ 3 }, 1));
    for (int i = 0; i < DRAWS; i++) {
        how.how.seed = (uint64_t)i * 1000003;
        assert_ok(qn_runner_sample(r, 0, &how));
        int32_t token;
        write_text(r, 0, &token, 1);
        assert_in_range(token, 0, BINS - 1);
        drawn[token]++;
        assert_ok(qn_runner_rewind(r, 0, 1));
        assert_ok(qn_runner_feed(r, 0, NULL, 0));
    }
    double chi = 0;
    for (int k = 0; k < BINS; k++)
        chi += pow(drawn[k] - DRAWS * share[k], 2) / (DRAWS * share[k]);
    assert_true(chi < 16.27); // three degrees of freedom: exceeded once in a thousand
    qn_runner_destroy(&r);
}

static void test_refusals(void **state)
{
    (void)state;
    qn_runner *r = open_runner(2, 0);
    assert_fails(qn_runner_feed(r, 2, prompt(1, 1), 1), QN_ERR_INVALID, "slot 2, expected 0 to 1");
    assert_fails(qn_runner_feed(r, -1, prompt(1, 1), 1), QN_ERR_INVALID, "slot -1");
    assert_fails(qn_runner_feed(r, 0, prompt(1, 1), CONTEXT + 1), QN_ERR_INVALID, "holds 40");
    assert_fails(qn_runner_feed(r, 0, &(int32_t){ VOCABULARY }, 1), QN_ERR_INVALID, "token 260");
    assert_fails(qn_runner_feed(r, 0, NULL, 0), QN_ERR_INVALID, "no token to go on from");
    assert_fails(qn_runner_rewind(r, 0, 1), QN_ERR_INVALID, "cannot keep 1");
    qn_runner_sampling how = { .top = QN_RUNNER_TOP + 1 };
    assert_fails(qn_runner_sample(r, 0, &how), QN_ERR_INVALID, "expected 0 to 20");
    how = (qn_runner_sampling){ .bias = &(qn_token_bias){ -3, 1 }, .bias_count = 1 };
    assert_fails(qn_runner_sample(r, 0, &how), QN_ERR_INVALID, "token -3");
    assert_false(qn_runner_running(r, 0));

    assert_ok(qn_runner_feed(r, 0, prompt(CONTEXT - 2, 1), CONTEXT - 2));
    qn_runner_event e[2];
    size_t n;
    assert_ok(qn_runner_step(r, e, &n));
    assert_int_equal(n, 1);
    assert_false(e[0].full);
    assert_ok(qn_runner_step(r, e, &n));
    assert_true(n == 1 && e[0].full);
    assert_false(qn_runner_running(r, 0));
    assert_fails(qn_runner_feed(r, 0, prompt(1, 1), 1), QN_ERR_INVALID, "40 are filled");
    qn_runner_destroy(&r);
    qn_runner_opts o = { .context = 1 };
    assert_fails(qn_runner_create(qn_test_device(), &config, weights, &o, &r), QN_ERR_INVALID,
                 "at least 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together_as_alone), cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_bias_and_top),      cmocka_unit_test(test_scores),
        cmocka_unit_test(test_penalties),         cmocka_unit_test(test_draws),
        cmocka_unit_test(test_refusals),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, make_model, free_model) + qn_device_finish();
}
