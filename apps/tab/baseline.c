// Baselines as graphs: loss, gradients, AdamW, some hundred steps.
#include "tab/baseline.h"
#include "fail.h"
#include "llm/schedule.h"
#include "mem.h"
#include "random.h"
#include "tab/score.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64, STEPS = 400, STREAM = 21 };
static const char *const names[4] = { "w1", "b1", "w2", "b2" };

typedef struct network {
    const qn_tab_baseline *b;
    int64_t inputs, outputs;
    qn_store *weights, *gradients, *moment[2];
    qn_graph *g;
    qn_plan *plan;
    const qn_tensor *rate, *loss;
} network;

static int layers(const network *n)
{
    return n->b->hidden ? 2 : 1;
}

static qn_shape shape_of(const network *n, int i)
{
    int64_t h = n->b->hidden ? n->b->hidden : n->outputs;
    const qn_shape shapes[4] = { QN_SHAPE(n->inputs, h), QN_SHAPE(h), QN_SHAPE(h, n->outputs),
                                 QN_SHAPE(n->outputs) };
    return shapes[i];
}

static qn_result make_stores(qn_device *dev, network *n)
{
    qn_store **stores[4] = { &n->weights, &n->gradients, &n->moment[0], &n->moment[1] };
    for (int s = 0; s < 4; s++) {
        QN_TRY(qn_store_create(dev, "baseline", stores[s]));
        for (int i = 0; i < 2 * layers(n); i++)
            QN_TRY(qn_store_add(*stores[s], names[i], QN_F32, shape_of(n, i)));
        QN_TRY(qn_store_allocate(*stores[s]));
    }
    qn_random r = qn_random_start(n->b->seed, STREAM);
    for (int i = 0; n->b->hidden && i < 4; i += 2) { // a linear model starts at zero
        qn_shape s = shape_of(n, i);
        int64_t count = qn_shape_count(s);
        float *w = qn_malloc((size_t)count * sizeof *w);
        if (!w) return qn_no_memory((size_t)count * sizeof *w);
        double bound = sqrt(6.0 / (double)(s.dim[0] + s.dim[1]));
        for (int64_t k = 0; k < count; k++) w[k] = (float)((2 * qn_random_unit(&r) - 1) * bound);
        qn_result result = qn_store_write(n->weights, names[i], w, (uint64_t)count * sizeof *w);
        qn_free(w);
        QN_TRY(result);
    }
    return QN_OK;
}

static const qn_tensor *outputs_of(const network *n, qn_graph *g, const qn_tensor *x,
                                   const qn_tensor *const w[4])
{
    for (int l = 0; l < layers(n); l++) {
        x = qn_add(g, qn_matmul(g, x, w[2 * l], NULL), w[2 * l + 1]);
        if (l + 1 < layers(n)) x = qn_activate(g, x, QN_RELU);
    }
    return x;
}

static qn_result build(qn_device *dev, network *n, const float *x, const float *y, int64_t rows,
                       bool classes)
{
    QN_TRY(qn_graph_create(dev, &n->g));
    qn_graph *g = n->g;
    const qn_tensor *w[4] = { NULL }, *grads[4];
    for (int i = 0; i < 2 * layers(n); i++) w[i] = qn_param(g, n->weights, names[i]);
    const qn_tensor *input = qn_constant(g, "x", QN_F32, QN_SHAPE(rows, n->inputs), x);
    const qn_tensor *out = outputs_of(n, g, input, w);
    if (classes) {
        int32_t *labels = qn_malloc((size_t)rows * sizeof *labels);
        if (!labels) return qn_no_memory((size_t)rows * sizeof *labels);
        for (int64_t i = 0; i < rows; i++) labels[i] = (int32_t)y[i];
        n->loss = qn_cross_entropy(g, out, qn_constant(g, "y", QN_I32, QN_SHAPE(rows), labels), NULL);
        qn_free(labels);
    } else {
        const qn_tensor *target = qn_constant(g, "y", QN_F32, QN_SHAPE(rows, 1), y);
        const qn_tensor *error = qn_add(g, out, qn_scale(g, target, -1, 0));
        n->loss = qn_scale(g, qn_sum_squares(g, error), 1.0f / (float)rows, 0);
    }
    if (!n->b->hidden) // the penalty belongs to the loss: Adam's decoupled decay would be another
        n->loss = qn_add(g, n->loss, qn_scale(g, qn_sum_squares(g, w[0]), 0.5f / (float)rows, 0));
    QN_TRY(qn_backward(g, n->loss, NULL, w, (size_t)(2 * layers(n)), grads));
    for (int i = 0; i < 2 * layers(n); i++)
        qn_assign(g, qn_frozen(g, n->gradients, names[i]), grads[i]);
    int64_t blocks = (int64_t)(qn_store_bytes(n->weights) / 4 / BLOCK);
    int32_t *groups = qn_calloc((size_t)blocks, sizeof *groups);
    if (!groups) return qn_no_memory((size_t)blocks * sizeof *groups);
    const float table[2] = { 1, n->b->hidden ? 1e-4f : 0 };
    const qn_tensor *gradient = qn_store_tensor(g, n->gradients);
    n->rate = qn_input(g, "rate", QN_F32, QN_SHAPE(QN_ADAM_HYPER));
    qn_adamw(g, qn_store_tensor(g, n->weights), gradient, qn_store_tensor(g, n->moment[0]),
             qn_store_tensor(g, n->moment[1]), n->rate, qn_sum_squares(g, gradient),
             qn_constant(g, "groups", QN_I32, QN_SHAPE(blocks), groups),
             qn_constant(g, "table", QN_F32, QN_SHAPE(1, 2), table));
    qn_free(groups);
    qn_plan_opts opts = { .outputs = &n->loss, .output_count = 1 };
    return qn_plan_create(g, &opts, &n->plan);
}

