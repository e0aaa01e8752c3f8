// Cases of the gated delta rule: walked token by token in double, by lanes or by chunks in f32.
#include "case.h"
#include "shapes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct setup {
    int batch, tokens, heads, dk, dv;
    bool start;
    bool only_end;    // the gradient case's objective does not see o
    bool no_gradient; // the builder's option
} setup;

enum { Q, K, V, LA, BETA, START };
enum { MOST = 128 };

// A head's memory, and for each column j a bound of its length and so of what rounding does to it:
// a step never makes M or an error of it longer, as |k|^2 < 2.
typedef struct memory {
    double m[MOST][MOST], length[MOST];
} memory;

// What one token did, for the way back.
typedef struct trace {
    double before[MOST][MOST]; // M_{t-1}
    double u[MOST], u_size[MOST], o[MOST], length[MOST];
} trace;

static double norm(const double *x, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++) s += x[i] * x[i];
    return sqrt(s);
}

static int64_t row_of(const setup *s, int pair, int t)
{
    return ((int64_t)(pair / s->heads) * s->tokens + t) * s->heads + pair % s->heads;
}

static void begin(const setup *s, const qn_ref *in, int pair, memory *m)
{
    for (int j = 0; j < s->dv; j++) {
        double square = 0;
        for (int d = 0; d < s->dk; d++) {
            double x = s->start ? in[START].v[((int64_t)pair * s->dk + d) * s->dv + j] : 0;
            m->m[d][j] = x;
            square += x * x;
        }
        m->length[j] = sqrt(square);
    }
}

static void step(const setup *s, const qn_ref *in, int64_t row, memory *m, trace *tr)
{
    const double *q = in[Q].v + row * s->dk, *k = in[K].v + row * s->dk;
    double a = exp(in[LA].v[row]), beta = in[BETA].v[row], kn = norm(k, s->dk);
    for (int d = 0; d < s->dk; d++)
        memcpy(tr->before[d], m->m[d], (size_t)s->dv * sizeof m->m[d][0]);
    for (int j = 0; j < s->dv; j++) {
        double known = 0, v = in[V].v[row * s->dv + j], o = 0;
        for (int d = 0; d < s->dk; d++) known += k[d] * m->m[d][j];
        tr->u[j] = v - a * known;
        tr->u_size[j] = fabs(v) + a * kn * m->length[j];
        for (int d = 0; d < s->dk; d++) {
            m->m[d][j] = a * m->m[d][j] + k[d] * beta * tr->u[j];
            o += q[d] * m->m[d][j];
        }
        m->length[j] = a * m->length[j] + beta * kn * fabs(v);
        tr->o[j] = o;
        tr->length[j] = m->length[j];
    }
}

// The roundings behind one value: a sum over dk for every token that is still remembered. exp is
// within 2 ulp.
static void terms_of(const setup *s, qn_ref *t)
{
    t->terms = s->dk + s->dv + 3 * s->tokens + 32;
    t->slack = 8;
}

static void remember(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    memory *m = malloc(sizeof *m);
    trace *tr = malloc(sizeof *tr);
    if (!m || !tr) abort();
    for (int pair = 0; pair < s->batch * s->heads; pair++) {
        begin(s, in, pair, m);
        for (int t = 0; t < s->tokens; t++) {
            int64_t row = row_of(s, pair, t);
            step(s, in, row, m, tr);
            double qn = norm(in[Q].v + row * s->dk, s->dk);
            for (int j = 0; j < s->dv; j++) {
                out[0].v[row * s->dv + j] = tr->o[j];
                out[0].mag[row * s->dv + j] = qn * tr->length[j];
            }
        }
        for (int d = 0; d < s->dk; d++)
            for (int j = 0; j < s->dv; j++) {
                out[1].v[((int64_t)pair * s->dk + d) * s->dv + j] = m->m[d][j];
                out[1].mag[((int64_t)pair * s->dk + d) * s->dv + j] = m->length[j];
            }
    }
    terms_of(s, &out[0]);
    terms_of(s, &out[1]);
    free(m);
    free(tr);
}

