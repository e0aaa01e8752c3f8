// Methods on task vectors, the differences of models to their base: thinned out, elected, added up.
#include "method.h"

#include "mem.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t fnv1a(const char *s)
{
    uint32_t h = 0x811C9DC5;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x01000193;
    return h;
}

// Keeps the `kept` largest magnitudes; of equal ones those that come first.
static qn_result keep_top(qn_blend *b, const qn_blend_keys *keys, uint64_t n, uint64_t kept,
                          qn_blend_keep *keep)
{
    *keep = (qn_blend_keep){ .kind = QN_KEEP_KEYS,
                             .low = UINT32_MAX,
                             .high = UINT32_MAX,
                             .high_index = UINT32_MAX,
                             .low_below = true };
    if (kept == 0) return QN_OK; // nothing is above the largest number
    qn_blend_found f;
    QN_TRY(qn_blend_select(b, keys, n - kept, &f));
    uint64_t above = n - f.below - f.equal, index = UINT32_MAX;
    if (f.key && kept - above < f.equal) QN_TRY(qn_blend_locate(b, keys, &f, kept - above, &index));
    keep->low = f.key;
    keep->low_index = (uint32_t)index;
    return QN_OK;
}

// Keeps positions bottom .. n - top - 1 of the magnitudes in ascending order, equal ones in order of
// their index.
static qn_result keep_middle(qn_blend *b, const qn_blend_keys *keys, uint64_t n, uint64_t bottom,
                             uint64_t top, qn_blend_keep *keep)
{
    *keep = (qn_blend_keep){ .kind = QN_KEEP_KEYS, .high = UINT32_MAX, .high_index = UINT32_MAX };
    if (bottom + top >= n) {
        keep->low = UINT32_MAX;
        keep->low_index = UINT32_MAX;
        return QN_OK;
    }
    qn_blend_found f;
    uint64_t index;
    if (bottom > 0) {
        QN_TRY(qn_blend_select(b, keys, bottom, &f));
        keep->low = f.key;
        if (f.key && bottom > f.below) {
            QN_TRY(qn_blend_locate(b, keys, &f, bottom - f.below, &index));
            keep->low_index = (uint32_t)index;
        }
    }
    if (top > 0) {
        QN_TRY(qn_blend_select(b, keys, n - top - 1, &f));
        uint64_t kept = n - top - f.below;
        keep->high = f.key;
        if (f.key && kept < f.equal) {
            QN_TRY(qn_blend_locate(b, keys, &f, kept, &index));
            keep->high_index = (uint32_t)index;
        }
    }
    return QN_OK;
}

// ---------------------------------------------------------------------------------- thinning out

typedef struct thinning {
    const qn_method *method;
    const qn_merge_job *job;
    const qn_merge_input *model;
    size_t index; // in job->models
    size_t order; // among the models beside the base
    int base;
    double density;
    double sums[2]; // L1 before and after, where it came along
} thinning;

// Ranks along an axis that is not the last one, or in rows too wide for the device: by sorting.
typedef struct ranked_element {
    float magnitude;
    uint32_t index;
} ranked_element;

