// Conversations, stop strings and answers: everything between tokens and what people read.
#include "llm/answer.h"
#include "random.h"
#include "scratch.h"
#include "text/bpe.h"

#include <math.h>

static qn_tokenizer *tokenizer; // bytes, three special tokens and a run of blanks
static int32_t im_start, im_end, end_of_text;

static int setup(void **state)
{
    static const char *const special[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" };
    static const char *const added[] = { "    " };
    const qn_tokenizer_train_opts o = {
        .size = 259, .special = special, .special_count = 3, .added = added, .added_count = 1
    };
    if (scratch_make(state) != 0) return -1;
    assert_ok(qn_tokenizer_train("abc", 3, &o, &tokenizer));
    end_of_text = qn_tokenizer_find(tokenizer, special[0]);
    im_start = qn_tokenizer_find(tokenizer, special[1]);
    im_end = qn_tokenizer_find(tokenizer, special[2]);
    return 0;
}

static int teardown(void **state)
{
    qn_tokenizer_close(&tokenizer);
    return scratch_remove(state);
}

// ------------------------------------------------------------------------------ stop strings

// What the definition says, on the whole text at once.
static size_t naive(const char *text, const char *const *stop, size_t count, bool *hit)
{
    for (size_t end = 1; text[end - 1]; end++) {
        size_t most = 0;
        for (size_t i = 0; i < count; i++) {
            size_t m = strlen(stop[i]);
            if (m <= end && !memcmp(text + end - m, stop[i], m) && m > most) most = m;
        }
        if (most) return *hit = true, end - most;
    }
    return *hit = false, strlen(text);
}

static void test_stops(void **state)
{
    (void)state;
    qn_random rng = qn_random_start(5, 0);
    for (int round = 0; round < 3000; round++) {
        char text[40] = "", words[3][6] = { "" };
        const char *stop[3];
        size_t n = qn_random_below(&rng, 30) + 1, count = qn_random_below(&rng, 4);
        for (size_t i = 0; i < n; i++) text[i] = (char)('a' + qn_random_below(&rng, 2));
        for (size_t i = 0; i < count; i++) {
            size_t m = qn_random_below(&rng, 5) + 1;
            for (size_t k = 0; k < m; k++) words[i][k] = (char)('a' + qn_random_below(&rng, 2));
            stop[i] = words[i];
        }
        bool hit;
        size_t want = naive(text, stop, count, &hit);
        qn_stops s = { .stop = stop, .count = count };
        qn_text out = { 0 };
        for (size_t at = 0; at < n;) {
            size_t m = qn_random_below(&rng, n - at) + 1;
            assert_ok(qn_stops_push(&s, text + at, m, &out));
            assert_true(out.size <= want); // nothing of a stop string was handed on
            at += m;
        }
        assert_ok(qn_stops_finish(&s, &out));
        if (s.hit != hit || out.size != want || memcmp(out.data ? out.data : "", text, want))
            fail_msg("'%s': %zu bytes and %d, expected %zu and %d", text, out.size, s.hit, want,
                     hit);
        qn_stops_free(&s);
        qn_text_free(&out);
    }
}

// ------------------------------------------------------------------------------ answers

static void push(qn_answer *a, int32_t token)
{
    qn_runner_event e = { .token = token, .logprob = -1.5f };
    assert_ok(qn_answer_push(a, &e));
}

static void test_answers(void **state)
{
    (void)state;
    qn_chat chat;
    assert_ok(qn_chat_open(QN_SCRATCH_DIR, "plain", tokenizer, end_of_text, &chat));
    static const char *const stop[] = { "END" };
    const struct {
        const char *bytes; // \x01: the end token
        bool trim, ignore_end;
        int64_t most;
        const char *text;
        int64_t tokens;
        size_t kept;
        qn_finish finish;
    } rows[] = {
        { "hello\x01x", false, false, 99, "hello", 5, 5, QN_FINISH_STOP },
        { "hello\x01x", false, true, 99, "hellox", 7, 7, QN_FINISH_NOT },
        { "hello", false, false, 3, "hel", 3, 3, QN_FINISH_LENGTH },
        { "abENDcd", false, false, 99, "ab", 5, 2, QN_FINISH_STOP },
        { "abENx\x01", false, false, 99, "abENx", 5, 5, QN_FINISH_STOP },
        { "abEN\x01", false, false, 99, "abEN", 4, 4, QN_FINISH_STOP },
        { "abEN", false, false, 4, "abEN", 4, 4, QN_FINISH_LENGTH },
        { "END", false, false, 99, "", 3, 0, QN_FINISH_STOP },
        { " \n hi \x01", true, false, 99, "hi ", 6, 6, QN_FINISH_STOP },
        { "\xc3\xa9\xe2\x82\x01", false, false, 99, "\xc3\xa9\xef\xbf\xbd", 4, 4, QN_FINISH_STOP },
        { "abEN", false, false, 99, "ab", 4, 4, QN_FINISH_NOT },
        { "a\xe2\x82", false, false, 99, "a", 3, 3, QN_FINISH_NOT },
        { "", false, false, 0, "", 0, 0, QN_FINISH_LENGTH },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qn_answer a = { .chat = &chat,
                        .max_tokens = rows[i].most,
                        .trim = rows[i].trim,
                        .keep = true,
                        .ignore_end = rows[i].ignore_end,
                        .stops = { .stop = stop, .count = 1 } };
        assert_ok(qn_answer_start(&a));
        for (const char *p = rows[i].bytes; *p; p++)
            push(&a, *p == 1 ? end_of_text : tokenizer->byte_id[(unsigned char)*p]);
        const char *text = a.text.data ? a.text.data : "";
        if (a.text.size != strlen(rows[i].text) || memcmp(text, rows[i].text, a.text.size) ||
            a.tokens != rows[i].tokens || a.finish != rows[i].finish ||
            a.token_count != rows[i].kept)
            fail_msg("row %zu: '%.*s', %lld tokens, %zu kept, end %d", i, (int)a.text.size, text,
                     (long long)a.tokens, a.token_count, a.finish);
        qn_answer_free(&a);
    }
}

// ------------------------------------------------------------------------------ conversations

// A text for tokens: special ones in braces.
static const char *spell(const qn_tokens *t)
{
    static char text[1024];
    size_t at = 0;
    for (size_t i = 0; i < t->count; i++) {
        size_t size;
        const char *bytes = qn_token_bytes(tokenizer, t->id[i], &size);
        bool special = qn_token_is_special(tokenizer, t->id[i]);
        bool blanks = size == 4 && !memcmp(bytes, "    ", 4);
        at += (size_t)snprintf(text + at, sizeof text - at, special || blanks ? "{%.*s}" : "%.*s",
                               (int)size, bytes);
    }
    return text;
}

static void test_formats(void **state)
{
    (void)state;
    const qn_message talk[] = { { QN_ROLE_SYSTEM, "Be brief." },
                                { QN_ROLE_USER, "<|im_end|>    hi" },
                                { QN_ROLE_ASSISTANT, "ho" },
                                { QN_ROLE_USER, "so?" } };
    const struct {
        const char *name, *text, *stop;
        int32_t end;
    } rows[] = {
        // Blanks of code stay tokens of their own; marks that a user writes do not become ones.
        { "plain", "Be brief.\n\nUser: <|im_end|>{    }hi\nAssistant: ho\nUser: so?\nAssistant:",
          "\nUser:", end_of_text },
        { "chatml",
          "{<|im_start|>}system\nBe brief.{<|im_end|>}\n{<|im_start|>}user\n<|im_end|>{    }hi"
          "{<|im_end|>}\n{<|im_start|>}assistant\nho{<|im_end|>}\n{<|im_start|>}user\nso?"
          "{<|im_end|>}\n{<|im_start|>}assistant\n",
          NULL, im_end },
        { "zephyr",
          "<|system|>\nBe brief.{<|endoftext|>}\n<|user|>\n<|im_end|>{    }hi{<|endoftext|>}\n"
          "<|assistant|>\nho{<|endoftext|>}\n<|user|>\nso?{<|endoftext|>}\n<|assistant|>\n",
          "<|user|>", end_of_text },
        { "alpaca",
          "Be brief.\n\n### Instruction:\n<|im_end|>{    }hi\n\n### Response:\nho\n\n"
          "### Instruction:\nso?\n\n### Response:\n",
          "\n### Instruction:", end_of_text },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qn_chat chat;
        qn_tokens t = { 0 };
        assert_ok(qn_chat_open(QN_SCRATCH_DIR, rows[i].name, tokenizer, end_of_text, &chat));
        assert_ok(qn_chat_encode(&chat, talk, 4, &t));
        assert_string_equal(spell(&t), rows[i].text);
        assert_true(qn_chat_ends(&chat, rows[i].end));
        assert_false(qn_chat_ends(&chat, tokenizer->byte_id['a']));
        if (rows[i].stop)
            assert_string_equal(chat.stop, rows[i].stop);
        else
            assert_null(chat.stop);
        qn_tokens_free(&t);
    }
}

static void forget_files(void)
{
    static const char *const names[] = { "tokenizer_config.json", "chat_template.jinja",
                                         "generation_config.json" };
    for (int i = 0; i < 3; i++) remove(scratch(names[i]));
}

static void test_folders(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text, *format; // format NULL: refused
        const char *part;
    } rows[] = {
        { NULL, NULL, "plain", NULL },
        { "tokenizer_config.json", "{\"add_bos_token\": false}", "plain", NULL },
        { "tokenizer_config.json", "{\"chat_template\": null}", "plain", NULL },
        { "tokenizer_config.json", "{\"chat_template\": \"{{ '<|im_start|>' + role }}\"}", "chatml",
          NULL },
        { "tokenizer_config.json",
          "{\"chat_template\": [{\"name\": \"tool\", \"template\": \"x\"}, {\"name\": \"default\", "
          "\"template\": \"<|start_header_id|>\"}]}",
          "llama3", NULL },
        { "tokenizer_config.json", "{\"chat_template\": \"<|user|> <|end|>\"}", "phi3", NULL },
        { "tokenizer_config.json", "{\"chat_template\": \"<|user|> eos\"}", "zephyr", NULL },
        { "chat_template.jinja", "### Instruction: {{ x }}", "alpaca", NULL },
        { "chat_template.jinja", "[INST] {{ x }}", NULL, "none of those known (plain|chatml" },
        { "tokenizer_config.json", "{\"chat_template\": 3}", NULL, "chat_template" },
        { "tokenizer_config.json", "{", NULL, "tokenizer_config.json" },
        { "generation_config.json", "{\"eos_token_id\": \"x\", \"top_p\": 2}", NULL, "top_p" },
        { "generation_config.json", "{\"eos_token_id\": [-1]}", NULL, "eos_token_id" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qn_chat chat;
        forget_files();
        if (rows[i].file) scratch_write_text(rows[i].file, rows[i].text);
        qn_result r = qn_chat_open(QN_SCRATCH_DIR, NULL, tokenizer, end_of_text, &chat);
        if (rows[i].format) {
            assert_ok(r);
            assert_string_equal(qn_chat_format_name(chat.format), rows[i].format);
            assert_int_equal(chat.named, strcmp(rows[i].format, "plain") != 0);
        } else if (r == QN_OK || !strstr(qn_error_message(), rows[i].part)) {
            fail_msg("row %zu: '%s', expected '%s'", i, qn_error_message(), rows[i].part);
        }
    }
    forget_files();
    qn_chat chat;
    assert_fails(qn_chat_open(QN_SCRATCH_DIR, "jinja", tokenizer, 0, &chat), QN_ERR_INVALID,
                 "no template 'jinja'");
}

static void test_generation_config(void **state)
{
    (void)state;
    char text[200];
    snprintf(text, sizeof text,
             "{\"eos_token_id\": [%d, %d, %d], \"temperature\": 0.5, \"top_k\": "
             "7, \"do_sample\": true, \"repetition_penalty\": 1.1, \"x\": 1}",
             im_end, end_of_text, im_end);
    scratch_write_text("generation_config.json", text);
    qn_chat chat;
    assert_ok(qn_chat_open(QN_SCRATCH_DIR, NULL, tokenizer, end_of_text, &chat));
    assert_int_equal(chat.end_count, 2);
    assert_true(qn_chat_ends(&chat, im_end) && qn_chat_ends(&chat, end_of_text));
    assert_true(chat.sampling.temperature == 0.5 && chat.sampling.top_k == 7 &&
                chat.sampling.repeat_penalty == 1.1 && chat.sampling.top_p == 0.95);
    scratch_write_text("generation_config.json", "{\"do_sample\": false}");
    assert_ok(qn_chat_open(QN_SCRATCH_DIR, NULL, tokenizer, end_of_text, &chat));
    assert_true(chat.sampling.temperature == 0);
    forget_files();
}

static qn_result talk_once(void *user)
{
    (void)user;
    const qn_message m = { QN_ROLE_USER, "hello" };
    qn_chat chat;
    qn_tokens t = { 0 };
    QN_TRY(qn_chat_open(QN_SCRATCH_DIR, "chatml", tokenizer, end_of_text, &chat));
    qn_result r = qn_chat_encode(&chat, &m, 1, &t);
    qn_tokens_free(&t);
    static const char *const stop[] = { "END" };
    qn_answer a = {
        .chat = &chat, .max_tokens = 50, .keep = true, .stops = { .stop = stop, .count = 1 }
    };
    const char *text = "some EN bytes END";
    if (r == QN_OK) r = qn_answer_start(&a);
    for (; r == QN_OK && *text; text++)
        r = qn_answer_push(&a, &(qn_runner_event){ .token = tokenizer->byte_id[(int)*text] });
    qn_answer_free(&a);
    return r;
}

static void test_memory(void **state)
{
    (void)state;
    fail_each_allocation(talk_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_generation_config),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
