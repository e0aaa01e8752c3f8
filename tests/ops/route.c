// Cases of route and route_grad.
#include "case.h"
#include "op.h"

#include <math.h>

enum { PROBS = 1, GATES = 2 }; // which outputs with a gradient a case looks at

typedef struct setup {
    int choices;
    int outputs;
} setup;

// -------------------------------------------------------------------------------------- route

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    qn_routing r = qn_route(g, in[0], &(qn_route_opts){ .choices = s->choices });
    int count = 0;
    if (s->outputs & PROBS) out[count++] = r.probs;
    if (s->outputs & GATES) out[count++] = r.gates;
    out[count++] = r.experts;
    out[count++] = r.order;
    out[count++] = r.offsets;
    return count;
}

static bool is_chosen(const double *experts, int count, int64_t e)
{
    for (int s = 0; s < count; s++)
        if (experts[s] == (double)e) return true;
    return false;
}

static void choose_row(const double *z, int64_t width, int choices, double *experts)
{
    for (int s = 0; s < choices; s++) {
        int64_t best = -1;
        for (int64_t e = 0; e < width; e++)
            if (!is_chosen(experts, s, e) && (best < 0 || z[e] > z[best])) best = e;
        experts[s] = (double)best;
    }
}

// An exponential of x is within 3 + 2|x| ulp, and the rounding of x adds |x| units: in units of
// roundoff 6 + 5|x|. A probability is one over a sum of them, divided within 2.5 ulp.
static double softmax_slack(double range)
{
    return 2 * (6 + 5 * range) + 5;
}

static void softmax_row(const double *z, int64_t width, double *p, double *range)
{
    double top = z[0], low = z[0], sum = 0;
    for (int64_t e = 1; e < width; e++) {
        top = fmax(top, z[e]);
        low = fmin(low, z[e]);
    }
    for (int64_t e = 0; e < width; e++) sum += exp(z[e] - top);
    for (int64_t e = 0; e < width; e++) p[e] = exp(z[e] - top) / sum;
    *range = fmax(*range, top - low);
}

static void sort_slots(const qn_ref *experts, int64_t width, qn_ref *order, qn_ref *offsets)
{
    int64_t at = 0;
    for (int64_t e = 0; e < width; e++) {
        offsets->v[e] = (double)at;
        for (int64_t i = 0; i < experts->count; i++)
            if (experts->v[i] == (double)e) order->v[at++] = (double)i;
    }
    offsets->v[width] = (double)at;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t rows = in[0].shape.dim[0], width = in[0].shape.dim[1];
    int count = 0;
    qn_ref *probs = s->outputs & PROBS ? &out[count++] : NULL;
    qn_ref *gates = s->outputs & GATES ? &out[count++] : NULL;
    qn_ref *experts = &out[count];
    double range = 0, p[256];
    for (int64_t n = 0; n < rows; n++) {
        const double *z = in[0].v + n * width;
        double *chosen = experts->v + n * s->choices;
        softmax_row(z, width, p, &range);
        choose_row(z, width, s->choices, chosen);
        for (int64_t e = 0; probs && e < width; e++) probs->v[n * width + e] = p[e];
        for (int k = 0; gates && k < s->choices; k++)
            gates->v[n * s->choices + k] = p[(int64_t)chosen[k]];
    }
    sort_slots(experts, width, &out[count + 1], &out[count + 2]);
    for (int o = 0; o < count; o++) {
        out[o].terms = (double)width;
        out[o].slack = softmax_slack(range);
    }
}

static void fill_equal(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = 0.25;
}

static void fill_zeros(qn_ref *t) // of both signs, which are equal
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = i % 2 ? 0.0 : -0.0;
}

static void fill_one_for_all(qn_ref *t)
{
    int64_t width = qn_shape_last(t->shape);
    for (int64_t i = 0; i < t->count; i++)
        t->v[i] = i % width == 3 ? 5 : 0.125 * (double)(i % width);
}

#define LOGITS(n, e, ...)                                                                          \
    {                                                                                              \
        {                                                                                          \
            .name = "logits", .shape = { 2, { n, e } }, __VA_ARGS__                                \
        }                                                                                          \
    }
#define DISTINCT(range) .gen = QN_GEN_DISTINCT, .lo = -(range), .hi = range
#define CASE(label, k, which, ...)                                                                 \
    {                                                                                              \
        .name = label, .inputs = 1, .in = __VA_ARGS__, .params = &(const setup){ k, which },       \
        .build = build, .ref = ref                                                                 \
    }