static int by_magnitude(const void *a, const void *b)
{
    const ranked_element *x = a, *y = b;
    if (x->magnitude != y->magnitude) return x->magnitude < y->magnitude ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static qn_result rank_on_host(qn_blend *b, const thinning *t, const qn_blend_random *random,
                              uint64_t ranks, uint64_t stride, size_t mask)
{
    uint64_t n = t->job->count;
    float *d = qn_malloc((size_t)n * sizeof *d);
    ranked_element *row = qn_malloc((size_t)ranks * sizeof *row);
    uint8_t *keep = qn_calloc((size_t)n, 1);
    qn_result r = d && row && keep ? qn_blend_difference(b, t->model->input, t->base, d)
                                   : qn_no_memory((size_t)n * sizeof *d);
    for (uint64_t v = 0; r == QN_OK && v < n / ranks; v++) {
        uint64_t first = v / stride * stride * ranks + v % stride;
        for (uint64_t i = 0; i < ranks; i++)
            row[i] = (ranked_element){ fabsf(d[first + i * stride]), (uint32_t)i };
        qsort(row, (size_t)ranks, sizeof *row, by_magnitude);
        for (uint64_t i = 0; i < ranks; i++) {
            uint64_t e = first + row[i].index * stride;
            uint32_t words[4];
            qn_philox(random->seed, random->stream | (uint64_t)random->model << 32, e / 4, words);
            double u = (words[e % 4] >> 8) * 0x1p-24;
            keep[e] = u < random->lowest + random->slope * (double)i;
        }
    }
    if (r == QN_OK) r = qn_blend_mask_write(b, mask, keep);
    qn_free(d);
    qn_free(row);
    qn_free(keep);
    return r;
}

static qn_result draw(qn_blend *b, thinning *t, size_t mask, qn_blend_keep *keep)
{
    const qn_merge_job *job = t->job;
    qn_blend_random random = { .seed = job->seed,
                               .stream = fnv1a(job->tensor),
                               .model = (uint32_t)t->order,
                               .probability = t->density };
    uint64_t ranks = 1, stride = 1;
    *keep = (qn_blend_keep){ .kind = QN_KEEP_MASK, .mask = mask };
    if (t->method->thin == QN_THIN_RANKED && t->density > 0) {
        double eps = qn_merge_param_of(t->method, &t->model->params, QN_P_EPSILON);
        ranks = job->rank < 2 ? job->count : (uint64_t)job->dim[1];
        for (int i = 2; i < job->rank; i++) stride *= (uint64_t)job->dim[i];
        random.ranked = ranks > 1;
        random.lowest = t->density - eps;
        random.slope = ranks > 1 ? 2 * eps / (double)(ranks - 1) : 0;
        random.row_width = ranks;
    }
    if (job->masks) {
        QN_TRY(qn_blend_mask_write(b, mask, job->masks[t->index]));
    } else if (random.ranked && (stride > 1 || ranks > QN_BLEND_RANKED)) {
        QN_TRY(rank_on_host(b, t, &random, ranks, stride, mask));
    } else {
        return qn_blend_draw(b, t->model->input, t->base, &random, mask, t->sums);
    }
    return qn_blend_l1(b, t->model->input, t->base, keep, t->sums);
}

static qn_result thin(qn_blend *b, thinning *t, size_t mask, qn_blend_keep *keep)
{
    qn_blend_keys keys = { t->model->input, t->base, false };
    uint64_t n = t->job->count;
    *keep = (qn_blend_keep){ 0 };
    if (t->density >= 1 || t->method->thin == QN_THIN_NONE) return QN_OK;
    if (t->method->thin == QN_THIN_TOP)
        return keep_top(b, &keys, n, (uint64_t)(t->density * (double)n), keep);
    if (t->method->thin != QN_THIN_MIDDLE) return draw(b, t, mask, keep);
    double gamma = qn_merge_param_of(t->method, &t->model->params, QN_P_GAMMA);
    int64_t target = (int64_t)(t->density * (double)n), top = (int64_t)(gamma * (double)n);
    int64_t bottom = (int64_t)n - target - top;
    if (bottom < 0) {
        top += bottom;
        bottom = 0;
    }
    return keep_middle(b, &keys, n, (uint64_t)bottom, (uint64_t)top, keep);
}

// The factor that gives what is kept the L1 norm of the whole.
static qn_result rescale(qn_blend *b, const thinning *t, const qn_blend_keep *keep, float *factor)
{
    double sums[2] = { t->sums[0], t->sums[1] };
    if (keep->kind == QN_KEEP_KEYS) QN_TRY(qn_blend_l1(b, t->model->input, t->base, keep, sums));
    *factor = sums[0] < 1e-7 || sums[1] < 1e-7 ? 1 : (float)(sums[0] / sums[1]);
    return QN_OK;
}

static qn_result make_models(qn_blend *b, const qn_method *m, const qn_merge_job *job,
                             qn_blend_task_model *models, double *weights)
{
    bool again = qn_merge_param_of(m, &job->params, QN_P_RESCALE) != 0;
    size_t order = 0;
    *weights = 0;
    for (size_t i = 0; i < job->model_count; i++) {
        if ((int)i == job->base) continue;
        const qn_merge_input *x = &job->models[i];
        thinning t = { m,
                       job,
                       x,
                       i,
                       order,
                       job->models[job->base].input,
                       qn_merge_param_of(m, &x->params, QN_P_DENSITY),
                       { 0 } };
        double w = qn_merge_param_of(m, &x->params, QN_P_WEIGHT);
        qn_blend_task_model *out = &models[order];
        *out = (qn_blend_task_model){ x->input, (float)w, (float)w, 1, { 0 } };
        QN_TRY(thin(b, &t, order, &out->keep));
        if (again && out->keep.kind != QN_KEEP_ALL) QN_TRY(rescale(b, &t, &out->keep, &out->scale));
        *weights += w;
        order++;
    }
    return QN_OK;
}

qn_result qn_method_task(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    int base = job->models[job->base].input;
    size_t count = job->model_count - 1;
    if (count == 0) return qn_method_copy(b, base, 1);
    qn_blend_task_model *models = qn_calloc(count, sizeof *models);
    if (!models) return qn_no_memory(count * sizeof *models);
    double weights, lambda = qn_merge_param_of(m, &job->params, QN_P_LAMBDA);
    bool normalize = qn_merge_param_of(m, &job->params, QN_P_NORMALIZE) != 0;
    qn_result r = QN_OK;
    if (m->thin == QN_THIN_RANDOM || m->thin == QN_THIN_RANKED) r = qn_blend_masks(b, count);
    if (r == QN_OK) r = make_models(b, m, job, models, &weights);
    if (r == QN_OK) {
        if (normalize && !m->signs) lambda /= fabs(weights) < 1e-8 ? 1 : weights;
        r = qn_blend_task(
            b, &(qn_blend_task_opts){
                   .base = base,
                   .models = models,
                   .count = count,
                   .lambda = (float)lambda,
                   .signs = m->signs,
                   .divide = normalize && m->signs ? QN_DIVIDE_ZERO_IS_ONE : QN_DIVIDE_NONE,
               });
    }
    qn_free(models);
    return r;
}

// ---------------------------------------------------------------------------------- sce

// The positions where models differ most: a mask in place 0. *any is false when none is left.
static qn_result sce_positions(qn_blend *b, const qn_merge_job *job, const int *inputs,
                               size_t count, double share, bool *any)
{
    qn_blend_keys keys = { .plane = true };
    qn_blend_found zero;
    qn_blend_keep keep;
    QN_TRY(qn_blend_masks(b, 1));
    QN_TRY(qn_blend_variance(b, inputs, count, job->models[job->base].input));
    QN_TRY(qn_blend_select(b, &keys, 0, &zero));
    uint64_t filled = job->count - (zero.key ? 0 : zero.equal);
    uint64_t kept = share > 0 ? (uint64_t)((float)filled * (float)share) : 0;
    *any = kept > 0;
    if (!kept) return QN_OK;
    QN_TRY(keep_top(b, &keys, job->count, kept, &keep));
    return qn_blend_mark(b, &keys, &keep, 0);
}

// The weight of each model: the mean square of its difference, as a share of all.
static qn_result sce_weights(qn_blend *b, const qn_merge_job *job, qn_blend_task_model *models,
                             size_t count)
{
    double *q = qn_malloc(count * sizeof *q), sum = 0;
    if (!q) return qn_no_memory(count * sizeof *q);
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        r = qn_blend_squares(b, models[i].input, job->models[job->base].input, &models[i].keep,
                             &q[i]);
        if (r == QN_OK) sum += q[i] /= (double)job->count;
    }
    for (size_t i = 0; r == QN_OK && i < count; i++)
        models[i].weight = (float)(sum < 1e-6 ? 1.0 / (double)count : q[i] / sum);
    qn_free(q);
    return r;
}

