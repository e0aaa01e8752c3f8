// Cases of layer_norm, rms_norm, unit_norm, norm_grad and norm_grad_w.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

enum { LAYER, RMS, UNIT };

typedef struct setup {
    uint32_t kind;
    float epsilon;
    bool bias;
} setup;

typedef struct row {
    double mean, r; // r: what x - mean is multiplied with
    bool clamped;   // unit_norm: epsilon is the divisor
} row;

static row row_of(const setup *s, const double *x, int64_t width)
{
    row t = { 0 };
    double square = 0;
    for (int64_t i = 0; s->kind == LAYER && i < width; i++) t.mean += x[i] / (double)width;
    for (int64_t i = 0; i < width; i++) square += (x[i] - t.mean) * (x[i] - t.mean);
    double length = sqrt(square);
    t.clamped = s->kind == UNIT && !(length > (double)s->epsilon);
    t.r = 1 / (s->kind == UNIT ? fmax(length, (double)s->epsilon)
                               : sqrt(square / (double)width + (double)s->epsilon));
    return t;
}

// What the mean of the row loses by rounding, relative to the deviation: it moves every element.
static double mean_mag(const double *x, int64_t width, const row *t)
{
    double mag = 0;
    for (int64_t i = 0; i < width; i++) mag += fabs(x[i]) / (double)width;
    return mag * t->r;
}

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    switch (s->kind) {
    case LAYER:
        out[0] = qn_layer_norm(g, in[0], in[1], s->bias ? in[2] : NULL, s->epsilon);
        break;
    case RMS:
        out[0] = qn_rms_norm(g, in[0], in[1], s->epsilon);
        break;
    default:
        out[0] = qn_unit_norm(g, in[0], s->epsilon);
        break;
    }
    return 1;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t r = 0; r < in[0].count / width; r++) {
        const double *x = in[0].v + r * width;
        row t = row_of(s, x, width);
        for (int64_t i = 0; i < width; i++) {
            double w = s->kind == UNIT ? 1 : in[1].v[i], b = s->bias ? in[2].v[i] : 0;
            double h = (x[i] - t.mean) * t.r;
            out[0].v[r * width + i] = h * w + b;
            out[0].mag[r * width + i] =
                (fabs(h) + (s->kind == LAYER ? mean_mag(x, width, &t) : 0)) * fabs(w) + fabs(b);
        }
    }
    out[0].terms = (double)width;
    // sqrt, one over it and a division: within 3, 2.5 and 2.5 ulp, two units each.
    out[0].slack = 16;
}

#define NORM(label, k, eps, with_bias, s, width, ...)                                              \
    {                                                                                              \
        .name = label,                                                                             \
        .inputs = k == UNIT   ? 1                                                                  \
                  : k == RMS  ? 2                                                                  \
                  : with_bias ? 3                                                                  \
                              : 2,                                                                 \
        .in = { { .name = "x", .shape = s, .grad = true, __VA_ARGS__ },                            \
                { .name = "w", .shape = S1(width), .grad = true },                                 \
                { .name = "b", .shape = S1(width), .grad = true } },                               \
        .params = &(const setup){ k, eps, with_bias }, .build = build, .ref = ref                  \
    }
#define BENCH(label, k, with_bias, count)                                                          \
    {                                                                                              \
        .name = label, .inputs = count,                                                            \
        .in = { { .name = "x", .shape = S2(2048, 512) },                                           \
                { .name = "w", .shape = S1(512) },                                                 \
                { .name = "b", .shape = S1(512) } },                                               \
        .params = &(const setup){ k, 1e-5f, with_bias }, .build = build, .ref = ref, .bench = true \
    }
