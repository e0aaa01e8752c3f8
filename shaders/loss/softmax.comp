// y[r, :] = softmax(x[r, :]) or its logarithm.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "math.glsl"
#include "args.h"
#include "args/softmax.h"
#include "row_walk.glsl"

layout(constant_id = 3) const uint LOGARITHM = 0;

BIND_T(0, x)
BIND_OUT(1, y)

#include "softmax.glsl"

float top, scale, shift; // of the row

vec4 value(uint i, uint row)
{
    vec4 v = LOAD_ROW(x, i, row, top) - top;
    return LOGARITHM == 1 ? v - shift : exp_exact(v) * scale;
}

void main()
{
    EACH_ROW(row) {
        vec2 t = row_softmax(row);
        top = t.x;
        scale = 1.0 / t.y;
        shift = log_exact(t.y);
        ROW_STORE(y, row, value)
    }
}
