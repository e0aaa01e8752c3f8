// Arithmetic on one tensor of several models at a time, on the device: what merge methods are made
// of. All models' values lie side by side in a set of slots; calls name them by number. Arithmetic
// is f32 on exactly widened values; sums are made over fixed segments of 4096 elements and added up
// in double precision, so no result depends on the size of windows or on the device's threads.
#ifndef QN_BLEND_H
#define QN_BLEND_H

#include "fail.h"

#include <quoin/engine.h>

typedef struct qn_blend qn_blend;

#define QN_BLEND_SETS 2
#define QN_BLEND_NONE (-1) // no input, no base

qn_result qn_blend_create(qn_device *dev, qn_blend **out);
void qn_blend_destroy(qn_blend **b);
// Elements worked on at once, a multiple of 4096; 0: the default. Changes no result.
void qn_blend_window(qn_blend *b, uint64_t elements);
// Bytes of device memory held, and the most that were.
uint64_t qn_blend_peak(const qn_blend *b);

// Makes room for `inputs` tensors of `bytes` each in a set, and for the result of the same set.
// While one set is computed with, other threads may fill the other's slots or use its result.
qn_result qn_blend_reserve(qn_blend *b, int set, size_t inputs, uint64_t bytes);
qn_result qn_blend_reserve_result(qn_blend *b, int set, uint64_t bytes);
void *qn_blend_slot(qn_blend *b, int set, size_t input);
const void *qn_blend_result(const qn_blend *b, int set);

// Starts a tensor whose values are in the slots of `set`.
typedef struct qn_blend_tensor {
    uint64_t count, width; // elements; elements of a row (the last dimension)
    uint64_t columns;      // elements that belong to one index of the first dimension
    size_t inputs;
    qn_storage storage; // of the slots
    qn_storage out;     // of the result
} qn_blend_tensor;
qn_result qn_blend_begin(qn_blend *b, int set, const qn_blend_tensor *t);
// The result is there.
qn_result qn_blend_end(qn_blend *b);

// Vectors over which products are taken, or which share coefficients.
typedef enum qn_blend_spread {
    QN_BLEND_WHOLE = 0,
    QN_BLEND_ROWS,
    QN_BLEND_COLUMNS, // of the tensor seen as [first dimension, columns]
} qn_blend_spread;

// Which values of d = x - base are kept.
typedef struct qn_blend_keep {
    enum { QN_KEEP_ALL = 0, QN_KEEP_KEYS, QN_KEEP_MASK } kind;
    // KEYS: magnitudes from low to high, as bits of f32; of those equal to low the elements from
    // low_index on (low_below: before it), of those equal to high the elements before high_index.
    uint32_t low, low_index, high, high_index;
    bool low_below;
    size_t mask; // MASK: its number
} qn_blend_keep;

// y = c0 p + sum c_m (x_m - p). coefs is [sets of the spread][1 + count], the pivot's first.
// near_swap: y = p + k (x - p), k = clamp(c1 / |x - p|, 0, 1), with one input.
typedef struct qn_blend_mix {
    int pivot;
    const int *inputs;
    size_t count;
    qn_blend_spread spread;
    const float *coefs;
    bool near_swap;
} qn_blend_mix_opts;
qn_result qn_blend_mix(qn_blend *b, const qn_blend_mix_opts *o);

// y = base + lambda sum_m k_m weight_m d_m [/ V], d_m = scale_m (x_m - base) where it is kept. With
// `signs`, k_m is 1 where sign_weight_m d_m has the sign of the sum of these over the models.
typedef struct qn_blend_task_model {
    int input;
    float sign_weight, weight, scale;
    qn_blend_keep keep;
} qn_blend_task_model;
typedef struct qn_blend_task {
    int base;
    const qn_blend_task_model *models;
    size_t count;
    float lambda;
    bool signs;
    enum { QN_DIVIDE_NONE = 0, QN_DIVIDE_ZERO_IS_ONE, QN_DIVIDE_AT_LEAST } divide; // V
} qn_blend_task_opts;
qn_result qn_blend_task(qn_blend *b, const qn_blend_task_opts *o);

// Products of two inputs, of their differences to base when there is one, for every vector of the
// spread: sums [vectors][3] = x.x, x.z, z.z.
qn_result qn_blend_gram(qn_blend *b, int x, int z, int base, qn_blend_spread spread, double *sums);

// Sum of |d| and of |d| kept; sum of d^2 kept.
qn_result qn_blend_l1(qn_blend *b, int x, int base, const qn_blend_keep *keep, double sums[2]);
qn_result qn_blend_squares(qn_blend *b, int x, int base, const qn_blend_keep *keep, double *sum);

// Where magnitudes come from: |x - base|, or the plane.
typedef struct qn_blend_keys {
    int x, base;
    bool plane;
} qn_blend_keys;
typedef struct qn_blend_found {
    uint32_t key;          // the magnitude's bits
    uint64_t below, equal; // how many magnitudes are smaller, and how many equal
} qn_blend_found;
// The magnitude number `rank` in ascending order. Exact; never sorts.
qn_result qn_blend_select(qn_blend *b, const qn_blend_keys *keys, uint64_t rank,
                          qn_blend_found *out);
// The index of equal magnitude number `which` (from 0) in order of the index.
qn_result qn_blend_locate(qn_blend *b, const qn_blend_keys *keys, const qn_blend_found *found,
                          uint64_t which, uint64_t *index);

// x - base, read back: for what the device does not do.
qn_result qn_blend_difference(qn_blend *b, int x, int base, float *out);

// Masks: one bit for each element, numbered by the caller.
qn_result qn_blend_masks(qn_blend *b, size_t count);
qn_result qn_blend_mask_write(qn_blend *b, size_t mask, const uint8_t *keep); // a byte an element
// Elements whose magnitudes are kept.
qn_result qn_blend_mark(qn_blend *b, const qn_blend_keys *keys, const qn_blend_keep *keep,
                        size_t mask);
// At random: counter (i / 4, stream, model), key seed; kept with probability p (ranked false) or
// lowest + slope * rank of |d| in its row of row_width elements. sums as qn_blend_l1.
typedef struct qn_blend_random {
    uint64_t seed;
    uint32_t stream, model;
    double probability;
    bool ranked;
    double lowest, slope;
    uint64_t row_width;
} qn_blend_random;
// The widest row that can be ranked.
#define QN_BLEND_RANKED ((uint64_t)200000)
qn_result qn_blend_draw(qn_blend *b, int x, int base, const qn_blend_random *random, size_t mask,
                        double sums[2]);

// The plane, f32: how much the differences of the inputs to base vary over them (the sum of
// squared deviations from the mean); how many exceed epsilon; |x - base| times a factor per row.
qn_result qn_blend_variance(qn_blend *b, const int *inputs, size_t count, int base);
qn_result qn_blend_hits(qn_blend *b, const int *inputs, size_t count, int base, float epsilon);
qn_result qn_blend_importance(qn_blend *b, int x, int base, const float *factors);
// Of input x: where |d| > epsilon, elements of which the plane says more than one, and just one.
qn_result qn_blend_shared(qn_blend *b, int x, int base, float epsilon, double sums[2]);
// y = base + sum of d above epsilon, times factor where one, divided by their number elsewhere.
qn_result qn_blend_ram(qn_blend *b, const int *inputs, const float *factors, size_t count, int base,
                       float epsilon);

// For every row: sum of p log(p / q) with p, q the softmax of x and base plus 1e-8.
qn_result qn_blend_divergence(qn_blend *b, int x, int base, float *out);

#endif
