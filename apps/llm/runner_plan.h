// The plans of a runner, made when first needed: one per shape (private to runner.c).
#ifndef QN_RUNNER_PLAN_H
#define QN_RUNNER_PLAN_H

#include "memory_state.h"
#include "runner.h"

// What a plan does with its B rows of T tokens.
typedef enum qn_runner_task {
    QN_TASK_READ = 0, // fills the cache: B = 1
    QN_TASK_SCORE,    // and tells how likely each label is: B = 1
    QN_TASK_WRITE,    // chooses the next token of each row: T = 1
} qn_runner_task;

typedef struct qn_runner_plan {
    struct qn_runner_plan *next;
    qn_runner_task task;
    int64_t rows, positions, changes; // B, T, M
    qn_graph *g;
    qn_plan *plan;
    const qn_tensor *ids, *past, *used;  // inputs [B, T], [B * T], [B, 2]
    const qn_tensor *texts;              // models with memories: [B], the slots of the rows
    const qn_tensor *labels;             // SCORE: [T]
    const qn_tensor *how, *change;       // WRITE: [B], [B, M] (structs of quoin/ops.h)
    const qn_tensor *loss, *best;        // SCORE: [T]
    qn_sampled chosen;                   // WRITE
} qn_runner_plan;

// What plans are made from.
typedef struct qn_runner_model {
    qn_device *dev;
    qn_model_config config;
    qn_store *weights, *cache;
    qn_memory_bank *memory; // NULL: the model has none
    int64_t slots, context; // context: positions of the cache
    uint8_t *usable;        // NULL: all tokens
    qn_runner_plan *plans;
} qn_runner_model;

// The plan for a shape; `changes` 0: none are made.
qn_result qn_runner_plan_get(qn_runner_model *m, qn_runner_task task, int64_t rows,
                             int64_t positions, int64_t changes, qn_runner_plan **out);
void qn_runner_plans_free(qn_runner_model *m);
// Copies `data` into the whole input.
qn_result qn_runner_plan_set(qn_runner_plan *p, const qn_tensor *input, const void *data);
qn_result qn_runner_plan_read(qn_runner_plan *p, const qn_tensor *output, void *data);

#endif
