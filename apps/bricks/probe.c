// Graphs with everything that bricks want to see as outputs.
#include "probe.h"
#include "fail.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

struct qn_probe {
    const qn_folder *f;
    int64_t batch, positions;
    uint32_t parts;
    qn_graph *g;
    qn_plan *plan;
    qn_lm *lm;
    const qn_tensor *ids, *labels, *rows;
    struct {
        const qn_tensor *table, *slots, *gradient, *every[2];
        qn_routing all[2]; // every expert for every token
    } layer[QN_LM_MAX_LAYERS];
    const qn_tensor **outputs;
    size_t output_count, output_capacity;
};

int64_t qn_probe_rows(const qn_probe *p)
{
    return p->batch * p->positions;
}

static const qn_tensor *mask(void *user, qn_graph *g, int layer, const qn_routing *routing,
                             const qn_tensor *h)
{
    qn_probe *p = user;
    const qn_model_config *c = &p->f->config;
    char name[32];
    if (p->parts & QN_PROBE_TABLE) {
        snprintf(name, sizeof name, "table.%d", layer);
        const qn_tensor *table = qn_input(g, name, QN_F32, QN_SHAPE(c->n_mlp_experts, c->ffd_hidden));
        p->layer[layer].table = table;
        const int64_t slots = p->batch * p->positions * c->k_mlp;
        const qn_tensor *own = routing->experts
                                   ? qn_reshape(g, routing->experts, QN_SHAPE(slots))
                                   : NULL;
        h = qn_mul(g, h, qn_embedding(g, table, own));
    }
    if (p->parts & QN_PROBE_SLOTS) {
        snprintf(name, sizeof name, "slots.%d", layer);
        p->layer[layer].slots = h ? qn_input(g, name, QN_F32, h->shape) : NULL;
        h = qn_mul(g, h, p->layer[layer].slots);
    }
    return h;
}

static qn_result keep(qn_probe *p, const qn_tensor *t)
{
    QN_TRY(qn_graph_status(p->g));
    QN_TRY(qn_grow((void **)&p->outputs, &p->output_capacity, p->output_count + 1,
                   sizeof *p->outputs));
    p->outputs[p->output_count++] = t;
    return QN_OK;
}

// A routing that sends every token to every expert.
static qn_result route_all(qn_probe *p, int64_t experts, qn_routing *out)
{
    const int64_t N = qn_probe_rows(p);
    int32_t *e = qn_malloc((size_t)(N * experts) * sizeof *e);
    if (!e) return qn_no_memory((size_t)(N * experts) * sizeof *e);
    for (int64_t i = 0; i < N * experts; i++) e[i] = (int32_t)(i % experts);
    const qn_tensor *keys = qn_constant(p->g, "every expert", QN_I32, QN_SHAPE(N * experts), e);
    qn_free(e);
    qn_sorted sorted = qn_counting_sort(p->g, keys, (int)experts);
    *out = (qn_routing){ .experts = qn_reshape(p->g, keys, QN_SHAPE(N, experts)),
                         .order = sorted.order, .offsets = sorted.offsets,
                         .choices = (int)experts };
    return qn_graph_status(p->g);
}

static const qn_tensor *sum_tokens(qn_probe *p, const qn_tensor *x, int64_t experts, int64_t width)
{
    return qn_sum_rows(p->g, qn_reshape(p->g, x, QN_SHAPE(qn_probe_rows(p), experts * width)));
}

