// The rate of dot products of four signed bytes: 24 sums, 8 steps a round, 8 operations a step.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#include "types.glsl"
#include "args.h"
#include "args/peak.h"
// OpSDotKHR on packed words; the capabilities are DotProduct and DotProductInput4x8BitPacked.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018],
                  id = 4450)
int dot_of_bytes(int x, int y, spirv_literal int packed);
#define VALUE int
#define SUMS 24
#define STEP(v) (dot_of_bytes(v, floatBitsToInt(a.factor), 0) + floatBitsToInt(a.term))
#define FLOATS(v) float(v)
#include "peak.glsl"
