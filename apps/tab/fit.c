// Inner cross-validation, the choice, the final networks.
#include "tab/fit.h"
#include "fail.h"
#include "mem.h"
#include "random.h"
#include "tab/score.h"

#include <math.h>
#include <string.h>

enum { STREAM_FOLDS = 11 };

void qn_tab_choice_free(qn_tab_choice *c, int seeds)
{
    for (int i = 0; c->nets && i < seeds; i++) qn_tab_net_free(&c->nets[i]);
    qn_free(c->nets);
    c->nets = NULL;
}

void qn_tab_folds(const qn_tab_problem *p, int folds, uint64_t seed, int *fold)
{
    // Class after class the rows are dealt out in random order, going on where the last one ended.
    qn_random r = qn_random_start(seed, STREAM_FOLDS);
    int classes = p->data->classes ? p->data->classes : 1, next = 0;
    for (int c = 0; c < classes; c++) {
        int64_t left = 0;
        for (int64_t i = 0; i < p->count; i++) {
            if (p->data->classes && (int)p->data->y[p->rows[i]] != c) continue;
            fold[i] = -1;
            left++;
        }
        while (left) { // the k-th of those not yet dealt
            int64_t k = (int64_t)qn_random_below(&r, (uint64_t)left--);
            for (int64_t i = 0; i < p->count; i++) {
                if (p->data->classes && (int)p->data->y[p->rows[i]] != c) continue;
                if (fold[i] < 0 && k-- == 0) {
                    fold[i] = next++ % folds;
                    break;
                }
            }
        }
    }
}

typedef struct relay {
    const qn_tab_hooks *hooks;
    double from, share; // of the whole
} relay;

static bool relay_progress(void *user, double done, double total, double loss)
{
    const relay *r = user;
    return r->hooks->progress(r->hooks->user, r->from + r->share * done / total, 1, loss);
}

// The inner fits of a problem: for every candidate and fold the rows of the other folds.
typedef struct inner {
    int *fold;      // [rows]
    int32_t *rows;  // [folds, rows]: those of the other folds; behind them the fold's own
    int64_t *count; // [folds]: of the former
} inner;

static void inner_free(inner *in)
{
    qn_free(in->fold);
    qn_free(in->rows);
    qn_free(in->count);
}

static qn_result inner_make(const qn_tab_problem *p, const qn_tab_fit_opts *o, uint64_t seed, inner *in)
{
    in->fold = qn_malloc((size_t)p->count * sizeof *in->fold);
    in->rows = qn_malloc((size_t)o->folds * (size_t)p->count * sizeof *in->rows);
    in->count = qn_calloc((size_t)o->folds, sizeof *in->count);
    if (!in->fold || !in->rows || !in->count) return qn_no_memory((size_t)p->count * 4);
    qn_tab_folds(p, o->folds, seed, in->fold);
    for (int f = 0; f < o->folds; f++) {
        int32_t *to = in->rows + f * p->count;
        for (int64_t i = 0; i < p->count; i++)
            if (in->fold[i] != f) to[in->count[f]++] = p->rows[i];
        int64_t own = in->count[f];
        for (int64_t i = 0; i < p->count; i++)
            if (in->fold[i] == f) to[own++] = p->rows[i];
    }
    return QN_OK;
}

// Adds the logits of the held-out rows; out [data rows, C].
static qn_result held_out(qn_device *dev, const qn_tab_problem *p, const inner *in, int fold,
                          const qn_tab_net *net, double *out)
{
    int64_t own = p->count - in->count[fold], d = p->data->columns, c = qn_tab_outputs(p->data);
    const int32_t *rows = in->rows + fold * p->count + in->count[fold];
    if (!own) return QN_OK;
    float *x = qn_malloc((size_t)(own * d) * sizeof *x);
    double *sum = qn_calloc((size_t)(own * c), sizeof *sum);
    qn_result r = x && sum ? QN_OK : qn_no_memory((size_t)(own * d) * sizeof *x);
    for (int64_t i = 0; r == QN_OK && i < own; i++)
        memcpy(x + i * d, p->data->x + rows[i] * d, (size_t)d * sizeof *x);
    if (r == QN_OK) r = qn_tab_add_logits(dev, net, x, own, sum);
    for (int64_t i = 0; r == QN_OK && i < own; i++)
        memcpy(out + rows[i] * c, sum + i * c, (size_t)c * sizeof *out);
    qn_free(x);
    qn_free(sum);
    return r;
}

