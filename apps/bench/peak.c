// The measured ceiling of matrix products.
#include "bench/peak.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"

#include <quoin/ops.h>

static qn_result best_of(qn_plan *plan, int runs, double *seconds)
{
    *seconds = 0;
    for (int i = 0; i <= runs; i++) {
        double start = qn_clock();
        QN_TRY(qn_plan_run(plan));
        QN_TRY(qn_plan_wait(plan));
        double took = qn_clock() - start;
        if (i > 0 && (*seconds == 0 || took < *seconds)) *seconds = took; // run 0 compiles
    }
    return QN_OK;
}

static qn_result measure(qn_graph *g, qn_plan **plan, int64_t n, int products, int runs,
                         double *flops_per_second)
{
    const qn_tensor *a = qn_input(g, "a", QN_F32, QN_SHAPE(n, n));
    const qn_tensor *x = a;
    for (int i = 0; i < products; i++) x = qn_matmul(g, x, a, NULL);
    qn_plan_opts opts = { .outputs = &x, .output_count = 1 };
    QN_TRY(qn_plan_create(g, &opts, plan));
    const uint64_t size = (uint64_t)(n * n) * sizeof(float);
    float *zeros = qn_calloc((size_t)(n * n), sizeof *zeros);
    if (!zeros) return qn_no_memory(size);
    qn_result r = qn_plan_set(*plan, a, zeros, size);
    qn_free(zeros);
    QN_TRY(r);
    double seconds;
    QN_TRY(best_of(*plan, runs, &seconds));
    *flops_per_second = 2.0 * (double)n * (double)n * (double)n * products / seconds;
    return QN_OK;
}

qn_result qn_peak_matmul(qn_device *dev, double *flops_per_second)
{
    const bool software = qn_device_describe(dev)->software;
    qn_graph *g = NULL;
    qn_plan *plan = NULL;
    QN_TRY(qn_graph_create(dev, &g));
    qn_result r = measure(g, &plan, software ? 256 : 2048, 4, 5, flops_per_second);
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    return r;
}
