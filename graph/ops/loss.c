// softmax, log_softmax, cross_entropy and their gradients.
#include "passes.h"

static uint64_t rows_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_rows(t->shape);
}

static uint64_t width_of(const qn_tensor *t)
{
    return (uint64_t)qn_shape_last(t->shape);
}

// ------------------------------------------------------------------------------- softmax

static qn_result infer_softmax(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                               qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(qn_expect_rows(n, 0, "x"));
    shape[0] = n->in[0]->shape;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result backward_rows(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                               const bool *want, const qn_tensor **gin)
{
    uint32_t logarithm = n->op == &qn_op_log_softmax;
    if (want[0]) gin[0] = QN_OP1(g, &qn_op_softmax_grad, &logarithm, gout[0], n->out[0]);
    return QN_OK;
}

static qn_result record_softmax(qn_recorder *r, const qn_node *n)
{
    qn_dispatch d = { .kernel = QN_K_softmax, .constants = { 0, 0, n->op == &qn_op_log_softmax } };
    return qn_record_rows(r, &d, (qn_part[]){ qn_rows_of(n->in[0]), qn_rows_of(n->out[0]) }, 2,
                          rows_of(n->in[0]), width_of(n->in[0]), 2);
}

const qn_op_def qn_op_softmax = {
    .name = "softmax",
    .inputs = 1,
    .outputs = 1,
    .infer = infer_softmax,
    .backward = backward_rows,
    .record = record_softmax,
    .inplace = 1,
};

const qn_op_def qn_op_log_softmax = {
    .name = "log_softmax",
    .inputs = 1,
    .outputs = 1,
    .infer = infer_softmax,
    .backward = backward_rows,
    .record = record_softmax,
    .inplace = 1,
};

const qn_tensor *qn_softmax(qn_graph *g, const qn_tensor *x)
{
    return x ? QN_OP1(g, &qn_op_softmax, NULL, x) : NULL;
}

const qn_tensor *qn_log_softmax(qn_graph *g, const qn_tensor *x)
{
    return x ? QN_OP1(g, &qn_op_log_softmax, NULL, x) : NULL;
}

// softmax_grad: inputs dy and the result y; attrs: is y a logarithm?
static qn_result infer_softmax_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                                    qn_dtype *dtype)
{
    QN_TRY(qn_expect_rows(n, 1, "y"));
    QN_TRY(qn_expect_shape(n, 0, "dy", n->in[1]->shape));
    return infer_softmax(n, dev, shape, dtype);
}

static qn_result record_softmax_grad(qn_recorder *r, const qn_node *n)
{
    qn_dispatch d = { .kernel = QN_K_softmax_grad,
                      .constants = { 0, 0, *(const uint32_t *)n->attrs } };
    qn_part parts[] = { qn_rows_of(n->in[0]), qn_rows_of(n->in[1]), qn_rows_of(n->out[0]) };
    return qn_record_rows(r, &d, parts, 3, rows_of(n->in[0]), width_of(n->in[0]), 2);
}

const qn_op_def qn_op_softmax_grad = {
    .name = "softmax_grad",
    .inputs = 2,
    .outputs = 1,
    .attrs_size = sizeof(uint32_t),
    .infer = infer_softmax_grad,
    .record = record_softmax_grad,
    .inplace = 3,
};

// ------------------------------------------------------------------------------- cross_entropy

enum { LOGITS, LABELS };
// LOG_SUM and COUNT serve the gradient; COUNTED, each row's 1 or 0, and PARTIAL only the sums. The
// total of the rows' losses passes through LOSS.
enum { LOSS, ROWS, LOG_SUM, COUNT, COUNTED, PARTIAL, CE_OUTPUTS };

static qn_result infer_cross_entropy(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                                     qn_dtype *dtype)
{
    (void)dev;
    const qn_tensor *logits = n->in[LOGITS];
    QN_TRY(qn_expect_rows(n, LOGITS, "logits"));
    if (logits->shape.rank != 2) {
        char text[QN_SHAPE_TEXT];
        return qn_refuse(n, "logits (%s) has shape %s, expected [rows, classes]", logits->name,
                         qn_shape_format(logits->shape, text));
    }
    qn_shape rows = QN_SHAPE(logits->shape.dim[0]);
    QN_TRY(qn_expect_dtype(n, LABELS, "labels", QN_I32));
    QN_TRY(qn_expect_shape(n, LABELS, "labels", rows));
    shape[LOSS] = shape[COUNT] = QN_SCALAR;
    shape[ROWS] = shape[LOG_SUM] = shape[COUNTED] = rows;
    shape[PARTIAL] = qn_sum_partial((uint64_t)rows.dim[0]);
    for (int i = 0; i < CE_OUTPUTS; i++) dtype[i] = QN_F32;
    return QN_OK;
}

