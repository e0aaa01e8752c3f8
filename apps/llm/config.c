// config.json of a ModuleFormer: one table of keys serves reading, writing and checking.
// [moduleformer] section 1.
#include <quoin/model.h>

#include "fail.h"
#include "io/json.h"
#include "memory_layer.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

// How a key is stored in qn_model_config.
typedef enum key_kind { KEY_INT, KEY_NUMBER, KEY_BOOL, KEY_WORD } key_kind;

typedef struct word {
    const char *name;
    int value;
} word;

static const word gate_words[] = {
    { "mlp", QN_GATE_MLP }, { "linear", QN_GATE_LINEAR }, { "gmm", QN_GATE_GMM }, { 0 },
};
static const word activation_words[] = {
    { "gelu_new", QN_GELU_TANH }, { "gelu", QN_GELU_ERF }, { "relu", QN_RELU },
    { "silu", QN_SILU },          { "tanh", QN_TANH },     { 0 },
};
static const word aux_words[] = {
    { "mi", QN_ROUTER_MI },
    { "switch", QN_ROUTER_SWITCH },
    { "concentration", QN_ROUTER_CONCENTRATION },
    { 0 },
};

typedef struct key {
    const char *name, *alias; // alias: the common name that other tools use
    size_t offset;
    key_kind kind;
    double min, max, missing;
    const word *words;
    bool ours; // written only for models with a memory or a window
} key;

#define AT(member) offsetof(qn_model_config, member)
static const key keys[] = {
    { "vocab_size", NULL, AT(vocab_size), KEY_INT, 1, 1 << 24, 50295, NULL },
    { "n_embd", "hidden_size", AT(n_embd), KEY_INT, 1, 65536, 1024, NULL },
    { "n_layer", "num_hidden_layers", AT(n_layer), KEY_INT, 1, QN_LM_MAX_LAYERS, 24, NULL },
    { "n_head", "num_attention_heads", AT(n_head), KEY_INT, 1, 1024, 8, NULL },
    { "att_hidden", NULL, AT(att_hidden), KEY_INT, 1, 65536, 512, NULL },
    { "ffd_hidden", NULL, AT(ffd_hidden), KEY_INT, 1, 1 << 20, 2048, NULL },
    { "n_att_experts", NULL, AT(n_att_experts), KEY_INT, 1, 256, 32, NULL },
    { "k_att", NULL, AT(k_att), KEY_INT, 1, 16, 2, NULL },
    { "n_mlp_experts", NULL, AT(n_mlp_experts), KEY_INT, 1, 256, 32, NULL },
    { "k_mlp", NULL, AT(k_mlp), KEY_INT, 1, 16, 2, NULL },
    { "gating_size", NULL, AT(gating_size), KEY_INT, 1, 65536, 256, NULL },
    { "gate_type", NULL, AT(gate_type), KEY_WORD, 0, 0, QN_GATE_MLP, gate_words },
    { "activation_function", NULL, AT(activation), KEY_WORD, 0, 0, QN_GELU_TANH, activation_words },
    { "aux_loss_type", NULL, AT(aux_loss), KEY_WORD, 0, 0, QN_ROUTER_MI, aux_words },
    { "aux_loss_weight", NULL, AT(aux_loss_weight), KEY_NUMBER, 0, 1e6, 0, NULL },
    { "sample_topk", NULL, AT(sample_topk), KEY_INT, 0, 16, 0, NULL },
    { "block_size", NULL, AT(block_size), KEY_INT, 1, 1 << 30, 512, NULL },
    { "history_length", NULL, AT(history_length), KEY_INT, 0, 1 << 30, 512, NULL },
    { "resid_pdrop", NULL, AT(resid_pdrop), KEY_NUMBER, 0, 0.99, 0, NULL },
    { "embd_pdrop", NULL, AT(embd_pdrop), KEY_NUMBER, 0, 0.99, 0, NULL },
    { "moe_pdrop", NULL, AT(moe_pdrop), KEY_NUMBER, 0, 0.99, 0, NULL },
    { "initializer_range", NULL, AT(initializer_range), KEY_NUMBER, 0, 100, 0.02, NULL },
    { "tie_word_embeddings", NULL, AT(tie_word_embeddings), KEY_BOOL, 0, 0, 0, NULL },
    { "gate_bias", NULL, AT(gate_bias), KEY_BOOL, 0, 0, 0, NULL },
    { "bos_token_id", NULL, AT(bos_token_id), KEY_INT, 0, 1 << 24, 50256, NULL },
    { "eos_token_id", NULL, AT(eos_token_id), KEY_INT, 0, 1 << 24, 50256, NULL },
    { "attention_window", NULL, AT(attention_window), KEY_INT, 0, 1 << 24, 0, NULL, true },
    { "memory_heads", NULL, AT(memory_heads), KEY_INT, 1, 1024, 2, NULL, true },
    { "memory_keys", NULL, AT(memory_keys), KEY_INT, 1, 128, 32, NULL, true },
    { "memory_values", NULL, AT(memory_values), KEY_INT, 1, 128, 64, NULL, true },
    { "memory_taps", NULL, AT(memory_taps), KEY_INT, 1, 16, 4, NULL, true },
    { "memory_fade", NULL, AT(memory_fade), KEY_NUMBER, 1e-6, 16, 0.5, NULL, true },
    { "memory_threshold", NULL, AT(memory_threshold), KEY_NUMBER, 1e-6, 1e6, 0.2, NULL, true },
};
enum { KEY_COUNT = sizeof keys / sizeof *keys };

