// Cases of matmul.
#include "case.h"

#include <math.h>

enum { TA = 1, TB = 2, WITH_BIAS = 4 };

typedef struct setup {
    int flags;
    qn_activation activation;
} setup;

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    out[0] = qn_matmul(g, in[0], in[1],
                       &(qn_matmul_opts){
                           .transpose_a = s->flags & TA,
                           .transpose_b = s->flags & TB,
                           .bias = s->flags & WITH_BIAS ? in[2] : NULL,
                           .activation = s->activation,
                       });
    return 1;
}

// act(x), and in *slope a bound on how much an error of x moves it.
static double apply(qn_activation activation, double x, double *slope)
{
    *slope = 1;
    switch (activation) {
    case QN_GELU_TANH:
        *slope = 1.2;
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.141592653589793) * (x + 0.044715 * x * x * x)));
    case QN_GELU_ERF:
        *slope = 1.2;
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case QN_SILU:
        *slope = 1.1;
        return x / (1 + exp(-x));
    case QN_RELU:
        return x > 0 ? x : 0;
    case QN_TANH:
        return tanh(x);
    case QN_SIGMOID:
        return 1 / (1 + exp(-x));
    case QN_EXP:
        *slope = exp(x);
        return exp(x);
    case QN_LOG:
        *slope = 1 / x;
        return log(x);
    default:
        return x;
    }
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    const qn_shape *a = &in[0].shape, *b = &in[1].shape;
    int64_t m = a->dim[a->rank - (s->flags & TA ? 1 : 2)];
    int64_t k = a->dim[a->rank - (s->flags & TA ? 2 : 1)];
    int64_t n = b->dim[b->rank - (s->flags & TB ? 2 : 1)];
    int64_t batches = in[0].count / (m * k), shared = b->rank == 2;
    for (int64_t z = 0; z < batches; z++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = s->flags & WITH_BIAS ? in[2].v[j] : 0, size = fabs(sum), slope;
                const double *av = in[0].v + z * m * k, *bv = in[1].v + (shared ? 0 : z * k * n);
                for (int64_t t = 0; t < k; t++) {
                    double term = av[s->flags & TA ? t * m + i : i * k + t] *
                                  bv[s->flags & TB ? j * k + t : t * n + j];
                    sum += term;
                    size += fabs(term);
                }
                int64_t at = (z * m + i) * n + j;
                out[0].v[at] = apply(s->activation, sum, &slope);
                out[0].mag[at] = slope * size + fabs(out[0].v[at]);
            }
    out[0].terms = (double)k + 1;
    // exp is within 3 + 2|x| units where |x| is at most the sum's magnitude (Vulkan's table), and
    // shaders/math.glsl adds a few roundings of its own.
    if (s->activation != QN_IDENTITY && s->activation != QN_RELU) out[0].slack = 16;
}

#define MATRIX(label, r, c, ...)                                                                   \
    {                                                                                              \
        .name = label, .shape = { 2, { r, c } }, __VA_ARGS__                                       \
    }
#define A_OF(m, k, flags, ...) MATRIX("a", (flags)&TA ? k : m, (flags)&TA ? m : k, __VA_ARGS__)
#define B_OF(k, n, flags, ...) MATRIX("b", (flags)&TB ? n : k, (flags)&TB ? k : n, __VA_ARGS__)
#define BIAS_OF(n, ...)                                                                            \
    {                                                                                              \
        .name = "bias", .shape = { 1, { n } }, __VA_ARGS__                                         \
    }
#define CASE(label, m, n, k, flags)                                                                \
    {                                                                                              \
        .name = label, .inputs = (flags)&WITH_BIAS ? 3 : 2,                                        \
        .in = { A_OF(m, k, flags, .grad = true), B_OF(k, n, flags, .grad = true),                  \
                BIAS_OF(n, .grad = true) },                                                        \
        .params = &(const setup){ flags, QN_IDENTITY }, .build = build, .ref = ref                 \
    }
// The same sizes in all four ways round.
#define CASES(size, m, n, k)                                                                       \
    CASE("nn_" size, m, n, k, 0), CASE("nt_" size, m, n, k, TB), CASE("tn_" size, m, n, k, TA),    \
        CASE("tt_" size, m, n, k, TA | TB)
