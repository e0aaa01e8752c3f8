// Where every tensor of a plan lies, and which nodes run. Pure: no device work.
#ifndef QN_LAYOUT_H
#define QN_LAYOUT_H

#include "graph_impl.h"

typedef enum qn_place {
    QN_PLACE_NONE = 0, // not part of the plan
    QN_PLACE_ARENA,
    QN_PLACE_INPUT,    // inputs and constants: kept between runs
    QN_PLACE_STORED,
} qn_place;

// Memory that one or several tensors share.
typedef struct qn_home {
    qn_place place;
    int first, last;       // steps; `last` is step_count for outputs
    bool output;
    uint64_t offset, size; // bytes; within the arena, the input buffer or the store
    qn_store *store;
    int merged;            // the storage that replaces this one, or -1
} qn_home;

typedef struct qn_layout {
    const node_impl **steps; // the nodes that run, in order
    int step_count;
    int *storage_of;         // by tensor id; -1: not part of the plan
    qn_home *storages;
    int storage_count;
    uint64_t arena, unshared, inputs; // bytes
    uint64_t guard;          // bytes before and after each arena tensor
} qn_layout;

// max_allocation bounds a chunk of the arena; see qn_memplan().
qn_result qn_layout_make(const qn_graph *g, const qn_plan_opts *opts, uint64_t max_allocation,
                         qn_layout *out);
void qn_layout_free(qn_layout *l);
// NULL when the tensor is not part of the plan.
const qn_home *qn_layout_find(const qn_layout *l, const qn_tensor *t);

#endif
