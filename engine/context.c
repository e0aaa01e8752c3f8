// The Vulkan loader, one instance, and validation messages turned into log lines.
#include "vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALIDATION_LAYER "VK_LAYER_KHRONOS_validation"

static const char install_advice[] =
    "install the Vulkan loader and a driver (Debian: apt-get install libvulkan1 "
    "mesa-vulkan-drivers; the latter holds a software driver that needs no GPU)";

// ---------------------------------------------------------------------------------- results

static const struct {
    VkResult result;
    qn_result code;
    const char *text;
} meanings[] = {
    { VK_ERROR_OUT_OF_HOST_MEMORY, QN_ERR_NO_MEMORY, "the driver is out of host memory" },
    { VK_ERROR_OUT_OF_DEVICE_MEMORY, QN_ERR_NO_DEVICE_MEMORY, "the device is out of memory" },
    { VK_ERROR_OUT_OF_POOL_MEMORY, QN_ERR_NO_DEVICE_MEMORY, "a descriptor pool is exhausted" },
    { VK_ERROR_FRAGMENTED_POOL, QN_ERR_NO_DEVICE_MEMORY, "a descriptor pool is exhausted" },
    { VK_ERROR_DEVICE_LOST, QN_ERR_DEVICE_LOST, "the device was lost" },
    { VK_ERROR_INITIALIZATION_FAILED, QN_ERR_NO_DEVICE, "the driver could not be initialised" },
    { VK_ERROR_INCOMPATIBLE_DRIVER, QN_ERR_NO_DEVICE, "no compatible driver" },
    { VK_ERROR_MEMORY_MAP_FAILED, QN_ERR_UNSUPPORTED, "memory could not be mapped" },
    { VK_ERROR_LAYER_NOT_PRESENT, QN_ERR_UNSUPPORTED, "a layer is missing" },
    { VK_ERROR_EXTENSION_NOT_PRESENT, QN_ERR_UNSUPPORTED, "an extension is missing" },
    { VK_ERROR_FEATURE_NOT_PRESENT, QN_ERR_UNSUPPORTED, "a feature is missing" },
    { VK_ERROR_TOO_MANY_OBJECTS, QN_ERR_UNSUPPORTED, "too many objects" },
};

qn_result qn_vk_result(qn_device *dev, VkResult r, const char *doing)
{
    if (r == VK_SUCCESS) return QN_OK;
    if (r == VK_ERROR_DEVICE_LOST && dev) return qn_device_lose(dev, doing);
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (meanings[i].result == r)
            return qn_fail(meanings[i].code, "%s: %s", doing, meanings[i].text);
    return qn_fail(QN_ERR_UNSUPPORTED, "%s: unexpected VkResult %d", doing, (int)r);
}

void qn_vk_name(qn_device *dev, VkObjectType type, uint64_t handle, const char *name)
{
    if (!dev->ctx->set_name) return;
    dev->ctx->set_name(dev->handle, &(VkDebugUtilsObjectNameInfoEXT){
                                        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
                                        .objectType = type,
                                        .objectHandle = handle,
                                        .pObjectName = name,
                                    });
}

// ---------------------------------------------------------------------------------- loader

static pthread_mutex_t loader_lock = PTHREAD_MUTEX_INITIALIZER;

// Volk's function pointers are one set per process, so this and loading an instance's
// functions happen under loader_lock.
static qn_result load_loader(void)
{
    static bool loaded;
    if (loaded) return QN_OK;
    if (volkInitialize() != VK_SUCCESS)
        return qn_fail(QN_ERR_NO_DEVICE, "no Vulkan loader on this machine: %s", install_advice);
    loaded = true;
    return QN_OK;
}

