// Golden cases of HyperTab: everything that one hypernetwork computes, 20 Adam steps, preprocessing.
#include "tab/golden.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"
#include "tab/hyper.h"
#include "tab/prep.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { W1 = QN_HYPER_WIDTH1, W2 = QN_HYPER_WIDTH2 };

typedef struct sizes {
    int64_t n, d, m, classes, hidden, depth, views, count, batch, per_step, steps;
    double lr;
} sizes;

// The arrays of a case, and where a tensor of the hypernetwork lies among the parameters.
typedef struct hyper_case {
    sizes s;
    qn_target_net net;
    float *x, *masks, *theta; // theta: in x out, layer after layer
    int32_t *y, *columns;
    int64_t parameters;
    bool large; // its logits are, and so is what is allowed
} hyper_case;

bool qn_tab_golden_matches(const char *dir)
{
    static const char *const files[] = { "case.json", "tensors.safetensors" };
    bool all = true;
    for (int i = 0; i < 2; i++) {
        char *path = qn_path_join(dir, files[i]);
        all = all && path && qn_file_exists(path);
        qn_free(path);
    }
    return all;
}

static qn_result read_sizes(qn_json j, sizes *s)
{
    const struct {
        const char *key;
        int64_t *to;
    } ints[] = { { "n", &s->n },           { "d", &s->d },         { "m", &s->m },
                 { "classes", &s->classes }, { "hidden", &s->hidden }, { "depth", &s->depth },
                 { "views", &s->views },   { "P", &s->count },     { "batch", &s->batch },
                 { "views_per_step", &s->per_step }, { "steps", &s->steps } };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        QN_TRY(qn_json_int(j, ints[i].key, 1, 100000, ints[i].to));
    if (s->m > s->d || s->per_step > s->views)
        return qn_json_fail(j, "found %lld of %lld columns, %lld of %lld views", (long long)s->m,
                            (long long)s->d, (long long)s->per_step, (long long)s->views);
    return qn_json_number(j, "lr", 0, 1, &s->lr);
}

static void layer_sizes(const sizes *s, int layer, int64_t *in, int64_t *out)
{
    const int64_t w[5] = { s->d, W1, W2, W2, s->count };
    *in = w[layer];
    *out = w[layer + 1];
}

// Puts prefix + "w0" .. "b3" of the file (out x in) together as parameters (in x out).
static qn_result read_parameters(const qn_golden_case *c, const sizes *s, const char *prefix,
                                 float *theta)
{
    for (int l = 0; l < 4; l++) {
        int64_t in, out;
        layer_sizes(s, l, &in, &out);
        for (int bias = 0; bias < 2; bias++) {
            char name[64];
            float *v;
            int64_t count = bias ? out : in * out;
            snprintf(name, sizeof name, "%s%c%d", prefix, bias ? 'b' : 'w', l);
            QN_TRY(qn_golden_f32(c, name, (uint64_t)count, &v, NULL));
            for (int64_t i = 0; i < count; i++) theta[bias ? i : i % in * out + i / in] = v[i];
            theta += count;
            qn_free(v);
        }
    }
    return QN_OK;
}

// Compares parameters with the file; an absolute bound, of which `share` of the elements may be off by
// up to `far` instead.
static qn_result compare_parameters(qn_golden_case *c, const hyper_case *h, const char *prefix,
                                    const float *got, double relative, double share, double far)
{
    float *want = qn_malloc((size_t)h->parameters * sizeof *want);
    if (!want) return qn_no_memory((size_t)h->parameters * sizeof *want);
    qn_result r = read_parameters(c, &h->s, prefix, want);
    double largest = 1, most = 0;
    for (int64_t i = 0; r == QN_OK && i < h->parameters; i++) largest = fmax(largest, fabs(want[i]));
    int64_t spared = 0, allowed = (int64_t)(share * (double)h->parameters);
    for (int64_t i = 0; r == QN_OK && i < h->parameters; i++) {
        double e = fabs((double)got[i] - (double)want[i]) / largest;
        if (e > relative && e <= far && spared < allowed)
            spared++;
        else if (!(e <= most))
            most = isnan(e) ? INFINITY : e;
    }
    qn_free(want);
    if (r == QN_OK) qn_golden_bound(c, prefix, most, relative);
    return r;
}

