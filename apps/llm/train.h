// `quoin train` without the terminal: data, schedule, evaluation, checkpoints, resuming.
#ifndef QN_TRAIN_H
#define QN_TRAIN_H

#include "data.h"
#include "trainer.h"

#include <quoin/tokenizer.h>

typedef struct qn_train_opts {
    const char *out;           // directory of the model and its training state
    const char *preset;        // NULL: "nano"; ignored when config is given
    const char *config;        // path of a config.json; its vocab_size must be the tokenizer's
    const char *tokenizer;     // tokenizer.json or a folder; NULL: trained on the text
    int64_t vocab;             // tokens of a trained tokenizer
    int64_t batch, positions, accumulate;
    bool forget;               // memories end with a document
    int64_t segments;          // windows that follow each other in the text, memories handed on; 0: 1
    int64_t steps;             // 0: from `minutes`
    double minutes;            // time to train for, measured at the start; 0: from `steps`
    double learning_rate, final_rate; // peak, and its share that the cosine ends at
    int64_t warmup;            // steps
    double weight_decay, beta1, beta2, epsilon, clip;
    double aux_weight;         // of the routers' loss; negative: as in the config
    double dropout;            // of embeddings and branches; negative: as in the config
    double held_out;           // share of the text for validation
    int64_t eval_every, save_every; // steps; 0: only at the end
    int64_t eval_tokens;       // most tokens of one evaluation; 0: all
    qn_dtype weights;
    const char *init;          // model folder to start from: weights, description and, unless
                               // given, tokenizer; NULL: fresh weights
    int aux;                   // 1 + a qn_router_loss; 0: as in the config
    const qn_trainable *trainable; // NULL: everything is trained
    const struct qn_lora *lora;    // adapters to train on `init`; the folder gets them alone
    const char *trainable_text;    // what is trained, for the state: a resumed run has the same
    uint64_t seed;
    bool fresh;                // start anew in a directory that holds a training state
    bool profile;
    int64_t capture;           // this step becomes a graphics debugger's frame; 0: none
} qn_train_opts;

// What the run tells. Which members count depends on the event.
typedef enum qn_train_event_kind {
    QN_TRAIN_TOKENIZER, // tokenizer ready: vocab
    QN_TRAIN_DATA,      // text tokenised: train and held-out tokens, unigram bits
    QN_TRAIN_MEMORY,    // before memory is taken: memory, size
    QN_TRAIN_RESUMED,   // step
    QN_TRAIN_STEP,      // after each step: report, rate, loads on request
    QN_TRAIN_EVAL,      // bits per byte, loss per token
    QN_TRAIN_SAVED,     // step
    QN_TRAIN_STEPS,     // `minutes` were turned into steps
} qn_train_event_kind;

typedef struct qn_train_event {
    qn_train_event_kind kind;
    int64_t step, steps;  // done, in all (0: not known yet)
    int64_t vocab;
    uint64_t train_tokens, held_tokens, train_bytes, held_bytes;
    double unigram_bits;  // of the held-out text, per byte
    qn_trainer_memory memory;
    qn_model_size size;
    qn_step_report report;
    double learning_rate, tokens_per_second;
    double bits_per_byte, held_loss;
    qn_trainer *trainer;  // STEP and later: for loads and profiles
} qn_train_event;

typedef struct qn_train_hooks {
    // After each event; false ends the run after having saved.
    bool (*event)(void *user, const qn_train_event *e);
    void *user;
} qn_train_hooks;

typedef struct qn_train_result {
    int64_t step, steps;
    bool finished;           // false: ended by a hook
    double bits_per_byte, held_loss, unigram_bits;
    double train_loss;       // of the last step
    double seconds;          // of training in this process
    double tokens_per_second;
} qn_train_result;

// Trains until done or told to stop. Resumes by itself from `out`. Writes config.json,
// tokenizer.json, model.safetensors and training-state.safetensors there, each atomically:
// whenever the process dies, the folder holds the last complete state.
// QN_ERR_INVALID when the state in `out` belongs to another run (the message says in what).
qn_result qn_train(qn_device *dev, const qn_corpus *corpus, const qn_train_opts *opts,
                   const qn_train_hooks *hooks, qn_train_result *out);

// --- the training state (state.c) ---

// Everything a step depends on beside the tensors.
typedef struct qn_train_state {
    int64_t step, steps;
    char *fingerprint; // of options, config and data, as text; qn_free
} qn_train_state;

qn_result qn_state_save(const char *dir, const qn_train_state *s, qn_trainer *t);
// QN_ERR_INVALID when the fingerprint is not `expected`, naming what differs.
qn_result qn_state_load(const char *dir, const char *expected, qn_train_state *s, qn_trainer *t);
bool qn_state_exists(const char *dir);

#endif
