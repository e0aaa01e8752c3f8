// One AdamW step over whole stores.
#include "grid.h"
#include "graph_impl.h"

#include "args.h"
#include "args/adamw.h"

enum { P, GRAD, M, V, HYPER, SQUARE_SUM, GROUPS, TABLE };
enum {
    BLOCK = 64,                      // elements that share an entry of `groups`
    WINDOW_STEP = QN_RANGE_ALIGN / 4 // blocks; so that `groups` can be bound at a window's start
};

static qn_result expect_stored(const qn_node *n, int input, const char *what)
{
    if (impl(n->in[input])->leaf == LEAF_STORED) return QN_OK;
    return qn_refuse(n, "%s (%s) is not stored, so a step cannot be kept", what,
                     n->in[input]->name);
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    static const char *const names[] = { "p", "grad", "m", "v" };
    char text[QN_SHAPE_TEXT];
    qn_shape all = n->in[P]->shape, table = n->in[TABLE]->shape;
    if (all.rank != 1 || all.dim[0] % BLOCK)
        return qn_refuse(n, "p (%s) has shape %s, expected one dimension, a multiple of %d",
                         n->in[P]->name, qn_shape_format(all, text), BLOCK);
    for (int i = P; i <= V; i++) {
        QN_TRY(qn_expect_dtype(n, i, names[i], QN_F32));
        QN_TRY(qn_expect_shape(n, i, names[i], all));
        for (int k = P; k < i; k++)
            if (n->in[k] == n->in[i])
                return qn_refuse(n, "%s and %s are one tensor (%s)", names[k], names[i],
                                 n->in[i]->name);
    }
    QN_TRY(qn_expect_dtype(n, HYPER, "hyper", QN_F32));
    QN_TRY(qn_expect_shape(n, HYPER, "hyper", QN_SHAPE(8)));
    QN_TRY(qn_expect_dtype(n, SQUARE_SUM, "square_sum", QN_F32));
    QN_TRY(qn_expect_shape(n, SQUARE_SUM, "square_sum", QN_SCALAR));
    QN_TRY(qn_expect_dtype(n, GROUPS, "groups", QN_I32));
    QN_TRY(qn_expect_shape(n, GROUPS, "groups", QN_SHAPE(all.dim[0] / BLOCK)));
    QN_TRY(qn_expect_dtype(n, TABLE, "group_table", QN_F32));
    if (table.rank != 2 || table.dim[1] != 2 || table.dim[0] > INT32_MAX)
        return qn_refuse(n, "group_table (%s) has shape %s, expected [groups, 2]",
                         n->in[TABLE]->name, qn_shape_format(table, text));
    for (int i = P; i <= V; i++)
        if (i != GRAD) QN_TRY(expect_stored(n, i, names[i]));
    shape[0] = all;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    const uint64_t block_bytes = BLOCK * sizeof(float);
    uint64_t blocks = (uint64_t)n->in[P]->shape.dim[0] / BLOCK;
    uint64_t most = dev->max_binding / block_bytes / WINDOW_STEP * WINDOW_STEP;
    if (most > INT32_MAX / BLOCK / WINDOW_STEP * WINDOW_STEP)
        most = INT32_MAX / BLOCK / WINDOW_STEP * WINDOW_STEP;
    for (uint64_t first = 0; first < blocks; first += most) {
        uint64_t own = blocks - first < most ? blocks - first : most;
        adamw_args args = {
            .blocks = (uint32_t)own,
            .groups = (uint32_t)n->in[TABLE]->shape.dim[0],
        };
        qn_dispatch d = {
            .kernel = QN_K_adamw,
            .args = &args,
            .args_size = sizeof args,
        };
        for (int i = P; i <= V; i++)
            d.buffers[i] = qn_at_rows(r, n->in[i], first, own, block_bytes);
        d.buffers[HYPER] = qn_at(r, n->in[HYPER]);
        d.buffers[SQUARE_SUM] = qn_at(r, n->in[SQUARE_SUM]);
        d.buffers[GROUPS] = qn_at_rows(r, n->in[GROUPS], first, own, sizeof(int32_t));
        d.buffers[TABLE] = qn_at(r, n->in[TABLE]);
        d.buffers[TABLE + 1] = d.buffers[P];
        d.buffers[TABLE + 2] = d.buffers[M];
        d.buffers[TABLE + 3] = d.buffers[V];
        qn_grid_spread(dev, qn_div_up(own, 4), d.groups);
        QN_TRY(qn_record(r, &d));
    }
    return QN_OK;
}

static qn_cost cost(const qn_node *n)
{
    uint64_t count = (uint64_t)n->in[P]->shape.dim[0];
    return (qn_cost){ .flops = 16 * count, .bytes = 7 * 4 * count };
}

const qn_op_def qn_op_adamw = {
    .name = "adamw",
    .reference = "adamw",
    .inputs = 8,
    .outputs = 1,
    .effect = true,
    .infer = infer,
    .record = record,
    .cost = cost,
    .alias = P + 1,
};

const qn_tensor *qn_adamw(qn_graph *g, const qn_tensor *p, const qn_tensor *grad,
                          const qn_tensor *m, const qn_tensor *v, const qn_tensor *hyper,
                          const qn_tensor *square_sum, const qn_tensor *groups,
                          const qn_tensor *group_table)
{
    if (!p || !grad || !m || !v || !hyper || !square_sum || !groups || !group_table) return NULL;
    return QN_OP1(g, &qn_op_adamw, NULL, p, grad, m, v, hyper, square_sum, groups, group_table);
}
