// Timestamps to seconds.
#include "timing.h"

#include <string.h>

#define POOL_QUERIES 256

void qn_timer_free(qn_timer *t)
{
    for (size_t i = 0; i < t->pool_count; i++)
        t->dev->vk.vkDestroyQueryPool(t->dev->handle, t->pools[i], NULL);
    qn_free(t->pools);
    qn_free(t->intervals);
    qn_free(t->labels);
    qn_free(t->ticks);
    *t = (qn_timer){ 0 };
}

// The reset is part of the recording, so every submit starts with fresh queries.
static qn_result add_pool(qn_timer *t, VkCommandBuffer cmd)
{
    qn_device *dev = t->dev;
    void *pools = t->pools;
    qn_result r = qn_grow(&pools, &t->pool_capacity, t->pool_count + 1, sizeof *t->pools);
    t->pools = pools;
    QN_TRY(r);
    size_t count = (t->pool_count + 1) * POOL_QUERIES;
    uint64_t *ticks = qn_realloc(t->ticks, count * sizeof *ticks);
    if (!ticks) return qn_no_memory(count * sizeof *ticks);
    t->ticks = ticks;
    memset(ticks + t->queries, 0, (count - t->queries) * sizeof *ticks);
    VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = POOL_QUERIES,
    };
    VkQueryPool *pool = &t->pools[t->pool_count];
    QN_VK(dev, dev->vk.vkCreateQueryPool(dev->handle, &info, NULL, pool), "creating timestamps");
    t->pool_count++;
    dev->vk.vkCmdResetQueryPool(cmd, *pool, 0, POOL_QUERIES);
    return QN_OK;
}

qn_result qn_timer_stamp(qn_timer *t, VkCommandBuffer cmd, uint32_t *query)
{
    *query = QN_NO_QUERY;
    if (!t->dev) return QN_OK;
    if (t->queries == t->pool_count * POOL_QUERIES) QN_TRY(add_pool(t, cmd));
    t->dev->vk.vkCmdWriteTimestamp(cmd, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT,
                                   t->pools[t->queries / POOL_QUERIES], t->queries % POOL_QUERIES);
    *query = t->queries++;
    return QN_OK;
}

static qn_result open_interval(qn_timer *t, uint32_t begin)
{
    void *list = t->intervals;
    qn_result r =
        qn_grow(&list, &t->interval_capacity, t->interval_count + 1, sizeof *t->intervals);
    t->intervals = list;
    QN_TRY(r);
    t->intervals[t->interval_count++] =
        (qn_interval){ .span = (uint32_t)t->span_count - 1, .begin = begin, .end = QN_NO_QUERY };
    return QN_OK;
}

static void close_interval(qn_timer *t, uint32_t end)
{
    if (t->open) t->intervals[t->interval_count - 1].end = end;
}

qn_result qn_timer_begin(qn_timer *t, VkCommandBuffer cmd, const char *label)
{
    uint32_t now;
    QN_TRY(qn_timer_stamp(t, cmd, &now));
    close_interval(t, now);
    t->open = false;
    void *labels = t->labels;
    qn_result r = qn_grow(&labels, &t->span_capacity, t->span_count + 1, sizeof *t->labels);
    t->labels = labels;
    QN_TRY(r);
    t->labels[t->span_count++] = label;
    QN_TRY(open_interval(t, now));
    t->open = true;
    return QN_OK;
}

qn_result qn_timer_pause(qn_timer *t, VkCommandBuffer cmd)
{
    if (!t->open) return QN_OK;
    uint32_t now;
    QN_TRY(qn_timer_stamp(t, cmd, &now));
    close_interval(t, now);
    return QN_OK;
}

qn_result qn_timer_resume(qn_timer *t, VkCommandBuffer cmd)
{
    if (!t->open) return QN_OK;
    uint32_t now;
    QN_TRY(qn_timer_stamp(t, cmd, &now));
    return open_interval(t, now);
}

qn_result qn_timer_read(qn_timer *t)
{
    qn_device *dev = t->dev;
    for (size_t i = 0; i < t->pool_count; i++) {
        uint32_t first = (uint32_t)i * POOL_QUERIES;
        uint32_t count = t->queries - first < POOL_QUERIES ? t->queries - first : POOL_QUERIES;
        QN_VK(dev,
              dev->vk.vkGetQueryPoolResults(dev->handle, t->pools[i], 0, count,
                                            count * sizeof *t->ticks, t->ticks + first,
                                            sizeof *t->ticks, VK_QUERY_RESULT_64_BIT),
              "reading timestamps");
    }
    return QN_OK;
}

double qn_timer_seconds(const qn_timer *t, uint32_t begin, uint32_t end)
{
    if (begin >= t->queries || end >= t->queries) return 0;
    const qn_limits *l = &t->dev->limits;
    uint64_t valid = l->timestamp_bits < 64 ? (UINT64_C(1) << l->timestamp_bits) - 1 : UINT64_MAX;
    return (double)((t->ticks[end] - t->ticks[begin]) & valid) * l->timestamp_seconds;
}
