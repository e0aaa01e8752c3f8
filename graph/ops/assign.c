// assign and assign_rows: values that stay in a store.
#include "passes.h"

#include "graph_impl.h"

#include "args.h"
#include "args/assign_rows.h"

// The stored tensor behind what earlier effects returned, or NULL.
static const qn_tensor *stored_leaf(const qn_tensor *t)
{
    for (const qn_node *n = qn_tensor_node(t); n; n = qn_tensor_node(t)) {
        if (!n->op->effect || !n->op->alias) return NULL;
        t = n->in[n->op->alias - 1];
    }
    return impl(t)->leaf == LEAF_STORED ? t : NULL;
}

static qn_result expect_stored(const qn_node *n)
{
    if (stored_leaf(n->in[0])) return QN_OK;
    return qn_refuse(n, "param (%s) is not a tensor of a store", n->in[0]->name);
}

static qn_result refuse_shapes(const qn_node *n, const qn_tensor *x, const char *expected)
{
    char pt[QN_SHAPE_TEXT], xt[QN_SHAPE_TEXT];
    return qn_refuse(n, "x (%s) has shape %s and param (%s) %s, expected %s", x->name,
                     qn_shape_format(x->shape, xt), n->in[0]->name,
                     qn_shape_format(n->in[0]->shape, pt), expected);
}

// ------------------------------------------------------------------------------- assign

static qn_result infer_assign(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    (void)dev;
    const qn_tensor *param = n->in[0], *x = n->in[1];
    QN_TRY(expect_stored(n));
    QN_TRY(qn_expect_dtype(n, 1, "x", param->dtype));
    if (qn_shape_count(x->shape) != qn_shape_count(param->shape))
        return refuse_shapes(n, x, "as many elements");
    shape[0] = param->shape;
    dtype[0] = param->dtype;
    return QN_OK;
}

static qn_result record_assign(qn_recorder *r, const qn_node *n)
{
    qn_range to = qn_at(r, n->in[0]), from = qn_at(r, n->in[1]);
    if (to.buffer == from.buffer && to.offset == from.offset) return QN_OK; // computed in place
    // Words: an odd half word at the end is followed by padding, which is zero on both sides.
    uint64_t words = qn_div_up(tensor_bytes(n->in[0]), 4);
    return qn_record_each(r, &(qn_dispatch){ .kernel = QN_K_copy_words },
                          (qn_part[]){ qn_f32(n->in[1]), qn_f32(n->in[0]) }, 2, words);
}

const qn_op_def qn_op_assign = {
    .name = "assign",
    .inputs = 2,
    .outputs = 1,
    .effect = true,
    .infer = infer_assign,
    .record = record_assign,
    .alias = 1,
    .assigns = true,
};

const qn_tensor *qn_assign(qn_graph *g, const qn_tensor *param, const qn_tensor *x)
{
    return param && x ? QN_OP1(g, &qn_op_assign, NULL, param, x) : NULL;
}

// ------------------------------------------------------------------------------- assign_rows

enum { PARAM, AT, X };

static qn_result infer_assign_rows(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                                   qn_dtype *dtype)
{
    const qn_tensor *param = n->in[PARAM], *x = n->in[X];
    qn_shape p = param->shape, s = x->shape;
    QN_TRY(expect_stored(n));
    QN_TRY(qn_expect_dtype(n, X, "x", param->dtype));
    QN_TRY(qn_expect_dtype(n, AT, "at", QN_I32));
    const bool each = n->in[AT]->shape.rank > 0;
    if (p.rank != 3 || s.rank != 3 || (!each && p.dim[0] != s.dim[0]) || p.dim[2] != s.dim[2])
        return refuse_shapes(n, x, each ? "[B, T, C] and [P, S, C]" : "[B, T, C] and [B, S, C]");
    if (each) QN_TRY(qn_expect_shape(n, AT, "at", QN_SHAPE(s.dim[0])));
    if (p.dim[2] * qn_dtype_size(param->dtype) % 4)
        return qn_refuse(n, "param (%s) has rows of %lld %s, expected whole words of 4 bytes",
                         param->name, (long long)p.dim[2], qn_dtype_name(param->dtype));
    if (tensor_bytes(param) > dev->max_binding || tensor_bytes(x) > dev->max_binding)
        return qn_refuse(n,
                         "param (%s) or x has more than the %llu bytes that this device can bind",
                         param->name, (unsigned long long)dev->max_binding);
    shape[0] = p;
    dtype[0] = param->dtype;
    return QN_OK;
}

static qn_result record_assign_rows(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *param = n->in[PARAM], *x = n->in[X];
    uint32_t width = (uint32_t)(param->shape.dim[2] * qn_dtype_size(param->dtype) / 4);
    const bool each = n->in[AT]->shape.rank > 0;
    assign_rows_args args = {
        .batch = (u32)x->shape.dim[1] * width,
        .stride = (u32)((each ? qn_shape_rows(param->shape) : param->shape.dim[1]) * width),
        .width = width,
    };
    qn_dispatch d = { .kernel = QN_K_assign_rows, .args = &args, .args_size = sizeof args,
                      .constants = { each } };
    return qn_record_each(r, &d, (qn_part[]){ qn_whole(n->in[AT]), qn_whole(x), qn_whole(param) },
                          3, tensor_bytes(x) / 4);
}

const qn_op_def qn_op_assign_rows = {
    .name = "assign_rows",
    .inputs = 3,
    .outputs = 1,
    .effect = true,
    .infer = infer_assign_rows,
    .record = record_assign_rows,
    .alias = 1,
};

const qn_tensor *qn_assign_rows(qn_graph *g, const qn_tensor *param, const qn_tensor *at,
                                const qn_tensor *x)
{
    return param && at && x ? QN_OP1(g, &qn_op_assign_rows, NULL, param, at, x) : NULL;
}
