// Perplexity over windows of a text.
#include "eval.h"
#include "data.h"
#include "fail.h"
#include "mem.h"

#include <math.h>
#include <string.h>

// Windows start `stride` apart; each scores what the one before has not.
static qn_result make_windows(const qn_tokens *t, int64_t length, int64_t stride,
                              qn_score_row **out, size_t *count)
{
    const int64_t n = (int64_t)t->count;
    qn_score_row *rows = NULL;
    size_t cap = 0;
    int64_t scored = 1; // the first token that no window has scored
    *count = 0;
    while (scored < n) {
        int64_t end = *count ? scored + stride : length + 1;
        if (end > n) end = n;
        int64_t begin = end - length - 1 > 0 ? end - length - 1 : 0;
        qn_result r = qn_grow((void **)&rows, &cap, *count + 1, sizeof *rows);
        if (r != QN_OK) {
            qn_free(rows);
            return r;
        }
        rows[(*count)++] = (qn_score_row){ t->id + begin, end - begin, scored - begin };
        scored = end;
    }
    *out = rows;
    return QN_OK;
}

static qn_result score_text(qn_device *dev, const qn_folder *f, const qn_tokens *t,
                            const qn_eval_opts *o, double *nll)
{
    const int64_t length = o->length ? o->length : 512, stride = o->stride ? o->stride : length;
    if (stride > length)
        return qn_fail(QN_ERR_INVALID, "a stride of %lld leaves tokens out: expected at most %lld",
                       (long long)stride, (long long)length);
    int64_t inputs = (int64_t)t->count - 1 < length ? (int64_t)t->count - 1 : length;
    qn_score_row *rows = NULL;
    size_t count = 0;
    qn_scorer *s = NULL;
    QN_TRY(make_windows(t, length, stride, &rows, &count));
    double *each = qn_calloc(count, sizeof *each);
    const qn_score_hooks hooks = { .progress = o->progress, .user = o->user };
    qn_result r = each ? QN_OK : qn_no_memory(count * sizeof *each);
    if (r == QN_OK) r = qn_scorer_create(dev, &f->config, f->weights, inputs, &s);
    if (r == QN_OK) r = qn_scorer_run(s, rows, count, &hooks, each);
    *nll = 0;
    for (size_t i = 0; r == QN_OK && i < count; i++) *nll += each[i];
    qn_scorer_destroy(&s);
    qn_free(each);
    qn_free(rows);
    return r;
}

static qn_result measure(qn_device *dev, const qn_folder *f, const char *path, qn_tokens *t,
                         const qn_eval_opts *o, qn_eval_text *out)
{
    if (o->tokens && (int64_t)t->count > o->tokens) t->count = (size_t)o->tokens;
    if (t->count < 2)
        return qn_fail(QN_ERR_INVALID, "%s has %zu tokens; at least 2 are needed to predict one",
                       path, t->count);
    qn_eval_text e = { .tokens = (int64_t)t->count - 1 };
    for (size_t i = 1; i < t->count; i++) {
        size_t size = 0;
        qn_token_bytes(f->tokenizer, t->id[i], &size);
        e.bytes += (int64_t)size;
    }
    QN_TRY(score_text(dev, f, t, o, &e.nll));
    e.perplexity = exp(e.nll / (double)e.tokens);
    e.bits_per_byte = e.nll / log(2) / (double)e.bytes;
    *out = e;
    return QN_OK;
}

qn_result qn_eval_text_file(qn_device *dev, const qn_folder *f, const char *path,
                            const qn_eval_opts *opts, qn_eval_text *out)
{
    qn_corpus c = { 0 };
    qn_tokens t = { 0 };
    const qn_encode_opts plain = { .blanks_only = true };
    qn_result r = qn_corpus_add(&c, path);
    if (r == QN_OK) r = qn_tokenizer_encode(f->tokenizer, c.text, c.size, &plain, &t);
    if (r == QN_OK) r = measure(dev, f, path, &t, opts, out);
    qn_tokens_free(&t);
    qn_corpus_free(&c);
    return r;
}
