// From jobs to launches: batches, orders, views and first weights from the seed, then the shapes that
// are equal side by side.
#include "fail.h"
#include "mem.h"
#include "random.h"
#include "tab/hyper.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { W1 = QN_HYPER_WIDTH1, W2 = QN_HYPER_WIDTH2 };
enum { STREAM_VIEWS = 1, STREAM_WEIGHTS, STREAM_ROWS, STREAM_ORDER };
enum { STEP_VIEWS = 400 }; // views that one run takes through a step each

// What a job comes to.
typedef struct fit {
    const qn_tab_job *job;
    size_t index;
    int64_t rows, batch, batches, groups, steps; // rows of an epoch; steps in all
    int64_t chosen;
    int views, per_step;
    int64_t offset; // of its data's rows among those of the launch
} fit;

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t chosen_of(double subsample, int64_t columns)
{
    int64_t m = (int64_t)floor((double)columns * subsample);
    return m < 1 ? 1 : m > columns ? columns : m;
}

// Rows of each class among the job's; *most is the largest.
static void count_classes(const qn_tab_job *j, int64_t *counts, int64_t *most, int64_t *present)
{
    *most = *present = 0;
    memset(counts, 0, (size_t)j->data->classes * sizeof *counts);
    for (int64_t i = 0; i < j->row_count; i++) {
        int64_t *c = &counts[(int)j->data->y[j->rows[i]]];
        *present += *c == 0;
        if (++*c > *most) *most = *c;
    }
}

static fit fit_of(const qn_tab_job *j, size_t index)
{
    const qn_tab_settings *s = j->settings;
    fit f = { .job = j, .index = index, .rows = j->row_count, .batch = s->batch };
    if (s->balance && j->data->classes) {
        int64_t counts[QN_TARGET_MAX_OUTPUTS], most, present;
        count_classes(j, counts, &most, &present);
        f.rows = most * present;
    }
    if (s->even) f.batch = div_up(f.rows, div_up(f.rows, s->batch));
    if (f.batch > f.rows) f.batch = f.rows;
    f.views = s->views;
    f.per_step = s->views_per_step < s->views ? s->views_per_step : s->views;
    f.batches = div_up(f.rows, f.batch);
    f.groups = div_up(f.views, f.per_step);
    f.steps = s->epochs * f.batches * f.groups;
    f.chosen = chosen_of(s->subsample, j->data->columns);
    return f;
}

static void shuffle(qn_random *r, int32_t *v, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)qn_random_below(r, (uint64_t)i + 1);
        int32_t t = v[i];
        v[i] = v[k];
        v[k] = t;
    }
}

// A uniformly random subset of `chosen` columns for every view, ascending.
static void draw_views(uint64_t seed, int64_t columns, int64_t chosen, int views, int32_t *out,
                       float *masks)
{
    qn_random r = qn_random_start(seed, STREAM_VIEWS);
    for (int k = 0; k < views; k++) {
        int64_t left = chosen;
        for (int64_t j = 0; j < columns && left; j++) { // selection sampling
            if ((int64_t)qn_random_below(&r, (uint64_t)(columns - j)) >= left) continue;
            out[k * chosen + (chosen - left--)] = (int32_t)j;
            masks[k * columns + j] = 1;
        }
    }
}

// Uniform in [-1/sqrt(fan in), 1/sqrt(fan in)], weights and biases.
static void draw_weights(uint64_t seed, int64_t columns, int64_t generated, float *theta)
{
    qn_random r = qn_random_start(seed, STREAM_WEIGHTS);
    const int64_t in[4] = { columns, W1, W2, W2 }, out[4] = { W1, W2, W2, generated };
    for (int l = 0; l < 4; l++) {
        double bound = 1 / sqrt((double)in[l]);
        for (int64_t i = 0; i < (in[l] + 1) * out[l]; i++)
            *theta++ = (float)((2 * qn_random_unit(&r) - 1) * bound);
    }
}

