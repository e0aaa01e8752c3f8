// z[i][j] = scale * <x_i, y_j>, x a query row and y a key row, for the keys that a tile of 32 rows
// sees. 32 x 32 values per workgroup.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool QUADS = true; // width is a multiple of four

BIND_T(0, x)
BIND_T(1, y)
BIND_R(2, used, int)
BIND_W(3, z, vec4)
#include "attention/stick.glsl"
#include "attention/stick_tile.glsl"

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z;
    uint i0 = gl_WorkGroupID.y * SIDE, j0 = gl_WorkGroupID.x * SIDE;
    if (j0 >= stick_extent(i0, SIDE, n)) return;

    uint row[2], key[2];
    [[unroll]] for (uint u = 0; u < 2; u++) {
        uint at = (lane + u * 64u) >> 2;
        row[u] = stick_query_base(pair, min(i0 + at, a.rows - 1u));
        key[u] = stick_key_base(pair, min(j0 + at, a.keys - 1u));
    }
    stick_clear();
    for (uint d0 = 0; d0 < a.width; d0 += DEPTH) {
        [[unroll]] for (uint u = 0; u < 2; u++) {
            uint q = lane + u * 64u, d = d0 + (q & 3u) * 4u;
            vec4 xs = vec4(0.0), ys = vec4(0.0);
            if (d < a.width) {
                xs = STICK_LOAD4(x, row[u], d);
                ys = STICK_LOAD4(y, key[u], d);
            }
            STICK_ALONG_TERMS(STICK_LEFT, q, xs)
            STICK_ALONG_TERMS(STICK_RIGHT, q, ys)
        }
        stick_multiply(lane);
    }

    uint j = j0 + (lane & 7u) * 4u;
    if (j >= a.stride) return;
    [[unroll]] for (uint u = 0; u < 4; u++) {
        uint i = i0 + (lane >> 3) + u * 8u;
        if (i < a.rows)
            z[((gl_WorkGroupID.z * a.rows + i) * a.stride + j) >> 2] = a.scale * stick_sum[u];
    }
}
