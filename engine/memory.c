// Device memory. Blocks of 64 to 256 MiB are cut into pieces; larger requests get their own block.
#include "memory.h"
#include "kernel.h"
#include "platform.h"
#include "ranges.h"

#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define FIRST_BLOCK (64 * MIB)
#define LARGEST_BLOCK (256 * MIB)

typedef struct qn_block {
    struct qn_block *next;
    VkDeviceMemory memory;
    uint32_t type, heap;
    uint64_t size;
    char *map;
    qn_ranges ranges;
} qn_block;

struct qn_heap {
    pthread_mutex_t lock;
    VkPhysicalDeviceMemoryProperties properties;
    uint32_t main; // the heap that qn_device_usage speaks of
    uint64_t limit[VK_MAX_MEMORY_HEAPS], reserved[VK_MAX_MEMORY_HEAPS]; // bytes in blocks
    uint64_t allocated, peak; // bytes in pieces, of the main heap
    qn_block *blocks;
    qn_slice *slices;
};

char *qn_bytes_format(uint64_t bytes, char text[QN_BYTES_TEXT])
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
    size_t u = 0;
    double v = (double)bytes;
    while (v >= 1024 && u + 1 < sizeof units / sizeof *units) {
        v /= 1024;
        u++;
    }
    snprintf(text, QN_BYTES_TEXT, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return text;
}

// ---------------------------------------------------------------------------------- the heap

static void find_limits(qn_device *dev, qn_heap *heap, uint64_t limit)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT,
    };
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = dev->has_budget ? &budget : NULL,
    };
    vkGetPhysicalDeviceMemoryProperties2(dev->physical, &memory);
    heap->properties = memory.memoryProperties;
    for (uint32_t i = 0; i < heap->properties.memoryHeapCount; i++) {
        const VkMemoryHeap *h = &heap->properties.memoryHeaps[i];
        const VkMemoryHeap *main = &heap->properties.memoryHeaps[heap->main];
        heap->limit[i] = h->size / 5 * 4;
        if (dev->has_budget)
            heap->limit[i] = budget.heapBudget[i] > budget.heapUsage[i]
                                 ? budget.heapBudget[i] - budget.heapUsage[i]
                                 : 0;
        if ((h->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) &&
            (!(main->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) || h->size > main->size))
            heap->main = i;
    }
    uint64_t *main = &heap->limit[heap->main];
    *main = dev->info.budget; // for a software device this is not the heap's figure
    if (limit && limit < *main) *main = limit;
}

qn_result qn_heap_create(qn_device *dev, uint64_t limit)
{
    qn_heap *heap = qn_calloc(1, sizeof *heap);
    if (!heap) return qn_no_memory(sizeof *heap);
    pthread_mutex_init(&heap->lock, NULL);
    find_limits(dev, heap, limit);
    dev->heap = heap;
    return QN_OK;
}

static void free_block(qn_device *dev, qn_block *b)
{
    dev->heap->reserved[b->heap] -= b->size;
    dev->vk.vkFreeMemory(dev->handle, b->memory, NULL);
    qn_ranges_free(&b->ranges);
    qn_free(b);
}

void qn_heap_destroy(qn_device *dev)
{
    qn_heap *heap = dev->heap;
    if (!heap) return;
    for (qn_block *b = heap->blocks, *next; b; b = next) {
        next = b->next;
        free_block(dev, b);
    }
    pthread_mutex_destroy(&heap->lock);
    qn_free(heap);
    dev->heap = NULL;
}

// ---------------------------------------------------------------------------------- types

