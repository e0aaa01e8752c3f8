// The losses of a router: load balance (mutual information, switch) and load concentration.
#include "grid.h"

#include "args.h"
#include "args/router_loss.h"

typedef struct loss {
    int32_t kind; // qn_router_loss
} loss;

enum { LOGITS, PROBS, GATES, EXPERTS };      // inputs
enum { LOSS, COEF, ROWS, MASS, USERS };      // outputs; COEF is what the gradient needs
enum { G_LOGITS, G_COEF, G_DLOSS };          // inputs of the gradient
enum { LEAST_BLOCK = 8, MOST_BLOCKS = 512 }; // rows of a block of partial sums; blocks

static router_loss_args sizes_of(qn_shape logits, int64_t choices)
{
    router_loss_args a = {
        .rows = (uint32_t)logits.dim[0],
        .experts = (uint32_t)logits.dim[1],
        .choices = (uint32_t)choices,
    };
    a.block = qn_div_up(qn_div_up(a.rows, MOST_BLOCKS), 4) * 4;
    if (a.block < LEAST_BLOCK) a.block = LEAST_BLOCK;
    a.blocks = qn_div_up(a.rows, a.block);
    return a;
}

static router_loss_args args_of(const qn_node *n)
{
    return sizes_of(n->in[LOGITS]->shape, qn_shape_last(n->in[GATES]->shape));
}

static int kind_of(const qn_node *n)
{
    return ((const loss *)n->attrs)->kind;
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    char text[QN_SHAPE_TEXT];
    int kind = kind_of(n);
    if (kind < QN_ROUTER_MI || kind > QN_ROUTER_CONCENTRATION)
        return qn_refuse(n, "there is no routing loss %d", kind);
    QN_TRY(qn_expect_dtype(n, LOGITS, "logits", QN_F32));
    qn_shape s = n->in[LOGITS]->shape, slots = n->in[GATES]->shape;
    if (s.rank != 2 || qn_shape_count(s) > INT32_MAX)
        return qn_refuse(n, "logits (%s) has shape %s, expected [rows, experts]",
                         n->in[LOGITS]->name, qn_shape_format(s, text));
    QN_TRY(qn_expect_dtype(n, PROBS, "probs", QN_F32));
    QN_TRY(qn_expect_shape(n, PROBS, "probs", s));
    QN_TRY(qn_expect_dtype(n, GATES, "gates", QN_F32));
    if (slots.rank != 2 || slots.dim[0] != s.dim[0] || qn_shape_count(slots) > INT32_MAX)
        return qn_refuse(n, "gates (%s) has shape %s, expected [%lld, choices]", n->in[GATES]->name,
                         qn_shape_format(slots, text), (long long)s.dim[0]);
    QN_TRY(qn_expect_dtype(n, EXPERTS, "experts", QN_I32));
    QN_TRY(qn_expect_shape(n, EXPERTS, "experts", slots));

    int64_t blocks = args_of(n).blocks;
    shape[LOSS] = QN_SCALAR;
    shape[COEF] = QN_SHAPE(s.dim[1]);
    shape[ROWS] = QN_SHAPE(blocks);
    shape[MASS] = shape[USERS] = QN_SHAPE(blocks, s.dim[1]);
    for (int i = 0; i < USERS; i++) dtype[i] = QN_F32;
    dtype[USERS] = QN_I32;
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    router_loss_args args = args_of(n);
    uint32_t chunks = qn_div_up(args.experts, 4), kind = (uint32_t)kind_of(n);
    qn_range rows = qn_at(r, n->out[ROWS]), mass = qn_at(r, n->out[MASS]);
    qn_range users = qn_at(r, n->out[USERS]);
    qn_dispatch d = {
        .kernel = QN_K_router_rows,
        .buffers = { qn_at(r, n->in[LOGITS]), rows },
        .args = &args,
        .args_size = sizeof args,
        .constants = { args.experts % 4 == 0, kind },
        .rounds = (uint64_t)args.block * (2 * chunks + 1),
    };
    qn_grid_items(dev, args.blocks, d.groups);
    if (kind != QN_ROUTER_CONCENTRATION) QN_TRY(qn_record(r, &d));

    d.kernel = QN_K_router_columns;
    d.buffers[0] = qn_at(r, n->in[PROBS]);
    d.buffers[1] = qn_at(r, n->in[GATES]);
    d.buffers[2] = qn_at(r, n->in[EXPERTS]);
    d.buffers[3] = mass;
    d.buffers[4] = users;
    d.rounds = (uint64_t)args.block * (1 + args.choices);
    qn_grid_items(dev, (uint64_t)args.blocks * chunks, d.groups);
    QN_TRY(qn_record(r, &d));

    uint64_t columns = qn_div_up(args.experts, qn_grid_lanes(dev));
    return qn_record(
        r, &(qn_dispatch){
               .kernel = QN_K_router_finish,
               .buffers = { rows, mass, users, qn_at(r, n->out[LOSS]), qn_at(r, n->out[COEF]) },
               .args = &args,
               .args_size = sizeof args,
               .constants = { args.experts % 4 == 0, kind },
               .groups = { 1, 1, 1 },
               .rounds = columns * (args.blocks + 2) + args.blocks,
           });
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    // By the logits alone; probs and gates have no share of their own.
    if (want[LOGITS] && gout[LOSS])
        gin[LOGITS] =
            QN_OP1(g, &qn_op_router_loss_grad, n->attrs, n->in[LOGITS], n->out[COEF], gout[LOSS]);
    return qn_graph_status(g);
}

const qn_op_def qn_op_router_loss = {
    .name = "router_loss",
    .reference = "moduleformer",
    .inputs = 4,
    .outputs = 5,
    .attrs_size = sizeof(loss),
    .infer = infer,
    .backward = backward,
    .record = record,
};

const qn_tensor *qn_router_loss_of(qn_graph *g, const qn_routing *routing, qn_router_loss kind)
{
    if (!routing || !routing->logits || !routing->probs || !routing->gates || !routing->experts)
        return NULL;
    loss attrs = { kind };
    return QN_OP1(g, &qn_op_router_loss, &attrs, routing->logits, routing->probs, routing->gates,
                  routing->experts);
}

// ---------------------------------------------------------------------------------- gradient

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(qn_expect_shape(n, G_DLOSS, "gradient of the loss", QN_SCALAR));
    shape[0] = n->in[G_LOGITS]->shape;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    router_loss_args args = sizes_of(n->in[G_LOGITS]->shape, 1);
    qn_dispatch d = {
        .kernel = QN_K_router_loss_grad,
        .buffers = { qn_at(r, n->in[G_LOGITS]), qn_at(r, n->in[G_COEF]), qn_at(r, n->in[G_DLOSS]),
                     qn_at(r, n->out[0]) },
        .args = &args,
        .args_size = sizeof args,
        .constants = { args.experts % 4 == 0, (uint32_t)kind_of(n) },
        .rounds = 4 * (uint64_t)qn_div_up(args.experts, 4),
    };
    qn_grid_items(qn_recorder_device(r), args.rows, d.groups);
    return qn_record(r, &d);
}

const qn_op_def qn_op_router_loss_grad = {
    .name = "router_loss_grad",
    .reference = "moduleformer",
    .inputs = 3,
    .outputs = 1,
    .attrs_size = sizeof(loss),
    .infer = infer_grad,
    .record = record_grad,
};
