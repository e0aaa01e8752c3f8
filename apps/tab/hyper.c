// One launch of many fits, and prediction.
#include "tab/hyper.h"
#include "fail.h"
#include "mem.h"

#include <math.h>
#include <string.h>

enum { W1 = QN_HYPER_WIDTH1, W2 = QN_HYPER_WIDTH2 };

qn_tab_settings qn_tab_published(void)
{
    return (qn_tab_settings){ .subsample = 0.5, .hidden = 10, .depth = 2, .views = 100,
                              .views_per_step = 1, .epochs = 50, .batch = 128, .rate = 3e-4 };
}

qn_tab_settings qn_tab_default(void)
{
    return (qn_tab_settings){ .subsample = 0.5, .hidden = 32, .depth = 1, .views = 100,
                              .views_per_step = 10, .epochs = 50, .batch = 128, .rate = 3e-3,
                              .even = true, .balance = true, .anneal = true };
}

void qn_tab_net_free(qn_tab_net *n)
{
    qn_free(n->theta);
    qn_free(n->view_columns);
    n->theta = NULL;
    n->view_columns = NULL;
}

int64_t qn_tab_parameters(const qn_tab_net *n)
{
    int64_t p = qn_target_weights(&n->net, n->chosen);
    return (n->columns + 1) * W1 + (W1 + 1) * W2 + (W2 + 1) * W2 + (W2 + 1) * p;
}

// ------------------------------------------------------------------------------ launch

typedef struct launched {
    qn_store *store;
    qn_graph *graph;
    qn_plan *plan;
    const qn_tensor *start, *losses;
    float *sums; // [fits, opts.steps]
} launched;

static qn_result build_launch(qn_device *dev, const qn_tab_launch *l, launched *o)
{
    QN_TRY(qn_store_create(dev, "tab", &o->store));
    QN_TRY(qn_store_add(o->store, "state", QN_F32, QN_SHAPE(l->fits, 3, l->parameters)));
    QN_TRY(qn_store_allocate(o->store));
    QN_TRY(qn_store_write(o->store, "state", l->state,
                          (uint64_t)(l->fits * 3 * l->parameters) * sizeof(float)));
    QN_TRY(qn_graph_create(dev, &o->graph));
    qn_graph *g = o->graph;
    int64_t views = l->fits * l->views;
    o->start = qn_input(g, "start", QN_I32, QN_SCALAR);
    const qn_tensor *fits =
        qn_constant(g, "fits", QN_I32, QN_SHAPE(l->fits, QN_FIT_WORDS), l->fit_words);
    const qn_tensor *orders =
        qn_constant(g, "orders", QN_I32, QN_SHAPE(l->fits, l->orders), l->order_words);
    const qn_tensor *rates = qn_constant(g, "rates", QN_F32, QN_SHAPE(l->steps, 2), l->rates);
    const qn_tensor *x = qn_constant(g, "x", QN_F32, QN_SHAPE(l->rows, l->columns), l->x);
    const qn_tensor *y = qn_constant(g, "y", QN_F32, QN_SHAPE(l->rows), l->y);
    const qn_tensor *masks =
        qn_constant(g, "masks", QN_F32, QN_SHAPE(views, l->columns), l->masks);
    const qn_tensor *columns =
        qn_constant(g, "columns", QN_I32, QN_SHAPE(views, l->chosen), l->view_columns);
    const qn_tensor *losses = qn_hyper_fit(g, qn_param(g, o->store, "state"), fits, orders, o->start,
                                           rates, x, y, masks, columns, l->views, &l->opts);
    o->losses = qn_reduce(g, losses, QN_SUM);
    qn_plan_opts opts = { .outputs = &o->losses, .output_count = 1 };
    return qn_plan_create(g, &opts, &o->plan);
}

static qn_result run_launch(qn_tab_launch *l, launched *o)
{
    size_t bytes = (size_t)l->fits * (size_t)l->opts.steps * sizeof(float);
    o->sums = qn_malloc(bytes);
    if (!o->sums) return qn_no_memory(bytes);
    for (int64_t done = 0; done < l->steps; done += l->opts.steps) {
        int32_t start = (int32_t)done;
        QN_TRY(qn_plan_set(o->plan, o->start, &start, sizeof start));
        QN_TRY(qn_plan_run(o->plan));
        QN_TRY(qn_plan_get(o->plan, o->losses, o->sums, bytes));
        for (int64_t f = 0; l->losses && f < l->fits; f++)
            for (int64_t s = 0; s < l->opts.steps && done + s < l->steps; s++)
                l->losses[f * l->steps + done + s] = o->sums[f * l->opts.steps + s];
        int64_t now = done + l->opts.steps;
        if (l->after && !l->after(l->user, now < l->steps ? now : l->steps)) break;
    }
    return qn_store_read(o->store, "state", l->state,
                         (uint64_t)(l->fits * 3 * l->parameters) * sizeof(float));
}

qn_result qn_tab_launch_run(qn_device *dev, qn_tab_launch *l)
{
    launched o = { 0 };
    qn_result r = build_launch(dev, l, &o);
    if (r == QN_OK) r = run_launch(l, &o);
    qn_plan_destroy(&o.plan);
    qn_graph_destroy(&o.graph);
    qn_store_destroy(&o.store);
    qn_free(o.sums);
    return r;
}

// ------------------------------------------------------------------------------ prediction

static const qn_tensor *part(qn_graph *g, const char *name, const float *at, int64_t in, int64_t out)
{
    return in ? qn_constant(g, name, QN_F32, QN_SHAPE(in, out), at)
              : qn_constant(g, name, QN_F32, QN_SHAPE(out), at);
}

