// y = base + sum_m of x_m - base where it exceeds epsilon: times the model's factor where it is the
// only one, divided by the number of such models (the plane) where it is not.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/merge_ram.h"
layout(constant_id = 1) const uint OUT = 0;
layout(constant_id = 2) const uint COUNT = 1;
layout(constant_id = 3) const uint MORE = 0; // 1: adds to what earlier models gave
#include "merge/merge.glsl"

BIND_X(0, base)
BIND_X(1, x0)
BIND_X(2, x1)
BIND_X(3, x2)
BIND_X(4, x3)
BIND_X(5, x4)
BIND_X(6, x5)
BIND_X(7, x6)
BIND_R(8, factor, float)
BIND_T(9, plane)
BIND_T(10, before)
BIND_STORED(11, y)

#define ADD(m)                                                                                     \
    if (COUNT > m) {                                                                               \
        vec4 d = LOADX4(x##m, i) - b;                                                              \
        vec4 part = mix(d / max(models, vec4(1.0)), factor[a.model + m] * d, equal(models, vec4(1.0)));      \
        v += mix(vec4(0.0), part, greaterThan(abs(d), vec4(a.epsilon)));                           \
    }

void main()
{
    EACH4(i, a.count) {
        vec4 b = LOADX4(base, i), models = LOAD4(plane, i), v = vec4(0.0);
        ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6)
        STORE4(y, i, (MORE == 1 ? LOAD4(before, i) : b) + v)
    }
}
