// layer_norm, rms_norm, unit_norm and their gradients: norm_grad to x, norm_grad_w to w and b.
#include "passes.h"

#include "args.h"
#include "args/norm.h"

#include <math.h>

enum { LAYER = 0, RMS, UNIT }; // norm.comp: KIND

typedef struct norm_attrs {
    uint32_t kind;
    float epsilon;
} norm_attrs;

static uint64_t rows_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_rows(t->shape);
}

static uint64_t width_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_last(t->shape);
}

static const qn_tensor *optional(const qn_node *n, int input)
{
    return input < n->inputs ? n->in[input] : NULL;
}

// Outputs: y, then (mean, 1 / deviation) of each row, which the gradient needs.
enum { Y, STATS };

static qn_result infer_norm(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    const norm_attrs *attrs = n->attrs;
    const qn_tensor *x = n->in[0];
    static const char *const names[] = { "x", "w", "b" };
    QN_TRY(qn_expect_rows(n, 0, "x"));
    for (int i = 1; i < n->inputs; i++) {
        if (!n->in[i]) continue;
        QN_TRY(qn_expect_f32(n, i, names[i]));
        QN_TRY(qn_expect_shape(n, i, names[i], QN_SHAPE(qn_shape_last(x->shape))));
    }
    bool positive = attrs->kind == UNIT ? attrs->epsilon > 0 : attrs->epsilon >= 0;
    if (!positive || !isfinite(attrs->epsilon))
        return qn_refuse(n, "epsilon is %g, expected a finite number %s 0", (double)attrs->epsilon,
                         attrs->kind == UNIT ? ">" : ">=");
    shape[Y] = x->shape;
    shape[STATS] = QN_SHAPE(qn_shape_rows(x->shape), 2);
    dtype[Y] = dtype[STATS] = QN_F32;
    return QN_OK;
}

static qn_result record_norm(qn_recorder *r, const qn_node *n)
{
    const norm_attrs *attrs = n->attrs;
    const qn_tensor *x = n->in[0], *b = optional(n, 2);
    norm_args args = { .epsilon = attrs->epsilon };
    qn_dispatch d = {
        .kernel = QN_K_norm,
        .args = &args,
        .args_size = sizeof args,
        .constants = { 0, 0, attrs->kind, b != NULL },
    };
    qn_part parts[] = { qn_rows_of(x),
                        qn_whole(optional(n, 1)),
                        qn_whole(b),
                        qn_rows_of(n->out[Y]),
                        { n->out[STATS], 8 } };
    return qn_record_rows(r, &d, parts, 5, rows_of(x), width_of(x), 3);
}

static qn_result backward_norm(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                               const bool *want, const qn_tensor **gin)
{
    const norm_attrs *attrs = n->attrs;
    const qn_tensor *dy = gout[Y], *x = n->in[0], *stats = n->out[STATS];
    if (want[0]) gin[0] = QN_OP1(g, &qn_op_norm_grad, &attrs->kind, dy, x, optional(n, 1), stats);
    bool want_b = n->inputs > 2 && want[2];
    if (n->inputs < 2 || (!want[1] && !want_b)) return QN_OK;
    const qn_tensor *in[QN_MAX_INPUTS] = { dy, x, stats };
    const qn_node *node;
    if (!qn_op(g, &qn_op_norm_grad_w, &(uint32_t){ want_b }, in, &node)) return QN_OK;
    if (want[1]) gin[1] = node->out[0];
    if (want_b) gin[2] = node->out[1];
    return QN_OK;
}

const qn_op_def qn_op_layer_norm = {
    .name = "layer_norm",
    .inputs = 3,
    .outputs = 2,
    .attrs_size = sizeof(norm_attrs),
    .infer = infer_norm,
    .backward = backward_norm,
    .record = record_norm,
    .inplace = 1,
};

const qn_op_def qn_op_rms_norm = {
    .name = "rms_norm",
    .inputs = 2,
    .outputs = 2,
    .attrs_size = sizeof(norm_attrs),
    .infer = infer_norm,
    .backward = backward_norm,
    .record = record_norm,
    .inplace = 1,
};

const qn_op_def qn_op_unit_norm = {
    .name = "unit_norm",
    .inputs = 1,
    .outputs = 2,
    .attrs_size = sizeof(norm_attrs),
    .infer = infer_norm,
    .backward = backward_norm,
    .record = record_norm,
    .inplace = 1,
};

