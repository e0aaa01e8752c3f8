// Proves an operation on a device from its table of cases. Knows no test framework: ctest and
// `quoin check` both use it.
#ifndef QN_RUN_H
#define QN_RUN_H

#include "case.h"

#include "bench/check.h"
#include "bench/ops.h"

// For each case whose name contains `filter` (NULL: all) and each device:
//   forward       against the double reference, poisoned arena: unwritten outputs are NaN
//   guards        nothing written outside the outputs, inputs unchanged
//   repeat        a second run gives the same bits
//   in place      outputs laid over inputs give the same bits as outputs apart
//   gradient      analytic against differences of the reference; in place or not, the same bits
// and each refusal on the first device. Appends to `out`. What a device gets wrong is recorded
// there; the call itself fails only where host memory is short.
qn_result qn_run_op(const char *op, const qn_op_test *test, qn_device *const *devs, size_t count,
                    const char *filter, qn_check_op *out);

// Times the cases marked for it, forward and backward, each proved first: `quoin bench ops`.
qn_result qn_time_op(const char *op, const qn_op_test *test, qn_device *dev,
                     const qn_bench_ops_opts *opts, qn_bench_log *log);

// One suite for each row of graph/ops.def, for qn_check_register().
extern const qn_check_suite qn_op_suites[];

#endif
