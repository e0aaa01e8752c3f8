// The server with many clients, and with those that leave, dawdle or send nonsense: what happens to
// everybody else.
#include "cli/command.h"
#include "serve_run.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#ifdef QN_HAVE_MICROHTTPD

// ------------------------------------------------------------------------------ many at once

enum { CLIENTS = 8, ROUNDS = 3 };

static void body_of(int client, int round, bool streaming, char *out, size_t size)
{
    static const char *const prompts[] = {
        "the cat", "the dog sat by the door.\\nthe", "a", "", "and the dog sat on", "x y z"
    };
    snprintf(out, size,
             "{\"prompt\": \"%s\", \"max_tokens\": %d, \"temperature\": 1.2, \"seed\": %d%s}",
             prompts[(client + round) % 6], 5 + 3 * ((client * 7 + round) % 6), client * 10 + round,
             streaming ? ", \"stream\": true" : "");
}

static char expected[CLIENTS][ROUNDS][1024];
static atomic_int wrong;

static void text_of(const http_answer *a, bool streaming, char out[1024])
{
    snprintf(out, 1024, "status %d", a->status);
    if (a->status != 200) return;
    if (streaming) {
        stream s;
        read_stream(a->body, false, &s);
        snprintf(out, 1024, "%s", s.text[0]);
        return;
    }
    qn_json_doc *doc = document(a->body);
    const char *text;
    assert_ok(qn_json_string(first_choice(doc), "text", &text));
    snprintf(out, 1024, "%s", text);
    qn_json_close(&doc);
}

// Streams, whole answers, and between them clients that leave early or send nonsense.
static void *one_client(void *user)
{
    const int client = (int)(intptr_t)user;
    for (int round = 0; round < ROUNDS; round++) {
        char body[256], text[1024];
        bool streaming = (client + round) % 2;
        if (client % 4 == 3) {
            int fd = http_connect(shared.port);
            const char *lines =
                round == 1 ? "\x16\x03\x01 nonsense\r\n\r\n"
                           : "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-"
                             "Type: application/json\r\nContent-Length: 62\r\n\r\n"
                             "{\"prompt\": \"the\", \"max_tokens\": 80, \"ignore_eos\": true  "
                             "      }";
            http_send(fd, lines, strlen(lines));
            nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL);
            close(fd);
        }
        body_of(client, round, streaming, body, sizeof body);
        http_answer a = ask("/v1/completions", body);
        text_of(&a, streaming, text);
        if (strcmp(text, expected[client][round])) {
            atomic_fetch_add(&wrong, 1);
            print_message("client %d, round %d: '%s', expected '%s'\n", client, round, text,
                          expected[client][round]);
        }
        http_free(&a);
    }
    return NULL;
}

// What an answer says does not depend on who else is there.
static void test_many(void **state)
{
    (void)state;
    for (int i = 0; i < CLIENTS; i++) {
        for (int k = 0; k < ROUNDS; k++) {
            char body[256];
            body_of(i, k, false, body, sizeof body);
            http_answer a = ask("/v1/completions", body);
            text_of(&a, false, expected[i][k]);
            http_free(&a);
        }
    }
    pthread_t threads[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, one_client, (void *)(intptr_t)i), 0);
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
}

static double figure(int port, const char *name)
{
    http_answer a = http(port, "GET", "/metrics", NULL, NULL);
    char line[128];
    snprintf(line, sizeof line, "\nquoin:%s ", name);
    const char *at = strstr(a.body, line);
    double value = at ? atof(at + strlen(line)) : NAN;
    http_free(&a);
    return value;
}