// Balanced accuracy or R2 of one candidate from the logits of all held-out rows; its temperature.
static qn_result judge(const qn_tab_problem *p, const double *logits, double *score,
                       double *temperature)
{
    int c = qn_tab_outputs(p->data);
    double *z = qn_malloc((size_t)(p->count * (c + 1)) * sizeof *z), *v = z ? z + p->count * c : NULL;
    float *y = qn_malloc((size_t)p->count * sizeof *y);
    qn_tab_scores *s = qn_malloc(sizeof *s);
    qn_result r = z && y && s ? QN_OK : qn_no_memory((size_t)p->count * sizeof *z);
    for (int64_t i = 0; r == QN_OK && i < p->count; i++) {
        memcpy(z + i * c, logits + p->rows[i] * c, (size_t)c * sizeof *z);
        y[i] = p->data->y[p->rows[i]];
        v[i] = (double)y[i];
    }
    if (r == QN_OK && !p->data->classes) {
        qn_tab_score_values(v, z, p->count, s);
        *score = s->r2;
        *temperature = 1;
    } else if (r == QN_OK) {
        *temperature = qn_tab_temperature(z, y, p->count, c);
        qn_tab_softmax(z, p->count, c, 1);
        r = qn_tab_score(y, z, p->count, c, s);
        *score = s->balanced_accuracy;
    }
    qn_free(z);
    qn_free(y);
    qn_free(s);
    return r;
}

static qn_result choose(qn_device *dev, const qn_tab_problem *p, const qn_tab_fit_opts *o,
                        const inner *in, const qn_tab_net *nets, qn_tab_choice *c)
{
    size_t count = (size_t)p->data->rows * (size_t)qn_tab_outputs(p->data);
    double *logits = qn_calloc(count, sizeof *logits);
    if (!logits) return qn_no_memory(count * sizeof *logits);
    qn_result r = QN_OK;
    double best = -INFINITY;
    for (size_t g = 0; r == QN_OK && g < o->grid_count; g++) {
        double temperature;
        for (int f = 0; r == QN_OK && f < o->folds; f++)
            r = held_out(dev, p, in, f, &nets[g * (size_t)o->folds + (size_t)f], logits);
        if (r == QN_OK) r = judge(p, logits, &c->scores[g], &temperature);
        double needed = g ? best + (c->chosen == 0 ? o->least_gain : 0) : -INFINITY;
        if (r == QN_OK && c->scores[g] > needed) {
            best = c->scores[g];
            c->chosen = g;
            c->temperature = temperature;
        }
    }
    qn_free(logits);
    return r;
}

static qn_result cross_validate(qn_device *dev, const qn_tab_problem *problems, size_t count,
                                const qn_tab_fit_opts *o, const qn_tab_hooks *hooks,
                                qn_tab_choice *choices, bool *stopped)
{
    size_t each = o->grid_count * (size_t)o->folds, jobs_count = count * each;
    inner *in = qn_calloc(count, sizeof *in);
    qn_tab_job *jobs = qn_calloc(jobs_count, sizeof *jobs);
    qn_tab_net *nets = qn_calloc(jobs_count, sizeof *nets);
    qn_result r = in && jobs && nets ? QN_OK : qn_no_memory(jobs_count * sizeof *nets);
    for (size_t i = 0; r == QN_OK && i < count; i++) r = inner_make(&problems[i], o, o->seed, &in[i]);
    for (size_t j = 0; r == QN_OK && j < jobs_count; j++) {
        size_t i = j / each, g = j % each / (size_t)o->folds, f = j % (size_t)o->folds;
        jobs[j] = (qn_tab_job){ .data = problems[i].data,
                                .rows = in[i].rows + (int64_t)f * problems[i].count,
                                .row_count = in[i].count[f], .settings = &o->grid[g],
                                .seed = o->seed + 1000 + f };
    }
    if (r == QN_OK) r = qn_tab_train(dev, jobs, jobs_count, hooks, nets, stopped);
    for (size_t i = 0; r == QN_OK && !*stopped && i < count; i++)
        r = choose(dev, &problems[i], o, &in[i], nets + i * each, &choices[i]);
    for (size_t j = 0; nets && j < jobs_count; j++) qn_tab_net_free(&nets[j]);
    for (size_t i = 0; in && i < count; i++) inner_free(&in[i]);
    qn_free(in);
    qn_free(jobs);
    qn_free(nets);
    return r;
}