static qn_result open_case(qn_golden_case *c, qn_json j, hyper_case *h)
{
    QN_TRY(read_sizes(j, &h->s));
    const sizes *s = &h->s;
    h->net = (qn_target_net){ (int)s->hidden, (int)s->depth, (int)s->classes };
    qn_tab_net shape = { .net = h->net, .columns = s->d, .chosen = s->m };
    h->parameters = qn_tab_parameters(&shape);
    if (qn_target_weights(&h->net, s->m) != s->count)
        return qn_json_fail(j, "P is %lld, expected %lld", (long long)s->count,
                            (long long)qn_target_weights(&h->net, s->m));
    QN_TRY(qn_golden_f32(c, "X", (uint64_t)(s->n * s->d), &h->x, NULL));
    QN_TRY(qn_golden_i32(c, "y", (uint64_t)s->n, &h->y, NULL));
    QN_TRY(qn_golden_f32(c, "masks", (uint64_t)(s->views * s->d), &h->masks, NULL));
    QN_TRY(qn_golden_i32(c, "view_cols", (uint64_t)(s->views * s->m), &h->columns, NULL));
    for (int64_t i = 0; i < s->n; i++)
        if (h->y[i] < 0 || h->y[i] >= s->classes)
            return qn_fail(QN_ERR_FORMAT, "%s: y holds class %d of %lld", c->dir, h->y[i],
                           (long long)s->classes);
    for (int64_t i = 0; i < s->views * s->m; i++)
        if (h->columns[i] < 0 || h->columns[i] >= s->d)
            return qn_fail(QN_ERR_FORMAT, "%s: view_cols holds column %d of %lld", c->dir,
                           h->columns[i], (long long)s->d);
    h->theta = qn_malloc((size_t)h->parameters * sizeof *h->theta);
    if (!h->theta) return qn_no_memory((size_t)h->parameters * sizeof *h->theta);
    return read_parameters(c, s, "hyper.", h->theta);
}

// ------------------------------------------------------------------------------ gradients

typedef struct built {
    qn_store *store;
    qn_graph *graph;
    const qn_tensor *params[8], *gen, *logits, *rows, *grads[9];
} built;

static qn_result declare(qn_device *dev, const hyper_case *h, built *b)
{
    static const char *const names[8] = { "w0", "b0", "w1", "b1", "w2", "b2", "w3", "b3" };
    QN_TRY(qn_store_create(dev, "hyper", &b->store));
    for (int i = 0; i < 8; i++) {
        int64_t in, out;
        layer_sizes(&h->s, i / 2, &in, &out);
        QN_TRY(qn_store_add(b->store, names[i], QN_F32, i % 2 ? QN_SHAPE(out) : QN_SHAPE(in, out)));
    }
    QN_TRY(qn_store_allocate(b->store));
    const float *at = h->theta;
    for (int i = 0; i < 8; i++) {
        const qn_store_entry *e = qn_store_find(b->store, names[i]);
        int64_t count = qn_shape_count(e->shape);
        QN_TRY(qn_store_write(b->store, names[i], at, (uint64_t)count * sizeof *at));
        at += count;
    }
    QN_TRY(qn_graph_create(dev, &b->graph));
    for (int i = 0; i < 8; i++) b->params[i] = qn_param(b->graph, b->store, names[i]);
    return QN_OK;
}

