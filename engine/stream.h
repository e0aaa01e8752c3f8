// A recording of GPU work.
#ifndef QN_STREAM_H
#define QN_STREAM_H

#include "bind.h"
#include "hazard.h"
#include "timing.h"

// One command buffer, submitted on its own.
typedef struct qn_work {
    VkCommandBuffer cmd;
    uint32_t begin, end; // timestamps
    uint64_t value;      // of the device's timeline when its last submit is done
} qn_work;

struct qn_stream {
    qn_device *dev;
    bool profile;
    VkCommandPool pool;
    qn_work *works;
    size_t work_count, work_capacity;
    bool recording;     // the last of `works` is open
    bool ended;         // by the first submit
    const char *label;  // of the open span
    VkPipeline bound;   // in the open command buffer
    qn_hazards hazards;
    qn_trace trace;     // kept in validating contexts only
    qn_binder binder;
    qn_timer timer;
    qn_stream_stats stats;
    uint64_t last;      // timeline value of the last submit; 0: none
    double submitted;   // when that was
    bool measured;      // its times are in stats.longest
    qn_result failed;   // the first failure while recording ...
    char message[512];  // ... and its message
};

#endif
