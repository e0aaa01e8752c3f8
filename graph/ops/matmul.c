// Matrix products, plain and batched.
#include "matmul_choose.h"
#include "op.h"

#include <quoin/blocks.h>

#include "args.h"
#include "args/matmul.h"

typedef struct product {
    int32_t transpose_a, transpose_b;
    int32_t transpose_c; // the result is [.., N, M]; for gradients of transposed operands
    int32_t activation;
} product;

enum { A, B, BIAS }; // inputs

static const product *attrs_of(const qn_node *n)
{
    return n->attrs;
}

// Dimension i from the end, 0 the last.
static int64_t from_end(qn_shape s, int i)
{
    return s.dim[s.rank - 1 - i];
}

static qn_product shape_of(const qn_node *n)
{
    const product *at = attrs_of(n);
    qn_shape a = n->in[A]->shape, b = n->in[B]->shape;
    uint64_t m = (uint64_t)from_end(a, !at->transpose_a),
             k = (uint64_t)from_end(a, at->transpose_a);
    return (qn_product){
        .batch = (uint64_t)qn_shape_count(a) / (m * k),
        .m = m,
        .n = (uint64_t)from_end(b, at->transpose_b),
        .k = k,
        .transpose_a = at->transpose_a,
        .transpose_b = at->transpose_b,
        .transpose_c = at->transpose_c,
        .bias = n->in[BIAS] != NULL,
        .half = n->in[B]->dtype != QN_F32,
    };
}

// b is one matrix for all batches.
static bool shares_b(const qn_node *n)
{
    return n->in[B]->shape.rank == 2;
}

static qn_result expect_matrix(const qn_node *n, int input, const char *what)
{
    char text[QN_SHAPE_TEXT];
    const qn_tensor *t = n->in[input];
    if (t->shape.rank >= 2 && qn_shape_count(t->shape) <= INT32_MAX) return QN_OK;
    return qn_refuse(n,
                     "%s (%s) has shape %s, expected at least two dimensions and fewer than 2^31 "
                     "elements",
                     what, t->name, qn_shape_format(t->shape, text));
}

static qn_result refuse_pair(const qn_node *n)
{
    char a[QN_SHAPE_TEXT], b[QN_SHAPE_TEXT];
    const product *at = attrs_of(n);
    return qn_refuse(n, "a (%s) %s%s and b (%s) %s%s do not fit", n->in[A]->name,
                     qn_shape_format(n->in[A]->shape, a), at->transpose_a ? " transposed" : "",
                     n->in[B]->name, qn_shape_format(n->in[B]->shape, b),
                     at->transpose_b ? " transposed" : "");
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    const product *at = attrs_of(n);
    QN_TRY(qn_expect_dtype(n, A, "a", QN_F32));
    QN_TRY(qn_expect_weights(n, B, "b"));
    if (qn_dtype_is_block(n->in[B]->dtype) && n->in[B]->shape.rank != 2)
        return qn_refuse(n, "b (%s) is %s, which only single matrices can be", n->in[B]->name,
                         qn_dtype_name(n->in[B]->dtype));
    QN_TRY(expect_matrix(n, A, "a"));
    QN_TRY(expect_matrix(n, B, "b"));
    if ((unsigned)at->activation >= QN_ACTIVATION_COUNT)
        return qn_refuse(n, "no activation %d", at->activation);

    qn_shape a = n->in[A]->shape, b = n->in[B]->shape;
    if (!shares_b(n) && b.rank != a.rank) return refuse_pair(n);
    for (int i = 0; !shares_b(n) && i < a.rank - 2; i++)
        if (a.dim[i] != b.dim[i]) return refuse_pair(n);
    if (from_end(a, at->transpose_a) != from_end(b, !at->transpose_b)) return refuse_pair(n);
    qn_product p = shape_of(n);
    if (n->in[BIAS]) {
        QN_TRY(qn_expect_dtype(n, BIAS, "bias", QN_F32));
        QN_TRY(qn_expect_shape(n, BIAS, "bias", QN_SHAPE((int64_t)p.n)));
    }
    // m n < 2^62: no overflow. The count of the batches' results is below 2^31 when each is, and
    // their number; both are checked.
    if (p.m * p.n > INT32_MAX || p.batch > INT32_MAX / (p.m * p.n))
        return qn_refuse(n,
                         "the result would have %llu x %llu x %llu elements, expected fewer than "
                         "2^31",
                         (unsigned long long)p.batch, (unsigned long long)p.m,
                         (unsigned long long)p.n);
    shape[0] = a;
    shape[0].dim[a.rank - 2] = (int64_t)(at->transpose_c ? p.n : p.m);
    shape[0].dim[a.rank - 1] = (int64_t)(at->transpose_c ? p.m : p.n);
    dtype[0] = QN_F32;
    return QN_OK;
}

// ---------------------------------------------------------------------------------- recording

// A rectangle of the work: batches [z0, z0 + batches), rows [first, first + count) of c as stored.
typedef struct window {
    uint64_t batch, batches, first, count;
} window;

