// Times the cases of an operation that are marked for it:
//   bench_ops [operation [part of a case's name]]
// Prints the least and the median time of a run, and the arithmetic rate of the least.
#include "case.h"
#include "fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 15 };

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Values do not change the time, as long as integers are in range and floats are normal.
static const qn_tensor *input_of(qn_graph *g, const qn_case_input *in)
{
    size_t count = (size_t)qn_shape_count(in->shape), size = qn_dtype_size(in->dtype);
    char *v = calloc(count, size);
    if (!v) return NULL;
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        int32_t key = (int32_t)in->lo + (int32_t)((state >> 8) % (uint32_t)(in->hi - in->lo + 1));
        float x = (float)(state >> 8) / (float)(1 << 24) - 0.5f;
        if (in->dtype == QN_I32) memcpy(v + i * size, &key, size);
        if (in->dtype == QN_F32) memcpy(v + i * size, &x, size);
    }
    const qn_tensor *t = qn_constant(g, in->name, in->dtype, in->shape, v);
    free(v);
    return t;
}

static qn_result time_plan(qn_plan *p, const char *op, const char *name)
{
    double seconds[RUNS];
    QN_TRY(qn_plan_run(p)); // compiles
    QN_TRY(qn_plan_wait(p));
    for (int i = 0; i < RUNS; i++) {
        double start = now();
        QN_TRY(qn_plan_run(p));
        QN_TRY(qn_plan_wait(p));
        seconds[i] = now() - start;
    }
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    qn_plan_stats s = qn_plan_describe(p);
    printf("%-14s %-22s %9.3f ms least %9.3f ms median %8.2f GF/s %8.2f GB/s\n", op, name,
           1e3 * seconds[0], 1e3 * seconds[RUNS / 2], 1e-9 * (double)s.flops / seconds[0],
           1e-9 * (double)s.traffic / seconds[0]);
    fflush(stdout);
    return QN_OK;
}

static qn_result time_case(qn_device *dev, const char *op, const qn_case *c)
{
    qn_graph *g = NULL;
    qn_plan *p = NULL;
    const qn_tensor *in[QN_CASE_INPUTS] = { NULL }, *out[QN_CASE_OUTPUTS];
    QN_TRY(qn_graph_create(dev, &g));
    for (int i = 0; i < c->inputs; i++) in[i] = input_of(g, &c->in[i]);
    int outputs = c->build(g, c, in, out);
    qn_plan_opts opts = { .outputs = out, .output_count = (size_t)outputs };
    qn_result r = qn_plan_create(g, &opts, &p);
    if (r == QN_OK) r = time_plan(p, op, c->name);
    qn_plan_destroy(&p);
    qn_graph_destroy(&g);
    return r;
}

static const struct {
    const char *name;
    const qn_op_test *test;
} ops[] = {
#define QN_OP_ROW(name) { #name, &qn_test_##name },
#include "ops.def"
#undef QN_OP_ROW
};

int main(int argc, char **argv)
{
    qn_context *ctx = NULL;
    qn_device *dev = NULL;
    qn_result r = qn_context_create(NULL, &ctx);
    if (r == QN_OK) r = qn_device_create(ctx, NULL, &dev);
    if (r == QN_OK) printf("%s\n", qn_device_describe(dev)->name);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (argc > 1 && strcmp(argv[1], ops[i].name) != 0) continue;
        for (size_t k = 0; r == QN_OK && k < ops[i].test->case_count; k++) {
            const qn_case *c = &ops[i].test->cases[k];
            bool wanted = argc < 3 || strstr(c->name, argv[2]);
            if (c->bench && !c->in[0].stored && wanted) r = time_case(dev, ops[i].name, c);
        }
    }
    if (r != QN_OK) fprintf(stderr, "%s: %s\n", qn_result_name(r), qn_error_message());
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return r == QN_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
