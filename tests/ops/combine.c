// Cases of combine, combine_grad and repeat_rows.
#include "case.h"
#include "op.h"

#include <math.h>

typedef struct slots {
    int32_t choices;
} slots; // also the operations' attributes

enum { GATED = 1, RESIDUAL = 2 };

typedef struct setup {
    slots slots;
    int given;
} setup;

#define MATRIX(label, n, c, ...)                                                                   \
    {                                                                                              \
        .name = label, .shape = { 2, { n, c } }, __VA_ARGS__                                       \
    }

// ----------------------------------------------------------------------------------- combine

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    out[0] = qn_combine(g, in[0], s->given & GATED ? in[1] : NULL,
                        s->given & RESIDUAL ? in[2] : NULL, s->slots.choices);
    return 1;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t rows = out[0].shape.dim[0], width = out[0].shape.dim[1], k = s->slots.choices;
    for (int64_t n = 0; n < rows; n++)
        for (int64_t i = 0; i < width; i++) {
            double sum = s->given & RESIDUAL ? in[2].v[n * width + i] : 0, size = fabs(sum);
            for (int64_t a = n * k; a < (n + 1) * k; a++) {
                double term = (s->given & GATED ? in[1].v[a] : 1) * in[0].v[a * width + i];
                sum += term;
                size += fabs(term);
            }
            out[0].v[n * width + i] = sum;
            out[0].mag[n * width + i] = size;
        }
    out[0].terms = (double)k + 1;
}

#define CASE(label, n, c, k, with)                                                                 \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { MATRIX("y", (n) * (k), c, .grad = true), MATRIX("gates", n, k, .grad = true),      \
                MATRIX("residual", n, c, .grad = true) },                                          \
        .params = &(const setup){ { k }, with }, .build = build, .ref = ref                        \
    }

static const qn_case cases[] = {
    CASE("1x1_k1", 1, 1, 1, GATED),
    CASE("1x4_k1_residual", 1, 4, 1, GATED | RESIDUAL),
    CASE("33x5_k2", 33, 5, 2, GATED | RESIDUAL),
    CASE("33x128_k2", 33, 128, 2, GATED | RESIDUAL),
    CASE("7x127_k3", 7, 127, 3, GATED),
    CASE("7x130_k1", 7, 130, 1, GATED | RESIDUAL),
    CASE("3x64_k16", 3, 64, 16, GATED | RESIDUAL),
    CASE("2x9_k33", 2, 9, 33, GATED),
    CASE("plain_9x36_k2", 9, 36, 2, 0),
    CASE("plain_9x36_k1", 9, 36, 1, RESIDUAL),
    CASE("plain_5x7_k4", 5, 7, 4, RESIDUAL),
    CASE("701x8_k2", 701, 8, 2, GATED | RESIDUAL),
    { .name = "2048x512_k2",
      .inputs = 3,
      .in = { MATRIX("y", 4096, 512), MATRIX("gates", 2048, 2), MATRIX("residual", 2048, 512) },
      .params = &(const setup){ { 2 }, GATED | RESIDUAL },
      .build = build,
      .ref = ref,
      .bench = true },
};

static const qn_tensor *y_of(qn_graph *g)
{
    return qn_input(g, "y", QN_F32, QN_SHAPE(6, 5));
}

static void refuse_choices(qn_graph *g)
{
    qn_combine(g, y_of(g), NULL, NULL, 0);
}

static void refuse_rows(qn_graph *g)
{
    qn_combine(g, y_of(g), NULL, NULL, 4);
}

static void refuse_gates(qn_graph *g)
{
    qn_combine(g, y_of(g), qn_input(g, "g", QN_F32, QN_SHAPE(2, 3)), NULL, 2);
}

static void refuse_residual(qn_graph *g)
{
    qn_combine(g, y_of(g), NULL, qn_input(g, "r", QN_F32, QN_SHAPE(6, 5)), 2);
}

static void refuse_half(qn_graph *g)
{
    qn_combine(g, qn_input(g, "y", QN_F16, QN_SHAPE(6, 5)), NULL, NULL, 2);
}

static const qn_refusal refusals[] = {
    { "choices", QN_ERR_INVALID, "0 choices, expected at least 1", refuse_choices },
    { "rows", QN_ERR_INVALID, "y (y) has shape [6,5], expected a multiple of 4 rows", refuse_rows },
    { "gates", QN_ERR_INVALID, "gates (g) has shape [2,3], expected [3,2]", refuse_gates },
    { "residual", QN_ERR_INVALID, "residual (r) has shape [6,5], expected [3,5]", refuse_residual },
    { "half", QN_ERR_INVALID, "y (y) is f16, expected f32", refuse_half },
};

