// Times an operation's marked cases: the plan's own profile, forward and backward apart.
#include "run_impl.h"

#include <string.h>

#define MOST_GRADIENTS 4 // nodes of a gradient that get a line each, when there are several

// The parts that are measured: all forward nodes, all backward ones, then each node.
enum { FORWARD = 0, BACKWARD, NODES };

typedef struct timing {
    qn_plan *plan;
    qn_node_time *nodes;
    size_t count;
} timing;

static bool starts(const char *s, const char *with)
{
    return strncmp(s, with, strlen(with)) == 0;
}

// FORWARD, BACKWARD, or NODES for what only feeds the gradient.
static int part_of(const qn_node_time *n)
{
    if (starts(n->name, RUN_OBJECTIVE ".") || starts(n->name, "d(" RUN_OBJECTIVE)) return NODES;
    return starts(n->name, "d(") ? BACKWARD : FORWARD;
}

static qn_result run_timed(void *user, double *seconds)
{
    timing *t = user;
    QN_TRY(qn_plan_run(t->plan));
    QN_TRY(qn_plan_wait(t->plan));
    QN_TRY(qn_plan_profile(t->plan, t->nodes, t->count, &t->count));
    seconds[FORWARD] = seconds[BACKWARD] = 0;
    for (size_t i = 0; i < t->count; i++) {
        int part = part_of(&t->nodes[i]);
        if (part != NODES) seconds[part] += t->nodes[i].seconds;
        seconds[NODES + i] = t->nodes[i].seconds;
    }
    return QN_OK;
}

static qn_result measure(timing *t, const qn_bench_ops_opts *opts, qn_times **times)
{
    QN_TRY(qn_plan_run(t->plan)); // compiles, and only then there is a profile
    QN_TRY(qn_plan_profile(t->plan, NULL, 0, &t->count));
    t->nodes = qn_calloc(t->count, sizeof *t->nodes);
    *times = qn_calloc(NODES + t->count, sizeof **times);
    if (!t->nodes || !*times) return qn_no_memory(t->count * sizeof *t->nodes);
    return qn_measure_parts(&opts->measure, run_timed, t, NODES + t->count, *times);
}

// ------------------------------------------------------------------------------------ records

static void sum_costs(const timing *t, int part, double *flops, double *bytes, size_t *nodes)
{
    *flops = *bytes = 0;
    *nodes = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (part_of(&t->nodes[i]) != part) continue;
        *flops += (double)t->nodes[i].flops;
        *bytes += (double)t->nodes[i].bytes;
        *nodes += 1;
    }
}

static qn_result add_part(const run_job *j, const timing *t, const qn_times *times, int part,
                          const qn_bench_ops_opts *opts, const char *note, qn_bench_log *log)
{
    double flops, bytes;
    size_t nodes;
    sum_costs(t, part, &flops, &bytes, &nodes);
    if (!nodes) return QN_OK;
    qn_bench_record r =
        qn_bench_record_start("ops", j->op, part == FORWARD ? "forward" : "backward", j->c->name);
    snprintf(r.note, sizeof r.note, "%s", note);
    qn_bench_judge(&r, &times[part], flops, bytes, opts->peaks);
    return qn_bench_log_add(log, &r);
}

// Each node of a backward pass that has a few.
static qn_result add_gradients(const run_job *j, const timing *t, const qn_times *times,
                               const qn_bench_ops_opts *opts, const char *note, qn_bench_log *log)
{
    double flops, bytes;
    size_t nodes;
    sum_costs(t, BACKWARD, &flops, &bytes, &nodes);
    if (nodes < 2 || nodes > MOST_GRADIENTS) return QN_OK;
    int number = 0;
    for (size_t i = 0; i < t->count; i++) {
        const qn_node_time *n = &t->nodes[i];
        if (part_of(n) != BACKWARD) continue;
        char variant[96], shape[QN_SHAPE_TEXT];
        snprintf(variant, sizeof variant, "gradient %d: %s %s", ++number, n->op,
                 qn_shape_format(n->shape, shape));
        qn_bench_record r = qn_bench_record_start("ops", j->op, variant, j->c->name);
        snprintf(r.note, sizeof r.note, "%s", note);
        qn_bench_judge(&r, &times[NODES + i], (double)n->flops, (double)n->bytes, opts->peaks);
        QN_TRY(qn_bench_log_add(log, &r));
    }
    return QN_OK;
}

