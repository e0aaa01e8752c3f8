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

vec4 of_row;

vec4 value(uint i, uint row) { return of_row; }

void main()
{
    EACH_ROW(row) {
        of_row = vec4(a.factor * x[row]);
        ROW_STORE(y, row, value)
    }
}
