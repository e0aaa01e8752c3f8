// Cases of hyper_fit: a few Adam steps against the same steps in double.
//
// Adam divides by the root of the second moment, so with the usual epsilon a gradient near zero turns
// its rounding into a whole step. The cases use an epsilon far above the gradients: a step is then a
// smooth function of them, and an error of a gradient grows by no more than rate / epsilon.
#include "case.h"
#include "shapes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STATE, FITS, ORDERS, START, RATES, X, Y, MASKS, COLUMNS };
enum { W1 = QN_HYPER_WIDTH1, W2 = QN_HYPER_WIDTH2, WORDS = QN_FIT_WORDS };

typedef struct plan {
    qn_hyper_fit_opts o;
    int fits, views, rows, epochs, start; // rows of an epoch
} plan;

static int groups_of(const plan *p)
{
    return (p->views + p->o.views_per_step - 1) / p->o.views_per_step;
}

static int batches_of(const plan *p)
{
    return (p->rows + p->o.batch - 1) / p->o.batch;
}

static const double rate = 0.05;

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const plan *p = c->params;
    const qn_tensor *losses = qn_hyper_fit(g, in[STATE], in[FITS], in[ORDERS], in[START], in[RATES],
                                           in[X], in[Y], in[MASKS], in[COLUMNS], p->views, &p->o);
    out[0] = qn_reduce(g, losses, QN_SUM); // over tasks: [F, steps]
    return 1;
}

// ------------------------------------------------------------------------- the reference

typedef struct net {
    int in[4], out[4]; // of the hypernetwork
    int64_t w[4], b[4], count;
} net;

static net net_of(int d, int p)
{
    net n = { .in = { d, W1, W2, W2 }, .out = { W1, W2, W2, p } };
    for (int l = 0; l < 4; l++) {
        n.w[l] = n.count;
        n.b[l] = n.w[l] + (int64_t)n.in[l] * n.out[l];
        n.count = n.b[l] + n.out[l];
    }
    return n;
}

// y[l + 1] = act(y[l] W + b); the mask is y[0].
static void hyper_forward(const net *n, const double *theta, double *y[5])
{
    for (int l = 0; l < 4; l++)
        for (int o = 0; o < n->out[l]; o++) {
            double s = theta[n->b[l] + o];
            for (int i = 0; i < n->in[l]; i++) s += theta[n->w[l] + i * n->out[l] + o] * y[l][i];
            y[l + 1][o] = l < 2 && !(s > 0) ? 0 : s;
        }
}

// Adds to the gradient; dy[4] is given.
static void hyper_backward(const net *n, const double *theta, double *y[5], double *dy, double *grad)
{
    double *d = dy;
    double *below = calloc((size_t)(n->in[0] + W1 + n->out[3]), sizeof *below);
    for (int l = 3; l >= 0; l--) {
        for (int i = 0; i < n->in[l]; i++) {
            double s = 0;
            for (int o = 0; o < n->out[l]; o++) {
                grad[n->w[l] + i * n->out[l] + o] += y[l][i] * d[o];
                s += theta[n->w[l] + i * n->out[l] + o] * d[o];
            }
            below[i] = (l == 2 || l == 1) && !(y[l][i] > 0) ? 0 : s;
        }
        for (int o = 0; o < n->out[l]; o++) grad[n->b[l] + o] += d[o];
        memcpy(d, below, (size_t)n->in[l] * sizeof *d);
    }
    free(below);
}

enum { WIDE = 64 };

