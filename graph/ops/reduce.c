// Sums, means, largest values, and shapes: reduce, spread, argmax, sum_rows, sum_all, sum_squares,
// reshape.
#include "passes.h"

#include "args.h"
#include "args/spread.h"

static qn_shape without_last(qn_shape s)
{
    s.dim[--s.rank] = 0;
    return s;
}

static uint64_t rows_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_rows(t->shape);
}

static uint64_t width_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_last(t->shape);
}

// ------------------------------------------------------------------------------- reduce

static qn_result infer_reduce(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    (void)dev;
    uint32_t kind = *(const uint32_t *)n->attrs;
    if (kind > QN_MAX) return qn_refuse(n, "no reduction %u", kind);
    QN_TRY(qn_expect_rows(n, 0, "x"));
    shape[0] = without_last(n->in[0]->shape);
    dtype[0] = QN_F32;
    return QN_OK;
}

// spread: y[.., c] = factor x[..]: the gradient of sums and means of rows.
typedef struct spread_attrs {
    float factor;
    uint32_t width;
} spread_attrs;

static qn_result backward_reduce(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                 const bool *want, const qn_tensor **gin)
{
    uint32_t kind = *(const uint32_t *)n->attrs, width = (uint32_t)width_of(n->in[0]);
    if (!want[0]) return QN_OK;
    if (kind == QN_MAX) return qn_refuse(n, "a largest value has no gradient, but one is wanted");
    spread_attrs attrs = { kind == QN_MEAN ? 1.0f / (float)width : 1, width };
    gin[0] = QN_OP1(g, &qn_op_spread, &attrs, gout[0]);
    return QN_OK;
}

static qn_result record_reduce(qn_recorder *r, const qn_node *n)
{
    qn_dispatch d = { .kernel = QN_K_row_reduce,
                      .constants = { 0, 0, *(const uint32_t *)n->attrs } };
    return qn_record_rows(r, &d, (qn_part[]){ qn_rows_of(n->in[0]), { n->out[0], 4 } }, 2,
                          rows_of(n->in[0]), width_of(n->in[0]), 1);
}

const qn_op_def qn_op_reduce = {
    .name = "reduce",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(uint32_t),
    .infer = infer_reduce,
    .backward = backward_reduce,
    .record = record_reduce,
};

const qn_tensor *qn_reduce(qn_graph *g, const qn_tensor *x, qn_reduction kind)
{
    return x ? QN_OP1(g, &qn_op_reduce, &(uint32_t){ (uint32_t)kind }, x) : NULL;
}