// How well a memory type serves a purpose; negative: not at all.
static int score_type(const qn_device *dev, VkMemoryPropertyFlags f, qn_memory kind)
{
    const VkMemoryPropertyFlags plain =
        VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
        VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    bool local = f & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    bool mapped =
        (f & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) && (f & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    bool cached = f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    if (f & ~plain) return -1; // protected, lazily committed, uncached on the device, ...
    bool unified = dev->info.caps & QN_CAP_UNIFIED_MEMORY;
    if (kind == QN_MEMORY_DEVICE) {
        if (unified) return mapped ? 4 * local + cached : -1;
        return 4 * local + !mapped; // leave the little that is mapped to others
    }
    if (!mapped) return -1;
    return kind == QN_MEMORY_READBACK ? 4 * cached + !local : 4 * !local + !cached;
}

static int pick_type(const qn_device *dev, qn_memory kind, uint32_t allowed)
{
    const VkPhysicalDeviceMemoryProperties *p = &dev->heap->properties;
    int best = -1, best_score = -1;
    for (uint32_t i = 0; i < p->memoryTypeCount; i++) {
        if (!(allowed & (UINT32_C(1) << i))) continue;
        int score = score_type(dev, p->memoryTypes[i].propertyFlags, kind);
        if (score > best_score) {
            best = (int)i;
            best_score = score;
        }
    }
    return best;
}

// ---------------------------------------------------------------------------------- blocks

static qn_result out_of_memory(const qn_device *dev, uint32_t h, uint64_t size, const char *name,
                               const char *why)
{
    const qn_heap *heap = dev->heap;
    const qn_slice *top[3] = { NULL };
    for (const qn_slice *s = heap->slices; s; s = s->next) {
        const qn_slice *candidate = s;
        for (size_t i = 0; i < 3 && candidate; i++) {
            if (top[i] && top[i]->size >= candidate->size) continue;
            const qn_slice *pushed = top[i];
            top[i] = candidate;
            candidate = pushed;
        }
    }
    char holders[512] = "", text[QN_BYTES_TEXT];
    size_t used = 0;
    for (size_t i = 0; i < 3 && top[i]; i++)
        used += (size_t)snprintf(holders + used, sizeof holders - used, "%s%.100s %s",
                                 i ? ", " : "; largest holders: ", top[i]->name,
                                 qn_bytes_format(top[i]->size, text));
    uint64_t in_use = 0, free_piece = 0;
    for (const qn_slice *s = heap->slices; s; s = s->next)
        if (s->block->heap == h) in_use += s->size;
    for (const qn_block *b = heap->blocks; b; b = b->next) {
        uint64_t largest = b->heap == h ? qn_ranges_largest(&b->ranges) : 0;
        if (largest > free_piece) free_piece = largest;
    }
    char wanted[QN_BYTES_TEXT], limit[QN_BYTES_TEXT], held[QN_BYTES_TEXT], piece[QN_BYTES_TEXT];
    return qn_fail(QN_ERR_NO_DEVICE_MEMORY,
                   "out of device memory: %.100s wants %s, %s: limit %s, in use %s, largest free "
                   "piece %s%s",
                   name, qn_bytes_format(size, wanted), why, qn_bytes_format(heap->limit[h], limit),
                   qn_bytes_format(in_use, held), qn_bytes_format(free_piece, piece), holders);
}

static uint64_t left_in(const qn_heap *heap, uint32_t h)
{
    return heap->limit[h] > heap->reserved[h] ? heap->limit[h] - heap->reserved[h] : 0;
}

// Blocks without pieces are kept for reuse until their memory is wanted.
static void drop_empty_blocks(qn_device *dev, uint32_t h)
{
    for (qn_block **at = &dev->heap->blocks; *at;) {
        qn_block *b = *at;
        if (b->heap == h && b->ranges.taken == 0) {
            *at = b->next;
            free_block(dev, b);
        } else {
            at = &b->next;
        }
    }
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// Bytes of the next block: at least `size`, else doubling with each block of the type.
static uint64_t block_size(const qn_device *dev, uint32_t type, uint64_t size)
{
    const qn_heap *heap = dev->heap;
    uint32_t h = heap->properties.memoryTypes[type].heapIndex;
    uint64_t bytes = FIRST_BLOCK;
    for (const qn_block *b = heap->blocks; b; b = b->next)
        if (b->type == type && bytes < LARGEST_BLOCK) bytes *= 2;
    bytes = least(bytes, heap->properties.memoryHeaps[h].size / 4);
    bytes = least(bytes, dev->info.max_allocation);
    bytes = least(bytes, left_in(heap, h)) & ~(uint64_t)(QN_RANGE_ALIGN - 1);
    return bytes > size ? bytes : size;
}

static VkResult allocate(qn_device *dev, qn_block *b)
{
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = b->size,
        .memoryTypeIndex = b->type,
    };
    VkResult r = dev->vk.vkAllocateMemory(dev->handle, &info, NULL, &b->memory);
    if (r != VK_SUCCESS) return r;
    VkMemoryPropertyFlags flags = dev->heap->properties.memoryTypes[b->type].propertyFlags;
    if (!(flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT)) return VK_SUCCESS;
    void *map;
    r = dev->vk.vkMapMemory(dev->handle, b->memory, 0, VK_WHOLE_SIZE, 0, &map);
    if (r != VK_SUCCESS) {
        dev->vk.vkFreeMemory(dev->handle, b->memory, NULL);
        return r;
    }
    b->map = map;
    // Rows of weights lie pages apart: with small pages every row is a miss of the TLB.
    if (dev->info.software) qn_map_large_pages(map, b->size);
    return VK_SUCCESS;
}

static qn_result add_block(qn_device *dev, uint32_t type, uint64_t size, const char *name,
                           qn_block **out)
{
    qn_heap *heap = dev->heap;
    uint32_t h = heap->properties.memoryTypes[type].heapIndex;
    if (size > dev->info.max_allocation) {
        char wanted[QN_BYTES_TEXT], most[QN_BYTES_TEXT];
        return qn_fail(QN_ERR_NO_DEVICE_MEMORY,
                       "%.100s wants %s, but this device gives at most %s in one allocation", name,
                       qn_bytes_format(size, wanted),
                       qn_bytes_format(dev->info.max_allocation, most));
    }
    if (size > left_in(heap, h)) drop_empty_blocks(dev, h);
    if (size > left_in(heap, h))
        return out_of_memory(dev, h, size, name, "which exceeds the limit");
    qn_block *b = qn_calloc(1, sizeof *b);
    if (!b) return qn_no_memory(sizeof *b);
    b->type = type;
    b->heap = h;
    b->size = block_size(dev, type, size);
    VkResult v = allocate(dev, b);
    if (v == VK_ERROR_OUT_OF_DEVICE_MEMORY) { // others took it: be content with less
        drop_empty_blocks(dev, h);
        b->size = size;
        v = allocate(dev, b);
    }
    qn_result r = QN_OK;
    if (v == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        r = out_of_memory(dev, h, size, name, "which the driver refused");
    else
        r = qn_vk_result(dev, v, "allocating device memory");
    if (r == QN_OK) {
        heap->reserved[h] += b->size;
        r = qn_ranges_init(&b->ranges, b->size);
        if (r != QN_OK) {
            free_block(dev, b);
            return r;
        }
        b->next = heap->blocks;
        heap->blocks = b;
        *out = b;
    } else {
        qn_free(b);
    }
    return r;
}

// ---------------------------------------------------------------------------------- pieces

static qn_result take_locked(qn_device *dev, uint32_t type, const VkMemoryRequirements *need,
                             const char *name, qn_slice *out)
{
    uint64_t align = need->alignment > QN_RANGE_ALIGN ? need->alignment : QN_RANGE_ALIGN;
    uint64_t offset = 0;
    bool found = false;
    qn_block *b = dev->heap->blocks;
    for (; b; b = b->next) {
        if (b->type != type) continue;
        QN_TRY(qn_ranges_take(&b->ranges, need->size, align, &offset, &found));
        if (found) break;
    }
    if (!found) {
        QN_TRY(add_block(dev, type, need->size, name, &b));
        QN_TRY(qn_ranges_take(&b->ranges, need->size, align, &offset, &found));
    }
    VkMemoryPropertyFlags flags = dev->heap->properties.memoryTypes[type].propertyFlags;
    *out = (qn_slice){
        .block = b,
        .offset = offset,
        .size = need->size,
        .memory = b->memory,
        .map = b->map ? b->map + offset : NULL,
        .cached = flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
        .name = name,
    };
    return QN_OK;
}

static void enlist(qn_heap *heap, qn_slice *s)
{
    s->next = heap->slices;
    if (s->next) s->next->previous = s;
    heap->slices = s;
    if (s->block->heap != heap->main) return;
    heap->allocated += s->size;
    if (heap->allocated > heap->peak) heap->peak = heap->allocated;
}

qn_result qn_slice_take(qn_device *dev, qn_memory kind, const VkMemoryRequirements *need,
                        const char *name, qn_slice *out)
{
    qn_heap *heap = dev->heap;
    int type = pick_type(dev, kind, need->memoryTypeBits);
    if (type < 0)
        return qn_fail(QN_ERR_UNSUPPORTED, "%.100s: this device has no memory of the kind wanted",
                       name);
    pthread_mutex_lock(&heap->lock);
    qn_result r = take_locked(dev, (uint32_t)type, need, name, out);
    if (r == QN_OK) enlist(heap, out);
    pthread_mutex_unlock(&heap->lock);
    return r;
}

void qn_slice_return(qn_device *dev, qn_slice *s)
{
    qn_heap *heap = dev->heap;
    if (!s->block) return;
    pthread_mutex_lock(&heap->lock);
    if (s->next) s->next->previous = s->previous;
    if (s->previous)
        s->previous->next = s->next;
    else
        heap->slices = s->next;
    if (s->block->heap == heap->main) heap->allocated -= s->size;
    qn_ranges_give(&s->block->ranges, s->offset, s->size);
    if (s->block->ranges.taken == 0 && s->block->size > FIRST_BLOCK) {
        qn_block **at = &heap->blocks;
        while (*at != s->block) at = &(*at)->next;
        *at = s->block->next;
        free_block(dev, s->block);
    }
    pthread_mutex_unlock(&heap->lock);
    *s = (qn_slice){ 0 };
}

qn_device_usage qn_device_usage_now(const qn_device *dev)
{
    qn_heap *heap = dev->heap;
    pthread_mutex_lock(&heap->lock);
    qn_device_usage u = {
        .allocated = heap->allocated,
        .peak = heap->peak,
        .limit = heap->limit[heap->main],
    };
    pthread_mutex_unlock(&heap->lock);
    qn_kernels_count(dev, &u.pipelines, &u.pipelines_cached);
    return u;
}
