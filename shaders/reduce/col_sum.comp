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

void sum_block(uint b, uint c, uint columns)
{
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

// Groups are spread over columns (x) and blocks (y).
void main()
{
    uint columns = ODD == 1 ? a.width : a.width / 4, blocks = (a.rows + a.block - 1) / a.block;
    for (uint b = gl_WorkGroupID.y; b < blocks; b += gl_NumWorkGroups.y)
        for (uint c = gl_GlobalInvocationID.x; c < columns; c += gl_NumWorkGroups.x * GROUP)
            sum_block(b, c, columns);
}
