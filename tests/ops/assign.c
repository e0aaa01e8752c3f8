// Cases of assign and assign_rows.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

// ----------------------------------------------------------------------------------- assign

// The value may be computed in the store's own memory, or have to be copied.
static int build_computed(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                          const qn_tensor **out)
{
    (void)c;
    out[0] = qn_assign(g, in[0], qn_add(g, in[0], in[1]));
    return 1;
}

static void ref_computed(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < in[0].count; i++) {
        out[0].mag[i] = fabs(in[0].v[i]) + fabs(in[1].v[i]);
        in[0].mag[i] = out[0].mag[i];
        in[0].v[i] += in[1].v[i];
        out[0].v[i] = in[0].v[i];
    }
}

static int build_copied(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    (void)c;
    out[0] = qn_assign(g, in[0], in[1]);
    return 1;
}

static void ref_copied(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < in[0].count; i++) out[0].v[i] = in[0].v[i] = in[1].v[i];
}

#define ASSIGN(label, how, type, sa, sb)                                                           \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "param", .dtype = type, .shape = sa, .stored = true },                   \
                { .name = "x", .dtype = type, .shape = sb } },                                     \
        .build = build_##how, .ref = ref_##how, .no_grad_ref = true                                \
    }
#define INTEGERS(label, s)                                                                         \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "param",                                                                 \
                  .dtype = QN_I32,                                                                 \
                  .shape = s,                                                                      \
                  .stored = true,                                                                  \
                  .gen = QN_GEN_INT,                                                               \
                  .lo = 0,                                                                         \
                  .hi = 9 },                                                                       \
                { .name = "x",                                                                     \
                  .dtype = QN_I32,                                                                 \
                  .shape = s,                                                                      \
                  .gen = QN_GEN_INT,                                                               \
                  .lo = -9,                                                                        \
                  .hi = 0 } },                                                                     \
        .build = build_copied, .ref = ref_copied, .no_grad_ref = true                              \
    }
static const qn_case assign_cases[] = {
    ASSIGN("computed_5x7", computed, QN_F32, S2(5, 7), S2(5, 7)),
    ASSIGN("computed_scalar", computed, QN_F32, S0, S0),
    ASSIGN("copied_1", copied, QN_F32, S1(1), S1(1)),
    ASSIGN("copied_6x35_of_2x105", copied, QN_F32, S2(6, 35), S2(2, 105)),
    ASSIGN("copied_1027", copied, QN_F32, S1(1027), S1(1027)),
    ASSIGN("bf16_33", copied, QN_BF16, S1(33), S1(33)),
    ASSIGN("f16_64x66", copied, QN_F16, S2(64, 66), S2(64, 66)),
    INTEGERS("i32_130", S1(130)),
};

static const qn_tensor *leaf(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape)
{
    return qn_input(g, name, dtype, shape);
}

static void refuse_input(qn_graph *g)
{
    const qn_tensor *x = leaf(g, "x", QN_F32, QN_SHAPE(3));
    qn_assign(g, x, x);
}

static void refuse_value(qn_graph *g)
{
    const qn_tensor *x = leaf(g, "x", QN_F32, QN_SHAPE(3));
    qn_name(g, x, "doubled");
    qn_assign(g, qn_scale(g, x, 2, 0), x);
}

static const qn_refusal assign_refusals[] = {
    { "input", QN_ERR_INVALID, "param (x) is not a tensor of a store", refuse_input },
    { "value", QN_ERR_INVALID, "is not a tensor of a store", refuse_value },
};

QN_OP_TEST(assign, assign_cases, assign_refusals);

// ----------------------------------------------------------------------------------- assign_rows

static int build_rows(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    (void)c;
    out[0] = qn_assign_rows(g, in[0], in[1], in[2]);
    return 1;
}

