// w = rho m / (m + tau^2) with m = mean(r^2) over a row. r [rows, D], rho [rows] -> [rows].
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/resonance.h"
#include "row_walk.glsl"

BIND_T(0, r)
BIND_T(1, rho)
BIND_W(2, w, float)

void main()
{
    EACH_ROW(row) {
        vec4 s = vec4(0.0);
        EACH_IN_ROW(i, row) {
            vec4 x = LOAD_ROW(r, i, row, 0.0);
            s += x * x;
        }
        float m = row_sum(sum4(s)) / float(a.width);
        if (row_leader()) w[row] = LOAD1(rho, row) * (m / (m + a.square));
    }
}
