// Gradient of norm.comp to x. With h = (x - m) r and g = dy w:
//   LAYER   dx = r (g - mean(g) - h mean(g h))
//   RMS     dx = r (g - h mean(g h))
//   UNIT    dx = r (dy - h sum(dy h)), without the second term where epsilon was the divisor
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/norm_grad.h"
#include "row_walk.glsl"

layout(constant_id = 3) const uint KIND = 0;
const uint LAYER = 0;
const uint RMS = 1;
const uint UNIT = 2;

BIND_T(0, dy)
BIND_T(1, x)
BIND_T(2, w)
BIND_R(3, stats, vec2)
BIND_OUT(4, dx)

float mean, r; // of the row
vec2 sums;     // of g and of g h, or their means

vec4 scaled(uint i, uint row) // g
{
    vec4 g = LOAD_ROW(dy, i, row, 0.0);
    return KIND == UNIT ? g : g * LOAD_COLUMN(w, i, row);
}

vec4 normal(uint i, uint row) // h
{
    return (LOAD_ROW(x, i, row, mean) - mean) * r;
}

vec4 value(uint i, uint row)
{
    return r * (scaled(i, row) - sums.x - normal(i, row) * sums.y);
}

void main()
{
    EACH_ROW(row) {
        vec2 stat = stats[row];
        mean = KIND == LAYER ? stat.x : 0.0;
        r = stat.y;
        vec4 s = vec4(0.0), t = vec4(0.0);
        EACH_IN_ROW(i, row) {
            vec4 g = scaled(i, row);
            if (KIND == LAYER) s += g;
            t += g * normal(i, row);
        }
        sums = row_sum(vec2(sum4(s), sum4(t)));
        if (KIND == UNIT)
            sums.y *= stat.x;
        else
            sums /= float(a.width);
        ROW_STORE(dx, row, value)
    }
}
