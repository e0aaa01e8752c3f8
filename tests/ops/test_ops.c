// Every row of graph/ops.def proved on this machine's device, with validation on.
//   ops_ops [operation [part of a case's name]]
#include "device.h"
#include "run.h"

#include "mem.h"

#include <stdlib.h>
#include <string.h>

static qn_device *devs[2]; // both forms of every kernel
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
    qn_device_or_skip();
    devs[dev_count++] = qn_test_device();
    if (qn_device_describe(devs[0])->kernel_class == QN_CLASS_FLAT)
        devs[dev_count++] = qn_test_device_hiding(QN_CAP_SUBGROUP | QN_CAP_TEXEL);
    int failed = run_group();
    qn_keep_drivers();
    if (dev_count > 1) qn_device_destroy(&devs[1]);
    return failed + qn_device_finish() ? EXIT_FAILURE : EXIT_SUCCESS;
}
