// From Vulkan properties and features to capabilities, a kernel class and known driver quirks.
#include "vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Texel buffers must hold this many elements before a flat kernel may read a tensor through one.
#define MIN_TEXELS (UINT64_C(1) << 26)

static const VkSubgroupFeatureFlags subgroup_operations =
    VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_VOTE_BIT |
    VK_SUBGROUP_FEATURE_ARITHMETIC_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT |
    VK_SUBGROUP_FEATURE_SHUFFLE_BIT;

// ---------------------------------------------------------------------------------- quirks

typedef struct quirk {
    const char *name;
    VkDriverId driver;    // 0: any
    uint32_t vendor;      // PCI id; 0: any
    uint32_t not_vendor;  // 0: none is excepted
    const char *device;   // part of the device's name; NULL: any
    uint32_t before;      // driver versions below this; 0: all
    uint32_t hide;        // qn_cap bits the driver claims in vain
    uint64_t rounds;      // most loop rounds of one invocation
} quirk;

static const quirk quirks[] = {
    // One counter for all loops of an invocation; at 65,535 every loop ends, silently.
    { .name = "loop limit", .driver = VK_DRIVER_ID_MESA_LLVMPIPE, .rounds = 60000 },
    // The period of a timestamp may change while running, except on Apple's own GPUs.
    { .name = "unsteady timestamps",
      .driver = VK_DRIVER_ID_MOLTENVK,
      .not_vendor = 0x106b,
      .hide = QN_CAP_TIMESTAMPS },
};

static bool quirk_applies(const quirk *q, const qn_device_info *info, VkDriverId driver)
{
    if (q->driver && q->driver != driver) return false;
    if (q->vendor && q->vendor != info->vendor) return false;
    if (q->not_vendor && q->not_vendor == info->vendor) return false;
    if (q->device && !strstr(info->name, q->device)) return false;
    if (q->before && info->driver_version >= q->before) return false;
    return true;
}

static void apply_quirks(qn_adapter *a, VkDriverId driver)
{
    qn_device_info *info = &a->info;
    for (size_t i = 0; i < sizeof quirks / sizeof *quirks; i++) {
        const quirk *q = &quirks[i];
        if (!quirk_applies(q, info, driver)) continue;
        info->caps &= ~q->hide;
        if (q->rounds) a->limits.rounds = q->rounds;
        size_t used = strlen(info->quirks);
        snprintf(info->quirks + used, sizeof info->quirks - used, "%s%s", used ? ", " : "",
                 q->name);
    }
}

// ---------------------------------------------------------------------------------- queries

const char *qn_cap_name(uint32_t bit)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        { QN_CAP_SUBGROUP, "subgroup" },
        { QN_CAP_TEXEL, "texel" },
        { QN_CAP_F16_STORAGE, "f16-storage" },
        { QN_CAP_F16_MATH, "f16-math" },
        { QN_CAP_INT8_DOT, "int8-dot" },
        { QN_CAP_MATRIX, "matrix" },
        { QN_CAP_UNIFIED_MEMORY, "unified-memory" },
        { QN_CAP_TIMESTAMPS, "timestamps" },
        { QN_CAP_MEMORY_BUDGET, "memory-budget" },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].bit == bit) return names[i].name;
    return NULL;
}

typedef struct properties {
    VkPhysicalDeviceProperties2 core;
    VkPhysicalDeviceVulkan11Properties v11;
    VkPhysicalDeviceVulkan12Properties v12;
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV sm;
    VkPhysicalDeviceShaderCorePropertiesAMD cores;
} properties;

typedef struct extensions {
    bool sm, cores;
} extensions;

