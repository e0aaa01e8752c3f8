// HTTP over libmicrohttpd. A few threads answer connections; what takes time is a job of the
// scheduler, and the connection sleeps until the job has something to say.
#include "visit.h"
#include "fail.h"
#include "listen.h"
#include "mem.h"
#include "platform.h"

#ifdef QN_HAVE_MICROHTTPD
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    THREADS = 4,
    MEMORY = 64 << 10, // of a connection: headers and one block of an answer
    BLOCK = 16 << 10,  // of a stream
    DRAINED = 8,       // bodies up to so many times the limit are read to their end, since a
                       // client that is still sending does not see an early answer
    FLUSH_SECONDS = 2, // for answers to leave when the server stops
};

struct qn_server {
    qn_server_opts o;
    struct MHD_Daemon *daemon;
    int fd, port;
    bool loopback;
    double started;
    _Atomic(const qn_served *) served;
    qn_served own; // what `served` points to
    qn_scheduler *scheduler;
    qn_http_figures figures;
};

const qn_served *qn_server_served(const qn_server *s)
{
    return atomic_load(&s->served);
}

qn_scheduler *qn_server_scheduler(const qn_server *s)
{
    return s->scheduler;
}

const qn_http_figures *qn_server_figures(const qn_server *s)
{
    return &s->figures;
}

double qn_server_age(const qn_server *s)
{
    return qn_clock() - s->started;
}

int qn_server_port(const qn_server *s)
{
    return s->port;
}

static const char *header(const qn_visit *v, const char *name)
{
    return MHD_lookup_connection_value(v->connection, MHD_HEADER_KIND, name);
}

// ------------------------------------------------------------------------------ checks

// Compares without telling by its time how much of the key was right.
static bool same_key(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned char different = n != m;
    for (size_t i = 0; i < n; i++) different |= (unsigned char)(a[i] ^ b[i % (m + 1)]);
    return !different;
}

static bool has_key(const qn_visit *v)
{
    const char *given = header(v, "Authorization");
    return given && !strncmp(given, "Bearer ", 7) && same_key(given + 7, v->s->o.key);
}

// "http://HOST" and perhaps a port, for the names of this machine.
static bool is_local_origin(const char *origin)
{
    static const char *const hosts[] = { "localhost", "127.0.0.1", "[::1]" };
    const char *host = strstr(origin, "://");
    if (!host) return false;
    host += 3;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        size_t n = strlen(hosts[i]);
        if (!strncmp(host, hosts[i], n) && (!host[n] || host[n] == ':')) return true;
    }
    return false;
}

// Web pages of strangers must not use a server that its owner's browser can reach. Where only this
// machine can connect, a page's own host proves nothing: any name can be made to lead here.
static bool allowed_origin(const qn_visit *v, const char *origin)
{
    const qn_server *s = v->s;
    if (!origin || is_local_origin(origin)) return true;
    for (size_t i = 0; i < s->o.origin_count; i++)
        if (!strcmp(s->o.origins[i], "*") || !strcmp(s->o.origins[i], origin)) return true;
    const char *host = header(v, "Host"), *own = strstr(origin, "://");
    return !s->loopback && host && own && !strcmp(own + 3, host);
}

static bool is_json(const char *type)
{
    const char *const json = "application/json";
    size_t n = strlen(json);
    return type && !strncasecmp(type, json, n) && (!type[n] || type[n] == ';' || type[n] == ' ');
}

// What can be said before the body is there: leaves an answer to what is refused.
static void admit(qn_visit *v, const char *url, const char *method)
{
    const char *origin = header(v, "Origin"), *length = header(v, "Content-Length");
    const uint64_t size = length ? strtoull(length, NULL, 10) : 0;
    const bool head = !strcmp(method, "HEAD");
    if (!allowed_origin(v, origin)) {
        qn_visit_fail(v, 403, NULL,
                      "pages of %.100s may not use this server; its owner can allow "
                      "them with --origin",
                      origin);
    } else if (!strcmp(method, "OPTIONS")) {
        v->status = 204;
    } else if (!v->route) {
        qn_visit_fail(v, 404, NULL, "there is no %.100s here", url);
    } else if (strcmp(method, v->route->method) && !(head && !strcmp(v->route->method, "GET"))) {
        qn_visit_fail(v, 405, NULL, "%.100s: found the method %.20s, expected %s", url, method,
                      v->route->method);
    } else if (v->s->o.key && !(v->route->flags & QN_ROUTE_OPEN) && !has_key(v)) {
        qn_visit_fail(v, 401, "invalid_api_key",
                      "a key is needed: send it in the header Authorization: Bearer KEY");
    } else if (!(v->route->flags & QN_ROUTE_EARLY) && !qn_server_served(v->s)) {
        qn_visit_fail(v, 503, NULL, "Loading model");
    } else if (!strcmp(v->route->method, "POST") && !is_json(header(v, "Content-Type"))) {
        const char *type = header(v, "Content-Type");
        qn_visit_fail(v, 415, NULL, "Content-Type: found %.100s, expected application/json",
                      type ? type : "nothing");
    } else if (size > DRAINED * v->s->o.body) {
        qn_visit_fail(v, 413, NULL, "a body of %llu bytes: at most %llu are read",
                      (unsigned long long)size, (unsigned long long)v->s->o.body);
    }
}

