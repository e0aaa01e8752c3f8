// Shared by reader, writer and tests.
#ifndef QN_SAFETENSORS_IMPL_H
#define QN_SAFETENSORS_IMPL_H

#include <quoin/io.h>

#define QN_ST_DTYPES "F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL U16 U32"
#define QN_ST_DTYPE_COUNT (QN_ST_U32 + 1)

bool qn_st_dtype_parse(const char *name, qn_st_dtype *out);

// Reads a single file's content from memory, which has to outlive *out.
qn_result qn_safetensors_parse(const char *name, const void *data, size_t size,
                               qn_safetensors **out);

#endif
