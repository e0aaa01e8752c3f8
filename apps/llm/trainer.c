// Plans of a training step: loss and gradients per run, then one optimiser pass over the stores.
#include "trainer.h"
#include "lora.h"
#include "fail.h"
#include "mem.h"
#include "memory_layer.h"
#include "parameters.h"
#include "platform.h"
#include "schedule.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64 }; // elements that share a group of qn_adamw()

// One graph that computes the loss; training ones store gradients, too.
typedef struct loss_graph {
    qn_graph *g;
    qn_plan *plan;
    const qn_tensor *ids, *labels, *seed, *forget; // forget: NULL where nothing is forgotten
    const qn_tensor *loss, *ce, *aux, *rows;
    const qn_tensor **outputs; // loss, ce, aux, then the routers' offsets
    size_t output_count;
} loss_graph;

// What is trained of a parameter, in the order of qn_parameters().
typedef struct share {
    enum { SHARE_ALL = 0, SHARE_NONE, SHARE_PART } kind;
    uint8_t *keep; // PART: one for each element
} share;

struct qn_trainer {
    qn_device *dev;
    share *shares;
    size_t share_count, share_capacity;
    qn_model_config config;
    qn_trainer_opts opts;
    qn_store *weights, *gradients, *moment[2];
    qn_store *memory; // what the rows of the batch remember; NULL: every step starts anew
    loss_graph first, further, eval; // further: adds to the gradients; NULL without accumulation
    struct {
        qn_graph *g;
        qn_plan *plan;
        const qn_tensor *hyper, *square_sum;
    } optimiser;
};

qn_store *qn_trainer_weights(qn_trainer *t)
{
    return t->weights;
}

qn_store *qn_trainer_remembered(qn_trainer *t)
{
    return t->memory;
}

qn_store *qn_trainer_gradients(qn_trainer *t)
{
    return t->gradients;
}

qn_store *qn_trainer_moments(qn_trainer *t, int which)
{
    return t->moment[which != 0];
}

const qn_graph *qn_trainer_graph(const qn_trainer *t)
{
    return t->first.g;
}

qn_plan *qn_trainer_plan(qn_trainer *t, bool optimiser)
{
    return optimiser ? t->optimiser.plan : t->first.plan;
}

double qn_trainer_flops(const qn_trainer *t)
{
    qn_plan_stats a = qn_plan_describe(t->first.plan), b = qn_plan_describe(t->optimiser.plan);
    return (double)a.flops * (double)t->opts.accumulate + (double)b.flops;
}

// ------------------------------------------------------------------------------ what is trained

static qn_result find_share(void *user, const qn_param_info *p)
{
    qn_trainer *t = user;
    QN_TRY(qn_grow((void **)&t->shares, &t->share_capacity, t->share_count + 1,
                   sizeof *t->shares));
    share *s = &t->shares[t->share_count];
    *s = (share){ .kind = t->opts.lora ? SHARE_NONE : SHARE_ALL };
    t->share_count++;
    if (t->opts.lora) return QN_OK;
    if (!t->opts.trainable) return QN_OK;
    const size_t n = (size_t)qn_shape_count(p->shape);
    s->keep = qn_calloc(n, 1);
    if (!s->keep) return qn_no_memory(n);
    QN_TRY(t->opts.trainable->mark(t->opts.trainable->user, p->name, p->shape, s->keep));
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) kept += s->keep[i] != 0;
    s->kind = kept == n ? SHARE_ALL : kept ? SHARE_PART : SHARE_NONE;
    if (s->kind == SHARE_PART) return QN_OK;
    qn_free(s->keep);
    s->keep = NULL;
    return QN_OK;
}

// Trained parameters come first, so that gradients and moments share the offsets of the weights.
typedef struct declaration {
    const qn_trainer *t;
    qn_store *store;
    size_t index;
    bool frozen;
} declaration;

static qn_result declare_share(void *user, const qn_param_info *p)
{
    declaration *d = user;
    const bool frozen = d->t->shares[d->index++].kind == SHARE_NONE;
    return frozen == d->frozen ? qn_store_add(d->store, p->name, QN_F32, p->shape) : QN_OK;
}