static const qn_path *find_route(const char *url)
{
    for (int i = 0; i < QN_ROUTE_COUNT; i++) {
        const qn_path *r = &qn_paths[i];
        const char *names[] = { r->path, r->alias };
        for (int k = 0; k < 2; k++) {
            if (!names[k]) continue;
            size_t n = strlen(names[k]);
            bool folder = n > 1 && names[k][n - 1] == '/'; // something follows
            if (folder ? !strncmp(url, names[k], n) && url[n] : !strcmp(url, names[k])) return r;
        }
    }
    return NULL;
}

// ------------------------------------------------------------------------------ answers

static void count_answer(qn_visit *v)
{
    const int row = v->route ? (int)(v->route - qn_paths) : QN_ROUTE_COUNT;
    const int hundred = v->status / 100;
    if (hundred > 1 && hundred < 6) atomic_fetch_add(&v->s->figures.answers[row][hundred], 1);
}

static void add_headers(const qn_visit *v, struct MHD_Response *r)
{
    static const char *const fixed[][2] = {
        { "X-Content-Type-Options", "nosniff" },
        { "Referrer-Policy", "no-referrer" },
        { "Cache-Control", "no-store" },
    };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        MHD_add_response_header(r, fixed[i][0], fixed[i][1]);
    MHD_add_response_header(r, "Content-Type", v->type ? v->type : "application/json");
    if (v->type && strstr(v->type, "text/html"))
        MHD_add_response_header(r, "Content-Security-Policy",
                                "default-src 'none'; style-src 'unsafe-inline'; script-src "
                                "'unsafe-inline'; connect-src 'self'; img-src data:; base-uri "
                                "'none'; form-action 'none'; frame-ancestors 'none'");
    if (v->status == 401) MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (v->status == 405) MHD_add_response_header(r, "Allow", v->route->method);
    if (v->status == 503) MHD_add_response_header(r, "Retry-After", "1");
    const char *origin = header(v, "Origin");
    if (!origin || !allowed_origin(v, origin)) return;
    const char *asked = header(v, "Access-Control-Request-Headers");
    MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(r, "Vary", "Origin");
    MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    if (asked) MHD_add_response_header(r, "Access-Control-Allow-Headers", asked);
    MHD_add_response_header(r, "Access-Control-Max-Age", "600");
}