// ---------------------------------------------------------------------------------- gradient

enum { DQ, DK, DV, DLA, DBETA, DSTART };

static void put(qn_ref *t, int64_t i, double v, double size)
{
    t->v[i] = v;
    t->mag[i] = size;
}

// Takes g, the gradient of M_t without what o_t adds, to that of M_{t-1}.
static void unstep(const setup *s, const qn_ref *in, const double *dout, int64_t row,
                   const trace *tr, memory *g, qn_ref *out)
{
    const double *q = in[Q].v + row * s->dk, *k = in[K].v + row * s->dk;
    double a = exp(in[LA].v[row]), beta = in[BETA].v[row];
    double qn = norm(q, s->dk), kn = norm(k, s->dk), back[MOST], before[MOST];
    double dbeta = 0, dbeta_size = 0, dla = 0, dla_size = 0;
    for (int j = 0; j < s->dv; j++) {
        double square = 0;
        for (int d = 0; d < s->dk; d++) square += tr->before[d][j] * tr->before[d][j];
        before[j] = a * sqrt(square);
        g->length[j] += qn * fabs(dout[j]);
        back[j] = 0;
        for (int d = 0; d < s->dk; d++) {
            g->m[d][j] += q[d] * dout[j];
            back[j] += k[d] * g->m[d][j];
        }
        put(&out[DV], row * s->dv + j, beta * back[j], beta * kn * g->length[j]);
        dbeta += back[j] * tr->u[j];
        dbeta_size += kn * g->length[j] * tr->u_size[j];
        // The scalars of a chunk follow from each other: what o and v contribute comes in.
        dla_size += 32 * (fabs(dout[j]) * qn * tr->length[j] +
                          beta * kn * g->length[j] * fabs(in[V].v[row * s->dv + j]));
    }
    put(&out[DBETA], row, dbeta, dbeta_size);
    for (int d = 0; d < s->dk; d++) {
        double dq = 0, dq_size = 0, dk = 0, dk_size = 0;
        for (int j = 0; j < s->dv; j++) {
            double w = beta * tr->u[j], dv = beta * back[j];
            double now = a * tr->before[d][j] + k[d] * w;
            dq += now * dout[j];
            dq_size += tr->length[j] * fabs(dout[j]);
            dk += g->m[d][j] * w - a * tr->before[d][j] * dv;
            dk_size += g->length[j] * beta * tr->u_size[j] +
                       before[j] * beta * kn * g->length[j];
        }
        put(&out[DQ], row * s->dk + d, dq, dq_size);
        put(&out[DK], row * s->dk + d, dk, dk_size);
    }
    for (int j = 0; j < s->dv; j++) {
        for (int d = 0; d < s->dk; d++) {
            g->m[d][j] = a * (g->m[d][j] - k[d] * beta * back[j]);
            dla += tr->before[d][j] * g->m[d][j];
        }
        dla_size += before[j] * g->length[j];
        g->length[j] *= a;
    }
    put(&out[DLA], row, dla, dla_size);
}

static void remember_back(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    const qn_ref *dout = &in[s->start ? 6 : 5], *dend = dout + 1;
    memory *m = malloc(sizeof *m), *g = malloc(sizeof *g);
    trace *tr = malloc((size_t)s->tokens * sizeof *tr);
    double none[MOST] = { 0 };
    if (!m || !g || !tr) abort();
    for (int pair = 0; pair < s->batch * s->heads; pair++) {
        begin(s, in, pair, m);
        for (int t = 0; t < s->tokens; t++) step(s, in, row_of(s, pair, t), m, &tr[t]);
        for (int j = 0; j < s->dv; j++) {
            double square = 0;
            for (int d = 0; d < s->dk; d++) {
                double x = dend->v[((int64_t)pair * s->dk + d) * s->dv + j];
                g->m[d][j] = x;
                square += x * x;
            }
            g->length[j] = sqrt(square);
        }
        for (int t = s->tokens - 1; t >= 0; t--) {
            int64_t row = row_of(s, pair, t);
            const double *d = s->only_end ? none : dout->v + row * s->dv;
            unstep(s, in, d, row, &tr[t], g, out);
        }
        for (int d = 0; s->start && d < s->dk; d++)
            for (int j = 0; j < s->dv; j++)
                put(&out[DSTART], ((int64_t)pair * s->dk + d) * s->dv + j, g->m[d][j],
                    g->length[j]);
    }
    for (int i = 0; i < (s->start ? 6 : 5); i++) terms_of(s, &out[i]);
    free(m);
    free(g);
    free(tr);
}

