// Runs the cases and refusals of one operation.
#include "run_impl.h"

#include "platform.h"

#include <string.h>

static const run_variant forward = { .what = "forward", .poison = true };
static const run_variant over = { .what = "in place", .indirect = true };
static const run_variant apart = {
    .what = "not in place", .indirect = true, .no_inplace = true, .poison = true,
};
static const run_variant backward = { .what = "gradient", .backward = true, .poison = true };
static const run_variant backward_apart = {
    .what = "gradient, not in place", .backward = true, .no_inplace = true,
};

static const char *form_of(const qn_device *dev)
{
    return qn_device_describe(dev)->kernel_class == QN_CLASS_FLAT ? "flat" : "portable";
}

static bool wants_gradient(const qn_case *c)
{
    for (int i = 0; i < c->inputs; i++)
        if (c->in[i].grad && !c->no_grad_ref) return true;
    return false;
}

static qn_result ask_reference(run_job *j, const run_result *got)
{
    for (int i = 0; i < j->c->inputs; i++) {
        QN_TRY(run_make_ref(&j->arena, j->in[i].shape, &j->after[i]));
        memcpy(j->after[i].v, j->in[i].v, (size_t)j->in[i].count * sizeof(double));
    }
    for (int o = 0; o < got->outputs; o++)
        QN_TRY(run_make_ref(&j->arena, got->out[o].shape, &j->out[o]));
    j->c->ref(j->c, j->after, j->out);
    j->known = true;
    return QN_OK;
}

static qn_result check_values(run_job *j, const run_result *got)
{
    if (!j->known) QN_TRY(ask_reference(j, got));
    char name[64];
    for (int o = 0; o < got->outputs; o++) {
        if (!qn_shape_equal(got->out[o].shape, j->out[o].shape)) {
            run_fault(j, "out%d has another shape than on the first device", o);
            return QN_OK;
        }
        snprintf(name, sizeof name, "out%d", o);
        run_judge_tensor(j, name, got->out[o].dtype, got->out[o].bytes, &j->out[o]);
    }
    for (int i = 0; i < j->c->inputs; i++) {
        if (!got->stored[i].bytes) continue;
        snprintf(name, sizeof name, "stored %s", j->c->in[i].name);
        run_judge_tensor(j, name, got->stored[i].dtype, got->stored[i].bytes, &j->after[i]);
    }
    return QN_OK;
}

qn_result run_prove(run_job *j, qn_device *dev, bool gradient)
{
    run_result a;
    j->form = form_of(dev);
    if (!run_execute(j, dev, gradient ? &backward : &forward, &a)) return QN_OK;
    return gradient ? run_check_gradient(j, &a) : check_values(j, &a);
}

static qn_result check_on(run_job *j, qn_device *dev)
{
    run_result a, b;
    j->form = form_of(dev);
    if (run_execute(j, dev, &forward, &a)) QN_TRY(check_values(j, &a));
    if (run_execute(j, dev, &over, &a) && run_execute(j, dev, &apart, &b))
        run_same_bits(j, "in place or not", &b, &a);
    if (!wants_gradient(j->c)) return QN_OK;
    if (!run_execute(j, dev, &backward, &a)) return QN_OK;
    if (run_execute(j, dev, &backward_apart, &b))
        run_same_bits(j, "gradient in place or not", &b, &a);
    return run_check_gradient(j, &a);
}

static qn_result run_case(const char *op, const qn_case *c, qn_device *const *devs, size_t count,
                          qn_check_case *report)
{
    run_job j = { .op = op, .c = c, .report = report, .form = "inputs" };
    qn_result r = run_make_inputs(&j);
    for (size_t d = 0; r == QN_OK && d < count; d++) r = check_on(&j, devs[d]);
    qn_arena_free(&j.arena);
    return r;
}

// A malformed call must be refused with the expected code and message, by the graph and by a plan.
static void run_refusal(const qn_refusal *refusal, qn_device *dev, qn_check_case *report)
{
    run_job j = { .report = report, .form = form_of(dev) };
    qn_graph *g;
    qn_plan *plan = NULL;
    qn_result r = qn_graph_create(dev, &g);
    if (r != QN_OK) {
        run_fault_call(&j, r, "graph");
        return;
    }
    refusal->build(g);
    r = qn_graph_status(g);
    if (r != refusal->code)
        run_fault(&j, "refusal: %s (%s), expected %s", qn_result_name(r),
                  r == QN_OK ? "accepted" : qn_error_message(), qn_result_name(refusal->code));
    else if (!strstr(qn_error_message(), refusal->message))
        run_fault(&j, "refusal: \"%s\" does not mention \"%s\"", qn_error_message(),
                  refusal->message);
    else if (qn_plan_create(g, NULL, &plan) != refusal->code)
        run_fault(&j, "refusal: the graph is refused, its plan is not: %s", qn_error_message());
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
}

qn_result qn_run_op(const char *op, const qn_op_test *test, qn_device *const *devs, size_t count,
                    const char *filter, qn_check_op *out)
{
    size_t most = test->case_count + test->refusal_count;
    qn_check_case *cases = qn_calloc(most, sizeof *cases);
    if (!cases) return qn_no_memory(most * sizeof *cases);
    *out = (qn_check_op){ .op = op, .cases = cases };
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < most; i++) {
        bool refusal = i >= test->case_count;
        const qn_refusal *no = refusal ? &test->refusals[i - test->case_count] : NULL;
        const char *name = refusal ? no->name : test->cases[i].name;
        if (filter && !strstr(name, filter)) continue;
        if (!refusal && test->cases[i].large) continue;
        qn_check_case *report = &cases[out->count++];
        snprintf(report->name, sizeof report->name, "%s%s", refusal ? "refuses " : "", name);
        double start = qn_clock();
        if (refusal)
            run_refusal(no, devs[0], report);
        else
            r = qn_context_add(run_case(op, &test->cases[i], devs, count, report), "%s", name);
        report->seconds = qn_clock() - start;
        out->failed += report->failure[0] != 0;
        out->seconds += report->seconds;
    }
    if (r == QN_OK) return QN_OK;
    qn_free(cases);
    *out = (qn_check_op){ 0 };
    return r;
}
