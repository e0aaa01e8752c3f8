// Times, their middle and their spread; rates as shares of ceilings.
#include "bench/measure.h"

#include "platform.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The value at share q of a sorted list, between neighbours where it falls between two.
static double quantile(const double *v, size_t count, double q)
{
    double at = q * (double)(count - 1);
    size_t i = (size_t)at;
    if (i + 1 >= count) return v[count - 1];
    return v[i] + (at - (double)i) * (v[i + 1] - v[i]);
}

qn_times qn_times_of(double *seconds, size_t count)
{
    qsort(seconds, count, sizeof *seconds, by_value);
    return (qn_times){
        .median = quantile(seconds, count, 0.5),
        .p10 = quantile(seconds, count, 0.1),
        .p90 = quantile(seconds, count, 0.9),
        .best = seconds[0],
        .runs = (int64_t)count,
    };
}

static qn_times times_of_part(const double *took, size_t runs, size_t parts, size_t part,
                              double *column)
{
    for (size_t i = 0; i < runs; i++) column[i] = took[i * parts + part];
    return qn_times_of(column, runs);
}

qn_result qn_measure_parts(const qn_measure_opts *opts,
                           qn_result (*once)(void *user, double *seconds), void *user, size_t parts,
                           qn_times *out)
{
    const double limit = opts && opts->seconds > 0 ? opts->seconds : 0.3;
    const size_t least = opts && opts->least ? (size_t)opts->least : 5,
                 most = opts && opts->most ? (size_t)opts->most : 2000;
    double *took = NULL, *column = NULL;
    size_t runs = 0, capacity = 0;
    QN_TRY(qn_grow((void **)&took, &capacity, parts, sizeof *took));
    qn_result r = once(user, took);
    const double start = qn_clock();
    while (r == QN_OK && (runs < least || (runs < most && qn_clock() - start < limit))) {
        r = qn_grow((void **)&took, &capacity, (runs + 1) * parts, sizeof *took);
        if (r == QN_OK) r = once(user, took + runs * parts);
        runs++;
    }
    if (r == QN_OK && !(column = qn_calloc(runs, sizeof *column)))
        r = qn_no_memory(runs * sizeof *column);
    for (size_t i = 0; r == QN_OK && i < parts; i++)
        out[i] = times_of_part(took, runs, parts, i, column);
    qn_free(column);
    qn_free(took);
    return r;
}

qn_result qn_measure(const qn_measure_opts *opts, qn_result (*once)(void *user, double *seconds),
                     void *user, qn_times *out)
{
    return qn_measure_parts(opts, once, user, 1, out);
}

qn_result qn_recorded_open(qn_device *dev, bool stamps, qn_recorded *out)
{
    *out = (qn_recorded){ .repeats = 1 };
    out->stamps = stamps && (qn_device_describe(dev)->caps & QN_CAP_TIMESTAMPS);
    QN_TRY(qn_stream_create(dev, &(qn_stream_opts){ .profile = out->stamps }, &out->stream));
    return qn_stream_mark(out->stream, "work");
}

qn_result qn_recorded_run(void *recorded, double *seconds)
{
    qn_recorded *j = recorded;
    double start = qn_clock();
    QN_TRY(qn_stream_submit(j->stream));
    QN_TRY(qn_stream_wait(j->stream, j->timeout_ns ? j->timeout_ns : UINT64_MAX));
    *seconds = qn_clock() - start;
    qn_span span = { 0 };
    size_t count;
    if (j->stamps) QN_TRY(qn_stream_timings(j->stream, &span, 1, &count));
    if (j->stamps && span.seconds > 0) *seconds = span.seconds;
    *seconds /= j->repeats;
    return QN_OK;
}

// Rounding of clocks and ceilings: beyond it a share above one is a mistake somewhere.
static const double believable = 1.1;

void qn_bench_judge(qn_bench_record *r, const qn_times *t, double flops, double bytes,
                    const qn_peaks *peaks)
{
    r->seconds_median = t->median;
    r->seconds_p10 = t->p10;
    r->seconds_p90 = t->p90;
    r->runs = t->runs;
    if (!(t->median > 0)) {
        r->status = QN_BENCH_FLAGGED;
        snprintf(r->note, sizeof r->note, "took no time at all: the clock is too coarse");
        return;
    }
    if (flops > 0) r->gflops = 1e-9 * flops / t->median;
    if (bytes > 0) r->gbytes_per_s = 1e-9 * bytes / t->median;
    if (!peaks) return;
    const double arithmetic = peaks->types[QN_PEAK_F32].flops,
                 memory = qn_peak_memory(peaks, bytes);
    const double a = flops > 0 && arithmetic > 0 ? flops / arithmetic : 0,
                 m = bytes > 0 && memory > 0 ? bytes / memory : 0;
    if (!(a > 0) && !(m > 0)) return;
    r->fraction_of_peak = fmax(a, m) / t->median;
    snprintf(r->bound, sizeof r->bound, "%s", a > m ? "arithmetic" : "memory");
    if (r->fraction_of_peak > believable && r->status == QN_BENCH_OK) {
        r->status = QN_BENCH_FLAGGED;
        snprintf(r->note, sizeof r->note, "above the measured ceiling of the device");
    }
}

qn_result qn_bench_excuse(qn_bench_record *r, qn_result result)
{
    if (result == QN_OK) return QN_OK;
    r->status = result == QN_ERR_UNSUPPORTED ? QN_BENCH_UNSUPPORTED : QN_BENCH_FAILED;
    snprintf(r->note, sizeof r->note, "%.250s", qn_error_message());
    bool fatal =
        result == QN_ERR_NO_MEMORY || result == QN_ERR_DEVICE_LOST || result == QN_ERR_CANCELLED;
    return fatal ? result : QN_OK;
}
