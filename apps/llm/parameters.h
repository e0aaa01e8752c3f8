// The parameters of a model, one after the other (private to apps/llm).
#ifndef QN_PARAMETERS_H
#define QN_PARAMETERS_H

#include <quoin/model.h>

// How a parameter starts, and to which weight-decay group it belongs.
typedef enum qn_param_kind {
    QN_PARAM_NORMAL = 0, // normal(0, initializer_range): linear weights
    QN_PARAM_EMBEDDING,  // the same, but rows are looked up: always kept in f32
    QN_PARAM_EXPERT,     // uniform: expert tensors [E, in, out]
    QN_PARAM_ZERO,       // biases, temperature
    QN_PARAM_ONE,        // norm weights
    QN_PARAM_CENTROID,   // normal(0, 1)
    QN_PARAM_MEMORY,       // matrices of a memory: see qn_memory_initialise()
    QN_PARAM_MEMORY_PLAIN, // and the rest of it
} qn_param_kind;

typedef struct qn_param_info {
    const char *name; // lives as long as the visit
    qn_shape shape;
    qn_param_kind kind;
    bool router;         // decides which experts are used: never quantised
    bool expert;         // belongs to one of k of E experts: used by k/E of the tokens
    int64_t choices;     // k, for expert tensors
} qn_param_info;

// Calls visit() for every parameter in a fixed order; stops at its first failure.
qn_result qn_parameters(const qn_model_config *c,
                        qn_result (*visit)(void *user, const qn_param_info *p), void *user);

// Whether weight decay applies: matrices only, no norms, no biases.
static inline bool qn_param_decays(qn_param_kind kind)
{
    return kind == QN_PARAM_NORMAL || kind == QN_PARAM_EMBEDDING ||
           kind == QN_PARAM_EXPERT || kind == QN_PARAM_CENTROID || kind == QN_PARAM_MEMORY;
}

// Writes the f32 tensors of several stores to one file, atomically: tensor t of stores[i] as
// prefixes[i]t; no prefix may be the beginning of another one. Nothing is written when a store cannot be read.
struct qn_st_meta;
qn_result qn_store_write_file(const qn_store *const *stores, const char *const *prefixes,
                              size_t count, const char *path, const struct qn_st_meta *meta,
                              size_t meta_count);

#endif
