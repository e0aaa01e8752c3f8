// Cases of reduce, spread, argmax, sum_rows, sum_all, sum_squares and reshape.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

// ----------------------------------------------------------------------------------- reduce

static int build_reduce(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    out[0] = qn_reduce(g, in[0], *(const qn_reduction *)c->params);
    return 1;
}

static void ref_reduce(const qn_case *c, qn_ref *in, qn_ref *out)
{
    qn_reduction kind = *(const qn_reduction *)c->params;
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t r = 0; r < out[0].count; r++) {
        const double *x = in[0].v + r * width;
        double sum = 0, mag = 0, most = x[0];
        for (int64_t i = 0; i < width; i++) {
            sum += x[i];
            mag += fabs(x[i]);
            most = fmax(most, x[i]);
        }
        double scale = kind == QN_MEAN ? 1 / (double)width : 1;
        out[0].v[r] = kind == QN_MAX ? most : sum * scale;
        out[0].mag[r] = kind == QN_MAX ? fabs(most) : mag * scale;
    }
    out[0].terms = kind == QN_MAX ? 1 : (double)width;
    out[0].slack = kind == QN_MEAN ? 5 : 0; // a division: 2.5 ulp
}

#define REDUCE(label, kind, s, wants)                                                              \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = s, .grad = wants } },          \
        .params = &(const qn_reduction){ kind }, .build = build_reduce, .ref = ref_reduce          \
    }
static const qn_case reduce_cases[] = {
    REDUCE("sum_1", QN_SUM, S1(1), true),
    REDUCE("sum_7x3", QN_SUM, S2(7, 3), true),
    REDUCE("sum_3x64", QN_SUM, S2(3, 64), true),
    REDUCE("sum_5x65", QN_SUM, S2(5, 65), true),
    REDUCE("sum_2x3x4x68", QN_SUM, S4(2, 3, 4, 68), true),
    REDUCE("sum_3x5003", QN_SUM, S2(3, 5003), true),
    REDUCE("mean_1001x1", QN_MEAN, S2(1001, 1), true),
    REDUCE("mean_131x7", QN_MEAN, S2(131, 7), true),
    REDUCE("mean_9x513", QN_MEAN, S2(9, 513), true),
    REDUCE("max_1x1", QN_MAX, S2(1, 1), false),
    REDUCE("max_9x5", QN_MAX, S2(9, 5), false),
    REDUCE("max_65x66", QN_MAX, S2(65, 66), false),
    REDUCE("max_2x4099", QN_MAX, S2(2, 4099), false),
    { .name = "2048x512",
      .inputs = 1,
      .in = { { .name = "x", .shape = S2(2048, 512) } },
      .params = &(const qn_reduction){ QN_SUM },
      .build = build_reduce,
      .ref = ref_reduce,
      .bench = true },
};

static void refuse_reduce_scalar(qn_graph *g)
{
    qn_reduce(g, qn_input(g, "x", QN_F32, QN_SCALAR), QN_SUM);
}

static void refuse_reduce_kind(qn_graph *g)
{
    qn_reduce(g, qn_input(g, "x", QN_F32, QN_SHAPE(2)), (qn_reduction)3);
}

static void refuse_reduce_wide(qn_graph *g)
{
    qn_reduce(g, qn_input(g, "x", QN_F32, QN_SHAPE(1, 262145)), QN_SUM);
}

static void refuse_max_gradient(qn_graph *g)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(3)), *grad;
    qn_wants_grad(x);
    qn_backward(g, qn_reduce(g, x, QN_MAX), NULL, &x, 1, &grad);
}

static const qn_refusal reduce_refusals[] = {
    { "scalar", QN_ERR_INVALID, "x (x) is a scalar", refuse_reduce_scalar },
    { "kind", QN_ERR_INVALID, "no reduction 3", refuse_reduce_kind },
    { "wide", QN_ERR_INVALID, "rows of 262145, expected at most 262144", refuse_reduce_wide },
    { "gradient of max", QN_ERR_INVALID, "a largest value has no gradient", refuse_max_gradient },
};

