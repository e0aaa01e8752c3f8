// Cases of hyper_target and hyper_target_grad.
#include "case.h"
#include "op.h"
#include "shapes.h"

#include <math.h>

enum { X, COLUMNS, GENERATED, DLOGITS };
enum { WIDEST = 64 }; // hidden units, and columns of a view

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    out[0] = qn_hyper_target(g, in[X], in[COLUMNS], in[GENERATED], c->params);
    return 1;
}

// One layer of one row, with the sums of magnitudes: mag_in in, mag out.
static const double *layer(const double *w, int inputs, int outputs, bool relu, double *v,
                           double *mag)
{
    double out[WIDEST], out_mag[WIDEST];
    for (int o = 0; o < outputs; o++) {
        double b = w[inputs * outputs + o];
        out[o] = b;
        out_mag[o] = fabs(b);
        for (int i = 0; i < inputs; i++) {
            out[o] += w[o * inputs + i] * v[i];
            out_mag[o] += fabs(w[o * inputs + i]) * mag[i];
        }
        if (relu && !(out[o] > 0)) out[o] = 0;
    }
    for (int o = 0; o < outputs; o++) {
        v[o] = out[o];
        mag[o] = out_mag[o];
    }
    return w + (inputs + 1) * outputs;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const qn_target_net *net = c->params;
    int64_t rows = in[X].shape.dim[0], d = in[X].shape.dim[1];
    int64_t views = in[COLUMNS].shape.dim[0], m = in[COLUMNS].shape.dim[1];
    for (int64_t k = 0; k < views; k++)
        for (int64_t n = 0; n < rows; n++) {
            double v[WIDEST], mag[WIDEST];
            const double *w = in[GENERATED].v + k * in[GENERATED].shape.dim[1];
            for (int64_t i = 0; i < m; i++) {
                v[i] = in[X].v[n * d + (int64_t)in[COLUMNS].v[k * m + i]];
                mag[i] = fabs(v[i]);
            }
            int inputs = (int)m;
            for (int l = 0; l < net->depth; l++) {
                w = layer(w, inputs, net->hidden, true, v, mag);
                inputs = net->hidden;
            }
            layer(w, inputs, net->outputs, false, v, mag);
            for (int o = 0; o < net->outputs; o++) {
                int64_t at = (k * rows + n) * net->outputs + o;
                out[0].v[at] = v[o];
                out[0].mag[at] = mag[o];
            }
        }
    // Every layer rounds once per term; its sums are what the next ones start from.
    out[0].terms = (double)(m + net->depth * net->hidden);
}

#define NET(h, l, c) &(const qn_target_net){ .hidden = h, .depth = l, .outputs = c }
#define WEIGHTS(m, h, l, c) (((m) + 1) * (h) + ((l)-1) * ((h) + 1) * (h) + ((h) + 1) * (c))
#define TARGET_IN(n, d, views, m, h, l, c)                                                         \
    { .name = "x", .shape = S2(n, d) },                                                            \
        { .name = "columns", .dtype = QN_I32, .shape = S2(views, m), .gen = QN_GEN_INT,            \
          .lo = 0, .hi = (d)-1 },                                                                  \
        { .name = "generated", .shape = S2(views, WEIGHTS(m, h, l, c)), .scale = 0.5, .grad = true }
#define TARGET(label, n, d, views, m, h, l, c, ...)                                                \
    {                                                                                              \
        .name = label, .inputs = 3, .in = { TARGET_IN(n, d, views, m, h, l, c) },                  \
        .params = NET(h, l, c), .build = build, .ref = ref, __VA_ARGS__                            \
    }

static const qn_case cases[] = {
    TARGET("1x1", 1, 1, 1, 1, 1, 1, 1),
    TARGET("6x5_of_4", 6, 5, 4, 2, 3, 2, 2),
    TARGET("37x34_of_5", 37, 34, 5, 17, 10, 2, 6),
    TARGET("33x9_one_hidden", 33, 9, 3, 4, 5, 1, 3),
    TARGET("70x6_three_hidden", 70, 6, 2, 6, 9, 3, 17),
    TARGET("31x40_wide", 31, 40, 2, 33, 33, 2, 9),
    TARGET("200x16_of_10", 200, 16, 10, 8, 10, 2, 2, .bench = true),
};

