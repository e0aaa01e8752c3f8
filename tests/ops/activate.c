// Cases of activate and activate_grad.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

static double sigmoid(double z)
{
    return 1 / (1 + exp(-z));
}

static const double tanh_scale = 0.79788456080286535588; // sqrt(2 / pi)

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752440);
}

static double activation(uint32_t kind, double x)
{
    switch (kind) {
    case QN_GELU_TANH:
        return x * sigmoid(2 * tanh_scale * (x + 0.044715 * x * x * x));
    case QN_GELU_ERF:
        return x * normal_cdf(x);
    case QN_SILU:
        return x * sigmoid(x);
    case QN_RELU:
        return x > 0 ? x : 0;
    case QN_TANH:
        return tanh(x);
    case QN_SIGMOID:
        return sigmoid(x);
    case QN_EXP:
        return exp(x);
    case QN_LOG:
        return log(x);
    default:
        return x;
    }
}

// The derivative; *mag the sum of the magnitudes of its terms.
static double derivative(uint32_t kind, double x, double *mag)
{
    double first = 1, second = 0, s;
    switch (kind) {
    case QN_GELU_TANH:
        s = sigmoid(2 * tanh_scale * (x + 0.044715 * x * x * x));
        first = s;
        second = x * s * (1 - s) * 2 * tanh_scale * (1 + 3 * 0.044715 * x * x);
        break;
    case QN_GELU_ERF:
        first = normal_cdf(x);
        second = x * exp(-x * x / 2) * 0.39894228040143267794;
        break;
    case QN_SILU:
        first = sigmoid(x);
        second = x * first * (1 - first);
        break;
    case QN_RELU:
        first = x > 0;
        break;
    case QN_TANH:
        first = 1 / (cosh(x) * cosh(x));
        break;
    case QN_SIGMOID:
        first = sigmoid(x) * sigmoid(-x);
        break;
    case QN_EXP:
        first = exp(x);
        break;
    case QN_LOG:
        first = 1 / x;
        break;
    default:
        break;
    }
    *mag = fabs(first) + fabs(second);
    return first + second;
}

// What exp is given to compute act(x), at most: Vulkan grants it 3 + 2 |t| units in the last place,
// which are 2 units of roundoff each. 8 roundings may have gone into t, each of which changes
// exp(t) by |t|; 16 more units are for a division (2.5 ulp) and what surrounds them.
static double exponent(uint32_t kind, double x)
{
    switch (kind) {
    case QN_GELU_TANH:
        return 2 * tanh_scale * (x + 0.044715 * x * x * x);
    case QN_GELU_ERF:
        return x * x / 2;
    case QN_TANH:
        return 2 * x;
    case QN_SILU:
    case QN_SIGMOID:
    case QN_EXP:
        return x;
    default:
        return 0;
    }
}

static void grant(uint32_t kind, double x, qn_ref *out)
{
    double t = fabs(exponent(kind, x));
    out->slack = fmax(out->slack, 2 * (3 + 2 * t) + 8 * t + 16);
}

static int build_activate(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                          const qn_tensor **out)
{
    out[0] = qn_activate(g, in[0], *(const uint32_t *)c->params);
    return 1;
}

static void ref_activate(const qn_case *c, qn_ref *in, qn_ref *out)
{
    uint32_t kind = *(const uint32_t *)c->params;
    for (int64_t i = 0; i < out[0].count; i++) {
        double x = in[0].v[i];
        out[0].v[i] = activation(kind, x);
        // Between -sqrt(2) and 0, (1 + erf) / 2 is the sum of 1/2 and a fitted polynomial.
        if (kind == QN_GELU_ERF && x < 0 && x * x < 2) out[0].mag[i] = fabs(x) / 2;
        grant(kind, x, &out[0]);
    }
}

#define ACTIVATE(label, kind, s, from, to)                                                         \
    {                                                                                              \
        .name = label, .inputs = 1,                                                                \
        .in = { { .name = "x",                                                                     \
                  .shape = s,                                                                      \
                  .gen = QN_GEN_DISTINCT,                                                          \
                  .lo = from,                                                                      \
                  .hi = to,                                                                        \
                  .grad = true } },                                                                \
        .params = &(const uint32_t){ kind }, .build = build_activate, .ref = ref_activate          \
    }
#define BENCH(label, kind)                                                                         \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = S2(2048, 512) } },             \
        .params = &(const uint32_t){ kind }, .build = build_activate, .ref = ref_activate,         \
        .bench = true                                                                              \
    }
