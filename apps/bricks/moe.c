// Mixtures of experts from dense models.
#include "moe.h"

#include "checkpoint.h"
#include "edit.h"
#include "factor.h"
#include "platform.h"
#include "random.h"

#include <quoin/tokenizer.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#define RECIPE_LIMIT ((uint64_t)4 << 20)
enum { MOST_EXPERTS = 256, KINDS = 3 };

typedef enum gate_mode { GATE_HIDDEN, GATE_CHEAP_EMBED, GATE_RANDOM, GATE_UNIFORM } gate_mode;
static const struct {
    const char *name;
    gate_mode mode;
} modes[] = {
    { "hidden", GATE_HIDDEN },      { "hidden_avg", GATE_HIDDEN },
    { "hidden_last", GATE_HIDDEN }, { "cheap_embed", GATE_CHEAP_EMBED },
    { "random", GATE_RANDOM },      { "uniform_random", GATE_UNIFORM },
};

// Names in the layouts: what stands behind "model.layers.N.".
typedef struct layout {
    const char *name, *architecture, *router, *fused_router;
    const char *experts[KINDS]; // gate, up, down; %zu: the expert
} layout;
static const layout layouts[] = {
    { "mixtral",
      "MixtralForCausalLM",
      "block_sparse_moe.gate.weight",
      "mlp.gate.weight",
      { "block_sparse_moe.experts.%zu.w1.weight", "block_sparse_moe.experts.%zu.w3.weight",
        "block_sparse_moe.experts.%zu.w2.weight" } },
    { "qwen3_moe",
      "Qwen3MoeForCausalLM",
      "mlp.gate.weight",
      "mlp.gate.weight",
      { "mlp.experts.%zu.gate_proj.weight", "mlp.experts.%zu.up_proj.weight",
        "mlp.experts.%zu.down_proj.weight" } },
};
static const char *const dense[KINDS] = { "mlp.gate_proj.weight", "mlp.up_proj.weight",
                                          "mlp.down_proj.weight" };

typedef struct expert {
    const char *source;
    const qn_yaml *positive, *negative;
    double noise, residual;
    qn_checkpoint model;
} expert;

typedef struct moe {
    const qn_moe_opts *o;
    qn_yaml_docs docs;
    qn_arena arena;
    qn_model_ref base_ref;
    qn_brick_model base;
    expert experts[MOST_EXPERTS];
    size_t count, chosen;
    gate_mode mode;
    qn_st_dtype dtype;
    bool typed;
    const layout *layout;
    float *gates; // [experts, d], GATE_CHEAP_EMBED
    qn_edit *edit;
} moe;

// ---------------------------------------------------------------------------------- recipe

static qn_result read_expert(moe *m, const qn_yaml *v)
{
    expert *e = &m->experts[m->count];
    if (m->count == MOST_EXPERTS) return qn_yaml_fail(v, "more than %d experts", MOST_EXPERTS);
    qn_yaml_warn_unknown(
        v, "source_model|positive_prompts|negative_prompts|noise_scale|residual_scale");
    QN_TRY(qn_yaml_string(v, "source_model", &e->source));
    if (!e->source) return qn_yaml_missing(v, "source_model");
    QN_TRY(qn_yaml_list(v, "positive_prompts", &e->positive));
    QN_TRY(qn_yaml_list(v, "negative_prompts", &e->negative));
    QN_TRY(qn_yaml_number(v, "noise_scale", 0, &e->noise));
    QN_TRY(qn_yaml_number(v, "residual_scale", 1, &e->residual));
    bool prompted = e->positive && e->positive->count;
    if (!prompted && (m->mode == GATE_HIDDEN || m->mode == GATE_CHEAP_EMBED))
        return qn_yaml_fail(v, "positive_prompts are missing; gate_mode random needs none");
    m->count++;
    return QN_OK;
}

