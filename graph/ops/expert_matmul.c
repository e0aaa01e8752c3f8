// Products over experts: every slot's row times the matrix of its expert, and the gradient of those
// matrices. Slots are sorted by expert on the device; the host never learns how many each has.
#include "matmul_choose.h"
#include "op.h"

#include "args.h"
#include "args/expert_matmul.h"
#include "args/expert_outer.h"

typedef struct routed {
    int32_t choices; // K
    int32_t transpose_w;
} routed;

enum { FEW_SLOTS = 16 };       // at most so many are multiplied one by one
enum { X, W, ORDER, OFFSETS }; // inputs of expert_matmul
enum { Y = W };                // and of expert_outer in its place

static const routed *attrs_of(const qn_node *n)
{
    return n->attrs;
}

static uint64_t slots_of(const qn_node *n)
{
    return (uint64_t)qn_shape_count(n->in[ORDER]->shape);
}

static uint64_t experts_of(const qn_node *n)
{
    return (uint64_t)n->in[OFFSETS]->shape.dim[0] - 1;
}

// Slots that share a row of an input.
static uint32_t slots_per_row(const qn_node *n, int input)
{
    return (uint32_t)(slots_of(n) / (uint64_t)n->in[input]->shape.dim[0]);
}

static qn_result expect_rank(const qn_node *n, int input, const char *what, int rank,
                             const char *expected)
{
    char text[QN_SHAPE_TEXT];
    const qn_tensor *t = n->in[input];
    if (t->shape.rank == rank && qn_shape_count(t->shape) <= INT32_MAX) return QN_OK;
    return qn_refuse(n, "%s (%s) has shape %s, expected %s and fewer than 2^31 elements", what,
                     t->name, qn_shape_format(t->shape, text), expected);
}

static qn_result check_routing(const qn_node *n)
{
    int64_t k = attrs_of(n)->choices;
    QN_TRY(qn_expect_dtype(n, ORDER, "order", QN_I32));
    QN_TRY(qn_expect_dtype(n, OFFSETS, "offsets", QN_I32));
    QN_TRY(expect_rank(n, ORDER, "order", 1, "[slots]"));
    QN_TRY(expect_rank(n, OFFSETS, "offsets", 1, "[E+1]"));
    if (n->in[OFFSETS]->shape.dim[0] < 2)
        return qn_refuse(n, "offsets (%s) has no expert", n->in[OFFSETS]->name);
    if (k >= 1 && slots_of(n) % (uint64_t)k == 0) return QN_OK;
    return qn_refuse(n, "%llu slots are no multiple of %lld choices",
                     (unsigned long long)slots_of(n), (long long)k);
}

// [rows, width] of f32 with a row for each choice or for all choices of a row.
static qn_result expect_rows(const qn_node *n, int input, const char *what)
{
    char text[QN_SHAPE_TEXT];
    uint64_t slots = slots_of(n), shared = slots / (uint64_t)attrs_of(n)->choices;
    QN_TRY(qn_expect_dtype(n, input, what, QN_F32));
    QN_TRY(expect_rank(n, input, what, 2, "[rows, width]"));
    uint64_t rows = (uint64_t)n->in[input]->shape.dim[0];
    if (rows == slots || rows == shared) return QN_OK;
    return qn_refuse(n, "%s (%s) has shape %s, expected %llu rows or, one per slot, %llu", what,
                     n->in[input]->name, qn_shape_format(n->in[input]->shape, text),
                     (unsigned long long)shared, (unsigned long long)slots);
}

static qn_result check_result(const qn_node *n, uint64_t rows, uint64_t columns)
{
    if (columns <= INT32_MAX / rows) return QN_OK;
    return qn_refuse(n, "the result would have %llu x %llu elements, expected fewer than 2^31",
                     (unsigned long long)rows, (unsigned long long)columns);
}

// The routing's two tensors, or the graph's error.
static bool routing_given(qn_graph *g, const qn_routing *routing, const char *op)
{
    if (routing && routing->order && routing->offsets) return true;
    if (qn_graph_status(g) == QN_OK)
        qn_graph_fail(g, qn_fail(QN_ERR_INVALID, "%s: no routing", op));
    return false;
}

// ------------------------------------------------------------------------------------- matmul

static int64_t inner_of(const qn_node *n)
{
    return n->in[W]->shape.dim[attrs_of(n)->transpose_w ? 2 : 1];
}

