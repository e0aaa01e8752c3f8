// The difference of two models as a LoRA adapter in PEFT's files.
#ifndef QN_BRICKS_EXTRACT_H
#define QN_BRICKS_EXTRACT_H

#include "checkpoint.h"

typedef struct qn_extract_opts {
    const char *model, *base, *out; // folders; `out` must not exist
    const char *models;             // folder in which the models are looked for; NULL: none
    int64_t max_rank;
    double sv_epsilon;             // singular values up to this are left out
    bool undistributed;            // A = S V', B = U instead of sqrt(S) on both sides
    bool embed_lora;               // embeddings as factors instead of whole
    bool skip_undecomposable;      // leave out norms and other 1-D tensors
    const char *include, *exclude; // POSIX extended expressions on module names; NULL: none
    const char *const *save;       // ends of names of modules that are saved whole
    size_t save_count;
} qn_extract_opts;

typedef struct qn_extract_stats {
    size_t factored, whole;
    int64_t rank; // the largest
    uint64_t bytes;
} qn_extract_stats;

qn_result qn_extract_lora(qn_device *dev, const qn_extract_opts *opts, qn_extract_stats *stats);

// x [m, n] ~ u diag(s) vt with *rank values, at most `most` and those above `epsilon`. Exact for
// small matrices; else by a random range with two power steps, oversampled by 16 [halko]. u [m, most],
// s [most], vt [most, n] hold `most` columns and rows.
qn_result qn_extract_factors(qn_device *dev, const float *x, size_t m, size_t n, size_t most,
                             double epsilon, double *u, double *s, double *vt, size_t *rank);

#endif
