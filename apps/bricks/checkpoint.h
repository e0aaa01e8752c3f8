// Checkpoints as merging sees them: a folder with config.json and safetensors, its tensors by layer.
#ifndef QN_CHECKPOINT_H
#define QN_CHECKPOINT_H

#include "io/json.h"
#include "mem.h"
#include "recipe.h"

#include <quoin/io.h>

// How an architecture calls what merging has to know by name. Names are alternatives, a|b.
typedef struct qn_arch {
    const char *type;        // model_type of config.json; NULL: any other
    const char *layers_key;  // of config.json
    const char *embeddings;  // tensors in front of the layers
    const char *vocabulary;  // tensors with a row per token, whose rows may differ in number
    const char *head, *tied; // an optional tensor, and what stands in for it
    const char *optional;    // ends of further names that a model may lack
    const char *prefix;      // in front of all names in some files of this type; NULL: none
} qn_arch;
const qn_arch *qn_arch_of(const char *model_type);     // never NULL
bool qn_arch_has(const char *names, const char *name); // of "a|b"
bool qn_arch_optional(const qn_arch *a, const char *name);

// A tensor of a layer: `suffix` is what follows "<before>.<layer>.".
typedef struct qn_layer_tensor {
    int64_t layer; // -1: outside of the layers
    const char *suffix;
    size_t before; // bytes of the name in front of the layer's number
    const qn_safetensor *tensor;
} qn_layer_tensor;

struct qn_adapter;
typedef struct qn_checkpoint {
    qn_model_ref ref;
    char *dir;
    qn_json_doc *config;
    const qn_arch *arch;
    const char *architecture; // "LlamaForCausalLM"; "" when config.json names none
    int64_t layers;
    qn_safetensors *weights;
    qn_layer_tensor *tensors; // by layer, then as in the file
    size_t count;
    struct qn_adapter *adapter; // NULL: none
} qn_checkpoint;

// Where a model of a recipe lies: the path itself, or owner/name, owner--name or name below
// `models` (NULL: no such folder).
qn_result qn_checkpoint_locate(const char *path, const char *models, char **dir);
// Looked for in `parts` (NULL: none), then as qn_checkpoint_locate() does.
qn_result qn_checkpoint_open(const qn_model_ref *ref, const char *parts, const char *models,
                             qn_checkpoint *out);
void qn_checkpoint_close(qn_checkpoint *c);

// A tensor by its name, with or without the prefix of the architecture; NULL: none.
const qn_safetensor *qn_checkpoint_find(const qn_checkpoint *c, const char *name);
// A tensor of a layer; NULL: none.
const qn_safetensor *qn_checkpoint_layer(const qn_checkpoint *c, int64_t layer, const char *suffix);
// Tensors of a layer (-1: of none), in c->tensors.
void qn_checkpoint_range(const qn_checkpoint *c, int64_t layer, size_t *first, size_t *end);

#endif
