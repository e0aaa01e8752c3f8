// Cases of expert_matmul and expert_outer. Each makes its routing from drawn keys, one per slot.
#include "case.h"

#include <math.h>

enum { TW = 1 }; // w is [E, O, I]

typedef struct setup {
    int experts, choices, flags;
} setup;

enum { KEYS, X, W };
enum { Y = W };

static qn_routing routing_of(qn_graph *g, const setup *s, const qn_tensor *keys)
{
    qn_sorted sorted = qn_counting_sort(g, keys, s->experts);
    return (qn_routing){ .order = sorted.order, .offsets = sorted.offsets, .choices = s->choices };
}

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    qn_routing routing = routing_of(g, s, in[KEYS]);
    out[0] = qn_expert_matmul(g, in[X], in[W], &routing,
                              &(qn_expert_opts){ .transpose_w = s->flags & TW });
    return 1;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t inner = in[X].shape.dim[1], outer = out[0].shape.dim[1], slots = in[KEYS].count;
    for (int64_t a = 0; a < slots; a++)
        for (int64_t o = 0; o < outer; o++) {
            const double *x = in[X].v + a * in[X].shape.dim[0] / slots * inner;
            const double *w = in[W].v + (int64_t)in[KEYS].v[a] * inner * outer;
            double sum = 0, size = 0;
            for (int64_t i = 0; i < inner; i++) {
                double term = x[i] * w[s->flags & TW ? o * inner + i : i * outer + o];
                sum += term;
                size += fabs(term);
            }
            out[0].v[a * outer + o] = sum;
            out[0].mag[a * outer + o] = size;
        }
    out[0].terms = (double)inner;
}

static int build_outer(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                       const qn_tensor **out)
{
    qn_routing routing = routing_of(g, c->params, in[KEYS]);
    out[0] = qn_expert_outer(g, in[X], in[Y], &routing);
    return 1;
}

static void ref_outer(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t inner = in[X].shape.dim[1], outer = in[Y].shape.dim[1], slots = in[KEYS].count;
    for (int64_t i = 0; i < out[0].count; i++) out[0].v[i] = 0;
    for (int64_t a = 0; a < slots; a++) {
        const double *x = in[X].v + a * in[X].shape.dim[0] / slots * inner;
        const double *y = in[Y].v + a * in[Y].shape.dim[0] / slots * outer;
        int64_t first = (int64_t)in[KEYS].v[a] * inner * outer;
        for (int64_t i = 0; i < inner * outer; i++) {
            double term = x[i / outer] * y[i % outer];
            out[0].v[first + i] += term;
            out[0].mag[first + i] += fabs(term);
        }
    }
    out[0].terms = (double)slots;
}

static void fill_threes(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = 3;
}

static void fill_even(qn_ref *t) // odd experts stay empty
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = (double)(i * 7 % 13 % 8 * 2);
}

#define BETWEEN(high) .gen = QN_GEN_INT, .lo = 0, .hi = high
#define KEYS_OF(slots, ...)                                                                        \
    {                                                                                              \
        .name = "keys", .dtype = QN_I32, .shape = { 1, { slots } }, __VA_ARGS__                    \
    }
#define MATRIX(label, r, c, ...)                                                                   \
    {                                                                                              \
        .name = label, .shape = { 2, { r, c } }, __VA_ARGS__                                       \
    }
#define W_OF(e, i, o, flags, ...)                                                                  \
    {                                                                                              \
        .name = "w", .shape = { 3, { e, (flags)&TW ? o : i, (flags)&TW ? i : o } }, __VA_ARGS__    \
    }
#define PARAMS(e, k, flags)                                                                        \
    .inputs = 3, .params = &(const setup)                                                          \
    {                                                                                              \
        e, k, flags                                                                                \
    }
#define FORWARD .build = build, .ref = ref
#define OUTER .build = build_outer, .ref = ref_outer
// n rows of x, each with k slots, and keys drawn evenly.
#define CASE(label, n, k, e, i, o, flags)                                                          \
    {                                                                                              \
        .name = label, PARAMS(e, k, flags), FORWARD, .in = {                                       \
            KEYS_OF((n) * (k), BETWEEN((e)-1)),                                                    \
            MATRIX("x", n, i, .grad = true),                                                       \
            W_OF(e, i, o, flags, .grad = true)                                                     \
        }                                                                                          \
    }