// One of the three matrices of a product: its tensor, the elements of one batch (0: shared by all)
// and of one row.
typedef struct operand {
    const qn_tensor *t;
    uint64_t each, row;
    bool split; // its rows are those of c
} operand;

// The bytes of an operand that a window needs.
static qn_range part_of(const qn_recorder *r, const operand *o, const window *w)
{
    uint64_t size = qn_dtype_size(o->t->dtype);
    if (o->split) return qn_at_rows(r, o->t, w->first, w->count, o->row * size);
    if (o->each) return qn_at_rows(r, o->t, w->batch, w->batches, o->each * size);
    return qn_at_values(r, o->t);
}

// The least count of items of `elements` each that ends at a multiple of QN_RANGE_ALIGN.
static uint64_t items_aligned(uint64_t bytes)
{
    uint64_t count = 1;
    while (count * bytes % QN_RANGE_ALIGN) count *= 2; // bytes is even: ends at 128 at the latest
    return count;
}

// How many items (rows of c, or batches) one dispatch may have: what a binding holds and the
// grid counts, cut to where the next window may start, columns of operands included.
static uint64_t window_size(const qn_device_info *dev, const operand *o, int operands, bool batches,
                            uint64_t grid, uint64_t total)
{
    uint64_t most = grid, unit = 4;
    for (int i = 0; i < operands; i++) {
        uint64_t bytes = (batches      ? o[i].each
                          : o[i].split ? o[i].row
                                       : 0) *
                         qn_dtype_size(o[i].t->dtype);
        if (bytes == 0) continue;
        if (dev->max_binding / bytes < most) most = dev->max_binding / bytes;
        if (items_aligned(bytes) > unit) unit = items_aligned(bytes);
    }
    if (total <= most) return total;
    return most / unit * unit;
}

static void constants_of(const qn_matmul_choice *c, const product *at, bool first, bool last,
                         const qn_device_info *dev, uint32_t *out)
{
    uint32_t bias = last && c->p.bias, activation = last ? (uint32_t)at->activation : QN_IDENTITY;
    uint32_t n = 0;
    out[n++] = c->tile;
    if (c->kernel == QN_K_matvec_flat) {
        out[n++] = c->columns / (4 * dev->subgroup_size);
    } else if (c->kernel == QN_K_rowvec_flat) {
        out[n++] = c->columns;
    } else if (c->kernel == QN_K_matvec) {
        out[n++] = c->p.transpose_b;
    } else {
        out[n++] = c->p.transpose_a;
        out[n++] = c->p.transpose_b;
        out[n++] = c->p.transpose_c;
    }
    out[n++] = c->aligned;
    out[n++] = bias;
    out[n++] = activation;
    out[n++] = !first;
}

// All terms of one window, in as many passes as the kernel's loop needs.
static qn_result record_window(qn_recorder *r, const qn_node *n, const qn_matmul_choice *c,
                               const operand o[3], const window *w)
{
    const qn_device_info *dev = qn_recorder_device(r);
    const qn_product *p = &c->p;
    uint64_t m = p->transpose_c ? p->m : w->count, columns = p->transpose_c ? w->count : p->n;
    for (uint64_t k = 0; k < p->k; k += c->most_terms) {
        uint64_t terms = p->k - k < c->most_terms ? p->k - k : c->most_terms;
        matmul_args args = {
            .m = (uint32_t)m,
            .n = (uint32_t)columns,
            .k = (uint32_t)terms,
            .a_row = (uint32_t)o[A].row,
            .b_row = (uint32_t)o[B].row,
            .a_batch = (uint32_t)o[A].each,
            .b_batch = (uint32_t)o[B].each,
            .c_batch = (uint32_t)(p->m * p->n),
            .a_first = (uint32_t)(k * (p->transpose_a ? o[A].row : 1)),
            .b_first = (uint32_t)(k * (p->transpose_b ? 1 : o[B].row)),
        };
        // An operand whose columns are the rows of c starts at a column instead.
        if (!p->transpose_c && !o[A].split) args.a_first += (uint32_t)w->first;
        if (p->transpose_c && !o[B].split) args.b_first += (uint32_t)w->first;
        qn_dispatch d = {
            .kernel = c->kernel,
            .storage = qn_storage_of(n->in[B]->dtype),
            .buffers = { part_of(r, &o[A], w), part_of(r, &o[B], w), qn_at(r, n->in[BIAS]),
                         part_of(r, &o[2], w), qn_at_scales(r, n->in[B]) },
            .args = &args,
            .args_size = sizeof args,
            .group_size = c->group_size,
            .groups = { qn_div_up(columns, c->columns), qn_div_up(m, c->rows),
                        (uint32_t)w->batches },
            .rounds = c->rounds_of_most * terms / c->most_terms + 1,
        };
        constants_of(c, attrs_of(n), k == 0, k + terms == p->k, dev, d.constants);
        QN_TRY(qn_record(r, &d));
    }
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    qn_product given = shape_of(n);
    qn_matmul_choice c = qn_matmul_choose(&given, dev);
    const qn_product *p = &c.p;
    const qn_tensor *a = n->in[c.swapped ? B : A], *b = n->in[c.swapped ? A : B];
    bool one = p->batch == 1;
    operand o[3] = {
        { a, one || a->shape.rank == 2 ? 0 : p->m * p->k, p->transpose_a ? p->m : p->k,
          one && !p->transpose_a && !p->transpose_c },
        { b, one || b->shape.rank == 2 ? 0 : p->k * p->n, p->transpose_b ? p->k : p->n,
          one && p->transpose_b && p->transpose_c && !qn_dtype_is_block(b->dtype) },
        { n->out[0], one ? 0 : p->m * p->n, p->transpose_c ? p->m : p->n, one },
    };
    // The windows cut rows of c where there is one batch, else batches.
    uint64_t rows = p->transpose_c ? p->n : p->m, total = one ? rows : p->batch;
    uint64_t grid =
        one ? (uint64_t)dev->max_groups * (p->transpose_c ? c.columns : c.rows) : dev->max_groups;
    uint64_t most = window_size(dev, o, 3, !one, grid, total);
    if (most == 0)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: a part of %s exceeds the %llu bytes of a binding",
                       n->name, one ? "64 rows" : "64 batches",
                       (unsigned long long)dev->max_binding);
    for (uint64_t first = 0; first < total; first += most) {
        uint64_t count = total - first < most ? total - first : most;
        window w = one ? (window){ 0, 1, first, count } : (window){ first, count, 0, rows };
        QN_TRY(record_window(r, n, &c, o, &w));
    }
    return QN_OK;
}

