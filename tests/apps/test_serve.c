// The server as its clients see it: answers, streams, refusals.
#include "serve_run.h"

#ifdef QN_HAVE_MICROHTTPD

// ------------------------------------------------------------------------------ answers

static void test_completion(void **state)
{
    (void)state;
    http_answer a = ask("/v1/completions",
                        "{\"prompt\": \"the cat sat\", \"max_tokens\": 8, \"temperature\": 0}");
    assert_int_equal(a.status, 200);
    qn_json_doc *doc = document(a.body);
    const char *text, *why, *object;
    int64_t prompt, written, all;
    qn_json usage = qn_json_find(qn_json_root(doc), "usage");
    assert_ok(qn_json_string(first_choice(doc), "text", &text));
    assert_ok(qn_json_string(first_choice(doc), "finish_reason", &why));
    assert_ok(qn_json_string(qn_json_root(doc), "object", &object));
    assert_ok(qn_json_int(usage, "prompt_tokens", 0, 100, &prompt));
    assert_ok(qn_json_int(usage, "completion_tokens", 0, 100, &written));
    assert_ok(qn_json_int(usage, "total_tokens", 0, 100, &all));
    assert_string_equal(text, " on the ");
    assert_string_equal(why, "length");
    assert_string_equal(object, "text_completion");
    assert_true(prompt == 11 && written == 8 && all == 19);
    qn_json_close(&doc);
    http_free(&a);

    // A stop string ends it and is left out; an echo stands before it; nothing may be asked for.
    a = ask("/v1/completions",
            "{\"prompt\": \"the cat sat\", \"max_tokens\": 30, \"temperature\": 0, "
            "\"stop\": [\"zz\", \"the\"], \"echo\": true}");
    doc = document(a.body);
    assert_ok(qn_json_string(first_choice(doc), "text", &text));
    assert_ok(qn_json_string(first_choice(doc), "finish_reason", &why));
    assert_string_equal(text, "the cat sat on ");
    assert_string_equal(why, "stop");
    qn_json_close(&doc);
    http_free(&a);
    a = ask("/v1/completions", "{\"prompt\": \"the\", \"max_tokens\": 0, \"echo\": true}");
    assert_non_null(strstr(a.body, "\"text\":\"the\""));
    http_free(&a);

    // The context ends it, too.
    a = ask("/v1/completions",
            "{\"prompt\": \"the cat\", \"temperature\": 0, \"ignore_eos\": true}");
    doc = document(a.body);
    assert_ok(qn_json_int(qn_json_find(qn_json_root(doc), "usage"), "total_tokens", 0, 1000, &all));
    assert_int_equal(all, 96);
    qn_json_close(&doc);
    http_free(&a);
}

static void test_chat(void **state)
{
    (void)state;
    http_answer a = ask("/v1/chat/completions",
                        "{\"messages\": [{\"role\": \"user\", \"content\": \"the dog\"}], "
                        "\"max_tokens\": 5, \"n\": 3, \"seed\": 4, \"logprobs\": true, "
                        "\"top_logprobs\": 2}");
    assert_int_equal(a.status, 200);
    qn_json_doc *doc = document(a.body);
    qn_json choices = qn_json_find(qn_json_root(doc), "choices");
    assert_int_equal(qn_json_count(choices), 3);
    for (qn_json c = qn_json_first(choices); c.node; c = qn_json_next(c)) {
        const char *role, *text;
        qn_json message = qn_json_find(c, "message");
        assert_ok(qn_json_string(message, "role", &role));
        assert_ok(qn_json_string(message, "content", &text));
        assert_string_equal(role, "assistant");
        qn_json list = qn_json_find(qn_json_find(c, "logprobs"), "content");
        for (qn_json t = qn_json_first(list); t.node; t = qn_json_next(t)) {
            double logprob, best;
            assert_ok(qn_json_number(t, "logprob", -INFINITY, 0, &logprob));
            qn_json top = qn_json_find(t, "top_logprobs");
            assert_int_equal(qn_json_count(top), 2);
            assert_ok(qn_json_number(qn_json_first(top), "logprob", -INFINITY, 0, &best));
            assert_true(best >= logprob);
        }
    }
    qn_json_close(&doc);
    http_free(&a);
}

