// Cases of resonance and its gradient.
#include "case.h"
#include "shapes.h"

#include <math.h>

typedef struct setup {
    float tau;
} setup;

static double mean_square(const double *r, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += r[i] * r[i];
    return s / (double)n;
}

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    out[0] = qn_resonance(g, in[0], in[1], ((const setup *)c->params)->tau);
    return 1;
}

static double square_of(const qn_case *c)
{
    float tau = ((const setup *)c->params)->tau;
    return (double)(tau * tau);
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t i = 0; i < out[0].count; i++) {
        double m = mean_square(in[0].v + i * width, width);
        out[0].v[i] = in[1].v[i] * m / (m + square_of(c));
    }
    out[0].terms = (double)width;
    out[0].slack = 10; // two divisions, 2.5 ulp each
}

static int build_back(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    qn_wants_grad(in[0]);
    qn_wants_grad(in[1]);
    const qn_tensor *w = qn_resonance(g, in[0], in[1], ((const setup *)c->params)->tau);
    const qn_tensor *loss = qn_sum_all(g, qn_mul(g, w, in[2]));
    return loss && qn_backward(g, loss, NULL, in, 2, out) == QN_OK ? 2 : 0;
}

static void ref_back(const qn_case *c, qn_ref *in, qn_ref *out)
{
    int64_t width = qn_shape_last(in[0].shape);
    double square = square_of(c);
    for (int64_t i = 0; i < out[1].count; i++) {
        double m = mean_square(in[0].v + i * width, width), d = in[2].v[i];
        out[1].v[i] = d * m / (m + square);
        for (int64_t e = 0; e < width; e++)
            out[0].v[i * width + e] = d * in[1].v[i] * square / ((m + square) * (m + square)) * 2 *
                                      in[0].v[i * width + e] / (double)width;
    }
    for (int o = 0; o < 2; o++) {
        out[o].terms = (double)width;
        out[o].slack = 20;
    }
}

static void fill_zeros(qn_ref *t)
{
    (void)t;
}

#define CASE(label, n, d, t, ...)                                                                  \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "r", .shape = S2(n, d), .grad = true, __VA_ARGS__ },                     \
                { .name = "rho", .shape = S1(n), .gen = QN_GEN_UNIFORM, .hi = 1, .grad = true } }, \
        .params = &(const setup){ t }, .build = build, .ref = ref                                  \
    }
#define BACK(label, n, d, t, ...)                                                                  \
    {                                                                                              \
        .name = label, .inputs = 3, .no_grad_ref = true,                                           \
        .in = { { .name = "r", .shape = S2(n, d), __VA_ARGS__ },                                   \
                { .name = "rho", .shape = S1(n), .gen = QN_GEN_UNIFORM, .hi = 1 },                 \
                { .name = "dw", .shape = S1(n) } },                                                \
        .params = &(const setup){ t }, .build = build_back, .ref = ref_back                        \
    }
static const qn_case cases[] = {
    CASE("1x1", 1, 1, 0.2f, .scale = 0.3),    CASE("7x5", 7, 5, 0.2f, .scale = 0.3),
    CASE("33x64", 33, 64, 0.5f, .scale = 1),  CASE("5x127", 5, 127, 0.2f, .scale = 0.01),
    CASE("silent_3x8", 3, 8, 0.2f, .gen = QN_GEN_CUSTOM, .fill = fill_zeros),
};
static const qn_case cases_back[] = {
    BACK("7x5", 7, 5, 0.2f, .scale = 0.3),
    BACK("33x64", 33, 64, 0.5f, .scale = 1),
    BACK("5x127", 5, 127, 0.2f, .scale = 0.01),
    BACK("silent_3x8", 3, 8, 0.2f, .gen = QN_GEN_CUSTOM, .fill = fill_zeros),
};

static void try(qn_graph *g, qn_shape r, qn_shape rho, float tau)
{
    qn_resonance(g, qn_input(g, "r", QN_F32, r), qn_input(g, "rho", QN_F32, rho), tau);
}
static void other_rows(qn_graph *g) { try(g, QN_SHAPE(6, 4), QN_SHAPE(5), 0.2f); }
static void no_tau(qn_graph *g) { try(g, QN_SHAPE(6, 4), QN_SHAPE(6), 0); }
static void tiny_tau(qn_graph *g) { try(g, QN_SHAPE(6, 4), QN_SHAPE(6), 1e-30f); }

static const qn_refusal refusals[] = {
    { "rows of rho", QN_ERR_INVALID, "rho (rho) has shape [5], expected one value for each row",
      other_rows },
    { "tau 0", QN_ERR_INVALID, "tau is 0", no_tau },
    { "a tau without a square", QN_ERR_INVALID, "tau is 1e-30", tiny_tau },
};

QN_OP_TEST(resonance, cases, refusals);
QN_OP_TEST(resonance_grad, cases_back, refusals);
