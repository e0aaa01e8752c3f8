// The kernel table's rows, and the pipelines made from them on demand.
#ifndef QN_KERNEL_H
#define QN_KERNEL_H

#include "vk.h"

typedef struct qn_row {
    const char *id, *file;
    const char *bindings; // one letter each, see kernels.def
    uint32_t binding_count, constants;
    uint32_t forms;
} qn_row;

enum { // bits of qn_row.forms
    QN_FORM_PORTABLE = 1,
    QN_FORM_FLAT = 2,
    QN_FORM_STORAGES = 4,
    QN_FORM_WIDE = 8,
    QN_FORM_MATRIX = 16,
    QN_FORM_BLOCKS = 32,
};

const qn_row *qn_row_of(qn_kernel k);

// What a dispatch binds.
typedef struct qn_pipeline {
    VkPipeline handle;
    VkPipelineLayout layout;
    VkDescriptorSetLayout set;
    bool flat;
    uint32_t group; // invocations of a workgroup
} qn_pipeline;

qn_result qn_kernels_create(qn_device *dev, const char *cache_dir);
void qn_kernels_destroy(qn_device *dev);
void qn_kernels_count(const qn_device *dev, uint32_t *created, uint32_t *cached);

// The pipeline of a dispatch whose kernel is in the table; made at first use. Checks form,
// storage, constants and workgroup size.
qn_result qn_kernel_get(qn_device *dev, const qn_dispatch *d, qn_pipeline *out);

// Whether binding i of the row is a texel buffer in this form.
static inline bool qn_binding_is_texel(const qn_row *row, bool flat, uint32_t i)
{
    char letter = row->bindings[i];
    return flat && (letter == 't' || letter == 'x' || letter == 's');
}

static inline bool qn_binding_writes(const qn_row *row, uint32_t i)
{
    return row->bindings[i] == 'w' || row->bindings[i] == 'b';
}

// reload.c: compiles a row from the context's shader directory. The words are the caller's to
// free with qn_free().
qn_result qn_reload_compile(const qn_context *ctx, const qn_row *row, bool flat,
                            qn_storage storage, uint32_t **words, size_t *size);

// Changes when the row's source or an included file may have: compare for equality.
uint64_t qn_reload_version(qn_context *ctx, const qn_row *row);

#endif
