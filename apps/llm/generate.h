// Text from a model: prompt in, tokens out, one at a time.
#ifndef QN_GENERATE_H
#define QN_GENERATE_H

#include "sampler.h"

#include <quoin/model.h>
#include <quoin/tokenizer.h>

// A model folder, opened: description, tokenizer and weights on a device.
typedef struct qn_folder {
    qn_model_config config;
    qn_tokenizer *tokenizer;
    qn_store *weights;
} qn_folder;

// `path` is a folder or a GGUF file. `weights` is how matrices are kept: QN_AS_STORED, QN_F32,
// QN_F16, QN_BF16, QN_Q8_0 or QN_Q4_0; routers and vectors are not quantised.
typedef struct qn_folder_opts {
    qn_dtype weights;          // mind: 0 is QN_F32
    qn_load_progress progress; // of the weights
} qn_folder_opts;
qn_result qn_folder_open_with(qn_device *dev, const char *path, const qn_folder_opts *opts,
                              qn_folder *out);
// How commands offer this choice, and what its i-th word means.
#define QN_WEIGHT_WORDS "same|f32|f16|bf16|q8_0|q4_0"
qn_dtype qn_weight_choice(int i);
qn_result qn_folder_open(qn_device *dev, const char *dir, qn_dtype weights, qn_folder *out);
void qn_folder_close(qn_folder *f);
// [vocab_size], 1 for the tokens that the tokenizer can write; free with qn_free(). NULL: no memory.
uint8_t *qn_folder_usable(const qn_folder *f);

typedef struct qn_generate_opts {
    const char *prompt;    // may be empty
    size_t prompt_size;
    int64_t max_tokens;    // 0: until the end token or the context is full
    int64_t context;       // 0: 1,024
    const char *memory;    // file that the model's memories start from, when it is there, and that
                           // they are written to at the end; NULL: none
    bool ignore_end;       // go on behind the end-of-text token
    qn_sampling sampling;
    // Receives whole characters as they become known, nothing now and then while a long prompt is
    // read; false stops.
    bool (*text)(void *user, const char *bytes, size_t size);
    void *user;
} qn_generate_opts;

typedef struct qn_generate_stats {
    int64_t prompt_tokens, tokens;
    double prompt_seconds, seconds; // up to the first token; of writing the others
    bool ended;                     // by the end token
} qn_generate_stats;

// QN_ERR_INVALID when the prompt does not fit the context.
qn_result qn_generate(qn_device *dev, const qn_folder *f, const qn_generate_opts *opts,
                      qn_generate_stats *out);

#endif
