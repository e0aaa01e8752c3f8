// How quoin measures: a warm-up that compiles, then runs until there are enough of them and the
// time is up; median and tenths of what they took; a rate as a share of measured ceilings.
#ifndef QN_MEASURE_H
#define QN_MEASURE_H

#include "bench/peak.h"
#include "bench/record.h"

#include <quoin/graph.h>

typedef struct qn_measure_opts {
    double seconds;  // time to spend on one measurement; 0: 0.3
    int least, most; // runs, whatever the time; 0: 5 and 2,000
} qn_measure_opts;

typedef struct qn_times {
    double median, p10, p90, best;
    int64_t runs;
} qn_times;

// Of `count` > 0 values, which are sorted in place.
qn_times qn_times_of(double *seconds, size_t count);

// once() does the work once and says how long it took.
qn_result qn_measure(const qn_measure_opts *opts, qn_result (*once)(void *user, double *seconds),
                     void *user, qn_times *out);

// The same for work that consists of `count` parts: once() gives the seconds of each.
qn_result qn_measure_parts(const qn_measure_opts *opts,
                           qn_result (*once)(void *user, double *seconds), void *user, size_t count,
                           qn_times *out);

// A recorded stream as work for qn_measure(): open, record, measure qn_recorded_run(), destroy the
// stream. `stamps`: the device's own clock tells, where it has one; else the host's.
typedef struct qn_recorded {
    qn_stream *stream;
    bool stamps;
    double repeats;      // how often the work was recorded; times are divided by it
    uint64_t timeout_ns; // of one run; 0: none
} qn_recorded;
qn_result qn_recorded_open(qn_device *dev, bool stamps, qn_recorded *out);
qn_result qn_recorded_run(void *recorded, double *seconds);

// Fills in times and rates of work that is `flops` operations and `bytes` moved a run (0: not
// counted), and its share of the ceiling that is nearer: arithmetic (of the record's type, f32), or
// memory for that amount. `peaks` NULL: no share. More than the ceiling allows flags the record.
void qn_bench_judge(qn_bench_record *r, const qn_times *t, double flops, double bytes,
                    const qn_peaks *peaks);

// A failed measurement: QN_ERR_UNSUPPORTED makes the record unsupported, QN_ERR_NO_MEMORY and a
// lost device are passed on, everything else is a failed record. The message goes into the note.
qn_result qn_bench_excuse(qn_bench_record *r, qn_result result);

#endif