// x has a row for every slot.
#define SLOTS(label, n, k, e, i, o, flags)                                                         \
    {                                                                                              \
        .name = label, PARAMS(e, k, flags), FORWARD, .in = {                                       \
            KEYS_OF((n) * (k), BETWEEN((e)-1)),                                                    \
            MATRIX("x", (n) * (k), i, .grad = true),                                               \
            W_OF(e, i, o, flags, .grad = true)                                                     \
        }                                                                                          \
    }
#define FILLED(label, function, n, k, e, i, o, flags)                                              \
    {                                                                                              \
        .name = label, PARAMS(e, k, flags), FORWARD, .in = {                                       \
            KEYS_OF((n) * (k), .gen = QN_GEN_CUSTOM, .fill = function),                            \
            MATRIX("x", n, i, .grad = true),                                                       \
            W_OF(e, i, o, flags, .grad = true)                                                     \
        }                                                                                          \
    }
#define HALF(label, type, n, k, e, i, o, flags)                                                    \
    {                                                                                              \
        .name = label, PARAMS(e, k, flags), FORWARD, .in = {                                       \
            KEYS_OF((n) * (k), BETWEEN((e)-1)),                                                    \
            MATRIX("x", n, i, .grad = true),                                                       \
            W_OF(e, i, o, flags, .dtype = type)                                                    \
        }                                                                                          \
    }
#define BENCH(label, n, k, e, i, o, flags)                                                         \
    {                                                                                              \
        .name = label, PARAMS(e, k, flags), FORWARD,                                               \
        .in = { KEYS_OF((n) * (k), BETWEEN((e)-1)), MATRIX("x", n, i), W_OF(e, i, o, flags) },     \
        .bench = true                                                                              \
    }

static const qn_case cases[] = {
    CASE("1x1_e1_1x1", 1, 1, 1, 1, 1, 0),
    CASE("1x2_e5_4x8", 1, 2, 5, 4, 8, 0),
    CASE("33x1_e1_16x36", 33, 1, 1, 16, 36, 0),
    CASE("40x2_e5_12x20", 40, 2, 5, 12, 20, 0),
    CASE("40x2_e5_12x20_t", 40, 2, 5, 12, 20, TW),
    CASE("7x3_e16_5x7", 7, 3, 16, 5, 7, 0),
    CASE("7x3_e16_5x7_t", 7, 3, 16, 5, 7, TW),
    CASE("100x4_e16_8x33", 100, 4, 16, 8, 33, 0),
    CASE("100x4_e16_33x8_t", 100, 4, 16, 33, 8, TW),
    CASE("130x2_e3_20x68", 130, 2, 3, 20, 68, 0),
    CASE("150x2_e40_4x4", 150, 2, 40, 4, 4, 0),
    CASE("9x2_e130_4x8", 9, 2, 130, 4, 8, 0), // more experts than a workgroup has invocations
    SLOTS("slots_20x2_e5_16x12", 20, 2, 5, 16, 12, 0),
    SLOTS("slots_20x3_e5_9x15_t", 20, 3, 5, 9, 15, TW),
    SLOTS("slots_50x4_e16_8x8", 50, 4, 16, 8, 8, 0),
    FILLED("one_for_all_33x2_e16_8x12", fill_threes, 33, 2, 16, 8, 12, 0),
    FILLED("one_for_all_65x1_e5_7x5_t", fill_threes, 65, 1, 5, 7, 5, TW),
    FILLED("one_for_all_64x1_e4_8x8", fill_threes, 64, 1, 4, 8, 8, 0), // the last, in whole tiles
    FILLED("half_empty_40x2_e16_8x12", fill_even, 40, 2, 16, 8, 12, 0),
    FILLED("half_empty_25x1_e16_3x9_t", fill_even, 25, 1, 16, 3, 9, TW),
    HALF("f16_33x2_e5_12x20", QN_F16, 33, 2, 5, 12, 20, 0),
    HALF("f16_9x2_e5_7x5_t", QN_F16, 9, 2, 5, 7, 5, TW),
    HALF("bf16_33x2_e5_12x20_t", QN_BF16, 33, 2, 5, 12, 20, TW),
    HALF("bf16_9x2_e5_7x5", QN_BF16, 9, 2, 5, 7, 5, 0),
    HALF("q8_0_9x2_e5_12x64", QN_Q8_0, 9, 2, 5, 12, 64, 0),
    HALF("q8_0_33x2_e5_32x20_t", QN_Q8_0, 33, 2, 5, 32, 20, TW),
    HALF("q8_0_1x2_e7_40x96", QN_Q8_0, 1, 2, 7, 40, 96, 0),
    HALF("q4_0_9x2_e5_13x64", QN_Q4_0, 9, 2, 5, 13, 64, 0),
    HALF("q4_0_20x1_e3_64x9_t", QN_Q4_0, 20, 1, 3, 64, 9, TW),
    HALF("q4_0_1x2_e7_40x96", QN_Q4_0, 1, 2, 7, 40, 96, 0),
    BENCH("1024x2_e16_256x512", 1024, 2, 16, 256, 512, 0),
    BENCH("1024x2_e16_512x256", 1024, 2, 16, 512, 256, 0),
    BENCH("1024x2_e16_512x256_t", 1024, 2, 16, 512, 256, TW),
    BENCH("1024x2_e16_128x256", 1024, 2, 16, 128, 256, 0),
    BENCH("2048x1_e8_64x128", 2048, 1, 8, 64, 128, 0),
    BENCH("2048x1_e8_128x64_t", 2048, 1, 8, 128, 64, TW),
    BENCH("1x2_e16_256x512", 1, 2, 16, 256, 512, 0),
};

