// The gated delta rule, a fast-weight memory, and its gradient. Kernels: shaders/synapse/.
//
// CPU drivers walk from token to token, columns of the memory in registers, which takes fewer
// operations than chunks do. Other devices work by chunks: what a chunk needs (products of keys,
// the inverse of a triangular matrix) is made for all chunks at once, and only small products go
// from chunk to chunk. The gradients of keys and queries are made by chunks on either.
#include "grid.h"

#include "args.h"
#include "args/synapse.h"

typedef struct memory {
    int64_t batch, heads;
    bool final; // no gradient is wanted
} memory;

enum { Q, K, V, LA, BETA, START };  // inputs
enum { O, END, STATES, U, SCRATCH }; // outputs: result, M behind the last token, what the gradient
                                     // needs: M before each chunk, and the errors u
enum { G_STATES = START + 1, G_U, G_DOUT, G_DEND, G_O }; // further inputs of the gradient
enum { DQ, DK, DV, DLA, DBETA, DSTART, G_SCRATCH };      // outputs of the gradient
enum { CHUNK = SYNAPSE_CHUNK, MAX_WIDTH = 128, FEW_TOKENS = 8, MOST_ROUNDS = 50000 };

typedef struct layout {
    bool flat, step, saved;
    uint64_t batch, heads, tokens, dk, dv;
    uint64_t chunks, state, row;
    uint64_t pairs; // of a block
} layout;

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t up_to(uint64_t x, uint64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

// Parts of scratch, each for all pairs of a block.
enum { DECAYS, PLANES, INVERSES, BACK, STATE_GRADS, PART_COUNT };

static uint64_t part_size(const layout *l, int part)
{
    switch (part) {
    case DECAYS: return l->chunks * CHUNK * 2;
    case PLANES: return l->chunks * CHUNK * CHUNK * 2;
    case INVERSES: return l->flat ? 0 : l->chunks * CHUNK * CHUNK * 2;
    case BACK: return l->chunks * CHUNK * l->row;
    case STATE_GRADS: return (l->chunks + 1) * l->state;
    }
    return 0;
}

// A pure function of the shapes and the kind of device.
static layout layout_of(const qn_node *n, const qn_device_info *dev)
{
    const memory *m = n->attrs;
    layout l = {
        .flat = dev->kernel_class == QN_CLASS_FLAT,
        .batch = (uint64_t)m->batch,
        .heads = (uint64_t)m->heads,
        .tokens = (uint64_t)(qn_shape_rows(n->in[Q]->shape) / m->batch),
        .dk = (uint64_t)(qn_shape_last(n->in[Q]->shape) / m->heads),
        .dv = (uint64_t)(qn_shape_last(n->in[V]->shape) / m->heads),
    };
    l.step = !l.flat && m->final && l.tokens <= FEW_TOKENS;
    l.saved = !l.step && !(l.flat && m->final);
    l.chunks = (l.tokens + CHUNK - 1) / CHUNK;
    l.state = up_to(l.dk * l.dv, 64);
    l.row = up_to(l.dv, 4);
    uint64_t widest = 1;
    for (int i = 0; i < PART_COUNT; i++)
        if (part_size(&l, i) > widest) widest = part_size(&l, i);
    uint64_t room = min_u64(dev->max_binding, (uint64_t)1 << 26) / 4;
    l.pairs = min_u64(l.batch * l.heads, widest < room ? room / widest : 1);
    l.pairs = min_u64(l.pairs, min_u64(dev->max_groups, 65535));
    return l;
}

static uint64_t part_at(const layout *l, int part)
{
    uint64_t at = 0;
    for (int i = 0; i < part; i++) at += up_to(part_size(l, i) * l->pairs, 64);
    return at;
}

// ---------------------------------------------------------------------------------- shapes

static qn_result check_sizes(const qn_node *n, const qn_device_info *dev)
{
    const memory *m = n->attrs;
    char text[QN_SHAPE_TEXT];
    if (m->batch < 1 || m->heads < 1)
        return qn_refuse(n, "batch %lld, heads %lld: each must be at least 1", (long long)m->batch,
                         (long long)m->heads);
    static const char *const names[] = { "q", "k", "v" };
    for (int i = Q; i <= V; i++) {
        qn_shape s = n->in[i]->shape;
        QN_TRY(qn_expect_dtype(n, i, names[i], QN_F32));
        int64_t width = qn_shape_last(s) / m->heads;
        if (s.rank != 2 || s.dim[0] % m->batch || s.dim[1] % m->heads || width > MAX_WIDTH)
            return qn_refuse(n, "%s (%s) has shape %s, expected rows for batch %lld and columns "
                                "for %lld heads of 1 to %d channels",
                             names[i], n->in[i]->name, qn_shape_format(s, text),
                             (long long)m->batch, (long long)m->heads, MAX_WIDTH);
        if ((uint64_t)qn_shape_count(s) * 4 > dev->max_binding)
            return qn_refuse(n, "%s (%s) has more than the %llu bytes that this device can bind",
                             names[i], n->in[i]->name, (unsigned long long)dev->max_binding);
    }
    return QN_OK;
}

static qn_result check_inputs(const qn_node *n, const qn_device_info *dev)
{
    QN_TRY(check_sizes(n, dev));
    const memory *m = n->attrs;
    int64_t rows = n->in[Q]->shape.dim[0];
    QN_TRY(qn_expect_shape(n, K, "k", n->in[Q]->shape));
    if (n->in[V]->shape.dim[0] != rows)
        QN_TRY(qn_expect_shape(n, V, "v", QN_SHAPE(rows, n->in[V]->shape.dim[1])));
    QN_TRY(qn_expect_dtype(n, LA, "la", QN_F32));
    QN_TRY(qn_expect_shape(n, LA, "la", QN_SHAPE(rows, m->heads)));
    QN_TRY(qn_expect_dtype(n, BETA, "beta", QN_F32));
    QN_TRY(qn_expect_shape(n, BETA, "beta", QN_SHAPE(rows, m->heads)));
    if (!n->in[START]) return QN_OK;
    QN_TRY(qn_expect_dtype(n, START, "start", QN_F32));
    layout l = layout_of(n, dev);
    return qn_expect_shape(n, START, "start",
                           QN_SHAPE(m->batch, m->heads, (int64_t)l.dk, (int64_t)l.dv));
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    QN_TRY(check_inputs(n, dev));
    layout l = layout_of(n, dev);
    shape[O] = n->in[V]->shape;
    shape[END] = QN_SHAPE((int64_t)l.batch, (int64_t)l.heads, (int64_t)l.dk, (int64_t)l.dv);
    shape[STATES] = shape[U] = shape[SCRATCH] = QN_SHAPE(1);
    if (l.saved) {
        shape[STATES] = QN_SHAPE((int64_t)(l.batch * l.heads), (int64_t)(l.chunks * l.state));
        shape[U] = n->in[V]->shape;
    }
    if (!l.flat && !l.step) shape[SCRATCH] = QN_SHAPE((int64_t)part_at(&l, INVERSES));
    for (int i = 0; i < n->op->outputs; i++) dtype[i] = QN_F32;
    return QN_OK;
}

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    QN_TRY(check_inputs(n, dev));
    layout l = layout_of(n, dev);
    for (int i = DQ; i <= DBETA; i++) shape[i] = n->in[i]->shape;
    shape[DSTART] = QN_SHAPE((int64_t)l.batch, (int64_t)l.heads, (int64_t)l.dk, (int64_t)l.dv);
    shape[G_SCRATCH] = QN_SHAPE((int64_t)part_at(&l, PART_COUNT));
    for (int i = 0; i <= G_SCRATCH; i++) dtype[i] = QN_F32;
    return QN_OK;
}