// Loss of one row times weight; its gradient is added to dgen.
static double row_loss(const plan *p, int m, const double *gen, const double *x, double y,
                       double weight, double *dgen)
{
    int depth = p->o.net.depth, h = p->o.net.hidden, c = p->o.net.outputs, at = 0;
    double act[6][WIDE], d[WIDE];
    int base[6];
    memcpy(act[0], x, (size_t)m * sizeof *x);
    for (int l = 0; l <= depth; l++) {
        int in = l ? h : m, out = l == depth ? c : h;
        base[l] = at;
        for (int o = 0; o < out; o++) {
            double s = gen[at + in * out + o];
            for (int i = 0; i < in; i++) s += gen[at + o * in + i] * act[l][i];
            act[l + 1][o] = l < depth && !(s > 0) ? 0 : s;
        }
        at += (in + 1) * out;
    }
    double *z = act[depth + 1], most = z[0], sum = 0, loss;
    for (int o = 1; o < c; o++) most = fmax(most, z[o]);
    for (int o = 0; o < c; o++) sum += exp(z[o] - most);
    for (int o = 0; o < c; o++) d[o] = weight * (exp(z[o] - most) / sum - (o == (int)y));
    loss = weight * (log(sum) + most - z[(int)y * !p->o.square]);
    if (p->o.square) {
        d[0] = 2 * weight * (z[0] - y);
        loss = weight * (z[0] - y) * (z[0] - y);
    }
    for (int l = depth; l >= 0; l--) {
        int in = l ? h : m, out = l == depth ? c : h;
        double below[WIDE] = { 0 };
        for (int o = 0; o < out; o++) {
            dgen[base[l] + in * out + o] += d[o];
            for (int i = 0; i < in; i++) {
                dgen[base[l] + o * in + i] += d[o] * act[l][i];
                below[i] += gen[base[l] + o * in + i] * d[o];
            }
        }
        for (int i = 0; i < in; i++) d[i] = l && act[l][i] > 0 ? below[i] : 0;
    }
    return loss;
}

static double step(const plan *p, qn_ref *in, int fit, int t, const net *n, double *grad)
{
    int d = n->in[0], m = (int)in[COLUMNS].shape.dim[1], k_most = p->o.views_per_step;
    double *theta = in[STATE].v + fit * 3 * n->count;
    const double *orders = in[ORDERS].v + fit * in[ORDERS].shape.dim[1];
    int turn = t / groups_of(p), batch = turn % batches_of(p), first = t % groups_of(p) * k_most;
    int rows = p->rows - batch * p->o.batch < p->o.batch ? p->rows - batch * p->o.batch : p->o.batch;
    int views = p->views - first < k_most ? p->views - first : k_most;
    const double *order = orders + turn / batches_of(p) * p->rows + batch * p->o.batch;
    const double *turns = orders + p->epochs * p->rows + turn * p->views + first;
    double loss = 0, *y[5], *dgen = NULL;
    for (int l = 0; l < 5; l++)
        y[l] = calloc((size_t)(l ? n->out[l - 1] : d), sizeof(double));
    dgen = calloc((size_t)(n->out[3] + d + W1), sizeof *dgen);
    for (int k = 0; k < views; k++) {
        int view = (int)turns[k];
        memcpy(y[0], in[MASKS].v + view * d, (size_t)d * sizeof(double));
        hyper_forward(n, theta, y);
        memset(dgen, 0, (size_t)(n->out[3] + d + W1) * sizeof *dgen);
        for (int r = 0; r < rows; r++) {
            double x[WIDE];
            int row = (int)order[r];
            for (int i = 0; i < m; i++)
                x[i] = in[X].v[row * d + (int)in[COLUMNS].v[view * m + i]];
            loss += row_loss(p, m, y[4], x, in[Y].v[row], 1.0 / rows / views, dgen);
        }
        hyper_backward(n, theta, y, dgen, grad);
    }
    free(dgen);
    for (int l = 0; l < 5; l++) free(y[l]);
    return loss;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const plan *p = c->params;
    int m = (int)in[COLUMNS].shape.dim[1];
    net n = net_of((int)in[X].shape.dim[1], (int)qn_target_weights(&p->o.net, m));
    double *grad = calloc((size_t)n.count, sizeof *grad);
    double b1 = p->o.beta1, b2 = p->o.beta2;
    int total = p->epochs * batches_of(p) * groups_of(p);
    for (int f = 0; f < p->fits; f++) {
        double *theta = in[STATE].v + f * 3 * n.count, *m1 = theta + n.count, *m2 = m1 + n.count;
        double *mag = in[STATE].mag + f * 3 * n.count;
        for (int s = 0; s < p->o.steps && p->start + s < total; s++) {
            int t = p->start + s;
            double *r = in[RATES].v + 2 * t;
            memset(grad, 0, (size_t)n.count * sizeof *grad);
            double loss = step(p, in, f, t, &n, grad);
            out[0].v[f * p->o.steps + s] = loss;
            out[0].mag[f * p->o.steps + s] = 4 * fmax(1, loss);
            for (int64_t i = 0; i < n.count; i++) {
                m1[i] = b1 * m1[i] + (1 - b1) * grad[i];
                m2[i] = b2 * m2[i] + (1 - b2) * grad[i] * grad[i];
                theta[i] -= rate * r[0] * m1[i] / (sqrt(m2[i]) * r[1] + p->o.epsilon);
            }
        }
        // Gradients are means of terms of at most about one; what a step adds to a parameter is a
        // gradient times rate / epsilon.
        for (int64_t i = 0; i < n.count; i++) {
            mag[i] = fmax(1, fabs(theta[i]));
            mag[n.count + i] = fmax(1, fabs(m1[i]));
            mag[2 * n.count + i] = fmax(1, fabs(m2[i]));
        }
    }
    free(grad);
    // Terms of the longest chain of sums: the generated weights, the rows of a batch.
    in[STATE].terms = out[0].terms = n.in[0] + W1 + 2 * W2 + n.out[3] + p->rows;
}