// Forward and backward of the mean loss over the first `views` views on all rows, by the graph.
static qn_result build_all(qn_device *dev, const hyper_case *h, int64_t views, built *b)
{
    const sizes *s = &h->s;
    QN_TRY(declare(dev, h, b));
    qn_graph *g = b->graph;
    const qn_tensor *v = qn_constant(g, "masks", QN_F32, QN_SHAPE(views, s->d), h->masks);
    for (int l = 0; l < 4; l++) {
        v = qn_add(g, qn_matmul(g, v, b->params[2 * l], NULL), b->params[2 * l + 1]);
        if (l < 2) v = qn_activate(g, v, QN_RELU);
    }
    b->gen = v;
    const qn_tensor *x = qn_constant(g, "x", QN_F32, QN_SHAPE(s->n, s->d), h->x);
    const qn_tensor *columns =
        qn_constant(g, "columns", QN_I32, QN_SHAPE(views, s->m), h->columns);
    b->logits = qn_hyper_target(g, x, columns, b->gen, &h->net);
    int32_t *labels = qn_malloc((size_t)(views * s->n) * sizeof *labels);
    if (!labels) return qn_no_memory((size_t)(views * s->n) * sizeof *labels);
    for (int64_t i = 0; i < views * s->n; i++) labels[i] = h->y[i % s->n];
    const qn_tensor *loss = qn_cross_entropy(
        g, qn_reshape(g, b->logits, QN_SHAPE(views * s->n, s->classes)),
        qn_constant(g, "labels", QN_I32, QN_SHAPE(views * s->n), labels), &b->rows);
    qn_free(labels);
    const qn_tensor *wrt[9];
    memcpy(wrt, b->params, sizeof b->params);
    wrt[8] = b->gen;
    return qn_backward(g, loss, NULL, wrt, 9, b->grads);
}

// Logits averaged over views, and their softmax.
static qn_result compare_means(qn_golden_case *c, const hyper_case *h, const float *logits)
{
    const sizes *s = &h->s;
    int64_t count = s->n * s->classes;
    float *mean = qn_malloc((size_t)count * 2 * sizeof *mean);
    if (!mean) return qn_no_memory((size_t)count * sizeof *mean);
    float *proba = mean + count;
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int64_t k = 0; k < s->views; k++) sum += (double)logits[k * count + i];
        mean[i] = (float)(sum / (double)s->views);
    }
    for (int64_t i = 0; i < s->n; i++) {
        const float *z = mean + i * s->classes;
        double most = (double)z[0], sum = 0;
        for (int64_t k = 1; k < s->classes; k++) most = fmax(most, (double)z[k]);
        for (int64_t k = 0; k < s->classes; k++) sum += exp((double)z[k] - most);
        for (int64_t k = 0; k < s->classes; k++)
            proba[i * s->classes + k] = (float)(exp((double)z[k] - most) / sum);
    }
    qn_result r = qn_golden_compare(c, "mean_logits", mean, (uint64_t)count, 1, 1e-6);
    // A probability is as exact as the logits it comes from are absolutely.
    if (r == QN_OK)
        r = qn_golden_compare(c, "proba", proba, (uint64_t)count, 1, h->large ? 2e-3 : 1e-5);
    qn_free(mean);
    return r;
}

static qn_result compare_losses(qn_golden_case *c, const hyper_case *h, const float *rows)
{
    const sizes *s = &h->s;
    float *loss = qn_malloc((size_t)s->views * sizeof *loss);
    if (!loss) return qn_no_memory((size_t)s->views * sizeof *loss);
    for (int64_t k = 0; k < s->views; k++) {
        double sum = 0;
        for (int64_t i = 0; i < s->n; i++) sum += (double)rows[k * s->n + i];
        loss[k] = (float)(sum / (double)s->n);
    }
    qn_result r = qn_golden_compare(c, "loss", loss, (uint64_t)s->views, 1, h->large ? 2e-3 : 1e-6);
    qn_free(loss);
    return r;
}

