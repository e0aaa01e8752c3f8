// Device memory: few large blocks, pieces of them, one budget.
#ifndef QN_MEMORY_H
#define QN_MEMORY_H

#include "vk.h"

// A piece of a block. Lives inside the buffer that holds it; `name` is the buffer's.
typedef struct qn_slice {
    struct qn_block *block; // NULL: nothing held
    uint64_t offset, size;
    VkDeviceMemory memory;
    void *map;   // NULL: the host cannot see this memory
    bool cached; // reading it on the host is fast
    const char *name;
    struct qn_slice *next, *previous; // all of the device
} qn_slice;

// `limit`: bytes we may take, 0: as much as is free.
qn_result qn_heap_create(qn_device *dev, uint64_t limit);
void qn_heap_destroy(qn_device *dev);

// QN_ERR_NO_DEVICE_MEMORY names the request, the limit and the largest holders.
qn_result qn_slice_take(qn_device *dev, qn_memory kind, const VkMemoryRequirements *need,
                        const char *name, qn_slice *out);
void qn_slice_return(qn_device *dev, qn_slice *s);

#define QN_BYTES_TEXT 32
// "1.5 GiB" into text, which it returns.
char *qn_bytes_format(uint64_t bytes, char text[QN_BYTES_TEXT]);

#endif
