// The embedded SPIR-V, one entry per row, form and storage of the kernel table.
#ifndef QN_SPIRV_H
#define QN_SPIRV_H

#include <quoin/engine.h>

typedef struct qn_spirv {
    const char *id; // NULL ends the table
    char form;      // 'P' or 'F'
    qn_storage storage;
    const uint32_t *words;
    size_t size; // bytes
} qn_spirv;
extern const qn_spirv qn_kernel_spirv[];

#endif