static const qn_case layer_cases[] = {
    NORM("7x5", LAYER, 1e-5f, true, S2(7, 5), 5, .scale = 1),
    NORM("3x64", LAYER, 1e-5f, true, S2(3, 64), 64, .scale = 1),
    NORM("3x64_plain", LAYER, 1e-5f, false, S2(3, 64), 64, .scale = 1),
    NORM("5x65", LAYER, 1e-5f, true, S2(5, 65), 65, .scale = 3),
    NORM("2x3x127", LAYER, 1e-5f, false, S3(2, 3, 127), 127, .scale = 1),
    NORM("131x128", LAYER, 1e-5f, true, S2(131, 128), 128, .scale = 1),
    NORM("vector_516", LAYER, 1e-5f, true, S1(516), 516, .scale = 1),
    // A mean of a hundred deviations: the deviations must not come from a difference of squares.
    NORM("far_9x96", LAYER, 1e-5f, true, S2(9, 96), 96, .gen = QN_GEN_UNIFORM, .lo = 99, .hi = 101),
    NORM("70x2", LAYER, 0.1f, true, S2(70, 2), 2, .scale = 1),
    NORM("9x1", LAYER, 1, true, S2(9, 1), 1, .scale = 1),
    BENCH("2048x512", LAYER, true, 3),
};
static const qn_case rms_cases[] = {
    NORM("7x5", RMS, 1e-5f, false, S2(7, 5), 5, .scale = 1),
    NORM("5x64", RMS, 1e-6f, false, S2(5, 64), 64, .scale = 1),
    NORM("2x3x131", RMS, 1e-5f, false, S3(2, 3, 131), 131, .scale = 0.1),
    NORM("67x128", RMS, 1e-5f, false, S2(67, 128), 128, .scale = 1),
    BENCH("2048x512", RMS, false, 2),
};

static void fill_zeros(qn_ref *t)
{
    (void)t;
}

static const qn_case unit_cases[] = {
    NORM("1", UNIT, 1e-6f, false, S1(1), 1, .gen = QN_GEN_UNIFORM, .lo = 1, .hi = 2),
    NORM("7x5", UNIT, 1e-6f, false, S2(7, 5), 5, .scale = 1),
    NORM("5x64", UNIT, 1e-6f, false, S2(5, 64), 64, .scale = 1),
    NORM("9x130", UNIT, 1e-6f, false, S2(9, 130), 130, .scale = 1),
    NORM("short_9x6", UNIT, 1e3f, false, S2(9, 6), 6, .scale = 1),
    { .name = "zeros_3x9",
      .inputs = 1,
      .in = { { .name = "x", .shape = S2(3, 9), .gen = QN_GEN_CUSTOM, .fill = fill_zeros } },
      .params = &(const setup){ UNIT, 1e-6f, false },
      .build = build,
      .ref = ref },
    BENCH("2048x512", UNIT, false, 1),
};

static const qn_tensor *input(qn_graph *g, const char *name, qn_shape shape)
{
    return qn_input(g, name, QN_F32, shape);
}

static void refuse_w(qn_graph *g)
{
    qn_layer_norm(g, input(g, "x", QN_SHAPE(2, 3)), input(g, "w", QN_SHAPE(2)), NULL, 1e-5f);
}

static void refuse_b(qn_graph *g)
{
    qn_layer_norm(g, input(g, "x", QN_SHAPE(2, 3)), input(g, "w", QN_SHAPE(3)),
                  input(g, "b", QN_SHAPE(1, 3)), 1e-5f);
}

static void refuse_epsilon(qn_graph *g)
{
    qn_layer_norm(g, input(g, "x", QN_SHAPE(2, 3)), input(g, "w", QN_SHAPE(3)), NULL, -1);
}

static void refuse_rms_nan(qn_graph *g)
{
    qn_rms_norm(g, input(g, "x", QN_SHAPE(2, 3)), input(g, "w", QN_SHAPE(3)), NAN);
}

static void refuse_rms_dtype(qn_graph *g)
{
    qn_rms_norm(g, qn_input(g, "x", QN_I32, QN_SHAPE(3)), input(g, "w", QN_SHAPE(3)), 1e-5f);
}

static void refuse_unit_zero(qn_graph *g)
{
    qn_unit_norm(g, input(g, "x", QN_SHAPE(2, 3)), 0);
}

static void refuse_unit_scalar(qn_graph *g)
{
    qn_unit_norm(g, input(g, "x", QN_SCALAR), 1e-6f);
}

