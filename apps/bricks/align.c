// Alignment, clustering and averaging of experts.
#include "align.h"
#include "fail.h"
#include "mem.h"
#include "score.h"

#include <math.h>
#include <string.h>

// Shortest augmenting paths over costs max - s, one row at a time; indices from 1, 0 is none.
typedef struct assignment {
    size_t n;
    double *u, *v, *least; // potentials of rows and columns; distance of columns
    int32_t *row, *way;    // row of a column; the column before it on the path
    uint8_t *used;
} assignment;

static void augment(assignment *a, const double *s, double top, size_t i)
{
    size_t j = 0;
    a->row[0] = (int32_t)i;
    for (size_t k = 0; k <= a->n; k++) {
        a->least[k] = INFINITY;
        a->used[k] = 0;
    }
    do {
        a->used[j] = 1;
        const size_t at = (size_t)a->row[j];
        double step = INFINITY;
        size_t next = 0;
        for (size_t k = 1; k <= a->n; k++) {
            if (a->used[k]) continue;
            const double cost = top - s[(at - 1) * a->n + k - 1] - a->u[at] - a->v[k];
            if (cost < a->least[k]) {
                a->least[k] = cost;
                a->way[k] = (int32_t)j;
            }
            if (a->least[k] < step) {
                step = a->least[k];
                next = k;
            }
        }
        for (size_t k = 0; k <= a->n; k++) {
            if (a->used[k]) {
                a->u[a->row[k]] += step;
                a->v[k] -= step;
            } else {
                a->least[k] -= step;
            }
        }
        j = next;
    } while (a->row[j]);
    for (; j; j = (size_t)a->way[j]) a->row[j] = a->row[a->way[j]];
}

qn_result qn_align_assign(const double *s, size_t n, int32_t *p)
{
    double top = -INFINITY;
    for (size_t i = 0; i < n * n; i++) {
        if (!isfinite(s[i]))
            return qn_fail(QN_ERR_INVALID, "a similarity of units is not a number");
        if (s[i] > top) top = s[i];
    }
    qn_arena mem = { 0 };
    assignment a = { .n = n };
    a.u = qn_arena_alloc(&mem, (n + 1) * sizeof *a.u);
    a.v = qn_arena_alloc(&mem, (n + 1) * sizeof *a.v);
    a.least = qn_arena_alloc(&mem, (n + 1) * sizeof *a.least);
    a.row = qn_arena_alloc(&mem, (n + 1) * sizeof *a.row);
    a.way = qn_arena_alloc(&mem, (n + 1) * sizeof *a.way);
    a.used = qn_arena_alloc(&mem, n + 1);
    const bool good = a.u && a.v && a.least && a.row && a.way && a.used;
    for (size_t i = 1; good && i <= n; i++) augment(&a, s, top, i);
    for (size_t k = 1; good && k <= n; k++) p[a.row[k] - 1] = (int32_t)(k - 1);
    qn_arena_free(&mem);
    return good ? QN_OK : qn_no_memory(n * 40);
}

qn_result qn_align_units(qn_expert lead, qn_expert e, size_t d, size_t h, int32_t *p)
{
    double *s = qn_calloc(h * h + 1, sizeof *s);
    if (!s) return qn_no_memory(h * h * sizeof *s);
    for (size_t k = 0; k < d; k++)
        for (size_t i = 0; i < h; i++)
            for (size_t j = 0; j < h; j++)
                s[i * h + j] += (double)lead.in[k * h + i] * (double)e.in[k * h + j];
    for (size_t i = 0; i < h; i++)
        for (size_t j = 0; j < h; j++)
            for (size_t k = 0; k < d; k++)
                s[i * h + j] += (double)lead.out[i * d + k] * (double)e.out[j * d + k];
    qn_result r = qn_align_assign(s, h, p);
    qn_free(s);
    return r;
}

// ------------------------------------------------------------------------------ groups

// Labels in the order of their smallest members.
static void renumber(int32_t *labels, size_t n)
{
    int32_t next = 0;
    for (size_t i = 0; i < n; i++) {
        if (labels[i] < next) continue;
        const int32_t old = labels[i];
        for (size_t k = i; k < n; k++) {
            if (labels[k] == old)
                labels[k] = next;
            else if (labels[k] == next)
                labels[k] = old;
        }
        next++;
    }
}

