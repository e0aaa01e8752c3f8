// Cases of router_loss and router_loss_grad.
#include "case.h"
#include "op.h"

#include <math.h>

enum { MOST = 256 }; // experts
static const double epsilon = 1e-8, z_weight = 0.1;

typedef struct setup {
    int choices;
    qn_router_loss kind;
} setup;

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    qn_routing r = qn_route(g, in[0], &(qn_route_opts){ .choices = s->choices });
    out[0] = qn_router_loss_of(g, &r, s->kind);
    if (!out[0]) return 1;
    out[1] = qn_tensor_node(out[0])->out[1]; // the coefficients that the gradient needs
    return 2;
}

// What the reference needs to know of a row, and what of all.
typedef struct row {
    double p[MOST], top, spread, low; // logsumexp is top + spread
} row;

static row row_of(const double *z, int64_t width)
{
    row r = { .top = z[0], .low = z[0] };
    double sum = 0;
    for (int64_t e = 1; e < width; e++) {
        r.top = fmax(r.top, z[e]);
        r.low = fmin(r.low, z[e]);
    }
    for (int64_t e = 0; e < width; e++) sum += exp(z[e] - r.top);
    for (int64_t e = 0; e < width; e++) r.p[e] = exp(z[e] - r.top) / sum;
    r.spread = log(sum);
    return r;
}

// A relative error of d in probabilities moves an entropy or a logarithm by about d times
// 1 + |log|, hence the ones below; d itself is that of an exponential, see route.c.
static double slack_of(double range)
{
    return 2 * (6 + 5 * range) + 5;
}

// How many of the choices of a row are expert e with a gate that f32 can tell from zero.
static void count_choices(const double *z, const row *r, int64_t width, int choices, double *count)
{
    bool taken[MOST] = { false };
    for (int s = 0; s < choices; s++) {
        int64_t best = -1;
        for (int64_t e = 0; e < width; e++)
            if (!taken[e] && (best < 0 || z[e] > z[best])) best = e;
        taken[best] = true;
        count[best] += (float)r->p[best] > 0;
    }
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t rows = in[0].shape.dim[0], width = in[0].shape.dim[1];
    double mass[MOST] = { 0 }, count[MOST] = { 0 }, entropy = 0, squares = 0, range = 0;
    double entropy_size = 0, squares_size = 0;
    for (int64_t n = 0; n < rows; n++) {
        const double *z = in[0].v + n * width;
        row r = row_of(z, width);
        range = fmax(range, r.top - r.low);
        entropy_size += (1 + r.spread) / (double)rows;
        for (int64_t e = 0; e < width; e++) {
            double log_p = z[e] - r.top - r.spread;
            mass[e] += r.p[e];
            entropy -= r.p[e] * log_p / (double)rows;
            entropy_size += r.p[e] * (r.top - z[e]) / (double)rows;
        }
        double lse = r.top + r.spread;
        squares += lse * lse / (double)rows;
        squares_size += pow(fabs(r.top) + r.spread + 1, 2) / (double)rows;
        count_choices(z, &r, width, s->choices, count);
    }
    double marginal = 0, marginal_size = 0, total = 0, product = 0;
    for (int64_t e = 0; e < width; e++) {
        double p = mass[e] / (double)rows, logarithm = log(p + epsilon);
        double coef = (logarithm + p / (p + epsilon)) / (double)rows;
        marginal -= p * logarithm;
        marginal_size += p * (1 + fabs(logarithm));
        total += count[e];
        product += p * count[e];
        out[1].v[e] = s->kind == QN_ROUTER_MI ? coef : -coef;
        out[1].mag[e] = (2 + fabs(logarithm)) / (double)rows;
    }
    for (int64_t e = 0; s->kind == QN_ROUTER_SWITCH && e < width; e++) {
        out[1].v[e] = (double)width * count[e] / fmax(total, 1e-12) / (double)rows;
        out[1].mag[e] = out[1].v[e];
    }
    product *= (double)width / fmax(total, 1e-12);
    switch (s->kind) {
    case QN_ROUTER_MI:
        out[0].v[0] = entropy - marginal;
        out[0].mag[0] = entropy_size + marginal_size;
        break;
    case QN_ROUTER_SWITCH:
        out[0].v[0] = product + z_weight * squares;
        out[0].mag[0] = product + z_weight * squares_size;
        break;
    case QN_ROUTER_CONCENTRATION:
        out[0].v[0] = marginal;
        out[0].mag[0] = marginal_size;
        break;
    }
    out[0].terms = out[1].terms = (double)(rows + width);
    out[0].slack = out[1].slack = slack_of(range);
}

static void fill_equal(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = -1.5;
}

