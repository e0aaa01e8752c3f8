// `quoin check golden DIR...`: a line a case, as text or JSON.
#include "io/json.h"
#include "llm/golden.h"
#include "llm/golden_command.h"

#include <math.h>
#include <stdio.h>

typedef struct printer {
    bool json;
    qn_result status;
} printer;

static void print_json(printer *p, const qn_golden_line *l)
{
    qn_json_writer w = { .compact = true };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "case", l->name);
    qn_json_put_bool(&w, "passed", l->passed);
    if (l->tensor[0]) {
        qn_json_put_string(&w, "tensor", l->tensor);
        qn_json_put_number(&w, "relative_error", l->relative);
        qn_json_put_number(&w, "tolerance", l->error > 0 ? l->relative / l->error : l->relative);
    }
    if (l->detail[0]) qn_json_put_string(&w, "detail", l->detail);
    qn_json_put_end(&w, '}');
    if (w.status == QN_OK)
        printf("%.*s\n", (int)w.size, w.text);
    else
        p->status = w.status;
    qn_json_writer_free(&w);
}

static void print_line(void *user, const qn_golden_line *l)
{
    printer *p = user;
    if (p->json) {
        print_json(p, l);
        return;
    }
    printf("%s  %s", l->passed ? "ok    " : "FAILED", l->name);
    if (l->tensor[0]) printf("  %.2e in %s (%.2f of the tolerance)", l->relative, l->tensor, l->error);
    if (l->detail[0]) printf("  %s", l->detail);
    printf("\n");
    fflush(stdout);
}

int qn_check_golden(const qn_cli *cli)
{
    if (cli->arg_count < 2) return qn_cli_misuse(cli, "check golden: expected one or more folders");
    qn_context *ctx = NULL;
    qn_device *dev = NULL;
    printer p = { .json = cli->json };
    qn_golden_report report = { .line = print_line, .user = &p };
    qn_result r = qn_cli_open(cli, &ctx, &dev);
    if (r == QN_ERR_NO_DEVICE) { // tokenizers can be checked all the same
        qn_cli_note(cli, "%s", qn_error_message());
        r = QN_OK;
    }
    for (size_t i = 1; r == QN_OK && i < cli->arg_count; i++)
        r = qn_golden_replay(dev, cli->args[i], &report);
    if (r == QN_OK) r = p.status;
    if (!cli->json || report.passed + report.failed > 0) {
        FILE *out = cli->json ? stderr : stdout;
        fprintf(out, "%d passed, %d failed\n", report.passed, report.failed);
    }
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    if (r != QN_OK) return qn_cli_result(r);
    return report.failed ? QN_EXIT_FAILED : QN_EXIT_DONE;
}
