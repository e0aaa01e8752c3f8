// Ceilings of a device: arithmetic by type, copies by size, launches, submissions; and the rate of
// its matrix products.
#include "bench/measure.h"
#include "platform.h"

#include "args.h"
#include "args/fill_index.h"
#include "args/peak.h"
#include <math.h>
#include <quoin/ops.h>
#include <string.h>

// ------------------------------------------------------------------------------ arithmetic

static const struct peak_type {
    const char *name, *what;
    qn_kernel kernel;
    uint32_t needs;     // capabilities
    double operations;  // of an invocation's round
    float factor, term; // bits, for integers
} types[QN_PEAK_TYPES] = {
    [QN_PEAK_F32] = { "f32", "multiply, add", QN_K_peak_f32, 0, 24 * 8 * 2, 0.999f, 0.001f },
    [QN_PEAK_F16] = { "f16", "multiply, add", QN_K_peak_f16, QN_CAP_F16_MATH, 24 * 8 * 4, 0.999f,
                      0.001f },
    [QN_PEAK_I32] = { "i32", "multiply, add", QN_K_peak_i32, 0, 24 * 8 * 2, 0.999f, 0.001f },
    [QN_PEAK_I8] = { "i8", "dot of four, add", QN_K_peak_i8, QN_CAP_INT8_DOT, 24 * 8 * 8, 0.999f,
                     0.001f },
};

static qn_result measure_type(qn_device *dev, const struct peak_type *t,
                              const qn_measure_opts *opts, qn_times *times, double *operations)
{
    const qn_device_info *info = qn_device_describe(dev);
    if ((info->caps & t->needs) != t->needs)
        return qn_fail(QN_ERR_UNSUPPORTED, "the device lacks %s", qn_cap_name(t->needs));
    const uint32_t group = 64, groups = info->software ? 64 : 8192,
                   rounds = info->software ? 512 : 256;
    qn_recorded j = { 0 };
    qn_buffer *y = NULL;
    peak_args args = { .rounds = rounds, .factor = t->factor, .term = t->term };
    qn_result r = qn_recorded_open(dev, true, &j);
    if (r == QN_OK)
        r = qn_buffer_create(
            dev, &(qn_buffer_opts){ .size = (uint64_t)group * groups * sizeof(float), .name = "y" },
            &y);
    if (r == QN_OK)
        r = qn_stream_dispatch(j.stream, &(qn_dispatch){ .kernel = t->kernel,
                                                         .buffers = { { .buffer = y } },
                                                         .args = &args,
                                                         .args_size = sizeof args,
                                                         .group_size = group,
                                                         .groups = { groups, 1, 1 },
                                                         .rounds = rounds });
    if (r == QN_OK) r = qn_measure(opts, qn_recorded_run, &j, times);
    *operations = (double)group * groups * rounds * t->operations;
    qn_stream_destroy(&j.stream);
    qn_buffer_destroy(&y);
    return r;
}

// ------------------------------------------------------------------------------ memory

static const double copy_sizes[QN_PEAK_SIZES] = { 1 << 20, 1 << 23, 1 << 26, 1 << 29 };

// Copies half of `bytes` into the other half, as often as makes a time worth reading.
static qn_result measure_copy(qn_device *dev, double bytes, const qn_measure_opts *opts,
                              qn_times *times)
{
    const uint64_t half = (uint64_t)bytes / 2;
    const qn_device_usage usage = qn_device_usage_now(dev);
    if (usage.allocated + 2 * half > usage.limit)
        return qn_fail(QN_ERR_UNSUPPORTED, "needs %.0f MiB of device memory", bytes / (1 << 20));
    const int repeats = bytes < 1 << 26 ? 16 : 1;
    qn_recorded j = { 0 };
    qn_buffer *a = NULL, *b = NULL;
    qn_result r = qn_buffer_create(dev, &(qn_buffer_opts){ .size = half, .name = "from" }, &a);
    if (r == QN_OK) r = qn_buffer_create(dev, &(qn_buffer_opts){ .size = half, .name = "to" }, &b);
    if (r == QN_OK) r = qn_recorded_open(dev, true, &j);
    for (int i = 0; r == QN_OK && i < repeats; i++)
        r = qn_stream_copy(j.stream, (qn_range){ .buffer = b }, (qn_range){ .buffer = a });
    j.repeats = repeats;
    if (r == QN_OK) r = qn_measure(opts, qn_recorded_run, &j, times);
    qn_stream_destroy(&j.stream);
    qn_buffer_destroy(&a);
    qn_buffer_destroy(&b);
    return r;
}

double qn_peak_memory(const qn_peaks *peaks, double bytes)
{
    double best = 0;
    for (int i = QN_PEAK_SIZES; i-- > 0;) {
        if (best > 0 && peaks->copies[i].bytes < bytes) break;
        best = fmax(best, peaks->copies[i].bytes_per_s);
    }
    return best;
}

// ------------------------------------------------------------------------------ dispatches

// Runs `count` tiny dispatches that depend on each other, timed by the host.
static qn_result measure_dispatches(qn_device *dev, int count, const qn_measure_opts *opts,
                                    qn_times *times)
{
    qn_recorded j = { 0 };
    qn_buffer *y = NULL;
    fill_index_args args = { .count = 64 };
    qn_result r = qn_buffer_create(dev, &(qn_buffer_opts){ .size = 256, .name = "y" }, &y);
    if (r == QN_OK) r = qn_recorded_open(dev, false, &j);
    for (int i = 0; r == QN_OK && i < count; i++)
        r = qn_stream_dispatch(j.stream, &(qn_dispatch){ .kernel = QN_K_fill_index,
                                                         .buffers = { { .buffer = y } },
                                                         .args = &args,
                                                         .args_size = sizeof args,
                                                         .groups = { 1, 1, 1 } });
    if (r == QN_OK) r = qn_measure(opts, qn_recorded_run, &j, times);
    qn_stream_destroy(&j.stream);
    qn_buffer_destroy(&y);
    return r;
}

