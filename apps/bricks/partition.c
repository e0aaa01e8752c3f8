// Groups of neurons in trained feed-forward blocks.
#include "partition.h"
#include "fail.h"
#include "groups.h"
#include "mem.h"
#include "random.h"

#include <math.h>
#include <string.h>

// Rows of what the neurons of one matrix read; stacks are stored the other way round.
static qn_result rows_of(const qn_brick_model *m, const char *name, float **out)
{
    const size_t F = (size_t)m->hidden, d = (size_t)m->width;
    const qn_safetensor *t;
    QN_TRY(qn_brick_tensor(m, name, &t));
    if (t->count != F * d)
        return qn_fail(QN_ERR_FORMAT, "%s: tensor %s has not the %zu x %zu numbers that config.json "
                                      "asks for", m->dir, name, F, d);
    float *x;
    QN_TRY(qn_brick_f32(m, name, &x));
    if (!m->moduleformer) {
        *out = x;
        return QN_OK;
    }
    float *rows = qn_malloc(F * d * sizeof *rows);
    for (size_t i = 0; rows && i < F * d; i++) rows[i] = x[i % d * F + i / d];
    qn_free(x);
    *out = rows;
    return rows ? QN_OK : qn_no_memory(F * d * sizeof *rows);
}

qn_result qn_partition_features(const qn_brick_model *m, int64_t layer, qn_features which,
                                float **out, size_t *width)
{
    qn_brick_names n;
    const size_t F = (size_t)m->hidden, d = (size_t)m->width;
    qn_brick_names_of(m, QN_BRICK_FFN, layer, 0, &n);
    if (!*n.gate) which = QN_FEATURES_IN;
    *width = d;
    if (which != QN_FEATURES_BOTH) return rows_of(m, which == QN_FEATURES_IN ? n.in : n.gate, out);
    float *a = NULL, *b = NULL, *both = qn_malloc(2 * F * d * sizeof *both);
    qn_result r = both ? rows_of(m, n.gate, &a) : qn_no_memory(2 * F * d * sizeof *both);
    if (r == QN_OK) r = rows_of(m, n.in, &b);
    for (size_t i = 0; r == QN_OK && i < F; i++) {
        memcpy(both + i * 2 * d, a + i * d, d * sizeof *both);
        memcpy(both + i * 2 * d + d, b + i * d, d * sizeof *both);
    }
    qn_free(a);
    qn_free(b);
    *width = 2 * d;
    if (r == QN_OK)
        *out = both;
    else
        qn_free(both);
    return r;
}

void qn_partition_free(qn_partition_layer *l)
{
    qn_free(l->labels);
    qn_free(l->perm);
    qn_free(l->centre);
    *l = (qn_partition_layer){ 0 };
}

static double random_objective(const double *x, size_t n, size_t d, size_t groups, uint64_t seed,
                               int32_t *labels)
{
    for (size_t i = 0; i < n; i++) labels[i] = (int32_t)(qn_permute(i, n, seed) % groups);
    return qn_groups_objective(x, n, d, labels, groups);
}

qn_result qn_partition_kmeans(const qn_brick_model *m, int64_t layer, qn_features which, size_t groups,
                              uint64_t seed, qn_partition_layer *out)
{
    const size_t F = (size_t)m->hidden;
    float *rows = NULL;
    double *x = NULL;
    qn_partition_layer l = { 0 };
    qn_result r = qn_partition_features(m, layer, which, &rows, &l.width);
    if (r == QN_OK) r = qn_groups_features(rows, F, l.width, &x);
    qn_free(rows);
    if (r == QN_OK) {
        l.labels = qn_malloc(F * sizeof *l.labels);
        l.perm = qn_malloc(F * sizeof *l.perm);
        l.centre = qn_calloc(groups * l.width + 1, sizeof *l.centre);
        if (!l.labels || !l.perm || !l.centre) r = qn_no_memory(F * sizeof *l.labels);
    }
    if (r == QN_OK) {
        l.random = random_objective(x, F, l.width, groups, seed, l.labels);
        r = qn_groups_kmeans(x, F, l.width, &(qn_groups_opts){ .groups = groups }, l.labels,
                             &l.objective);
    }
    if (r == QN_OK) qn_groups_order(l.labels, F, groups, l.perm);
    const double size = groups ? (double)F / (double)groups : 1;
    for (size_t i = 0; r == QN_OK && i < F; i++)
        for (size_t k = 0; k < l.width; k++)
            l.centre[(size_t)l.labels[i] * l.width + k] += (float)(x[i * l.width + k] / size);
    qn_free(x);
    if (r == QN_OK)
        *out = l;
    else
        qn_partition_free(&l);
    return r;
}

// ------------------------------------------------------------------------------ router

// Adam on the binary cross-entropy of sigmoid(z) against s / (largest s of the batch).
typedef struct router {
    size_t d, K;
    double *w1, *w2, *m, *v, *g; // moments and gradients: w1 and w2 behind each other
    double *hidden, *z, *dz, *unit;
    int64_t step;
} router;

static void unit_of(const float *x, size_t d, double *out)
{
    double sum = 0;
    for (size_t i = 0; i < d; i++) sum += (double)x[i] * (double)x[i];
    const double norm = sum > 0 ? sqrt(sum) : 1;
    for (size_t i = 0; i < d; i++) out[i] = (double)x[i] / norm;
}

