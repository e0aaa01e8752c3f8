// Descriptor sets and texel views of one stream.
#ifndef QN_BIND_H
#define QN_BIND_H

#include "buffer.h"
#include "kernel.h"

typedef struct qn_view {
    uint64_t buffer, offset, size;
    VkFormat format;
    VkBufferView handle; // NULL: an empty place of the table
} qn_view;

typedef struct qn_binder {
    qn_device *dev;
    VkDescriptorPool *pools; // the last one is being filled
    size_t pool_count, pool_capacity;
    qn_view *views; // a hash table whose size is a power of two
    size_t view_count, view_capacity;
    qn_buffer *dummy[2]; // stand in for buffers that are not given: read only; written
} qn_binder;

void qn_binder_free(qn_binder *b);

// Checks a dispatch against the table and the device. sizes[i] becomes the bytes bound for
// binding i, 0 for a dummy.
qn_result qn_dispatch_check(const qn_device *dev, const qn_dispatch *d,
                            uint64_t sizes[QN_MAX_BINDINGS]);
// A descriptor set with the buffers of a checked dispatch, valid as long as the binder.
qn_result qn_bind(qn_binder *b, const qn_dispatch *d, const qn_pipeline *p,
                  const uint64_t sizes[QN_MAX_BINDINGS], VkDescriptorSet *out);

#endif
