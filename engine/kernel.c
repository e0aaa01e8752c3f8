// Pipelines, keyed by row, storage, constants and workgroup size; made once, on demand.
#include "kernel.h"
#include "cache.h"
#include "spirv.h"

#include <stdio.h>
#include <string.h>

static const qn_row rows[QN_KERNEL_COUNT] = {
#define QN_KERNEL(name, path, letters, count, form_bits)                                           \
    [QN_K_##name] = { .id = #name,                                                                 \
                      .file = path,                                                                \
                      .bindings = letters,                                                         \
                      .binding_count = sizeof letters - 1,                                         \
                      .constants = count,                                                          \
                      .forms = form_bits },
#include <quoin/kernels.def>
#undef QN_KERNEL
};

#define QN_KERNEL(name, path, letters, count, form_bits)                                           \
    _Static_assert(sizeof letters - 1 <= QN_MAX_BINDINGS, #name ": too many bindings");            \
    _Static_assert(count <= QN_MAX_CONSTANTS, #name ": too many constants");
#include <quoin/kernels.def>
#undef QN_KERNEL

#define DEFAULT_GROUP 64
#define STORAGES 5

typedef struct made_pipeline {
    struct made_pipeline *next;
    VkPipeline handle;
    qn_storage storage;
    uint32_t group;
    uint32_t constants[QN_MAX_CONSTANTS];
    uint64_t version; // of the source, when it is read from a directory
} made_pipeline;

// A row on this device.
typedef struct device_row {
    VkDescriptorSetLayout set;
    VkPipelineLayout layout; // made last: non-NULL once the row is ready
    VkShaderModule modules[STORAGES];
    made_pipeline *pipelines;
} device_row;

struct qn_kernels {
    pthread_mutex_t lock;
    device_row rows[QN_KERNEL_COUNT];
    qn_cache cache;
    uint32_t created, cached;
};

const qn_row *qn_row_of(qn_kernel k)
{
    return &rows[k];
}

const char *qn_kernel_name(qn_kernel k)
{
    return (size_t)k < QN_KERNEL_COUNT ? rows[k].id : "no such kernel";
}

uint64_t qn_kernels_revision(void)
{
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a over words
    for (const qn_spirv *s = qn_kernel_spirv; s->id; s++)
        for (size_t i = 0; i < s->size / 4; i++) h = (h ^ s->words[i]) * 0x100000001b3u;
    return h;
}

// QN_FORM_FLAT, QN_FORM_PORTABLE or 0.
static uint32_t form_on(const qn_device *dev, const qn_row *row)
{
    if (dev->info.kernel_class == QN_CLASS_FLAT && (row->forms & QN_FORM_FLAT)) return QN_FORM_FLAT;
    return row->forms & QN_FORM_PORTABLE;
}

const char *qn_kernel_form(const qn_device *dev, qn_kernel k)
{
    if ((size_t)k >= QN_KERNEL_COUNT) return "none";
    uint32_t form = form_on(dev, &rows[k]);
    return form == QN_FORM_FLAT ? "flat" : form ? "portable" : "none";
}

// ---------------------------------------------------------------------------------- lifetime

qn_result qn_kernels_create(qn_device *dev, const char *cache_dir)
{
    qn_kernels *k = qn_calloc(1, sizeof *k);
    if (!k) return qn_no_memory(sizeof *k);
    pthread_mutex_init(&k->lock, NULL);
    dev->kernels = k;
    return qn_cache_open(dev, cache_dir, &k->cache);
}

static void free_row(qn_device *dev, device_row *row)
{
    for (made_pipeline *p = row->pipelines, *next; p; p = next) {
        next = p->next;
        dev->vk.vkDestroyPipeline(dev->handle, p->handle, NULL);
        qn_free(p);
    }
    for (size_t i = 0; i < STORAGES; i++)
        dev->vk.vkDestroyShaderModule(dev->handle, row->modules[i], NULL);
    dev->vk.vkDestroyPipelineLayout(dev->handle, row->layout, NULL);
    dev->vk.vkDestroyDescriptorSetLayout(dev->handle, row->set, NULL);
}

void qn_kernels_destroy(qn_device *dev)
{
    qn_kernels *k = dev->kernels;
    if (!k) return;
    for (size_t i = 0; i < QN_KERNEL_COUNT; i++) free_row(dev, &k->rows[i]);
    qn_cache_close(dev, &k->cache, k->created > k->cached && !atomic_load(&dev->lost));
    pthread_mutex_destroy(&k->lock);
    qn_free(k);
    dev->kernels = NULL;
}

void qn_kernels_count(const qn_device *dev, uint32_t *created, uint32_t *cached)
{
    qn_kernels *k = dev->kernels;
    if (!k) return;
    pthread_mutex_lock(&k->lock);
    *created = k->created;
    *cached = k->cached;
    pthread_mutex_unlock(&k->lock);
}

// ---------------------------------------------------------------------------------- layouts

static qn_result check_binding_counts(const qn_device *dev, const qn_row *row, bool flat)
{
    uint32_t texel = 0;
    for (uint32_t i = 0; i < row->binding_count; i++) texel += qn_binding_is_texel(row, flat, i);
    uint32_t storage = row->binding_count - texel;
    if (storage > dev->info.max_storage_buffers)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "kernel %s binds %u storage buffers, but %s allows %u per shader", row->id,
                       storage, dev->info.name, dev->info.max_storage_buffers);
    if (texel > dev->limits.texel_buffers)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "kernel %s binds %u texel buffers, but %s allows %u per shader", row->id,
                       texel, dev->info.name, dev->limits.texel_buffers);
    return QN_OK;
}