static qn_result declare(const qn_trainer *t, qn_store *store, bool frozen)
{
    declaration d = { .t = t, .store = store, .frozen = frozen };
    return qn_parameters(&t->config, declare_share, &d);
}

// NULL for the factors of adapters.
static const share *share_of(const qn_trainer *t, const char *name)
{
    if (t->opts.lora) return NULL;
    // Stores hold the trained parameters in the order of the shares, then the frozen ones.
    size_t at = 0;
    for (int frozen = 0; frozen < 2; frozen++)
        for (size_t i = 0; i < t->share_count; i++) {
            if ((t->shares[i].kind == SHARE_NONE) != (frozen != 0)) continue;
            const qn_store_entry *e = qn_store_at(t->weights, at++);
            if (e && !strcmp(e->name, name)) return &t->shares[i];
        }
    return NULL;
}

// The gradient with zeros where nothing is trained.
static const qn_tensor *masked(qn_graph *g, const share *s, const qn_tensor *grad)
{
    if (!grad || !s || s->kind != SHARE_PART) return grad;
    const size_t n = (size_t)qn_shape_count(grad->shape);
    float *mask = qn_malloc(n * sizeof *mask);
    if (!mask) return NULL; // the assignment refuses it
    for (size_t i = 0; i < n; i++) mask[i] = s->keep[i] ? 1 : 0;
    const qn_tensor *m = qn_constant(g, "trained", QN_F32, grad->shape, mask);
    qn_free(mask);
    return qn_mul(g, grad, m);
}

// ------------------------------------------------------------------------------ plans

// Gradients of every trained parameter, written to the gradient store or added to it.
static qn_result store_gradients(qn_trainer *t, loss_graph *l, const qn_tensor *scaled, bool add)
{
    size_t n = qn_store_count(t->gradients);
    const qn_tensor **wrt = qn_calloc(n, sizeof *wrt), **grads = qn_calloc(n, sizeof *grads);
    qn_result r = wrt && grads ? QN_OK : qn_no_memory(n * sizeof *wrt);
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        wrt[i] = qn_param(l->g, t->weights, qn_store_at(t->gradients, i)->name);
        r = qn_graph_status(l->g);
    }
    if (r == QN_OK) r = qn_backward(l->g, scaled, NULL, wrt, n, grads);
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        if (!grads[i]) continue; // stays zero
        const qn_tensor *home =
            qn_frozen(l->g, t->gradients, qn_store_at(t->gradients, i)->name);
        grads[i] = masked(l->g, share_of(t, qn_store_at(t->gradients, i)->name), grads[i]);
        qn_assign(l->g, home, add ? qn_add(l->g, home, grads[i]) : grads[i]);
        r = qn_graph_status(l->g);
    }
    qn_free(wrt);
    qn_free(grads);
    return r;
}

