// From logits z: with c = log(1 - sigmoid(z)) and A the sum of c over all newer visible keys,
//   w_ij = exp(log sigmoid(z_ij) + A_ij), 0 for keys out of sight;  rem_i = exp(sum of all c).
// CPU drivers: lane = row, from the newest key to the oldest; w is lifted, see stick.glsl.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool KEEP = false;
layout(constant_id = 2) const uint TM = 16; // rows that share an extent

BIND_T(0, z)
BIND_R(1, used, int)
BIND_R(2, keep, int)
BIND_W(3, w, vec4)
BIND_W(4, rem, float)
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

    float used_up = 0.0; // log of what newer keys have left of the stick
    for (uint step = (stick_extent(first, TM, n) + 15u) / 16u; step > 0; step--) {
        [[unroll]] for (int part = 3; part >= 0; part--) {
            uint quad = step * 4u - 4u + uint(part);
            vec4 logit = LOAD4(z, base + min(quad, (a.stride >> 2) - 1u)), weight;
            [[unroll]] for (int c = 3; c >= 0; c--) {
                uint j = quad * 4u + uint(c);
                bool see = j < visible && j >= oldest;
                if (KEEP) see = see && keep[hidden + min(j, a.keys - 1u)] != 0;
                float tail = log1p_unit(exp_exact(-abs(logit[c])));
                float x = min(logit[c], 0.0) - tail + used_up;
                weight[c] = see ? STICK_LIFT * exp_exact(x) : 0.0;
                used_up -= see ? max(logit[c], 0.0) + tail : 0.0;
            }
            if (inside && quad < extent) w[base + quad] = weight;
        }
    }
    uint b = pair / a.heads, h = pair % a.heads;
    uint r = b * a.tokens * a.slots + a.first_row + row;
    if (inside && (a.flags & STICK_REM) != 0u) rem[r * a.heads + h] = exp_exact(used_up);
}