QN_OP_TEST(combine, cases, refusals);

// ------------------------------------------------------------------------------ combine_grad

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    const setup *s = c->params;
    const qn_tensor *all[QN_MAX_INPUTS] = { in[0], in[1], in[2] };
    const qn_node *made;
    if (!qn_op(g, &qn_op_combine_grad, &s->slots, all, &made)) return 0;
    out[0] = made->out[0];
    out[1] = made->out[1];
    return 2;
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    int64_t k = ((const setup *)c->params)->slots.choices;
    int64_t count = out[0].shape.dim[0], width = out[0].shape.dim[1];
    for (int64_t a = 0; a < count; a++)
        for (int64_t i = 0; i < width; i++) {
            double d = in[2].v[a / k * width + i], term = d * in[0].v[a * width + i];
            out[0].v[a * width + i] = in[1].v[a] * d;
            out[1].v[a] += term;
            out[1].mag[a] += fabs(term);
        }
    out[1].terms = (double)width;
}

#define GRAD_CASE(label, n, c, k)                                                                  \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { MATRIX("y", (n) * (k), c), MATRIX("gates", n, k), MATRIX("dout", n, c) },          \
        .params = &(const setup){ { k }, GATED }, .build = build_grad, .ref = ref_grad,            \
        .bench = (n) * (c) >= 1 << 19                                                              \
    }

static const qn_case grad_cases[] = {
    GRAD_CASE("1x1_k1", 1, 1, 1),     GRAD_CASE("33x7_k2", 33, 7, 2),
    GRAD_CASE("9x128_k3", 9, 128, 3), GRAD_CASE("5x257_k1", 5, 257, 1),
    GRAD_CASE("801x4_k2", 801, 4, 2), GRAD_CASE("1024x512_k2", 1024, 512, 2),
};

static void refuse_gradient(qn_graph *g)
{
    QN_OP1(g, &qn_op_combine_grad, &(slots){ 2 }, y_of(g), qn_input(g, "g", QN_F32, QN_SHAPE(3, 2)),
           qn_input(g, "d", QN_F32, QN_SHAPE(6, 5)));
}

static const qn_refusal grad_refusals[] = {
    { "gradient", QN_ERR_INVALID, "gradient (d) has shape [6,5], expected [3,5]", refuse_gradient },
};

QN_OP_TEST(combine_grad, grad_cases, grad_refusals);

// ------------------------------------------------------------------------------- repeat_rows

static int build_repeat(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    out[0] = QN_OP1(g, &qn_op_repeat_rows, &((const setup *)c->params)->slots, in[0]);
    return 1;
}

static void ref_repeat(const qn_case *c, qn_ref *in, qn_ref *out)
{
    int64_t k = ((const setup *)c->params)->slots.choices, width = out[0].shape.dim[1];
    for (int64_t i = 0; i < out[0].count; i++)
        out[0].v[i] = in[0].v[i / width / k * width + i % width];
}

#define REPEAT_CASE(label, n, c, k)                                                                \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { MATRIX("x", n, c, .grad = true) },                     \
        .params = &(const setup){ { k }, 0 }, .build = build_repeat, .ref = ref_repeat             \
    }

static const qn_case repeat_cases[] = {
    REPEAT_CASE("1x1_k1", 1, 1, 1),
    REPEAT_CASE("33x6_k3", 33, 6, 3),
    REPEAT_CASE("5x128_k2", 5, 128, 2),
};

static void refuse_repeat_none(qn_graph *g)
{
    QN_OP1(g, &qn_op_repeat_rows, &(slots){ 0 }, y_of(g));
}

static void refuse_repeat_many(qn_graph *g)
{
    QN_OP1(g, &qn_op_repeat_rows, &(slots){ INT32_MAX }, y_of(g));
}

static const qn_refusal repeat_refusals[] = {
    { "none", QN_ERR_INVALID, "0 choices, expected at least 1", refuse_repeat_none },
    { "many", QN_ERR_INVALID, "elements, expected fewer than 2^31", refuse_repeat_many },
};

QN_OP_TEST(repeat_rows, repeat_cases, repeat_refusals);