static qn_result check_graph(qn_golden_case *c, const hyper_case *h, int64_t views,
                             const char *prefix)
{
    built b = { 0 };
    const double gradient = h->large ? 2e-3 : 1e-6;
    const bool all = views == h->s.views;
    char name[64];
    qn_result r = build_all(c->dev, h, views, &b);
    if (r == QN_OK) {
        const qn_tensor *outputs[12] = { b.gen, b.logits, b.rows };
        memcpy(outputs + 3, b.grads, sizeof b.grads);
        void *out[12] = { 0 };
        r = qn_run_once(b.graph, NULL, 0, outputs, 12, out);
        if (r == QN_OK && all) {
            uint64_t logits = (uint64_t)(views * h->s.n * h->s.classes);
            r = qn_golden_compare(c, "gen", out[0], (uint64_t)(views * h->s.count), 1, 1e-6);
            if (r == QN_OK) r = qn_golden_compare(c, "logits", out[1], logits, 1, 1e-6);
            if (r == QN_OK) r = compare_means(c, h, out[1]);
            if (r == QN_OK) r = compare_losses(c, h, out[2]);
        }
        snprintf(name, sizeof name, "%s.dgen", prefix);
        if (r == QN_OK)
            r = qn_golden_compare(c, name, out[11], (uint64_t)(views * h->s.count), 1, gradient);
        // Gradients of the parameters, laid out like these.
        float *flat = qn_malloc((size_t)h->parameters * sizeof *flat), *at = flat;
        if (!flat) r = qn_no_memory((size_t)h->parameters * sizeof *flat);
        for (int i = 0; r == QN_OK && i < 8; i++) {
            int64_t count = qn_shape_count(b.params[i]->shape);
            memcpy(at, out[3 + i], (size_t)count * sizeof *at);
            at += count;
        }
        snprintf(name, sizeof name, "%s.dhyper.", prefix);
        if (r == QN_OK) r = compare_parameters(c, h, name, flat, gradient, 0, 0);
        qn_free(flat);
        qn_free_all(out, 12);
    }
    qn_graph_destroy(&b.graph);
    qn_store_destroy(&b.store);
    return r;
}

// ------------------------------------------------------------------------------ steps

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// The rows and views of the trace as the orders of a fit.
static qn_result read_orders(qn_golden_case *c, const sizes *s, int64_t epochs, int32_t *orders)
{
    int32_t *rows = NULL, *views = NULL;
    int64_t width = s->batch < s->n ? s->batch : s->n, groups = div_up(s->views, s->per_step);
    int64_t batches = div_up(s->n, width);
    qn_result r = qn_golden_i32(c, "trace.rows", (uint64_t)(s->steps * width), &rows, NULL);
    if (r == QN_OK)
        r = qn_golden_i32(c, "trace.views", (uint64_t)(s->steps * s->per_step), &views, NULL);
    for (int64_t t = 0; r == QN_OK && t < s->steps; t++) {
        int64_t turn = t / groups, group = t % groups;
        int32_t *to = orders + turn / batches * s->n + turn % batches * width;
        for (int64_t i = 0; i < width; i++) {
            int32_t row = rows[t * width + i];
            if (row >= s->n) r = qn_fail(QN_ERR_FORMAT, "%s: trace.rows holds row %d", c->dir, row);
            if (row >= 0 && r == QN_OK) to[i] = row;
        }
        to = orders + epochs * s->n + turn * s->views + group * s->per_step;
        for (int64_t k = 0; k < s->per_step; k++) {
            int32_t view = views[t * s->per_step + k];
            if (view >= s->views)
                r = qn_fail(QN_ERR_FORMAT, "%s: trace.views holds view %d", c->dir, view);
            if (view >= 0 && r == QN_OK) to[k] = view;
        }
    }
    qn_free(rows);
    qn_free(views);
    return r;
}

