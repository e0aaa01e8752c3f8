// Plans over the weights and the cache of all slots.
#include "runner_plan.h"
#include "fail.h"
#include "mem.h"

#include <math.h>

// Minus infinity for tokens that are never written.
static const qn_tensor *masked(qn_runner_model *m, qn_graph *g, const qn_tensor *logits)
{
    if (!m->usable || !logits) return logits;
    const size_t vocab = (size_t)m->config.vocab_size;
    float *mask = qn_malloc(vocab * sizeof *mask);
    if (!mask) return NULL;
    for (size_t i = 0; i < vocab; i++) mask[i] = m->usable[i] ? 0 : -INFINITY;
    const qn_tensor *row = qn_constant(g, "usable", QN_F32, QN_SHAPE((int64_t)vocab), mask);
    qn_free(mask);
    return qn_add(g, logits, row);
}

static qn_result build(qn_runner_model *m, qn_runner_plan *p)
{
    const int64_t B = p->rows, T = p->positions, V = m->config.vocab_size;
    QN_TRY(qn_graph_create(m->dev, &p->g));
    p->ids = qn_input(p->g, "ids", QN_I32, QN_SHAPE(B, T));
    p->past = qn_input(p->g, "past", QN_I32, QN_SHAPE(B * T));
    p->used = qn_input(p->g, "used", QN_I32, QN_SHAPE(B, 2));
    if (m->memory) p->texts = qn_input(p->g, "texts", QN_I32, QN_SHAPE(B));
    qn_lm *lm = qn_calloc(1, sizeof *lm);
    if (!lm) return qn_no_memory(sizeof *lm);
    qn_lm_opts o = { .batch = B, .positions = T, .cache = m->cache, .context = m->context,
                     .past = p->past, .used = p->used, .memory_rows = p->texts,
                     .memory = qn_memory_bank_store(m->memory), .headless = p->task == QN_TASK_READ };
    qn_result r = qn_lm_build(p->g, m->weights, &m->config, p->ids, &o, lm);
    const qn_tensor *logits = lm->logits;
    qn_free(lm);
    QN_TRY(r);
    const qn_tensor *outputs[4];
    size_t count = 0;
    if (p->task == QN_TASK_SCORE) {
        logits = qn_reshape(p->g, logits, QN_SHAPE(T, V));
        p->labels = qn_input(p->g, "labels", QN_I32, QN_SHAPE(T));
        qn_cross_entropy(p->g, logits, p->labels, &p->loss);
        outputs[count++] = p->loss;
        outputs[count++] = p->best = qn_argmax(p->g, logits);
    } else if (p->task == QN_TASK_WRITE) {
        logits = masked(m, p->g, logits);
        if (!logits) return qn_graph_status(p->g) == QN_OK ? qn_no_memory((uint64_t)V * sizeof(float))
                                                           : qn_graph_status(p->g);
        p->how = qn_input(p->g, "how", QN_I32, QN_SHAPE(B, sizeof(qn_sample_how) / 4));
        if (p->changes)
            p->change = qn_input(p->g, "changes", QN_I32,
                                 QN_SHAPE(B, p->changes, sizeof(qn_sample_change) / 4));
        p->chosen = qn_sample(p->g, logits, p->how, p->change);
        outputs[count++] = p->chosen.token;
        outputs[count++] = p->chosen.logprob;
        outputs[count++] = p->chosen.top;
        outputs[count++] = p->chosen.chance;
    }
    QN_TRY(qn_graph_status(p->g));
    qn_plan_opts opts = { .outputs = outputs, .output_count = count };
    return qn_plan_create(p->g, &opts, &p->plan);
}

static void free_plan(qn_runner_plan *p)
{
    qn_plan_destroy(&p->plan);
    qn_graph_destroy(&p->g);
    qn_free(p);
}

qn_result qn_runner_plan_get(qn_runner_model *m, qn_runner_task task, int64_t rows,
                             int64_t positions, int64_t changes, qn_runner_plan **out)
{
    for (qn_runner_plan *p = m->plans; p; p = p->next)
        if (p->task == task && p->rows == rows && p->positions == positions &&
            p->changes == changes) {
            *out = p;
            return QN_OK;
        }
    qn_runner_plan *p = qn_calloc(1, sizeof *p);
    if (!p) return qn_no_memory(sizeof *p);
    *p = (qn_runner_plan){ .next = m->plans, .task = task, .rows = rows, .positions = positions,
                           .changes = changes };
    qn_result r = build(m, p);
    if (r != QN_OK) {
        free_plan(p);
        return r;
    }
    *out = m->plans = p;
    return QN_OK;
}

void qn_runner_plans_free(qn_runner_model *m)
{
    for (qn_runner_plan *p = m->plans, *next; p; p = next) {
        next = p->next;
        free_plan(p);
    }
    m->plans = NULL;
}

static uint64_t bytes_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_count(t->shape) * sizeof(int32_t);
}

qn_result qn_runner_plan_set(qn_runner_plan *p, const qn_tensor *input, const void *data)
{
    return qn_plan_set(p->plan, input, data, bytes_of(input));
}

qn_result qn_runner_plan_read(qn_runner_plan *p, const qn_tensor *output, void *data)
{
    return qn_plan_get(p->plan, output, data, bytes_of(output));
}
