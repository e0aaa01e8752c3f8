// Expert stacks made anew.
#include "stack.h"
#include "align.h"
#include "fail.h"
#include "mem.h"
#include "random.h"

#include <math.h>
#include <string.h>

// What the makers of one layer's tensors share; lives in the edit.
typedef struct making {
    const qn_brick_model *m;
    const qn_expert_plan *plan;
    const qn_stack_opts *opts;
    qn_brick_kind kind;
    int64_t experts; // of the source
} making;

static qn_random draws(const making *k, const qn_edit_tensor *t, int64_t e)
{
    uint64_t h = 1469598103934665603u;
    for (const char *s = t->name; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return qn_random_start(k->opts->seed, h + (uint64_t)e);
}

static double root_mean_square(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return n ? sqrt(sum / (double)n) : 0;
}

static void add_noise(qn_random rng, float *x, size_t n, double relative)
{
    const double size = relative * root_mean_square(x, n);
    for (size_t i = 0; i < n; i++) x[i] = (float)((double)x[i] + size * qn_random_normal(&rng));
}

// ------------------------------------------------------------------------------ bodies

// in [d, h] or out [h, d] of expert e; rows x columns are its dimensions.
typedef struct body {
    size_t rows, columns;
    bool in;
    const float *source; // the old stack, widened
    const float *in_stack, *out_stack; // both, where experts are averaged
} body;

static qn_result mean_body(const making *k, const body *b, const qn_expert_plan *p, float *out)
{
    const size_t n = b->rows * b->columns;
    const size_t d = b->in ? b->rows : b->columns, h = b->in ? b->columns : b->rows;
    qn_expert *e = qn_malloc((p->count + 1) * sizeof *e);
    float *other = qn_malloc(n * sizeof *other);
    qn_result r = e && other ? QN_OK : qn_no_memory(n * sizeof *other);
    for (size_t i = 0; r == QN_OK && i < p->count; i++)
        e[i] = (qn_expert){ b->in_stack + (size_t)p->members[i] * n,
                            b->out_stack + (size_t)p->members[i] * n };
    if (r == QN_OK)
        r = qn_align_merge(e, p->usage, p->weight, p->count, d, h,
                           p->align && k->kind == QN_BRICK_FFN, b->in ? out : other,
                           b->in ? other : out);
    qn_free(e);
    qn_free(other);
    return r;
}

static qn_result make_body(const making *k, const qn_edit_tensor *t, const body *b, int64_t index,
                           float *out)
{
    const qn_expert_plan *p = &k->plan[index];
    const size_t n = b->rows * b->columns;
    if (p->kind == QN_EXPERT_MEAN) return mean_body(k, b, p, out);
    if (p->kind == QN_EXPERT_RANDOM) {
        qn_random rng = draws(k, t, index);
        const double bound = k->opts->published_init ? 1 / (double)b->rows : 1 / sqrt((double)b->rows);
        for (size_t i = 0; i < n; i++) out[i] = (float)((2 * qn_random_unit(&rng) - 1) * bound);
        return QN_OK;
    }
    memcpy(out, b->source + (size_t)p->from * n, n * sizeof *out);
    if (p->kind == QN_EXPERT_NOISY) add_noise(draws(k, t, index), out, n, 0.01);
    for (size_t i = 0; p->kind == QN_EXPERT_SPLIT && i < n; i++) {
        const size_t unit = b->in ? i % b->columns : i / b->columns;
        if ((int64_t)(unit % (size_t)p->parts) != p->part) out[i] = 0;
    }
    return QN_OK;
}

static bool averages(const making *k, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (k->plan[i].kind == QN_EXPERT_MEAN) return true;
    return false;
}

static qn_result make_stack(void *user, const qn_edit_tensor *t, float *out)
{
    const making *k = user;
    qn_brick_names names;
    qn_brick_names_of(k->m, k->kind, t->layer, 0, &names);
    body b = { .rows = (size_t)t->dim[1], .columns = (size_t)t->dim[2],
               .in = !strcmp(t->name, names.in) };
    float *own = NULL, *other = NULL;
    qn_result r = qn_brick_f32(k->m, t->name, &own);
    if (r == QN_OK && averages(k, t->dim[0]))
        r = qn_brick_f32(k->m, b.in ? names.out : names.in, &other);
    b.source = own;
    b.in_stack = b.in ? own : other;
    b.out_stack = b.in ? other : own;
    for (int64_t e = 0; r == QN_OK && e < t->dim[0]; e++)
        r = make_body(k, t, &b, e, out + (size_t)e * b.rows * b.columns);
    qn_free(own);
    qn_free(other);
    return r;
}

// ------------------------------------------------------------------------------ router

static void make_row(const making *k, const qn_edit_tensor *t, const float *rows, size_t n,
                     int64_t index, float *out)
{
    const qn_expert_plan *p = &k->plan[index];
    if (p->kind == QN_EXPERT_MEAN) {
        double total = 0;
        for (size_t i = 0; i < p->count; i++) total += p->weight[i];
        for (size_t c = 0; c < n; c++) {
            double sum = 0;
            for (size_t i = 0; i < p->count; i++) {
                const double w = total > 0 ? p->weight[i] / total : 1 / (double)p->count;
                sum += w * (double)rows[(size_t)p->members[i] * n + c];
            }
            out[c] = (float)sum;
        }
        if (p->count == 1) memcpy(out, rows + (size_t)p->members[0] * n, n * sizeof *out);
    } else if (p->kind == QN_EXPERT_RANDOM) {
        qn_random rng = draws(k, t, index);
        const double size = root_mean_square(rows, n * (size_t)k->experts); // as large as its peers
        for (size_t c = 0; c < n; c++) out[c] = (float)(size * qn_random_normal(&rng));
    } else {
        memcpy(out, rows + (size_t)p->from * n, n * sizeof *out);
        if (p->kind == QN_EXPERT_NOISY) add_noise(draws(k, t, index), out, n, 0.01);
    }
}

static qn_result make_router(void *user, const qn_edit_tensor *t, float *out)
{
    const making *k = user;
    const size_t n = t->rank > 1 ? (size_t)t->dim[1] : 1;
    float *rows;
    QN_TRY(qn_brick_f32(k->m, t->name, &rows));
    for (int64_t e = 0; e < t->dim[0]; e++) make_row(k, t, rows, n, e, out + (size_t)e * n);
    qn_free(rows);
    return QN_OK;
}

static qn_result replace(qn_edit *e, const char *name, int64_t count, making *k,
                         qn_result (*make)(void *, const qn_edit_tensor *, float *))
{
    qn_edit_tensor *t = qn_edit_find(e, name);
    if (!t) return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", k->m->dir, name);
    if (t->rank < 1 || t->dim[0] != k->experts)
        return qn_fail(QN_ERR_FORMAT, "%s: tensor %s has %lld experts, config.json says %lld",
                       k->m->dir, name, (long long)(t->rank ? t->dim[0] : 0),
                       (long long)k->experts);
    t->dim[0] = count;
    t->make = make;
    t->user = k;
    return QN_OK;
}

qn_result qn_stack_plan(qn_edit *e, const qn_brick_model *m, qn_brick_kind kind, int64_t layer,
                        const qn_expert_plan *plan, int64_t count, const qn_stack_opts *opts)
{
    making *k = qn_edit_keep(e, sizeof *k);
    if (!k) return qn_no_memory(sizeof *k);
    *k = (making){ .m = m, .plan = plan, .opts = opts, .kind = kind,
                   .experts = kind == QN_BRICK_FFN ? m->config.n_mlp_experts
                                                   : m->config.n_att_experts };
    qn_brick_names names;
    qn_brick_names_of(m, kind, layer, 0, &names);
    QN_TRY(replace(e, names.in, count, k, make_stack));
    QN_TRY(replace(e, names.out, count, k, make_stack));
    return replace(e, names.router, count, k, make_router);
}