static void ref_rows(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t batch = in[0].shape.dim[0], slots = in[0].shape.dim[1], width = in[0].shape.dim[2];
    int64_t count = in[2].shape.dim[1];
    if (in[1].shape.rank) { // rows of all of param
        for (int64_t b = 0; b < in[2].shape.dim[0]; b++)
            for (int64_t t = 0; t < count; t++)
                for (int64_t i = 0; i < width; i++) {
                    int64_t s = (int64_t)in[1].v[b] + t;
                    if (s < 0 || s >= batch * slots) continue;
                    in[0].v[s * width + i] = in[2].v[(b * count + t) * width + i];
                }
    }
    for (int64_t b = 0; b < batch && !in[1].shape.rank; b++)
        for (int64_t t = 0; t < count; t++)
            for (int64_t i = 0; i < width; i++) {
                int64_t s = (int64_t)in[1].v[0] + t;
                if (s < 0 || s >= slots) continue;
                in[0].v[(b * slots + s) * width + i] = in[2].v[(b * count + t) * width + i];
            }
    for (int64_t i = 0; i < in[0].count; i++) out[0].v[i] = in[0].v[i];
}

#define ROWS(label, type, b, s, t, c, start)                                                       \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { { .name = "param", .dtype = type, .shape = S3(b, s, c), .stored = true },          \
                { .name = "at",                                                                    \
                  .dtype = QN_I32,                                                                 \
                  .shape = S0,                                                                     \
                  .gen = QN_GEN_INT,                                                               \
                  .lo = start,                                                                     \
                  .hi = start },                                                                   \
                { .name = "x", .dtype = type, .shape = S3(b, t, c) } },                            \
        .build = build_rows, .ref = ref_rows, .no_grad_ref = true                                  \
    }
static void fill_places(qn_ref *t)
{
    static const double places[] = { 9, -5, 2, 16, 2147483647, 5 };
    for (int64_t i = 0; i < t->count; i++) t->v[i] = places[i];
}

#define EACH(label, type, p, s, b, t, c)                                                           \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { { .name = "param", .dtype = type, .shape = S3(p, s, c), .stored = true },          \
                { .name = "at",                                                                    \
                  .dtype = QN_I32,                                                                 \
                  .shape = S1(b),                                                                  \
                  .gen = QN_GEN_CUSTOM,                                                            \
                  .fill = fill_places },                                                           \
                { .name = "x", .dtype = type, .shape = S3(b, t, c) } },                            \
        .build = build_rows, .ref = ref_rows, .no_grad_ref = true                                  \
    }
static const qn_case rows_cases[] = {
    EACH("each_2x9x6x1x7", QN_F32, 2, 9, 6, 1, 7),
    EACH("each_2x9x4x3x5", QN_F32, 2, 9, 4, 3, 5),
    EACH("each_1x12x1x3x8", QN_F32, 1, 12, 1, 3, 8),
    EACH("each_bf16_3x6x5x2x6", QN_BF16, 3, 6, 5, 2, 6),
    ROWS("1x1x1", QN_F32, 1, 1, 1, 1, 0),
    ROWS("2x9x3x7_at_4", QN_F32, 2, 9, 3, 7, 4),
    ROWS("3x8x8x12_at_0", QN_F32, 3, 8, 8, 12, 0),
    ROWS("beyond_2x9x5x5_at_6", QN_F32, 2, 9, 5, 5, 6),
    ROWS("all_beyond_2x4x3x5", QN_F32, 2, 4, 3, 5, 4),
    ROWS("far_beyond_2x4x3x5", QN_F32, 2, 4, 3, 5, 2147483647),
    ROWS("before_2x4x3x5", QN_F32, 2, 4, 3, 5, -2),
    ROWS("least_2x4x3x5", QN_F32, 2, 4, 3, 5, -2147483648.0),
    ROWS("longer_2x4x9x5", QN_F32, 2, 4, 9, 5, 1),
    ROWS("bf16_2x7x2x6_at_5", QN_BF16, 2, 7, 2, 6, 5),
    ROWS("4x128x1x256_at_100", QN_F32, 4, 128, 1, 256, 100),
};

static void refuse_rows_input(qn_graph *g)
{
    qn_assign_rows(g, leaf(g, "param", QN_F32, QN_SHAPE(1, 4, 3)), leaf(g, "at", QN_I32, QN_SCALAR),
                   leaf(g, "x", QN_F32, QN_SHAPE(1, 2, 3)));
}

static const qn_refusal rows_refusals[] = {
    { "input", QN_ERR_INVALID, "param (param) is not a tensor of a store", refuse_rows_input },
};

QN_OP_TEST(assign_rows, rows_cases, rows_refusals);
