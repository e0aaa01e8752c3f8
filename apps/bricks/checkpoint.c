// Opening checkpoints, and the table of architectures.
#include "checkpoint.h"

#include "adapter.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LLAMA(name)                                                                                \
    {                                                                                              \
        name, "num_hidden_layers", "model.embed_tokens.weight",                                    \
            "model.embed_tokens.weight|lm_head.weight", "lm_head.weight",                          \
            "model.embed_tokens.weight", "rotary_emb.inv_freq", NULL                               \
    }

static const qn_arch architectures[] = {
    LLAMA("llama"),
    LLAMA("mistral"),
    LLAMA("qwen2"),
    LLAMA("qwen3"),
    LLAMA("mixtral"),
    LLAMA("qwen3_moe"),
    { "gpt2", "n_layer", "wte.weight|wpe.weight|transformer.wte.weight|transformer.wpe.weight",
      "wte.weight|transformer.wte.weight|lm_head.weight", "lm_head.weight", "wte.weight",
      "attn.bias|attn.masked_bias", "transformer." },
    { "gpt_neox", "num_hidden_layers", "gpt_neox.embed_in.weight",
      "gpt_neox.embed_in.weight|embed_out.weight", "embed_out.weight", "gpt_neox.embed_in.weight",
      "attention.bias|attention.masked_bias|rotary_emb.inv_freq", NULL },
    { "moduleformer", "n_layer", "transformer.wte.weight", "transformer.wte.weight|lm_head.weight",
      "lm_head.weight", "transformer.wte.weight", NULL, NULL },
    { NULL, "num_hidden_layers", NULL,
      "model.embed_tokens.weight|lm_head.weight|wte.weight|"
      "transformer.wte.weight|shared.weight|embed_out.weight",
      "lm_head.weight", "model.embed_tokens.weight", "rotary_emb.inv_freq", NULL },
};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

const qn_arch *qn_arch_of(const char *type)
{
    for (int i = 0; i < ARCHITECTURES - 1; i++)
        if (strcmp(architectures[i].type, type) == 0) return &architectures[i];
    return &architectures[ARCHITECTURES - 1];
}

bool qn_arch_has(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = names; p && *p; p += strcspn(p, "|"), p += *p == '|')
        if (strcspn(p, "|") == n && strncmp(p, name, n) == 0) return true;
    return false;
}

bool qn_arch_optional(const qn_arch *a, const char *name)
{
    if (a->head && strcmp(a->head, name) == 0) return true;
    size_t n = strlen(name);
    for (const char *p = a->optional; p && *p; p += strcspn(p, "|"), p += *p == '|') {
        size_t k = strcspn(p, "|");
        if (n >= k && strncmp(name + n - k, p, k) == 0) return true;
    }
    return false;
}

// ---------------------------------------------------------------------------------- folders

static qn_result try_dir(char *path, char **dir)
{
    if (!path) return qn_no_memory(1);
    if (!*dir && qn_is_dir(path))
        *dir = path;
    else
        qn_free(path);
    return QN_OK;
}

qn_result qn_checkpoint_locate(const char *path, const char *models, char **dir)
{
    *dir = NULL;
    QN_TRY(try_dir(qn_strdup(path), dir));
    if (models && !*dir) {
        QN_TRY(try_dir(qn_path_join(models, path), dir));
        const char *slash = strchr(path, '/');
        char flat[512];
        if (slash && !*dir) {
            snprintf(flat, sizeof flat, "%.*s--%s", (int)(slash - path), path, slash + 1);
            QN_TRY(try_dir(qn_path_join(models, flat), dir));
            QN_TRY(try_dir(qn_path_join(models, slash + 1), dir));
        }
    }
    if (*dir) return QN_OK;
    if (qn_file_exists(path)) return qn_fail(QN_ERR_IO, "%s: not a folder", path);
    return qn_fail(QN_ERR_IO, "%s: no such folder%s%s; nothing is downloaded", path,
                   models ? ", nor below " : "",
                   models ? models : " (--models names where models lie)");
}

static qn_result read_config(qn_checkpoint *c)
{
    char *path = qn_path_join(c->dir, "config.json");
    qn_result r = path ? qn_json_open(path, NULL, &c->config) : qn_no_memory(strlen(c->dir));
    qn_free(path);
    QN_TRY(r);
    qn_json root = qn_json_root(c->config), names;
    const char *type;
    QN_TRY(qn_json_string_or(root, "model_type", "moduleformer", &type));
    c->arch = qn_arch_of(type);
    c->architecture = type;
    QN_TRY(qn_json_array_or(root, "architectures", &names));
    if (qn_json_count(names)) QN_TRY(qn_json_string(qn_json_first(names), NULL, &c->architecture));
    const char *key = c->arch->layers_key;
    if (!c->arch->type && !qn_json_find(root, key).node) key = "n_layer";
    return qn_json_int(root, key, 1, 1000000, &c->layers);
}

