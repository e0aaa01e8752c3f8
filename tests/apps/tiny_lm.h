// The smallest language model that still has every part, and a text for it to learn.
#ifndef QN_TEST_TINY_LM_H
#define QN_TEST_TINY_LM_H

#include "llm/train.h"
#include "scratch.h"

#define TINY_CONFIG                                                                                \
    "{\"model_type\": \"moduleformer\", \"vocab_size\": 260, \"n_embd\": 16, \"n_layer\": 1, "     \
    "\"n_head\": 2, \"att_hidden\": 16, \"ffd_hidden\": 24, \"n_att_experts\": 2, \"k_att\": 1, "  \
    "\"n_mlp_experts\": 4, \"k_mlp\": 2, \"gating_size\": 8, \"aux_loss_weight\": 0.01, "          \
    "\"bos_token_id\": 0, \"eos_token_id\": 0}"

static inline void tiny_write_inputs(void)
{
    scratch_write_text("config.json", TINY_CONFIG);
    static const char line[] = "the cat sat on the mat, and the dog sat by the door.\n";
    char text[60 * sizeof line];
    size_t at = 0;
    for (int i = 0; i < 60; i++, at += sizeof line - 1) memcpy(text + at, line, sizeof line - 1);
    scratch_write("cat.txt", text, at);
}

static inline void tiny_corpus(qn_corpus *c)
{
    *c = (qn_corpus){ 0 };
    assert_ok(qn_corpus_add(c, scratch("cat.txt")));
}

// `config` and `out` are paths that outlive the options.
static inline qn_train_opts tiny_opts(const char *config, const char *out, int64_t steps)
{
    return (qn_train_opts){
        .out = out, .config = config, .vocab = 257, .batch = 4, .positions = 16, .steps = steps,
        .learning_rate = 0.02, .final_rate = 0.05, .warmup = 5, .weight_decay = 0.1, .beta1 = 0.9,
        .beta2 = 0.95, .epsilon = 1e-8, .clip = 1, .aux_weight = -1, .dropout = -1,
        .held_out = 0.1, .seed = 7,
    };
}

// A folder with a model that has learned the text by heart, more or less; well below a second.
static inline void tiny_train(const char *out, int64_t steps)
{
    char config[512];
    snprintf(config, sizeof config, "%s", scratch("config.json"));
    tiny_write_inputs();
    const qn_train_opts o = tiny_opts(config, out, steps);
    qn_corpus c;
    qn_train_result r;
    tiny_corpus(&c);
    assert_ok(qn_train(qn_test_device(), &c, &o, NULL, &r));
    qn_corpus_free(&c);
}

#endif
