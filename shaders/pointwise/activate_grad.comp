// dx = dy act'(x), the qn_activation ACT.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "args.h"
#include "args/activate_grad.h"

layout(constant_id = 1) const uint ACT = 0;

BIND_T(0, dy)
BIND_T(1, x)
BIND_OUT(2, dx)

vec4 value(uint i) { return LOAD4(dy, i) * activate_grad(ACT, LOAD4(x, i)); }

void main() { EACH_STORE(dx, a.count, value) }
