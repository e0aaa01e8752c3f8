// The target networks of hypernetworks for tables, forward and backward.
#include "hyper.h"

#include "args.h"
#include "args/hyper_target.h"
#include "args/hyper_target_grad.h"

enum { X, COLUMNS, GENERATED, DLOGITS };
enum {
    ROWS_FLAT = 4, // rows per invocation: an octet's weights are fetched once for all of them
    BLOCKS = 8,    // blocks of rows that an invocation of the gradient goes through
};

int64_t qn_target_weights(const qn_target_net *net, int64_t chosen)
{
    int64_t h = net->hidden, c = net->outputs;
    return (chosen + 1) * h + (net->depth - 1) * (h + 1) * h + (h + 1) * c;
}

static qn_result expect_between(const qn_node *n, const char *what, int value, int most)
{
    if (value >= 1 && value <= most) return QN_OK;
    return qn_refuse(n, "%s is %d, expected 1 to %d", what, value, most);
}

qn_result qn_expect_net(const qn_node *n, const qn_target_net *net, int64_t chosen, int64_t count)
{
    QN_TRY(expect_between(n, "hidden", net->hidden, QN_TARGET_MAX_HIDDEN));
    QN_TRY(expect_between(n, "depth", net->depth, QN_TARGET_MAX_DEPTH));
    QN_TRY(expect_between(n, "outputs", net->outputs, QN_TARGET_MAX_OUTPUTS));
    int64_t expected = qn_target_weights(net, chosen);
    if (count && count != expected)
        return qn_refuse(n, "generated has %lld weights a view, expected %lld for %lld columns",
                         (long long)count, (long long)expected, (long long)chosen);
    return QN_OK;
}

uint32_t qn_octet_shuffle(const qn_device_info *dev)
{
    bool flat = dev->kernel_class == QN_CLASS_FLAT && dev->subgroup_size % 8 == 0;
    return flat ? dev->subgroup_size : 0;
}

static uint32_t rows_each(const qn_device_info *dev)
{
    return dev->kernel_class == QN_CLASS_FLAT ? ROWS_FLAT : 1;
}

static uint32_t group_size(const qn_device_info *dev)
{
    if (dev->kernel_class != QN_CLASS_FLAT) return 64;
    return dev->subgroup_size > 8 ? dev->subgroup_size : 8;
}

static qn_result expect_inputs(const qn_node *n, const qn_device_info *dev)
{
    const qn_target_net *net = n->attrs;
    qn_shape x = n->in[X]->shape, columns = n->in[COLUMNS]->shape, gen = n->in[GENERATED]->shape;
    char text[QN_SHAPE_TEXT];
    QN_TRY(qn_expect_dtype(n, X, "x", QN_F32));
    QN_TRY(qn_expect_dtype(n, COLUMNS, "view_columns", QN_I32));
    QN_TRY(qn_expect_dtype(n, GENERATED, "generated", QN_F32));
    if (x.rank != 2)
        return qn_refuse(n, "x (%s) has shape %s, expected [rows, columns]", n->in[X]->name,
                         qn_shape_format(x, text));
    if (columns.rank != 2 || columns.dim[1] > x.dim[1])
        return qn_refuse(n, "view_columns (%s) has shape %s, expected [views, at most %lld]",
                         n->in[COLUMNS]->name, qn_shape_format(columns, text),
                         (long long)x.dim[1]);
    if (gen.rank != 2 || gen.dim[0] != columns.dim[0])
        return qn_refuse(n, "generated (%s) has shape %s, expected [%lld, weights]",
                         n->in[GENERATED]->name, qn_shape_format(gen, text),
                         (long long)columns.dim[0]);
    QN_TRY(qn_expect_net(n, net, columns.dim[1], gen.dim[1]));
    const int64_t most = INT32_MAX;
    if (columns.dim[0] > dev->max_groups || qn_shape_count(x) > most ||
        qn_shape_count(gen) > most || x.dim[0] > most / net->outputs / columns.dim[0])
        return qn_refuse(n, "%lld views of %lld rows are too many at once",
                         (long long)columns.dim[0], (long long)x.dim[0]);
    return QN_OK;
}

