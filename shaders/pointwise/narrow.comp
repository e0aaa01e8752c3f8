// y = x rounded to f16 or bf16, to nearest even, two values per word. An odd count leaves a zero
// in the last half word.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "narrow.glsl"
#include "args.h"
#include "args/narrow.h"

layout(constant_id = 1) const uint BF16 = 0; // 0: f16

BIND_T(0, x)
BIND_W(1, y, uint)

uint narrow(float v)
{
    uint bits = floatBitsToUint(v);
    return BF16 == 1 ? to_bf16(bits) : to_f16(bits);
}

void main()
{
    EACH4(i, a.count) {
        vec4 v = LOAD4(x, i);
        uint e = 4 * i;
        uint lo = narrow(v.x), hi = e + 1 < a.count ? narrow(v.y) : 0;
        y[2 * i] = lo | hi << 16;
        if (e + 2 < a.count) {
            lo = narrow(v.z);
            hi = e + 3 < a.count ? narrow(v.w) : 0;
            y[2 * i + 1] = lo | hi << 16;
        }
    }
}
