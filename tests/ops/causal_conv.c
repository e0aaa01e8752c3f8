// Cases of the causal convolution and its gradients.
#include "case.h"
#include "shapes.h"

#include <math.h>

typedef struct setup {
    int batch, tokens, channels, taps;
    bool start;
} setup;

enum { X, W, START };

// Row e of the extended text: what came before, then x.
static double *extended(const setup *s, const qn_ref *x, const qn_ref *start, int b, int e, int c)
{
    static double zero;
    int before = s->taps - 1;
    if (e >= before) return &x->v[((int64_t)b * s->tokens + e - before) * s->channels + c];
    zero = 0;
    return start ? &start->v[((int64_t)b * before + e) * s->channels + c] : &zero;
}

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    qn_causal_conv_opts opts = {
        .batch = s->batch,
        .start = s->start ? in[START] : NULL,
        .end = s->taps > 1 ? &out[1] : NULL,
    };
    out[0] = qn_causal_conv(g, in[X], in[W], &opts);
    return s->taps > 1 ? 2 : 1;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    const qn_ref *start = s->start ? &in[START] : NULL;
    for (int b = 0; b < s->batch; b++)
        for (int ch = 0; ch < s->channels; ch++) {
            for (int t = 0; t < s->tokens; t++) {
                int64_t at = ((int64_t)b * s->tokens + t) * s->channels + ch;
                out[0].v[at] = out[0].mag[at] = 0;
                for (int j = 0; j < s->taps; j++) {
                    double term = in[W].v[j * s->channels + ch] *
                                  *extended(s, &in[X], start, b, t + j, ch);
                    out[0].v[at] += term;
                    out[0].mag[at] += fabs(term);
                }
            }
            for (int i = 0; i < s->taps - 1; i++)
                out[1].v[((int64_t)b * (s->taps - 1) + i) * s->channels + ch] =
                    *extended(s, &in[X], start, b, s->tokens + i, ch);
        }
    out[0].terms = s->taps;
}

#define INPUTS(b, t, c, w)                                                                         \
    { .name = "x", .shape = S2((b) * (t), c), .grad = true },                                      \
        { .name = "w", .shape = S2(w, c), .grad = true },                                          \
    {                                                                                              \
        .name = "start", .shape = S3(b, (w) > 1 ? (w)-1 : 1, c), .grad = true                      \
    }
#define CASE(label, b, t, c, w, with_start)                                                        \
    {                                                                                              \
        .name = label, .inputs = 2 + (with_start), .in = { INPUTS(b, t, c, w) }, .build = build,   \
        .ref = ref, .params = &(const setup){ b, t, c, w, with_start }                             \
    }

static const qn_case cases[] = {
    CASE("t1_c1_w1", 1, 1, 1, 1, false),      CASE("t1_c5_w4_start", 3, 1, 5, 4, true),
    CASE("t2_c8_w4_start", 2, 2, 8, 4, true), CASE("t3_c8_w4", 2, 3, 8, 4, false),
    CASE("t4_c7_w4_start", 2, 4, 7, 4, true), CASE("t33_c12_w4_start", 3, 33, 12, 4, true),
    CASE("t40_c36_w2", 2, 40, 36, 2, false),  CASE("t20_c4_w16_start", 1, 20, 4, 16, true),
    CASE("t70_c68_w3", 3, 70, 68, 3, false),  CASE("t9_c6_w1", 2, 9, 6, 1, false),
};

// ---------------------------------------------------------------------------------- gradients

static const qn_tensor *objective(qn_graph *g, const setup *s, const qn_tensor *const *in)
{
    const qn_tensor *end = NULL;
    qn_causal_conv_opts opts = { .batch = s->batch, .start = s->start ? in[START] : NULL,
                                 .end = &end };
    const qn_tensor *y = qn_causal_conv(g, in[X], in[W], &opts);
    const qn_tensor *dy = in[2 + s->start], *dend = in[3 + s->start];
    return qn_add(g, qn_sum_all(g, qn_mul(g, y, dy)), qn_sum_all(g, qn_mul(g, end, dend)));
}

static int build_x(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                   const qn_tensor **out)
{
    const setup *s = c->params;
    const qn_tensor *wrt[2] = { in[X], in[START] };
    for (int i = 0; i < 1 + s->start; i++) qn_wants_grad(wrt[i]);
    const qn_tensor *loss = objective(g, s, in);
    return loss && qn_backward(g, loss, NULL, wrt, 1 + s->start, out) == QN_OK ? 1 + s->start : 0;
}

static int build_w(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    qn_wants_grad(in[W]);
    const qn_tensor *loss = objective(g, c->params, in);
    return loss && qn_backward(g, loss, NULL, &in[W], 1, out) == QN_OK ? 1 : 0;
}

static void add(qn_ref *t, const double *at, double term)
{
    int64_t i = at - t->v;
    *(double *)at += term;
    t->mag[i] += fabs(term);
}

static void ref_x(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    const qn_ref *dy = &in[2 + s->start], *dend = dy + 1;
    for (int o = 0; o < 1 + s->start; o++)
        for (int64_t i = 0; i < out[o].count; i++) out[o].v[i] = out[o].mag[i] = 0;
    for (int b = 0; b < s->batch; b++)
        for (int ch = 0; ch < s->channels; ch++)
            for (int e = 0; e < s->tokens + s->taps - 1; e++) {
                bool before = e < s->taps - 1;
                if (before && !s->start) continue;
                qn_ref *t = &out[before];
                const double *at = extended(s, &out[0], &out[1], b, e, ch);
                for (int j = 0; j < s->taps; j++)
                    if (e - j >= 0 && e - j < s->tokens)
                        add(t, at, in[W].v[j * s->channels + ch] *
                                       dy->v[((int64_t)b * s->tokens + e - j) * s->channels + ch]);
                int i = e - s->tokens;
                if (i >= 0) add(t, at, dend->v[((int64_t)b * (s->taps - 1) + i) * s->channels + ch]);
            }
    for (int o = 0; o < 1 + s->start; o++) out[o].terms = s->taps + 1;
}