// ---------------------------------------------------------------------------------- kernels

// A block of pairs of one use.
typedef struct block {
    qn_recorder *r;
    const qn_node *n;
    layout l;
    synapse_args args;
    qn_range parts[PART_COUNT];
} block;

static qn_range at(const block *b, const qn_tensor *t)
{
    return qn_at(b->r, t);
}

// The states of the block's pairs.
static qn_range states_of(const block *b, const qn_tensor *t)
{
    if (!b->l.saved) return qn_at(b->r, t);
    return qn_at_rows(b->r, t, b->args.first_pair, b->args.pairs, b->l.chunks * b->l.state * 4);
}

static qn_result dispatch(const block *b, qn_kernel kernel, qn_dispatch d)
{
    d.kernel = kernel;
    d.args = &b->args;
    d.args_size = sizeof b->args;
    uint32_t quads[2] = { b->l.dk % 4 == 0, b->l.dv % 4 == 0 };
    for (int i = 9; i >= 2; i--) d.constants[i] = d.constants[i - 2];
    d.constants[0] = quads[0];
    d.constants[1] = quads[1];
    if (d.groups[2] == 0) d.groups[2] = 1;
    return qn_record(b->r, &d);
}

// Groups over columns: one flat subgroup holds four per lane, a tile 32.
static uint32_t column_groups(const block *b, uint64_t columns)
{
    return qn_div_up(columns, b->l.flat ? qn_recorder_device(b->r)->subgroup_size * 4 : 32);
}

