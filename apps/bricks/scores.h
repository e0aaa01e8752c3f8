// Files of `bricks analyse --save-scores`: layers.N.score [functions, neurons], layers.N.mean
// [instances, neurons], and the functions' names in the metadata.
#ifndef QN_BRICKS_SCORES_H
#define QN_BRICKS_SCORES_H

#include <quoin/io.h>

// The index of a function; QN_ERR_INVALID lists those that there are.
qn_result qn_scores_function(const qn_safetensors *s, const char *path, const char *name, int *out);
// Scores of a function in a layer, [neurons]; checked to be that many. qn_free().
qn_result qn_scores_layer(const qn_safetensors *s, const char *path, int64_t layer, int function,
                          size_t neurons, float **out);
// The mean activation over all instances in a layer, [neurons]. qn_free().
qn_result qn_scores_mean(const qn_safetensors *s, const char *path, int64_t layer, size_t neurons,
                         float **out);

#endif
