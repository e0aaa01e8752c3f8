// Dispatches checked and bound: descriptor sets from pools, texel views made once per range.
#include "bind.h"

#include <string.h>

#define POOL_SETS 256

// ---------------------------------------------------------------------------------- checks

static uint64_t texel_bytes(char letter, qn_storage storage)
{
    return letter == 's' || (letter == 'x' && storage != QN_STORE_F32) ? 4 : 16;
}

static qn_result check_range(const qn_device *dev, const qn_row *row, uint32_t i, bool flat,
                             qn_storage storage, const qn_range *range, uint64_t *size)
{
    QN_TRY(qn_context_add(qn_range_resolve(range, size), "kernel %s: binding %u", row->id, i));
    if (range->offset % QN_RANGE_ALIGN)
        return qn_fail(QN_ERR_INVALID,
                       "kernel %s: binding %u starts at byte %llu of buffer %s, not at a multiple "
                       "of %d",
                       row->id, i, (unsigned long long)range->offset, range->buffer->name,
                       QN_RANGE_ALIGN);
    // Kernels read whole vec4; buffers end at a multiple of QN_RANGE_ALIGN, so there is room.
    *size = (*size + 15) & ~(uint64_t)15;
    uint64_t most = dev->info.max_binding;
    if (qn_binding_is_texel(row, flat, i))
        most = dev->limits.texels * texel_bytes(row->bindings[i], storage);
    if (*size > most)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "kernel %s: binding %u spans %llu bytes of buffer %s, but %s allows %llu",
                       row->id, i, (unsigned long long)*size, range->buffer->name, dev->info.name,
                       (unsigned long long)most);
    return QN_OK;
}

static qn_result check_grid(const qn_device *dev, const qn_row *row, const qn_dispatch *d)
{
    for (int i = 0; i < 3; i++)
        if (d->groups[i] == 0 || d->groups[i] > dev->info.max_groups)
            return qn_fail(d->groups[i] ? QN_ERR_UNSUPPORTED : QN_ERR_INVALID,
                           "kernel %s: a grid of %u x %u x %u groups, but each must be 1 to %u",
                           row->id, d->groups[0], d->groups[1], d->groups[2], dev->info.max_groups);
    if (dev->limits.rounds && d->rounds > dev->limits.rounds)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "kernel %s: %llu loop rounds in one invocation, but %s stops loops after "
                       "%llu: split the work",
                       row->id, (unsigned long long)d->rounds, dev->info.name,
                       (unsigned long long)dev->limits.rounds);
    return QN_OK;
}

qn_result qn_dispatch_check(const qn_device *dev, const qn_dispatch *d,
                            uint64_t sizes[QN_MAX_BINDINGS])
{
    if ((size_t)d->kernel >= QN_KERNEL_COUNT)
        return qn_fail(QN_ERR_INVALID, "there is no kernel %d", (int)d->kernel);
    const qn_row *row = qn_row_of(d->kernel);
    bool flat = dev->info.kernel_class == QN_CLASS_FLAT && (row->forms & QN_FORM_FLAT);
    QN_TRY(check_grid(dev, row, d));
    if (d->args_size > QN_MAX_ARGS || d->args_size % 4 || (d->args_size && !d->args))
        return qn_fail(QN_ERR_INVALID,
                       "kernel %s: %u bytes of arguments, expected whole words, at most %d",
                       row->id, d->args_size, QN_MAX_ARGS);
    for (uint32_t i = 0; i < QN_MAX_BINDINGS; i++) {
        sizes[i] = 0;
        const qn_range *range = &d->buffers[i];
        if (!range->buffer) continue;
        if (i >= row->binding_count)
            return qn_fail(QN_ERR_INVALID,
                           "kernel %s: buffer %s is given as binding %u, but it has %u", row->id,
                           range->buffer->name, i, row->binding_count);
        if (range->buffer->dev != dev)
            return qn_fail(QN_ERR_INVALID, "kernel %s: buffer %s belongs to another device",
                           row->id, range->buffer->name);
        QN_TRY(check_range(dev, row, i, flat, d->storage, range, &sizes[i]));
    }
    return QN_OK;
}

// ---------------------------------------------------------------------------------- views

static size_t view_place(const qn_view *views, size_t capacity, const qn_view *key)
{
    uint64_t h = key->buffer * UINT64_C(0x9e3779b97f4a7c15) + key->offset + (uint64_t)key->format;
    h = (h ^ (h >> 29)) * UINT64_C(0xbf58476d1ce4e5b9) + key->size;
    h = (h ^ (h >> 32)) * UINT64_C(0x94d049bb133111eb);
    size_t at = (size_t)(h ^ (h >> 31)) & (capacity - 1);
    for (;; at = (at + 1) & (capacity - 1)) {
        const qn_view *v = &views[at];
        if (!v->handle || (v->buffer == key->buffer && v->offset == key->offset &&
                           v->size == key->size && v->format == key->format))
            return at;
    }
}

static qn_result grow_views(qn_binder *b)
{
    if (2 * (b->view_count + 1) <= b->view_capacity) return QN_OK;
    size_t capacity = b->view_capacity ? 2 * b->view_capacity : 64;
    qn_view *views = qn_calloc(capacity, sizeof *views);
    if (!views) return qn_no_memory(capacity * sizeof *views);
    for (size_t i = 0; i < b->view_capacity; i++)
        if (b->views[i].handle) views[view_place(views, capacity, &b->views[i])] = b->views[i];
    qn_free(b->views);
    b->views = views;
    b->view_capacity = capacity;
    return QN_OK;
}

