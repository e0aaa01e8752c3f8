// A user's shader made ready to run: layouts from what it declares, one set of descriptors.
#include "program.h"

#include <string.h>

static qn_result check(const qn_device *dev, const qn_program_opts *o)
{
    if (o->binding_count > QN_PROGRAM_BINDINGS)
        return qn_fail(QN_ERR_UNSUPPORTED, "a shader with %zu bindings, at most %d can be given",
                       o->binding_count, QN_PROGRAM_BINDINGS);
    if (o->push_size > QN_MAX_ARGS || o->push_size % 4)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "%u bytes of push constants, expected whole words, at most %d", o->push_size,
                       QN_MAX_ARGS);
    if (o->constant_count > QN_PROGRAM_CONSTANTS)
        return qn_fail(QN_ERR_UNSUPPORTED, "%zu specialisation constants, at most %d can be given",
                       o->constant_count, QN_PROGRAM_CONSTANTS);
    VkPhysicalDeviceProperties p;
    vkGetPhysicalDeviceProperties(dev->physical, &p);
    uint32_t kinds[2] = { 0 };
    for (size_t i = 0; i < o->binding_count; i++) {
        const qn_program_binding *b = &o->bindings[i];
        uint64_t size, most = b->uniform ? p.limits.maxUniformBufferRange : dev->info.max_binding;
        kinds[b->uniform]++;
        if (b->set >= QN_PROGRAM_SETS)
            return qn_fail(QN_ERR_UNSUPPORTED, "binding %u of set %u: sets 0 to %d can be given",
                           b->binding, b->set, QN_PROGRAM_SETS - 1);
        if (!b->range.buffer)
            return qn_fail(QN_ERR_INVALID, "binding %u of set %u has no buffer", b->binding,
                           b->set);
        QN_TRY(qn_range_resolve(&b->range, &size));
        if (size > most)
            return qn_fail(QN_ERR_UNSUPPORTED,
                           "binding %u of set %u spans %llu bytes, but %s allows %llu", b->binding,
                           b->set, (unsigned long long)size, dev->info.name,
                           (unsigned long long)most);
    }
    const uint32_t most[2] = { dev->info.max_storage_buffers,
                               p.limits.maxPerStageDescriptorUniformBuffers };
    for (int u = 0; u < 2; u++)
        if (kinds[u] > most[u])
            return qn_fail(QN_ERR_UNSUPPORTED, "%u %s buffers, but %s allows %u per shader",
                           kinds[u], u ? "uniform" : "storage", dev->info.name, most[u]);
    return QN_OK;
}

static VkDescriptorType type_of(const qn_program_binding *b)
{
    return b->uniform ? VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
}

static qn_result make_layouts(qn_program *p)
{
    qn_device *dev = p->dev;
    for (uint32_t set = 0; set < p->set_count; set++) {
        VkDescriptorSetLayoutBinding list[QN_PROGRAM_BINDINGS];
        uint32_t count = 0;
        for (size_t i = 0; i < p->binding_count; i++) {
            if (p->bindings[i].set != set) continue;
            list[count++] = (VkDescriptorSetLayoutBinding){
                .binding = p->bindings[i].binding,
                .descriptorType = type_of(&p->bindings[i]),
                .descriptorCount = 1,
                .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
            };
        }
        VkDescriptorSetLayoutCreateInfo info = {
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
            .bindingCount = count,
            .pBindings = list,
        };
        QN_VK(dev,
              dev->vk.vkCreateDescriptorSetLayout(dev->handle, &info, NULL, &p->set_layouts[set]),
              "creating a descriptor layout");
    }
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = p->set_count,
        .pSetLayouts = p->set_layouts,
        .pushConstantRangeCount = p->push_size != 0,
        .pPushConstantRanges = &(VkPushConstantRange){ .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                                                       .size = p->push_size },
    };
    QN_VK(dev, dev->vk.vkCreatePipelineLayout(dev->handle, &info, NULL, &p->layout),
          "creating a pipeline layout");
    return QN_OK;
}

