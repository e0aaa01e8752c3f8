// y = act(x), the qn_activation ACT.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "args.h"
#include "args/activate.h"

layout(constant_id = 1) const uint ACT = 0;

BIND_T(0, x)
BIND_OUT(1, y)

vec4 value(uint i) { return activate(ACT, LOAD4(x, i)); }

void main() { EACH_STORE(y, a.count, value) }
