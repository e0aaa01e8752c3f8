// Experts that resemble each other: which hidden units correspond, which experts belong together,
// and their weighted mean. [bricks]
#ifndef QN_BRICKS_ALIGN_H
#define QN_BRICKS_ALIGN_H

#include <quoin/base.h>

// The assignment p that maximises sum_i S[i, p[i]] by the Hungarian method. s [n, n].
qn_result qn_align_assign(const double *s, size_t n, int32_t *p);

// One expert: in [d, h], out [h, d].
typedef struct qn_expert {
    const float *in, *out;
} qn_expert;

// Which hidden unit of `e` corresponds to unit i of `lead`: p[i].
qn_result qn_align_units(qn_expert lead, qn_expert e, size_t d, size_t h, int32_t *p);

// Average linkage down to `groups`; dist [n, n] symmetric. Labels are numbered by smallest member.
qn_result qn_align_cluster(const double *dist, size_t n, size_t groups, int32_t *labels);
// The `groups` most used experts lead, every other one joins the nearest leader.
qn_result qn_align_lead(const double *dist, const double *usage, size_t n, size_t groups,
                        int32_t *labels);

// Mean of experts with the given weights (normalised; all zero: equal), units permuted to match the
// most used one when `align`. usage [count]. in [d, h] and out [h, d] receive the result.
qn_result qn_align_merge(const qn_expert *e, const double *usage, const double *weight, size_t count,
                         size_t d, size_t h, bool align, float *in, float *out);

#endif
