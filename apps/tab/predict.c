// What a model says about rows: probabilities, doubt, importance.
#include "fail.h"
#include "tab/model.h"
#include "tab/score.h"

#include <math.h>
#include <string.h>

void qn_tab_prediction_free(qn_tab_prediction *p)
{
    qn_free(p->out);
    qn_free(p->doubt);
    memset(p, 0, sizeof *p);
}

static bool view_sees(const qn_tab_net *n, int view, const bool *absent)
{
    for (int64_t j = 0; absent && j < n->chosen; j++)
        if (absent[n->view_columns[view * n->chosen + j]]) return true;
    return false;
}

// Logits of one network's views, [V, rows, C], in fresh memory.
static qn_result views_of(qn_device *dev, const qn_tab_net *n, const float *x, int64_t rows, float **out)
{
    size_t count = (size_t)n->views * (size_t)rows * (size_t)n->net.outputs;
    *out = qn_malloc((count + 1) * sizeof **out);
    if (!*out) return qn_no_memory(count * sizeof **out);
    return qn_tab_view_logits(dev, n, x, rows, *out);
}

typedef struct sums {
    double *logits, *squares, *means; // [rows, C]: of logits; of probabilities, their squares
} sums;

static void add_views(const qn_tab_net *n, const float *views, int64_t rows, const bool *absent,
                      double temperature, bool values, sums *s, size_t *used)
{
    const int c = n->net.outputs;
    double p[QN_TARGET_MAX_OUTPUTS];
    for (int k = 0; k < n->views; k++) {
        if (view_sees(n, k, absent)) continue;
        ++*used;
        for (int64_t i = 0; i < rows; i++) {
            const float *z = views + ((int64_t)k * rows + i) * c;
            for (int o = 0; o < c; o++) p[o] = (double)z[o];
            for (int o = 0; o < c; o++) s->logits[i * c + o] += p[o];
            if (!values) qn_tab_softmax(p, 1, c, temperature);
            for (int o = 0; o < c; o++) {
                s->means[i * c + o] += p[o];
                s->squares[i * c + o] += p[o] * p[o];
            }
        }
    }
}

static void finish(const qn_tab_model *m, const sums *s, int64_t rows, size_t used,
                   qn_tab_prediction *out)
{
    const bool values = m->prep->regression;
    const int c = m->nets[0].net.outputs;
    for (int64_t i = 0; i < rows; i++) {
        double spread = 0;
        for (int o = 0; o < c; o++) {
            int64_t at = i * c + o;
            double mean = s->means[at] / (double)used;
            spread += sqrt(fmax(0, s->squares[at] / (double)used - mean * mean)) / c;
            out->out[at] = s->logits[at] / (double)used;
        }
        out->doubt[i] = values ? spread * m->prep->target_deviation : spread;
        if (values)
            out->out[i] = out->out[i] * m->prep->target_deviation + m->prep->target_mean;
        else
            qn_tab_softmax(out->out + i * c, 1, c, m->temperature);
    }
}

qn_result qn_tab_predict_rows(qn_device *dev, const qn_tab_model *m, const float *x, int64_t rows,
                              const bool *absent, qn_tab_prediction *out)
{
    const int c = m->nets[0].net.outputs;
    size_t count = (size_t)rows * (size_t)c + 1;
    *out = (qn_tab_prediction){ .rows = rows };
    sums s = { qn_calloc(count, sizeof(double)), qn_calloc(count, sizeof(double)),
               qn_calloc(count, sizeof(double)) };
    out->out = qn_calloc(count, sizeof(double));
    out->doubt = qn_calloc((size_t)rows + 1, sizeof(double));
    qn_result r = s.logits && s.squares && s.means && out->out && out->doubt
                      ? QN_OK
                      : qn_no_memory(count * sizeof(double));
    for (size_t i = 0; r == QN_OK && i < m->net_count; i++) {
        float *views = NULL;
        out->views += (size_t)m->nets[i].views;
        r = views_of(dev, &m->nets[i], x, rows, &views);
        if (r == QN_OK)
            add_views(&m->nets[i], views, rows, absent, m->temperature, m->prep->regression, &s,
                      &out->views_used);
        qn_free(views);
    }
    if (r == QN_OK && !out->views_used)
        r = qn_fail(QN_ERR_INVALID, "every one of the %zu views needs a column that is missing",
                    out->views);
    if (r == QN_OK) finish(m, &s, rows, out->views_used, out);
    qn_free(s.logits);
    qn_free(s.squares);
    qn_free(s.means);
    if (r != QN_OK) qn_tab_prediction_free(out);
    return r;
}

qn_result qn_tab_predict(qn_device *dev, const qn_tab_model *m, const qn_tab_table *t,
                         qn_tab_prediction *out)
{
    size_t d = m->prep->features;
    memset(out, 0, sizeof *out);
    float *x = qn_malloc((t->rows * d + 1) * sizeof *x);
    bool *absent = qn_calloc(d, sizeof *absent);
    int64_t unseen = 0;
    qn_result r = x && absent ? qn_tab_prep_apply(m->prep, t, x, absent, &unseen)
                              : qn_no_memory(t->rows * d * sizeof *x);
    if (r == QN_OK) r = qn_tab_predict_rows(dev, m, x, (int64_t)t->rows, absent, out);
    out->unseen = unseen;
    qn_free(x);
    qn_free(absent);
    return r;
}

// What a view is worth: mean right-class logit, or minus the mean squared error.
static double worth(const float *views, const float *y, int64_t rows, int c, bool values, int k)
{
    double sum = 0;
    for (int64_t i = 0; i < rows; i++) {
        const float *z = views + ((int64_t)k * rows + i) * c;
        double e = values ? (double)z[0] - (double)y[i] : 0, mean = 0;
        for (int o = 0; o < c; o++) mean += (double)z[o] / c;
        sum += values ? -e * e : (double)z[(int)y[i]] - mean;
    }
    return sum / (double)(rows > 0 ? rows : 1);
}

qn_result qn_tab_importance(qn_device *dev, const qn_tab_model *m, const float *x, const float *y,
                            int64_t rows, double *out)
{
    size_t d = m->prep->features;
    double *sum = qn_calloc(4 * d, sizeof *sum);
    if (!sum) return qn_no_memory(4 * d * sizeof *sum);
    double *with = sum, *without = sum + d, *with_count = sum + 2 * d, *without_count = sum + 3 * d;
    bool *seen = qn_malloc(d * sizeof *seen);
    qn_result r = seen ? QN_OK : qn_no_memory(d);
    for (size_t i = 0; r == QN_OK && i < m->net_count; i++) {
        const qn_tab_net *n = &m->nets[i];
        float *views = NULL;
        r = views_of(dev, n, x, rows, &views);
        for (int k = 0; r == QN_OK && k < n->views; k++) {
            double w = worth(views, y, rows, n->net.outputs, m->prep->regression, k);
            memset(seen, 0, d * sizeof *seen);
            for (int64_t j = 0; j < n->chosen; j++) seen[n->view_columns[k * n->chosen + j]] = true;
            for (size_t f = 0; f < d; f++) {
                *(seen[f] ? &with[f] : &without[f]) += w;
                *(seen[f] ? &with_count[f] : &without_count[f]) += 1;
            }
        }
        qn_free(views);
    }
    for (size_t f = 0; r == QN_OK && f < d; f++)
        out[f] = with_count[f] > 0 && without_count[f] > 0
                     ? with[f] / with_count[f] - without[f] / without_count[f]
                     : 0;
    qn_free(sum);
    qn_free(seen);
    return r;
}
