// GGUF files, versions 2 and 3: metadata and tensors in one file. [gguf]
#ifndef QN_GGUF_H
#define QN_GGUF_H

#include <quoin/base.h>

// Types of metadata values, as files number them.
typedef enum qn_gguf_kind {
    QN_GGUF_U8 = 0,
    QN_GGUF_I8,
    QN_GGUF_U16,
    QN_GGUF_I16,
    QN_GGUF_U32,
    QN_GGUF_I32,
    QN_GGUF_F32,
    QN_GGUF_BOOL,
    QN_GGUF_STRING,
    QN_GGUF_ARRAY,
    QN_GGUF_U64,
    QN_GGUF_I64,
    QN_GGUF_F64,
} qn_gguf_kind;

// Types of tensors that are read; files number more.
typedef enum qn_gguf_type {
    QN_GGUF_TENSOR_F32 = 0,
    QN_GGUF_TENSOR_F16 = 1,
    QN_GGUF_TENSOR_Q4_0 = 2,
    QN_GGUF_TENSOR_Q8_0 = 8,
    QN_GGUF_TENSOR_BF16 = 30,
} qn_gguf_type;
const char *qn_gguf_type_name(uint32_t type); // "Q4_0"; of unknown ones "type 99"'s words: NULL
// Bytes of `count` values, a multiple of the type's block (32, or 1 where there are none).
uint32_t qn_gguf_block(uint32_t type); // values of a block; 0: a type that is not read
uint64_t qn_gguf_bytes(uint32_t type, uint64_t count);

#define QN_GGUF_RANK 4
typedef struct qn_gguf_tensor {
    const char *name;
    uint32_t type; // a qn_gguf_type
    int rank;
    int64_t dim[QN_GGUF_RANK]; // outermost first, unlike in the file
    uint64_t count, size;      // values, bytes
    const void *data;          // mapped, little-endian, possibly unaligned
} qn_gguf_tensor;

// A text of the file; not terminated.
typedef struct qn_gguf_text {
    const char *data;
    size_t size;
} qn_gguf_text;

// Open for reading; immutable. Nothing that the file says is used before it is checked.
typedef struct qn_gguf qn_gguf;
qn_result qn_gguf_open(const char *path, qn_gguf **out);
// The same of bytes in memory, which must outlive it; `name` is for messages.
qn_result qn_gguf_parse(const char *name, const void *data, uint64_t size, qn_gguf **out);
void qn_gguf_close(qn_gguf **g);

size_t qn_gguf_count(const qn_gguf *g); // tensors, in the order of the file
const qn_gguf_tensor *qn_gguf_at(const qn_gguf *g, size_t i);
const qn_gguf_tensor *qn_gguf_find(const qn_gguf *g, const char *name); // NULL: none
// Metadata. False when the key is missing or of another kind.
bool qn_gguf_text_of(const qn_gguf *g, const char *key, qn_gguf_text *out);
bool qn_gguf_integer_of(const qn_gguf *g, const char *key, int64_t *out); // of any integer kind

// Writing: metadata and tensors are declared, then every tensor's data is sent in the order of the
// declarations. The file appears whole with qn_gguf_commit().
typedef struct qn_gguf_writer qn_gguf_writer;
qn_result qn_gguf_create(const char *path, qn_gguf_writer **out);
qn_result qn_gguf_put_text(qn_gguf_writer *w, const char *key, const char *text);
qn_result qn_gguf_put_u32(qn_gguf_writer *w, const char *key, uint32_t value);
qn_result qn_gguf_put_f32(qn_gguf_writer *w, const char *key, float value);
qn_result qn_gguf_put_bool(qn_gguf_writer *w, const char *key, bool value);
// dim outermost first.
qn_result qn_gguf_add(qn_gguf_writer *w, const char *name, uint32_t type, int rank,
                      const int64_t *dim);
qn_result qn_gguf_write(qn_gguf_writer *w, const void *data, uint64_t size);
// Frees the writer in every case; a tensor without all its data is refused.
qn_result qn_gguf_commit(qn_gguf_writer **w);
void qn_gguf_abandon(qn_gguf_writer **w); // NULL inside is fine

#endif
