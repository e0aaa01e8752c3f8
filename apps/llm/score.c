// Rows of similar length share a pass. Padding stands behind a row's tokens, where nothing that is
// scored can see it.
#include "score.h"
#include "fail.h"
#include "mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST = 4, BUCKETS = 20, MOST_ROWS = 64 }; // 2^4 = 16 positions in the smallest bucket

static const int64_t LOGITS = 64 << 20; // bytes of logits per pass, if one row fits in that

typedef struct bucket {
    qn_graph *g;
    qn_plan *plan;
    const qn_tensor *ids, *labels, *loss;
    int64_t rows, positions;
} bucket;

struct qn_scorer {
    qn_device *dev;
    qn_model_config config;
    qn_store *weights;
    int64_t positions;
    bucket buckets[BUCKETS];
};

qn_result qn_scorer_create(qn_device *dev, const qn_model_config *c, qn_store *weights,
                           int64_t positions, qn_scorer **out)
{
    *out = NULL;
    if (positions < 1 || positions > (int64_t)1 << (LEAST + BUCKETS - 1))
        return qn_fail(QN_ERR_INVALID, "%lld positions per row: expected 1 to %lld",
                       (long long)positions, (long long)1 << (LEAST + BUCKETS - 1));
    qn_scorer *s = qn_calloc(1, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    *s = (qn_scorer){ .dev = dev, .config = *c, .weights = weights, .positions = positions };
    *out = s;
    return QN_OK;
}

void qn_scorer_destroy(qn_scorer **scorer)
{
    qn_scorer *s = *scorer;
    *scorer = NULL;
    if (!s) return;
    for (int i = 0; i < BUCKETS; i++) {
        qn_plan_destroy(&s->buckets[i].plan);
        qn_graph_destroy(&s->buckets[i].g);
    }
    qn_free(s);
}

static int bucket_of(const qn_scorer *s, int64_t inputs)
{
    int i = 0;
    while ((int64_t)1 << (LEAST + i) < inputs && (int64_t)1 << (LEAST + i) < s->positions) i++;
    return i;
}

static qn_result build(qn_scorer *s, bucket *b, int index)
{
    b->positions = (int64_t)1 << (LEAST + index);
    if (b->positions > s->positions) b->positions = s->positions;
    b->rows = LOGITS / (b->positions * s->config.vocab_size * 4);
    if (b->rows < 1) b->rows = 1;
    if (b->rows > MOST_ROWS) b->rows = MOST_ROWS;
    QN_TRY(qn_graph_create(s->dev, &b->g));
    b->ids = qn_input(b->g, "ids", QN_I32, QN_SHAPE(b->rows, b->positions));
    b->labels = qn_input(b->g, "labels", QN_I32, QN_SHAPE(b->rows * b->positions));
    qn_lm *lm = qn_calloc(1, sizeof *lm);
    if (!lm) return qn_no_memory(sizeof *lm);
    qn_lm_opts o = { .batch = b->rows, .positions = b->positions };
    qn_result r = qn_lm_build(b->g, s->weights, &s->config, b->ids, &o, lm);
    if (r == QN_OK) qn_cross_entropy(b->g, lm->logits, b->labels, &b->loss);
    qn_free(lm);
    QN_TRY(r);
    qn_plan_opts plan = { .outputs = &b->loss, .output_count = 1 };
    return qn_plan_create(b->g, &plan, &b->plan);
}

typedef struct pass {
    const qn_score_row *rows;
    const size_t *order;
    const qn_score_hooks *hooks;
    int32_t *ids, *labels;
    float *loss;
    double *nll;
    int64_t tokens, total;
} pass;

static qn_result check_row(const qn_scorer *s, const qn_score_row *row)
{
    if (row->from < 1 || row->from > row->count || row->count - 1 > s->positions)
        return qn_fail(QN_ERR_INVALID, "a row of %lld tokens, scored from %lld: at most %lld fit",
                       (long long)row->count, (long long)row->from, (long long)s->positions + 1);
    for (int64_t i = 0; i < row->count; i++)
        if (row->id[i] < 0 || row->id[i] >= s->config.vocab_size)
            return qn_fail(QN_ERR_INVALID, "token %d is outside the vocabulary of %lld", row->id[i],
                           (long long)s->config.vocab_size);
    return QN_OK;
}

static qn_result add_up(pass *p, const bucket *b, size_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const size_t index = p->order[first + i];
        const qn_score_row *row = &p->rows[index];
        p->nll[index] = 0;
        for (int64_t t = row->from; t < row->count; t++) {
            double x = (double)p->loss[(int64_t)i * b->positions + t - 1];
            if (!isfinite(x))
                return qn_fail(QN_ERR_INVALID, "the model gave a loss that is not a number: its "
                                               "weights hold NaN or infinite values");
            p->nll[index] += x;
            p->tokens++;
            if (p->hooks && p->hooks->each) p->hooks->each(p->hooks->user, index, t, x);
        }
    }
    if (p->hooks && p->hooks->progress && !p->hooks->progress(p->hooks->user, p->tokens, p->total))
        return qn_fail(QN_ERR_CANCELLED, "stopped after %lld tokens", (long long)p->tokens);
    return QN_OK;
}