static void test_stream(void **state)
{
    (void)state;
    static const char options[] =
        "\"temperature\": 1.5, \"seed\": 9, \"n\": 2, \"max_tokens\": 20, "
        "\"logprobs\": true, \"stop\": \"d\"";
    static const char chat_prompt[] = "\"messages\": [{\"role\": \"user\", \"content\": \"the \"}]";
    for (int is_chat = 0; is_chat < 2; is_chat++) {
        const char *path = is_chat ? "/v1/chat/completions" : "/v1/completions";
        const char *prompt = is_chat ? chat_prompt : "\"prompt\": \"the \"";
        char body[512];
        stream s;
        snprintf(body, sizeof body,
                 "{%s, %s, \"stream\": true, \"stream_options\": "
                 "{\"include_usage\": true}}",
                 prompt, options);
        http_answer a = ask(path, body);
        assert_int_equal(a.status, 200);
        assert_non_null(strstr(a.head, "text/event-stream"));
        read_stream(a.body, is_chat, &s);
        http_free(&a);
        snprintf(body, sizeof body, "{%s, %s}", prompt, options);
        a = ask(path, body);
        qn_json_doc *doc = document(a.body);
        int64_t written;
        assert_ok(qn_json_int(qn_json_find(qn_json_root(doc), "usage"), "completion_tokens", 0, 99,
                              &written));
        assert_int_equal(written, s.usage);
        int i = 0;
        for (qn_json c = first_choice(doc); c.node; c = qn_json_next(c), i++) {
            const char *text, *why;
            qn_json from = is_chat ? qn_json_find(c, "message") : c;
            assert_ok(qn_json_string(from, is_chat ? "content" : "text", &text));
            assert_ok(qn_json_string(c, "finish_reason", &why));
            assert_string_equal(text, s.text[i]);
            assert_string_equal(why, s.why[i]);
            assert_null(strchr(text, 'd'));
        }
        assert_int_equal(i, 2);
        qn_json_close(&doc);
        http_free(&a);
    }
}

static void test_tokens(void **state)
{
    (void)state;
    http_answer a = ask("/tokenize", "{\"content\": \"the\\u00e9\"}");
    assert_int_equal(a.status, 200);
    char body[256];
    assert_int_equal(strncmp(a.body, "{\"tokens\":[", 11), 0);
    snprintf(body, sizeof body, "%s", a.body);
    http_free(&a);
    a = ask("/detokenize", body);
    assert_string_equal(a.body, "{\"content\":\"the\xc3\xa9\"}");
    http_free(&a);
}

static void test_about(void **state)
{
    (void)state;
    http_answer a = http(shared.port, "GET", "/v1/models", NULL, NULL);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "\"id\":\"tiny\""));
    http_free(&a);
    a = http(shared.port, "GET", "/v1/models/tiny", NULL, NULL);
    assert_int_equal(a.status, 200);
    http_free(&a);
    a = http(shared.port, "GET", "/v1/models/other", NULL, NULL);
    assert_int_equal(a.status, 404);
    http_free(&a);
    a = http(shared.port, "GET", "/metrics", NULL, NULL);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "# TYPE quoin:tokens_predicted_total counter\nquoin:tokens_"));
    http_free(&a);
    a = http(shared.port, "GET", "/", NULL, NULL);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.head, "Content-Security-Policy: default-src 'none'"));
    assert_non_null(strstr(a.body, "</html>"));
    assert_null(strstr(a.body, "http://")); // nothing from elsewhere
    assert_null(strstr(a.body, "https://"));
    http_free(&a);
    a = http(shared.port, "HEAD", "/", NULL, NULL);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "");
    http_free(&a);
}

// ------------------------------------------------------------------------------ refusals

