// Stick-breaking attention and its gradient. Logits and weights are made for a block of query rows
// at a time in scratch memory of bounded size, so that every sum over keys, rows or columns is a
// matrix product whatever the head width, and the gradient, which recomputes them, needs nothing
// from the forward pass:
//   forward   z = scale q k'; w = weights(z); o = w v
//   backward  z, w again; p = do v'; dz = slopes(z, w, p); dq = scale dz k;
//             dk += scale dz' q; dv += w' do
// Within a row log-space sums run from the newest key to the oldest, and the sums of the gradient
// from the oldest to the newest: no cancellation, whatever the length.
#include "op.h"

#include "args.h"
#include "args/stickbreaking.h"
#include <math.h>

typedef struct attention {
    int64_t batch, heads, slots;
    int64_t keys; // S where given, else 0: all rows of k, over the batch
    float scale;
    bool skip_current;
    int64_t window;
} attention;

enum { Q, K, V, USED, KEEP, DOUT }; // inputs; DOUT of the gradient only
enum { OUT, REM, SCRATCH };         // outputs of the forward pass
enum { DQ, DK, DV, GRAD_SCRATCH };  // outputs of the gradient
enum { Z, W, P, DZ };               // planes of scratch; the forward pass has two
enum { MAX_WIDTH = 1024, MAX_KEYS = 200000, MAX_GROUPS = 65535 };

// Sizes of one use, and how it is cut into blocks.
typedef struct layout {
    bool flat;
    int64_t batch, heads, slots, tokens, keys, width;
    uint32_t tile;        // query rows of a tile
    uint32_t stride;      // of a row of a plane, elements
    uint32_t rows, pairs; // of a block
    uint64_t plane;       // elements, a multiple of QN_RANGE_ALIGN / 4
} layout;

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int64_t keys_of(const qn_node *n)
{
    const attention *at = n->attrs;
    return at->keys ? at->keys : qn_shape_rows(n->in[K]->shape) / at->batch;
}

// Each batch row names its block of keys.
static bool in_blocks(const qn_node *n)
{
    return n->in[USED] && n->in[USED]->shape.rank == 2;
}

// A pure function of the shapes and the kind of device.
static layout layout_of(const qn_node *n, const qn_device_info *dev)
{
    const attention *at = n->attrs;
    layout l = {
        .flat = dev->kernel_class == QN_CLASS_FLAT,
        .batch = at->batch,
        .heads = at->heads,
        .slots = at->slots,
        .tokens = qn_shape_rows(n->in[Q]->shape) / (at->batch * at->slots),
        .keys = keys_of(n),
        .width = qn_shape_last(n->in[Q]->shape) / at->heads,
    };
    uint64_t rows = (uint64_t)(l.tokens * l.slots), pairs = (uint64_t)(l.batch * l.heads);
    // An odd number of cache lines: rows of a power of two would share their cache sets.
    l.stride = (uint32_t)(l.keys + 15) / 16 * 16 | 16;
    l.tile = !l.flat ? 32 : rows <= 4 ? 4 : rows <= 8 ? 8 : 16;
    // A plane that stays in a core's cache, or in that of a GPU and still fills it.
    uint64_t room = l.flat ? 1u << 18 : 1u << 22;
    uint64_t fit = room / l.stride / 32 * 32;
    l.rows = (uint32_t)min_u64(rows, fit < 32 ? 32 : fit);
    l.rows = (uint32_t)min_u64(l.rows, MAX_GROUPS & ~31);
    fit = l.rows == rows ? room / (rows * l.stride) : 1;
    l.pairs = (uint32_t)min_u64(min_u64(pairs, fit < 1 ? 1 : fit), MAX_GROUPS);
    l.plane = ((uint64_t)l.pairs * l.rows * l.stride + QN_RANGE_ALIGN / 4 - 1) &
              ~(uint64_t)(QN_RANGE_ALIGN / 4 - 1);
    return l;
}

// ---------------------------------------------------------------------------------- shapes

