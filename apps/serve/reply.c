// JSON of the API.
#include "reply.h"
#include "fail.h"
#include "io/json.h"
#include "io/utf8.h"
#include "mem.h"

#include <math.h>
#include <string.h>

static bool is_chat(const qn_reply *r)
{
    return r->request->endpoint == QN_CHAT_COMPLETION;
}

static void put_key_text(qn_json_writer *w, const char *key, const char *text, size_t size)
{
    qn_json_put_text(w, key, key ? strlen(key) : 0, text ? text : "", size);
}

// JSON has no infinity: a token that cannot come gets what the API uses for that.
static void put_logprob(qn_json_writer *w, const char *key, float x)
{
    qn_json_put_number(w, key, isfinite(x) ? (double)x : -9999);
}

static const char *finish_name(qn_finish f)
{
    return f == QN_FINISH_LENGTH ? "length" : "stop";
}

// ------------------------------------------------------------------------------ probabilities

// A token's text; of bytes that are no characters, U+FFFD.
static qn_result token_text(const qn_reply *r, int32_t id, qn_text *out)
{
    out->size = 0;
    return qn_tokenizer_decode(r->chat->tokenizer, &id, 1, &(qn_decode_opts){ .repair = true },
                               out);
}

static void put_token(qn_json_writer *w, const qn_reply *r, const qn_token_chance *c,
                      qn_text *scratch)
{
    size_t size = 0;
    const char *bytes = qn_token_bytes(r->chat->tokenizer, c->token, &size);
    if (token_text(r, c->token, scratch) != QN_OK) w->status = QN_ERR_NO_MEMORY;
    put_key_text(w, "token", scratch->data, scratch->size);
    put_logprob(w, "logprob", c->logprob);
    qn_json_put_array(w, "bytes");
    for (size_t i = 0; i < size; i++) qn_json_put_int(w, NULL, (unsigned char)bytes[i]);
    qn_json_put_end(w, ']');
}

static void put_chat_tokens(qn_json_writer *w, const qn_reply *r, const qn_answer *a, size_t from,
                            size_t end, qn_text *scratch)
{
    qn_json_put_array(w, "content");
    for (size_t i = from; i < end; i++) {
        const qn_answer_token *t = &a->token[i];
        qn_json_put_object(w, NULL);
        put_token(w, r, &t->chance, scratch);
        qn_json_put_array(w, "top_logprobs");
        for (int k = 0; k < t->top_count; k++) {
            qn_json_put_object(w, NULL);
            put_token(w, r, &t->top[k], scratch);
            qn_json_put_end(w, '}');
        }
        qn_json_put_end(w, ']');
        qn_json_put_end(w, '}');
    }
    qn_json_put_end(w, ']');
    qn_json_put_null(w, "refusal");
}

// Two tokens may have one text (parts of characters do): the likelier keeps the key.
static bool seen_before(const qn_reply *r, const qn_answer_token *t, int k, const qn_text *text)
{
    qn_text other = { 0 };
    bool seen = false;
    for (int i = 0; i < k && !seen; i++)
        seen = token_text(r, t->top[i].token, &other) == QN_OK && other.size == text->size &&
               !memcmp(other.data, text->data, text->size);
    qn_text_free(&other);
    return seen;
}

static void put_top(qn_json_writer *w, const qn_reply *r, const qn_answer_token *t,
                    qn_text *scratch)
{
    qn_json_put_object(w, NULL);
    for (int k = 0; k < t->top_count; k++) {
        if (token_text(r, t->top[k].token, scratch) != QN_OK) w->status = QN_ERR_NO_MEMORY;
        if (w->status != QN_OK || seen_before(r, t, k, scratch)) continue;
        qn_textbuf key = { 0 };
        qn_textbuf_add(&key, scratch->data, scratch->size);
        put_logprob(w, qn_textbuf_get(&key), t->top[k].logprob);
        qn_textbuf_free(&key);
    }
    qn_json_put_end(w, '}');
}