#define BOTH (PROBS | GATES)

static const qn_case route_cases[] = {
    CASE("1x1", 1, BOTH, LOGITS(1, 1, DISTINCT(1), .grad = true)),
    CASE("33x1", 1, BOTH, LOGITS(33, 1, DISTINCT(1), .grad = true)),
    CASE("1x5_k1", 1, BOTH, LOGITS(1, 5, DISTINCT(2), .grad = true)),
    CASE("33x5_k5", 5, BOTH, LOGITS(33, 5, DISTINCT(2), .grad = true)),
    CASE("7x16_k2", 2, BOTH, LOGITS(7, 16, DISTINCT(3), .grad = true)),
    CASE("33x16_k2", 2, BOTH, LOGITS(33, 16, DISTINCT(3), .grad = true)),
    CASE("33x16_k2_gates", 2, GATES, LOGITS(33, 16, DISTINCT(3), .grad = true)),
    CASE("33x5_k2_gates", 2, GATES, LOGITS(33, 5, DISTINCT(3), .grad = true)),
    CASE("33x16_probs", 2, PROBS, LOGITS(33, 16, DISTINCT(3), .grad = true)),
    CASE("5x16_k16", 16, BOTH, LOGITS(5, 16, DISTINCT(3), .grad = true)),
    CASE("65x64_k4", 4, BOTH, LOGITS(65, 64, DISTINCT(4), .grad = true)),
    CASE("9x255_k16", 16, BOTH, LOGITS(9, 255, DISTINCT(4), .grad = true)),
    CASE("9x256_k8", 8, BOTH, LOGITS(9, 256, DISTINCT(4), .grad = true)),
    CASE("equal_33x16", 3, BOTH, LOGITS(33, 16, .gen = QN_GEN_CUSTOM, .fill = fill_equal)),
    CASE("zeros_9x5", 3, BOTH, LOGITS(9, 5, .gen = QN_GEN_CUSTOM, .fill = fill_zeros)),
    CASE("ties_33x16", 4, BOTH, LOGITS(33, 16, .gen = QN_GEN_INT, .lo = -1, .hi = 1)),
    CASE("ties_33x13", 13, BOTH, LOGITS(33, 13, .gen = QN_GEN_INT, .lo = -1, .hi = 1)),
    CASE("one_for_all", 1, BOTH, LOGITS(40, 8, .gen = QN_GEN_CUSTOM, .fill = fill_one_for_all)),
    CASE("saturated", 2, BOTH, LOGITS(17, 8, DISTINCT(1000))),
    { .name = "2048x16_k2",
      .inputs = 1,
      .in = LOGITS(2048, 16, DISTINCT(3), .grad = true),
      .params = &(const setup){ 2, BOTH },
      .build = build,
      .ref = ref,
      .bench = true },
};

static const qn_tensor *logits_of(qn_graph *g)
{
    return qn_input(g, "z", QN_F32, QN_SHAPE(3, 4));
}

static void refuse_no_choice(qn_graph *g)
{
    qn_route(g, logits_of(g), NULL);
}

static void refuse_many_choices(qn_graph *g)
{
    qn_route(g, logits_of(g), &(qn_route_opts){ .choices = 5 });
}

static void refuse_sampled(qn_graph *g)
{
    qn_route(g, logits_of(g), &(qn_route_opts){ .choices = 2, .sampled = 3 });
}

static void refuse_no_seed(qn_graph *g)
{
    qn_route(g, logits_of(g), &(qn_route_opts){ .choices = 2, .sampled = 1 });
}

static void refuse_seed_type(qn_graph *g)
{
    const qn_tensor *seed = qn_input(g, "s", QN_F32, QN_SCALAR);
    qn_route(g, logits_of(g), &(qn_route_opts){ .choices = 2, .sampled = 1, .seed = seed });
}

static void refuse_rank(qn_graph *g)
{
    qn_route(g, qn_input(g, "z", QN_F32, QN_SHAPE(2, 3, 4)), &(qn_route_opts){ .choices = 1 });
}

static void refuse_integers(qn_graph *g)
{
    qn_route(g, qn_input(g, "z", QN_I32, QN_SHAPE(3, 4)), &(qn_route_opts){ .choices = 1 });
}

