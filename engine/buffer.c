// Buffers and blocking copies. Where the host cannot map a buffer, copies pass through two staging
// slots, one being copied by the host while the device is busy with the other.
#include "buffer.h"

#include <stdio.h>
#include <string.h>

#define CHUNK (UINT64_C(4) << 20)
#define SLOTS 2

struct qn_transfer {
    pthread_mutex_t lock;
    VkCommandPool pool;
    VkCommandBuffer commands[SLOTS];
    uint64_t done[SLOTS];         // timeline values of the slots' last use
    uint64_t chunk;               // bytes of a slot
    qn_buffer *upload, *readback; // SLOTS chunks each, made at first use
};

// ---------------------------------------------------------------------------------- barriers

static void memory_barrier(const qn_device *dev, VkCommandBuffer cmd, VkPipelineStageFlags to,
                           VkAccessFlags access)
{
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = access,
    };
    dev->vk.vkCmdPipelineBarrier(
        cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT, to, 0, 1,
        &barrier, 0, NULL, 0, NULL);
}

void qn_vk_barrier(const qn_device *dev, VkCommandBuffer cmd)
{
    memory_barrier(dev, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                       VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
}

void qn_vk_barrier_to_host(const qn_device *dev, VkCommandBuffer cmd)
{
    memory_barrier(dev, cmd, VK_PIPELINE_STAGE_HOST_BIT,
                   VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT);
}

// ---------------------------------------------------------------------------------- transfers

qn_result qn_transfer_create(qn_device *dev)
{
    qn_transfer *t = qn_calloc(1, sizeof *t);
    if (!t) return qn_no_memory(sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    dev->transfer = t;
    // Small budgets are not to be eaten by staging.
    uint64_t share = qn_device_usage_now(dev).limit / 64 & ~(uint64_t)(QN_RANGE_ALIGN - 1);
    t->chunk = share < CHUNK ? share : CHUNK;
    if (t->chunk < QN_RANGE_ALIGN) t->chunk = QN_RANGE_ALIGN;
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = dev->limits.family,
    };
    QN_VK(dev, dev->vk.vkCreateCommandPool(dev->handle, &pool, NULL, &t->pool),
          "creating a command pool");
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = t->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = SLOTS,
    };
    return qn_vk_result(dev, dev->vk.vkAllocateCommandBuffers(dev->handle, &info, t->commands),
                        "creating command buffers");
}

void qn_transfer_destroy(qn_device *dev)
{
    qn_transfer *t = dev->transfer;
    if (!t) return;
    qn_buffer_destroy(&t->upload);
    qn_buffer_destroy(&t->readback);
    if (t->pool) dev->vk.vkDestroyCommandPool(dev->handle, t->pool, NULL);
    pthread_mutex_destroy(&t->lock);
    qn_free(t);
    dev->transfer = NULL;
}

static qn_result begin(qn_device *dev, size_t slot)
{
    qn_transfer *t = dev->transfer;
    QN_TRY(qn_device_wait(dev, t->done[slot], UINT64_MAX));
    VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    QN_VK(dev, dev->vk.vkBeginCommandBuffer(t->commands[slot], &info), "recording a copy");
    qn_vk_barrier(dev, t->commands[slot]);
    return QN_OK;
}

static qn_result finish(qn_device *dev, size_t slot)
{
    qn_transfer *t = dev->transfer;
    qn_vk_barrier_to_host(dev, t->commands[slot]);
    QN_VK(dev, dev->vk.vkEndCommandBuffer(t->commands[slot]), "recording a copy");
    return qn_device_submit(dev, t->commands[slot], &t->done[slot]);
}

static qn_result copy(qn_device *dev, size_t slot, const qn_buffer *src, uint64_t src_offset,
                      const qn_buffer *dst, uint64_t dst_offset, uint64_t size)
{
    QN_TRY(begin(dev, slot));
    VkBufferCopy region = { .srcOffset = src_offset, .dstOffset = dst_offset, .size = size };
    dev->vk.vkCmdCopyBuffer(dev->transfer->commands[slot], src->handle, dst->handle, 1, &region);
    return finish(dev, slot);
}

static qn_result need_staging(qn_device *dev, qn_memory memory, const char *name, qn_buffer **at)
{
    if (*at) return QN_OK;
    qn_buffer_opts opts = { .size = SLOTS * dev->transfer->chunk, .memory = memory, .name = name };
    return qn_buffer_create(dev, &opts, at);
}

