// Gradient of resonance.comp: drho = dw m / (m + tau^2),
// dr = dw rho tau^2 / (m + tau^2)^2 * 2 r / D.
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
BIND_T(2, dw)
BIND_OUT(3, dr)
BIND_W(4, drho, float)

float factor; // of the row

vec4 value(uint i, uint row) { return factor * LOAD_ROW(r, i, row, 0.0); }

void main()
{
    EACH_ROW(row) {
        vec4 s = vec4(0.0);
        EACH_IN_ROW(i, row) {
            vec4 x = LOAD_ROW(r, i, row, 0.0);
            s += x * x;
        }
        float m = row_sum(sum4(s)) / float(a.width), sum = m + a.square, d = LOAD1(dw, row);
        factor = d * LOAD1(rho, row) * (a.square / sum) / sum * (2.0 / float(a.width));
        if (row_leader()) drho[row] = d * (m / sum);
        ROW_STORE(dr, row, value)
    }
}