static qn_result run_steps(qn_golden_case *c, const hyper_case *h, int64_t steps, float *state,
                           float *losses)
{
    const sizes *s = &h->s;
    int64_t batch = s->batch < s->n ? s->batch : s->n;
    int64_t batches = div_up(s->n, batch), groups = div_up(s->views, s->per_step);
    int64_t epochs = div_up(s->steps, batches * groups);
    float lr = (float)s->lr, *y = qn_malloc((size_t)s->n * sizeof *y);
    float *rates = qn_malloc((size_t)(2 * steps) * sizeof *rates);
    int32_t words[QN_FIT_WORDS] = { 0 };
    words[QN_FIT_ROWS] = (int32_t)s->n;
    words[QN_FIT_BATCH] = (int32_t)batch;
    words[QN_FIT_VIEWS] = (int32_t)s->per_step;
    words[QN_FIT_STEPS] = (int32_t)steps;
    memcpy(&words[QN_FIT_RATE], &lr, sizeof lr);
    words[QN_FIT_ORDER] = (int32_t)(epochs * s->n);
    qn_tab_launch l = { .opts = { .net = h->net, .steps = (int)steps, .batch = (int)batch,
                                  .views_per_step = (int)s->per_step },
                        .fits = 1, .columns = s->d, .chosen = s->m, .parameters = h->parameters,
                        .rows = s->n, .orders = epochs * (s->n + batches * s->views),
                        .steps = steps, .views = (int)s->views, .state = state,
                        .fit_words = words, .rates = rates, .x = h->x, .y = y, .masks = h->masks,
                        .view_columns = h->columns, .losses = losses };
    l.order_words = qn_calloc((size_t)l.orders, sizeof(int32_t));
    qn_result r = y && rates && l.order_words ? read_orders(c, s, epochs, l.order_words)
                                              : qn_no_memory((size_t)l.orders);
    for (int64_t t = 0; r == QN_OK && t < steps; t++) {
        rates[2 * t] = (float)(1 / (1 - pow(0.9, (double)t + 1)));
        rates[2 * t + 1] = (float)(1 / sqrt(1 - pow(0.999, (double)t + 1)));
    }
    for (int64_t i = 0; r == QN_OK && i < s->n; i++) y[i] = (float)h->y[i];
    memset(state, 0, (size_t)(3 * h->parameters) * sizeof *state);
    memcpy(state, h->theta, (size_t)h->parameters * sizeof *state);
    if (r == QN_OK) r = qn_tab_launch_run(c->dev, &l);
    qn_free(y);
    qn_free(rates);
    qn_free(l.order_words);
    return r;
}

static qn_result check_final(qn_golden_case *c, const hyper_case *h, float *state)
{
    const sizes *s = &h->s;
    qn_tab_net net = { .net = h->net, .columns = s->d, .chosen = s->m, .views = (int)s->views,
                       .parameters = h->parameters, .theta = state, .view_columns = h->columns };
    int64_t count = s->n * s->classes;
    double *sum = qn_calloc((size_t)count, sizeof *sum);
    float *mean = qn_malloc((size_t)count * sizeof *mean);
    qn_result r = sum && mean ? qn_tab_add_logits(c->dev, &net, h->x, s->n, sum)
                              : qn_no_memory((size_t)count * sizeof *sum);
    for (int64_t i = 0; r == QN_OK && i < count; i++) mean[i] = (float)sum[i];
    if (r == QN_OK)
        r = qn_golden_compare(c, "trace.final_mean_logits", mean, (uint64_t)count, 1,
                              h->large ? 2e-3 : 1e-5);
    qn_free(sum);
    qn_free(mean);
    return r;
}

static qn_result check_steps(qn_golden_case *c, const hyper_case *h)
{
    const sizes *s = &h->s;
    float *state = qn_malloc((size_t)(3 * h->parameters) * sizeof *state);
    float *losses = qn_calloc((size_t)s->steps, sizeof *losses);
    const double share = 1e-3, far = 20 * s->lr;
    char name[64];
    qn_result r = state && losses ? run_steps(c, h, 1, state, losses)
                                  : qn_no_memory((size_t)h->parameters * sizeof *state);
    if (r == QN_OK) r = compare_parameters(c, h, "step1.hyper.", state, 1e-5, 0, 0);
    if (r == QN_OK) r = run_steps(c, h, s->steps, state, losses);
    if (r == QN_OK)
        r = qn_golden_compare(c, "trace.loss", losses, (uint64_t)s->steps, 1, h->large ? 2e-3 : 1e-5);
    for (int i = 0; r == QN_OK && i < 3; i++) {
        static const char *const parts[3] = { "step", "adam_m", "adam_v" };
        snprintf(name, sizeof name, "%s%lld.hyper.", parts[i], (long long)s->steps);
        bool moment = i > 0 && h->large;
        r = compare_parameters(c, h, name, state + i * h->parameters, moment ? 2e-3 : 1e-5,
                               i ? 0 : share, far);
    }
    if (r == QN_OK) r = check_final(c, h, state);
    qn_free(state);
    qn_free(losses);
    return r;
}

