// Routing: probabilities, the chosen experts with their gates, and the gradient to the logits.
#include "grid.h"

#include "args.h"
#include "args/route.h"
#include "args/route_grad.h"

typedef struct routing {
    int32_t choices, sampled;
    uint32_t stream;
} routing;

enum { LOGITS, SEED };                           // inputs
enum { PROBS, GATES, EXPERTS };                  // outputs
enum { G_PROBS, G_EXPERTS, G_DGATES, G_DPROBS }; // inputs of the gradient

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    const routing *at = n->attrs;
    const qn_tensor *logits = n->in[LOGITS];
    char text[QN_SHAPE_TEXT];
    QN_TRY(qn_expect_dtype(n, LOGITS, "logits", QN_F32));
    if (logits->shape.rank != 2 || qn_shape_count(logits->shape) > INT32_MAX)
        return qn_refuse(n, "logits (%s) has shape %s, expected [rows, experts]", logits->name,
                         qn_shape_format(logits->shape, text));
    int64_t rows = logits->shape.dim[0], experts = logits->shape.dim[1];
    if (at->choices < 1 || at->choices > experts)
        return qn_refuse(n, "%d choices, expected 1 to %lld, the number of experts", at->choices,
                         (long long)experts);
    if (at->sampled < 0 || at->sampled > at->choices)
        return qn_refuse(n, "%d sampled choices, expected 0 to %d", at->sampled, at->choices);
    if (at->sampled > 0) {
        if (!n->in[SEED]) return qn_refuse(n, "sampled choices need a seed");
        QN_TRY(qn_expect_dtype(n, SEED, "seed", QN_I32));
        QN_TRY(qn_expect_shape(n, SEED, "seed", QN_SCALAR));
    }
    shape[PROBS] = logits->shape;
    shape[GATES] = shape[EXPERTS] = QN_SHAPE(rows, at->choices);
    dtype[PROBS] = dtype[GATES] = QN_F32;
    dtype[EXPERTS] = QN_I32;
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const routing *at = n->attrs;
    qn_shape s = n->in[LOGITS]->shape;
    route_args args = {
        .rows = (uint32_t)s.dim[0],
        .experts = (uint32_t)s.dim[1],
        .choices = (uint32_t)at->choices,
        .sampled = (uint32_t)at->sampled,
        .stream = at->stream,
    };
    qn_dispatch d = {
        .kernel = QN_K_route,
        .buffers = { qn_at(r, n->in[LOGITS]), qn_at(r, n->in[SEED]), qn_at(r, n->out[PROBS]),
                     qn_at(r, n->out[GATES]), qn_at(r, n->out[EXPERTS]) },
        .args = &args,
        .args_size = sizeof args,
        .constants = { args.experts % 4 == 0 },
        .rounds = (uint64_t)qn_div_up(args.experts, 4) * (3 + args.choices) + args.choices,
    };
    qn_grid_items(qn_recorder_device(r), args.rows, d.groups);
    return qn_record(r, &d);
}

static qn_cost cost(const qn_node *n)
{
    const routing *at = n->attrs;
    uint64_t count = (uint64_t)qn_shape_count(n->in[LOGITS]->shape);
    uint64_t slots = (uint64_t)qn_shape_count(n->out[GATES]->shape);
    return (qn_cost){
        .flops = count * (8 + 4 * (uint64_t)at->choices),
        .bytes = 4 * (2 * count + 2 * slots),
    };
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    (void)want; // the seed, an integer, wants none
    gin[LOGITS] = QN_OP1(g, &qn_op_route_grad, NULL, n->out[PROBS], n->out[EXPERTS], gout[GATES],
                         gout[PROBS]);
    return qn_graph_status(g);
}

const qn_op_def qn_op_route = {
    .name = "route",
    .reference = "moduleformer",
    .inputs = 2,
    .outputs = 3,
    .attrs_size = sizeof(routing),
    .infer = infer,
    .backward = backward,
    .record = record,
    .cost = cost,
};

qn_routing qn_route(qn_graph *g, const qn_tensor *logits, const qn_route_opts *opts)
{
    if (!logits) return (qn_routing){ 0 };
    static const qn_route_opts none;
    if (!opts) opts = &none;
    routing attrs = {
        .choices = opts->choices,
        .sampled = opts->sampled,
        .stream = opts->stream,
    };
    const qn_tensor *in[QN_MAX_INPUTS] = { logits, opts->sampled > 0 ? opts->seed : NULL };
    const qn_node *made;
    if (!qn_op(g, &qn_op_route, &attrs, in, &made)) return (qn_routing){ 0 };
    qn_sorted sorted = qn_counting_sort(g, made->out[EXPERTS], (int)logits->shape.dim[1]);
    if (!sorted.order) return (qn_routing){ 0 };
    return (qn_routing){
        .logits = logits,
        .probs = made->out[PROBS],
        .gates = made->out[GATES],
        .experts = made->out[EXPERTS],
        .order = sorted.order,
        .offsets = sorted.offsets,
        .choices = opts->choices,
    };
}

// ---------------------------------------------------------------------------------- gradient

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    qn_shape probs = n->in[G_PROBS]->shape, slots = n->in[G_EXPERTS]->shape;
    if (n->in[G_DGATES]) QN_TRY(qn_expect_shape(n, G_DGATES, "gradient of gates", slots));
    if (n->in[G_DPROBS]) QN_TRY(qn_expect_shape(n, G_DPROBS, "gradient of probs", probs));
    shape[0] = probs;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    qn_shape s = n->in[G_PROBS]->shape;
    route_grad_args args = {
        .rows = (uint32_t)s.dim[0],
        .experts = (uint32_t)s.dim[1],
        .choices = (uint32_t)qn_shape_last(n->in[G_EXPERTS]->shape),
        .has_gates = n->in[G_DGATES] != NULL,
        .has_probs = n->in[G_DPROBS] != NULL,
    };
    qn_dispatch d = {
        .kernel = QN_K_route_grad,
        .buffers = { qn_at(r, n->in[G_PROBS]), qn_at(r, n->in[G_EXPERTS]),
                     qn_at(r, n->in[G_DGATES]), qn_at(r, n->in[G_DPROBS]), qn_at(r, n->out[0]) },
        .args = &args,
        .args_size = sizeof args,
        .constants = { args.experts % 4 == 0 },
        .rounds = 2 * ((uint64_t)qn_div_up(args.experts, 4) + args.choices),
    };
    qn_grid_items(qn_recorder_device(r), args.rows, d.groups);
    return qn_record(r, &d);
}

const qn_op_def qn_op_route_grad = {
    .name = "route_grad",
    .reference = "moduleformer",
    .inputs = 4,
    .outputs = 1,
    .infer = infer_grad,
    .record = record_grad,
};
