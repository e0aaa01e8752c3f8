// bench: what a device can do, and how much of it the kernels and the models reach.
#include "bench/bench_command.h"
#include "bench/check.h"
#include "cli/progress.h"
#include "cli/term.h"
#include "platform.h"
#include "run.h"

#include <math.h>
#include <string.h>

static const qn_opt options[] = {
    { "csv", 0, QN_AT_FLAG(qn_bench_opts, csv), .section = "Results", .help = "results as CSV" },
    { "save", 'o', QN_AT_PATH(qn_bench_opts, save), .value = "FILE",
      .help = "also write the records to a file, for compare and --baseline" },
    { "time", 't', QN_AT_FLOAT(qn_bench_opts, seconds), .initial = "0.3", .min = 0.001, .max = 3600,
      .section = "Measuring", .help = "seconds to spend on one measurement" },
    { "case", 0, QN_AT_STRING(qn_bench_opts, filter), .value = "TEXT",
      .help = "ops: only cases whose name contains this" },
    { "proof", 0, QN_AT_CHOICE(qn_bench_opts, proof), .words = "forward|gradient|none",
      .initial = "forward", .help = "ops: what is checked against double precision before timing" },
    { "forward-only", 0, QN_AT_FLAG(qn_bench_opts, forward_only), .help = "ops: no gradients" },
    { "preset", 0, QN_AT_STRING(qn_bench_opts, preset), .value = "NAME", .section = "Model",
      .help = "ops: also the operations of a training step of this preset" },
    { "batch", 'b', QN_AT_INT(qn_bench_opts, batch), .initial = "8", .min = 1, .max = 65536,
      .help = "windows of a training step" },
    { "length", 'l', QN_AT_INT(qn_bench_opts, length), .initial = "128", .min = 2, .max = 1 << 20,
      .help = "tokens of a window" },
    { "vocab", 0, QN_AT_INT(qn_bench_opts, vocab), .initial = "512", .min = 2, .max = 1 << 20,
      .help = "size of the vocabulary" },
    { "dtype", 0, QN_AT_CHOICE(qn_bench_opts, dtype), .words = "f32|f16|bf16", .initial = "f32",
      .help = "storage of weights in products" },
    { "groups", 0, QN_AT_LIST(qn_bench_opts, groups), .value = "X,Y,Z", .section = "Shader",
      .help = "groups to dispatch (default: an invocation for each element)" },
    { "elements", 0, QN_AT_INT(qn_bench_opts, elements), .initial = "1048576", .min = 1,
      .max = 1e12, .help = "elements of arrays without a length" },
    { "size", 0, QN_AT_LIST(qn_bench_opts, sizes), .value = "BINDING=BYTES",
      .help = "bytes of a buffer; bindings by name, number, or set.number" },
    { "fill", 0, QN_AT_LIST(qn_bench_opts, fills), .value = "BINDING=WHAT",
      .help = "random (default), zero, one, index or @FILE" },
    { "constant", 0, QN_AT_LIST(qn_bench_opts, constants), .value = "ID=VALUE",
      .help = "a specialisation constant, by constant_id or name" },
    { "push", 0, QN_AT_LIST(qn_bench_opts, push), .value = "NAME=VALUE",
      .help = "a push constant (default: zero)" },
    { "define", 'D', QN_AT_LIST(qn_bench_opts, defines), .value = "NAME[=VALUE]",
      .help = "a macro for GLSL" },
    { "expect", 0, QN_AT_LIST(qn_bench_opts, expect), .value = "BINDING=FILE",
      .help = "what a buffer must hold after one run" },
    { "tolerance", 0, QN_AT_FLOAT(qn_bench_opts, tolerance), .initial = "1e-5", .min = 0, .max = 1,
      .help = "of expected floats: relative to the larger, or to 1" },
    { "output", 0, QN_AT_LIST(qn_bench_opts, outputs), .value = "BINDING=FILE",
      .help = "write what a buffer holds after one run" },
    { "flops", 0, QN_AT_FLOAT(qn_bench_opts, flops), .min = 0, .max = INFINITY,
      .help = "arithmetic operations of a run, for its place under the roofline" },
    { "bytes", 0, QN_AT_FLOAT(qn_bench_opts, bytes), .min = 0, .max = INFINITY,
      .help = "bytes a run moves (default: every buffer once, as it is declared)" },
    { "limit", 0, QN_AT_FLOAT(qn_bench_opts, limit), .initial = "10", .min = 0.01, .max = 86400,
      .help = "seconds that one run may take" },
    { 0 },
};

// ------------------------------------------------------------------------------------ printing

static const qn_column text_columns[] = {
    { "name" },
    { "variant" },
    { "shape" },
    { "ms", QN_COLUMN_REAL },
    { "p10", QN_COLUMN_REAL, 3 },
    { "p90", QN_COLUMN_REAL, 3 },
    { "GF/s", QN_COLUMN_REAL },
    { "GB/s", QN_COLUMN_REAL },
    { "of_peak", QN_COLUMN_REAL, 2 },
    { "bound" },
    { "remark" },
};