static uint64_t chunk_size(const qn_transfer *t, uint64_t size, uint64_t at)
{
    return size - at < t->chunk ? size - at : t->chunk;
}

static qn_result staged_write(qn_buffer *b, uint64_t offset, const char *data, uint64_t size)
{
    qn_device *dev = b->dev;
    qn_transfer *t = dev->transfer;
    QN_TRY(need_staging(dev, QN_MEMORY_UPLOAD, "upload staging", &t->upload));
    for (uint64_t at = 0, i = 0; at < size; at += t->chunk, i++) {
        size_t slot = i % SLOTS;
        uint64_t n = chunk_size(t, size, at);
        QN_TRY(qn_device_wait(dev, t->done[slot], UINT64_MAX));
        memcpy((char *)t->upload->map + slot * t->chunk, data + at, n);
        QN_TRY(copy(dev, slot, t->upload, slot * t->chunk, b, offset + at, n));
    }
    return qn_device_idle(dev);
}

static qn_result staged_read(qn_buffer *b, uint64_t offset, char *data, uint64_t size)
{
    qn_device *dev = b->dev;
    qn_transfer *t = dev->transfer;
    QN_TRY(need_staging(dev, QN_MEMORY_READBACK, "readback staging", &t->readback));
    uint64_t chunks = size / t->chunk + (size % t->chunk != 0);
    // Round i starts chunk i, then empties chunk i - 1 while the device works.
    for (uint64_t i = 0; i <= chunks; i++) {
        if (i < chunks)
            QN_TRY(copy(dev, i % SLOTS, b, offset + i * t->chunk, t->readback, i % SLOTS * t->chunk,
                        chunk_size(t, size, i * t->chunk)));
        if (i == 0) continue;
        uint64_t at = (i - 1) * t->chunk;
        size_t slot = (i - 1) % SLOTS;
        QN_TRY(qn_device_wait(dev, t->done[slot], UINT64_MAX));
        memcpy(data + at, (char *)t->readback->map + slot * t->chunk, chunk_size(t, size, at));
    }
    return QN_OK;
}

static qn_result staged_fill(qn_buffer *b, uint64_t offset, uint64_t size, uint32_t word)
{
    qn_device *dev = b->dev;
    QN_TRY(begin(dev, 0));
    dev->vk.vkCmdFillBuffer(dev->transfer->commands[0], b->handle, offset, size, word);
    QN_TRY(finish(dev, 0));
    return qn_device_wait(dev, dev->transfer->done[0], UINT64_MAX);
}

// ---------------------------------------------------------------------------------- buffers

static qn_result fill_unordered(qn_buffer *b, uint64_t offset, uint64_t size, uint32_t word)
{
    if (!b->map) {
        qn_transfer *t = b->dev->transfer;
        pthread_mutex_lock(&t->lock);
        qn_result r = staged_fill(b, offset, size, word);
        pthread_mutex_unlock(&t->lock);
        return r;
    }
    if (word == 0) {
        memset((char *)b->map + offset, 0, size);
        return QN_OK;
    }
    uint32_t *words = (uint32_t *)((char *)b->map + offset);
    for (uint64_t i = 0; i < size / 4; i++) words[i] = word;
    return QN_OK;
}

static qn_result buffer_open(qn_buffer *b, const qn_buffer_opts *opts)
{
    qn_device *dev = b->dev;
    b->name = qn_strdup(opts->name ? opts->name : "unnamed");
    if (!b->name) return qn_no_memory(strlen(opts->name) + 1);
    if (opts->size == 0) return qn_fail(QN_ERR_INVALID, "buffer %s: its size is 0", b->name);
    if (opts->size > UINT64_MAX / 2 || opts->size > dev->info.max_allocation) {
        char wanted[QN_BYTES_TEXT], most[QN_BYTES_TEXT];
        return qn_fail(QN_ERR_NO_DEVICE_MEMORY,
                       "%.100s wants %s, but this device gives at most %s in one allocation",
                       b->name, qn_bytes_format(opts->size, wanted),
                       qn_bytes_format(dev->info.max_allocation, most));
    }
    b->size = (opts->size + QN_RANGE_ALIGN - 1) & ~(uint64_t)(QN_RANGE_ALIGN - 1);
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = b->size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT |
                 VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT,
        .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
    };
    QN_VK(dev, dev->vk.vkCreateBuffer(dev->handle, &info, NULL, &b->handle), "creating a buffer");
    qn_vk_name(dev, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->handle, b->name);
    VkMemoryRequirements need;
    dev->vk.vkGetBufferMemoryRequirements(dev->handle, b->handle, &need);
    QN_TRY(qn_slice_take(dev, b->memory, &need, b->name, &b->slice));
    QN_VK(dev, dev->vk.vkBindBufferMemory(dev->handle, b->handle, b->slice.memory, b->slice.offset),
          "binding memory to a buffer");
    if (b->memory != QN_MEMORY_DEVICE || (dev->info.caps & QN_CAP_UNIFIED_MEMORY))
        b->map = b->slice.map;
    return QN_OK;
}

