// Depthwise convolution along time, with the rows that came before, and its gradients.
#include "grid.h"
#include "passes.h"

#include "args.h"
#include "args/causal_conv.h"

typedef struct conv {
    int64_t batch;
} conv;

enum { X, TAPS, START, DY, DEND }; // inputs; the last two of the gradients only
enum { Y, END };                   // outputs
enum { DX, DSTART };               // outputs of causal_conv_grad
enum { DW, PARTIAL };              // outputs of causal_conv_grad_w
enum { BODY, HEAD, TAIL };         // causal_conv.comp: MODE
enum { MOST_TAPS = 16, ROWS_PER_GROUP = 64, BLOCKS = 128 };

typedef struct sizes {
    int64_t batch, tokens, channels, taps;
} sizes;

static sizes sizes_of(const qn_node *n)
{
    int64_t batch = ((const conv *)n->attrs)->batch;
    qn_shape x = n->in[X]->shape, w = n->in[TAPS]->shape;
    return (sizes){ batch, x.dim[0] / batch, x.dim[1], w.dim[0] };
}

static qn_result check_inputs(const qn_node *n, const qn_device_info *dev)
{
    char text[QN_SHAPE_TEXT];
    int64_t batch = ((const conv *)n->attrs)->batch;
    qn_shape x = n->in[X]->shape, w = n->in[TAPS]->shape;
    QN_TRY(qn_expect_dtype(n, X, "x", QN_F32));
    QN_TRY(qn_expect_dtype(n, TAPS, "w", QN_F32));
    if (batch < 1) return qn_refuse(n, "batch %lld: must be at least 1", (long long)batch);
    if (x.rank != 2 || x.dim[0] % batch)
        return qn_refuse(n, "x (%s) has shape %s, expected [rows for batch %lld, channels]",
                         n->in[X]->name, qn_shape_format(x, text), (long long)batch);
    if ((uint64_t)qn_shape_count(x) * 4 > dev->max_binding)
        return qn_refuse(n, "x (%s) has more than the %llu bytes that this device can bind",
                         n->in[X]->name, (unsigned long long)dev->max_binding);
    if (w.rank != 2 || w.dim[0] > MOST_TAPS || w.dim[1] != x.dim[1])
        return qn_refuse(n, "w (%s) has shape %s, expected [1 to %d taps, %lld]", n->in[TAPS]->name,
                         qn_shape_format(w, text), MOST_TAPS, (long long)x.dim[1]);
    if (!n->in[START]) return QN_OK;
    if (w.dim[0] == 1)
        return qn_refuse(n, "start (%s) is given, expected none with one tap", n->in[START]->name);
    QN_TRY(qn_expect_dtype(n, START, "start", QN_F32));
    return qn_expect_shape(n, START, "start", QN_SHAPE(batch, w.dim[0] - 1, x.dim[1]));
}

static qn_shape before_shape(const sizes *s)
{
    return s->taps > 1 ? QN_SHAPE(s->batch, s->taps - 1, s->channels) : QN_SHAPE(1);
}

// Dispatches over rows first .. first+count-1 of every batch row.
static qn_result over_rows(qn_recorder *r, const sizes *s, qn_dispatch d, causal_conv_args args,
                           int64_t first, int64_t count)
{
    if (count <= 0) return QN_OK;
    args.batch = (uint32_t)s->batch;
    args.tokens = (uint32_t)s->tokens;
    args.channels = (uint32_t)s->channels;
    args.first = (uint32_t)first;
    args.count = (uint32_t)count;
    if (!args.block) args.block = ROWS_PER_GROUP;
    d.args = &args;
    d.args_size = sizeof args;
    d.constants[0] = s->channels % 4 == 0;
    d.constants[1] = (uint32_t)s->taps;
    qn_grid_columns(qn_recorder_device(r), (uint64_t)s->channels, (uint64_t)(s->batch * count),
                    &args.block, d.groups);
    d.rounds = args.block;
    return qn_record(r, &d);
}

// Rows whose taps reach before x.
static int64_t head_rows(const sizes *s)
{
    return s->taps - 1 < s->tokens ? s->taps - 1 : s->tokens;
}

// ----------------------------------------------------------------------------------- forward

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    QN_TRY(check_inputs(n, dev));
    sizes s = sizes_of(n);
    shape[Y] = n->in[X]->shape;
    shape[END] = before_shape(&s);
    dtype[Y] = dtype[END] = QN_F32;
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    sizes s = sizes_of(n);
    causal_conv_args args = { .given = n->in[START] != NULL };
    qn_dispatch d = { .kernel = QN_K_causal_conv,
                      .buffers = { qn_at(r, n->in[X]), qn_at(r, n->in[TAPS]),
                                   qn_at(r, n->in[START]), qn_at(r, n->out[Y]) } };
    int64_t head = head_rows(&s);
    d.constants[2] = BODY;
    QN_TRY(over_rows(r, &s, d, args, head, s.tokens - head));
    d.constants[2] = HEAD;
    QN_TRY(over_rows(r, &s, d, args, 0, head));
    d.constants[2] = TAIL;
    d.buffers[3] = qn_at(r, n->out[END]);
    return over_rows(r, &s, d, args, 0, s.taps - 1);
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    const qn_tensor *dy = gout[Y];
    if (!dy) dy = qn_scale(g, n->out[Y], 0, 0);
    const qn_tensor *in[QN_MAX_INPUTS] = { n->in[X], n->in[TAPS], n->in[START], dy, gout[END] };
    const qn_node *made;
    if (want[X] || (n->in[START] && want[START])) {
        if (!qn_op(g, &qn_op_causal_conv_grad, n->attrs, in, &made)) return qn_graph_status(g);
        gin[X] = made->out[DX];
        if (n->in[START]) gin[START] = made->out[DSTART];
    }
    in[DEND] = NULL;
    if (want[TAPS]) gin[TAPS] = qn_op(g, &qn_op_causal_conv_grad_w, n->attrs, in, NULL);
    return qn_graph_status(g);
}

