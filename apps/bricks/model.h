// A model folder as bricks see it: mapped tensors, and where layers, experts and neurons are in
// them. ModuleFormer, and Llama-like checkpoints (llama, mistral, qwen2, qwen3, mixtral, qwen3_moe).
#ifndef QN_BRICKS_MODEL_H
#define QN_BRICKS_MODEL_H

#include <quoin/io.h>
#include <quoin/model.h>

typedef struct qn_brick_model {
    char *dir, *type;       // model_type of config.json
    bool moduleformer;
    qn_model_config config; // ModuleFormer only
    qn_safetensors *weights;
    int64_t layers, width;  // width: of the residual stream
    int64_t hidden;         // neurons of a feed-forward block, or of one of its experts
    int64_t experts, choices; // of a layer's feed-forward block; 1, 1: dense
    bool gated;             // act(W_G x) * (W_I x) instead of act(W_I x)
} qn_brick_model;

qn_result qn_brick_open(const char *dir, qn_brick_model *out);
void qn_brick_close(qn_brick_model *m);

// The kinds of bricks that a layer has.
typedef enum qn_brick_kind { QN_BRICK_FFN = 0, QN_BRICK_ATTENTION } qn_brick_kind;

// Names of the tensors of an expert (or of the dense block, expert 0). For a ModuleFormer the stack
// that holds all experts: `in` [E, d, h], `out` [E, h, d], router rows [E, *]. Otherwise `in` and
// `gate` [h, d], `out` [d, h]; router [E, d]. A name is "" where there is no such tensor.
enum { QN_BRICK_NAME = 160 };
typedef struct qn_brick_names {
    char in[QN_BRICK_NAME], gate[QN_BRICK_NAME], out[QN_BRICK_NAME], router[QN_BRICK_NAME];
} qn_brick_names;
void qn_brick_names_of(const qn_brick_model *m, qn_brick_kind kind, int64_t layer, int64_t expert,
                       qn_brick_names *out);

// The tensor, or QN_ERR_FORMAT naming it.
qn_result qn_brick_tensor(const qn_brick_model *m, const char *name, const qn_safetensor **out);
// All of it as f32 in a fresh array (qn_free).
qn_result qn_brick_f32(const qn_brick_model *m, const char *name, float **out);

// The layer number in a tensor's name; -1: it belongs to no layer.
int64_t qn_brick_layer_of(const char *name);

#endif
