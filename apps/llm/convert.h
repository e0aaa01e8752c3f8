// Models from one file format and number format to another.
#ifndef QN_CONVERT_H
#define QN_CONVERT_H

#include <quoin/model.h>

typedef struct qn_convert_opts {
    qn_dtype weights;          // of matrices; QN_AS_STORED: as they are. See qn_weight_kept()
    qn_load_progress progress; // bytes written
} qn_convert_opts;

// `from` is a folder or a GGUF file, `to` another one: a GGUF file where its name ends in ".gguf",
// else a folder, made where it is missing, whose model.safetensors is cut into shards of 5 GB.
// Constant buffers of published files are left out. Quantised weights need a GGUF file. Everything
// is written beside and renamed; what was there is replaced.
qn_result qn_convert(const char *from, const char *to, const qn_convert_opts *opts);

#endif
