// y = x0 + x1 + .. from left to right, COUNT terms.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/sum_of.h"

layout(constant_id = 1) const uint COUNT = 1;

BIND_T(0, x0)
BIND_T(1, x1)
BIND_T(2, x2)
BIND_T(3, x3)
BIND_T(4, x4)
BIND_T(5, x5)
BIND_T(6, x6)
BIND_T(7, x7)
BIND_OUT(8, y)

vec4 value(uint i)
{
    vec4 s = LOAD4(x0, i);
    if (COUNT > 1) s += LOAD4(x1, i);
    if (COUNT > 2) s += LOAD4(x2, i);
    if (COUNT > 3) s += LOAD4(x3, i);
    if (COUNT > 4) s += LOAD4(x4, i);
    if (COUNT > 5) s += LOAD4(x5, i);
    if (COUNT > 6) s += LOAD4(x6, i);
    if (COUNT > 7) s += LOAD4(x7, i);
    return s;
}

void main() { EACH_STORE(y, a.count, value) }
