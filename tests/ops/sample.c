// Choosing tokens: the definition in double, with the same random numbers.
#include "case.h"
#include "op.h"
#include "random.h"
#include "shapes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double word_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(double word)
{
    int32_t bits = (int32_t)word;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

typedef struct candidate {
    int token;
    double x, p;
} candidate;

static int by_x(const void *a, const void *b)
{
    const candidate *l = a, *r = b;
    if (l->x != r->x) return l->x < r->x ? 1 : -1;
    return l->token - r->token;
}

// Those with usable logits, most likely first; returns how many.
static int sorted(const double *x, int V, candidate *c)
{
    int n = 0;
    for (int v = 0; v < V; v++)
        if (fabs(x[v]) <= 3.40282347e38) c[n++] = (candidate){ v, x[v], 0 };
    qsort(c, (size_t)n, sizeof *c, by_x);
    return n;
}

static double gumbel(const double *how, int token)
{
    uint32_t word[4];
    uint64_t seed = (uint32_t)(int32_t)how[4] | (uint64_t)(uint32_t)(int32_t)how[5] << 32;
    qn_philox(seed, (uint32_t)(int32_t)how[6], (uint64_t)token / 4, word);
    return -log(-log(((word[token % 4] >> 9) + 0.5) / 8388608.0));
}

static int choose(const double *x, int V, const double *how, candidate *c)
{
    int n = sorted(x, V, c);
    if (n == 0) return -1;
    double t = (double)float_of(how[0]), sum = 0, mass = 0;
    if (t <= 0) return c[0].token;
    if (how[3] > 0 && how[3] < n) n = (int)how[3];
    for (int i = 0; i < n; i++) sum += c[i].p = exp(c[i].x - c[0].x);
    int keep = 0;
    if ((double)float_of(how[1]) < 1) {
        while (keep < n && (keep == 0 || mass < (double)float_of(how[1]) * sum)) mass += c[keep++].p;
        n = keep;
    }
    for (keep = 1; keep < n && c[keep].p >= (double)float_of(how[2]);) keep++;
    double best = -INFINITY;
    int token = -1;
    for (int i = 0; i < keep; i++) {
        double score = c[i].x / t + gumbel(how, c[i].token);
        if (score <= best) continue;
        best = score;
        token = c[i].token;
    }
    return token;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const int N = (int)in[0].shape.dim[0], V = (int)in[0].shape.dim[1];
    candidate *all = malloc((size_t)V * sizeof *all);
    double *x = malloc((size_t)V * sizeof *x);
    if (!all || !x) abort();
    for (int o = 1; o <= 3; o += 2) { // differences of a logit and a logarithm of V terms
        out[o].terms = V + 4;
        out[o].slack = 30;
    }
    for (int n = 0; n < N; n++) {
        const double *logits = in[0].v + (int64_t)n * V, *how = in[1].v + n * 8;
        double top = -INFINITY, sum = 0;
        for (int v = 0; v < V; v++) top = fmax(top, logits[v]);
        for (int v = 0; v < V; v++) sum += exp(logits[v] - top);
        const double whole = top + log(sum);
        memcpy(x, logits, (size_t)V * sizeof *x);
        for (int64_t m = 0; c->inputs == 3 && m < in[2].shape.dim[1]; m++) {
            const double *w = in[2].v + (n * in[2].shape.dim[1] + m) * 4;
            if (w[0] < 0 || w[0] >= V) continue;
            double y = x[(int)w[0]] + (double)float_of(w[1]), f = (double)float_of(w[2]);
            x[(int)w[0]] = (y > 0 ? y / f : y * f) - (double)float_of(w[3]);
        }
        int token = choose(x, V, how, all);
        out[0].v[n] = token;
        out[1].v[n] = token < 0 ? 0 : logits[token] - whole;
        out[1].mag[n] = token < 0 ? 0 : fabs(logits[token]) + fabs(top) + fabs(whole) + 1;
        int count = sorted(logits, V, all);
        for (int k = 0; k < QN_SAMPLE_TOP; k++) {
            bool is = k < how[7] && k < count;
            out[2].v[n * QN_SAMPLE_TOP + k] = is ? all[k].token : -1;
            out[3].v[n * QN_SAMPLE_TOP + k] = is ? all[k].x - whole : 0;
            if (is)
                out[3].mag[n * QN_SAMPLE_TOP + k] = fabs(all[k].x) + fabs(top) + fabs(whole) + 1;
        }
    }
    free(all);
    free(x);
}

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    qn_sampled s = qn_sample(g, in[0], in[1], c->inputs == 3 ? in[2] : NULL);
    out[0] = s.token;
    out[1] = s.logprob;
    out[2] = s.top;
    out[3] = s.chance;
    return 4;
}