static const qn_refusal route_refusals[] = {
    { "no_choice", QN_ERR_INVALID, "0 choices, expected 1 to 4", refuse_no_choice },
    { "many_choices", QN_ERR_INVALID, "5 choices, expected 1 to 4", refuse_many_choices },
    { "sampled", QN_ERR_INVALID, "3 sampled choices, expected 0 to 2", refuse_sampled },
    { "no_seed", QN_ERR_INVALID, "sampled choices need a seed", refuse_no_seed },
    { "seed_type", QN_ERR_INVALID, "seed (s) is f32, expected i32", refuse_seed_type },
    { "rank", QN_ERR_INVALID, "shape [2,3,4], expected [rows, experts]", refuse_rank },
    { "integers", QN_ERR_INVALID, "logits (z) is i32, expected f32", refuse_integers },
};

QN_OP_TEST(route, route_cases, route_refusals);

// --------------------------------------------------------------------------------- route_grad

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    int which = ((const setup *)c->params)->outputs;
    out[0] = QN_OP1(g, &qn_op_route_grad, NULL, in[0], in[1], which & GATES ? in[2] : NULL,
                    which & PROBS ? in[3] : NULL);
    return 1;
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t rows = in[0].shape.dim[0], width = in[0].shape.dim[1];
    for (int64_t n = 0; n < rows; n++) {
        const double *p = in[0].v + n * width;
        double dp[256] = { 0 }, mean = 0, size = 0;
        for (int64_t e = 0; s->outputs & PROBS && e < width; e++) dp[e] = in[3].v[n * width + e];
        for (int k = 0; s->outputs & GATES && k < s->choices; k++)
            dp[(int64_t)in[1].v[n * s->choices + k]] += in[2].v[n * s->choices + k];
        for (int64_t e = 0; e < width; e++) {
            mean += p[e] * dp[e];
            size += fabs(p[e] * dp[e]);
        }
        for (int64_t e = 0; e < width; e++) {
            out[0].v[n * width + e] = p[e] * (dp[e] - mean);
            out[0].mag[n * width + e] = p[e] * (fabs(dp[e]) + size);
        }
    }
    out[0].terms = (double)(width + s->choices);
}

static void fill_experts(qn_ref *t) // different ones in each row, of at least 16
{
    int64_t choices = qn_shape_last(t->shape);
    for (int64_t i = 0; i < t->count; i++)
        t->v[i] = (double)((i / choices * 5 + i % choices * 3) % 16);
}

#define GRAD_CASE(label, n, e, k, which)                                                           \
    {                                                                                              \
        .name = label, .inputs = 4,                                                                \
        .in = { { .name = "probs", .shape = { 2, { n, e } }, .gen = QN_GEN_UNIFORM, .hi = 0.2 },   \
                { .name = "experts",                                                               \
                  .dtype = QN_I32,                                                                 \
                  .shape = { 2, { n, k } },                                                        \
                  .gen = QN_GEN_CUSTOM,                                                            \
                  .fill = fill_experts },                                                          \
                { .name = "dgates", .shape = { 2, { n, k } } },                                    \
                { .name = "dprobs", .shape = { 2, { n, e } } } },                                  \
        .params = &(const setup){ k, which }, .build = build_grad, .ref = ref_grad                 \
    }

static const qn_case grad_cases[] = {
    GRAD_CASE("1x16_k1", 1, 16, 1, BOTH),          GRAD_CASE("33x17_k2", 33, 17, 2, BOTH),
    GRAD_CASE("33x16_k4_gates", 33, 16, 4, GATES), GRAD_CASE("9x64_probs", 9, 64, 2, PROBS),
    GRAD_CASE("5x19_k3_gates", 5, 19, 3, GATES),
};

static void refuse_gates_shape(qn_graph *g)
{
    QN_OP1(g, &qn_op_route_grad, NULL, qn_input(g, "p", QN_F32, QN_SHAPE(3, 4)),
           qn_input(g, "e", QN_I32, QN_SHAPE(3, 2)), qn_input(g, "dg", QN_F32, QN_SHAPE(2, 3)),
           NULL);
}

static const qn_refusal grad_refusals[] = {
    { "gates_shape", QN_ERR_INVALID, "gradient of gates (dg) has shape [2,3], expected [3,2]",
      refuse_gates_shape },
};

QN_OP_TEST(route_grad, grad_cases, grad_refusals);
