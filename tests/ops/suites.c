// The operation table once more, as suites of cases.
#include "run.h"

static qn_result run(const qn_check_suite *s, qn_device *const *devs, size_t count,
                     const char *filter, qn_check_op *out)
{
    return qn_run_op(s->op, s->data, devs, count, filter, out);
}

static qn_result time_op(const qn_check_suite *s, qn_device *dev, const qn_bench_ops_opts *opts,
                         qn_bench_log *log)
{
    return qn_time_op(s->op, s->data, dev, opts, log);
}

const qn_check_suite qn_op_suites[] = {
#define QN_OP_ROW(name) { .op = #name, .run = run, .time = time_op, .data = &qn_test_##name },
#include "ops.def"
#undef QN_OP_ROW
    { 0 },
};
