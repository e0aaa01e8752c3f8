// Text for training: files to one corpus, corpus to token windows.
#ifndef QN_DATA_H
#define QN_DATA_H

#include <quoin/model.h>

// Documents behind each other; document d is text[end[d-1] .. end[d]).
typedef struct qn_corpus {
    char *text;
    size_t size, capacity;
    size_t *end;
    size_t documents, document_cap;
} qn_corpus;

// Appends a file, or the regular files below a directory in order of their names (hidden ones and
// those that hold NUL bytes are passed over). QN_ERR_INVALID for a file without text.
qn_result qn_corpus_add(qn_corpus *c, const char *path);
// Real text that the machine has: fortunes, else manual pages, else licences. Read in place.
// *source says in words what was read.
qn_result qn_corpus_add_demo(qn_corpus *c, const char **source);
void qn_corpus_free(qn_corpus *c);
// A number that changes with any byte.
uint64_t qn_corpus_fingerprint(const qn_corpus *c);
// The last `share` of the text becomes *held (no copy), cut where a line begins; a text of one
// document per file is cut likewise. Both parts hold at least one byte, or QN_ERR_INVALID.
typedef struct qn_slice {
    const char *data;
    size_t size;
} qn_slice;
qn_result qn_corpus_split(const qn_corpus *c, double share, qn_slice *train, qn_slice *held);

// The windows of T + 1 tokens that training reads, in an order that depends on the seed alone.
typedef struct qn_windows {
    const int32_t *tokens;
    uint64_t count;     // tokens
    uint64_t positions; // T
    uint64_t seed;
} qn_windows;
// The index-th window of training, counted over all epochs: ids[T] and the labels that follow
// them. Each epoch shifts the windows by its own offset and visits them in its own order.
void qn_windows_get(const qn_windows *w, uint64_t index, int32_t *ids, int32_t *labels);
// How many windows an epoch has; 0: the text is too short for one.
uint64_t qn_windows_per_epoch(const qn_windows *w);

// Bits per byte that a model would need which knows the frequency of each token of the training
// text and nothing else (add-one smoothed), on the held-out text.
double qn_unigram_bits(const int32_t *train, uint64_t train_count, const int32_t *held,
                       uint64_t held_count, uint64_t held_bytes, int64_t vocab);

#endif
