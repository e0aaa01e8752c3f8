// Prints apps/tab/timings.c: random matrix products timed on the default device.
#include <quoin/graph.h>
#include <quoin/ops.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROWS = 240, RUNS = 5, MOST = 1 << 18 };

typedef struct product {
    int m, k, n, ta, tb, bias, relu;
    double rate; // GF/s
} product;

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int draw(int below)
{
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (int)((state >> 8) % (uint32_t)below);
}

// 1 to 272, powers of two as often as not.
static int size(void)
{
    int power = 1 << draw(9);
    return power + draw(2) * draw(16);
}

static double time_runs(qn_plan *plan)
{
    double best = 1e9;
    for (int i = 0; i <= RUNS; i++) { // the first one compiles
        double start = now();
        if (qn_plan_run(plan) != QN_OK || qn_plan_wait(plan) != QN_OK) return -1;
        double seconds = now() - start;
        if (i && seconds < best) best = seconds;
    }
    return best;
}

static double measure(qn_device *dev, const product *p)
{
    static const float zero[MOST];
    qn_graph *g = NULL;
    qn_plan *plan = NULL;
    if (qn_graph_create(dev, &g) != QN_OK) return -1;
    qn_shape sa = p->ta ? QN_SHAPE(p->k, p->m) : QN_SHAPE(p->m, p->k);
    qn_shape sb = p->tb ? QN_SHAPE(p->n, p->k) : QN_SHAPE(p->k, p->n);
    qn_matmul_opts o = { .transpose_a = p->ta, .transpose_b = p->tb,
                         .activation = p->relu ? QN_RELU : QN_IDENTITY };
    if (p->bias) o.bias = qn_constant(g, "bias", QN_F32, QN_SHAPE(p->n), zero);
    const qn_tensor *a = qn_constant(g, "a", QN_F32, sa, zero);
    const qn_tensor *c = qn_matmul(g, a, qn_constant(g, "b", QN_F32, sb, zero), &o);
    qn_plan_opts opts = { .outputs = &c, .output_count = 1 };
    double best = qn_plan_create(g, &opts, &plan) == QN_OK ? time_runs(plan) : -1;
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    return best;
}

static int by_rate(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    static product p[ROWS];
    static double rates[ROWS];
    static const char *const words[2] = { "no", "yes" };
    qn_context *ctx;
    qn_device *dev;
    if (qn_context_create(NULL, &ctx) != QN_OK || qn_device_create(ctx, NULL, &dev) != QN_OK) return 1;
    for (int i = 0; i < ROWS; i++) {
        p[i] = (product){ size(), size(), size(), draw(2), draw(2), draw(2), draw(2), 0 };
        double seconds = measure(dev, &p[i]);
        if (seconds < 0) {
            fprintf(stderr, "%s\n", qn_error_message());
            return 1;
        }
        rates[i] = p[i].rate = 2e-9 * p[i].m * p[i].k * p[i].n / seconds;
    }
    qsort(rates, ROWS, sizeof *rates, by_rate);
    double middle = (rates[ROWS / 2 - 1] + rates[ROWS / 2]) / 2;
    printf("// Made by tools/experiments/time_products.c on %s.\n#include \"tab/timings.h\"\n\n"
           "const char qn_tab_timings[] =\n"
           "    \"rows,inner,columns,transposed_a,transposed_b,bias,relu,speed\\n\"\n",
           qn_device_describe(dev)->name);
    for (int i = 0; i < ROWS; i++)
        printf("    \"%d,%d,%d,%s,%s,%s,%s,%s\\n\"%s\n", p[i].m, p[i].k, p[i].n, words[p[i].ta],
               words[p[i].tb], words[p[i].bias], words[p[i].relu],
               p[i].rate > middle ? "fast" : "slow", i + 1 == ROWS ? ";" : "");
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return 0;
}
