// Elementwise operations: add, mul, repeat, sum_of, scale, activate, dropout. cast: cast.c.
#include "passes.h"

#include "args.h"
#include "args/binary.h"
#include "args/dropout.h"
#include "args/scale.h"

#include <math.h>

static uint64_t count_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_count(t->shape);
}

// ------------------------------------------------------------------------------- add, mul, repeat

enum { ADD = 0, MUL, REPEAT };      // binary.comp: OP
enum { SAME = 0, ROW4, ROW1, ONE }; // binary.comp: MODE

static int mode_of(uint64_t count, uint64_t period)
{
    if (period == count) return SAME;
    if (period == 1) return ONE;
    return period % 4 ? ROW1 : ROW4;
}

static qn_result record_binary(qn_recorder *r, const qn_node *n, const qn_tensor *x,
                               const qn_tensor *b, uint32_t op)
{
    uint64_t count = count_of(n->out[0]), period = count_of(b);
    int mode = mode_of(count, period);
    binary_args args = { .period = (u32)period };
    qn_part parts[] = { qn_f32(x), mode == SAME ? qn_f32(b) : qn_whole(b), qn_f32(n->out[0]) };
    return qn_record_each(r,
                          &(qn_dispatch){ .kernel = QN_K_binary,
                                          .args = &args,
                                          .args_size = sizeof args,
                                          .constants = { op, (uint32_t)mode } },
                          parts, 3, count);
}

// b may be a suffix of a: it is read again and again, so it has to fit one binding.
static qn_result infer_binary(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    qn_shape a = n->in[0]->shape, b = n->in[1]->shape;
    QN_TRY(qn_expect_f32(n, 0, "a"));
    QN_TRY(qn_expect_f32(n, 1, "b"));
    bool suffix = b.rank <= a.rank;
    for (int i = 0; suffix && i < b.rank; i++) suffix = b.dim[i] == a.dim[a.rank - b.rank + i];
    if (!suffix && qn_shape_count(b) != 1) {
        char at[QN_SHAPE_TEXT], bt[QN_SHAPE_TEXT];
        return qn_refuse(n, "b (%s) has shape %s, expected %s, a suffix of it or a scalar",
                         n->in[1]->name, qn_shape_format(b, bt), qn_shape_format(a, at));
    }
    if (count_of(n->in[1]) < count_of(n->in[0]) && count_of(n->in[1]) * 4 > dev->max_binding)
        return qn_refuse(n, "b (%s) has more than the %llu bytes that this device can bind",
                         n->in[1]->name, (unsigned long long)dev->max_binding);
    shape[0] = a;
    dtype[0] = QN_F32;
    return QN_OK;
}

// The gradient to b: dy summed over what b was repeated along.
static const qn_tensor *sum_to(qn_graph *g, const qn_tensor *dy, qn_shape to)
{
    int64_t count = qn_shape_count(to), repeats = dy ? qn_shape_count(dy->shape) / count : 0;
    if (repeats == 1) return qn_reshape(g, dy, to);
    if (count == 1) return qn_reshape(g, qn_sum_all(g, dy), to);
    return qn_reshape(g, qn_sum_rows(g, qn_reshape(g, dy, QN_SHAPE(repeats, count))), to);
}

static qn_result backward_add(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                              const bool *want, const qn_tensor **gin)
{
    if (want[0]) gin[0] = gout[0];
    if (want[1]) gin[1] = sum_to(g, gout[0], n->in[1]->shape);
    return QN_OK;
}

static qn_result backward_mul(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                              const bool *want, const qn_tensor **gin)
{
    if (want[0]) gin[0] = qn_mul(g, gout[0], n->in[1]);
    if (want[1]) gin[1] = sum_to(g, qn_mul(g, gout[0], n->in[0]), n->in[1]->shape);
    return QN_OK;
}

static qn_result record_add(qn_recorder *r, const qn_node *n)
{
    return record_binary(r, n, n->in[0], n->in[1], ADD);
}

static qn_result record_mul(qn_recorder *r, const qn_node *n)
{
    return record_binary(r, n, n->in[0], n->in[1], MUL);
}

const qn_op_def qn_op_add = {
    .name = "add",
    .inputs = 2,
    .outputs = 1,
    .infer = infer_binary,
    .backward = backward_add,
    .record = record_add,
    .inplace = 3,
};

const qn_op_def qn_op_mul = {
    .name = "mul",
    .inputs = 2,
    .outputs = 1,
    .infer = infer_binary,
    .backward = backward_mul,
    .record = record_mul,
    .inplace = 3,
};

const qn_tensor *qn_add(qn_graph *g, const qn_tensor *a, const qn_tensor *b)
{
    return a && b ? QN_OP1(g, &qn_op_add, NULL, a, b) : NULL;
}

const qn_tensor *qn_mul(qn_graph *g, const qn_tensor *a, const qn_tensor *b)
{
    return a && b ? QN_OP1(g, &qn_op_mul, NULL, a, b) : NULL;
}