static qn_result open_row(qn_device *dev, const qn_row *row, bool flat, device_row *out)
{
    if (out->layout) return QN_OK;
    QN_TRY(check_binding_counts(dev, row, flat));
    VkDescriptorSetLayoutBinding bindings[QN_MAX_BINDINGS];
    for (uint32_t i = 0; i < row->binding_count; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = qn_binding_is_texel(row, flat, i)
                                  ? VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER
                                  : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = row->binding_count,
        .pBindings = bindings,
    };
    if (!out->set)
        QN_VK(dev, dev->vk.vkCreateDescriptorSetLayout(dev->handle, &set, NULL, &out->set),
              "creating a descriptor layout");
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &out->set,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges =
            &(VkPushConstantRange){
                .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                .size = QN_MAX_ARGS,
            },
    };
    return qn_vk_result(dev,
                        dev->vk.vkCreatePipelineLayout(dev->handle, &layout, NULL, &out->layout),
                        "creating a pipeline layout");
}

// ---------------------------------------------------------------------------------- modules

static qn_result create_module(qn_device *dev, const qn_row *row, const uint32_t *words,
                               size_t size, VkShaderModule *out)
{
    VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = size,
        .pCode = words,
    };
    VkResult r = dev->vk.vkCreateShaderModule(dev->handle, &info, NULL, out);
    return qn_context_add(qn_vk_result(dev, r, "loading a shader"), "kernel %s", row->id);
}

static qn_result embedded_module(qn_device *dev, const qn_row *row, bool flat, qn_storage storage,
                                 VkShaderModule *out)
{
    if (*out) return QN_OK;
    for (const qn_spirv *s = qn_kernel_spirv; s->id; s++)
        if (s->form == (flat ? 'F' : 'P') && s->storage == storage && !strcmp(s->id, row->id))
            return create_module(dev, row, s->words, s->size, out);
    return qn_fail(QN_ERR_UNSUPPORTED, "kernel %s: this build has no such form of it", row->id);
}

// ---------------------------------------------------------------------------------- pipelines

static qn_result create_pipeline(qn_device *dev, const qn_row *row, VkShaderModule module,
                                 VkPipelineLayout layout, made_pipeline *p)
{
    qn_kernels *k = dev->kernels;
    uint32_t values[1 + QN_MAX_CONSTANTS];
    VkSpecializationMapEntry entries[1 + QN_MAX_CONSTANTS];
    values[0] = p->group;
    memcpy(values + 1, p->constants, sizeof p->constants);
    for (uint32_t i = 0; i <= row->constants; i++)
        entries[i] = (VkSpecializationMapEntry){ .constantID = i,
                                                 .offset = i * (uint32_t)sizeof *values,
                                                 .size = sizeof *values };
    VkSpecializationInfo constants = {
        .mapEntryCount = 1 + row->constants,
        .pMapEntries = entries,
        .dataSize = (1 + row->constants) * sizeof *values,
        .pData = values,
    };
    VkPipelineCreationFeedbackEXT whole = { 0 }, stage = { 0 };
    VkPipelineCreationFeedbackCreateInfoEXT feedback = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CREATION_FEEDBACK_CREATE_INFO_EXT,
        .pPipelineCreationFeedback = &whole,
        .pipelineStageCreationFeedbackCount = 1,
        .pPipelineStageCreationFeedbacks = &stage,
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .pNext = dev->has_feedback ? &feedback : NULL,
        .stage = { .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                   .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                   .module = module,
                   .pName = "main",
                   .pSpecializationInfo = &constants },
        .layout = layout,
    };
    VkResult r =
        dev->vk.vkCreateComputePipelines(dev->handle, k->cache.handle, 1, &info, NULL, &p->handle);
    QN_TRY(qn_context_add(qn_vk_result(dev, r, "creating a pipeline"), "kernel %s", row->id));
    qn_vk_name(dev, VK_OBJECT_TYPE_PIPELINE, (uint64_t)p->handle, row->id);
    k->created++;
    const VkPipelineCreationFeedbackFlagsEXT hit =
        VK_PIPELINE_CREATION_FEEDBACK_VALID_BIT_EXT |
        VK_PIPELINE_CREATION_FEEDBACK_APPLICATION_PIPELINE_CACHE_HIT_BIT_EXT;
    k->cached += (whole.flags & hit) == hit;
    return QN_OK;
}

