// Splitting feed-forward blocks into groups of neurons, and what a few groups are worth.
// [moefication]
#ifndef QN_BRICKS_PARTITION_H
#define QN_BRICKS_PARTITION_H

#include "model.h"

typedef enum qn_features { QN_FEATURES_GATE = 0, QN_FEATURES_IN, QN_FEATURES_BOTH } qn_features;

// What neurons read, a row for each of a layer's block: [hidden, d or 2 d]. Gated blocks have two
// matrices; others have QN_FEATURES_IN whatever is asked for. qn_free().
qn_result qn_partition_features(const qn_brick_model *m, int64_t layer, qn_features which,
                                float **out, size_t *width);

typedef struct qn_partition_layer {
    int32_t *labels, *perm; // [hidden]
    double objective, random;
    float *centre;          // [K, width] mean of the normalised rows of each group
    size_t width;
    double inside, expected; // share of co-activation inside groups; of a random split (with data)
} qn_partition_layer;

void qn_partition_free(qn_partition_layer *l);
// Balanced k-means over the features of one layer.
qn_result qn_partition_kmeans(const qn_brick_model *m, int64_t layer, qn_features which, size_t groups,
                              uint64_t seed, qn_partition_layer *out);

// Ways to choose groups for a token.
enum { QN_CHOOSE_ORACLE = 0, QN_CHOOSE_SIMILARITY, QN_CHOOSE_MLP, QN_CHOOSE_RANDOM };

// A router z = W2 tanh(W1 x/|x|) trained to predict the groups' shares of activation. x [n, d],
// scores [n, K]; w1 [K, d] starts as the groups' centres, w2 [K, K] as identity.
qn_result qn_partition_router(const float *x, const float *scores, size_t n, size_t d, size_t groups,
                              uint64_t seed, float *w1, float *w2);

#endif