static qn_result infer_target(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    const qn_target_net *net = n->attrs;
    QN_TRY(expect_inputs(n, dev));
    shape[0] = QN_SHAPE(n->in[COLUMNS]->shape.dim[0], n->in[X]->shape.dim[0], net->outputs);
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_target(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    const qn_target_net *net = n->attrs;
    int64_t rows = n->in[X]->shape.dim[0];
    uint32_t group = group_size(dev);
    hyper_target_args args = {
        .rows = (u32)rows,
        .columns = (u32)n->in[X]->shape.dim[1],
        .chosen = (u32)n->in[COLUMNS]->shape.dim[1],
        .count = (u32)n->in[GENERATED]->shape.dim[1],
    };
    uint32_t each = rows_each(dev);
    if (qn_div_up((uint64_t)rows, (uint64_t)group * each) > dev->max_groups)
        return qn_refuse(n, "x (%s) has %lld rows, too many at once", n->in[X]->name,
                         (long long)rows);
    return qn_record(
        r, &(qn_dispatch){
               .kernel = QN_K_hyper_target,
               .buffers = { qn_at(r, n->in[X]), qn_at(r, n->in[COLUMNS]), qn_at(r, n->in[GENERATED]),
                            qn_at(r, n->out[0]) },
               .args = &args,
               .args_size = sizeof args,
               .constants = { qn_octet_shuffle(dev), (uint32_t)net->hidden, (uint32_t)net->outputs,
                              (uint32_t)net->depth, each },
               .group_size = group,
               .groups = { qn_div_up((uint64_t)rows, (uint64_t)group * each),
                           (uint32_t)n->in[COLUMNS]->shape.dim[0], 1 },
               .rounds = args.chosen + (uint64_t)(net->hidden * net->depth),
           });
}

static uint64_t multiplications(const qn_node *n)
{
    uint64_t weights = (uint64_t)n->in[GENERATED]->shape.dim[1];
    return (uint64_t)n->in[COLUMNS]->shape.dim[0] * (uint64_t)n->in[X]->shape.dim[0] * weights;
}

static qn_cost cost_target(const qn_node *n)
{
    uint64_t m = multiplications(n);
    return (qn_cost){ .flops = 2 * m, .bytes = m };
}

static qn_result backward_target(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                 const bool *want, const qn_tensor **gin)
{
    if (want[X])
        return qn_refuse(n, "x (%s) wants a gradient, but the network has none to its rows",
                         n->in[X]->name);
    if (!want[GENERATED]) return QN_OK;
    qn_shape gen = n->in[GENERATED]->shape;
    const qn_tensor *parts = QN_OP1(g, &qn_op_hyper_target_grad, n->attrs, n->in[X], n->in[COLUMNS],
                                    n->in[GENERATED], gout[0]);
    if (!parts) return qn_graph_status(g);
    parts = qn_reshape(g, parts, QN_SHAPE(parts->shape.dim[0], qn_shape_count(gen)));
    gin[GENERATED] = qn_reshape(g, qn_sum_rows(g, parts), gen);
    return QN_OK;
}

const qn_op_def qn_op_hyper_target = {
    .name = "hyper_target",
    .reference = "hypertab",
    .inputs = 3,
    .outputs = 1,
    .attrs_size = sizeof(qn_target_net),
    .infer = infer_target,
    .backward = backward_target,
    .record = record_target,
    .cost = cost_target,
};

const qn_tensor *qn_hyper_target(qn_graph *g, const qn_tensor *x, const qn_tensor *view_columns,
                                 const qn_tensor *generated, const qn_target_net *net)
{
    if (!x || !view_columns || !generated || !net) return NULL;
    return QN_OP1(g, &qn_op_hyper_target, net, x, view_columns, generated);
}

// ------------------------------------------------------------------------- hyper_target_grad

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    const qn_target_net *net = n->attrs;
    QN_TRY(expect_inputs(n, dev));
    int64_t views = n->in[COLUMNS]->shape.dim[0], rows = n->in[X]->shape.dim[0];
    QN_TRY(qn_expect_dtype(n, DLOGITS, "dlogits", QN_F32));
    QN_TRY(qn_expect_shape(n, DLOGITS, "dlogits", QN_SHAPE(views, rows, net->outputs)));
    int64_t slices = qn_div_up((uint64_t)rows, (uint64_t)(8 * rows_each(dev) * BLOCKS));
    shape[0] = QN_SHAPE(slices, views, n->in[GENERATED]->shape.dim[1]);
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    const qn_target_net *net = n->attrs;
    uint32_t group = group_size(dev), each = rows_each(dev);
    uint64_t slices = (uint64_t)n->out[0]->shape.dim[0], views = (uint64_t)n->out[0]->shape.dim[1];
    uint64_t rows = (uint64_t)n->in[X]->shape.dim[0];
    hyper_target_grad_args args = {
        .rows = (u32)rows,
        .columns = (u32)n->in[X]->shape.dim[1],
        .chosen = (u32)n->in[COLUMNS]->shape.dim[1],
        .count = (u32)n->in[GENERATED]->shape.dim[1],
        .views = (u32)views,
        .slices = (u32)slices,
        .blocks = qn_div_up(qn_div_up(rows, slices), 8 * each),
    };
    uint64_t inputs = args.chosen + (uint64_t)(net->hidden * net->depth);
    return qn_record(
        r, &(qn_dispatch){
               .kernel = QN_K_hyper_target_grad,
               .buffers = { qn_at(r, n->in[X]), qn_at(r, n->in[COLUMNS]), qn_at(r, n->in[GENERATED]),
                            qn_at(r, n->in[DLOGITS]), qn_at(r, n->out[0]) },
               .args = &args,
               .args_size = sizeof args,
               .constants = { qn_octet_shuffle(dev), (uint32_t)net->hidden, (uint32_t)net->outputs,
                              (uint32_t)net->depth, each },
               .group_size = group,
               .groups = { qn_div_up(8 * slices * views, group), 1, 1 },
               .rounds = args.blocks * (2 * inputs + 1),
           });
}

static qn_cost cost_grad(const qn_node *n)
{
    uint64_t m = multiplications(n);
    return (qn_cost){ .flops = 6 * m, .bytes = 2 * m };
}

const qn_op_def qn_op_hyper_target_grad = {
    .name = "hyper_target_grad",
    .reference = "hypertab",
    .inputs = 4,
    .outputs = 1,
    .attrs_size = sizeof(qn_target_net),
    .infer = infer_grad,
    .record = record_grad,
    .cost = cost_grad,
};
