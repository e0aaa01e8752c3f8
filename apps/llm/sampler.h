// From logits to the next token. Penalties, then top-k, top-p, min-p, temperature, draw: the order
// that llama.cpp's users expect.
#ifndef QN_SAMPLER_H
#define QN_SAMPLER_H

#include <quoin/base.h>

typedef struct qn_sampling {
    double temperature;       // 0: the most likely token, always
    int64_t top_k;            // 0: all
    double top_p;             // 1: all
    double min_p;             // keep p >= min_p * largest p; 0: all
    double repeat_penalty;    // divides positive and multiplies negative logits; 1: none
    double frequency_penalty; // subtracted once per occurrence
    double presence_penalty;  // subtracted once
    int64_t repeat_last_n;    // how many past tokens penalties look at; -1: all
    uint64_t seed;
} qn_sampling;

typedef struct qn_sampler qn_sampler;
qn_result qn_sampler_create(const qn_sampling *s, int64_t vocab, qn_sampler **out);
void qn_sampler_destroy(qn_sampler **s);
// Tells the sampler of a token of the text so far: the prompt's, then each one that was chosen.
qn_result qn_sampler_accept(qn_sampler *s, int32_t token);
// logits [vocab], left as they are. The same seed, tokens and logits give the same choice.
// QN_ERR_INVALID when no logit is a number.
qn_result qn_sampler_pick(qn_sampler *s, const float *logits, int32_t *token);

#endif
