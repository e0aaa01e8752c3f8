// Balanced k-means, exchanges on a graph, choosing groups.
#include "groups.h"
#include "score.h"
#include "fail.h"
#include "mem.h"

#include <math.h>
#include <string.h>

qn_result qn_groups_features(const float *x, size_t n, size_t d, double **out)
{
    double *f = qn_malloc((n * d + 1) * sizeof *f);
    if (!f) return qn_no_memory(n * d * sizeof *f);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t k = 0; k < d; k++) sum += (double)x[i * d + k] * (double)x[i * d + k];
        const double norm = sum > 0 ? sqrt(sum) : 1;
        for (size_t k = 0; k < d; k++) f[i * d + k] = (double)x[i * d + k] / norm;
    }
    *out = f;
    return QN_OK;
}

static double distance(const double *a, const double *b, size_t d)
{
    double sum = 0;
    for (size_t k = 0; k < d; k++) sum += (a[k] - b[k]) * (a[k] - b[k]);
    return sum;
}

static void centres_of(const double *x, size_t n, size_t d, const int32_t *labels, size_t groups,
                       double *c)
{
    const double size = (double)n / (double)groups;
    memset(c, 0, groups * d * sizeof *c);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < d; k++) c[(size_t)labels[i] * d + k] += x[i * d + k];
    for (size_t i = 0; i < groups * d; i++) c[i] /= size;
}

double qn_groups_objective(const double *x, size_t n, size_t d, const int32_t *labels, size_t groups)
{
    double *c = qn_calloc(groups * d + 1, sizeof *c), sum = 0;
    double *count = qn_calloc(groups, sizeof *count);
    for (size_t i = 0; c && count && i < n; i++) {
        count[labels[i]]++;
        for (size_t k = 0; k < d; k++) c[(size_t)labels[i] * d + k] += x[i * d + k];
    }
    for (size_t g = 0; c && count && g < groups; g++)
        for (size_t k = 0; count[g] > 0 && k < d; k++) c[g * d + k] /= count[g];
    for (size_t i = 0; c && count && i < n; i++)
        sum += distance(x + i * d, c + (size_t)labels[i] * d, d);
    const bool known = c && count;
    qn_free(c);
    qn_free(count);
    return known ? sum : NAN;
}

// One run of k-means and the room it works in.
typedef struct work {
    const double *x;
    size_t n, d, groups;
    double *c, *cost, *regret, *near; // [K, d], [n, K], [n], [n]
    uint32_t *order;                  // [n]
    size_t *room;                     // [K]
    int32_t *labels;                  // [n]
    uint8_t *close;                   // [n, K]: the 8 nearest groups of a row; NULL: all
} work;

static void free_work(work *w)
{
    qn_free(w->c);
    qn_free(w->cost);
    qn_free(w->regret);
    qn_free(w->near);
    qn_free(w->order);
    qn_free(w->room);
    qn_free(w->labels);
    qn_free(w->close);
}

static void farthest_first(work *w, size_t first)
{
    const size_t n = w->n, d = w->d;
    size_t next = first;
    for (size_t i = 0; i < n; i++) w->near[i] = INFINITY;
    for (size_t k = 0; k < w->groups; k++) {
        memcpy(w->c + k * d, w->x + next * d, d * sizeof *w->c);
        const double *c = w->c + k * d;
        next = 0;
        for (size_t i = 0; i < n; i++) {
            const double own = distance(w->x + i * d, c, d);
            if (own < w->near[i]) w->near[i] = own;
            if (w->near[i] > w->near[next]) next = i;
        }
    }
}

// Rows in order of what a second choice would cost them, each to the cheapest group with room.
static qn_result assign(work *w)
{
    const size_t n = w->n, K = w->groups;
    for (size_t i = 0; i < n; i++) {
        double best = INFINITY, second = INFINITY;
        for (size_t k = 0; k < K; k++) {
            const double cost = distance(w->x + i * w->d, w->c + k * w->d, w->d);
            w->cost[i * K + k] = cost;
            if (cost < best) {
                second = best;
                best = cost;
            } else if (cost < second) {
                second = cost;
            }
        }
        w->regret[i] = K > 1 ? second - best : 0;
    }
    QN_TRY(qn_score_order(w->regret, n, w->order));
    for (size_t k = 0; k < K; k++) w->room[k] = n / K;
    for (size_t i = 0; i < n; i++) {
        const double *cost = w->cost + w->order[i] * K;
        size_t best = K;
        for (size_t k = 0; k < K; k++)
            if (w->room[k] && (best == K || cost[k] < cost[best])) best = k;
        w->labels[w->order[i]] = (int32_t)best;
        w->room[best]--;
    }
    return QN_OK;
}

static qn_result find_close(work *w)
{
    enum { MANY = 4096, CLOSE = 8 };
    const size_t n = w->n, K = w->groups;
    if (n <= MANY || K <= CLOSE) return QN_OK;
    if (!w->close && !(w->close = qn_malloc(n * K))) return qn_no_memory(n * K);
    memset(w->close, 0, n * K);
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < CLOSE; c++) {
            size_t best = K;
            for (size_t k = 0; k < K; k++)
                if (!w->close[i * K + k] &&
                    (best == K || w->cost[i * K + k] < w->cost[i * K + best]))
                    best = k;
            w->close[i * K + best] = 1;
        }
    return QN_OK;
}

