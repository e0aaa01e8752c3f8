// Cases of cast.
#include "case.h"
#include "shapes.h"

#include <math.h>

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    out[0] = qn_cast(g, in[0], *(const qn_dtype *)c->params);
    return 1;
}

static int build_round_trip(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                            const qn_tensor **out)
{
    out[0] = qn_cast(g, qn_cast(g, in[0], *(const qn_dtype *)c->params), QN_F32);
    return 1;
}

static void ref_same(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < out[0].count; i++) out[0].v[i] = in[0].v[i];
}

// The nearest f16 or bf16, the even one of two; NaN stays NaN, what is too large becomes infinite.
static void ref_round_trip(const qn_case *c, qn_ref *in, qn_ref *out)
{
    bool half = *(const qn_dtype *)c->params == QN_F16;
    int bits = half ? 11 : 8, least = half ? -14 : -126, greatest = half ? 15 : 127;
    for (int64_t i = 0; i < out[0].count; i++) {
        double x = in[0].v[i], r = x;
        if (x != 0 && isfinite(x)) {
            int place = (ilogb(x) > least ? ilogb(x) : least) - bits + 1;
            r = ldexp(nearbyint(ldexp(x, -place)), place);
            if (fabs(r) >= ldexp(1, greatest + 1)) r = copysign(INFINITY, x);
        }
        out[0].v[i] = r;
    }
}

// Ties of both formats, with even neighbours below and above; their least and greatest numbers and
// those around them; then numbers of every magnitude.
static void fill_edges(qn_ref *t)
{
    static const double edges[] = {
        0,
        1,
        -1,
        1 + 0x1p-11,
        1 + 0x3p-11,
        1 + 0x1p-11 + 0x1p-20,
        1 + 0x1p-8,
        1 + 0x3p-8,
        -1 - 0x1p-8,
        1 + 0x1p-8 - 0x1p-20,
        65504,
        65519,
        65519.996,
        65520,
        -65520,
        1e30,
        -3.3e38,
        0x1.fep127,
        0x1.fefffep127,
        0x1.ffp127,
        0x1p-14,
        0x1p-14 - 0x1p-25,
        0x1p-24,
        0x1p-25,
        0x1.000002p-25,
        0x3p-25,
        0x5p-25,
        -0x3p-25,
        0x1p-26,
        0x3ffp-24,
        0x3ff8p-28,
        0x1p-126,
        INFINITY,
        -INFINITY,
        NAN,
        -0.0,
    };
    const int64_t known = sizeof edges / sizeof *edges;
    uint32_t state = 1;
    for (int64_t i = 0; i < t->count; i++) {
        state = state * 1664525u + 1013904223u;
        double mantissa = 1 + (double)(state >> 9) * 0x1p-23;
        int exponent = (int)(i % 60) - 30;
        t->v[i] = i < known ? edges[i] : ldexp(i % 2 ? mantissa : -mantissa, exponent);
    }
}

#define CAST(label, s, from, to)                                                                   \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .dtype = from, .shape = s } },          \
        .params = &(const qn_dtype){ to }, .build = build, .ref = ref_same                         \
    }
#define ROUND_TRIP(label, s, through)                                                              \
    {                                                                                              \
        .name = label, .inputs = 1,                                                                \
        .in = { { .name = "x", .shape = s, .gen = QN_GEN_CUSTOM, .fill = fill_edges } },           \
        .params = &(const qn_dtype){ through }, .build = build_round_trip, .ref = ref_round_trip   \
    }
// Small integers survive both formats, so rounding does not disturb the differences.
#define GRADIENT(label, s, through)                                                                \
    {                                                                                              \
        .name = label, .inputs = 1,                                                                \
        .in = { { .name = "x", .shape = s, .gen = QN_GEN_INT, .lo = -9, .hi = 9, .grad = true } }, \
        .params = &(const qn_dtype){ through }, .build = build_round_trip, .ref = ref_same         \
    }
static const qn_case cases[] = {
    CAST("f32_to_f16_1", S1(1), QN_F32, QN_F16),
    CAST("f32_to_f16_3x5", S2(3, 5), QN_F32, QN_F16),
    CAST("f32_to_bf16_7", S1(7), QN_F32, QN_BF16),
    CAST("f32_to_bf16_64x66", S2(64, 66), QN_F32, QN_BF16),
    CAST("f16_to_f32_5", S1(5), QN_F16, QN_F32),
    CAST("f16_to_f32_1027", S1(1027), QN_F16, QN_F32),
    CAST("bf16_to_f32_6", S1(6), QN_BF16, QN_F32),
    CAST("bf16_to_f32_1025", S1(1025), QN_BF16, QN_F32),
    CAST("q8_0_to_f32_32", S1(32), QN_Q8_0, QN_F32),
    CAST("q8_0_to_f32_33x96", S2(33, 96), QN_Q8_0, QN_F32),
    CAST("q4_0_to_f32_32", S1(32), QN_Q4_0, QN_F32),
    CAST("q4_0_to_f32_7x5x64", S3(7, 5, 64), QN_Q4_0, QN_F32),
    CAST("same_4", S1(4), QN_F32, QN_F32),
    ROUND_TRIP("edges_f16_1001", S1(1001), QN_F16),
    ROUND_TRIP("edges_bf16_1001", S1(1001), QN_BF16),
    GRADIENT("gradient_f16_33", S1(33), QN_F16),
    GRADIENT("gradient_bf16_9x7", S2(9, 7), QN_BF16),
    { .name = "2048x512_to_f16",
      .inputs = 1,
      .in = { { .name = "x", .shape = S2(2048, 512) } },
      .params = &(const qn_dtype){ QN_F16 },
      .build = build,
      .ref = ref_same,
      .bench = true },
    { .name = "2048x512_from_bf16",
      .inputs = 1,
      .in = { { .name = "x", .dtype = QN_BF16, .shape = S2(2048, 512) } },
      .params = &(const qn_dtype){ QN_F32 },
      .build = build,
      .ref = ref_same,
      .bench = true },
};

static void refuse_integers(qn_graph *g)
{
    qn_cast(g, qn_input(g, "x", QN_I32, QN_SHAPE(2)), QN_F32);
}

static void refuse_halves(qn_graph *g)
{
    qn_cast(g, qn_input(g, "x", QN_F16, QN_SHAPE(2)), QN_BF16);
}

static void refuse_unknown(qn_graph *g)
{
    qn_cast(g, qn_input(g, "x", QN_F32, QN_SHAPE(2)), (qn_dtype)77);
}

static const qn_refusal refusals[] = {
    { "integers", QN_ERR_INVALID, "x (x) is i32, which is not cast to f32", refuse_integers },
    { "f16 to bf16", QN_ERR_INVALID, "x (x) is f16, which is not cast to bf16", refuse_halves },
    { "unknown", QN_ERR_INVALID, "no dtype 77", refuse_unknown },
};

QN_OP_TEST(cast, cases, refusals);