QN_OP_TEST(reduce, reduce_cases, reduce_refusals);

// ----------------------------------------------------------------------------------- spread

typedef struct spread_attrs {
    float factor;
    uint32_t width;
} spread_attrs;

static int build_spread(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    out[0] = QN_OP1(g, &qn_op_spread, c->params, in[0]);
    return 1;
}

static void ref_spread(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const spread_attrs *attrs = c->params;
    for (int64_t i = 0; i < out[0].count; i++)
        out[0].v[i] = (double)attrs->factor * in[0].v[i / attrs->width];
}

#define SPREAD(label, s, factor, width)                                                            \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = s } },                         \
        .params = &(const spread_attrs){ factor, width }, .build = build_spread, .ref = ref_spread \
    }
static const qn_case spread_cases[] = {
    SPREAD("scalar_to_1", S0, 1, 1),      SPREAD("scalar_to_300", S0, 0.5f, 300),
    SPREAD("7_to_3", S1(7), 2, 3),        SPREAD("131_to_2", S1(131), -1, 2),
    SPREAD("3x5_to_64", S2(3, 5), 1, 64), SPREAD("19_to_129", S1(19), 0.1f, 129),
    SPREAD("5_to_1", S1(5), 1, 1),        SPREAD("6_to_5", S1(6), 1, 5),
};

static void refuse_spread(qn_graph *g)
{
    QN_OP1(g, &qn_op_spread, (&(spread_attrs){ 1, 2 }),
           qn_input(g, "x", QN_F32, QN_SHAPE(1, 1, 1, 1)));
}

static const qn_refusal spread_refusals[] = {
    { "rank", QN_ERR_INVALID, "x (x) has no room for a dimension", refuse_spread },
};

QN_OP_TEST(spread, spread_cases, spread_refusals);

// ----------------------------------------------------------------------------------- argmax

static int build_argmax(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    (void)c;
    out[0] = qn_argmax(g, in[0]);
    return 1;
}

static void ref_argmax(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t r = 0; r < out[0].count; r++)
        for (int64_t i = 1; i < width; i++)
            if (in[0].v[r * width + i] > in[0].v[r * width + (int64_t)out[0].v[r]])
                out[0].v[r] = (double)i;
}

static void fill_minus_infinity(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = i % 5 == 4 ? -3e38 : -INFINITY;
}

#define ARGMAX(label, s, ...)                                                                      \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = s, __VA_ARGS__ } },            \
        .build = build_argmax, .ref = ref_argmax                                                   \
    }
static const qn_case argmax_cases[] = {
    ARGMAX("1", S1(1), .gen = QN_GEN_NORMAL),
    ARGMAX("5x7", S2(5, 7), .gen = QN_GEN_DISTINCT, .lo = -1, .hi = 1),
    ARGMAX("3x64", S2(3, 64), .gen = QN_GEN_DISTINCT, .lo = -1, .hi = 1),
    ARGMAX("2x3x67", S3(2, 3, 67), .gen = QN_GEN_DISTINCT, .lo = -9, .hi = -1),
    ARGMAX("4x1030", S2(4, 1030), .gen = QN_GEN_DISTINCT, .lo = -1, .hi = 1),
    ARGMAX("ties_41x9", S2(41, 9), .gen = QN_GEN_INT, .lo = 0, .hi = 2),
    ARGMAX("ties_17x300", S2(17, 300), .gen = QN_GEN_INT, .lo = 0, .hi = 2),
    ARGMAX("equal_3x130", S2(3, 130), .gen = QN_GEN_INT, .lo = 4, .hi = 4),
    ARGMAX("minus_infinity_3x4", S2(3, 4), .gen = QN_GEN_CUSTOM, .fill = fill_minus_infinity),
    ARGMAX("2x50295", S2(2, 50295), .gen = QN_GEN_NORMAL),
};

