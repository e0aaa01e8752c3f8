// Cases of softmax, log_softmax, softmax_grad, cross_entropy and cross_entropy_grad.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

// exp(t) is granted 3 + 2 |t| ulp, two units of roundoff each, and |t| units for each of the two
// roundings of its argument; 16 units are for divisions and logarithms.
static double exp_units(double t)
{
    return 2 * (3 + 2 * fabs(t)) + 2 * fabs(t) + 16;
}

// The largest of a row, the sum of exp(x - largest), the largest distance between elements.
typedef struct row {
    double top, sum, range;
} row;

static row row_of(const double *x, int64_t width)
{
    row t = { .top = x[0] };
    double low = x[0];
    for (int64_t i = 0; i < width; i++) {
        t.top = fmax(t.top, x[i]);
        low = fmin(low, x[i]);
    }
    for (int64_t i = 0; i < width; i++) t.sum += exp(x[i] - t.top);
    t.range = t.top - low;
    return t;
}

// ----------------------------------------------------------------------------------- softmax

static int build_softmax(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                         const qn_tensor **out)
{
    (void)c;
    out[0] = qn_softmax(g, in[0]);
    return 1;
}

static int build_log_softmax(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                             const qn_tensor **out)
{
    (void)c;
    out[0] = qn_log_softmax(g, in[0]);
    return 1;
}

// The sum of exps is made by groups, each rescaled when its largest element grows: as often as the
// row is long, in the worst case once per sixteen elements.
static void grant(qn_ref *out, const row *t, int64_t width)
{
    out->terms = 2 * (double)width;
    out->slack = fmax(out->slack, 2 * exp_units(t->range));
}

static void ref_softmax(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t r = 0; r < in[0].count; r += width) {
        row t = row_of(in[0].v + r, width);
        for (int64_t i = r; i < r + width; i++) out[0].v[i] = exp(in[0].v[i] - t.top) / t.sum;
        grant(&out[0], &t, width);
    }
}

static void ref_log_softmax(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t r = 0; r < in[0].count; r += width) {
        row t = row_of(in[0].v + r, width);
        for (int64_t i = r; i < r + width; i++) {
            out[0].v[i] = in[0].v[i] - t.top - log(t.sum);
            // The sum's relative error is the logarithm's absolute one.
            out[0].mag[i] = fabs(in[0].v[i] - t.top) + log(t.sum) + 1;
        }
        grant(&out[0], &t, width);
    }
}

#define SOFTMAX(op, label, s, size)                                                                \
    {                                                                                              \
        .name = label, .inputs = 1,                                                                \
        .in = { { .name = "x", .shape = s, .scale = size, .grad = true } }, .build = build_##op,   \
        .ref = ref_##op                                                                            \
    }
