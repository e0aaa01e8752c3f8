// Integers read four at a time. The flat form fetches them as texels of f32 and keeps the bits:
// nothing is computed before the cast, so even words that spell a NaN or a subnormal arrive whole.
//
//   BIND_TI(b, name)  a 't' binding that holds i32
//   LOAD4I(name, i)   ivec4 number i
#ifdef QN_FLAT
#define BIND_TI(b, name) BIND_T(b, name)
#define LOAD4I(name, i) floatBitsToInt(LOAD4(name, i))
#else
#define BIND_TI(b, name)                                                                           \
    layout(set = 0, binding = b, std430) readonly buffer name##_block { ivec4 name[]; };
#define LOAD4I(name, i) name[i]
#endif
