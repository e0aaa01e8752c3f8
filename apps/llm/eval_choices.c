// Multiple choice by log-likelihood.
#include "eval.h"
#include "io/json.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t FILE_LIMIT = (uint64_t)1 << 30;

enum { MOST_CHOICES = 256 };

typedef struct question {
    size_t first, count; // of the choices
    size_t answer;
    bool cut;
} question;

typedef struct choice {
    size_t at, count, from; // tokens, and where the choice begins among them
    size_t bytes;
} choice;

typedef struct reading {
    const char *path;
    const qn_folder *f;
    int64_t length;
    const char *delimiter;
    question *questions;
    size_t question_count, question_cap;
    choice *choices;
    size_t choice_count, choice_cap;
    qn_tokens tokens;
} reading;

// ------------------------------------------------------------------------------ one line

// The first of these members that is there; absent when none is.
static qn_json find_any(qn_json object, const char *const *names)
{
    qn_json v = { 0 };
    for (; *names && !v.node; names++) v = qn_json_find(object, *names);
    return v;
}

// A label equal to `name` among the choices' labels, texts, letters or numbers; -1: none.
static int64_t answer_called(const char *name, qn_json labels, qn_json texts, size_t count)
{
    for (int pass = 0; pass < 2; pass++) {
        int64_t i = 0;
        for (qn_json v = qn_json_first(pass ? texts : labels); v.node; v = qn_json_next(v), i++) {
            const char *s;
            if (qn_json_string(v, NULL, &s) == QN_OK && !strcmp(s, name)) return i;
        }
    }
    if (name[0] >= 'A' && name[0] <= 'Z' && !name[1] && (size_t)(name[0] - 'A') < count)
        return name[0] - 'A';
    char *end;
    long n = strtol(name, &end, 10);
    return *name >= '0' && *name <= '9' && !*end && n >= 0 && (size_t)n < count ? n : -1;
}

static qn_result read_answer(qn_json root, qn_json labels, qn_json texts, size_t count, size_t *out)
{
    static const char *const names[] = { "answer", "label", "gold", "answerKey", NULL };
    qn_json v = find_any(root, names);
    if (!v.node)
        return qn_json_fail(root, "there is no answer: expected answer, label, gold or answerKey");
    int64_t n = -1;
    const char *s;
    if (qn_json_kind_of(v) == QN_JSON_STRING) {
        QN_TRY(qn_json_string(v, NULL, &s));
        n = answer_called(s, labels, texts, count);
        if (n < 0)
            return qn_json_fail(v,
                                "found \"%.40s\", expected a label, a letter or the text of one "
                                "of the %zu choices",
                                s, count);
    } else {
        QN_TRY(qn_json_int(v, NULL, 0, (int64_t)count - 1, &n));
    }
    *out = (size_t)n;
    return QN_OK;
}

// Tokens of question, delimiter and choice together; the choice begins where the question's own
// tokens end. Blanks at the question's end go to the choice, where tokens begin with them.
static qn_result add_choice(reading *r, const char *context, const char *text, question *q)
{
    size_t size = strlen(context), choice_size = strlen(text), at = r->tokens.count;
    while (size && context[size - 1] == ' ') size--;
    const char *blanks = context[size] ? context + size : r->delimiter;
    char *whole = qn_malloc(size + strlen(blanks) + choice_size + 1);
    if (!whole) return qn_no_memory(size + choice_size);
    memcpy(whole, context, size);
    sprintf(whole + size, "%s%s", blanks, text);
    const qn_encode_opts plain = { .blanks_only = true };
    qn_tokens own = { 0 };
    qn_result res = qn_tokenizer_encode(r->f->tokenizer, context, size, &plain, &own);
    size_t from = own.count;
    qn_tokens_free(&own);
    if (res == QN_OK && !from) { // nothing to predict from: a text begins
        res = qn_grow((void **)&r->tokens.id, &r->tokens.capacity, at + 1, sizeof *r->tokens.id);
        if (res == QN_OK) r->tokens.id[r->tokens.count++] = (int32_t)r->f->config.bos_token_id;
        from = 1;
    }
    if (res == QN_OK)
        res = qn_tokenizer_encode(r->f->tokenizer, whole, strlen(whole), &plain, &r->tokens);
    qn_free(whole);
    QN_TRY(res);
    choice c = { .at = at, .count = r->tokens.count - at, .from = from, .bytes = choice_size };
    if (c.from >= c.count) c.from = c.count - 1; // merged into the question's last token
    if (c.count - c.from > (size_t)r->length)
        return qn_fail(QN_ERR_INVALID,
                       "a choice of %zu tokens: at most %lld fit; use a larger "
                       "--length",
                       c.count - c.from, (long long)r->length);
    if (c.count > (size_t)r->length + 1) {
        size_t less = c.count - (size_t)r->length - 1;
        c.at += less;
        c.count -= less;
        c.from -= less;
        q->cut = true;
    }
    QN_TRY(qn_grow((void **)&r->choices, &r->choice_cap, r->choice_count + 1, sizeof *r->choices));
    r->choices[r->choice_count++] = c;
    q->count++;
    return QN_OK;
}