static const qn_refusal layer_refusals[] = {
    { "w", QN_ERR_INVALID, "w (w) has shape [2], expected [3]", refuse_w },
    { "b", QN_ERR_INVALID, "b (b) has shape [1,3], expected [3]", refuse_b },
    { "epsilon", QN_ERR_INVALID, "epsilon is -1", refuse_epsilon },
};
static const qn_refusal rms_refusals[] = {
    { "epsilon", QN_ERR_INVALID, "expected a finite number >= 0", refuse_rms_nan },
    { "dtype", QN_ERR_INVALID, "x (x) is i32, expected f32", refuse_rms_dtype },
};
static const qn_refusal unit_refusals[] = {
    { "epsilon", QN_ERR_INVALID, "expected a finite number > 0", refuse_unit_zero },
    { "scalar", QN_ERR_INVALID, "x (x) is a scalar", refuse_unit_scalar },
};

QN_OP_TEST(layer_norm, layer_cases, layer_refusals);
QN_OP_TEST(rms_norm, rms_cases, rms_refusals);
QN_OP_TEST(unit_norm, unit_cases, unit_refusals);

// ----------------------------------------------------------------------------------- gradients

// Inputs dy, x, w; the statistics come from the norm itself.
static const qn_tensor *stats_of(qn_graph *g, const setup *s, const qn_tensor *x,
                                 const qn_tensor *w)
{
    const qn_tensor *y = s->kind == LAYER ? qn_layer_norm(g, x, w, NULL, s->epsilon)
                         : s->kind == RMS ? qn_rms_norm(g, x, w, s->epsilon)
                                          : qn_unit_norm(g, x, s->epsilon);
    return y ? qn_tensor_node(y)->out[1] : NULL;
}

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    const setup *s = c->params;
    const qn_tensor *stats = stats_of(g, s, in[1], in[2]);
    out[0] = stats ? QN_OP1(g, &qn_op_norm_grad, &s->kind, in[0], in[1],
                            s->kind == UNIT ? NULL : in[2], stats)
                   : NULL;
    return 1;
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t width = qn_shape_last(in[1].shape);
    for (int64_t r = 0; r < in[1].count / width; r++) {
        const double *x = in[1].v + r * width, *dy = in[0].v + r * width;
        row t = row_of(s, x, width);
        double far = s->kind == LAYER ? mean_mag(x, width, &t) : 0;
        double sum = 0, dot = 0, sum_mag = 0, dot_mag = 0;
        double over = s->kind == UNIT ? 1 : (double)width;
        for (int64_t i = 0; i < width; i++) {
            double g = dy[i] * (s->kind == UNIT ? 1 : in[2].v[i]), h = (x[i] - t.mean) * t.r;
            sum += g / over;
            sum_mag += fabs(g) / over;
            dot += g * h / over;
            dot_mag += fabs(g) * (fabs(h) + far) / over;
        }
        if (s->kind != LAYER) sum = sum_mag = 0;
        if (t.clamped) dot = dot_mag = 0;
        for (int64_t i = 0; i < width; i++) {
            double g = dy[i] * (s->kind == UNIT ? 1 : in[2].v[i]), h = (x[i] - t.mean) * t.r;
            out[0].v[r * width + i] = t.r * (g - sum - h * dot);
            out[0].mag[r * width + i] = t.r * (fabs(g) + sum_mag + (fabs(h) + far) * dot_mag);
        }
    }
    out[0].terms = (double)width;
    out[0].slack = 3 * 16; // r enters three times
}

#define GRAD(label, k, eps, s, width, ...)                                                         \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { { .name = "dy", .shape = s },                                                      \
                { .name = "x", .shape = s, __VA_ARGS__ },                                          \
                { .name = "w", .shape = S1(width) } },                                             \
        .params = &(const setup){ k, eps, false }, .build = build_grad, .ref = ref_grad            \
    }
