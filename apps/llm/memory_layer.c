// The memory layer as graph calls. [synaptic-resonance] for the idea, docs/memory.md for the
// definition.
#include "memory_layer.h"
#include "mem.h"

#include <math.h>
#include <string.h>

static const float epsilon = 1e-6f;

// x / sqrt(|x|^2 + epsilon) for every head: a root-mean-square norm whose weight is 1/sqrt(width).
static const qn_tensor *unit(qn_graph *g, const qn_tensor *x, int64_t heads, int64_t width)
{
    if (!x) return NULL;
    const qn_shape shape = x->shape;
    float *w = qn_malloc((size_t)width * sizeof *w);
    if (!w) return NULL;
    for (int64_t i = 0; i < width; i++) w[i] = (float)(1 / sqrt((double)width));
    const qn_tensor *scale = qn_constant(g, "unit", QN_F32, QN_SHAPE(width), w);
    qn_free(w);
    x = qn_reshape(g, x, QN_SHAPE(shape.dim[0] * heads, width));
    x = qn_rms_norm(g, x, scale, epsilon / (float)width);
    return x ? qn_reshape(g, x, shape) : NULL;
}

// A row [H] for every token: [N, H].
static const qn_tensor *spread(qn_graph *g, const qn_tensor *row, int64_t tokens)
{
    if (!row) return NULL;
    const int64_t heads = row->shape.dim[0];
    float *zeros = qn_calloc((size_t)(tokens * heads), sizeof *zeros);
    if (!zeros) return NULL;
    const qn_tensor *x = qn_constant(g, "zeros", QN_F32, QN_SHAPE(tokens, heads), zeros);
    qn_free(zeros);
    return qn_add(g, x, row);
}

// la with a decay that leaves nothing, exp(-200) being 0 in f32, where something is to be forgotten.
static const qn_tensor *forgetful(qn_graph *g, const qn_tensor *la, const qn_tensor *forget)
{
    if (!la || !forget) return la;
    float row[1024];
    const int64_t heads = la->shape.dim[1];
    for (int64_t i = 0; i < heads && i < 1024; i++) row[i] = -200;
    const qn_tensor *r = qn_constant(g, "forget", QN_F32, QN_SHAPE(1, heads), row);
    return qn_add(g, la, qn_matmul(g, forget, r, NULL));
}

const qn_tensor *qn_memory_recall(qn_graph *g, const qn_tensor *const *qkv, const qn_tensor *la,
                                  const qn_tensor *beta, const qn_memory_keeping *keep,
                                  const qn_synapse_opts *opts, const qn_memory_state *start,
                                  qn_memory_state *end)
{
    qn_synapse_opts o = *opts;
    o.start = start->plastic;
    o.end = &end->plastic;
    la = forgetful(g, la, start->forget);
    const qn_tensor *r = qn_synapse(g, qkv[0], qkv[1], qkv[2], la, beta, &o);
    if (!r || !keep) return r;
    const int64_t tokens = r->shape.dim[0], width = r->shape.dim[1] / opts->heads;
    const qn_tensor *rows = qn_reshape(g, r, QN_SHAPE(tokens * opts->heads, width));
    const qn_tensor *write = qn_resonance(g, rows, keep->relevance, keep->threshold);
    o.start = start->consolidated;
    o.end = &end->consolidated;
    const qn_tensor *decay = forgetful(g, spread(g, keep->log_decay, tokens), start->forget);
    const qn_tensor *s = qn_synapse(g, qkv[0], qkv[0], r, decay, write, &o);
    const qn_tensor *eta = spread(g, keep->share, tokens);
    if (!s || !eta) return NULL;
    s = qn_reshape(g, s, QN_SHAPE(tokens * opts->heads, width));
    eta = qn_reshape(g, eta, QN_SHAPE(tokens * opts->heads, 1));
    s = qn_combine(g, s, eta, rows, 1);
    return s ? qn_reshape(g, s, r->shape) : NULL;
}