qn_result qn_method_sce(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    int base = job->models[job->base].input;
    size_t count = job->model_count - 1, k = 0;
    if (count == 0) return qn_method_copy(b, base, 1);
    double share = qn_merge_param_of(m, &job->params, QN_P_SELECT_TOPK);
    qn_blend_task_model *models = qn_calloc(count, sizeof *models);
    int *inputs = qn_malloc(count * sizeof *inputs);
    qn_result r = models && inputs ? QN_OK : qn_no_memory(count * sizeof *models);
    for (size_t i = 0; r == QN_OK && i < job->model_count; i++)
        if ((int)i != job->base) inputs[k++] = job->models[i].input;
    bool any = true;
    if (r == QN_OK && share < 1) r = sce_positions(b, job, inputs, count, share, &any);
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        models[i] = (qn_blend_task_model){ inputs[i], 1, 0, 1, { 0 } };
        if (share < 1) models[i].keep.kind = QN_KEEP_MASK;
    }
    if (r == QN_OK && any) r = sce_weights(b, job, models, count);
    if (r == QN_OK && !any)
        r = qn_method_copy(b, base, 1);
    else if (r == QN_OK)
        r = qn_blend_task(b, &(qn_blend_task_opts){ .base = base,
                                                    .models = models,
                                                    .count = count,
                                                    .lambda = 1,
                                                    .signs = true,
                                                    .divide = QN_DIVIDE_AT_LEAST });
    qn_free(models);
    qn_free(inputs);
    return r;
}