static void forward(router *r, const float *x)
{
    unit_of(x, r->d, r->unit);
    for (size_t k = 0; k < r->K; k++) {
        double sum = 0;
        for (size_t i = 0; i < r->d; i++) sum += r->w1[k * r->d + i] * r->unit[i];
        r->hidden[k] = tanh(sum);
    }
    for (size_t k = 0; k < r->K; k++) {
        r->z[k] = 0;
        for (size_t j = 0; j < r->K; j++) r->z[k] += r->w2[k * r->K + j] * r->hidden[j];
    }
}

// The loss of one token; with `learn` its gradient is added.
static double one_token(router *r, const float *x, const float *scores, double most, bool learn)
{
    double loss = 0;
    forward(r, x);
    for (size_t k = 0; k < r->K; k++) {
        const double y = most > 0 ? (double)scores[k] / most : 0, z = r->z[k];
        loss += (z > 0 ? z : 0) - z * y + log1p(exp(-fabs(z)));
        r->dz[k] = 1 / (1 + exp(-z)) - y;
    }
    double *g1 = r->g, *g2 = r->g + r->K * r->d;
    for (size_t j = 0; learn && j < r->K; j++) {
        double dh = 0;
        for (size_t k = 0; k < r->K; k++) {
            dh += r->dz[k] * r->w2[k * r->K + j];
            g2[k * r->K + j] += r->dz[k] * r->hidden[j];
        }
        dh *= 1 - r->hidden[j] * r->hidden[j];
        for (size_t i = 0; i < r->d; i++) g1[j * r->d + i] += dh * r->unit[i];
    }
    return loss;
}

static void adam(router *r, double count)
{
    const double rate = 0.01, b1 = 0.9, b2 = 0.999;
    const size_t n1 = r->K * r->d, n = n1 + r->K * r->K;
    r->step++;
    for (size_t i = 0; i < n; i++) {
        const double g = r->g[i] / count;
        r->m[i] = b1 * r->m[i] + (1 - b1) * g;
        r->v[i] = b2 * r->v[i] + (1 - b2) * g * g;
        const double step = rate * (r->m[i] / (1 - pow(b1, (double)r->step))) /
                            (sqrt(r->v[i] / (1 - pow(b2, (double)r->step))) + 1e-8);
        *(i < n1 ? &r->w1[i] : &r->w2[i - n1]) -= step;
        r->g[i] = 0;
    }
}

static double largest(const float *scores, size_t n, size_t K, const uint32_t *order, size_t first)
{
    double most = 0;
    for (size_t t = 0; t < n; t++)
        for (size_t k = 0; k < K; k++) {
            const double s = (double)scores[(size_t)order[first + t] * K + k];
            if (s > most) most = s;
        }
    return most;
}

static void fit(router *r, const float *x, const float *scores, size_t n, uint64_t seed,
                uint32_t *order, double *best)
{
    enum { EPOCHS = 30, BATCH = 512 };
    const size_t held = n / 10 ? n / 10 : 1, own = n - held, weights = r->K * (r->d + r->K);
    double least = INFINITY;
    for (int epoch = 0; epoch < EPOCHS && own; epoch++) {
        for (size_t i = 0; i < own; i++)
            order[i] = (uint32_t)qn_permute(i, own, seed + (uint64_t)epoch);
        for (size_t at = 0; at < own; at += BATCH) {
            const size_t count = own - at < BATCH ? own - at : BATCH;
            const double most = largest(scores, count, r->K, order, at);
            for (size_t t = 0; t < count; t++)
                one_token(r, x + order[at + t] * r->d, scores + order[at + t] * r->K, most, true);
            adam(r, (double)count);
        }
        for (size_t i = 0; i < held; i++) order[i] = (uint32_t)(own + i);
        const double most = largest(scores, held, r->K, order, 0);
        double loss = 0;
        for (size_t i = own; i < n; i++)
            loss += one_token(r, x + i * r->d, scores + i * r->K, most, false);
        if (!(loss < least)) continue;
        least = loss;
        memcpy(best, r->w1, r->K * r->d * sizeof *best);
        memcpy(best + r->K * r->d, r->w2, (weights - r->K * r->d) * sizeof *best);
    }
}

qn_result qn_partition_router(const float *x, const float *scores, size_t n, size_t d, size_t groups,
                              uint64_t seed, float *w1, float *w2)
{
    const size_t K = groups, weights = K * (d + K);
    qn_arena mem = { 0 };
    router r = { .d = d, .K = K };
    double *all = qn_arena_alloc(&mem, 5 * weights * sizeof *all);
    double *work = qn_arena_alloc(&mem, (3 * K + d) * sizeof *work);
    uint32_t *order = qn_arena_alloc(&mem, (n + 1) * sizeof *order);
    if (!all || !work || !order) {
        qn_arena_free(&mem);
        return qn_no_memory(weights * 40);
    }
    r.w1 = all;
    r.w2 = all + K * d;
    r.m = all + weights;
    r.v = all + 2 * weights;
    r.g = all + 3 * weights;
    double *best = all + 4 * weights;
    r.hidden = work;
    r.z = work + K;
    r.dz = work + 2 * K;
    r.unit = work + 3 * K;
    for (size_t i = 0; i < K * d; i++) r.w1[i] = (double)w1[i];
    for (size_t i = 0; i < K; i++) r.w2[i * K + i] = 1;
    memcpy(best, all, weights * sizeof *best);
    fit(&r, x, scores, n, seed, order, best);
    for (size_t i = 0; i < K * d; i++) w1[i] = (float)best[i];
    for (size_t i = 0; i < K * K; i++) w2[i] = (float)best[K * d + i];
    qn_arena_free(&mem);
    return QN_OK;
}