static qn_result has_layer(const char *name, bool *found)
{
    uint32_t count = 0;
    *found = false;
    QN_VK(NULL, vkEnumerateInstanceLayerProperties(&count, NULL), "listing Vulkan layers");
    VkLayerProperties *layers = qn_calloc(count, sizeof *layers);
    if (!layers) return qn_no_memory(count * sizeof *layers);
    VkResult r = vkEnumerateInstanceLayerProperties(&count, layers);
    for (uint32_t i = 0; r >= 0 && i < count; i++) *found |= !strcmp(layers[i].layerName, name);
    qn_free(layers);
    return qn_vk_result(NULL, r == VK_INCOMPLETE ? VK_SUCCESS : r, "listing Vulkan layers");
}

typedef struct instance_extensions {
    bool debug_utils, portability;
} instance_extensions;

static qn_result find_extensions(instance_extensions *out)
{
    uint32_t count = 0;
    QN_VK(NULL, vkEnumerateInstanceExtensionProperties(NULL, &count, NULL),
          "listing Vulkan extensions");
    VkExtensionProperties *list = qn_calloc(count, sizeof *list);
    if (!list) return qn_no_memory(count * sizeof *list);
    VkResult r = vkEnumerateInstanceExtensionProperties(NULL, &count, list);
    for (uint32_t i = 0; r >= 0 && i < count; i++) {
        const char *name = list[i].extensionName;
        out->debug_utils |= !strcmp(name, VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
        out->portability |= !strcmp(name, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME);
    }
    qn_free(list);
    return qn_vk_result(NULL, r == VK_INCOMPLETE ? VK_SUCCESS : r, "listing Vulkan extensions");
}

// ---------------------------------------------------------------------------------- validation

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user)
{
    qn_context *ctx = user;
    // The loader complains about drivers of absent hardware; only remarks on our calls count.
    if (!(types & VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT)) {
        qn_log(QN_LOG_DEBUG, "vulkan: %s", data->pMessage);
        return VK_FALSE;
    }
    atomic_fetch_add(&ctx->messages, 1);
    bool error = severity >= VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    qn_log(error ? QN_LOG_ERROR : QN_LOG_WARN, "validation: %s", data->pMessage);
    return VK_FALSE;
}

static bool validation_wanted(const qn_context_opts *opts)
{
    const char *env = getenv("QUOIN_VALIDATE");
    return (opts && opts->validate) || (env && env[0] && strcmp(env, "0") != 0);
}

static VkDebugUtilsMessengerCreateInfoEXT messenger_info(qn_context *ctx)
{
    return (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = ctx,
    };
}

// ---------------------------------------------------------------------------------- instance

