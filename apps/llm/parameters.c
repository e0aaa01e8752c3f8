// Names, shapes and initial values of a ModuleFormer's parameters. [moduleformer] sections 2, 10
#include "parameters.h"
#include "fail.h"
#include "mem.h"
#include "memory_layer.h"
#include "random.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct walk {
    qn_result (*visit)(void *, const qn_param_info *);
    void *user;
    qn_result result;
} walk;

static void give(walk *w, qn_param_kind kind, qn_shape shape, int64_t choices, const char *fmt,
                 ...) QN_PRINTF(5, 6);
static void give(walk *w, qn_param_kind kind, qn_shape shape, int64_t choices, const char *fmt, ...)
{
    if (w->result != QN_OK) return;
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    qn_param_info p = { .name = name, .shape = shape, .kind = kind, .choices = choices,
                        .router = strstr(name, ".gate.") != NULL,
                        .expert = kind == QN_PARAM_EXPERT };
    w->result = w->visit(w->user, &p);
}

static void give_router(walk *w, const qn_model_config *c, int layer, const char *where, int64_t E)
{
    const int64_t C = c->n_embd, R = c->gating_size;
    char pre[80];
    snprintf(pre, sizeof pre, "transformer.h.%d.%s.gate", layer, where);
    switch (c->gate_type) {
    case QN_GATE_MLP:
        give(w, QN_PARAM_NORMAL, QN_SHAPE(R, C), 0, "%s.w_gate.0.weight", pre);
        give(w, QN_PARAM_ZERO, QN_SHAPE(R), 0, "%s.w_gate.0.bias", pre);
        give(w, QN_PARAM_NORMAL, QN_SHAPE(E, R), 0, "%s.w_gate.3.weight", pre);
        break;
    case QN_GATE_LINEAR:
        give(w, QN_PARAM_NORMAL, QN_SHAPE(E, C), 0, "%s.w_gate.0.weight", pre);
        break;
    case QN_GATE_GMM:
        give(w, QN_PARAM_NORMAL, QN_SHAPE(R, C), 0, "%s.w_gate.weight", pre);
        give(w, QN_PARAM_CENTROID, QN_SHAPE(E, R), 0, "%s.expert_centroids", pre);
        give(w, QN_PARAM_ZERO, QN_SHAPE(1), 0, "%s.temperature", pre);
        break;
    }
    if (c->gate_bias) give(w, QN_PARAM_ZERO, QN_SHAPE(E), 0, "%s.bias", pre);
}

static void give_memory(walk *w, const qn_model_config *c, int i)
{
    qn_memory_shape s;
    if (!qn_memory_of(c, i, &s)) return;
    const int64_t C = c->n_embd, H = s.heads, D = H * (2 * s.keys + s.values);
    const struct {
        const char *name;
        qn_param_kind kind;
        qn_shape shape;
        bool is;
    } all[] = {
        { "norm", QN_PARAM_MEMORY_PLAIN, QN_SHAPE(C), true },
        { "w_qkv", QN_PARAM_MEMORY, QN_SHAPE(D, C), true },
        { "w_conv", QN_PARAM_MEMORY_PLAIN, QN_SHAPE(s.taps, D), s.taps > 1 },
        { "w_gate", QN_PARAM_MEMORY, QN_SHAPE(H * s.values, C), true },
        { "w_abr", QN_PARAM_MEMORY, QN_SHAPE(3 * H, C), true },
        { "b_abr", QN_PARAM_MEMORY_PLAIN, QN_SHAPE(3 * H), true },
        { "c_log", QN_PARAM_MEMORY_PLAIN, QN_SHAPE(H), s.full },
        { "eta", QN_PARAM_MEMORY_PLAIN, QN_SHAPE(H), s.full },
        { "w_o", QN_PARAM_MEMORY, QN_SHAPE(C, H * s.values), true },
        { "z", QN_PARAM_MEMORY_PLAIN, QN_SHAPE(C), true },
    };
    for (size_t p = 0; p < sizeof all / sizeof *all; p++)
        if (all[p].is)
            give(w, all[p].kind, all[p].shape, 0, "transformer.h.%d.memory.%s", i, all[p].name);
}

static void give_layer(walk *w, const qn_model_config *c, int i)
{
    const int64_t C = c->n_embd, A = c->att_hidden, F = c->ffd_hidden;
    const int64_t Ea = c->n_att_experts, Em = c->n_mlp_experts;
    give(w, QN_PARAM_ONE, QN_SHAPE(C), 0, "transformer.h.%d.ln_1.weight", i);
    give(w, QN_PARAM_ZERO, QN_SHAPE(C), 0, "transformer.h.%d.ln_1.bias", i);
    give(w, QN_PARAM_EXPERT, QN_SHAPE(Ea, C, A), c->k_att,
         "transformer.h.%d.attn.q_proj.experts.weight", i);
    give(w, QN_PARAM_EXPERT, QN_SHAPE(Ea, A, C), c->k_att,
         "transformer.h.%d.attn.q_proj.output_experts.weight", i);
    give_router(w, c, i, "attn.q_proj", Ea);
    static const char *const kv[] = { "k_proj", "v_proj" };
    for (int k = 0; k < 2 && !qn_model_shares_kv(c); k++) {
        give(w, QN_PARAM_NORMAL, QN_SHAPE(A, C), 0, "transformer.h.%d.attn.%s.weight", i, kv[k]);
        give(w, QN_PARAM_ZERO, QN_SHAPE(A), 0, "transformer.h.%d.attn.%s.bias", i, kv[k]);
    }
    give_memory(w, c, i);
    give(w, QN_PARAM_ONE, QN_SHAPE(C), 0, "transformer.h.%d.ln_2.weight", i);
    give(w, QN_PARAM_ZERO, QN_SHAPE(C), 0, "transformer.h.%d.ln_2.bias", i);
    give(w, QN_PARAM_EXPERT, QN_SHAPE(Em, C, F), c->k_mlp,
         "transformer.h.%d.mlpf.experts.weight", i);
    give(w, QN_PARAM_EXPERT, QN_SHAPE(Em, F, C), c->k_mlp,
         "transformer.h.%d.mlpf.output_experts.weight", i);
    give_router(w, c, i, "mlpf", Em);
}

