// Time per operation over the steps of a run.
#include "train_profile.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

enum { WARM_STEPS = 2 };

static qn_result add_node(qn_train_profile *p, const qn_node_time *t)
{
    size_t i = 0;
    while (i < p->count && strcmp(p->ops[i].op, t->op) != 0) i++;
    if (i == p->count) {
        QN_TRY(qn_grow((void **)&p->ops, &p->cap, p->count + 1, sizeof *p->ops));
        p->ops[p->count++] = (qn_op_time){ .op = t->op };
    }
    p->ops[i].seconds += t->seconds;
    p->ops[i].flops += t->flops;
    p->ops[i].bytes += t->bytes;
    p->ops[i].nodes++;
    return QN_OK;
}

static qn_result add_plan(qn_train_profile *p, qn_plan *plan)
{
    size_t count = 0;
    QN_TRY(qn_plan_profile(plan, NULL, 0, &count));
    qn_node_time *times = qn_calloc(count, sizeof *times);
    if (!times) return qn_no_memory(count * sizeof *times);
    qn_result r = qn_plan_profile(plan, times, count, &count);
    for (size_t i = 0; r == QN_OK && i < count; i++) r = add_node(p, &times[i]);
    qn_free(times);
    return r;
}

qn_result qn_train_profile_add(qn_train_profile *p, const qn_train_event *e)
{
    if (p->steps++ < WARM_STEPS) return QN_OK;
    p->step_seconds += e->report.seconds;
    p->host_seconds += e->report.host_seconds;
    p->submissions += e->report.submissions;
    QN_TRY(add_plan(p, qn_trainer_plan(e->trainer, false)));
    return add_plan(p, qn_trainer_plan(e->trainer, true));
}

static int by_time(const void *a, const void *b)
{
    const qn_op_time *x = a, *y = b;
    return x->seconds < y->seconds ? 1 : x->seconds > y->seconds ? -1 : strcmp(x->op, y->op);
}

void qn_train_profile_print(const qn_train_profile *p, FILE *out, bool json)
{
    const double steps = (double)(p->steps - WARM_STEPS);
    if (p->steps <= WARM_STEPS) return;
    qsort(p->ops, p->count, sizeof *p->ops, by_time);
    double kernels = 0;
    for (size_t i = 0; i < p->count; i++) kernels += p->ops[i].seconds;
    if (json) {
        for (size_t i = 0; i < p->count; i++)
            fprintf(out, "{\"op\":\"%s\",\"ms_per_step\":%.4f,\"nodes\":%.0f}\n", p->ops[i].op,
                    p->ops[i].seconds / steps * 1e3, p->ops[i].nodes / steps);
        fprintf(out, "{\"ms_per_step\":%.4f,\"kernel_ms\":%.4f,\"host_ms\":%.4f,"
                     "\"submissions\":%.1f}\n",
                p->step_seconds / steps * 1e3, kernels / steps * 1e3, p->host_seconds / steps * 1e3,
                (double)p->submissions / steps);
        return;
    }
    fprintf(out, "%-22s %6s %9s %6s %8s %8s\n", "operation", "nodes", "ms/step", "share", "GF/s",
            "GB/s");
    for (size_t i = 0; i < p->count; i++) {
        const qn_op_time *o = &p->ops[i];
        fprintf(out, "%-22s %6.0f %9.3f %5.1f%% %8.1f %8.1f\n", o->op, o->nodes / steps,
                o->seconds / steps * 1e3, 100 * o->seconds / p->step_seconds,
                o->seconds > 0 ? (double)o->flops / o->seconds / 1e9 : 0,
                o->seconds > 0 ? (double)o->bytes / o->seconds / 1e9 : 0);
    }
    fprintf(out,
            "step %.3f ms: kernels %.3f ms (%.1f%%), host %.3f ms (%.2f%%), %.1f submissions\n",
            p->step_seconds / steps * 1e3, kernels / steps * 1e3, 100 * kernels / p->step_seconds,
            p->host_seconds / steps * 1e3, 100 * p->host_seconds / p->step_seconds,
            (double)p->submissions / steps);
}

void qn_train_profile_free(qn_train_profile *p)
{
    qn_free(p->ops);
    *p = (qn_train_profile){ 0 };
}