static qn_result run_hyper(qn_golden_case *c, qn_json j)
{
    hyper_case h = { 0 };
    qn_result r = open_case(c, j, &h);
    uint64_t count = 0;
    float *logits = NULL;
    if (r == QN_OK) r = qn_golden_f32(c, "logits", 0, &logits, &count);
    for (uint64_t i = 0; r == QN_OK && i < count; i++) h.large |= fabsf(logits[i]) > 100;
    qn_free(logits);
    if (r == QN_OK) r = check_graph(c, &h, h.s.views, "all");
    if (r == QN_OK) r = check_graph(c, &h, 1, "view0");
    if (r == QN_OK) r = check_steps(c, &h);
    qn_free(h.x);
    qn_free(h.y);
    qn_free(h.masks);
    qn_free(h.columns);
    qn_free(h.theta);
    return r;
}

// ------------------------------------------------------------------------------ preprocessing

static qn_result read_rows(qn_json split, const char *key, int64_t most, int32_t **rows, int64_t *count)
{
    qn_json list;
    QN_TRY(qn_json_array(split, key, &list));
    *count = 0;
    *rows = qn_malloc((qn_json_count(list) + 1) * sizeof **rows);
    if (!*rows) return qn_no_memory(qn_json_count(list) * sizeof **rows);
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        int64_t row;
        QN_TRY(qn_json_int(v, NULL, 0, most - 1, &row));
        (*rows)[(*count)++] = (int32_t)row;
    }
    return QN_OK;
}

static qn_result compare_rows(qn_golden_case *c, const char *part, const int32_t *rows,
                              int64_t count, const float *x, const float *y, size_t features)
{
    char name[32];
    float *px = qn_malloc((size_t)count * features * sizeof *px);
    int32_t *py = qn_malloc((size_t)count * sizeof *py);
    qn_result r = px && py ? QN_OK : qn_no_memory((size_t)count * features * sizeof *px);
    for (int64_t i = 0; r == QN_OK && i < count; i++) {
        memcpy(px + (size_t)i * features, x + (size_t)rows[i] * features, features * sizeof *px);
        py[i] = (int32_t)y[rows[i]];
    }
    snprintf(name, sizeof name, "X_%s", part);
    if (r == QN_OK) r = qn_golden_compare(c, name, px, (uint64_t)count * features, 1, 1e-5);
    snprintf(name, sizeof name, "y_%s", part);
    if (r == QN_OK) r = qn_golden_compare_int(c, name, py, (uint64_t)count);
    qn_free(px);
    qn_free(py);
    return r;
}

static qn_result check_names(qn_json list, qn_tab_prep *p, bool classes)
{
    size_t i = 0;
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v), i++) {
        const char *want, *got = NULL;
        QN_TRY(qn_json_string(v, NULL, &want));
        if (i < (classes ? (size_t)p->class_count : p->features))
            got = classes ? p->classes[i] : qn_tab_feature_name(p, i);
        if (!got || strcmp(got, want))
            return qn_json_fail(v, "found \"%s\", the table gives \"%s\"", want, got ? got : "");
    }
    return QN_OK;
}

// The table lies beside the golden folder: ../../../data/tabular, or in the case's own folder.
static qn_result open_table(const char *dir, const char *dataset, const char *ending, char **path)
{
    static const char *const places[] = { "", "../../../data/tabular/" };
    char name[512];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s%s%s", places[i], dataset, ending);
        *path = qn_path_join(dir, name);
        if (!*path) return qn_no_memory(strlen(dir));
        if (qn_file_exists(*path)) return QN_OK;
        if (i == 0) qn_free(*path);
    }
    qn_result r = qn_fail(QN_ERR_IO, "%s: the table of this case is not there", *path);
    qn_free(*path);
    *path = NULL;
    return r;
}