qn_result qn_parameters(const qn_model_config *c,
                        qn_result (*visit)(void *, const qn_param_info *), void *user)
{
    walk w = { visit, user, QN_OK };
    give(&w, QN_PARAM_EMBEDDING, QN_SHAPE(c->vocab_size, c->n_embd), 0, "transformer.wte.weight");
    for (int i = 0; i < c->n_layer; i++) give_layer(&w, c, i);
    give(&w, QN_PARAM_ONE, QN_SHAPE(c->n_embd), 0, "transformer.ln_f.weight");
    give(&w, QN_PARAM_ZERO, QN_SHAPE(c->n_embd), 0, "transformer.ln_f.bias");
    if (!c->tie_word_embeddings)
        give(&w, QN_PARAM_NORMAL, QN_SHAPE(c->vocab_size, c->n_embd), 0, "lm_head.weight");
    return w.result;
}

static qn_result count_one(void *user, const qn_param_info *p)
{
    qn_model_size *size = user;
    int64_t n = qn_shape_count(p->shape);
    size->parameters += n;
    size->active += p->expert ? n / p->shape.dim[0] * p->choices : n;
    return QN_OK;
}

qn_model_size qn_model_count(const qn_model_config *c)
{
    qn_model_size size = { 0 };
    qn_parameters(c, count_one, &size);
    // A token reads one row of the embedding, unless the output matrix is the embedding.
    if (!c->tie_word_embeddings) size.active -= (c->vocab_size - 1) * c->n_embd;
    return size;
}

typedef struct declaration {
    qn_store *store;
    qn_dtype dtype;
} declaration;

static qn_result declare_one(void *user, const qn_param_info *p)
{
    declaration *d = user;
    bool matrix = p->kind == QN_PARAM_NORMAL || p->kind == QN_PARAM_EXPERT;
    return qn_store_add(d->store, p->name, matrix ? d->dtype : QN_F32, p->shape);
}

qn_result qn_model_declare(const qn_model_config *c, qn_store *store, qn_dtype dtype)
{
    return qn_parameters(c, declare_one, &(declaration){ store, dtype });
}

typedef struct initialisation {
    const qn_model_config *c;
    qn_store *store;
    uint64_t seed;
    bool published;
    uint32_t index, memories;
} initialisation;

static double bound(const initialisation *init, const qn_param_info *p)
{
    double in = (double)p->shape.dim[1];
    return init->published ? 1 / in : 1 / sqrt(in);
}

static qn_result initialise_one(void *user, const qn_param_info *p)
{
    initialisation *init = user;
    size_t n = (size_t)qn_shape_count(p->shape);
    float *x = qn_malloc(n * sizeof *x);
    if (!x) return qn_no_memory(n * sizeof *x);
    const bool memory = p->kind == QN_PARAM_MEMORY || p->kind == QN_PARAM_MEMORY_PLAIN;
    // Memories have streams of their own: the others start alike with and without them.
    qn_random rng = memory ? qn_random_start(init->seed, 0x10000u + init->memories++)
                           : qn_random_start(init->seed, init->index++);
    if (memory) qn_memory_initialise(init->c, strrchr(p->name, '.') + 1, p->shape, x, &rng);
    for (size_t i = 0; i < n && !memory; i++) {
        switch (p->kind) {
        case QN_PARAM_NORMAL:
        case QN_PARAM_EMBEDDING:
            x[i] = (float)(qn_random_normal(&rng) * init->c->initializer_range);
            break;
        case QN_PARAM_EXPERT:
            x[i] = (float)((2 * qn_random_unit(&rng) - 1) * bound(init, p));
            break;
        case QN_PARAM_CENTROID: x[i] = (float)qn_random_normal(&rng); break;
        case QN_PARAM_ZERO: x[i] = 0; break;
        case QN_PARAM_ONE: x[i] = 1; break;
        case QN_PARAM_MEMORY:
        case QN_PARAM_MEMORY_PLAIN: break;
        }
    }
    qn_result r = qn_store_write(init->store, p->name, x, n * sizeof *x);
    qn_free(x);
    return r;
}

qn_result qn_model_initialise(const qn_model_config *c, qn_store *store, uint64_t seed,
                              bool published_init)
{
    initialisation init = { c, store, seed, published_init, 0, 0 };
    return qn_parameters(c, initialise_one, &init);
}