// ------------------------------------------------------------------------------ all of them

static qn_result add(qn_bench_log *log, qn_bench_record *record, qn_result r)
{
    r = qn_bench_excuse(record, r);
    if (log && r == QN_OK) r = qn_bench_log_add(log, record);
    return r;
}

static qn_result types_of(qn_device *dev, const qn_measure_opts *opts, qn_bench_log *log,
                          qn_peaks *out)
{
    for (int i = 0; i < (log ? QN_PEAK_TYPES : QN_PEAK_F32 + 1); i++) {
        qn_bench_record record = qn_bench_record_start("peak", types[i].name, types[i].what, "");
        qn_times t;
        double operations = 0;
        qn_result r = measure_type(dev, &types[i], opts, &t, &operations);
        if (r == QN_OK) {
            qn_bench_judge(&record, &t, operations, 0, NULL);
            out->types[i].flops = operations / t.best;
        }
        QN_TRY(add(log, &record, r));
    }
    return QN_OK;
}

static qn_result copies_of(qn_device *dev, const qn_measure_opts *opts, qn_bench_log *log,
                           qn_peaks *out)
{
    for (int i = 0; i < QN_PEAK_SIZES; i++) {
        char shape[32];
        snprintf(shape, sizeof shape, "%.0f MiB", copy_sizes[i] / (1 << 20));
        qn_bench_record record =
            qn_bench_record_start("peak", "memory", "copy, read and written", shape);
        qn_times t;
        qn_result r = measure_copy(dev, copy_sizes[i], opts, &t);
        if (r == QN_OK) {
            qn_bench_judge(&record, &t, 0, copy_sizes[i], NULL);
            out->copies[i].bytes = copy_sizes[i];
            out->copies[i].bytes_per_s = copy_sizes[i] / t.best;
        }
        QN_TRY(add(log, &record, r));
    }
    return QN_OK;
}

static qn_result dispatches_of(qn_device *dev, const qn_measure_opts *opts, qn_bench_log *log,
                               qn_peaks *out)
{
    enum { MANY = 256 };
    qn_bench_record submit = qn_bench_record_start("peak", "submit",
                                                   "one tiny dispatch, until done", ""),
                    launch = qn_bench_record_start("peak", "launch", "one of 256 dispatches", "");
    qn_times one, many;
    qn_result r = measure_dispatches(dev, 1, opts, &one);
    if (r == QN_OK) qn_bench_judge(&submit, &one, 0, 0, NULL);
    if (r == QN_OK) out->submit = one.median;
    QN_TRY(add(log, &submit, r));
    r = measure_dispatches(dev, MANY, opts, &many);
    if (r == QN_OK) {
        many.median = fmax(many.median - one.median, 0) / (MANY - 1);
        many.p10 = fmax(many.p10 - one.median, 0) / (MANY - 1);
        many.p90 = fmax(many.p90 - one.median, 0) / (MANY - 1);
        qn_bench_judge(&launch, &many, 0, 0, NULL);
        out->launch = many.median;
    }
    return add(log, &launch, r);
}

qn_result qn_peaks_measure(qn_device *dev, const qn_measure_opts *opts, qn_bench_log *log,
                           qn_peaks *out)
{
    *out = (qn_peaks){ 0 };
    QN_TRY(types_of(dev, opts, log, out));
    QN_TRY(copies_of(dev, opts, log, out));
    return log ? dispatches_of(dev, opts, log, out) : QN_OK;
}

// ------------------------------------------------------------------------------ products

static qn_result best_of(qn_plan *plan, int runs, double *seconds)
{
    *seconds = 0;
    for (int i = 0; i <= runs; i++) {
        double start = qn_clock();
        QN_TRY(qn_plan_run(plan));
        QN_TRY(qn_plan_wait(plan));
        double took = qn_clock() - start;
        if (i > 0 && (*seconds == 0 || took < *seconds)) *seconds = took; // run 0 compiles
    }
    return QN_OK;
}

static qn_result measure(qn_graph *g, qn_plan **plan, int64_t n, int products, int runs,
                         double *flops_per_second)
{
    const qn_tensor *a = qn_input(g, "a", QN_F32, QN_SHAPE(n, n));
    const qn_tensor *x = a;
    for (int i = 0; i < products; i++) x = qn_matmul(g, x, a, NULL);
    qn_plan_opts opts = { .outputs = &x, .output_count = 1 };
    QN_TRY(qn_plan_create(g, &opts, plan));
    const uint64_t size = (uint64_t)(n * n) * sizeof(float);
    float *zeros = qn_calloc((size_t)(n * n), sizeof *zeros);
    if (!zeros) return qn_no_memory(size);
    qn_result r = qn_plan_set(*plan, a, zeros, size);
    qn_free(zeros);
    QN_TRY(r);
    double seconds;
    QN_TRY(best_of(*plan, runs, &seconds));
    *flops_per_second = 2.0 * (double)n * (double)n * (double)n * products / seconds;
    return QN_OK;
}

qn_result qn_peak_matmul(qn_device *dev, double *flops_per_second)
{
    const bool software = qn_device_describe(dev)->software;
    qn_graph *g = NULL;
    qn_plan *plan = NULL;
    QN_TRY(qn_graph_create(dev, &g));
    qn_result r = measure(g, &plan, software ? 256 : 2048, 4, 5, flops_per_second);
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    return r;
}