static qn_result train(network *n)
{
    const qn_adam adam = { .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8 };
    const qn_schedule rate = { .decay = QN_DECAY_COSINE, .peak = n->b->hidden ? 5e-3 : 5e-2,
                               .floor = 1e-5, .warmup = 10, .steps = STEPS };
    for (int64_t step = 1; step <= STEPS; step++) {
        float hyper[QN_ADAM_HYPER];
        qn_adam_hyper(&adam, qn_schedule_rate(&rate, step), step, hyper);
        QN_TRY(qn_plan_set(n->plan, n->rate, hyper, sizeof hyper));
        QN_TRY(qn_plan_run(n->plan));
    }
    return qn_plan_wait(n->plan);
}

static qn_result predict(qn_device *dev, const network *n, const float *x, int64_t rows, bool classes,
                         double *out)
{
    qn_graph *g = NULL;
    qn_plan *plan = NULL;
    const qn_tensor *w[4] = { NULL };
    size_t count = (size_t)(rows * n->outputs);
    float *got = qn_malloc((count + 1) * sizeof *got);
    qn_result r = got ? qn_graph_create(dev, &g) : qn_no_memory(count * sizeof *got);
    if (r == QN_OK) {
        for (int i = 0; i < 2 * layers(n); i++) w[i] = qn_frozen(g, n->weights, names[i]);
        const qn_tensor *input = qn_constant(g, "x", QN_F32, QN_SHAPE(rows, n->inputs), x);
        const qn_tensor *z = outputs_of(n, g, input, w);
        qn_plan_opts opts = { .outputs = &z, .output_count = 1 };
        r = qn_plan_create(g, &opts, &plan);
        if (r == QN_OK) r = qn_plan_run(plan);
        if (r == QN_OK) r = qn_plan_get(plan, z, got, count * sizeof *got);
    }
    for (size_t i = 0; r == QN_OK && i < count; i++) out[i] = (double)got[i];
    if (r == QN_OK && classes) qn_tab_softmax(out, rows, (int)n->outputs, 1);
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    qn_free(got);
    return r;
}

// The problem's rows, those of rare classes repeated in turn until all classes have as many.
static qn_result gather(const qn_tab_problem *p, bool balance, float **x, float **y, int64_t *rows)
{
    const qn_tab_data *d = p->data;
    int64_t counts[QN_TARGET_MAX_OUTPUTS] = { 0 }, most = 0, present = 0;
    for (int64_t i = 0; i < p->count && d->classes; i++) {
        int64_t *c = &counts[(int)d->y[p->rows[i]]];
        present += *c == 0;
        if (++*c > most) most = *c;
    }
    bool repeat = balance && d->classes;
    int64_t total = repeat ? most * present : p->count;
    *x = qn_malloc((size_t)(total * d->columns) * sizeof **x);
    *y = qn_malloc((size_t)total * sizeof **y);
    if (!*x || !*y) return qn_no_memory((size_t)(total * d->columns) * sizeof **x);
    *rows = 0;
    for (int c = 0; c < (repeat ? d->classes : 1); c++) {
        int64_t left = repeat ? (counts[c] ? most : 0) : p->count;
        for (int64_t i = 0; left > 0; i = (i + 1) % p->count) {
            int32_t row = p->rows[i];
            if (repeat && (int)d->y[row] != c) continue;
            memcpy(*x + *rows * d->columns, d->x + row * d->columns, (size_t)d->columns * sizeof **x);
            (*y)[(*rows)++] = d->y[row];
            left--;
        }
    }
    return QN_OK;
}

qn_result qn_tab_baseline_run(qn_device *dev, const qn_tab_problem *p, const qn_tab_baseline *b,
                              const float *x, int64_t rows, double *out)
{
    network n = { .b = b, .inputs = p->data->columns, .outputs = qn_tab_outputs(p->data) };
    bool classes = p->data->classes > 0;
    float *own_x = NULL, *own_y = NULL;
    int64_t own_rows = 0;
    qn_result r = gather(p, b->balance, &own_x, &own_y, &own_rows);
    if (r == QN_OK) r = make_stores(dev, &n);
    if (r == QN_OK) r = build(dev, &n, own_x, own_y, own_rows, classes);
    if (r == QN_OK) r = train(&n);
    if (r == QN_OK && rows) r = predict(dev, &n, x, rows, classes, out);
    qn_plan_destroy(&n.plan);
    qn_graph_destroy(&n.g);
    qn_store_destroy(&n.weights);
    qn_store_destroy(&n.gradients);
    qn_store_destroy(&n.moment[0]);
    qn_store_destroy(&n.moment[1]);
    qn_free(own_x);
    qn_free(own_y);
    return r;
}