static int64_t outer_of(const qn_node *n)
{
    return n->in[W]->shape.dim[attrs_of(n)->transpose_w ? 1 : 2];
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    char x[QN_SHAPE_TEXT], w[QN_SHAPE_TEXT];
    QN_TRY(check_routing(n));
    QN_TRY(expect_rows(n, X, "x"));
    QN_TRY(qn_expect_weights(n, W, "w"));
    QN_TRY(expect_rank(n, W, "w", 3, "[E, I, O]"));
    if (n->in[W]->shape.dim[0] != (int64_t)experts_of(n))
        return qn_refuse(n, "w (%s) has shape %s, but the routing has %llu experts", n->in[W]->name,
                         qn_shape_format(n->in[W]->shape, w), (unsigned long long)experts_of(n));
    if (n->in[X]->shape.dim[1] != inner_of(n))
        return qn_refuse(n, "x (%s) %s and w (%s) %s%s do not fit", n->in[X]->name,
                         qn_shape_format(n->in[X]->shape, x), n->in[W]->name,
                         qn_shape_format(n->in[W]->shape, w),
                         attrs_of(n)->transpose_w ? " transposed" : "");
    QN_TRY(check_result(n, slots_of(n), (uint64_t)outer_of(n)));
    shape[0] = QN_SHAPE((int64_t)slots_of(n), outer_of(n));
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    uint32_t i = (uint32_t)inner_of(n), o = (uint32_t)outer_of(n),
             tw = attrs_of(n)->transpose_w != 0;
    uint64_t slots = slots_of(n), experts = experts_of(n);
    qn_expert_choice c = qn_expert_matmul_choose(slots, experts, dev);
    expert_matmul_args args = {
        .experts = (uint32_t)experts,
        .n = o,
        .k = i,
        .a_row = i,
        .b_row = tw ? i : o,
        .b_batch = i * o,
        .x_last = (uint32_t)qn_shape_count(n->in[X]->shape) - 1,
    };
    qn_dispatch d = {
        .kernel = c.kernel,
        .storage = qn_storage_of(n->in[W]->dtype),
        .buffers = { qn_at(r, n->in[X]), qn_at_values(r, n->in[W]), qn_at(r, n->in[ORDER]),
                     qn_at(r, n->in[OFFSETS]), qn_at(r, n->out[0]), qn_at_scales(r, n->in[W]) },
        .args = &args,
        .args_size = sizeof args,
        .constants = { c.tile, tw, i % 4 == 0 && o % 4 == 0, slots_per_row(n, X) },
        .group_size = c.group_size,
        .rounds = i / c.terms_per_round + experts / dev->subgroup_size + 2,
    };
    // A few slots, each of another expert most likely: one by one, no tile.
    if (!tw && slots <= FEW_SLOTS) {
        const bool flat = dev->kernel_class == QN_CLASS_FLAT;
        d.kernel = QN_K_expert_vec;
        d.constants[0] = i % 4 == 0 && o % 4 == 0;
        d.constants[1] = slots_per_row(n, X);
        d.constants[2] = d.constants[3] = 0;
        d.group_size = 128;
        d.groups[0] = qn_div_up(o, flat ? 32 * dev->subgroup_size : 64);
        d.groups[1] = (uint32_t)slots;
        d.groups[2] = 1;
        d.rounds = i / 4 + experts / 4 + 130;
        return qn_record(r, &d);
    }
    uint64_t tiles = slots / c.rows + experts; // shaders/experts/tile.glsl
    for (uint64_t first = 0; first < tiles; first += dev->max_groups) {
        uint64_t count = tiles - first < dev->max_groups ? tiles - first : dev->max_groups;
        args.first_tile = (uint32_t)first;
        d.groups[0] = qn_div_up(o, c.columns);
        d.groups[1] = (uint32_t)count;
        d.groups[2] = 1;
        QN_TRY(qn_record(r, &d));
    }
    return QN_OK;
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    const routed *at = attrs_of(n);
    if (want[X]) {
        routed back = { at->choices, !at->transpose_w };
        gin[X] =
            QN_OP1(g, &qn_op_expert_matmul, &back, gout[0], n->in[W], n->in[ORDER], n->in[OFFSETS]);
        if (slots_per_row(n, X) > 1)
            gin[X] = qn_combine(g, gin[X], NULL, NULL, (int)slots_per_row(n, X));
    }
    if (want[W]) { // where w is [E, O, I], the rows of the result are y's
        const qn_tensor *x = at->transpose_w ? gout[0] : n->in[X];
        const qn_tensor *y = at->transpose_w ? n->in[X] : gout[0];
        gin[W] = QN_OP1(g, &qn_op_expert_outer, at, x, y, n->in[ORDER], n->in[OFFSETS]);
    }
    return qn_graph_status(g);
}

static qn_cost cost(const qn_node *n)
{
    uint64_t i = (uint64_t)inner_of(n), o = (uint64_t)outer_of(n);
    return (qn_cost){
        .flops = 2 * slots_of(n) * i * o,
        .bytes = (uint64_t)qn_shape_count(n->in[X]->shape) * 4 + slots_of(n) * (o * 4 + 4) +
                 qn_dtype_bytes(n->in[W]->dtype, experts_of(n) * i * o),
    };
}

