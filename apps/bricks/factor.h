// Low-rank factors: adapters applied to matrices, and differences taken apart. [bricks]
#ifndef QN_BRICKS_FACTOR_H
#define QN_BRICKS_FACTOR_H

#include <quoin/base.h>

// s = alpha / r, or alpha / sqrt(r) when rank-stabilised.
double qn_factor_scale(double alpha, size_t r, bool stabilised);

// w += s b a. w [rows, columns], b [rows, r], a [r, columns]; summed in double, rounded once.
void qn_factor_apply(float *w, const float *a, const float *b, size_t rows, size_t columns, size_t r,
                     double s);

// x = u diag(s) vt by one-sided Jacobi rotations, s descending. x [m, n]; with q = min(m, n):
// u [m, q], s [q], vt [q, n].
qn_result qn_factor_svd(const double *x, size_t m, size_t n, double *u, double *s, double *vt);

// The best approximation b a of rank r: a [r, n] = sqrt(S) V', b [m, r] = U sqrt(S).
qn_result qn_factor_extract(const float *delta, size_t m, size_t n, size_t r, float *a, float *b);

// A router row from prompts: the normalised sum of the embedding rows of all tokens, minus the same
// for negative ones, normalised. embed [V, d]; ids of several prompts one behind the other.
void qn_factor_gate(const float *embed, size_t d, const int32_t *positive, size_t positives,
                    const int32_t *negative, size_t negatives, double *out);

// Element i of the random numbers in [0, 1) that belong to a tensor of model m.
double qn_factor_uniform(uint64_t seed, const char *tensor, uint32_t m, uint64_t i);

#endif
