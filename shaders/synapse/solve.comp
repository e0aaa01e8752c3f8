// What a chunk needs before any state is known. With D_ij = exp(g_i - g_j) and
// L_ij = D_ij <k_i, k_j> beta_j (LEFT: beta_i), j < i:
//   P_ij = D_ij <q_i, k_j>, j <= i, else 0;   S = (I + L)^-1
// One workgroup of 64 per pair and chunk: 32 x 32 products by 4 x 4, then a column of S per
// invocation by forward substitution.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"
#include "attention/stick_tile.glsl"

layout(constant_id = 3) const bool LEFT = false;

BIND_T(0, q)
BIND_T(1, k)
BIND_T(2, beta)
BIND_T(3, g)
BIND_W(4, planes, float) // P of a block's chunks, then S

shared float lower[CHUNK * (CHUNK + 1)], inverse[CHUNK * (CHUNK + 1)];
shared float bs[CHUNK];
shared vec2 gs[CHUNK];

#define PRODUCT(name)                                                                              \
    stick_clear();                                                                                 \
    for (uint d0 = 0; d0 < a.dk; d0 += DEPTH) {                                                    \
        [[unroll]] for (uint part = 0; part < 2u; part++) {                                        \
            uint at = lane + part * 64u, d = d0 + (at & 3u) * 4u;                                  \
            uint r = synapse_row(pair, t0 + min(at >> 2, n - 1u)) * a.dk;                          \
            vec4 left = vec4(0.0), right = vec4(0.0);                                              \
            if (d < a.dk) {                                                                        \
                left = KEY4(name, r, d);                                                           \
                right = KEY4(k, r, d);                                                             \
            }                                                                                      \
            STICK_ALONG_TERMS(STICK_LEFT, at, left)                                                \
            STICK_ALONG_TERMS(STICK_RIGHT, at, right)                                              \
        }                                                                                          \
        stick_multiply(lane);                                                                      \
    }

void main()
{
    uint lane = gl_LocalInvocationID.x, chunk = gl_WorkGroupID.x, local = gl_WorkGroupID.y;
    uint pair = a.first_pair + local, n = chunk_tokens(chunk), t0 = chunk * CHUNK;
    uint out0 = PLANE_AT(local, chunk), half_size = a.pairs * a.chunks * CHUNK * CHUNK;
    if (lane < CHUNK) {
        uint at = CHUNK_AT(local, chunk) + lane;
        gs[lane] = vec2(LOAD1(g, at), LOAD1(g, at + CHUNK));
        bs[lane] = LOAD1(beta, synapse_row(pair, t0 + min(lane, n - 1u)));
    }
    barrier();

    PRODUCT(q)
    [[unroll]] for (uint u = 0; u < 4u; u++) {
        uint i = (lane >> 3) + u * 8u;
        [[unroll]] for (uint c = 0; c < 4u; c++) {
            uint j = (lane & 7u) * 4u + c;
            float fade = fade_from(gs[j], gs[i]);
            planes[out0 + i * CHUNK + j] = j <= i && i < n ? fade * stick_sum[u][c] : 0.0;
        }
    }
    PRODUCT(k)
    [[unroll]] for (uint u = 0; u < 4u; u++) {
        uint i = (lane >> 3) + u * 8u;
        [[unroll]] for (uint c = 0; c < 4u; c++) {
            uint j = (lane & 7u) * 4u + c;
            float fade = fade_from(gs[j], gs[i]) * bs[LEFT ? i : j];
            lower[i * (CHUNK + 1u) + j] = j < i && i < n ? fade * stick_sum[u][c] : 0.0;
        }
    }
    barrier();
    if (lane < CHUNK)
        for (uint i = 0; i < CHUNK; i++) {
            float x = i == lane ? 1.0 : 0.0;
            for (uint m = lane; m < i; m++)
                x -= lower[i * (CHUNK + 1u) + m] * inverse[m * (CHUNK + 1u) + lane];
            inverse[i * (CHUNK + 1u) + lane] = x;
        }
    barrier();
    for (uint e = lane; e < CHUNK * CHUNK; e += 64u) {
        uint i = e / CHUNK, j = e % CHUNK;
        planes[half_size + out0 + e] = j <= i ? inverse[i * (CHUNK + 1u) + j] : 0.0;
    }
}
