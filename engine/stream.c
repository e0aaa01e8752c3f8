// Streams: dispatches, copies and fills recorded with the barriers they need, submitted as often
// as wanted, waited for.
#include "stream.h"
#include "program.h"

#include <stdio.h>
#include <string.h>

// ---------------------------------------------------------------------------------- lifetime

static qn_result stream_open(qn_stream *s)
{
    qn_device *dev = s->dev;
    s->binder.dev = dev;
    s->timer.dev = dev->info.caps & QN_CAP_TIMESTAMPS ? dev : NULL;
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = dev->limits.family,
    };
    return qn_vk_result(dev, dev->vk.vkCreateCommandPool(dev->handle, &pool, NULL, &s->pool),
                        "creating a command pool");
}

qn_result qn_stream_create(qn_device *dev, const qn_stream_opts *opts, qn_stream **out)
{
    *out = NULL;
    QN_TRY(qn_device_status(dev));
    qn_stream *s = qn_calloc(1, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    s->dev = dev;
    s->profile = opts && opts->profile;
    qn_result r = stream_open(s);
    if (r != QN_OK) {
        qn_stream_destroy(&s);
        return r;
    }
    *out = s;
    return QN_OK;
}

// Without touching this thread's message: a caller may be about to report it.
static void drain(qn_stream *s)
{
    qn_device *dev = s->dev;
    if (atomic_load(&dev->completed) >= s->last) return;
    if (!atomic_load(&dev->lost) && qn_device_wait(dev, s->last, UINT64_MAX) == QN_OK) return;
    pthread_mutex_lock(&dev->lock); // what was submitted before the loss may still be running
    dev->vk.vkDeviceWaitIdle(dev->handle);
    pthread_mutex_unlock(&dev->lock);
}

void qn_stream_destroy(qn_stream **stream)
{
    qn_stream *s = *stream;
    if (!s) return;
    *stream = NULL;
    drain(s);
    qn_timer_free(&s->timer);
    qn_binder_free(&s->binder);
    qn_trace_free(&s->trace);
    if (s->pool) s->dev->vk.vkDestroyCommandPool(s->dev->handle, s->pool, NULL);
    qn_free(s->works);
    qn_free(s);
}

// ---------------------------------------------------------------------------------- recording

static void begin_label(qn_stream *s)
{
    if (!s->label || !s->dev->ctx->begin_label) return;
    VkDebugUtilsLabelEXT label = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT,
        .pLabelName = s->label,
    };
    s->dev->ctx->begin_label(s->works[s->work_count - 1].cmd, &label);
}

static void end_label(qn_stream *s)
{
    if (s->label && s->dev->ctx->end_label) s->dev->ctx->end_label(s->works[s->work_count - 1].cmd);
}

// Starts a submission: everything before it, other streams included, is ordered.
static qn_result begin_work(qn_stream *s)
{
    qn_device *dev = s->dev;
    void *works = s->works;
    qn_result r = qn_grow(&works, &s->work_capacity, s->work_count + 1, sizeof *s->works);
    s->works = works;
    QN_TRY(r);
    qn_work *w = &s->works[s->work_count];
    *w = (qn_work){ 0 };
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = s->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    QN_VK(dev, dev->vk.vkAllocateCommandBuffers(dev->handle, &info, &w->cmd),
          "creating a command buffer");
    s->work_count++;
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT,
    };
    QN_VK(dev, dev->vk.vkBeginCommandBuffer(w->cmd, &begin), "recording");
    s->recording = true;
    s->bound = VK_NULL_HANDLE;
    qn_hazards_clear(&s->hazards);
    qn_vk_barrier(dev, w->cmd);
    QN_TRY(qn_timer_stamp(&s->timer, w->cmd, &w->begin));
    begin_label(s);
    return s->profile ? qn_timer_resume(&s->timer, w->cmd) : QN_OK;
}