// One epoch's rows: all of them, and of rarer classes random ones again until all have as many.
static void fill_epoch(const fit *f, qn_random *r, int32_t *scratch, int32_t *out)
{
    const qn_tab_job *j = f->job;
    if (!(j->settings->balance && j->data->classes)) {
        memcpy(out, j->rows, (size_t)j->row_count * sizeof *out);
        shuffle(r, out, f->rows);
        return;
    }
    int64_t counts[QN_TARGET_MAX_OUTPUTS], most, present, at = 0;
    count_classes(j, counts, &most, &present);
    for (int c = 0; c < j->data->classes; c++) {
        int64_t n = 0;
        for (int64_t i = 0; i < j->row_count; i++)
            if ((int)j->data->y[j->rows[i]] == c) scratch[n++] = j->rows[i];
        for (int64_t need = n ? most : 0; need > 0;) {
            int64_t take = need < n ? need : n;
            if (need != most) shuffle(r, scratch, n);
            memcpy(out + at, scratch, (size_t)take * sizeof *out);
            at += take;
            need -= take;
        }
    }
    shuffle(r, out, f->rows);
}

static qn_result fill_orders(const fit *f, int32_t first_view, int32_t *out)
{
    const int epochs = f->job->settings->epochs;
    int32_t *scratch = qn_malloc((size_t)f->job->row_count * sizeof *scratch);
    if (!scratch) return qn_no_memory((size_t)f->job->row_count * sizeof *scratch);
    qn_random rows = qn_random_start(f->job->seed, STREAM_ROWS);
    qn_random order = qn_random_start(f->job->seed, STREAM_ORDER);
    for (int e = 0; e < epochs; e++) fill_epoch(f, &rows, scratch, out + e * f->rows);
    for (int64_t i = 0; i < epochs * f->rows; i++) out[i] += (int32_t)f->offset;
    int32_t *views = out + epochs * f->rows;
    for (int64_t b = 0; b < epochs * f->batches; b++) {
        for (int k = 0; k < f->views; k++) views[b * f->views + k] = first_view + k;
        shuffle(&order, views + b * f->views, f->views);
    }
    qn_free(scratch);
    return QN_OK;
}

// The factor of Adam's first moment carries the schedule; all fits of a launch share it.
static void fill_rates(int64_t steps, bool anneal, float *rates)
{
    const double pi = 3.14159265358979323846;
    for (int64_t t = 0; t < steps; t++) {
        double part = anneal ? 0.5 * (1 + cos(pi * (double)t / (double)steps)) : 1;
        rates[2 * t] = (float)(part / (1 - pow(0.9, (double)t + 1)));
        rates[2 * t + 1] = (float)(1 / sqrt(1 - pow(0.999, (double)t + 1)));
    }
}

// ------------------------------------------------------------------------------ launches

typedef struct tracker {
    const qn_tab_hooks *hooks;
    double before, weight, total;
    const qn_tab_launch *launch;
    int64_t done;
    bool stopped;
} tracker;

static bool after(void *user, int64_t steps)
{
    tracker *t = user;
    t->done = steps;
    if (!t->hooks || !t->hooks->progress) return true;
    double loss = 0;
    for (int64_t f = 0; f < t->launch->fits; f++)
        loss += (double)t->launch->losses[f * t->launch->steps + steps - 1];
    if (t->hooks->progress(t->hooks->user, t->before + t->weight * (double)steps, t->total,
                           loss / (double)t->launch->fits))
        return true;
    t->stopped = true;
    return false;
}

// What fits of one launch have in common.
enum { KEY = 9 };
static void key_of(const fit *f, int64_t key[KEY])
{
    const qn_tab_settings *s = f->job->settings;
    const int64_t own[KEY] = { f->job->data->columns, f->job->data->classes, f->chosen, s->hidden,
                               s->depth, f->views, f->per_step, f->steps, s->anneal };
    memcpy(key, own, sizeof own);
}