static qn_result build_loss(qn_trainer *t, loss_graph *l, bool training, bool add)
{
    const qn_model_config *c = &t->config;
    const int64_t B = t->opts.batch, T = t->opts.positions;
    QN_TRY(qn_graph_create(t->dev, &l->g));
    l->ids = qn_input(l->g, "ids", QN_I32, QN_SHAPE(B, T));
    l->labels = qn_input(l->g, "labels", QN_I32, QN_SHAPE(B * T));
    l->seed = qn_input(l->g, "seed", QN_I32, QN_SCALAR);
    if (t->opts.forget && qn_memory_any(c))
        l->forget = qn_input(l->g, "forget", QN_F32, QN_SHAPE(B * T, 1));
    qn_lm *lm = qn_calloc(1, sizeof *lm);
    if (!lm) return qn_no_memory(sizeof *lm);
    qn_lm_opts o = { .forget = l->forget, .batch = B, .positions = T, .training = training, .seed = l->seed,
                     .weights = t->opts.weights, .memory = training ? t->memory : NULL };
    if (t->opts.lora) {
        o.lora_scale = qn_lora_scale(t->opts.lora);
        o.lora_dropout = t->opts.lora->dropout;
    }
    qn_result r = qn_lm_build(l->g, t->weights, c, l->ids, &o, lm);
    if (r == QN_OK) {
        l->ce = qn_cross_entropy(l->g, lm->logits, l->labels, &l->rows);
        l->aux = lm->aux;
        l->loss = c->aux_loss_weight > 0
                      ? qn_add(l->g, l->ce, qn_scale(l->g, l->aux, (float)c->aux_loss_weight, 0))
                      : l->ce;
        r = qn_graph_status(l->g);
    }
    if (r == QN_OK && training) {
        const qn_tensor *scaled = t->opts.accumulate > 1
                                      ? qn_scale(l->g, l->loss, 1.0f / (float)t->opts.accumulate, 0)
                                      : l->loss;
        r = store_gradients(t, l, scaled, add);
    }
    l->outputs = qn_calloc(4 + 2 * (size_t)c->n_layer, sizeof *l->outputs);
    if (!l->outputs) r = qn_no_memory(64);
    if (r == QN_OK) {
        l->outputs[l->output_count++] = l->loss;
        l->outputs[l->output_count++] = l->ce;
        l->outputs[l->output_count++] = l->aux;
        for (int i = 0; training && i < c->n_layer; i++) {
            l->outputs[l->output_count++] = lm->layer[i].attn.offsets;
            l->outputs[l->output_count++] = lm->layer[i].mlp.offsets;
        }
        if (!training) l->outputs[l->output_count++] = l->rows;
    }
    qn_free(lm);
    return r;
}

static qn_plan_opts plan_opts(const qn_trainer *t, const loss_graph *l)
{
    return (qn_plan_opts){ .outputs = l->outputs, .output_count = l->output_count,
                           .profile = t->opts.profile };
}

typedef struct grouping {
    const qn_trainer *t;
    int32_t *groups;
} grouping;

// Group 0 decays, group 1 does not, -1 stays as it is.
static qn_result group_one(void *user, const qn_param_info *p)
{
    grouping *at = user;
    const qn_store_entry *e = qn_store_find(at->t->gradients, p->name);
    if (!e) return QN_OK;
    const share *s = share_of(at->t, p->name);
    const bool decays = at->t->opts.decay_everything || qn_param_decays(p->kind);
    const uint64_t first = e->offset / 4 / BLOCK, count = e->size / 4;
    for (uint64_t b = 0; b * BLOCK < count; b++) {
        uint64_t kept = 0, n = count - b * BLOCK < BLOCK ? count - b * BLOCK : BLOCK;
        for (uint64_t i = 0; s->keep && i < n; i++) kept += s->keep[b * BLOCK + i] != 0;
        if (!s->keep) kept = n;
        // A frozen element without decay keeps its bits: its gradient and its moments are zeros.
        at->groups[first + b] = !kept ? -1 : kept == n && decays ? 0 : 1;
    }
    return QN_OK;
}

static qn_result build_optimiser(qn_trainer *t)
{
    QN_TRY(qn_graph_create(t->dev, &t->optimiser.g));
    qn_graph *g = t->optimiser.g;
    const uint64_t trained = qn_store_bytes(t->gradients);
    const int64_t blocks = (int64_t)(trained / 4 / BLOCK);
    int32_t *groups = qn_calloc((size_t)blocks, sizeof *groups);
    if (!groups) return qn_no_memory((size_t)blocks * sizeof *groups);
    qn_result r = qn_parameters(&t->config, group_one, &(grouping){ t, groups });
    const float table[2][2] = { { 1, (float)t->opts.weight_decay }, { 1, 0 } };
    if (r == QN_OK) {
        const qn_tensor *group = qn_constant(g, "groups", QN_I32, QN_SHAPE(blocks), groups);
        const qn_tensor *rows = qn_constant(g, "group table", QN_F32, QN_SHAPE(2, 2), table);
        const qn_tensor *grad = qn_store_tensor(g, t->gradients);
        t->optimiser.hyper = qn_input(g, "hyper", QN_F32, QN_SHAPE(QN_ADAM_HYPER));
        t->optimiser.square_sum = qn_sum_squares(g, grad);
        qn_adamw(g, qn_store_prefix(g, t->weights, trained), grad, qn_store_tensor(g, t->moment[0]),
                 qn_store_tensor(g, t->moment[1]), t->optimiser.hyper, t->optimiser.square_sum,
                 group, rows);
        r = qn_graph_status(g);
    }
    qn_free(groups);
    return r;
}

