// Gradient of softmax.comp from its result y:
//   softmax        dx = y (dy - sum(y dy))
//   its logarithm  dx = dy - exp(y) sum(dy)
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/softmax_grad.h"
#include "row_walk.glsl"

layout(constant_id = 3) const uint LOGARITHM = 0;

BIND_T(0, dy)
BIND_T(1, y)
BIND_OUT(2, dx)

float sum; // of the row

vec4 value(uint i, uint row)
{
    vec4 g = LOAD_ROW(dy, i, row, 0.0), v = LOAD_ROW(y, i, row, 0.0);
    return LOGARITHM == 1 ? g - exp_exact(v) * sum : v * (g - sum);
}

void main()
{
    EACH_ROW(row) {
        vec4 s = vec4(0.0);
        EACH_IN_ROW(i, row) {
            vec4 g = LOAD_ROW(dy, i, row, 0.0);
            s += LOGARITHM == 1 ? g : g * LOAD_ROW(y, i, row, 0.0);
        }
        sum = row_sum(sum4(s));
        ROW_STORE(dx, row, value)
    }
}
