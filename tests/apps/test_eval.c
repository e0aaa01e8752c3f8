// Perplexity and multiple choice, against the same sums made in double from the logits of a decoder
// that sees one token at a time.
#include "llm/decoder.h"
#include "llm/eval.h"
#include "tiny_lm.h"

#include <math.h>

static qn_folder folder;
static char dir[512];

static int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    snprintf(dir, sizeof dir, "%s", scratch("a"));
    tiny_train(dir, 60);
    assert_ok(qn_folder_open(qn_test_device(), dir, QN_F32, &folder));
    return 0;
}

static int teardown(void **state)
{
    qn_folder_close(&folder);
    return scratch_remove(state);
}

// -ln p(id[at] | id[begin .. at-1]).
static double reference(qn_decoder *d, const int32_t *id, int64_t begin, int64_t at)
{
    const int64_t V = folder.config.vocab_size;
    float logits[300];
    assert_true(V <= 300);
    qn_decoder_reset(d);
    for (int64_t i = begin; i < at; i++) assert_ok(qn_decoder_feed(d, &id[i], NULL, 1, logits));
    double sum = 0, most = -INFINITY;
    for (int64_t v = 0; v < V; v++) most = fmax(most, (double)logits[v]);
    for (int64_t v = 0; v < V; v++) sum += exp((double)logits[v] - most);
    return log(sum) + most - (double)logits[id[at]];
}

static void encode(const char *text, qn_tokens *t)
{
    const qn_encode_opts plain = { .plain = true };
    assert_ok(qn_tokenizer_encode(folder.tokenizer, text, strlen(text), &plain, t));
}

