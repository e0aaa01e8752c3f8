// dq_i = sum_j X_ij k_j + e^{g_i} M do_i
// dk_i = sum_j X_ji q_j - sum_j (Y_ij + Y_ji) k_j + e^{g_n - g_i} G w_i - e^{g_i} M dv_i
// with M the state before the chunk, G the gradient of the one behind it; pairs.comp.
// 32 tokens x 32 key channels per workgroup of 64.
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
BIND_T(1, k)
BIND_T(2, dout)
BIND_T(3, dv)
BIND_T(4, u)
BIND_T(5, beta)
BIND_T(6, g)
BIND_T(7, planes)
BIND_T(8, states)
BIND_T(9, dstates)
BIND_OUT(10, dq)
BIND_OUT(11, dk)

// Adds sum_j weight(i, j) name_j over the chunk.
#define OVER_TOKENS(name, weight)                                                                  \
    for (uint s0 = 0; s0 < CHUNK; s0 += DEPTH) {                                                   \
        [[unroll]] for (uint part = 0; part < 2u; part++) {                                        \
            uint at = lane + part * 64u, i = at >> 2, s = s0 + (at & 3u) * 4u;                     \
            vec4 left = vec4(weight(i, s), weight(i, s + 1u), weight(i, s + 2u),                   \
                             weight(i, s + 3u));                                                   \
            STICK_ALONG_TERMS(STICK_LEFT, at, left)                                                \
            uint r = synapse_row(pair, t0 + min(s0 + (at >> 3), n - 1u));                          \
            vec4 right = KEY4(name, r * a.dk, d0 + (at & 7u) * 4u);                                \
            STICK_ALONG_SIDE(STICK_RIGHT, at, right)                                               \
        }                                                                                          \
        stick_multiply(lane);                                                                      \
    }
// Adds factor(i) times the state at `base` times name_i.
#define OVER_VALUES(name, factor, state, base)                                                     \
    for (uint e0 = 0; e0 < a.dv; e0 += DEPTH) {                                                    \
        [[unroll]] for (uint part = 0; part < 2u; part++) {                                        \
            uint at = lane + part * 64u, i = min(at >> 2, n - 1u), e = e0 + (at & 3u) * 4u;        \
            uint row = min(d0 + (at >> 2), a.dk - 1u);                                             \
            vec4 left = vec4(0.0), right = vec4(0.0);                                              \
            if (e < a.dv) {                                                                        \
                left = factor(i) * VALUE4(name, synapse_row(pair, t0 + i) * a.dv, e);              \
                right = VALUE4(state, base + row * a.dv, e);                                       \
            }                                                                                      \
            STICK_ALONG_TERMS(STICK_LEFT, at, left)                                                \
            STICK_ALONG_TERMS(STICK_RIGHT, at, right)                                              \
        }                                                                                          \
        stick_multiply(lane);                                                                      \
    }
#define STORE(name)                                                                                \
    [[unroll]] for (uint part = 0; part < 4u; part++) {                                            \
        uint i = (lane >> 3) + part * 8u;                                                          \
        if (i < n)                                                                                 \
            KEY_STORE4(name, synapse_row(pair, t0 + i) * a.dk, d0 + (lane & 7u) * 4u,              \
                       stick_sum[part])                                                            \
    }

uint pair, t0, x0, y0, g0;
vec2 g_of(uint i) { return vec2(LOAD1(g, g0 + i), LOAD1(g, g0 + CHUNK + i)); }
float read(uint i, uint s) { return LOAD1(planes, x0 + i * CHUNK + s); }
float written(uint i, uint s) { return LOAD1(planes, x0 + s * CHUNK + i); }
float erased(uint i, uint s)
{
    return -(LOAD1(planes, y0 + i * CHUNK + s) + LOAD1(planes, y0 + s * CHUNK + i));
}
float early(uint i) { return exp_exact(g_of(i).x); }
float undone(uint i) { return -early(i); }
float late(uint i)
{
    return fade_from(g_of(i), g_of(CHUNK - 1u)) * LOAD1(beta, synapse_row(pair, t0 + i));
}

void main()
{
    uint lane = gl_LocalInvocationID.x, chunk = gl_WorkGroupID.y, local = gl_WorkGroupID.z;
    uint n = chunk_tokens(chunk), d0 = gl_WorkGroupID.x * SIDE;
    uint m0 = STATE_AT(local, chunk), dm = STATE_GRAD_AT(local, chunk + 1u);
    pair = a.first_pair + local;
    t0 = chunk * CHUNK;
    g0 = CHUNK_AT(local, chunk);
    x0 = PLANE_AT(local, chunk);
    y0 = x0 + a.pairs * a.chunks * CHUNK * CHUNK;

    stick_clear();
    OVER_TOKENS(k, read)
    OVER_VALUES(dout, early, states, m0)
    STORE(dq)

    stick_clear();
    OVER_TOKENS(q, written)
    OVER_TOKENS(k, erased)
    OVER_VALUES(u, late, dstates, dm)
    OVER_VALUES(dv, undone, states, m0)
    STORE(dk)
}