static const char *const store_names[] = { "weights", "gradients", "mean moments",
                                           "square moments" };

static qn_result build(qn_trainer *t)
{
    qn_store **stores[] = { &t->weights, &t->gradients, &t->moment[0], &t->moment[1] };
    const qn_trainable *part = t->opts.trainable;
    if (part && part->check) QN_TRY(part->check(part->user, &t->config));
    QN_TRY(qn_parameters(&t->config, find_share, t));
    for (int i = 0; i < 4; i++) {
        QN_TRY(qn_store_create(t->dev, store_names[i], stores[i]));
        if (t->opts.lora) QN_TRY(qn_lora_declare(t->opts.lora, &t->config, *stores[i]));
        QN_TRY(declare(t, *stores[i], false));
    }
    if (!qn_store_count(t->gradients))
        return qn_fail(QN_ERR_INVALID, "nothing is left to train: all parameters are frozen");
    QN_TRY(declare(t, t->weights, true));
    if (t->opts.segments > 1 && qn_memory_any(&t->config)) {
        QN_TRY(qn_store_create(t->dev, "memories", &t->memory));
        QN_TRY(qn_lm_declare_memory(&t->config, t->memory, t->opts.batch));
    }
    QN_TRY(build_loss(t, &t->first, true, false));
    if (t->opts.accumulate > 1) QN_TRY(build_loss(t, &t->further, true, true));
    QN_TRY(build_loss(t, &t->eval, false, false));
    return build_optimiser(t);
}

static qn_result make_plans(qn_trainer *t)
{
    qn_store *stores[] = { t->weights, t->gradients, t->moment[0], t->moment[1] };
    for (int i = 0; i < 4; i++) QN_TRY(qn_store_allocate(stores[i]));
    if (t->memory) QN_TRY(qn_store_allocate(t->memory));
    loss_graph *all[] = { &t->first, &t->further, &t->eval };
    for (int i = 0; i < 3; i++) {
        if (!all[i]->g) continue;
        qn_plan_opts o = plan_opts(t, all[i]);
        QN_TRY(qn_plan_create(all[i]->g, &o, &all[i]->plan));
    }
    qn_plan_opts o = { .outputs = &t->optimiser.square_sum, .output_count = 1,
                       .profile = t->opts.profile };
    return qn_plan_create(t->optimiser.g, &o, &t->optimiser.plan);
}

static qn_result start(qn_device *dev, const qn_model_config *c, const qn_trainer_opts *opts,
                       qn_trainer **out)
{
    *out = NULL;
    if (opts->batch < 1 || opts->positions < 1 || opts->accumulate < 0)
        return qn_fail(QN_ERR_INVALID, "batch %lld x %lld positions is not possible",
                       (long long)opts->batch, (long long)opts->positions);
    if (opts->segments > 1 && opts->accumulate > 1)
        return qn_fail(QN_ERR_INVALID, "%lld segments with %lld accumulated runs: a text in segments "
                                       "needs one run per step",
                       (long long)opts->segments, (long long)opts->accumulate);
    qn_trainer *t = qn_calloc(1, sizeof *t);
    if (!t) return qn_no_memory(sizeof *t);
    t->dev = dev;
    t->config = *c;
    t->opts = *opts;
    if (!t->opts.accumulate) t->opts.accumulate = 1;
    qn_result r = build(t);
    if (r == QN_OK)
        *out = t;
    else
        qn_trainer_destroy(&t);
    return r;
}

qn_result qn_trainer_create(qn_device *dev, const qn_model_config *c, const qn_trainer_opts *opts,
                            qn_trainer **out)
{
    QN_TRY(start(dev, c, opts, out));
    qn_result r = make_plans(*out);
    if (r != QN_OK) qn_trainer_destroy(out);
    return r;
}