static qn_result find_extensions(qn_adapter *a, extensions *has)
{
    uint32_t count = 0;
    QN_VK(NULL, vkEnumerateDeviceExtensionProperties(a->handle, NULL, &count, NULL),
          "listing a device's extensions");
    VkExtensionProperties *list = qn_calloc(count, sizeof *list);
    if (!list) return qn_no_memory(count * sizeof *list);
    VkResult r = vkEnumerateDeviceExtensionProperties(a->handle, NULL, &count, list);
    if (r < 0) count = 0;
    const struct {
        const char *name;
        bool *found;
    } wanted[] = {
        { VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, &a->has_budget },
        { VK_EXT_PIPELINE_CREATION_FEEDBACK_EXTENSION_NAME, &a->has_feedback },
        { VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME, &a->has_dot },
        { "VK_KHR_portability_subset", &a->has_subset },
        { VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME, &has->sm },
        { VK_AMD_SHADER_CORE_PROPERTIES_EXTENSION_NAME, &has->cores },
        { VK_NV_COOPERATIVE_MATRIX_EXTENSION_NAME, &a->has_matrix },
        { "VK_KHR_cooperative_matrix", &a->has_matrix },
    };
    for (uint32_t i = 0; i < count; i++)
        for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++)
            *wanted[w].found |= !strcmp(list[i].extensionName, wanted[w].name);
    qn_free(list);
    return qn_vk_result(NULL, r == VK_INCOMPLETE ? VK_SUCCESS : r, "listing a device's extensions");
}

// Fills a family that computes, one without graphics if there is: it is not shared with a display.
static bool find_family(qn_adapter *a, uint64_t *timestamp_bits)
{
    VkQueueFamilyProperties families[16];
    uint32_t count = sizeof families / sizeof *families;
    vkGetPhysicalDeviceQueueFamilyProperties(a->handle, &count, families);
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || !families[i].queueCount) continue;
        if (best == UINT32_MAX || !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT)) best = i;
    }
    if (best == UINT32_MAX) return false;
    a->limits.family = best;
    *timestamp_bits = families[best].timestampValidBits;
    return true;
}

static bool query_features(const qn_adapter *a, qn_features *f)
{
    *f = (qn_features){ 0 };
    f->core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    f->v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    f->v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    f->dot.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES;
    f->core.pNext = &f->v11;
    f->v11.pNext = &f->v12;
    f->v12.pNext = a->has_dot ? &f->dot : NULL;
    vkGetPhysicalDeviceFeatures2(a->handle, &f->core);
    return f->v12.timelineSemaphore;
}

void qn_adapter_features(const qn_adapter *a, qn_features *out)
{
    qn_features has;
    query_features(a, &has);
    uint32_t caps = a->info.caps;
    *out = (qn_features){ .core.sType = has.core.sType,
                          .v11.sType = has.v11.sType,
                          .v12.sType = has.v12.sType,
                          .dot.sType = has.dot.sType };
    out->core.pNext = &out->v11;
    out->v11.pNext = &out->v12;
    out->v12.timelineSemaphore = VK_TRUE;
    if (caps & QN_CAP_TEXEL) out->core.features.shaderStorageImageExtendedFormats = VK_TRUE;
    if (caps & QN_CAP_F16_STORAGE) out->v11.storageBuffer16BitAccess = VK_TRUE;
    if (caps & QN_CAP_F16_MATH) out->v12.shaderFloat16 = VK_TRUE;
    if (caps & QN_CAP_INT8_DOT) {
        out->v12.pNext = &out->dot;
        out->dot.shaderIntegerDotProduct = VK_TRUE;
        out->v12.shaderInt8 = has.v12.shaderInt8;
        out->extensions[out->extension_count++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
    }
    if (a->has_budget)
        out->extensions[out->extension_count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if (a->has_feedback)
        out->extensions[out->extension_count++] = VK_EXT_PIPELINE_CREATION_FEEDBACK_EXTENSION_NAME;
    if (a->has_subset) out->extensions[out->extension_count++] = "VK_KHR_portability_subset";
}

// Memory the device has, and whether the host can map all of it.
static void describe_memory(qn_adapter *a)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT,
    };
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = a->has_budget ? &budget : NULL,
    };
    vkGetPhysicalDeviceMemoryProperties2(a->handle, &memory);
    const VkPhysicalDeviceMemoryProperties *m = &memory.memoryProperties;
    uint32_t main = 0; // the largest heap of the device
    for (uint32_t i = 0; i < m->memoryHeapCount; i++)
        if ((m->memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) &&
            (!(m->memoryHeaps[main].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) ||
             m->memoryHeaps[i].size > m->memoryHeaps[main].size))
            main = i;
    const VkMemoryPropertyFlags unified = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT |
                                          VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                          VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    for (uint32_t i = 0; i < m->memoryTypeCount; i++)
        if (m->memoryTypes[i].heapIndex == main &&
            (m->memoryTypes[i].propertyFlags & unified) == unified)
            a->info.caps |= QN_CAP_UNIFIED_MEMORY;
    a->info.memory = m->memoryHeaps[main].size;
    a->info.budget = a->info.memory / 5 * 4;
    if (a->has_budget) {
        a->info.caps |= QN_CAP_MEMORY_BUDGET;
        uint64_t all = budget.heapBudget[main], used = budget.heapUsage[main];
        a->info.budget = all > used ? all - used : 0;
    }
    if (a->info.software) { // its heap is a made-up figure: the machine's memory is the limit
        qn_machine_memory machine = qn_machine_memory_now();
        a->info.memory = machine.total;
        a->info.budget = machine.available / 5 * 4;
    }
}