const qn_tensor *qn_memory_layer(qn_graph *g, const qn_tensor *x, int64_t batch,
                                 const qn_memory_shape *s, const qn_memory_weights *w,
                                 const qn_memory_state *start, qn_memory_state *end,
                                 bool no_gradient)
{
    static const qn_memory_state nothing;
    qn_memory_state dropped;
    if (!start) start = &nothing;
    if (!end) end = &dropped;
    *end = nothing;
    const int64_t H = s->heads;
    const qn_matmul_opts by_rows = { .transpose_b = true };
    const qn_tensor *h = qn_rms_norm(g, x, w->norm, epsilon), *part[3], *gate[3];
    const qn_tensor *p = qn_matmul(g, h, w->w_qkv, &by_rows);
    if (s->taps > 1)
        p = qn_causal_conv(g, p, w->w_conv,
                           &(qn_causal_conv_opts){ .batch = (int)batch, .start = start->before,
                                                   .end = &end->before });
    qn_split(g, p, (const int64_t[]){ H * s->keys, H * s->keys, H * s->values }, 3, part);
    for (int i = 0; i < 2; i++) {
        if (s->activated) part[i] = qn_activate(g, part[i], QN_SILU);
        part[i] = unit(g, part[i], H, s->keys);
    }
    part[2] = qn_activate(g, part[2], QN_SILU);

    const qn_matmul_opts biased = { .transpose_b = true, .bias = w->b_abr };
    qn_split(g, qn_matmul(g, h, w->w_abr, &biased), (const int64_t[]){ H, H, H }, 3, gate);
    const qn_tensor *la = qn_scale(g, qn_activate(g, gate[0], QN_SIGMOID), -s->fade, 0);
    const qn_tensor *beta = qn_activate(g, gate[1], QN_SIGMOID);
    const qn_synapse_opts opts = { .batch = (int)batch, .heads = (int)H,
                                   .no_gradient = no_gradient };
    qn_memory_keeping keep = { .threshold = s->threshold };
    if (s->full) {
        keep.relevance = qn_activate(g, gate[2], QN_SIGMOID);
        keep.log_decay = qn_scale(g, qn_activate(g, w->c_log, QN_EXP), -1, 0);
        keep.share = w->eta;
    }
    const qn_tensor *o = qn_memory_recall(g, part, la, beta, s->full ? &keep : NULL, &opts, start,
                                          end);
    const qn_tensor *open = qn_activate(g, qn_matmul(g, h, w->w_gate, &by_rows), QN_SILU);
    const qn_tensor *y = qn_matmul(g, qn_mul(g, o, open), w->w_o, &by_rows);
    return qn_add(g, x, qn_mul(g, y, w->z));
}

bool qn_memory_of(const qn_model_config *c, int64_t layer, qn_memory_shape *out)
{
    if (!c->memory[layer]) return false;
    *out = (qn_memory_shape){
        .heads = c->memory_heads,
        .keys = c->memory_keys,
        .values = c->memory_values,
        .taps = c->memory_taps,
        .fade = (float)c->memory_fade,
        .threshold = (float)c->memory_threshold,
        .full = c->memory[layer] == QN_MEMORY_FULL,
    };
    return true;
}

bool qn_memory_any(const qn_model_config *c)
{
    for (int64_t i = 0; i < c->n_layer; i++)
        if (c->memory[i]) return true;
    return false;
}

// ---------------------------------------------------------------------------- initial values

// From the start the layer stores what followed a token and answers with it when the token comes
// again: queries and keys agree, and a key is that of the token before.
static void start_products(const qn_model_config *c, qn_shape shape, float *x)
{
    const int64_t rows = c->memory_heads * c->memory_keys, width = shape.dim[1];
    memcpy(x + rows * width, x, (size_t)(rows * width) * sizeof *x);
}

static void start_taps(const qn_model_config *c, qn_shape shape, float *x, qn_random *rng)
{
    const int64_t taps = shape.dim[0], width = shape.dim[1];
    const int64_t rows = c->memory_heads * c->memory_keys;
    for (int64_t j = 0; j < taps; j++)
        for (int64_t i = 0; i < width; i++) {
            const bool key = taps > 1 && i >= rows && i < 2 * rows;
            const double on = j == taps - 1 - key;
            x[j * width + i] = (float)(on + 0.02 * qn_random_normal(rng));
        }
}

// Half-lives of 16 to 4,096 tokens over the heads; writes half; recalls are kept cautiously.
static void start_gates(const qn_model_config *c, float *x)
{
    const int64_t H = c->memory_heads;
    for (int64_t i = 0; i < H; i++) {
        const double half = 16 * pow(256, H > 1 ? (double)i / (double)(H - 1) : 0);
        double s = log(2) / half / c->memory_fade;
        s = fmin(fmax(s, 1e-6), 1 - 1e-6);
        x[i] = (float)log(s / (1 - s));
        x[H + i] = 0;
        x[2 * H + i] = -2;
    }
}

void qn_memory_initialise(const qn_model_config *c, const char *part, qn_shape shape, float *x,
                          qn_random *rng)
{
    const size_t n = (size_t)qn_shape_count(shape);
    const bool product = !strcmp(part, "w_qkv") || !strcmp(part, "w_gate") || !strcmp(part, "w_o");
    const bool gates = !strcmp(part, "w_abr");
    if (product || gates) {
        const double scale = (gates ? 0.1 : 1) / sqrt((double)shape.dim[1]);
        for (size_t i = 0; i < n; i++) x[i] = (float)(qn_random_normal(rng) * scale);
        if (!strcmp(part, "w_qkv")) start_products(c, shape, x);
    } else if (!strcmp(part, "w_conv")) {
        start_taps(c, shape, x, rng);
    } else if (!strcmp(part, "b_abr")) {
        start_gates(c, x);
    } else {
        const bool one = !strcmp(part, "norm") || !strcmp(part, "eta");
        const float value = !strcmp(part, "c_log") ? (float)log(log(2) / 16384) : one ? 1 : 0;
        for (size_t i = 0; i < n; i++) x[i] = value; // z: 0
    }
}
