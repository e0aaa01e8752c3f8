// A changed copy of a model folder: every tensor is declared, then made and written one at a time,
// so that memory holds one tensor whatever the model's size. The folder appears when it is complete;
// the source is only read.
#ifndef QN_BRICKS_EDIT_H
#define QN_BRICKS_EDIT_H

#include "model.h"

typedef struct qn_edit qn_edit;
typedef struct qn_edit_tensor qn_edit_tensor;

struct qn_edit_tensor {
    const char *name;
    qn_st_dtype dtype;
    int rank;
    int64_t dim[QN_ST_MAX_RANK];
    const qn_safetensor *source; // of the same name in the model; NULL: a new one
    int64_t layer;               // -1: none
    // Fills out[elements] in f32, which is then rounded to dtype. NULL: the source's bytes.
    qn_result (*make)(void *user, const qn_edit_tensor *t, float *out);
    void *user;
};

// Starts with all tensors of the model, unchanged. QN_ERR_INVALID when `out` is the model's own
// folder or holds something already.
qn_result qn_edit_start(const qn_brick_model *m, const char *out, qn_edit **edit);
void qn_edit_free(qn_edit **e);

// The tensor, to be changed in place; NULL: there is none.
qn_edit_tensor *qn_edit_find(qn_edit *e, const char *name);
qn_result qn_edit_add(qn_edit *e, const char *name, qn_st_dtype dtype, int rank, const int64_t *dim,
                      qn_edit_tensor **out);
void qn_edit_remove(qn_edit *e, const char *name);
// In order of their declaration; NULL beyond the last. Adding tensors moves them.
qn_edit_tensor *qn_edit_at(qn_edit *e, size_t i);

// Zeroed memory that lives as long as the edit; NULL: out of memory.
void *qn_edit_keep(qn_edit *e, size_t size);

// Keys of config.json that get another value, or are new.
qn_result qn_edit_set(qn_edit *e, const char *key, int64_t value);
qn_result qn_edit_set_bool(qn_edit *e, const char *key, bool value);
// A text, or (NULL) null; it must live as long as the edit.
qn_result qn_edit_set_text(qn_edit *e, const char *key, const char *text);
// A list; the words must live as long as the edit.
qn_result qn_edit_set_words(qn_edit *e, const char *key, const char *const *words, int64_t count);

// Writes tensors, config.json and what else belongs to the model (tokenizer files). Shards as the
// writer decides with `shard_limit` bytes; 0: one file.
qn_result qn_edit_write(qn_edit *e, uint64_t shard_limit);

// The dimensions as "[2,3]".
const char *qn_edit_shape(const qn_edit_tensor *t, char *text, size_t size);

#endif
