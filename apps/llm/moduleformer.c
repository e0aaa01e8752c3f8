// The ModuleFormer network as graph calls. [moduleformer] sections 2-6 and 8.
#include <quoin/model.h>

#include "fail.h"
#include "mem.h"
#include "memory_state.h"

#include <stdio.h>
#include <string.h>

enum { NAME = 160 };

// Everything a layer's builder needs.
typedef struct net {
    qn_graph *g;
    qn_store *weights;
    const qn_model_config *c;
    const qn_lm_opts *o;
    uint32_t draws; // random streams handed out so far
    int layer;
} net;

bool qn_model_shares_kv(const qn_model_config *c)
{
    return c->n_head == 1 && c->att_hidden == c->n_embd;
}

static const qn_tensor *vector(net *n, const char *name)
{
    return qn_param(n->g, n->weights, name);
}

// A matrix of a product: rounded to 16 bits where asked for.
static const qn_tensor *matrix(net *n, const char *name)
{
    const qn_tensor *w = qn_param(n->g, n->weights, name);
    return w && w->dtype == QN_F32 && n->o->weights != QN_F32 ? qn_cast(n->g, w, n->o->weights) : w;
}

static const qn_tensor *dropout(net *n, const qn_tensor *x, double p)
{
    uint32_t stream = n->draws++;
    return n->o->training && p > 0 ? qn_dropout(n->g, x, n->o->seed, (float)p, stream) : x;
}

// y plus what a low-rank adapter of the weight makes of x. With a routing x goes to experts.
static const qn_tensor *adapt(net *n, const qn_tensor *x, const qn_tensor *y, const char *prefix,
                              const qn_routing *routing)
{
    char a[NAME], b[NAME];
    snprintf(a, sizeof a, "%s.lora_A", prefix);
    snprintf(b, sizeof b, "%s.lora_B", prefix);
    if (n->o->lora_scale == 0 || !qn_store_find(n->weights, a)) return y;
    const qn_matmul_opts opts = { .transpose_b = true };
    const qn_tensor *h = dropout(n, x, n->o->lora_dropout);
    h = routing ? qn_expert_matmul(n->g, h, vector(n, a), routing, NULL)
                : qn_matmul(n->g, h, vector(n, a), &opts);
    h = routing ? qn_expert_matmul(n->g, h, vector(n, b), routing, NULL)
                : qn_matmul(n->g, h, vector(n, b), &opts);
    return qn_add(n->g, y, qn_scale(n->g, h, (float)n->o->lora_scale, 0));
}

// x through the chosen experts of a stack.
static const qn_tensor *experts(net *n, const qn_tensor *x, const char *prefix,
                                const qn_routing *routing)
{
    char w[NAME];
    snprintf(w, sizeof w, "%s.weight", prefix);
    return adapt(n, x, qn_expert_matmul(n->g, x, matrix(n, w), routing, NULL), prefix, routing);
}

static const qn_tensor *linear(net *n, const qn_tensor *x, const char *prefix, bool bias)
{
    char w[NAME], b[NAME];
    snprintf(w, sizeof w, "%s.weight", prefix);
    snprintf(b, sizeof b, "%s.bias", prefix);
    qn_matmul_opts opts = { .transpose_b = true, .bias = bias ? vector(n, b) : NULL };
    return adapt(n, x, qn_matmul(n->g, x, matrix(n, w), &opts), prefix, NULL);
}

static const qn_tensor *norm(net *n, const qn_tensor *x, const char *prefix)
{
    char w[NAME], b[NAME];
    snprintf(w, sizeof w, "%s.weight", prefix);
    snprintf(b, sizeof b, "%s.bias", prefix);
    return qn_layer_norm(n->g, x, vector(n, w), vector(n, b), 1e-5f);
}

static const qn_tensor *mlp_gate(net *n, const qn_tensor *x, const char *gate)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.w_gate.0", gate);
    const qn_tensor *h = qn_activate(n->g, linear(n, x, name, true), QN_GELU_ERF);
    snprintf(name, sizeof name, "%s.w_gate.3", gate);
    return linear(n, dropout(n, h, n->c->moe_pdrop), name, false);
}

