// Cases of add, mul, repeat, sum_of, scale and dropout. Those of activations are in activate.c.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

// ----------------------------------------------------------------------------------- add, mul

static int build_add(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                     const qn_tensor **out)
{
    (void)c;
    out[0] = qn_add(g, in[0], in[1]);
    return 1;
}

static int build_mul(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                     const qn_tensor **out)
{
    (void)c;
    out[0] = qn_mul(g, in[0], in[1]);
    return 1;
}

static void ref_add(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < out[0].count; i++) {
        double a = in[0].v[i], b = in[1].v[i % in[1].count];
        out[0].v[i] = a + b;
        out[0].mag[i] = fabs(a) + fabs(b);
    }
}

static void ref_mul(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < out[0].count; i++) out[0].v[i] = in[0].v[i] * in[1].v[i % in[1].count];
}

#define BINARY(op, label, sa, sb)                                                                  \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "a", .shape = sa, .grad = true },                                        \
                { .name = "b", .shape = sb, .grad = true } },                                      \
        .build = build_##op, .ref = ref_##op                                                       \
    }
#define BINARY_CASES(op)                                                                           \
    BINARY(op, "scalars", S0, S0), BINARY(op, "1", S1(1), S1(1)), BINARY(op, "3", S1(3), S1(3)),   \
        BINARY(op, "same_4x64", S2(4, 64), S2(4, 64)),                                             \
        BINARY(op, "same_7x11x13", S3(7, 11, 13), S3(7, 11, 13)),                                  \
        BINARY(op, "row_9x8", S2(9, 8), S1(8)), BINARY(op, "row_5x7", S2(5, 7), S1(7)),            \
        BINARY(op, "row_70x36", S2(70, 36), S1(36)), BINARY(op, "row_257x4", S2(257, 4), S1(4)),   \
        BINARY(op, "row_35x130", S2(35, 130), S1(130)),                                            \
        BINARY(op, "suffix_3x5x6", S3(3, 5, 6), S2(5, 6)),                                         \
        BINARY(op, "suffix_2x3x4x5", S4(2, 3, 4, 5), S2(4, 5)),                                    \
        BINARY(op, "scalar_17x9", S2(17, 9), S0), BINARY(op, "one_130", S1(130), S2(1, 1)),        \
        BINARY(op, "column_3x1", S2(3, 1), S1(1)),                                                 \
    {                                                                                              \
        .name = "2048x512", .inputs = 2,                                                           \
        .in = { { .name = "a", .shape = S2(2048, 512) }, { .name = "b", .shape = S1(512) } },      \
        .build = build_##op, .ref = ref_##op, .bench = true                                        \
    }

static const qn_case add_cases[] = { BINARY_CASES(add) };
static const qn_case mul_cases[] = { BINARY_CASES(mul) };

static void refuse_add_shape(qn_graph *g)
{
    qn_add(g, qn_input(g, "a", QN_F32, QN_SHAPE(2, 3)), qn_input(g, "b", QN_F32, QN_SHAPE(2)));
}

static void refuse_add_longer(qn_graph *g)
{
    qn_add(g, qn_input(g, "a", QN_F32, QN_SHAPE(3)), qn_input(g, "b", QN_F32, QN_SHAPE(2, 3)));
}

static void refuse_add_dtype(qn_graph *g)
{
    qn_add(g, qn_input(g, "a", QN_F32, QN_SHAPE(3)), qn_input(g, "b", QN_I32, QN_SHAPE(3)));
}

static void refuse_mul_shape(qn_graph *g)
{
    qn_mul(g, qn_input(g, "a", QN_F32, QN_SHAPE(2, 3)), qn_input(g, "b", QN_F32, QN_SHAPE(2, 1)));
}

static void refuse_mul_dtype(qn_graph *g)
{
    qn_mul(g, qn_input(g, "a", QN_F16, QN_SHAPE(3)), qn_input(g, "b", QN_F32, QN_SHAPE(3)));
}