#define SOFTMAX_CASES(op)                                                                          \
    SOFTMAX(op, "1", S1(1), 1), SOFTMAX(op, "9x1", S2(9, 1), 1), SOFTMAX(op, "5x7", S2(5, 7), 1),  \
        SOFTMAX(op, "33x64", S2(33, 64), 2), SOFTMAX(op, "3x65", S2(3, 65), 1),                    \
        SOFTMAX(op, "2x3x127", S3(2, 3, 127), 5), SOFTMAX(op, "3x1028", S2(3, 1028), 1),           \
        { .name = "wide_apart_5x9",                                                                \
          .inputs = 1,                                                                             \
          .in = { { .name = "x", .shape = S2(5, 9), .scale = 30 } },                               \
          .build = build_##op,                                                                     \
          .ref = ref_##op },                                                                       \
    {                                                                                              \
        .name = "2048x512", .inputs = 1, .in = { { .name = "x", .shape = S2(2048, 512) } },        \
        .build = build_##op, .ref = ref_##op, .bench = true                                        \
    }
static const qn_case softmax_cases[] = { SOFTMAX_CASES(softmax) };
static const qn_case log_softmax_cases[] = { SOFTMAX_CASES(log_softmax) };

static void refuse_softmax(qn_graph *g)
{
    qn_softmax(g, qn_input(g, "x", QN_I32, QN_SHAPE(3)));
}

static void refuse_log_softmax(qn_graph *g)
{
    qn_log_softmax(g, qn_input(g, "x", QN_F32, QN_SCALAR));
}

static const qn_refusal softmax_refusals[] = {
    { "dtype", QN_ERR_INVALID, "x (x) is i32, expected f32", refuse_softmax },
};
static const qn_refusal log_softmax_refusals[] = {
    { "scalar", QN_ERR_INVALID, "x (x) is a scalar", refuse_log_softmax },
};

QN_OP_TEST(softmax, softmax_cases, softmax_refusals);
QN_OP_TEST(log_softmax, log_softmax_cases, log_softmax_refusals);

// ----------------------------------------------------------------------------------- softmax_grad

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    out[0] = QN_OP1(g, &qn_op_softmax_grad, c->params, in[0], in[1]);
    return 1;
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    bool logarithm = *(const uint32_t *)c->params;
    int64_t width = qn_shape_last(in[0].shape);
    for (int64_t r = 0; r < in[0].count; r += width) {
        const double *dy = in[0].v + r, *y = in[1].v + r;
        double sum = 0, mag = 0;
        for (int64_t i = 0; i < width; i++) {
            sum += logarithm ? dy[i] : dy[i] * y[i];
            mag += fabs(logarithm ? dy[i] : dy[i] * y[i]);
        }
        for (int64_t i = 0; i < width; i++) {
            out[0].v[r + i] = logarithm ? dy[i] - exp(y[i]) * sum : y[i] * (dy[i] - sum);
            out[0].mag[r + i] =
                logarithm ? fabs(dy[i]) + exp(y[i]) * mag : fabs(y[i]) * (fabs(dy[i]) + mag);
            if (logarithm) out[0].slack = fmax(out[0].slack, exp_units(y[i]));
        }
    }
    out[0].terms = (double)width;
}

#define GRAD(label, s, logarithm)                                                                  \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "dy", .shape = s }, { .name = "y", .shape = s } },                       \
        .params = &(const uint32_t){ logarithm }, .build = build_grad, .ref = ref_grad             \
    }
static const qn_case grad_cases[] = {
    GRAD("1", S1(1), 0),          GRAD("9x5", S2(9, 5), 0),     GRAD("33x64", S2(33, 64), 0),
    GRAD("3x131", S2(3, 131), 0), GRAD("log_9x5", S2(9, 5), 1), GRAD("log_3x132", S2(3, 132), 1),
};

static void refuse_grad(qn_graph *g)
{
    QN_OP1(g, &qn_op_softmax_grad, &(uint32_t){ 0 }, qn_input(g, "dy", QN_F32, QN_SHAPE(3)),
           qn_input(g, "y", QN_F32, QN_SHAPE(1, 3)));
}

static const qn_refusal grad_refusals[] = {
    { "shape", QN_ERR_INVALID, "dy (dy) has shape [3], expected [1,3]", refuse_grad },
};

QN_OP_TEST(softmax_grad, grad_cases, grad_refusals);

// ----------------------------------------------------------------------------------- cross_entropy

static bool is_counted(double label, int64_t width)
{
    return label >= 0 && label < (double)width;
}

static int build_ce(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                    const qn_tensor **out)
{
    (void)c;
    out[0] = qn_cross_entropy(g, in[0], in[1], &out[1]);
    return 2;
}

