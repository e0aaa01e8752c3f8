// `quoin bench`: what its parts share. The options are one struct, as every part reads some.
#ifndef QN_BENCH_COMMAND_H
#define QN_BENCH_COMMAND_H

#include "bench/ops.h"
#include "cli/command.h"
#include "cli/report.h"

typedef struct qn_bench_opts {
    bool csv, forward_only;
    const char *save, *baseline, *html, *svg, *filter, *preset;
    double seconds;
    int proof, dtype;
    int64_t batch, length, vocab;
    // shader
    qn_opt_list defines, groups, sizes, fills, constants, push, expect, outputs;
    int64_t elements;
    double flops, bytes, tolerance, limit;
} qn_bench_opts;

typedef struct qn_bench_run {
    const qn_cli *cli;
    const qn_bench_opts *o;
    qn_context *ctx;
    qn_device *dev;
    qn_peaks peaks;
    qn_bench_log log;
    qn_report *report; // the table or CSV being printed
    qn_result printed;
} qn_bench_run;

// Parts with a file of their own. Those that open no device in this process get run->dev NULL.
qn_result qn_bench_shader(qn_bench_run *run);

#endif
