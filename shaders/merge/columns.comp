// x.x, x.z and z.z of every column, over blocks of rows; of the differences to base when HAS_BASE.
// One invocation per column and block.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/merge_columns.h"
layout(constant_id = 1) const uint HAS_BASE = 1;
#include "merge/merge.glsl"

BIND_X(0, x)
BIND_X(1, z)
BIND_X(2, base)
BIND_W(3, sums, float) // [blocks, columns, 3]

void main()
{
    uint item = group_index() * GROUP + gl_LocalInvocationID.x;
    uint block = item / a.width, column = item - block * a.width;
    uint from = block * a.block, to = min(from + a.block, a.rows);
    if (from >= a.rows) return;
    float s[3] = float[3](0.0, 0.0, 0.0);
    for (uint row = from; row < to; row++) {
        uint e = row * a.width + column;
        float b = HAS_BASE == 1 ? LOADX1(base, e) : 0.0;
        float u = LOADX1(x, e) - b, v = LOADX1(z, e) - b;
        s[0] += u * u;
        s[1] += u * v;
        s[2] += v * v;
    }
    uint o = 3 * ((a.first + block) * a.width + column);
    [[unroll]] for (uint k = 0; k < 3; k++) sums[o + k] = s[k];
}