static qn_result make(qn_device *dev, const qn_row *row, bool flat, const made_pipeline *key,
                      device_row *at, made_pipeline **out)
{
    made_pipeline *p = qn_malloc(sizeof *p);
    if (!p) return qn_no_memory(sizeof *p);
    *p = *key;
    VkShaderModule own = VK_NULL_HANDLE, *module = &own;
    qn_result r;
    if (dev->ctx->shader_dir) {
        uint32_t *words = NULL;
        size_t size = 0;
        r = qn_reload_compile(dev->ctx, row, flat, p->storage, &words, &size);
        if (r == QN_OK) r = create_module(dev, row, words, size, &own);
        qn_free(words);
    } else {
        module = &at->modules[p->storage];
        r = embedded_module(dev, row, flat, p->storage, module);
    }
    if (r == QN_OK) r = create_pipeline(dev, row, *module, at->layout, p);
    dev->vk.vkDestroyShaderModule(dev->handle, own, NULL);
    if (r != QN_OK) {
        qn_free(p);
        return r;
    }
    p->next = at->pipelines;
    at->pipelines = p;
    *out = p;
    return QN_OK;
}

static bool same_key(const made_pipeline *a, const made_pipeline *b)
{
    return a->storage == b->storage && a->group == b->group && a->version == b->version &&
           !memcmp(a->constants, b->constants, sizeof a->constants);
}

static uint32_t storage_form(qn_storage s)
{
    return s == QN_STORE_Q8_0 || s == QN_STORE_Q4_0 ? QN_FORM_BLOCKS : QN_FORM_STORAGES;
}

static qn_result check_key(const qn_device *dev, const qn_row *row, const made_pipeline *key)
{
    if ((unsigned)key->storage >= STORAGES ||
        (key->storage != QN_STORE_F32 && !(row->forms & storage_form(key->storage))))
        return qn_fail(QN_ERR_INVALID, "kernel %s: it has no storage variant %d", row->id,
                       (int)key->storage);
    for (uint32_t i = row->constants; i < QN_MAX_CONSTANTS; i++)
        if (key->constants[i])
            return qn_fail(QN_ERR_INVALID, "kernel %s: constant %u is given, but it has %u",
                           row->id, i + 1, row->constants);
    uint32_t most = dev->info.max_invocations;
    if (dev->limits.group_size < most) most = dev->limits.group_size;
    if (key->group > most)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "kernel %s: workgroups of %u invocations, but %s allows %u", row->id,
                       key->group, dev->info.name, most);
    return QN_OK;
}

qn_result qn_kernel_get(qn_device *dev, const qn_dispatch *d, qn_pipeline *out)
{
    const qn_row *row = &rows[d->kernel];
    uint32_t form = form_on(dev, row);
    if (!form && (row->forms & QN_FORM_MATRIX))
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "kernel %s needs cooperative matrices, which are not used on %s", row->id,
                       dev->info.name);
    if (!form)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "kernel %s exists only for CPU drivers, and %s is used with tiled kernels",
                       row->id, dev->info.name);
    bool flat = form == QN_FORM_FLAT;
    made_pipeline key = { .storage = d->storage, .group = d->group_size };
    if (flat && !(row->forms & QN_FORM_WIDE)) key.group = dev->info.subgroup_size;
    if (!key.group) key.group = DEFAULT_GROUP;
    memcpy(key.constants, d->constants, sizeof key.constants);
    QN_TRY(check_key(dev, row, &key));
    if (dev->ctx->shader_dir) key.version = qn_reload_version(dev->ctx, row);

    qn_kernels *k = dev->kernels;
    device_row *at = &k->rows[d->kernel];
    pthread_mutex_lock(&k->lock);
    qn_result r = open_row(dev, row, flat, at);
    made_pipeline *p = at->pipelines;
    while (p && !same_key(p, &key)) p = p->next;
    if (r == QN_OK && !p) r = make(dev, row, flat, &key, at, &p);
    pthread_mutex_unlock(&k->lock);
    if (r != QN_OK) return r;
    *out = (qn_pipeline){
        .handle = p->handle, .layout = at->layout, .set = at->set, .flat = flat, .group = key.group
    };
    return QN_OK;
}