const qn_tensor *qn_layer_norm(qn_graph *g, const qn_tensor *x, const qn_tensor *w,
                               const qn_tensor *b, float epsilon)
{
    if (!x || !w) return NULL;
    return QN_OP1(g, &qn_op_layer_norm, (&(norm_attrs){ LAYER, epsilon }), x, w, b);
}

const qn_tensor *qn_rms_norm(qn_graph *g, const qn_tensor *x, const qn_tensor *w, float epsilon)
{
    if (!x || !w) return NULL;
    return QN_OP1(g, &qn_op_rms_norm, (&(norm_attrs){ RMS, epsilon }), x, w);
}

const qn_tensor *qn_unit_norm(qn_graph *g, const qn_tensor *x, float epsilon)
{
    return x ? QN_OP1(g, &qn_op_unit_norm, (&(norm_attrs){ UNIT, epsilon }), x) : NULL;
}

// ------------------------------------------------------------------------------- gradients

// Inputs: dy, x, w (but for unit_norm), the rows' statistics; attrs is the kind.
static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(qn_expect_rows(n, 1, "x"));
    QN_TRY(qn_expect_f32(n, 0, "dy"));
    QN_TRY(qn_expect_shape(n, 0, "dy", n->in[1]->shape));
    shape[0] = n->in[1]->shape;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *x = n->in[1];
    qn_dispatch d = { .kernel = QN_K_norm_grad,
                      .constants = { 0, 0, *(const uint32_t *)n->attrs } };
    qn_part parts[] = { qn_rows_of(n->in[0]),
                        qn_rows_of(x),
                        qn_whole(n->in[2]),
                        { n->in[3], 8 },
                        qn_rows_of(n->out[0]) };
    return qn_record_rows(r, &d, parts, 5, rows_of(x), width_of(x), 2);
}

const qn_op_def qn_op_norm_grad = {
    .name = "norm_grad",
    .inputs = 4,
    .outputs = 1,
    .attrs_size = sizeof(uint32_t),
    .infer = infer_grad,
    .record = record_grad,
    .inplace = 3,
};

// Inputs: dy, x, the rows' statistics; attrs: is db wanted? Outputs: dw, db, partial sums of both.
enum { DW, DB, PARTIAL_W, PARTIAL_B };

static qn_result infer_grad_w(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    const qn_tensor *x = n->in[1];
    QN_TRY(qn_expect_columns(n, 1, "x", dev));
    QN_TRY(qn_expect_f32(n, 0, "dy"));
    QN_TRY(qn_expect_shape(n, 0, "dy", x->shape));
    bool bias = *(const uint32_t *)n->attrs;
    shape[DW] = QN_SHAPE(qn_shape_last(x->shape));
    shape[DB] = bias ? shape[DW] : QN_SHAPE(1);
    shape[PARTIAL_W] = qn_column_partial(rows_of(x), width_of(x));
    shape[PARTIAL_B] = bias ? shape[PARTIAL_W] : QN_SHAPE(1);
    for (int i = 0; i < n->outputs; i++) dtype[i] = QN_F32;
    return QN_OK;
}

static qn_result record_grad_w(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *x = n->in[1];
    bool bias = *(const uint32_t *)n->attrs;
    uint64_t rows = rows_of(x), width = width_of(x);
    uint64_t blocks = qn_div_up(rows, qn_column_block(rows, width));
    int to = blocks > 1 ? PARTIAL_W : DW;
    qn_dispatch d = { .kernel = QN_K_norm_grad_w, .constants = { 0, bias } };
    qn_part parts[] = { qn_rows_of(n->in[0]),
                        qn_rows_of(x),
                        { n->in[2], 8 },
                        qn_whole(n->out[to]),
                        qn_whole(bias ? n->out[to + 1] : NULL) };
    QN_TRY(qn_record_columns(r, &d, parts, 5, rows, width));
    if (blocks == 1) return QN_OK;
    QN_TRY(qn_record_last_sum(r, n->out[PARTIAL_W], n->out[DW], blocks, width));
    return bias ? qn_record_last_sum(r, n->out[PARTIAL_B], n->out[DB], blocks, width) : QN_OK;
}

const qn_op_def qn_op_norm_grad_w = {
    .name = "norm_grad_w",
    .inputs = 3,
    .outputs = 4,
    .attrs_size = sizeof(uint32_t),
    .infer = infer_grad_w,
    .record = record_grad_w,
};
