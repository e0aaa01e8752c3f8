// Opening model folders, and the names of their bricks.
#include "model.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Llama-like model types and how they name feed-forward experts; NULL: dense only.
static const struct {
    const char *type, *experts_key, *router, *in, *gate, *out;
} families[] = {
    { "llama", NULL, NULL, NULL, NULL, NULL },
    { "mistral", NULL, NULL, NULL, NULL, NULL },
    { "qwen2", NULL, NULL, NULL, NULL, NULL },
    { "qwen3", NULL, NULL, NULL, NULL, NULL },
    { "mixtral", "num_local_experts", "block_sparse_moe.gate", "block_sparse_moe.experts.%lld.w3",
      "block_sparse_moe.experts.%lld.w1", "block_sparse_moe.experts.%lld.w2" },
    { "qwen3_moe", "num_experts", "mlp.gate", "mlp.experts.%lld.up_proj",
      "mlp.experts.%lld.gate_proj", "mlp.experts.%lld.down_proj" },
};
enum { FAMILIES = sizeof families / sizeof *families };

static int family_of(const char *type)
{
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].type, type)) return i;
    return -1;
}

static qn_result read_llama(qn_json root, qn_brick_model *m)
{
    const int64_t most = (int64_t)1 << 30;
    const int f = family_of(m->type);
    if (f < 0)
        return qn_json_fail(root, "model_type is %s; bricks know moduleformer, llama, mistral, "
                                  "qwen2, qwen3, mixtral and qwen3_moe", m->type);
    QN_TRY(qn_json_int(root, "num_hidden_layers", 1, 65536, &m->layers));
    QN_TRY(qn_json_int(root, "hidden_size", 1, most, &m->width));
    m->experts = m->choices = 1;
    m->gated = true;
    const bool moe = families[f].experts_key != NULL;
    if (moe) {
        QN_TRY(qn_json_int(root, families[f].experts_key, 1, 65536, &m->experts));
        QN_TRY(qn_json_int_or(root, "num_experts_per_tok", 1, m->experts, 2, &m->choices));
    }
    const bool own = moe && qn_json_find(root, "moe_intermediate_size").node;
    return qn_json_int(root, own ? "moe_intermediate_size" : "intermediate_size", 1, most,
                       &m->hidden);
}

static qn_result read_config(const char *path, qn_brick_model *m)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_open(path, NULL, &doc));
    qn_json root = qn_json_root(doc);
    const char *type = NULL;
    qn_result r = qn_json_kind_of(root) == QN_JSON_OBJECT
                      ? qn_json_string_or(root, "model_type", "moduleformer", &type)
                      : qn_json_fail(root, "expected an object");
    if (r == QN_OK && !(m->type = qn_strdup(type))) r = qn_no_memory(strlen(type));
    if (r == QN_OK) m->moduleformer = !strcmp(type, "moduleformer");
    if (r == QN_OK && !m->moduleformer) r = read_llama(root, m);
    qn_json_close(&doc);
    if (r != QN_OK || !m->moduleformer) return r;
    QN_TRY(qn_model_config_read(path, &m->config));
    m->layers = m->config.n_layer;
    m->width = m->config.n_embd;
    m->hidden = m->config.ffd_hidden;
    m->experts = m->config.n_mlp_experts;
    m->choices = m->config.k_mlp;
    return QN_OK;
}

qn_result qn_brick_open(const char *dir, qn_brick_model *out)
{
    qn_brick_model m = { 0 };
    char *path = qn_path_join(dir, "config.json");
    m.dir = qn_strdup(dir);
    qn_result r = path && m.dir ? QN_OK : qn_no_memory(strlen(dir));
    if (r == QN_OK && !qn_is_dir(dir))
        r = qn_fail(QN_ERR_IO, "%s: there is no such model folder", dir);
    if (r == QN_OK) r = read_config(path, &m);
    if (r == QN_OK) r = qn_safetensors_open(dir, &m.weights);
    qn_free(path);
    if (r == QN_OK)
        *out = m;
    else
        qn_brick_close(&m);
    return r;
}

void qn_brick_close(qn_brick_model *m)
{
    qn_safetensors_close(&m->weights);
    qn_free(m->dir);
    qn_free(m->type);
    *m = (qn_brick_model){ 0 };
}

static void moduleformer_names(const qn_brick_model *m, qn_brick_kind kind, int64_t layer,
                               qn_brick_names *out)
{
    static const char *const rows[] = { [QN_GATE_MLP] = "w_gate.3.weight",
                                        [QN_GATE_LINEAR] = "w_gate.0.weight",
                                        [QN_GATE_GMM] = "expert_centroids" };
    char at[80];
    snprintf(at, sizeof at, "transformer.h.%lld.%s", (long long)layer,
             kind == QN_BRICK_FFN ? "mlpf" : "attn.q_proj");
    snprintf(out->in, sizeof out->in, "%s.experts.weight", at);
    snprintf(out->out, sizeof out->out, "%s.output_experts.weight", at);
    snprintf(out->router, sizeof out->router, "%s.gate.%s", at, rows[m->config.gate_type]);
}

static void put_name(char out[QN_BRICK_NAME], int64_t layer, const char *form, int64_t expert)
{
    char part[80];
    snprintf(part, sizeof part, form, (long long)expert);
    snprintf(out, QN_BRICK_NAME, "model.layers.%lld.%s.weight", (long long)layer, part);
}

void qn_brick_names_of(const qn_brick_model *m, qn_brick_kind kind, int64_t layer, int64_t expert,
                       qn_brick_names *out)
{
    *out = (qn_brick_names){ 0 };
    if (m->moduleformer) {
        moduleformer_names(m, kind, layer, out);
        return;
    }
    if (kind != QN_BRICK_FFN) return;
    const int f = family_of(m->type);
    const bool moe = families[f].experts_key != NULL;
    put_name(out->in, layer, moe ? families[f].in : "mlp.up_proj", expert);
    put_name(out->gate, layer, moe ? families[f].gate : "mlp.gate_proj", expert);
    put_name(out->out, layer, moe ? families[f].out : "mlp.down_proj", expert);
    if (moe) put_name(out->router, layer, families[f].router, 0);
}

qn_result qn_brick_tensor(const qn_brick_model *m, const char *name, const qn_safetensor **out)
{
    *out = qn_safetensors_find(m->weights, name);
    if (!*out) return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", m->dir, name);
    return QN_OK;
}

qn_result qn_brick_f32(const qn_brick_model *m, const char *name, float **out)
{
    const qn_safetensor *t;
    *out = NULL;
    QN_TRY(qn_brick_tensor(m, name, &t));
    float *x = qn_malloc((size_t)t->count * sizeof *x);
    if (!x) return qn_no_memory((size_t)t->count * sizeof *x);
    qn_result r = qn_context_add(qn_safetensor_f32(t, 0, t->count, x), "%s: %s", m->dir, name);
    if (r == QN_OK)
        *out = x;
    else
        qn_free(x);
    return r;
}

int64_t qn_brick_layer_of(const char *name)
{
    for (const char *s = name; (s = strchr(s, '.')); ) {
        s++;
        if (*s < '0' || *s > '9') continue;
        char *end;
        long long n = strtoll(s, &end, 10);
        if (*end == '.' && n < INT32_MAX) return n;
    }
    return -1;
}
