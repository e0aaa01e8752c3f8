// out_j = scale * sum_i w[i][j] x_i over the rows that see key j; w a plane, x a query row.
// CPU drivers: tiles of 16 keys, lane = four columns; the weights of four rows are loaded one quad
// per lane and shuffled.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool QUADS = true; // width is a multiple of four
layout(constant_id = 2) const uint WIDE = 1;     // quads of columns per lane

BIND_T(0, w)
BIND_T(1, x)
BIND_R(2, used, int)
BIND_RW(3, result, float)
#include "attention/stick.glsl"

const uint PARTS = 16u / GROUP;

float weight(vec4 ws[PARTS], uint k, uint j)
{
    uint at = k * 4u + (j >> 2);
    return subgroupShuffle(ws[at / GROUP][j & 3u], at % GROUP);
}

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z;
    uint j0 = gl_WorkGroupID.y * 16u, d0 = gl_WorkGroupID.x * GROUP * WIDE * 4u + lane * 4u;
    uint row0 = stick_query_base(pair, 0), step = a.heads * a.width;
    uint plane = gl_WorkGroupID.z * a.rows;

    uint column[PARTS];
    uvec4 first[PARTS]; // first row that sees each key of the quads that this lane loads
    [[unroll]] for (uint p = 0; p < PARTS; p++) {
        uint j = j0 + ((p * GROUP + lane) & 3u) * 4u;
        column[p] = min(j, a.stride - 4u);
        first[p] = uvec4(stick_first(j, n), stick_first(j + 1u, n), stick_first(j + 2u, n),
                         stick_first(j + 3u, n));
    }
    vec4 sum[16 * WIDE];
    [[unroll]] for (uint j = 0; j < 16u * WIDE; j++) sum[j] = vec4(0.0);
    for (uint i = stick_first(j0, n); i < a.rows; i += 4) {
        vec4 ws[PARTS];
        [[unroll]] for (uint p = 0; p < PARTS; p++) {
            uint row = i + ((p * GROUP + lane) >> 2);
            vec4 v = LOAD4(w, ((plane + min(row, a.rows - 1u)) * a.stride + column[p]) >> 2);
            uint end = row < a.rows ? row + 1u : 0u;
            ws[p] = mix(vec4(0.0), v, lessThan(first[p], uvec4(end)));
        }
        vec4 xs[4 * WIDE];
        [[unroll]] for (uint k = 0; k < 4; k++) {
            uint row = row0 + min(i + k, a.rows - 1u) * step;
            [[unroll]] for (uint c = 0; c < WIDE; c++)
                xs[c * 4u + k] = STICK_LOAD4(x, row, d0 + c * GROUP * 4u);
        }
        // The weight of row k and key j is held by the lane of quad k * 4 + j / 4.
        [[unroll]] for (uint c = 0; c < WIDE; c++)
            [[unroll]] for (uint j = 0; j < 16; j++) {
                vec4 s = weight(ws, 0u, j) * xs[c * 4u];
                s += weight(ws, 1u, j) * xs[c * 4u + 1u];
                s += weight(ws, 2u, j) * xs[c * 4u + 2u];
                s += weight(ws, 3u, j) * xs[c * 4u + 3u];
                sum[j * WIDE + c] += s;
            }
    }

    bool add = (a.flags & STICK_ADD) != 0u;
    [[unroll]] for (uint j = 0; j < 16; j++) {
        if (j0 + j >= a.keys) return;
        uint base = stick_key_base(pair, j0 + j);
        [[unroll]] for (uint c = 0; c < WIDE; c++) {
            [[unroll]] for (uint l = 0; l < 4; l++) {
                uint d = d0 + c * GROUP * 4u + l;
                float s = a.scale * sum[j * WIDE + c][l];
                if (d < a.width) result[base + d] = add ? result[base + d] + s : s;
            }
        }
    }
}
