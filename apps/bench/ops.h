// `quoin bench ops`: operations timed on shapes that matter: the larger cases of the tests, and the
// shapes of a training step of the presets.
#ifndef QN_BENCH_OPS_H
#define QN_BENCH_OPS_H

#include "bench/measure.h"

typedef enum qn_bench_proof {
    QN_PROOF_FORWARD = 0, // values against the double reference before they are timed
    QN_PROOF_GRADIENT,    // gradients as well; takes minutes for large shapes
    QN_PROOF_NONE,
} qn_bench_proof;

typedef struct qn_bench_ops_opts {
    const char *const *ops; // these only; op_count 0: all
    size_t op_count;
    const char *const *filters; // cases whose name contains one of them; filter_count 0: all
    size_t filter_count;
    qn_bench_proof proof;
    bool backward; // time gradients too
    qn_measure_opts measure;
    const qn_peaks *peaks;
    bool (*go_on)(void); // asked between measurements; NULL: always
} qn_bench_ops_opts;

// Whether a case of this name is asked for.
bool qn_bench_wants(const qn_bench_ops_opts *opts, const char *name);
// The cases of the registered suites that are marked for timing.
qn_result qn_bench_cases(qn_device *dev, const qn_bench_ops_opts *opts, qn_bench_log *log);

typedef struct qn_bench_model_opts {
    const char *preset;
    int64_t batch, positions, vocab;
    qn_dtype weights;
    qn_measure_opts measure;
    const qn_peaks *peaks;
} qn_bench_model_opts;

// One record for each operation and shape in a training step of the preset, with the sum over its
// nodes; the last one is the whole step. Nodes of operations that are not in `ops` are left out.
qn_result qn_bench_step_ops(qn_device *dev, const qn_bench_model_opts *model,
                            const qn_bench_ops_opts *opts, qn_bench_log *log);

#endif