static const qn_tensor *linear_gate(net *n, const qn_tensor *x, const char *gate)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.w_gate.0", gate);
    return linear(n, x, name, false);
}

// Cosine similarity to learned centroids, sharpened by a learned temperature.
static const qn_tensor *gmm_gate(net *n, const qn_tensor *x, const char *gate)
{
    const float tiny = 1e-12f;
    char name[NAME];
    snprintf(name, sizeof name, "%s.w_gate", gate);
    const qn_tensor *u = qn_unit_norm(n->g, linear(n, x, name, false), tiny);
    snprintf(name, sizeof name, "%s.expert_centroids", gate);
    const qn_tensor *centroids = qn_unit_norm(n->g, vector(n, name), tiny);
    snprintf(name, sizeof name, "%s.temperature", gate);
    const qn_tensor *t = qn_activate(n->g, vector(n, name), QN_EXP);
    const qn_tensor *z = qn_matmul(n->g, u, centroids, &(qn_matmul_opts){ .transpose_b = true });
    return qn_mul(n->g, z, t ? qn_reshape(n->g, t, QN_SCALAR) : NULL);
}

static qn_routing route(net *n, const qn_tensor *x, const char *prefix, int64_t choices,
                        const qn_tensor **aux)
{
    static const qn_tensor *(*const gates[])(net *, const qn_tensor *, const char *) = {
        [QN_GATE_MLP] = mlp_gate, [QN_GATE_LINEAR] = linear_gate, [QN_GATE_GMM] = gmm_gate,
    };
    char gate[NAME];
    snprintf(gate, sizeof gate, "%s.gate", prefix);
    const bool draw = n->o->training && n->c->sample_topk > 0;
    qn_route_opts opts = {
        .choices = (int)choices,
        .sampled = draw ? (int)(n->c->sample_topk < choices ? n->c->sample_topk : choices) : 0,
        .seed = draw ? n->o->seed : NULL,
        .stream = n->draws++,
    };
    const qn_tensor *logits = gates[n->c->gate_type](n, x, gate);
    if (n->c->gate_bias) {
        char bias[NAME];
        snprintf(bias, sizeof bias, "%s.bias", gate);
        logits = qn_add(n->g, logits, vector(n, bias));
    }
    qn_routing r = qn_route(n->g, logits, &opts);
    *aux = qn_router_loss_of(n->g, &r, n->c->aux_loss);
    return r;
}

// Keys or values with those of past positions in front: [B*S, A].
static const qn_tensor *with_past(net *n, const qn_tensor *x, const char *which)
{
    if (!n->o->cache || !x) return x;
    char name[NAME];
    snprintf(name, sizeof name, "%s.%d", which, n->layer);
    const int64_t A = n->c->att_hidden;
    const qn_tensor *stored = qn_frozen(n->g, n->o->cache, name);
    const bool each = n->o->past && n->o->past->shape.rank == 1;
    const int64_t B = n->o->batch, T = n->o->positions;
    const qn_tensor *rows =
        qn_reshape(n->g, x, each ? QN_SHAPE(B * T, 1, A) : QN_SHAPE(B, T, A));
    stored = qn_assign_rows(n->g, stored, n->o->past, rows);
    return stored ? qn_reshape(n->g, stored, QN_SHAPE(qn_shape_rows(stored->shape), A)) : NULL;
}

// residual + dropout(gated sum of the experts' outputs y). *branch is the sum alone when captured.
static const qn_tensor *combine(net *n, const qn_tensor *y, const qn_routing *r,
                                const qn_tensor *residual, const qn_tensor **branch)
{
    const bool drops = n->o->training && n->c->resid_pdrop > 0;
    if (!drops && !n->o->capture) {
        n->draws++;
        return qn_combine(n->g, y, r->gates, residual, r->choices);
    }
    *branch = dropout(n, qn_combine(n->g, y, r->gates, NULL, r->choices), n->c->resid_pdrop);
    return qn_add(n->g, residual, *branch);
}

