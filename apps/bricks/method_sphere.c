// Weighted sums whose weights come from lengths and angles: everything these methods need to know
// of the tensors are their products with each other, and all they do is to add them up.
#include "method.h"

#include "mem.h"

#include <math.h>
#include <string.h>

#define ANGLE 3.5e-4 // a sine that f32 cannot tell from zero

// y = sum c_m x_m over inputs of the job; the largest coefficient becomes the pivot, so that equal
// tensors and weights of 0 and 1 give what they should to the bit.
static qn_result combine(qn_blend *b, const qn_merge_job *job, const double *c)
{
    size_t n = job->model_count, pivot = 0;
    float *coefs = qn_malloc(n * sizeof *coefs);
    int *inputs = qn_malloc(n * sizeof *inputs);
    qn_result r = coefs && inputs ? QN_OK : qn_no_memory(n * sizeof *coefs);
    double sum = 0;
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        sum += c[i];
        if (fabs(c[i]) > fabs(c[pivot])) pivot = i;
    }
    size_t count = 0;
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        if (i == pivot || c[i] == 0) continue;
        inputs[count] = job->models[i].input;
        coefs[++count] = (float)c[i];
    }
    if (r == QN_OK) {
        coefs[0] = (float)sum;
        r = qn_blend_mix(b, &(qn_blend_mix_opts){ .pivot = job->models[pivot].input,
                                                  .inputs = inputs,
                                                  .count = count,
                                                  .coefs = coefs });
    }
    qn_free(coefs);
    qn_free(inputs);
    return r;
}

qn_result qn_method_linear(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    double *c = qn_malloc(job->model_count * sizeof *c), sum = 0;
    if (!c) return qn_no_memory(job->model_count * sizeof *c);
    for (size_t i = 0; i < job->model_count; i++)
        sum += c[i] = qn_merge_param_of(m, &job->models[i].params, QN_P_WEIGHT);
    if (qn_merge_param_of(m, &job->params, QN_P_NORMALIZE) != 0)
        for (size_t i = 0; i < job->model_count; i++) c[i] = sum != 0 ? c[i] / sum : 1;
    qn_result r = combine(b, job, c);
    qn_free(c);
    return r;
}

qn_result qn_method_passthrough(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    return qn_method_copy(b, job->models[0].input,
                          qn_merge_param_of(m, &job->models[0].params, QN_P_SCALE));
}

// Coefficients of the arc from the first to the second vector.
static void arc(double t, double cosine, double a[2])
{
    double theta = acos(fmin(1, fmax(-1, cosine))), s = sin(theta);
    a[0] = sin((1 - t) * theta) / s;
    a[1] = sin(t * theta) / s;
}

qn_result qn_method_slerp(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    if (job->model_count == 1) return qn_method_copy(b, job->models[0].input, 1);
    double t = qn_merge_param_of(m, &job->params, QN_P_T), g[3], a[2] = { 1 - t, t }, c[2];
    int base = job->base, other = 1 - base;
    QN_TRY(qn_blend_gram(b, job->models[base].input, job->models[other].input, QN_BLEND_NONE,
                         QN_BLEND_WHOLE, g));
    double n0 = sqrt(g[0]), n1 = sqrt(g[2]);
    double cosine = g[1] / ((n0 > 1e-8 ? n0 : 1) * (n1 > 1e-8 ? n1 : 1));
    if (fabs(cosine) <= 0.9995) arc(t, cosine, a);
    c[base] = a[0];
    c[other] = a[1];
    return combine(b, job, c);
}

// ---------------------------------------------------------------------------------- nuslerp

static void nuslerp_pair(double t, const double g[3], double a[2])
{
    double cosine = g[1] / (fmax(sqrt(g[0]), 1e-7) * fmax(sqrt(g[2]), 1e-7));
    cosine = fmin(1, fmax(-1, cosine));
    a[0] = 1 - t;
    a[1] = t;
    if (fabs(sin(acos(cosine))) >= ANGLE) arc(t, cosine, a);
}

static uint64_t vectors_of(const qn_merge_job *job, qn_blend_spread spread)
{
    uint64_t last = job->rank ? (uint64_t)job->dim[job->rank - 1] : 1;
    if (spread == QN_BLEND_WHOLE) return 1;
    return spread == QN_BLEND_ROWS ? job->count / last : job->count / (uint64_t)job->dim[0];
}

