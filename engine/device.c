// Devices: listed best first, selected, opened, lost.
#include "vk.h"
#include "buffer.h"
#include "kernel.h"
#include "memory.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------------- listing

static int rank_of(const qn_adapter *a)
{
    switch (a->type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return 0;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return 1;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return 2;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return 4;
    default:
        return 3;
    }
}

static bool better(const qn_adapter *a, const qn_adapter *b)
{
    int ra = rank_of(a), rb = rank_of(b);
    return ra != rb ? ra < rb : a->info.memory > b->info.memory;
}

// Every usable device, best first, equals in the driver's order. Free with qn_free().
static qn_result find_adapters(qn_context *ctx, qn_adapter **out, size_t *count)
{
    uint32_t n = 0;
    QN_VK(NULL, vkEnumeratePhysicalDevices(ctx->instance, &n, NULL), "listing devices");
    VkPhysicalDevice *handles = qn_calloc(n, sizeof *handles);
    qn_adapter *list = qn_calloc(n, sizeof *list);
    qn_result r = QN_OK;
    size_t used = 0;
    if (!handles || !list) {
        r = qn_no_memory(n * (sizeof *handles + sizeof *list));
        goto fail;
    }
    VkResult v = vkEnumeratePhysicalDevices(ctx->instance, &n, handles);
    r = qn_vk_result(NULL, v == VK_INCOMPLETE ? VK_SUCCESS : v, "listing devices");
    if (r != QN_OK) goto fail;
    for (uint32_t i = 0; i < n; i++) {
        qn_adapter a;
        bool usable;
        r = qn_adapter_describe(handles[i], &a, &usable);
        if (r != QN_OK) goto fail;
        if (!usable) continue;
        size_t at = used++;
        for (; at > 0 && better(&a, &list[at - 1]); at--) list[at] = list[at - 1];
        list[at] = a;
    }
    if (!used) {
        r = qn_fail(QN_ERR_NO_DEVICE,
                    "no device with Vulkan 1.2: install a GPU driver, or a software driver that "
                    "needs no GPU (Debian: apt-get install mesa-vulkan-drivers)");
        goto fail;
    }
    qn_free(handles);
    *out = list;
    *count = used;
    return QN_OK;
fail:
    qn_free(handles);
    qn_free(list);
    return r;
}

qn_result qn_device_list(qn_context *ctx, qn_device_info *out, size_t capacity, size_t *count)
{
    qn_adapter *list;
    size_t n;
    QN_TRY(find_adapters(ctx, &list, &n));
    qn_result r = QN_OK;
    for (size_t i = 0; i < n && r == QN_OK; i++) {
        r = qn_adapter_hide(&list[i], 0);
        if (r == QN_OK && i < capacity) out[i] = list[i].info;
    }
    qn_free(list);
    if (r == QN_OK) *count = n;
    return r;
}

// ---------------------------------------------------------------------------------- selection

static bool is_index(const char *s, size_t count, size_t *index)
{
    if (!isdigit((unsigned char)s[0]) || strlen(s) > 4) return false;
    char *end;
    *index = strtoul(s, &end, 10);
    return *end == 0 && *index < count;
}

static bool uuid_starts_with(const uint8_t uuid[16], const char *prefix)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (; *prefix; prefix++) {
        if (*prefix == '-') continue;
        if (n == 32) return false;
        int nibble = n % 2 ? uuid[n / 2] & 15 : uuid[n / 2] >> 4;
        if (digits[nibble] != tolower((unsigned char)*prefix)) return false;
        n++;
    }
    return n >= 4; // fewer digits are more likely a name or an index out of range
}

static bool contains(const char *text, const char *part)
{
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i])) i++;
        if (!part[i]) return true;
    }
    return false;
}