static void ref_ce(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t rows = in[0].shape.dim[0], width = in[0].shape.dim[1], count = 0;
    double total = 0, mag = 0, slack = 0;
    for (int64_t r = 0; r < rows; r++) {
        const double *x = in[0].v + r * width, label = in[1].v[r];
        if (!is_counted(label, width)) continue;
        row t = row_of(x, width);
        out[1].v[r] = log(t.sum) - (x[(int64_t)label] - t.top);
        // The relative error of the sum is an absolute one of its logarithm.
        out[1].mag[r] = log(t.sum) + fabs(x[(int64_t)label] - t.top) + 1;
        grant(&out[1], &t, width);
        slack = fmax(slack, out[1].slack);
        total += out[1].v[r];
        mag += out[1].mag[r];
        count++;
    }
    out[0].v[0] = count ? total / (double)count : 0;
    out[0].mag[0] = count ? mag / (double)count : 0;
    out[0].terms = 2 * (double)width + (double)rows;
    out[0].slack = slack + 5;
}

static void fill_ignored(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = i % 2 ? QN_IGNORE : -1;
}

// Labels of seven classes with all that is not counted among them.
static void fill_seven(qn_ref *t)
{
    static const double labels[] = { 3, QN_IGNORE, 0, 6, 7, -1, 2147483647, -2147483648.0, 5, 2 };
    for (int64_t i = 0; i < t->count; i++) t->v[i] = labels[i % 10];
}

#define LABELS(n, ...)                                                                             \
    {                                                                                              \
        .name = "labels", .dtype = QN_I32, .shape = S1(n), __VA_ARGS__                             \
    }
#define CE(label, n, v, size, wants, ...)                                                          \
    {                                                                                              \
        .name = label, .inputs = 2,                                                                \
        .in = { { .name = "logits", .shape = S2(n, v), .scale = size, .grad = wants },             \
                LABELS(n, __VA_ARGS__) },                                                          \
        .build = build_ce, .ref = ref_ce, .no_grad_out = 1u << 1                                   \
    }
static const qn_case ce_cases[] = {
    CE("1x1", 1, 1, 1, true, .gen = QN_GEN_INT, .lo = 0, .hi = 0),
    CE("23x7", 23, 7, 1, true, .gen = QN_GEN_CUSTOM, .fill = fill_seven),
    CE("none_5x7", 5, 7, 1, true, .gen = QN_GEN_CUSTOM, .fill = fill_ignored),
    CE("9x64", 9, 64, 3, true, .gen = QN_GEN_INT, .lo = -1, .hi = 63),
    CE("9x65", 9, 65, 1, true, .gen = QN_GEN_INT, .lo = -1, .hi = 64),
    CE("131x129", 131, 129, 1, true, .gen = QN_GEN_INT, .lo = 0, .hi = 128),
    CE("8193x2", 8193, 2, 1, true, .gen = QN_GEN_INT, .lo = -1, .hi = 2),
    CE("3x50295", 3, 50295, 1, true, .gen = QN_GEN_INT, .lo = 0, .hi = 50294),
    { .name = "24x50295",
      .inputs = 2,
      .in = { { .name = "logits", .shape = S2(24, 50295) },
              LABELS(24, .gen = QN_GEN_INT, .lo = 0, .hi = 50294) },
      .build = build_ce,
      .ref = ref_ce,
      .no_grad_out = 1u << 1,
      .bench = true },
};

static const qn_tensor *logits_of(qn_graph *g)
{
    return qn_input(g, "logits", QN_F32, QN_SHAPE(4, 7));
}

static void refuse_labels_dtype(qn_graph *g)
{
    qn_cross_entropy(g, logits_of(g), qn_input(g, "labels", QN_F32, QN_SHAPE(4)), NULL);
}

static void refuse_labels_shape(qn_graph *g)
{
    qn_cross_entropy(g, logits_of(g), qn_input(g, "labels", QN_I32, QN_SHAPE(7)), NULL);
}

static void refuse_logits_rank(qn_graph *g)
{
    qn_cross_entropy(g, qn_input(g, "logits", QN_F32, QN_SHAPE(2, 2, 7)),
                     qn_input(g, "labels", QN_I32, QN_SHAPE(4)), NULL);
}

static void refuse_rows_gradient(qn_graph *g)
{
    const qn_tensor *x = logits_of(g), *rows, *grad;
    qn_wants_grad(x);
    qn_cross_entropy(g, x, qn_input(g, "labels", QN_I32, QN_SHAPE(4)), &rows);
    qn_backward(g, qn_sum_all(g, rows), NULL, &x, 1, &grad);
}

