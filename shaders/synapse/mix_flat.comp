// dq_i = sum_j X_ij k_j + e^{g_i} M do_i
// dk_i = sum_j X_ji q_j - sum_j (Y_ij + Y_ji) k_j + e^{g_n - g_i} G w_i - e^{g_i} M dv_i
// with M the state before the chunk, G the gradient of the one behind it; pairs_flat.comp.
// CPU drivers: 16 tokens i, lane = four key channels.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

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

const uint TM = 16;
const uint PARTS = (TM + GROUP - 1u) / GROUP;
vec4 sum_q[TM], sum_k[TM];

// Row i's value of term t: loaded by rows (term t of row i), or by terms (rows 4r .. of term t).
#define BY_ROW(x, i, t) subgroupShuffle(x[(i) / GROUP][t], (i) % GROUP)
#define BY_TERM(x, i, t)                                                                           \
    subgroupShuffle(x[((t) * 4u + (i) / 4u) / GROUP][(i) % 4u], ((t) * 4u + (i) / 4u) % GROUP)

void main()
{
    uint lane = gl_LocalInvocationID.x, chunk = gl_WorkGroupID.y, local = gl_WorkGroupID.z;
    uint pair = a.first_pair + local, n = chunk_tokens(chunk), t0 = chunk * CHUNK;
    uint i0 = gl_WorkGroupID.x % (CHUNK / TM) * TM;
    uint d0 = (gl_WorkGroupID.x / (CHUNK / TM) * GROUP + lane) * 4u;
    if (i0 >= n) return;

    [[unroll]] for (uint i = 0; i < TM; i++) sum_q[i] = sum_k[i] = vec4(0.0);
    uint x0 = PLANE_AT(local, chunk), y0 = x0 + a.pairs * a.chunks * CHUNK * CHUNK;
    for (uint j = 0; j < n; j += 4) {
        vec4 xs[PARTS], ys[PARTS], xt[PARTS], yt[PARTS];
        [[unroll]] for (uint p = 0; p < PARTS; p++) {
            uint part = (p * GROUP + lane) % TM, own = (i0 + part) * CHUNK + j;
            uint other = (j + part / 4u) * CHUNK + i0 + part % 4u * 4u;
            xs[p] = LOAD4(planes, (x0 + own) >> 2);
            ys[p] = LOAD4(planes, (y0 + own) >> 2);
            xt[p] = LOAD4(planes, (x0 + other) >> 2);
            yt[p] = LOAD4(planes, (y0 + other) >> 2);
        }
        [[unroll]] for (uint t = 0; t < 4u; t++) {
            uint row = synapse_row(pair, t0 + min(j + t, n - 1u)) * a.dk;
            vec4 ks = KEY4(k, row, d0), qs = KEY4(q, row, d0);
            [[unroll]] for (uint i = 0; i < TM; i++) {
                sum_q[i] += BY_ROW(xs, i, t) * ks;
                sum_k[i] += BY_TERM(xt, i, t) * qs - (BY_ROW(ys, i, t) + BY_TERM(yt, i, t)) * ks;
            }
        }
    }

    uint row[PARTS];
    float early[PARTS], late[PARTS]; // e^{g_i}, and e^{g_n - g_i} beta_i
    uint g0 = CHUNK_AT(local, chunk);
    vec2 all = vec2(LOAD1(g, g0 + CHUNK - 1u), LOAD1(g, g0 + 2u * CHUNK - 1u));
    [[unroll]] for (uint p = 0; p < PARTS; p++) {
        uint i = min(i0 + p * GROUP + lane, n - 1u), r = synapse_row(pair, t0 + i);
        vec2 gi = vec2(LOAD1(g, g0 + i), LOAD1(g, g0 + CHUNK + i));
        row[p] = r * a.dv;
        early[p] = exp_exact(gi.x);
        late[p] = fade_from(gi, all) * LOAD1(beta, r);
    }
    uint m0 = STATE_AT(local, chunk), dm = STATE_GRAD_AT(local, chunk + 1u);
    for (uint d = 0; d < a.dv; d += 4) {
        vec4 os[PARTS], vs[PARTS], ws[PARTS], ms[4], gs[4];
        [[unroll]] for (uint p = 0; p < PARTS; p++) {
            os[p] = early[p] * VALUE4(dout, row[p], d);
            vs[p] = early[p] * VALUE4(dv, row[p], d);
            ws[p] = late[p] * VALUE4(u, row[p], d);
        }
        [[unroll]] for (uint c = 0; c < 4u; c++) {
            uint channel = min(d0 + c, a.dk - 1u) * a.dv;
            ms[c] = VALUE4(states, m0 + channel, d);
            gs[c] = VALUE4(dstates, dm + channel, d);
        }
        [[unroll]] for (uint t = 0; t < 4u; t++) {
            vec4 mt = vec4(ms[0][t], ms[1][t], ms[2][t], ms[3][t]);
            vec4 gt = vec4(gs[0][t], gs[1][t], gs[2][t], gs[3][t]);
            [[unroll]] for (uint i = 0; i < TM; i++) {
                sum_q[i] += BY_ROW(os, i, t) * mt;
                sum_k[i] += BY_ROW(ws, i, t) * gt - BY_ROW(vs, i, t) * mt;
            }
        }
    }

    [[unroll]] for (uint i = 0; i < TM; i++) {
        if (i0 + i >= n) return;
        uint to = synapse_row(pair, t0 + i0 + i) * a.dk;
        KEY_STORE4(dq, to, d0, sum_q[i])
        KEY_STORE4(dk, to, d0, sum_k[i])
    }
}