// Characters in the first `size` bytes.
static int64_t characters(const char *text, size_t size)
{
    int64_t n = 0;
    for (size_t i = 0; i < size; i++) n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

static void put_text_tokens(qn_json_writer *w, const qn_reply *r, const qn_answer *a, size_t from,
                            size_t end, qn_text *scratch)
{
    qn_json_put_array(w, "tokens");
    for (size_t i = from; i < end; i++) {
        if (token_text(r, a->token[i].chance.token, scratch) != QN_OK) w->status = QN_ERR_NO_MEMORY;
        put_key_text(w, NULL, scratch->data, scratch->size);
    }
    qn_json_put_end(w, ']');
    qn_json_put_array(w, "token_logprobs");
    for (size_t i = from; i < end; i++) put_logprob(w, NULL, a->token[i].chance.logprob);
    qn_json_put_end(w, ']');
    qn_json_put_array(w, "top_logprobs");
    for (size_t i = from; i < end; i++) put_top(w, r, &a->token[i], scratch);
    qn_json_put_end(w, ']');
    qn_json_put_array(w, "text_offset");
    for (size_t i = from; i < end; i++) {
        size_t offset = a->token[i].offset < a->text.size ? a->token[i].offset : a->text.size;
        qn_json_put_int(w, NULL, characters(a->text.data, offset));
    }
    qn_json_put_end(w, ']');
}

static void put_probabilities(qn_json_writer *w, const qn_reply *r, const qn_answer *a, size_t from,
                              size_t end)
{
    if (r->request->top < 0) {
        qn_json_put_null(w, "logprobs");
        return;
    }
    qn_text scratch = { 0 };
    qn_json_put_object(w, "logprobs");
    if (is_chat(r))
        put_chat_tokens(w, r, a, from, end, &scratch);
    else
        put_text_tokens(w, r, a, from, end, &scratch);
    qn_json_put_end(w, '}');
    qn_text_free(&scratch);
}

// ------------------------------------------------------------------------------ common parts

static void put_head(qn_json_writer *w, const qn_reply *r, bool event)
{
    qn_json_put_object(w, NULL);
    qn_json_put_string(w, "id", r->id);
    qn_json_put_string(w, "object",
                       !is_chat(r) ? "text_completion"
                       : event     ? "chat.completion.chunk"
                                   : "chat.completion");
    qn_json_put_int(w, "created", r->created);
    qn_json_put_string(w, "model", r->model);
}

static void put_counts(qn_json_writer *w, const qn_reply *r, const qn_answer *answers, size_t count,
                       const qn_reply_times *t)
{
    int64_t prompt = 0, written = 0;
    for (size_t i = 0; i < r->request->prompt_count; i++)
        prompt += (int64_t)r->request->prompts[i].count;
    for (size_t i = 0; i < count; i++) written += answers[i].tokens;
    qn_json_put_object(w, "usage");
    qn_json_put_int(w, "prompt_tokens", prompt);
    qn_json_put_int(w, "completion_tokens", written);
    qn_json_put_int(w, "total_tokens", prompt + written);
    qn_json_put_end(w, '}');
    qn_json_put_object(w, "timings");
    const struct {
        const char *n, *ms, *rate;
        int64_t tokens;
        double seconds;
    } rows[] = { { "prompt_n", "prompt_ms", "prompt_per_second", prompt, t->prompt_seconds },
                 { "predicted_n", "predicted_ms", "predicted_per_second", written, t->seconds } };
    for (int i = 0; i < 2; i++) {
        qn_json_put_int(w, rows[i].n, rows[i].tokens);
        qn_json_put_number(w, rows[i].ms, 1e3 * rows[i].seconds);
        qn_json_put_number(w, rows[i].rate,
                           rows[i].seconds > 0 ? (double)rows[i].tokens / rows[i].seconds : 0);
    }
    qn_json_put_end(w, '}');
}

// The prompt before the answer, where the request wants an echo.
static qn_result echo(const qn_reply *r, size_t index, qn_text *out)
{
    if (!r->request->echo) return QN_OK;
    const qn_prompt *p = &r->request->prompts[index / (size_t)r->request->n];
    return qn_tokenizer_decode(r->chat->tokenizer, p->id, p->count,
                               &(qn_decode_opts){ .repair = true, .skip_special = true }, out);
}

// ------------------------------------------------------------------------------ whole answers

static void put_choice(qn_json_writer *w, const qn_reply *r, const qn_answer *a, size_t index)
{
    qn_json_put_object(w, NULL);
    qn_json_put_int(w, "index", (int64_t)index);
    if (is_chat(r)) {
        qn_json_put_object(w, "message");
        qn_json_put_string(w, "role", "assistant");
        put_key_text(w, "content", a->text.data, a->text.size);
        qn_json_put_null(w, "refusal");
        qn_json_put_end(w, '}');
    } else {
        qn_text before = { 0 };
        qn_textbuf whole = { 0 };
        if (echo(r, index, &before) != QN_OK) w->status = QN_ERR_NO_MEMORY;
        qn_textbuf_add(&whole, before.data, before.size);
        qn_textbuf_add(&whole, a->text.data, a->text.size);
        if (whole.failed) w->status = QN_ERR_NO_MEMORY;
        put_key_text(w, "text", qn_textbuf_get(&whole), whole.size);
        qn_textbuf_free(&whole);
        qn_text_free(&before);
    }
    put_probabilities(w, r, a, 0, a->token_count);
    qn_json_put_string(w, "finish_reason", finish_name(a->finish));
    qn_json_put_end(w, '}');
}

qn_result qn_reply_whole(const qn_reply *r, const qn_answer *answers, size_t count,
                         const qn_reply_times *t, qn_textbuf *out)
{
    qn_json_writer w = { .compact = true };
    put_head(&w, r, false);
    qn_json_put_array(&w, "choices");
    for (size_t i = 0; i < count; i++) put_choice(&w, r, &answers[i], i);
    qn_json_put_end(&w, ']');
    put_counts(&w, r, answers, count, t);
    qn_json_put_end(&w, '}');
    qn_result result = w.status;
    if (result == QN_OK) qn_textbuf_add(out, w.text, w.size);
    qn_json_writer_free(&w);
    return result == QN_OK ? qn_textbuf_status(out) : result;
}

// ------------------------------------------------------------------------------ events

static void put_event(qn_json_writer *w, qn_textbuf *out)
{
    if (w->status == QN_OK) {
        qn_textbuf_puts(out, "data: ");
        qn_textbuf_add(out, w->text, w->size);
        qn_textbuf_puts(out, "\n\n");
    } else {
        out->failed = true;
    }
    qn_json_writer_free(w);
}

// One choice: a change of a chat's message, or a piece of text.
static void put_change(const qn_reply *r, size_t index, const char *role, const char *text,
                       size_t size, const qn_answer *a, size_t token_from, size_t token_end,
                       qn_textbuf *out)
{
    qn_json_writer w = { .compact = true };
    put_head(&w, r, true);
    qn_json_put_array(&w, "choices");
    qn_json_put_object(&w, NULL);
    qn_json_put_int(&w, "index", (int64_t)index);
    if (is_chat(r)) {
        qn_json_put_object(&w, "delta");
        if (role) qn_json_put_string(&w, "role", role);
        if (text) put_key_text(&w, "content", text, size);
        qn_json_put_end(&w, '}');
    } else {
        put_key_text(&w, "text", text, text ? size : 0);
    }
    if (token_from < token_end)
        put_probabilities(&w, r, a, token_from, token_end);
    else
        qn_json_put_null(&w, "logprobs");
    if (text)
        qn_json_put_null(&w, "finish_reason");
    else
        qn_json_put_string(&w, "finish_reason", finish_name(a->finish));
    qn_json_put_end(&w, '}');
    qn_json_put_end(&w, ']');
    qn_json_put_end(&w, '}');
    put_event(&w, out);
}

void qn_reply_begin(const qn_reply *r, const qn_answer *a, size_t index, qn_textbuf *out)
{
    if (is_chat(r)) {
        put_change(r, index, "assistant", "", 0, a, 0, 0, out);
    } else if (r->request->echo) {
        qn_text before = { 0 };
        if (echo(r, index, &before) == QN_OK && before.size)
            put_change(r, index, NULL, before.data, before.size, a, 0, 0, out);
        qn_text_free(&before);
    }
}

void qn_reply_part(const qn_reply *r, const qn_answer *a, size_t index, size_t from,
                   size_t token_from, size_t token_end, qn_textbuf *out)
{
    const char *text = a->text.data ? a->text.data + from : "";
    put_change(r, index, NULL, text, a->text.size - from, a, token_from, token_end, out);
}

void qn_reply_end(const qn_reply *r, const qn_answer *a, size_t index, qn_textbuf *out)
{
    put_change(r, index, NULL, NULL, 0, a, 0, 0, out);
}

void qn_reply_usage(const qn_reply *r, const qn_answer *answers, size_t count,
                    const qn_reply_times *t, qn_textbuf *out)
{
    qn_json_writer w = { .compact = true };
    put_head(&w, r, true);
    qn_json_put_array(&w, "choices");
    qn_json_put_end(&w, ']');
    put_counts(&w, r, answers, count, t);
    qn_json_put_end(&w, '}');
    put_event(&w, out);
}

void qn_reply_done(qn_textbuf *out)
{
    qn_textbuf_puts(out, "data: [DONE]\n\n");
}

// ------------------------------------------------------------------------------ errors

static const char *error_type(int status)
{
    static const struct {
        int status;
        const char *type;
    } types[] = { { 401, "authentication_error" },
                  { 403, "permission_error" },
                  { 404, "not_found_error" },
                  { 429, "rate_limit_error" },
                  { 503, "unavailable_error" } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].status == status) return types[i].type;
    return status < 500 ? "invalid_request_error" : "server_error";
}

void qn_reply_error(int status, const char *message, const char *code, bool event, qn_textbuf *out)
{
    qn_textbuf clean = { 0 };
    qn_textbuf_clean(&clean, message); // it may quote the request
    qn_json_writer w = { .compact = true };
    qn_json_put_object(&w, NULL);
    qn_json_put_object(&w, "error");
    qn_json_put_string(&w, "message", qn_textbuf_get(&clean));
    qn_json_put_string(&w, "type", error_type(status));
    qn_json_put_null(&w, "param");
    if (code)
        qn_json_put_string(&w, "code", code);
    else
        qn_json_put_int(&w, "code", status);
    qn_json_put_end(&w, '}');
    qn_json_put_end(&w, '}');
    qn_textbuf_free(&clean);
    if (event) {
        put_event(&w, out);
        return;
    }
    if (w.status == QN_OK)
        qn_textbuf_add(out, w.text, w.size);
    else
        out->failed = true;
    qn_json_writer_free(&w);
}