static qn_result check_sizes(const qn_node *n)
{
    const attention *at = n->attrs;
    if (at->batch < 1 || at->heads < 1 || at->slots < 1)
        return qn_refuse(n, "batch %lld, heads %lld, slots %lld: each must be at least 1",
                         (long long)at->batch, (long long)at->heads, (long long)at->slots);
    if (at->window < 0)
        return qn_refuse(n, "a window of %lld keys, expected at least 1, or 0 for all",
                         (long long)at->window);
    if (!isfinite(at->scale))
        return qn_refuse(n, "scale is %g, expected a finite number", at->scale);

    char text[QN_SHAPE_TEXT];
    qn_shape q = n->in[Q]->shape, k = n->in[K]->shape;
    int64_t columns = qn_shape_last(q);
    if (columns % at->heads || columns / at->heads > MAX_WIDTH)
        return qn_refuse(n, "q (%s) has %lld columns, expected %lld heads of 1 to %d columns",
                         n->in[Q]->name, (long long)columns, (long long)at->heads, MAX_WIDTH);
    if (qn_shape_rows(q) % at->slots || qn_shape_rows(q) / at->slots % at->batch)
        return qn_refuse(n, "q (%s) has shape %s, expected rows for batch %lld and %lld slots",
                         n->in[Q]->name, qn_shape_format(q, text), (long long)at->batch,
                         (long long)at->slots);
    if (at->keys < 0 || (at->keys > 0) != in_blocks(n))
        return qn_refuse(n, "keys %lld, expected a positive number with used [B, 2], 0 otherwise",
                         (long long)at->keys);
    if (at->keys && qn_shape_rows(k) % at->keys)
        return qn_refuse(n, "k (%s) has shape %s, expected blocks of %lld rows", n->in[K]->name,
                         qn_shape_format(k, text), (long long)at->keys);
    if (qn_shape_last(k) != columns || (!at->keys && qn_shape_rows(k) % at->batch))
        return qn_refuse(n, "k (%s) has shape %s, expected %lld columns and rows for batch %lld",
                         n->in[K]->name, qn_shape_format(k, text), (long long)columns,
                         (long long)at->batch);
    int64_t tokens = qn_shape_rows(q) / at->slots / at->batch, keys = keys_of(n);
    if (qn_shape_count(q) > INT32_MAX || qn_shape_count(k) > INT32_MAX)
        return qn_refuse(n, "q has %lld elements and k %lld, expected fewer than 2^31",
                         (long long)qn_shape_count(q), (long long)qn_shape_count(k));
    if (keys < tokens || keys > MAX_KEYS)
        return qn_refuse(n, "k (%s) has %lld positions, expected %lld (those of q) to %d",
                         n->in[K]->name, (long long)keys, (long long)tokens, MAX_KEYS);
    return QN_OK;
}

static qn_result check_inputs(const qn_node *n)
{
    static const char *const names[] = { "q", "k", "v" };
    for (int i = Q; i <= V; i++) QN_TRY(qn_expect_dtype(n, i, names[i], QN_F32));
    QN_TRY(check_sizes(n));
    QN_TRY(qn_expect_shape(n, V, "v", n->in[K]->shape));
    if (n->in[USED]) {
        QN_TRY(qn_expect_dtype(n, USED, "used", QN_I32));
        const attention *use = n->attrs;
        if (in_blocks(n))
            QN_TRY(qn_expect_shape(n, USED, "used", QN_SHAPE(use->batch, 2)));
        else if (n->in[USED]->shape.rank == 1)
            QN_TRY(qn_expect_shape(n, USED, "used", QN_SHAPE(use->batch)));
        else
            QN_TRY(qn_expect_shape(n, USED, "used", QN_SCALAR));
    }
    if (!n->in[KEEP]) return QN_OK;
    const attention *at = n->attrs;
    QN_TRY(qn_expect_dtype(n, KEEP, "keep", QN_I32));
    return qn_expect_shape(n, KEEP, "keep",
                           QN_SHAPE(at->batch, keys_of(n)));
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    QN_TRY(check_inputs(n));
    shape[OUT] = n->in[Q]->shape;
    shape[REM] = QN_SHAPE(qn_shape_rows(n->in[Q]->shape), ((const attention *)n->attrs)->heads);
    shape[SCRATCH] = QN_SHAPE(2, (int64_t)layout_of(n, dev).plane);
    dtype[OUT] = dtype[REM] = dtype[SCRATCH] = QN_F32;
    return QN_OK;
}

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    QN_TRY(check_inputs(n));
    QN_TRY(qn_expect_dtype(n, DOUT, "gradient", QN_F32));
    QN_TRY(qn_expect_shape(n, DOUT, "gradient", n->in[Q]->shape));
    shape[DQ] = n->in[Q]->shape;
    shape[DK] = shape[DV] = n->in[K]->shape;
    shape[GRAD_SCRATCH] = QN_SHAPE(4, (int64_t)layout_of(n, dev).plane);
    for (int i = 0; i <= GRAD_SCRATCH; i++) dtype[i] = QN_F32;
    return QN_OK;
}