// Keys that published files carry. With `only`, the one value that means what we compute.
static const struct {
    const char *name, *only;
} known[] = {
    { "model_type", "moduleformer" }, { "att_func", "stickbreaking" }, { "moe_type", "moe" },
    { "pre_norm", "true" },           { "universal", "false" },        { "architectures", NULL },
    { "attn_pdrop", NULL },           { "layer_norm_epsilon", NULL },  { "n_ctx", NULL },
    { "use_cache", NULL },            { "local_size", NULL },          { "world_size", NULL },
    { "_name_or_path", NULL },        { "transformers_version", NULL }, { "torch_dtype", NULL },
    { "auto_map", NULL },             { "pad_token_id", NULL },
};

// The one key that is a list: a word for each layer.
static const char layers_key[] = "memory_layers";
static const word memory_words[] = {
    { "off", QN_MEMORY_OFF }, { "delta", QN_MEMORY_DELTA }, { "full", QN_MEMORY_FULL }, { 0 },
};

static const key *key_named(const char *name)
{
    for (int i = 0; i < KEY_COUNT; i++)
        if (strcmp(keys[i].name, name) == 0 || (keys[i].alias && strcmp(keys[i].alias, name) == 0))
            return &keys[i];
    return NULL;
}

static void put(const key *k, qn_model_config *c, double value)
{
    char *at = (char *)c + k->offset;
    switch (k->kind) {
    case KEY_INT: *(int64_t *)at = (int64_t)value; break;
    case KEY_NUMBER: *(double *)at = value; break;
    case KEY_BOOL: *(bool *)at = value != 0; break;
    case KEY_WORD: *(int *)at = (int)value; break; // enums of ours have the size of int
    }
}
_Static_assert(sizeof(qn_gate) == sizeof(int) && sizeof(qn_activation) == sizeof(int) &&
                   sizeof(qn_router_loss) == sizeof(int),
               "put() and get() treat enums as int");

static double get(const key *k, const qn_model_config *c)
{
    const char *at = (const char *)c + k->offset;
    switch (k->kind) {
    case KEY_INT: return (double)*(const int64_t *)at;
    case KEY_NUMBER: return *(const double *)at;
    case KEY_BOOL: return *(const bool *)at;
    case KEY_WORD: return *(const int *)at;
    }
    return 0;
}

static const char *word_of(const key *k, int value)
{
    const word *w = k->words;
    while (w->name && w->value != value) w++;
    return w->name ? w->name : k->words->name;
}

static qn_result read_word(const key *k, qn_json v, double *out)
{
    const char *text;
    QN_TRY(qn_json_string(v, NULL, &text));
    for (const word *w = k->words; w->name; w++)
        if (strcmp(w->name, text) == 0) {
            *out = w->value;
            return QN_OK;
        }
    // Any other auxiliary loss means the switch form in published files.
    if (k->words == aux_words) {
        *out = QN_ROUTER_SWITCH;
        return QN_OK;
    }
    char list[128] = "";
    for (const word *w = k->words; w->name; w++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s\"%s\"",
                 w == k->words ? "" : ", ", w->name);
    return qn_json_fail(v, "found \"%s\", expected one of %s", text, list);
}

