// Bodies of requests into structs.
#include "request.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "text/bpe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 32, MOST_VALUES = 200000, MOST_MESSAGES = 4096, STOP_BYTES = 1024 };

typedef struct reader {
    const qn_request_limits *l;
    qn_json root;
    qn_request *r;
    const char **code;
} reader;

static qn_result parse(const char *body, size_t size, qn_json_doc **doc)
{
    const qn_json_limits limits = { .size = size + 1, .depth = DEEPEST, .values = MOST_VALUES };
    if (!size) return qn_fail(QN_ERR_FORMAT, "the body is empty, expected a JSON object");
    QN_TRY(qn_json_parse("body", body, size, &limits, doc));
    qn_json root = qn_json_root(*doc);
    if (qn_json_kind_of(root) == QN_JSON_OBJECT) return QN_OK;
    qn_result r = qn_json_fail(root, "found something else, expected a JSON object");
    qn_json_close(doc);
    return r;
}

// ------------------------------------------------------------------------------ prompts

static qn_result add_prompt(reader *d, qn_tokens *t)
{
    const qn_request_limits *l = d->l;
    qn_request *r = d->r;
    if (!t->count) QN_TRY(qn_tokens_append(t, &(int32_t){ (int32_t)l->bos }, 1));
    if ((int64_t)t->count >= l->context) {
        *d->code = "context_length_exceeded";
        return qn_fail(QN_ERR_INVALID,
                       "the prompt has %zu tokens, the context holds %lld with the answer",
                       t->count, (long long)l->context);
    }
    qn_prompt *grown = qn_realloc(r->prompts, (r->prompt_count + 1) * sizeof *grown);
    if (!grown) return qn_no_memory((r->prompt_count + 1) * sizeof *grown);
    r->prompts = grown;
    r->prompts[r->prompt_count++] = (qn_prompt){ t->id, t->count };
    *t = (qn_tokens){ 0 };
    return QN_OK;
}

// A text longer than this has more tokens than the context, whatever they are.
static qn_result check_length(reader *d, size_t bytes)
{
    size_t longest = d->l->chat->tokenizer->longest;
    if (longest < QN_ADDED_BYTES_LIMIT) longest = QN_ADDED_BYTES_LIMIT;
    if (bytes / longest <= (size_t)d->l->context) return QN_OK;
    *d->code = "context_length_exceeded";
    return qn_fail(QN_ERR_INVALID,
                   "the prompt has %zu bytes and more than the %lld tokens that "
                   "the context holds",
                   bytes, (long long)d->l->context);
}

static qn_result read_ids(reader *d, qn_json list, qn_tokens *t)
{
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        int64_t id;
        QN_TRY(qn_json_int(v, NULL, 0, d->l->vocab_size - 1, &id));
        QN_TRY(qn_tokens_append(t, &(int32_t){ (int32_t)id }, 1));
    }
    return QN_OK;
}

static qn_result read_prompt(reader *d, qn_json v)
{
    qn_tokens t = { 0 };
    qn_result r;
    if (qn_json_kind_of(v) == QN_JSON_ARRAY) {
        r = read_ids(d, v, &t);
    } else {
        const char *text;
        QN_TRY(qn_json_string(v, NULL, &text));
        QN_TRY(check_length(d, strlen(text)));
        r = qn_tokenizer_encode(d->l->chat->tokenizer, text, strlen(text), NULL, &t);
    }
    if (r == QN_OK) r = add_prompt(d, &t);
    qn_tokens_free(&t);
    return r;
}

// A text, its tokens, or a list of either.
static qn_result read_prompts(reader *d)
{
    qn_json v = qn_json_find(d->root, "prompt");
    qn_json_kind kind = qn_json_kind_of(v), inner = qn_json_kind_of(qn_json_first(v));
    if (kind != QN_JSON_ARRAY && kind != QN_JSON_STRING)
        return qn_json_fail(d->root, "prompt: found %s, expected a text, tokens, or a list of them",
                            v.node ? "something else" : "nothing");
    if (kind == QN_JSON_STRING || inner == QN_JSON_NUMBER) return read_prompt(d, v);
    size_t count = qn_json_count(v);
    if (!count || count > QN_MOST_CHOICES)
        return qn_json_fail(v, "found %zu prompts, expected 1 to %d", count, QN_MOST_CHOICES);
    for (v = qn_json_first(v); v.node; v = qn_json_next(v)) QN_TRY(read_prompt(d, v));
    return QN_OK;
}

