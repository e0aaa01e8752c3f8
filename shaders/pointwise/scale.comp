// y = factor x + offset.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/scale.h"

BIND_T(0, x)
BIND_OUT(1, y)

vec4 value(uint i) { return a.factor * LOAD4(x, i) + a.offset; }

void main() { EACH_STORE(y, a.count, value) }
