// Every row of graph/ops.def proved on this machine's device, with validation on.
//   ops_ops [operation [part of a case's name]]
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "run.h"

#include "mem.h"

#include <stdlib.h>
#include <string.h>

enum { SKIPPED = 77 };

static qn_device *devs[2];
static size_t dev_count;
static const char *filter;

static void prove(const char *op)
{
    const qn_check_suite *s = qn_op_suites;
    while (strcmp(s->op, op) != 0) s++;
    qn_check_op report;
    qn_result r = s->run(s, devs, dev_count, filter, &report);
    if (r != QN_OK) fail_msg("%s: %s", qn_result_name(r), qn_error_message());
    qn_check_print_op(stderr, &report);
    size_t cases = report.count, failed = report.failed;
    qn_free(report.cases);
    if (!cases) fail_msg("%s has no case called %s", op, filter ? filter : "anything");
    if (failed) fail_msg("%s: %zu of %zu cases failed", op, failed, cases);
}

#define QN_OP_ROW(name)                                                                            \
    static void op_##name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        prove(#name);                                                                              \
    }
#include "ops.def"
#undef QN_OP_ROW

static int run_group(void)
{
    const struct CMUnitTest tests[] = {
#define QN_OP_ROW(name) { #name, op_##name, NULL, NULL, NULL },
#include "ops.def"
#undef QN_OP_ROW
    };
    return cmocka_run_group_tests_name("operations", tests, NULL, NULL);
}

static bool is_known(const char *op)
{
    for (const qn_check_suite *s = qn_op_suites; s->op; s++)
        if (strcmp(s->op, op) == 0) return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        if (!is_known(argv[1])) {
            fprintf(stderr, "graph/ops.def has no operation %s\n", argv[1]);
            return EXIT_FAILURE;
        }
        cmocka_set_test_filter(argv[1]);
        filter = argc > 2 ? argv[2] : NULL;
    }
    qn_context *ctx;
    qn_result r = qn_context_create(&(qn_context_opts){ .validate = true }, &ctx);
    if (r == QN_OK) {
        r = qn_check_open(ctx, NULL, devs, &dev_count);
        if (r != QN_OK) qn_context_destroy(&ctx);
    }
    if (r != QN_OK) {
        fprintf(stderr, "%s: %s\n", qn_result_name(r), qn_error_message());
        return r == QN_ERR_NO_DEVICE ? SKIPPED : EXIT_FAILURE;
    }
    int failed = run_group();
    uint64_t messages = qn_context_validation_messages(ctx);
    for (size_t i = dev_count; i-- > 0;) qn_device_destroy(&devs[i]);
    qn_context_destroy(&ctx);
    if (messages) fprintf(stderr, "%llu validation messages\n", (unsigned long long)messages);
    return failed || messages ? EXIT_FAILURE : EXIT_SUCCESS;
}
