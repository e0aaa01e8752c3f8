// Bodies of requests: what they mean, and how each mistake is named.
#include "scratch.h"
#include "serve_fixture.h"

#include <math.h>

static qn_tokenizer *tokenizer;
static qn_chat chat;
static qn_request_limits limits;

static int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    assert_ok(serve_fixture(QN_SCRATCH_DIR, &tokenizer, &chat, &limits));
    return 0;
}

static int teardown(void **state)
{
    qn_tokenizer_close(&tokenizer);
    return scratch_remove(state);
}

static qn_result get(qn_endpoint endpoint, const char *body, qn_request *r, const char **code)
{
    return qn_request_read(endpoint, body, strlen(body), &limits, r, code);
}

static void test_completion(void **state)
{
    (void)state;
    qn_request r;
    const char *code;
    assert_ok(
        get(QN_COMPLETION,
            "{\"model\": \"any\", \"prompt\": \"ab\", \"max_tokens\": 7, \"n\": 2, \"stream\": "
            "true, \"stream_options\": {\"include_usage\": true}, \"stop\": [\"x\", \"yy\"], "
            "\"seed\": 5, \"logprobs\": 3, \"temperature\": 0.25, \"top_p\": 0.5, \"top_k\": -1, "
            "\"min_p\": 0, \"frequency_penalty\": 1, \"presence_penalty\": -1, "
            "\"logit_bias\": {\"7\": -100, \"9\": 1.5}, \"best_of\": 2, \"user\": \"me\", "
            "\"suffix\": null, \"unheard_of\": [1]}",
            &r, &code));
    assert_int_equal(r.prompt_count, 1);
    assert_int_equal(r.prompts[0].count, 2);
    assert_int_equal(r.max_tokens, 7);
    assert_int_equal(r.n, 2);
    assert_true(r.stream && r.usage && r.seeded && !r.echo);
    assert_int_equal(r.sampling.seed, 5);
    assert_int_equal(r.stop_count, 2);
    assert_string_equal(r.stops[1], "yy");
    assert_int_equal(r.top, 3);
    assert_true(r.sampling.temperature == 0.25 && r.sampling.top_p == 0.5 && !r.sampling.top_k);
    assert_true(r.sampling.frequency_penalty == 1 && r.sampling.presence_penalty == -1);
    assert_int_equal(r.bias_count, 2);
    assert_true(r.bias[0].token == 7 && isinf(r.bias[0].bias) && r.bias[1].bias == 1.5f);
    qn_request_free(&r);

    // Nothing said: the model's defaults, as long as the context lasts.
    assert_ok(get(QN_COMPLETION, "{\"prompt\": \"\"}", &r, &code));
    assert_int_equal(r.prompts[0].count, 1);
    assert_int_equal(r.prompts[0].id[0], limits.bos);
    assert_true(r.sampling.temperature == 0.8 && r.top == -1 && !r.seeded && r.n == 1);
    assert_true(r.max_tokens >= limits.context);
    qn_request_free(&r);
    assert_ok(get(QN_COMPLETION, "{\"prompt\": [3, 4, 5], \"echo\": true}", &r, &code));
    assert_true(r.echo && r.prompts[0].count == 3 && r.prompts[0].id[2] == 5);
    qn_request_free(&r);
    assert_ok(get(QN_COMPLETION, "{\"prompt\": [\"ab\", [3, 4], \"c\"], \"n\": 2}", &r, &code));
    assert_int_equal(r.prompt_count, 3);
    assert_int_equal(r.prompts[1].id[1], 4);
    qn_request_free(&r);
}

static void test_chat(void **state)
{
    (void)state;
    qn_request r;
    const char *code;
    assert_ok(
        get(QN_CHAT_COMPLETION,
            "{\"messages\": [{\"role\": \"developer\", \"content\": \"S\"}, {\"role\": \"user\", "
            "\"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": "
            "\"b\"}]}], \"max_completion_tokens\": 3, \"logprobs\": true, \"top_logprobs\": 4, "
            "\"echo\": true, \"tools\": [], \"response_format\": {\"type\": \"text\"}}",
            &r, &code));
    qn_text text = { 0 };
    assert_ok(qn_tokenizer_decode(tokenizer, r.prompts[0].id, r.prompts[0].count, NULL, &text));
    assert_string_equal(text.data, "S\n\nUser: ab\nAssistant:");
    qn_text_free(&text);
    assert_true(r.max_tokens == 3 && r.top == 4 && !r.echo);
    assert_int_equal(r.stop_count, 1); // the format's own
    assert_string_equal(r.stops[0], "\nUser:");
    qn_request_free(&r);
}

