// Timestamps of one stream: of its submissions, and of its spans when profiling.
#ifndef QN_TIMING_H
#define QN_TIMING_H

#include "vk.h"

// A stretch of one submission between two timestamps. A span that was cut has several.
typedef struct qn_interval {
    uint32_t span, begin, end; // `begin` and `end` are query numbers
} qn_interval;

#define QN_NO_QUERY UINT32_MAX

typedef struct qn_timer {
    qn_device *dev; // NULL: the device has no timestamps
    VkQueryPool *pools;
    size_t pool_count, pool_capacity;
    uint32_t queries;
    qn_interval *intervals;
    size_t interval_count, interval_capacity;
    const char **labels; // of the spans
    size_t span_count, span_capacity;
    bool open;        // the last span is running
    uint64_t *ticks;  // one per query, read by qn_timer_read()
} qn_timer;

void qn_timer_free(qn_timer *t);
// Writes a timestamp behind everything recorded so far; QN_NO_QUERY without timestamps.
qn_result qn_timer_stamp(qn_timer *t, VkCommandBuffer cmd, uint32_t *query);
// Starts a span, which ends the one before.
qn_result qn_timer_begin(qn_timer *t, VkCommandBuffer cmd, const char *label);
// The end of a submission, and the beginning of the next: the open span pauses and goes on.
qn_result qn_timer_pause(qn_timer *t, VkCommandBuffer cmd);
qn_result qn_timer_resume(qn_timer *t, VkCommandBuffer cmd);
// Fetches the timestamps of finished work.
qn_result qn_timer_read(qn_timer *t);
// Seconds between two queries that were read.
double qn_timer_seconds(const qn_timer *t, uint32_t begin, uint32_t end);

#endif