// ---------------------------------------------------------------------------------- kernels

// One block of one use.
typedef struct block {
    qn_recorder *r;
    const qn_node *n;
    layout l;
    uint32_t pairs; // of this block; the last may have fewer than l.pairs
    stickbreaking_args args;
    qn_range planes[4], used, keep;
} block;

static qn_result dispatch(const block *b, qn_kernel portable, qn_kernel flat, qn_dispatch d)
{
    d.kernel = b->l.flat ? flat : portable;
    d.args = &b->args;
    d.args_size = sizeof b->args;
    d.groups[2] = b->pairs;
    return qn_record(b->r, &d);
}

// Quads of columns per lane, in flat kernels whose lanes hold columns; otherwise 0.
static uint32_t quads_per_lane(const block *b)
{
    if (!b->l.flat) return 0;
    return b->l.width > qn_recorder_device(b->r)->subgroup_size * 4 ? 2 : 1;
}

static uint32_t column_groups(const block *b)
{
    uint32_t lanes = qn_recorder_device(b->r)->subgroup_size;
    return qn_div_up((uint64_t)b->l.width, b->l.flat ? lanes * 4 * quads_per_lane(b) : 32);
}

// plane = scale x y'.
static qn_result logits(block *b, qn_range plane, qn_range x, qn_range y, float scale)
{
    const layout *l = &b->l;
    uint32_t columns = l->flat ? qn_recorder_device(b->r)->subgroup_size * 4 : 32;
    b->args.scale = scale;
    return dispatch(
        b, QN_K_stick_logits, QN_K_stick_logits_flat,
        (qn_dispatch){
            .buffers = { x, y, b->used, plane },
            .constants = { l->width % 4 == 0, l->flat ? l->tile : 0 },
            .groups = { qn_div_up((uint64_t)l->keys, columns), qn_div_up(b->args.rows, l->tile) },
        });
}

// Plane W from plane Z; `rem` receives the left-over where STICK_REM is set.
static qn_result weights(const block *b, qn_range rem)
{
    const layout *l = &b->l;
    uint32_t rows = b->args.rows, lanes = qn_recorder_device(b->r)->subgroup_size;
    return dispatch(b, QN_K_stick_weights, QN_K_stick_weights_flat,
                    (qn_dispatch){
                        .buffers = { b->planes[Z], b->used, b->keep, b->planes[W], rem },
                        .constants = { b->keep.buffer != NULL, l->flat ? l->tile : 0 },
                        .groups = { l->flat ? 1 : rows, l->flat ? qn_div_up(rows, lanes) : 1 },
                        .rounds = l->stride / 16 + 1,
                    });
}

// Plane DZ from planes Z, W and P.
static qn_result slopes(const block *b)
{
    const layout *l = &b->l;
    uint32_t rows = b->args.rows, lanes = qn_recorder_device(b->r)->subgroup_size;
    return dispatch(b, QN_K_stick_grad, QN_K_stick_grad_flat,
                    (qn_dispatch){
                        .buffers = { b->planes[Z], b->planes[W], b->planes[P], b->used, b->keep,
                                     b->planes[DZ] },
                        .constants = { b->keep.buffer != NULL, l->flat ? l->tile : 0 },
                        .groups = { l->flat ? 1 : rows, l->flat ? qn_div_up(rows, lanes) : 1 },
                        .rounds = l->stride / 16 + 1,
                    });
}

// Takes back the factor of the planes W and DZ (shaders/attention/stick.glsl).
static float lowered(const block *b, float scale)
{
    return b->l.flat ? scale * 0x1p-30f : scale;
}