static void ref_w(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    const qn_ref *start = s->start ? &in[START] : NULL, *dy = &in[2 + s->start];
    for (int j = 0; j < s->taps; j++)
        for (int ch = 0; ch < s->channels; ch++) {
            int64_t at = (int64_t)j * s->channels + ch;
            out[0].v[at] = out[0].mag[at] = 0;
            for (int b = 0; b < s->batch; b++)
                for (int t = 0; t < s->tokens; t++) {
                    double term = dy->v[((int64_t)b * s->tokens + t) * s->channels + ch] *
                                  *extended(s, &in[X], start, b, t + j, ch);
                    out[0].v[at] += term;
                    out[0].mag[at] += fabs(term);
                }
        }
    out[0].terms = s->batch * s->tokens;
}

#define GRADIENTS(b, t, c, w)                                                                      \
    { .name = "dy", .shape = S2((b) * (t), c) }, { .name = "dend", .shape = S3(b, (w)-1, c) }
#define BACK(label, b, t, c, w, which)                                                             \
    {                                                                                              \
        .name = label, .inputs = 4, .no_grad_ref = true, .build = build_##which,                   \
        .ref = ref_##which,                                                                        \
        .in = { { .name = "x", .shape = S2((b) * (t), c) }, { .name = "w", .shape = S2(w, c) },    \
                GRADIENTS(b, t, c, w) },                                                           \
        .params = &(const setup){ b, t, c, w, false }                                              \
    }
#define BACK_START(label, b, t, c, w, which)                                                       \
    {                                                                                              \
        .name = label, .inputs = 5, .no_grad_ref = true, .build = build_##which,                   \
        .ref = ref_##which, .in = { INPUTS(b, t, c, w), GRADIENTS(b, t, c, w) },                   \
        .params = &(const setup){ b, t, c, w, true }                                               \
    }

static const qn_case cases_x[] = {
    BACK("t1_c5_w4", 2, 1, 5, 4, x),
    BACK_START("t2_c8_w4_start", 2, 2, 8, 4, x),
    BACK_START("t33_c12_w4_start", 3, 33, 12, 4, x),
    BACK("t70_c7_w2", 3, 70, 7, 2, x),
};
static const qn_case cases_w[] = {
    BACK("t1_c5_w4", 2, 1, 5, 4, w),
    BACK_START("t2_c8_w4_start", 2, 2, 8, 4, w),
    BACK_START("t33_c12_w4_start", 3, 33, 12, 4, w),
    BACK("t130_c7_w2", 3, 130, 7, 2, w),
};

// ---------------------------------------------------------------------------------- refusals

static void try(qn_graph *g, int batch, qn_shape x, qn_shape w, qn_shape start)
{
    const qn_tensor *xs = qn_input(g, "x", QN_F32, x), *ws = qn_input(g, "w", QN_F32, w);
    qn_causal_conv_opts opts = { .batch = batch };
    if (start.rank) opts.start = qn_input(g, "start", QN_F32, start);
    qn_causal_conv(g, xs, ws, &opts);
}
#define REFUSED(name, ...)                                                                         \
    static void name(qn_graph *g)                                                                  \
    {                                                                                              \
        try(g, __VA_ARGS__);                                                                       \
    }
REFUSED(no_batch, 0, QN_SHAPE(6, 4), QN_SHAPE(4, 4), QN_SCALAR)
REFUSED(odd_rows, 4, QN_SHAPE(6, 4), QN_SHAPE(4, 4), QN_SCALAR)
REFUSED(channels, 1, QN_SHAPE(6, 4), QN_SHAPE(4, 5), QN_SCALAR)
REFUSED(many_taps, 1, QN_SHAPE(6, 4), QN_SHAPE(17, 4), QN_SCALAR)
REFUSED(other_start, 2, QN_SHAPE(6, 4), QN_SHAPE(4, 4), QN_SHAPE(2, 4, 4))
REFUSED(start_of_one, 2, QN_SHAPE(6, 4), QN_SHAPE(1, 4), QN_SHAPE(2, 1, 4))

static const qn_refusal refusals[] = {
    { "no batch", QN_ERR_INVALID, "batch 0", no_batch },
    { "rows that do not divide", QN_ERR_INVALID, "rows for batch 4", odd_rows },
    { "channels of w", QN_ERR_INVALID, "w (w) has shape [4,5], expected [1 to 16 taps, 4]",
      channels },
    { "17 taps", QN_ERR_INVALID, "w (w) has shape [17,4]", many_taps },
    { "shape of start", QN_ERR_INVALID, "start (start) has shape [2,4,4], expected [2,3,4]",
      other_start },
    { "start with one tap", QN_ERR_INVALID, "expected none with one tap", start_of_one },
};

QN_OP_TEST(causal_conv, cases, refusals);
QN_OP_TEST(causal_conv_grad, cases_x, refusals);
QN_OP_TEST(causal_conv_grad_w, cases_w, refusals);