static qn_result read_type(moe *m, const qn_yaml *root)
{
    const char *name;
    QN_TRY(qn_yaml_string(root, "dtype", &name));
    m->typed = name != NULL;
    if (!name) return QN_OK;
    if (strncmp(name, "torch.", 6) == 0) name += 6;
    m->dtype = QN_ST_F32;
    if (strcmp(name, "float32") == 0) return QN_OK;
    m->dtype = strcmp(name, "float16") == 0 ? QN_ST_F16 : QN_ST_BF16;
    if (m->dtype == QN_ST_F16 || strcmp(name, "bfloat16") == 0) return QN_OK;
    return qn_yaml_fail(qn_yaml_find(root, "dtype"),
                        "dtype \"%.40s\", expected float32, float16 or bfloat16", name);
}

static qn_result read_layout(moe *m, const qn_yaml *root)
{
    const char *wanted;
    QN_TRY(qn_yaml_string(root, "architecture", &wanted));
    if (!wanted) wanted = strcmp(m->base.type, "qwen3") == 0 ? "qwen3" : "mixtral";
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (strncmp(layouts[i].name, wanted, strlen(wanted)) == 0) m->layout = &layouts[i];
    if (m->layout) return QN_OK;
    return qn_yaml_fail(root,
                        "architecture \"%.40s\", expected mixtral or qwen3; `quoin bricks "
                        "upcycle` makes mixtures of ModuleFormer",
                        wanted);
}

static bool same_texts(const qn_yaml *a, const qn_yaml *b)
{
    if (!a || !b || a->count != b->count) return a == b;
    for (size_t i = 0; i < a->count; i++)
        if (a->items[i]->kind != QN_YAML_SCALAR || b->items[i]->kind != QN_YAML_SCALAR ||
            strcmp(a->items[i]->text, b->items[i]->text) != 0)
            return false;
    return true;
}

static qn_result check(const moe *m, const qn_yaml *root)
{
    bool prompts = m->count > 1, sources = m->count > 1;
    for (size_t i = 1; i < m->count; i++) {
        prompts = prompts && same_texts(m->experts[i].positive, m->experts[0].positive) &&
                  same_texts(m->experts[i].negative, m->experts[0].negative);
        sources = sources && strcmp(m->experts[i].source, m->experts[0].source) == 0;
    }
    if (m->count < m->chosen)
        return qn_yaml_fail(root, "%zu experts, but experts_per_token is %zu", m->count, m->chosen);
    if (prompts && m->mode == GATE_CHEAP_EMBED)
        return qn_yaml_fail(root,
                            "all experts have the same prompts: the router could not tell them "
                            "apart");
    if (sources && !m->o->useless)
        return qn_yaml_fail(root, "all experts are the same model; "
                                  "--i-understand-this-is-not-useful-without-training allows it");
    return QN_OK;
}