static const qn_refusal add_refusals[] = {
    { "no suffix", QN_ERR_INVALID, "b (b) has shape [2], expected [2,3], a suffix",
      refuse_add_shape },
    { "b longer", QN_ERR_INVALID, "b (b) has shape [2,3], expected [3]", refuse_add_longer },
    { "dtype", QN_ERR_INVALID, "b (b) is i32, expected f32", refuse_add_dtype },
};
static const qn_refusal mul_refusals[] = {
    { "column", QN_ERR_INVALID, "b (b) has shape [2,1], expected [2,3]", refuse_mul_shape },
    { "dtype", QN_ERR_INVALID, "a (a) is f16, expected f32", refuse_mul_dtype },
};

QN_OP_TEST(add, add_cases, add_refusals);
QN_OP_TEST(mul, mul_cases, mul_refusals);

// ----------------------------------------------------------------------------------- repeat

static int build_repeat(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    out[0] = QN_OP1(g, &qn_op_repeat, c->params, in[0]);
    return 1;
}

static void ref_repeat(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    for (int64_t i = 0; i < out[0].count; i++) out[0].v[i] = in[0].v[i % in[0].count];
}

#define REPEAT(label, from, to)                                                                    \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = from } },                      \
        .params = &(const qn_shape)to, .build = build_repeat, .ref = ref_repeat                    \
    }
static const qn_case repeat_cases[] = {
    REPEAT("scalar_to_301", S0, S1(301)),    REPEAT("7_to_5x7", S1(7), S2(5, 7)),
    REPEAT("64_to_3x64", S1(64), S2(3, 64)), REPEAT("5x8_to_2x5x8", S2(5, 8), S3(2, 5, 8)),
    REPEAT("3_to_1x3", S1(3), S2(1, 3)),
};

static void refuse_repeat(qn_graph *g)
{
    QN_OP1(g, &qn_op_repeat, &QN_SHAPE(5), qn_input(g, "x", QN_F32, QN_SHAPE(2)));
}

static const qn_refusal repeat_refusals[] = {
    { "no divisor", QN_ERR_INVALID, "shape [2], which does not divide [5]", refuse_repeat },
};

QN_OP_TEST(repeat, repeat_cases, repeat_refusals);

// ----------------------------------------------------------------------------------- sum_of

static int build_sum_of(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    out[0] = qn_sum_of(g, in, c->inputs);
    return 1;
}

static void ref_sum_of(const qn_case *c, qn_ref *in, qn_ref *out)
{
    for (int k = 0; k < c->inputs; k++)
        for (int64_t i = 0; i < out[0].count; i++) {
            out[0].v[i] += in[k].v[i];
            out[0].mag[i] += fabs(in[k].v[i]);
        }
    out[0].terms = c->inputs;
}

#define SUM_OF(label, count, s)                                                                    \
    {                                                                                              \
        .name = label, .inputs = count, .in = { { .name = "x0", .shape = s, .grad = true },        \
                                                { .name = "x1", .shape = s, .grad = true },        \
                                                { .name = "x2", .shape = s, .grad = true },        \
                                                { .name = "x3", .shape = s, .grad = true },        \
                                                { .name = "x4", .shape = s, .grad = true },        \
                                                { .name = "x5", .shape = s, .grad = true },        \
                                                { .name = "x6", .shape = s, .grad = true },        \
                                                { .name = "x7", .shape = s, .grad = true } },      \
        .build = build_sum_of, .ref = ref_sum_of                                                   \
    }
static const qn_case sum_of_cases[] = {
    SUM_OF("1_of_5", 1, S1(5)),      SUM_OF("2_of_3x64", 2, S2(3, 64)),
    SUM_OF("3_of_7x9", 3, S2(7, 9)), SUM_OF("5_of_scalars", 5, S0),
    SUM_OF("7_of_1", 7, S1(1)),      SUM_OF("8_of_1031", 8, S1(1031)),
};

static void refuse_sum_of_none(qn_graph *g)
{
    qn_sum_of(g, NULL, 0);
}