static qn_result decays(const block *b)
{
    qn_dispatch d = { .buffers = { at(b, b->n->in[LA]), b->parts[DECAYS] }, .rounds = CHUNK };
    qn_grid_items(qn_recorder_device(b->r), b->args.pairs * b->l.chunks, d.groups);
    return dispatch(b, QN_K_synapse_decay, d);
}

static qn_result solve(const block *b, int planes, bool left)
{
    return dispatch(b, QN_K_synapse_solve,
                    (qn_dispatch){
                        .buffers = { at(b, b->n->in[Q]), at(b, b->n->in[K]), at(b, b->n->in[BETA]),
                                     b->parts[DECAYS], b->parts[planes] },
                        .constants = { left },
                        .groups = { (uint32_t)b->l.chunks, b->args.pairs },
                        .rounds = CHUNK * CHUNK + MAX_WIDTH,
                    });
}

// One chunk after another, in as many dispatches as the rounds of loops ask for. `constant` says
// where the state comes from, see synapse.glsl; `given` that the first one is a tensor.
static qn_result chunk_by_chunk(const block *b, qn_kernel kernel, qn_dispatch d, int constant,
                                bool given, uint64_t rounds, bool backwards)
{
    block part = *b;
    uint64_t chunks = b->l.chunks, most = MOST_ROUNDS / rounds;
    for (uint64_t done = 0; done < chunks; done += most) {
        uint64_t count = min_u64(most, chunks - done);
        part.args.first = (uint32_t)(backwards ? chunks - done - count : done);
        part.args.count = (uint32_t)count;
        d.constants[constant] = done ? 2 : given;
        d.rounds = count * rounds;
        QN_TRY(dispatch(&part, kernel, d));
    }
    return QN_OK;
}

static qn_result walk(const block *b)
{
    const qn_node *n = b->n;
    qn_dispatch d = {
        .buffers = { at(b, n->in[Q]), at(b, n->in[K]), at(b, n->in[V]), at(b, n->in[LA]),
                     at(b, n->in[BETA]), at(b, n->in[START]), at(b, n->out[O]),
                     at(b, n->out[END]), states_of(b, n->out[STATES]), at(b, n->out[U]) },
        .constants = { qn_div_up(b->l.dk, 4), b->l.saved },
        .groups = { column_groups(b, b->l.dv), b->args.pairs },
    };
    return chunk_by_chunk(b, QN_K_synapse_walk, d, 2, n->in[START] != NULL, CHUNK + 1, false);
}

