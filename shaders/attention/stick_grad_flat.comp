// The gradient of the logits. With p = <dO_i, v_j>, g = w p and G the sum of g over all older keys:
//   dz_ij = g_ij (1 - sigmoid(z_ij)) - sigmoid(z_ij) G_ij, 0 for keys out of sight.
// CPU drivers: lane = row, from the oldest key to the newest; w and dz are lifted, see stick.glsl.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool KEEP = false;
layout(constant_id = 2) const uint TM = 16; // rows that share an extent

BIND_T(0, z)
BIND_T(1, w)
BIND_T(2, p)
BIND_R(3, used, int)
BIND_R(4, keep, int)
BIND_W(5, dz, vec4)
#include "attention/stick.glsl"

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z;
    uint first = gl_WorkGroupID.y * GROUP;
    uint row = min(first + lane, a.rows - 1u);
    uint extent = stick_extent(row, TM, n) >> 2, visible = stick_visible(row, n);
    uint oldest = stick_oldest(visible);
    uint base = (gl_WorkGroupID.z * a.rows + row) * (a.stride >> 2);
    uint hidden = pair / a.heads * a.keys;
    bool inside = first + lane < a.rows;

    uint steps = (stick_extent(first, TM, n) + 15u) / 16u;
    float older = 0.0; // G
    for (uint step = 0; step < steps; step++) {
        [[unroll]] for (uint part = 0; part < 4; part++) {
            uint quad = step * 4u + part;
            uint at = base + min(quad, (a.stride >> 2) - 1u);
            vec4 logit = LOAD4(z, at), g = LOAD4(w, at) * LOAD4(p, at), slope;
            [[unroll]] for (uint c = 0; c < 4; c++) {
                uint j = quad * 4u + c;
                bool see = j < visible && j >= oldest;
                if (KEEP) see = see && keep[hidden + min(j, a.keys - 1u)] != 0;
                float e = exp_exact(-abs(logit[c])), near = 1.0 / (1.0 + e), far = e * near;
                bool positive = logit[c] >= 0.0;
                float up = positive ? near : far, down = positive ? far : near;
                slope[c] = see ? g[c] * down - up * older : 0.0;
                older += see ? g[c] : 0.0;
            }
            if (inside && quad < extent) dz[base + quad] = slope;
        }
    }
}
