// quoin/model.h: ModuleFormer language models: description, weights, network, training.
#ifndef QUOIN_MODEL_H
#define QUOIN_MODEL_H

#include <quoin/graph.h>
#include <quoin/ops.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------- description
#define QN_LM_MAX_LAYERS 256

typedef enum qn_memory_kind {
    QN_MEMORY_OFF = 0,
    QN_MEMORY_DELTA, // written by prediction error, fades
    QN_MEMORY_FULL,  // and what is recalled strongly is kept in a second matrix
} qn_memory_kind;

typedef enum qn_gate { QN_GATE_MLP = 0, QN_GATE_LINEAR, QN_GATE_GMM } qn_gate;

// What config.json holds, under the names of [moduleformer] section 1.
typedef struct qn_model_config {
    int64_t vocab_size;     // V
    int64_t n_embd;         // C
    int64_t n_layer;        // L
    int64_t n_head;         // H, heads inside one attention expert
    int64_t att_hidden;     // A, a multiple of H
    int64_t ffd_hidden;     // F
    int64_t n_att_experts, k_att;
    int64_t n_mlp_experts, k_mlp;
    int64_t gating_size;    // R
    qn_gate gate_type;
    qn_activation activation; // of the MLP experts
    qn_router_loss aux_loss;
    double aux_loss_weight;
    int64_t sample_topk;
    int64_t block_size, history_length;
    double resid_pdrop, embd_pdrop, moe_pdrop;
    double initializer_range;
    bool tie_word_embeddings;
    bool gate_bias;         // routers add a bias per expert (ours; published models have none)
    int64_t bos_token_id, eos_token_id;
    // Ours; written only where used. docs/memory.md
    int64_t attention_window; // keys that a position attends to, itself included; 0: all
    uint8_t memory[QN_LM_MAX_LAYERS]; // qn_memory_kind of each layer
    int64_t memory_heads, memory_keys, memory_values; // H, dk, dv
    int64_t memory_taps;      // of the convolution before it; 1: none
    double memory_fade;       // most that la of a token can be
    double memory_threshold;  // tau: recalls weaker than this are not kept
} qn_model_config;

// Reads and checks a config.json. Unknown keys and impossible values are refused by name; keys
// that published files carry without effect are ignored.
QN_API qn_result qn_model_config_read(const char *path, qn_model_config *out);
// The same of a text; `name` stands for the file in messages.
QN_API qn_result qn_model_config_parse(const char *name, const char *text, size_t size,
                                       qn_model_config *out);
// Writes it atomically, in the published form.
QN_API qn_result qn_model_config_write(const qn_model_config *c, const char *path);
// The same as text, for comparing; free with qn_free().
QN_API qn_result qn_model_config_text(const qn_model_config *c, char **out);
// "nano", "micro", "small", "base", "large": sizes for a vocabulary; QN_ERR_INVALID lists them.
QN_API qn_result qn_model_preset(const char *name, int64_t vocab_size, qn_model_config *out);
QN_API const char *qn_model_preset_names(void); // "nano, micro, ..."
// QN_ERR_INVALID with a sentence when sizes do not fit together.
QN_API qn_result qn_model_config_check(const qn_model_config *c);

typedef struct qn_model_size {
    int64_t parameters, active; // all, and those that one token uses (output matrix included)
} qn_model_size;
QN_API qn_model_size qn_model_count(const qn_model_config *c);

// ---------------------------------------------------------------------------- weights
// Adds every parameter, in a fixed order and under the published names, to a store that is not
// allocated yet.
QN_API qn_result qn_model_declare(const qn_model_config *c, qn_store *store, qn_dtype dtype);
#define QN_AS_STORED QN_DTYPE_COUNT // weights as the files have them
// Called as weights arrive, bytes of the store: false stops with QN_ERR_CANCELLED.
typedef struct qn_load_progress {
    bool (*report)(void *user, uint64_t done, uint64_t total);
    void *user;
} qn_load_progress;

// Allocates-and-fills helper of training: normal and uniform values from a counter-based
// generator. Expert tensors are uniform with bound 1/sqrt(in), or 1/in when `published_init`.
QN_API qn_result qn_model_initialise(const qn_model_config *c, qn_store *store, uint64_t seed,
                                     bool published_init);