static qn_result make_pipeline(qn_program *p, const qn_program_opts *o)
{
    qn_device *dev = p->dev;
    VkShaderModuleCreateInfo module = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = o->size,
        .pCode = o->words,
    };
    QN_VK(dev, dev->vk.vkCreateShaderModule(dev->handle, &module, NULL, &p->module),
          "loading the shader");
    uint32_t values[QN_PROGRAM_CONSTANTS];
    VkSpecializationMapEntry entries[QN_PROGRAM_CONSTANTS];
    for (uint32_t i = 0; i < o->constant_count; i++) {
        values[i] = o->constants[i].value;
        entries[i] = (VkSpecializationMapEntry){ .constantID = o->constants[i].id,
                                                 .offset = i * (uint32_t)sizeof *values,
                                                 .size = sizeof *values };
    }
    VkSpecializationInfo constants = {
        .mapEntryCount = (uint32_t)o->constant_count,
        .pMapEntries = entries,
        .dataSize = o->constant_count * sizeof *values,
        .pData = values,
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = { .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                   .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                   .module = p->module,
                   .pName = o->entry,
                   .pSpecializationInfo = &constants },
        .layout = p->layout,
    };
    QN_VK(
        dev,
        dev->vk.vkCreateComputePipelines(dev->handle, VK_NULL_HANDLE, 1, &info, NULL, &p->pipeline),
        "creating a pipeline");
    return QN_OK;
}

static qn_result make_sets(qn_program *p)
{
    qn_device *dev = p->dev;
    if (!p->set_count) return QN_OK;
    const VkDescriptorPoolSize sizes[] = {
        { VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, QN_PROGRAM_BINDINGS },
        { VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER, QN_PROGRAM_BINDINGS },
    };
    VkDescriptorPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = p->set_count,
        .poolSizeCount = 2,
        .pPoolSizes = sizes,
    };
    QN_VK(dev, dev->vk.vkCreateDescriptorPool(dev->handle, &pool, NULL, &p->pool),
          "creating a descriptor pool");
    VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = p->pool,
        .descriptorSetCount = p->set_count,
        .pSetLayouts = p->set_layouts,
    };
    QN_VK(dev, dev->vk.vkAllocateDescriptorSets(dev->handle, &info, p->sets),
          "allocating descriptor sets");
    for (size_t i = 0; i < p->binding_count; i++) {
        qn_program_binding *b = &p->bindings[i];
        VkDescriptorBufferInfo buffer = { b->range.buffer->handle, b->range.offset, b->range.size };
        VkWriteDescriptorSet write = {
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = p->sets[b->set],
            .dstBinding = b->binding,
            .descriptorCount = 1,
            .descriptorType = type_of(b),
            .pBufferInfo = &buffer,
        };
        dev->vk.vkUpdateDescriptorSets(dev->handle, 1, &write, 0, NULL);
    }
    return QN_OK;
}

static qn_result program_open(qn_program *p, const qn_program_opts *o)
{
    QN_TRY(check(p->dev, o));
    p->push_size = o->push_size;
    for (size_t i = 0; i < o->binding_count; i++) {
        qn_program_binding *b = &p->bindings[p->binding_count++];
        *b = o->bindings[i];
        QN_TRY(qn_range_resolve(&b->range, &b->range.size));
        if (b->set + 1 > p->set_count) p->set_count = b->set + 1;
    }
    QN_TRY(make_layouts(p));
    QN_TRY(make_pipeline(p, o));
    return make_sets(p);
}

qn_result qn_program_create(qn_device *dev, const qn_program_opts *opts, qn_program **out)
{
    *out = NULL;
    QN_TRY(qn_device_status(dev));
    qn_program *p = qn_calloc(1, sizeof *p);
    if (!p) return qn_no_memory(sizeof *p);
    p->dev = dev;
    qn_result r = program_open(p, opts);
    if (r == QN_OK)
        *out = p;
    else
        qn_program_destroy(&p);
    return r;
}

void qn_program_destroy(qn_program **program)
{
    qn_program *p = *program;
    if (!p) return;
    *program = NULL;
    qn_device *dev = p->dev;
    dev->vk.vkDestroyDescriptorPool(dev->handle, p->pool, NULL);
    dev->vk.vkDestroyPipeline(dev->handle, p->pipeline, NULL);
    dev->vk.vkDestroyPipelineLayout(dev->handle, p->layout, NULL);
    for (uint32_t i = 0; i < QN_PROGRAM_SETS; i++)
        dev->vk.vkDestroyDescriptorSetLayout(dev->handle, p->set_layouts[i], NULL);
    dev->vk.vkDestroyShaderModule(dev->handle, p->module, NULL);
    qn_free(p);
}
