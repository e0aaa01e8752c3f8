// Within a chunk, with D_ij = exp(g_i - g_j) and w = beta u:
//   X_ij = D_ij <do_i, w_j>, j <= i;   Y_ij = D_ij <dv_i, w_j>, j < i;   else 0
// One workgroup of 64 per pair and chunk.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"
#include "attention/stick_tile.glsl"

BIND_T(0, dout)
BIND_T(1, dv)
BIND_T(2, u)
BIND_T(3, beta)
BIND_T(4, g)
BIND_W(5, planes, float) // X of a block's chunks, then Y

// The plane at `to` from <name_i, w_j>, where `seen` holds.
#define PLANE(name, to, seen)                                                                      \
    stick_clear();                                                                                 \
    for (uint d0 = 0; d0 < a.dv; d0 += DEPTH) {                                                    \
        [[unroll]] for (uint part = 0; part < 2u; part++) {                                        \
            uint at = lane + part * 64u, d = d0 + (at & 3u) * 4u;                                  \
            uint r = synapse_row(pair, t0 + min(at >> 2, n - 1u));                                 \
            vec4 left = vec4(0.0), right = vec4(0.0);                                              \
            if (d < a.dv) {                                                                        \
                left = VALUE4(name, r * a.dv, d);                                                  \
                right = LOAD1(beta, r) * VALUE4(u, r * a.dv, d);                                   \
            }                                                                                      \
            STICK_ALONG_TERMS(STICK_LEFT, at, left)                                                \
            STICK_ALONG_TERMS(STICK_RIGHT, at, right)                                              \
        }                                                                                          \
        stick_multiply(lane);                                                                      \
    }                                                                                              \
    [[unroll]] for (uint part = 0; part < 4u; part++) {                                            \
        uint i = (lane >> 3) + part * 8u;                                                          \
        [[unroll]] for (uint c = 0; c < 4u; c++) {                                                 \
            uint j = (lane & 7u) * 4u + c;                                                         \
            float fade = fade_from(g_of(j), g_of(i));                                              \
            planes[(to) + i * CHUNK + j] = seen && i < n ? fade * stick_sum[part][c] : 0.0;        \
        }                                                                                          \
    }

vec2 g_of(uint i)
{
    uint at = CHUNK_AT(gl_WorkGroupID.y, gl_WorkGroupID.x) + i;
    return vec2(LOAD1(g, at), LOAD1(g, at + CHUNK));
}

void main()
{
    uint lane = gl_LocalInvocationID.x, chunk = gl_WorkGroupID.x, local = gl_WorkGroupID.y;
    uint pair = a.first_pair + local, n = chunk_tokens(chunk), t0 = chunk * CHUNK;
    uint x0 = PLANE_AT(local, chunk);
    uint y0 = x0 + a.pairs * a.chunks * CHUNK * CHUNK;
    PLANE(dout, x0, j <= i)
    PLANE(dv, y0, j < i)
}