// ---------------------------------------------------------------------------------- builders

static const qn_tensor *make(qn_graph *g, const setup *s, const qn_tensor *const *in,
                             const qn_tensor **end)
{
    qn_synapse_opts opts = {
        .batch = s->batch,
        .heads = s->heads,
        .start = s->start ? in[START] : NULL,
        .end = end,
        .no_gradient = s->no_gradient,
    };
    return qn_synapse(g, in[Q], in[K], in[V], in[LA], in[BETA], &opts);
}

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    out[0] = make(g, c->params, in, &out[1]);
    return 2;
}

static int build_back(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    const setup *s = c->params;
    int wanted = s->start ? 6 : 5;
    const qn_tensor *end, *dout = in[wanted], *dend = in[wanted + 1];
    for (int i = 0; i < wanted; i++) qn_wants_grad(in[i]);
    const qn_tensor *o = make(g, s, in, &end);
    if (!o) return 0;
    const qn_tensor *loss = qn_sum_all(g, qn_mul(g, end, dend));
    if (!s->only_end) loss = qn_add(g, loss, qn_sum_all(g, qn_mul(g, o, dout)));
    if (!loss || qn_backward(g, loss, NULL, in, (size_t)wanted, out) != QN_OK) return 0;
    return wanted;
}

// ---------------------------------------------------------------------------------- cases

#define INPUTS(b, t, h, dk_, dv_, decay)                                                           \
    { .name = "q", .shape = S2((b) * (t), (h) * (dk_)), .scale = 0.8 / SQRT(dk_), .grad = true },  \
        { .name = "k", .shape = S2((b) * (t), (h) * (dk_)), .scale = 0.8 / SQRT(dk_),              \
          .grad = true },                                                                          \
        { .name = "v", .shape = S2((b) * (t), (h) * (dv_)), .grad = true },                        \
        { .name = "la", .shape = S2((b) * (t), h), .gen = QN_GEN_UNIFORM, .lo = -(decay),          \
          .hi = 0, .grad = true },                                                                 \
    {                                                                                              \
        .name = "beta", .shape = S2((b) * (t), h), .gen = QN_GEN_UNIFORM, .lo = 0, .hi = 1,        \
        .grad = true                                                                               \
    }
#define SQRT(n) ((n) < 4 ? 1.0 : (n) < 16 ? 2.5 : (n) < 64 ? 5.0 : 9.0)
#define STATE(name_, b, h, dk_, dv_, with_grad)                                                    \
    {                                                                                              \
        .name = name_, .shape = S4(b, h, dk_, dv_), .scale = 0.3, .grad = with_grad                \
    }

#define FORWARD(label, b, t, h, dk_, dv_, decay, with_start, ...)                                  \
    {                                                                                              \
        .name = label, .inputs = 5 + (with_start), .build = build, .ref = remember,                \
        .in = { INPUTS(b, t, h, dk_, dv_, decay), STATE("start", b, h, dk_, dv_, true) },          \
        .params = &(const setup){ b, t, h, dk_, dv_, with_start, __VA_ARGS__ }                     \
    }
