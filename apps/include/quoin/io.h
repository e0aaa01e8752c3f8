// quoin/io.h: tensors in files, in the safetensors format: single files and sharded models.
#ifndef QUOIN_IO_H
#define QUOIN_IO_H

#include <quoin/base.h>

#ifdef __cplusplus
extern "C" {
#endif

// Element types of files; the engine computes with fewer (quoin/graph.h).
typedef enum qn_st_dtype {
    QN_ST_F64 = 0,
    QN_ST_F32,
    QN_ST_F16,
    QN_ST_BF16,
    QN_ST_I64,
    QN_ST_I32,
    QN_ST_I16,
    QN_ST_I8,
    QN_ST_U8,
    QN_ST_BOOL,
    QN_ST_U16,
    QN_ST_U32,
} qn_st_dtype;

QN_API const char *qn_st_dtype_name(qn_st_dtype d); // "BF16", as in files
QN_API uint32_t qn_st_dtype_size(qn_st_dtype d);    // bytes of an element
QN_API bool qn_st_dtype_is_float(qn_st_dtype d);

#define QN_ST_MAX_RANK 8

// A tensor in a file. Row-major; dim[0] is outermost; rank 0 is a scalar.
typedef struct qn_safetensor {
    const char *name;
    qn_st_dtype dtype;
    int rank;
    int64_t dim[QN_ST_MAX_RANK];
    uint64_t count;   // elements
    uint64_t size;    // bytes
    const void *data; // mapped, little-endian, possibly unaligned; NULL in a writer
} qn_safetensor;

// Files opened for reading. Immutable, hence thread-safe. The data stays on the disk until it is
// touched; the file must not be shortened meanwhile.
typedef struct qn_safetensors qn_safetensors;

// `path` is a .safetensors file, the .index.json of a sharded model, or a directory that holds
// model.safetensors or its index. Nothing that the file says is used before it is checked.
QN_API qn_result qn_safetensors_open(const char *path, qn_safetensors **out);
QN_API void qn_safetensors_close(qn_safetensors **s);

// Tensors in the byte order of their names; NULL beyond the last.
QN_API size_t qn_safetensors_count(const qn_safetensors *s);
QN_API const qn_safetensor *qn_safetensors_at(const qn_safetensors *s, size_t i);
QN_API const qn_safetensor *qn_safetensors_find(const qn_safetensors *s, const char *name);

// Strings of "__metadata__" (a sharded model's: those of its first shard).
typedef struct qn_st_meta {
    const char *key, *value;
} qn_st_meta;
QN_API const qn_st_meta *qn_safetensors_meta(const qn_safetensors *s, size_t *count);

// Elements first .. first + count, converted. Floating-point types to f32 (F64 is rounded) or to
// f64; integers and BOOL (0 or 1) to int64. QN_ERR_INVALID for the other kind.
QN_API qn_result qn_safetensor_f32(const qn_safetensor *t, uint64_t first, uint64_t count,
                                   float *out);
QN_API qn_result qn_safetensor_f64(const qn_safetensor *t, uint64_t first, uint64_t count,
                                   double *out);
QN_API qn_result qn_safetensor_i64(const qn_safetensor *t, uint64_t first, uint64_t count,
                                   int64_t *out);

// Writing: declare every tensor, then send the data of each in the order that the writer asks
// for. The order (wide elements first, then by name) and so the file depend on the declarations
// alone, and every tensor is aligned to its element.
//
//     while ((r = qn_safetensors_next(w, &t)) == QN_OK && t)
//         ... qn_safetensors_write(w, part, size) until t->size bytes are written
//     r = qn_safetensors_commit(&w);
typedef struct qn_safetensors_opts {
    const qn_st_meta *meta; // for "__metadata__"
    size_t meta_count;
    uint64_t shard_limit; // bytes of tensors in one file; 0: one file
    // Each shard takes its room on the disk before its first byte and becomes visible as soon as
    // it is complete; one that is there already with the very same header is kept, and its
    // tensors do not come up. For work that is to be taken up again after an interruption.
    bool by_shard;
} qn_safetensors_opts;

typedef struct qn_safetensors_writer qn_safetensors_writer;

// `path` names the single file, "dir/model.safetensors". When the tensors need more than one
// shard the files are dir/model-00001-of-00003.safetensors ... and path.index.json.
QN_API qn_result qn_safetensors_create(const char *path, const qn_safetensors_opts *opts,
                                       qn_safetensors_writer **out);
QN_API qn_result qn_safetensors_add(qn_safetensors_writer *w, const char *name, qn_st_dtype dtype,
                                    int rank, const int64_t *dim);
// The tensor whose data is due, NULL after the last. The first call ends the declarations.
QN_API qn_result qn_safetensors_next(qn_safetensors_writer *w, const qn_safetensor **tensor);
QN_API qn_result qn_safetensors_write(qn_safetensors_writer *w, const void *data, uint64_t size);
// The name of the tensor that next() will give as number i (from 0) from here on, known in advance;
// NULL beyond the last. Ends the declarations.
QN_API const char *qn_safetensors_due(qn_safetensors_writer *w, size_t i);
// Bytes of tensors declared, and of those in shards that are kept (after the first next()).
QN_API uint64_t qn_safetensors_total(const qn_safetensors_writer *w, uint64_t *kept);

// Makes the files visible: each atomically, the index last; then removes `path` or its index,
// whichever the new form replaces. An incomplete writer is refused and leaves nothing. Frees the
// writer in every case.
QN_API qn_result qn_safetensors_commit(qn_safetensors_writer **w);
QN_API void qn_safetensors_abandon(qn_safetensors_writer **w);

#ifdef __cplusplus
}
#endif
#endif
