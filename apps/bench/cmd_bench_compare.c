// bench compare, bench report: what saved records tell.
#include "bench/bench_command.h"
#include "bench/compare.h"

#include <math.h>
#include <string.h>

// ------------------------------------------------------------------------------------ compare

typedef struct compare_opts {
    bool csv, all;
} compare_opts;

static const qn_opt compare_options[] = {
    { "csv", 0, QN_AT_FLAG(compare_opts, csv), .help = "results as CSV" },
    { "all", 'a', QN_AT_FLAG(compare_opts, all), .help = "also what stayed the same" },
    { 0 },
};

static const qn_column columns[] = {
    { "name" },
    { "variant" },
    { "shape" },
    { "seconds_before", QN_COLUMN_REAL },
    { "seconds_after", QN_COLUMN_REAL },
    { "ratio", QN_COLUMN_REAL, 3 },
    { "verdict" },
};

static qn_value seconds_of(const qn_bench_record *r)
{
    return r && isfinite(r->seconds_median) ? QN_REAL(r->seconds_median) : QN_NONE;
}

static qn_result print(const qn_cli *cli, const compare_opts *o, const qn_bench_diffs *d)
{
    qn_report *report;
    const qn_report_format format = cli->json ? QN_REPORT_JSON
                                    : o->csv  ? QN_REPORT_CSV
                                              : QN_REPORT_TEXT;
    QN_TRY(qn_report_open(stdout, format, columns, sizeof columns / sizeof *columns, &report));
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < d->count; i++) {
        const qn_bench_diff *row = &d->rows[i];
        const qn_bench_record *any = row->after ? row->after : row->before;
        if (row->verdict == QN_DIFF_SAME && !o->all) continue;
        const qn_value values[] = {
            QN_TEXT(any->name),
            QN_TEXT(any->variant),
            QN_TEXT(any->shape),
            seconds_of(row->before),
            seconds_of(row->after),
            isfinite(row->ratio) ? QN_REAL(row->ratio) : QN_NONE,
            QN_TEXT(qn_bench_verdict_name(row->verdict)),
        };
        r = qn_report_row(report, values);
    }
    qn_result closed = qn_report_close(&report);
    return r == QN_OK ? closed : r;
}

static int run_compare(const qn_cli *cli, const void *opts)
{
    const compare_opts *o = opts;
    qn_bench_log before = { 0 }, after = { 0 };
    qn_bench_diffs d = { 0 };
    if (cli->json && o->csv) return qn_cli_misuse(cli, "--json or --csv, not both");
    qn_result r = qn_bench_load(cli->args[0], &before);
    if (r == QN_OK) r = qn_bench_load(cli->args[1], &after);
    if (r == QN_OK) r = qn_bench_compare(&before, &after, &d);
    if (r == QN_OK && strcmp(before.device, after.device) != 0)
        qn_cli_note(cli, "two devices: %s; %s", before.device, after.device);
    if (r == QN_OK) r = print(cli, o, &d);
    if (r == QN_OK)
        qn_cli_note(cli,
                    "%zu the same, %zu faster, %zu slower, %zu without a figure; %zu only "
                    "before, %zu only after",
                    d.verdicts[QN_DIFF_SAME], d.verdicts[QN_DIFF_FASTER],
                    d.verdicts[QN_DIFF_SLOWER], d.verdicts[QN_DIFF_BROKEN],
                    d.verdicts[QN_DIFF_MISSING], d.verdicts[QN_DIFF_NEW]);
    int status = qn_cli_result(r);
    if (status == QN_EXIT_DONE && qn_bench_diffs_bad(&d)) status = QN_EXIT_FAILED;
    qn_bench_diffs_free(&d);
    qn_bench_log_free(&before);
    qn_bench_log_free(&after);
    return status;
}

const qn_command qn_command_bench_compare = {
    .args = "BEFORE AFTER",
    .args_min = 2,
    .args_max = 2,
    .about = "Compares two files of saved records, pairing what has the same name, variant, shape "
             "and form. Slower is what in its fastest tenth takes longer than the other's slowest "
             "tenth by more than 2 %, so the noise as it was measured is no regression. Ends with "
             "status 1 when something got slower or has no figure any more.",
    .examples = "quoin bench ops --save before.jsonl\nquoin bench compare before.jsonl after.jsonl",
    .options = compare_options,
    .opts_size = sizeof(compare_opts),
    .run = run_compare,
};

// ------------------------------------------------------------------------------------ report

static qn_result gather(qn_bench_run *run)
{
    for (size_t i = 0; i < run->cli->arg_count; i++) {
        qn_bench_log part;
        QN_TRY(qn_bench_load(run->cli->args[i], &part));
        qn_result r = QN_OK;
        if (run->log.device[0] && strcmp(run->log.device, part.device) != 0)
            r = qn_fail(QN_ERR_INVALID, "%s was measured on \"%s\", the files before it on \"%s\"",
                        run->cli->args[i], part.device, run->log.device);
        memcpy(run->log.device, part.device, sizeof part.device);
        memcpy(run->log.driver, part.driver, sizeof part.driver);
        memcpy(run->log.commit, part.commit, sizeof part.commit);
        for (size_t k = 0; r == QN_OK && k < part.count; k++) {
            qn_bench_record record = part.records[k];
            record.bench = qn_arena_printf(&run->log.arena, "%s", record.bench);
            r = record.bench ? qn_bench_log_add(&run->log, &record) : qn_no_memory(32);
        }
        qn_bench_log_free(&part);
        QN_TRY(r);
    }
    return QN_OK;
}

static int run_report(const qn_cli *cli, const void *opts)
{
    return qn_bench_do(cli, opts, &(qn_bench_part){ .no_device = true, .measure = gather });
}

static const qn_opt report_options[] = { QN_BENCH_RESULTS, { 0 } };

const qn_command qn_command_bench_report = {
    .args = "FILE...",
    .args_min = 1,
    .args_max = -1,
    .about = "Puts files of saved records of one device together: as a table, JSON or CSV, as a "
             "roofline and bars (--svg), as one page (--html).",
    .examples = "quoin bench report peak.jsonl ops.jsonl --html bench.html",
    .options = report_options,
    .opts_size = sizeof(qn_bench_opts),
    .run = run_report,
};