#define BACK_START(label, b, t, h, dk_, dv_, decay, ...)                                           \
    {                                                                                              \
        .name = label, .inputs = 8, .build = build_back, .ref = remember_back,                     \
        .no_grad_ref = true,                                                                       \
        .in = { INPUTS(b, t, h, dk_, dv_, decay), STATE("start", b, h, dk_, dv_, true),            \
                { .name = "dout", .shape = S2((b) * (t), (h) * (dv_)) },                           \
                STATE("dend", b, h, dk_, dv_, false) },                                            \
        .params = &(const setup){ b, t, h, dk_, dv_, true, __VA_ARGS__ }                           \
    }
#define BACK(label, b, t, h, dk_, dv_, decay, ...)                                                 \
    {                                                                                              \
        .name = label, .inputs = 7, .build = build_back, .ref = remember_back,                     \
        .no_grad_ref = true,                                                                       \
        .in = { INPUTS(b, t, h, dk_, dv_, decay),                                                  \
                { .name = "dout", .shape = S2((b) * (t), (h) * (dv_)) },                           \
                STATE("dend", b, h, dk_, dv_, false) },                                            \
        .params = &(const setup){ b, t, h, dk_, dv_, false, __VA_ARGS__ }                          \
    }

static const qn_case cases[] = {
    FORWARD("t1_8x8", 2, 1, 2, 8, 8, 0.5, false, 0),
    FORWARD("t1_start_7x5", 2, 1, 3, 7, 5, 0.5, true, 0),
    FORWARD("t31_16x16", 1, 31, 2, 16, 16, 0.5, false, 0),
    FORWARD("t32_start_16x24", 2, 32, 1, 16, 24, 0.5, true, 0),
    FORWARD("t33_start_8x24", 1, 33, 3, 8, 24, 0.5, true, 0),
    FORWARD("t65_start_5x33", 1, 65, 2, 5, 33, 0.1, true, 0),
    FORWARD("t33_1x1", 2, 33, 1, 1, 1, 0.5, true, 0),
    FORWARD("t70_strong_12x20", 1, 70, 2, 12, 20, 8, true, 0),
    FORWARD("t40_still_33x36", 1, 40, 1, 33, 36, 0.0001, true, 0),
    { .name = "t40_128x128",
      .inputs = 5,
      .build = build,
      .ref = remember,
      .bench = true,
      .in = { INPUTS(1, 40, 1, 128, 128, 0.2) },
      .params = &(const setup){ 1, 40, 1, 128, 128, false, 0 } },
};

static const qn_case cases_back[] = {
    BACK("t1_8x8", 2, 1, 2, 8, 8, 0.5, 0),
    BACK_START("t1_start_7x5", 2, 1, 3, 7, 5, 0.5, 0),
    BACK_START("t33_start_8x24", 1, 33, 3, 8, 24, 0.5, 0),
    BACK("t64_64x64", 1, 64, 1, 64, 64, 0.3, 0),
    BACK_START("t65_start_5x33", 2, 65, 2, 5, 33, 0.1, 0),
    BACK_START("t70_strong_12x20", 1, 70, 2, 12, 20, 8, 0),
    BACK_START("t513_start_16x16", 1, 513, 2, 16, 16, 0.1, 0),
    BACK("t40_128x128", 1, 40, 1, 128, 128, 0.2, 0),
    BACK_START("t40_only_end_36x20", 1, 40, 2, 36, 20, 0.2, .only_end = true),
};

// ---------------------------------------------------------------------------------- refusals

typedef struct malformed {
    qn_shape q, k, v, la, beta, start;
    qn_synapse_opts opts;
    bool backward;
} malformed;

static void try(qn_graph *g, malformed m)
{
    const qn_tensor *q = qn_input(g, "q", QN_F32, m.q);
    qn_wants_grad(q);
    const qn_tensor *k = qn_input(g, "k", QN_F32, m.k.rank ? m.k : m.q);
    const qn_tensor *v = qn_input(g, "v", QN_F32, m.v);
    const qn_tensor *la = qn_input(g, "la", QN_F32, m.la);
    const qn_tensor *beta = qn_input(g, "beta", QN_F32, m.beta.rank ? m.beta : m.la);
    if (m.start.rank) m.opts.start = qn_input(g, "start", QN_F32, m.start);
    const qn_tensor *o = qn_synapse(g, q, k, v, la, beta, &m.opts), *grad;
    if (m.backward) qn_backward(g, qn_sum_all(g, o), NULL, &q, 1, &grad);
}

