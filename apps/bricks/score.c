// Scores of neurons.
#include "score.h"
#include "fail.h"
#include "mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void qn_score_mean(const float *acts, size_t tokens, size_t neurons, float *mean)
{
    for (size_t n = 0; n < neurons; n++) {
        double sum = 0;
        for (size_t t = 0; t < tokens; t++) sum += fabs((double)acts[t * neurons + n]);
        mean[n] = tokens ? (float)(sum / (double)tokens) : 0;
    }
}

typedef struct ranked {
    double value;
    uint32_t index;
} ranked;

// Descending; NaN last.
static int descending(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->value > y->value) return -1;
    if (x->value < y->value) return 1;
    const int p = isnan(x->value) != 0, q = isnan(y->value) != 0;
    if (p != q) return p - q;
    return x->index < y->index ? -1 : x->index > y->index;
}

static qn_result rank(const double *value, const float *narrow, size_t stride, size_t count,
                      ranked **out)
{
    *out = qn_malloc((count + 1) * sizeof **out);
    if (!*out) return qn_no_memory(count * sizeof **out);
    for (size_t i = 0; i < count; i++)
        (*out)[i] = (ranked){ value ? value[i] : (double)narrow[i * stride], (uint32_t)i };
    qsort(*out, count, sizeof **out, descending);
    return QN_OK;
}

qn_result qn_score_order(const double *value, size_t count, uint32_t *order)
{
    ranked *r;
    QN_TRY(rank(value, NULL, 1, count, &r));
    for (size_t i = 0; i < count; i++) order[i] = r[i].index;
    qn_free(r);
    return QN_OK;
}

qn_result qn_score_precision(const float *score, size_t stride, const uint8_t *label,
                             size_t label_stride, size_t count, double *out)
{
    ranked *r;
    QN_TRY(rank(NULL, score, stride, count, &r));
    double positives = 0, hits = 0, before = 0, sum = 0;
    for (size_t i = 0; i < count; i++) positives += label[i * label_stride] != 0;
    for (size_t i = 0; i < count; i++) {
        hits += label[r[i].index * label_stride] != 0;
        if (i + 1 < count && r[i + 1].value == r[i].value) continue;
        sum += (hits - before) * (hits / (double)(i + 1));
        before = hits;
    }
    qn_free(r);
    *out = positives > 0 ? sum / positives : NAN;
    return QN_OK;
}

void qn_score_norms(const float *w, size_t rows, size_t columns, double *norm)
{
    memset(norm, 0, columns * sizeof *norm);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++)
            norm[k] += (double)w[i * columns + k] * (double)w[i * columns + k];
    for (size_t k = 0; k < columns; k++) norm[k] = sqrt(norm[k]);
}

void qn_score_indicator(const float *acts, const double *norm, size_t neurons, double *indicator)
{
    for (size_t i = 0; i < neurons; i++)
        indicator[i] = fabs((double)acts[i]) * (norm ? norm[i] : 1);
}

qn_result qn_score_lowest(const double *indicator, size_t neurons, size_t count, uint8_t *mask)
{
    // Ascending with the lower index first is descending of the negated values.
    double *negated = qn_malloc((neurons + 1) * sizeof *negated);
    ranked *r = NULL;
    qn_result res = negated ? QN_OK : qn_no_memory(neurons * sizeof *negated);
    for (size_t i = 0; res == QN_OK && i < neurons; i++) negated[i] = -indicator[i];
    if (res == QN_OK) res = rank(negated, NULL, 1, neurons, &r);
    if (res == QN_OK) memset(mask, 0, neurons);
    for (size_t i = 0; res == QN_OK && i < count && i < neurons; i++) mask[r[i].index] = 1;
    qn_free(negated);
    qn_free(r);
    return res;
}

static int ascending_index(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

qn_result qn_score_top(const float *score, size_t neurons, size_t count, int32_t *top)
{
    ranked *r;
    QN_TRY(rank(NULL, score, 1, neurons, &r));
    for (size_t i = 0; i < count; i++) top[i] = (int32_t)r[i].index;
    qsort(top, count, sizeof *top, ascending_index);
    qn_free(r);
    return QN_OK;
}

size_t qn_score_top_count(double share, size_t neurons)
{
    const size_t n = (size_t)(share * (double)neurons);
    return n < 1 ? 1 : n > neurons ? neurons : n;
}

double qn_score_overlap(const int32_t *a, const int32_t *b, size_t count)
{
    size_t both = 0;
    for (size_t i = 0, k = 0; i < count && k < count;) {
        if (a[i] == b[k]) both++;
        const int32_t x = a[i], y = b[k];
        i += x <= y;
        k += y <= x;
    }
    return count ? (double)both / (double)count : 0;
}
