// Metrics of predictions.
#include "tab/score.h"
#include "mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int qn_tab_largest(const double *values, int count)
{
    int best = 0;
    for (int i = 1; i < count; i++)
        if (values[i] > values[best]) best = i;
    return best;
}

void qn_tab_softmax(double *logits, int64_t rows, int classes, double temperature)
{
    for (int64_t i = 0; i < rows; i++) {
        double *z = logits + i * classes, most = z[qn_tab_largest(z, classes)], sum = 0;
        for (int c = 0; c < classes; c++) sum += z[c] = exp((z[c] - most) / temperature);
        for (int c = 0; c < classes; c++) z[c] /= sum;
    }
}

static double loss_at(const double *logits, const float *y, int64_t rows, int classes, double t)
{
    double loss = 0;
    for (int64_t i = 0; i < rows; i++) {
        const double *z = logits + i * classes;
        double most = z[qn_tab_largest(z, classes)], sum = 0;
        for (int c = 0; c < classes; c++) sum += exp((z[c] - most) / t);
        loss += log(sum) - (z[(int)y[i]] - most) / t;
    }
    return loss;
}

double qn_tab_temperature(const double *logits, const float *y, int64_t rows, int classes)
{
    // The loss is convex in 1 / t: golden section over its logarithm.
    const double ratio = 0.6180339887498949;
    double a = log(0.05), b = log(20);
    double c = b - ratio * (b - a), d = a + ratio * (b - a);
    double fc = loss_at(logits, y, rows, classes, exp(c));
    double fd = loss_at(logits, y, rows, classes, exp(d));
    for (int i = 0; i < 40; i++) {
        bool left = fc < fd;
        *(left ? &b : &a) = left ? d : c;
        if (left) {
            d = c;
            fd = fc;
            c = b - ratio * (b - a);
            fc = loss_at(logits, y, rows, classes, exp(c));
        } else {
            c = d;
            fc = fd;
            d = a + ratio * (b - a);
            fd = loss_at(logits, y, rows, classes, exp(d));
        }
    }
    return exp((a + b) / 2);
}

typedef struct ranked {
    double value;
    bool positive;
} ranked;

static int by_value(const void *a, const void *b)
{
    double x = ((const ranked *)a)->value, y = ((const ranked *)b)->value;
    return (x < y) - (x > y); // largest first
}

static qn_result rank_class(const float *y, const double *p, int64_t rows, int classes, int c,
                            ranked **out, int64_t *positives)
{
    *out = qn_malloc((size_t)(rows + 1) * sizeof **out);
    if (!*out) return qn_no_memory((size_t)rows * sizeof **out);
    *positives = 0;
    for (int64_t i = 0; i < rows; i++) {
        (*out)[i] = (ranked){ p[i * classes + c], (int)y[i] == c };
        *positives += (*out)[i].positive;
    }
    qsort(*out, (size_t)rows, sizeof **out, by_value);
    return QN_OK;
}

qn_result qn_tab_roc(const float *y, const double *probabilities, int64_t rows, int classes, int c,
                     double *false_rate, double *true_rate, size_t *points)
{
    ranked *r;
    int64_t positives, up = 0;
    QN_TRY(rank_class(y, probabilities, rows, classes, c, &r, &positives));
    *points = 0;
    double all_false = (double)(rows - positives), all_true = (double)positives;
    for (int64_t i = 0; i <= rows; i++) {
        if (i == 0 || i == rows || r[i].value != r[i - 1].value) {
            false_rate[*points] = all_false > 0 ? (double)(i - up) / all_false : 0;
            true_rate[(*points)++] = all_true > 0 ? (double)up / all_true : 0;
        }
        if (i < rows) up += r[i].positive;
    }
    qn_free(r);
    return QN_OK;
}

static qn_result auc_of(const float *y, const double *p, int64_t rows, int classes, double *out)
{
    double *x = qn_malloc((size_t)(rows + 2) * 2 * sizeof *x), *t = x ? x + rows + 2 : NULL;
    double sum = 0;
    int counted = 0;
    if (!x) return qn_no_memory((size_t)rows * 2 * sizeof *x);
    qn_result r = QN_OK;
    for (int c = classes == 2; c < classes && r == QN_OK; c++) {
        int64_t positives = 0;
        for (int64_t i = 0; i < rows; i++) positives += (int)y[i] == c;
        if (!positives || positives == rows) continue;
        size_t points;
        r = qn_tab_roc(y, p, rows, classes, c, x, t, &points);
        for (size_t i = 1; r == QN_OK && i < points; i++)
            sum += (x[i] - x[i - 1]) * (t[i] + t[i - 1]) / 2;
        counted++;
    }
    qn_free(x);
    *out = counted ? sum / counted : NAN;
    return r;
}

qn_result qn_tab_score(const float *y, const double *probabilities, int64_t rows, int classes,
                       qn_tab_scores *out)
{
    memset(out, 0, sizeof *out);
    out->rows = rows;
    out->r2 = out->rmse = NAN;
    int64_t right = 0;
    for (int64_t i = 0; i < rows; i++) {
        const double *p = probabilities + i * classes;
        int label = (int)y[i], guess = qn_tab_largest(p, classes);
        right += guess == label;
        out->confusion[label * classes + guess]++;
        out->log_loss -= log(fmax(p[label], 1e-15)) / (double)rows;
        int bin = (int)(p[guess] * QN_TAB_BINS);
        if (bin >= QN_TAB_BINS) bin = QN_TAB_BINS - 1;
        out->bin_rows[bin]++;
        out->bin_confidence[bin] += p[guess];
        out->bin_accuracy[bin] += guess == label;
    }
    out->accuracy = (double)right / (double)rows;
    int occurring = 0;
    for (int c = 0; c < classes; c++) {
        int64_t all = 0;
        for (int k = 0; k < classes; k++) all += out->confusion[c * classes + k];
        if (!all) continue;
        occurring++;
        out->balanced_accuracy += (double)out->confusion[c * classes + c] / (double)all;
    }
    out->balanced_accuracy /= occurring ? occurring : 1;
    for (int b = 0; b < QN_TAB_BINS; b++) {
        out->calibration_error += fabs(out->bin_confidence[b] - out->bin_accuracy[b]) / (double)rows;
        if (!out->bin_rows[b]) continue;
        out->bin_confidence[b] /= (double)out->bin_rows[b];
        out->bin_accuracy[b] /= (double)out->bin_rows[b];
    }
    return auc_of(y, probabilities, rows, classes, &out->auc);
}

void qn_tab_score_values(const double *y, const double *predicted, int64_t rows, qn_tab_scores *out)
{
    memset(out, 0, sizeof *out);
    out->rows = rows;
    double mean = 0, error = 0, spread = 0;
    for (int64_t i = 0; i < rows; i++) mean += y[i] / (double)rows;
    for (int64_t i = 0; i < rows; i++) {
        error += (predicted[i] - y[i]) * (predicted[i] - y[i]);
        spread += (y[i] - mean) * (y[i] - mean);
    }
    out->rmse = sqrt(error / (double)rows);
    out->r2 = spread > 0 ? 1 - error / spread : NAN;
}
