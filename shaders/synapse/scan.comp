// The states before each chunk, one chunk after another, with S of solve.comp:
//   u = S (v - diag(e^g) K M),  w = beta u,  M = e^{g_n} M + (diag(e^{g_n - g}) K)' w
// One workgroup of 64 per pair and 16 columns of M.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

layout(constant_id = 3) const uint START = 0;

BIND_T(0, k)
BIND_T(1, v)
BIND_T(2, beta)
BIND_T(3, g)
BIND_T(4, planes)
BIND_T(5, start)
BIND_RW(6, end, float)
BIND_W(7, states, float)
BIND_W(8, u, float)

const uint WIDE = 16;
shared float m[128 * WIDE], left[CHUNK * WIDE], right[CHUNK * WIDE], bs[CHUNK];
shared vec2 gs[CHUNK];

void main()
{
    uint lane = gl_LocalInvocationID.x, local = gl_WorkGroupID.y, pair = a.first_pair + local;
    uint c = lane % WIDE, first = lane / WIDE, step = 64u / WIDE;
    uint j = gl_WorkGroupID.x * WIDE + c, column = min(j, a.dv - 1u), base = pair * a.dk * a.dv;
    uint half_size = a.pairs * a.chunks * CHUNK * CHUNK;
    bool mine = j < a.dv;

    for (uint d = first; d < a.dk; d += step) {
        float x = 0.0;
        if (START == FROM_GIVEN) x = LOAD1(start, base + d * a.dv + column);
        if (START == FROM_LAST) x = end[base + d * a.dv + column];
        m[d * WIDE + c] = x;
    }
    for (uint chunk = a.first; chunk < a.first + a.count; chunk++) {
        uint n = chunk_tokens(chunk), t0 = chunk * CHUNK;
        if (lane < CHUNK) {
            uint at = CHUNK_AT(local, chunk) + lane;
            gs[lane] = vec2(LOAD1(g, at), LOAD1(g, at + CHUNK));
            bs[lane] = LOAD1(beta, synapse_row(pair, t0 + min(lane, n - 1u)));
        }
        barrier();
        uint to = STATE_AT(local, chunk);
        for (uint d = first; d < a.dk; d += step)
            if (mine) states[to + d * a.dv + j] = m[d * WIDE + c];
        for (uint i = first; i < CHUNK; i += step) {
            float x = 0.0;
            if (i < n) {
                uint row = synapse_row(pair, t0 + i);
                for (uint d = 0; d < a.dk; d++) x += LOAD1(k, row * a.dk + d) * m[d * WIDE + c];
                x = LOAD1(v, row * a.dv + column) - exp_exact(gs[i].x) * x;
            }
            left[i * WIDE + c] = x;
        }
        barrier();
        uint plane = half_size + PLANE_AT(local, chunk);
        for (uint i = first; i < CHUNK; i += step) {
            float x = 0.0;
            for (uint s = 0; s <= i; s++)
                x += LOAD1(planes, plane + i * CHUNK + s) * left[s * WIDE + c];
            if (i < n && mine) u[synapse_row(pair, t0 + i) * a.dv + j] = x;
            right[i * WIDE + c] = i < n ? fade_from(gs[i], gs[CHUNK - 1u]) * bs[i] * x : 0.0;
        }
        barrier();
        float fade = exp_exact(gs[CHUNK - 1u].x);
        for (uint d = first; d < a.dk; d += step) {
            float x = 0.0;
            for (uint i = 0; i < n; i++)
                x += LOAD1(k, synapse_row(pair, t0 + i) * a.dk + d) * right[i * WIDE + c];
            m[d * WIDE + c] = fade * m[d * WIDE + c] + x;
        }
        barrier();
    }
    for (uint d = first; d < a.dk; d += step)
        if (mine) end[base + d * a.dv + j] = m[d * WIDE + c];
}