// ------------------------------------------------------------------------- inputs

// The case being filled: a generator sees no more than its own tensor.
static void fill_state(qn_ref *t)
{
    int64_t count = t->shape.dim[2];
    for (int64_t i = 0; i < t->count; i++) {
        int64_t at = i % (3 * count);
        double u = fmod((double)(i % 9973) * 0.6180339887498949, 1) - 0.5;
        t->v[i] = at < count ? 0.4 * u : at < 2 * count ? 0.02 * u : 1e-3 * (u + 0.5);
    }
}

static void fill_rates(qn_ref *t)
{
    for (int64_t s = 0; s < t->count / 2; s++) {
        t->v[2 * s] = 1 / (1 - pow(0.9, (double)s + 1));
        t->v[2 * s + 1] = 1 / sqrt(1 - pow(0.99, (double)s + 1));
    }
}

// fits, orders, start, masks and columns depend on the plan: one set of functions a case.
static void fill_fits(const plan *p, qn_ref *t)
{
    for (int f = 0; f < p->fits; f++) {
        double *w = t->v + f * WORDS;
        float lr = (float)rate;
        int32_t bits;
        memcpy(&bits, &lr, sizeof bits);
        w[QN_FIT_ROWS] = p->rows;
        w[QN_FIT_BATCH] = p->o.batch;
        w[QN_FIT_VIEWS] = p->o.views_per_step;
        w[QN_FIT_STEPS] = p->epochs * batches_of(p) * groups_of(p);
        w[QN_FIT_RATE] = bits;
        w[QN_FIT_ORDER] = p->epochs * p->rows;
    }
}

static void fill_orders(const plan *p, qn_ref *t)
{
    int64_t length = t->shape.dim[1];
    for (int f = 0; f < p->fits; f++) {
        double *o = t->v + f * length;
        for (int e = 0; e < p->epochs; e++)
            for (int i = 0; i < p->rows; i++) o[e * p->rows + i] = (i * 7 + 3 * e + f) % p->rows;
        for (int i = p->epochs * p->rows; i < length; i++)
            o[i] = f * p->views + (i * 3 + f) % p->views;
    }
}

// Columns of view k of fit f: m in ascending order out of d.
static bool chosen(int d, int m, int view, int column)
{
    int first = (view * 5 + view / 3) % d;
    return (column - first + d) % d < m;
}