// A message's content: a text, or a list of parts, all of them texts.
static qn_result read_content(qn_json message, qn_text *out)
{
    qn_json v = qn_json_find(message, "content");
    const char *text, *type;
    if (!v.node || qn_json_kind_of(v) == QN_JSON_NULL) return qn_text_append(out, "", 0);
    if (qn_json_kind_of(v) != QN_JSON_ARRAY) {
        QN_TRY(qn_json_string(v, NULL, &text));
        return qn_text_append(out, text, strlen(text));
    }
    for (qn_json part = qn_json_first(v); part.node; part = qn_json_next(part)) {
        QN_TRY(qn_json_string(part, "type", &type));
        if (strcmp(type, "text"))
            return qn_json_fail(part, "type: found \"%.40s\", this model reads only \"text\"",
                                type);
        QN_TRY(qn_json_string(part, "text", &text));
        QN_TRY(qn_text_append(out, text, strlen(text)));
    }
    return qn_text_append(out, "", 0);
}

static qn_result read_role(qn_json message, qn_role *out)
{
    const char *role;
    QN_TRY(qn_json_string(message, "role", &role));
    static const struct {
        const char *name;
        qn_role role;
    } roles[] = { { "system", QN_ROLE_SYSTEM },
                  { "developer", QN_ROLE_SYSTEM },
                  { "user", QN_ROLE_USER },
                  { "assistant", QN_ROLE_ASSISTANT } };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(role, roles[i].name)) continue;
        *out = roles[i].role;
        return QN_OK;
    }
    return qn_json_fail(message,
                        "role: found \"%.40s\", expected system, developer, user or "
                        "assistant",
                        role);
}

static qn_result encode_messages(reader *d, qn_json list, qn_message *messages, qn_text *texts)
{
    size_t count = 0, bytes = 0;
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v), count++) {
        QN_TRY(read_role(v, &messages[count].role));
        QN_TRY(read_content(v, &texts[count]));
        messages[count].content = texts[count].data;
        bytes += texts[count].size;
    }
    QN_TRY(check_length(d, bytes));
    qn_tokens t = { 0 };
    qn_result r = qn_chat_encode(d->l->chat, messages, count, &t);
    if (r == QN_OK) r = add_prompt(d, &t);
    qn_tokens_free(&t);
    return r;
}

static qn_result read_messages(reader *d)
{
    qn_json list;
    QN_TRY(qn_json_array(d->root, "messages", &list));
    size_t count = qn_json_count(list);
    if (!count || count > MOST_MESSAGES)
        return qn_json_fail(list, "found %zu messages, expected 1 to %d", count, MOST_MESSAGES);
    qn_message *messages = qn_calloc(count, sizeof *messages);
    qn_text *texts = qn_calloc(count, sizeof *texts);
    qn_result r = messages && texts ? encode_messages(d, list, messages, texts)
                                    : qn_no_memory(count * sizeof *texts);
    for (size_t i = 0; texts && i < count; i++) qn_text_free(&texts[i]);
    qn_free(texts);
    qn_free(messages);
    return r;
}

// ------------------------------------------------------------------------------ options

static qn_result read_sampling(reader *d)
{
    qn_sampling *s = &d->r->sampling;
    *s = d->l->chat->sampling;
    qn_json o = d->root;
    const struct {
        const char *name;
        double min, max;
        double *value;
    } numbers[] = {
        { "temperature", 0, 100, &s->temperature },
        { "top_p", 0, 1, &s->top_p },
        { "min_p", 0, 1, &s->min_p },
        { "repeat_penalty", 0.01, 100, &s->repeat_penalty },
        { "repetition_penalty", 0.01, 100, &s->repeat_penalty },
        { "frequency_penalty", -100, 100, &s->frequency_penalty },
        { "presence_penalty", -100, 100, &s->presence_penalty },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        QN_TRY(qn_json_number_or(o, numbers[i].name, numbers[i].min, numbers[i].max,
                                 *numbers[i].value, numbers[i].value));
    QN_TRY(qn_json_int_or(o, "top_k", -1, INT32_MAX, s->top_k, &s->top_k));
    if (s->top_k < 0) s->top_k = 0;
    QN_TRY(qn_json_int_or(o, "repeat_last_n", -1, INT32_MAX, s->repeat_last_n, &s->repeat_last_n));
    int64_t seed;
    QN_TRY(qn_json_int_or(o, "seed", -QN_JSON_INT_MAX, QN_JSON_INT_MAX, -1, &seed));
    d->r->seeded = seed != -1;
    s->seed = (uint64_t)seed;
    return QN_OK;
}

// {"50256": -100, ...}
static qn_result read_bias(reader *d)
{
    qn_json o;
    QN_TRY(qn_json_object_or(d->root, "logit_bias", &o));
    size_t count = o.node ? qn_json_count(o) : 0;
    if (!count) return QN_OK;
    if (count > QN_RUNNER_BIAS)
        return qn_json_fail(o, "found %zu tokens, expected at most %d", count, QN_RUNNER_BIAS);
    d->r->bias = qn_calloc(count, sizeof *d->r->bias);
    if (!d->r->bias) return qn_no_memory(count * sizeof *d->r->bias);
    for (qn_json v = qn_json_first(o); v.node; v = qn_json_next(v)) {
        const char *key = qn_json_key(v);
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*key < '0' || *key > '9' || *end || id >= d->l->vocab_size)
            return qn_json_fail(v, "found the token \"%.40s\", expected 0 to %lld", key,
                                (long long)d->l->vocab_size - 1);
        double bias;
        QN_TRY(qn_json_number(v, NULL, -100, 100, &bias));
        // The API's -100 means never.
        d->r->bias[d->r->bias_count++] =
            (qn_token_bias){ (int32_t)id, bias <= -100 ? -INFINITY : (float)bias };
    }
    return QN_OK;
}

