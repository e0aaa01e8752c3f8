// Splitting the neurons of a feed-forward block into groups of equal size. [moefication]
#ifndef QN_BRICKS_GROUPS_H
#define QN_BRICKS_GROUPS_H

#include <quoin/base.h>

// x [n, d] divided row by row by its Euclidean norm; zero rows stay zero.
qn_result qn_groups_features(const float *x, size_t n, size_t d, double **out);

typedef struct qn_groups_opts {
    size_t groups;            // K, divides n
    size_t rounds, restarts;  // 0: 50, 8
} qn_groups_opts;

// Balanced k-means: labels[n] with n/K rows each that make J = sum |x_i - c_l(i)|^2 small. Farthest-
// first starts, assignment by regret, exchanges until none helps; the best of all starts and rounds.
// With more than 4096 rows exchanges look at the rows of the 8 nearest groups alone.
qn_result qn_groups_kmeans(const double *x, size_t n, size_t d, const qn_groups_opts *opts,
                           int32_t *labels, double *objective);
double qn_groups_objective(const double *x, size_t n, size_t d, const int32_t *labels, size_t groups);

// counts[n, n] += 1 for every token at which both neurons are on; on[tokens, n]. Diagonal 0.
void qn_groups_coactivation(const uint8_t *on, size_t tokens, size_t n, double *counts);
// Exchanges pairs of rows between groups while the weight inside groups grows; w [n, n].
void qn_groups_exchange(const double *w, size_t n, size_t groups, int32_t *labels);
// Weight inside groups over all weight.
double qn_groups_inside(const double *w, size_t n, const int32_t *labels);

// score[k] = sum of |a| over the neurons of group k, for one token.
void qn_groups_score(const float *acts, size_t n, const int32_t *labels, size_t groups, double *score);
// The m groups of highest score, equal ones by index.
qn_result qn_groups_choose(const double *score, size_t groups, size_t m, int32_t *chosen);
// Order that makes groups contiguous: perm[new] = old, groups ascending, old order within.
void qn_groups_order(const int32_t *labels, size_t n, size_t groups, int32_t *perm);

#endif
