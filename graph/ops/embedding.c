// embedding and its gradient, which sums over positions sorted by id.
#include "passes.h"

#include "args.h"
#include "args/embedding.h"
#include "args/embedding_grad.h"

enum {
    WINDOW_ROWS = 64,       // windows start at multiples
    COLUMNS_FLAT = 4,       // vec4s per invocation, as in embedding_grad.comp
    MOST_POSITIONS = 50000, // per dispatch of the gradient: all may have one id
};

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// Rows of `bytes` bytes each that one binding can hold.
static uint64_t bindable_rows(const qn_device_info *dev, uint64_t rows, uint64_t bytes)
{
    uint64_t limit = smaller(dev->max_binding, (uint64_t)1 << 30) / bytes;
    return rows <= limit ? rows : limit / WINDOW_ROWS * WINDOW_ROWS;
}

static qn_result infer_embedding(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                                 qn_dtype *dtype)
{
    (void)dev;
    const qn_tensor *table = n->in[0], *ids = n->in[1];
    char text[QN_SHAPE_TEXT];
    QN_TRY(qn_expect_rows(n, 0, "table"));
    QN_TRY(qn_expect_dtype(n, 1, "ids", QN_I32));
    if (table->shape.rank != 2 || table->shape.dim[0] > INT32_MAX)
        return qn_refuse(
            n, "table (%s) has shape %s, expected [rows, width] with fewer than 2^31 rows",
            table->name, qn_shape_format(table->shape, text));
    if (ids->shape.rank == QN_MAX_RANK)
        return qn_refuse(n, "ids (%s) has shape %s, expected at most %d dimensions", ids->name,
                         qn_shape_format(ids->shape, text), QN_MAX_RANK - 1);
    shape[0] = ids->shape;
    shape[0].dim[shape[0].rank++] = table->shape.dim[1];
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_embedding(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *table = n->in[0];
    uint64_t rows = (uint64_t)table->shape.dim[0], width = (uint64_t)table->shape.dim[1];
    uint64_t window = bindable_rows(qn_recorder_device(r), rows, width * 4);
    for (uint64_t first = 0; first < rows; first += window) {
        embedding_args args = {
            .first = (u32)first,
            .count = (u32)smaller(window, rows - first),
            .total = (u32)rows,
        };
        qn_dispatch d = { .kernel = QN_K_embedding, .args = &args, .args_size = sizeof args };
        qn_part parts[] = {
            { n->in[1], 4 },
            { .tensor = table, .first = first, .count = args.count, .row = width * 4 },
            qn_rows_of(n->out[0])
        };
        QN_TRY(
            qn_record_rows(r, &d, parts, 3, (uint64_t)qn_shape_count(n->in[1]->shape), width, 1));
    }
    return QN_OK;
}

static qn_result backward_embedding(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                    const bool *want, const qn_tensor **gin)
{
    const qn_tensor *ids = n->in[1];
    if (!want[0]) return QN_OK;
    ids = qn_reshape(g, ids, QN_SHAPE(qn_shape_count(ids->shape)));
    qn_sorted sorted = qn_counting_sort(g, ids, (int)n->in[0]->shape.dim[0]);
    if (sorted.order && sorted.offsets)
        gin[0] = QN_OP1(g, &qn_op_embedding_grad, NULL, gout[0], ids, sorted.order, sorted.offsets);
    return QN_OK;
}

const qn_op_def qn_op_embedding = {
    .name = "embedding",
    .inputs = 2,
    .outputs = 1,
    .infer = infer_embedding,
    .backward = backward_embedding,
    .record = record_embedding,
};

const qn_tensor *qn_embedding(qn_graph *g, const qn_tensor *table, const qn_tensor *ids)
{
    return table && ids ? QN_OP1(g, &qn_op_embedding, NULL, table, ids) : NULL;
}

// embedding_grad: dy [.., C], ids [n], their order [n] and offsets [V + 1] -> [V, C].
enum { DY, IDS, ORDER, OFFSETS };

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    qn_shape positions = QN_SHAPE(qn_shape_rows(n->in[DY]->shape));
    QN_TRY(qn_expect_rows(n, DY, "dy"));
    QN_TRY(qn_expect_dtype(n, IDS, "ids", QN_I32));
    QN_TRY(qn_expect_dtype(n, ORDER, "order", QN_I32));
    QN_TRY(qn_expect_dtype(n, OFFSETS, "offsets", QN_I32));
    QN_TRY(qn_expect_shape(n, IDS, "ids", positions));
    QN_TRY(qn_expect_shape(n, ORDER, "order", positions));
    shape[0] = QN_SHAPE(qn_shape_count(n->in[OFFSETS]->shape) - 1, qn_shape_last(n->in[DY]->shape));
    dtype[0] = QN_F32;
    return QN_OK;
}

// One window of the table and one part of the positions.
static qn_result record_grad_part(qn_recorder *r, const qn_node *n, const embedding_grad_args *args,
                                  bool part)
{
    const qn_device_info *dev = qn_recorder_device(r);
    bool flat = dev->kernel_class == QN_CLASS_FLAT;
    uint64_t row = (uint64_t)args->width * 4;
    uint64_t columns = args->width % 4 ? args->width : args->width / 4;
    uint64_t lanes = flat ? (uint64_t)dev->subgroup_size * COLUMNS_FLAT : 64;
    uint64_t groups = smaller(args->count, dev->max_groups);
    return qn_record(
        r, &(qn_dispatch){
               .kernel = QN_K_embedding_grad,
               .buffers = { qn_at(r, n->in[IDS]), qn_at(r, n->in[ORDER]), qn_at(r, n->in[OFFSETS]),
                            qn_at_rows(r, n->in[DY], args->from, args->to - args->from, row),
                            qn_at_rows(r, n->out[0], args->first, args->rows, row) },
               .args = args,
               .args_size = sizeof *args,
               .constants = { args->width % 4 != 0, part },
               .groups = { qn_div_up(columns, lanes), (uint32_t)groups, 1 },
               .rounds = args->to - args->from + qn_div_up(args->count, groups) + 1,
           });
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    uint64_t positions = (uint64_t)qn_shape_rows(n->in[DY]->shape);
    uint64_t rows = (uint64_t)n->out[0]->shape.dim[0], width = (uint64_t)n->out[0]->shape.dim[1];
    uint64_t window = bindable_rows(dev, rows, width * 4);
    uint64_t part = smaller(bindable_rows(dev, positions, width * 4),
                            MOST_POSITIONS / WINDOW_ROWS * WINDOW_ROWS);
    QN_TRY(qn_record_fill(r, qn_at(r, n->out[0]), 0));
    for (uint64_t first = 0; first < rows; first += window)
        for (uint64_t from = 0; from < positions; from += part) {
            embedding_grad_args args = {
                .count = (u32)positions,
                .rows = (u32)smaller(window, rows - first),
                .width = (u32)width,
                .first = (u32)first,
                .from = (u32)from,
                .to = (u32)smaller(from + part, positions),
            };
            QN_TRY(record_grad_part(r, n, &args, positions > part));
        }
    return QN_OK;
}

const qn_op_def qn_op_embedding_grad = {
    .name = "embedding_grad",
    .inputs = 4,
    .outputs = 1,
    .infer = infer_grad,
    .record = record_grad,
};