// ---------------------------------------------------------------------------------- tensors

static void split_name(const qn_safetensor *t, qn_layer_tensor *out)
{
    *out = (qn_layer_tensor){ .layer = -1, .suffix = t->name, .tensor = t };
    for (const char *p = t->name; (p = strchr(p, '.')) != NULL;) {
        char *end;
        p++;
        if (*p < '0' || *p > '9') continue;
        long long n = strtoll(p, &end, 10);
        if (*end != '.' || n > 1000000) continue;
        *out = (qn_layer_tensor){ n, end + 1, (size_t)(p - t->name), t };
        return;
    }
}

static int by_layer(const void *a, const void *b)
{
    const qn_layer_tensor *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return strcmp(x->suffix, y->suffix);
}

static qn_result index_tensors(qn_checkpoint *c)
{
    c->count = qn_safetensors_count(c->weights);
    c->tensors = qn_malloc((c->count + 1) * sizeof *c->tensors);
    if (!c->tensors) return qn_no_memory(c->count * sizeof *c->tensors);
    for (size_t i = 0; i < c->count; i++) {
        split_name(qn_safetensors_at(c->weights, i), &c->tensors[i]);
        if (c->tensors[i].layer >= c->layers)
            return qn_fail(QN_ERR_FORMAT, "%s: tensor %s, but config.json says %lld layers", c->dir,
                           c->tensors[i].tensor->name, (long long)c->layers);
    }
    if (c->count) qsort(c->tensors, c->count, sizeof *c->tensors, by_layer);
    return QN_OK;
}

void qn_checkpoint_range(const qn_checkpoint *c, int64_t layer, size_t *first, size_t *end)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c->tensors[mid].layer < layer)
            low = mid + 1;
        else
            high = mid;
    }
    *first = low;
    while (low < c->count && c->tensors[low].layer == layer) low++;
    *end = low;
}

const qn_safetensor *qn_checkpoint_layer(const qn_checkpoint *c, int64_t layer, const char *suffix)
{
    qn_layer_tensor wanted = { .layer = layer, .suffix = suffix };
    const qn_layer_tensor *t =
        c->count ? bsearch(&wanted, c->tensors, c->count, sizeof *c->tensors, by_layer) : NULL;
    return t ? t->tensor : NULL;
}

const qn_safetensor *qn_checkpoint_find(const qn_checkpoint *c, const char *name)
{
    const qn_safetensor *t = qn_safetensors_find(c->weights, name);
    const char *prefix = c->arch->prefix;
    if (t || !prefix) return t;
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) == 0) return qn_safetensors_find(c->weights, name + n);
    char full[512];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return qn_safetensors_find(c->weights, full);
}

// ---------------------------------------------------------------------------------- opening

static qn_result open_all(qn_checkpoint *c, const char *parts, const char *models)
{
    if (parts) QN_TRY(try_dir(qn_path_join(parts, c->ref.path), &c->dir));
    if (!c->dir) QN_TRY(qn_checkpoint_locate(c->ref.path, models, &c->dir));
    QN_TRY(read_config(c));
    QN_TRY(qn_safetensors_open(c->dir, &c->weights));
    QN_TRY(index_tensors(c));
    if (!c->ref.lora) return QN_OK;
    char *lora;
    QN_TRY(qn_checkpoint_locate(c->ref.lora, models, &lora));
    qn_result r = qn_adapter_open(lora, &c->adapter);
    if (r == QN_OK) r = qn_adapter_bind(c->adapter, c->weights);
    qn_free(lora);
    return r;
}

qn_result qn_checkpoint_open(const qn_model_ref *ref, const char *parts, const char *models,
                             qn_checkpoint *out)
{
    qn_checkpoint c = { .ref = *ref };
    qn_result r = open_all(&c, parts, models);
    if (r == QN_OK)
        *out = c;
    else
        qn_checkpoint_close(&c);
    return qn_context_add(r, "model %s", ref->text);
}

void qn_checkpoint_close(qn_checkpoint *c)
{
    qn_adapter_close(&c->adapter);
    qn_safetensors_close(&c->weights);
    qn_json_close(&c->config);
    qn_free(c->tensors);
    qn_free(c->dir);
    *c = (qn_checkpoint){ 0 };
}
