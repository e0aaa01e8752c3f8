// y[first + b] = sum, or sum of squares, of block b of x. A block has BLOCK elements whatever the
// device, so that the order of the sum depends on the length alone.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/sum_blocks.h"

layout(constant_id = 1) const uint SQUARES = 0;
layout(constant_id = 2) const uint BLOCK = 8192;
const uint WAYS = 4; // independent sums per invocation

BIND_T(0, x)
BIND_W(1, y, float)

// vec4 i, with zeros beyond the end.
vec4 term(uint i)
{
    vec4 v = 4 * i < a.count ? LOAD4(x, i) : vec4(0.0);
    bvec4 in_ = lessThan(4 * i + uvec4(0, 1, 2, 3), uvec4(a.count));
    v = mix(vec4(0.0), v, in_);
    return SQUARES == 1 ? v * v : v;
}

void main()
{
    uint blocks = (a.count + BLOCK - 1) / BLOCK, groups = gl_NumWorkGroups.x * gl_NumWorkGroups.y;
    for (uint b = group_index(); b < blocks; b += groups) {
        vec4 s[WAYS];
        [[unroll]] for (uint k = 0; k < WAYS; k++) s[k] = vec4(0.0);
        uint first = b * (BLOCK / 4), end = min(first + BLOCK / 4, (a.count + 3) / 4);
        for (uint i = first + gl_LocalInvocationID.x; i < end; i += WAYS * GROUP)
            [[unroll]] for (uint k = 0; k < WAYS; k++) s[k] += term(i + k * GROUP);
        vec4 t = (s[0] + s[1]) + (s[2] + s[3]);
        float total = group_sum((t.x + t.y) + (t.z + t.w));
        if (gl_LocalInvocationID.x == 0) y[a.first + b] = total;
    }
}
