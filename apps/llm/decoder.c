// One plan per piece length, all over the same weights and cache.
#include "decoder.h"
#include "fail.h"
#include "mem.h"

#include <string.h>

// Pieces have power-of-two lengths, so that few plans serve all prompts.
enum { PLANS = 12 };

typedef struct piece {
    qn_graph *g;
    qn_plan *plan;
    const qn_tensor *ids, *past, *used, *keep, *logits;
} piece;

struct qn_decoder {
    qn_device *dev;
    qn_model_config config;
    qn_store *weights, *cache;
    int64_t batch, context, chunk, used;
    int32_t *keep; // [batch, context]
    bool masked;
    piece pieces[PLANS]; // of 2^i positions
};

qn_result qn_decoder_create(qn_device *dev, const qn_model_config *c, qn_store *weights,
                            const qn_decoder_opts *opts, qn_decoder **out)
{
    static const qn_decoder_opts none;
    *out = NULL;
    if (!opts) opts = &none;
    qn_decoder *d = qn_calloc(1, sizeof *d);
    if (!d) return qn_no_memory(sizeof *d);
    d->dev = dev;
    d->config = *c;
    d->weights = weights;
    d->batch = opts->batch ? opts->batch : 1;
    d->context = opts->context ? opts->context : 1024;
    d->chunk = opts->chunk ? opts->chunk : 64;
    d->masked = opts->masked;
    const size_t cells = (size_t)(d->batch * d->context);
    qn_result r = qn_store_create(dev, "key-value cache", &d->cache);
    if (r == QN_OK) r = qn_lm_declare_cache(c, d->cache, d->batch, d->context);
    if (r == QN_OK) r = qn_store_allocate(d->cache);
    if (r == QN_OK && d->masked && !(d->keep = qn_calloc(cells, sizeof *d->keep)))
        r = qn_no_memory(cells * sizeof *d->keep);
    if (r == QN_OK)
        *out = d;
    else
        qn_decoder_destroy(&d);
    return r;
}

void qn_decoder_destroy(qn_decoder **decoder)
{
    qn_decoder *d = *decoder;
    *decoder = NULL;
    if (!d) return;
    for (int i = 0; i < PLANS; i++) {
        qn_plan_destroy(&d->pieces[i].plan);
        qn_graph_destroy(&d->pieces[i].g);
    }
    qn_store_destroy(&d->cache);
    qn_free(d->keep);
    qn_free(d);
}

static qn_result build(qn_decoder *d, piece *p, int64_t positions)
{
    QN_TRY(qn_graph_create(d->dev, &p->g));
    p->ids = qn_input(p->g, "ids", QN_I32, QN_SHAPE(d->batch, positions));
    p->past = qn_input(p->g, "past", QN_I32, QN_SCALAR);
    p->used = qn_input(p->g, "used", QN_I32, QN_SCALAR);
    if (d->masked) p->keep = qn_input(p->g, "keep", QN_I32, QN_SHAPE(d->batch, d->context));
    qn_lm *lm = qn_calloc(1, sizeof *lm);
    if (!lm) return qn_no_memory(sizeof *lm);
    qn_lm_opts o = { .batch = d->batch, .positions = positions, .cache = d->cache,
                     .context = d->context, .past = p->past, .used = p->used, .keep = p->keep,
                     .last_only = true };
    qn_result r = qn_lm_build(p->g, d->weights, &d->config, p->ids, &o, lm);
    p->logits = lm->logits;
    qn_free(lm);
    QN_TRY(r);
    qn_plan_opts opts = { .outputs = &p->logits, .output_count = 1 };
    return qn_plan_create(p->g, &opts, &p->plan);
}

