// Which experts a text uses.
#include "probe.h"
#include "fail.h"
#include "llm/data.h"
#include "mem.h"

#include <string.h>

qn_result qn_probe_text(const qn_folder *f, const char *path, uint64_t most, qn_tokens *out)
{
    qn_corpus c = { 0 };
    const qn_encode_opts plain = { .plain = true };
    *out = (qn_tokens){ 0 };
    qn_result r = qn_corpus_add(&c, path);
    if (r == QN_OK) r = qn_tokenizer_encode(f->tokenizer, c.text, c.size, &plain, out);
    if (r == QN_OK && out->count < 2)
        r = qn_fail(QN_ERR_INVALID, "%s: %zu tokens, expected at least two", path, out->count);
    if (r == QN_OK && most && out->count > most) out->count = (size_t)most;
    qn_corpus_free(&c);
    if (r != QN_OK) qn_tokens_free(out);
    return r;
}

// One batch's tensors on the host, and where they are added.
typedef struct counting {
    qn_usage *u;
    qn_probe *p;
    const qn_model_config *c;
    int32_t *experts;
    float *gates, *rows, *sums;
    bool every;
} counting;

static qn_result count_router(counting *k, int64_t l, int kind)
{
    const int64_t E = k->u->experts[kind], K = kind ? k->c->k_mlp : k->c->k_att;
    const int64_t slots = qn_probe_rows(k->p) * K;
    QN_TRY(qn_probe_experts(k->p, l, kind, k->experts));
    QN_TRY(qn_probe_gates(k->p, l, kind, k->gates));
    for (int64_t i = 0; i < slots; i++) {
        k->u->slots[kind][l * E + k->experts[i]]++;
        k->u->gates[kind][l * E + k->experts[i]] += (double)k->gates[i];
    }
    if (!k->every) return QN_OK;
    const int64_t n = E * k->u->width[kind];
    QN_TRY(qn_probe_every(k->p, l, kind, k->sums));
    for (int64_t i = 0; i < n; i++) k->u->sums[kind][l * n + i] += (double)k->sums[i];
    return QN_OK;
}

static qn_result count_batch(counting *k, const int32_t *tokens)
{
    const int64_t N = qn_probe_rows(k->p);
    QN_TRY(qn_probe_run(k->p, tokens, tokens + 1));
    QN_TRY(qn_probe_losses(k->p, k->rows));
    for (int64_t i = 0; i < N; i++) k->u->nll += (double)k->rows[i];
    k->u->predicted += (double)N;
    k->u->tokens += (double)N;
    for (int64_t l = 0; l < k->c->n_layer; l++)
        for (int kind = 0; kind < 2; kind++) QN_TRY(count_router(k, l, kind));
    return QN_OK;
}

static qn_result allocate(counting *k, const qn_folder *f, bool every)
{
    qn_usage *u = k->u;
    const qn_model_config *c = &f->config;
    *u = (qn_usage){ .layers = c->n_layer, .experts = { c->n_att_experts, c->n_mlp_experts },
                     .width = { c->att_hidden, c->ffd_hidden } };
    const int64_t choices = c->k_att > c->k_mlp ? c->k_att : c->k_mlp;
    size_t most = 1;
    for (int kind = 0; kind < 2; kind++) {
        const size_t n = (size_t)(u->layers * u->experts[kind]);
        const size_t wide = (size_t)(u->experts[kind] * u->width[kind]);
        u->slots[kind] = qn_calloc(n, sizeof *u->slots[kind]);
        u->gates[kind] = qn_calloc(n, sizeof *u->gates[kind]);
        u->sums[kind] = qn_calloc(every ? n * (size_t)u->width[kind] : 1, sizeof *u->sums[kind]);
        if (!u->slots[kind] || !u->gates[kind] || !u->sums[kind]) return qn_no_memory(n * 8);
        if (every && wide > most) most = wide;
    }
    const size_t N = (size_t)qn_probe_rows(k->p);
    k->experts = qn_malloc(N * (size_t)choices * sizeof *k->experts);
    k->gates = qn_malloc(N * (size_t)choices * sizeof *k->gates);
    k->rows = qn_malloc(N * sizeof *k->rows);
    k->sums = qn_malloc(most * sizeof *k->sums);
    if (!k->experts || !k->gates || !k->rows || !k->sums) return qn_no_memory(most * 4);
    return QN_OK;
}

qn_result qn_usage_measure(qn_device *dev, const qn_folder *f, const int32_t *tokens, uint64_t count,
                           bool every, qn_usage *out)
{
    int64_t T = 64, B = 8;
    if (count < 2) return qn_fail(QN_ERR_INVALID, "a text of %llu tokens shows no usage",
                                  (unsigned long long)count);
    const int64_t usable = (int64_t)count - 1;
    if (usable < T) T = usable;
    if (usable < B * T) B = usable / T;
    counting k = { .u = out, .c = &f->config, .every = every };
    *out = (qn_usage){ 0 };
    qn_result r = qn_probe_create(dev, f, B, T, every ? QN_PROBE_EVERY : 0, &k.p);
    if (r == QN_OK) r = allocate(&k, f, every);
    for (int64_t at = 0; r == QN_OK && at + B * T <= usable; at += B * T)
        r = count_batch(&k, tokens + at);
    qn_free(k.experts);
    qn_free(k.gates);
    qn_free(k.rows);
    qn_free(k.sums);
    qn_probe_destroy(&k.p);
    if (r != QN_OK) qn_usage_free(out);
    return r;
}

void qn_usage_free(qn_usage *u)
{
    for (int kind = 0; kind < 2; kind++) {
        qn_free(u->slots[kind]);
        qn_free(u->gates[kind]);
        qn_free(u->sums[kind]);
    }
    *u = (qn_usage){ 0 };
}

double qn_usage_share(const qn_usage *u, int kind, int64_t layer, int64_t e)
{
    const int64_t E = u->experts[kind];
    double all = 0;
    for (int64_t i = 0; i < E; i++) all += u->slots[kind][layer * E + i];
    return all > 0 ? u->slots[kind][layer * E + e] / all : 0;
}
