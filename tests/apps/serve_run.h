// A server over a tiny trained model, in a thread of the test.
#ifndef QN_TEST_SERVE_RUN_H
#define QN_TEST_SERVE_RUN_H

#include "http_client.h"
#include "io/json.h"
#include "llm/generate.h"
#include "serve/server.h"
#include "tiny_lm.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static char folder_dir[512];
static qn_folder folder;
static qn_chat chat;

typedef struct running {
    qn_server *server;
    qn_runner *runner;
    pthread_t thread;
    atomic_bool stop;
    qn_served what;
    qn_result result;
    int port;
} running;

static inline bool wants_stop(void *user)
{
    return atomic_load((atomic_bool *)user);
}

static inline void *serve_on(void *user)
{
    running *r = user;
    r->result = qn_server_run(r->server, &r->what);
    return NULL;
}

static const char *const allowed[] = { "https://page.example" };

typedef struct settings {
    const char *key;
    int64_t slots, context, queue;
    double seconds, drain, client_seconds;
} settings;

static inline void start(running *r, const settings *s)
{
    *r = (running){ 0 };
    const qn_server_opts o = { .key = s->key,
                               .origins = allowed,
                               .origin_count = 1,
                               .body = 65536,
                               .client_seconds = s->client_seconds ? s->client_seconds : 300,
                               .connections = 128 };
    const qn_runner_opts ro = { .slots = s->slots ? s->slots : 3,
                                .context = s->context ? s->context : 96,
                                .chunk = 16 };
    assert_ok(qn_server_start(&o, &r->server));
    assert_ok(qn_runner_create(qn_test_device(), &folder.config, folder.weights, &ro, &r->runner));
    r->port = qn_server_port(r->server);
    r->what = (qn_served){
        .model = "tiny",
        .chat = &chat,
        .config = &folder.config,
        .limits = { .chat = &chat,
                    .vocab_size = folder.config.vocab_size,
                    .bos = folder.config.bos_token_id,
                    .context = ro.context },
        .scheduler = { .queue = s->queue ? s->queue : 64,
                       .seconds = s->seconds,
                       .drain_seconds = s->drain,
                       .seed = 1 },
        .loop = { .runner = r->runner, .chunk = ro.chunk, .stop = wants_stop, .user = &r->stop },
    };
    http_answer a = http(r->port, "GET", "/health", NULL, NULL);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "Loading model"));
    http_free(&a);
    a = http(r->port, "POST", "/v1/completions", NULL, "{}");
    assert_int_equal(a.status, s->key ? 401 : 503);
    http_free(&a);
    assert_int_equal(pthread_create(&r->thread, NULL, serve_on, r), 0);
    for (int i = 0; i < 1000; i++) { // until the thread is there
        a = http(r->port, "GET", "/health", NULL, NULL);
        bool ready = a.status == 200;
        http_free(&a);
        if (ready) return;
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    fail_msg("the server is not ready");
}

static inline void finish(running *r)
{
    atomic_store(&r->stop, true);
    pthread_join(r->thread, NULL);
    assert_ok(r->result);
    qn_server_stop(&r->server);
    qn_runner_destroy(&r->runner);
}

static running shared; // by most tests

static inline int setup(void **state)
{
    if (scratch_make(state) != 0) return -1;
    snprintf(folder_dir, sizeof folder_dir, "%s", scratch("m"));
    tiny_train(folder_dir, 60);
    assert_ok(qn_folder_open(qn_test_device(), folder_dir, QN_F32, &folder));
    assert_ok(qn_chat_open(folder_dir, NULL, folder.tokenizer, folder.config.eos_token_id, &chat));
    start(&shared, &(settings){ 0 });
    return 0;
}

static inline int teardown(void **state)
{
    finish(&shared);
    qn_folder_close(&folder);
    return scratch_remove(state);
}

static inline qn_json_doc *document(const char *text)
{
    qn_json_doc *doc;
    assert_ok(qn_json_parse("answer", text, strlen(text), NULL, &doc));
    return doc;
}

static inline http_answer ask(const char *path, const char *body)
{
    return http(shared.port, "POST", path, NULL, body);
}

static inline qn_json first_choice(const qn_json_doc *doc)
{
    return qn_json_first(qn_json_find(qn_json_root(doc), "choices"));
}

// The texts and reasons of a stream's choices, put together; checks the frame.
typedef struct stream {
    char text[4][1024];
    char why[4][16];
    int64_t events, usage; // usage: completion_tokens of the last event
} stream;

static inline void read_stream(const char *body, bool is_chat, stream *s)
{
    *s = (stream){ .usage = -1 };
    bool done = false;
    char id[64] = "";
    for (const char *line = body; *line;) {
        const char *end = strstr(line, "\n\n");
        assert_non_null(end);
        assert_int_equal(strncmp(line, "data: ", 6), 0);
        assert_false(done);
        size_t n = (size_t)(end - line) - 6;
        if (n == 6 && !strncmp(line + 6, "[DONE]", 6)) {
            done = true;
        } else {
            qn_json_doc *doc;
            const char *own, *object;
            assert_ok(qn_json_parse("event", line + 6, n, NULL, &doc));
            qn_json root = qn_json_root(doc), c = qn_json_first(qn_json_find(root, "choices"));
            assert_ok(qn_json_string(root, "id", &own));
            assert_ok(qn_json_string(root, "object", &object));
            assert_string_equal(object, is_chat ? "chat.completion.chunk" : "text_completion");
            if (*id) assert_string_equal(id, own);
            snprintf(id, sizeof id, "%s", own);
            if (!c.node) {
                assert_ok(qn_json_int(qn_json_find(root, "usage"), "completion_tokens", 0, 10000,
                                      &s->usage));
            } else {
                const char *text, *why;
                int64_t index;
                assert_ok(qn_json_int(c, "index", 0, 3, &index));
                qn_json from = is_chat ? qn_json_find(c, "delta") : c;
                assert_ok(qn_json_string_or(from, is_chat ? "content" : "text", "", &text));
                assert_ok(qn_json_string_or(c, "finish_reason", "", &why));
                assert_string_equal(s->why[index], ""); // nothing behind the end
                strncat(s->text[index], text, sizeof s->text[0] - strlen(s->text[index]) - 1);
                snprintf(s->why[index], sizeof s->why[0], "%s", why);
                s->events++;
            }
            qn_json_close(&doc);
        }
        line = end + 2;
    }
    assert_true(done);
}

#endif
