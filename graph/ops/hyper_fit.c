// Many Adam steps of many hypernetworks in one dispatch.
#include "graph_impl.h"
#include "hyper.h"

#include "args.h"
#include "args/hyper_fit.h"

enum { STATE, FITS, ORDERS, START, RATES, X, Y, MASKS, COLUMNS, INPUTS };
enum { OUT_STATE, LOSSES, SCRATCH };
enum { W1 = QN_HYPER_WIDTH1, W2 = QN_HYPER_WIDTH2 };
enum {
    MOST_SLOTS = 520,     // parameters in an invocation's private arrays: more compile for too long
    MOST_ROUNDS = 50000,  // loop rounds of a dispatch, where a driver limits them
    MOST_STEPS = 1000,    // of a dispatch, where none does
};

typedef struct fit_attrs {
    qn_hyper_fit_opts opts;
    int views;
} fit_attrs;

// How the work is laid out: a function of shapes and device alone.
typedef struct layout {
    bool resident;
    uint32_t group, rows_each; // invocations of a group; R
    uint32_t n0, nr;           // columns and rows of the first and the last layer's slots
    uint64_t chosen, count, parameters, tasks, scratch;
} layout;

static uint32_t slots_of(uint32_t group, uint64_t columns, uint64_t count)
{
    return qn_div_up(columns, group / W1) + (W1 + W2) * W2 / group +
           qn_div_up(count, group) * (W2 + 1) + 3; // as SLOTS in shaders/hyper/fit.glsl
}

// Time of the target networks' part of a step, in units of an octet's fixed work: the octets go
// through the tasks together.
static double target_time(const qn_hyper_fit_opts *o, uint32_t group, uint32_t each)
{
    uint64_t tasks = (uint64_t)o->views_per_step * qn_div_up((uint64_t)o->batch, 8 * each);
    return qn_div_up(tasks, group / 8) * (2.0 + each) * group;
}

static layout layout_of(const qn_device_info *dev, const fit_attrs *at, uint64_t columns,
                        uint64_t chosen)
{
    const qn_hyper_fit_opts *o = &at->opts;
    layout l = { .group = 128, .rows_each = 1, .chosen = chosen };
    l.count = (uint64_t)qn_target_weights(&o->net, (int64_t)chosen);
    l.parameters = columns * W1 + W1 + W1 * W2 + W2 + W2 * W2 + W2 + (W2 + 1) * l.count;
    bool many = o->views_per_step > 2;
    if (qn_octet_shuffle(dev)) {
        if (many && dev->max_invocations >= 256) l.group = 256;
        while (l.group < 512 && 2 * l.group <= dev->max_invocations &&
               slots_of(l.group, columns, l.count) > MOST_SLOTS)
            l.group *= 2;
        l.resident = slots_of(l.group, columns, l.count) <= MOST_SLOTS;
    } else if (dev->max_invocations >= 256) {
        l.group = 256;
    }
    if (qn_octet_shuffle(dev))
        for (uint32_t each = 2; each <= 4; each *= 2)
            if (target_time(o, l.group, each) < target_time(o, l.group, l.rows_each))
                l.rows_each = each;
    l.n0 = qn_div_up(columns, l.group / W1);
    l.nr = qn_div_up(l.count, l.group);
    uint64_t k = (uint64_t)o->views_per_step;
    l.tasks = k * qn_div_up((uint64_t)o->batch, 8 * l.rows_each);
    uint64_t sums = (uint64_t)l.group / 8 * W2; // of the last layer's gradient, the most there are
    if (sums < 8 * W1) sums = 8 * W1;
    l.scratch = k * (2 * W1 + 4 * W2 + l.count + sums) + l.tasks * l.count;
    return l;
}

// Loop rounds of the busiest invocation in a step; see shaders/hyper/fit.glsl.
static uint64_t rounds_of(const layout *l, const fit_attrs *at)
{
    const qn_hyper_fit_opts *o = &at->opts;
    uint64_t k = (uint64_t)o->views_per_step, octets = l->group / 8;
    uint64_t inputs = l->chosen + (uint64_t)(o->net.depth * o->net.hidden);
    uint64_t blocks = qn_div_up((uint64_t)o->batch, 8 * l->rows_each);
    uint64_t target = qn_div_up(l->tasks, octets) * (2 * inputs + 4);
    uint64_t narrow = qn_div_up(k * W2, l->group), wide = qn_div_up(k * W1, l->group);
    uint64_t slices = l->group / W2;
    uint64_t sums = wide * (slices + 1 + 9) + narrow * (2 * (slices + 1) + octets + 1 + 9);
    uint64_t each = 64 + (l->resident ? (uint64_t)l->nr * blocks
                                     : 2 * l->n0 + 4 * (l->group / 8) + 5ull * W2 * l->nr +
                                           l->nr * (blocks + 4) + 200);
    uint64_t adam = l->resident ? 0 : l->n0 + (W2 + 1ull) * l->nr + 200;
    return target + sums + k * each + adam + 2;
}

