// What every benchmark reports: one record a measurement, printed as a table, JSON lines or CSV,
// saved as JSON lines, read back for comparisons.
#ifndef QN_RECORD_H
#define QN_RECORD_H

#include "fail.h"
#include "mem.h"

#include <quoin/engine.h>
#include <stdio.h>

typedef enum qn_bench_status {
    QN_BENCH_OK = 0,
    QN_BENCH_FLAGGED,     // above what the device can do: the figure or the ceiling is wrong
    QN_BENCH_UNSUPPORTED, // this device or build cannot; there is no figure
    QN_BENCH_FAILED,      // wrong values, a failed call, a lost device; there is no figure
    QN_BENCH_STATUS_COUNT
} qn_bench_status;
const char *qn_bench_status_name(qn_bench_status s); // "ok", "flagged", ...

// Seconds of one run: the median of `runs`, and the bounds that a tenth of them are below and
// above. Rates and shares are NAN where there is none to give: it is left out, never a zero.
typedef struct qn_bench_record {
    const char *bench; // "peak", "ops", "model", "shader", "tune"
    char name[64];     // "matmul"
    char variant[96];  // what of it: "forward", "gradient d(matmul).matmul"
    char shape[96];    // "nn_512", "[1024,256]"
    char form[16];     // class of the kernels: "flat", "tiled"
    double seconds_median, seconds_p10, seconds_p90;
    int64_t runs;
    double gflops, gbytes_per_s; // by the operation's own counts; bytes read and written
    double fraction_of_peak;     // of the nearer ceiling, see qn_bench_judge()
    char bound[16];              // that ceiling: "arithmetic", "memory"
    double tokens_per_s;
    double memory; // bytes of device memory at most
    qn_bench_status status;
    char note[256];
} qn_bench_record;

// A record without figures.
qn_bench_record qn_bench_record_start(const char *bench, const char *name, const char *variant,
                                      const char *shape);

// Everything one invocation measured, and on what. Zero-initialise.
typedef struct qn_bench_log {
    char device[256], driver[256], commit[48], form[16];
    qn_bench_record *records;
    size_t count, capacity;
    qn_arena arena;                                     // names of read records
    void (*done)(void *user, const qn_bench_record *r); // after each record; may be NULL
    void *user;
} qn_bench_log;

void qn_bench_log_start(qn_bench_log *log, const qn_device_info *info);
// Copies the record; takes the form from the log when it has none.
qn_result qn_bench_log_add(qn_bench_log *log, const qn_bench_record *r);
void qn_bench_log_free(qn_bench_log *log);

// The revision this program was built from, "unknown" outside a repository.
const char *qn_bench_commit(void);

// A record as one line of JSON, without the line break.
qn_result qn_bench_json_line(const qn_bench_log *log, const qn_bench_record *r, char **text);
// All of them to a file, atomically.
qn_result qn_bench_save(const qn_bench_log *log, const char *path);
// Adds the record that such a line holds; `name` stands for the line in messages.
qn_result qn_bench_read_line(qn_bench_log *log, const char *name, const char *line, size_t size);
// Reads such a file. Everything in it is checked; QN_ERR_FORMAT names file and line.
qn_result qn_bench_load(const char *path, qn_bench_log *out);

#endif