static void wait_until(int port, const char *name, double value)
{
    for (int i = 0; i < 2000; i++) {
        if (figure(port, name) >= value) return;
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    fail_msg("%s is %g, expected %g", name, figure(port, name), value);
}

static int post(int port, const char *body)
{
    char head[256];
    int fd = http_connect(port);
    int n = snprintf(head, sizeof head,
                     "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n",
                     strlen(body));
    assert_true(http_send(fd, head, (size_t)n) && http_send(fd, body, strlen(body)));
    return fd;
}

// Answers that nobody stops: thousands of tokens.
#define LONG "{\"prompt\": \"the\", \"ignore_eos\": true, \"logit_bias\": {\"0\": -100}"

// Clients that leave free their slots, whether they streamed or waited; a full queue says so.
static void test_leaving(void **state)
{
    (void)state;
    running r;
    start(&r, &(settings){ .slots = 1, .context = 60000, .queue = 1 });
    int a = post(r.port, LONG ", \"stream\": true}");
    wait_until(r.port, "requests_processing", 1);
    int b = post(r.port, LONG "}");
    wait_until(r.port, "requests_deferred", 1);
    http_answer full = http(r.port, "POST", "/v1/completions", NULL, LONG "}");
    assert_int_equal(full.status, 503);
    assert_non_null(strstr(full.body, "waiting already"));
    assert_non_null(strstr(full.head, "Retry-After"));
    http_free(&full);
    close(a);
    wait_until(r.port, "requests_cancelled_total", 1);
    wait_until(r.port, "requests_processing", 1); // b has the slot
    close(b);
    wait_until(r.port, "requests_cancelled_total", 2);
    http_answer next =
        http(r.port, "POST", "/v1/completions", NULL, "{\"prompt\": \"the\", \"max_tokens\": 2}");
    assert_int_equal(next.status, 200);
    http_free(&next);
    finish(&r);
}

// A server that stops finishes what runs if there is time, and says so otherwise.
static void test_stopping(void **state)
{
    (void)state;
    for (int patient = 0; patient < 2; patient++) {
        running r;
        start(&r, &(settings){ .slots = 2, .context = 60000, .drain = patient ? 600 : 0 });
        char body[256];
        snprintf(body, sizeof body, LONG "%s}", patient ? ", \"max_tokens\": 200" : "");
        int whole = post(r.port, body);
        snprintf(body, sizeof body, LONG ", \"stream\": true%s}",
                 patient ? ", \"max_tokens\": 200" : "");
        int streamed = post(r.port, body);
        wait_until(r.port, "requests_processing", 2);
        finish(&r);
        char *x = http_read_all(whole, NULL), *y = http_read_all(streamed, NULL);
        if (patient) {
            assert_non_null(strstr(x, "\"finish_reason\":\"length\""));
            assert_non_null(strstr(y, "data: [DONE]"));
        } else {
            assert_non_null(strstr(x, "HTTP/1.1 503"));
            assert_non_null(strstr(x, "shutting down"));
            assert_non_null(
                strstr(y, "data: {\"error\":{\"message\":\"the server is shutting down"));
        }
        free(x);
        free(y);
        close(whole);
        close(streamed);
    }
}

static void test_slow(void **state)
{
    (void)state;
    // A request that takes too long.
    running r;
    start(&r, &(settings){ .slots = 1, .context = 60000, .seconds = 0.3 });
    http_answer a = http(r.port, "POST", "/v1/completions", NULL, LONG "}");
    assert_int_equal(a.status, 504);
    http_free(&a);
    a = http(r.port, "POST", "/v1/completions", NULL, LONG ", \"stream\": true}");
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "data: {\"error\":"));
    http_free(&a);
    finish(&r);
    // Clients that send nothing, or a body that never ends, are cut off; others go on.
    start(&r, &(settings){ .slots = 1, .client_seconds = 1 });
    int silent = http_connect(r.port);
    int slow = http_connect(r.port);
    static const char head[] = "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/"
                               "json\r\nContent-Length: 1000\r\n\r\n{";
    assert_true(http_send(slow, head, strlen(head)));
    double start_at = qn_clock();
    bool cut = false;
    while (!cut && qn_clock() - start_at < 20) {
        nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
        char byte;
        http_send(slow, " ", 1);
        ssize_t n = recv(slow, &byte, 1, MSG_DONTWAIT);
        cut = n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
        a = http(r.port, "GET", "/health", NULL, NULL);
        assert_int_equal(a.status, 200);
        http_free(&a);
    }
    assert_true(cut);
    char *rest = http_read_all(silent, NULL);
    free(rest);
    close(silent);
    close(slow);
    finish(&r);
}

// The same prompt again is not read again, and says the same.
static void test_reuse(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\": \"the cat sat on the mat, and the dog sat\", "
                               "\"max_tokens\": 6, \"temperature\": 1, \"seed\": 2}";
    running r;
    char text[3][1024];
    start(&r, &(settings){ .slots = 1 });
    for (int i = 0; i < 3; i++) {
        http_answer a = http(r.port, "POST", "/v1/completions", NULL, body);
        text_of(&a, false, text[i]);
        http_free(&a);
    }
    assert_string_equal(text[0], text[1]);
    assert_string_equal(text[0], text[2]);
    assert_true(figure(r.port, "prompt_tokens_reused_total") == 64); // 32 of 40, twice
    finish(&r);
}

// ------------------------------------------------------------------------------ the program

static pid_t run_program(char *const *args, int *out)
{
    int ends[2];
    const char *errors = scratch("stderr");
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (!child) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        int fd = open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || dup2(fd, 2) < 0) _exit(127);
        execv(args[0], args);
        _exit(127);
    }
    close(ends[1]);
    *out = ends[0];
    return child;
}

static int status_of(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_program(void **state)
{
    (void)state;
    int out, other;
    char line[128] = "", port[16], *message;
    size_t size;
    char *args[] = {
        QN_PROGRAM, "serve", folder_dir, "--port", "0", "--parallel", "1", "-q", NULL
    };
    pid_t child = run_program(args, &out);
    for (size_t n = 0; n < sizeof line - 1 && !strchr(line, '\n');) {
        ssize_t got = read(out, line + n, sizeof line - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    int number = 0;
    assert_int_equal(sscanf(line, "http://127.0.0.1:%d", &number), 1);
    snprintf(port, sizeof port, "%d", number);
    args[4] = port;
    pid_t second = run_program(args, &other); // the port is taken
    assert_int_equal(status_of(second), QN_EXIT_FAILED);
    close(other);
    scratch_read("stderr", &message, &size);
    assert_non_null(strstr(message, "another program listens there"));
    qn_free(message);
    for (int i = 0; i < 3000; i++) {
        http_answer a = http(number, "GET", "/health", NULL, NULL);
        bool ready = a.status == 200;
        http_free(&a);
        if (ready) break;
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    http_answer a =
        http(number, "POST", "/v1/completions", NULL, "{\"prompt\": \"the\", \"max_tokens\": 3}");
    assert_int_equal(a.status, 200);
    http_free(&a);
    kill(child, SIGTERM);
    assert_int_equal(status_of(child), QN_EXIT_DONE);
    close(out);

    args[2] = (char *)scratch("nowhere"); // a folder that is not there
    args[4] = "0";
    child = run_program(args, &out);
    assert_int_equal(status_of(child), QN_EXIT_FAILED);
    close(out);
    scratch_read("stderr", &message, &size);
    assert_non_null(strstr(message, "there is no such model folder"));
    qn_free(message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),     cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_stopping), cmocka_unit_test(test_slow),
        cmocka_unit_test(test_reuse),    cmocka_unit_test(test_program),
    };
    setenv("XDG_CACHE_HOME", QN_SCRATCH_DIR "/cache", 1);
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, setup, teardown) + qn_device_finish();
}

#else

int main(void)
{
    return 77; // nothing to test without libmicrohttpd
}

#endif
