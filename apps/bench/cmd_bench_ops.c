// bench peak, bench ops: ceilings, and operations below them.
#include "bench/bench_command.h"
#include "bench/check.h"
#include "run.h"

// ------------------------------------------------------------------------------------ peak

static qn_measure_opts measuring(const qn_bench_run *run)
{
    return (qn_measure_opts){ .seconds = run->o->seconds };
}

static qn_result measure_peak(qn_bench_run *run)
{
    qn_measure_opts m = measuring(run);
    return qn_peaks_measure(run->dev, &m, &run->log, &run->peaks);
}

static int run_peak(const qn_cli *cli, const void *opts)
{
    return qn_bench_do(cli, opts, &(qn_bench_part){ .measure = measure_peak });
}

static const qn_opt peak_options[] = { QN_BENCH_MEASURING, { 0 } };

const qn_command qn_command_bench_peak = {
    .about = "Measures what the device reaches at best: independent multiplications and additions "
             "by type, dot products of bytes, copies from sizes that fit a cache to ones that do "
             "not, the time of one of many launches and of a submission. What the device lacks is "
             "said.",
    .examples = "quoin bench peak\nquoin bench peak --json",
    .options = peak_options,
    .opts_size = sizeof(qn_bench_opts),
    .run = run_peak,
};

// ------------------------------------------------------------------------------------ ops

static const qn_opt ops_options[] = {
    QN_BENCH_MEASURING,
    { "case", 0, QN_AT_LIST(qn_bench_opts, filters), .value = "TEXT,...",
      .help = "only cases whose name contains one of these" },
    { "proof", 0, QN_AT_CHOICE(qn_bench_opts, proof), .words = "forward|gradient|none",
      .initial = "forward", .help = "what is checked against double precision before timing" },
    { "forward-only", 0, QN_AT_FLAG(qn_bench_opts, forward_only), .help = "no gradients" },
    { "preset", 0, QN_AT_STRING(qn_bench_opts, preset), .value = "NAME",
      .section = "A training step",
      .help = "also the operations of a training step of this preset" },
    { "batch", 'b', QN_AT_INT(qn_bench_opts, batch), .initial = "8", .min = 1, .max = 65536,
      .help = "windows of a step" },
    { "length", 'l', QN_AT_INT(qn_bench_opts, length), .initial = "128", .min = 2, .max = 1 << 20,
      .help = "tokens of a window" },
    { "vocab", 0, QN_AT_INT(qn_bench_opts, vocab), .initial = "512", .min = 2, .max = 1 << 20,
      .help = "size of the vocabulary" },
    { "dtype", 0, QN_AT_CHOICE(qn_bench_opts, dtype), .words = "f32|f16|bf16", .initial = "f32",
      .help = "storage of weights in products" },
    { 0 },
};

static qn_result check_ops(qn_bench_run *run)
{
    qn_check_register(qn_op_suites);
    return qn_check_known(run->cli->args, run->cli->arg_count);
}

static qn_result measure_ops(qn_bench_run *run)
{
    static const qn_dtype dtypes[] = { QN_F32, QN_F16, QN_BF16 };
    const qn_bench_opts *o = run->o;
    const qn_measure_opts quick = { .seconds = 0.1 };
    qn_bench_ops_opts opts = {
        .ops = run->cli->args,
        .op_count = run->cli->arg_count,
        .filters = o->filters.items,
        .filter_count = o->filters.count,
        .proof = (qn_bench_proof)o->proof,
        .backward = !o->forward_only,
        .measure = measuring(run),
        .peaks = &run->peaks,
        .go_on = qn_bench_go_on,
    };
    QN_TRY(qn_peaks_measure(run->dev, &quick, NULL, &run->peaks));
    QN_TRY(qn_bench_cases(run->dev, &opts, &run->log));
    if (!o->preset && !run->log.count)
        return qn_fail(QN_ERR_INVALID, "no case of these operations is marked for timing%s",
                       o->filters.count ? " and has such a name" : "");
    if (!o->preset) return QN_OK;
    const qn_bench_model_opts model = {
        .preset = o->preset,
        .batch = o->batch,
        .positions = o->length,
        .vocab = o->vocab,
        .weights = dtypes[o->dtype],
        .measure = measuring(run),
        .peaks = &run->peaks,
    };
    return qn_bench_step_ops(run->dev, &model, &opts, &run->log);
}

static int run_ops(const qn_cli *cli, const void *opts)
{
    return qn_bench_do(cli, opts, &(qn_bench_part){ .check = check_ops, .measure = measure_ops });
}

const qn_command qn_command_bench_ops = {
    .args = "[OPERATION...]",
    .args_max = -1,
    .about = "Times operations on the larger shapes of the test cases, forward and backward, after "
             "their values were compared with double precision; with --preset also every operation "
             "of a training step, by phase and shape. The nearer ceiling is the one that would "
             "take longer for the same work.",
    .examples = "quoin bench ops\nquoin bench ops matmul expert_matmul --preset micro\n"
                "quoin bench ops --baseline before.jsonl",
    .options = ops_options,
    .opts_size = sizeof(qn_bench_opts),
    .run = run_ops,
};
