// Ranges of columns: split and join, each the other's gradient.
#include "grid.h"

#include "args.h"
#include "args/copy_columns.h"

enum { MOST_PARTS = 4, ROWS_PER_GROUP = 64 };

typedef struct parts {
    int64_t width[MOST_PARTS], total;
    int32_t count;
} parts;

static qn_result check_parts(const qn_node *n)
{
    const parts *p = n->attrs;
    if (p->count < 1 || p->count > MOST_PARTS)
        return qn_refuse(n, "%d parts, expected 1 to %d", (int)p->count, MOST_PARTS);
    for (int i = 0; i < p->count; i++)
        if (p->width[i] < 1)
            return qn_refuse(n, "part %d has %lld columns, expected at least 1", i,
                             (long long)p->width[i]);
    return QN_OK;
}

static qn_result expect_matrix(const qn_node *n, int input, const char *what,
                               const qn_device_info *dev)
{
    char text[QN_SHAPE_TEXT];
    const qn_tensor *t = n->in[input];
    QN_TRY(qn_expect_dtype(n, input, what, QN_F32));
    if (t->shape.rank != 2)
        return qn_refuse(n, "%s (%s) has shape %s, expected [rows, columns]", what, t->name,
                         qn_shape_format(t->shape, text));
    if ((uint64_t)qn_shape_count(t->shape) * 4 > dev->max_binding)
        return qn_refuse(n, "%s (%s) has more than the %llu bytes that this device can bind", what,
                         t->name, (unsigned long long)dev->max_binding);
    return QN_OK;
}

// Copies `width` columns; x NULL: zeros.
static qn_result copy(qn_recorder *r, const qn_tensor *x, int64_t from, const qn_tensor *y,
                      int64_t to, int64_t width)
{
    copy_columns_args args = {
        .rows = (uint32_t)y->shape.dim[0],
        .width = (uint32_t)width,
        .from = (uint32_t)from,
        .to = (uint32_t)to,
        .from_row = x ? (uint32_t)x->shape.dim[1] : 0,
        .to_row = (uint32_t)y->shape.dim[1],
        .block = ROWS_PER_GROUP,
    };
    uint32_t odd = (args.width | args.from | args.to | args.from_row | args.to_row) & 3;
    qn_dispatch d = {
        .kernel = QN_K_copy_columns,
        .buffers = { qn_at(r, x), qn_at(r, y) },
        .args = &args,
        .args_size = sizeof args,
        .constants = { odd == 0, x == NULL },
    };
    qn_grid_columns(qn_recorder_device(r), (uint64_t)width, args.rows, &args.block, d.groups);
    d.rounds = args.block;
    return qn_record(r, &d);
}

// ----------------------------------------------------------------------------------- split

static qn_result infer_split(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                             qn_dtype *dtype)
{
    const parts *p = n->attrs;
    QN_TRY(check_parts(n));
    QN_TRY(expect_matrix(n, 0, "x", dev));
    if (p->total != n->in[0]->shape.dim[1])
        return qn_refuse(n, "x (%s) has %lld columns, expected the parts' %lld", n->in[0]->name,
                         (long long)n->in[0]->shape.dim[1], (long long)p->total);
    for (int i = 0; i < MOST_PARTS; i++) {
        shape[i] = QN_SHAPE(1);
        if (i < p->count) shape[i] = QN_SHAPE(n->in[0]->shape.dim[0], p->width[i]);
        dtype[i] = QN_F32;
    }
    return QN_OK;
}

static qn_result record_split(qn_recorder *r, const qn_node *n)
{
    const parts *p = n->attrs;
    int64_t from = 0;
    for (int i = 0; i < p->count; from += p->width[i++])
        QN_TRY(copy(r, n->in[0], from, n->out[i], 0, p->width[i]));
    return QN_OK;
}

static qn_result backward_split(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                const bool *want, const qn_tensor **gin)
{
    (void)want;
    const parts *p = n->attrs;
    const qn_tensor *in[QN_MAX_INPUTS] = { n->in[0] };
    for (int i = 0; i < p->count; i++) in[1 + i] = gout[i];
    gin[0] = qn_op(g, &qn_op_join, p, in, NULL);
    return qn_graph_status(g);
}

const qn_op_def qn_op_split = {
    .name = "split",
    .inputs = 1,
    .outputs = MOST_PARTS,
    .attrs_size = sizeof(parts),
    .infer = infer_split,
    .backward = backward_split,
    .record = record_split,
};

qn_result qn_split(qn_graph *g, const qn_tensor *x, const int64_t *widths, int count,
                   const qn_tensor **out)
{
    for (int i = 0; i < count && i < MOST_PARTS; i++) out[i] = NULL;
    if (!x) return qn_graph_status(g);
    parts p = { .count = count };
    for (int i = 0; i < count && i < MOST_PARTS; i++) p.total += p.width[i] = widths[i];
    const qn_tensor *in[QN_MAX_INPUTS] = { x };
    const qn_node *made;
    if (!qn_op(g, &qn_op_split, &p, in, &made)) return qn_graph_status(g);
    for (int i = 0; i < count; i++) out[i] = made->out[i];
    return QN_OK;
}

// ----------------------------------------------------------------------------------- join

// Inputs: a tensor with as many rows (for the gradient of split, whose parts may all be absent but
// one; else the first part again), then the parts; an absent one stands for zeros.
static qn_result infer_join(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    const parts *p = n->attrs;
    QN_TRY(check_parts(n));
    QN_TRY(expect_matrix(n, 0, "part 0", dev));
    int64_t rows = n->in[0]->shape.dim[0];
    for (int i = 0; i < p->count; i++) {
        char what[16];
        snprintf(what, sizeof what, "part %d", i);
        if (!n->in[1 + i]) continue;
        QN_TRY(expect_matrix(n, 1 + i, what, dev));
        QN_TRY(qn_expect_shape(n, 1 + i, what, QN_SHAPE(rows, p->width[i])));
    }
    shape[0] = QN_SHAPE(rows, p->total);
    dtype[0] = QN_F32;
    if ((uint64_t)qn_shape_count(shape[0]) * 4 > dev->max_binding)
        return qn_refuse(n, "the result has more than the %llu bytes that this device can bind",
                         (unsigned long long)dev->max_binding);
    return QN_OK;
}

static qn_result record_join(qn_recorder *r, const qn_node *n)
{
    const parts *p = n->attrs;
    int64_t to = 0;
    for (int i = 0; i < p->count; to += p->width[i++])
        QN_TRY(copy(r, n->in[1 + i], 0, n->out[0], to, p->width[i]));
    return QN_OK;
}

static qn_result backward_join(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                               const bool *want, const qn_tensor **gin)
{
    (void)want;
    const parts *p = n->attrs;
    return qn_split(g, gout[0], p->width, p->count, gin + 1);
}

const qn_op_def qn_op_join = {
    .name = "join",
    .inputs = 1 + MOST_PARTS,
    .outputs = 1,
    .attrs_size = sizeof(parts),
    .infer = infer_join,
    .backward = backward_join,
    .record = record_join,
};

const qn_tensor *qn_join(qn_graph *g, const qn_tensor *const *part, int count)
{
    parts p = { .count = count };
    const qn_tensor *in[QN_MAX_INPUTS] = { count > 0 ? part[0] : NULL };
    for (int i = 0; i < count && i < MOST_PARTS; i++) {
        if (!part[i]) return NULL;
        in[1 + i] = part[i];
        p.total += p.width[i] = qn_shape_last(part[i]->shape);
    }
    return in[0] ? qn_op(g, &qn_op_join, &p, in, NULL) : NULL;
}
