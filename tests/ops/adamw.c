// Cases of adamw.
#include "case.h"

#include <math.h>

enum { P, GRAD, M, V, HYPER, SQUARE_SUM, GROUPS, TABLE };

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    (void)c;
    out[0] = qn_adamw(g, in[P], in[GRAD], in[M], in[V], in[HYPER], in[SQUARE_SUM], in[GROUPS],
                      in[TABLE]);
    return 1;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    const double *h = in[HYPER].v;
    double b1 = 1 - h[1], b2 = 1 - h[2], scale = 1;
    if (h[4] > 0) scale = fmin(1, h[4] / (sqrt(in[SQUARE_SUM].v[0]) + 1e-6));
    for (int64_t i = 0; i < in[P].count; i++) {
        double *p = &in[P].v[i], *m = &in[M].v[i], *v = &in[V].v[i];
        int64_t group = (int64_t)in[GROUPS].v[i / 64];
        out[0].v[i] = *p;
        if (group < 0 || group >= in[TABLE].shape.dim[0]) continue;
        double lr = h[0] * in[TABLE].v[2 * group], decay = in[TABLE].v[2 * group + 1];
        double g = scale * in[GRAD].v[i];
        in[M].mag[i] = fabs(b1 * *m) + fabs((1 - b1) * g);
        *m = b1 * *m + (1 - b1) * g;
        *v = b2 * *v + (1 - b2) * g * g;
        double rate = lr / h[5] / (sqrt(*v) / sqrt(h[6]) + h[3]), kept = *p * (1 - lr * decay);
        *p = kept - rate * *m;
        out[0].v[i] = *p;
        in[P].mag[i] = out[0].mag[i] = fabs(*p) + fabs(kept) + rate * in[M].mag[i];
    }
    // In units of roundoff: a division 5, a square root and its inverse 6 each, a product 1. The
    // scale takes a root and a division; the step three more divisions and two roots.
    in[M].slack = 13;
    in[V].slack = 2 * 13;
    in[P].slack = out[0].slack = 13 + 13 + 3 * 5 + 2 * 6;
}

// The third step: lr, 1 - b1, 1 - b2, eps, clip, 1 - b1^3, 1 - b2^3.
static void fill_step(qn_ref *t, double clip)
{
    const double h[8] = {
        3e-3, 0.1, 0.05, 1e-8, clip, 1 - 0.9 * 0.9 * 0.9, 1 - 0.95 * 0.95 * 0.95
    };
    for (int i = 0; i < 8; i++) t->v[i] = h[i];
}

static void fill_clipped(qn_ref *t)
{
    fill_step(t, 0.5);
}

static void fill_unclipped(qn_ref *t)
{
    fill_step(t, 0);
}

static void fill_table(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++)
        t->v[i] = i % 2 ? 0.1 * (double)(i / 2) : 1.0 / (double)(1 + i);
}

static void fill_strange_groups(qn_ref *t) // rows that the table lacks freeze as well
{
    static const double groups[] = { 0, -1, 1, 3, -2, INT32_MAX, 2, INT32_MIN };
    for (int64_t i = 0; i < t->count; i++) t->v[i] = groups[i % 8];
}

static void fill_frozen(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = -1;
}

#define VECTOR(label, n, ...)                                                                      \
    {                                                                                              \
        .name = label, .shape = { 1, { n } }, __VA_ARGS__                                          \
    }
#define CASE(label, n, hyper, rows, ...)                                                           \
    {                                                                                              \
        .name = label, .inputs = 8,                                                                \
        .in = { VECTOR("p", n, .stored = true),                                                    \
                VECTOR("grad", n),                                                                 \
                VECTOR("m", n, .scale = 0.1, .stored = true),                                      \
                VECTOR("v", n, .gen = QN_GEN_UNIFORM, .hi = 0.1, .stored = true),                  \
                VECTOR("hyper", 8, .gen = QN_GEN_CUSTOM, .fill = hyper),                           \
                { .name = "square_sum", .gen = QN_GEN_UNIFORM, .lo = 0.1, .hi = 9 },               \
                VECTOR("groups", (n) / 64, .dtype = QN_I32, __VA_ARGS__),                          \
                { .name = "table",                                                                 \
                  .shape = { 2, { rows, 2 } },                                                     \
                  .gen = QN_GEN_CUSTOM,                                                            \
                  .fill = fill_table } },                                                          \
        .build = build, .ref = ref, .bench = (n) >= 1 << 20                                        \
    }