static qn_result backward_cross_entropy(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                        const bool *want, const qn_tensor **gin)
{
    if (gout[ROWS])
        return qn_refuse(n, "the loss of single rows has no gradient, but one is wanted");
    if (want[LOGITS])
        gin[LOGITS] = QN_OP1(g, &qn_op_cross_entropy_grad, NULL, n->in[LOGITS], n->in[LABELS],
                             n->out[LOG_SUM], n->out[COUNT], gout[LOSS]);
    return QN_OK;
}

static qn_result record_cross_entropy(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *logits = n->in[LOGITS];
    qn_part parts[] = { qn_rows_of(logits),
                        { n->in[LABELS], 4 },
                        { n->out[ROWS], 4 },
                        { n->out[LOG_SUM], 4 },
                        { n->out[COUNTED], 4 } };
    QN_TRY(qn_record_rows(r, &(qn_dispatch){ .kernel = QN_K_cross_entropy }, parts, 5,
                          rows_of(logits), width_of(logits), 1));
    QN_TRY(qn_record_sum(r, n->out[COUNTED], n->out[PARTIAL], n->out[COUNT], false));
    QN_TRY(qn_record_sum(r, n->out[ROWS], n->out[PARTIAL], n->out[LOSS], false));
    return qn_record(r, &(qn_dispatch){
                            .kernel = QN_K_mean_of,
                            .buffers = { qn_at(r, n->out[COUNT]), qn_at(r, n->out[LOSS]) },
                            .groups = { 1, 1, 1 },
                        });
}

const qn_op_def qn_op_cross_entropy = {
    .name = "cross_entropy",
    .inputs = 2,
    .outputs = CE_OUTPUTS,
    .infer = infer_cross_entropy,
    .backward = backward_cross_entropy,
    .record = record_cross_entropy,
};

const qn_tensor *qn_cross_entropy(qn_graph *g, const qn_tensor *logits, const qn_tensor *labels,
                                  const qn_tensor **rows)
{
    if (rows) *rows = NULL;
    if (!logits || !labels) return NULL;
    const qn_tensor *in[QN_MAX_INPUTS] = { logits, labels };
    const qn_node *node;
    if (!qn_op(g, &qn_op_cross_entropy, NULL, in, &node)) return NULL;
    if (rows) *rows = node->out[ROWS];
    return node->out[LOSS];
}

// cross_entropy_grad: inputs logits, labels, log_sum, count and the loss's own gradient.
static qn_result infer_cross_entropy_grad(const qn_node *n, const qn_device_info *dev,
                                          qn_shape *shape, qn_dtype *dtype)
{
    QN_TRY(qn_expect_rows(n, 0, "logits"));
    QN_TRY(qn_expect_dtype(n, 1, "labels", QN_I32));
    QN_TRY(qn_expect_f32(n, 4, "dloss"));
    return infer_softmax(n, dev, shape, dtype);
}

static qn_result record_cross_entropy_grad(qn_recorder *r, const qn_node *n)
{
    qn_part parts[] = { qn_rows_of(n->in[0]), { n->in[1], 4 },    { n->in[2], 4 },
                        qn_whole(n->in[3]),   qn_whole(n->in[4]), qn_rows_of(n->out[0]) };
    return qn_record_rows(r, &(qn_dispatch){ .kernel = QN_K_cross_entropy_grad }, parts, 6,
                          rows_of(n->in[0]), width_of(n->in[0]), 1);
}

const qn_op_def qn_op_cross_entropy_grad = {
    .name = "cross_entropy_grad",
    .inputs = 5,
    .outputs = 1,
    .infer = infer_cross_entropy_grad,
    .record = record_cross_entropy_grad,
    .inplace = 1,
};
