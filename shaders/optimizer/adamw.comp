// One AdamW step with decoupled decay over a window of a store. [adamw]
//   g' = scale g, scale = min(1, clip / (norm + 1e-6)), norm = sqrt(square_sum); clip 0: scale 1
//   m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
//   p -= lr (decay p + m / (1 - b1^t) / (sqrt(v) / sqrt(1 - b2^t) + eps))
// p, grad, m, v [64 blocks]; hyper [8]: lr, 1 - b1, 1 - b2, eps, clip, 1 - b1^t, 1 - b2^t;
// groups i32 [blocks]: row of table [G, 2] (factor on lr, decay), any other number freezes.
// p, m and v are rewritten in place: an invocation writes only what it has read.
// A workgroup owns 256 elements.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "integers.glsl"
#include "each.glsl"
#include "args.h"
#include "args/adamw.h"

BIND_T(0, p)
BIND_T(1, grad)
BIND_T(2, m)
BIND_T(3, v)
BIND_T(4, hyper)
BIND_R(5, square_sum, float)
BIND_TI(6, groups)
BIND_T(7, table)
BIND_W(8, new_p, vec4)
BIND_W(9, new_m, vec4)
BIND_W(10, new_v, vec4)

void main()
{
    uint first = 4u * group_index(); // block
    if (first >= a.blocks) return;
    vec4 h = LOAD4(hyper, 0u), more = LOAD4(hyper, 1u);
    float lr = h.x, c1 = h.y, c2 = h.z, eps = h.w, clip = more.x;
    float step_size = 1.0 / more.y, root = 1.0 / sqrt(more.z);
    float scale = clip > 0.0 ? min(1.0, clip / (sqrt(square_sum[0]) + 1e-6)) : 1.0;
    ivec4 group = LOAD4I(groups, group_index());

    for (uint k = gl_LocalInvocationID.x; k < 64u; k += GROUP) { // vec4 of the 256 elements
        uint b = k >> 4, i = 16u * first + k;
        int row = b < 2u ? (b == 0u ? group.x : group.y) : (b == 2u ? group.z : group.w);
        if (first + b >= a.blocks || uint(row) >= a.groups) continue;
        vec4 rates = LOAD4(table, uint(row) >> 1); // two rows of the table
        vec2 rate = (row & 1) == 0 ? rates.xy : rates.zw;
        float own_lr = lr * rate.x;
        vec4 g = scale * LOAD4(grad, i);
        vec4 m1 = (1.0 - c1) * LOAD4(m, i) + c1 * g;
        vec4 v1 = (1.0 - c2) * LOAD4(v, i) + c2 * (g * g);
        vec4 p0 = LOAD4(p, i);
        new_m[i] = m1;
        new_v[i] = v1;
        // One small number is taken off, so that p is rounded once: 1 - lr decay would be off by
        // up to 2^-25 the same way every step.
        new_p[i] = p0 - own_lr * (rate.y * p0 + step_size * (m1 / (sqrt(v1) * root + eps)));
    }
}