static qn_result add_stop(reader *d, qn_json v)
{
    const char *text;
    QN_TRY(qn_json_string(v, NULL, &text));
    if (!*text) return QN_OK; // stops nowhere
    if (d->r->stop_count == QN_MOST_STOPS || strlen(text) > STOP_BYTES)
        return qn_json_fail(v,
                            "too many or too long: at most %d texts of %d bytes can stop an "
                            "answer",
                            QN_MOST_STOPS, STOP_BYTES);
    char *copy = qn_strdup(text);
    if (!copy) return qn_no_memory(strlen(text));
    d->r->stops[d->r->stop_count++] = copy;
    return QN_OK;
}

static qn_result read_stops(reader *d)
{
    qn_json v = qn_json_find(d->root, "stop");
    if (qn_json_kind_of(v) == QN_JSON_STRING) {
        QN_TRY(add_stop(d, v));
    } else {
        QN_TRY(qn_json_array_or(d->root, "stop", &v));
        for (v = qn_json_first(v); v.node; v = qn_json_next(v)) QN_TRY(add_stop(d, v));
    }
    if (d->r->endpoint != QN_CHAT_COMPLETION || !d->l->chat->stop) return QN_OK;
    char *own = qn_strdup(d->l->chat->stop);
    if (!own) return qn_no_memory(strlen(d->l->chat->stop));
    d->r->stops[d->r->stop_count++] = own; // there is one place more than clients may fill
    return QN_OK;
}

static qn_result read_probabilities(reader *d)
{
    qn_json v = qn_json_find(d->root, "logprobs");
    int64_t top = 0;
    bool wanted = false;
    d->r->top = -1;
    if (qn_json_kind_of(v) == QN_JSON_NUMBER) { // completions
        QN_TRY(qn_json_int(v, NULL, 0, QN_RUNNER_TOP, &top));
        wanted = true;
    } else {
        QN_TRY(qn_json_bool_or(d->root, "logprobs", false, &wanted));
        QN_TRY(qn_json_int_or(d->root, "top_logprobs", 0, QN_RUNNER_TOP, 0, &top));
        if (top && !wanted) return qn_json_fail(d->root, "top_logprobs needs \"logprobs\": true");
    }
    if (wanted) d->r->top = (int)top;
    return QN_OK;
}

static qn_result read_lengths(reader *d)
{
    static const char *const names[] = { "max_tokens", "max_completion_tokens", "n_predict" };
    qn_request *r = d->r;
    int64_t most = -1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        QN_TRY(qn_json_int_or(d->root, names[i], -1, INT32_MAX, most, &most));
    r->max_tokens = most < 0 ? d->l->max_tokens ? d->l->max_tokens : INT32_MAX : most;
    QN_TRY(qn_json_int_or(d->root, "n", 1, QN_MOST_CHOICES, 1, &r->n));
    if (r->n * (int64_t)r->prompt_count > QN_MOST_CHOICES)
        return qn_json_fail(d->root,
                            "found %zu prompts with %lld answers each, expected at most "
                            "%d answers",
                            r->prompt_count, (long long)r->n, QN_MOST_CHOICES);
    return QN_OK;
}

