// What neurons do: instance means of activations, functionality scores, sparsity. [bricks]
// All in double precision; equal values are ordered by index.
#ifndef QN_BRICKS_SCORE_H
#define QN_BRICKS_SCORE_H

#include <quoin/base.h>

// mean[n] = mean over tokens of |acts|. acts [tokens, neurons].
void qn_score_mean(const float *acts, size_t tokens, size_t neurons, float *mean);

// Average precision of scores for labels: sorted by score, descending; every group of equal scores
// is one step, AP = sum over steps of (recall_s - recall_{s-1}) precision_s. score[i * stride],
// label[i * label_stride] != 0. NaN without a positive label.
qn_result qn_score_precision(const float *score, size_t stride, const uint8_t *label,
                             size_t label_stride, size_t count, double *out);

// norm[i] = Euclidean norm of column i of w [rows, columns].
void qn_score_norms(const float *w, size_t rows, size_t columns, double *norm);
// indicator[i] = |a_i|, times norm[i] unless NULL.
void qn_score_indicator(const float *acts, const double *norm, size_t neurons, double *indicator);

// mask[i] = 1 for the `count` lowest indicators of one token; among equals the lower index first.
qn_result qn_score_lowest(const double *indicator, size_t neurons, size_t count, uint8_t *mask);

// The `count` highest of `neurons` scores as ascending indices.
qn_result qn_score_top(const float *score, size_t neurons, size_t count, int32_t *top);
// max(1, int(share * neurons)).
size_t qn_score_top_count(double share, size_t neurons);
// |A and B| / |A| of two ascending sets of equal size.
double qn_score_overlap(const int32_t *a, const int32_t *b, size_t count);

// Positions of values in descending order, equal ones by position.
qn_result qn_score_order(const double *value, size_t count, uint32_t *order);

#endif
