// From logits z: with c = log(1 - sigmoid(z)) and A the sum of c over all newer visible keys,
//   w_ij = exp(log sigmoid(z_ij) + A_ij), 0 for keys out of sight;  rem_i = exp(sum of all c).
// One row per workgroup, 256 keys at a time from the newest to the oldest.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool KEEP = false;
const uint SIDE = 32; // rows that share an extent

BIND_T(0, z)
BIND_R(1, used, int)
BIND_R(2, keep, int)
BIND_W(3, w, vec4)
BIND_W(4, rem, float)
#include "attention/stick.glsl"
#include "attention/stick_scan.glsl"

void main()
{
    // Lane 0 holds the newest keys of a chunk, so that what comes before is what is newer.
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z, row = gl_WorkGroupID.x;
    uint extent = stick_extent(row, SIDE, n) >> 2, visible = stick_visible(row, n);
    uint oldest = stick_oldest(visible);
    uint base = (gl_WorkGroupID.z * a.rows + row) * (a.stride >> 2);
    uint hidden = pair / a.heads * a.keys;

    float used_up = 0.0; // minus the log of what newer chunks have left of the stick
    for (uint chunk = (extent + 63u) / 64u; chunk > 0; chunk--) {
        uint quad = chunk * 64u - 1u - lane;
        vec4 logit = vec4(0.0), cost = vec4(0.0), weight;
        uvec4 key = quad * 4u + uvec4(0, 1, 2, 3);
        // Beyond both ends the difference is at least `visible - oldest`, as unsigned numbers are.
        bvec4 see = lessThan(key - oldest, uvec4(visible - oldest));
        if (quad < extent) logit = LOAD4(z, base + quad);
        [[unroll]] for (uint c = 0; c < 4; c++) {
            if (KEEP && see[c]) see[c] = keep[hidden + quad * 4u + c] != 0;
            weight[c] = min(logit[c], 0.0) - log1p_unit(exp_exact(-abs(logit[c])));
            cost[c] = see[c] ? max(logit[c], 0.0) + log1p_unit(exp_exact(-abs(logit[c]))) : 0.0;
        }
        float all, newer = stick_before(lane, cost.x + cost.y + cost.z + cost.w, all) + used_up;
        [[unroll]] for (int c = 3; c >= 0; c--) {
            weight[c] = see[c] ? exp_exact(weight[c] - newer) : 0.0;
            newer += cost[c];
        }
        if (quad < extent) w[base + quad] = weight;
        used_up += all;
    }
    uint b = pair / a.heads, h = pair % a.heads;
    uint r = b * a.tokens * a.slots + a.first_row + row;
    if (lane == 0u && (a.flags & STICK_REM) != 0u) rem[r * a.heads + h] = exp_exact(-used_up);
}