static void refuse_sum_of_nine(qn_graph *g)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(2));
    const qn_tensor *all[] = { x, x, x, x, x, x, x, x, x };
    qn_sum_of(g, all, 9);
}

static void refuse_sum_of_shapes(qn_graph *g)
{
    const qn_tensor *x[] = { qn_input(g, "x", QN_F32, QN_SHAPE(2)),
                             qn_input(g, "y", QN_F32, QN_SHAPE(3)) };
    qn_sum_of(g, x, 2);
}

static const qn_refusal sum_of_refusals[] = {
    { "none", QN_ERR_INVALID, "0 terms, expected 1 to 8", refuse_sum_of_none },
    { "nine", QN_ERR_INVALID, "9 terms, expected 1 to 8", refuse_sum_of_nine },
    { "shapes", QN_ERR_INVALID, "(y) has shape [3], expected [2]", refuse_sum_of_shapes },
};

QN_OP_TEST(sum_of, sum_of_cases, sum_of_refusals);

// ----------------------------------------------------------------------------------- scale

static int build_scale(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                       const qn_tensor **out)
{
    const float *by = c->params;
    out[0] = qn_scale(g, in[0], by[0], by[1]);
    return 1;
}

static void ref_scale(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const float *by = c->params;
    for (int64_t i = 0; i < out[0].count; i++) {
        out[0].v[i] = (double)by[0] * in[0].v[i] + (double)by[1];
        out[0].mag[i] = fabs((double)by[0] * in[0].v[i]) + fabs((double)by[1]);
    }
}

#define SCALE(label, s, factor, offset)                                                            \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { { .name = "x", .shape = s, .grad = true } },           \
        .params = (const float[]){ factor, offset }, .build = build_scale, .ref = ref_scale        \
    }
static const qn_case scale_cases[] = {
    SCALE("scalar", S0, 3, 0),
    SCALE("5", S1(5), -0.7f, 1.25f),
    SCALE("zero_7x3", S2(7, 3), 0, 2),
    SCALE("1023", S1(1023), 1e-3f, 0),
    SCALE("16x65", S2(16, 65), 1.5f, -8),
    { .name = "2048x512",
      .inputs = 1,
      .in = { { .name = "x", .shape = S2(2048, 512) } },
      .params = (const float[]){ 2, 1 },
      .build = build_scale,
      .ref = ref_scale,
      .bench = true },
};

static void refuse_scale_dtype(qn_graph *g)
{
    qn_scale(g, qn_input(g, "x", QN_I32, QN_SHAPE(2)), 2, 0);
}

static const qn_refusal scale_refusals[] = {
    { "dtype", QN_ERR_INVALID, "x (x) is i32, expected f32", refuse_scale_dtype },
};

QN_OP_TEST(scale, scale_cases, scale_refusals);

// ----------------------------------------------------------------------------------- dropout

typedef struct dropout_setup {
    float p;
    uint32_t stream;
} dropout_setup;

// Philox 4x32-10 after its publication, in 64-bit arithmetic.
static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = { counter[0], counter[1], counter[2], counter[3] }, k[2] = { key[0], key[1] };
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * c[0], q = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = { (uint32_t)(q >> 32) ^ c[1] ^ k[0], (uint32_t)q,
                             (uint32_t)(p >> 32) ^ c[3] ^ k[1], (uint32_t)p };
        for (int i = 0; i < 4; i++) c[i] = next[i];
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

// Does the generator above give the published words for counter and key zero?
static bool philox_is_right(void)
{
    static const uint32_t zero[4],
        published[4] = { 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u };
    uint32_t words[4];
    philox(zero, zero, words);
    for (int i = 0; i < 4; i++)
        if (words[i] != published[i]) return false;
    return true;
}

static int build_dropout(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                         const qn_tensor **out)
{
    const dropout_setup *s = c->params;
    out[0] = qn_dropout(g, in[0], in[1], s->p, s->stream);
    return 1;
}