static void fill_one_for_all(qn_ref *t) // marginals of nearly 0 and nearly 1
{
    int64_t width = qn_shape_last(t->shape);
    for (int64_t i = 0; i < t->count; i++) t->v[i] = i % width == 1 ? 12 : 0.5 * (double)(i % 3);
}

static void fill_rare(qn_ref *t) // marginals about as small as the epsilon
{
    int64_t width = qn_shape_last(t->shape);
    for (int64_t i = 0; i < t->count; i++) t->v[i] = i % width ? -15.0 - (double)(i % width) : 0;
}

#define LOGITS(n, e, ...)                                                                          \
    {                                                                                              \
        {                                                                                          \
            .name = "logits", .shape = { 2, { n, e } }, __VA_ARGS__                                \
        }                                                                                          \
    }
#define DISTINCT(range) .gen = QN_GEN_DISTINCT, .lo = -(range), .hi = range
#define CASE(label, k, which, ...)                                                                 \
    {                                                                                              \
        .name = label, .inputs = 1, .in = __VA_ARGS__, .params = &(const setup){ k, which },       \
        .build = build, .ref = ref, .no_grad_out = 2                                               \
    }
#define EACH_KIND(label, k, ...)                                                                   \
    CASE("mi_" label, k, QN_ROUTER_MI, __VA_ARGS__),                                               \
        CASE("switch_" label, k, QN_ROUTER_SWITCH, __VA_ARGS__),                                   \
        CASE("concentration_" label, k, QN_ROUTER_CONCENTRATION, __VA_ARGS__)

static const qn_case cases[] = {
    EACH_KIND("1x1", 1, LOGITS(1, 1, DISTINCT(1), .grad = true)),
    EACH_KIND("33x1", 1, LOGITS(33, 1, DISTINCT(1), .grad = true)),
    // A single row's entropy and marginal cancel whatever the logits: no slope to compare with.
    CASE("mi_1x5", 2, QN_ROUTER_MI, LOGITS(1, 5, DISTINCT(2))),
    CASE("switch_1x5", 2, QN_ROUTER_SWITCH, LOGITS(1, 5, DISTINCT(2), .grad = true)),
    CASE("concentration_1x5", 2, QN_ROUTER_CONCENTRATION, LOGITS(1, 5, DISTINCT(2), .grad = true)),
    EACH_KIND("7x16", 2, LOGITS(7, 16, DISTINCT(2), .grad = true)),
    EACH_KIND("33x5", 5, LOGITS(33, 5, DISTINCT(2), .grad = true)),
    EACH_KIND("65x64", 4, LOGITS(65, 64, DISTINCT(3), .grad = true)),
    EACH_KIND("9x255", 3, LOGITS(9, 255, DISTINCT(3), .grad = true)),
    EACH_KIND("2061x16", 2, LOGITS(2061, 16, DISTINCT(3), .grad = true)),
    EACH_KIND("equal_17x12", 3, LOGITS(17, 12, .gen = QN_GEN_CUSTOM, .fill = fill_equal)),
    EACH_KIND("one_for_all", 1, LOGITS(21, 8, .gen = QN_GEN_CUSTOM, .fill = fill_one_for_all)),
    // Logits down from 0, so that what a gate of zero changes is not lost behind the z loss.
    EACH_KIND("saturated", 3, LOGITS(17, 8, .gen = QN_GEN_DISTINCT, .lo = -1750, .hi = 250)),
    EACH_KIND("rare", 1, LOGITS(3, 8, .gen = QN_GEN_CUSTOM, .fill = fill_rare)),
    CASE("mi_normal_50x16", 2, QN_ROUTER_MI, LOGITS(50, 16, .grad = true)),
    { .name = "mi_2048x16",
      .inputs = 1,
      .in = LOGITS(2048, 16),
      .params = &(const setup){ 2, QN_ROUTER_MI },
      .build = build,
      .ref = ref,
      .bench = true,
      .no_grad_out = 2 },
};

// A routing made by hand, with one thing wrong.
static qn_routing routing_of(qn_graph *g)
{
    return (qn_routing){
        .logits = qn_input(g, "z", QN_F32, QN_SHAPE(3, 4)),
        .probs = qn_input(g, "p", QN_F32, QN_SHAPE(3, 4)),
        .gates = qn_input(g, "g", QN_F32, QN_SHAPE(3, 2)),
        .experts = qn_input(g, "e", QN_I32, QN_SHAPE(3, 2)),
        .choices = 2,
    };
}

static void refuse_kind(qn_graph *g)
{
    qn_routing r = routing_of(g);
    qn_router_loss_of(g, &r, (qn_router_loss)3);
}

