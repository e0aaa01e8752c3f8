// y[r] = sum, mean or largest of x[r, :].
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/row_reduce.h"
#include "row_walk.glsl"

layout(constant_id = 3) const uint KIND = 0; // qn_reduction
const uint SUM = 0;
const uint MEAN = 1;
const uint MAX = 2;
const float LOWEST = -3.40282347e38;

BIND_T(0, x)
BIND_W(1, y, float)

void main()
{
    EACH_ROW(row) {
        vec4 s = vec4(KIND == MAX ? LOWEST : 0.0);
        EACH_IN_ROW(i, row) {
            if (KIND == MAX)
                s = max(s, LOAD_ROW(x, i, row, LOWEST));
            else
                s += LOAD_ROW(x, i, row, 0.0);
        }
        float t = KIND == MAX ? row_max(max4(s)) : row_sum(sum4(s));
        if (row_leader()) y[row] = KIND == MEAN ? t / float(a.width) : t;
    }
}
