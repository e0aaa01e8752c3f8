// What a compute shader in SPIR-V asks of its caller: entry point, workgroup size, bindings, push
// constants, specialisation constants, capabilities. Reads only declarations, trusts nothing: any
// bytes give an answer or a sentence.
#ifndef QN_BENCH_SPIRV_H
#define QN_BENCH_SPIRV_H

#include "fail.h"
#include "mem.h"

#define QN_SPV_BINDINGS 32
#define QN_SPV_MEMBERS 32
#define QN_SPV_CONSTANTS 64
#define QN_SPV_CAPABILITIES 64
#define QN_SPV_NAME 48
#define QN_SPV_NO_ID UINT32_MAX

typedef enum qn_spv_scalar {
    QN_SPV_NONE = 0, // no numbers, or several kinds
    QN_SPV_BOOL,
    QN_SPV_INT,
    QN_SPV_UINT,
    QN_SPV_FLOAT,
} qn_spv_scalar;

typedef struct qn_spv_binding {
    uint32_t set, binding;
    char name[QN_SPV_NAME]; // of the variable or its block; "" when stripped
    bool storage;           // a storage buffer; else a uniform buffer
    const char *other;      // "a sampled image": what it is when it is neither; NULL: a buffer
    bool reads, writes;     // what the declaration allows
    uint32_t count;         // descriptors in an array of them; 0: without end
    uint64_t fixed;         // bytes before the array without a length, or of all
    uint32_t stride;        // bytes of an element of that array; 0: there is none
    qn_spv_scalar scalar;   // what the elements are made of
    uint32_t width;         // bits of one
} qn_spv_binding;

typedef struct qn_spv_member {
    char name[QN_SPV_NAME];
    uint32_t offset, size; // bytes
    qn_spv_scalar scalar;
    uint32_t width;
} qn_spv_member;

typedef struct qn_spv_constant {
    char name[QN_SPV_NAME];
    uint32_t id; // constant_id
    qn_spv_scalar scalar;
    uint32_t width, value; // bits of the default, in the low word
} qn_spv_constant;

typedef struct qn_spv_shader {
    char entry[QN_SPV_NAME];
    uint32_t local[3];          // by the defaults of the constants
    uint32_t local_constant[3]; // constant_id that decides it; QN_SPV_NO_ID: none
    qn_spv_binding bindings[QN_SPV_BINDINGS];
    uint32_t binding_count;
    qn_spv_member members[QN_SPV_MEMBERS]; // of the push-constant block
    uint32_t member_count;
    uint64_t push_size; // bytes; 0: no push constants
    qn_spv_constant constants[QN_SPV_CONSTANTS];
    uint32_t constant_count;
    uint32_t capabilities[QN_SPV_CAPABILITIES];
    uint32_t capability_count;
} qn_spv_shader;

// QN_ERR_FORMAT: not SPIR-V, cut off, inconsistent, no compute entry point. QN_ERR_UNSUPPORTED:
// more bindings, members or constants than the tables above hold. `name` stands for the file.
qn_result qn_spv_read(const char *name, const uint32_t *words, size_t count, qn_spv_shader *out);

#endif
