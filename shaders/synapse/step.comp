// The gated delta rule (synapse.glsl) for a few tokens, one after another: decoding. One invocation
// per column of M, which it keeps in the end state's memory.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

layout(constant_id = 3) const bool START = false; // a start state is given

BIND_T(0, q)
BIND_T(1, k)
BIND_R(2, v, float)
BIND_T(3, la)
BIND_T(4, beta)
BIND_R(5, start, float)
BIND_W(6, o, float)
BIND_RW(7, end, float)

void main()
{
    uint pair = a.first_pair + gl_WorkGroupID.y, base = pair * a.dk * a.dv;
    uint j = gl_WorkGroupID.x * GROUP + gl_LocalInvocationID.x;
    if (j >= a.dv) return;
    for (uint t = 0; t < a.tokens; t++) {
        uint row = synapse_row(pair, t);
        float keep = exp_exact(LOAD1(la, row)), known = 0.0, sum = 0.0;
        for (uint d = 0; d < a.dk; d++) {
            float m = 0.0;
            if (t > 0u)
                m = end[base + d * a.dv + j];
            else if (START)
                m = start[base + d * a.dv + j];
            known += LOAD1(k, row * a.dk + d) * m;
        }
        float w = LOAD1(beta, row) * (v[row * a.dv + j] - keep * known);
        for (uint d = 0; d < a.dk; d++) {
            float m = 0.0;
            if (t > 0u)
                m = end[base + d * a.dv + j];
            else if (START)
                m = start[base + d * a.dv + j];
            m = keep * m + LOAD1(k, row * a.dk + d) * w;
            end[base + d * a.dv + j] = m;
            sum += LOAD1(q, row * a.dk + d) * m;
        }
        o[row * a.dv + j] = sum;
    }
}
