// Within a chunk, with D_ij = exp(g_i - g_j) and w = beta u:
//   X_ij = D_ij <do_i, w_j>, j <= i;   Y_ij = D_ij <dv_i, w_j>, j < i;   else 0
// CPU drivers: 16 rows i, lane = four columns j; rows are loaded one per lane and shuffled.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

BIND_T(0, dout)
BIND_T(1, dv)
BIND_T(2, u)
BIND_T(3, beta)
BIND_T(4, g)
BIND_W(5, planes, vec4) // X of a block's chunks, then Y

const uint TM = 16;
const uint PARTS = (TM + GROUP - 1u) / GROUP;

void main()
{
    uint lane = gl_LocalInvocationID.x, chunk = gl_WorkGroupID.y, local = gl_WorkGroupID.z;
    uint pair = a.first_pair + local, n = chunk_tokens(chunk), t0 = chunk * CHUNK;
    uint i0 = gl_WorkGroupID.x % (CHUNK / TM) * TM;
    uint j0 = (gl_WorkGroupID.x / (CHUNK / TM) * GROUP + lane) * 4u;

    uint row[PARTS], column[4];
    [[unroll]] for (uint p = 0; p < PARTS; p++)
        row[p] = synapse_row(pair, t0 + min(i0 + p * GROUP + lane, n - 1u)) * a.dv;
    [[unroll]] for (uint c = 0; c < 4u; c++)
        column[c] = synapse_row(pair, t0 + min(j0 + c, n - 1u)) * a.dv;

    vec4 x[TM], y[TM];
    [[unroll]] for (uint i = 0; i < TM; i++) x[i] = y[i] = vec4(0.0);
    for (uint d = 0; d < a.dv; d += 4) {
        vec4 os[PARTS], vs[PARTS], us[4];
        [[unroll]] for (uint p = 0; p < PARTS; p++) {
            os[p] = VALUE4(dout, row[p], d);
            vs[p] = VALUE4(dv, row[p], d);
        }
        [[unroll]] for (uint c = 0; c < 4u; c++) us[c] = VALUE4(u, column[c], d);
        [[unroll]] for (uint e = 0; e < 4u; e++) {
            vec4 b = vec4(us[0][e], us[1][e], us[2][e], us[3][e]);
            [[unroll]] for (uint i = 0; i < TM; i++) {
                x[i] += subgroupShuffle(os[i / GROUP][e], i % GROUP) * b;
                y[i] += subgroupShuffle(vs[i / GROUP][e], i % GROUP) * b;
            }
        }
    }

    uint at = CHUNK_AT(local, chunk);
    uint gq = (at + min(j0, CHUNK - 4u)) >> 2;
    vec4 gj = LOAD4(g, gq), rest = LOAD4(g, gq + CHUNK / 4u), bj;
    [[unroll]] for (uint c = 0; c < 4u; c++) bj[c] = LOAD1(beta, column[c] / a.dv);
    vec2 gs[PARTS];
    [[unroll]] for (uint p = 0; p < PARTS; p++) {
        uint gi = at + min(i0 + p * GROUP + lane, CHUNK - 1u);
        gs[p] = vec2(LOAD1(g, gi), LOAD1(g, gi + CHUNK));
    }
    uint out0 = PLANE_AT(local, chunk), half_size = a.pairs * a.chunks * CHUNK * CHUNK;
    [[unroll]] for (uint i = 0; i < TM; i++) {
        uint t = i0 + i;
        vec2 gi = subgroupShuffle(gs[i / GROUP], i % GROUP);
        vec4 fade = exp_exact(min((gi.x - gj) + (gi.y - rest), 0.0)) * bj;
        uvec4 js = uvec4(j0) + uvec4(0u, 1u, 2u, 3u);
        bvec4 seen = lessThanEqual(js, uvec4(t)), older = lessThan(js, uvec4(t));
        if (t >= n) seen = older = bvec4(false);
        if (j0 >= CHUNK) continue;
        planes[(out0 + t * CHUNK + j0) >> 2] = mix(vec4(0.0), fade * x[i], seen);
        planes[(half_size + out0 + t * CHUNK + j0) >> 2] = mix(vec4(0.0), fade * y[i], older);
    }
}