#define OUTER_CASE(label, slots, k, x_rows, y_rows, e, i, o, keys)                                 \
    {                                                                                              \
        .name = label, PARAMS(e, k, 0), OUTER, .in = {                                             \
            KEYS_OF(slots, keys),                                                                  \
            MATRIX("x", x_rows, i),                                                                \
            MATRIX("y", y_rows, o)                                                                 \
        }                                                                                          \
    }
#define CUSTOM(function) .gen = QN_GEN_CUSTOM, .fill = function
#define OUTER_BENCH(label, n, k, e, i, o)                                                          \
    {                                                                                              \
        .name = label, PARAMS(e, k, 0), OUTER,                                                     \
        .in = { KEYS_OF((n) * (k), BETWEEN((e)-1)), MATRIX("x", n, i),                             \
                MATRIX("y", (n) * (k), o) },                                                       \
        .bench = true                                                                              \
    }

static const qn_case outer_cases[] = {
    OUTER_CASE("1_e1_1x1", 1, 1, 1, 1, 1, 1, 1, BETWEEN(0)),
    OUTER_CASE("66x2_e5_16x36", 132, 2, 66, 132, 5, 16, 36, BETWEEN(4)),
    OUTER_CASE("66x2_e5_15x37", 132, 2, 66, 132, 5, 15, 37, BETWEEN(4)),
    OUTER_CASE("30x3_shared_y_e5_8x12", 90, 3, 90, 30, 5, 8, 12, BETWEEN(4)),
    OUTER_CASE("30x3_both_shared_e5_7x9", 90, 3, 30, 30, 5, 7, 9, BETWEEN(4)),
    OUTER_CASE("one_for_all_e16_8x12", 100, 1, 100, 100, 16, 8, 12, CUSTOM(fill_threes)),
    OUTER_CASE("half_empty_e16_33x4", 100, 1, 100, 100, 16, 33, 4, CUSTOM(fill_even)),
    OUTER_CASE("5_e130_4x4", 5, 1, 5, 5, 130, 4, 4, BETWEEN(129)),
    OUTER_CASE("wide_20_e2_68x132", 20, 1, 20, 20, 2, 68, 132, BETWEEN(1)),
    // More slots than one pass sums, nearly all of one expert.
    OUTER_CASE("131080_e4_4x4", 131080, 1, 131080, 131080, 4, 4, 4, CUSTOM(fill_threes)),
    OUTER_CASE("131075_e2_3x1", 131075, 1, 131075, 131075, 2, 3, 1, BETWEEN(1)),
    OUTER_BENCH("1024x2_e16_256x512", 1024, 2, 16, 256, 512),
    OUTER_BENCH("1024x2_e16_512x256", 1024, 2, 16, 512, 256),
    OUTER_BENCH("2048x1_e8_64x128", 2048, 1, 8, 64, 128),
};

// ---------------------------------------------------------------------------------- refusals

typedef struct shapes {
    qn_shape x, w;
    int experts, choices;
    qn_dtype w_dtype;
} shapes;

// 12 slots of 2 choices.
static void attempt(qn_graph *g, const shapes *s)
{
    qn_sorted sorted = qn_counting_sort(g, qn_input(g, "keys", QN_I32, QN_SHAPE(12)), s->experts);
    qn_routing routing = { .order = sorted.order,
                           .offsets = sorted.offsets,
                           .choices = s->choices };
    qn_expert_matmul(g, qn_input(g, "x", QN_F32, s->x), qn_input(g, "w", s->w_dtype, s->w),
                     &routing, NULL);
}

