// o = diag(e^g) Q M + P diag(beta) u, with the states of scan.comp and P of solve.comp.
// 32 tokens x 32 columns per workgroup of 64.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"
#include "attention/stick_tile.glsl"

BIND_T(0, q)
BIND_T(1, beta)
BIND_T(2, g)
BIND_T(3, planes)
BIND_T(4, states)
BIND_T(5, u)
BIND_OUT(6, o)

void main()
{
    uint lane = gl_LocalInvocationID.x, chunk = gl_WorkGroupID.y, local = gl_WorkGroupID.z;
    uint pair = a.first_pair + local, n = chunk_tokens(chunk), t0 = chunk * CHUNK;
    uint j0 = gl_WorkGroupID.x * SIDE, m0 = STATE_AT(local, chunk);
    stick_clear();
    for (uint d0 = 0; d0 < a.dk; d0 += DEPTH) {
        [[unroll]] for (uint part = 0; part < 2u; part++) {
            uint at = lane + part * 64u, i = min(at >> 2, n - 1u), d = d0 + (at & 3u) * 4u;
            vec4 x = vec4(0.0), y = vec4(0.0);
            if (d < a.dk)
                x = exp_exact(LOAD1(g, CHUNK_AT(local, chunk) + i)) *
                    KEY4(q, synapse_row(pair, t0 + i) * a.dk, d);
            STICK_ALONG_TERMS(STICK_LEFT, at, x)
            uint row = d0 + (at >> 3), j = j0 + (at & 7u) * 4u;
            if (row < a.dk) y = VALUE4(states, m0 + row * a.dv, j);
            STICK_ALONG_SIDE(STICK_RIGHT, at, y)
        }
        stick_multiply(lane);
    }
    for (uint s0 = 0; s0 < CHUNK; s0 += DEPTH) {
        [[unroll]] for (uint part = 0; part < 2u; part++) {
            uint at = lane + part * 64u;
            uint p0 = PLANE_AT(local, chunk) + (at >> 2) * CHUNK + s0 + (at & 3u) * 4u;
            vec4 x = LOAD4(planes, p0 >> 2);
            STICK_ALONG_TERMS(STICK_LEFT, at, x)
            uint row = synapse_row(pair, t0 + min(s0 + (at >> 3), n - 1u));
            vec4 y = LOAD1(beta, row) * VALUE4(u, row * a.dv, j0 + (at & 7u) * 4u);
            STICK_ALONG_SIDE(STICK_RIGHT, at, y)
        }
        stick_multiply(lane);
    }
    [[unroll]] for (uint part = 0; part < 4u; part++) {
        uint i = (lane >> 3) + part * 8u;
        if (i < n)
            VALUE_STORE4(o, synapse_row(pair, t0 + i) * a.dv, j0 + (lane & 7u) * 4u,
                         stick_sum[part])
    }
}