#define ACTIVATED(label, what, low, high)                                                          \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { MATRIX("a", 17, 12, .gen = QN_GEN_UNIFORM, .lo = low, .hi = high),                 \
                MATRIX("b", 12, 36, .gen = QN_GEN_UNIFORM, .lo = low, .hi = high),                 \
                BIAS_OF(36, .gen = QN_GEN_UNIFORM, .lo = low, .hi = high) },                       \
        .params = &(const setup){ WITH_BIAS, what }, .build = build, .ref = ref                    \
    }
#define HALF(label, type, m, n, k, flags)                                                          \
    {                                                                                              \
        .name = label, .inputs = (flags)&WITH_BIAS ? 3 : 2,                                        \
        .in = { A_OF(m, k, flags, .grad = true), B_OF(k, n, flags, .dtype = type), BIAS_OF(n) },   \
        .params = &(const setup){ flags, QN_IDENTITY }, .build = build, .ref = ref                 \
    }
#define BATCHED(label, ...)                                                                        \
    .name = label, .inputs = 2, .params = &(const setup){ __VA_ARGS__ }, .build = build, .ref = ref
#define TENSOR(label, ...)                                                                         \
    {                                                                                              \
        .name = label, .shape = { sizeof((int[]){ __VA_ARGS__ }) / sizeof(int), { __VA_ARGS__ } }, \
        .grad = true                                                                               \
    }
#define LONG(label, m, n, k, flags, what)                                                          \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { A_OF(m, k, flags, .scale = 0.003), B_OF(k, n, flags), BIAS_OF(n) },                \
        .params = &(const setup){ flags, what }, .build = build, .ref = ref                        \
    }
#define BENCH(label, m, n, k, flags)                                                               \
    {                                                                                              \
        .name = label, .inputs = 2, .in = { A_OF(m, k, flags), B_OF(k, n, flags) },                \
        .params = &(const setup){ flags, QN_IDENTITY }, .build = build, .ref = ref, .bench = true, \
        .large = (double)(m) * (n) * (k) > 2e8                                                     \
    }

