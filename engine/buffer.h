// Buffers, and the blocking transfers that reach those the host cannot map.
#ifndef QN_BUFFER_H
#define QN_BUFFER_H

#include "memory.h"

struct qn_buffer {
    qn_device *dev;
    VkBuffer handle;
    qn_slice slice;
    uint64_t id;   // never given twice in a process
    uint64_t size; // a multiple of QN_RANGE_ALIGN
    qn_memory memory;
    void *map; // what qn_buffer_map() tells; NULL for device memory without unified memory
    char *name;
};

qn_result qn_transfer_create(qn_device *dev);
void qn_transfer_destroy(qn_device *dev);

// The bytes of a range, size 0 standing for the rest. QN_ERR_INVALID where it leaves its buffer.
qn_result qn_range_resolve(const qn_range *r, uint64_t *size);

// Orders all earlier kernels and copies before all later ones.
void qn_vk_barrier(const qn_device *dev, VkCommandBuffer cmd);
// Makes the device's writes visible to the host.
void qn_vk_barrier_to_host(const qn_device *dev, VkCommandBuffer cmd);

#endif