static double linkage(const double *dist, size_t n, const int32_t *labels, int32_t a, int32_t b)
{
    double sum = 0, count = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; labels[i] == a && k < n; k++)
            if (labels[k] == b) {
                sum += dist[i * n + k];
                count++;
            }
    return sum / count;
}

qn_result qn_align_cluster(const double *dist, size_t n, size_t groups, int32_t *labels)
{
    if (!groups || groups > n)
        return qn_fail(QN_ERR_INVALID, "%zu groups of %zu experts are not possible", groups, n);
    for (size_t i = 0; i < n; i++) labels[i] = (int32_t)i;
    for (size_t left = n; left > groups; left--) {
        int32_t first = -1, second = -1;
        double least = INFINITY;
        for (int32_t a = 0; a < (int32_t)left; a++)
            for (int32_t b = a + 1; b < (int32_t)left; b++) {
                const double own = linkage(dist, n, labels, a, b);
                if (first >= 0 && !(own < least)) continue;
                least = own;
                first = a;
                second = b;
            }
        for (size_t i = 0; i < n; i++)
            if (labels[i] == second)
                labels[i] = first;
            else if (labels[i] > second)
                labels[i]--;
    }
    renumber(labels, n);
    return QN_OK;
}

qn_result qn_align_lead(const double *dist, const double *usage, size_t n, size_t groups,
                        int32_t *labels)
{
    if (!groups || groups > n)
        return qn_fail(QN_ERR_INVALID, "%zu groups of %zu experts are not possible", groups, n);
    uint32_t *order = qn_malloc((n + 1) * sizeof *order);
    if (!order) return qn_no_memory(n * sizeof *order);
    qn_result r = qn_score_order(usage, n, order);
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        size_t best = 0;
        bool leads = false;
        for (size_t g = 0; g < groups; g++) {
            if (order[g] == i) {
                best = g;
                leads = true;
            }
            if (!leads && dist[i * n + order[g]] < dist[i * n + order[best]]) best = g;
        }
        labels[i] = (int32_t)best;
    }
    qn_free(order);
    if (r == QN_OK) renumber(labels, n);
    return r;
}

// ------------------------------------------------------------------------------ mean

static void add_expert(qn_expert e, const int32_t *p, double w, size_t d, size_t h, double *in,
                       double *out)
{
    for (size_t k = 0; k < d; k++)
        for (size_t i = 0; i < h; i++)
            in[k * h + i] += w * (double)e.in[k * h + (p ? (size_t)p[i] : i)];
    for (size_t i = 0; i < h; i++)
        for (size_t k = 0; k < d; k++)
            out[i * d + k] += w * (double)e.out[(p ? (size_t)p[i] : i) * d + k];
}

qn_result qn_align_merge(const qn_expert *e, const double *usage, const double *weight, size_t count,
                         size_t d, size_t h, bool align, float *in, float *out)
{
    size_t lead = 0;
    double total = 0;
    for (size_t i = 0; i < count; i++) {
        if (usage[i] > usage[lead]) lead = i;
        total += weight[i];
    }
    if (count == 1) { // to the bit
        memcpy(in, e[0].in, d * h * sizeof *in);
        memcpy(out, e[0].out, d * h * sizeof *out);
        return QN_OK;
    }
    double *sum = qn_calloc(2 * d * h + 1, sizeof *sum);
    int32_t *p = qn_malloc((h + 1) * sizeof *p);
    qn_result r = sum && p ? QN_OK : qn_no_memory(2 * d * h * sizeof *sum);
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        const bool moves = align && i != lead;
        if (moves) r = qn_align_units(e[lead], e[i], d, h, p);
        const double w = total > 0 ? weight[i] / total : 1 / (double)count;
        if (r == QN_OK) add_expert(e[i], moves ? p : NULL, w, d, h, sum, sum + d * h);
    }
    for (size_t i = 0; r == QN_OK && i < d * h; i++) {
        in[i] = (float)sum[i];
        out[i] = (float)sum[d * h + i];
    }
    qn_free(sum);
    qn_free(p);
    return r;
}
