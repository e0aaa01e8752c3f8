// z[i][j] = scale * <x_i, y_j>, x a query row and y a key row, for the keys that the tile of TM
// rows sees. CPU drivers: lane = four keys; the tile's rows are loaded one per lane and shuffled.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool QUADS = true; // width is a multiple of four
layout(constant_id = 2) const uint TM = 16;      // rows of a tile

BIND_T(0, x)
BIND_T(1, y)
BIND_R(2, used, int)
BIND_W(3, z, vec4)
#include "attention/stick.glsl"

const uint PARTS = (TM + GROUP - 1u) / GROUP;

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z;
    uint i0 = gl_WorkGroupID.y * TM, j0 = gl_WorkGroupID.x * GROUP * 4u;
    if (j0 >= stick_extent(i0, TM, n)) return;

    uint row[PARTS], key[4];
    [[unroll]] for (uint p = 0; p < PARTS; p++)
        row[p] = stick_query_base(pair, min(i0 + p * GROUP + lane, a.rows - 1u));
    [[unroll]] for (uint c = 0; c < 4; c++)
        key[c] = stick_key_base(pair, min(j0 + lane * 4u + c, a.keys - 1u));

    vec4 sum[TM];
    [[unroll]] for (uint i = 0; i < TM; i++) sum[i] = vec4(0.0);
    for (uint d = 0; d < a.width; d += 4) {
        vec4 xs[PARTS], ys[4], b[4];
        [[unroll]] for (uint p = 0; p < PARTS; p++) xs[p] = STICK_LOAD4(x, row[p], d);
        [[unroll]] for (uint c = 0; c < 4; c++) ys[c] = STICK_LOAD4(y, key[c], d);
        [[unroll]] for (uint k = 0; k < 4; k++) // column d + k of the lane's keys
            b[k] = vec4(ys[0][k], ys[1][k], ys[2][k], ys[3][k]);
        [[unroll]] for (uint i = 0; i < TM; i++)
            sum[i] += stick_four(xs[i / GROUP], i % GROUP, b[0], b[1], b[2], b[3]);
    }

    if (j0 + lane * 4u >= a.stride) return;
    uint out0 = ((gl_WorkGroupID.z * a.rows + i0) * a.stride + j0 + lane * 4u) >> 2;
    [[unroll]] for (uint i = 0; i < TM; i++)
        if (i0 + i < a.rows) z[out0 + i * (a.stride >> 2)] = a.scale * sum[i];
}