static qn_result expect_stored(const qn_node *n)
{
    if (impl(n->in[STATE])->leaf == LEAF_STORED) return QN_OK;
    return qn_refuse(n, "state (%s) is not stored, so a step cannot be kept", n->in[STATE]->name);
}

static qn_result expect_options(const qn_node *n)
{
    const fit_attrs *at = n->attrs;
    const qn_hyper_fit_opts *o = &at->opts;
    if (o->square && o->net.outputs != 1)
        return qn_refuse(n, "squared error of %d outputs, expected one", o->net.outputs);
    if (o->steps < 1 || o->batch < 1 || o->views_per_step < 1 || at->views < 1)
        return qn_refuse(n, "%d steps, batches of %d, %d views, %d a step: expected at least 1",
                         o->steps, o->batch, at->views, o->views_per_step);
    if (o->views_per_step > at->views)
        return qn_refuse(n, "%d views in a step, but there are %d", o->views_per_step, at->views);
    return QN_OK;
}

static qn_result expect_rank2(const qn_node *n, int input, const char *what, int64_t width)
{
    qn_shape s = n->in[input]->shape;
    char text[QN_SHAPE_TEXT];
    if (s.rank == 2 && (!width || s.dim[1] == width)) return QN_OK;
    return width ? qn_refuse(n, "%s (%s) has shape %s, expected [.., %lld]", what,
                             n->in[input]->name, qn_shape_format(s, text), (long long)width)
                 : qn_refuse(n, "%s (%s) has shape %s, expected two dimensions", what,
                             n->in[input]->name, qn_shape_format(s, text));
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    static const struct {
        const char *name;
        qn_dtype dtype;
    } in[INPUTS] = { { "state", QN_F32 },  { "fits", QN_I32 },  { "orders", QN_I32 },
                     { "start", QN_I32 },  { "rates", QN_F32 }, { "x", QN_F32 },
                     { "y", QN_F32 },      { "masks", QN_F32 }, { "view_columns", QN_I32 } };
    const fit_attrs *at = n->attrs;
    for (int i = 0; i < INPUTS; i++) QN_TRY(qn_expect_dtype(n, i, in[i].name, in[i].dtype));
    QN_TRY(expect_options(n));
    QN_TRY(expect_rank2(n, X, "x", 0));
    int64_t columns = n->in[X]->shape.dim[1];
    QN_TRY(expect_rank2(n, FITS, "fits", QN_FIT_WORDS));
    int64_t fits = n->in[FITS]->shape.dim[0], views = fits * at->views;
    QN_TRY(expect_rank2(n, ORDERS, "orders", n->in[ORDERS]->shape.dim[n->in[ORDERS]->shape.rank - 1]));
    QN_TRY(expect_rank2(n, RATES, "rates", 2));
    QN_TRY(qn_expect_shape(n, ORDERS, "orders", QN_SHAPE(fits, n->in[ORDERS]->shape.dim[1])));
    QN_TRY(qn_expect_shape(n, START, "start", QN_SCALAR));
    QN_TRY(qn_expect_shape(n, Y, "y", QN_SHAPE(n->in[X]->shape.dim[0])));
    QN_TRY(qn_expect_shape(n, MASKS, "masks", QN_SHAPE(views, columns)));
    QN_TRY(expect_rank2(n, COLUMNS, "view_columns", 0));
    int64_t chosen = n->in[COLUMNS]->shape.dim[1];
    QN_TRY(qn_expect_shape(n, COLUMNS, "view_columns", QN_SHAPE(views, chosen)));
    QN_TRY(qn_expect_net(n, &at->opts.net, chosen, 0));
    layout l = layout_of(dev, at, (uint64_t)columns, (uint64_t)chosen);
    QN_TRY(qn_expect_shape(n, STATE, "state", QN_SHAPE(fits, 3, (int64_t)l.parameters)));
    QN_TRY(expect_stored(n));
    const uint64_t most = INT32_MAX;
    uint64_t f = (uint64_t)fits;
    if (f > dev->max_groups || l.parameters > most / 3 / f || l.scratch > most / f ||
        (uint64_t)at->opts.steps > most / f / l.tasks)
        return qn_refuse(n, "%lld fits of %llu parameters are too many at once", (long long)fits,
                         (unsigned long long)l.parameters);
    if (dev->software && rounds_of(&l, at) + 2 * MOST_SLOTS > MOST_ROUNDS)
        return qn_refuse(n,
                         "a step of %d views and %d rows with %lld columns takes %llu loop rounds, "
                         "but this device allows %d",
                         at->opts.views_per_step, at->opts.batch, (long long)columns,
                         (unsigned long long)rounds_of(&l, at), MOST_ROUNDS);
    shape[OUT_STATE] = n->in[STATE]->shape;
    shape[LOSSES] = QN_SHAPE(fits, at->opts.steps, (int64_t)l.tasks);
    shape[SCRATCH] = QN_SHAPE(fits, (int64_t)l.scratch);
    for (int i = 0; i <= SCRATCH; i++) dtype[i] = QN_F32;
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_device_info *dev = qn_recorder_device(r);
    const fit_attrs *at = n->attrs;
    const qn_hyper_fit_opts *o = &at->opts;
    uint64_t columns = (uint64_t)n->in[X]->shape.dim[1];
    layout l = layout_of(dev, at, columns, (uint64_t)n->in[COLUMNS]->shape.dim[1]);
    bool defaults = o->beta1 == 0 && o->beta2 == 0 && o->epsilon == 0;
    hyper_fit_args args = {
        .columns = (u32)columns,
        .chosen = (u32)l.chosen,
        .count = (u32)l.count,
        .parameters = (u32)l.parameters,
        .states = (u32)(3 * l.parameters),
        .all_steps = (u32)o->steps,
        .orders = (u32)n->in[ORDERS]->shape.dim[1],
        .views = (u32)at->views,
        .scratch = (u32)l.scratch,
        .most_views = (u32)o->views_per_step,
        .most_tasks = (u32)l.tasks,
        .slots = slots_of(l.group, columns, l.count),
        .b1 = defaults ? 0.9f : o->beta1,
        .b2 = defaults ? 0.999f : o->beta2,
        .eps = defaults ? 1e-8f : o->epsilon,
        .rest1 = defaults ? 0.1f : (float)(1 - (double)o->beta1),
        .rest2 = defaults ? 0.001f : (float)(1 - (double)o->beta2),
    };
    qn_dispatch d = {
        .kernel = l.resident ? QN_K_hyper_fit : QN_K_hyper_fit_streamed,
        .args = &args,
        .args_size = sizeof args,
        .constants = { l.resident ? qn_octet_shuffle(dev) : 0, (uint32_t)o->net.hidden,
                       (uint32_t)o->net.outputs, (uint32_t)o->net.depth, l.rows_each, l.n0, l.nr,
                       l.resident || l.nr < 4 ? l.nr : 4, o->square },
        .group_size = l.group,
        .groups = { (uint32_t)n->in[FITS]->shape.dim[0], 1, 1 },
    };
    for (int i = 0; i < INPUTS; i++) d.buffers[i] = qn_at(r, n->in[i]);
    d.buffers[INPUTS] = qn_at(r, n->out[SCRATCH]);
    d.buffers[INPUTS + 1] = qn_at(r, n->out[LOSSES]);
    QN_TRY(qn_record_fill(r, qn_at(r, n->out[LOSSES]), 0));
    uint64_t rounds = rounds_of(&l, at);
    uint32_t slots = args.slots; // gone through before and after the steps
    uint32_t own = dev->software ? (uint32_t)((MOST_ROUNDS - 2 * slots) / rounds) : MOST_STEPS;
    for (uint32_t first = 0; first < args.all_steps; first += own) {
        args.first = first;
        args.steps = args.all_steps - first < own ? args.all_steps - first : own;
        d.rounds = dev->software ? rounds * args.steps + 2 * slots : 0;
        QN_TRY(qn_record(r, &d));
    }
    return QN_OK;
}