static const qn_case cases[] = {
    CASES("1x1x1", 1, 1, 1),
    CASES("1x130x64", 1, 130, 64),
    CASES("130x1x64", 130, 1, 64),
    CASES("3x4x5", 3, 4, 5),
    CASES("4x64x16", 4, 64, 16),
    CASES("5x3x130", 5, 3, 130),
    CASES("15x16x17", 15, 16, 17),
    CASES("16x33x4", 16, 33, 4),
    CASES("17x15x1", 17, 15, 1),
    CASES("33x17x64", 33, 17, 64),
    CASES("64x64x64", 64, 64, 64),
    CASES("65x130x33", 65, 130, 33),
    CASES("130x5x64", 130, 5, 64),
    CASES("130x64x3", 130, 64, 3),
    CASES("300x16x12", 300, 16, 12), // columns narrower than any tile: computed transposed
    CASES("3x516x20", 3, 516, 20),   // a few rows by a wide b
    CASES("2x1030x9", 2, 1030, 9),
    CASE("nn_bias_1x7x5", 1, 7, 5, WITH_BIAS),
    CASE("nn_bias_33x64x16", 33, 64, 16, WITH_BIAS),
    CASE("nt_bias_33x65x15", 33, 65, 15, WITH_BIAS | TB),
    CASE("tn_bias_16x12x40", 16, 12, 40, WITH_BIAS | TA),
    CASE("tt_bias_17x1x8", 17, 1, 8, WITH_BIAS | TA | TB),
    CASE("nn_bias_3x600x8", 3, 600, 8, WITH_BIAS),
    CASE("nt_bias_4x37x130", 4, 37, 130, WITH_BIAS | TB),
    CASE("nt_bias_2x64x256", 2, 64, 256, WITH_BIAS | TB),
    { BATCHED("batch_3_nn_5x8x12", 0), .in = { TENSOR("a", 3, 5, 12), TENSOR("b", 3, 12, 8) } },
    { BATCHED("batch_2x3_nt_17x16x4", TB),
      .in = { TENSOR("a", 2, 3, 17, 4), TENSOR("b", 2, 3, 16, 4) } },
    { BATCHED("batch_4_tn_7x5x9", TA), .in = { TENSOR("a", 4, 9, 7), TENSOR("b", 4, 9, 5) } },
    { BATCHED("batch_5_tt_36x20x8", TA | TB),
      .in = { TENSOR("a", 5, 8, 36), TENSOR("b", 5, 20, 8) } },
    { BATCHED("batch_66_nn_1x33x5", 0), .in = { TENSOR("a", 66, 1, 5), TENSOR("b", 66, 5, 33) } },
    { BATCHED("batch_6_nt_2x64x36", TB), .in = { TENSOR("a", 6, 2, 36), TENSOR("b", 6, 64, 36) } },
    { BATCHED("shared_3_nn_5x8x12", 0), .in = { TENSOR("a", 3, 5, 12), TENSOR("b", 12, 8) } },
    { BATCHED("shared_2x3_nt_4x9x7", TB), .in = { TENSOR("a", 2, 3, 4, 7), TENSOR("b", 9, 7) } },
    { BATCHED("shared_3_tn_16x8x12", TA), .in = { TENSOR("a", 3, 12, 16), TENSOR("b", 12, 8) } },
    { BATCHED("shared_3_tt_5x3x7", TA | TB), .in = { TENSOR("a", 3, 7, 5), TENSOR("b", 3, 7) } },
    { BATCHED("shared_2_tn_100x4x8", TA), .in = { TENSOR("a", 2, 8, 100), TENSOR("b", 8, 4) } },
    ACTIVATED("gelu_tanh", QN_GELU_TANH, -1, 1),
    ACTIVATED("gelu_erf", QN_GELU_ERF, -1, 1),
    ACTIVATED("silu", QN_SILU, -1, 1),
    ACTIVATED("relu", QN_RELU, -1, 1),
    ACTIVATED("tanh", QN_TANH, -1, 1),
    ACTIVATED("sigmoid", QN_SIGMOID, -1, 1),
    ACTIVATED("exp", QN_EXP, -1, 1),
    ACTIVATED("log", QN_LOG, 0.25, 1),
    HALF("f16_nn_33x64x20", QN_F16, 33, 64, 20, 0),
    HALF("f16_nt_17x15x33", QN_F16, 17, 15, 33, TB | WITH_BIAS),
    HALF("f16_nn_1x520x36", QN_F16, 1, 520, 36, 0),
    HALF("f16_nt_1x64x130", QN_F16, 1, 64, 130, TB),
    HALF("f16_tn_100x3x8", QN_F16, 100, 3, 8, TA),
    HALF("bf16_nn_16x33x17", QN_BF16, 16, 33, 17, 0),
    HALF("bf16_nt_64x64x64", QN_BF16, 64, 64, 64, TB),
    HALF("bf16_tt_16x20x12", QN_BF16, 16, 20, 12, TA | TB),
    HALF("bf16_nn_4x300x9", QN_BF16, 4, 300, 9, WITH_BIAS),
    HALF("q8_0_nt_1x130x64", QN_Q8_0, 1, 130, 64, TB),
    HALF("q8_0_nt_17x33x96", QN_Q8_0, 17, 33, 96, TB | WITH_BIAS),
    HALF("q8_0_nn_3x96x50", QN_Q8_0, 3, 96, 50, 0),
    HALF("q8_0_nn_33x64x21", QN_Q8_0, 33, 64, 21, 0),
    HALF("q4_0_nt_1x75x96", QN_Q4_0, 1, 75, 96, TB),
    HALF("q4_0_nt_20x40x64", QN_Q4_0, 20, 40, 64, TB),
    HALF("q4_0_nn_1x160x70", QN_Q4_0, 1, 160, 70, WITH_BIAS),
    HALF("q4_0_tn_9x32x17", QN_Q4_0, 9, 32, 17, TA),
    // Sums longer than one pass of the kernels.
    LONG("nn_2x3x131080", 2, 3, 131080, WITH_BIAS, QN_IDENTITY),
    LONG("tn_3x2x131075", 3, 2, 131075, TA, QN_IDENTITY),
    LONG("nt_1x1x131076", 1, 1, 131076, TB, QN_TANH),
    BENCH("nn_512", 512, 512, 512, 0),
    BENCH("nn_1024", 1024, 1024, 1024, 0),
    BENCH("nn_1x4096x1024", 1, 4096, 1024, 0),
    BENCH("nt_1x4096x1024", 1, 4096, 1024, TB),
    BENCH("nn_2048x128x64", 2048, 128, 64, 0),
    BENCH("nn_1024x256x128", 1024, 256, 128, 0),
    BENCH("nn_1024x512x256", 1024, 512, 256, 0),
    BENCH("nn_2048x512x256", 2048, 512, 256, 0), // rows of the experts' 1024x2_e16_256x512
    BENCH("nt_1024x512x256", 1024, 512, 256, TB),
    BENCH("nt_1024x256x512", 1024, 256, 512, TB),
    BENCH("tn_256x512x1024", 256, 512, 1024, TA),
    BENCH("nn_2048x16x256", 2048, 16, 256, 0),
    BENCH("nn_1x1024x512", 1, 1024, 512, 0),
    BENCH("nt_1x1024x512", 1, 1024, 512, TB),
    BENCH("nt_1x2048x2048", 1, 2048, 2048, TB),
};