static void refuse_argmax_dtype(qn_graph *g)
{
    qn_argmax(g, qn_input(g, "x", QN_I32, QN_SHAPE(3)));
}

static const qn_refusal argmax_refusals[] = {
    { "dtype", QN_ERR_INVALID, "x (x) is i32, expected f32", refuse_argmax_dtype },
};

QN_OP_TEST(argmax, argmax_cases, argmax_refusals);

// ----------------------------------------------------------------------------------- sums

static int build_sum_rows(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                          const qn_tensor **out)
{
    (void)c;
    out[0] = qn_sum_rows(g, in[0]);
    return 1;
}

static void ref_sum_rows(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < in[0].count; i++) {
        out[0].v[i % out[0].count] += in[0].v[i];
        out[0].mag[i % out[0].count] += fabs(in[0].v[i]);
    }
    out[0].terms = (double)(in[0].count / out[0].count);
}

static int build_sum_all(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                         const qn_tensor **out)
{
    (void)c;
    out[0] = qn_sum_all(g, in[0]);
    return 1;
}

static int build_sum_squares(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                             const qn_tensor **out)
{
    (void)c;
    out[0] = qn_sum_squares(g, in[0]);
    return 1;
}

static void ref_sum_squares(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < in[0].count; i++) out[0].v[0] += in[0].v[i] * in[0].v[i];
    out[0].terms = (double)in[0].count;
}

#define SUM(op, refs, label, s)                                                                    \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = s, .grad = true } },           \
        .build = build_##op, .ref = refs                                                           \
    }
static const qn_case sum_rows_cases[] = {
    SUM(sum_rows, ref_sum_rows, "1", S1(1)),
    SUM(sum_rows, ref_sum_rows, "vector_9", S1(9)),
    SUM(sum_rows, ref_sum_rows, "63x8", S2(63, 8)),
    SUM(sum_rows, ref_sum_rows, "64x5", S2(64, 5)),
    SUM(sum_rows, ref_sum_rows, "65x12", S2(65, 12)),
    SUM(sum_rows, ref_sum_rows, "129x7", S2(129, 7)),
    SUM(sum_rows, ref_sum_rows, "1000x1", S2(1000, 1)),
    SUM(sum_rows, ref_sum_rows, "3x5x300", S3(3, 5, 300)),
    SUM(sum_rows, ref_sum_rows, "17000x4", S2(17000, 4)),
    { .name = "2048x512",
      .inputs = 1,
      .in = { { .name = "x", .shape = S2(2048, 512) } },
      .build = build_sum_rows,
      .ref = ref_sum_rows,
      .bench = true },
};
// Blocks of a sum have 8192 elements.
#define SUMS(op, refs)                                                                             \
    SUM(op, refs, "scalar", S0), SUM(op, refs, "3", S1(3)), SUM(op, refs, "8191", S1(8191)),       \
        SUM(op, refs, "128x64", S2(128, 64)), SUM(op, refs, "8193", S1(8193)),                     \
        SUM(op, refs, "101x331", S2(101, 331)),                                                    \
    {                                                                                              \
        .name = "1048576", .inputs = 1, .in = { { .name = "x", .shape = S1(1048576) } },           \
        .build = build_##op, .ref = refs, .bench = true                                            \
    }
static const qn_case sum_all_cases[] = { SUMS(sum_all, ref_sum_rows) };
static const qn_case sum_squares_cases[] = { SUMS(sum_squares, ref_sum_squares) };

static void refuse_sum_rows_scalar(qn_graph *g)
{
    qn_sum_rows(g, qn_input(g, "x", QN_F32, QN_SCALAR));
}

static void refuse_sum_rows_wide(qn_graph *g)
{
    qn_sum_rows(g, qn_input(g, "x", QN_F32, QN_SHAPE(1, (1 << 24) + 1)));
}