static qn_result step(const block *b)
{
    const qn_node *n = b->n;
    return dispatch(b, QN_K_synapse_step,
                    (qn_dispatch){
                        .buffers = { at(b, n->in[Q]), at(b, n->in[K]), at(b, n->in[V]),
                                     at(b, n->in[LA]), at(b, n->in[BETA]), at(b, n->in[START]),
                                     at(b, n->out[O]), at(b, n->out[END]) },
                        .constants = { n->in[START] != NULL },
                        .groups = { qn_div_up(b->l.dv, 64), b->args.pairs },
                        .rounds = b->l.tokens * (2 * MAX_WIDTH + 1),
                    });
}

static qn_result scan(const block *b)
{
    const qn_node *n = b->n;
    qn_dispatch d = {
        .buffers = { at(b, n->in[K]), at(b, n->in[V]), at(b, n->in[BETA]), b->parts[DECAYS],
                     b->parts[PLANES], at(b, n->in[START]), at(b, n->out[END]),
                     states_of(b, n->out[STATES]), at(b, n->out[U]) },
        .groups = { qn_div_up(b->l.dv, 16), b->args.pairs },
    };
    uint64_t rounds = CHUNK / 4 * (MAX_WIDTH + CHUNK + 2) + MAX_WIDTH / 4 * (CHUNK + 2);
    QN_TRY(chunk_by_chunk(b, QN_K_synapse_scan, d, 0, n->in[START] != NULL, rounds, false));
    return dispatch(b, QN_K_synapse_out,
                    (qn_dispatch){
                        .buffers = { at(b, n->in[Q]), at(b, n->in[BETA]), b->parts[DECAYS],
                                     b->parts[PLANES], states_of(b, n->out[STATES]),
                                     at(b, n->out[U]), at(b, n->out[O]) },
                        .groups = { column_groups(b, b->l.dv), (uint32_t)b->l.chunks,
                                    b->args.pairs },
                    });
}

static qn_result walk_back(const block *b)
{
    const qn_node *n = b->n;
    qn_dispatch d = {
        .buffers = { at(b, n->in[Q]), at(b, n->in[K]), at(b, n->in[LA]), at(b, n->in[BETA]),
                     at(b, n->in[G_DOUT]), at(b, n->in[G_DEND]), at(b, n->out[DV]), b->parts[BACK],
                     b->parts[STATE_GRADS], at(b, n->out[DSTART]) },
        .constants = { qn_div_up(b->l.dk, 4) },
        .groups = { column_groups(b, b->l.dv), b->args.pairs },
    };
    return chunk_by_chunk(b, QN_K_synapse_walk_grad, d, 1, n->in[G_DEND] != NULL, CHUNK + 1, true);
}

static qn_result scan_back(const block *b)
{
    const qn_node *n = b->n;
    QN_TRY(solve(b, INVERSES, true));
    qn_dispatch d = {
        .buffers = { at(b, n->in[Q]), at(b, n->in[K]), at(b, n->in[BETA]), b->parts[DECAYS],
                     b->parts[INVERSES], at(b, n->in[G_DOUT]), at(b, n->in[G_DEND]),
                     at(b, n->out[DV]), b->parts[BACK], b->parts[STATE_GRADS],
                     at(b, n->out[DSTART]) },
        .groups = { qn_div_up(b->l.dv, 16), b->args.pairs },
    };
    uint64_t rounds = CHUNK / 4 * (MAX_WIDTH + 2 * CHUNK + 5) + MAX_WIDTH / 4 * (CHUNK + 2);
    return chunk_by_chunk(b, QN_K_synapse_scan_grad, d, 0, n->in[G_DEND] != NULL, rounds, true);
}