// repeat: y[.., c] = x[c], the gradient of sums; attrs is the shape of y, of which x is a suffix.
static qn_result infer_repeat(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    (void)dev;
    const qn_shape *to = n->attrs;
    QN_TRY(qn_expect_f32(n, 0, "x"));
    if (qn_shape_count(*to) % qn_shape_count(n->in[0]->shape)) {
        char xt[QN_SHAPE_TEXT], yt[QN_SHAPE_TEXT];
        return qn_refuse(n, "x (%s) has shape %s, which does not divide %s", n->in[0]->name,
                         qn_shape_format(n->in[0]->shape, xt), qn_shape_format(*to, yt));
    }
    shape[0] = *to;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_repeat(qn_recorder *r, const qn_node *n)
{
    return record_binary(r, n, NULL, n->in[0], REPEAT);
}

const qn_op_def qn_op_repeat = {
    .name = "repeat",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(qn_shape),
    .infer = infer_repeat,
    .record = record_repeat,
};

// ------------------------------------------------------------------------------- sum_of

enum { MOST_TERMS = 8 };

static int terms_of(const qn_node *n)
{
    int count = 0;
    while (count < n->inputs && n->in[count]) count++;
    return count;
}

static qn_result infer_sum_of(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    (void)dev;
    for (int i = 0; i < terms_of(n); i++) {
        QN_TRY(qn_expect_f32(n, i, "a term"));
        QN_TRY(qn_expect_shape(n, i, "a term", n->in[0]->shape));
    }
    shape[0] = n->in[0]->shape;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result backward_sum_of(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                 const bool *want, const qn_tensor **gin)
{
    (void)g;
    for (int i = 0; i < terms_of(n); i++)
        if (want[i]) gin[i] = gout[0];
    return QN_OK;
}

static qn_result record_sum_of(qn_recorder *r, const qn_node *n)
{
    qn_part parts[MOST_TERMS + 1];
    for (int i = 0; i < MOST_TERMS; i++) parts[i] = qn_f32(n->in[i]);
    parts[MOST_TERMS] = qn_f32(n->out[0]);
    return qn_record_each(
        r, &(qn_dispatch){ .kernel = QN_K_sum_of, .constants = { (uint32_t)terms_of(n) } }, parts,
        MOST_TERMS + 1, count_of(n->out[0]));
}

const qn_op_def qn_op_sum_of = {
    .name = "sum_of",
    .inputs = MOST_TERMS,
    .outputs = 1,
    .infer = infer_sum_of,
    .backward = backward_sum_of,
    .record = record_sum_of,
    .inplace = 0xff,
};

const qn_tensor *qn_sum_of(qn_graph *g, const qn_tensor *const *x, int count)
{
    const qn_tensor *in[QN_MAX_INPUTS] = { 0 };
    if (count < 1 || count > MOST_TERMS)
        return qn_graph_fail(
            g, qn_fail(QN_ERR_INVALID, "sum_of: %d terms, expected 1 to %d", count, MOST_TERMS));
    for (int i = 0; i < count; i++) {
        if (!x[i]) return NULL;
        in[i] = x[i];
    }
    return qn_op(g, &qn_op_sum_of, NULL, in, NULL);
}

// ------------------------------------------------------------------------------- scale

typedef struct scale_attrs {
    float factor, offset;
} scale_attrs;

static qn_result infer_same(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(qn_expect_f32(n, 0, "x"));
    shape[0] = n->in[0]->shape;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result backward_scale(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                const bool *want, const qn_tensor **gin)
{
    const scale_attrs *attrs = n->attrs;
    if (want[0]) gin[0] = qn_scale(g, gout[0], attrs->factor, 0);
    return QN_OK;
}

static qn_result record_scale(qn_recorder *r, const qn_node *n)
{
    const scale_attrs *attrs = n->attrs;
    scale_args args = { .factor = attrs->factor, .offset = attrs->offset };
    return qn_record_each(
        r, &(qn_dispatch){ .kernel = QN_K_scale, .args = &args, .args_size = sizeof args },
        (qn_part[]){ qn_f32(n->in[0]), qn_f32(n->out[0]) }, 2, count_of(n->out[0]));
}

const qn_op_def qn_op_scale = {
    .name = "scale",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(scale_attrs),
    .infer = infer_same,
    .backward = backward_scale,
    .record = record_scale,
    .inplace = 1,
};

const qn_tensor *qn_scale(qn_graph *g, const qn_tensor *x, float factor, float offset)
{
    return x ? QN_OP1(g, &qn_op_scale, (&(scale_attrs){ factor, offset }), x) : NULL;
}

// ------------------------------------------------------------------------------- activate

static const char *const activation_names[QN_ACTIVATION_COUNT] = {
    [QN_IDENTITY] = "identity", [QN_GELU_TANH] = "gelu_tanh",
    [QN_GELU_ERF] = "gelu_erf", [QN_SILU] = "silu",
    [QN_RELU] = "relu",         [QN_TANH] = "tanh",
    [QN_SIGMOID] = "sigmoid",   [QN_EXP] = "exp",
    [QN_LOG] = "log",
};

const char *qn_activation_name(qn_activation a)
{
    return (unsigned)a < QN_ACTIVATION_COUNT ? activation_names[a] : "unknown";
}

static qn_result backward_activate(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                   const bool *want, const qn_tensor **gin)
{
    if (want[0]) gin[0] = QN_OP1(g, &qn_op_activate_grad, n->attrs, gout[0], n->in[0]);
    return QN_OK;
}

static qn_result record_activate(qn_recorder *r, const qn_node *n)
{
    return qn_record_each(
        r, &(qn_dispatch){ .kernel = QN_K_activate, .constants = { *(const uint32_t *)n->attrs } },
        (qn_part[]){ qn_f32(n->in[0]), qn_f32(n->out[0]) }, 2, count_of(n->out[0]));
}

const qn_op_def qn_op_activate = {
    .name = "activate",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(uint32_t),
    .infer = infer_same,
    .backward = backward_activate,
    .record = record_activate,
    .inplace = 1,
};

static qn_result infer_activate_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                                     qn_dtype *dtype)
{
    QN_TRY(qn_expect_f32(n, 1, "x"));
    QN_TRY(qn_expect_shape(n, 1, "x", n->in[0]->shape));
    return infer_same(n, dev, shape, dtype);
}

static qn_result record_activate_grad(qn_recorder *r, const qn_node *n)
{
    return qn_record_each(r,
                          &(qn_dispatch){ .kernel = QN_K_activate_grad,
                                          .constants = { *(const uint32_t *)n->attrs } },
                          (qn_part[]){ qn_f32(n->in[0]), qn_f32(n->in[1]), qn_f32(n->out[0]) }, 3,
                          count_of(n->out[0]));
}

const qn_op_def qn_op_activate_grad = {
    .name = "activate_grad",
    .inputs = 2,
    .outputs = 1,
    .attrs_size = sizeof(uint32_t),
    .infer = infer_activate_grad,
    .record = record_activate_grad,
    .inplace = 3,
};

const qn_tensor *qn_activate(qn_graph *g, const qn_tensor *x, qn_activation a)
{
    if (!x) return NULL;
    if ((unsigned)a >= QN_ACTIVATION_COUNT)
        return qn_graph_fail(g, qn_fail(QN_ERR_INVALID, "activate: no activation %d", (int)a));
    if (a == QN_IDENTITY) return x;
    return QN_OP1(g, &qn_op_activate, &(uint32_t){ a }, x);
}

// ------------------------------------------------------------------------------- dropout

typedef struct dropout_attrs {
    float p;
    uint32_t stream;
} dropout_attrs;

static qn_result infer_dropout(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                               qn_dtype *dtype)
{
    const dropout_attrs *attrs = n->attrs;
    QN_TRY(qn_expect_dtype(n, 1, "seed", QN_I32));
    if (qn_shape_count(n->in[1]->shape) != 1) QN_TRY(qn_expect_shape(n, 1, "seed", QN_SCALAR));
    if (!(attrs->p >= 0 && attrs->p < 1))
        return qn_refuse(n, "p is %g, expected 0 <= p < 1", (double)attrs->p);
    return infer_same(n, dev, shape, dtype);
}

static qn_result backward_dropout(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                  const bool *want, const qn_tensor **gin)
{
    if (want[0]) gin[0] = QN_OP1(g, &qn_op_dropout, n->attrs, gout[0], n->in[1]);
    return QN_OK;
}

static qn_result record_dropout(qn_recorder *r, const qn_node *n)
{
    const dropout_attrs *attrs = n->attrs;
    dropout_args args = {
        .stream = attrs->stream,
        .threshold = (u32)floor((double)attrs->p * 4294967296.0), // below 2^32, as p is a float
        .factor = (f32)(1 / (1 - (double)attrs->p)),
    };
    return qn_record_each(
        r, &(qn_dispatch){ .kernel = QN_K_dropout, .args = &args, .args_size = sizeof args },
        (qn_part[]){ qn_f32(n->in[0]), qn_whole(n->in[1]), qn_f32(n->out[0]) }, 3,
        count_of(n->out[0]));
}

const qn_op_def qn_op_dropout = {
    .name = "dropout",
    .reference = "philox",
    .inputs = 2,
    .outputs = 1,
    .attrs_size = sizeof(dropout_attrs),
    .infer = infer_dropout,
    .backward = backward_dropout,
    .record = record_dropout,
    .inplace = 1,
};

const qn_tensor *qn_dropout(qn_graph *g, const qn_tensor *x, const qn_tensor *seed, float p,
                            uint32_t stream)
{
    if (!x || !seed) return NULL;
    if (p == 0) return x;
    return QN_OP1(g, &qn_op_dropout, (&(dropout_attrs){ p, stream }), x, seed);
}