static void refuse_sum_all_dtype(qn_graph *g)
{
    qn_sum_all(g, qn_input(g, "x", QN_I32, QN_SHAPE(3)));
}

static void refuse_sum_squares_dtype(qn_graph *g)
{
    qn_sum_squares(g, qn_input(g, "x", QN_F16, QN_SHAPE(3)));
}

static const qn_refusal sum_rows_refusals[] = {
    { "scalar", QN_ERR_INVALID, "x (x) is a scalar", refuse_sum_rows_scalar },
    { "wide", QN_ERR_INVALID, "rows of 16777217, expected at most 16777216", refuse_sum_rows_wide },
};
static const qn_refusal sum_all_refusals[] = {
    { "dtype", QN_ERR_INVALID, "x (x) is i32, expected f32", refuse_sum_all_dtype },
};
static const qn_refusal sum_squares_refusals[] = {
    { "dtype", QN_ERR_INVALID, "x (x) is f16, expected f32", refuse_sum_squares_dtype },
};

QN_OP_TEST(sum_rows, sum_rows_cases, sum_rows_refusals);
QN_OP_TEST(sum_all, sum_all_cases, sum_all_refusals);
QN_OP_TEST(sum_squares, sum_squares_cases, sum_squares_refusals);

// ----------------------------------------------------------------------------------- reshape

// A reshape alone computes nothing, so its result is doubled.
static int build_reshape(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                         const qn_tensor **out)
{
    const qn_tensor *y = qn_reshape(g, in[0], *(const qn_shape *)c->params);
    out[0] = y;
    out[1] = qn_add(g, y, y);
    return 2;
}

static void ref_reshape(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < in[0].count; i++) {
        out[0].v[i] = in[0].v[i];
        out[1].v[i] = 2 * in[0].v[i];
    }
}

#define RESHAPE(label, from, to)                                                                   \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = from, .grad = true } },        \
        .params = &(const qn_shape)to, .build = build_reshape, .ref = ref_reshape                  \
    }
static const qn_case reshape_cases[] = {
    RESHAPE("scalar_to_1x1", S0, S2(1, 1)),
    RESHAPE("6x35_to_2x3x5x7", S2(6, 35), S4(2, 3, 5, 7)),
    RESHAPE("2x3_to_6", S2(2, 3), S1(6)),
    RESHAPE("same", S2(2, 3), S2(2, 3)),
};

static void reshape_to(qn_graph *g, qn_shape shape)
{
    qn_reshape(g, qn_input(g, "x", QN_F32, QN_SHAPE(2, 3)), shape);
}
static void refuse_reshape_count(qn_graph *g)
{
    reshape_to(g, QN_SHAPE(7));
}
static void refuse_reshape_zero(qn_graph *g)
{
    reshape_to(g, QN_SHAPE(6, 0));
}
static void refuse_reshape_negative(qn_graph *g)
{
    reshape_to(g, QN_SHAPE(-2, -3));
}
static void refuse_reshape_overflow(qn_graph *g)
{
    reshape_to(g, QN_SHAPE(INT64_C(1) << 62, INT64_C(1) << 62));
}
static void refuse_reshape_rank(qn_graph *g)
{
    reshape_to(g, (qn_shape){ .rank = 99 });
}

static const qn_refusal reshape_refusals[] = {
    { "count", QN_ERR_INVALID, "x (x) has shape [2,3], which cannot become [7]",
      refuse_reshape_count },
    { "zero", QN_ERR_INVALID, "cannot become [6,0]", refuse_reshape_zero },
    { "negative", QN_ERR_INVALID, "cannot become [-2,-3]", refuse_reshape_negative },
    { "overflow", QN_ERR_INVALID, "cannot become", refuse_reshape_overflow },
    { "rank", QN_ERR_INVALID, "cannot become that many dimensions", refuse_reshape_rank },
};

QN_OP_TEST(reshape, reshape_cases, reshape_refusals);