static qn_cost cost(const qn_node *n)
{
    const fit_attrs *at = n->attrs;
    uint64_t fits = (uint64_t)n->in[FITS]->shape.dim[0], steps = (uint64_t)at->opts.steps;
    uint64_t k = (uint64_t)at->opts.views_per_step, parameters = (uint64_t)n->in[STATE]->shape.dim[2];
    uint64_t weights = (uint64_t)qn_target_weights(&at->opts.net, n->in[COLUMNS]->shape.dim[1]);
    uint64_t flops = 6 * k * (parameters + (uint64_t)at->opts.batch * weights) + 16 * parameters;
    return (qn_cost){ .flops = fits * steps * flops, .bytes = fits * steps * 28 * parameters };
}

const qn_op_def qn_op_hyper_fit = {
    .name = "hyper_fit",
    .reference = "hypertab",
    .inputs = INPUTS,
    .outputs = 3,
    .attrs_size = sizeof(fit_attrs),
    .effect = true,
    .infer = infer,
    .record = record,
    .cost = cost,
    .alias = STATE + 1,
};

const qn_tensor *qn_hyper_fit(qn_graph *g, const qn_tensor *state, const qn_tensor *fits,
                              const qn_tensor *orders, const qn_tensor *start,
                              const qn_tensor *rates, const qn_tensor *x, const qn_tensor *y,
                              const qn_tensor *masks, const qn_tensor *view_columns, int views,
                              const qn_hyper_fit_opts *opts)
{
    if (!state || !fits || !orders || !start || !rates || !x || !y || !masks || !view_columns || !opts)
        return NULL;
    fit_attrs attrs = { .opts = *opts, .views = views };
    const qn_node *node;
    const qn_tensor *in[QN_MAX_INPUTS] = { state, fits, orders, start,       rates,
                                           x,     y,    masks,  view_columns };
    if (!qn_op(g, &qn_op_hyper_fit, &attrs, in, &node)) return NULL;
    return node->out[LOSSES];
}