static qn_result unknown_device(const char *select, const qn_adapter *list, size_t count)
{
    char text[1024];
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < count && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%zu: %s", i ? ", " : "", i,
                                 list[i].info.name);
    return qn_fail(QN_ERR_NO_DEVICE, "no device matches \"%s\"; there is %s", select, text);
}

static qn_result select_adapter(const char *select, const qn_adapter *list, size_t count,
                                qn_adapter *out)
{
    size_t i = 0;
    if (!select || is_index(select, count, &i)) {
        *out = list[i];
        return QN_OK;
    }
    for (i = 0; i < count; i++)
        if (uuid_starts_with(list[i].info.uuid, select)) break;
    if (i == count)
        for (i = 0; i < count; i++)
            if (select[0] && contains(list[i].info.name, select)) break;
    if (i == count) return unknown_device(select, list, count);
    *out = list[i];
    return QN_OK;
}

// ---------------------------------------------------------------------------------- opening

static qn_result open_device(qn_device *dev, const qn_adapter *a)
{
    qn_features features;
    qn_adapter_features(a, &features);
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features.core,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos =
            &(VkDeviceQueueCreateInfo){
                .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                .queueFamilyIndex = a->limits.family,
                .queueCount = 1,
                .pQueuePriorities = &(float){ 1.0f },
            },
        .enabledExtensionCount = features.extension_count,
        .ppEnabledExtensionNames = features.extensions,
    };
    QN_VK(NULL, vkCreateDevice(a->handle, &info, NULL, &dev->handle), "opening the device");
    volkLoadDeviceTable(&dev->vk, dev->handle);
    dev->vk.vkGetDeviceQueue(dev->handle, a->limits.family, 0, &dev->queue);
    VkSemaphoreCreateInfo semaphore = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext =
            &(VkSemaphoreTypeCreateInfo){
                .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
            },
    };
    QN_VK(dev, dev->vk.vkCreateSemaphore(dev->handle, &semaphore, NULL, &dev->timeline),
          "creating the timeline semaphore");
    return QN_OK;
}

static qn_result choose(qn_context *ctx, const qn_device_opts *opts, qn_adapter *a)
{
    qn_adapter *list;
    size_t count;
    QN_TRY(find_adapters(ctx, &list, &count));
    qn_result r = select_adapter(opts->select, list, count, a);
    qn_free(list);
    if (r != QN_OK) return r;
    uint32_t hide = opts->hide | (opts->force_staging ? QN_CAP_UNIFIED_MEMORY : 0);
    return qn_adapter_hide(a, hide);
}

static qn_result device_start(qn_device *dev, const qn_device_opts *opts)
{
    qn_adapter a;
    QN_TRY(choose(dev->ctx, opts, &a));
    dev->physical = a.handle;
    dev->info = a.info;
    dev->limits = a.limits;
    dev->has_budget = a.has_budget;
    dev->has_feedback = a.has_feedback;
    dev->lose_at_submit = opts->lose_at_submit;
    qn_result r = open_device(dev, &a);
    if (r == QN_OK) r = qn_heap_create(dev, opts->memory_limit);
    if (r == QN_OK) r = qn_transfer_create(dev);
    if (r == QN_OK) r = qn_kernels_create(dev, opts->cache_dir);
    return qn_context_add(r, "%s", dev->info.name);
}

qn_result qn_device_create(qn_context *ctx, const qn_device_opts *opts, qn_device **out)
{
    *out = NULL;
    qn_device *dev = qn_calloc(1, sizeof *dev);
    if (!dev) return qn_no_memory(sizeof *dev);
    dev->ctx = ctx;
    pthread_mutex_init(&dev->lock, NULL);
    static const qn_device_opts defaults;
    qn_result r = device_start(dev, opts ? opts : &defaults);
    if (r != QN_OK) {
        qn_device_destroy(&dev);
        return r;
    }
    qn_log(QN_LOG_INFO, "device: %s (%s), %s kernels", dev->info.name, dev->info.reason,
           dev->info.kernel_class == QN_CLASS_FLAT ? "flat" : "tiled");
    *out = dev;
    return QN_OK;
}