static const qn_tensor *attention(net *n, const qn_tensor *residual, struct qn_lm_layer *out)
{
    char name[NAME], gate[NAME];
    const int layer = n->layer;
    qn_graph_scope(n->g, "attn");
    snprintf(name, sizeof name, "transformer.h.%d.ln_1", layer);
    const qn_tensor *x = norm(n, residual, name);
    out->attn_in = x;
    snprintf(gate, sizeof gate, "transformer.h.%d.attn.q_proj", layer);
    out->attn = route(n, x, gate, n->c->k_att, &out->attn_aux);
    snprintf(name, sizeof name, "%s.experts", gate);
    out->q = experts(n, x, name, &out->attn);
    const qn_tensor *k = x, *v = x;
    if (!qn_model_shares_kv(n->c)) {
        snprintf(name, sizeof name, "transformer.h.%d.attn.k_proj", layer);
        k = linear(n, x, name, true);
        snprintf(name, sizeof name, "transformer.h.%d.attn.v_proj", layer);
        v = linear(n, x, name, true);
    }
    out->k = with_past(n, k, "k");
    out->v = k == v ? out->k : with_past(n, v, "v");
    qn_stickbreaking_opts opts = {
        .batch = (int)n->o->batch,
        .heads = (int)n->c->n_head,
        .slots = (int)n->c->k_att,
        .window = (int)n->c->attention_window,
        .used = n->o->cache ? n->o->used : NULL,
        .keep = n->o->keep,
    };
    if (opts.used && opts.used->shape.rank == 2) opts.keys = (int)n->o->context;
    const qn_tensor *o = qn_stickbreaking(n->g, out->q, out->k, out->v, &opts);
    snprintf(name, sizeof name, "%s.output_experts", gate);
    const qn_tensor *y = experts(n, o, name, &out->attn);
    x = combine(n, y, &out->attn, residual, &out->attn_out);
    qn_graph_scope(n->g, NULL);
    return x;
}

static const qn_tensor *memory_part(net *n, const char *part, bool is)
{
    char name[NAME];
    snprintf(name, sizeof name, "transformer.h.%d.memory.%s", n->layer, part);
    return is ? vector(n, name) : NULL;
}

// The layer's memory, where it has one: starts from o->memory and leaves its end there.
static const qn_tensor *memory(net *n, const qn_tensor *x)
{
    qn_memory_shape s;
    if (!qn_memory_of(n->c, n->layer, &s)) return x;
    qn_graph_scope(n->g, "memory");
    const qn_memory_weights w = {
        .norm = memory_part(n, "norm", true),      .w_qkv = memory_part(n, "w_qkv", true),
        .w_conv = memory_part(n, "w_conv", s.taps > 1),
        .w_gate = memory_part(n, "w_gate", true),  .w_abr = memory_part(n, "w_abr", true),
        .b_abr = memory_part(n, "b_abr", true),    .c_log = memory_part(n, "c_log", s.full),
        .eta = memory_part(n, "eta", s.full),      .w_o = memory_part(n, "w_o", true),
        .z = memory_part(n, "z", true),
    };
    const qn_lm_opts *o = n->o;
    qn_memory_state start = { 0 }, end;
    if (o->memory) qn_memory_read(n->g, o, &s, n->layer, &start);
    start.forget = o->forget;
    x = qn_memory_layer(n->g, x, o->batch, &s, &w, &start, &end, o->cache != NULL);
    if (o->memory) qn_memory_write(n->g, o, n->layer, &end);
    qn_graph_scope(n->g, NULL);
    return x;
}

static const qn_tensor *feed_forward(net *n, const qn_tensor *residual, struct qn_lm_layer *out)
{
    char name[NAME], prefix[NAME];
    qn_graph_scope(n->g, "mlp");
    snprintf(name, sizeof name, "transformer.h.%d.ln_2", n->layer);
    const qn_tensor *x = norm(n, residual, name);
    out->mlp_in = x;
    snprintf(prefix, sizeof prefix, "transformer.h.%d.mlpf", n->layer);
    out->mlp = route(n, x, prefix, n->c->k_mlp, &out->mlp_aux);
    snprintf(name, sizeof name, "%s.experts", prefix);
    const qn_tensor *h = experts(n, x, name, &out->mlp);
    h = qn_activate(n->g, h, n->c->activation);
    out->neurons = h;
    if (n->o->neurons) h = n->o->neurons(n->o->neurons_user, n->g, n->layer, &out->mlp, h);
    snprintf(name, sizeof name, "%s.output_experts", prefix);
    const qn_tensor *y = experts(n, h, name, &out->mlp);
    x = combine(n, y, &out->mlp, residual, &out->mlp_out);
    qn_graph_scope(n->g, NULL);
    return x;
}

