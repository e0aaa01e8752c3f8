// One tensor of a merge from its sources to its result: shapes that differ, types, loading into the
// blend's slots, the method. What comes before (recipes, plans) and after (files): merge.h.
#ifndef QN_BRICKS_TENSOR_H
#define QN_BRICKS_TENSOR_H

#include "method.h"

#include <quoin/io.h>

#define QN_MERGE_AS_STORED ((qn_st_dtype)-1) // no type asked for

// "bfloat16", "float16", "float32", also with "torch." in front; NULL: as stored.
qn_result qn_merge_dtype(const char *name, qn_st_dtype *out);
const char *qn_merge_dtype_name(qn_st_dtype d); // "bfloat16"

// Where one model's values come from: a tensor of a file as it is, or rows made by a function
// (a vocabulary rearranged, an adapter applied).
typedef struct qn_tensor_source {
    const qn_safetensor *tensor;
    // Fills rows first .. first + count of [rows, columns] with f32. NULL: the tensor itself.
    qn_result (*rows)(void *user, uint64_t first, uint64_t count, float *out);
    void *user;
    int64_t row_count; // with `rows`, of a 2-D tensor: rows it yields
} qn_tensor_source;

typedef struct qn_merge_tensor {
    const char *name;
    const qn_method *method;
    qn_merge_input *models;    // .input is filled in by preparing
    qn_tensor_source *sources; // one per model
    size_t count;
    int base; // -1: none
    qn_merge_params params;
    uint64_t seed;
    bool embedding; // rows or columns may be missing
    const uint8_t *const *masks;
    qn_st_dtype dtype, out_dtype; // as asked for

    // By preparing:
    bool copied; // no arithmetic: not a floating-point type, or nothing to do
    int rank;
    int64_t dim[QN_ST_MAX_RANK];
    uint64_t out_count;
    qn_st_dtype stored; // type of the result
    qn_storage storage; // of the slots
} qn_merge_tensor;

// Settles which models take part (those of other shapes may have to go), the shape and the types.
// Reads no data. May shorten models, sources and masks.
qn_result qn_merge_prepare(qn_merge_tensor *t);
// Whether the tensor may be worked on in pieces; elements [first, first + count) of it as a tensor of
// its own. `sources` and `views` are the piece's, one for each source.
bool qn_merge_divisible(const qn_merge_tensor *t);
void qn_merge_piece(const qn_merge_tensor *t, uint64_t first, uint64_t count,
                    qn_tensor_source *sources, qn_safetensor *views, qn_merge_tensor *out);
uint64_t qn_merge_slot_bytes(const qn_merge_tensor *t);
uint64_t qn_merge_out_bytes(const qn_merge_tensor *t);
// Room in a set; filling its slots, which another thread may do while the other set is in use; both
// at once.
qn_result qn_merge_reserve_inputs(qn_blend *b, int set, const qn_merge_tensor *t);
qn_result qn_merge_reserve_output(qn_blend *b, int set, const qn_merge_tensor *t);
qn_result qn_merge_fill(qn_blend *b, int set, const qn_merge_tensor *t);
qn_result qn_merge_load(qn_blend *b, int set, const qn_merge_tensor *t);
// Runs the method: the result is then at qn_blend_result().
qn_result qn_merge_compute(qn_blend *b, int set, const qn_merge_tensor *t);

#endif
