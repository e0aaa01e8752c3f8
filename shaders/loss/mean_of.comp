// total becomes total / count, 0 where nothing was counted.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

BIND_R(0, count, float)
BIND_RW(1, total, float)

void main()
{
    if (gl_LocalInvocationID.x == 0) total[0] = count[0] > 0.0 ? total[0] / count[0] : 0.0;
}