static void test_refusals(void **state)
{
    (void)state;
#define USER "\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]"
    static const struct {
        qn_endpoint endpoint;
        const char *body, *part, *code;
    } rows[] = {
        { QN_COMPLETION, "", "empty", NULL },
        { QN_COMPLETION, "hello", "line 1", NULL },
        { QN_COMPLETION, "[]", "expected a JSON object", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\"", "line 1", NULL },
        { QN_COMPLETION, "{\"prompt\": \"\xff\"}", "UTF-8", NULL },
        { QN_COMPLETION, "{}", "prompt: found nothing", NULL },
        { QN_COMPLETION, "{\"prompt\": 3}", "prompt: found something else", NULL },
        { QN_COMPLETION, "{\"prompt\": []}", "found 0 prompts", NULL },
        { QN_COMPLETION, "{\"prompt\": [260]}", "260", NULL },
        { QN_COMPLETION, "{\"prompt\": [-1]}", "-1", NULL },
        { QN_COMPLETION, "{\"prompt\": [1, \"a\"]}", "prompt[1]", NULL },
        { QN_COMPLETION, "{\"prompt\": [\"a\", {}]}", "prompt[1]", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"prompt\": \"b\"}", "prompt", NULL },
        { QN_COMPLETION,
          "{\"prompt\": "
          "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
          "has 70 tokens, the context holds 64", "context_length_exceeded" },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"max_tokens\": \"x\"}", "max_tokens", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"max_tokens\": -2}", "max_tokens", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"n\": 0}", "n: ", NULL },
        { QN_COMPLETION, "{\"prompt\": [\"a\", \"b\"], \"n\": 100}", "2 prompts with 100", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"temperature\": -1}", "temperature", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"top_p\": 1.5}", "top_p", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"stream\": 1}", "stream", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"stop\": 5}", "stop", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"stop\": [\"a\", 5]}", "stop[1]", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"logprobs\": 21}", "logprobs", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"logit_bias\": {\"x\": 1}}", "\"x\"", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"logit_bias\": {\"260\": 1}}", "\"260\"", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"logit_bias\": {\"3\": 101}}", "101", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"suffix\": \"b\"}", "suffix", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"best_of\": 3}", "best_of", NULL },
        { QN_COMPLETION, "{\"prompt\": \"a\", \"echo\": true, \"logprobs\": 1}", "echo", NULL },
        { QN_CHAT_COMPLETION, "{}", "messages", NULL },
        { QN_CHAT_COMPLETION, "{\"messages\": []}", "found 0 messages", NULL },
        { QN_CHAT_COMPLETION, "{\"messages\": \"a\"}", "messages", NULL },
        { QN_CHAT_COMPLETION, "{\"messages\": [\"a\"]}", "role", NULL },
        { QN_CHAT_COMPLETION, "{\"messages\": [{\"role\": \"tool\", \"content\": \"\"}]}",
          "\"tool\"", NULL },
        { QN_CHAT_COMPLETION, "{\"messages\": [{\"role\": \"user\", \"content\": 3}]}", "content",
          NULL },
        { QN_CHAT_COMPLETION,
          "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}",
          "\"image_url\"", NULL },
        { QN_CHAT_COMPLETION, "{" USER ", \"tools\": [{}]}", "tools", NULL },
        { QN_CHAT_COMPLETION, "{" USER ", \"response_format\": {\"type\": \"json_object\"}}",
          "json_object", NULL },
        { QN_CHAT_COMPLETION, "{" USER ", \"top_logprobs\": 2}", "top_logprobs", NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qn_request r;
        const char *code;
        qn_result result = get(rows[i].endpoint, rows[i].body, &r, &code);
        if (result == QN_OK || !strstr(qn_error_message(), rows[i].part))
            fail_msg("row %zu: '%s', expected '%s'", i, result ? qn_error_message() : "fine",
                     rows[i].part);
        if (rows[i].code) assert_string_equal(code, rows[i].code);
    }
}

// A prompt that is far too long is refused by its size, before it costs anything.
static void test_huge(void **state)
{
    (void)state;
    const size_t size = 1 << 20;
    char *body = malloc(size + 64);
    size_t at = (size_t)sprintf(body, "{\"prompt\": \"");
    memset(body + at, 'a', size);
    strcpy(body + at + size, "\"}");
    qn_request r;
    const char *code;
    assert_fails(get(QN_COMPLETION, body, &r, &code), QN_ERR_INVALID, "1048576 bytes");
    assert_string_equal(code, "context_length_exceeded");
    for (size_t i = 0; i < 100000; i++) memcpy(body + i * 2, "[", 1), body[i * 2 + 1] = ' ';
    body[200000] = 0;
    assert_fails(get(QN_COMPLETION, body, &r, &code), QN_ERR_FORMAT, "body");
    free(body);
}

static void test_tokens(void **state)
{
    (void)state;
    qn_tokens t = { 0 };
    qn_text text = { 0 };
    bool pieces = false;
#define BODY(s) s, strlen(s)
    assert_ok(qn_request_tokenize(BODY("{\"content\": \"ab\", \"with_pieces\": true}"), &limits, &t,
                                  &pieces));
    assert_true(t.count == 2 && pieces);
    assert_fails(qn_request_tokenize(BODY("{\"content\": 3}"), &limits, &t, &pieces), QN_ERR_FORMAT,
                 "content");
    assert_ok(qn_request_detokenize(BODY("{\"tokens\": [66, 67]}"), &limits, &text));
    assert_int_equal(text.size, 2);
    assert_fails(qn_request_detokenize(BODY("{\"tokens\": [1.5]}"), &limits, &text), QN_ERR_FORMAT,
                 "tokens[0]");
    assert_fails(qn_request_detokenize(BODY("{\"tokens\": [258]}"), &limits, &text), QN_ERR_INVALID,
                 "258");
#undef BODY
    qn_tokens_free(&t);
    qn_text_free(&text);
}

static qn_result read_one(void *body)
{
    qn_request r;
    const char *code;
    QN_TRY(get(QN_CHAT_COMPLETION, body, &r, &code));
    qn_request_free(&r);
    return QN_OK;
}

static void test_memory(void **state)
{
    (void)state;
    fail_each_allocation(read_one, "{" USER ", \"stop\": [\"a\"], \"logit_bias\": {\"1\": 1}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completion), cmocka_unit_test(test_chat),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_huge),
        cmocka_unit_test(test_tokens),     cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
