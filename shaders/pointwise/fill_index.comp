// y[i] = start + i. The engine's own self-test kernel.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/fill_index.h"

BIND_W(0, y, uint)

void main()
{
    uint i = gl_GlobalInvocationID.x;
    if (i < a.count) y[i] = a.start + i;
}
