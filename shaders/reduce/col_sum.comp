// y[first + b, c] = sum over the rows r of block b of x[r, c], in order.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/col_sum.h"

layout(constant_id = 1) const uint ODD = 0; // the width is not a multiple of four

BIND_T(0, x)
BIND_OUT(1, y)

// Groups are spread over columns (x) and blocks (y and beyond).
void main()
{
    uint c = gl_GlobalInvocationID.x;
    uint unit = ODD == 1 ? 1 : 4, columns = a.width / unit;
    if (c >= columns) return;
    uint blocks = (a.rows + a.block - 1) / a.block;
    for (uint b = gl_WorkGroupID.y; b < blocks; b += gl_NumWorkGroups.y) {
        uint r = b * a.block, end = min(r + a.block, a.rows);
        if (ODD == 1) {
            float s = 0.0;
            for (; r < end; r++) s += LOAD1(x, r * columns + c);
            y_1[(a.first + b) * columns + c] = s;
        } else {
            vec4 s = vec4(0.0);
            for (; r + 4 <= end; r += 4)
                [[unroll]] for (uint k = 0; k < 4; k++) s += LOAD4(x, (r + k) * columns + c);
            for (; r < end; r++) s += LOAD4(x, r * columns + c);
            y[(a.first + b) * columns + c] = s;
        }
    }
}