static qn_result end_work(qn_stream *s)
{
    if (!s->recording) return QN_OK;
    qn_device *dev = s->dev;
    qn_work *w = &s->works[s->work_count - 1];
    s->recording = false;
    end_label(s);
    if (s->profile) QN_TRY(qn_timer_pause(&s->timer, w->cmd));
    QN_TRY(qn_timer_stamp(&s->timer, w->cmd, &w->end));
    qn_vk_barrier_to_host(dev, w->cmd);
    QN_VK(dev, dev->vk.vkEndCommandBuffer(w->cmd), "recording");
    s->stats.submissions++;
    return QN_OK;
}

// Keeps the first failure: the stream is of no use after it.
static qn_result stick(qn_stream *s, qn_result r)
{
    if (r == QN_OK || s->failed != QN_OK) return r;
    s->failed = r;
    snprintf(s->message, sizeof s->message, "%s", qn_error_message());
    return r;
}

static qn_result may_record(const qn_stream *s)
{
    if (s->failed != QN_OK) return qn_fail(s->failed, "%s", s->message);
    if (s->ended)
        return qn_fail(QN_ERR_INVALID, "the stream was submitted: its recording has ended");
    return QN_OK;
}

static qn_result need_work(qn_stream *s, VkCommandBuffer *cmd)
{
    if (!s->recording) QN_TRY(begin_work(s));
    *cmd = s->works[s->work_count - 1].cmd;
    return QN_OK;
}

// Emits the barrier that a step with these accesses needs.
static qn_result order(qn_stream *s, VkCommandBuffer cmd, const qn_access *accesses, size_t count)
{
    bool first = s->hazards.read_count + s->hazards.write_count == 0; // the work began with one
    bool barrier = qn_hazards_step(&s->hazards, accesses, count);
    if (barrier) {
        qn_vk_barrier(s->dev, cmd);
        s->stats.barriers++;
    }
    if (!s->dev->ctx->validate) return QN_OK;
    return qn_trace_add(&s->trace, barrier || first, accesses, count);
}

static qn_access access_of(const qn_range *r, uint64_t size, bool write)
{
    return (
        qn_access){ .buffer = r->buffer->id, .offset = r->offset, .size = size, .write = write };
}

static qn_result record_dispatch(qn_stream *s, const qn_dispatch *d)
{
    qn_device *dev = s->dev;
    uint64_t sizes[QN_MAX_BINDINGS];
    qn_pipeline pipeline;
    VkDescriptorSet set;
    VkCommandBuffer cmd;
    QN_TRY(qn_dispatch_check(dev, d, sizes));
    QN_TRY(qn_kernel_get(dev, d, &pipeline));
    QN_TRY(qn_bind(&s->binder, d, &pipeline, sizes, &set));
    QN_TRY(need_work(s, &cmd));

    const qn_row *row = qn_row_of(d->kernel);
    qn_access accesses[QN_MAX_BINDINGS];
    size_t count = 0;
    for (uint32_t i = 0; i < row->binding_count; i++) {
        bool write = qn_binding_writes(row, i);
        if (d->buffers[i].buffer) {
            accesses[count++] = access_of(&d->buffers[i], sizes[i], write);
        } else if (write) {
            qn_range dummy = { .buffer = s->binder.dummy[1] };
            accesses[count++] = access_of(&dummy, dummy.buffer->size, write);
        }
    }
    QN_TRY(order(s, cmd, accesses, count));

    if (s->bound != pipeline.handle)
        dev->vk.vkCmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.handle);
    s->bound = pipeline.handle;
    dev->vk.vkCmdBindDescriptorSets(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout, 0, 1,
                                    &set, 0, NULL);
    if (d->args_size)
        dev->vk.vkCmdPushConstants(cmd, pipeline.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                   d->args_size, d->args);
    dev->vk.vkCmdDispatch(cmd, d->groups[0], d->groups[1], d->groups[2]);
    s->stats.dispatches++;
    return QN_OK;
}

qn_result qn_stream_dispatch(qn_stream *s, const qn_dispatch *d)
{
    QN_TRY(may_record(s));
    return stick(s, record_dispatch(s, d));
}

