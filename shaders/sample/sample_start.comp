// changed[n, v] = logits[n, v], in rows of whole vec4s that end in minus infinity.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/sample.h"
#include "matmul/load_any.glsl"

BIND_T(0, logits)
BIND_OUT(1, changed)
DEFINE_LOAD_ANY(any_logits, LOAD4, logits)

vec4 value(uint i)
{
    uint e = (a.first + i) * 4, row = e / a.stride, v = e - row * a.stride;
    uint last = row * a.vocab + a.vocab - 1;
    vec4 x = any_logits(row * a.vocab + v, last);
    return mix(x, vec4(uintBitsToFloat(0xff800000u)),
               greaterThanEqual(v + uvec4(0, 1, 2, 3), uvec4(a.vocab)));
}

void main() { EACH_STORE(changed, a.count, value) }
