// New expert stacks from old ones: a plan says, for every expert of the result, what it is made of.
// One plan for each layer and kind of expert; bodies and router rows follow it.
#ifndef QN_BRICKS_STACK_H
#define QN_BRICKS_STACK_H

#include "edit.h"

typedef struct qn_expert_plan {
    enum { QN_EXPERT_COPY = 0, QN_EXPERT_RANDOM, QN_EXPERT_NOISY, QN_EXPERT_SPLIT,
           QN_EXPERT_MEAN } kind;
    int64_t from;   // COPY, NOISY, SPLIT: the expert
    int64_t part, parts; // SPLIT: keeps the hidden units u with u % parts == part, others are zero
    const int64_t *members; // MEAN: experts, with `usage` and `weight` [count]
    const double *usage, *weight;
    size_t count;
    bool align;
} qn_expert_plan;

typedef struct qn_stack_opts {
    uint64_t seed;
    bool published_init; // RANDOM bodies: bound 1/in instead of 1/sqrt(in)
} qn_stack_opts;

// Replaces stacks and router rows of a layer of a ModuleFormer by `count` experts. `plan` and `opts`
// must outlive the writing.
qn_result qn_stack_plan(qn_edit *e, const qn_brick_model *m, qn_brick_kind kind, int64_t layer,
                        const qn_expert_plan *plan, int64_t count, const qn_stack_opts *opts);

#endif