// ----------------------------------------------------------------------------------- gradient

static const qn_tensor *multiply(qn_graph *g, const qn_tensor *a, const qn_tensor *b, bool ta,
                                 bool tb, bool tc)
{
    if (!a || !b) return NULL;
    product at = { .transpose_a = ta, .transpose_b = tb, .transpose_c = tc };
    return QN_OP1(g, &qn_op_matmul, &at, a, b);
}

static const qn_tensor *grad_b(qn_graph *g, const qn_node *n, const qn_tensor *dc)
{
    const qn_tensor *a = n->in[A], *b = n->in[B];
    bool ta = attrs_of(n)->transpose_a, tb = attrs_of(n)->transpose_b;
    const qn_tensor *db = tb ? multiply(g, dc, a, true, ta, false)    // dc^T op(a)
                             : multiply(g, a, dc, !ta, false, false); // op(a)^T dc
    if (!db || db->shape.rank == b->shape.rank) return db;
    // One b for all batches: their sum.
    int64_t each = qn_shape_count(b->shape);
    db = qn_reshape(g, db, QN_SHAPE(qn_shape_count(db->shape) / each, each));
    return qn_reshape(g, qn_sum_rows(g, db), b->shape);
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    const product *at = attrs_of(n);
    if (at->activation != QN_IDENTITY)
        return qn_refuse(n, "a product with the activation %s has no gradient; use qn_activate()",
                         qn_activation_name((qn_activation)at->activation));
    if (at->transpose_c) return qn_refuse(n, "the gradient of a product has no gradient");
    if (want[A]) gin[A] = multiply(g, gout[0], n->in[B], false, !at->transpose_b, at->transpose_a);
    if (want[B]) gin[B] = grad_b(g, n, gout[0]);
    if (want[BIAS]) gin[BIAS] = qn_sum_rows(g, gout[0]);
    return qn_graph_status(g);
}

static qn_cost cost(const qn_node *n)
{
    qn_product p = shape_of(n);
    qn_cost c = { .flops = 2 * p.batch * p.m * p.n * p.k };
    c.bytes = (uint64_t)qn_shape_count(n->in[A]->shape) * 4 +
              qn_dtype_bytes(n->in[B]->dtype, (uint64_t)qn_shape_count(n->in[B]->shape)) +
              p.batch * p.m * p.n * 4;
    return c;
}

const qn_op_def qn_op_matmul = {
    .name = "matmul",
    .inputs = 3,
    .outputs = 1,
    .attrs_size = sizeof(product),
    .infer = infer,
    .backward = backward,
    .record = record,
    .cost = cost,
};

const qn_tensor *qn_matmul(qn_graph *g, const qn_tensor *a, const qn_tensor *b,
                           const qn_matmul_opts *opts)
{
    static const qn_matmul_opts none;
    if (!opts) opts = &none;
    if (!a || !b) return NULL;
    product at = {
        .transpose_a = opts->transpose_a,
        .transpose_b = opts->transpose_b,
        .activation = opts->activation,
    };
    // Rows of all batches against one b are one product, and so is its gradient.
    if (a->shape.rank <= 2 || b->shape.rank != 2 || at.transpose_a)
        return QN_OP1(g, &qn_op_matmul, &at, a, b, opts->bias);
    const qn_tensor *flat =
        qn_reshape(g, a, QN_SHAPE(qn_shape_rows(a->shape), qn_shape_last(a->shape)));
    if (!flat) return NULL;
    const qn_tensor *c = QN_OP1(g, &qn_op_matmul, &at, flat, b, opts->bias);
    if (!c) return NULL;
    qn_shape shape = a->shape;
    shape.dim[shape.rank - 1] = c->shape.dim[1];
    return qn_reshape(g, c, shape);
}