qn_result qn_method_nuslerp(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    int base = job->base < 0 ? QN_BLEND_NONE : job->models[job->base].input;
    const qn_merge_input *two[2];
    size_t count = 0;
    for (size_t i = 0; i < job->model_count; i++)
        if ((int)i != job->base && count < 2) two[count++] = &job->models[i];
    if (job->model_count == 1) return qn_method_copy(b, job->models[0].input, 1);
    if (count != 2)
        return qn_fail(QN_ERR_INVALID, "nuslerp takes two models besides the base, found %zu",
                       count);
    double w0 = qn_merge_param_of(m, &two[0]->params, QN_P_WEIGHT);
    double w1 = qn_merge_param_of(m, &two[1]->params, QN_P_WEIGHT);
    double t = fabs(w0 + w1) < 1e-6 ? 0.5 : w1 / (w0 + w1);
    qn_blend_spread spread = QN_BLEND_WHOLE;
    if (qn_merge_param_of(m, &job->params, QN_P_NUSLERP_FLATTEN) == 0 && job->rank > 1)
        spread = qn_merge_param_of(m, &job->params, QN_P_NUSLERP_ROW_WISE) != 0 ? QN_BLEND_COLUMNS
                                                                                : QN_BLEND_ROWS;
    size_t n = (size_t)vectors_of(job, spread);
    double *g = qn_malloc(n * 3 * sizeof *g);
    float *coefs = qn_malloc(n * 3 * sizeof *coefs);
    qn_result r = g && coefs ? qn_blend_gram(b, two[0]->input, two[1]->input, base, spread, g)
                             : qn_no_memory(n * 3 * sizeof *g);
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        double a[2];
        nuslerp_pair(t, g + 3 * i, a);
        if (base >= 0) { // around the base
            coefs[3 * i] = 1;
            coefs[3 * i + 1] = (float)a[0];
            coefs[3 * i + 2] = (float)a[1];
        } else { // around the first
            coefs[2 * i] = (float)(a[0] + a[1]);
            coefs[2 * i + 1] = (float)a[1];
        }
    }
    int inputs[2] = { two[0]->input, two[1]->input };
    if (r == QN_OK)
        r = qn_blend_mix(b, &(qn_blend_mix_opts){ .pivot = base >= 0 ? base : inputs[0],
                                                  .inputs = base >= 0 ? inputs : inputs + 1,
                                                  .count = base >= 0 ? 2 : 1,
                                                  .spread = spread,
                                                  .coefs = coefs });
    qn_free(g);
    qn_free(coefs);
    return r;
}

// ---------------------------------------------------------------------------------- many models

// The vectors x_m (or x_m - base) in coordinates: lengths, and unit vectors as the rows of a lower
// triangular matrix [n, n], whose products are those of the vectors.
typedef struct sphere {
    size_t n;
    double *length, *unit;
    const qn_merge_input **models;
    double *at, *sum, *weight, *tangent; // [n] each: a point and a sum in coordinates, coefficients
} sphere;

static void sphere_free(sphere *s)
{
    qn_free(s->length);
    qn_free(s->models);
}

static qn_result sphere_gram(qn_blend *b, sphere *s, int base)
{
    for (size_t i = 0; i < s->n; i++)
        for (size_t j = 0; j <= i; j++) {
            if (j == i && s->n > 1) continue; // comes with the products
            double g[3];
            QN_TRY(qn_blend_gram(b, s->models[i]->input, s->models[j]->input, base, QN_BLEND_WHOLE,
                                 g));
            s->length[i] = sqrt(g[0]);
            s->length[j] = sqrt(g[2]);
            s->unit[i * s->n + j] = g[1];
        }
    return QN_OK;
}

