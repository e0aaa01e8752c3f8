// changed[n, token] = penalised(changed[n, token] + bias) for every entry (token, bias, factor, less)
// of changes[n]: positive values are divided by the factor, others multiplied, then `less` is taken
// away. A negative token changes nothing; no token occurs twice in a row.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/sample.h"

BIND_R(0, changes, ivec4)
BIND_RW(1, changed, float)

void main()
{
    for (uint k = 0; k < PER; k++) {
        uint i = each_first() + k * GROUP;
        if (i >= a.count / 4) break;
        ivec4 c = changes[a.first + i];
        if (c.x < 0 || uint(c.x) >= a.vocab) continue;
        uint at = (a.first + i) / a.changes * a.stride + uint(c.x);
        vec3 by = intBitsToFloat(c.yzw);
        float x = changed[at] + by.x;
        changed[at] = (x > 0.0 ? x / by.y : x * by.y) - by.z;
    }
}
