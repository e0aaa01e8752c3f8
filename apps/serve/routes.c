// What each path does.
#include "visit.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// The page's HTML, made a string by tools/embed.cmake.
extern const char qn_serve_page[];

void qn_visit_fail(qn_visit *v, int status, const char *code, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    qn_textbuf_free(&v->out);
    v->status = status;
    v->type = NULL;
    qn_reply_error(status, text, code, false, &v->out);
}

void qn_visit_fail_result(qn_visit *v, qn_result r, const char *code)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", qn_error_message());
    bool theirs = r == QN_ERR_FORMAT || r == QN_ERR_INVALID || r == QN_ERR_UNSUPPORTED;
    qn_visit_fail(v, theirs ? 400 : 500, code, "%s", text);
}

// The answer is what the writer has; frees it.
static void answer_json(qn_visit *v, qn_json_writer *w)
{
    v->status = 200;
    if (w->status == QN_OK)
        qn_textbuf_add(&v->out, w->text, w->size);
    else
        qn_visit_fail_result(v, w->status == QN_ERR_INVALID ? QN_ERR_IO : w->status, NULL);
    qn_json_writer_free(w);
}

// ------------------------------------------------------------------------------ about the server

static void handle_page(qn_visit *v)
{
    v->status = 200;
    v->type = "text/html; charset=utf-8";
    qn_textbuf_puts(&v->out, qn_serve_page);
}

static void handle_health(qn_visit *v)
{
    v->status = 200;
    if (qn_server_served(v->s))
        qn_textbuf_puts(&v->out, "{\"status\":\"ok\"}");
    else
        qn_visit_fail(v, 503, NULL, "Loading model");
}

static void put_model(qn_json_writer *w, const char *key, const qn_served *m)
{
    qn_json_put_object(w, key);
    qn_json_put_string(w, "id", m->model);
    qn_json_put_string(w, "object", "model");
    qn_json_put_int(w, "created", 0);
    qn_json_put_string(w, "owned_by", "quoin");
    qn_json_put_object(w, "meta");
    qn_json_put_int(w, "n_vocab", m->config->vocab_size);
    qn_json_put_int(w, "n_ctx", m->limits.context);
    qn_json_put_int(w, "n_ctx_train", m->config->block_size);
    qn_json_put_int(w, "n_embd", m->config->n_embd);
    qn_json_put_int(w, "n_params", qn_model_count(m->config).parameters);
    qn_json_put_int(w, "size", (int64_t)m->weight_bytes);
    qn_json_put_string(w, "template", qn_chat_format_name(m->chat->format));
    qn_json_put_end(w, '}');
    qn_json_put_end(w, '}');
}

static void handle_models(qn_visit *v)
{
    qn_json_writer w = { .compact = true };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "object", "list");
    qn_json_put_array(&w, "data");
    put_model(&w, NULL, qn_server_served(v->s));
    qn_json_put_end(&w, ']');
    qn_json_put_end(&w, '}');
    answer_json(v, &w);
}

// There is one model; its name may follow the path.
static void handle_model(qn_visit *v)
{
    const qn_served *m = qn_server_served(v->s);
    const char *name = strstr(v->line, "models/") + strlen("models/");
    if (strcmp(name, m->model)) {
        qn_visit_fail(v, 404, "model_not_found", "there is no model '%s', only '%s'", name,
                      m->model);
        return;
    }
    qn_json_writer w = { .compact = true };
    put_model(&w, NULL, m);
    answer_json(v, &w);
}

static void metric(qn_textbuf *out, const char *name, const char *kind, const char *help,
                   double value)
{
    qn_textbuf_printf(out, "# HELP quoin:%s %s\n# TYPE quoin:%s %s\nquoin:%s %.15g\n", name, help,
                      name, kind, name, value);
}

static void http_metrics(qn_visit *v)
{
    const qn_http_figures *h = qn_server_figures(v->s);
    qn_textbuf_puts(&v->out, "# HELP quoin:http_requests_total Answers by path and status.\n"
                             "# TYPE quoin:http_requests_total counter\n");
    for (int i = 0; i <= QN_ROUTE_COUNT; i++) {
        for (int k = 2; k < 6; k++) {
            long long n = atomic_load(&h->answers[i][k]);
            if (!n) continue;
            qn_textbuf_printf(&v->out,
                              "quoin:http_requests_total{path=\"%s\",status=\"%dxx\"} "
                              "%lld\n",
                              i < QN_ROUTE_COUNT ? qn_paths[i].path : "other", k, n);
        }
    }
}

