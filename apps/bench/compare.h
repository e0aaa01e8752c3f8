// Two sets of records side by side.
#ifndef QN_BENCH_COMPARE_H
#define QN_BENCH_COMPARE_H

#include "bench/record.h"

typedef enum qn_bench_verdict {
    QN_DIFF_SAME = 0, // the spreads of both overlap
    QN_DIFF_FASTER,
    QN_DIFF_SLOWER, // a regression
    QN_DIFF_BROKEN, // measured before, not any more: a regression too
    QN_DIFF_MENDED,
    QN_DIFF_MISSING, // only before
    QN_DIFF_NEW,     // only after
    QN_DIFF_NEITHER, // measured in neither
    QN_DIFF_COUNT
} qn_bench_verdict;
const char *qn_bench_verdict_name(qn_bench_verdict v);

typedef struct qn_bench_diff {
    const qn_bench_record *before, *after; // NULL: not there
    double ratio;                          // time after over before; NAN
    qn_bench_verdict verdict;
} qn_bench_diff;

typedef struct qn_bench_diffs {
    qn_bench_diff *rows; // in the order of `before`, then what is new
    size_t count;
    size_t verdicts[QN_DIFF_COUNT];
} qn_bench_diffs;

// Pairs records by what was measured (bench, name, variant, shape, form). Slower means that the
// fast tenth of the later runs is slower than the slow tenth of the earlier ones, by more than 2 %;
// so noise as large as it was measured is no regression. QN_ERR_INVALID when the two have no
// measurement in common; both must outlive the result.
qn_result qn_bench_compare(const qn_bench_log *before, const qn_bench_log *after,
                           qn_bench_diffs *out);
void qn_bench_diffs_free(qn_bench_diffs *d);
// Whether there is a regression.
bool qn_bench_diffs_bad(const qn_bench_diffs *d);

#endif