static const qn_column csv_columns[] = {
    { "bench" },
    { "name" },
    { "variant" },
    { "shape" },
    { "form" },
    { "status" },
    { "seconds_median", QN_COLUMN_REAL },
    { "seconds_p10", QN_COLUMN_REAL },
    { "seconds_p90", QN_COLUMN_REAL },
    { "runs", QN_COLUMN_INT },
    { "gflops", QN_COLUMN_REAL },
    { "gbytes_per_s", QN_COLUMN_REAL },
    { "fraction_of_peak", QN_COLUMN_REAL },
    { "bound" },
    { "tokens_per_s", QN_COLUMN_REAL },
    { "memory", QN_COLUMN_REAL },
    { "note" },
    { "device" },
    { "driver" },
    { "commit" },
};

static qn_value real_or_none(double v)
{
    return isfinite(v) ? QN_REAL(v) : QN_NONE;
}

static qn_result print_text(qn_bench_run *run, const qn_bench_record *r)
{
    char remark[512];
    const bool plain = r->status == QN_BENCH_OK;
    size_t used = (size_t)snprintf(remark, sizeof remark, "%s%s",
                                   plain ? "" : qn_bench_status_name(r->status),
                                   plain || !r->note[0] ? "" : ": ");
    used += (size_t)snprintf(remark + used, sizeof remark - used, "%s", r->note);
    if (isfinite(r->tokens_per_s) && used < sizeof remark)
        snprintf(remark + used, sizeof remark - used, "%s%.0f tokens/s", used ? ", " : "",
                 r->tokens_per_s);
    const qn_value row[] = {
        QN_TEXT(r->name),
        QN_TEXT(r->variant),
        QN_TEXT(r->shape),
        real_or_none(1e3 * r->seconds_median),
        real_or_none(1e3 * r->seconds_p10),
        real_or_none(1e3 * r->seconds_p90),
        real_or_none(r->gflops),
        real_or_none(r->gbytes_per_s),
        real_or_none(r->fraction_of_peak),
        QN_TEXT(r->bound),
        QN_TEXT(remark),
    };
    return qn_report_row(run->report, row);
}

static qn_result print_csv(qn_bench_run *run, const qn_bench_record *r)
{
    const qn_bench_log *l = &run->log;
    const qn_value row[] = {
        QN_TEXT(r->bench),
        QN_TEXT(r->name),
        QN_TEXT(r->variant),
        QN_TEXT(r->shape),
        QN_TEXT(r->form),
        QN_TEXT(qn_bench_status_name(r->status)),
        real_or_none(r->seconds_median),
        real_or_none(r->seconds_p10),
        real_or_none(r->seconds_p90),
        QN_INT(r->runs),
        real_or_none(r->gflops),
        real_or_none(r->gbytes_per_s),
        real_or_none(r->fraction_of_peak),
        QN_TEXT(r->bound),
        real_or_none(r->tokens_per_s),
        real_or_none(r->memory),
        QN_TEXT(r->note),
        QN_TEXT(l->device),
        QN_TEXT(l->driver),
        QN_TEXT(l->commit),
    };
    return qn_report_row(run->report, row);
}

static qn_result print_json(qn_bench_run *run, const qn_bench_record *r)
{
    char *line;
    QN_TRY(qn_bench_json_line(&run->log, r, &line));
    printf("%s\n", line);
    qn_free(line);
    return QN_OK;
}

static void on_record(void *user, const qn_bench_record *r)
{
    qn_bench_run *run = user;
    qn_result printed;
    if (run->cli->json)
        printed = print_json(run, r);
    else
        printed = run->o->csv ? print_csv(run, r) : print_text(run, r);
    if (run->printed == QN_OK) run->printed = printed;
    fflush(stdout);
    if (qn_is_terminal(stderr) && !run->cli->json && !run->o->csv)
        qn_cli_note(run->cli, "%s %s %s", r->name, r->variant, r->shape);
}

static qn_result open_printing(qn_bench_run *run)
{
    run->log.done = on_record;
    run->log.user = run;
    if (run->cli->json) return QN_OK;
    const bool csv = run->o->csv;
    return qn_report_open(
        stdout, csv ? QN_REPORT_CSV : QN_REPORT_TEXT, csv ? csv_columns : text_columns,
        csv ? sizeof csv_columns / sizeof *csv_columns : sizeof text_columns / sizeof *text_columns,
        &run->report);
}

// ------------------------------------------------------------------------------------ parts

static bool go_on(void)
{
    return !qn_interrupted();
}

static qn_measure_opts measuring(const qn_bench_run *run)
{
    return (qn_measure_opts){ .seconds = run->o->seconds };
}

static qn_result bench_peak(qn_bench_run *run)
{
    qn_measure_opts m = measuring(run);
    return qn_peaks_measure(run->dev, &m, &run->log, &run->peaks);
}

static qn_result check_ops(qn_bench_run *run)
{
    qn_check_register(qn_op_suites);
    return qn_check_known(run->cli->args + 1, run->cli->arg_count - 1);
}

