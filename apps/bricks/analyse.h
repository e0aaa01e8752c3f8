// What the neurons of a ModuleFormer's MLP experts do. [bricks] Neuron e*F + u is unit u of expert e;
// where an expert does not run, the activations of its neurons are 0.
#ifndef QN_BRICKS_ANALYSE_H
#define QN_BRICKS_ANALYSE_H

#include "instances.h"
#include "probe.h"

enum { QN_CDF_POINTS = 101 };

typedef struct qn_layer_scores {
    double below[2];              // share of normalised indicators under 0.2: activation, magnitude
    double cdf[2][QN_CDF_POINTS]; // share of them at or under i/100
    float *mean;                  // [instances, neurons] mean |a| over the prompt
    float *score;                 // [functions, neurons] average precision
    float *expert_score;          // [functions, experts] of the mean gate
    float *attribution;           // [functions, neurons] mean |a dL/da|, when asked for
    uint8_t *resident;            // [neurons] active on nearly everything
} qn_layer_scores;

typedef struct qn_analysis {
    const qn_folder *f;
    const qn_instances *in;
    qn_device *dev;
    size_t layers, neurons, experts, functions, length, rows;
    qn_layer_scores *layer;
    double *random;               // [functions] score of random activations
} qn_analysis;

// Activations of all instances: means, distributions, scores.
qn_result qn_analysis_run(qn_device *dev, const qn_folder *f, const qn_instances *in, size_t length,
                          bool attribution, qn_analysis *out);
void qn_analysis_free(qn_analysis *a);

typedef struct qn_top_opts {
    double share;        // of the neurons of each layer, or of all together
    bool whole_model;    // rank all layers together
    bool skip_resident;
} qn_top_opts;
// Marks the neurons with the highest score for a function: out[layers * neurons].
qn_result qn_analysis_top(const qn_analysis *a, size_t function, const qn_top_opts *opts,
                          uint8_t *out);

// Loss per token on each function's instances, with the marked neurons (NULL: none) at zero.
qn_result qn_analysis_loss(const qn_analysis *a, const uint8_t *zeroed, double *loss);
// The same with the lowest `percent` of the indicators of every token and layer at zero: percent of
// all neurons, those of experts that did not run first, or (`ran`) of those that ran.
qn_result qn_analysis_masked(const qn_analysis *a, bool magnitude, double percent, bool ran,
                             double *loss);

#endif