static qn_result record_program(qn_stream *s, const qn_program *p, const void *push,
                                const uint32_t groups[3])
{
    qn_device *dev = s->dev;
    VkCommandBuffer cmd;
    for (int i = 0; i < 3; i++)
        if (groups[i] == 0 || groups[i] > dev->info.max_groups)
            return qn_fail(groups[i] ? QN_ERR_UNSUPPORTED : QN_ERR_INVALID,
                           "a grid of %u x %u x %u groups, but each must be 1 to %u", groups[0],
                           groups[1], groups[2], dev->info.max_groups);
    QN_TRY(need_work(s, &cmd));
    qn_access accesses[QN_PROGRAM_BINDINGS];
    for (size_t i = 0; i < p->binding_count; i++)
        accesses[i] = access_of(&p->bindings[i].range, p->bindings[i].range.size, true);
    QN_TRY(order(s, cmd, accesses, p->binding_count));
    dev->vk.vkCmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, p->pipeline);
    s->bound = p->pipeline;
    if (p->set_count)
        dev->vk.vkCmdBindDescriptorSets(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, p->layout, 0,
                                        p->set_count, p->sets, 0, NULL);
    if (p->push_size)
        dev->vk.vkCmdPushConstants(cmd, p->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, p->push_size,
                                   push);
    dev->vk.vkCmdDispatch(cmd, groups[0], groups[1], groups[2]);
    s->stats.dispatches++;
    return QN_OK;
}

qn_result qn_stream_program(qn_stream *s, const qn_program *p, const void *push,
                            const uint32_t groups[3])
{
    QN_TRY(may_record(s));
    return stick(s, record_program(s, p, push, groups));
}

static qn_result record_copy(qn_stream *s, qn_range dst, qn_range src)
{
    uint64_t size, available;
    VkCommandBuffer cmd;
    if (!dst.buffer || !src.buffer) return qn_fail(QN_ERR_INVALID, "copy: a buffer is missing");
    if (!src.size) src.size = dst.size;
    QN_TRY(qn_context_add(qn_range_resolve(&dst, &size), "copying to"));
    QN_TRY(qn_context_add(qn_range_resolve(&src, &available), "copying from"));
    if (available < size)
        return qn_fail(QN_ERR_INVALID, "copying %llu bytes to buffer %s, but the source has %llu",
                       (unsigned long long)size, dst.buffer->name, (unsigned long long)available);
    if (dst.buffer == src.buffer && dst.offset < src.offset + size &&
        src.offset < dst.offset + size)
        return qn_fail(QN_ERR_INVALID, "copying within buffer %s: the ranges overlap",
                       dst.buffer->name);
    QN_TRY(need_work(s, &cmd));
    const qn_access accesses[] = { access_of(&src, size, false), access_of(&dst, size, true) };
    QN_TRY(order(s, cmd, accesses, 2));
    VkBufferCopy region = { .srcOffset = src.offset, .dstOffset = dst.offset, .size = size };
    s->dev->vk.vkCmdCopyBuffer(cmd, src.buffer->handle, dst.buffer->handle, 1, &region);
    s->stats.copies++;
    return QN_OK;
}

qn_result qn_stream_copy(qn_stream *s, qn_range dst, qn_range src)
{
    QN_TRY(may_record(s));
    return stick(s, record_copy(s, dst, src));
}

static qn_result record_fill(qn_stream *s, qn_range dst, uint32_t word)
{
    uint64_t size;
    VkCommandBuffer cmd;
    if (!dst.buffer) return qn_fail(QN_ERR_INVALID, "fill: the buffer is missing");
    QN_TRY(qn_context_add(qn_range_resolve(&dst, &size), "filling"));
    if (dst.offset % 4 || size % 4)
        return qn_fail(QN_ERR_INVALID, "filling buffer %s: %llu bytes at %llu are not whole words",
                       dst.buffer->name, (unsigned long long)size, (unsigned long long)dst.offset);
    QN_TRY(need_work(s, &cmd));
    qn_access access = access_of(&dst, size, true);
    QN_TRY(order(s, cmd, &access, 1));
    s->dev->vk.vkCmdFillBuffer(cmd, dst.buffer->handle, dst.offset, size, word);
    s->stats.copies++;
    return QN_OK;
}

qn_result qn_stream_fill(qn_stream *s, qn_range dst, uint32_t word)
{
    QN_TRY(may_record(s));
    return stick(s, record_fill(s, dst, word));
}

