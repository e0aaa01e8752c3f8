// Read by C and by GLSL: the only place where a kernel's arguments are written. One struct per
// kernel, in shaders/args/<kernel>.h:
//
//   QN_ARGS_BEGIN(layer_norm)
//       u32 rows;   // N
//       u32 width;  // C
//       f32 epsilon;
//   QN_ARGS_END(layer_norm)
//
// In GLSL the members are then `a.rows`; in C the struct is `layer_norm_args`.
#ifdef GL_core_profile
#define u32 uint
#define i32 int
#define f32 float
#define QN_ARGS_BEGIN(name) layout(push_constant, std430) uniform Args {
#define QN_ARGS_END(name) } a;
#else
#ifndef QN_ARGS_H
#define QN_ARGS_H
#include <stdint.h>
typedef uint32_t u32;
typedef int32_t i32;
typedef float f32;
#define QN_ARGS_BEGIN(name) typedef struct name##_args {
#define QN_ARGS_END(name)                                                                          \
    }                                                                                              \
    name##_args;                                                                                   \
    _Static_assert(sizeof(name##_args) <= 128, #name ": more than 128 bytes of arguments");
#endif
#endif