static qn_result read_recipe(moe *m, const qn_yaml *root)
{
    const char *base, *mode;
    const qn_yaml *list;
    double chosen;
    if (root->kind != QN_YAML_MAP) return qn_yaml_fail(root, "expected a map of keys");
    qn_yaml_warn_unknown(root,
                         "base_model|experts|gate_mode|dtype|experts_per_token|shared_experts|"
                         "architecture");
    QN_TRY(qn_yaml_string(root, "base_model", &base));
    if (!base) return qn_yaml_missing(root, "base_model");
    QN_TRY(qn_yaml_list(root, "experts", &list));
    if (!list) return qn_yaml_missing(root, "experts");
    if (!qn_yaml_is_null(qn_yaml_find(root, "shared_experts")))
        return qn_yaml_fail(qn_yaml_find(root, "shared_experts"),
                            "shared experts are not part of the layouts that are written");
    QN_TRY(qn_yaml_string(root, "gate_mode", &mode));
    bool known = false;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, mode ? mode : "hidden") == 0) {
            m->mode = modes[i].mode;
            known = true;
        }
    if (!known)
        return qn_yaml_fail(qn_yaml_find(root, "gate_mode"),
                            "gate_mode \"%.40s\", expected "
                            "cheap_embed, random or uniform_random",
                            mode);
    if (m->mode == GATE_HIDDEN)
        return qn_yaml_fail(root,
                            "gate_mode hidden needs the states of the base model, which is not "
                            "run here; cheap_embed, random and uniform_random do without");
    QN_TRY(qn_yaml_number(root, "experts_per_token", 2, &chosen));
    if (!(chosen >= 1 && chosen <= MOST_EXPERTS) || chosen != floor(chosen))
        return qn_yaml_fail(root, "experts_per_token: expected a whole number of at least 1");
    m->chosen = (size_t)chosen;
    QN_TRY(read_type(m, root));
    for (size_t i = 0; i < list->count; i++) QN_TRY(read_expert(m, list->items[i]));
    QN_TRY(check(m, root));
    QN_TRY(qn_model_ref_parse(&m->arena, base, &m->base_ref));
    char *dir;
    QN_TRY(qn_checkpoint_locate(m->base_ref.path, m->o->models, &dir));
    qn_result r = qn_brick_open(dir, &m->base);
    qn_free(dir);
    QN_TRY(r);
    if (m->base.moduleformer || m->base.experts > 1)
        return qn_fail(QN_ERR_INVALID, "%s is a %s, expected a dense model of the Llama kind", base,
                       m->base.type);
    return read_layout(m, root);
}

static qn_result open_experts(moe *m)
{
    for (size_t i = 0; i < m->count; i++) {
        qn_model_ref ref;
        QN_TRY(qn_model_ref_parse(&m->arena, m->experts[i].source, &ref));
        QN_TRY(qn_checkpoint_open(&ref, NULL, m->o->models, &m->experts[i].model));
        if (m->experts[i].model.layers != m->base.layers)
            return qn_fail(QN_ERR_INVALID, "%s has %lld layers, the base has %lld",
                           m->experts[i].source, (long long)m->experts[i].model.layers,
                           (long long)m->base.layers);
    }
    return QN_OK;
}

// ---------------------------------------------------------------------------------- gates

static qn_result add_tokens(const qn_tokenizer *t, const qn_yaml *prompts, qn_tokens *out)
{
    for (size_t i = 0; prompts && i < prompts->count; i++) {
        const qn_yaml *p = prompts->items[i];
        if (p->kind != QN_YAML_SCALAR) return qn_yaml_fail(p, "expected a text");
        static const char *const begins[] = { "<s>", "<|begin_of_text|>", "<bos>" };
        int32_t bos = -1;
        for (size_t k = 0; bos < 0 && k < sizeof begins / sizeof *begins; k++)
            bos = qn_tokenizer_find(t, begins[k]);
        if (bos >= 0) {
            QN_TRY(qn_grow((void **)&out->id, &out->capacity, out->count + 1, sizeof *out->id));
            out->id[out->count++] = bos;
        }
        QN_TRY(qn_tokenizer_encode(t, p->text, strlen(p->text), NULL, out));
    }
    return QN_OK;
}

static qn_result prompt_row(const moe *m, const expert *e, const qn_tokenizer *t,
                            const float *embed, int64_t rows, float *out)
{
    size_t d = (size_t)m->base.width;
    qn_tokens yes = { 0 }, no = { 0 };
    double *row = qn_malloc(d * sizeof *row);
    qn_result r = row ? add_tokens(t, e->positive, &yes) : qn_no_memory(d * sizeof *row);
    if (r == QN_OK) r = add_tokens(t, e->negative, &no);
    for (size_t i = 0; r == QN_OK && i < yes.count + no.count; i++)
        if ((i < yes.count ? yes.id[i] : no.id[i - yes.count]) >= rows)
            r = qn_fail(QN_ERR_FORMAT, "the tokenizer has tokens for which the base has no row");
    if (r == QN_OK) qn_factor_gate(embed, d, yes.id, yes.count, no.id, no.count, row);
    for (size_t i = 0; r == QN_OK && i < d; i++) out[i] = (float)row[i];
    qn_free(row);
    qn_tokens_free(&yes);
    qn_tokens_free(&no);
    return r;
}

