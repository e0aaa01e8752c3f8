// `quoin bench model`: a language model trained, read to and written by, as its users do it.
#ifndef QN_BENCH_MODEL_H
#define QN_BENCH_MODEL_H

#include "bench/measure.h"

#include <quoin/model.h>

typedef struct qn_bench_lm_opts {
    const char *name; // of the model in records
    const qn_model_config *config;
    qn_dtype weights;             // storage of matrices
    const int64_t *prompts;       // lengths of prompts to read
    size_t prompt_count;
    const int64_t *batches;       // texts written at once
    size_t batch_count;
    int64_t written;              // tokens behind the prompt, per text
    qn_measure_opts measure;
    const qn_peaks *peaks;
    bool (*go_on)(void); // asked between measurements; NULL: always
} qn_bench_lm_opts;

// Reading prompts (the time is that to the first token) and writing behind the longest of them,
// through the same runner that `generate` and `serve` use. `store` holds the loaded weights.
qn_result qn_bench_decoding(qn_device *dev, qn_store *store, const qn_bench_lm_opts *opts,
                            qn_bench_log *log);

// Steps of training on random tokens: batch windows of `positions` tokens.
qn_result qn_bench_training(qn_device *dev, const qn_bench_lm_opts *opts, int64_t batch,
                            int64_t positions, qn_bench_log *log);

#endif
