// check: every operation proved on the user's own driver.
#include "bench/check.h"
#include "cli/command.h"
#include "llm/golden_command.h"
#include "run.h"

#include <stdio.h>
#include <string.h>

typedef struct check_opts {
    const char *filter;
} check_opts;

static const qn_opt options[] = {
    { "case", 0, QN_AT_STRING(check_opts, filter), .value = "TEXT",
      .help = "only cases whose name contains this" },
    { 0 },
};

static void print_op(void *user, const qn_check_op *op)
{
    (void)user;
    qn_check_print_op(stdout, op);
    fflush(stdout);
}

static qn_result print_json(const qn_check_report *report)
{
    char *text;
    QN_TRY(qn_check_json(report, &text));
    printf("%s\n", text);
    qn_free(text);
    return QN_OK;
}

static int run(const qn_cli *cli, const void *opts)
{
    if (cli->arg_count && strcmp(cli->args[0], "golden") == 0) return qn_check_golden(cli);
    const check_opts *o = opts;
    qn_context *ctx = NULL;
    qn_device *devs[2] = { NULL };
    size_t count = 0;
    qn_check_report report = { 0 };
    qn_check_register(qn_op_suites);
    qn_result r = qn_cli_open_context(cli, &ctx);
    if (r == QN_OK) r = qn_check_open(ctx, cli->device, devs, &count);
    if (r == QN_OK && !cli->json) {
        const qn_device_info *d = qn_device_describe(devs[0]);
        printf("quoin %s on %s, %s\n", qn_version(), d->name, d->driver);
    }
    if (r == QN_OK) {
        r = qn_check_ops(devs, count,
                         &(qn_check_opts){ .ops = cli->args,
                                           .op_count = cli->arg_count,
                                           .filter = o->filter,
                                           .done = cli->json ? NULL : print_op },
                         &report);
    }
    int status;
    if (r == QN_ERR_INVALID) {
        status = qn_cli_misuse(cli, "%s", qn_error_message());
    } else {
        if (r == QN_OK && cli->json) r = print_json(&report);
        if (r == QN_OK && !cli->json) {
            printf("%zu passed, %zu failed, %.1f s\n", report.passed, report.failed,
                   report.seconds);
        }
        status = qn_cli_result(r);
    }
    if (status == QN_EXIT_DONE && report.failed) status = QN_EXIT_FAILED;
    qn_check_free(&report);
    for (size_t i = count; i-- > 0;) qn_device_destroy(&devs[i]);
    qn_context_destroy(&ctx);
    return status;
}

const qn_command qn_command_check = {
    .args = "[OPERATION... | golden DIR...]",
    .args_max = -1,
    .about = "Runs every operation, forward and backward, on this machine's driver and compares it "
             "with a plain double-precision reference; the tolerances follow from the number of "
             "rounded terms and are not tuned. On a device that gets the flat forms of kernels "
             "the portable forms are proved as well.\n\n"
             "`check golden` walks folders of tensors that an independent implementation has "
             "computed (models, training traces, attention, expert mixtures, tokenizers), replays "
             "every case it knows and prints the worst relative error and its tensor.\n\n"
             "Ends with status 1 when a case fails. The report, best with --json, names device, "
             "driver and every case, and is meant to be shared.",
    .examples = "quoin check\nquoin check matmul softmax\nquoin check golden tests/golden\nquoin "
                "check --json > report.json",
    .options = options,
    .opts_size = sizeof(check_opts),
    .run = run,
};