static bool exchange_one(work *w, size_t i)
{
    const size_t K = w->groups;
    const double *own = w->cost + i * K;
    double best = 1e-9;
    size_t with = w->n;
    for (size_t j = 0; j < w->n; j++) {
        const size_t a = (size_t)w->labels[i], b = (size_t)w->labels[j];
        if (a == b || (w->close && !w->close[i * K + b])) continue;
        const double *other = w->cost + j * K;
        const double gain = own[a] + other[b] - own[b] - other[a];
        if (gain > best) {
            best = gain;
            with = j;
        }
    }
    if (with == w->n) return false;
    const int32_t label = w->labels[i];
    w->labels[i] = w->labels[with];
    w->labels[with] = label;
    return true;
}

static qn_result one_start(work *w, size_t first, size_t rounds, int32_t *labels, double *best)
{
    double own = INFINITY;
    farthest_first(w, first);
    for (size_t round = 0; round < rounds; round++) {
        QN_TRY(assign(w));
        QN_TRY(find_close(w));
        bool moved = true;
        for (int pass = 0; pass < 50 && moved; pass++) {
            moved = false;
            for (size_t i = 0; i < w->n; i++) moved |= exchange_one(w, i);
        }
        centres_of(w->x, w->n, w->d, w->labels, w->groups, w->c);
        double J = 0;
        for (size_t i = 0; i < w->n; i++)
            J += distance(w->x + i * w->d, w->c + (size_t)w->labels[i] * w->d, w->d);
        if (round && J >= own * (1 - 1e-6)) break;
        own = J;
        if (J < *best) {
            *best = J;
            memcpy(labels, w->labels, w->n * sizeof *labels);
        }
    }
    return QN_OK;
}

qn_result qn_groups_kmeans(const double *x, size_t n, size_t d, const qn_groups_opts *opts,
                           int32_t *labels, double *objective)
{
    const size_t K = opts->groups, starts = opts->restarts ? opts->restarts : 8;
    if (!K || !n || n % K)
        return qn_fail(QN_ERR_INVALID, "%zu groups do not divide %zu neurons", K, n);
    work w = { .x = x, .n = n, .d = d, .groups = K };
    w.c = qn_malloc(K * d * sizeof *w.c);
    w.cost = qn_malloc(n * K * sizeof *w.cost);
    w.regret = qn_malloc(n * sizeof *w.regret);
    w.near = qn_malloc(n * sizeof *w.near);
    w.order = qn_malloc(n * sizeof *w.order);
    w.room = qn_malloc(K * sizeof *w.room);
    w.labels = qn_malloc(n * sizeof *w.labels);
    qn_result r = QN_OK;
    if (!w.c || !w.cost || !w.regret || !w.near || !w.order || !w.room || !w.labels)
        r = qn_no_memory(n * K * sizeof *w.cost);
    *objective = INFINITY;
    for (size_t s = 0; r == QN_OK && s < starts; s++)
        r = one_start(&w, s * n / starts, opts->rounds ? opts->rounds : 50, labels, objective);
    free_work(&w);
    return r;
}

// ------------------------------------------------------------------------------ graph

void qn_groups_coactivation(const uint8_t *on, size_t tokens, size_t n, double *counts)
{
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; on[t * n + i] && k < n; k++)
                if (k != i && on[t * n + k]) counts[i * n + k]++;
}

static double weight_to(const double *w, size_t n, const int32_t *labels, size_t i, int32_t group)
{
    double sum = 0;
    for (size_t k = 0; k < n; k++)
        if (labels[k] == group && k != i) sum += w[i * n + k];
    return sum;
}

void qn_groups_exchange(const double *w, size_t n, size_t groups, int32_t *labels)
{
    enum { PASSES = 20 };
    (void)groups;
    bool moved = true;
    for (int pass = 0; pass < PASSES && moved; pass++) {
        moved = false;
        for (size_t i = 0; i < n; i++) {
            double best = 1e-9;
            size_t with = n;
            const double own = weight_to(w, n, labels, i, labels[i]);
            for (size_t j = 0; j < n; j++) {
                if (labels[i] == labels[j]) continue;
                const double gain = weight_to(w, n, labels, i, labels[j]) - own +
                                    weight_to(w, n, labels, j, labels[i]) -
                                    weight_to(w, n, labels, j, labels[j]) - 2 * w[i * n + j];
                if (gain > best) {
                    best = gain;
                    with = j;
                }
            }
            if (with == n) continue;
            const int32_t label = labels[i];
            labels[i] = labels[with];
            labels[with] = label;
            moved = true;
        }
    }
}

double qn_groups_inside(const double *w, size_t n, const int32_t *labels)
{
    double inside = 0, all = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            all += w[i * n + k];
            if (labels[i] == labels[k]) inside += w[i * n + k];
        }
    return all > 0 ? inside / all : 0;
}

// ------------------------------------------------------------------------------ choosing

void qn_groups_score(const float *acts, size_t n, const int32_t *labels, size_t groups, double *score)
{
    memset(score, 0, groups * sizeof *score);
    for (size_t i = 0; i < n; i++) score[labels[i]] += fabs((double)acts[i]);
}

qn_result qn_groups_choose(const double *score, size_t groups, size_t m, int32_t *chosen)
{
    uint32_t *order = qn_malloc((groups + 1) * sizeof *order);
    if (!order) return qn_no_memory(groups * sizeof *order);
    qn_result r = qn_score_order(score, groups, order);
    for (size_t i = 0; r == QN_OK && i < m; i++) chosen[i] = (int32_t)order[i];
    qn_free(order);
    return r;
}

void qn_groups_order(const int32_t *labels, size_t n, size_t groups, int32_t *perm)
{
    size_t at = 0;
    for (size_t g = 0; g < groups; g++)
        for (size_t i = 0; i < n; i++)
            if ((size_t)labels[i] == g) perm[at++] = (int32_t)i;
}
