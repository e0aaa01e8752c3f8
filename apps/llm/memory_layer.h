// The fast-weight memory of a layer: network, initial values, sizes of what it remembers.
// docs/memory.md.
#ifndef QN_MEMORY_LAYER_H
#define QN_MEMORY_LAYER_H

#include "random.h"

#include <quoin/model.h>

// Sizes and constants of one use.
typedef struct qn_memory_shape {
    int64_t heads, keys, values; // H, dk, dv
    int64_t taps;                // of the convolution; 1: none
    float fade, threshold;       // lam_max, tau
    bool full;                   // with the consolidated matrix
    bool activated;              // silu on keys and queries too
} qn_memory_shape;

// w_qkv [D, C], w_gate [H dv, C], w_abr [3H, C], w_o [C, H dv]; w_conv [taps, D]; norm, z [C];
// b_abr [3H]; c_log, eta [H]. D = H (2 dk + dv): queries, keys, values, each by head.
typedef struct qn_memory_weights {
    const qn_tensor *norm, *w_qkv, *w_conv, *w_gate, *w_abr, *b_abr, *c_log, *eta, *w_o, *z;
} qn_memory_weights;

// What was remembered of B texts. NULL: nothing yet, or not used.
typedef struct qn_memory_state {
    const qn_tensor *plastic, *consolidated; // [B, H, dk, dv]
    const qn_tensor *before;                 // [B, taps - 1, D]: rows that the convolution still needs
    const qn_tensor *forget; // of a start state: [B*T, 1], 1 where a token forgets all before it, else
                             // 0 (the convolution still sees over it). NULL: nowhere
} qn_memory_state;

// How recalls are kept in the consolidated matrix.
typedef struct qn_memory_keeping {
    const qn_tensor *relevance;        // rho [N, H]
    const qn_tensor *log_decay, *share; // log c, eta [H]
    float threshold;                   // tau
} qn_memory_keeping;

// The memory operator: r from the plastic matrix by q, k, v, and with `keep` (else NULL)
// r + eta s, s from the consolidated matrix, into which r is written under q as strongly as it
// resounds. batch, heads and no_gradient of `opts` count.
const qn_tensor *qn_memory_recall(qn_graph *g, const qn_tensor *const *qkv, const qn_tensor *la,
                                  const qn_tensor *beta, const qn_memory_keeping *keep,
                                  const qn_synapse_opts *opts, const qn_memory_state *start,
                                  qn_memory_state *end);

// x + z (W_o [silu(W_g h) o]), h = rms_norm(x); x [B*T, C]. start may be NULL; *end, unless NULL,
// receives the state behind the last token.
const qn_tensor *qn_memory_layer(qn_graph *g, const qn_tensor *x, int64_t batch,
                                 const qn_memory_shape *s, const qn_memory_weights *w,
                                 const qn_memory_state *start, qn_memory_state *end,
                                 bool no_gradient);

// The shape that config.json gives layer i; false where it has no memory.
bool qn_memory_of(const qn_model_config *c, int64_t layer, qn_memory_shape *out);
bool qn_memory_any(const qn_model_config *c);

// Initial values of a memory's parameter, by the last part of its name ("w_qkv").
void qn_memory_initialise(const qn_model_config *c, const char *part, qn_shape shape, float *x,
                          qn_random *rng);

#endif
