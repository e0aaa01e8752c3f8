// The weights of a model in its files, whatever their form (private to apps/llm).
#ifndef QN_WEIGHTS_H
#define QN_WEIGHTS_H

#include "io/gguf.h"
#include "parameters.h"

#include <quoin/io.h>

// One form or the other.
typedef struct qn_weights {
    qn_safetensors *st;
    qn_gguf *gguf;
} qn_weights;

// A tensor as it is stored.
typedef struct qn_weight {
    qn_dtype dtype; // of `data`; QN_DTYPE_COUNT: another type, which qn_weight_f32() converts
    uint64_t count, size; // values, bytes
    const void *data;
    const qn_safetensor *st; // NULL in a GGUF file
} qn_weight;

// `path`: a folder, or a file that ends in ".gguf".
bool qn_is_gguf(const char *path);
qn_result qn_weights_open(const char *path, qn_weights *out);
void qn_weights_close(qn_weights *w);
// The name that a parameter has in GGUF files, of at most 64 bytes.
#define QN_GGUF_NAME 96
char *qn_gguf_name_of(const char *parameter, char out[QN_GGUF_NAME]);

// A parameter's tensor; refuses what is missing, of another shape or no number.
qn_result qn_weights_find(const qn_weights *w, const qn_param_info *p, qn_weight *out);
// Refuses tensors that are no parameters of the model; constant buffers of published files pass.
qn_result qn_weights_check(const qn_weights *w, const qn_model_config *c);
// Values first .. first + count (whole blocks) as f32.
qn_result qn_weight_f32(const qn_weight *w, uint64_t first, uint64_t count, float *out);

// Rounds f32 values in place of themselves to a 16-bit type.
void qn_narrow(float *x, size_t n, qn_dtype dtype);

// How a parameter is kept when matrices are wanted as `wanted`, QN_AS_STORED: as they are.
// Vectors stay f32, and so do matrices whose rows are no whole blocks; a router is rounded only to
// the type that it is stored in.
qn_dtype qn_weight_kept(const qn_param_info *p, const qn_weight *w, qn_dtype wanted);

// Description, tokenizer and files of a model; no weights yet (generate.c).
struct qn_folder;
qn_result qn_folder_parts(const char *path, qn_weights *w, struct qn_folder *out);

// Fills the (declared and allocated) store.
qn_result qn_weights_load(const qn_weights *w, const qn_model_config *c, qn_store *store,
                          const qn_load_progress *progress);

#endif