static qn_result run_pass(pass *p, bucket *b, size_t first, size_t count)
{
    const int64_t cells = b->rows * b->positions;
    memset(p->ids, 0, (size_t)cells * sizeof *p->ids);
    for (int64_t i = 0; i < cells; i++) p->labels[i] = QN_IGNORE;
    for (size_t i = 0; i < count; i++) {
        const qn_score_row *row = &p->rows[p->order[first + i]];
        int32_t *ids = p->ids + (int64_t)i * b->positions;
        int32_t *labels = p->labels + (int64_t)i * b->positions;
        memcpy(ids, row->id, (size_t)(row->count - 1) * sizeof *ids);
        for (int64_t t = row->from; t < row->count; t++) labels[t - 1] = row->id[t];
    }
    QN_TRY(qn_plan_set(b->plan, b->ids, p->ids, (uint64_t)cells * sizeof *p->ids));
    QN_TRY(qn_plan_set(b->plan, b->labels, p->labels, (uint64_t)cells * sizeof *p->labels));
    QN_TRY(qn_plan_run(b->plan));
    QN_TRY(qn_plan_get(b->plan, b->loss, p->loss, (uint64_t)cells * sizeof *p->loss));
    return add_up(p, b, first, count);
}

static qn_result run_bucket(qn_scorer *s, pass *p, int index, size_t first, size_t end)
{
    bucket *b = &s->buckets[index];
    if (!b->plan) {
        qn_plan_destroy(&b->plan);
        qn_graph_destroy(&b->g);
        QN_TRY(build(s, b, index));
    }
    const size_t cells = (size_t)(b->rows * b->positions);
    p->ids = qn_malloc(cells * sizeof *p->ids);
    p->labels = qn_malloc(cells * sizeof *p->labels);
    p->loss = qn_malloc(cells * sizeof *p->loss);
    qn_result r = p->ids && p->labels && p->loss ? QN_OK : qn_no_memory(cells * sizeof *p->ids);
    while (r == QN_OK && first < end) {
        size_t n = end - first < (size_t)b->rows ? end - first : (size_t)b->rows;
        r = run_pass(p, b, first, n);
        first += n;
    }
    qn_free(p->ids);
    qn_free(p->labels);
    qn_free(p->loss);
    return r;
}

qn_result qn_scorer_run(qn_scorer *s, const qn_score_row *rows, size_t count,
                        const qn_score_hooks *hooks, double *nll)
{
    if (!count) return QN_OK;
    int64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        QN_TRY(check_row(s, &rows[i]));
        total += rows[i].count - rows[i].from;
    }
    size_t *order = qn_malloc(count * sizeof *order), at = 0;
    if (!order) return qn_no_memory(count * sizeof *order);
    size_t first[BUCKETS + 1];
    for (int k = 0; k < BUCKETS; k++) { // a counting sort by bucket
        first[k] = at;
        for (size_t i = 0; i < count; i++)
            if (bucket_of(s, rows[i].count - 1) == k) order[at++] = i;
    }
    first[BUCKETS] = at;
    pass p = { .rows = rows, .order = order, .hooks = hooks, .nll = nll, .total = total };
    qn_result r = QN_OK;
    for (int k = 0; r == QN_OK && k < BUCKETS; k++)
        if (first[k] < first[k + 1]) r = run_bucket(s, &p, k, first[k], first[k + 1]);
    qn_free(order);
    return r;
}