qn_result qn_buffer_create(qn_device *dev, const qn_buffer_opts *opts, qn_buffer **out)
{
    static atomic_uint_least64_t ids;
    *out = NULL;
    QN_TRY(qn_device_status(dev));
    qn_buffer *b = qn_calloc(1, sizeof *b);
    if (!b) return qn_no_memory(sizeof *b);
    b->dev = dev;
    b->id = atomic_fetch_add(&ids, 1) + 1;
    b->memory = opts->memory;
    qn_result r = buffer_open(b, opts);
    if (r == QN_OK) r = fill_unordered(b, 0, b->size, 0);
    if (r != QN_OK) {
        qn_buffer_destroy(&b);
        return r;
    }
    *out = b;
    return QN_OK;
}

void qn_buffer_destroy(qn_buffer **buffer)
{
    qn_buffer *b = *buffer;
    if (!b) return;
    *buffer = NULL;
    if (b->handle) b->dev->vk.vkDestroyBuffer(b->dev->handle, b->handle, NULL);
    qn_slice_return(b->dev, &b->slice);
    qn_free(b->name);
    qn_free(b);
}

uint64_t qn_buffer_size(const qn_buffer *buf)
{
    return buf->size;
}

void *qn_buffer_map(qn_buffer *buf)
{
    return buf->map;
}

static qn_result check_span(const qn_buffer *b, uint64_t offset, uint64_t size, const char *doing)
{
    if (offset <= b->size && size <= b->size - offset) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "%s buffer %s: bytes %llu to %llu, but it has %llu", doing,
                   b->name, (unsigned long long)offset, (unsigned long long)(offset + size),
                   (unsigned long long)b->size);
}

qn_result qn_range_resolve(const qn_range *r, uint64_t *size)
{
    QN_TRY(check_span(r->buffer, r->offset, r->size, "a range of"));
    *size = r->size ? r->size : r->buffer->size - r->offset;
    if (*size) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "the range of buffer %s is empty", r->buffer->name);
}

qn_result qn_buffer_write(qn_buffer *b, uint64_t offset, const void *data, uint64_t size)
{
    QN_TRY(check_span(b, offset, size, "writing"));
    QN_TRY(qn_device_idle(b->dev));
    if (size == 0) return QN_OK;
    if (b->map) {
        memcpy((char *)b->map + offset, data, size);
        return QN_OK;
    }
    pthread_mutex_lock(&b->dev->transfer->lock);
    qn_result r = staged_write(b, offset, data, size);
    pthread_mutex_unlock(&b->dev->transfer->lock);
    return r;
}

qn_result qn_buffer_read(qn_buffer *b, uint64_t offset, void *data, uint64_t size)
{
    QN_TRY(check_span(b, offset, size, "reading"));
    QN_TRY(qn_device_idle(b->dev));
    if (size == 0) return QN_OK;
    // Mapped memory of a GPU that the host does not cache is many times slower to read than to
    // copy to memory that it does.
    if (b->map && (b->slice.cached || b->memory != QN_MEMORY_DEVICE)) {
        memcpy(data, (char *)b->map + offset, size);
        return QN_OK;
    }
    pthread_mutex_lock(&b->dev->transfer->lock);
    qn_result r = staged_read(b, offset, data, size);
    pthread_mutex_unlock(&b->dev->transfer->lock);
    return r;
}

qn_result qn_buffer_fill(qn_buffer *b, uint64_t offset, uint64_t size, uint32_t word)
{
    QN_TRY(check_span(b, offset, size, "filling"));
    if (offset % 4 || size % 4)
        return qn_fail(QN_ERR_INVALID, "filling buffer %s: bytes %llu to %llu are not whole words",
                       b->name, (unsigned long long)offset, (unsigned long long)(offset + size));
    QN_TRY(qn_device_idle(b->dev));
    return size ? fill_unordered(b, offset, size, word) : QN_OK;
}
