// Many clients at once against a running server: answers whole and streamed, compared with what the
// idle server said; clients that leave; garbage. Meanwhile another one asks /health. Not a test:
// tools/load-serve.sh runs it.
//     load_serve PORT SECONDS CLIENTS PID
#include "../support/http_client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { TEXTS = 24, TEXT_BYTES = 4096, MOST_TIMES = 1 << 20 };

static int port;
static atomic_bool over;
static char expected[TEXTS][TEXT_BYTES];
static atomic_long whole, streamed, left, garbage, refused, wrong, lost;
static double *times;
static size_t time_count;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void body_of(int text, bool streaming, char out[512])
{
    static const char *const prompts[] = { "the cat", "a", "once upon a time",
                                           "0 1 2 3", "",  "\\n\\n" };
    snprintf(out, 512,
             "{\"prompt\": \"%s\", \"max_tokens\": %d, \"temperature\": 1, \"seed\": %d, "
             "\"ignore_eos\": true%s}",
             prompts[text % 6], 4 + text, text, streaming ? ", \"stream\": true" : "");
}

// The values of "text" members, one after the other, as JSON spells them.
static void texts_of(const char *body, char out[TEXT_BYTES])
{
    size_t n = 0;
    for (const char *at = body; (at = strstr(at, "\"text\":\""));) {
        at += strlen("\"text\":\"");
        for (; *at && *at != '"' && n + 3 < TEXT_BYTES; at++) {
            if (*at == '\\') out[n++] = *at++;
            out[n++] = *at;
        }
    }
    out[n] = 0;
}

static void ask(int text, bool streaming)
{
    char body[512], got[TEXT_BYTES];
    body_of(text, streaming, body);
    http_answer a = http(port, "POST", "/v1/completions", NULL, body);
    if (a.status == 503) {
        atomic_fetch_add(&refused, 1);
    } else if (a.status != 200) {
        atomic_fetch_add(&lost, 1);
        fprintf(stderr, "status %d: %.200s\n", a.status, a.status ? a.body : "no answer");
    } else {
        texts_of(a.body, got);
        bool ended = !streaming || strstr(a.body, "data: [DONE]");
        if (strcmp(got, expected[text]) || !ended) {
            atomic_fetch_add(&wrong, 1);
            fprintf(stderr, "wrong: '%s', expected '%s'\n", got, expected[text]);
        }
        atomic_fetch_add(streaming ? &streamed : &whole, 1);
    }
    http_free(&a);
}

static void leave_early(unsigned *seed)
{
    char body[512], head[256], some[512];
    snprintf(body, sizeof body,
             "{\"prompt\": \"the\", \"max_tokens\": 400, \"ignore_eos\": true%s}",
             rand_r(seed) % 2 ? ", \"stream\": true" : "");
    int fd = http_connect(port);
    if (fd < 0) return;
    int n = snprintf(head, sizeof head,
                     "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n",
                     strlen(body));
    http_send(fd, head, (size_t)n);
    http_send(fd, body, (size_t)rand_r(seed) % 4 ? strlen(body) : strlen(body) / 2);
    if (rand_r(seed) % 2) {
        struct timeval patience = { .tv_usec = 20000 };
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (recv(fd, some, sizeof some, 0) < 0) some[0] = 0;
    }
    close(fd);
    atomic_fetch_add(&left, 1);
}

static void send_garbage(unsigned *seed)
{
    static const char *const bodies[] = {
        "{\"prompt\": ", "[]", "{\"prompt\": 3}",
        "\xff\xfe",      "{}", "{\"prompt\": \"a\", \"temperature\": \"hot\"}"
    };
    char bytes[300];
    switch (rand_r(seed) % 3) {
    case 0: {
        int fd = http_connect(port);
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)rand_r(seed);
        http_send(fd, bytes, sizeof bytes);
        close(fd);
        break;
    }
    case 1: {
        http_answer a = http(port, "POST", "/v1/chat/completions", NULL, bodies[rand_r(seed) % 6]);
        if (a.status != 400) atomic_fetch_add(&lost, 1);
        http_free(&a);
        break;
    }
    default: {
        http_answer a = http(port, "BREW", "/coffee", "Content-Type: x\r\n", "y");
        if (a.status != 404) atomic_fetch_add(&lost, 1);
        http_free(&a);
    }
    }
    atomic_fetch_add(&garbage, 1);
}