qn_result qn_trainer_estimate(qn_device *dev, const qn_model_config *c, const qn_trainer_opts *opts,
                              qn_trainer_memory *out)
{
    qn_trainer *t;
    QN_TRY(start(dev, c, opts, &t));
    const uint64_t bytes = qn_store_bytes(t->gradients);
    qn_trainer_memory m = { .weights = qn_store_bytes(t->weights), .gradients = bytes,
                            .moments = 2 * bytes };
    loss_graph *all[] = { &t->first, &t->further, &t->eval };
    qn_result r = QN_OK;
    for (int i = 0; r == QN_OK && i < 3; i++) {
        if (!all[i]->g) continue;
        qn_plan_stats s;
        qn_plan_opts o = plan_opts(t, all[i]);
        r = qn_plan_estimate(all[i]->g, &o, &s);
        if (r != QN_OK) break;
        m.activations += s.arena;
        m.unshared += s.unshared;
    }
    qn_trainer_destroy(&t);
    if (r == QN_OK) *out = m;
    return r;
}

void qn_trainer_destroy(qn_trainer **trainer)
{
    qn_trainer *t = *trainer;
    *trainer = NULL;
    if (!t) return;
    loss_graph *all[] = { &t->first, &t->further, &t->eval };
    for (int i = 0; i < 3; i++) {
        qn_plan_destroy(&all[i]->plan);
        qn_graph_destroy(&all[i]->g);
        qn_free(all[i]->outputs);
    }
    qn_plan_destroy(&t->optimiser.plan);
    qn_graph_destroy(&t->optimiser.g);
    qn_store_destroy(&t->memory);
    qn_store_destroy(&t->weights);
    qn_store_destroy(&t->gradients);
    qn_store_destroy(&t->moment[0]);
    qn_store_destroy(&t->moment[1]);
    for (size_t i = 0; i < t->share_count; i++) qn_free(t->shares[i].keep);
    qn_free(t->shares);
    qn_free(t);
}

static qn_result feed(loss_graph *l, const qn_trainer *t, const int32_t *ids, const int32_t *labels,
                      int32_t seed)
{
    const uint64_t bytes = (uint64_t)(t->opts.batch * t->opts.positions) * sizeof *ids;
    QN_TRY(qn_plan_set(l->plan, l->ids, ids, bytes));
    QN_TRY(qn_plan_set(l->plan, l->labels, labels, bytes));
    if (l->forget) {
        float *ends = qn_malloc((size_t)bytes);
        if (!ends) return qn_no_memory(bytes);
        for (uint64_t i = 0; i < bytes / sizeof *ids; i++)
            ends[i] = ids[i] == t->config.eos_token_id;
        const qn_result r = qn_plan_set(l->plan, l->forget, ends, bytes);
        qn_free(ends);
        QN_TRY(r);
    }
    return qn_plan_set(l->plan, l->seed, &seed, sizeof seed);
}

static qn_result get_scalar(qn_plan *p, const qn_tensor *x, double *sum)
{
    float value;
    QN_TRY(qn_plan_get(p, x, &value, sizeof value));
    *sum += (double)value;
    return QN_OK;
}

static qn_result run_optimiser(qn_trainer *t, int64_t step, double lr)
{
    const qn_trainer_opts *o = &t->opts;
    const qn_adam adam = { .beta1 = o->beta1, .beta2 = o->beta2, .epsilon = o->epsilon,
                           .clip = o->clip };
    float hyper[QN_ADAM_HYPER];
    qn_adam_hyper(&adam, lr, step, hyper);
    QN_TRY(qn_plan_set(t->optimiser.plan, t->optimiser.hyper, hyper, sizeof hyper));
    return qn_plan_run(t->optimiser.plan);
}

// A new stretch of text begins.
static qn_result forget(qn_trainer *t)
{
    for (size_t i = 0; i < qn_store_count(t->memory); i++) {
        const qn_store_entry *e = qn_store_at(t->memory, i);
        void *zeros = qn_calloc((size_t)e->size, 1);
        if (!zeros) return qn_no_memory((size_t)e->size);
        qn_result r = qn_store_write(t->memory, e->name, zeros, e->size);
        qn_free(zeros);
        QN_TRY(r);
    }
    return QN_OK;
}

