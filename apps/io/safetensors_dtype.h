// Names of element types, for the reader and the writer.
#ifndef QN_SAFETENSORS_DTYPE_H
#define QN_SAFETENSORS_DTYPE_H

#include <quoin/io.h>

#define QN_ST_DTYPES "F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL"
#define QN_ST_DTYPE_COUNT (QN_ST_BOOL + 1)

bool qn_st_dtype_parse(const char *name, qn_st_dtype *out);

#endif