static qn_result infer_spread(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    (void)dev;
    const spread_attrs *attrs = n->attrs;
    qn_shape s = n->in[0]->shape;
    QN_TRY(qn_expect_f32(n, 0, "x"));
    if (s.rank == QN_MAX_RANK)
        return qn_refuse(n, "x (%s) has no room for a dimension", n->in[0]->name);
    s.dim[s.rank++] = attrs->width;
    shape[0] = s;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_spread(qn_recorder *r, const qn_node *n)
{
    const spread_attrs *attrs = n->attrs;
    spread_args args = { .factor = attrs->factor };
    qn_dispatch d = { .kernel = QN_K_spread, .args = &args, .args_size = sizeof args };
    return qn_record_rows(r, &d, (qn_part[]){ { n->in[0], 4 }, qn_rows_of(n->out[0]) }, 2,
                          rows_of(n->out[0]), attrs->width, 1);
}

const qn_op_def qn_op_spread = {
    .name = "spread",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(spread_attrs),
    .infer = infer_spread,
    .record = record_spread,
};

// ------------------------------------------------------------------------------- argmax

static qn_result infer_argmax(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(qn_expect_rows(n, 0, "x"));
    shape[0] = without_last(n->in[0]->shape);
    dtype[0] = QN_I32;
    return QN_OK;
}

static qn_result record_argmax(qn_recorder *r, const qn_node *n)
{
    return qn_record_rows(r, &(qn_dispatch){ .kernel = QN_K_argmax },
                          (qn_part[]){ qn_rows_of(n->in[0]), { n->out[0], 4 } }, 2,
                          rows_of(n->in[0]), width_of(n->in[0]), 1);
}

const qn_op_def qn_op_argmax = {
    .name = "argmax",
    .inputs = 1,
    .outputs = 1,
    .infer = infer_argmax,
    .record = record_argmax,
};

const qn_tensor *qn_argmax(qn_graph *g, const qn_tensor *x)
{
    return x ? QN_OP1(g, &qn_op_argmax, NULL, x) : NULL;
}

// ------------------------------------------------------------------------------- sum_rows

static qn_result infer_sum_rows(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                                qn_dtype *dtype)
{
    QN_TRY(qn_expect_columns(n, 0, "x", dev));
    shape[0] = QN_SHAPE(qn_shape_last(n->in[0]->shape));
    shape[1] = qn_column_partial(rows_of(n->in[0]), width_of(n->in[0]));
    dtype[0] = dtype[1] = QN_F32;
    return QN_OK;
}

static qn_result backward_repeat(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                 const bool *want, const qn_tensor **gin)
{
    if (want[0]) gin[0] = QN_OP1(g, &qn_op_repeat, &n->in[0]->shape, gout[0]);
    return QN_OK;
}

static qn_result record_sum_rows(qn_recorder *r, const qn_node *n)
{
    uint64_t rows = rows_of(n->in[0]), width = width_of(n->in[0]);
    uint64_t blocks = qn_div_up(rows, qn_column_block(rows, width));
    qn_part parts[] = { qn_rows_of(n->in[0]), qn_whole(n->out[blocks > 1]) };
    QN_TRY(qn_record_columns(r, &(qn_dispatch){ .kernel = QN_K_col_sum }, parts, 2, rows, width));
    return blocks > 1 ? qn_record_last_sum(r, n->out[1], n->out[0], blocks, width) : QN_OK;
}

const qn_op_def qn_op_sum_rows = {
    .name = "sum_rows",
    .inputs = 1,
    .outputs = 2,
    .infer = infer_sum_rows,
    .backward = backward_repeat,
    .record = record_sum_rows,
};

const qn_tensor *qn_sum_rows(qn_graph *g, const qn_tensor *x)
{
    return x ? QN_OP1(g, &qn_op_sum_rows, NULL, x) : NULL;
}

// ------------------------------------------------------------------------------- sum_all

static qn_result infer_sum(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                           qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(qn_expect_f32(n, 0, "x"));
    shape[0] = QN_SCALAR;
    shape[1] = qn_sum_partial((uint64_t)qn_shape_count(n->in[0]->shape));
    dtype[0] = dtype[1] = QN_F32;
    return QN_OK;
}

static qn_result record_sum_all(qn_recorder *r, const qn_node *n)
{
    return qn_record_sum(r, n->in[0], n->out[1], n->out[0], false);
}

static qn_result record_sum_squares(qn_recorder *r, const qn_node *n)
{
    return qn_record_sum(r, n->in[0], n->out[1], n->out[0], true);
}

static qn_result backward_sum_squares(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                      const bool *want, const qn_tensor **gin)
{
    if (want[0]) gin[0] = qn_mul(g, n->in[0], qn_scale(g, gout[0], 2, 0));
    return QN_OK;
}

const qn_op_def qn_op_sum_all = {
    .name = "sum_all",
    .inputs = 1,
    .outputs = 2,
    .infer = infer_sum,
    .backward = backward_repeat,
    .record = record_sum_all,
};

const qn_op_def qn_op_sum_squares = {
    .name = "sum_squares",
    .inputs = 1,
    .outputs = 2,
    .infer = infer_sum,
    .backward = backward_sum_squares,
    .record = record_sum_squares,
};

const qn_tensor *qn_sum_all(qn_graph *g, const qn_tensor *x)
{
    return x ? QN_OP1(g, &qn_op_sum_all, NULL, x) : NULL;
}

const qn_tensor *qn_sum_squares(qn_graph *g, const qn_tensor *x)
{
    return x ? QN_OP1(g, &qn_op_sum_squares, NULL, x) : NULL;
}

// ------------------------------------------------------------------------------- reshape

static qn_result infer_reshape(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                               qn_dtype *dtype)
{
    (void)dev;
    const qn_shape *to = n->attrs;
    bool sound = to->rank >= 0 && to->rank <= QN_MAX_RANK;
    int64_t count = 1, given = qn_shape_count(n->in[0]->shape);
    for (int i = 0; sound && i < to->rank; i++) {
        // Each dimension divides what is left, so the product cannot overflow.
        sound = to->dim[i] >= 1 && to->dim[i] <= given / count && given % (count * to->dim[i]) == 0;
        if (sound) count *= to->dim[i];
    }
    if (!sound || count != given) {
        char xt[QN_SHAPE_TEXT], yt[QN_SHAPE_TEXT];
        bool ranked = to->rank >= 0 && to->rank <= QN_MAX_RANK;
        return qn_refuse(n, "x (%s) has shape %s, which cannot become %s", n->in[0]->name,
                         qn_shape_format(n->in[0]->shape, xt),
                         ranked ? qn_shape_format(*to, yt) : "that many dimensions");
    }
    shape[0] = *to;
    dtype[0] = n->in[0]->dtype;
    return QN_OK;
}

static qn_result backward_reshape(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                  const bool *want, const qn_tensor **gin)
{
    if (want[0]) gin[0] = qn_reshape(g, gout[0], n->in[0]->shape);
    return QN_OK;
}

// The plan places the result on x's own memory.
static qn_result record_nothing(qn_recorder *r, const qn_node *n)
{
    (void)r;
    (void)n;
    return QN_OK;
}

const qn_op_def qn_op_reshape = {
    .name = "reshape",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(qn_shape),
    .infer = infer_reshape,
    .backward = backward_reshape,
    .record = record_nothing,
    .alias = 1,
};

const qn_tensor *qn_reshape(qn_graph *g, const qn_tensor *x, qn_shape shape)
{
    if (!x || qn_shape_equal(x->shape, shape)) return x;
    return QN_OP1(g, &qn_op_reshape, &shape, x);
}
