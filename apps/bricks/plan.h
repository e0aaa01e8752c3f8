// What a merge will do: every output tensor with its sources and parameters, settled before
// anything is written.
#ifndef QN_MERGE_PLAN_H
#define QN_MERGE_PLAN_H

#include "checkpoint.h"
#include "tensor.h"

struct qn_vocabulary;

typedef struct qn_merge_output {
    qn_merge_tensor tensor; // sources, parameters, shape, types
    double position;        // t of gradients
    size_t slice;
} qn_merge_output;

typedef struct qn_merge_plan {
    const qn_recipe *recipe;
    qn_arena arena;
    qn_checkpoint *models; // in order of first mention
    size_t model_count;
    int base;                         // index in models of the recipe's base, or -1
    struct qn_vocabulary *vocabulary; // NULL: vocabularies are left as they are
    qn_merge_output *outputs;
    size_t count, capacity;
    int64_t layers;         // of the output
    uint64_t read, written; // bytes
    bool has_head;
} qn_merge_plan;

typedef struct qn_merge_plan_opts {
    const char *models; // folder in which models are looked for; NULL: none
    const char *parts;  // another one, looked into first; NULL: none
    bool allow_crimes;  // models of different architectures
    uint64_t seed;
} qn_merge_plan_opts;

qn_result qn_merge_plan_make(const qn_recipe *recipe, const qn_merge_plan_opts *opts,
                             qn_merge_plan *out);
void qn_merge_plan_free(qn_merge_plan *p);
// The model whose configuration and tokenizer the output takes: the base, else the first.
const qn_checkpoint *qn_merge_plan_template(const qn_merge_plan *p);

// A model's tensor of this name, what stands in for it, and its adapter; out->tensor NULL: none.
qn_result qn_merge_plan_source(qn_merge_plan *p, size_t model, const char *name,
                               qn_tensor_source *out);

#endif
