// Private to engine/: the only file that sees Vulkan, and what contexts and devices are made of.
#ifndef QN_VK_H
#define QN_VK_H

#include "fail.h"
#include "mem.h"
#include "platform.h"
#include <quoin/engine.h>

#include <pthread.h>
#include <stdatomic.h>
#include <volk.h>

// What a VkResult means, as a sentence of ours. QN_OK for VK_SUCCESS. `doing` reads "creating a
// pipeline"; a lost device is remembered by `dev`, which may be NULL.
qn_result qn_vk_result(qn_device *dev, VkResult r, const char *doing);

// Leaves the function when a Vulkan call did not succeed.
#define QN_VK(dev, call, doing) QN_TRY(qn_vk_result(dev, call, doing))

// ---------------------------------------------------------------------------------- context

struct qn_context {
    VkInstance instance;
    bool validate;
    char *shader_dir; // NULL: the embedded SPIR-V
    atomic_uint_least64_t include_time, include_checked; // reload.c
    atomic_uint_least64_t messages;
    VkDebugUtilsMessengerEXT messenger;
    // VK_EXT_debug_utils; NULL where the extension is absent.
    PFN_vkDestroyDebugUtilsMessengerEXT destroy_messenger;
    PFN_vkSetDebugUtilsObjectNameEXT set_name;
    PFN_vkCmdBeginDebugUtilsLabelEXT begin_label;
    PFN_vkCmdEndDebugUtilsLabelEXT end_label;
    PFN_vkQueueInsertDebugUtilsLabelEXT queue_label;
};

// ---------------------------------------------------------------------------------- adapters

// Limits that kernels and buffers meet but qn_device_info does not tell.
typedef struct qn_limits {
    uint64_t rounds;              // loop rounds of one invocation; 0: no known limit
    uint64_t texels;              // in one texel buffer
    uint32_t group_size;          // invocations of a workgroup along x
    uint32_t texel_buffers;       // per shader stage
    uint32_t family;              // the queue family used
    uint32_t timestamp_bits;
    double timestamp_seconds;     // of one tick
} qn_limits;

// A physical device as the driver describes it, after the quirk table.
typedef struct qn_adapter {
    VkPhysicalDevice handle;
    VkPhysicalDeviceType type;
    qn_device_info info;
    qn_limits limits;
    bool has_budget, has_feedback, has_dot, has_matrix, has_subset; // extensions
} qn_adapter;

// Everything a device enables: a chain for VkDeviceCreateInfo.pNext and its extensions.
typedef struct qn_features {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot;
    const char *extensions[8];
    uint32_t extension_count;
} qn_features;

// *usable is false where the device cannot run us at all; a line in the log says why.
qn_result qn_adapter_describe(VkPhysicalDevice handle, qn_adapter *out, bool *usable);
// Takes capabilities away and decides the class. QUOIN_CLASS may overrule it.
qn_result qn_adapter_hide(qn_adapter *a, uint32_t hide);
void qn_adapter_features(const qn_adapter *a, qn_features *out);

// ---------------------------------------------------------------------------------- device

typedef struct qn_heap qn_heap;         // memory.h
typedef struct qn_kernels qn_kernels;   // kernel.h
typedef struct qn_transfer qn_transfer; // buffer.h

struct qn_device {
    qn_context *ctx;
    VkPhysicalDevice physical;
    VkDevice handle;
    struct VolkDeviceTable vk;
    VkQueue queue;
    qn_device_info info;
    qn_limits limits;
    bool has_budget, has_feedback;

    pthread_mutex_t lock; // submissions and the loss
    VkSemaphore timeline; // its value counts submissions
    uint64_t submitted;
    atomic_uint_least64_t completed; // a value known to be reached
    uint32_t lose_at_submit, submit_calls;
    atomic_bool lost;
    char loss[256];

    qn_heap *heap;
    qn_kernels *kernels;
    qn_transfer *transfer;
};

// Submits one command buffer; *value is what the timeline reaches when it is done.
qn_result qn_device_submit(qn_device *dev, VkCommandBuffer cmd, uint64_t *value);
// Waits until the timeline reaches `value`. Time running out loses the device.
qn_result qn_device_wait(qn_device *dev, uint64_t value, uint64_t timeout_ns);
// Waits for everything submitted so far.
qn_result qn_device_idle(qn_device *dev);
// Marks the device as lost, for good; returns QN_ERR_DEVICE_LOST.
qn_result qn_device_lose(qn_device *dev, const char *why);

// Names an object for debuggers and validation messages.
void qn_vk_name(qn_device *dev, VkObjectType type, uint64_t handle, const char *name);

#endif
