// Low-rank adapters in training: y = W x + s B (A x), W frozen. s = alpha / rank, or alpha /
// sqrt(rank) when stabilised. For a linear weight [out, in]: A [rank, in], B [out, rank]; for a stack
// of experts [E, in, out]: A [E, in, rank], B [E, rank, out]. They lie in the store of the weights as
// <path>.lora_A and <path>.lora_B, <path> being the weight's name without ".weight".
#ifndef QN_LORA_H
#define QN_LORA_H

#include "pattern.h"

#include <quoin/model.h>

typedef struct qn_lora {
    int64_t rank;
    double alpha, dropout;
    bool stabilised;
    qn_selection targets; // names of weights
} qn_lora;

double qn_lora_scale(const qn_lora *l);
// Adds the factors of every matching weight. QN_ERR_INVALID when nothing matches, for rows of
// weights, and for a rank that is no less than a side of the weight.
qn_result qn_lora_declare(const qn_lora *l, const qn_model_config *c, qn_store *store);
// A uniform with bound 1/sqrt(in), B zero: a fresh adapter changes nothing.
qn_result qn_lora_initialise(qn_store *store, uint64_t seed);
// Writes adapter_config.json and adapter_model.safetensors in PEFT's form, atomically each.
qn_result qn_lora_save(const qn_lora *l, const qn_store *store, const char *dir, const char *base);

#endif
