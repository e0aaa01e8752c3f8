// Time of the memory operator, forward and backward, on random inputs: T = 1024, 8 heads, dk = dv = 64.
// Both the plastic matrix alone and with the consolidated one.
#include "llm/memory_layer.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 1024, H = 8, W = 64, RUNS = 15 };

static void stop(const char *what)
{
    fprintf(stderr, "operator: %s: %s\n", what, qn_error_message());
    exit(1);
}

static const qn_tensor *filled(qn_graph *g, const char *name, qn_shape s, qn_random *r, double scale,
                               double offset)
{
    const size_t n = (size_t)qn_shape_count(s);
    float *x = qn_malloc(n * sizeof *x);
    if (!x) stop("memory");
    for (size_t i = 0; i < n; i++) x[i] = (float)(qn_random_normal(r) * scale + offset);
    const qn_tensor *t = qn_constant(g, name, QN_F32, s, x);
    qn_free(x);
    return t;
}

static void fill_store(qn_store *s, qn_random *r)
{
    for (size_t i = 0; i < qn_store_count(s); i++) {
        const qn_store_entry *e = qn_store_at(s, i);
        float *x = qn_malloc((size_t)e->size);
        if (!x) stop("memory");
        for (size_t k = 0; k < e->size / 4; k++) {
            const double n = qn_random_normal(r);
            const char kind = e->name[0];
            x[k] = (float)(kind == 'l' ? -0.5 / (1 + exp(n)) : // la
                               kind == 'b' || kind == 'p' ? 1 / (1 + exp(n)) : // beta, rho
                               kind == 'v' ? n : n / 8);
        }
        if (qn_store_write(s, e->name, x, e->size) != QN_OK) stop("inputs");
        qn_free(x);
    }
}

static double best_of(qn_plan *plan)
{
    double best = 1e9;
    for (int i = 0; i < RUNS; i++) {
        const double begun = qn_clock();
        if (qn_plan_run(plan) != QN_OK || qn_plan_wait(plan) != QN_OK) stop("run");
        const double took = qn_clock() - begun;
        if (i > 1 && took < best) best = took;
    }
    return best;
}

static void measure(qn_device *dev, qn_store *s, bool full)
{
    double took[2];
    for (int back = 0; back < 2; back++) {
        qn_graph *g;
        qn_plan *plan = NULL;
        if (qn_graph_create(dev, &g) != QN_OK) stop("graph");
        static const char *const names[] = { "q", "k", "v", "la", "beta", "p" };
        const qn_tensor *in[6], *grads[6], *outputs[6];
        for (int i = 0; i < 6; i++) in[i] = qn_param(g, s, names[i]);
        qn_random r = qn_random_start(1, 1);
        qn_memory_keeping keep = { .relevance = in[5], .threshold = 0.2f,
                                   .log_decay = filled(g, "c", QN_SHAPE(H), &r, 0, -1e-4),
                                   .share = filled(g, "eta", QN_SHAPE(H), &r, 0, 1) };
        const qn_memory_state none = { 0 };
        qn_memory_state end = { 0 };
        const qn_synapse_opts opts = { .batch = 1, .heads = H };
        const qn_tensor *o = qn_memory_recall(g, in, in[3], in[4], full ? &keep : NULL, &opts, &none,
                                              &end);
        size_t count = 1;
        outputs[0] = o;
        if (back) {
            const qn_tensor *weight = filled(g, "do", QN_SHAPE(T, H * W), &r, 1, 0);
            count = full ? 6 : 5;
            if (qn_backward(g, qn_sum_all(g, qn_mul(g, o, weight)), NULL, in, count, grads) != QN_OK)
                stop("gradient");
            for (size_t i = 0; i < count; i++) outputs[i] = grads[i];
        }
        if (qn_plan_create(g, &(qn_plan_opts){ .outputs = outputs, .output_count = count }, &plan) !=
            QN_OK)
            stop("plan");
        took[back] = best_of(plan);
        qn_plan_destroy(&plan);
        qn_graph_destroy(&g);
    }
    printf("{\"kind\":\"%s\",\"forward_ms\":%.2f,\"forward_backward_ms\":%.2f}\n",
           full ? "full" : "delta", took[0] * 1e3, took[1] * 1e3);
}

int main(void)
{
    qn_context *ctx;
    qn_device *dev;
    qn_store *s;
    if (qn_context_create(NULL, &ctx) != QN_OK || qn_device_create(ctx, NULL, &dev) != QN_OK ||
        qn_store_create(dev, "inputs", &s) != QN_OK)
        stop("start");
    static const char *const wide[] = { "q", "k", "v" }, *const narrow[] = { "la", "beta", "p" };
    for (int i = 0; i < 3; i++)
        if (qn_store_add(s, wide[i], QN_F32, QN_SHAPE(T, H * W)) != QN_OK ||
            qn_store_add(s, narrow[i], QN_F32, QN_SHAPE(T, H)) != QN_OK)
            stop("inputs");
    if (qn_store_allocate(s) != QN_OK) stop("inputs");
    qn_random r = qn_random_start(1, 2);
    fill_store(s, &r);
    measure(dev, s, false);
    measure(dev, s, true);
    qn_store_destroy(&s);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return 0;
}