static const qn_target_net sound = { .hidden = 3, .depth = 2, .outputs = 2 };

static void target_of(qn_graph *g, qn_shape x, qn_shape columns, qn_shape gen, qn_target_net net)
{
    qn_hyper_target(g, qn_input(g, "x", QN_F32, x), qn_input(g, "c", QN_I32, columns),
                    qn_input(g, "g", QN_F32, gen), &net);
}

static void refuse_x(qn_graph *g)
{
    target_of(g, QN_SHAPE(5), QN_SHAPE(4, 2), QN_SHAPE(4, 29), sound);
}

static void refuse_columns(qn_graph *g)
{
    target_of(g, QN_SHAPE(6, 5), QN_SHAPE(4, 6), QN_SHAPE(4, 29), sound);
}

static void refuse_views(qn_graph *g)
{
    target_of(g, QN_SHAPE(6, 5), QN_SHAPE(4, 2), QN_SHAPE(3, 29), sound);
}

static void refuse_weights(qn_graph *g)
{
    target_of(g, QN_SHAPE(6, 5), QN_SHAPE(4, 2), QN_SHAPE(4, 28), sound);
}

static void refuse_hidden(qn_graph *g)
{
    target_of(g, QN_SHAPE(6, 5), QN_SHAPE(4, 2), QN_SHAPE(4, 29),
              (qn_target_net){ .hidden = 65, .depth = 1, .outputs = 2 });
}

static void refuse_depth(qn_graph *g)
{
    target_of(g, QN_SHAPE(6, 5), QN_SHAPE(4, 2), QN_SHAPE(4, 29),
              (qn_target_net){ .hidden = 3, .depth = 0, .outputs = 2 });
}

static void refuse_gradient(qn_graph *g)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(6, 5)), *dx;
    qn_wants_grad(x);
    const qn_tensor *y = qn_hyper_target(g, x, qn_input(g, "c", QN_I32, QN_SHAPE(4, 2)),
                                         qn_input(g, "g", QN_F32, QN_SHAPE(4, 29)), &sound);
    qn_backward(g, qn_sum_all(g, y), NULL, &x, 1, &dx);
}

static const qn_refusal refusals[] = {
    { "x", QN_ERR_INVALID, "x (x) has shape [5], expected [rows, columns]", refuse_x },
    { "columns", QN_ERR_INVALID, "shape [4,6], expected [views, at most 5]", refuse_columns },
    { "views", QN_ERR_INVALID, "generated (g) has shape [3,29], expected [4, weights]",
      refuse_views },
    { "weights", QN_ERR_INVALID, "28 weights a view, expected 29 for 2 columns", refuse_weights },
    { "hidden", QN_ERR_INVALID, "hidden is 65, expected 1 to 64", refuse_hidden },
    { "depth", QN_ERR_INVALID, "depth is 0, expected 1 to 4", refuse_depth },
    { "gradient", QN_ERR_INVALID, "the network has none to its rows", refuse_gradient },
};

QN_OP_TEST(hyper_target, cases, refusals);

// ------------------------------------------------------------------------- hyper_target_grad
// The parts summed; their number depends on the device.

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    qn_shape gen = c->in[GENERATED].shape;
    const qn_tensor *parts = QN_OP1(g, &qn_op_hyper_target_grad, c->params, in[X], in[COLUMNS],
                                    in[GENERATED], in[DLOGITS]);
    if (!parts) return 0;
    parts = qn_reshape(g, parts, QN_SHAPE(parts->shape.dim[0], qn_shape_count(gen)));
    out[0] = qn_reshape(g, qn_sum_rows(g, parts), gen);
    return 1;
}

typedef struct unit {
    double v, mag;
} unit;

