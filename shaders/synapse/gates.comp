// Gradients of the scalars of each token. The first token of a chunk sees all of the state before
// it, and M changes by what is written and read alone:
//   dla_first = <M, dM>,  dla_{t+1} = dla_t - <do_t, o_t> + <dv_t, v_t>,   dbeta_t = <dR_t, u_t>
// One workgroup per pair and chunk.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

BIND_T(0, o)
BIND_T(1, v)
BIND_T(2, u)
BIND_T(3, dout)
BIND_T(4, dv)
BIND_T(5, dr)
BIND_T(6, states)
BIND_T(7, dstates)
BIND_W(8, dla, float)
BIND_W(9, dbeta, float)

void main()
{
    uint lane = gl_LocalInvocationID.x, chunk = gl_WorkGroupID.x, local = gl_WorkGroupID.y;
    uint pair = a.first_pair + local, n = chunk_tokens(chunk), size = a.dk * a.dv;
    uint m0 = STATE_AT(local, chunk), dm = STATE_GRAD_AT(local, chunk);
    vec4 part = vec4(0.0);
    for (uint i = lane * 4u; i + 4u <= size; i += GROUP * 4u)
        part += LOAD4(states, (m0 + i) >> 2) * LOAD4(dstates, (dm + i) >> 2);
    float sum = dot(part, vec4(1.0));
    for (uint i = (size & ~3u) + lane; i < size; i += GROUP)
        sum += LOAD1(states, m0 + i) * LOAD1(dstates, dm + i);
    float decay = group_sum(sum);

    for (uint i = 0; i < n; i++) {
        uint t = chunk * CHUNK + i, row = synapse_row(pair, t), base = row * a.dv;
        uint back = (local * a.chunks * CHUNK + t) * a.row;
        vec4 seen = vec4(0.0), wrong = vec4(0.0);
        for (uint d = lane * 4u; d < a.dv; d += GROUP * 4u) {
            vec4 x = VALUE4(dout, base, d) * VALUE4(o, base, d);
            seen += x - VALUE4(dv, base, d) * VALUE4(v, base, d);
            wrong += LOAD4(dr, (back + d) >> 2) * VALUE4(u, base, d);
        }
        vec2 all = group_sum(vec2(dot(seen, vec4(1.0)), dot(wrong, vec4(1.0))));
        if (lane == 0u) {
            dla[row] = decay;
            dbeta[row] = all.y;
        }
        decay -= all.x;
    }
}
