// y = c0 p + sum_m cm (xm - p), the weighted sum around a pivot p: models that are equal to it
// leave it as it is. Coefficients: one set, or one for each row or column. KIND 1, near-swap:
// y = p + k (x1 - p), k = clamp(c1 / |x1 - p|, 0, 1).
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/merge_mix.h"
layout(constant_id = 1) const uint OUT = 0;
layout(constant_id = 2) const uint COUNT = 1;  // inputs, the pivot included
layout(constant_id = 3) const uint SPREAD = 0; // 0: one set, 1: per row, 2: per column
layout(constant_id = 4) const uint MORE = 0;   // 1: adds to what earlier models gave
layout(constant_id = 5) const uint KIND = 0;
#include "merge/merge.glsl"

BIND_X(0, x0)
BIND_X(1, x1)
BIND_X(2, x2)
BIND_X(3, x3)
BIND_X(4, x4)
BIND_X(5, x5)
BIND_X(6, x6)
BIND_X(7, x7)
BIND_R(8, c, float) // [COUNT], [rows, COUNT] or [columns, COUNT]
BIND_T(9, before)
BIND_STORED(10, y)

// Which set of coefficients an element uses.
uvec4 sets(uint i)
{
    if (SPREAD == 0) return uvec4(0);
    uvec4 e = a.first + 4 * i + uvec4(0, 1, 2, 3);
    return SPREAD == 1 ? e / a.width : e % a.width;
}

vec4 factor(uvec4 set, uint m)
{
    if (SPREAD == 0) return vec4(c[m]);
    return vec4(c[set.x * COUNT + m], c[set.y * COUNT + m], c[set.z * COUNT + m],
                c[set.w * COUNT + m]);
}

#define ADD(m)                                                                                     \
    if (COUNT > m) v += factor(set, m) * (LOADX4(x##m, i) - p);

void main()
{
    EACH4(i, a.count) {
        vec4 p = LOADX4(x0, i), v;
        uvec4 set = sets(i);
        if (KIND == 1) {
            vec4 d = LOADX4(x1, i) - p;
            vec4 k = min(vec4(c[1]) / max(abs(d), vec4(1e-6)), vec4(1.0));
            v = mix(p + max(k, vec4(0.0)) * d, p + d, greaterThanEqual(k, vec4(1.0)));
        } else {
            v = factor(set, 0) * p;
            ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7)
            if (MORE == 1) v += LOAD4(before, i);
        }
        STORE4(y, i, v)
    }
}
