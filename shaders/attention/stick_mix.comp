// out_i = scale * sum_j w[i][j] y_j over the keys that row i sees; w a plane, y a key row.
// 32 rows x 32 columns per workgroup.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool QUADS = true; // width is a multiple of four

BIND_T(0, w)
BIND_T(1, y)
BIND_R(2, used, int)
BIND_W(3, result, float)
#include "attention/stick.glsl"
#include "attention/stick_tile.glsl"

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z;
    uint i0 = gl_WorkGroupID.y * SIDE, d0 = gl_WorkGroupID.x * SIDE;
    uint extent = stick_extent(i0, SIDE, n), plane = gl_WorkGroupID.z * a.rows;

    stick_clear();
    for (uint j0 = 0; j0 < extent; j0 += DEPTH) {
        [[unroll]] for (uint u = 0; u < 2; u++) {
            uint q = lane + u * 64u;
            uint row = min(i0 + (q >> 2), a.rows - 1u), j = j0 + (q & 3u) * 4u;
            vec4 ws = vec4(0.0);
            if (j < extent) ws = LOAD4(w, ((plane + row) * a.stride + j) >> 2);
            STICK_ALONG_TERMS(STICK_LEFT, q, ws)
            uint key = stick_key_base(pair, min(j0 + (q >> 3), n - 1u)), d = d0 + (q & 7u) * 4u;
            vec4 ys = STICK_LOAD4(y, key, d);
            STICK_ALONG_SIDE(STICK_RIGHT, q, ys)
        }
        stick_multiply(lane);
    }

    uint d = d0 + (lane & 7u) * 4u;
    [[unroll]] for (uint u = 0; u < 4; u++) {
        uint i = i0 + (lane >> 3) + u * 8u;
        if (i >= a.rows) return;
        STICK_STORE4(result, stick_query_base(pair, i), d, a.scale * stick_sum[u])
    }
}