// The sum of all routers' losses, eight at a time.
static const qn_tensor *total_aux(net *n, const qn_lm *lm)
{
    enum { MOST = 8 };
    const qn_tensor *part[MOST];
    int count = 0;
    for (int i = 0; i < 2 * n->c->n_layer; i++) {
        if (count == MOST) {
            part[0] = qn_sum_of(n->g, part, count);
            count = 1;
        }
        part[count++] = i % 2 ? lm->layer[i / 2].mlp_aux : lm->layer[i / 2].attn_aux;
    }
    return qn_sum_of(n->g, part, count);
}

// Rows of the last positions: [B, C].
static const qn_tensor *last_rows(net *n, const qn_tensor *x)
{
    const int64_t B = n->o->batch, T = n->o->positions;
    if (T == 1) return x;
    int32_t *rows = qn_malloc((size_t)B * sizeof *rows);
    if (!rows) return NULL; // the product refuses it
    for (int64_t b = 0; b < B; b++) rows[b] = (int32_t)(b * T + T - 1);
    const qn_tensor *ids = qn_constant(n->g, "last rows", QN_I32, QN_SHAPE(B), rows);
    qn_free(rows);
    return qn_embedding(n->g, x, ids);
}

qn_result qn_lm_build(qn_graph *g, qn_store *weights, const qn_model_config *c,
                      const qn_tensor *ids, const qn_lm_opts *opts, qn_lm *out)
{
    memset(out, 0, sizeof *out);
    net n = { .g = g, .weights = weights, .c = c, .o = opts };
    const int64_t N = opts->batch * opts->positions;
    if (c->n_layer > QN_LM_MAX_LAYERS)
        return qn_fail(QN_ERR_UNSUPPORTED, "n_layer is %lld, at most %d are possible",
                       (long long)c->n_layer, QN_LM_MAX_LAYERS);
    if (!ids) return qn_graph_status(g);
    const qn_tensor *table = vector(&n, "transformer.wte.weight");
    const qn_tensor *x = qn_embedding(g, table, qn_reshape(g, ids, QN_SHAPE(N)));
    out->embedding = x = dropout(&n, x, c->embd_pdrop);
    for (n.layer = 0; n.layer < c->n_layer; n.layer++) {
        struct qn_lm_layer *l = &out->layer[n.layer];
        char scope[32];
        snprintf(scope, sizeof scope, "h.%d", n.layer);
        qn_graph_scope(g, scope);
        x = attention(&n, x, l);
        x = memory(&n, x);
        l->hidden = x = feed_forward(&n, x, l);
        qn_graph_scope(g, NULL);
    }
    out->final = norm(&n, x, "transformer.ln_f");
    if (opts->headless) return qn_graph_status(g);
    const qn_tensor *rows = opts->last_only && out->final ? last_rows(&n, out->final) : out->final;
    const char *head = c->tie_word_embeddings ? "transformer.wte.weight" : "lm_head.weight";
    out->logits = qn_matmul(g, rows, matrix(&n, head), &(qn_matmul_opts){ .transpose_b = true });
    if (!c->tie_word_embeddings) out->logits = adapt(&n, rows, out->logits, "lm_head", NULL);
    qn_name(g, out->logits, "logits");
    out->aux = total_aux(&n, out);
    return qn_graph_status(g);
}

qn_result qn_lm_declare_cache(const qn_model_config *c, qn_store *cache, int64_t batch,
                              int64_t context)
{
    for (int i = 0; i < c->n_layer; i++) {
        char name[NAME];
        qn_shape shape = QN_SHAPE(batch, context, c->att_hidden);
        snprintf(name, sizeof name, "k.%d", i);
        QN_TRY(qn_store_add(cache, name, QN_F32, shape));
        if (qn_model_shares_kv(c)) continue;
        snprintf(name, sizeof name, "v.%d", i);
        QN_TRY(qn_store_add(cache, name, QN_F32, shape));
    }
    return QN_OK;
}