static qn_result read_key(const key *k, qn_json v, qn_model_config *c)
{
    double value = 0;
    int64_t integer = 0;
    bool flag = false;
    switch (k->kind) {
    case KEY_INT:
        QN_TRY(qn_json_int(v, NULL, (int64_t)k->min, (int64_t)k->max, &integer));
        value = (double)integer;
        break;
    case KEY_NUMBER: QN_TRY(qn_json_number(v, NULL, k->min, k->max, &value)); break;
    case KEY_BOOL:
        QN_TRY(qn_json_bool(v, NULL, &flag));
        value = flag;
        break;
    case KEY_WORD: QN_TRY(read_word(k, v, &value)); break;
    }
    put(k, c, value);
    return QN_OK;
}

static qn_result check_known(qn_json v)
{
    const char *name = qn_json_key(v);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        if (!known[i].only) return QN_OK;
        const char *found = "another kind of value";
        if (qn_json_kind_of(v) == QN_JSON_STRING) QN_TRY(qn_json_string(v, NULL, &found));
        bool flag;
        if (qn_json_kind_of(v) == QN_JSON_BOOL) {
            QN_TRY(qn_json_bool(v, NULL, &flag));
            found = flag ? "true" : "false";
        }
        if (strcmp(found, known[i].only) == 0) return QN_OK;
        return qn_json_fail(v, "found %s, only %s is supported", found, known[i].only);
    }
    return qn_json_fail(v, "unknown key; nothing here knows what it means");
}

qn_result qn_model_config_check(const qn_model_config *c)
{
    if (c->att_hidden % c->n_head)
        return qn_fail(QN_ERR_INVALID, "att_hidden %lld is not a multiple of n_head %lld",
                       (long long)c->att_hidden, (long long)c->n_head);
    if (c->att_hidden / c->n_head > 1024)
        return qn_fail(QN_ERR_INVALID, "att_hidden / n_head is %lld, at most 1024 is possible",
                       (long long)(c->att_hidden / c->n_head));
    if (c->k_att > c->n_att_experts)
        return qn_fail(QN_ERR_INVALID, "k_att %lld is more than n_att_experts %lld",
                       (long long)c->k_att, (long long)c->n_att_experts);
    if (c->k_mlp > c->n_mlp_experts)
        return qn_fail(QN_ERR_INVALID, "k_mlp %lld is more than n_mlp_experts %lld",
                       (long long)c->k_mlp, (long long)c->n_mlp_experts);
    if (c->sample_topk > c->k_att || c->sample_topk > c->k_mlp)
        return qn_fail(QN_ERR_INVALID, "sample_topk %lld is more than k_att %lld or k_mlp %lld",
                       (long long)c->sample_topk, (long long)c->k_att, (long long)c->k_mlp);
    return QN_OK;
}

static qn_result read_layers(qn_json v, qn_model_config *c)
{
    static const key words = { .words = memory_words };
    if (qn_json_kind_of(v) != QN_JSON_ARRAY)
        return qn_json_fail(v, "expected a list of \"off\", \"delta\" or \"full\", one for each "
                               "layer");
    int64_t count = 0;
    for (qn_json i = qn_json_first(v); i.node; i = qn_json_next(i), count++) {
        double kind;
        QN_TRY(read_word(&words, i, &kind));
        if (count < QN_LM_MAX_LAYERS) c->memory[count] = (uint8_t)kind;
    }
    if (count == c->n_layer) return QN_OK;
    return qn_json_fail(v, "found %lld entries, expected one for each of n_layer = %lld layers",
                        (long long)count, (long long)c->n_layer);
}

static qn_result read_all(const char *path, qn_json root, qn_model_config *c)
{
    if (qn_json_kind_of(root) != QN_JSON_OBJECT)
        return qn_json_fail(root, "expected an object");
    for (int i = 0; i < KEY_COUNT; i++) put(&keys[i], c, keys[i].missing);
    const key *seen[KEY_COUNT];
    int count = 0;
    for (qn_json v = qn_json_first(root); v.node; v = qn_json_next(v)) {
        const key *k = key_named(qn_json_key(v));
        if (!k && strcmp(qn_json_key(v), layers_key) == 0) continue;
        if (!k) {
            QN_TRY(check_known(v));
            continue;
        }
        for (int i = 0; i < count; i++)
            if (seen[i] == k)
                return qn_json_fail(v, "means the same as %s, which is given as well", k->name);
        seen[count++] = k;
        QN_TRY(read_key(k, v, c));
    }
    for (qn_json v = qn_json_first(root); v.node; v = qn_json_next(v)) // n_layer is known now
        if (strcmp(qn_json_key(v), layers_key) == 0) QN_TRY(read_layers(v, c));
    return qn_context_add(qn_model_config_check(c), "%s", path);
}