static void fill_masks(int m, qn_ref *t)
{
    int d = (int)t->shape.dim[1];
    for (int64_t i = 0; i < t->count; i++) t->v[i] = chosen(d, m, (int)(i / d), (int)(i % d));
}

static void fill_columns(int d, qn_ref *t)
{
    int m = (int)t->shape.dim[1];
    for (int v = 0; v < (int)t->shape.dim[0]; v++)
        for (int j = 0, at = 0; j < d; j++)
            if (chosen(d, m, v, j)) t->v[v * m + at++] = j;
}

#define PLAN(label, f, v, n, e, s0, k, b, h, l, c, sq, st)                                         \
    static const plan plan_##label = {                                                             \
        .o = { .net = { h, l, c }, .square = sq, .steps = st, .views_per_step = k, .batch = b,     \
               .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 0.5f },                                   \
        .fits = f, .views = v, .rows = n, .epochs = e, .start = s0                                 \
    };
#define FILLS(label, d, m)                                                                         \
    static void fits_##label(qn_ref *t) { fill_fits(&plan_##label, t); }                           \
    static void orders_##label(qn_ref *t) { fill_orders(&plan_##label, t); }                       \
    static void start_##label(qn_ref *t) { t->v[0] = plan_##label.start; }                         \
    static void masks_##label(qn_ref *t) { fill_masks(m, t); }                                     \
    static void columns_##label(qn_ref *t) { fill_columns(d, t); }