static qn_result train_final(qn_device *dev, const qn_tab_problem *problems, size_t count,
                             const qn_tab_fit_opts *o, const qn_tab_hooks *hooks,
                             qn_tab_choice *choices)
{
    size_t seeds = (size_t)o->seeds, jobs_count = count * seeds;
    qn_tab_job *jobs = qn_calloc(jobs_count, sizeof *jobs);
    qn_tab_net *nets = qn_calloc(jobs_count, sizeof *nets);
    bool stopped = false;
    qn_result r = jobs && nets ? QN_OK : qn_no_memory(jobs_count * sizeof *nets);
    for (size_t j = 0; r == QN_OK && j < jobs_count; j++) {
        const qn_tab_problem *p = &problems[j / seeds];
        jobs[j] = (qn_tab_job){ .data = p->data, .rows = p->rows, .row_count = p->count,
                                .settings = &o->grid[choices[j / seeds].chosen],
                                .seed = o->seed + j % seeds };
    }
    if (r == QN_OK) r = qn_tab_train(dev, jobs, jobs_count, hooks, nets, &stopped);
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        choices[i].stopped |= stopped;
        memcpy(choices[i].nets, nets + i * seeds, seeds * sizeof *nets);
    }
    for (size_t j = 0; r != QN_OK && nets && j < jobs_count; j++) qn_tab_net_free(&nets[j]);
    qn_free(jobs);
    qn_free(nets);
    return r;
}

qn_result qn_tab_fit(qn_device *dev, const qn_tab_problem *problems, size_t count,
                     const qn_tab_fit_opts *o, const qn_tab_hooks *hooks, qn_tab_choice *choices)
{
    bool stopped = false;
    qn_result r = QN_OK;
    for (size_t i = 0; i < count; i++) {
        choices[i] = (qn_tab_choice){ .temperature = 1 };
        for (int g = 0; g < QN_TAB_MOST_GRID; g++) choices[i].scores[g] = NAN;
        choices[i].nets = qn_calloc((size_t)o->seeds, sizeof *choices[i].nets);
        if (!choices[i].nets) r = qn_no_memory((size_t)o->seeds * sizeof *choices[i].nets);
    }
    // An inner fit sees (folds - 1) / folds of the rows.
    double inner_work = o->folds ? (double)o->grid_count * (o->folds - 1) : 0;
    relay rel = { .hooks = hooks, .share = inner_work / (inner_work + o->seeds) };
    qn_tab_hooks own = { .progress = relay_progress, .user = &rel };
    const qn_tab_hooks *h = hooks && hooks->progress ? &own : NULL;
    if (r == QN_OK && o->folds)
        r = cross_validate(dev, problems, count, o, h, choices, &stopped);
    rel.from = rel.share;
    rel.share = 1 - rel.from;
    for (size_t i = 0; i < count; i++) choices[i].stopped = stopped;
    if (r == QN_OK && !stopped) r = train_final(dev, problems, count, o, h, choices);
    for (size_t i = 0; r != QN_OK && i < count; i++) qn_tab_choice_free(&choices[i], o->seeds);
    return r;
}