static qn_result read_question(reading *r, qn_json root)
{
    static const char *const contexts[] = { "question", "context", "query", "prompt", "ctx", NULL };
    static const char *const lists[] = { "choices", "options", "endings", NULL };
    if (qn_json_kind_of(root) != QN_JSON_OBJECT)
        return qn_json_fail(root, "expected an object with question, choices and answer");
    qn_json context = find_any(root, contexts), texts = find_any(root, lists), labels = { 0 };
    if (!context.node || !texts.node)
        return qn_json_fail(root, "there is no %s: expected question, choices and answer",
                            context.node ? "choices" : "question");
    if (qn_json_kind_of(texts) == QN_JSON_OBJECT) {
        QN_TRY(qn_json_array_or(texts, "label", &labels));
        QN_TRY(qn_json_array(texts, "text", &texts));
    }
    const char *before, *text;
    question q = { .first = r->choice_count };
    QN_TRY(qn_json_string(context, NULL, &before));
    QN_TRY(qn_json_array(texts, NULL, &texts));
    size_t count = qn_json_count(texts);
    if (count < 2 || count > MOST_CHOICES)
        return qn_json_fail(texts, "found %zu choices, expected 2 to %d", count, MOST_CHOICES);
    for (qn_json v = qn_json_first(texts); v.node; v = qn_json_next(v)) {
        QN_TRY(qn_json_string(v, NULL, &text));
        if (!*text) return qn_json_fail(v, "found an empty choice");
        QN_TRY(add_choice(r, before, text, &q));
    }
    QN_TRY(read_answer(root, labels, texts, count, &q.answer));
    QN_TRY(qn_grow((void **)&r->questions, &r->question_cap, r->question_count + 1,
                   sizeof *r->questions));
    r->questions[r->question_count++] = q;
    return QN_OK;
}

static qn_result read_lines(reading *r, const char *text, size_t size)
{
    const char *name = r->path, *end = text + size;
    for (int64_t line = 1; text < end; line++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((stop ? stop : end) - text);
        if (strspn(text, " \t\r") < n) {
            char label[512];
            snprintf(label, sizeof label, "%s, line %lld", name, (long long)line);
            qn_json_doc *doc;
            QN_TRY(qn_json_parse(label, text, n, NULL, &doc));
            qn_result res = read_question(r, qn_json_root(doc));
            qn_json_close(&doc);
            if (res == QN_ERR_INVALID) qn_context_add(res, "%s", label);
            QN_TRY(res);
        }
        text += n + 1;
    }
    if (!r->question_count)
        return qn_fail(QN_ERR_FORMAT, "%s holds no questions: expected one JSON object a line",
                       r->path);
    return QN_OK;
}

// ------------------------------------------------------------------------------ scoring

static void count_up(const reading *r, const double *nll, qn_eval_choices *e)
{
    double right = 0, normalised = 0;
    for (size_t i = 0; i < r->question_count; i++) {
        const question *q = &r->questions[i];
        size_t best = 0, best_normalised = 0;
        const double *x = nll + q->first;
        const choice *c = r->choices + q->first;
        for (size_t k = 1; k < q->count; k++) {
            if (x[k] < x[best]) best = k;
            if (x[k] / (double)c[k].bytes < x[best_normalised] / (double)c[best_normalised].bytes)
                best_normalised = k;
        }
        right += best == q->answer;
        normalised += best_normalised == q->answer;
        e->cut += q->cut;
        e->chance += 1.0 / (double)q->count;
    }
    double n = (double)r->question_count;
    e->questions = (int64_t)r->question_count;
    e->choices = (int64_t)r->choice_count;
    e->accuracy = right / n;
    e->normalised = normalised / n;
    e->error = n > 1 ? sqrt(e->accuracy * (1 - e->accuracy) / (n - 1)) : 0;
    e->chance /= n;
}

static qn_result score(qn_device *dev, const reading *r, const qn_eval_opts *o,
                       qn_eval_choices *out)
{
    qn_score_row *rows = qn_calloc(r->choice_count, sizeof *rows);
    double *nll = qn_calloc(r->choice_count, sizeof *nll);
    qn_result res = rows && nll ? QN_OK : qn_no_memory(r->choice_count * sizeof *rows);
    for (size_t i = 0; res == QN_OK && i < r->choice_count; i++) {
        const choice *c = &r->choices[i];
        rows[i] = (qn_score_row){ r->tokens.id + c->at, (int64_t)c->count, (int64_t)c->from };
    }
    const qn_score_hooks hooks = { .progress = o->progress, .user = o->user };
    qn_scorer *s = NULL;
    if (res == QN_OK) res = qn_scorer_create(dev, &r->f->config, r->f->weights, r->length, &s);
    if (res == QN_OK) res = qn_scorer_run(s, rows, r->choice_count, &hooks, nll);
    if (res == QN_OK) {
        *out = (qn_eval_choices){ 0 };
        count_up(r, nll, out);
    }
    qn_scorer_destroy(&s);
    qn_free(rows);
    qn_free(nll);
    return res;
}

qn_result qn_eval_choices_file(qn_device *dev, const qn_folder *f, const char *path,
                               const qn_eval_opts *opts, qn_eval_choices *out)
{
    char *text;
    size_t size;
    QN_TRY(qn_read_file(path, FILE_LIMIT, &text, &size));
    reading r = { .path = path,
                  .f = f,
                  .length = opts->length ? opts->length : 512,
                  .delimiter = opts->delimiter ? opts->delimiter : " " };
    qn_result res = read_lines(&r, text, size);
    if (res == QN_OK) res = score(dev, &r, opts, out);
    qn_free(text);
    qn_free(r.questions);
    qn_free(r.choices);
    qn_tokens_free(&r.tokens);
    return res;
}