static const qn_case grad_cases[] = {
    GRAD("layer_7x5", LAYER, 1e-5f, S2(7, 5), 5, .scale = 1),
    GRAD("layer_33x64", LAYER, 1e-5f, S2(33, 64), 64, .scale = 1),
    GRAD("layer_9x131", LAYER, 1e-5f, S2(9, 131), 131, .scale = 1),
    GRAD("layer_far_5x100", LAYER, 1e-5f, S2(5, 100), 100, .gen = QN_GEN_UNIFORM, .lo = 99,
         .hi = 101),
    GRAD("rms_7x6", RMS, 1e-5f, S2(7, 6), 6, .scale = 1),
    GRAD("rms_9x260", RMS, 1e-5f, S2(9, 260), 260, .scale = 1),
    GRAD("unit_33x7", UNIT, 1e-6f, S2(33, 7), 7, .scale = 1),
    GRAD("unit_short_33x7", UNIT, 1e3f, S2(33, 7), 7, .scale = 1),
};

static int build_grad_w(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    const setup *s = c->params;
    const qn_tensor *stats = stats_of(g, s, in[1], in[2]);
    const qn_node *node = NULL;
    if (stats)
        qn_op(g, &qn_op_norm_grad_w, &(uint32_t){ s->bias },
              (const qn_tensor *const[QN_MAX_INPUTS]){ in[0], in[1], stats }, &node);
    if (!node) return 0;
    out[0] = node->out[0];
    out[1] = node->out[1];
    return s->bias ? 2 : 1;
}

static void ref_grad_w(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t width = qn_shape_last(in[1].shape);
    for (int64_t r = 0; r < in[1].count / width; r++) {
        const double *x = in[1].v + r * width, *dy = in[0].v + r * width;
        row t = row_of(s, x, width);
        double far = s->kind == LAYER ? mean_mag(x, width, &t) : 0;
        for (int64_t i = 0; i < width; i++) {
            double h = (x[i] - t.mean) * t.r;
            out[0].v[i] += dy[i] * h;
            out[0].mag[i] += fabs(dy[i]) * (fabs(h) + far);
            if (!s->bias) continue;
            out[1].v[i] += dy[i];
            out[1].mag[i] += fabs(dy[i]);
        }
    }
    out[0].terms = (double)(in[1].count / width + width);
    out[0].slack = 16;
    if (s->bias) out[1].terms = (double)(in[1].count / width);
}

#define GRAD_W(label, k, with_bias, s, width)                                                      \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { { .name = "dy", .shape = s },                                                      \
                { .name = "x", .shape = s },                                                       \
                { .name = "w", .shape = S1(width) } },                                             \
        .params = &(const setup){ k, 1e-5f, with_bias }, .build = build_grad_w, .ref = ref_grad_w  \
    }
static const qn_case grad_w_cases[] = {
    GRAD_W("layer_1x8", LAYER, true, S2(1, 8), 8),
    GRAD_W("layer_63x5", LAYER, true, S2(63, 5), 5),
    GRAD_W("layer_65x64", LAYER, true, S2(65, 64), 64),
    GRAD_W("layer_129x131", LAYER, true, S2(129, 131), 131),
    GRAD_W("layer_130x36_w", LAYER, false, S2(130, 36), 36),
    GRAD_W("rms_3x5x7", RMS, false, S3(3, 5, 7), 7),
};

static void refuse_grad(qn_graph *g)
{
    const qn_tensor *x = input(g, "x", QN_SHAPE(2, 3)), *w = input(g, "w", QN_SHAPE(3));
    QN_OP1(g, &qn_op_norm_grad, &(uint32_t){ LAYER }, input(g, "dy", QN_SHAPE(3, 2)), x, w,
           input(g, "stats", QN_SHAPE(2, 2)));
}

static void refuse_grad_w(qn_graph *g)
{
    QN_OP1(g, &qn_op_norm_grad_w, &(uint32_t){ 0 }, input(g, "dy", QN_SHAPE(6)),
           input(g, "x", QN_SHAPE(2, 3)), input(g, "stats", QN_SHAPE(2, 2)));
}

static const qn_refusal grad_refusals[] = {
    { "dy", QN_ERR_INVALID, "dy (dy) has shape [3,2], expected [2,3]", refuse_grad },
};
static const qn_refusal grad_w_refusals[] = {
    { "dy", QN_ERR_INVALID, "dy (dy) has shape [6], expected [2,3]", refuse_grad_w },
};

QN_OP_TEST(norm_grad, grad_cases, grad_refusals);
QN_OP_TEST(norm_grad_w, grad_w_cases, grad_w_refusals);