static void describe_caps(qn_adapter *a, const properties *p, uint64_t timestamp_bits)
{
    qn_features f;
    query_features(a, &f);
    uint32_t *caps = &a->info.caps;
    const VkPhysicalDeviceLimits *l = &p->core.properties.limits;
    if ((p->v11.subgroupSupportedOperations & subgroup_operations) == subgroup_operations &&
        (p->v11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT))
        *caps |= QN_CAP_SUBGROUP;
    if (l->maxTexelBufferElements >= MIN_TEXELS &&
        f.core.features.shaderStorageImageExtendedFormats)
        *caps |= QN_CAP_TEXEL;
    if (f.v11.storageBuffer16BitAccess) *caps |= QN_CAP_F16_STORAGE;
    if (f.v12.shaderFloat16) *caps |= QN_CAP_F16_MATH;
    if (a->has_dot && f.dot.shaderIntegerDotProduct) *caps |= QN_CAP_INT8_DOT;
    if (a->has_matrix) *caps |= QN_CAP_MATRIX; // reported; enabled by nobody, as no kernel uses it
    if (timestamp_bits && l->timestampPeriod > 0) *caps |= QN_CAP_TIMESTAMPS;
    a->limits.timestamp_bits = (uint32_t)timestamp_bits;
    a->limits.timestamp_seconds = 1e-9 * (double)l->timestampPeriod;
}

static void describe_rank(qn_adapter *a)
{
    static const char *const reasons[] = {
        [VK_PHYSICAL_DEVICE_TYPE_OTHER] = "unknown kind of device",
        [VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU] = "integrated GPU",
        [VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU] = "discrete GPU",
        [VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU] = "virtual GPU",
        [VK_PHYSICAL_DEVICE_TYPE_CPU] = "software driver: last resort",
    };
    size_t type = (size_t)a->type < sizeof reasons / sizeof *reasons ? (size_t)a->type : 0;
    snprintf(a->info.reason, sizeof a->info.reason, "%s", reasons[type]);
    a->info.discrete = a->type == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
}

// ---------------------------------------------------------------------------------- class

// Flat kernels are compiled for these subgroup sizes.
static bool can_be_flat(const qn_device_info *i)
{
    const uint32_t needed = QN_CAP_SUBGROUP | QN_CAP_TEXEL;
    return (i->caps & needed) == needed &&
           (i->subgroup_size == 4 || i->subgroup_size == 8 || i->subgroup_size == 16);
}

qn_result qn_adapter_hide(qn_adapter *a, uint32_t hide)
{
    qn_device_info *i = &a->info;
    i->caps &= ~hide;
    i->kernel_class = i->software && can_be_flat(i) ? QN_CLASS_FLAT : QN_CLASS_TILED;
    const char *wish = getenv("QUOIN_CLASS");
    if (!wish || !wish[0]) return QN_OK;
    if (!strcmp(wish, "tiled")) {
        i->kernel_class = QN_CLASS_TILED;
    } else if (strcmp(wish, "flat") != 0) {
        return qn_fail(QN_ERR_INVALID, "QUOIN_CLASS is \"%s\": expected flat or tiled", wish);
    } else if (can_be_flat(i)) {
        i->kernel_class = QN_CLASS_FLAT;
    } else if (!hide) { // hiding a capability is itself a wish for the other class
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "QUOIN_CLASS is flat, but %s lacks subgroups of 4, 8 or 16 or large texel "
                       "buffers",
                       i->name);
    }
    return QN_OK;
}