static void test_refusals(void **state)
{
    (void)state;
    static const char long_prompt[] = "{\"prompt\": \"the cat sat on the mat, and the dog sat by "
                                      "the door. the cat sat on the mat, "
                                      "and the dog sat by the door.\"}";
    static const struct {
        const char *method, *path, *headers, *body;
        int status;
        const char *part, *head;
    } rows[] = {
        { "GET", "/nothing", NULL, NULL, 404, "there is no /nothing", NULL },
        { "GET", "/v1/completions", NULL, NULL, 405, "expected POST", "Allow: POST" },
        { "DELETE", "/health", NULL, NULL, 405, "expected GET", "Allow: GET" },
        { "POST", "/v1/completions", "Content-Type: text/plain\r\n", "{}", 415, "found text/plain",
          NULL },
        { "POST", "/v1/completions", "Content-Type: application/jsonx\r\n", "{}", 415, "jsonx",
          NULL },
        { "POST", "/v1/completions", NULL, "", 400, "empty", NULL },
        { "POST", "/v1/completions", NULL, "{\"prompt\": ", 400, "line 1", NULL },
        { "POST", "/v1/completions", NULL, long_prompt, 400, "context_length_exceeded", NULL },
        { "POST", "/v1/chat/completions", NULL, "{\"messages\": 1}", 400, "messages", NULL },
        { "POST", "/tokenize", NULL, "{}", 400, "content", NULL },
        { "GET", "/health", "Origin: https://evil.example\r\n", NULL, 403, "--origin", NULL },
        { "GET", "/health", "Origin: null\r\n", NULL, 403, "--origin", NULL },
        { "GET", "/health", "Origin: http://localhost.evil.example\r\n", NULL, 403, "", NULL },
        { "GET", "/health", "Origin: http://localhost:3000\r\n", NULL, 200, "ok",
          "Access-Control-Allow-Origin: http://localhost:3000" },
        { "GET", "/health", "Origin: https://page.example\r\n", NULL, 200, "ok",
          "Access-Control-Allow-Origin: https://page.example" },
        { "OPTIONS", "/v1/completions",
          "Origin: http://127.0.0.1\r\nAccess-Control-Request-Headers: x-a, authorization\r\n",
          NULL, 204, "", "Access-Control-Allow-Headers: x-a, authorization" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        http_answer a =
            http(shared.port, rows[i].method, rows[i].path, rows[i].headers, rows[i].body);
        bool shaped = a.status < 300 || strstr(a.body, "{\"error\":{\"message\":\"") == a.body;
        if (a.status != rows[i].status || !strstr(a.body, rows[i].part) || !shaped ||
            (rows[i].head && !strstr(a.head, rows[i].head)))
            fail_msg("row %zu: %d '%s'\n%s", i, a.status, a.body, a.head);
        http_free(&a);
    }
}

static void test_huge_bodies(void **state)
{
    (void)state;
    static const size_t sizes[] = { 65537, 300000, 10000000 };
    for (size_t i = 0; i < 3; i++) {
        char *body = malloc(sizes[i] + 1);
        memset(body, ' ', sizes[i]);
        body[sizes[i]] = 0;
        http_answer a = ask("/v1/completions", body);
        // The last is refused before it was sent: its sender may find the connection closed.
        if (a.status != 413 && !(i == 2 && a.status == 0)) fail_msg("%zu: %d", i, a.status);
        http_free(&a);
        free(body);
    }
    // Without a length.
    int fd = http_connect(shared.port);
    static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: "
                               "application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    char chunk[8192 + 16];
    int n = sprintf(chunk, "2000\r\n");
    memset(chunk + n, ' ', 8192);
    memcpy(chunk + n + 8192, "\r\n", 2);
    assert_true(http_send(fd, head, strlen(head)));
    int sent = 0;
    while (sent < 1000 && http_send(fd, chunk, (size_t)n + 8194)) sent++;
    assert_true(sent < 1000); // it was cut off at some time
    close(fd);
}

static void test_key(void **state)
{
    (void)state;
    running r;
    start(&r, &(settings){ .key = "secret", .slots = 1 });
    static const struct {
        const char *path, *headers;
        int status;
    } rows[] = {
        { "/health", NULL, 200 },
        { "/", NULL, 200 },
        { "/v1/models", NULL, 401 },
        { "/metrics", NULL, 401 },
        { "/v1/models", "Authorization: Bearer wrong\r\n", 401 },
        { "/v1/models", "Authorization: Bearer secret1\r\n", 401 },
        { "/v1/models", "Authorization: Bearer secre\r\n", 401 },
        { "/v1/models", "Authorization: Bearer \r\n", 401 },
        { "/v1/models", "Authorization: secret\r\n", 401 },
        { "/v1/models", "Authorization: Bearer secret\r\n", 200 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        http_answer a = http(r.port, "GET", rows[i].path, rows[i].headers, NULL);
        if (a.status != rows[i].status) fail_msg("row %zu: %d", i, a.status);
        if (a.status == 401) assert_non_null(strstr(a.body, "invalid_api_key"));
        http_free(&a);
    }
    finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completion),  cmocka_unit_test(test_chat),
        cmocka_unit_test(test_stream),      cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_about),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_huge_bodies), cmocka_unit_test(test_key),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}

#else

static void test_absent(void **state)
{
    (void)state;
    qn_server *s;
    assert_fails(qn_server_start(&(qn_server_opts){ 0 }, &s), QN_ERR_UNSUPPORTED, "libmicrohttpd");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_absent) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
