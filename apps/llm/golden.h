// Replaying golden cases: folders of tensors that an independent implementation has computed.
#ifndef QN_GOLDEN_H
#define QN_GOLDEN_H

#include <quoin/graph.h>
#include <quoin/io.h>
#include <quoin/model.h>
#include <quoin/ops.h>

// What became of one case.
typedef struct qn_golden_line {
    const char *name; // the folder, or folder:case
    bool passed;
    double error;     // worst error, in units of its tolerance ...
    double relative;  // ... and as measured
    char tensor[160]; // where it was met; "" for cases without tensors
    char detail[512]; // why it failed, or what was compared
} qn_golden_line;

typedef struct qn_golden_report {
    void (*line)(void *user, const qn_golden_line *line);
    void *user;
    int passed, failed;
} qn_golden_report;

// Walks `dir` and everything below it, in order of the names, and replays every case whose form is
// known: models, training traces, stick-breaking attention, expert mixtures, tokenizers. dev may be
// NULL: cases that need one then fail. A case that cannot be run counts as failed; QN_OK unless
// the folder cannot be read or holds no case at all.
qn_result qn_golden_replay(qn_device *dev, const char *dir, qn_golden_report *report);

// --- for the files that define cases (golden_*.c) ---

typedef struct qn_golden_case {
    qn_device *dev;
    const char *dir;
    qn_safetensors *io;
    qn_golden_line line;
} qn_golden_case;

// Compares `got` with the tensor of io, when it is there: max|a-b| / max(max|b|, floor) against
// `tolerance`. Keeps the worst.
qn_result qn_golden_compare(qn_golden_case *c, const char *tensor, const float *got, uint64_t count,
                            double floor, double tolerance);
// The same for integers, which must be equal.
qn_result qn_golden_compare_int(qn_golden_case *c, const char *tensor, const int32_t *got,
                                uint64_t count);
// An absolute difference against a bound.
void qn_golden_bound(qn_golden_case *c, const char *what, double difference, double tolerance);

// The tensor of io as f32 or i32 in a fresh array (qn_free), checked to have `count` elements
// (0: any; *found receives it).
qn_result qn_golden_f32(const qn_golden_case *c, const char *tensor, uint64_t count, float **out,
                        uint64_t *found);
qn_result qn_golden_i32(const qn_golden_case *c, const char *tensor, uint64_t count, int32_t **out,
                        uint64_t *found);

// Builds nothing: plans `g` for the outputs, sets the inputs, runs once, reads each output (all
// 4-byte types) into fresh arrays.
typedef struct qn_feed {
    const qn_tensor *input;
    const void *data;
} qn_feed;
qn_result qn_run_once(qn_graph *g, const qn_feed *feeds, size_t feed_count,
                      const qn_tensor *const *outputs, size_t output_count, void **out);
void qn_free_all(void **items, size_t count);

qn_result qn_golden_model(qn_golden_case *c);
// The decode trace through the runner: greedy texts of one slot, and of four of unequal lengths.
qn_result qn_golden_runner(qn_golden_case *c, const qn_model_config *config,
                           qn_store *weights, const int32_t *prompt, const int32_t *keep, int64_t B,
                           int64_t count, int64_t steps);
qn_result qn_golden_trace(qn_golden_case *c);
// Folders of one case of a memory: case.json says what it is, io is case.safetensors.
qn_result qn_golden_memory(qn_golden_case *c);
qn_result qn_golden_attention(qn_golden_case *c);
qn_result qn_golden_experts(qn_golden_case *c);
// The weights of stick-breaking attention themselves, which the operation never forms: columns of
// an identity go through it as values. out [rows of q, heads, keys].
qn_result qn_attention_weights(qn_device *dev, const float *q, const float *k,
                               const qn_stickbreaking_opts *opts, int64_t rows, int64_t keys,
                               int64_t width, const int32_t *keep, float *out);

#endif
