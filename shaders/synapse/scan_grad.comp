// The gradients of the states before each chunk, from the last chunk to the first. With P and S of
// solve.comp (LEFT) and G the gradient of the state behind the chunk:
//   dw = P' do + diag(e^{g_n - g}) K G,  dR = S' dw,  dv = beta dR
//   G = e^{g_n} G + (diag(e^g) Q)' do - (diag(beta e^g) K)' dR
// One workgroup of 64 per pair and 16 columns of G.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

layout(constant_id = 3) const uint END = 0;

BIND_T(0, q)
BIND_T(1, k)
BIND_T(2, beta)
BIND_T(3, g)
BIND_T(4, planes)
BIND_T(5, dout)
BIND_T(6, dend)
BIND_W(7, dv, float)
BIND_W(8, dr, float)
BIND_W(9, dstates, float)
BIND_RW(10, dstart, float)

const uint WIDE = 16;
shared float m[128 * WIDE], left[CHUNK * WIDE], right[CHUNK * WIDE], back[CHUNK * WIDE];
shared float bs[CHUNK];
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
        if (END == FROM_GIVEN) x = LOAD1(dend, base + d * a.dv + column);
        if (END == FROM_LAST) x = dstart[base + d * a.dv + column];
        m[d * WIDE + c] = x;
        if (mine) dstates[STATE_GRAD_AT(local, a.first + a.count) + d * a.dv + j] = x;
    }
    for (uint turn = a.count; turn > 0; turn--) {
        uint chunk = a.first + turn - 1u, n = chunk_tokens(chunk), t0 = chunk * CHUNK;
        if (lane < CHUNK) {
            uint at = CHUNK_AT(local, chunk) + lane;
            gs[lane] = vec2(LOAD1(g, at), LOAD1(g, at + CHUNK));
            bs[lane] = LOAD1(beta, synapse_row(pair, t0 + min(lane, n - 1u)));
        }
        for (uint i = first; i < n; i += step)
            right[i * WIDE + c] = LOAD1(dout, synapse_row(pair, t0 + i) * a.dv + column);
        barrier();
        uint plane = PLANE_AT(local, chunk);
        for (uint i = first; i < n; i += step) {
            float x = 0.0, later = 0.0;
            uint row = synapse_row(pair, t0 + i) * a.dk;
            for (uint s = i; s < n; s++)
                x += LOAD1(planes, plane + s * CHUNK + i) * right[s * WIDE + c];
            for (uint d = 0; d < a.dk; d++) later += LOAD1(k, row + d) * m[d * WIDE + c];
            left[i * WIDE + c] = x + fade_from(gs[i], gs[CHUNK - 1u]) * later;
        }
        barrier();
        for (uint i = first; i < n; i += step) {
            float x = 0.0;
            for (uint s = i; s < n; s++)
                x += LOAD1(planes, half_size + plane + s * CHUNK + i) * left[s * WIDE + c];
            uint t = t0 + i;
            if (mine) dv[synapse_row(pair, t) * a.dv + j] = bs[i] * x;
            if (j < a.row) dr[(local * a.chunks * CHUNK + t) * a.row + j] = mine ? x : 0.0;
            right[i * WIDE + c] *= exp_exact(gs[i].x);
            back[i * WIDE + c] = exp_exact(gs[i].x) * bs[i] * x;
        }
        barrier();
        float fade = exp_exact(gs[CHUNK - 1u].x);
        for (uint d = first; d < a.dk; d += step) {
            float x = 0.0;
            for (uint i = 0; i < n; i++) {
                uint row = synapse_row(pair, t0 + i) * a.dk + d;
                x += LOAD1(q, row) * right[i * WIDE + c] - LOAD1(k, row) * back[i * WIDE + c];
            }
            x += fade * m[d * WIDE + c];
            m[d * WIDE + c] = x;
            if (mine) dstates[STATE_GRAD_AT(local, chunk) + d * a.dv + j] = x;
        }
        barrier();
    }
    for (uint d = first; d < a.dk; d += step)
        if (mine) dstart[base + d * a.dv + j] = m[d * WIDE + c];
}
