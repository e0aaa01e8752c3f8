// Gradients of norm.comp to w and b, one row of sums per block of rows (col_sum.comp adds them):
//   dw[first + k, c] = sum of dy[r, c] (x[r, c] - m[r]) r[r], db[first + k, c] = sum of dy[r, c]
// stats holds (m, r) of two rows per vec4; a block has an even number of rows.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/norm_grad_w.h"

layout(constant_id = 1) const uint ODD = 0;  // the width is not a multiple of four
layout(constant_id = 2) const uint BIAS = 0; // db is wanted

BIND_T(0, dy)
BIND_T(1, x)
BIND_T(2, stats)
BIND_OUT(3, dw)
BIND_OUT(4, db)

void sum_block(uint b, uint c, uint columns)
{
    uint end = min((b + 1) * a.block, a.rows);
    vec4 s = vec4(0.0), t = vec4(0.0);
    for (uint r = b * a.block; r < end; r += 2) {
        vec4 stat = LOAD4(stats, r / 2);
        [[unroll]] for (uint k = 0; k < 2; k++) {
            // Beyond the last row: that row again, counted as nothing.
            uint at = min(r + k, end - 1) * columns + c;
            float mean = k == 0 ? stat.x : stat.z, scale = k == 0 ? stat.y : stat.w;
            vec4 g, v;
            if (ODD == 1) {
                g = vec4(LOAD1(dy, at));
                v = vec4(LOAD1(x, at));
            } else {
                g = LOAD4(dy, at);
                v = LOAD4(x, at);
            }
            bool in_ = r + k < end;
            s += in_ ? g * (v - mean) * scale : vec4(0.0);
            if (BIAS == 1) t += in_ ? g : vec4(0.0);
        }
    }
    uint to = (a.first + b) * columns + c;
    if (ODD == 1) {
        dw_1[to] = s.x;
        if (BIAS == 1) db_1[to] = t.x;
    } else {
        dw[to] = s;
        if (BIAS == 1) db[to] = t;
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