#define REFUSED(name, ...)                                                                         \
    static void name(qn_graph *g)                                                                  \
    {                                                                                              \
        try(g, (malformed){ __VA_ARGS__ });                                                        \
    }
REFUSED(no_batch, .q = S2(6, 8), .v = S2(6, 8), .la = S2(6, 1), .opts = { .heads = 1 })
REFUSED(no_heads, .q = S2(6, 8), .v = S2(6, 8), .la = S2(6, 1), .opts = { .batch = 1 })
REFUSED(odd_rows, .q = S2(7, 8), .v = S2(7, 8), .la = S2(7, 1), .opts = { 2, 1 })
REFUSED(odd_heads, .q = S2(6, 8), .v = S2(6, 8), .la = S2(6, 3), .opts = { 1, 3 })
REFUSED(wide_keys, .q = S2(6, 129), .v = S2(6, 8), .la = S2(6, 1), .opts = { 1, 1 })
REFUSED(wide_values, .q = S2(6, 8), .v = S2(6, 258), .la = S2(6, 2), .opts = { 1, 2 })
REFUSED(other_k, .q = S2(6, 8), .k = S2(6, 4), .v = S2(6, 8), .la = S2(6, 1), .opts = { 1, 1 })
REFUSED(other_rows, .q = S2(6, 8), .v = S2(5, 8), .la = S2(6, 1), .opts = { 1, 1 })
REFUSED(other_la, .q = S2(6, 8), .v = S2(6, 8), .la = S2(6, 2), .opts = { 1, 1 })
REFUSED(other_beta, .q = S2(6, 8), .v = S2(6, 8), .la = S2(6, 1), .beta = S2(3, 2),
        .opts = { 1, 1 })
REFUSED(other_start, .q = S2(6, 8), .v = S2(6, 4), .la = S2(6, 1), .start = S4(1, 1, 4, 8),
        .opts = { 1, 1 })
REFUSED(final, .q = S2(6, 8), .v = S2(6, 4), .la = S2(6, 1), .backward = true,
        .opts = { 1, 1, .no_gradient = true })

static const qn_refusal refusals[] = {
    { "no batch", QN_ERR_INVALID, "batch 0", no_batch },
    { "no heads", QN_ERR_INVALID, "heads 0", no_heads },
    { "rows that do not divide", QN_ERR_INVALID, "rows for batch 2", odd_rows },
    { "heads that do not divide", QN_ERR_INVALID, "columns for 3 heads", odd_heads },
    { "keys of 129", QN_ERR_INVALID, "q (q) has shape [6,129]", wide_keys },
    { "values of 129", QN_ERR_INVALID, "v (v) has shape [6,258]", wide_values },
    { "shape of k", QN_ERR_INVALID, "k (k) has shape [6,4], expected [6,8]", other_k },
    { "rows of v", QN_ERR_INVALID, "v (v) has shape [5,8], expected [6,8]", other_rows },
    { "shape of la", QN_ERR_INVALID, "la (la) has shape [6,2], expected [6,1]", other_la },
    { "shape of beta", QN_ERR_INVALID, "beta (beta) has shape [3,2]", other_beta },
    { "shape of start", QN_ERR_INVALID, "start (start) has shape [1,1,4,8], expected [1,1,8,4]",
      other_start },
    { "gradient of a final use", QN_ERR_INVALID, "built without one", final },
};

QN_OP_TEST(synapse, cases, refusals);

// The gradient has no builder of its own: what it refuses, the operation refuses before.
static const qn_refusal refusals_back[] = {
    { "shape of la", QN_ERR_INVALID, "la (la) has shape [6,2], expected [6,1]", other_la },
};

QN_OP_TEST(synapse_grad, cases_back, refusals_back);
