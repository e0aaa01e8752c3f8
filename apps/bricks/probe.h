// Looking into a running ModuleFormer: losses, routing, activations of neurons, masks on them.
#ifndef QN_BRICKS_PROBE_H
#define QN_BRICKS_PROBE_H

#include "llm/generate.h"

typedef enum qn_probe_parts {
    QN_PROBE_NEURONS = 1,  // activations of the MLP experts
    QN_PROBE_EVERY = 2,    // means over tokens with every expert applied to every token
    QN_PROBE_GATES = 4,    // logits' softmax over all experts
    QN_PROBE_TABLE = 8,    // activations are multiplied by a factor for each neuron
    QN_PROBE_SLOTS = 16,   // and by one for each slot and neuron
    QN_PROBE_GRADIENT = 32, // of the mean loss, with respect to the activations
    QN_PROBE_FINAL = 64,   // the final hidden state
    QN_PROBE_INPUTS = 128, // what MLP experts and routers read
} qn_probe_parts;

typedef struct qn_probe qn_probe;

// B rows of T tokens per run. `parts` is a set of the above. The folder must outlive the probe.
qn_result qn_probe_create(qn_device *dev, const qn_folder *f, int64_t batch, int64_t positions,
                          uint32_t parts, qn_probe **out);
void qn_probe_destroy(qn_probe **p);
int64_t qn_probe_rows(const qn_probe *p); // N = B*T

// Factors of layer l's neurons [E, F], or slots and neurons [N*K, F], from the next run on; ones
// before the first call.
qn_result qn_probe_set_table(qn_probe *p, int64_t layer, const float *factors);
qn_result qn_probe_set_slots(qn_probe *p, int64_t layer, const float *factors);

// ids, labels [B, T]; QN_IGNORE where nothing is predicted.
qn_result qn_probe_run(qn_probe *p, const int32_t *ids, const int32_t *labels);

// Of the last run. Kinds of routers: 0 attention, 1 MLP.
qn_result qn_probe_losses(qn_probe *p, float *rows);                                // [N]
qn_result qn_probe_experts(qn_probe *p, int64_t layer, int kind, int32_t *experts);  // [N, K]
qn_result qn_probe_gates(qn_probe *p, int64_t layer, int kind, float *gates);        // [N, K]
qn_result qn_probe_probs(qn_probe *p, int64_t layer, int kind, float *probs);        // [N, E]
qn_result qn_probe_neurons(qn_probe *p, int64_t layer, float *h);                    // [N*K, F]
qn_result qn_probe_gradient(qn_probe *p, int64_t layer, float *dh);                  // [N*K, F]
// Sums over all N tokens of what every expert has just before its output matrix: MLP [E, F],
// attention [E, A].
qn_result qn_probe_every(qn_probe *p, int64_t layer, int kind, float *sums);
qn_result qn_probe_final(qn_probe *p, float *hidden);                                // [N, C]
qn_result qn_probe_inputs(qn_probe *p, int64_t layer, float *x);                     // [N, C]

// ---------------------------------------------------------------------------- over texts

// Tokens of a text file or folder, at most `most` (0: all). QN_ERR_INVALID for fewer than two.
qn_result qn_probe_text(const qn_folder *f, const char *path, uint64_t most, qn_tokens *out);

// How often experts were chosen, and what they did: [kind][layer * E + e].
typedef struct qn_usage {
    int64_t layers, experts[2], width[2]; // width: F, A
    double *slots[2], *gates[2];          // counts; sums of gates
    double *sums[2];                      // [layer][e][width], with QN_PROBE_EVERY
    double tokens;
    double nll, predicted;                // loss on the same tokens
} qn_usage;
// Windows of T tokens, B at a time; what does not fill a batch is left out unless there is nothing
// else (then T and B are smaller).
qn_result qn_usage_measure(qn_device *dev, const qn_folder *f, const int32_t *tokens, uint64_t count,
                           bool every, qn_usage *out);
void qn_usage_free(qn_usage *u);
// Share of the slots of layer's router that went to expert e.
double qn_usage_share(const qn_usage *u, int kind, int64_t layer, int64_t e);

#endif