static enum MHD_Result queue(qn_visit *v, struct MHD_Response *r)
{
    if (!r) return MHD_NO;
    add_headers(v, r);
    v->queued = true;
    count_answer(v);
    enum MHD_Result result = MHD_queue_response(v->connection, (unsigned)v->status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result answer_text(qn_visit *v)
{
    if (v->out.failed) qn_visit_fail(v, 500, NULL, "out of memory");
    if (v->out.failed) return MHD_NO;
    return queue(
        v, MHD_create_response_from_buffer(v->out.size, (void *)(uintptr_t)qn_textbuf_get(&v->out),
                                           MHD_RESPMEM_PERSISTENT)); // as long as the visit
}

static ssize_t read_stream(void *user, uint64_t at, char *data, size_t size)
{
    (void)at;
    qn_visit *v = user;
    int64_t n = qn_job_read(v->job, data, size);
    return n < 0 ? MHD_CONTENT_READER_END_OF_STREAM : (ssize_t)n;
}

static enum MHD_Result answer_stream(qn_visit *v)
{
    v->status = 200;
    v->type = "text/event-stream";
    return queue(v,
                 MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_stream, v, NULL));
}

// The job's answer, or sleep until there is one.
static enum MHD_Result answer_job(qn_visit *v)
{
    if (qn_job_request(v->job)->stream) return answer_stream(v);
    if (!qn_job_ended(v->job)) return MHD_YES;
    v->status = qn_job_result(v->job, &v->out);
    return answer_text(v);
}

static void client_sleep(void *client)
{
    MHD_suspend_connection(((qn_visit *)client)->connection);
}

static void client_wake(void *client)
{
    MHD_resume_connection(((qn_visit *)client)->connection);
}

static bool client_gone(void *client)
{
    return qn_peer_gone(((qn_visit *)client)->fd);
}

// ------------------------------------------------------------------------------ connections

static qn_visit *begin_visit(qn_server *s, struct MHD_Connection *c, const char *url,
                             const char *method)
{
    qn_visit *v = qn_calloc(1, sizeof *v);
    if (!v) return NULL;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    *v = (qn_visit){ .s = s,
                     .connection = c,
                     .fd = info ? info->connect_fd : -1,
                     .route = find_route(url),
                     .started = qn_clock() };
    snprintf(v->line, sizeof v->line, "%.10s %.230s", method, url);
    atomic_fetch_add(&s->figures.visits, 1);
    return v;
}

static enum MHD_Result take_body(qn_visit *v, const char *data, size_t *size)
{
    const qn_server_opts *o = &v->s->o;
    v->received += *size;
    if (v->received <= o->body && !v->status)
        qn_textbuf_add(&v->body, data, *size);
    else
        qn_textbuf_free(&v->body);
    *size = 0;
    bool late = o->client_seconds > 0 && qn_clock() - v->started > o->client_seconds;
    return late || v->received > DRAINED * o->body ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **state)
{
    (void)version;
    qn_visit *v = *state;
    if (!v) { // the headers are there; a refusal waits for the body, as answers before it close
        *state = v = begin_visit(user, c, url, method);
        if (!v) return MHD_NO;
        admit(v, url, method);
        return v->status == 413 ? answer_text(v) : MHD_YES;
    }
    if (*size) return take_body(v, data, size);
    if (v->job) return answer_job(v); // woken
    if (v->status) return answer_text(v);
    if (v->received > v->s->o.body)
        qn_visit_fail(v, 413, NULL, "a body of %llu bytes: at most %llu are read",
                      (unsigned long long)v->received, (unsigned long long)v->s->o.body);
    else if (v->body.failed)
        qn_visit_fail(v, 500, NULL, "out of memory");
    else
        v->route->handle(v);
    return v->job ? answer_job(v) : answer_text(v);
}

static void on_completed(void *user, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode why)
{
    (void)user;
    (void)c;
    qn_visit *v = *state;
    *state = NULL;
    if (!v) return;
    qn_log(QN_LOG_INFO, "%s: %d, %.1f ms%s", v->line, v->status, 1e3 * (qn_clock() - v->started),
           why == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "" : ", the client has gone");
    qn_job_release(&v->job);
    qn_textbuf_free(&v->body);
    qn_textbuf_free(&v->out);
    atomic_fetch_sub(&v->s->figures.visits, 1);
    qn_free(v);
}

// The library's remarks are about clients that misbehave.
static void on_log(void *user, const char *fmt, va_list ap)
{
    (void)user;
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\r\n")] = 0;
    qn_log(QN_LOG_DEBUG, "http: %s", text);
}

// ------------------------------------------------------------------------------ the server

qn_result qn_server_start(const qn_server_opts *opts, qn_server **out)
{
    *out = NULL;
    qn_server *s = qn_calloc(1, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    s->o = *opts;
    s->started = qn_clock();
    qn_result r = qn_listen(opts->host ? opts->host : "127.0.0.1", opts->port, &s->fd, &s->port,
                            &s->loopback);
    if (r != QN_OK) {
        qn_free(s);
        return r;
    }
    s->daemon = MHD_start_daemon(
        MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, s->fd,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)(opts->connections > THREADS ? opts->connections : THREADS),
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)opts->client_seconds,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    if (!s->daemon) {
        close(s->fd);
        qn_free(s);
        return qn_fail(QN_ERR_IO, "the HTTP library did not start; the system may be short of "
                                  "threads or file descriptors");
    }
    *out = s;
    return QN_OK;
}

void qn_server_stop(qn_server **server)
{
    qn_server *s = *server;
    *server = NULL;
    if (!s) return;
    MHD_quiesce_daemon(s->daemon); // leaves the socket to us
    MHD_stop_daemon(s->daemon);
    qn_scheduler_destroy(&s->scheduler);
    close(s->fd);
    qn_free(s);
}

// No new connections; then the answers that are ready leave.
static void flush_answers(qn_server *s)
{
    MHD_quiesce_daemon(s->daemon);
    const double end = qn_clock() + FLUSH_SECONDS;
    while (atomic_load(&s->figures.visits) && qn_clock() < end)
        nanosleep(&(struct timespec){ .tv_nsec = 5 * 1000 * 1000 }, NULL);
}

qn_result qn_server_run(qn_server *s, const qn_served *what)
{
    s->own = *what;
    qn_scheduler_opts *o = &s->own.scheduler;
    o->chat = what->chat;
    o->model = what->model;
    o->sleep = client_sleep;
    o->wake = client_wake;
    o->gone = client_gone;
    QN_TRY(qn_scheduler_create(o, &s->scheduler));
    atomic_store(&s->served, &s->own);
    qn_result r = qn_scheduler_run(s->scheduler, &s->own.loop);
    flush_answers(s);
    return r;
}

#else

qn_result qn_server_start(const qn_server_opts *opts, qn_server **out)
{
    (void)opts;
    *out = NULL;
    return qn_fail(QN_ERR_UNSUPPORTED, "this quoin was built without libmicrohttpd and cannot "
                                       "serve; install it (Debian: libmicrohttpd-dev) and build "
                                       "again");
}

int qn_server_port(const qn_server *s)
{
    (void)s;
    return 0;
}

void qn_server_stop(qn_server **s)
{
    *s = NULL;
}

qn_result qn_server_run(qn_server *s, const qn_served *what)
{
    (void)s;
    (void)what;
    return QN_ERR_UNSUPPORTED;
}

#endif