// X and Y, then dq and dk.
static qn_result mix(const block *b)
{
    const qn_node *n = b->n;
    uint32_t tiles = b->l.flat ? CHUNK / 16 : 1, chunks = (uint32_t)b->l.chunks;
    uint32_t pairs[3] = { chunks, b->args.pairs, 1 };
    if (b->l.flat) {
        pairs[0] = column_groups(b, CHUNK) * tiles;
        pairs[1] = chunks;
        pairs[2] = b->args.pairs;
    }
    QN_TRY(dispatch(b, b->l.flat ? QN_K_synapse_pairs_flat : QN_K_synapse_pairs,
                    (qn_dispatch){
                        .buffers = { at(b, n->in[G_DOUT]), at(b, n->out[DV]), at(b, n->in[G_U]),
                                     at(b, n->in[BETA]), b->parts[DECAYS], b->parts[PLANES] },
                        .groups = { pairs[0], pairs[1], pairs[2] },
                    }));
    return dispatch(b, b->l.flat ? QN_K_synapse_mix_flat : QN_K_synapse_mix,
                    (qn_dispatch){
                        .buffers = { at(b, n->in[Q]), at(b, n->in[K]), at(b, n->in[G_DOUT]),
                                     at(b, n->out[DV]), at(b, n->in[G_U]), at(b, n->in[BETA]),
                                     b->parts[DECAYS], b->parts[PLANES],
                                     states_of(b, n->in[G_STATES]), b->parts[STATE_GRADS],
                                     at(b, n->out[DQ]), at(b, n->out[DK]) },
                        .groups = { column_groups(b, b->l.dk) * tiles, chunks, b->args.pairs },
                    });
}

static qn_result gates(const block *b)
{
    const qn_node *n = b->n;
    uint32_t lanes = qn_grid_lanes(qn_recorder_device(b->r));
    uint64_t row_rounds = qn_div_up(b->l.dv, lanes * 4);
    return dispatch(b, QN_K_synapse_gates,
                    (qn_dispatch){
                        .buffers = { at(b, n->in[G_O]), at(b, n->in[V]), at(b, n->in[G_U]),
                                     at(b, n->in[G_DOUT]), at(b, n->out[DV]), b->parts[BACK],
                                     states_of(b, n->in[G_STATES]), b->parts[STATE_GRADS],
                                     at(b, n->out[DLA]), at(b, n->out[DBETA]) },
                        .groups = { (uint32_t)b->l.chunks, b->args.pairs },
                        .rounds = b->l.state / lanes + 4 + CHUNK * (row_rounds + 1),
                    });
}

static qn_result forward_block(const block *b)
{
    if (b->l.flat) return walk(b);
    if (b->l.step) return step(b);
    QN_TRY(decays(b));
    QN_TRY(solve(b, PLANES, false));
    return scan(b);
}

static qn_result backward_block(const block *b)
{
    QN_TRY(decays(b));
    QN_TRY(b->l.flat ? walk_back(b) : scan_back(b)); // dv, dR and the states' gradients
    QN_TRY(mix(b));
    return gates(b);
}

static qn_result each_block(qn_recorder *r, const qn_node *n, const qn_tensor *scratch, int parts,
                            qn_result (*one)(const block *b))
{
    block b = { .r = r, .n = n, .l = layout_of(n, qn_recorder_device(r)) };
    const layout *l = &b.l;
    for (int i = 0; i < parts; i++)
        b.parts[i] = qn_at_rows(r, scratch, part_at(l, i), up_to(part_size(l, i) * l->pairs, 64), 4);
    b.args = (synapse_args){
        .tokens = (uint32_t)l->tokens,
        .heads = (uint32_t)l->heads,
        .dk = (uint32_t)l->dk,
        .dv = (uint32_t)l->dv,
        .chunks = (uint32_t)l->chunks,
        .state = (uint32_t)l->state,
        .row = (uint32_t)l->row,
    };
    for (uint64_t p = 0; p < l->batch * l->heads; p += l->pairs) {
        b.args.first_pair = (uint32_t)p;
        b.args.pairs = (uint32_t)min_u64(l->pairs, l->batch * l->heads - p);
        QN_TRY(one(&b));
    }
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    layout l = layout_of(n, qn_recorder_device(r));
    int parts = l.flat || l.step ? 0 : INVERSES;
    return each_block(r, n, n->out[SCRATCH], parts, forward_block);
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    return each_block(r, n, n->out[G_SCRATCH], PART_COUNT, backward_block);
}

