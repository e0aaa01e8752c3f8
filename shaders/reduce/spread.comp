// y[r, c] = factor x[r].
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/spread.h"
#include "row_walk.glsl"

BIND_R(0, x, float)
BIND_OUT(1, y)

void main()
{
    EACH_ROW(row) {
        vec4 v = vec4(a.factor * x[row]);
        EACH_IN_ROW(i, row) STORE_ROW(y, i, row, v);
    }
}