const qn_op_def qn_op_expert_matmul = {
    .name = "expert_matmul",
    .reference = "scattermoe",
    .inputs = 4,
    .outputs = 1,
    .attrs_size = sizeof(routed),
    .infer = infer,
    .backward = backward,
    .record = record,
    .cost = cost,
};

const qn_tensor *qn_expert_matmul(qn_graph *g, const qn_tensor *x, const qn_tensor *w,
                                  const qn_routing *routing, const qn_expert_opts *opts)
{
    if (!x || !w || !routing_given(g, routing, "expert_matmul")) return NULL;
    routed at = { routing->choices, opts && opts->transpose_w };
    return QN_OP1(g, &qn_op_expert_matmul, &at, x, w, routing->order, routing->offsets);
}

// -------------------------------------------------------------------------------------- outer

static qn_result infer_outer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                             qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(check_routing(n));
    QN_TRY(expect_rows(n, X, "x"));
    QN_TRY(expect_rows(n, Y, "y"));
    uint64_t i = (uint64_t)n->in[X]->shape.dim[1], o = (uint64_t)n->in[Y]->shape.dim[1];
    QN_TRY(check_result(n, experts_of(n), i));
    QN_TRY(check_result(n, experts_of(n) * i, o));
    shape[0] = QN_SHAPE((int64_t)experts_of(n), (int64_t)i, (int64_t)o);
    dtype[0] = QN_F32;
    return QN_OK;
}

// Slots of one expert that one pass sums: few enough rounds for drivers that count them.
enum { MOST_SLOTS = 1 << 17 };

static qn_result record_outer(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    uint32_t i = (uint32_t)n->in[X]->shape.dim[1], o = (uint32_t)n->in[Y]->shape.dim[1];
    uint64_t slots = slots_of(n), experts = experts_of(n);
    qn_expert_choice c = qn_expert_outer_choose(i, dev);
    expert_outer_args args = {
        .m = i,
        .n = o,
        .count = MOST_SLOTS,
        .x_last = (uint32_t)qn_shape_count(n->in[X]->shape) - 1,
        .y_last = (uint32_t)qn_shape_count(n->in[Y]->shape) - 1,
    };
    qn_dispatch d = {
        .kernel = c.kernel,
        .buffers = { qn_at(r, n->in[X]), qn_at(r, n->in[Y]), qn_at(r, n->in[ORDER]),
                     qn_at(r, n->in[OFFSETS]), qn_at(r, n->out[0]) },
        .args = &args,
        .args_size = sizeof args,
        .group_size = c.group_size,
        .groups = { qn_div_up(o, c.columns), qn_div_up(i, c.rows), 1 },
        .rounds = (slots < MOST_SLOTS ? slots : MOST_SLOTS) / c.terms_per_round + 1,
    };
    // One expert may have all slots: passes for that many, in which the others rest.
    for (uint64_t first = 0; first < slots; first += MOST_SLOTS)
        for (uint64_t e = 0; e < experts; e += dev->max_groups) {
            uint64_t count = experts - e < dev->max_groups ? experts - e : dev->max_groups;
            args.first = (uint32_t)first;
            args.first_expert = (uint32_t)e;
            d.constants[0] = c.tile;
            d.constants[1] = i % 4 == 0 && o % 4 == 0;
            d.constants[2] = slots_per_row(n, X);
            d.constants[3] = slots_per_row(n, Y);
            d.constants[4] = first > 0;
            d.groups[2] = (uint32_t)count;
            QN_TRY(qn_record(r, &d));
        }
    return QN_OK;
}

static qn_cost cost_outer(const qn_node *n)
{
    uint64_t i = (uint64_t)n->in[X]->shape.dim[1], o = (uint64_t)n->in[Y]->shape.dim[1];
    return (qn_cost){
        .flops = 2 * slots_of(n) * i * o,
        .bytes = (uint64_t)qn_shape_count(n->in[X]->shape) * 4 + slots_of(n) * (o * 4 + 4) +
                 experts_of(n) * i * o * 4,
    };
}

const qn_op_def qn_op_expert_outer = {
    .name = "expert_outer",
    .reference = "scattermoe",
    .inputs = 4,
    .outputs = 1,
    .attrs_size = sizeof(routed),
    .infer = infer_outer,
    .record = record_outer,
    .cost = cost_outer,
};

const qn_tensor *qn_expert_outer(qn_graph *g, const qn_tensor *x, const qn_tensor *y,
                                 const qn_routing *routing)
{
    if (!x || !y || !routing_given(g, routing, "expert_outer")) return NULL;
    routed at = { .choices = routing->choices };
    return QN_OP1(g, &qn_op_expert_outer, &at, x, y, routing->order, routing->offsets);
}
