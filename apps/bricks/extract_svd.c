// Truncated singular values: exact, or in a random subspace whose products the device computes.
#include "extract.h"

#include "factor.h"
#include "llm/golden.h"
#include "random.h"

#include <math.h>
#include <string.h>

enum { EXACT = 160, OVERSAMPLED = 16, POWER_STEPS = 2 };

// out [k, n] = a [k, m] b, b [m, n], or of b's transpose when b is [n, m].
static qn_result product(qn_device *dev, const float *a, const float *b, size_t k, size_t m,
                         size_t n, bool transposed, float **out)
{
    qn_graph *g;
    void *result = NULL;
    QN_TRY(qn_graph_create(dev, &g));
    const qn_tensor *x = qn_input(g, "a", QN_F32, QN_SHAPE((int64_t)k, (int64_t)m));
    const qn_tensor *y =
        qn_input(g, "b", QN_F32,
                 transposed ? QN_SHAPE((int64_t)n, (int64_t)m) : QN_SHAPE((int64_t)m, (int64_t)n));
    const qn_tensor *c = qn_matmul(g, x, y, &(qn_matmul_opts){ .transpose_b = transposed });
    qn_result r = qn_graph_status(g);
    if (r == QN_OK) r = qn_run_once(g, (qn_feed[]){ { x, a }, { y, b } }, 2, &c, 1, &result);
    qn_graph_destroy(&g);
    if (r == QN_OK) *out = result;
    return r;
}

// Makes the rows of q [k, n] orthonormal; one that depends on those before it becomes zero.
static void orthonormalise(float *q, size_t k, size_t n)
{
    for (size_t i = 0; i < k; i++) {
        float *row = q + i * n;
        double before = 0, after = 0;
        for (size_t c = 0; c < n; c++) before += (double)row[c] * (double)row[c];
        for (int pass = 0; pass < 2; pass++)
            for (size_t j = 0; j < i; j++) {
                const float *other = q + j * n;
                double dot = 0;
                for (size_t c = 0; c < n; c++) dot += (double)row[c] * (double)other[c];
                for (size_t c = 0; c < n; c++)
                    row[c] = (float)((double)row[c] - dot * (double)other[c]);
            }
        for (size_t c = 0; c < n; c++) after += (double)row[c] * (double)row[c];
        double f = after > 1e-10 * before && after > 0 ? 1 / sqrt(after) : 0;
        for (size_t c = 0; c < n; c++) row[c] = (float)((double)row[c] * f);
    }
}

// An orthonormal basis of the range of x [m, n], as rows: q [k, m].
static qn_result range_of(qn_device *dev, const float *x, size_t m, size_t n, size_t k, float **q)
{
    qn_random random = qn_random_start(1, 0);
    float *omega = qn_malloc(k * n * sizeof *omega), *y = NULL;
    if (!omega) return qn_no_memory(k * n * sizeof *omega);
    for (size_t i = 0; i < k * n; i++) omega[i] = (float)qn_random_normal(&random);
    qn_result r = product(dev, omega, x, k, n, m, true, q);
    qn_free(omega);
    for (int step = 0; r == QN_OK && step < POWER_STEPS; step++) {
        orthonormalise(*q, k, m);
        r = product(dev, *q, x, k, m, n, false, &y);
        qn_free(*q);
        *q = NULL;
        if (r != QN_OK) break;
        orthonormalise(y, k, n);
        r = product(dev, y, x, k, n, m, true, q);
        qn_free(y);
    }
    if (r == QN_OK) orthonormalise(*q, k, m);
    return r;
}

static qn_result random_factors(qn_device *dev, const float *x, size_t m, size_t n, size_t k,
                                size_t most, double *u, double *s, double *vt)
{
    float *q = NULL, *b = NULL;
    double *wide = qn_malloc(k * n * sizeof *wide), *all = qn_malloc(k * n * sizeof *all);
    double *small = qn_malloc(k * k * sizeof *small), *values = qn_malloc(k * sizeof *values);
    qn_result r = wide && all && small && values ? range_of(dev, x, m, n, k, &q)
                                                 : qn_no_memory(k * n * sizeof *wide);
    if (r == QN_OK) r = product(dev, q, x, k, m, n, false, &b);
    for (size_t i = 0; r == QN_OK && i < k * n; i++) wide[i] = (double)b[i];
    if (r == QN_OK) r = qn_factor_svd(wide, k, n, small, values, all); // k <= n
    for (size_t j = 0; r == QN_OK && j < most; j++) {
        s[j] = values[j];
        memcpy(vt + j * n, all + j * n, n * sizeof *vt);
        for (size_t i = 0; i < m; i++) {
            double sum = 0;
            for (size_t c = 0; c < k; c++) sum += (double)q[c * m + i] * small[c * k + j];
            u[i * most + j] = sum;
        }
    }
    qn_free(q);
    qn_free(b);
    qn_free(wide);
    qn_free(all);
    qn_free(small);
    qn_free(values);
    return r;
}

static qn_result exact_factors(const float *x, size_t m, size_t n, size_t most, double *u,
                               double *s, double *vt)
{
    size_t q = m < n ? m : n;
    double *in = qn_malloc(m * n * sizeof *in), *left = qn_malloc(m * q * sizeof *left);
    double *values = qn_malloc(q * sizeof *values), *right = qn_malloc(q * n * sizeof *right);
    qn_result r = in && left && values && right ? QN_OK : qn_no_memory(m * n * sizeof *in);
    for (size_t i = 0; r == QN_OK && i < m * n; i++) in[i] = (double)x[i];
    if (r == QN_OK) r = qn_factor_svd(in, m, n, left, values, right);
    for (size_t j = 0; r == QN_OK && j < most; j++) {
        s[j] = values[j];
        memcpy(vt + j * n, right + j * n, n * sizeof *vt);
        for (size_t i = 0; i < m; i++) u[i * most + j] = left[i * q + j];
    }
    qn_free(in);
    qn_free(left);
    qn_free(values);
    qn_free(right);
    return r;
}

qn_result qn_extract_factors(qn_device *dev, const float *x, size_t m, size_t n, size_t most,
                             double epsilon, double *u, double *s, double *vt, size_t *rank)
{
    size_t q = m < n ? m : n, k = most + OVERSAMPLED < q ? most + OVERSAMPLED : q;
    bool exact = q <= EXACT || k >= q;
    QN_TRY(exact ? exact_factors(x, m, n, most, u, s, vt)
                 : random_factors(dev, x, m, n, k, most, u, s, vt));
    double least = s[0] * 1e-7 * sqrt((double)q); // what f32 leaves of a lower rank
    *rank = 0;
    while (*rank < most && s[*rank] > least && s[*rank] > epsilon) ++*rank;
    return QN_OK;
}