static void *client(void *user)
{
    unsigned seed = (unsigned)(intptr_t)user * 7919u + 1;
    while (!atomic_load(&over)) {
        switch (rand_r(&seed) % 8) {
        case 0:
            leave_early(&seed);
            break;
        case 1:
            send_garbage(&seed);
            break;
        case 2:
        case 3:
        case 4:
            ask(rand_r(&seed) % TEXTS, false);
            break;
        default:
            ask(rand_r(&seed) % TEXTS, true);
        }
    }
    return NULL;
}

static void *watch_health(void *user)
{
    (void)user;
    while (!atomic_load(&over)) {
        double start = now();
        http_answer a = http(port, "GET", "/health", NULL, NULL);
        if (a.status != 200) atomic_fetch_add(&lost, 1);
        http_free(&a);
        if (time_count < MOST_TIMES) times[time_count++] = now() - start;
        nanosleep(&(struct timespec){ .tv_nsec = 20 * 1000 * 1000 }, NULL);
    }
    return NULL;
}

static long resident_kib(int pid)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return kib;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s PORT SECONDS CLIENTS PID\n", argv[0]);
        return 2;
    }
    port = atoi(argv[1]);
    const int seconds = atoi(argv[2]), clients = atoi(argv[3]), pid = atoi(argv[4]);
    times = malloc(MOST_TIMES * sizeof *times);
    pthread_t *threads = calloc((size_t)clients + 1, sizeof *threads);
    for (int i = 0; i < TEXTS; i++) {
        char body[512];
        body_of(i, false, body);
        http_answer a = http(port, "POST", "/v1/completions", NULL, body);
        texts_of(a.body, expected[i]);
        http_free(&a);
    }
    for (intptr_t i = 0; i < clients; i++) pthread_create(&threads[i], NULL, client, (void *)i);
    pthread_create(&threads[clients], NULL, watch_health, NULL);
    long memory[3] = { 0 };
    for (int k = 0; k < 3; k++) { // after a third of the time everything was used once
        nanosleep(&(struct timespec){ .tv_sec = seconds / 3 }, NULL);
        memory[k] = resident_kib(pid);
    }
    atomic_store(&over, true);
    for (int i = 0; i <= clients; i++) pthread_join(threads[i], NULL);
    qsort(times, time_count, sizeof *times, by_value);
    double p99 = time_count ? times[time_count * 99 / 100] : 9;
    printf(
        "whole answers   %8ld\nstreams         %8ld\nleft early      %8ld\ngarbage         %8ld\n"
        "refused (503)   %8ld\nwrong           %8ld\nlost            %8ld\n",
        atomic_load(&whole), atomic_load(&streamed), atomic_load(&left), atomic_load(&garbage),
        atomic_load(&refused), atomic_load(&wrong), atomic_load(&lost));
    printf("/health, ms     median %.2f, p99 %.2f, longest %.2f of %zu\n",
           1e3 * (time_count ? times[time_count / 2] : 0), 1e3 * p99,
           1e3 * (time_count ? times[time_count - 1] : 0), time_count);
    printf("resident, KiB   %ld, %ld, %ld after each third\n", memory[0], memory[1], memory[2]);
    bool good = !wrong && !lost && p99 < 0.05 && memory[2] && memory[2] <= memory[0] * 21 / 20;
    printf("%s\n", good ? "good" : "BAD");
    free(times);
    free(threads);
    return good ? 0 : 1;
}