static void refuse_rows(qn_graph *g)
{
    attempt(g, &(shapes){ QN_SHAPE(5, 3), QN_SHAPE(4, 3, 2), 4, 2, QN_F32 });
}

static void refuse_inner(qn_graph *g)
{
    attempt(g, &(shapes){ QN_SHAPE(6, 3), QN_SHAPE(4, 5, 2), 4, 2, QN_F32 });
}

static void refuse_experts(qn_graph *g)
{
    attempt(g, &(shapes){ QN_SHAPE(6, 3), QN_SHAPE(4, 3, 2), 5, 2, QN_F32 });
}

static void refuse_choices(qn_graph *g)
{
    attempt(g, &(shapes){ QN_SHAPE(6, 3), QN_SHAPE(4, 3, 2), 4, 5, QN_F32 });
}

static void refuse_no_choices(qn_graph *g)
{
    attempt(g, &(shapes){ QN_SHAPE(6, 3), QN_SHAPE(4, 3, 2), 4, 0, QN_F32 });
}

static void refuse_flat_w(qn_graph *g)
{
    attempt(g, &(shapes){ QN_SHAPE(6, 3), QN_SHAPE(3, 2), 4, 2, QN_F32 });
}

static void refuse_integer_w(qn_graph *g)
{
    attempt(g, &(shapes){ QN_SHAPE(6, 3), QN_SHAPE(4, 3, 2), 4, 2, QN_I32 });
}

static void refuse_no_routing(qn_graph *g)
{
    qn_expert_matmul(g, qn_input(g, "x", QN_F32, QN_SHAPE(6, 3)),
                     qn_input(g, "w", QN_F32, QN_SHAPE(4, 3, 2)), NULL, NULL);
}

static const qn_refusal refusals[] = {
    { "rows", QN_ERR_INVALID, "x (x) has shape [5,3], expected 6 rows or, one per slot, 12",
      refuse_rows },
    { "inner", QN_ERR_INVALID, "x (x) [6,3] and w (w) [4,5,2] do not fit", refuse_inner },
    { "experts", QN_ERR_INVALID, "[4,3,2], but the routing has 5 experts", refuse_experts },
    { "choices", QN_ERR_INVALID, "12 slots are no multiple of 5 choices", refuse_choices },
    { "no_choices", QN_ERR_INVALID, "no multiple of 0 choices", refuse_no_choices },
    { "flat_w", QN_ERR_INVALID, "w (w) has shape [3,2], expected [E, I, O]", refuse_flat_w },
    { "integer_w", QN_ERR_INVALID, "w (w) is i32, expected f32", refuse_integer_w },
    { "no_routing", QN_ERR_INVALID, "expert_matmul: no routing", refuse_no_routing },
};

static void attempt_outer(qn_graph *g, qn_shape y, qn_shape x)
{
    qn_sorted sorted = qn_counting_sort(g, qn_input(g, "keys", QN_I32, QN_SHAPE(12)), 4);
    qn_routing routing = { .order = sorted.order, .offsets = sorted.offsets, .choices = 2 };
    qn_expert_outer(g, qn_input(g, "x", QN_F32, x), qn_input(g, "y", QN_F32, y), &routing);
}

static void refuse_y_rows(qn_graph *g)
{
    attempt_outer(g, QN_SHAPE(7, 3), QN_SHAPE(6, 2));
}

static void refuse_x_rank(qn_graph *g)
{
    attempt_outer(g, QN_SHAPE(12, 3), QN_SHAPE(2, 3, 2));
}

static void refuse_outer_size(qn_graph *g)
{
    attempt_outer(g, QN_SHAPE(12, 1 << 15), QN_SHAPE(12, 1 << 14));
}

static const qn_refusal outer_refusals[] = {
    { "y_rows", QN_ERR_INVALID, "y (y) has shape [7,3], expected 6 rows or, one per slot, 12",
      refuse_y_rows },
    { "x_rank", QN_ERR_INVALID, "x (x) has shape [2,3,2], expected [rows, width]", refuse_x_rank },
    { "size", QN_ERR_INVALID, "expected fewer than 2^31", refuse_outer_size },
};

QN_OP_TEST(expert_matmul, cases, refusals);
QN_OP_TEST(expert_outer, outer_cases, outer_refusals);
