// What the parts of `quoin bench` share: printing, files, comparison with a baseline.
#include "bench/bench_command.h"
#include "bench/chart.h"
#include "bench/compare.h"
#include "cli/term.h"
#include "platform.h"

#include <math.h>
#include <string.h>

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

// ------------------------------------------------------------------------------------ a part

bool qn_bench_go_on(void)
{
    return !qn_interrupted();
}

static qn_result save_text(void (*write)(const qn_bench_run *run, qn_textbuf *t),
                           const qn_bench_run *run, const char *path)
{
    qn_textbuf t = { 0 };
    write(run, &t);
    qn_result r = qn_textbuf_save(&t, path);
    qn_textbuf_free(&t);
    return r;
}

static void write_html(const qn_bench_run *run, qn_textbuf *t)
{
    qn_bench_html(&run->log, &run->peaks, t);
}

static void write_roofline(const qn_bench_run *run, qn_textbuf *t)
{
    qn_bench_roofline(&run->log, &run->peaks, t);
}

static void write_bars(const qn_bench_run *run, qn_textbuf *t)
{
    qn_bench_bars(&run->log, t);
}

static qn_result save_svg(const qn_bench_run *run)
{
    const char *dir = run->o->svg;
    QN_TRY(qn_make_dirs(dir));
    char *roofline = qn_path_join(dir, "roofline.svg"), *bars = qn_path_join(dir, "bars.svg");
    qn_result r = roofline && bars ? QN_OK : qn_no_memory(1);
    if (r == QN_OK) r = save_text(write_roofline, run, roofline);
    if (r == QN_OK) r = save_text(write_bars, run, bars);
    qn_free(roofline);
    qn_free(bars);
    return r;
}

// What was measured is written also when something failed behind it.
static qn_result save_all(qn_bench_run *run)
{
    const qn_bench_opts *o = run->o;
    if (!run->log.count) return QN_OK;
    if (!(run->peaks.types[QN_PEAK_F32].flops > 0)) run->peaks = qn_bench_peaks_in(&run->log);
    if (o->save) QN_TRY(qn_bench_save(&run->log, o->save));
    if (o->html) QN_TRY(save_text(write_html, run, o->html));
    return o->svg ? save_svg(run) : QN_OK;
}

static qn_result check_baseline(const qn_bench_run *run)
{
    if (!run->dev || !strcmp(run->baseline.device, run->log.device)) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "--baseline %s was measured on \"%s\", but this is \"%s\"",
                   run->o->baseline, run->baseline.device, run->log.device);
}

// Says what changed; *bad: something got slower.
static qn_result compare(qn_bench_run *run, bool *bad)
{
    qn_bench_diffs d;
    QN_TRY(qn_context_add(qn_bench_compare(&run->baseline, &run->log, &d), "--baseline %s",
                          run->o->baseline));
    *bad = qn_bench_diffs_bad(&d);
    for (size_t i = 0; i < d.count; i++) {
        const qn_bench_diff *row = &d.rows[i];
        if (row->verdict != QN_DIFF_SLOWER && row->verdict != QN_DIFF_BROKEN) continue;
        const qn_bench_record *now = row->after;
        if (row->verdict == QN_DIFF_SLOWER)
            qn_log(QN_LOG_ERROR, "%s %s %s: %.4g ms, %.4g ms in the baseline: %.2f times",
                   now->name, now->variant, now->shape, 1e3 * now->seconds_median,
                   1e3 * row->before->seconds_median, row->ratio);
        else
            qn_log(QN_LOG_ERROR, "%s %s %s: %s now, measured in the baseline", now->name,
                   now->variant, now->shape, qn_bench_status_name(now->status));
    }
    qn_cli_note(run->cli,
                "against %s: %zu the same, %zu faster, %zu slower, %zu without a figure; "
                "%zu only there, %zu only here",
                run->o->baseline, d.verdicts[QN_DIFF_SAME], d.verdicts[QN_DIFF_FASTER],
                d.verdicts[QN_DIFF_SLOWER], d.verdicts[QN_DIFF_BROKEN], d.verdicts[QN_DIFF_MISSING],
                d.verdicts[QN_DIFF_NEW]);
    qn_bench_diffs_free(&d);
    return QN_OK;
}

static qn_result measure(qn_bench_run *run, const qn_bench_part *part, bool *bad)
{
    if (!part->no_device) QN_TRY(qn_cli_open(run->cli, &run->ctx, &run->dev));
    if (run->dev) qn_bench_log_start(&run->log, qn_device_describe(run->dev));
    if (run->o->baseline) QN_TRY(check_baseline(run));
    QN_TRY(open_printing(run));
    qn_result r = part->measure(run);
    if (r == QN_OK) r = run->printed;
    qn_result closed = qn_report_close(&run->report), saved = save_all(run);
    if (r == QN_OK) r = closed;
    if (r == QN_OK) r = saved;
    if (r == QN_OK && run->o->baseline) r = compare(run, bad);
    return r;
}

int qn_bench_do(const qn_cli *cli, const qn_bench_opts *o, const qn_bench_part *part)
{
    qn_bench_run run = { .cli = cli, .o = o };
    bool bad = false;
    if (cli->json && o->csv) return qn_cli_misuse(cli, "--json or --csv, not both");
    if (part->check && part->check(&run) != QN_OK)
        return qn_cli_misuse(cli, "%s", qn_error_message());
    qn_interrupt_watch();
    qn_result r = o->baseline ? qn_bench_load(o->baseline, &run.baseline) : QN_OK;
    if (r == QN_OK) r = measure(&run, part, &bad);
    int status = qn_cli_result(r);
    for (size_t i = 0; i < run.log.count; i++) bad |= run.log.records[i].status == QN_BENCH_FAILED;
    if (status == QN_EXIT_DONE && bad) status = QN_EXIT_FAILED;
    qn_bench_log_free(&run.baseline);
    qn_bench_log_free(&run.log);
    qn_device_destroy(&run.dev);
    qn_context_destroy(&run.ctx);
    return status;
}
