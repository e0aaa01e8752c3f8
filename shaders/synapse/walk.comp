// The gated delta rule (synapse.glsl), token after token, for CPU drivers: fewer operations than by
// chunks, and nothing but registers in between. lane = four columns of M, which do not depend on
// each other; a token's keys and queries are loaded once per subgroup and shuffled.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

layout(constant_id = 3) const uint KQ = 16;       // quads of dk
layout(constant_id = 4) const bool SAVE = true;   // u and the states before each chunk
layout(constant_id = 5) const uint START = 0;

BIND_T(0, q)
BIND_T(1, k)
BIND_T(2, v)
BIND_T(3, la)
BIND_T(4, beta)
BIND_T(5, start)
BIND_OUT(6, o)
BIND_IO(7, end)
BIND_OUT(8, states)
BIND_OUT(9, u)

const uint PARTS = (KQ + GROUP - 1u) / GROUP;

void main()
{
    uint lane = gl_LocalInvocationID.x, local = gl_WorkGroupID.y, pair = a.first_pair + local;
    uint j = (gl_WorkGroupID.x * GROUP + lane) * 4u, base = pair * a.dk * a.dv;

    vec4 m[KQ * 4u];
    [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
        [[unroll]] for (uint c = 0; c < 4u; c++) {
            uint row = kq * 4u + c;
            m[row] = vec4(0.0);
            if (START == FROM_GIVEN && row < a.dk) m[row] = VALUE4(start, base + row * a.dv, j);
            if (START == FROM_LAST && row < a.dk && j < a.dv)
                [[unroll]] for (uint p = 0; p < 4u; p++)
                    m[row][p] = end_1[base + row * a.dv + min(j + p, a.dv - 1u)];
        }
    }

    for (uint chunk = a.first; chunk < a.first + a.count; chunk++) {
        if (SAVE) {
            uint to = STATE_AT(local, chunk);
            [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
                [[unroll]] for (uint c = 0; c < 4u; c++) {
                    uint row = kq * 4u + c;
                    if (row < a.dk) VALUE_STORE4(states, to + row * a.dv, j, m[row])
                }
            }
        }
        uint n = chunk_tokens(chunk);
        for (uint i = 0; i < n; i++) {
            uint row = synapse_row(pair, chunk * CHUNK + i);
            vec4 ks[PARTS], qs[PARTS];
            [[unroll]] for (uint p = 0; p < PARTS; p++) {
                uint d = min(p * GROUP + lane, KQ - 1u) * 4u;
                ks[p] = KEY4(k, row * a.dk, d);
                qs[p] = KEY4(q, row * a.dk, d);
            }
            float keep = exp_exact(LOAD1(la, row)), b = LOAD1(beta, row);
            vec4 known = vec4(0.0), sum = vec4(0.0);
            [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
                vec4 part = vec4(0.0);
                [[unroll]] for (uint c = 0; c < 4u; c++)
                    part += subgroupShuffle(ks[kq / GROUP][c], kq % GROUP) * m[kq * 4u + c];
                known += part;
            }
            vec4 error = VALUE4(v, row * a.dv, j) - keep * known, w = b * error;
            [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
                vec4 part = vec4(0.0);
                [[unroll]] for (uint c = 0; c < 4u; c++) {
                    uint at = kq * 4u + c;
                    m[at] = keep * m[at] + subgroupShuffle(ks[kq / GROUP][c], kq % GROUP) * w;
                    part += subgroupShuffle(qs[kq / GROUP][c], kq % GROUP) * m[at];
                }
                sum += part;
            }
            VALUE_STORE4(o, row * a.dv, j, sum)
            if (SAVE) VALUE_STORE4(u, row * a.dv, j, error)
        }
    }
    [[unroll]] for (uint kq = 0; kq < KQ; kq++) {
        [[unroll]] for (uint c = 0; c < 4u; c++) {
            uint row = kq * 4u + c;
            if (row < a.dk) VALUE_STORE4(end, base + row * a.dv, j, m[row])
        }
    }
}