static qn_result add_fault(const run_job *j, const char *variant, qn_result result,
                           qn_bench_log *log)
{
    qn_bench_record r = qn_bench_record_start("ops", j->op, variant, j->c->name);
    QN_TRY(qn_bench_excuse(&r, result));
    return qn_bench_log_add(log, &r);
}

// ------------------------------------------------------------------------------------ a case

// The case as asked for, with gradients of everything that can have one.
static bool with_gradients(const qn_case *c, qn_case *out)
{
    bool any = false;
    *out = *c;
    if (c->no_grad_ref) return false;
    for (int i = 0; i < out->inputs; i++) {
        qn_case_input *in = &out->in[i];
        if (in->dtype == QN_F32 && !in->stored) in->grad = true;
        any |= in->grad;
    }
    return any;
}

static qn_result time_variant(run_job *j, qn_device *dev, bool backward,
                              const qn_bench_ops_opts *opts, const char *note, qn_bench_log *log)
{
    const run_variant v = { .what = "timing", .backward = backward, .profile = true };
    run_result res;
    run_session *s = NULL;
    timing t = { 0 };
    qn_times *times = NULL;
    qn_result r = run_open(j, dev, &v, &res, &s);
    if (r == QN_OK) t.plan = run_plan(s);
    if (r == QN_OK) r = measure(&t, opts, &times);
    // Not every operation has a gradient: no line then.
    if (r == QN_ERR_INVALID && backward)
        r = QN_OK;
    else if (r != QN_OK)
        r = add_fault(j, backward ? "backward" : "forward", r, log);
    else if (!backward)
        r = add_part(j, &t, times, FORWARD, opts, note, log);
    else {
        r = add_part(j, &t, times, BACKWARD, opts, note, log);
        if (r == QN_OK) r = add_gradients(j, &t, times, opts, note, log);
    }
    run_close(&s);
    qn_free(times);
    qn_free(t.nodes);
    return r;
}

static qn_result prove(run_job *j, qn_device *dev, bool gradient, qn_check_case *report)
{
    j->report = report;
    QN_TRY(run_prove(j, dev, gradient));
    if (!report->failure[0]) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "wrong: %.200s", report->failure);
}

static qn_result time_case(const char *op, const qn_case *c, qn_device *dev,
                           const qn_bench_ops_opts *opts, qn_bench_log *log)
{
    qn_case both;
    bool differentiable = with_gradients(c, &both);
    qn_check_case report = { 0 };
    run_job j = { .op = op, .c = &both, .report = &report, .form = "inputs" };
    const char *note = opts->proof == QN_PROOF_NONE ? "values not checked" : "";
    qn_result r = run_make_inputs(&j);
    if (r == QN_OK && opts->proof != QN_PROOF_NONE) {
        qn_result proof = prove(&j, dev, false, &report);
        if (proof != QN_OK) {
            r = add_fault(&j, "forward", proof, log);
            qn_arena_free(&j.arena);
            return r;
        }
    }
    if (r == QN_OK) r = time_variant(&j, dev, false, opts, note, log);
    if (r == QN_OK && opts->backward && differentiable) {
        if (opts->proof == QN_PROOF_GRADIENT) {
            qn_result proof = prove(&j, dev, true, &report);
            if (proof != QN_OK) r = add_fault(&j, "backward", proof, log);
        }
        if (r == QN_OK && !report.failure[0])
            r = time_variant(&j, dev, true, opts,
                             opts->proof == QN_PROOF_GRADIENT ? "" : "gradient not checked here",
                             log);
    }
    qn_arena_free(&j.arena);
    return r;
}

qn_result qn_time_op(const char *op, const qn_op_test *test, qn_device *dev,
                     const qn_bench_ops_opts *opts, qn_bench_log *log)
{
    for (size_t i = 0; i < test->case_count; i++) {
        const qn_case *c = &test->cases[i];
        if (!c->bench || !qn_bench_wants(opts, c->name)) continue;
        if (opts->go_on && !opts->go_on()) return qn_fail(QN_ERR_CANCELLED, "interrupted");
        QN_TRY(time_case(op, c, dev, opts, log));
    }
    return QN_OK;
}