// dW, db of a layer added to the gradient; d becomes the gradient below.
static void layer_back(const double *w, double *grad, double *grad_mag, int inputs, int outputs,
                       const unit *in, unit *d, bool relu)
{
    unit below[WIDEST] = { { 0 } };
    for (int o = 0; o < outputs; o++) {
        grad[inputs * outputs + o] += d[o].v;
        grad_mag[inputs * outputs + o] += d[o].mag;
        for (int i = 0; i < inputs; i++) {
            grad[o * inputs + i] += d[o].v * in[i].v;
            grad_mag[o * inputs + i] += d[o].mag * in[i].mag;
            below[i].v += w[o * inputs + i] * d[o].v;
            below[i].mag += fabs(w[o * inputs + i]) * d[o].mag;
        }
    }
    for (int i = 0; i < inputs; i++) {
        d[i] = below[i];
        if (relu && !(in[i].v > 0)) d[i] = (unit){ 0 };
    }
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const qn_target_net *net = c->params;
    int64_t rows = in[X].shape.dim[0], columns = in[X].shape.dim[1];
    int64_t views = in[COLUMNS].shape.dim[0], m = in[COLUMNS].shape.dim[1];
    int64_t count = in[GENERATED].shape.dim[1];
    int h = net->hidden, last = net->depth;
    for (int64_t k = 0; k < views; k++)
        for (int64_t n = 0; n < rows; n++) {
            unit act[5][WIDEST], d[WIDEST];
            const double *at[5];
            const double *w = in[GENERATED].v + k * count;
            double v[WIDEST], mag[WIDEST];
            for (int64_t i = 0; i < m; i++) {
                v[i] = in[X].v[n * columns + (int64_t)in[COLUMNS].v[k * m + i]];
                mag[i] = fabs(v[i]);
            }
            for (int l = 0; l <= last; l++) {
                int inputs = l ? h : (int)m, outputs = l == last ? net->outputs : h;
                for (int i = 0; i < inputs; i++) act[l][i] = (unit){ v[i], mag[i] };
                at[l] = w;
                w = layer(w, inputs, outputs, l < last, v, mag);
            }
            for (int o = 0; o < net->outputs; o++) {
                d[o].v = in[DLOGITS].v[(k * rows + n) * net->outputs + o];
                d[o].mag = fabs(d[o].v);
            }
            for (int l = last; l >= 0; l--) {
                int64_t shift = k * count + (at[l] - (in[GENERATED].v + k * count));
                layer_back(at[l], out[0].v + shift, out[0].mag + shift, l ? h : (int)m,
                           l == last ? net->outputs : h, act[l], d, l > 0);
            }
        }
    out[0].terms = (double)(rows + 2 * (m + net->depth * h) + net->outputs);
}

#define TARGET_GRAD(label, n, d, views, m, h, l, c)                                                \
    {                                                                                              \
        .name = label, .inputs = 4,                                                                \
        .in = { TARGET_IN(n, d, views, m, h, l, c),                                                \
                { .name = "dlogits", .shape = S3(views, n, c) } },                                 \
        .params = NET(h, l, c), .build = build_grad, .ref = ref_grad, .no_grad_ref = true          \
    }

static const qn_case grad_cases[] = {
    TARGET_GRAD("1x1", 1, 1, 1, 1, 1, 1, 1),
    TARGET_GRAD("6x5_of_4", 6, 5, 4, 2, 3, 2, 2),
    TARGET_GRAD("37x34_of_5", 37, 34, 5, 17, 10, 2, 6),
    TARGET_GRAD("70x6_three_hidden", 70, 6, 2, 6, 9, 3, 17),
    TARGET_GRAD("31x40_wide", 31, 40, 3, 33, 33, 2, 9),
    TARGET_GRAD("601x3_slices", 601, 3, 2, 2, 4, 1, 2),
};

static void refuse_dlogits(qn_graph *g)
{
    QN_OP1(g, &qn_op_hyper_target_grad, &sound, qn_input(g, "x", QN_F32, QN_SHAPE(6, 5)),
           qn_input(g, "c", QN_I32, QN_SHAPE(4, 2)), qn_input(g, "g", QN_F32, QN_SHAPE(4, 29)),
           qn_input(g, "dy", QN_F32, QN_SHAPE(4, 6, 3)));
}

static const qn_refusal grad_refusals[] = {
    { "dlogits", QN_ERR_INVALID, "dlogits (dy) has shape [4,6,3], expected [4,6,2]",
      refuse_dlogits },
};

QN_OP_TEST(hyper_target_grad, grad_cases, grad_refusals);
