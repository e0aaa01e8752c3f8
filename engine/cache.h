// The pipeline cache's file.
#ifndef QN_CACHE_H
#define QN_CACHE_H

#include "vk.h"

typedef struct qn_cache {
    VkPipelineCache handle;
    char *path;        // NULL: nothing is kept
    uint64_t checksum; // of the data that was read
} qn_cache;

// `dir` as in qn_device_opts. A file that is missing, damaged or another device's means an empty
// cache, never an error.
qn_result qn_cache_open(qn_device *dev, const char *dir, qn_cache *cache);
// Writes the file when `changed` and there is something new; a failure is only logged.
void qn_cache_close(qn_device *dev, qn_cache *cache, bool changed);

#endif