// ---------------------------------------------------------------------------------- refusals

static const qn_tensor *input(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape)
{
    return qn_input(g, name, dtype, shape);
}

static void refuse_inner(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(2, 3)), input(g, "w", QN_F32, QN_SHAPE(4, 5)),
              NULL);
}

static void refuse_transposed(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(2, 3)), input(g, "w", QN_F32, QN_SHAPE(3, 5)),
              &(qn_matmul_opts){ .transpose_b = true });
}

static void refuse_batches(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(2, 2, 3)), input(g, "w", QN_F32, QN_SHAPE(3, 3, 5)),
              NULL);
}

static void refuse_rank(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(3)), input(g, "w", QN_F32, QN_SHAPE(3, 5)), NULL);
}

static void refuse_ranks(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(2, 3)), input(g, "w", QN_F32, QN_SHAPE(2, 3, 5)),
              NULL);
}

static void refuse_half_a(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F16, QN_SHAPE(2, 3)), input(g, "w", QN_F32, QN_SHAPE(3, 5)),
              NULL);
}

static void refuse_integer_b(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(2, 3)), input(g, "w", QN_I32, QN_SHAPE(3, 5)),
              NULL);
}

static void refuse_bias(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(2, 3)), input(g, "w", QN_F32, QN_SHAPE(3, 5)),
              &(qn_matmul_opts){ .bias = input(g, "shift", QN_F32, QN_SHAPE(3)) });
}

static void refuse_activation(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(2, 3)), input(g, "w", QN_F32, QN_SHAPE(3, 5)),
              &(qn_matmul_opts){ .activation = QN_ACTIVATION_COUNT });
}

static void refuse_size(qn_graph *g)
{
    qn_matmul(g, input(g, "x", QN_F32, QN_SHAPE(1 << 16, 1)),
              input(g, "w", QN_F32, QN_SHAPE(1, 1 << 15)), NULL);
}

static void refuse_activated_gradient(qn_graph *g)
{
    const qn_tensor *x = input(g, "x", QN_F32, QN_SHAPE(2, 3)), *grad;
    qn_wants_grad(x);
    const qn_tensor *y = qn_matmul(g, x, input(g, "w", QN_F32, QN_SHAPE(3, 5)),
                                   &(qn_matmul_opts){ .activation = QN_SILU });
    qn_backward(g, qn_sum_all(g, y), NULL, &x, 1, &grad);
}

static const qn_refusal refusals[] = {
    { "inner", QN_ERR_INVALID, "a (x) [2,3] and b (w) [4,5] do not fit", refuse_inner },
    { "transposed", QN_ERR_INVALID, "b (w) [3,5] transposed do not fit", refuse_transposed },
    { "batches", QN_ERR_INVALID, "a (x) [2,2,3] and b (w) [3,3,5] do not fit", refuse_batches },
    { "rank", QN_ERR_INVALID, "a (x) has shape [3], expected at least two dimensions",
      refuse_rank },
    { "ranks", QN_ERR_INVALID, "a (x) [2,3] and b (w) [2,3,5] do not fit", refuse_ranks },
    { "half_a", QN_ERR_INVALID, "a (x) is f16, expected f32", refuse_half_a },
    { "integer_b", QN_ERR_INVALID, "b (w) is i32, expected f32", refuse_integer_b },
    { "bias", QN_ERR_INVALID, "bias (shift) has shape [3], expected [5]", refuse_bias },
    { "activation", QN_ERR_INVALID, "no activation", refuse_activation },
    { "size", QN_ERR_INVALID, "expected fewer than 2^31", refuse_size },
    { "activated_gradient", QN_ERR_INVALID, "activation silu has no gradient",
      refuse_activated_gradient },
};

QN_OP_TEST(matmul, cases, refusals);