// The four layers from the mask on: [V, P].
static const qn_tensor *generate(qn_graph *g, const qn_tab_net *n, const float *masks)
{
    int64_t p = qn_target_weights(&n->net, n->chosen);
    const int64_t in[4] = { n->columns, W1, W2, W2 }, out[4] = { W1, W2, W2, p };
    const qn_tensor *h = qn_constant(g, "masks", QN_F32, QN_SHAPE(n->views, n->columns), masks);
    const float *at = n->theta;
    for (int i = 0; i < 4; i++) {
        const qn_tensor *w = part(g, "w", at, in[i], out[i]);
        const qn_tensor *b = part(g, "b", at + in[i] * out[i], 0, out[i]);
        qn_matmul_opts opts = { .bias = b, .activation = i < 2 ? QN_RELU : QN_IDENTITY };
        h = qn_matmul(g, h, w, &opts);
        at += (in[i] + 1) * out[i];
    }
    return h;
}

typedef struct predictor {
    qn_graph *graph;
    qn_plan *plan;
    const qn_tensor *x, *logits;
    float *block, *views; // [block, d]; [V, block, C]
} predictor;

static qn_result open_predictor(qn_device *dev, const qn_tab_net *n, int64_t block, predictor *p)
{
    size_t count = (size_t)(n->views * n->columns);
    float *masks = qn_calloc(count, sizeof *masks);
    if (!masks) return qn_no_memory(count * sizeof *masks);
    for (int64_t k = 0; k < n->views; k++)
        for (int64_t j = 0; j < n->chosen; j++)
            masks[k * n->columns + n->view_columns[k * n->chosen + j]] = 1;
    qn_result r = qn_graph_create(dev, &p->graph);
    if (r == QN_OK) {
        p->x = qn_input(p->graph, "x", QN_F32, QN_SHAPE(block, n->columns));
        const qn_tensor *columns = qn_constant(
            p->graph, "columns", QN_I32, QN_SHAPE(n->views, n->chosen), n->view_columns);
        const qn_tensor *gen = generate(p->graph, n, masks);
        p->logits = qn_hyper_target(p->graph, p->x, columns, gen, &n->net);
        qn_plan_opts opts = { .outputs = &p->logits, .output_count = 1 };
        r = qn_plan_create(p->graph, &opts, &p->plan);
    }
    qn_free(masks);
    if (r != QN_OK) return r;
    p->block = qn_calloc((size_t)(block * n->columns), sizeof(float));
    p->views = qn_malloc((size_t)(n->views * block * n->net.outputs) * sizeof(float));
    return p->block && p->views ? QN_OK : qn_no_memory((size_t)block * sizeof(float));
}

// Blocks are small enough that the logits of all views stay below 32 MiB.
static int64_t block_of(const qn_tab_net *n, int64_t rows)
{
    int64_t most = ((int64_t)1 << 23) / (n->views * n->net.outputs);
    if (most < 1) most = 1;
    return rows < most ? rows : most;
}

// Calls take(user, first row, rows, views [V, stride, C]) for each block.
static qn_result each_block(qn_device *dev, const qn_tab_net *n, const float *x, int64_t rows,
                            void (*take)(void *user, int64_t first, int64_t count,
                                         const float *views, int64_t stride),
                            void *user)
{
    if (rows == 0) return QN_OK;
    predictor p = { 0 };
    int64_t block = block_of(n, rows);
    qn_result r = open_predictor(dev, n, block, &p);
    for (int64_t first = 0; r == QN_OK && first < rows; first += block) {
        int64_t count = rows - first < block ? rows - first : block;
        memcpy(p.block, x + first * n->columns, (size_t)(count * n->columns) * sizeof *x);
        r = qn_plan_set(p.plan, p.x, p.block, (uint64_t)(block * n->columns) * sizeof *x);
        if (r == QN_OK) r = qn_plan_run(p.plan);
        if (r == QN_OK)
            r = qn_plan_get(p.plan, p.logits, p.views,
                            (uint64_t)(n->views * block * n->net.outputs) * sizeof(float));
        if (r == QN_OK) take(user, first, count, p.views, block);
    }
    qn_plan_destroy(&p.plan);
    qn_graph_destroy(&p.graph);
    qn_free(p.block);
    qn_free(p.views);
    return r;
}

typedef struct taker {
    const qn_tab_net *net;
    int64_t rows;
    float *out;
    double *sum;
} taker;

static void take_views(void *user, int64_t first, int64_t count, const float *views, int64_t stride)
{
    taker *t = user;
    int64_t c = t->net->net.outputs;
    for (int64_t k = 0; k < t->net->views; k++)
        memcpy(t->out + (k * t->rows + first) * c, views + k * stride * c,
               (size_t)(count * c) * sizeof *views);
}

static void take_sum(void *user, int64_t first, int64_t count, const float *views, int64_t stride)
{
    taker *t = user;
    int64_t c = t->net->net.outputs;
    for (int64_t i = 0; i < count * c; i++) {
        double s = 0;
        for (int64_t k = 0; k < t->net->views; k++) s += (double)views[k * stride * c + i];
        t->sum[first * c + i] += s / t->net->views;
    }
}

qn_result qn_tab_view_logits(qn_device *dev, const qn_tab_net *net, const float *x, int64_t rows,
                             float *out)
{
    taker t = { .net = net, .rows = rows, .out = out };
    return each_block(dev, net, x, rows, take_views, &t);
}

qn_result qn_tab_add_logits(qn_device *dev, const qn_tab_net *net, const float *x, int64_t rows,
                            double *sum)
{
    taker t = { .net = net, .rows = rows, .sum = sum };
    return each_block(dev, net, x, rows, take_sum, &t);
}
