// The gradient of the logits. With p = <dO_i, v_j>, g = w p and G the sum of g over all older keys:
//   dz_ij = g_ij (1 - sigmoid(z_ij)) - sigmoid(z_ij) G_ij, 0 for keys out of sight.
// One row per workgroup, 256 keys at a time from the oldest to the newest.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/stickbreaking.h"

layout(constant_id = 1) const bool KEEP = false;
const uint SIDE = 32; // rows that share an extent

BIND_T(0, z)
BIND_T(1, w)
BIND_T(2, p)
BIND_R(3, used, int)
BIND_R(4, keep, int)
BIND_W(5, dz, vec4)
#include "attention/stick.glsl"
#include "attention/stick_scan.glsl"

void main()
{
    uint lane = gl_LocalInvocationID.x, n = stick_keys(a.first_pair + gl_WorkGroupID.z);
    uint pair = a.first_pair + gl_WorkGroupID.z, row = gl_WorkGroupID.x;
    uint extent = stick_extent(row, SIDE, n) >> 2, visible = stick_visible(row, n);
    uint oldest = stick_oldest(visible);
    uint base = (gl_WorkGroupID.z * a.rows + row) * (a.stride >> 2);
    uint hidden = pair / a.heads * a.keys;

    float older = 0.0; // G before this chunk
    for (uint first = 0; first < extent; first += 64) {
        uint quad = first + lane;
        vec4 logit = vec4(0.0), g = vec4(0.0), slope;
        uvec4 key = quad * 4u + uvec4(0, 1, 2, 3);
        // Beyond both ends the difference is at least `visible - oldest`, as unsigned numbers are.
        bvec4 see = lessThan(key - oldest, uvec4(visible - oldest));
        if (quad < extent) {
            logit = LOAD4(z, base + quad);
            g = LOAD4(w, base + quad) * LOAD4(p, base + quad);
        }
        [[unroll]] for (uint c = 0; c < 4; c++) {
            if (KEEP && see[c]) see[c] = keep[hidden + quad * 4u + c] != 0;
            if (!see[c]) g[c] = 0.0;
        }
        float all, before = stick_before(lane, g.x + g.y + g.z + g.w, all) + older;
        [[unroll]] for (uint c = 0; c < 4; c++) {
            slope[c] = see[c] ? g[c] * sigmoid(-logit[c]) - sigmoid(logit[c]) * before : 0.0;
            before += g[c];
        }
        if (quad < extent) dz[base + quad] = slope;
        older += all;
    }
}