static qn_result every_expert(qn_probe *p, int64_t l)
{
    const qn_model_config *c = &p->f->config;
    const struct qn_lm_layer *at = &p->lm->layer[l];
    qn_graph *g = p->g;
    char name[160];
    if (l == 0) QN_TRY(route_all(p, c->n_att_experts, &p->layer[0].all[0]));
    if (l == 0) QN_TRY(route_all(p, c->n_mlp_experts, &p->layer[0].all[1]));
    const qn_routing *all = p->layer[0].all;
    snprintf(name, sizeof name, "transformer.h.%lld.mlpf.experts.weight", (long long)l);
    const qn_tensor *h = qn_expert_matmul(g, at->mlp_in, qn_frozen(g, p->f->weights, name), &all[1],
                                          NULL);
    h = qn_activate(g, h, c->activation);
    p->layer[l].every[1] = sum_tokens(p, h, c->n_mlp_experts, c->ffd_hidden);
    snprintf(name, sizeof name, "transformer.h.%lld.attn.q_proj.experts.weight", (long long)l);
    const qn_tensor *q = qn_expert_matmul(g, at->attn_in, qn_frozen(g, p->f->weights, name),
                                          &all[0], NULL);
    const qn_stickbreaking_opts opts = { .batch = (int)p->batch, .heads = (int)c->n_head,
                                         .slots = (int)c->n_att_experts };
    const qn_tensor *o = qn_stickbreaking(g, q, at->k, at->v, &opts);
    p->layer[l].every[0] = sum_tokens(p, o, c->n_att_experts, c->att_hidden);
    QN_TRY(keep(p, p->layer[l].every[0]));
    return keep(p, p->layer[l].every[1]);
}

static qn_result gradients(qn_probe *p)
{
    const size_t n = (size_t)p->f->config.n_layer;
    const qn_tensor *ce = qn_cross_entropy(p->g, p->lm->logits, p->labels, NULL);
    const qn_tensor *h[QN_LM_MAX_LAYERS], *dh[QN_LM_MAX_LAYERS];
    for (size_t l = 0; l < n; l++) h[l] = p->lm->layer[l].neurons;
    QN_TRY(qn_graph_status(p->g));
    QN_TRY(qn_backward(p->g, ce, NULL, h, n, dh));
    for (size_t l = 0; l < n; l++) {
        p->layer[l].gradient = dh[l];
        QN_TRY(keep(p, dh[l]));
    }
    return QN_OK;
}

static qn_result outputs(qn_probe *p)
{
    QN_TRY(keep(p, p->rows));
    for (int64_t l = 0; l < p->f->config.n_layer; l++) {
        const struct qn_lm_layer *at = &p->lm->layer[l];
        const qn_routing *r[2] = { &at->attn, &at->mlp };
        for (int kind = 0; kind < 2; kind++) {
            QN_TRY(keep(p, r[kind]->experts));
            QN_TRY(keep(p, r[kind]->gates));
            if (p->parts & QN_PROBE_GATES) QN_TRY(keep(p, r[kind]->probs));
        }
        if (p->parts & QN_PROBE_NEURONS) QN_TRY(keep(p, at->neurons));
        if (p->parts & QN_PROBE_INPUTS) QN_TRY(keep(p, at->mlp_in));
        if (p->parts & QN_PROBE_EVERY) QN_TRY(every_expert(p, l));
    }
    if (p->parts & QN_PROBE_FINAL) QN_TRY(keep(p, p->lm->final));
    return p->parts & QN_PROBE_GRADIENT ? gradients(p) : QN_OK;
}

static qn_result build(qn_probe *p, qn_device *dev)
{
    QN_TRY(qn_graph_create(dev, &p->g));
    p->ids = qn_input(p->g, "ids", QN_I32, QN_SHAPE(p->batch, p->positions));
    p->labels = qn_input(p->g, "labels", QN_I32, QN_SHAPE(qn_probe_rows(p)));
    const bool masks = p->parts & (QN_PROBE_TABLE | QN_PROBE_SLOTS);
    const qn_lm_opts o = { .batch = p->batch, .positions = p->positions,
                           .neurons = masks ? mask : NULL, .neurons_user = p };
    QN_TRY(qn_lm_build(p->g, p->f->weights, &p->f->config, p->ids, &o, p->lm));
    qn_cross_entropy(p->g, p->lm->logits, p->labels, &p->rows);
    QN_TRY(outputs(p));
    const qn_plan_opts plan = { .outputs = p->outputs, .output_count = p->output_count };
    return qn_plan_create(p->g, &plan, &p->plan);
}