static qn_cost cost(const qn_node *n)
{
    uint64_t count = (uint64_t)qn_shape_count(n->in[X]->shape);
    return (qn_cost){ 2 * count * (uint64_t)n->in[TAPS]->shape.dim[0], count * 8 };
}

const qn_op_def qn_op_causal_conv = {
    .name = "causal_conv",
    .inputs = 3,
    .outputs = 2,
    .attrs_size = sizeof(conv),
    .infer = infer,
    .backward = backward,
    .record = record,
    .cost = cost,
};

const qn_tensor *qn_causal_conv(qn_graph *g, const qn_tensor *x, const qn_tensor *w,
                                const qn_causal_conv_opts *opts)
{
    if (!x || !w) return NULL;
    static const qn_causal_conv_opts none;
    if (!opts) opts = &none;
    conv attrs = { opts->batch };
    const qn_tensor *in[QN_MAX_INPUTS] = { x, w, opts->start };
    const qn_node *made;
    const qn_tensor *y = qn_op(g, &qn_op_causal_conv, &attrs, in, &made);
    if (y && opts->end) *opts->end = made->out[END];
    return y;
}

// ----------------------------------------------------------------------------------- gradients

static qn_result check_gradient(const qn_node *n, const qn_device_info *dev)
{
    QN_TRY(check_inputs(n, dev));
    QN_TRY(qn_expect_dtype(n, DY, "gradient", QN_F32));
    return qn_expect_shape(n, DY, "gradient", n->in[X]->shape);
}

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    QN_TRY(check_gradient(n, dev));
    sizes s = sizes_of(n);
    shape[DX] = n->in[X]->shape;
    shape[DSTART] = before_shape(&s);
    dtype[DX] = dtype[DSTART] = QN_F32;
    return QN_OK;
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    sizes s = sizes_of(n);
    causal_conv_args args = { .given = n->in[DEND] != NULL };
    qn_dispatch d = { .kernel = QN_K_causal_conv_grad,
                      .buffers = { qn_at(r, n->in[TAPS]), qn_at(r, n->in[DY]),
                                   qn_at(r, n->in[DEND]), qn_at(r, n->out[DX]),
                                   qn_at(r, n->out[DSTART]) } };
    return over_rows(r, &s, d, args, 0, s.tokens + s.taps - 1);
}

const qn_op_def qn_op_causal_conv_grad = {
    .name = "causal_conv_grad",
    .inputs = 5,
    .outputs = 2,
    .attrs_size = sizeof(conv),
    .infer = infer_grad,
    .record = record_grad,
    .cost = cost,
};

// Blocks of rows summed apart: those of the body, then one of the head.
typedef struct blocks {
    int64_t head, body; // rows of a batch row
    uint32_t size, count;
} blocks;

static blocks blocks_of(const sizes *s)
{
    blocks b = { .head = head_rows(s) };
    b.body = s->tokens - b.head;
    uint64_t rows = (uint64_t)(s->batch * b.body);
    b.size = qn_div_up(rows, BLOCKS);
    if (b.size < ROWS_PER_GROUP) b.size = ROWS_PER_GROUP;
    b.count = qn_div_up(rows, b.size);
    return b;
}

static qn_result infer_grad_w(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                              qn_dtype *dtype)
{
    QN_TRY(check_gradient(n, dev));
    sizes s = sizes_of(n);
    blocks b = blocks_of(&s);
    shape[DW] = n->in[TAPS]->shape;
    shape[PARTIAL] = QN_SHAPE(b.count + 1, s.taps * s.channels);
    dtype[DW] = dtype[PARTIAL] = QN_F32;
    return QN_OK;
}

static qn_result record_grad_w(qn_recorder *r, const qn_node *n)
{
    sizes s = sizes_of(n);
    blocks b = blocks_of(&s);
    causal_conv_args args = { .given = n->in[START] != NULL, .block = b.size };
    qn_dispatch d = { .kernel = QN_K_causal_conv_grad_w,
                      .buffers = { qn_at(r, n->in[X]), qn_at(r, n->in[START]), qn_at(r, n->in[DY]),
                                   qn_at(r, n->out[PARTIAL]) } };
    QN_TRY(over_rows(r, &s, d, args, b.head, b.body));
    d.constants[2] = true;
    args.block = (uint32_t)(s.batch * b.head);
    args.to = b.count;
    QN_TRY(over_rows(r, &s, d, args, 0, b.head));
    return qn_record_last_sum(r, n->out[PARTIAL], n->out[DW], b.count + (b.head > 0),
                              (uint64_t)(s.taps * s.channels));
}

const qn_op_def qn_op_causal_conv_grad_w = {
    .name = "causal_conv_grad_w",
    .inputs = 5,
    .outputs = 2,
    .attrs_size = sizeof(conv),
    .infer = infer_grad_w,
    .record = record_grad_w,
    .cost = cost,
};