static void refuse_probs(qn_graph *g)
{
    qn_routing r = routing_of(g);
    r.probs = qn_input(g, "q", QN_F32, QN_SHAPE(4, 3));
    qn_router_loss_of(g, &r, QN_ROUTER_MI);
}

static void refuse_gates(qn_graph *g)
{
    qn_routing r = routing_of(g);
    r.gates = qn_input(g, "h", QN_F32, QN_SHAPE(2, 3));
    qn_router_loss_of(g, &r, QN_ROUTER_SWITCH);
}

static void refuse_experts(qn_graph *g)
{
    qn_routing r = routing_of(g);
    r.experts = r.gates;
    qn_router_loss_of(g, &r, QN_ROUTER_SWITCH);
}

static const qn_refusal refusals[] = {
    { "kind", QN_ERR_INVALID, "there is no routing loss 3", refuse_kind },
    { "probs", QN_ERR_INVALID, "probs (q) has shape [4,3], expected [3,4]", refuse_probs },
    { "gates", QN_ERR_INVALID, "gates (h) has shape [2,3], expected [3, choices]", refuse_gates },
    { "experts", QN_ERR_INVALID, "experts (g) is f32, expected i32", refuse_experts },
};

QN_OP_TEST(router_loss, cases, refusals);

// --------------------------------------------------------------------------- router_loss_grad

typedef struct loss {
    int32_t kind;
} loss; // the operation's attributes

static int build_grad(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    loss attrs = { ((const setup *)c->params)->kind };
    out[0] = QN_OP1(g, &qn_op_router_loss_grad, &attrs, in[0], in[1], in[2]);
    return 1;
}

static void ref_grad(const qn_case *c, qn_ref *in, qn_ref *out)
{
    int kind = (int)((const setup *)c->params)->kind;
    int64_t rows = in[0].shape.dim[0], width = in[0].shape.dim[1];
    double range = 0, n_rows = (double)rows;
    for (int64_t n = 0; n < rows; n++) {
        const double *z = in[0].v + n * width, *coef = in[1].v;
        row r = row_of(z, width);
        double mean = 0, mean_size = 0, entropy = 0, lse = r.top + r.spread;
        for (int64_t e = 0; e < width; e++) {
            mean += r.p[e] * coef[e];
            mean_size += r.p[e] * fabs(coef[e]);
            entropy -= r.p[e] * (z[e] - lse);
        }
        range = fmax(range, r.top - r.low);
        for (int64_t e = 0; e < width; e++) {
            double inner = coef[e] - mean, size = fabs(coef[e]) + mean_size;
            double factor = in[2].v[0] * r.p[e];
            if (kind == QN_ROUTER_MI) {
                inner -= (z[e] - lse + entropy) / n_rows;
                size += (2 + fabs(z[e] - r.top) + 2 * r.spread + entropy) / n_rows;
            } else if (kind == QN_ROUTER_SWITCH) {
                inner += 2 * z_weight * lse / n_rows;
                size += 2 * z_weight * (1 + fabs(r.top) + r.spread) / n_rows;
            }
            out[0].v[n * width + e] = factor * inner;
            out[0].mag[n * width + e] = fabs(factor) * size;
        }
    }
    out[0].terms = (double)width;
    out[0].slack = slack_of(range);
}

#define GRAD_CASE(label, n, e, which)                                                              \
    {                                                                                              \
        .name = label, .inputs = 3,                                                                \
        .in = { { .name = "logits", .shape = { 2, { n, e } } },                                    \
                { .name = "coef", .shape = { 1, { e } } },                                         \
                { .name = "dloss", .shape = { 0 } } },                                             \
        .params = &(const setup){ 1, which }, .build = build_grad, .ref = ref_grad                 \
    }

static const qn_case grad_cases[] = {
    GRAD_CASE("mi_1x1", 1, 1, QN_ROUTER_MI),
    GRAD_CASE("mi_33x16", 33, 16, QN_ROUTER_MI),
    GRAD_CASE("switch_9x13", 9, 13, QN_ROUTER_SWITCH),
    GRAD_CASE("concentration_70x64", 70, 64, QN_ROUTER_CONCENTRATION),
};

static void refuse_dloss(qn_graph *g)
{
    loss attrs = { QN_ROUTER_MI };
    QN_OP1(g, &qn_op_router_loss_grad, &attrs, qn_input(g, "z", QN_F32, QN_SHAPE(3, 4)),
           qn_input(g, "c", QN_F32, QN_SHAPE(4)), qn_input(g, "d", QN_F32, QN_SHAPE(2)));
}

static const qn_refusal grad_refusals[] = {
    { "dloss", QN_ERR_INVALID, "gradient of the loss (d) has shape [2], expected []",
      refuse_dloss },
};

QN_OP_TEST(router_loss_grad, grad_cases, grad_refusals);
