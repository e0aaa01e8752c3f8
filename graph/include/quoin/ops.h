// quoin/ops.h: one declaration per operation.
//
// Letters name dimensions: B batch, T new positions, S keys, N rows (B*T flattened), C width,
// H heads, D head width, E experts, K choices per row, V vocabulary, I and O inner and outer
// width of a product. "[.., C]" is any leading shape. Unless said otherwise values are f32 and
// the result has the shape of the first argument. Every sum is made in f32 in a fixed order.
// [keys] name entries of docs/references.md.
#ifndef QUOIN_OPS_H
#define QUOIN_OPS_H

#include <quoin/graph.h>

#ifdef __cplusplus
extern "C" {
#endif

// ------------------------------------------------------------------------------- pointwise

// a + b. b has a's shape, or a suffix of it (a row [C] is added to every row), or is a scalar.
QN_API const qn_tensor *qn_add(qn_graph *g, const qn_tensor *a, const qn_tensor *b);
// a * b, elementwise; b as in qn_add().
QN_API const qn_tensor *qn_mul(qn_graph *g, const qn_tensor *a, const qn_tensor *b);
// Sum of 1 to 8 tensors of one shape, added from left to right in one pass.
QN_API const qn_tensor *qn_sum_of(qn_graph *g, const qn_tensor *const *x, int count);
// factor * x + offset.
QN_API const qn_tensor *qn_scale(qn_graph *g, const qn_tensor *x, float factor, float offset);

typedef enum qn_activation {
    QN_IDENTITY = 0,
    QN_GELU_TANH, // 0.5x(1+tanh(sqrt(2/pi)(x+0.044715x^3))), "gelu_new"
    QN_GELU_ERF,  // 0.5x(1+erf(x/sqrt(2))), "gelu"
    QN_SILU,      // x sigmoid(x)
    QN_RELU,
    QN_TANH,
    QN_SIGMOID,
    QN_EXP,
    QN_LOG,       // natural logarithm
    QN_ACTIVATION_COUNT
} qn_activation;
QN_API const char *qn_activation_name(qn_activation a); // "gelu_tanh"
QN_API const qn_tensor *qn_activate(qn_graph *g, const qn_tensor *x, qn_activation a);

// x in another dtype; f32 <-> f16, bf16 with round to nearest even; quantised weights to f32. The
// gradient is cast back.
QN_API const qn_tensor *qn_cast(qn_graph *g, const qn_tensor *x, qn_dtype to);

// Each element is 0 with probability p, else x / (1 - p). `seed` is an i32 scalar; `stream`
// tells uses of one seed apart. Element i is decided by a counter-based generator of (seed,
// stream, i), so the gradient needs no mask. p = 0 returns x itself. 0 <= p < 1. [philox]
QN_API const qn_tensor *qn_dropout(qn_graph *g, const qn_tensor *x, const qn_tensor *seed, float p,
                                   uint32_t stream);

// ------------------------------------------------------------------------------- reductions

typedef enum qn_reduction { QN_SUM = 0, QN_MEAN, QN_MAX } qn_reduction;
// Over the last dimension: [.., C] -> [..]. QN_MAX has no gradient.
QN_API const qn_tensor *qn_reduce(qn_graph *g, const qn_tensor *x, qn_reduction kind);
// Index of the largest of the last dimension, the lowest on ties: [.., C] -> i32 [..].
QN_API const qn_tensor *qn_argmax(qn_graph *g, const qn_tensor *x);
// Sum over all leading dimensions: [.., C] -> [C].
QN_API const qn_tensor *qn_sum_rows(qn_graph *g, const qn_tensor *x);
// Sum, or sum of squares, of everything -> scalar. Pairwise over fixed blocks. x may be of any
// size, a whole store included.
QN_API const qn_tensor *qn_sum_all(qn_graph *g, const qn_tensor *x);
QN_API const qn_tensor *qn_sum_squares(qn_graph *g, const qn_tensor *x);

// The same elements under another shape; no copy.
QN_API const qn_tensor *qn_reshape(qn_graph *g, const qn_tensor *x, qn_shape shape);

// ------------------------------------------------------------------------------- matmul

typedef struct qn_matmul_opts {
    bool transpose_a, transpose_b;
    const qn_tensor *bias;     // [N], added to every row of the result; NULL: none
    qn_activation activation;  // applied last; only where no gradient is wanted
} qn_matmul_opts;

// c[.., i, j] = sum_k a[.., i, k] b[.., k, j] (+ bias[j]), in f32.
// a [.., M, K]; b [K, N], or [.., K, N] with a's leading dimensions -> [.., M, N].
// transpose_a: a is given as [.., K, M]; transpose_b: b as [.., N, K] (a Linear weight [out, in]).
// b may be stored as f16 or bf16 (weights); the gradient to b is then f32 and b must be a leaf
// made by qn_cast(). Or quantised, a single matrix; nothing is differentiated then.
QN_API const qn_tensor *qn_matmul(qn_graph *g, const qn_tensor *a, const qn_tensor *b,
                                  const qn_matmul_opts *opts);

// ------------------------------------------------------------------------------- norms

// (x - mean) / sqrt(var + epsilon) * w + b over the last dimension, biased variance.
// x [.., C]; w, b [C]; b may be NULL.
QN_API const qn_tensor *qn_layer_norm(qn_graph *g, const qn_tensor *x, const qn_tensor *w,
                                      const qn_tensor *b, float epsilon);
// x / sqrt(mean(x^2) + epsilon) * w. w [C].
QN_API const qn_tensor *qn_rms_norm(qn_graph *g, const qn_tensor *x, const qn_tensor *w,
                                    float epsilon);
// x / max(|x|, epsilon) over the last dimension, |x| the Euclidean norm.
QN_API const qn_tensor *qn_unit_norm(qn_graph *g, const qn_tensor *x, float epsilon);

// ------------------------------------------------------------------------------- losses

// Over the last dimension.
QN_API const qn_tensor *qn_softmax(qn_graph *g, const qn_tensor *x);
QN_API const qn_tensor *qn_log_softmax(qn_graph *g, const qn_tensor *x);

#define QN_IGNORE (-100) // a label that is not counted
// Mean over the counted rows of -log softmax(logits)[label] -> scalar; 0 when none is counted.
// logits [N, V], labels i32 [N]. Labels outside [0, V) other than QN_IGNORE count as QN_IGNORE.
// *rows, when not NULL, receives each row's loss [N], 0 where ignored (no gradient through it).
QN_API const qn_tensor *qn_cross_entropy(qn_graph *g, const qn_tensor *logits,
                                         const qn_tensor *labels, const qn_tensor **rows);

// ------------------------------------------------------------------------------- embedding

// table [V, C], ids i32 [..] -> [.., C]. Ids outside [0, V) give zeros and no gradient.
// The gradient to table sums rows in order of position.
QN_API const qn_tensor *qn_embedding(qn_graph *g, const qn_tensor *table, const qn_tensor *ids);

// ------------------------------------------------------------------------------- routing

// A stable counting sort. keys i32 [n] with values in [0, buckets) ->
// order i32 [n]: positions sorted by key, earlier positions first;
// offsets i32 [buckets + 1]: key e owns order[offsets[e] .. offsets[e+1]).
// Keys outside the range are left out; the tail of order is then -1.
typedef struct qn_sorted {
    const qn_tensor *order, *offsets;
} qn_sorted;
QN_API qn_sorted qn_counting_sort(qn_graph *g, const qn_tensor *keys, int buckets);

// Where each row goes; made by qn_route(), read by the expert operations. A slot a = n*K + s is
// choice s of row n; slot tensors are always in this natural order.
typedef struct qn_routing {
    const qn_tensor *logits;  // [N, E], as given
    const qn_tensor *probs;   // [N, E] softmax over all experts
    const qn_tensor *gates;   // [N, K] probabilities of the chosen experts
    const qn_tensor *experts; // [N, K] i32, most probable first, ties to the lower index
    const qn_tensor *order;   // [N*K] i32: slots sorted by expert, stably
    const qn_tensor *offsets; // [E+1] i32: expert e owns order[offsets[e] .. offsets[e+1])
    int choices;              // K
} qn_routing;

typedef struct qn_route_opts {
    int choices;           // K
    int sampled;           // of these, how many are drawn without replacement with probability
                           // proportional to p + 1e-6 instead of taken (training)
    const qn_tensor *seed; // i32 scalar, required when sampled > 0
    uint32_t stream;       // as in qn_dropout()
} qn_route_opts;

// logits [N, E]. Gates are not renormalised. The gradient reaches the logits through probs and
// gates; the choice itself has none. [moduleformer]
QN_API qn_routing qn_route(qn_graph *g, const qn_tensor *logits, const qn_route_opts *opts);

typedef enum qn_router_loss {
    QN_ROUTER_MI = 0,        // H(e|x) - H(e), with P_e = mean_n p_ne and log(P_e + 1e-8)
    QN_ROUTER_SWITCH,        // E sum_e (mass_e/sum mass)(cnt_e/sum cnt) + 0.1 mean lse^2
    QN_ROUTER_CONCENTRATION, // H(e) = -sum_e P_e log(P_e + 1e-8)
} qn_router_loss;
// -> scalar; its gradient goes straight to routing->logits (never through probs).
// [moduleformer] sections 6.2 and 9.
QN_API const qn_tensor *qn_router_loss_of(qn_graph *g, const qn_routing *routing,
                                          qn_router_loss kind);

// ------------------------------------------------------------------------------- experts

typedef struct qn_expert_opts {
    bool transpose_w; // w is [E, O, I]
} qn_expert_opts;
// y[a] = x[row of a] w[expert of a] for every slot a. x [N, I] (slot a reads row a / K) or
// [N*K, I] (slot a reads row a); w [E, I, O] -> [N*K, O]. No slot is dropped, counts never visit
// the host; an expert without slots costs nothing and gets an explicit zero gradient.
// w may be f16, bf16 or quantised, as in qn_matmul(). [scattermoe]
QN_API const qn_tensor *qn_expert_matmul(qn_graph *g, const qn_tensor *x, const qn_tensor *w,
                                         const qn_routing *routing, const qn_expert_opts *opts);

// dw[e] = sum over slots a of expert e of x[row of a]^T y[row of a]: x [N, I] or [N*K, I],
// y [N, O] or [N*K, O] -> [E, I, O]. Not differentiable.
QN_API const qn_tensor *qn_expert_outer(qn_graph *g, const qn_tensor *x, const qn_tensor *y,
                                        const qn_routing *routing);

// out[n] = residual[n] + sum_s gates[n,s] y[n*K+s], in slot order. y [N*K, C]; gates [N, K], or
// NULL for ones; residual [N, C] or NULL -> [N, C].
QN_API const qn_tensor *qn_combine(qn_graph *g, const qn_tensor *y, const qn_tensor *gates,
                                   const qn_tensor *residual, int choices);

// ------------------------------------------------------------------------------- attention

typedef struct qn_stickbreaking_opts {
    int batch;               // B, required
    int heads;               // H, required; D = A / H
    int slots;               // queries per position: K; 0: 1
    float scale;             // of q k'; 0: 1/sqrt(D)
    bool skip_current;       // true: position i does not attend to itself
    int window;              // only the newest keys that a position would see; 0: all
    // i32: filled positions of k and v, a scalar or one for each batch row [B]; NULL: all S. Or
    // [B, 2], for caches: beside it which block of `keys` rows of k and v the batch row reads;
    // k and v then have P blocks, whatever P (no gradient).
    const qn_tensor *used;
    int keys;                // S, with `used` [B, 2] only
    const qn_tensor *keep;   // i32 [B, S]: 0 hides that key; NULL: all visible
    const qn_tensor **rem;   // when not NULL, receives the left-over of the stick [B*T*K, H]
                             // (no gradient through it)
} qn_stickbreaking_opts;

// Stick-breaking attention. With z_ij = scale q_i k_j' and s the sigmoid,
//   w_ij = s(z_ij) prod_{j < m <= i} (1 - s(z_im)),  j <= i,   o_i = sum_j w_ij v_j,
// the product taken in log space. Rows of w may sum to less than 1.
// q [B*T*K, A]: row (b*T + t)*K + s is slot s of position t; head h has columns h*D..h*D+D-1.
// k, v [B*S, A], S >= T; with `used` = U, only keys 0..U-1 exist. Query t stands at position
// U - T + t (the queries are the last positions). Any D up to 1024. -> o [B*T*K, A].
// k and v may be the same tensor. [moduleformer] section 4, [stickbreaking]
QN_API const qn_tensor *qn_stickbreaking(qn_graph *g, const qn_tensor *q, const qn_tensor *k,
                                         const qn_tensor *v, const qn_stickbreaking_opts *opts);

// ------------------------------------------------------------------------------- sampling

// A row of `how`, eight words; what is a float is given by its bits.
typedef struct qn_sample_how {
    float temperature; // 0: the largest logit, ties to the lower token; nothing is drawn
    float top_p;       // 1 or more: off
    float min_p;       // 0: off
    int32_t top_k;     // 0: off
    uint32_t seed[2];
    int32_t place;     // of the drawn token in its text
    int32_t top;       // likely tokens to list, 0 to QN_SAMPLE_TOP
} qn_sample_how;

// An entry of `changes`: logit + bias, divided (if positive) or multiplied by factor, minus less.
typedef struct qn_sample_change {
    int32_t token; // negative: no entry
    float bias, factor, less;
} qn_sample_change;

#define QN_SAMPLE_TOP 20
typedef struct qn_sampled {
    const qn_tensor *token;   // i32 [N]; -1: no logit of the row is a finite number
    const qn_tensor *logprob; // [N] log softmax(logits)[token]; changes do not count
    const qn_tensor *top;     // i32 [N, QN_SAMPLE_TOP] most likely tokens of logits, most likely
                              // first, ties to the lower token; -1 behind those asked for
    const qn_tensor *chance;  // [N, QN_SAMPLE_TOP] their log softmax, 0 behind them
} qn_sampled;
// Chooses a token of every row of logits [N, V]. With x the changed logits, in this order: the
// top_k largest stay; of these the fewest most likely ones whose softmax(x) sums to top_p; of these
// those with at least min_p times the largest probability; from them one is drawn with probability
// softmax(x / temperature). Tokens of equal logits stay or go together. The draw depends on seed,
// place, x and how alone, not on the row. how i32 [N, 8]: qn_sample_how. changes i32 [N, M, 4]:
// qn_sample_change, no token twice in a row; or NULL. Not differentiable. [gumbel]
QN_API qn_sampled qn_sample(qn_graph *g, const qn_tensor *logits, const qn_tensor *how,
                            const qn_tensor *changes);

// ------------------------------------------------------------------------------- memory

typedef struct qn_synapse_opts {
    int batch, heads;       // B, H, required
    const qn_tensor *start; // M before the first token [B, H, dk, dv]; NULL: zeros
    const qn_tensor **end;  // when not NULL, receives M behind the last token [B, H, dk, dv]
    bool no_gradient;       // decoding: nothing is kept for a gradient, which is then refused
} qn_synapse_opts;

// A fast-weight memory written by prediction error, the gated delta rule. Per batch row and head,
// with a = exp(la):
//   M_t = a_t M_{t-1} + beta_t k_t (v_t - a_t M_{t-1}' k_t)',   o_t = M_t' q_t
// q, k [B*T, H*dk]; v [B*T, H*dv]; la, beta [B*T, H] -> o [B*T, H*dv]. dk and dv up to 128, any T.
// Token t of a batch row sees tokens up to t. |k| <= 1, la <= 0 and 0 <= beta <= 1 keep M bounded;
// nothing is normalised here. A text in pieces, each given the end state of the one before, has
// the same results as in one. M is always f32. [gated-delta]
QN_API const qn_tensor *qn_synapse(qn_graph *g, const qn_tensor *q, const qn_tensor *k,
                                   const qn_tensor *v, const qn_tensor *la, const qn_tensor *beta,
                                   const qn_synapse_opts *opts);

// How strongly something was recalled: rho m / (m + tau^2) with m = mean(r^2) over the last
// dimension. r [.., D], rho [..] -> [..]; tau > 0. 0 where r is. [synaptic-resonance]
QN_API const qn_tensor *qn_resonance(qn_graph *g, const qn_tensor *r, const qn_tensor *rho,
                                     float tau);

typedef struct qn_causal_conv_opts {
    int batch;              // B, required
    const qn_tensor *start; // the W-1 rows before x [B, W-1, C]; NULL: zeros. Not for W = 1
    const qn_tensor **end;  // when not NULL, receives the last W-1 rows; for W > 1
} qn_causal_conv_opts;

// Depthwise convolution along time: y[b, t, c] = sum_j w[j, c] x[b, t - (W-1) + j, c], tap W-1
// being the current token. x [B*T, C]; w [W, C], 1 <= W <= 16 -> [B*T, C].
QN_API const qn_tensor *qn_causal_conv(qn_graph *g, const qn_tensor *x, const qn_tensor *w,
                                       const qn_causal_conv_opts *opts);

// Neighbouring ranges of columns: x [N, C] -> out[i] [N, widths[i]]; the widths sum to C.
// 1 <= count <= 4. QN_OK, or what the graph's status is then.
QN_API qn_result qn_split(qn_graph *g, const qn_tensor *x, const int64_t *widths, int count,
                          const qn_tensor **out);
// The opposite: parts [N, C_i] -> [N, sum of C_i]. 1 <= count <= 4.
QN_API const qn_tensor *qn_join(qn_graph *g, const qn_tensor *const *parts, int count);

// ------------------------------------------------------------------------------- effects
// Operations that write a store. A plan always keeps them, in the order in which they were
// built; readers built earlier see the old values, later ones the new.

// Overwrites the stored tensor `param` (from qn_param() or qn_frozen()) with x: same count and
// dtype. Costs nothing where x can be computed in place.
QN_API const qn_tensor *qn_assign(qn_graph *g, const qn_tensor *param, const qn_tensor *x);

// Writes x [B, T, C] into param [B, S, C] at positions [at, at + T) of every batch row, `at` an
// i32 scalar (0 <= at, at + T <= S: rows beyond S are dropped). With `at` [B], param is [P, S, C]
// for any P, and x[b, t] goes to row at[b] + t of all P*S rows; rows outside are dropped. No two
// rows of x may go to one place. Returns param as it is afterwards.
QN_API const qn_tensor *qn_assign_rows(qn_graph *g, const qn_tensor *param, const qn_tensor *at,
                                       const qn_tensor *x);

// One AdamW step over whole stores, all of one layout. p parameters, m and v moments,
// grad gradients: [n] from qn_store_tensor(). [adamw], decoupled decay:
//   g' = scale * g, scale = min(1, clip / (norm + 1e-6)) with norm = sqrt(square_sum) (clip 0: 1)
//   p *= 1 - lr decay; m = b1 m + (1-b1) g'; v = b2 v + (1-b2) g'^2
//   p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
// hyper f32 [8]: lr, 1 - b1, 1 - b2, eps, clip, 1 - b1^t, 1 - b2^t, (unused); computed on the host
// in double: 1 - b of a b rounded to f32 is off by up to 2^-25 / (1 - b), the same way every step.
// square_sum: scalar, qn_sum_squares(grad).
// groups i32 [n / 64]: for each 64 elements the row of group_table; -1 leaves them untouched
// (frozen: no moment, no decay). group_table f32 [G, 2]: factor on lr, weight decay.
QN_API const qn_tensor *qn_adamw(qn_graph *g, const qn_tensor *p, const qn_tensor *grad,
                                 const qn_tensor *m, const qn_tensor *v, const qn_tensor *hyper,
                                 const qn_tensor *square_sum, const qn_tensor *groups,
                                 const qn_tensor *group_table);

// ------------------------------------------------------------------------------- HyperTab
// n rows, d columns, V views of m columns each, C outputs, h hidden units.

// The small network that judges one view: `depth` layers of `hidden` units with ReLU, then a linear
// one. Its weights are generated: P of them, layer after layer, the matrix [out, in] and then the
// biases; P = mh + h + (depth - 1)(h^2 + h) + hC + C.
typedef struct qn_target_net {
    int hidden, depth, outputs; // h, at least 1; C
} qn_target_net;
#define QN_TARGET_MAX_HIDDEN 64
#define QN_TARGET_MAX_DEPTH 4
#define QN_TARGET_MAX_OUTPUTS 64
QN_API int64_t qn_target_weights(const qn_target_net *net, int64_t chosen); // P

// x [n, d], view_columns i32 [V, m] (0 <= column < d), generated [V, P] -> logits [V, n, C]: every
// view's network on its columns of every row. The gradient reaches `generated` alone. [hypertab]
QN_API const qn_tensor *qn_hyper_target(qn_graph *g, const qn_tensor *x,
                                        const qn_tensor *view_columns, const qn_tensor *generated,
                                        const qn_target_net *net);

typedef struct qn_hyper_fit_opts {
    qn_target_net net;
    bool square;        // mean squared error of one output instead of cross-entropy
    int steps;          // Adam steps that one run makes at most
    int views_per_step; // largest K of the fits
    int batch;          // largest batch of the fits
    float beta1, beta2, epsilon; // all 0: 0.9, 0.999, 1e-8
} qn_hyper_fit_opts;

enum { QN_HYPER_WIDTH1 = 128, QN_HYPER_WIDTH2 = 64 }; // hidden units, then twice this many
// Words of a row of `fits`.
enum {
    QN_FIT_ROWS = 0, // rows in an epoch
    QN_FIT_BATCH,    // rows in a batch, at most opts.batch; an epoch's last one may be shorter
    QN_FIT_VIEWS,    // K, at most opts.views_per_step; a batch's last step may have fewer
    QN_FIT_STEPS,    // in all: epochs * ceil(rows / batch) * ceil(V / K)
    QN_FIT_RATE,     // learning rate, the bits of a float
    QN_FIT_ORDER,    // where the orders of views begin in the fit's row of `orders`
    QN_FIT_WORDS = 8
};

// Trains F hypernetworks at once, `opts.steps` Adam steps of each (fewer at a fit's end), all with
// views and target networks of one size. A step takes the next K views of the batch; its loss is the
// mean over them of the mean over the rows of the batch. One dispatch makes many steps, one
// workgroup a fit, so a fit alone is bound by the speed of one core or compute unit. [hypertab]
//   state     [F, 3, N], stored: parameters, first and second moments; each U0' [d, 128], c0,
//             U1' [128, 64], c1, U2' [64, 64], c2, U3' [64, P], c3 (matrices in x out)
//   fits      i32 [F, 8]: see above
//   orders    i32 [F, L]: for every epoch its rows, each an index into x; and from `QN_FIT_ORDER` on
//             for every batch of every epoch the V views in order, each an index into masks
//   start     i32 scalar: steps done before this run
//   rates     [T, 2]: 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) of step t - 1; a factor on the
//             first makes a schedule
//   x [n, d], y [n] (class numbers as floats, or values), masks [W, d], view_columns i32 [W, m]:
//             of all fits one after the other, W = all their views, V = `views` each
// -> losses [F, steps, tasks]: what each task (some rows of one view) adds to the loss of a step,
// zero where none. Sum over tasks for the loss before the step. No gradient.
QN_API const qn_tensor *qn_hyper_fit(qn_graph *g, const qn_tensor *state, const qn_tensor *fits,
                                     const qn_tensor *orders, const qn_tensor *start,
                                     const qn_tensor *rates, const qn_tensor *x, const qn_tensor *y,
                                     const qn_tensor *masks, const qn_tensor *view_columns,
                                     int views, const qn_hyper_fit_opts *opts);

#ifdef __cplusplus
}
#endif
#endif