// Cholesky's method on the cosines; a vector that depends on those before it gets no new direction.
static void sphere_coordinates(sphere *s, double tiny)
{
    for (size_t i = 0; i < s->n; i++) {
        double *row = s->unit + i * s->n, left = 1;
        for (size_t j = 0; j < i; j++) {
            const double *other = s->unit + j * s->n;
            bool live = s->length[i] > tiny && s->length[j] > tiny;
            double c = live ? row[j] / (s->length[i] * s->length[j]) : 0;
            for (size_t k = 0; k < j; k++) c -= row[k] * other[k];
            row[j] = other[j] > 1e-12 ? c / other[j] : 0;
            left -= row[j] * row[j];
        }
        row[i] = left > 0 ? sqrt(left) : 0;
        double norm = 0;
        for (size_t k = 0; k <= i; k++) norm += row[k] * row[k];
        for (size_t k = 0; k <= i; k++) row[k] /= sqrt(norm);
    }
}

static qn_result sphere_make(qn_blend *b, const qn_merge_job *job, int base, double tiny, sphere *s)
{
    *s = (sphere){ 0 };
    size_t most = job->model_count;
    s->models = qn_malloc(most * sizeof *s->models);
    s->length = qn_calloc(most * (most + 5), sizeof(double));
    if (!s->models || !s->length) return qn_no_memory(most * (most + 5) * sizeof(double));
    for (size_t i = 0; i < most; i++)
        if ((int)i != base) s->models[s->n++] = &job->models[i];
    s->unit = s->length + most;
    s->at = s->unit + most * most;
    s->sum = s->at + most;
    s->weight = s->sum + most;
    s->tangent = s->weight + most;
    QN_TRY(sphere_gram(b, s, base < 0 ? QN_BLEND_NONE : job->models[base].input));
    sphere_coordinates(s, tiny);
    return QN_OK;
}