static void warn_condition(const moe *m, const float *gates)
{
    size_t n = m->count, d = (size_t)m->base.width, q = n < d ? n : d;
    double *x = qn_malloc(n * d * sizeof *x), *u = qn_malloc(n * q * sizeof *u);
    double *s = qn_malloc(q * sizeof *s), *vt = qn_malloc(q * d * sizeof *vt);
    if (x && u && s && vt) {
        for (size_t i = 0; i < n * d; i++) x[i] = (double)gates[i];
        if (qn_factor_svd(x, n, d, u, s, vt) == QN_OK && s[0] > 5 * s[q - 1])
            qn_log(QN_LOG_WARN,
                   "the rows of the router are much alike (condition number %.3g): "
                   "experts will be hard to tell apart",
                   s[q - 1] > 0 ? s[0] / s[q - 1] : INFINITY);
    }
    qn_free(x);
    qn_free(u);
    qn_free(s);
    qn_free(vt);
}

static qn_result make_gates(moe *m)
{
    if (m->mode != GATE_CHEAP_EMBED) return QN_OK;
    size_t d = (size_t)m->base.width;
    qn_tokenizer *t = NULL;
    const qn_safetensor *w = qn_safetensors_find(m->base.weights, "model.embed_tokens.weight");
    float *embed = NULL;
    if (!w || w->rank != 2 || w->dim[1] != m->base.width)
        return qn_fail(QN_ERR_FORMAT, "%s: no embedding of its width", m->base.dir);
    m->gates = qn_malloc(m->count * d * sizeof *m->gates);
    qn_result r = m->gates ? qn_tokenizer_open(m->base.dir, &t) : qn_no_memory(m->count * d * 4);
    if (r == QN_OK) r = qn_brick_f32(&m->base, w->name, &embed);
    for (size_t i = 0; r == QN_OK && i < m->count; i++)
        r = prompt_row(m, &m->experts[i], t, embed, w->dim[0], m->gates + i * d);
    if (r == QN_OK) warn_condition(m, m->gates);
    qn_free(embed);
    qn_tokenizer_close(&t);
    return r;
}

// ---------------------------------------------------------------------------------- tensors

// What fills an output tensor: one expert's matrix, or the matrices of all of them.
typedef struct filling {
    moe *m;
    int64_t layer;
    size_t first, count; // experts
    int kinds[2], kind_count;
} filling;

static qn_result find_dense(const moe *m, size_t e, int64_t layer, int kind,
                            const qn_safetensor **out)
{
    *out = qn_checkpoint_layer(&m->experts[e].model, layer, dense[kind]);
    int64_t rows = kind == 2 ? m->base.width : m->base.hidden;
    int64_t columns = kind == 2 ? m->base.hidden : m->base.width;
    if (!*out)
        return qn_fail(QN_ERR_INVALID, "model %s lacks model.layers.%lld.%s", m->experts[e].source,
                       (long long)layer, dense[kind]);
    if ((*out)->rank != 2 || (*out)->dim[0] != rows || (*out)->dim[1] != columns)
        return qn_fail(QN_ERR_INVALID, "model.layers.%lld.%s of %s: another shape than [%lld,%lld]",
                       (long long)layer, dense[kind], m->experts[e].source, (long long)rows,
                       (long long)columns);
    return QN_OK;
}