static qn_result record_mark(qn_stream *s, const char *label)
{
    VkCommandBuffer cmd;
    QN_TRY(need_work(s, &cmd));
    end_label(s);
    s->label = label;
    begin_label(s);
    return s->profile ? qn_timer_begin(&s->timer, cmd, label) : QN_OK;
}

qn_result qn_stream_mark(qn_stream *s, const char *label)
{
    QN_TRY(may_record(s));
    return stick(s, record_mark(s, label));
}

qn_result qn_stream_cut(qn_stream *s)
{
    QN_TRY(may_record(s));
    return stick(s, end_work(s));
}

// ---------------------------------------------------------------------------------- submitting

// In validating contexts the finished recording is judged once more, by other code.
static void judge_order(qn_stream *s)
{
    size_t first, second;
    if (!s->dev->ctx->validate || qn_trace_ordered(&s->trace, &first, &second)) return;
    atomic_fetch_add(&s->dev->ctx->messages, 1);
    qn_log(QN_LOG_ERROR, "recorded steps %zu and %zu conflict without a barrier between them",
           first, second);
}

qn_result qn_stream_submit(qn_stream *s)
{
    if (s->failed != QN_OK) return qn_fail(s->failed, "%s", s->message);
    QN_TRY(qn_device_status(s->dev));
    if (!s->ended) {
        QN_TRY(stick(s, end_work(s)));
        s->ended = true;
        judge_order(s);
    }
    s->submitted = qn_clock();
    s->measured = false;
    for (size_t i = 0; i < s->work_count; i++) {
        QN_TRY(qn_device_submit(s->dev, s->works[i].cmd, &s->works[i].value));
        s->last = s->works[i].value;
    }
    return QN_OK;
}

// Waits for one submission after the other, so that the clock can tell how long each took.
static qn_result wait_by_clock(qn_stream *s, uint64_t timeout_ns)
{
    double start = s->submitted;
    for (size_t i = 0; i < s->work_count; i++) {
        QN_TRY(qn_device_wait(s->dev, s->works[i].value, timeout_ns));
        double now = qn_clock();
        if (now - start > s->stats.longest) s->stats.longest = now - start;
        start = now;
    }
    return QN_OK;
}

static qn_result measure(qn_stream *s)
{
    QN_TRY(qn_timer_read(&s->timer));
    for (size_t i = 0; i < s->work_count; i++) {
        double seconds = qn_timer_seconds(&s->timer, s->works[i].begin, s->works[i].end);
        if (seconds > s->stats.longest) s->stats.longest = seconds;
    }
    return QN_OK;
}

qn_result qn_stream_wait(qn_stream *s, uint64_t timeout_ns)
{
    QN_TRY(qn_device_status(s->dev));
    if (!s->last || s->measured) return QN_OK;
    if (s->timer.dev) {
        QN_TRY(qn_device_wait(s->dev, s->last, timeout_ns));
        QN_TRY(measure(s));
    } else {
        QN_TRY(wait_by_clock(s, timeout_ns));
    }
    s->measured = true;
    return QN_OK;
}

qn_result qn_stream_timings(qn_stream *s, qn_span *out, size_t capacity, size_t *count)
{
    if (!s->profile)
        return qn_fail(QN_ERR_INVALID, "the stream was made without profiling: it has no timings");
    if (!s->last) return qn_fail(QN_ERR_INVALID, "the stream was not submitted: it has no timings");
    if (!s->timer.dev)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s has no timestamps", s->dev->info.name);
    QN_TRY(qn_stream_wait(s, UINT64_MAX));
    const qn_timer *t = &s->timer;
    for (size_t i = 0; i < t->span_count && i < capacity; i++)
        out[i] = (qn_span){ .label = t->labels[i] };
    for (size_t i = 0; i < t->interval_count; i++) {
        const qn_interval *v = &t->intervals[i];
        if (v->span < capacity) out[v->span].seconds += qn_timer_seconds(t, v->begin, v->end);
    }
    *count = t->span_count;
    return QN_OK;
}

qn_stream_stats qn_stream_describe(const qn_stream *s)
{
    qn_stream_stats stats = s->stats;
    stats.submissions += s->recording; // the one that is still open
    return stats;
}
