// The gradient's way back through the gated delta rule (synapse.glsl), for CPU drivers. With G_t the
// gradient of M_t, from the last token to the first:
//   G_t += q_t do_t';  dR_t = G_t' k_t;  dv_t = beta_t dR_t;  G_{t-1} = a_t (G_t - k_t dv_t')
// lane = four columns of G, as in walk.comp.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

layout(constant_id = 3) const uint KQ = 16;     // quads of dk
layout(constant_id = 4) const uint END = 0;

BIND_T(0, q)
BIND_T(1, k)
BIND_T(2, la)
BIND_T(3, beta)
BIND_T(4, dout)
BIND_T(5, dend)
BIND_OUT(6, dv)
BIND_OUT(7, dr)      // [pair, chunks * CHUNK, row]
BIND_OUT(8, dstates) // before each chunk, and of the end
BIND_IO(9, dstart)

const uint PARTS = (KQ + GROUP - 1u) / GROUP;
vec4 m[KQ * 4u];

// Elements d .. of every row to `name`, whose first row starts at `to`.
#define STORE_ALL(name, to)                                                                        \
    [[unroll]] for (uint kq = 0; kq < KQ; kq++) {                                                  \
        [[unroll]] for (uint c = 0; c < 4u; c++) {                                                 \
            uint row = kq * 4u + c;                                                                \
            if (row < a.dk) VALUE_STORE4(name, (to) + row * a.dv, j, m[row])                       \
        }                                                                                          \
    }

void main()
{
    uint lane = gl_LocalInvocationID.x, local = gl_WorkGroupID.y, pair = a.first_pair + local;
    uint j = (gl_WorkGroupID.x * GROUP + lane) * 4u, base = pair * a.dk * a.dv;

    [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
        [[unroll]] for (uint c = 0; c < 4u; c++) {
            uint row = kq * 4u + c;
            m[row] = vec4(0.0);
            if (END == FROM_GIVEN && row < a.dk) m[row] = VALUE4(dend, base + row * a.dv, j);
            if (END == FROM_LAST && row < a.dk && j < a.dv)
                [[unroll]] for (uint p = 0; p < 4u; p++)
                    m[row][p] = dstart_1[base + row * a.dv + min(j + p, a.dv - 1u)];
        }
    }
    STORE_ALL(dstates, STATE_GRAD_AT(local, a.first + a.count))

    for (uint chunk = a.first + a.count; chunk > a.first; chunk--) {
        for (uint i = chunk_tokens(chunk - 1u); i > 0; i--) {
            uint t = (chunk - 1u) * CHUNK + i - 1u, row = synapse_row(pair, t);
            vec4 ks[PARTS], qs[PARTS];
            [[unroll]] for (uint p = 0; p < PARTS; p++) {
                uint d = min(p * GROUP + lane, KQ - 1u) * 4u;
                ks[p] = KEY4(k, row * a.dk, d);
                qs[p] = KEY4(q, row * a.dk, d);
            }
            float keep = exp_exact(LOAD1(la, row)), b = LOAD1(beta, row);
            vec4 d = VALUE4(dout, row * a.dv, j), back = vec4(0.0);
            [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
                vec4 part = vec4(0.0);
                [[unroll]] for (uint c = 0; c < 4u; c++) {
                    uint at = kq * 4u + c;
                    m[at] += subgroupShuffle(qs[kq / GROUP][c], kq % GROUP) * d;
                    part += subgroupShuffle(ks[kq / GROUP][c], kq % GROUP) * m[at];
                }
                back += part;
            }
            vec4 own = b * back;
            [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
                [[unroll]] for (uint c = 0; c < 4u; c++) {
                    uint at = kq * 4u + c;
                    m[at] = keep * (m[at] - subgroupShuffle(ks[kq / GROUP][c], kq % GROUP) * own);
                }
            }
            VALUE_STORE4(dv, row * a.dv, j, own)
            if (j < a.row) dr[((local * a.chunks * CHUNK + t) * a.row + j) >> 2] = back;
        }
        STORE_ALL(dstates, STATE_GRAD_AT(local, chunk - 1u))
    }
    STORE_ALL(dstart, base)
}