static qn_result bench_ops(qn_bench_run *run)
{
    static const qn_dtype dtypes[] = { QN_F32, QN_F16, QN_BF16 };
    const qn_bench_opts *o = run->o;
    const qn_measure_opts quick = { .seconds = 0.1 };
    qn_bench_ops_opts opts = {
        .ops = run->cli->args + 1,
        .op_count = run->cli->arg_count - 1,
        .filter = o->filter,
        .proof = (qn_bench_proof)o->proof,
        .backward = !o->forward_only,
        .measure = measuring(run),
        .peaks = &run->peaks,
        .go_on = go_on,
    };
    QN_TRY(qn_peaks_measure(run->dev, &quick, NULL, &run->peaks));
    QN_TRY(qn_bench_cases(run->dev, &opts, &run->log));
    if (!o->preset && !run->log.count)
        return qn_fail(QN_ERR_INVALID, "no case of these operations is marked for timing%s",
                       o->filter ? " and has that in its name" : "");
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

// In the order of the command's arg_words.
static const struct {
    qn_result (*run)(qn_bench_run *run);
    int args;                              // at most, behind the word; -1: any number
    qn_result (*check)(qn_bench_run *run); // arguments, before a device is opened; may be NULL
    bool no_device;                        // opens none in this process
    int least;                             // arguments
} parts[] = {
    { bench_peak, 0, NULL, false, 0 },
    { bench_ops, -1, check_ops, false, 0 },
    { qn_bench_shader, -1, NULL, true, 1 },
};

static qn_result finish(qn_bench_run *run, qn_result r)
{
    if (r == QN_OK) r = run->printed;
    qn_result closed = qn_report_close(&run->report);
    if (r == QN_OK) r = closed;
    // What was measured before a failure is kept as well.
    if (run->o->save && run->log.count) {
        qn_result saved = qn_bench_save(&run->log, run->o->save);
        if (r == QN_OK) r = saved;
    }
    return r;
}

static int run(const qn_cli *cli, const void *opts)
{
    qn_bench_run run = { .cli = cli, .o = opts };
    int word = qn_cli_word(cli);
    if (word < 0) return QN_EXIT_MISUSED;
    if (parts[word].args >= 0 && cli->arg_count - 1 > (size_t)parts[word].args)
        return qn_cli_misuse(cli, "%s: found %zu arguments, expected %d", cli->args[0],
                             cli->arg_count - 1, parts[word].args);
    if (cli->arg_count - 1 < (size_t)parts[word].least)
        return qn_cli_misuse(cli, "%s: found %zu arguments, expected FILE...", cli->args[0],
                             cli->arg_count - 1);
    if (cli->json && run.o->csv) return qn_cli_misuse(cli, "--json or --csv, not both");
    if (parts[word].check && parts[word].check(&run) != QN_OK)
        return qn_cli_misuse(cli, "%s", qn_error_message());
    qn_interrupt_watch();
    qn_result r = QN_OK;
    if (!parts[word].no_device) r = qn_cli_open(cli, &run.ctx, &run.dev);
    if (run.dev) qn_bench_log_start(&run.log, qn_device_describe(run.dev));
    if (r == QN_OK) r = open_printing(&run);
    if (r == QN_OK) r = finish(&run, parts[word].run(&run));
    int status = qn_cli_result(r);
    for (size_t i = 0; i < run.log.count; i++)
        if (run.log.records[i].status == QN_BENCH_FAILED && status == QN_EXIT_DONE)
            status = QN_EXIT_FAILED;
    qn_bench_log_free(&run.log);
    qn_device_destroy(&run.dev);
    qn_context_destroy(&run.ctx);
    return status;
}

const qn_command qn_command_bench = {
    .args = "peak | ops [OPERATION...] | shader FILE...",
    .arg_words = "peak|ops|shader",
    .args_min = 1,
    .args_max = -1,
    .about =
        "Measures the device and what is run on it. Every figure is the median of several runs "
        "after a warm-up, with the bounds that a tenth of the runs are below and above; shares "
        "are of ceilings that the same invocation measured.\n\n"
        "`bench peak` measures the ceilings: arithmetic by type, copies by size, the time of a "
        "launch and of a submission. What the device lacks is said.\n\n"
        "`bench ops` times operations on the larger shapes of the test cases, forward and "
        "backward, after their values were proved; with --preset also every operation of a "
        "training step.\n\n"
        "`bench shader` runs compute shaders of your own, GLSL or SPIR-V, each in a process of its "
        "own: says what they bind, fills the buffers, compares what was expected, and measures. "
        "One "
        "that does not end within --limit is reported, and the other results are kept.",
    .examples = "quoin bench peak\nquoin bench ops matmul expert_matmul --preset micro\n"
                "quoin bench ops --json --save before.jsonl\n"
                "quoin bench shader axpy.comp --push n=1048576,a=2 --flops 2097152",
    .options = options,
    .opts_size = sizeof(qn_bench_opts),
    .run = run,
};
