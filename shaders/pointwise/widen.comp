// y = x widened to f32; x stored as f16 or bf16, packed.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/widen.h"

BIND_X(0, x)
BIND_S(2, x)
BIND_OUT(1, y)

vec4 value(uint i) { return LOADX4(x, i); }

void main() { EACH_STORE(y, a.count, value) }
