// Records as pictures and as one page that needs nothing beside it.
#ifndef QN_BENCH_CHART_H
#define QN_BENCH_CHART_H

#include "bench/measure.h"
#include "io/textbuf.h"

// Operations per second over operations per byte, below the ceilings: what has both rates.
// `peaks` may lack ceilings; they are then left out.
void qn_bench_roofline(const qn_bench_log *log, const qn_peaks *peaks, qn_textbuf *out);
// The share of the nearer ceiling, a bar for each record that has one.
void qn_bench_bars(const qn_bench_log *log, qn_textbuf *out);
// Device, both charts and every record.
void qn_bench_html(const qn_bench_log *log, const qn_peaks *peaks, qn_textbuf *out);

// The ceilings that records of `bench peak` tell; zeros where there are none.
qn_peaks qn_bench_peaks_in(const qn_bench_log *log);

#endif