static qn_result run_preparation(qn_golden_case *c, qn_json j)
{
    const char *dataset;
    int64_t split;
    QN_TRY(qn_json_string(j, "dataset", &dataset));
    QN_TRY(qn_json_int(j, "split", 0, 1000, &split));
    char *table_path = NULL, *splits_path = NULL;
    qn_tab_table *t = NULL;
    qn_tab_prep *p = NULL;
    qn_json_doc *doc = NULL;
    int32_t *rows[2] = { NULL, NULL };
    int64_t counts[2] = { 0 };
    float *x = NULL, *y = NULL;
    qn_json list = { 0 };
    qn_result r = open_table(c->dir, dataset, ".csv", &table_path);
    if (r == QN_OK) r = open_table(c->dir, dataset, ".splits.json", &splits_path);
    if (r == QN_OK) r = qn_tab_table_open(table_path, &t);
    if (r == QN_OK) r = qn_json_open(splits_path, NULL, &doc);
    if (r == QN_OK) r = qn_json_array(qn_json_root(doc), "splits", &list);
    qn_json s = r == QN_OK ? qn_json_first(list) : list;
    for (int64_t i = 0; r == QN_OK && s.node && i < split; i++) s = qn_json_next(s);
    if (r == QN_OK) r = read_rows(s, "train", (int64_t)t->rows, &rows[0], &counts[0]);
    if (r == QN_OK) r = read_rows(s, "test", (int64_t)t->rows, &rows[1], &counts[1]);
    if (r == QN_OK) r = qn_tab_prep_fit(t, NULL, false, rows[0], counts[0], &p);
    if (r == QN_OK) {
        x = qn_malloc(t->rows * p->features * sizeof *x);
        y = qn_malloc(t->rows * sizeof *y);
        r = x && y ? qn_tab_prep_apply(p, t, x, NULL, NULL) : qn_no_memory(t->rows * sizeof *x);
    }
    if (r == QN_OK) r = qn_tab_prep_labels(p, t, y);
    if (r == QN_OK) r = compare_rows(c, "train", rows[0], counts[0], x, y, p->features);
    if (r == QN_OK) r = compare_rows(c, "test", rows[1], counts[1], x, y, p->features);
    if (r == QN_OK) r = qn_json_array(j, "classes", &list);
    if (r == QN_OK) r = check_names(list, p, true);
    if (r == QN_OK) r = qn_json_array(j, "columns", &list);
    if (r == QN_OK) r = check_names(list, p, false);
    qn_free(rows[0]);
    qn_free(rows[1]);
    qn_free(x);
    qn_free(y);
    qn_json_close(&doc);
    qn_tab_prep_free(&p);
    qn_tab_table_close(&t);
    qn_free(table_path);
    qn_free(splits_path);
    return r;
}

qn_result qn_tab_golden(qn_golden_case *c)
{
    char *path = qn_path_join(c->dir, "case.json"), *tensors = qn_path_join(c->dir, "tensors.safetensors");
    qn_json_doc *doc = NULL;
    qn_result r = path && tensors ? qn_json_open(path, NULL, &doc) : qn_no_memory(strlen(c->dir));
    if (r == QN_OK) r = qn_safetensors_open(tensors, &c->io);
    if (r == QN_OK) {
        qn_json j = qn_json_root(doc);
        bool table = qn_json_find(j, "dataset").node != NULL;
        if (!table && !c->dev)
            r = qn_fail(QN_ERR_NO_DEVICE, "%s: needs a Vulkan device", c->dir);
        else
            r = table ? run_preparation(c, j) : run_hyper(c, j);
    }
    qn_json_close(&doc);
    qn_free(path);
    qn_free(tensors);
    return r;
}
