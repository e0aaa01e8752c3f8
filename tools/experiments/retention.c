// What is rehearsed is kept, at the level of states, without training: 16 random pairs are written,
// 1024 tokens of noise follow, written faintly; half of the pairs are recalled once every 64 tokens.
// Cosine of what a key brings back with its value, and share of keys whose value is the nearest.
#include "llm/memory_layer.h"
#include "mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAIRS = 16, D = 32, NOISE = 1024, EVERY = 64, T = PAIRS + NOISE, SEEDS = 10 };

typedef struct text {
    float q[T * D], k[T * D], v[T * D], la[T], beta[T], rho[T];
    double keys[PAIRS][D], values[PAIRS][D];
} text;

static void stop(const char *what)
{
    fprintf(stderr, "retention: %s: %s\n", what, qn_error_message());
    exit(1);
}

static void unit(qn_random *r, double *x)
{
    double square = 0;
    for (int i = 0; i < D; i++) {
        x[i] = qn_random_normal(r);
        square += x[i] * x[i];
    }
    for (int i = 0; i < D; i++) x[i] /= sqrt(square);
}

static void copy(float *to, const double *x)
{
    for (int i = 0; i < D; i++) to[i] = (float)x[i];
}

// Every other pair is rehearsed.
static void make_text(text *x, int seed)
{
    qn_random r = qn_random_start((uint64_t)seed, 0);
    double other[D];
    for (int i = 0; i < PAIRS; i++) {
        unit(&r, x->keys[i]);
        unit(&r, x->values[i]);
    }
    for (int t = 0; t < T; t++) {
        const int place = (t - PAIRS) % EVERY;
        const bool hit = t >= PAIRS && place < PAIRS / 2;
        x->la[t] = (float)(-log(2) / 128);
        x->beta[t] = t < PAIRS ? 1 : 0.02f;
        x->rho[t] = hit ? 1 : 0;
        for (int part = 0; part < 3; part++) {
            float *to = (part == 0 ? x->q : part == 1 ? x->k : x->v) + t * D;
            unit(&r, other);
            if (t < PAIRS)
                copy(to, part == 2 ? x->values[t] : x->keys[t]);
            else
                copy(to, part == 0 && hit ? x->keys[2 * place] : other);
        }
    }
}

// Adds cosine and first place of rehearsed (0, 1) and other pairs (2, 3).
static void judge(const text *x, const float *m, double *sums)
{
    for (int p = 0; p < PAIRS; p++) {
        double out[D] = { 0 }, square = 0, best = -1e9;
        int nearest = 0;
        for (int j = 0; j < D; j++) {
            for (int d = 0; d < D; d++) out[j] += x->keys[p][d] * (double)m[d * D + j];
            square += out[j] * out[j];
        }
        for (int c = 0; c < PAIRS; c++) {
            double dot = 0;
            for (int j = 0; j < D; j++) dot += out[j] * x->values[c][j];
            if (c == p) sums[p % 2 ? 2 : 0] += dot / sqrt(square + 1e-30);
            if (dot > best) {
                best = dot;
                nearest = c;
            }
        }
        sums[p % 2 ? 3 : 1] += nearest == p;
    }
}

static void run(qn_device *dev, const text *x, int kind, double *sums)
{
    qn_graph *g;
    qn_plan *plan;
    const float keep = (float)(-log(2) / 8192), share = 1;
    if (qn_graph_create(dev, &g) != QN_OK) stop("graph");
    const qn_shape wide = QN_SHAPE(T, D), one = QN_SHAPE(T, 1);
    const qn_tensor *qkv[3] = { qn_constant(g, "q", QN_F32, wide, x->q),
                                qn_constant(g, "k", QN_F32, wide, x->k),
                                qn_constant(g, "v", QN_F32, wide, x->v) };
    // Without the resonance's factor a recall is always written whole: a tiny threshold.
    const qn_memory_keeping k = { .relevance = qn_constant(g, "rho", QN_F32, one, x->rho),
                                  .log_decay = qn_constant(g, "c", QN_F32, QN_SHAPE(1), &keep),
                                  .share = qn_constant(g, "eta", QN_F32, QN_SHAPE(1), &share),
                                  .threshold = kind == 1 ? 1e-5f : 0.3f / sqrtf(D) };
    const qn_memory_state none = { 0 };
    qn_memory_state end = { 0 };
    const qn_tensor *o = qn_memory_recall(g, qkv, qn_constant(g, "la", QN_F32, one, x->la),
                                          qn_constant(g, "beta", QN_F32, one, x->beta),
                                          kind ? &k : NULL,
                                          &(qn_synapse_opts){ .batch = 1, .heads = 1 }, &none, &end);
    const qn_tensor *out = kind ? qn_add(g, end.plastic, end.consolidated) : end.plastic;
    const qn_tensor *outputs[] = { o, out };
    static float m[D * D];
    if (qn_plan_create(g, &(qn_plan_opts){ .outputs = outputs, .output_count = 2 }, &plan) != QN_OK ||
        qn_plan_run(plan) != QN_OK || qn_plan_get(plan, out, m, sizeof m) != QN_OK)
        stop("run");
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    judge(x, m, sums);
}

int main(void)
{
    static const char *const kinds[] = { "delta", "written whole", "resonance" };
    static text x;
    qn_context *ctx;
    qn_device *dev;
    if (qn_context_create(NULL, &ctx) != QN_OK || qn_device_create(ctx, NULL, &dev) != QN_OK)
        stop("start");
    for (int kind = 0; kind < 3; kind++) {
        double sums[4] = { 0 };
        for (int seed = 0; seed < SEEDS; seed++) {
            make_text(&x, seed);
            run(dev, &x, kind, sums);
        }
        const double n = SEEDS * PAIRS / 2;
        printf("{\"kind\":\"%s\",\"rehearsed_cosine\":%.3f,\"rehearsed_first\":%.3f,"
               "\"other_cosine\":%.3f,\"other_first\":%.3f}\n",
               kinds[kind], sums[0] / n, sums[1] / n, sums[2] / n, sums[3] / n);
    }
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return 0;
}