qn_result qn_trainer_step(qn_trainer *t, int64_t step, double learning_rate, const int32_t *ids,
                          const int32_t *labels, qn_step_report *out)
{
    const int64_t tokens = t->opts.batch * t->opts.positions, runs = t->opts.accumulate;
    qn_step_report report = { 0 };
    double began = qn_clock();
    if (t->memory && (step - 1) % t->opts.segments == 0) QN_TRY(forget(t));
    for (int64_t i = 0; i < runs; i++) {
        loss_graph *l = i == 0 ? &t->first : &t->further;
        // Every run of every step draws its own dropout.
        int32_t seed = (int32_t)(t->opts.seed * 2654435761u + (uint64_t)(step * runs + i));
        QN_TRY(feed(l, t, ids + i * tokens, labels + i * tokens, seed));
        QN_TRY(qn_plan_run(l->plan));
        if (i + 1 == runs) QN_TRY(run_optimiser(t, step, learning_rate));
        QN_TRY(get_scalar(l->plan, l->loss, &report.loss));
        QN_TRY(get_scalar(l->plan, l->ce, &report.ce));
        QN_TRY(get_scalar(l->plan, l->aux, &report.aux));
        qn_plan_stats s = qn_plan_describe(l->plan);
        report.host_seconds += s.host_seconds;
        report.submissions += s.submissions;
    }
    double square_sum = 0;
    QN_TRY(get_scalar(t->optimiser.plan, t->optimiser.square_sum, &square_sum));
    qn_plan_stats s = qn_plan_describe(t->optimiser.plan);
    report.host_seconds += s.host_seconds;
    report.submissions += s.submissions;
    report.loss /= (double)runs;
    report.ce /= (double)runs;
    report.aux /= (double)runs;
    report.grad_norm = sqrt(square_sum);
    report.seconds = qn_clock() - began;
    *out = report;
    return QN_OK;
}

qn_result qn_trainer_evaluate(qn_trainer *t, const int32_t *ids, const int32_t *labels,
                              double *nll, int64_t *count)
{
    const int64_t tokens = t->opts.batch * t->opts.positions;
    loss_graph *l = &t->eval;
    float *rows = qn_malloc((size_t)tokens * sizeof *rows);
    if (!rows) return qn_no_memory((size_t)tokens * sizeof *rows);
    qn_result r = feed(l, t, ids, labels, 0);
    if (r == QN_OK) r = qn_plan_run(l->plan);
    if (r == QN_OK) r = qn_plan_get(l->plan, l->rows, rows, (uint64_t)tokens * sizeof *rows);
    *nll = 0;
    *count = 0;
    for (int64_t i = 0; r == QN_OK && i < tokens; i++) {
        if (labels[i] < 0 || labels[i] >= t->config.vocab_size) continue;
        *nll += (double)rows[i];
        ++*count;
    }
    qn_free(rows);
    return r;
}

int64_t qn_trainer_routers(const qn_trainer *t)
{
    return 2 * t->config.n_layer;
}

int64_t qn_trainer_experts(const qn_trainer *t, int64_t router)
{
    return router % 2 ? t->config.n_mlp_experts : t->config.n_att_experts;
}

qn_result qn_trainer_loads(qn_trainer *t, int64_t router, int32_t *loads)
{
    const loss_graph *l = t->opts.accumulate > 1 ? &t->further : &t->first;
    const int64_t E = qn_trainer_experts(t, router);
    int32_t *offsets = qn_malloc((size_t)(E + 1) * sizeof *offsets);
    if (!offsets) return qn_no_memory((size_t)E * sizeof *offsets);
    qn_result r = qn_plan_get(l->plan, l->outputs[3 + router], offsets,
                              (uint64_t)(E + 1) * sizeof *offsets);
    for (int64_t e = 0; r == QN_OK && e < E; e++) loads[e] = offsets[e + 1] - offsets[e];
    qn_free(offsets);
    return r;
}