static qn_result fill_expert(void *user, const qn_edit_tensor *t, float *out)
{
    const filling *f = user;
    for (size_t e = f->first; e < f->first + f->count; e++)
        for (int k = 0; k < f->kind_count; k++) {
            const expert *x = &f->m->experts[e];
            const qn_safetensor *w;
            QN_TRY(find_dense(f->m, e, f->layer, f->kinds[k], &w));
            QN_TRY(qn_safetensor_f32(w, 0, w->count, out));
            uint64_t stream = 0xCBF29CE484222325u ^ e;
            for (const char *p = t->name; *p; p++) stream = (stream ^ (uint8_t)*p) * 0x100000001B3u;
            qn_random random = qn_random_start(f->m->o->seed, stream);
            double scale = f->kinds[k] == 2 ? x->residual : 1;
            for (uint64_t i = 0; i < w->count && (scale != 1 || x->noise != 0); i++)
                out[i] = (float)(scale * (double)out[i] +
                                 (x->noise != 0 ? x->noise * qn_random_normal(&random) : 0));
            out += w->count;
        }
    return QN_OK;
}

static qn_result fill_gate(void *user, const qn_edit_tensor *t, float *out)
{
    const filling *f = user;
    size_t d = (size_t)f->m->base.width, n = f->m->count * d;
    qn_random random = qn_random_start(f->m->o->seed, 0x9E3779B97F4A7C15u + (uint64_t)f->layer);
    (void)t;
    for (size_t i = 0; i < n; i++) {
        if (f->m->mode == GATE_CHEAP_EMBED) out[i] = f->m->gates[i];
        if (f->m->mode == GATE_RANDOM) out[i] = (float)qn_random_normal(&random);
        if (f->m->mode == GATE_UNIFORM)
            out[i] = (float)((2 * qn_random_unit(&random) - 1) / sqrt((double)d));
    }
    return QN_OK;
}

static qn_result add(moe *m, int64_t layer, const char *name, int rank, const int64_t *dim,
                     qn_st_dtype dtype, filling f)
{
    char full[192];
    qn_edit_tensor *t;
    filling *kept = qn_edit_keep(m->edit, sizeof *kept);
    if (!kept) return qn_no_memory(sizeof *kept);
    *kept = f;
    kept->m = m;
    kept->layer = layer;
    snprintf(full, sizeof full, "model.layers.%lld.%s", (long long)layer, name);
    QN_TRY(qn_edit_add(m->edit, full, dtype, rank, dim, &t));
    t->make = f.count ? fill_expert : fill_gate;
    t->user = kept;
    return QN_OK;
}

static qn_result add_layer(moe *m, int64_t layer)
{
    const int64_t E = (int64_t)m->count, d = m->base.width, h = m->base.hidden;
    qn_st_dtype dtype = QN_ST_F32;
    for (int k = 0; k < KINDS; k++) {
        char name[192];
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, dense[k]);
        const qn_safetensor *own = qn_safetensors_find(m->base.weights, name);
        if (!own) return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", m->base.dir, name);
        dtype = m->typed ? m->dtype : own->dtype;
        qn_edit_remove(m->edit, name);
        for (size_t e = 0; e < m->count; e++) {
            const qn_safetensor *w;
            QN_TRY(find_dense(m, e, layer, k, &w));
        }
    }
    QN_TRY(add(m, layer, m->o->fused ? m->layout->fused_router : m->layout->router, 2,
               (int64_t[]){ E, d }, dtype, (filling){ 0 }));
    if (m->o->fused) {
        QN_TRY(add(m, layer, "mlp.experts.gate_up_proj", 3, (int64_t[]){ E, 2 * h, d }, dtype,
                   (filling){ .count = m->count, .kinds = { 0, 1 }, .kind_count = 2 }));
        return add(m, layer, "mlp.experts.down_proj", 3, (int64_t[]){ E, d, h }, dtype,
                   (filling){ .count = m->count, .kinds = { 2 }, .kind_count = 1 });
    }
    for (size_t e = 0; e < m->count; e++)
        for (int k = 0; k < KINDS; k++) {
            char name[128];
            snprintf(name, sizeof name, m->layout->experts[k], e);
            QN_TRY(add(m, layer, name, 2, k == 2 ? (int64_t[]){ d, h } : (int64_t[]){ h, d }, dtype,
                       (filling){ .first = e, .count = 1, .kinds = { k }, .kind_count = 1 }));
        }
    return QN_OK;
}