static uint32_t smallest(const uint32_t v[3])
{
    uint32_t least = v[0] < v[1] ? v[0] : v[1];
    return least < v[2] ? least : v[2];
}

// Why this device cannot run us; NULL: it can. Notes its queue family and extensions.
static qn_result find_unfit(qn_adapter *a, const VkPhysicalDeviceProperties *basic,
                            uint64_t *timestamp_bits, extensions *has, const char **unfit)
{
    qn_features features;
    *unfit = NULL;
    if (basic->apiVersion < VK_API_VERSION_1_2) {
        *unfit = "it is older than Vulkan 1.2";
    } else if (!find_family(a, timestamp_bits)) {
        *unfit = "it cannot compute";
    } else {
        QN_TRY(find_extensions(a, has));
        if (!query_features(a, &features)) *unfit = "it has no timeline semaphores";
    }
    return QN_OK;
}

static void query_properties(VkPhysicalDevice handle, const extensions *has, properties *p)
{
    *p = (properties){
        .core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        .v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES,
        .v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES,
        .sm.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV,
        .cores.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD,
    };
    p->core.pNext = &p->v11;
    p->v11.pNext = &p->v12;
    if (has->sm) p->v12.pNext = &p->sm;
    if (has->cores) p->v12.pNext = &p->cores; // no device has both
    vkGetPhysicalDeviceProperties2(handle, &p->core);
}

static void describe_limits(qn_adapter *a, const properties *p, const extensions *has)
{
    const VkPhysicalDeviceProperties *core = &p->core.properties;
    const VkPhysicalDeviceLimits *l = &core->limits;
    a->type = core->deviceType;
    a->info = (qn_device_info){
        .vendor = core->vendorID,
        .device = core->deviceID,
        .driver_version = core->driverVersion,
        .api_version = core->apiVersion,
        .max_binding = l->maxStorageBufferRange,
        .max_allocation = p->v11.maxMemoryAllocationSize,
        .subgroup_size = p->v11.subgroupSize,
        .shared_memory = l->maxComputeSharedMemorySize,
        .max_invocations = l->maxComputeWorkGroupInvocations,
        .max_groups = smallest(l->maxComputeWorkGroupCount),
        .max_storage_buffers = l->maxPerStageDescriptorStorageBuffers,
        .software = core->deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU,
    };
    if (has->sm) a->info.compute_units = p->sm.shaderSMCount;
    if (has->cores)
        a->info.compute_units = p->cores.shaderEngineCount * p->cores.shaderArraysPerEngineCount *
                                p->cores.computeUnitsPerShaderArray;
    memcpy(a->info.uuid, p->v11.deviceUUID, sizeof a->info.uuid);
    snprintf(a->info.name, sizeof a->info.name, "%s", core->deviceName);
    snprintf(a->info.driver, sizeof a->info.driver, "%.127s %.127s", p->v12.driverName,
             p->v12.driverInfo);
    a->limits.texels = l->maxTexelBufferElements;
    a->limits.texel_buffers = l->maxPerStageDescriptorStorageImages;
    a->limits.group_size = l->maxComputeWorkGroupSize[0];
}

qn_result qn_adapter_describe(VkPhysicalDevice handle, qn_adapter *a, bool *usable)
{
    *a = (qn_adapter){ .handle = handle };
    VkPhysicalDeviceProperties basic;
    vkGetPhysicalDeviceProperties(handle, &basic);
    uint64_t timestamp_bits = 0;
    extensions has = { 0 };
    const char *unfit;
    QN_TRY(find_unfit(a, &basic, &timestamp_bits, &has, &unfit));
    *usable = !unfit;
    if (unfit) {
        qn_log(QN_LOG_INFO, "%s is left out: %s", basic.deviceName, unfit);
        return QN_OK;
    }
    properties p;
    query_properties(handle, &has, &p);
    describe_limits(a, &p, &has);
    describe_caps(a, &p, timestamp_bits);
    describe_memory(a);
    describe_rank(a);
    apply_quirks(a, p.v12.driverID);
    return QN_OK;
}
