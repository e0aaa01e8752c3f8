// Cases of embedding and embedding_grad.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    (void)c;
    out[0] = qn_embedding(g, in[0], in[1]);
    return 1;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t rows = in[0].shape.dim[0], width = in[0].shape.dim[1];
    for (int64_t p = 0; p < in[1].count; p++) {
        double id = in[1].v[p];
        if (id < 0 || id >= (double)rows) continue;
        for (int64_t i = 0; i < width; i++)
            out[0].v[p * width + i] = in[0].v[(int64_t)id * width + i];
    }
    // The gradient to a row sums over the positions that hold its id.
    out[0].terms = (double)in[1].count;
}

static void fill_outside(qn_ref *t)
{
    static const double ids[] = { -1, 2, 5, 4, -2147483648.0, 2147483647, 0, 2 };
    for (int64_t i = 0; i < t->count; i++) t->v[i] = ids[i % 8];
}

#define IDS(s, ...)                                                                                \
    {                                                                                              \
        .name = "ids", .dtype = QN_I32, .shape = s, __VA_ARGS__                                    \
    }
#define EMBEDDING(label, v, c, s, ...)                                                             \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "table", .shape = S2(v, c), .grad = true }, IDS(s, __VA_ARGS__) },       \
        .build = build, .ref = ref                                                                 \
    }
static const qn_case cases[] = {
    EMBEDDING("1x1_of_1", 1, 1, S1(1), .gen = QN_GEN_INT, .lo = 0, .hi = 0),
    EMBEDDING("5x8_of_11", 5, 8, S1(11), .gen = QN_GEN_INT, .lo = 0, .hi = 4),
    EMBEDDING("5x7_outside", 5, 7, S2(3, 5), .gen = QN_GEN_CUSTOM, .fill = fill_outside),
    EMBEDDING("5x12_outside", 5, 12, S1(9), .gen = QN_GEN_CUSTOM, .fill = fill_outside),
    EMBEDDING("scalar_id", 3, 4, S0, .gen = QN_GEN_INT, .lo = 2, .hi = 2),
    EMBEDDING("one_for_all", 9, 20, S1(131), .gen = QN_GEN_INT, .lo = 6, .hi = 6),
    EMBEDDING("33x130", 33, 130, S3(2, 3, 7), .gen = QN_GEN_INT, .lo = 0, .hi = 32),
    EMBEDDING("70x65", 70, 65, S1(40), .gen = QN_GEN_INT, .lo = 0, .hi = 69),
    EMBEDDING("300x3", 300, 3, S1(100), .gen = QN_GEN_INT, .lo = 0, .hi = 299),
    { .name = "10007x512_of_2048",
      .inputs = 2,
      .in = { { .name = "table", .shape = S2(10007, 512) },
              IDS(S1(2048), .gen = QN_GEN_INT, .lo = 0, .hi = 10006) },
      .build = build,
      .ref = ref,
      .bench = true },
};

static void refuse_ids(qn_graph *g)
{
    qn_embedding(g, qn_input(g, "table", QN_F32, QN_SHAPE(5, 4)),
                 qn_input(g, "ids", QN_F32, QN_SHAPE(3)));
}

static void refuse_table(qn_graph *g)
{
    qn_embedding(g, qn_input(g, "table", QN_F32, QN_SHAPE(5)),
                 qn_input(g, "ids", QN_I32, QN_SHAPE(3)));
}

static void refuse_rank(qn_graph *g)
{
    qn_embedding(g, qn_input(g, "table", QN_F32, QN_SHAPE(5, 4)),
                 qn_input(g, "ids", QN_I32, QN_SHAPE(1, 1, 1, 3)));
}

static const qn_refusal refusals[] = {
    { "ids", QN_ERR_INVALID, "ids (ids) is f32, expected i32", refuse_ids },
    { "table", QN_ERR_INVALID, "table (table) has shape [5], expected [rows, width]",
      refuse_table },
    { "rank", QN_ERR_INVALID, "expected at most 3 dimensions", refuse_rank },
};

QN_OP_TEST(embedding, cases, refusals);

// ------------------------------------------------------------------------------- embedding_grad

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    qn_sorted sorted = qn_counting_sort(g, in[1], *(const int *)c->params);
    out[0] = QN_OP1(g, &qn_op_embedding_grad, NULL, in[0], in[1], sorted.order, sorted.offsets);
    return 1;
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    int rows = *(const int *)c->params;
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t p = 0; p < in[1].count; p++) {
        double id = in[1].v[p];
        if (id < 0 || id >= rows) continue;
        for (int64_t i = 0; i < width; i++) {
            out[0].v[(int64_t)id * width + i] += in[0].v[p * width + i];
            out[0].mag[(int64_t)id * width + i] += fabs(in[0].v[p * width + i]);
        }
    }
    out[0].terms = (double)in[1].count;
}

#define GRAD(label, v, n, c, ...)                                                                  \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "dy", .shape = S2(n, c) }, IDS(S1(n), __VA_ARGS__) },                    \
        .params = &(const int){ v }, .build = build_grad, .ref = ref_grad                          \
    }
static const qn_case grad_cases[] = {
    GRAD("5x7", 5, 9, 7, .gen = QN_GEN_CUSTOM, .fill = fill_outside),
    GRAD("70x36", 70, 33, 36, .gen = QN_GEN_INT, .lo = 0, .hi = 69),
    GRAD("one_for_all_3x260", 3, 100, 260, .gen = QN_GEN_INT, .lo = 1, .hi = 1),
    // More positions than one dispatch sums: nearly all have one id.
    GRAD("parts_2x4", 2, 100100, 4, .gen = QN_GEN_INT, .lo = 1, .hi = 1),
    GRAD("parts_7x3", 7, 60001, 3, .gen = QN_GEN_INT, .lo = -1, .hi = 7),
};

static void refuse_grad(qn_graph *g)
{
    QN_OP1(g, &qn_op_embedding_grad, NULL, qn_input(g, "dy", QN_F32, QN_SHAPE(3, 4)),
           qn_input(g, "ids", QN_I32, QN_SHAPE(3)), qn_input(g, "order", QN_I32, QN_SHAPE(4)),
           qn_input(g, "offsets", QN_I32, QN_SHAPE(6)));
}

static const qn_refusal grad_refusals[] = {
    { "order", QN_ERR_INVALID, "order (order) has shape [4], expected [3]", refuse_grad },
};

QN_OP_TEST(embedding_grad, grad_cases, grad_refusals);