// Query rows: out = scale plane y, plane W or DZ.
static qn_result mix(block *b, qn_range plane, qn_range y, qn_range out, float scale)
{
    b->args.scale = lowered(b, scale);
    return dispatch(
        b, QN_K_stick_mix, QN_K_stick_mix_flat,
        (qn_dispatch){
            .buffers = { plane, y, b->used, out },
            .constants = { b->l.width % 4 == 0, b->l.flat ? b->l.tile : 0, quads_per_lane(b) },
            .groups = { column_groups(b), qn_div_up(b->args.rows, b->l.tile) },
            .rounds = b->l.stride / 4 + 1,
        });
}

// Key rows: out (+)= scale plane' x, plane W or DZ, the first block of rows overwriting.
static qn_result spread(block *b, qn_range plane, qn_range x, qn_range out, float scale)
{
    block c = *b;
    c.args.scale = lowered(b, scale);
    if (b->args.first_row) c.args.flags |= STICK_ADD;
    return dispatch(
        &c, QN_K_stick_spread, QN_K_stick_spread_flat,
        (qn_dispatch){
            .buffers = { plane, x, b->used, out },
            .constants = { b->l.width % 4 == 0, quads_per_lane(b) },
            .groups = { column_groups(b), qn_div_up((uint64_t)b->l.keys, b->l.flat ? 16 : 32) },
            .rounds = b->args.rows / 4 + 1,
        });
}

static float scale_of(const qn_node *n)
{
    const attention *at = n->attrs;
    if (at->scale != 0) return at->scale;
    return (float)(1 / sqrt((double)qn_shape_last(n->in[Q]->shape) / (double)at->heads));
}

// Calls `one` for every block, rows of a pair in ascending order.
static qn_result each_block(qn_recorder *r, const qn_node *n, const qn_tensor *scratch, int planes,
                            qn_result (*one)(block *b))
{
    block b = { .r = r, .n = n, .l = layout_of(n, qn_recorder_device(r)) };
    b.used = qn_at(r, n->in[USED]);
    b.keep = qn_at(r, n->in[KEEP]);
    for (int i = 0; i < planes; i++)
        b.planes[i] = qn_at_rows(r, scratch, (uint64_t)i, 1, b.l.plane * 4);
    b.args = (stickbreaking_args){
        .tokens = (uint32_t)b.l.tokens,
        .slots = (uint32_t)b.l.slots,
        .keys = (uint32_t)b.l.keys,
        .heads = (uint32_t)b.l.heads,
        .width = (uint32_t)b.l.width,
        .stride = b.l.stride,
        .window = (uint32_t)((const attention *)n->attrs)->window,
        .blocks = (uint32_t)(qn_shape_rows(n->in[K]->shape) / b.l.keys),
        .flags = (n->in[USED] ? STICK_USED : 0) | (in_blocks(n) ? STICK_BLOCK : 0) |
                 (n->in[USED] && n->in[USED]->shape.rank ? STICK_EACH : 0) | (n->in[KEEP] ? STICK_KEEP : 0) |
                 (((const attention *)n->attrs)->skip_current ? STICK_SKIP : 0),
    };
    uint64_t pairs = (uint64_t)(b.l.batch * b.l.heads), rows = (uint64_t)(b.l.tokens * b.l.slots);
    for (uint64_t p = 0; p < pairs; p += b.l.pairs) {
        b.args.first_pair = (uint32_t)p;
        b.pairs = (uint32_t)min_u64(b.l.pairs, pairs - p);
        for (uint64_t i = 0; i < rows; i += b.l.rows) {
            b.args.first_row = (uint32_t)i;
            b.args.rows = (uint32_t)min_u64(b.l.rows, rows - i);
            QN_TRY(one(&b));
        }
    }
    return QN_OK;
}

static qn_result forward_block(block *b)
{
    const qn_node *n = b->n;
    QN_TRY(logits(b, b->planes[Z], qn_at(b->r, n->in[Q]), qn_at(b->r, n->in[K]), scale_of(n)));
    b->args.flags |= STICK_REM;
    QN_TRY(weights(b, qn_at(b->r, n->out[REM])));
    return mix(b, b->planes[W], qn_at(b->r, n->in[V]), qn_at(b->r, n->out[OUT]), 1);
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    return each_block(r, n, n->out[SCRATCH], 2, forward_block);
}