static int compare(const fit *a, const fit *b)
{
    int64_t x[KEY], y[KEY];
    key_of(a, x);
    key_of(b, y);
    for (int i = 0; i < KEY; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

static int by_shape(const void *a, const void *b)
{
    const fit *p = a, *q = b;
    int order = compare(p, q);
    return order ? order : (p->index > q->index) - (p->index < q->index);
}

static void launch_free(qn_tab_launch *l)
{
    qn_free(l->state);
    qn_free(l->fit_words);
    qn_free(l->order_words);
    qn_free(l->rates);
    qn_free(l->masks);
    qn_free(l->view_columns);
    qn_free(l->losses);
}

// Puts the tables of all fits one after the other, each once.
static qn_result join_data(fit *fits, int64_t count, qn_tab_launch *l, float **x, float **y)
{
    int64_t columns = fits[0].job->data->columns;
    l->rows = 0;
    for (int64_t f = 0; f < count; f++) {
        int64_t same = 0;
        while (fits[same].job->data != fits[f].job->data) same++;
        fits[f].offset = same < f ? fits[same].offset : l->rows;
        if (same == f) l->rows += fits[f].job->data->rows;
    }
    *x = qn_malloc((size_t)(l->rows * columns) * sizeof **x);
    *y = qn_malloc((size_t)l->rows * sizeof **y);
    if (!*x || !*y) return qn_no_memory((size_t)(l->rows * columns) * sizeof **x);
    for (int64_t f = 0; f < count; f++) {
        const qn_tab_data *d = fits[f].job->data;
        memcpy(*x + fits[f].offset * columns, d->x, (size_t)(d->rows * columns) * sizeof **x);
        memcpy(*y + fits[f].offset, d->y, (size_t)d->rows * sizeof **y);
    }
    l->x = *x;
    l->y = *y;
    return QN_OK;
}

static qn_result launch_make(const fit *fits, int64_t count, qn_tab_launch *l)
{
    const fit *a = &fits[0];
    const qn_tab_data *d = a->job->data;
    const qn_tab_settings *s = a->job->settings;
    l->opts = (qn_hyper_fit_opts){ .net = { s->hidden, s->depth, qn_tab_outputs(d) },
                                   .square = d->classes == 0, .views_per_step = a->per_step,
                                   .batch = (int)a->batch };
    int64_t generated = qn_target_weights(&l->opts.net, a->chosen);
    qn_tab_net shape = { .net = l->opts.net, .columns = d->columns, .chosen = a->chosen };
    l->fits = count;
    l->columns = d->columns;
    l->chosen = a->chosen;
    l->parameters = qn_tab_parameters(&shape);
    l->views = a->views;
    l->steps = a->steps;
    int64_t run = STEP_VIEWS / a->per_step;
    l->opts.steps = (int)(run < 1 ? 1 : run < a->steps ? run : a->steps);
    l->orders = s->epochs * (a->rows + a->batches * a->views);
    for (int64_t f = 1; f < count; f++) { // equal steps, yet perhaps other numbers of rows
        int64_t own = fits[f].job->settings->epochs * (fits[f].rows + fits[f].batches * fits[f].views);
        if (own > l->orders) l->orders = own;
        if (fits[f].batch > l->opts.batch) l->opts.batch = (int)fits[f].batch;
    }
    int64_t views = count * a->views;
    l->state = qn_calloc((size_t)(count * 3 * l->parameters), sizeof(float));
    l->fit_words = qn_calloc((size_t)(count * QN_FIT_WORDS), sizeof(int32_t));
    l->order_words = qn_calloc((size_t)(count * l->orders), sizeof(int32_t));
    l->rates = qn_calloc((size_t)(2 * l->steps), sizeof(float));
    l->masks = qn_calloc((size_t)(views * d->columns), sizeof(float));
    l->view_columns = qn_calloc((size_t)(views * a->chosen), sizeof(int32_t));
    l->losses = qn_calloc((size_t)(count * l->steps), sizeof(float));
    if (!l->state || !l->fit_words || !l->order_words || !l->rates || !l->masks ||
        !l->view_columns || !l->losses)
        return qn_no_memory((size_t)(count * 3 * l->parameters) * sizeof(float));
    fill_rates(l->steps, s->anneal, l->rates);
    for (int64_t f = 0; f < count; f++) {
        const fit *own = &fits[f];
        int32_t *w = l->fit_words + f * QN_FIT_WORDS;
        float rate = (float)own->job->settings->rate;
        w[QN_FIT_ROWS] = (int32_t)own->rows;
        w[QN_FIT_BATCH] = (int32_t)own->batch;
        w[QN_FIT_VIEWS] = own->per_step;
        w[QN_FIT_STEPS] = (int32_t)own->steps;
        memcpy(&w[QN_FIT_RATE], &rate, sizeof rate);
        w[QN_FIT_ORDER] = (int32_t)(own->job->settings->epochs * own->rows);
        draw_weights(own->job->seed, d->columns, generated, l->state + f * 3 * l->parameters);
        draw_views(own->job->seed, d->columns, a->chosen, a->views,
                   l->view_columns + f * a->views * a->chosen, l->masks + f * a->views * d->columns);
        QN_TRY(fill_orders(own, (int32_t)(f * a->views), l->order_words + f * l->orders));
    }
    return QN_OK;
}

static qn_result launch_keep(const fit *fits, const qn_tab_launch *l, int64_t done, qn_tab_net *nets)
{
    for (int64_t f = 0; f < l->fits; f++) {
        qn_tab_net *n = &nets[fits[f].index];
        *n = (qn_tab_net){ .net = l->opts.net, .columns = l->columns, .chosen = l->chosen,
                           .views = l->views, .parameters = l->parameters };
        size_t bytes = (size_t)l->parameters * sizeof(float);
        size_t column_bytes = (size_t)(l->views * l->chosen) * sizeof(int32_t);
        n->theta = qn_malloc(bytes);
        n->view_columns = qn_malloc(column_bytes);
        if (!n->theta || !n->view_columns) return qn_no_memory(bytes);
        memcpy(n->theta, l->state + f * 3 * l->parameters, bytes);
        memcpy(n->view_columns, l->view_columns + f * l->views * l->chosen, column_bytes);
        int64_t last = fits[f].batches * fits[f].groups;
        if (last > done) last = done;
        for (int64_t s = done - last; s < done; s++)
            n->loss += (double)l->losses[f * l->steps + s] / (double)last;
    }
    return QN_OK;
}

static qn_result run_alike(qn_device *dev, fit *fits, int64_t count, tracker *t,
                           qn_tab_net *nets)
{
    qn_tab_launch l = { .after = after, .user = t };
    float *x = NULL, *y = NULL;
    qn_result r = join_data(fits, count, &l, &x, &y);
    if (r == QN_OK) r = launch_make(fits, count, &l);
    t->launch = &l;
    t->weight = (double)count;
    t->done = 0;
    if (r == QN_OK) r = qn_tab_launch_run(dev, &l);
    if (r == QN_OK) r = launch_keep(fits, &l, t->done, nets);
    t->before += t->weight * (double)l.steps;
    launch_free(&l);
    qn_free(x);
    qn_free(y);
    return r;
}

// Memory bounds what goes side by side: parameters with moments, orders.
static int64_t most_alike(const fit *f)
{
    const qn_tab_data *d = f->job->data;
    qn_target_net net = { f->job->settings->hidden, f->job->settings->depth, qn_tab_outputs(d) };
    qn_tab_net shape = { .net = net, .columns = d->columns, .chosen = f->chosen };
    int64_t words = 3 * qn_tab_parameters(&shape) + f->views * (d->columns + f->chosen) +
                    f->job->settings->epochs * (f->rows + f->batches * f->views) + f->steps;
    int64_t most = ((int64_t)1 << 26) / words;
    return most < 1 ? 1 : most;
}

qn_result qn_tab_train(qn_device *dev, const qn_tab_job *jobs, size_t count,
                       const qn_tab_hooks *hooks, qn_tab_net *nets, bool *stopped)
{
    memset(nets, 0, count * sizeof *nets);
    if (stopped) *stopped = false;
    fit *fits = qn_malloc(count * sizeof *fits);
    if (!fits) return qn_no_memory(count * sizeof *fits);
    tracker t = { .hooks = hooks };
    for (size_t i = 0; i < count; i++) {
        fits[i] = fit_of(&jobs[i], i);
        t.total += (double)fits[i].steps;
    }
    qsort(fits, count, sizeof *fits, by_shape);
    qn_result r = QN_OK;
    for (size_t i = 0, n; r == QN_OK && i < count; i += n) {
        int64_t most = most_alike(&fits[i]);
        for (n = 1; i + n < count && (int64_t)n < most && compare(&fits[i], &fits[i + n]) == 0;) n++;
        r = run_alike(dev, fits + i, (int64_t)n, &t, nets);
        if (r == QN_OK && t.stopped) break;
    }
    if (stopped) *stopped = t.stopped;
    qn_free(fits);
    return r;
}