static void ref_dropout(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const dropout_setup *s = c->params;
    double threshold = (double)s->p * 4294967296.0;
    bool right = philox_is_right();
    int64_t dropped = 0;
    for (int64_t i = 0; i < out[0].count; i++) {
        uint32_t words[4], key[2] = { (uint32_t)(int32_t)in[1].v[0], s->stream };
        philox((const uint32_t[4]){ (uint32_t)(i / 4) }, key, words);
        bool drop = words[i % 4] < (uint32_t)threshold;
        dropped += drop;
        out[0].v[i] = drop ? 0 : in[0].v[i] / (1 - (double)s->p);
    }
    // A binomial count stays within six deviations of its mean.
    double mean = (double)out[0].count * (double)s->p, deviation = sqrt(mean * (1 - (double)s->p));
    if (!right || fabs((double)dropped - mean) > 6 * deviation + 1) out[0].v[0] = NAN;
}

static void fill_seed_7(qn_ref *t)
{
    t->v[0] = 7;
}
static void fill_seed_negative(qn_ref *t)
{
    t->v[0] = -123456789;
}

#define DROPOUT(label, s, seed_fill, p_, stream_)                                                  \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "x", .shape = s, .grad = true },                                         \
                { .name = "seed",                                                                  \
                  .dtype = QN_I32,                                                                 \
                  .shape = S0,                                                                     \
                  .gen = QN_GEN_CUSTOM,                                                            \
                  .fill = seed_fill } },                                                           \
        .params = &(const dropout_setup){ .p = p_, .stream = stream_ }, .build = build_dropout,    \
        .ref = ref_dropout                                                                         \
    }
static const qn_case dropout_cases[] = {
    DROPOUT("1_p0", S1(1), fill_seed_7, 0, 0),
    DROPOUT("33_p50", S1(33), fill_seed_7, 0.5f, 0),
    DROPOUT("33_p50_stream1", S1(33), fill_seed_7, 0.5f, 1),
    DROPOUT("9x130_p10", S2(9, 130), fill_seed_negative, 0.1f, 0xffffffffu),
    DROPOUT("64x65_p99", S2(64, 65), fill_seed_7, 0.99f, 3),
    { .name = "2048x512",
      .inputs = 2,
      .in = { { .name = "x", .shape = S2(2048, 512) },
              { .name = "seed",
                .dtype = QN_I32,
                .shape = S0,
                .gen = QN_GEN_CUSTOM,
                .fill = fill_seed_7 } },
      .params = &(const dropout_setup){ .p = 0.1f },
      .build = build_dropout,
      .ref = ref_dropout,
      .bench = true },
};

static const qn_tensor *some_x(qn_graph *g)
{
    return qn_input(g, "x", QN_F32, QN_SHAPE(4));
}

static void refuse_dropout_one(qn_graph *g)
{
    qn_dropout(g, some_x(g), qn_input(g, "seed", QN_I32, QN_SCALAR), 1, 0);
}

static void refuse_dropout_nan(qn_graph *g)
{
    qn_dropout(g, some_x(g), qn_input(g, "seed", QN_I32, QN_SCALAR), NAN, 0);
}

static void refuse_dropout_seed(qn_graph *g)
{
    qn_dropout(g, some_x(g), qn_input(g, "seed", QN_F32, QN_SCALAR), 0.5f, 0);
}

static void refuse_dropout_seeds(qn_graph *g)
{
    qn_dropout(g, some_x(g), qn_input(g, "seed", QN_I32, QN_SHAPE(2)), 0.5f, 0);
}

static const qn_refusal dropout_refusals[] = {
    { "p 1", QN_ERR_INVALID, "p is 1, expected 0 <= p < 1", refuse_dropout_one },
    { "p NaN", QN_ERR_INVALID, "expected 0 <= p < 1", refuse_dropout_nan },
    { "f32 seed", QN_ERR_INVALID, "seed (seed) is f32, expected i32", refuse_dropout_seed },
    { "two seeds", QN_ERR_INVALID, "seed (seed) has shape [2], expected []", refuse_dropout_seeds },
};

QN_OP_TEST(dropout, dropout_cases, dropout_refusals);