static qn_result keep_type(void *user, const qn_edit_tensor *t, float *out)
{
    (void)user;
    return qn_safetensor_f32(t->source, 0, t->source->count, out);
}

static qn_result set_config(moe *m)
{
    qn_edit *e = m->edit;
    bool mixtral = m->layout == &layouts[0];
    QN_TRY(qn_edit_set_words(e, "architectures", &m->layout->architecture, 1));
    QN_TRY(qn_edit_set_text(e, "model_type", m->layout->name));
    QN_TRY(qn_edit_set(e, mixtral ? "num_local_experts" : "num_experts", (int64_t)m->count));
    QN_TRY(qn_edit_set(e, "num_experts_per_tok", (int64_t)m->chosen));
    if (m->typed)
        QN_TRY(qn_edit_set_text(e, "torch_dtype",
                                m->dtype == QN_ST_F32   ? "float32"
                                : m->dtype == QN_ST_F16 ? "float16"
                                                        : "bfloat16"));
    if (mixtral) return qn_edit_set_text(e, "sliding_window", NULL);
    QN_TRY(qn_edit_set(e, "moe_intermediate_size", m->base.hidden));
    QN_TRY(qn_edit_set(e, "decoder_sparse_step", 1));
    return qn_edit_set_bool(e, "norm_topk_prob", true);
}

static qn_result build(moe *m)
{
    QN_TRY(qn_edit_start(&m->base, m->o->out, &m->edit));
    for (size_t i = 0; m->typed && qn_edit_at(m->edit, i); i++) {
        qn_edit_tensor *t = qn_edit_at(m->edit, i);
        if (!qn_st_dtype_is_float(t->dtype) || t->dtype == m->dtype) continue;
        t->dtype = m->dtype;
        t->make = keep_type;
    }
    for (int64_t layer = 0; layer < m->base.layers; layer++) QN_TRY(add_layer(m, layer));
    QN_TRY(set_config(m));
    return qn_edit_write(m->edit, m->o->shard_size);
}

static qn_result save_recipe(const moe *m, const char *text, size_t size)
{
    char *path = qn_path_join(m->o->out, "mergekit_moe_config.yml");
    qn_result r = path ? qn_write_file(path, text, size) : qn_no_memory(1);
    qn_free(path);
    return r;
}

static qn_result run(moe *m, const char *recipe, const char *text, size_t size)
{
    QN_TRY(qn_yaml_parse(recipe, text, size, &m->docs));
    if (m->docs.count != 1)
        return qn_fail(QN_ERR_FORMAT, "%s: %zu documents, expected one", recipe, m->docs.count);
    QN_TRY(read_recipe(m, m->docs.roots[0]));
    QN_TRY(open_experts(m));
    QN_TRY(make_gates(m));
    QN_TRY(build(m));
    return save_recipe(m, text, size);
}

qn_result qn_moe_run(const char *recipe, const qn_moe_opts *opts, qn_moe_stats *stats)
{
    char *text;
    size_t size;
    QN_TRY(qn_read_file(recipe, RECIPE_LIMIT, &text, &size));
    moe *m = qn_calloc(1, sizeof *m);
    qn_result r = m ? QN_OK : qn_no_memory(sizeof *m);
    if (m) {
        m->o = opts;
        r = run(m, recipe, text, size);
        if (r == QN_OK)
            *stats = (qn_moe_stats){ m->count, m->chosen, (size_t)m->base.layers, m->layout->name };
        qn_edit_free(&m->edit);
        for (size_t i = 0; i < m->count; i++) qn_checkpoint_close(&m->experts[i].model);
        qn_brick_close(&m->base);
        qn_free(m->gates);
        qn_yaml_free(&m->docs);
        qn_arena_free(&m->arena);
    }
    qn_free(m);
    qn_free(text);
    return r;
}