static double dot(const double *a, const double *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void scale(double *a, double f, size_t n)
{
    for (size_t i = 0; i < n; i++) a[i] *= f;
}

static void add(double *a, double f, const double *b, size_t n)
{
    for (size_t i = 0; i < n; i++) a[i] += f * b[i];
}

// One step of the mean on the sphere: the tangent at s->at, in coordinates (sum) and as weights of
// the unit vectors (tangent). Returns its length.
static double karcher_tangent(sphere *s, double tol, double share)
{
    size_t n = s->n;
    memset(s->sum, 0, n * sizeof *s->sum);
    memset(s->tangent, 0, n * sizeof *s->tangent);
    for (size_t i = 0; i < n; i++) {
        if (s->length[i] <= tol) continue;
        const double *u = s->unit + i * n;
        double c = fmin(1, fmax(-1, dot(s->at, u, n))), theta = acos(c);
        if (theta < fmax(tol, ANGLE)) continue;
        double f = share * theta / sin(theta);
        add(s->sum, f, u, n);
        add(s->sum, -f * c, s->at, n);
        add(s->tangent, -f * c, s->weight, n);
        s->tangent[i] += f;
    }
    return sqrt(dot(s->sum, s->sum, n));
}

static void karcher_mean(sphere *s, int most, double tol)
{
    size_t n = s->n, live = 0, first = 0;
    for (size_t i = n; i-- > 0;)
        if (s->length[i] > tol) {
            live++;
            first = i;
        }
    double share = 1.0 / (double)live;
    for (size_t i = 0; i < n; i++) {
        s->weight[i] = s->length[i] > tol ? share : 0;
        if (s->weight[i] > 0) add(s->at, share, s->unit + i * n, n);
    }
    double norm = sqrt(dot(s->at, s->at, n));
    if (norm < tol) {
        memcpy(s->at, s->unit + first * n, n * sizeof *s->at);
        memset(s->weight, 0, n * sizeof *s->weight);
        s->weight[first] = norm = 1;
    }
    scale(s->at, 1 / norm, n);
    scale(s->weight, 1 / norm, n);
    for (int k = 0; k < most; k++) {
        double t = karcher_tangent(s, tol, share);
        if (t < tol) break;
        scale(s->at, cos(t), n);
        scale(s->weight, cos(t), n);
        add(s->at, sin(t) / t, s->sum, n);
        add(s->weight, sin(t) / t, s->tangent, n);
        norm = sqrt(dot(s->at, s->at, n));
        if (norm > tol) {
            scale(s->at, 1 / norm, n);
            scale(s->weight, 1 / norm, n);
        }
    }
}

qn_result qn_method_karcher(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    if (job->model_count == 1) return qn_method_copy(b, job->models[0].input, 1);
    double tol = qn_merge_param_of(m, &job->params, QN_P_TOL), total = 0, live = 0;
    sphere s;
    qn_result r = sphere_make(b, job, -1, tol, &s);
    for (size_t i = 0; r == QN_OK && i < s.n; i++) {
        total += s.length[i];
        live += s.length[i] > tol;
    }
    if (r == QN_OK && live > 0)
        karcher_mean(&s, (int)qn_merge_param_of(m, &job->params, QN_P_MAX_ITER), tol);
    for (size_t i = 0; r == QN_OK && i < s.n; i++) {
        double weight = live > 0 ? s.weight[i] : 0;
        s.tangent[i] = weight == 0 ? 0 : weight * total / (double)s.n / s.length[i];
    }
    if (r == QN_OK) r = combine(b, job, s.tangent);
    sphere_free(&s);
    return r;
}

// The weights of u_m = x_m / (|x_m| + eps), then of x_m, in s->tangent.
static qn_result multislerp_weights(sphere *s, const double *w, double eps)
{
    size_t n = s->n;
    double lengths = 0;
    for (size_t i = 0; i < n; i++) {
        double unit = s->length[i] / (s->length[i] + eps); // of u_m
        add(s->at, w[i] * unit, s->unit + i * n, n);
        s->weight[i] = w[i];
        lengths += w[i] * s->length[i];
    }
    double norm = sqrt(dot(s->at, s->at, n));
    if (norm < eps) {
        if (n != 2)
            return qn_fail(QN_ERR_INVALID, "multislerp: the weighted directions cancel each other");
        memcpy(s->tangent, w, n * sizeof *w);
        return QN_OK;
    }
    scale(s->at, 1 / norm, n);
    scale(s->weight, 1 / norm, n);
    for (size_t i = 0; i < n; i++) {
        const double *u = s->unit + i * n;
        double unit = s->length[i] / (s->length[i] + eps), c = unit * dot(u, s->at, n);
        add(s->sum, w[i] * unit, u, n);
        add(s->sum, -w[i] * c, s->at, n);
        s->tangent[i] += w[i];
        add(s->tangent, -w[i] * c, s->weight, n);
    }
    double t = sqrt(dot(s->sum, s->sum, n)) + eps;
    for (size_t i = 0; i < n; i++) {
        double c = s->weight[i] * cos(t) + s->tangent[i] * sin(t) / t;
        s->tangent[i] = c * lengths / (s->length[i] + eps);
    }
    return QN_OK;
}

// y = base + sum c_m (x_m - base) over the models of the sphere.
static qn_result around_base(qn_blend *b, const qn_merge_job *job, const sphere *s, const double *c)
{
    float *coefs = qn_malloc((s->n + 1) * sizeof *coefs);
    int *inputs = qn_malloc(s->n * sizeof *inputs);
    qn_result r = coefs && inputs ? QN_OK : qn_no_memory(s->n * sizeof *coefs);
    if (r == QN_OK) {
        coefs[0] = 1;
        for (size_t i = 0; i < s->n; i++) {
            coefs[i + 1] = (float)c[i];
            inputs[i] = s->models[i]->input;
        }
        r = qn_blend_mix(b, &(qn_blend_mix_opts){ .pivot = job->models[job->base].input,
                                                  .inputs = inputs,
                                                  .count = s->n,
                                                  .coefs = coefs });
    }
    qn_free(coefs);
    qn_free(inputs);
    return r;
}

qn_result qn_method_multislerp(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    if (job->model_count - (job->base >= 0) == 1) // that model, with or without a base
        return qn_method_copy(b, job->models[job->base == 0 ? 1 : 0].input, 1);
    if (job->model_count == 1) return qn_method_copy(b, job->models[0].input, 1);
    sphere s;
    double *w = qn_malloc(job->model_count * sizeof *w), sum = 0;
    qn_result r = sphere_make(b, job, job->base, 0, &s);
    if (!w) r = qn_no_memory(job->model_count * sizeof *w);
    for (size_t i = 0; r == QN_OK && i < s.n; i++)
        sum += w[i] = qn_merge_param_of(m, &s.models[i]->params, QN_P_WEIGHT);
    if (r == QN_OK && qn_merge_param_of(m, &job->params, QN_P_NORMALIZE_WEIGHTS) != 0) {
        if (sum == 0) r = qn_fail(QN_ERR_INVALID, "multislerp: the weights add up to 0");
        scale(w, 1 / sum, s.n);
    }
    if (r == QN_OK) r = multislerp_weights(&s, w, qn_merge_param_of(m, &job->params, QN_P_EPS));
    if (r == QN_OK)
        r = job->base < 0 ? combine(b, job, s.tangent) : around_base(b, job, &s, s.tangent);
    qn_free(w);
    sphere_free(&s);
    return r;
}

// ---------------------------------------------------------------------------------- model stock

// Adds the cosines of one pair to the sum of every vector.
static qn_result stock_pair(qn_blend *b, int x, int z, int base, qn_blend_spread spread, size_t n,
                            double *g, double *cosines)
{
    QN_TRY(qn_blend_gram(b, x, z, base, spread, g));
    for (size_t i = 0; i < n; i++) {
        const double *v = g + 3 * i;
        double c = v[1] / fmax(sqrt(v[0]) * sqrt(v[2]), 1e-6);
        cosines[i] += fmin(1, fmax(-1, c));
    }
    return QN_OK;
}

static void stock_coefs(size_t models, double cosine, float *coefs)
{
    double n = (double)models, below = 1 + (n - 1) * cosine;
    if (below < 1e-6)
        qn_log(QN_LOG_WARN,
               "model_stock: models that point away from each other; the base is kept");
    double t = below < 1e-6 ? 0 : n * cosine / below;
    coefs[0] = 1;
    for (size_t i = 0; i < models; i++) coefs[1 + i] = (float)(t / n);
}

qn_result qn_method_model_stock(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    int base = job->models[job->base].input;
    size_t models = job->model_count - 1, pairs = models * (models - 1) / 2;
    if (models == 0) return qn_method_copy(b, base, 1);
    qn_blend_spread spread = QN_BLEND_WHOLE;
    if (qn_merge_param_of(m, &job->params, QN_P_FILTER_WISE) != 0 && job->rank > 1)
        spread = QN_BLEND_ROWS;
    size_t n = (size_t)vectors_of(job, spread);
    double *g = qn_malloc(n * 3 * sizeof *g), *cosines = qn_calloc(n, sizeof *cosines);
    float *coefs = qn_malloc(n * (models + 1) * sizeof *coefs);
    int *inputs = qn_malloc(models * sizeof *inputs);
    qn_result r = g && cosines && coefs && inputs ? QN_OK : qn_no_memory(n * 3 * sizeof *g);
    if (r == QN_OK)
        for (size_t i = 0, k = 0; i < job->model_count; i++)
            if ((int)i != job->base) inputs[k++] = job->models[i].input;
    for (size_t i = 0; r == QN_OK && i < models; i++)
        for (size_t j = i + 1; r == QN_OK && j < models; j++)
            r = stock_pair(b, inputs[i], inputs[j], base, spread, n, g, cosines);
    for (size_t i = 0; r == QN_OK && i < n; i++)
        stock_coefs(models, cosines[i] / (double)pairs, coefs + i * (models + 1));
    if (r == QN_OK)
        r = qn_blend_mix(b, &(qn_blend_mix_opts){ .pivot = base,
                                                  .inputs = inputs,
                                                  .count = models,
                                                  .spread = spread,
                                                  .coefs = coefs });
    qn_free(g);
    qn_free(cosines);
    qn_free(coefs);
    qn_free(inputs);
    return r;
}

qn_result qn_method_nearswap(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    if (job->model_count == 1) return qn_method_copy(b, job->models[0].input, 1);
    float coefs[2] = { 1, (float)qn_merge_param_of(m, &job->params, QN_P_T) };
    return qn_blend_mix(b, &(qn_blend_mix_opts){ .pivot = job->models[job->base].input,
                                                 .inputs = &job->models[1 - job->base].input,
                                                 .count = 1,
                                                 .coefs = coefs,
                                                 .near_swap = true });
}