void qn_device_destroy(qn_device **device)
{
    qn_device *dev = *device;
    if (!dev) return;
    *device = NULL;
    if (dev->handle) {
        dev->vk.vkDeviceWaitIdle(dev->handle);
        qn_kernels_destroy(dev);
        qn_transfer_destroy(dev);
        qn_heap_destroy(dev);
        dev->vk.vkDestroySemaphore(dev->handle, dev->timeline, NULL);
        dev->vk.vkDestroyDevice(dev->handle, NULL);
    }
    pthread_mutex_destroy(&dev->lock);
    qn_free(dev);
}

const qn_device_info *qn_device_describe(const qn_device *dev)
{
    return &dev->info;
}

// ---------------------------------------------------------------------------------- loss

qn_result qn_device_lose(qn_device *dev, const char *why)
{
    pthread_mutex_lock(&dev->lock);
    if (!atomic_load(&dev->lost)) {
        snprintf(dev->loss, sizeof dev->loss, "%s", why);
        atomic_store(&dev->lost, true);
        qn_log(QN_LOG_ERROR, "%s was lost while %s", dev->info.name, why);
    }
    pthread_mutex_unlock(&dev->lock);
    return qn_device_status(dev);
}

qn_result qn_device_status(const qn_device *device)
{
    qn_device *dev = (qn_device *)(uintptr_t)device; // atomics are read through plain pointers
    if (!atomic_load(&dev->lost)) return QN_OK;
    return qn_fail(QN_ERR_DEVICE_LOST, "%s was lost while %s", dev->info.name, dev->loss);
}

// ---------------------------------------------------------------------------------- the queue

static VkResult submit_locked(qn_device *dev, VkCommandBuffer cmd)
{
    if (dev->lose_at_submit && ++dev->submit_calls == dev->lose_at_submit)
        return VK_ERROR_DEVICE_LOST;
    uint64_t value = dev->submitted + 1;
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext =
            &(VkTimelineSemaphoreSubmitInfo){
                .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                .signalSemaphoreValueCount = 1,
                .pSignalSemaphoreValues = &value,
            },
        .commandBufferCount = 1,
        .pCommandBuffers = &cmd,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &dev->timeline,
    };
    VkResult r = dev->vk.vkQueueSubmit(dev->queue, 1, &info, VK_NULL_HANDLE);
    if (r == VK_SUCCESS) dev->submitted = value;
    return r;
}

qn_result qn_device_submit(qn_device *dev, VkCommandBuffer cmd, uint64_t *value)
{
    QN_TRY(qn_device_status(dev));
    pthread_mutex_lock(&dev->lock);
    VkResult r = submit_locked(dev, cmd);
    *value = dev->submitted;
    pthread_mutex_unlock(&dev->lock);
    return qn_vk_result(dev, r, "submitting work");
}

qn_result qn_device_wait(qn_device *dev, uint64_t value, uint64_t timeout_ns)
{
    QN_TRY(qn_device_status(dev));
    if (atomic_load(&dev->completed) >= value) return QN_OK;
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &dev->timeline,
        .pValues = &value,
    };
    VkResult r = dev->vk.vkWaitSemaphores(dev->handle, &info, timeout_ns);
    if (r == VK_TIMEOUT) return qn_device_lose(dev, "waiting for work: the time limit passed");
    QN_VK(dev, r, "waiting for work");
    uint64_t seen = atomic_load(&dev->completed);
    while (seen < value && !atomic_compare_exchange_weak(&dev->completed, &seen, value)) continue;
    return QN_OK;
}

qn_result qn_device_idle(qn_device *dev)
{
    pthread_mutex_lock(&dev->lock);
    uint64_t last = dev->submitted;
    pthread_mutex_unlock(&dev->lock);
    return qn_device_wait(dev, last, UINT64_MAX);
}
