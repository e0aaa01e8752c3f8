// Something about every element, over all models: how much they spread (KIND 0: the sum of squared
// differences of the x_m - base from their mean), how many differ from base (KIND 1: |x_m - base|
// above epsilon), how much x_0 matters to its row (KIND 2: |x_0 - base| times the row's factor).
// More models than bindings: the plane is continued, `before` models are in it. [sce]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/merge_plane.h"
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint KIND = 0;
#include "merge/merge.glsl"

BIND_X(0, base)
BIND_X(1, x0)
BIND_X(2, x1)
BIND_X(3, x2)
BIND_X(4, x3)
BIND_X(5, x4)
BIND_X(6, x5)
BIND_X(7, x6)
BIND_R(8, rows, float)
BIND_RW(9, plane, vec4)
BIND_RW(10, means, vec4) // KIND 0, to be continued

#define ADD(m)                                                                                     \
    if (COUNT > m) {                                                                               \
        vec4 d = LOADX4(x##m, i) - b;                                                              \
        if (KIND == 0) {                                                                           \
            vec4 off = d - mean;                                                                   \
            mean += off / float(a.before + m + 1);                                                 \
            v += off * (d - mean);                                                                 \
        } else {                                                                                   \
            v += vec4(greaterThan(abs(d), vec4(a.epsilon)));                                       \
        }                                                                                          \
    }

void main()
{
    EACH4(i, a.count) {
        vec4 b = LOADX4(base, i), v = vec4(0.0), mean = vec4(0.0);
        if (KIND == 2) {
            uvec4 row = (a.first + 4 * i + uvec4(0, 1, 2, 3)) / a.width;
            uint last = (a.first + a.count - 1) / a.width;
            row = min(row, uvec4(last));
            plane[i] = abs(LOADX4(x0, i) - b) *
                       vec4(rows[row.x], rows[row.y], rows[row.z], rows[row.w]);
            continue;
        }
        if (a.before > 0) {
            v = plane[i];
            if (KIND == 0) mean = means[i];
        }
        ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6)
        plane[i] = v;
        if (KIND == 0) means[i] = mean;
    }
}