static qn_result run_piece(qn_decoder *d, int log2, const int32_t *ids, int64_t stride,
                           float *logits)
{
    piece *p = &d->pieces[log2];
    const int64_t n = (int64_t)1 << log2;
    if (!p->plan) {
        qn_plan_destroy(&p->plan);
        qn_graph_destroy(&p->g);
        QN_TRY(build(d, p, n));
    }
    int32_t *rows = qn_malloc((size_t)(d->batch * n) * sizeof *rows);
    if (!rows) return qn_no_memory((size_t)(d->batch * n) * sizeof *rows);
    for (int64_t b = 0; b < d->batch; b++)
        memcpy(rows + b * n, ids + b * stride, (size_t)n * sizeof *rows);
    int32_t past = (int32_t)d->used, used = (int32_t)(d->used + n);
    qn_result r = qn_plan_set(p->plan, p->ids, rows, (uint64_t)(d->batch * n) * sizeof *rows);
    qn_free(rows);
    if (r == QN_OK) r = qn_plan_set(p->plan, p->past, &past, sizeof past);
    if (r == QN_OK) r = qn_plan_set(p->plan, p->used, &used, sizeof used);
    if (r == QN_OK && d->masked)
        r = qn_plan_set(p->plan, p->keep, d->keep,
                        (uint64_t)(d->batch * d->context) * sizeof *d->keep);
    if (r == QN_OK) r = qn_plan_run(p->plan);
    if (r == QN_OK && logits)
        r = qn_plan_get(p->plan, p->logits, logits,
                        (uint64_t)(d->batch * d->config.vocab_size) * sizeof *logits);
    if (r == QN_OK) d->used += n;
    return r;
}

qn_result qn_decoder_feed(qn_decoder *d, const int32_t *ids, const int32_t *keep, int64_t count,
                          float *logits)
{
    if (count < 1) return qn_fail(QN_ERR_INVALID, "no tokens to decode");
    if (d->used + count > d->context)
        return qn_fail(QN_ERR_INVALID,
                       "the context holds %lld positions; %lld are filled and %lld more were given",
                       (long long)d->context, (long long)d->used, (long long)count);
    for (int64_t i = 0; i < d->batch * count; i++)
        if (ids[i] < 0 || ids[i] >= d->config.vocab_size)
            return qn_fail(QN_ERR_INVALID, "token %d is outside the vocabulary of %lld", ids[i],
                           (long long)d->config.vocab_size);
    for (int64_t b = 0; d->masked && b < d->batch; b++)
        for (int64_t i = 0; i < count; i++)
            d->keep[b * d->context + d->used + i] = keep ? keep[b * count + i] : 1;
    for (int64_t done = 0; done < count;) {
        int log2 = 0;
        while (log2 + 1 < PLANS && (int64_t)2 << log2 <= d->chunk &&
               (int64_t)2 << log2 <= count - done)
            log2++;
        bool last = done + ((int64_t)1 << log2) == count;
        QN_TRY(run_piece(d, log2, ids + done, count, last ? logits : NULL));
        done += (int64_t)1 << log2;
    }
    return QN_OK;
}

int64_t qn_decoder_used(const qn_decoder *d)
{
    return d->used;
}

int64_t qn_decoder_context(const qn_decoder *d)
{
    return d->context;
}

void qn_decoder_reset(qn_decoder *d)
{
    d->used = 0;
}

void qn_decoder_rewind(qn_decoder *d, int64_t used)
{
    if (used < d->used) d->used = used;
}

qn_result qn_decoder_cache(qn_decoder *d, int64_t layer, int which, float *out)
{
    char name[32];
    snprintf(name, sizeof name, "%c.%lld", which && !qn_model_shares_kv(&d->config) ? 'v' : 'k',
             (long long)layer);
    const qn_store_entry *e = qn_store_find(d->cache, name);
    if (!e)
        return qn_fail(QN_ERR_INVALID, "layer %lld: the model has %lld", (long long)layer,
                       (long long)d->config.n_layer);
    float *all = qn_malloc(e->size);
    if (!all) return qn_no_memory(e->size);
    qn_result r = qn_store_read(d->cache, name, all, e->size);
    const int64_t A = d->config.att_hidden;
    for (int64_t b = 0; r == QN_OK && b < d->batch; b++)
        memcpy(out + b * d->used * A, all + b * d->context * A,
               (size_t)(d->used * A) * sizeof *out);
    qn_free(all);
    return r;
}