// Copies every parameter of the (allocated) store from model.safetensors, or the shards that
// model.safetensors.index.json names, in `dir`; widened or rounded to the store's types. The
// constant buffers of published files are skipped; anything else unknown, missing or of
// another shape is refused.
QN_API qn_result qn_model_load(const qn_model_config *c, qn_store *store, const char *dir);
// Writes `dir`/model.safetensors from an f32 store, atomically.
QN_API qn_result qn_model_save(const qn_store *store, const char *dir);

// ---------------------------------------------------------------------------- network
typedef struct qn_lm_opts {
    int64_t batch, positions;  // B, T
    bool training;             // dropout and sampled routing
    const qn_tensor *seed;     // i32 scalar, needed when training with dropout or sampling
    const qn_tensor *keep;     // i32 [B, S]: 0 hides a key; NULL: all visible
    qn_dtype weights;          // QN_F16, QN_BF16: products read weights rounded to this type
    // Decoding: keys and values of past positions, from qn_lm_declare_cache().
    qn_store *cache;
    int64_t context;           // S, positions the cache holds; 0 without a cache
    const qn_tensor *past;     // i32 scalar: filled positions before this call. Or [B*T], for a
                               // cache of any number P of rows: where in all its P*S positions each
                               // token goes (outside: nowhere)
    const qn_tensor *used;     // i32 scalar: past + T. With past [B*T]: [B, 2], filled positions
                               // after this call and which of the P each row is
    // Memories of models that have them, from qn_lm_declare_memory(): read before, written behind.
    qn_store *memory;          // NULL: every text starts with nothing remembered
    const qn_tensor *memory_rows; // i32 [B]: the store's row of each text; outside: nothing is read
                                  // or kept. NULL: row b for text b
    const qn_tensor *forget;   // f32 [B*T, 1]: 1 where a token forgets all that was remembered before
                               // it, else 0; NULL: nowhere
    bool last_only;            // logits of the last position of each row only: [B, V]
    bool headless;             // no logits at all: reading for the cache's sake
    bool capture;              // keep branch outputs apart for inspection (not fused)
    // Low-rank adapters: where `weights` holds <path>.lora_A and <path>.lora_B beside <path>.weight, a
    // product gets lora_scale * B (A x) more. Scale 0: none. Dropout on x in training.
    double lora_scale, lora_dropout;
    // Takes the place of the activations of a layer's MLP experts, h [N*K, F], which their output
    // matrices read: masks for the study of neurons. NULL: h itself.
    const qn_tensor *(*neurons)(void *user, qn_graph *g, int layer, const qn_routing *routing,
                                const qn_tensor *h);
    void *neurons_user;
} qn_lm_opts;

// What a network is made of; tensors are NULL where `capture` was not asked for.
typedef struct qn_lm {
    const qn_tensor *embedding; // [N, C]
    const qn_tensor *final;     // [N, C] after the last layer norm
    const qn_tensor *logits;    // [N, V]
    const qn_tensor *aux;       // scalar: sum of the routers' losses
    struct qn_lm_layer {
        qn_routing attn, mlp;
        const qn_tensor *attn_aux, *mlp_aux;   // scalars
        const qn_tensor *attn_out, *mlp_out;   // [N, C], capture only
        const qn_tensor *hidden;               // [N, C] after the layer
        const qn_tensor *q, *k, *v;            // inputs of the attention
        const qn_tensor *attn_in, *mlp_in;     // [N, C], normalised: what routers and experts read
        const qn_tensor *neurons;              // [N*K, F] activations of the MLP experts
    } layer[QN_LM_MAX_LAYERS];
} qn_lm;

// Builds the network. ids i32 [B, T]. N = B*T. Errors stick to the graph.
QN_API qn_result qn_lm_build(qn_graph *g, qn_store *weights, const qn_model_config *c,
                             const qn_tensor *ids, const qn_lm_opts *opts, qn_lm *out);
// Adds the KV cache's tensors for B rows of S positions: one per layer where keys and values are
// the same tensor, else two.
QN_API qn_result qn_lm_declare_cache(const qn_model_config *c, qn_store *cache, int64_t batch,
                                     int64_t context);
// Adds what `rows` texts remember: `layers.<i>.sr.F` and `.C` [rows, 1, H dk dv], `.conv`
// [rows, 1, (taps - 1) H (2 dk + dv)] of every layer i with a memory. Zeros: nothing. Adds nothing
// for models without.
QN_API qn_result qn_lm_declare_memory(const qn_model_config *c, qn_store *memory, int64_t rows);
// True when keys and values are the normalised input itself (H = 1, A = C).
QN_API bool qn_model_shares_kv(const qn_model_config *c);

#ifdef __cplusplus
}
#endif
#endif
