// For each slot a of row n = a / K: dy[a] = gates[a] dout[n] and dgates[a] = <y[a], dout[n]>.
// Without gates: dy[a] = dout[n] alone, which repeats rows.
// y [N*K, C], gates [N, K], dout [N, C] -> dy [N*K, C], dgates [N, K].
// A group takes slots a stride of all groups apart.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "each.glsl"
#include "args.h"
#include "args/combine.h"
#define ROW_WIDTH a.width
#include "rows.glsl"

layout(constant_id = 2) const uint CHOICES = 1; // K

BIND_T(0, y)
BIND_T(1, gates)
BIND_T(2, dout)
BIND_OUT(3, dy)
BIND_W(4, dgates, float)

void main()
{
    uint slots = a.rows * CHOICES;
    for (uint i = group_index(); i < slots; i += gl_NumWorkGroups.x * gl_NumWorkGroups.y) {
        float gate = a.gated != 0u ? LOAD1(gates, i) : 1.0;
        vec4 dot4 = vec4(0.0);
        for (uint c = gl_LocalInvocationID.x; c < row_chunks(); c += GROUP) {
            vec4 d = ROW4(dout, i / CHOICES, c);
            if (a.gated != 0u) dot4 += d * ROW4(y, i, c) * row_mask(c);
            STORE_ROW4(dy, i, c, gate * d)
        }
        if (a.gated != 0u) {
            float sum = group_sum(sum4(dot4));
            if (gl_LocalInvocationID.x == 0u) dgates[i] = sum;
        }
    }
}
