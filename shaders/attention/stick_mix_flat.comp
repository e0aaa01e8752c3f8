// out_i = scale * sum_j w[i][j] y_j over the keys that row i sees; w a plane, y a key row.
// CPU drivers: tiles of TM rows, lane = four columns; weights are loaded one row per lane and
// shuffled.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool QUADS = true; // width is a multiple of four
layout(constant_id = 2) const uint TM = 16;      // rows of a tile
layout(constant_id = 3) const uint WIDE = 1;     // quads of columns per lane

BIND_T(0, w)
BIND_T(1, y)
BIND_R(2, used, int)
BIND_W(3, result, float)
#include "attention/stick.glsl"

const uint PARTS = (TM + GROUP - 1u) / GROUP;

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z;
    uint i0 = gl_WorkGroupID.y * TM, d0 = gl_WorkGroupID.x * GROUP * WIDE * 4u + lane * 4u;
    uint quads = stick_extent(i0, TM, n) >> 2;

    uint row[PARTS];
    [[unroll]] for (uint p = 0; p < PARTS; p++)
        row[p] = (gl_WorkGroupID.z * a.rows + min(i0 + p * GROUP + lane, a.rows - 1u)) *
                 (a.stride >> 2);
    uint key0 = stick_key_base(pair, 0), step = a.heads * a.width;

    vec4 sum[TM * WIDE];
    [[unroll]] for (uint i = 0; i < TM * WIDE; i++) sum[i] = vec4(0.0);
    for (uint quad = 0; quad < quads; quad++) {
        vec4 ws[PARTS], ys[4 * WIDE];
        [[unroll]] for (uint p = 0; p < PARTS; p++) ws[p] = LOAD4(w, row[p] + quad);
        [[unroll]] for (uint k = 0; k < 4; k++) {
            uint key = key0 + min(quad * 4u + k, n - 1u) * step;
            [[unroll]] for (uint c = 0; c < WIDE; c++)
                ys[c * 4u + k] = STICK_LOAD4(y, key, d0 + c * GROUP * 4u);
        }
        [[unroll]] for (uint c = 0; c < WIDE; c++)
            [[unroll]] for (uint i = 0; i < TM; i++)
                sum[i * WIDE + c] += stick_four(ws[i / GROUP], i % GROUP, ys[c * 4u],
                                                ys[c * 4u + 1u], ys[c * 4u + 2u], ys[c * 4u + 3u]);
    }

    [[unroll]] for (uint i = 0; i < TM; i++) {
        if (i0 + i >= a.rows) return;
        uint base = stick_query_base(pair, i0 + i);
        [[unroll]] for (uint c = 0; c < WIDE; c++)
            STICK_STORE4(result, base, d0 + c * GROUP * 4u, a.scale * sum[i * WIDE + c])
    }
}