// Every way of sampling in turn.
static void fill_how(qn_ref *t)
{
    static const struct {
        float temperature, top_p, min_p;
        int k, top;
    } rows[] = {
        { 0, 1, 0, 0, 0 },         { 1, 1, 0, 0, 3 },          { 0.8f, 0.95f, 0.05f, 40, 20 },
        { 1.5f, 0.5f, 0, 0, 0 },   { 2, 1, 0, 5, 0 },          { 0.3f, 1, 0.2f, 0, 1 },
        { 10, 0.999f, 0, 100, 0 }, { 1, 0, 0, 0, 7 },          { 1, 1, 0, 1, 0 },
        { 0.01f, 1, 0, 0, 0 },     { 5, 0.9f, 0.001f, 17, 2 }, { 1, 1, 1, 0, 0 },
    };
    for (int64_t n = 0; n < t->shape.dim[0]; n++) {
        double *how = t->v + n * 8;
        const int i = (int)(n % (int64_t)(sizeof rows / sizeof *rows));
        how[0] = word_of(rows[i].temperature);
        how[1] = word_of(rows[i].top_p);
        how[2] = word_of(rows[i].min_p);
        how[3] = rows[i].k;
        how[4] = 1234567 * (double)n - 2147483648.0;
        how[5] = (double)(n * n);
        how[6] = 77 - (double)n;
        how[7] = rows[i].top;
    }
}

// Entries of all kinds; one in three is empty.
static void fill_changes(qn_ref *t)
{
    const int64_t M = t->shape.dim[1];
    for (int64_t i = 0; i < t->shape.dim[0] * M; i++) {
        double *w = t->v + i * 4;
        const int64_t m = i % M;
        w[0] = m % 3 == 2 ? -1 : m == 4 ? 1e6 : (double)(m * 2 + i / M % 2);
        w[1] = word_of(m % 2 ? 0.0f : m == 0 ? -INFINITY : 3.0f);
        w[2] = word_of(1.0f + 0.25f * (float)m);
        w[3] = word_of(m % 4 ? 0.5f : 0.0f);
    }
}

static void fill_broken(qn_ref *t)
{
    static const double odd[] = { NAN, INFINITY, -INFINITY };
    for (int64_t i = 0; i < t->count; i++) t->v[i] = odd[i % 3];
}

#define HOW(n)                                                                                     \
    {                                                                                              \
        .name = "how", .dtype = QN_I32, .shape = S2(n, 8), .gen = QN_GEN_CUSTOM, .fill = fill_how  \
    }
#define PLAIN(label, n, v, size)                                                                   \
    {                                                                                              \
        .name = label, .inputs = 2, .build = build, .ref = ref, .no_grad_ref = true,               \
        .in = { { .name = "logits", .shape = S2(n, v), .scale = size }, HOW(n) }                   \
    }
#define CHANGED(label, n, v, m)                                                                    \
    {                                                                                              \
        .name = label, .inputs = 3, .build = build, .ref = ref, .no_grad_ref = true,               \
        .in = { { .name = "logits", .shape = S2(n, v), .scale = 3 },                               \
                HOW(n),                                                                            \
                { .name = "changes",                                                               \
                  .dtype = QN_I32,                                                                 \
                  .shape = S3(n, m, 4),                                                            \
                  .gen = QN_GEN_CUSTOM,                                                            \
                  .fill = fill_changes } }                                                         \
    }
static int build_broken(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    (void)c;
    out[0] = qn_sample(g, in[0], in[1], NULL).token;
    return 1;
}

static void ref_broken(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c, (void)in;
    for (int64_t i = 0; i < out[0].count; i++) out[0].v[i] = -1;
}

static const qn_case cases[] = {
    PLAIN("1x1", 1, 1, 1),
    PLAIN("12x3", 12, 3, 1),
    PLAIN("12x64", 12, 64, 2),
    PLAIN("24x257", 24, 257, 3),
    PLAIN("12x1030_flat", 12, 1030, 0.1),
    PLAIN("5x4099_steep", 5, 4099, 8),
    CHANGED("12x100_m6", 12, 100, 6),
    CHANGED("3x333_m100", 3, 333, 100),
    { .name = "nothing_usable",
      .inputs = 2,
      .build = build_broken,
      .ref = ref_broken,
      .no_grad_ref = true,
      .in = { { .name = "logits", .shape = S2(6, 7), .gen = QN_GEN_CUSTOM, .fill = fill_broken },
              HOW(6) } },
};

static void no_rows(qn_graph *g)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(9));
    qn_sample(g, x, qn_input(g, "how", QN_I32, QN_SHAPE(1, 8)), NULL);
}

static void short_how(qn_graph *g)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(2, 9));
    qn_sample(g, x, qn_input(g, "how", QN_I32, QN_SHAPE(2, 7)), NULL);
}

static void odd_changes(qn_graph *g)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(2, 9));
    qn_sample(g, x, qn_input(g, "how", QN_I32, QN_SHAPE(2, 8)),
              qn_input(g, "c", QN_I32, QN_SHAPE(2, 4)));
}

static void too_many(qn_graph *g)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(1, 1 << 20));
    qn_sample(g, x, qn_input(g, "how", QN_I32, QN_SHAPE(1, 8)), NULL);
}

static const qn_refusal refusals[] = {
    { "one row without its dimension", QN_ERR_INVALID, "expected [N, V]", no_rows },
    { "seven words", QN_ERR_INVALID, "expected [2,8]", short_how },
    { "changes without entries", QN_ERR_INVALID, "expected [2, M, 4]", odd_changes },
    { "a vocabulary of 2^20", QN_ERR_INVALID, "expected at most", too_many },
};

QN_OP_TEST(sample, cases, refusals);