static qn_result backward_block(block *b)
{
    const qn_node *n = b->n;
    float scale = scale_of(n);
    qn_range q = qn_at(b->r, n->in[Q]), k = qn_at(b->r, n->in[K]), v = qn_at(b->r, n->in[V]);
    qn_range dout = qn_at(b->r, n->in[DOUT]);
    QN_TRY(logits(b, b->planes[Z], q, k, scale));
    QN_TRY(logits(b, b->planes[P], dout, v, 1));
    QN_TRY(weights(b, b->planes[DZ])); // bound, not written
    QN_TRY(slopes(b));
    QN_TRY(mix(b, b->planes[DZ], k, qn_at(b->r, n->out[DQ]), scale));
    QN_TRY(spread(b, b->planes[DZ], q, qn_at(b->r, n->out[DK]), scale));
    return spread(b, b->planes[W], dout, qn_at(b->r, n->out[DV]), 1);
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    return each_block(r, n, n->out[GRAD_SCRATCH], 4, backward_block);
}

// ---------------------------------------------------------------------------------- the rest

static qn_cost cost_of(const qn_node *n, int products, int outputs)
{
    const attention *at = n->attrs;
    uint64_t columns = (uint64_t)qn_shape_last(n->in[Q]->shape);
    uint64_t rows = (uint64_t)qn_shape_rows(n->in[Q]->shape);
    uint64_t keys = (uint64_t)keys_of(n);
    uint64_t tokens = rows / (uint64_t)(at->batch * at->slots);
    // A row sees all keys but half of the new positions, on average.
    uint64_t visible = rows * (2 * keys - tokens + 1) / 2;
    qn_cost c = { .flops = (uint64_t)products * 2 * columns * visible };
    for (int i = 0; i < n->inputs; i++)
        if (n->in[i]) c.bytes += (uint64_t)qn_shape_count(n->in[i]->shape) * 4;
    for (int i = 0; i < outputs; i++) c.bytes += (uint64_t)qn_shape_count(n->out[i]->shape) * 4;
    // Each product reads or writes a plane, each scan does both.
    c.bytes += (uint64_t)(products + products / 2 + 1) * visible * (uint64_t)at->heads * 4;
    return c;
}

static qn_cost cost(const qn_node *n)
{
    return cost_of(n, 2, SCRATCH);
}

static qn_cost cost_grad(const qn_node *n)
{
    return cost_of(n, 5, GRAD_SCRATCH);
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    if (in_blocks(n)) return qn_refuse(n, "attention over blocks of keys has no gradient");
    if (!gout[OUT]) return QN_OK; // only the left-over is used, which has no gradient
    const qn_tensor *in[QN_MAX_INPUTS] = { n->in[Q],    n->in[K],    n->in[V],
                                           n->in[USED], n->in[KEEP], gout[OUT] };
    const qn_node *made;
    if (!qn_op(g, &qn_op_stickbreaking_grad, n->attrs, in, &made)) return qn_graph_status(g);
    for (int i = 0; i < 3; i++)
        if (want[i]) gin[i] = made->out[i];
    return QN_OK;
}

const qn_op_def qn_op_stickbreaking = {
    .name = "stickbreaking",
    .reference = "moduleformer",
    .inputs = 5,
    .outputs = 3,
    .attrs_size = sizeof(attention),
    .infer = infer,
    .backward = backward,
    .record = record,
    .cost = cost,
};

const qn_op_def qn_op_stickbreaking_grad = {
    .name = "stickbreaking_grad",
    .reference = "moduleformer",
    .inputs = 6,
    .outputs = 4,
    .attrs_size = sizeof(attention),
    .infer = infer_grad,
    .record = record_grad,
    .cost = cost_grad,
};

const qn_tensor *qn_stickbreaking(qn_graph *g, const qn_tensor *q, const qn_tensor *k,
                                  const qn_tensor *v, const qn_stickbreaking_opts *opts)
{
    if (!q || !k || !v) return NULL;
    static const qn_stickbreaking_opts none;
    if (!opts) opts = &none;
    attention at = {
        .batch = opts->batch,
        .heads = opts->heads,
        .slots = opts->slots ? opts->slots : 1,
        .keys = opts->keys,
        .scale = opts->scale,
        .skip_current = opts->skip_current,
        .window = opts->window,
    };
    const qn_tensor *in[QN_MAX_INPUTS] = { q, k, v, opts->used, opts->keep };
    const qn_node *made;
    const qn_tensor *out = qn_op(g, &qn_op_stickbreaking, &at, in, &made);
    if (out && opts->rem) *opts->rem = made->out[REM];
    return out;
}