#define ROWS(low, high) .gen = QN_GEN_INT, .lo = low, .hi = high

static const qn_case cases[] = {
    CASE("64", 64, fill_clipped, 1, ROWS(0, 0)),
    CASE("128_unclipped", 128, fill_unclipped, 1, ROWS(0, 0)),
    CASE("320_three_groups", 320, fill_clipped, 3, ROWS(0, 2)),
    CASE("960_some_frozen", 960, fill_clipped, 2, ROWS(-1, 1)),
    CASE("1024_strange_groups", 1024, fill_clipped, 3, .gen = QN_GEN_CUSTOM,
         .fill = fill_strange_groups),
    CASE("448_all_frozen", 448, fill_unclipped, 1, .gen = QN_GEN_CUSTOM, .fill = fill_frozen),
    CASE("33600_seven_groups", 33600, fill_unclipped, 7, ROWS(0, 6)),
    CASE("1m", 1 << 20, fill_clipped, 2, ROWS(0, 1)),
};

// The malformed calls differ from this one in one place each.
typedef struct call {
    const qn_tensor *p, *grad, *m, *v, *hyper, *square_sum, *groups, *table;
} call;

static call call_of(qn_graph *g)
{
    return (call){
        .p = qn_input(g, "p", QN_F32, QN_SHAPE(128)),
        .grad = qn_input(g, "g", QN_F32, QN_SHAPE(128)),
        .m = qn_input(g, "m", QN_F32, QN_SHAPE(128)),
        .v = qn_input(g, "v", QN_F32, QN_SHAPE(128)),
        .hyper = qn_input(g, "h", QN_F32, QN_SHAPE(8)),
        .square_sum = qn_input(g, "s", QN_F32, QN_SCALAR),
        .groups = qn_input(g, "i", QN_I32, QN_SHAPE(2)),
        .table = qn_input(g, "t", QN_F32, QN_SHAPE(3, 2)),
    };
}

static void step(qn_graph *g, call c)
{
    qn_adamw(g, c.p, c.grad, c.m, c.v, c.hyper, c.square_sum, c.groups, c.table);
}

static void refuse_leaf(qn_graph *g)
{
    step(g, call_of(g));
}

static void refuse_length(qn_graph *g)
{
    call c = call_of(g);
    c.p = qn_input(g, "p60", QN_F32, QN_SHAPE(60));
    step(g, c);
}

static void refuse_layout(qn_graph *g)
{
    call c = call_of(g);
    c.m = qn_input(g, "m64", QN_F32, QN_SHAPE(64));
    step(g, c);
}

static void refuse_same(qn_graph *g)
{
    call c = call_of(g);
    c.v = c.m;
    step(g, c);
}

static void refuse_hyper(qn_graph *g)
{
    call c = call_of(g);
    c.hyper = qn_input(g, "h7", QN_F32, QN_SHAPE(7));
    step(g, c);
}

static void refuse_square_sum(qn_graph *g)
{
    call c = call_of(g);
    c.square_sum = c.grad;
    step(g, c);
}

static void refuse_groups(qn_graph *g)
{
    call c = call_of(g);
    c.groups = qn_input(g, "i3", QN_I32, QN_SHAPE(3));
    step(g, c);
}

static void refuse_table(qn_graph *g)
{
    call c = call_of(g);
    c.table = qn_input(g, "t3", QN_F32, QN_SHAPE(2, 3));
    step(g, c);
}

static const qn_refusal refusals[] = {
    { "leaf", QN_ERR_INVALID, "p (p) is not stored, so a step cannot be kept", refuse_leaf },
    { "length", QN_ERR_INVALID, "shape [60], expected one dimension, a multiple", refuse_length },
    { "layout", QN_ERR_INVALID, "m (m64) has shape [64], expected [128]", refuse_layout },
    { "same", QN_ERR_INVALID, "m and v are one tensor (m)", refuse_same },
    { "hyper", QN_ERR_INVALID, "hyper (h7) has shape [7], expected [8]", refuse_hyper },
    { "square_sum", QN_ERR_INVALID, "square_sum (g) has shape [128], expected []",
      refuse_square_sum },
    { "groups", QN_ERR_INVALID, "groups (i3) has shape [3], expected [2]", refuse_groups },
    { "table", QN_ERR_INVALID, "shape [2,3], expected [groups, 2]", refuse_table },
};

QN_OP_TEST(adamw, cases, refusals);