// ---------------------------------------------------------------------------------- arcee_fusion

static float of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// The bits of the smallest f32 that is not below x >= 0.
static uint32_t bits_from(double x)
{
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (double)f < x ? bits + 1 : bits;
}

qn_result qn_method_arcee(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    (void)m;
    if (job->model_count == 1) return qn_method_copy(b, job->models[0].input, 1);
    int base = job->models[job->base].input, x = job->models[1 - job->base].input;
    uint64_t width = job->rank ? (uint64_t)job->dim[job->rank - 1] : 1, rows = job->count / width;
    float *factors = qn_malloc((size_t)rows * sizeof *factors);
    if (!factors) return qn_no_memory((size_t)rows * sizeof *factors);
    qn_result r = qn_blend_divergence(b, x, base, factors);
    if (r == QN_OK) r = qn_blend_importance(b, x, base, factors);
    qn_free(factors);
    QN_TRY(r);
    static const double quarters[] = { 0.25, 0.5, 0.75 };
    double at[3];
    qn_blend_keys keys = { .plane = true };
    for (int i = 0; i < 3; i++) {
        qn_blend_found f;
        QN_TRY(qn_blend_select(b, &keys, (uint64_t)(quarters[i] * (double)(job->count - 1)), &f));
        at[i] = (double)of_bits(f.key);
    }
    qn_blend_keep keep = { .kind = QN_KEEP_KEYS,
                           .low = bits_from(at[1] + 1.5 * (at[2] - at[0])),
                           .high = UINT32_MAX,
                           .high_index = UINT32_MAX };
    QN_TRY(qn_blend_masks(b, 1));
    QN_TRY(qn_blend_mark(b, &keys, &keep, 0));
    qn_blend_task_model model = { x, 1, 1, 1, { .kind = QN_KEEP_MASK } };
    return qn_blend_task(
        b, &(qn_blend_task_opts){ .base = base, .models = &model, .count = 1, .lambda = 1 });
}

// ---------------------------------------------------------------------------------- ram

qn_result qn_method_ram(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    int base = job->models[job->base].input;
    size_t count = job->model_count - 1, k = 0;
    if (count == 0) return qn_method_copy(b, base, 1);
    double epsilon = qn_merge_param_of(m, &job->params, QN_P_EPSILON);
    int *inputs = qn_malloc(count * sizeof *inputs);
    float *factors = qn_malloc(count * sizeof *factors);
    qn_result r = inputs && factors ? QN_OK : qn_no_memory(count * sizeof *inputs);
    for (size_t i = 0; r == QN_OK && i < job->model_count; i++)
        if ((int)i != job->base) inputs[k++] = job->models[i].input;
    if (r == QN_OK) r = qn_blend_hits(b, inputs, count, base, (float)epsilon);
    bool plus = qn_method_takes(m, QN_P_ALPHA) != NULL;
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        double sums[2]; // shared, unique
        factors[i] = 1;
        if (!plus) continue;
        r = qn_blend_shared(b, inputs[i], base, (float)epsilon, sums);
        double ratio = sums[0] / fmax(sums[1], epsilon);
        double most = qn_merge_param_of(m, &job->params, QN_P_ALPHA);
        factors[i] = (float)(1 + qn_merge_param_of(m, &job->params, QN_P_R) * fmin(ratio, most));
    }
    if (r == QN_OK) r = qn_blend_ram(b, inputs, factors, count, base, (float)epsilon);
    qn_free(inputs);
    qn_free(factors);
    return r;
}
