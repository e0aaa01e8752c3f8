// Small random checkpoints of the Llama kind, and merging them.
#ifndef QN_TEST_TINY_MODELS_H
#define QN_TEST_TINY_MODELS_H

#include "bricks/merge.h"
#include "half.h"
#include "random.h"
#include "scratch.h"

typedef struct tiny_model {
    const char *name;
    int layers, vocab;
    uint64_t seed; // of the values
    double spread; // size of the difference to the model of seed 1; 0: that model itself
    qn_st_dtype dtype;
    bool no_head;
} tiny_model;

enum { TINY_WIDTH = 24, TINY_HIDDEN = 40 };

static inline double tiny_value(const tiny_model *m, const char *tensor, uint64_t i)
{
    uint32_t stream = 0x811C9DC5, base[4], own[4];
    for (const char *p = tensor; *p; p++) stream = (stream ^ (uint8_t)*p) * 0x01000193;
    qn_philox(1, stream, i, base);
    qn_philox(m->seed, stream, i, own);
    double x = (double)base[0] / 4294967296.0 - 0.5, d = (double)own[1] / 4294967296.0 - 0.5;
    return 0.2 * x + m->spread * d;
}

static inline void tiny_put(qn_safetensors_writer *w, const tiny_model *m, const qn_safetensor *t)
{
    for (uint64_t i = 0; i < t->count; i++) {
        float f = (float)tiny_value(m, t->name, i);
        uint16_t h = m->dtype == QN_ST_F16 ? qn_f16_from_f32(f) : qn_bf16_from_f32(f);
        if (m->dtype == QN_ST_F32)
            assert_ok(qn_safetensors_write(w, &f, sizeof f));
        else
            assert_ok(qn_safetensors_write(w, &h, sizeof h));
    }
}

static inline void tiny_add(qn_safetensors_writer *w, const tiny_model *m, const char *name,
                            int64_t rows, int64_t columns)
{
    int64_t dim[2] = { rows, columns };
    assert_ok(qn_safetensors_add(w, name, m->dtype, columns ? 2 : 1, dim));
}

static inline void tiny_write(const tiny_model *m)
{
    static const struct {
        const char *name;
        int64_t rows, columns;
    } parts[] = {
        { "input_layernorm", TINY_WIDTH, 0 },
        { "self_attn.q_proj", TINY_WIDTH, TINY_WIDTH },
        { "mlp.gate_proj", TINY_HIDDEN, TINY_WIDTH },
        { "mlp.up_proj", TINY_HIDDEN, TINY_WIDTH },
        { "mlp.down_proj", TINY_WIDTH, TINY_HIDDEN },
    };
    char path[256], name[128], text[512];
    qn_safetensors_writer *w;
    const qn_safetensor *t;
    assert_ok(qn_make_dirs(scratch(m->name)));
    snprintf(path, sizeof path, "%s/model.safetensors", m->name);
    assert_ok(qn_safetensors_create(scratch(path), NULL, &w));
    tiny_add(w, m, "model.embed_tokens.weight", m->vocab, TINY_WIDTH);
    tiny_add(w, m, "model.norm.weight", TINY_WIDTH, 0);
    if (!m->no_head) tiny_add(w, m, "lm_head.weight", m->vocab, TINY_WIDTH);
    for (int i = 0; i < m->layers; i++)
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, parts[k].name);
            tiny_add(w, m, name, parts[k].rows, parts[k].columns);
        }
    for (;;) {
        assert_ok(qn_safetensors_next(w, &t));
        if (!t) break;
        tiny_put(w, m, t);
    }
    assert_ok(qn_safetensors_commit(&w));
    snprintf(text, sizeof text,
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
             "\"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
             "\"vocab_size\": %d, \"num_attention_heads\": 2, \"num_key_value_heads\": 2, "
             "\"tie_word_embeddings\": false, \"torch_dtype\": \"float32\"}",
             TINY_WIDTH, TINY_HIDDEN, m->layers, m->vocab);
    snprintf(path, sizeof path, "%s/config.json", m->name);
    scratch_write_text(path, text);
}

// Merges by the text of a recipe into scratch("out").
static inline qn_result tiny_merge(const char *recipe, const qn_merge_opts *opts,
                                   qn_merge_stats *stats)
{
    qn_recipes r;
    qn_merge_opts o = *opts;
    o.plan.models = QN_SCRATCH_DIR;
    if (!o.out) o.out = scratch("out");
    QN_TRY(qn_recipes_parse("recipe.yml", recipe, strlen(recipe), &r));
    qn_result result = qn_merge_run(qn_test_device(), &r.items[0], r.text, &o, stats);
    qn_recipes_close(&r);
    return result;
}

#endif
