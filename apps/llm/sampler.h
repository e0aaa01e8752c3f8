// How the next token is chosen from logits: penalties, then top-k, top-p, min-p, temperature, draw,
// the order that llama.cpp's users expect. qn_sample() of quoin/ops.h does it.
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

#endif