static qn_result find_view(qn_binder *b, const qn_buffer *buffer, uint64_t offset, uint64_t size,
                           VkFormat format, VkBufferView *out)
{
    QN_TRY(grow_views(b));
    qn_view key = { .buffer = buffer->id, .offset = offset, .size = size, .format = format };
    qn_view *place = &b->views[view_place(b->views, b->view_capacity, &key)];
    if (!place->handle) {
        qn_device *dev = b->dev;
        VkBufferViewCreateInfo info = {
            .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
            .buffer = buffer->handle,
            .format = format,
            .offset = offset,
            .range = size,
        };
        QN_VK(dev, dev->vk.vkCreateBufferView(dev->handle, &info, NULL, &key.handle),
              "creating a texel view");
        *place = key;
        b->view_count++;
    }
    *out = place->handle;
    return QN_OK;
}

static VkFormat format_of(char letter, qn_storage storage)
{
    return texel_bytes(letter, storage) == 4 ? VK_FORMAT_R32_UINT : VK_FORMAT_R32G32B32A32_SFLOAT;
}

// ---------------------------------------------------------------------------------- sets

static qn_result add_pool(qn_binder *b)
{
    void *pools = b->pools;
    qn_result r = qn_grow(&pools, &b->pool_capacity, b->pool_count + 1, sizeof *b->pools);
    b->pools = pools;
    QN_TRY(r);
    const VkDescriptorPoolSize sizes[] = {
        { VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, POOL_SETS * QN_MAX_BINDINGS / 2 },
        { VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER, POOL_SETS * QN_MAX_BINDINGS / 2 },
    };
    VkDescriptorPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = POOL_SETS,
        .poolSizeCount = b->dev->info.kernel_class == QN_CLASS_FLAT ? 2 : 1,
        .pPoolSizes = sizes,
    };
    qn_device *dev = b->dev;
    QN_VK(dev, dev->vk.vkCreateDescriptorPool(dev->handle, &info, NULL, &b->pools[b->pool_count]),
          "creating a descriptor pool");
    b->pool_count++;
    return QN_OK;
}

static VkResult take_set(qn_binder *b, VkDescriptorSetLayout layout, VkDescriptorSet *out)
{
    VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = b->pools[b->pool_count - 1],
        .descriptorSetCount = 1,
        .pSetLayouts = &layout,
    };
    return b->dev->vk.vkAllocateDescriptorSets(b->dev->handle, &info, out);
}

static qn_result allocate_set(qn_binder *b, VkDescriptorSetLayout layout, VkDescriptorSet *out)
{
    VkResult r = b->pool_count ? take_set(b, layout, out) : VK_ERROR_OUT_OF_POOL_MEMORY;
    if (r == VK_ERROR_OUT_OF_POOL_MEMORY || r == VK_ERROR_FRAGMENTED_POOL) {
        QN_TRY(add_pool(b));
        r = take_set(b, layout, out);
    }
    return qn_vk_result(b->dev, r, "allocating a descriptor set");
}

static qn_result need_dummy(qn_binder *b, bool write)
{
    if (b->dummy[write]) return QN_OK;
    qn_buffer_opts opts = { .size = QN_RANGE_ALIGN, .name = write ? "written dummy" : "dummy" };
    return qn_buffer_create(b->dev, &opts, &b->dummy[write]);
}

qn_result qn_bind(qn_binder *b, const qn_dispatch *d, const qn_pipeline *p,
                  const uint64_t sizes[QN_MAX_BINDINGS], VkDescriptorSet *out)
{
    qn_device *dev = b->dev;
    const qn_row *row = qn_row_of(d->kernel);
    VkDescriptorBufferInfo buffers[QN_MAX_BINDINGS];
    VkBufferView views[QN_MAX_BINDINGS];
    VkWriteDescriptorSet writes[QN_MAX_BINDINGS];
    QN_TRY(allocate_set(b, p->set, out));
    for (uint32_t i = 0; i < row->binding_count; i++) {
        const qn_buffer *buffer = d->buffers[i].buffer;
        uint64_t offset = d->buffers[i].offset, size = sizes[i];
        if (!buffer) {
            bool write = qn_binding_writes(row, i);
            QN_TRY(need_dummy(b, write));
            buffer = b->dummy[write];
            offset = 0;
            size = buffer->size;
        }
        bool texel = qn_binding_is_texel(row, p->flat, i);
        writes[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = *out,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType =
                texel ? VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .pBufferInfo = texel ? NULL : &buffers[i],
            .pTexelBufferView = texel ? &views[i] : NULL,
        };
        if (texel)
            QN_TRY(find_view(b, buffer, offset, size, format_of(row->bindings[i], d->storage),
                             &views[i]));
        else
            buffers[i] = (VkDescriptorBufferInfo){ buffer->handle, offset, size };
    }
    dev->vk.vkUpdateDescriptorSets(dev->handle, row->binding_count, writes, 0, NULL);
    return QN_OK;
}

void qn_binder_free(qn_binder *b)
{
    qn_device *dev = b->dev;
    for (size_t i = 0; i < b->pool_count; i++)
        dev->vk.vkDestroyDescriptorPool(dev->handle, b->pools[i], NULL);
    for (size_t i = 0; i < b->view_capacity; i++)
        dev->vk.vkDestroyBufferView(dev->handle, b->views[i].handle, NULL);
    for (int i = 0; i < 2; i++) qn_buffer_destroy(&b->dummy[i]);
    qn_free(b->pools);
    qn_free(b->views);
    *b = (qn_binder){ 0 };
}
