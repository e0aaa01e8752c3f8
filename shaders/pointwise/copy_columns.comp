// y[row, to + c] = x[row, from + c] for a range of columns, or 0. Lanes hold four columns.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/copy_columns.h"

layout(constant_id = 1) const bool QUADS = true; // widths and offsets are multiples of four
layout(constant_id = 2) const bool ZERO = false;

BIND_T(0, x)
BIND_OUT(1, y)

void main()
{
    uint c = (gl_WorkGroupID.x * GROUP + gl_LocalInvocationID.x) * 4u;
    uint first = gl_WorkGroupID.y * a.block;
    for (uint row = first; row < min(first + a.block, a.rows); row++) {
        uint in0 = row * a.from_row + a.from, out0 = row * a.to_row + a.to + c;
        if (QUADS) {
            vec4 v = vec4(0.0);
            if (!ZERO) v = LOAD4(x, (in0 + min(c, a.width - 4u)) >> 2);
            if (c < a.width) y[out0 >> 2] = v;
        } else {
            [[unroll]] for (uint p = 0; p < 4u; p++) {
                float v = ZERO ? 0.0 : LOAD1(x, in0 + min(c + p, a.width - 1u));
                if (c + p < a.width) y_1[out0 + p] = v;
            }
        }
    }
}
