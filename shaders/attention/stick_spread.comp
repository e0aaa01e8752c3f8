// out_j = scale * sum_i w[i][j] x_i over the rows that see key j; w a plane, x a query row.
// 32 keys x 32 columns per workgroup.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool QUADS = true; // width is a multiple of four

BIND_T(0, w)
BIND_T(1, x)
BIND_R(2, used, int)
BIND_RW(3, result, float)
#include "attention/stick.glsl"
#include "attention/stick_tile.glsl"

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z;
    uint j0 = gl_WorkGroupID.y * SIDE, d0 = gl_WorkGroupID.x * SIDE;
    uint plane = gl_WorkGroupID.z * a.rows;

    stick_clear();
    for (uint i0 = stick_first(j0, n); i0 < a.rows; i0 += DEPTH) {
        [[unroll]] for (uint u = 0; u < 2; u++) {
            uint q = lane + u * 64u, i = i0 + (q >> 3), j = j0 + (q & 7u) * 4u;
            uint row = min(i, a.rows - 1u), visible = i < a.rows ? stick_visible(i, n) : 0u;
            vec4 ws = vec4(0.0);
            if (j < visible) {
                ws = LOAD4(w, ((plane + row) * a.stride + j) >> 2);
                ws = mix(vec4(0.0), ws, lessThan(uvec4(j, j + 1u, j + 2u, j + 3u), uvec4(visible)));
            }
            STICK_ALONG_SIDE(STICK_LEFT, q, ws)
            vec4 xs = STICK_LOAD4(x, stick_query_base(pair, row), d0 + (q & 7u) * 4u);
            STICK_ALONG_SIDE(STICK_RIGHT, q, xs)
        }
        stick_multiply(lane);
    }

    bool add = (a.flags & STICK_ADD) != 0u;
    [[unroll]] for (uint u = 0; u < 4; u++) {
        uint j = j0 + (lane >> 3) + u * 8u;
        if (j >= a.keys) return;
        uint base = stick_key_base(pair, j);
        [[unroll]] for (uint c = 0; c < 4; c++) {
            uint d = d0 + (lane & 7u) * 4u + c;
            float s = a.scale * stick_sum[u][c];
            if (d < a.width) result[base + d] = add ? result[base + d] + s : s;
        }
    }
}
