// `quoin bench`: what its parts share. The options are one struct; each part has the rows it reads.
#ifndef QN_BENCH_COMMAND_H
#define QN_BENCH_COMMAND_H

#include "bench/ops.h"
#include "cli/command.h"
#include "cli/report.h"

typedef struct qn_bench_opts {
    // results
    bool csv;
    const char *save, *baseline, *html, *svg;
    double seconds;
    // ops
    qn_opt_list filters;
    const char *preset, *config;
    int proof, dtype;
    bool forward_only;
    int64_t batch, length, vocab;
    // model
    qn_opt_list prompts, texts;
    int64_t tokens;
    int what;
    // tune
    double budget;
    bool dry_run;
    // shader
    qn_opt_list defines, groups, sizes, fills, constants, push, expect, outputs;
    int64_t elements;
    double flops, bytes, tolerance, limit;
} qn_bench_opts;

// Rows of every part that prints records.
#define QN_BENCH_RESULTS                                                                           \
    { "csv", 0, QN_AT_FLAG(qn_bench_opts, csv), .section = "Results", .help = "results as CSV" },  \
        { "save", 'o', QN_AT_PATH(qn_bench_opts, save), .value = "FILE",                           \
          .help = "also write the records to a file, for compare, report and --baseline" },        \
        { "html", 0, QN_AT_PATH(qn_bench_opts, html), .value = "FILE",                             \
          .help = "also write a page with charts and all records; needs nothing beside it" },      \
    {                                                                                              \
        "svg", 0, QN_AT_PATH(qn_bench_opts, svg),                                                  \
            .value = "DIR", .help = "also write roofline.svg and bars.svg there"                   \
    }
// Rows of every part that measures.
#define QN_BENCH_MEASURING                                                                         \
    QN_BENCH_RESULTS,                                                                              \
        { "baseline", 0, QN_AT_PATH(qn_bench_opts, baseline), .value = "FILE",                     \
          .help = "compare with saved records of this device; status 1 on a regression" },         \
    {                                                                                              \
        "time", 't', QN_AT_FLOAT(qn_bench_opts, seconds),                                          \
            .initial = "0.3", .min = 0.001, .max = 3600, .section = "Measuring",                   \
            .help = "seconds to spend on one measurement"                                          \
    }

typedef struct qn_bench_run {
    const qn_cli *cli;
    const qn_bench_opts *o;
    qn_context *ctx;
    qn_device *dev;
    qn_peaks peaks;
    qn_bench_log log, baseline;
    qn_report *report; // the table or CSV being printed
    qn_result printed;
} qn_bench_run;

typedef struct qn_bench_part {
    qn_result (*check)(qn_bench_run *run);   // the arguments, first of all; may be NULL
    bool no_device;                          // this process opens none
    qn_result (*measure)(qn_bench_run *run); // adds to run->log
} qn_bench_part;

// A part from its options to its exit status: device, printing, --baseline, files.
int qn_bench_do(const qn_cli *cli, const qn_bench_opts *o, const qn_bench_part *part);
// False once the user wants to stop.
bool qn_bench_go_on(void);

#endif