static qn_result read_delivery(reader *d)
{
    qn_request *r = d->r;
    qn_json options;
    QN_TRY(qn_json_bool_or(d->root, "stream", false, &r->stream));
    QN_TRY(qn_json_object_or(d->root, "stream_options", &options));
    if (options.node) QN_TRY(qn_json_bool_or(options, "include_usage", false, &r->usage));
    QN_TRY(qn_json_bool_or(d->root, "echo", false, &r->echo));
    QN_TRY(qn_json_bool_or(d->root, "ignore_eos", false, &r->ignore_end));
    if (r->endpoint == QN_CHAT_COMPLETION) r->echo = false;
    if (r->echo && r->top >= 0)
        return qn_fail(QN_ERR_UNSUPPORTED, "echo together with logprobs is not supported");
    return QN_OK;
}

// Members that would change the answer in a way that this server does not know.
static qn_result refuse_others(reader *d)
{
    static const char *const lists[] = { "tools", "functions" };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        qn_json v = qn_json_find(d->root, lists[i]);
        if (qn_json_first(v).node)
            return qn_fail(QN_ERR_UNSUPPORTED, "%s: calling functions is not supported", lists[i]);
    }
    qn_json format;
    const char *type = "text", *suffix = "";
    QN_TRY(qn_json_object_or(d->root, "response_format", &format));
    if (format.node) QN_TRY(qn_json_string_or(format, "type", "text", &type));
    if (strcmp(type, "text"))
        return qn_json_fail(format, "type: found \"%.40s\", only \"text\" is supported", type);
    QN_TRY(qn_json_string_or(d->root, "suffix", "", &suffix));
    if (*suffix) return qn_fail(QN_ERR_UNSUPPORTED, "suffix: filling in is not supported");
    int64_t best;
    QN_TRY(qn_json_int_or(d->root, "best_of", 1, QN_MOST_CHOICES, d->r->n, &best));
    if (best != d->r->n)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "best_of: found %lld, only the value of n, %lld, is "
                       "supported",
                       (long long)best, (long long)d->r->n);
    return QN_OK;
}

static qn_result read_all(reader *d)
{
    QN_TRY(d->r->endpoint == QN_CHAT_COMPLETION ? read_messages(d) : read_prompts(d));
    QN_TRY(read_sampling(d));
    QN_TRY(read_bias(d));
    QN_TRY(read_stops(d));
    QN_TRY(read_probabilities(d));
    QN_TRY(read_lengths(d));
    QN_TRY(read_delivery(d));
    return refuse_others(d);
}

qn_result qn_request_read(qn_endpoint endpoint, const char *body, size_t size,
                          const qn_request_limits *l, qn_request *out, const char **code)
{
    qn_json_doc *doc;
    qn_request r = { .endpoint = endpoint };
    *code = NULL;
    QN_TRY(parse(body, size, &doc));
    reader d = { l, qn_json_root(doc), &r, code };
    qn_result result = read_all(&d);
    qn_json_close(&doc);
    if (result == QN_OK)
        *out = r;
    else
        qn_request_free(&r);
    return result;
}

void qn_request_free(qn_request *r)
{
    for (size_t i = 0; i < r->prompt_count; i++) qn_free(r->prompts[i].id);
    for (size_t i = 0; i < r->stop_count; i++) qn_free(r->stops[i]);
    qn_free(r->prompts);
    qn_free(r->bias);
    *r = (qn_request){ 0 };
}

// ------------------------------------------------------------------------------ tokens

qn_result qn_request_tokenize(const char *body, size_t size, const qn_request_limits *l,
                              qn_tokens *out, bool *with_pieces)
{
    qn_json_doc *doc;
    const char *text;
    QN_TRY(parse(body, size, &doc));
    qn_json root = qn_json_root(doc);
    qn_result r = qn_json_string(root, "content", &text);
    if (r == QN_OK) r = qn_json_bool_or(root, "with_pieces", false, with_pieces);
    if (r == QN_OK) r = qn_tokenizer_encode(l->chat->tokenizer, text, strlen(text), NULL, out);
    qn_json_close(&doc);
    return r;
}

qn_result qn_request_detokenize(const char *body, size_t size, const qn_request_limits *l,
                                qn_text *out)
{
    qn_json_doc *doc;
    qn_json list;
    qn_tokens t = { 0 };
    const char *no_code;
    QN_TRY(parse(body, size, &doc));
    reader d = { l, qn_json_root(doc), NULL, &no_code };
    qn_result r = qn_json_array(d.root, "tokens", &list);
    if (r == QN_OK) r = read_ids(&d, list, &t);
    if (r == QN_OK)
        r = qn_tokenizer_decode(l->chat->tokenizer, t.id, t.count,
                                &(qn_decode_opts){ .repair = true }, out);
    qn_tokens_free(&t);
    qn_json_close(&doc);
    return r;
}