#define P(m, h, l, c) (((m) + 1) * (h) + ((l)-1) * ((h) + 1) * (h) + ((h) + 1) * (c))
#define N(d, p) ((d) * W1 + W1 + W1 * W2 + W2 + W2 * W2 + W2 + (W2 + 1) * (p))
#define CUSTOM(what) .gen = QN_GEN_CUSTOM, .fill = what
#define CASE(label, f, v, n, e, k, b, d, m, h, l, c, y_gen)                                        \
    {                                                                                              \
        .name = #label, .inputs = 9,                                                               \
        .in = { { .name = "state", .shape = S3(f, 3, N(d, P(m, h, l, c))), CUSTOM(fill_state),     \
                  .stored = true },                                                                \
                { .name = "fits", .dtype = QN_I32, .shape = S2(f, WORDS), CUSTOM(fits_##label) },  \
                { .name = "orders", .dtype = QN_I32,                                               \
                  .shape = S2(f, (e) * (n) + (e) * (((n) + (b)-1) / (b)) * (v)),                   \
                  CUSTOM(orders_##label) },                                                        \
                { .name = "start", .dtype = QN_I32, CUSTOM(start_##label) },                       \
                { .name = "rates",                                                                 \
                  .shape = S2((e) * (((n) + (b)-1) / (b)) * (((v) + (k)-1) / (k)), 2),             \
                  CUSTOM(fill_rates) },                                                            \
                { .name = "x", .shape = S2(n, d) },                                                \
                { .name = "y", .shape = S1(n), y_gen },                                            \
                { .name = "masks", .shape = S2((f) * (v), d), CUSTOM(masks_##label) },             \
                { .name = "columns", .dtype = QN_I32, .shape = S2((f) * (v), m),                   \
                  CUSTOM(columns_##label) } },                                                     \
        .params = &plan_##label, .build = build, .ref = ref, .no_grad_ref = true                   \
    }
#define CLASSES(c) .gen = QN_GEN_INT, .lo = 0, .hi = (c)-1

//   label          fits views rows epochs start K batch hidden depth outputs square steps
PLAN(tiny, 1, 4, 6, 2, 0, 1, 4, 3, 2, 2, false, 5)
FILLS(tiny, 5, 2)
PLAN(ragged, 2, 10, 45, 1, 3, 4, 20, 17, 1, 4, false, 7)
FILLS(ragged, 70, 3)
PLAN(square, 3, 5, 33, 1, 0, 5, 33, 10, 2, 1, true, 1)
FILLS(square, 3, 2)

static const qn_case cases[] = {
    CASE(tiny, 1, 4, 6, 2, 1, 4, 5, 2, 3, 2, 2, CLASSES(2)),
    CASE(ragged, 2, 10, 45, 1, 4, 20, 70, 3, 17, 1, 4, CLASSES(4)),
    CASE(square, 3, 5, 33, 1, 5, 33, 3, 2, 10, 2, 1, .scale = 1),
};

// ------------------------------------------------------------------------- refusals

typedef struct call {
    qn_shape state, fits, orders, x, masks, columns;
    qn_hyper_fit_opts opts;
    int views;
} call;

static const call sound = {
    .state = { 3, { 1, 3, N(5, P(2, 3, 2, 2)) } },
    .fits = { 2, { 1, WORDS } },
    .orders = { 2, { 1, 20 } },
    .x = { 2, { 6, 5 } },
    .masks = { 2, { 4, 5 } },
    .columns = { 2, { 4, 2 } },
    .opts = { .net = { 3, 2, 2 }, .steps = 2, .views_per_step = 1, .batch = 4 },
    .views = 4,
};

static void try(qn_graph *g, call c)
{
    qn_hyper_fit(g, qn_input(g, "state", QN_F32, c.state), qn_input(g, "fits", QN_I32, c.fits),
                 qn_input(g, "orders", QN_I32, c.orders), qn_input(g, "start", QN_I32, QN_SCALAR),
                 qn_input(g, "rates", QN_F32, QN_SHAPE(8, 2)), qn_input(g, "x", QN_F32, c.x),
                 qn_input(g, "y", QN_F32, QN_SHAPE(6)), qn_input(g, "masks", QN_F32, c.masks),
                 qn_input(g, "columns", QN_I32, c.columns), c.views, &c.opts);
}

static void refuse_leaf(qn_graph *g)
{
    try(g, sound);
}

static void refuse_state(qn_graph *g)
{
    call c = sound;
    c.state.dim[2]++;
    try(g, c);
}

static void refuse_square(qn_graph *g)
{
    call c = sound;
    c.opts.square = true;
    try(g, c);
}

static void refuse_views(qn_graph *g)
{
    call c = sound;
    c.opts.views_per_step = 5;
    try(g, c);
}

static void refuse_steps(qn_graph *g)
{
    call c = sound;
    c.opts.steps = 0;
    try(g, c);
}

static void refuse_masks(qn_graph *g)
{
    call c = sound;
    c.masks.dim[0] = 3;
    try(g, c);
}

static void refuse_columns(qn_graph *g)
{
    call c = sound;
    c.columns.rank = 1;
    try(g, c);
}

static void refuse_fits(qn_graph *g)
{
    call c = sound;
    c.fits.dim[1] = 7;
    try(g, c);
}

static void refuse_orders(qn_graph *g)
{
    call c = sound;
    c.orders.dim[0] = 2;
    try(g, c);
}

static const qn_refusal refusals[] = {
    { "leaf", QN_ERR_INVALID, "state (state) is not stored", refuse_leaf },
    { "state", QN_ERR_INVALID, "state (state) has shape [1,3,", refuse_state },
    { "square", QN_ERR_INVALID, "squared error of 2 outputs, expected one", refuse_square },
    { "views", QN_ERR_INVALID, "5 views in a step, but there are 4", refuse_views },
    { "steps", QN_ERR_INVALID, "0 steps, batches of 4", refuse_steps },
    { "masks", QN_ERR_INVALID, "masks (masks) has shape [3,5], expected [4,5]", refuse_masks },
    { "columns", QN_ERR_INVALID, "view_columns (columns) has shape [4], expected", refuse_columns },
    { "fits", QN_ERR_INVALID, "fits (fits) has shape [1,7], expected [.., 8]", refuse_fits },
    { "orders", QN_ERR_INVALID, "orders (orders) has shape [2,20], expected [1,20]",
      refuse_orders },
};

QN_OP_TEST(hyper_fit, cases, refusals);