static void test_perplexity(void **state)
{
    (void)state;
    static const char text[] = "the dog sat on the mat, and the cat sat by the door. w\xc3\xa9 do";
    scratch_write_text("some.txt", text);
    qn_tokens t = { 0 };
    encode(text, &t);
    const int64_t n = (int64_t)t.count;
    assert_true(n > 30);
    qn_decoder *d;
    assert_ok(qn_decoder_create(qn_test_device(), &folder.config, folder.weights,
                                &(qn_decoder_opts){ .context = 128 }, &d));
    static const struct {
        int64_t length, stride;
    } rows[] = { { 0, 0 }, { 8, 0 }, { 8, 3 }, { 1, 1 }, { 20, 20 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int64_t length = rows[i].length ? rows[i].length : 512;
        const int64_t stride = rows[i].stride ? rows[i].stride : length;
        double nll = 0;
        for (int64_t end, at = 1; at < n; at = end) { // windows as the header defines them
            end = at == 1 ? length + 1 : at + stride;
            if (end > n) end = n;
            int64_t begin = end - length - 1 > 0 ? end - length - 1 : 0;
            for (int64_t k = at; k < end; k++) nll += reference(d, t.id, begin, k);
        }
        qn_eval_text e;
        qn_eval_opts o = { .length = rows[i].length, .stride = rows[i].stride };
        assert_ok(qn_eval_text_file(qn_test_device(), &folder, scratch("some.txt"), &o, &e));
        // A few roundings of each logit's terms: 1e-5 per token is ten times what f32 leaves.
        if (fabs(e.nll - nll) > 1e-5 * (double)n) fail_msg("row %zu: %g, not %g", i, e.nll, nll);
        assert_int_equal(e.tokens, n - 1);
        size_t first;
        qn_token_bytes(folder.tokenizer, t.id[0], &first);
        assert_int_equal(e.bytes, strlen(text) - first);
        assert_true(fabs(e.perplexity - exp(e.nll / (double)e.tokens)) < 1e-9 * e.perplexity);
        assert_true(fabs(e.bits_per_byte * (double)e.bytes * log(2) - e.nll) < 1e-9 * e.nll);
    }
    qn_decoder_destroy(&d);
    qn_tokens_free(&t);
}

static void test_text_refusals(void **state)
{
    (void)state;
    qn_eval_text e;
    qn_eval_opts o = { 0 }, wide = { .length = 4, .stride = 5 };
    scratch_write_text("one.txt", "a");
    scratch_write_text("two.txt", "a b c d");
    scratch_write_text("empty.txt", "");
#define EVAL(file, opts) qn_eval_text_file(qn_test_device(), &folder, scratch(file), opts, &e)
    assert_fails(EVAL("one.txt", &o), QN_ERR_INVALID, "has 1 tokens");
    assert_fails(EVAL("none.txt", &o), QN_ERR_IO, "none.txt");
    assert_fails(EVAL("empty.txt", &o), QN_ERR_INVALID, "empty");
    assert_fails(EVAL("two.txt", &wide), QN_ERR_INVALID, "stride of 5");
#undef EVAL
}

// Every way to write a question and its answer.
static const char questions[] =
    "{\"question\": \"the cat sat on the\", \"choices\": [\"zebra\", \"mat, and\"], \"answer\": "
    "1}\n"
    "\n"
    "{\"context\": \"the cat sat on the mat, and the \", \"endings\": [\"dog sat\", \"Qqqq\"], "
    "\"label\": \"0\"}\r\n"
    "{\"query\": \"\", \"options\": [\"the cat\", \"xx yy\"], \"gold\": \"A\"}\n"
    "{\"prompt\": \"the dog sat by\", \"choices\": {\"text\": [\"1 2 3\", \"the door.\"], "
    "\"label\": "
    "[\"1\", \"2\"]}, \"answerKey\": \"2\"}\n"
    "{\"ctx\": \"the dog sat by\", \"choices\": [\"the door.\", \"...\"], \"answer\": \"...\"}";

static void test_choices(void **state)
{
    (void)state;
    scratch_write_text("q.jsonl", questions);
    qn_eval_choices e;
    qn_eval_opts o = { .length = 64 };
    assert_ok(qn_eval_choices_file(qn_test_device(), &folder, scratch("q.jsonl"), &o, &e));
    assert_int_equal(e.questions, 5);
    assert_int_equal(e.choices, 10);
    assert_true(e.chance == 0.5);
    assert_int_equal(e.cut, 0);
    // The model knows the first four; the fifth's answer is wrong on purpose. The normalised one
    // may fall the other way there.
    assert_true(fabs(e.accuracy - 0.8) < 1e-9 || fabs(e.accuracy - 1) < 1e-9);
    assert_true(e.normalised >= 0.8 - 1e-9);
    assert_true(fabs(e.error - sqrt(e.accuracy * (1 - e.accuracy) / 4)) < 1e-9);
    o.length = 12;
    assert_ok(qn_eval_choices_file(qn_test_device(), &folder, scratch("q.jsonl"), &o, &e));
    assert_true(e.cut >= 3);
}

// The one number behind the decision, against the decoder.
static void test_choice_scores(void **state)
{
    (void)state;
    qn_tokens t = { 0 };
    encode("the cat sat on the mat, and", &t);
    qn_tokens before = { 0 };
    encode("the cat sat on", &before);
    qn_score_row rows[] = { { t.id, (int64_t)t.count, (int64_t)before.count },
                            { t.id, (int64_t)before.count, 1 },
                            { t.id, (int64_t)t.count, (int64_t)t.count } };
    double nll[3];
    qn_scorer *s;
    qn_decoder *d;
    assert_ok(qn_scorer_create(qn_test_device(), &folder.config, folder.weights, 100, &s));
    assert_ok(qn_scorer_run(s, rows, 3, NULL, nll));
    assert_ok(qn_decoder_create(qn_test_device(), &folder.config, folder.weights,
                                &(qn_decoder_opts){ .context = 64 }, &d));
    for (int i = 0; i < 2; i++) {
        double want = 0;
        for (int64_t k = rows[i].from; k < rows[i].count; k++) want += reference(d, t.id, 0, k);
        assert_true(fabs(want - nll[i]) < 1e-5 * (double)t.count);
    }
    assert_true(nll[2] == 0);
    rows[0].from = 0;
    assert_fails(qn_scorer_run(s, rows, 1, NULL, nll), QN_ERR_INVALID, "scored from 0");
    int32_t far[2] = { 0, 100000 };
    rows[0] = (qn_score_row){ far, 2, 1 };
    assert_fails(qn_scorer_run(s, rows, 1, NULL, nll), QN_ERR_INVALID, "100000");
    qn_scorer_destroy(&s);
    qn_decoder_destroy(&d);
    qn_tokens_free(&t);
    qn_tokens_free(&before);
}

static void test_choice_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        { "", "holds no questions" },
        { "\n \n", "holds no questions" },
        { "nonsense", "line 1" },
        { "\n[1]", "line 2" },
        { "{\"question\": \"a\"}", "there is no choices" },
        { "{\"choices\": [\"a\", \"b\"]}", "there is no question" },
        { "{\"question\": \"a\", \"choices\": [\"a\"], \"answer\": 0}", "found 1 choices" },
        { "{\"question\": \"a\", \"choices\": [\"a\", 2], \"answer\": 0}", "choices" },
        { "{\"question\": \"a\", \"choices\": [\"a\", \"\"], \"answer\": 0}", "empty choice" },
        { "{\"question\": \"a\", \"choices\": [\"a\", \"b\"]}", "there is no answer" },
        { "{\"question\": \"a\", \"choices\": [\"a\", \"b\"], \"answer\": 2}", "answer" },
        { "{\"question\": \"a\", \"choices\": [\"a\", \"b\"], \"answer\": -1}", "answer" },
        { "{\"question\": \"a\", \"choices\": [\"a\", \"b\"], \"answer\": \"C\"}", "\"C\"" },
        { "{\"question\": 3, \"choices\": [\"a\", \"b\"], \"answer\": 0}", "question" },
        { "{\"question\": \"a\", \"choices\": [\"a\", \"one two three four five six\"], "
          "\"answer\": 0}",
          "use a larger --length" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qn_eval_choices e;
        qn_eval_opts o = { .length = 8 };
        scratch_write_text("bad.jsonl", rows[i].text);
        qn_result r = qn_eval_choices_file(qn_test_device(), &folder, scratch("bad.jsonl"), &o, &e);
        if (r == QN_OK || !strstr(qn_error_message(), rows[i].part))
            fail_msg("row %zu: '%s', expected '%s'", i, r == QN_OK ? "fine" : qn_error_message(),
                     rows[i].part);
    }
}

static bool stop_at_once(void *user, int64_t tokens, int64_t total)
{
    (void)user;
    assert_true(tokens > 0 && tokens <= total);
    return false;
}

static void test_stopped(void **state)
{
    (void)state;
    qn_eval_text e;
    qn_eval_opts o = { .length = 8, .progress = stop_at_once };
    assert_fails(qn_eval_text_file(qn_test_device(), &folder, scratch("cat.txt"), &o, &e),
                 QN_ERR_CANCELLED, "stopped");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perplexity),      cmocka_unit_test(test_text_refusals),
        cmocka_unit_test(test_choices),         cmocka_unit_test(test_choice_scores),
        cmocka_unit_test(test_choice_refusals), cmocka_unit_test(test_stopped),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}
