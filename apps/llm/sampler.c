// Temperature, top-k, top-p, min-p and penalties.
#include "sampler.h"
#include "fail.h"
#include "mem.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>

typedef struct candidate {
    int32_t token;
    float logit;
    double p;
} candidate;

struct qn_sampler {
    qn_sampling s;
    int64_t vocab;
    qn_random rng;
    candidate *all;
    int32_t *past;
    size_t past_count, past_cap;
    int32_t *seen; // occurrences among the last n, by token
};

qn_result qn_sampler_create(const qn_sampling *s, int64_t vocab, qn_sampler **out)
{
    *out = NULL;
    qn_sampler *x = qn_calloc(1, sizeof *x);
    if (!x) return qn_no_memory(sizeof *x);
    *x = (qn_sampler){ .s = *s, .vocab = vocab, .rng = qn_random_start(s->seed, 0) };
    x->all = qn_calloc((size_t)vocab, sizeof *x->all);
    x->seen = qn_calloc((size_t)vocab, sizeof *x->seen);
    if (!x->all || !x->seen) {
        qn_sampler_destroy(&x);
        return qn_no_memory((size_t)vocab * sizeof *x->all);
    }
    *out = x;
    return QN_OK;
}

void qn_sampler_destroy(qn_sampler **sampler)
{
    qn_sampler *s = *sampler;
    *sampler = NULL;
    if (!s) return;
    qn_free(s->all);
    qn_free(s->past);
    qn_free(s->seen);
    qn_free(s);
}

qn_result qn_sampler_accept(qn_sampler *s, int32_t token)
{
    if (token < 0 || token >= s->vocab)
        return qn_fail(QN_ERR_INVALID, "token %d is outside the vocabulary of %lld", token,
                       (long long)s->vocab);
    QN_TRY(qn_grow((void **)&s->past, &s->past_cap, s->past_count + 1, sizeof *s->past));
    s->past[s->past_count++] = token;
    s->seen[token]++;
    if (s->s.repeat_last_n >= 0 && s->past_count > (size_t)s->s.repeat_last_n)
        s->seen[s->past[s->past_count - 1 - (size_t)s->s.repeat_last_n]]--;
    return QN_OK;
}

static float penalised(const qn_sampler *s, int32_t token, float logit)
{
    int32_t n = s->seen[token];
    if (n == 0) return logit;
    double x = (double)logit;
    x = x > 0 ? x / s->s.repeat_penalty : x * s->s.repeat_penalty;
    return (float)(x - n * s->s.frequency_penalty - s->s.presence_penalty);
}

// Most likely first; ties to the lower token, so that the order is total.
static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

static void fill_probabilities(candidate *c, size_t n, double temperature)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += c[i].p = exp(((double)c[i].logit - (double)c[0].logit) / temperature);
    for (size_t i = 0; i < n; i++) c[i].p /= sum;
}

qn_result qn_sampler_pick(qn_sampler *s, const float *logits, int32_t *token)
{
    size_t n = 0;
    candidate *c = s->all;
    for (int32_t i = 0; i < s->vocab; i++)
        if (isfinite(logits[i]))
            c[n++] = (candidate){ i, penalised(s, i, logits[i]), 0 };
    if (n == 0)
        return qn_fail(QN_ERR_INVALID, "the model gave no usable logit: its weights hold NaN or "
                                       "infinite values");
    qsort(c, n, sizeof *c, by_logit);
    *token = c[0].token;
    if (s->s.temperature <= 0) return QN_OK;

    if (s->s.top_k > 0 && (size_t)s->s.top_k < n) n = (size_t)s->s.top_k;
    fill_probabilities(c, n, 1);
    if (s->s.top_p < 1) {
        double sum = 0;
        size_t keep = 0;
        while (keep < n && (keep == 0 || sum < s->s.top_p)) sum += c[keep++].p;
        n = keep;
    }
    size_t keep = 1;
    while (keep < n && c[keep].p >= s->s.min_p * c[0].p) keep++;
    n = keep;
    fill_probabilities(c, n, s->s.temperature);
    double draw = qn_random_unit(&s->rng), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += c[i].p;
        *token = c[i].token;
        if (draw < sum) break;
    }
    return QN_OK;
}
