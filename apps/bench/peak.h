// What a device reaches at best: measured, not looked up.
#ifndef QN_PEAK_H
#define QN_PEAK_H

#include <quoin/graph.h>

struct qn_bench_log;
struct qn_measure_opts;

typedef enum qn_peak_type {
    QN_PEAK_F32 = 0,
    QN_PEAK_F16,
    QN_PEAK_I32,
    QN_PEAK_I8, // dot products of four bytes, summed in 32 bits
    QN_PEAK_TYPES
} qn_peak_type;

#define QN_PEAK_SIZES 4

// Ceilings; 0 where a device has none.
typedef struct qn_peaks {
    struct {
        double flops; // operations per second of independent multiplications and additions
    } types[QN_PEAK_TYPES];
    struct {
        double bytes; // read and written by one copy
        double bytes_per_s;
    } copies[QN_PEAK_SIZES]; // from what fits a cache to what does not, ascending
    double launch;           // seconds of a dispatch that depends on the one before
    double submit; // seconds from submitting one tiny dispatch until it is known to be done
} qn_peaks;

// Takes a few seconds. Every ceiling becomes a record of `log`, also those that the device lacks.
// Without a log only what shares are made of is measured: f32 arithmetic and copies.
qn_result qn_peaks_measure(qn_device *dev, const struct qn_measure_opts *opts,
                           struct qn_bench_log *log, qn_peaks *out);

// Bytes per second at best for work that moves `bytes`: the fastest copy of at least this size, or
// of the largest size measured. What fits a cache may be faster than memory.
double qn_peak_memory(const qn_peaks *peaks, double bytes);

// Operations per second of the dense f32 matrix product of a size that fills the device: the best
// of a few runs. Takes some tenths of a second on a software driver.
qn_result qn_peak_matmul(qn_device *dev, double *flops_per_second);

#endif