static const qn_case activate_cases[] = {
    ACTIVATE("identity", QN_IDENTITY, S1(5), -1, 1),
    ACTIVATE("gelu_tanh_1023", QN_GELU_TANH, S1(1023), -6, 9),
    ACTIVATE("gelu_tanh_3x5", QN_GELU_TANH, S2(3, 5), -0.1, 0.1),
    ACTIVATE("gelu_erf_1023", QN_GELU_ERF, S1(1023), -6, 9),
    ACTIVATE("gelu_erf_64", QN_GELU_ERF, S1(64), -1.5, 1.5),
    ACTIVATE("silu_9x31", QN_SILU, S2(9, 31), -30, 30),
    ACTIVATE("relu_33", QN_RELU, S1(33), -1.03, 1),
    ACTIVATE("tanh_1021", QN_TANH, S1(1021), -9, 9),
    ACTIVATE("tanh_small_129", QN_TANH, S1(129), -1e-3, 1e-3),
    ACTIVATE("sigmoid_1023", QN_SIGMOID, S1(1023), -40, 40),
    ACTIVATE("exp_260", QN_EXP, S1(260), -20, 20),
    ACTIVATE("log_130", QN_LOG, S1(130), 1e-3, 30),
    ACTIVATE("log_near_1_64", QN_LOG, S1(64), 0.999, 1.001),
    ACTIVATE("log_small_64", QN_LOG, S1(64), 1e-37, 1e-35),
    BENCH("bench_gelu_tanh", QN_GELU_TANH),
    BENCH("bench_gelu_erf", QN_GELU_ERF),
    BENCH("bench_silu", QN_SILU),
};

static void refuse_kind(qn_graph *g)
{
    qn_activate(g, qn_input(g, "x", QN_F32, QN_SHAPE(2)), QN_ACTIVATION_COUNT);
}

static void refuse_dtype(qn_graph *g)
{
    qn_activate(g, qn_input(g, "x", QN_BF16, QN_SHAPE(2)), QN_RELU);
}

static const qn_refusal activate_refusals[] = {
    { "kind", QN_ERR_INVALID, "no activation 9", refuse_kind },
    { "dtype", QN_ERR_INVALID, "x (x) is bf16, expected f32", refuse_dtype },
};

QN_OP_TEST(activate, activate_cases, activate_refusals);

// ----------------------------------------------------------------------------------- activate_grad

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    out[0] = QN_OP1(g, &qn_op_activate_grad, c->params, in[0], in[1]);
    return 1;
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    uint32_t kind = *(const uint32_t *)c->params;
    for (int64_t i = 0; i < out[0].count; i++) {
        double mag;
        out[0].v[i] = in[0].v[i] * derivative(kind, in[1].v[i], &mag);
        out[0].mag[i] = fabs(in[0].v[i]) * mag;
        if (kind == QN_GELU_ERF && fabs(in[1].v[i]) < 1.5) out[0].mag[i] += fabs(in[0].v[i]) / 2;
        grant(kind, in[1].v[i], &out[0]);
    }
}

#define GRAD(label, kind, s, from, to)                                                             \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "dy", .shape = s },                                                      \
                { .name = "x", .shape = s, .gen = QN_GEN_DISTINCT, .lo = from, .hi = to } },       \
        .params = &(const uint32_t){ kind }, .build = build_grad, .ref = ref_grad                  \
    }
static const qn_case grad_cases[] = {
    GRAD("gelu_tanh_1023", QN_GELU_TANH, S1(1023), -6, 9),
    GRAD("gelu_erf_1023", QN_GELU_ERF, S1(1023), -6, 9),
    GRAD("silu_3x67", QN_SILU, S2(3, 67), -30, 30),
    GRAD("relu_33", QN_RELU, S1(33), -1, 1),
    GRAD("tanh_129", QN_TANH, S1(129), -9, 9),
    GRAD("sigmoid_129", QN_SIGMOID, S1(129), -40, 40),
    GRAD("exp_65", QN_EXP, S1(65), -20, 20),
    GRAD("log_65", QN_LOG, S1(65), 1e-3, 30),
    GRAD("identity_5", QN_IDENTITY, S1(5), -1, 1),
};

static void refuse_grad_shape(qn_graph *g)
{
    QN_OP1(g, &qn_op_activate_grad, &(uint32_t){ QN_RELU }, qn_input(g, "dy", QN_F32, QN_SHAPE(3)),
           qn_input(g, "x", QN_F32, QN_SHAPE(2)));
}

static const qn_refusal grad_refusals[] = {
    { "shape", QN_ERR_INVALID, "x (x) has shape [2], expected [3]", refuse_grad_shape },
};

QN_OP_TEST(activate_grad, grad_cases, grad_refusals);