static qn_result create_instance(qn_context *ctx, instance_extensions has)
{
    static const VkValidationFeatureEnableEXT checks[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,
    };
    VkDebugUtilsMessengerCreateInfoEXT messenger = messenger_info(ctx);
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &messenger, // so that creating and destroying the instance is watched too
        .enabledValidationFeatureCount = sizeof checks / sizeof *checks,
        .pEnabledValidationFeatures = checks,
    };
    const char *extensions[3];
    uint32_t count = 0;
    if (has.debug_utils) extensions[count++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (has.portability) extensions[count++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
    if (ctx->validate) extensions[count++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;
    const char *layer = VALIDATION_LAYER;
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = ctx->validate ? &features : NULL,
        .flags = has.portability ? VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR : 0,
        .pApplicationInfo =
            &(VkApplicationInfo){
                .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                .pApplicationName = "quoin",
                .pEngineName = "quoin",
                .engineVersion =
                    VK_MAKE_VERSION(QN_VERSION_MAJOR, QN_VERSION_MINOR, QN_VERSION_PATCH),
                .apiVersion = VK_API_VERSION_1_2,
            },
        .enabledLayerCount = ctx->validate ? 1 : 0,
        .ppEnabledLayerNames = &layer,
        .enabledExtensionCount = count,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult r = vkCreateInstance(&info, NULL, &ctx->instance);
    if (r == VK_ERROR_INCOMPATIBLE_DRIVER)
        return qn_fail(QN_ERR_NO_DEVICE, "no Vulkan driver on this machine: %s", install_advice);
    return qn_vk_result(NULL, r, "creating the Vulkan instance");
}

static PFN_vkVoidFunction instance_function(qn_context *ctx, const char *name)
{
    return vkGetInstanceProcAddr(ctx->instance, name);
}

static qn_result watch(qn_context *ctx)
{
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)instance_function(ctx,
                                                              "vkCreateDebugUtilsMessengerEXT");
    ctx->destroy_messenger = (PFN_vkDestroyDebugUtilsMessengerEXT)instance_function(
        ctx, "vkDestroyDebugUtilsMessengerEXT");
    ctx->set_name =
        (PFN_vkSetDebugUtilsObjectNameEXT)instance_function(ctx, "vkSetDebugUtilsObjectNameEXT");
    ctx->begin_label =
        (PFN_vkCmdBeginDebugUtilsLabelEXT)instance_function(ctx, "vkCmdBeginDebugUtilsLabelEXT");
    ctx->end_label =
        (PFN_vkCmdEndDebugUtilsLabelEXT)instance_function(ctx, "vkCmdEndDebugUtilsLabelEXT");
    ctx->queue_label = (PFN_vkQueueInsertDebugUtilsLabelEXT)instance_function(
        ctx, "vkQueueInsertDebugUtilsLabelEXT");
    if (!ctx->validate) return QN_OK;
    VkDebugUtilsMessengerCreateInfoEXT info = messenger_info(ctx);
    return qn_vk_result(NULL, create(ctx->instance, &info, NULL, &ctx->messenger),
                        "watching validation messages");
}

static qn_result context_open(qn_context *ctx, const qn_context_opts *opts)
{
    QN_TRY(load_loader());
    if (volkGetInstanceVersion() < VK_API_VERSION_1_2)
        return qn_fail(QN_ERR_NO_DEVICE, "the Vulkan loader is older than Vulkan 1.2: %s",
                       install_advice);
    if (opts && opts->shader_dir) {
#if !defined(QN_HAVE_SHADERC)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "a shader directory was given (%s), but this build cannot compile shaders: "
                       "build with shaderc (Debian: libshaderc-dev)",
                       opts->shader_dir);
#endif
        if (!qn_is_dir(opts->shader_dir))
            return qn_fail(QN_ERR_INVALID, "the shader directory %s does not exist",
                           opts->shader_dir);
        ctx->shader_dir = qn_strdup(opts->shader_dir);
        if (!ctx->shader_dir) return qn_no_memory(strlen(opts->shader_dir) + 1);
    }
    instance_extensions has = { 0 };
    QN_TRY(find_extensions(&has));
    ctx->validate = validation_wanted(opts);
    bool layer = false;
    if (ctx->validate) QN_TRY(has_layer(VALIDATION_LAYER, &layer));
    if (ctx->validate && (!has.debug_utils || !layer))
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "validation was asked for, but the layer " VALIDATION_LAYER
                       " is missing (Debian: apt-get install vulkan-validationlayers)");
    QN_TRY(create_instance(ctx, has));
    volkLoadInstanceOnly(ctx->instance);
    return has.debug_utils ? watch(ctx) : QN_OK;
}

qn_result qn_context_create(const qn_context_opts *opts, qn_context **out)
{
    *out = NULL;
    qn_context *ctx = qn_calloc(1, sizeof *ctx);
    if (!ctx) return qn_no_memory(sizeof *ctx);
    pthread_mutex_lock(&loader_lock);
    qn_result r = context_open(ctx, opts);
    pthread_mutex_unlock(&loader_lock);
    if (r != QN_OK) {
        qn_context_destroy(&ctx);
        return r;
    }
    *out = ctx;
    return QN_OK;
}

void qn_context_destroy(qn_context **context)
{
    qn_context *ctx = *context;
    if (!ctx) return;
    *context = NULL;
    if (ctx->messenger) ctx->destroy_messenger(ctx->instance, ctx->messenger, NULL);
    if (ctx->instance) vkDestroyInstance(ctx->instance, NULL);
    qn_free(ctx->shader_dir);
    qn_free(ctx);
}

uint64_t qn_context_validation_messages(const qn_context *ctx)
{
    return atomic_load(&((qn_context *)(uintptr_t)ctx)->messages);
}
