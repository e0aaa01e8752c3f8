// Adapters and singular values.
#include "factor.h"
#include "fail.h"
#include "mem.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double qn_factor_scale(double alpha, size_t r, bool stabilised)
{
    return alpha / (stabilised ? sqrt((double)r) : (double)r);
}

void qn_factor_apply(float *w, const float *a, const float *b, size_t rows, size_t columns, size_t r,
                     double s)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            double sum = 0;
            for (size_t k = 0; k < r; k++)
                sum += (double)b[i * r + k] * (double)a[k * columns + j];
            w[i * columns + j] = (float)((double)w[i * columns + j] + s * sum);
        }
}

// ------------------------------------------------------------------------------ svd

// Rotates rows p and q of c and of v so that those of c become orthogonal. Returns how far they
// were from it.
static double rotate(double *p, double *q, size_t m, double *vp, double *vq, size_t n)
{
    double a = 0, b = 0, c = 0;
    for (size_t i = 0; i < m; i++) {
        a += p[i] * p[i];
        b += q[i] * q[i];
        c += p[i] * q[i];
    }
    const double off = c == 0 ? 0 : fabs(c) / sqrt(a * b);
    if (!(off > 1e-15)) return 0;
    const double zeta = (b - a) / (2 * c);
    const double t = (zeta < 0 ? -1 : 1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
    const double cs = 1 / sqrt(1 + t * t), sn = cs * t;
    for (size_t i = 0; i < m; i++) {
        const double x = p[i], y = q[i];
        p[i] = cs * x - sn * y;
        q[i] = sn * x + cs * y;
    }
    for (size_t i = 0; i < n; i++) {
        const double x = vp[i], y = vq[i];
        vp[i] = cs * x - sn * y;
        vq[i] = sn * x + cs * y;
    }
    return off;
}

// c [q, m] holds the q columns of a tall matrix as rows; v [q, q] starts as identity.
static void orthogonalise(double *c, size_t q, size_t m, double *v)
{
    enum { SWEEPS = 60 };
    double worst = 1;
    for (int sweep = 0; sweep < SWEEPS && worst > 1e-14; sweep++) {
        worst = 0;
        for (size_t i = 0; i < q; i++)
            for (size_t j = i + 1; j < q; j++) {
                double off = rotate(c + i * m, c + j * m, m, v + i * q, v + j * q, q);
                if (off > worst) worst = off;
            }
    }
}

typedef struct column {
    double norm;
    size_t index;
} column;

static int by_norm(const void *a, const void *b)
{
    const column *x = a, *y = b;
    if (x->norm != y->norm) return x->norm > y->norm ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

qn_result qn_factor_svd(const double *x, size_t m, size_t n, double *u, double *s, double *vt)
{
    const bool wide = n > m; // work on the shape with fewer columns
    const size_t q = wide ? m : n, length = wide ? n : m;
    double *c = qn_malloc((q * length + 1) * sizeof *c), *v = qn_calloc(q * q + 1, sizeof *v);
    column *order = qn_malloc((q + 1) * sizeof *order);
    if (!c || !v || !order) {
        qn_free(c);
        qn_free(v);
        qn_free(order);
        return qn_no_memory(q * length * sizeof *c);
    }
    for (size_t j = 0; j < q; j++)
        for (size_t i = 0; i < length; i++) c[j * length + i] = wide ? x[j * n + i] : x[i * n + j];
    for (size_t j = 0; j < q; j++) v[j * q + j] = 1;
    orthogonalise(c, q, length, v);
    for (size_t j = 0; j < q; j++) {
        double sum = 0;
        for (size_t i = 0; i < length; i++) sum += c[j * length + i] * c[j * length + i];
        order[j] = (column){ sqrt(sum), j };
    }
    qsort(order, q, sizeof *order, by_norm);
    for (size_t j = 0; j < q; j++) {
        const double *col = c + order[j].index * length, *rot = v + order[j].index * q;
        s[j] = order[j].norm;
        const double inverse = s[j] > 0 ? 1 / s[j] : 0;
        for (size_t i = 0; i < m; i++) u[i * q + j] = wide ? rot[i] : col[i] * inverse;
        for (size_t i = 0; i < n; i++) vt[j * n + i] = wide ? col[i] * inverse : rot[i];
    }
    qn_free(c);
    qn_free(v);
    qn_free(order);
    return QN_OK;
}

qn_result qn_factor_extract(const float *delta, size_t m, size_t n, size_t r, float *a, float *b)
{
    const size_t q = m < n ? m : n;
    if (!r || r > q)
        return qn_fail(QN_ERR_INVALID, "rank %zu of a matrix of %zu x %zu is not possible", r, m, n);
    double *x = qn_malloc((m * n + 1) * sizeof *x), *u = qn_malloc((m * q + 1) * sizeof *u);
    double *s = qn_malloc((q + 1) * sizeof *s), *vt = qn_malloc((q * n + 1) * sizeof *vt);
    qn_result res = x && u && s && vt ? QN_OK : qn_no_memory(m * n * sizeof *x);
    for (size_t i = 0; res == QN_OK && i < m * n; i++) x[i] = (double)delta[i];
    if (res == QN_OK) res = qn_factor_svd(x, m, n, u, s, vt);
    for (size_t k = 0; res == QN_OK && k < r; k++) {
        const double root = sqrt(s[k]);
        for (size_t j = 0; j < n; j++) a[k * n + j] = (float)(root * vt[k * n + j]);
        for (size_t i = 0; i < m; i++) b[i * r + k] = (float)(u[i * q + k] * root);
    }
    qn_free(x);
    qn_free(u);
    qn_free(s);
    qn_free(vt);
    return res;
}

// ------------------------------------------------------------------------------ gates, draws

static double norm_of(const double *x, size_t d)
{
    double sum = 0;
    for (size_t i = 0; i < d; i++) sum += x[i] * x[i];
    const double norm = sqrt(sum);
    return norm > 1e-8 ? norm : 1e-8;
}

void qn_factor_gate(const float *embed, size_t d, const int32_t *positive, size_t positives,
                    const int32_t *negative, size_t negatives, double *out)
{
    memset(out, 0, d * sizeof *out);
    for (size_t t = 0; t < positives; t++)
        for (size_t i = 0; i < d; i++) out[i] += (double)embed[(size_t)positive[t] * d + i];
    double norm = norm_of(out, d);
    for (size_t i = 0; i < d; i++) out[i] /= norm;
    if (negatives) {
        double squares = 0;
        for (int pass = 0; pass < 2; pass++) // the norm first, then the subtraction
            for (size_t i = 0; i < d; i++) {
                double sum = 0;
                for (size_t t = 0; t < negatives; t++)
                    sum += (double)embed[(size_t)negative[t] * d + i];
                if (!pass)
                    squares += sum * sum;
                else
                    out[i] -= sum / (sqrt(squares) > 1e-8 ? sqrt(squares) : 1e-8);
            }
    }
    norm = norm_of(out, d);
    for (size_t i = 0; i < d; i++) out[i] /= norm;
}

double qn_factor_uniform(uint64_t seed, const char *tensor, uint32_t m, uint64_t i)
{
    uint32_t h = 2166136261u, words[4];
    for (const char *s = tensor; *s; s++) h = (h ^ (unsigned char)*s) * 16777619u;
    qn_philox(seed, (uint64_t)m << 32 | h, i / 4, words);
    return (double)(words[i % 4] >> 8) / (1 << 24);
}