static const qn_refusal ce_refusals[] = {
    { "labels' dtype", QN_ERR_INVALID, "labels (labels) is f32, expected i32",
      refuse_labels_dtype },
    { "labels' shape", QN_ERR_INVALID, "has shape [7], expected [4]", refuse_labels_shape },
    { "logits' rank", QN_ERR_INVALID, "expected [rows, classes]", refuse_logits_rank },
    { "gradient of rows", QN_ERR_INVALID, "loss of single rows has no gradient",
      refuse_rows_gradient },
};

QN_OP_TEST(cross_entropy, ce_cases, ce_refusals);

// --------------------------------------------------------------------------- cross_entropy_grad

static int build_ce_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                         const qn_tensor **out)
{
    (void)c;
    const qn_tensor *loss = qn_cross_entropy(g, in[0], in[1], NULL);
    if (!loss) return 0;
    const qn_node *n = qn_tensor_node(loss);
    out[0] = QN_OP1(g, &qn_op_cross_entropy_grad, NULL, in[0], in[1], n->out[2], n->out[3], in[2]);
    return 1;
}

static void ref_ce_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    int64_t rows = in[0].shape.dim[0], width = in[0].shape.dim[1], count = 0;
    for (int64_t r = 0; r < rows; r++) count += is_counted(in[1].v[r], width);
    for (int64_t r = 0; r < rows; r++) {
        const double *x = in[0].v + r * width, label = in[1].v[r];
        if (!is_counted(label, width)) continue;
        row t = row_of(x, width);
        double scale = in[2].v[0] / (double)count, log_sum = t.top + log(t.sum);
        for (int64_t i = 0; i < width; i++) {
            double p = exp(x[i] - t.top) / t.sum, hit = i == (int64_t)label;
            out[0].v[r * width + i] = (p - hit) * scale;
            out[0].mag[r * width + i] = (p + hit) * fabs(scale);
        }
        grant(&out[0], &t, width);
        // log_sum is stored rounded, and exp(x - log_sum) inherits that.
        out[0].slack = fmax(out[0].slack, 2 * exp_units(t.range) + 2 * fabs(log_sum));
    }
}

#define CE_GRAD(label, n, v, ...)                                                                  \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { { .name = "logits", .shape = S2(n, v) },                                           \
                LABELS(n, __VA_ARGS__),                                                            \
                { .name = "g", .shape = S0 } },                                                    \
        .build = build_ce_grad, .ref = ref_ce_grad                                                 \
    }
static const qn_case ce_grad_cases[] = {
    CE_GRAD("23x7", 23, 7, .gen = QN_GEN_CUSTOM, .fill = fill_seven),
    CE_GRAD("none_5x7", 5, 7, .gen = QN_GEN_CUSTOM, .fill = fill_ignored),
    CE_GRAD("9x64", 9, 64, .gen = QN_GEN_INT, .lo = -1, .hi = 63),
    CE_GRAD("5x131", 5, 131, .gen = QN_GEN_INT, .lo = -1, .hi = 130),
    CE_GRAD("3x50295", 3, 50295, .gen = QN_GEN_INT, .lo = 0, .hi = 50294),
};

static void refuse_ce_grad(qn_graph *g)
{
    const qn_tensor *x = logits_of(g), *labels = qn_input(g, "labels", QN_F32, QN_SHAPE(4));
    const qn_tensor *rest = qn_input(g, "rest", QN_F32, QN_SHAPE(4));
    QN_OP1(g, &qn_op_cross_entropy_grad, NULL, x, labels, rest, rest, rest);
}

static const qn_refusal ce_grad_refusals[] = {
    { "labels' dtype", QN_ERR_INVALID, "labels (labels) is f32, expected i32", refuse_ce_grad },
};

QN_OP_TEST(cross_entropy_grad, ce_grad_cases, ce_grad_refusals);
