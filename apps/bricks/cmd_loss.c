// Comparing models before and after a change.
#include "bricks/loss.h"
#include "cli/report.h"
#include "llm/eval.h"

#include <stdio.h>

static qn_result measure(qn_device *dev, const char *dir, const qn_brick_texts *texts,
                         qn_eval_text *out)
{
    qn_folder f = { 0 };
    qn_result r = qn_folder_open(dev, dir, QN_F32, &f);
    const qn_eval_opts opts = { .length = 128, .tokens = texts->tokens };
    for (size_t i = 0; r == QN_OK && i < texts->paths->count; i++)
        r = qn_eval_text_file(dev, &f, texts->paths->items[i], &opts, &out[i]);
    qn_folder_close(&f);
    return r;
}

qn_result qn_brick_compare(const qn_cli *cli, qn_device *dev, const char *before, const char *after,
                           const qn_brick_texts *texts)
{
    enum { TEXTS = 32 };
    static const qn_column columns[] = {
        { .key = "text" },
        { .key = "perplexity_before", .type = QN_COLUMN_REAL, .digits = 5 },
        { .key = "perplexity_after", .type = QN_COLUMN_REAL, .digits = 5 },
        { .key = "nats_before", .type = QN_COLUMN_REAL, .digits = 6 },
        { .key = "nats_after", .type = QN_COLUMN_REAL, .digits = 6 },
    };
    qn_eval_text a[TEXTS], b[TEXTS];
    const size_t count = texts->paths->count;
    if (!count) return QN_OK;
    if (count > TEXTS) return qn_fail(QN_ERR_INVALID, "found %zu texts, expected at most %d", count,
                                      TEXTS);
    QN_TRY(measure(dev, before, texts, a));
    QN_TRY(measure(dev, after, texts, b));
    qn_report *report;
    QN_TRY(qn_report_open(stdout, cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns, 5, &report));
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++)
        r = qn_report_row(report, (qn_value[]){ QN_TEXT(texts->paths->items[i]),
                                                QN_REAL(a[i].perplexity), QN_REAL(b[i].perplexity),
                                                QN_REAL(a[i].nll / (double)a[i].tokens),
                                                QN_REAL(b[i].nll / (double)b[i].tokens) });
    qn_result closed = qn_report_close(&report);
    return r == QN_OK ? closed : r;
}

qn_result qn_brick_compare_alone(const qn_cli *cli, const char *before, const char *after,
                                 const qn_brick_texts *texts)
{
    qn_context *ctx = NULL;
    qn_device *dev = NULL;
    if (!texts->paths->count) return QN_OK;
    qn_result r = qn_cli_open(cli, &ctx, &dev);
    if (r == QN_OK) r = qn_brick_compare(cli, dev, before, after, texts);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return r;
}
