// Gated sums over the slots of a row, their gradient, and rows repeated over slots.
#include "grid.h"

#include "args.h"
#include "args/combine.h"

typedef struct slots {
    int32_t choices; // K
} slots;

enum { Y, GATES, RESIDUAL };   // inputs
enum { G_Y, G_GATES, G_DOUT }; // inputs of the gradient
enum { DY, DGATES };           // its outputs
enum { MOST_ROUNDS = 1000, ALIGN_ROWS = QN_RANGE_ALIGN / 4 };

static int64_t choices_of(const qn_node *n)
{
    return ((const slots *)n->attrs)->choices;
}

static qn_result check_choices(const qn_node *n)
{
    if (choices_of(n) >= 1) return QN_OK;
    return qn_refuse(n, "%lld choices, expected at least 1", (long long)choices_of(n));
}

// A tensor [rows, width] of f32 whose elements 32-bit indices can count.
static qn_result expect_rows(const qn_node *n, int input, const char *what)
{
    char text[QN_SHAPE_TEXT];
    const qn_tensor *t = n->in[input];
    QN_TRY(qn_expect_dtype(n, input, what, QN_F32));
    if (t->shape.rank == 2 && qn_shape_count(t->shape) <= INT32_MAX) return QN_OK;
    return qn_refuse(n, "%s (%s) has shape %s, expected [rows, width]", what, t->name,
                     qn_shape_format(t->shape, text));
}

static qn_result expect_slots(const qn_node *n, int input, const char *what)
{
    char text[QN_SHAPE_TEXT];
    const qn_tensor *t = n->in[input];
    QN_TRY(check_choices(n));
    QN_TRY(expect_rows(n, input, what));
    if (t->shape.dim[0] % choices_of(n) == 0) return QN_OK;
    return qn_refuse(n, "%s (%s) has shape %s, expected a multiple of %lld rows", what, t->name,
                     qn_shape_format(t->shape, text), (long long)choices_of(n));
}

// What a kernel binds: a tensor and how many of its bytes belong to one of the N rows.
typedef struct part {
    const qn_tensor *t; // NULL: not given
    uint32_t bytes;
} part;

// Records the kernel once for each window of rows that fits the device's bindings.
static qn_result record_windows(qn_recorder *r, const qn_node *n, qn_kernel kernel,
                                combine_args args, uint64_t rows, const part *parts, int count)
{
    const qn_device_info *dev = qn_recorder_device(r);
    uint32_t choices = (uint32_t)choices_of(n);
    uint64_t widest = (uint64_t)choices * args.width * 4;
    uint64_t most = dev->max_binding / widest / ALIGN_ROWS * ALIGN_ROWS;
    if (most == 0 && rows * widest <= dev->max_binding) most = rows;
    if (most == 0)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: %d rows of %llu bytes exceed the %llu of a binding",
                       n->name, ALIGN_ROWS, (unsigned long long)widest,
                       (unsigned long long)dev->max_binding);
    uint32_t lanes = qn_grid_lanes(dev);
    for (uint64_t first = 0; first < rows; first += most) {
        uint64_t own = rows - first < most ? rows - first : most;
        args.rows = (uint32_t)own;
        qn_dispatch d = {
            .kernel = kernel,
            .args = &args,
            .args_size = sizeof args,
            .constants = { args.width % 4 == 0, choices },
        };
        for (int i = 0; i < count; i++)
            d.buffers[i] =
                parts[i].t ? qn_at_rows(r, parts[i].t, first, own, parts[i].bytes) : qn_at(r, NULL);
        uint64_t items = kernel == QN_K_combine ? own : own * choices;
        uint64_t chunks = qn_div_up(qn_div_up(args.width, 4), lanes);
        uint64_t each = MOST_ROUNDS / 2 / (chunks + 1); // items per group
        if (each < 1 || dev->kernel_class != QN_CLASS_FLAT) each = 1;
        qn_grid_spread(dev, qn_div_up(items, each), d.groups);
        each = qn_div_up(items, (uint64_t)d.groups[0] * d.groups[1]);
        d.rounds = each * (chunks + 1);
        QN_TRY(qn_record(r, &d));
    }
    return QN_OK;
}

