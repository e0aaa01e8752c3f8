// Compute shaders that are not in the kernel table: a user's own.
#ifndef QN_PROGRAM_H
#define QN_PROGRAM_H

#include "buffer.h"

#define QN_PROGRAM_SETS 4 // what every device can bind

struct qn_program {
    qn_device *dev;
    VkShaderModule module;
    VkDescriptorSetLayout set_layouts[QN_PROGRAM_SETS];
    VkPipelineLayout layout;
    VkPipeline pipeline;
    VkDescriptorPool pool;
    VkDescriptorSet sets[QN_PROGRAM_SETS];
    uint32_t set_count, push_size;
    qn_program_binding bindings[QN_PROGRAM_BINDINGS];
    size_t binding_count;
};

#endif
