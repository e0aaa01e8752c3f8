// What texts remember: stores, rows of them, files.
#ifndef QN_MEMORY_STATE_H
#define QN_MEMORY_STATE_H

#include "memory_layer.h"

// Row b of the state is row memory_rows[b] of the store.
void qn_memory_read(qn_graph *g, const qn_lm_opts *o, const qn_memory_shape *s, int layer,
                    qn_memory_state *out);
void qn_memory_write(qn_graph *g, const qn_lm_opts *o, int layer, const qn_memory_state *s);

// What several texts of one model remember, a row each, and what each of them began with.
typedef struct qn_memory_bank qn_memory_bank;

// *out stays NULL, which the other functions take, for a model without memories.
qn_result qn_memory_bank_create(qn_device *dev, const qn_model_config *c, const qn_store *weights,
                                int64_t rows, qn_memory_bank **out);
void qn_memory_bank_destroy(qn_memory_bank **b);
// Declared by qn_lm_declare_memory(); NULL without memories.
qn_store *qn_memory_bank_store(const qn_memory_bank *b);
// Back to what the row began with: nothing, or the file that was loaded last.
qn_result qn_memory_bank_reset(qn_memory_bank *b, int64_t row);
// A file holds one row: its tensors, the model's fingerprint, and how many tokens were read,
// `tokens` of them since the row's beginning. long_term: the consolidated matrices alone.
qn_result qn_memory_bank_save(qn_memory_bank *b, int64_t row, uint64_t tokens, const char *path,
                              bool long_term);
// Begins the row with a file. Refused, the row staying as it is, when the file is of another model,
// damaged, or holds numbers that are not finite. Tensors that it has not start with zeros.
qn_result qn_memory_bank_load(qn_memory_bank *b, int64_t row, const char *path);

#endif