// ----------------------------------------------------------------------------------- combine

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(expect_slots(n, Y, "y"));
    qn_shape out = QN_SHAPE(n->in[Y]->shape.dim[0] / choices_of(n), n->in[Y]->shape.dim[1]);
    if (n->in[GATES]) {
        QN_TRY(qn_expect_dtype(n, GATES, "gates", QN_F32));
        QN_TRY(qn_expect_shape(n, GATES, "gates", QN_SHAPE(out.dim[0], choices_of(n))));
    }
    if (n->in[RESIDUAL]) {
        QN_TRY(qn_expect_dtype(n, RESIDUAL, "residual", QN_F32));
        QN_TRY(qn_expect_shape(n, RESIDUAL, "residual", out));
    }
    shape[0] = out;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    qn_shape out = n->out[0]->shape;
    uint32_t row = (uint32_t)out.dim[1] * 4, choices = (uint32_t)choices_of(n);
    combine_args args = {
        .width = (uint32_t)out.dim[1],
        .gated = n->in[GATES] != NULL,
        .residual = n->in[RESIDUAL] != NULL,
    };
    const part parts[] = {
        { n->in[Y], choices * row },
        { n->in[GATES], choices * 4 },
        { n->in[RESIDUAL], row },
        { n->out[0], row },
    };
    return record_windows(r, n, QN_K_combine, args, (uint64_t)out.dim[0], parts, 4);
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    gin[RESIDUAL] = gout[0];
    if (!want[Y] && !want[GATES]) return QN_OK;
    if (!n->in[GATES]) {
        gin[Y] = QN_OP1(g, &qn_op_repeat_rows, n->attrs, gout[0]);
        return qn_graph_status(g);
    }
    const qn_tensor *in[QN_MAX_INPUTS] = { n->in[Y], n->in[GATES], gout[0] };
    const qn_node *made;
    if (!qn_op(g, &qn_op_combine_grad, n->attrs, in, &made)) return qn_graph_status(g);
    gin[Y] = made->out[DY];
    gin[GATES] = made->out[DGATES];
    return QN_OK;
}

const qn_op_def qn_op_combine = {
    .name = "combine",
    .reference = "scattermoe",
    .inputs = 3,
    .outputs = 1,
    .attrs_size = sizeof(slots),
    .infer = infer,
    .backward = backward,
    .record = record,
    .inplace = 1u << Y | 1u << RESIDUAL, // y has the result's size where K is 1
};

const qn_tensor *qn_combine(qn_graph *g, const qn_tensor *y, const qn_tensor *gates,
                            const qn_tensor *residual, int choices)
{
    if (!y) return NULL;
    slots attrs = { choices };
    return QN_OP1(g, &qn_op_combine, &attrs, y, gates, residual);
}

// ---------------------------------------------------------------------------------- gradient

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(expect_slots(n, G_Y, "y"));
    qn_shape y = n->in[G_Y]->shape, gates = QN_SHAPE(y.dim[0] / choices_of(n), choices_of(n));
    QN_TRY(qn_expect_shape(n, G_GATES, "gates", gates));
    QN_TRY(qn_expect_shape(n, G_DOUT, "gradient", QN_SHAPE(gates.dim[0], y.dim[1])));
    shape[DY] = y;
    shape[DGATES] = gates;
    dtype[DY] = dtype[DGATES] = QN_F32;
    return QN_OK;
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    qn_shape dout = n->in[G_DOUT]->shape;
    uint32_t row = (uint32_t)dout.dim[1] * 4, choices = (uint32_t)choices_of(n);
    combine_args args = { .width = (uint32_t)dout.dim[1], .gated = 1 };
    const part parts[] = {
        { n->in[G_Y], choices * row }, { n->in[G_GATES], choices * 4 }, { n->in[G_DOUT], row },
        { n->out[DY], choices * row }, { n->out[DGATES], choices * 4 },
    };
    return record_windows(r, n, QN_K_combine_grad, args, (uint64_t)dout.dim[0], parts, 5);
}

const qn_op_def qn_op_combine_grad = {
    .name = "combine_grad",
    .reference = "scattermoe",
    .inputs = 3,
    .outputs = 2,
    .attrs_size = sizeof(slots),
    .infer = infer_grad,
    .record = record_grad,
    .inplace = 1u << G_Y | 1u << G_DOUT, // as above
};

// ------------------------------------------------------------------- y[a] = x[a / K], [N*K, C]

static qn_result infer_repeat(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(check_choices(n));
    QN_TRY(expect_rows(n, 0, "x"));
    qn_shape x = n->in[0]->shape;
    shape[0] = QN_SHAPE(x.dim[0] * choices_of(n), x.dim[1]);
    dtype[0] = QN_F32;
    if (qn_shape_count(shape[0]) > INT32_MAX)
        return qn_refuse(n, "%lld elements, expected fewer than 2^31",
                         (long long)qn_shape_count(shape[0]));
    return QN_OK;
}

static qn_result record_repeat(qn_recorder *r, const qn_node *n)
{
    qn_shape x = n->in[0]->shape;
    uint32_t row = (uint32_t)x.dim[1] * 4, choices = (uint32_t)choices_of(n);
    combine_args args = { .width = (uint32_t)x.dim[1] };
    // Without gates their gradient is not written; its binding must be writable all the same.
    const part y = { n->out[0], choices * row };
    const part parts[] = { { NULL, 0 }, { NULL, 0 }, { n->in[0], row }, y, y };
    return record_windows(r, n, QN_K_combine_grad, args, (uint64_t)x.dim[0], parts, 5);
}

static qn_result backward_repeat(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                 const bool *want, const qn_tensor **gin)
{
    (void)want;
    gin[0] = qn_combine(g, gout[0], NULL, NULL, (int)choices_of(n));
    return qn_graph_status(g);
}

const qn_op_def qn_op_repeat_rows = {
    .name = "repeat_rows",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(slots),
    .infer = infer_repeat,
    .backward = backward_repeat,
    .record = record_repeat,
    .inplace = 1, // where K is 1
};