// ---------------------------------------------------------------------------------- the rest

// Token by token: recall, error and write, 7 dk dv per head; its gradient about twice that.
static qn_cost cost_of(const qn_node *n, uint64_t factor, int outputs)
{
    const memory *m = n->attrs;
    uint64_t dk = (uint64_t)(qn_shape_last(n->in[Q]->shape) / m->heads);
    qn_cost c = { .flops = factor * dk * (uint64_t)qn_shape_count(n->in[V]->shape) };
    for (int i = 0; i < n->inputs; i++)
        if (n->in[i]) c.bytes += (uint64_t)qn_shape_count(n->in[i]->shape) * 4;
    for (int i = 0; i < outputs; i++) c.bytes += (uint64_t)qn_shape_count(n->out[i]->shape) * 4;
    return c;
}

static qn_cost cost(const qn_node *n)
{
    return cost_of(n, 7, SCRATCH);
}

static qn_cost cost_grad(const qn_node *n)
{
    return cost_of(n, 18, G_SCRATCH);
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    if (((const memory *)n->attrs)->final)
        return qn_refuse(n, "a gradient is wanted of a memory built without one");
    const qn_tensor *dout = gout[O];
    if (!gout[O] && !gout[END]) return QN_OK;
    if (!dout) dout = qn_scale(g, n->out[O], 0, 0);
    const qn_tensor *in[QN_MAX_INPUTS] = {
        n->in[Q],       n->in[K],  n->in[V], n->in[LA], n->in[BETA], n->in[START],
        n->out[STATES], n->out[U], dout,     gout[END], n->out[O],
    };
    const qn_node *made;
    if (!qn_op(g, &qn_op_synapse_grad, n->attrs, in, &made)) return qn_graph_status(g);
    for (int i = Q; i <= START; i++)
        if (want[i]) gin[i] = made->out[i];
    return QN_OK;
}

const qn_op_def qn_op_synapse = {
    .name = "synapse",
    .reference = "gated-delta",
    .inputs = START + 1,
    .outputs = SCRATCH + 1,
    .attrs_size = sizeof(memory),
    .infer = infer,
    .backward = backward,
    .record = record,
    .cost = cost,
};

const qn_op_def qn_op_synapse_grad = {
    .name = "synapse_grad",
    .reference = "gated-delta",
    .inputs = G_O + 1,
    .outputs = G_SCRATCH + 1,
    .attrs_size = sizeof(memory),
    .infer = infer_grad,
    .record = record_grad,
    .cost = cost_grad,
};

const qn_tensor *qn_synapse(qn_graph *g, const qn_tensor *q, const qn_tensor *k, const qn_tensor *v,
                            const qn_tensor *la, const qn_tensor *beta,
                            const qn_synapse_opts *opts)
{
    if (!q || !k || !v || !la || !beta) return NULL;
    static const qn_synapse_opts none;
    if (!opts) opts = &none;
    memory m = { .batch = opts->batch, .heads = opts->heads, .final = opts->no_gradient };
    const qn_tensor *in[QN_MAX_INPUTS] = { q, k, v, la, beta, opts->start };
    const qn_node *made;
    const qn_tensor *out = qn_op(g, &qn_op_synapse, &m, in, &made);
    if (out && opts->end) *opts->end = made->out[END];
    return out;
}
