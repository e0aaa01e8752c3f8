// LoRA adapters in PEFT's files (adapter_config.json, adapter_model.safetensors): y = W x + s B (A x)
// with A [r, in], B [out, r], s = alpha / r, or alpha / sqrt(r) with use_rslora. Beyond PEFT, a stack
// of experts [E, in, out] may have a pair for each: A [E, in, r], B [E, r, out].
#ifndef QN_ADAPTER_H
#define QN_ADAPTER_H

#include "fail.h"
#include "io/json.h"

#include <quoin/io.h>

// What an adapter does to one tensor of the model.
typedef struct qn_adapter_module {
    char *name;                 // of the model's tensor
    const qn_safetensor *a, *b; // NULL: none; embeddings: a [r, vocab], b [d, r]
    bool embedding, stack;
    bool transposed;            // the model stores [in, out]
    const qn_safetensor *whole; // takes the tensor's place
    const qn_safetensor *bias;  // added to it (the module's bias)
    double scale;
    int64_t rank;
} qn_adapter_module;

typedef struct qn_adapter {
    char *dir;
    qn_json_doc *config;
    qn_safetensors *weights;
    qn_adapter_module *modules;
    size_t count;
} qn_adapter;

qn_result qn_adapter_open(const char *dir, qn_adapter **out);
void qn_adapter_close(qn_adapter **a);
// Checks that every module is in the model and fits it.
qn_result qn_adapter_bind(const qn_adapter *a, const qn_safetensors *model);
// What it does to a tensor; NULL: nothing.
const qn_adapter_module *qn_adapter_of(const qn_adapter *a, const char *tensor);

// Rows of the changed tensor: W + s B A in f32, summed in double precision, rounded once. A 1-D
// tensor is one row.
qn_result qn_adapter_rows(const qn_adapter_module *m, const qn_safetensor *w, uint64_t first,
                          uint64_t count, float *out);

#endif
