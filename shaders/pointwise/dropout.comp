// y = 0 with probability threshold / 2^32, else factor x. Element e is decided by word e % 4 of
// random block e / 4 of (seed, stream), wherever the window starts. [philox]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "args.h"
#include "args/dropout.h"

BIND_T(0, x)
BIND_R(1, seed, uint)
BIND_OUT(2, y)

uint key;

vec4 value(uint i)
{
    bvec4 drop = lessThan(random4(key, a.stream, a.first + i), uvec4(a.threshold));
    return mix(a.factor * LOAD4(x, i), vec4(0.0), drop);
}

void main()
{
    key = seed[0];
    EACH_STORE(y, a.count, value)
}