qn_result qn_model_config_read(const char *path, qn_model_config *out)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_open(path, NULL, &doc));
    qn_model_config c = { 0 };
    qn_result r = read_all(path, qn_json_root(doc), &c);
    qn_json_close(&doc);
    if (r == QN_OK) *out = c;
    return r;
}

qn_result qn_model_config_parse(const char *name, const char *text, size_t size,
                                qn_model_config *out)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_parse(name, text, size, NULL, &doc));
    qn_model_config c = { 0 };
    qn_result r = read_all(name, qn_json_root(doc), &c);
    qn_json_close(&doc);
    if (r == QN_OK) *out = c;
    return r;
}

static void write_all(qn_json_writer *w, const qn_model_config *c)
{
    qn_json_put_object(w, NULL);
    qn_json_put_string(w, "model_type", "moduleformer");
    qn_json_put_array(w, "architectures");
    qn_json_put_string(w, NULL, "ModuleFormerForCausalLM");
    qn_json_put_end(w, ']');
    const bool memory = qn_memory_any(c);
    if (memory) {
        qn_json_put_array(w, layers_key);
        for (int64_t i = 0; i < c->n_layer; i++)
            qn_json_put_string(w, NULL, memory_words[c->memory[i]].name);
        qn_json_put_end(w, ']');
    }
    for (int i = 0; i < KEY_COUNT; i++) {
        if (keys[i].ours && !memory && !c->attention_window) continue;
        double value = get(&keys[i], c);
        switch (keys[i].kind) {
        case KEY_INT: qn_json_put_int(w, keys[i].name, (int64_t)value); break;
        case KEY_NUMBER: qn_json_put_number(w, keys[i].name, value); break;
        case KEY_BOOL: qn_json_put_bool(w, keys[i].name, value != 0); break;
        case KEY_WORD:
            qn_json_put_string(w, keys[i].name, word_of(&keys[i], (int)value));
            break;
        }
    }
    qn_json_put_end(w, '}');
}

qn_result qn_model_config_write(const qn_model_config *c, const char *path)
{
    qn_json_writer w = { 0 };
    write_all(&w, c);
    return qn_json_save(&w, path);
}

qn_result qn_model_config_text(const qn_model_config *c, char **out)
{
    qn_json_writer w = { .compact = true };
    write_all(&w, c);
    qn_result r = w.status;
    *out = r == QN_OK ? qn_strndup(w.text, w.size) : NULL;
    qn_json_writer_free(&w);
    return r == QN_OK && !*out ? qn_no_memory(w.size) : r;
}

// Sizes of the presets; two experts of each kind per token.
static const struct {
    const char *name;
    int layers, width, heads, attention, feed_forward, att_experts, mlp_experts, router;
} presets[] = {
    { "nano", 2, 64, 2, 64, 128, 4, 8, 32 },
    { "micro", 4, 128, 2, 128, 256, 8, 16, 64 },
    { "small", 6, 256, 4, 256, 512, 8, 16, 128 },
    { "base", 12, 512, 8, 512, 1024, 16, 32, 256 },
    { "large", 24, 1024, 8, 1024, 2048, 16, 32, 256 },
};

const char *qn_model_preset_names(void)
{
    return "nano, micro, small, base, large";
}

qn_result qn_model_preset(const char *name, int64_t vocab_size, qn_model_config *out)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(presets[i].name, name) != 0) continue;
        qn_model_config c = { 0 };
        for (int k = 0; k < KEY_COUNT; k++) put(&keys[k], &c, keys[k].missing);
        c.vocab_size = vocab_size;
        c.n_layer = presets[i].layers;
        c.n_embd = presets[i].width;
        c.n_head = presets[i].heads;
        c.att_hidden = presets[i].attention;
        c.ffd_hidden = presets[i].feed_forward;
        c.n_att_experts = presets[i].att_experts;
        c.n_mlp_experts = presets[i].mlp_experts;
        c.gating_size = presets[i].router;
        c.aux_loss_weight = 0.01;
        c.bos_token_id = c.eos_token_id = 0;
        *out = c;
        return QN_OK;
    }
    return qn_fail(QN_ERR_INVALID, "preset %s is unknown, expected one of %s", name,
                   qn_model_preset_names());
}
