// y[i] = x[i] + SCALE t[i], whole vec4 only. The engine's self-test of 'x' and 't' bindings.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/load_x.h"

layout(constant_id = 1) const uint SCALE = 1;

BIND_X(0, x)
BIND_T(1, t)
BIND_W(2, y, vec4)

void main()
{
    uint i = gl_GlobalInvocationID.x;
    if (4 * i < a.count) y[i] = LOADX4(x, i) + float(SCALE) * LOAD4(t, i);
}
