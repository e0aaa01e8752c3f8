// How kernels read and write memory, whatever the form. Include after #version.
//
//   BIND_R(b, name, type)   binding b, read-only storage buffer of `type name[]`
//   BIND_W(b, name, type)   write-only;   BIND_RW(b, name, type)  both
//   BIND_T(b, name)         a 't' binding: f32 read four at a time; a texel buffer in the flat form
//   BIND_X(b, name)         an 'x' binding: the same, stored as f32, f16, bf16 or in blocks of 32
//   BIND_S(b, name)         the 's' binding with the scales of the 'x' binding of that name
//   LOAD4(name, i)          vec4 number i (elements 4i..4i+3) of a 't' or 'x' binding
//   LOAD1(name, i)          element i of a 't' or 'x' binding. Slow in the flat form: tails only
//
// Compiled with QN_FLAT for the flat form, and with QN_F16, QN_BF16, QN_Q8_0 or QN_Q4_0 for other
// 'x' storage.
// 16-bit values are read as packed words, so no 16-bit feature is needed.
#extension GL_EXT_control_flow_attributes : require
#ifdef QN_FLAT
#extension GL_EXT_texture_buffer : enable
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_vote : require
#endif

// Flat forms get the subgroup size here, portable ones qn_dispatch.group_size.
layout(constant_id = 0) const uint GROUP = 64;
layout(local_size_x_id = 0) in;

#define BIND_R(b, name, type)                                                                      \
    layout(set = 0, binding = b, std430) readonly buffer name##_block { type name[]; };
#define BIND_W(b, name, type)                                                                      \
    layout(set = 0, binding = b, std430) writeonly buffer name##_block { type name[]; };
#define BIND_RW(b, name, type)                                                                     \
    layout(set = 0, binding = b, std430) buffer name##_block { type name[]; };

#ifdef QN_FLAT
#define BIND_T(b, name) layout(set = 0, binding = b, rgba32f) uniform readonly imageBuffer name;
#define LOAD4_F32(name, i) imageLoad(name, int(i))
#define LOAD1_F32(name, i) imageLoad(name, int((i) >> 2))[(i) & 3u]
#else
#define BIND_T(b, name)                                                                            \
    layout(set = 0, binding = b, std430) readonly buffer name##_block { vec4 name[]; };
#define LOAD4_F32(name, i) name[i]
#define LOAD1_F32(name, i) name[(i) >> 2][(i) & 3u]
#endif

vec4 qn_unpack_bf16(uvec2 w)
{
    return uintBitsToFloat(uvec4(w.x << 16, w.x & 0xffff0000u, w.y << 16, w.y & 0xffff0000u));
}

vec4 qn_unpack_f16(uvec2 w)
{
    return vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y));
}

// Integers of blocks, four at a time, and the scale of value 4i: two scales to a word.
vec4 qn_unpack_q8(uint w)
{
    return vec4((ivec4(int(w)) << ivec4(24, 16, 8, 0)) >> 24);
}

vec4 qn_unpack_q4(uint w) { return vec4((uvec4(w) >> uvec4(0, 4, 8, 12)) & 15u) - 8.0; }

float qn_unpack_scale(uint w, uint block) { return unpackHalf2x16((block & 1u) != 0 ? w >> 16 : w).x; }

#if defined(QN_Q8_0) || defined(QN_Q4_0)
#define QN_BLOCKS
#ifdef QN_FLAT
#define BIND_X(b, name) layout(set = 0, binding = b, r32ui) uniform readonly uimageBuffer name;
#define BIND_S(b, name) BIND_X(b, name##_scales)
#define QN_WORD(name, i) imageLoad(name, int(i)).x
#else
#define BIND_X(b, name) BIND_R(b, name, uint)
#define BIND_S(b, name) BIND_R(b, name##_scales, uint)
#define QN_WORD(name, i) name[i]
#endif
#define QN_SCALE(name, i) qn_unpack_scale(QN_WORD(name##_scales, (i) >> 4), (i) >> 3)
#ifdef QN_Q8_0
#define LOADX4(name, i) (QN_SCALE(name, i) * qn_unpack_q8(QN_WORD(name, i)))
#else
#define LOADX4(name, i)                                                                            \
    (QN_SCALE(name, i) * qn_unpack_q4(QN_WORD(name, (i) >> 1) >> (((i) & 1u) << 4)))
#endif
#define LOADX1(name, i) LOADX4(name, (i) >> 2)[(i) & 3u]
#elif !defined(QN_F16) && !defined(QN_BF16)
#define BIND_X(b, name) BIND_T(b, name)
#define LOADX4(name, i) LOAD4_F32(name, i)
#define LOADX1(name, i) LOAD1_F32(name, i)
#elif defined(QN_FLAT)
// One texel holds two 16-bit values: on CPU drivers two such loads take half the time of one of four.
#define BIND_X(b, name) layout(set = 0, binding = b, r32ui) uniform readonly uimageBuffer name;
#define QN_PAIRS(name, i) uvec2(imageLoad(name, int(2 * (i))).x, imageLoad(name, int(2 * (i) + 1)).x)
#ifdef QN_F16
#define LOADX4(name, i) qn_unpack_f16(QN_PAIRS(name, i))
#else
#define LOADX4(name, i) qn_unpack_bf16(QN_PAIRS(name, i))
#endif
#define LOADX1(name, i) LOADX4(name, (i) >> 2)[(i) & 3u]
#else
#define BIND_X(b, name)                                                                            \
    layout(set = 0, binding = b, std430) readonly buffer name##_block { uvec2 name[]; };
#ifdef QN_F16
#define LOADX4(name, i) qn_unpack_f16(name[i])
#else
#define LOADX4(name, i) qn_unpack_bf16(name[i])
#endif
#define LOADX1(name, i) LOADX4(name, (i) >> 2)[(i) & 3u]
#endif

#ifndef QN_BLOCKS
#define BIND_S(b, name)
#endif

#define LOAD4(name, i) LOAD4_F32(name, i)
#define LOAD1(name, i) LOAD1_F32(name, i)
