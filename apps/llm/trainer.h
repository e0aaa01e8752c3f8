// One training step and one evaluation of a language model: the plans behind `quoin train`, the
// golden traces and the benchmarks. No files, no printing.
#ifndef QN_TRAINER_H
#define QN_TRAINER_H

#include <quoin/model.h>

typedef struct qn_trainer qn_trainer;

// Which elements of the parameters are trained. The others get no gradient, no moment and no decay,
// and keep their bytes; a parameter without any trained element takes no memory beside its own.
typedef struct qn_trainable {
    // Sets keep[i] (all 0 before) to 1 for every trained element of a parameter.
    qn_result (*mark)(void *user, const char *name, qn_shape shape, uint8_t *keep);
    // Asked first; NULL: any model will do.
    qn_result (*check)(void *user, const qn_model_config *c);
    void *user;
} qn_trainable;

typedef struct qn_trainer_opts {
    int64_t batch, positions; // B rows of T tokens per plan run
    int64_t accumulate;       // runs per step; 0: 1
    int64_t segments;         // steps that read one stretch of text, what is remembered handed on
                              // from one to the next, without gradient; 0, 1: every step starts with
                              // nothing. More: only without accumulation
    bool forget;              // what is remembered ends with a document, at its end token
    qn_dtype weights;         // storage of the weights in products; moments and masters are f32
    double beta1, beta2, epsilon, weight_decay, clip; // clip 0: none
    bool decay_everything;    // also norms and biases (the published traces)
    bool profile;
    uint64_t seed;            // of dropout and sampled routing
    const qn_trainable *trainable; // NULL: everything; must outlive the creation
    const struct qn_lora *lora;    // adapters are trained, the model is frozen; NULL: none. Must
                                   // outlive the trainer
} qn_trainer_opts;

typedef struct qn_step_report {
    double loss, ce, aux;  // means over the step's runs; loss = ce + weight * aux
    double grad_norm;      // before clipping
    double seconds;        // wall time of the step
    double host_seconds;   // of these, not waiting for the device
    uint32_t submissions;
} qn_step_report;

// Bytes of device memory that qn_trainer_create() will take, without taking them.
typedef struct qn_trainer_memory {
    uint64_t weights, gradients, moments, activations, unshared;
} qn_trainer_memory;
qn_result qn_trainer_estimate(qn_device *dev, const qn_model_config *c, const qn_trainer_opts *opts,
                              qn_trainer_memory *out);

// Weights, gradients and moments start as zeros: fill the weights by qn_model_initialise() or
// qn_model_load() on qn_trainer_weights().
qn_result qn_trainer_create(qn_device *dev, const qn_model_config *c, const qn_trainer_opts *opts,
                            qn_trainer **out);
void qn_trainer_destroy(qn_trainer **t);

// ids and labels i32 [accumulate, B, T]; labels[i] is the token that position i predicts, or
// QN_IGNORE. `step` counts from 1.
qn_result qn_trainer_step(qn_trainer *t, int64_t step, double learning_rate, const int32_t *ids,
                          const int32_t *labels, qn_step_report *out);

// Sum of -log p over the counted labels, and how many there were. ids, labels [B, T].
qn_result qn_trainer_evaluate(qn_trainer *t, const int32_t *ids, const int32_t *labels,
                              double *nll, int64_t *count);

// Slots that each expert of each router got in the last run. Routers in order attn 0, mlp 0,
// attn 1, ...; router r has experts(r) entries in loads[r].
int64_t qn_trainer_routers(const qn_trainer *t);
int64_t qn_trainer_experts(const qn_trainer *t, int64_t router);
qn_result qn_trainer_loads(qn_trainer *t, int64_t router, int32_t *loads);

qn_store *qn_trainer_weights(qn_trainer *t);
qn_store *qn_trainer_remembered(qn_trainer *t);        // by the rows of the batch; NULL: nothing
qn_store *qn_trainer_gradients(qn_trainer *t); // of the last step, before clipping
qn_store *qn_trainer_moments(qn_trainer *t, int which); // 0: mean, 1: mean square
// The graph of one training run, for dumps; the plans, for profiles.
const qn_graph *qn_trainer_graph(const qn_trainer *t);
qn_plan *qn_trainer_plan(qn_trainer *t, bool optimiser);
// Multiply-adds and other operations of one step, as the plans count them.
double qn_trainer_flops(const qn_trainer *t);

#endif