static void handle_metrics(qn_visit *v)
{
    const qn_scheduler_figures f = qn_scheduler_describe(qn_server_scheduler(v->s));
    qn_textbuf *out = &v->out;
    const struct {
        const char *name, *kind, *help;
        double value;
    } rows[] = {
        { "requests_processing", "gauge", "Requests that are being answered.", (double)f.running },
        { "requests_deferred", "gauge", "Requests that wait for a slot.", (double)f.waiting },
        { "slots_busy", "gauge", "Answers that are being written.", (double)f.slots_used },
        { "requests_finished_total", "counter", "Requests answered.", (double)f.finished },
        { "requests_failed_total", "counter", "Requests that failed.", (double)f.failed },
        { "requests_cancelled_total", "counter", "Requests whose client left early.",
          (double)f.cancelled },
        { "requests_refused_total", "counter", "Requests refused since the queue was full.",
          (double)f.refused },
        { "prompt_tokens_total", "counter", "Tokens of prompts.", (double)f.prompt_tokens },
        { "prompt_tokens_reused_total", "counter", "Of these, found in a slot already.",
          (double)f.reused_tokens },
        { "prompt_seconds_total", "counter", "Time to the first token, summed over answers.",
          f.prompt_seconds },
        { "tokens_predicted_total", "counter", "Tokens written.", (double)f.tokens },
        { "tokens_predicted_seconds_total", "counter",
          "Time from the first token on, summed over answers.", f.seconds },
        { "n_decode_total", "counter", "Steps of the model.", (double)f.steps },
        { "decode_seconds_total", "counter", "Time in these steps.", f.step_seconds },
        { "uptime_seconds", "gauge", "Since the server started.", qn_server_age(v->s) },
    };
    v->status = 200;
    v->type = "text/plain; version=0.0.4; charset=utf-8";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        metric(out, rows[i].name, rows[i].kind, rows[i].help, rows[i].value);
    http_metrics(v);
}

// ------------------------------------------------------------------------------ tokens

static void put_pieces(qn_json_writer *w, const qn_served *m, const qn_tokens *t)
{
    for (size_t i = 0; i < t->count; i++) {
        qn_text piece = { 0 };
        if (qn_tokenizer_decode(m->chat->tokenizer, &t->id[i], 1,
                                &(qn_decode_opts){ .repair = true }, &piece) != QN_OK)
            w->status = QN_ERR_NO_MEMORY;
        qn_json_put_object(w, NULL);
        qn_json_put_int(w, "id", t->id[i]);
        qn_json_put_text(w, "piece", strlen("piece"), piece.data ? piece.data : "", piece.size);
        qn_json_put_end(w, '}');
        qn_text_free(&piece);
    }
}

static void handle_tokenize(qn_visit *v)
{
    const qn_served *m = qn_server_served(v->s);
    qn_tokens t = { 0 };
    bool pieces = false;
    qn_result r =
        qn_request_tokenize(qn_textbuf_get(&v->body), v->body.size, &m->limits, &t, &pieces);
    if (r == QN_OK) {
        qn_json_writer w = { .compact = true };
        qn_json_put_object(&w, NULL);
        qn_json_put_array(&w, "tokens");
        if (pieces)
            put_pieces(&w, m, &t);
        else
            for (size_t i = 0; i < t.count; i++) qn_json_put_int(&w, NULL, t.id[i]);
        qn_json_put_end(&w, ']');
        qn_json_put_end(&w, '}');
        answer_json(v, &w);
    } else {
        qn_visit_fail_result(v, r, NULL);
    }
    qn_tokens_free(&t);
}

static void handle_detokenize(qn_visit *v)
{
    const qn_served *m = qn_server_served(v->s);
    qn_text text = { 0 };
    qn_result r = qn_request_detokenize(qn_textbuf_get(&v->body), v->body.size, &m->limits, &text);
    if (r == QN_OK) {
        qn_json_writer w = { .compact = true };
        qn_json_put_object(&w, NULL);
        qn_json_put_text(&w, "content", strlen("content"), text.data ? text.data : "", text.size);
        qn_json_put_end(&w, '}');
        answer_json(v, &w);
    } else {
        qn_visit_fail_result(v, r, NULL);
    }
    qn_text_free(&text);
}

// ------------------------------------------------------------------------------ completions

static void complete(qn_visit *v, qn_endpoint endpoint)
{
    const qn_served *m = qn_server_served(v->s);
    qn_request request;
    const char *code;
    int status;
    qn_result r = qn_request_read(endpoint, qn_textbuf_get(&v->body), v->body.size, &m->limits,
                                  &request, &code);
    qn_textbuf_free(&v->body);
    if (r != QN_OK) {
        qn_visit_fail_result(v, r, code);
        return;
    }
    r = qn_job_create(qn_server_scheduler(v->s), &request, v, &v->job, &status);
    if (r == QN_OK) return;
    char text[256];
    snprintf(text, sizeof text, "%s", qn_error_message());
    qn_visit_fail(v, status, NULL, "%s", text);
    qn_request_free(&request);
}

static void handle_chat(qn_visit *v)
{
    complete(v, QN_CHAT_COMPLETION);
}

static void handle_completions(qn_visit *v)
{
    complete(v, QN_COMPLETION);
}

const qn_path qn_paths[QN_ROUTE_COUNT] = {
#define QN_ROUTE(id, where, other, how, bits)                                                      \
    { .path = where, .alias = other, .method = how, .flags = bits, .handle = handle_##id },
#include "serve/routes.def"
#undef QN_ROUTE
};