static qn_result set_ones(qn_probe *p, const qn_tensor *t)
{
    if (!t) return QN_OK;
    const size_t n = (size_t)qn_shape_count(t->shape);
    float *x = qn_malloc(n * sizeof *x);
    if (!x) return qn_no_memory(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = 1;
    qn_result r = qn_plan_set(p->plan, t, x, n * sizeof *x);
    qn_free(x);
    return r;
}

qn_result qn_probe_create(qn_device *dev, const qn_folder *f, int64_t batch, int64_t positions,
                          uint32_t parts, qn_probe **out)
{
    *out = NULL;
    qn_probe *p = qn_calloc(1, sizeof *p);
    if (!p) return qn_no_memory(sizeof *p);
    *p = (qn_probe){ .f = f, .batch = batch, .positions = positions, .parts = parts };
    p->lm = qn_calloc(1, sizeof *p->lm);
    qn_result r = p->lm ? build(p, dev) : qn_no_memory(sizeof *p->lm);
    for (int64_t l = 0; r == QN_OK && l < f->config.n_layer; l++) {
        r = set_ones(p, p->layer[l].table);
        if (r == QN_OK) r = set_ones(p, p->layer[l].slots);
    }
    if (r == QN_OK)
        *out = p;
    else
        qn_probe_destroy(&p);
    return r;
}

void qn_probe_destroy(qn_probe **probe)
{
    qn_probe *p = *probe;
    *probe = NULL;
    if (!p) return;
    qn_plan_destroy(&p->plan);
    qn_graph_destroy(&p->g);
    qn_free(p->outputs);
    qn_free(p->lm);
    qn_free(p);
}

static uint64_t bytes_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_count(t->shape) * 4;
}

qn_result qn_probe_set_table(qn_probe *p, int64_t layer, const float *factors)
{
    const qn_tensor *t = p->layer[layer].table;
    return qn_plan_set(p->plan, t, factors, bytes_of(t));
}

qn_result qn_probe_set_slots(qn_probe *p, int64_t layer, const float *factors)
{
    const qn_tensor *t = p->layer[layer].slots;
    return qn_plan_set(p->plan, t, factors, bytes_of(t));
}

qn_result qn_probe_run(qn_probe *p, const int32_t *ids, const int32_t *labels)
{
    QN_TRY(qn_plan_set(p->plan, p->ids, ids, bytes_of(p->ids)));
    QN_TRY(qn_plan_set(p->plan, p->labels, labels, bytes_of(p->labels)));
    QN_TRY(qn_plan_run(p->plan));
    return qn_plan_wait(p->plan);
}

static qn_result get(qn_probe *p, const qn_tensor *t, void *out)
{
    return qn_plan_get(p->plan, t, out, bytes_of(t));
}

static const qn_routing *routing_of(const qn_probe *p, int64_t layer, int kind)
{
    return kind ? &p->lm->layer[layer].mlp : &p->lm->layer[layer].attn;
}

qn_result qn_probe_losses(qn_probe *p, float *rows)
{
    return get(p, p->rows, rows);
}

qn_result qn_probe_experts(qn_probe *p, int64_t layer, int kind, int32_t *experts)
{
    return get(p, routing_of(p, layer, kind)->experts, experts);
}

qn_result qn_probe_gates(qn_probe *p, int64_t layer, int kind, float *gates)
{
    return get(p, routing_of(p, layer, kind)->gates, gates);
}

qn_result qn_probe_probs(qn_probe *p, int64_t layer, int kind, float *probs)
{
    return get(p, routing_of(p, layer, kind)->probs, probs);
}

qn_result qn_probe_neurons(qn_probe *p, int64_t layer, float *h)
{
    return get(p, p->lm->layer[layer].neurons, h);
}

qn_result qn_probe_gradient(qn_probe *p, int64_t layer, float *dh)
{
    return get(p, p->layer[layer].gradient, dh);
}

qn_result qn_probe_every(qn_probe *p, int64_t layer, int kind, float *sums)
{
    return get(p, p->layer[layer].every[kind], sums);
}

qn_result qn_probe_final(qn_probe *p, float *hidden)
{
    return get(p, p->lm->final, hidden);
}

qn_result qn_probe_inputs(qn_probe *p, int64_t layer, float *x)
{
    return get(p, p->lm->layer[layer].mlp_in, x);
}
