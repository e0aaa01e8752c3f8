// y = factor x + offset.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/scale.h"

BIND_T(0, x)
BIND_OUT(1, y)

void main()
{
    EACH4(i, a.count) STORE4(y, i, a.factor * LOAD4(x, i) + a.offset, a.count);
}
